/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_ANNOUNCE_H
#define ATTACHFS_FS_ANNOUNCE_H

/*
 * What systemd is told of a daemon of Type=notify: READY=1 when the kernel is served, a STATUS= line
 * whenever what it would say has changed, STOPPING=1 at the end; see sd_notify(3). A thread of its
 * own, only where NOTIFY_SOCKET says that somebody listens.
 */

struct announce;
struct mount;

/* NULL: nobody listens, or no memory. */
struct announce *announce_start(struct mount *m);
/* Before mount_free(). NULL is fine. */
void announce_end(struct announce *a);

#endif
