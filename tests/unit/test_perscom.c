/* SPDX-License-Identifier: MIT */

/*
 * The PERSCOM client. Its pure parts: every example of reference/perscom.md is read, every body
 * it shows is written, and what the traps say of names, times, links and errors is held to. And its
 * calls, with an engine, a pool and a clock that stand here: what is sent is looked at and answered
 * by the test, on its own thread.
 */

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "../../api/json.h"
#include "../../api/perscom.h"

static struct perscom_base base;

static int make_base(void **state)
{
	char message[128];

	(void)state;
	return perscom_base_parse("https://api.perscom.io/v2", &base, message, sizeof(message));
}

static int clear_base(void **state)
{
	(void)state;
	perscom_base_clear(&base);
	return 0;
}

static json_t *parse(const char *text)
{
	json_t *root = json_parse(text, strlen(text), NULL, 0);

	assert_non_null(root);
	return root;
}

/* Takes @json. */
static void assert_json(json_t *json, const char *expected)
{
	assert_non_null(json);
	char *text = json_dumps(json, JSON_COMPACT);
	assert_string_equal(text, expected);
	free(text);
	json_decref(json);
}

/* Section 2: users, with the envelope of every list. */
static const char users_json[] =
	"{\"data\": [{\"id\": 12, \"name\": \"Ada Byron\", \"email\": \"ada@example.org\", "
	"\"approved\": true,"
	"\"created_at\": \"2026-01-05T09:00:00.000000Z\", \"updated_at\": "
	"\"2026-02-01T10:00:00.000000Z\"}],"
	"\"links\": {\"first\": \"https:\\/\\/api.perscom.io\\/v2\\/users\\/search?page=1\", "
	"\"prev\": null,"
	"\"next\": null, \"last\": \"https:\\/\\/api.perscom.io\\/v2\\/users\\/search?page=1\"},"
	"\"meta\": {\"current_page\": 1, \"from\": 1, \"last_page\": 1, \"per_page\": 1000, "
	"\"to\": 1, \"total\": 1,"
	"\"path\": \"https:\\/\\/api.perscom.io\\/v2\\/users\\/search\", \"links\": [{\"url\": "
	"null,"
	"\"label\": \"&laquo; Previous\", \"active\": false}]}}";

/* Section 3: one attachment. */
static const char file_json[] =
	"{\"data\": {\"id\": 77, \"name\": \"Range card\", \"filename\": \"range-card.txt\","
	"\"model_type\": \"App\\\\Models\\\\Event\", \"model_id\": 7,"
	"\"path\": \"q7Zp0LkX3vB9tYcR2mWn8sDf5hJg1aKe4uTo6iPb.txt\", \"label\": \"Attachment: 77\","
	"\"created_at\": \"2026-03-01T08:15:30.000000Z\", \"updated_at\": "
	"\"2026-03-02T08:15:30.000000Z\","
	"\"attachment_url\": "
	"\"https:\\/\\/files.example.net\\/tenant42\\/"
	"q7Zp0LkX3vB9tYcR2mWn8sDf5hJg1aKe4uTo6iPb.txt\"}}";

/* Section 9: the reply of a batch. */
static const char batch_json[] =
	"{\"data\": [{\"id\": 78, \"name\": \"Range card B\", \"filename\": \"b.txt\","
	"\"model_type\": \"App\\\\Models\\\\User\", \"model_id\": 12, \"label\": \"Attachment: "
	"78\","
	"\"path\": \"Zk3vB9tYcR2mWn8sDf5hJg1aKe4uTo6iPbq7Zp0L.pdf\","
	"\"attachment_url\": \"\\/storage\\/Zk3vB9tYcR2mWn8sDf5hJg1aKe4uTo6iPbq7Zp0L.pdf\","
	"\"created_at\": \"2026-03-01T08:15:30.000000Z\", \"updated_at\": "
	"\"2026-03-02T10:00:00.000000Z\"}]}";

/* Section 9: events with their attachments. */
static const char events_json[] =
	"{\"data\": [{\"id\": 7, \"name\": \"Live fire\", \"description\": \"Range 4\", "
	"\"location\": \"Bend\","
	"\"all_day\": false, \"attachments\": [], \"label\": \"Event: 7\","
	"\"created_at\": \"2026-02-01T08:00:00.000000Z\", \"updated_at\": "
	"\"2026-03-02T10:00:00.000000Z\"}]}";

/* Section 10. */
static const char error_json[] =
	"{\"error\": {\"message\": \"The name field is required. (and 1 more error)\","
	"\"type\": \"ValidationException\", \"request_id\": "
	"\"6f0c1f0e-5a0e-4c57-9a36-0d6b8a5b7e11\","
	"\"trace_id\": \"0b9b8f0a-3a7e-4f5d-8a53-6a2f7f0c9d22\","
	"\"errors\": {\"name\": [\"The name field is required.\"], \"file\": [\"The file field is "
	"required.\"]}}}";

/* decoding */

static void test_a_list_of_users_is_read(void **state)
{
	json_t *root = parse(users_json);
	struct perscom_page page;
	int64_t ns;

	(void)state;
	/* Without include=attachments a row says nothing of its files: no listing is made of it. */
	assert_int_equal(
		perscom_decode_page(&base, root, perscom_find_collection("users"), 0, &page), -EIO);
	perscom_page_clear(&page);
	json_object_set_new(json_array_get(json_object_get(root, "data"), 0), "attachments",
			    json_array());
	assert_int_equal(
		perscom_decode_page(&base, root, perscom_find_collection("users"), 0, &page), 0);
	assert_int_equal(page.n_records, 1);
	assert_int_equal(page.n_files, 0);
	assert_int_equal(page.total, 1);
	assert_string_equal(page.records[0].id, "12");
	assert_string_equal(page.records[0].name, "Ada Byron");
	assert_int_equal(time_parse_iso8601("2026-02-01T10:00:00Z", &ns), 0);
	assert_true(page.records[0].mtime_ns == ns);
	perscom_page_clear(&page);
	json_decref(root);
}

static void test_an_attachment_is_read_whole(void **state)
{
	json_t *root = parse(file_json);
	struct remote_file f;
	int64_t ns;

	(void)state;
	assert_int_equal(
		perscom_decode_file(&base, json_object_get(root, "data"), PERSCOM_NAMES_LABEL, &f),
		0);
	assert_string_equal(f.id, "77");
	assert_string_equal(f.record, "7");
	assert_string_equal(f.name, "Range card.txt");
	assert_string_equal(f.raw_name, "Range card");
	assert_string_equal(f.raw_filename, "range-card.txt");
	assert_string_equal(f.version, "q7Zp0LkX3vB9tYcR2mWn8sDf5hJg1aKe4uTo6iPb.txt");
	assert_string_equal(
		f.url,
		"https://files.example.net/tenant42/q7Zp0LkX3vB9tYcR2mWn8sDf5hJg1aKe4uTo6iPb.txt");
	assert_int_equal(f.size, -1);
	assert_int_equal(time_parse_iso8601("2026-03-02T08:15:30Z", &ns), 0);
	assert_true(f.mtime_ns == ns);
	remote_file_clear(&f);
	assert_int_equal(perscom_decode_file(&base, json_object_get(root, "data"),
					     PERSCOM_NAMES_FILENAME, &f),
			 0);
	assert_string_equal(f.name, "range-card.txt");
	remote_file_clear(&f);
	json_decref(root);
}

static void test_a_batch_reply_is_read_and_its_relative_link_resolved(void **state)
{
	json_t *root = parse(batch_json);
	struct perscom_page page;

	(void)state;
	assert_int_equal(perscom_decode_page(&base, root, NULL, 0, &page), 0);
	assert_int_equal(page.n_files, 1);
	assert_int_equal(page.total, -1);
	assert_string_equal(page.files[0].id, "78");
	assert_string_equal(
		page.files[0].url,
		"https://api.perscom.io/storage/Zk3vB9tYcR2mWn8sDf5hJg1aKe4uTo6iPbq7Zp0L.pdf");
	perscom_page_clear(&page);
	json_decref(root);
}

static void test_events_with_attachments_are_read(void **state)
{
	json_t *root = parse(events_json);
	json_t *file = parse(file_json);
	struct perscom_page page;

	(void)state;
	json_t *list =
		json_object_get(json_array_get(json_object_get(root, "data"), 0), "attachments");
	json_array_append(list, json_object_get(file, "data"));
	/* A row that says another owner is the owner's that carries it. */
	json_object_set_new(json_object_get(file, "data"), "model_id", json_integer(99));
	assert_int_equal(
		perscom_decode_page(&base, root, perscom_find_collection("events"), 0, &page), 0);
	assert_string_equal(page.records[0].name, "Live fire");
	assert_int_equal(page.n_files, 1);
	assert_string_equal(page.files[0].record, "7");
	perscom_page_clear(&page);
	json_decref(file);
	json_decref(root);
}

