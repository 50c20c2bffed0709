/* SPDX-License-Identifier: MIT */
/* Batch calls: the table of section 9, row by row. All or nothing. */
#include "perscom.h"

#include "alloc.h"
#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct row *find(struct call *c, int64_t id)
{
	struct store *store = c->p->emu->store;
	struct attachment *a;

	if (c->resource->fields)
		return (struct row *)store_record(store_collection(store, c->resource->name), id);
	c->id = id;
	a = attachment_target(c);
	return a ? &a->row : NULL;
}

static bool parent_missing(struct call *c)
{
	return c->nested && !store_record(store_collection(c->p->emu->store, "users"), c->user_id);
}

static void bad_method(struct call *c)
{
	error_reply(c, 500, "BadMethodCallException",
		    "There was a server error with your last request. Please try again.");
}

static bool none_given(struct call *c, const json_t *resources_given)
{
	json_t *errors = NULL;

	if (json_object_size(resources_given) || json_array_size(resources_given))
		return false;
	invalid_add(&errors, "resources", "The resources field is required.");
	return invalid_reply(c, errors);
}

static void validate_entry(struct call *c, const json_t *entry, const char *key, bool creating,
			   json_t **errors)
{
	char *prefix = xasprintf("resources.%s.", key);

	if (c->resource->fields)
		record_validate(c, entry, prefix, creating, errors);
	else
		attachment_validate(entry, prefix, errors);
	free(prefix);
}

/* P-11: one entry without a known field, and PHP stumbles over all. */
static bool stumbles(struct call *c, const json_t *entries)
{
	const char *key;
	json_t *entry;

	json_object_foreach((json_t *)entries, key, entry)
	{
		bool knows = c->resource->fields ? record_knows(c, entry) : attachment_knows(entry);

		if (!json_is_object(entry) || !knows) {
			error_bare(c);
			return true;
		}
		if (c->resource->fields && record_has_date(c, entry)) {
			bad_method(c);
			return true;
		}
		if (setting(c, SET_UNGUARDED) && fields_unknown(c, entry)) {
			error_query(c);
			return true;
		}
		if (!c->resource->fields && !attachment_storable(c, entry, NULL)) {
			error_query(c);
			return true;
		}
	}
	return false;
}

static bool invalid_entries(struct call *c, const json_t *entries, bool creating)
{
	json_t *errors = NULL;
	const char *key;
	json_t *entry;

	json_object_foreach((json_t *)entries, key, entry)
		validate_entry(c, entry, key, creating, &errors);
	return invalid_reply(c, errors);
}

