/* SPDX-License-Identifier: MIT */

/*
 * The rate limit of a host against a model of a server that counts calls in windows of a minute, in
 * a clock of its own: a long drain, a person who wants something now and then, and what each got.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine.h"

#define SLOTS	   16
#define STEP_MS	   10
#define LATENCY_MS 150
#define MINUTE_MS  60000

enum says { SAYS_HEADERS, SAYS_RETRY_AFTER, SAYS_NOTHING };

struct call {
	int64_t answer_ms; /* 0 = free */
	int64_t remaining; /* -1 = refused */
};

struct world {
	struct rate rate;
	enum says says;
	int64_t limit; /* of the server */
	int64_t window_end_ms, used;
	int64_t retry_after_ms; /* of the last refusal */
	struct call calls[SLOTS];
	unsigned running;
	int64_t taken, refused;
	int64_t wait_max_ms; /* of the person */
};

static void send_call(struct world *w, int64_t now_ms)
{
	struct call *c = w->calls;

	while (c->answer_ms)
		c++;
	rate_request(&w->rate, now_ms);
	if (now_ms >= w->window_end_ms) {
		w->window_end_ms = now_ms + MINUTE_MS;
		w->used = 0;
	}
	w->running++;
	/* answers overtake each other */
	c->answer_ms = now_ms + LATENCY_MS / 3 + w->taken * 7919 % (LATENCY_MS * 2 / 3);
	c->remaining = w->limit - w->used - 1;
	if (c->remaining < 0) {
		c->remaining = -1;
		w->refused++;
		return;
	}
	w->used++;
	w->taken++;
}

static void answer(struct world *w, const struct call *c, int64_t now_ms)
{
	bool told = w->says == SAYS_HEADERS;

	w->running--;
	if (c->remaining < 0) {
		bool says = w->says == SAYS_RETRY_AFTER;
		int64_t wait_ms = says ? w->window_end_ms - now_ms + 1000 : ENGINE_FREEZE_MS;

		rate_refused(&w->rate, -1, says ? wait_ms : -1, now_ms);
		rate_freeze(&w->rate, now_ms + wait_ms);
		return;
	}
	rate_answer(&w->rate, told ? w->limit : -1, told ? c->remaining : -1, w->running, SLOTS,
		    now_ms);
}

static void answer_all(struct world *w, int64_t now_ms)
{
	for (size_t i = 0; i < SLOTS; i++) {
		struct call c = w->calls[i];

		if (!c.answer_ms || c.answer_ms > now_ms)
			continue;
		w->calls[i].answer_ms = 0;
		answer(w, &c, now_ms);
	}
}

static bool may_go(struct world *w, enum transfer_class class, int64_t now_ms)
{
	int64_t end_ms, till_ms = rate_wait_till(&w->rate, class, now_ms, &end_ms);

	assert_true(!till_ms || till_ms > now_ms);
	assert_true(!till_ms || end_ms >= till_ms);
	return !till_ms;
}

/*
 * A drain without end from 0 to @end_ms; from @start_ms on a person wants @wish calls every
 * @every_ms, one after the other (0 = nobody).
 */
static void run(struct world *w, int64_t end_ms, int64_t start_ms, int64_t every_ms, unsigned wish)
{
	int64_t wanted_ms = 0, next_ms = start_ms;
	unsigned left = 0;

	rate_init(&w->rate);
	for (int64_t now = 1; now < end_ms; now += STEP_MS) {
		answer_all(w, now);
		if (every_ms && now >= next_ms) {
			next_ms += every_ms;
			left += wish;
			if (!wanted_ms)
				wanted_ms = now;
		}
		if (left && w->running < SLOTS && may_go(w, TRANSFER_INTERACTIVE, now)) {
			if (now - wanted_ms > w->wait_max_ms)
				w->wait_max_ms = now - wanted_ms;
			send_call(w, now);
			wanted_ms = --left ? now : 0;
		}
		while (w->running < SLOTS - 1 && may_go(w, TRANSFER_WRITEBACK, now))
			send_call(w, now);
	}
}

static int64_t used_percent(const struct world *w, int64_t ms)
{
	return w->taken * 100 * MINUTE_MS / (w->limit * ms);
}

static void test_a_drain_uses_the_allowance_and_no_more(void **state)
{
	static const int64_t limits[] = {2, 10, 60, 100, 1000};

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct world w = {.limit = limits[i], .says = SAYS_HEADERS};

		run(&w, 12 * MINUTE_MS, 0, 0, 0);
		/* the very first ones go before anything is known */
		assert_in_range(w.refused, 0, limits[i] < SLOTS ? SLOTS - limits[i] : 0);
		assert_in_range(used_percent(&w, 12 * MINUTE_MS), 90, 101);
	}
}

