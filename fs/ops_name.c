/* SPDX-License-Identifier: MIT */

/*
 * Creating, removing and renaming: changes of the wanted half, answered when the ledger has them.
 * What they mean for the server is the plan's business.
 */

#include "ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/names.h>

#include "crashpoint.h"
#include "lister.h"
#include "notifier.h"
#include "passthrough.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

struct create {
	struct fuse_file_info fi;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	bool node_only; /* mknod */
};

static size_t characters(const char *utf8)
{
	size_t n = 0;

	for (; *utf8; utf8++)
		n += ((unsigned char)*utf8 & 0xc0) != 0x80;
	return n;
}

/* Whether a file of that name could exist in @dir. tree->lock held. */
static int check_name(const struct mount *m, const struct node *dir, const char *name)
{
	if (dir->kind != NODE_RECORD)
		return -EPERM; /* files live in records only */
	if (!strcmp(name, ".by-id") || !strcmp(name, ".record.json"))
		return -EEXIST;
	if (strlen(name) > NAMES_MAX ||
	    (m->remote->caps.name_max && characters(name) > m->remote->caps.name_max))
		return -ENAMETOOLONG;
	return 0;
}

/* An entry came or went. tree->lock held. */
static void touch_dir_locked(struct mount *m, struct node *dir)
{
	int64_t now_ns = clock_real_ns();

	/* the time it has may be of a server whose clock is ahead: it changes all the same */
	node_set_modified(dir, now_ns > dir->mtime_ns ? now_ns : dir->mtime_ns + 1);
	tree_touch_locked(m->tree, dir);
}

/* ---- create ---- */

static struct node *new_file_locked(struct mount *m, struct node *dir, const char *name,
				    const struct create *a)
{
	struct node *n = tree_new_node_locked(m->tree, NODE_FILE, dir, name);

	if (!n)
		return NULL;
	node_more(n)->mode = (a->mode & 07777u) | NODE_MODE_SET;
	node_set_owner(n, a->uid, dir->more->mode & S_ISGID ? node_gid(m->tree, dir) : a->gid);
	n->size = 0;
	n->local = names_is_local(m->options->local_names, name);
	node_more(n)->name_ms = clock_mono_ms();
	touch_dir_locked(m, dir);
	crash_point("creat.made");
	return n;
}

/* tree->lock held on entry, released. */
static void reply_create_unlock(struct call *c, struct node *n, bool made)
{
	struct mount *m = c->m;
	struct create *a = c->data;
	struct fuse_entry_param e;
	struct handle *h = handle_new_locked(m, n, a->fi.flags);
	bool failed = !h;

	if (h && !made && (a->fi.flags & O_TRUNC) && file_empty_locked(m, n) < 0)
		failed = true;
	if (h && !failed && file_view_locked(m, n) < 0)
		failed = true;
	if (failed) {
		if (made)
			tree_unlink_locked(m->tree, n);
		if (h)
			handle_free_locked(m, h);
		else
			tree_release_locked(m->tree, n);
		tree_unlock(m->tree);
		call_fail(c, ENOMEM);
		return;
	}
	passthrough_divert_locked(m, n);
	if (n->twinned)
		handle_of_twin_locked(h);
	fill_entry_locked(m, n, &e);
	n->nlookup++;
	tree_unlock(m->tree);
	a->fi.fh = (uintptr_t)h;
	if (fuse_reply_create(c->req, &e, &a->fi) < 0) {
		handle_drop(m, h);
		forget_node(m, e.ino, 1);
	}
	call_done(c);
}

/* The file is made; with write=through, run again until it is on the server. */
static void mknod_run(struct call *c)
{
	struct mount *m = c->m;
	bool through = m->options->write == OPTIONS_WRITE_THROUGH;
	int error = c->error;
	struct node *n;

	c->op = mknod_run;
	tree_lock(m->tree);
	n = tree_find_locked(m->tree, c->off);
	if (!error && (!n || n->gone))
		error = -ENOENT;
	if (!error && through && !n->local && !node_synced_locked(c, n, 1, &error)) {
		tree_unlock(m->tree);
		return;
	}
	if (!error) {
		reply_entry_unlock(c, n);
		return;
	}
	tree_unlock(m->tree);
	/* the kernel takes it for not made, but here it is */
	notifier_entry(m->notifier, c->ino, c->name);
	call_fail(c, error);
}

/*
 * A node without a handle: what mknod makes is there for good. tree->lock held on entry, released.
 */
