/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_SECRET_WATCH_H
#define ATTACHFS_FS_SECRET_WATCH_H

/*
 * Watches the files that hold credentials (token_file=, password_file=): when one was written anew
 * or replaced, however that was done, @changed is called, on a thread of the watch, a moment later.
 * Where the kernel does not tell (a network's file system), nothing comes: the file is read again
 * at the next refusal anyway.
 */

struct secret_watch;

/*
 * @paths: NULLs are skipped. 0, with NULL in *@ret_watch when there is nothing to watch; -errno of
 * inotify or of the thread.
 */
int secret_watch_new(const char *const *paths, unsigned n, void (*changed)(void *ctx), void *ctx,
		     struct secret_watch **ret_watch);

/* After this @changed is not called any more. NULL is fine. */
void secret_watch_free(struct secret_watch *w);

#endif
