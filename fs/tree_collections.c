/* SPDX-License-Identifier: MIT */

/*
 * The top of the tree: which collections there are, and the two unusual kinds of them (remote.h): one
 * whose records the server does not list, and one whose only record stands in its place.
 *
 * A collection's node is known by its id for as long as the ledger lives. One that options do not ask
 * for now is out of the root, and its row has no parent; it may hold unsent work.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>
#include <attachfs/names.h>

#include "notifier.h"
#include "tree.h"
#include "tree_private.h"

const char *node_collection_id(const struct node *collection)
{
	return node_rid(collection);
}

bool tree_is_unlisted(const struct tree *t, const struct node *collection)
{
	return collection->kind == NODE_COLLECTION && t->caps->unlisted_collection &&
	       node_rid(collection) && !strcmp(node_rid(collection), t->caps->unlisted_collection);
}

bool tree_is_flat(const struct tree *t, const struct node *collection)
{
	return collection->kind == NODE_COLLECTION && t->caps->flat_collection &&
	       node_rid(collection) && !strcmp(node_rid(collection), t->caps->flat_collection);
}

struct node *tree_seen(const struct tree *t, struct node *n)
{
	return tree_is_flat(t, n) && node_dir(n)->child_first ? node_dir(n)->child_first : n;
}

uint64_t tree_above(const struct tree *t, const struct node *dir)
{
	const struct node *above = dir->parent;

	if (above && tree_is_flat(t, above))
		above = above->parent;
	return above ? above->id : dir->id;
}

struct node *tree_collection_of_locked(struct tree *t, const struct node *record)
{
	return record->parent ? record->parent : tree_find_locked(t, node_known(record).record);
}

/* ---- the root ---- */

static struct node *new_collection(struct tree *t, struct known *k)
{
	char shown[NAMES_MAX + 1];
	struct node *n;

	tree_shown_for_locked(t, t->root, NULL, k, shown);
	n = tree_new_node_locked(t, NODE_COLLECTION, t->root, shown);
	if (!n)
		return NULL;
	tree_set_known_locked(t, n, k);
	n->in_ledger = true;
	return n;
}

/* The server calls it so now; or options ask for it again. */
static int show_collection(struct tree *t, struct node *n, const char *name)
{
	char shown[NAMES_MAX + 1], from[NAMES_MAX + 1] = "";
	struct known known;
	int r;

	if (n->parent && (!name || !strcmp(node_known(n).name, name)))
		return 0;
	if (name)
		node_set_known_name(n, name);
	known = node_known(n);
	tree_shown_for_locked(t, t->root, n, &known, shown);
	if (n->parent && !strcmp(n->shown, shown))
		return 0;
	if (n->parent) {
		notifier_entry(t->notifier, t->root->id, n->shown);
		snprintf(from, sizeof(from), "%s", n->shown);
	}
	r = tree_move_locked(t, n, t->root, shown);
	if (r < 0)
		return r;
	notifier_entry(t->notifier, t->root->id, shown);
	if (*from)
		tree_news_locked(t, "renamed", n, from);
	return 0;
}

/* @name NULL: as known, or the id. */
static int put_collection(struct tree *t, const char *id, const char *name, uint64_t mark)
{
	struct node *n = tree_find_collection_locked(t, id);
	struct known k = {.size = -1, .mtime_ns = REMOTE_TIME_NONE, .ctime_ns = REMOTE_TIME_NONE};
	bool there = n && n->parent;
	int r = 0;

	if (n) {
		r = show_collection(t, n, name);
	} else {
		k.rid = strdup(id);
		k.name = strdup(name ? name : id);
		n = k.rid && k.name ? new_collection(t, &k) : NULL;
		known_clear(&k);
		r = n ? 0 : -ENOMEM;
	}
	if (r < 0)
		return r;
	n->seen_seq = mark;
	tree_put_locked(t, n);
	if (there)
		return 0;
	notifier_entry(t->notifier, t->root->id, n->shown);
	notifier_entry(t->notifier, t->root->id, id); /* it resolves now */
	if (t->root->listed)
		tree_news_locked(t, "appeared", n, NULL);
	return 0;
}

