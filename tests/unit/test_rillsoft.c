/* SPDX-License-Identifier: MIT */

/*
 * The Rillsoft client. Its pure parts: every example of reference/rillsoft.md is read, in every
 * spelling that section 13 names, and what is no such answer is refused. And its calls, with an
 * engine, a pool and a clock that stand here: what is sent is looked at and answered by the test.
 */

#include <errno.h>
#include <fcntl.h>
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

#include "../../api/json.h"
#include "../../api/rillsoft.h"

#define ELEMENT "a3d7b7a4-0c34-4b66-8a57-6f0f6a4cf2a1"
#define OTHER	"b4e8c8b5-1d45-4c77-9b68-70107b5d03b2"
#define OK(details)                                                                                \
	"{\"status\":\"success\",\"code\":200,\"message\":\"Operation completed successfully\","   \
	"\"details\":" details "}"
#define DOC(id, project, parent, folder, name, size)                                               \
	"{\"id\":" id ",\"projectId\":" project ",\"parentUuid\":\"" parent                        \
	"\",\"elementName\":\"Foundation\",\"folderId\":" folder                                   \
	",\"folderPath\":\"/Contracts\",\"name\":\"" name                                          \
	"\",\"description\":\"as sent\",\"fileSize\":" size                                        \
	",\"createdAt\":\"2026-03-01T08:15:00\",\"createdUserName\":\"a.byron\"}"
#define OFFER DOC("5012", "41", ELEMENT, "3", "offer.pdf", "48213")

static json_t *parse(const char *text)
{
	json_t *root = json_parse(text, strlen(text), NULL, 0);

	assert_non_null(root);
	return root;
}

static int decode(const char *text, const char *asked, struct rillsoft_listing **l)
{
	json_t *root = parse(text);
	int r = rillsoft_decode_listing(root, asked, l);

	json_decref(root);
	return r;
}

/* decoding */

static void test_a_document_is_read_whole(void **state)
{
	struct rillsoft_listing *l;
	int64_t ns;

	(void)state;
	assert_int_equal(decode(OK("[" OFFER "]"), "41", &l), 0);
	assert_int_equal(l->n, 1);
	assert_false(l->foreign);
	const struct rillsoft_doc *doc = rillsoft_find_doc(l, "5012");
	assert_non_null(doc);
	assert_string_equal(doc->project, "41");
	assert_string_equal(doc->parent, ELEMENT);
	assert_string_equal(doc->element, "Foundation");
	assert_string_equal(doc->folder, "3");
	assert_string_equal(doc->name, "offer.pdf");
	assert_string_equal(doc->description, "as sent");
	assert_int_equal(doc->size, 48213);
	assert_int_equal(time_parse_iso8601("2026-03-01T08:15:00Z", &ns), 0);
	assert_true(doc->created_ns == ns);
	rillsoft_listing_unref(l);
}

static void test_other_spellings_are_the_same_document(void **state)
{
	static const char *const forms[] = {
		OK("[{\"documentId\":5012,\"uuid\":\"" ELEMENT
		   "\",\"size\":48213,\"folderId\":3}]"),
		OK("[{\"id\":\"5012\",\"parentUuid\":\"" ELEMENT
		   "\",\"fileSize\":\"48213\",\"folderId\":\"3\",\"projectId\":\"41\"}]"),
		OK("{\"id\":5012,\"parentUuid\":\"" ELEMENT
		   "\",\"fileSize\":48213,\"folderId\":3}"),
		OK("{\"documents\":[{\"id\":5012,\"parentUuid\":\"" ELEMENT
		   "\",\"fileSize\":48213,\"folderId\":3}]}"),
		OK("\"[{\\\"id\\\":5012,\\\"parentUuid\\\":\\\"" ELEMENT
		   "\\\",\\\"fileSize\\\":48213,\\\"folderId\\\":3}]\""),
		"[{\"id\":5012,\"parentUuid\":\"" ELEMENT "\",\"fileSize\":48213,\"folderId\":3}]",
	};
	struct rillsoft_listing *l;

	(void)state;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		assert_int_equal(decode(forms[i], "41", &l), 0);
		const struct rillsoft_doc *doc = rillsoft_find_doc(l, "5012");
		assert_non_null(doc);
		assert_string_equal(doc->project, "41");
		assert_string_equal(doc->parent, ELEMENT);
		assert_string_equal(doc->folder, "3");
		assert_int_equal(doc->size, 48213);
		rillsoft_listing_unref(l);
	}
}

static void test_what_is_no_list_is_never_an_empty_one(void **state)
{
	static const char *const bad[] = {
		"{}",
		"7",
		"null",
		"\"[]\"",
		OK("null"),
		OK("{}"),
		OK("\"\""),
		OK("\"text\""),
		OK("7"),
		OK("{\"a\":[],\"b\":[]}"),
		OK("[7]"),
		OK("[[]]"),
		OK("[{}]"),
		OK("[{\"id\":0}]"),
		OK("[{\"id\":-4}]"),
		OK("[{\"id\":1.5}]"),
		OK("[{\"id\":\"../1\"}]"),
		OK("[{\"id\":9223372036854775807}]"),
		OK("[" OFFER ",{\"name\":\"no id\"}]"),
	};
	struct rillsoft_listing *l;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(decode(bad[i], "41", &l), -EIO);
}

static void test_fields_of_wrong_types_are_as_good_as_absent(void **state)
{
	struct rillsoft_listing *l;

	(void)state;
	assert_int_equal(
		decode(OK("[{\"id\":5,\"projectId\":{},\"parentUuid\":7,\"uuid\":"
			  "\"../..\",\"elementName\":[],\"folderId\":-1,\"name\":3,"
			  "\"description\":null,\"fileSize\":-9,\"createdAt\":{}},"
			  "{\"id\":6,\"parentUuid\":"
			  "\"00000000-0000-0000-0000-000000000000\",\"name\":\"a\\u0000b\","
			  "\"fileSize\":1e300}]"),
		       "41", &l),
		0);
	const struct rillsoft_doc *doc = rillsoft_find_doc(l, "5");
	assert_string_equal(doc->project, "41");
	assert_string_equal(doc->parent, RILLSOFT_NO_ELEMENT);
	assert_string_equal(doc->folder, "");
	assert_string_equal(doc->name, "");
	assert_int_equal(doc->size, -1);
	assert_true(doc->created_ns == REMOTE_TIME_NONE);
	doc = rillsoft_find_doc(l, "6");
	assert_string_equal(doc->parent, RILLSOFT_NO_ELEMENT);
	assert_string_equal(doc->name, "a%00b");
	assert_int_equal(doc->size, -1);
	rillsoft_listing_unref(l);
}

static void test_a_listing_covers_what_it_was_asked_for_or_names(void **state)
{
	struct rillsoft_listing *l;

	(void)state;
	assert_int_equal(decode(OK("[" OFFER "]"), "41", &l), 0);
	assert_true(rillsoft_covers(l, "41"));
	assert_false(rillsoft_covers(l, "42"));
	rillsoft_listing_unref(l);
	assert_int_equal(
		decode(OK("[" OFFER "," DOC("7", "42", OTHER, "3", "x", "1") "]"), "41", &l), 0);
	assert_true(l->foreign);
	assert_true(rillsoft_covers(l, "42"));
	assert_false(rillsoft_covers(l, "43"));
	rillsoft_listing_unref(l);
}

