/* SPDX-License-Identifier: MIT */
#include "change.h"

#include "alloc.h"
#include "clock.h"
#include "populate.h"

#include <stdlib.h>
#include <string.h>

static const char *string(const json_t *op, const char *key)
{
	return json_string_value(json_object_get(op, key));
}

static struct collection *op_collection(struct emulator *emu, const json_t *op)
{
	const char *name = string(op, "collection");

	return name ? populate_collection(emu, name) : NULL;
}

/* The record an op names by id or by name, made if a name is new and @make is set. */
static struct record *op_record(struct emulator *emu, const json_t *op, const char *key, bool make)
{
	struct collection *c = op_collection(emu, op);
	const json_t *wanted = json_object_get(op, key);
	struct record *r;

	if (!c)
		return NULL;
	if (json_is_integer(wanted))
		return store_record(c, json_integer_value(wanted));
	if (!json_is_string(wanted))
		return NULL;
	r = store_record_named(c, json_string_value(wanted));
	return r || !make ? r : populate_record(emu, c, json_string_value(wanted), clock_now());
}

static struct attachment *op_attachment(struct emulator *emu, const json_t *op)
{
	return store_attachment(emu->store, json_integer_value(json_object_get(op, "id")));
}

static struct blob *op_blob(const json_t *op, int64_t id)
{
	static uint64_t made; /* so that no two replacements have the same bytes */
	const json_t *text = json_object_get(op, "text");
	json_int_t size = json_integer_value(json_object_get(op, "size"));

	if (json_is_string(text))
		return blob_new_memory(json_string_value(text), json_string_length(text));
	return blob_new_generated((uint64_t)id * 1000003 + ++made, size > 0 ? (uint64_t)size : 0);
}

static void set_names(struct attachment *a, const json_t *op)
{
	const json_t *name = json_object_get(op, "name");
	const json_t *filename = json_object_get(op, "filename");

	if (json_is_string(name))
		str_set(&a->name, json_string_value(name), json_string_length(name));
	if (json_is_string(filename))
		str_set(&a->filename, json_string_value(filename), json_string_length(filename));
}

/* A file of its owner changes: called before it leaves one and after it has come to one. */
static void touch(struct emulator *emu, const struct attachment *a)
{
	struct record *owner = store_owner_record(emu->store, a);

	if (owner && emu->system->touched)
		emu->system->touched(emu, owner);
}

static int64_t changed(struct emulator *emu, enum change_kind kind, int64_t id)
{
	if (emu->system->changed)
		emu->system->changed(emu, kind, id);
	return id;
}

static int64_t do_add(struct emulator *emu, const json_t *op)
{
	struct record *r = op_record(emu, op, "record", true);
	const char *name = string(op, "name") ? string(op, "name") : string(op, "filename");
	int64_t fresh = emu->store->next_attachment_id;
	struct attachment *a;
	struct blob *blob;
	char *path;

	if (!r || !name)
		return -1;
	blob = op_blob(op, fresh);
	path = store_new_path(store_guess_extension(blob));
	a = populate_attachment(emu, r, name, path, blob, clock_now());
	free(path);
	if (a->row.id != fresh) /* a new version of what had the name */
		return changed(emu, CHANGE_UPDATED, a->row.id);
	set_names(a, op);
	touch(emu, a);
	return changed(emu, CHANGE_CREATED, a->row.id);
}

/* The file in whose place @a would come under that name; NULL: none, or names are not unique. */
static struct attachment *namesake(struct emulator *emu, const struct attachment *a,
				   const struct record *r, const struct str *name)
{
	struct attachment *other = NULL;

	if (emu->system->namesake && r)
		other = emu->system->namesake(emu, r, name->ptr, name->len);
	return other == a ? NULL : other;
}

/* The bytes of @a become a version of @target, and @a goes. */
static int64_t give(struct emulator *emu, struct attachment *a, struct attachment *target)
{
	struct blob *blob = store_get_blob(emu->store, a->path);
	char *path = store_new_path("");
	int64_t id = a->row.id;

	if (blob)
		populate_replace(emu, target, path, blob, clock_now());
	free(path);
	store_drop_blob(emu->store, a->path);
	store_delete_attachment(emu->store, a);
	changed(emu, CHANGE_DELETED, id);
	return changed(emu, CHANGE_UPDATED, target->row.id);
}

/* A file in place of @a, which goes: same names, owner and bytes unless the caller changes them. */
static struct attachment *renew(struct emulator *emu, struct attachment *a)
{
	struct blob *blob = store_get_blob(emu->store, a->path);
	char *path = store_new_path("");
	struct attachment *fresh = store_add_attachment(emu->store, path, clock_now());

