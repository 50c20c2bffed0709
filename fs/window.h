/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_WINDOW_H
#define ATTACHFS_FS_WINDOW_H

/* The readahead decision: pure functions of their arguments. */

#include <stdbool.h>
#include <stdint.h>

struct window_wish {
	uint64_t off, end; /* what a read wants, and misses */
	int64_t size;	   /* of the content, -1 = not known */
	uint64_t missing,
		missing_end; /* the missing range that holds `off`, from its block's start on */
	bool forward;	     /* the read begins where an earlier range ended */
	uint64_t whole_bytes, min_bytes;
};

struct window_range {
	uint64_t start, end; /* to ask for; end UINT64_MAX = open */
	uint64_t limit;	     /* pause there; UINT64_MAX = never */
};

/*
 * What to ask the server for: the whole of a small file, an open stream for a reader who goes
 * forward, a few blocks otherwise.
 */
void window_decide(const struct window_wish *w, struct window_range *ret_range);

/*
 * Whether a stream at @pos, asked up to @end and paused at @limit, is the one to wait for when byte
 * @off is wanted: it lies ahead, and not further than the stream runs ahead anyway.
 */
bool window_reaches(uint64_t pos, uint64_t end, uint64_t limit, uint64_t window, uint64_t off);

/*
 * The new window when a reader wants bytes up to @end: doubled once he has used half of what was
 * fetched ahead for him.
 */
uint64_t window_grow(uint64_t window, uint64_t pos, uint64_t limit, uint64_t end, uint64_t max);

#endif
