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

#define NAME_MOST_MS 2000 /* names and deletes: so long after the first of them at most */
#define LONG_BURST   8	  /* so many of them: a script is at work, */
#define LONG_IDLE_MS 1000 /* which may be slow, and has more of them */
#define LONG_MOST_MS 5000
#define HEIR_MOST_MS 300000 /* so long a name waits for what is being written in its place */
/*
 * What the server said is good for so long. Long enough for what waits for a place among the
 * uploads, short as what follows is the chance of overwriting what nobody here has seen.
 */
#define FRESH_MS 2000

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

static int64_t settle_ms(const struct sync *s)
{
	return (int64_t)(s->m->options->settle_s * 1000);
}

/* When the first and the last of a burst changed. */
struct burst {
	int64_t oldest, newest;
	size_t count;
};

static void add_to_burst(struct burst *b, int64_t ms)
{
	if (!b->count || ms > b->newest)
		b->newest = ms;
	if (!b->count || ms < b->oldest)
		b->oldest = ms;
	b->count++;
}

/* Whether a burst is over, or has lasted long enough. */
static bool is_over(struct sync_view *v, const struct burst *b, int64_t idle_ms, int64_t most_ms)
{
	int64_t ms = b->newest + idle_ms < b->oldest + most_ms ? b->newest + idle_ms
							       : b->oldest + most_ms;

	if (!b->count || v->now_ms >= ms)
		return true;
	due_at(v, ms);
	return false;
}

/*
 * Names and deletes go in bursts (a shell loop of mv): wait until the burst is over, but not for
 * ever. Where the server cannot rename, a new name is an upload, and rests as long as one.
 */
static void settle_names(struct sync *s, struct sync_view *v)
{
	struct burst names = {0}, moves = {0};
	int64_t rest_ms = settle_ms(s);
	int64_t most_ms = rest_ms > NAME_MOST_MS ? rest_ms : NAME_MOST_MS;
	bool is_long;

	for (const struct node *n = s->m->tree->sync_first; n; n = n->more->sync_next) {
		if (n->busy || n->error || n->more->name_ms <= s->flush_ms)
			continue;
		add_to_burst(&names, n->more->name_ms);
		if (n->kind == NODE_FILE && node_rid(n) && !n->gone)
			add_to_burst(&moves, n->more->name_ms);
	}
	is_long = names.count >= LONG_BURST;
	v->names_settled =
		s->draining || is_over(v, &names, is_long ? LONG_IDLE_MS : SYNC_NAME_IDLE_MS,
				       is_long ? LONG_MOST_MS : NAME_MOST_MS);
	v->moves_settled = s->draining || s->m->remote->caps.rename_in_place ||
			   s->m->options->write == OPTIONS_WRITE_THROUGH ||
			   is_over(v, &moves, rest_ms, most_ms);
}

static bool content_settled(struct sync *s, struct sync_view *v, const struct node *n)
{
	/* with write=through somebody waits for it, but for an empty one, see ops_file.c */
	if (s->draining || n->more->sealed_ms <= s->flush_ms ||
	    (s->m->options->write == OPTIONS_WRITE_THROUGH && n->size != 0))
		return true;
	/* somebody is writing on: what was committed is whole, but about to be replaced */
	if (node_being_written(n))
		return false;
	if (v->now_ms - n->more->sealed_ms >= settle_ms(s))
		return true;
	due_at(v, n->more->sealed_ms + settle_ms(s));
	return false;
}

/*
 * A program is writing what will be in the place of @n on the server, which it has moved away or
 * removed just now: an editor that saves. Before that is whole, the name is not settled: removed or
 * not, @n is then known to be what the new bytes replace, or a backup that stays.
 */
static bool is_being_replaced(struct sync *s, struct sync_view *v, const struct node *n,
			      const char *known_name)
{
	struct tree *t = s->m->tree;
	const struct node *record = tree_find_locked(t, node_known(n).record);
	const struct node *heir =
		record && known_name ? tree_child_locked(t, record, known_name) : NULL;

	if (v->now_ms - n->more->name_ms >= HEIR_MOST_MS || !heir || heir == n ||
	    heir->kind != NODE_FILE || node_rid(heir) || heir->local ||
	    (heir->in_ledger && content_settled(s, v, heir)))
		return false;
	due_at(v, n->more->name_ms + HEIR_MOST_MS);
	return true;
}