static void test_soft_deleted_rows_of_old_servers_are_no_files(void **state)
{
	json_t *root = parse(
		"{\"data\":[{\"id\":1,\"name\":\"a\",\"deleted_at\":\"2024-01-01T00:00:00Z\"},"
		"{\"id\":2,\"name\":\"b\",\"deleted_at\":null}]}");
	struct perscom_page page;

	(void)state;
	assert_int_equal(perscom_decode_page(&base, root, NULL, 0, &page), 0);
	assert_int_equal(page.rows, 2);
	assert_int_equal(page.n_files, 1);
	assert_string_equal(page.files[0].id, "2");
	perscom_page_clear(&page);
	json_decref(root);
}

static void test_a_row_that_cannot_be_understood_fails_the_page(void **state)
{
	static const char *const bad[] = {
		"{\"data\":[{\"name\":\"no id\"}]}",
		"{\"data\":[{\"id\":-1}]}",
		"{\"data\":[{\"id\":0}]}",
		"{\"data\":[{\"id\":\"../77\"}]}",
		"{\"data\":[{\"id\":\"\"}]}",
		"{\"data\":[{\"id\":1.5}]}",
		"{\"data\":[{\"id\":9223372036854775807}]}",
		"{\"data\":[7]}",
		"{\"data\":{\"id\":1}}",
		"{\"data\":null}",
		"{}",
		"[]",
		"17",
	};
	struct perscom_page page;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *root = parse(bad[i]);
		assert_int_equal(perscom_decode_page(&base, root, NULL, 0, &page), -EIO);
		perscom_page_clear(&page);
		json_decref(root);
	}
}

static void test_fields_of_wrong_types_are_as_good_as_absent(void **state)
{
	json_t *root = parse(
		"{\"id\":\"5\",\"name\":3,\"filename\":[],\"path\":{},\"attachment_url\":false,"
		"\"model_id\":\"x\",\"updated_at\":12}");
	struct remote_file f;

	(void)state;
	assert_int_equal(perscom_decode_file(&base, root, 0, &f), 0);
	assert_string_equal(f.id, "5");
	assert_string_equal(f.name, "");
	assert_null(f.record);
	assert_null(f.raw_filename);
	assert_null(f.url);
	assert_string_equal(f.version, "@");
	assert_true(f.mtime_ns == REMOTE_TIME_NONE);
	remote_file_clear(&f);
	json_decref(root);
}

static void test_a_nul_in_a_name_is_kept_visible(void **state)
{
	json_t *root = parse(
		"{\"id\":5,\"name\":\"a\\u0000b.txt\",\"filename\":\"\\u0000\",\"path\":\"p\"}");
	struct remote_file f;

	(void)state;
	assert_int_equal(perscom_decode_file(&base, root, 0, &f), 0);
	assert_string_equal(f.raw_name, "a%00b.txt");
	assert_string_equal(f.raw_filename, "%00");
	remote_file_clear(&f);
	json_decref(root);
}

static void test_endless_names_are_cut_between_characters(void **state)
{
	char *text = malloc(3 * JSON_NAME_MAX);

	(void)state;
	memset(text, 'x', 3 * JSON_NAME_MAX);
	for (size_t i = 1; i + 1 < 3 * JSON_NAME_MAX - 1; i += 2)
		memcpy(text + i, "\xc3\xa4", 2);
	text[3 * JSON_NAME_MAX - 1] = '\0';
	json_t *value = json_string(text);
	assert_non_null(value);
	char *name = json_dup_name(value);
	assert_int_equal(strlen(name), JSON_NAME_MAX - 1);
	json_t *again = json_string(name);
	assert_non_null(again); /* still UTF-8 */
	json_decref(again);
	json_decref(value);
	free(name);
	free(text);
}

static void test_records_without_a_name_are_called_after_their_text(void **state)
{
	static const struct {
		const char *collection, *json, *name;
	} rows[] = {
		{"users", "{\"name\":\"Ada\"}", "Ada"},
		{"users", "{\"name\":\"\"}", "User 5"},
		{"users", "{\"name\":null}", "User 5"},
		{"tasks", "{\"title\":\"Clean\",\"name\":\"no\"}", "Clean"},
		{"service-records", "{\"text\":\"\\n  Promoted \\nto Sergeant\"}", "Promoted"},
		{"service-records", "{\"text\":\"<p><b>Promoted</b> to</p><p>more</p>\"}",
		 "Promoted to"},
		{"service-records", "{\"text\":\"1 < 2\"}", "1 < 2"},
		{"award-records", "{\"text\":null}", "Award 5"},
		{"award-records", "{\"text\":\"<p></p>\"}", "Award 5"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_t *row = parse(rows[i].json);
		char *name =
			perscom_record_name(perscom_find_collection(rows[i].collection), row, "5");
		assert_string_equal(name, rows[i].name);
		free(name);
		json_decref(row);
	}
}

static void test_every_owner_has_its_class(void **state)
{
	static const char *const names[] = {
		"users",
		"events",
		"tasks",
		"assignment-records",
		"award-records",
		"combat-records",
		"qualification-records",
		"rank-records",
		"service-records",
		"training-records",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct perscom_collection *c = perscom_find_collection(names[i]);
		assert_non_null(c);
		assert_ptr_equal(perscom_find_model(c->model_type), c);
		assert_int_equal(strncmp(c->model_type, "App\\Models\\", 11), 0);
	}
	assert_null(perscom_find_collection("documents"));
	assert_null(perscom_find_collection(NULL));
}

/* encoding */

static void test_searches_are_written(void **state)
{
	const char *const ids[] = {"77", "78"};

	(void)state;
	assert_json(perscom_body_page(NULL),
		    "{\"filters\":[],\"sort\":[{\"field\":\"id\",\"direction\":\"asc\"}]}");
	assert_json(perscom_body_page("1000"),
		    "{\"filters\":[{\"field\":\"id\",\"operator\":\">\",\"value\":1000}],"
		    "\"sort\":[{\"field\":\"id\",\"direction\":\"asc\"}]}");
	/* Section 3's example, as it stands there. */
	assert_json(perscom_body_owner("App\\Models\\Event", "7", ""),
		    "{\"filters\":[{\"field\":\"model_type\",\"operator\":\"=\",\"value\":"
		    "\"App\\\\Models\\\\Event\"},"
		    "{\"field\":\"model_id\",\"operator\":\"=\",\"value\":7}],"
		    "\"sort\":[{\"field\":\"id\",\"direction\":\"asc\"}]}");
	assert_json(perscom_body_ids(ids, 2),
		    "{\"filters\":[{\"field\":\"id\",\"operator\":\"in\",\"value\":[77,78]}],"
		    "\"sort\":[{\"field\":\"id\",\"direction\":\"asc\"}]}");
	assert_json(perscom_body_from_id("77"),
		    "{\"filters\":[{\"field\":\"id\",\"operator\":\">=\",\"value\":77}],"
		    "\"sort\":[{\"field\":\"id\",\"direction\":\"asc\"}]}");
	assert_json(
		perscom_body_newest_of(perscom_collection_bit(perscom_find_collection("users")) |
				       perscom_collection_bit(perscom_find_collection("tasks"))),
		"{\"filters\":[{\"field\":\"model_type\",\"operator\":\"in\",\"value\":"
		"[\"App\\\\Models\\\\User\",\"App\\\\Models\\\\Task\"]}],"
		"\"sort\":[{\"field\":\"updated_at\",\"direction\":\"desc\"},"
		"{\"field\":\"id\",\"direction\":\"desc\"}]}");
	assert_json(perscom_body_newest("App\\Models\\User"),
		    "{\"filters\":[{\"field\":\"model_type\",\"operator\":\"=\",\"value\":"
		    "\"App\\\\Models\\\\User\"}],"
		    "\"sort\":[{\"field\":\"updated_at\",\"direction\":\"desc\"},"
		    "{\"field\":\"id\",\"direction\":\"desc\"}]}");
}

static struct remote_change change(const char *id, const char *name)
{
	return (struct remote_change){
		.id = id, .name = name, .mtime_ns = REMOTE_TIME_NONE, .fd = -1};
}

static void test_renames_are_a_map_by_id(void **state)
{
	struct remote_change items[] = {change("78", "Range card B"),
					change("99", "Gone/\xc3\xa4")};

	(void)state;
	assert_json(
		perscom_body_update(items, 2),
		"{\"resources\":{\"78\":{\"name\":\"Range card B\",\"filename\":\"Range card B\"},"
		"\"99\":{\"name\":\"Gone/\xc3\xa4\",\"filename\":\"Gone/\xc3\xa4\"}}}");
}

static void test_an_entry_with_nothing_to_change_is_not_sent(void **state)
{
	struct remote_change items[] = {change("78", NULL), change("79", "b")};

	(void)state;
	assert_json(perscom_body_update(items, 2),
		    "{\"resources\":{\"79\":{\"name\":\"b\",\"filename\":\"b\"}}}");
}

static void test_two_changes_of_one_id_are_one_entry(void **state)
{
	struct remote_change items[] = {change("78", "a"), change("78", NULL)};

	(void)state;
	items[1].mtime_ns = 1772445600LL * CLOCK_NS_PER_S;
	assert_json(perscom_body_update(items, 2),
		    "{\"resources\":{\"78\":{\"name\":\"a\",\"filename\":\"a\","
		    "\"updated_at\":\"2026-03-02T10:00:00Z\"}}}");
}

static void test_a_move_names_class_and_id(void **state)
{
	struct remote_change item = change("77", NULL);

	(void)state;
	item.move = true;
	item.collection = "users";
	item.record = "12";
	item.mtime_ns = 1772445600LL * CLOCK_NS_PER_S + 999999999;
	assert_json(perscom_entry(&item),
		    "{\"updated_at\":\"2026-03-02T10:00:00Z\","
		    "\"model_type\":\"App\\\\Models\\\\User\",\"model_id\":12}");
	item.collection = "documents";
	assert_null(perscom_entry(&item));
	item.collection = "users";
	item.record = "12 or 1";
	assert_null(perscom_entry(&item));
}

static void test_deletes_are_a_list_of_ids(void **state)
{
	struct remote_change items[] = {change("77", NULL), change("78", NULL), change("x", NULL)};

	(void)state;
	assert_json(perscom_body_remove(items, 2), "{\"resources\":[77,78]}");
	assert_null(perscom_body_remove(items, 3));
}

static void test_records_are_renamed_by_their_own_field(void **state)
{
	struct remote_change items[] = {change("7", "Live fire"), change("8", NULL)};
	const struct perscom_collection *events = perscom_find_collection("events");

	(void)state;
	items[0].fields_json = "{\"id\":1,\"description\":\"Range 4\",\"name\":\"old\"}";
	assert_json(perscom_body_update_records(events, items, 2),
		    "{\"resources\":{\"7\":{\"description\":\"Range 4\",\"name\":\"Live fire\"}}}");
	items[0].fields_json = "[]";
	assert_null(perscom_body_update_records(events, items, 1));
	items[0].fields_json = NULL;
	assert_json(perscom_body_update_records(perscom_find_collection("tasks"), items, 1),
		    "{\"resources\":{\"7\":{\"title\":\"Live fire\"}}}");
	assert_null(perscom_record_entry(perscom_find_collection("rank-records"), &items[0]));
}

static void test_tame_names_are_those_a_part_keeps(void **state)
{
	static const char *const tame[] = {"a",	      "range-card.txt", "a b.txt",   "A_1.tar.gz",
					   "(1).txt", ".hidden",	"100% of it"};
	static const char *const wild[] = {"",	    " a",	    "a ",   "a/b", "a\\b", "a\"b",
					   "a%22b", "\xc3\xa4.txt", "a\nb", "a;b", "a:b",  "\x7f"};
	char longest[258];

	(void)state;
	for (size_t i = 0; i < sizeof(tame) / sizeof(tame[0]); i++)
		assert_int_equal(perscom_is_tame(tame[i]), strchr(tame[i], '%') == NULL);
	for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++)
		assert_false(perscom_is_tame(wild[i]));
	assert_false(perscom_is_tame(NULL));
	memset(longest, 'n', sizeof(longest));
	longest[256] = '\0';
	assert_false(perscom_is_tame(longest));
	longest[255] = '\0';
	assert_true(perscom_is_tame(longest));
}

