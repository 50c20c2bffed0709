/* SPDX-License-Identifier: MIT */
#include "rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "../../api/auth.h"
#include "../../api/call.h"
#include "../../api/fetch.h"
#include "../../api/json.h"

#define WAIT_MS		20000
#define CONNECTIONS_MAX 4096

struct rig_server {
	struct rig *rig;
	int listener;
	pthread_t acceptor, connections[CONNECTIONS_MAX];
	_Atomic unsigned n_connections;
	_Atomic bool stop;
};

struct connection {
	struct rig_server *server;
	int fd;
};

/* The server */

/* One request to the end of its body; NULL = the client is gone. */
static char *read_request(int fd)
{
	size_t used = 0, size = 4096;
	char *text = malloc(size), *end = NULL;

	for (;;) {
		if (used + 1 == size)
			text = realloc(text, size *= 2);
		ssize_t n = recv(fd, text + used, size - used - 1, 0);
		if (n <= 0) {
			free(text);
			return NULL;
		}
		used += (size_t)n;
		text[used] = '\0';
		end = memmem(text, used, "\r\n\r\n", 4);
		const char *length = end ? strcasestr(text, "\r\nContent-Length:") : NULL;
		size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
		if (end && used >= (size_t)(end + 4 - text) + body)
			return text;
	}
}

void rig_append(struct rig_reply *reply, const void *data, size_t len)
{
	reply->text = realloc(reply->text, reply->len + len + 1);
	memcpy(reply->text + reply->len, data, len);
	reply->len += len;
}

void rig_reply(struct rig_reply *reply, const char *format, ...)
{
	va_list args;
	char *text = NULL;

	va_start(args, format);
	int n = vasprintf(&text, format, args);
	va_end(args);
	assert_true(n >= 0);
	rig_append(reply, text, (size_t)n);
	free(text);
}

bool rig_check_token(struct rig *rig, const char *request, struct rig_reply *reply)
{
	char good[RIG_TOKEN_MAX];

	snprintf(good, sizeof(good), "\r\nAuthorization: Bearer token-secret-%04u\r\n",
		 (unsigned)rig->token);
	if (!rig->refuse_all && rig->token && strstr(request, good))
		return true;
	rig->refused++;
	rig_reply(reply, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
	return false;
}

static void answer_login(struct rig *rig, const char *request, struct rig_reply *reply)
{
	enum rig_login how;

	rig->logins++;
	while ((how = rig->login) == RIG_LOGIN_HANGS && !rig->server->stop)
		poll(NULL, 0, 5);
	if (how == RIG_LOGIN_FAILS) {
		rig_reply(reply, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
	} else if (how == RIG_LOGIN_REFUSED || strstr(request, "wrong")) {
		rig_reply(reply, "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
	} else {
		char body[128];
		unsigned number = rig->logins;
		rig->token = number;
		snprintf(body, sizeof(body), "{\"token\":\"token-secret-%04u\",\"life\":%d}",
			 number, (int)rig->life_ms);
		rig_reply(reply, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body),
			  body);
	}
}

/* Into the head, lest the client sends another request. */
static void add_close(struct rig_reply *reply)
{
	static const char line[] = "Connection: close\r\n";
	char *end = reply->len ? memchr(reply->text, '\n', reply->len) : NULL;

	if (!end)
		return;
	size_t at = (size_t)(end + 1 - reply->text), n = sizeof(line) - 1;
	reply->text = realloc(reply->text, reply->len + n);
	memmove(reply->text + at + n, reply->text + at, reply->len - at);
	memcpy(reply->text + at, line, n);
	reply->len += n;
}

static void answer(struct rig *rig, int fd, const char *request)
{
	struct rig_reply reply = {0};

	if (strncmp(request, "POST /login", 11) == 0) {
		answer_login(rig, request, &reply);
	} else if (strncmp(request, "POST /logout", 12) == 0) {
		rig->logouts++;
		rig_reply(&reply, "HTTP/1.1 204 Gone\r\n\r\n");
	} else {
		rig->requests++;
		rig->handler(rig, request, &reply);
	}
	add_close(&reply);
	for (size_t at = 0; at < reply.len;) {
		ssize_t n = send(fd, reply.text + at, reply.len - at, MSG_NOSIGNAL);
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	while (reply.hang && !rig->release && !rig->server->stop) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (poll(&p, 1, 5) > 0)
			break;
	}
	free(reply.text);
}

static void *serve(void *ctx)
{
	struct connection *c = ctx;
	struct pollfd p = {.fd = c->fd, .events = POLLIN};

	while (poll(&p, 1, 20) == 0 && !c->server->stop)
		;
	char *request = c->server->stop ? NULL : read_request(c->fd);
	if (request)
		answer(c->server->rig, c->fd, request);
	free(request);
	shutdown(c->fd, SHUT_WR);
	close(c->fd);
	free(c);
	return NULL;
}

static void *accept_all(void *ctx)
{
	struct rig_server *s = ctx;
	int fd;

	while ((fd = accept(s->listener, NULL, NULL)) >= 0) {
		struct connection *c = malloc(sizeof(*c));
		*c = (struct connection){s, fd};
		assert_true(s->n_connections < CONNECTIONS_MAX);
		pthread_create(&s->connections[s->n_connections++], NULL, serve, c);
	}
	return NULL;
}

static void server_start(struct rig *rig)
{
	struct rig_server *s = calloc(1, sizeof(*s));
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);

	s->rig = rig;
	rig->server = s;
	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(s->listener, 256), 0);
	assert_int_equal(getsockname(s->listener, (struct sockaddr *)&at, &len), 0);
	snprintf(rig->origin, sizeof(rig->origin), "http://127.0.0.1:%u", ntohs(at.sin_port));
	pthread_create(&s->acceptor, NULL, accept_all, s);
}

