/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_SYNC_PRIVATE_H
#define ATTACHFS_FS_SYNC_PRIVATE_H

/*
 * What the files of the executor share:
 *
 *	sync.c         when: the thread
 *	sync_left.c    what is left
 *	sync_view.c    what the plan sees
 *	sync_send.c    from a planned call to the remote's
 *	sync_upload.c  the bytes of creates and replaces, made ready on a pool thread
 *	sync_fetch.c   bytes that must be here before an upload
 *	sync_apply.c   outcomes, item by item
 *	sync_look.c    what became of calls whose outcome nobody knows
 *	sync_verify.c  what others have done, before something is overwritten or removed
 */

#include <pthread.h>
#include <stdatomic.h>

#include "mount.h"
#include "plan.h"
#include "sync.h"
#include "tree.h"

#define SYNC_NAME_IDLE_MS 150 /* names and deletes settle so long after the last of them */

struct sync {
	struct mount *m;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* leaf: the thread's wake-up */
	pthread_cond_t wake;
	bool woken, stop; /* lock */
	int64_t soon_ms;  /* lock: something changed that is looked at by then; 0 = nothing */
	int64_t grace_ms; /* constant: so long nothing that changes is due */

	/*
	 * tree->lock: while the server cannot be reached or refuses the credentials, one call is tried
	 * at a time; so many were, and the next not before then.
	 */
	unsigned tries_in_vain;
	int64_t ask_again_ms;

	int64_t flush_ms;	   /* tree->lock: what changed up to here is settled */
	bool draining;		   /* tree->lock: everything is settled */
	_Atomic unsigned changing; /* calls on their way that rest on what was seen lately */
	unsigned uploads;	   /* tree->lock: files of creates and replaces on their way */
	unsigned in_flight;	   /* tree->lock: nodes busy with a call */
	uint64_t done, bytes_sent; /* tree->lock */
	uint64_t next_token;	   /* tree->lock */
	uint64_t last_look;	   /* tree->lock */
	/*
	 * tree->lock: the last plan, made when tree->changes was this, had nothing to send and
	 * nothing to wait for: what is left waits for parked items. 0 = it is not so.
	 */
	uint64_t held_at;
	uint32_t random;
};

/* The rows of a plan. */
struct sync_view {
	struct plan_item *items;
	struct node **nodes;
	size_t n;
	char **names; /* that had to be computed */
	size_t n_names;
	int64_t now_ms, next_ms; /* when something settles that has not yet */
	bool names_settled;
	bool moves_settled; /* names of files that the server cannot rename */
};

/* tree->lock held. 0 or -ENOMEM; sync_view_clear() in both cases. */
int sync_view_build(struct sync *s, struct sync_view *v);
void sync_view_clear(struct sync_view *v);

/* What is remembered of one item of a call until its outcome. */
struct sent {
	uint64_t node;
	uint64_t
		after; /* a removal, told to this one too: whose earlier identity it is; 0 = none */
	/* an earlier call of unknown outcome, which only an acknowledgement settles */
	enum ledger_flight doubt;
	bool in_place; /* upload: the server has a content at this very place already */
	bool first_try;
	/* create: a gone node at its place, of which it may take over what is there; 0 = none */
	uint64_t heir_of;
	int lost; /* upload: the bytes are not here (any more): negative errno */
	/* upload: referenced; NULL = empty */
	struct content *content;
	uint64_t content_id; /* upload: node->content when this was sent */
};

/* One writing call on its way: items[i] is what sent[i] is about. */
struct batch {
	struct sync *sync;
	enum plan_kind kind;
	bool counted; /* in sync->changing */
	size_t n;
	struct remote_change *items;
	struct sent *sent;
	/* copies that the items point to */
	char **strings;
	size_t n_strings;
};

static inline bool sync_is_upload(enum plan_kind kind)
{
	return kind == PLAN_CREATE || kind == PLAN_REPLACE;
}

void sync_wake(struct sync *s);
/* What is to be done for @n, NULL = nothing. tree->lock held. */
const char *sync_what_differs(const struct node *n);
/*
 * Everything that could be sent was, and what is left waits for what is parked: a name that a
 * parked file has, say. tree->lock held.
 */
bool sync_is_held_locked(const struct sync *s);
/* What is left, for the log: how much, and the first few by name. */
void sync_tell_left(struct sync *s, const struct sync_counts *c);
/*
 * Plan once and start what may start: the thread's work (and that of tests without the thread).
 * Returns when to look again, clock_mono_ms().
 */
