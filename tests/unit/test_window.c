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
#define FIRST (256u * KIB)

/* ---- what to ask for ---- */

static void test_what_is_asked_for(void **state)
{
	static const struct {
		const char *what;
		struct window_wish wish;
		struct window_range want;
	} table[] = {
		{"a small file whole",
		 {0, 4096, 3 * MIB, 0, 3 * MIB, 3 * MIB, false, 0},
		 {0, 3 * MIB, UINT64_MAX, false}},
		{"4 MiB are small",
		 {MIB, MIB + 1, 4 * MIB, 0, 4 * MIB, 4 * MIB, false, 0},
		 {0, 4 * MIB, UINT64_MAX, false}},
		{"the rest of a small file",
		 {MIB, MIB + 1, 3 * MIB, MIB, 2 * MIB, 2 * MIB, true, 0},
		 {MIB, 2 * MIB, UINT64_MAX, false}},
		{"the beginning of a large file",
		 {0, 4096, GIB, 0, GIB, GIB, false, 0},
		 {0, 2 * FIRST, UINT64_MAX, false}},
		{"the beginning, and much of it",
		 {0, MIB, GIB, 0, GIB, GIB, false, 0},
		 {0, MIB, UINT64_MAX, false}},
		{"the block of a random read",
		 {10 * MIB + 5000, 10 * MIB + 9096, GIB, 10 * MIB, GIB, GIB, false, 0},
		 {10 * MIB, 10 * MIB + FIRST, UINT64_MAX, false}},
		{"both blocks of a read across them",
		 {MIB - 100, MIB + 100, GIB, MIB - FIRST, GIB, GIB, false, 0},
		 {MIB - FIRST, MIB + FIRST, UINT64_MAX, false}},
		{"what is missing of a block, and no more",
		 {10 * MIB + 5000, 10 * MIB + 9096, GIB, 10 * MIB + 5000, 10 * MIB + 10000, GIB,
		  false, 0},
		 {10 * MIB + 5000, 10 * MIB + 10000, UINT64_MAX, false}},
		{"an open stream for who goes forward",
		 {FIRST, 2 * FIRST, GIB, FIRST, GIB, GIB, true, 0},
		 {FIRST, UINT64_MAX, 3 * FIRST, true}},
		{"over what little is there already",
		 {FIRST, 2 * FIRST, GIB, FIRST, MIB, GIB, true, 0},
		 {FIRST, UINT64_MAX, 3 * FIRST, true}},
		{"up to where there is more",
		 {FIRST, 2 * FIRST, GIB, FIRST, MIB, 100 * MIB, true, 0},
		 {FIRST, 100 * MIB, 3 * FIRST, true}},
		{"forward, but only a little is missing",
		 {FIRST, FIRST + 4096, GIB, FIRST, 2 * FIRST, 2 * FIRST, true, 0},
		 {FIRST, 2 * FIRST, UINT64_MAX, false}},
		{"one of several side by side",
		 {FIRST, 2 * FIRST, GIB, FIRST, GIB, GIB, true, 4 * MIB},
		 {FIRST, FIRST + 4 * MIB, UINT64_MAX, true}},
		{"the last of several",
		 {GIB - MIB, GIB - MIB + 1, GIB, GIB - MIB, GIB, GIB, true, 4 * MIB},
		 {GIB - MIB, GIB, UINT64_MAX, true}},
		{"of unknown size",
		 {0, 4096, -1, 0, UINT64_MAX, UINT64_MAX, false, 0},
		 {0, 2 * FIRST, UINT64_MAX, false}},
		{"a byte beyond 100 GiB",
		 {100 * GIB + 7, 100 * GIB + 8, 200 * GIB, 100 * GIB, 200 * GIB, 200 * GIB, false,
		  0},
		 {100 * GIB, 100 * GIB + FIRST, UINT64_MAX, false}},
		{"the last byte",
		 {100 * GIB - 1, 100 * GIB, 100 * GIB, 100 * GIB - FIRST, 100 * GIB, 100 * GIB,
		  false, 0},
		 {100 * GIB - FIRST, 100 * GIB, UINT64_MAX, false}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct window_range r;

		window_decide(&table[i].wish, &r);
		if (r.start != table[i].want.start || r.end != table[i].want.end ||
		    r.limit != table[i].want.limit || r.forward != table[i].want.forward)
			fail_msg("%s: [%llu, %llu) up to %llu", table[i].what,
				 (unsigned long long)r.start, (unsigned long long)r.end,
				 (unsigned long long)r.limit);
	}
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
	assert_true(window_reaches(0, UINT64_MAX, 0, 64 * MIB, 60 * MIB));
	assert_false(window_reaches(0, UINT64_MAX, MIB, FIRST, 500 * MIB));
}

static void test_the_window_doubles_up_to_its_most(void **state)
{
	uint64_t window = FIRST;

	(void)state;
	assert_int_equal(window_grow(FIRST, 10 * MIB, MIB), FIRST);
	assert_int_equal(window_grow(FIRST, 10 * MIB, 10 * MIB - FIRST / 2), 2 * FIRST);
	for (int i = 0; i < 20; i++)
		window = window_grow(window, 10 * MIB, 10 * MIB);
	assert_int_equal(window, WINDOW_MAX_BYTES);
	assert_int_equal(window_grow(FIRST, UINT64_MAX, 10 * MIB), FIRST);
}

static void test_a_paused_stream_goes_on_for_a_reader_or_a_good_part(void **state)
{
	(void)state;
	assert_true(window_resumes(64 * MIB, 10 * MIB, 11 * MIB, 10 * MIB + 1));
	assert_false(window_resumes(64 * MIB, 10 * MIB, 11 * MIB, 10 * MIB));
	assert_true(window_resumes(64 * MIB, 10 * MIB, 26 * MIB, 5 * MIB));
	assert_false(window_resumes(FIRST, 10 * MIB, 10 * MIB, 10 * MIB));
}

static unsigned seed(void)
{
	const char *given = getenv("ATTACHFS_TEST_SEED");
	unsigned s = given ? (unsigned)atoi(given) : (unsigned)time(NULL);

	printf("seed %u\n", s);
	return s;
}

static void test_whatever_is_asked_for_covers_what_is_missed(void **state)
{
	(void)state;
	srandom(seed());
	for (int i = 0; i < 200000; i++) {
		uint64_t size = (uint64_t)random() * 7 % (2 * GIB) + 1,
			 off = (uint64_t)random() % size;
		uint64_t end = off + 1 + (uint64_t)random() % MIB,
			 missing = off - (uint64_t)random() % CONTENT_BLOCK_BYTES % (off + 1);
		uint64_t missing_end = off + 1 + (uint64_t)random() % (size - off);
		struct window_wish w = {.off = off,
					.size = (int64_t)size,
					.missing = missing,
					.missing_end = missing_end,
					.forward = random() % 2};
		struct window_range r;

		w.end = end > missing_end ? missing_end : end;
		w.stop = missing_end + (uint64_t)random() % (size - missing_end + 1);
		w.segment = random() % 2 ? 0 : 1 + (uint64_t)random() % (16 * MIB);
		window_decide(&w, &r);
		assert_int_equal(r.start, missing);
		assert_true(r.end >= w.end);
		assert_true(r.end <= w.stop || (r.end == UINT64_MAX && w.stop >= size));
		assert_true(r.limit >= w.end);
		assert_true(w.forward || !r.forward);
		assert_true(r.end != UINT64_MAX || r.limit != UINT64_MAX);
		/* a random read: its blocks, and at the beginning one more */
		if (!w.forward && size > WINDOW_WHOLE_BYTES)
			assert_true(r.end <= w.end + 2 * CONTENT_BLOCK_BYTES);
	}
}

/* ---- who reads ---- */

static void test_who_has_read_a_while_in_a_row_goes_on(void **state)
{
	struct window_heads h = {0};
	uint64_t from = 0;

	(void)state;
	assert_false(window_goes_on(&h, 0, &from));
	window_note(&h, 0, 128 * KIB);
	assert_false(window_goes_on(&h, 128 * KIB, &from));
	window_note(&h, 128 * KIB, 256 * KIB);
	assert_true(window_goes_on(&h, 256 * KIB, &from));
	assert_int_equal(from, 256 * KIB);
	/* the next but one came first */
	assert_true(window_goes_on(&h, 512 * KIB, &from));
	assert_int_equal(from, 256 * KIB);
	assert_false(window_goes_on(&h, 3 * MIB, &from));
	/* a second reader elsewhere has his own beginning */
	window_note(&h, 500 * MIB, 500 * MIB + 4096);
	assert_false(window_goes_on(&h, 500 * MIB + 4096, &from));
	assert_true(window_goes_on(&h, 256 * KIB, &from));
}

static void test_who_reads_here_and_there_does_not(void **state)
{
	struct window_heads h = {0};
	uint64_t from;

	(void)state;
	srandom(seed());
	for (int i = 0; i < 200; i++) {
		uint64_t off = ((uint64_t)random() << 12) % GIB;

		assert_false(window_goes_on(&h, off, &from));
		window_note(&h, off, off + 4096);
	}
}

static void test_eight_readers_side_by_side_are_told_apart(void **state)
{
	struct window_heads h = {0};
	uint64_t from;

	(void)state;
	for (uint64_t step = 0; step < 100; step++) {
		for (uint64_t reader = 0; reader < WINDOW_HEADS; reader++) {
			uint64_t off = reader * GIB + step * 64 * KIB;

			assert_int_equal(window_goes_on(&h, off, &from), step >= 4);
			window_note(&h, off, off + 64 * KIB);
		}
	}
}

/* ---- how many streams ---- */

static void test_a_fast_stream_stays_alone(void **state)
{
	struct window_pace p = {0};

	(void)state;
	for (int i = 0; i < 100; i++)
		assert_false(window_pace(&p, WINDOW_FAST_BYTES, true));
	for (int i = 0; i < 100; i++) /* ahead of its reader every other second */
		assert_false(window_pace(&p, MIB, i % 2));
	for (int i = 0; i < 100; i++) /* a server that hangs */
		assert_false(window_pace(&p, 0, true));
	assert_int_equal(p.more, 0);
}

static void test_slow_streams_become_four_if_that_helps(void **state)
{
	struct window_pace p = {0};
	unsigned seconds = 0;

	(void)state;
	while (p.more < 3 && seconds++ < 100)
		window_pace(&p, (p.more + 1) * 2 * MIB, true);
	assert_int_equal(seconds, 6);
	assert_int_equal(p.segment, 4 * MIB);
	for (int i = 0; i < 100; i++)
		assert_false(window_pace(&p, 8 * MIB, true));
	assert_int_equal(p.more, 3);
}

static void test_what_is_as_fast_by_one_stays_by_one(void **state)
{
	struct window_pace p = {0};

	(void)state;
	for (int i = 0; i < 100; i++)
		window_pace(&p, 2 * MIB, true);
	assert_int_equal(p.more, 0);
	assert_true(p.settled);
}

static void test_segments_are_of_a_sensible_size(void **state)
{
	struct window_pace slow = {0}, fast = {0};

	(void)state;
	window_pace(&slow, 1000, true);
	assert_true(window_pace(&slow, 1000, true));
	assert_int_equal(slow.segment, WINDOW_SEGMENT_MIN_BYTES);
	window_pace(&fast, 15 * MIB, true);
	assert_true(window_pace(&fast, 15 * MIB, true));
	assert_int_equal(fast.segment, WINDOW_SEGMENT_MAX_BYTES);
	assert_int_equal(WINDOW_SEGMENT_MAX_BYTES % CONTENT_BLOCK_BYTES, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_asked_for),
		cmocka_unit_test(test_a_bounded_stream_is_waited_for_wherever_it_goes),
		cmocka_unit_test(test_an_open_stream_is_not_waited_for_far_ahead),
		cmocka_unit_test(test_the_window_doubles_up_to_its_most),
		cmocka_unit_test(test_a_paused_stream_goes_on_for_a_reader_or_a_good_part),
		cmocka_unit_test(test_whatever_is_asked_for_covers_what_is_missed),
		cmocka_unit_test(test_who_has_read_a_while_in_a_row_goes_on),
		cmocka_unit_test(test_who_reads_here_and_there_does_not),
		cmocka_unit_test(test_eight_readers_side_by_side_are_told_apart),
		cmocka_unit_test(test_a_fast_stream_stays_alone),
		cmocka_unit_test(test_slow_streams_become_four_if_that_helps),
		cmocka_unit_test(test_what_is_as_fast_by_one_stays_by_one),
		cmocka_unit_test(test_segments_are_of_a_sensible_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
