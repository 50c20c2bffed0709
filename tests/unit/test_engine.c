/* SPDX-License-Identifier: MIT */

/*
 * The HTTP engine against a server made of a raw socket, which answers from a script, byte for
 * byte, and keeps the bytes it was sent. Everything on loopback; the longest test takes about two
 * seconds.
 */

#include <attachfs/clock.h>
#include <attachfs/transfer.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define WAIT_S		20
#define REQUESTS_MAX	4096
#define CONNECTIONS_MAX 128

/* The server */

enum then { KEEP, CLOSE, RESET, HANG };

struct answer {
	const char *text; /* NULL = nothing */
	enum then then;
	unsigned delay_ms;
	size_t filler; /* so many bytes 'x' after the text */
};

#define OK_TEXT "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

struct server {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int listener, port;
	pthread_t acceptor, connections[CONNECTIONS_MAX];
	int sockets[CONNECTIONS_MAX];
	unsigned n_connections, n_requests, running, most_running;
	const struct answer *answers; /* one per request as they arrive; the last for all others */
	unsigned n_answers;
	char *requests[REQUESTS_MAX];
	size_t sizes[REQUESTS_MAX];
	bool stop;
};

struct connection {
	struct server *server;
	int fd;
};

/* Read one request to the end of its body. NULL = the client is gone. */
static char *read_request(int fd, size_t *ret_size)
{
	size_t used = 0, size = 4096, wanted = 0;
	char *text = malloc(size);

	for (;;) {
		char *end, *length;
		ssize_t n;

		if (used + 1 >= size)
			text = realloc(text, size *= 2);
		n = recv(
			fd, text + used,
			wanted ? (wanted - used < size - used - 1 ? wanted - used : size - used - 1)
			       : 1,
			0);
		if (n <= 0) {
			free(text);
			return NULL;
		}
		used += (size_t)n;
		text[used] = '\0';
		if (!wanted && used >= 4 && !memcmp(text + used - 4, "\r\n\r\n", 4)) {
			end = text + used;
			length = strcasestr(text, "\r\nContent-Length:");
			wanted = (size_t)(end - text) +
				 (length ? strtoul(length + 17, NULL, 10) : 0);
		}
		if (wanted && used >= wanted) {
			*ret_size = used;
			return text;
		}
	}
}

static bool send_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static bool send_filler(int fd, size_t len)
{
	char block[4096];

	memset(block, 'x', sizeof(block));
	for (; len; len -= len < sizeof(block) ? len : sizeof(block))
		if (!send_all(fd, block, len < sizeof(block) ? len : sizeof(block)))
			return false;
	return true;
}

static void server_wait(struct server *server, unsigned ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	while (!server->stop &&
	       pthread_cond_timedwait(&server->changed, &server->lock, &until) != ETIMEDOUT)
		;
}

/* Take down the request and say what to answer. */
static struct answer next_answer(struct server *server, char *text, size_t size)
{
	struct answer answer = {.then = RESET};
	unsigned i;

	pthread_mutex_lock(&server->lock);
	i = server->n_requests++;
	if (i < REQUESTS_MAX) {
		server->requests[i] = text;
		server->sizes[i] = size;
	}
	if (server->n_answers)
		answer = server->answers[i < server->n_answers ? i : server->n_answers - 1];
	if (++server->running > server->most_running)
		server->most_running = server->running;
	pthread_cond_broadcast(&server->changed);
	if (answer.delay_ms)
		server_wait(server, answer.delay_ms);
	server->running--;
	while (answer.then == HANG && !answer.text && !server->stop)
		pthread_cond_wait(&server->changed, &server->lock);
	pthread_mutex_unlock(&server->lock);
	return answer;
}

static void serve(struct connection *connection)
{
	struct linger abort_it = {.l_onoff = 1};
	struct answer answer;
	size_t size;

	do {
		char *text = read_request(connection->fd, &size);

		if (!text)
			return;
		answer = next_answer(connection->server, text, size);
		if (answer.text && !send_all(connection->fd, answer.text, strlen(answer.text)))
			return;
		if (!send_filler(connection->fd, answer.filler))
			return;
	} while (answer.then == KEEP);
	if (answer.then == RESET)
		setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &abort_it, sizeof(abort_it));
	if (answer.then == HANG)
		read_request(connection->fd, &size); /* until the client or the test ends it */
}

static void *connection_main(void *userdata)
{
	struct connection *connection = userdata;
	struct server *server = connection->server;

	serve(connection);
	pthread_mutex_lock(&server->lock);
	for (unsigned i = 0; i < server->n_connections; i++)
		if (server->sockets[i] == connection->fd)
			server->sockets[i] = -1;
	close(connection->fd);
	pthread_mutex_unlock(&server->lock);
	free(connection);
	return NULL;
}

static void *acceptor_main(void *userdata)
{
	struct server *server = userdata;
	int fd, on = 1;

	while ((fd = accept(server->listener, NULL, NULL)) >= 0) {
		struct connection *connection = malloc(sizeof(*connection));
		unsigned i;

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		*connection = (struct connection){.server = server, .fd = fd};
		pthread_mutex_lock(&server->lock);
		i = server->n_connections++;
		assert_true(i < CONNECTIONS_MAX);
		server->sockets[i] = fd;
		pthread_create(&server->connections[i], NULL, connection_main, connection);
		pthread_mutex_unlock(&server->lock);
	}
	return NULL;
}

/* On @port, 0 = any. */
static struct server *server_new_at(const struct answer *answers, unsigned n, int port)
{
	struct server *server = calloc(1, sizeof(*server));
	struct sockaddr_in at = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(at);
	int on = 1;

	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->changed, NULL);
	server->answers = answers;
	server->n_answers = n;
	server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(server->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(server->listener, 64), 0);
	assert_int_equal(getsockname(server->listener, (struct sockaddr *)&at, &len), 0);
	server->port = ntohs(at.sin_port);
	pthread_create(&server->acceptor, NULL, acceptor_main, server);
	return server;
}

#define server_new(answers) server_new_at(answers, sizeof(answers) / sizeof((answers)[0]), 0)

static void server_free(struct server *server)
{
	shutdown(server->listener, SHUT_RDWR);
	pthread_join(server->acceptor, NULL);
	close(server->listener);
	pthread_mutex_lock(&server->lock);
	server->stop = true;
	pthread_cond_broadcast(&server->changed);
	for (unsigned i = 0; i < server->n_connections; i++)
		if (server->sockets[i] >= 0)
			shutdown(server->sockets[i], SHUT_RDWR);
	pthread_mutex_unlock(&server->lock);
	for (unsigned i = 0; i < server->n_connections; i++)
		pthread_join(server->connections[i], NULL);
	for (unsigned i = 0; i < REQUESTS_MAX; i++)
		free(server->requests[i]);
	pthread_mutex_destroy(&server->lock);
	pthread_cond_destroy(&server->changed);
	free(server);
}

