/* SPDX-License-Identifier: MIT */

/*
 * Sizes that no listing tells: one tiny read each, for all files of a directory as soon as somebody
 * wants to know that of one. Who goes through records one after another (find, du, ls -lR) has those
 * of the next WALK_FILES files asked for ahead: a record alone has too few to keep all connections busy.
 */

#include "lister_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "mount.h"

#define VAIN_PROBES   8
#define VAIN_PAUSE_MS 5000
#define WALK_FILES   64 /* ahead of who walks, at most */
#define WALK_RECORDS 64 /* that are looked into for them: most may be empty */

struct probe {
	struct lister *lister;
	uint64_t node;
	char *version;
	struct remote_file file;
	char *collection;
	bool first; /* the one a program waits for */
	struct probe *next;
};

static void probe_free(struct probe *p)
{
	remote_file_clear(&p->file);
	free(p->collection);
	free(p->version);
	free(p);
}

void lister_forget_probes(struct lister *l)
{
	while (l->probes) {
		struct probe *next = l->probes->next;

		probe_free(l->probes);
		l->probes = next;
	}
}

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
	p->lister->probes_failed = error ? p->lister->probes_failed + 1 : 0;
	if (error)
		p->lister->probe_failed_ms = clock_mono_ms();
	tree_unlock(m->tree);
	if (!error)
		lister_learned_size(m, id, p->version, size);
	calls_wake(m->calls, CALL_WAIT_SIZE, id, error);
	probe_free(p);
}

static bool is_version(const struct node *n, const char *version)
{
	return n && node_known(n).version && version && !strcmp(node_known(n).version, version);
}

void lister_learned_content(struct mount *m, uint64_t node, const char *version, struct content *c)
{
	struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, node);
	if (is_version(n, version) && !node_known(n).filler && !node_known(n).has_hash) {
		node_set_hash(n, c);
		tree_put_locked(m->tree, n);
	}
	tree_unlock(m->tree);
}

void lister_learned_size(struct mount *m, uint64_t node, const char *version, int64_t size)
{
	struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, node);
	if (is_version(n, version) && node_known(n).size != size) {
		node_set_known_size(n, size);
		if (!n->dirty && (!n->more->view || !content_is_dirty(n->more->view)))
			n->size = size;
		tree_put_locked(m->tree, n);
	}
	tree_unlock(m->tree);
}

static void add_probe_locked(struct lister *l, struct node *n, const char *collection, bool first)
{
	struct node *record = tree_find_locked(l->m->tree, node_known(n).record);
	struct probe *p = calloc(1, sizeof(*p));
	struct remote_file file;
	bool copied;

	if (!p)
		return;
	node_borrow_file(n, record ? node_rid(record) : NULL, &file);
	p->lister = l;
	p->node = n->id;
	p->first = first;
	p->collection = strdup(collection);
	p->version = file.version ? strdup(file.version) : NULL;
	copied = p->collection && remote_file_copy(&p->file, &file);
	free(file.url);
	if (!copied) {
		probe_free(p);
		return;
	}
	n->size_asked = true;
	p->next = l->probes;
	l->probes = p;
}

static bool needs_probe(const struct node *n)
{
	return n->kind == NODE_FILE && node_rid(n) && node_size_locked(n) < 0 && !n->size_asked;
}

void lister_size_ahead_locked(struct lister *l, struct node *n)
{
	const struct node *top = node_collection(n);

	if (top && l->m->remote->ops->probe_size && needs_probe(n))
		add_probe_locked(l, n, node_collection_id(top), false);
}

/*
 * Where none is to be had, whoever looks at a directory asks for each of its files, one by one: that is not
 * to be multiplied by the number of its files.
 */
static bool are_probes_vain_locked(const struct lister *l)
{
	return l->probes_failed >= VAIN_PROBES &&
	       clock_mono_ms() - l->probe_failed_ms < VAIN_PAUSE_MS;
}

static bool is_asked(const struct node *record)
{
	const struct node *n = node_dir(record)->child_first;

	while (n && n->kind != NODE_FILE)
		n = n->sibling_next;
	return n && (n->size_asked || node_known(n).size >= 0);
}

/* The two records before @record were asked, as by a program that goes on to the next one. */
static bool is_walked(const struct node *record)
{
	const struct node *last = record->sibling_prev;

	return last && last->kind == NODE_RECORD && is_asked(last) && last->sibling_prev &&
	       last->sibling_prev->kind == NODE_RECORD && is_asked(last->sibling_prev);
}

/* In the order in which they will be asked for, which is last in, first out. */
static void ask_next_records_locked(struct lister *l, const struct node *record)
{
	struct node *of[WALK_FILES];
	unsigned ahead = 0, n = 0;

	if (!is_walked(record) || engine_get_state(l->m->engine, NULL) != ENGINE_ONLINE)
		return;
	for (unsigned i = 0; i < WALK_RECORDS && ahead < WALK_FILES; i++) {
		record = record->sibling_next;
		if (!record || record->kind != NODE_RECORD)
			break;
		for (struct node *f = node_dir(record)->child_first; f && ahead < WALK_FILES;
		     f = f->sibling_next) {
			if (f->kind != NODE_FILE || node_known(f).size >= 0)
				continue;
			ahead++;
			of[n] = f;
			n += needs_probe(f);
		}
	}
	while (n-- > 0)
		lister_size_ahead_locked(l, of[n]);
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
	if (!node_rid(n) || !l->m->remote->ops->probe_size) {
		*ret_error = n->gone ? -ESTALE : -EIO;
		return true;
	}
	if (!top)
		top = tree_find_locked(l->m->tree, node_known(n).record)
			      ? node_collection(tree_find_locked(l->m->tree, node_known(n).record))
			      : NULL;
	if (!top) {
		*ret_error = -EIO;
		return true;
	}
	if (n->parent && n->parent->kind == NODE_RECORD && !are_probes_vain_locked(l))
		ask_next_records_locked(l, n->parent);
	for (struct node *s = n->parent && !are_probes_vain_locked(l)
				      ? node_dir(n->parent)->child_first
				      : NULL;
	     s; s = s->sibling_next)
		if (s != n && needs_probe(s))
			add_probe_locked(l, s, node_collection_id(top), false);
	if (needs_probe(n))
		add_probe_locked(l, n, node_collection_id(top),
				 true); /* last in, first out: it goes before its siblings */
	call_park(c, CALL_WAIT_SIZE, n->id);
	return false;
}

void lister_send_probes(struct lister *l)
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
