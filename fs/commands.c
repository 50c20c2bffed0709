/* SPDX-License-Identifier: MIT */

/* One row per command; each is a short walk over the files of .attachfs/. */

#include "commands.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include <attachfs/options.h>

#include "check.h"

#define LINE_BYTES 8192

/* ---- finding the mount ---- */

/* Octal escapes of /proc/self/mountinfo, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

static bool is_inside(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return !strncmp(path, dir, len) && (!path[len] || path[len] == '/');
}

/* The attachfs mount that @path lies in, longest first; malloc()ed, NULL = none. With @exact also other filesystems, and only there. */
static char *find_mount(const char *path, bool exact)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[LINE_BYTES], *best = NULL;

	while (f && fgets(line, sizeof(line), f)) {
		char dir[4096], type[256];
		const char *dash = strstr(line, " - ");

		if (sscanf(line, "%*s %*s %*s %*s %4095s", dir) != 1 || !dash || sscanf(dash, " - %255s", type) != 1)
			continue;
		unescape(dir);
		if (exact ? strcmp(path, dir) != 0 : strcmp(type, "fuse.attachfs") || !is_inside(path, dir))
			continue;
		if (!best || strlen(dir) >= strlen(best)) {
			free(best);
			best = strdup(dir);
		}
	}
	if (f)
		fclose(f);
	return best;
}

/* An absolute path without asking the filesystem: a dead mount would fail. */
static char *absolute(const char *path)
{
	char *real = realpath(path, NULL), *cwd, *full = NULL;

	if (real)
		return real;
	if (*path == '/')
		full = strdup(path);
	else if ((cwd = getcwd(NULL, 0))) {
		if (asprintf(&full, "%s/%s", cwd, path) < 0)
			full = NULL;
		free(cwd);
	}
	for (size_t n = full ? strlen(full) : 0; n > 1 && full[n - 1] == '/'; n--)
		full[n - 1] = '\0';
	return full;
}

bool commands_is_mounted(const char *path)
{
	char *full = absolute(path), *found = full ? find_mount(full, true) : NULL;
	bool mounted = found != NULL;

	free(found);
	free(full);
	return mounted;
}

static char *mount_of(const char *path)
{
	char *full = absolute(path), *found = full ? find_mount(full, false) : NULL;

	if (!found)
		fprintf(stderr, "attachfs: '%s' is not in an attachfs mount  (mount | grep attachfs shows them)\n", path);
	free(full);
	return found;
}

static int open_control(const char *mountpoint, const char *name, int flags)
{
	char path[4352];
	int fd;

	snprintf(path, sizeof(path), "%s/.attachfs/%s", mountpoint, name);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0 && errno != EROFS)
		fprintf(stderr, "attachfs: %s: %s%s\n", path, strerror(errno),
			errno == ENOTCONN ? ": the daemon is gone; mount again, nothing that was closed is lost" :
			errno == EACCES   ? ": only the user who mounted may ask" : "");
	return fd;
}

/* ---- small commands ---- */

static int copy_out(const char *mountpoint, const char *name)
{
	char buffer[65536];
	int fd = open_control(mountpoint, name, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return 1;
	while ((n = read(fd, buffer, sizeof(buffer))) > 0) {
		fwrite(buffer, 1, (size_t)n, stdout);
		fflush(stdout);
	}
	if (n < 0)
		fprintf(stderr, "attachfs: .attachfs/%s: %s\n", name, strerror(errno));
	close(fd);
	return n < 0;
}

static int run_file(const char *path, const char *name)
{
	char *mountpoint = mount_of(path);
	int status = mountpoint ? copy_out(mountpoint, name) : 1;

	free(mountpoint);
	return status;
}

static json_t *load_status(const char *mountpoint)
{
	int fd = open_control(mountpoint, "status", O_RDONLY);
	json_t *o = fd >= 0 ? json_loadfd(fd, 0, NULL) : NULL;

	if (fd >= 0)
		close(fd);
	return o;
}

static long long number(const json_t *o, const char *outer, const char *key)
{
	const json_t *in = outer ? json_object_get(o, outer) : o;

	return (long long)json_integer_value(json_object_get(in, key));
}

static void print_size(const char *label, long long bytes, const char *end)
{
	const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit < 4) {
		value /= 1024;
		unit++;
	}
	printf(unit ? "%s%.1f %s%s" : "%s%.0f %s%s", label, value, units[unit], end);
}

