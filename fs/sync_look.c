/* SPDX-License-Identifier: MIT */

/*
 * What became of calls whose outcome nobody knows: the record is listed, and each node's call is
 * looked for in it.
 *
 *	CREATE  under its token, where the server shows it; else by the name it was sent under, among the files
 *	        nobody here knows: a file of the same name and size that appeared since is the one
 *	REMOVE  (only where it goes by name) whether the id is still there
 *
 * Whether the bytes are ours is sure when the sizes are told and equal, and nobody else's call could
 * have left the file. Then the node is clean, and the work left is local: its content becomes the
 * cached one of the new identity. Otherwise the identity is taken, and the content sent once more.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "crashpoint.h"
#include "sync_private.h"

/* A server's clock may be off by so much; where its zone is a guess (Rillsoft), by a day. */
#define CLOCK_SLACK_NS (120 * CLOCK_NS_PER_S)
#define ZONE_SLACK_NS  (26 * 3600 * CLOCK_NS_PER_S)
/* So long a call may be at work on the server after we have lost sight of it. */
#define LATE_MS 2000

/* A content to be made the clean one of what the look found, off the lock. */
struct arrived {
	struct arrived *next;
	struct content *content; /* referenced */
	char key[NODE_KEY_MAX];
};

struct look {
	struct sync *sync;
	uint64_t record, number;
	struct remote_file *files;
	size_t n;
	struct arrived *arrived;
	bool long_work; /* one of them is to be copied and hashed first */
	bool failed;
};

uint64_t sync_look_record(const struct node *n)
{
	uint64_t record = node_flight_record(n);

	if (record)
		return record;
	return n->gone && node_rid(n) ? node_known(n).record : n->parent ? n->parent->id : 0;
}

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

/* ---- which file is it ---- */

static const char *raw_name(const struct remote_file *f)
{
	return f->raw_name ? f->raw_name : f->name ? f->name : "";
}

static bool is_young(const struct node *n, const struct remote_file *f, int64_t slack_ns)
{
	return f->ctime_ns == REMOTE_TIME_NONE ||
	       f->ctime_ns >= n->more->flight_since_ns - slack_ns ||
	       n->mtime_ns / CLOCK_NS_PER_S == f->ctime_ns / CLOCK_NS_PER_S;
}

/* Whether @f may be what a create of @n left there, and is nobody else's. */
static bool is_ours(struct tree *t, const struct node *n, const struct remote_file *f)
{
	struct flight sent;

	node_get_flight(n, &sent);
	if (!f->id || tree_by_rid_locked(t, 0, f->id))
		return false;
	/* removed since the look was begun, or just before: ids are not used twice */
	if (tree_is_buried_locked(t, f->id, 0))
		return false;
	if (node_has_token(n, f->raw_filename))
		return true;
	if (!sent.name || strcmp(raw_name(f), sent.name))
		return false;
	if (t->caps->names_unique)
		return true; /* the one file of that name, whoever wrote it last */
	if (t->caps->sizes_listed && f->size >= 0 && sent.size >= 0)
		return f->size == sent.size && is_young(n, f, ZONE_SLACK_NS);
	return is_young(n, f, CLOCK_SLACK_NS);
}

/*
 * Another create on its way, or of unknown outcome, to the same place: the next one behind @from in
 * the sync list, NULL = from its beginning.
 */
static struct node *find_rival(const struct tree *t, const struct node *n, struct node *from)
{
	struct flight sent, other;

	if (n->flight != LEDGER_FLIGHT_CREATE)
		return NULL;
	node_get_flight(n, &sent);
	for (struct node *o = from ? from->more->sync_next : t->sync_first; o && sent.name;
	     o = o->more->sync_next) {
		if (o == n || o->flight != LEDGER_FLIGHT_CREATE)
			continue;
		node_get_flight(o, &other);
		if (other.record == sent.record && other.name && !strcmp(other.name, sent.name))
			return o;
	}
	return NULL;
}

