/* SPDX-License-Identifier: MIT */
/* fs/ranges.c: by table, and at random against a bitmap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ranges.h"

static void expect(const struct ranges *r, const char *want)
{
	char got[256] = "";
	size_t len = 0;

	for (size_t i = 0; i < r->count; i++)
		len += (size_t)snprintf(got + len, sizeof got - len, "%s%llu-%llu", i ? " " : "",
					(unsigned long long)r->at[i].first,
					(unsigned long long)r->at[i].end);
	assert_string_equal(got, want);
	assert_true(ranges_check(r));
}

static void test_adding_joins_what_touches_or_overlaps(void **state)
{
	static const struct {
		uint64_t first, end;
		const char *want;
	} steps[] = {
		{10, 20, "10-20"},
		{30, 40, "10-20 30-40"},
		{5, 5, "10-20 30-40"},
		{20, 25, "10-25 30-40"},
		{28, 30, "10-25 28-40"},
		{0, 1, "0-1 10-25 28-40"},
		{12, 14, "0-1 10-25 28-40"},
		{24, 29, "0-1 10-40"},
		{UINT64_MAX - 1, UINT64_MAX, "0-1 10-40 18446744073709551614-18446744073709551615"},
		{0, UINT64_MAX, "0-18446744073709551615"},
	};
	struct ranges r = {0};

	(void)state;
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		assert_int_equal(ranges_add(&r, steps[i].first, steps[i].end), 0);
		expect(&r, steps[i].want);
	}
	ranges_clear(&r);
}

static void test_removing_cuts_and_splits(void **state)
{
	static const struct {
		uint64_t first, end;
		const char *want;
	} steps[] = {
		{100, 200, "0-50 60-90"},     {10, 20, "0-10 20-50 60-90"},
		{40, 70, "0-10 20-40 70-90"}, {5, 5, "0-10 20-40 70-90"},
		{20, 40, "0-10 70-90"},	      {80, UINT64_MAX, "0-10 70-80"},
		{0, UINT64_MAX, ""},
	};
	struct ranges r = {0};

	(void)state;
	ranges_add(&r, 0, 50);
	ranges_add(&r, 60, 90);
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		assert_int_equal(ranges_remove(&r, steps[i].first, steps[i].end), 0);
		expect(&r, steps[i].want);
	}
	ranges_clear(&r);
}

static void test_gaps_and_ranges_are_found_from_any_offset(void **state)
{
	struct ranges r = {0};
	struct range got;

	(void)state;
	assert_true(ranges_next_gap(&r, 5, 9, &got));
	assert_int_equal(got.first, 5);
	assert_int_equal(got.end, 9);
	assert_false(ranges_next_gap(&r, 9, 9, &got));
	assert_false(ranges_next(&r, 0, &got));
	ranges_add(&r, 10, 20);
	ranges_add(&r, 30, 40);
	assert_true(ranges_next(&r, 15, &got));
	assert_int_equal(got.first, 15);
	assert_int_equal(got.end, 20);
	assert_true(ranges_next(&r, 20, &got));
	assert_int_equal(got.first, 30);
	assert_false(ranges_next(&r, 40, &got));
	assert_true(ranges_next_gap(&r, 15, 100, &got));
	assert_int_equal(got.first, 20);
	assert_int_equal(got.end, 30);
	assert_false(ranges_next_gap(&r, 15, 20, &got));
	assert_true(ranges_next_gap(&r, 35, 100, &got));
	assert_int_equal(got.first, 40);
	assert_int_equal(got.end, 100);
	ranges_clear(&r);
}

static void test_loading_refuses_what_is_no_set(void **state)
{
	static const struct range unsorted[] = {{10, 20}, {0, 5}};
	static const struct range touching[] = {{0, 5}, {5, 9}};
	static const struct range empty[] = {{3, 3}};
	static const struct range good[] = {{0, 5}, {7, 9}};
	struct ranges r = {0};

	(void)state;
	assert_int_equal(ranges_load(&r, good, sizeof good), 0);
	expect(&r, "0-5 7-9");
	assert_int_equal(r.bytes, 7);
	assert_int_equal(ranges_load(&r, unsorted, sizeof unsorted), -EINVAL);
	assert_int_equal(ranges_load(&r, touching, sizeof touching), -EINVAL);
	assert_int_equal(ranges_load(&r, empty, sizeof empty), -EINVAL);
	assert_int_equal(ranges_load(&r, good, 15), -EINVAL);
	expect(&r, "0-5 7-9");
	assert_int_equal(ranges_load(&r, NULL, 0), 0);
	expect(&r, "");
	ranges_clear(&r);
}

#define MODEL 300

static uint64_t model_count(const char *model, uint64_t first, uint64_t end)
{
	uint64_t n = 0;

	for (uint64_t i = first; i < end; i++)
		n += model[i] != 0;
	return n;
}

static void compare(const struct ranges *r, const char *model, uint64_t a, uint64_t b)
{
	struct range got;
	uint64_t i = a;

	assert_true(ranges_check(r));
	assert_int_equal(r->bytes, model_count(model, 0, MODEL));
	assert_int_equal(ranges_overlap(r, a, b), model_count(model, a, b));
	assert_int_equal(ranges_has(r, a, b), model_count(model, a, b) == b - a);
	while (i < b && model[i])
		i++;
	assert_int_equal(ranges_next_gap(r, a, b, &got), i < b);
	if (i < b) {
		assert_int_equal(got.first, i);
		assert_int_equal(model_count(model, got.first, got.end), 0);
		assert_true(got.end == b || model[got.end]);
	}
	for (i = a; i < MODEL && !model[i]; i++)
		;
	assert_int_equal(ranges_next(r, a, &got), i < MODEL);
	if (i < MODEL) {
		assert_int_equal(got.first, i);
		assert_int_equal(model_count(model, got.first, got.end), got.end - got.first);
		assert_true(got.end == MODEL || !model[got.end]);
	}
}

static void test_random_histories_agree_with_a_bitmap(void **state)
{
	unsigned seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : (unsigned)time(NULL);

	(void)state;
	print_message("SEED=%u\n", seed);
	srand(seed);
	for (int round = 0; round < 300; round++) {
		struct ranges r = {0};
		char model[MODEL] = {0};
		unsigned longest = 1 + (unsigned)rand() % 60;

		for (int step = 0; step < 200; step++) {
			uint64_t a = (unsigned)rand() % MODEL;
			uint64_t b = a + (unsigned)rand() % longest;
			bool add = rand() % 5 < 3;

			b = b > MODEL ? MODEL : b;
			assert_int_equal(add ? ranges_add(&r, a, b) : ranges_remove(&r, a, b), 0);
			memset(model + a, add, b - a);
			a = (unsigned)rand() % MODEL;
			b = a + (unsigned)rand() % (MODEL - (unsigned)a);
			compare(&r, model, a, b);
		}
		ranges_clear(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_adding_joins_what_touches_or_overlaps),
		cmocka_unit_test(test_removing_cuts_and_splits),
		cmocka_unit_test(test_gaps_and_ranges_are_found_from_any_offset),
		cmocka_unit_test(test_loading_refuses_what_is_no_set),
		cmocka_unit_test(test_random_histories_agree_with_a_bitmap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
