/* SPDX-License-Identifier: MIT */

/* What is kept here of what is where; comparing it with its hashes; making room. */

#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void print_usage(const json_t *o)
{
	char bytes[CMD_SIZE], dirty[CMD_SIZE], pinned[CMD_SIZE];

	printf("%-24s %9lld %9lld %12s %12s %12s\n", cmd_text(o, "collection"),
	       cmd_number(o, NULL, "files"), cmd_number(o, NULL, "cached"),
	       cmd_size((double)cmd_number(o, NULL, "bytes"), bytes),
	       cmd_size((double)cmd_number(o, NULL, "dirty"), dirty),
	       cmd_size((double)cmd_number(o, NULL, "pinned"), pinned));
}

static int show_usage(const char *mountpoint)
{
	int fd = cmd_open(mountpoint, "cache", O_RDONLY);
	FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
	char *line = NULL;
	size_t size = 0;

	if (!f)
		return CMD_FAILED;
	printf("%-24s %9s %9s %12s %12s %12s\n", "COLLECTION", "FILES", "CACHED", "BYTES",
	       "NOT SENT", "PINNED");
	while (getline(&line, &size, f) > 0) {
		json_t *o = json_loads(line, 0, NULL);

		print_usage(o);
		json_decref(o);
	}
	free(line);
	fclose(f);
	return CMD_OK;
}

struct work {
	const char *what;
	bool terminal;
	long long files, bytes, bad, kept;
	char error[256];
};

static bool on_line(void *ctx, json_t *o)
{
	struct work *w = ctx;
	bool done = json_is_true(json_object_get(o, "done"));
	char bytes[CMD_SIZE];

	w->files = cmd_number(o, NULL, "files");
	w->bytes = cmd_number(o, NULL, "bytes");
	w->bad = cmd_number(o, NULL, "bad");
	w->kept = cmd_number(o, NULL, "kept");
	snprintf(w->error, sizeof(w->error), "%s", cmd_text(o, "error"));
	if (w->terminal) {
		fprintf(stderr, "\r%s: %lld files, %s\033[K%s", w->what, w->files,
			cmd_size((double)w->bytes, bytes), done ? "\n" : "");
	} else {
		json_dumpf(o, stdout, JSON_COMPACT);
		putchar('\n');
		fflush(stdout);
	}
	return true;
}

static int work(const char *mountpoint, const char *path, const char *what)
{
	struct work w = {.what = what, .terminal = isatty(STDOUT_FILENO)};
	char command[64], *full = cmd_absolute(path);
	struct stat st;
	int r;

	if (!full || stat(full, &st) < 0) {
		fprintf(stderr, "attachfs: '%s': %s\n", path, strerror(errno));
		free(full);
		return CMD_FAILED;
	}
	if (!strcmp(full, mountpoint))
		snprintf(command, sizeof(command), "%s", what);
	else
		snprintf(command, sizeof(command), "%s %llu", what, (unsigned long long)st.st_ino);
	free(full);
	r = cmd_talk(mountpoint, command, on_line, &w);
	if (r < 0)
		return cmd_cut_off(what, mountpoint, r);
	if (*w.error)
		fprintf(stderr, "attachfs: %s of '%s': %s\n", what, path, w.error);
	if (w.bad)
		fprintf(stderr,
			"attachfs: %lld files of the cache had other bytes than were stored: the "
			"log "
			"names them; what the server has is fetched again\n",
			w.bad);
	if (w.kept)
		fprintf(stderr,
			"attachfs: %lld files stay: open, pinned, or not on the server yet\n",
			w.kept);
	return *w.error || w.bad ? CMD_FAILED : CMD_OK;
}

int cmd_run_cache(const struct cmd_args *a)
{
	const char *verb = a->n_words ? a->words[0] : "";
	bool does = !strcmp(verb, "verify") || !strcmp(verb, "drop");
	const char *path = does && a->n_words == 1 ? "." : cmd_path(a);
	char *mountpoint;
	int status = CMD_FAILED;

	if (!does && a->n_words > 1)
		return cmd_usage(a->command);
	mountpoint = cmd_mount_of(path);
	if (mountpoint && does)
		status = work(mountpoint, path, verb);
	else if (mountpoint && (cmd_flag(a, "--json") || !isatty(STDOUT_FILENO)))
		status = cmd_copy_out(mountpoint, "cache");
	else if (mountpoint)
		status = show_usage(mountpoint);
	free(mountpoint);
	return status;
}
