/* SPDX-License-Identifier: MIT */

/* One row per command; each is a short walk over the files of .attachfs/. */

#include "commands.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include <attachfs/clock.h>
#include <attachfs/options.h>

#include "check.h"
#include "mountinfo.h"

#define LINE_BYTES    8192
#define WORDS_BYTES   1024
#define DAEMON_END_MS 30000 /* for a daemon to end after its directory was unmounted */
#define OFFLINE_MS    1000  /* umount: so long without a server, or ... */
#define STILL_MS      30000 /* ... with nothing moving and nothing on its way */
#define LEFT_MAX      100   /* lines of what is left */

/* ---- finding the mount ---- */

static bool is_inside(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return !strncmp(path, dir, len) && (!path[len] || path[len] == '/');
}

/*
 * The attachfs mount that @path lies in, longest first; malloc()ed, NULL = none. With @exact also
 * other filesystems, and only there.
 */
static char *find_mount(const char *path, bool exact)
{
	FILE *f = mountinfo_open();
	struct mountinfo m;
	char *best = NULL;

	while (f && mountinfo_next(f, &m)) {
		if (exact ? strcmp(path, m.dir) != 0
			  : strcmp(m.type, "fuse.attachfs") || !is_inside(path, m.dir))
			continue;
		if (!best || strlen(m.dir) >= strlen(best)) {
			free(best);
			best = strdup(m.dir);
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
		fprintf(stderr,
			"attachfs: '%s' is not in an attachfs mount  (mount | grep attachfs shows "
			"them)\n",
			path);
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
			errno == ENOTCONN ? ": the daemon is gone; mount again, nothing that was "
					    "closed is lost"
			: errno == EACCES ? ": only the user who mounted may ask"
					  : "");
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

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static void print_size(const char *label, long long bytes, const char *end)
{
	const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit < 4) {
		value /= 1024;
		unit++;
	}
	printf(unit ? "%s%.1f %s%s" : "%s%.0f %s%s", label, value, units[unit], end);
}

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

static void print_status(const json_t *o)
{
	char at[16] = "";
	const char *message = json_string_value(json_object_get(o, "message"));
	const char *until = json_string_value(json_object_get(o, "until"));

	if (until)
		clock_time(until, at);
	printf("source    %s\n", text_of(o, "source"));
	printf("state     %s%s%s%s%s\n", text_of(o, "state"), *at ? " until " : "", at,
	       message ? ": " : "", message ? message : "");
	printf("pending   %lld uploads (", number(o, "pending", "uploads"));
	print_size("", number(o, "pending", "bytes"), ")");
	printf(", %lld renames, %lld deletes\n", number(o, "pending", "renames"),
	       number(o, "pending", "deletes"));
	printf("failed    %lld%s\n", number(o, NULL, "failed"),
	       number(o, NULL, "failed")
		       ? "   (cat .attachfs/failed says why; attachfs retry sends them again)"
		       : "");
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
	bool impatient;	      /* give up where nothing gets on: umount */
	long long first_left; /* items pending at the start */
	long long left;	      /* ... and at the end */
	long long failed;
	bool done;
	bool gave_up;
	bool said_why; /* ... it waits */
	char state[16];
	char error[256];
	/* patience */
	long long moved[6]; /* the counts of the last line that told another one */
	int64_t moved_ms;   /* when that was, or something was on its way */
	int64_t offline_ms; /* the first of the lines since then without a server, 0 = none */
};

static long long left_of(const json_t *o)
{
	return number(o, NULL, "uploads") + number(o, NULL, "renames") + number(o, NULL, "deletes");
}

static void draw_bar(struct progress *p, const json_t *o)
{
	char bar[31];
	int filled;

	if (p->left > p->first_left)
		p->first_left = p->left;
	filled = p->first_left ? (int)(30 * (p->first_left - p->left) / p->first_left) : 30;
	for (int i = 0; i < 30; i++)
		bar[i] = i < filled ? '#' : '.';
	bar[30] = '\0';
	fprintf(stderr, "\r[%s] %lld of %lld sent", bar, p->first_left - p->left, p->first_left);
	fprintf(stderr, ", %lld KiB left  %-9s ", (number(o, NULL, "bytes") + 1023) / 1024,
		strcmp(p->state, "online") ? p->state : "");
	if (p->done || p->gave_up)
		fputc('\n', stderr);
}

static const char *why_it_waits(const char *state)
{
	return !strcmp(state, "offline") ? "the server cannot be reached"
	       : !strcmp(state, "auth")	 ? "the server does not accept the credentials"
					 : NULL;
}

/*
 * Whether to wait on. What is on its way may be long and is watched by the daemon, which gives up a
 * transfer that stalls, and a server that throttles has told until when; so both count as moving.
 * Where there is no server they do not.
 */
static void watch_it_move(struct progress *p, const json_t *o)
{
	const char *const keys[] = {"uploads", "renames", "deletes", "bytes", "sent", "bytes_sent"};
	int64_t now_ms = clock_mono_ms();
	bool moved = !p->moved_ms;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		moved |= p->moved[i] != number(o, NULL, keys[i]);
		p->moved[i] = number(o, NULL, keys[i]);
	}
	if (moved || !why_it_waits(p->state))
		p->offline_ms = 0;
	else if (!p->offline_ms)
		p->offline_ms = now_ms;
	if (moved || number(o, NULL, "in_flight") || !strcmp(p->state, "throttled"))
		p->moved_ms = now_ms;
	p->gave_up = !p->done && ((p->offline_ms && now_ms - p->offline_ms >= OFFLINE_MS) ||
				  now_ms - p->moved_ms >= STILL_MS);
}

