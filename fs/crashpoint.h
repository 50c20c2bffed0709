/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_CRASHPOINT_H
#define ATTACHFS_FS_CRASHPOINT_H

/*
 * Named steps at which a test lets the daemon die. Nothing in it, unless built with
 * -Dcrash_points=true: then the environment says what happens.
 *
 *	ATTACHFS_CRASH_POINT=NAME:N	SIGKILL to ourselves when NAME is passed for the N-th time
 *	ATTACHFS_CRASH_LOG=FILE		a line NAME for each point when it is first passed, and
 *					"killed NAME" before that SIGKILL
 *
 * tests/crash reads the names from the sources, so each is written out where it is passed:
 * crash_point("close.committed"), or crash_point_of("sent", kind) for one of each kind of call.
 *
 * Any thread, under any lock.
 */

#ifdef ATTACHFS_CRASH_POINTS
void crash_point(const char *name);
/* The point "@step.@kind". */
void crash_point_of(const char *step, const char *kind);
#else
static inline void crash_point(const char *name)
{
	(void)name;
}
static inline void crash_point_of(const char *step, const char *kind)
{
	(void)step;
	(void)kind;
}
#endif

#endif
