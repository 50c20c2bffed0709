/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_RANGES_H
#define ATTACHFS_FS_RANGES_H

/*
 * A set of numbers, kept as ranges [first, end): which bytes of a file are there. Pure: no I/O, no
 * locks; the owner serialises.
 *
 * Invariant (ranges_check): sorted, none empty, none touching its neighbour, `bytes` is their sum.
 * All zeros is the empty set. Adding in order, which is what nearly every file sees, is O(1);
 * elsewhere it costs a binary search and a memmove().
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range {
	uint64_t first, end; /* end is not in it */
};

struct ranges {
	struct range *at;
	size_t count, room;
	uint64_t bytes; /* sum of the lengths */
};

/* Empty it and free its memory. */
void ranges_clear(struct ranges *r);

/* Make sure that the next @extra calls of ranges_add() or ranges_remove() cannot fail. 0 or
 * -ENOMEM. */
int ranges_reserve(struct ranges *r, size_t extra);

/* 0 or -ENOMEM, the set unchanged. An empty range is nothing to do. */
int ranges_add(struct ranges *r, uint64_t first, uint64_t end);
int ranges_remove(struct ranges *r, uint64_t first, uint64_t end);

/* Whether all of [first, end) is in the set; true for an empty range. */
bool ranges_has(const struct ranges *r, uint64_t first, uint64_t end);

/* How many numbers of [first, end) are in the set. */
uint64_t ranges_overlap(const struct ranges *r, uint64_t first, uint64_t end);

/* The part at or after @off of the first range that has such a part. False = none. */
bool ranges_next(const struct ranges *r, uint64_t off, struct range *ret_range);

/* The first gap of [off, limit), cut to it. False = none. */
bool ranges_next_gap(const struct ranges *r, uint64_t off, uint64_t limit, struct range *ret_gap);

/*
 * As bytes and back: `count` pairs of uint64 in host order lie at `at`. Loading replaces the set;
 * -EINVAL when the invariant does not hold (@data may come from a damaged disk), -ENOMEM.
 */
int ranges_load(struct ranges *r, const void *data, size_t len);

bool ranges_check(const struct ranges *r);

#endif
