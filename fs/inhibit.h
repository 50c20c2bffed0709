/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_INHIBIT_H
#define ATTACHFS_FS_INHIBIT_H

/*
 * Asks the system to wait with its end for what the server does not have yet: while there is
 * something to send and the server can be reached, a lock of logind's is held ("shutdown", mode "delay"; systemd-inhibit --list shows it).
 * It delays a shutdown by InhibitDelayMaxSec= of logind.conf(5) at most, 5 seconds where nothing is
 * said: nothing is lost without it either, what was closed is sent after the next mount. Without a
 * system bus, or without logind, nothing is held and nothing is said.
 *
 * A thread of its own, begun when a lock is first wanted; it alone speaks on the bus, and is
 * connected only while it holds a lock. Optional at build (meson's option systemd).
 */

#include <stddef.h>

struct inhibit;
struct mount;

#ifdef ATTACHFS_INHIBIT

/* NULL: no memory. @m's sync is there already, and outlives it. */
struct inhibit *inhibit_new(struct mount *m);
/* Look whether a lock is wanted. Never blocks; one thread at a time. NULL is fine. */
void inhibit_tick(struct inhibit *i);
/* Lets go of the lock. Waits for a call on the bus, for some seconds at most. NULL is fine. */
void inhibit_free(struct inhibit *i);

#else

static inline struct inhibit *inhibit_new(struct mount *m)
{
	(void)m;
	return NULL;
}

static inline void inhibit_tick(struct inhibit *i)
{
	(void)i;
}

static inline void inhibit_free(struct inhibit *i)
{
	(void)i;
}

#endif
#endif
