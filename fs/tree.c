/* SPDX-License-Identifier: MIT */

/*
 * Three chained hashes over intrusive links (by id, by directory and name, by remote id) and a list
 * of children per directory. The hashes grow together when there are three nodes for each bucket,
 * so a lookup stays a step or two with a million files.
 */

#include "tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/names.h>

#include "notifier.h"
#include "small.h"
#include "tree_private.h"

#define FIRST_BUCKETS  1024
#define MOST_IN_BUCKET 3 /* on average */

void tree_lock(struct tree *t)
{
	pthread_mutex_lock(&t->lock);
}

void tree_unlock(struct tree *t)
{
	pthread_mutex_unlock(&t->lock);
}

/* ---- hashes ---- */

static size_t id_bucket(const struct tree *t, uint64_t id)
{
	return XXH3_64bits(&id, sizeof(id)) & (t->buckets - 1);
}

static size_t name_bucket(const struct tree *t, const struct node *dir, const char *name)
{
	return XXH3_64bits_withSeed(name, strlen(name), dir->id) & (t->buckets - 1);
}

static size_t rid_bucket(const struct tree *t, const char *rid)
{
	return XXH3_64bits(rid, strlen(rid)) & (t->buckets - 1);
}

static void hash_name(struct tree *t, struct node *n)
{
	struct node **slot = &t->by_name[name_bucket(t, n->parent, n->shown)];

	n->by_name_next = *slot;
	*slot = n;
}

static void unhash_name(struct tree *t, struct node *n)
{
	struct node **slot = &t->by_name[name_bucket(t, n->parent, n->shown)];

	while (*slot != n)
		slot = &(*slot)->by_name_next;
	*slot = n->by_name_next;
}

void tree_hash_rid_locked(struct tree *t, struct node *n)
{
	struct node **slot = &t->by_rid[rid_bucket(t, n->known)];

	n->by_rid_next = *slot;
	*slot = n;
}

void tree_unhash_rid_locked(struct tree *t, struct node *n)
{
	struct node **slot = &t->by_rid[rid_bucket(t, n->known)];

	while (*slot && *slot != n)
		slot = &(*slot)->by_rid_next;
	if (*slot)
		*slot = n->by_rid_next;
}

static void rehash(struct tree *t, struct node **old_ids, size_t old_buckets)
{
	for (size_t i = 0; i < old_buckets; i++) {
		struct node *next;

		for (struct node *n = old_ids[i]; n; n = next) {
			struct node **slot = &t->by_id[id_bucket(t, n->id)];

			next = n->by_id_next;
			n->by_id_next = *slot;
			*slot = n;
			if (n->parent)
				hash_name(t, n);
			if (n->known)
				tree_hash_rid_locked(t, n);
		}
	}
}

/* Without memory the hashes stay as they are: slower, not wrong. */
static void grow(struct tree *t)
{
	size_t buckets = t->buckets ? t->buckets * 2 : FIRST_BUCKETS, old_buckets = t->buckets;
	struct node **ids = calloc(buckets, sizeof(struct node *)),
		    **names = calloc(buckets, sizeof(struct node *)),
		    **rids = calloc(buckets, sizeof(struct node *)), **old_ids = t->by_id;

	if (!ids || !names || !rids) {
		free(ids);
		free(names);
		free(rids);
		return;
	}
	free(t->by_name);
	free(t->by_rid);
	t->by_id = ids;
	t->by_name = names;
	t->by_rid = rids;
	t->buckets = buckets;
	rehash(t, old_ids, old_buckets);
	free(old_ids);
}

struct node *tree_find_locked(struct tree *t, uint64_t id)
{
	struct node *n;

	id &= ~NODE_TWIN;
	n = t->by_id[id_bucket(t, id)];
	while (n && n->id != id)
		n = n->by_id_next;
	return n;
}

struct node *tree_child_locked(struct tree *t, const struct node *dir, const char *shown)
{
	struct node *n = t->by_name[name_bucket(t, dir, shown)];

	while (n && (n->parent != dir || strcmp(n->shown, shown)))
		n = n->by_name_next;
	return n;
}

