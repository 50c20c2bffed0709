/* SPDX-License-Identifier: MIT */

/*
 * How: every (record, name) that an item is known at, wants, or is on its way to gets a number, a
 * *place*, by one hash table (plan_places.c). A place knows who holds it on the server, who was
 * deleted there and who wants to be there. With that each item's rule of plan.h is a few
 * comparisons (plan_rules.c); each item ends with at most one choice; the choices are sorted by
 * kind and group and cut into calls (plan_calls.c). All of it is linear but for the sorting.
 *
 * Who may wait for whom matters only where names are unique (ServiceMax: a POST to a taken name is
 * a new version of what stands there, S-15, and a delete goes by name, S-13). There an item waits
 * for one other at most; where such edges close a cycle, plan_cycles.c opens it.
 */

#include <stdlib.h>

#include "plan_private.h"

int plan_make(const struct remote_caps *caps, const struct plan_item *items, size_t n,
	      struct plan *ret_plan)
{
	struct work w = {.caps = caps, .items = items, .n = n};
	struct plan p = {0};
	int r = plan_work_index(&w);

	if (r < 0)
		goto out;
	for (size_t i = 0; i < n; i++)
		plan_decide(&w, i);
	if (caps->names_unique)
		plan_break_cycles(&w);
	r = w.error;
	if (r < 0)
		goto out;
	plan_sort_choices(&w);
	r = plan_cut_into_calls(&w, &p);
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
	plan_work_free(&w);
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
