/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_PLAN_H
#define ATTACHFS_FS_PLAN_H

/*
 * From the difference of the ledger's two halves to the calls that may be sent now. A pure
 * function: no clock, no I/O, no state.
 *
 * plan_make() looks at every node whose halves differ and answers with the calls whose
 * preconditions hold *now*; what must wait for one of them is left out and comes when the caller
 * plans again after the acknowledgement. So the order needs no graph: nothing is removed or
 * overwritten on the server before what replaces it was acknowledged, because its call is not made
 * before.
 *
 * Coalescing needs no code either: halves that are equal again give no call.
 *
 * Adoption: where a node is new at a (record, name) at which the server still has a file that is
 * gone here (an editor's save, rename over), the new node takes over the old one's remote identity
 * (PLAN_ADOPT swaps the known halves), and what is left to do is a replace which keeps id, links
 * and comments.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attachfs/remote.h>

/* A call that creates many files carries at most so many bytes, unless one file has more. */
#define PLAN_CREATE_BATCH_BYTES (UINT64_C(16) << 20)

struct plan_item {
	uint64_t node;
	bool is_record; /* a record directory: only its name and its fields can differ */

	/* known: on the server */
	bool known;
	uint64_t known_record; /* for a record: its collection */
	uint64_t known_collection;
	const char *known_name; /* as shown in the mount: equal means same; NULL unless known */
	bool known_name_exact;	/* the server's fields are what the wanted name asks for (P-15) */
	/* an update that may have been done could have moved it to another record */
	bool known_place_doubt;
	bool known_filler; /* the server's bytes are our filler */
	/*
	 * The record it is known in, or that it is wanted in, was not listed lately: others may have
	 * changed what would be overwritten or removed there.
	 */
	bool known_stale, stale;

	/* wanted */
	bool gone;
	bool local; /* its name keeps it from being sent; gone ones are removed all the same */
	uint64_t record, collection;
	const char *name;
	bool content_differs; /* the user's bytes are not the server's */
	bool content_local;   /* all bytes are here, an upload could start */
	bool mtime_differs;
	bool fields_differ; /* of a record */
	uint64_t size;

	/* between */
	bool busy;	      /* a call for it is on its way */
	bool parked;	      /* refused; waits for the user */
	bool unknown;	      /* outcome of its last call unknown: must be looked at first */
	bool open;	      /* a program has it open: a gone one's bytes may be needed yet */
	bool content_settled; /* settle time over: content may be sent */
	bool name_settled;    /* names, deletes may be sent */
	uint64_t after;	      /* gone: that node's content goes first; 0 = none */
	bool alone;	      /* bisecting: send it in a call of its own */
	/*
	 * Where a busy or unknown call puts it: the user may have renamed it meanwhile. The record
	 * is what LOOK lists (0: known_record when gone, else record); the name (NULL: puts it
	 * nowhere new) keeps others off where names are unique.
	 */
	uint64_t flight_record;
	const char *flight_name;
};

/* The record that is to be listed before anything is overwritten or removed in it. */
static inline uint64_t plan_stale_record(const struct plan_item *it)
{
	return it->known && it->known_stale ? it->known_record : it->record;
}

enum plan_kind {
	PLAN_FORGET, /* gone and not on the server: drop the row */
	PLAN_ADOPT,  /* swap the known halves of item and other; other's `after` = item */
	PLAN_LOOK,   /* list the record, see what became of the unknown calls; one per record */
	PLAN_VERIFY, /* list the record, see what others have changed there; one per record */
	PLAN_FETCH,  /* bytes missing here for an upload, or read while about to be overwritten */
	PLAN_CREATE,
	PLAN_REPLACE,
	PLAN_UPDATE,
	PLAN_REMOVE,
	PLAN_UPDATE_RECORDS,
};

struct plan_call {
	enum plan_kind kind;
	size_t first, n; /* slice of plan.entries */
};

struct plan_entry {
	size_t item; /* index into the items given */
	/*
	 * PLAN_ADOPT: the gone one's index. PLAN_CREATE without replace_keeps_id: that of a gone one
	 * at its place, which it takes over and saves the call if it has the same bytes; SIZE_MAX =
	 * none.
	 */
	size_t other;
	bool filler; /* PLAN_CREATE: below or above what a create takes (P-1) */

