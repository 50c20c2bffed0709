/* SPDX-License-Identifier: MIT */
/* One record: its fields, who may see it, and how it is written (section 2). */
#include "servicemax.h"

#include "alloc.h"
#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct user {
	int64_t id;
	const char *name;
	const char *email;
};

static const struct user system_user = {1, "system", "system@example.org"};
static const struct user mount_user = {2, "mount", "mount@example.org"};

enum field {
	FIELD_UUID,
	FIELD_NAME,
	FIELD_CREATED_ON,
	FIELD_UPDATED_ON,
	FIELD_DELETED,
	FIELD_ACTIVE,
	FIELD_PRIVATE,
	FIELD_COUNT,
};

/* NULL: there is none; that io_updated_on exists is assumed. */
static const char *field_name(const struct sm_call *c, enum field field)
{
	static const char *const names[FIELD_COUNT] = {
		"io_uuid",    "io_name",   "io_created_on", "io_updated_on",
		"io_deleted", "io_active", "io_private",
	};

	if (field == FIELD_NAME && sm_set(c, SM_NAME_FIELD) != 0)
		return "io_title";
	if (field == FIELD_UPDATED_ON && sm_set(c, SM_UPDATED_FIELD) != 0)
		return NULL;
	return names[field];
}

static const struct {
	const char *field;
	const struct user *user;
} users[] = {
	{"io_created_by", &system_user},
	{"io_updated_by", &system_user},
	{"io_owner", &mount_user},
};

#define USERS (sizeof(users) / sizeof(users[0]))

static void text_value(struct sm_value *v, const char *text, size_t len)
{
	v->kind = VALUE_TEXT;
	v->text = text;
	v->len = len;
}

static void uuid_value(struct sm_value *v, const struct uuid *uuid)
{
	text_value(v, NULL, UUID_SIZE - 1);
	sm_uuid_format(uuid, v->uuid);
}

/* The store has seconds; the milliseconds are made up and stay. */
static int64_t record_ms(const struct record *r, int64_t seconds)
{
	const int64_t identity[2] = {r->row.id, seconds};

	return seconds * 1000 + (int64_t)(hash_bytes(identity, sizeof(identity), 9) % 1000);
}

/* "io_owner" is a UUID; "io_owner.io_username" and the like are fields of the user it names. */
static bool user_value(const struct user *user, const char *dotted, struct sm_value *ret)
{
	struct uuid uuid = sm_uuid_make(UUID_USER, "io_user", user->id);

	if (!*dotted || strcmp(dotted, ".io_uuid") == 0)
		uuid_value(ret, &uuid);
	else if (strcmp(dotted, ".io_username") == 0 || strcmp(dotted, ".io_name") == 0)
		text_value(ret, user->name, strlen(user->name));
	else if (strcmp(dotted, ".io_email") == 0)
		text_value(ret, user->email, strlen(user->email));
	else
		return false;
	return true;
}

bool sm_record_deleted(const struct sm_call *c, const struct record *r)
{
	int64_t every = sm_set(c, SM_SOFT_DELETED);

	return every && r->row.id % every == 0;
}

static void plain_value(const struct sm_call *c, const struct record *r, enum field field,
			struct sm_value *ret)
{
	struct uuid uuid;

	switch (field) {
	case FIELD_UUID:
		uuid = sm_uuid_make(UUID_RECORD, r->collection->name, r->row.id);
		uuid_value(ret, &uuid);
		return;
	case FIELD_NAME:
		text_value(ret, r->name.ptr, r->name.len);
		return;
	case FIELD_CREATED_ON:
	case FIELD_UPDATED_ON:
		ret->kind = VALUE_TIME;
		ret->number =
			record_ms(r, field == FIELD_CREATED_ON ? r->created_at : r->updated_at);
		return;
	default:
		ret->kind = VALUE_BOOL;
		ret->number =
			field == FIELD_DELETED ? sm_record_deleted(c, r) : field == FIELD_ACTIVE;
	}
}

bool sm_field_value(const struct sm_call *c, const struct record *r, const char *wanted,
		    struct sm_value *ret)
{
	for (enum field field = 0; field < FIELD_COUNT; field++) {
		const char *name = field_name(c, field);

		if (name && strcmp(name, wanted) == 0) {
			plain_value(c, r, field, ret);
			return true;
		}
	}
	for (size_t i = 0; i < USERS; i++) {
		size_t len = strlen(users[i].field);

		if (strncmp(wanted, users[i].field, len) == 0 &&
		    (!wanted[len] || wanted[len] == '.'))
			return user_value(users[i].user, wanted + len, ret);
	}
	return false;
}

bool sm_field_known(const struct sm_call *c, const char *field)
{
	struct record nobody = {.collection = c->object, .name = {(char *)"", 0}};
	struct sm_value value;

	return sm_field_value(c, &nobody, field, &value);
}

/* ISO 8601 with an offset, unlike those of attachments (S-23). */
static void put_time(const struct sm_call *c, struct buffer *out, int64_t ms)
{
	static const int offsets[] = {-180, 0, 330};
	static const char *const zones[] = {"-03:00", "+00:00", "+05:30"};
	int64_t zone = sm_set(c, SM_RECORD_ZONE);
	struct date_time t = clock_split(ms / 1000 + (int64_t)offsets[zone] * 60);

	buffer_printf(out, "\"%04d-%02d-%02dT%02d:%02d:%02d.%03d%s\"", t.year, t.month, t.day,
		      t.hour, t.minute, t.second, (int)(ms % 1000), zones[zone]);
}

