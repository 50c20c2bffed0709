/* SPDX-License-Identifier: MIT */

/*
 * The ServiceMax client. Its pure parts: the examples of reference/servicemax.md are read, and what
 * the traps say is held to, also by servers that say nonsense. And its calls, with an engine, a pool
 * and a clock that stand here: what is sent is looked at and answered by the test.
 */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "../../api/auth.h"
#include "../../api/json.h"
#include "../../api/servicemax.h"

#define R1   "41f19ff6-2738-4000-8bfd-a18950caa1d1"
#define R2   "42f64596-c42f-4ba2-8138-cc40188d2a88"
#define R3   "43000000-0000-4000-8000-000000000003"
#define F1   "e74f0eff-ed37-4d72-9410-01977c5199e5"
#define F2   "f74f0eff-ed37-4d72-9410-01977c5199e5"
#define V1   "28d28b95-277e-4d8b-98c7-0777b4d810c5"
#define V2   "38d28b95-277e-4d8b-98c7-0777b4d810c5"
#define HOST "https://max.example.com"

/* Section 3: one attachment as the server shows it. */
#define FILE_JSON(uuid, version, name, size)                                                       \
	"{\"updated_on\": \"1772352930120\", \"size\": \"" size "\", \"media_type\": "             \
	"\"application/rtf\", \"name\": \"" name                                                   \
	"\", \"type\": \"file\", \"version_uuid\": \"" version "\", \"uuid\": \"" uuid             \
	"\", \"links\": [{\"rel\": \"url\", \"href\": "                                            \
	"\"https://localhost:8080/document/" uuid "/latest?1772352930120\"}, {\"rel\": "           \
	"\"thumbnail_url\", \"href\": "                                                            \
	"\"https://localhost:8080/document/3b156bad-81fd-4c86-9624-50c4f7cdb71d/"                  \
	"latest?5.0.0.620\"}]}"
#define FILE1_JSON FILE_JSON(F1, V1, "file1.txt", "314")

/* Section 2. */
#define RECORD_JSON(uuid, name)                                                                    \
	"{\"__object_identifier\": \"io_showcase\", \"io_uuid\": \"" uuid "\", \"io_name\": "      \
	"\"" name "\", \"io_created_on\": \"2026-02-03T11:22:41.071-03:00\", \"io_updated_on\": "  \
	"\"2026-03-01T08:15:30.120-03:00\", \"io_deleted\": false}"

static struct base base = {(char *)HOST, (char *)HOST, (char *)"max.example.com", false};

static json_t *parse(const char *text)
{
	json_t *root = json_parse(text, strlen(text), NULL, 0);

	assert_non_null(root);
	return root;
}

/* ---- decoding ---- */

static void test_an_attachment_is_read_whole(void **state)
{
	json_t *root = parse(FILE1_JSON);
	struct remote_file f;

	(void)state;
	assert_int_equal(servicemax_decode_file(&base, R1, root, &f), 0);
	assert_string_equal(f.id, F1);
	assert_string_equal(f.record, R1);
	assert_string_equal(f.name, "file1.txt");
	assert_string_equal(f.raw_name, "file1.txt");
	assert_null(f.raw_filename);
	assert_string_equal(f.version, V1);
	assert_string_equal(f.media_type, "application/rtf");
	assert_int_equal(f.size, 314);
	assert_true(f.mtime_ns == 1772352930120000000LL);
	assert_true(f.ctime_ns == REMOTE_TIME_NONE);
	/* The server's own idea of its host is not ours (S-11). */
	assert_string_equal(f.url, HOST "/document/" F1 "/latest?1772352930120");
	remote_file_clear(&f);
	json_decref(root);
}

static void test_numbers_may_be_strings_or_numbers(void **state)
{
	static const struct {
		const char *json;
		int64_t number;
	} rows[] = {
		{"{\"n\":\"314\"}", 314},
		{"{\"n\":314}", 314},
		{"{\"n\":314.0}", 314},
		{"{\"n\":\"0\"}", 0},
		{"{\"n\":0}", 0},
		{"{\"n\":-1}", -1},
		{"{\"n\":\"-1\"}", -1},
		{"{\"n\":\"\"}", -1},
		{"{\"n\":\" 5\"}", -1},
		{"{\"n\":\"5 \"}", -1},
		{"{\"n\":\"0x5\"}", -1},
		{"{\"n\":\"999999999999999999\"}", 999999999999999999},
		{"{\"n\":\"99999999999999999999\"}", -1},
		{"{\"n\":1e300}", -1},
		{"{\"n\":-1e300}", -1},
		{"{\"n\":null}", -1},
		{"{\"n\":[3]}", -1},
		{"{\"n\":\"3\\u00004\"}", -1},
		{"{}", -1},
		{"[]", -1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_t *root = parse(rows[i].json);
		assert_true(servicemax_get_number(root, "n") == rows[i].number);
		json_decref(root);
	}
}

static void test_an_attachment_may_lack_what_can_be_done_without(void **state)
{
	json_t *root = parse("{\"uuid\":\"" F1 "\",\"name\":\"a\\u0000b\",\"size\":7,"
			     "\"updated_on\":\"99999999999999999\",\"links\":[{\"rel\":\"url\","
			     "\"href\":\"ftp://x/y\"}],\"media_type\":5}");
	struct remote_file f;

	(void)state;
	assert_int_equal(servicemax_decode_file(&base, R1, root, &f), 0);
	assert_string_equal(f.name, "a%00b");
	assert_true(f.mtime_ns == REMOTE_TIME_NONE);
	assert_null(f.media_type);
	assert_string_equal(f.url, HOST "/document/" F1 "/latest");
	assert_string_equal(f.version, "@99999999999999999-7");
	remote_file_clear(&f);
	json_decref(root);
}

static void test_only_files_are_files(void **state)
{
	json_t *root =
		parse("[{\"type\":\"folder\"}," FILE1_JSON ",{\"type\":\"link\",\"uuid\":1}]");
	struct servicemax_page page = {0};

	(void)state;
	assert_int_equal(servicemax_decode_files(&base, R1, root, &page), 0);
	assert_int_equal(page.n_files, 1);
	servicemax_page_clear(&page);
	json_decref(root);
}

static void test_what_cannot_be_understood_fails_the_list(void **state)
{
	static const char *const bad[] = {
		"[7]",
		"[null]",
		"[[]]",
		"[{}]",
		"[{\"uuid\":\"" F1 "\"}]",
		"[{\"uuid\":\"" F1 "\",\"name\":5}]",
		"[{\"uuid\":\"../../etc\",\"name\":\"a\"}]",
		"[{\"uuid\":77,\"name\":\"a\"}]",
		"[{\"uuid\":\"00000000-0000-0000-0000-000000000000\",\"name\":\"a\"}]",
		"{}",
		"\"x\"",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *root = parse(bad[i]);
		struct servicemax_page page = {0};
		assert_int_equal(servicemax_decode_files(&base, R1, root, &page), -EIO);
		servicemax_page_clear(&page);
		json_decref(root);
	}
}

static void test_records_are_read_and_a_nameless_one_is_its_uuid(void **state)
{
	json_t *root = parse(
		"[" RECORD_JSON(R1, "Pump 7") ",{\"io_uuid\":\"" R2 "\",\"io_name\":null},"
					      "{\"io_uuid\":\"" R3 "\",\"io_deleted\":true}]");
	struct servicemax_page page = {0};
	int64_t ns;

	(void)state;
	assert_int_equal(servicemax_decode_records(root, &page), 0);
	assert_int_equal(page.rows, 3);
	assert_int_equal(page.n_records, 2);
	assert_string_equal(page.records[0].id, R1);
	assert_string_equal(page.records[0].name, "Pump 7");
	assert_int_equal(time_parse_iso8601("2026-03-01T11:15:30.120Z", &ns), 0);
	assert_true(page.records[0].mtime_ns == ns);
	assert_string_equal(page.records[1].name, R2);
	assert_true(page.records[1].ctime_ns == REMOTE_TIME_NONE);
	servicemax_page_clear(&page);
	json_decref(root);
}

static void test_records_of_nonsense_fail_the_list(void **state)
{
	static const char *const bad[] = {
		"[{\"io_uuid\":5}]",	      "[{}]", "[[]]", "17", "{\"data\":[]}",
		"[{\"io_uuid\":\"" R1 "x\"}]"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *root = parse(bad[i]);
		struct servicemax_page page = {0};
		assert_int_equal(servicemax_decode_records(root, &page), -EIO);
		servicemax_page_clear(&page);
		json_decref(root);
	}
}

static void digest(const char *text, char out[SERVICEMAX_DIGEST_SIZE])
{
	json_t *root = parse(text);

	assert_int_equal(servicemax_digest(root, out), 0);
	json_decref(root);
}

static void test_a_sum_of_files_does_not_depend_on_their_order(void **state)
{
	char a[SERVICEMAX_DIGEST_SIZE], b[SERVICEMAX_DIGEST_SIZE];
	json_t *bad = parse("{\"" R1 "\":5}");

	(void)state;
	digest("{\"" R1 "\":[" FILE1_JSON "," FILE_JSON(F2, V2, "b", "1") "],\"" R2 "\":[]}", a);
	digest("{\"" R1 "\":[" FILE_JSON(F2, V2, "b", "1") "," FILE1_JSON "]}", b);
	assert_string_equal(a, b);
	digest("{\"" R1 "\":[" FILE_JSON(F2, V1, "b", "1") "," FILE1_JSON "]}", b);
	assert_string_not_equal(a, b);
	digest("{\"" R2 "\":[" FILE_JSON(F2, V2, "b", "1") "],\"" R1 "\":[" FILE1_JSON "]}", b);
	assert_string_not_equal(a, b);
	assert_int_equal(servicemax_digest(bad, a), -EIO);
	assert_int_equal(servicemax_digest(NULL, a), -EIO);
	json_decref(bad);
}

static enum remote_outcome judge(int error, int status, bool sent, enum servicemax_verb verb,
				 size_t n, int *e)
{
	struct call_reply reply = {.error = error, .status = status, .sent = sent, .message = "no"};

	return servicemax_judge(&reply, verb, n, e);
}

static void test_outcomes_follow_from_what_is_known_to_have_happened(void **state)
{
	static const struct {
		int error, status;
		bool sent;
		enum servicemax_verb verb;
		size_t n;
		enum remote_outcome outcome;
		int result;
	} rows[] = {
		{0, 200, true, SERVICEMAX_CREATE_FILE, 1, REMOTE_DONE, 0},
		{-EIO, 200, true, SERVICEMAX_CREATE_FILE, 1, REMOTE_UNKNOWN, -EIO},
		{-EOVERFLOW, 200, true, SERVICEMAX_REPLACE_FILE, 1, REMOTE_UNKNOWN, -EIO},
		{-ETIMEDOUT, 0, true, SERVICEMAX_CREATE_FILE, 9, REMOTE_UNKNOWN, -ETIMEDOUT},
		{-ETIMEDOUT, 0, true, SERVICEMAX_REMOVE_FILE, 9, REMOTE_UNKNOWN, -ETIMEDOUT},
		{-EHOSTDOWN, 0, false, SERVICEMAX_CREATE_FILE, 1, REMOTE_RETRY, -EHOSTDOWN},
		{-EIO, 500, true, SERVICEMAX_REPLACE_FILE, 1, REMOTE_UNKNOWN, -EIO},
		{-EIO, 502, true, SERVICEMAX_REMOVE_FILE, 1, REMOTE_UNKNOWN, -EIO},
		{-EIO, 503, true, SERVICEMAX_CREATE_FILE, 1, REMOTE_RETRY, -EIO},
		{-EBUSY, 429, true, SERVICEMAX_CREATE_FILE, 1, REMOTE_RETRY, -EBUSY},
		{-EACCES, 401, true, SERVICEMAX_CREATE_FILE, 1, REMOTE_RETRY, -EACCES},
		{-EACCES, 403, true, SERVICEMAX_CREATE_FILE, 1, REMOTE_REFUSED, -EACCES},
		{-EINVAL, 400, true, SERVICEMAX_REMOVE_FILE, 2, REMOTE_REFUSED, -EINVAL},
		{-EFBIG, 413, true, SERVICEMAX_CREATE_FILE, 1, REMOTE_REFUSED, -EFBIG},
		{-EIO, 414, true, SERVICEMAX_REMOVE_FILE, 9, REMOTE_REFUSED, -EINVAL},
		{-ENOENT, 404, true, SERVICEMAX_CREATE_FILE, 1, REMOTE_REFUSED, -ENOENT},
		{-ENOENT, 404, true, SERVICEMAX_REPLACE_FILE, 1, REMOTE_GONE, -ENOENT},
		{-ENOENT, 404, true, SERVICEMAX_REMOVE_FILE, 1, REMOTE_GONE, 0},
		{-ENOENT, 404, true, SERVICEMAX_REMOVE_FILE, 2, REMOTE_REFUSED, -ENOENT},
	};
	int e;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(judge(rows[i].error, rows[i].status, rows[i].sent, rows[i].verb,
				       rows[i].n, &e),
				 rows[i].outcome);
		assert_int_equal(e, rows[i].result);
	}
}