static void server_wait_requests(struct server *server, unsigned n)
{
	int64_t until = clock_mono_ms() + WAIT_S * 1000;

	pthread_mutex_lock(&server->lock);
	while (server->n_requests < n) {
		assert_true(clock_mono_ms() < until);
		pthread_mutex_unlock(&server->lock);
		usleep(1000);
		pthread_mutex_lock(&server->lock);
	}
	pthread_mutex_unlock(&server->lock);
}

static unsigned server_count(struct server *server)
{
	unsigned n;

	pthread_mutex_lock(&server->lock);
	n = server->n_requests;
	pthread_mutex_unlock(&server->lock);
	return n;
}

/* A port at which nobody listens. */
static int closed_port(void)
{
	static const struct answer none[] = {{.text = OK_TEXT}};
	struct server *server = server_new(none);
	int port = server->port;

	server_free(server);
	return port;
}

/* The caller's side of one transfer */

struct call {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct engine *engine;
	uint64_t id;
	char url[128];
	char body[8192]; /* the first bytes */
	size_t len;
	unsigned heads, dones, chunks;
	bool refuse_head, refuse_body;
	size_t pause_at; /* pause once so many bytes are there, 0 = never */
	bool cancel_in_data;
	struct transfer_head head;
	char etag[64], extra[64];
	struct transfer_result result;
	int *order, *order_next;
	int number;
};

static bool call_head(void *ctx, const struct transfer_head *head)
{
	struct call *call = ctx;

	pthread_mutex_lock(&call->lock);
	call->heads++;
	call->head = *head;
	snprintf(call->etag, sizeof(call->etag), "%s", head->etag);
	snprintf(call->extra, sizeof(call->extra), "%s",
		 head->get(head, "x-EXTRA") ? head->get(head, "x-EXTRA") : "(none)");
	pthread_mutex_unlock(&call->lock);
	return !call->refuse_head;
}

static bool call_data(void *ctx, const void *data, size_t len)
{
	struct call *call = ctx;
	bool pause;

	pthread_mutex_lock(&call->lock);
	if (call->len < sizeof(call->body))
		memcpy(call->body + call->len, data,
		       len < sizeof(call->body) - call->len ? len : sizeof(call->body) - call->len);
	call->len += len;
	call->chunks++;
	pause = call->pause_at && call->len >= call->pause_at;
	pthread_mutex_unlock(&call->lock);
	if (pause)
		transfer_pause(call->engine, call->id);
	if (call->cancel_in_data)
		transfer_cancel(call->engine, call->id);
	return !call->refuse_body;
}

static void call_done(void *ctx, const struct transfer_result *result)
{
	struct call *call = ctx;

	pthread_mutex_lock(&call->lock);
	call->dones++;
	call->result = *result;
	if (call->order)
		call->order[(*call->order_next)++] = call->number;
	pthread_cond_broadcast(&call->changed);
	pthread_mutex_unlock(&call->lock);
}

static struct transfer_spec call_init(struct call *call, struct engine *engine, int port,
				      const char *path)
{
	memset(call, 0, sizeof(*call));
	pthread_mutex_init(&call->lock, NULL);
	pthread_cond_init(&call->changed, NULL);
	call->engine = engine;
	snprintf(call->url, sizeof(call->url), "http://127.0.0.1:%d%s", port, path);
	return (struct transfer_spec){
		.method = "GET",
		.url = call->url,
		.endpoint = "test",
		.headers_cb = call_head,
		.data_cb = call_data,
		.done_cb = call_done,
		.ctx = call,
		.idempotent = true,
		.deadline_mono_ms = clock_mono_ms() + 15000,
	};
}

static void call_start(struct call *call, const struct transfer_spec *spec)
{
	assert_int_equal(transfer_start(call->engine, spec, &call->id), 0);
}

static const struct transfer_result *call_wait(struct call *call)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&call->lock);
	while (!call->dones)
		assert_int_equal(pthread_cond_timedwait(&call->changed, &call->lock, &until), 0);
	pthread_mutex_unlock(&call->lock);
	return &call->result;
}

static size_t call_len(struct call *call)
{
	size_t len;

	pthread_mutex_lock(&call->lock);
	len = call->len;
	pthread_mutex_unlock(&call->lock);
	return len;
}

static const struct transfer_result *call_run(struct call *call, const struct transfer_spec *spec)
{
	call_start(call, spec);
	return call_wait(call);
}

/* The engine's state as told */

struct told {
	pthread_mutex_t lock;
	enum engine_state states[32];
	unsigned n;
};

static void tell(void *ctx, enum engine_state state, int64_t until_real_ns)
{
	struct told *told = ctx;

	pthread_mutex_lock(&told->lock);
	if (told->n < 32)
		told->states[told->n++] = state;
	assert_true((state == ENGINE_THROTTLED) == (until_real_ns > 0));
	pthread_mutex_unlock(&told->lock);
}

static struct engine *engine_for(int port, unsigned slots, unsigned stall_ms, struct told *told)
{
	char origin[64];
	struct engine *engine;
	struct engine_config config = {
		.origin = origin,
		.slots = slots,
		.connect_timeout_ms = 2000,
		.stall_ms = stall_ms,
		.state_changed = told ? tell : NULL,
		.ctx = told,
	};

	snprintf(origin, sizeof(origin), "http://127.0.0.1:%d/v2", port);
	if (told)
		pthread_mutex_init(&told->lock, NULL);
	assert_int_equal(engine_new(&config, &engine), 0);
	return engine;
}

/* One server, one engine made for it, one call. */
#define ONE_CALL(answers)                                                                          \
	struct server *server = server_new(answers);                                               \
	struct engine *engine = engine_for(server->port, 4, 0, NULL);                              \
	struct call call;                                                                          \
	struct transfer_spec spec = call_init(&call, engine, server->port, "/v2/thing?secret=1")

#define END_CALL()                                                                                 \
	do {                                                                                       \
		engine_free(engine);                                                               \
		server_free(server);                                                               \
		assert_int_equal(call.dones, 1);                                                   \
	} while (0)

/* Plain requests */

