/* SPDX-License-Identifier: MIT */

/* What a stream goes through, from being sent to its done(): see reader_private.h. */

#include "reader_private.h"

#include <errno.h>
#include <stdlib.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "lister.h"
#include "mount.h"

/* ---- wishes ---- */

void stream_drop_locked(struct reader *r, struct stream *s)
{
	if (s->cancelled)
		return;
	s->cancelled = true;
	if (!s->sending)
		r->m->remote->ops->fetch_cancel(r->m->remote, s->fetch_id);
}

static void pause_locked(struct reader *r, struct stream *s)
{
	s->paused = s->feed->was_paused = true;
	if (!s->sending)
		r->m->remote->ops->fetch_pause(r->m->remote, s->fetch_id);
}

void stream_resume_locked(struct reader *r, struct stream *s)
{
	if (!s->paused || s->cancelled)
		return;
	s->paused = false;
	if (!s->sending)
		r->m->remote->ops->fetch_resume(r->m->remote, s->fetch_id);
}

void stream_set_class_locked(struct reader *r, struct stream *s, enum transfer_class class)
{
	if (s->class == class)
		return;
	s->class = class;
	if (!s->sending && !s->cancelled)
		r->m->remote->ops->fetch_set_class(r->m->remote, s->fetch_id, class);
}

/* ---- what the remote calls back ---- */

/*
 * The server sends everything from the start. That is worth taking once: reads wherever they are
 * wait for it, and it runs ahead of them as any stream does. False: another does so already.
 */
static bool go_whole_locked(struct stream *s)
{
	for (const struct stream *other = s->feed->streams; other; other = other->next)
		if (other != s && other->whole && !other->cancelled)
			return false;
	s->whole = true;
	if (!s->open && !s->feed->all)
		s->limit = s->end + s->window;
	s->end = UINT64_MAX;
	return true;
}

static bool on_begin(void *ctx, int64_t total, uint64_t offset)
{
	struct stream *s = ctx;
	struct feed *f = s->feed;
	struct reader *r = f->reader;
	bool goes_on = true;

	if (total >= 0 && content_set_size(f->content, (uint64_t)total) < 0) {
		log_warning("reader: '%s' has another size now: it was replaced on the server",
			    f->file.name);
		pthread_mutex_lock(&r->lock);
		s->refused = -ESTALE;
		pthread_mutex_unlock(&r->lock);
		return false;
	}
	if (total >= 0)
		lister_learned_size(r->m, f->node, f->file.version, total);
	pthread_mutex_lock(&r->lock);
	if (offset != s->pos) {
		s->start = s->pos = offset;
		goes_on = go_whole_locked(s);
	}
	pthread_mutex_unlock(&r->lock);
	if (!total)
		calls_wake_bytes(r->m->calls, content_id(f->content), 0, UINT64_MAX, 0);
	return goes_on;
}

static void finish_job(void *ctx)
{
	struct feed *f = ctx, *unused;
	struct reader *r = f->reader;

	if (content_finish(f->content) == 0)
		lister_learned_content(r->m, f->node, f->file.version, f->content);
	pthread_mutex_lock(&r->lock);
	f->opens--;
	unused = reader_if_unused_locked(r, f);
	pthread_mutex_unlock(&r->lock);
	reader_free_feed(unused);
}

/* lock held: hash what became complete, on the pool. */
static void start_finish_locked(struct reader *r, struct feed *f)
{
	if (f->finishing || !content_is_complete(f->content))
		return;
	f->finishing = true;
	f->opens++;
	if (pool_run(r->m->disk_pool, finish_job, f) < 0)
		f->opens--;
}

/* It came upon another stream, which goes on for more than it costs to let this one go. */
static bool is_brought_locked(const struct stream *s)
{
	for (const struct stream *t = s->feed->streams; t; t = t->next)
		if (t != s && !t->cancelled && t->start <= s->pos && s->pos <= t->pos &&
		    t->end - t->pos >= WINDOW_ISLAND_BYTES)
			return true;
	return false;
}

