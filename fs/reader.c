/* SPDX-License-Identifier: MIT */

/* Feeds, and which streams they have: see reader.h and reader_private.h. */

#include "reader_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "mount.h"

#define IDLE_MS	      3000
#define WHOLE_IDLE_MS 60000 /* to ask again means to begin at the start */
#define REMEMBER_MS   1000  /* a failed readahead is asked again by the kernel at once */
#define ISLANDS_MAX   256   /* to be looked over for the end of a stream; then it ends */

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

void reader_free_feed(struct feed *f)
{
	if (!f)
		return;
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
		reader_free_feed(r->feeds);
		r->feeds = next;
	}
	pthread_mutex_destroy(&r->lock);
	free(r);
}

struct feed *reader_if_unused_locked(struct reader *r, struct feed *f)
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

void reader_close(struct reader *r, struct content *c)
{
	struct feed *f, *unused = NULL;

	pthread_mutex_lock(&r->lock);
	f = content_get_user(c);
	if (f && f->opens && !--f->opens) {
		for (struct stream *s = f->streams; s && !f->all; s = s->next)
			if (s->end == UINT64_MAX || s->end - s->pos > WINDOW_WHOLE_BYTES)
				stream_drop_locked(r, s);
		unused = reader_if_unused_locked(r, f);
	}
	pthread_mutex_unlock(&r->lock);
	reader_free_feed(unused);
}

void reader_note_error_locked(struct feed *f, int error, uint64_t off, uint64_t end)
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
		reader_note_error_locked(f, error, off, end);
	pthread_mutex_unlock(&r->lock);
}

/* ---- which streams there are ---- */

/* The stream that will bring @off by itself, soon enough. */
static struct stream *stream_for_locked(struct feed *f, uint64_t off)
{
	for (struct stream *s = f->streams; s; s = s->next)
		if (!s->cancelled && off >= s->start &&
		    (s->whole ? off >= s->pos
			      : window_reaches(s->pos, s->end, s->limit, s->window, off)))
			return s;
	return NULL;
}

/* The stream that runs ahead of a reader at @off, who has all he wants. */
static struct stream *stream_ahead_locked(struct feed *f, uint64_t off)
{
	struct stream *found = NULL;

	for (struct stream *s = f->streams; s; s = s->next)
		if (!s->cancelled && off <= s->pos && off + WINDOW_SLACK_BYTES >= s->read_at &&
		    (!found || s->pos < found->pos))
			found = s;
	return found;
}

/* A reader of @s wants, or has, what lies before @end. */
static void follow_locked(struct reader *r, struct stream *s, uint64_t end)
{
	s->used_ms = clock_mono_ms();
	if (s->read_at < end)
		s->read_at = end;
	stream_set_class_locked(r, s, TRANSFER_INTERACTIVE);
	if (s->limit == UINT64_MAX)
		return;
	s->window = window_grow(s->window, s->limit, end);
	if (end + s->window > s->limit)
		s->limit = end + s->window;
	if (window_resumes(s->window, s->pos, s->limit, end))
		stream_resume_locked(r, s);
}

/* The first byte at or after @off that a stream is about to bring. */
static uint64_t next_coming_locked(const struct feed *f, uint64_t off)
{
	uint64_t next = UINT64_MAX;

	for (const struct stream *s = f->streams; s; s = s->next)
		if (!s->cancelled && s->pos >= off && s->pos < next && s->pos < s->end)
			next = s->pos;
	return next;
}

/* Where a stream has to end that begins in the missing range that ends at @stop. */
static uint64_t find_stop_locked(const struct feed *f, uint64_t off, uint64_t stop)
{
	uint64_t first, end, coming = next_coming_locked(f, off);

	for (unsigned n = 0; n < ISLANDS_MAX && stop < coming; n++) {
		if (!content_next_missing(f->content, stop, &first, &end) ||
		    first - stop >= WINDOW_ISLAND_BYTES)
			break;
		stop = end;
	}
	return stop < coming ? stop : coming;
}

/* The missing range that a read of [off, end) falls into, from where it makes sense to ask. */
static void find_missing_locked(const struct feed *f, uint64_t from, struct window_wish *w)
{
	uint64_t base = from - from % CONTENT_BLOCK_BYTES, coming;

	if (w->size >= 0 && (uint64_t)w->size <= WINDOW_WHOLE_BYTES)
		base = 0;
	while (content_next_missing(f->content, base, &w->missing, &w->missing_end) &&
	       w->missing_end <= w->off)
		base = w->missing_end;
	if (w->missing > w->off || w->missing_end <= w->off)
		w->missing = w->off, w->missing_end = w->end;
	/* what lies in between, and is coming, needs no second asking */
	for (const struct stream *s = f->streams; s; s = s->next)
		if (!s->cancelled && s->pos <= w->missing && s->end > w->missing &&
		    s->end <= w->off)
			w->missing = s->end;
	w->stop = find_stop_locked(f, w->off, w->missing_end);
	coming = next_coming_locked(f, w->off);
	if (coming < w->missing_end)
		w->missing_end = coming;
}

