/* SPDX-License-Identifier: MIT */

/*
 * What is shown of an answer while it comes: whole files, in order, of rows with very many only; and
 * nothing of what is no such answer.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "perscom.h"

struct shown {
	char record[32];
	long long last_id;
	size_t files, pages;
	bool more; /* the sink wants more */
};

static bool on_page(void *ctx, struct remote_record *records, size_t n_records,
		    struct remote_file *files, size_t n_files)
{
	struct shown *s = ctx;

	assert_int_equal(n_records, 1);
	snprintf(s->record, sizeof(s->record), "%s", records[0].name);
	for (size_t i = 0; i < n_files; i++) {
		assert_string_equal(files[i].record, records[0].id);
		assert_true(atoll(files[i].id) == s->last_id + 1);
		s->last_id++;
	}
	s->files += n_files;
	s->pages++;
	return s->more;
}

/* One row for each of @counts; names have all that could be taken for a bracket in them. */
static char *make_answer(const unsigned *counts, size_t rows)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	fprintf(f, "{\"meta\": {\"data\": [{\"attachments\": [{}]}]},\n \"data\" : [");
	for (size_t r = 0; r < rows; r++) {
		fprintf(f, "%s{\"id\":%zu,\"name\":\"Ada \\\"]}[{ %zu\",\"roles\":[{\"id\":1}],",
			r ? ", " : "", r + 1, r + 1);
		fprintf(f, "\"attachments\":[ ");
		for (unsigned i = 0; i < counts[r]; i++)
			fprintf(f,
				"%s{\"id\":%u,\"name\":\"a\\\\\",\"filename\":\"]}{[\\\"\","
				"\"model_type\":\"App\\\\Models\\\\User\",\"model_id\":%zu,"
				"\"label\":{\"x\":[{}]},\"path\":\"p.txt\"}",
				i ? " ,\n" : "", i + 1, r + 1);
		fprintf(f, "],\"last\":\"]\"}");
	}
	fprintf(f, "]}");
	fclose(f);
	return text;
}

/* @piece: how many bytes come at a time. */
static void feed(struct perscom *p, const char *text, size_t piece, struct shown *shown)
{
	const struct remote_sink sink = {on_page, NULL, shown};
	struct perscom_stream *s = perscom_stream_new(p, perscom_find_collection("users"), &sink);
	size_t len = strlen(text);

	assert_int_equal(pool_new(2, &p->base.pool), 0);
	perscom_stream_take(s, NULL, 0);
	perscom_stream_take(s, text, len / 2); /* cut off: it is asked for again */
	pool_free(p->base.pool);
	*shown = (struct shown){.more = shown->more};
	assert_int_equal(pool_new(2, &p->base.pool), 0);
	perscom_stream_take(s, NULL, 0);
	for (size_t at = 0; at < len; at += piece)
		perscom_stream_take(s, text + at, len - at < piece ? len - at : piece);
	pool_free(p->base.pool); /* runs what is queued */
	perscom_stream_end(s);
}

static struct perscom *new_perscom(void)
{
	static struct perscom p;
	char message[256];

	memset(&p, 0, sizeof(p));
	assert_int_equal(perscom_base_parse("https://api.perscom.io/v2", &p.server, message,
					    sizeof(message)),
			 0);
	return &p;
}

static void test_files_of_a_large_row_are_shown_in_order(void **state)
{
	const unsigned counts[] = {20000};
	char *text = make_answer(counts, 1);
	const size_t pieces[] = {1, 7, 4096, 1u << 20};
	struct perscom *p = new_perscom();

	(void)state;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		struct shown shown = {.more = true};

		feed(p, text, pieces[i], &shown);
		assert_true(shown.pages > 5);
		assert_in_range(shown.files, 15000, 20000);
		assert_string_equal(shown.record, "Ada \"]}[{ 1");
	}
	free(text);
	perscom_base_clear(&p->server);
}

static void test_small_rows_are_left_for_the_whole_answer(void **state)
{
	const unsigned counts[] = {3, 0, 10};
	char *text = make_answer(counts, 3);
	struct perscom *p = new_perscom();
	struct shown shown = {.more = true};

	(void)state;
	feed(p, text, 100, &shown);
	assert_int_equal(shown.pages, 0);
	free(text);
	perscom_base_clear(&p->server);
}

static void test_a_large_row_between_small_ones_is_its_own(void **state)
{
	const unsigned counts[] = {3, 5000, 2};
	char *text = make_answer(counts, 3);
	struct perscom *p = new_perscom();
	struct shown shown = {.more = true};

	(void)state;
	feed(p, text, 1000, &shown);
	assert_true(shown.pages > 0);
	assert_string_equal(shown.record, "Ada \"]}[{ 2");
	free(text);
	perscom_base_clear(&p->server);
}

static void test_a_sink_that_has_enough_is_left_alone(void **state)
{
	const unsigned counts[] = {20000};
	char *text = make_answer(counts, 1);
	struct perscom *p = new_perscom();
	struct shown shown = {.more = false};

	(void)state;
	feed(p, text, 4096, &shown);
	assert_true(shown.pages <= 1);
	free(text);
	perscom_base_clear(&p->server);
}

static void test_what_is_no_such_answer_shows_nothing(void **state)
{
	static const char *const texts[] = {
		"",
		"]]]}}}}",
		"[[[[[[[[{",
		"{\"data\":{\"attachments\":[{}]}}",
		"null",
		"<html>{[\":",
		"{\"data\":[1,2,\"x\"]}",
	};
	struct perscom *p = new_perscom();

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct shown shown = {.more = true};

		feed(p, texts[i], 1, &shown);
		assert_int_equal(shown.pages, 0);
	}
	perscom_base_clear(&p->server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files_of_a_large_row_are_shown_in_order),
		cmocka_unit_test(test_small_rows_are_left_for_the_whole_answer),
		cmocka_unit_test(test_a_large_row_between_small_ones_is_its_own),
		cmocka_unit_test(test_a_sink_that_has_enough_is_left_alone),
		cmocka_unit_test(test_what_is_no_such_answer_shows_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