/* Whether to hang up: what follows is somebody else's, or there. */
static bool has_done_its_part_locked(const struct stream *s)
{
	struct content *c = s->feed->content;
	uint64_t first, end;

	if (s->pos >= s->end)
		return s->open; /* a bounded one ends by itself, and keeps its connection */
	if (!content_next_missing(c, s->pos, &first, &end))
		return s->pos < (uint64_t)content_size(c);
	if (s->whole)
		return false;
	return (first < s->end && first - s->pos >= WINDOW_ISLAND_BYTES) || is_brought_locked(s);
}

/*
 * What it brings cannot be kept but for a moment: it must not run far ahead of its readers. One that
 * a server without Range began too early runs on until it gets to them.
 */
static void hold_back_locked(struct reader *r, struct stream *s)
{
	uint64_t id = content_id(s->feed->content);

	s->feed->pace.more = 0;
	if (s->limit != UINT64_MAX && s->window > CONTENT_PASSING_AHEAD) {
		s->limit -= s->window - CONTENT_PASSING_AHEAD;
		s->window = CONTENT_PASSING_AHEAD;
	} else if (s->limit == UINT64_MAX && s->end - s->pos > CONTENT_PASSING_AHEAD &&
		   !calls_wanted(r->m->calls, id, s->pos, UINT64_MAX)) {
		s->limit = s->pos + CONTENT_PASSING_AHEAD;
	}
}

static bool on_data(void *ctx, const void *data, size_t len)
{
	struct stream *s = ctx;
	struct feed *f = s->feed;
	struct reader *r = f->reader;
	struct all_waiter *told = NULL;
	bool goes_on = true;
	int error;

	pthread_mutex_lock(&r->lock);
	goes_on = !s->cancelled;
	pthread_mutex_unlock(&r->lock);
	if (!goes_on)
		return false;
	error = content_fill(f->content, s->pos, data, len);
	pthread_mutex_lock(&r->lock);
	if (error < 0) {
		s->refused = error;
		pthread_mutex_unlock(&r->lock);
		log_errno(error, "cache: cannot keep bytes of '%s'", f->file.name);
		return false;
	}
	s->pos += len;
	f->moved += len;
	if (s->pos > s->end && !s->open && !s->whole)
		goes_on = go_whole_locked(s);
	if (error > 0) {
		/* who wants all of it needs it in the file */
		told = f->all;
		f->all = NULL;
		hold_back_locked(r, s);
	}
	if (has_done_its_part_locked(s))
		stream_drop_locked(r, s);
	else if (s->pos >= s->limit && !s->paused)
		pause_locked(r, s);
	calls_wake_bytes(r->m->calls, content_id(f->content), s->start, s->pos, 0);
	pthread_mutex_unlock(&r->lock);
	reader_tell_all(told, -ENOSPC);
	return goes_on;
}

static void unlink_locked(struct feed *f, const struct stream *s)
{
	struct stream **slot = &f->streams;

	while (*slot != s)
		slot = &(*slot)->next;
	*slot = s->next;
}

/*
 * The server has other bytes than these, if under the same name of a version: who has the file open
 * must not get a mix, and who opens it from now on finds none of the old ones. What it is now, a
 * listing tells.
 */
static void supersede(struct mount *m, uint64_t node, struct content *c)
{
	struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, node);
	if (n && !n->dirty && !n->gone && n->more->view == c) {
		node_drop_content_locked(m->tree, n);
		content_drop(c);
		tree_follow_content_locked(m->tree, n);
	}
	if (n && n->parent)
		lister_again_locked(m->lister, n->parent);
	tree_unlock(m->tree);
}

/* The remote says that all came: less than was asked for is not all. */
static int check_end_locked(const struct stream *s)
{
	struct content *c = s->feed->content;
	int64_t size = content_size(c);
	uint64_t end = s->end;

	if (size < 0 && end == UINT64_MAX)
		return content_set_size(c, s->pos);
	if (size >= 0 && end > (uint64_t)size)
		end = (uint64_t)size;
	if (s->pos >= end)
		return 0;
	return log_errno(-EIO, "read '%s': the server's answer ended at byte %llu",
			 s->feed->file.name, (unsigned long long)s->pos);
}

/*
 * The stream is off the list. Those who waited for bytes it did not bring look again: they start
 * another, or hear the error.
 */
