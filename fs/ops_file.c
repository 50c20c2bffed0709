/* SPDX-License-Identifier: MIT */

/* Bytes: open, write, flush, fsync, and what belongs to them. Reading is in ops_read.c. */

#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/falloc.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "indexer.h"
#include "lister.h"
#include "passthrough.h"
#include "pipes.h"
#include "prefetch.h"
#include "reader.h"
#include "sync.h"
#include "window.h"

#define BASE_PATIENCE_MS 5000 /* of a close, for the rest of what it changed a part of */

/* ---- handles ---- */

/*
 * Only a writer's close commits: a reader's must not make half of somebody else's write the wanted
 * content.
 */
static bool may_write(const struct handle *h)
{
	return (h->flags & O_ACCMODE) != O_RDONLY || (h->flags & O_TRUNC);
}

static void set_flushed(struct mount *m, struct handle *h, bool flushed)
{
	tree_lock(m->tree);
	h->flushed = flushed;
	tree_unlock(m->tree);
}

/*
 * What is left of a handle when nobody has it any more: a mapping may have been written after the
 * close, or the program was killed and its close never came. Otherwise there is nothing to commit
 * but what the next writer is in the middle of, for the kernel tells us of this at its leisure.
 */
static void commit_last(struct mount *m, struct handle *h)
{
	bool flushed;

	tree_lock(m->tree);
	flushed = h->flushed;
	tree_unlock(m->tree);
	if (may_write(h) && !flushed)
		file_commit(m, h->node);
}

static void handle_left(struct mount *m, struct opened *o)
{
	struct handle *h = (struct handle *)o;

	/*
	 * unmounted in the ordinary way nobody had it open any more; else somebody was in the
	 * middle of it
	 */
	if (!atomic_load(&m->forced))
		commit_last(m, h);
	passthrough_release(m, h);
	handle_drop(m, h);
}

struct handle *handle_new_locked(struct mount *m, struct node *n, int flags)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	mount_opened_add_locked(m, &h->opened, handle_left);
	h->node = n;
	h->version = n->more->version;
	h->flags = flags;
	node_more(n)->n_open++;
	return h;
}

void handle_of_twin_locked(struct handle *h)
{
	h->twin = true;
	node_more(h->node)->n_open_twin++;
}

bool handle_is_stale_locked(const struct handle *h)
{
	return h->version != h->node->more->version;
}

void handle_free_locked(struct mount *m, struct handle *h)
{
	struct node_more *more = node_more(h->node);

	mount_opened_remove_locked(m, &h->opened);
	more->n_open--;
	more->n_open_twin -= h->twin;
	if (handle_is_stale_locked(h)) {
		more->n_stale -= more->n_stale > 0;
		more->n_stale_twin -= h->twin;
	}
	file_close_locked(m, h->node);
	free(h);
}

void handle_drop(struct mount *m, struct handle *h)
{
	tree_lock(m->tree);
	handle_free_locked(m, h);
	tree_unlock(m->tree);
}

static void open_run(struct call *c)
{
	struct mount *m = c->m;
	struct fuse_file_info *fi = c->data;
	bool writes = (c->flags & O_ACCMODE) != O_RDONLY || (c->flags & O_TRUNC);
	struct handle *h = NULL;
	struct node *n;
	int error = 0;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, c->ino);
	if (!n || n->kind != NODE_FILE)
		error = n ? -EISDIR : -ENOENT;
	else if (n->left_name)
		error = -ESTALE; /* the kernel looks the name up again */
	if (!error && writes)
		error = may_write_locked(m, n);
	if (!error && n->more->n_untold) {
		error = c->error;
		if (!error) {
			call_park(c, CALL_WAIT_TOLD, n->id);
			tree_unlock(m->tree);
			return;
		}
	}
	if (!error)
		error = passthrough_admit_locked(m, n, c->ino, c->flags);
	/* a write needs to know where the old bytes end */
	if (!error && writes && !(c->flags & O_TRUNC) &&
	    !lister_size_locked(m->lister, c, n, &error)) {
		tree_unlock(m->tree);
		lister_kick(m->lister);
		return;
	}
	if (!error) {
		h = handle_new_locked(m, n, c->flags);
		if (h && (c->ino & NODE_TWIN))
			handle_of_twin_locked(h);
		error = h ? (c->flags & O_TRUNC) && writes ? file_empty_locked(m, n)
							   : file_view_locked(m, n)
			  : -ENOMEM;
	}
	if (!error) {
		fi->fh = (uintptr_t)h;
		fi->keep_cache = n->more->cached_version == n->more->version;
		fi->direct_io = n->more->n_stale_twin && h->twin && !may_write(h);
		fi->noflush = !may_write(h); /* its close has nothing to wait for */
		if (c->flags & O_TRUNC)
			node_set_modified(n, clock_real_ns());
	} else if (h) {
		handle_free_locked(m, h);
	}
	tree_unlock(m->tree);
	if (error) {
		call_fail(c, error);
		return;
	}
	passthrough_open(m, h, c->ino, fi);
	if (fuse_reply_open(c->req, fi) < 0) {
		passthrough_release(m, h);
		handle_drop(m, h);
	}
	call_done(c);
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = open_run, .ino = ino, .flags = fi->flags};

	if (is_control(ino)) {
		control_open(req, m, ino, fi);
		return;
	}
	mount_used(m);
	if (is_virtual(ino)) {
		json_open(req, m, ino, fi);
		return;
	}
	if ((fi->flags & O_ACCMODE) == O_RDONLY &&
	    indexer_would_download(m, ino, fuse_req_ctx(req)->pid)) {
		fuse_reply_err(req, EACCES);
		return;
	}
	c.data = malloc(sizeof(*fi));
	if (!c.data) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	memcpy(c.data, fi, sizeof(*fi));
	call_run(m->calls, &c);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct handle *h = handle_of(fi->fh);

	if (is_control(ino)) {
		control_release(m, fi->fh);
	} else if (is_virtual(ino)) {
		json_release(m, fi->fh);
	} else {
		commit_last(m, h);
		passthrough_release(m, h);
		handle_drop(m, h);
	}
	fuse_reply_err(req, 0);
}

