/* SPDX-License-Identifier: MIT */

/*
 * One struct watch per collection. What must be sent is decided under tree->lock and sent without
 * it: the decision is a flag on the watch, or on the node whose size is wanted, and lister_kick()
 * turns flags into calls of the remote.
 */

#include "lister.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "events.h"
#include "mount.h"

struct refresh {
	void (*done)(void *ctx, int error);
	void *ctx;
	_Atomic unsigned left;
	_Atomic int error;
};

struct watch {
	struct lister *lister;
	uint64_t collection; /* node */
	char *name;
	bool validated; /* tree->lock, as all below: listed, or tried, in this mount */
	bool wanted;	/* to be started by lister_kick() */
	bool listing, polling;
	bool again;	  /* something changed while a listing was under way: list once more */
	int64_t began_ms; /* of the first listing of this mount */
	uint64_t mark;
	char *cursor;	   /* what the tree is as new as */
	char *next_cursor; /* ... will be, once the listing it asked for succeeded */
	int64_t next_poll_ms;
	struct refresh *refresh;
};

struct probe {
	struct lister *lister;
	uint64_t node;
	char *version;
	struct remote_file file;
	char *collection;
	bool first; /* the one a program waits for */
	struct probe *next;
};

struct lister {
	struct mount *m;
	struct watch *watches;
	size_t n_watches;
	struct probe *probes; /* tree->lock: to be sent */
	bool kick; /* tree->lock: a listing is to be started although nobody was parked for it */
};

int lister_new(struct mount *m, struct lister **ret_lister)
{
	struct lister *l = calloc(1, sizeof(*l));
	struct tree *t = m->tree;
	size_t i = 0;

	if (!l)
		return -ENOMEM;
	l->m = m;
	tree_lock(t);
	l->n_watches = t->root->n_children;
	l->watches = calloc(l->n_watches ? l->n_watches : 1, sizeof(*l->watches));
	for (struct node *n = t->root->child_first; n && l->watches; n = n->sibling_next, i++) {
		char key[300];

		snprintf(key, sizeof(key), "cursor %s", n->shown);
		l->watches[i] = (struct watch){.lister = l,
					       .collection = n->id,
					       .name = strdup(n->shown),
					       .cursor = ledger_get_value(m->ledger, key, NULL)};
	}
	tree_unlock(t);
	if (!l->watches) {
		free(l);
		return -ENOMEM;
	}
	*ret_lister = l;
	return 0;
}

static void probe_free(struct probe *p)
{
	remote_file_clear(&p->file);
	free(p->collection);
	free(p->version);
	free(p);
}

void lister_free(struct lister *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->n_watches; i++) {
		free(l->watches[i].name);
		free(l->watches[i].cursor);
		free(l->watches[i].next_cursor);
	}
	while (l->probes) {
		struct probe *next = l->probes->next;

		probe_free(l->probes);
		l->probes = next;
	}
	free(l->watches);
	free(l);
}

static struct watch *watch_of(struct lister *l, const struct node *collection)
{
	for (size_t i = 0; i < l->n_watches; i++)
		if (l->watches[i].collection == collection->id)
			return &l->watches[i];
	return NULL;
}

/* ---- listing ---- */

static void set_next_poll_locked(struct watch *w)
{
	double poll_s = w->lister->m->options->poll_s;

	w->next_poll_ms = poll_s > 0 ? clock_mono_ms() + (int64_t)(poll_s * 1000) : INT64_MAX;
}

static void refresh_part_done(struct refresh *f, int error)
{
	if (!f)
		return;
	if (error)
		f->error = error;
	if (atomic_fetch_sub(&f->left, 1) > 1)
		return;
	f->done(f->ctx, f->error);
	free(f);
}

static bool on_page(void *ctx, struct remote_record *records, size_t n_records,
		    struct remote_file *files, size_t n_files)
{
	struct watch *w = ctx;

	return tree_listing_page(w->lister->m->tree, w->mark, w->collection, records, n_records,
				 files, n_files) == 0;
}

static void start_listing(struct watch *w, enum transfer_class class);

/* The tree is as new as the poll that asked for this listing. tree->lock held. */
static void take_cursor_locked(struct watch *w)
{
	char key[300];

	if (!w->next_cursor)
		return;
	free(w->cursor);
	w->cursor = w->next_cursor;
	w->next_cursor = NULL;
	snprintf(key, sizeof(key), "cursor %s", w->name);
	ledger_put_value(w->lister->m->ledger, key, w->cursor, strlen(w->cursor));
}

