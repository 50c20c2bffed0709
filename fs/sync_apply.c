/* SPDX-License-Identifier: MIT */

/*
 * Outcomes. Each item of a call that came back changes its node's known half (or does not), under
 * one hold of tree->lock; whatever differs still or again is planned anew.
 */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/names.h>

#include "crashpoint.h"
#include "events.h"
#include "lister.h"
#include "notifier.h"
#include "ops.h"
#include "sync_private.h"

#define BACK_OFF_FIRST_MS 500
#define BACK_OFF_MOST_MS  60000
/* -EBUSY (locked, or its name is taken by what is just being renamed) may pass by itself. */
#define BUSY_TRIES 2

void sync_tell(struct sync *s, uint64_t node)
{
	bool drained;

	tree_lock(s->m->tree);
	drained = !s->m->tree->n_sync;
	tree_unlock(s->m->tree);
	calls_wake(s->m->calls, CALL_WAIT_SYNCED, node, 0);
	if (drained)
		calls_wake(s->m->calls, CALL_WAIT_DRAINED, 0, 0);
	sync_wake(s);
}

void sync_landed_locked(struct sync *s, struct node *n)
{
	if (n->busy) {
		n->busy = false;
		s->in_flight--;
	}
}

int64_t sync_back_off_ms(unsigned tries, uint32_t random)
{
	int64_t most = BACK_OFF_FIRST_MS << (tries < 8 ? tries : 8);

	if (most > BACK_OFF_MOST_MS)
		most = BACK_OFF_MOST_MS;
	return most / 4 + (int64_t)(random % (uint32_t)(most * 3 / 4 + 1));
}

void sync_back_off_locked(struct sync *s, struct node *n)
{
	s->random = s->random * 1664525u + 1013904223u;
	/* the low bits of such numbers are the worst */
	node_more(n)->retry_at_ms =
		clock_mono_ms() + sync_back_off_ms(n->more->tries, s->random >> 8);
	if (n->more->tries < UINT_MAX)
		node_more(n)->tries++;
}

static void tell(struct sync *s, const char *event, const struct node *n, const char *detail)
{
	char path[NODE_PATH_MAX];

	node_path(s->m->tree, n, path);
	events_add(s->m->events, event, path, detail);
}

void sync_park_locked(struct sync *s, struct node *n, int error, const char *message)
{
	n->error = error ? error : -EIO;
	node_set_string(&node_more(n)->message, message);
	log_warning("sync: '%s' waits for you: %s%s%s  (attachfs retry, after mending it)",
		    n->shown, strerror(-n->error), message && *message ? ": " : "",
		    message ? message : "");
	tell(s, "failed", n, message);
}

/* ---- local steps of a plan ---- */

void sync_forget_locked(struct sync *s, struct node *n)
{
	struct tree *t = s->m->tree;

	node_drop_content_locked(t, n);
	if (n->in_ledger)
		ledger_drop_node(t->ledger, n->id);
	crash_point("forget.row");
	n->in_ledger = false;
	n->dirty = n->mtime_dirty = n->unknown = false;
	n->error = 0;
	tree_settle_locked(t, n);
	tree_release_locked(t, n);
}

int sync_claim_content_locked(struct tree *t, struct node *n)
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
	node_more(n)->sealed_ms = 0;
	return 0;
}

