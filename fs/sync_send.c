/* SPDX-License-Identifier: MIT */

/*
 * From a planned call to the remote's: copies of what must be sent, so that the tree may go on
 * changing meanwhile, and a word in each row of what is on its way, for a later daemon.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/names.h>

#include "crashpoint.h"
#include "sync_private.h"

#define KEPT_MAX 10 /* strings of an item */

void batch_uncount(struct batch *b)
{
	if (b->counted)
		atomic_fetch_sub(&b->sync->changing, 1);
	b->counted = false;
}

void batch_free(struct batch *b)
{
	if (!b)
		return;
	batch_uncount(b);
	for (size_t i = 0; i < b->n; i++) {
		remote_file_clear(&b->items[i].file);
		content_unref(b->sent[i].content);
	}
	for (size_t i = 0; i < b->n_strings; i++)
		free(b->strings[i]);
	free(b->strings);
	free(b->items);
	free(b->sent);
	free(b);
}

const char *batch_kind(const struct batch *b)
{
	static const char *const words[] = {
		[PLAN_CREATE] = "create",	   [PLAN_REPLACE] = "replace",
		[PLAN_UPDATE] = "update",	   [PLAN_REMOVE] = "remove",
		[PLAN_UPDATE_RECORDS] = "records",
	};

	return b->n && b->items[0].filler ? "filler" : words[b->kind];
}

