/* SPDX-License-Identifier: MIT */
#include "rillsoft.h"

#include "alloc.h"
#include "digest.h"
#include "form.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct setting settings[] = {
	[RIS_SET_TOKEN_AT] = {"token_at", SETTING_CHOICE,
			      "details.token|token|access_token|details.accessToken|jwt",
			      "details.token"},
	[RIS_SET_LOGIN_REPLY] = {"login_reply", SETTING_CHOICE, "envelope|bare", "envelope"},
	[RIS_SET_TOKEN_FORM] = {"token_form", SETTING_CHOICE, "exp|no-exp|opaque", "exp"},
	[RIS_SET_TTL] = {"ttl", SETTING_NUMBER, NULL, "3600"},
	[RIS_SET_EXPIRED_DETAILS] = {"expired_details", SETTING_CHOICE, "other|same", "other"},
	[RIS_SET_LOGIN_REFUSED] = {"login_refused", SETTING_CHOICE, "401|403|400", "401"},
	[RIS_SET_SELECTOR] = {"selector", SETTING_CHOICE, "honoured|ignored|required", "honoured"},
	[RIS_SET_SELECTOR_NAME] = {"selector_name", SETTING_CHOICE,
				   "project_id|projectId|projectIds|projects", "project_id"},
	[RIS_SET_TPL_DOWNLOAD] = {"tpl_download", SETTING_CHOICE, "default|other|404", "default"},
	[RIS_SET_TPL_DELETE] = {"tpl_delete", SETTING_CHOICE, "default|other|404|405", "default"},
	[RIS_SET_TPL_FOLDERS] = {"tpl_folders", SETTING_CHOICE, "default|other|404", "default"},
	[RIS_SET_TPL_ATTACHMENT] = {"tpl_attachment", SETTING_CHOICE, "default|other|404",
				    "default"},
	[RIS_SET_TPL_VERSIONS] = {"tpl_versions", SETTING_CHOICE, "404|default", "404"},
	[RIS_SET_TPL_CLIENTS] = {"tpl_clients", SETTING_CHOICE, "404|default", "404"},
	[RIS_SET_DOWNLOAD] = {"download", SETTING_CHOICE, "bytes|json|redirect", "bytes"},
	[RIS_SET_DOWNLOAD_TYPE] = {"download_type", SETTING_CHOICE, "octets|guessed|absent",
				   "octets"},
	[RIS_SET_DISPOSITION] = {"disposition", SETTING_CHOICE, "absent|present", "absent"},
	[RIS_SET_RANGE] = {"range", SETTING_CHOICE, "206|ignored", "206"},
	[RIS_SET_VALIDATORS] = {"validators", SETTING_CHOICE, "absent|present", "absent"},
	[RIS_SET_OVERRIDE] = {"override", SETTING_CHOICE, "both|header|field|put|none", "both"},
	[RIS_SET_REAL_PUT] = {"real_put", SETTING_CHOICE, "accepted|405", "accepted"},
	[RIS_SET_DETAILS] = {"details", SETTING_CHOICE, "array|object|string|document", "array"},
	[RIS_SET_NAMES] = {"names", SETTING_CHOICE, "id/fileSize/parentUuid|documentId/size/uuid",
			   "id/fileSize/parentUuid"},
	[RIS_SET_DESCRIPTION] = {"description", SETTING_CHOICE, "text|null|absent", "text"},
	[RIS_SET_PARENTS] = {"parents", SETTING_CHOICE, "tasks|any", "tasks"},
	[RIS_SET_REPARENT] = {"reparent", SETTING_CHOICE, "obeyed|ignored|409", "obeyed"},
	[RIS_SET_RENAME_ON_REPLACE] = {"rename_on_replace", SETTING_CHOICE, "off|on", "off"},
	[RIS_SET_FILE_REQUIRED_ON_UPDATE] = {"file_required_on_update", SETTING_CHOICE, "off|on",
					     "off"},
	[RIS_SET_LEFT_OUT] = {"left_out", SETTING_CHOICE, "kept|cleared", "kept"},
	[RIS_SET_UPDATE_ID] = {"update_id", SETTING_CHOICE, "kept|new", "kept"},
	[RIS_SET_MAX_BYTES] = {"max_bytes", SETTING_NUMBER, NULL, "off"},
	[RIS_SET_MAX_BYTES_ANSWER] = {"max_bytes_answer", SETTING_CHOICE, "400|413|close", "400"},
	[RIS_SET_NAME_MAX] = {"name_max", SETTING_NUMBER, NULL, "off"},
	[RIS_SET_DUPLICATES] = {"duplicates", SETTING_CHOICE, "allowed|409", "allowed"},
	[RIS_SET_LOCKED] = {"locked", SETTING_CHOICE, "off|423|409", "off"},
	[RIS_SET_CREATED_AT] = {"created_at", SETTING_CHOICE, "iso|minute|zeroed|dotted|empty|null",
				"iso"},
	[RIS_SET_CREATED_ON_UPDATE] = {"created_on_update", SETTING_CHOICE, "kept|new", "kept"},
	[RIS_SET_ZONE_MINUTES] = {"zone_minutes", SETTING_NUMBER, NULL, "0"},
	[RIS_SET_FOLDER_SHAPE] = {"folder_shape", SETTING_CHOICE, "nested-set|parent",
				  "nested-set"},
	[RIS_SET_GONE_FOLDER] = {"gone_folder", SETTING_NUMBER, NULL, "off"},
	[RIS_SET_ATTACHMENTS] = {"attachments", SETTING_NUMBER, NULL, "off"},
	[RIS_SET_ATTACHMENT_SCOPE] = {"attachment_scope", SETTING_CHOICE,
				      "optional|project|portfolio", "optional"},
	[RIS_SET_CREATE_STATUS] = {"create_status", SETTING_CHOICE, "201|200", "201"},
	[RIS_SET_UPDATE_STATUS] = {"update_status", SETTING_CHOICE, "201|200", "201"},
	[RIS_SET_DELETE_STATUS] = {"delete_status", SETTING_CHOICE, "200|202|204", "200"},
	[RIS_SET_ERROR_DETAILS] = {"error_details", SETTING_CHOICE, "string|object|array",
				   "string"},
	[RIS_SET_JSON_TYPE] = {"json_type", SETTING_CHOICE, "plain|charset", "plain"},
	[RIS_SET_BODY_CODE] = {"body_code", SETTING_CHOICE, "status|200|absent|text", "status"},
	[RIS_SET_DENIED] = {"denied", SETTING_CHOICE,
			    "none|client|api|project|read|create|change|delete", "none"},
	[RIS_SET_THROTTLE] = {"throttle", SETTING_NUMBER, NULL, "off"},
	[RIS_SET_RETRY_AFTER] = {"retry_after", SETTING_CHOICE, "absent|present", "absent"},
	{NULL, SETTING_NUMBER, NULL, NULL},
};

