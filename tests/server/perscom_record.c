/* SPDX-License-Identifier: MIT */
/* Records that own attachments: the table of resources, and their create, update and delete. */
#include "perscom.h"

#include "alloc.h"
#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONG_TEXT 65535

static const struct field user_fields[] = {
	{"name", FIELD_TEXT, 255, true, NULL},
	{"email", FIELD_TEXT, 255, true, NULL},
	{"approved", FIELD_BOOL, 0, false, NULL},
	{NULL, FIELD_TEXT, 0, false, NULL},
};

/* The table of section 9, against what seed 001 promises (P-25). */
static const struct field event_fields[] = {
	{"name", FIELD_TEXT, 255, true, NULL},
	{"calendar_id", FIELD_CALENDAR, 0, false, NULL},
	{"description", FIELD_TEXT, LONG_TEXT, false, NULL},
	{"content", FIELD_TEXT, LONG_TEXT, false, NULL},
	{"location", FIELD_TEXT, LONG_TEXT, false, NULL},
	{"url", FIELD_TEXT, LONG_TEXT, false, NULL},
	{"author_id", FIELD_USER, 0, false, NULL},
	{"all_day", FIELD_BOOL, 0, false, NULL},
	{"repeats", FIELD_BOOL, 0, false, NULL},
	{"starts", FIELD_DATE, 0, false, NULL},
	{"ends", FIELD_DATE, 0, false, NULL},
	{"registrations_deadline", FIELD_DATE, 0, false, NULL},
	{"notifications_enabled", FIELD_BOOL, 0, false, NULL},
	{"notifications_interval", FIELD_CHOICE, 0, false, "pt0m pt15m pt1h p1d p1w"},
	{"notifications_channels", FIELD_CHOICE, 0, false,
	 "broadcast database discord_private discord_public mail sms"},
	{"registration_enabled", FIELD_IGNORED, 0, false, NULL},
	{"registration_deadline", FIELD_IGNORED, 0, false, NULL},
	{"registrations_enabled", FIELD_IGNORED, 0, false, NULL},
	{NULL, FIELD_TEXT, 0, false, NULL},
};

static const struct field task_fields[] = {
	{"title", FIELD_TEXT, 255, true, NULL},
	{"description", FIELD_TEXT, LONG_TEXT, false, NULL},
	{"instructions", FIELD_TEXT, LONG_TEXT, false, NULL},
	{"form_id", FIELD_INTEGER, 0, false, NULL},
	{NULL, FIELD_TEXT, 0, false, NULL},
};

static const struct field record_fields[] = {
	{"user_id", FIELD_USER, 0, false, NULL},   {"document_id", FIELD_INTEGER, 0, false, NULL},
	{"author_id", FIELD_USER, 0, false, NULL}, {"text", FIELD_TEXT, LONG_TEXT, false, NULL},
	{NULL, FIELD_TEXT, 0, false, NULL},
};

#define RECORD(path, class, scope_name, era)                                                       \
	{                                                                                          \
		.name = path, .model = class, .scope = scope_name, .title = "text",                \
		.fields = record_fields, .newest_first = true, .since = era, .of_users = true,     \
		.filters = "id user_id user.* document_id author_id text created_at updated_at",   \
		.includes = "attachments author document user"                                     \
	}

const struct resource resources[] = {
	{.name = "attachments",
	 .model = "Attachment",
	 .scope = "attachment",
	 .filters = "id name filename model_id model_type path created_at updated_at",
	 .includes = "model"},
	{.name = "users",
	 .model = "User",
	 .scope = "user",
	 .title = "name",
	 .fields = user_fields,
	 .filters = "id name email unit_id approved last_seen_at created_at updated_at",
	 .includes = "attachments fields position rank specialty status unit",
	 .search_fails = true},
	{.name = "events",
	 .model = "Event",
	 .scope = "event",
	 .title = "name",
	 .fields = event_fields,
	 .filters =
		 "id name calendar_id description content location url author_id all_day repeats "
		 "starts ends registrations_deadline registration_enabled registration_deadline "
		 "notifications_enabled notifications_interval notifications_channels created_at "
		 "updated_at author.* calendar.*",
	 .includes = "attachments author calendar comments image schedule tags",
	 .search_fails = true},
	{.name = "tasks",
	 .model = "Task",
	 .scope = "task",
	 .title = "title",
	 .fields = task_fields,
	 .filters = "id title description instructions form_id form.* created_at updated_at",
	 .includes = "attachments form users",
	 .of_users = true},
	RECORD("assignment-records", "AssignmentRecord", "assignmentrecord", 0),
	RECORD("award-records", "AwardRecord", "awardrecord", 0),
	RECORD("combat-records", "CombatRecord", "combatrecord", 0),
	RECORD("qualification-records", "QualificationRecord", "qualificationrecord", 0),
	RECORD("rank-records", "RankRecord", "rankrecord", 0),
	RECORD("service-records", "ServiceRecord", "servicerecord", 0),
	RECORD("training-records", "TrainingRecord", "trainingrecord", SETTING_VERSION_OF(2, 6, 0)),
	{.name = NULL},
};

