/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_TREE_PRIVATE_H
#define ATTACHFS_FS_TREE_PRIVATE_H

/* What the files of the tree share among themselves. tree->lock held throughout. */

#include "tree.h"

void tree_hash_rid_locked(struct tree *t, struct node *n);
void tree_unhash_rid_locked(struct tree *t, struct node *n);
void tree_forget_tombstones(struct tree *t);

#endif
