/* SPDX-License-Identifier: MIT */

/*
 * A command is a line written to .attachfs/control, its answer JSON lines read from the same
 * handle. A read-only mount takes commands without arguments by the reading of a file of their name.
 */

#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 8192

bool cmd_is_gone(int error)
{
	return error == -EPIPE || error == -ENOTCONN || error == -ECONNABORTED ||
	       error == -ECANCELED;
}

int cmd_cut_off(const char *what, const char *mountpoint, int error)
{
	/* opening it has said why */
	if (error != -EBADF)
		fprintf(stderr, "attachfs: %s of '%s' was cut off: %s\n", what, mountpoint,
			cmd_is_gone(error) ? "the daemon has ended; mount again, nothing that was "
					     "closed is lost"
					   : strerror(-error));
	return CMD_FAILED;
}

const char *cmd_why_it_waits(const char *state)
{
	return !strcmp(state, "offline") ? "the server cannot be reached"
	       : !strcmp(state, "auth")	 ? "the server does not accept the credentials"
					 : NULL;
}

/* A handle on which @command was begun; -EBADF = said why not, -errno. */
static int begin(const char *mountpoint, const char *command)
{
	char name[64];
	int fd = cmd_open(mountpoint, "control", O_RDWR), r;

	if (fd < 0 && errno == EROFS) {
		if (strchr(command, ' ')) {
			fprintf(stderr,
				"attachfs: '%s' is mounted read-only: only the whole of it can be "
				"asked for\n",
				mountpoint);
			return -EBADF;
		}
		snprintf(name, sizeof(name), "control.%s", command);
		fd = cmd_open(mountpoint, name, O_RDONLY);
		return fd < 0 ? -EBADF : fd;
	}
	if (fd < 0)
		return -EBADF;
	if (write(fd, command, strlen(command)) >= 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* False: it was the last one. */
static bool take_line(const char *text, bool (*line)(void *ctx, json_t *o), void *ctx)
{
	json_t *o = json_loads(text, 0, NULL);
	bool more = !o || (line(ctx, o) && !json_is_true(json_object_get(o, "done")));

	json_decref(o);
	return more;
}

int cmd_talk(const char *mountpoint, const char *command, bool (*line)(void *ctx, json_t *o),
	     void *ctx)
{
	char buffer[LINE_BYTES];
	int fd = begin(mountpoint, command), r = 0;
	bool more = true;
	size_t used = 0;

	if (fd < 0)
		return fd;
	while (!r && more) {
		ssize_t n = read(fd, buffer + used, sizeof(buffer) - 1 - used);
		char *at = buffer, *end;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			r = n < 0 ? -errno : -EPIPE;
			break;
		}
		used += (size_t)n;
		buffer[used] = '\0';
		for (; more && (end = strchr(at, '\n')); at = end + 1) {
			*end = '\0';
			more = take_line(at, line, ctx);
		}
		used = strlen(at);
		memmove(buffer, at, used + 1);
	}
	close(fd);
	return r;
}