static void test_a_part_has_the_name_when_it_is_tame_and_else_the_token(void **state)
{
	static const struct {
		const char *name, *token, *part;
	} rows[] = {
		{"range-card.txt", NULL, "range-card.txt"},
		{"range card (2).txt", "t0ken", "range card (2).txt"},
		{"a/b.txt", "t0ken", "t0ken"},
		{NULL, "original.bin", "original.bin"},
		{NULL, NULL, "upload.bin"},
		{"a/b.txt", "c/d", "upload.bin"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct remote_change item = change("7", rows[i].name);
		item.token = rows[i].token;
		assert_string_equal(perscom_part_filename(&item), rows[i].part);
	}
}

static void test_filler_is_recognisable_and_has_the_size_asked_for(void **state)
{
	char filler[PERSCOM_CREATE_MIN];

	(void)state;
	perscom_fill(filler, sizeof(filler));
	assert_memory_equal(filler, "attachfs filler", 15);
	assert_int_equal(memchr(filler, '\0', sizeof(filler)) != NULL, 0);
}

/* times */

static void test_times_are_read_in_every_form_servers_write(void **state)
{
	static const struct {
		const char *text;
		int64_t s, ns;
	} rows[] = {
		{"1970-01-01T00:00:00.000000Z", 0, 0},
		{"2026-03-01T08:15:30.000000Z", 1772352930, 0},
		{"2026-03-01T08:15:30Z", 1772352930, 0},
		{"2026-03-01 08:15:30", 1772352930, 0},
		{"2026-03-01T10:15:30+02:00", 1772352930, 0},
		{"2026-03-01T06:45:30-0130", 1772352930, 0},
		{"2026-03-01T10:15:30+02", 1772352930, 0},
		{"2026-03-01T08:15:30.5Z", 1772352930, 500000000},
		{"2026-03-01T08:15:30.123456789123Z", 1772352930, 123456789},
		{"2024-02-29T23:59:59Z", 1709251199, 0},
		{"1969-12-31T23:59:59Z", -1, 0},
		{"2000-03-01T00:00:00Z", 951868800, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t ns;
		assert_int_equal(time_parse_iso8601(rows[i].text, &ns), 0);
		assert_true(ns == rows[i].s * CLOCK_NS_PER_S + rows[i].ns);
	}
}

static void test_what_is_no_time_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"2026",
		"2026-03-01",
		"2026-03-01T08:15",
		"2026-03-01T08:15:30.Z",
		"2026-02-29T00:00:00Z",
		"2026-13-01T00:00:00Z",
		"2026-00-01T00:00:00Z",
		"2026-01-00T00:00:00Z",
		"2026-01-01T24:00:00Z",
		"2026-01-01T00:60:00Z",
		"2026-01-01T00:00:61Z",
		"2026-01-01T00:00:00Zx",
		"2026-01-01T00:00:00+1",
		"0000-01-01T00:00:00Z",
		"9999-01-01T00:00:00Z",
		"2026-01-01T00:00:00+99:00",
		"-026-01-01T00:00:00Z",
		"2026-01-01T00:00:00+02:",
		"2026/01/01T00:00:00Z",
	};
	int64_t ns;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(time_parse_iso8601(bad[i], &ns), -EINVAL);
}

static void test_times_survive_writing_and_reading(void **state)
{
	char text[TIME_ISO8601_SIZE];

	(void)state;
	for (int64_t s = -9000000000; s < 9000000000; s += 1234567) {
		int64_t ns;
		time_format_iso8601(s * CLOCK_NS_PER_S + 1, text);
		assert_int_equal(time_parse_iso8601(text, &ns), 0);
		assert_true(ns == s * CLOCK_NS_PER_S);
	}
	time_format_iso8601(-1, text);
	assert_string_equal(text, "1969-12-31T23:59:59Z");
	time_format_iso8601(INT64_MIN, text);
	time_format_iso8601(INT64_MAX, text);
}

static void test_only_times_the_server_can_hold_are_sent(void **state)
{
	char text[32];

	(void)state;
	assert_true(perscom_format_time(2147483647LL * CLOCK_NS_PER_S, text));
	assert_string_equal(text, "2038-01-19T03:14:07Z");
	assert_false(perscom_format_time(2147483648LL * CLOCK_NS_PER_S, text));
	assert_false(perscom_format_time(0, text));
	assert_false(perscom_format_time(-1, text));
	assert_false(perscom_format_time(REMOTE_TIME_NONE, text));
}

/* links */

static void test_bases_get_a_version_and_lose_slashes(void **state)
{
	struct perscom_base b;
	char message[128];

	(void)state;
	assert_int_equal(
		perscom_base_parse("https://h.example:8443/", &b, message, sizeof(message)), 0);
	assert_string_equal(b.url, "https://h.example:8443/v2");
	assert_string_equal(b.origin, "https://h.example:8443");
	assert_string_equal(b.host, "h.example");
	assert_string_equal(b.version, "v2");
	assert_false(b.http);
	perscom_base_clear(&b);
	assert_int_equal(perscom_base_parse("http://127.0.0.1:80/v1", &b, message, sizeof(message)),
			 0);
	assert_string_equal(b.url, "http://127.0.0.1:80/v1");
	assert_true(b.http);
	perscom_base_clear(&b);
	assert_int_equal(perscom_base_parse("ftp://x/v2", &b, message, sizeof(message)), -EINVAL);
	assert_int_equal(perscom_base_parse("https:///v2", &b, message, sizeof(message)), -EINVAL);
	assert_int_equal(perscom_base_parse("https://u:p@h/v2", &b, message, sizeof(message)),
			 -EINVAL);
	assert_int_equal(perscom_base_parse(NULL, &b, message, sizeof(message)), -EINVAL);
}