static void test_get_gives_head_and_body(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 100 Continue\r\nX-Extra: early\r\n\r\n"
		 "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes "
		 "10-14/99\r\n"
		 "ETag: \"abc\"\r\nX-Extra:   some thing \r\nContent-Type: text/plain\r\n"
		 "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-RateLimit-Limit: 100\r\n"
		 "X-RateLimit-Remaining: 99\r\n\r\nhello",
		 KEEP, 0, 0}};
	ONE_CALL(answers);

	(void)state;
	spec.has_range = true;
	spec.range_first = 10;
	spec.range_len = 5;
	spec.if_range = "\"abc\"";
	assert_int_equal(call_run(&call, &spec)->error, 0);
	assert_int_equal(call.result.status, 206);
	assert_int_equal(call.result.received, 5);
	assert_int_equal(call.result.tries, 1);
	assert_string_equal(call.body, "hello");
	assert_int_equal(call.heads, 1);
	assert_true(call.head.has_range);
	assert_int_equal(call.head.range_first, 10);
	assert_int_equal(call.head.range_last, 14);
	assert_int_equal(call.head.range_total, 99);
	assert_int_equal(call.head.content_length, 5);
	assert_int_equal(call.head.last_modified_s, 784111777);
	assert_int_equal(call.head.rate_limit, 100);
	assert_int_equal(call.head.rate_remaining, 99);
	assert_string_equal(call.etag, "\"abc\"");
	assert_string_equal(call.extra, "some thing");
	END_CALL();
}

static void test_request_holds_what_was_asked_and_no_more(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	static const char *const headers[] = {"Accept: application/json", NULL};
	ONE_CALL(answers);

	(void)state;
	spec.headers = headers;
	spec.has_range = true;
	spec.range_first = 7;
	call_run(&call, &spec);
	assert_non_null(strstr(server->requests[0], "GET /v2/thing?secret=1 HTTP/1.1\r\n"));
	assert_non_null(strstr(server->requests[0], "\r\nAccept: application/json\r\n"));
	assert_non_null(strstr(server->requests[0], "\r\nRange: bytes=7-\r\n"));
	assert_null(strcasestr(server->requests[0], "Accept-Encoding"));
	assert_null(strcasestr(server->requests[0], "Expect"));
	assert_null(strcasestr(server->requests[0], "Authorization"));
	assert_null(strcasestr(server->requests[0], "Content-"));
	END_CALL();
}

static void test_every_method_sends_its_body_with_its_length(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	static const struct {
		const char *method, *body, *head;
	} table[] = {
		{"POST", "{\"a\":1}", "POST /v2/x HTTP/1.1\r\n"},
		{"PUT", "{\"a\":1}", "PUT /v2/x HTTP/1.1\r\n"},
		{"PATCH", "{\"a\":1}", "PATCH /v2/x HTTP/1.1\r\n"},
		{"DELETE", "{\"a\":1}", "DELETE /v2/x HTTP/1.1\r\n"},
		{"POST", "", "POST /v2/x HTTP/1.1\r\n"},
		{"POST", NULL, "POST /v2/x HTTP/1.1\r\n"},
		{"PATCH", NULL, "PATCH /v2/x HTTP/1.1\r\n"},
		{"DELETE", NULL, "DELETE /v2/x HTTP/1.1\r\n"},
		{"HEAD", NULL, "HEAD /v2/x HTTP/1.1\r\n"},
	};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 4, 0, NULL);

	(void)state;
	for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct call call;
		struct transfer_spec spec = call_init(&call, engine, server->port, "/v2/x");
		char length[64];
		const char *request;

		spec.method = table[i].method;
		spec.body = table[i].body;
		spec.body_len = table[i].body ? strlen(table[i].body) : 0;
		spec.content_type = table[i].body ? "application/json" : NULL;
		assert_int_equal(call_run(&call, &spec)->error, 0);
		request = server->requests[i];
		assert_memory_equal(request, table[i].head, strlen(table[i].head));
		snprintf(length, sizeof(length), "\r\nContent-Length: %zu\r\n", spec.body_len);
		if (table[i].body || *table[i].method == 'P')
			assert_non_null(strstr(request, length));
		else
			assert_null(strstr(request, "Content-Length"));
		assert_true(!table[i].body == !strstr(request, "Content-Type: application/json"));
		assert_null(strstr(request, "x-www-form-urlencoded"));
		assert_string_equal(strstr(request, "\r\n\r\n") + 4,
				    table[i].body ? table[i].body : "");
	}
	engine_free(engine);
	server_free(server);
}

static void test_connection_is_used_again(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 4, 0, NULL);

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct call call;
		struct transfer_spec spec = call_init(&call, engine, server->port, "/");

		assert_int_equal(call_run(&call, &spec)->error, 0);
	}
	assert_int_equal(server->n_connections, 1);
	engine_free(engine);
	server_free(server);
}

/* Multipart */

static void boundary_of(const char *request, char *ret_boundary, size_t size)
{
	const char *at = strstr(request, "boundary=");
	size_t len;

	assert_non_null(at);
	at += strlen("boundary=");
	len = strcspn(at, "\r");
	assert_true(len < size);
	memcpy(ret_boundary, at, len);
	ret_boundary[len] = '\0';
}

static void test_multipart_is_sent_byte_for_byte(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	char path[] = "/tmp/attachfs-test-XXXXXX", boundary[128], expected[2048], length[64];
	int fd = mkstemp(path);
	struct transfer_part parts[] = {
		{.name = "na\"me", .data = "Range card", .len = 10, .fd = -1},
		{.name = "file",
		 .filename = "a\"b\\c\r\nd.bin",
		 .content_type = "text/x-test",
		 .fd = fd,
		 .fd_off = 3,
		 .fd_len = 5},
		{.name = "empty", .data = "", .len = 0, .fd = -1},
	};
	ONE_CALL(answers);

	(void)state;
	assert_int_equal(write(fd, "0123456789", 10), 10);
	spec.method = "POST";
	spec.parts = parts;
	spec.n_parts = 3;
	call_start(&call, &spec);
	close(fd); /* it has its own by now */
	unlink(path);
	assert_int_equal(call_wait(&call)->error, 0);
	assert_non_null(
		strstr(server->requests[0], "\r\nContent-Type: multipart/form-data; boundary="));
	boundary_of(server->requests[0], boundary, sizeof(boundary));
	snprintf(expected, sizeof(expected),
		 "--%s\r\nContent-Disposition: form-data; name=\"na%%22me\"\r\n\r\nRange card\r\n"
		 "--%s\r\nContent-Type: text/x-test\r\nContent-Disposition: form-data; "
		 "name=\"file\"; "
		 "filename=\"a%%22b\\c%%0D%%0Ad.bin\"\r\n\r\n34567\r\n"
		 "--%s\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n--%s--\r\n",
		 boundary, boundary, boundary, boundary);
	assert_string_equal(strstr(server->requests[0], "\r\n\r\n") + 4, expected);
	snprintf(length, sizeof(length), "\r\nContent-Length: %zu\r\n", strlen(expected));
	assert_non_null(strstr(server->requests[0], length));
	END_CALL();
}

