/* SPDX-License-Identifier: MIT */

/*
 * The rules of plan.h, whose numbers are those of the comments here. Each looks at one item and the
 * places it is known at and wants, and chooses the one call that may be sent for it now, or none:
 * what has to wait is left out, and decided anew when the caller plans again.
 *
 * Where names are unique, an item that is ready but for its place notes in its state for whom it
 * waits; plan_cycles.c follows that.
 */

#include <string.h>

#include "plan_private.h"

struct plan_entry *plan_choose(struct work *w, enum plan_kind kind, size_t i)
{
	const struct plan_item *it = &w->items[i];
	struct choice *c = &w->choices[w->n_choices++];

	*c = (struct choice){.kind = kind, .alone = it->alone, .entry = {.item = i, .other = NONE}};
	return &c->entry;
}

/* Out-of-range sizes go in two steps: a filler, and the bytes by replacing it (P-1). */
static bool needs_filler(const struct remote_caps *caps, uint64_t size)
{
	return (caps->create_min_bytes && size < caps->create_min_bytes) ||
	       (caps->create_max_bytes && size > caps->create_max_bytes);
}

/* Contents are immutable: a gone one at @i's wanted place, whose identity will do for equal bytes. */
static size_t gone_at_place(const struct work *w, size_t i)
{
	const struct place *p = &w->places[w->states[i].wanted_at];
	size_t g = plan_keeps_id(w->caps) || p->wanter != i ? NONE : p->gone;

	for (; g != NONE; g = w->states[g].next_gone) {
		const struct plan_item *it = &w->items[g];
		size_t target;

		if (!it->busy && !it->unknown && !it->known_filler &&
		    (!it->open || it->content_local) &&
		    (!plan_must_stay(w, g, &target) || target == i))
			break;
	}
	return g;
}

void plan_choose_create(struct work *w, size_t i, const char *name)
{
	const struct plan_item *it = &w->items[i];
	struct plan_entry *e;

	/* the server would take it for a new version of what others put there */
	if (w->caps->names_unique && it->stale) {
		plan_choose(w, PLAN_VERIFY, i);
		return;
	}
	e = plan_choose(w, PLAN_CREATE, i);
	e->filler = plan_keeps_id(w->caps) && needs_filler(w->caps, it->size);
	e->set_name = true;
	e->set_record = true;
	e->set_mtime = !e->filler && w->caps->set_mtime;
	e->name = name;
	e->other = gone_at_place(w, i);
}

static bool name_to_send(const struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];

	return w->caps->rename_in_place &&
	       (!it->known_name_exact || strcmp(plan_known_name(it), plan_wanted_name(it)) != 0);
}

void plan_choose_replace(struct work *w, size_t i, bool set_name)
{
	const struct plan_item *it = &w->items[i];
	struct plan_entry *e;

	if (it->known_stale) {
		plan_choose(w, PLAN_VERIFY, i);
		return;
	}
	e = plan_choose(w, PLAN_REPLACE, i);
	e->set_name = set_name;
	e->set_mtime = w->caps->set_mtime;
	e->name = set_name ? plan_wanted_name(it) : plan_known_name(it);
}

/* It may be in another record by now, from where it is to be brought back. */
static bool must_place(const struct work *w, const struct plan_item *it)
{
	return it->known_place_doubt && w->caps->move_in_place;
}

void plan_choose_update(struct work *w, size_t i, const char *name)
{
	const struct plan_item *it = &w->items[i];
	struct plan_entry *e = plan_choose(w, PLAN_UPDATE, i);

	e->set_name = name || name_to_send(w, i);
	e->set_record = !name && (it->record != it->known_record || must_place(w, it));
	e->set_mtime = !plan_differs(it) && w->caps->set_mtime && it->mtime_differs;
	e->name = name ? name : plan_wanted_name(it);
}

bool plan_must_stay(const struct work *w, size_t g, size_t *ret_target)
{
	size_t target = plan_find_node(w, w->items[g].after);
	const struct plan_item *t;

	if (target == NONE)
		return false;
	t = &w->items[target];
	*ret_target = target;
	return !t->is_record && !t->gone && !t->local && (!t->known || plan_differs(t));
}

