/* SPDX-License-Identifier: MIT */
/* One attachment: show, create (section 5), replace (6), rename and move (7), delete (8). */
#include "perscom.h"

#include "alloc.h"
#include "clock.h"

#include <stdlib.h>
#include <string.h>

#define TIMESTAMP_MAX 2147483647 /* 2038-01-19 (P-24) */

static const char *const text_fields[] = {"name", "filename", "path"};
static const char *const time_fields[] = {"created_at", "updated_at"};
static const char *const known_fields[] = {"name",     "filename",   "path",	  "model_type",
					   "model_id", "created_at", "updated_at"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool parent_exists(struct call *c)
{
	return !c->nested ||
	       store_record(store_collection(c->p->emu->store, "users"), c->user_id) != NULL;
}

static bool belongs(const struct call *c, const struct attachment *a)
{
	return !c->nested || (a->has_owner_id && a->owner_id == c->user_id && a->owner_type.ptr &&
			      strcasecmp(a->owner_type.ptr, "App\\Models\\User") == 0);
}

struct attachment *attachment_target(struct call *c)
{
	struct attachment *a = store_attachment(c->p->emu->store, c->id);

	if (!a || !parent_exists(c) || !belongs(c, a) || !attachment_alive(a))
		return NULL;
	return a;
}

/* "created_at" is "created at" in a message. */
static char *spoken(const char *prefix, const char *field)
{
	char *text = xasprintf("%s%s", prefix, field);

	for (char *s = text; !*prefix && *s; s++)
		if (*s == '_')
			*s = ' ';
	return text;
}

static void validate_text(const json_t *fields, const char *field, const char *prefix,
			  json_t **errors)
{
	const json_t *value = json_object_get(fields, field);
	char *key, *name;

	if (!value)
		return;
	key = xasprintf("%s%s", prefix, field);
	name = spoken(prefix, field);
	if (json_is_null(value) && strcmp(field, "name") == 0)
		invalid_add(errors, key, "The %s field is required.", name);
	else if (!json_is_string(value))
		invalid_add(errors, key, "The %s field must be a string.", name);
	else if (utf8_count(json_string_value(value), json_string_length(value)) > TEXT_CHARS_MAX)
		invalid_add(errors, key, "The %s field must not be greater than 255 characters.",
			    name);
	free(key);
	free(name);
}

static void validate_owner(const json_t *fields, const char *prefix, json_t **errors)
{
	const json_t *type = json_object_get(fields, "model_type");
	const json_t *id = json_object_get(fields, "model_id");
	char *key = xasprintf("%smodel_type", prefix);
	int64_t n;

	if (type && !json_is_null(type) && !json_is_string(type))
		invalid_add(errors, key, "The %smodel type field must be a string.", prefix);
	free(key);
	key = xasprintf("%smodel_id", prefix);
	if (id && !json_is_null(id) && !scalar_integer(id, &n))
		invalid_add(errors, key, "The %smodel id field must be an integer.", prefix);
	free(key);
}

static void validate_time(const json_t *fields, const char *field, const char *prefix,
			  json_t **errors)
{
	const json_t *value = json_object_get(fields, field);
	int64_t t;
	char *key, *name;

	if (!value || json_is_null(value))
		return;
	if (json_is_string(value) && date_parse(json_string_value(value), &t))
		return;
	key = xasprintf("%s%s", prefix, field);
	name = spoken(prefix, field);
	invalid_add(errors, key, "The %s field must be a valid date.", name);
	free(key);
	free(name);
}

void attachment_validate(const json_t *fields, const char *prefix, json_t **errors)
{
	for (size_t i = 0; i < COUNT(text_fields); i++)
		validate_text(fields, text_fields[i], prefix, errors);
	validate_owner(fields, prefix, errors);
	for (size_t i = 0; i < COUNT(time_fields); i++)
		validate_time(fields, time_fields[i], prefix, errors);
}

/* P-1: byte-exact, and only here; a replacement may have any size. */
static void validate_new_file(struct call *c, json_t **errors)
{
	const struct multipart_file *file = multipart_file(c->rq->multipart, "file");
	const json_t *field = json_object_get(c->input, "file");

	if (file && blob_size(file->blob) < FILE_BYTES_MIN)
		invalid_add(errors, "file", "The file field must be at least 1 kilobytes.");
	else if (file && blob_size(file->blob) > FILE_BYTES_MAX)
		invalid_add(errors, "file",
			    "The file field must not be greater than 10000 kilobytes.");
	else if (!file && field && !json_is_null(field))
		invalid_add(errors, "file", "The file field must be a file."); /* P-3 */
	else if (!file)
		invalid_add(errors, "file", "The file field is required.");
}

static void validate_upload(struct call *c, json_t **errors)
{
	const struct multipart_file *file = multipart_file(c->rq->multipart, "file");
	int64_t max = setting(c, SET_UPLOAD_MAX);

	if (file && max && blob_size(file->blob) > (uint64_t)max)
		invalid_add(errors, "file", "The file failed to upload.");
}

bool attachment_storable(const struct call *c, const json_t *fields,
			 const struct multipart_file *file)
{
	if (file && (utf8_count(file->filename.ptr, file->filename.len) > TEXT_CHARS_MAX ||
		     !utf8_valid(file->filename.ptr, file->filename.len)))
		return false; /* P-15: no rule looks at it, the column does */
	for (size_t i = 0; i < COUNT(time_fields); i++) {
		const char *text = json_string_value(json_object_get(fields, time_fields[i]));
		int64_t t;

		if (text && date_parse(text, &t) && (t <= 0 || t > TIMESTAMP_MAX))
			return false;
	}
	return !setting(c, SET_UNGUARDED) || !fields_unknown(c, fields);
}

bool attachment_knows(const json_t *fields)
{
	for (size_t i = 0; i < COUNT(known_fields); i++)
		if (json_object_get(fields, known_fields[i]))
			return true;
	return false;
}

bool fields_unknown(const struct call *c, const json_t *fields)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)fields, key, value)
	{
		bool known = strcmp(key, "_method") == 0 || strcmp(key, "file") == 0 ||
			     strcmp(key, "id") == 0;

		for (size_t i = 0; i < COUNT(known_fields); i++)
			known = known ||
				(!c->resource->fields && strcmp(key, known_fields[i]) == 0);
		for (const struct field *f = c->resource->fields; f && f->name; f++)
			known = known || (f->kind != FIELD_IGNORED && strcmp(key, f->name) == 0);
		if (!known)
			return true;
	}
	return false;
}

