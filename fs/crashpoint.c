/* SPDX-License-Identifier: MIT */
#include "crashpoint.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMES_MOST 256
#define NAME_BYTES 64

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char wanted[NAME_BYTES];		    /* once */
static int log_fd = -1;			    /* once */
static unsigned long left;		    /* lock: passages of `wanted` until the end */
static char passed[NAMES_MOST][NAME_BYTES]; /* lock */
static size_t n_passed;			    /* lock */

static void read_environment(void)
{
	const char *point = getenv("ATTACHFS_CRASH_POINT");
	const char *log = getenv("ATTACHFS_CRASH_LOG");
	const char *colon = point ? strchr(point, ':') : NULL;

	if (point)
		snprintf(wanted, sizeof(wanted), "%.*s",
			 colon ? (int)(colon - point) : (int)strlen(point), point);
	left = colon ? strtoul(colon + 1, NULL, 10) : 1;
	if (log)
		log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void say(const char *what, const char *name)
{
	char line[2 * NAME_BYTES];
	int n = snprintf(line, sizeof(line), "%s%s\n", what, name);

	if (log_fd >= 0 && write(log_fd, line, (size_t)n) != n)
		abort();
}

static void note_locked(const char *name)
{
	for (size_t i = 0; i < n_passed; i++)
		if (!strcmp(passed[i], name))
			return;
	if (n_passed == NAMES_MOST)
		abort();
	snprintf(passed[n_passed++], NAME_BYTES, "%s", name);
	say("", name);
}

void crash_point(const char *name)
{
	pthread_once(&once, read_environment);
	pthread_mutex_lock(&lock);
	note_locked(name);
	if (!strcmp(name, wanted) && left > 0 && --left == 0) {
		say("killed ", name);
		kill(getpid(), SIGKILL);
		pause(); /* with the lock, so that nobody passes another point meanwhile */
	}
	pthread_mutex_unlock(&lock);
}

void crash_point_of(const char *step, const char *kind)
{
	char name[NAME_BYTES];

	snprintf(name, sizeof(name), "%s.%s", step, kind);
	crash_point(name);
}