static void print_status(const json_t *o)
{
	const char *message = json_string_value(json_object_get(o, "message"));
	const char *until = json_string_value(json_object_get(o, "until"));

	printf("source    %s\n", json_string_value(json_object_get(o, "source")));
	printf("state     %s%s%s%s%s\n", json_string_value(json_object_get(o, "state")), until ? " until " : "",
	       until ? until : "", message ? ": " : "", message ? message : "");
	printf("pending   %lld uploads (", number(o, "pending", "uploads"));
	print_size("", number(o, "pending", "bytes"), ")");
	printf(", %lld renames, %lld deletes\n", number(o, "pending", "renames"), number(o, "pending", "deletes"));
	printf("failed    %lld%s\n", number(o, NULL, "failed"),
	       number(o, NULL, "failed") ? "   (cat .attachfs/failed says why; attachfs retry sends them again)" : "");
	print_size("cache     ", number(o, "cache", "bytes"), " of ");
	print_size("", number(o, "cache", "limit"), ", ");
	print_size("", number(o, "cache", "dirty"), " of it not on the server yet\n");
	printf("requests  %lld\n", number(o, "requests", "total"));
}

static int run_status(int argc, char **argv)
{
	bool as_json = false;
	const char *path = NULL;
	char *mountpoint;
	json_t *o;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			as_json = true;
		else
			path = argv[i];
	}
	if (!path) {
		fprintf(stderr, "usage: attachfs status [--json] MOUNTPOINT-OR-PATH\n");
		return 2;
	}
	if (as_json || !isatty(STDOUT_FILENO))
		return run_file(path, "status");
	mountpoint = mount_of(path);
	o = mountpoint ? load_status(mountpoint) : NULL;
	free(mountpoint);
	if (!o)
		return 1;
	print_status(o);
	json_decref(o);
	return 0;
}

static int one_path(int argc, char **argv, const char **ret_path)
{
	if (argc != 2 || argv[1][0] == '-') {
		fprintf(stderr, "usage: attachfs %s MOUNTPOINT-OR-PATH\n", argv[0]);
		return 2;
	}
	*ret_path = argv[1];
	return 0;
}

static int run_picture(int argc, char **argv)
{
	const char *path;
	int status = one_path(argc, argv, &path);

	return status ? status : run_file(path, argv[0]);
}

/* ---- sync and its like ---- */

struct progress {
	bool terminal;
	long long first_left; /* items pending at the start */
	long long left;       /* ... and at the end */
	long long failed;
	bool done;
	char error[256];
};

static void draw_bar(struct progress *p, const json_t *o)
{
	long long left = number(o, NULL, "uploads") + number(o, NULL, "renames") + number(o, NULL, "deletes");
	char bar[31];
	int filled;

	if (left > p->first_left)
		p->first_left = left;
	filled = p->first_left ? (int)(30 * (p->first_left - left) / p->first_left) : 30;
	for (int i = 0; i < 30; i++)
		bar[i] = i < filled ? '#' : '.';
	bar[30] = '\0';
	fprintf(stderr, "\r[%s] %lld of %lld sent", bar, p->first_left - left, p->first_left);
	fprintf(stderr, ", %lld KiB left  %s   ", (number(o, NULL, "bytes") + 1023) / 1024,
		strcmp(json_string_value(json_object_get(o, "state")) ? json_string_value(json_object_get(o, "state")) : "",
		       "online") ? json_string_value(json_object_get(o, "state")) : "       ");
	if (json_is_true(json_object_get(o, "done")))
		fputc('\n', stderr);
}

