/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_TRANSFER_H
#define ATTACHFS_TRANSFER_H

/*
 * The HTTP engine: every byte to or from a server goes through one of these. An engine owns one
 * thread with one curl_multi handle; callers on any thread hand it transfers, which it runs side by
 * side, at most `slots` to a host.
 *
 * Life of a transfer:
 *
 *	WAITING   in its class's queue: no slot free, host frozen by a rate limit, or backing off between tries
 *	RUNNING   on the wire; headers() then data() as the answer arrives; PAUSED while data() says so
 *	DONE      done() was called, exactly once, whatever happened; the transfer is freed after it returns
 *
 * A queue is served in the order of enum transfer_class, first come first served within a class;
 * the last slot of a host is kept for TRANSFER_INTERACTIVE. So is what is left of a rate limit's
 * window, half of it at the begin and less and less towards the end: the others go at the pace that
 * uses up the rest by then.
 *
 * What the engine does by itself, so that nobody else has to:
 * - retries, by transfer_retry_decide() below, while the spec allows it and its deadline is not
 *   past;
 * - the rate limit of a host: X-RateLimit-*, Retry-After, and a 429 with neither (freeze 60 s,
 *   P-14), which tells the limit all the same, by the number of calls before it;
 * - the breaker: after 3 failures to reach a host in a row the host is OFFLINE: transfers fail at
 *   once with -EHOSTDOWN but for one probe at a time, which is let through after a growing pause
 *   (1 s .. 30 s). Those that retry for ever wait in their queue instead. The engine probes its origin
 *   by itself, by a connection over which nothing is asked. Only a host that cannot be reached counts,
 *   one whose certificate is no good among them, not one that is silent;
 * - protocols (https; http as allowed), at most 5 redirects, none from https to http, none of a
 *   write by 301 or 302
 *   (-EPROTO), and no credential to any other origin than the one the engine was made for, nor on the way back;
 * - counting requests and bytes per endpoint.
 *
 * A paused transfer holds no slot (its connection counts towards 4 x slots). A frozen host's
 * transfers wait, at most until their deadline; one whose own 429 says to come back after its
 * deadline is done at once with that 429.
 *
 * Threads: transfer_*() and engine_*() from any thread. Callbacks run on the transfer thread, hold
 * no lock, must not block, and may call transfer_*() themselves.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum transfer_class {
	TRANSFER_INTERACTIVE, /* a program waits for it */
	TRANSFER_WRITEBACK,
	TRANSFER_PREFETCH,
	TRANSFER_REFRESH,
	TRANSFER_CLASSES
};

enum engine_state { ENGINE_ONLINE, ENGINE_OFFLINE, ENGINE_THROTTLED };

struct engine;

struct engine_config {
	const char *origin; /* base URL whose scheme, host and port may see credentials */
	unsigned slots;	    /* transfers at a time per host, >= 2 */
	const char *cacert; /* PEM file, NULL = the system's */
	const char *proxy;  /* NULL = from the environment */
	/*
	 * Of all bodies together, bytes a second; 0 = no limit. Each class has its share, and what others leave;
	 * TRANSFER_INTERACTIVE has most.
	 */
	uint64_t up_bytes_s, down_bytes_s;
	bool insecure_http; /* plain http to hosts that are not loopback */
	unsigned connect_timeout_ms;
	/*
	 * a running transfer without progress for so long (or next to none: less than 64 bytes a
	 * second) fails with -ETIMEDOUT; 0 = 30 s
	 */
	unsigned stall_ms;
	/*
	 * Called on the transfer thread when the state of the origin changes, and when THROTTLED is
	 * prolonged; @until_real_ns: when a throttle ends, else 0. May be NULL.
	 */
	void (*state_changed)(void *ctx, enum engine_state state, int64_t until_real_ns);
	void *ctx;
};

/* Start the thread. 0, -ENOMEM, -EINVAL (origin is no URL), or -errno of pthread_create. */
int engine_new(const struct engine_config *config, struct engine **ret_engine);

