/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_API_ENGINE_H
#define ATTACHFS_API_ENGINE_H

/*
 * Inside the HTTP engine; nobody but api/engine_*.c includes this. The contract is
 * attachfs/transfer.h.
 *
 *	engine.c           the handle, its thread and loop, the id table, transfer_*() from
 *	                   other threads
 *	engine_transfer.c  a transfer from acceptance over tries, retries and redirects to done()
 *	engine_spec.c      checks and copies what transfer_start() was given
 *	engine_wire.c      one request on the wire: the curl easy handles and their options
 *	engine_answer.c    what comes back: head, body
 *	engine_error.c     curl's results as errno and as words
 *	engine_host.c      per host: queues, slots, breaker
 *	engine_rate.c      per host: rate limit
 *	engine_knock.c     whether a host that could not be reached can be
 *	engine_timer.c     a heap of timers
 *	engine_count.c     counters
 *	engine_url.c       which URLs are allowed, and whose they are
 *
 * Threads: everything belongs to the transfer thread, but for what engine->lock guards, and for
 * atomics. engine->lock is the only lock; nothing is called while it is held.
 */

#include <attachfs/transfer.h>

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "bandwidth.h"

#define ENGINE_REDIRECTS_MAX	  5
#define ENGINE_HEAD_MAX		  (256 * 1024) /* bytes of headers of one answer */
#define ENGINE_DISCARD_MAX	  (64 * 1024) /* of a body nobody wants; more, and the connection goes */
#define ENGINE_STALL_DEFAULT_MS	  30000
#define ENGINE_SLOWEST_BYTES	  64 /* a second: what brings less has stalled */
#define ENGINE_CONNECT_DEFAULT_MS 10000
#define ENGINE_FREEZE_MS	  60000 /* for a 429 that says nothing (P-14) */
#define ENGINE_WINDOW_MS	  60000 /* of a rate limit, from its first call (P-14) */

struct host;
struct transfer;
struct wire;

/* Timers: a binary heap; a timer knows its place, so that moving and removing it costs O(log n). */

struct timer {
	int64_t at_ms;
	size_t place; /* index + 1 in the heap, 0 = not set */
	void (*fire)(struct engine *engine, struct timer *timer, int64_t now_ms);
};

struct timers {
	struct timer **heap;
	size_t used, size;
	size_t made; /* set or not: as many may be set at a time */
};

/* One more timer, or one less: there is room for all of them, so that timer_set() cannot fail. */
int timers_add(struct timers *timers);
void timers_drop(struct timers *timers);
void timer_set(struct timers *timers, struct timer *timer, int64_t at_ms);
void timer_clear(struct timers *timers, struct timer *timer);
void timers_fire(struct engine *engine, int64_t now_ms);
/* Milliseconds to the next one, at most @max_ms. */
int timers_wait_ms(const struct timers *timers, int64_t now_ms, int max_ms);

/* URLs */

struct origin {
	char *key; /* "https://host:443", in lower case: equal keys are equal origins */
	bool https, loopback;
};

/* 0, -EINVAL (no http or https URL, or one with a user in it), -ENOMEM. */
int origin_parse(const char *url, struct origin *ret_origin);
void origin_clear(struct origin *origin);
/* @location relative to @base; the result is malloc'ed. 0, -EINVAL, -ENOMEM. */
int url_resolve(const char *base, const char *location, char **ret_url);

/* Rate limit: how many calls a host still takes. Pure but for the times passed in. */

struct rate {
	int64_t limit;		/* -1 = never said */
	bool guessed;		/* ... nor will it be: learned from a 429 */
	int64_t remaining;	/* our estimate of what is left in this window, -1 = unknown */
	int64_t seen;		/* X-RateLimit-Remaining as last seen, -1 = not in this window */
	int64_t window_end_ms;	/* valid while seen >= 0 */
	int64_t frozen_till_ms; /* 0 = not frozen */
	/* The window as we count it, from a first call on; its end is 0 when none began. */
	int64_t sent, answered, count_end_ms;
	unsigned full; /* used up since the limit was guessed */
};

