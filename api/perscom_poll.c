/* SPDX-License-Identifier: MIT */

/*
 * Has anything changed? One search for one row, newest first, and the count of all (section 11 of
 * the reference). What is seen:
 *
 *	attachments   added, removed (the total; or the newest id, when both happened), renamed,
 *	              moved into the collection, replaced: their updated_at. Not seen: a change by a
 *	              client that sets updated_at back into the past.
 *
 *	records       added, removed, renamed; of users not renamed, for a user's updated_at
 *	              follows his visits. Asked for in every third poll instead of the
 *	              attachments, to stay within one call.
 *
 * The cursor is "1;<number of polls>;<newest attachment>;<newest record>", a half that was not
 * asked yet is "?<seconds>": when the first poll was.
 */

#include "perscom.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "json.h"

#define HALF_MAX       256
#define LEARN_MARGIN_S 120

struct polling {
	struct perscom *p;
	remote_poll_done *done;
	void *ctx;
	bool first, records;
	unsigned long number;
	char halves[2][HALF_MAX]; /* attachments, records */
	const struct perscom_collection *c;
};

/* "updated_at|id|path|total" of the newest row; "" without memory or sense. */
static void describe_newest(const struct polling *poll, const json_t *root, char out[HALF_MAX])
{
	const json_t *row = json_array_get(json_get_array(root, "data"), 0);
	const char *updated = json_get_text(row, "updated_at");
	const char *path = json_get_text(row, "path");
	char id[REMOTE_ID_MAX + 1] = "";

	json_get_id(row, "id", id);
	if (poll->records && strcmp(poll->c->name, "users") == 0)
		updated = NULL;
	snprintf(out, HALF_MAX, "%.40s|%s|%.64s|%lld", updated ? updated : "", id, path ? path : "",
		 (long long)json_get_integer(json_get_object(root, "meta"), "total", -1));
	for (char *p = out; *p != '\0'; p++)
		if (*p == ';' || (unsigned char)*p < 0x20)
			*p = '_';
}

/*
 * A half that is learnt now: has it changed since the first poll, as far as its newest row's time
 * tells?
 */
static bool changed_since(const struct polling *poll, const json_t *root, const char *since)
{
	const json_t *row = json_array_get(json_get_array(root, "data"), 0);
	int64_t ns = json_get_time(row, "updated_at");

	if (strcmp(poll->c->name, "users") == 0)
		ns = json_get_time(row, "created_at");
	return ns != REMOTE_TIME_NONE &&
	       ns / CLOCK_NS_PER_S >= strtoll(since, NULL, 10) - LEARN_MARGIN_S;
}

/*
 * Deletions that nobody has verified (P-13): rows that were kept all look as they did before, so
 * that nothing but a listing finds them. Once, for this collection.
 */
static bool doubts_deletions(const struct polling *poll)
{
	unsigned bit = perscom_collection_bit(poll->c);

	return atomic_fetch_and(&poll->p->unproved, ~bit) & bit;
}

static void poll_reply(void *ctx, const struct call_reply *reply)
{
	struct polling *poll = ctx;
	char newest[HALF_MAX], cursor[2 * HALF_MAX + 64];
	char *half = poll->halves[poll->records];
	int64_t now_s = reply->date_s > 0 ? reply->date_s : clock_real_ns() / CLOCK_NS_PER_S;
	int error = reply->error;
	bool changed = poll->first;

	perscom_note_reply(poll->p, reply);
	if (error == 0 && !json_get_array(reply->json, "data"))
		error = -EIO;
	if (error < 0) {
		poll->done(poll->ctx, error, false, NULL);
		free(poll);
		return;
	}
	describe_newest(poll, reply->json, newest);
	if (half[0] == '?')
		changed |= changed_since(poll, reply->json, half + 1);
	else
		changed |= strcmp(half, newest) != 0;
	snprintf(half, HALF_MAX, "%s", newest);
	if (!poll->records)
		changed |= doubts_deletions(poll);
	if (poll->first)
		snprintf(poll->halves[1], HALF_MAX, "?%lld", (long long)now_s);
	snprintf(cursor, sizeof(cursor), "1;%lu;%s;%s", poll->number + 1, poll->halves[0],
		 poll->halves[1]);
	poll->done(poll->ctx, 0, changed, cursor);
	free(poll);
}

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

static json_t *make_body(const struct polling *poll)
{
	if (!poll->records)
		return perscom_body_newest(poll->c->model_type);
	if (strcmp(poll->c->name, "users") == 0)
		return json_pack("{s:[{s:s, s:s}]}", "sort", "field", "id", "direction", "desc");
	return perscom_body_newest(NULL);
}

int perscom_poll(struct remote *r, const char *collection, const char *cursor,
		 remote_poll_done *done, void *ctx)
{
	const struct perscom_collection *c = perscom_find_collection(collection);
	struct polling *poll = c ? calloc(1, sizeof(*poll)) : NULL;

	if (!poll)
		return c ? -ENOMEM : -EINVAL;
	poll->p = (struct perscom *)r;
	poll->done = done;
	poll->ctx = ctx;
	poll->c = c;
	poll->first = !parse_cursor(poll, cursor);
	if (poll->first)
		poll->number = 0;
	poll->records = poll->number % 3 == 1;
	struct call *call =
		perscom_search(poll->p, TRANSFER_REFRESH, poll->records ? c->name : "attachments",
			       "", 1, make_body(poll));
	call_set_scope(call, poll->records ? c->view_scope : "view:attachment");
	int error = call_start(call, poll_reply, poll);
	if (error < 0)
		free(poll);
	return error;
}