static void test_names_with_commas_cannot_be_made_nor_deleted(void **state)
{
	(void)state;
	assert_int_equal(servicemax_check_name("a,b", REMOTE_CREATES), -EINVAL);
	assert_int_equal(servicemax_check_name("a,b", REMOTE_RENAMES), -EINVAL);
	assert_int_equal(servicemax_check_name("a,b", REMOTE_REMOVES), -EPERM);
	assert_int_equal(servicemax_check_name("a,b", REMOTE_REPLACES), 0);
	assert_int_equal(servicemax_check_name("a\nb", REMOTE_CREATES), -EINVAL);
	/* What is behind a path is another file's name. */
	assert_int_equal(servicemax_check_name("a/b", REMOTE_CREATES), -EINVAL);
	assert_int_equal(servicemax_check_name("a\\b", REMOTE_RENAMES), -EINVAL);
	assert_int_equal(servicemax_check_name("a\\b", REMOTE_REMOVES), 0);
	assert_int_equal(servicemax_check_name("a b;\xc3\xa4\".txt", REMOTE_CREATES), 0);
}

static void test_forms_and_names_are_escaped(void **state)
{
	const char *const pairs[] = {"a", "x y&=%+\xc3\xa4", "b", NULL, "c", "", NULL};
	const char *const names[] = {"a b.txt", "c&d=e.txt", "\xc3\xa4"};
	char *form = servicemax_form(pairs), *list = servicemax_names(names, 3);

	(void)state;
	assert_string_equal(form, "a=x%20y%26%3D%25%2B%C3%A4&c=");
	assert_string_equal(list, "a%20b.txt,c%26d%3De.txt,%C3%A4");
	free(form);
	free(list);
}

static void test_a_csrf_token_is_found_in_many_scripts(void **state)
{
	static const struct {
		const char *script, *name, *token;
	} rows[] = {
		{"var csrfToken = 'abcdef0123456789';", "X-CSRF-Token", "abcdef0123456789"},
		{"injectTokens(\"OWASP-CSRFTOKEN\", \"J3ZB-5M2X-9QQQ\");", "OWASP-CSRFTOKEN",
		 "J3ZB-5M2X-9QQQ"},
		{"var token=\"abc-123-def\"; x.setRequestHeader(\"X-XSRF-TOKEN\", token);",
		 "X-XSRF-TOKEN", "abc-123-def"},
		{"xhr.setRequestHeader('X-Requested-With', 'OWASP CSRFGuard Project');\n"
		 "injectTokens(\"OWASP_CSRFTOKEN\",\"ABCD-1234\")",
		 "OWASP_CSRFTOKEN", "ABCD-1234"},
		{"{\"token\": \"abcdef0123456789\"}", "X-CSRF-Token", "abcdef0123456789"},
		{"{\"csrf_token\": \"abcdef0123456789\"}", "X-CSRF-Token", "abcdef0123456789"},
		{" abcdef0123456789\n", "X-CSRF-Token", "abcdef0123456789"},
		{"", NULL, NULL},
		{"alert('hello');", NULL, NULL},
		{"token = '", NULL, NULL},
		{"var token = '/resources/js/csrf_script';", NULL, NULL},
		{"var csrfToken = 'a\nb1234567890\r\nX: y';", NULL, NULL},
	};
	char name[SERVICEMAX_CSRF_NAME], token[SERVICEMAX_CSRF_TOKEN];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		bool found =
			servicemax_find_csrf(rows[i].script, strlen(rows[i].script), name, token);
		assert_int_equal(found, rows[i].token != NULL);
		if (!found)
			continue;
		assert_string_equal(name, rows[i].name);
		assert_string_equal(token, rows[i].token);
	}
}

static void make_uuid(unsigned n, char out[SERVICEMAX_UUID_SIZE])
{
	snprintf(out, SERVICEMAX_UUID_SIZE, "%08x-0000-4000-8000-%012x", n, n * 7919u);
}

static void test_a_set_holds_what_was_put_into_it(void **state)
{
	struct servicemax_uuids set = {0};
	char uuid[SERVICEMAX_UUID_SIZE];

	(void)state;
	assert_int_equal(servicemax_uuids_get(&set, R1), 0);
	for (unsigned i = 1; i < 5000; i++) {
		make_uuid(i, uuid);
		assert_int_equal(servicemax_uuids_put(&set, uuid, 1), 0);
	}
	for (unsigned i = 1; i < 5000; i++) {
		make_uuid(i, uuid);
		assert_int_equal(servicemax_uuids_put(&set, uuid, 2), 1);
	}
	make_uuid(6000, uuid);
	assert_int_equal(servicemax_uuids_get(&set, uuid), 0);
	assert_int_equal(servicemax_uuids_put(&set, R1, 1), 0);
	assert_int_equal(servicemax_uuids_get(&set, "41F19FF6-2738-4000-8BFD-A18950CAA1D1"), 1);
	assert_int_equal(servicemax_uuids_put(&set, "no uuid", 1), -EINVAL);
	assert_int_equal(servicemax_uuids_get(&set, NULL), 0);
	servicemax_uuids_clear(&set);
}