static void test_links_that_must_not_be_followed_are_no_links(void **state)
{
	static const struct {
		const char *link, *url;
	} rows[] = {
		{"https://files.example.net/a?b=c", "https://files.example.net/a?b=c"},
		{"/storage/a.txt", "https://api.perscom.io/storage/a.txt"},
		{"//cdn.example/a", "https://cdn.example/a"},
		{"http://127.0.0.2:99/a", "http://127.0.0.2:99/a"},
		{"http://[::1]:99/a", "http://[::1]:99/a"},
		{"http://files.example.net/a", NULL},
		{"http://127.0.0.1@evil.example/a", NULL},
		{"file:///etc/passwd", NULL},
		{"ftp://files.example.net/a", NULL},
		{"javascript:alert(1)", NULL},
		{"https://", NULL},
		{"https:///a", NULL},
		{"https://h/a b", NULL},
		{"https://h/a\r\nX: y", NULL},
		{"storage/a.txt", NULL},
		{"", NULL},
		{NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *url;
		assert_int_equal(perscom_url_resolve(&base, rows[i].link, &url), 0);
		if (rows[i].url)
			assert_string_equal(url, rows[i].url);
		else
			assert_null(url);
		free(url);
	}
}

static void test_the_end_of_a_presigned_link_is_known(void **state)
{
	(void)state;
	assert_true(
		perscom_url_expiry(
			"https://b.example/t/"
			"p.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k"
			"&X-Amz-Date=20260301T081530Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host"
			"&X-Amz-Signature=0") == 1772352930 + 3600);
	assert_true(perscom_url_expiry("https://b.example/t/p.txt") == INT64_MAX);
	assert_true(perscom_url_expiry("https://b.example/?X-Amz-Date=2026&X-Amz-Expires=3600") ==
		    INT64_MAX);
	assert_true(perscom_url_expiry(
			    "https://b.example/?X-Amz-Date=20260301T081530Z&X-Amz-Expires=x") ==
		    INT64_MAX);
	assert_true(perscom_url_expiry(
			    "https://b.example/?X-Amz-Date=20269901T081530Z&X-Amz-Expires=1") ==
		    INT64_MAX);
}

/* errors */

static void assert_words(const char *body, const char *expected)
{
	json_t *root = json_parse(body, strlen(body), NULL, 0);
	char words[201];

	call_find_words(root, body, strlen(body), words, sizeof(words));
	assert_string_equal(words, expected);
	json_decref(root);
}

static void test_the_servers_words_are_found_in_all_three_forms(void **state)
{
	(void)state;
	assert_words(error_json, "The name field is required. (and 1 more error)");
	assert_words("{\"error\":{\"message\":\"Invalid.\",\"errors\":{\"file\":[\"Too big.\"]}}}",
		     "Invalid.: Too big.");
	assert_words("{\"message\": \"Server Error\"}", "Server Error");
	assert_words("<html><head><title>413 Request Entity Too Large</title></head></html>",
		     "413 Request Entity Too Large");
	assert_words("{\"error\":\"invalid_token\",\"error_description\":\"expired\"}", "expired");
	assert_words("{\"error\":\"invalid_token\"}", "invalid_token");
	assert_words("{\"message\":\"two\\nlines\\u0007 \"}", "two lines");
	assert_words("{\"error\":{\"message\":\"\"}}", "");
	assert_words("<html>", "");
	assert_words("", "");
	assert_words("{\"error\":{\"errors\":{\"a\":7}}}", "");
}

static void test_long_words_are_cut_between_characters(void **state)
{
	char body[1000] = "{\"message\":\"", words[201];

	(void)state;
	for (int i = 0; i < 200; i++)
		strcat(body, i == 0 ? "x" : "\xc3\xa4");
	strcat(body, "\"}");
	json_t *root = parse(body);
	call_find_words(root, body, strlen(body), words, sizeof(words));
	json_t *text = json_string(words);
	assert_non_null(text);
	assert_true(strlen(words) >= 190);
	json_decref(text);
	json_decref(root);
}

static void test_statuses_become_errors_by_the_common_table(void **state)
{
	static const int rows[][2] = {
		{200, 0},	{201, 0},	{204, 0},	{400, -EINVAL}, {401, -EACCES},
		{402, -EACCES}, {403, -EACCES}, {404, -ENOENT}, {405, -EIO},	{409, -EBUSY},
		{413, -EFBIG},	{415, -EIO},	{422, -EINVAL}, {423, -EROFS},	{429, -EBUSY},
		{500, -EIO},	{502, -EIO},	{503, -EIO},	{302, -EIO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(call_status_errno(rows[i][0]), rows[i][1]);
}

static enum remote_outcome judge(int status, bool sent, const char *body, enum perscom_verb verb,
				 size_t n, int *error)
{
	json_t *root = body ? parse(body) : NULL;
	struct call_reply reply = {.status = status, .sent = sent, .json = root, .message = ""};

	reply.error = status ? call_status_errno(status) : -EIO;
	if (status >= 200 && status < 300 && !root)
		reply.error = -EIO;
	enum remote_outcome outcome = perscom_judge(&reply, verb, n, error);
	json_decref(root);
	return outcome;
}

static void test_outcomes_follow_from_what_is_known_to_have_happened(void **state)
{
	int e;

	(void)state;
	assert_int_equal(judge(201, true, file_json, PERSCOM_CREATE, 1, &e), REMOTE_DONE);
	/* Nothing came back: a create may have been done (P-22), the others can be done again. */
	assert_int_equal(judge(0, true, NULL, PERSCOM_CREATE, 1, &e), REMOTE_UNKNOWN);
	assert_int_equal(judge(0, false, NULL, PERSCOM_CREATE, 1, &e), REMOTE_RETRY);
	assert_int_equal(judge(0, true, NULL, PERSCOM_UPDATE, 1, &e), REMOTE_RETRY);
	assert_int_equal(judge(0, true, NULL, PERSCOM_REMOVE, 9, &e), REMOTE_RETRY);
	assert_int_equal(judge(201, true, NULL, PERSCOM_CREATE, 1, &e), REMOTE_UNKNOWN);
	assert_int_equal(judge(502, true, NULL, PERSCOM_CREATE, 1, &e), REMOTE_UNKNOWN);
	assert_int_equal(judge(503, true, NULL, PERSCOM_CREATE, 1, &e), REMOTE_RETRY);
	assert_int_equal(judge(429, true, NULL, PERSCOM_CREATE, 1, &e), REMOTE_RETRY);
	assert_int_equal(e, -EBUSY);
	assert_int_equal(judge(401, true, NULL, PERSCOM_CREATE, 1, &e), REMOTE_RETRY);
	assert_int_equal(e, -EACCES);
	assert_int_equal(judge(403, true, NULL, PERSCOM_CREATE, 1, &e), REMOTE_REFUSED);
	assert_int_equal(judge(404, true, NULL, PERSCOM_UPDATE, 1, &e), REMOTE_GONE);
	assert_int_equal(e, -ENOENT);
	assert_int_equal(judge(404, true, NULL, PERSCOM_REMOVE, 1, &e), REMOTE_GONE);
	assert_int_equal(e, 0);
	/* A batch's 500 may be one entry's (P-11): divide; alone it may pass. */
	assert_int_equal(judge(500, true, "{\"message\":\"Server Error\"}", PERSCOM_UPDATE, 5, &e),
			 REMOTE_REFUSED);
	assert_int_equal(e, -EINVAL);
	assert_int_equal(judge(500, true, "{\"message\":\"Server Error\"}", PERSCOM_UPDATE, 1, &e),
			 REMOTE_RETRY);
	assert_int_equal(judge(413, true, NULL, PERSCOM_REPLACE, 1, &e), REMOTE_REFUSED);
	assert_int_equal(e, -EFBIG);
}

static void test_a_422_says_by_its_field_what_is_wrong(void **state)
{
	int e;

	(void)state;
	assert_int_equal(judge(422, true, error_json, PERSCOM_CREATE, 1, &e), REMOTE_REFUSED);
	assert_int_equal(e, -EINVAL);
	judge(422, true,
	      "{\"error\":{\"errors\":{\"name\":[\"The name field must not be greater than 255 "
	      "characters.\"]}}}",
	      PERSCOM_CREATE, 1, &e);
	assert_int_equal(e, -ENAMETOOLONG);
	judge(422, true,
	      "{\"error\":{\"errors\":{\"resources.78.name\":[\"The name must not be greater than "
	      "255 characters.\"]}}}",
	      PERSCOM_UPDATE, 2, &e);
	assert_int_equal(e, -ENAMETOOLONG);
	judge(422, true,
	      "{\"error\":{\"errors\":{\"file\":[\"The file field must not be greater than 10000 "
	      "kilobytes.\"]}}}",
	      PERSCOM_CREATE, 1, &e);
	assert_int_equal(e, -EFBIG);
	judge(422, true,
	      "{\"error\":{\"errors\":{\"file\":[\"The file field must be at least 1 "
	      "kilobytes.\"]}}}",
	      PERSCOM_CREATE, 1, &e);
	assert_int_equal(e, -EINVAL);
	judge(422, true, "{\"error\":{\"message\":\"old server\"}}", PERSCOM_CREATE, 1, &e);
	assert_int_equal(e, -EINVAL);
}

static void test_a_422_of_a_batch_names_its_entries(void **state)
{
	json_t *root = parse("{\"error\":{\"errors\":{\"resources.7.name\":[\"no\"]}}}");
	const char *words = NULL;
	int e = 0;

	(void)state;
	assert_true(perscom_blames(root, "7", &e, &words));
	assert_int_equal(e, -EINVAL);
	assert_string_equal(words, "no");
	assert_false(perscom_blames(root, "78", &e, &words));
	assert_false(perscom_blames(NULL, "7", &e, &words));
	json_decref(root);
}

static void test_files_are_copied_whole(void **state)
{
	json_t *root = parse(file_json);
	struct remote_file f, copy;

	(void)state;
	assert_int_equal(perscom_decode_file(&base, json_object_get(root, "data"), 0, &f), 0);
	assert_true(remote_file_copy(&copy, &f));
	assert_string_equal(copy.version, f.version);
	assert_ptr_not_equal(copy.version, f.version);
	assert_string_equal(copy.url, f.url);
	assert_null(copy.media_type);
	remote_file_clear(&f);
	remote_file_clear(&copy);
	assert_null(copy.id);
	json_decref(root);
}

/* The engine, pool and clock of the tests below: one thread, no network. */

#define SENT_MAX 32

struct sent {
	char *method, *url, *body, *part_filename;
	bool (*head)(void *ctx, const struct transfer_head *head);
	bool (*data)(void *ctx, const void *data, size_t len);
	void (*done)(void *ctx, const struct transfer_result *result);
	void *ctx;
	bool cancelled, paused;
	enum transfer_class class;
};

static struct {
	int64_t now_ms;
	struct sent sent[SENT_MAX];
	size_t n_sent, n_answered;
	int refuse;		/* what transfer_start() answers instead */
	void (*on_start)(void); /* within transfer_start(), as another thread might */
} world;

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
	(void)engine;
	if (world.refuse < 0)
		return world.refuse;
	assert_true(world.n_sent < SENT_MAX);
	struct sent *s = &world.sent[world.n_sent++];
	*s = (struct sent){.method = strdup(spec->method),
			   .url = strdup(spec->url),
			   .body = strndup(spec->body ? spec->body : "", spec->body_len),
			   .head = spec->headers_cb,
			   .data = spec->data_cb,
			   .done = spec->done_cb,
			   .ctx = spec->ctx,
			   .class = spec->class};
	for (size_t i = 0; i < spec->n_parts; i++)
		if (strcmp(spec->parts[i].name, "file") == 0)
			s->part_filename = strdup(spec->parts[i].filename);
	if (ret_id)
		*ret_id = world.n_sent;
	if (world.on_start)
		world.on_start();
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
	world.sent[id - 1].cancelled = true;
}

void transfer_pause(struct engine *engine, uint64_t id)
{
	(void)engine;
	world.sent[id - 1].paused = true;
}

void transfer_resume(struct engine *engine, uint64_t id)
{
	(void)engine;
	world.sent[id - 1].paused = false;
}

void transfer_set_class(struct engine *engine, uint64_t id, enum transfer_class class)
{
	(void)engine;
	world.sent[id - 1].class = class;
}

static int begin_world(void **state)
{
	struct options options = {.system = OPTIONS_SYSTEM_PERSCOM,
				  .base_url = (char *)"https://api.perscom.io/v2"};
	char message[256];

	(void)state;
	memset(&world, 0, sizeof(world));
	world.now_ms = 1000000;
	setenv("ATTACHFS_TOKEN", "token-of-the-unit-test", 1);
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
		free(world.sent[i].part_filename);
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
	return s;
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
				     .rate_remaining = -1};

	s->head(s->ctx, &head);
	if (*body != '\0')
		s->data(s->ctx, body, strlen(body));
	answer_error(s, 0, status);
}

static void count_done(void *ctx, int error, const char *message)
{
	int *calls = ctx;

	(void)message;
	assert_int_equal(error, 0);
	++*calls;
}

#define UPDATE_URL "https://api.perscom.io/v2/attachments/batch"

static void test_one_rename_goes_out_as_a_batch(void **state)
{
	struct remote_change item = change("78", "Range card B");
	int done = 0;

	(void)state;
	assert_int_equal(
		remote->ops->update(remote, TRANSFER_WRITEBACK, &item, 1, count_done, &done), 0);
	struct sent *s = next_sent("PATCH", UPDATE_URL);
	assert_string_equal(s->body, "{\"resources\":{\"78\":{\"name\":\"Range card B\","
				     "\"filename\":\"Range card B\"}}}");
	answer(s, 200, batch_json);
	assert_int_equal(done, 1);
	assert_int_equal(item.outcome, REMOTE_DONE);
	assert_string_equal(item.file.raw_name, "Range card B");
	remote_file_clear(&item.file);
}

static void test_one_record_is_renamed_by_a_batch(void **state)
{
	struct remote_change item = change("7", "Live fire");
	int done = 0;

	(void)state;
	item.collection = "events";
	assert_int_equal(remote->ops->update_records(remote, TRANSFER_WRITEBACK, &item, 1,
						     count_done, &done),
			 0);
	struct sent *s = next_sent("PATCH", "https://api.perscom.io/v2/events/batch");
	assert_string_equal(s->body, "{\"resources\":{\"7\":{\"name\":\"Live fire\"}}}");
	answer(s, 200, events_json);
	assert_int_equal(done, 1);
	assert_int_equal(item.outcome, REMOTE_DONE);
}

static void test_a_batch_of_one_has_the_outcomes_of_one(void **state)
{
	static const struct {
		int status;
		const char *body;
		enum remote_outcome outcome;
		int error;
	} rows[] = {
		{200, "{\"data\":[]}", REMOTE_GONE, -ENOENT},
		{200, "{\"data\":{}}", REMOTE_RETRY, -EIO},
		{200, "{}", REMOTE_RETRY, -EIO},
		{200, "", REMOTE_RETRY, -EIO},
		{200, "{\"data\":[{\"id\":[]},7,{}]}", REMOTE_GONE, -ENOENT},
		{500, "{\"message\":\"Server Error\"}", REMOTE_RETRY, -EIO},
		{422,
		 "{\"error\":{\"errors\":{\"resources.78.name\":[\"must not be greater than 255 "
		 "characters\"]}}}",
		 REMOTE_REFUSED, -ENAMETOOLONG},
		{403, "{}", REMOTE_REFUSED, -EACCES},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct remote_change item = change("78", "b");
		int done = 0;
		assert_int_equal(remote->ops->update(remote, TRANSFER_WRITEBACK, &item, 1,
						     count_done, &done),
				 0);
		answer(next_sent("PATCH", UPDATE_URL), rows[i].status, rows[i].body);
		assert_int_equal(done, 1);
		assert_int_equal(item.outcome, rows[i].outcome);
		assert_int_equal(item.error, rows[i].error);
	}
}

static void test_an_item_that_never_left_is_not_done(void **state)
{
	struct remote_change items[] = {change("78", "a"), change("79", "b")};
	int done = 0;

	(void)state;
	items[0].outcome = items[1].outcome = REMOTE_DONE;
	world.refuse = -EMFILE;
	assert_int_equal(
		remote->ops->update(remote, TRANSFER_WRITEBACK, items, 2, count_done, &done),
		-EMFILE);
	assert_int_equal(items[0].outcome, REMOTE_RETRY);
	assert_int_equal(
		remote->ops->replace(remote, TRANSFER_WRITEBACK, items, 2, count_done, &done),
		-EMFILE);
	assert_int_equal(items[1].outcome, REMOTE_RETRY);
	/* What a 422 left over, and cannot be sent again. */
	world.refuse = 0;
	assert_int_equal(
		remote->ops->update(remote, TRANSFER_WRITEBACK, items, 2, count_done, &done), 0);
	struct sent *s = next_sent("PATCH", UPDATE_URL);
	world.refuse = -ECANCELED;
	answer(s, 422, "{\"error\":{\"errors\":{\"resources.78.name\":[\"no\"]}}}");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_REFUSED);
	assert_int_equal(items[1].outcome, REMOTE_RETRY);
	assert_int_equal(items[1].error, -ECANCELED);
}

