/* SPDX-License-Identifier: MIT */

/*
 * The Enterprise Tester client. Its pure parts: the examples of reference/enterprise-tester.md are
 * read, what it shows is written, and the traps are held to. And its calls, with an engine, a pool
 * and a clock that stand here: what is sent is looked at and answered by the test, on its own thread.
 */

#include <errno.h>
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

#include "../../api/enterprise_tester.h"
#include "../../api/json.h"

#define R1  "7c1a0f5e-6b1c-4a55-9d0a-a04501700001"
#define R2  "7c1a0f5e-6b1c-4a55-9d0a-a04501700002"
#define A1  "b2f40b11-8d3a-4c1f-9a77-a04501800001"
#define A2  "c9e1d7aa-2f0b-4a61-b1de-a04501800002"
#define NIL "00000000-0000-0000-0000-000000000000"

static json_t *parse(const char *text)
{
	json_t *root = json_parse(text, strlen(text), NULL, 0);

	assert_non_null(root);
	return root;
}

/* Section 2. */
static const char requirements_json[] =
	"{\"Skip\": 0, \"Top\": 100, \"Total\": 1, \"Items\": ["
	"{\"Id\": \"" R1 "\", \"Name\": \"Login works\", \"Number\": 12, \"ProjectName\": \"P\","
	"\"PackageName\": \"Auth\", \"ProjectId\": \"1f6d2c80-3e43-4b0e-9c55-a04501700002\","
	"\"PackageId\": \"9d3b7a1c-5a0f-4f9e-8d11-a04501700003\", \"VersionNumber\": 3,"
	"\"CreatedAt\": \"2026-02-01T08:00:00Z\", \"LastUpdatedAt\": \"2026-03-01T08:15:30Z\","
	"\"HasAttachments\": true, \"Links\": [], \"Expands\": [],"
	"\"Self\": \"http://et.example/et/api/requirement/" R1 "\", \"Attachments\": ["
	"{\"Id\": \"" A1 "\", \"RequirementId\": \"" R1 "\", \"Name\": \"Login screen\","
	"\"FileName\": \"login.png\", \"ContentType\": \"image/png\","
	"\"CreatedAt\": \"2026-03-01T08:15:30Z\", \"Size\": 122454,"
	"\"CreatedById\": \"2b364daa-0dff-4a6f-8554-f5963d3011be\"}]}]}";

/* Section 5. */
static const char created_json[] =
	"[{\"Id\": \"" A2 "\", \"RequirementId\": \"" R1 "\", \"Name\": \"notes\","
	"\"FileName\": \"notes.txt\", \"ContentType\": \"text/plain\","
	"\"CreatedAt\": \"2026-03-02T10:00:00Z\", \"Size\": 3,"
	"\"Content\": \"http://et.example/et/api/attachment/" NIL "/contents\"}]";

/* decoding */

static void test_requirements_are_read_with_their_attachments(void **state)
{
	json_t *root = parse(requirements_json);
	const json_t *row = json_array_get(et_rows(root), 0);
	const struct et_collection *c = et_find_collection("requirements");
	struct et_page page = {0};
	char id[REMOTE_ID_MAX + 1];
	int64_t ns;

	(void)state;
	assert_int_equal(et_decode_record(c, row, NULL, 0, &page, id), 0);
	assert_string_equal(id, R1);
	assert_string_equal(page.records[0].name, "Login works");
	assert_int_equal(time_parse_iso8601("2026-03-01T08:15:30Z", &ns), 0);
	assert_true(page.records[0].mtime_ns == ns);
	assert_false(et_lacks_files(row));
	assert_int_equal(et_decode_files(json_get_array(row, "Attachments"), id, &page), 0);
	assert_int_equal(page.n_files, 1);
	assert_string_equal(page.files[0].id, A1);
	assert_string_equal(page.files[0].record, R1);
	assert_string_equal(page.files[0].name, "login.png");
	assert_string_equal(page.files[0].version, A1);
	assert_string_equal(page.files[0].media_type, "image/png");
	assert_null(page.files[0].url);
	assert_true(page.files[0].size == 122454);
	assert_true(page.files[0].mtime_ns == ns);
	et_page_clear(&page);
	json_decref(root);
}

