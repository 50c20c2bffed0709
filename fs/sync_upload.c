/* SPDX-License-Identifier: MIT */

/*
 * The bytes of an upload: on a pool thread they are first brought into one file and hashed
 * (content_flatten) and compared with what the server has. An item whose bytes cannot be had, or need
 * not be sent, leaves the call; the others go on.
 *
 * What lies in one file already and has nothing to be compared with is hashed while it is being sent.
 * Only at the first try: should the bytes turn out to be unreadable, the second one says so.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "crashpoint.h"
#include "sync_private.h"

/*
 * Whose bytes on the server an upload would put the same in the place of: its own, or those of the
 * gone file there. NULL: nobody's. tree->lock held.
 */
static struct node *predecessor_locked(struct tree *t, const struct sent *sent)
{
	struct node *n = tree_find_locked(t, sent->in_place ? sent->node : sent->heir_of);

	if (!n || sent->in_place)
		return n;
	return n->gone && !n->busy && !n->unknown && n->flight == LEDGER_FLIGHT_NONE ? n : NULL;
}

/* Read a moment ago, perhaps: its hash is on its way. */
static void finish_predecessor(struct tree *t, const struct sent *sent)
{
	struct content *clean = NULL;
	char key[NODE_KEY_MAX];
	struct node *n;

	tree_lock(t);
	n = predecessor_locked(t, sent);
	if (n && !node_known(n).filler && !node_known(n).has_hash && node_key(n, key))
		clean = content_peek_key(t->store, key);
	tree_unlock(t);
	if (clean && content_is_complete(clean))
		content_finish(clean);
	content_unref(clean);
}

/* The server has these bytes there already: nothing to upload. */
static bool is_unchanged(const struct batch *b, size_t i)
{
	const struct sent *sent = &b->sent[i];
	struct tree *t = b->sync->m->tree;
	struct node *n;
	bool same;

	/* after an unknown outcome the server may have other bytes than we know of, or none */
	if ((!sent->in_place && !sent->heir_of) || sent->doubt != LEDGER_FLIGHT_NONE)
		return false;
	finish_predecessor(t, sent);
	if (sent->content && !content_is_dirty(sent->content))
		content_finish(sent->content);
	tree_lock(t);
	n = predecessor_locked(t, sent);
	same = n && node_known_is_content(t, n, sent->content);
	tree_unlock(t);
	return same;
}

static void unchanged_locked(struct sync *s, const struct sent *sent, struct node *n)
{
	struct tree *t = s->m->tree;
	char key[NODE_KEY_MAX];

	n->flight = sent->doubt;
	node_set_hash(n, sent->content);
	if (n->content == sent->content_id) {
		n->dirty = false;
		/* the time may differ though; and the name, which the replace would have carried */
		n->mtime_dirty |=
			s->m->remote->caps.set_mtime &&
			node_known(n).mtime_ns != REMOTE_TIME_NONE &&
			n->mtime_ns / CLOCK_NS_PER_S != node_known(n).mtime_ns / CLOCK_NS_PER_S;
		/* a thousand that are compared one after the other go in one call */
		if (n->mtime_dirty)
			node_more(n)->name_ms = clock_mono_ms();
	}
	if (!n->dirty && sent->content && node_key(n, key))
		content_become_clean(sent->content, key);
	tree_changed_locked(t, n);
}

/* The node takes the place of the gone one. False: what is there is another's by now. */
static bool inherit_locked(struct sync *s, const struct sent *sent, struct node *n)
{
	struct tree *t = s->m->tree;
	struct node *gone = predecessor_locked(t, sent);
	enum ledger_flight flight = n->flight;

	if (!gone || n->gone || !node_known_is_content(t, gone, sent->content))
		return false;
	n->flight = LEDGER_FLIGHT_NONE;
	if (sync_adopt_locked(s, n, gone) == 0)
		return true;
	n->flight = flight;
	return false;
}

