/* SPDX-License-Identifier: MIT */

/*
 * Feeds and streams: see reader.h. A stream is owned by its feed's list until its done(); the
 * remote calls it back by pointer, so it is freed in done() and nowhere else. A feed is freed when
 * it is closed and its last stream is done.
 */

#include "reader.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "lister.h"
#include "mount.h"
#include "window.h"

#define IDLE_MS	    3000
#define REMEMBER_MS 1000 /* a failed readahead is asked again by the kernel at once */
#define RECENT_ENDS 8

struct stream {
	struct stream *next;
	struct feed *feed;
	uint64_t fetch_id;   /* reader->lock; 0 until the remote said so */
	uint64_t start, pos; /* reader->lock: [start, pos) has arrived */
	uint64_t end;	     /* asked for up to here; UINT64_MAX = to the end of the content */
	uint64_t limit;	     /* pause when pos gets there; UINT64_MAX = never */
	uint64_t window;
	enum transfer_class class;
	int64_t used_ms; /* a reader wanted something of it */
	bool paused, cancelled;
	bool sending; /* fetch() has not returned yet, its id is not known */
	bool over;    /* done() came while sending: the sender frees it */
	int refused;  /* why we ended it ourselves */
};

struct all_waiter {
	struct all_waiter *next;
	void (*done)(void *ctx, int error);
	void *ctx;
};

struct feed {
	struct feed *next; /* reader->feeds */
	struct reader *reader;
	struct content *content; /* referenced */
	struct remote_file file; /* copies */
	char *collection;
	uint64_t node;
	unsigned opens; /* reader->lock, as everything below */
	struct stream *streams;
	struct all_waiter *all;
	uint64_t ends[RECENT_ENDS]; /* where bounded ranges ended: a read there goes forward */
	unsigned next_end;
	int error; /* of the last stream that failed, for its range and a moment only */
	uint64_t error_off, error_end;
	int64_t error_until_ms;
	bool finishing;
};

struct reader {
	pthread_mutex_t lock;
	struct mount *m;
	struct feed *feeds;
};

int reader_new(struct mount *m, struct reader **ret_reader)
{
	struct reader *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->m = m;
	pthread_mutex_init(&r->lock, NULL);
	*ret_reader = r;
	return 0;
}

static void feed_free(struct feed *f)
{
	content_unref(f->content);
	remote_file_clear(&f->file);
	free(f->collection);
	free(f);
}

void reader_free(struct reader *r)
{
	if (!r)
		return;
	while (r->feeds) {
		struct feed *next = r->feeds->next;

		content_set_user(r->feeds->content, NULL);
		feed_free(r->feeds);
		r->feeds = next;
	}
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* lock held: out of the list when nobody needs it; the caller frees it after unlocking. */
static struct feed *feed_if_unused_locked(struct reader *r, struct feed *f)
{
	struct feed **slot = &r->feeds;

	if (f->opens || f->streams || f->all)
		return NULL;
	while (*slot && *slot != f)
		slot = &(*slot)->next;
	if (!*slot)
		return NULL;
	*slot = f->next;
	content_set_user(f->content, NULL);
	return f;
}

static struct feed *feed_new(struct reader *r, struct content *c, const struct remote_file *file,
			     const char *collection, uint64_t node)
{
	struct feed *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->collection = strdup(collection);
	if (!f->collection || !remote_file_copy(&f->file, file)) {
		free(f->collection);
		free(f);
		return NULL;
	}
	f->reader = r;
	f->content = content_ref(c);
	f->node = node;
	f->next = r->feeds;
	r->feeds = f;
	content_set_user(c, f);
	return f;
}

int reader_open(struct reader *r, struct content *c, const struct remote_file *file,
		const char *collection, uint64_t node)
{
	struct feed *f;
	int ret = 0;

	pthread_mutex_lock(&r->lock);
	f = content_get_user(c);
	if (!f)
		f = feed_new(r, c, file, collection, node);
	if (f)
		f->opens++;
	else
		ret = -ENOMEM;
	pthread_mutex_unlock(&r->lock);
	return ret;
}

static void drop_stream_locked(struct reader *r, struct stream *s)
{
	if (s->cancelled)
		return;
	s->cancelled = true;
	if (!s->sending)
		r->m->remote->ops->fetch_cancel(r->m->remote, s->fetch_id);
}

void reader_close(struct reader *r, struct content *c)
{
	struct feed *f, *unused = NULL;

	pthread_mutex_lock(&r->lock);
	f = content_get_user(c);
	if (f && f->opens && !--f->opens) {
		for (struct stream *s = f->streams; s && !f->all; s = s->next)
			if (s->end == UINT64_MAX || s->end - s->pos > READER_WHOLE_BYTES)
				drop_stream_locked(r, s);
		unused = feed_if_unused_locked(r, f);
	}
	pthread_mutex_unlock(&r->lock);
	if (unused)
		feed_free(unused);
}

/* Remembered for a moment: a failed readahead is asked again by the kernel at once. lock held. */
static void note_error_locked(struct feed *f, int error, uint64_t off, uint64_t end)
{
	f->error = error;
	f->error_off = off;
	f->error_end = end;
	f->error_until_ms = clock_mono_ms() + REMEMBER_MS;
}

static int noted_error_locked(const struct feed *f, uint64_t off)
{
	bool holds = f->error && clock_mono_ms() < f->error_until_ms && off >= f->error_off &&
		     off < f->error_end;

	return holds ? f->error : 0;
}

void reader_failed(struct reader *r, struct content *clean, int error, uint64_t off, uint64_t end)
{
	struct feed *f;

	pthread_mutex_lock(&r->lock);
	f = content_get_user(clean);
	if (f)
		note_error_locked(f, error, off, end);
	pthread_mutex_unlock(&r->lock);
}

/* ---- what the remote calls back ---- */

static bool on_begin(void *ctx, int64_t total, uint64_t offset)
{
	struct stream *s = ctx;
	struct feed *f = s->feed;
	struct reader *r = f->reader;

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
		/*
		 * a server without Range sends everything from the start: take it all, it is one
		 * stream
		 */
		s->start = s->pos = offset;
		s->end = UINT64_MAX;
		s->limit = UINT64_MAX;
	}
	pthread_mutex_unlock(&r->lock);
	if (!total)
		calls_wake_bytes(r->m->calls, content_id(f->content), 0, UINT64_MAX, 0);
	return true;
}

