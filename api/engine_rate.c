/* SPDX-License-Identifier: MIT */

/*
 * The rate limit of a host, learned from its answers. What the server says (X-RateLimit-Remaining)
 * is exact but late: answers of calls side by side arrive in any order, and those on their way are
 * not counted in it. So we keep an estimate that errs on the low side: what was said less what is
 * pending, and less one for each call we start.
 *
 * A window lasts 60 s from its first call (P-14). We begin ours when the first answer after the end
 * of the last arrives, which is never before the server began it; when `remaining` jumps up by more
 * than calls out of order can explain, the server has begun a new one. A tenth of the limit, at
 * least 2, is kept for interactive calls.
 */

#include "engine.h"

void rate_init(struct rate *rate)
{
	*rate = (struct rate){.limit = -1, .remaining = -1, .seen = -1};
}

static void forget_window(struct rate *rate)
{
	rate->remaining = -1;
	rate->seen = -1;
}

void rate_request(struct rate *rate)
{
	if (rate->remaining > 0)
		rate->remaining--;
}

void rate_answer(struct rate *rate, int64_t limit, int64_t remaining, unsigned pending,
		 unsigned slots, int64_t now_ms)
{
	if (limit > 0)
		rate->limit = limit;
	if (remaining < 0)
		return;
	if (rate->seen >= 0 && now_ms >= rate->window_end_ms)
		forget_window(rate);
	if (rate->seen < 0 || remaining > rate->seen + slots)
		rate->window_end_ms = now_ms + ENGINE_WINDOW_MS;
	rate->seen = remaining;
	rate->remaining = remaining > pending ? remaining - pending : 0;
	if (rate->limit < remaining)
		rate->limit = remaining;
}

void rate_freeze(struct rate *rate, int64_t till_ms)
{
	if (till_ms > rate->frozen_till_ms)
		rate->frozen_till_ms = till_ms;
	forget_window(rate);
}

static int64_t reserve(const struct rate *rate)
{
	int64_t part = rate->limit / 10;

	if (part < 2)
		part = 2;
	return part <= rate->limit / 2 ? part : rate->limit / 2;
}

int64_t rate_wait_till(struct rate *rate, enum transfer_class class, int64_t now_ms)
{
	if (rate->frozen_till_ms > now_ms)
		return rate->frozen_till_ms;
	rate->frozen_till_ms = 0;
	if (rate->seen < 0)
		return 0;
	if (now_ms >= rate->window_end_ms) {
		forget_window(rate);
		return 0;
	}
	if (rate->remaining > (class == TRANSFER_INTERACTIVE ? 0 : reserve(rate)))
		return 0;
	return rate->window_end_ms;
}
