/* SPDX-License-Identifier: MIT */

/*
 * One struct watch per directory whose listing is one call of the remote: the root where the server
 * tells the collections, a collection, and a record where it does not list the records. A watch is
 * made when somebody first looks there and lives as long as the lister, so that answers always find
 * it; its node may be gone by then.
 *
 * What must be sent is decided under tree->lock and sent without it: the decision is a flag on the
 * watch, or on the node whose size is wanted, and lister_kick() turns flags into calls of the remote.
 */

#include "lister.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "lister_private.h"
#include "mount.h"

/* A record looked into within this time is kept fresh. */
#define USED_LATELY_MS (10 * 60 * 1000)
/* After a listing: how often, and how long nobody must have used the mount for all but the first. */
#define ROOT_EVERY    10 /* polls: that a collection comes or goes is rare */
#define TRIMS	      4
#define TRIM_QUIET_MS 1000

int lister_new(struct mount *m, struct lister **ret_lister)
{
	struct lister *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->m = m;
	l->trims = TRIMS; /* of what the ledger was read with */
	l->all_collections = !m->options->collections && !m->remote->caps.default_collections;
	*ret_lister = l;
	return 0;
}

static void watch_free(struct watch *w)
{
	free(w->id);
	free(w->record);
	free(w->cursor);
	free(w->next_cursor);
	free(w);
}

void lister_free(struct lister *l)
{
	if (!l)
		return;
	while (l->watches) {
		struct watch *next = l->watches->next;

		watch_free(l->watches);
		l->watches = next;
	}
	lister_forget_probes(l);
	free(l);
}

struct watch *lister_first_watch(struct lister *l)
{
	struct watch *w;

	tree_lock(l->m->tree);
	w = l->watches;
	tree_unlock(l->m->tree);
	return w;
}

/* The directory whose listing shows what is in @dir; NULL = what is known is all there is. */
struct node *lister_target_of_locked(struct lister *l, struct node *dir)
{
	struct node *top = node_collection(dir);

	if (dir->kind == NODE_ROOT)
		return l->m->remote->ops->list_collections ? dir : NULL;
	if (!tree_is_unlisted(l->m->tree, top))
		return top;
	return dir->kind == NODE_RECORD ? dir : NULL;
}

/* tree->lock held. NULL without memory. */
struct watch *lister_watch_of_locked(struct lister *l, struct node *target)
{
	const struct node *top = node_collection(target);
	struct watch *w = node_dir(target)->watch;

	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->lister = l;
	w->kind = target->kind == NODE_ROOT	    ? WATCH_ROOT
		  : target->kind == NODE_COLLECTION ? WATCH_COLLECTION
						    : WATCH_RECORD;
	w->node = target->id;
	w->id = strdup(top ? node_collection_id(top) : "");
	w->record = w->kind == WATCH_RECORD ? strdup(node_rid(target)) : NULL;
	if (!w->id || (w->kind == WATCH_RECORD && !w->record)) {
		watch_free(w);
		return NULL;
	}
	w->next = l->watches;
	node_own_dir(target)->watch = l->watches = w;
	return w;
}

/* What it lists; NULL = gone. tree->lock held. */
struct node *lister_watched_locked(const struct watch *w)
{
	struct node *n = tree_find_locked(w->lister->m->tree, w->node);

	return n && !n->gone && (n->parent || n->kind == NODE_ROOT) ? n : NULL;
}

/* ---- listing ---- */

/*
 * How long after one poll the next is due. In a mount that nobody uses they are rare; whoever comes
 * back to it makes one due.
 */
static int64_t poll_ms(const struct lister *l, int64_t now)
{
	double poll_s = l->m->options->poll_s, idle_s = l->m->options->poll_idle_s;
	double unused_s = (double)(now - atomic_load(&l->m->used_ms)) / 1000;

	if (poll_s <= 0)
		return INT64_MAX;
	return (int64_t)(1000 * (idle_s > poll_s && unused_s >= idle_s ? idle_s : poll_s));
}

/* The node of its collection; 0 = gone. */
static uint64_t page_collection(const struct watch *w)
{
	struct tree *t = w->lister->m->tree;
	const struct node *top;

	tree_lock(t);
	top = node_collection(tree_find_locked(t, w->node));
	tree_unlock(t);
	return top ? top->id : 0;
}