static void finish_job(void *ctx)
{
	struct feed *f = ctx, *unused;
	struct reader *r = f->reader;

	if (content_finish(f->content) == 0)
		lister_learned_content(r->m, f->node, f->file.version, f->content);
	pthread_mutex_lock(&r->lock);
	f->opens--;
	unused = feed_if_unused_locked(r, f);
	pthread_mutex_unlock(&r->lock);
	if (unused)
		feed_free(unused);
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

static void tell_all(struct all_waiter *w, int error)
{
	while (w) {
		struct all_waiter *next = w->next;

		w->done(w->ctx, error);
		free(w);
		w = next;
	}
}

/*
 * What it brings cannot be kept but for a moment: it must not run far ahead of its readers. One that
 * a server without Range began too early runs on until it gets to them.
 */
static void hold_back_locked(struct reader *r, struct stream *s)
{
	uint64_t id = content_id(s->feed->content);

	if (s->limit != UINT64_MAX && s->window > CONTENT_PASSING_AHEAD) {
		s->limit -= s->window - CONTENT_PASSING_AHEAD;
		s->window = CONTENT_PASSING_AHEAD;
	} else if (s->limit == UINT64_MAX && s->end == UINT64_MAX &&
		   !calls_wanted(r->m->calls, id, s->pos, UINT64_MAX)) {
		s->limit = s->pos + CONTENT_PASSING_AHEAD;
	}
}

static bool on_data(void *ctx, const void *data, size_t len)
{
	struct stream *s = ctx;
	struct feed *f = s->feed;
	struct reader *r = f->reader;
	uint64_t from;
	int error = content_fill(f->content, s->pos, data, len);
	struct all_waiter *told = NULL;

	pthread_mutex_lock(&r->lock);
	if (error < 0) {
		s->refused = error;
		pthread_mutex_unlock(&r->lock);
		log_errno(error, "cache: cannot keep bytes of '%s'", f->file.name);
		return false;
	}
	s->pos += len;
	from = s->start;
	if (error > 0) {
		/* who wants all of it needs it in the file */
		told = f->all;
		f->all = NULL;
		hold_back_locked(r, s);
	}
	if (s->pos >= s->limit && !s->paused) {
		s->paused = true;
		if (!s->sending)
			r->m->remote->ops->fetch_pause(r->m->remote, s->fetch_id);
	}
	calls_wake_bytes(r->m->calls, content_id(f->content), from, s->pos, 0);
	pthread_mutex_unlock(&r->lock);
	tell_all(told, -ENOSPC);
	return true;
}

static void unlink_stream_locked(struct feed *f, struct stream *s)
{
	struct stream **slot = &f->streams;

	while (*slot != s)
		slot = &(*slot)->next;
	*slot = s->next;
}

static void start_missing(struct feed *f);

/* The server has other bytes than were listed: who reads the file again shall find those. */
static void list_again(struct mount *m, uint64_t node)
{
	struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, node);
	if (n && n->parent)
		lister_again_locked(m->lister, n->parent);
	tree_unlock(m->tree);
}