static void test_objects_are_named_by_identifiers(void **state)
{
	char name[SERVICEMAX_OBJECT_MAX + 2];

	(void)state;
	memset(name, 'a', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	assert_true(servicemax_is_object("io_showcase"));
	assert_false(servicemax_is_object(name));
	name[sizeof(name) - 2] = '\0';
	assert_true(servicemax_is_object(name));
	assert_false(servicemax_is_object(""));
	assert_false(servicemax_is_object("a/b"));
	assert_false(servicemax_is_object("a?b"));
	assert_false(servicemax_is_object(NULL));
}

/* ---- paging: a server of sorted records that change between the pages ---- */

struct list {
	unsigned ids[256];
	size_t n;
};

/* What the server answers for limit and offset. */
static struct servicemax_page answer_page(const struct list *l, uint64_t offset, size_t limit)
{
	struct servicemax_page page = {0};

	page.records = calloc(limit + 1, sizeof(*page.records));
	for (size_t i = (size_t)offset; i < l->n && page.n_records < limit; i++) {
		char uuid[SERVICEMAX_UUID_SIZE];
		make_uuid(l->ids[i], uuid);
		page.records[page.n_records++] =
			(struct remote_record){.id = strdup(uuid), .name = strdup("x")};
	}
	page.rows = page.n_records;
	return page;
}

static struct list make_list(unsigned n)
{
	struct list l = {.n = n};

	for (unsigned i = 0; i < n; i++)
		l.ids[i] = 1 + i;
	return l;
}

static void cut_list(struct list *l, size_t first, size_t n)
{
	memmove(l->ids + first, l->ids + first + n, (l->n - first - n) * sizeof(l->ids[0]));
	l->n -= n;
}

/* Read it all; @cut records are deleted at the front after the first page. How many were listed. */
static int read_all(struct list *l, unsigned limit, size_t cap, bool totals, size_t cut,
		    unsigned *ret_calls)
{
	struct servicemax_paging p = {.limit = limit};
	const char *message;
	int r = 1, n = 0;

	servicemax_paging_begin(&p);
	for (*ret_calls = 0; r == 1; ++*ret_calls) {
		assert_true(*ret_calls < 200);
		struct servicemax_page page =
			answer_page(l, p.offset, p.limit < cap ? p.limit : cap);
		r = servicemax_paging_take(&p, &page, totals ? (int64_t)l->n : -1, &message);
		n += (int)page.n_records;
		servicemax_page_clear(&page);
		if (*ret_calls == 0 && cut)
			cut_list(l, 0, cut);
	}
	servicemax_uuids_clear(&p.seen);
	return r < 0 ? r : n;
}

static void test_pages_are_read_to_their_end(void **state)
{
	unsigned calls;

	(void)state;
	for (int totals = 0; totals < 2; totals++) {
		struct list l = make_list(200);
		assert_int_equal(read_all(&l, 100, 1000, totals, 0, &calls), 200);
		assert_int_equal(calls, 3); /* two rows of overlap too many for two */
		l = make_list(5);
		assert_int_equal(read_all(&l, 100, 1000, totals, 0, &calls), 5);
		assert_int_equal(calls, 1);
		l = make_list(0);
		assert_int_equal(read_all(&l, 100, 1000, totals, 0, &calls), 0);
		assert_int_equal(calls, 1);
	}
	/* A server that gives less than asked for, and one that counts. */
	struct list l = make_list(250);
	assert_int_equal(read_all(&l, 100, 50, true, 0, &calls), 250);
	l = make_list(100);
	assert_int_equal(read_all(&l, 100, 1000, true, 0, &calls), 100);
	assert_int_equal(calls, 1);
}

static void test_records_deleted_between_pages_make_none_be_skipped(void **state)
{
	unsigned calls;

	(void)state;
	for (size_t cut = 1; cut <= 100; cut++) {
		struct list l = make_list(250);
		/* Those that were listed before they were deleted are listed all the same. */
		assert_int_equal(read_all(&l, 100, 1000, cut % 2, cut, &calls), 250);
		assert_true(calls <= 8);
	}
}

static void test_pages_that_cannot_be_trusted_are_an_error(void **state)
{
	struct servicemax_paging p = {.limit = 100};
	struct list l = make_list(100), other = make_list(250);
	const char *message;

	(void)state;
	/* The same page whatever the offset. */
	servicemax_paging_begin(&p);
	struct servicemax_page page = answer_page(&l, 0, 100);
	assert_int_equal(servicemax_paging_take(&p, &page, 500, &message), 1);
	servicemax_page_clear(&page);
	page = answer_page(&l, 0, 100);
	assert_int_equal(servicemax_paging_take(&p, &page, 500, &message), -EIO);
	servicemax_page_clear(&page);
	servicemax_uuids_clear(&p.seen);
	/* Counted but not listed. */
	p = (struct servicemax_paging){.limit = 100};
	servicemax_paging_begin(&p);
	page = (struct servicemax_page){0};
	assert_int_equal(servicemax_paging_take(&p, &page, 500, &message), -EIO);
	/* Other records each time. */
	p = (struct servicemax_paging){.limit = 100};
	servicemax_paging_begin(&p);
	int r = 1;
	for (unsigned i = 0; r == 1; i++) {
		assert_true(i < 100);
		for (size_t k = 0; k < other.n; k++)
			other.ids[k] += 1000;
		page = answer_page(&other, 0, 100);
		if (p.offset == 0 && i > 0)
			page.rows = 0;
		r = servicemax_paging_take(&p, &page, 5000, &message);
		servicemax_page_clear(&page);
	}
	assert_int_equal(r, -EIO);
	servicemax_uuids_clear(&p.seen);
}

static void test_records_that_are_counted_but_hidden_end_the_list(void **state)
{
	struct servicemax_paging p = {.limit = 100};
	struct list l = make_list(60);
	const char *message;

	(void)state;
	servicemax_paging_begin(&p);
	struct servicemax_page page = answer_page(&l, 0, 100);
	assert_int_equal(servicemax_paging_take(&p, &page, 64, &message), 1);
	servicemax_page_clear(&page);
	page = answer_page(&l, p.offset, 100);
	assert_int_equal(servicemax_paging_take(&p, &page, 64, &message), 0);
	assert_int_equal(page.n_records, 0);
	servicemax_page_clear(&page);
	servicemax_uuids_clear(&p.seen);
}

/* ---- the engine, pool and clock of the tests below ---- */

#define SENT_MAX 64

struct sent {
	char *method, *url, *body, *credential, *csrf;
	char *filenames; /* of the parts, with '|' behind each */
	bool (*head)(void *ctx, const struct transfer_head *head);
	bool (*data)(void *ctx, const void *data, size_t len);
	void (*done)(void *ctx, const struct transfer_result *result);
	void *ctx;
	bool idempotent;
};

static struct {
	pthread_mutex_t lock; /* n_sent: logins are another thread's */
	int64_t now_ms;
	struct sent sent[SENT_MAX];
	size_t n_sent, n_answered;
	int refuse; /* what transfer_start() answers instead */
} world = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct remote *remote;

int64_t clock_mono_ms(void)
{
	return world.now_ms;
}

int64_t clock_real_ns(void)
{
	return 1772445600LL * CLOCK_NS_PER_S;
}

int pool_run(struct pool *pool, void (*job)(void *ctx), void *ctx)
{
	(void)pool;
	job(ctx);
	return 0;
}

int transfer_start(struct engine *engine, const struct transfer_spec *spec, uint64_t *ret_id)
{
	char names[4096] = "";

	(void)engine;
	if (world.refuse < 0)
		return world.refuse;
	pthread_mutex_lock(&world.lock);
	assert_true(world.n_sent < SENT_MAX);
	struct sent *s = &world.sent[world.n_sent];
	*s = (struct sent){.method = strdup(spec->method),
			   .url = strdup(spec->url),
			   .body = strndup(spec->body ? spec->body : "", spec->body_len),
			   .credential = spec->credential ? strdup(spec->credential) : NULL,
			   .head = spec->headers_cb,
			   .data = spec->data_cb,
			   .done = spec->done_cb,
			   .ctx = spec->ctx,
			   .idempotent = spec->idempotent};
	for (const char *const *h = spec->headers; h && *h; h++)
		if (strncmp(*h, "X-CSRF-Token: ", 14) == 0)
			s->csrf = strdup(*h + 14);
	for (size_t i = 0; i < spec->n_parts; i++) {
		const struct transfer_part *part = &spec->parts[i];
		if (!part->disposition)
			assert_string_equal(part->name, "file");
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s|",
			 part->disposition ? part->disposition : part->filename);
	}
	s->filenames = strdup(names);
	if (ret_id)
		*ret_id = world.n_sent + 1;
	world.n_sent++;
	pthread_mutex_unlock(&world.lock);
	return 0;
}

enum engine_state engine_get_state(struct engine *engine, int64_t *ret_until_real_ns)
{
	(void)engine;
	if (ret_until_real_ns)
		*ret_until_real_ns = 0;
	return ENGINE_ONLINE;
}

void transfer_cancel(struct engine *engine, uint64_t id)
{
	(void)engine;
	(void)id;
}

void transfer_pause(struct engine *engine, uint64_t id)
{
	(void)engine;
	(void)id;
}

void transfer_resume(struct engine *engine, uint64_t id)
{
	(void)engine;
	(void)id;
}

void transfer_set_class(struct engine *engine, uint64_t id, enum transfer_class class)
{
	(void)engine;
	(void)id;
	(void)class;
}

static int make_remote(bool password, bool client_id)
{
	struct options options = {.system = OPTIONS_SYSTEM_SERVICEMAX,
				  .base_url = (char *)HOST,
				  .collections = (char *)"io_showcase:io_user"};
	static struct options kept;
	char message[256];

	world.now_ms = 1000000;
	world.n_sent = world.n_answered = 0;
	world.refuse = 0;
	setenv("ATTACHFS_TOKEN", "token-of-the-unit-test", 1);
	setenv("ATTACHFS_PASSWORD", "pass word&", 1);
	if (password)
		options.user = (char *)"mount";
	if (client_id)
		options.client_id = (char *)"the-client";
	kept = options;
	return remote_new(&kept, NULL, NULL, &remote, message, sizeof(message));
}

static int begin_world(void **state)
{
	(void)state;
	return make_remote(false, false);
}

static int end_world(void **state)
{
	(void)state;
	if (remote)
		remote_free(remote);
	remote = NULL;
	for (size_t i = 0; i < world.n_sent; i++) {
		free(world.sent[i].method);
		free(world.sent[i].url);
		free(world.sent[i].body);
		free(world.sent[i].credential);
		free(world.sent[i].csrf);
		free(world.sent[i].filenames);
	}
	return world.n_sent == world.n_answered ? 0 : -1;
}

#define CALL_TEST(test) cmocka_unit_test_setup_teardown(test, begin_world, end_world)

/* What was sent next; waits for it, for it may be another thread's. @path: behind the host. */
static struct sent *next_sent(const char *method, const char *path)
{
	size_t n = 0;

	for (int i = 0; i < 500; i++) {
		pthread_mutex_lock(&world.lock);
		n = world.n_sent;
		pthread_mutex_unlock(&world.lock);
		if (n > world.n_answered)
			break;
		usleep(10000);
	}
	assert_true(n > world.n_answered);
	struct sent *s = &world.sent[world.n_answered++];
	assert_string_equal(s->method, method);
	assert_memory_equal(s->url, HOST, strlen(HOST));
	assert_string_equal(s->url + strlen(HOST), path);
	return s;
}

static const char *answer_header_name, *answer_header_value;

static const char *get_header(const struct transfer_head *head, const char *name)
{
	(void)head;
	return answer_header_name && strcasecmp(name, answer_header_name) == 0 ? answer_header_value
									       : NULL;
}

static void answer_error(struct sent *s, int error, int status)
{
	struct transfer_result result = {.error = error, .status = status, .sent = true};

	s->done(s->ctx, &result);
}

static void answer(struct sent *s, int status, const char *body)
{
	struct transfer_head head = {.status = status,
				     .content_length = (int64_t)strlen(body),
				     .range_total = -1,
				     .content_type = "application/json",
				     .content_encoding = "",
				     .etag = "",
				     .location = "",
				     .last_modified_s = -1,
				     .date_s = -1,
				     .rate_limit = -1,
				     .rate_remaining = -1,
				     .get = get_header};

	bool ok = s->head(s->ctx, &head);
	if (ok && *body != '\0')
		s->data(s->ctx, body, strlen(body));
	answer_error(s, ok ? 0 : -EIO, status);
}

static void answer_with(struct sent *s, int status, const char *body, const char *name,
			const char *value)
{
	answer_header_name = name;
	answer_header_value = value;
	answer(s, status, body);
	answer_header_name = NULL;
}