static void reply_mknod_unlock(struct call *c, struct node *n)
{
	struct mount *m = c->m;
	struct handle *h = handle_new_locked(m, n, O_RDWR);
	int r;

	tree_unlock(m->tree);
	if (!h) {
		call_fail(c, ENOMEM);
		return;
	}
	r = file_commit(m, n);
	if (r < 0) {
		call_fail(c, r);
	} else {
		c->off = n->id;
		mknod_run(c);
	}
	handle_drop(m, h);
}

static bool opens_for_writing(const struct create *a)
{
	return !a->node_only && ((a->fi.flags & O_ACCMODE) != O_RDONLY || (a->fi.flags & O_TRUNC));
}

static void create_run(struct call *c)
{
	struct mount *m = c->m;
	struct create *a = c->data;
	struct node *dir, *n;
	bool made = false;
	int r;

	tree_lock(m->tree);
	dir = need_dir_locked(c, c->ino);
	if (!dir)
		return;
	r = check_name(m, dir, c->name);
	n = r ? NULL : tree_child_locked(m->tree, dir, c->name);
	if (n && (a->node_only || (a->fi.flags & O_EXCL)))
		r = -EEXIST;
	if (!r && !n)
		r = may_create_locked(m, dir, c->name);
	else if (!r && opens_for_writing(a))
		r = may_write_locked(m, n);
	if (!r && !n) {
		n = new_file_locked(m, dir, c->name, a);
		made = true;
		r = n ? 0 : -ENOMEM;
	}
	if (r < 0) {
		tree_unlock(m->tree);
		call_fail(c, r);
	} else if (a->node_only) {
		reply_mknod_unlock(c, n);
	} else {
		reply_create_unlock(c, n, made);
	}
}

static void start_create(fuse_req_t req, fuse_ino_t parent, const char *name,
			 const struct create *args)
{
	struct mount *m = mount_of_request(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct create *a = malloc(sizeof(*a));
	struct call c = {.m = m,
			 .req = req,
			 .op = create_run,
			 .ino = parent,
			 .name = (char *)name,
			 .data = a};

	if (!a || is_virtual(parent) || is_control(parent)) {
		free(a);
		fuse_reply_err(req, a ? EPERM : ENOMEM);
		return;
	}
	*a = *args;
	a->uid = ctx->uid;
	a->gid = ctx->gid;
	call_run(m->calls, &c);
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi)
{
	start_create(req, parent, name, &(struct create){.fi = *fi, .mode = mode});
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)rdev;
	if (!S_ISREG(mode))
		fuse_reply_err(req, EPERM);
	else
		start_create(req, parent, name, &(struct create){.mode = mode, .node_only = true});
}

void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link;
	(void)parent;
	(void)name;
	fuse_reply_err(req, EPERM);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino;
	(void)newparent;
	(void)newname;
	fuse_reply_err(req, EPERM);
}

/* ---- remove ---- */

void remove_node_locked(struct mount *m, struct node *n)
{
	struct tree *t = m->tree;
	struct node *dir = n->parent;

	node_set_changed(n, clock_real_ns());
	touch_dir_locked(m, dir);
	tree_unlink_locked(t, n);
	n->gone = true;
	n->mtime_dirty = false;
	n->error = 0;
	node_more(n)->name_ms = clock_mono_ms();
	if (n->dirty) {
		n->dirty = false;
		if (n->content) {
			struct content *c = content_get(t->store, n->content);

			n->content = 0;
			tree_put_locked(t, n);
			if (c)
				content_drop(c);
			content_unref(c);
		}
	}
	tree_changed_locked(t, n);
	tree_release_locked(t, n);
}

/* @node, @other: of what has changed; 0 = none. */
static void finish_name(struct call *c, int r, uint64_t node, uint64_t other)
{
	crash_point("name.changed");
	if (!r)
		r = ledger_commit(c->m->ledger);
	crash_point("name.committed");
	if (r < 0 || c->m->options->write != OPTIONS_WRITE_THROUGH)
		call_fail(c, r);
	else
		reply_synced(c, node, other);
}

