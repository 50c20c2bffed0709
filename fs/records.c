/* SPDX-License-Identifier: MIT */

/*
 * A question about such a record is a struct ask: made under tree->lock, together with parking the
 * call that waits for it (its address is the key), sent without the lock, and freed when the answer
 * was applied to the tree and the call woken. The call then looks again.
 */

#include "records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/ledger.h>
#include <attachfs/log.h>
#include <attachfs/names.h>

#include "lister.h"
#include "ops.h"

#define ID_CHARACTERS 36 /* of a UUID */

struct ask {
	struct mount *m;
	uint64_t collection; /* node */
	char *id;	     /* of the collection */
	char *name;	     /* the record's id, or the name it is made with */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	uint64_t mark;
	struct remote_file *files; /* of the record asked for, as they come */
	size_t n;
};

struct mkdir {
	mode_t mode;
	uid_t uid;
	gid_t gid;
};

static void ask_free(struct ask *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < a->n; i++)
		remote_file_clear(&a->files[i]);
	free(a->files);
	free(a->id);
	free(a->name);
	free(a);
}

static struct ask *ask_new(struct mount *m, const struct node *collection, const char *name)
{
	struct ask *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->m = m;
	a->collection = collection->id;
	a->id = strdup(node_collection_id(collection));
	a->name = strdup(name);
	if (a->id && a->name)
		return a;
	ask_free(a);
	return NULL;
}

static void ask_over(struct ask *a, int error)
{
	calls_wake(a->m->calls, CALL_WAIT_RECORD, (uintptr_t)a, error);
	ask_free(a);
}

/* ---- by its id ---- */

static bool may_be_id(const char *name)
{
	return strlen(name) == ID_CHARACTERS &&
	       strspn(name, "0123456789abcdefABCDEF-") == ID_CHARACTERS;
}

static bool on_ask_page(void *ctx, struct remote_record *records, size_t n_records,
			struct remote_file *files, size_t n_files)
{
	struct ask *a = ctx;
	struct remote_file *all = realloc(a->files, (a->n + n_files + 1) * sizeof(*all));

	(void)records;
	(void)n_records;
	if (!all)
		return false;
	a->files = all;
	for (size_t i = 0; i < n_files; i++) {
		all[a->n++] = files[i];
		memset(&files[i], 0, sizeof(files[i]));
	}
	return true;
}

/* The record asked for is there: its node, perhaps one that was forgotten. tree->lock held. */
static struct node *found_locked(struct ask *a)
{
	struct tree *t = a->m->tree;
	struct node *top = tree_find_locked(t, a->collection), *n;

	if (!top || top->gone || tree_child_locked(t, top, a->name))
		return NULL;
	n = tree_by_rid_locked(t, top->id, a->name);
	if (!n)
		return tree_new_record_locked(t, top, a->name, a->name);
	if (n->parent || tree_move_locked(t, n, top, a->name) < 0)
		return NULL;
	n->gone = false;
	node_set_known_name(n, a->name);
	tree_put_locked(t, n);
	return n;
}

static void on_asked(void *ctx, int error, const char *message)
{
	struct ask *a = ctx;
	struct tree *t = a->m->tree;
	struct node *record;
	uint64_t id = 0;

	(void)message;
	if (!error) {
		tree_lock(t);
		record = found_locked(a);
		if (record) {
			id = record->id;
			lister_made_locked(a->m->lister, record);
		}
		tree_unlock(t);
	}
	if (id) {
		error = tree_listing_page(t, a->mark, a->collection, NULL, 0, a->files, a->n);
		tree_listing_end(t, a->mark, a->collection, id);
	}
	ask_over(a, error);
}

bool records_ask_unlock(struct call *c, struct node *collection)
{
	struct mount *m = c->m;
	struct ask *a;
	struct remote_sink sink = {on_ask_page, on_asked, NULL};
	int r;

	if (c->step || !tree_is_unlisted(m->tree, collection) || !may_be_id(c->name))
		return false;
	a = ask_new(m, collection, c->name);
	if (!a)
		return false;
	c->step = 1;
	call_park(c, CALL_WAIT_RECORD, (uintptr_t)a);
	tree_unlock(m->tree);
	sink.ctx = a;
	a->mark = tree_listing_begin(m->tree);
	r = m->remote->ops->list_record(m->remote, TRANSFER_INTERACTIVE, a->id, a->name, &sink);
	if (r < 0)
		on_asked(a, r, NULL);
	return true;
}

/* ---- mkdir ---- */

static void made_locked(struct ask *a, const char *rid)
{
	struct tree *t = a->m->tree;
	struct node *top = tree_find_locked(t, a->collection), *n;
	char shown[NAMES_MAX + 1];

	if (!top || top->gone)
		return;
	if (tree_child_locked(t, top, a->name))
		names_disambiguate(a->name, rid, shown);
	else
		strcpy(shown, a->name);
	n = tree_new_record_locked(t, top, shown, rid);
	if (!n)
		return;
	node_more(n)->mode = (a->mode & 07777u) | NODE_MODE_SET;
	node_set_owner(n, a->uid, a->gid);
	lister_made_locked(a->m->lister, n);
	tree_put_locked(t, n);
	node_set_modified(top, clock_real_ns());
	tree_put_locked(t, top);
}