int sync_adopt_locked(struct sync *s, struct node *n, struct node *ghost)
{
	struct tree *t = s->m->tree;
	int r = sync_claim_content_locked(t, n);
	enum ledger_flight doubt = n->flight;

	if (r < 0)
		return r;
	ledger_group_begin(t->ledger);
	tree_swap_known_locked(t, n, ghost);
	/* what is in doubt about an identity goes with it */
	n->flight = ghost->flight;
	ghost->flight = doubt;
	node_doubt_flight(n); /* what each remembers of its last call is about the other one now */
	node_doubt_flight(ghost);
	node_more(n)->known_seq = node_more(ghost)->known_seq =
		++t->seq; /* a listing under way saw them the other way round */
	/* who waits for the ghost to go has nothing to wait for any more, and no call tells him */
	if (ghost->more->after && ghost->more->after != n->id)
		calls_wake(s->m->calls, CALL_WAIT_SYNCED, ghost->more->after, 0);
	node_more(ghost)->after = n->id;
	/* its content is that of the identity: forgetting the ghost must not drop it */
	if (!ghost->dirty)
		ghost->content = 0;
	node_more(ghost)->name_ms = 0;
	/* a parked deletion does not keep the new content from taking the place */
	ghost->error = 0;
	tree_changed_locked(t, n);
	tree_changed_locked(t, ghost);
	ledger_group_end(t->ledger);
	crash_point("adopt.rows");
	return 0;
}

/* ---- what a call brought ---- */

/*
 * A listing may have shown the result of our create before its answer came: that node is ours then.
 */
void sync_drop_double_locked(struct tree *t, struct node *n, const char *rid)
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
	const struct known known = node_known(n);
	char server[3 * NAMES_MAX + 1], shown[NAMES_MAX + 1];
	struct node *taken;

	names_to_server(n->shown, server);
	if (!c->name || strcmp(c->name, server) || n->gone || !n->parent || node_name_matches(t, n))
		return;
	node_known_shown(t, &known, shown);
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
	node_more(n)->known_seq = ++t->seq;
}

/* The record a file is in on the server now. */
static uint64_t record_of(struct batch *b, const struct remote_change *c, const struct node *n)
{
	struct tree *t = b->sync->m->tree;
	const char *rid = c->file.record ? c->file.record : c->record;
	struct node *top = c->collection ? tree_find_collection_locked(t, c->collection) : NULL;
	struct node *dir = top && rid ? tree_by_rid_locked(t, top->id, rid) : NULL;

	if (dir)
		return dir->id;
	return b->kind == PLAN_CREATE ? node_flight_record(n) : node_known(n).record;
}

/*
 * The uploaded bytes are the server's now; unless the user wrote again meanwhile, the node is
 * clean.
 */
static void content_arrived(const struct sent *sent, struct node *n)
{
	char key[NODE_KEY_MAX];

	struct known k = node_known(n);

	k.size = sent->content ? content_size(sent->content) : 0;
	k.confirmed_ms = clock_mono_ms();
	node_edit_known(n, &k);
	node_set_hash(n, sent->content);
	if (n->content != sent->content_id)
		return;
	n->dirty = false;
	n->size = k.size;
	if (sent->content && node_key(n, key))
		content_become_clean(sent->content, key);
}

/* The time sent is the server's now; one that the user set meanwhile is still to be sent. */
static void apply_mtime(const struct sync *s, struct node *n, const struct remote_change *c)
{
	const struct remote_caps *caps = &s->m->remote->caps;

	n->mtime_dirty =
		caps->set_mtime && !n->gone && c->mtime_ns != n->mtime_ns &&
		node_known(n).mtime_ns != REMOTE_TIME_NONE &&
		node_known(n).mtime_ns != n->mtime_ns - n->mtime_ns % caps->mtime_resolution_ns;
}

void sync_leave_ghost_locked(struct tree *t, struct node *n)
{
	struct node *ghost;

	if (!node_rid(n))
		return;
	ghost = tree_new_node_locked(t, NODE_FILE, t->root, ".ghost");
	if (!ghost)
		return;
	tree_unlink_locked(t, ghost);
	node_set_shown(ghost, n->shown);
	ghost->gone = ghost->in_ledger = true;
	node_more(ghost)->after = n->id;
	ghost->size = node_known(n).size;
	tree_swap_known_locked(t, n, ghost);
	node_more(ghost)->known_seq = ++t->seq;
	tree_changed_locked(t, ghost);
	crash_point("ghost.row");
	node_more(ghost)->change =
		n->more->change; /* still the same change, for those that wait for it */
}

