/* SPDX-License-Identifier: MIT */

/*
 * Directories. A handle is a snapshot of node ids taken when reading starts (offset 0), so offsets
 * stay good while entries come and go: a node that left meanwhile is passed over, one that came is
 * seen by the next reader, or after rewinddir().
 *
 * While a directory is listed for the first time the snapshot grows with each page: what has come is
 * handed out, and who has read that waits for more. When all is there, what is not in the snapshot yet
 * completes it.
 *
 * Offset 0 is the start, 1 follows ".", 2 follows "..", 2 + n follows the n-th node. A directory's
 * .by-id is read in the same way, but names its nodes by their remote ids.
 */

#include "ops.h"

#include <stdlib.h>
#include <string.h>

#include <attachfs/ledger.h>
#include <attachfs/log.h>

#include "lister.h"

struct dir_handle {
	struct opened opened;
	pthread_mutex_t lock; /* programs may share a directory handle */
	uint64_t *ids;
	size_t n, size;
	uint64_t last; /* the last child that was looked at for it */
	bool whole;    /* the snapshot is complete */
};

static struct dir_handle *dir_of(uint64_t fh)
{
	return (struct dir_handle *)(uintptr_t)fh;
}

static void dir_left(struct mount *m, struct opened *o)
{
	struct dir_handle *d = (struct dir_handle *)o;

	mount_opened_remove(m, o);
	pthread_mutex_destroy(&d->lock);
	free(d->ids);
	free(d);
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct dir_handle *d = calloc(1, sizeof(*d));

	if (!d) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_init(&d->lock, NULL);
	if (!is_control(ino))
		mount_used(m);
	fi->fh = (uintptr_t)d;
	fi->cache_readdir = 0;
	mount_opened_add(m, &d->opened, dir_left);
	if (fuse_reply_open(req, fi) < 0)
		dir_left(m, &d->opened);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_left(mount_of_request(req), &dir_of(fi->fh)->opened);
	fuse_reply_err(req, 0);
}

/* Something in @dir, or that was there, which the server is to know of. tree->lock held. */
static struct node *find_pending_locked(const struct tree *t, uint64_t dir)
{
	struct node *n = t->sync_first;

	while (n && (n->local || node_being_written(n) ||
		     (n->parent ? n->parent->id : node_known(n).record) != dir ||
		     (n->gone ? !node_rid(n) && !n->busy && !n->unknown : !node_differs(t, n))))
		n = n->more->sync_next;
	return n;
}

/* fsync=remote: run again until nothing in the directory is pending. */
static void dir_synced_run(struct call *c)
{
	struct mount *m = c->m;
	int error = c->error;
	struct node *n;

	tree_lock(m->tree);
	while (!error && (n = find_pending_locked(m->tree, c->ino))) {
		/* another one than the last time is begun anew */
		c->step = c->off == n->id;
		c->off = n->id;
		if (!node_synced_locked(c, n, 1, &error)) {
			tree_unlock(m->tree);
			return;
		}
	}
	tree_unlock(m->tree);
	call_fail(c, error);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = dir_synced_run, .ino = ino};
	int r = ledger_sync(m->ledger);

	(void)datasync;
	(void)fi;
	if (r < 0 || m->options->fsync != OPTIONS_FSYNC_REMOTE)
		fuse_reply_err(req, -r);
	else
		call_run(m->calls, &c);
}

static int append(struct dir_handle *d, uint64_t id)
{
	size_t size = d->size ? d->size * 2 : 64;
	uint64_t *ids;

	if (d->n == d->size) {
		ids = realloc(d->ids, size * sizeof(*ids));
		if (!ids)
			return -ENOMEM;
		d->ids = ids;
		d->size = size;
	}
	d->ids[d->n++] = id;
	return 0;
}