static void test_multipart_type_and_disposition_can_be_chosen(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	struct transfer_part parts[] = {
		{.disposition = "attachment; filename=\"x.txt\"; size=3",
		 .content_type = "text/plain",
		 .data = "abc",
		 .len = 3,
		 .fd = -1},
		{.name = "n", .filename = "f", .data = "d", .len = 1, .fd = -1},
	};
	char boundary[128], expected[1024];
	ONE_CALL(answers);

	(void)state;
	spec.method = "PUT";
	spec.parts = parts;
	spec.n_parts = 2;
	spec.multipart_type = "multipart/mixed";
	assert_int_equal(call_run(&call, &spec)->error, 0);
	assert_non_null(strstr(server->requests[0], "PUT /v2/thing"));
	assert_non_null(
		strstr(server->requests[0], "\r\nContent-Type: multipart/mixed; boundary="));
	boundary_of(server->requests[0], boundary, sizeof(boundary));
	snprintf(expected, sizeof(expected),
		 "--%s\r\nContent-Type: text/plain\r\n"
		 "Content-Disposition: attachment; filename=\"x.txt\"; size=3\r\n\r\nabc\r\n"
		 "--%s\r\nContent-Disposition: form-data; name=\"n\"; "
		 "filename=\"f\"\r\n\r\nd\r\n--%s--\r\n",
		 boundary, boundary, boundary);
	assert_string_equal(strstr(server->requests[0], "\r\n\r\n") + 4, expected);
	END_CALL();
}

static void test_file_that_became_shorter_is_not_sent_as_whole(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	char path[] = "/tmp/attachfs-test-XXXXXX";
	int fd = mkstemp(path);
	struct transfer_part part = {.name = "file", .filename = "f", .fd = fd, .fd_len = 100};
	ONE_CALL(answers);

	(void)state;
	unlink(path);
	assert_int_equal(write(fd, "0123456789", 10), 10);
	spec.method = "POST";
	spec.parts = &part;
	spec.n_parts = 1;
	assert_int_equal(call_run(&call, &spec)->error, -EIO);
	close(fd);
	END_CALL();
}

static void test_header_injection_is_refused(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	static const char *const headers[] = {"X-A: b\r\nX-Evil: c", NULL};
	ONE_CALL(answers);
	struct transfer_spec bad = spec;

	(void)state;
	bad.headers = headers;
	assert_int_equal(transfer_start(engine, &bad, NULL), -EINVAL);
	bad = spec;
	bad.if_range = "x\r\n";
	assert_int_equal(transfer_start(engine, &bad, NULL), -EINVAL);
	bad = spec;
	bad.method = "GET /x HTTP/1.1\r\n";
	assert_int_equal(transfer_start(engine, &bad, NULL), -EINVAL);
	call_run(&call, &spec);
	END_CALL();
}

/* Credentials, redirects, protocols */

static const char credential[] = "Authorization: Bearer secret";

static void test_credential_is_sent_to_the_origin_only(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	struct server *other = server_new(answers);
	struct call second;
	ONE_CALL(answers);
	struct transfer_spec elsewhere = call_init(&second, engine, other->port, "/");

	(void)state;
	spec.credential = credential;
	call_run(&call, &spec);
	assert_non_null(strstr(server->requests[0], credential));
	elsewhere.credential = credential;
	assert_int_equal(call_run(&second, &elsewhere)->error, 0);
	assert_null(strstr(other->requests[0], "secret"));
	/* Another name for the same address is another origin. */
	snprintf(second.url, sizeof(second.url), "http://localhost:%d/", server->port);
	second.dones = 0;
	assert_int_equal(call_run(&second, &elsewhere)->error, 0);
	assert_null(strstr(server->requests[1], "secret"));
	server_free(other);
	END_CALL();
}

/* Run one call that is redirected to @before, the port of another server, @after. */
static void redirected(int status, const char *before, const char *after, const char *method,
		       const char *body, int error, char **ret_first, char **ret_second)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	struct server *other = server_new(answers);
	char text[256];
	struct answer redirect[] = {{text, KEEP, 0, 0}, {OK_TEXT, KEEP, 0, 0}};
	ONE_CALL(redirect);

	snprintf(text, sizeof(text),
		 "HTTP/1.1 %d Go\r\nLocation: %s%d%s\r\nContent-Length: 3\r\n\r\nbye", status,
		 before, other->port, after);
	spec.method = method;
	spec.body = body;
	spec.body_len = body ? strlen(body) : 0;
	spec.credential = credential;
	assert_int_equal(call_run(&call, &spec)->error, error);
	assert_int_equal(call.heads, error ? 0 : 1);
	*ret_first = strdup(server->requests[0]);
	*ret_second = NULL;
	if (server_count(other))
		*ret_second = strdup(other->requests[0]);
	else if (server_count(server) > 1)
		*ret_second = strdup(server->requests[1]);
	END_CALL();
	server_free(other);
}

static void test_credential_is_not_sent_along_a_redirect(void **state)
{
	char *first, *second;

	(void)state;
	redirected(302, "http://127.0.0.1:", "/new", "GET", NULL, 0, &first, &second);
	assert_non_null(strstr(first, credential));
	assert_non_null(strstr(second, "GET /new HTTP/1.1\r\n"));
	assert_null(strstr(second, "secret"));
	free(first);
	free(second);
}

static void test_credential_goes_along_a_redirect_within_the_origin(void **state)
{
	char *first, *second;

	(void)state;
	redirected(301, "../new?", "#top", "GET", NULL, 0, &first, &second);
	assert_non_null(strstr(second, "GET /new?"));
	assert_null(strstr(second, "#top"));
	assert_non_null(strstr(second, credential));
	free(first);
	free(second);
}

static void test_credential_does_not_come_back_from_another_origin(void **state)
{
	char there[128], back[128];
	struct answer away[] = {{there, KEEP, 0, 0}, {OK_TEXT, KEEP, 0, 0}};
	struct answer home[] = {{back, KEEP, 0, 0}};
	struct server *other = server_new(home);
	ONE_CALL(away);

	(void)state;
	snprintf(there, sizeof(there),
		 "HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n",
		 other->port);
	snprintf(back, sizeof(back),
		 "HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:%d/evil\r\nContent-Length: "
		 "0\r\n\r\n",
		 server->port);
	spec.credential = credential;
	assert_int_equal(call_run(&call, &spec)->error, 0);
	assert_memory_equal(server->requests[1], "GET /evil ", 10);
	assert_null(strstr(server->requests[1], "secret"));
	END_CALL();
	server_free(other);
}

static void test_redirect_307_repeats_the_body(void **state)
{
	char *first, *second;

	(void)state;
	redirected(307, "http://127.0.0.1:", "/new", "PATCH", "body", 0, &first, &second);
	assert_memory_equal(second, "PATCH /new ", 11);
	assert_string_equal(strstr(second, "\r\n\r\n") + 4, "body");
	free(first);
	free(second);
}

