/* SPDX-License-Identifier: MIT */

/*
 * The invariants of a plan, one function per kind of call. They are asked of the finished plan and
 * of the items alone, not of how it came about: what must never be sent (over what another one has,
 * before what replaces it is there, while somebody reads its bytes) is said here a second time. The
 * index of places is made anew; of plan_make()'s own judgement only small questions are shared.
 */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "plan_private.h"

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
	size_t slot = *plan_place_slot(&c->w, record, e->name);
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
	if (it->gone || !it->content_local || !plan_keeps_id(c->w.caps))
		return bad(c, e->item, "must not adopt");
	if (!other->gone || !other->known || other->busy || other->unknown ||
	    (other->open && !other->content_local))
		return bad(c, e->other, "must not be adopted");
	if (plan_must_stay(&c->w, e->other, &target) && target != e->item)
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
	if (it->known_stale)
		return bad(c, e->item, "removed without a look at its record");
	if (plan_must_stay(&c->w, e->item, &target))
		return bad(c, e->item, "removed before the content of item %zu is there", target);
	p = &c->w.places[c->w.states[e->item].known_at];
	if (p->wanter != NONE && !plan_is_there(&c->w, p->wanter))
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
	if (kind == PLAN_CREATE && it->known && plan_differs(it) && plan_keeps_id(c->w.caps) &&
	    c->w.states[e->item].known_at == c->w.states[e->item].wanted_at)
		return bad(c, e->item, "created anew where a replace would do");
	if (kind == PLAN_CREATE && !it->known && it->local)
		return bad(c, e->item, "a local name is sent");
	if (kind == PLAN_CREATE && e->other != NONE &&
	    (plan_keeps_id(c->w.caps) || e->other >= c->w.n || !c->w.items[e->other].gone ||
	     c->w.states[e->other].known_at != c->w.states[e->item].wanted_at))
		return bad(c, e->item, "takes over what it must not");
	if (kind == PLAN_REPLACE && (!it->known || !plan_differs(it) || !plan_keeps_id(c->w.caps)))
		return bad(c, e->item, "must not be replaced");
	if (kind == PLAN_REPLACE ? it->known_stale : c->w.caps->names_unique && it->stale)
		return bad(c, e->item, "uploaded without a look at its record");
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
	case PLAN_VERIFY:
		return it->known_stale || it->stale ? 0 : bad(c, e->item, "looked at twice");
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
	if (k && plan_kind_rank[call[-1].kind] > plan_kind_rank[call->kind])
		return bad(c, e->item, "out of order");
	if (call->n > plan_batch_limit(c->w.caps, call->kind))
		return bad(c, e->item, "its call is too long");
	group = plan_group_of(c->w.caps, call->kind, &c->w.items[e->item]);
	for (size_t j = 0; j < call->n; j++) {
		int r = check_entry(c, call->kind, &e[j]);

		if (r < 0)
			return r;
		if (plan_group_of(c->w.caps, call->kind, &c->w.items[e[j].item]) != group)
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
	int r = plan_work_index(&c.w);

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
	plan_work_free(&c.w);
	return r;
}
