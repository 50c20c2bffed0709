/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_SYNC_H
#define ATTACHFS_FS_SYNC_H

/*
 * Brings to the server what the user wants. One thread looks at the nodes whose halves differ
 * (tree->sync list), has plan.c make calls of the differences, and sends them; outcomes arrive on
 * pool threads, change the known halves, and wake the thread to plan again.
 *
 * A node with a call on its way is *busy*: it stays out of the next plans until its outcome. Before
 * a create leaves, its row says so in the ledger (flight), because its outcome is unknown should
 * the daemon die (P-22).
 *
 *	differs --settled--> planned --> busy --DONE--> equal
 *	   ^                               |--RETRY--> backs off, planned again
 *	   |                               |--REFUSED--> batch: halves of it; alone: parked with the server's words
 *	   +--LOOK-- unknown <--UNKNOWN----+--GONE--> created anew, or gone here too
 *
 * Threads: any. State is guarded by tree->lock, but for the thread's own wake-up.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mount;
struct node;
struct sync;

struct sync_counts {
	uint64_t uploads, renames, deletes; /* nodes that differ, parked ones not counted */
	uint64_t bytes;			    /* to upload */
	uint64_t failed;		    /* parked */
	uint64_t in_flight;
	uint64_t done;	     /* nodes brought to the server since the mount began */
	uint64_t bytes_sent; /* of contents, acknowledged */
};

int sync_new(struct mount *m, struct sync **ret_sync);
int sync_start(struct sync *s);
/*
 * Send without waiting for settle times; at most @drain_ms. Then end the thread; calls on their way
 * finish or are cancelled by the engine.
 */
void sync_stop(struct sync *s, int64_t drain_ms);
/* The engine and the pool are gone already. */
void sync_free(struct sync *s);

/* What differs now does not wait for its settle time any more. */
void sync_flush(struct sync *s);
/*
 * Try parked items again, and those that back off; @node 0 = all. Returns how many. tree->lock not
 * held. Whoever asks for it at the user's word has told the engine (engine_retry_now()).
 */
unsigned sync_retry(struct sync *s, uint64_t node);

/*
 * What was in the way is gone: try again at once what backs off after a failure, and what is parked
 * with @error (0 = nothing that is parked). tree->lock not held.
 */
void sync_try_again(struct sync *s, int error);

/*
 * Flush, and remember where: sync_passed() tells when nothing that had changed by then is left to
 * send (parked items do not count, nor those that only wait for them).
 */
uint64_t sync_mark(struct sync *s);
/* With @node only what is at or below it is looked at and counted; 0 = all. */
bool sync_passed(struct sync *s, uint64_t mark, uint64_t node, struct sync_counts *ret_counts);

void sync_get_counts(struct sync *s, struct sync_counts *ret_counts);
bool sync_is_idle(const struct sync_counts *c);

/* Hand each pending (or, with @parked, each parked) node to @each under tree->lock. */
void sync_each(struct sync *s, bool parked,
	       void (*each)(void *ctx, const struct node *n, const char *what), void *ctx);

/*
 * One node, at once: write=through, fsync=remote. tree->lock held; true = the server has what it
 * wants (a gone one: not any more), *@ret_error < 0: parked.
 */
bool sync_node_locked(struct sync *s, struct node *n, int *ret_error);

#endif
