/* SPDX-License-Identifier: MIT */

/*
 * attachfs check: who am I, is the clock right, and for every object how many records and files can
 * be seen. What may be written cannot be told without writing.
 *
 *	WHO      GET /v2/user
 *	COUNT    GET /v2/<object>/count         for each object of collections=
 *	FILES    GET /v2/<object>/attachments
 */

#include "servicemax.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <attachfs/clock.h>

#include "auth.h"
#include "json.h"

#define SKEW_FINE_S 5

struct checking {
	struct servicemax *p;
	remote_finding *each;
	remote_done *done;
	void *ctx;
	size_t object;
	int64_t records; /* of the object, -1 = not told */
};

__attribute__((format(printf, 4, 5))) static void
find(struct checking *c, enum remote_verdict verdict, const char *topic, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	c->each(c->ctx, verdict, topic, text);
}

static void check_end(struct checking *c, int error, const char *message)
{
	c->done(c->ctx, error, message);
	free(c);
}

static void ask_object(struct checking *c);
static void count_done(void *ctx, const struct call_reply *reply);
static void files_done(void *ctx, const struct call_reply *reply);

static void ask(struct checking *c, const char *what, const char *endpoint, call_done *done)
{
	char path[SERVICEMAX_OBJECT_MAX + 64];

	snprintf(path, sizeof(path), "/v2/%s/%s", c->p->objects[c->object].name, what);
	struct call *call = servicemax_call(c->p, TRANSFER_INTERACTIVE, "GET", path, endpoint);
	call_set_idempotent(call, true);
	call_set_max_body(call, SERVICEMAX_FILES_MAX);
	int r = call_start(call, done, c);
	if (r < 0)
		check_end(c, r, "not sent");
}

/* Whether the check goes on after such an error: it is about this object only. */
static bool is_about_object(const struct call_reply *reply)
{
	return reply->status == 400 || reply->status == 403 || reply->status == 404;
}

static void find_files(struct checking *c, const json_t *map)
{
	const char *object = c->p->objects[c->object].name, *record;
	size_t records = 0, n = 0;
	int64_t bytes = 0;
	json_t *files;

	json_object_foreach((json_t *)map, record, files)
	{
		records += json_array_size(files) > 0;
		for (size_t i = 0; i < json_array_size(files); i++, n++) {
			int64_t size = servicemax_get_number(json_array_get(files, i), "size");
			if (size > 0 && size <= INT64_MAX - bytes)
				bytes += size;
		}
	}
	if (c->records >= 0)
		find(c, REMOTE_FINE, object, "%lld records; %zu files of %zu records, %lld bytes",
		     (long long)c->records, n, records, (long long)bytes);
	else
		find(c, REMOTE_FINE, object, "%zu files of %zu records, %lld bytes", n, records,
		     (long long)bytes);
}

static void files_done(void *ctx, const struct call_reply *reply)
{
	struct checking *c = ctx;
	const char *object = c->p->objects[c->object].name;

	if (reply->error < 0 && reply->error != -EOVERFLOW && !is_about_object(reply)) {
		check_end(c, reply->error, reply->message);
		return;
	}
	if (reply->error == -EOVERFLOW)
		find(c, REMOTE_NOTE, object,
		     "very many files: they are listed by hundreds of records, which takes long");
	else if (reply->error < 0)
		find(c, REMOTE_BAD, object,
		     "its attachments cannot be listed: %s: is '%s' the full identifier of an "
		     "object, and may you read it?",
		     reply->message, object);
	else if (!json_is_object(reply->json))
		find(c, REMOTE_BAD, object,
		     "the answer is not what ServiceMax sends: no map of attachments");
	else
		find_files(c, reply->json);
	c->object++;
	ask_object(c);
}

static void count_done(void *ctx, const struct call_reply *reply)
{
	struct checking *c = ctx;

	if (reply->error < 0 && !is_about_object(reply)) {
		check_end(c, reply->error == -EOVERFLOW ? -EIO : reply->error, reply->message);
		return;
	}
	c->records = json_is_integer(reply->json) ? (int64_t)json_integer_value(reply->json) : -1;
	ask(c, "attachments", "/v2/{object}/attachments", files_done);
}

static void ask_object(struct checking *c)
{
	if (c->object < c->p->n_objects) {
		ask(c, "count", "/v2/{object}/count", count_done);
		return;
	}
	if (c->p->n_objects == 0)
		find(c, REMOTE_NOTE, "collections",
		     "none given: collections=io_showcase shows the records of that object, with "
		     "':' between several");
	find(c, REMOTE_NOTE, "writing",
	     "uploads, new versions and deletions cannot be tried without doing them; renaming a "
	     "file uploads it again; records cannot be renamed");
	check_end(c, 0, "");
}

static void find_clock(struct checking *c, const struct call_reply *reply)
{
	if (reply->date_s <= 0) {
		find(c, REMOTE_NOTE, "clock", "the server does not tell its time");
		return;
	}
	long long skew_s = reply->date_s - clock_real_ns() / CLOCK_NS_PER_S;
	bool fine = skew_s >= -SKEW_FINE_S && skew_s <= SKEW_FINE_S;
	if (fine)
		find(c, REMOTE_FINE, "clock", "the server's is ours");
	else
		find(c, REMOTE_NOTE, "clock", "the server's is %lld s %s ours",
		     skew_s < 0 ? -skew_s : skew_s, skew_s < 0 ? "behind" : "before");
}

static void who_done(void *ctx, const struct call_reply *reply)
{
	struct checking *c = ctx;
	const json_t *me =
		json_is_array(reply->json) ? json_array_get(reply->json, 0) : reply->json;
	const char *name = json_get_text(me, "io_username");
	const char *email = json_get_text(me, "io_email");

	if (reply->error < 0 || !json_is_object(me)) {
		int error = reply->error == 0 || reply->error == -EOVERFLOW ? -EIO : reply->error;
		find(c, REMOTE_BAD, "user", "%s",
		     reply->error ? reply->message : "the server does not answer like ServiceMax");
		check_end(c, error, reply->message);
		return;
	}
	find(c, REMOTE_FINE, "server", "ServiceMax Service Board, REST v2, at %.200s",
	     c->p->server.host);
	find(c, REMOTE_FINE, "user", "%.100s%s%.100s", name ? name : "not told", email ? ", " : "",
	     email ? email : "");
	find(c, REMOTE_FINE, "credentials", "%s",
	     c->p->user ? "logged in by password (OAuth2)" : "a bearer token");
	find_clock(c, reply);
	if (reply->rate_limit >= 0)
		find(c, REMOTE_FINE, "rate limit", "%lld of %lld calls left",
		     (long long)reply->rate_remaining, (long long)reply->rate_limit);
	else
		find(c, REMOTE_FINE, "rate limit", "none told");
	ask_object(c);
}

int servicemax_check(struct remote *r, remote_finding *each, remote_done *done, void *ctx)
{
	struct checking *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->p = (struct servicemax *)r;
	c->each = each;
	c->done = done;
	c->ctx = ctx;
	struct call *call = servicemax_call(c->p, TRANSFER_INTERACTIVE, "GET",
					    "/v2/user?fields=io_username,io_email", "/v2/user");
	call_set_idempotent(call, true);
	int error = call_start(call, who_done, c);
	if (error < 0)
		free(c);
	return error;
}