static void unlink_run(struct call *c)
{
	struct mount *m = c->m;
	struct node *dir, *n;
	uint64_t id;
	int r = 0;

	tree_lock(m->tree);
	dir = need_dir_locked(c, c->ino);
	if (!dir)
		return;
	n = tree_child_locked(m->tree, dir, c->name);
	id = n ? n->id : 0;
	if (!n)
		r = !strcmp(c->name, ".by-id") || !strcmp(c->name, ".record.json") ? -EPERM
										   : -ENOENT;
	else if (n->kind != NODE_FILE)
		r = -EISDIR;
	else
		r = may_remove_locked(m, n);
	if (!r)
		remove_node_locked(m, n);
	tree_unlock(m->tree);
	finish_name(c, r, id, 0);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = unlink_run, .ino = parent, .name = (char *)name};

	if (is_virtual(parent) || is_control(parent))
		fuse_reply_err(req, EPERM);
	else
		call_run(m->calls, &c);
}

/* ---- rename ---- */

/* Nobody but us has a name for a record the server does not list. */
static void name_unlisted_locked(struct mount *m, struct node *n)
{
	char server[3 * NAMES_MAX + 1];

	if (n->kind != NODE_RECORD || !tree_is_unlisted(m->tree, n->parent))
		return;
	names_to_server(n->shown, server);
	node_set_known_name(n, server);
}

static void renamed_locked(struct mount *m, struct node *n)
{
	name_unlisted_locked(m, n);
	node_set_changed(n, clock_real_ns());
	node_more(n)->name_ms = clock_mono_ms();
	n->error = 0;
	/* what the server has already stays there, whatever it is called now */
	if (n->kind == NODE_FILE)
		n->local = !node_rid(n) && names_is_local(m->options->local_names, n->shown);
	touch_dir_locked(m, n->parent);
	tree_changed_locked(m->tree, n);
}

static int check_rename_file(struct mount *m, const struct node *n, const struct node *dir,
			     const struct node *target, const char *name)
{
	if (target && target->kind != NODE_FILE)
		return -EISDIR;
	if (node_rid(n) && !m->remote->caps.move_between_collections &&
	    n->parent->parent != dir->parent)
		return -EXDEV;
	return check_name(m, dir, name);
}

/* What was refused can be taken back: the server's own name. */
static bool is_known_as(const struct node *n, const char *shown)
{
	char server[3 * NAMES_MAX + 1];

	names_to_server(shown, server);
	return node_known(n).name && !strcmp(node_known(n).name, server);
}

static int check_rename_record(struct mount *m, struct node *n, const struct node *dir,
			       const struct node *target, const char *name)
{
	bool can = tree_is_unlisted(m->tree, dir) ||
		   (m->remote->caps.rename_records &&
		    (is_known_as(n, name) || may_change_record_locked(m, n) == 0));

	if (n->kind != NODE_RECORD || dir != n->parent || !can)
		return -EPERM;
	if (!strcmp(name, ".by-id"))
		return -EEXIST;
	return target && target != n ? -ENOTEMPTY : 0;
}

static int exchange_locked(struct mount *m, struct node *a, struct node *b)
{
	struct tree *t = m->tree;
	struct node *dir_a = a->parent, *dir_b = b->parent;
	char *name_a = strdup(a->shown), *name_b = strdup(b->shown);
	int r = name_a && name_b ? 0 : -ENOMEM;

	if (!r) {
		tree_unlink_locked(t, b);
		r = tree_move_locked(t, a, dir_b, name_b);
		if (!r)
			r = tree_move_locked(t, b, dir_a, name_a);
	}
	if (!r) {
		ledger_group_begin(m->ledger);
		renamed_locked(m, a);
		renamed_locked(m, b);
		ledger_group_end(m->ledger);
	}
	free(name_a);
	free(name_b);
	return r;
}

static int exchange_checked_locked(struct mount *m, struct node *a, struct node *b)
{
	int r = a->kind == b->kind ? 0 : -EPERM;

	if (!r && b->kind == NODE_FILE)
		r = may_rename_locked(m, b, a->parent, NULL, a->shown);
	return r ? r : exchange_locked(m, a, b);
}

/* What waited for the bytes of @target waits for those of @n now, as does @target itself. */
static void replace_after_locked(struct tree *t, struct node *target, const struct node *n)
{
	node_more(target)->after = n->id;
	if (node_rid(target))
		return; /* then nothing was replaced by it that is not settled */
	for (struct node *g = t->sync_first; g; g = g->more->sync_next)
		if (g->gone && g->more->after == target->id) {
			node_more(g)->after = n->id;
			tree_put_locked(t, g);
		}
}

/*
 * @target goes and @n takes its place. Until the bytes of @n are safe, here against a power failure
 * and then on the server, what there was can come back.
 */
