/* SPDX-License-Identifier: MIT */

/*
 * Has anything changed? One call (section 11 of the reference).
 *
 *	NEWEST  the row that changed last, with its attachments, and the count of all rows. Cheap,
 *	        but it sees an attachment that came or went only if that moves the record's
 *	        LastUpdatedAt, which is unknown.
 *	PAGES   where it is known not to: a page of a thousand records with their attachments, another
 *	        one at each poll, each compared with what it was when it was asked for last
 *	RUNS    for what hangs below runs, which one call cannot show: the newest run, and while it is
 *	        not proved that it moves with its attachments, "changed" at every tenth poll
 *
 * That attaching moves nothing is proved by a row of a listing that has an attachment younger than
 * itself; or after a write of ours, when the next poll finds no row that changed since. That it does
 * is proved by the row we wrote to being the newest then.
 *
 * The cursor is "1;<newest>", "2;<page>;<total>;<hash>,<hash>..." or "3;<polls>;<newest>", where
 * <newest> is "<total>|<id>|<LastUpdatedAt>|<VersionNumber>|<hash of attachments>".
 */

#include "enterprise_tester.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>
#include <attachfs/pool.h>

#include "json.h"

#define PAGES_MAX   64
#define NEWEST_MAX  160
#define RUN_POLLS   10
#define CURSOR_SIZE (64 + 17 * PAGES_MAX + NEWEST_MAX)

enum mode { MODE_NEWEST = 1, MODE_PAGES = 2, MODE_RUNS = 3 };

struct polling {
	struct et *p;
	const struct et_collection *c;
	remote_poll_done *done;
	void *ctx;
	enum mode mode;
	bool first;
	char touched[ET_GUID_SIZE]; /* what was changed by us before this poll began */
	int64_t touched_ns;

	unsigned long number; /* RUNS: polls so far; PAGES: the page of this one */
	int64_t total;	      /* PAGES */
	uint64_t hashes[PAGES_MAX];
	size_t n_hashes;
	char newest[NEWEST_MAX]; /* of the cursor */
};

void et_watch_rows(struct et *p, const struct et_collection *c, const json_t *rows)
{
	struct et_watch *watch = &p->watch[et_collection_index(c)];

	if (c->shape != ET_EXPANDED || et_judge_rows(rows) != ET_BUMPS_NOT)
		return;
	pthread_mutex_lock(&watch->lock);
	bool news = watch->bump != ET_BUMPS_NOT;
	watch->bump = ET_BUMPS_NOT;
	pthread_mutex_unlock(&watch->lock);
	if (news)
		log_info("enterprise-tester: %s: attaching does not change a record's date: polls "
			 "compare all of them",
			 c->name);
}

void et_watch_touched(struct et *p, const struct et_collection *c, const char *record,
		      int64_t since_ns)
{
	struct et_watch *watch = &p->watch[et_collection_index(c)];
	char run[ET_GUID_SIZE], node[ET_GUID_SIZE];

	if (since_ns == REMOTE_TIME_NONE)
		return;
	if (c->part && et_split_id(record, run, node))
		record = run;
	pthread_mutex_lock(&watch->lock);
	snprintf(watch->touched, sizeof(watch->touched), "%s", record);
	watch->touched_ns = since_ns;
	pthread_mutex_unlock(&watch->lock);
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
	/* FNV-1a, with the terminator */
	for (const char *p = text ? text : "";; p++) {
		hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
		if (*p == '\0')
			return hash;
	}
}

static uint64_t hash_files(uint64_t hash, const json_t *row)
{
	const json_t *files = json_get_array(row, "Attachments");

	for (size_t i = 0; i < json_array_size(files); i++)
		hash = hash_text(hash, json_get_text(json_array_get(files, i), "Id"));
	return hash_text(hash, json_is_true(json_object_get(row, "HasAttachments")) ? "+" : "");
}