static void on_made(void *ctx, int error, const char *id, const char *message)
{
	struct ask *a = ctx;

	if (error) {
		log_warning("mkdir: '%s': %s%s%s", a->name, strerror(-error),
			    message && *message ? ": " : "", message ? message : "");
	} else {
		tree_lock(a->m->tree);
		made_locked(a, id);
		tree_unlock(a->m->tree);
		error = ledger_commit(a->m->ledger);
	}
	ask_over(a, error);
}

/* tree->lock held on entry, released. */
static void make_record_unlock(struct call *c, struct node *dir)
{
	struct mount *m = c->m;
	struct mkdir *k = c->data;
	struct ask *a = ask_new(m, dir, c->name);
	char server[3 * NAMES_MAX + 1];
	int r;

	if (!a) {
		tree_unlock(m->tree);
		call_fail(c, ENOMEM);
		return;
	}
	a->mode = k->mode;
	a->uid = k->uid;
	a->gid = k->gid;
	c->step = 1;
	call_park(c, CALL_WAIT_RECORD, (uintptr_t)a);
	tree_unlock(m->tree);
	names_to_server(a->name, server);
	r = m->remote->ops->make_record(m->remote, a->id, server, on_made, a);
	if (r < 0)
		on_made(a, r, NULL, NULL);
}

static int check_mkdir(struct mount *m, const struct node *dir, const struct node *there,
		       const char *name)
{
	if (there)
		return -EEXIST;
	if (!tree_is_unlisted(m->tree, dir) || !m->remote->ops->make_record)
		return -EPERM;
	if (!strcmp(name, ".by-id"))
		return -EEXIST;
	return strlen(name) > NAMES_MAX ? -ENAMETOOLONG : 0;
}

static void mkdir_run(struct call *c)
{
	struct mount *m = c->m;
	struct node *dir, *n;
	int r;

	tree_lock(m->tree);
	dir = need_dir_locked(c, c->ino);
	if (!dir)
		return;
	n = tree_child_locked(m->tree, dir, c->name);
	if (c->step && !c->error && n) {
		reply_entry_unlock(c, n);
		return;
	}
	if (c->step)
		r = c->error ? c->error : -ESTALE; /* made, and removed by somebody else */
	else
		r = check_mkdir(m, dir, n, c->name);
	if (!r) {
		make_record_unlock(c, dir);
		return;
	}
	tree_unlock(m->tree);
	call_fail(c, r);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct mount *m = mount_of_request(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct call c = {.m = m, .req = req, .op = mkdir_run, .ino = parent, .name = (char *)name};
	struct mkdir *k;

	if (is_virtual(parent) || is_control(parent)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	k = malloc(sizeof(*k));
	if (!k) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*k = (struct mkdir){mode, ctx->uid, ctx->gid};
	c.data = k;
	call_run(m->calls, &c);
}

/* ---- rmdir ---- */

/* 0, -errno; -EINPROGRESS: @c was parked. tree->lock held. */
static int rmdir_locked(struct call *c, struct node *dir)
{
	struct mount *m = c->m;
	struct node *n = tree_child_locked(m->tree, dir, c->name);
	int error = 0;

	if (!n)
		return strcmp(c->name, ".by-id") ? -ENOENT : -EPERM;
	if (n->kind == NODE_FILE)
		return -ENOTDIR;
	if (n->kind != NODE_RECORD || !tree_is_unlisted(m->tree, dir))
		return -EPERM; /* records are not ours to delete */
	if (!lister_need_locked(m->lister, c, n, &error))
		return error ? error : -EINPROGRESS;
	if (node_dir(n)->child_first)
		return -ENOTEMPTY;
	tree_forget_record_locked(m->tree, n);
	node_set_modified(dir, clock_real_ns());
	tree_put_locked(m->tree, dir);
	return 0;
}

static void rmdir_run(struct call *c)
{
	struct mount *m = c->m;
	struct node *dir;
	int r;

	tree_lock(m->tree);
	dir = need_dir_locked(c, c->ino);
	if (!dir)
		return;
	r = rmdir_locked(c, dir);
	tree_unlock(m->tree);
	if (r == -EINPROGRESS) {
		lister_kick(m->lister);
		return;
	}
	if (!r)
		r = ledger_commit(m->ledger);
	call_fail(c, r);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = rmdir_run, .ino = parent, .name = (char *)name};

	if (is_virtual(parent) || is_control(parent))
		fuse_reply_err(req, EPERM);
	else
		call_run(m->calls, &c);
}
