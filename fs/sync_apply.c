/* SPDX-License-Identifier: MIT */

/*
 * Outcomes. Each item of a call that came back changes its node's known half (or does not), under
 * one hold of tree->lock; whatever differs still or again is planned anew.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/names.h>

#include "events.h"
#include "notifier.h"
#include "ops.h"
#include "sync_private.h"

#define BACK_OFF_FIRST_MS 500
#define BACK_OFF_MOST_MS  60000

void sync_tell(struct sync *s, uint64_t node)
{
	calls_wake(s->m->calls, CALL_WAIT_SYNCED, node, 0);
	sync_wake(s);
}

void sync_landed_locked(struct sync *s, struct node *n)
{
	if (n->busy) {
		n->busy = false;
		s->in_flight--;
	}
	n->flight = LEDGER_FLIGHT_NONE;
}

void sync_back_off_locked(struct sync *s, struct node *n)
{
	int64_t most = BACK_OFF_FIRST_MS << (n->tries < 8 ? n->tries : 8);

	if (most > BACK_OFF_MOST_MS)
		most = BACK_OFF_MOST_MS;
	n->tries++;
	/* full jitter: a thousand files refused together do not come back together */
	s->random = s->random * 1664525u + 1013904223u;
	n->retry_at_ms =
		clock_mono_ms() + most / 4 + (int64_t)(s->random % (uint32_t)(most * 3 / 4 + 1));
}

void sync_park_locked(struct sync *s, struct node *n, int error, const char *message)
{
	n->error = error ? error : -EIO;
	node_set_string(&n->message, message);
	log_warning("sync: '%s' waits for you: %s%s%s  (attachfs retry, after mending it)",
		    n->shown, strerror(-n->error), message && *message ? ": " : "",
		    message ? message : "");
	events_add(s->m->events, "failed", n->shown, message);
}

/* ---- local steps of a plan ---- */

void sync_forget_locked(struct sync *s, struct node *n)
{
	struct tree *t = s->m->tree;

	node_drop_content_locked(t, n);
	if (n->in_ledger)
		ledger_drop_node(t->ledger, n->id);
	n->in_ledger = false;
	n->dirty = n->mtime_dirty = n->unknown = false;
	n->error = 0;
	tree_settle_locked(t, n);
	tree_release_locked(t, n);
}

/* The bytes of a clean content become what the user wants under another identity. */
static int claim_content(struct tree *t, struct node *n)
{
	struct content *clean, *own;

	if (n->dirty)
		return 0;
	clean = node_content(t, n);
	if (!clean && n->size != 0)
		return -ENODATA;
	if (clean) {
		own = content_new_dirty(t->store, clean, (uint64_t)content_size(clean));
		content_unref(clean);
		if (!own)
			return -ENOMEM;
		content_seal(own);
		n->content = content_id(own);
		content_unref(own);
	}
	n->dirty = true;
	n->sealed_ms = 0;
	return 0;
}

int sync_adopt_locked(struct sync *s, struct node *n, struct node *ghost)
{
	struct tree *t = s->m->tree;
	int r = claim_content(t, n);

	if (r < 0)
		return r;
	ledger_group_begin(t->ledger);
	tree_swap_known_locked(t, n, ghost);
	n->known_seq = ghost->known_seq =
		++t->seq; /* a listing under way saw them the other way round */
	ghost->after = n->id;
	ghost->name_ms = 0;
	/* a parked deletion does not keep the new content from taking the place */
	ghost->error = 0;
	tree_changed_locked(t, n);
	tree_changed_locked(t, ghost);
	ledger_group_end(t->ledger);
	return 0;
}

/* ---- what a call brought ---- */

/*
 * A listing may have shown the result of our create before its answer came: that node is ours then.
 */
