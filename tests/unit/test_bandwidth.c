/* SPDX-License-Identifier: MIT */

/* Who gets how much of a limited line, in a clock of its own. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bandwidth.h"

#define RATE  UINT64_C(1000000)
#define PIECE UINT64_C(16384)
#define BURST (RATE / 5)

/* What went of each class that wanted so many bytes a second, as much as it may (UINT64_MAX), or nothing. */
struct line {
	struct bandwidth b;
	int64_t now_ms;
	uint64_t wants[TRANSFER_CLASSES], went[TRANSFER_CLASSES];
};

static void run_for(struct line *l, int64_t ms, int64_t step_ms)
{
	uint64_t due[TRANSFER_CLASSES] = {0};

	for (int64_t end = l->now_ms + ms; l->now_ms < end; l->now_ms += step_ms)
		for (int c = 0; c < TRANSFER_CLASSES; c++) {
			if (l->wants[c] != UINT64_MAX)
				due[c] += l->wants[c] * (uint64_t)step_ms / 1000;
			while ((l->wants[c] == UINT64_MAX || due[c] >= PIECE) &&
			       bandwidth_may(&l->b, (enum transfer_class)c, l->now_ms)) {
				bandwidth_went(&l->b, (enum transfer_class)c, PIECE);
				l->went[c] += PIECE;
				if (l->wants[c] != UINT64_MAX)
					due[c] -= PIECE;
			}
		}
}

static struct line new_line(uint64_t rate)
{
	struct line l = {.now_ms = 5000};

	bandwidth_begin(&l.b, rate, l.now_ms);
	return l;
}

static void assert_about(uint64_t got, uint64_t wanted)
{
	assert_in_range(got, wanted - wanted / 20, wanted + wanted / 20 + BURST);
}

static void test_without_a_limit_all_may_go(void **state)
{
	struct line l = new_line(0);

	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_true(bandwidth_may(&l.b, TRANSFER_REFRESH, l.now_ms));
		bandwidth_went(&l.b, TRANSFER_REFRESH, UINT32_MAX);
	}
	assert_int_equal(bandwidth_wait_ms(&l.b, TRANSFER_REFRESH), 0);
}

static void test_who_is_alone_has_all_of_it(void **state)
{
	(void)state;
	for (int c = 0; c < TRANSFER_CLASSES; c++)
		for (int64_t step_ms = 1; step_ms <= 64; step_ms *= 4) {
			struct line l = new_line(RATE);

			l.wants[c] = UINT64_MAX;
			run_for(&l, 20000, step_ms);
			assert_about(l.went[c], 20 * RATE);
		}
}

static void test_together_each_has_its_share_and_none_waits_for_ever(void **state)
{
	static const uint64_t percent[TRANSFER_CLASSES] = {70, 20, 7, 3};
	struct line l = new_line(RATE);

	(void)state;
	memset(l.wants, 0xff, sizeof(l.wants));
	run_for(&l, 60000, 3);
	for (int c = 0; c < TRANSFER_CLASSES; c++)
		assert_about(l.went[c], 60 * RATE / 100 * percent[c]);
}

static void test_what_a_program_leaves_goes_to_uploads_first(void **state)
{
	struct line l = new_line(RATE);

	(void)state;
	l.wants[TRANSFER_INTERACTIVE] = RATE / 10;
	l.wants[TRANSFER_WRITEBACK] = l.wants[TRANSFER_PREFETCH] = UINT64_MAX;
	run_for(&l, 60000, 5);
	assert_about(l.went[TRANSFER_INTERACTIVE], 6 * RATE);
	assert_about(l.went[TRANSFER_PREFETCH], 60 * RATE / 100 * 7);
	assert_about(l.went[TRANSFER_WRITEBACK], 60 * RATE - 6 * RATE - 60 * RATE / 100 * 7);
}

static void test_a_program_is_served_at_once_while_an_upload_runs(void **state)
{
	struct line l = new_line(RATE);

	(void)state;
	l.wants[TRANSFER_WRITEBACK] = UINT64_MAX;
	run_for(&l, 10000, 5);
	/* a tenth of a second's worth without a wait */
	for (uint64_t went = 0; went < RATE / 10; went += PIECE) {
		assert_true(bandwidth_may(&l.b, TRANSFER_INTERACTIVE, l.now_ms));
		bandwidth_went(&l.b, TRANSFER_INTERACTIVE, PIECE);
	}
}

static void test_idling_saves_up_no_more_than_a_burst(void **state)
{
	struct line l = new_line(RATE);
	uint64_t all = 0;

	(void)state;
	l.now_ms += 3600 * 1000;
	memset(l.wants, 0xff, sizeof(l.wants));
	run_for(&l, 1000, 10);
	for (int c = 0; c < TRANSFER_CLASSES; c++)
		all += l.went[c];
	assert_in_range(all, RATE, RATE + TRANSFER_CLASSES * (BURST + PIECE));
}

static void test_the_wait_is_long_enough_for_who_is_alone(void **state)
{
	struct line l = new_line(4096);

	(void)state;
	while (bandwidth_may(&l.b, TRANSFER_INTERACTIVE, l.now_ms))
		bandwidth_went(&l.b, TRANSFER_INTERACTIVE, 1);
	for (int i = 0; i < 1000; i++) {
		int64_t wait_ms = bandwidth_wait_ms(&l.b, TRANSFER_INTERACTIVE);

		assert_in_range(wait_ms, 1, 100);
		l.now_ms += wait_ms;
		if (bandwidth_may(&l.b, TRANSFER_INTERACTIVE, l.now_ms))
			bandwidth_went(&l.b, TRANSFER_INTERACTIVE, 1024);
	}
	/* 16 KiB that came too early are 4 s at this rate, no more */
	assert_true(bandwidth_may(&l.b, TRANSFER_INTERACTIVE, l.now_ms + 4000));
}

static void test_a_clock_that_stands_or_a_rate_beyond_reason_do_no_harm(void **state)
{
	struct line l = new_line(UINT64_MAX);

	(void)state;
	assert_true(bandwidth_may(&l.b, TRANSFER_PREFETCH, l.now_ms + 100000));
	bandwidth_went(&l.b, TRANSFER_PREFETCH, BANDWIDTH_MAX);
	assert_false(bandwidth_may(&l.b, TRANSFER_PREFETCH, l.now_ms));
	assert_true(bandwidth_may(&l.b, TRANSFER_PREFETCH, l.now_ms + 102000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_a_limit_all_may_go),
		cmocka_unit_test(test_who_is_alone_has_all_of_it),
		cmocka_unit_test(test_together_each_has_its_share_and_none_waits_for_ever),
		cmocka_unit_test(test_what_a_program_leaves_goes_to_uploads_first),
		cmocka_unit_test(test_a_program_is_served_at_once_while_an_upload_runs),
		cmocka_unit_test(test_idling_saves_up_no_more_than_a_burst),
		cmocka_unit_test(test_the_wait_is_long_enough_for_who_is_alone),
		cmocka_unit_test(test_a_clock_that_stands_or_a_rate_beyond_reason_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
