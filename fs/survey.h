/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_SURVEY_H
#define ATTACHFS_FS_SURVEY_H

/*
 * What is in the cache of what is in the tree, for a person who asks: how much of which collection;
 * whether it still has the bytes that were stored; and making room before the limit does.
 */

#include <stdbool.h>
#include <stdint.h>

struct mount;

/* One JSON line per collection, the last one for all: malloc()ed, NULL without memory. No lock held. */
char *survey_usage(struct mount *m);

struct survey_counts {
	uint64_t files, bytes; /* verified, or dropped */
	uint64_t bad;	       /* verify: had other bytes than were stored */
	uint64_t kept;	       /* drop: open, pinned, or not on the server */
};

/*
 * Verify or drop the contents of all files in or below node @node (0 = all). Long: on a pool thread
 * without a lock. @more is called after each with what was done so far; false stops. 0, -ENOMEM,
 * -ENOENT (no such node).
 */
int survey_verify(struct mount *m, uint64_t node,
		  bool (*more)(void *ctx, const struct survey_counts *c), void *ctx);
int survey_drop(struct mount *m, uint64_t node,
		bool (*more)(void *ctx, const struct survey_counts *c), void *ctx);

#endif
