/* SPDX-License-Identifier: MIT */

/*
 * One exchange: bytes are collected on the transfer thread, everything else happens on the pool.
 *
 *	call_start -> send -> [transfer: on_head, on_data, on_done] -> pool: finish
 *	                ^                                                |
 *	                +-------- auth_reload: another secret <-- 401 ---+--> done()
 *
 * The request is kept until the end, so that it can be sent again after a 401. Only a header that
 * was refused is ever replaced: what failed otherwise is not repeated here (the engine has done so
 * where it was harmless).
 */

#include "call.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <attachfs/log.h>
#include <attachfs/waiting.h>

#include "auth.h"
#include "json.h"

#define HEADERS_MAX	 8
#define LOGINS_MAX	 2 /* a token that expires at once ends nothing */
#define MAX_BODY_DEFAULT ((size_t)64 << 20)

struct call {
	struct remote *remote;
	enum transfer_class class;
	const char *method, *scope, *trace_header, *refusal_words;
	char *url, *endpoint;
	char *headers[HEADERS_MAX + 1];
	size_t n_headers;
	char *body;
	size_t body_len;
	struct transfer_part *parts; /* their strings and data are ours */
	size_t n_parts, parts_size;
	const char *content_type, *multipart_type;
	const char *const *wanted_headers;
	bool idempotent, broken, plain, any_answer, login_page;
	int64_t deadline_mono_ms;
	size_t max_body;
	void (*tap)(void *ctx, const void *data, size_t len);
	void *tap_ctx;
	call_done *done;
	void *ctx;

	bool retried;	     /* after a 401 */
	bool refused;	     /* not sent: no login to send it with */
	unsigned logins;     /* before it could be sent */
	unsigned generation; /* of the credential sent */

	/* The answer: written on the transfer thread, read on the pool after on_done(). */
	char *answer;
	size_t answer_len, answer_size;
	bool too_large;
	int64_t rate_limit, rate_remaining, date_s;
	char trace[64], header[256];
	bool html;
	struct transfer_result result;
	uint64_t *ret_transfer; /* of call_wait(): written within the gate */
};

/* A plain call is a login perhaps: passwords go, tokens come. */
static void wipe(struct call *c)
{
	for (size_t i = 0; i < c->n_headers; i++)
		explicit_bzero(c->headers[i], strlen(c->headers[i]));
	for (size_t i = 0; i < c->n_parts; i++)
		if (c->parts[i].data)
			explicit_bzero((void *)c->parts[i].data, c->parts[i].len);
	if (c->url)
		explicit_bzero(c->url, strlen(c->url));
	if (c->body)
		explicit_bzero(c->body, c->body_len);
	if (c->answer)
		explicit_bzero(c->answer, c->answer_size);
}

static void call_free(struct call *c)
{
	if (!c)
		return;
	if (c->plain)
		wipe(c);
	for (size_t i = 0; i < c->n_headers; i++)
		free(c->headers[i]);
	for (size_t i = 0; i < c->n_parts; i++) {
		free((char *)c->parts[i].name);
		free((char *)c->parts[i].filename);
		free((char *)c->parts[i].content_type);
		free((char *)c->parts[i].disposition);
		free((void *)c->parts[i].data);
	}
	free(c->parts);
	free(c->url);
	free(c->endpoint);
	free(c->body);
	free(c->answer);
	free(c);
}

struct call *call_new(struct remote *r, enum transfer_class class, const char *method,
		      const char *url, const char *endpoint)
{
	struct call *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->remote = r;
	c->class = class;
	c->method = method;
	c->max_body = MAX_BODY_DEFAULT;
	c->url = url ? strdup(url) : NULL;
	c->endpoint = endpoint ? strdup(endpoint) : NULL;
	c->broken = !c->url || !c->endpoint;
	call_add_header(c, "Accept", "application/json");
	return c;
}

void call_add_header(struct call *c, const char *name, const char *value)
{
	if (!c || c->broken)
		return;
	if (c->n_headers == HEADERS_MAX ||
	    asprintf(&c->headers[c->n_headers], "%s: %s", name, value) < 0) {
		c->broken = true;
		return;
	}
	c->headers[++c->n_headers] = NULL;
}

