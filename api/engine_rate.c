/* SPDX-License-Identifier: MIT */

/*
 * The rate limit of a host, learned from its answers. What the server says (X-RateLimit-Remaining)
 * is exact but late: answers of calls side by side arrive in any order, and those on their way are
 * not counted in it. So we keep an estimate that errs on the low side: what was said less what is
 * pending, and less one for each call we start.
 *
 * A window lasts 60 s from its first call (P-14). We begin ours when the first answer after the end
 * of the last arrives, which is never before the server began it; when `remaining` jumps up by more
 * than calls out of order can explain, the server has begun a new one.
 *
 * A server that tells nothing but 429 has a limit all the same: as many calls as it took in the
 * window before it said so. That is taken for its limit from then on; after ten windows that were
 * used up without another 429 for a little more, for somebody else may have used a part of it. Only
 * where it looks like a limit a minute: many calls came before it, and it ends when a minute does.
 *
 * Who waits for nobody leaves to programs that wait
 *
 *	half of the limit at the window's begin, and less and less of it towards its end: what is
 *	to be sent behind their backs never uses a window up at its start, and a few calls go at once;
 *	a tenth, at least 2, up to the last 10 s: from then on what nobody came for is used up;
 *	nothing in the last 2.5 s.
 */

#include "engine.h"

#include <limits.h>

#define LATE_MS	    (ENGINE_WINDOW_MS / 6)
#define LAST_MS	    (ENGINE_WINDOW_MS / 24)
#define GUESS_LEAST 20
#define GUESS_FULL  10
#define MARGIN_MS   1000       /* a window that we count ourselves is the server's a little later */
#define CALLS_MAX   1000000000 /* whatever the server says */

void rate_init(struct rate *rate)
{
	*rate = (struct rate){.limit = -1, .remaining = -1, .seen = -1};
}

/* The next call begins a window, as the server counts and as we do. */
static void forget_window(struct rate *rate)
{
	rate->remaining = -1;
	rate->seen = -1;
	rate->count_end_ms = 0;
	rate->sent = rate->answered = 0;
}

/* Ours, which is counted whatever the server tells. */
static void roll_count(struct rate *rate, int64_t now_ms)
{
	if (rate->count_end_ms && now_ms < rate->count_end_ms)
		return;
	if (rate->guessed && rate->sent >= rate->limit * 9 / 10 && ++rate->full >= GUESS_FULL) {
		rate->limit += rate->limit / 10 + 1;
		rate->full = 0;
	}
	rate->count_end_ms = now_ms + ENGINE_WINDOW_MS + MARGIN_MS;
	rate->sent = rate->answered = 0;
}

void rate_request(struct rate *rate, int64_t now_ms)
{
	roll_count(rate, now_ms);
	rate->sent++;
	if (rate->remaining > 0)
		rate->remaining--;
}

static void learn_limit(struct rate *rate, int64_t limit)
{
	if (limit <= 0)
		return;
	rate->limit = limit < CALLS_MAX ? limit : CALLS_MAX;
	rate->guessed = false;
}

void rate_answer(struct rate *rate, int64_t limit, int64_t remaining, unsigned pending,
		 unsigned slots, int64_t now_ms)
{
	learn_limit(rate, limit);
	if (rate->seen >= 0 && now_ms >= rate->window_end_ms)
		forget_window(rate);
	rate->answered++;
	if (remaining < 0)
		return;
	if (remaining > CALLS_MAX)
		remaining = CALLS_MAX;
	if (rate->seen < 0 || remaining > rate->seen + slots)
		rate->window_end_ms = now_ms + ENGINE_WINDOW_MS;
	else if (remaining > rate->seen)
		remaining = rate->seen; /* this answer was overtaken by that one */
	rate->seen = remaining;
	rate->remaining = remaining > pending ? remaining - pending : 0;
	if (rate->limit < remaining)
		rate->limit = remaining;
}