static void drop_double(struct tree *t, struct node *n, const char *rid)
{
	struct node *other = tree_by_rid_locked(t, 0, rid);

	if (!other || other == n)
		return;
	if (other->parent)
		notifier_delete(t->notifier, other->parent->id, other->id, other->shown);
	tree_unlink_locked(t, other);
	tree_set_known_locked(t, other, NULL);
	node_drop_content_locked(t, other);
	other->gone = true;
	other->dirty = false;
	if (other->in_ledger)
		ledger_drop_node(t->ledger, other->id);
	other->in_ledger = false;
	tree_settle_locked(t, other);
	tree_release_locked(t, other);
}

/*
 * The server's spelling is not what was asked for: follow it, or the rename would be sent for ever
 * (P-15, P-18).
 */
static void follow_spelling(struct tree *t, struct node *n, const struct remote_change *c)
{
	char server[3 * NAMES_MAX + 1], shown[NAMES_MAX + 1];
	struct node *taken;

	names_to_server(n->shown, server);
	if (!c->name || strcmp(c->name, server) || n->gone || !n->parent || node_name_matches(t, n))
		return;
	node_known_shown(t, &n->known, shown);
	taken = tree_child_locked(t, n->parent, shown);
	if (taken && taken != n)
		return;
	log_warning("sync: the server spells '%s' as '%s'", n->shown, shown);
	notifier_entry(t->notifier, n->parent->id, n->shown);
	notifier_entry(t->notifier, n->parent->id, shown);
	tree_move_locked(t, n, n->parent, shown);
}

static void take_known(struct tree *t, struct node *n, struct remote_change *c, uint64_t record)
{
	struct known k;

	known_take(&k, &c->file, record);
	tree_set_known_locked(t, n, &k);
	n->known_seq = ++t->seq;
}

/* The record a file is in on the server now. */
static uint64_t record_of(struct tree *t, const struct remote_change *c, const struct node *n)
{
	const char *rid = c->file.record ? c->file.record : c->record;
	struct node *top = c->collection ? tree_find_collection_locked(t, c->collection) : NULL;
	struct node *dir = top && rid ? tree_by_rid_locked(t, top->id, rid) : NULL;

	return dir ? dir->id : n->known.rid ? n->known.record : node_flight_record(n);
}

/*
 * The uploaded bytes are the server's now; unless the user wrote again meanwhile, the node is
 * clean.
 */
static void content_arrived(struct batch *b, struct node *n)
{
	char key[NODE_KEY_MAX];

	n->known.size = b->content ? content_size(b->content) : 0;
	if (n->content != b->content_id)
		return;
	n->dirty = false;
	n->size = n->known.size;
	if (b->content && node_key(n, key))
		content_become_clean(b->content, key);
}

/* The time sent is the server's now; one that the user set meanwhile is still to be sent. */
static void apply_mtime(const struct sync *s, struct node *n, const struct remote_change *c)
{
	const struct remote_caps *caps = &s->m->remote->caps;

	n->mtime_dirty = caps->set_mtime && !n->gone && c->mtime_ns != n->mtime_ns &&
			 n->known.mtime_ns != REMOTE_TIME_NONE &&
			 n->known.mtime_ns != n->mtime_ns - n->mtime_ns % caps->mtime_resolution_ns;
}

/*
 * Where the server cannot rename or replace, the node was created anew: what it was before is to be
 * removed now.
 */
static void leave_ghost(struct tree *t, struct node *n)
{
	struct node *ghost;

	if (!n->known.rid)
		return;
	ghost = tree_new_node_locked(t, NODE_FILE, t->root, ".ghost");
	if (!ghost)
		return;
	tree_unlink_locked(t, ghost);
	node_set_string(&ghost->shown, n->shown);
	ghost->gone = ghost->in_ledger = true;
	ghost->after = n->id;
	tree_swap_known_locked(t, n, ghost);
	tree_changed_locked(t, ghost);
}

static void created(struct batch *b, struct node *n, struct remote_change *c)
{
	struct tree *t = b->sync->m->tree;
	uint64_t record = record_of(t, c, n);

	leave_ghost(t, n);
	drop_double(t, n, c->file.id);
	take_known(t, n, c, record);
	n->unknown = false;
	if (!node_has_token(n, n->known.filename))
		node_set_string(&n->token, NULL);
	if (c->filler)
		n->known.filler = true;
	else
		content_arrived(b, n);
	apply_mtime(b->sync, n, c);
	follow_spelling(t, n, c);
}

