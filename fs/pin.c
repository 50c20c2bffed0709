/* SPDX-License-Identifier: MIT */

/*
 * Pinned files: the attribute user.attachfs.pin of a file, "1" or not there. What is behind the file's
 * name is never evicted then, and fetched as soon as it is pinned, or a poll finds that it was replaced
 * on the server. The attribute is kept as any other of the user's; each content that comes under the name
 * is told.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#include "ops.h"
#include "reader.h"

bool pin_is_set(const struct node *n)
{
	return node_find_xattr(n, PIN_XATTR) != NULL;
}

int pin_check_value(const char *value, size_t len)
{
	return len == 1 && *value == '1' ? 0 : -EINVAL;
}

void pin_content_locked(const struct node *n, struct content *c)
{
	if (c)
		content_set_pinned(c, pin_is_set(n));
}

struct pinning {
	struct mount *m;
	struct content *clean;
	uint64_t node;
};

static void on_fetched(void *ctx, int error)
{
	struct pinning *p = ctx;

	if (error)
		log_warning("pin: node %llu could not be fetched now: %s; what is missing of it "
			    "comes when it is read",
			    (unsigned long long)p->node, strerror(-error));
	reader_close(p->m->reader, p->clean);
	content_unref(p->clean);
	free(p);
}

/* 0, or why there is nothing to fetch. tree->lock held. */
static int open_locked(struct pinning *p, struct node *n)
{
	struct tree *t = p->m->tree;
	struct node *record = tree_find_locked(t, node_known(n).record);
	struct node *top = record ? tree_collection_of_locked(t, record) : NULL;
	struct remote_file file;
	char key[NODE_KEY_MAX];
	int r;

	if (n->dirty || !top || !node_key(n, key))
		return -ENODATA;
	p->clean = content_for_key(t->store, key, node_known(n).filler ? -1 : node_known(n).size);
	if (!p->clean)
		return -ENOMEM;
	pin_content_locked(n, p->clean);
	if (content_is_complete(p->clean))
		return -ENODATA;
	node_borrow_file(n, node_rid(record), &file);
	r = reader_open(p->m->reader, p->clean, &file, node_collection_id(top), n->id);
	free(file.url);
	return r;
}

void pin_changed(struct mount *m, uint64_t node)
{
	struct pinning *p = calloc(1, sizeof(*p));
	struct content *c = NULL;
	struct node *n;
	int r = -ENOMEM;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, node);
	if (n)
		pin_content_locked(n, c = node_content(m->tree, n));
	if (n && n->more->view)
		pin_content_locked(n, n->more->view);
	if (n && p && pin_is_set(n)) {
		*p = (struct pinning){.m = m, .node = node};
		r = open_locked(p, n);
	}
	tree_unlock(m->tree);
	content_unref(c);
	if (r == 0) {
		reader_fetch_all(m->reader, p->clean, on_fetched, p);
		return;
	}
	content_unref(p ? p->clean : NULL);
	free(p);
}

struct replaced {
	struct mount *m;
	uint64_t node;
};

static void replaced_job(void *ctx)
{
	struct replaced *r = ctx;

	pin_changed(r->m, r->node);
	free(r);
}

/* From the tree, whose lock is held: in the middle of a listing. */
static void on_replaced(void *ctx, const struct node *n)
{
	struct replaced *r = pin_is_set(n) ? malloc(sizeof(*r)) : NULL;

	if (!r)
		return;
	*r = (struct replaced){ctx, n->id};
	/* without memory it is fetched when it is read */
	if (pool_run(((struct mount *)ctx)->pool, replaced_job, r) < 0)
		free(r);
}

void pin_follow(struct mount *m)
{
	m->tree->replaced = on_replaced;
	m->tree->replaced_ctx = m;
}
