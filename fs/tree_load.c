/* SPDX-License-Identifier: MIT */

/* The tree as the ledger has it, at the start: what an earlier daemon left, and what became of it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#include "tree.h"
#include "tree_private.h"

struct load {
	struct tree *tree;
	uint64_t *parents; /* of the nodes in the order they came */
	struct node **nodes;
	size_t n, size;
};

static bool load_strings(struct node *n, const struct ledger_node *row)
{
	/* a collection's row once had its name only, which is its id */
	bool bare = n->kind == NODE_COLLECTION && !row->rid;
	const struct known k = {
		.rid = (char *)(bare ? row->shown : row->rid),
		.record = row->rparent,
		.name = (char *)(bare ? row->shown : row->rname),
		.filename = (char *)row->rfilename,
		.version = (char *)row->rversion,
		.url_rest = (char *)row->rurl,
		.media_type = (char *)row->rmedia,
		.size = row->rsize,
		.mtime_ns = row->rmtime_ns,
		.ctime_ns = row->rctime_ns,
		.filler = row->rfiller,
		.has_hash = row->has_rhash,
	};
	struct known whole = k;

	memcpy(whole.hash, row->rhash, sizeof(whole.hash));
	if (!node_set_shown(n, row->shown ? row->shown : ""))
		return false;
	node_edit_known(n, &whole);
	return (!row->token || node_set_string(&node_more(n)->token, row->token)) &&
	       (!row->message || node_set_string(&node_more(n)->message, row->message)) &&
	       (!row->fields || node_set_string(&node_more(n)->fields, row->fields)) &&
	       (!row->rfields || node_set_string(&node_more(n)->known_fields, row->rfields));
}

static void load_numbers(const struct tree *t, struct node *n, const struct ledger_node *row)
{
	n->in_ledger = true;
	n->gone = row->gone;
	n->local = row->local;
	n->dirty = row->dirty;
	n->mtime_dirty = row->mtime_dirty;
	if (row->mode)
		node_more(n)->mode = row->mode;
	if (row->owner_set)
		node_set_owner(n, row->uid, row->gid);
	node_set_times(n, row->atime_ns, row->mtime_ns, row->ctime_ns);
	n->size = row->size;
	n->content = row->content;
	if (row->flight_since_ns)
		node_more(n)->flight_since_ns = row->flight_since_ns;
	if (row->after)
		node_more(n)->after = row->after;
	n->error = row->error;
	if (row->listed_ns != INT64_MIN && n->kind != NODE_FILE)
		node_own_dir(n)->listed_ns = row->listed_ns;
	n->listed = row->listed_ns != INT64_MIN;
	/* a call was on its way when the last daemon died: nobody knows what became of it (P-22) */
	n->unknown = row->flight == LEDGER_FLIGHT_CREATE ||
		     (row->flight == LEDGER_FLIGHT_REMOVE && t->caps->names_unique);
	/*
	 * the others can simply be sent again; until then what the server shows may be ours, and is
	 * no news
	 */
	n->flight = row->flight;
}

static int load_node(void *ctx, const struct ledger_node *row)
{
	struct load *load = ctx;
	struct tree *t = load->tree;
	struct node *n;

	if (load->n == load->size) {
		size_t size = load->size ? load->size * 2 : 1024;
		uint64_t *parents = realloc(load->parents, size * sizeof(*parents));
		struct node **nodes = realloc(load->nodes, size * sizeof(struct node *));

		if (parents)
			load->parents = parents;
		if (nodes)
			load->nodes = nodes;
		if (!parents || !nodes)
			return -ENOMEM;
		load->size = size;
	}
	n = tree_alloc_node_locked(t, (enum node_kind)row->kind, row->id);
	if (!n || !load_strings(n, row))
		return -ENOMEM;
	load_numbers(t, n, row);
	if (node_rid(n))
		tree_hash_rid_locked(t, n);
	if (row->id >= t->next_id)
		t->next_id = row->id + 1;
	load->parents[load->n] = row->parent;
	load->nodes[load->n++] = n;
	return 0;
}

static int load_xattr(void *ctx, uint64_t node, const char *name, const void *value, size_t len)
{
	struct load *load = ctx;
	struct node *n = tree_find_locked(load->tree, node);

	return n ? node_set_xattr(n, name, value, len) : 0;
}

/* The gone node that @n took the place of, which the server has still. */
static struct node *find_replaced(const struct load *load, const struct node *n)
{
	for (size_t i = 0; i < load->n; i++) {
		struct node *g = load->nodes[i];

		if (g->gone && g->more->after == n->id && node_rid(g) && !node_known(g).filler)
			return g;
	}
	return NULL;
}

