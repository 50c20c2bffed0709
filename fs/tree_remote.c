/* SPDX-License-Identifier: MIT */

/*
 * What the server told, applied to the tree. The server's word is taken for the known half always;
 * for the wanted half where the user has not said otherwise.
 *
 * A listing is a picture of some moment between its request and its answer. What our own calls
 * changed since its request (known_seq, a call on its way, a tombstone) is newer than the picture
 * and wins.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/names.h>

#include "crashpoint.h"
#include "notifier.h"
#include "replaced.h"
#include "tree.h"
#include "tree_private.h"

#define TOMBSTONE_MS (10 * 60 * 1000)

struct tombstone {
	struct tombstone *next;
	uint64_t seq;
	int64_t buried_ms;
	char rid[];
};

void tree_bury_locked(struct tree *t, const char *rid)
{
	int64_t now = clock_mono_ms();
	struct tombstone *s = malloc(sizeof(*s) + strlen(rid) + 1);

	for (struct tombstone **slot = &t->tombstones; *slot;) {
		struct tombstone *old = *slot;

		if (now - old->buried_ms < TOMBSTONE_MS) {
			slot = &old->next;
			continue;
		}
		*slot = old->next;
		free(old);
	}
	if (!s)
		return;
	s->seq = ++t->seq;
	s->buried_ms = now;
	strcpy(s->rid, rid);
	s->next = t->tombstones;
	t->tombstones = s;
}

void tree_forget_tombstones(struct tree *t)
{
	while (t->tombstones) {
		struct tombstone *next = t->tombstones->next;

		free(t->tombstones);
		t->tombstones = next;
	}
}

bool tree_is_buried_locked(const struct tree *t, const char *rid, uint64_t mark)
{
	for (const struct tombstone *s = t->tombstones; s; s = s->next)
		if (s->seq > mark && !strcmp(s->rid, rid))
			return true;
	return false;
}

uint64_t tree_listing_begin(struct tree *t)
{
	uint64_t mark;

	tree_lock(t);
	mark = ++t->seq;
	tree_unlock(t);
	return mark;
}

/* Whether our own calls know better than a listing begun at @mark. */
static bool is_newer(const struct node *n, uint64_t mark)
{
	return n->busy || n->flight != LEDGER_FLIGHT_NONE || n->more->known_seq > mark;
}

/*
 * A free name for a remote thing: its own, or with its id. The one that came first keeps the plain
 * name for as long as it is known here; listings come in the order of ids, so at first that is the
 * oldest.
 */
static void free_name(struct tree *t, struct node *dir, const struct node *self, const char *base,
		      const char *rid, char *out)
{
	struct node *holder = tree_child_locked(t, dir, base);

	strcpy(out, base);
	if (!holder || holder == self)
		return;
	names_disambiguate(base, rid, out);
}

static bool is_hidden_name(const char *shown)
{
	return !strcmp(shown, ".by-id") || !strcmp(shown, ".record.json") ||
	       !strcmp(shown, ".attachfs");
}

void tree_shown_for_locked(struct tree *t, struct node *dir, const struct node *self,
			   const struct known *k, char *out)
{
	char base[NAMES_MAX + 1];

	node_known_shown(t, k, base);
	if (is_hidden_name(base))
		names_disambiguate(base, k->rid, out);
	else
		free_name(t, dir, self, base, k->rid, out);
}

/* ---- records ---- */

static struct known record_known(struct remote_record *r, uint64_t collection)
{
	struct known k = {.rid = r->id,
			  .record = collection,
			  .name = r->name,
			  .size = -1,
			  .mtime_ns = r->mtime_ns,
			  .ctime_ns = r->ctime_ns};

	memset(r, 0, sizeof(*r));
	return k;
}

static void take_times(struct node *n)
{
	int64_t ns = node_known(n).mtime_ns;

	if (ns != REMOTE_TIME_NONE)
		node_set_times(n, ns, ns, ns);
}

/*
 * Whether the kernel may have been told that a name is not in @dir, and must be told that it is now.
 * Before the first listing is over nobody gets an answer. A notification that is not needed does
 * harm: the entry it drops is perhaps the working directory of the program that waited for it.
 */
static bool may_be_missed(const struct node *dir)
{
	return dir->listed || (dir->kind == NODE_RECORD && dir->parent && dir->parent->listed);
}

