/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_NOTIFIER_H
#define ATTACHFS_FS_NOTIFIER_H

/*
 * Tells the kernel what changed behind its back. One thread alone calls fuse_lowlevel_notify_*(),
 * holding no lock while it does: the kernel may wait there for an operation that one of our workers
 * has yet to answer. The queueing functions never block and may be called under any lock.
 */

#include <stdbool.h>
#include <stdint.h>

struct fuse_session;
struct notifier;

/* What happens around a change of bytes. On the notifier's thread, no lock held. */
struct notifier_hooks {
	/* The kernel is about to hear, and will wait for each read of the file that is not answered. */
	void (*before)(void *ctx, uint64_t id);
	/* It has dropped the old bytes, or cannot be told any more. */
	void (*told)(void *ctx, uint64_t id);
	void *ctx;
};

int notifier_new(struct notifier **ret_notifier);
/* Before notifier_attach(). */
void notifier_hook(struct notifier *n, const struct notifier_hooks *hooks);
/* From now on notifications go to @session; before, they are dropped: nothing is cached yet. */
void notifier_attach(struct notifier *n, struct fuse_session *session);
/* Joins the thread. What is queued goes nowhere, but is ended. */
void notifier_free(struct notifier *n);

/* The name in that directory is not what it was (appeared, or leads to another node). */
void notifier_entry(struct notifier *n, uint64_t parent, const char *name);
/* The name went away, @child was behind it: inotify hears of it. */
void notifier_delete(struct notifier *n, uint64_t parent, uint64_t child, const char *name);
/* From now on a node may have two inodes (fs/passthrough.h), and both are told. */
void notifier_twins(struct notifier *n);
/* Attributes changed. */
void notifier_inode(struct notifier *n, uint64_t id);
/*
 * The bytes changed, and the size with them perhaps. True: the hooks will be called, once for each
 * call of this; false: there is nobody to tell.
 */
bool notifier_bytes(struct notifier *n, uint64_t id);
/* @done runs when the kernel has heard all that was queued before: on the notifier's thread, or at once. */
void notifier_after(struct notifier *n, void (*done)(void *ctx), void *ctx);

#endif
