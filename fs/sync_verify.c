/* SPDX-License-Identifier: MIT */

/*
 * What others have done, asked before something is overwritten or removed: the servers have no
 * "only if it is still what I know" (If-Match), so the record is listed once more, and what the
 * tree learns by that (tree_listing_page) makes a conflict of what would have been lost. The two
 * calls are not one: what somebody does between them is found out afterwards, by the one whose bytes
 * are gone (tree_keep_overwritten_locked).
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "sync_private.h"

#define VERIFY_MANY 4 /* records of one collection: listing all of it is cheaper from here on */

struct verify {
	struct sync *sync;
	uint64_t collection, record; /* node ids; record 0 = the whole collection */
	uint64_t mark;
	uint64_t *nodes; /* that wait for it */
	size_t n;
};

/* What it lists; NULL = forgotten meanwhile. tree->lock held. */
static struct node *target_locked(const struct verify *v)
{
	return tree_find_locked(v->sync->m->tree, v->record ? v->record : v->collection);
}

static void set_verifying_locked(const struct verify *v, bool verifying)
{
	struct node *n = target_locked(v);

	if (n)
		n->verifying = verifying;
}

static void verify_free(struct verify *v)
{
	if (v)
		free(v->nodes);
	free(v);
}

struct verify *verify_new_locked(struct sync *s, uint64_t record, size_t n)
{
	struct tree *t = s->m->tree;
	struct node *dir = tree_find_locked(t, record);
	struct node *top =
		dir && dir->kind == NODE_RECORD ? tree_collection_of_locked(t, dir) : NULL;
	struct verify *v;

	if (!top || dir->verifying || top->verifying || !node_rid(dir))
		return NULL;
	v = calloc(1, sizeof(*v));
	if (v)
		v->nodes = calloc(n, sizeof(*v->nodes));
	if (!v || !v->nodes) {
		verify_free(v);
		return NULL;
	}
	v->sync = s;
	v->collection = top->id;
	v->record = record;
	set_verifying_locked(v, true);
	return v;
}

void verify_add_locked(struct verify *v, uint64_t node)
{
	v->nodes[v->n++] = node;
}

/* Those that wait for @other wait for @v too. Without memory they are planned anew. */
static void take_waiting(struct verify *v, const struct verify *other)
{
	uint64_t *nodes = reallocarray(v->nodes, v->n + other->n, sizeof(*nodes));

	if (!nodes)
		return;
	v->nodes = nodes;
	memcpy(nodes + v->n, other->nodes, other->n * sizeof(*nodes));
	v->n += other->n;
}

/* Leaves @first as the listing of its collection, and frees the others that are part of it. */
static size_t merge(struct verify **list, size_t n, size_t first)
{
	struct verify *whole = list[first];
	size_t left = first + 1;

	set_verifying_locked(whole, false);
	whole->record = 0;
	set_verifying_locked(whole, true);
	for (size_t i = left; i < n; i++) {
		if (list[i]->collection != whole->collection) {
			list[left++] = list[i];
			continue;
		}
		set_verifying_locked(list[i], false);
		take_waiting(whole, list[i]);
		verify_free(list[i]);
	}
	return left;
}

size_t verify_merge_locked(struct verify **list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct tree *t = list[i]->sync->m->tree;
		const struct node *top = tree_find_locked(t, list[i]->collection);
		size_t same = 0;

		for (size_t j = i; j < n; j++)
			same += list[j]->collection == list[i]->collection;
		if (same >= VERIFY_MANY && !tree_is_unlisted(t, top))
			n = merge(list, n, i);
	}
	return n;
}

static bool on_page(void *ctx, struct remote_record *records, size_t n_records,
		    struct remote_file *files, size_t n_files)
{
	struct verify *v = ctx;

	return tree_listing_page(v->sync->m->tree, v->mark, v->collection, records,
				 v->record ? 0 : n_records, files, n_files) == 0;
}

/*
 * The listing failed: they are tried again later. What may not be listed can never be seen, so
 * nothing is overwritten there before the user has done something about it.
 */
static void put_off(struct verify *v, int error, const char *message)
{
	struct sync *s = v->sync;
	char words[256];
	bool passes = error != -EACCES && error != -EPERM && error != -EINVAL;

	/* new credentials come by themselves, perhaps */
	passes = passes || remote_get_auth(s->m->remote, words) == REMOTE_AUTH_FAILED;
	for (size_t i = 0; i < v->n; i++) {
		struct node *n = tree_find_locked(s->m->tree, v->nodes[i]);

		if (!n || n->busy || n->error || !n->in_sync_list)
			continue;
		if (passes)
			sync_back_off_locked(s, n);
		else
			sync_park_locked(s, n, error, message);
		tree_changed_locked(s->m->tree, n);
	}
}

static void on_done(void *ctx, int error, const char *message)
{
	struct verify *v = ctx;
	struct sync *s = v->sync;
	struct tree *t = s->m->tree;
	bool gone = error == -ENOENT && v->record, seen = !error || gone;
	struct node *n;

	if (!error)
		tree_listing_end(t, v->mark, v->collection, v->record);
	else if (gone)
		tree_record_vanished(t, v->mark, v->record);
	else
		log_debug("sync: cannot see what others did: %s%s%s", strerror(-error),
			  message && *message ? ": " : "", message ? message : "");
	tree_lock(t);
	n = target_locked(v);
	if (n)
		n->verifying = false;
	/* of a record that is gone nothing can be overwritten: each call will be told so itself */
	if (n && seen)
		node_set_confirmed(n, clock_mono_ms());
	if (!seen)
		put_off(v, error, message);
	tree_unlock(t);
	for (size_t i = 0; i < v->n; i++)
		sync_tell(s, v->nodes[i]);
	verify_free(v);
	sync_wake(s);
}

void verify_send(struct verify *v)
{
	struct remote *r = v->sync->m->remote;
	struct tree *t = v->sync->m->tree;
	struct remote_sink sink = {on_page, on_done, v};
	char *collection = NULL, *rid = NULL;
	struct node *top, *dir;
	int ret = -ENOENT;

	tree_lock(t);
	top = tree_find_locked(t, v->collection);
	dir = v->record ? tree_find_locked(t, v->record) : NULL;
	collection = top ? strdup(node_collection_id(top)) : NULL;
	rid = dir && node_rid(dir) ? strdup(node_rid(dir)) : NULL;
	tree_unlock(t);
	v->mark = tree_listing_begin(t);
	if (collection && rid)
		ret = r->ops->list_record(r, TRANSFER_WRITEBACK, collection, rid, &sink);
	else if (collection && !v->record)
		ret = r->ops->list_tree(r, TRANSFER_WRITEBACK, collection, &sink);
	free(collection);
	free(rid);
	if (ret < 0)
		on_done(v, ret, NULL);
}