static void updated(struct batch *b, struct node *n, struct remote_change *c)
{
	struct tree *t = b->sync->m->tree;
	bool filler = n->known.filler && b->kind != PLAN_REPLACE;
	int64_t size = n->known.size;
	char *version = n->known.version;

	n->known.version = NULL;
	take_known(t, n, c, record_of(t, c, n));
	n->known.filler = filler;
	if (b->kind == PLAN_REPLACE) {
		free(version);
	} else {
		/* other bytes there are somebody else's doing: left for the listing to find */
		free(n->known.version);
		n->known.version = version;
		n->known.size = size;
	}
	if (b->kind == PLAN_REPLACE)
		content_arrived(b, n);
	if (!node_has_token(n, n->known.filename))
		node_set_string(&n->token, NULL);
	apply_mtime(b->sync, n, c);
	follow_spelling(t, n, c);
}

static void removed(struct batch *b, struct node *n)
{
	struct tree *t = b->sync->m->tree;

	if (n->known.rid)
		tree_bury_locked(t, n->known.rid);
	tree_set_known_locked(t, n, NULL);
	n->known_seq = t->seq;
}

static void updated_record(struct batch *b, struct node *n, const struct remote_change *c)
{
	struct tree *t = b->sync->m->tree;

	if (c->name)
		node_set_string(&n->known.name, c->name);
	if (c->fields_json)
		json_arrived_locked(b->sync->m, n, c->fields_json);
	n->known_seq = ++t->seq;
}

static void apply_done(struct batch *b, struct node *n, struct remote_change *c)
{
	struct sync *s = b->sync;

	n->tries = 0;
	n->retry_at_ms = 0;
	n->error = 0;
	node_set_string(&n->message, NULL);
	s->done++;
	if (b->kind == PLAN_REMOVE) {
		removed(b, n);
		return;
	}
	if (b->kind == PLAN_UPDATE_RECORDS) {
		updated_record(b, n, c);
		return;
	}
	s->bytes_sent += b->kind == PLAN_CREATE || b->kind == PLAN_REPLACE ? c->size : 0;
	if (!c->file.id)
		sync_back_off_locked(
			s, n); /* an answer without an object: look again by the next listing */
	else if (b->kind == PLAN_CREATE)
		created(b, n, c);
	else
		updated(b, n, c);
	events_add(s->m->events, b->kind == PLAN_UPDATE ? "updated" : "uploaded", n->shown, NULL);
}

/* The server has no such file any more. */
static void apply_gone(struct batch *b, struct node *n, struct remote_change *c)
{
	struct tree *t = b->sync->m->tree;

	if (b->kind == PLAN_REMOVE) {
		removed(b, n);
		return;
	}
	if (b->kind == PLAN_CREATE) {
		sync_park_locked(b->sync, n, -ENOENT,
				 c->message[0] ? c->message : "the record is gone from the server");
		return;
	}
	if (b->kind == PLAN_UPDATE_RECORDS) {
		sync_park_locked(b->sync, n, -ENOENT, c->message);
		return;
	}
	if (n->known.rid)
		tree_bury_locked(t, n->known.rid);
	n->known_seq = t->seq;
	if (n->gone) {
		tree_set_known_locked(t, n, NULL);
		return;
	}
	if (node_is_changed_here(n)) {
		log_warning(
			"conflict: '%s' was deleted on the server and changed here: ours is kept",
			n->shown);
		tree_part_locked(t, n);
		return;
	}
	tree_set_known_locked(t, n, NULL);
	if (n->parent)
		notifier_delete(t->notifier, n->parent->id, n->id, n->shown);
	tree_unlink_locked(t, n);
	n->gone = true;
	n->mtime_dirty = false;
}