/* Out of sight; its rows stay, it may hold unsent work. */
static void hide_collection(struct tree *t, struct node *n)
{
	notifier_entry(t->notifier, t->root->id, n->shown);
	tree_unlink_locked(t, n);
	tree_put_locked(t, n);
}

int tree_set_collections(struct tree *t, const char *collections)
{
	char *list = strdup(collections), *save = NULL;
	struct node *next;
	uint64_t mark;
	int r = 0;

	if (!list)
		return -ENOMEM;
	mark = tree_listing_begin(t);
	tree_lock(t);
	for (char *id = strtok_r(list, ":", &save); id && !r; id = strtok_r(NULL, ":", &save))
		r = put_collection(t, id, NULL, mark);
	for (struct node *n = node_dir(t->root)->child_first; n && !r; n = next) {
		next = n->sibling_next;
		if (n->seen_seq != mark)
			hide_collection(t, n);
	}
	t->root->listed = true;
	tree_unlock(t);
	free(list);
	return r;
}

static bool is_named(const struct remote_collection *list, size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i].id, id))
			return true;
	return false;
}

/* Gone from the server; records that hold unsent changes keep it here, as they would alone. */
static void end_collection(struct tree *t, uint64_t mark, struct node *top)
{
	struct node *next;

	for (struct node *record = node_dir(top)->child_first; record; record = next) {
		next = record->sibling_next;
		tree_end_record_locked(t, mark, record);
	}
	if (node_dir(top)->child_first) {
		log_warning("tree: collection '%s' is gone from the server but holds unsent "
			    "files: kept",
			    top->shown);
		return;
	}
	notifier_entry(t->notifier, t->root->id, node_collection_id(top));
	tree_news_locked(t, "disappeared", top, NULL);
	tree_vanish_locked(t, top);
}

int tree_collections_listed(struct tree *t, const struct remote_collection *list, size_t n,
			    bool all)
{
	uint64_t mark = tree_listing_begin(t);
	struct node *next;
	int r = 0;

	tree_lock(t);
	ledger_group_begin(t->ledger);
	for (size_t i = 0; i < n && !r; i++) {
		const struct node *top = tree_find_collection_locked(t, list[i].id);

		if (all || (top && top->parent))
			r = put_collection(t, list[i].id, list[i].name, mark);
	}
	for (struct node *top = node_dir(t->root)->child_first; top && all && !r; top = next) {
		next = top->sibling_next;
		if (!is_named(list, n, node_collection_id(top)))
			end_collection(t, mark, top);
	}
	ledger_group_end(t->ledger);
	t->root->listed = true;
	tree_unlock(t);
	return r;
}

/* ---- records that nobody lists ---- */

struct node *tree_new_record_locked(struct tree *t, struct node *collection, const char *shown,
				    const char *rid)
{
	char server[3 * NAMES_MAX + 1];
	struct known k = {.record = collection->id,
			  .size = -1,
			  .mtime_ns = REMOTE_TIME_NONE,
			  .ctime_ns = REMOTE_TIME_NONE};
	struct node *n = NULL;

	names_to_server(shown, server);
	k.rid = strdup(rid);
	k.name = strdup(server);
	if (k.rid && k.name)
		n = tree_new_node_locked(t, NODE_RECORD, collection, shown);
	if (n) {
		tree_set_known_locked(t, n, &k);
		n->in_ledger = true;
		tree_put_locked(t, n);
		notifier_entry(t->notifier, collection->id, shown);
		notifier_entry(t->notifier, collection->id, rid);
	}
	known_clear(&k);
	return n;
}

static bool is_needed(struct tree *t, const struct node *record)
{
	for (const struct node *n = t->sync_first; n; n = n->more->sync_next)
		if (node_known(n).record == record->id || node_flight_record(n) == record->id)
			return true;
	return false;
}

void tree_forget_record_locked(struct tree *t, struct node *record)
{
	struct node *collection = record->parent;

	notifier_entry(t->notifier, collection->id, node_rid(record));
	if (!is_needed(t, record)) {
		tree_vanish_locked(t, record);
		return;
	}
	/* its row goes at the next start: tree_load() */
	tree_unlink_locked(t, record);
	record->gone = true;
	tree_put_locked(t, record);
}
