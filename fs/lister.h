/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_LISTER_H
#define ATTACHFS_FS_LISTER_H

/*
 * Keeps the tree like the server: lists a collection when somebody first looks into it (or, where
 * the server does not list its records, each record), and the collections themselves where the
 * server says which there are; polls what was listed, and learns sizes.
 *
 * Of a collection that the ledger knows from an earlier mount, the first look starts a fresh
 * listing and waits for it a moment (LISTER_PATIENCE_MS); where it does not come, what the ledger
 * knows is shown.
 */

#include <stdbool.h>
#include <stdint.h>

#include "calls.h"
#include "tree.h"

#define LISTER_PATIENCE_MS 1000

struct lister;

int lister_new(struct mount *m, struct lister **ret_lister);
/* The engine is gone already. */
void lister_free(struct lister *l);

/*
 * Make known what is in @dir: the root (its collections), or a collection or a record in it. True:
 * it is (or as good as it gets), go on. False: @c was parked, or *@ret_error tells why it never will
 * be. tree->lock held.
 */
bool lister_need_locked(struct lister *l, struct call *c, struct node *dir, int *ret_error);

/*
 * The same for who takes what there is as it comes. While the first listing is under way this is true
 * after its first page, and *@ret_mark is the listing's: of nodes with a rid those it has named
 * (seen_seq) are there. When all is there *@ret_mark is 0.
 */
bool lister_need_some_locked(struct lister *l, struct call *c, struct node *dir, uint64_t *ret_mark,
			     int *ret_error);
/* After that, with a mark: park @c until there is more. */
void lister_await_more_locked(struct lister *l, struct call *c, struct node *dir);

/*
 * The server may show something else there now: list the collection again, soon. tree->lock held.
 * NULL is fine: nothing is listed here.
 */
void lister_again_locked(struct lister *l, struct node *collection);

/* A record of a collection that is not listed was made just now: it is known to be as it is here. */
void lister_made_locked(struct lister *l, struct node *record);

/*
 * Make @n's size known, and its siblings' while at it. True: known, or *@ret_error says why not;
 * false: @c was parked. tree->lock held; probes are sent when it is released, by lister_kick().
 */
bool lister_size_locked(struct lister *l, struct call *c, struct node *n, int *ret_error);

/* @n's size will be needed soon: probe it unless it is known. tree->lock held; lister_kick() afterwards. */
void lister_size_ahead_locked(struct lister *l, struct node *n);

/* Send what was decided under the lock. Call after releasing tree->lock. */
void lister_kick(struct lister *l);

/* A size learned by the way, from an answer. Any thread, no lock. */
void lister_learned_size(struct mount *m, uint64_t node, const char *version, int64_t size);
/* The same of its bytes, which are all in @c now. */
void lister_learned_content(struct mount *m, uint64_t node, const char *version, struct content *c);

/* Once a second: polls that are due. */
void lister_tick(struct lister *l);

/*
 * List now what is at @node: a collection, a record, or the record of a file; 0 or the root:
 * everything that was listed. @done is called when all are through (on a pool thread, or at once):
 * 0, -ENOENT (no such node any more), or what the server said last.
 */
void lister_refresh(struct lister *l, uint64_t node, void (*done)(void *ctx, int error), void *ctx);

#endif
