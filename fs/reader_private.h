/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_READER_PRIVATE_H
#define ATTACHFS_FS_READER_PRIVATE_H

/*
 * Inside the reader: reader.c has the feeds and decides which streams there are, reader_stream.c is
 * what a stream goes through. The contract is reader.h.
 *
 * A stream is owned by its feed's list until its done(); the remote calls it back by pointer, so it
 * is freed in done() and nowhere else. A feed is freed when it is closed and its last stream is
 * done.
 */

#include "reader.h"

#include <pthread.h>

#include "window.h"

struct stream {
	struct stream *next;	  /* feed->streams */
	struct stream *send_next; /* the sender's: those it has yet to send */
	struct feed *feed;
	uint64_t fetch_id;   /* reader->lock, as all below; 0 until the remote said so */
	uint64_t start, pos; /* [start, pos) has arrived */
	uint64_t end;	     /* wanted up to here; UINT64_MAX = to the end of the content */
	uint64_t limit;	     /* pause when pos gets there; UINT64_MAX = never */
	uint64_t window;
	uint64_t read_at; /* its reader has come to here */
	enum transfer_class class;
	int64_t used_ms; /* a reader wanted something of it */
	bool open;	 /* asked for without an end, whatever `end` became since */
	bool forward;	 /* it runs ahead of a reader, alone or as one of several */
	bool whole;	 /* the server has no Range: all comes, from the start */
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
	struct window_heads heads;
	struct window_pace pace;
	uint64_t moved, moved_before; /* bytes that came: ever, up to the last tick */
	/* since the last tick: a stream kept ahead of its reader; a reader waited for such a one */
	bool was_paused, was_waited;
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

/* reader.c */
/* lock held: out of the list when nobody needs it; the caller frees it after unlocking. */
struct feed *reader_if_unused_locked(struct reader *r, struct feed *f);
/* NULL is fine. Not under the lock. */
void reader_free_feed(struct feed *f);
/* Remembered for a moment: a failed readahead is asked again by the kernel at once. */
void reader_note_error_locked(struct feed *f, int error, uint64_t off, uint64_t end);
/* Ask for what is missing, as long as somebody wants all of it. Not under the lock. */
void reader_start_missing(struct feed *f);
void reader_tell_all(struct all_waiter *w, int error);

/* reader_stream.c */
/* In the feed's list, to be sent after unlocking. NULL without memory. */
struct stream *stream_new_locked(struct feed *f, const struct window_range *range);
/* Send those in the list by send_next. Not under the lock: the remote may call back at once. */
void stream_send(struct stream *list);
void stream_drop_locked(struct reader *r, struct stream *s);
void stream_resume_locked(struct reader *r, struct stream *s);
void stream_set_class_locked(struct reader *r, struct stream *s, enum transfer_class class);

#endif