const struct resource *resource_attachments(void)
{
	return &resources[0];
}

const struct resource *resource_find(const char *name, size_t len)
{
	for (const struct resource *r = resources; r->name; r++)
		if (strlen(r->name) == len && memcmp(r->name, name, len) == 0)
			return r;
	return NULL;
}

const struct resource *resource_of(const struct collection *c)
{
	return resource_find(c->name, strlen(c->name));
}

void perscom_dress_record(struct record *r)
{
	const struct resource *res = resource_of(r->collection);

	if (res->fields == user_fields) {
		json_object_set_new(r->fields, "email",
				    json_sprintf("user%lld@example.org", (long long)r->row.id));
		json_object_set_new(r->fields, "approved", json_true());
	} else if (res->fields == event_fields) {
		json_object_set_new(r->fields, "all_day", json_false());
		json_object_set_new(r->fields, "repeats", json_false());
		json_object_set_new(r->fields, "notifications_enabled", json_false());
	}
}

int64_t record_user(struct call *c, const struct record *r)
{
	const struct rows *users = &store_collection(c->p->emu->store, "users")->records;
	json_t *user = json_object_get(r->fields, "user_id");

	if (!user && users->n && resource_of(r->collection)->of_users) {
		user = json_integer(users->at[(size_t)(r->row.id - 1) % users->n]->id);
		json_object_set_new(r->fields, "user_id", user);
	}
	return json_integer_value(user);
}

static bool is_choice(const char *choices, const char *value)
{
	size_t len = strlen(value);

	while (*choices) {
		size_t n = strcspn(choices, " ");

		if (n == len && memcmp(choices, value, n) == 0)
			return true;
		choices += n + (choices[n] == ' ');
	}
	return false;
}

static bool is_boolean(const json_t *value)
{
	const char *s = json_string_value(value);
	json_int_t n = json_integer_value(value);

	return json_is_boolean(value) || (json_is_integer(value) && (n == 0 || n == 1)) ||
	       (s && (strcmp(s, "0") == 0 || strcmp(s, "1") == 0));
}

static bool referenced(struct call *c, const struct field *f, const json_t *value)
{
	int64_t id;

	if (!scalar_integer(value, &id))
		return false;
	if (f->kind == FIELD_CALENDAR)
		return id == 1;
	return f->kind != FIELD_USER ||
	       store_record(store_collection(c->p->emu->store, "users"), id) != NULL;
}

/* What is wrong with a value that is there and not null; NULL: nothing. */
static const char *complaint(struct call *c, const struct field *f, const json_t *value)
{
	const char *s = json_string_value(value);
	int64_t t;

	switch (f->kind) {
	case FIELD_TEXT:
		if (!s)
			return "must be a string.";
		if ((int64_t)utf8_count(s, json_string_length(value)) > f->max)
			return f->max == 255 ? "must not be greater than 255 characters."
					     : "must not be greater than 65535 characters.";
		return NULL;
	case FIELD_BOOL:
		return is_boolean(value) ? NULL : "must be true or false.";
	case FIELD_DATE:
		return s && date_parse(s, &t) ? NULL : "must be a valid date.";
	case FIELD_CHOICE:
		return s && is_choice(f->choices, s) ? NULL : "is invalid.";
	case FIELD_INTEGER:
	case FIELD_USER:
	case FIELD_CALENDAR:
		return referenced(c, f, value) ? NULL : "is invalid.";
	case FIELD_IGNORED:
		break;
	}
	return NULL;
}

void record_validate(struct call *c, const json_t *fields, const char *prefix, bool creating,
		     json_t **errors)
{
	for (const struct field *f = c->resource->fields; f->name; f++) {
		const json_t *value = json_object_get(fields, f->name);
		char *key = xasprintf("%s%s", prefix, f->name);
		const char *wrong = NULL;

		if (f->required && (value ? json_is_null(value) : creating))
			wrong = "is required.";
		else if (value && !json_is_null(value))
			wrong = complaint(c, f, value);
		if (wrong)
			invalid_add(errors, key, "The %s field %s", key, wrong);
		free(key);
	}
}

bool record_knows(const struct call *c, const json_t *fields)
{
	for (const struct field *f = c->resource->fields; f->name; f++)
		if (f->kind != FIELD_IGNORED && json_object_get(fields, f->name))
			return true;
	return false;
}

