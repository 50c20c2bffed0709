/* SPDX-License-Identifier: MIT */

/*
 * From a planned call to the remote's: copies of what must be sent, so that the tree may go on
 * changing meanwhile. An upload's bytes are first brought into one file (content_flatten) and
 * compared with what the server has, on a pool thread.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/names.h>

#include "reader.h"
#include "sync_private.h"

void batch_free(struct batch *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->n; i++)
		remote_file_clear(&b->items[i].file);
	for (size_t i = 0; i < b->n_strings; i++)
		free(b->strings[i]);
	content_unref(b->content);
	free(b->strings);
	free(b->items);
	free(b->nodes);
	free(b);
}

static struct batch *batch_alloc(struct sync *s, enum plan_kind kind, size_t n)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->sync = s;
	b->kind = kind;
	b->n = n;
	b->fd = -1;
	b->items = calloc(n, sizeof(*b->items));
	b->nodes = calloc(n, sizeof(*b->nodes));
	b->strings = calloc(n * 6, sizeof(*b->strings));
	if (!b->items || !b->nodes || !b->strings) {
		b->n = 0;
		batch_free(b);
		return NULL;
	}
	return b;
}

/*
 * A copy that lives as long as the batch; NULL stays NULL, and without memory too, which fails the
 * call harmlessly.
 */
static const char *keep(struct batch *b, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (copy)
		b->strings[b->n_strings++] = copy;
	return copy;
}

static void fill_place(struct batch *b, struct remote_change *c, struct tree *t,
		       const struct node *n)
{
	const struct node *dir = n->parent ? n->parent : tree_find_locked(t, n->known.record);

	if (dir && dir->kind == NODE_RECORD) {
		c->record = keep(b, dir->known.rid);
		dir = tree_collection_of_locked(t, dir);
		c->collection = dir ? keep(b, node_collection_id(dir)) : NULL;
	} else if (dir) {
		c->collection = keep(b, node_collection_id(dir)); /* the node is a record itself */
	}
}

static void fill_item(struct batch *b, size_t i, const struct plan_entry *e, struct node *n)
{
	struct sync *s = b->sync;
	struct remote_change *c = &b->items[i];
	char server[3 * NAMES_MAX + 1];

	b->nodes[i] = n->id;
	n->busy = true;
	s->in_flight++;
	*c = (struct remote_change){.mtime_ns = REMOTE_TIME_NONE,
				    .fd = -1,
				    .filler = e->filler,
				    .move = e->set_record,
				    .file.size = -1};
	c->id = b->kind == PLAN_CREATE ? NULL : keep(b, n->known.rid);
	c->version = b->kind == PLAN_REPLACE ? keep(b, n->known.version) : NULL;
	fill_place(b, c, s->m->tree, n);
	c->fields_json = b->kind == PLAN_UPDATE_RECORDS ? keep(b, n->fields) : NULL;
	if (e->set_name || b->kind == PLAN_CREATE) {
		names_to_server(e->name ? e->name : n->shown, server);
		c->name = keep(b, server);
	}
	/*
	 * every change sets the server's time to now unless it is sent along: a file's time must
	 * not jump
	 */
	if (s->m->remote->caps.set_mtime && b->kind != PLAN_REMOVE &&
	    b->kind != PLAN_UPDATE_RECORDS)
		c->mtime_ns = n->mtime_ns;
}

