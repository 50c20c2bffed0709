/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_MOUNTINFO_H
#define ATTACHFS_FS_MOUNTINFO_H

/*
 * What is mounted where, from /proc/self/mountinfo: nothing is asked of the mounts themselves, which
 * may be dead, or our own before it is served.
 */

#include <stdbool.h>
#include <stdio.h>

struct mountinfo {
	unsigned minor; /* of the device; for FUSE the number of its connection */
	char dir[4096];
	char type[256]; /* "fuse.attachfs" */
	unsigned owner; /* FUSE: the user who mounted; else 0 */
};

/* NULL: with errno. */
FILE *mountinfo_open(void);
/* The next one, a mount over another after it; false at the end. */
bool mountinfo_next(FILE *f, struct mountinfo *m);
/* The device of what lies uppermost at @dir, an absolute path without links; 0 = nothing there. */
unsigned mountinfo_minor(const char *dir);

#endif
