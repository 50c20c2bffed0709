/* SPDX-License-Identifier: MIT */

/* What the server has of a node, packed and unpacked again. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "known.h"

static void assert_text(const char *a, const char *b)
{
	assert_int_equal(a != NULL, b != NULL);
	if (a)
		assert_string_equal(a, b);
}

static void assert_url(const struct known *a, const struct known *b)
{
	char *x = known_url(a), *y = known_url(b), *lasting = known_lasting_url(b);

	assert_text(x, y);
	assert_true(y || !lasting || lasting[strlen(lasting) - 1] == '?');
	assert_true(known_has_url(a, y ? y : lasting));
	assert_false(known_has_url(a, "http://other/"));
	free(lasting);
	free(x);
	free(y);
}

/* What may be written down of @url is @want. */
static void check_lasting(const char *url, const char *want)
{
	char rid[] = "1", text[64];
	struct known k = {.rid = rid, .url_rest = text};
	char *lasting;

	snprintf(text, sizeof(text), "%s", url);
	lasting = known_lasting_url(&k);
	assert_string_equal(lasting, want);
	free(lasting);
}

static void test_signatures_are_not_written_down(void **state)
{
	char rid[] = "1", bare[] = "https://h/f?";
	struct known k = {.rid = rid, .url_rest = bare};

	(void)state;
	check_lasting("https://h/f?X-Amz-Signature=0123&e=1", "https://h/f?");
	check_lasting("https://h/f?se=1&sig=abc", "https://h/f?");
	check_lasting("https://h/f?id=7", "https://h/f?id=7");
	assert_null(known_url(&k));
}

static void assert_same(const struct known *a, const struct known *b)
{
	assert_text(a->rid, b->rid);
	assert_text(a->name, b->name);
	assert_text(a->filename, b->filename);
	assert_text(a->version, b->version);
	assert_text(a->media_type, b->media_type);
	assert_url(a, b);
	assert_int_equal(a->record, b->record);
	assert_int_equal(a->size, b->size);
	assert_int_equal(a->mtime_ns, b->mtime_ns);
	assert_int_equal(a->ctime_ns, b->ctime_ns);
	assert_int_equal(a->confirmed_ms, b->confirmed_ms);
	assert_int_equal(a->filler, b->filler);
	assert_int_equal(a->has_hash, b->has_hash);
	if (a->has_hash)
		assert_memory_equal(a->hash, b->hash, sizeof(a->hash));
}

/* Also what is packed again from what was unpacked, as an edit does. */
static void check(const struct known *k)
{
	char *block = known_pack(k), *again;
	struct known out, twice;

	assert_non_null(block);
	assert_string_equal(block, k->rid); /* what the index of remote ids reads */
	known_unpack(block, &out);
	assert_same(k, &out);
	again = known_pack(&out);
	known_free_block(block);
	known_unpack(again, &twice);
	assert_same(k, &twice);
	known_free_block(again);
}

static void test_each_field_comes_back(void **state)
{
	struct known k = {.rid = (char *)"77",
			  .record = 12,
			  .name = (char *)"Range card",
			  .filename = (char *)"range card.pdf",
			  .version = (char *)"Zk3v.pdf",
			  .url_rest = (char *)"https://api.example.org/storage/Zk3v.pdf",
			  .media_type = (char *)"application/pdf",
			  .size = 1234,
			  .mtime_ns = INT64_C(1772352930000000000),
			  .ctime_ns = INT64_C(1772352930000000000),
			  .hash = {1, 2, 3, [15] = 255}};

	(void)state;
	check(&k);
	k.has_hash = k.filler = true;
	k.confirmed_ms = 987654321;
	check(&k);
	k.ctime_ns = INT64_C(1772352930000000001);
	check(&k);
	k.mtime_ns = REMOTE_TIME_NONE;
	check(&k);
	k.ctime_ns = REMOTE_TIME_NONE;
	check(&k);
	k.mtime_ns = -1;
	k.ctime_ns = -INT64_C(5000000000);
	check(&k);
	k.size = -1;
	k.record = UINT64_MAX;
	check(&k);
	k.size = INT64_MAX;
	k.mtime_ns = INT64_MAX;
	k.ctime_ns = INT64_MIN + 1;
	check(&k);
}