static void test_the_new_document_is_the_one_that_was_not_there(void **state)
{
	struct rillsoft_listing *before, *now;
	const struct rillsoft_doc *doc;

	(void)state;
	assert_int_equal(decode(OK("[" OFFER "]"), "41", &before), 0);
	assert_int_equal(
		decode(OK("[" OFFER "," DOC("6000", "41", OTHER, "3", "offer.pdf", "48213") "," DOC(
			       "6001", "41", ELEMENT, "3", "tok",
			       "48213") "," DOC("6002", "41", ELEMENT, "3", "offer.pdf", "9") "]"),
		       "41", &now),
		0);
	doc = rillsoft_find_new(now, before, "41", ELEMENT, "offer.pdf", "tok", 9);
	assert_string_equal(doc->id, "6002");
	doc = rillsoft_find_new(now, before, "41", ELEMENT, "offer.pdf", "tok", 48213);
	assert_string_equal(doc->id, "6001");
	doc = rillsoft_find_new(now, before, "41", ELEMENT, "offer.pdf", NULL, 48213);
	assert_string_equal(doc->id, "6002"); /* of another size: for the message */
	assert_null(rillsoft_find_new(now, before, "41", ELEMENT, "else.pdf", NULL, 9));
	assert_null(rillsoft_find_new(now, now, "41", ELEMENT, "offer.pdf", NULL, 9));
	rillsoft_listing_unref(before);
	rillsoft_listing_unref(now);
}

static void test_a_version_says_size_and_time_and_not_the_name(void **state)
{
	static const char *const rows[] = {
		OFFER,
		DOC("5012", "41", OTHER, "4", "other.pdf", "48213"),
		DOC("5012", "41", ELEMENT, "3", "offer.pdf", "48214"),
		"{\"id\":5012,\"fileSize\":48213,\"createdAt\":\"\"}",
	};
	static const bool same[] = {true, true, false, false};
	char first[RILLSOFT_VERSION_SIZE], version[RILLSOFT_VERSION_SIZE], text[1024];

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct rillsoft_listing *l;
		snprintf(text, sizeof(text), "[%s]", rows[i]);
		assert_int_equal(decode(text, "41", &l), 0);
		rillsoft_version(&l->docs[0], i == 0 ? first : version);
		assert_true(i == 0 || (strcmp(first, version) == 0) == same[i]);
		rillsoft_listing_unref(l);
	}
}

static void test_times_are_read_in_every_form_the_server_writes(void **state)
{
	static const struct {
		const char *text, *utc; /* NULL = no time */
	} times[] = {
		{"2026-03-01T08:15:00", "2026-03-01T08:15:00Z"},
		{"2026-03-01T08:15", "2026-03-01T08:15:00Z"},
		{"2026-03-01 08:15", "2026-03-01T08:15:00Z"},
		{"01.03.2026 08:15", "2026-03-01T08:15:00Z"},
		{"2026-03-01T08:15:00+02:00", "2026-03-01T06:15:00Z"},
		{"", NULL},
		{"01.03.2026", NULL},
		{"99.99.2026 08:15", NULL},
		{"01.03.2026 08:15 o'clock", NULL},
		{"-1.-3.2026 08:15", NULL},
		{"yesterday", NULL},
		{"aaaaaaaaaaaaaaaa", NULL},
	};
	char out[TIME_ISO8601_SIZE];
	int64_t ns;

	(void)state;
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		assert_int_equal(rillsoft_parse_time(times[i].text, &ns), times[i].utc != NULL);
		if (times[i].utc) {
			time_format_iso8601(ns, out);
			assert_string_equal(out, times[i].utc);
		}
	}
}

static void test_projects_are_read(void **state)
{
	json_t *root = parse(OK("[{\"id\":41,\"versionId\":9,\"uuid\":"
				"\"0f0b8b0e-53a5-4f3f-9e0c-7e3a6c1d2b44\",\"name\":\"Plant B\","
				"\"description\":null,\"start\":\"2026-01-15T09:00:00\","
				"\"priority\":500,\"path\":\"/Projects/2026/Plant B\"},"
				"{\"id\":42,\"name\":null}]"));
	struct remote_collection *list;
	size_t n;

	(void)state;
	assert_int_equal(rillsoft_decode_projects(root, &list, &n), 0);
	assert_int_equal(n, 2);
	assert_string_equal(list[0].id, "41");
	assert_string_equal(list[0].name, "Plant B");
	assert_string_equal(list[1].name, "42");
	rillsoft_collections_free(list, n);
	json_decref(root);
	root = parse(OK("[{\"id\":41,\"name\":\"a\"},{\"name\":\"no id\"}]"));
	assert_int_equal(rillsoft_decode_projects(root, &list, &n), -EIO);
	json_decref(root);
	root = parse(OK("{}"));
	assert_int_equal(rillsoft_decode_projects(root, &list, &n), -EIO);
	json_decref(root);
}

static void test_the_main_folder_begins_first_or_has_no_parent(void **state)
{
	static const struct {
		const char *text, *id; /* NULL = none */
	} cases[] = {
		{OK("[{\"id\":3,\"name\":\"Contracts\",\"left\":2,\"right\":3},"
		    "{\"id\":1,\"name\":\"Documents\",\"left\":1,\"right\":4}]"),
		 "1"},
		{OK("[{\"folderId\":3,\"parentFolderId\":8},{\"folderId\":8,\"parentFolderId\":"
		    "null}]"),
		 "8"},
		{OK("[]"), NULL},
		{OK("\"\""), NULL},
		{OK("[{\"id\":\"x\",\"left\":1}]"), NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char id[RILLSOFT_ID_SIZE] = "";
		json_t *root = parse(cases[i].text);
		assert_int_equal(rillsoft_decode_main_folder(root, id), cases[i].id != NULL);
		if (cases[i].id)
			assert_string_equal(id, cases[i].id);
		json_decref(root);
	}
}

/* login */

#define JWT "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3IiwiZXhwIjoxNzkzNTAwMDAwfQ.c2lnbmF0dXJl"

static void test_the_token_is_found_wherever_it_is(void **state)
{
	static const char *const places[] = {
		OK("{\"token\":\"" JWT "\"}"),
		OK("{\"access_token\":\"" JWT "\"}"),
		OK("{\"accessToken\":\"" JWT "\"}"),
		OK("{\"jwt\":\"" JWT "\"}"),
		OK("[{\"token\":\"" JWT "\"}]"),
		OK("\"" JWT "\""),
		"{\"token\":\"" JWT "\"}",
		"{\"access_token\":\"" JWT "\",\"details\":[]}",
		"{\"accessToken\":\"" JWT "\"}",
		"{\"jwt\":\"" JWT "\"}",
	};
	static const char *const none[] = {
		OK("{}"),
		OK("[]"),
		OK("\"welcome\""),
		OK("{\"token\":7}"),
		"[]",
		OK("{\"token\":\"a b\"}"),
		"{\"token\":\"\"}",
		OK("{\"token\":\"a\\u0000b\"}"),
		OK("{\"token\":\"a\\r\\nX: y\"}"),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		json_t *root = parse(places[i]);
		const char *token = rillsoft_find_token(root);
		assert_non_null(token);
		assert_string_equal(token, JWT);
		json_decref(root);
	}
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		json_t *root = parse(none[i]);
		assert_null(rillsoft_find_token(root));
		json_decref(root);
	}
}

