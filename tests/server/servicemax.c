/* SPDX-License-Identifier: MIT */
/* ServiceMax: toggles, and what the rest of the emulator calls. */
#include "servicemax.h"

#include "alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CHOICE(name, choices, otherwise)                                                           \
	{                                                                                          \
		name, SETTING_CHOICE, choices, otherwise                                           \
	}
#define NUMBER(name, otherwise)                                                                    \
	{                                                                                          \
		name, SETTING_NUMBER, NULL, otherwise                                              \
	}

static const struct setting settings[] = {
	[SM_HREF_HOST] = CHOICE("href_host", "base|localhost:8080|foreign|http|https", "base"),
	[SM_HREF_QUERY] = CHOICE("href_query", "13|12|none", "13"),
	[SM_RANGE] = CHOICE("range", "206|ignored", "206"),
	[SM_DOCUMENT_AUTH] = CHOICE("document_auth", "required|refused|none", "required"),
	[SM_RENAME_BY_DOCUMENT_ID] = CHOICE("rename_by_document_id", "follows|stays", "follows"),
	[SM_REPLACE_UUID] = CHOICE("replace_uuid", "stays|changes", "stays"),
	[SM_DELETE_PATH] = CHOICE("delete_path", "plural|singular|both", "plural"),
	[SM_DELETE_PATH_OTHER] = CHOICE("delete_path_other", "404|405", "404"),
	[SM_DELETE_STATUS] = CHOICE("delete_status", "200|204|202", "200"),
	[SM_DELETE_REPLY] = CHOICE("delete_reply", "empty|list", "empty"),
	[SM_DELETE_PARTIAL] = CHOICE("delete_partial", "off|on", "off"),
	[SM_NAME_CASE] = CHOICE("name_case", "sensitive|insensitive", "sensitive"),
	[SM_COMMA_ESCAPE] = CHOICE("comma_escape", "off|on", "off"),
	[SM_NUMBERS] = CHOICE("numbers", "strings|numbers", "strings"),
	[SM_LINKS] = CHOICE("links", "with|without|reversed", "with"),
	[SM_LINKS_COMMA] = CHOICE("links_comma", "on|off", "on"),
	[SM_OTHER_TYPES] = CHOICE("other_types", "off|on", "off"),
	[SM_CSRF] = CHOICE("csrf", "off|on", "off"),
	[SM_CSRF_HEADER] =
		CHOICE("csrf_header", "X-CSRF-Token|X-XSRF-TOKEN|OWASP-CSRFTOKEN", "X-CSRF-Token"),
	[SM_CSRF_FORM] = CHOICE("csrf_form", "script|header|bare", "script"),
	[SM_TTL] = NUMBER("ttl", "86400"),
	[SM_REFRESH] = CHOICE("refresh", "present|absent", "present"),
	[SM_REFRESH_ROTATION] = CHOICE("refresh_rotation", "same|new|omitted", "same"),
	[SM_CLIENT_HEADER] =
		CHOICE("client_header", "client_id|X-Client-Id|Client-Id", "client_id"),
	[SM_TOKEN_PATH] = CHOICE("token_path", "/sec/auth/token|/auth/token", "/sec/auth/token"),
	[SM_PASSWORD] = CHOICE("password", "secret|changed", "secret"),
	[SM_EXPIRED] = CHOICE("expired", "401|403|400", "401"),
	[SM_MAX_BYTES] = NUMBER("max_bytes", "off"),
	[SM_MAX_BYTES_STATUS] = CHOICE("max_bytes_status", "413|400", "413"),
	[SM_EMPTY_FILES] = CHOICE("empty_files", "accepted|refused", "accepted"),
	[SM_EXTENSION_RULE] = CHOICE("extension_rule", "off|exe", "off"),
	[SM_THROTTLE] = NUMBER("throttle", "off"),
	[SM_THROTTLE_HEADERS] = CHOICE("throttle_headers", "retry-after|absent", "retry-after"),
	[SM_URI_MAX] = NUMBER("uri_max", "off"),
	[SM_ERROR_FORM] = CHOICE("error_form", "type|nested|text", "type"),
	[SM_USER_REPLY] = CHOICE("user_reply", "map|array", "map"),
	[SM_ORDER] = CHOICE("order", "shuffled|stable", "shuffled"),
	[SM_NAME_FIELD] = CHOICE("name_field", "io_name|io_title", "io_name"),
	[SM_UPDATED_FIELD] = CHOICE("updated_field", "io_updated_on|absent", "io_updated_on"),
	[SM_RECORD_ZONE] = CHOICE("record_zone", "-03:00|+00:00|+05:30", "-03:00"),
	[SM_UNREADABLE] = NUMBER("unreadable", "off"),
	[SM_UNREADABLE_STATUS] = CHOICE("unreadable_status", "404|403", "404"),
	[SM_SOFT_DELETED] = NUMBER("soft_deleted", "off"),
	[SM_TOUCH_RECORD] = CHOICE("touch_record", "off|on", "off"),
	[SM_POST_REPLY] = CHOICE("post_reply", "changed|all|reversed", "changed"),
	[SM_RESTORED_TIME] = CHOICE("restored_time", "version|now", "version"),
	[SM_VERSION_URLS] = CHOICE("version_urls", "off|on", "off"),
	[SM_REDIRECT] = CHOICE("redirect", "off|same|foreign", "off"),
	[SM_ETAG] = CHOICE("etag", "version|absent", "version"),
	{NULL, SETTING_NUMBER, NULL, NULL},
};

