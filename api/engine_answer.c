/* SPDX-License-Identifier: MIT */

/*
 * What comes back. The head is collected line by line, NUL-terminated, as "name\0value\0" pairs;
 * when it is complete it is decided once what becomes of the answer: shown to the caller, thrown
 * away because the request is going to be repeated, or thrown away because it is a redirect. The
 * body follows that decision.
 *
 * Pausing: the caller's wish is only looked at when the next bytes come. They are left with curl
 * then (CURL_WRITEFUNC_PAUSE) and come again after a resume; so a pause from inside data_cb(), from
 * headers_cb() and from another thread are the same thing.
 */

#include "engine.h"

#include <attachfs/clock.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Collecting the head */

static char *head_room(struct wire *wire, size_t more)
{
	size_t size = wire->head_size ? wire->head_size : 1024;
	char *head;

	while (size < wire->head_len + more)
		size *= 2;
	if (size != wire->head_size) {
		head = realloc(wire->head, size);
		if (!head)
			return NULL;
		wire->head = head;
		wire->head_size = size;
	}
	return wire->head + wire->head_len;
}

static char *trim(char *text, char *end)
{
	while (text < end && (*text == ' ' || *text == '\t'))
		text++;
	while (end > text && strchr(" \t\r\n", end[-1]))
		end--;
	*end = '\0';
	return text;
}

/* Keep "name\0value\0"; a line that is no header is dropped. */
static bool keep_line(struct wire *wire, const char *line, size_t len)
{
	char *at = head_room(wire, len + 2), *colon, *value;
	size_t value_size;

	if (!at)
		return false;
	memcpy(at, line, len);
	at[len] = '\0';
	colon = memchr(at, ':', len);
	if (!colon || colon == at || memchr(at, '\0', len))
		return true;
	value = trim(colon + 1, at + len);
	trim(at, colon);
	value_size = strlen(value) + 1;
	colon = at + strlen(at) + 1;
	memmove(colon, value, value_size);
	wire->head_len = (size_t)(colon - wire->head) + value_size;
	return true;
}

static const char *head_get(const struct transfer_head *head, const char *name)
{
	const struct wire *wire = head->priv;
	const char *at = wire->head, *end = at + wire->head_len;

	while (at < end) {
		const char *value = at + strlen(at) + 1;

		if (!strcasecmp(at, name))
			return value;
		at = value + strlen(value) + 1;
	}
	return NULL;
}

/* Reading it */

static const char *get_text(const struct transfer_head *head, const char *name)
{
	const char *value = head_get(head, name);

	return value ? value : "";
}

static int64_t get_number(const struct transfer_head *head, const char *name)
{
	const char *value = head_get(head, name);
	char *end;
	long long number;

	if (!value || *value < '0' || *value > '9')
		return -1;
	errno = 0;
	number = strtoll(value, &end, 10);
	return errno || *end ? -1 : (int64_t)number;
}

static int64_t get_date(const struct transfer_head *head, const char *name)
{
	const char *value = head_get(head, name);

	return value ? (int64_t)curl_getdate(value, NULL) : -1;
}

static void read_range(struct transfer_head *head)
{
	const char *value = head_get(head, "Content-Range");
	struct transfer_range range;

	head->range_total = -1;
	if (!value || (head->status != 206 && head->status != 416))
		return;
	if (transfer_parse_content_range(value, &range) < 0 ||
	    range.unsatisfied != (head->status == 416))
		return;
	head->has_range = true;
	head->range_first = range.first;
	head->range_last = range.last;
	head->range_total = range.total;
}

static void read_head(struct transfer *t, struct transfer_head *head)
{
	*head = (struct transfer_head){.status = t->status, .get = head_get, .priv = t->wire};
	head->content_length =
		head_get(head, "Transfer-Encoding") ? -1 : get_number(head, "Content-Length");
	read_range(head);
	head->content_type = get_text(head, "Content-Type");
	head->content_encoding = get_text(head, "Content-Encoding");
	head->etag = get_text(head, "ETag");
	head->location = get_text(head, "Location");
	head->last_modified_s = get_date(head, "Last-Modified");
	head->date_s = get_date(head, "Date");
	head->rate_limit = get_number(head, "X-RateLimit-Limit");
	head->rate_remaining = get_number(head, "X-RateLimit-Remaining");
}

int answer_redirect(const struct transfer *t, char **ret_url)
{
	struct transfer_head head = {.priv = t->wire};

	return url_resolve(transfer_url(t), get_text(&head, "Location"), ret_url);
}

/* Deciding */

static bool is_redirect(const struct transfer_head *head)
{
	switch (head->status) {
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		return *head->location;
	default:
		return false;
	}
}

static void learn_clock(const struct transfer *t, const struct transfer_head *head, int64_t now_ms)
{
	struct engine *engine = t->engine;

	if (head->date_s > 0 && t->host == engine->origin_host)
		atomic_store(&engine->server_less_mono_ns,
			     head->date_s * CLOCK_NS_PER_S - now_ms * (CLOCK_NS_PER_S / 1000));
}

static void learn_limits(struct transfer *t, const struct transfer_head *head, int64_t now_ms)
{
	const char *retry_after = head_get(head, "Retry-After");
	struct host *host = t->host;

	t->retry_after_ms = -1;
	if (retry_after)
		t->retry_after_ms = transfer_parse_retry_after(
			retry_after,
			head->date_s >= 0 ? head->date_s : clock_real_ns() / CLOCK_NS_PER_S);
	if (head->status == 429)
		rate_refused(&host->rate, head->rate_limit, t->retry_after_ms, now_ms);
	else
		rate_answer(&host->rate, head->rate_limit, head->rate_remaining, host->pending,
			    t->engine->config.slots, now_ms);
	if (head->status == 429)
		host_freeze(
			t->engine, host,
			now_ms + (t->retry_after_ms >= 0 ? t->retry_after_ms : ENGINE_FREEZE_MS));
}

