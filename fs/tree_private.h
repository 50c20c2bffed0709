/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_TREE_PRIVATE_H
#define ATTACHFS_FS_TREE_PRIVATE_H

/* What the files of the tree share among themselves. tree->lock held throughout. */

#include "tree.h"

/* A node of that id that nothing but its id leads to; NULL without memory. Into @dir, where its name is free. */
struct node *tree_alloc_node_locked(struct tree *t, enum node_kind kind, uint64_t id);
void tree_link_child_locked(struct tree *t, struct node *dir, struct node *n);
void tree_hash_rid_locked(struct tree *t, struct node *n);
void tree_unhash_rid_locked(struct tree *t, struct node *n);
void tree_forget_tombstones(struct tree *t);

/* tree_news.c */

/*
 * Another client has done something to @n: "appeared", "changed", "renamed", "moved" (@detail: the
 * path it had), "disappeared" (told before it goes).
 */
void tree_news_locked(struct tree *t, const char *event, const struct node *n, const char *detail);

/* tree_remote.c */

/* A node for a file that a listing shows for the first time. Takes over @k. 0, -ENOMEM. */
int tree_new_file_locked(struct tree *t, uint64_t mark, struct node *dir, struct known *k);
void tree_follow_mtime_locked(struct tree *t, struct node *n, int64_t old_mtime_ns);
/* The name to show for @k in @dir: encoded, and with the id where it is taken. NAMES_MAX + 1 bytes. */
void tree_shown_for_locked(struct tree *t, struct node *dir, const struct node *self,
			   const struct known *k, char *out);
/* It is gone from the server, with nothing of the user's in it, and from here. May free @n. */
void tree_vanish_locked(struct tree *t, struct node *n);
/* The record was not named by the listing begun at @mark: see tree_record_vanished(). */
void tree_end_record_locked(struct tree *t, uint64_t mark, struct node *record);

/* tree_conflict.c */

/*
 * Changed here and there: ours goes on as a new file, a new node in @dir takes @k, the server's.
 * 0, -ENOMEM.
 */
int tree_part_conflict_locked(struct tree *t, uint64_t mark, struct node *dir, struct node *n,
			      struct known *k);
/*
 * @n's bytes, which were ours, are overwritten by @k of another client who cannot have seen them:
 * ours go on as a new file under a conflict name.
 */
void tree_keep_overwritten_locked(struct tree *t, struct node *n, const struct known *k);
/*
 * Names are unique, and @k of another client has one that the user wants for a file of his: his
 * would overwrite it, and gets a conflict name.
 */
void tree_step_aside_locked(struct tree *t, struct node *dir, const struct known *k);
/*
 * @n's identity was not named by the listing @mark. Where contents are immutable and the listing
 * showed a new file at its place, that one is what it has become: true, and @n is done with.
 */
bool tree_follow_successor_locked(struct tree *t, uint64_t mark, struct node *n);

#endif