static void count_done(void *ctx, int error, const char *message)
{
	int *calls = ctx;

	(void)message;
	assert_int_equal(error, 0);
	++*calls;
}

/* ---- listings ---- */

struct seen {
	char records[1024]; /* "id=name|" in order */
	char files[1024];   /* "record/name|" */
	size_t n_files;
	int done, error;
};

static bool on_page(void *ctx, struct remote_record *records, size_t n_records,
		    struct remote_file *files, size_t n_files)
{
	struct seen *s = ctx;

	assert_int_equal(s->done, 0);
	for (size_t i = 0; i < n_records; i++)
		snprintf(s->records + strlen(s->records), sizeof(s->records) - strlen(s->records),
			 "%.2s=%s|", records[i].id, records[i].name);
	for (size_t i = 0; i < n_files; i++)
		snprintf(s->files + strlen(s->files), sizeof(s->files) - strlen(s->files),
			 "%.2s/%s|", files[i].record, files[i].name);
	s->n_files += n_files;
	return true;
}

static void on_listed(void *ctx, int error, const char *message)
{
	struct seen *s = ctx;

	(void)message;
	s->done++;
	s->error = error;
}

#define FIELDS	 "io_uuid,io_name,io_created_on,io_updated_on"
#define PAGE_URL "/v2/io_showcase?fields=" FIELDS "&sort=io_uuid&limit=1000&offset=0"

static void start_tree(struct seen *s)
{
	struct remote_sink sink = {on_page, on_listed, s};

	assert_int_equal(remote->ops->list_tree(remote, TRANSFER_INTERACTIVE, "io_showcase", &sink),
			 0);
}

static void start_record(struct seen *s, const char *record)
{
	struct remote_sink sink = {on_page, on_listed, s};

	assert_int_equal(remote->ops->list_record(remote, TRANSFER_INTERACTIVE, "io_showcase",
						  record, &sink),
			 0);
}

static void test_a_tree_is_two_calls(void **state)
{
	struct seen s = {0};

	(void)state;
	start_tree(&s);
	struct sent *sent = next_sent("GET", PAGE_URL);
	assert_string_equal(sent->credential, "Authorization: Bearer token-of-the-unit-test");
	answer_with(sent, 200, "[" RECORD_JSON(R1, "Pump 7") "," RECORD_JSON(R2, "Pump 8") "]",
		    "X-Total-Count", "2");
	answer(next_sent("GET", "/v2/io_showcase/attachments"), 200,
	       "{\"" R2 "\":[],\"" R1 "\":[" FILE1_JSON "]}");
	assert_int_equal(s.done, 1);
	assert_int_equal(s.error, 0);
	assert_string_equal(s.records, "41=Pump 7|42=Pump 8|");
	assert_string_equal(s.files, "41/file1.txt|");
}

static void test_a_record_made_in_between_is_asked_for_by_itself(void **state)
{
	struct seen s = {0};
	static const char map[] = "{\"" R1 "\":[" FILE1_JSON "],\"" R2 "\":[" FILE1_JSON "],\"" R3
				  "\":[" FILE1_JSON "]}";

	(void)state;
	start_tree(&s);
	answer(next_sent("GET", PAGE_URL), 200, "[" RECORD_JSON(R1, "Pump 7") "]");
	answer(next_sent("GET", "/v2/io_showcase/attachments"), 200, map);
	answer(next_sent("GET", "/v2/io_showcase/" R2 "?fields=" FIELDS), 200,
	       RECORD_JSON(R2, "Pump 8"));
	/* Not to be seen (S-10): its files are nobody's. */
	answer(next_sent("GET", "/v2/io_showcase/" R3 "?fields=" FIELDS), 404, "");
	assert_int_equal(s.error, 0);
	assert_int_equal(s.done, 1);
	assert_string_equal(s.records, "41=Pump 7|42=Pump 8|");
	assert_string_equal(s.files, "41/file1.txt|42/file1.txt|");
	/* And is not asked for again. */
	memset(&s, 0, sizeof(s));
	start_tree(&s);
	answer(next_sent("GET", PAGE_URL), 200,
	       "[" RECORD_JSON(R1, "Pump 7") "," RECORD_JSON(R2, "Pump 8") "]");
	answer(next_sent("GET", "/v2/io_showcase/attachments"), 200, map);
	assert_int_equal(s.done, 1);
	assert_int_equal(s.n_files, 2);
}

static void test_many_records_made_in_between_are_listed_again(void **state)
{
	struct seen s = {0};
	json_t *map = json_object(), *records = json_array();
	char uuid[SERVICEMAX_UUID_SIZE];

	(void)state;
	for (unsigned i = 1; i <= 12; i++) {
		make_uuid(i, uuid);
		json_object_set_new(map, uuid, json_pack("[o]", parse(FILE1_JSON)));
		if (i <= 11)
			json_array_append_new(
				records, json_pack("{s:s, s:s}", "io_uuid", uuid, "io_name", "n"));
	}
	char *map_text = json_dumps(map, 0), *records_text = json_dumps(records, 0);
	start_tree(&s);
	answer(next_sent("GET", PAGE_URL), 200, "[]");
	answer(next_sent("GET", "/v2/io_showcase/attachments"), 200, map_text);
	assert_int_equal(s.n_files, 0);
	answer(next_sent("GET", PAGE_URL), 200, records_text);
	assert_int_equal(s.done, 1);
	assert_int_equal(s.error, 0);
	assert_int_equal(s.n_files, 11); /* the twelfth is not to be seen */
	free(map_text);
	free(records_text);
	json_decref(map);
	json_decref(records);
}

static void test_an_object_without_the_usual_fields_is_asked_for_fewer(void **state)
{
	struct seen s = {0};

	(void)state;
	for (int i = 0; i < 2; i++) {
		memset(&s, 0, sizeof(s));
		start_tree(&s);
		if (i == 0)
			answer(next_sent("GET", PAGE_URL), 400, "{\"type\":\"smql_query_error\"}");
		answer(next_sent("GET", "/v2/io_showcase?fields=io_uuid,io_name,io_created_on&sort="
					"io_uuid&limit=1000&offset=0"),
		       200, "[{\"io_uuid\":\"" R1 "\"}]");
		answer(next_sent("GET", "/v2/io_showcase/attachments"), 200, "{}");
		assert_int_equal(s.done, 1);
		assert_string_equal(s.records, "41=" R1 "|");
	}
}

static void test_a_listing_of_nonsense_is_not_whole(void **state)
{
	static const char *const maps[] = {
		"[]", "17", "{\"x\":[]}",     "{\"" R1 "\":7}", "{\"" R1 "\":[7]}",
		"{",  "",   "{\"" R2 "\":7}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
		struct seen s = {0};
		start_tree(&s);
		answer(next_sent("GET", PAGE_URL), 200, "[" RECORD_JSON(R1, "Pump 7") "]");
		answer(next_sent("GET", "/v2/io_showcase/attachments"), 200, maps[i]);
		assert_int_equal(s.done, 1);
		assert_int_equal(s.error, -EIO);
	}
	struct seen s = {0};
	start_tree(&s);
	answer(next_sent("GET", PAGE_URL), 200, "{\"io_uuid\":\"" R1 "\"}");
	assert_int_equal(s.error, -EIO);
}

static void test_too_many_files_for_one_answer_are_listed_by_records(void **state)
{
	struct seen s = {0};

	(void)state;
	start_tree(&s);
	answer(next_sent("GET", PAGE_URL), 200,
	       "[" RECORD_JSON(R1, "Pump 7") "," RECORD_JSON(R2, "Pump 8") "]");
	struct sent *sent = next_sent("GET", "/v2/io_showcase/attachments");
	struct transfer_head head = {.status = 200,
				     .content_length = INT64_C(1) << 40,
				     .content_type = "application/json"};
	assert_false(sent->head(sent->ctx, &head));
	answer_error(sent, -EIO, 200);
	sent = &world.sent[world.n_answered++];
	assert_non_null(strstr(sent->url, "/attachments"));
	bool first = strstr(sent->url, R1) != NULL;
	answer(sent, first ? 200 : 404, first ? "[" FILE1_JSON "]" : "");
	assert_int_equal(s.done, 0);
	sent = &world.sent[world.n_answered++];
	answer(sent, first ? 404 : 200, first ? "" : "[" FILE1_JSON "]");
	assert_int_equal(s.done, 1);
	assert_int_equal(s.error, 0);
	assert_string_equal(s.files, "41/file1.txt|");
}

static void test_looks_at_many_records_are_one_call(void **state)
{
	struct seen s[4] = {0};

	(void)state;
	start_record(&s[0], R1);
	start_record(&s[1], R2);
	start_record(&s[2], R3);
	start_record(&s[3], R2);
	answer(next_sent("GET", "/v2/io_showcase/" R1 "/attachments"), 200, "[" FILE1_JSON "]");
	assert_int_equal(s[0].done, 1);
	assert_string_equal(s[0].files, "41/file1.txt|");
	answer(next_sent("GET", "/v2/io_showcase/attachments?uuids=" R2 "," R3), 200,
	       "{\"" R2 "\":[],\"" R3 "\":[" FILE1_JSON "]}");
	assert_int_equal(s[1].done, 1);
	assert_int_equal(s[1].error, 0);
	assert_string_equal(s[1].files, "");
	assert_string_equal(s[2].files, "43/file1.txt|");
	assert_int_equal(s[3].done, 1);
	/* Two of the same. */
	memset(s, 0, sizeof(s));
	start_record(&s[0], R1);
	start_record(&s[1], R2);
	start_record(&s[2], R2);
	answer(next_sent("GET", "/v2/io_showcase/" R1 "/attachments"), 200, "[]");
	answer(next_sent("GET", "/v2/io_showcase/" R2 "/attachments"), 404, "");
	assert_int_equal(s[1].error, -ENOENT);
	assert_int_equal(s[2].error, -ENOENT);
	assert_int_equal(s[2].done, 1);
}

