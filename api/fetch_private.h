/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_API_FETCH_PRIVATE_H
#define ATTACHFS_API_FETCH_PRIVATE_H

/*
 * What the files of a fetch share. The machine is told at the top of fetch.c, which has what is sent and
 * what is done with bytes that come; fetch_refused.c has what follows when none come: LOG IN, RENEW,
 * and the words of why not. None of the functions below is called under the table's lock, and each may
 * be the fetch's end.
 */

#include "fetch.h"

#include <pthread.h>

#include "fetch_answer.h"

/*
 * The lock is held over call_gate_apply() (order: this, gate, engine), so that pause, resume and
 * cancel reach a transfer in the order in which they were asked for.
 */
struct fetches {
	pthread_mutex_t lock;
	struct fetch **buckets; /* lock, as all below; chained by id, never many in one */
	size_t n_buckets, n;	/* a power of two; fetches under way */
	uint64_t last;
	struct fetch_tags tags;
	struct fetch_hosts rangeless;
};

struct fetch {
	struct remote *remote;
	struct fetches *table;
	const struct fetch_source *source;
	struct fetch *next; /* lock */
	uint64_t id;
	struct remote_file file; /* url: NULL = none known */
	uint64_t position;	 /* of the next byte for the sink */
	uint64_t end;		 /* where it was asked to stop, UINT64_MAX = at the end */
	int64_t deadline_mono_ms;
	struct remote_fetch_sink sink;

	/* of the stream */
	bool begun;				   /* begin() was called */
	enum { AS_GIVEN, REMEMBERED, FRESH } link; /* of the url; since the last byte */
	unsigned resumes, fruitless;
	bool logged_in;	     /* again, since the last byte */
	int login;	     /* what came of that, see auth_done */
	bool switched;	     /* to another source */
	unsigned generation; /* of the credential sent */
	int64_t total;
	char etag[128];

	/* of the answer under way */
	bool good;   /* its bytes are content */
	bool ranged; /* asked with a Range */
	bool framed; /* its length is told; else: */
	bool held;   /* its last byte so far is held back, for there may be too many */
	char last;
	int verdict;	     /* 0 = goes on; 1 = all is there; or an error */
	uint64_t at;	     /* position of its next byte */
	uint64_t answer_end; /* UINT64_MAX = not told, nor known from the listing */
	uint64_t began_at;
	size_t error_bytes;
	char error_words[512]; /* the first of them, as text */

	/* lock: */
	unsigned refs;	   /* one is the machine's own */
	uint64_t transfer; /* 0 = none */
	unsigned sends,
		running; /* running: the number of the send whose transfer is not done, 0 = none */
	bool cancelled, paused;
	bool waiting; /* for a login, which holds a reference; who clears it goes on */
	enum transfer_class class;
};

/* fetch.c */
void fetch_unref(struct fetch *f);
/* It is over: the sink is told, and the machine's reference goes. */
void fetch_end(struct fetch *f, int error);
void fetch_send_or_end(struct fetch *f);

/* fetch_refused.c */
/* Ask for another link; @fresh: not one that is remembered. */
void fetch_renew(struct fetch *f, bool fresh);
void fetch_log_in(struct fetch *f);
/* The answer was an error's, with @status. */
void fetch_after_refusal(struct fetch *f, int status);
/* The answer was the page of a login in place of the bytes. */
void fetch_after_login_page(struct fetch *f);

/* fetch_table.c. An id counts from 1; the slot that leads to it, which holds NULL where there is none. */
void fetches_add(struct fetches *t, struct fetch *f);
struct fetch **fetches_find_locked(struct fetches *t, uint64_t id);
void fetches_remove(struct fetch *f);

#endif