/* The children that came behind the last one seen, as far as the listing @mark has named them. */
static int take_some(struct tree *t, struct dir_handle *d, const struct node *dir, uint64_t mark)
{
	const struct node *last = d->last ? tree_find_locked(t, d->last) : NULL;
	int r = 0;

	if (d->last && (!last || last->parent != dir))
		return 0; /* nobody knows where that was: the rest comes when all is there */
	for (const struct node *n = last ? last->sibling_next : node_dir(dir)->child_first; n && !r;
	     n = n->sibling_next) {
		d->last = n->id;
		if (!node_rid(n) || n->seen_seq >= mark)
			r = append(d, n->id);
	}
	return r;
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The children that are not in it yet. */
static int take_all(struct dir_handle *d, const struct node *dir)
{
	size_t had = d->n;
	uint64_t *sorted = had ? malloc(had * sizeof(*sorted)) : NULL;
	int r = had && !sorted ? -ENOMEM : 0;

	if (sorted) {
		memcpy(sorted, d->ids, had * sizeof(*sorted));
		qsort(sorted, had, sizeof(*sorted), compare_ids);
	}
	for (const struct node *n = node_dir(dir)->child_first; n && !r; n = n->sibling_next)
		if (!had || !bsearch(&n->id, sorted, had, sizeof(*sorted), compare_ids))
			r = append(d, n->id);
	free(sorted);
	d->whole = !r;
	return r;
}

/* @mark: of the listing that has not shown all yet, or 0. tree->lock and the handle's held. */
static int snapshot(struct tree *t, struct dir_handle *d, const struct node *dir, uint64_t off,
		    uint64_t mark)
{
	if (off == 0) {
		d->n = 0;
		d->last = 0;
		d->whole = false;
	}
	if (d->whole)
		return 0;
	return mark ? take_some(t, d, dir, mark) : take_all(d, dir);
}

struct fill {
	struct mount *m;
	fuse_req_t req;
	char *buffer;
	size_t size, used;
	bool plus;
	bool by_id;	   /* its .by-id */
	uint64_t *counted; /* nodes whose kernel references were counted */
	size_t n_counted;
};

/* tree->lock held. False: the buffer is full. */
static bool add_dots(struct fill *f, const struct node *dir, const char *name, off_t next)
{
	struct fuse_entry_param e = {0};
	size_t size;

	e.attr.st_ino = f->by_id ? VIRTUAL_BY_ID | dir->id : dir->id;
	if (!strcmp(name, ".."))
		e.attr.st_ino = f->by_id ? dir->id : tree_above(f->m->tree, dir);
	e.attr.st_mode = S_IFDIR;
	size = f->plus ? fuse_add_direntry_plus(f->req, f->buffer + f->used, f->size - f->used,
						name, &e, next)
		       : fuse_add_direntry(f->req, f->buffer + f->used, f->size - f->used, name,
					   &e.attr, next);
	if (size > f->size - f->used)
		return false;
	f->used += size;
	return true;
}

/* tree->lock held. False: the buffer is full. An entry that did not fit is not counted. */
static bool add_node(struct fill *f, struct node *n, off_t next)
{
	struct fuse_entry_param e;
	const char *shown = n->shown;
	size_t size;

	n = tree_seen(f->m->tree, n);
	fill_entry_locked(f->m, n, &e);
	if (!f->plus) {
		size = fuse_add_direntry(f->req, f->buffer + f->used, f->size - f->used, shown,
					 &e.attr, next);
	} else {
		/*
		 * without a size there is nothing to remember: a plain listing must not cost a call
		 * per file (P-4)
		 */
		if (node_size_locked(n) < 0)
			e.ino = 0;
		size = fuse_add_direntry_plus(f->req, f->buffer + f->used, f->size - f->used, shown,
					      &e, next);
	}
	if (size > f->size - f->used)
		return false;
	f->used += size;
	if (f->plus && e.ino) {
		n->nlookup++;
		f->counted[f->n_counted++] = n->id;
	}
	return true;
}

/*
 * tree->lock held. The same for its link in .by-id, which the kernel looks up when somebody wants
 * it.
 */
static bool add_link(struct fill *f, const struct node *n, off_t next)
{
	struct fuse_entry_param e = {.attr = {.st_ino = VIRTUAL_LINK | n->id, .st_mode = S_IFLNK}};
	size_t size;

	if (!node_rid(n))
		return true;
	size = f->plus ? fuse_add_direntry_plus(f->req, f->buffer + f->used, f->size - f->used,
						node_rid(n), &e, next)
		       : fuse_add_direntry(f->req, f->buffer + f->used, f->size - f->used,
					   node_rid(n), &e.attr, next);
	if (size > f->size - f->used)
		return false;
	f->used += size;
	return true;
}

static void fill_locked(struct fill *f, struct dir_handle *d, const struct node *dir, uint64_t off)
{
	if (off == 0 && !add_dots(f, dir, ".", 1))
		return;
	if (off <= 1 && !add_dots(f, dir, "..", 2))
		return;
	for (size_t i = off > 2 ? off - 2 : 0; i < d->n; i++) {
		struct node *n = tree_find_locked(f->m->tree, d->ids[i]);

		if (!n || n->parent != dir)
			continue;
		if (f->by_id ? !add_link(f, n, (off_t)i + 3) : !add_node(f, n, (off_t)i + 3))
			return;
	}
}

/* False: @c was parked, tree->lock released. */
static bool need_all_seen(struct call *c, const struct node *dir)
{
	for (struct node *n = node_dir(dir)->child_first; n && dir->kind == NODE_ROOT;
	     n = n->sibling_next) {
		if (need_seen_locked(c, n))
			continue;
		tree_unlock(c->m->tree);
		lister_kick(c->m->lister);
		return false;
	}
	return true;
}

static int read_tree_dir(struct call *c, struct fill *f)
{
	struct dir_handle *d = dir_of(c->fh);
	uint64_t mark;
	struct node *dir = need_some_locked(c, c->ino & ~VIRTUAL_MASK, &mark);
	int r;

	if (!dir || !need_all_seen(c, dir))
		return -EINPROGRESS;
	pthread_mutex_lock(&d->lock);
	r = snapshot(f->m->tree, d, dir, c->off, mark);
	if (!r)
		fill_locked(f, d, dir, c->off);
	if (!r && !f->used && !d->whole) {
		lister_await_more_locked(f->m->lister, c, dir);
		r = -EINPROGRESS;
	}
	pthread_mutex_unlock(&d->lock);
	tree_unlock(f->m->tree);
	return r;
}

static void readdir_run(struct call *c)
{
	struct mount *m = c->m;
	struct fill f = {.m = m,
			 .req = c->req,
			 .size = c->len,
			 .plus = c->flags != 0,
			 .by_id = is_virtual(c->ino)};
	int r;

	f.buffer = malloc(c->len);
	f.counted = malloc((c->len / 32 + 1) * sizeof(*f.counted));
	if (!f.buffer || !f.counted) {
		call_fail(c, ENOMEM);
	} else {
		tree_lock(m->tree);
		r = read_tree_dir(c, &f);
		if (r == -EINPROGRESS) {
			; /* parked, or answered */
		} else if (r < 0) {
			call_fail(c, r);
		} else {
			if (fuse_reply_buf(c->req, f.buffer, f.used) < 0)
				for (size_t i = 0; i < f.n_counted; i++)
					forget_node(m, f.counted[i], 1);
			call_done(c);
		}
	}
	free(f.buffer);
	free(f.counted);
}

static void read_control_dir(fuse_req_t req, size_t size, off_t off, int plus)
{
	char *buffer = malloc(size);
	size_t used = 0;
	uint64_t ino;

	if (!buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (size_t i = (size_t)off;; i++) {
		const char *name = i == 0 ? "." : i == 1 ? ".." : control_entry(i - 2, &ino);
		struct fuse_entry_param e = {.attr = {.st_ino = i < 2 ? NODE_ID_ROOT : ino,
						      .st_mode = i < 2 ? S_IFDIR : S_IFREG}};
		size_t entry;

		if (!name)
			break;
		entry = plus ? fuse_add_direntry_plus(req, buffer + used, size - used, name, &e,
						      (off_t)i + 1)
			     : fuse_add_direntry(req, buffer + used, size - used, name, &e.attr,
						 (off_t)i + 1);
		if (entry > size - used)
			break;
		used += entry;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		     struct fuse_file_info *fi, int plus)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m,
			 .req = req,
			 .op = readdir_run,
			 .ino = ino,
			 .fh = fi->fh,
			 .off = (uint64_t)off,
			 .len = size,
			 .flags = plus};

	if (is_control(ino))
		read_control_dir(req, size, off, plus);
	else
		call_run(m->calls, &c);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_dir(req, ino, size, off, fi, 0);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	read_dir(req, ino, size, off, fi, 1);
}