static void test_one_record_that_is_gone_is_found_by_halves(void **state)
{
	struct seen first = {0}, s[4] = {0};
	char uuids[4][SERVICEMAX_UUID_SIZE], url[4][512];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		make_uuid(i + 1, uuids[i]);
	start_record(&first, R1);
	for (int i = 0; i < 4; i++)
		start_record(&s[i], uuids[i]);
	snprintf(url[0], 512, "/v2/io_showcase/attachments?uuids=%s,%s,%s,%s", uuids[0], uuids[1],
		 uuids[2], uuids[3]);
	snprintf(url[1], 512, "/v2/io_showcase/attachments?uuids=%s,%s", uuids[0], uuids[1]);
	snprintf(url[2], 512, "/v2/io_showcase/%s/attachments", uuids[0]);
	snprintf(url[3], 512, "/v2/io_showcase/%s/attachments", uuids[1]);
	answer(next_sent("GET", "/v2/io_showcase/" R1 "/attachments"), 200, "[]");
	answer(next_sent("GET", url[0]), 404, "");
	answer(next_sent("GET", url[1]), 404, "");
	answer(next_sent("GET", url[2]), 404, "");
	answer(next_sent("GET", url[3]), 200, "[]");
	snprintf(url[1], 512, "/v2/io_showcase/attachments?uuids=%s,%s", uuids[2], uuids[3]);
	char both[512];
	snprintf(both, sizeof(both), "{\"%s\":[],\"%s\":[]}", uuids[2], uuids[3]);
	answer(next_sent("GET", url[1]), 200, both);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(s[i].done, 1);
		assert_int_equal(s[i].error, i == 0 ? -ENOENT : 0);
	}
	/* At rest again. */
	start_record(&first, R1);
	first.done = 0;
	answer(next_sent("GET", "/v2/io_showcase/" R1 "/attachments"), 500, "");
	assert_int_equal(first.error, -EIO);
}

/* ---- change ---- */

struct polled {
	int done, error;
	bool changed;
	char cursor[512];
};

static void on_polled(void *ctx, int error, bool changed, const char *cursor)
{
	struct polled *p = ctx;

	p->done++;
	p->error = error;
	p->changed = changed;
	snprintf(p->cursor, sizeof(p->cursor), "%s", cursor ? cursor : "");
}

static struct polled poll_once(const char *cursor, const char *path, int status, const char *body)
{
	struct polled p = {0};

	assert_int_equal(remote->ops->poll(remote, "io_showcase", cursor, on_polled, &p), 0);
	answer(next_sent("GET", path), status, body);
	assert_int_equal(p.done, 1);
	return p;
}

#define FILES_URL "/v2/io_showcase/attachments"
#define NEWEST_URL                                                                                 \
	"/v2/io_showcase?fields=io_uuid,io_updated_on&sort=io_updated_on%20DESC&limit=1&offset=0"

static void test_a_poll_is_one_call_and_sees_versions_and_records(void **state)
{
	static const char one[] = "{\"" R1 "\":[" FILE1_JSON "]}";
	static const char two[] = "{\"" R1 "\":[" FILE_JSON(F1, V2, "file1.txt", "314") "]}";
	struct polled p = poll_once(NULL, FILES_URL, 200, one);

	(void)state;
	assert_true(p.changed);
	p = poll_once(p.cursor, NEWEST_URL, 200, "[" RECORD_JSON(R1, "x") "]");
	assert_false(p.changed);
	p = poll_once(p.cursor, FILES_URL, 200, one);
	assert_false(p.changed);
	p = poll_once(p.cursor, FILES_URL, 200, two);
	assert_true(p.changed);
	p = poll_once(p.cursor, NEWEST_URL, 200, "[" RECORD_JSON(R2, "x") "]");
	assert_true(p.changed);
	p = poll_once(p.cursor, FILES_URL, 200, two);
	assert_false(p.changed);
	struct polled bad = poll_once(p.cursor, FILES_URL, 200, "[]");
	assert_int_equal(bad.error, -EIO);
	/* A cursor of something else begins anew. */
	p = poll_once("2;nonsense", FILES_URL, 200, two);
	assert_true(p.changed);
}

static void test_records_that_cannot_be_sorted_by_change_are_by_creation(void **state)
{
	struct polled p = poll_once(NULL, FILES_URL, 200, "{}");

	(void)state;
	p = poll_once(p.cursor, NEWEST_URL, 400, "");
	assert_int_equal(p.error, 0);
	assert_false(p.changed);
	p = poll_once(p.cursor,
		      "/v2/io_showcase?fields=io_uuid,io_created_on&sort=io_created_on%20DESC&"
		      "limit=1&offset=0",
		      400, "");
	assert_int_equal(p.error, 0);
	p = poll_once(p.cursor, FILES_URL, 200, "{}");
	assert_false(p.changed);
}

/* ---- writing ---- */

static struct remote_change change(const char *id, const char *name)
{
	return (struct remote_change){.collection = "io_showcase",
				      .record = R1,
				      .id = id,
				      .name = name,
				      .known_name = id ? name : NULL,
				      .mtime_ns = REMOTE_TIME_NONE,
				      .fd = -1,
				      .size = 314};
}

#define POST_URL "/v2/io_showcase/" R1 "/attachments"

static int create(struct remote_change *items, size_t n, int *done)
{
	return remote->ops->create(remote, TRANSFER_WRITEBACK, items, n, count_done, done);
}

static void clear_items(struct remote_change *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		remote_file_clear(&items[i].file);
}

static void test_many_files_are_one_post_and_found_by_name_in_the_answer(void **state)
{
	struct remote_change items[] = {change(NULL, "a.txt"), change(NULL, "b.txt"),
					change(NULL, "c.txt")};
	int done = 0;

	(void)state;
	assert_int_equal(create(items, 3, &done), 0);
	struct sent *s = next_sent("POST", POST_URL);
	assert_string_equal(s->filenames, "a.txt|b.txt|c.txt|");
	assert_false(s->idempotent);
	answer(s, 200,
	       "[" FILE_JSON(F2, V2, "b.txt", "314") "," FILE_JSON(F1, V1, "a.txt", "314") "]");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_DONE);
	assert_string_equal(items[0].file.id, F1);
	assert_string_equal(items[1].file.id, F2);
	assert_string_equal(items[1].file.record, R1);
	assert_int_equal(items[1].file.size, 314);
	/* It said yes but not of this one: look. */
	assert_int_equal(items[2].outcome, REMOTE_UNKNOWN);
	assert_null(items[2].file.id);
	clear_items(items, 3);
}

static void test_a_file_kept_under_another_name_is_not_done(void **state)
{
	struct remote_change item = change(NULL, "a.text");
	int done = 0;

	(void)state;
	assert_int_equal(create(&item, 1, &done), 0);
	answer(next_sent("POST", POST_URL), 200, "[" FILE_JSON(F1, V1, "a.txt", "314") "]");
	assert_int_equal(done, 1);
	assert_int_equal(item.outcome, REMOTE_REFUSED);
	assert_int_equal(item.error, -EEXIST);
	assert_non_null(strstr(item.message, "'a.txt'"));
	assert_string_equal(item.file.id, F1);
	clear_items(&item, 1);
}

static void test_a_version_that_a_name_of_another_case_became_is_taken_back(void **state)
{
	int done = 0;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct remote_change items[] = {change(NULL, "A.txt"), change(NULL, "b.txt")};
		assert_int_equal(create(items, 2, &done), 0);
		answer(next_sent("POST", POST_URL), 200,
		       "[" FILE_JSON(F1, V1, "a.txt", "314") "," FILE_JSON(F2, V2, "b.txt",
									   "314") "]");
		assert_int_equal(done, i);
		answer(next_sent("DELETE", POST_URL "?names=a.txt&version=latest"), i ? 500 : 204,
		       "");
		assert_int_equal(done, i + 1);
		assert_int_equal(items[0].outcome, REMOTE_REFUSED);
		assert_int_equal(items[0].error, -EEXIST);
		assert_non_null(strstr(items[0].message, "'a.txt'"));
		assert_int_equal(strstr(items[0].message, "until then") != NULL, i);
		assert_int_equal(items[1].outcome, REMOTE_DONE);
		clear_items(items, 2);
	}
}

static void test_names_that_differ_in_case_do_not_share_a_post(void **state)
{
	struct remote_change items[] = {change(NULL, "a.txt"), change(NULL, "A.TXT")};
	int done = 0;

	(void)state;
	assert_int_equal(create(items, 2, &done), 0);
	struct sent *s = next_sent("POST", POST_URL);
	assert_string_equal(s->filenames, "a.txt|");
	answer(s, 200, "[" FILE_JSON(F1, V1, "a.txt", "314") "]");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_DONE);
	assert_int_equal(items[1].outcome, REMOTE_RETRY);
	clear_items(items, 2);
}

static void test_an_upload_that_arrived_short_is_not_done(void **state)
{
	struct remote_change item = change(NULL, "a.txt");
	int done = 0;

	(void)state;
	assert_int_equal(create(&item, 1, &done), 0);
	answer(next_sent("POST", POST_URL), 200, "[" FILE_JSON(F1, V1, "a.txt", "300") "]");
	assert_int_equal(item.outcome, REMOTE_REFUSED);
	assert_int_equal(item.error, -EIO);
	clear_items(&item, 1);
}

static void test_an_upload_without_an_answer_is_unknown(void **state)
{
	struct remote_change item = change(NULL, "a.txt");
	int done = 0;

	(void)state;
	assert_int_equal(create(&item, 1, &done), 0);
	answer_error(next_sent("POST", POST_URL), -ECONNRESET, 0);
	assert_int_equal(item.outcome, REMOTE_UNKNOWN);
	assert_int_equal(create(&item, 1, &done), 0);
	answer(next_sent("POST", POST_URL), 500, "");
	assert_int_equal(item.outcome, REMOTE_UNKNOWN);
	assert_int_equal(create(&item, 1, &done), 0);
	answer(next_sent("POST", POST_URL), 200, "nonsense");
	assert_int_equal(item.outcome, REMOTE_UNKNOWN);
	assert_int_equal(create(&item, 1, &done), 0);
	answer(next_sent("POST", POST_URL), 404, "{\"message\":\"not found\"}");
	assert_int_equal(item.outcome, REMOTE_REFUSED);
	assert_int_equal(item.error, -ENOENT);
	assert_int_equal(done, 4);
}