int64_t sync_plan(struct sync *s);

/*
 * Plan entries -> calls. tree->lock held; the nodes become busy. The batch is to be sent by
 * batch_send() without the lock.
 */
struct batch *batch_new_locked(struct sync *s, const struct plan *plan,
			       const struct plan_call *call, struct node *const *nodes);
void batch_send(struct batch *b);
/* Not sent after all: its nodes try again later. Frees it. */
void batch_put_off(struct batch *b);
void batch_free(struct batch *b);
/* It is over, and makes room for another: before the thread is woken for that. */
void batch_uncount(struct batch *b);
/* A word for what it does, for crash_point_of(). */
const char *batch_kind(const struct batch *b);
/*
 * Some of its items as a call of their own, and out of @b, whose copies of strings they do not need.
 * NULL without memory: @b is as it was.
 */
struct batch *batch_split(struct batch *b, size_t first, size_t n);
/* The remote's call; its outcome goes to sync_apply(). */
void batch_call(struct batch *b);
/* Make the bytes of an upload ready on the pool, and call. */
void batch_upload(struct batch *b);

/* Whether a call of that kind may do away with what somebody else has made of a file meanwhile. */
static inline bool sync_rests_on_look(enum plan_kind kind)
{
	return kind == PLAN_REPLACE || kind == PLAN_UPDATE || kind == PLAN_REMOVE;
}

/* Local steps of a plan. tree->lock held. */
void sync_forget_locked(struct sync *s, struct node *n);
int sync_adopt_locked(struct sync *s, struct node *n, struct node *ghost);
/* For the nodes whose node->look is @number. */
void sync_look(struct sync *s, uint64_t record, uint64_t number);
void sync_fetch(struct sync *s, uint64_t node);

/* One listing that tells what others have changed in a record, or a whole collection. */
struct verify;
/*
 * Of the record node @record, for @n nodes, each to be added. NULL: there is one on its way, it is
 * no record, or no memory. tree->lock held, as for merging.
 */
struct verify *verify_new_locked(struct sync *s, uint64_t record, size_t n);
void verify_add_locked(struct verify *v, uint64_t node);
/* Where many are of one collection, that is listed instead. Returns how many are left of @n. */
size_t verify_merge_locked(struct verify **list, size_t n);
/* Takes @v. The thread plans again when the tree is as new. */
void verify_send(struct verify *v);

/* The remote has answered for all items of @b. Takes @b. */
void sync_apply(struct batch *b, int error);
/*
 * How long to wait after a failure that @tries others came before, in a row: pure. Doubles from
 * half a second to a minute and stays there, for ever; of that a quarter is sure and the rest is
 * left to @random, so that a thousand files that failed together do not come back together.
 */
int64_t sync_back_off_ms(unsigned tries, uint32_t random);
/* The node's call is over without an outcome: try again later. tree->lock held. */
void sync_back_off_locked(struct sync *s, struct node *n);
/* The server will not: wait for the user. tree->lock held. */
void sync_park_locked(struct sync *s, struct node *n, int error, const char *message);
/* A call for @n is over; node->flight is the caller's. tree->lock held. */
void sync_landed_locked(struct sync *s, struct node *n);
/*
 * Where the server cannot rename or replace, the node was created anew: what it was before becomes a
 * gone node of its own, to be removed once the new one has its content. The rows of both must be in
 * one group. tree->lock held.
 */
void sync_leave_ghost_locked(struct tree *t, struct node *n);
/*
 * What @n shows is to be sent (once more), although the server's copy goes by another identity now.
 * 0, -ENODATA when its bytes are not here, -ENOMEM. tree->lock held.
 */
int sync_claim_content_locked(struct tree *t, struct node *n);
/* Another node that a listing made of what is @n's: dropped. tree->lock held. */
void sync_drop_double_locked(struct tree *t, struct node *n, const char *rid);
/* The file is not on the server any more, as was wished. tree->lock held. */
void sync_removed_locked(struct tree *t, struct node *n);
/* The record to be listed to see what became of its unknown call. */
uint64_t sync_look_record(const struct node *n);
/* After tree->lock was released: waiters of the node run, the thread plans again. */
void sync_tell(struct sync *s, uint64_t node);

#endif
