/* SPDX-License-Identifier: MIT */

/*
 * Has anything changed? One search for one row, newest first, and the count of all (section 11 of
 * the reference), for all collections that are polled at a time:
 *
 *	attachments   of all these collections: added, removed (the total; or the newest id, when both
 *	              happened), renamed, moved, replaced: their updated_at. When it is another one than
 *	              before, each collection is asked by itself whether it was there. Not seen: a
 *	              change by a client that sets updated_at back into the past.
 *
 *	records       added, removed, renamed; of users not renamed, for a user's updated_at
 *	              follows his visits. Asked for in every third poll instead of the
 *	              attachments, of one collection after the other, to stay within one call.
 *
 * An answer serves each collection once, for two seconds; who comes while a call is on its way
 * waits for it.
 *
 * The cursor is "2;<all>;<newest attachment>;<newest record>", <all> being "<collections>:<newest
 * attachment of these>", in hexadecimal perscom_collection_bit()s. What was not asked yet is
 * "?<seconds>": when the first poll was.
 */

#include "perscom.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/pool.h>

#include "json.h"

#define HALF_MAX       PERSCOM_HALF_MAX
#define CURSOR_MAX     (3 * HALF_MAX + 64)
#define LEARN_MARGIN_S 120
#define SHARED_MS      2000
#define RECORDS_EVERY  3

struct perscom_polling {
	struct perscom_polling *next; /* glance_lock */
	struct perscom *p;
	remote_poll_done *done;
	void *ctx;
	bool first;
	char all[HALF_MAX], attachments[HALF_MAX], records[HALF_MAX]; /* of the cursor */
	const struct perscom_collection *c;
	struct perscom_glance seen; /* what serves it */
};

/* "updated_at|id|path|total" of the newest row; "" without memory or sense. */
static void describe_newest(const struct perscom_collection *records, const json_t *root,
			    char out[HALF_MAX])
{
	const json_t *row = json_array_get(json_get_array(root, "data"), 0);
	const char *updated = json_get_text(row, "updated_at");
	const char *path = json_get_text(row, "path");
	char id[REMOTE_ID_MAX + 1] = "";

	json_get_id(row, "id", id);
	if (records && strcmp(records->name, "users") == 0)
		updated = NULL;
	snprintf(out, HALF_MAX, "%.40s|%s|%.64s|%lld", updated ? updated : "", id, path ? path : "",
		 (long long)json_get_integer(json_get_object(root, "meta"), "total", -1));
	for (char *p = out; *p != '\0'; p++)
		if (*p == ';' || (unsigned char)*p < 0x20)
			*p = '_';
}

/*
 * Deletions that nobody has verified (P-13): rows that were kept all look as they did before, so
 * that nothing but a listing finds them. Once, for this collection.
 */
static bool doubts_deletions(const struct perscom_polling *poll)
{
	unsigned bit = perscom_collection_bit(poll->c);

	return atomic_fetch_and(&poll->p->unproved, ~bit) & bit;
}

static void poll_end(struct perscom_polling *poll, int error, bool changed)
{
	char cursor[CURSOR_MAX];

	snprintf(cursor, sizeof(cursor), "2;%s;%s;%s", poll->all, poll->attachments, poll->records);
	poll->done(poll->ctx, error, !error && changed, error ? NULL : cursor);
	free(poll);
}

static int reply_error(struct perscom *p, const struct call_reply *reply)
{
	perscom_note_reply(p, reply);
	return reply->error ? reply->error : json_get_array(reply->json, "data") ? 0 : -EIO;
}

/* ---- one collection by itself ---- */

static void own_reply(void *ctx, const struct call_reply *reply)
{
	struct perscom_polling *poll = ctx;
	int error = reply_error(poll->p, reply);
	char newest[HALF_MAX];
	bool changed;

	if (error < 0) {
		poll_end(poll, error, false);
		return;
	}
	describe_newest(NULL, reply->json, newest);
	changed = poll->first || strcmp(poll->attachments, newest) != 0 || doubts_deletions(poll);
	strcpy(poll->attachments, newest);
	poll_end(poll, 0, changed);
}

