/* SPDX-License-Identifier: MIT */

#include "window.h"

#include <attachfs/content.h>

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

void window_decide(const struct window_wish *w, struct window_range *ret_range)
{
	struct window_range r = {.start = w->missing, .limit = UINT64_MAX};
	uint64_t block = CONTENT_BLOCK_BYTES;

	if (w->size >= 0 && (uint64_t)w->size <= w->whole_bytes) {
		r.end = w->missing_end;
	} else if (w->forward && w->missing_end - w->missing > w->min_bytes) {
		/*
		 * open-ended, also where the missing range ends early: a request for its rest is
		 * cheaper than many small ones
		 */
		r.end = w->size >= 0 && w->missing_end >= (uint64_t)w->size ? UINT64_MAX
									    : w->missing_end;
		r.limit = w->end + w->min_bytes;
	} else {
		uint64_t end =
			w->end > w->missing + w->min_bytes ? w->end : w->missing + w->min_bytes;

		r.end = least((end + block - 1) / block * block, w->missing_end);
	}
	*ret_range = r;
}

bool window_reaches(uint64_t pos, uint64_t end, uint64_t limit, uint64_t window, uint64_t off)
{
	uint64_t ahead;

	if (off < pos || off >= end)
		return false;
	if (limit == UINT64_MAX && end != UINT64_MAX)
		return true; /* bounded: it brings all it was asked for */
	ahead = window > 4 * (uint64_t)CONTENT_BLOCK_BYTES ? window
							   : 4 * (uint64_t)CONTENT_BLOCK_BYTES;
	return limit == UINT64_MAX || off - pos <= ahead || off < limit;
}

uint64_t window_grow(uint64_t window, uint64_t pos, uint64_t limit, uint64_t end, uint64_t max)
{
	(void)pos;
	if (limit != UINT64_MAX && end + window / 2 >= limit && window < max)
		window = least(window * 2, max);
	return window;
}
