/* SPDX-License-Identifier: MIT */

/* The transfer thread's timers: there is room for all that were made, and they fire in order. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include "engine.h"

#define MANY 1000

static int64_t fired_ms;
static size_t n_fired;

static void on_timer(struct engine *engine, struct timer *timer, int64_t now_ms)
{
	(void)engine;
	(void)now_ms;
	assert_true(timer->at_ms >= fired_ms);
	fired_ms = timer->at_ms;
	n_fired++;
}

/* Transfers that wait for a slot have none set; a bad minute sets them all. */
static void test_all_that_were_made_can_be_set_at_once(void **state)
{
	struct engine engine = {0};
	struct timer timers[MANY] = {0};

	(void)state;
	for (size_t i = 0; i < MANY; i++) {
		timers[i].fire = on_timer;
		assert_int_equal(timers_add(&engine.timers), 0);
	}
	for (size_t i = 0; i < MANY; i++)
		timer_set(&engine.timers, &timers[i], (int64_t)(i * 7919 % MANY));
	assert_true(engine.timers.used <= engine.timers.size);
	for (size_t i = 0; i < MANY; i += 2)
		timer_clear(&engine.timers, &timers[i]);
	timers_fire(&engine, MANY);
	assert_int_equal(n_fired, MANY / 2);
	assert_int_equal(engine.timers.used, 0);
	free(engine.timers.heap);
}

static void test_those_that_are_dropped_need_no_room(void **state)
{
	struct timers timers = {0};
	size_t size;

	(void)state;
	assert_int_equal(timers_add(&timers), 0);
	size = timers.size;
	for (size_t i = 0; i < 10 * size; i++) {
		assert_int_equal(timers_add(&timers), 0);
		timers_drop(&timers);
	}
	assert_true(timers.size <= 2 * size);
	free(timers.heap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_that_were_made_can_be_set_at_once),
		cmocka_unit_test(test_those_that_are_dropped_need_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
