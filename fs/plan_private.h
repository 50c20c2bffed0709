/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_PLAN_PRIVATE_H
#define ATTACHFS_FS_PLAN_PRIVATE_H

/*
 * What the files of the plan share:
 *
 *	plan.c         from items to calls, step by step
 *	plan_places.c  who is, was and wants to be where: the index of the items
 *	plan_rules.c   the rules of plan.h: at most one choice for each item
 *	plan_cycles.c  unique names: who steps aside where items wait for each other in a circle
 *	plan_calls.c   choices, sorted and cut into calls
 *	plan_check.c   the invariants of a plan, for tests and debug builds
 *
 * They are called in this order, on one struct work that lives as long as one plan_make() (or
 * plan_check(), which needs the places only).
 */

#include "plan.h"

/* No item, no place. */
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

/*
 * Where names are unique, a create on a taken name replaces: as good as a replace that keeps the
 * id.
 */
static inline bool plan_keeps_id(const struct remote_caps *caps)
{
	return caps->replace_keeps_id || caps->names_unique;
}

static inline bool plan_differs(const struct plan_item *it)
{
	return it->content_differs || it->known_filler;
}

static inline const char *plan_known_name(const struct plan_item *it)
{
	return it->known_name ? it->known_name : "";
}

static inline const char *plan_wanted_name(const struct plan_item *it)
{
	return it->name ? it->name : "";
}

/* Where the call that is in the air, or of unknown outcome, went. */
static inline uint64_t plan_flight_record(const struct plan_item *it)
{
	if (it->flight_record)
		return it->flight_record;
	return it->gone && it->known ? it->known_record : it->record;
}

/* plan_places.c */

/* Number the places of all items. 0 or -ENOMEM; plan_work_free() in both cases. */
int plan_work_index(struct work *w);
void plan_work_free(struct work *w);
/*
 * The slot of a place: it holds its number + 1, or 0 where it has none and would go there. Valid
 * until the next place is numbered.
 */
size_t *plan_place_slot(const struct work *w, uint64_t record, const char *name);
/* The item of @node; NONE when it is 0 or not among the items. */
size_t plan_find_node(const struct work *w, uint64_t node);

/* plan_rules.c */

/* Choose what is to be done for item @i now, if anything. */
void plan_decide(struct work *w, size_t i);
/*
 * Choose a call for @i, which must have no choice yet: its only one. The names are borrowed. An
 * update with @name gives it that name where it stands; with NULL it goes to its wanted place.
 */
struct plan_entry *plan_choose(struct work *w, enum plan_kind kind, size_t i);
void plan_choose_create(struct work *w, size_t i, const char *name);
void plan_choose_replace(struct work *w, size_t i, bool set_name);
void plan_choose_update(struct work *w, size_t i, const char *name);
/* Whether the server can bring a known item to its wanted place without a new upload. */
bool plan_can_update(const struct remote_caps *caps, const struct plan_item *it);
/*
 * The content of the item that @g's identity or bytes are kept for has not arrived; *@ret_target is
 * that item, set whenever it is among the items.
 */
bool plan_must_stay(const struct work *w, size_t g, size_t *ret_target);
/* The server has it, with a content of its own, at its wanted place. */
bool plan_is_there(const struct work *w, size_t i);

/* plan_cycles.c */

/* After all were decided: choose for one item of each cycle. Sets work.error when out of memory. */
void plan_break_cycles(struct work *w);

/* plan_calls.c */

/*
 * By kind: in the order to send. What needs no call, what is cheap and many at a time, then what
 * carries bytes.
 */
extern const unsigned char plan_kind_rank[];
/* Most entries that a call of this kind may have; at least 1. */
size_t plan_batch_limit(const struct remote_caps *caps, enum plan_kind kind);
/* What must be equal in one call. */
uint64_t plan_group_of(const struct remote_caps *caps, enum plan_kind kind,
		       const struct plan_item *it);
/* Give each choice its group and put all into the order to send. */
void plan_sort_choices(struct work *w);
/* Make the sorted choices entries and calls of @p: 0 or -ENOMEM, plan_clear() in both cases. */
int plan_cut_into_calls(const struct work *w, struct plan *p);

#endif
