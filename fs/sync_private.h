/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_SYNC_PRIVATE_H
#define ATTACHFS_FS_SYNC_PRIVATE_H

/* What sync.c (when), sync_send.c (sending) and sync_apply.c (outcomes) share. */

#include <pthread.h>
#include <stdatomic.h>

#include "mount.h"
#include "plan.h"
#include "sync.h"
#include "tree.h"

struct sync {
	struct mount *m;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* leaf: the thread's wake-up */
	pthread_cond_t wake;
	bool woken, stop; /* lock */

	int64_t flush_ms;	   /* tree->lock: what changed up to here is settled */
	bool draining;		   /* tree->lock: everything is settled */
	unsigned uploads;	   /* tree->lock: creates and replaces on their way */
	unsigned in_flight;	   /* tree->lock: nodes busy with a call */
	uint64_t done, bytes_sent; /* tree->lock */
	uint64_t next_token;	   /* tree->lock */
	uint32_t random;
};

/* One writing call on its way: items[i] is about node nodes[i]. */
struct batch {
	struct sync *sync;
	enum plan_kind kind;
	size_t n;
	struct remote_change *items;
	uint64_t *nodes;
	/* copies that the items point to */
	char **strings;
	size_t n_strings;
	/* uploads */
	struct content *content; /* referenced; NULL = empty */
	uint64_t content_id;	 /* what the node wanted when this was sent */
	int fd;
	bool set_mtime;
};

void sync_wake(struct sync *s);

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
/* A part of a refused batch. */
struct batch *batch_part(struct batch *b, size_t first, size_t n);

/* Local steps of a plan. tree->lock held. */
void sync_forget_locked(struct sync *s, struct node *n);
int sync_adopt_locked(struct sync *s, struct node *n, struct node *ghost);
void sync_look(struct sync *s, uint64_t record);
void sync_fetch(struct sync *s, uint64_t node);

/* The remote has answered for all items of @b. Takes @b. */
void sync_apply(struct batch *b, int error);
/* The node's call is over without an outcome: try again later. tree->lock held. */
void sync_back_off_locked(struct sync *s, struct node *n);
/* The server will not: wait for the user. tree->lock held. */
void sync_park_locked(struct sync *s, struct node *n, int error, const char *message);
/* A call for @n is over. tree->lock held. */
void sync_landed_locked(struct sync *s, struct node *n);
/* After tree->lock was released: waiters of the node run, the thread plans again. */
void sync_tell(struct sync *s, uint64_t node);

#endif
