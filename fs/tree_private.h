/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_TREE_PRIVATE_H
#define ATTACHFS_FS_TREE_PRIVATE_H

/* What the files of the tree share among themselves. tree->lock held throughout. */

#include "tree.h"

void tree_hash_rid_locked(struct tree *t, struct node *n);
void tree_unhash_rid_locked(struct tree *t, struct node *n);
void tree_forget_tombstones(struct tree *t);

/* The name to show for @k in @dir: encoded, and with the id where it is taken. NAMES_MAX + 1 bytes. */
void tree_shown_for_locked(struct tree *t, struct node *dir, const struct node *self,
			   const struct known *k, char *out);
/* Gone from the server, with nothing of the user's in it. */
void tree_vanish_locked(struct tree *t, struct node *n);
/* The record was not named by the listing begun at @mark: see tree_record_vanished(). */
void tree_end_record_locked(struct tree *t, uint64_t mark, struct node *record);

#endif