static void test_a_replacement_is_uploaded_under_name_or_token(void **state)
{
	struct remote_change items[] = {change("77", "range card.txt"), change("77", NULL)};
	int done = 0;

	(void)state;
	items[0].token = items[1].token = "t0ken.bin";
	items[0].filler = items[1].filler = true;
	assert_int_equal(
		remote->ops->replace(remote, TRANSFER_WRITEBACK, items, 2, count_done, &done), 0);
	struct sent *s = next_sent("POST", "https://api.perscom.io/v2/attachments/77");
	assert_string_equal(s->part_filename, "range card.txt");
	answer(s, 200, file_json);
	s = next_sent("POST", "https://api.perscom.io/v2/attachments/77");
	assert_string_equal(s->part_filename, "t0ken.bin");
	assert_int_equal(done, 0);
	answer(s, 200, "{\"data\":[]}");
	assert_int_equal(done, 1);
	assert_int_equal(items[0].outcome, REMOTE_DONE);
	assert_int_equal(items[1].outcome, REMOTE_RETRY);
	remote_file_clear(&items[0].file);
}

#define CREATE_URL "https://api.perscom.io/v2/attachments?include=model"

static struct remote_change creation(const char *name)
{
	struct remote_change item = change(NULL, name);

	item.collection = "users";
	item.record = "12";
	item.filler = true;
	return item;
}

