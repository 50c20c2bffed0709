/* SPDX-License-Identifier: MIT */

/*
 * What the plan sees of the nodes that differ: the two halves, what is on its way, and what has
 * settled.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/names.h>

#include "sync_private.h"

#define NAME_MOST_MS 2000 /* ... or the first */

void sync_view_clear(struct sync_view *v)
{
	for (size_t i = 0; i < v->n_names; i++)
		free(v->names[i]);
	free(v->names);
	free(v->items);
	free(v->nodes);
}

static void due_at(struct sync_view *v, int64_t ms)
{
	if (ms > v->now_ms && ms < v->next_ms)
		v->next_ms = ms;
}

/*
 * Names and deletes go in bursts (a shell loop of mv): wait until the burst is over, but not for
 * ever.
 */
static void settle_names(struct sync *s, struct sync_view *v)
{
	int64_t newest = 0, oldest = INT64_MAX;

	for (const struct node *n = s->m->tree->sync_first; n; n = n->sync_next) {
		if (n->busy || n->error || n->name_ms <= s->flush_ms)
			continue;
		if (n->name_ms > newest)
			newest = n->name_ms;
		if (n->name_ms < oldest)
			oldest = n->name_ms;
	}
	v->names_settled = !newest || s->draining || v->now_ms - newest >= SYNC_NAME_IDLE_MS ||
			   v->now_ms - oldest >= NAME_MOST_MS;
	if (!v->names_settled)
		due_at(v, newest + SYNC_NAME_IDLE_MS < oldest + NAME_MOST_MS
				  ? newest + SYNC_NAME_IDLE_MS
				  : oldest + NAME_MOST_MS);
}

static bool content_settled(struct sync *s, struct sync_view *v, const struct node *n)
{
	int64_t settle_ms = (int64_t)(s->m->options->settle_s * 1000);

	if (s->draining || n->sealed_ms <= s->flush_ms ||
	    s->m->options->write == OPTIONS_WRITE_THROUGH)
		return true;
	/* somebody is writing on: what was committed is whole, but about to be replaced */
	if (node_being_written(n))
		return false;
	if (v->now_ms - n->sealed_ms >= settle_ms)
		return true;
	due_at(v, n->sealed_ms + settle_ms);
	return false;
}

static bool content_local(struct sync *s, const struct node *n)
{
	struct content *c;
	bool local;

	if (!n->content && (n->dirty || n->size == 0))
		return true;
	c = node_content(s->m->tree, n);
	if (!c)
		return false;
	local = content_is_local(c);
	content_unref(c);
	return local;
}

/* A copy that lives as long as the view; NULL without memory. */
static const char *keep_name(struct sync_view *v, const char *name)
{
	char **names = realloc(v->names, (v->n_names + 1) * sizeof(*names));

	if (!names)
		return NULL;
	v->names = names;
	names[v->n_names] = strdup(name);
	return names[v->n_names] ? names[v->n_names++] : NULL;
}

static const char *known_name(struct sync *s, struct sync_view *v, const struct node *n)
{
	char shown[NAMES_MAX + 1];
	const char *kept;

	if (!n->known.rid)
		return NULL;
	if (node_name_matches(s->m->tree, n))
		return n->shown;
	node_known_shown(s->m->tree, &n->known, shown);
	kept = keep_name(v, shown);
	return kept ? kept : n->shown;
}

/* Where a call in the air, or of unknown outcome, puts it; as shown, NULL = nowhere new. */
static const char *flight_name(struct sync_view *v, const struct node *n)
{
	const char *name = n->flight != LEDGER_FLIGHT_NONE ? node_flight_name(n) : NULL;
	char shown[NAMES_MAX + 1];

	if (!name)
		return NULL;
	names_encode(name, strlen(name), "0", shown, NULL);
	return keep_name(v, shown);
}

static uint64_t collection_id(struct tree *t, uint64_t record)
{
	struct node *dir = record ? tree_find_locked(t, record) : NULL;

	dir = dir ? tree_collection_of_locked(t, dir) : NULL;
	return dir ? dir->id : 0;
}

static void view_node(struct sync *s, struct sync_view *v, struct node *n)
{
	struct tree *t = s->m->tree;
	bool record = n->kind == NODE_RECORD, waits = n->retry_at_ms > v->now_ms;
	struct plan_item *i = &v->items[v->n];

	if (waits)
		due_at(v, n->retry_at_ms);
	v->nodes[v->n++] = n;
	*i = (struct plan_item){
		.node = n->id,
		.is_record = record,
		.known = n->known.rid != NULL,
		.known_record = n->known.record,
		.known_collection = record ? n->known.record : collection_id(t, n->known.record),
		.known_name = known_name(s, v, n),
		.known_name_exact =
			!known_is_tokened(&n->known) && n->flight != LEDGER_FLIGHT_UPDATE,
		.known_filler = n->known.filler,
		.gone = n->gone,
		.local = n->local,
		.record = n->parent ? n->parent->id : 0,
		.collection = record || !n->parent ? 0 : collection_id(t, n->parent->id),
		.name = n->shown,
		.content_differs = n->dirty && !n->gone,
		.content_local = content_local(s, n),
		.mtime_differs = n->mtime_dirty,
		.fields_differ = n->fields != NULL,
		.size = n->size < 0 ? 0 : (uint64_t)n->size,
		.busy = n->busy || waits,
		.parked = n->error != 0,
		.unknown = n->unknown,
		.open = n->n_open > 0,
		.content_settled = content_settled(s, v, n),
		.name_settled = v->names_settled,
		.after = n->after,
		.flight_record = n->flight != LEDGER_FLIGHT_NONE ? sync_look_record(n) : 0,
		.flight_name = flight_name(v, n),
	};
	if (record)
		i->collection = n->parent ? n->parent->id : 0;
}

int sync_view_build(struct sync *s, struct sync_view *v)
{
	struct tree *t = s->m->tree;

	*v = (struct sync_view){.now_ms = clock_mono_ms(), .next_ms = INT64_MAX};
	v->items = calloc(t->n_sync + 1, sizeof(*v->items));
	v->nodes = calloc(t->n_sync + 1, sizeof(*v->nodes));
	if (!v->items || !v->nodes)
		return -ENOMEM;
	settle_names(s, v);
	for (struct node *n = t->sync_first; n; n = n->sync_next)
		view_node(s, v, n);
	return 0;
}