static void created(struct batch *b, size_t i, struct node *n)
{
	struct tree *t = b->sync->m->tree;
	struct remote_change *c = &b->items[i];
	uint64_t record = record_of(b, c, n);
	struct known k;

	sync_leave_ghost_locked(t, n);
	sync_drop_double_locked(t, n, c->file.id);
	take_known(t, n, c, record);
	if (!node_has_token(n, node_known(n).filename))
		node_set_string(&node_more(n)->token, NULL);
	if (c->filler) {
		k = node_known(n);
		k.filler = true;
		k.confirmed_ms = clock_mono_ms();
		node_edit_known(n, &k);
	} else {
		content_arrived(&b->sent[i], n);
	}
	apply_mtime(b->sync, n, c);
	follow_spelling(t, n, c);
}

/*
 * Where the file is and what it is called. Other bytes there are somebody else's doing: left for the
 * listing to find.
 */
static void take_place(struct batch *b, struct node *n, struct remote_change *c)
{
	struct known old = node_known(n), k;
	/* without memory: not known any more */
	char *version = old.version ? strdup(old.version) : NULL;

	take_known(b->sync->m->tree, n, c, record_of(b, c, n));
	k = node_known(n);
	k.version = version;
	k.size = old.size;
	k.confirmed_ms = old.confirmed_ms;
	k.filler = old.filler;
	known_copy_hash(&k, &old);
	node_edit_known(n, &k);
	free(version);
}

static void updated(struct batch *b, size_t i, struct node *n)
{
	struct tree *t = b->sync->m->tree;
	struct remote_change *c = &b->items[i];

	if (b->kind == PLAN_REPLACE) {
		take_known(t, n, c, record_of(b, c, n));
		content_arrived(&b->sent[i], n);
	} else {
		take_place(b, n, c);
	}
	if (!node_has_token(n, node_known(n).filename))
		node_set_string(&node_more(n)->token, NULL);
	apply_mtime(b->sync, n, c);
	follow_spelling(t, n, c);
}

void sync_removed_locked(struct tree *t, struct node *n)
{
	if (node_rid(n))
		tree_bury_locked(t, node_rid(n));
	tree_set_known_locked(t, n, NULL);
	node_more(n)->known_seq = t->seq;
}

static void updated_record(struct batch *b, struct node *n, const struct remote_change *c)
{
	struct tree *t = b->sync->m->tree;

	if (c->name)
		node_set_known_name(n, c->name);
	if (c->fields_json)
		json_arrived_locked(b->sync->m, n, c->fields_json);
	node_more(n)->known_seq = ++t->seq;
}

/* Its outcome is not known: look before anything else is sent for it. */
static void look_first(struct sync *s, struct node *n, enum ledger_flight flight)
{
	n->flight = flight;
	n->unknown = true;
	n->looked = false;
	sync_back_off_locked(s, n);
}

static void apply_done(struct batch *b, size_t i, struct node *n)
{
	struct sync *s = b->sync;
	struct remote_change *c = &b->items[i];

	node_more(n)->tries = 0;
	node_more(n)->retry_at_ms = 0;
	n->error = 0;
	node_set_string(&node_more(n)->message, NULL);
	s->done++;
	if (b->kind == PLAN_REMOVE) {
		sync_removed_locked(s->m->tree, n);
		return;
	}
	if (b->kind == PLAN_UPDATE_RECORDS) {
		updated_record(b, n, c);
		return;
	}
	s->bytes_sent += sync_is_upload(b->kind) ? c->size : 0;
	if (!c->file.id && b->kind == PLAN_CREATE)
		look_first(s, n, LEDGER_FLIGHT_CREATE);
	else if (!c->file.id && b->kind == PLAN_UPDATE && !c->name && !c->move)
		n->mtime_dirty = false; /* a time that the server cannot hold (P-24) stays here */
	else if (!c->file.id)
		sync_back_off_locked(
			s, n); /* an answer without an object: look again by the next listing */
	else if (b->kind == PLAN_CREATE)
		created(b, i, n);
	else
		updated(b, i, n);
	tell(s, b->kind == PLAN_UPDATE ? "updated" : "uploaded", n, NULL);
}

