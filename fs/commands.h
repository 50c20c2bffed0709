/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_COMMANDS_H
#define ATTACHFS_FS_COMMANDS_H

/*
 * The commands beside mounting (cmd.h says how they are made), and what of them the daemon needs.
 * Exit status: 0 done, 1 failed or something is left that the server refused, 2 wrong usage.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Run argv[0] if it is a command's name (a mount's first argument never is: sources hold a ':'). */
bool commands_run(int argc, char **argv, int *ret_status);
/* The command @word was probably meant to be, NULL when none is near. */
const char *commands_suggest(const char *word);
void commands_print_help(FILE *f);
/* The commands' part of the man page in roff, from the same table. */
void commands_print_man(FILE *f);
/*
 * What a shell may complete, a line each: "commands", "flags" (of @command), "mounts", "sections",
 * "systems", "options". False: nothing is called @what.
 */
bool commands_complete(const char *what, const char *command, FILE *f);

/*
 * Unmount, lazily if need be: by itself as root, else by fusermount3. 0, or with words for a person
 * in @message: -EBUSY, -ENOENT (fusermount3 is not installed), -EPERM (whatever else it says). Any
 * thread.
 */
int commands_unmount(const char *mountpoint, bool lazy, char *message, size_t size);
/* Whether something is mounted right there. */
bool commands_is_mounted(const char *path);

#endif