static const char owned_json[] =
	"{\"data\":{\"id\":78,\"name\":\"a\",\"path\":\"p\",\"model\":{\"id\":12}}}";
static const char orphan_json[] =
	"{\"data\":{\"id\":77,\"name\":\"a\",\"path\":\"p\",\"model\":null}}";

static void test_a_file_that_became_nobodys_is_deleted_and_the_record_gone(void **state)
{
	static const struct {
		int status;
		const char *body;
	} rows[] = {{200, "{\"data\":{\"id\":77}}"}, {404, "{}"}, {500, "{}"}, {403, "{}"}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct remote_change items[] = {creation("a"), creation("b")};
		int done = 0;
		assert_int_equal(remote->ops->create(remote, TRANSFER_WRITEBACK, items, 2,
						     count_done, &done),
				 0);
		struct sent *first = next_sent("POST", CREATE_URL);
		struct sent *second = next_sent("POST", CREATE_URL);
		answer(first, 201, orphan_json);
		answer(second, 201, owned_json);
		assert_int_equal(done, 0);
		answer(next_sent("DELETE", "https://api.perscom.io/v2/attachments/77"),
		       rows[i].status, rows[i].body);
		assert_int_equal(done, 1);
		assert_int_equal(items[0].outcome, REMOTE_REFUSED);
		assert_int_equal(items[0].error, -ENOENT);
		assert_null(items[0].file.id);
		assert_int_equal(items[1].outcome, REMOTE_DONE);
		assert_string_equal(items[1].file.id, "78");
		remote_file_clear(&items[1].file);
	}
}

static void test_an_orphan_that_cannot_be_deleted_any_more_is_no_success(void **state)
{
	struct remote_change item = creation("a");
	int done = 0;

	(void)state;
	assert_int_equal(
		remote->ops->create(remote, TRANSFER_WRITEBACK, &item, 1, count_done, &done), 0);
	struct sent *s = next_sent("POST", CREATE_URL);
	world.refuse = -ECANCELED; /* the mount ends */
	answer(s, 201, orphan_json);
	assert_int_equal(done, 1);
	assert_int_equal(item.outcome, REMOTE_UNKNOWN);
	assert_null(item.file.id);
}

static void test_a_server_that_does_not_tell_the_owner_made_no_orphan(void **state)
{
	struct remote_change item = creation("a");
	int done = 0;

	(void)state;
	assert_int_equal(
		remote->ops->create(remote, TRANSFER_WRITEBACK, &item, 1, count_done, &done), 0);
	answer(next_sent("POST", CREATE_URL), 201,
	       "{\"data\":{\"id\":77,\"name\":\"a\",\"path\":\"p\"}}");
	assert_int_equal(done, 1);
	assert_int_equal(item.outcome, REMOTE_DONE);
	remote_file_clear(&item.file);
}

/* Of 77 in user 12 under the label "a" (P-31), to event 9 as "b". */
static struct remote_change emigration(const char *name)
{
	struct remote_change item = change("77", name);

	item.move = true;
	item.collection = "events";
	item.record = "9";
	item.known_collection = "users";
	item.known_record = "12";
	item.known_name = "a";
	item.known_filename = "a.txt";
	return item;
}

#define MOVE_URL "https://api.perscom.io/v2/attachments/batch?include=model"
#define MOVED_ROW(id, model)                                                                       \
	"{\"id\":" id ",\"name\":\"b\",\"path\":\"p\","                                            \
	"\"model_type\":\"App\\\\Models\\\\Event\",\"model_id\":9" model "}"

static void test_what_was_moved_to_nobody_is_put_back_and_refused(void **state)
{
	static const struct {
		int status;
		const char *body;
		enum remote_outcome outcome;
		int error;
	} rows[] = {
		{200, "{\"data\":[{\"id\":77}]}", REMOTE_REFUSED, -ENOENT},
		{200, "{\"data\":[]}", REMOTE_UNKNOWN, -EIO},
		{200, "{}", REMOTE_UNKNOWN, -EIO},
		{500, "{}", REMOTE_UNKNOWN, -EIO},
		{403, "{}", REMOTE_UNKNOWN, -EIO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct remote_change items[] = {emigration("b"), change("78", "b")};
		int done = 0;
		assert_int_equal(remote->ops->update(remote, TRANSFER_WRITEBACK, items, 2,
						     count_done, &done),
				 0);
		answer(next_sent("PATCH", MOVE_URL), 200,
		       "{\"data\":[" MOVED_ROW("77", ",\"model\":null") "," MOVED_ROW(
			       "78", ",\"model\":null") "]}");
		assert_int_equal(done, 0);
		struct sent *back = next_sent("PATCH", UPDATE_URL);
		assert_string_equal(back->body,
				    "{\"resources\":{\"77\":{\"name\":\"a\",\"filename\":\"a.txt\","
				    "\"model_type\":\"App\\\\Models\\\\User\",\"model_id\":12}}}");
		answer(back, rows[i].status, rows[i].body);
		assert_int_equal(done, 1);
		assert_int_equal(items[0].outcome, rows[i].outcome);
		assert_int_equal(items[0].error, rows[i].error);
		assert_null(items[0].file.id);
		/* an orphan that was one before, and is only renamed */
		assert_int_equal(items[1].outcome, REMOTE_DONE);
		remote_file_clear(&items[1].file);
	}
}

static void test_a_move_alone_goes_back_without_names(void **state)
{
	struct remote_change item = emigration(NULL);
	int done = 0;

	(void)state;
	assert_int_equal(
		remote->ops->update(remote, TRANSFER_WRITEBACK, &item, 1, count_done, &done), 0);
	answer(next_sent("PATCH", MOVE_URL), 200,
	       "{\"data\":[" MOVED_ROW("77", ",\"model\":null") "]}");
	struct sent *back = next_sent("PATCH", UPDATE_URL);
	assert_string_equal(back->body, "{\"resources\":{\"77\":{\"model_type\":"
					"\"App\\\\Models\\\\User\",\"model_id\":12}}}");
	world.refuse = -ECANCELED;
	answer(back, 200, "{\"data\":[{\"id\":77}]}");
	assert_int_equal(done, 1);
	assert_int_equal(item.outcome, REMOTE_REFUSED);
}

static void test_a_move_is_done_where_the_record_is_there_or_not_told(void **state)
{
	static const char *const rows[] = {MOVED_ROW("77", ",\"model\":{\"id\":9}"),
					   MOVED_ROW("77", "")};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct remote_change item = emigration(NULL);
		char body[256];
		int done = 0;
		assert_int_equal(remote->ops->update(remote, TRANSFER_WRITEBACK, &item, 1,
						     count_done, &done),
				 0);
		snprintf(body, sizeof(body), "{\"data\":[%s]}", rows[i]);
		answer(next_sent("PATCH", MOVE_URL), 200, body);
		assert_int_equal(done, 1);
		assert_int_equal(item.outcome, REMOTE_DONE);
		assert_string_equal(item.file.record, "9");
		remote_file_clear(&item.file);
	}
}

static void test_a_move_to_nobody_that_cannot_be_undone_is_not_settled(void **state)
{
	struct remote_change item = emigration(NULL);
	int done = 0;

	(void)state;
	item.known_record = NULL;
	assert_int_equal(
		remote->ops->update(remote, TRANSFER_WRITEBACK, &item, 1, count_done, &done), 0);
	answer(next_sent("PATCH", MOVE_URL), 200,
	       "{\"data\":[" MOVED_ROW("77", ",\"model\":null") "]}");
	assert_int_equal(done, 1);
	assert_int_equal(item.outcome, REMOTE_UNKNOWN);
	assert_null(item.file.id);
}

#define IDS_SEARCH(ids)                                                                            \
	"{\"filters\":[{\"field\":\"id\",\"operator\":\"in\",\"value\":[" ids "]}],"               \
	"\"sort\":[{\"field\":\"id\",\"direction\":\"asc\"}]}"

/* One DELETE that the server says yes to; what follows it is the test's. */
static void delete_one(struct remote_change *item, const char *id, int *done)
{
	char body[64];

	*item = change(id, NULL);
	item->collection = "users";
	assert_int_equal(remote->ops->remove(remote, TRANSFER_WRITEBACK, item, 1, count_done, done),
			 0);
	struct sent *s = next_sent("DELETE", UPDATE_URL);
	snprintf(body, sizeof(body), "{\"resources\":[%s]}", id);
	assert_string_equal(s->body, body);
	snprintf(body, sizeof(body), "{\"data\":[{\"id\":%s}]}", id);
	answer(s, 200, body);
}

static struct sent *next_verification(unsigned n, const char *body)
{
	char url[128];

	snprintf(url, sizeof(url), "https://api.perscom.io/v2/attachments/search?limit=%u", n);
	struct sent *s = next_sent("POST", url);
	assert_string_equal(s->body, body);
	return s;
}

