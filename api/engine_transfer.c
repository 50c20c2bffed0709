/* SPDX-License-Identifier: MIT */

/*
 * A transfer's way on the transfer thread:
 *
 *	from      event                         to
 *	NEW       accepted                      WAITING, or done (host offline and it may not wait)
 *	WAITING   its host has a slot           RUNNING
 *	RUNNING   answer or error, no retry     done
 *	RUNNING   redirect                      WAITING, at another host perhaps
 *	RUNNING   to be tried again             BACKOFF, or WAITING where the breaker waits
 *	BACKOFF   timer                         WAITING
 *	any       deadline, cancel, stall       done
 *
 * One timer serves deadline, stall and back-off: it is set to whichever comes first and looks again
 * when it fires.
 */

#include "engine.h"

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *transfer_url(const struct transfer *t)
{
	return t->url ? t->url : t->spec.url;
}

/* Timer */

static void arm(struct engine *engine, struct transfer *t)
{
	int64_t at_ms = t->spec.deadline_mono_ms;
	int64_t next_ms = 0;

	if (t->state == TRANSFER_BACKOFF)
		next_ms = t->retry_at_ms;
	else if (t->state ==
		 TRANSFER_RUNNING) /* stalls are looked for four times as often as they last */
		next_ms = clock_mono_ms() + engine->config.stall_ms / 4 + 1;
	if (next_ms && (!at_ms || next_ms < at_ms))
		at_ms = next_ms;
	if (at_ms)
		timer_set(&engine->timers, &t->timer, at_ms);
	else
		timer_clear(&engine->timers, &t->timer);
}

static void deadline_passed(struct engine *engine, struct transfer *t, int64_t now_ms)
{
	const char *words = "no answer in time";

	if (t->host->open)
		words = "no answer in time: the server cannot be reached (offline)";
	else if (t->host->rate.frozen_till_ms > now_ms || t->host->starved_till_ms > now_ms)
		words = "no answer in time: the server's rate limit is used up";
	else if (t->state == TRANSFER_WAITING)
		words = "no answer in time: all connections are busy";
	transfer_finish(engine, t, -ETIMEDOUT, words);
}

/*
 * Has enough moved in either direction since last time? A byte a second is no way to bring anything:
 * such a connection is given up, and another one may do better.
 */
