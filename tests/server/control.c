/* SPDX-License-Identifier: MIT */
/* The control port: how tests look inside and break things (README.md). Never delayed, never failed. */
#include "alloc.h"
#include "change.h"
#include "clock.h"
#include "emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(struct response *rs, int status, char *error)
{
	rs->status = status;
	buffer_puts(&rs->body, "{\"error\":");
	buffer_json_text(&rs->body, error ? error : "bad request");
	buffer_puts(&rs->body, "}");
	free(error);
}

static void reply(struct response *rs, json_t *value)
{
	char *text = json_dumps(value, JSON_COMPACT);

	buffer_puts(&rs->body, text ? text : "null");
	free(text);
	json_decref(value);
}

static void put_text(struct buffer *out, const char *key, const struct str *s)
{
	buffer_json_key(out, key);
	if (s->ptr)
		buffer_json_string(out, s->ptr, s->len);
	else
		buffer_puts(out, "null");
}

static void put_time(struct buffer *out, const char *key, int64_t seconds)
{
	struct date_time t = clock_split(seconds);

	buffer_json_key(out, key);
	buffer_printf(out, "\"%04d-%02d-%02dT%02d:%02d:%02dZ\"", t.year, t.month, t.day, t.hour,
		      t.minute, t.second);
}

static void put_record_id(struct buffer *out, const struct emulator *emu, const char *key,
			  const struct record *r)
{
	char id[REMOTE_ID_SIZE];

	snprintf(id, sizeof(id), "%lld", (long long)r->row.id);
	if (emu->system->record_id)
		emu->system->record_id(r, id);
	buffer_json_key(out, key);
	buffer_json_text(out, id);
}

static void put_record(struct buffer *out, const struct emulator *emu, const struct record *r)
{
	const char *key;
	json_t *value;

	buffer_json_comma(out);
	buffer_putc(out, '{');
	buffer_json_key(out, "collection");
	buffer_json_text(out, r->collection->name);
	buffer_printf(out, ",\"id\":%lld", (long long)r->row.id);
	put_record_id(out, emu, "remote_id", r);
	put_text(out, "name", &r->name);
	json_object_foreach(r->fields, key, value)
	{
		buffer_json_key(out, key);
		buffer_json(out, value);
	}
	put_time(out, "created_at", r->created_at);
	put_time(out, "updated_at", r->updated_at);
	buffer_putc(out, '}');
}

/* What /state says of one attachment; its hash is added later, without the lock. */
struct snapshot {
	struct buffer text; /* without size, sha256 and the closing brace */
	struct blob *blob;  /* NULL: the path leads nowhere */
};

static void put_owner(struct buffer *out, const struct emulator *emu, const struct attachment *a)
{
	struct store *s = emu->store;
	struct record *r = store_owner_record(s, a);
	const struct collection *c = NULL;

	if (a->owner_type.ptr)
		c = store_collection_of_type(s, a->owner_type.ptr, a->owner_type.len);
	buffer_json_key(out, "collection");
	buffer_json_text(out, c ? c->name : NULL);
	buffer_json_key(out, "record_id");
	if (a->has_owner_id)
		buffer_put_int(out, a->owner_id);
	else
		buffer_puts(out, "null");
	buffer_json_key(out, "record_name");
	if (r) {
		buffer_json_string(out, r->name.ptr, r->name.len);
		put_record_id(out, emu, "record_remote_id", r);
	} else {
		buffer_puts(out, "null");
	}
	put_text(out, "model_type", &a->owner_type);
	buffer_json_key(out, "model_id");
	if (a->has_owner_id)
		buffer_put_int(out, a->owner_id);
	else
		buffer_puts(out, "null");
}

static struct snapshot snap(const struct emulator *emu, const struct attachment *a)
{
	struct snapshot shot = {.blob = store_get_blob(emu->store, a->path)};
	struct buffer *out = &shot.text;
	char id[REMOTE_ID_SIZE];

