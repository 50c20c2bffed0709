/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_POOL_H
#define ATTACHFS_POOL_H

/*
 * The small pool of threads that parses JSON, hashes, and answers parked requests: whatever is too
 * long for the transfer thread's callbacks and needs no network. Jobs run in the order they were
 * given but side by side; whoever needs an order among them serialises with a lock of his own. A
 * job may block on a local disk, never on the network.
 */

struct pool;

/* @threads >= 1. 0 or -errno of pthread_create. */
int pool_new(unsigned threads, struct pool **ret_pool);

/*
 * Runs what is queued to its end and joins the threads; pool_run() is refused from then on. NULL is
 * fine, and so is a second time. Not from a job.
 */
void pool_stop(struct pool *pool);

/* Stops it if need be, and frees. NULL is fine. */
void pool_free(struct pool *pool);

/* Never blocks, any thread (a job too). 0, -ENOMEM, or -ECANCELED: the pool has ended. */
int pool_run(struct pool *pool, void (*job)(void *ctx), void *ctx);

#endif
