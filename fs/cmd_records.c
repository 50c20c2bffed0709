/* SPDX-License-Identifier: MIT */

/*
 * Records with their ids and what is attached. Reading a collection's directory makes the daemon
 * list it, with its records' attachments in the same calls where the server can; the figures are
 * then read in one piece. A stat of each file would ask some servers for its size.
 */

#include "cmd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Have @dir listed; 0 or -errno. */
static int read_directory(const char *dir)
{
	DIR *d = opendir(dir);
	int r;

	if (!d)
		return -errno;
	do
		errno = 0;
	while (readdir(d));
	r = -errno;
	closedir(d);
	return r;
}

static int list_one(const char *dir)
{
	int r = read_directory(dir);

	if (!r)
		return CMD_OK;
	fprintf(stderr, "attachfs: '%s' cannot be listed: %s\n", dir, strerror(-r));
	return CMD_FAILED;
}

/* All collections of the mount; those that cannot be listed are told, the others are. */
static int list_all(const char *mountpoint)
{
	DIR *d = opendir(mountpoint);
	const struct dirent *e;
	int status = CMD_OK;

	if (!d)
		return list_one(mountpoint);
	while ((e = readdir(d))) {
		char *dir = NULL;

		if (e->d_name[0] == '.' || asprintf(&dir, "%s/%s", mountpoint, e->d_name) < 0)
			continue;
		if (list_one(dir) != CMD_OK)
			status = CMD_FAILED;
		free(dir);
	}
	closedir(d);
	return status;
}

/*
 * What of the mount is meant: "" = all, else its collection, or the record, as the daemon spells
 * them. Cuts @full, which lies in the mount, behind the record.
 */
static const char *scope_of(char *full, const char *mountpoint)
{
	char *scope = full + strlen(mountpoint), *end;

	scope += *scope == '/';
	end = strchr(scope, '/');
	end = end ? strchr(end + 1, '/') : NULL;
	if (end)
		*end = '\0';
	return scope;
}

static bool is_in(const char *path, const char *scope)
{
	size_t n = strlen(scope);

	return !n || (!strncmp(path, scope, n) && (!path[n] || path[n] == '/'));
}

static void print_row(const json_t *o)
{
	long long unsized = cmd_number(o, NULL, "unsized");
	char bytes[CMD_SIZE], more[32] = "";

	if (!json_object_get(o, "attachments")) {
		printf("%-12s %9s %12s  %s\n", cmd_text(o, "id"), "-", "-", cmd_text(o, "path"));
		return;
	}
	if (unsized)
		snprintf(more, sizeof(more), "  (%lld of unknown size)", unsized);
	printf("%-12s %9lld %12s  %s%s\n", cmd_text(o, "id"), cmd_number(o, NULL, "attachments"),
	       cmd_size((double)cmd_number(o, NULL, "bytes"), bytes), cmd_text(o, "path"), more);
}

static int show(const char *mountpoint, const char *scope, bool json)
{
	int fd = cmd_open(mountpoint, "records", O_RDONLY);
	FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
	char *line = NULL;
	size_t size = 0;

	if (!f)
		return CMD_FAILED;
	if (!json)
		printf("%-12s %9s %12s  %s\n", "ID", "FILES", "BYTES", "RECORD");
	while (getline(&line, &size, f) > 0) {
		json_t *o = json_loads(line, 0, NULL);

		if (is_in(cmd_text(o, "path"), scope)) {
			if (json)
				fputs(line, stdout);
			else
				print_row(o);
		}
		json_decref(o);
	}
	free(line);
	fclose(f);
	return CMD_OK;
}

int cmd_run_records(const struct cmd_args *a)
{
	bool json = cmd_flag(a, "--json") || !isatty(STDOUT_FILENO);
	char *mountpoint = cmd_mount_of(cmd_path(a)), *full = cmd_absolute(cmd_path(a));
	int status = CMD_FAILED;

	if (mountpoint && full) {
		const char *scope = scope_of(full, mountpoint);
		int listed = *scope ? list_one(full) : list_all(mountpoint);

		status = show(mountpoint, scope, json);
		status = listed == CMD_OK ? status : listed;
	}
	free(full);
	free(mountpoint);
	return status;
}