static void test_redirect_303_becomes_a_get(void **state)
{
	char *first, *second;

	(void)state;
	redirected(303, "http://127.0.0.1:", "/new", "POST", "body", 0, &first, &second);
	assert_memory_equal(second, "GET /new ", 9);
	assert_null(strstr(second, "Content-Length"));
	free(first);
	free(second);
}

static void test_redirect_of_a_write_is_not_taken_for_success(void **state)
{
	char *first, *second;

	(void)state;
	redirected(302, "http://127.0.0.1:", "/new", "POST", "body", -EPROTO, &first, &second);
	assert_null(second);
	free(first);
}

static void test_redirect_to_another_protocol_is_refused(void **state)
{
	static const char *const targets[][2] = {
		{"file:///etc/passwd?", ""},	{"ftp://127.0.0.1:", "/"},
		{"gopher://127.0.0.1:", "/"},	{"http://example.com:", "/"},
		{"http://u:p@127.0.0.1:", "/"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		char *first, *second;

		redirected(302, targets[i][0], targets[i][1], "GET", NULL, -EPROTO, &first,
			   &second);
		assert_null(second);
		free(first);
	}
}

static void test_no_more_than_five_redirects(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n", KEEP, 0,
		 0}};
	ONE_CALL(answers);

	(void)state;
	assert_int_equal(call_run(&call, &spec)->error, -EPROTO);
	assert_int_equal(server_count(server), 6);
	assert_non_null(strstr(call.result.message, "redirects"));
	END_CALL();
}

static void test_forbidden_protocols_are_refused_at_once(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	static const char *const urls[] = {
		"http://192.0.2.1/",
		"http://example.com/",
		"http://127.0.0.1.example.com/",
		"http://localhost.example.com/",
		"file:///etc/passwd",
		"ftp://127.0.0.1/",
		"",
		"/x",
		"gopher://127.0.0.1/",
		"http://user:word@127.0.0.1/",
		"http://",
		"https://a b/",
	};
	ONE_CALL(answers);

	(void)state;
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		struct transfer_spec bad = spec;

		bad.url = urls[i];
		if (transfer_start(engine, &bad, NULL) != -EINVAL)
			fail_msg("'%s' is taken", urls[i]);
	}
	call_run(&call, &spec);
	END_CALL();
}

/* Errors */

static void test_refused_connection_fails_within_a_second(void **state)
{
	struct told told = {.n = 0};
	int port = closed_port();
	struct engine *engine = engine_for(port, 4, 0, &told);
	int64_t start = clock_mono_ms();
	struct call call;
	struct transfer_spec spec = call_init(&call, engine, port, "/");

	(void)state;
	spec.idempotent = false;
	assert_int_equal(call_run(&call, &spec)->error, -EHOSTDOWN);
	assert_in_range(clock_mono_ms() - start, 0, 999);
	assert_int_equal(call.result.tries, 3);
	assert_false(call.result.sent);
	assert_non_null(strstr(call.result.message, "refused"));
	engine_free(engine);
}

static void test_truncated_body_is_an_error(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", CLOSE, 0, 0}};
	ONE_CALL(answers);

	(void)state;
	assert_int_equal(call_run(&call, &spec)->error, -ECONNRESET);
	assert_int_equal(call.result.received, 5);
	assert_int_equal(call.result.status, 200);
	assert_int_equal(server_count(server), 1);
	END_CALL();
}

static void test_a_request_that_may_have_been_carried_out_is_not_repeated(void **state)
{
	static const struct answer answers[] = {
		{OK_TEXT, KEEP, 0, 0}, {NULL, CLOSE, 0, 0}, {OK_TEXT, KEEP, 0, 0}};
	struct call first;
	ONE_CALL(answers);
	struct transfer_spec get = call_init(&first, engine, server->port, "/");

	(void)state;
	call_run(&first,
		 &get); /* so that there is a connection to use again, which curl would replace */
	spec.method = "POST";
	spec.body = "x";
	spec.body_len = 1;
	spec.idempotent = false;
	spec.retry_for_ever = true;
	assert_int_equal(call_run(&call, &spec)->error, -ECONNRESET);
	assert_true(call.result.sent);
	assert_int_equal(server_count(server), 2);
	END_CALL();
}

static void test_an_idempotent_request_is_repeated(void **state)
{
	static const struct answer answers[] = {
		{NULL, RESET, 0, 0},
		{"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad", KEEP, 0, 0},
		{OK_TEXT, KEEP, 0, 0}};
	ONE_CALL(answers);

	(void)state;
	assert_int_equal(call_run(&call, &spec)->error, 0);
	assert_int_equal(call.result.status, 200);
	assert_int_equal(call.result.tries, 3);
	assert_int_equal(call.heads, 1);
	assert_int_equal(call.len, 2);
	END_CALL();
}

static void test_an_answer_larger_than_allowed_is_refused(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", KEEP, 0, 0},
		{"HTTP/1.1 200 OK\r\n\r\nabc", CLOSE, 0, 0}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 4, 0, NULL);

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct call call;
		struct transfer_spec spec = call_init(&call, engine, server->port, "/");

		spec.max_body = 2;
		assert_int_equal(call_run(&call, &spec)->error, -EPROTO);
		assert_int_equal(call.result.received, 0);
	}
	engine_free(engine);
	server_free(server);
}

static void test_what_is_not_http_is_refused(void **state)
{
	static const struct answer answers[] = {{"SSH-2.0-OpenSSH_9.2\r\n", CLOSE, 0, 0}};
	ONE_CALL(answers);

	(void)state;
	assert_int_equal(call_run(&call, &spec)->error, -EPROTO);
	END_CALL();
}

static void test_a_callback_that_refuses_ends_the_transfer(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 4, 0, NULL);

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct call call;
		struct transfer_spec spec = call_init(&call, engine, server->port, "/");

		call.refuse_head = i == 0;
		call.refuse_body = i == 1;
		assert_int_equal(call_run(&call, &spec)->error, -EIO);
		assert_int_equal(call.chunks, i);
	}
	engine_free(engine);
	server_free(server);
}

static void test_a_stalled_transfer_ends(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", HANG, 0, 0}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 4, 300, NULL);
	int64_t start = clock_mono_ms();
	struct call call;
	struct transfer_spec spec = call_init(&call, engine, server->port, "/");

	(void)state;
	assert_int_equal(call_run(&call, &spec)->error, -ETIMEDOUT);
	assert_in_range(clock_mono_ms() - start, 290, 1500);
	assert_non_null(strstr(call.result.message, "stalled"));
	END_CALL();
}

static void test_a_deadline_ends_a_transfer_that_gets_no_answer(void **state)
{
	static const struct answer answers[] = {{NULL, HANG, 0, 0}};
	int64_t start = clock_mono_ms();
	ONE_CALL(answers);

	(void)state;
	spec.deadline_mono_ms = start + 250;
	assert_int_equal(call_run(&call, &spec)->error, -ETIMEDOUT);
	assert_in_range(clock_mono_ms() - start, 240, 1000);
	assert_true(call.result.sent);
	END_CALL();
}

