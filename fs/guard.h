/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_GUARD_H
#define ATTACHFS_FS_GUARD_H

/*
 * A small process that outlives a killed daemon. Whoever kills the daemon (the OOM killer, kill -9)
 * may do so while one of its threads waits in the kernel with a notification, for a directory that a
 * program holds while it waits for the daemon's answer. That thread keeps the connection open, so
 * the kernel goes on waiting for an answer: the program hangs, and so does all that looks at the
 * mount. The guard then aborts the connection, and the mount is dead as after any other kill.
 *
 * It needs fusectl (mounted at /sys/fs/fuse/connections by systemd), or to be root.
 */

/*
 * Forks it off; from the thread whose end is the daemon's, before there are others. Returns the
 * descriptor to guard_set() and guard_end() with, or a negative errno: then there is no guard.
 */
int guard_start(void);
/* What there is to guard: the kernel's number of the connection, and where it is mounted. */
void guard_set(int guard, unsigned connection, const char *mountpoint);
/* The daemon ends by itself. -1 is ignored. */
void guard_end(int guard);

#endif
