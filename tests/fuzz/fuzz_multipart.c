/* SPDX-License-Identifier: MIT */

/*
 * Uploads with any names and bytes, as they go over the wire: the engine sends them to a server in this
 * process, and what arrives is read by a parser of RFC 2046 and RFC 7578 that knows nothing of how they
 * were made. It takes no more than the grammar allows, and must find the very parts that were sent: no
 * name and no content may end a header, a part or the body, or add one.
 */

#include <attachfs/transfer.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../api/enterprise_tester.h"

#define PARTS_MAX 4
#define TEXT_MAX  200
#define ROOM	  (1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(holds) must_hold(holds, __LINE__)

static void must_hold(bool holds, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d does not hold\n", line);
	abort();
}

/* ---- the server: takes one request after the other, keeps the last until it has answered ---- */

static struct {
	int listener, port;
	pthread_t thread;
	/* the thread's until it has sent the answer, then the test's until it sends the next request */
	char request[ROOM + 1];
	size_t len;
} server;

/* False: the client is gone. */
static bool take_request(int fd)
{
	size_t wanted = 0;
	char first;

	if (recv(fd, &first, 1, MSG_PEEK) <= 0)
		return false;
	server.len = 0;
	while (!wanted || server.len < wanted) {
		ssize_t n = recv(fd, server.request + server.len, ROOM - server.len, 0);
		char *end, *length;

		if (n <= 0)
			return false;
		server.len += (size_t)n;
		server.request[server.len] = '\0';
		end = strstr(server.request, "\r\n\r\n");
		if (wanted || !end)
			continue;
		length = strcasestr(server.request, "\r\nContent-Length: ");
		must(length && length < end);
		wanted = (size_t)(end + 4 - server.request) + strtoull(length + 18, NULL, 10);
		must(wanted <= ROOM);
	}
	return true;
}

static void *serve(void *arg)
{
	static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

	(void)arg;
	for (;;) {
		int fd = accept(server.listener, NULL, NULL);

		while (fd >= 0 && take_request(fd))
			if (send(fd, ok, sizeof(ok) - 1, MSG_NOSIGNAL) < 0)
				break;
		if (fd >= 0)
			close(fd);
	}
	return NULL;
}

static void begin_server(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);

	server.listener = socket(AF_INET, SOCK_STREAM, 0);
	must(bind(server.listener, (struct sockaddr *)&at, sizeof(at)) == 0);
	must(listen(server.listener, 8) == 0);
	must(getsockname(server.listener, (struct sockaddr *)&at, &len) == 0);
	server.port = ntohs(at.sin_port);
	must(pthread_create(&server.thread, NULL, serve, NULL) == 0);
}

/* ---- the client ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t came;
	bool done;
	struct transfer_result result;
} answer = {.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER};

static void on_done(void *ctx, const struct transfer_result *result)
{
	(void)ctx;
	pthread_mutex_lock(&answer.lock);
	answer.result = *result;
	answer.done = true;
	pthread_cond_signal(&answer.came);
	pthread_mutex_unlock(&answer.lock);
}

/* What was wished: the texts as they are before they are written into a header. */
struct wish {
	char name[TEXT_MAX + 1], filename[TEXT_MAX + 1];
	bool has_filename, mime; /* mime: its header is made for Enterprise Tester */
	char *disposition;
	const uint8_t *data;
	size_t len;
	int fd;
};

struct input {
	const uint8_t *at;
	size_t left;
};

static uint8_t take_byte(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->at++;
}

static void take_text(struct input *in, char text[TEXT_MAX + 1])
{
	size_t n = take_byte(in) % (TEXT_MAX + 1), len = 0;

	while (n-- && in->left) {
		char c = (char)take_byte(in);

		if (c)
			text[len++] = c;
	}
	text[len] = '\0';
}