/*
 * Two creates went to the same place, and each may find what the other left: neither is sure then of
 * the bytes, and what one that is gone finds is not removed before the other has sent its own again.
 */
static void doubt_rivals(struct tree *t, struct node *n)
{
	for (struct node *o = find_rival(t, n, NULL); o; o = find_rival(t, n, o)) {
		if (n->gone && !o->gone && !n->more->after)
			node_more(n)->after = o->id;
		node_doubt_flight(n);
		node_doubt_flight(o);
		tree_put_locked(t, o);
	}
}

/* *@ret_sure: its bytes are those that were sent. */
static struct remote_file *find_ours(struct look *l, const struct node *n, bool *ret_sure)
{
	struct tree *t = l->sync->m->tree;
	struct remote_file *found = NULL;
	struct flight sent;
	size_t candidates = 0;

	for (size_t i = 0; i < l->n; i++) {
		struct remote_file *f = &l->files[i];

		if (!is_ours(t, n, f))
			continue;
		candidates++;
		if (!found || node_has_token(n, f->raw_filename))
			found = f;
	}
	node_get_flight(n, &sent);
	*ret_sure = found && candidates == 1 && sent.size >= 0 && found->size == sent.size &&
		    sent.content != FLIGHT_UNSURE;
	return found;
}

/* ---- taking it ---- */

/* The clean content of a new identity; flattening and hashing are for the pool. */
static void remember_arrived(struct look *l, const struct node *n, struct content *content)
{
	struct arrived *a = content ? calloc(1, sizeof(*a)) : NULL;

	if (a && node_key(n, a->key)) {
		a->content = content_ref(content);
		a->next = l->arrived;
		l->arrived = a;
		l->long_work |= !content_is_complete(content);
	} else {
		free(a);
	}
}

static void take_created(struct look *l, struct node *n, struct remote_file *f, bool sure)
{
	struct tree *t = l->sync->m->tree;
	struct content *content = node_content(t, n);
	struct flight sent;
	struct known k;

	node_get_flight(n, &sent);
	sync_leave_ghost_locked(t, n);
	known_take(&k, f, l->record);
	k.filler = !sure;
	tree_set_known_locked(t, n, &k);
	node_more(n)->known_seq = ++t->seq;
	if (sure && !n->gone && n->content == sent.content) {
		n->dirty = false;
		n->size = node_known(n).size;
		remember_arrived(l, n, content);
	}
	content_unref(content);
}

/*
 * It was not done, as far as can be seen; but a server that was slow to read the call, from a daemon
 * that was killed, say, may do it yet, and then it would be done twice. Looked at twice, therefore.
 */
static bool must_look_again(struct node *n)
{
	if (n->looked)
		return false;
	n->looked = true;
	node_more(n)->retry_at_ms = clock_mono_ms() + LATE_MS;
	return true;
}

static void resolve_create(struct look *l, struct node *n)
{
	struct tree *t = l->sync->m->tree;
	bool sure;
	struct remote_file *f = find_ours(l, n, &sure);
	int r = 0;

	if (!f && must_look_again(n))
		return;
	/* which of our contents arrived is not told: send what is wanted once more */
	if (f && !sure && !n->gone)
		r = sync_claim_content_locked(t, n);
	n->unknown = false;
	n->flight = LEDGER_FLIGHT_NONE;
	if (!f || r < 0)
		return;
	log_info("sync: '%s' had arrived, though its answer was lost", n->shown);
	take_created(l, n, f, sure);
}

static void resolve_remove(struct look *l, struct node *n)
{
	bool there = false;

	for (size_t i = 0; i < l->n && node_rid(n); i++)
		there |= l->files[i].id && !strcmp(l->files[i].id, node_rid(n));
	if (there && must_look_again(n))
		return;
	n->unknown = false;
	n->flight = LEDGER_FLIGHT_NONE;
	if (!there)
		sync_removed_locked(l->sync->m->tree, n);
}

/* What is there may be the rival's, who will know, or who still wants it. */
static bool must_wait(const struct tree *t, const struct node *n)
{
	for (struct node *o = find_rival(t, n, NULL); o; o = find_rival(t, n, o))
		if (!o->unknown || (n->gone && !o->gone))
			return true;
	return false;
}