static int order_ids(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

struct id_list {
	int64_t *at;
	size_t n;
};

/* In the order of the database, whatever the order of the request (P-11). */
static void sort_ids(struct call *c, struct id_list *ids)
{
	if (ids->n)
		qsort(ids->at, ids->n, sizeof(*ids->at), order_ids);
	for (size_t i = 0, j = ids->n; c->resource->newest_first && i + 1 < j; i++) {
		int64_t id = ids->at[i];

		ids->at[i] = ids->at[--j];
		ids->at[j] = id;
	}
}

static void update_row(struct call *c, struct row *row, const json_t *entry)
{
	if (c->resource->fields)
		record_fill(c, (struct record *)row, entry);
	else
		attachment_fill(c, (struct attachment *)row, entry);
}

/* A top-level `file` in a multipart batch gives every row the same new key. */
static void share_file(struct call *c, const struct id_list *ids)
{
	const struct multipart_file *file = multipart_file(c->rq->multipart, "file");
	struct attachment *first = NULL;

	for (size_t i = 0; file && i < ids->n; i++) {
		struct attachment *a = (struct attachment *)find(c, ids->at[i]);

		if (!first) {
			attachment_store(c, a, file);
			first = a;
			continue;
		}
		free(a->path);
		a->path = xstrdup(first->path);
		str_set(&a->filename, first->filename.ptr, first->filename.len);
	}
}

static void put_rows(struct call *c, const struct id_list *ids)
{
	c->rs->status = 200;
	buffer_puts(&c->rs->body, "{\"data\":[");
	for (size_t i = 0; i < ids->n; i++) {
		buffer_json_comma(&c->rs->body);
		put_row(c, &c->rs->body, find(c, ids->at[i]));
	}
	buffer_puts(&c->rs->body, "]}");
}

/* Unknown ids, and those of another parent, are skipped silently. */
static struct id_list known_ids(struct call *c, const json_t *entries)
{
	struct id_list ids = {xmalloc(json_object_size(entries) * sizeof(int64_t)), 0};
	const char *key;
	json_t *entry;

	json_object_foreach((json_t *)entries, key, entry)
	{
		char *end;
		int64_t id = strtoll(key, &end, 10);

		if (*key && !*end && find(c, id))
			ids.at[ids.n++] = id;
	}
	sort_ids(c, &ids);
	return ids;
}

static bool leaves_parent(struct call *c, const json_t *entries)
{
	const char *key;
	json_t *entry;
	int64_t id;

	json_object_foreach((json_t *)entries, key, entry)
	{
		const json_t *wanted = json_object_get(entry, "model_id");

		if (c->nested && wanted && (!scalar_integer(wanted, &id) || id != c->user_id))
			return true;
	}
	return false;
}

static void batch_update(struct call *c)
{
	const json_t *entries = json_object_get(c->input, "resources");
	struct id_list ids;

	if (none_given(c, entries))
		return;
	if (json_is_array(entries)) {
		error_bare(c);
		return;
	}
	if (invalid_entries(c, entries, false) || stumbles(c, entries))
		return;
	if (leaves_parent(c, entries)) { /* as the single call does (P-17) */
		error_status(c, 404);
		return;
	}
	ids = known_ids(c, entries);
	for (size_t i = 0; i < ids.n; i++) {
		char key[24];

		snprintf(key, sizeof(key), "%lld", (long long)ids.at[i]);
		update_row(c, find(c, ids.at[i]), json_object_get(entries, key));
		cache_purge(c->p, CHANGE_UPDATED, c->resource->scope, ids.at[i]);
	}
	share_file(c, &ids);
	put_rows(c, &ids);
	free(ids.at);
}

static void take_id(struct call *c, struct id_list *ids, const json_t *value)
{
	int64_t id;

	if (!scalar_integer(value, &id) || !find(c, id))
		return;
	for (size_t i = 0; i < ids->n; i++)
		if (ids->at[i] == id)
			return;
	ids->at[ids->n++] = id;
}

static void batch_delete(struct call *c)
{
	const json_t *given = json_object_get(c->input, "resources");
	struct id_list ids;
	size_t i;
	json_t *value;

	if (json_is_object(given)) {
		ids = known_ids(c, given);
	} else { /* P-12: nothing given is nothing deleted, and 200 */
		ids = (struct id_list){xmalloc(json_array_size(given) * sizeof(int64_t)), 0};
		json_array_foreach(given, i, value) take_id(c, &ids, value);
		sort_ids(c, &ids);
	}
	c->rs->status = 200;
	buffer_puts(&c->rs->body, "{\"data\":[");
	for (i = 0; i < ids.n; i++) {
		buffer_json_comma(&c->rs->body);
		if (c->resource->fields)
			record_delete(c, &c->rs->body, (struct record *)find(c, ids.at[i]));
		else
			attachment_delete(c, &c->rs->body, (struct attachment *)find(c, ids.at[i]));
	}
	buffer_puts(&c->rs->body, "]}");
	free(ids.at);
}

/* The entries of a list or a map, by key, as PHP has them either way. */
static json_t *keyed(const json_t *given)
{
	json_t *entries = json_object();
	size_t i;
	json_t *entry;
	char key[24];

	if (json_is_object(given)) {
		json_object_update(entries, (json_t *)given);
		return entries;
	}
	json_array_foreach(given, i, entry)
	{
		snprintf(key, sizeof(key), "%zu", i);
		json_object_set(entries, key, entry);
	}
	return entries;
}

static bool has_entry_files(const struct call *c)
{
	for (size_t i = 0; c->rq->multipart && i < c->rq->multipart->n_files; i++)
		if (strncmp(c->rq->multipart->files[i].name, "resources[", 10) == 0)
			return true;
	return false;
}

/* P-3: it never works, except that old servers let rows share one top-level file. */
static void create_attachments(struct call *c, const json_t *entries)
{
	const struct multipart_file *file = multipart_file(c->rq->multipart, "file");
	struct id_list ids = {xmalloc(json_object_size(entries) * sizeof(int64_t)), 0};
	json_t *errors = NULL;
	const char *key;
	json_t *entry;

	if (file && era_before(c, 2, 10)) {
		json_object_foreach((json_t *)entries, key, entry)
		{
			struct attachment *a =
				store_add_attachment(c->p->emu->store, "", clock_now());

			attachment_fill(c, a, entry);
			if (c->nested)
				store_set_owner(c->p->emu->store, a, "App\\Models\\User", 15,
						&c->user_id);
			ids.at[ids.n++] = a->row.id;
			cache_purge(c->p, CHANGE_CREATED, "attachment", a->row.id);
		}
		share_file(c, &ids);
		put_rows(c, &ids);
	} else if (file || has_entry_files(c)) {
		error_bare(c);
	} else {
		json_object_foreach((json_t *)entries, key, entry)
		{
			char *name = xasprintf("resources.%s.file", key);

			invalid_add(&errors, name,
				    json_object_get(entry, "file") ? "The %s field must be a file."
								   : "The %s field is required.",
				    name);
			free(name);
		}
		invalid_reply(c, errors);
	}
	free(ids.at);
}

static void create_records(struct call *c, const json_t *entries)
{
	struct id_list ids = {NULL, 0};
	const char *key;
	json_t *entry;

	if (stumbles(c, entries))
		return;
	ids.at = xmalloc(json_object_size(entries) * sizeof(int64_t));
	json_object_foreach((json_t *)entries, key, entry) ids.at[ids.n++] =
		record_create(c, entry)->row.id;
	put_rows(c, &ids);
	free(ids.at);
}

static void batch_create(struct call *c)
{
	json_t *entries = keyed(json_object_get(c->input, "resources"));

	if (json_object_size(entries) == 0 && has_entry_files(c))
		error_bare(c);
	else if (!none_given(c, entries) && !invalid_entries(c, entries, true)) {
		if (c->resource->fields)
			create_records(c, entries);
		else
			create_attachments(c, entries);
	}
	json_decref(entries);
}

void batch_serve(struct call *c)
{
	if (parent_missing(c))
		error_status(c, 404);
	else if (is_verb(c, "POST"))
		batch_create(c);
	else if (is_verb(c, "DELETE"))
		batch_delete(c);
	else
		batch_update(c);
}
