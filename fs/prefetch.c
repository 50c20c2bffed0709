/* SPDX-License-Identifier: MIT */

/* Who reads small files one after another, and the fetching ahead of him: see prefetch.h. */

#include "prefetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lister.h"
#include "ops.h"
#include "reader.h"
#include "siblings.h"
#include "window.h"

#define EMPTY_RECORDS 64 /* in a row that are passed over to find the next file */

struct program {
	uint64_t pid; /* of the thread; 0 = free */
	uint64_t used;
	struct siblings siblings;
	/* the files of the directory it reads by name, in that order */
	uint64_t sorted_dir, *sorted;
	size_t n_sorted, sorted_at; /* where it was found last */
};

struct prefetch {
	struct mount *m;
	uint64_t used; /* counts */
	struct program programs[PREFETCH_PROGRAMS];
};

struct prefetch_batch {
	unsigned n;
	struct content *of[SIBLINGS_FILES]; /* referenced, and open in the reader */
};

int prefetch_new(struct mount *m, struct prefetch **ret_prefetch)
{
	struct prefetch *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->m = m;
	*ret_prefetch = p;
	return 0;
}

void prefetch_free(struct prefetch *p)
{
	if (!p)
		return;
	for (int i = 0; i < PREFETCH_PROGRAMS; i++)
		free(p->programs[i].sorted);
	free(p);
}

/* The one of that number, in place of the one that has not read for longest. */
static struct program *find_program(struct prefetch *p, uint64_t pid)
{
	struct program *found = &p->programs[0];

	for (int i = 0; i < PREFETCH_PROGRAMS; i++) {
		if (p->programs[i].pid == pid) {
			found = &p->programs[i];
			break;
		}
		if (p->programs[i].used < found->used)
			found = &p->programs[i];
	}
	if (found->pid != pid) {
		free(found->sorted);
		memset(found, 0, sizeof(*found));
		found->pid = pid;
	}
	found->used = ++p->used;
	return found;
}

/* ---- the orders ---- */

struct view {
	struct mount *m;
	struct program *program;
	bool unsized; /* it ended where sizes are not known */
};

static struct node *first_file(const struct node *dir)
{
	struct node *n = node_dir(dir)->child_first;

	while (n && n->kind != NODE_FILE)
		n = n->sibling_next;
	return n;
}

/* The file after @n as the directory lists, then the first one of the next record. */
static struct node *next_listed(struct node *n)
{
	struct node *record = n->parent;
	struct node *found = n->sibling_next;

	while (found && found->kind != NODE_FILE)
		found = found->sibling_next;
	for (unsigned i = 0; !found && i < EMPTY_RECORDS; i++) {
		record = record->sibling_next;
		if (!record || record->kind != NODE_RECORD)
			break;
		found = first_file(record);
	}
	return found;
}

static int by_name(const void *a, const void *b)
{
	const struct node *const *x = a, *const *y = b;

	return strcmp((*x)->shown, (*y)->shown);
}

/* Its directory changes rarely while a program reads it: what came since is not fetched ahead. */
static bool sort(struct program *p, const struct node *dir)
{
	const struct node **nodes;
	size_t n = 0;

	free(p->sorted);
	p->sorted = NULL;
	p->sorted_dir = dir->id;
	p->n_sorted = p->sorted_at = 0;
	if (!node_dir(dir)->n_children || node_dir(dir)->n_children > PREFETCH_SORT_MAX)
		return false;
	nodes = malloc(node_dir(dir)->n_children * sizeof(struct node *));
	p->sorted = malloc(node_dir(dir)->n_children * sizeof(*p->sorted));
	if (nodes && p->sorted) {
		for (const struct node *c = node_dir(dir)->child_first; c; c = c->sibling_next)
			if (c->kind == NODE_FILE)
				nodes[n++] = c;
		qsort(nodes, n, sizeof(struct node *), by_name);
		for (size_t i = 0; i < n; i++)
			p->sorted[i] = nodes[i]->id;
		p->n_sorted = n;
	}
	free(nodes);
	return n > 0;
}

/* Where @id is among what is sorted: mostly it is the one after the last that was looked for. */
static bool find_sorted(struct program *p, uint64_t id)
{
	for (size_t i = 0; i < p->n_sorted; i++) {
		size_t at = (p->sorted_at + i) % p->n_sorted;

		if (p->sorted[at] == id) {
			p->sorted_at = at;
			return true;
		}
	}
	return false;
}

static const struct node *next_record_by_name(const struct node *record)
{
	const struct node *top = record->parent, *found = NULL;

	if (!top || node_dir(top)->n_children > PREFETCH_SORT_MAX)
		return NULL;
	for (const struct node *c = node_dir(top)->child_first; c; c = c->sibling_next)
		if (c->kind == NODE_RECORD && strcmp(c->shown, record->shown) > 0 &&
		    (!found || strcmp(c->shown, found->shown) < 0))
			found = c;
	return found;
}

static struct node *first_by_name(const struct node *dir)
{
	struct node *found = NULL;

	for (struct node *c = node_dir(dir)->child_first; c; c = c->sibling_next)
		if (c->kind == NODE_FILE && (!found || strcmp(c->shown, found->shown) < 0))
			found = c;
	return found;
}

static struct node *next_by_name(struct view *v, const struct node *n)
{
	struct program *p = v->program;
	const struct node *record = n->parent;
	struct node *found = NULL;