static void on_done(void *ctx, int error)
{
	struct stream *s = ctx;
	struct feed *f = s->feed, *unused = NULL;
	struct reader *r = f->reader;
	struct all_waiter *told = NULL;
	uint64_t id = content_id(f->content), node = f->node, start = s->pos, end = s->end;
	bool complete, more, free_it;

	pthread_mutex_lock(&r->lock);
	unlink_stream_locked(f, s);
	s->over = true;
	free_it = !s->sending;
	f->ends[f->next_end++ % RECENT_ENDS] = s->pos;
	if (error == -ECANCELED && s->refused)
		error = s->refused;
	start = s->pos;
	if (error && error != -ECANCELED)
		note_error_locked(f, error, start, end);
	complete = content_is_complete(f->content);
	if (complete || (error && error != -ECANCELED)) {
		told = f->all;
		f->all = NULL;
	}
	start_finish_locked(r, f);
	more = f->all && !f->streams;
	if (more)
		f->opens++; /* until it was started again */
	else
		unused = feed_if_unused_locked(r, f);
	pthread_mutex_unlock(&r->lock);

	/*
	 * those who waited for bytes this stream did not bring look again: they start another, or
	 * hear the error
	 */
	if (error == -ECANCELED)
		error = 0;
	if (error == -ESTALE)
		list_again(r->m, node);
	if (error)
		calls_wake_bytes(r->m->calls, id, start, end, error);
	calls_wake_bytes(r->m->calls, id, 0, UINT64_MAX, -EAGAIN);
	tell_all(told, complete ? 0 : error);
	if (more) {
		start_missing(f);
		pthread_mutex_lock(&r->lock);
		f->opens--;
		unused = feed_if_unused_locked(r, f);
		pthread_mutex_unlock(&r->lock);
	}
	if (unused)
		feed_free(unused);
	if (free_it)
		free(s);
}

/* ---- starting ---- */

static void start_stream_failed(struct feed *f, struct stream *s, int error)
{
	struct reader *r = f->reader;
	struct all_waiter *told;

	pthread_mutex_lock(&r->lock);
	unlink_stream_locked(f, s);
	note_error_locked(f, error, 0, UINT64_MAX);
	told = f->all;
	f->all = NULL;
	pthread_mutex_unlock(&r->lock);
	calls_wake_bytes(r->m->calls, content_id(f->content), 0, UINT64_MAX, error);
	tell_all(told, error);
}

/*
 * Not under the lock: the remote may call back at once, even end it. The stream is in the feed's
 * list already, so nobody starts it again, and it holds the feed until it was sent.
 */
static void send_stream(struct feed *f, struct stream *s)
{
	struct reader *r = f->reader;
	const struct remote_ops *ops = r->m->remote->ops;
	struct remote_fetch_sink sink = {on_begin, on_data, on_done, s};
	uint64_t id = 0, len = s->end == UINT64_MAX ? 0 : s->end - s->start;
	struct feed *unused;
	bool over;
	int error = ops->fetch(r->m->remote, s->class, &f->file, f->collection, s->start, len, 0,
			       &sink, &id);

	if (error < 0)
		start_stream_failed(f, s, error);
	pthread_mutex_lock(&r->lock);
	over = error < 0 || s->over;
	if (!over) {
		s->fetch_id = id;
		s->sending = false;
		if (s->cancelled)
			ops->fetch_cancel(r->m->remote, id);
		else if (s->paused)
			ops->fetch_pause(r->m->remote, id);
	}
	f->opens--;
	unused = feed_if_unused_locked(r, f);
	pthread_mutex_unlock(&r->lock);
	if (over)
		free(s);
	if (unused)
		feed_free(unused);
}

static struct stream *new_stream_locked(struct feed *f, uint64_t start, uint64_t end,
					uint64_t limit)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct stream){.next = f->streams,
			     .feed = f,
			     .start = start,
			     .pos = start,
			     .end = end,
			     .limit = limit,
			     .window = READER_WINDOW_MIN,
			     .used_ms = clock_mono_ms(),
			     .sending = true};
	f->streams = s;
	f->opens++; /* until it was sent */
	return s;
}

/* The stream that will bring @off by itself, soon enough. */
static struct stream *stream_for_locked(struct feed *f, uint64_t off)
{
	for (struct stream *s = f->streams; s; s = s->next)
		if (!s->cancelled && off >= s->start &&
		    window_reaches(s->pos, s->end, s->limit, s->window, off))
			return s;
	return NULL;
}

static void follow_locked(struct reader *r, struct stream *s, uint64_t end)
{
	s->used_ms = clock_mono_ms();
	if (s->limit == UINT64_MAX)
		return;
	s->window = window_grow(s->window, s->pos, s->limit, end, READER_WINDOW_MAX);
	if (end + s->window > s->limit)
		s->limit = end + s->window;
	if (s->paused && s->pos < s->limit) {
		s->paused = false;
		if (!s->sending)
			r->m->remote->ops->fetch_resume(r->m->remote, s->fetch_id);
	}
}