/* The server has no such file any more. */
static void apply_gone(struct batch *b, struct node *n, struct remote_change *c)
{
	struct tree *t = b->sync->m->tree;

	if (b->kind == PLAN_REMOVE) {
		sync_removed_locked(b->sync->m->tree, n);
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
	if (node_rid(n))
		tree_bury_locked(t, node_rid(n));
	node_more(n)->known_seq = t->seq;
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

/*
 * A half-done create says what is there: go on from it. The server's bytes are none that anybody
 * wants.
 */
static void half_created(struct batch *b, size_t i, struct node *n)
{
	struct tree *t = b->sync->m->tree;
	struct remote_change *c = &b->items[i];
	uint64_t record = record_of(b, c, n);
	struct known k;

	if (!n->gone && sync_claim_content_locked(t, n) < 0) {
		look_first(b->sync, n, LEDGER_FLIGHT_CREATE);
		return;
	}
	sync_leave_ghost_locked(t, n);
	sync_drop_double_locked(t, n, c->file.id);
	take_known(t, n, c, record);
	k = node_known(n);
	k.filler = true;
	node_edit_known(n, &k);
}

static void apply_unknown(struct batch *b, size_t i, struct node *n)
{
	if (b->kind == PLAN_CREATE && b->items[i].file.id) {
		half_created(b, i, n);
		return;
	}
	if (b->kind == PLAN_CREATE) {
		look_first(b->sync, n, LEDGER_FLIGHT_CREATE);
		return;
	}
	if (b->kind == PLAN_REMOVE && b->sync->m->remote->caps.names_unique) {
		look_first(b->sync, n, LEDGER_FLIGHT_REMOVE);
		return;
	}
	if (b->kind == PLAN_REMOVE)
		n->flight = LEDGER_FLIGHT_REMOVE;
	else if (b->kind == PLAN_REPLACE)
		n->flight = LEDGER_FLIGHT_REPLACE;
	else if (b->kind == PLAN_UPDATE || b->items[i].name)
		n->flight = LEDGER_FLIGHT_UPDATE;
	sync_back_off_locked(b->sync, n);
}

static void apply_outcome(struct batch *b, size_t i, struct node *n)
{
	struct remote_change *c = &b->items[i];
	bool half;

	/* `attachfs pending` says what is in the way of what is tried again and again */
	if (c->outcome != REMOTE_DONE && c->message[0])
		node_set_string(&node_more(n)->message, c->message);
	switch (c->outcome) {
	case REMOTE_DONE:
		apply_done(b, i, n);
		break;
	case REMOTE_GONE:
		apply_gone(b, n, c);
		break;
	case REMOTE_REFUSED:
		if (c->error == -EBUSY && n->more->tries < BUSY_TRIES) {
			log_debug("sync: '%s' again soon: %s", n->shown, c->message);
			sync_back_off_locked(b->sync, n);
			break;
		}
		if (c->fields_json)
			json_name_fields(c->fields_json, c->message, sizeof(c->message));
		sync_park_locked(b->sync, n, c->error, c->message);
		/* something was done there all the same */
		half = c->file.id != NULL;
		if (half && b->kind == PLAN_UPDATE && node_rid(n))
			take_place(b, n, c);
		if (half && n->parent)
			lister_again_locked(b->sync->m->lister, n->parent);
		break;
	case REMOTE_RETRY:
		log_debug("sync: '%s' again later: %s %s", n->shown, strerror(-c->error),
			  c->message);
		/* it may have arrived: a new version there is no news until we know */
		if (b->kind == PLAN_REPLACE && c->error != -ESTALE)
			n->flight = LEDGER_FLIGHT_REPLACE;
		sync_back_off_locked(b->sync, n);
		break;
	case REMOTE_UNKNOWN:
		apply_unknown(b, i, n);
		break;
	}
}

/* What an earlier call may have done is not settled by one that was not done, or of less reach. */
static void keep_doubt(const struct batch *b, size_t i, struct node *n)
{
	enum remote_outcome outcome = b->items[i].outcome;
	bool settled = outcome == REMOTE_GONE ||
		       (outcome == REMOTE_RETRY && b->items[i].error == -ESTALE) ||
		       (outcome == REMOTE_DONE &&
			(b->kind != PLAN_UPDATE || b->sent[i].doubt == LEDGER_FLIGHT_UPDATE));

	if (!settled && n->flight == LEDGER_FLIGHT_NONE && node_rid(n))
		n->flight = b->sent[i].doubt;
}

static void apply_item(struct batch *b, size_t i, int error)
{
	struct sync *s = b->sync;
	struct tree *t = s->m->tree;
	struct remote_change *c = &b->items[i];
	struct node *n = tree_find_locked(t, b->sent[i].node);

	if (!n)
		return;
	b->sent[i].after = n->more->after;
	sync_landed_locked(s, n);
	n->flight = LEDGER_FLIGHT_NONE;
	if (error) {
		c->outcome = REMOTE_RETRY;
		c->error = error;
	}
	/* "one of them is not there" (S-13), and there is only this one */
	if (b->kind == PLAN_REMOVE && b->n == 1 && c->outcome == REMOTE_REFUSED &&
	    c->error == -ENOENT)
		c->outcome = REMOTE_GONE;
	apply_outcome(b, i, n);
	keep_doubt(b, i, n);
	tree_changed_locked(t, n);
	tree_release_locked(t, n);
}

/* As before it was sent. */
static void batch_reset(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		struct remote_change *c = &b->items[i];

		remote_file_clear(&c->file);
		c->file.size = -1;
		c->outcome = REMOTE_DONE;
		c->error = 0;
		c->message[0] = '\0';
	}
}

/* Refused for what it is, not for being in a batch with another. */
static bool is_own_refusal(const struct batch *b, const struct remote_change *c)
{
	/* -EIO is the server's own failing, not a bad entry's: halves would fare no better */
	return c->outcome != REMOTE_REFUSED || c->error == -EIO ||
	       (b->kind == PLAN_UPDATE && c->error == -ENOENT);
}

/* One bad entry refuses all of a batch: halve it until it stands alone. The nodes stay busy. */
static bool bisect(struct batch *b)
{
	struct batch *right;

	if (b->n < 2 || b->items[0].outcome != REMOTE_REFUSED)
		return false;
	for (size_t i = 0; i < b->n; i++)
		if (is_own_refusal(b, &b->items[i]))
			return false;
	right = batch_split(b, b->n / 2, b->n - b->n / 2);
	if (!right)
		return false;
	log_info("sync: a call for %zu files was refused: halving it: %s", b->n + right->n,
		 b->items[0].message);
	batch_reset(b);
	batch_send(b);
	batch_send(right);
	return true;
}

void sync_apply(struct batch *b, int error)
{
	struct sync *s = b->sync;

	crash_point_of("answered", batch_kind(b));
	if (!error && bisect(b))
		return;
	tree_lock(s->m->tree);
	ledger_group_begin(s->m->ledger);
	if (sync_is_upload(b->kind))
		s->uploads -= (unsigned)b->n;
	for (size_t i = 0; i < b->n; i++)
		apply_item(b, i, error);
	batch_uncount(b);
	ledger_group_end(s->m->ledger);
	tree_unlock(s->m->tree);
	crash_point_of("applied", batch_kind(b));
	for (size_t i = 0; i < b->n; i++) {
		sync_tell(s, b->sent[i].node);
		if (b->sent[i].after)
			sync_tell(s, b->sent[i].after);
	}
	batch_free(b);
}
