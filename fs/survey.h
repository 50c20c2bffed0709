/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_SURVEY_H
#define ATTACHFS_FS_SURVEY_H

/*
 * What is in the tree, and of that in the cache, for a person who asks: the records; how much of which
 * collection is here; whether it still has the bytes that were stored; and making room before the limit does.
 */

#include <stdbool.h>
#include <stdint.h>

struct mount;

/* One JSON line per collection, the last one for all: malloc()ed, NULL without memory. No lock held. */
char *survey_usage(struct mount *m);

/*
 * One JSON line per record that is known, in the order of the tree: {"path", "id", "attachments",
 * "bytes", "unsized"}. Of a record that was never listed only the first two; unsized counts the
 * attachments whose size the server has not told, which bytes leaves out. Asks for nothing.
 * malloc()ed, NULL without memory. No lock held.
 */
char *survey_records(struct mount *m);

struct survey_counts {
	uint64_t files, bytes; /* verified, or dropped */
	uint64_t bad;	       /* verify: had other bytes than were stored */
	uint64_t kept;	       /* drop: open, pinned, or not on the server */
};

enum survey_deed { SURVEY_VERIFY, SURVEY_DROP };

struct survey;

/* What is to be done to the contents of all files in or below node @node (0 = all). 0, -ENOMEM, -ENOENT. */
int survey_new(struct mount *m, enum survey_deed deed, uint64_t node, struct survey **ret_survey);
/*
 * The next file, or some that need nothing; long for a large one. What was done so far goes to
 * *@ret_counts. False: there is none left. One thread at a time, without a lock.
 */
bool survey_step(struct survey *s, struct survey_counts *ret_counts);
/* NULL is fine. */
void survey_free(struct survey *s);

#endif