/* Listing and opening five files, every ten seconds, is never held up for long by the drain. */
static void test_a_person_is_not_locked_out_by_a_drain(void **state)
{
	struct world w = {.limit = 100, .says = SAYS_HEADERS};

	(void)state;
	run(&w, 12 * MINUTE_MS, 3000, 10000, 6);
	assert_int_equal(w.refused, 0);
	assert_in_range(w.wait_max_ms, 0, 3000);
	assert_in_range(used_percent(&w, 12 * MINUTE_MS), 90, 101);
}

static void test_somebody_in_a_hurry_finds_half_of_a_window_at_its_begin(void **state)
{
	struct world w = {.limit = 100, .says = SAYS_HEADERS};

	(void)state;
	run(&w, 10000, 2000, 1000000, 40);
	assert_int_equal(w.refused, 0);
	assert_in_range(w.wait_max_ms, 0, 2 * LATENCY_MS);
}

/* A bare 429 is all there is: the second one is long in coming. */
static void test_a_limit_that_nobody_tells_is_learned_from_the_first_429(void **state)
{
	static const enum says kinds[] = {SAYS_RETRY_AFTER, SAYS_NOTHING};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct world w = {.limit = 100, .says = kinds[i]};

		run(&w, 10 * MINUTE_MS, 2 * MINUTE_MS, 10000, 6);
		assert_in_range(w.refused, 1, SLOTS);
		assert_true(w.rate.guessed);
		assert_in_range(w.rate.limit, 85, 100);
		assert_in_range(w.wait_max_ms, 0, 5000);
	}
}

static void test_a_limit_learned_too_low_grows_again(void **state)
{
	struct world w = {.limit = 40, .says = SAYS_RETRY_AFTER};

	(void)state;
	run(&w, 3 * MINUTE_MS, 0, 0, 0);
	assert_in_range(w.rate.limit, 30, 40);
	w.limit = 100;
	struct rate learned = w.rate;
	for (int64_t now = 4 * MINUTE_MS; now < 40 * MINUTE_MS; now += STEP_MS) {
		answer_all(&w, now);
		while (w.running < SLOTS - 1 && may_go(&w, TRANSFER_WRITEBACK, now))
			send_call(&w, now);
	}
	assert_true(w.rate.limit > learned.limit + 5);
}

/* A server that is busy for a moment has no limit a minute. */
static void test_a_passing_429_is_no_limit(void **state)
{
	struct rate rate;
	int64_t end_ms;

	(void)state;
	for (int calls = 5; calls <= 50; calls += 45) {
		rate_init(&rate);
		for (int i = 0; i < calls; i++)
			rate_request(&rate, 10 + i);
		for (int i = 0; i < calls - 1; i++)
			rate_answer(&rate, -1, -1, 0, SLOTS, 100 + i);
		rate_refused(&rate, -1, 1000, 200);
		rate_freeze(&rate, 1200);
		assert_int_equal(rate_wait_till(&rate, TRANSFER_REFRESH, 1199, &end_ms), 1200);
		assert_int_equal(rate_wait_till(&rate, TRANSFER_REFRESH, 1200, &end_ms), 0);
		assert_false(rate.guessed);
	}
}

static void test_numbers_that_no_server_means_do_no_harm(void **state)
{
	struct rate rate;
	int64_t end_ms;

	(void)state;
	rate_init(&rate);
	rate_request(&rate, 1);
	rate_answer(&rate, INT64_MAX, INT64_MAX, 3, SLOTS, 2);
	assert_int_equal(rate_wait_till(&rate, TRANSFER_REFRESH, 3, &end_ms), 0);
	rate_answer(&rate, 1, 0, 3, SLOTS, 4);
	assert_true(rate_wait_till(&rate, TRANSFER_REFRESH, 5, &end_ms) > 5);
	assert_int_equal(rate_wait_till(&rate, TRANSFER_INTERACTIVE, 5, &end_ms), end_ms);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_drain_uses_the_allowance_and_no_more),
		cmocka_unit_test(test_a_person_is_not_locked_out_by_a_drain),
		cmocka_unit_test(test_somebody_in_a_hurry_finds_half_of_a_window_at_its_begin),
		cmocka_unit_test(test_a_limit_that_nobody_tells_is_learned_from_the_first_429),
		cmocka_unit_test(test_a_limit_learned_too_low_grows_again),
		cmocka_unit_test(test_a_passing_429_is_no_limit),
		cmocka_unit_test(test_numbers_that_no_server_means_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
