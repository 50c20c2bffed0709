/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_REPLACED_H
#define ATTACHFS_FS_REPLACED_H

/*
 * A file's bytes became others without the kernel's doing. It keeps the old ones in its page cache,
 * where all handles share them, and the old size; and it takes a new size from whatever answer tells it,
 * while the pages go when the notifier thread says so. Between the two, who has the old version open would
 * read zeros behind its end, and who opens the new one, the old bytes, or the new ones cut at the old size. So
 * until the kernel has dropped the pages,
 *
 *	the old size is told, for no longer than the answer itself lives,
 *	who opens the file waits (CALL_WAIT_TOLD),
 *	reads by the older handles that wait for the server are answered (ESTALE): the kernel waits for them
 *	before it can drop their pages.
 *
 * And while older handles are open, who opens the file is given its twin (passthrough.h), which has pages of
 * its own. Where older handles of the twin are open, too, who only reads does without the page cache.
 *
 * What is written here meanwhile has a size of its own, which is told.
 */

#include <stdbool.h>
#include <stdint.h>

struct call;
struct mount;
struct node;
struct tree;

/* Before the first request. */
void replaced_init(struct mount *m);

/* The bytes of @n are others now; it was told to have @old_size. tree->lock held. */
void replaced_by_server_locked(struct tree *t, struct node *n, int64_t old_size);

/* The kernel has not heard of it yet. tree->lock held. */
bool is_replaced_untold_locked(const struct node *n);

#endif