	if ((p->sorted_dir != record->id || !find_sorted(p, n->id)) &&
	    (!sort(p, record) || !find_sorted(p, n->id)))
		return NULL;
	for (size_t i = p->sorted_at + 1; !found && i < p->n_sorted; i++) {
		found = tree_find_locked(v->m->tree, p->sorted[i]);
		if (found && found->parent != record)
			found = NULL;
	}
	for (unsigned i = 0; !found && record && i < EMPTY_RECORDS; i++) {
		record = next_record_by_name(record);
		found = record ? first_by_name(record) : NULL;
	}
	return found;
}

static uint64_t next(void *ctx, enum siblings_order order, uint64_t file)
{
	struct view *v = ctx;
	struct node *n = tree_find_locked(v->m->tree, file);

	if (!n || !n->parent)
		return 0;
	n = order == SIBLINGS_BY_NAME ? next_by_name(v, n) : next_listed(n);
	return n ? n->id : 0;
}

/* ---- what it takes ---- */

/* What the server has of it, as far as it is here; referenced. */
static struct content *peek(const struct mount *m, const struct node *n)
{
	char key[NODE_KEY_MAX];

	return node_key(n, key) ? content_peek_key(m->store, key) : NULL;
}

static int64_t missing_bytes(const struct mount *m, const struct node *n)
{
	struct content *c = peek(m, n);
	int64_t cost = node_known(n).size;

	if (c && (content_is_complete(c) || content_get_user(c)))
		cost = SIBLINGS_NEEDLESS;
	content_unref(c);
	return cost;
}

static int64_t cost(void *ctx, uint64_t file)
{
	struct view *v = ctx;
	struct node *n = tree_find_locked(v->m->tree, file);

	if (!n || n->dirty || n->gone || !node_rid(n) || !node_known(n).version ||
	    node_known(n).filler || (n->more->view && content_is_dirty(n->more->view)))
		return SIBLINGS_NEEDLESS;
	if (node_known(n).size < 0) {
		v->unsized = n->size_asked || v->m->remote->ops->probe_size;
		return v->unsized ? SIBLINGS_UNSIZED : SIBLINGS_NEEDLESS;
	}
	if (node_known(n).size == 0 || (uint64_t)node_known(n).size > WINDOW_WHOLE_BYTES)
		return SIBLINGS_NEEDLESS;
	return missing_bytes(v->m, n);
}

/* Sizes that are not known, from where it ended on: the last first, since the lister sends the last first. */
static void ask_sizes(struct view *v)
{
	const struct siblings *s = &v->program->siblings;
	struct node *of[SIBLINGS_FILES];
	uint64_t file = next(v, s->order, s->front);
	unsigned n = 0;

	for (unsigned i = 0; file && i < SIBLINGS_FILES; i++, file = next(v, s->order, file))
		of[n++] = tree_find_locked(v->m->tree, file);
	while (n-- > 0)
		lister_size_ahead_locked(v->m->lister, of[n]);
}

/* ---- fetching ---- */

static void add(struct mount *m, struct prefetch_batch *b, uint64_t file)
{
	struct tree *t = m->tree;
	struct node *n = tree_find_locked(t, file);
	struct node *record = n ? tree_find_locked(t, node_known(n).record) : NULL;
	struct node *top = record ? tree_collection_of_locked(t, record) : NULL;
	struct remote_file known;
	struct content *c;
	char key[NODE_KEY_MAX];

	if (!top || !node_key(n, key))
		return;
	c = content_for_key(m->store, key, node_known(n).size);
	if (!c)
		return;
	pin_content_locked(n, c);
	node_borrow_file(n, node_rid(record), &known);
	if (reader_open(m->reader, c, &known, node_collection_id(top), n->id) < 0)
		content_unref(c);
	else
		b->of[b->n++] = c;
	free(known.url);
}

struct prefetch_batch *prefetch_read_locked(struct prefetch *p, const struct call *c,
					    struct handle *h)
{
	struct mount *m = p->m;
	struct view v = {.m = m};
	const struct siblings_view view = {&v, next, cost, content_store_ahead(m->store)};
	struct prefetch_batch *b;
	uint64_t files[SIBLINGS_FILES];
	unsigned n;

	if (h->begun || c->off || node_known(h->node).size > (int64_t)WINDOW_WHOLE_BYTES)
		return NULL;
	h->begun = true;
	if (engine_get_state(m->engine, NULL) != ENGINE_ONLINE)
		return NULL;
	v.program = find_program(p, (uint64_t)fuse_req_ctx(c->req)->pid);
	n = siblings_read(&v.program->siblings, &view, h->node->id, files);
	v.unsized &= v.program->siblings.followed;
	if (v.unsized)
		ask_sizes(&v);
	b = n || v.unsized ? calloc(1, sizeof(*b)) : NULL;
	for (unsigned i = 0; b && i < n; i++)
		add(m, b, files[i]);
	return b;
}

void prefetch_send(struct mount *m, struct prefetch_batch *b)
{
	if (!b)
		return;
	for (unsigned i = 0; i < b->n; i++) {
		reader_fetch_ahead(m->reader, b->of[i]);
		reader_close(m->reader, b->of[i]);
		content_unref(b->of[i]);
	}
	free(b);
	lister_kick(m->lister); /* the probes */
}
