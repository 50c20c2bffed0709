/* SPDX-License-Identifier: MIT */

/* What waits, what was refused, what happens: the lines of .attachfs/, for a person or as they are. */

#include "cmd.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEFT_MAX 100

/* "  upload  users/Ada Byron/a.txt: not sent yet", from a line of pending or failed. */
static void print_item(const char *line, FILE *f, const char *why)
{
	json_t *o = json_loads(line, 0, NULL);
	const char *error = cmd_text(o, "error"), *message = cmd_text(o, "message");

	if (json_is_true(json_object_get(o, "in_flight")))
		why = "on its way";
	if (*error)
		fprintf(f, "  %-7s %s: %s%s%s\n", cmd_text(o, "what"), cmd_text(o, "path"), error,
			*message ? ": " : "", message);
	else if (*cmd_text(o, "what"))
		fprintf(f, "  %-7s %s: %s\n", cmd_text(o, "what"), cmd_text(o, "path"),
			*message ? message : why);
	else if (o)
		fprintf(f, "  %s: %s\n", cmd_text(o, "path"), why);
	json_decref(o);
}

void cmd_print_items(const char *mountpoint, const char *name, FILE *f, const char *why)
{
	int fd = cmd_open(mountpoint, name, O_RDONLY);
	FILE *from = fd >= 0 ? fdopen(fd, "r") : NULL;
	unsigned long count = 0;
	size_t size = 0;
	char *line = NULL;

	while (from && getline(&line, &size, from) > 0)
		if (++count <= LEFT_MAX)
			print_item(line, f, why);
	if (count > LEFT_MAX)
		fprintf(f, "  ... and %lu more\n", count - LEFT_MAX);
	free(line);
	if (from)
		fclose(from);
	else if (fd >= 0)
		close(fd);
}

static int show(const struct cmd_args *a, const char *name, const char *why)
{
	char *mountpoint = cmd_mount_of(cmd_path(a));
	int status = CMD_FAILED;

	if (mountpoint && (cmd_flag(a, "--json") || !isatty(STDOUT_FILENO))) {
		status = cmd_copy_out(mountpoint, name);
	} else if (mountpoint) {
		cmd_print_items(mountpoint, name, stdout, why);
		status = CMD_OK;
	}
	free(mountpoint);
	return status;
}

int cmd_run_pending(const struct cmd_args *a)
{
	return show(a, "pending", "waits");
}

int cmd_run_failed(const struct cmd_args *a)
{
	return show(a, "failed", "refused");
}

int cmd_run_events(const struct cmd_args *a)
{
	char *mountpoint = cmd_mount_of(cmd_path(a));
	int status = mountpoint ? cmd_copy_out(mountpoint, "events") : CMD_FAILED;

	free(mountpoint);
	return status;
}