static void test_a_burst_of_deletes_is_verified_once(void **state)
{
	struct remote_change item;
	int done = 0;

	(void)state;
	delete_one(&item, "1", &done);
	answer(next_verification(1, IDS_SEARCH("1")), 200, "{\"data\":[]}");
	assert_int_equal(done, 1);
	for (int i = 2; i < 5; i++) {
		char id[16];
		snprintf(id, sizeof(id), "%d", i);
		world.now_ms += 9000;
		delete_one(&item, id, &done);
		assert_int_equal(item.outcome, REMOTE_DONE);
		assert_int_equal(done, i);
	}
	/* 30 s after the first: along with this one's, what the others deleted is asked for. */
	world.now_ms += 3000;
	delete_one(&item, "5", &done);
	assert_int_equal(done, 4);
	answer(next_verification(4, IDS_SEARCH("5,2,3,4")), 200, "{\"data\":[{\"id\":3}]}");
	assert_int_equal(done, 5);
	assert_int_equal(item.outcome, REMOTE_DONE);
	/* 3 was kept: from now on each is verified. */
	delete_one(&item, "6", &done);
	answer(next_verification(1, IDS_SEARCH("6")), 200, "{\"data\":[]}");
	delete_one(&item, "7", &done);
	assert_int_equal(done, 7);
}

static void test_a_row_that_was_kept_is_refused_and_the_next_delete_verified(void **state)
{
	struct remote_change item;
	int done = 0;

	(void)state;
	for (int i = 0; i < 3; i++) {
		delete_one(&item, "1", &done);
		answer(next_verification(1, IDS_SEARCH("1")), 200, "{\"data\":[{\"id\":1}]}");
		assert_int_equal(item.outcome, REMOTE_REFUSED);
		assert_int_equal(item.error, -EIO);
		assert_string_equal(item.message,
				    "the server said yes but kept the file (its storage refused): "
				    "try again later");
	}
	assert_int_equal(done, 3);
}

static void test_a_verification_that_fails_proves_nothing(void **state)
{
	struct remote_change item;
	int done = 0;

	(void)state;
	delete_one(&item, "1", &done);
	answer(next_verification(1, IDS_SEARCH("1")), 200, "{\"data\":{}}");
	assert_int_equal(item.outcome, REMOTE_DONE);
	world.now_ms += 30000;
	delete_one(&item, "2", &done);
	answer_error(next_verification(2, IDS_SEARCH("2,1")), -EHOSTDOWN, 0);
	assert_int_equal(item.outcome, REMOTE_DONE);
	world.now_ms += 30000;
	delete_one(&item, "3", &done);
	answer(next_verification(3, IDS_SEARCH("3,1,2")), 200, "{\"data\":[]}");
	assert_int_equal(done, 3);
}

static void test_doubted_deletions_are_kept_until_a_verification_is_due(void **state)
{
	struct perscom_doubts *d = calloc(1, sizeof(*d));
	char(*ids)[PERSCOM_ID_SIZE], id[PERSCOM_ID_SIZE];
	size_t n;

	(void)state;
	assert_true(perscom_doubts_take(d, 5, &ids, &n));
	assert_int_equal(n, 0);
	free(ids);
	for (int i = 0; i < PERSCOM_DOUBTS + 3; i++) {
		snprintf(id, sizeof(id), "%d", i);
		perscom_doubts_add(d, id);
	}
	assert_false(perscom_doubts_take(d, 30004, &ids, &n));
	assert_true(perscom_doubts_take(d, 30005, &ids, &n));
	assert_int_equal(n, PERSCOM_DOUBTS);
	assert_string_equal(ids[0], "3");
	snprintf(id, sizeof(id), "%d", PERSCOM_DOUBTS + 2);
	assert_string_equal(ids[n - 1], id);
	free(ids);
	perscom_doubts_add(d, "999999999999999999");
	assert_true(perscom_doubts_take(d, 90000, &ids, &n));
	assert_int_equal(n, 1);
	assert_string_equal(ids[0], "999999999999999999");
	free(ids);
	free(d);
}

struct polled {
	int error;
	bool changed;
	char cursor[1024];
};

static void note_poll(void *ctx, int error, bool changed, const char *cursor)
{
	struct polled *polled = ctx;

	polled->error = error;
	polled->changed = changed;
	snprintf(polled->cursor, sizeof(polled->cursor), "%s", cursor ? cursor : "");
}

static void poll_once(struct polled *polled, const char *resource)
{
	char url[128], cursor[1024];

	snprintf(cursor, sizeof(cursor), "%s", polled->cursor);
	assert_int_equal(
		remote->ops->poll(remote, "users", *cursor ? cursor : NULL, note_poll, polled), 0);
	snprintf(url, sizeof(url), "https://api.perscom.io/v2/%s/search?limit=1", resource);
	answer(next_sent("POST", url), 200,
	       "{\"data\":[{\"id\":9,\"created_at\":\"2020-01-01T00:00:00Z\"}],"
	       "\"meta\":{\"total\":3}}");
	assert_int_equal(polled->error, 0);
}

static void test_the_poll_says_changed_while_deletions_are_in_doubt(void **state)
{
	struct polled polled = {0};
	struct remote_change item;
	int done = 0;

	(void)state;
	poll_once(&polled, "attachments");
	delete_one(&item, "1", &done);
	answer(next_verification(1, IDS_SEARCH("1")), 200, "{\"data\":[]}");
	poll_once(&polled, "users");
	assert_false(polled.changed);
	poll_once(&polled, "attachments");
	assert_false(polled.changed);
	delete_one(&item, "2", &done);
	poll_once(&polled, "attachments");
	assert_true(polled.changed);
	poll_once(&polled, "users");
	assert_false(polled.changed);
	poll_once(&polled, "attachments");
	assert_false(polled.changed);
}

/* listings */

struct listed {
	int pages, done, error;
	char message[256];
};

static bool note_page(void *ctx, struct remote_record *records, size_t n_records,
		      struct remote_file *files, size_t n_files)
{
	struct listed *listed = ctx;

	(void)records;
	(void)n_records;
	(void)files;
	(void)n_files;
	listed->pages++;
	return true;
}

static void note_listed(void *ctx, int error, const char *message)
{
	struct listed *listed = ctx;

	listed->done++;
	listed->error = error;
	snprintf(listed->message, sizeof(listed->message), "%s", message);
}

#define TREE_URL "https://api.perscom.io/v2/users/search?include=attachments&limit=1000"

static void begin_listing(struct listed *listed)
{
	struct remote_sink sink = {note_page, note_listed, listed};

	*listed = (struct listed){.error = 1};
	assert_int_equal(remote->ops->list_tree(remote, TRANSFER_INTERACTIVE, "users", &sink), 0);
}

#define META(total) "\"meta\":{\"total\":" total "}"
static const char *const not_a_listing[] = {
	"",
	"{}",
	"[]",
	"7",
	"null",
	"\"data\"",
	"<html><title>Welcome to the hotel</title></html>",
	"{\"data\":[",
	"{\"data\":{}," META("0") "}",
	"{\"data\":null," META("0") "}",
	"{\"data\":\"\"," META("0") "}",
	"{" META("0") "}",
	"{\"data\":[]}",
	"{\"data\":[],\"meta\":{}}",
	"{\"data\":[],\"meta\":{\"total\":\"0\"}}",
	"{\"data\":[],\"meta\":[]}",
	"{\"data\":[]," META("5") "}",
	"{\"data\":[]," META("-5") "}",
	"{\"data\":[{\"id\":13,\"attachments\":[]}]}",
	"{\"data\":[{\"id\":13}]," META("1") "}",
	"{\"data\":[{\"id\":13,\"attachments\":null}]," META("1") "}",
	"{\"data\":[{\"id\":13,\"attachments\":{}}]," META("1") "}",
	"{\"data\":[{\"id\":13,\"attachments\":[{}]}]," META("1") "}",
	"{\"data\":[{\"id\":13,\"attachments\":[7]}]," META("1") "}",
	"{\"data\":[{\"attachments\":[]}]," META("1") "}",
	"{\"data\":[[]]," META("1") "}",
	"{\"data\":[{\"id\":12,\"attachments\":[]}]," META("9") "}", /* no further than before */
};

