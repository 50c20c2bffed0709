/* SPDX-License-Identifier: MIT */
#include "perscom.h"

#include "alloc.h"
#include "digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

static const struct setting settings[] = {
	[SET_ERA] = {"era", SETTING_VERSION, NULL, "2.9"},
	[SET_PATCH_MULTIPART] = {"patch_multipart", SETTING_CHOICE, "ignored|parsed", "ignored"},
	[SET_URL] = {"url", SETTING_CHOICE, "plain|presigned|relative|null", "plain"},
	[SET_PRESIGN_TTL] = {"presign_ttl", SETTING_NUMBER, NULL, "3600"},
	[SET_RANGE] = {"range", SETTING_CHOICE, "206|ignored", "206"},
	[SET_CACHE] = {"cache", SETTING_CHOICE, "off|app|edge", "off"},
	[SET_PURGE_DELAY_MS] = {"purge_delay_ms", SETTING_NUMBER, NULL, "0"},
	[SET_EDGE_CACHE_404] = {"edge_cache_404", SETTING_CHOICE, "off|on", "off"},
	[SET_THROTTLE] = {"throttle", SETTING_NUMBER, NULL, "off"},
	[SET_THROTTLE_HEADERS] = {"throttle_headers", SETTING_CHOICE, "bare|retry-after|absent",
				  "bare"},
	[SET_UNGUARDED] = {"unguarded", SETTING_CHOICE, "off|on", "off"},
	[SET_META_PAGE_KEY] = {"meta_page_key", SETTING_CHOICE, "off|on", "off"},
	[SET_TENANCY] = {"tenancy", SETTING_NUMBER, NULL, "42"},
	[SET_TENANT_HEADER] = {"tenant_header", SETTING_CHOICE, "optional|required", "optional"},
	[SET_SUBSCRIPTION] = {"subscription", SETTING_CHOICE, "ok|lapsed", "ok"},
	[SET_MAINTENANCE] = {"maintenance", SETTING_CHOICE, "off|on", "off"},
	[SET_DELETE_STORAGE_FAILURE] = {"delete_storage_failure", SETTING_CHOICE, "off|on", "off"},
	[SET_DROP_REPLY] = {"drop_reply", SETTING_CHOICE, "off|on", "off"},
	[SET_MAX_BODY] = {"max_body", SETTING_NUMBER, NULL, "off"},
	[SET_MAX_BODY_FORM] = {"max_body_form", SETTING_CHOICE, "json|html", "json"},
	[SET_UPLOAD_MAX] = {"upload_max", SETTING_NUMBER, NULL, "off"},
	[SET_DATE_Z] = {"date_z", SETTING_CHOICE, "accepted|error", "accepted"},
	{NULL, SETTING_NUMBER, NULL, NULL},
};

#define MODEL(name) "App\\Models\\" name

static const struct collection collections[] = {
	{.name = "users", .owner_type = MODEL("User")},
	{.name = "events", .owner_type = MODEL("Event")},
	{.name = "tasks", .owner_type = MODEL("Task")},
	{.name = "assignment-records", .owner_type = MODEL("AssignmentRecord")},
	{.name = "award-records", .owner_type = MODEL("AwardRecord")},
	{.name = "combat-records", .owner_type = MODEL("CombatRecord")},
	{.name = "qualification-records", .owner_type = MODEL("QualificationRecord")},
	{.name = "rank-records", .owner_type = MODEL("RankRecord")},
	{.name = "service-records", .owner_type = MODEL("ServiceRecord")},
	{.name = "training-records", .owner_type = MODEL("TrainingRecord")},
	{.name = NULL},
};

int64_t setting(const struct call *c, enum perscom_setting which)
{
	return c->p->emu->settings.values[which];
}

bool era_before(const struct call *c, int64_t major, int64_t minor)
{
	return setting(c, SET_ERA) < SETTING_VERSION_OF(major, minor, 0);
}

bool is_verb(const struct call *c, const char *verb)
{
	return strcmp(c->method, verb) == 0;
}

static void *perscom_open(struct emulator *emu)
{
	struct perscom *p = xzalloc(sizeof(*p));

	p->emu = emu;
	p->cache = cache_new();
	p->signer = digest_key_new("attachfs-emulator");
	p->formatted_at = -1;
	return p;
}

static void perscom_close(void *state)
{
	struct perscom *p = state;
	size_t pos = 0;
	void *window;

	while ((window = table_next(&p->throttled, &pos)))
		free(window);
	table_free(&p->throttled);
	cache_free(p->cache);
	digest_key_free(p->signer);
	free(p);
}

/* PHP itself parses multipart of POST only, before 8.4 (P-2); everything else it leaves to Laravel. */
static enum body_kind body_kind(struct request *rq)
{
	const char *type = request_header(rq, "Content-Type");
	bool parsed = rq->emu->settings.values[SET_PATCH_MULTIPART] == PATCH_MULTIPART_PARSED;

	if (!type)
		return BODY_DISCARD;
	if (strncasecmp(type, "multipart/form-data", 19) == 0)
		return strcmp(rq->method, "POST") == 0 || parsed ? BODY_MULTIPART : BODY_DISCARD;
	if (strcasestr(type, "/json") || strcasestr(type, "+json") ||
	    strncasecmp(type, "application/x-www-form-urlencoded", 33) == 0)
		return BODY_KEEP;
	return BODY_DISCARD;
}

static void make_uuid(char uuid[static 40])
{
	unsigned char r[16];

	if (getrandom(r, sizeof(r), 0) != sizeof(r))
		abort();
	snprintf(uuid, 40, "%02x%02x%02x%02x-%02x%02x-4%01x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 r[0], r[1], r[2], r[3], r[4], r[5], r[6] & 15, r[7], (r[8] & 63) | 128, r[9],
		 r[10], r[11], r[12], r[13], r[14], r[15]);
}

