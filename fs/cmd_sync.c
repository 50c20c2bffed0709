/* SPDX-License-Identifier: MIT */

/*
 * Waiting until the server has what was written, with a bar for a person and the daemon's own lines
 * for a program. A bar goes by bytes, of what is acknowledged and what is on its way; where only
 * names are to be sent, by items.
 */

#include "cmd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/clock.h>

#define BAR_WIDTH  20
#define RATE_MS	   4000	 /* what the rate is averaged over */
#define OFFLINE_MS 1000	 /* impatient: so long without a server, or ... */
#define STILL_MS   30000 /* ... with nothing moving and nothing on its way */

struct bar {
	bool began;
	long long items, bytes;		  /* to send: most that was left at once */
	long long sent_first, wire_first; /* acknowledged, on the wire: before */
	double rate;			  /* bytes a second */
	long long rate_bytes;
	int64_t rate_ms;
};

struct syncing {
	struct cmd_progress *p;
	struct bar bar;
	bool said_why; /* ... it waits */
	int64_t end_ms;
	/* patience */
	long long moved[6]; /* the counts of the last line that told another one */
	int64_t moved_ms;   /* when that was, or something was on its way */
	int64_t offline_ms; /* the first of the lines since then without a server, 0 = none */
};

static long long left_of(const json_t *o)
{
	return cmd_number(o, NULL, "uploads") + cmd_number(o, NULL, "renames") +
	       cmd_number(o, NULL, "deletes");
}

/* ---- the bar ---- */

/* Bytes that have gone, as far as can be told before the server says so. */
static long long bytes_gone(struct bar *b, const json_t *o)
{
	long long left = cmd_number(o, NULL, "bytes");
	long long on_wire = cmd_number(o, NULL, "wire") - b->wire_first -
			    (cmd_number(o, NULL, "bytes_sent") - b->sent_first);

	if (on_wire < 0)
		on_wire = 0;
	if (on_wire > left)
		on_wire = left;
	return b->bytes - left + on_wire;
}

static void measure(struct bar *b, long long gone)
{
	int64_t now_ms = clock_mono_ms(), ms = now_ms - b->rate_ms;
	double weight = ms < RATE_MS ? (double)ms / RATE_MS : 1, rate;

	if (b->rate_ms && ms < 100)
		return;
	rate = b->rate_ms ? (double)(gone - b->rate_bytes) * 1000 / (double)ms : 0;
	if (b->rate_ms && rate >= 0)
		b->rate = b->rate > 0 ? b->rate * (1 - weight) + rate * weight : rate;
	b->rate_ms = now_ms;
	b->rate_bytes = gone;
}

/* "1.2 of 3.4 MiB, 1.0 MiB/s, 3 s left" */
static void print_bytes(const struct bar *b, long long gone)
{
	char of[CMD_SIZE], rate[CMD_SIZE], part[CMD_SIZE];
	double seconds = b->rate > 0 ? (double)(b->bytes - gone) / b->rate : 0;

	fprintf(stderr, ", %s of %s", cmd_size((double)gone, part), cmd_size((double)b->bytes, of));
	if (b->rate < 1 || gone >= b->bytes)
		return;
	fprintf(stderr, ", %s/s", cmd_size(b->rate, rate));
	if (seconds >= 3600)
		fprintf(stderr, ", %.0f h %02.0f min left", seconds / 3600 - 0.5,
			(seconds - 3600 * (double)(int)(seconds / 3600)) / 60);
	else if (seconds >= 60)
		fprintf(stderr, ", %d min %02d s left", (int)seconds / 60, (int)seconds % 60);
	else
		fprintf(stderr, ", %d s left", (int)seconds + 1);
}

