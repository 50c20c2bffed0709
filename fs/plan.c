/* SPDX-License-Identifier: MIT */
#include "plan.h"

/*
 * How: every (record, name) that an item is known at, wants, or is on its way to gets a number, a
 * *place*, by one hash table. A place knows who holds it on the server, who was deleted there and
 * who wants to be there. With that each item's rule of plan.h is a few comparisons; each item ends
 * with at most one choice; the choices are sorted by kind and group and cut into calls. All of it
 * is linear but for the sorting.
 *
 * Who may wait for whom matters only where names are unique (ServiceMax: a POST to a taken name is
 * a new version of what stands there, S-15, and a delete goes by name, S-13). There an item waits
 * for one other: the holder of its place, or the item whose content must arrive before a deleted
 * holder may be overwritten. Following that one edge finds the cycles, and one member of each is
 * sent elsewhere for a while.
 */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define NONE SIZE_MAX

struct place {
	uint64_t record;
	const char *name;
	size_t holder; /* known there: a live item before a gone one, then the first */
	size_t gone;   /* first of the gone ones known there; state.next_gone goes on */
	size_t wanter; /* live and to be sent there; others that want the same place too are not
			  served */
	size_t flight; /* a call in the air puts it there */
};

struct state {
	size_t known_at, wanted_at; /* places or NONE */
	size_t next_gone;
	size_t waits;	    /* unique names: the item that must act first */
	size_t walk;	    /* cycle search: number of the walk that came by, 0 = none yet */
	bool waits_content; /* the edge is there for that item's content, not for its place */
};

struct choice {
	enum plan_kind kind;
	bool alone;
	uint64_t group;
	size_t first; /* first item of its group: groups go in the order of these */
	struct plan_entry entry;
};

struct work {
	const struct remote_caps *caps;
	const struct plan_item *items;
	size_t n;
	struct state *states;
	struct place *places;
	size_t n_places;
	size_t *place_slots, *node_slots; /* open addressing: number + 1 */
	size_t mask;
	struct choice *choices;
	size_t n_choices;
	char **names; /* temporary ones; the plan takes them over */
	size_t n_names;
	int error;
};

/* Where names are unique, a create on a taken name replaces: as good as a replace that keeps the
 * id. */
static bool keeps_id(const struct remote_caps *caps)
{
	return caps->replace_keeps_id || caps->names_unique;
}

static bool differs(const struct plan_item *it)
{
	return it->content_differs || it->known_filler;
}

static const char *known_name(const struct plan_item *it)
{
	return it->known_name ? it->known_name : "";
}

static const char *wanted_name(const struct plan_item *it)
{
	return it->name ? it->name : "";
}

/* Where the call that is in the air, or of unknown outcome, went. */
static uint64_t flight_record(const struct plan_item *it)
{
	if (it->flight_record)
		return it->flight_record;
	return it->gone && it->known ? it->known_record : it->record;
}

/* The slot of a place: its own when it has a number, else the free one where it would go. */
static size_t *place_slot(const struct work *w, uint64_t record, const char *name)
{
	size_t at = (size_t)XXH3_64bits_withSeed(name, strlen(name), record) & w->mask;

	while (w->place_slots[at]) {
		const struct place *p = &w->places[w->place_slots[at] - 1];

		if (p->record == record && strcmp(p->name, name) == 0)
			break;
		at = (at + 1) & w->mask;
	}
	return &w->place_slots[at];
}

static size_t place_number(struct work *w, uint64_t record, const char *name)
{
	size_t *slot = place_slot(w, record, name);

	if (!*slot) {
		w->places[w->n_places] = (struct place){
			.record = record,
			.name = name,
			.holder = NONE,
			.gone = NONE,
			.wanter = NONE,
			.flight = NONE,
		};
		*slot = ++w->n_places;
	}
	return *slot - 1;
}