static void server_stop(struct rig_server *s)
{
	s->stop = true;
	shutdown(s->listener, SHUT_RDWR);
	pthread_join(s->acceptor, NULL);
	close(s->listener);
	for (unsigned i = 0; i < s->n_connections; i++)
		pthread_join(s->connections[i], NULL);
	free(s);
}

/* The client's side */

static int log_in(struct remote *r, const char *user, const char *secret, const char *refresh,
		  const _Atomic bool *stop, struct auth_login *ret, char *message, size_t size)
{
	struct rig *rig = (struct rig *)r;
	struct call *c = call_new(r, TRANSFER_INTERACTIVE, "POST", rig->login_url, "login");
	struct call_waited waited;
	char body[128];

	(void)refresh;
	snprintf(body, sizeof(body), "user=%s&password=%s", user, secret);
	call_set_plain(c);
	call_set_body(c, "application/x-www-form-urlencoded", body, strlen(body));
	int e = call_wait(c, stop, &waited);
	const char *token = json_get_text(waited.json, "token");
	int64_t life = json_get_integer(waited.json, "life", 0);
	if (e == 0 && token)
		ret->token = strdup(token);
	if (e == 0 && life)
		ret->expires_mono_ms = clock_mono_ms() + life;
	snprintf(message, size, "%s", waited.message);
	call_waited_clear(&waited);
	return e;
}

static void log_out(struct remote *r, const struct auth_login *login)
{
	struct rig *rig = (struct rig *)r;
	struct call_waited waited;
	char url[96];

	snprintf(url, sizeof(url), "%s/logout", rig->origin);
	struct call *c = call_new(r, TRANSFER_INTERACTIVE, "POST", url, "logout");
	call_set_plain(c);
	call_set_any_answer(c);
	call_set_deadline(c, clock_mono_ms() + 2000);
	call_set_body(c, "text/plain", login->token, strlen(login->token));
	call_wait(c, NULL, &waited);
	call_waited_clear(&waited);
}

void rig_set_password(struct rig *rig, const char *password)
{
	FILE *f = fopen(rig->password_file, "w");

	assert_non_null(f);
	fputs(password, f);
	fclose(f);
	assert_int_equal(chmod(rig->password_file, 0600), 0);
}

static void free_nothing(struct remote *r)
{
	(void)r;
}

static void auth_start(struct rig *rig, bool with_login)
{
	struct auth_config config = {
		.file = rig->password_file,
		.what = "password",
		.option_file = "password_file",
		.prefix = "Authorization: Bearer ",
		.user = with_login ? "ada" : NULL,
		.login = with_login ? log_in : NULL,
		.logout = with_login ? log_out : NULL,
		.remote = &rig->remote,
	};
	char message[256];

	assert_int_equal(auth_new(&config, &rig->remote.auth, message, sizeof(message)), 0);
}

void rig_start(struct rig *rig, rig_handler *handler, bool with_login)
{
	static const struct remote_ops ops = {.free = free_nothing};
	struct engine_config config = {.origin = rig->origin, .slots = 8};

	*rig = (struct rig){.handler = handler, .remote = {.ops = &ops, .caps.system = "Rig"}};
	snprintf(rig->directory, sizeof(rig->directory), "/tmp/attachfs-rig.XXXXXX");
	assert_non_null(mkdtemp(rig->directory));
	snprintf(rig->password_file, sizeof(rig->password_file), "%s/password", rig->directory);
	snprintf(rig->log_file, sizeof(rig->log_file), "%s/log", rig->directory);
	assert_int_equal(log_open(rig->log_file, LOG_LEVEL_DEBUG), 0);
	rig_set_password(rig, with_login ? "password-secret" : "token-secret-0001");
	rig->token = with_login ? 0 : 1;
	server_start(rig);
	snprintf(rig->login_url, sizeof(rig->login_url), "%s/login", rig->origin);
	assert_int_equal(engine_new(&config, &rig->remote.engine), 0);
	assert_int_equal(pool_new(2, &rig->remote.pool), 0);
	rig->remote.gate = call_gate_new();
	rig->remote.fetches = fetches_new();
	auth_start(rig, with_login);
}

void rig_shutdown(struct rig *rig)
{
	if (!rig->remote.engine)
		return;
	remote_shutdown(&rig->remote);
	engine_free(rig->remote.engine);
	pool_free(rig->remote.pool);
	rig->remote.engine = NULL;
	remote_free(&rig->remote);
}

/* Nothing that is secret was logged, at any level. */
static void check_log(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[4096];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (strstr(line, "-secret"))
			fail_msg("a secret in the log: %s", line);
	}
	fclose(f);
}

void rig_stop(struct rig *rig)
{
	rig_shutdown(rig);
	server_stop(rig->server);
	log_close();
	check_log(rig->log_file);
	log_open("/dev/null", LOG_LEVEL_ERROR);
	unlink(rig->log_file);
	unlink(rig->password_file);
	assert_int_equal(rmdir(rig->directory), 0);
}

void rig_await(_Atomic unsigned *counter, unsigned n)
{
	int64_t until = clock_mono_ms() + WAIT_MS;

	while (*counter < n) {
		assert_true(clock_mono_ms() < until);
		poll(NULL, 0, 1);
	}
}