static bool has_progress(const struct engine *engine, struct transfer *t)
{
	uint64_t least = (uint64_t)engine->config.stall_ms * ENGINE_SLOWEST_BYTES / 1000;
	curl_off_t up = 0, down = 0;
	unsigned stage = (unsigned)t->asked + t->answered;
	uint64_t progress;

	if (atomic_load(&t->wish_pause) || t->throttled)
		return true;
	curl_easy_getinfo(t->wire->easy, CURLINFO_SIZE_UPLOAD_T, &up);
	curl_easy_getinfo(t->wire->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
	progress = (uint64_t)up + (uint64_t)down + t->wire->head_len;
	if (stage == t->stage && progress <= t->progress + least)
		return false;
	t->stage = stage;
	t->progress = progress;
	return true;
}

static void try_failed(struct engine *engine, struct transfer *t, CURLcode code, int error);

static void transfer_timer(struct engine *engine, struct timer *timer, int64_t now_ms)
{
	struct transfer *t = (struct transfer *)((char *)timer - offsetof(struct transfer, timer));

	if (t->spec.deadline_mono_ms && now_ms >= t->spec.deadline_mono_ms) {
		deadline_passed(engine, t, now_ms);
		return;
	}
	if (t->state == TRANSFER_BACKOFF && now_ms >= t->retry_at_ms) {
		host_enqueue(engine, t, true);
	} else if (t->state == TRANSFER_RUNNING) {
		if (has_progress(engine, t)) {
			t->progress_ms = now_ms;
		} else if (now_ms - t->progress_ms >= engine->config.stall_ms) {
			snprintf(t->wire->error, sizeof(t->wire->error),
				 "the connection stalled: next to nothing moved for %u s",
				 (engine->config.stall_ms + 999) / 1000);
			curl_multi_remove_handle(engine->multi, t->wire->easy);
			try_failed(engine, t, CURLE_ABORTED_BY_CALLBACK, -ETIMEDOUT);
			return;
		}
	}
	arm(engine, t);
}

/* The end */

void transfer_count_sent(struct transfer *t, uint64_t up)
{
	if (up <= t->wire->counted)
		return;
	atomic_fetch_add_explicit(&t->counter->bytes_sent, up - t->wire->counted,
				  memory_order_relaxed);
	t->wire->counted = up;
}

static void leave_wire(struct engine *engine, struct transfer *t)
{
	curl_off_t up = 0;

	if (!t->wire)
		return;
	throttle_leave(engine, t);
	curl_easy_getinfo(t->wire->easy, CURLINFO_SIZE_UPLOAD_T, &up);
	transfer_count_sent(t, (uint64_t)up);
	curl_multi_remove_handle(engine->multi, t->wire->easy);
	wire_put(engine, t->wire, t->clean);
	t->wire = NULL;
	host_ended(engine, t);
}

static void fill_message(const struct transfer *t, int error, const char *words,
			 struct transfer_result *result)
{
	if (words)
		snprintf(result->message, sizeof(result->message), "%s", words);
	else if (error == 0 && t->status >= 400)
		snprintf(result->message, sizeof(result->message), "%d: %s", t->status,
			 status_words(t->status));
	else if (error < 0)
		snprintf(result->message, sizeof(result->message), "%s", strerror(-error));
}

void transfer_finish(struct engine *engine, struct transfer *t, int error, const char *words)
{
	struct transfer_result result = {
		.error = error,
		.status = t->status,
		.sent = t->unknown || t->asked,
		.tries = t->tries,
		.received = t->received,
	};

	fill_message(t, error, words, &result);
	log_debug("engine: end %s %s: status=%d error=%d tries=%u received=%llu ms=%lld",
		  t->spec.method, t->spec.endpoint, result.status, -error, t->tries,
		  (unsigned long long)t->received, (long long)(clock_mono_ms() - t->start_ms));
	leave_wire(engine, t);
	host_remove(engine, t);
	timer_clear(&engine->timers, &t->timer);
	if (t->timer.fire)
		timers_drop(&engine->timers);
	engine_forget(engine, t);
	t->spec.done_cb(t->spec.ctx, &result);
	transfer_free(t);
}

/* Waiting */

static void wait_in_queue(struct engine *engine, struct transfer *t, bool again)
{
	if (!t->spec.retry_for_ever && host_refuses(t->host, clock_mono_ms())) {
		transfer_finish(engine, t, -EHOSTDOWN, "the server cannot be reached (offline)");
		return;
	}
	host_enqueue(engine, t, again);
	arm(engine, t);
}

void transfer_accept(struct engine *engine, struct transfer *t)
{
	t->start_ms = clock_mono_ms();
	t->counter = counter_get(&engine->counters, t->spec.endpoint);
	t->host = host_get(engine, &t->origin);
	if (!t->host || timers_add(&engine->timers) < 0) {
		transfer_finish(engine, t, -ENOMEM, "out of memory");
		return;
	}
	t->timer.fire = transfer_timer;
	if (t->spec.deadline_mono_ms && t->start_ms >= t->spec.deadline_mono_ms) {
		transfer_finish(engine, t, -ETIMEDOUT, "its time was over before it began");
		return;
	}
	wait_in_queue(engine, t, false);
}

/* Back to the URL of the spec, unless a 303 said that the request itself is done. */
static int return_to_start(struct engine *engine, struct transfer *t)
{
	struct origin origin;
	struct host *host;
	int r;

	if (!t->url || t->as_get)
		return 0;
	r = origin_parse(t->spec.url, &origin);
	if (r < 0)
		return r;
	host = host_get(engine, &origin);
	if (!host) {
		origin_clear(&origin);
		return -ENOMEM;
	}
	origin_clear(&t->origin);
	t->origin = origin;
	t->host = host;
	free(t->url);
	t->url = NULL;
	t->redirects = 0;
	t->strayed = false;
	return 0;
}

static void try_again(struct engine *engine, struct transfer *t, int64_t wait_ms)
{
	int r = return_to_start(engine, t);

	if (r < 0) {
		transfer_finish(engine, t, r, NULL);
		return;
	}
	if (t->host->open || wait_ms <= 0) { /* the breaker does the waiting */
		wait_in_queue(engine, t, true);
		return;
	}
	host_wait(engine, t, clock_mono_ms() + wait_ms);
	arm(engine, t);
}

/* On the wire */

static void reset_try(struct transfer *t)
{
	t->asked = t->resent = t->answered = t->clean = t->shown = t->refused = false;
	t->too_large = t->head_too_large = t->bad_file = t->held = false;
	t->flow = FLOW_GIVE;
	t->received = t->discarded = t->progress = 0;
	t->stage = 0;
	t->retry_after_ms = -1;
	t->retry_wait_ms = 0;
	t->progress_ms = clock_mono_ms();
}

void transfer_begin(struct engine *engine, struct transfer *t)
{
	int r = -ENOMEM;

	reset_try(t);
	t->tries++;
	t->wire = wire_get(engine);
	if (t->wire) {
		host_started(engine, t);
		t->state = TRANSFER_RUNNING;
		r = wire_prepare(engine, t->wire, t);
	}
	if (r == 0 && curl_multi_add_handle(engine->multi, t->wire->easy) != CURLM_OK)
		r = -ENOMEM;
	if (r < 0) {
		transfer_finish(engine, t, r, NULL);
		return;
	}
	bandwidth_went(&engine->up, t->class, t->spec.body ? t->spec.body_len : 0);
	arm(engine, t);
}

/* Error without an answer, or in the middle of one. */
static void try_failed(struct engine *engine, struct transfer *t, CURLcode code, int error)
{
	struct transfer_try attempt = {
		.error = error,
		.sent = t->asked,
		.idempotent = t->spec.idempotent || t->as_get,
		.retry_for_ever = t->spec.retry_for_ever,
		.tries = t->tries,
		.retry_after_ms = -1,
		.now_ms = clock_mono_ms(),
		.deadline_ms = t->spec.deadline_mono_ms,
		.random = engine_random(engine),
	};
	bool again = transfer_retry_decide(&attempt, &t->retry_wait_ms) == TRANSFER_RETRY;
	struct host *host = t->host;
	char words[256];

	if (!t->asked && error == -ETIMEDOUT) /* a connection that is not made: not reached */
		error = -EHOSTDOWN;
	error_words(t, code, words, sizeof(words));
	if (error == -EHOSTDOWN)
		host_failed(engine, host, t, words);
	if (!again || t->shown || (host->open && error == -EHOSTDOWN && !t->spec.retry_for_ever)) {
		transfer_finish(engine, t, error, words);
		return;
	}
	log_debug("engine: retry %s %s: try=%u wait_ms=%lld: %s", t->spec.method, t->spec.endpoint,
		  t->tries, (long long)t->retry_wait_ms, words);
	t->unknown |= t->asked;
	t->asked = false;
	leave_wire(engine, t);
	try_again(engine, t, t->retry_wait_ms);
}

/* Redirects */

static bool may_redirect(struct engine *engine, const struct transfer *t,
			 const struct origin *target, const char **ret_words)
{
	bool reads = !strcmp(t->spec.method, "GET") || !strcmp(t->spec.method, "HEAD");

	if (t->redirects >= ENGINE_REDIRECTS_MAX) {
		*ret_words = "more than 5 redirects";
	} else if (t->origin.https && !target->https) {
		*ret_words = "redirect from https to http refused";
	} else if (!target->https && !target->loopback && !engine->config.insecure_http) {
		*ret_words = "redirect to plain http refused";
	} else if ((t->status == 301 || t->status == 302) && !reads && !t->as_get) {
		/* Browsers would repeat it as a GET, and its 200 would look like success. */
		*ret_words =
			"the server moved; a redirect of a write with 301 or 302 is not followed";
	} else {
		return true;
	}
	return false;
}

static void follow(struct engine *engine, struct transfer *t)
{
	struct origin target = {.key = NULL};
	const char *words = "redirect to something that is no http or https URL";
	struct host *host = NULL;
	char *url = NULL;

	if (answer_redirect(t, &url) < 0 || origin_parse(url, &target) < 0)
		goto refuse;
	if (!may_redirect(engine, t, &target, &words))
		goto refuse;
	leave_wire(engine, t);
	host = host_get(engine, &target);
	if (!host)
		goto refuse;
	if (t->status == 303 && strcmp(t->spec.method, "HEAD") != 0) {
		t->as_get = true;
		t->unknown = true;
	}
	t->asked = false;
	t->strayed |= strcmp(target.key, t->origin.key) != 0;
	t->redirects++;
	t->tries--; /* a hop is no try */
	origin_clear(&t->origin);
	t->origin = target;
	t->host = host;
	free(t->url);
	t->url = url;
	wait_in_queue(engine, t, true);
	return;
refuse:
	origin_clear(&target);
	free(url);
	transfer_finish(engine, t, -EPROTO, words);
}

/* An answer by which the request was certainly not carried out. */
static bool says_not_done(const struct transfer *t)
{
	return t->status == 429 || t->status == 425 || (t->status == 503 && t->retry_after_ms >= 0);
}

void transfer_refused(struct engine *engine, struct transfer *t)
{
	if (!t)
		return;
	curl_multi_remove_handle(engine->multi, t->wire->easy);
	transfer_ended(engine, t, CURLE_WRITE_ERROR);
}

void transfer_ended(struct engine *engine, struct transfer *t, CURLcode code)
{
	int error;

	if (code == CURLE_OK && t->refused) /* its last bytes */
		code = CURLE_WRITE_ERROR;
	error = error_from_curl(t, code);
	t->clean = code == CURLE_OK &&
		   !t->knock; /* a connection that was only made stays with its handle */
	if (t->knock && code == CURLE_OK)
		host_reached(engine, t->host);
	if (error == -ECANCELED) {
		transfer_finish(engine, t, error, NULL);
	} else if (t->answered && t->flow == FLOW_REDIRECT) {
		follow(engine, t);
	} else if (t->answered && t->flow == FLOW_RETRY) {
		log_debug("engine: retry %s %s: status=%d try=%u wait_ms=%lld", t->spec.method,
			  t->spec.endpoint, t->status, t->tries, (long long)t->retry_wait_ms);
		t->unknown |= !says_not_done(t);
		t->asked = false;
		leave_wire(engine, t);
		try_again(engine, t, t->retry_wait_ms);
	} else if (error < 0) {
		try_failed(engine, t, code, error);
	} else {
		transfer_finish(engine, t, 0, NULL);
	}
}

void transfer_go_on(struct engine *engine, struct transfer *t)
{
	/* it gives the bytes it holds at once, and they may be refused */
	CURLcode code = curl_easy_pause(t->wire->easy, CURLPAUSE_CONT);

	t->progress_ms = clock_mono_ms();
	if (answer_give_gathered(engine))
		code = CURLE_WRITE_ERROR;
	if (code != CURLE_OK) {
		curl_multi_remove_handle(engine->multi, t->wire->easy);
		transfer_ended(engine, t, code);
	}
}

/* Wishes from other threads */

void transfer_check_wishes(struct engine *engine, struct transfer *t, enum transfer_class class)
{
	if (t->state == TRANSFER_NEW) {
		t->class = class;
		transfer_accept(engine, t);
		return;
	}
	if (t->class != class) {
		t->class = class;
		if (t->state == TRANSFER_WAITING)
			host_enqueue(engine, t, false);
	}
	if (t->held && !atomic_load(&t->wish_pause)) {
		host_paused(engine, t, false);
		transfer_go_on(engine, t);
	}
}