bool record_has_date(const struct call *c, const json_t *fields)
{
	for (const struct field *f = c->resource->fields; f->name; f++)
		if (f->kind == FIELD_DATE && json_is_string(json_object_get(fields, f->name)))
			return true;
	return false;
}

static json_t *date_json(const char *text)
{
	struct date_time t;
	int64_t seconds = 0;

	date_parse(text, &seconds);
	t = clock_split(seconds);
	return json_sprintf("%04d-%02d-%02dT%02d:%02d:%02d.000000Z", t.year, t.month, t.day, t.hour,
			    t.minute, t.second);
}

static json_t *stored(const struct field *f, const json_t *value)
{
	const char *s = json_string_value(value);
	int64_t n = 0;

	if (json_is_null(value))
		return json_null();
	switch (f->kind) {
	case FIELD_BOOL:
		if (json_is_boolean(value))
			return json_incref((json_t *)value);
		return json_boolean(s ? *s == '1' : json_integer_value(value) == 1);
	case FIELD_DATE:
		return date_json(s);
	case FIELD_INTEGER:
	case FIELD_USER:
	case FIELD_CALENDAR:
		scalar_integer(value, &n);
		return json_integer(n);
	default:
		return json_incref((json_t *)value);
	}
}

static bool set_title(struct record *r, const json_t *value)
{
	if (!json_is_string(value) ||
	    str_equal(&r->name, json_string_value(value), json_string_length(value)))
		return false;
	str_set(&r->name, json_string_value(value), json_string_length(value));
	return true;
}

static bool set_field(struct record *r, const struct field *f, const json_t *value)
{
	json_t *fresh = stored(f, value);
	bool same = json_equal(json_object_get(r->fields, f->name), fresh);

	json_object_set_new(r->fields, f->name, fresh);
	return !same;
}

void record_fill(struct call *c, struct record *r, const json_t *fields)
{
	const struct resource *res = c->resource;
	bool changed = false;

	for (const struct field *f = res->fields; f->name; f++) {
		const json_t *value = json_object_get(fields, f->name);

		if (!value || f->kind == FIELD_IGNORED)
			continue;
		if (strcmp(f->name, res->title) == 0)
			changed |= set_title(r, value);
		else
			changed |= set_field(r, f, value);
	}
	if (changed)
		r->updated_at = clock_now();
}

struct record *record_create(struct call *c, const json_t *fields)
{
	struct collection *collection = store_collection(c->p->emu->store, c->resource->name);
	struct record *r = store_add_record(collection, "", 0, clock_now());

	perscom_dress_record(r);
	if (c->resource->of_users) /* nobody's, unless the body or the address says so */
		json_object_set_new(r->fields, "user_id", json_null());
	record_fill(c, r, fields);
	if (c->owned)
		json_object_set_new(r->fields, "user_id", json_integer(c->user_id));
	cache_purge(c->p, CHANGE_CREATED, c->resource->scope, r->row.id);
	return r;
}

/* Its attachments stay, listable at top level (section 8). */
void record_delete(struct call *c, struct buffer *out, struct record *r)
{
	int64_t id = r->row.id;

	put_row(c, out, &r->row);
	store_delete_record(r);
	cache_purge(c->p, CHANGE_DELETED, c->resource->scope, id);
}

static bool refused(struct call *c, bool creating)
{
	json_t *errors = NULL;

	record_validate(c, c->input, "", creating, &errors);
	if (invalid_reply(c, errors))
		return true;
	if (!creating && record_has_date(c, c->input)) {
		error_reply(c, 500, "BadMethodCallException",
			    "There was a server error with your last request. Please try again.");
		return true;
	}
	if (setting(c, SET_UNGUARDED) && fields_unknown(c, c->input)) {
		error_query(c);
		return true;
	}
	return false;
}

static void update(struct call *c, struct record *r)
{
	if (refused(c, false))
		return;
	record_fill(c, r, c->input);
	reply_row(c, 200, &r->row);
	cache_purge(c->p, CHANGE_UPDATED, c->resource->scope, r->row.id);
}

void record_serve(struct call *c)
{
	struct record *r;

	if (c->target == TARGET_LIST) {
		if (!refused(c, true))
			reply_row(c, 201, &record_create(c, c->input)->row);
		return;
	}
	r = store_record(store_collection(c->p->emu->store, c->resource->name), c->id);
	if (!r || (c->owned && record_user(c, r) != c->user_id)) {
		error_status(c, 404);
	} else if (is_verb(c, "GET")) {
		reply_row(c, 200, &r->row);
	} else if (is_verb(c, "DELETE")) {
		c->rs->status = 200;
		buffer_puts(&c->rs->body, "{\"data\":");
		record_delete(c, &c->rs->body, r);
		buffer_putc(&c->rs->body, '}');
	} else {
		update(c, r);
	}
}