void call_set_json_take(struct call *c, json_t *body)
{
	if (c && body) {
		c->body = json_dumps(body, JSON_COMPACT);
		c->body_len = c->body ? strlen(c->body) : 0;
	}
	if (c && !c->body)
		c->broken = true;
	if (c)
		c->content_type = "application/json";
	json_decref(body);
}

void call_set_body(struct call *c, const char *type, const char *body, size_t len)
{
	if (!c || c->broken)
		return;
	c->content_type = type;
	c->body = malloc(len + 1);
	c->broken |= !c->body;
	if (c->body) {
		memcpy(c->body, body, len);
		c->body[len] = '\0';
		c->body_len = len;
	}
}

static char *copy_text(struct call *c, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	c->broken |= text && !copy;
	return copy;
}

/* A part with its strings copied; NULL when there is no room. */
static struct transfer_part *add_part(struct call *c, const char *name, const char *filename)
{
	if (!c || c->broken)
		return NULL;
	if (c->n_parts == c->parts_size) {
		size_t size = c->parts_size ? 2 * c->parts_size : 8;
		struct transfer_part *grown = realloc(c->parts, size * sizeof(*grown));
		c->broken |= !grown;
		if (!grown)
			return NULL;
		c->parts = grown;
		c->parts_size = size;
	}
	struct transfer_part *part = &c->parts[c->n_parts++];
	*part = (struct transfer_part){.fd = -1};
	part->name = copy_text(c, name);
	part->filename = copy_text(c, filename);
	return part;
}

void call_add_data(struct call *c, const char *name, const char *filename, const void *data,
		   size_t len)
{
	struct transfer_part *part = add_part(c, name, filename);

	if (!part)
		return;
	void *copy = malloc(len + 1);
	c->broken |= !copy;
	if (copy) {
		memcpy(copy, data, len);
		part->data = copy;
		part->len = len;
	}
}

void call_add_field(struct call *c, const char *name, const char *value)
{
	call_add_data(c, name, NULL, value, strlen(value));
}

void call_add_file(struct call *c, const char *name, const char *filename, int fd, uint64_t size)
{
	struct transfer_part *part = add_part(c, name, filename);

	if (part) {
		part->fd = fd;
		part->fd_len = size;
	}
}

void call_add_file_as(struct call *c, const char *disposition, const char *content_type,
		      bool with_length, int fd, uint64_t size)
{
	struct transfer_part *part = add_part(c, NULL, NULL);

	if (!part)
		return;
	part->disposition = copy_text(c, disposition);
	part->content_type = copy_text(c, content_type);
	part->with_length = with_length;
	part->fd = fd;
	part->fd_len = size;
}

void call_set_multipart_type(struct call *c, const char *type)
{
	if (c)
		c->multipart_type = type;
}

void call_set_plain(struct call *c)
{
	if (c)
		c->plain = true;
}

void call_set_any_answer(struct call *c)
{
	if (c)
		c->any_answer = true;
}

void call_set_login_page(struct call *c)
{
	if (c)
		c->login_page = true;
}

void call_set_refusal_words(struct call *c, const char *words)
{
	if (c)
		c->refusal_words = words;
}

void call_want_headers(struct call *c, const char *const *names)
{
	if (c)
		c->wanted_headers = names;
}

void call_set_idempotent(struct call *c, bool idempotent)
{
	if (c)
		c->idempotent = idempotent;
}

void call_set_deadline(struct call *c, int64_t deadline_mono_ms)
{
	if (c)
		c->deadline_mono_ms = deadline_mono_ms;
}

void call_set_max_body(struct call *c, size_t max)
{
	if (c)
		c->max_body = max;
}

void call_set_tap(struct call *c, void (*tap)(void *ctx, const void *data, size_t len), void *ctx)
{
	if (c) {
		c->tap = tap;
		c->tap_ctx = ctx;
	}
}

void call_set_scope(struct call *c, const char *scope)
{
	if (c)
		c->scope = scope;
}

void call_set_trace_header(struct call *c, const char *name)
{
	if (c)
		c->trace_header = name;
}

