/* SPDX-License-Identifier: MIT */

#include "window.h"

#include <attachfs/content.h>

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t round_up(uint64_t off)
{
	uint64_t block = CONTENT_BLOCK_BYTES;

	return (off + block - 1) / block * block;
}

/* ---- readers ---- */

static bool is_near(uint64_t at, uint64_t off)
{
	return at > off ? at - off <= WINDOW_SLACK_BYTES : off - at <= WINDOW_SLACK_BYTES;
}

/* The one that a read at @off goes on from, the longest if there are several; -1 = none. */
static int find_head(const struct window_heads *h, uint64_t off)
{
	int found = -1;

	for (int i = 0; i < WINDOW_HEADS; i++)
		if (h->of[i].run && is_near(h->of[i].at, off) &&
		    (found < 0 || h->of[i].run > h->of[found].run))
			found = i;
	return found;
}

void window_note(struct window_heads *h, uint64_t off, uint64_t end)
{
	int i = find_head(h, off);

	if (i < 0) {
		i = (int)(h->next++ % WINDOW_HEADS);
		h->of[i].run = 0;
		h->of[i].at = off;
	}
	h->of[i].run += end - off;
	h->of[i].at = most(h->of[i].at, end);
}

bool window_goes_on(const struct window_heads *h, uint64_t off, uint64_t *ret_from)
{
	int i = find_head(h, off);

	if (i < 0 || h->of[i].run < WINDOW_RUN_BYTES)
		return false;
	*ret_from = least(off, h->of[i].at);
	return true;
}

/* ---- what to ask for ---- */

static uint64_t forward_end(const struct window_wish *w)
{
	uint64_t end = w->stop;

	if (w->segment)
		return most(w->end, least(end, round_up(w->missing + w->segment)));
	return w->size >= 0 && end >= (uint64_t)w->size ? UINT64_MAX : end;
}

static uint64_t blocks_end(const struct window_wish *w)
{
	uint64_t take = w->missing ? WINDOW_MIN_BYTES : WINDOW_FIRST_BYTES;

	return least(round_up(most(w->end, w->missing + take)), w->missing_end);
}

void window_decide(const struct window_wish *w, struct window_range *ret_range)
{
	struct window_range r = {.start = w->missing, .limit = UINT64_MAX};

	if (w->size >= 0 && (uint64_t)w->size <= WINDOW_WHOLE_BYTES) {
		r.end = w->missing_end;
	} else if (w->forward && w->stop - w->missing > WINDOW_MIN_BYTES) {
		r.end = forward_end(w);
		r.forward = true;
		if (!w->segment)
			r.limit = w->end + WINDOW_MIN_BYTES;
	} else {
		r.end = blocks_end(w);
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
	ahead = most(window, WINDOW_SLACK_BYTES);
	return limit == UINT64_MAX || off - pos <= ahead || off < limit;
}

uint64_t window_grow(uint64_t window, uint64_t limit, uint64_t end)
{
	if (limit != UINT64_MAX && end + window / 2 >= limit && window < WINDOW_MAX_BYTES)
		window = least(window * 2, WINDOW_MAX_BYTES);
	return window;
}

bool window_resumes(uint64_t window, uint64_t pos, uint64_t limit, uint64_t end)
{
	return limit > pos && (end > pos || limit - pos >= window / 4);
}

/* ---- how many ---- */

static bool add_lane(struct window_pace *p, uint64_t bytes)
{
	uint64_t each = bytes / (p->more + 1);

	if (p->more && bytes < p->rate + p->rate / 4) {
		p->more--;
		p->settled = true;
		return false;
	}
	if (p->more + 1 == WINDOW_LANES_MAX)
		return false;
	p->rate = bytes;
	p->more++;
	/* two seconds of one stream */
	p->segment =
		round_up(least(most(2 * each, WINDOW_SEGMENT_MIN_BYTES), WINDOW_SEGMENT_MAX_BYTES));
	return true;
}

bool window_pace(struct window_pace *p, uint64_t bytes, bool waited)
{
	/* a server that sends nothing at all is not one to send more requests to */
	if (!waited || bytes == 0 || bytes >= WINDOW_FAST_BYTES) {
		p->slow = 0;
		return false;
	}
	if (++p->slow < 2 || p->settled)
		return false;
	p->slow = 0;
	return add_lane(p, bytes);
}
