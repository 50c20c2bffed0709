/* SPDX-License-Identifier: MIT */

/* Addresses as users and servers give them, and ids that are UUIDs. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/base.h"
#include "../../api/json.h"

static struct base parse(const char *text)
{
	char message[128];
	struct base base;

	assert_int_equal(base_parse(text, "https://x", &base, message, sizeof(message)), 0);
	return base;
}

static void test_an_address_is_taken_apart(void **state)
{
	static const struct {
		const char *text, *url, *origin, *host;
		bool http;
	} rows[] = {
		{"https://et.example.org/app/api", "https://et.example.org/app/api",
		 "https://et.example.org", "et.example.org", false},
		{"https://et.example.org", "https://et.example.org", "https://et.example.org",
		 "et.example.org", false},
		{"https://et.example.org/app//", "https://et.example.org/app",
		 "https://et.example.org", "et.example.org", false},
		{"http://127.0.0.1:8080/x/", "http://127.0.0.1:8080/x", "http://127.0.0.1:8080",
		 "127.0.0.1", true},
		{"HTTP://[::1]:80/", "HTTP://[::1]:80", "HTTP://[::1]:80", "::1", true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct base base = parse(rows[i].text);
		assert_string_equal(base.url, rows[i].url);
		assert_string_equal(base.origin, rows[i].origin);
		assert_string_equal(base.host, rows[i].host);
		assert_int_equal(base.http, rows[i].http);
		base_clear(&base);
		assert_null(base.url);
	}
}

static void test_what_is_no_address_is_refused_with_an_example(void **state)
{
	static const char *const bad[] = {
		NULL,
		"",
		"et.example.org",
		"ftp://et.example.org",
		"https://",
		"https:///path",
		"https://h/?q=1",
		"https://h/#x",
		"https://u:p@h/",
		"https://h/a b",
		"https://h/\r\nX:",
		"https://:443/",
		"https://h/\x01",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct base base = {0};
		char message[128] = "";
		assert_int_equal(base_parse(bad[i], "https://x", &base, message, sizeof(message)),
				 -EINVAL);
		assert_non_null(strstr(message, "https://x"));
		assert_null(base.url);
	}
}

static void test_links_are_put_onto_our_own_origin(void **state)
{
	static const struct {
		const char *link, *url;
	} rows[] = {
		{"/a/b?c=d", "https://h:1/a/b?c=d"},
		{"https://other.example/a?b", "https://h:1/a?b"},
		{"http://h/a", "https://h:1/a"},
		{"http://u:p@evil/a", "https://h:1/a"},
		{"//evil/a", NULL},
		{"a/b", NULL},
		{"", NULL},
		{NULL, NULL},
		{"https://h", NULL},
		{"https://h?q", NULL},
		{"ftp://h/a", NULL},
		{"javascript:/a", NULL},
		{"/a b", NULL},
		{"/a\r\nX: y", NULL},
		{"/a#b", NULL},
		{"/a\x7f", NULL},
	};
	struct base base = parse("https://h:1/api");

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *url = NULL;
		assert_int_equal(base_rebase(&base, rows[i].link, &url), 0);
		if (rows[i].url)
			assert_string_equal(url, rows[i].url);
		else
			assert_null(url);
		free(url);
	}
	base_clear(&base);
}

static void test_only_what_cannot_be_anybody_else_is_loopback(void **state)
{
	(void)state;
	assert_true(base_is_loopback("127.0.0.1"));
	assert_true(base_is_loopback("127.9.8.7"));
	assert_true(base_is_loopback("LocalHost"));
	assert_true(base_is_loopback("::1"));
	assert_false(base_is_loopback("127.example.org"));
	assert_false(base_is_loopback("localhost.example.org"));
	assert_false(base_is_loopback("128.0.0.1"));
	assert_false(base_is_loopback(""));
}

static void assert_escaped(const char *text, const char *expected)
{
	char *out = base_escape(text);

	assert_string_equal(out, expected);
	free(out);
}

static void test_text_is_escaped_for_one_segment(void **state)
{
	(void)state;
	assert_escaped("", "");
	assert_escaped("aZ09-._~", "aZ09-._~");
	assert_escaped("a b/c?d&e=f%g+h", "a%20b%2Fc%3Fd%26e%3Df%25g%2Bh");
	assert_escaped("\xc3\xa4\n", "%C3%A4%0A");
	assert_escaped("../x", "..%2Fx");
}

static void test_uuids_are_told_from_what_looks_like_them(void **state)
{
	static const char *const good[] = {
		"6f0c1f0e-5a0e-4c57-9a36-0d6b8a5b7e11",
		"6F0C1F0E-5A0E-4C57-9A36-0D6B8A5B7E11",
		"00000000-0000-0000-0000-000000000001",
	};
	static const char *const bad[] = {
		"",
		"00000000-0000-0000-0000-000000000000",
		"6f0c1f0e-5a0e-4c57-9a36-0d6b8a5b7e1",
		"6f0c1f0e-5a0e-4c57-9a36-0d6b8a5b7e112",
		"6f0c1f0e-5a0e-4c57-9a360-d6b8a5b7e11",
		"6f0c1f0e_5a0e-4c57-9a36-0d6b8a5b7e11",
		"6f0c1f0g-5a0e-4c57-9a36-0d6b8a5b7e11",
		"{6f0c1f0e-5a0e-4c57-9a36-0d6b8a5b7e1}",
		"../../..-5a0e-4c57-9a36-0d6b8a5b7e11",
		"6f0c1f0e5a0e4c579a360d6b8a5b7e11",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(json_is_uuid(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(json_is_uuid(bad[i]));
	assert_false(json_is_uuid(NULL));
	json_t *o = json_pack("{s:s,s:s,s:i}", "a", good[0], "b", "no", "c", 7);
	assert_string_equal(json_get_uuid(o, "a"), good[0]);
	assert_null(json_get_uuid(o, "b"));
	assert_null(json_get_uuid(o, "c"));
	assert_null(json_get_uuid(o, "d"));
	json_decref(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_address_is_taken_apart),
		cmocka_unit_test(test_what_is_no_address_is_refused_with_an_example),
		cmocka_unit_test(test_links_are_put_onto_our_own_origin),
		cmocka_unit_test(test_only_what_cannot_be_anybody_else_is_loopback),
		cmocka_unit_test(test_text_is_escaped_for_one_segment),
		cmocka_unit_test(test_uuids_are_told_from_what_looks_like_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