/*
 * Cancels what is left (each gets its done() with -ECANCELED), joins, frees. Not from a callback.
 * NULL is fine.
 */
void engine_free(struct engine *engine);

enum engine_state engine_get_state(struct engine *engine, int64_t *ret_until_real_ns);

/*
 * How many calls that no program waits for would go to the origin now, rather than wait for its rate
 * limit; UINT_MAX = it is not known to have one.
 */
unsigned engine_get_room(struct engine *engine);

/* Why the origin cannot be reached, in words for a person; "" while it is not OFFLINE. */
void engine_describe_trouble(struct engine *engine, char *out, size_t size);

/*
 * The time of day at the origin: by the Date of its last answer, and from there by the clock that does not
 * jump. Before any answer it is this machine's.
 */
int64_t engine_server_ns(struct engine *engine);

/* Forget the breaker and the back-offs: the user or the kernel says that the network is back. */
void engine_retry_now(struct engine *engine);

struct engine_counter {
	const char *endpoint;		     /* as given in the spec; "" for none */
	uint64_t requests;		     /* sent on the wire, retries and redirects counted */
	uint64_t bytes_sent, bytes_received; /* of bodies */
};

/*
 * Hand each endpoint's counter to @each under no lock that a transfer waits for. Totals in
 * @ret_total (may be NULL).
 */
void engine_count(struct engine *engine, void (*each)(void *ctx, const struct engine_counter *c),
		  void *ctx, struct engine_counter *ret_total);

/* What the answer's head said. Pointers are valid during the call. */
struct transfer_head {
	int status;
	int64_t content_length;		  /* -1 = not said */
	bool has_range;			  /* 206 or 416 with a Content-Range that could be parsed */
	uint64_t range_first, range_last; /* of a 206 */
	int64_t range_total;		  /* -1 = "*" */
	const char *content_type;	  /* "" = none */
	const char *content_encoding;	  /* "" = none */
	const char *etag;		  /* "" = none; quotes kept */
	const char *location;		  /* "" = none */
	int64_t last_modified_s;	  /* -1 = none */
	int64_t date_s;			  /* server's clock, -1 = none */
	int64_t rate_limit, rate_remaining; /* X-RateLimit-*, -1 = none */
	/* Any other header of the final answer by name (case does not matter); NULL = none. */
	const char *(*get)(const struct transfer_head *head, const char *name);
	void *priv;
};

struct transfer_result {
	/*
	 * 0: an answer arrived whole (whatever its status). Else -EHOSTDOWN (cannot be reached, or
	 * not by TLS that proves who it is, or the breaker is open), -ETIMEDOUT (deadline or stall),
	 * -ECANCELED, -EPROTO (a forbidden protocol, redirect or malformed answer), -ECONNRESET (the
	 * connection broke), -EIO (a callback refused, or a part's file cannot be read), -ENOMEM.
	 */
	int error;
	int status; /* the last answer's, 0 = none came */
	bool sent; /* the request may have reached the server: with an error, the outcome is unknown */
	unsigned tries;
	uint64_t received; /* body bytes given to data() */
	char message
		[256]; /* redacted words for a person: "TLS: certificate has expired", "429: ..." */
};

/* One part of a multipart body. Strings are copied by transfer_start(). */
struct transfer_part {
	const char *name;
	const char *filename;	  /* NULL = a plain field */
	const char *content_type; /* NULL = none said */
	/* NULL = form-data with name and filename; else the header's whole value */
	const char *disposition;
	bool with_length; /* a Content-Length among the part's own headers */
	const void *data; /* copied; used when fd < 0 */
	size_t len;
	int fd; /* >= 0: the part is bytes [fd_off, fd_off + fd_len); dup'ed by transfer_start() */
	uint64_t fd_off, fd_len;
};

