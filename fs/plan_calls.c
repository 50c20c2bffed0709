/* SPDX-License-Identifier: MIT */

/*
 * From choices to calls: sorted by kind, then by what may be in one call, and cut where the group
 * or the server's limit ends. Sorted twice: once to see which is the first item of each group, then
 * by that, so that groups go in the order of the items and not of their records' numbers.
 */

#include <errno.h>
#include <stdlib.h>

#include "plan_private.h"

const unsigned char plan_kind_rank[] = {
	[PLAN_FORGET] = 0, [PLAN_ADOPT] = 1,	      [PLAN_LOOK] = 2,
	[PLAN_VERIFY] = 3, [PLAN_UPDATE_RECORDS] = 4, [PLAN_UPDATE] = 5,
	[PLAN_REMOVE] = 6, [PLAN_FETCH] = 7,	      [PLAN_REPLACE] = 8,
	[PLAN_CREATE] = 9,
};

size_t plan_batch_limit(const struct remote_caps *caps, enum plan_kind kind)
{
	unsigned limit = 1;

	switch (kind) {
	case PLAN_FORGET:
	case PLAN_ADOPT:
	case PLAN_LOOK:
	case PLAN_VERIFY:
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

uint64_t plan_group_of(const struct remote_caps *caps, enum plan_kind kind,
		       const struct plan_item *it)
{
	if (kind == PLAN_LOOK)
		return plan_flight_record(it);
	if (kind == PLAN_VERIFY)
		return plan_stale_record(it);
	if (kind == PLAN_UPDATE_RECORDS)
		return it->known_record;
	if (plan_batch_limit(caps, kind) == 1)
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
	int r = compare_u64(plan_kind_rank[x->kind], plan_kind_rank[y->kind]);

	if (r == 0)
		r = compare_u64(x->group, y->group);
	return r ? r : compare_u64(x->entry.item, y->entry.item);
}

static int by_sending(const void *a, const void *b)
{
	const struct choice *x = a, *y = b;
	int r = compare_u64(plan_kind_rank[x->kind], plan_kind_rank[y->kind]);

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

void plan_sort_choices(struct work *w)
{
	struct choice *c = w->choices;

	for (size_t k = 0; k < w->n_choices; k++)
		c[k].group = plan_group_of(w->caps, c[k].kind, &w->items[c[k].entry.item]);
	qsort(c, w->n_choices, sizeof(*c), by_group);
	for (size_t k = 0; k < w->n_choices; k++)
		c[k].first = k && same_group(&c[k], &c[k - 1]) ? c[k - 1].first : c[k].entry.item;
	qsort(c, w->n_choices, sizeof(*c), by_sending);
}

/* Whether @c joins the call that began with @first and has @n entries and @bytes. */
static bool joins(const struct work *w, const struct choice *c, const struct choice *first,
		  size_t n, uint64_t bytes)
{
	if (!same_group(c, first) || n >= plan_batch_limit(w->caps, c->kind))
		return false;
	if (c->kind == PLAN_CREATE && bytes > PLAN_CREATE_BATCH_BYTES)
		return false;
	return c->kind == PLAN_FORGET || c->kind == PLAN_ADOPT || c->kind == PLAN_LOOK ||
	       (!c->alone && !first->alone);
}

int plan_cut_into_calls(const struct work *w, struct plan *p)
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