/* What the server has is shown again. */
static void show_known(struct tree *t, struct node *n)
{
	n->dirty = false;
	n->content = 0;
	n->size = node_known(n).size;
	if (node_known(n).mtime_ns != REMOTE_TIME_NONE)
		node_set_times(n, node_atime(n), node_known(n).mtime_ns, node_ctime(n));
	tree_put_locked(t, n);
}

/* @n was made less than a second before, and is not there after all; what it replaced is. */
static void undo_replacing(struct load *load, struct node *n, struct node *dir)
{
	struct tree *t = load->tree;
	struct node *g = find_replaced(load, n);

	tree_unlink_locked(t, n);
	n->gone = true;
	n->dirty = false;
	n->content = 0;
	tree_put_locked(t, n);
	if (!g || !dir || tree_child_locked(t, dir, n->shown))
		return;
	node_set_shown(g, n->shown);
	g->gone = false;
	node_more(g)->after = 0;
	tree_link_child_locked(t, dir, g);
	show_known(t, g);
	tree_changed_locked(t, g);
}

/* A power failure took its bytes: it is what it was before, or gone. @instead: 0 = not here. */
static void replace_torn(struct load *load, struct node *n, struct node *dir, uint64_t instead)
{
	struct tree *t = load->tree;
	struct content *c = instead ? content_get(t->store, instead) : NULL;

	log_warning("ledger: the last version of '%s' was written less than a second before the "
		    "power failed, and is lost",
		    n->shown);
	if (c) {
		n->content = instead;
		n->size = content_size(c);
		tree_put_locked(t, n);
	} else if (node_rid(n) && !node_known(n).filler) {
		show_known(t, n);
	} else {
		undo_replacing(load, n, dir);
	}
	content_unref(c);
}

/* The store keeps what somebody asks for after a start. */
static void claim(struct load *load, struct node *n, struct node *dir)
{
	struct tree *t = load->tree;
	struct content *c = n->content ? content_get(t->store, n->content) : NULL;
	uint64_t instead = 0;

	if (n->content && !c && n->dirty && content_is_torn(t->store, n->content, &instead)) {
		replace_torn(load, n, dir, instead);
	} else if (n->content && !c && n->dirty) {
		log_error("ledger: the bytes of '%s' are not in the cache directory any more: not "
			  "sent",
			  n->shown);
		n->error = -ENODATA;
	}
	content_unref(c);
}

static void load_links(struct load *load)
{
	struct tree *t = load->tree;

	for (size_t i = 0; i < load->n; i++) {
		struct node *n = load->nodes[i];
		struct node *dir = load->parents[i] ? tree_find_locked(t, load->parents[i]) : NULL;

		if (dir && !n->gone && !tree_child_locked(t, dir, n->shown))
			tree_link_child_locked(t, dir, n);
		claim(load, n, dir);
		if (n->kind != NODE_COLLECTION && node_differs(t, n))
			tree_changed_locked(t, n);
	}
}

/* Records forgotten in an earlier mount of which nothing is left to be removed. */
static void drop_forgotten(struct load *load)
{
	struct tree *t = load->tree;

	for (size_t i = 0; i < load->n; i++) {
		struct node *n = load->nodes[i], *record = NULL;

		if (n->kind == NODE_FILE)
			record = tree_find_locked(t, node_known(n).record);
		if (record)
			record->seen_seq = 1;
		record = n->unknown ? tree_find_locked(t, node_flight_record(n)) : NULL;
		if (record)
			record->seen_seq = 1;
	}
	for (size_t i = 0; i < load->n; i++) {
		struct node *n = load->nodes[i];

		if (n->kind == NODE_RECORD && n->gone && !n->seen_seq) {
			ledger_drop_node(t->ledger, n->id);
			n->in_ledger = false;
		}
	}
	for (size_t i = 0; i < load->n; i++) {
		load->nodes[i]->seen_seq = 0;
		if (load->nodes[i]->kind == NODE_RECORD)
			tree_release_locked(t, load->nodes[i]);
	}
}

int tree_load(struct tree *t)
{
	struct load load = {.tree = t};
	int r;

	tree_lock(t);
	if (ledger_max_node_id(t->ledger) >= t->next_id)
		t->next_id = ledger_max_node_id(t->ledger) + 1;
	tree_unlock(t);
	/* single-threaded here: no other thread knows the tree yet */
	r = ledger_each_node(t->ledger, load_node, &load);
	if (!r)
		r = ledger_each_xattr(t->ledger, load_xattr, &load);
	tree_lock(t);
	if (!r) {
		load_links(&load);
		drop_forgotten(&load);
	}
	/* what there was is shown where the server cannot be asked */
	t->root->listed = node_dir(t->root)->child_first != NULL;
	tree_unlock(t);
	free(load.parents);
	free(load.nodes);
	return r;
}