static void on_listed(void *ctx, int error, const char *message)
{
	struct watch *w = ctx;
	struct mount *m = w->lister->m;
	struct node *top;
	struct refresh *refresh;
	bool again;

	if (!error)
		tree_listing_end(m->tree, w->mark, w->collection, 0);
	else
		log_warning("list %s: %s%s%s", w->name, strerror(-error),
			    message && *message ? ": " : "", message ? message : "");
	tree_lock(m->tree);
	top = tree_find_locked(m->tree, w->collection);
	w->validated = true;
	if (!error)
		take_cursor_locked(w);
	again = w->again && !error;
	w->again = false;
	w->listing = again;
	if (error && top && !top->listed)
		w->validated = false; /* nothing to show: the next look tries again */
	set_next_poll_locked(w);
	refresh = w->refresh;
	w->refresh = NULL;
	tree_unlock(m->tree);
	calls_wake(m->calls, CALL_WAIT_LISTING, w->collection, error);
	refresh_part_done(refresh, error);
	if (again)
		start_listing(w, TRANSFER_REFRESH);
}

static void start_listing(struct watch *w, enum transfer_class class)
{
	struct mount *m = w->lister->m;
	struct remote_sink sink = {on_page, on_listed, w};
	int r;

	w->mark = tree_listing_begin(m->tree);
	r = m->remote->ops->list_tree(m->remote, class, w->name, &sink);
	if (r < 0)
		on_listed(w, r, NULL);
}

bool lister_need_locked(struct lister *l, struct call *c, struct node *collection, int *ret_error)
{
	struct watch *w = watch_of(l, collection);
	int64_t waited_ms;

	*ret_error = 0;
	if (!w) {
		*ret_error = -ENOENT;
		return false;
	}
	if (w->validated)
		return true;
	if (c->error == -EINTR || c->error == -ECANCELED || (c->error && !collection->listed)) {
		*ret_error = c->error;
		return false;
	}
	if (!w->listing)
		w->listing = w->wanted = true;
	if (!w->began_ms)
		w->began_ms = clock_mono_ms();
	waited_ms = clock_mono_ms() - w->began_ms;
	/* waited for long enough: what the ledger knows is shown until the listing comes */
	if (collection->listed && (c->error || waited_ms >= LISTER_PATIENCE_MS)) {
		l->kick = true;
		return true;
	}
	if (collection->listed)
		call_park_soft(c, CALL_WAIT_LISTING, collection->id,
			       LISTER_PATIENCE_MS - waited_ms);
	else
		call_park(c, CALL_WAIT_LISTING, collection->id);
	return false;
}

/* ---- polling ---- */

static void on_polled(void *ctx, int error, bool changed, const char *cursor)
{
	struct watch *w = ctx;
	struct mount *m = w->lister->m;
	bool list = false;

	tree_lock(m->tree);
	w->polling = false;
	if (!error && cursor)
		node_set_string(&w->next_cursor, cursor);
	if (!error && !changed)
		take_cursor_locked(w);
	if (!error && changed) {
		if (w->listing)
			w->again = true;
		else
			w->listing = list = true;
	}
	set_next_poll_locked(w);
	tree_unlock(m->tree);
	if (list)
		start_listing(w, TRANSFER_REFRESH);
}

static void start_poll(struct watch *w)
{
	struct mount *m = w->lister->m;
	char *cursor;
	int r;

	tree_lock(m->tree);
	cursor = w->cursor ? strdup(w->cursor) : NULL;
	tree_unlock(m->tree);
	r = m->remote->ops->poll(m->remote, w->name, cursor, on_polled, w);
	free(cursor);
	if (r < 0)
		on_polled(w, r, false, NULL);
}

void lister_tick(struct lister *l)
{
	int64_t now = clock_mono_ms();
	bool kick;

	tree_lock(l->m->tree);
	kick = l->kick;
	l->kick = false;
	tree_unlock(l->m->tree);
	if (kick)
		lister_kick(l);

	for (size_t i = 0; i < l->n_watches; i++) {
		struct watch *w = &l->watches[i];
		bool due;

		tree_lock(l->m->tree);
		due = w->validated && !w->listing && !w->polling && now >= w->next_poll_ms &&
		      l->m->remote->ops->poll;
		if (due)
			w->polling = true;
		tree_unlock(l->m->tree);
		if (due)
			start_poll(w);
	}
}