static void apply_unknown(struct batch *b, struct node *n, struct remote_change *c)
{
	/* a half-done create says what is there: go on from it */
	if (c->file.id && b->kind == PLAN_CREATE) {
		uint64_t record = record_of(b->sync->m->tree, c, n);

		drop_double(b->sync->m->tree, n, c->file.id);
		take_known(b->sync->m->tree, n, c, record);
		n->known.filler = true;
		return;
	}
	n->unknown = b->kind == PLAN_CREATE;
	if (b->kind == PLAN_REPLACE)
		n->flight = LEDGER_FLIGHT_REPLACE;
	sync_back_off_locked(b->sync, n);
}

static void apply_item(struct batch *b, size_t i, int error)
{
	struct sync *s = b->sync;
	struct tree *t = s->m->tree;
	struct remote_change *c = &b->items[i];
	struct node *n = tree_find_locked(t, b->nodes[i]);

	if (!n)
		return;
	sync_landed_locked(s, n);
	if (error) {
		c->outcome = REMOTE_RETRY;
		c->error = error;
	}
	switch (c->outcome) {
	case REMOTE_DONE:
		apply_done(b, n, c);
		break;
	case REMOTE_GONE:
		apply_gone(b, n, c);
		break;
	case REMOTE_REFUSED:
		if (c->fields_json)
			json_name_fields(c->fields_json, c->message, sizeof(c->message));
		sync_park_locked(s, n, c->error, c->message);
		break;
	case REMOTE_RETRY:
		log_debug("sync: '%s' again later: %s %s", n->shown, strerror(-c->error),
			  c->message);
		if (b->kind == PLAN_REPLACE)
			n->flight =
				LEDGER_FLIGHT_REPLACE; /* it may have arrived: a new version there is no news until we know */
		sync_back_off_locked(s, n);
		break;
	case REMOTE_UNKNOWN:
		apply_unknown(b, n, c);
		break;
	}
	tree_changed_locked(t, n);
	tree_release_locked(t, n);
}

/* One bad entry refuses all of a batch: halve it until it stands alone. The nodes stay busy. */
static bool bisect(struct batch *b)
{
	struct batch *left, *right;

	if (b->n < 2 || b->items[0].outcome != REMOTE_REFUSED)
		return false;
	/* -EIO is the server's own failing, not a bad entry's: halves would fare no better */
	for (size_t i = 0; i < b->n; i++)
		if (b->items[i].outcome != REMOTE_REFUSED || b->items[i].error == -EIO)
			return false;
	left = batch_part(b, 0, b->n / 2);
	right = batch_part(b, b->n / 2, b->n - b->n / 2);
	if (!left || !right) {
		batch_free(left);
		batch_free(right);
		return false;
	}
	log_info("sync: a call for %zu files was refused: halving it: %s", b->n,
		 b->items[0].message);
	batch_send(left);
	batch_send(right);
	return true;
}

void sync_apply(struct batch *b, int error)
{
	struct sync *s = b->sync;

	if (!error && bisect(b)) {
		batch_free(b);
		return;
	}
	tree_lock(s->m->tree);
	ledger_group_begin(s->m->ledger);
	if (b->kind == PLAN_CREATE || b->kind == PLAN_REPLACE)
		s->uploads--;
	for (size_t i = 0; i < b->n; i++)
		apply_item(b, i, error);
	ledger_group_end(s->m->ledger);
	tree_unlock(s->m->tree);
	for (size_t i = 0; i < b->n; i++)
		sync_tell(s, b->nodes[i]);
	batch_free(b);
}

/* ---- after an unknown outcome ---- */

struct look {
	struct sync *sync;
	uint64_t record;
	struct remote_file *files;
	size_t n;
	bool failed;
};

static bool on_look_page(void *ctx, struct remote_record *records, size_t n_records,
			 struct remote_file *files, size_t n_files)
{
	struct look *l = ctx;
	struct remote_file *all = realloc(l->files, (l->n + n_files + 1) * sizeof(*all));

	(void)records;
	(void)n_records;
	if (!all) {
		l->failed = true;
		return false;
	}
	l->files = all;
	for (size_t i = 0; i < n_files; i++) {
		all[l->n++] = files[i];
		memset(&files[i], 0, sizeof(files[i]));
	}
	return true;
}

