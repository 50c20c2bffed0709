/* SPDX-License-Identifier: MIT */
#include "enterprise_tester.h"

#include "alloc.h"
#include "clock.h"
#include "form.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CHOICE SETTING_CHOICE
#define NUMBER SETTING_NUMBER

static const struct setting settings[] = {
	[ET_NIL_GUID] = {"nil_guid", CHOICE, "off|sets|content|everywhere", "off"},
	[ET_NAME_SWAP] = {"name_swap", CHOICE, "never|second|always", "never"},
	[ET_LINK_HOST] = {"link_host", CHOICE, "base|internal|api-api|no-path", "base"},
	[ET_AUTH_FAIL] = {"auth_fail", CHOICE, "401|302|200", "401"},
	[ET_RANGE] = {"range", CHOICE, "206|ignored", "206"},
	[ET_BUMP_ON_ATTACH] = {"bump_on_attach", CHOICE, "off|on", "on"},
	[ET_MAX_REQUEST] = {"max_request", CHOICE, "none|4mb-500|4mb-400|30mb-404|30mb-413",
			    "none"},
	[ET_MAX_REQUEST_BYTES] = {"max_request_bytes", NUMBER, NULL, "off"},
	[ET_MIME_STRICT] = {"mime_strict", CHOICE, "off|on", "on"},
	[ET_TOTALS] = {"totals", CHOICE, "inlinecount|always|tql", "inlinecount"},
	[ET_GET_STATUS] = {"get_status", CHOICE, "200|201", "200"},
	[ET_APPLICATION_PATH] = {"application_path", CHOICE, "EnterpriseTester|et|none",
				 "EnterpriseTester"},
	[ET_TEMPORARY_ID] = {"temporary_id", CHOICE, "consumed|copied|ignored", "consumed"},
	[ET_INCIDENT_TEMPORARY_ID] = {"incident_temporary_id", CHOICE, "off|on", "on"},
	[ET_SET_TTL] = {"set_ttl", NUMBER, NULL, "off"},
	[ET_PARTIAL_UPLOAD] = {"partial_upload", CHOICE, "none|others", "none"},
	[ET_PART_MAX] = {"part_max", NUMBER, NULL, "off"},
	[ET_BAD_NAMES] = {"bad_names", CHOICE, "accepted|refused", "accepted"},
	[ET_DELETE_STATUS] = {"delete_status", CHOICE, "200|204", "200"},
	[ET_DISPOSITIONS] = {"dispositions", CHOICE, "both|attachment|form-data", "both"},
	[ET_HEADER_CHARSET] = {"header_charset", CHOICE, "utf-8|latin-1", "utf-8"},
	[ET_TQL_TOP] = {"tql_top", NUMBER, NULL, "25"},
	[ET_ODATA_TOP] = {"odata_top", NUMBER, NULL, "off"},
	[ET_TOP_MAX] = {"top_max", NUMBER, NULL, "off"},
	[ET_UNORDERED] = {"unordered", CHOICE, "stable|shuffled", "stable"},
	[ET_HAS_ATTACHMENTS] = {"has_attachments", CHOICE, "live|absent|false", "live"},
	[ET_TQL_HAS_ATTACHMENTS] = {"tql_has_attachments", CHOICE, "accepted|refused", "accepted"},
	[ET_OWNER_ID] = {"owner_id", CHOICE, "asked|other", "asked"},
	[ET_SELF_LINKS] = {"self_links", CHOICE, "off|on", "on"},
	[ET_NODES] = {"nodes", CHOICE, "roots|all", "roots"},
	[ET_ERROR_BODY] = {"error_body", CHOICE, "json|html|empty", "json"},
	[ET_UPLOAD_NO_OWNER] = {"upload_no_owner", CHOICE, "404|403", "404"},
	[ET_ETAG] = {"etag", CHOICE, "off|on", "off"},
	[ET_CONTENT_DISPOSITION] = {"content_disposition", CHOICE, "off|on", "on"},
	[ET_CONTENTS_TYPE] = {"contents_type", CHOICE, "stored|octet-stream", "stored"},
	[ET_CONTENT_LENGTH] = {"content_length", CHOICE, "off|on", "on"},
	{NULL, NUMBER, NULL, NULL},
};