/* Whether a window of ours ends about when the server says that it takes calls again. */
static bool fits_window(const struct rate *rate, int64_t retry_ms, int64_t now_ms)
{
	int64_t left_ms = rate->count_end_ms - MARGIN_MS - now_ms;

	return retry_ms < 0 || (retry_ms > left_ms - LATE_MS && retry_ms < left_ms + LATE_MS);
}

void rate_refused(struct rate *rate, int64_t limit, int64_t retry_ms, int64_t now_ms)
{
	learn_limit(rate, limit);
	/* those that were on their way with the first are refused with it, and tell nothing new */
	if (rate->frozen_till_ms || (rate->limit > 0 && !rate->guessed))
		return;
	rate->guessed = rate->answered >= GUESS_LEAST && fits_window(rate, retry_ms, now_ms);
	rate->limit = rate->guessed ? rate->answered : -1;
	rate->full = 0;
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

static int64_t round_up(int64_t a, int64_t b)
{
	return (a + b - 1) / b;
}

/* What is left for programs that wait, so long before the window's end. */
static int64_t kept(const struct rate *rate, int64_t left_ms)
{
	int64_t even = round_up(rate->limit * left_ms, 2 * ENGINE_WINDOW_MS);
	int64_t last = reserve(rate);

	if (left_ms <= LAST_MS)
		return 0;
	if (left_ms < LATE_MS)
		last = round_up(last * left_ms, LATE_MS);
	return even > last ? even : last;
}

/* So long before the window's end less than @remaining is kept. */
static int64_t find_left_ms(const struct rate *rate, int64_t remaining)
{
	int64_t even, last;

	if (remaining <= 0)
		return 0;
	even = (remaining - 1) * 2 * ENGINE_WINDOW_MS / rate->limit;
	last = remaining > reserve(rate) ? even : (remaining - 1) * LATE_MS / reserve(rate);
	if (last < even)
		even = last;
	return even > LAST_MS ? even : LAST_MS;
}

/*
 * The window that holds now, or would begin now: what is left of it and its end. False: nothing is
 * known of any.
 */
static bool current_window(struct rate *rate, int64_t now_ms, int64_t *ret_remaining,
			   int64_t *ret_end_ms)
{
	if (rate->seen >= 0 && now_ms >= rate->window_end_ms)
		forget_window(rate);
	*ret_end_ms = rate->window_end_ms;
	*ret_remaining = rate->remaining;
	if (rate->seen >= 0)
		return true;
	if (rate->limit <= 0)
		return false;
	*ret_end_ms = rate->count_end_ms;
	*ret_remaining = rate->sent < rate->limit ? rate->limit - rate->sent : 0;
	if (now_ms >= rate->count_end_ms) {
		*ret_end_ms = now_ms + ENGINE_WINDOW_MS;
		*ret_remaining = rate->limit;
	}
	return true;
}

unsigned rate_room(struct rate *rate, int64_t now_ms)
{
	int64_t remaining, end_ms;

	if (rate->frozen_till_ms > now_ms)
		return 0;
	if (!current_window(rate, now_ms, &remaining, &end_ms))
		return UINT_MAX;
	remaining -= kept(rate, end_ms - now_ms);
	return remaining > 0 ? (unsigned)remaining : 0;
}

int64_t rate_wait_till(struct rate *rate, enum transfer_class class, int64_t now_ms,
		       int64_t *ret_end_ms)
{
	int64_t remaining, end_ms;

	*ret_end_ms = rate->frozen_till_ms;
	if (rate->frozen_till_ms > now_ms)
		return rate->frozen_till_ms;
	rate->frozen_till_ms = 0;
	if (!current_window(rate, now_ms, &remaining, &end_ms))
		return 0;
	*ret_end_ms = end_ms;
	if (class == TRANSFER_INTERACTIVE)
		return remaining > 0 ? 0 : end_ms;
	if (remaining > kept(rate, end_ms - now_ms))
		return 0;
	end_ms -= find_left_ms(rate, remaining);
	return end_ms > now_ms ? end_ms : now_ms + 1;
}