/*
 * Whether @f is what a create of @n left there: under its token, or under the name it was sent,
 * made since then, and nobody else's.
 */
static bool is_ours(struct tree *t, const struct node *n, const struct remote_file *f)
{
	const char *name = f->raw_name ? f->raw_name : f->name, *sent = node_flight_name(n);

	if (!f->id || tree_by_rid_locked(t, 0, f->id))
		return false;
	if (node_has_token(n, f->raw_filename))
		return true;
	return sent && !strcmp(name, sent) &&
	       (f->ctime_ns == REMOTE_TIME_NONE ||
		f->ctime_ns >= n->flight_since_ns - 120 * CLOCK_NS_PER_S ||
		n->mtime_ns / CLOCK_NS_PER_S == f->ctime_ns / CLOCK_NS_PER_S);
}

static void resolve_unknown(struct look *l, struct node *n)
{
	struct tree *t = l->sync->m->tree;

	n->unknown = false;
	n->flight = LEDGER_FLIGHT_NONE;
	for (size_t i = 0; i < l->n; i++) {
		struct known k;

		if (!is_ours(t, n, &l->files[i]))
			continue;
		log_info("sync: '%s' had arrived, though its answer was lost", n->shown);
		leave_ghost(t, n);
		known_take(&k, &l->files[i], l->record);
		/*
		 * which of our contents arrived is not told: send what is wanted once more, onto
		 * the same id
		 */
		k.filler = true;
		tree_set_known_locked(t, n, &k);
		n->known_seq = ++t->seq;
		n->dirty = true;
		return;
	}
}

static void look_done(void *ctx, int error, const char *message)
{
	struct look *l = ctx;
	struct sync *s = l->sync;
	struct tree *t = s->m->tree;
	struct node *next;

	(void)message;
	if (l->failed)
		error = -ENOMEM;
	tree_lock(t);
	for (struct node *n = t->sync_first; n; n = next) {
		next = n->sync_next;
		if (!n->unknown || !n->busy || node_flight_record(n) != l->record)
			continue;
		sync_landed_locked(s, n);
		if (error == -ENOENT)
			error = 0; /* the record is gone, and all that was in it */
		if (error)
			sync_back_off_locked(s, n);
		else
			resolve_unknown(l, n);
		tree_changed_locked(t, n);
		tree_release_locked(t, n);
	}
	tree_unlock(t);
	for (size_t i = 0; i < l->n; i++)
		remote_file_clear(&l->files[i]);
	free(l->files);
	free(l);
	sync_wake(s);
}

/* Without memory to look: later. */
static void give_up_look(struct sync *s, uint64_t record)
{
	tree_lock(s->m->tree);
	for (struct node *n = s->m->tree->sync_first; n; n = n->sync_next)
		if (n->unknown && n->busy && node_flight_record(n) == record) {
			sync_landed_locked(s, n);
			sync_back_off_locked(s, n);
		}
	tree_unlock(s->m->tree);
	sync_wake(s);
}

void sync_look(struct sync *s, uint64_t record)
{
	struct remote *r = s->m->remote;
	struct look *l = calloc(1, sizeof(*l));
	struct remote_sink sink = {on_look_page, look_done, l};
	char *collection = NULL, *rid = NULL;
	struct node *dir, *top;
	int ret = -ENOENT;

	if (!l) {
		give_up_look(s, record);
		return;
	}
	l->sync = s;
	l->record = record;
	tree_lock(s->m->tree);
	dir = tree_find_locked(s->m->tree, record);
	top = dir ? tree_collection_of_locked(s->m->tree, dir) : NULL;
	if (top && dir->known.rid) {
		collection = strdup(node_collection_id(top));
		rid = strdup(dir->known.rid);
	}
	tree_unlock(s->m->tree);
	if (collection && rid)
		ret = r->ops->list_record(r, TRANSFER_WRITEBACK, collection, rid, &sink);
	free(collection);
	free(rid);
	if (ret < 0)
		look_done(l, ret, NULL);
}