	str_set(&fresh->name, a->name.ptr, a->name.len);
	str_set(&fresh->filename, a->filename.ptr, a->filename.len);
	store_set_owner(emu->store, fresh, a->owner_type.ptr, a->owner_type.len, &a->owner_id);
	if (blob)
		store_put_blob(emu->store, path, blob);
	free(path);
	store_drop_blob(emu->store, a->path);
	store_delete_attachment(emu->store, a);
	return fresh;
}

static int64_t do_replace(struct emulator *emu, const json_t *op)
{
	struct attachment *a = op_attachment(emu, op);
	struct blob *blob;
	char *path;

	if (!a)
		return -1;
	if (emu->system->files == FILES_IMMUTABLE)
		a = renew(emu, a);
	blob = op_blob(op, a->row.id);
	path = store_new_path(store_guess_extension(blob));
	populate_replace(emu, a, path, blob, clock_now());
	free(path);
	set_names(a, op);
	touch(emu, a);
	return changed(emu, CHANGE_UPDATED, a->row.id);
}

static int64_t do_rename(struct emulator *emu, const json_t *op)
{
	struct attachment *a = op_attachment(emu, op);
	const char *name = string(op, "name");
	struct str wanted = {(char *)name, name ? strlen(name) : 0};
	struct attachment *target = NULL;

	if (!a)
		return -1;
	if (name)
		target = namesake(emu, a, store_owner_record(emu->store, a), &wanted);
	if (target)
		return give(emu, a, target);
	if (emu->system->files != FILES_EDITABLE)
		a = renew(emu, a);
	set_names(a, op);
	a->updated_at = clock_now();
	touch(emu, a);
	return changed(emu, CHANGE_UPDATED, a->row.id);
}

static int64_t do_move(struct emulator *emu, const json_t *op)
{
	struct attachment *a = op_attachment(emu, op);
	struct record *r = op_record(emu, op, "record", true);
	struct attachment *target;
	const char *type;

	if (!a || !r)
		return -1;
	target = namesake(emu, a, r, &a->name);
	if (target)
		return give(emu, a, target);
	touch(emu, a);
	if (emu->system->files != FILES_EDITABLE)
		a = renew(emu, a);
	type = r->collection->owner_type;
	store_set_owner(emu->store, a, type, strlen(type), &r->row.id);
	touch(emu, a);
	a->updated_at = clock_now();
	return changed(emu, CHANGE_UPDATED, a->row.id);
}

static int64_t do_delete(struct emulator *emu, const json_t *op)
{
	struct attachment *a = op_attachment(emu, op);
	int64_t id;

	if (!a)
		return -1;
	id = a->row.id;
	touch(emu, a);
	store_drop_blob(emu->store, a->path);
	store_delete_attachment(emu->store, a);
	return changed(emu, CHANGE_DELETED, id);
}

static int64_t do_add_record(struct emulator *emu, const json_t *op)
{
	struct collection *c = op_collection(emu, op);
	const char *name = string(op, "name");

	if (!c || !name)
		return -1;
	return populate_record(emu, c, name, clock_now())->row.id;
}

static int64_t do_rename_record(struct emulator *emu, const json_t *op)
{
	struct record *r = op_record(emu, op, "id", false);
	const char *name = string(op, "name");

	if (!r || !name)
		return -1;
	str_set(&r->name, name, strlen(name));
	r->updated_at = clock_now();
	return changed(emu, CHANGE_UPDATED, 0), r->row.id;
}

static int64_t do_delete_record(struct emulator *emu, const json_t *op)
{
	struct record *r = op_record(emu, op, "id", false);
	int64_t id;

	if (!r)
		return -1;
	id = r->row.id;
	store_delete_record(r);
	changed(emu, CHANGE_DELETED, 0);
	return id;
}

static const struct {
	const char *name;
	int64_t (*act)(struct emulator *emu, const json_t *op);
} acts[] = {
	{"add", do_add},
	{"replace", do_replace},
	{"rename", do_rename},
	{"move", do_move},
	{"delete", do_delete},
	{"add_record", do_add_record},
	{"rename_record", do_rename_record},
	{"delete_record", do_delete_record},
};

static int64_t apply(struct emulator *emu, const json_t *op)
{
	const char *name = string(op, "op");

	for (size_t i = 0; name && i < sizeof(acts) / sizeof(acts[0]); i++)
		if (strcmp(acts[i].name, name) == 0)
			return acts[i].act(emu, op);
	return -1;
}

json_t *change_apply(struct emulator *emu, const json_t *wanted, char **ret_error)
{
	json_t *ids = json_array();
	size_t i;
	json_t *op;

	json_array_foreach(json_object_get(wanted, "ops"), i, op)
	{
		int64_t id = apply(emu, op);

		if (id < 0) {
			char *text = json_dumps(op, JSON_COMPACT);

			*ret_error = xasprintf("op %zu cannot be done: %s", i, text ? text : "?");
			free(text);
			json_decref(ids);
			return NULL;
		}
		json_array_append_new(ids, json_integer(id));
	}
	return json_pack("{s:o}", "ids", ids);
}
