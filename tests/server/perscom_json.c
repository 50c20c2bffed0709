/* SPDX-License-Identifier: MIT */
/* The objects of sections 2, 3 and 9, written as PHP writes them. */
#include "perscom.h"

#include "alloc.h"
#include "clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Always `.000000Z` (P-32). */
static const char *format_time(struct perscom *p, int64_t seconds)
{
	struct date_time t;

	if (p->formatted_at != seconds) {
		t = clock_split(seconds);
		snprintf(p->formatted, sizeof(p->formatted),
			 "%04d-%02d-%02dT%02d:%02d:%02d.000000Z", t.year, t.month, t.day, t.hour,
			 t.minute, t.second);
		p->formatted_at = seconds;
	}
	return p->formatted;
}

void put_time(struct perscom *p, struct buffer *out, const char *key, int64_t seconds)
{
	buffer_json_key(out, key);
	buffer_putc(out, '"');
	buffer_puts(out, format_time(p, seconds));
	buffer_putc(out, '"');
}

static void put_text(struct buffer *out, const char *key, const struct str *s)
{
	buffer_json_key(out, key);
	if (s->ptr)
		buffer_json_string(out, s->ptr, s->len);
	else
		buffer_puts(out, "null");
}

static void put_label(struct buffer *out, const char *model, int64_t id)
{
	buffer_puts(out, ",\"label\":\"");
	buffer_puts(out, model);
	buffer_puts(out, ": ");
	buffer_put_int(out, id);
	buffer_putc(out, '"');
}

static void remember(struct call *c, int64_t id)
{
	if (c->n_shown == c->cap_shown) {
		c->cap_shown = c->cap_shown ? c->cap_shown * 2 : 16;
		c->shown = xrealloc(c->shown, c->cap_shown * sizeof(*c->shown));
	}
	c->shown[c->n_shown++] = id;
}

static void put_model(struct call *c, struct buffer *out, const struct attachment *a)
{
	struct record *owner = store_owner_record(c->p->emu->store, a);

	buffer_json_key(out, "model");
	if (owner)
		put_record(c, out, owner);
	else
		buffer_puts(out, "null");
}

void put_attachment(struct call *c, struct buffer *out, const struct attachment *a)
{
	buffer_puts(out, "{\"id\":");
	buffer_put_int(out, a->row.id);
	put_text(out, "name", &a->name);
	put_text(out, "filename", &a->filename);
	put_text(out, "model_type", &a->owner_type);
	buffer_json_key(out, "model_id");
	if (a->has_owner_id)
		buffer_put_int(out, a->owner_id);
	else
		buffer_puts(out, "null");
	buffer_json_key(out, "path");
	buffer_json_text(out, a->path);
	put_label(out, "Attachment", a->row.id);
	put_time(c->p, out, "created_at", a->created_at);
	put_time(c->p, out, "updated_at", a->updated_at);
	if (era_before(c, 2, 4) && a->deleted_at)
		put_time(c->p, out, "deleted_at", a->deleted_at);
	else if (era_before(c, 2, 4))
		buffer_puts(out, ",\"deleted_at\":null");
	buffer_json_key(out, "attachment_url");
	put_url(c, out, a->path);
	if (c->include_model && !c->resource->fields)
		put_model(c, out, a);
	buffer_putc(out, '}');
}

static void put_attachments(struct call *c, struct buffer *out, const struct record *r)
{
	const char *type = r->collection->owner_type;
	const struct rows *rows = store_owned(c->p->emu->store, type, strlen(type), r->row.id);

	buffer_puts(out, ",\"attachments\":[");
	for (size_t i = 0; rows && i < rows->n; i++) {
		const struct attachment *a = (const struct attachment *)rows->at[i];

		if (!attachment_alive(a))
			continue;
		buffer_json_comma(out);
		put_attachment(c, out, a);
	}
	buffer_putc(out, ']');
}

/* `all_day` makes starts and ends dates; a missing url falls back to the dashboard's (section 9). */
static void put_field(struct buffer *out, const struct record *r, const struct field *f)
{
	json_t *value = json_object_get(r->fields, f->name);
	bool all_day = json_is_true(json_object_get(r->fields, "all_day"));
	const char *text = json_string_value(value);

	if (f->kind == FIELD_IGNORED)
		return;
	buffer_json_key(out, f->name);
	if (text && all_day && (strcmp(f->name, "starts") == 0 || strcmp(f->name, "ends") == 0))
		buffer_json_string(out, text, strcspn(text, "T"));
	else if (!text && strcmp(f->name, "url") == 0)
		buffer_printf(out, "\"https:\\/\\/app.perscom.io\\/events\\/%" PRId64 "\"",
			      r->row.id);
	else if (value)
		buffer_json(out, value);
	else
		buffer_puts(out, "null");
}

void put_record(struct call *c, struct buffer *out, struct record *r)
{
	const struct resource *res = resource_of(r->collection);

	if (res->of_users)
		record_user(c, r); /* settles user_id */
	buffer_puts(out, "{\"id\":");
	buffer_put_int(out, r->row.id);
	put_text(out, res->title, &r->name);
	for (const struct field *f = res->fields; f->name; f++)
		if (strcmp(f->name, res->title) != 0)
			put_field(out, r, f);
	put_label(out, res->model, r->row.id);
	put_time(c->p, out, "created_at", r->created_at);
	put_time(c->p, out, "updated_at", r->updated_at);
	if (c->include_attachments && res == c->resource)
		put_attachments(c, out, r);
	if (res == c->resource && c->included.len)
		buffer_put(out, c->included.data, c->included.len);
	buffer_putc(out, '}');
}

void put_row(struct call *c, struct buffer *out, struct row *row)
{
	remember(c, row->id);
	if (c->resource->fields)
		put_record(c, out, (struct record *)row);
	else
		put_attachment(c, out, (struct attachment *)row);
}

void reply_row(struct call *c, int status, struct row *row)
{
	c->rs->status = status;
	buffer_puts(&c->rs->body, "{\"data\":");
	put_row(c, &c->rs->body, row);
	buffer_putc(&c->rs->body, '}');
}