void rate_init(struct rate *rate);
void rate_request(struct rate *rate, int64_t now_ms);
/* An answer's headers; @pending = requests of ours whose answer is still to come. */
void rate_answer(struct rate *rate, int64_t limit, int64_t remaining, unsigned pending,
		 unsigned slots, int64_t now_ms);
/* A 429 that says to come back after @retry_ms (-1 = not said): before rate_freeze(). */
void rate_refused(struct rate *rate, int64_t limit, int64_t retry_ms, int64_t now_ms);
void rate_freeze(struct rate *rate, int64_t till_ms);
/* How many calls of no program may go now, UINT_MAX = no limit is known. */
unsigned rate_room(struct rate *rate, int64_t now_ms);
/* 0 = a call of @class may go now, else when to ask again, and when all may go again. */
int64_t rate_wait_till(struct rate *rate, enum transfer_class class, int64_t now_ms,
		       int64_t *ret_end_ms);

/* Counters: a list that only grows, so that engine_count() can walk it without a lock. */

struct counter {
	struct counter *next;
	_Atomic uint64_t requests, bytes_sent, bytes_received;
	char endpoint[];
};

struct counters {
	_Atomic(struct counter *) first;
	struct counter **table; /* by hash of the endpoint; transfer thread only */
	size_t used, size;
};

/* Never NULL once counters_init() was 0: what cannot get a counter of its own is counted under "".
 */
int counters_init(struct counters *counters);
struct counter *counter_get(struct counters *counters, const char *endpoint);
void counters_free(struct counters *counters);

/* Hosts */

struct queue {
	struct transfer *first, *last;
};

/*
 * Breaker:
 *
 *	CLOSED    all may go; `failures` in a row are counted, any answer clears them
 *	OPEN      after 3; only one probe at a time, and not before probe_at_ms. An answer closes
 * it, a failed probe doubles the pause. What may not wait fails at once.
 */
struct host {
	struct host *next;	/* in engine->hosts */
	struct host *kick_next; /* in engine->kicked: host_serve() is due */
	bool kicked;
	struct origin origin;

	struct queue queues[TRANSFER_CLASSES];
	struct queue backoff; /* between tries, each with its timer */
	unsigned running;     /* on the wire, not paused */
	unsigned paused;      /* on the wire, paused */
	unsigned pending;     /* on the wire without an answer's head yet */

	struct rate rate;
	/*
	 * Something waited for the rate limit, whose window ends then; stays while anything is
	 * under way. 0 = nothing did.
	 */
	int64_t starved_till_ms;

	bool open;
	unsigned failures;
	int64_t pause_ms, probe_at_ms;
	struct transfer *probe;
	bool knocking; /* a knock is under way, or waits for its turn */
	char why[256]; /* in words, why it could not be reached last */

	struct timer timer; /* the next time at which waiting transfers may go by themselves */
};

struct host *host_get(struct engine *engine, const struct origin *origin);
void host_free(struct host *host);
void host_kick(struct engine *engine, struct host *host);
void hosts_serve(struct engine *engine);
/* Join the queue of the transfer's class, or its head if @again. */
void host_enqueue(struct engine *engine, struct transfer *t, bool again);
/* Leave whatever list of the host the transfer is in. */
void host_remove(struct engine *engine, struct transfer *t);
void host_wait(struct engine *engine, struct transfer *t, int64_t till_ms);
void host_started(struct engine *engine, struct transfer *t);
void host_paused(struct engine *engine, struct transfer *t, bool paused);
void host_answered(struct engine *engine, struct transfer *t);
void host_ended(struct engine *engine, struct transfer *t);
/* @words: why. */
void host_failed(struct engine *engine, struct host *host, struct transfer *t, const char *words);
void host_reached(struct engine *engine, struct host *host);
void host_freeze(struct engine *engine, struct host *host, int64_t till_ms);
/* True if a transfer that may not wait should fail now. */
bool host_refuses(const struct host *host, int64_t now_ms);
void host_retry_now(struct engine *engine, struct host *host);

/* Look by itself, at growing distances, until @host is reached. */
void knock_start(struct engine *engine, struct host *host);