static void take_part(struct input *in, struct wish *w, struct transfer_part *part)
{
	uint8_t flags = take_byte(in);

	*w = (struct wish){.has_filename = flags & 1, .mime = flags & 2, .fd = -1};
	take_text(in, w->name);
	take_text(in, w->filename);
	w->len = take_byte(in) * (flags & 4 ? 1 : 257);
	w->len = w->len > in->left ? in->left : w->len;
	w->data = in->at;
	in->at += w->len;
	in->left -= w->len;
	if (w->mime)
		w->disposition = et_disposition(flags & 16 ? OPTIONS_MULTIPART_MIXED
							   : OPTIONS_MULTIPART_FORM,
						w->filename, w->len);
	if (flags & 8) {
		w->fd = memfd_create("part", MFD_CLOEXEC);
		must(w->fd >= 0 && write(w->fd, w->data, w->len) == (ssize_t)w->len);
	}
	*part = (struct transfer_part){
		.name = w->name,
		.filename = w->has_filename ? w->filename : NULL,
		.content_type = flags & 32 ? et_media_type(w->filename) : NULL,
		.disposition = w->disposition,
		.with_length = flags & 64,
		.data = w->data,
		.len = w->len,
		.fd = w->fd,
		.fd_len = w->len,
	};
}

/* ---- the parser ---- */

struct text {
	const char *at;
	size_t len;
};

static bool skip(struct text *t, const char *what)
{
	size_t n = strlen(what);

	if (t->len < n || strncasecmp(t->at, what, n) != 0)
		return false;
	t->at += n;
	t->len -= n;
	return true;
}

/* A line up to its CRLF, which goes with it. Neither CR nor LF may stand alone, nor any NUL. */
static struct text take_line(struct text *t)
{
	const char *end = memmem(t->at, t->len, "\r\n", 2);
	struct text line = {t->at, 0};

	must(end != NULL);
	line.len = (size_t)(end - t->at);
	must(!memchr(line.at, '\r', line.len) && !memchr(line.at, '\n', line.len) &&
	     !memchr(line.at, '\0', line.len));
	t->at += line.len + 2;
	t->len -= line.len + 2;
	return line;
}

static bool is_token_byte(unsigned char c)
{
	return c > ' ' && c < 0x7f && !strchr("()<>@,;:\\\"/[]?=", c);
}

/*
 * A parameter's value: a token, or between quotes. @mime: `\` quotes the next byte (RFC 2045); else it is a
 * byte like others, as RFC 7578 and all browsers have it.
 */
static size_t take_value(struct text *t, bool mime, char value[3 * TEXT_MAX + 1])
{
	size_t n = 0;

	if (!skip(t, "\"")) {
		while (t->len && is_token_byte((unsigned char)*t->at)) {
			must(n < 3 * TEXT_MAX);
			value[n++] = *t->at++;
			t->len--;
		}
		must(n > 0);
		value[n] = '\0';
		return n;
	}
	while (t->len && *t->at != '"') {
		if (mime && *t->at == '\\') {
			t->at++;
			t->len--;
			must(t->len > 0);
		}
		must(n < 3 * TEXT_MAX);
		value[n++] = *t->at++;
		t->len--;
	}
	must(skip(t, "\""));
	value[n] = '\0';
	return n;
}

/* How a text that cannot stand in quotes is told: this much of the two is agreed. */
static void escaped(const char *text, bool mime, char out[3 * TEXT_MAX + 1])
{
	char *to = out;

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool escape = mime ? c < 0x20 || c == 0x7f : c == '"' || c == '\r' || c == '\n';

		if (escape)
			to += sprintf(to, "%%%02X", c);
		else
			*to++ = (char)c;
	}
	*to = '\0';
}

static void check_disposition(struct text line, const struct wish *w)
{
	char value[3 * TEXT_MAX + 1], name[3 * TEXT_MAX + 1], filename[3 * TEXT_MAX + 1];
	bool told_name = false, told_filename = false;

	escaped(w->mime ? w->filename : w->name, w->mime, name);
	escaped(w->filename, w->mime, filename);
	must(skip(&line, "form-data") || (w->mime && skip(&line, "attachment")));
	while (line.len) {
		must(skip(&line, "; "));
		if (skip(&line, "filename=")) {
			must(!told_filename);
			told_filename = true;
			take_value(&line, w->mime, value);
			must(strcmp(value, filename) == 0);
		} else if (skip(&line, "name=")) {
			must(!told_name);
			told_name = true;
			take_value(&line, w->mime, value);
			must(strcmp(value, name) == 0);
		} else {
			must(w->mime && skip(&line, "size="));
			take_value(&line, true, value);
			must(strtoull(value, NULL, 10) == w->len);
		}
	}
	must(told_name && told_filename == (w->has_filename || w->mime));
}

