/* SPDX-License-Identifier: MIT */

/* Which answers are the bytes that were asked for: by table; tags and hosts that are remembered. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>

#include "../../api/fetch_answer.h"

/* 206 of "bytes 1000-1999/5000" with its length, unless said otherwise. */
static struct transfer_head part(void)
{
	return (struct transfer_head){.status = 206,
				      .content_length = 1000,
				      .has_range = true,
				      .range_first = 1000,
				      .range_last = 1999,
				      .range_total = 5000,
				      .content_type = "",
				      .content_encoding = "",
				      .etag = "\"e\"",
				      .location = ""};
}

static struct transfer_head whole(void)
{
	struct transfer_head head = part();

	head.status = 200;
	head.has_range = false;
	head.content_length = 5000;
	return head;
}

static const struct fetch_ask first = {.position = 1000, .ranged = true, .total = -1, .etag = ""};
static const struct fetch_ask later = {
	.position = 1000, .ranged = true, .begun = true, .total = 5000, .etag = "\"e\""};

static void test_a_part_is_taken_where_it_was_asked_for(void **state)
{
	struct transfer_head head = part();
	struct fetch_answer a;

	(void)state;
	assert_int_equal(fetch_judge(&first, &head, &a), 0);
	assert_int_equal(a.at, 1000);
	assert_int_equal(a.end, 2000);
	assert_int_equal(a.total, 5000);
	assert_true(a.framed);
	assert_false(a.rangeless);
	head.content_length = -1;
	assert_int_equal(fetch_judge(&first, &head, &a), 0);
	assert_false(a.framed);
	assert_int_equal(a.end, 2000);
}

static void test_what_is_not_that_part_is_refused(void **state)
{
	struct fetch_ask all = first;
	struct transfer_head head = part();
	struct fetch_answer a;

	(void)state;
	head.range_first = 999;
	assert_int_equal(fetch_judge(&first, &head, &a), -EIO);
	head = part();
	head.range_first = 1001;
	head.content_length = 999;
	assert_int_equal(fetch_judge(&first, &head, &a), -EIO);
	head = part();
	head.has_range = false;
	assert_int_equal(fetch_judge(&first, &head, &a), -EIO);
	head = part();
	head.content_length = 999;
	assert_int_equal(fetch_judge(&first, &head, &a), -EIO);
	head = part();
	head.content_length = 5000;
	assert_int_equal(fetch_judge(&first, &head, &a), -EIO);
	head = part();
	all.ranged = false;
	assert_int_equal(fetch_judge(&all, &head, &a), -EIO);
}

static void test_packed_bytes_are_not_the_files(void **state)
{
	struct transfer_head head = part();
	struct fetch_answer a;

	(void)state;
	head.content_encoding = "gzip";
	assert_int_equal(fetch_judge(&first, &head, &a), -EIO);
	head = whole();
	head.content_encoding = "br";
	assert_int_equal(fetch_judge(&first, &head, &a), -EIO);
	head.content_encoding = "Identity";
	assert_int_equal(fetch_judge(&first, &head, &a), 0);
}

static void test_all_of_it_begins_at_the_beginning(void **state)
{
	struct transfer_head head = whole();
	struct fetch_answer a;

	(void)state;
	assert_int_equal(fetch_judge(&first, &head, &a), 0);
	assert_int_equal(a.at, 0);
	assert_int_equal(a.end, 5000);
	assert_int_equal(a.total, 5000);
	assert_true(a.rangeless);
	head.content_length = -1;
	assert_int_equal(fetch_judge(&first, &head, &a), 0);
	assert_true(a.end == UINT64_MAX);
	assert_int_equal(a.total, -1);
	assert_false(a.framed);
}

static void test_another_version_is_told_by_tag_or_size(void **state)
{
	struct fetch_ask untagged = later;
	struct transfer_head head = part();
	struct fetch_answer a;

	(void)state;
	assert_int_equal(fetch_judge(&later, &head, &a), 0);
	head.etag = "\"f\"";
	assert_int_equal(fetch_judge(&later, &head, &a), -ESTALE);
	assert_int_equal(fetch_judge(&first, &head, &a), 0);
	head = part();
	head.etag = ""; /* a part without a tag, to If-Range: still of that version */
	assert_int_equal(fetch_judge(&later, &head, &a), 0);
	head.range_total = 5001;
	assert_int_equal(fetch_judge(&later, &head, &a), -ESTALE);
	head = whole(); /* all of it to If-Range: only under the same tag is it the same */
	assert_int_equal(fetch_judge(&later, &head, &a), 0);
	head.etag = "";
	assert_int_equal(fetch_judge(&later, &head, &a), -ESTALE);
	head.etag = "W/\"e\"";
	assert_int_equal(fetch_judge(&later, &head, &a), -ESTALE);
	untagged.etag = "";
	assert_int_equal(fetch_judge(&untagged, &head, &a), 0);
	head.content_length = 4999;
	assert_int_equal(fetch_judge(&untagged, &head, &a), -ESTALE);
}