static void put_field(const struct sm_call *c, struct buffer *out, const struct record *r,
		      const char *field)
{
	struct sm_value v;

	if (!sm_field_value(c, r, field, &v))
		return;
	buffer_json_key(out, field);
	if (v.kind == VALUE_TIME)
		put_time(c, out, v.number);
	else if (v.kind == VALUE_BOOL)
		buffer_puts(out, v.number ? "true" : "false");
	else
		sm_put_string(out, v.text ? v.text : v.uuid, v.len);
}

/* The next of a comma list, blanks around it left out; NULL at the end. Caller frees. */
static char *next_field(const char **list)
{
	const char *s = *list + strspn(*list, ", ");
	size_t len = strcspn(s, ", ");

	*list = s + len;
	return len ? xmemdup(s, len) : NULL;
}

static void put_all_fields(const struct sm_call *c, struct buffer *out, const struct record *r)
{
	for (enum field field = 0; field < FIELD_COUNT; field++)
		if (field_name(c, field))
			put_field(c, out, r, field_name(c, field));
	for (size_t i = 0; i < USERS; i++)
		put_field(c, out, r, users[i].field);
}

void sm_put_record(const struct sm_call *c, struct buffer *out, const struct record *r,
		   const char *fields)
{
	char *field;

	buffer_puts(out, "{\"__object_identifier\":");
	sm_put_string(out, c->object->name, strlen(c->object->name));
	if (!fields || !*fields)
		put_all_fields(c, out, r);
	while (fields && (field = next_field(&fields))) {
		put_field(c, out, r, field);
		free(field);
	}
	buffer_putc(out, '}');
}

bool sm_fields_check(struct sm_call *c, const char *fields)
{
	char *field;
	bool fine = true;

	while (fields && fine && (field = next_field(&fields))) {
		fine = sm_field_known(c, field);
		free(field);
	}
	if (!fine)
		sm_error_type(c, 400, "smql_query_error",
			      "The fields parameter has an unknown field");
	return fine;
}

bool sm_record_readable(const struct sm_call *c, const struct record *r)
{
	int64_t every = sm_set(c, SM_UNREADABLE);

	return sm_may_read(c, r->collection) && !(every && r->row.id % every == 0);
}

/* True if it may be used; 404 answered otherwise (S-10). A deleted one is as good as missing. */
static bool check_seen(struct sm_call *c, const struct record *r, bool deleted_too)
{
	if (r && sm_record_readable(c, r) && (deleted_too || !sm_record_deleted(c, r)))
		return true;
	if (r && !sm_record_readable(c, r) && sm_set(c, SM_UNREADABLE_STATUS) != 0)
		sm_error(c, 403, "No permission to access the record");
	else
		sm_error_missing(c);
	return false;
}

static struct record *find_record(struct sm_call *c, const char *text, size_t len, bool deleted_too)
{
	struct uuid uuid;
	struct record *r;

	if (!sm_uuid_parse(text, len, &uuid)) {
		sm_error(c, 400, "The record UUID is not specified or is invalid");
		return NULL;
	}
	r = store_record(c->object, sm_uuid_id(&uuid, UUID_RECORD, c->object->name));
	return check_seen(c, r, deleted_too) ? r : NULL;
}

struct record *sm_record_named(struct sm_call *c, const char *text, size_t len)
{
	return find_record(c, text, len, false);
}

void sm_record_serve(struct sm_call *c, const char *uuid, size_t len)
{
	struct str fields = request_query(c->rq, "fields");
	struct str deleted = request_query(c->rq, "ignore_delete");
	struct record *r;

	r = find_record(c, uuid, len, deleted.ptr && strcmp(deleted.ptr, "true") == 0);
	if (r && sm_fields_check(c, fields.ptr)) {
		sm_put_record(c, &c->rs->body, r, fields.ptr);
		sm_reply_json(c, 200);
	}
	str_free(&fields);
	str_free(&deleted);
}

/* S-22: the uuid is nowhere else. */
void sm_record_new(struct sm_call *c)
{
	struct uuid uuid = sm_uuid_random();
	struct buffer *out = &c->rs->body;

	buffer_puts(out, "{\"__object_identifier\":");
	sm_put_string(out, c->object->name, strlen(c->object->name));
	sm_put_uuid(out, "io_uuid", &uuid);
	buffer_puts(out, ",\"io_active\":true,\"io_deleted\":false}");
	sm_reply_json(c, 200);
}

static bool wants(const char *fields, const char *field)
{
	size_t len = strlen(field);

	if (!fields)
		return true;
	for (const char *s = fields; (s = strstr(s, field)); s += len)
		if ((s == fields || s[-1] == ',') && (!s[len] || s[len] == ','))
			return true;
	return false;
}

/* GET /v2/user: whoever asks is the one user; a map, it is assumed. */
void sm_user_serve(struct sm_call *c)
{
	static const char *const fields[] = {"io_uuid", "io_username", "io_email"};
	struct str wanted = request_query(c->rq, "fields");
	struct buffer *out = &c->rs->body;
	bool in_array = sm_set(c, SM_USER_REPLY) != 0;
	struct uuid uuid = sm_uuid_make(UUID_USER, "io_user", mount_user.id);
	char id[UUID_SIZE];

	sm_uuid_format(&uuid, id);
	buffer_puts(out, in_array ? "[{" : "{");
	for (size_t i = 0; i < 3; i++) {
		if (!wants(wanted.ptr, fields[i]))
			continue;
		buffer_json_key(out, fields[i]);
		buffer_json_text(out, i == 0 ? id : i == 1 ? mount_user.name : mount_user.email);
	}
	buffer_puts(out, in_array ? "}]" : "}");
	sm_reply_json(c, 200);
	str_free(&wanted);
}