int64_t et_setting(const struct et_call *c, enum et_setting which)
{
	return c->et->emu->settings.values[which];
}

static void *et_open(struct emulator *emu)
{
	struct et *et = xzalloc(sizeof(*et));

	et->emu = emu;
	et->opened_at = clock_now();
	return et;
}

static void et_close(void *state)
{
	struct et *et = state;
	size_t pos = 0;
	struct str *type;

	while ((type = table_next(&et->types, &pos))) {
		str_free(type);
		free(type);
	}
	table_free(&et->types);
	free(et);
}

static enum body_kind body_kind(struct request *rq)
{
	const char *type = request_header(rq, "Content-Type");

	if (!type)
		return BODY_DISCARD;
	if (strncasecmp(type, "multipart/", 10) == 0)
		return BODY_MULTIPART;
	return strcasestr(type, "json") ||
			       strncasecmp(type, "application/x-www-form-urlencoded", 33) == 0
		       ? BODY_KEEP
		       : BODY_DISCARD;
}

/* E-4, E-5, E-6: what the server's reader of MIME parts takes for a file. */
static struct multipart_options multipart_options(struct request *rq)
{
	const int64_t *values = rq->emu->settings.values;

	return (struct multipart_options){
		.attachments = values[ET_DISPOSITIONS] != DISPOSITIONS_FORM_DATA,
		.form_data = values[ET_DISPOSITIONS] != DISPOSITIONS_ATTACHMENT,
		.blank_line_optional = !values[ET_MIME_STRICT],
	};
}

static void read_form(struct et_call *c)
{
	const char *type = request_header(c->rq, "Content-Type");

	if (c->rq->body.len && type && strncasecmp(type, "application/x-www", 17) == 0)
		c->form = form_parse(c->rq->body.data, c->rq->body.len);
}

static void serve_call(struct et_call *c)
{
	struct str path;

	if (et_request_too_large(c))
		return;
	if (et_is_login_page(c)) {
		et_login_page(c);
		return;
	}
	path = et_path(c);
	if (!path.ptr)
		et_page(c, 404, "404 - File or directory not found.");
	else if (et_authenticate(c) && et_route(c, path.ptr))
		c->route->serve(c);
	str_free(&path);
}

static void serve_api(struct request *rq, struct response *rs)
{
	struct et_call c = {.et = rq->emu->state, .rq = rq, .rs = rs};

	et_sets_sweep(c.et);
	et_make_runs(c.et);
	read_form(&c);
	response_header(rs, "Cache-Control", "no-cache");
	serve_call(&c);
	if (!rs->blob && rs->body.len)
		response_header(rs, "Content-Type", "%s",
				c.html ? "text/html; charset=utf-8"
				       : "application/json; charset=utf-8");
	for (size_t i = 0; i < ET_IDS_MAX; i++)
		str_free(&c.ids[i]);
	json_decref(c.form);
}

/* The bytes are on the api port; nobody is at the other address. */
static void serve_blob(struct request *rq, struct response *rs)
{
	(void)rq;
	rs->status = 404;
}

const struct system enterprise_tester_system = {
	.name = "enterprise-tester",
	.files = FILES_IMMUTABLE,
	.record_id = et_record_id,
	.attachment_id = et_attachment_id,
	.base = ET_BASE,
	.collections = et_collections,
	.settings = settings,
	.open = et_open,
	.close = et_close,
	.body_kind = body_kind,
	.multipart_options = multipart_options,
	.serve_api = serve_api,
	.serve_blob = serve_blob,
	.dress_record = et_dress_record,
	.touched = et_touched,
};