static void test_a_token_says_when_it_ends(void **state)
{
	static const struct {
		const char *token;
		bool is_jwt;
		int64_t exp_s, iat_s;
	} tokens[] = {
		{JWT, true, 1793500000, -1},
		{"e30.eyJleHAiOjE3OTM1MDAwMDAuNSwiaWF0IjoxNzkzNDk2NDAwfQ.x", true, 1793500000,
		 1793496400},
		{"e30.e30.x", true, -1, -1},
		{"e30.e30=.x", true, -1, -1},
		{"e30.eyJleHAiOiJub3cifQ.x", true, -1, -1}, /* a string */
		{"e30.eyJleHAiOjFlMzAwfQ.x", true, -1, -1}, /* 1e300 */
		{"e30.W10.x", false, -1, -1},		    /* an array */
		{"e30.!!!!.x", false, -1, -1},
		{"e30..x", false, -1, -1},
		{"opaque", false, -1, -1},
		{"", false, -1, -1},
		{"a.b", false, -1, -1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
		int64_t exp_s, iat_s;
		assert_int_equal(rillsoft_decode_jwt(tokens[i].token, &exp_s, &iat_s),
				 tokens[i].is_jwt);
		assert_int_equal(exp_s, tokens[i].exp_s);
		assert_int_equal(iat_s, tokens[i].iat_s);
	}
}

/* templates */

static void test_templates_are_filled(void **state)
{
	const struct rillsoft_ids ids = {.cid = "1", .pid = "41", .did = "5012", .aid = "9"};
	static const struct {
		enum rillsoft_path path;
		const char *filled;
	} table[] = {
		{RILLSOFT_DOCUMENTS, "/api/v2/clients/1/dms/documents?project_id=41"},
		{RILLSOFT_DOWNLOAD, "/api/v2/clients/1/dms/projects/41/documents/5012"},
		{RILLSOFT_ATTACHMENT, "/api/v2/clients/1/attachments/9"},
		{RILLSOFT_FOLDERS, "/api/v2/clients/1/dms/folders"},
		{RILLSOFT_LOGIN, "/api/v1/login"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char *path = rillsoft_template_fill(rillsoft_path_default(table[i].path), &ids);
		assert_string_equal(path, table[i].filled);
		free(path);
	}
}

static void test_templates_are_checked(void **state)
{
	static const struct {
		const char *template;
		bool good;
	} table[] = {
		{"/x/{cid}/{pid}/{did}?raw=1", true},
		{"/x", true},
		{"x/{did}", false},
		{"//evil.example/{did}", false},
		{"https://evil.example/{did}", false},
		{"/x/{aid}", false},
		{"/x/{", false},
		{"/x/}", false},
		{"/x/{}", false},
		{"/x y", false},
		{"/x\r\nHost: y", false},
		{"/x#y", false},
		{"", false},
	};
	char message[256];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		int r = rillsoft_template_check(RILLSOFT_DELETE, table[i].template, message,
						sizeof(message));
		assert_int_equal(r, table[i].good ? 0 : -EINVAL);
		if (!table[i].good)
			assert_non_null(strstr(message, "template_delete="));
	}
}

static void test_outcomes_follow_from_what_is_known_to_have_happened(void **state)
{
	static const struct {
		int status;
		bool sent;
		enum rillsoft_verb verb;
		enum remote_outcome outcome;
		int error;
	} table[] = {
		{201, true, RILLSOFT_CREATES, REMOTE_DONE, 0},
		{204, true, RILLSOFT_REMOVES, REMOTE_DONE, 0},
		{0, true, RILLSOFT_CREATES, REMOTE_UNKNOWN, -EIO},
		{0, false, RILLSOFT_CREATES, REMOTE_RETRY, -EIO},
		{0, true, RILLSOFT_REPLACES, REMOTE_RETRY, -EIO},
		{0, true, RILLSOFT_UPDATES, REMOTE_UNKNOWN, -EIO},
		{0, false, RILLSOFT_UPDATES, REMOTE_RETRY, -EIO},
		{400, true, RILLSOFT_CREATES, REMOTE_REFUSED, -EIO},
		{400, true, RILLSOFT_UPDATES, REMOTE_REFUSED, -EINVAL},
		{401, true, RILLSOFT_CREATES, REMOTE_RETRY, -EACCES},
		{403, true, RILLSOFT_CREATES, REMOTE_REFUSED, -EACCES},
		{405, true, RILLSOFT_UPDATES, REMOTE_REFUSED, -ENOSYS},
		{409, true, RILLSOFT_UPDATES, REMOTE_REFUSED, -EBUSY},
		{413, true, RILLSOFT_CREATES, REMOTE_REFUSED, -EFBIG},
		{423, true, RILLSOFT_REMOVES, REMOTE_REFUSED, -EROFS},
		{429, true, RILLSOFT_CREATES, REMOTE_RETRY, -EBUSY},
		{500, true, RILLSOFT_CREATES, REMOTE_UNKNOWN, -EIO},
		{500, true, RILLSOFT_REMOVES, REMOTE_RETRY, -EIO},
		{503, true, RILLSOFT_CREATES, REMOTE_RETRY, -EIO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct call_reply reply = {
			.status = table[i].status,
			.sent = table[i].sent,
			.message = "",
			.error = table[i].status ? call_status_errno(table[i].status) : -EIO};
		int error;
		assert_int_equal(rillsoft_judge(&reply, table[i].verb, &error), table[i].outcome);
		assert_int_equal(error, table[i].error);
	}
}

static void test_details_reach_the_user_in_any_type(void **state)
{
	static const char *const forms[] = {
		"{\"message\":\"Access denied\",\"details\":\"Not permitted\"}",
		"{\"message\":\"Access denied\",\"details\":[\"Not permitted\"]}",
		"{\"message\":\"Access denied\",\"details\":{\"file\":[\"Not permitted\"]}}",
	};
	char words[256];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		json_t *root = parse(forms[i]);
		call_find_words(root, NULL, 0, words, sizeof(words));
		assert_string_equal(words, "Access denied: Not permitted");
		json_decref(root);
	}
}

/* The engine, pool and clock of the tests below: one thread, no network. */

#define SENT_MAX 64

struct sent {
	char *method, *url, *headers, *fields, *filename;
	bool (*head)(void *ctx, const struct transfer_head *head);
	bool (*data)(void *ctx, const void *data, size_t len);
	void (*done)(void *ctx, const struct transfer_result *result);
	void *ctx;
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
	return 1772445600LL * CLOCK_NS_PER_S;
}

int pool_run(struct pool *pool, void (*job)(void *ctx), void *ctx)
{
	(void)pool;
	job(ctx);
	return 0;
}

/* "file=<4 bytes> name=offer.pdf": the parts in their order. */
static char *describe_parts(const struct transfer_spec *spec)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	for (size_t i = 0; i < spec->n_parts; i++) {
		const struct transfer_part *part = &spec->parts[i];
		fprintf(f, "%s%s=", i ? " " : "", part->name);
		if (part->filename)
			fprintf(f, "<%llu bytes>", (unsigned long long)part->fd_len);
		else
			fprintf(f, "%.*s", (int)part->len, (const char *)part->data);
	}
	fclose(f);
	return text;
}