/* Another node is behind a record's name, or none: the kernel sees a flat one in the root. */
static void notify_record(struct tree *t, const struct node *collection, const char *shown)
{
	notifier_entry(t->notifier, collection->id, shown);
	if (tree_is_flat(t, collection))
		notifier_entry(t->notifier, t->root->id, collection->shown);
}

static int new_record(struct tree *t, uint64_t mark, struct node *collection, struct known *k)
{
	char shown[NAMES_MAX + 1];
	struct node *n;

	tree_shown_for_locked(t, collection, NULL, k, shown);
	n = tree_new_node_locked(t, NODE_RECORD, collection, shown);
	if (!n)
		return -ENOMEM;
	tree_set_known_locked(t, n, k);
	n->in_ledger = true;
	n->listed = false;
	n->seen_seq = mark;
	take_times(n);
	tree_put_locked(t, n);
	if (may_be_missed(collection)) {
		notify_record(t, collection, shown);
		tree_news_locked(t, "appeared", n, NULL);
	}
	return 0;
}

/* Renamed or moved on the server: it is shown there, if it was shown where it was. */
static int follow_place(struct tree *t, struct node *n, struct node *dir)
{
	char shown[NAMES_MAX + 1], from[NODE_PATH_MAX];
	struct node *old_dir = n->parent;
	struct known known;
	int r;

	node_path(t, n, from);
	known = node_known(n);
	tree_shown_for_locked(t, dir, n, &known, shown);
	notifier_entry(t->notifier, old_dir->id, n->shown);
	notifier_entry(t->notifier, dir->id, shown);
	r = tree_move_locked(t, n, dir, shown);
	if (!r)
		tree_news_locked(t, dir == old_dir ? "renamed" : "moved", n, from);
	return r;
}

static int old_record(struct tree *t, uint64_t mark, struct node *collection, struct node *n,
		      struct known *k)
{
	bool renamed = strcmp(node_known(n).name, k->name) != 0,
	     followed = renamed && node_name_matches(t, n);
	bool late = n->seen_seq > mark;
	int r = 0;

	if (!late)
		n->seen_seq = mark;
	if (late || is_newer(n, mark) || (!renamed && node_known(n).mtime_ns == k->mtime_ns)) {
		known_clear(k);
		return 0;
	}
	tree_set_known_locked(t, n, k);
	if (followed)
		r = follow_place(t, n, collection);
	tree_changed_locked(t, n);
	return r;
}

static int apply_record(struct tree *t, uint64_t mark, struct node *collection,
			struct remote_record *record)
{
	struct known k = record_known(record, collection->id);
	struct node *n;
	int r;

	if (!k.rid || !k.name) {
		known_clear(&k);
		return 0;
	}
	n = tree_by_rid_locked(t, collection->id, k.rid);
	r = n ? old_record(t, mark, collection, n, &k) : new_record(t, mark, collection, &k);
	known_clear(&k);
	return r;
}

/* ---- files ---- */

/*
 * Whether a create of ours is on its way in @dir that this file may be the result of: its
 * acknowledgement will tell.
 */
static bool may_be_ours(const struct tree *t, const struct node *dir, const struct known *k)
{
	for (const struct node *n = t->sync_first; n; n = n->more->sync_next) {
		const char *sent = node_flight_name(n);

		if (n->flight != LEDGER_FLIGHT_CREATE || node_flight_record(n) != dir->id)
			continue;
		if (node_has_token(n, k->filename) || (sent && k->name && !strcmp(k->name, sent)))
			return true;
	}
	return false;
}

/* @n could not have its plain name: whoever has it knows. */
static void note_namesake(struct tree *t, const struct node *dir, const struct node *n)
{
	const struct known known = node_known(n);
	char base[NAMES_MAX + 1];
	struct node *holder;

	node_known_shown(t, &known, base);
	holder = strcmp(base, n->shown) ? tree_child_locked(t, dir, base) : NULL;
	if (holder && holder->kind == NODE_FILE)
		node_more(holder)->namesake = n->id;
}