static void test_of_swapped_names_the_one_with_an_extension_is_taken(void **state)
{
	static const struct {
		const char *name, *filename, *chosen;
	} rows[] = {
		{"notes", "notes.txt", "notes.txt"},
		{"notes.txt", "notes", "notes.txt"},
		{"Login screen", "login.png", "login.png"},
		{"a.txt", "b.txt", "b.txt"},
		{"Makefile", "makefile", "Makefile"},
		{"", "x.txt", "x.txt"},
		{"x", "", "x"},
		{NULL, "x", "x"},
		{"x", NULL, "x"},
		{NULL, NULL, ""},
		{"", "", ""},
		{".bashrc", "bashrc", ".bashrc"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(et_choose_name(rows[i].name, rows[i].filename), rows[i].chosen);
}

static void test_attachments_without_an_id_are_left_out_and_counted(void **state)
{
	json_t *rows = parse("[{\"Id\":\"" NIL "\",\"Name\":\"a\"},{\"Id\":\"" A1
			     "\",\"Name\":\"b\",\"Size\":0}]");
	struct et_page page = {0};

	(void)state;
	assert_int_equal(et_decode_files(rows, R1, &page), 0);
	assert_int_equal(page.n_files, 1);
	assert_int_equal(page.nameless, 1);
	assert_true(page.files[0].size == 0);
	et_page_clear(&page);
	json_decref(rows);
}

static void test_rows_that_cannot_be_understood_fail_the_page(void **state)
{
	static const char *const bad[] = {
		"[{\"Name\":\"no id\"}]",
		"[{\"Id\":7}]",
		"[{\"Id\":\"../x\"}]",
		"[{\"Id\":\"" A1 "/\"}]",
		"[{\"Id\":\"b2f40b11-8d3a-4c1f-9a77-a0450180000\\u0000\"}]",
		"[7]",
		"[null]",
		"[[]]",
		"{}",
		"{\"Items\":[]}",
		"17",
	};
	struct et_page page = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *rows = parse(bad[i]);
		assert_int_equal(et_decode_files(rows, R1, &page), -EIO);
		json_decref(rows);
	}
	assert_int_equal(et_decode_files(NULL, R1, &page), -EIO);
	et_page_clear(&page);
}

static void test_fields_of_wrong_types_are_as_good_as_absent(void **state)
{
	json_t *row = parse("{\"Id\":\"B2F40B11-8D3A-4C1F-9A77-A04501800001\",\"Name\":3,"
			    "\"FileName\":{},\"Size\":-1,\"CreatedAt\":5,\"ContentType\":[]}");
	struct remote_file f;

	(void)state;
	assert_int_equal(et_decode_file(row, R1, &f), 0);
	assert_string_equal(f.id, A1);
	assert_string_equal(f.name, "");
	assert_null(f.media_type);
	assert_true(f.size == -1);
	assert_true(f.mtime_ns == REMOTE_TIME_NONE);
	remote_file_clear(&f);
	json_object_set_new(row, "Size", json_string("123"));
	json_object_set_new(row, "Name", json_stringn("a\0b.txt", 7));
	assert_int_equal(et_decode_file(row, R1, &f), 0);
	assert_true(f.size == 123);
	assert_string_equal(f.raw_name, "a%00b.txt");
	remote_file_clear(&f);
	json_object_set_new(row, "Size", json_real(1e300));
	assert_int_equal(et_decode_file(row, R1, &f), 0);
	assert_true(f.size == -1);
	remote_file_clear(&f);
	json_decref(row);
}

static void test_records_have_a_readable_name(void **state)
{
	static const struct {
		const char *collection, *row, *run, *name;
	} rows[] = {
		{"requirements", "{\"Name\":\"A|B\"}", NULL, "A|B"},
		{"requirements", "{\"Id\":\"" R1 "\",\"Number\":12}", NULL, "Requirement 12"},
		{"requirements", "{\"Id\":\"" R1 "\"}", NULL, "Requirement " R1},
		{"incidents", "{\"Summary\":\"It broke\",\"Name\":\"no\"}", NULL, "It broke"},
		{"incidents", "{\"IncidentNumber\":7}", NULL, "Incident 7"},
		{"stepresults", "{}", "{\"Name\":\"Smoke\"}", "Smoke step 3"},
		{"stepresults", "{\"Name\":\"Press OK\"}", "{\"Name\":\"Smoke\"}", "Press OK"},
		{"agilerunsteps", "{}", "{}", "Run step 3"},
		{"automatedtestrunnodes", "{\"Name\":\"LoginTest\"}", "{}", "LoginTest"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_t *row = parse(rows[i].row), *run = rows[i].run ? parse(rows[i].run) : NULL;
		char *name = et_record_name(et_find_collection(rows[i].collection), row, run, 3);
		assert_string_equal(name, rows[i].name);
		free(name);
		json_decref(row);
		json_decref(run);
	}
}

/* paths */

#define BOTH "7c1a0f5e6b1c4a559d0aa04501700001b2f40b118d3a4c1f9a77a04501800001"

static void test_two_ids_are_one_and_two_again(void **state)
{
	char id[REMOTE_ID_MAX + 1], first[ET_GUID_SIZE], second[ET_GUID_SIZE];

	(void)state;
	et_join_ids(R1, A1, id);
	assert_string_equal(id, BOTH);
	assert_true(et_split_id(id, first, second));
	assert_string_equal(first, R1);
	assert_string_equal(second, A1);
	assert_false(et_split_id(R1, first, second));
	assert_false(et_split_id(NULL, first, second));
	id[5] = '/';
	assert_false(et_split_id(id, first, second));
	memset(id, '0', 64);
	assert_false(et_split_id(id, first, second));
}

static void test_owners_are_addressed_as_section_3_says(void **state)
{
	static const struct {
		const char *collection, *record, *files, *file;
	} rows[] = {
		{"requirements", R1, "requirement/" R1 "/attachments",
		 "requirement/" R1 "/attachment/" A1},
		{"scripts", R1, "script/" R1 "/attachments", "script/" R1 "/attachment/" A1},
		{"incidents", R1, "incident/" R1 "/attachments", "incident/" R1 "/attachment/" A1},
		{"stepresults", R1, "stepresult/" R1 "/attachments",
		 "stepresult/" R1 "/attachment/" A1},
		{"agilerunsteps", BOTH, "agilerun/" R1 "/step/" A1 "/attachments",
		 "agilerun/" R1 "/step/" A1 "/attachment/" A1},
		{"automatedtestruns", R1, "automatedtestrun/" R1 "/attachments",
		 "automatedtestrun/" R1 "/attachment/" A1},
		{"automatedtestrunnodes", BOTH, "automatedtestrun/" R1 "/node/" A1 "/attachments",
		 "automatedtestrun/" R1 "/node/" A1 "/attachment/" A1},
		{"sets", R1, "temporaryattachmentset/" R1,
		 "temporaryattachmentset/" R1 "/attachment/" A1},
		{"agilerunsteps", NULL, "agilerun/{id}/step/{id}/attachments", NULL},
		{"requirements", "../x", NULL, NULL},
		{"requirements", NIL, NULL, NULL},
		{"requirements", BOTH, NULL, NULL},
		{"agilerunsteps", R1, NULL, NULL},
	};
	char path[ET_PATH_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct et_collection *c = et_find_collection(rows[i].collection);
		assert_int_equal(et_files_path(c, rows[i].record, path), rows[i].files != NULL);
		if (rows[i].files)
			assert_string_equal(path, rows[i].files);
		if (!rows[i].file)
			continue;
		assert_true(et_file_path(c, rows[i].record, A1, path));
		assert_string_equal(path, rows[i].file);
		assert_false(et_file_path(c, rows[i].record, NIL, path));
	}
	assert_null(et_find_collection("projects"));
	assert_null(et_find_collection(NULL));
}

static void assert_text_free(char *text, const char *expected)
{
	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}

static void test_queries_are_escaped(void **state)
{
	(void)state;
	assert_text_free(et_order_query(ET_TQL, "Requirement", 0),
			 "tql=ORDER%20BY%20CreatedAt%2C%20Id");
	assert_text_free(et_order_query(ET_TQL, "Requirement", 3),
			 "tql=EntityType%20%3D%20Requirement%20ORDER%20BY%20LastUpdatedAt");
	assert_null(et_order_query(ET_TQL, "Requirement", 4));
	assert_text_free(et_order_query(ET_ODATA, NULL, 0), "$orderby=CreatedAt,Id");
	assert_null(et_order_query(ET_ODATA, NULL, 3));
	assert_text_free(et_newest_query("Script", 2),
			 "tql=EntityType%20%3D%20Script%20ORDER%20BY%20LastUpdatedAt%20DESC");
	assert_text_free(et_add_api("https://h/et"), "https://h/et/api");
	assert_text_free(et_add_api("https://h/et/API"), "https://h/et/API");
	assert_text_free(et_add_api("https://h"), "https://h/api");
}

/* encoding */

static void test_dispositions_are_written_as_section_5_shows(void **state)
{
	static const struct {
		enum options_multipart form;
		const char *name, *disposition;
	} rows[] = {
		{OPTIONS_MULTIPART_MIXED, "notes.txt",
		 "attachment; filename=notes.txt; name=notes.txt; size=3"},
		{OPTIONS_MULTIPART_MIXED, "my notes.txt",
		 "attachment; filename=\"my notes.txt\"; name=\"my notes.txt\"; size=3"},
		{OPTIONS_MULTIPART_MIXED, "a\"b\\c",
		 "attachment; filename=\"a\\\"b\\\\c\"; name=\"a\\\"b\\\\c\"; size=3"},
		{OPTIONS_MULTIPART_MIXED, "a;b=(c)",
		 "attachment; filename=\"a;b=(c)\"; name=\"a;b=(c)\"; size=3"},
		{OPTIONS_MULTIPART_MIXED, "\xc3\xa4",
		 "attachment; filename=\"\xc3\xa4\"; name=\"\xc3\xa4\"; size=3"},
		{OPTIONS_MULTIPART_MIXED, "a\r\nX: y",
		 "attachment; filename=\"a%0D%0AX: y\"; name=\"a%0D%0AX: y\"; size=3"},
		{OPTIONS_MULTIPART_FORM, "notes.txt",
		 "form-data; name=\"notes.txt\"; filename=\"notes.txt\""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_text_free(et_disposition(rows[i].form, rows[i].name, 3),
				 rows[i].disposition);
	assert_string_equal(et_media_type("a.TXT"), "text/plain");
	assert_string_equal(et_media_type("a"), "application/octet-stream");
}

static void test_a_record_is_patched_with_its_own_name_field(void **state)
{
	struct remote_change item = {.name = "New",
				     .fields_json = "{\"Id\":1,\"Priority\":2,\"Self\":\"x\"}"};

	(void)state;
	json_t *body = et_record_body(et_find_collection("incidents"), &item);
	assert_text_free(json_dumps(body, JSON_COMPACT), "{\"Priority\":2,\"Summary\":\"New\"}");
	json_decref(body);
	item.fields_json = NULL;
	body = et_record_body(et_find_collection("scripts"), &item);
	assert_text_free(json_dumps(body, JSON_COMPACT), "{\"Name\":\"New\"}");
	json_decref(body);
	item.fields_json = "[1]";
	assert_null(et_record_body(et_find_collection("scripts"), &item));
}

/* judging */

static void test_statuses_mean_what_section_10_says(void **state)
{
	static const struct {
		int status;
		const char *body;
		enum et_verb verb;
		size_t n;
		uint64_t bytes;
		enum remote_outcome outcome;
		int error;
		bool look;
	} rows[] = {
		{201, "[]", ET_UPLOAD, 1, 1, REMOTE_DONE, 0, false},
		{201, NULL, ET_UPLOAD, 1, 1, REMOTE_UNKNOWN, -EIO, false},
		{0, NULL, ET_UPLOAD, 1, 1, REMOTE_UNKNOWN, -EIO, false},
		{0, NULL, ET_REMOVE, 1, 0, REMOTE_RETRY, -EIO, false},
		{400, "{}", ET_UPLOAD, 1, 1, REMOTE_REFUSED, -EINVAL, false},
		{400, "{}", ET_UPLOAD, 1, 5 << 20, REMOTE_REFUSED, -EFBIG, false},
		{401, "{}", ET_UPLOAD, 1, 1, REMOTE_RETRY, -EACCES, false},
		{403, "{}", ET_UPLOAD, 1, 1, REMOTE_REFUSED, -EACCES, false},
		{403,
		 "{\"Message\":\"You must specify a valid PackageId which the agile run can "
		 "be added to.\"}",
		 ET_UPLOAD, 1, 1, REMOTE_REFUSED, -EINVAL, false},
		{403, "{\"Message\":\"No files in request\"}", ET_UPLOAD, 1, 1, REMOTE_REFUSED,
		 -EINVAL, false},
		{403, "{\"Message\":\"You must have the permission TestManagement/Edit\"}",
		 ET_UPLOAD, 1, 1, REMOTE_REFUSED, -EACCES, false},
		{403, "{}", ET_UPLOAD, 2, 1, REMOTE_REFUSED, -EACCES, true},
		{403, "{}", ET_REMOVE, 1, 0, REMOTE_REFUSED, -EACCES, false},
		{404, NULL, ET_UPLOAD, 1, 1, REMOTE_REFUSED, -EFBIG, true},
		{404, NULL, ET_REMOVE, 1, 0, REMOTE_GONE, 0, false},
		{404, NULL, ET_PATCH, 1, 0, REMOTE_GONE, -ENOENT, false},
		{405, NULL, ET_PATCH, 1, 0, REMOTE_REFUSED, -EPERM, false},
		{413, NULL, ET_UPLOAD, 1, 1, REMOTE_REFUSED, -EFBIG, false},
		{415, NULL, ET_UPLOAD, 1, 1, REMOTE_REFUSED, -EIO, false},
		{429, NULL, ET_UPLOAD, 1, 1, REMOTE_RETRY, -EBUSY, false},
		{500, NULL, ET_UPLOAD, 1, 1, REMOTE_UNKNOWN, -EIO, false},
		{500, NULL, ET_UPLOAD, 1, 5 << 20, REMOTE_REFUSED, -EFBIG, true},
		{500, NULL, ET_PATCH, 1, 0, REMOTE_RETRY, -EIO, false},
		{502, NULL, ET_UPLOAD, 1, 1, REMOTE_UNKNOWN, -EIO, false},
		{503, NULL, ET_UPLOAD, 1, 1, REMOTE_RETRY, -EIO, false},
		{204, NULL, ET_PATCH, 1, 0, REMOTE_DONE, 0, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_t *root = rows[i].body ? parse(rows[i].body) : NULL;
		struct call_reply reply = {
			.status = rows[i].status, .sent = true, .json = root, .message = ""};
		bool look;
		int error;
		reply.error = rows[i].status ? call_status_errno(rows[i].status) : -EIO;
		if (rows[i].status == 201 && !root)
			reply.error = -EIO;
		assert_int_equal(
			et_judge(&reply, rows[i].verb, rows[i].n, rows[i].bytes, &error, &look),
			rows[i].outcome);
		assert_int_equal(error, rows[i].error);
		assert_int_equal(look, rows[i].look);
		json_decref(root);
	}
}

static void test_answers_find_their_items(void **state)
{
	static const struct {
		const char *rows;
		size_t a, b; /* for a.txt (3 bytes) and b.txt (5 bytes) */
	} cases[] = {
		{"[{\"Name\":\"a.txt\",\"Size\":3},{\"Name\":\"b.txt\",\"Size\":5}]", 0, 1},
		{"[{\"Name\":\"b.txt\",\"Size\":5},{\"Name\":\"a.txt\",\"Size\":3}]", 1, 0},
		{"[{\"Name\":\"a\",\"FileName\":\"a.txt\",\"Size\":3},{\"Name\":\"b.txt\","
		 "\"FileName\":\"b\",\"Size\":5}]",
		 0, 1},
		{"[{\"Name\":\"b.txt\",\"Size\":5}]", SIZE_MAX, 0},
		{"[{\"Name\":\"?\",\"Size\":3},{\"Name\":\"b.txt\",\"Size\":5}]", 0, 1},
		{"[{\"Name\":\"?\",\"Size\":4},{\"Name\":\"b.txt\",\"Size\":5}]", SIZE_MAX, 1},
		{"[7,null]", SIZE_MAX, SIZE_MAX},
		{"[]", SIZE_MAX, SIZE_MAX},
	};
	struct remote_change items[] = {{.name = "a.txt", .size = 3}, {.name = "b.txt", .size = 5}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *rows = parse(cases[i].rows);
		size_t match[2];
		et_match_answer(rows, items, 2, match);
		assert_int_equal(match[0], cases[i].a);
		assert_int_equal(match[1], cases[i].b);
		json_decref(rows);
	}
}

static void test_items_of_one_name_keep_their_order(void **state)
{
	json_t *rows = parse("[{\"Name\":\"a\",\"Size\":1},{\"Name\":\"a\",\"Size\":1}]");
	struct remote_change items[] = {{.name = "a", .size = 1}, {.name = "a", .size = 1}};
	size_t match[2];

	(void)state;
	et_match_answer(rows, items, 2, match);
	assert_int_equal(match[0], 0);
	assert_int_equal(match[1], 1);
	json_decref(rows);
}

static void test_a_look_finds_only_what_was_made_since(void **state)
{
	struct remote_file files[] = {
		{.raw_name = (char *)"a", .size = 1, .ctime_ns = 5 * CLOCK_NS_PER_S},
		{.raw_name = (char *)"a", .size = 1, .ctime_ns = 100 * CLOCK_NS_PER_S},
		{.raw_name = (char *)"b", .size = 2, .ctime_ns = 100 * CLOCK_NS_PER_S},
		{.raw_name = (char *)"c", .size = 3, .ctime_ns = REMOTE_TIME_NONE},
	};
	struct remote_change items[] = {
		{.name = "a", .size = 1}, {.name = "b", .size = 1}, {.name = "c", .size = 3}};
	size_t match[3];

	(void)state;
	et_match_files(files, 4, 100 * CLOCK_NS_PER_S, items, 3, match);
	assert_int_equal(match[0], 1);
	assert_int_equal(match[1], SIZE_MAX);
	assert_int_equal(match[2], SIZE_MAX);
}

static void test_whether_attaching_moves_a_record_is_learned(void **state)
{
	json_t *root = parse(requirements_json);
	json_t *row = json_array_get(et_rows(root), 0);
	int64_t ns;

	(void)state;
	assert_int_equal(time_parse_iso8601("2026-03-01T08:15:30Z", &ns), 0);
	assert_int_equal(et_judge_newest(row, R1, ns), ET_BUMPS);
	assert_int_equal(et_judge_newest(row, R2, ns), ET_BUMP_UNKNOWN);
	assert_int_equal(et_judge_newest(row, R1, ns + 60 * CLOCK_NS_PER_S), ET_BUMPS_NOT);
	assert_int_equal(et_judge_newest(row, R1, REMOTE_TIME_NONE), ET_BUMP_UNKNOWN);
	assert_int_equal(et_judge_newest(NULL, R1, ns), ET_BUMP_UNKNOWN);
	assert_int_equal(et_judge_rows(et_rows(root)), ET_BUMP_UNKNOWN);
	json_object_set_new(row, "LastUpdatedAt", json_string("2026-02-01T08:15:30Z"));
	assert_int_equal(et_judge_rows(et_rows(root)), ET_BUMPS_NOT);
	json_decref(root);
}

/* The engine, pool and clock of the tests below: one thread, no network. */

#define SENT_MAX 64

struct sent {
	char *method, *url, *body, *dispositions;
	size_t n_parts;
	bool (*head)(void *ctx, const struct transfer_head *head);
	bool (*data)(void *ctx, const void *data, size_t len);
	void (*done)(void *ctx, const struct transfer_result *result);
	void *ctx;
	bool credential;
};

static struct {
	int64_t now_ms;
	struct sent sent[SENT_MAX];
	size_t n_sent, n_answered;
} world;

static struct remote *remote;

int64_t clock_mono_ms(void)
{
	return world.now_ms;
}

int64_t clock_real_ns(void)
{
	return 1772445600LL * CLOCK_NS_PER_S; /* 2026-03-02T10:00:00Z */
}

int pool_run(struct pool *pool, void (*job)(void *ctx), void *ctx)
{
	(void)pool;
	job(ctx);
	return 0;
}

int transfer_start(struct engine *engine, const struct transfer_spec *spec, uint64_t *ret_id)
{
	char dispositions[2048] = "";

	(void)engine;
	assert_true(world.n_sent < SENT_MAX);
	struct sent *s = &world.sent[world.n_sent++];
	for (size_t i = 0; i < spec->n_parts; i++) {
		strcat(dispositions, spec->parts[i].disposition);
		strcat(dispositions, "\n");
		assert_true(spec->parts[i].with_length);
		assert_string_equal(spec->multipart_type, "multipart/mixed");
	}
	*s = (struct sent){.method = strdup(spec->method),
			   .url = strdup(spec->url),
			   .body = strndup(spec->body ? spec->body : "", spec->body_len),
			   .dispositions = strdup(dispositions),
			   .n_parts = spec->n_parts,
			   .head = spec->headers_cb,
			   .data = spec->data_cb,
			   .done = spec->done_cb,
			   .ctx = spec->ctx,
			   .credential = spec->credential &&
					 strcmp(spec->credential,
						"Authorization: Basic YWRhOnMzY3JldA==") == 0};
	if (ret_id)
		*ret_id = world.n_sent;
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

#define BASE "https://et.example/et/api"

static int begin_world(void **state)
{
	struct options options = {.system = OPTIONS_SYSTEM_ENTERPRISE_TESTER,
				  .user = (char *)"ada",
				  .base_url = (char *)"https://et.example/et"};
	char message[256];

	(void)state;
	memset(&world, 0, sizeof(world));
	world.now_ms = 1000000;
	setenv("ATTACHFS_PASSWORD", "s3cret", 1);
	return remote_new(&options, NULL, NULL, &remote, message, sizeof(message));
}

static int end_world(void **state)
{
	(void)state;
	remote_free(remote);
	for (size_t i = 0; i < world.n_sent; i++) {
		free(world.sent[i].method);
		free(world.sent[i].url);
		free(world.sent[i].body);
		free(world.sent[i].dispositions);
	}
	return world.n_sent == world.n_answered ? 0 : -1;
}

#define CALL_TEST(test) cmocka_unit_test_setup_teardown(test, begin_world, end_world)

static struct sent *next_sent(const char *method, const char *url)
{
	assert_true(world.n_answered < world.n_sent);
	struct sent *s = &world.sent[world.n_answered++];
	assert_string_equal(s->method, method);
	assert_string_equal(s->url, url);
	assert_true(s->credential);
	return s;
}

static void answer_error(struct sent *s, int error, int status)
{
	struct transfer_result result = {.error = error, .status = status, .sent = true};

	s->done(s->ctx, &result);
}

static const char *no_header(const struct transfer_head *head, const char *name)
{
	(void)head;
	(void)name;
	return NULL;
}

static void answer_as(struct sent *s, int status, const char *type, const char *body)
{
	struct transfer_head head = {.status = status,
				     .content_length = (int64_t)strlen(body),
				     .range_total = -1,
				     .content_type = type,
				     .content_encoding = "",
				     .etag = "",
				     .location = "",
				     .last_modified_s = -1,
				     .date_s = 1772445600,
				     .rate_limit = -1,
				     .rate_remaining = -1,
				     .get = no_header};
	bool go_on = s->head(s->ctx, &head);

	if (go_on && *body != '\0')
		go_on = s->data(s->ctx, body, strlen(body));
	answer_error(s, go_on ? 0 : -EIO, status);
}

static void answer(struct sent *s, int status, const char *body)
{
	answer_as(s, status, "application/json", body);
}

static struct {
	size_t records, files, pages;
	char names[2000];
	_Atomic int done;
	int error;
	char message[256];
} got;

static bool on_page(void *ctx, struct remote_record *records, size_t n_records,
		    struct remote_file *files, size_t n_files)
{
	(void)ctx;
	got.records += n_records;
	got.files += n_files;
	got.pages++;
	for (size_t i = 0; i < n_records; i++) {
		strcat(got.names, records[i].name);
		strcat(got.names, ";");
	}
	for (size_t i = 0; i < n_files; i++) {
		strcat(got.names, files[i].name);
		strcat(got.names, ",");
	}
	return true;
}

static void on_listed(void *ctx, int error, const char *message)
{
	(void)ctx;
	got.error = error;
	snprintf(got.message, sizeof(got.message), "%s", message);
	got.done++;
}

static const struct remote_sink sink = {on_page, on_listed, NULL};

static void list_tree(const char *collection)
{
	memset(&got, 0, sizeof(got));
	assert_int_equal(remote->ops->list_tree(remote, TRANSFER_REFRESH, collection, &sink), 0);
}

#define SET_URL(set, top, skip)                                                                    \
	BASE "/" set "?tql=ORDER%20BY%20CreatedAt%2C%20Id&$top=" top "&$skip=" skip                \
	     "&$inlinecount=allpages"
#define TREE_URL(skip) SET_URL("requirements", "1000", skip) "&$expand=Attachments"

static void test_a_collection_is_one_call(void **state)
{
	(void)state;
	list_tree("requirements");
	answer(next_sent("GET", TREE_URL("0")), 200, requirements_json);
	assert_int_equal(got.done, 1);
	assert_int_equal(got.error, 0);
	assert_string_equal(got.names, "Login works;login.png,");
}

/* Rows r<first>..r<last> without files, of @total. */
static char *rows_json(unsigned first, unsigned last, int total)
{
	static char text[8192];
	int n = snprintf(text, sizeof(text), "{\"Total\":%d,\"Items\":[", total);

	for (unsigned i = first; i <= last; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n,
			      "%s{\"Id\":\"7c1a0f5e-6b1c-4a55-9d0a-a0450170%04u\",\"Name\":\"r%u\","
			      "\"HasAttachments\":false}",
			      i == first ? "" : ",", i, i);
	snprintf(text + n, sizeof(text) - (size_t)n, "]}");
	return text;
}

static void test_pages_overlap_by_a_row(void **state)
{
	(void)state;
	list_tree("requirements");
	/* the server gives no more than three at once, whatever is asked for */
	answer(next_sent("GET", TREE_URL("0")), 200, rows_json(1, 3, 5));
	assert_int_equal(got.done, 0);
	answer(next_sent("GET", TREE_URL("2")), 200, rows_json(3, 5, 5));
	assert_int_equal(got.done, 1);
	assert_int_equal(got.error, 0);
	assert_string_equal(got.names, "r1;r2;r3;r4;r5;");
}

static void test_rows_that_vanish_hide_no_others(void **state)
{
	(void)state;
	list_tree("requirements");
	answer(next_sent("GET", TREE_URL("0")), 200, rows_json(1, 3, 6));
	/* r1 and r2 are deleted: what was third is first, r4 would never be seen */
	answer(next_sent("GET", TREE_URL("2")), 200, rows_json(5, 6, 4));
	answer(next_sent("GET", TREE_URL("0")), 200, rows_json(3, 5, 4));
	answer(next_sent("GET", TREE_URL("2")), 200, rows_json(5, 6, 4));
	assert_int_equal(got.error, 0);
	assert_int_equal(got.done, 1);
	assert_string_equal(got.names, "r1;r2;r3;r4;r5;r6;");
}

static void test_a_count_that_is_not_reached_fails_the_listing(void **state)
{
	(void)state;
	list_tree("requirements");
	answer(next_sent("GET", TREE_URL("0")), 200, rows_json(1, 3, 5));
	/* in no order, after all */
	answer(next_sent("GET", TREE_URL("2")), 200, rows_json(2, 4, 5));
	answer(next_sent("GET", TREE_URL("0")), 200, rows_json(1, 3, 5));
	answer(next_sent("GET", TREE_URL("2")), 200, rows_json(3, 5, 5));
	assert_int_equal(got.error, 0);
	assert_int_equal(got.records, 5);
	/* $skip does nothing */
	list_tree("requirements");
	answer(next_sent("GET", TREE_URL("0")), 200, rows_json(1, 3, 4));
	answer(next_sent("GET", TREE_URL("2")), 200, rows_json(1, 3, 4));
	answer(next_sent("GET", TREE_URL("0")), 200, rows_json(1, 3, 4));
	answer(next_sent("GET", TREE_URL("2")), 200, rows_json(1, 3, 4));
	assert_int_equal(got.done, 1);
	assert_int_equal(got.error, -EIO);
	/* rows are counted but not there */
	list_tree("requirements");
	answer(next_sent("GET", TREE_URL("0")), 200, "{\"Total\":4,\"Items\":[]}");
	assert_int_equal(got.error, -EIO);
}

static void test_without_totals_a_page_with_nothing_new_is_the_last(void **state)
{
	(void)state;
	list_tree("requirements");
	answer(next_sent("GET", TREE_URL("0")), 200, rows_json(1, 3, -1));
	answer(next_sent("GET", TREE_URL("2")), 200, rows_json(3, 4, -1));
	answer(next_sent("GET", TREE_URL("3")), 200, rows_json(4, 4, -1));
	assert_int_equal(got.done, 1);
	assert_int_equal(got.error, 0);
	assert_int_equal(got.records, 4);
}

static void test_an_order_the_server_does_not_take_is_replaced_once(void **state)
{
	(void)state;
	list_tree("scripts");
	answer(next_sent("GET", SET_URL("scripts", "1000", "0") "&$expand=Attachments"), 400, "{}");
	struct sent *s = next_sent(
		"GET", BASE "/scripts?tql=EntityType%20%3D%20Script%20ORDER%20BY%20CreatedAt"
			    "%2C%20Id&$top=1000&$skip=0&$inlinecount=allpages&$expand=Attachments");
	answer(s, 200, "{\"Total\":0,\"Items\":[]}");
	assert_int_equal(got.error, 0);
	list_tree("incidents");
	s = next_sent("GET",
		      BASE "/incidents?tql=EntityType%20%3D%20Incident%20ORDER%20BY%20CreatedAt"
			   "%2C%20Id&$top=1000&$skip=0&$inlinecount=allpages&$expand=Attachments");
	answer(s, 200, "{\"Total\":0,\"Items\":[]}");
	assert_int_equal(got.error, 0);
}

static void test_listings_that_make_no_sense_fail(void **state)
{
	static const struct {
		int status;
		const char *body;
		int error;
	} rows[] = {
		{200, "{}", -EIO},
		{200, "[7]", -EIO},
		{200, "{\"Items\":[{\"Id\":5}]}", -EIO},
		{200, "{\"Items\":{}}", -EIO},
		{200, "", -EIO},
		{404, "", -ENOENT},
		{200, "{\"Total\":99999999999999999999,\"Items\":[]}", -EIO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		list_tree("requirements");
		answer(next_sent("GET", TREE_URL("0")), rows[i].status, rows[i].body);
		assert_int_equal(got.done, 1);
		assert_int_equal(got.error, rows[i].error);
	}
}

#define FILES_URL(owner)                                                                           \
	BASE "/" owner "/attachments?$orderby=CreatedAt,Id&$top=1000&$skip=0&$inlinecount="        \
	     "allpages"

static void test_a_row_without_its_attachments_is_asked_for_them(void **state)
{
	(void)state;
	list_tree("requirements");
	answer(next_sent("GET", TREE_URL("0")), 200,
	       "{\"Total\":2,\"Items\":[{\"Id\":\"" R1 "\",\"Name\":\"a\"},{\"Id\":\"" R2
	       "\",\"Name\":\"b\",\"HasAttachments\":false}]}");
	answer(next_sent("GET", FILES_URL("requirement/" R1)), 200,
	       "{\"Total\":1,\"Items\":[{\"Id\":\"" A1 "\",\"Name\":\"x\"}]}");
	assert_int_equal(got.error, 0);
	assert_string_equal(got.names, "a;b;x,");
}

static void test_step_results_hang_below_script_runs(void **state)
{
	(void)state;
	list_tree("stepresults");
	answer(next_sent("GET", SET_URL("scriptruns", "100", "0")), 200,
	       "{\"Total\":1,\"Items\":[{\"Id\":\"" R1 "\",\"Name\":\"Smoke\"}]}");
	answer(next_sent("GET", BASE "/scriptrun/" R1 "?$expand=StepResults"), 200,
	       "{\"Id\":\"" R1 "\",\"Name\":\"Smoke\",\"StepResults\":[{\"Id\":\"" R2
	       "\",\"HasAttachments\":true},{\"Id\":\"" A1 "\",\"HasAttachments\":false}]}");
	assert_int_equal(got.pages, 0);
	answer(next_sent("GET", FILES_URL("stepresult/" R2)), 200,
	       "{\"Total\":1,\"Items\":[{\"Id\":\"" A1 "\",\"FileName\":\"x.png\"}]}");
	assert_int_equal(got.done, 1);
	assert_string_equal(got.names, "Smoke step 1;Smoke step 2;x.png,");
}

static void test_nodes_are_found_below_nodes(void **state)
{
	(void)state;
	list_tree("automatedtestrunnodes");
	answer(next_sent("GET", SET_URL("automatedtestruns", "100", "0")), 200,
	       "{\"Total\":1,\"Items\":[{\"Id\":\"" R1 "\",\"Name\":\"Nightly\"}]}");
	answer(next_sent("GET", BASE "/automatedtestrun/" R1 "/nodes"), 200,
	       "[{\"Id\":\"" R2 "\",\"Name\":\"Suite\",\"HasAttachments\":false}]");
	answer(next_sent("GET", BASE "/automatedtestrun/" R1 "/node/" R2 "/children"), 200,
	       "[{\"Id\":\"" A1 "\",\"Name\":\"Case\",\"HasAttachments\":true}]");
	answer(next_sent("GET", BASE "/automatedtestrun/" R1 "/node/" A1 "/attachments"), 200,
	       "[{\"Id\":\"" A2 "\",\"Name\":\"log.txt\"}]");
	answer(next_sent("GET", BASE "/automatedtestrun/" R1 "/node/" A1 "/children"), 404, "");
	assert_int_equal(got.done, 1);
	assert_int_equal(got.error, 0);
	assert_string_equal(got.names, "Suite;Case;log.txt,");
}

static void test_a_run_that_fails_fails_the_listing_but_a_gone_one_does_not(void **state)
{
	static const struct {
		int status, error;
	} rows[] = {{404, 0}, {403, 0}, {500, -EIO}, {200, -EIO}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		list_tree("agilerunsteps");
		answer(next_sent("GET", SET_URL("agileruns", "100", "0")), 200,
		       "{\"Total\":1,\"Items\":[{\"Id\":\"" R1 "\",\"Name\":\"Sprint\"}]}");
		answer(next_sent("GET", BASE "/agilerun/" R1 "?$expand=Steps"), rows[i].status,
		       "{}");
		assert_int_equal(got.done, 1);
		assert_int_equal(got.error, rows[i].error);
	}
}

static void test_one_record_is_listed(void **state)
{
	(void)state;
	memset(&got, 0, sizeof(got));
	assert_int_equal(remote->ops->list_record(remote, TRANSFER_INTERACTIVE, "sets", R1, &sink),
			 0);
	answer(next_sent("GET", BASE "/temporaryattachmentset/" R1
				     "?$orderby=CreatedAt,Id&$top=1000&$skip=0&$inlinecount="
				     "allpages"),
	       201, "{\"Items\":[{\"Id\":\"" NIL "\",\"Name\":\"x\"}]}");
	assert_int_equal(got.done, 1);
	assert_int_equal(got.error, 0);
	assert_int_equal(got.files, 0);
	assert_int_equal(remote->ops->list_record(remote, TRANSFER_INTERACTIVE, "sets", R1, &sink),
			 0);
	answer(next_sent("GET", BASE "/temporaryattachmentset/" R1
				     "?$orderby=CreatedAt,Id&$top=1000&$skip=0&$inlinecount="
				     "allpages"),
	       404, "");
	assert_int_equal(got.error, -ENOENT);
	assert_int_equal(remote->ops->list_record(remote, TRANSFER_INTERACTIVE, "sets", "x", &sink),
			 -EINVAL);
}

/* The password is read again on a thread of its own. */
static void wait_for(const _Atomic int *count)
{
	for (int i = 0; i < 5000 && *count == 0; i++)
		usleep(1000);
	assert_int_equal(*count, 1);
}

static void test_a_login_page_counts_as_401(void **state)
{
	char message[256];

	(void)state;
	list_tree("requirements");
	answer_as(next_sent("GET", TREE_URL("0")), 200, "text/html; charset=utf-8",
		  "<html><title>Log in</title></html>");
	wait_for(&got.done);
	assert_int_equal(got.error, -EACCES);
	assert_int_equal(remote_get_auth(remote, message), REMOTE_AUTH_FAILED);
}

/* writing */

static void count_done(void *ctx, int error, const char *message)
{
	int *calls = ctx;

	(void)message;
	assert_int_equal(error, 0);
	++*calls;
}

static struct remote_change file(const char *name, uint64_t size)
{
	return (struct remote_change){.collection = "requirements",
				      .record = R1,
				      .name = name,
				      .size = size,
				      .fd = -1,
				      .mtime_ns = REMOTE_TIME_NONE};
}

#define UPLOAD_URL BASE "/requirement/" R1 "/attachments"

static struct sent *upload(struct remote_change *items, size_t n, int *done)
{
	assert_int_equal(
		remote->ops->create(remote, TRANSFER_WRITEBACK, items, n, count_done, done), 0);
	return next_sent("POST", UPLOAD_URL);
}

static void test_files_are_uploaded_in_one_request(void **state)
{
	struct remote_change items[] = {file("notes.txt", 3), file("b c", 0)};
	int done = 0;

	(void)state;
	struct sent *s = upload(items, 2, &done);
	assert_string_equal(s->dispositions,
			    "attachment; filename=notes.txt; name=notes.txt; size=3\n"
			    "attachment; filename=\"b c\"; name=\"b c\"; size=0\n");
	answer(s, 201,
	       "[{\"Id\":\"" A1 "\",\"Name\":\"notes.txt\",\"FileName\":\"notes.txt\",\"Size\":3},"
	       "{\"Id\":\"" A2 "\",\"Name\":\"b c\",\"FileName\":\"b c\",\"Size\":0}]");
	assert_int_equal(done, 1);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(items[i].outcome, REMOTE_DONE);
		assert_string_equal(items[i].file.raw_name, items[i].name);
		assert_string_equal(items[i].file.record, R1);
		remote_file_clear(&items[i].file);
	}
}

static void test_the_example_of_section_5_is_read(void **state)
{
	struct remote_change item = file("notes.txt", 3);
	int done = 0;

	(void)state;
	answer(upload(&item, 1, &done), 201, created_json);
	assert_int_equal(item.outcome, REMOTE_DONE);
	assert_string_equal(item.file.id, A2);
	assert_string_equal(item.file.raw_name, "notes.txt");
	remote_file_clear(&item.file);
}

static void test_uploads_that_did_not_work_out(void **state)
{
	static const struct {
		int status;
		const char *body;
		enum remote_outcome outcome;
		int error;
	} rows[] = {
		{201, "{}", REMOTE_UNKNOWN, -EIO},
		{201, "[]", REMOTE_UNKNOWN, -EIO},
		{201, "", REMOTE_UNKNOWN, -EIO},
		{201, "[{\"Id\":\"" NIL "\",\"Name\":\"a\",\"Size\":3}]", REMOTE_REFUSED, -EIO},
		{201, "[{\"Id\":\"" A1 "\",\"Name\":\"a\",\"Size\":2}]", REMOTE_REFUSED, -EIO},
		{403, "{\"Message\":\"no permission\"}", REMOTE_REFUSED, -EACCES},
		{415, "", REMOTE_REFUSED, -EIO},
		{500, "", REMOTE_UNKNOWN, -EIO},
		{503, "", REMOTE_RETRY, -EIO},
	};
	struct remote_change item;
	int done = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		item = file("a", 3);
		answer(upload(&item, 1, &done), rows[i].status, rows[i].body);
		assert_int_equal(done, (int)i + 1);
		assert_int_equal(item.outcome, rows[i].outcome);
		assert_int_equal(item.error, rows[i].error);
		assert_null(item.file.id);
	}
	item = file("a", 3);
	answer_error(upload(&item, 1, &done), -ECONNRESET, 0);
	assert_int_equal(item.outcome, REMOTE_UNKNOWN);
}

static void test_after_a_refusal_of_many_the_record_is_looked_at(void **state)
{
	struct remote_change items[] = {file("a", 1), file("b", 2)};
	int done = 0;

	(void)state;
	/* none is there (an older one of that name and size is): all are refused, and halved */
	answer(upload(items, 2, &done), 403, "{\"Message\":\"b is not a valid name\"}");
	assert_int_equal(done, 0);
	answer(next_sent("GET", FILES_URL("requirement/" R1)), 200,
	       "{\"Total\":1,\"Items\":[{\"Id\":\"" A1
	       "\",\"Name\":\"a\",\"Size\":1,\"CreatedAt\":\"2026-03-02T09:00:00Z\"}]}");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_REFUSED);
	assert_int_equal(items[1].outcome, REMOTE_REFUSED);
	assert_int_equal(items[1].error, -EINVAL);
	/* the other was kept: only the bad one is sent again */
	answer(upload(items, 2, &done), 403, "{\"Message\":\"b is not a valid name\"}");
	answer(next_sent("GET", FILES_URL("requirement/" R1)), 200,
	       "{\"Total\":1,\"Items\":[{\"Id\":\"" A2
	       "\",\"Name\":\"a\",\"Size\":1,\"CreatedAt\":\"2026-03-02T10:00:00Z\"}]}");
	assert_int_equal(done, 2);
	assert_int_equal(items[0].outcome, REMOTE_DONE);
	assert_string_equal(items[0].file.id, A2);
	assert_int_equal(items[1].outcome, REMOTE_RETRY);
	remote_file_clear(&items[0].file);
	/* nobody knows */
	answer(upload(items, 2, &done), 403, "{}");
	answer_error(next_sent("GET", FILES_URL("requirement/" R1)), -EHOSTDOWN, 0);
	assert_int_equal(items[0].outcome, REMOTE_UNKNOWN);
	assert_int_equal(items[1].outcome, REMOTE_UNKNOWN);
}

static void test_a_404_of_an_upload_is_a_gone_record_or_a_request_too_large(void **state)
{
	struct remote_change item = file("a", 1);
	int done = 0;

	(void)state;
	answer(upload(&item, 1, &done), 404, "");
	answer(next_sent("GET", FILES_URL("requirement/" R1)), 404, "");
	assert_int_equal(item.outcome, REMOTE_GONE);
	answer(upload(&item, 1, &done), 404, "");
	answer(next_sent("GET", FILES_URL("requirement/" R1)), 200, "{\"Total\":0,\"Items\":[]}");
	assert_int_equal(item.outcome, REMOTE_REFUSED);
	assert_int_equal(item.error, -EFBIG);
	assert_int_equal(done, 2);
}

static void test_what_must_not_be_sent_is_not(void **state)
{
	struct remote_change items[] = {file("a", 1), file("b", 1)};
	int done = 0;

	(void)state;
	items[1].record = R2;
	assert_int_equal(
		remote->ops->create(remote, TRANSFER_WRITEBACK, items, 2, count_done, &done),
		-EINVAL);
	items[0].record = "../x";
	assert_int_equal(
		remote->ops->create(remote, TRANSFER_WRITEBACK, items, 1, count_done, &done),
		-EINVAL);
	items[0] = file("", 1);
	assert_int_equal(
		remote->ops->create(remote, TRANSFER_WRITEBACK, items, 1, count_done, &done),
		-EINVAL);
	items[0].id = NIL;
	assert_int_equal(
		remote->ops->remove(remote, TRANSFER_WRITEBACK, items, 1, count_done, &done),
		-EINVAL);
	items[0].collection = "stepresults";
	items[0].id = R1;
	assert_int_equal(remote->ops->update_records(remote, TRANSFER_WRITEBACK, items, 1,
						     count_done, &done),
			 -EPERM);
	assert_int_equal(done, 0);
}

static void test_deletes_go_side_by_side(void **state)
{
	static const int status[] = {200, 204, 404, 403};
	static const enum remote_outcome outcome[] = {REMOTE_DONE, REMOTE_DONE, REMOTE_GONE,
						      REMOTE_REFUSED};
	struct remote_change items[4];
	int done = 0;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		items[i] = file(NULL, 0);
		items[i].id = A1;
	}
	assert_int_equal(
		remote->ops->remove(remote, TRANSFER_WRITEBACK, items, 4, count_done, &done), 0);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(done, 0);
		answer(next_sent("DELETE", BASE "/requirement/" R1 "/attachment/" A1), status[i],
		       "");
		assert_int_equal(items[i].outcome, outcome[i]);
	}
	assert_int_equal(done, 1);
}

static void test_a_record_is_renamed(void **state)
{
	struct remote_change items[] = {{.collection = "incidents", .id = R1, .name = "It works"},
					{.collection = "incidents", .id = R2}};
	int done = 0;

	(void)state;
	assert_int_equal(remote->ops->update_records(remote, TRANSFER_WRITEBACK, items, 2,
						     count_done, &done),
			 0);
	struct sent *s = next_sent("PATCH", BASE "/incident/" R1);
	assert_string_equal(s->body, "{\"Summary\":\"It works\"}");
	answer(s, 204, "");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_DONE);
	assert_int_equal(items[1].outcome, REMOTE_DONE);
}

/* polling */

static struct {
	int done, error;
	bool changed;
	char cursor[2000];
} polled;

static void on_polled(void *ctx, int error, bool changed, const char *cursor)
{
	(void)ctx;
	polled.done++;
	polled.error = error;
	polled.changed = changed;
	if (cursor)
		snprintf(polled.cursor, sizeof(polled.cursor), "%s", cursor);
}

#define NEWEST_URL                                                                                 \
	BASE "/requirements?tql=ORDER%20BY%20LastUpdatedAt%20DESC%2C%20Id&$top=1&$skip=0"          \
	     "&$inlinecount=allpages&$expand=Attachments"

static void poll_with(const char *url, const char *body)
{
	char cursor[2000];

	snprintf(cursor, sizeof(cursor), "%s", polled.cursor);
	assert_int_equal(
		remote->ops->poll(remote, "requirements", *cursor ? cursor : NULL, on_polled, NULL),
		0);
	answer(next_sent("GET", url), 200, body);
	assert_int_equal(polled.error, 0);
}

static void test_a_poll_sees_the_newest_row_and_the_count(void **state)
{
	(void)state;
	memset(&polled, 0, sizeof(polled));
	poll_with(NEWEST_URL, requirements_json);
	assert_true(polled.changed);
	poll_with(NEWEST_URL, requirements_json);
	assert_false(polled.changed);
	poll_with(NEWEST_URL, rows_json(1, 1, 2));
	assert_true(polled.changed);
	poll_with(NEWEST_URL, rows_json(1, 1, 1));
	assert_true(polled.changed);
	poll_with(NEWEST_URL, rows_json(1, 1, 1));
	assert_false(polled.changed);
	snprintf(polled.cursor, sizeof(polled.cursor), "nonsense");
	poll_with(NEWEST_URL, rows_json(1, 1, 1));
	assert_true(polled.changed);
}

static void test_where_attaching_moves_no_date_all_rows_are_compared(void **state)
{
	struct remote_change item = file("notes.txt", 3);
	int done = 0;

	(void)state;
	memset(&polled, 0, sizeof(polled));
	poll_with(NEWEST_URL, requirements_json);
	answer(upload(&item, 1, &done), 201, created_json);
	remote_file_clear(&item.file);
	/* a day after the newest row's date something was attached */
	poll_with(NEWEST_URL, requirements_json);
	assert_true(polled.changed);
	poll_with(TREE_URL("0"), requirements_json);
	assert_true(polled.changed);
	poll_with(TREE_URL("0"), requirements_json);
	assert_false(polled.changed);
	poll_with(TREE_URL("0"), rows_json(1, 1, 1));
	assert_true(polled.changed);
}

static void test_of_many_rows_a_page_at_a_time_is_compared(void **state)
{
	(void)state;
	memset(&polled, 0, sizeof(polled));
	snprintf(polled.cursor, sizeof(polled.cursor), "2;0;-1;");
	poll_with(TREE_URL("0"), rows_json(1, 2, 1500));
	assert_true(polled.changed);
	poll_with(TREE_URL("1000"), rows_json(3, 4, 1500));
	assert_true(polled.changed);
	poll_with(TREE_URL("0"), rows_json(1, 2, 1500));
	assert_false(polled.changed);
	poll_with(TREE_URL("1000"), rows_json(3, 5, 1500));
	assert_true(polled.changed);
	poll_with(TREE_URL("0"), rows_json(1, 2, 1500));
	assert_false(polled.changed);
}

static void test_nothing_changes_in_sets(void **state)
{
	(void)state;
	memset(&polled, 0, sizeof(polled));
	assert_int_equal(remote->ops->poll(remote, "sets", "0", on_polled, NULL), 0);
	assert_int_equal(polled.done, 1);
	assert_false(polled.changed);
	assert_int_equal(remote->ops->poll(remote, "projects", NULL, on_polled, NULL), -EINVAL);
}

/* the rest */

static struct {
	int done, error;
	char text[400];
} told;

static void on_record(void *ctx, int error, const char *id, const char *message)
{
	(void)ctx;
	(void)message;
	told.done++;
	told.error = error;
	snprintf(told.text, sizeof(told.text), "%s", id ? id : "");
}

static void test_a_set_is_made(void **state)
{
	(void)state;
	memset(&told, 0, sizeof(told));
	assert_int_equal(remote->ops->make_record(remote, "sets", "mine", on_record, NULL), 0);
	answer(next_sent("POST", BASE "/temporaryattachmentsets"), 201,
	       "{\"Id\":\"" R1 "\",\"Self\":\"http://x/\"}");
	assert_int_equal(told.error, 0);
	assert_string_equal(told.text, R1);
	assert_int_equal(remote->ops->make_record(remote, "sets", "mine", on_record, NULL), 0);
	answer(next_sent("POST", BASE "/temporaryattachmentsets"), 201, "{\"Id\":\"" NIL "\"}");
	assert_int_equal(told.error, -EIO);
	assert_int_equal(remote->ops->make_record(remote, "scripts", "x", on_record, NULL),
			 -EINVAL);
}

static void on_text(void *ctx, int error, const char *text, size_t len, const char *message)
{
	(void)ctx;
	(void)message;
	told.done++;
	told.error = error;
	snprintf(told.text, sizeof(told.text), "%.*s", (int)len, text ? text : "");
}

static void test_a_records_fields_are_text(void **state)
{
	(void)state;
	memset(&told, 0, sizeof(told));
	assert_int_equal(remote->ops->record_json(remote, "requirements", R1, on_text, NULL), 0);
	answer(next_sent("GET", BASE "/requirement/" R1), 200, "{\"Name\":\"a\"}");
	assert_string_equal(told.text, "{\n  \"Name\": \"a\"\n}\n");
	assert_int_equal(remote->ops->record_json(remote, "agilerunsteps", BOTH, on_text, NULL), 0);
	answer(next_sent("GET", BASE "/agilerun/" R1 "?$expand=Steps"), 200,
	       "{\"Steps\":[{\"Id\":\"" R2 "\"},{\"Id\":\"" A1 "\",\"N\":1}]}");
	assert_int_equal(told.error, 0);
	assert_non_null(strstr(told.text, "\"N\": 1"));
	assert_int_equal(remote->ops->record_json(remote, "agilerunsteps", BOTH, on_text, NULL), 0);
	answer(next_sent("GET", BASE "/agilerun/" R1 "?$expand=Steps"), 200, "{\"Steps\":[]}");
	assert_int_equal(told.error, -ENOENT);
}

static int n_findings;

static void on_finding(void *ctx, enum remote_verdict verdict, const char *topic, const char *text)
{
	(void)ctx;
	(void)verdict;
	assert_true(*topic != '\0' && *text != '\0');
	n_findings++;
}

static void test_a_check_asks_one_thing_after_the_other(void **state)
{
	int done = 0;

	(void)state;
	n_findings = 0;
	assert_int_equal(remote->ops->check(remote, on_finding, count_done, &done), 0);
	answer(next_sent("GET", BASE "/systeminfo"), 200,
	       "{\"Version\":\"6.4.1.0\",\"TimeZoneId\":\"UTC\"}");
	answer(next_sent("GET", BASE "/"), 200, "{\"Links\":[{\"Rel\":\"Requirements\"},7]}");
	answer(next_sent("GET", BASE "/projects?$top=1&$inlinecount=allpages&$orderby=Name"), 200,
	       "{\"Total\":2,\"Items\":[{\"Name\":\"P\"}]}");
	for (int i = 0; i < 3; i++) {
		static const char *const sets[] = {"requirements", "scripts", "incidents"};
		char url[300];
		snprintf(url, sizeof(url),
			 BASE "/%s?tql=ORDER%%20BY%%20LastUpdatedAt%%20DESC%%2C%%20Id&$top=1"
			      "&$inlinecount=allpages",
			 sets[i]);
		answer(next_sent("GET", url), i ? 200 : 403, "{\"Total\":1,\"Items\":[]}");
	}
	assert_int_equal(done, 1);
	assert_true(n_findings >= 10);
}

static struct {
	_Atomic int done;
	int error;
	size_t len;
} fetched;

static bool on_begin(void *ctx, int64_t total, uint64_t offset)
{
	(void)ctx;
	(void)total;
	assert_int_equal(offset, 0);
	return true;
}

static bool on_bytes(void *ctx, const void *data, size_t len)
{
	(void)ctx;
	(void)data;
	fetched.len += len;
	return true;
}

static void on_fetched(void *ctx, int error)
{
	(void)ctx;
	fetched.error = error;
	fetched.done++;
}

static void test_a_login_page_is_no_content(void **state)
{
	static const struct {
		const char *name, *type;
		int64_t size;
		int error;
	} rows[] = {
		{"a.txt", "text/plain", 5, 0},
		{"a.html", "text/html", 5, 0},
		{"a.txt", "application/octet-stream", 6, -EIO},
		{"a.txt", "text/html; charset=utf-8", 400, -EACCES},
		{"a.html", "text/html", 400, -EACCES},
		{"a.txt", "text/html", -1, -EACCES},
		{"a.html", "text/html", -1, 0},
	};
	struct remote_fetch_sink to = {on_begin, on_bytes, on_fetched, NULL};
	uint64_t id;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct remote_file f = {.id = (char *)A1,
					.version = (char *)A1,
					.name = (char *)rows[i].name,
					.size = rows[i].size};
		memset(&fetched, 0, sizeof(fetched));
		assert_int_equal(remote->ops->fetch(remote, TRANSFER_INTERACTIVE, &f, "scripts", 0,
						    0, 0, &to, &id),
				 0);
		answer_as(next_sent("GET", BASE "/attachment/" A1 "/contents"), 200, rows[i].type,
			  "12345");
		wait_for(&fetched.done);
		assert_int_equal(fetched.error, rows[i].error);
		assert_int_equal(fetched.len, rows[i].error ? 0 : 5);
	}
	struct remote_file f = {.id = (char *)"../x", .version = (char *)A1};
	assert_int_equal(
		remote->ops->fetch(remote, TRANSFER_INTERACTIVE, &f, "scripts", 0, 0, 0, &to, &id),
		-EINVAL);
}