static size_t *node_slot(const struct work *w, uint64_t node)
{
	size_t at = (size_t)((node * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & w->mask;

	while (w->node_slots[at] && w->items[w->node_slots[at] - 1].node != node)
		at = (at + 1) & w->mask;
	return &w->node_slots[at];
}

static size_t find_node(const struct work *w, uint64_t node)
{
	return node ? *node_slot(w, node) - 1 : NONE; /* 0 - 1 is NONE */
}

static void work_free(struct work *w)
{
	free(w->states);
	free(w->places);
	free(w->place_slots);
	free(w->node_slots);
	free(w->choices);
	for (size_t k = 0; k < w->n_names; k++)
		free(w->names[k]);
	free(w->names);
}

static void index_known(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	struct place *p;

	if (!it->known)
		return;
	w->states[i].known_at = place_number(w, it->known_record, known_name(it));
	p = &w->places[w->states[i].known_at];
	if (it->gone) {
		w->states[i].next_gone = p->gone;
		p->gone = i;
	}
	/* Comes from the last item to the first: the first one stays, and a live one is not pushed
	 * out. */
	if (p->holder == NONE || !it->gone || w->items[p->holder].gone)
		p->holder = i;
}

static void index_flight(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];

	if ((it->busy || it->unknown) && it->flight_name)
		w->places[place_number(w, flight_record(it), it->flight_name)].flight = i;
}

static void index_wanted(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	struct place *p;

	if (it->gone)
		return;
	w->states[i].wanted_at = place_number(w, it->record, wanted_name(it));
	p = &w->places[w->states[i].wanted_at];
	if (!it->local)
		p->wanter = i;
}

/*
 * A file of the server with a local name now is left alone there; but where names are unique and @i
 * wants its place, it has to be moved out of the way, under its local name, and so on with who is
 * there.
 */
static void push_away(struct work *w, size_t i)
{
	for (;;) {
		size_t holder = w->places[w->states[i].wanted_at].holder;
		struct place *next;

		if (holder == NONE || holder == i || w->items[holder].gone ||
		    !w->items[holder].local)
			return;
		next = &w->places[w->states[holder].wanted_at];
		if (w->states[holder].known_at == w->states[holder].wanted_at ||
		    next->wanter != NONE)
			return;
		next->wanter = holder;
		i = holder;
	}
}

static int work_index(struct work *w)
{
	size_t slots = 16;

	while (slots < 6 * w->n)
		slots *= 2;
	w->mask = slots - 1;
	w->states = calloc(w->n + 1, sizeof(*w->states));
	w->places = calloc(3 * w->n + 1, sizeof(*w->places));
	w->place_slots = calloc(slots, sizeof(*w->place_slots));
	w->node_slots = calloc(slots, sizeof(*w->node_slots));
	w->choices = calloc(w->n + 1, sizeof(*w->choices));
	if (!w->states || !w->places || !w->place_slots || !w->node_slots || !w->choices)
		return -ENOMEM;
	for (size_t i = w->n; i-- > 0;) {
		w->states[i] = (struct state){
			.known_at = NONE, .wanted_at = NONE, .next_gone = NONE, .waits = NONE};
		*node_slot(w, w->items[i].node) = i + 1;
		if (w->items[i].is_record)
			continue;
		index_known(w, i);
		index_flight(w, i);
		index_wanted(w, i);
	}
	for (size_t i = 0; i < w->n && w->caps->names_unique; i++) {
		if (w->states[i].wanted_at != NONE && !w->items[i].local)
			push_away(w, i);
	}
	return 0;
}

/* ---- the rules ---- */

static struct plan_entry *choose(struct work *w, enum plan_kind kind, size_t i)
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

static void choose_create(struct work *w, size_t i, const char *name)
{
	const struct plan_item *it = &w->items[i];
	struct plan_entry *e = choose(w, PLAN_CREATE, i);

	e->filler = keeps_id(w->caps) && needs_filler(w->caps, it->size);
	e->set_name = true;
	e->set_record = true;
	e->set_mtime = !e->filler && w->caps->set_mtime;
	e->name = name;
}

static bool name_to_send(const struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];

	return w->caps->rename_in_place &&
	       (!it->known_name_exact || strcmp(known_name(it), wanted_name(it)) != 0);
}

static void choose_replace(struct work *w, size_t i, bool set_name)
{
	const struct plan_item *it = &w->items[i];
	struct plan_entry *e = choose(w, PLAN_REPLACE, i);

	e->set_name = set_name;
	e->set_mtime = w->caps->set_mtime;
	e->name = set_name ? wanted_name(it) : known_name(it);
}