int transfer_start(struct engine *engine, const struct transfer_spec *spec, uint64_t *ret_id)
{
	(void)engine;
	assert_true(world.n_sent < SENT_MAX);
	struct sent *s = &world.sent[world.n_sent++];
	*s = (struct sent){.method = strdup(spec->method),
			   .url = strdup(spec->url),
			   .headers = strdup(""),
			   .fields = describe_parts(spec),
			   .head = spec->headers_cb,
			   .data = spec->data_cb,
			   .done = spec->done_cb,
			   .ctx = spec->ctx};
	for (size_t i = 0; spec->headers && spec->headers[i]; i++) {
		char *all;
		assert_true(asprintf(&all, "%s%s;", s->headers, spec->headers[i]) > 0);
		free(s->headers);
		s->headers = all;
	}
	for (size_t i = 0; i < spec->n_parts; i++)
		if (spec->parts[i].filename)
			s->filename = strdup(spec->parts[i].filename);
	assert_non_null(strstr(spec->credential, "Bearer token-of-the-unit-test"));
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

static int begin_with(enum options_override override, const char *template_documents)
{
	struct options options = {.system = OPTIONS_SYSTEM_RILLSOFT,
				  .base_url = (char *)"https://ris.example.org/api",
				  .client = (char *)"1",
				  .attachments = (char *)"9:10",
				  .project = (char *)"41",
				  .template_documents = (char *)template_documents,
				  .method_override = override};
	char message[256];

	memset(&world, 0, sizeof(world));
	world.now_ms = 1000000;
	setenv("ATTACHFS_TOKEN", "token-of-the-unit-test", 1);
	return remote_new(&options, NULL, NULL, &remote, message, sizeof(message));
}

static int begin_world(void **state)
{
	(void)state;
	return begin_with(OPTIONS_OVERRIDE_HEADER, NULL);
}

static int end_world(void **state)
{
	(void)state;
	remote_free(remote);
	for (size_t i = 0; i < world.n_sent; i++) {
		free(world.sent[i].method);
		free(world.sent[i].url);
		free(world.sent[i].headers);
		free(world.sent[i].fields);
		free(world.sent[i].filename);
	}
	return world.n_sent == world.n_answered ? 0 : -1;
}

#define CALL_TEST(test) cmocka_unit_test_setup_teardown(test, begin_world, end_world)

#define CLIENT	   "https://ris.example.org/api/v2/clients/1"
#define LIST_41	   CLIENT "/dms/documents?project_id=41"
#define LIST_42	   CLIENT "/dms/documents?project_id=42"
#define DOC_URL	   CLIENT "/dms/projects/41/documents/5012"
#define CREATE_URL CLIENT "/dms/projects/41/folders/3/parent/" ELEMENT "/documents"

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

static void answer_typed(struct sent *s, int status, const char *type, const char *body)
{
	struct transfer_head head = {.status = status,
				     .content_length = (int64_t)strlen(body),
				     .range_total = -1,
				     .content_type = type,
				     .content_encoding = "",
				     .etag = "",
				     .location = "",
				     .last_modified_s = -1,
				     .date_s = -1,
				     .rate_limit = -1,
				     .rate_remaining = -1};

	if (s->head(s->ctx, &head) && *body != '\0')
		s->data(s->ctx, body, strlen(body));
	answer_error(s, 0, status);
}

static void answer(struct sent *s, int status, const char *body)
{
	answer_typed(s, status, "application/json", body);
}

#define DONE		 OK("[]")
#define REFUSED(details) "{\"status\":\"error\",\"message\":\"No\",\"details\":\"" details "\"}"

static void answer_list(const char *url, const char *rows)
{
	char *body;

	assert_true(asprintf(&body, OK("[%s]"), rows) > 0);
	answer(next_sent("GET", url), 200, body);
	free(body);
}

static void count_done(void *ctx, int error, const char *message)
{
	int *calls = ctx;

	(void)message;
	assert_int_equal(error, 0);
	++*calls;
}

typedef int writing(struct remote *r, enum transfer_class class, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx);

static int done_calls;

static void begin_writing(writing *op, struct remote_change *item)
{
	done_calls = 0;
	assert_int_equal(op(remote, TRANSFER_WRITEBACK, item, 1, count_done, &done_calls), 0);
}

static void end_writing(struct remote_change *item, enum remote_outcome outcome, int error)
{
	assert_int_equal(done_calls, 1);
	assert_int_equal(item->outcome, outcome);
	assert_int_equal(item->error, error);
	remote_file_clear(&item->file);
}

static struct remote_change change(const char *id, const char *name)
{
	return (struct remote_change){.collection = "41",
				      .record = ELEMENT,
				      .id = id,
				      .name = name,
				      .token = "token-1.pdf",
				      .mtime_ns = REMOTE_TIME_NONE,
				      .fd = -1};
}

/* writing */

static void test_a_new_document_is_found_in_the_list(void **state)
{
	struct remote_change item = change(NULL, "new.pdf");

	(void)state;
	item.size = 4;
	begin_writing(remote->ops->create, &item);
	answer_list(LIST_41, OFFER);
	struct sent *s = next_sent("POST", CREATE_URL);
	assert_string_equal(s->fields, "file=<4 bytes> name=new.pdf description=");
	assert_string_equal(s->filename, "new.pdf");
	answer(s, 201, DONE);
	assert_int_equal(done_calls, 0);
	answer_list(LIST_41, OFFER "," DOC("5013", "41", ELEMENT, "3", "new.pdf", "4"));
	assert_string_equal(item.file.id, "5013");
	assert_string_equal(item.file.record, ELEMENT);
	assert_int_equal(item.file.size, 4);
	end_writing(&item, REMOTE_DONE, 0);
}

static void test_a_create_that_is_not_listed_is_unknown(void **state)
{
	struct remote_change item = change(NULL, "new.pdf");

	(void)state;
	item.size = 4;
	begin_writing(remote->ops->create, &item);
	answer_list(LIST_41, OFFER);
	answer(next_sent("POST", CREATE_URL), 200, OK("\"\""));
	answer_list(LIST_41, OFFER);
	end_writing(&item, REMOTE_UNKNOWN, -EIO);
	/* What it left may be there by now, and is not to be taken for the next one's. */
	begin_writing(remote->ops->create, &item);
	answer_list(LIST_41, OFFER);
	answer_error(next_sent("POST", CREATE_URL), -ECONNRESET, 0);
	end_writing(&item, REMOTE_UNKNOWN, -EIO);
}

static void test_a_document_of_another_size_than_sent_is_refused(void **state)
{
	struct remote_change item = change(NULL, "new.pdf");

	(void)state;
	item.size = 4;
	begin_writing(remote->ops->create, &item);
	answer_list(LIST_41, OFFER);
	answer(next_sent("POST", CREATE_URL), 201, "");
	answer_list(LIST_41, OFFER "," DOC("5013", "41", ELEMENT, "3", "new.pdf", "3"));
	assert_string_equal(item.file.id, "5013");
	end_writing(&item, REMOTE_REFUSED, -EIO);
}

static void test_a_create_that_finds_nothing_says_tasks_only(void **state)
{
	struct remote_change item = change(NULL, "new.pdf");

	(void)state;
	begin_writing(remote->ops->create, &item);
	answer_list(LIST_41, OFFER);
	answer(next_sent("POST", CREATE_URL), 404, REFUSED("not here"));
	answer_list(LIST_41, OFFER);
	assert_non_null(strstr(item.message, "on tasks only (R-9)"));
	assert_non_null(strstr(item.message, "not here"));
	end_writing(&item, REMOTE_REFUSED, -EPERM);
}

static void test_a_create_follows_its_folder_once(void **state)
{
	struct remote_change item = change(NULL, "new.pdf");

	(void)state;
	item.size = 4;
	begin_writing(remote->ops->create, &item);
	answer_list(LIST_41, OFFER);
	answer(next_sent("POST", CREATE_URL), 404, REFUSED("no folder 3"));
	/* the folder is gone, its documents are in the main folder. */
	answer_list(LIST_41, DOC("5012", "41", ELEMENT, "1", "offer.pdf", "48213"));
	answer(next_sent("POST", CLIENT "/dms/projects/41/folders/1/parent/" ELEMENT "/documents"),
	       201, DONE);
	answer_list(LIST_41, DOC("5013", "41", ELEMENT, "1", "new.pdf", "4"));
	end_writing(&item, REMOTE_DONE, 0);
}

static void test_an_element_without_documents_gets_the_main_folder(void **state)
{
	struct remote_change item = change(NULL, "new.pdf");

	(void)state;
	item.size = 4;
	item.record = OTHER;
	begin_writing(remote->ops->create, &item);
	answer_list(LIST_41, OFFER);
	answer(next_sent("GET", CLIENT "/dms/folders"), 200,
	       OK("[{\"id\":3,\"left\":2,\"right\":3},{\"id\":2,\"left\":1,\"right\":4}]"));
	answer(next_sent("POST", CLIENT "/dms/projects/41/folders/2/parent/" OTHER "/documents"),
	       404, REFUSED("gone"));
	answer_list(LIST_41, OFFER);
	end_writing(&item, REMOTE_REFUSED, -ENOENT);
	/* There is no list of folders: where others of the project are. */
	begin_writing(remote->ops->create, &item);
	answer(next_sent("GET", CLIENT "/dms/folders"), 404, REFUSED("no such path"));
	answer(next_sent("POST", CLIENT "/dms/projects/41/folders/3/parent/" OTHER "/documents"),
	       400, REFUSED("Validation error"));
	assert_non_null(strstr(item.message, "Validation error"));
	end_writing(&item, REMOTE_REFUSED, -EIO);
}

static void test_a_rename_sends_all_that_is_known(void **state)
{
	struct remote_change item = change("5012", "offer 2.pdf");

	(void)state;
	begin_writing(remote->ops->update, &item);
	answer_list(LIST_41, OFFER);
	struct sent *s = next_sent("POST", DOC_URL);
	assert_non_null(strstr(s->headers, "X-HTTP-Method-Override: PUT;"));
	assert_string_equal(s->fields, "folderId=3 parentUuid=" ELEMENT
				       " name=offer 2.pdf description=as sent");
	answer(s, 200, DONE);
	answer_list(LIST_41, DOC("5012", "41", ELEMENT, "3", "offer 2.pdf", "48213"));
	assert_string_equal(item.file.raw_name, "offer 2.pdf");
	end_writing(&item, REMOTE_DONE, 0);
}

static void test_an_update_that_was_ignored_is_refused(void **state)
{
	struct remote_change item = change("5012", "offer 2.pdf");

	(void)state;
	begin_writing(remote->ops->update, &item);
	answer_list(LIST_41, OFFER);
	answer(next_sent("POST", DOC_URL), 200, DONE);
	answer_list(LIST_41, OFFER);
	end_writing(&item, REMOTE_REFUSED, -EIO);
}

static void test_the_override_is_said_as_the_option_says(void **state)
{
	static const struct {
		enum options_override how;
		const char *method;
		bool header, field;
	} table[] = {
		{OPTIONS_OVERRIDE_HEADER, "POST", true, false},
		{OPTIONS_OVERRIDE_FIELD, "POST", false, true},
		{OPTIONS_OVERRIDE_BOTH, "POST", true, true},
		{OPTIONS_OVERRIDE_NONE, "PUT", false, false},
	};

	for (size_t i = 0; i < 4; i++) {
		struct remote_change item = change("5012", "b.pdf");
		assert_int_equal(begin_with(table[i].how, NULL), 0);
		begin_writing(remote->ops->update, &item);
		answer_list(LIST_41, OFFER);
		struct sent *s = next_sent(table[i].method, DOC_URL);
		assert_int_equal(strstr(s->headers, "Override") != NULL, table[i].header);
		assert_int_equal(strstr(s->fields, "_method=PUT") != NULL, table[i].field);
		answer(s, 404, REFUSED("gone"));
		answer_list(LIST_41, "");
		end_writing(&item, REMOTE_GONE, -ENOENT);
		assert_int_equal(end_world(state), 0);
	}
}

static void test_a_move_that_was_ignored_is_between_devices(void **state)
{
	struct remote_change item = change("5012", NULL);

	(void)state;
	item.record = OTHER;
	item.move = true;
	begin_writing(remote->ops->update, &item);
	answer_list(LIST_41, OFFER);
	struct sent *s = next_sent("POST", DOC_URL);
	assert_non_null(strstr(s->fields, "parentUuid=" OTHER));
	answer(s, 201, DONE);
	answer_list(LIST_41, OFFER);
	end_writing(&item, REMOTE_REFUSED, -EXDEV);
	begin_writing(remote->ops->update, &item);
	answer(next_sent("POST", DOC_URL), 409, REFUSED("conflict"));
	end_writing(&item, REMOTE_REFUSED, -EXDEV);
	begin_writing(remote->ops->update, &item);
	answer(next_sent("POST", DOC_URL), 200, DONE);
	answer_list(LIST_41, DOC("5012", "41", OTHER, "3", "offer.pdf", "48213"));
	assert_string_equal(item.file.record, OTHER);
	end_writing(&item, REMOTE_DONE, 0);
}

#define SMALL DOC("5012", "41", ELEMENT, "3", "offer.pdf", "5")

static void test_a_server_that_wants_the_file_gets_it(void **state)
{
	struct remote_change item = change("5012", "b.pdf");

	(void)state;
	begin_writing(remote->ops->update, &item);
	answer_list(LIST_41, SMALL);
	answer(next_sent("POST", DOC_URL), 400, REFUSED("file is required"));
	answer_list(LIST_41, SMALL);
	answer_typed(next_sent("GET", DOC_URL), 200, "application/octet-stream", "hello");
	struct sent *s = next_sent("POST", DOC_URL);
	assert_string_equal(s->fields, "file=<5 bytes> folderId=3 parentUuid=" ELEMENT
				       " name=b.pdf description=as sent");
	assert_string_equal(s->filename, "b.pdf");
	answer(s, 200, DONE);
	answer_list(LIST_41, DOC("5012", "41", ELEMENT, "3", "b.pdf", "5"));
	end_writing(&item, REMOTE_DONE, 0);
	/* From now on at once. */
	item.name = "c.pdf";
	begin_writing(remote->ops->update, &item);
	answer_typed(next_sent("GET", DOC_URL), 200, "application/octet-stream", "hello");
	answer(next_sent("POST", DOC_URL), 400, REFUSED("name is taken"));
	answer_list(LIST_41, DOC("5012", "41", ELEMENT, "3", "b.pdf", "5"));
	assert_non_null(strstr(item.message, "name is taken"));
	end_writing(&item, REMOTE_REFUSED, -EINVAL);
}

static void test_an_update_follows_its_folder_once(void **state)
{
	static const char *const fields = "file=<5 bytes> folderId=1 parentUuid=" ELEMENT
					  " name=offer.pdf description=as sent";
	struct remote_change item = change("5012", NULL);

	(void)state;
	item.size = 5;
	begin_writing(remote->ops->replace, &item);
	answer_list(LIST_41, SMALL);
	answer(next_sent("POST", DOC_URL), 400, REFUSED("no folder 3"));
	/* the folder is gone, its documents are in the main folder. */
	answer_list(LIST_41, DOC("5012", "41", ELEMENT, "1", "offer.pdf", "5"));
	struct sent *s = next_sent("POST", DOC_URL);
	assert_string_equal(s->fields, fields);
	answer(s, 400, REFUSED("Validation error"));
	assert_non_null(strstr(item.message, "Validation error (it may be larger"));
	end_writing(&item, REMOTE_REFUSED, -EIO);
}

static void test_a_replacement_is_believed_by_its_size(void **state)
{
	struct remote_change item = change("5012", NULL);

	(void)state;
	item.size = 7;
	begin_writing(remote->ops->replace, &item);
	answer_list(LIST_41, SMALL);
	struct sent *s = next_sent("POST", DOC_URL);
	assert_string_equal(s->filename, "offer.pdf"); /* */
	answer(s, 200, DONE);
	answer_list(LIST_41, SMALL);
	end_writing(&item, REMOTE_REFUSED, -EIO);
	begin_writing(remote->ops->replace, &item);
	answer(next_sent("POST", DOC_URL), 413, REFUSED("too large"));
	end_writing(&item, REMOTE_REFUSED, -EFBIG);
}

static void test_a_name_no_part_can_carry_is_set_afterwards(void **state)
{
	struct remote_change item = change("5012", "a\"b.pdf");

	(void)state;
	item.size = 7;
	begin_writing(remote->ops->replace, &item);
	answer_list(LIST_41, SMALL);
	struct sent *s = next_sent("POST", DOC_URL);
	assert_string_equal(s->filename, "token-1.pdf");
	answer(s, 200, DONE);
	answer_list(LIST_41, DOC("5012", "41", ELEMENT, "3", "token-1.pdf", "7"));
	s = next_sent("POST", DOC_URL);
	assert_string_equal(s->fields,
			    "folderId=3 parentUuid=" ELEMENT " name=a\"b.pdf description=as sent");
	answer(s, 200, DONE);
	answer_list(LIST_41, DOC("5012", "41", ELEMENT, "3", "a\\\"b.pdf", "7"));
	assert_string_equal(item.file.raw_name, "a\"b.pdf");
	end_writing(&item, REMOTE_DONE, 0);
}

static void test_a_replacement_under_a_new_id_is_found(void **state)
{
	struct remote_change item = change("5012", NULL);

	(void)state;
	item.size = 7;
	begin_writing(remote->ops->replace, &item);
	answer_list(LIST_41, SMALL);
	answer(next_sent("POST", DOC_URL), 200, DONE);
	answer_list(LIST_41, DOC("5099", "41", ELEMENT, "3", "offer.pdf", "7"));
	assert_string_equal(item.file.id, "5099");
	end_writing(&item, REMOTE_DONE, 0);
}

static void test_a_delete_is_one_call_unless_it_is_not_found(void **state)
{
	static const int good[] = {200, 202, 204};
	struct remote_change item = change("5012", NULL);

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		begin_writing(remote->ops->remove, &item);
		answer(next_sent("DELETE", DOC_URL), good[i], "");
		end_writing(&item, REMOTE_DONE, 0);
	}
	begin_writing(remote->ops->remove, &item);
	answer(next_sent("DELETE", DOC_URL), 404, REFUSED("gone"));
	answer_list(LIST_41, "");
	end_writing(&item, REMOTE_GONE, 0);
	for (int status = 404; status <= 405; status++) {
		begin_writing(remote->ops->remove, &item);
		answer(next_sent("DELETE", DOC_URL), status, REFUSED("no such path"));
		answer_list(LIST_41, OFFER);
		assert_non_null(strstr(item.message, "template_delete="));
		end_writing(&item, REMOTE_REFUSED, -ENOSYS);
	}
}