static struct batch *batch_alloc(struct sync *s, enum plan_kind kind, size_t n)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->sync = s;
	b->kind = kind;
	b->counted = sync_rests_on_look(kind);
	if (b->counted)
		atomic_fetch_add(&s->changing, 1);
	b->n = n;
	b->items = calloc(n, sizeof(*b->items));
	b->sent = calloc(n, sizeof(*b->sent));
	b->strings = calloc(n * KEPT_MAX, sizeof(*b->strings));
	if (!b->items || !b->sent || !b->strings) {
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

/* A new file and one that moves: where it is wanted; any other: where the server has it. */
static struct node *place_of(const struct batch *b, const struct plan_entry *e,
			     const struct node *n)
{
	bool wanted = b->kind == PLAN_CREATE || b->kind == PLAN_UPDATE_RECORDS || e->set_record;

	if (wanted && n->parent)
		return n->parent;
	return tree_find_locked(b->sync->m->tree, node_known(n).record);
}

static void fill_place(struct batch *b, const struct node *dir, const char **collection,
		       const char **record)
{
	if (dir && dir->kind == NODE_RECORD) {
		*record = keep(b, node_rid(dir));
		dir = tree_collection_of_locked(b->sync->m->tree, dir);
		*collection = dir ? keep(b, node_collection_id(dir)) : NULL;
	} else if (dir) {
		*collection = keep(b, node_collection_id(dir)); /* the node is a record itself */
	}
}

/* The way back, should the server not want it where it goes. */
static void fill_origin(struct batch *b, struct remote_change *c, const struct node *n)
{
	fill_place(b, tree_find_locked(b->sync->m->tree, node_known(n).record),
		   &c->known_collection, &c->known_record);
	c->known_filename = keep(b, node_known(n).filename);
}

static void fill_item(struct batch *b, size_t i, const struct plan_entry *e, struct node *n)
{
	struct sync *s = b->sync;
	struct remote_change *c = &b->items[i];
	char server[3 * NAMES_MAX + 1];

	b->sent[i] = (struct sent){.node = n->id, .doubt = n->flight};
	n->busy = true;
	s->in_flight++;
	*c = (struct remote_change){.mtime_ns = REMOTE_TIME_NONE,
				    .fd = -1,
				    .filler = e->filler,
				    .move = e->set_record,
				    .file.size = -1};
	c->id = b->kind == PLAN_CREATE ? NULL : keep(b, node_rid(n));
	c->known_name = b->kind == PLAN_CREATE ? NULL : keep(b, node_known(n).name);
	/* what an earlier call may have left there is not what is known */
	if (b->kind == PLAN_REPLACE && n->flight == LEDGER_FLIGHT_NONE)
		c->version = keep(b, node_known(n).version);
	fill_place(b, place_of(b, e, n), &c->collection, &c->record);
	if (c->move)
		fill_origin(b, c, n);
	c->fields_json = b->kind == PLAN_UPDATE_RECORDS ? keep(b, n->more->fields) : NULL;
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

/* ---- what a later daemon must know ---- */

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
static void fill_part_name(struct batch *b, size_t i, struct node *n)
{
	struct remote_change *c = &b->items[i];
	const struct sent *sent = &b->sent[i];
	const struct known known = node_known(n), *k = &known;
	bool wanted = b->kind == PLAN_CREATE && n->parent;
	struct flight f = {.record = wanted ? n->parent->id : k->record,
			   .content = sent->content_id,
			   .size = sent->content ? content_size(sent->content) : 0};
	bool labelled = b->kind == PLAN_REPLACE && !c->name && k->filename &&
			strcmp(k->filename, k->name) && is_plain(k->filename) &&
			!known_is_tokened(k);
	char token[64];

	/* where an earlier one may have arrived, or will yet, the size tells nothing */
	if (c->filler || (b->kind == PLAN_REPLACE && sent->doubt != LEDGER_FLIGHT_NONE))
		f.size = -1;
	f.name = c->name ? c->name : k->name;
	if (!node_set_flight(n, ++b->sync->next_token, &f))
		return;
	if (labelled)
		c->token = keep(b, k->filename);
	else if (!c->name)
		c->name = keep(b, k->name);
	if (!labelled && c->name && node_token(n, token))
		c->token = keep(b, token);
}

/*
 * A replacement of unknown outcome is remembered by the flight, of which there is one only: when
 * another call takes its place, the version that is there is not known any more.
 */
static void drop_doubted_version(struct node *n)
{
	struct known k = node_known(n);

	if (n->flight != LEDGER_FLIGHT_REPLACE)
		return;
	k.version = NULL;
	k.has_hash = false;
	node_edit_known(n, &k);
}

static void fill_upload(struct batch *b, size_t i, struct node *n)
{
	struct sync *s = b->sync;
	struct remote_change *c = &b->items[i];
	struct sent *sent = &b->sent[i];

	sent->content_id = n->content;
	sent->content = node_content(s->m->tree, n);
	if (!sent->content && n->dirty && n->content)
		sent->lost = -ENODATA;
	else if (!sent->content && !n->dirty && n->size != 0)
		sent->lost = -EAGAIN;
	sent->first_try = !n->more->tries;
	sent->in_place = !node_known(n).filler &&
			 (b->kind == PLAN_REPLACE ||
			  (node_rid(n) && n->parent && node_known(n).record == n->parent->id &&
			   c->name && node_known(n).name && !strcmp(node_known(n).name, c->name)));
	fill_part_name(b, i, n);
	if (b->kind == PLAN_CREATE)
		drop_doubted_version(n);
	n->flight = b->kind == PLAN_CREATE ? LEDGER_FLIGHT_CREATE : LEDGER_FLIGHT_REPLACE;
	node_more(n)->flight_since_ns = engine_server_ns(s->m->engine);
	tree_put_locked(s->m->tree, n);
}

/*
 * An update can be sent twice, unless the user has taken it back before anybody knew whether it was
 * done. So can a removal, unless it goes by a name that may be another file's by then; but an
 * identity that is taken over meanwhile may not be there any more. Of a record only its name counts.
 */
static void fill_change(struct batch *b, size_t i, struct node *n)
{
	struct flight f = {.record = node_known(n).record, .size = -1};

	if (b->kind != PLAN_UPDATE && b->kind != PLAN_REMOVE &&
	    (b->kind != PLAN_UPDATE_RECORDS || !b->items[i].name))
		return;
	drop_doubted_version(n);
	if (b->kind == PLAN_REMOVE && b->sync->m->remote->caps.names_unique)
		node_set_flight(n, ++b->sync->next_token, &f);
	n->flight = b->kind == PLAN_REMOVE ? LEDGER_FLIGHT_REMOVE : LEDGER_FLIGHT_UPDATE;
	node_more(n)->flight_since_ns = engine_server_ns(b->sync->m->engine);
	tree_put_locked(b->sync->m->tree, n);
}

struct batch *batch_new_locked(struct sync *s, const struct plan *plan,
			       const struct plan_call *call, struct node *const *nodes)
{
	struct batch *b = batch_alloc(s, call->kind, call->n);

	if (!b)
		return NULL;
	for (size_t i = 0; i < call->n; i++) {
		const struct plan_entry *e = &plan->entries[call->first + i];
		struct node *n = nodes[e->item];

		fill_item(b, i, e, n);
		if (b->kind == PLAN_CREATE && e->other != SIZE_MAX)
			b->sent[i].heir_of = nodes[e->other]->id;
		if (sync_is_upload(b->kind))
			fill_upload(b, i, n);
		else
			fill_change(b, i, n);
	}
	return b;
}

struct batch *batch_split(struct batch *b, size_t first, size_t n)
{
	struct batch *part = batch_alloc(b->sync, b->kind, n);

	if (!part)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		struct remote_change *c = &b->items[first + i];

		remote_file_clear(&c->file);
		part->sent[i] = b->sent[first + i];
		part->items[i] = (struct remote_change){
			.collection = keep(part, c->collection),
			.record = keep(part, c->record),
			.id = keep(part, c->id),
			.name = keep(part, c->name),
			.known_name = keep(part, c->known_name),
			.known_collection = keep(part, c->known_collection),
			.known_record = keep(part, c->known_record),
			.known_filename = keep(part, c->known_filename),
			.version = keep(part, c->version),
			.token = keep(part, c->token),
			.mtime_ns = c->mtime_ns,
			.move = c->move,
			.fields_json = keep(part, c->fields_json),
			.filler = c->filler,
			.fd = -1,
			.file.size = -1,
		};
	}
	b->n -= n;
	memmove(b->items + first, b->items + first + n, (b->n - first) * sizeof(*b->items));
	memmove(b->sent + first, b->sent + first + n, (b->n - first) * sizeof(*b->sent));
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
	case PLAN_VERIFY:
	case PLAN_FETCH:
		break;
	}
	return op ? op(r, TRANSFER_WRITEBACK, b->items, b->n, on_done, b) : -EPERM;
}

void batch_call(struct batch *b)
{
	const char *kind = batch_kind(b);
	int r;

	crash_point_of("ready", kind);
	r = send_call(b); /* which takes it */
	crash_point_of("handed-over", kind);
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

void batch_send(struct batch *b)
{
	crash_point_of("committed", batch_kind(b));
	if (sync_is_upload(b->kind))
		batch_upload(b);
	else
		batch_call(b);
}

void batch_put_off(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		b->items[i].outcome = REMOTE_RETRY;
		b->items[i].error = -ENOSPC;
		snprintf(b->items[i].message, sizeof(b->items[i].message),
			 "the ledger in the cache directory cannot be written");
	}
	sync_apply(b, 0);
}