/* Takes @b, a call of one item. */
static void apply_unchanged(struct batch *b)
{
	struct sync *s = b->sync;
	const struct sent *sent = &b->sent[0];
	uint64_t id = sent->node;
	struct node *n;
	bool again = false;

	tree_lock(s->m->tree);
	ledger_group_begin(s->m->ledger);
	n = tree_find_locked(s->m->tree, id);
	again = n && !sent->in_place && !inherit_locked(s, sent, n);
	if (!again) {
		s->uploads--;
		batch_uncount(b);
	}
	if (n && !again) {
		sync_landed_locked(s, n);
		unchanged_locked(s, sent, n);
		tree_release_locked(s->m->tree, n);
	}
	crash_point("unchanged.row");
	ledger_group_end(s->m->ledger);
	tree_unlock(s->m->tree);
	if (again) {
		batch_call(b);
		return;
	}
	log_debug("sync: node %llu: content is what the server has: nothing to upload",
		  (unsigned long long)id);
	batch_free(b);
	sync_tell(s, id);
}

/* Takes @b. */
static void apply_unreadable(struct batch *b, int r)
{
	for (size_t i = 0; i < b->n; i++) {
		struct remote_change *c = &b->items[i];

		c->outcome = r == -ENODATA || r == -EIO ? REMOTE_REFUSED : REMOTE_RETRY;
		c->error = r;
		snprintf(c->message, sizeof(c->message), "the local copy cannot be read: %s%s",
			 strerror(-r),
			 r == -EIO ? "; the log says what is left of it in lost+found" : "");
	}
	sync_apply(b, 0);
}

/* Whether it can be sent before its hash is known. */
static bool hash_can_wait(const struct sent *sent)
{
	return sent->first_try && !sent->in_place && !sent->heir_of && sent->content &&
	       content_is_dirty(sent->content) && content_is_complete(sent->content);
}

/*
 * All bytes in one file, those that were put there, and hashed unless that can wait; a lost clean
 * content was evicted a moment ago, or has a bad block, and is fetched again.
 */
static int make_ready(const struct sent *sent, struct remote_change *c, bool hash)
{
	struct content_extent extent = {.where = CONTENT_END};
	int r = 0;

	if (sent->lost)
		return sent->lost;
	if (sent->content)
		r = content_check(sent->content, 0, UINT64_MAX, c->name ? c->name : c->known_name);
	if (r != 0)
		return r < 0 ? r : -EAGAIN;
	if (hash && sent->content && content_is_dirty(sent->content))
		r = content_flatten(sent->content);
	if (!r && sent->content && content_size(sent->content) > 0)
		r = content_map(sent->content, 0, 1, &extent);
	if (r < 0)
		return r;
	if (extent.where == CONTENT_MISSING)
		return -EAGAIN;
	c->size = sent->content ? (uint64_t)content_size(sent->content) : 0;
	c->fd = extent.where == CONTENT_FILE ? extent.fd : -1;
	return 0;
}

/* Item @i leaves the call. False: without memory, the call has ended for all. */
static bool leave(struct batch *b, size_t i, int error)
{
	struct batch *one = batch_split(b, i, 1);

	if (!one) {
		apply_unreadable(b, -ENOMEM);
		return false;
	}
	if (error)
		apply_unreadable(one, error);
	else
		apply_unchanged(one);
	return true;
}

/* The server may have taken it by now: then it is clean. */
static void hash_late(struct content *c)
{
	int r = content_flatten(c);

	if (r == -EINVAL && !content_is_dirty(c))
		r = content_finish(c);
	if (r < 0)
		log_errno(r, "sync: content %llu, while it is sent",
			  (unsigned long long)content_id(c));
	content_unref(c);
}

static void upload_job(void *ctx)
{
	struct batch *b = ctx;
	struct content **late = calloc(b->n, sizeof(struct content *));
	size_t n_late = 0;

	for (size_t i = 0; i < b->n;) {
		bool can_wait = late && hash_can_wait(&b->sent[i]);
		int r = make_ready(&b->sent[i], &b->items[i], !can_wait);

		if (!r && can_wait)
			late[n_late++] = content_ref(b->sent[i].content);
		if (!r && (can_wait || !is_unchanged(b, i))) {
			i++;
		} else if (!leave(b, i, r)) {
			b = NULL;
			break;
		}
	}
	if (b && b->n) {
		batch_call(b);
	} else if (b) {
		struct sync *s = b->sync;

		batch_free(b);
		sync_wake(s);
	}
	for (size_t i = 0; i < n_late; i++)
		hash_late(late[i]);
	free(late);
}

void batch_upload(struct batch *b)
{
	if (pool_run(b->sync->m->disk_pool, upload_job, b) < 0)
		apply_unreadable(b, -ENOMEM);
}