/* A request on the wire. Kept in a free list: an easy handle is dear to make. */

struct wire {
	struct wire *next;
	CURL *easy;
	struct curl_slist *headers;
	curl_mime *mime;
	uint64_t counted; /* bytes of this try's body that the counter has */
	char *head;	  /* the answer's header lines, NUL between them */
	size_t head_len, head_size;
	char error[CURL_ERROR_SIZE];
};

struct wire *wire_get(struct engine *engine);
/* @clean: the request came to its end; otherwise the handle is not used again. */
void wire_put(struct engine *engine, struct wire *wire, bool clean);
void wire_free(struct wire *wire);
/* Set all options for the next try of @t. 0, -ENOMEM, -EPROTO. */
int wire_prepare(struct engine *engine, struct wire *wire, struct transfer *t);

/* Transfers */

enum transfer_state {
	TRANSFER_NEW,	  /* given by transfer_start(), not seen by the thread yet */
	TRANSFER_WAITING, /* in a queue of its host */
	TRANSFER_BACKOFF, /* between two tries */
	TRANSFER_RUNNING, /* on the wire */
};

/* Where a part's bytes are, for curl's read callback. */
struct part_reader {
	const struct transfer_part *part;
	struct transfer *t;
	uint64_t at, len;
};

struct transfer {
	/* engine->lock */
	struct transfer *hash_next;
	struct transfer *dirty_next, *dirty_prev;
	bool dirty; /* in engine->dirty: the thread is to look at it */
	enum transfer_class wish_class;
	/* written under engine->lock, read by the thread without */
	atomic_bool wish_pause, wish_cancel;

	/* immutable after transfer_start() */
	uint64_t id;
	struct transfer_spec spec; /* all pointers into `memory` */
	void *memory;
	size_t memory_len;
	struct part_reader *readers;

	/* the transfer thread */
	struct engine *engine;
	struct origin origin; /* of `url` */
	char *url;	      /* NULL = spec.url, else where a redirect led */
	struct host *host;
	struct counter *counter;
	enum transfer_state state;
	enum transfer_class class;
	struct transfer *next, *prev; /* in `list` */
	struct queue *list;
	struct timer timer;
	struct wire *wire;
	int64_t start_ms;
	int64_t retry_at_ms;
	unsigned tries, redirects;
	bool as_get;  /* a 303 led here: no body, GET */
	bool strayed; /* a redirect led to another origin: no credential any more */
	bool unknown; /* an earlier try may have been carried out */
	bool knock;   /* ends when the connection is made: engine_knock.c */

	/* this try */
	bool asked;    /* the request was (perhaps partly) written to a connection */
	bool resent;   /* curl wanted to send a second time what must not be */
	bool answered; /* the head is complete */
	bool clean;    /* curl found nothing wrong with it */
	bool shown;    /* headers_cb() or data_cb() had some: no retry any more */
	bool refused;  /* a callback said no */
	bool too_large, head_too_large, bad_file;
	bool held;	/* curl holds the flow because we said pause */
	bool throttled; /* ... or because its class has used up its share: on engine->throttled */
	struct transfer *throttled_next;
	enum { FLOW_GIVE, FLOW_RETRY, FLOW_REDIRECT } flow; /* what happens to the body */
	int64_t retry_wait_ms;
	int status;
	uint64_t received, discarded;
	int64_t retry_after_ms;
	uint64_t progress;
	unsigned stage; /* of the request, when progress was looked at */
	int64_t progress_ms;
};

/* Checks, copies. 0, -EINVAL, -ENOMEM, -errno of dup(). */
int transfer_new(struct engine *engine, const struct transfer_spec *spec, struct transfer **ret_t);
void transfer_free(struct transfer *t);