/* Cancel, pause */

static void test_cancel_ends_a_running_and_a_waiting_transfer(void **state)
{
	static const struct answer answers[] = {{NULL, HANG, 0, 0}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 2, 0, NULL);
	struct call calls[3];

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, server->port, "/");

		call_start(&calls[i], &spec);
	}
	server_wait_requests(server, 2);
	for (int i = 2; i >= 0; i--) {
		transfer_cancel(engine, calls[i].id);
		assert_int_equal(call_wait(&calls[i])->error, -ECANCELED);
		assert_true(calls[i].result.sent == (i < 2));
	}
	transfer_cancel(engine, calls[0].id); /* harmless */
	transfer_cancel(engine, 4711);
	assert_int_equal(server_count(server), 2);
	engine_free(engine);
	server_free(server);
	for (int i = 0; i < 3; i++)
		assert_int_equal(calls[i].dones, 1);
}

static void test_cancel_from_inside_data_is_heard_at_once(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n", KEEP, 0, 8000000}};
	ONE_CALL(answers);

	(void)state;
	call.cancel_in_data = true;
	pthread_mutex_lock(&call.lock); /* hold the callbacks until the id is known */
	assert_int_equal(transfer_start(engine, &spec, &call.id), 0);
	pthread_mutex_unlock(&call.lock);
	assert_int_equal(call_wait(&call)->error, -ECANCELED);
	assert_int_equal(call.chunks, 1);
	END_CALL();
}

static void test_pause_from_inside_data_holds_the_flow_until_resume(void **state)
{
	enum { SIZE = 20000000 };
	static const struct answer answers[] = {
		{"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n", KEEP, 0, SIZE}};
	ONE_CALL(answers);
	size_t before = 0;

	(void)state;
	call.pause_at = 1;
	pthread_mutex_lock(&call.lock);
	assert_int_equal(transfer_start(engine, &spec, &call.id), 0);
	pthread_mutex_unlock(&call.lock);
	for (int i = 0; i < 5; i++) {
		int64_t until = clock_mono_ms() + 5000;
		size_t len;

		while (call_len(&call) == before && clock_mono_ms() < until)
			usleep(1000);
		len = call_len(&call);
		assert_true(len > before && len < SIZE);
		usleep(30000);
		assert_int_equal(call_len(&call), len);
		before = len;
		transfer_resume(engine, call.id);
	}
	pthread_mutex_lock(&call.lock);
	call.pause_at = 0;
	pthread_mutex_unlock(&call.lock);
	transfer_resume(engine, call.id);
	usleep(1000);
	transfer_resume(engine, call.id);
	assert_int_equal(call_wait(&call)->error, 0);
	assert_int_equal(call.len, SIZE);
	assert_int_equal(call.result.received, SIZE);
	END_CALL();
}

static void test_pause_from_another_thread_holds_the_flow(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", KEEP, 100, 100000}};
	ONE_CALL(answers);

	(void)state;
	call_start(&call, &spec);
	transfer_pause(engine, call.id);
	usleep(300000);
	assert_int_equal(call_len(&call), 0);
	transfer_resume(engine, call.id);
	assert_int_equal(call_wait(&call)->error, 0);
	assert_int_equal(call.len, 100000);
	END_CALL();
}

static void test_paused_transfers_do_not_hold_slots(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n", KEEP, 0, 3000000}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 2, 200, NULL);
	struct call calls[5];

	(void)state;
	for (int i = 0; i < 5; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, server->port, "/");

		calls[i].pause_at = i < 4 ? 1 : 0;
		pthread_mutex_lock(&calls[i].lock);
		call_start(&calls[i], &spec);
		pthread_mutex_unlock(&calls[i].lock);
	}
	assert_int_equal(call_wait(&calls[4])->error, 0);
	usleep(500000); /* longer than a stall: a pause is none */
	for (int i = 0; i < 4; i++) {
		assert_int_equal(calls[i].dones, 0);
		pthread_mutex_lock(&calls[i].lock);
		calls[i].pause_at = 0;
		pthread_mutex_unlock(&calls[i].lock);
		transfer_resume(engine, calls[i].id);
		assert_int_equal(call_wait(&calls[i])->error, 0);
		assert_int_equal(calls[i].len, 3000000);
	}
	engine_free(engine);
	server_free(server);
}

/* Order */

static void test_classes_are_served_in_order(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 150, 0}, {OK_TEXT, KEEP, 5, 0}};
	static const enum transfer_class classes[] = {
		TRANSFER_REFRESH, /* takes the one slot that is not kept for programs that wait */
		TRANSFER_REFRESH, TRANSFER_PREFETCH, TRANSFER_WRITEBACK, TRANSFER_PREFETCH,
	};
	static const int expected[] = {5, 0, 3, 2, 4, 1};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 2, 0, NULL);
	struct call calls[6];
	int order[6], next = 0;

	(void)state;
	for (int i = 0; i < 6; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, server->port, "/");

		spec.class = i < 5 ? classes[i] : TRANSFER_INTERACTIVE;
		calls[i].order = order;
		calls[i].order_next = &next;
		calls[i].number = i;
		call_start(&calls[i], &spec);
		if (i == 0)
			server_wait_requests(server, 1);
	}
	for (int i = 0; i < 6; i++)
		assert_int_equal(call_wait(&calls[i])->error, 0);
	assert_memory_equal(order, expected, sizeof(expected));
	assert_int_equal(server->most_running, 2);
	engine_free(engine);
	server_free(server);
}

static void test_a_waiting_transfer_can_change_its_class(void **state)
{
	static const struct answer answers[] = {{NULL, HANG, 0, 0}, {OK_TEXT, KEEP, 0, 0}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 2, 0, NULL);
	struct call calls[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, server->port, "/");

		spec.class = TRANSFER_PREFETCH;
		call_start(&calls[i], &spec);
		server_wait_requests(server, 1);
	}
	usleep(50000);
	assert_int_equal(server_count(server), 1);
	transfer_set_class(engine, calls[1].id, TRANSFER_INTERACTIVE);
	assert_int_equal(call_wait(&calls[1])->error, 0);
	engine_free(engine);
	server_free(server);
	assert_int_equal(calls[0].result.error, -ECANCELED);
}

/* Rate limit, breaker */