/* ---- write ---- */

/*
 * What is written must reach the disk before a close or an fsync is worth its name, and is uploaded
 * from there. A large file begins to go there while the rest of it is still coming: left to the
 * kernel, nothing goes before seconds have passed or much of the memory is full. One request at a
 * time, on a pool thread, since a slow disk makes it wait; it takes along all that came meanwhile.
 */
#define WRITE_BEHIND_BYTES (UINT64_C(8) << 20)

struct write_behind {
	struct mount *m;
	struct content *c;
	int fd; /* lent by c while it is referenced */
};

static void write_behind_job(void *ctx)
{
	struct write_behind *w = ctx;

	if (sync_file_range(w->fd, 0, 0, SYNC_FILE_RANGE_WRITE) < 0)
		log_debug("cache: sync_file_range: %s", strerror(errno));
	atomic_store(&w->m->writing_behind, false);
	content_unref(w->c);
	free(w);
}

static void write_behind(struct mount *m, struct content *c, int fd, uint64_t off, uint64_t len)
{
	struct write_behind *w;

	if (off / WRITE_BEHIND_BYTES == (off + len) / WRITE_BEHIND_BYTES ||
	    atomic_exchange(&m->writing_behind, true))
		return;
	w = malloc(sizeof(*w));
	if (w) {
		*w = (struct write_behind){.m = m, .c = content_ref(c), .fd = fd};
		if (!w->c || pool_run(m->disk_pool, write_behind_job, w) < 0) {
			content_unref(w->c);
			free(w);
			w = NULL;
		}
	}
	if (!w)
		atomic_store(&m->writing_behind, false);
}

static ssize_t write_content(struct mount *m, struct content *c, struct fuse_bufvec *in, off_t off,
			     size_t size)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(size);
	ssize_t n;
	int fd, r = content_write_begin(c, (uint64_t)off, size, &fd);

	if (r < 0)
		return r;
	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY;
	out.buf[0].fd = fd;
	out.buf[0].pos = off;
	n = fuse_buf_copy(&out, in, 0);
	if (n > 0)
		write_behind(m, c, fd, (uint64_t)off, (uint64_t)n);
	content_write_end(c, (uint64_t)off, n > 0 ? (uint64_t)n : 0);
	return n;
}

/* The free space of the mount says nothing of the disk that is full. Equal lines are folded. */
static void tell_no_room(struct mount *m, uint64_t ino)
{
	struct content_usage u;

	content_store_usage(m->store, &u);
	log_warning("cache: no room for what is written to node %llu: the disk of the cache or "
		    "cache_size= is full: used=%llu limit=%llu unsent=%llu",
		    (unsigned long long)ino, (unsigned long long)u.bytes,
		    (unsigned long long)u.limit_bytes, (unsigned long long)u.dirty_bytes);
}

void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
		  struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct node *n;
	struct content *c;
	size_t size = fuse_buf_size(in);
	ssize_t done;

	if (is_control(ino)) {
		control_write(req, m, in, fi);
		return;
	}
	if (is_virtual(ino)) {
		json_write(req, m, ino, in, off, fi);
		return;
	}
	n = handle_of(fi->fh)->node;
	do {
		tree_lock(m->tree);
		handle_of(fi->fh)->flushed = false;
		done = handle_is_stale_locked(handle_of(fi->fh)) ? -ESTALE
								 : file_writable_locked(m, n, &c);
		tree_unlock(m->tree);
		if (done < 0)
			break;
		done = write_content(m, c, in, off, size);
		content_unref(c);
	} while (done ==
		 -EALREADY); /* sealed by another handle's close in between: a new one over it */
	if (done < 0) {
		if (done == -ENOSPC || done == -EDQUOT)
			tell_no_room(m, ino);
		fuse_reply_err(req, (int)-done);
		return;
	}
	tree_lock(m->tree);
	node_set_modified(n, clock_real_ns());
	tree_unlock(m->tree);
	fuse_reply_write(req, (size_t)done);
}

/* ---- flush and fsync ---- */