enum way {
	WAY_FREE, /* go */
	WAY_TAKE, /* adopt the gone item's identity */
	WAY_KEEP, /* the same, but its bytes are read by someone and must come here first */
	WAY_WAIT,
};

/* Which gone item at @i's wanted place it could take over, the best one first. */
static enum way way_over_gone(const struct work *w, size_t i, size_t *ret_gone)
{
	const struct place *p = &w->places[w->states[i].wanted_at];
	enum way way = WAY_FREE;

	for (size_t g = p->gone; g != NONE; g = w->states[g].next_gone) {
		const struct plan_item *it = &w->items[g];
		bool needed = it->open && !it->content_local;
		size_t target = NONE;

		if (w->caps->names_unique && g != p->holder)
			break; /* the same file once more */
		if (it->busy || it->unknown || (needed && it->parked)) {
			way = way == WAY_FREE ? WAY_WAIT : way;
		} else if (plan_must_stay(w, g, &target) && target != i) {
			continue;
		} else if (needed) {
			way = WAY_KEEP;
			*ret_gone = g;
		} else {
			*ret_gone = g;
			return WAY_TAKE;
		}
	}
	return way;
}

/* Names are unique: whether and for whom to wait. */
static bool is_taken(const struct work *w, size_t i, size_t *ret_waits, bool *ret_content)
{
	const struct place *p = &w->places[w->states[i].wanted_at];

	*ret_waits = NONE;
	*ret_content = false;
	if (p->wanter != i || (p->flight != NONE && p->flight != i))
		return true;
	if (p->holder == NONE || p->holder == i)
		return false;
	if (!w->items[p->holder].gone) {
		*ret_waits = p->holder;
		return true;
	}
	if (plan_must_stay(w, p->holder, ret_waits) && *ret_waits != i) {
		*ret_content = true;
		return true;
	}
	*ret_waits = NONE;
	return false;
}

/*
 * What is in the way of @i being sent to its wanted place. @ready: nothing else than the way is
 * missing.
 */
static enum way find_way(struct work *w, size_t i, bool ready, size_t *ret_gone)
{
	struct state *s = &w->states[i];

	if (w->caps->names_unique) {
		size_t waits;
		bool content;

		if (is_taken(w, i, &waits, &content)) {
			if (ready) {
				s->waits = waits;
				s->waits_content = content;
			}
			return WAY_WAIT;
		}
	} else if (w->places[s->wanted_at].wanter != i) {
		return WAY_FREE;
	}
	return plan_keeps_id(w->caps) ? way_over_gone(w, i, ret_gone) : WAY_FREE;
}

static void choose_adopt(struct work *w, size_t i, enum way way, size_t gone)
{
	if (way == WAY_TAKE)
		plan_choose(w, PLAN_ADOPT, i)->other = gone;
	else
		plan_choose(w, PLAN_FETCH, gone);
}

/* Rule 5, and 4 for those that are not on the server. */
static void decide_new(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	size_t gone = NONE;
	enum way way;

	if (it->local)
		return;
	if (!it->content_local) {
		plan_choose(w, PLAN_FETCH, i);
		return;
	}
	if (!it->content_settled)
		return;
	way = find_way(w, i, true, &gone);
	if (way == WAY_FREE)
		plan_choose_create(w, i, plan_wanted_name(it));
	else if (way != WAY_WAIT)
		choose_adopt(w, i, way, gone);
}

/* Rule 6, and 7 for what needs no other place. */
static void decide_in_place(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	bool set_name = name_to_send(w, i), content;
	size_t waits;

	if (plan_differs(it) && !it->content_local) {
		plan_choose(w, PLAN_FETCH, i);
		return;
	}
	if (w->caps->names_unique && is_taken(w, i, &waits, &content))
		return;
	if (must_place(w, it)) {
		if (it->name_settled)
			plan_choose_update(w, i, NULL);
		return;
	}
	if (plan_differs(it) && it->content_settled) {
		if (plan_keeps_id(w->caps))
			plan_choose_replace(w, i, set_name);
		else
			plan_choose_create(w, i, plan_wanted_name(it));
		return;
	}
	if (it->name_settled &&
	    (set_name || (!plan_differs(it) && w->caps->set_mtime && it->mtime_differs)))
		plan_choose_update(w, i, NULL);
}

