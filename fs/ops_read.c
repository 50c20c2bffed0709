/* SPDX-License-Identifier: MIT */

/* Reading: what is here is answered from the cache's file by a pipe, for the rest the call waits. */

#include "ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <attachfs/log.h>

#include "pipes.h"
#include "prefetch.h"
#include "reader.h"

/* How much of a read is local, and whether it lies in one piece. */
struct reach {
	struct content_extent first;
	size_t n;
	uint64_t len;
};

/*
 * Where [off, off+len) is. 0: all of it, or up to the end of file, is local. -EAGAIN: *@ret_missing
 * is not, or must be checked first.
 */
static int map_reach(struct content *view, uint64_t off, uint64_t len, struct reach *s,
		     struct content_extent *ret_missing)
{
	s->n = 0;
	s->len = 0;
	while (s->len < len) {
		struct content_extent e;
		int r = content_map(view, off + s->len, len - s->len, &e);

		if (r < 0)
			return r;
		if (e.where == CONTENT_END)
			return 0;
		if (e.where == CONTENT_MISSING || e.where == CONTENT_DOUBTED) {
			*ret_missing = e;
			return -EAGAIN;
		}
		if (!s->n++)
			s->first = e;
		s->len += e.len;
	}
	return 0;
}

/*
 * The same with what is doubted checked: *@ret_missing is to be fetched. Reads and hashes: no lock held.
 */
static int map_checked(struct mount *m, const struct node *n, struct content *view, uint64_t off,
		       uint64_t len, struct reach *s, struct content_extent *ret_missing)
{
	char *name = NULL;
	int r;

	while ((r = map_reach(view, off, len, s, ret_missing)) == -EAGAIN &&
	       ret_missing->where == CONTENT_DOUBTED) {
		if (!name) {
			tree_lock(m->tree);
			name = strdup(n->shown);
			tree_unlock(m->tree);
		}
		r = content_check(view, off, len, name);
		if (r < 0)
			break;
	}
	free(name);
	return r;
}

bool is_missing(struct mount *m, const struct node *n, struct content *view, uint64_t off,
		uint64_t len, struct content_extent *ret_missing)
{
	struct reach s;

	return map_checked(m, n, view, off, len, &s, ret_missing) == -EAGAIN;
}

/* *@ret_read: how much of it could be. */
static int read_all(int fd, char *to, uint64_t len, uint64_t off, uint64_t *ret_read)
{
	const uint64_t whole = len;

	*ret_read = 0;
	while (len) {
		ssize_t n = pread(fd, to, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		to += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
		*ret_read = whole - len;
	}
	return 0;
}

/* From a content's file. -EAGAIN: the disk has lost some of it, which is to be fetched anew. */
static int read_extent(const struct content_extent *e, char *to)
{
	uint64_t read;
	int r = read_all(e->fd, to, e->len, e->fd_off, &read);

	if (r < 0)
		r = content_unreadable(e->owner, e->owner_off + read, r);
	return r > 0 ? -EAGAIN : r;
}

int gather_content(struct content *view, uint64_t off, char *to, uint64_t len)
{
	while (len) {
		struct content_extent e;
		int r = content_map(view, off, len, &e);

		if (r < 0 || e.where == CONTENT_END)
			return r < 0 ? r : -EIO;
		if (e.where == CONTENT_ZERO)
			memset(to, 0, e.len);
		else if (e.where == CONTENT_FILE)
			r = read_extent(&e, to);
		else if (e.where != CONTENT_MEMORY ||
			 content_copy_passing(e.owner, e.owner_off, to, e.len) < e.len)
			r = -EAGAIN;
		if (r < 0)
			return r;
		to += e.len;
		off += e.len;
		len -= e.len;
	}
	return 0;
}

/*
 * A disk that loses again what was just fetched is not asked for ever. (A request is of at most 1 MiB,
 * so it may meet some bad blocks, one after the other.)
 */
#define LOST_MAX 8

/* False: some of it has gone meanwhile, the call is not answered. */
static bool reply_gathered(struct call *c, struct content *view, uint64_t len)
{
	char *buffer = malloc(len ? len : 1);
	int r = buffer ? gather_content(view, c->off, buffer, len) : -ENOMEM;

	if (r == -EAGAIN && ++c->step > LOST_MAX)
		r = -EIO;
	if (r == -EAGAIN) {
		;
	} else if (r < 0) {
		call_fail(c,
			  log_errno(r, "cache: cannot read node %llu", (unsigned long long)c->ino));
	} else {
		fuse_reply_buf(c->req, buffer, len);
		call_done(c);
	}
	free(buffer);
	return r != -EAGAIN;
}

/* A copy of less costs no more than the calls that save it. */
#define SPLICE_MIN_BYTES 16384

static bool reply_reach(struct call *c, struct content *view, const struct reach *s)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(s->len);
	struct pipes_pipe pipe;

	if (s->n != 1 || s->first.where != CONTENT_FILE || s->len < SPLICE_MIN_BYTES ||
	    !c->m->splices ||
	    pipes_fill(c->m->pipes, s->first.fd, s->first.fd_off, s->len, &pipe) < 0)
		return reply_gathered(c, view, s->len);
	buf.buf[0].flags = FUSE_BUF_IS_FD;
	buf.buf[0].fd = pipe.from;
	fuse_reply_data(c->req, &buf, 0);
	pipes_put(c->m->pipes, pipe);
	call_done(c);
	return true;
}

