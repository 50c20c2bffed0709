/* SPDX-License-Identifier: MIT */
/* The objects of sections 2 and 3, and the links in them, which may lead astray (E-7, E-12, E-17). */
#include "enterprise_tester.h"

#include "clock.h"

#include <string.h>

void et_put_link(const struct et_call *c, struct buffer *out)
{
	const char *application = et_application_path(c);
	int64_t host = et_setting(c, ET_LINK_HOST);

	buffer_puts(out,
		    host == LINK_INTERNAL ? "http://et-internal.example" : c->et->emu->api_url);
	buffer_puts(out, host == LINK_NO_PATH ? "" : application);
	buffer_puts(out, host == LINK_API_API ? "/api/api" : "/api");
}

void et_put_text(struct buffer *out, const char *key, const struct str *s)
{
	buffer_json_key(out, key);
	if (s->ptr)
		buffer_json_string(out, s->ptr, s->len);
	else
		buffer_puts(out, "null");
}

void et_put_time(struct buffer *out, const char *key, int64_t seconds)
{
	struct date_time t = clock_split(seconds);
	char text[] = "\"0000-00-00T00:00:00Z\"";
	const int parts[] = {t.year / 100, t.year % 100, t.month, t.day,
			     t.hour,	   t.minute,	 t.second};
	static const size_t places[] = {1, 3, 6, 9, 12, 15, 18};

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		text[places[i]] = (char)('0' + parts[i] / 10 % 10);
		text[places[i] + 1] = (char)('0' + parts[i] % 10);
	}
	buffer_json_key(out, key);
	buffer_puts(out, text);
}

static void put_guid(struct buffer *out, const char *key, const char *guid)
{
	buffer_json_key(out, key);
	buffer_putc(out, '"');
	buffer_puts(out, guid);
	buffer_putc(out, '"');
}

void et_put_id(struct buffer *out, const char *key, enum et_kind kind, int64_t id)
{
	char guid[ET_GUID_SIZE];

	et_guid(kind, id, guid);
	put_guid(out, key, guid);
}

/* "/requirement/{id}", "/agilerun/{id}/step/{id}" */
static void put_path(struct buffer *out, enum et_kind kind, int64_t id)
{
	enum et_kind run = et_run_kind(kind);
	char guid[ET_GUID_SIZE];

	if (run != ET_KINDS)
		put_path(out, run, et_run_of(id));
	et_guid(kind, id, guid);
	buffer_putc(out, '/');
	buffer_puts(out, et_kinds[kind].path);
	buffer_putc(out, '/');
	buffer_puts(out, guid);
}

static void put_owner(struct et_call *c, struct buffer *out, const struct et_entity *owner)
{
	enum et_kind run = et_run_kind(owner->kind);
	int64_t shift = et_setting(c, ET_OWNER_ID); /* E-15 */

	if (run != ET_KINDS)
		et_put_id(out, "RunId", run, et_run_of(owner->id));
	et_put_id(out, et_kinds[owner->kind].owner_key, owner->kind, owner->id + shift);
}

static uint64_t size_of(struct et_call *c, const struct attachment *a)
{
	struct blob *blob = store_get_blob(c->et->emu->store, a->path);
	uint64_t size = blob ? blob_size(blob) : 0;

	blob_unref(blob);
	return size;
}

static void put_attachment_links(struct et_call *c, struct buffer *out,
				 const struct et_entity *owner, const char *id,
				 const char *content_id)
{
	if (!et_setting(c, ET_SELF_LINKS)) /* E-23 */
		return;
	buffer_json_key(out, "Self");
	buffer_putc(out, '"');
	et_put_link(c, out);
	put_path(out, owner->kind, owner->id);
	buffer_puts(out, "/attachment/");
	buffer_puts(out, id);
	buffer_puts(out, "\",\"Content\":\"");
	et_put_link(c, out);
	buffer_puts(out, "/attachment/");
	buffer_puts(out, content_id);
	buffer_puts(out, "/contents\"");
}