static void choose_update(struct work *w, size_t i, const char *name)
{
	const struct plan_item *it = &w->items[i];
	struct plan_entry *e = choose(w, PLAN_UPDATE, i);

	e->set_name = name || name_to_send(w, i);
	e->set_record = !name && it->record != it->known_record;
	e->set_mtime = !differs(it) && w->caps->set_mtime && it->mtime_differs;
	e->name = name ? name : wanted_name(it);
}

/* The content of the item that @g's identity or bytes are kept for has not arrived; *@ret_target is
 * that item. */
static bool must_stay(const struct work *w, size_t g, size_t *ret_target)
{
	size_t target = find_node(w, w->items[g].after);
	const struct plan_item *t;

	if (target == NONE)
		return false;
	t = &w->items[target];
	*ret_target = target;
	return !t->is_record && !t->gone && !t->local && (!t->known || differs(t));
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
		} else if (must_stay(w, g, &target) && target != i) {
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
	if (must_stay(w, p->holder, ret_waits) && *ret_waits != i) {
		*ret_content = true;
		return true;
	}
	*ret_waits = NONE;
	return false;
}

/* What is in the way of @i being sent to its wanted place. @ready: nothing else than the way is
 * missing. */
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
	return keeps_id(w->caps) ? way_over_gone(w, i, ret_gone) : WAY_FREE;
}

static void choose_adopt(struct work *w, size_t i, enum way way, size_t gone)
{
	if (way == WAY_TAKE)
		choose(w, PLAN_ADOPT, i)->other = gone;
	else
		choose(w, PLAN_FETCH, gone);
}

/* Rule 5, and 4 for those that are not on the server. */
static void decide_new(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	size_t gone = NONE;
	enum way way;

	if (it->local || !it->content_settled)
		return;
	if (!it->content_local) {
		choose(w, PLAN_FETCH, i);
		return;
	}
	way = find_way(w, i, true, &gone);
	if (way == WAY_FREE)
		choose_create(w, i, wanted_name(it));
	else if (way != WAY_WAIT)
		choose_adopt(w, i, way, gone);
}

/* Rule 6, and 7 for what needs no other place. */
static void decide_in_place(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	bool set_name = name_to_send(w, i), content;
	size_t waits;

	if (w->caps->names_unique && is_taken(w, i, &waits, &content))
		return;
	if (differs(it) && it->content_settled) {
		if (!it->content_local)
			choose(w, PLAN_FETCH, i);
		else if (keeps_id(w->caps))
			choose_replace(w, i, set_name);
		else
			choose_create(w, i, wanted_name(it));
		return;
	}
	if (it->name_settled &&
	    (set_name || (!differs(it) && w->caps->set_mtime && it->mtime_differs)))
		choose_update(w, i, NULL);
}

static bool can_update(const struct remote_caps *caps, const struct plan_item *it)
{
	if (strcmp(known_name(it), wanted_name(it)) != 0 && !caps->rename_in_place)
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

	if (!can_update(w->caps, it)) {
		if (settled && it->content_local)
			choose_create(w, i, wanted_name(it));
		else if (settled)
			choose(w, PLAN_FETCH, i);
	} else if (differs(it) && it->content_settled && it->record == it->known_record &&
		   keeps_id(w->caps)) {
		if (it->content_local)
			choose_replace(w, i, true);
		else
			choose(w, PLAN_FETCH, i);
	} else if (it->name_settled) {
		choose_update(w, i, NULL);
	}
}

/* Rule 7, and 4 for those known elsewhere. */
static void decide_moved(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	bool settled = it->name_settled && (!differs(it) || it->content_settled);
	bool can = can_update(w->caps, it);
	size_t gone = NONE;
	enum way way = find_way(w, i, settled && (can || it->content_local), &gone);

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
		else if (can && !differs(it) && !w->caps->names_unique)
			choose_update(w, i, NULL);
		else
			choose(w, PLAN_FETCH, i);
		break;
	case WAY_WAIT:
		if (settled && !can && !it->content_local)
			choose(w, PLAN_FETCH, i); /* it will be needed: meanwhile is a good time */
		break;
	}
}