static void test_a_listing_of_the_wrong_shape_never_ends_whole(void **state)
{
	static const char first[] = "{\"data\":[{\"id\":12,\"attachments\":[]}]," META("2") "}";
	struct listed listed;

	(void)state;
	/* As the first page, but for the last of them; */
	for (size_t i = 0; i + 1 < sizeof(not_a_listing) / sizeof(not_a_listing[0]); i++) {
		begin_listing(&listed);
		answer(next_sent("POST", TREE_URL), 200, not_a_listing[i]);
		assert_int_equal(listed.done, 1);
		assert_int_equal(listed.pages, 0);
		assert_int_equal(listed.error, -EIO);
		assert_non_null(strcasestr(listed.message, "not what perscom sends"));
		if (world.n_sent == SENT_MAX - 2)
			assert_true(end_world(NULL) == 0 && begin_world(NULL) == 0);
	}
	/* and as the second. */
	for (size_t i = 0; i < sizeof(not_a_listing) / sizeof(not_a_listing[0]); i++) {
		assert_true(end_world(NULL) == 0 && begin_world(NULL) == 0);
		begin_listing(&listed);
		answer(next_sent("POST", TREE_URL), 200, first);
		assert_int_equal(listed.done, 0);
		assert_int_equal(listed.pages, 1);
		answer(next_sent("POST", TREE_URL), 200, not_a_listing[i]);
		assert_int_equal(listed.done, 1);
		assert_int_equal(listed.pages, 1);
		assert_int_equal(listed.error, -EIO);
	}
	begin_listing(&listed);
	answer(next_sent("POST", TREE_URL), 200, first);
	answer(next_sent("POST", TREE_URL), 200,
	       "{\"data\":[{\"id\":13,\"attachments\":[]}]," META("1") "}");
	assert_int_equal(listed.done, 1);
	assert_int_equal(listed.error, 0);
	assert_int_equal(listed.pages, 2);
}

static void test_a_listing_that_breaks_off_never_ends_whole(void **state)
{
	static const char first[] = "{\"data\":[{\"id\":12,\"attachments\":[]}]," META("2") "}";
	struct listed listed;

	(void)state;
	begin_listing(&listed);
	answer(next_sent("POST", TREE_URL), 200, first);
	answer_error(next_sent("POST", TREE_URL), -ECONNRESET, 200);
	assert_int_equal(listed.error, -EIO);
	begin_listing(&listed);
	answer(next_sent("POST", TREE_URL), 200, first);
	answer(next_sent("POST", TREE_URL), 503, "{}");
	assert_int_equal(listed.error, -EIO);
	begin_listing(&listed);
	struct sent *s = next_sent("POST", TREE_URL);
	world.refuse = -ECANCELED;
	answer(s, 200, first);
	assert_int_equal(listed.error, -ECANCELED);
	assert_int_equal(listed.done, 1);
}

/* wishes */

static uint64_t fetching;

static bool note_begin(void *ctx, int64_t total, uint64_t offset)
{
	(void)ctx;
	(void)total;
	(void)offset;
	return true;
}

static bool note_data(void *ctx, const void *data, size_t len)
{
	(void)ctx;
	(void)data;
	(void)len;
	return true;
}

static void note_fetched(void *ctx, int error)
{
	*(int *)ctx = error;
}

static void begin_fetch(int *result)
{
	struct remote_file file = {.id = (char *)"77",
				   .version = (char *)"v",
				   .url = (char *)"https://files.example.net/v"};
	struct remote_fetch_sink sink = {note_begin, note_data, note_fetched, result};

	*result = 1;
	/* Ids count from 1: the test's other thread needs it before it is told. */
	fetching = 1;
	assert_int_equal(remote->ops->fetch(remote, TRANSFER_PREFETCH, &file, "users", 0, 0, 0,
					    &sink, &fetching),
			 0);
}

static void end_fetch(struct sent *s, const int *result)
{
	answer_error(s, -ECANCELED, 0);
	assert_int_equal(*result, -ECANCELED);
}

static void pause_and_resume(void)
{
	remote->ops->fetch_pause(remote, fetching);
	remote->ops->fetch_resume(remote, fetching);
}

static void test_a_resume_in_the_middle_of_a_send_is_not_overtaken(void **state)
{
	int result;

	(void)state;
	world.on_start = pause_and_resume;
	begin_fetch(&result);
	struct sent *s = next_sent("GET", "https://files.example.net/v");
	assert_false(s->paused);
	remote->ops->fetch_pause(remote, fetching);
	assert_true(s->paused);
	remote->ops->fetch_resume(remote, fetching);
	assert_false(s->paused);
	end_fetch(s, &result);
}

static void pause_and_prefer(void)
{
	remote->ops->fetch_pause(remote, fetching);
	remote->ops->fetch_set_class(remote, fetching, TRANSFER_INTERACTIVE);
}

static void test_what_is_wished_before_the_transfer_has_an_id_is_passed_on(void **state)
{
	int result;

	(void)state;
	world.on_start = pause_and_prefer;
	begin_fetch(&result);
	struct sent *s = next_sent("GET", "https://files.example.net/v");
	assert_true(s->paused);
	assert_int_equal(s->class, TRANSFER_INTERACTIVE);
	remote->ops->fetch_cancel(remote, fetching);
	assert_true(s->cancelled);
	end_fetch(s, &result);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_list_of_users_is_read),
		cmocka_unit_test(test_an_attachment_is_read_whole),
		cmocka_unit_test(test_a_batch_reply_is_read_and_its_relative_link_resolved),
		cmocka_unit_test(test_events_with_attachments_are_read),
		cmocka_unit_test(test_soft_deleted_rows_of_old_servers_are_no_files),
		cmocka_unit_test(test_a_row_that_cannot_be_understood_fails_the_page),
		cmocka_unit_test(test_fields_of_wrong_types_are_as_good_as_absent),
		cmocka_unit_test(test_a_nul_in_a_name_is_kept_visible),
		cmocka_unit_test(test_endless_names_are_cut_between_characters),
		cmocka_unit_test(test_records_without_a_name_are_called_after_their_text),
		cmocka_unit_test(test_every_owner_has_its_class),
		cmocka_unit_test(test_searches_are_written),
		cmocka_unit_test(test_renames_are_a_map_by_id),
		cmocka_unit_test(test_an_entry_with_nothing_to_change_is_not_sent),
		cmocka_unit_test(test_two_changes_of_one_id_are_one_entry),
		cmocka_unit_test(test_a_move_names_class_and_id),
		cmocka_unit_test(test_deletes_are_a_list_of_ids),
		cmocka_unit_test(test_records_are_renamed_by_their_own_field),
		cmocka_unit_test(test_tame_names_are_those_a_part_keeps),
		cmocka_unit_test(test_a_part_has_the_name_when_it_is_tame_and_else_the_token),
		cmocka_unit_test(test_filler_is_recognisable_and_has_the_size_asked_for),
		cmocka_unit_test(test_times_are_read_in_every_form_servers_write),
		cmocka_unit_test(test_what_is_no_time_is_refused),
		cmocka_unit_test(test_times_survive_writing_and_reading),
		cmocka_unit_test(test_only_times_the_server_can_hold_are_sent),
		cmocka_unit_test(test_bases_get_a_version_and_lose_slashes),
		cmocka_unit_test(test_links_that_must_not_be_followed_are_no_links),
		cmocka_unit_test(test_the_end_of_a_presigned_link_is_known),
		cmocka_unit_test(test_the_servers_words_are_found_in_all_three_forms),
		cmocka_unit_test(test_long_words_are_cut_between_characters),
		cmocka_unit_test(test_statuses_become_errors_by_the_common_table),
		cmocka_unit_test(test_outcomes_follow_from_what_is_known_to_have_happened),
		cmocka_unit_test(test_a_422_says_by_its_field_what_is_wrong),
		cmocka_unit_test(test_a_422_of_a_batch_names_its_entries),
		cmocka_unit_test(test_files_are_copied_whole),
		cmocka_unit_test(test_doubted_deletions_are_kept_until_a_verification_is_due),
		CALL_TEST(test_one_rename_goes_out_as_a_batch),
		CALL_TEST(test_one_record_is_renamed_by_a_batch),
		CALL_TEST(test_a_batch_of_one_has_the_outcomes_of_one),
		CALL_TEST(test_an_item_that_never_left_is_not_done),
		CALL_TEST(test_a_replacement_is_uploaded_under_name_or_token),
		CALL_TEST(test_a_file_that_became_nobodys_is_deleted_and_the_record_gone),
		CALL_TEST(test_an_orphan_that_cannot_be_deleted_any_more_is_no_success),
		CALL_TEST(test_a_server_that_does_not_tell_the_owner_made_no_orphan),
		CALL_TEST(test_what_was_moved_to_nobody_is_put_back_and_refused),
		CALL_TEST(test_a_move_alone_goes_back_without_names),
		CALL_TEST(test_a_move_is_done_where_the_record_is_there_or_not_told),
		CALL_TEST(test_a_move_to_nobody_that_cannot_be_undone_is_not_settled),
		CALL_TEST(test_a_burst_of_deletes_is_verified_once),
		CALL_TEST(test_a_row_that_was_kept_is_refused_and_the_next_delete_verified),
		CALL_TEST(test_a_verification_that_fails_proves_nothing),
		CALL_TEST(test_the_poll_says_changed_while_deletions_are_in_doubt),
		CALL_TEST(test_a_listing_of_the_wrong_shape_never_ends_whole),
		CALL_TEST(test_a_listing_that_breaks_off_never_ends_whole),
		CALL_TEST(test_a_resume_in_the_middle_of_a_send_is_not_overtaken),
		CALL_TEST(test_what_is_wished_before_the_transfer_has_an_id_is_passed_on),
	};

	return cmocka_run_group_tests(tests, make_base, clear_base);
}
