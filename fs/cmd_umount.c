/* SPDX-License-Identifier: MIT */

/*
 * The end of a mount: first what was written goes to the server, then the directory is unmounted, by
 * ourselves or by fusermount3, then the daemon is waited for. What cannot be sent is said and kept.
 */

#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <attachfs/clock.h>

#include "commands.h"

#define WORDS_BYTES   1024
#define BUSY_MS	      1000  /* for the last file to be really closed */
#define DAEMON_END_MS 30000 /* for a daemon to end after its directory was unmounted */

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
	snprintf(
		message, size,
		"'%s' is busy: a program has files open or its working directory there  (fuser -vm "
		"'%s' names it; attachfs umount --lazy takes the directory away from it)",
		mountpoint, mountpoint);
	return -EBUSY;
}

static int try_unmount(const char *mountpoint, bool lazy, char *message, size_t size)
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

/* The kernel lets go of files that were just closed a moment later. */
int commands_unmount(const char *mountpoint, bool lazy, char *message, size_t size)
{
	int64_t end_ms = clock_mono_ms() + BUSY_MS;
	int r = try_unmount(mountpoint, lazy, message, size);

	while (r == -EBUSY && clock_mono_ms() < end_ms) {
		poll(NULL, 0, BUSY_MS / 20);
		r = try_unmount(mountpoint, lazy, message, size);
	}
	return r;
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
	json_t *o = cmd_status(mountpoint);
	pid_t pid = (pid_t)cmd_number(o, NULL, "pid");

	json_decref(o);
	return pid;
}

static void print_left(const char *mountpoint, const char *why)
{
	fprintf(stderr,
		"attachfs: not everything is on the server; what the daemon cannot send in its "
		"last seconds is kept in the cache and sent at the next mount:\n");
	cmd_print_items(mountpoint, "pending", stderr, why ? why : "not sent yet");
	cmd_print_items(mountpoint, "failed", stderr, "refused");
}

/* Send what waits, as long as that gets on. CMD_FAILED: said what is left. */
static int drain(const char *mountpoint, double limit_s)
{
	struct cmd_progress p = {
		.terminal = isatty(STDERR_FILENO), .impatient = true, .limit_s = limit_s};

	if (cmd_sync_mount(mountpoint, "sync", &p) == CMD_OK && !p.failed)
		return CMD_OK;
	print_left(mountpoint, cmd_why_it_waits(p.state));
	return CMD_FAILED;
}

/* --now: nothing is waited for, but it is said what there would be to send. */
static int leave(const char *mountpoint)
{
	json_t *o = cmd_status(mountpoint);
	long long left = cmd_number(o, "pending", "uploads") + cmd_number(o, "pending", "renames") +
			 cmd_number(o, "pending", "deletes") + cmd_number(o, NULL, "failed");

	json_decref(o);
	if (!left)
		return CMD_OK;
	print_left(mountpoint, NULL);
	return CMD_FAILED;
}

static int umount_mount(const char *mountpoint, bool lazy, bool now, double limit_s)
{
	char message[WORDS_BYTES + 4096 + 64];
	pid_t pid = daemon_of(mountpoint);
	int status = CMD_OK, pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	if (pid > 0)
		status = now ? leave(mountpoint) : drain(mountpoint, limit_s);
	if (commands_unmount(mountpoint, lazy, message, sizeof(message)) < 0) {
		fprintf(stderr, "attachfs: %s\n", message);
		status = CMD_FAILED;
	} else if (!lazy) {
		wait_for_daemon(pid, pidfd);
	}
	if (pidfd >= 0)
		close(pidfd);
	return status;
}

int cmd_run_umount(const struct cmd_args *a)
{
	const char *limit = cmd_flag(a, "--timeout");
	double limit_s = 0;
	char *mountpoint, *end = NULL;
	int status;

	if (limit && ((limit_s = strtod(limit, &end)) <= 0 || *end)) {
		fprintf(stderr, "attachfs: --timeout: '%s' is not a number of seconds\n", limit);
		return CMD_USAGE;
	}
	mountpoint = cmd_mount_of(cmd_path(a));
	status = mountpoint ? umount_mount(mountpoint, cmd_flag(a, "--lazy") != NULL,
					   cmd_flag(a, "--now") != NULL, limit_s)
			    : CMD_FAILED;
	free(mountpoint);
	return status;
}