static bool on_head(void *ctx, const struct transfer_head *head)
{
	struct call *c = ctx;
	const char *trace = c->trace_header && head->get ? head->get(head, c->trace_header) : NULL;

	c->rate_limit = head->rate_limit;
	c->rate_remaining = head->rate_remaining;
	c->date_s = head->date_s;
	snprintf(c->trace, sizeof(c->trace), "%s", trace ? trace : "");
	for (size_t i = 0; c->wanted_headers && c->wanted_headers[i] && !c->header[0]; i++) {
		const char *value = head->get ? head->get(head, c->wanted_headers[i]) : NULL;
		snprintf(c->header, sizeof(c->header), "%s", value ? value : "");
	}
	c->html = strncasecmp(head->content_type, "text/html", 9) == 0;
	c->answer_len = 0;
	if (c->tap)
		c->tap(c->tap_ctx, NULL, 0);
	c->too_large = head->content_length > 0 && (uint64_t)head->content_length > c->max_body;
	return !c->too_large;
}

static bool on_data(void *ctx, const void *data, size_t len)
{
	struct call *c = ctx;

	if (len > c->max_body - c->answer_len) {
		c->too_large = true;
		return false;
	}
	if (c->tap)
		c->tap(c->tap_ctx, data, len);
	if (len > c->answer_size - c->answer_len) {
		size_t size = c->answer_size ? 2 * c->answer_size : 16384;
		while (size - c->answer_len < len)
			size *= 2;
		/* No realloc(): it would leave what is to be wiped. */
		char *grown = malloc(size);
		if (!grown)
			return false;
		if (c->answer_len > 0)
			memcpy(grown, c->answer, c->answer_len);
		if (c->answer && c->plain)
			explicit_bzero(c->answer, c->answer_size);
		free(c->answer);
		c->answer = grown;
		c->answer_size = size;
	}
	memcpy(c->answer + c->answer_len, data, len);
	c->answer_len += len;
	return true;
}

static int send_call(struct call *c);

static void finish(struct call *c, struct call_reply *reply)
{
	log_debug("call: %s: status=%d error=%d bytes=%zu request_id=%s", c->endpoint,
		  reply->status, reply->error, c->answer_len, c->trace);
	c->done(c->ctx, reply);
	call_free(c);
}

/* The credential is no good and there is no other: say so, in the state and to the caller. */
static void explain_refusal(struct call *c, struct call_reply *reply,
			    char message[CALL_MESSAGE_MAX])
{
	char words[CALL_MESSAGE_MAX], remedy[CALL_MESSAGE_MAX];

	auth_describe_remedy(c->remote->auth, remedy, sizeof(remedy));
	if (reply->status == 401 && remote_get_auth(c->remote, words) == REMOTE_AUTH_FAILED) {
		snprintf(message, CALL_MESSAGE_MAX, "%s", words);
		return;
	}
	snprintf(words, sizeof(words), "%s", message);
	if (reply->status == 401)
		snprintf(message, CALL_MESSAGE_MAX,
			 "the server refuses the credentials (401): %.60s; %.140s", words, remedy);
	else if (reply->status == 402)
		snprintf(message, CALL_MESSAGE_MAX,
			 "the organisation has no subscription (402): %.90s; renew it, then retry",
			 words);
	else if (c->scope)
		snprintf(message, CALL_MESSAGE_MAX, "%.150s; the credentials need the right %s",
			 words, c->scope);
	if (reply->status != 403)
		auth_note_failed(c->remote->auth, message);
}

static void describe_failure(struct call *c, struct call_reply *reply, const char *parse_error,
			     char message[CALL_MESSAGE_MAX])
{
	const char *system = c->remote->caps.system;

	if (c->too_large) {
		reply->error = -EOVERFLOW;
		snprintf(message, CALL_MESSAGE_MAX, "the answer is larger than %zu bytes",
			 c->max_body);
		return;
	}
	if (c->refused) {
		reply->error = -EACCES;
		if (remote_get_auth(c->remote, message) != REMOTE_AUTH_FAILED)
			snprintf(message, CALL_MESSAGE_MAX,
				 "not logged in: no token lasts long enough to be used");
		return;
	}
	if (c->result.error < 0) {
		reply->error = call_transfer_errno(c->result.error);
		snprintf(message, CALL_MESSAGE_MAX, "%.255s", c->result.message);
		return;
	}
	reply->error = call_status_errno(reply->status);
	if (reply->error == 0 && !reply->json && !c->any_answer) {
		reply->error = -EIO;
		snprintf(message, CALL_MESSAGE_MAX,
			 "the answer is not what %.32s sends: it is not JSON: %.150s",
			 system ? system : "the API", parse_error);
		return;
	}
	if (reply->error == 0)
		return;
	call_find_words(reply->json, c->answer, c->answer_len, message, 201);
	if (message[0] == '\0')
		snprintf(message, CALL_MESSAGE_MAX, "the server answered with status %d",
			 reply->status);
	if (reply->status >= 401 && reply->status <= 403 && !c->plain)
		explain_refusal(c, reply, message);
}