/* Family 1 comes first; every other collection is a project, made when it is first named. */
static const struct collection collections[] = {
	{.name = RIS_ATTACHMENTS, .owner_type = RIS_ATTACHMENTS},
	{.name = NULL},
};

int64_t ris_setting(const struct ris_call *c, enum ris_setting which)
{
	return c->ris->emu->settings.values[which];
}

static void *rillsoft_open(struct emulator *emu)
{
	struct rillsoft *ris = xzalloc(sizeof(*ris));
	char *key = store_new_path("");

	ris->emu = emu;
	ris->signer = digest_key_new(key);
	free(key);
	return ris;
}

static void rillsoft_close(void *state)
{
	struct rillsoft *ris = state;

	ris_auth_close(ris);
	ris_document_close(ris);
	digest_key_free(ris->signer);
	free(ris);
}

static enum body_kind body_kind(struct request *rq)
{
	const char *type = request_header(rq, "Content-Type");

	if (type && strncasecmp(type, "multipart/form-data", 19) == 0)
		return BODY_MULTIPART;
	return type && strcasestr(type, "json") ? BODY_KEEP : BODY_DISCARD;
}

static void read_fields(struct ris_call *c)
{
	const struct request *rq = c->rq;

	if (rq->multipart)
		c->fields = json_incref(rq->multipart->fields);
	else if (rq->body.len)
		c->fields = json_loadb(rq->body.data, rq->body.len, 0, NULL);
	if (json_is_object(c->fields))
		return;
	json_decref(c->fields);
	c->fields = json_object();
}

/* Whether the server looks for the real method in a header or a field of a POST. */
static const char *overriding(const struct ris_call *c)
{
	enum ris_override mode = (enum ris_override)ris_setting(c, RIS_SET_OVERRIDE);
	const char *header = request_header(c->rq, "X-HTTP-Method-Override");
	const char *field = json_string_value(json_object_get(c->fields, "_method"));

	if (header && (mode == RIS_OVERRIDE_BOTH || mode == RIS_OVERRIDE_HEADER))
		return header;
	return mode == RIS_OVERRIDE_BOTH || mode == RIS_OVERRIDE_FIELD ? field : NULL;
}

static const char *effective_method(const struct ris_call *c)
{
	static const char *const known[] = {"PUT", "PATCH", "DELETE"};
	const char *sent = c->rq->method;
	const char *wanted = strcmp(sent, "POST") == 0 ? overriding(c) : NULL;

	for (size_t i = 0; wanted && i < sizeof(known) / sizeof(known[0]); i++)
		if (strcasecmp(wanted, known[i]) == 0)
			return known[i];
	if (strcmp(sent, "PUT") == 0 && ris_setting(c, RIS_SET_REAL_PUT) &&
	    ris_setting(c, RIS_SET_OVERRIDE) != RIS_OVERRIDE_PUT)
		return "PUT, which is not accepted";
	return strcmp(sent, "HEAD") == 0 ? "GET" : sent; /* libmicrohttpd leaves the body out */
}

static void serve_api(struct request *rq, struct response *rs)
{
	struct ris_call c = {.ris = rq->emu->state, .rq = rq, .rs = rs};

	read_fields(&c);
	c.method = effective_method(&c);
	if (ris_throttle(&c))
		ris_route(&c);
	if (!c.typed && rs->body.len)
		response_header(rs, "Content-Type", "application/json%s",
				ris_setting(&c, RIS_SET_JSON_TYPE) ? ";charset=UTF-8" : "");
	json_decref(c.fields);
}

const struct system rillsoft_system = {
	.name = "rillsoft",
	.files = FILES_EDITABLE,
	.open_collections = true,
	.record_id = rillsoft_record_id,
	.attachment_id = rillsoft_attachment_id,
	.base = "/api",
	.collections = collections,
	.settings = settings,
	.open = rillsoft_open,
	.close = rillsoft_close,
	.body_kind = body_kind,
	.serve_api = serve_api,
	.serve_blob = rillsoft_serve_blob,
	.dress_record = rillsoft_dress_record,
	.changed = rillsoft_changed,
};
