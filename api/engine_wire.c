/* SPDX-License-Identifier: MIT */

/*
 * One request on the wire. An easy handle is reset and set up anew for each try, so that nothing of
 * one request, a credential least of all, can get into the next; the handle itself and its head
 * buffer are kept, and curl keeps the connections, in the multi handle. A handle that did not come
 * to a good end is not used again: curl (7.88) leaves buffers and a "rewind" mark in it that a
 * reset does not clear.
 *
 * curl follows no redirect and retries nothing here; both are decided in engine_transfer.c. The one
 * exception: when a reused connection turns out to be dead, curl sends the request again by itself,
 * whatever its method. before_send() sees that coming and stops it for what must not be sent twice.
 */

#include "engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WIRES_IDLE_MAX	64
#define BUFFER_BYTES	(256L * 1024)
#define THROTTLED_PIECE 16384u
#define MAX_AGE_S	100L /* idle connections older than that are not used again */

static int before_send(void *userdata, char *remote, char *local, int remote_port, int local_port)
{
	struct transfer *t = userdata;

	(void)remote;
	(void)local;
	(void)remote_port;
	(void)local_port;
	if (t->knock)
		return CURL_PREREQFUNC_OK;
	if (t->asked && !t->spec.idempotent && !t->as_get) {
		t->resent = true;
		return CURL_PREREQFUNC_ABORT;
	}
	t->asked = true;
	atomic_fetch_add_explicit(&t->counter->requests, 1, memory_order_relaxed);
	return CURL_PREREQFUNC_OK;
}

/* Headers */

static int add_line(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (!longer)
		return -ENOMEM;
	*list = longer;
	return 0;
}

static int add_line_value(struct curl_slist **list, const char *name, const char *value)
{
	size_t size = strlen(name) + strlen(value) + sizeof(": ");
	char *line = malloc(size);
	int r;

	if (!line)
		return -ENOMEM;
	snprintf(line, size, "%s: %s", name, value);
	r = add_line(list, line);
	free(line);
	return r;
}

static int add_range(struct wire *wire, const struct transfer_spec *spec)
{
	char range[64];
	unsigned long long first = spec->range_first;
	int r;

	if (!spec->has_range)
		return 0;
	if (spec->range_len)
		snprintf(range, sizeof(range), "bytes=%llu-%llu", first,
			 first + (unsigned long long)spec->range_len - 1);
	else
		snprintf(range, sizeof(range), "bytes=%llu-", first);
	r = add_line_value(&wire->headers, "Range", range);
	if (r == 0 && spec->if_range)
		r = add_line_value(&wire->headers, "If-Range", spec->if_range);
	return r;
}

static bool has_body(const struct transfer *t)
{
	const char *method = t->spec.method;

	if (t->as_get)
		return false;
	/* What a server expects to have a body gets an empty one, with its Content-Length. */
	return t->spec.body || t->spec.n_parts || !strcmp(method, "POST") ||
	       !strcmp(method, "PUT") || !strcmp(method, "PATCH");
}

/* Without a type of ours, curl would call a body a web form. */
static int add_content_type(struct wire *wire, const struct transfer *t)
{
	if (!has_body(t))
		return 0;
	if (t->spec.n_parts)
		return t->spec.multipart_type ? add_line_value(&wire->headers, "Content-Type",
							       t->spec.multipart_type)
					      : 0;
	if (t->spec.content_type)
		return add_line_value(&wire->headers, "Content-Type", t->spec.content_type);
	for (const char *const *line = t->spec.headers; line && *line; line++)
		if (!strncasecmp(*line, "Content-Type:", 13))
			return 0;
	return add_line(&wire->headers, "Content-Type:");
}

static int add_headers(struct engine *engine, struct wire *wire, const struct transfer *t)
{
	const struct transfer_spec *spec = &t->spec;
	int r = add_line(&wire->headers, "Expect:");

	for (const char *const *line = spec->headers; r == 0 && line && *line; line++)
		r = add_line(&wire->headers, *line);
	if (r == 0)
		r = add_content_type(wire, t);
	if (r == 0)
		r = add_range(wire, spec);
	/*
	 * The one place where a secret leaves: only to the very origin that the engine was made
	 * for, and not on the way back from another, which could choose what is asked for.
	 */
	if (r == 0 && spec->credential && !t->strayed && !strcmp(t->origin.key, engine->origin.key))
		r = add_line(&wire->headers, spec->credential);
	return r;
}

/* Multipart */

