/* SPDX-License-Identifier: MIT */

/*
 * What is behind a file's name while it is open: its view (what reads and writes go to) and its
 * feed (where missing bytes come from).
 *
 *	view	NULL            empty, or not needed yet
 *		clean           the server's version
 *		dirty, SEALED   what a close promised, on its way to the server perhaps: never written again
 *		dirty, OPEN     what is being written now, over one of the above
 *
 * Only a close (or fsync) makes an OPEN one what the user wants, so a daemon killed in the middle
 * of a write leaves what the last close promised.
 */

#include "ops.h"

#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "crashpoint.h"
#include "events.h"
#include "notifier.h"
#include "reader.h"
#include "replaced.h"
#include "sync.h"

int file_view_locked(struct mount *m, struct node *n)
{
	char key[NODE_KEY_MAX];

	if (n->more->view)
		return 0;
	node_more(n)->view = node_content(m->tree, n);
	if (n->more->view || (!n->content && (n->dirty || !node_rid(n))))
		return 0;
	if (n->dirty)
		return log_errno(-EIO, "'%s': its bytes are missing from the cache directory",
				 n->shown);
	if (!node_key(n, key))
		return -EIO;
	n->content = 0; /* it was evicted */
	node_more(n)->view =
		content_for_key(m->store, key, node_known(n).filler ? -1 : node_known(n).size);
	pin_content_locked(n, n->more->view);
	return n->more->view ? 0 : -ENOMEM;
}

/* @c takes the place of the view, whose reference goes. */
static void set_view_locked(struct node *n, struct content *c)
{
	struct content *old = n->more->view;

	node_more(n)->view = c;
	content_unref(old);
}

int file_writable_locked(struct mount *m, struct node *n, struct content **ret_content)
{
	int64_t size;
	struct content *c;
	int r = file_view_locked(m, n);

	if (r < 0)
		return r;
	if (!n->more->view || !content_is_dirty(n->more->view) ||
	    content_is_sealed(n->more->view)) {
		size = n->more->view ? content_is_dirty(n->more->view) ? content_size(n->more->view)
								       : n->size
				     : 0;
		if (size < 0)
			return -EIO; /* open() waited for it */
		c = content_new_dirty(m->store, n->more->view, (uint64_t)size);
		if (!c)
			return -ENOMEM;
		set_view_locked(n, c);
	}
	*ret_content = content_ref(n->more->view);
	return 0;
}

int file_empty_locked(struct mount *m, struct node *n)
{
	struct content *c = content_new_dirty(m->store, NULL, 0);

	if (!c)
		return -ENOMEM;
	set_view_locked(n, c);
	return 0;
}

/* tree->lock held: @sealed is the view still, and becomes what the user wants. */
static void want_locked(struct mount *m, struct node *n, struct content *sealed)
{
	struct content *old = n->content && n->content != content_id(sealed)
				      ? content_get(m->store, n->content)
				      : NULL;

	ledger_group_begin(m->ledger);
	if (old && content_is_dirty(old))
		content_set_before(sealed, content_id(old));
	pin_content_locked(n, sealed);
	n->content = node_more(n)->committed = content_id(sealed);
	n->size = content_size(sealed);
	n->dirty = true;
	n->in_ledger = true;
	n->error = 0;
	node_more(n)->sealed_ms = clock_mono_ms();
	tree_changed_locked(m->tree, n);
	if (old && content_is_dirty(old))
		content_drop(old); /* lives on as what lies below, as long as it is needed */
	ledger_group_end(m->ledger);
	content_unref(old);
}

static void merge_job(void *ctx)
{
	struct content *c = ctx;

	content_merge(c);
	content_unref(c);
}

/* Closed without a write ever: an empty file is wanted, or nothing changed. tree->lock held. */
static bool want_empty_locked(struct mount *m, struct node *n)
{
	if (n->in_ledger || n->gone)
		return false;
	n->in_ledger = true;
	n->dirty = true;
	n->size = 0;
	node_more(n)->sealed_ms = clock_mono_ms();
	tree_changed_locked(m->tree, n);
	return true;
}

/* Sealed and named by the row already: nothing was written since the last close. */
static bool is_wanted(const struct node *n, struct content *view)
{
	return content_is_sealed(view) && n->content == content_id(view);
}