/* Symfony's rule: only a POST can be overridden; the header wins over the field, that over the query. */
static void override_method(struct call *c)
{
	const char *header = request_header(c->rq, "X-HTTP-Method-Override");
	const char *field = json_string_value(json_object_get(c->input, "_method"));
	struct str query = request_query(c->rq, "_method");
	const char *wanted = header ? header : field ? field : query.ptr;

	c->method = c->rq->method;
	if (is_verb(c, "POST") && wanted && *wanted && strlen(wanted) < sizeof(c->method_buffer)) {
		for (size_t i = 0; wanted[i]; i++)
			c->method_buffer[i] =
				wanted[i] & ~(wanted[i] >= 'a' && wanted[i] <= 'z' ? 32 : 0);
		c->method = c->method_buffer;
	}
	if (is_verb(c, "HEAD")) /* libmicrohttpd leaves the body out */
		c->method = "GET";
	str_free(&query);
}

static bool too_large(struct call *c)
{
	int64_t max = setting(c, SET_MAX_BODY);

	if (!max || c->rq->body_bytes <= (uint64_t)max)
		return false;
	if (setting(c, SET_MAX_BODY_FORM) == MAX_BODY_HTML)
		error_html(c, 413, "413 Request Entity Too Large");
	else
		error_status(c, 413);
	return true;
}

static void act(struct call *c)
{
	if (!includes_read(c))
		return;
	if (c->owned && !store_record(store_collection(c->p->emu->store, "users"), c->user_id)) {
		error_status(c, 404);
		return;
	}
	switch (c->target) {
	case TARGET_LIST:
	case TARGET_SEARCH:
		if (is_verb(c, "GET") || c->target == TARGET_SEARCH)
			list_serve(c);
		else if (c->resource->fields)
			record_serve(c);
		else
			attachment_serve(c);
		break;
	case TARGET_ITEM:
		if (c->resource->fields)
			record_serve(c);
		else
			attachment_serve(c);
		break;
	case TARGET_BATCH:
		batch_serve(c);
		break;
	case TARGET_RELATION:
		attachment_serve(c);
		break;
	case TARGET_PURGE:
		cache_purge(c->p, CHANGE_DELETED, NULL, 0);
		c->rs->status = 200;
		buffer_puts(&c->rs->body, "{\"status\":\"okay\"}");
		break;
	}
}

static bool refused_route(struct call *c)
{
	const char *accept = request_header(c->rq, "Accept");
	int status = route(c);

	if (!status)
		return false;
	if ((status == 404 || status == 405) && !(accept && strcasestr(accept, "json")))
		error_html(c, status, status == 404 ? "Not Found" : "Method Not Allowed");
	else
		error_status(c, status);
	return true;
}

static void serve_call(struct call *c)
{
	enum cache_mode mode = (enum cache_mode)setting(c, SET_CACHE);
	bool reading = is_verb(c, "GET");

	if (reading && mode == CACHE_EDGE && cache_answer(c, CACHE_EDGE))
		return;
	if (setting(c, SET_MAINTENANCE)) {
		error_status(c, 503);
		return;
	}
	if (too_large(c) || refused_route(c) || !throttle(c) || !authenticate(c))
		return;
	if (reading && mode == CACHE_APP && cache_answer(c, CACHE_APP))
		return;
	if (!authorize(c))
		return;
	act(c);
	if (reading && mode != CACHE_OFF)
		cache_keep(c, mode);
	if (!reading && c->target != TARGET_SEARCH && setting(c, SET_DROP_REPLY))
		c->rs->drop = true;
}

static void api_headers(struct call *c)
{
	struct response *rs = c->rs;

	response_header(rs, "Surrogate-Control", "max-age=2592000");
	response_header(rs, "Cache-Control", "no-store, max-age=0, public");
	response_header(rs, "Vary", "Authorization, X-Perscom-Id");
	response_header(rs, "X-Perscom-Request-Id", "%s", c->request_id);
	response_header(rs, "X-Perscom-Trace-Id", "%s", c->trace_id);
}

static bool serve_unversioned(struct call *c)
{
	if (strcmp(c->rq->path, "/health") == 0)
		buffer_puts(&c->rs->body, "{\"data\":{\"status\":\"ok\"}}");
	else if (strcmp(c->rq->path, "/spec.json") == 0)
		buffer_puts(&c->rs->body,
			    "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"PERSCOM\"}}");
	else
		return false;
	c->rs->status = 200;
	response_header(c->rs, "Content-Type", "application/json");
	return true;
}

static void serve_api(struct request *rq, struct response *rs)
{
	struct call c = {.p = rq->emu->state, .rq = rq, .rs = rs};

	make_uuid(c.request_id);
	make_uuid(c.trace_id);
	input_read(&c);
	override_method(&c);
	if (!serve_unversioned(&c)) {
		api_headers(&c);
		serve_call(&c);
		response_header(rs, "Content-Type", "%s",
				c.html ? "text/html; charset=UTF-8" : "application/json");
	}
	json_decref(c.input);
	buffer_free(&c.included);
	free(c.relation);
	free(c.shown);
}

const struct system perscom_system = {
	.name = "perscom",
	.base = "/v2",
	.collections = collections,
	.settings = settings,
	.open = perscom_open,
	.close = perscom_close,
	.body_kind = body_kind,
	.serve_api = serve_api,
	.serve_blob = perscom_serve_blob,
	.dress_record = perscom_dress_record,
	.changed = perscom_changed,
};