	buffer_printf(out, "{\"id\":%lld", (long long)a->row.id);
	snprintf(id, sizeof(id), "%lld", (long long)a->row.id);
	if (emu->system->attachment_id)
		emu->system->attachment_id(a, id);
	buffer_json_key(out, "remote_id");
	buffer_json_text(out, id);
	put_text(out, "name", &a->name);
	put_text(out, "filename", &a->filename);
	put_owner(out, emu, a);
	buffer_json_key(out, "path");
	buffer_json_text(out, a->path);
	put_time(out, "created_at", a->created_at);
	put_time(out, "updated_at", a->updated_at);
	if (a->deleted_at)
		put_time(out, "deleted_at", a->deleted_at);
	return shot;
}

static void put_snapshot(struct buffer *out, struct snapshot *shot, bool hash)
{
	buffer_json_comma(out);
	buffer_put(out, shot->text.data, shot->text.len);
	if (!shot->blob)
		buffer_puts(out, ",\"size\":null,\"sha256\":null}");
	else if (hash)
		buffer_printf(out, ",\"size\":%llu,\"sha256\":\"%s\"}",
			      (unsigned long long)blob_size(shot->blob), blob_sha256(shot->blob));
	else
		buffer_printf(out, ",\"size\":%llu}", (unsigned long long)blob_size(shot->blob));
	buffer_free(&shot->text);
	blob_unref(shot->blob);
}

/* Hashing gigabytes must not stop the server: the lock is held only while the rows are copied. */
static void get_state(struct request *rq, struct response *rs)
{
	struct store *s = rq->emu->store;
	struct str hash = request_query(rq, "sha256");
	struct snapshot *shots;
	size_t n;

	buffer_puts(&rs->body, "{\"collections\":[");
	pthread_mutex_lock(&rq->emu->lock);
	for (size_t i = 0; i < s->n_collections; i++) {
		buffer_json_comma(&rs->body);
		buffer_json_text(&rs->body, s->collections[i].name);
	}
	buffer_puts(&rs->body, "],\"records\":[");
	for (size_t i = 0; i < s->n_collections; i++)
		for (size_t j = 0; j < s->collections[i].records.n; j++)
			put_record(&rs->body, rq->emu,
				   (struct record *)s->collections[i].records.at[j]);
	n = s->attachments.n;
	shots = xmalloc(n * sizeof(*shots));
	for (size_t i = 0; i < n; i++)
		shots[i] = snap(rq->emu, (struct attachment *)s->attachments.at[i]);
	pthread_mutex_unlock(&rq->emu->lock);
	buffer_puts(&rs->body, "],\"attachments\":[");
	for (size_t i = 0; i < n; i++)
		put_snapshot(&rs->body, &shots[i], !hash.ptr || strcmp(hash.ptr, "0") != 0);
	buffer_puts(&rs->body, "]}");
	free(shots);
	str_free(&hash);
}

static void get_requests(struct request *rq, struct response *rs)
{
	reqlog_write(rq->emu->log, &rs->body);
}

static void get_summary(struct request *rq, struct response *rs)
{
	reqlog_write_summary(rq->emu->log, &rs->body);
}

static void post_reset(struct request *rq, struct response *rs)
{
	reqlog_reset(rq->emu->log);
	buffer_puts(&rs->body, "{}");
}

static void get_faults(struct request *rq, struct response *rs)
{
	json_t *rules;

	pthread_mutex_lock(&rq->emu->lock);
	rules = faults_to_json(&rq->emu->faults);
	pthread_mutex_unlock(&rq->emu->lock);
	reply(rs, rules);
}

static void get_set(struct request *rq, struct response *rs)
{
	json_t *values;

	pthread_mutex_lock(&rq->emu->lock);
	values = settings_to_json(&rq->emu->settings);
	pthread_mutex_unlock(&rq->emu->lock);
	reply(rs, values);
}

static json_t *body_object(const struct request *rq)
{
	json_t *body =
		json_loadb(rq->body.data ? rq->body.data : "", rq->body.len, JSON_ALLOW_NUL, NULL);

	if (json_is_object(body))
		return body;
	json_decref(body);
	return NULL;
}