bool plan_can_update(const struct remote_caps *caps, const struct plan_item *it)
{
	if (strcmp(plan_known_name(it), plan_wanted_name(it)) != 0 && !caps->rename_in_place)
		return false;
	if (it->record == it->known_record)
		return true;
	return caps->move_in_place &&
	       (it->collection == it->known_collection || caps->move_between_collections);
}

/* Rule 7 with a free way. @settled: an upload may be sent. */
static void decide_free_move(struct work *w, size_t i, bool settled)
{
	const struct plan_item *it = &w->items[i];

	if (!plan_can_update(w->caps, it)) {
		if (settled && it->content_local)
			plan_choose_create(w, i, plan_wanted_name(it));
		else if (settled)
			plan_choose(w, PLAN_FETCH, i);
	} else if (plan_differs(it) && it->content_settled && it->record == it->known_record &&
		   plan_keeps_id(w->caps) && !must_place(w, it)) {
		plan_choose_replace(w, i, true);
	} else if (it->name_settled) {
		plan_choose_update(w, i, NULL);
	}
}

/* Rule 7, and 4 for those known elsewhere. */
static void decide_moved(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	bool settled = it->name_settled && (!plan_differs(it) || it->content_settled);
	bool can = plan_can_update(w->caps, it);
	size_t gone = NONE;
	enum way way;

	if (plan_differs(it) && !it->content_local) {
		plan_choose(w, PLAN_FETCH, i);
		return;
	}
	way = find_way(w, i, settled && (can || it->content_local), &gone);
	switch (way) {
	case WAY_FREE:
		decide_free_move(w, i, settled);
		break;
	case WAY_TAKE:
	case WAY_KEEP:
		if (!settled)
			break;
		if (it->content_local)
			choose_adopt(w, i, way, gone);
		else if (can && !plan_differs(it) && !w->caps->names_unique)
			plan_choose_update(w, i, NULL);
		else
			plan_choose(w, PLAN_FETCH, i);
		break;
	case WAY_WAIT:
		if (settled && !can && !it->content_local)
			plan_choose(w, PLAN_FETCH,
				    i); /* it will be needed: meanwhile is a good time */
		break;
	}
}

bool plan_is_there(const struct work *w, size_t i)
{
	return w->items[i].known && !w->items[i].known_filler &&
	       w->states[i].known_at == w->states[i].wanted_at;
}

/* Rules 2 and 3. */
static void decide_gone(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	const struct place *p;
	size_t target;

	if (!it->known) {
		plan_choose(w, PLAN_FORGET, i);
		return;
	}
	p = &w->places[w->states[i].known_at];
	if (w->caps->names_unique && p->holder != i) {
		plan_choose(w, PLAN_FORGET,
			    i); /* the one file of that name is another's: a delete by
					      name would hit it (S-13) */
		return;
	}
	if (!it->name_settled || (it->open && !it->content_local) || plan_must_stay(w, i, &target))
		return;
	if (p->wanter != NONE && !plan_is_there(w, p->wanter))
		return;
	if (w->caps->names_unique && p->flight != NONE && p->flight != i)
		return;
	plan_choose(w, it->known_stale ? PLAN_VERIFY : PLAN_REMOVE, i);
}

static void decide_record(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	/* a name that was taken back may be the server's all the same */
	bool set_name = w->caps->rename_records &&
			(!it->known_name_exact ||
			 strcmp(plan_known_name(it), plan_wanted_name(it)) != 0);
	struct plan_entry *e;

	if (it->gone || !it->known || !it->name_settled ||
	    (!set_name && !(it->fields_differ && w->caps->set_fields)))
		return;
	e = plan_choose(w, PLAN_UPDATE_RECORDS, i);
	e->set_name = set_name;
	e->name = plan_wanted_name(it);
}

void plan_decide(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];

	if (it->busy || it->parked)
		return;
	if (it->unknown)
		plan_choose(w, PLAN_LOOK, i);
	else if (it->is_record)
		decide_record(w, i);
	else if (it->gone)
		decide_gone(w, i);
	else if (!it->known)
		decide_new(w, i);
	else if (it->local && w->places[w->states[i].wanted_at].wanter != i)
		return;
	else if (w->states[i].known_at == w->states[i].wanted_at)
		decide_in_place(w, i);
	else
		decide_moved(w, i);
}
