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

#include "sync_private.h"

/* The server has these bytes there already: nothing to upload. */
static bool is_unchanged(const struct batch *b, size_t i)
{
	const struct sent *sent = &b->sent[i];
	struct mount *m = b->sync->m;
	uint8_t ours[LEDGER_HASH_BYTES], theirs[LEDGER_HASH_BYTES];
	char key[NODE_KEY_MAX];
	struct content *clean = NULL;
	struct node *n;
	bool same;

	/* after an unknown outcome the server may have other bytes than we know of, or none */
	if (!sent->in_place || sent->doubt != LEDGER_FLIGHT_NONE || !sent->content ||
	    !content_hash(sent->content, ours))
		return false;
	tree_lock(m->tree);
	n = tree_find_locked(m->tree, sent->node);
	if (n && !n->known.filler && node_key(n, key))
		clean = content_peek_key(m->store, key);
	tree_unlock(m->tree);
	same = clean && content_is_complete(clean) &&
	       content_size(clean) == content_size(sent->content) && content_hash(clean, theirs) &&
	       !memcmp(ours, theirs, sizeof(ours));
	content_unref(clean);
	return same;
}

static void unchanged_locked(struct sync *s, const struct sent *sent, struct node *n)
{
	struct tree *t = s->m->tree;
	char key[NODE_KEY_MAX];

	sync_landed_locked(s, n);
	n->flight = sent->doubt;
	if (n->content == sent->content_id) {
		n->dirty = false;
		/* the time may differ though; and the name, which the replace would have carried */
		n->mtime_dirty |=
			s->m->remote->caps.set_mtime && n->known.mtime_ns != REMOTE_TIME_NONE &&
			n->mtime_ns / CLOCK_NS_PER_S != n->known.mtime_ns / CLOCK_NS_PER_S;
	}
	if (!n->dirty && node_key(n, key))
		content_become_clean(sent->content, key);
	tree_changed_locked(t, n);
	tree_release_locked(t, n);
}

/* Takes @b, a call of one item. */
static void apply_unchanged(struct batch *b)
{
	struct sync *s = b->sync;
	uint64_t id = b->sent[0].node;
	struct node *n;

	log_debug("sync: node %llu: content is what the server has: nothing to upload",
		  (unsigned long long)id);
	tree_lock(s->m->tree);
	s->uploads--;
	n = tree_find_locked(s->m->tree, id);
	if (n)
		unchanged_locked(s, &b->sent[0], n);
	tree_unlock(s->m->tree);
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
		snprintf(c->message, sizeof(c->message), "the local copy cannot be read: %s",
			 strerror(-r));
	}
	sync_apply(b, 0);
}

/* Whether it can be sent before its hash is known. */
static bool hash_can_wait(const struct sent *sent)
{
	return sent->first_try && !sent->in_place && sent->content &&
	       content_is_dirty(sent->content) && content_is_complete(sent->content);
}

/*
 * All bytes in one file, hashed unless that can wait; a lost clean content was evicted a moment ago,
 * and is fetched again.
 */
static int make_ready(const struct sent *sent, struct remote_change *c, bool hash)
{
	struct content_extent extent = {.where = CONTENT_END};
	int r = 0;

	if (sent->lost)
		return sent->lost;
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
	if (b && b->n)
		batch_call(b);
	else
		batch_free(b);
	for (size_t i = 0; i < n_late; i++)
		hash_late(late[i]);
	free(late);
}

void batch_upload(struct batch *b)
{
	if (pool_run(b->sync->m->disk_pool, upload_job, b) < 0)
		apply_unreadable(b, -ENOMEM);
}