static void take_line(struct progress *p, const char *line)
{
	json_t *o = json_loads(line, 0, NULL);
	const char *error = json_string_value(json_object_get(o, "error"));

	if (!o)
		return;
	p->failed = number(o, NULL, "failed");
	p->left = left_of(o);
	p->done = json_is_true(json_object_get(o, "done"));
	snprintf(p->state, sizeof(p->state), "%s", text_of(o, "state"));
	if (error)
		snprintf(p->error, sizeof(p->error), "%s", error);
	if (p->impatient && json_object_get(o, "uploads"))
		watch_it_move(p, o);
	if (p->terminal && json_object_get(o, "uploads"))
		draw_bar(p, o);
	else if (!p->terminal && !p->impatient)
		puts(line), fflush(stdout);
	if (!p->impatient && !p->done && !p->said_why && why_it_waits(p->state)) {
		fprintf(stderr, "%sattachfs: %s; waiting\n", p->terminal ? "\n" : "",
			why_it_waits(p->state));
		p->said_why = true;
	}
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
	while (!r && !p->done && !p->gave_up) {
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
		for (; !p->gave_up && (end = strchr(line, '\n')); line = end + 1) {
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

	if (p->gave_up)
		return 1;
	if (r < 0) {
		fprintf(stderr, "attachfs: sync of '%s' was cut off: %s\n", mountpoint,
			strerror(-r));
		return 1;
	}
	if (p->failed) {
		fprintf(stderr,
			"attachfs: %lld could not be sent and wait for you: see "
			"%s/.attachfs/failed, mend, then attachfs retry\n",
			p->failed, mountpoint);
		return 1;
	}
	if (p->left && p->done && is_read_only(mountpoint)) {
		fprintf(stderr,
			"attachfs: '%s' is mounted read-only: %lld changes of an earlier mount "
			"wait for a writable one\n",
			mountpoint, p->left);
		return 1;
	}
	return 0;
}

static int run_sync(int argc, char **argv)
{
	struct progress p = {.terminal = isatty(STDERR_FILENO) && isatty(STDOUT_FILENO)};
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
	struct progress p = {.terminal = false};
	const char *path;
	char *mountpoint;
	int status = one_path(argc, argv, &path), r;

	if (status)
		return status;
	mountpoint = mount_of(path);
	if (!mountpoint)
		return 1;
	r = talk(mountpoint, argv[0], &p);
	if (r < 0)
		fprintf(stderr, "attachfs: %s of '%s' was cut off: %s\n", argv[0], mountpoint,
			r == -EPIPE || r == -ENOTCONN || r == -ECONNABORTED || r == -ECANCELED
				? "the daemon is gone"
				: strerror(-r));
	else if (*p.error)
		fprintf(stderr, "attachfs: %s of '%s': %s\n", argv[0], mountpoint, p.error);
	free(mountpoint);
	return r < 0 || *p.error;
}

/* ---- umount ---- */

/* fusermount3, its words to @words. Its exit status, -1 where it could not be run. */
static int run_fusermount(const char *mountpoint, bool lazy, char *words, size_t size)
{
	int fds[2], status = -1;
	size_t used = 0;
	ssize_t n;
	pid_t pid;

	*words = '\0';
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		sigset_t none;
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		dup2(null, 0);
		dup2(null, 1);
		dup2(fds[1], 2);
		execlp("fusermount3", "fusermount3", lazy ? "-uz" : "-u", "--", mountpoint,
		       (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	while (pid > 0 && used < size - 1 &&
	       (n = read(fds[0], words + used, size - 1 - used)) != 0) {
		if (n < 0 && errno != EINTR)
			break;
		used += n > 0 ? (size_t)n : 0;
	}
	words[used] = '\0';
	words[strcspn(words, "\n")] = '\0';
	close(fds[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int busy(char *message, size_t size, const char *mountpoint)
{
	snprintf(message, size,
		 "'%s' is busy: a program has files open or its working directory there  (fuser -m "
		 "'%s')",
		 mountpoint, mountpoint);
	return -EBUSY;
}

int commands_unmount(const char *mountpoint, bool lazy, char *message, size_t size)
{
	char words[WORDS_BYTES];
	int status;

	/* root needs no helper, which may not be there */
	if (geteuid() == 0) {
		if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
			return 0;
		if (errno == EBUSY)
			return busy(message, size, mountpoint);
	}
	status = run_fusermount(mountpoint, lazy, words, sizeof(words));
	if (status == 0)
		return 0;
	if (strstr(words, strerror(EBUSY)))
		return busy(message, size, mountpoint);
	if (status == 127) {
		snprintf(message, size,
			 "cannot unmount '%s': fusermount3 is not installed: apt-get install fuse3",
			 mountpoint);
		return -ENOENT;
	}
	snprintf(message, size, "cannot unmount '%s': %s", mountpoint,
		 *words ? words : "fusermount3 failed");
	return -EPERM;
}

/* "  upload  users/Ada Byron/a.txt: not sent yet", from a line of pending or failed. */
static void print_item(const char *line, const char *why)
{
	json_t *o = json_loads(line, 0, NULL);
	const char *error = text_of(o, "error"), *message = text_of(o, "message");

	if (*error)
		fprintf(stderr, "  %-7s %s: %s%s%s\n", text_of(o, "what"), text_of(o, "path"),
			error, *message ? ": " : "", message);
	else if (o)
		fprintf(stderr, "  %-7s %s: %s\n", text_of(o, "what"), text_of(o, "path"), why);
	json_decref(o);
}

static void print_items(const char *mountpoint, const char *name, const char *why)
{
	int fd = open_control(mountpoint, name, O_RDONLY);
	FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
	unsigned long count = 0;
	size_t size = 0;
	char *line = NULL;

	while (f && getline(&line, &size, f) > 0)
		if (++count <= LEFT_MAX)
			print_item(line, why);
	if (count > LEFT_MAX)
		fprintf(stderr, "  ... and %lu more\n", count - LEFT_MAX);
	free(line);
	if (f)
		fclose(f);
	else if (fd >= 0)
		close(fd);
}

static void print_left(const char *mountpoint, const char *why)
{
	fprintf(stderr, "attachfs: not everything is on the server; it is kept in the cache and "
			"sent at the next mount:\n");
	print_items(mountpoint, "pending", why ? why : "not sent yet");
	print_items(mountpoint, "failed", "refused");
}

static bool is_alive(pid_t pid, int pidfd, int wait_ms)
{
	struct pollfd pfd = {.fd = pidfd, .events = POLLIN};

	if (pidfd >= 0)
		return poll(&pfd, 1, wait_ms) <= 0;
	/* no pidfd_open() before Linux 5.3 */
	if (kill(pid, 0) < 0)
		return false;
	poll(NULL, 0, wait_ms);
	return true;
}

/*
 * The daemon of an unmounted directory goes on until its ledger is closed: wait for its lock to be
 * free, so that a remount works at once.
 */
static void wait_for_daemon(pid_t pid, int pidfd)
{
	int64_t end_ms = clock_mono_ms() + DAEMON_END_MS;

	while (pid > 0 && clock_mono_ms() < end_ms && is_alive(pid, pidfd, 20))
		;
	if (pid > 0 && clock_mono_ms() >= end_ms)
		fprintf(stderr, "attachfs: unmounted, but the daemon (process %d) goes on\n",
			(int)pid);
}

static pid_t daemon_of(const char *mountpoint)
{
	json_t *o = load_status(mountpoint);
	pid_t pid = (pid_t)number(o, NULL, "pid");

	json_decref(o);
	return pid;
}

static int umount_mount(const char *mountpoint)
{
	struct progress p = {.terminal = isatty(STDERR_FILENO), .impatient = true};
	char message[WORDS_BYTES + 4096 + 64];
	pid_t pid = daemon_of(mountpoint);
	int status = 0, pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	if (pid > 0 && (sync_mount(mountpoint, &p) || p.failed)) {
		print_left(mountpoint, why_it_waits(p.state));
		status = 1;
	}
	if (commands_unmount(mountpoint, false, message, sizeof(message)) < 0) {
		fprintf(stderr, "attachfs: %s\n", message);
		status = 1;
	} else {
		wait_for_daemon(pid, pidfd);
	}
	if (pidfd >= 0)
		close(pidfd);
	return status;
}

static int run_umount(int argc, char **argv)
{
	const char *path;
	char *mountpoint;
	int status = one_path(argc, argv, &path);

	if (status)
		return status;
	mountpoint = mount_of(path);
	status = mountpoint ? umount_mount(mountpoint) : 1;
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
	{"status", "[--json] PATH", "state, queue, cache and requests of a mount", run_status},
	{"sync", "PATH", "wait until everything written so far is on the server", run_sync},
	{"pending", "PATH", "what is still to be sent, a JSON line each", run_picture},
	{"failed", "PATH", "what the server refused, with its words", run_picture},
	{"retry", "PATH", "read the credentials again, send what was refused again", run_talk},
	{"refresh", "PATH", "look for changes on the server now", run_talk},
	{"events", "PATH", "follow what happens, a JSON line each", run_picture},
	{"conflicts", "PATH", "copies kept because both sides changed", run_picture},
	{"umount", "PATH", "send everything, then unmount", run_umount},
	{"check", "[-o opt,...] SOURCE", "what works with these credentials, without mounting",
	 run_check},
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
		fprintf(f, "  %-10s %-22s %s\n", commands[i].name, commands[i].arguments,
			commands[i].help);
}

/* ---- systemd ---- */

void commands_notify_ready(const char *source)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
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