static void take_line(struct progress *p, const char *line)
{
	json_t *o = json_loads(line, 0, NULL);
	const char *error = json_string_value(json_object_get(o, "error"));

	if (!o)
		return;
	p->failed = number(o, NULL, "failed");
	p->left = number(o, NULL, "uploads") + number(o, NULL, "renames") + number(o, NULL, "deletes");
	p->done = json_is_true(json_object_get(o, "done"));
	if (error)
		snprintf(p->error, sizeof(p->error), "%s", error);
	if (p->terminal && json_object_get(o, "uploads"))
		draw_bar(p, o);
	else if (!p->terminal)
		puts(line), fflush(stdout);
	json_decref(o);
}

/* One command to the daemon, its answer lines to @p. 0 or -errno. */
static int talk(const char *mountpoint, const char *command, struct progress *p)
{
	char buffer[LINE_BYTES];
	size_t used = 0;
	int fd = open_control(mountpoint, "control", O_RDWR), r = 0;

	if (fd < 0 && errno == EROFS) {
		char name[64];

		/* a read-only mount takes commands by reading */
		snprintf(name, sizeof(name), "control.%s", command);
		fd = open_control(mountpoint, name, O_RDONLY);
	} else if (fd >= 0 && write(fd, command, strlen(command)) < 0) {
		r = -errno;
	}
	if (fd < 0)
		return -errno;
	while (!r && !p->done) {
		ssize_t n = read(fd, buffer + used, sizeof(buffer) - 1 - used);
		char *line = buffer, *end;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			r = n < 0 ? -errno : -EPIPE;
			break;
		}
		used += (size_t)n;
		buffer[used] = '\0';
		for (; (end = strchr(line, '\n')); line = end + 1) {
			*end = '\0';
			take_line(p, line);
		}
		used = strlen(line);
		memmove(buffer, line, used + 1);
	}
	close(fd);
	return r;
}

static bool is_read_only(const char *mountpoint)
{
	struct statvfs st;

	return statvfs(mountpoint, &st) == 0 && (st.f_flag & ST_RDONLY);
}

static int sync_mount(const char *mountpoint, struct progress *p)
{
	int r = talk(mountpoint, "sync", p);

	if (r < 0) {
		fprintf(stderr, "attachfs: sync of '%s' was cut off: %s\n", mountpoint, strerror(-r));
		return 1;
	}
	if (p->failed) {
		fprintf(stderr, "attachfs: %lld could not be sent and wait for you: see %s/.attachfs/failed, mend, then attachfs retry\n",
			p->failed, mountpoint);
		return 1;
	}
	if (p->left && p->done && is_read_only(mountpoint)) {
		fprintf(stderr, "attachfs: '%s' is mounted read-only: %lld changes of an earlier mount wait for a writable one\n",
			mountpoint, p->left);
		return 1;
	}
	return 0;
}

static int run_sync(int argc, char **argv)
{
	struct progress p = { .terminal = isatty(STDERR_FILENO) && isatty(STDOUT_FILENO) };
	const char *path;
	char *mountpoint;
	int status = one_path(argc, argv, &path);

	if (status)
		return status;
	mountpoint = mount_of(path);
	status = mountpoint ? sync_mount(mountpoint, &p) : 1;
	free(mountpoint);
	return status;
}

static int run_talk(int argc, char **argv)
{
	struct progress p = { .terminal = false };
	const char *path;
	char *mountpoint;
	int status = one_path(argc, argv, &path);

	if (status)
		return status;
	mountpoint = mount_of(path);
	if (!mountpoint)
		return 1;
	status = talk(mountpoint, argv[0], &p) < 0 || *p.error;
	free(mountpoint);
	return status;
}

/* ---- umount ---- */