/* First look of the thread at a new transfer. */
void transfer_accept(struct engine *engine, struct transfer *t);
/* Put it on the wire; its host has a slot. */
void transfer_begin(struct engine *engine, struct transfer *t);
/* One of its callbacks refused what came: ends the try. NULL is fine. */
void transfer_refused(struct engine *engine, struct transfer *t);
/* curl is done with the try. */
void transfer_ended(struct engine *engine, struct transfer *t, CURLcode code);
/* End it in whatever state; @words may be NULL. The transfer is gone afterwards. */
/* @up bytes of the body of its try on the wire have gone so far. */
void transfer_count_sent(struct transfer *t, uint64_t up);
void transfer_finish(struct engine *engine, struct transfer *t, int error, const char *words);
void transfer_check_wishes(struct engine *engine, struct transfer *t, enum transfer_class class);
/* curl goes on with what it held; that may end the transfer. */
void transfer_go_on(struct engine *engine, struct transfer *t);
const char *transfer_url(const struct transfer *t);

/* Bandwidth: engine_throttle.c */

int throttle_init(struct engine *engine);
/* False: curl is to hold @t's flow; it goes on by itself when more of it may. */
bool throttle_may(struct transfer *t, struct bandwidth *b);
void throttle_leave(struct engine *engine, struct transfer *t);

/* The answer */

size_t answer_header(char *line, size_t size, size_t n, void *userdata);
size_t answer_body(char *data, size_t size, size_t n, void *userdata);
/*
 * Body bytes come from curl in pieces of 16 KiB. Those of one transfer that lie behind each other are
 * given to it together, by this at the latest, which is called whenever curl had its turn: nothing
 * stays here while the thread waits. From a callback of curl's nothing is ended yet.
 */
struct gathered {
	struct transfer *t; /* NULL = none */
	char *data;	    /* NULL without memory: pieces are given as they come */
	size_t used;
};
#define ENGINE_GATHER_BYTES (256u * 1024)
/* The transfer that refused what was given now, or NULL: to be ended with CURLE_WRITE_ERROR. */
struct transfer *answer_give_gathered(struct engine *engine);
/* Where a redirect leads; malloc'ed. 0, -EINVAL, -ENOMEM. */
int answer_redirect(const struct transfer *t, char **ret_url);

/* curl's result as one of the errors in struct transfer_result, and as words. */
int error_from_curl(const struct transfer *t, CURLcode code);
void error_words(const struct transfer *t, CURLcode code, char *ret_words, size_t size);
const char *status_words(int status);

struct engine {
	/* immutable */
	struct engine_config config; /* strings are ours */
	struct origin origin;
	pthread_t thread;
	CURLM *multi;
	struct gathered gathered; /* the transfer thread */

	pthread_mutex_t lock;	 /* the only one; held for a few instructions */
	struct transfer **table; /* lock: id -> transfer */
	size_t table_size, table_used;
	struct transfer *dirty, *dirty_last; /* lock */
	uint64_t last_id;		     /* lock */
	bool stop, retry_now;		     /* lock */
	bool ended;			     /* lock: no transfer is taken any more */
	enum engine_state state;	     /* lock; written by the thread only */
	int64_t until_real_ns;		     /* lock */
	char trouble[256];		     /* lock: why OFFLINE */
	unsigned room;			     /* lock: calls that the rate limit lets go now */

	/* the transfer thread */
	struct host **hosts;
	size_t hosts_size, hosts_used;
	struct host *origin_host;
	struct host *kicked;
	struct timers timers;
	struct wire *wires; /* idle */
	unsigned n_wires;
	struct bandwidth up, down;
	struct transfer *throttled; /* by throttled_next, who waits longest first */
	unsigned n_throttled;
	struct timer throttle_timer; /* runs while anybody is on the list */
	uint32_t random;
	struct counters counters; /* made by the thread, read by any */
	_Atomic int64_t server_less_mono_ns; /* the origin's time of day; 0 = not told yet */
};

/* Take @t over, as transfer_start() does. 0, or -ECANCELED: freed. */
int engine_add(struct engine *engine, struct transfer *t, uint64_t *ret_id);
/* Tell what the origin's state is now, if it changed. */
void engine_update_state(struct engine *engine);
uint32_t engine_random(struct engine *engine);
/* From now on the id of @t means nothing. */
void engine_forget(struct engine *engine, struct transfer *t);

#endif