static bool fill_text(struct str *column, const json_t *value)
{
	if (!json_is_string(value) ||
	    str_equal(column, json_string_value(value), json_string_length(value)))
		return false;
	str_set(column, json_string_value(value), json_string_length(value));
	return true;
}

static bool fill_owner(struct call *c, struct attachment *a, const json_t *fields)
{
	const json_t *type = json_object_get(fields, "model_type");
	const json_t *id = json_object_get(fields, "model_id");
	struct str new_type = a->owner_type;
	int64_t new_id = a->owner_id;
	bool has_id = a->has_owner_id;
	bool same;

	if (!type && !id)
		return false;
	if (type)
		new_type = (struct str){(char *)json_string_value(type), json_string_length(type)};
	if (id)
		has_id = scalar_integer(id, &new_id);
	same = has_id == a->has_owner_id && new_id == a->owner_id &&
	       (new_type.ptr ? str_equal(&a->owner_type, new_type.ptr, new_type.len)
			     : !a->owner_type.ptr);
	if (same)
		return false;
	new_type = new_type.ptr ? str_dup(new_type.ptr, new_type.len) : (struct str){0};
	store_set_owner(c->p->emu->store, a, new_type.ptr, new_type.len, has_id ? &new_id : NULL);
	str_free(&new_type);
	return true;
}

static bool fill_time(int64_t *column, const json_t *value)
{
	int64_t t;

	if (!json_is_string(value) || !date_parse(json_string_value(value), &t) || *column == t)
		return false;
	*column = t;
	return true;
}

/* As Eloquent: what equals the old value is no change, and updated_at moves only with a change. */
void attachment_fill(struct call *c, struct attachment *a, const json_t *fields)
{
	const json_t *path = json_object_get(fields, "path");
	bool changed = fill_text(&a->name, json_object_get(fields, "name"));

	changed |= fill_text(&a->filename, json_object_get(fields, "filename"));
	changed |= fill_owner(c, a, fields);
	changed |= fill_time(&a->created_at, json_object_get(fields, "created_at"));
	if (json_is_string(path) && strcmp(json_string_value(path), a->path) != 0) { /* P-19 */
		free(a->path);
		a->path = xstrdup(json_string_value(path));
		changed = true;
	}
	if (!fill_time(&a->updated_at, json_object_get(fields, "updated_at")) && changed)
		a->updated_at = clock_now();
}