/* Decide what to ask for, so that [off, end) comes. NULL without memory. */
static struct stream *plan_stream_locked(struct feed *f, uint64_t off, uint64_t end)
{
	struct window_wish w = {.off = off,
				.end = end,
				.size = content_size(f->content),
				.segment = f->pace.more ? f->pace.segment : 0};
	struct window_range range;
	uint64_t from = off;

	w.forward = window_goes_on(&f->heads, off, &from);
	find_missing_locked(f, from, &w);
	window_decide(&w, &range);
	return stream_new_locked(f, &range);
}

/* A range for one stream more, behind all that run ahead of a reader at @at. False = no need. */
static bool find_lane_locked(struct feed *f, uint64_t at, struct window_range *ret_range)
{
	int64_t size = content_size(f->content);
	uint64_t front = at, first, gap_end, coming;
	unsigned count = 0;

	for (struct stream *s = f->streams; s; s = s->next) {
		if (s->cancelled || !s->forward || s->start >= at + WINDOW_MAX_BYTES ||
		    s->end <= at)
			continue;
		if (s->end == UINT64_MAX) { /* it was alone so far */
			s->end = s->pos - s->pos % CONTENT_BLOCK_BYTES + f->pace.segment +
				 CONTENT_BLOCK_BYTES;
			s->limit = UINT64_MAX;
			stream_resume_locked(f->reader, s);
		}
		count++;
		if (front < s->end)
			front = s->end;
	}
	if (!count || count > f->pace.more || front >= at + WINDOW_MAX_BYTES || size < 0 ||
	    !content_next_missing(f->content, front, &first, &gap_end))
		return false;
	coming = next_coming_locked(f, first);
	if (coming < gap_end)
		gap_end = coming;
	if (first >= at + WINDOW_MAX_BYTES || first >= gap_end)
		return false;
	*ret_range = (struct window_range){first, first + f->pace.segment, UINT64_MAX, true};
	if (ret_range->end > gap_end)
		ret_range->end = gap_end;
	return true;
}

/* As many streams beside @with as the pace asks for, ahead of its reader at @at: those to be sent. */
static struct stream *add_lanes_locked(struct feed *f, const struct stream *with, uint64_t at)
{
	struct stream *fresh = NULL, *s;
	struct window_range range;

	while (f->pace.more && with->forward && !with->whole && find_lane_locked(f, at, &range)) {
		s = stream_new_locked(f, &range);
		if (!s)
			break;
		s->class = TRANSFER_PREFETCH;
		s->send_next = fresh;
		fresh = s;
	}
	return fresh;
}

/* Park for [off, end): follow the stream that brings it, or start one (*@ret_fresh). */
static int wait_for_locked(struct feed *f, uint64_t off, uint64_t end, struct stream **ret_fresh)
{
	struct stream *s = stream_for_locked(f, off);
	int error = noted_error_locked(f, off);

	if (error && (error == -ETIMEDOUT || !s))
		return error;
	if (s) {
		f->was_waited |= s->forward;
		follow_locked(f->reader, s, end);
		*ret_fresh = add_lanes_locked(f, s, off);
		return 0;
	}
	s = plan_stream_locked(f, off, end);
	if (!s)
		return -ENOMEM;
	s->send_next = add_lanes_locked(f, s, off);
	*ret_fresh = s;
	return 0;
}

bool reader_park(struct reader *r, struct call *call, struct content *clean, uint64_t off,
		 uint64_t end, int *ret_error)
{
	struct content_extent extent;
	struct stream *fresh = NULL;
	bool park = false;
	struct feed *f;

	*ret_error = 0;
	pthread_mutex_lock(&r->lock);
	f = content_get_user(clean);
	if (!f) {
		*ret_error = -ESTALE;
	} else if (content_map(clean, off, 1, &extent) != 0 || extent.where == CONTENT_MISSING) {
		*ret_error = wait_for_locked(f, off, end, &fresh);
		park = !*ret_error;
	} /* else it arrived in between */
	if (park)
		call_park_bytes(call, content_id(clean), off, end);
	pthread_mutex_unlock(&r->lock);
	stream_send(fresh);
	return park;
}