void lister_refresh(struct lister *l, void (*done)(void *ctx, int error), void *ctx)
{
	struct refresh *f = calloc(1, sizeof(*f));

	if (!f) {
		done(ctx, -ENOMEM);
		return;
	}
	f->done = done;
	f->ctx = ctx;
	f->left = 1;
	for (size_t i = 0; i < l->n_watches; i++) {
		struct watch *w = &l->watches[i];
		bool start;

		tree_lock(l->m->tree);
		start = !w->listing;
		if (start) {
			w->listing = true;
			w->refresh = f;
			f->left++;
		}
		tree_unlock(l->m->tree);
		if (start)
			start_listing(w, TRANSFER_INTERACTIVE);
	}
	refresh_part_done(f, 0);
}

/* ---- sizes ---- */

static void on_size(void *ctx, int error, int64_t size)
{
	struct probe *p = ctx;
	struct mount *m = p->lister->m;
	uint64_t id = p->node;
	struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, id);
	if (n) {
		n->size_asked = false;
		tree_release_locked(m->tree, n);
	}
	tree_unlock(m->tree);
	if (!error)
		lister_learned_size(m, id, p->version, size);
	calls_wake(m->calls, CALL_WAIT_SIZE, id, error);
	probe_free(p);
}

void lister_learned_size(struct mount *m, uint64_t node, const char *version, int64_t size)
{
	struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, node);
	if (n && n->known.version && version && !strcmp(n->known.version, version) &&
	    n->known.size != size) {
		n->known.size = size;
		if (!n->dirty && (!n->view || !content_is_dirty(n->view)))
			n->size = size;
		tree_put_locked(m->tree, n);
	}
	tree_unlock(m->tree);
}

static void add_probe_locked(struct lister *l, struct node *n, const char *collection, bool first)
{
	struct node *record = tree_find_locked(l->m->tree, n->known.record);
	struct probe *p = calloc(1, sizeof(*p));
	struct remote_file file;

	if (!p)
		return;
	known_borrow(n, record ? record->known.rid : NULL, &file);
	p->lister = l;
	p->node = n->id;
	p->first = first;
	p->collection = strdup(collection);
	p->version = n->known.version ? strdup(n->known.version) : NULL;
	if (!p->collection || !remote_file_copy(&p->file, &file)) {
		probe_free(p);
		return;
	}
	n->size_asked = true;
	p->next = l->probes;
	l->probes = p;
}

static bool needs_probe(const struct node *n)
{
	return n->kind == NODE_FILE && n->known.rid && node_size_locked(n) < 0 && !n->size_asked;
}

bool lister_size_locked(struct lister *l, struct call *c, struct node *n, int *ret_error)
{
	struct node *top = node_collection(n);

	*ret_error = c->error;
	if (node_size_locked(n) >= 0) {
		*ret_error = 0;
		return true;
	}
	if (c->error)
		return true;
	if (!n->known.rid || !l->m->remote->ops->probe_size) {
		*ret_error = -EIO;
		return true;
	}
	if (!top)
		top = tree_find_locked(l->m->tree, n->known.record)
			      ? node_collection(tree_find_locked(l->m->tree, n->known.record))
			      : NULL;
	if (!top) {
		*ret_error = -EIO;
		return true;
	}
	for (struct node *s = n->parent ? n->parent->child_first : NULL; s; s = s->sibling_next)
		if (s != n && needs_probe(s))
			add_probe_locked(l, s, top->shown, false);
	if (needs_probe(n))
		add_probe_locked(l, n, top->shown,
				 true); /* last in, first out: it goes before its siblings */
	call_park(c, CALL_WAIT_SIZE, n->id);
	return false;
}

static void send_probes(struct lister *l)
{
	struct remote *remote = l->m->remote;
	struct probe *p, *next;

	tree_lock(l->m->tree);
	p = l->probes;
	l->probes = NULL;
	tree_unlock(l->m->tree);
	for (; p; p = next) {
		int r;

		next = p->next;
		r = remote->ops->probe_size(remote,
					    p->first ? TRANSFER_INTERACTIVE : TRANSFER_PREFETCH,
					    &p->file, p->collection, 0, on_size, p);
		if (r < 0)
			on_size(p, r, -1);
	}
}

void lister_kick(struct lister *l)
{
	for (size_t i = 0; i < l->n_watches; i++) {
		struct watch *w = &l->watches[i];
		bool start;

		tree_lock(l->m->tree);
		start = w->wanted;
		w->wanted = false;
		tree_unlock(l->m->tree);
		if (start)
			start_listing(w, TRANSFER_INTERACTIVE);
	}
	send_probes(l);
}