	/* PLAN_CREATE, PLAN_REPLACE, PLAN_UPDATE: what to send besides */
	bool set_name, set_record, set_mtime;
	/* The same and UPDATE_RECORDS: its shown name afterwards, the item's or a temporary one. */
	const char *name;
};

struct plan {
	struct plan_call *calls; /* in the order to send */
	size_t n_calls;
	struct plan_entry *entries;
	size_t n_entries;
	char **names; /* the temporary names among the entries' */
	size_t n_names;
};

/*
 * Calls come in the order FORGET, ADOPT, LOOK, VERIFY, UPDATE_RECORDS, UPDATE, REMOVE, FETCH,
 * REPLACE, CREATE; all calls of one plan may be in the air at once. Batches: updates and removes up to
 * caps->batch_*, of one record only unless caps->batch_spans_records; creates up to
 * caps->batch_create files of one record and PLAN_CREATE_BATCH_BYTES; records of one collection;
 * fetches and replaces one per call; all FORGETs are one call, all ADOPTs are, all LOOKs of a
 * record are, and all its VERIFYs. Items keep their order, those sent alone come last. An item is in one entry at most.
 * 0 or -ENOMEM.
 *
 * Rules, in the order they are tried for an item that is neither busy nor parked:
 *  1. unknown -> LOOK.
 *  2. gone and not known -> FORGET. Where names are unique also when another item is known at the
 *     same place: a delete by name would hit that one (S-13).
 *  3. gone and known -> REMOVE, once name_settled, not while open with bytes that are not local,
 *     not while `after` has content that differs or is not known (one that is gone, local or not
 *     among the items is waited for no more), and not while a live item wants its place and is not
 *     there yet with a content: that one may adopt it, or is what replaces it.
 *  4. not gone, and a gone, known item stands at the same known (record, name), parked or not, and
 *     replacing keeps the id: ADOPT when this one is not known, or known elsewhere (rename over);
 *     its bytes are local, and it is settled as 5 and 7 ask. A busy or unknown gone one is waited
 *     for. One whose bytes are read by a program and not here is fetched first. One that keeps the
 *     content of a third (`after`) is left alone. Where bytes are not local, a rename over is an
 *     UPDATE first and the other's REMOVE after its acknowledgement; where the server cannot do
 *     that, or the content differs too, FETCH first.
 *  5. not known -> CREATE once content_settled; with filler when size is outside create_min..max.
 *     Not while it is local. Bytes of what it lies over that are not here: FETCH at once, as in 6
 *     and 7, before somebody replaces them there.
 *  6. known, content differs -> REPLACE once content_settled and content_local, with the new name
 *     and the time in the same call where the record is the same (another record: UPDATE first).
 *     Without replace_keeps_id: CREATE anew; the old identity is removed when that
 *     was acknowledged (the caller makes a gone item of it, with `after`).
 *     Whether an upload brings other bytes than the server has is not seen here: the caller compares
 *     before it sends.
 *  7. known, name or record or (alone) mtime differ, or the name is not exact -> UPDATE once
 *     name_settled where the caps say that the server can do it in place; where it cannot: CREATE
 *     at the new place (FETCH first; content settled too if it differs), then remove the old as in
 *     6. With names_unique nothing is sent to a taken name: chains go last-first; in a cycle one
 *     goes to a temporary name of its new record, or, where another waits for its content, has its
 *     content replaced where it is.
 *  8. A known item whose name is local now is left as it is on the server, unless names are unique
 *     and another wants its place.
 *  9. What would be sent by these rules and overwrites or removes something on the server (REPLACE,
 *     REMOVE; CREATE where names are unique) is a VERIFY while the record is stale.
 *
 * A server with names_unique is taken to keep ids when replacing. One plan gives one call per item,
 * so plan again after every acknowledgement, and after ADOPTs at once.
 */
int plan_make(const struct remote_caps *caps, const struct plan_item *items, size_t n,
	      struct plan *ret_plan);
void plan_clear(struct plan *p);

/* The invariants of a plan, for tests and debug builds: 0, or -EUCLEAN and words. */
int plan_check(const struct remote_caps *caps, const struct plan_item *items, size_t n,
	       const struct plan *p, char *message, size_t size);

#endif