static size_t read_part(char *buffer, size_t size, size_t n, void *userdata)
{
	struct part_reader *reader = userdata;
	struct transfer *t = reader->t;
	size_t want = size * n;
	ssize_t got;

	if (!throttle_may(t, &t->engine->up))
		return CURL_READFUNC_PAUSE;
	if (t->engine->up.rate && want > THROTTLED_PIECE)
		want = THROTTLED_PIECE;
	if (want > reader->len - reader->at)
		want = (size_t)(reader->len - reader->at);
	if (reader->part->fd < 0) {
		memcpy(buffer, (const char *)reader->part->data + reader->at, want);
		got = (ssize_t)want;
	} else {
		got = want ? pread(reader->part->fd, buffer, want,
				   (off_t)(reader->part->fd_off + reader->at))
			   : 0;
	}
	if (got < 0 || (want && got == 0)) { /* unreadable, or shorter than it was said to be */
		t->bad_file = true;
		return CURL_READFUNC_ABORT;
	}
	reader->at += (uint64_t)got;
	bandwidth_went(&t->engine->up, t->class, (uint64_t)got);
	return (size_t)got;
}

static int seek_part(void *userdata, curl_off_t offset, int origin)
{
	struct part_reader *reader = userdata;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > reader->len)
		return CURL_SEEKFUNC_CANTSEEK;
	reader->at = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* As browsers do it: a quote or a line break is percent-encoded, all else is sent as it is. */
static char *add_escaped(char *to, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '"':
		case '\r':
		case '\n':
			to += sprintf(to, "%%%02X", (unsigned)*text);
			break;
		default:
			*to++ = *text;
		}
	}
	*to = '\0';
	return to;
}

/* The header line that says what a part is; malloc'ed. */
static char *disposition(const struct transfer_part *part)
{
	const char *name = part->name ? part->name : "";
	const char *filename = part->filename ? part->filename : "";
	char *line = malloc(80 + 3 * (strlen(name) + strlen(filename)) +
			    (part->disposition ? strlen(part->disposition) : 0));
	char *to = line;

	if (!line)
		return NULL;
	to += sprintf(to, "Content-Disposition: ");
	if (part->disposition) {
		strcpy(to, part->disposition);
		return line;
	}
	to += sprintf(to, "form-data; name=\"");
	to = add_escaped(to, name);
	*to++ = '"';
	if (part->filename) {
		to += sprintf(to, "; filename=\"");
		to = add_escaped(to, filename);
		*to++ = '"';
	}
	*to = '\0';
	return line;
}

/* All that curl adds to that is the type, in front of it, and the length of the whole. */
static int add_part(struct wire *wire, struct part_reader *reader)
{
	curl_mimepart *part = curl_mime_addpart(wire->mime);
	char *line = disposition(reader->part);
	struct curl_slist *headers = NULL;
	int r = part && line ? add_line(&headers, line) : -ENOMEM;
	char length[48];
	CURLcode code;

	snprintf(length, sizeof(length), "Content-Length: %" PRIu64, (uint64_t)reader->len);
	if (r == 0 && reader->part->with_length)
		r = add_line(&headers, length);

	free(line);
	if (r < 0)
		return r;
	if (curl_mime_headers(part, headers, 1) != CURLE_OK) {
		curl_slist_free_all(headers);
		return -ENOMEM;
	}
	reader->at = 0;
	code = curl_mime_data_cb(part, (curl_off_t)reader->len, read_part, seek_part, NULL, reader);
	if (code == CURLE_OK && reader->part->content_type)
		code = curl_mime_type(part, reader->part->content_type);
	return code == CURLE_OK ? 0 : -ENOMEM;
}

static int add_parts(struct wire *wire, struct transfer *t)
{
	wire->mime = curl_mime_init(wire->easy);
	if (!wire->mime)
		return -ENOMEM;
	for (size_t i = 0; i < t->spec.n_parts; i++)
		if (add_part(wire, &t->readers[i]) < 0)
			return -ENOMEM;
	return 0;
}

/* Options: the first that fails ends it. */

struct options {
	CURL *easy;
	CURLcode code;
};

#define SET(options, option, value)                                                                \
	do {                                                                                       \
		if ((options)->code == CURLE_OK)                                                   \
			(options)->code = curl_easy_setopt((options)->easy, option, value);        \
	} while (0)