struct node *tree_by_rid_locked(struct tree *t, uint64_t scope, const char *rid)
{
	struct node *n = t->by_rid[rid_bucket(t, rid)];

	for (; n; n = n->by_rid_next) {
		if (strcmp(n->known, rid))
			continue;
		if (scope ? n->kind == NODE_RECORD && node_known(n).record == scope
			  : n->kind == NODE_FILE)
			return n;
	}
	return NULL;
}

struct node *tree_find_collection_locked(struct tree *t, const char *id)
{
	struct node *n = t->by_rid[rid_bucket(t, id)];

	while (n && (n->kind != NODE_COLLECTION || strcmp(n->known, id)))
		n = n->by_rid_next;
	return n;
}

/* ---- life ---- */

static const struct node_more nothing_more;

struct node_more *node_more(struct node *n)
{
	if (n->more == &nothing_more)
		n->more = small_must(calloc(1, sizeof(*n->more)));
	return (struct node_more *)n->more;
}

void node_less(struct node *n)
{
	if (n->more == &nothing_more || memcmp(n->more, &nothing_more, sizeof(nothing_more)))
		return;
	free((struct node_more *)n->more);
	n->more = &nothing_more;
}

/* How a directory lies in memory. */
struct dir_node {
	struct node node;
	struct node_dir dir;
};

static const struct node_dir no_dir;

const struct node_dir *node_dir(const struct node *n)
{
	return n->kind == NODE_FILE ? &no_dir : &((const struct dir_node *)n)->dir;
}

struct node_dir *node_own_dir(struct node *dir)
{
	return &((struct dir_node *)dir)->dir;
}

static size_t node_bytes(enum node_kind kind)
{
	return kind == NODE_FILE ? sizeof(struct node) : sizeof(struct dir_node);
}

struct node *tree_alloc_node_locked(struct tree *t, enum node_kind kind, uint64_t id)
{
	struct node *n = small_alloc(node_bytes(kind)), **slot;

	if (!n)
		return NULL;
	memset(n, 0, node_bytes(kind));
	memcpy(n,
	       &(struct node){.id = id,
			      .kind = kind,
			      .more = &nothing_more,
			      .size = kind == NODE_FILE ? -1 : 0,
			      .mtime_ns = clock_real_ns()},
	       sizeof(*n));
	if (t->n_nodes >= MOST_IN_BUCKET * t->buckets)
		grow(t);
	slot = &t->by_id[id_bucket(t, id)];
	n->by_id_next = *slot;
	*slot = n;
	t->n_nodes++;
	return n;
}

void tree_link_child_locked(struct tree *t, struct node *dir, struct node *n)
{
	struct node_dir *d = node_own_dir(dir);

	n->parent = dir;
	n->sibling_prev = d->child_last;
	n->sibling_next = NULL;
	if (d->child_last)
		d->child_last->sibling_next = n;
	else
		d->child_first = n;
	d->child_last = n;
	d->n_children++;
	hash_name(t, n);
}

static void unlink_child(struct tree *t, struct node *n)
{
	struct node_dir *d = node_own_dir(n->parent);

	unhash_name(t, n);
	if (n->sibling_prev)
		n->sibling_prev->sibling_next = n->sibling_next;
	else
		d->child_first = n->sibling_next;
	if (n->sibling_next)
		n->sibling_next->sibling_prev = n->sibling_prev;
	else
		d->child_last = n->sibling_prev;
	d->n_children--;
	n->parent = NULL;
	n->sibling_prev = n->sibling_next = NULL;
}

struct node *tree_new_node_locked(struct tree *t, enum node_kind kind, struct node *dir,
				  const char *shown)
{
	char *name = small_text(shown);
	struct node *n = name ? tree_alloc_node_locked(t, kind, t->next_id) : NULL;

	if (!n) {
		small_free_text(name);
		return NULL;
	}
	t->next_id++;
	n->shown = name;
	tree_link_child_locked(t, dir, n);
	return n;
}

void tree_unlink_locked(struct tree *t, struct node *n)
{
	if (n->parent)
		unlink_child(t, n);
}

