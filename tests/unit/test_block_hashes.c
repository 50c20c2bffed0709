/* SPDX-License-Identifier: MIT */
/* fs/block_hashes.c: by table, and at random against an array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <attachfs/content.h>

#include "block_hashes.h"

#define B ((uint64_t)CONTENT_BLOCK_BYTES)

static void test_only_whole_blocks_count_the_last_up_to_the_end(void **state)
{
	static const struct {
		uint64_t first, end;
		int64_t size;
		uint64_t from, to; /* blocks */
	} table[] = {
		{0, B, 10 * (int64_t)B, 0, 1},
		{0, B - 1, 10 * (int64_t)B, 0, 0},
		{1, 2 * B, 10 * (int64_t)B, 1, 2},
		{1, 2 * B + 7, 10 * (int64_t)B, 1, 2},
		{3 * B, 3 * B + 7, 3 * (int64_t)B + 7, 3, 4},
		{3 * B, 3 * B + 7, 3 * (int64_t)B + 8, 0, 0},
		{3 * B + 1, 3 * B + 7, 3 * (int64_t)B + 7, 0, 0},
		{0, 5, 5, 0, 1},
		{0, 5, -1, 0, 0},
		{0, 4 * B, -1, 0, 4},
	};

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		struct ranges bytes = {0}, blocks = {0};

		assert_int_equal(ranges_add(&bytes, table[i].first, table[i].end), 0);
		assert_int_equal(block_hashes_whole(&bytes, table[i].size, &blocks), 0);
		assert_int_equal(blocks.bytes, table[i].to - table[i].from);
		assert_true(ranges_has(&blocks, table[i].from, table[i].to));
		ranges_clear(&bytes);
		ranges_clear(&blocks);
	}
}

static void test_what_does_not_fit_the_bytes_is_refused(void **state)
{
	struct block_hashes h = {0};
	struct ranges bytes = {0};
	uint64_t array[3] = {1, 2, 3}, hash;

	(void)state;
	assert_int_equal(block_hashes_set(&h, 7, 77), 0);
	assert_int_equal(ranges_add(&bytes, 0, 3 * B), 0);
	assert_int_equal(block_hashes_unpack(&h, &bytes, 3 * (int64_t)B, array, 16), -EINVAL);
	assert_int_equal(block_hashes_unpack(&h, &bytes, 3 * (int64_t)B, array, 23), -EINVAL);
	assert_int_equal(block_hashes_unpack(&h, &bytes, 3 * (int64_t)B, NULL, 0), -EINVAL);
	assert_true(block_hashes_get(&h, 7, &hash)); /* as it was */
	assert_int_equal(block_hashes_unpack(&h, &bytes, 3 * (int64_t)B, array, 24), 0);
	assert_false(block_hashes_get(&h, 7, &hash));
	assert_true(block_hashes_get(&h, 2, &hash));
	assert_int_equal(hash, 3);
	ranges_clear(&bytes);
	assert_int_equal(block_hashes_unpack(&h, &bytes, 3 * (int64_t)B, NULL, 0), 0);
	assert_int_equal(h.blocks.bytes, 0);
	block_hashes_clear(&h);
}

static void test_no_hash_is_zero_and_zero_is_not_known(void **state)
{
	struct block_hashes h = {0};
	struct ranges bytes = {0};
	uint64_t array[3] = {0, 5, 0}, hash;

	(void)state;
	assert_int_not_equal(block_hash("", 0), 0);
	assert_int_equal(ranges_add(&bytes, 4 * B, 7 * B), 0);
	assert_int_equal(block_hashes_unpack(&h, &bytes, 100 * (int64_t)B, array, sizeof array), 0);
	assert_false(block_hashes_get(&h, 4, &hash));
	assert_true(block_hashes_get(&h, 5, &hash));
	assert_false(block_hashes_get(&h, 6, &hash));
	block_hashes_clear(&h);
	ranges_clear(&bytes);
}

#define BLOCKS 64

static void expect_model(const struct block_hashes *h, const uint64_t *model)
{
	for (uint64_t b = 0; b < BLOCKS; b++) {
		uint64_t hash = 0;

		assert_int_equal(block_hashes_get(h, b, &hash), model[b] != 0);
		assert_int_equal(hash, model[b]);
	}
	assert_true(ranges_check(&h->blocks));
}

/* All of @model in @bytes, to the array and back. */
static void expect_packed(const struct block_hashes *h, const uint64_t *model)
{
	struct block_hashes back = {0};
	struct ranges bytes = {0};
	uint64_t *packed, partly[BLOCKS] = {0};
	size_t count;

	for (uint64_t b = 0; b < BLOCKS; b++)
		if (rand() % 3) {
			assert_int_equal(ranges_add(&bytes, b * B, (b + 1) * B), 0);
			partly[b] = model[b];
		}
	packed = block_hashes_pack(h, &bytes, BLOCKS * (int64_t)B, &count);
	assert_non_null(packed);
	assert_int_equal(count, bytes.bytes / B);
	assert_int_equal(block_hashes_unpack(&back, &bytes, BLOCKS * (int64_t)B, packed,
					     count * sizeof *packed),
			 0);
	expect_model(&back, partly);
	block_hashes_clear(&back);
	ranges_clear(&bytes);
	free(packed);
}

static void test_random_histories_agree_with_an_array(void **state)
{
	unsigned seed = (unsigned)time(NULL);
	struct block_hashes h = {0};
	uint64_t model[BLOCKS] = {0};

	(void)state;
	print_message("SEED=%u\n", seed);
	srand(seed);
	for (int i = 0; i < 20000; i++) {
		uint64_t b = (uint64_t)rand() % BLOCKS, end = b + 1 + (uint64_t)rand() % 8;

		if (rand() % 3) {
			model[b] = (uint64_t)rand() + 1;
			assert_int_equal(block_hashes_set(&h, b, model[b]), 0);
		} else {
			assert_int_equal(block_hashes_forget(&h, b, end), 0);
			for (; b < end && b < BLOCKS; b++)
				model[b] = 0;
		}
		if (i % 100 == 0) {
			expect_model(&h, model);
			expect_packed(&h, model);
		}
	}
	block_hashes_clear(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_whole_blocks_count_the_last_up_to_the_end),
		cmocka_unit_test(test_what_does_not_fit_the_bytes_is_refused),
		cmocka_unit_test(test_no_hash_is_zero_and_zero_is_not_known),
		cmocka_unit_test(test_random_histories_agree_with_an_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
