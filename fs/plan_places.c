/* SPDX-License-Identifier: MIT */

/*
 * The index of the items: the places they are known at, want and are on their way to, and the items
 * by node. Both are hash tables with open addressing that hold numbers, made once for n items and
 * never grown: an item has three places at most.
 *
 * The items are entered from the last to the first, so that of several at one place the first one
 * stays as its holder or wanter, whatever the tables look like: the same items give the same plan.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "plan_private.h"

size_t *plan_place_slot(const struct work *w, uint64_t record, const char *name)
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
	size_t *slot = plan_place_slot(w, record, name);

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

size_t plan_find_node(const struct work *w, uint64_t node)
{
	return node ? *node_slot(w, node) - 1 : NONE; /* 0 - 1 is NONE */
}

void plan_work_free(struct work *w)
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
	w->states[i].known_at = place_number(w, it->known_record, plan_known_name(it));
	p = &w->places[w->states[i].known_at];
	if (it->gone) {
		w->states[i].next_gone = p->gone;
		p->gone = i;
	}
	/*
	 * Comes from the last item to the first: the first one stays, and a live one is not pushed
	 * out.
	 */
	if (p->holder == NONE || !it->gone || w->items[p->holder].gone)
		p->holder = i;
}

static void index_flight(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];

	if ((it->busy || it->unknown) && it->flight_name)
		w->places[place_number(w, plan_flight_record(it), it->flight_name)].flight = i;
}

static void index_wanted(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	struct place *p;

	if (it->gone)
		return;
	w->states[i].wanted_at = place_number(w, it->record, plan_wanted_name(it));
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

int plan_work_index(struct work *w)
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
