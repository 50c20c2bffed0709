/* SPDX-License-Identifier: MIT */

/* How one mount is, once or as it goes; and all mounts of this user. */

#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/clock.h>

#define WATCH_MS 1000
#define ASK_MS	 2000 /* for one of many mounts to answer */

/* "2026-01-05T09:00:00Z" as the time of day here. */
static void clock_time(const char *utc, char out[static 16])
{
	struct tm tm = {0}, here;
	time_t when;

	out[0] = '\0';
	if (!strptime(utc, "%Y-%m-%dT%H:%M:%SZ", &tm))
		return;
	when = timegm(&tm);
	if (localtime_r(&when, &here))
		strftime(out, 16, "%H:%M:%S", &here);
}

static void print_state(const json_t *o)
{
	char at[16] = "";
	const char *message = cmd_text(o, "message");

	clock_time(cmd_text(o, "until"), at);
	printf("state     %s%s%s%s%s\n", cmd_text(o, "state"), *at ? " until " : "", at,
	       *message ? ": " : "", message);
}

static void print_status(const json_t *o)
{
	char size[CMD_SIZE], limit[CMD_SIZE], dirty[CMD_SIZE];
	const char *trouble = cmd_text(json_object_get(o, "cache"), "error");

	printf("source    %s\n", cmd_text(o, "source"));
	print_state(o);
	printf("pending   %lld uploads (%s), %lld renames, %lld deletes\n",
	       cmd_number(o, "pending", "uploads"),
	       cmd_size((double)cmd_number(o, "pending", "bytes"), size),
	       cmd_number(o, "pending", "renames"), cmd_number(o, "pending", "deletes"));
	printf("failed    %lld%s\n", cmd_number(o, NULL, "failed"),
	       cmd_number(o, NULL, "failed")
		       ? "   (attachfs failed says why; attachfs retry sends them again)"
		       : "");
	printf("cache     %s of %s, %s of it not on the server yet\n",
	       cmd_size((double)cmd_number(o, "cache", "bytes"), size),
	       cmd_size((double)cmd_number(o, "cache", "limit"), limit),
	       cmd_size((double)cmd_number(o, "cache", "dirty"), dirty));
	if (*trouble)
		printf("ledger    %s: what is written now may not survive the daemon; look at the "
		       "disk of cache_dir=\n",
		       trouble);
	printf("requests  %lld\n", cmd_number(o, "requests", "total"));
}

/* ---- as it goes ---- */

struct seen {
	int64_t ms;
	long long sent, received, requests;
};

static struct seen look_at(const json_t *o)
{
	return (struct seen){clock_mono_ms(), cmd_number(o, "requests", "bytes_sent"),
			     cmd_number(o, "requests", "bytes_received"),
			     cmd_number(o, "requests", "total")};
}

static void print_rates(const json_t *o, const struct seen *then, const struct seen *now)
{
	double s = (double)(now->ms - then->ms) / 1000;
	char up[CMD_SIZE], down[CMD_SIZE];

	if (s <= 0)
		return;
	printf("traffic   up %s/s, down %s/s, %.0f requests/s\n",
	       cmd_size((double)(now->sent - then->sent) / s, up),
	       cmd_size((double)(now->received - then->received) / s, down),
	       (double)(now->requests - then->requests) / s);
	printf("waiting   %lld calls of programs\n", cmd_number(o, NULL, "parked_calls"));
}

/* Until Ctrl-C, or the daemon ends. */
static int watch(const char *mountpoint, bool as_json)
{
	struct seen then = {0};

	for (;;) {
		json_t *o = cmd_status(mountpoint);
		struct seen now;

		if (!o)
			return CMD_FAILED;
		now = look_at(o);
		if (as_json) {
			json_dumpf(o, stdout, JSON_COMPACT);
			putchar('\n');
		} else {
			fputs("\033[H\033[J", stdout);
			print_status(o);
			print_rates(o, then.ms ? &then : &now, &now);
		}
		json_decref(o);
		if (fflush(stdout) != 0)
			return CMD_FAILED;
		then = now;
		poll(NULL, 0, WATCH_MS);
	}
}