static void draw(struct syncing *s, const json_t *o, bool last)
{
	struct bar *b = &s->bar;
	long long left = s->p->left, gone;
	char bar[BAR_WIDTH + 1];
	int filled = BAR_WIDTH;

	if (!b->began) {
		b->sent_first = cmd_number(o, NULL, "bytes_sent");
		b->wire_first = cmd_number(o, NULL, "wire");
		b->began = true;
	}
	if (left > b->items)
		b->items = left;
	if (!b->items)
		return; /* nothing to wait for */
	if (cmd_number(o, NULL, "bytes") > b->bytes)
		b->bytes = cmd_number(o, NULL, "bytes");
	gone = bytes_gone(b, o);
	measure(b, gone);
	if (b->bytes && !last)
		filled = (int)(BAR_WIDTH * gone / b->bytes);
	else if (b->items)
		filled = (int)(BAR_WIDTH * (b->items - left) / b->items);
	for (int i = 0; i < BAR_WIDTH; i++)
		bar[i] = i < filled ? '#' : '.';
	bar[BAR_WIDTH] = '\0';
	fprintf(stderr, "\r[%s] %lld of %lld files", bar, b->items - left, b->items);
	if (b->bytes)
		print_bytes(b, gone);
	if (strcmp(s->p->state, "online"))
		fprintf(stderr, ", %s", s->p->state);
	fputs("\033[K", stderr);
	if (last)
		fputc('\n', stderr);
}

/* ---- patience ---- */

/*
 * Whether to wait on. What is on its way may be long and is watched by the daemon, which gives up a
 * transfer that stalls, and a server that throttles has told until when; so both count as moving.
 * Where there is no server they do not.
 */
static bool has_stopped(struct syncing *s, const json_t *o)
{
	const char *const keys[] = {"uploads", "renames", "deletes", "bytes", "sent", "bytes_sent"};
	int64_t now_ms = clock_mono_ms();
	bool moved = !s->moved_ms;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		moved |= s->moved[i] != cmd_number(o, NULL, keys[i]);
		s->moved[i] = cmd_number(o, NULL, keys[i]);
	}
	if (moved || !cmd_why_it_waits(s->p->state))
		s->offline_ms = 0;
	else if (!s->offline_ms)
		s->offline_ms = now_ms;
	if (moved || cmd_number(o, NULL, "in_flight") || !strcmp(s->p->state, "throttled"))
		s->moved_ms = now_ms;
	return (s->offline_ms && now_ms - s->offline_ms >= OFFLINE_MS) ||
	       now_ms - s->moved_ms >= STILL_MS;
}

static bool on_line(void *ctx, json_t *o)
{
	struct syncing *s = ctx;
	struct cmd_progress *p = s->p;
	bool done = json_is_true(json_object_get(o, "done"));

	p->failed = cmd_number(o, NULL, "failed");
	p->left = left_of(o);
	snprintf(p->state, sizeof(p->state), "%s", cmd_text(o, "state"));
	p->gave_up = !done && ((p->impatient && has_stopped(s, o)) ||
			       (s->end_ms && clock_mono_ms() >= s->end_ms));
	if (p->terminal) {
		draw(s, o, done || p->gave_up);
	} else if (!p->impatient) {
		json_dumpf(o, stdout, JSON_COMPACT);
		putchar('\n');
		fflush(stdout);
	}
	if (!p->impatient && !done && !s->said_why && cmd_why_it_waits(p->state)) {
		fprintf(stderr, "%sattachfs: %s; waiting\n", p->terminal ? "\n" : "",
			cmd_why_it_waits(p->state));
		s->said_why = true;
	}
	return !p->gave_up;
}

int cmd_sync_mount(const char *mountpoint, const char *command, struct cmd_progress *p)
{
	struct syncing s = {.p = p};
	int r;

	if (p->limit_s > 0)
		s.end_ms = clock_mono_ms() + (int64_t)(p->limit_s * 1000);
	r = cmd_talk(mountpoint, command, on_line, &s);
	if (p->gave_up) {
		if (!p->impatient)
			fprintf(stderr, "attachfs: %lld are not on the server after %g s%s%s\n",
				p->left, p->limit_s, cmd_why_it_waits(p->state) ? ": " : "",
				cmd_why_it_waits(p->state) ? cmd_why_it_waits(p->state) : "");
		return CMD_FAILED;
	}
	if (r < 0)
		return cmd_cut_off("sync", mountpoint, r);
	if (p->failed) {
		fprintf(stderr,
			"attachfs: %lld could not be sent and wait for you: see "
			"%s/.attachfs/failed, mend, then attachfs retry\n",
			p->failed, mountpoint);
		return CMD_FAILED;
	}
	if (p->left && cmd_is_read_only(mountpoint)) {
		fprintf(stderr,
			"attachfs: '%s' is mounted read-only: %lld changes of an earlier mount "
			"wait for a writable one\n",
			mountpoint, p->left);
		return CMD_FAILED;
	}
	return CMD_OK;
}