static bool goes_forward_locked(const struct feed *f, uint64_t off)
{
	for (unsigned i = 0; i < RECENT_ENDS; i++)
		if (f->ends[i] && off >= f->ends[i] && off - f->ends[i] <= READER_WINDOW_MIN)
			return true;
	return false;
}

/* Decide what to ask for, so that [off, end) comes. NULL without memory. */
static struct stream *plan_stream_locked(struct feed *f, uint64_t off, uint64_t end)
{
	int64_t size = content_size(f->content);
	struct window_wish w = {.off = off,
				.end = end,
				.size = size,
				.forward = goes_forward_locked(f, off),
				.whole_bytes = READER_WHOLE_BYTES,
				.min_bytes = READER_WINDOW_MIN};
	struct window_range range;

	if (!content_next_missing(f->content,
				  size >= 0 && (uint64_t)size <= READER_WHOLE_BYTES
					  ? 0
					  : off - off % CONTENT_BLOCK_BYTES,
				  &w.missing, &w.missing_end))
		w.missing = off, w.missing_end = end;
	window_decide(&w, &range);
	return new_stream_locked(f, range.start, range.end, range.limit);
}

bool reader_park(struct reader *r, struct call *call, struct content *clean, uint64_t off,
		 uint64_t end, int *ret_error)
{
	struct content_extent extent;
	struct stream *s, *fresh = NULL;
	struct feed *f;

	*ret_error = 0;
	pthread_mutex_lock(&r->lock);
	f = content_get_user(clean);
	if (!f) {
		*ret_error = -ESTALE;
	} else if (content_map(clean, off, 1, &extent) == 0 && extent.where != CONTENT_MISSING) {
		; /* arrived in between */
	} else {
		s = stream_for_locked(f, off);
		*ret_error = noted_error_locked(f, off);
		if (*ret_error != -ETIMEDOUT && s)
			*ret_error = 0; /* another stream brings it */
		else if (*ret_error)
			s = NULL;
		if (s)
			follow_locked(r, s, end);
		else if (!*ret_error)
			fresh = plan_stream_locked(f, off, end);
		if (s || fresh) {
			call_park_bytes(call, content_id(clean), off, end);
			pthread_mutex_unlock(&r->lock);
			if (fresh)
				send_stream(f, fresh);
			return true;
		}
		if (!*ret_error)
			*ret_error = -ENOMEM;
	}
	pthread_mutex_unlock(&r->lock);
	return false;
}

/* ---- all of it ---- */

/* All of it is wanted: it runs to its end without waiting for a reader. */
static void run_free_locked(struct reader *r, struct stream *s)
{
	s->limit = UINT64_MAX;
	if (!s->paused || s->cancelled)
		return;
	s->paused = false;
	if (!s->sending)
		r->m->remote->ops->fetch_resume(r->m->remote, s->fetch_id);
}

static void start_missing(struct feed *f)
{
	struct reader *r = f->reader;
	struct all_waiter *told = NULL;
	struct stream *s = NULL;
	uint64_t first, end;
	bool complete = false;

	pthread_mutex_lock(&r->lock);
	if (!content_next_missing(f->content, 0, &first, &end)) {
		complete = true;
		told = f->all;
		f->all = NULL;
	} else if (!f->streams) {
		s = new_stream_locked(f, first, end, UINT64_MAX);
		if (s)
			s->class = TRANSFER_WRITEBACK;
	} else {
		for (struct stream *running = f->streams; running; running = running->next)
			run_free_locked(r, running);
	}
	pthread_mutex_unlock(&r->lock);
	if (complete)
		tell_all(told, 0);
	if (s)
		send_stream(f, s);
}

void reader_fetch_all(struct reader *r, struct content *clean, void (*done)(void *ctx, int error),
		      void *ctx)
{
	struct all_waiter *w = malloc(sizeof(*w));
	struct feed *f;

	pthread_mutex_lock(&r->lock);
	f = content_get_user(clean);
	if (f && w) {
		*w = (struct all_waiter){f->all, done, ctx};
		f->all = w;
	}
	pthread_mutex_unlock(&r->lock);
	if (!f || !w) {
		free(w);
		done(ctx, f ? -ENOMEM : -ESTALE);
		return;
	}
	start_missing(f);
}

void reader_tick(struct reader *r)
{
	int64_t now = clock_mono_ms();

	pthread_mutex_lock(&r->lock);
	for (struct feed *f = r->feeds; f; f = f->next)
		for (struct stream *s = f->streams; s; s = s->next)
			if (s->paused && !f->all && now - s->used_ms > IDLE_MS &&
			    !calls_wanted(r->m->calls, content_id(f->content), s->pos, UINT64_MAX))
				drop_stream_locked(r, s);
	pthread_mutex_unlock(&r->lock);
}
