/* SPDX-License-Identifier: MIT */

/*
 * Asked for: what the server has now, of all or of one place. Whoever asks waits for a listing that
 * began after he did. Where records are listed with their collection, one of them alone is asked for
 * here.
 */

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#include "lister_private.h"

struct refresh {
	void (*done)(void *ctx, int error);
	void *ctx;
	_Atomic unsigned left;
	_Atomic int error;
};

/* One watch's part in a refresh. */
struct refreshing {
	struct refreshing *next;
	struct refresh *refresh;
};

static void refresh_part_done(struct refresh *f, int error)
{
	if (error)
		f->error = error;
	if (atomic_fetch_sub(&f->left, 1) > 1)
		return;
	f->done(f->ctx, f->error);
	free(f);
}

void lister_refreshes_done(struct refreshing *r, int error)
{
	while (r) {
		struct refreshing *next = r->next;

		refresh_part_done(r->refresh, error);
		free(r);
		r = next;
	}
}

/* Collections that options or the system name are listed whether somebody looked or not. */
static void watch_all_locked(struct lister *l)
{
	struct node *target = lister_target_of_locked(l, l->m->tree->root);

	if (target)
		lister_watch_of_locked(l, target);
	for (struct node *n = node_dir(l->m->tree->root)->child_first; n; n = n->sibling_next) {
		target = lister_target_of_locked(l, n);
		if (target && (!l->all_collections || n->listed))
			lister_watch_of_locked(l, target);
	}
}

/*
 * A listing under way may show what was there before the refresh was asked for: one more follows
 * it. True: its listing is to be started.
 */
static bool refreshes_locked(struct watch *w, struct refresh *f)
{
	struct refreshing *r = lister_watched_locked(w) ? malloc(sizeof(*r)) : NULL;
	struct refreshing **list = w->listing ? &w->refreshes_next : &w->refreshes;
	bool start = r && !w->listing;

	if (!r)
		return false;
	*r = (struct refreshing){.next = *list, .refresh = f};
	*list = r;
	f->left++;
	if (start)
		w->listing = true;
	else
		w->again = true;
	return start;
}

/* ---- one record of a collection ---- */

struct glance {
	struct lister *l;
	struct refresh *refresh;
	uint64_t collection, record; /* nodes */
	uint64_t mark;
};

/* Of the record itself the page tells nothing that is sure to be all. */
static bool on_page(void *ctx, struct remote_record *records, size_t n_records,
		    struct remote_file *files, size_t n_files)
{
	const struct glance *g = ctx;

	(void)n_records;
	return tree_listing_page(g->l->m->tree, g->mark, g->collection, records, 0, files,
				 n_files) == 0;
}

static void on_listed(void *ctx, int error, const char *message)
{
	struct glance *g = ctx;
	bool vanished = error == -ENOENT;

	if (!error)
		tree_listing_end(g->l->m->tree, g->mark, g->collection, g->record);
	else if (vanished)
		tree_record_vanished(g->l->m->tree, g->mark, g->record);
	else
		log_warning("refresh: %s%s%s", strerror(-error), message && *message ? ": " : "",
			    message ? message : "");
	refresh_part_done(g->refresh, vanished ? 0 : error);
	free(g);
}

static void look_at(struct lister *l, struct refresh *f, struct glance *g, const char *collection,
		    const char *record)
{
	struct remote *r = l->m->remote;
	struct remote_sink sink = {on_page, on_listed, g};
	int error = -ENOMEM;

	if (g && collection && record) {
		g->mark = tree_listing_begin(l->m->tree);
		error = r->ops->list_record(r, TRANSFER_INTERACTIVE, collection, record, &sink);
	}
	if (error == 0)
		return;
	free(g);
	refresh_part_done(f, error);
}

/* ---- what was asked for ---- */

static void refresh_watch(struct watch *w, struct refresh *f)
{
	struct tree *t = w->lister->m->tree;
	bool start;

	tree_lock(t);
	start = refreshes_locked(w, f);
	tree_unlock(t);
	if (start)
		lister_start_listing(w, TRANSFER_INTERACTIVE);
}

static void refresh_all(struct lister *l, struct refresh *f)
{
	tree_lock(l->m->tree);
	watch_all_locked(l);
	tree_unlock(l->m->tree);
	for (struct watch *w = lister_first_watch(l); w; w = w->next)
		refresh_watch(w, f);
}

/* @dir, or the directory of the file it is. */
static void refresh_one(struct lister *l, struct refresh *f, uint64_t node)
{
	struct tree *t = l->m->tree;
	char *collection = NULL, *record = NULL;
	struct glance *g = NULL;
	struct node *dir, *target;
	struct watch *w = NULL;
	bool alone = false;

	tree_lock(t);
	dir = tree_find_locked(t, node);
	dir = dir && dir->kind == NODE_FILE ? dir->parent : dir;
	target = dir ? lister_target_of_locked(l, dir) : NULL;
	w = target ? lister_watch_of_locked(l, target) : NULL;
	/* a listing of all that is under way could bring back what is found to be gone */
	if (w && target != dir && dir->kind == NODE_RECORD && !w->listing) {
		alone = true;
		f->left++;
		g = malloc(sizeof(*g));
		if (g)
			*g = (struct glance){l, f, target->id, dir->id, 0};
		collection = strdup(node_collection_id(target));
		record = strdup(node_rid(dir));
	}
	tree_unlock(t);
	if (alone)
		look_at(l, f, g, collection, record);
	else if (w)
		refresh_watch(w, f);
	else if (target || !dir)
		atomic_store(&f->error, dir ? -ENOMEM : -ENOENT);
	free(collection);
	free(record);
}

void lister_refresh(struct lister *l, uint64_t node, void (*done)(void *ctx, int error), void *ctx)
{
	struct refresh *f = calloc(1, sizeof(*f));

	if (!f) {
		done(ctx, -ENOMEM);
		return;
	}
	f->done = done;
	f->ctx = ctx;
	f->left = 1;
	if (node && node != NODE_ID_ROOT)
		refresh_one(l, f, node);
	else
		refresh_all(l, f);
	refresh_part_done(f, 0);
}
