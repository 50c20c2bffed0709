/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_COMMANDS_H
#define ATTACHFS_FS_COMMANDS_H

/*
 * The commands beside mounting: they find the mount a path lies in and talk to its daemon through
 * .attachfs/, so they need nothing but the rights of the person who mounted. Exit status: 0 done, 1
 * failed or something is parked, 2 wrong usage.
 */

#include <stdbool.h>
#include <stdio.h>

/* Run argv[0] if it is a command's name (a mount's first argument never is: sources hold a ':'). */
bool commands_run(int argc, char **argv, int *ret_status);
void commands_print_help(FILE *f);

/*
 * Unmount, lazily if need be: by itself as root, else by fusermount3. 0, or with words for a person
 * in @message: -EBUSY, -ENOENT (fusermount3 is not installed), -EPERM (whatever else it says). Any
 * thread.
 */
int commands_unmount(const char *mountpoint, bool lazy, char *message, size_t size);
/* Whether something is mounted right there. */
bool commands_is_mounted(const char *path);
/* sd_notify(3)'s READY=1, where systemd waits for it. */
void commands_notify_ready(const char *source);

#endif