static void set_transport(const struct engine *engine, struct options *o, const struct transfer *t)
{
	const struct engine_config *config = &engine->config;

	/* No AsynchDNS thread is waited for when a transfer is cancelled: the loop must not stand
	 * still. */
	SET(o, CURLOPT_QUICK_EXIT, 1L);
	SET(o, CURLOPT_NOSIGNAL, 1L);
	SET(o, CURLOPT_NOPROGRESS, has_body(t) ? 0L : 1L);
	SET(o, CURLOPT_PROTOCOLS_STR, t->origin.https ? "https" : "http");
	SET(o, CURLOPT_REDIR_PROTOCOLS_STR, "https");
	SET(o, CURLOPT_FOLLOWLOCATION, 0L);
	SET(o, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	/* A second request to a host waits to see whether the first connection can carry both. */
	SET(o, CURLOPT_PIPEWAIT, t->origin.https ? 1L : 0L);
	SET(o, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(o, CURLOPT_TCP_NODELAY, 1L);
	SET(o, CURLOPT_TCP_KEEPALIVE, 1L);
	SET(o, CURLOPT_MAXAGE_CONN, MAX_AGE_S);
	SET(o, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
	/* Refused by a handle that still has its last buffer: only speed hangs on it. */
	curl_easy_setopt(o->easy, CURLOPT_BUFFERSIZE, BUFFER_BYTES);
	SET(o, CURLOPT_CONNECTTIMEOUT_MS, (long)config->connect_timeout_ms);
	SET(o, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (config->cacert)
		SET(o, CURLOPT_CAINFO, config->cacert);
	if (config->proxy)
		SET(o, CURLOPT_PROXY, config->proxy);
}

/* A long upload is counted as it goes: somebody may be watching. */
static int on_moved(void *ctx, curl_off_t down_all, curl_off_t down, curl_off_t up_all,
		    curl_off_t up)
{
	(void)down_all;
	(void)down;
	(void)up_all;
	transfer_count_sent(ctx, (uint64_t)up);
	return 0;
}

/* One that is there already would prove nothing. */
static void set_knock(struct options *o)
{
	SET(o, CURLOPT_CONNECT_ONLY, 1L);
	SET(o, CURLOPT_FRESH_CONNECT, 1L);
}

static void set_callbacks(struct wire *wire, struct options *o, struct transfer *t)
{
	SET(o, CURLOPT_PRIVATE, (void *)t);
	SET(o, CURLOPT_ERRORBUFFER, wire->error);
	SET(o, CURLOPT_HEADERFUNCTION, answer_header);
	SET(o, CURLOPT_HEADERDATA, (void *)t);
	SET(o, CURLOPT_WRITEFUNCTION, answer_body);
	SET(o, CURLOPT_WRITEDATA, (void *)t);
	SET(o, CURLOPT_PREREQFUNCTION, before_send);
	SET(o, CURLOPT_PREREQDATA, (void *)t);
	SET(o, CURLOPT_XFERINFOFUNCTION, on_moved);
	SET(o, CURLOPT_XFERINFODATA, (void *)t);
	wire->counted = 0;
}

static void set_request(struct wire *wire, struct options *o, const struct transfer *t)
{
	const struct transfer_spec *spec = &t->spec;
	const char *method = t->as_get ? "GET" : spec->method;

	SET(o, CURLOPT_URL, transfer_url(t));
	SET(o, CURLOPT_USERAGENT, "attachfs");
	SET(o, CURLOPT_HTTPHEADER, wire->headers);
	if (!strcmp(method, "HEAD")) {
		SET(o, CURLOPT_NOBODY, 1L);
		return;
	}
	if (has_body(t)) {
		if (wire->mime) {
			SET(o, CURLOPT_MIMEPOST, wire->mime);
		} else {
			SET(o, CURLOPT_POSTFIELDSIZE_LARGE,
			    (curl_off_t)(spec->body ? spec->body_len : 0));
			SET(o, CURLOPT_POSTFIELDS, spec->body ? spec->body : "");
		}
	}
	if (strcmp(method, has_body(t) ? "POST" : "GET") != 0)
		SET(o, CURLOPT_CUSTOMREQUEST, method);
}

int wire_prepare(struct engine *engine, struct wire *wire, struct transfer *t)
{
	struct options options = {.easy = wire->easy};
	int r = add_headers(engine, wire, t);

	if (r == 0 && t->spec.n_parts && !t->as_get)
		r = add_parts(wire, t);
	if (r < 0)
		return r;
	wire->error[0] = '\0';
	wire->head_len = 0;
	set_transport(engine, &options, t);
	set_callbacks(wire, &options, t);
	set_request(wire, &options, t);
	if (t->knock)
		set_knock(&options);
	if (options.code == CURLE_OK)
		return 0;
	return options.code == CURLE_OUT_OF_MEMORY ? -ENOMEM : -EPROTO;
}

/* The free list */

struct wire *wire_get(struct engine *engine)
{
	struct wire *wire = engine->wires;

	if (wire) {
		engine->wires = wire->next;
		engine->n_wires--;
		return wire;
	}
	wire = calloc(1, sizeof(*wire));
	if (!wire)
		return NULL;
	wire->easy = curl_easy_init();
	if (!wire->easy) {
		free(wire);
		return NULL;
	}
	return wire;
}

void wire_free(struct wire *wire)
{
	curl_easy_cleanup(wire->easy);
	curl_mime_free(wire->mime);
	curl_slist_free_all(wire->headers);
	free(wire->head);
	free(wire);
}

void wire_put(struct engine *engine, struct wire *wire, bool clean)
{
	if (!clean || engine->n_wires >= WIRES_IDLE_MAX) {
		wire_free(wire);
		return;
	}
	curl_easy_reset(wire->easy);
	curl_mime_free(wire->mime);
	curl_slist_free_all(wire->headers);
	wire->mime = NULL;
	wire->headers = NULL;
	wire->next = engine->wires;
	engine->wires = wire;
	engine->n_wires++;
}