/* On the pool: the answer is parsed, named, and handed on. */
static void conclude(struct call *c)
{
	char message[CALL_MESSAGE_MAX] = "", parse_error[128] = "empty";
	struct call_reply reply = {
		.status = c->result.status,
		.sent = c->result.sent,
		.message = message,
		.rate_limit = c->rate_limit,
		.rate_remaining = c->rate_remaining,
		.date_s = c->date_s,
		.header = c->header[0] ? c->header : NULL,
		.body = c->answer_len ? c->answer : NULL,
		.body_len = c->answer_len,
	};
	json_t *json = NULL;

	if (c->result.error == 0 && c->answer_len > 0)
		json = json_parse(c->answer, c->answer_len, parse_error, sizeof(parse_error));
	reply.json = json;
	describe_failure(c, &reply, parse_error, message);
	if (reply.status != 0 && reply.status != 401 && !c->plain)
		auth_note_taken(c->remote->auth, c->generation);
	if (reply.error == 0 && !c->plain)
		auth_note_good(c->remote->auth);
	finish(c, &reply);
	json_decref(json);
}

static void conclude_job(void *ctx)
{
	conclude(ctx);
}

/* On the pool, after another secret was read. */
static void resend_job(void *ctx)
{
	struct call *c = ctx;
	int r = send_call(c);

	if (r == 0)
		return;
	c->refused = r == -EACCES;
	c->result = (struct transfer_result){.error = r};
	conclude(c);
}

static void run_on_pool(struct call *c, void (*job)(void *ctx))
{
	/* Without memory for a job it is done here: late, but done. */
	if (pool_run(c->remote->pool, job, c) < 0)
		job(c);
}

/* On a thread of auth's, which must only pass on. */
static void on_reload(void *ctx, int result)
{
	struct call *c = ctx;

	if (result < 0) {
		c->result = (struct transfer_result){.error = result};
		auth_describe_trouble(c->remote->auth, c->result.message,
				      sizeof(c->result.message));
		if (result == -ETIMEDOUT && !c->result.message[0])
			snprintf(c->result.message, sizeof(c->result.message), "no login in time");
	}
	c->refused = result == 0 && c->result.status == 0;
	run_on_pool(c, result > 0 ? resend_job : conclude_job);
}

/* Where others say 401, some servers lead to a page to log in on. */
static bool is_login_page(const struct call *c)
{
	if (!c->login_page)
		return false;
	if (c->result.error == -EPROTO)
		return c->result.status == 301 || c->result.status == 302;
	return c->result.error == 0 && c->result.status == 200 && c->html;
}

/* Where others say 401, some servers say another status, and why. */
static bool is_refusal(const struct call *c)
{
	size_t n = c->refusal_words ? strlen(c->refusal_words) : 0;

	if (n == 0 || c->result.error != 0 || (c->result.status != 400 && c->result.status != 403))
		return false;
	for (size_t i = 0; i + n <= c->answer_len; i++)
		if (strncasecmp(c->answer + i, c->refusal_words, n) == 0)
			return true;
	return false;
}

static void on_done(void *ctx, const struct transfer_result *result)
{
	struct call *c = ctx;

	c->result = *result;
	if (is_login_page(c))
		c->result = (struct transfer_result){.status = 401, .sent = true};
	if (is_refusal(c))
		c->result.status = 401;
	if (c->result.error == 0 && c->result.status == 401 && !c->retried && !c->plain) {
		c->retried = true;
		auth_reload(c->remote->auth, c->generation, c->deadline_mono_ms, on_reload, c);
		return;
	}
	run_on_pool(c, conclude_job);
}