struct transfer_spec {
	enum transfer_class class;
	const char *method;
	const char *url;
	const char *endpoint; /* what it is counted under, e.g. "PATCH /v2/attachments/batch" */
	const char *const *headers; /* "Name: value", NULL-terminated; copied */
	/* whole header line with the secret; sent to the engine's origin only */
	const char *credential;
	const void *body; /* copied; NULL = none, unless there are parts */
	size_t body_len;
	const char *content_type;	   /* of body */
	const struct transfer_part *parts; /* multipart instead of body */
	size_t n_parts;
	const char *multipart_type; /* NULL = "multipart/form-data" */
	bool has_range;
	uint64_t range_first;
	uint64_t range_len;	  /* 0 = to the end */
	const char *if_range;	  /* ETag; NULL = none */
	int64_t deadline_mono_ms; /* clock_mono_ms() after which it fails with -ETIMEDOUT; 0 = none */
	bool idempotent;	  /* may be sent again when its outcome is unknown */
	bool retry_for_ever;	  /* background: retry until the deadline or cancellation */
	uint64_t max_body;	  /* answer's body limit, 0 = none; over it: -EPROTO */

	/*
	 * The head of the final answer (redirects followed, retried answers not shown). Once it was
	 * given there is no retry any more: the caller goes on by range. Return false to end the
	 * transfer with -EIO; may be NULL.
	 */
	bool (*headers_cb)(void *ctx, const struct transfer_head *head);
	/*
	 * Body bytes in order. Return true, or false to refuse (-EIO). To stop the flow for a
	 * while, call transfer_pause() and return true: these bytes are taken. May be NULL: bytes
	 * are dropped. Not called for answers that are retried.
	 */
	bool (*data_cb)(void *ctx, const void *data, size_t len);
	/* Exactly once. */
	void (*done_cb)(void *ctx, const struct transfer_result *result);
	void *ctx;
};

/*
 * Hand over a transfer. 0 and the id in *@ret_id (may be NULL; set before any callback runs); or
 * -EINVAL (no URL, one with a user in it, forbidden protocol, control characters in a header),
 * -ENOMEM, -EMFILE, -ECANCELED (the engine is being freed), and then no callback is ever called.
 * done() may run before this returns.
 */
int transfer_start(struct engine *engine, const struct transfer_spec *spec, uint64_t *ret_id);

/*
 * The following take the id of transfer_start() and do nothing when that transfer is done: ids are
 * never reused, so a late call is harmless. None waits.
 */
void transfer_cancel(struct engine *engine, uint64_t id); /* done() follows with -ECANCELED */
void transfer_pause(struct engine *engine, uint64_t id);
void transfer_resume(struct engine *engine, uint64_t id);
void transfer_set_class(struct engine *engine, uint64_t id, enum transfer_class class);

/* What to do after a try, a pure function: see api/retry.c. */
enum transfer_verdict { TRANSFER_FINISH, TRANSFER_RETRY };
struct transfer_try {
	int error; /* as in transfer_result, 0 = an answer; -ETIMEDOUT and not sent: no connection in time */
	int status;
	bool sent, idempotent, retry_for_ever;
	unsigned tries;		     /* this one counted */
	int64_t retry_after_ms;	     /* -1 = not said */
	int64_t now_ms, deadline_ms; /* deadline 0 = none */
	uint32_t random;	     /* for the jitter */
};
/* *@ret_wait_ms: how long until the next try. */
enum transfer_verdict transfer_retry_decide(const struct transfer_try *t, int64_t *ret_wait_ms);

/*
 * Retry-After: seconds or an HTTP date, relative to @now_s. Milliseconds from now (0..1 day), -1 =
 * no such thing.
 */
int64_t transfer_parse_retry_after(const char *value, int64_t now_s);

/*
 * "bytes 0-99/200", the same with a star for an unknown total, or (unsatisfied) a star for the
 * range: 0, or -EINVAL, also on overflow, last < first, or last >= total.
 */
struct transfer_range {
	bool unsatisfied;
	uint64_t first, last;
	int64_t total;
};
int transfer_parse_content_range(const char *value, struct transfer_range *ret_range);

#endif
