/* SPDX-License-Identifier: MIT */
#include "replaced.h"

#include "notifier.h"
#include "ops.h"
#include "reader.h"

void replaced_by_server_locked(struct tree *t, struct node *n, int64_t old_size)
{
	if (!notifier_bytes(t->notifier, n->id))
		return;
	if (!n->more->n_untold)
		node_more(n)->told_size = old_size;
	node_more(n)->n_untold++;
}

bool is_replaced_untold_locked(const struct node *n)
{
	return n->more->n_untold && !(n->more->view && content_is_dirty(n->more->view));
}

/* What is fetched for older handles of @n is no use any more. NULL, or that content. */
static struct content *take_old_feed_locked(struct mount *m, struct node *n)
{
	struct content *feed = n->more->feed, *now;
	char key[NODE_KEY_MAX];

	if (!feed)
		return NULL;
	now = node_key(n, key) ? content_peek_key(m->store, key) : NULL;
	content_unref(now);
	if (now == feed)
		return NULL;
	reader_close(m->reader, feed);
	node_more(n)->feed = NULL;
	return feed;
}

static void before(void *ctx, uint64_t id)
{
	struct mount *m = ctx;
	struct content *feed = NULL;
	struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, id);
	if (n)
		feed = take_old_feed_locked(m, n);
	tree_unlock(m->tree);
	if (feed)
		calls_wake_bytes(m->calls, content_id(feed), 0, UINT64_MAX, -ESTALE);
	content_unref(feed);
}

static void told(void *ctx, uint64_t id)
{
	struct mount *m = ctx;
	struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, id);
	if (n && n->more->n_untold && !--node_more(n)->n_untold)
		node_more(n)->told_size = 0;
	calls_wake(m->calls, CALL_WAIT_TOLD, id, 0);
	tree_unlock(m->tree);
}

void replaced_init(struct mount *m)
{
	notifier_hook(m->notifier, &(struct notifier_hooks){before, told, m});
}