/* ---- the commands ---- */

/* "@verb INODE" for what is at @path; false: there is nothing, and said so. @all: how to ask for all. */
static bool scope_of(const char *mountpoint, const char *verb, const char *path, const char *all,
		     char command[static 64])
{
	char below[8192];
	struct stat st;

	/* as the shell sees it, or else as the mount does */
	if (lstat(path, &st) < 0) {
		snprintf(below, sizeof(below), "%s/%s", mountpoint, path);
		if (*path == '/' || lstat(below, &st) < 0) {
			fprintf(stderr,
				"attachfs: '%s' does not exist: name what is there, or %s\n", path,
				all);
			return false;
		}
	}
	snprintf(command, 64, "%s %llu", verb, (unsigned long long)st.st_ino);
	return true;
}

int cmd_run_sync(const struct cmd_args *a)
{
	struct cmd_progress p = {.terminal = isatty(STDERR_FILENO) && isatty(STDOUT_FILENO)};
	const char *scope = cmd_flag(a, "--path"), *limit = cmd_flag(a, "--timeout");
	char command[64] = "sync", *mountpoint, *end = NULL;
	int status = CMD_FAILED;

	if (limit && ((p.limit_s = strtod(limit, &end)) <= 0 || *end)) {
		fprintf(stderr, "attachfs: --timeout: '%s' is not a number of seconds\n", limit);
		return CMD_USAGE;
	}
	mountpoint = cmd_mount_of(scope && !a->n_words ? scope : cmd_path(a));
	if (mountpoint && (!scope || scope_of(mountpoint, "sync", scope,
					      "leave out --path to wait for all", command)))
		status = cmd_sync_mount(mountpoint, command, &p);
	free(mountpoint);
	return status;
}

struct answer {
	bool silent;
	char error[256];
};

static bool on_answer(void *ctx, json_t *o)
{
	struct answer *a = ctx;

	snprintf(a->error, sizeof(a->error), "%s", cmd_text(o, "error"));
	if (!a->silent) {
		json_dumpf(o, stdout, JSON_COMPACT);
		putchar('\n');
	}
	return true;
}

static int tell(const char *mountpoint, const char *command, const char *name)
{
	struct answer answer = {.silent = isatty(STDOUT_FILENO)};
	int r = cmd_talk(mountpoint, command, on_answer, &answer);

	if (r < 0)
		cmd_cut_off(name, mountpoint, r);
	else if (*answer.error)
		fprintf(stderr, "attachfs: %s of '%s': %s\n", name, mountpoint, answer.error);
	return r < 0 || *answer.error ? CMD_FAILED : CMD_OK;
}

int cmd_run_retry(const struct cmd_args *a)
{
	char *mountpoint = cmd_mount_of(cmd_path(a));
	int status = mountpoint ? tell(mountpoint, "retry", "retry") : CMD_FAILED;

	free(mountpoint);
	return status;
}

/* A read-only mount takes no command with an inode: all of it is looked at. */
int cmd_run_refresh(const struct cmd_args *a)
{
	const char *path = a->n_words ? cmd_path(a) : NULL;
	char *mountpoint = cmd_mount_of(cmd_path(a)), command[64] = "refresh";
	int status = CMD_FAILED;

	if (mountpoint &&
	    (!path || cmd_is_read_only(mountpoint) ||
	     scope_of(mountpoint, "refresh", path, "the mountpoint for all of it", command)))
		status = tell(mountpoint, command, "refresh");
	free(mountpoint);
	return status;
}