static const char *offered(const struct transfer_head *head, const char *name)
{
	(void)head;
	(void)name;
	return "attachment";
}

static void test_a_page_is_told_from_a_file(void **state)
{
	struct remote_file picture = {.name = (char *)"logo.png", .version = (char *)"k.png"};
	struct remote_file page = {.name = (char *)"Report", .raw_filename = (char *)"report.HTM"};
	struct remote_file typed = {.name = (char *)"x", .media_type = (char *)"text/html; a=b"};
	struct transfer_head head = whole();

	(void)state;
	assert_false(fetch_is_page(&picture, &head));
	head.content_type = "text/html; charset=utf-8";
	assert_true(fetch_is_page(&picture, &head));
	assert_false(fetch_is_page(&page, &head));
	assert_false(fetch_is_page(&typed, &head));
	head.content_type = "text/htmlx";
	assert_false(fetch_is_page(&picture, &head));
	head.content_type = "APPLICATION/XHTML+XML";
	assert_true(fetch_is_page(&picture, &head));
	head.status = 206;
	assert_false(fetch_is_page(&picture, &head));
	head.status = 200;
	head.get = offered;
	assert_false(fetch_is_page(&picture, &head));
}

#define F1 "1"
#define F2 "2"
#define V1 "v1"
#define V2 "v2"

static void test_parts_of_a_version_are_under_one_tag(void **state)
{
	struct fetch_tags *tags = calloc(1, sizeof(*tags));

	(void)state;
	assert_non_null(tags);
	assert_true(fetch_tags_agree(tags, F1, V1, "\"a\""));
	assert_true(fetch_tags_agree(tags, F1, V1, "\"a\""));
	assert_true(fetch_tags_agree(tags, F1, V2, "\"b\""));
	assert_false(fetch_tags_agree(tags, F1, V1, "\"b\""));
	assert_true(fetch_tags_agree(tags, F1, V1, ""));
	assert_true(fetch_tags_agree(tags, F1, V1, "W/\"c\""));
	/* Tags that mean nothing make no file unreadable for long. */
	char etag[16];
	bool agree = false;
	for (int i = 0; i < 10; i++) {
		snprintf(etag, sizeof(etag), "\"%d\"", i);
		agree = fetch_tags_agree(tags, F2, V1, etag);
	}
	assert_true(agree);
	free(tags);
}

static void test_a_host_without_ranges_is_remembered_for_a_while(void **state)
{
	struct fetch_hosts hosts = {0};
	char url[64];

	(void)state;
	assert_false(fetch_hosts_find(&hosts, "https://a/x", 0));
	fetch_hosts_note(&hosts, "https://a/x?sig=1", 1000);
	assert_true(fetch_hosts_find(&hosts, "https://a/y", 1001));
	assert_true(fetch_hosts_find(&hosts, "https://a", 1001));
	assert_false(fetch_hosts_find(&hosts, "http://a/x", 1001));
	assert_false(fetch_hosts_find(&hosts, "https://a:444/x", 1001));
	assert_false(fetch_hosts_find(&hosts, "https://ab/x", 1001));
	assert_false(fetch_hosts_find(&hosts, "https://a/y", 1000 + FETCH_RANGELESS_MS));
	fetch_hosts_note(&hosts, "https://a/z", 5000000);
	assert_true(fetch_hosts_find(&hosts, "https://a/y", 5000001));
	/* the oldest makes room */
	for (int i = 0; i < FETCH_HOSTS; i++) {
		snprintf(url, sizeof(url), "https://h%d/", i);
		fetch_hosts_note(&hosts, url, 5000000);
	}
	assert_false(fetch_hosts_find(&hosts, "https://a/y", 5000001));
	assert_true(fetch_hosts_find(&hosts, url, 5000001));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_part_is_taken_where_it_was_asked_for),
		cmocka_unit_test(test_what_is_not_that_part_is_refused),
		cmocka_unit_test(test_packed_bytes_are_not_the_files),
		cmocka_unit_test(test_all_of_it_begins_at_the_beginning),
		cmocka_unit_test(test_another_version_is_told_by_tag_or_size),
		cmocka_unit_test(test_a_page_is_told_from_a_file),
		cmocka_unit_test(test_parts_of_a_version_are_under_one_tag),
		cmocka_unit_test(test_a_host_without_ranges_is_remembered_for_a_while),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