static bool on_page(void *ctx, struct remote_record *records, size_t n_records,
		    struct remote_file *files, size_t n_files)
{
	struct watch *w = ctx;

	uint64_t top = page_collection(w);
	int r = tree_listing_page(w->lister->m->tree, w->mark, top, records,
				  w->kind == WATCH_RECORD ? 0 : n_records, files, n_files);

	calls_wake(w->lister->m->calls, CALL_WAIT_PAGE, w->node, 0);
	return r == 0;
}

/* The tree is as new as the poll that asked for this listing. tree->lock held. */
static void take_cursor_locked(struct watch *w)
{
	char key[300];

	if (!w->next_cursor)
		return;
	free(w->cursor);
	w->cursor = w->next_cursor;
	w->next_cursor = NULL;
	snprintf(key, sizeof(key), "cursor %s", w->id);
	ledger_put_value(w->lister->m->ledger, key, w->cursor, strlen(w->cursor));
}

/* What was listed, for a person. */
static const char *watch_words(const struct watch *w)
{
	return w->kind == WATCH_ROOT ? "collections" : w->kind == WATCH_RECORD ? w->record : w->id;
}

/* The answer is applied to the tree: tell those who wait. */
static void listing_over(struct watch *w, int error, const char *message)
{
	struct mount *m = w->lister->m;
	struct node *target;
	struct refreshing *refreshes, *late;
	bool again, vanished = error == -ENOENT && w->kind == WATCH_RECORD;

	tree_lock(m->tree);
	target = lister_watched_locked(w);
	if (vanished)
		log_info("list %s: gone from the server", watch_words(w));
	/* that the server is not reachable is said once, elsewhere */
	else if (error && !(w->validated && error == -EHOSTDOWN))
		log_warning("list %s: %s%s%s", watch_words(w), strerror(-error),
			    message && *message ? ": " : "", message ? message : "");
	w->validated = true;
	if (!error)
		take_cursor_locked(w);
	again = w->again && !error && target;
	w->again = false;
	w->listing = again;
	if (error && target && !target->listed)
		w->validated = false; /* nothing to show: the next look tries again */
	w->asked_ms = clock_mono_ms();
	refreshes = w->refreshes;
	late = again ? NULL : w->refreshes_next;
	w->refreshes = again ? w->refreshes_next : NULL;
	w->refreshes_next = NULL;
	if (w->kind == WATCH_COLLECTION)
		w->lister->trims = TRIMS;
	tree_unlock(m->tree);
	calls_wake(m->calls, CALL_WAIT_LISTING, w->node, error);
	calls_wake(m->calls, CALL_WAIT_PAGE, w->node, error);
	/* that a record is gone is what was to be found out */
	lister_refreshes_done(refreshes, vanished ? 0 : error);
	lister_refreshes_done(late, vanished ? 0 : error);
	if (again)
		lister_start_listing(w, TRANSFER_REFRESH);
}

static void on_listed(void *ctx, int error, const char *message)
{
	struct watch *w = ctx;
	struct tree *t = w->lister->m->tree;

	if (!error && w->kind == WATCH_COLLECTION)
		tree_listing_end(t, w->mark, w->node, 0);
	else if (!error)
		tree_listing_end(t, w->mark, page_collection(w), w->node);
	if (error == -ENOENT && w->kind == WATCH_RECORD)
		tree_record_vanished(t, w->mark, w->node);
	listing_over(w, error, message);
}

static void on_collections(void *ctx, int error, const struct remote_collection *list, size_t n,
			   const char *message)
{
	struct watch *w = ctx;

	if (!error)
		error = tree_collections_listed(w->lister->m->tree, list, n,
						w->lister->all_collections);
	listing_over(w, error, message);
}

void lister_start_listing(struct watch *w, enum transfer_class class)
{
	struct remote *remote = w->lister->m->remote;
	const struct remote_ops *ops = remote->ops;
	struct remote_sink sink = {on_page, on_listed, w};
	int r = -EIO;

	uint64_t mark = tree_listing_begin(w->lister->m->tree);

	tree_lock(w->lister->m->tree);
	w->mark = mark;
	tree_unlock(w->lister->m->tree);
	switch (w->kind) {
	case WATCH_ROOT:
		r = ops->list_collections(remote, class, on_collections, w);
		break;
	case WATCH_COLLECTION:
		r = ops->list_tree(remote, class, w->id, &sink);
		break;
	case WATCH_RECORD:
		r = ops->list_record(remote, class, w->id, w->record, &sink);
		break;
	}
	if (r < 0)
		listing_over(w, r, NULL);
}

