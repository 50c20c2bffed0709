/* SPDX-License-Identifier: MIT */

/* What is left to be sent: counted, told, waited for. */

#include <errno.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "sync_private.h"

#define TELL_MOST 5 /* names of what is left at the end */

const char *sync_what_differs(const struct node *n)
{
	/* deleted while its upload is on its way: something may be on the server in a moment */
	if (n->gone)
		return node_rid(n) || n->busy || n->unknown ? "delete" : NULL;
	if (n->kind == NODE_FILE && (n->dirty || !node_rid(n) || n->unknown))
		return "upload";
	return n->more->fields ? "record fields" : "rename";
}

bool sync_is_held_locked(const struct sync *s)
{
	const struct tree *t = s->m->tree;
	const struct node *n = t->sync_first;

	if (!s->held_at || s->held_at != t->changes)
		return false;
	while (n && !n->error)
		n = n->more->sync_next;
	return n;
}

static void count_node(const struct node *n, struct sync_counts *c)
{
	const char *what = sync_what_differs(n);

	if (!what)
		return;
	if (n->error)
		c->failed++;
	else if (*what == 'd')
		c->deletes++;
	else if (*what == 'r')
		c->renames++;
	else {
		c->uploads++;
		c->bytes += n->size > 0 ? (uint64_t)n->size : 0;
	}
}

/* What is unlinked is where the server has it. */
static bool is_below(const struct sync *s, const struct node *n, uint64_t node)
{
	while (n && n->id != node)
		n = n->parent		   ? n->parent
		    : node_known(n).record ? tree_find_locked(s->m->tree, node_known(n).record)
					   : NULL;
	return n;
}

static void get_counts(struct sync *s, uint64_t node, struct sync_counts *ret_counts)
{
	struct sync_counts c = {0};

	tree_lock(s->m->tree);
	for (const struct node *n = s->m->tree->sync_first; n; n = n->more->sync_next)
		if (!node || is_below(s, n, node))
			count_node(n, &c);
	c.in_flight = s->in_flight;
	c.done = s->done;
	c.bytes_sent = s->bytes_sent;
	tree_unlock(s->m->tree);
	*ret_counts = c;
}

void sync_get_counts(struct sync *s, struct sync_counts *ret_counts)
{
	get_counts(s, 0, ret_counts);
}

uint64_t sync_mark(struct sync *s)
{
	uint64_t mark;

	sync_flush(s);
	tree_lock(s->m->tree);
	mark = s->m->tree->changes;
	tree_unlock(s->m->tree);
	return mark;
}

bool sync_passed(struct sync *s, uint64_t mark, uint64_t node, struct sync_counts *ret_counts)
{
	bool passed = true, held;

	tree_lock(s->m->tree);
	held = sync_is_held_locked(s);
	for (const struct node *n = s->m->tree->sync_first; n && passed; n = n->more->sync_next)
		passed = n->error || n->more->change > mark || !sync_what_differs(n) ||
			 (held && !node_being_written(n)) || (node && !is_below(s, n, node));
	tree_unlock(s->m->tree);
	get_counts(s, node, ret_counts);
	return passed;
}

bool sync_is_idle(const struct sync_counts *c)
{
	return !c->uploads && !c->renames && !c->deletes && !c->in_flight;
}

void sync_each(struct sync *s, bool parked,
	       void (*each)(void *ctx, const struct node *n, const char *what), void *ctx)
{
	tree_lock(s->m->tree);
	for (const struct node *n = s->m->tree->sync_first; n; n = n->more->sync_next)
		if (sync_what_differs(n) && (n->error != 0) == parked)
			each(ctx, n, sync_what_differs(n));
	tree_unlock(s->m->tree);
}

/*
 * What @n was on the server before and is to be removed yet, NULL = nothing: where contents are
 * immutable, both are there.
 */
static const struct node *find_left(struct sync *s, const struct node *n)
{
	for (const struct node *g = s->m->tree->sync_first; g; g = g->more->sync_next)
		if (g->gone && g->more->after == n->id && node_rid(g))
			return g;
	return NULL;
}

bool sync_node_locked(struct sync *s, struct node *n, int *ret_error)
{
	const struct node *left = n->gone ? NULL : find_left(s, n);
	bool differs = n->gone ? sync_what_differs(n) != NULL : node_differs(s->m->tree, n);

	*ret_error = differs ? n->error : left ? left->error : 0;
	if ((!differs && !left) || *ret_error)
		return true;
	node_more(n)->sealed_ms = node_more(n)->name_ms = 0;
	sync_wake(s);
	return false;
}

void sync_tell_left(struct sync *s, const struct sync_counts *c)
{
	unsigned named = 0, more = 0;

	if (!(c->uploads + c->renames + c->deletes + c->failed))
		return;
	log_warning("sync: kept for the next mount: %llu uploads (%llu bytes), %llu renames, %llu "
		    "deletes, %llu failed",
		    (unsigned long long)c->uploads, (unsigned long long)c->bytes,
		    (unsigned long long)c->renames, (unsigned long long)c->deletes,
		    (unsigned long long)c->failed);
	tree_lock(s->m->tree);
	for (const struct node *n = s->m->tree->sync_first; n; n = n->more->sync_next) {
		const char *what = sync_what_differs(n);
		const struct node *dir =
			n->parent ? n->parent : tree_find_locked(s->m->tree, node_known(n).record);

		if (!what)
			continue;
		if (named++ >= TELL_MOST)
			more++;
		else
			log_warning("sync: kept: %s '%s/%s'%s%s", what, dir ? dir->shown : "",
				    n->shown, n->more->message && *n->more->message ? ": " : "",
				    n->more->message ? n->more->message : "");
	}
	tree_unlock(s->m->tree);
	if (more)
		log_warning("sync: kept: ... and %u more", more);
}