int tree_new_file_locked(struct tree *t, uint64_t mark, struct node *dir, struct known *k)
{
	char shown[NAMES_MAX + 1];
	struct node *n;

	if (t->caps->names_unique)
		tree_step_aside_locked(t, dir, k);
	tree_shown_for_locked(t, dir, NULL, k, shown);
	n = tree_new_node_locked(t, NODE_FILE, dir, shown);
	if (!n)
		return -ENOMEM;
	tree_set_known_locked(t, n, k);
	n->in_ledger = true;
	n->seen_seq = mark;
	note_namesake(t, dir, n);
	n->size = node_known(n).size;
	take_times(n);
	tree_put_locked(t, n);
	if (may_be_missed(dir)) {
		notifier_entry(t->notifier, dir->id, shown);
		tree_news_locked(t, "appeared", n, NULL);
	}
	return 0;
}

/*
 * The server's bytes are others now, and the user has none of his own: show the server's. The old
 * ones were dropped.
 */
void tree_follow_content_locked(struct tree *t, struct node *n)
{
	int64_t old_size = node_size_locked(n);

	/* who opens now must not meet the old bytes */
	node_more(n)->version++;
	node_more(n)->n_stale = n->more->n_open;
	node_more(n)->n_stale_twin = n->more->n_open_twin;
	if (n->more->view) {
		content_unref(n->more->view);
		node_more(n)->view = NULL;
	}
	n->size = node_known(n).size;
	replaced_by_server_locked(t, n, old_size);
}

