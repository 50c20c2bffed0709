/* SPDX-License-Identifier: MIT */

/*
 * Has anything changed? One call: all files of the object (section 11 of the reference), of which a
 * sum is kept; it is another one when a file was added, removed, or has another version, older ones
 * included. Every third time it is the newest record instead, and how many there are: that finds
 * records without files, made, deleted or renamed.
 *
 * The cursor is "1;<number of polls>;<sum of files>;<newest record>"; a half that was not asked yet
 * is "?<seconds>": when the first poll was.
 */

#include "servicemax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "json.h"

#define HALF_MAX       160
#define LEARN_MARGIN_S 120

static const char *const total_header[] = {"X-Total-Count", NULL};

struct polling {
	struct servicemax *p;
	struct servicemax_object *object; /* NULL = not of the options */
	remote_poll_done *done;
	void *ctx;
	bool first, records;
	unsigned long number;
	char halves[2][HALF_MAX]; /* files, records */
};

/* False: not one of ours, or none: begin anew. */
static bool parse_cursor(struct polling *poll, const char *cursor)
{
	char *end;

	if (!cursor || strncmp(cursor, "1;", 2) != 0)
		return false;
	poll->number = strtoul(cursor + 2, &end, 10);
	const char *half = *end == ';' ? end + 1 : NULL;
	const char *between = half ? strchr(half, ';') : NULL;
	if (!between || between - half >= HALF_MAX || strlen(between + 1) >= HALF_MAX)
		return false;
	snprintf(poll->halves[0], HALF_MAX, "%.*s", (int)(between - half), half);
	snprintf(poll->halves[1], HALF_MAX, "%s", between + 1);
	return true;
}

/* "updated|uuid|total" of the newest record. -EIO: no list. */
static int describe_newest(const struct call_reply *reply, char out[HALF_MAX])
{
	const json_t *row = json_array_get(reply->json, 0);
	const char *updated = json_get_text(row, "io_updated_on");
	const char *created = json_get_text(row, "io_created_on");
	const char *uuid = json_get_uuid(row, "io_uuid");

	if (!json_is_array(reply->json))
		return -EIO;
	snprintf(out, HALF_MAX, "%.40s|%s|%.20s",
		 updated   ? updated
		 : created ? created
			   : "",
		 uuid ? uuid : "", reply->header ? reply->header : "");
	for (char *p = out; *p != '\0'; p++)
		if (*p == ';' || (unsigned char)*p < 0x20)
			*p = '_';
	return 0;
}

/* A half that is learnt now: is its newest record newer than the first poll? */
static bool changed_since(const struct call_reply *reply, const char *since)
{
	const json_t *row = json_array_get(reply->json, 0);
	int64_t ns = json_get_time(row, "io_updated_on");

	if (ns == REMOTE_TIME_NONE)
		ns = json_get_time(row, "io_created_on");
	return ns != REMOTE_TIME_NONE &&
	       ns / CLOCK_NS_PER_S >= strtoll(since, NULL, 10) - LEARN_MARGIN_S;
}

static void poll_end(struct polling *poll, int error, bool changed, const char *cursor)
{
	poll->done(poll->ctx, error, changed, cursor);
	free(poll);
}

static void poll_reply(void *ctx, const struct call_reply *reply)
{
	struct polling *poll = ctx;
	char now[HALF_MAX] = "", cursor[2 * HALF_MAX + 64];
	char *half = poll->halves[poll->records];
	int64_t now_s = reply->date_s > 0 ? reply->date_s : clock_real_ns() / CLOCK_NS_PER_S;
	int error = reply->error;
	bool changed = poll->first;

	/*
	 * An object without such a field to sort by: next time by another one. If it has neither,
	 * the files are all that is looked at.
	 */
	if (poll->records && reply->status == 400 && poll->object) {
		bool tried = atomic_exchange(&poll->object->undated, true);
		snprintf(cursor, sizeof(cursor), "1;%lu;%s;%s", poll->number + tried,
			 poll->halves[0], poll->halves[1]);
		poll_end(poll, 0, false, cursor);
		return;
	}
	/* Too many files to be looked at all the time: then it is the records that tell. */
	if (error == -EOVERFLOW && !poll->records) {
		snprintf(now, sizeof(now), "many");
		error = 0;
	} else if (error == 0) {
		error = poll->records ? describe_newest(reply, now)
				      : servicemax_digest(reply->json, now);
	}
	if (error < 0) {
		poll_end(poll, error == -EOVERFLOW ? -EIO : error, false, NULL);
		return;
	}
	if (half[0] == '?')
		changed |= changed_since(reply, half + 1);
	else
		changed |= strcmp(half, now) != 0;
	snprintf(half, HALF_MAX, "%s", now);
	if (poll->first)
		snprintf(poll->halves[1], HALF_MAX, "?%lld", (long long)now_s);
	snprintf(cursor, sizeof(cursor), "1;%lu;%s;%s", poll->number + 1, poll->halves[0],
		 poll->halves[1]);
	poll_end(poll, 0, changed, cursor);
}

static struct call *make_call(const struct polling *poll, const char *object)
{
	const char *field = poll->object && atomic_load(&poll->object->undated) ? "io_created_on"
										: "io_updated_on";
	char path[SERVICEMAX_OBJECT_MAX + 128];

	if (poll->records)
		snprintf(path, sizeof(path),
			 "/v2/%s?fields=io_uuid,%s&sort=%s%%20DESC&limit=1&offset=0", object, field,
			 field);
	else
		snprintf(path, sizeof(path), "/v2/%s/attachments", object);
	struct call *call =
		servicemax_call(poll->p, TRANSFER_REFRESH, "GET", path,
				poll->records ? "/v2/{object}" : "/v2/{object}/attachments");
	call_set_idempotent(call, true);
	call_want_headers(call, total_header);
	call_set_max_body(call, SERVICEMAX_FILES_MAX);
	return call;
}

int servicemax_poll(struct remote *r, const char *collection, const char *cursor,
		    remote_poll_done *done, void *ctx)
{
	bool ok = servicemax_is_object(collection);
	struct polling *poll = ok ? calloc(1, sizeof(*poll)) : NULL;

	if (!poll)
		return ok ? -ENOMEM : -EINVAL;
	poll->p = (struct servicemax *)r;
	poll->object = servicemax_find_object(poll->p, collection);
	poll->done = done;
	poll->ctx = ctx;
	poll->first = !parse_cursor(poll, cursor);
	if (poll->first)
		poll->number = 0;
	poll->records = poll->number % 3 == 1;
	int error = call_start(make_call(poll, collection), poll_reply, poll);
	if (error < 0)
		free(poll);
	return error;
}