/* @wait: what to park for where nothing is known yet. */
static bool need_locked(struct lister *l, struct call *c, struct node *dir, enum call_wait wait,
			int *ret_error)
{
	struct node *target = lister_target_of_locked(l, dir);
	struct watch *w;
	int64_t waited_ms;

	*ret_error = 0;
	if (!target)
		return true;
	w = lister_watch_of_locked(l, target);
	if (!w) {
		*ret_error = -ENOMEM;
		return false;
	}
	w->used_ms = clock_mono_ms();
	if (w->validated)
		return true;
	if (c->error == -EINTR || c->error == -ECANCELED || (c->error && !target->listed)) {
		/* the directory is there; programs take ENOENT for the end of an empty one */
		*ret_error = c->error == -ENOENT && target->kind != NODE_RECORD ? -EIO : c->error;
		return false;
	}
	if (!w->listing)
		w->listing = w->wanted = true;
	if (!w->began_ms)
		w->began_ms = clock_mono_ms();
	waited_ms = clock_mono_ms() - w->began_ms;
	/* waited for long enough: what the ledger knows is shown until the listing comes */
	if (target->listed && (c->error || waited_ms >= LISTER_PATIENCE_MS)) {
		l->kick = true;
		return true;
	}
	if (target->listed)
		call_park_soft(c, CALL_WAIT_LISTING, target->id, LISTER_PATIENCE_MS - waited_ms);
	else
		call_park(c, wait, target->id);
	return false;
}

bool lister_need_locked(struct lister *l, struct call *c, struct node *dir, int *ret_error)
{
	return need_locked(l, c, dir, CALL_WAIT_LISTING, ret_error);
}

bool lister_need_some_locked(struct lister *l, struct call *c, struct node *dir, uint64_t *ret_mark,
			     int *ret_error)
{
	const struct node *target = lister_target_of_locked(l, dir);
	const struct watch *w = target ? node_dir(target)->watch : NULL;

	*ret_mark = 0;
	*ret_error = 0;
	/* begun, and nothing else to show */
	if (w && w->listing && !w->wanted && !w->validated && !target->listed && !c->error &&
	    w->mark) {
		*ret_mark = w->mark;
		return true;
	}
	return need_locked(l, c, dir, CALL_WAIT_PAGE, ret_error);
}

void lister_await_more_locked(struct lister *l, struct call *c, struct node *dir)
{
	call_park(c, CALL_WAIT_PAGE, lister_target_of_locked(l, dir)->id);
}

void lister_again_locked(struct lister *l, struct node *collection)
{
	struct node *target = l ? lister_target_of_locked(l, collection) : NULL;
	struct watch *w = target ? node_dir(target)->watch : NULL;

	if (!w || !w->validated)
		return; /* whoever looks first lists it */
	if (w->listing)
		w->again = true;
	else
		w->listing = w->wanted = l->kick = true;
}

void lister_made_locked(struct lister *l, struct node *record)
{
	struct watch *w = lister_watch_of_locked(l, record);

	record->listed = true;
	node_own_dir(record)->listed_ns = clock_real_ns();
	if (!w)
		return;
	w->validated = true;
	w->used_ms = w->asked_ms = clock_mono_ms();
}

/* ---- polling ---- */

static void on_polled(void *ctx, int error, bool changed, const char *cursor)
{
	struct watch *w = ctx;
	struct mount *m = w->lister->m;
	bool list = false;

	tree_lock(m->tree);
	w->polling = false;
	if (!error && cursor)
		node_set_string(&w->next_cursor, cursor);
	if (!error && !changed)
		take_cursor_locked(w);
	if (!error && changed) {
		if (w->listing)
			w->again = true;
		else
			w->listing = list = true;
	}
	w->asked_ms = clock_mono_ms();
	tree_unlock(m->tree);
	if (list)
		lister_start_listing(w, TRANSFER_REFRESH);
}