static void test_a_429_freezes_the_host_until_it_said(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
		 KEEP, 0, 0},
		{OK_TEXT, KEEP, 0, 0}};
	struct told told = {.n = 0};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 4, 0, &told);
	int64_t start = clock_mono_ms(), until;
	struct call calls[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, server->port, "/");

		spec.idempotent = false; /* a 429 says that nothing was done */
		call_start(&calls[i], &spec);
		server_wait_requests(server, 1);
		usleep(100000);
	}
	assert_int_equal(engine_get_state(engine, &until), ENGINE_THROTTLED);
	assert_in_range(until - clock_real_ns(), 0, CLOCK_NS_PER_S);
	assert_int_equal(server_count(server), 1);
	for (int i = 0; i < 2; i++)
		assert_int_equal(call_wait(&calls[i])->error, 0);
	assert_in_range(clock_mono_ms() - start, 1000, 1900);
	assert_int_equal(calls[0].result.tries, 2);
	assert_int_equal(calls[1].result.tries, 1);
	assert_int_equal(engine_get_state(engine, &until), ENGINE_ONLINE);
	engine_free(engine);
	assert_int_equal(told.n, 2);
	assert_int_equal(told.states[0], ENGINE_THROTTLED);
	assert_int_equal(told.states[1], ENGINE_ONLINE);
	server_free(server);
}

static void test_a_429_beyond_the_deadline_is_given_to_the_caller(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nwait", KEEP, 0, 0}};
	struct call late;
	ONE_CALL(answers);
	struct transfer_spec second = call_init(&late, engine, server->port, "/");

	(void)state;
	assert_int_equal(call_run(&call, &spec)->error, 0);
	assert_int_equal(call.result.status, 429);
	assert_int_equal(call.result.tries, 1);
	assert_string_equal(call.body, "wait");
	assert_string_equal(call.result.message, "429: Too Many Requests");
	second.deadline_mono_ms =
		clock_mono_ms() + 200; /* waits for the end of the freeze in vain */
	assert_int_equal(call_run(&late, &second)->error, -ETIMEDOUT);
	assert_false(late.result.sent);
	assert_non_null(strstr(late.result.message, "rate limit"));
	assert_int_equal(server_count(server), 1);
	END_CALL();
}

static void test_half_of_a_window_is_kept_for_programs_that_wait(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 200 OK\r\nX-RateLimit-Limit: 100\r\nX-RateLimit-Remaining: 51\r\n"
		 "Content-Length: 0\r\n\r\n",
		 KEEP, 0, 0},
		{"HTTP/1.1 200 OK\r\nX-RateLimit-Limit: 100\r\nX-RateLimit-Remaining: 50\r\n"
		 "Content-Length: 0\r\n\r\n",
		 KEEP, 0, 0},
		{"HTTP/1.1 200 OK\r\nX-RateLimit-Limit: 100\r\nX-RateLimit-Remaining: 49\r\n"
		 "Content-Length: 0\r\n\r\n",
		 KEEP, 0, 0}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 4, 0, NULL);
	struct call calls[4];

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, server->port, "/");

		spec.class = i < 3 ? TRANSFER_REFRESH : TRANSFER_INTERACTIVE;
		call_start(&calls[i], &spec);
		if (i == 2)
			usleep(100000);
		else
			assert_int_equal(call_wait(&calls[i])->error, 0);
	}
	assert_int_equal(calls[2].dones, 0);
	assert_int_equal(server_count(server), 3);
	assert_int_equal(engine_get_state(engine, NULL), ENGINE_THROTTLED);
	engine_free(engine);
	server_free(server);
}

static void test_the_breaker_opens_and_a_probe_closes_it(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	struct told told = {.n = 0};
	int port = closed_port();
	struct engine *engine = engine_for(port, 4, 0, &told);
	struct call calls[3], background;
	struct server *server;
	int64_t start;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, port, "/");

		start = clock_mono_ms();
		assert_int_equal(call_run(&calls[i], &spec)->error, -EHOSTDOWN);
	}
	assert_in_range(clock_mono_ms() - start, 0, 100);
	assert_int_equal(calls[1].result.tries, 0);
	assert_int_equal(engine_get_state(engine, NULL), ENGINE_OFFLINE);
	{
		struct transfer_spec spec = call_init(&background, engine, port, "/");

		spec.retry_for_ever = true;
		spec.class = TRANSFER_WRITEBACK;
		call_start(&background, &spec);
	}
	server = server_new_at(answers, 1, port);
	assert_int_equal(call_wait(&background)->error, 0); /* as the probe */
	assert_int_equal(engine_get_state(engine, NULL), ENGINE_ONLINE);
	{
		struct transfer_spec spec = call_init(&calls[2], engine, port, "/");

		assert_int_equal(call_run(&calls[2], &spec)->error, 0);
	}
	engine_free(engine);
	assert_int_equal(told.n, 2);
	assert_int_equal(told.states[0], ENGINE_OFFLINE);
	assert_int_equal(told.states[1], ENGINE_ONLINE);
	server_free(server);
}

/* Nobody wants anything any more. */
static void test_an_idle_engine_finds_out_by_itself_that_the_server_is_back(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	struct engine_counter total;
	int port = closed_port();
	struct engine *engine = engine_for(port, 4, 0, NULL);
	struct transfer_spec spec;
	struct server *server;
	struct call call;
	char trouble[256];

	(void)state;
	spec = call_init(&call, engine, port, "/");
	assert_int_equal(call_run(&call, &spec)->error, -EHOSTDOWN);
	assert_int_equal(engine_get_state(engine, NULL), ENGINE_OFFLINE);
	engine_describe_trouble(engine, trouble, sizeof(trouble));
	assert_non_null(strstr(trouble, "refused"));
	server = server_new_at(answers, 1, port);
	while (engine_get_state(engine, NULL) == ENGINE_OFFLINE)
		usleep(10000);
	assert_int_equal(server_count(server), 0);
	engine_count(engine, NULL, NULL, &total);
	assert_int_equal(total.requests, 0);
	engine_describe_trouble(engine, trouble, sizeof(trouble));
	assert_string_equal(trouble, "");
	spec = call_init(&call, engine, port, "/");
	assert_int_equal(call_run(&call, &spec)->error, 0);
	engine_free(engine);
	server_free(server);
}

static void test_retry_now_lets_everybody_try_at_once(void **state)
{
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	int port = closed_port();
	struct engine *engine = engine_for(port, 4, 0, NULL);
	struct server *server;
	struct call calls[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, port, "/");

		assert_int_equal(call_run(&calls[i], &spec)->error, -EHOSTDOWN);
	}
	server = server_new_at(answers, 1, port);
	engine_retry_now(engine);
	{
		struct transfer_spec spec = call_init(&calls[0], engine, port, "/");

		assert_int_equal(call_run(&calls[0], &spec)->error, 0);
	}
	engine_free(engine);
	server_free(server);
}

/* The handle */

