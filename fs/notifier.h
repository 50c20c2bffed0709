/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_NOTIFIER_H
#define ATTACHFS_FS_NOTIFIER_H

/*
 * Tells the kernel what changed behind its back. One thread alone calls fuse_lowlevel_notify_*(),
 * holding no lock while it does: the kernel may wait there for an operation that one of our workers
 * has yet to answer. The queueing functions never block and may be called under any lock.
 */

#include <stdint.h>

struct fuse_session;
struct notifier;

int notifier_new(struct notifier **ret_notifier);
/* From now on notifications go to @session; before, they are dropped: nothing is cached yet. */
void notifier_attach(struct notifier *n, struct fuse_session *session);
/* Joins the thread. What is queued is dropped. */
void notifier_free(struct notifier *n);

/* The name in that directory is not what it was (appeared, or leads to another node). */
void notifier_entry(struct notifier *n, uint64_t parent, const char *name);
/* The name went away, @child was behind it: inotify hears of it. */
void notifier_delete(struct notifier *n, uint64_t parent, uint64_t child, const char *name);
/* From now on a node may have two inodes (fs/passthrough.h), and both are told. */
void notifier_twins(struct notifier *n);
/* Attributes changed; with @pages the cached bytes too. */
void notifier_inode(struct notifier *n, uint64_t id, int pages);

#endif
