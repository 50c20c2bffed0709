/* SPDX-License-Identifier: MIT */
#ifndef API_CALL_H
#define API_CALL_H

/*
 * One JSON exchange with a server's API, on top of the engine: build a request, send it with the
 * credential, collect the answer within bounds, parse it on the pool, turn a failure into an errno
 * and the server's own words, and read the credentials again once on 401.
 *
 *	struct call *c = call_new(r, class, "POST", url, endpoint);
 *	call_set_json_take(c, body);
 *	return call_start(c, done, op);
 *
 * Builders may fail for lack of memory: the call remembers, and call_start() says so.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <attachfs/remote.h>

#define CALL_MESSAGE_MAX 256

/*
 * The door through which a client reaches its engine. Once closed nothing goes through any more,
 * and nobody is in it: the engine may be freed.
 */
struct call_gate;
struct call_gate *call_gate_new(void);
void call_gate_close(struct call_gate *gate);
void call_gate_free(struct call_gate *gate);

/* transfer_start() through the gate; -ECANCELED when it is closed. */
int call_gate_start(struct remote *r, const struct transfer_spec *spec, uint64_t *ret_id);

/* transfer_cancel(), _pause(), _resume() through the gate; nothing when it is closed. */
void call_gate_apply(struct remote *r, void (*what)(struct engine *engine, uint64_t id),
		     uint64_t id);
/*
 * Cancel the transfer whose id a start through the gate may be writing to *@transfer; 0 = none yet.
 */
void call_gate_cancel_at(struct remote *r, const uint64_t *transfer);
void call_gate_set_class(struct remote *r, uint64_t id, enum transfer_class class);

struct call_reply {
	/*
	 * 0: 2xx and JSON. Else as in remote.h, by the common table of the reference; -EOVERFLOW:
	 * the answer was larger than max_body.
	 */
	int error;
	int status;	     /* 0 = no answer came */
	bool sent;	     /* without an answer: it may have been done all the same */
	const json_t *json;  /* also of an error when it was JSON; else NULL. Borrowed. */
	const char *message; /* the server's words or the engine's, redacted; never NULL */
	int64_t rate_limit, rate_remaining; /* -1 = not told */
	int64_t date_s;			    /* the server's clock, -1 = not told */
	const char *header;		    /* of call_want_headers(); NULL = none of them came */
	/* The answer as it came, for those that are no JSON. Borrowed; NULL = none. */
	const char *body;
	size_t body_len;
};
typedef void call_done(void *ctx, const struct call_reply *reply);

struct call;

/* NULL without memory, which the other functions tolerate. @url and @endpoint are copied. */
struct call *call_new(struct remote *r, enum transfer_class class, const char *method,
		      const char *url, const char *endpoint);
void call_add_header(struct call *c, const char *name, const char *value);
void call_set_json_take(struct call *c, json_t *body);
void call_add_field(struct call *c, const char *name, const char *value);
void call_add_data(struct call *c, const char *name, const char *filename, const void *data,
		   size_t len);
/* @fd (-1 = no bytes) is borrowed until done(). */
void call_add_file(struct call *c, const char *name, const char *filename, int fd, uint64_t size);
/*
 * The same under headers of its own: the whole value of Content-Disposition, a Content-Type (NULL =
 * none said), and a Content-Length if @with_length.
 */
void call_add_file_as(struct call *c, const char *disposition, const char *content_type,
		      bool with_length, int fd, uint64_t size);
void call_set_multipart_type(struct call *c, const char *type); /* static; default: form-data */
/* A body that is no JSON; @type is static. */
void call_set_body(struct call *c, const char *type, const char *body, size_t len);
/* Goes without the credential, and knows no 401: a login. What it sent and got is wiped. */
void call_set_plain(struct call *c);
/* Success is success without JSON, too; then the reply's json is NULL. */
void call_set_any_answer(struct call *c);
/*
 * A redirect of a write, and an HTML page with status 200, are a login page: they count as 401.
 */
void call_set_login_page(struct call *c);
/*
 * Static: an answer 400 or 403 with these words in it (any case) is about the credential, too, and
 * counts as 401.
 */
void call_set_refusal_words(struct call *c, const char *words);
/* Static, ends with NULL: the first of these headers that the answer has is reply->header. */
void call_want_headers(struct call *c, const char *const *names);
void call_set_idempotent(struct call *c, bool idempotent);	  /* default: false */
void call_set_deadline(struct call *c, int64_t deadline_mono_ms); /* default: none */
void call_set_max_body(struct call *c, size_t max);		  /* default: 64 MiB */
/*
 * The answer's body also goes to @tap as it comes, on the transfer thread; with NULL first, each
 * time that the call is made. Over before done().
 */
void call_set_tap(struct call *c, void (*tap)(void *ctx, const void *data, size_t len), void *ctx);
void call_set_scope(struct call *c, const char *scope); /* static; what a key needs, said on 403 */
void call_set_trace_header(struct call *c,
			   const char *name); /* static; an answer's header to log */

/*
 * Consumes the call. 0: done() will come, on the pool. -ENOMEM, -EINVAL, -ECANCELED: it will not.
 */
int call_start(struct call *c, call_done *done, void *ctx);

/* What call_wait() brings: a copy of the reply, @json too. */
struct call_waited {
	int error, status;
	json_t *json;
	char message[CALL_MESSAGE_MAX], header[256];
};
/*
 * Start it and wait for the end, on a thread that may; given up when *@stop turns true. ret->error
 * is returned, also when the call could not be started. Clear *@ret in any case.
 */
int call_wait(struct call *c, const _Atomic bool *stop, struct call_waited *ret);
void call_waited_clear(struct call_waited *w);

/*
 * The end of remote_ops.record_json: @fields as pretty text, when @error is 0. Calls @done.
 */
void call_give_fields(int error, const json_t *fields, const char *message, remote_text_done *done,
		      void *ctx);

/* Pure: the common table of the reference (README.md), 0 for 2xx. */
int call_status_errno(int status);

/*
 * Pure: what the body of an error says, for a person: error.message (or error_description, message,
 * Message, error) and the first of error.errors, or of details; the title of an HTML page; else "".
 * Redacted, at most @size - 1 bytes, one line.
 */
void call_find_words(const json_t *json, const char *body, size_t len, char *out, size_t size);

/* The errno for an error of the engine. */
int call_transfer_errno(int error);

#endif
