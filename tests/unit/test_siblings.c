/* SPDX-License-Identifier: MIT */

/* Which files are fetched ahead of a program, with a directory of a test's own. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "siblings.h"

#define FILES 400
#define KIB   1024
#define MIB   (1024 * KIB)

/* Files are numbered from 1 in the order of the listing; by_name[] is the other order. */
struct world {
	unsigned files;
	uint64_t by_name[FILES];
	int64_t cost[FILES + 1];
	unsigned fetched[FILES + 1]; /* how often */
	unsigned asked_by_name;
	uint64_t room;
};

static uint64_t next(void *ctx, enum siblings_order order, uint64_t file)
{
	struct world *w = ctx;

	if (order == SIBLINGS_AS_LISTED)
		return file < w->files ? file + 1 : 0;
	w->asked_by_name++;
	for (unsigned i = 0; i + 1 < w->files; i++)
		if (w->by_name[i] == file)
			return w->by_name[i + 1];
	return 0;
}

static int64_t cost(void *ctx, uint64_t file)
{
	const struct world *w = ctx;

	return w->cost[file];
}

static void fill(struct world *w, unsigned files, int64_t each)
{
	memset(w, 0, sizeof(*w));
	w->files = files;
	w->room = UINT64_MAX;
	for (unsigned i = 0; i < files; i++) {
		w->by_name[i] = files - i; /* backward, unless a test says otherwise */
		w->cost[i + 1] = each;
	}
}

/* The program reads @file, and what is to be fetched is here at once. How many that were. */
static unsigned reads(struct world *w, struct siblings *s, uint64_t file)
{
	const struct siblings_view v = {w, next, cost, w->room};
	uint64_t ahead[SIBLINGS_FILES];
	unsigned n = siblings_read(s, &v, file, ahead);

	w->cost[file] = SIBLINGS_NEEDLESS;
	for (unsigned i = 0; i < n; i++) {
		w->fetched[ahead[i]]++;
		w->cost[ahead[i]] = SIBLINGS_NEEDLESS;
	}
	assert_true(s->n <= SIBLINGS_FILES && s->bytes <= SIBLINGS_BYTES);
	return n;
}

static unsigned fetched(const struct world *w)
{
	unsigned count = 0;

	for (unsigned i = 1; i <= w->files; i++) {
		assert_true(w->fetched[i] <= 1);
		count += w->fetched[i];
	}
	return count;
}

static void test_two_files_are_no_pattern(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, 100, 4 * KIB);
	assert_int_equal(reads(&w, &s, 1), 0);
	assert_int_equal(reads(&w, &s, 2), 0);
	assert_int_equal(fetched(&w), 0);
}

static void test_the_third_in_a_row_fetches_ahead_and_more_with_each(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, 200, 4 * KIB);
	reads(&w, &s, 11);
	reads(&w, &s, 12);
	assert_int_equal(reads(&w, &s, 13), 8);
	assert_int_equal(w.fetched[14], 1);
	assert_int_equal(w.fetched[21], 1);
	assert_int_equal(reads(&w, &s, 14), 9);	 /* 7 are ahead, 16 may be */
	assert_int_equal(reads(&w, &s, 15), 17); /* 15, 32 */
	assert_int_equal(reads(&w, &s, 16), 33); /* 31, 64 */
	assert_int_equal(reads(&w, &s, 17), 1);
	assert_int_equal(fetched(&w), 17 + 64 - 13);
}

static void test_all_to_the_end_once(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, 4 * KIB);
	for (uint64_t file = 1; file <= FILES; file++)
		reads(&w, &s, file);
	assert_int_equal(fetched(&w), FILES - 3);
	assert_int_equal(w.asked_by_name, 0); /* which takes sorting */
}

static void test_by_name(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, 4 * KIB); /* names run the other way */
	for (uint64_t file = FILES; file > 0; file--)
		reads(&w, &s, file);
	assert_int_equal(fetched(&w), FILES - 3);
}

static void test_backward_is_no_order(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, 4 * KIB);
	for (unsigned i = 0; i < FILES; i++)
		w.by_name[i] = i + 1;
	for (uint64_t file = FILES; file > 0; file--)
		assert_int_equal(reads(&w, &s, file), 0);
}

static void test_every_tenth_is_no_order(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, 4 * KIB);
	for (uint64_t file = 1; file <= FILES; file += 10)
		assert_int_equal(reads(&w, &s, file), 0);
}

static void test_given_up_when_it_begins_to_leave_out(void **state)
{
	struct siblings s = {0};
	struct world w;
	unsigned before;

	(void)state;
	fill(&w, FILES, 4 * KIB);
	for (uint64_t file = 1; file <= 20; file++)
		reads(&w, &s, file);
	before = fetched(&w);
	for (uint64_t file = 30; file <= FILES; file += 10)
		assert_int_equal(reads(&w, &s, file), 0);
	assert_int_equal(fetched(&w), before);
	assert_true(before <= 20 + SIBLINGS_FILES);
}

static void test_given_up_when_it_leaves_out_every_other(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, 4 * KIB);
	for (uint64_t file = 1; file <= 10; file++)
		reads(&w, &s, file);
	for (uint64_t file = 12; file <= FILES; file += 2)
		reads(&w, &s, file);
	assert_true(fetched(&w) <= 20 + SIBLINGS_FILES);
}

static void test_a_few_left_out_break_nothing(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, 4 * KIB);
	for (uint64_t file = 1; file <= FILES; file++)
		if (file % 12)
			reads(&w, &s, file);
	assert_int_equal(fetched(&w), FILES - 3);
}

