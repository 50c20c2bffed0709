/* SPDX-License-Identifier: MIT */

/*
 * What to do after a try: a pure function of what is known. Three questions, in this order:
 *
 *	1. May it be sent again at all? Not if an earlier sending may have been carried out and
 *	   it is not idempotent (P-22: a repeated POST makes a second file). A connection that
 *	   was never made, 425, 429, and a 503 that says when to come back, mean that nothing
 *	   was carried out.
 *	2. Is it worth it? A person waiting gets a few quick tries, so that a refusing host is
 *	   told within a second; background work goes on for ever. A 500 is the server's bug
 *	   more often than a passing weakness: two more tries and no more, for anyone, so that
 *	   the caller can single out the item that causes it (P-11).
 *	3. Is there time? What cannot be sent before its deadline ends now, with what is known now.
 */

#include <attachfs/transfer.h>

#include <errno.h>

#define FREEZE_MS	 60000 /* 429 without a Retry-After (P-14) */
#define BACKOFF_FIRST_MS 500
#define BACKOFF_MAX_MS	 60000
#define BACKOFF_MIN_MS	 50
#define TRIES_CONNECT	 3 /* these three are for transfers that do not retry for ever */
#define TRIES_BROKEN	 3
#define TRIES_STATUS	 4
#define TRIES_500	 3

/* Exponential with full jitter: anything up to the cap, so that many clients spread out. */
static int64_t backoff(const struct transfer_try *t)
{
	int64_t cap = BACKOFF_MAX_MS;

	if (t->tries < 8)
		cap = (int64_t)BACKOFF_FIRST_MS << (t->tries ? t->tries - 1 : 0);
	if (cap > BACKOFF_MAX_MS)
		cap = BACKOFF_MAX_MS;
	return BACKOFF_MIN_MS + (int64_t)(t->random % (uint64_t)(cap - BACKOFF_MIN_MS + 1));
}

static bool tries_left(const struct transfer_try *t, unsigned most)
{
	return t->retry_for_ever || t->tries < most;
}

static enum transfer_verdict after_error(const struct transfer_try *t, int64_t *ret_wait_ms)
{
	*ret_wait_ms = backoff(t);
	switch (t->error) {
	case -EHOSTDOWN:
		if (!t->retry_for_ever)
			*ret_wait_ms = 50 + t->random % 100;
		if (t->sent && !t->idempotent)
			return TRANSFER_FINISH;
		return tries_left(t, TRIES_CONNECT) ? TRANSFER_RETRY : TRANSFER_FINISH;
	case -ETIMEDOUT: /* not sent: no connection in time; a person has waited long enough by then
			  */
		if (!t->sent)
			return t->retry_for_ever ? TRANSFER_RETRY : TRANSFER_FINISH;
		return t->idempotent && tries_left(t, TRIES_BROKEN) ? TRANSFER_RETRY
								    : TRANSFER_FINISH;
	case -ECONNRESET:
		if (t->sent && !t->idempotent)
			return TRANSFER_FINISH;
		return tries_left(t, TRIES_BROKEN) ? TRANSFER_RETRY : TRANSFER_FINISH;
	default:
		return TRANSFER_FINISH;
	}
}

static enum transfer_verdict after_status(const struct transfer_try *t, int64_t *ret_wait_ms)
{
	bool told = t->retry_after_ms >= 0;
	int64_t wait = backoff(t);

	/* A server that says "0" is asked again a little later all the same. */
	if (told && t->retry_after_ms > wait)
		wait = t->retry_after_ms;
	*ret_wait_ms = wait;
	switch (t->status) {
	case 429:
		if (!told)
			*ret_wait_ms = FREEZE_MS;
		return t->deadline_ms || tries_left(t, TRIES_STATUS) ? TRANSFER_RETRY
								     : TRANSFER_FINISH;
	case 425:
		return tries_left(t, TRIES_STATUS) ? TRANSFER_RETRY : TRANSFER_FINISH;
	case 503:
		if (told && tries_left(t, TRIES_STATUS))
			return TRANSFER_RETRY;
		__attribute__((fallthrough));
	case 408:
	case 502:
	case 504:
		return t->idempotent && tries_left(t, TRIES_STATUS) ? TRANSFER_RETRY
								    : TRANSFER_FINISH;
	case 500:
		return t->idempotent && t->tries < TRIES_500 ? TRANSFER_RETRY : TRANSFER_FINISH;
	default:
		return TRANSFER_FINISH;
	}
}

enum transfer_verdict transfer_retry_decide(const struct transfer_try *t, int64_t *ret_wait_ms)
{
	int64_t wait = 0;
	enum transfer_verdict verdict = t->error ? after_error(t, &wait) : after_status(t, &wait);

	if (verdict == TRANSFER_RETRY && t->deadline_ms && t->now_ms + wait >= t->deadline_ms)
		verdict = TRANSFER_FINISH;
	*ret_wait_ms = verdict == TRANSFER_RETRY ? wait : 0;
	return verdict;
}