static uint64_t hash_row(const struct polling *poll, uint64_t hash, const json_t *row)
{
	static const char *const keys[] = {"Id", "LastUpdatedAt"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		hash = hash_text(hash, json_get_text(row, keys[i]));
	hash = hash_text(hash, json_get_text(row, poll->c->name_field));
	hash = (hash ^ (uint64_t)json_get_integer(row, "VersionNumber", 0)) * 0x100000001b3;
	return hash_files(hash, row);
}

static void describe_newest(const json_t *root, char out[NEWEST_MAX])
{
	const json_t *row = json_array_get(et_rows(root), 0);
	const char *updated = json_get_text(row, "LastUpdatedAt");
	char id[ET_GUID_SIZE];

	et_get_guid(row, "Id", id);
	snprintf(out, NEWEST_MAX, "%lld|%s|%.40s|%lld|%016" PRIx64,
		 (long long)json_get_integer(root, "Total", -1), id, updated ? updated : "",
		 (long long)json_get_integer(row, "VersionNumber", -1),
		 hash_files(0xcbf29ce484222325, row));
	for (char *p = out; *p != '\0'; p++)
		if (*p == ';' || (unsigned char)*p < 0x20)
			*p = '_';
}

/* What our own last write tells. True: that this kind of poll is no good here. */
static bool learn(struct polling *poll, const json_t *root)
{
	struct et_watch *watch = &poll->p->watch[et_collection_index(poll->c)];
	enum et_bump bump = ET_BUMP_UNKNOWN;

	if (poll->touched[0] != '\0')
		bump = et_judge_newest(json_array_get(et_rows(root), 0), poll->touched,
				       poll->touched_ns);
	pthread_mutex_lock(&watch->lock);
	bool news = bump != ET_BUMP_UNKNOWN && watch->bump != bump && watch->bump != ET_BUMPS_NOT;
	if (news)
		watch->bump = bump;
	if (bump != ET_BUMP_UNKNOWN && watch->touched_ns == poll->touched_ns)
		watch->touched[0] = '\0';
	pthread_mutex_unlock(&watch->lock);
	if (news)
		log_info("enterprise-tester: %s: an attachment of ours %s", poll->c->name,
			 bump == ET_BUMPS ? "changed the date of its record"
					  : "did not change the date of its record: polls compare "
					    "all of them from now on");
	return news && bump == ET_BUMPS_NOT;
}

/* A page of all, compared with what it was. Fills in the rest of @cursor. */
static bool judge_page(struct polling *poll, const json_t *root, char cursor[CURSOR_SIZE])
{
	const json_t *rows = et_rows(root);
	int64_t total = json_get_integer(root, "Total", -1);
	uint64_t hash = 0xcbf29ce484222325;
	size_t pages = total > ET_PAGE ? (size_t)((total + ET_PAGE - 1) / ET_PAGE) : 1;
	bool changed = total != poll->total;

	for (size_t i = 0; i < json_array_size(rows); i++)
		hash = hash_row(poll, hash, json_array_get(rows, i));
	hash |= 1; /* 0 = not asked for yet */
	pages = pages < PAGES_MAX ? pages : PAGES_MAX;
	/* What was not compared before may have changed before. */
	changed |= poll->hashes[poll->number] != hash;
	poll->hashes[poll->number] = hash;
	int n = snprintf(cursor, CURSOR_SIZE, "2;%zu;%lld;", (poll->number + 1) % pages,
			 (long long)total);
	for (size_t i = 0; i < pages; i++)
		n += snprintf(cursor + n, CURSOR_SIZE - (size_t)n, "%" PRIx64 ",", poll->hashes[i]);
	return changed;
}

static bool judge_newest(struct polling *poll, const json_t *root, char cursor[CURSOR_SIZE])
{
	struct et_watch *watch = &poll->p->watch[et_collection_index(poll->c)];
	char newest[NEWEST_MAX];

	describe_newest(root, newest);
	bool changed = learn(poll, root);
	changed |= strcmp(newest, poll->newest) != 0;
	if (poll->mode == MODE_NEWEST) {
		snprintf(cursor, CURSOR_SIZE, "1;%s", newest);
		return changed;
	}
	pthread_mutex_lock(&watch->lock);
	bool proved = watch->bump == ET_BUMPS;
	pthread_mutex_unlock(&watch->lock);
	snprintf(cursor, CURSOR_SIZE, "3;%lu;%s", poll->number + 1, newest);
	return changed || (!proved && (poll->number + 1) % RUN_POLLS == 0);
}

static void poll_end(struct polling *poll, int error, bool changed, const char *cursor)
{
	poll->done(poll->ctx, error, error == 0 && (changed || poll->first), cursor);
	free(poll);
}

static void poll_reply(void *ctx, const struct call_reply *reply)
{
	struct polling *poll = ctx;
	char cursor[CURSOR_SIZE];
	bool changed = false;
	int error = reply->error;
	unsigned variant = atomic_load(&poll->p->orders[ET_TQL]);

	et_note_reply(poll->p, reply);
	/* An order the server does not take: the next poll tries the next one. */
	if (reply->status == 400 && variant + 1 < ET_ORDERS)
		atomic_compare_exchange_strong(&poll->p->orders[ET_TQL], &variant, variant + 1);
	if (error == 0 && !et_rows(reply->json))
		error = -EIO;
	if (error == 0)
		changed = poll->mode == MODE_PAGES ? judge_page(poll, reply->json, cursor)
						   : judge_newest(poll, reply->json, cursor);
	poll_end(poll, error, changed, error == 0 ? cursor : NULL);
}

static bool parse_pages(struct polling *poll, const char *text)
{
	char *end;

	poll->number = strtoul(text, &end, 10);
	if (*end != ';' || poll->number >= PAGES_MAX)
		return false;
	poll->total = strtoll(end + 1, &end, 10);
	if (*end != ';')
		return false;
	for (end++; *end != '\0' && poll->n_hashes < PAGES_MAX; end++) {
		poll->hashes[poll->n_hashes++] = strtoull(end, &end, 16);
		if (*end != ',')
			return false;
	}
	return true;
}

/* False: not one of ours, or of another way of polling: begin anew. */
static bool parse_cursor(struct polling *poll, const char *cursor)
{
	char *end;

	if (!cursor || cursor[0] != '0' + (int)poll->mode || cursor[1] != ';' ||
	    strlen(cursor) >= CURSOR_SIZE)
		return false;
	cursor += 2;
	if (poll->mode == MODE_PAGES)
		return parse_pages(poll, cursor);
	if (poll->mode == MODE_RUNS) {
		poll->number = strtoul(cursor, &end, 10);
		if (*end != ';')
			return false;
		cursor = end + 1;
	}
	snprintf(poll->newest, sizeof(poll->newest), "%s", cursor);
	return true;
}

/* What is known decides how to poll; and what an earlier mount learned stands in its cursor. */
static void choose_mode(struct polling *poll, const char *cursor)
{
	struct et_watch *watch = &poll->p->watch[et_collection_index(poll->c)];

	pthread_mutex_lock(&watch->lock);
	if (cursor && strncmp(cursor, "2;", 2) == 0)
		watch->bump = ET_BUMPS_NOT;
	poll->mode = poll->c->shape != ET_EXPANDED ? MODE_RUNS
		     : watch->bump == ET_BUMPS_NOT ? MODE_PAGES
						   : MODE_NEWEST;
	memcpy(poll->touched, watch->touched, sizeof(poll->touched));
	poll->touched_ns = watch->touched_ns;
	pthread_mutex_unlock(&watch->lock);
}

static char *make_path(const struct polling *poll)
{
	unsigned variant = atomic_load(&poll->p->orders[ET_TQL]);
	bool pages = poll->mode == MODE_PAGES;
	char *query = pages ? et_order_query(ET_TQL, poll->c->entity, variant)
			    : et_newest_query(poll->c->entity, variant);
	char *path = NULL;

	if (query &&
	    asprintf(&path, "%s?%s&$top=%d&$skip=%lu&$inlinecount=allpages%s", poll->c->set, query,
		     pages ? ET_PAGE : 1, pages ? poll->number * ET_PAGE : 0,
		     poll->c->shape == ET_EXPANDED ? "&$expand=Attachments" : "") < 0)
		path = NULL;
	free(query);
	return path;
}

/* Nobody but us knows of a set: nothing changes. */
static void end_unlisted(void *ctx)
{
	poll_end(ctx, 0, false, "0");
}

int et_poll(struct remote *r, const char *collection, const char *cursor, remote_poll_done *done,
	    void *ctx)
{
	const struct et_collection *c = et_find_collection(collection);
	struct polling *poll = c ? calloc(1, sizeof(*poll)) : NULL;
	int error;

	if (!poll)
		return c ? -ENOMEM : -EINVAL;
	poll->p = (struct et *)r;
	poll->c = c;
	poll->done = done;
	poll->ctx = ctx;
	poll->first = !cursor;
	if (c->shape == ET_UNLISTED) {
		error = pool_run(r->pool, end_unlisted, poll);
	} else {
		choose_mode(poll, cursor);
		poll->first = !parse_cursor(poll, cursor);
		if (poll->first)
			*poll = (struct polling){.p = poll->p,
						 .c = c,
						 .done = done,
						 .ctx = ctx,
						 .mode = poll->mode,
						 .first = true,
						 .total = -1};
		char *path = make_path(poll);
		struct call *call =
			path ? et_call(poll->p, TRANSFER_REFRESH, "GET", path, c->set) : NULL;
		call_set_idempotent(call, true);
		free(path);
		error = call_start(call, poll_reply, poll);
	}
	if (error < 0)
		free(poll);
	return error;
}