void tree_follow_mtime_locked(struct tree *t, struct node *n, int64_t old_mtime_ns)
{
	int64_t now_ns = node_known(n).mtime_ns;

	if (now_ns == REMOTE_TIME_NONE || now_ns == old_mtime_ns || n->mtime_dirty || n->dirty)
		return;
	/* the server keeps whole seconds: what we sent comes back cut */
	if (n->mtime_ns - n->mtime_ns % t->caps->mtime_resolution_ns == now_ns)
		return;
	/* one without times of its own has the server's only */
	node_set_times(n, n->more->own_times ? node_atime(n) : now_ns, now_ns, now_ns);
	notifier_inode(t->notifier, n->id);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

/*
 * The outcome of our last replacement is not known, so a new version there may be ours; but not one
 * of another size.
 */
static bool is_foreign(const struct node *n, uint64_t mark, const struct known *k)
{
	struct flight sent;

	if (n->busy || n->flight != LEDGER_FLIGHT_REPLACE || n->more->known_seq > mark ||
	    !node_known(n).version || same_text(node_known(n).version, k->version))
		return false;
	node_get_flight(n, &sent);
	return k->size >= 0 && sent.size >= 0 && k->size != sent.size &&
	       sent.content != FLIGHT_UNSURE;
}

/* Removed here and changed there since: the change is kept, as a file that is new here. */
static int come_back(struct tree *t, uint64_t mark, struct node *dir, struct node *n,
		     struct known *k)
{
	log_warning(
		"conflict: '%s' was deleted here and changed on the server: the server's is kept",
		n->shown);
	tree_set_known_locked(t, n, NULL);
	n->flight = LEDGER_FLIGHT_NONE;
	n->error = 0;
	tree_changed_locked(t, n);
	return tree_new_file_locked(t, mark, dir, k);
}

/* Expiring links change with every listing (P-5). */
static void follow_url(struct node *n, char *url)
{
	struct known k = node_known(n);

	k.url_head = NULL;
	k.url_rest = url;
	node_edit_known(n, &k);
}

static int old_file(struct tree *t, uint64_t mark, struct node *dir, struct node *n,
		    struct known *k)
{
	const struct known known = node_known(n), *was = &known;
	int64_t old_mtime_ns = was->mtime_ns;
	/* where a replacement of ours may have arrived, any version there is as good as known */
	bool unsure = !was->version, version = !unsure && !same_text(was->version, k->version);
	bool placed = was->record != k->record || !same_text(was->name, k->name) ||
		      !same_text(was->filename, k->filename);
	bool follows = placed && !n->gone && n->parent && n->parent->id == was->record &&
		       node_name_matches(t, n);
	bool follow;
	int r = 0;

	if (n->seen_seq > mark)
		return 0; /* a later listing was quicker */
	n->seen_seq = mark;
	if (is_newer(n, mark) && !is_foreign(n, mark, k))
		return 0;
	if (!unsure && !version && !placed && old_mtime_ns == k->mtime_ns &&
	    (k->size < 0 || k->size == was->size)) {
		if (k->url_rest && !known_has_url(was, k->url_rest))
			follow_url(n, k->url_rest);
		return 0;
	}
	if (version && node_is_changed_here(n) && !n->gone && n->parent)
		return tree_part_conflict_locked(t, mark, dir, n, k);
	if (version && n->gone)
		return come_back(t, mark, dir, n, k);
	if (version)
		tree_keep_overwritten_locked(t, n, k);
	k->filler = !version && was->filler;
	follow = version || (unsure && !n->gone && !node_is_changed_here(n));
	if (!version && !unsure)
		k->confirmed_ms = was->confirmed_ms;
	if (!version && !unsure && (k->size < 0 || k->size == was->size))
		known_copy_hash(k, was);
	if (!version && !unsure && k->size < 0)
		k->size = was->size;
	if (follow)
		node_drop_content_locked(t, n);
	tree_set_known_locked(t, n, k);
	if (follow)
		tree_follow_content_locked(t, n);
	if (version)
		tree_news_locked(t, "changed", n, NULL);
	tree_follow_mtime_locked(t, n, old_mtime_ns);
	if (follows)
		r = follow_place(t, n, dir);
	tree_changed_locked(t, n);
	if (version && t->replaced)
		t->replaced(t->replaced_ctx, n);
	return r;
}

static int apply_file(struct tree *t, uint64_t mark, struct node *dir, struct remote_file *file)
{
	struct known k;
	struct node *n;
	int r;

	known_take(&k, file, dir->id);
	if (!k.rid || !k.name || tree_is_buried_locked(t, k.rid, mark)) {
		known_clear(&k);
		return 0;
	}
	n = tree_by_rid_locked(t, 0, k.rid);
	/* in a record the user has no use for any more: all in it is to be removed, once it is seen */
	if (n && !dir->parent && n->seen_seq < mark)
		n->seen_seq = mark;
	if (!dir->parent)
		r = 0;
	else if (n)
		r = old_file(t, mark, dir, n, &k);
	else if (may_be_ours(t, dir, &k))
		r = 0;
	else
		r = tree_new_file_locked(t, mark, dir, &k);
	known_clear(&k);
	return r;
}

int tree_listing_page(struct tree *t, uint64_t mark, uint64_t collection,
		      struct remote_record *records, size_t n_records, struct remote_file *files,
		      size_t n_files)
{
	struct node *top, *dir = NULL;
	int r = 0;

	tree_lock(t);
	top = tree_find_locked(t, collection);
	for (size_t i = 0; top && !r && i < n_records; i++)
		r = apply_record(t, mark, top, &records[i]);
	for (size_t i = 0; top && !r && i < n_files; i++) {
		if (!files[i].record)
			continue;
		if (!dir || strcmp(node_rid(dir), files[i].record))
			dir = tree_by_rid_locked(t, top->id, files[i].record);
		if (dir)
			r = apply_file(t, mark, dir, &files[i]);
	}
	tree_unlock(t);
	return r;
}

/* ---- what a whole listing did not name ---- */

void tree_vanish_locked(struct tree *t, struct node *n)
{
	log_debug("tree: '%s' is gone from the server", n->shown);
	if (n->parent)
		notifier_delete(t->notifier, n->parent->id, n->id, n->shown);
	if (n->parent && n->kind == NODE_RECORD)
		notify_record(t, n->parent, n->shown);
	if (n->kind == NODE_FILE)
		node_drop_content_locked(t, n);
	tree_unlink_locked(t, n);
	tree_set_known_locked(t, n, NULL);
	n->gone = true;
	/* until the kernel is told: it has no bytes, which is not the same as empty */
	n->left_name = n->kind == NODE_FILE;
	n->dirty = n->mtime_dirty = false;
	node_more(n)->version++;
	if (n->in_ledger)
		ledger_drop_node(t->ledger, n->id);
	n->in_ledger = false;
	tree_settle_locked(t, n);
	tree_release_locked(t, n);
}

static void end_file(struct tree *t, uint64_t mark, struct node *n)
{
	if (!node_rid(n) || n->seen_seq >= mark || is_newer(n, mark))
		return;
	if (tree_follow_successor_locked(t, mark, n))
		return;
	if (node_is_changed_here(n)) {
		/* deleted there while changed here: the change is kept, as a new file */
		log_warning(
			"conflict: '%s' was deleted on the server and changed here: ours is kept",
			n->shown);
		tree_part_locked(t, n);
		return;
	}
	tree_news_locked(t, "disappeared", n, NULL);
	tree_vanish_locked(t, n);
}

/* Of the children by id: what becomes of one may end another. */
static void end_children(struct tree *t, uint64_t mark, struct node *dir)
{
	uint64_t *ids = calloc(node_dir(dir)->n_children + 1, sizeof(*ids));
	size_t count = 0;

	if (!ids)
		return; /* the next listing ends them */
	for (const struct node *n = node_dir(dir)->child_first; n; n = n->sibling_next)
		ids[count++] = n->id;
	for (size_t i = 0; i < count; i++) {
		struct node *n = tree_find_locked(t, ids[i]);

		/* moved here by the user: the server has it elsewhere still */
		if (n && n->parent == dir && (!node_rid(n) || node_known(n).record == dir->id))
			end_file(t, mark, n);
	}
	free(ids);
}

static void end_record(struct tree *t, uint64_t mark, struct node *dir)
{
	end_children(t, mark, dir);
	dir->listed = true;
	node_own_dir(dir)->listed_ns = clock_real_ns();
	tree_put_locked(t, dir);
}

static bool holds_unsent(const struct node *dir)
{
	if (dir->more->fields)
		return true;
	for (const struct node *n = node_dir(dir)->child_first; n; n = n->sibling_next)
		if (!node_rid(n) || node_is_changed_here(n) || n->busy)
			return true;
	return false;
}

void tree_end_record_locked(struct tree *t, uint64_t mark, struct node *record)
{
	end_record(t, mark, record);
	if (record->seen_seq >= mark || is_newer(record, mark))
		return;
	if (holds_unsent(record)) {
		log_warning("tree: record '%s' is gone from the server but holds unsent "
			    "files: kept",
			    record->shown);
		return;
	}
	tree_news_locked(t, "disappeared", record, NULL);
	while (node_dir(record)->child_first)
		tree_vanish_locked(t, node_dir(record)->child_first);
	tree_vanish_locked(t, record);
}

static void end_collection(struct tree *t, uint64_t mark, struct node *top)
{
	struct node *next;

	for (struct node *dir = node_dir(top)->child_first; dir; dir = next) {
		next = dir->sibling_next;
		/* emptied, maybe: as nobody can make a record here, it must not go with its files */
		if (t->caps->hides_empty_records && dir->seen_seq)
			end_record(t, mark, dir);
		else
			tree_end_record_locked(t, mark, dir);
	}
	top->listed = true;
	node_own_dir(top)->listed_ns = clock_real_ns();
	tree_put_locked(t, top);
}

/*
 * Files of the record @dir, or of any in the collection @top, that are not shown there (any more):
 * of one removed here and there nothing is left to do; one moved away here and removed there is as
 * any other.
 */
static void end_elsewhere(struct tree *t, uint64_t mark, const struct node *top,
			  const struct node *dir)
{
	struct node *next;

	for (struct node *n = t->sync_first; n; n = next) {
		const struct node *record = tree_find_locked(t, node_known(n).record);

		next = n->more->sync_next;
		if (n->kind != NODE_FILE || !node_rid(n) || !record || n->parent == record ||
		    (dir ? record != dir : record->parent != top))
			continue;
		if (!n->gone) {
			end_file(t, mark, n);
		} else if (n->seen_seq < mark && !is_newer(n, mark)) {
			tree_set_known_locked(t, n, NULL);
			tree_changed_locked(t, n);
		}
	}
}

void tree_listing_end(struct tree *t, uint64_t mark, uint64_t collection, uint64_t record)
{
	struct node *top, *dir;

	tree_lock(t);
	ledger_group_begin(t->ledger);
	top = tree_find_locked(t, collection);
	dir = record ? tree_find_locked(t, record) : NULL;
	if (dir) {
		end_record(t, mark, dir);
		end_elsewhere(t, mark, NULL, dir);
	} else if (top && !record) {
		end_elsewhere(t, mark, top, NULL);
		end_collection(t, mark, top);
	}
	ledger_group_end(t->ledger);
	tree_unlock(t);
	crash_point("listing.applied");
}

void tree_record_vanished(struct tree *t, uint64_t mark, uint64_t record)
{
	struct node *dir;

	tree_lock(t);
	ledger_group_begin(t->ledger);
	dir = tree_find_locked(t, record);
	if (dir)
		end_elsewhere(t, mark, NULL, dir);
	if (dir && !dir->gone)
		tree_end_record_locked(t, mark, dir);
	ledger_group_end(t->ledger);
	tree_unlock(t);
}
