/* SPDX-License-Identifier: MIT */

/*
 * Where a file was changed here and on the server, both are there: theirs under the name, ours
 * beside it under the name with a mark. To choose is a rename or a removal, which anybody could do
 * by hand; here it is done without a chance to get the names wrong.
 */

#include "cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MARK " (conflict "

/*
 * The plain name of the copy @path, malloc()ed: without " (conflict HOST TIME)", or with @kept in
 * its place. NULL: it is no copy.
 */
static char *plain_name(const char *path, const char *kept)
{
	const char *slash = strrchr(path, '/'), *mark = strstr(slash ? slash : path, MARK);
	const char *end = mark ? strchr(mark, ')') : NULL;
	char *name = NULL;

	if (!end)
		return NULL;
	if (asprintf(&name, "%.*s%s%s", (int)(mark - path), path, kept ? kept : "", end + 1) < 0)
		return NULL;
	return name;
}

/* A free name for a copy that is to stay: "a (mine).txt", "a (mine 2).txt", ... */
static char *free_name(const char *path)
{
	for (unsigned i = 1; i < 1000; i++) {
		char mine[32], *name;

		snprintf(mine, sizeof(mine), i > 1 ? " (mine %u)" : " (mine)", i);
		name = plain_name(path, mine);
		if (!name || access(name, F_OK) < 0)
			return name;
		free(name);
	}
	return NULL;
}

static int fail(const char *path, const char *what)
{
	fprintf(stderr, "attachfs: '%s': cannot be %s: %s\n", path, what, strerror(errno));
	return CMD_FAILED;
}

static int keep_mine(const char *copy, const char *plain)
{
	return rename(copy, plain) < 0 ? fail(copy, "put in the place of theirs") : CMD_OK;
}

static int keep_theirs(const char *copy, const char *plain)
{
	/* theirs may have been removed since: then ours is all there is */
	if (access(plain, F_OK) < 0) {
		fprintf(stderr,
			"attachfs: '%s' is not there any more, '%s' is all that is left: keep "
			"mine, or "
			"remove it by hand\n",
			plain, copy);
		return CMD_FAILED;
	}
	return unlink(copy) < 0 ? fail(copy, "removed") : CMD_OK;
}

static int keep_both(const char *copy)
{
	char *name = free_name(copy);
	int status = !name		      ? fail(copy, "given a name of its own")
		     : rename(copy, name) < 0 ? fail(copy, "renamed")
					      : CMD_OK;

	if (status == CMD_OK)
		printf("%s\n", name);
	free(name);
	return status;
}

static int keep_one(const char *which, const char *path)
{
	char *full = cmd_absolute(path), *plain = full ? plain_name(full, NULL) : NULL;
	char *mountpoint = cmd_mount_of(path);
	int status = CMD_FAILED;

	if (mountpoint && !plain)
		fprintf(stderr,
			"attachfs: '%s' is not a conflict's copy: name one that attachfs conflicts "
			"lists\n",
			path);
	else if (mountpoint && access(full, F_OK) < 0)
		status = fail(full, "found");
	else if (mountpoint && !strcmp(which, "mine"))
		status = keep_mine(full, plain);
	else if (mountpoint && !strcmp(which, "theirs"))
		status = keep_theirs(full, plain);
	else if (mountpoint)
		status = keep_both(full);
	free(mountpoint);
	free(plain);
	free(full);
	return status;
}

static int keep(const struct cmd_args *a)
{
	const char *which = a->n_words > 1 ? a->words[1] : "";
	int status = CMD_OK;

	if (a->n_words < 3 ||
	    (strcmp(which, "mine") && strcmp(which, "theirs") && strcmp(which, "both")))
		return cmd_usage(a->command);
	for (unsigned i = 2; i < a->n_words; i++)
		if (keep_one(which, a->words[i]) != CMD_OK)
			status = CMD_FAILED;
	return status;
}

int cmd_run_conflicts(const struct cmd_args *a)
{
	char *mountpoint;
	int status;

	if (a->n_words && !strcmp(a->words[0], "keep"))
		return keep(a);
	if (a->n_words > 1)
		return cmd_usage(a->command);
	mountpoint = cmd_mount_of(cmd_path(a));
	status = !mountpoint ? CMD_FAILED : CMD_OK;
	if (mountpoint && isatty(STDOUT_FILENO))
		cmd_print_items(mountpoint, "conflicts", stdout, "ours; theirs has the plain name");
	else if (mountpoint)
		status = cmd_copy_out(mountpoint, "conflicts");
	free(mountpoint);
	return status;
}