int cmd_run_status(const struct cmd_args *a)
{
	bool as_json = cmd_flag(a, "--json") || !isatty(STDOUT_FILENO);
	char *mountpoint = cmd_mount_of(cmd_path(a));
	int status = CMD_FAILED;
	json_t *o = NULL;

	if (mountpoint && cmd_flag(a, "--watch"))
		status = watch(mountpoint, as_json);
	else if (mountpoint && as_json)
		status = cmd_copy_out(mountpoint, "status");
	else if (mountpoint && (o = cmd_status(mountpoint)))
		print_status(o), status = CMD_OK;
	json_decref(o);
	free(mountpoint);
	return status;
}

/* ---- all ---- */

/* In the child: the status as text to @fd, or why there is none. */
static void tell(const char *mountpoint, int fd)
{
	char path[4352], buffer[4096];
	int from;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/.attachfs/status", mountpoint);
	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0) {
		const char *why = errno == ENOTCONN || errno == ECONNABORTED ? "dead" : "unknown";

		n = snprintf(buffer, sizeof(buffer), "{\"state\":\"%s\"}", why);
		_exit(write(fd, buffer, (size_t)n) == n ? 0 : 1);
	}
	while ((n = read(from, buffer, sizeof(buffer))) > 0)
		if (write(fd, buffer, (size_t)n) != n)
			_exit(1);
	_exit(0);
}

/* What comes within ASK_MS. */
static json_t *listen_to(int fd)
{
	char text[65536];
	size_t used = 0;
	int64_t end_ms = clock_mono_ms() + ASK_MS;
	ssize_t n = 1;

	while (used < sizeof(text) && n > 0) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left_ms = end_ms - clock_mono_ms();

		n = left_ms > 0 && poll(&p, 1, (int)left_ms) > 0
			    ? read(fd, text + used, sizeof(text) - used)
			    : 0;
		used += n > 0 ? (size_t)n : 0;
	}
	return json_loadb(text, used, 0, NULL);
}

/*
 * The status of one of many mounts. Asked by a process of its own: a daemon that has been stopped
 * would keep the caller for ever, and the others unasked.
 */
static json_t *ask(const char *mountpoint)
{
	json_t *o = NULL;
	int fds[2];
	pid_t pid;

	if (pipe(fds) < 0)
		return NULL;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		tell(mountpoint, fds[1]);
	}
	close(fds[1]);
	if (pid > 0) {
		o = listen_to(fds[0]);
		kill(pid, SIGKILL);
		/*
		 * not waited for: where the daemon has taken the request and was stopped, even a
		 * killed process stays in the kernel until that is answered
		 */
		waitpid(pid, NULL, WNOHANG);
	}
	close(fds[0]);
	return o ? o : json_pack("{s:s}", "state", "no answer");
}

struct listing {
	bool as_json;
	unsigned count;
};

static void print_row(const struct listing *l, const char *mountpoint, const json_t *o)
{
	long long pending = cmd_number(o, "pending", "uploads") +
			    cmd_number(o, "pending", "renames") +
			    cmd_number(o, "pending", "deletes");

	if (l->count == 1)
		printf("%-30s %-10s %7s %6s  %s\n", "MOUNTPOINT", "STATE", "PENDING", "FAILED",
		       "SOURCE");
	printf("%-30s %-10s %7lld %6lld  %s\n", mountpoint, cmd_text(o, "state"), pending,
	       cmd_number(o, NULL, "failed"), cmd_text(o, "source"));
}

static bool list_one(void *ctx, const char *mountpoint)
{
	struct listing *l = ctx;
	json_t *o = ask(mountpoint);

	l->count++;
	if (l->as_json && o) {
		json_object_set_new(o, "mountpoint", json_string(mountpoint));
		json_dumpf(o, stdout, JSON_COMPACT);
		putchar('\n');
	} else if (o) {
		print_row(l, mountpoint, o);
	}
	json_decref(o);
	return true;
}

int cmd_run_list(const struct cmd_args *a)
{
	struct listing l = {.as_json = cmd_flag(a, "--json") != NULL};

	cmd_each_mount(list_one, &l);
	if (!l.count && !l.as_json)
		fprintf(stderr, "attachfs: nothing is mounted: attachfs SOURCE MOUNTPOINT\n");
	return CMD_OK;
}
