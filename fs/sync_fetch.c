/* SPDX-License-Identifier: MIT */

/*
 * Bytes that must be here first: those a partial overwrite left on the server, and whole files that
 * go to another place where the server cannot move them.
 */

#include <errno.h>
#include <stdlib.h>

#include <attachfs/log.h>

#include "crashpoint.h"
#include "lister.h"
#include "reader.h"
#include "sync_private.h"

#define LISTINGS_MAX 4 /* that may still show what is gone already */

struct fetching {
	struct sync *sync;
	uint64_t node;
	struct content *clean;
};

static void on_fetched(void *ctx, int error)
{
	struct fetching *f = ctx;
	struct sync *s = f->sync;
	struct tree *t = s->m->tree;
	struct node *n;
	bool is_gone = error == -ENOENT || error == -ESTALE;

	crash_point("fetch.done");
	reader_close(s->m->reader, f->clean);
	content_unref(f->clean);
	tree_lock(t);
	n = tree_find_locked(t, f->node);
	if (n) {
		sync_landed_locked(s, n);
		if (is_gone && (n->dirty || n->more->tries >= LISTINGS_MAX))
			sync_park_locked(s, n, error,
					 "the rest of this file is gone from the server");
		else if (error)
			sync_back_off_locked(s, n);
		/* nothing of it was changed here: what is there now goes to the new place */
		if (is_gone && n->parent)
			lister_again_locked(s->m->lister, n->parent);
		tree_changed_locked(t, n);
		tree_release_locked(t, n);
	}
	tree_unlock(t);
	sync_tell(s, f->node);
	free(f);
}

/* The clean content at the bottom of what the node wants, or that of its known version. */
static struct content *bottom_locked(struct sync *s, struct node *n)
{
	struct content *c = n->content ? content_get(s->m->store, n->content) : NULL;
	struct content_extent extent;
	struct content *clean = NULL;
	char key[NODE_KEY_MAX];
	uint64_t off = 0;

	while (c && !clean && !content_map(c, off, UINT64_MAX / 2 - off, &extent) &&
	       extent.where != CONTENT_END) {
		if (extent.where == CONTENT_MISSING)
			clean = content_ref(extent.owner);
		off += extent.len;
	}
	content_unref(c);
	if (clean || n->dirty || !node_key(n, key))
		return clean;
	return content_for_key(s->m->store, key, node_known(n).size);
}

/* A reader may have brought it since this was planned: nothing is gone. */
static bool is_here_locked(struct sync *s, const struct node *n)
{
	struct content *c = n->content ? content_get(s->m->store, n->content) : NULL;
	bool here = c && content_is_local(c);

	content_unref(c);
	return here;
}

void sync_fetch(struct sync *s, uint64_t node)
{
	struct tree *t = s->m->tree;
	struct fetching *f = calloc(1, sizeof(*f));
	struct node *n, *record, *top;
	int r = -ENODATA;

	tree_lock(t);
	n = tree_find_locked(t, node);
	if (f && n) {
		struct remote_file file;

		record = tree_find_locked(t, node_known(n).record);
		top = record ? tree_collection_of_locked(t, record) : NULL;
		node_borrow_file(n, record ? node_rid(record) : NULL, &file);
		*f = (struct fetching){s, node, bottom_locked(s, n)};
		if (!f->clean && is_here_locked(s, n))
			r = -EAGAIN;
		if (f->clean && top)
			r = reader_open(s->m->reader, f->clean, &file, node_collection_id(top),
					node);
		free(file.url);
	}
	if (n && r < 0) {
		sync_landed_locked(s, n);
		if (r == -ENODATA)
			sync_park_locked(s, n, r, "the rest of this file is gone from the server");
		else
			sync_back_off_locked(s, n);
		tree_changed_locked(t, n);
	}
	tree_unlock(t);
	if (r < 0) {
		if (f)
			content_unref(f->clean);
		free(f);
		sync_tell(s, node);
		return;
	}
	reader_fetch_all(s->m->reader, f->clean, on_fetched, f);
}