/* Objects every installation has; others are made by naming them. */
static const struct collection collections[] = {
	{.name = "io_showcase", .owner_type = "io_showcase"}, /* S-21 */
	{.name = "io_account", .owner_type = "io_account"},
	{.name = NULL},
};

int64_t sm_set_of(const struct emulator *emu, enum sm_setting which)
{
	return emu->settings.values[which];
}

int64_t sm_set(const struct sm_call *c, enum sm_setting which)
{
	return sm_set_of(c->sm->emu, which);
}

const char *sm_choice(const struct sm_call *c, enum sm_setting which, char *buf, size_t size)
{
	const char *choices = settings[which].choices;

	for (int64_t i = sm_set(c, which); i > 0; i--)
		choices += strcspn(choices, "|") + 1;
	snprintf(buf, size, "%.*s", (int)strcspn(choices, "|"), choices);
	return buf;
}

bool sm_is_verb(const struct sm_call *c, const char *verb)
{
	return strcmp(c->method, verb) == 0;
}

static void *servicemax_open(struct emulator *emu)
{
	struct servicemax *sm = xzalloc(sizeof(*sm));

	sm->emu = emu;
	sm->csrf_token = store_new_path("");
	return sm;
}

static void servicemax_close(void *state)
{
	struct servicemax *sm = state;
	size_t pos = 0;
	void *window;

	while ((window = table_next(&sm->throttled, &pos)))
		free(window);
	table_free(&sm->throttled);
	sm_tokens_free(sm);
	sm_versions_free(sm);
	free(sm->csrf_token);
	free(sm);
}

static enum body_kind body_kind(struct request *rq)
{
	const char *type = request_header(rq, "Content-Type");

	if (!type)
		return BODY_DISCARD;
	if (strncasecmp(type, "multipart/form-data", 19) == 0)
		return BODY_MULTIPART;
	if (strncasecmp(type, "application/json", 16) == 0 ||
	    strncasecmp(type, "application/x-www-form-urlencoded", 33) == 0)
		return BODY_KEEP;
	return BODY_DISCARD;
}

static bool too_long(struct sm_call *c)
{
	int64_t max = sm_set(c, SM_URI_MAX);

	if (!max || strlen(c->rq->path) + strlen(c->rq->query) <= (size_t)max)
		return false;
	sm_error(c, 414, "Request-URI Too Long");
	return true;
}

/* Of both ports: libmicrohttpd leaves the body of HEAD out. */
static void servicemax_serve(struct request *rq, struct response *rs)
{
	struct sm_call c = {.sm = rq->emu->state,
			    .rq = rq,
			    .rs = rs,
			    .method = strcmp(rq->method, "HEAD") == 0 ? "GET" : rq->method};

	if (!too_long(&c) && sm_throttle(&c))
		sm_route(&c);
}

static void dress_record(struct record *r)
{
	(void)r; /* all its fields are made when read */
}

const struct system servicemax_system = {
	.name = "servicemax",
	.files = FILES_VERSIONED,
	.open_collections = true,
	.record_id = sm_record_id,
	.attachment_id = sm_attachment_id,
	.base = "",
	.collections = collections,
	.settings = settings,
	.open = servicemax_open,
	.close = servicemax_close,
	.body_kind = body_kind,
	.serve_api = servicemax_serve,
	.serve_blob = servicemax_serve,
	.dress_record = dress_record,
	.namesake = sm_attachment_named,
	.replacing = sm_replacing,
	.changed = sm_changed,
};