static void replace_node_locked(struct mount *m, struct node *target, const struct node *n)
{
	struct content *c = n->dirty && n->content ? content_get(m->store, n->content) : NULL;

	if (c && target->dirty && target->content)
		content_set_before(c, target->content);
	if (c)
		replace_after_locked(m->tree, target, n);
	content_unref(c);
	remove_node_locked(m, target);
}

static int rename_locked(struct mount *m, struct node *n, struct node *dir, struct node *target,
			 const char *name, unsigned flags)
{
	struct node *old_dir = n->parent;
	int r;

	if ((flags & RENAME_NOREPLACE) && target)
		return -EEXIST;
	if ((flags & RENAME_EXCHANGE) && !target)
		return -ENOENT;
	r = n->kind == NODE_FILE ? check_rename_file(m, n, dir, target, name)
				 : check_rename_record(m, n, dir, target, name);
	if (r < 0 || target == n)
		return r;
	if (n->kind == NODE_FILE)
		r = may_rename_locked(m, n, dir, flags & RENAME_EXCHANGE ? NULL : target, name);
	if (!r && (flags & RENAME_EXCHANGE))
		return exchange_checked_locked(m, n, target);
	if (r < 0)
		return r;
	ledger_group_begin(m->ledger);
	if (target)
		replace_node_locked(m, target, n);
	r = tree_move_locked(m->tree, n, dir, name);
	if (!r) {
		touch_dir_locked(m, old_dir);
		renamed_locked(m, n);
	}
	ledger_group_end(m->ledger);
	return r;
}

struct rename {
	uint64_t dir;
	unsigned flags;
	char name[NAMES_MAX + 1];
};

static void rename_run(struct call *c);

void forget_names(const struct call *c)
{
	const struct rename *a = c->data;

	notifier_entry(c->m->notifier, c->ino, c->name);
	if (a)
		notifier_entry(c->m->notifier, a->dir, a->name);
}

/*
 * Renamed before it was closed the first time: what is written so far is committed first, or the
 * ledger would know of the file it replaces being gone but not of this one. tree->lock held on
 * entry, released.
 */
static void commit_then_rename_unlock(struct call *c, struct node *n)
{
	struct mount *m = c->m;
	struct handle *h = handle_new_locked(m, n, O_RDONLY);
	int r;

	tree_unlock(m->tree);
	r = h ? file_commit(m, n) : -ENOMEM;
	crash_point("name.closed-first");
	if (h)
		handle_drop(m, h);
	c->flags = 1; /* once */
	if (r < 0)
		call_fail(c, r);
	else
		rename_run(c);
}

/* A file takes the place of .record.json, as editors save. */
static bool takes_fields(const struct mount *m, const struct node *n, struct node *to,
			 const struct rename *a)
{
	return n->kind == NODE_FILE && to->kind == NODE_RECORD &&
	       !strcmp(a->name, ".record.json") && !a->flags && json_is_writable_locked(m, to);
}

static void rename_run(struct call *c)
{
	struct mount *m = c->m;
	struct rename *a = c->data;
	struct node *dir, *to, *n, *target;
	uint64_t id, other;
	int r = 0;

	tree_lock(m->tree);
	to = need_dir_locked(c, a->dir);
	if (!to)
		return;
	dir = need_dir_locked(c, c->ino);
	if (!dir)
		return;
	n = tree_child_locked(m->tree, dir, c->name);
	if (n && n->kind == NODE_FILE && !n->in_ledger && !c->flags) {
		commit_then_rename_unlock(c, n);
		return;
	}
	if (n && takes_fields(m, n, to, a)) {
		json_take_file_unlock(c, n, to);
		return;
	}
	target = tree_child_locked(m->tree, to, a->name);
	id = n ? n->id : 0;
	other = target ? target->id : 0;
	if (!n)
		r = !strcmp(c->name, ".by-id") || !strcmp(c->name, ".record.json") ? -EPERM
										   : -ENOENT;
	else
		r = rename_locked(m, n, to, target, a->name, a->flags);
	tree_unlock(m->tree);
	finish_name(c, r, id, other);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	       const char *newname, unsigned int flags)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = rename_run, .ino = parent, .name = (char *)name};
	struct rename *a;

	if (is_virtual(parent) || is_control(parent) || is_virtual(newparent) ||
	    is_control(newparent)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (strlen(newname) > NAMES_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	a = malloc(sizeof(*a));
	if (!a) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	a->dir = newparent;
	a->flags = flags;
	snprintf(a->name, sizeof(a->name), "%s", newname);
	c.data = a;
	call_run(m->calls, &c);
}
