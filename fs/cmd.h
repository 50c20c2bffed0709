/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_CMD_H
#define ATTACHFS_FS_CMD_H

/*
 * What the files of the commands share:
 *
 *	commands.c       the table, its help, the man page's part of it, what shells complete
 *	cmd_find.c       the mount a path lies in, and its control files
 *	cmd_talk.c       a command to the daemon, its answer line by line
 *	cmd_status.c     status, list
 *	cmd_sync.c       sync, retry, refresh
 *	cmd_items.c      pending, failed, events
 *	cmd_conflicts.c  conflicts
 *	cmd_pin.c        pin, unpin
 *	cmd_cache.c      cache
 *	cmd_records.c    ls-records
 *	cmd_umount.c     umount
 *	cmd_config.c     config
 *
 * One row of the table is all there is to know of a command: how it is written, what it takes, what
 * its help and the man page say. A command speaks with the daemon through the files of .attachfs/
 * only, so it needs the rights of the person who mounted and nothing else. What goes wrong is said
 * on standard error with the file and the remedy; the exit status is one of CMD_*. One thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <jansson.h>

enum { CMD_OK = 0, CMD_FAILED = 1, CMD_USAGE = 2 };

#define CMD_FLAGS 4

struct cmd_flag {
	const char *name;     /* "--json"; NULL ends the list */
	const char *argument; /* NULL = takes none */
	const char *help;
};

struct cmd_args;

struct command {
	const char *name;
	const char *arguments; /* behind the flags */
	const char *help;      /* one line */
	const char *more;      /* the rest of what is to be said, or NULL */
	struct cmd_flag flags[CMD_FLAGS];
	unsigned least,
		most; /* how many arguments; with least 0, none means the working directory */
	/* one of the two; the second reads its arguments itself, its name first */
	int (*run)(const struct cmd_args *a);
	int (*run_raw)(int argc, char **argv);
};

struct cmd_args {
	const struct command *command;
	const char
		*values[CMD_FLAGS]; /* as the flags: NULL = not given, "" = it takes no argument */
	const char *const *words;
	unsigned n_words;
};

/* Say how @command is used. Always CMD_USAGE. */
int cmd_usage(const struct command *command);
/* The value of a flag of the command's, NULL = not given. */
const char *cmd_flag(const struct cmd_args *a, const char *name);
/* The last word, or the working directory. */
const char *cmd_path(const struct cmd_args *a);

/* ---- cmd_find.c ---- */

/* The mountpoint @path lies in, malloc()ed; NULL and said so: none. */
char *cmd_mount_of(const char *path);
/* An absolute path without asking the filesystem where that fails: a dead mount would. NULL: memory. */
char *cmd_absolute(const char *path);
/* The mounts of this user, each to @each until it returns false. */
void cmd_each_mount(bool (*each)(void *ctx, const char *mountpoint), void *ctx);
/* .attachfs/@name; -1 and said why, but for a read-only mount's EROFS. */
int cmd_open(const char *mountpoint, const char *name, int flags);
/* The file to standard output: CMD_OK, CMD_FAILED. */
int cmd_copy_out(const char *mountpoint, const char *name);
/* The status, to be json_decref()ed; NULL and said why. */
json_t *cmd_status(const char *mountpoint);
bool cmd_is_read_only(const char *mountpoint);

/* Of JSON objects: 0 and "" for what is not there. @outer NULL = the object itself. */
long long cmd_number(const json_t *o, const char *outer, const char *key);
const char *cmd_text(const json_t *o, const char *key);
/* "3.4 MiB" */
#define CMD_SIZE 24
const char *cmd_size(double bytes, char text[static CMD_SIZE]);

/* ---- cmd_talk.c ---- */

/*
 * One command line to the daemon; each line of its answer to @line, until that returns false or the
 * one with "done" came. 0 or -errno; -EPIPE and the like: cmd_is_gone().
 */
int cmd_talk(const char *mountpoint, const char *command, bool (*line)(void *ctx, json_t *o),
	     void *ctx);
/* Whether an error of cmd_talk() means that the daemon has ended. */
bool cmd_is_gone(int error);
/* cmd_talk() failed: say so. Always CMD_FAILED. */
int cmd_cut_off(const char *what, const char *mountpoint, int error);
/* Why nothing moves in this state, NULL = it does. */
const char *cmd_why_it_waits(const char *state);

/* ---- cmd_sync.c ---- */

struct cmd_progress {
	bool terminal;	   /* draw a bar */
	bool impatient;	   /* umount: silent, and give up where nothing gets on */
	double limit_s;	   /* give up after so long, 0 = never */
	const char *scope; /* what of the mount, for words; NULL = all */
	/* the answer */
	long long left, failed;
	bool gave_up;
	char state[16];
};

/* @command: "sync", or "sync INODE". CMD_OK, or CMD_FAILED with words. */
int cmd_sync_mount(const char *mountpoint, const char *command, struct cmd_progress *p);

/* ---- cmd_items.c ---- */

/* The lines of pending or failed for a person, LEFT_MAX at most; @why stands for what a line does not say. */
void cmd_print_items(const char *mountpoint, const char *name, FILE *f, const char *why);

/* ---- the commands ---- */

int cmd_run_status(const struct cmd_args *a);
int cmd_run_list(const struct cmd_args *a);
int cmd_run_sync(const struct cmd_args *a);
int cmd_run_retry(const struct cmd_args *a);
int cmd_run_refresh(const struct cmd_args *a);
int cmd_run_pending(const struct cmd_args *a);
int cmd_run_failed(const struct cmd_args *a);
int cmd_run_events(const struct cmd_args *a);
int cmd_run_conflicts(const struct cmd_args *a);
int cmd_run_pin(const struct cmd_args *a);
int cmd_run_cache(const struct cmd_args *a);
int cmd_run_records(const struct cmd_args *a);
int cmd_run_umount(const struct cmd_args *a);
int cmd_run_config(int argc, char **argv);

#endif