static void test_unsound_items_are_refused_without_a_call(void **state)
{
	struct remote_change item;

	(void)state;
	item = change("../5012", "x");
	begin_writing(remote->ops->update, &item);
	end_writing(&item, REMOTE_REFUSED, -EINVAL);
	item = change(NULL, "x");
	item.record = RILLSOFT_NO_ELEMENT;
	begin_writing(remote->ops->create, &item);
	end_writing(&item, REMOTE_REFUSED, -EPERM);
	item = change("5012", "x");
	item.collection = "41/..";
	begin_writing(remote->ops->remove, &item);
	end_writing(&item, REMOTE_REFUSED, -EINVAL);
	item = change("5012", NULL);
	begin_writing(remote->ops->update, &item);
	end_writing(&item, REMOTE_DONE, 0);
}

static void test_writes_side_by_side_share_the_list(void **state)
{
	struct remote_change items[4];
	char names[4][16];

	(void)state;
	done_calls = 0;
	for (size_t i = 0; i < 4; i++) {
		snprintf(names[i], sizeof(names[i]), "%zu.pdf", i);
		items[i] = change(NULL, names[i]);
		items[i].size = 4;
		remote->ops->create(remote, TRANSFER_WRITEBACK, &items[i], 1, count_done,
				    &done_calls);
	}
	/* The first asks; the others are content with what it gets. */
	answer_list(LIST_41, OFFER);
	for (size_t i = 0; i < 4; i++)
		answer(next_sent("POST", CREATE_URL), 201, DONE);
	/* The first one's look was under way when the others were done: one more for these. */
	answer_list(LIST_41, DOC("1", "41", ELEMENT, "3", "0.pdf", "4"));
	answer_list(LIST_41,
		    DOC("1", "41", ELEMENT, "3", "0.pdf", "4") "," DOC(
			    "2", "41", ELEMENT, "3", "1.pdf",
			    "4") "," DOC("3", "41", ELEMENT, "3", "2.pdf",
					 "4") "," DOC("4", "41", ELEMENT, "3", "3.pdf", "4"));
	assert_int_equal(done_calls, 4);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(items[i].outcome, REMOTE_DONE);
		assert_string_equal(items[i].file.raw_name, names[i]);
		remote_file_clear(&items[i].file);
	}
}