static bool name_settled(struct sync *s, struct sync_view *v, const struct node *n,
			 const char *known_name)
{
	if (!v->names_settled)
		return false;
	if (n->kind != NODE_FILE || !node_rid(n) || s->draining || n->more->name_ms <= s->flush_ms)
		return true;
	return (n->gone || v->moves_settled) && !is_being_replaced(s, v, n, known_name);
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
	const struct known known = node_known(n);
	char shown[NAMES_MAX + 1];
	const char *kept;

	if (!node_rid(n))
		return NULL;
	if (node_name_matches(s->m->tree, n))
		return n->shown;
	node_known_shown(s->m->tree, &known, shown);
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

/* Told by the server since the user's last change, and lately. */
static bool is_confirmed(const struct sync_view *v, const struct node *at, int64_t changed_ms)
{
	int64_t confirmed_ms = node_known(at).confirmed_ms;

	return confirmed_ms && confirmed_ms >= changed_ms && v->now_ms - confirmed_ms <= FRESH_MS;
}

static int64_t changed_ms(const struct node *n)
{
	return n->more->sealed_ms > n->more->name_ms ? n->more->sealed_ms : n->more->name_ms;
}

/*
 * Whether others may have changed a file of @record since it was last seen. What is immutable, and
 * removed by its id, is what it was.
 */
static bool is_stale(struct sync *s, const struct sync_view *v, const struct node *n,
		     uint64_t record)
{
	const struct remote_caps *caps = &s->m->remote->caps;
	struct node *dir = tree_find_locked(s->m->tree, record);
	struct node *top =
		dir && dir->kind == NODE_RECORD ? tree_collection_of_locked(s->m->tree, dir) : NULL;

	if ((!caps->replace_keeps_id && !caps->names_unique) || !top)
		return false;
	return !is_confirmed(v, dir, changed_ms(n)) && !is_confirmed(v, top, changed_ms(n));
}

/*
 * A listing for each file of a long row of saves would be a call for each: where the record was
 * listed a moment ago, the next ones wait for one another.
 */
static bool must_gather(struct sync *s, struct sync_view *v, const struct node *n, uint64_t record)
{
	int64_t most_ms = settle_ms(s), until_ms = 0;
	struct node *dir = tree_find_locked(s->m->tree, record);
	struct node *top = dir ? tree_collection_of_locked(s->m->tree, dir) : NULL;

	if (s->draining || changed_ms(n) <= s->flush_ms ||
	    s->m->options->write == OPTIONS_WRITE_THROUGH)
		return false;
	if (most_ms > FRESH_MS)
		most_ms = FRESH_MS;
	if (dir && node_known(dir).confirmed_ms)
		until_ms = node_known(dir).confirmed_ms + most_ms;
	if (top && node_known(top).confirmed_ms &&
	    node_known(top).confirmed_ms + most_ms > until_ms)
		until_ms = node_known(top).confirmed_ms + most_ms;
	if (until_ms <= v->now_ms)
		return false;
	due_at(v, until_ms);
	return true;
}

static void view_node(struct sync *s, struct sync_view *v, struct node *n)
{
	struct tree *t = s->m->tree;
	bool record = n->kind == NODE_RECORD, waits = n->more->retry_at_ms > v->now_ms;
	struct plan_item *i = &v->items[v->n];
	const struct known known = node_known(n);
	const char *known_shown = known_name(s, v, n);

	if (waits)
		due_at(v, n->more->retry_at_ms);
	v->nodes[v->n++] = n;
	*i = (struct plan_item){
		.node = n->id,
		.is_record = record,
		.known = node_rid(n) != NULL,
		.known_record = known.record,
		.known_collection = record ? known.record : collection_id(t, known.record),
		.known_name = known_shown,
		.known_name_exact = !known_is_tokened(&known) && n->flight != LEDGER_FLIGHT_UPDATE,
		.known_place_doubt = node_rid(n) && n->flight == LEDGER_FLIGHT_UPDATE,
		.known_filler = known.filler,
		.known_stale = !record && node_rid(n) && !is_confirmed(v, n, changed_ms(n) + 1) &&
			       is_stale(s, v, n, known.record),
		.stale = !record && n->parent && is_stale(s, v, n, n->parent->id),
		.gone = n->gone,
		.local = n->local,
		.record = n->parent ? n->parent->id : 0,
		.collection = record || !n->parent ? 0 : collection_id(t, n->parent->id),
		.name = n->shown,
		.content_differs = n->dirty && !n->gone,
		.content_local = content_local(s, n),
		.mtime_differs = n->mtime_dirty,
		.fields_differ = n->more->fields != NULL,
		.size = n->size < 0 ? 0 : (uint64_t)n->size,
		.busy = n->busy || waits,
		.parked = n->error != 0,
		.unknown = n->unknown,
		.open = n->more->n_open > 0,
		.content_settled = content_settled(s, v, n),
		.name_settled = name_settled(s, v, n, known_shown),
		.after = n->more->after,
		.flight_record = n->flight != LEDGER_FLIGHT_NONE ? sync_look_record(n) : 0,
		.flight_name = flight_name(v, n),
	};
	if (record)
		i->collection = n->parent ? n->parent->id : 0;
	if ((i->known_stale || i->stale) && must_gather(s, v, n, plan_stale_record(i)))
		i->busy = true;
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
	for (struct node *n = t->sync_first; n; n = n->more->sync_next)
		view_node(s, v, n);
	return 0;
}