static void test_one_bad_file_of_many_is_found_by_sending_each(void **state)
{
	struct remote_change items[] = {change(NULL, "a.txt"), change(NULL, "b.txt")};
	int done = 0;

	(void)state;
	assert_int_equal(create(items, 2, &done), 0);
	answer(next_sent("POST", POST_URL), 413, "");
	struct sent *a = next_sent("POST", POST_URL), *b = next_sent("POST", POST_URL);
	assert_string_equal(a->filenames, "a.txt|");
	assert_string_equal(b->filenames, "b.txt|");
	answer(b, 413, "");
	assert_int_equal(done, 0);
	answer(a, 200, "[" FILE_JSON(F1, V1, "a.txt", "314") "]");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_DONE);
	assert_int_equal(items[1].outcome, REMOTE_REFUSED);
	assert_int_equal(items[1].error, -EFBIG);
	clear_items(items, 2);
}

static void test_names_that_cannot_go_out_do_not(void **state)
{
	struct remote_change items[] = {change(NULL, "a,b"), change(NULL, "c"), change(NULL, "c")};
	int done = 0;

	(void)state;
	assert_int_equal(create(items, 3, &done), 0);
	struct sent *s = next_sent("POST", POST_URL);
	assert_string_equal(s->filenames, "c|"); /* never twice (S-15) */
	answer(s, 200, "[" FILE_JSON(F1, V1, "c", "314") "]");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_REFUSED);
	assert_int_equal(items[0].error, -EINVAL);
	assert_int_equal(items[1].outcome, REMOTE_DONE);
	assert_int_equal(items[2].outcome, REMOTE_RETRY);
	clear_items(items, 3);
	/* None at all: done comes all the same. */
	assert_int_equal(create(items, 1, &done), 0);
	assert_int_equal(done, 2);
	/* Ids that must not get into a URL. */
	items[1].record = "../x";
	assert_int_equal(create(&items[1], 1, &done), -EINVAL);
	items[1] = change(NULL, "c");
	items[1].collection = "a/b";
	assert_int_equal(create(&items[1], 1, &done), -EINVAL);
	assert_int_equal(done, 2);
}

static void test_quotes_in_names_are_quoted_as_mime_has_it(void **state)
{
	struct remote_change item = change(NULL, "a \"b\".txt");
	int done = 0;

	(void)state;
	assert_int_equal(create(&item, 1, &done), 0);
	struct sent *s = next_sent("POST", POST_URL);
	assert_string_equal(s->filenames,
			    "form-data; name=\"file\"; filename=\"a \\\"b\\\".txt\"|");
	answer(s, 200, "[" FILE_JSON(F1, V1, "a \\\"b\\\".txt", "314") "]");
	assert_int_equal(item.outcome, REMOTE_DONE);
	clear_items(&item, 1);
}

static void test_large_files_do_not_share_a_post(void **state)
{
	struct remote_change items[] = {change(NULL, "a"), change(NULL, "b"), change(NULL, "c")};
	int done = 0;

	(void)state;
	items[0].size = items[1].size = 40u << 20;
	assert_int_equal(create(items, 3, &done), 0);
	struct sent *first = next_sent("POST", POST_URL), *second = next_sent("POST", POST_URL);
	assert_string_equal(first->filenames, "a|");
	assert_string_equal(second->filenames, "b|c|");
	answer(first, 429, "");
	answer(second, 429, "");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_RETRY);
}

static void test_a_replacement_goes_to_the_document_under_its_name(void **state)
{
	struct remote_change items[] = {change(F1, "file1.txt"), change(F2, "b.txt")};
	int done = 0;

	(void)state;
	items[0].version = V1;
	assert_int_equal(
		remote->ops->replace(remote, TRANSFER_WRITEBACK, items, 2, count_done, &done), 0);
	struct sent *s = next_sent("POST", POST_URL "?document_id=" F1);
	struct sent *t = next_sent("POST", POST_URL "?document_id=" F2);
	assert_string_equal(s->filenames, "file1.txt|");
	answer(s, 200, "[" FILE_JSON(F1, V2, "file1.txt", "314") "]");
	answer(t, 404, "{\"message\":\"The document was not found\"}");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_DONE);
	assert_string_equal(items[0].file.version, V2);
	assert_int_equal(items[1].outcome, REMOTE_GONE);
	assert_int_equal(items[1].error, -ENOENT);
	clear_items(items, 2);
}

static int remove_items(struct remote_change *items, size_t n, int *done)
{
	return remote->ops->remove(remote, TRANSFER_WRITEBACK, items, n, count_done, done);
}

static void test_many_deletions_are_one_call_by_name(void **state)
{
	struct remote_change items[] = {change(F1, "a b.txt"), change(F2, "c&d"),
					change(F2, "e,f")};
	int done = 0;

	(void)state;
	assert_int_equal(remove_items(items, 3, &done), 0);
	answer(next_sent("DELETE", POST_URL "?names=a%20b.txt,c%26d&version=all"), 204, "");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_DONE);
	assert_int_equal(items[1].outcome, REMOTE_DONE);
	assert_int_equal(items[2].outcome, REMOTE_REFUSED);
	assert_int_equal(items[2].error, -EPERM);
	/* The path is known now: a 404 is about the names. */
	assert_int_equal(remove_items(items, 2, &done), 0);
	answer(next_sent("DELETE", POST_URL "?names=a%20b.txt,c%26d&version=all"), 404, "");
	assert_int_equal(items[0].outcome, REMOTE_REFUSED);
	assert_int_equal(items[0].error, -ENOENT);
	assert_int_equal(remove_items(items, 1, &done), 0);
	answer(next_sent("DELETE", POST_URL "?names=a%20b.txt&version=all"), 404, "");
	assert_int_equal(items[0].outcome, REMOTE_GONE);
	assert_int_equal(items[0].error, 0);
	assert_int_equal(done, 3);
}

#define SINGULAR_URL "/v2/io_showcase/" R1 "/attachment?names=a&version=all"
#define PLURAL_URL   "/v2/io_showcase/" R1 "/attachments?names=a&version=all"

static void test_the_other_path_of_deletions_is_tried_and_remembered(void **state)
{
	struct remote_change item = change(F1, "a");
	int done = 0;

	(void)state;
	/* Nothing learnt of two refusals. */
	assert_int_equal(remove_items(&item, 1, &done), 0);
	answer(next_sent("DELETE", PLURAL_URL), 404, "");
	answer(next_sent("DELETE", SINGULAR_URL), 404, "");
	assert_int_equal(item.outcome, REMOTE_GONE);
	assert_int_equal(remove_items(&item, 1, &done), 0);
	answer(next_sent("DELETE", PLURAL_URL), 405, "");
	answer(next_sent("DELETE", SINGULAR_URL), 200, "[]");
	assert_int_equal(item.outcome, REMOTE_DONE);
	assert_int_equal(remove_items(&item, 1, &done), 0);
	answer(next_sent("DELETE", SINGULAR_URL), 404, "");
	assert_int_equal(item.outcome, REMOTE_GONE);
	assert_int_equal(done, 3);
}

static void test_a_path_that_is_none_tells_nothing_of_the_file(void **state)
{
	struct remote_change item = change(F1, "a");
	int done = 0;

	(void)state;
	assert_int_equal(remove_items(&item, 1, &done), 0);
	answer(next_sent("DELETE", PLURAL_URL), 404, "");
	answer(next_sent("DELETE", SINGULAR_URL), 405, "");
	assert_int_equal(item.outcome, REMOTE_GONE);
	assert_int_equal(remove_items(&item, 1, &done), 0);
	answer(next_sent("DELETE", PLURAL_URL), 404, "");
	assert_int_equal(item.outcome, REMOTE_GONE);
	assert_int_equal(done, 2);
}

static void test_a_path_learned_meanwhile_does_not_make_a_wrong_one_right(void **state)
{
	struct remote_change a = change(F1, "a"), b = change(F1, "b");
	int done = 0;

	(void)state;
	assert_int_equal(remove_items(&a, 1, &done), 0);
	struct sent *first = next_sent("DELETE", PLURAL_URL);
	assert_int_equal(remove_items(&b, 1, &done), 0);
	struct sent *second =
		next_sent("DELETE", "/v2/io_showcase/" R1 "/attachments?names=b&version=all");
	answer(first, 404, "");
	answer(next_sent("DELETE", SINGULAR_URL), 200, "[]");
	/* That there is no such path says nothing of b. */
	answer(second, 404, "");
	answer(next_sent("DELETE", "/v2/io_showcase/" R1 "/attachment?names=b&version=all"), 200,
	       "[]");
	assert_int_equal(b.outcome, REMOTE_DONE);
	assert_int_equal(done, 2);
}

static void test_long_names_are_deleted_in_several_calls(void **state)
{
	struct remote_change items[40];
	char names[40][256];
	int done = 0;

	(void)state;
	for (int i = 0; i < 40; i++) {
		snprintf(names[i], sizeof(names[i]), "%0200d", i);
		items[i] = change(F1, names[i]);
	}
	assert_int_equal(remove_items(items, 40, &done), 0);
	assert_true(world.n_sent > 1 && world.n_sent < 10);
	while (world.n_answered < world.n_sent) {
		struct sent *s = &world.sent[world.n_answered++];
		assert_true(strlen(s->url) < 8000);
		assert_int_equal(done, 0);
		answer(s, 200, "");
	}
	assert_int_equal(done, 1);
	for (int i = 0; i < 40; i++)
		assert_int_equal(items[i].outcome, REMOTE_DONE);
}

static void test_a_guarded_server_gets_its_token(void **state)
{
	struct remote_change items[] = {change(F1, "a"), change(F2, "b")};
	int done = 0;

	(void)state;
	assert_int_equal(remove_items(&items[0], 1, &done), 0);
	assert_int_equal(remove_items(&items[1], 1, &done), 0);
	struct sent *a = next_sent("DELETE", PLURAL_URL);
	struct sent *b = next_sent("DELETE", POST_URL "?names=b&version=all");
	assert_null(a->csrf);
	answer(a, 403, "{\"type\":\"csrf_error\",\"message\":\"no\"}");
	answer(b, 403, "{\"message\":\"The CSRF token is missing\"}");
	/* One script for both. */
	answer(next_sent("GET", "/resources/js/csrf_script"), 200, "var csrfToken='abcdef012345';");
	struct sent *again[] = {&world.sent[world.n_answered++], &world.sent[world.n_answered++]};
	for (int i = 0; i < 2; i++) {
		assert_string_equal(again[i]->method, "DELETE");
		assert_string_equal(again[i]->csrf, "abcdef012345");
	}
	answer(again[0], 200, "");
	/* Once again is enough. */
	answer(again[1], 403, "{\"message\":\"The CSRF token is missing\"}");
	assert_int_equal(done, 2);
	assert_int_equal(items[0].outcome + items[1].outcome, REMOTE_DONE + REMOTE_REFUSED);
	/* From now on it goes along. */
	assert_int_equal(remove_items(&items[0], 1, &done), 0);
	a = next_sent("DELETE", PLURAL_URL);
	assert_string_equal(a->csrf, "abcdef012345");
	answer(a, 200, "");
	assert_int_equal(done, 3);
}