static void tell_waiting(struct feed *f, int error, uint64_t pos, uint64_t end)
{
	struct mount *m = f->reader->m;
	uint64_t id = content_id(f->content);

	if (error == -ESTALE)
		supersede(m, f->node, f->content);
	if (error)
		calls_wake_bytes(m->calls, id, pos, end, error);
	calls_wake_bytes(m->calls, id, 0, UINT64_MAX, -EAGAIN);
}

static void on_done(void *ctx, int error)
{
	struct stream *s = ctx;
	struct feed *f = s->feed, *unused;
	struct reader *r = f->reader;
	struct all_waiter *told = NULL;
	uint64_t pos, end;
	bool complete, more, free_it;

	pthread_mutex_lock(&r->lock);
	if (!error)
		error = check_end_locked(s);
	unlink_locked(f, s);
	s->over = true;
	free_it = !s->sending;
	pos = s->pos;
	end = s->end;
	if (error == -ECANCELED)
		error = s->refused;
	if (error)
		reader_note_error_locked(f, error, pos, end);
	complete = content_is_complete(f->content);
	if (complete || error) {
		told = f->all;
		f->all = NULL;
	}
	start_finish_locked(r, f);
	more = f->all && !f->streams;
	f->opens++; /* until all is told */
	pthread_mutex_unlock(&r->lock);

	tell_waiting(f, error, pos, end);
	reader_tell_all(told, complete ? 0 : error);
	if (more)
		reader_start_missing(f);
	pthread_mutex_lock(&r->lock);
	f->opens--;
	unused = reader_if_unused_locked(r, f);
	pthread_mutex_unlock(&r->lock);
	reader_free_feed(unused);
	if (free_it)
		free(s);
}

/* ---- starting ---- */

struct stream *stream_new_locked(struct feed *f, const struct window_range *range)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct stream){.next = f->streams,
			     .feed = f,
			     .start = range->start,
			     .pos = range->start,
			     .end = range->end,
			     .limit = range->limit,
			     .open = range->end == UINT64_MAX,
			     .forward = range->forward,
			     .window = WINDOW_MIN_BYTES,
			     .read_at = range->start,
			     .used_ms = clock_mono_ms(),
			     .sending = true};
	f->streams = s;
	f->opens++; /* until it was sent */
	return s;
}

static void start_failed(struct feed *f, const struct stream *s, int error)
{
	struct reader *r = f->reader;
	struct all_waiter *told;

	pthread_mutex_lock(&r->lock);
	unlink_locked(f, s);
	reader_note_error_locked(f, error, 0, UINT64_MAX);
	told = f->all;
	f->all = NULL;
	pthread_mutex_unlock(&r->lock);
	calls_wake_bytes(r->m->calls, content_id(f->content), 0, UINT64_MAX, error);
	reader_tell_all(told, error);
}

/*
 * The stream is in the feed's list already, so nobody starts it again, and it holds the feed until
 * it was sent. The remote may call back at once, even end it.
 */
static void send_one(struct stream *s)
{
	struct feed *f = s->feed, *unused;
	struct reader *r = f->reader;
	const struct remote_ops *ops = r->m->remote->ops;
	struct remote_fetch_sink sink = {on_begin, on_data, on_done, s};
	uint64_t id = 0, start, len;
	enum transfer_class class;
	bool over;
	int error;

	pthread_mutex_lock(&r->lock);
	start = s->start;
	len = s->open ? 0 : s->end - s->start;
	class = s->class;
	pthread_mutex_unlock(&r->lock);
	error = ops->fetch(r->m->remote, class, &f->file, f->collection, start, len, 0, &sink, &id);
	if (error < 0)
		start_failed(f, s, error);
	pthread_mutex_lock(&r->lock);
	over = error < 0 || s->over;
	if (!over) {
		s->fetch_id = id;
		s->sending = false;
		if (s->class != class)
			ops->fetch_set_class(r->m->remote, id, s->class);
		if (s->cancelled)
			ops->fetch_cancel(r->m->remote, id);
		else if (s->paused)
			ops->fetch_pause(r->m->remote, id);
	}
	f->opens--;
	unused = reader_if_unused_locked(r, f);
	pthread_mutex_unlock(&r->lock);
	if (over)
		free(s);
	reader_free_feed(unused);
}

void stream_send(struct stream *list)
{
	while (list) {
		struct stream *next = list->send_next;

		send_one(list);
		list = next;
	}
}
