/* SPDX-License-Identifier: MIT */

/* The readahead decision, by table, and by a random reader against an invariant. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include <attachfs/content.h>

#include "window.h"

#define KIB   1024u
#define MIB   (1024u * KIB)
#define GIB   (UINT64_C(1024) * MIB)
#define WHOLE (4u * MIB)
#define FIRST (256u * KIB)

static struct window_range decide(uint64_t off, uint64_t end, int64_t size, uint64_t missing,
				  uint64_t missing_end, bool forward)
{
	struct window_wish w = {.off = off,
				.end = end,
				.size = size,
				.missing = missing,
				.missing_end = missing_end,
				.forward = forward,
				.whole_bytes = WHOLE,
				.min_bytes = FIRST};
	struct window_range r;

	window_decide(&w, &r);
	return r;
}

static void test_a_small_file_is_fetched_whole(void **state)
{
	struct window_range r = decide(0, 4096, 3 * MIB, 0, 3 * MIB, false);

	(void)state;
	assert_int_equal(r.start, 0);
	assert_int_equal(r.end, 3 * MIB);
	assert_true(r.limit == UINT64_MAX);
}

static void test_the_first_read_of_a_large_file_takes_one_block(void **state)
{
	struct window_range r = decide(0, 4096, GIB, 0, GIB, false);

	(void)state;
	assert_int_equal(r.start, 0);
	assert_int_equal(r.end, FIRST);
}

static void test_a_random_read_takes_its_blocks_only(void **state)
{
	struct window_range r = decide(10 * MIB + 5000, 10 * MIB + 9096, GIB, 10 * MIB, GIB, false);

	(void)state;
	assert_int_equal(r.start, 10 * MIB);
	assert_int_equal(r.end, 10 * MIB + CONTENT_BLOCK_BYTES);
}

static void test_a_read_across_two_blocks_takes_both(void **state)
{
	struct window_range r =
		decide(MIB - 100, MIB + 100, GIB, MIB - CONTENT_BLOCK_BYTES, GIB, false);

	(void)state;
	assert_int_equal(r.end, MIB + CONTENT_BLOCK_BYTES);
}

static void test_a_forward_reader_gets_an_open_stream_that_pauses(void **state)
{
	struct window_range r = decide(FIRST, 2 * FIRST, GIB, FIRST, GIB, true);

	(void)state;
	assert_int_equal(r.start, FIRST);
	assert_true(r.end == UINT64_MAX);
	assert_int_equal(r.limit, 3 * FIRST);
}

static void test_a_forward_reader_stops_where_bytes_are_present(void **state)
{
	struct window_range r = decide(FIRST, 2 * FIRST, GIB, FIRST, 100 * MIB, true);

	(void)state;
	assert_int_equal(r.end, 100 * MIB);
}

static void test_a_file_of_unknown_size_is_asked_for_one_block(void **state)
{
	struct window_range r = decide(0, 4096, -1, 0, UINT64_MAX, false);

	(void)state;
	assert_int_equal(r.start, 0);
	assert_int_equal(r.end, FIRST);
}

static void test_a_bounded_stream_is_waited_for_wherever_it_goes(void **state)
{
	(void)state;
	assert_true(window_reaches(0, 4 * MIB, UINT64_MAX, FIRST, 4 * MIB - 1));
	assert_false(window_reaches(0, 4 * MIB, UINT64_MAX, FIRST, 4 * MIB));
	assert_false(window_reaches(MIB, 4 * MIB, UINT64_MAX, FIRST, 0));
}

static void test_an_open_stream_is_not_waited_for_far_ahead(void **state)
{
	(void)state;
	assert_true(window_reaches(0, UINT64_MAX, MIB, FIRST, MIB - 1));
	assert_false(window_reaches(0, UINT64_MAX, MIB, FIRST, 500 * MIB));
}

static void test_the_window_doubles_up_to_its_most(void **state)
{
	uint64_t window = FIRST;

	(void)state;
	for (int i = 0; i < 20; i++)
		window = window_grow(window, 0, 10 * MIB, 10 * MIB, 64 * MIB);
	assert_int_equal(window, 64 * MIB);
	assert_int_equal(window_grow(FIRST, 0, UINT64_MAX, 10 * MIB, 64 * MIB), FIRST);
}

static void test_whatever_is_asked_for_covers_what_is_missed(void **state)
{
	unsigned seed = getenv("ATTACHFS_TEST_SEED") ? (unsigned)atoi(getenv("ATTACHFS_TEST_SEED"))
						     : (unsigned)time(NULL);

	(void)state;
	printf("seed %u\n", seed);
	srandom(seed);
	for (int i = 0; i < 200000; i++) {
		uint64_t size = (uint64_t)random() * 7 % (2 * GIB) + 1,
			 off = (uint64_t)random() % size;
		uint64_t end = off + 1 + (uint64_t)random() % MIB,
			 missing = off - (uint64_t)random() % CONTENT_BLOCK_BYTES % (off + 1);
		uint64_t missing_end = off + 1 + (uint64_t)random() % (size - off);
		struct window_range r;

		if (end > missing_end)
			end = missing_end;
		r = decide(off, end, (int64_t)size, missing, missing_end, random() % 2);
		assert_true(r.start <= off);
		assert_true(r.start >= missing);
		assert_true(r.end >= end);
		assert_true(r.end == UINT64_MAX || r.end <= missing_end);
		assert_true(r.limit >= end);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_small_file_is_fetched_whole),
		cmocka_unit_test(test_the_first_read_of_a_large_file_takes_one_block),
		cmocka_unit_test(test_a_random_read_takes_its_blocks_only),
		cmocka_unit_test(test_a_read_across_two_blocks_takes_both),
		cmocka_unit_test(test_a_forward_reader_gets_an_open_stream_that_pauses),
		cmocka_unit_test(test_a_forward_reader_stops_where_bytes_are_present),
		cmocka_unit_test(test_a_file_of_unknown_size_is_asked_for_one_block),
		cmocka_unit_test(test_a_bounded_stream_is_waited_for_wherever_it_goes),
		cmocka_unit_test(test_an_open_stream_is_not_waited_for_far_ahead),
		cmocka_unit_test(test_the_window_doubles_up_to_its_most),
		cmocka_unit_test(test_whatever_is_asked_for_covers_what_is_missed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