int tree_move_locked(struct tree *t, struct node *n, struct node *dir, const char *shown)
{
	struct node *from = n->parent;

	if (from)
		unlink_child(t, n);
	if (!node_set_shown(n, shown)) {
		if (from)
			tree_link_child_locked(t, from, n);
		return -ENOMEM;
	}
	tree_link_child_locked(t, dir, n);
	return 0;
}

static void free_node(struct node *n)
{
	struct xattr *next;

	for (struct xattr *x = n->more->xattrs; x; x = next) {
		next = x->next;
		free(x->name);
		free(x);
	}
	content_unref(n->more->view);
	content_unref(n->more->feed);
	free(n->more->token);
	free(n->more->message);
	free(n->more->fields);
	free(n->more->known_fields);
	if (n->more != &nothing_more)
		free((struct node_more *)n->more);
	if (!n->shown_known)
		small_free_text(n->shown);
	known_free_block(n->known);
	small_free(n, node_bytes(n->kind));
}

void tree_release_locked(struct tree *t, struct node *n)
{
	struct node **slot;

	if (n->parent || n == t->root || n->nlookup || n->more->n_open || n->in_sync_list ||
	    n->busy || n->size_asked)
		return;
	/* a collection that is not shown, a record of which something is still to be removed */
	if (n->kind != NODE_FILE && n->in_ledger)
		return;
	slot = &t->by_id[id_bucket(t, n->id)];
	while (*slot != n)
		slot = &(*slot)->by_id_next;
	*slot = n->by_id_next;
	if (n->known)
		tree_unhash_rid_locked(t, n);
	t->n_nodes--;
	free_node(n);
}