static void test_a_script_without_a_token_is_said(void **state)
{
	struct remote_change item = change(F1, "a");
	int done = 0;

	(void)state;
	assert_int_equal(remove_items(&item, 1, &done), 0);
	answer(next_sent("DELETE", PLURAL_URL), 403, "{\"message\":\"CSRF\"}");
	answer(next_sent("GET", "/resources/js/csrf_script"), 404, "");
	assert_int_equal(item.outcome, REMOTE_REFUSED);
	assert_int_equal(item.error, -EACCES);
	assert_non_null(strstr(item.message, "CSRF"));
	assert_int_equal(done, 1);
}

/* ---- bytes ---- */

/* For what another thread brings. */
static void wait_for(const int *value, int expected)
{
	for (int i = 0; i < 500 && *(const volatile int *)value != expected; i++)
		usleep(10000);
	assert_int_equal(*value, expected);
}

struct fetched {
	char bytes[64];
	int done, error;
	int64_t total;
};

static bool on_begin(void *ctx, int64_t total, uint64_t offset)
{
	struct fetched *f = ctx;

	assert_int_equal(offset, 0);
	f->total = total;
	return true;
}

static bool on_bytes(void *ctx, const void *data, size_t len)
{
	struct fetched *f = ctx;

	strncat(f->bytes, data, len);
	return true;
}

static void on_fetched(void *ctx, int error)
{
	struct fetched *f = ctx;

	f->done++;
	f->error = error;
}

static struct fetched start_fetch(struct fetched *f, const char *url)
{
	struct remote_fetch_sink sink = {on_begin, on_bytes, on_fetched, f};
	struct remote_file file = {.id = (char *)F1,
				   .record = (char *)R1,
				   .version = (char *)V1,
				   .url = (char *)url,
				   .size = 4};
	uint64_t id;

	memset(f, 0, sizeof(*f));
	assert_int_equal(remote->ops->fetch(remote, TRANSFER_INTERACTIVE, &file, "io_showcase", 0,
					    0, 0, &sink, &id),
			 0);
	return *f;
}

#define DOCUMENT "/document/" F1 "/latest"

static void test_bytes_come_from_the_link_with_the_credential(void **state)
{
	struct fetched f;

	(void)state;
	start_fetch(&f, HOST DOCUMENT "?1772352930120");
	struct sent *s = next_sent("GET", DOCUMENT "?1772352930120");
	assert_string_equal(s->credential, "Authorization: Bearer token-of-the-unit-test");
	answer(s, 200, "abcd");
	assert_int_equal(f.error, 0);
	assert_string_equal(f.bytes, "abcd");
	/* The latest is not what was listed. */
	start_fetch(&f, NULL);
	answer(next_sent("GET", DOCUMENT), 200, "abcdefgh");
	assert_int_equal(f.error, -ESTALE);
	assert_string_equal(f.bytes, "");
	start_fetch(&f, NULL);
	answer(next_sent("GET", DOCUMENT), 404, "");
	assert_int_equal(f.error, -ENOENT);
}

static void test_a_server_that_refuses_the_credential_gets_none_from_then_on(void **state)
{
	struct fetched f;

	(void)state;
	start_fetch(&f, NULL);
	answer(next_sent("GET", DOCUMENT), 400, "");
	struct sent *s = next_sent("GET", DOCUMENT);
	assert_null(s->credential);
	answer(s, 200, "abcd");
	assert_string_equal(f.bytes, "abcd");
	start_fetch(&f, NULL);
	s = next_sent("GET", DOCUMENT);
	assert_null(s->credential);
	/* Until it wants it after all. */
	answer(s, 401, "");
	s = next_sent("GET", DOCUMENT);
	assert_non_null(s->credential);
	answer(s, 200, "abcd");
	assert_int_equal(f.error, 0);
	start_fetch(&f, NULL);
	s = next_sent("GET", DOCUMENT);
	assert_non_null(s->credential);
	answer(s, 400, "");
	answer(next_sent("GET", DOCUMENT), 400, "");
	assert_int_equal(f.done, 1);
	assert_int_equal(f.error, -EIO);
}

static void test_a_token_may_be_called_invalid_by_any_status(void **state)
{
	struct fetched f;

	(void)state;
	start_fetch(&f, NULL);
	answer(next_sent("GET", DOCUMENT), 400, "{\"message\":\"Invalid Token\"}");
	wait_for(&f.done, 1);
	assert_int_equal(f.error, -EACCES);
}

/* ---- questions ---- */

static char said[1024];

static void on_said(void *ctx, int error, const char *message)
{
	*(int *)ctx = error;
	snprintf(said, sizeof(said), "%s", message);
}

static void on_text(void *ctx, int error, const char *text, size_t len, const char *message)
{
	(void)message;
	*(int *)ctx = error;
	snprintf(said, sizeof(said), "%.*s", (int)len, text ? text : "");
}

#define USER_URL "/v2/user?fields=io_username,io_email"

static void test_a_probe_says_who_i_am(void **state)
{
	int error = 1;

	(void)state;
	assert_int_equal(remote->ops->probe(remote, TRANSFER_INTERACTIVE, on_said, &error), 0);
	answer(next_sent("GET", USER_URL), 200,
	       "{\"io_username\": \"mount\", \"io_email\": \"mount@example.org\"}");
	assert_int_equal(error, 0);
	assert_string_equal(said, "ServiceMax at max.example.com, as mount");
	assert_int_equal(remote->ops->probe(remote, TRANSFER_INTERACTIVE, on_said, &error), 0);
	answer(next_sent("GET", USER_URL), 200, "17");
	assert_int_equal(error, -EIO);
	/* Some say 401 by another status. */
	assert_int_equal(remote->ops->probe(remote, TRANSFER_INTERACTIVE, on_said, &error), 0);
	answer(next_sent("GET", USER_URL), 400, "{\"message\":\"Invalid Token\"}");
	wait_for(&error, -EACCES);
}

static void test_a_record_is_shown_as_it_is(void **state)
{
	int error = 1;

	(void)state;
	assert_int_equal(remote->ops->record_json(remote, "io_showcase", R1, on_text, &error), 0);
	answer(next_sent("GET", "/v2/io_showcase/" R1), 200, "{\"io_uuid\":\"" R1 "\"}");
	assert_int_equal(error, 0);
	assert_string_equal(said, "{\n  \"io_uuid\": \"" R1 "\"\n}\n");
	assert_int_equal(remote->ops->record_json(remote, "io_showcase", R1, on_text, &error), 0);
	answer(next_sent("GET", "/v2/io_showcase/" R1), 404, "");
	assert_int_equal(error, -ENOENT);
	assert_int_equal(remote->ops->record_json(remote, "io_showcase", "x", on_text, &error),
			 -EINVAL);
}

static char findings[4096];

static void on_finding(void *ctx, enum remote_verdict verdict, const char *topic, const char *text)
{
	(void)ctx;
	snprintf(findings + strlen(findings), sizeof(findings) - strlen(findings), "%d %s: %s\n",
		 (int)verdict, topic, text);
}

static void test_a_check_tells_what_can_be_seen(void **state)
{
	int done = 0;

	(void)state;
	findings[0] = '\0';
	assert_int_equal(remote->ops->check(remote, on_finding, count_done, &done), 0);
	answer(next_sent("GET", USER_URL), 200, "{\"io_username\": \"mount\"}");
	answer(next_sent("GET", "/v2/io_showcase/count"), 200, "12");
	answer(next_sent("GET", "/v2/io_showcase/attachments"), 200,
	       "{\"" R1 "\":[" FILE1_JSON "]}");
	answer(next_sent("GET", "/v2/io_user/count"), 404, "");
	answer(next_sent("GET", "/v2/io_user/attachments"), 404, "{\"message\":\"no such\"}");
	assert_int_equal(done, 1);
	assert_non_null(strstr(findings, "user: mount"));
	assert_non_null(
		strstr(findings, "io_showcase: 12 records; 1 files of 1 records, 314 bytes"));
	assert_non_null(strstr(findings, "2 io_user: its attachments cannot be listed: no such"));
}

static void test_what_a_server_cannot_do_is_known_beforehand(void **state)
{
	(void)state;
	assert_int_equal(remote->ops->may(remote, REMOTE_CREATES, "io_user", NULL, "a,b"), -EINVAL);
	assert_int_equal(remote->ops->may(remote, REMOTE_RENAMES, "io_user", "io_user", "a,b"),
			 -EINVAL);
	assert_int_equal(remote->ops->may(remote, REMOTE_REMOVES, "io_user", NULL, "a,b"), -EPERM);
	assert_int_equal(remote->ops->may(remote, REMOTE_CREATES, "io_user", NULL, "ab"), 0);
	assert_int_equal(remote->ops->may(remote, REMOTE_CREATES, "io_user", NULL, NULL), 0);
}

static void test_objects_must_be_given_and_be_identifiers(void **state)
{
	struct options options = {.system = OPTIONS_SYSTEM_SERVICEMAX,
				  .base_url = (char *)HOST,
				  .mountpoint = (char *)"/mnt"};
	struct remote *r = NULL;
	char message[256];

	(void)state;
	assert_int_equal(remote_new(&options, NULL, NULL, &r, message, sizeof(message)), -EINVAL);
	assert_non_null(strstr(message, "collections=io_showcase"));
	options.collections = (char *)"io_showcase:a/b";
	assert_int_equal(remote_new(&options, NULL, NULL, &r, message, sizeof(message)), -EINVAL);
	assert_non_null(strstr(message, "'a/b'"));
}

/* ---- logins ---- */

static int begin_password(void **state)
{
	(void)state;
	return make_remote(true, true);
}