static bool is_there(const struct work *w, size_t i)
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
		choose(w, PLAN_FORGET, i);
		return;
	}
	p = &w->places[w->states[i].known_at];
	if (w->caps->names_unique && p->holder != i) {
		choose(w, PLAN_FORGET, i); /* the one file of that name is another's: a delete by
					      name would hit it (S-13) */
		return;
	}
	if (!it->name_settled || (it->open && !it->content_local) || must_stay(w, i, &target))
		return;
	if (p->wanter != NONE && !is_there(w, p->wanter))
		return;
	if (w->caps->names_unique && p->flight != NONE && p->flight != i)
		return;
	choose(w, PLAN_REMOVE, i);
}

static void decide_record(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	struct plan_entry *e;

	if (!w->caps->rename_records || it->gone || !it->known || !it->name_settled ||
	    strcmp(known_name(it), wanted_name(it)) == 0)
		return;
	e = choose(w, PLAN_UPDATE_RECORDS, i);
	e->set_name = true;
	e->name = wanted_name(it);
}

static void decide(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];

	if (it->busy || it->parked)
		return;
	if (it->unknown)
		choose(w, PLAN_LOOK, i);
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

/* ---- cycles where names are unique ---- */

/* A name nobody has or wants in @record, the same every time: after a restart it is found again. */
static const char *temporary_name(struct work *w, uint64_t node, uint64_t record)
{
	char **names = reallocarray(w->names, w->n_names + 1, sizeof(*names));
	char *name;

	if (!names)
		return NULL;
	w->names = names;
	for (unsigned k = 0;; k++) {
		if (asprintf(&name, ".attachfs-%llu-%u.tmp", (unsigned long long)node, k) < 0)
			return NULL;
		if (!*place_slot(w, record, name))
			break;
		free(name);
	}
	names[w->n_names++] = name;
	return name;
}

static void choose_temporary(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	bool update = it->known && can_update(w->caps, it);
	const char *name = temporary_name(w, it->node, update ? it->known_record : it->record);

	if (!name)
		w->error = -ENOMEM;
	else if (update)
		choose_update(w, i, name);
	else
		choose_create(w, i, name);
}

/*
 * Everyone in the cycle that @start is in is ready but for its place. Where one waits for another's
 * content, that content goes to where its item stands now; else the smallest steps aside.
 */
static void break_cycle(struct work *w, size_t start)
{
	size_t smallest = start, needed = NONE;
	size_t i = start;

	do {
		if (w->states[i].waits_content)
			needed = w->states[i].waits;
		if (w->items[i].size < w->items[smallest].size)
			smallest = i;
		i = w->states[i].waits;
	} while (i != start);

	if (needed == NONE || !w->items[needed].known)
		choose_temporary(w, needed == NONE ? smallest : needed);
	else if (w->places[w->states[needed].known_at].holder != needed)
		return;
	else if (w->items[needed].content_local)
		choose_replace(w, needed, false);
	else
		choose(w, PLAN_FETCH, needed);
}

static void break_cycles(struct work *w)
{
	for (size_t i = 0; i < w->n; i++) {
		size_t at = i;

		while (at != NONE && !w->states[at].walk) {
			w->states[at].walk = i + 1;
			at = w->states[at].waits;
		}
		if (at != NONE && w->states[at].walk == i + 1 && w->states[at].waits != NONE)
			break_cycle(w, at);
	}
}

/* ---- into calls ---- */

/* In the order to send: what needs no call, what is cheap and many at a time, then what carries
 * bytes. */
static const unsigned char kind_rank[] = {
	[PLAN_FORGET] = 0,	   [PLAN_ADOPT] = 1,   [PLAN_LOOK] = 2,
	[PLAN_UPDATE_RECORDS] = 3, [PLAN_UPDATE] = 4,  [PLAN_REMOVE] = 5,
	[PLAN_FETCH] = 6,	   [PLAN_REPLACE] = 7, [PLAN_CREATE] = 8,
};

static size_t batch_limit(const struct remote_caps *caps, enum plan_kind kind)
{
	unsigned limit = 1;

	switch (kind) {
	case PLAN_FORGET:
	case PLAN_ADOPT:
	case PLAN_LOOK:
		return SIZE_MAX;
	case PLAN_FETCH:
	case PLAN_REPLACE:
		return 1;
	case PLAN_CREATE:
		limit = caps->batch_create;
		break;
	case PLAN_UPDATE:
	case PLAN_UPDATE_RECORDS:
		limit = caps->batch_update;
		break;
	case PLAN_REMOVE:
		limit = caps->batch_remove;
		break;
	}
	return limit ? limit : 1;
}