static void test_without_a_user_there_is_no_mount(void **state)
{
	struct options options = {.system = OPTIONS_SYSTEM_ENTERPRISE_TESTER,
				  .base_url = (char *)"https://et.example/et/api"};
	struct remote *r;
	char message[256];

	(void)state;
	assert_int_equal(remote_new(&options, NULL, NULL, &r, message, sizeof(message)), -EACCES);
	assert_non_null(strstr(message, "user="));
	options.user = (char *)"a:b";
	assert_int_equal(remote_new(&options, NULL, NULL, &r, message, sizeof(message)), -EINVAL);
	options.user = (char *)"ada";
	options.collections = (char *)"requirements:projects";
	assert_int_equal(remote_new(&options, NULL, NULL, &r, message, sizeof(message)), -EINVAL);
	assert_non_null(strstr(message, "projects"));
	options.collections = NULL;
	unsetenv("ATTACHFS_PASSWORD");
	assert_int_equal(remote_new(&options, NULL, NULL, &r, message, sizeof(message)), -EACCES);
	assert_non_null(strstr(message, "password_file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requirements_are_read_with_their_attachments),
		cmocka_unit_test(test_of_swapped_names_the_one_with_an_extension_is_taken),
		cmocka_unit_test(test_attachments_without_an_id_are_left_out_and_counted),
		cmocka_unit_test(test_rows_that_cannot_be_understood_fail_the_page),
		cmocka_unit_test(test_fields_of_wrong_types_are_as_good_as_absent),
		cmocka_unit_test(test_records_have_a_readable_name),
		cmocka_unit_test(test_two_ids_are_one_and_two_again),
		cmocka_unit_test(test_owners_are_addressed_as_section_3_says),
		cmocka_unit_test(test_queries_are_escaped),
		cmocka_unit_test(test_dispositions_are_written_as_section_5_shows),
		cmocka_unit_test(test_a_record_is_patched_with_its_own_name_field),
		cmocka_unit_test(test_statuses_mean_what_section_10_says),
		cmocka_unit_test(test_answers_find_their_items),
		cmocka_unit_test(test_items_of_one_name_keep_their_order),
		cmocka_unit_test(test_a_look_finds_only_what_was_made_since),
		cmocka_unit_test(test_whether_attaching_moves_a_record_is_learned),
		CALL_TEST(test_a_collection_is_one_call),
		CALL_TEST(test_pages_overlap_by_a_row),
		CALL_TEST(test_rows_that_vanish_hide_no_others),
		CALL_TEST(test_a_count_that_is_not_reached_fails_the_listing),
		CALL_TEST(test_without_totals_a_page_with_nothing_new_is_the_last),
		CALL_TEST(test_an_order_the_server_does_not_take_is_replaced_once),
		CALL_TEST(test_listings_that_make_no_sense_fail),
		CALL_TEST(test_a_row_without_its_attachments_is_asked_for_them),
		CALL_TEST(test_step_results_hang_below_script_runs),
		CALL_TEST(test_nodes_are_found_below_nodes),
		CALL_TEST(test_a_run_that_fails_fails_the_listing_but_a_gone_one_does_not),
		CALL_TEST(test_one_record_is_listed),
		CALL_TEST(test_a_login_page_counts_as_401),
		CALL_TEST(test_files_are_uploaded_in_one_request),
		CALL_TEST(test_the_example_of_section_5_is_read),
		CALL_TEST(test_uploads_that_did_not_work_out),
		CALL_TEST(test_after_a_refusal_of_many_the_record_is_looked_at),
		CALL_TEST(test_a_404_of_an_upload_is_a_gone_record_or_a_request_too_large),
		CALL_TEST(test_what_must_not_be_sent_is_not),
		CALL_TEST(test_deletes_go_side_by_side),
		CALL_TEST(test_a_record_is_renamed),
		CALL_TEST(test_a_poll_sees_the_newest_row_and_the_count),
		CALL_TEST(test_where_attaching_moves_no_date_all_rows_are_compared),
		CALL_TEST(test_of_many_rows_a_page_at_a_time_is_compared),
		CALL_TEST(test_nothing_changes_in_sets),
		CALL_TEST(test_a_set_is_made),
		CALL_TEST(test_a_records_fields_are_text),
		CALL_TEST(test_a_check_asks_one_thing_after_the_other),
		CALL_TEST(test_a_login_page_is_no_content),
		cmocka_unit_test(test_without_a_user_there_is_no_mount),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