int commands_fusermount(const char *mountpoint, bool lazy)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		dup2(null, 1);
		dup2(null, 2);
		execlp("fusermount3", "fusermount3", lazy ? "-uz" : "-u", "--", mountpoint, (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void print_left(const char *mountpoint)
{
	fprintf(stderr, "attachfs: not everything is on the server; it is kept in the cache and sent at the next mount:\n");
	copy_out(mountpoint, "pending");
	copy_out(mountpoint, "failed");
}

/* The daemon of an unmounted directory goes on until its ledger is closed: wait for its lock to be free, so that a remount works at once. */
static void wait_for_daemon(pid_t pid)
{
	struct timespec pause = { .tv_nsec = 20 * 1000000 };

	for (int i = 0; pid > 0 && i < 1500 && kill(pid, 0) == 0; i++)
		nanosleep(&pause, NULL);
}

static pid_t daemon_of(const char *mountpoint)
{
	json_t *o = load_status(mountpoint);
	pid_t pid = (pid_t)number(o, NULL, "pid");

	json_decref(o);
	return pid;
}

static int run_umount(int argc, char **argv)
{
	struct progress p = { .terminal = isatty(STDERR_FILENO) };
	const char *path;
	char *mountpoint;
	pid_t pid;
	int status = one_path(argc, argv, &path);

	if (status)
		return status;
	mountpoint = mount_of(path);
	if (!mountpoint)
		return 1;
	pid = daemon_of(mountpoint);
	if (pid > 0 && (sync_mount(mountpoint, &p) || p.failed)) {
		print_left(mountpoint);
		status = 1;
	}
	if (commands_fusermount(mountpoint, false) != 0) {
		fprintf(stderr, "attachfs: '%s' is busy: a program has files open or its working directory there  (fuser -m '%s')\n",
			mountpoint, mountpoint);
		status = 1;
	} else {
		wait_for_daemon(pid);
	}
	free(mountpoint);
	return status;
}

/* ---- the table ---- */

static int run_check(int argc, char **argv)
{
	return check_run(argc, argv);
}

static const struct {
	const char *name, *arguments, *help;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "status", "[--json] PATH", "state, queue, cache and requests of a mount", run_status },
	{ "sync", "PATH", "wait until everything written so far is on the server", run_sync },
	{ "pending", "PATH", "what is still to be sent, a JSON line each", run_picture },
	{ "failed", "PATH", "what the server refused, with its words", run_picture },
	{ "retry", "PATH", "send what was refused again", run_talk },
	{ "refresh", "PATH", "look for changes on the server now", run_talk },
	{ "events", "PATH", "follow what happens, a JSON line each", run_picture },
	{ "conflicts", "PATH", "copies kept because both sides changed", run_picture },
	{ "umount", "PATH", "send everything, then unmount", run_umount },
	{ "check", "[-o opt,...] SOURCE", "what works with these credentials, without mounting", run_check },
};

bool commands_run(int argc, char **argv, int *ret_status)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[0], commands[i].name))
			continue;
		*ret_status = commands[i].run(argc, argv);
		return true;
	}
	return false;
}

void commands_print_help(FILE *f)
{
	fputs("commands (PATH: the mountpoint or anything below it):\n", f);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		fprintf(f, "  %-10s %-22s %s\n", commands[i].name, commands[i].arguments, commands[i].help);
}

/* ---- systemd ---- */

void commands_notify_ready(const char *source)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	char text[512];
	int fd;

	if (!path || strlen(path) >= sizeof(to.sun_path))
		return;
	memcpy(to.sun_path, path, strlen(path));
	if (to.sun_path[0] == '@')
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	snprintf(text, sizeof(text), "READY=1\nSTATUS=mounted %s", source);
	if (sendto(fd, text, strlen(text), 0, (struct sockaddr *)&to,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
		perror("attachfs: NOTIFY_SOCKET");
	close(fd);
}