static void test_creates_of_one_name_wait_for_each_other(void **state)
{
	static const char *const lists[] = {
		OFFER,
		OFFER "," DOC("6", "41", ELEMENT, "3", "tmp", "4"),
		OFFER "," DOC("6", "41", ELEMENT, "3", "tmp", "4") "," DOC("7", "41", ELEMENT, "3",
									   "tmp", "4"),
	};
	struct remote_change items[2] = {change(NULL, "tmp"), change(NULL, "tmp")};

	(void)state;
	done_calls = 0;
	for (size_t i = 0; i < 2; i++) {
		items[i].size = 4;
		remote->ops->create(remote, TRANSFER_WRITEBACK, &items[i], 1, count_done,
				    &done_calls);
	}
	answer_list(LIST_41, lists[0]);
	for (size_t i = 0; i < 2; i++) {
		answer(next_sent("POST", CREATE_URL), 201, DONE);
		answer_list(LIST_41, lists[i + 1]);
	}
	assert_int_equal(done_calls, 2);
	assert_string_equal(items[0].file.id, "6");
	assert_string_equal(items[1].file.id, "7");
	remote_file_clear(&items[0].file);
	remote_file_clear(&items[1].file);
}

/* listings */

struct listed {
	int done, error;
	size_t records, files;
	char name[64];
};

static bool note_page(void *ctx, struct remote_record *records, size_t n_records,
		      struct remote_file *files, size_t n_files)
{
	struct listed *listed = ctx;

	(void)files;
	if (n_records > 0)
		snprintf(listed->name, sizeof(listed->name), "%s", records[0].name);
	listed->records += n_records;
	listed->files += n_files;
	return true;
}

static void note_listed(void *ctx, int error, const char *message)
{
	struct listed *listed = ctx;

	(void)message;
	listed->done++;
	listed->error = error;
}

static struct listed listed;

static void list_tree(const char *collection)
{
	struct remote_sink sink = {note_page, note_listed, &listed};

	listed = (struct listed){.error = 1};
	assert_int_equal(remote->ops->list_tree(remote, TRANSFER_INTERACTIVE, collection, &sink),
			 0);
}