/* What must be equal in one call. */
static uint64_t group_of(const struct remote_caps *caps, enum plan_kind kind,
			 const struct plan_item *it)
{
	if (kind == PLAN_LOOK)
		return flight_record(it);
	if (kind == PLAN_UPDATE_RECORDS)
		return it->known_record;
	if (batch_limit(caps, kind) == 1)
		return 0;
	if (kind == PLAN_CREATE)
		return it->record;
	if (kind == PLAN_UPDATE || kind == PLAN_REMOVE)
		return caps->batch_spans_records ? 0 : it->known_record;
	return 0;
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int by_group(const void *a, const void *b)
{
	const struct choice *x = a, *y = b;
	int r = compare_u64(kind_rank[x->kind], kind_rank[y->kind]);

	if (r == 0)
		r = compare_u64(x->group, y->group);
	return r ? r : compare_u64(x->entry.item, y->entry.item);
}

static int by_sending(const void *a, const void *b)
{
	const struct choice *x = a, *y = b;
	int r = compare_u64(kind_rank[x->kind], kind_rank[y->kind]);

	if (r == 0)
		r = compare_u64(x->first, y->first);
	if (r == 0)
		r = compare_u64(x->alone, y->alone);
	return r ? r : compare_u64(x->entry.item, y->entry.item);
}

static bool same_group(const struct choice *a, const struct choice *b)
{
	return a->kind == b->kind && a->group == b->group;
}

static void sort_choices(struct work *w)
{
	struct choice *c = w->choices;

	for (size_t k = 0; k < w->n_choices; k++)
		c[k].group = group_of(w->caps, c[k].kind, &w->items[c[k].entry.item]);
	qsort(c, w->n_choices, sizeof(*c), by_group);
	for (size_t k = 0; k < w->n_choices; k++)
		c[k].first = k && same_group(&c[k], &c[k - 1]) ? c[k - 1].first : c[k].entry.item;
	qsort(c, w->n_choices, sizeof(*c), by_sending);
}

/* Whether @c joins the call that began with @first and has @n entries and @bytes. */
static bool joins(const struct work *w, const struct choice *c, const struct choice *first,
		  size_t n, uint64_t bytes)
{
	if (!same_group(c, first) || n >= batch_limit(w->caps, c->kind))
		return false;
	if (c->kind == PLAN_CREATE && bytes > PLAN_CREATE_BATCH_BYTES)
		return false;
	return c->kind == PLAN_FORGET || c->kind == PLAN_ADOPT || c->kind == PLAN_LOOK ||
	       (!c->alone && !first->alone);
}

static int cut_into_calls(const struct work *w, struct plan *p)
{
	const struct choice *first = NULL;
	uint64_t bytes = 0;

	if (!w->n_choices)
		return 0;
	p->entries = calloc(w->n_choices, sizeof(*p->entries));
	p->calls = calloc(w->n_choices, sizeof(*p->calls));
	if (!p->entries || !p->calls)
		return -ENOMEM;
	for (size_t k = 0; k < w->n_choices; k++) {
		const struct choice *c = &w->choices[k];
		struct plan_call *call = p->n_calls ? &p->calls[p->n_calls - 1] : NULL;
		uint64_t size =
			c->entry.filler ? w->caps->create_min_bytes : w->items[c->entry.item].size;

		bytes = bytes + size < bytes ? UINT64_MAX : bytes + size;
		if (!call || !joins(w, c, first, call->n, bytes)) {
			call = &p->calls[p->n_calls++];
			*call = (struct plan_call){.kind = c->kind, .first = k};
			first = c;
			bytes = size;
		}
		call->n++;
		p->entries[p->n_entries++] = c->entry;
	}
	return 0;
}

int plan_make(const struct remote_caps *caps, const struct plan_item *items, size_t n,
	      struct plan *ret_plan)
{
	struct work w = {.caps = caps, .items = items, .n = n};
	struct plan p = {0};
	int r = work_index(&w);

	if (r < 0)
		goto out;
	for (size_t i = 0; i < n; i++)
		decide(&w, i);
	if (caps->names_unique)
		break_cycles(&w);
	r = w.error;
	if (r < 0)
		goto out;
	sort_choices(&w);
	r = cut_into_calls(&w, &p);
	if (r < 0)
		goto out;
	p.names = w.names;
	p.n_names = w.n_names;
	w.names = NULL;
	w.n_names = 0;
	*ret_plan = p;
	p = (struct plan){0};
out:
	plan_clear(&p);
	work_free(&w);
	return r;
}

void plan_clear(struct plan *p)
{
	for (size_t k = 0; k < p->n_names; k++)
		free(p->names[k]);
	free(p->names);
	free(p->calls);
	free(p->entries);
	*p = (struct plan){0};
}

/* ---- invariants ---- */

struct check {
	struct work w;
	const struct plan *plan;
	bool *seen;   /* items */
	bool *target; /* places that a call of this plan fills */
	char *message;
	size_t size;
};

__attribute__((format(printf, 3, 4))) static int bad(struct check *c, size_t item,
						     const char *format, ...)
{
	va_list args;
	int len = snprintf(c->message, c->size, "item %zu: ", item);

	if (len >= 0 && (size_t)len < c->size) {
		va_start(args, format);
		vsnprintf(c->message + len, c->size - (size_t)len, format, args);
		va_end(args);
	}
	return -EUCLEAN;
}

static int check_once(struct check *c, size_t item)
{
	if (item >= c->w.n)
		return bad(c, item, "no such item");
	if (c->seen[item])
		return bad(c, item, "twice in one plan");
	c->seen[item] = true;
	return 0;
}

/* Names are unique: nothing of another's may be where this call puts something. */
static int check_target(struct check *c, const struct plan_entry *e, uint64_t record)
{
	size_t slot = *place_slot(&c->w, record, e->name);
	const struct place *p;

	if (!c->w.caps->names_unique || !slot)
		return 0;
	p = &c->w.places[slot - 1];
	if ((p->holder != NONE && p->holder != e->item) ||
	    (p->flight != NONE && p->flight != e->item))
		return bad(c, e->item, "sent to a taken name '%s'", e->name);
	if (c->target[slot - 1])
		return bad(c, e->item, "two are sent to '%s'", e->name);
	c->target[slot - 1] = true;
	return 0;
}

static int check_adopt(struct check *c, const struct plan_entry *e)
{
	const struct plan_item *it = &c->w.items[e->item];
	const struct plan_item *other;
	size_t target = NONE;
	int r = check_once(c, e->other);

	if (r < 0)
		return r;
	other = &c->w.items[e->other];
	if (it->gone || !it->content_local || !keeps_id(c->w.caps))
		return bad(c, e->item, "must not adopt");
	if (!other->gone || !other->known || other->busy || other->unknown ||
	    (other->open && !other->content_local))
		return bad(c, e->other, "must not be adopted");
	if (must_stay(&c->w, e->other, &target) && target != e->item)
		return bad(c, e->other, "adopted while it keeps the content of item %zu", target);
	if (c->w.states[e->other].known_at != c->w.states[e->item].wanted_at)
		return bad(c, e->item, "adopts from another place");
	return 0;
}

static int check_remove(struct check *c, const struct plan_entry *e)
{
	const struct plan_item *it = &c->w.items[e->item];
	const struct place *p;
	size_t target;

	if (!it->gone || !it->known || !it->name_settled || (it->open && !it->content_local))
		return bad(c, e->item, "must not be removed");
	if (must_stay(&c->w, e->item, &target))
		return bad(c, e->item, "removed before the content of item %zu is there", target);
	p = &c->w.places[c->w.states[e->item].known_at];
	if (p->wanter != NONE && !is_there(&c->w, p->wanter))
		return bad(c, e->item, "removed before item %zu took its place", p->wanter);
	if (c->w.caps->names_unique && p->holder != e->item)
		return bad(c, e->item, "removing it would hit item %zu", p->holder);
	return 0;
}

static int check_update(struct check *c, const struct plan_entry *e)
{
	const struct plan_item *it = &c->w.items[e->item];

	if (it->gone || !it->known || !it->name_settled ||
	    (!e->set_name && !e->set_record && !e->set_mtime))
		return bad(c, e->item, "must not be updated");
	if ((e->set_name && !c->w.caps->rename_in_place) ||
	    (e->set_record && !c->w.caps->move_in_place) || (e->set_mtime && !c->w.caps->set_mtime))
		return bad(c, e->item, "an update the server cannot do");
	return check_target(c, e, e->set_record ? it->record : it->known_record);
}

static int check_upload(struct check *c, enum plan_kind kind, const struct plan_entry *e)
{
	const struct plan_item *it = &c->w.items[e->item];

	if (it->gone || !it->content_local)
		return bad(c, e->item, "must not be uploaded");
	if (kind == PLAN_CREATE && it->known && differs(it) && keeps_id(c->w.caps) &&
	    c->w.states[e->item].known_at == c->w.states[e->item].wanted_at)
		return bad(c, e->item, "created anew where a replace would do");
	if (kind == PLAN_CREATE && !it->known && it->local)
		return bad(c, e->item, "a local name is sent");
	if (kind == PLAN_REPLACE && (!it->known || !differs(it) || !keeps_id(c->w.caps)))
		return bad(c, e->item, "must not be replaced");
	return check_target(c, e, kind == PLAN_CREATE ? it->record : it->known_record);
}

static int check_entry(struct check *c, enum plan_kind kind, const struct plan_entry *e)
{
	const struct plan_item *it;
	int r = check_once(c, e->item);

	if (r < 0)
		return r;
	it = &c->w.items[e->item];
	if (it->busy || it->parked || it->unknown != (kind == PLAN_LOOK))
		return bad(c, e->item, "not idle");
	switch (kind) {
	case PLAN_ADOPT:
		return check_adopt(c, e);
	case PLAN_REMOVE:
		return check_remove(c, e);
	case PLAN_UPDATE:
		return check_update(c, e);
	case PLAN_CREATE:
	case PLAN_REPLACE:
		return check_upload(c, kind, e);
	case PLAN_FORGET:
		return it->gone ? 0 : bad(c, e->item, "forgotten but not gone");
	case PLAN_FETCH:
		return !it->content_local ? 0 : bad(c, e->item, "its bytes are here");
	case PLAN_UPDATE_RECORDS:
		return it->is_record && it->known ? 0 : bad(c, e->item, "no record");
	case PLAN_LOOK:
		return 0;
	}
	return bad(c, e->item, "no such kind");
}

static int check_call(struct check *c, size_t k)
{
	const struct plan_call *call = &c->plan->calls[k];
	const struct plan_entry *e = &c->plan->entries[call->first];
	size_t end = k ? call[-1].first + call[-1].n : 0;
	uint64_t group;

	if (call->first != end || !call->n || call->n > c->plan->n_entries - end)
		return bad(c, k, "(a call) its slice is wrong");
	if (k && kind_rank[call[-1].kind] > kind_rank[call->kind])
		return bad(c, e->item, "out of order");
	if (call->n > batch_limit(c->w.caps, call->kind))
		return bad(c, e->item, "its call is too long");
	group = group_of(c->w.caps, call->kind, &c->w.items[e->item]);
	for (size_t j = 0; j < call->n; j++) {
		int r = check_entry(c, call->kind, &e[j]);

		if (r < 0)
			return r;
		if (group_of(c->w.caps, call->kind, &c->w.items[e[j].item]) != group)
			return bad(c, e[j].item, "does not belong into its call");
	}
	return 0;
}

int plan_check(const struct remote_caps *caps, const struct plan_item *items, size_t n,
	       const struct plan *p, char *message, size_t size)
{
	struct check c = {.w = {.caps = caps, .items = items, .n = n},
			  .plan = p,
			  .message = message,
			  .size = size};
	int r = work_index(&c.w);

	c.seen = calloc(n + 1, sizeof(*c.seen));
	c.target = calloc(3 * n + 1, sizeof(*c.target));
	if (r < 0 || !c.seen || !c.target) {
		r = -ENOMEM;
		goto out;
	}
	for (size_t k = 0; k < p->n_calls && r == 0; k++)
		r = check_call(&c, k);
	if (r == 0 && p->n_calls &&
	    p->calls[p->n_calls - 1].first + p->calls[p->n_calls - 1].n != p->n_entries)
		r = bad(&c, 0, "entries in no call");
out:
	free(c.seen);
	free(c.target);
	work_free(&c.w);
	return r;
}