/* A new key for new bytes; the old blob stays where it is for ever (P-21). */
void attachment_store(struct call *c, struct attachment *a, const struct multipart_file *file)
{
	free(a->path);
	a->path = store_new_path(store_guess_extension(file->blob));
	store_put_blob(c->p->emu->store, a->path, blob_ref(file->blob));
	str_set(&a->filename, file->filename.ptr, file->filename.len);
	a->updated_at = clock_now();
}

static bool refused(struct call *c, const struct multipart_file *file, bool creating)
{
	json_t *errors = NULL;

	if (creating && !json_object_get(c->input, "name"))
		invalid_add(&errors, "name", "The name field is required.");
	attachment_validate(c->input, "", &errors);
	if (creating)
		validate_new_file(c, &errors);
	validate_upload(c, &errors);
	if (invalid_reply(c, errors))
		return true;
	if (c->rq->body_error || !attachment_storable(c, c->input, file)) {
		error_query(c);
		return true;
	}
	return false;
}

static void create(struct call *c)
{
	const struct multipart_file *file = multipart_file(c->rq->multipart, "file");
	struct attachment *a;
	int64_t now = clock_now();

	if (!parent_exists(c)) {
		error_status(c, 404);
		return;
	}
	if (refused(c, file, true))
		return;
	a = store_add_attachment(c->p->emu->store, "", now);
	attachment_fill(c, a, c->input);
	attachment_store(c, a, file);
	a->updated_at = now;
	fill_time(&a->updated_at, json_object_get(c->input, "updated_at"));
	if (c->nested)
		store_set_owner(c->p->emu->store, a, "App\\Models\\User", 15, &c->user_id);
	reply_row(c, 201, &a->row);
	cache_purge(c->p, CHANGE_CREATED, "attachment", a->row.id);
}

/* P-17: the row would leave its parent, is looked up there again and not found; all is rolled back. */
static bool would_leave(const struct call *c, const struct attachment *a)
{
	const json_t *type = json_object_get(c->input, "model_type");
	const json_t *id = json_object_get(c->input, "model_id");
	const char *wanted = json_string_value(type);
	int64_t n = -1;

	if (!c->nested)
		return false;
	if (id && (!scalar_integer(id, &n) || n != a->owner_id))
		return true;
	return type && (!wanted || strcasecmp(wanted, "App\\Models\\User") != 0);
}

static void update(struct call *c, struct attachment *a)
{
	const struct multipart_file *file = multipart_file(c->rq->multipart, "file");

	if (refused(c, file, false))
		return;
	if (would_leave(c, a)) {
		error_status(c, 404);
		return;
	}
	attachment_fill(c, a, c->input);
	if (file)
		attachment_store(c, a, file);
	if (file)
		fill_time(&a->updated_at, json_object_get(c->input, "updated_at"));
	reply_row(c, 200, &a->row);
	cache_purge(c->p, CHANGE_UPDATED, "attachment", a->row.id);
}

void attachment_delete(struct call *c, struct buffer *out, struct attachment *a)
{
	int64_t id = a->row.id;
	bool soft = era_before(c, 2, 4);

	if (setting(c, SET_DELETE_STORAGE_FAILURE)) { /* P-13 */
		put_row(c, out, &a->row);
		return;
	}
	store_drop_blob(c->p->emu->store, a->path);
	if (soft)
		a->deleted_at = clock_now();
	put_row(c, out, &a->row);
	if (!soft)
		store_delete_attachment(c->p->emu->store, a);
	cache_purge(c->p, CHANGE_DELETED, "attachment", id);
}

static void relation(struct call *c)
{
	const char *wanted = strcmp(c->relation, "pivot") == 0 ? "pivot" : "resources";
	json_t *errors = NULL;

	if (!parent_exists(c)) {
		error_status(c, 404);
		return;
	}
	if (!json_object_get(c->input, wanted))
		invalid_add(&errors, wanted, "The %s field is required.", wanted);
	if (!invalid_reply(c, errors)) /* P-9 */
		error_reply(c, 500, "BadMethodCallException",
			    "There was a server error with your last request. Please try again.");
}

void attachment_serve(struct call *c)
{
	struct attachment *a;

	if (c->target == TARGET_RELATION) {
		relation(c);
		return;
	}
	if (c->target == TARGET_LIST) {
		create(c);
		return;
	}
	a = attachment_target(c);
	if (!a) {
		error_status(c, 404);
	} else if (is_verb(c, "GET")) {
		reply_row(c, 200, &a->row);
	} else if (is_verb(c, "DELETE")) {
		c->rs->status = 200;
		buffer_puts(&c->rs->body, "{\"data\":");
		attachment_delete(c, &c->rs->body, a);
		buffer_putc(&c->rs->body, '}');
	} else {
		update(c, a);
	}
}
