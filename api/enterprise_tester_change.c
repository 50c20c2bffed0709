/* SPDX-License-Identifier: MIT */

/*
 * Deleting files (section 8) and changing fields of records (section 7): one call for each, side by
 * side. Both can be done twice without harm.
 */

#include "enterprise_tester.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/pool.h>

#include "json.h"

struct changes {
	struct et *p;
	enum transfer_class class;
	enum et_verb verb;
	remote_done *done;
	void *ctx;
	atomic_size_t pending; /* items not decided, and one for the starter */
};

struct change {
	struct changes *all;
	struct remote_change *item;
	const struct et_collection *c;
};

static void changes_end(void *ctx)
{
	struct changes *all = ctx;

	all->done(all->ctx, 0, "");
	free(all);
}

static void change_reply(void *ctx, const struct call_reply *reply)
{
	struct change *one = ctx;
	struct changes *all = one->all;
	char message[CALL_MESSAGE_MAX] = "";
	bool look;
	int error;

	et_note_reply(all->p, reply);
	enum remote_outcome outcome = et_judge(reply, all->verb, 1, 0, &error, &look);
	if (error == -EPERM && all->verb == ET_PATCH)
		atomic_fetch_or(&all->p->fixed_records, 1u << et_collection_index(one->c));
	if (error == -EPERM)
		snprintf(message, sizeof(message),
			 "this server cannot change %s (405): do it in Enterprise Tester, then "
			 "take it back here",
			 one->c->name);
	else if (outcome != REMOTE_DONE && outcome != REMOTE_GONE)
		snprintf(message, sizeof(message), "%s", reply->message);
	et_change_set(one->item, outcome, error, message);
	if (outcome == REMOTE_DONE && all->verb == ET_REMOVE)
		et_watch_touched(all->p, one->c, one->item->record,
				 reply->date_s > 0 ? reply->date_s * CLOCK_NS_PER_S
						   : REMOTE_TIME_NONE);
	free(one);
	if (atomic_fetch_sub(&all->pending, 1) == 1)
		changes_end(all);
}

static struct call *make_call(struct changes *all, const struct change *one)
{
	const struct remote_change *item = one->item;
	char path[ET_PATH_SIZE], template[ET_PATH_SIZE];
	struct call *call;

	if (all->verb == ET_REMOVE) {
		et_file_path(one->c, item->record, item->id, path);
		et_file_path(one->c, NULL, NULL, template);
		call = et_call(all->p, all->class, "DELETE", path, template);
	} else {
		et_owner_path(one->c, item->id, path);
		et_owner_path(one->c, NULL, template);
		call = et_call(all->p, all->class, "PATCH", path, template);
		call_set_json_take(call, et_record_body(one->c, item));
	}
	/* 200 without a body, or 204. */
	call_set_any_answer(call);
	call_set_idempotent(call, true);
	return call;
}

/* 1: there is nothing to send. */
static int send_change(struct changes *all, struct remote_change *item)
{
	struct change *one = malloc(sizeof(*one));

	if (!one)
		return -ENOMEM;
	*one = (struct change){all, item, et_find_collection(item->collection)};
	if (all->verb == ET_PATCH) {
		json_t *body = et_record_body(one->c, item);
		bool nothing = body && json_object_size(body) == 0;
		json_decref(body);
		if (nothing) {
			et_change_set(item, REMOTE_DONE, 0, "");
			free(one);
			return 1;
		}
	}
	int r = call_start(make_call(all, one), change_reply, one);
	if (r < 0)
		free(one);
	return r;
}

static int start(struct remote *r, enum transfer_class class, enum et_verb verb,
		 struct remote_change *items, size_t n, remote_done *done, void *ctx)
{
	struct changes *all = malloc(sizeof(*all));
	size_t over = 0, failed = 0;
	int error = 0;

	if (!all)
		return -ENOMEM;
	*all = (struct changes){
		.p = (struct et *)r, .class = class, .verb = verb, .done = done, .ctx = ctx};
	atomic_init(&all->pending, n + 1);
	for (size_t i = 0; i < n; i++) {
		et_change_reset(&items[i]);
		int e = send_change(all, &items[i]);
		over += e != 0;
		if (e < 0) {
			et_change_set(&items[i], REMOTE_RETRY, e, "not sent");
			error = e;
			failed++;
		}
	}
	if (failed == n && error < 0) {
		free(all);
		return error;
	}
	/* Those that were never sent and the starter's own: whoever comes last ends it, on the pool. */
	if (atomic_fetch_sub(&all->pending, over + 1) == over + 1 &&
	    pool_run(r->pool, changes_end, all) < 0)
		changes_end(all);
	return 0;
}

int et_remove(struct remote *r, enum transfer_class class, struct remote_change *items, size_t n,
	      remote_done *done, void *ctx)
{
	for (size_t i = 0; i < n; i++) {
		const struct et_collection *c = et_find_collection(items[i].collection);
		if (!c || !et_is_record(c, items[i].record) || !items[i].id ||
		    !json_is_uuid(items[i].id))
			return -EINVAL;
	}
	return start(r, class, ET_REMOVE, items, n, done, ctx);
}

int et_update_records(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx)
{
	for (size_t i = 0; i < n; i++) {
		const struct et_collection *c = et_find_collection(items[i].collection);
		if (!c || !et_is_record(c, items[i].id))
			return -EINVAL;
		if (!c->writable_record)
			return -EPERM;
		json_t *body = et_record_body(c, &items[i]);
		if (!body)
			return -EINVAL;
		json_decref(body);
	}
	return start(r, class, ET_PATCH, items, n, done, ctx);
}