static void ask_own(struct perscom_polling *poll)
{
	int error;
	struct call *call = perscom_search(poll->p, TRANSFER_REFRESH, "attachments", "", 1,
					   perscom_body_newest(poll->c->model_type));

	call_set_scope(call, "view:attachment");
	error = call_start(call, own_reply, poll);
	if (error < 0)
		poll_end(poll, error, false);
}

/* ---- what all are told ---- */

/*
 * A half that is learnt now: has it changed since the first poll, as far as its newest row's time
 * tells?
 */
static bool is_newer(const struct perscom_glance *g, const char *since)
{
	return g->newest_ns != REMOTE_TIME_NONE &&
	       g->newest_ns / CLOCK_NS_PER_S >= strtoll(since, NULL, 10) - LEARN_MARGIN_S;
}

static void take_records(struct perscom_polling *poll, const struct perscom_glance *g)
{
	bool changed = false;

	if (g->records == poll->c) {
		changed = poll->records[0] == '?' ? is_newer(g, poll->records + 1)
						  : strcmp(poll->records, g->newest) != 0;
		strcpy(poll->records, g->newest);
	}
	poll_end(poll, 0, changed);
}

static void take_attachments(struct perscom_polling *poll, const struct perscom_glance *g)
{
	bool alone = !(g->asked & (g->asked - 1)), same;
	char all[2 * HALF_MAX];

	snprintf(all, sizeof(all), "%x:%s", g->asked, g->newest);
	all[HALF_MAX - 1] = '\0';
	same = !poll->first && !g->blind && strcmp(all, poll->all) == 0;
	strcpy(poll->all, all);
	if (poll->first)
		snprintf(poll->records, HALF_MAX, "?%lld", (long long)g->date_s);
	if (same) {
		poll_end(poll, 0, doubts_deletions(poll));
	} else if (alone) {
		strcpy(poll->attachments, g->newest);
		poll_end(poll, 0, true);
	} else {
		ask_own(poll);
	}
}

static void take(struct perscom_polling *poll)
{
	const struct perscom_glance *g = &poll->seen;

	/* a server that does not know how to look for several at once: each by itself */
	if (g->error == -EINVAL && !g->records)
		ask_own(poll);
	else if (g->error < 0)
		poll_end(poll, g->error, false);
	else if (g->records)
		take_records(poll, g);
	else
		take_attachments(poll, g);
}

/* ---- the call for all ---- */

static void glance_over(struct perscom *p, int error)
{
	struct perscom_glance *g = &p->glance, copy;
	struct perscom_polling *waiting, *next;

	pthread_mutex_lock(&p->glance_lock);
	g->error = error;
	g->running = false;
	g->at_ms = clock_mono_ms();
	waiting = g->waiting;
	g->waiting = NULL;
	copy = *g;
	pthread_mutex_unlock(&p->glance_lock);
	for (; waiting; waiting = next) {
		next = waiting->next;
		waiting->seen = copy;
		take(waiting);
	}
}

static void glance_reply(void *ctx, const struct call_reply *reply)
{
	struct perscom *p = ctx;
	struct perscom_glance *g = &p->glance;
	int error = reply_error(p, reply);
	const json_t *row = json_array_get(json_get_array(reply->json, "data"), 0);

	pthread_mutex_lock(&p->glance_lock);
	if (error == 0) {
		bool users = g->records && strcmp(g->records->name, "users") == 0;

		describe_newest(g->records, reply->json, g->newest);
		g->newest_ns = json_get_time(row, users ? "created_at" : "updated_at");
		g->date_s = reply->date_s > 0 ? reply->date_s : clock_real_ns() / CLOCK_NS_PER_S;
		g->blind = !g->records && g->newest_ns != REMOTE_TIME_NONE &&
			   g->newest_ns / CLOCK_NS_PER_S > g->date_s + LEARN_MARGIN_S;
	}
	pthread_mutex_unlock(&p->glance_lock);
	glance_over(p, error);
}

/* The collection behind @after of those that are polled. */
static const struct perscom_collection *next_records(const struct perscom_glance *g,
						     const struct perscom_collection *after)
{
	const struct perscom_collection *c, *first = NULL;
	bool behind = after == NULL;

	for (size_t i = 0; (c = perscom_collection_at(i)); i++) {
		bool polled = g->collections & perscom_collection_bit(c);

		if (polled && behind)
			return c;
		if (polled && !first)
			first = c;
		behind |= c == after;
	}
	return first;
}