void et_put_attachment(struct et_call *c, struct buffer *out, const struct attachment *a,
		       size_t index)
{
	struct record *r = store_owner_record(c->et->emu->store, a);
	struct et_entity owner = {0};
	int64_t nil = et_setting(c, ET_NIL_GUID), swap = et_setting(c, ET_NAME_SWAP);
	bool swapped = swap == SWAP_ALWAYS || (swap == SWAP_SECOND && index % 2 == 1);
	struct str type = et_content_type(c->et, a);
	char id[ET_GUID_SIZE], content_id[ET_GUID_SIZE];

	if (!r)
		return;
	owner = et_entity_of(r);
	et_guid(ET_ATTACHMENT, a->row.id, id);
	if (nil == NIL_EVERYWHERE || (nil == NIL_SETS && owner.kind == ET_SET))
		memcpy(id, ET_NIL_ID, sizeof(id));
	memcpy(content_id, nil == NIL_CONTENT ? ET_NIL_ID : id, sizeof(id));
	buffer_putc(out, '{');
	put_guid(out, "Id", id);
	put_owner(c, out, &owner);
	et_put_text(out, "Name", swapped ? &a->filename : &a->name); /* E-2 */
	et_put_text(out, "FileName", swapped ? &a->name : &a->filename);
	et_put_text(out, "ContentType", &type);
	et_put_time(out, "CreatedAt", a->created_at);
	buffer_json_key(out, "Size");
	buffer_put_int(out, (int64_t)size_of(c, a));
	buffer_puts(out, ",\"SourceId\":null");
	et_put_id(out, "CreatedById", ET_USER, 1);
	put_attachment_links(c, out, &owner, id, content_id);
	buffer_putc(out, '}');
}

static void put_attachments(struct et_call *c, struct buffer *out, const struct et_entity *e)
{
	const struct rows *rows = e->record ? et_owned(c, e->record) : NULL;

	buffer_json_key(out, "Attachments");
	buffer_putc(out, '[');
	for (size_t i = 0; rows && i < rows->n; i++) {
		buffer_json_comma(out);
		et_put_attachment(c, out, (const struct attachment *)rows->at[i], i);
	}
	buffer_putc(out, ']');
}

static void put_steps(struct et_call *c, struct buffer *out, const struct et_entity *run)
{
	enum et_kind kind = run->kind == ET_SCRIPT_RUN ? ET_STEP_RESULT : ET_AGILE_RUN_STEP;

	buffer_json_key(out, run->kind == ET_SCRIPT_RUN ? "StepResults" : "Steps");
	buffer_putc(out, '[');
	for (int64_t id = (run->id - 1) * ET_STEPS + 1; id <= run->id * ET_STEPS; id++) {
		struct et_entity step;

		if (!et_entity_find(c, kind, id, &step))
			continue;
		buffer_json_comma(out);
		et_put_entity(c, out, &step, EXPAND_NONE, false);
	}
	buffer_putc(out, ']');
}

static void put_places(struct buffer *out, const struct et_entity *e)
{
	int64_t project = et_project(e), package = et_package(e);

	if (project) {
		et_put_id(out, "ProjectId", ET_PROJECT, project);
		buffer_json_key(out, "ProjectName");
		buffer_json_text(out, et_project_name(project));
	}
	if (!et_kinds[e->kind].has_package)
		return;
	et_put_id(out, "PackageId", et_package_kind(e->kind), package);
	buffer_json_key(out, "PackageName");
	buffer_json_text(out, et_package_name(package));
}

static void put_history(struct et_call *c, struct buffer *out, const struct et_entity *e)
{
	if (!e->record)
		return;
	buffer_json_key(out, "VersionNumber");
	buffer_put_int(out, et_version(e));
	et_put_time(out, "CreatedAt", e->record->created_at);
	et_put_time(out, "LastUpdatedAt", e->record->updated_at);
	if (et_kinds[e->kind].owner_key && et_setting(c, ET_HAS_ATTACHMENTS) != HAS_ABSENT)
		buffer_puts(out, et_has_attachments(c, e) ? ",\"HasAttachments\":true"
							  : ",\"HasAttachments\":false");
}

void et_put_entity(struct et_call *c, struct buffer *out, const struct et_entity *e,
		   enum et_expand expand, bool entity_type)
{
	const struct et_kind_info *kind = &et_kinds[e->kind];
	enum et_kind run = e->kind == ET_STEP_RESULT ? ET_SCRIPT_RUN : et_run_kind(e->kind);
	char made_up[48];
	struct str name = et_name(e, made_up);

	buffer_putc(out, '{');
	et_put_id(out, "Id", e->kind, e->id);
	et_put_text(out, kind->title, &name);
	if (kind->number) {
		buffer_json_key(out, kind->number);
		buffer_put_int(out, e->id);
	}
	if (run != ET_KINDS)
		et_put_id(out, "RunId", run, et_run_of(e->id));
	put_places(out, e);
	put_history(c, out, e);
	if (entity_type) {
		buffer_json_key(out, "EntityType");
		buffer_json_text(out, kind->entity_type);
	}
	if (et_setting(c, ET_SELF_LINKS)) {
		buffer_puts(out, ",\"Links\":[],\"Expands\":[],\"Self\":\"");
		et_put_link(c, out);
		put_path(out, e->kind, e->id);
		buffer_putc(out, '"');
	}
	if (expand == EXPAND_ATTACHMENTS)
		put_attachments(c, out, e);
	else if (expand == EXPAND_STEPS)
		put_steps(c, out, e);
	buffer_putc(out, '}');
}