int file_commit(struct mount *m, struct node *n)
{
	struct content *c = NULL;
	bool changed = false;
	int r = 0;

	crash_point("close.begun");
	tree_lock(m->tree);
	if (n->gone) {
		tree_unlock(m->tree);
		return 0;
	}
	if (n->more->view && content_is_dirty(n->more->view) &&
	    content_id(n->more->view) > n->more->committed && !is_wanted(n, n->more->view))
		c = content_ref(n->more->view);
	else
		changed = want_empty_locked(m, n);
	tree_unlock(m->tree);
	if (c)
		r = content_seal(c); /* waits for writers of other handles: not under the lock */
	if (c && !r) {
		crash_point("close.sealed");
		tree_lock(m->tree);
		/*
		 * ids count up: a later close may have been quicker, and what it committed lies
		 * over this
		 */
		if (n->gone)
			content_drop(c);
		else if (content_id(c) > n->more->committed)
			want_locked(m, n, c);
		else if (content_id(c) != n->content)
			content_drop(c);
		tree_unlock(m->tree);
		changed = true;
	}
	crash_point("close.wanted");
	if (changed && !r)
		r = ledger_commit(m->ledger);
	crash_point("close.committed");
	/* whole in itself: nothing lies below that it could be merged with */
	if (c && (r < 0 || content_is_complete(c) || pool_run(m->disk_pool, merge_job, c) < 0))
		content_unref(c);
	return r;
}

/* A new file of which nothing was ever committed. */
static void vanish_uncommitted_locked(struct tree *t, struct node *n)
{
	if (n->in_ledger || n->gone)
		return;
	if (n->parent)
		notifier_delete(t->notifier, n->parent->id, n->id, n->shown);
	tree_unlink_locked(t, n);
	n->gone = true;
}

void file_abandon(struct mount *m, struct node *n)
{
	struct tree *t = m->tree;
	int64_t old_size;

	tree_lock(t);
	log_warning(
		"'%s': what was written over a version that is gone from the server is dropped, "
		"and its program told so (ESTALE)",
		n->shown);
	old_size = node_size_locked(n);
	set_view_locked(n, n->content ? content_get(m->store, n->content) : NULL);
	replaced_by_server_locked(t, n, old_size); /* what was dropped is in the kernel's pages */
	vanish_uncommitted_locked(t, n);
	tree_unlock(t);
}

int file_feed_locked(struct mount *m, struct node *n, struct content *clean)
{
	struct tree *t = m->tree;
	struct node *record = tree_find_locked(t, node_known(n).record),
		    *top = record ? tree_collection_of_locked(t, record) : NULL;
	struct content *now;
	struct remote_file file;
	char key[NODE_KEY_MAX];
	int r;

	if (n->more->feed == clean)
		return 0;
	if (!record || !top || !node_key(n, key))
		return -ESTALE;
	now = content_peek_key(t->store, key);
	content_unref(now);
	if (now != clean)
		return -ESTALE;
	node_borrow_file(n, node_rid(record), &file);
	r = reader_open(m->reader, clean, &file, node_collection_id(top), n->id);
	free(file.url);
	if (r < 0)
		return r;
	if (n->more->feed) {
		reader_close(m->reader, n->more->feed);
		content_unref(n->more->feed);
	}
	node_more(n)->feed = content_ref(clean);
	return 0;
}

void file_close_locked(struct mount *m, struct node *n)
{
	/* a call may have counted as a handle when they were replaced */
	if (n->more->n_stale > n->more->n_open)
		node_more(n)->n_stale = n->more->n_open;
	if (n->more->n_open)
		return;
	if (n->more->feed) {
		reader_close(m->reader, n->more->feed);
		content_unref(n->more->feed);
		node_more(n)->feed = NULL;
	}
	set_view_locked(n, NULL);
	/* its program was told; it would stand here as if it were to be sent */
	if (n->parent && !n->in_ledger && !n->gone)
		log_warning("'%s': could not be kept when it was closed, and is gone", n->shown);
	vanish_uncommitted_locked(m->tree, n);
	node_less(n);
	/* what waited for the last reader or writer to leave may go now */
	if (n->in_sync_list && m->tree->sync_wake)
		m->tree->sync_wake(m->tree->sync_ctx);
	tree_settle_locked(m->tree, n);
	tree_release_locked(m->tree, n);
}