static void assert_listed(size_t records, size_t files)
{
	assert_int_equal(listed.done, 1);
	assert_int_equal(listed.error, 0);
	assert_int_equal(listed.records, records);
	assert_int_equal(listed.files, files);
}

static void test_a_tree_is_its_documents_by_element(void **state)
{
	(void)state;
	list_tree("41");
	answer_list(LIST_41, OFFER "," DOC("5", "41", OTHER, "3", "x",
					   "1") "," DOC("6", "41", ELEMENT, "3", "y", "1"));
	assert_listed(2, 3);
	assert_string_equal(listed.name, "Foundation");
	list_tree("41");
	answer_list(LIST_41, "{\"id\":6,\"parentUuid\":\"" ELEMENT "\",\"elementName\":\"\"}");
	assert_listed(1, 1);
	assert_string_equal(listed.name, ELEMENT);
}

static void test_a_server_that_ignores_the_selector_is_asked_once_for_all(void **state)
{
	static const char both[] = OFFER "," DOC("7", "42", OTHER, "3", "x", "1");

	(void)state;
	list_tree("41");
	answer_list(LIST_41, both);
	assert_listed(1, 1);
	list_tree("42");
	assert_listed(1, 1);
	/* Whoever has seen it wants another one. */
	list_tree("42");
	answer_list(LIST_42, both);
	assert_listed(1, 1);
	/* And after a while it is too old for all. */
	world.now_ms += 5000;
	list_tree("41");
	answer_list(LIST_41, both);
	assert_listed(1, 1);
	/* One that is not named is asked for alone. */
	list_tree("43");
	answer_list(CLIENT "/dms/documents?project_id=43", both);
	assert_listed(0, 0);
}

static void test_a_selector_that_is_obeyed_makes_no_project_empty(void **state)
{
	struct remote_sink sink = {note_page, note_listed, &listed};

	(void)state;
	list_tree("41");
	answer_list(LIST_41, OFFER "," DOC("7", "42", OTHER, "3", "x", "1"));
	world.now_ms += 5000;
	/* 42 waits for what 41 asked; that does not name it any more. */
	listed = (struct listed){.error = 1};
	remote->ops->list_tree(remote, TRANSFER_INTERACTIVE, "41", &sink);
	remote->ops->list_tree(remote, TRANSFER_INTERACTIVE, "42", &sink);
	answer_list(LIST_41, OFFER);
	assert_int_equal(listed.done, 1);
	answer_list(LIST_42, DOC("7", "42", OTHER, "3", "x", "1"));
	assert_int_equal(listed.done, 2);
	assert_int_equal(listed.files, 2);
}

static void test_a_template_without_a_selector_lists_all(void **state)
{
	(void)state;
	remote_free(remote);
	assert_int_equal(begin_with(OPTIONS_OVERRIDE_HEADER, "/api/v2/clients/{cid}/all"), 0);
	list_tree("41");
	answer_list(CLIENT "/all", OFFER);
	assert_listed(1, 1);
	list_tree("42");
	assert_listed(0, 0);
}

static void test_a_listing_that_fails_is_not_whole(void **state)
{
	static const struct {
		int status;
		const char *body;
		int error;
	} table[] = {
		{200, "", -EIO},
		{200, "<html>", -EIO},
		{200, OK("{}"), -EIO},
		{200, OK("[{}]"), -EIO},
		{403, REFUSED("Insufficient permissions"), -EACCES},
		{404, REFUSED("gone"), -EIO},
		{500, REFUSED("An internal server error occurred"), -EIO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		list_tree("41");
		answer(next_sent("GET", LIST_41), table[i].status, table[i].body);
		assert_int_equal(listed.done, 1);
		assert_int_equal(listed.error, table[i].error);
		assert_int_equal(listed.files, 0);
	}
}

struct polled {
	int error;
	bool changed;
	char cursor[64];
};

static void note_poll(void *ctx, int error, bool changed, const char *cursor)
{
	struct polled *polled = ctx;

	polled->error = error;
	polled->changed = changed;
	if (error == 0)
		snprintf(polled->cursor, sizeof(polled->cursor), "%s", cursor);
}

static void test_a_poll_is_a_listing_that_the_tree_uses(void **state)
{
	struct polled polled = {0};

	(void)state;
	remote->ops->poll(remote, "41", NULL, note_poll, &polled);
	answer_list(LIST_41, OFFER);
	assert_true(polled.changed);
	world.now_ms += 60000;
	remote->ops->poll(remote, "41", polled.cursor, note_poll, &polled);
	answer_list(LIST_41, OFFER);
	assert_false(polled.changed);
	list_tree("41"); /* somebody else wants it, and nothing says that it is as it was */
	answer_list(LIST_41, OFFER);
	world.now_ms += 60000;
	remote->ops->poll(remote, "41", polled.cursor, note_poll, &polled);
	answer_list(LIST_41, SMALL);
	assert_true(polled.changed);
	list_tree("41"); /* what the poll brought */
	assert_listed(1, 1);
}

/* family 1 */

static void test_attachments_are_what_the_option_names(void **state)
{
	struct polled polled = {0};

	(void)state;
	list_tree(RILLSOFT_ATTACHMENTS);
	assert_listed(1, 2);
	remote->ops->poll(remote, RILLSOFT_ATTACHMENTS, NULL, note_poll, &polled);
	assert_true(polled.changed);
	remote->ops->poll(remote, RILLSOFT_ATTACHMENTS, polled.cursor, note_poll, &polled);
	assert_false(polled.changed);
	assert_int_equal(remote->ops->may(remote, REMOTE_CREATES, "attachments", NULL, "x"),
			 -EPERM);
	assert_int_equal(remote->ops->may(remote, REMOTE_REMOVES, "attachments", NULL, "9"),
			 -EPERM);
	assert_int_equal(remote->ops->may(remote, REMOTE_REPLACES, "attachments", NULL, "9"), 0);
	assert_int_equal(remote->ops->may(remote, REMOTE_RENAMES, "41", "42", "x"), -EXDEV);
	assert_int_equal(remote->ops->may(remote, REMOTE_RENAMES, "41", "41", "x"), 0);
}

static void test_an_attachment_is_uploaded_as_the_seed_says(void **state)
{
	struct remote_change item = change("9", NULL);

	(void)state;
	item.collection = item.record = RILLSOFT_ATTACHMENTS;
	item.size = 4;
	begin_writing(remote->ops->replace, &item);
	struct sent *s = next_sent("POST", CLIENT "/attachments/9?project_id=41");
	assert_string_equal(s->fields, "file=<4 bytes>");
	answer(s, 201,
	       "{\"status\":\"success\",\"code\":201,\"message\":\"Operation completed "
	       "successfully\",\"details\":[]}");
	assert_string_equal(item.file.id, "9");
	end_writing(&item, REMOTE_DONE, 0);
	begin_writing(remote->ops->replace, &item);
	answer(next_sent("POST", CLIENT "/attachments/9?project_id=41"), 404,
	       "{\"status\":\"error\",\"code\":404,\"message\":\"Not found\",\"details\":\"The "
	       "requested resource was not found\"}");
	assert_non_null(strstr(item.message, "The requested resource was not found"));
	end_writing(&item, REMOTE_REFUSED, -ENOENT);
	begin_writing(remote->ops->replace, &item);
	answer(next_sent("POST", CLIENT "/attachments/9?project_id=41"), 400,
	       REFUSED("Validation error"));
	end_writing(&item, REMOTE_REFUSED, -EIO);
	item.id = "11";
	begin_writing(remote->ops->replace, &item);
	end_writing(&item, REMOTE_REFUSED, -ENOENT);
	begin_writing(remote->ops->remove, &item);
	end_writing(&item, REMOTE_REFUSED, -EPERM);
}

/* reading */

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

static void begin_fetch(const char *name, int64_t size, int *result)
{
	struct remote_fetch_sink sink = {note_begin, note_data, note_fetched, result};
	struct rillsoft_doc doc = {
		.id = "5012", .created = (char *)"2026-03-01T08:15:00", .size = size};
	char version[RILLSOFT_VERSION_SIZE];
	struct remote_file file = {
		.id = (char *)"5012", .name = (char *)name, .version = version, .size = size};
	uint64_t id;

	rillsoft_version(&doc, version);
	*result = 1;
	assert_int_equal(
		remote->ops->fetch(remote, TRANSFER_INTERACTIVE, &file, "41", 0, 0, 0, &sink, &id),
		0);
}

static void test_bytes_are_told_from_what_is_said_of_them(void **state)
{
	static const struct {
		const char *name;
		int64_t size;
		const char *type, *body;
		int result;
	} table[] = {
		{"a.pdf", 5, "application/octet-stream", "hello", 0},
		{"a.pdf", 2, "application/json", "{}", 0}, /* of that size */
		{"a.pdf", 9, "application/json", "{\"id\":1}", -EIO},
		{"a.pdf", 9, "application/hal+json; charset=utf-8", "{\"id\":1}", -EIO},
		{"a.pdf", 9, "text/html", "<html>", -EIO},
		{"a.json", 9, "application/json", "{\"id\":1}", -ESTALE},
		{"a.pdf", 9, "application/pdf", "other", -ESTALE},
	};
	int result;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		begin_fetch(table[i].name, table[i].size, &result);
		answer_typed(next_sent("GET", DOC_URL), 200, table[i].type, table[i].body);
		assert_int_equal(result, table[i].result);
	}
}