bool park_missing(struct call *c, struct node *n, const struct content_extent *missing,
		  int *ret_error)
{
	struct mount *m = c->m;
	struct content *clean = missing->owner;

	tree_lock(m->tree);
	*ret_error = file_feed_locked(m, n, clean);
	tree_unlock(m->tree);
	if (*ret_error)
		return false;
	return reader_park(m->reader, c, clean, missing->owner_off,
			   missing->owner_off + missing->len, ret_error);
}

/*
 * The kernel asks again at once for a readahead that failed: it must not wait for a whole deadline
 * once more.
 */
static void reader_timed_out(struct call *c, struct node *n)
{
	struct mount *m = c->m;
	struct content *feed;

	tree_lock(m->tree);
	feed = n->more->feed ? content_ref(n->more->feed) : NULL;
	tree_unlock(m->tree);
	if (feed)
		reader_failed(m->reader, feed, -ETIMEDOUT,
			      c->want_off - c->want_off % CONTENT_BLOCK_BYTES,
			      c->want_end + (1u << 20));
	content_unref(feed);
}

static void read_run(struct call *c)
{
	struct mount *m = c->m;
	struct handle *h = handle_of(c->fh);
	struct node *node = h->node; /* once answered, the handle may be closed */
	struct content_extent missing = {.where = CONTENT_END};
	struct prefetch_batch *ahead = NULL;
	struct content *view, *feed;
	struct reach s = {.n = 0};
	int r = c->error == -EAGAIN ? 0 : c->error;

	if (r == -ETIMEDOUT)
		reader_timed_out(c, node);

	tree_lock(m->tree);
	if (!r && handle_is_stale_locked(h))
		r = -ESTALE;
	if (!r)
		node_more(node)->cached_version = h->version;
	view = !r && node->more->view ? content_ref(node->more->view) : NULL;
	feed = view && node->more->feed ? content_ref(node->more->feed) : NULL;
	if (view)
		ahead = prefetch_read_locked(m->prefetch, c, h);
	tree_unlock(m->tree);
	if (!r && !view)
		reply_reach(c, NULL, &s);
	while (!r && view) {
		r = map_checked(m, node, view, c->off, c->len, &s, &missing);
		if (feed && !r && s.len)
			reader_follow(m->reader, feed, c->off, c->off + s.len);
		if ((!r && reply_reach(c, view, &s)) ||
		    (r == -EAGAIN && park_missing(c, node, &missing, &r)))
			break;
	}
	if (r < 0)
		call_fail(c, r);
	prefetch_send(m, ahead);
	content_unref(feed);
	content_unref(view);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m,
			 .req = req,
			 .op = read_run,
			 .ino = ino,
			 .fh = fi->fh,
			 .off = (uint64_t)off,
			 .len = size};

	if (is_control(ino))
		c.op = control_read;
	else if (is_virtual(ino))
		c.op = json_read;
	call_run(m->calls, &c);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct content *view;
	int64_t at = -ENXIO;

	if (is_control(ino) || is_virtual(ino)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	tree_lock(m->tree);
	view = handle_of(fi->fh)->passed;
	if (!view)
		view = handle_of(fi->fh)->node->more->view;
	if (handle_is_stale_locked(handle_of(fi->fh)) && !handle_of(fi->fh)->passed) {
		view = NULL;
		at = -ESTALE;
	} else if (view) {
		content_ref(view);
	}
	tree_unlock(m->tree);
	if (view)
		at = off < 0 ? -ENXIO : content_seek(view, (uint64_t)off, whence);
	content_unref(view);
	if (at < 0)
		fuse_reply_err(req, (int)-at);
	else
		fuse_reply_lseek(req, at);
}