static int send_call(struct call *c)
{
	char *credential = NULL;
	int r = c->plain ? 0 : auth_get_header(c->remote->auth, &credential, &c->generation);

	if (r == -EAGAIN && c->logins++ < LOGINS_MAX) {
		auth_reload(c->remote->auth, c->generation, c->deadline_mono_ms, on_reload, c);
		return 0;
	}
	if (r < 0)
		return r == -EAGAIN ? -EACCES : r;
	struct transfer_spec spec = {
		.class = c->class,
		.method = c->method,
		.url = c->url,
		.endpoint = c->endpoint,
		.headers = (const char *const *)c->headers,
		.credential = credential,
		.body = c->body,
		.body_len = c->body_len,
		.content_type = c->content_type,
		.parts = c->n_parts ? c->parts : NULL,
		.n_parts = c->n_parts,
		.multipart_type = c->multipart_type,
		.deadline_mono_ms = c->deadline_mono_ms,
		.idempotent = c->idempotent,
		.headers_cb = on_head,
		.data_cb = on_data,
		.done_cb = on_done,
		.ctx = c,
	};
	c->rate_limit = c->rate_remaining = c->date_s = -1;
	c->answer_len = 0;
	c->header[0] = '\0';
	r = call_gate_start(c->remote, &spec, c->ret_transfer);
	/* From here on c may be gone. */
	auth_free_header(credential);
	return r;
}

int call_start(struct call *c, call_done *done, void *ctx)
{
	int r = -ENOMEM;

	if (c && !c->broken) {
		c->done = done;
		c->ctx = ctx;
		r = send_call(c);
	}
	if (r < 0)
		call_free(c);
	return r;
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t came;
	bool there; /* lock */
	struct call_waited *ret;
};

static void on_waited(void *ctx, const struct call_reply *reply)
{
	struct waiter *w = ctx;
	struct call_waited *ret = w->ret;

	ret->error = reply->error;
	ret->status = reply->status;
	/* No reference: jansson's counts are not made for two threads. */
	ret->json = json_deep_copy(reply->json);
	snprintf(ret->message, sizeof(ret->message), "%s", reply->message);
	snprintf(ret->header, sizeof(ret->header), "%s", reply->header ? reply->header : "");
	pthread_mutex_lock(&w->lock);
	w->there = true;
	pthread_cond_signal(&w->came);
	pthread_mutex_unlock(&w->lock);
}

/* The time of day may be set while one waits. */
static void init_waiter(struct waiter *w)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->came, &attr);
	pthread_condattr_destroy(&attr);
}

int call_wait(struct call *c, const _Atomic bool *stop, struct call_waited *ret)
{
	struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .ret = ret};
	struct remote *r = c ? c->remote : NULL;
	uint64_t transfer = 0;
	int error = -ECANCELED;

	waiting_begin(c && c->endpoint ? c->endpoint : "a call");
	init_waiter(&w);
	*ret = (struct call_waited){0};
	if (c)
		c->ret_transfer = &transfer;
	if (stop && *stop)
		call_free(c);
	else
		error = call_start(c, on_waited, &w);
	if (error < 0) {
		ret->error = error;
		snprintf(ret->message, sizeof(ret->message), "%s", strerror(-error));
		pthread_cond_destroy(&w.came);
		return error;
	}
	/* From here on the reply may have filled *ret in. */
	pthread_mutex_lock(&w.lock);
	while (!w.there) {
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += 100000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&w.came, &w.lock, &until);
		if (stop && *stop && !w.there)
			call_gate_cancel_at(r, &transfer);
	}
	pthread_mutex_unlock(&w.lock);
	pthread_cond_destroy(&w.came);
	return ret->error;
}

void call_waited_clear(struct call_waited *w)
{
	json_decref(w->json);
	*w = (struct call_waited){0};
}

void call_give_fields(int error, const json_t *fields, const char *message, remote_text_done *done,
		      void *ctx)
{
	char *text = error == 0 ? json_dumps(fields, JSON_INDENT(2)) : NULL, *line = NULL;

	if (error == 0 && (!text || asprintf(&line, "%s\n", text) < 0)) {
		error = -ENOMEM;
		line = NULL;
	}
	done(ctx, error, line, line ? strlen(line) : 0, message);
	free(line);
	free(text);
}
