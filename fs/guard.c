/* SPDX-License-Identifier: MIT */

/*
 * The guard learns of the daemon's end by a signal, since the other end of its pipe stays open as
 * long as the thread it is there for. It holds no descriptor of the connection itself, which would
 * keep that alive, too.
 */
#include "guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAUSE_MS 200
#define TRIES	 50

struct guarded {
	unsigned connection;
	char mountpoint[PATH_MAX];
};

static volatile sig_atomic_t dead;

static void on_death(int sig)
{
	(void)sig;
	dead = 1;
}

/* Whether something of the process is left: a thread that the kill could not end. */
static bool is_stuck(int tasks)
{
	int fd = openat(tasks, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	unsigned threads = 0;

	if (!d && fd >= 0)
		close(fd);
	for (const struct dirent *e; d && (e = readdir(d));)
		threads += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return threads > 1; /* one is a dead process that nobody has waited for yet */
}

/*
 * Where there is no fusectl. The descriptor is of this very mount, whatever lies over it by now; and it
 * keeps the dead mount where it is, for else programs would write into what lies below it.
 */
static void force(const struct guarded *g)
{
	int root = open(g->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct statx st;
	char path[64];

	if (root < 0)
		return;
	snprintf(path, sizeof path, "/proc/self/fd/%d", root);
	if (statx(root, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) == 0 &&
	    st.stx_dev_minor == g->connection)
		umount2(path, MNT_FORCE);
	close(root);
}

static void abort_connection(const struct guarded *g, int control, int tasks)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000};

	nanosleep(&pause, NULL);
	for (unsigned i = 0; i < TRIES && is_stuck(tasks); i++) {
		if (control < 0 || write(control, "1", 1) < 0)
			force(g);
		nanosleep(&pause, NULL);
	}
}

static int open_control(const struct guarded *g)
{
	char path[64];

	snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", g->connection);
	return open(path, O_WRONLY | O_CLOEXEC);
}

/* Read whole or not at all: it is less than a pipe takes at once. */
static bool read_guarded(int pipe, struct guarded *g)
{
	ssize_t n;

	do
		n = read(pipe, g, sizeof *g);
	while (n < 0 && errno == EINTR);
	return n == sizeof *g;
}

/* Until the daemon is dead; false: it has ended well. It is our parent as long as a thread is left. */
static bool wait_for_death(int pipe, const sigset_t *waiting)
{
	struct pollfd end = {.fd = pipe, .events = POLLIN};

	while (!dead)
		if (ppoll(&end, 1, NULL, waiting) > 0)
			return false;
	return true;
}

static void guard_main(int pipe, pid_t daemon)
{
	struct guarded g;
	sigset_t all, waiting;
	char path[64];
	int tasks, control;

	/* what ends the daemon by way of the terminal is for the daemon to hear */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_death}, NULL);
	waiting = all;
	sigdelset(&waiting, SIGUSR1);
	prctl(PR_SET_NAME, "attachfs-guard");
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	snprintf(path, sizeof path, "/proc/%ld/task", (long)daemon);
	tasks = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (tasks < 0 || !read_guarded(pipe, &g))
		return;
	control = open_control(&g);
	if (wait_for_death(pipe, &waiting))
		abort_connection(&g, control, tasks);
}

int guard_start(void)
{
	pid_t daemon = getpid();
	int fds[2], null;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	fflush(NULL);
	switch (fork()) {
	case -1:
		close(fds[0]);
		close(fds[1]);
		return -errno;
	case 0:
		break;
	default:
		close(fds[0]);
		return fds[1];
	}
	/* nothing of the daemon's stays open here, nor what its output goes to */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 3 && null >= 0; i++)
		dup2(null, i);
	dup2(fds[0], 3);
	close_range(4, ~0u, 0);
	if (chdir("/") == 0)
		guard_main(3, daemon);
	_exit(0);
}

void guard_set(int guard, unsigned connection, const char *mountpoint)
{
	struct guarded g = {.connection = connection};

	_Static_assert(sizeof g <= 65536, "more than a pipe takes at once");
	if (guard < 0 || !connection || strlen(mountpoint) >= sizeof g.mountpoint)
		return;
	strcpy(g.mountpoint, mountpoint);
	if (write(guard, &g, sizeof g) != sizeof g)
		return; /* the guard is gone: nobody is hurt by that */
}

void guard_end(int guard)
{
	if (guard >= 0)
		close(guard);
}