static void test_neighbours_in_another_order_break_nothing(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, 4 * KIB);
	for (uint64_t file = 1; file <= 3; file++)
		reads(&w, &s, file);
	for (uint64_t file = 4; file + 2 <= FILES; file += 3) {
		reads(&w, &s, file + 2);
		reads(&w, &s, file);
		reads(&w, &s, file + 1);
	}
	assert_true(fetched(&w) >= FILES - 5);
}

static void test_what_is_here_is_passed_over(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, 4 * KIB);
	for (uint64_t file = 1; file <= FILES; file++)
		if (file % 3)
			w.cost[file] = SIBLINGS_NEEDLESS;
	/* the kernel has the pages of what is here: nobody hears of it */
	for (uint64_t file = 3; file <= FILES; file += 3)
		reads(&w, &s, file);
	assert_int_equal(fetched(&w), FILES / 3 - 3);
}

static void test_reading_what_is_here_fetches_nothing(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, SIBLINGS_NEEDLESS);
	for (uint64_t file = 1; file <= FILES; file++)
		assert_int_equal(reads(&w, &s, file), 0);
}

static void test_the_same_file_again_is_no_file_more(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, 100, 4 * KIB);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(reads(&w, &s, 1), 0);
		assert_int_equal(reads(&w, &s, 2), 0);
	}
}

static void test_bytes_are_a_limit_too(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, 100, 3 * MIB);
	for (uint64_t file = 1; file <= 3; file++)
		reads(&w, &s, file);
	assert_int_equal(fetched(&w), 5); /* 15 of 16 MiB */
	assert_int_equal(reads(&w, &s, 4), 1);
	assert_int_equal(s.bytes, 15 * MIB);
}

static void test_a_small_cache_is_not_filled_ahead(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, 100, 3 * MIB);
	w.room = MIB;
	for (uint64_t file = 1; file <= 100; file++)
		assert_int_equal(reads(&w, &s, file), 0);
}

static void test_no_further_than_sizes_are_known(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, 100, 4 * KIB);
	for (uint64_t file = 6; file <= 100; file++)
		w.cost[file] = SIBLINGS_UNSIZED;
	for (uint64_t file = 1; file <= 3; file++)
		reads(&w, &s, file);
	assert_int_equal(fetched(&w), 2);
	for (uint64_t file = 6; file <= 100; file++)
		w.cost[file] = 4 * KIB;
	assert_true(reads(&w, &s, 4) > 8);
	assert_int_equal(w.fetched[6], 1);
}

static void test_who_catches_up_goes_on(void **state)
{
	struct siblings s = {0};
	struct world w;

	(void)state;
	fill(&w, 100, 4 * KIB);
	for (uint64_t file = 4; file <= 100; file++)
		w.cost[file] = SIBLINGS_UNSIZED;
	for (uint64_t file = 1; file <= 4; file++)
		reads(&w, &s, file);
	assert_int_equal(fetched(&w), 0);
	for (uint64_t file = 5; file <= 100; file++)
		w.cost[file] = 4 * KIB;
	assert_true(reads(&w, &s, 5) > 8);
}

/* Each has a state of its own: they do not break each other's pattern. */
static void test_two_programs_by_turns(void **state)
{
	struct siblings one = {0}, other = {0};
	struct world w;

	(void)state;
	fill(&w, FILES, 4 * KIB);
	for (uint64_t file = 1; file <= FILES / 2; file++) {
		reads(&w, &one, file);
		reads(&w, &other, file + FILES / 2);
	}
	assert_true(fetched(&w) >= FILES - 6);
}

/* Whatever a program does: nothing twice, and no more in vain than what may be ahead at each start. */
static void test_random_programs(void **state)
{
	unsigned seed = (unsigned)time(NULL);

	(void)state;
	print_message("seed %u\n", seed);
	srand(seed);
	for (unsigned round = 0; round < 500; round++) {
		struct siblings s = {0};
		struct world w;
		uint64_t file = 1;

		fill(&w, FILES, 1 + rand() % (2 * MIB));
		for (unsigned i = 0; i < 200; i++) {
			unsigned dice = (unsigned)rand() % 20;

			reads(&w, &s, file);
			if (dice < 17)
				file = file % FILES + 1;
			else if (dice < 19)
				file = (file + (unsigned)rand() % 8) % FILES + 1;
			else
				file = (unsigned)rand() % FILES + 1;
		}
		fetched(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_files_are_no_pattern),
		cmocka_unit_test(test_the_third_in_a_row_fetches_ahead_and_more_with_each),
		cmocka_unit_test(test_all_to_the_end_once),
		cmocka_unit_test(test_by_name),
		cmocka_unit_test(test_backward_is_no_order),
		cmocka_unit_test(test_every_tenth_is_no_order),
		cmocka_unit_test(test_given_up_when_it_begins_to_leave_out),
		cmocka_unit_test(test_given_up_when_it_leaves_out_every_other),
		cmocka_unit_test(test_a_few_left_out_break_nothing),
		cmocka_unit_test(test_neighbours_in_another_order_break_nothing),
		cmocka_unit_test(test_what_is_here_is_passed_over),
		cmocka_unit_test(test_reading_what_is_here_fetches_nothing),
		cmocka_unit_test(test_the_same_file_again_is_no_file_more),
		cmocka_unit_test(test_bytes_are_a_limit_too),
		cmocka_unit_test(test_a_small_cache_is_not_filled_ahead),
		cmocka_unit_test(test_no_further_than_sizes_are_known),
		cmocka_unit_test(test_who_catches_up_goes_on),
		cmocka_unit_test(test_two_programs_by_turns),
		cmocka_unit_test(test_random_programs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