/* Asks the ledger once, and not under a lock. */
static void read_cursor(struct watch *w)
{
	struct mount *m = w->lister->m;
	char key[300], *cursor;
	bool known;

	tree_lock(m->tree);
	known = w->cursor_read;
	tree_unlock(m->tree);
	if (known)
		return;
	snprintf(key, sizeof(key), "cursor %s", w->id);
	cursor = ledger_get_value(m->ledger, key, NULL);
	tree_lock(m->tree);
	if (!w->cursor_read) {
		w->cursor_read = true;
		w->cursor = cursor;
		cursor = NULL;
	}
	tree_unlock(m->tree);
	free(cursor);
}

static void start_poll(struct watch *w)
{
	struct mount *m = w->lister->m;
	char *cursor;
	int r;

	read_cursor(w);
	tree_lock(m->tree);
	cursor = w->cursor ? strdup(w->cursor) : NULL;
	tree_unlock(m->tree);
	r = m->remote->ops->poll(m->remote, w->id, cursor, on_polled, w);
	free(cursor);
	if (r < 0)
		on_polled(w, r, false, NULL);
}

enum due { DUE_NOT, DUE_POLL, DUE_LIST };

/*
 * Collections are asked whether something changed; where one call tells all, it is made. Of records
 * one by one only those somebody cares for: the others are listed when somebody does again.
 */
static enum due due_locked(struct watch *w, int64_t now, bool together)
{
	int64_t after_ms = poll_ms(w->lister, now);

	if (together && w->kind == WATCH_COLLECTION)
		after_ms /= 2;
	if (w->kind == WATCH_ROOT && after_ms < INT64_MAX)
		after_ms *= ROOT_EVERY;
	if (!lister_watched_locked(w) || !w->validated || w->listing || w->polling ||
	    now - w->asked_ms < after_ms)
		return DUE_NOT;
	if (w->kind == WATCH_COLLECTION) {
		w->polling = w->lister->m->remote->ops->poll != NULL;
		return w->polling ? DUE_POLL : DUE_NOT;
	}
	if (w->kind == WATCH_RECORD && now - w->used_ms > USED_LATELY_MS) {
		w->validated = false;
		w->began_ms = 0;
		return DUE_NOT;
	}
	w->listing = true;
	return DUE_LIST;
}

/*
 * A page may be some hundred MiB as JSON, and what it was made of lies between what it left; so do
 * the rows on their way to the ledger, and what is read of a directory. What can go back goes at
 * once, and again when the mount is quiet.
 */
static bool trim_due_locked(struct lister *l, int64_t now)
{
	bool first = l->trims == TRIMS;

	if (!l->trims || (!first && (now - atomic_load(&l->m->used_ms) < TRIM_QUIET_MS ||
				     now - l->trimmed_ms < TRIM_QUIET_MS)))
		return false;
	l->trims--;
	l->trimmed_ms = now;
	return true;
}

static void trim_job(void *ctx)
{
	(void)ctx;
	malloc_trim(0);
}

/*
 * Those whose time has come; @together: and collections that are half way there, for a system may
 * look at all with one call. Whether a collection was polled.
 */
static bool start_due(struct lister *l, int64_t now, bool together)
{
	bool polled = false;

	for (struct watch *w = lister_first_watch(l); w; w = w->next) {
		enum due due;

		tree_lock(l->m->tree);
		due = due_locked(w, now, together);
		tree_unlock(l->m->tree);
		if (due == DUE_POLL)
			start_poll(w);
		else if (due == DUE_LIST)
			lister_start_listing(w, TRANSFER_REFRESH);
		polled |= due == DUE_POLL;
	}
	return polled;
}

void lister_tick(struct lister *l)
{
	int64_t now = clock_mono_ms();
	bool kick, trim;

	tree_lock(l->m->tree);
	kick = l->kick;
	l->kick = false;
	trim = trim_due_locked(l, now);
	tree_unlock(l->m->tree);
	if (kick)
		lister_kick(l);
	if (trim)
		pool_run(l->m->disk_pool, trim_job, NULL);

	if (start_due(l, now, false))
		start_due(l, now, true);
}

void lister_kick(struct lister *l)
{
	for (struct watch *w = lister_first_watch(l); w; w = w->next) {
		bool start;

		tree_lock(l->m->tree);
		start = w->wanted;
		w->wanted = false;
		tree_unlock(l->m->tree);
		if (start)
			lister_start_listing(w, TRANSFER_INTERACTIVE);
	}
	lister_send_probes(l);
}