static void resolve(struct look *l, struct node *n, int error)
{
	struct sync *s = l->sync;

	sync_landed_locked(s, n);
	if (error || must_wait(s->m->tree, n))
		sync_back_off_locked(s, n);
	else if (n->flight == LEDGER_FLIGHT_REMOVE)
		resolve_remove(l, n);
	else
		resolve_create(l, n);
}

static void resolve_all(struct look *l, bool gone, int error)
{
	struct tree *t = l->sync->m->tree;
	struct node *next;

	for (struct node *n = t->sync_first; n; n = next) {
		next = n->more->sync_next;
		if (!n->unknown || !n->busy || n->gone != gone || n->more->look != l->number)
			continue;
		resolve(l, n, error);
		tree_changed_locked(t, n);
		tree_release_locked(t, n);
	}
}

/* ---- the look ---- */

/* On the disk pool when it takes long. Takes @l. */
static void finish_look(void *ctx)
{
	struct look *l = ctx;

	while (l->arrived) {
		struct arrived *a = l->arrived;

		l->arrived = a->next;
		crash_point("look.arrived");
		if (!content_is_dirty(a->content) || content_flatten(a->content) == 0)
			content_become_clean(a->content, a->key);
		content_unref(a->content);
		free(a);
	}
	for (size_t i = 0; i < l->n; i++)
		remote_file_clear(&l->files[i]);
	free(l->files);
	free(l);
}

static void look_done(void *ctx, int error, const char *message)
{
	struct look *l = ctx;
	struct sync *s = l->sync;
	struct tree *t = s->m->tree;

	(void)message;
	crash_point("look.listed");
	if (l->failed)
		error = -ENOMEM;
	if (error == -ENOENT)
		error = 0; /* the record is gone, and all that was in it */
	tree_lock(t);
	ledger_group_begin(t->ledger);
	for (struct node *n = t->sync_first; n && !error; n = n->more->sync_next)
		if (n->unknown && n->busy && n->more->look == l->number)
			doubt_rivals(t, n);
	/* those still wanted choose first: what the gone ones find is removed */
	resolve_all(l, false, error);
	resolve_all(l, true, error);
	ledger_group_end(t->ledger);
	tree_unlock(t);
	crash_point("look.resolved");
	if (!l->long_work || pool_run(s->m->disk_pool, finish_look, l) < 0)
		finish_look(l);
	sync_wake(s);
}

/* Without memory to look: later. */
static void give_up_look(struct sync *s, uint64_t number)
{
	tree_lock(s->m->tree);
	for (struct node *n = s->m->tree->sync_first; n; n = n->more->sync_next)
		if (n->unknown && n->busy && n->more->look == number) {
			sync_landed_locked(s, n);
			sync_back_off_locked(s, n);
		}
	tree_unlock(s->m->tree);
	sync_wake(s);
}

void sync_look(struct sync *s, uint64_t record, uint64_t number)
{
	struct remote *r = s->m->remote;
	struct look *l = calloc(1, sizeof(*l));
	struct remote_sink sink = {on_look_page, look_done, l};
	char *collection = NULL, *rid = NULL;
	struct node *dir, *top;
	int ret = -ENOENT;

	if (!l) {
		give_up_look(s, number);
		return;
	}
	l->sync = s;
	l->record = record;
	l->number = number;
	tree_lock(s->m->tree);
	dir = tree_find_locked(s->m->tree, record);
	top = dir ? tree_collection_of_locked(s->m->tree, dir) : NULL;
	if (top && node_rid(dir)) {
		collection = strdup(node_collection_id(top));
		rid = strdup(node_rid(dir));
	}
	tree_unlock(s->m->tree);
	if (collection && rid)
		ret = r->ops->list_record(r, TRANSFER_WRITEBACK, collection, rid, &sink);
	free(collection);
	free(rid);
	if (ret < 0)
		look_done(l, ret, NULL);
}