static struct call *glance_call(struct perscom *p, const struct perscom_glance *g)
{
	struct call *call;
	json_t *body;

	if (!g->records) {
		call = perscom_search(p, TRANSFER_REFRESH, "attachments", "", 1,
				      perscom_body_newest_of(g->asked));
		call_set_scope(call, "view:attachment");
		return call;
	}
	body = strcmp(g->records->name, "users") == 0
		       ? json_pack("{s:[{s:s, s:s}]}", "sort", "field", "id", "direction", "desc")
		       : perscom_body_newest(NULL);
	call = perscom_search(p, TRANSFER_REFRESH, g->records->name, "", 1, body);
	call_set_scope(call, g->records->view_scope);
	return call;
}

/*
 * What the next call asks for. Records only when all who are polled can take no news of their
 * attachments; who is polled for the first time cannot.
 */
static void begin_glance_locked(struct perscom_glance *g, bool first)
{
	bool records = !first && g->turn % RECORDS_EVERY == 1;

	if (records)
		g->last_records = next_records(g, g->last_records);
	g->records = records ? g->last_records : NULL;
	g->turn += !first || g->turn == 0;
	g->asked = g->collections;
	g->given = 0;
	g->running = true;
}

/* Whether the last answer is one for @poll. */
static bool serves_locked(const struct perscom_glance *g, const struct perscom_polling *poll)
{
	unsigned bit = perscom_collection_bit(poll->c);

	return g->turn && !g->running && !g->error && !(g->given & bit) &&
	       clock_mono_ms() - g->at_ms < SHARED_MS &&
	       (g->records ? !poll->first : (g->asked & bit) != 0);
}

static void take_job(void *ctx)
{
	take(ctx);
}

static void ask_all(struct perscom_polling *poll)
{
	struct perscom *p = poll->p;
	struct perscom_glance *g = &p->glance, copy;
	unsigned bit = perscom_collection_bit(poll->c);
	bool served, start = false, alone;

	pthread_mutex_lock(&p->glance_lock);
	g->collections |= bit;
	served = serves_locked(g, poll);
	if (!served && !g->running) {
		begin_glance_locked(g, poll->first);
		start = true;
	}
	/* the call on its way is not for it */
	alone = !served && !start && (g->records ? poll->first : !(g->asked & bit));
	g->given |= alone ? 0 : bit;
	if (!served && !alone) {
		poll->next = g->waiting;
		g->waiting = poll;
	}
	copy = *g;
	pthread_mutex_unlock(&p->glance_lock);
	if (served) {
		poll->seen = copy;
		if (pool_run(p->base.pool, take_job, poll) < 0)
			take(poll);
	} else if (alone) {
		ask_own(poll);
	} else if (start) {
		int error = call_start(glance_call(p, &copy), glance_reply, p);

		if (error < 0)
			glance_over(p, error);
	}
}

/* False: not one of ours, or none: begin anew. */
static bool parse_cursor(struct perscom_polling *poll, const char *cursor)
{
	char *const halves[] = {poll->all, poll->attachments, poll->records};

	if (!cursor || strncmp(cursor, "2;", 2) != 0)
		return false;
	cursor += 2;
	for (size_t i = 0; i < 3; i++) {
		size_t len = strcspn(cursor, ";");

		if (len >= HALF_MAX || (cursor[len] == ';') != (i < 2))
			return false;
		memcpy(halves[i], cursor, len);
		halves[i][len] = '\0';
		cursor += len + 1;
	}
	return true;
}

int perscom_poll(struct remote *r, const char *collection, const char *cursor,
		 remote_poll_done *done, void *ctx)
{
	const struct perscom_collection *c = perscom_find_collection(collection);
	struct perscom_polling *poll = c ? calloc(1, sizeof(*poll)) : NULL;

	if (!poll)
		return c ? -ENOMEM : -EINVAL;
	poll->p = (struct perscom *)r;
	poll->done = done;
	poll->ctx = ctx;
	poll->c = c;
	poll->first = !parse_cursor(poll, cursor);
	if (poll->first)
		snprintf(poll->records, HALF_MAX, "?%lld",
			 (long long)(clock_real_ns() / CLOCK_NS_PER_S));
	ask_all(poll);
	return 0;
}