static void check_part(struct text *body, const char *delimiter, const struct wish *w,
		       const struct transfer_part *part)
{
	bool disposed = false, typed = false, measured = false;
	struct text line;
	const char *end;
	size_t len;

	while ((line = take_line(body)).len) {
		if (skip(&line, "Content-Disposition: ")) {
			must(!disposed);
			disposed = true;
			check_disposition(line, w);
		} else if (skip(&line, "Content-Type: ")) {
			must(!typed && part->content_type &&
			     line.len == strlen(part->content_type) &&
			     !memcmp(line.at, part->content_type, line.len));
			typed = true;
		} else {
			must(!measured && part->with_length && skip(&line, "Content-Length: ") &&
			     strtoull(line.at, NULL, 10) == w->len);
			measured = true;
		}
	}
	must(disposed && typed == (part->content_type != NULL) && measured == part->with_length);
	end = memmem(body->at, body->len, delimiter, strlen(delimiter));
	must(end != NULL);
	len = (size_t)(end - body->at);
	must(len == w->len && memcmp(body->at, w->data, len) == 0);
	body->at = end + strlen(delimiter);
	body->len -= len + strlen(delimiter);
}

static void check_request(const struct wish *wishes, const struct transfer_part *parts, size_t n)
{
	char *end = strstr(server.request, "\r\n\r\n"), delimiter[80], boundary[71];
	char *type = strcasestr(server.request, "\r\nContent-Type: multipart/");
	struct text body = {end + 4, server.len - (size_t)(end + 4 - server.request)};

	must(type && type < end);
	type = strstr(type, "; boundary=");
	must(type && type < end &&
	     sscanf(type, "; boundary=%70[-0-9A-Za-z'()+_,./:=?]", boundary) == 1);
	snprintf(delimiter, sizeof(delimiter), "\r\n--%s", boundary);
	/* the first delimiter needs no line before it */
	must(skip(&body, delimiter + 2));
	for (size_t i = 0; i < n; i++) {
		must(take_line(&body).len == 0);
		check_part(&body, delimiter, &wishes[i], &parts[i]);
	}
	must(skip(&body, "--") && skip(&body, "\r\n") && body.len == 0);
}

/* ---- */

static struct engine *engine_for_all(void)
{
	static struct engine *engine;
	char origin[64];
	struct engine_config config = {.origin = origin, .slots = 2, .connect_timeout_ms = 10000};

	if (engine)
		return engine;
	begin_server();
	snprintf(origin, sizeof(origin), "http://127.0.0.1:%d/", server.port);
	must(engine_new(&config, &engine) == 0);
	return engine;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct engine *engine = engine_for_all();
	struct transfer_part parts[PARTS_MAX];
	struct wish wishes[PARTS_MAX];
	struct input in = {data, size};
	uint8_t first = take_byte(&in);
	size_t n = 1 + first % PARTS_MAX;
	char url[64];

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", server.port);
	for (size_t i = 0; i < n; i++)
		take_part(&in, &wishes[i], &parts[i]);
	struct transfer_spec spec = {
		.method = "POST",
		.url = url,
		.parts = parts,
		.n_parts = n,
		.multipart_type = first & 128 ? "multipart/mixed" : NULL,
		.done_cb = on_done,
	};
	answer.done = false;
	must(transfer_start(engine, &spec, NULL) == 0);
	pthread_mutex_lock(&answer.lock);
	while (!answer.done)
		pthread_cond_wait(&answer.came, &answer.lock);
	pthread_mutex_unlock(&answer.lock);
	must(answer.result.error == 0 && answer.result.status == 200);
	check_request(wishes, parts, n);
	for (size_t i = 0; i < n; i++) {
		free(wishes[i].disposition);
		if (wishes[i].fd >= 0)
			close(wishes[i].fd);
	}
	return 0;
}