static void post_faults(struct request *rq, struct response *rs)
{
	json_t *body = body_object(rq);
	char *error = NULL;
	bool fine;

	pthread_mutex_lock(&rq->emu->lock);
	fine = body && faults_replace(&rq->emu->faults, body, &error);
	pthread_mutex_unlock(&rq->emu->lock);
	json_decref(body);
	if (fine)
		buffer_puts(&rs->body, "{}");
	else
		fail(rs, 400, error);
}

static void post_set(struct request *rq, struct response *rs)
{
	json_t *body = body_object(rq);
	char *error = NULL;
	bool fine;

	pthread_mutex_lock(&rq->emu->lock);
	fine = body && settings_set_json(&rq->emu->settings, body, &error);
	pthread_mutex_unlock(&rq->emu->lock);
	json_decref(body);
	if (fine)
		get_set(rq, rs);
	else
		fail(rs, 400, error);
}

static void post_clock(struct request *rq, struct response *rs)
{
	json_t *body = body_object(rq);
	const json_t *offset = json_object_get(body, "offset_s");

	if (json_is_integer(offset)) {
		clock_set_offset(json_integer_value(offset));
		buffer_printf(&rs->body, "{\"offset_s\":%lld}", (long long)clock_offset());
	} else {
		fail(rs, 400, xstrdup("offset_s: an integer is wanted"));
	}
	json_decref(body);
}

static void post_change(struct request *rq, struct response *rs)
{
	json_t *body = body_object(rq);
	char *error = NULL;
	json_t *ids = NULL;

	pthread_mutex_lock(&rq->emu->lock);
	if (body)
		ids = change_apply(rq->emu, body, &error);
	pthread_mutex_unlock(&rq->emu->lock);
	json_decref(body);
	if (ids)
		reply(rs, ids);
	else
		fail(rs, 400, error);
}

static uint64_t number_of(const struct request *rq, const char *name, uint64_t otherwise)
{
	struct str text = request_query(rq, name);
	uint64_t value = text.ptr ? strtoull(text.ptr, NULL, 10) : otherwise;

	free(text.ptr);
	return value;
}

static void get_blob(struct request *rq, struct response *rs)
{
	const struct attachment *a;
	uint64_t size;

	pthread_mutex_lock(&rq->emu->lock);
	a = store_attachment(rq->emu->store, strtoll(rq->path + strlen("/blob/"), NULL, 10));
	if (a)
		rs->blob = store_get_blob(rq->emu->store, a->path);
	pthread_mutex_unlock(&rq->emu->lock);
	if (!rs->blob) {
		fail(rs, 404, xstrdup("no such attachment, or its bytes are gone"));
		return;
	}
	size = blob_size(rs->blob);
	rs->off = number_of(rq, "off", 0);
	rs->off = rs->off < size ? rs->off : size;
	rs->len = number_of(rq, "len", size);
	rs->len = rs->len < size - rs->off ? rs->len : size - rs->off;
	response_header(rs, "Content-Type", "application/octet-stream");
}

static const struct {
	const char *method;
	const char *path;
	void (*serve)(struct request *rq, struct response *rs);
} routes[] = {
	{"GET", "/state", get_state},
	{"GET", "/requests", get_requests},
	{"GET", "/requests/summary", get_summary},
	{"POST", "/requests/reset", post_reset},
	{"GET", "/faults", get_faults},
	{"POST", "/faults", post_faults},
	{"GET", "/set", get_set},
	{"POST", "/set", post_set},
	{"POST", "/clock", post_clock},
	{"POST", "/change", post_change},
};

void control_serve(struct request *rq, struct response *rs)
{
	rs->status = 200;
	if (strcmp(rq->method, "GET") == 0 && strncmp(rq->path, "/blob/", 6) == 0) {
		get_blob(rq, rs);
		return;
	}
	response_header(rs, "Content-Type", "application/json");
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (strcmp(routes[i].method, rq->method) == 0 &&
		    strcmp(routes[i].path, rq->path) == 0) {
			routes[i].serve(rq, rs);
			return;
		}
	}
	fail(rs, 404, xstrdup("no such control request"));
}