void reader_follow(struct reader *r, struct content *clean, uint64_t off, uint64_t end)
{
	struct stream *s, *fresh = NULL;
	struct feed *f;

	pthread_mutex_lock(&r->lock);
	f = content_get_user(clean);
	if (f) {
		window_note(&f->heads, off, end);
		s = stream_ahead_locked(f, off);
		if (s) {
			follow_locked(r, s, end);
			fresh = add_lanes_locked(f, s, off);
		}
	}
	pthread_mutex_unlock(&r->lock);
	stream_send(fresh);
}

/* ---- all of it ---- */

/* All of it is wanted: they run to their ends without waiting for a reader. */
static void run_free_locked(struct feed *f)
{
	for (struct stream *s = f->streams; s; s = s->next) {
		s->limit = UINT64_MAX;
		stream_resume_locked(f->reader, s);
	}
}

void reader_start_missing(struct feed *f)
{
	struct reader *r = f->reader;
	struct window_range range = {.limit = UINT64_MAX};
	struct all_waiter *told = NULL;
	struct stream *s = NULL;
	int error = 0;

	pthread_mutex_lock(&r->lock);
	if (!content_next_missing(f->content, 0, &range.start, &range.end)) {
		told = f->all;
		f->all = NULL;
	} else if (!f->streams) {
		range.end = find_stop_locked(f, range.start, range.end);
		s = stream_new_locked(f, &range);
		if (s) {
			s->class = TRANSFER_WRITEBACK;
		} else {
			error = -ENOMEM;
			told = f->all;
			f->all = NULL;
		}
	} else {
		run_free_locked(f);
	}
	pthread_mutex_unlock(&r->lock);
	reader_tell_all(told, error);
	stream_send(s);
}

void reader_tell_all(struct all_waiter *w, int error)
{
	while (w) {
		struct all_waiter *next = w->next;

		w->done(w->ctx, error);
		free(w);
		w = next;
	}
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
	reader_start_missing(f);
}

void reader_fetch_ahead(struct reader *r, struct content *clean)
{
	struct window_range range = {.limit = UINT64_MAX};
	struct stream *s = NULL;
	struct feed *f;

	pthread_mutex_lock(&r->lock);
	f = content_get_user(clean);
	if (f && !f->streams && content_next_missing(clean, 0, &range.start, &range.end)) {
		range.end = find_stop_locked(f, range.start, range.end);
		s = stream_new_locked(f, &range);
	}
	if (s)
		s->class = TRANSFER_PREFETCH;
	pthread_mutex_unlock(&r->lock);
	stream_send(s);
}

/* ---- once a second ---- */

static bool is_idle_locked(const struct feed *f, const struct stream *s, int64_t now)
{
	return s->paused && !f->all && now - s->used_ms > (s->whole ? WHOLE_IDLE_MS : IDLE_MS) &&
	       !calls_wanted(f->reader->m->calls, content_id(f->content), s->pos, UINT64_MAX);
}

/* The first of those that run ahead of a reader. */
static const struct stream *first_forward_locked(const struct feed *f)
{
	const struct stream *first = NULL;

	for (const struct stream *s = f->streams; s; s = s->next)
		if (!s->cancelled && s->forward && (!first || s->pos < first->pos))
			first = s;
	return first;
}

/* What came in this second, and whether readers were waiting for it: more streams? */
static struct stream *pace_locked(struct feed *f)
{
	const struct stream *first = first_forward_locked(f);
	bool waited =
		f->was_waited || (first && calls_wanted(f->reader->m->calls, content_id(f->content),
							first->start, UINT64_MAX));
	uint64_t bytes = f->moved - f->moved_before;
	bool again = window_pace(&f->pace, bytes, waited && !f->was_paused);

	f->moved_before = f->moved;
	f->was_paused = f->was_waited = false;
	return again && first ? add_lanes_locked(f, first, first->pos) : NULL;
}

void reader_tick(struct reader *r)
{
	int64_t now = clock_mono_ms();
	struct stream *fresh = NULL;

	pthread_mutex_lock(&r->lock);
	for (struct feed *f = r->feeds; f; f = f->next) {
		struct stream *added, **last = &fresh;

		for (struct stream *s = f->streams; s; s = s->next)
			if (is_idle_locked(f, s, now))
				stream_drop_locked(r, s);
		added = pace_locked(f);
		while (*last)
			last = &(*last)->send_next;
		*last = added;
	}
	pthread_mutex_unlock(&r->lock);
	stream_send(fresh);
}
