/* SPDX-License-Identifier: MIT */

/*
 * Where names are unique an item waits for one other at most: the holder of its place, or the item
 * whose content must arrive before a deleted holder may be overwritten. Following that one edge
 * from each item, and marking which walk came by, finds every cycle in linear time; one member of
 * each is sent elsewhere for a while. All other waiting ends by itself: the last of a chain goes
 * first.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "plan_private.h"

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
		if (!*plan_place_slot(w, record, name))
			break;
		free(name);
	}
	names[w->n_names++] = name;
	return name;
}

static void choose_temporary(struct work *w, size_t i)
{
	const struct plan_item *it = &w->items[i];
	bool update = it->known && plan_can_update(w->caps, it);
	const char *name = temporary_name(w, it->node, update ? it->known_record : it->record);

	if (!name)
		w->error = -ENOMEM;
	else if (update)
		plan_choose_update(w, i, name);
	else
		plan_choose_create(w, i, name);
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
		plan_choose_replace(w, needed, false);
	else
		plan_choose(w, PLAN_FETCH, needed);
}

void plan_break_cycles(struct work *w)
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
