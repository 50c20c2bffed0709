/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_PREFETCH_H
#define ATTACHFS_FS_PREFETCH_H

/*
 * Fetches small files ahead of a program that reads one after another. siblings.h decides which ones;
 * here is who reads (the last PREFETCH_PROGRAMS threads that did), what there is in the tree, and the
 * fetching: by transfers of the class TRANSFER_PREFETCH, which give way to whatever a program waits
 * for. When it comes to read one of them, that becomes interactive. Sizes that the next files have
 * yet to be asked for are asked for in the same class.
 *
 * Nothing is fetched ahead while the server is offline or has frozen us.
 *
 * Everything is guarded by tree->lock.
 */

#include <stdint.h>

struct call;
struct handle;
struct mount;
struct prefetch;
struct prefetch_batch;

#define PREFETCH_PROGRAMS 32
/* In larger directories, and collections, nobody is followed by name: it takes sorting. */
#define PREFETCH_SORT_MAX 20000

/* 0 or -ENOMEM. */
int prefetch_new(struct mount *m, struct prefetch **ret_prefetch);
void prefetch_free(struct prefetch *p);

/*
 * @c is a read through @h. What to fetch because of it, to be handed to prefetch_send() when nobody
 * waits for that any more; NULL = nothing, as nearly always.
 */
struct prefetch_batch *prefetch_read_locked(struct prefetch *p, const struct call *c,
					    struct handle *h);

/* Frees @b, which may be NULL. tree->lock not held. */
void prefetch_send(struct mount *m, struct prefetch_batch *b);

#endif
