/* SPDX-License-Identifier: MIT */
/* Temporary attachment sets: made, swept, and consumed by a record (section 5). */
#include "enterprise_tester.h"

#include "alloc.h"
#include "clock.h"

#include <stdlib.h>
#include <string.h>

static struct collection *sets(struct et *et)
{
	return &et->emu->store->collections[ET_SET];
}

void et_serve_new_set(struct et_call *c)
{
	struct collection *all = sets(c->et);
	struct buffer self = {0};
	char guid[ET_GUID_SIZE];

	et_guid(ET_SET, all->next_id, guid);
	store_add_record(all, guid, strlen(guid), clock_now());
	et_put_link(c, &self);
	buffer_puts(&self, "/temporaryattachmentset/");
	buffer_puts(&self, guid);
	c->rs->status = 201;
	response_header(c->rs, "Location", "%s", self.data);
	buffer_printf(&c->rs->body, "{\"Id\":\"%s\",\"Self\":\"%s\"}", guid, self.data);
	buffer_free(&self);
}

static const struct rows *files_of(struct et *et, const struct record *set)
{
	const char *type = set->collection->owner_type;

	return store_owned(et->emu->store, type, strlen(type), set->row.id);
}

static void drop_set(struct et *et, struct record *set)
{
	const struct rows *rows = files_of(et, set);

	while (rows && rows->n)
		et_attachment_drop(et, (struct attachment *)rows->at[0]);
	store_delete_record(set);
}

/* One that was loaded with --data counts from the start of the emulator. */
static bool has_expired(const struct et *et, const struct record *set, int64_t ttl)
{
	int64_t since = set->created_at > et->opened_at ? set->created_at : et->opened_at;

	return clock_now() >= since + ttl;
}

void et_sets_sweep(struct et *et)
{
	int64_t ttl = et->emu->settings.values[ET_SET_TTL];
	struct rows *rows = &sets(et)->records;

	for (size_t i = ttl ? rows->n : 0; i-- > 0;)
		if (has_expired(et, (struct record *)rows->at[i], ttl))
			drop_set(et, (struct record *)rows->at[i]);
}

/* NULL: none is named, or it counts for nothing. */
static struct str wanted_set(const struct et_call *c, enum et_kind kind, const json_t *body)
{
	const json_t *value = json_object_get(body, "TemporaryId");
	bool ignored = et_setting(c, ET_TEMPORARY_ID) == TEMPORARY_IGNORED ||
		       (kind == ET_INCIDENT && !et_setting(c, ET_INCIDENT_TEMPORARY_ID));

	if (ignored || !json_is_string(value))
		return (struct str){0};
	return (struct str){(char *)json_string_value(value), json_string_length(value)};
}

bool et_set_check(struct et_call *c, enum et_kind kind, const json_t *body)
{
	struct str wanted = wanted_set(c, kind, body);
	struct et_entity set;

	if (!wanted.ptr || strcmp(wanted.ptr, ET_NIL_ID) == 0 ||
	    et_entity_by_guid(c, &wanted, ET_SET, &set))
		return true;
	et_error(c, 403, "The temporary attachment set could not be found.");
	return false;
}

static void give(struct et_call *c, struct attachment *a, const struct record *r)
{
	const char *type = r->collection->owner_type;

	store_set_owner(c->et->emu->store, a, type, strlen(type), &r->row.id);
}

static void copy(struct et_call *c, const struct attachment *a, const struct record *r)
{
	struct store *s = c->et->emu->store;
	struct blob *blob = store_get_blob(s, a->path);
	struct str type = et_content_type(c->et, a);
	char *path = store_new_path("");
	struct attachment *fresh = store_add_attachment(s, path, clock_now());

	str_set(&fresh->name, a->name.ptr, a->name.len);
	str_set(&fresh->filename, a->filename.ptr, a->filename.len);
	if (blob)
		store_put_blob(s, path, blob);
	et_remember_type(c->et, fresh, type.ptr, type.len);
	give(c, fresh, r);
	free(path);
}

void et_set_consume(struct et_call *c, const json_t *body, struct record *r)
{
	struct str wanted = wanted_set(c, et_entity_of(r).kind, body);
	bool copies = et_setting(c, ET_TEMPORARY_ID) == TEMPORARY_COPIED;
	const struct rows *rows;
	struct et_entity set;

	if (!et_entity_by_guid(c, &wanted, ET_SET, &set))
		return;
	rows = files_of(c->et, set.record);
	for (size_t i = 0; copies && rows && i < rows->n; i++)
		copy(c, (const struct attachment *)rows->at[i], r);
	while (!copies && rows && rows->n)
		give(c, (struct attachment *)rows->at[0], r);
	if (!copies)
		store_delete_record(set.record);
}
