/* SPDX-License-Identifier: MIT */
/* Attachments of one owner listed (section 3) and deleted (8), and their bytes (4). */
#include "enterprise_tester.h"

#include "alloc.h"
#include "range.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct record *et_owner(struct et_call *c)
{
	enum et_kind kind = c->route->kind, above = et_run_kind(kind);
	struct et_entity run, owner;

	if (above == ET_KINDS)
		return et_entity_by_guid(c, &c->ids[0], kind, &owner) ? owner.record : NULL;
	if (!et_entity_by_guid(c, &c->ids[0], above, &run) ||
	    !et_entity_by_guid(c, &c->ids[1], kind, &owner) || et_run_of(owner.id) != run.id)
		return NULL;
	return owner.record;
}

static void reply_bare(struct et_call *c, const struct rows *rows)
{
	struct buffer *out = &c->rs->body;

	c->rs->status = 200;
	buffer_putc(out, '[');
	for (size_t i = 0; rows && i < rows->n; i++) {
		buffer_json_comma(out);
		et_put_attachment(c, out, (const struct attachment *)rows->at[i], i);
	}
	buffer_putc(out, ']');
}

void et_serve_attachments(struct et_call *c)
{
	struct record *r = et_owner(c);
	const struct rows *rows;
	struct et_list list = {0};

	if (!r) {
		et_error(c, 404, "The owner of the attachments could not be found.");
		return;
	}
	rows = et_owned(c, r);
	if (et_kinds[c->route->kind].bare) { /* E-9 */
		reply_bare(c, rows);
		return;
	}
	for (size_t i = 0; rows && i < rows->n; i++)
		et_list_add(&list, (struct et_entity){ET_ATTACHMENT, rows->at[i]->id, NULL,
						      (struct attachment *)rows->at[i]});
	if (c->route->kind == ET_SET && et_setting(c, ET_GET_STATUS))
		c->rs->status = 201; /* E-1 */
	et_list_reply(c, &list, ET_ODATA, false);
}

void et_remember_type(struct et *et, const struct attachment *a, const char *type, size_t len)
{
	struct str *copy = xmalloc(sizeof(*copy));

	*copy = str_dup(type, len);
	table_put(&et->types, &a->row.id, sizeof(a->row.id), copy);
}

void et_attachment_drop(struct et *et, struct attachment *a)
{
	struct str *type = table_remove(&et->types, &a->row.id, sizeof(a->row.id));

	if (type)
		str_free(type);
	free(type);
	store_drop_blob(et->emu->store, a->path);
	store_delete_attachment(et->emu->store, a);
}

void et_serve_delete(struct et_call *c)
{
	size_t last = et_run_kind(c->route->kind) == ET_KINDS ? 1 : 2;
	struct record *r = et_owner(c);
	struct et_entity e;

	if (!r || !et_entity_by_guid(c, &c->ids[last], ET_ATTACHMENT, &e) ||
	    store_owner_record(c->et->emu->store, e.attachment) != r) {
		et_error(c, 404, "The attachment could not be found.");
		return;
	}
	et_attachment_drop(c->et, e.attachment);
	et_touched(c->et->emu, r);
	c->rs->status = et_setting(c, ET_DELETE_STATUS) ? 204 : 200;
}

/* A file name for a header: what cannot stand there is `_`. */
static void put_disposition(struct et_call *c, const struct str *filename)
{
	char *name = xmemdup(filename->ptr ? filename->ptr : "", filename->len);

	for (char *s = name; *s; s++)
		if (*s < ' ' || *s > '~' || *s == '"' || *s == '\\')
			*s = '_';
	response_header(c->rs, "Content-Disposition", "attachment; filename=\"%s\"", name);
	free(name);
}

void et_serve_contents(struct et_call *c)
{
	struct range_options options = {.ignored = et_setting(c, ET_RANGE) != 0};
	struct blob *blob = NULL;
	struct str type = {0};
	struct et_entity e;
	char etag[32], *content_type;

	if (et_entity_by_guid(c, &c->ids[0], ET_ATTACHMENT, &e) &&
	    store_owner_record(c->et->emu->store, e.attachment))
		blob = store_get_blob(c->et->emu->store, e.attachment->path);
	if (!blob) {
		et_error(c, 404, "The attachment could not be found.");
		return;
	}
	type = et_content_type(c->et, e.attachment);
	content_type = et_setting(c, ET_CONTENTS_TYPE) ? xstrdup("application/octet-stream")
						       : xmemdup(type.ptr, type.len);
	snprintf(etag, sizeof(etag), "\"%" PRIx64 "\"", (uint64_t)e.id);
	options.etag = et_setting(c, ET_ETAG) ? etag : NULL;
	options.content_type = content_type;
	options.modified_at = e.attachment->created_at;
	if (et_setting(c, ET_CONTENT_DISPOSITION))
		put_disposition(c, &e.attachment->filename);
	range_serve(c->rq, c->rs, blob, &options);
	c->rs->chunked = et_setting(c, ET_CONTENT_LENGTH) == 0;
	free(content_type);
}