static int begin_password_without_id(void **state)
{
	(void)state;
	return make_remote(true, false);
}

/* At the end what is left of a session is revoked, on this thread, which nobody answers: by another. */
static void *revoking(void *arg)
{
	const char *const *forms = arg;

	for (size_t i = 0; forms[i]; i++) {
		struct sent *s = next_sent("POST", "/sec/auth/token/revoke");
		assert_string_equal(s->body, forms[i]);
		assert_null(s->credential);
		answer(s, 200, "");
	}
	return NULL;
}

static void end_session(const char *const *forms)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, revoking, (void *)forms), 0);
	remote_free(remote);
	remote = NULL;
	pthread_join(thread, NULL);
}

#define GRANT                                                                                      \
	"{\"access_token\": \"2YotnFZFEjr1zCsicMWpAA\", \"token_type\": \"bearer\", "              \
	"\"expires_in\": 86400, \"refresh_token\": \"tGzv3JOkF0XG5Qx2TlKWIA\"}"

static void test_a_password_is_traded_for_a_token_and_that_refreshed_and_revoked(void **state)
{
	static const char *const forms[] = {
		"token=third-refresh&client_id=the-client&token_type_hint=refresh_token",
		"token=third-token&client_id=the-client&token_type_hint=access_token", NULL};
	int error = 1;

	(void)state;
	assert_int_equal(remote->ops->probe(remote, TRANSFER_INTERACTIVE, on_said, &error), 0);
	struct sent *s = next_sent("POST", "/sec/auth/token");
	assert_string_equal(s->body, "grant_type=password&username=mount&password=pass%20word%26&"
				     "client_id=the-client");
	assert_null(s->credential);
	answer(s, 200, GRANT);
	s = next_sent("GET", USER_URL);
	assert_string_equal(s->credential, "Authorization: Bearer 2YotnFZFEjr1zCsicMWpAA");
	/* Expired; a token is not replaced at once after it was given. */
	world.now_ms += 60000;
	answer(s, 401, "{\"error\":\"invalid_token\"}");
	s = next_sent("POST", "/sec/auth/token");
	assert_string_equal(s->body, "grant_type=refresh_token&client_id=the-client&"
				     "refresh_token=tGzv3JOkF0XG5Qx2TlKWIA");
	/* Refused: the password again. */
	answer(s, 401,
	       "{\"error\": \"invalid_token\", \"error_description\": \"invalid token provided\"}");
	s = next_sent("POST", "/sec/auth/token");
	assert_memory_equal(s->body, "grant_type=password", 19);
	answer(s, 200,
	       "{\"access_token\":\"third-token\",\"refresh_token\":\"third-refresh\","
	       "\"expires_in\":\"60\"}");
	s = next_sent("GET", USER_URL);
	assert_string_equal(s->credential, "Authorization: Bearer third-token");
	answer(s, 200, "{}");
	wait_for(&error, 0);
	end_session(forms);
}

static void test_the_client_id_is_asked_for(void **state)
{
	static const char *const forms[] = {
		"token=2YotnFZFEjr1zCsicMWpAA&client_id=found&token_type_hint=access_token", NULL};
	int error = 1;

	(void)state;
	assert_int_equal(remote->ops->probe(remote, TRANSFER_INTERACTIVE, on_said, &error), 0);
	answer_with(next_sent("GET", "/oauth/client"), 200, "", "X-Client-Id", "found");
	/* The two pages do not agree on where tokens are (S-17). */
	answer(next_sent("POST", "/sec/auth/token"), 404, "");
	struct sent *s = next_sent("POST", "/auth/token");
	assert_non_null(strstr(s->body, "client_id=found"));
	answer(s, 200, "{\"access_token\": \"2YotnFZFEjr1zCsicMWpAA\"}");
	answer(next_sent("GET", USER_URL), 200, "{}");
	wait_for(&error, 0);
	((struct servicemax *)remote)->other_token_path = false; /* as revoking() expects it */
	end_session(forms);
}

static void test_a_client_id_that_cannot_be_found_out_is_asked_of_the_user(void **state)
{
	int error = 1;

	(void)state;
	assert_int_equal(remote->ops->probe(remote, TRANSFER_INTERACTIVE, on_said, &error), 0);
	answer(next_sent("GET", "/oauth/client"), 404, "");
	/* Without a refresh token it is the password, and that is the end of it. */
	wait_for(&error, -EACCES);
	assert_non_null(strstr(said, "client_id="));
}

static void test_a_refused_password_is_said(void **state)
{
	int error = 1;

	(void)state;
	assert_int_equal(remote->ops->probe(remote, TRANSFER_INTERACTIVE, on_said, &error), 0);
	answer(next_sent("POST", "/sec/auth/token"), 400,
	       "{\"error\":\"invalid_grant\",\"error_description\":\"wrong password\"}");
	wait_for(&error, -EACCES);
	assert_non_null(strstr(said, "wrong password"));
}

/* The server said yes, and the connection broke before it had said to what. */
static void test_a_login_that_was_cut_short_does_not_blame_the_password(void **state)
{
	char message[256];
	int error = 1;

	(void)state;
	assert_int_equal(remote->ops->probe(remote, TRANSFER_INTERACTIVE, on_said, &error), 0);
	answer_error(next_sent("POST", "/sec/auth/token"), -ECONNRESET, 200);
	wait_for(&error, -EIO);
	assert_int_not_equal(remote_get_auth(remote, message), REMOTE_AUTH_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_attachment_is_read_whole),
		cmocka_unit_test(test_numbers_may_be_strings_or_numbers),
		cmocka_unit_test(test_an_attachment_may_lack_what_can_be_done_without),
		cmocka_unit_test(test_only_files_are_files),
		cmocka_unit_test(test_what_cannot_be_understood_fails_the_list),
		cmocka_unit_test(test_records_are_read_and_a_nameless_one_is_its_uuid),
		cmocka_unit_test(test_records_of_nonsense_fail_the_list),
		cmocka_unit_test(test_a_sum_of_files_does_not_depend_on_their_order),
		cmocka_unit_test(test_outcomes_follow_from_what_is_known_to_have_happened),
		cmocka_unit_test(test_names_with_commas_cannot_be_made_nor_deleted),
		cmocka_unit_test(test_forms_and_names_are_escaped),
		cmocka_unit_test(test_a_csrf_token_is_found_in_many_scripts),
		cmocka_unit_test(test_a_set_holds_what_was_put_into_it),
		cmocka_unit_test(test_objects_are_named_by_identifiers),
		cmocka_unit_test(test_pages_are_read_to_their_end),
		cmocka_unit_test(test_records_deleted_between_pages_make_none_be_skipped),
		cmocka_unit_test(test_pages_that_cannot_be_trusted_are_an_error),
		cmocka_unit_test(test_records_that_are_counted_but_hidden_end_the_list),
		cmocka_unit_test(test_objects_must_be_given_and_be_identifiers),
		CALL_TEST(test_a_tree_is_two_calls),
		CALL_TEST(test_a_record_made_in_between_is_asked_for_by_itself),
		CALL_TEST(test_many_records_made_in_between_are_listed_again),
		CALL_TEST(test_an_object_without_the_usual_fields_is_asked_for_fewer),
		CALL_TEST(test_a_listing_of_nonsense_is_not_whole),
		CALL_TEST(test_too_many_files_for_one_answer_are_listed_by_records),
		CALL_TEST(test_looks_at_many_records_are_one_call),
		CALL_TEST(test_one_record_that_is_gone_is_found_by_halves),
		CALL_TEST(test_a_poll_is_one_call_and_sees_versions_and_records),
		CALL_TEST(test_records_that_cannot_be_sorted_by_change_are_by_creation),
		CALL_TEST(test_a_version_that_a_name_of_another_case_became_is_taken_back),
		CALL_TEST(test_names_that_differ_in_case_do_not_share_a_post),
		CALL_TEST(test_many_files_are_one_post_and_found_by_name_in_the_answer),
		CALL_TEST(test_a_file_kept_under_another_name_is_not_done),
		CALL_TEST(test_an_upload_that_arrived_short_is_not_done),
		CALL_TEST(test_an_upload_without_an_answer_is_unknown),
		CALL_TEST(test_one_bad_file_of_many_is_found_by_sending_each),
		CALL_TEST(test_names_that_cannot_go_out_do_not),
		CALL_TEST(test_quotes_in_names_are_quoted_as_mime_has_it),
		CALL_TEST(test_large_files_do_not_share_a_post),
		CALL_TEST(test_a_replacement_goes_to_the_document_under_its_name),
		CALL_TEST(test_many_deletions_are_one_call_by_name),
		CALL_TEST(test_the_other_path_of_deletions_is_tried_and_remembered),
		CALL_TEST(test_a_path_that_is_none_tells_nothing_of_the_file),
		CALL_TEST(test_a_path_learned_meanwhile_does_not_make_a_wrong_one_right),
		CALL_TEST(test_long_names_are_deleted_in_several_calls),
		CALL_TEST(test_a_guarded_server_gets_its_token),
		CALL_TEST(test_a_script_without_a_token_is_said),
		CALL_TEST(test_bytes_come_from_the_link_with_the_credential),
		CALL_TEST(test_a_server_that_refuses_the_credential_gets_none_from_then_on),
		CALL_TEST(test_a_token_may_be_called_invalid_by_any_status),
		CALL_TEST(test_a_probe_says_who_i_am),
		CALL_TEST(test_a_record_is_shown_as_it_is),
		CALL_TEST(test_a_check_tells_what_can_be_seen),
		CALL_TEST(test_what_a_server_cannot_do_is_known_beforehand),
		cmocka_unit_test_setup_teardown(
			test_a_password_is_traded_for_a_token_and_that_refreshed_and_revoked,
			begin_password, end_world),
		cmocka_unit_test_setup_teardown(test_the_client_id_is_asked_for,
						begin_password_without_id, end_world),
		cmocka_unit_test_setup_teardown(
			test_a_client_id_that_cannot_be_found_out_is_asked_of_the_user,
			begin_password_without_id, end_world),
		cmocka_unit_test_setup_teardown(
			test_a_login_that_was_cut_short_does_not_blame_the_password, begin_password,
			end_world),
		cmocka_unit_test_setup_teardown(test_a_refused_password_is_said, begin_password,
						end_world),
	};

	log_open("/dev/null", LOG_LEVEL_DEBUG);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