int tree_new(struct ledger *ledger, struct content_store *store, struct notifier *notifier,
	     const struct remote_caps *caps, struct tree **ret_tree)
{
	struct tree *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->ledger = ledger;
	t->store = store;
	t->notifier = notifier;
	t->caps = caps;
	t->next_id = NODE_ID_FIRST;
	pthread_mutex_init(&t->lock, NULL);
	grow(t);
	if (t->buckets)
		t->root = tree_alloc_node_locked(t, NODE_ROOT, NODE_ID_ROOT);
	if (!t->root) {
		tree_free(t);
		return -ENOMEM;
	}
	t->root->listed = true;
	*ret_tree = t;
	return 0;
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	tree_put_touched_locked(t);
	for (size_t i = 0; i < t->buckets; i++) {
		struct node *next;

		for (struct node *n = t->by_id[i]; n; n = next) {
			next = n->by_id_next;
			free_node(n);
		}
	}
	tree_forget_tombstones(t);
	free(t->by_id);
	free(t->by_name);
	free(t->by_rid);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

/* ---- ledger ---- */

/* @url is to live as long as the row. */
static void row_of(const struct tree *t, const struct node *n, const struct known *k, char *url,
		   struct ledger_node *row)
{

	*row = (struct ledger_node){
		.id = n->id,
		.kind = (enum ledger_kind)n->kind,
		.parent = n->parent ? n->parent->id : 0,
		.shown = n->shown,
		.gone = n->gone,
		.local = n->local,
		.dirty = n->dirty,
		.mtime_dirty = n->mtime_dirty,
		.mode = n->more->mode,
		.uid = node_uid(t, n),
		.gid = node_gid(t, n),
		.owner_set = n->owner_set,
		.atime_ns = node_atime(n),
		.mtime_ns = n->mtime_ns,
		.ctime_ns = node_ctime(n),
		.size = n->size,
		.content = n->content,
		.rid = k->rid,
		.rparent = k->record,
		.rname = k->name,
		.rfilename = k->filename,
		.rversion = k->version,
		.rurl = url,
		.rmedia = k->media_type,
		.rsize = k->size,
		.rmtime_ns = k->mtime_ns,
		.rctime_ns = k->ctime_ns,
		.rfiller = k->filler,
		.has_rhash = k->has_hash,
		.flight = n->flight,
		.flight_since_ns = n->more->flight_since_ns,
		.token = n->more->token,
		.after = n->more->after,
		.error = n->error,
		.message = n->more->message,
		.listed_ns = n->listed && n->kind != NODE_FILE ? node_dir(n)->listed_ns : INT64_MIN,
		.fields = n->more->fields,
		.rfields = n->more->known_fields,
	};
	memcpy(row->rhash, k->hash, sizeof(row->rhash));
}

void tree_put_locked(struct tree *t, struct node *n)
{
	struct known k = node_known(n);
	struct ledger_node row;
	char *url = NULL;

	if (!n->in_ledger)
		return;
	url = known_lasting_url(&k);
	row_of(t, n, &k, url, &row);
	if (ledger_put_node(t->ledger, &row) < 0)
		log_error("ledger: out of memory: '%s' would not survive a crash now", n->shown);
	free(url);
}

void tree_touch_locked(struct tree *t, struct node *dir)
{
	for (size_t i = 0; i < t->n_touched; i++)
		if (t->touched[i] == dir->id)
			return;
	if (t->n_touched == TREE_TOUCHED_MAX)
		tree_put_touched_locked(t);
	t->touched[t->n_touched++] = dir->id;
	if (t->sync_wake)
		t->sync_wake(t->sync_ctx);
}

void tree_put_touched_locked(struct tree *t)
{
	for (size_t i = 0; i < t->n_touched; i++) {
		struct node *dir = tree_find_locked(t, t->touched[i]);

		if (dir)
			tree_put_locked(t, dir);
	}
	t->n_touched = 0;
}

bool node_set_string(char **slot, const char *value)
{
	char *copy = value ? strdup(value) : NULL;

	if (value && !copy)
		return false;
	free(*slot);
	*slot = copy;
	return true;
}

/* ---- the sync list ---- */

bool node_differs(const struct tree *t, const struct node *n)
{
	const struct known known = node_known(n), *k = &known;

	if (n->kind == NODE_RECORD)
		return n->parent && k->rid &&
		       (n->more->fields || n->flight == LEDGER_FLIGHT_UPDATE ||
			!node_name_matches(t, n));
	if (n->kind != NODE_FILE || !n->in_ledger)
		return false;
	if (n->unknown)
		return true;
	if (n->gone)
		return true; /* to be removed, or forgotten */
	if (n->local)
		return false;
	if (!k->rid || n->dirty || n->mtime_dirty || n->flight == LEDGER_FLIGHT_UPDATE)
		return true;
	if (known_is_tokened(k))
		return true;
	return (n->parent && n->parent->id != k->record) || !node_name_matches(t, n);
}

static void sync_join(struct tree *t, struct node *n)
{
	if (n->in_sync_list)
		return;
	n->in_sync_list = true;
	node_more(n)->change =
		++t->changes; /* kept over the several calls that one change may take */
	node_more(n)->sync_prev = t->sync_last;
	node_more(n)->sync_next = NULL;
	if (t->sync_last)
		node_more(t->sync_last)->sync_next = n;
	else
		t->sync_first = n;
	t->sync_last = n;
	t->n_sync++;
}

static void sync_leave(struct tree *t, struct node *n)
{
	if (!n->in_sync_list)
		return;
	n->in_sync_list = false;
	if (n->more->sync_prev)
		node_more(n->more->sync_prev)->sync_next = n->more->sync_next;
	else
		t->sync_first = n->more->sync_next;
	if (n->more->sync_next)
		node_more(n->more->sync_next)->sync_prev = n->more->sync_prev;
	else
		t->sync_last = n->more->sync_prev;
	node_more(n)->sync_prev = node_more(n)->sync_next = NULL;
	node_less(n);
	t->n_sync--;
}

void tree_changed_locked(struct tree *t, struct node *n)
{
	tree_put_locked(t, n);
	if (!node_differs(t, n)) {
		if (!n->busy)
			sync_leave(t, n);
		return;
	}
	sync_join(t, n);
	if (t->sync_wake)
		t->sync_wake(t->sync_ctx);
}

void tree_settle_locked(struct tree *t, struct node *n)
{
	if (!n->busy && !node_differs(t, n))
		sync_leave(t, n);
}