static void test_a_404_is_gone_only_when_the_list_agrees(void **state)
{
	int result;

	(void)state;
	begin_fetch("offer.pdf", 48213, &result);
	answer(next_sent("GET", DOC_URL), 404, REFUSED("gone"));
	answer_list(LIST_41, "");
	assert_int_equal(result, -ENOENT);
	begin_fetch("offer.pdf", 48213, &result);
	answer(next_sent("GET", DOC_URL), 404, REFUSED("gone"));
	answer_list(LIST_41, OFFER);
	answer(next_sent("GET", DOC_URL), 404, REFUSED("gone"));
	assert_int_equal(result, -EIO);
	begin_fetch("offer.pdf", 5, &result);
	answer(next_sent("GET", DOC_URL), 404, REFUSED("gone"));
	answer_list(LIST_41, OFFER);
	assert_int_equal(result, -ESTALE);
}

/* making one */

static void test_options_that_cannot_be_are_said(void **state)
{
	const struct options good = {.system = OPTIONS_SYSTEM_RILLSOFT,
				     .base_url = (char *)"https://ris.example.org",
				     .client = (char *)"1"};
	struct options o[8];
	static const char *const words[] = {"client=ID",	"client=ID",	"attachments=",
					    "project=",		"collections=", "attachments needs",
					    "template_delete=", "address"};
	char message[256];

	(void)state;
	setenv("ATTACHFS_TOKEN", "token-of-the-unit-test", 1);
	for (size_t i = 0; i < 8; i++)
		o[i] = good;
	o[0].client = NULL;
	o[1].client = (char *)"ACME";
	o[2].attachments = (char *)"9:x";
	o[3].project = (char *)"41/..";
	o[4].collections = (char *)"41:Plant B";
	o[5].collections = (char *)"attachments";
	o[6].template_delete = (char *)"delete/{did}";
	o[7].base_url = (char *)"ftp://ris.example.org";
	for (size_t i = 0; i < 8; i++) {
		struct remote *r;
		assert_int_equal(remote_new(&o[i], NULL, NULL, &r, message, sizeof(message)),
				 -EINVAL);
		if (!strstr(message, words[i]))
			fail_msg("'%s' is not in: %s", words[i], message);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_document_is_read_whole),
		cmocka_unit_test(test_other_spellings_are_the_same_document),
		cmocka_unit_test(test_what_is_no_list_is_never_an_empty_one),
		cmocka_unit_test(test_fields_of_wrong_types_are_as_good_as_absent),
		cmocka_unit_test(test_a_listing_covers_what_it_was_asked_for_or_names),
		cmocka_unit_test(test_the_new_document_is_the_one_that_was_not_there),
		cmocka_unit_test(test_a_version_says_size_and_time_and_not_the_name),
		cmocka_unit_test(test_times_are_read_in_every_form_the_server_writes),
		cmocka_unit_test(test_projects_are_read),
		cmocka_unit_test(test_the_main_folder_begins_first_or_has_no_parent),
		cmocka_unit_test(test_the_token_is_found_wherever_it_is),
		cmocka_unit_test(test_a_token_says_when_it_ends),
		cmocka_unit_test(test_templates_are_filled),
		cmocka_unit_test(test_templates_are_checked),
		cmocka_unit_test(test_outcomes_follow_from_what_is_known_to_have_happened),
		cmocka_unit_test(test_details_reach_the_user_in_any_type),
		CALL_TEST(test_a_new_document_is_found_in_the_list),
		CALL_TEST(test_a_create_that_is_not_listed_is_unknown),
		CALL_TEST(test_a_document_of_another_size_than_sent_is_refused),
		CALL_TEST(test_a_create_that_finds_nothing_says_tasks_only),
		CALL_TEST(test_a_create_follows_its_folder_once),
		CALL_TEST(test_an_element_without_documents_gets_the_main_folder),
		CALL_TEST(test_a_rename_sends_all_that_is_known),
		CALL_TEST(test_an_update_that_was_ignored_is_refused),
		cmocka_unit_test(test_the_override_is_said_as_the_option_says),
		CALL_TEST(test_a_move_that_was_ignored_is_between_devices),
		CALL_TEST(test_a_server_that_wants_the_file_gets_it),
		CALL_TEST(test_an_update_follows_its_folder_once),
		CALL_TEST(test_a_replacement_is_believed_by_its_size),
		CALL_TEST(test_a_name_no_part_can_carry_is_set_afterwards),
		CALL_TEST(test_a_replacement_under_a_new_id_is_found),
		CALL_TEST(test_a_delete_is_one_call_unless_it_is_not_found),
		CALL_TEST(test_unsound_items_are_refused_without_a_call),
		CALL_TEST(test_writes_side_by_side_share_the_list),
		CALL_TEST(test_creates_of_one_name_wait_for_each_other),
		CALL_TEST(test_a_tree_is_its_documents_by_element),
		CALL_TEST(test_a_server_that_ignores_the_selector_is_asked_once_for_all),
		CALL_TEST(test_a_selector_that_is_obeyed_makes_no_project_empty),
		CALL_TEST(test_a_template_without_a_selector_lists_all),
		CALL_TEST(test_a_listing_that_fails_is_not_whole),
		CALL_TEST(test_a_poll_is_a_listing_that_the_tree_uses),
		CALL_TEST(test_attachments_are_what_the_option_names),
		CALL_TEST(test_an_attachment_is_uploaded_as_the_seed_says),
		CALL_TEST(test_bytes_are_told_from_what_is_said_of_them),
		CALL_TEST(test_a_404_is_gone_only_when_the_list_agrees),
		cmocka_unit_test(test_options_that_cannot_be_are_said),
	};

	log_open("/dev/null", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