static int told_error(struct mount *m, struct handle *h)
{
	int error = 0;

	tree_lock(m->tree);
	if (h->node->error && !h->error_told) {
		error = h->node->error;
		h->error_told = true;
	}
	tree_unlock(m->tree);
	return error;
}

static void synced_begin(struct call *c)
{
	reply_synced(c, handle_of(c->fh)->node->id, 0);
}

/*
 * A file that was deleted meanwhile is nobody's any more. @closing: an empty one is not waited for, it
 * goes when it has settled. A shell opens a file, makes a copy of the descriptor and closes the first
 * before anything is written: that must not show the world an empty file.
 */
static bool is_waited_for(struct mount *m, const struct handle *h, bool closing)
{
	const struct node *n = h->node;
	bool over;

	tree_lock(m->tree);
	over = n->gone || (closing && n->dirty && n->size == 0);
	tree_unlock(m->tree);
	return !over;
}

/*
 * What was partly overwritten, as far as it is small and not here yet: by the time it is uploaded
 * somebody else may have replaced it, and the rest would be nowhere. *@ret_missing is a part of it.
 */
static bool lacks_base(struct mount *m, const struct handle *h, struct content_extent *ret_missing)
{
	struct content *view = NULL;
	bool lacks = false;
	int64_t size;

	tree_lock(m->tree);
	if (!h->node->gone && h->node->more->view && node_being_written(h->node))
		view = content_ref(h->node->more->view);
	tree_unlock(m->tree);
	if (!view)
		return false;
	size = content_size(view);
	if (size > 0 && (uint64_t)size <= WINDOW_WHOLE_BYTES)
		lacks = is_missing(m, h->node, view, 0, (uint64_t)size, ret_missing);
	content_unref(view);
	return lacks;
}

/* Run again until what it was written over is here; then commit. */
static void flush_run(struct call *c)
{
	struct mount *m = c->m;
	struct handle *h = handle_of(c->fh);
	struct content_extent missing = {.where = CONTENT_END};
	int64_t patience_ms = clock_mono_ms() + BASE_PATIENCE_MS;
	int r = c->error == -EAGAIN ? 0 : c->error;

	if (!c->step++ && c->deadline_ms > patience_ms)
		c->deadline_ms = patience_ms;
	if (!r && lacks_base(m, h, &missing)) {
		if (engine_get_state(m->engine, NULL) == ENGINE_ONLINE &&
		    park_missing(c, h->node, &missing, &r))
			return;
	}
	if (r == -ESTALE || r == -ENOENT) {
		file_abandon(m, h->node);
		call_fail(c, -ESTALE);
		return;
	}
	/* without a network what was written is kept all the same, and the rest asked for later */
	set_flushed(m, h, true);
	r = file_commit(m, h->node);
	if (r < 0)
		set_flushed(m, h, false);
	c->deadline_ms = clock_mono_ms() + (int64_t)(m->options->timeout_s * 1000);
	if (r < 0 || m->options->write != OPTIONS_WRITE_THROUGH || !is_waited_for(m, h, true)) {
		call_fail(c, r);
		return;
	}
	c->error = c->step = 0;
	synced_begin(c);
}

void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = flush_run, .ino = ino, .fh = fi->fh};

	if (is_virtual(ino)) {
		json_flush(req, m, ino, fi);
		return;
	}
	if (is_control(ino)) {
		fuse_reply_err(req, 0);
		return;
	}
	if (!may_write(handle_of(fi->fh))) {
		fuse_reply_err(req, 0);
		return;
	}
	call_run(m->calls, &c);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = synced_begin, .fh = fi->fh};
	int r;

	(void)datasync;
	if (is_virtual(ino)) {
		json_flush(req, m, ino, fi);
		return;
	}
	if (is_control(ino)) {
		fuse_reply_err(req, 0);
		return;
	}
	r = may_write(handle_of(fi->fh)) ? file_commit(m, handle_of(fi->fh)->node) : 0;
	if (!r)
		r = ledger_sync(m->ledger);
	if (!r)
		r = told_error(m, handle_of(fi->fh));
	if (r < 0 || m->options->fsync != OPTIONS_FSYNC_REMOTE ||
	    !is_waited_for(m, handle_of(fi->fh), false))
		fuse_reply_err(req, -r);
	else
		call_run(m->calls, &c);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct node *n;
	struct content *c;
	int r;

	if (is_control(ino) || is_virtual(ino) || (mode & ~FALLOC_FL_KEEP_SIZE)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	n = handle_of(fi->fh)->node;
	tree_lock(m->tree);
	handle_of(fi->fh)->flushed = false;
	r = handle_is_stale_locked(handle_of(fi->fh)) ? -ESTALE : file_writable_locked(m, n, &c);
	tree_unlock(m->tree);
	if (!r) {
		r = content_allocate(c, (uint64_t)off, (uint64_t)len, mode & FALLOC_FL_KEEP_SIZE);
		content_unref(c);
	}
	if (!r) {
		tree_lock(m->tree);
		node_set_modified(n, clock_real_ns());
		tree_unlock(m->tree);
	}
	fuse_reply_err(req, -r);
}