static void test_what_is_missing_stays_missing(void **state)
{
	struct known k = {.rid = (char *)"7", .size = -1};

	(void)state;
	check(&k);
	k.name = (char *)"";
	check(&k);
	k.version = (char *)"7";
	check(&k);
	k.url_rest = (char *)"relative";
	check(&k);
	k.url_rest = (char *)"https://host/path/?token=a/b";
	check(&k);
	k.url_rest = (char *)"";
	check(&k);
}

static void test_nothing_packs_to_nothing(void **state)
{
	struct known k = {.size = 5}, out;

	(void)state;
	assert_null(known_pack(&k));
	known_unpack(NULL, &out);
	assert_null(out.rid);
	assert_int_equal(out.size, -1);
	known_free_block(NULL);
}

static void test_names_are_found_in_the_block(void **state)
{
	const struct known k = {.rid = (char *)"1",
				.name = (char *)"a.txt",
				.filename = (char *)"b.txt",
				.version = (char *)"c.txt"};
	char *block = known_pack(&k);

	(void)state;
	assert_string_equal(known_find_name(block, "a.txt"), "a.txt");
	assert_string_equal(known_find_name(block, "b.txt"), "b.txt");
	assert_null(known_find_name(block, "c.txt"));
	assert_null(known_find_name(block, "1"));
	known_free_block(block);
}

/* More beginnings of URLs and media types than are kept once for all. */
static void test_many_different_beginnings_come_back_all_the_same(void **state)
{
	char url[128], media[64], *blocks[600];
	struct known k = {.rid = (char *)"1", .size = 1}, out;

	(void)state;
	for (int i = 0; i < 600; i++) {
		snprintf(url, sizeof(url), "https://host-%d.example.org/files/%d", i, i);
		snprintf(media, sizeof(media), "type/%d", i);
		k.url_rest = url;
		k.media_type = media;
		blocks[i] = known_pack(&k);
	}
	for (int i = 0; i < 600; i++) {
		known_unpack(blocks[i], &out);
		snprintf(url, sizeof(url), "https://host-%d.example.org/files/%d", i, i);
		snprintf(media, sizeof(media), "type/%d", i);
		assert_true(known_has_url(&out, url));
		assert_string_equal(out.media_type, media);
		known_free_block(blocks[i]);
	}
}

static void test_random_ones_come_back(void **state)
{
	static const char letters[] = "ab/.?";
	unsigned seed = 7;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		char text[6][64] = {""};
		struct known k = {.rid = text[0],
				  .record = (uint64_t)rand_r(&seed) << (rand_r(&seed) % 33),
				  .size = (int64_t)rand_r(&seed) - 1,
				  .mtime_ns = (int64_t)rand_r(&seed) << (rand_r(&seed) % 32)};

		for (int i = 0; i < 6; i++)
			for (int j = rand_r(&seed) % 60; j > 0; j--)
				strncat(text[i], &letters[rand_r(&seed) % 5], 1);
		k.name = rand_r(&seed) % 4 ? text[1] : NULL;
		k.filename = rand_r(&seed) % 4 ? text[2] : NULL;
		k.version = rand_r(&seed) % 4 ? text[3] : NULL;
		k.url_rest = rand_r(&seed) % 4 ? text[4] : NULL;
		k.media_type = rand_r(&seed) % 4 ? text[5] : NULL;
		k.ctime_ns = rand_r(&seed) % 2 ? k.mtime_ns : (int64_t)rand_r(&seed) * 1000000000;
		k.has_hash = rand_r(&seed) % 2;
		check(&k);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signatures_are_not_written_down),
		cmocka_unit_test(test_each_field_comes_back),
		cmocka_unit_test(test_what_is_missing_stays_missing),
		cmocka_unit_test(test_nothing_packs_to_nothing),
		cmocka_unit_test(test_names_are_found_in_the_block),
		cmocka_unit_test(test_many_different_beginnings_come_back_all_the_same),
		cmocka_unit_test(test_random_ones_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
