/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_CALLS_H
#define ATTACHFS_FS_CALLS_H

/*
 * Calls of the kernel that may have to wait for the network. A FUSE worker never waits: it runs an
 * operation as a *call*, and where something is missing (a listing, a size, bytes, an
 * acknowledgement) the operation parks the call under a key and returns the worker. Whoever brings
 * what was missing wakes the key; each call parked there is run again from the start on a pool
 * thread and finds it, or an error.
 *
 *	NEW --op() replies--> gone
 *	 |                     ^
 *	 +--op() parks--> PARKED --wake / deadline / interrupt--> runs again (call->error says why)
 *
 * So an operation is written once, as if everything were there: look, and either reply or park. It
 * must check and park under one hold of tree->lock (or another lock that the waker takes between
 * making it true and waking), or a wake-up could fall between the two.
 *
 * Deadline: timeout= after the call began, however often it was woken. At the deadline or an
 * interrupt the op runs with call->error -ETIMEDOUT or -EINTR, must not park again, and replies
 * with it.
 *
 * Threads: any. Exactly one thread runs a call at a time.
 */

#include <stdbool.h>
#include <stdint.h>

#include <attachfs/pool.h>

#include <fuse_lowlevel.h>

struct calls;
struct call;
struct mount;

/*
 * Operation: reply and return, or call_park() and return at once without touching the call again.
 */
typedef void call_op(struct call *c);

enum call_wait {
	CALL_WAIT_LISTING, /* key: collection node */
	CALL_WAIT_PAGE,	   /* key: the same; some of it, or all */
	CALL_WAIT_SIZE,	   /* key: file node */
	CALL_WAIT_BYTES,   /* key: content id */
	CALL_WAIT_SYNCED,  /* key: file node */
	CALL_WAIT_CONTROL, /* key: control handle */
	CALL_WAIT_DRAINED, /* key: 0; until nothing is left to be sent */
	CALL_WAIT_RECORD,  /* key: question about a record (records.c) */
	CALL_WAIT_TOLD,	   /* key: file node; until the kernel has dropped the old bytes */
};

struct call {
	struct mount *m;
	fuse_req_t req;
	call_op *op;
	/* arguments; those an op does not need stay 0 */
	uint64_t ino;
	uint64_t fh;
	uint64_t off, len;
	int flags;
	char *name; /* owned */
	void *data; /* owned, free()d */
	/* state kept between runs */
	int step;
	int error; /* 0, or why it was woken: -EINTR, -ETIMEDOUT, or what the waker said */
	int64_t deadline_ms;
	/* private to calls.c, guarded by its lock */
	struct calls *cs;
	uint64_t id;		/* 0 until it was parked once */
	struct call *hash_next; /* of the registered ones */
	struct call *wait_prev, *wait_next;
	enum call_wait wait;
	uint64_t key;
	uint64_t want_off, want_end; /* CALL_WAIT_BYTES */
	int64_t due_ms;		     /* when it runs again by itself */
	bool soft;		     /* ... without an error */
	bool parked, interrupted;
};

/* @tick is called about once a second on the timer thread. */
int calls_new(struct pool *pool, int64_t timeout_ms, void (*tick)(void *ctx), void *ctx,
	      struct calls **ret_calls);
/*
 * Runs everything parked with -ECANCELED and waits until it is answered; from now on nothing parks.
 * The pool must still run.
 */
void calls_stop(struct calls *cs);
void calls_free(struct calls *cs);

/*
 * Make a call and run it. Without memory the request is answered with ENOMEM. @op's arguments are
 * in @args, which is copied; name is strdup()ed.
 */
void call_run(struct calls *cs, const struct call *args);

/* Park until calls_wake() of the same wait and key. After this the call belongs to others. */
void call_park(struct call *c, enum call_wait wait, uint64_t key);
/* The same, but after @ms run again without an error: the op then does with what there is. */
void call_park_soft(struct call *c, enum call_wait wait, uint64_t key, int64_t ms);
/* Park until all of [off, end) of content @key came, or its fetch failed. */
void call_park_bytes(struct call *c, uint64_t key, uint64_t off, uint64_t end);
/* No deadline for this call from here on (events, sync progress). */
void call_wait_for_ever(struct call *c);

/* The call is answered: free it. */
void call_done(struct call *c);
/* fuse_reply_err(@error positive or negative errno) and call_done(). */
void call_fail(struct call *c, int error);

/* Run again all that wait there; @error is for those who find nothing. */
void calls_wake(struct calls *cs, enum call_wait wait, uint64_t key, int error);
/*
 * Those whose wish lies wholly inside [off, end) of content @key; with @error, those whose wish
 * begins in it.
 */
void calls_wake_bytes(struct calls *cs, uint64_t key, uint64_t off, uint64_t end, int error);

/* Whether anybody waits for bytes of @key whose wish begins in [off, end). */
bool calls_wanted(struct calls *cs, uint64_t key, uint64_t off, uint64_t end);

/* How many are parked, for status and tests. */
unsigned calls_parked(struct calls *cs);

#endif