static bool wants_retry(struct transfer *t, int64_t now_ms)
{
	struct transfer_try attempt = {
		.status = t->status,
		.sent = true,
		.idempotent = t->spec.idempotent || t->as_get,
		.retry_for_ever = t->spec.retry_for_ever,
		.tries = t->tries,
		.retry_after_ms = t->retry_after_ms,
		.now_ms = now_ms,
		.deadline_ms = t->spec.deadline_mono_ms,
		.random = engine_random(t->engine),
	};

	return transfer_retry_decide(&attempt, &t->retry_wait_ms) == TRANSFER_RETRY;
}

/* Decide what becomes of the answer. False = the caller refused it. */
static bool head_complete(struct transfer *t)
{
	int64_t now_ms = clock_mono_ms();
	struct transfer_head head;

	read_head(t, &head);
	t->answered = true;
	host_answered(t->engine, t);
	learn_clock(t, &head, now_ms);
	learn_limits(t, &head, now_ms);
	if (is_redirect(&head)) {
		t->flow = FLOW_REDIRECT;
		return true;
	}
	if (wants_retry(t, now_ms)) {
		t->flow = FLOW_RETRY;
		return true;
	}
	t->flow = FLOW_GIVE;
	if (t->spec.max_body && head.content_length > 0 && strcmp(t->spec.method, "HEAD") != 0 &&
	    (uint64_t)head.content_length > t->spec.max_body) {
		t->too_large = true;
		return false;
	}
	if (!t->spec.headers_cb)
		return true;
	t->shown = true;
	t->refused = !t->spec.headers_cb(t->spec.ctx, &head);
	return !t->refused;
}

/* curl's callbacks */

static int parse_status(const char *line, size_t size)
{
	const char *space = memchr(line, ' ', size);
	size_t left = space ? size - (size_t)(space - line) : 0;

	if (left < 4)
		return 0;
	for (int i = 1; i <= 3; i++)
		if (space[i] < '0' || space[i] > '9')
			return 0;
	return (space[1] - '0') * 100 + (space[2] - '0') * 10 + (space[3] - '0');
}

size_t answer_header(char *line, size_t size, size_t n, void *userdata)
{
	struct transfer *t = userdata;
	size_t len = size * n;

	if (t->answered) /* a trailer */
		return len;
	if (atomic_load(&t->wish_cancel))
		return 0;
	if (len >= 5 && !memcmp(line, "HTTP/", 5)) {
		t->status = parse_status(line, len);
		t->wire->head_len = 0;
		return len;
	}
	if (len == 2 && !memcmp(line, "\r\n", 2)) {
		if (t->status < 200) /* 100 and its like: the answer is still to come */
			return len;
		return head_complete(t) ? len : 0;
	}
	if (t->wire->head_len + len > ENGINE_HEAD_MAX) {
		t->head_too_large = true;
		return 0;
	}
	return keep_line(t->wire, line, len) ? len : 0;
}

/* Of an answer that nobody gets to see; a short one is read to the end to keep the connection. */
static size_t discard(struct transfer *t, size_t len)
{
	t->discarded += len;
	return t->discarded > ENGINE_DISCARD_MAX ? 0 : len;
}

struct transfer *answer_give_gathered(struct engine *engine)
{
	struct transfer *t = engine->gathered.t;

	if (!t)
		return NULL;
	engine->gathered.t = NULL;
	if (atomic_load(&t->wish_cancel))
		return NULL;
	t->refused = !t->spec.data_cb(t->spec.ctx, engine->gathered.data, engine->gathered.used);
	return t->refused ? t : NULL;
}

/* False = no. */
static bool give(struct transfer *t, const char *data, size_t len)
{
	struct gathered *g = &t->engine->gathered;

	t->shown = true;
	if (!g->data || len > ENGINE_GATHER_BYTES) {
		t->refused = !t->spec.data_cb(t->spec.ctx, data, len);
		return !t->refused;
	}
	if (!g->t) {
		g->t = t;
		g->used = 0;
	}
	memcpy(g->data + g->used, data, len);
	g->used += len;
	return true;
}

/* What came before these bytes, of another transfer or too much to keep, goes first. */
static void make_room(const struct transfer *t, size_t len)
{
	struct gathered *g = &t->engine->gathered;

	if (g->t && (g->t != t || g->used + len > ENGINE_GATHER_BYTES))
		answer_give_gathered(t->engine);
}

size_t answer_body(char *data, size_t size, size_t n, void *userdata)
{
	struct transfer *t = userdata;
	size_t len = size * n;

	make_room(t, len);
	if (t->refused || t->too_large || atomic_load(&t->wish_cancel))
		return 0;
	if (t->flow != FLOW_GIVE) {
		atomic_fetch_add_explicit(&t->counter->bytes_received, len, memory_order_relaxed);
		return discard(t, len);
	}
	if (atomic_load(&t->wish_pause)) {
		host_paused(t->engine, t, true);
		return CURL_WRITEFUNC_PAUSE;
	}
	if (!throttle_may(t, &t->engine->down))
		return CURL_WRITEFUNC_PAUSE;
	bandwidth_went(&t->engine->down, t->class, len);
	if (t->spec.max_body && len > t->spec.max_body - t->received) {
		t->too_large = true;
		return 0;
	}
	atomic_fetch_add_explicit(&t->counter->bytes_received, len, memory_order_relaxed);
	t->received += len;
	if (!t->spec.data_cb || !len)
		return len;
	return give(t, data, len) ? len : 0;
}