/* Survives as a part's file name on every server. */
static bool is_plain(const char *name)
{
	return name && *name &&
	       !name[strspn(name,
			    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")];
}

/*
 * An upload sets the server's file name to the part's. A file with a label of its own (P-31) keeps
 * both names; any other is uploaded under its name, or where that would not survive, under a token,
 * and renamed afterwards (P-15).
 */
static void fill_part_name(struct batch *b, struct node *n)
{
	struct remote_change *c = &b->items[0];
	const struct known *k = &n->known;
	uint64_t record = n->parent ? n->parent->id : k->record;
	char token[64];

	if (b->kind == PLAN_REPLACE && !c->name && k->filename && strcmp(k->filename, k->name) &&
	    is_plain(k->filename) && !node_has_token(n, k->filename)) {
		c->token = keep(b, k->filename);
		return;
	}
	if (!c->name)
		c->name = keep(b, k->name);
	if (c->name && node_set_flight(n, ++b->sync->next_token, record, c->name) &&
	    node_token(n, token))
		c->token = keep(b, token);
}

static void fill_upload(struct batch *b, struct node *n)
{
	struct sync *s = b->sync;

	b->content_id = n->content;
	b->content = n->content ? content_get(s->m->store, n->content) : NULL;
	fill_part_name(b, n);
	n->flight = b->kind == PLAN_CREATE ? LEDGER_FLIGHT_CREATE : LEDGER_FLIGHT_REPLACE;
	n->flight_since_ns = clock_real_ns();
	tree_put_locked(s->m->tree, n);
}

struct batch *batch_new_locked(struct sync *s, const struct plan *plan,
			       const struct plan_call *call, struct node *const *nodes)
{
	struct batch *b = batch_alloc(s, call->kind, call->n);

	if (!b)
		return NULL;
	for (size_t i = 0; i < call->n; i++)
		fill_item(b, i, &plan->entries[call->first + i],
			  nodes[plan->entries[call->first + i].item]);
	if (call->kind == PLAN_CREATE || call->kind == PLAN_REPLACE)
		fill_upload(b, nodes[plan->entries[call->first].item]);
	return b;
}

struct batch *batch_part(struct batch *b, size_t first, size_t n)
{
	struct batch *part = batch_alloc(b->sync, b->kind, n);

	if (!part)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		const struct remote_change *c = &b->items[first + i];

		part->nodes[i] = b->nodes[first + i];
		part->items[i] = (struct remote_change){
			.collection = keep(part, c->collection),
			.record = keep(part, c->record),
			.id = keep(part, c->id),
			.name = keep(part, c->name),
			.mtime_ns = c->mtime_ns,
			.move = c->move,
			.fields_json = keep(part, c->fields_json),
			.fd = -1,
			.file.size = -1,
		};
	}
	return part;
}

/* ---- sending ---- */

static void on_done(void *ctx, int error, const char *message)
{
	struct batch *b = ctx;

	if (error && message && *message && !b->items[0].message[0])
		snprintf(b->items[0].message, sizeof(b->items[0].message), "%s", message);
	sync_apply(b, error);
}

static int send_call(struct batch *b)
{
	struct remote *r = b->sync->m->remote;
	const struct remote_ops *ops = r->ops;
	int (*op)(struct remote *, enum transfer_class, struct remote_change *, size_t,
		  remote_done *, void *) = NULL;

	switch (b->kind) {
	case PLAN_CREATE:
		op = ops->create;
		break;
	case PLAN_REPLACE:
		op = ops->replace;
		break;
	case PLAN_UPDATE:
		op = ops->update;
		break;
	case PLAN_REMOVE:
		op = ops->remove;
		break;
	case PLAN_UPDATE_RECORDS:
		op = ops->update_records;
		break;
	case PLAN_FORGET:
	case PLAN_ADOPT:
	case PLAN_LOOK:
	case PLAN_FETCH:
		break;
	}
	return op ? op(r, TRANSFER_WRITEBACK, b->items, b->n, on_done, b) : -EPERM;
}

static void send_or_fail(struct batch *b)
{
	int r = send_call(b);

	if (r == 0)
		return;
	for (size_t i = 0; i < b->n; i++) {
		/*
		 * what is not the call's own fault (shutting down, out of memory or descriptors)
		 * passes
		 */
		b->items[i].outcome = r == -EPERM || r == -EINVAL ? REMOTE_REFUSED : REMOTE_RETRY;
		b->items[i].error = r;
	}
	sync_apply(b, 0);
}

/* The server has these bytes already: nothing to upload. */
static bool is_unchanged(struct batch *b)
{
	struct mount *m = b->sync->m;
	uint8_t ours[LEDGER_HASH_BYTES], theirs[LEDGER_HASH_BYTES];
	char key[NODE_KEY_MAX];
	struct content *clean = NULL;
	struct node *n;
	bool same;

	if (b->kind != PLAN_REPLACE || !b->content || !content_hash(b->content, ours))
		return false;
	tree_lock(m->tree);
	n = tree_find_locked(m->tree, b->nodes[0]);
	if (n && !n->known.filler && node_key(n, key))
		clean = content_peek_key(m->store, key);
	tree_unlock(m->tree);
	same = clean && content_is_complete(clean) &&
	       content_size(clean) == content_size(b->content) && content_hash(clean, theirs) &&
	       !memcmp(ours, theirs, sizeof(ours));
	content_unref(clean);
	return same;
}

static void apply_unchanged(struct batch *b)
{
	struct sync *s = b->sync;
	struct tree *t = s->m->tree;
	uint64_t id = b->nodes[0];
	char key[NODE_KEY_MAX];
	struct node *n;

	log_debug("sync: node %llu: content is what the server has: nothing to upload",
		  (unsigned long long)id);
	tree_lock(t);
	s->uploads--;
	n = tree_find_locked(t, id);
	if (n) {
		sync_landed_locked(s, n);
		if (n->content == b->content_id) {
			n->dirty = false;
			/*
			 * the time may differ though; and the name, which the replace would have
			 * carried
			 */
			n->mtime_dirty |=
				s->m->remote->caps.set_mtime &&
				n->known.mtime_ns != REMOTE_TIME_NONE &&
				n->mtime_ns / CLOCK_NS_PER_S != n->known.mtime_ns / CLOCK_NS_PER_S;
		}
		if (!n->dirty && node_key(n, key))
			content_become_clean(b->content, key);
		tree_changed_locked(t, n);
		tree_release_locked(t, n);
	}
	tree_unlock(t);
	batch_free(b);
	sync_tell(s, id);
}

static void apply_unreadable(struct batch *b, int r)
{
	b->items[0].outcome = r == -ENODATA || r == -EIO ? REMOTE_REFUSED : REMOTE_RETRY;
	b->items[0].error = r;
	snprintf(b->items[0].message, sizeof(b->items[0].message),
		 "the local copy cannot be read: %s", strerror(-r));
	sync_apply(b, 0);
}

/* On the pool: make the bytes one file, then send. */
static void upload_job(void *ctx)
{
	struct batch *b = ctx;
	struct remote_change *c = &b->items[0];
	struct content_extent extent = {.where = CONTENT_END};
	int r = 0;

	if (!b->content && b->content_id) {
		apply_unreadable(b, -ENODATA);
		return;
	}
	if (b->content && content_is_dirty(b->content))
		r = content_flatten(b->content);
	if (!r && b->content && content_size(b->content) > 0)
		r = content_map(b->content, 0, 1, &extent);
	if (r < 0) {
		apply_unreadable(b, r);
		return;
	}
	if (is_unchanged(b)) {
		apply_unchanged(b);
		return;
	}
	c->size = b->content ? (uint64_t)content_size(b->content) : 0;
	c->fd = extent.where == CONTENT_FILE ? extent.fd : -1;
	send_or_fail(b);
}

void batch_send(struct batch *b)
{
	bool upload = b->kind == PLAN_CREATE || b->kind == PLAN_REPLACE;

	if (!upload)
		send_or_fail(b);
	else if (pool_run(b->sync->m->disk_pool, upload_job, b) < 0)
		apply_unreadable(b, -ENOMEM);
}

void batch_put_off(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		b->items[i].outcome = REMOTE_RETRY;
		b->items[i].error = -ENOSPC;
	}
	sync_apply(b, 0);
}

/* ---- bytes that must be here first ---- */

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

	reader_close(s->m->reader, f->clean);
	content_unref(f->clean);
	tree_lock(t);
	n = tree_find_locked(t, f->node);
	if (n) {
		sync_landed_locked(s, n);
		if (error == -ENOENT || error == -ESTALE)
			sync_park_locked(s, n, error,
					 "the rest of this file is gone from the server");
		else if (error)
			sync_back_off_locked(s, n);
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
			clean = content_ref(extent.clean);
		off += extent.len;
	}
	content_unref(c);
	if (clean || n->content || !node_key(n, key))
		return clean;
	return content_for_key(s->m->store, key, n->known.size);
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

		record = tree_find_locked(t, n->known.record);
		top = record ? tree_collection_of_locked(t, record) : NULL;
		known_borrow(n, record ? record->known.rid : NULL, &file);
		*f = (struct fetching){s, node, bottom_locked(s, n)};
		if (f->clean && top)
			r = reader_open(s->m->reader, f->clean, &file, node_collection_id(top),
					node);
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