static void test_freeing_the_engine_cancels_what_is_left(void **state)
{
	static const struct answer answers[] = {
		{NULL, HANG, 0, 0},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", HANG, 0, 0},
		{"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", KEEP, 0, 0},
		{NULL, HANG, 0, 0}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 4, 0, NULL);
	struct call calls[100];

	(void)state;
	for (int i = 0; i < 100; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, server->port, "/");

		spec.deadline_mono_ms = 0;
		spec.class = i % TRANSFER_CLASSES;
		call_start(&calls[i], &spec);
	}
	server_wait_requests(server, 3);
	engine_free(engine);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(calls[i].dones, 1);
		assert_int_equal(calls[i].result.error, -ECANCELED);
	}
	server_free(server);
}

static void count_endpoint(void *ctx, const struct engine_counter *counter)
{
	uint64_t *counts = ctx;

	counts[strcmp(counter->endpoint, "A") == 0 ? 0 : 1] = counter->requests;
}

static void test_requests_and_bytes_are_counted_by_endpoint(void **state)
{
	static const struct answer answers[] = {
		{"HTTP/1.1 503 No\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n", KEEP, 0, 0},
		{OK_TEXT, KEEP, 0, 0}};
	struct engine_counter total;
	uint64_t counts[2] = {0, 0};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 4, 0, NULL);

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct call call;
		struct transfer_spec spec = call_init(&call, engine, server->port, "/");

		spec.method = "POST";
		spec.body = "12345";
		spec.body_len = 5;
		spec.endpoint = i < 2 ? "A" : "B";
		assert_int_equal(call_run(&call, &spec)->error, 0);
	}
	engine_count(engine, count_endpoint, counts, &total);
	assert_int_equal(counts[0], 3);
	assert_int_equal(counts[1], 1);
	assert_int_equal(total.requests, 4);
	assert_int_equal(total.bytes_sent, 20);
	assert_int_equal(total.bytes_received, 6);
	engine_free(engine);
	server_free(server);
}

static void test_a_bad_origin_makes_no_engine(void **state)
{
	static const char *const origins[] = {NULL, "", "ftp://a/", "nonsense", "http://u:p@a/"};

	(void)state;
	for (size_t i = 0; i < sizeof(origins) / sizeof(origins[0]); i++) {
		struct engine_config config = {.origin = origins[i], .slots = 4};
		struct engine *engine = NULL;

		assert_int_equal(engine_new(&config, &engine), -EINVAL);
		assert_null(engine);
	}
	engine_free(NULL);
}

/* Not a test but a number: how many small requests a second. */
static void test_small_requests_are_fast(void **state)
{
	enum { N = 3000 };
	static const struct answer answers[] = {{OK_TEXT, KEEP, 0, 0}};
	struct server *server = server_new(answers);
	struct engine *engine = engine_for(server->port, 16, 0, NULL);
	struct call *calls = calloc(N, sizeof(*calls));
	int64_t start = clock_mono_ms(), took;

	(void)state;
	for (int i = 0; i < N; i++) {
		struct transfer_spec spec = call_init(&calls[i], engine, server->port, "/");

		call_start(&calls[i], &spec);
	}
	for (int i = 0; i < N; i++)
		assert_int_equal(call_wait(&calls[i])->error, 0);
	took = clock_mono_ms() - start;
	print_message("%d requests in %lld ms, %u connections\n", N, (long long)took,
		      server->n_connections);
	assert_true(server->n_connections <= 16);
	engine_free(engine);
	server_free(server);
	free(calls);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get_gives_head_and_body),
		cmocka_unit_test(test_request_holds_what_was_asked_and_no_more),
		cmocka_unit_test(test_every_method_sends_its_body_with_its_length),
		cmocka_unit_test(test_connection_is_used_again),
		cmocka_unit_test(test_multipart_is_sent_byte_for_byte),
		cmocka_unit_test(test_multipart_type_and_disposition_can_be_chosen),
		cmocka_unit_test(test_file_that_became_shorter_is_not_sent_as_whole),
		cmocka_unit_test(test_header_injection_is_refused),
		cmocka_unit_test(test_credential_is_sent_to_the_origin_only),
		cmocka_unit_test(test_credential_is_not_sent_along_a_redirect),
		cmocka_unit_test(test_credential_goes_along_a_redirect_within_the_origin),
		cmocka_unit_test(test_credential_does_not_come_back_from_another_origin),
		cmocka_unit_test(test_redirect_307_repeats_the_body),
		cmocka_unit_test(test_redirect_303_becomes_a_get),
		cmocka_unit_test(test_redirect_of_a_write_is_not_taken_for_success),
		cmocka_unit_test(test_redirect_to_another_protocol_is_refused),
		cmocka_unit_test(test_no_more_than_five_redirects),
		cmocka_unit_test(test_forbidden_protocols_are_refused_at_once),
		cmocka_unit_test(test_refused_connection_fails_within_a_second),
		cmocka_unit_test(test_truncated_body_is_an_error),
		cmocka_unit_test(test_a_request_that_may_have_been_carried_out_is_not_repeated),
		cmocka_unit_test(test_an_idempotent_request_is_repeated),
		cmocka_unit_test(test_an_answer_larger_than_allowed_is_refused),
		cmocka_unit_test(test_what_is_not_http_is_refused),
		cmocka_unit_test(test_a_callback_that_refuses_ends_the_transfer),
		cmocka_unit_test(test_a_stalled_transfer_ends),
		cmocka_unit_test(test_a_deadline_ends_a_transfer_that_gets_no_answer),
		cmocka_unit_test(test_cancel_ends_a_running_and_a_waiting_transfer),
		cmocka_unit_test(test_cancel_from_inside_data_is_heard_at_once),
		cmocka_unit_test(test_pause_from_inside_data_holds_the_flow_until_resume),
		cmocka_unit_test(test_pause_from_another_thread_holds_the_flow),
		cmocka_unit_test(test_paused_transfers_do_not_hold_slots),
		cmocka_unit_test(test_classes_are_served_in_order),
		cmocka_unit_test(test_a_waiting_transfer_can_change_its_class),
		cmocka_unit_test(test_a_429_freezes_the_host_until_it_said),
		cmocka_unit_test(test_a_429_beyond_the_deadline_is_given_to_the_caller),
		cmocka_unit_test(test_half_of_a_window_is_kept_for_programs_that_wait),
		cmocka_unit_test(test_the_breaker_opens_and_a_probe_closes_it),
		cmocka_unit_test(test_an_idle_engine_finds_out_by_itself_that_the_server_is_back),
		cmocka_unit_test(test_retry_now_lets_everybody_try_at_once),
		cmocka_unit_test(test_freeing_the_engine_cancels_what_is_left),
		cmocka_unit_test(test_requests_and_bytes_are_counted_by_endpoint),
		cmocka_unit_test(test_a_bad_origin_makes_no_engine),
		cmocka_unit_test(test_small_requests_are_fast),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
