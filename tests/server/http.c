/* SPDX-License-Identifier: MIT */
#include "http.h"

#include "alarms.h"
#include "alloc.h"
#include "emulator.h"
#include "form.h"
#include "stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX	  60000
#define CONNECTION_MEMORY (128 * 1024)

struct port {
	struct emulator *emu;
	enum port_kind kind;
	int fd; /* the listening socket, until started */
	uint16_t number;
	struct MHD_Daemon *daemon;
};

const char *request_header(const struct request *rq, const char *name)
{
	return MHD_lookup_connection_value(rq->connection, MHD_HEADER_KIND, name);
}

struct str request_query(const struct request *rq, const char *name)
{
	struct str found = {0};
	size_t name_len = strlen(name);
	const char *s = rq->query;

	while (*s) {
		size_t len = strcspn(s, "&");

		if (len > name_len && s[name_len] == '=' && strncmp(s, name, name_len) == 0) {
			str_free(&found);
			found = form_decode(s + name_len + 1, len - name_len - 1, true);
		}
		s += len + (s[len] == '&');
	}
	return found;
}

uint32_t request_client(const struct request *rq)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(rq->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	if (!info || info->client_addr->sa_family != AF_INET)
		return 0;
	return ((const struct sockaddr_in *)info->client_addr)->sin_addr.s_addr;
}

/* libmicrohttpd calls this with the request line's target; what it returns becomes *request. */
static void *request_new(void *cls, const char *target, struct MHD_Connection *connection)
{
	struct port *port = cls;
	struct request *rq = xzalloc(sizeof(*rq));
	size_t len = strcspn(target, "?");

	rq->emu = port->emu;
	rq->port = port->kind;
	rq->connection = connection;
	rq->path = xmemdup(target, len);
	rq->query = xstrdup(target[len] ? target + len + 1 : "");
	return rq;
}

static void request_done(void *cls, struct MHD_Connection *connection, void **slot,
			 enum MHD_RequestTerminationCode why)
{
	struct request *rq = *slot;

	(void)cls;
	(void)connection;
	(void)why;
	if (!rq)
		return;
	if (rq->log)
		reqlog_end(rq->emu->log, rq->log);
	fault_unref(rq->fault);
	multipart_free(rq->multipart);
	buffer_free(&rq->body);
	response_free(&rq->response);
	free(rq->method);
	free(rq->path);
	free(rq->query);
	free(rq);
	*slot = NULL;
}

static void choose_fault(struct request *rq)
{
	struct emulator *emu = rq->emu;

	rq->fault = faults_strike(&emu->faults, rq->port, rq->method, rq->path);
	rq->latency_ms = emu->faults.latency_ms + (rq->fault ? rq->fault->latency_ms : 0);
}

/* Nothing of what is asked for happens. */
static bool is_answered_by_rule(const struct fault *fault)
{
	return fault && fault->status > 0 && !fault->done;
}

static void choose_body(struct request *rq)
{
	const struct system *system = rq->emu->system;
	const char *type = request_header(rq, "Content-Type");
	struct multipart_options options;

	if (rq->port == PORT_CONTROL)
		rq->body_kind = BODY_KEEP;
	else if (rq->port == PORT_API && !is_answered_by_rule(rq->fault))
		rq->body_kind = system->body_kind(rq);
	if (rq->body_kind != BODY_MULTIPART)
		return;
	if (system->multipart_options)
		options = system->multipart_options(rq);
	rq->multipart = multipart_new(type ? type : "", rq->emu->spool,
				      system->multipart_options ? &options : NULL);
	if (!rq->multipart)
		rq->body_kind = BODY_DISCARD;
}

static void request_begin(struct request *rq, const char *method)
{
	struct emulator *emu = rq->emu;

	rq->method = xstrdup(method);
	rq->stage = STAGE_BODY;
	if (rq->port != PORT_CONTROL)
		rq->log = reqlog_begin(emu->log, rq->port, method, rq->path, rq->query,
				       request_header(rq, "Range"),
				       request_header(rq, "Authorization") != NULL);
	pthread_mutex_lock(&emu->lock);
	if (rq->port != PORT_CONTROL)
		choose_fault(rq);
	choose_body(rq);
	pthread_mutex_unlock(&emu->lock);
}

static enum MHD_Result request_receive(struct request *rq, const char *data, size_t len)
{
	const struct fault *fault = rq->fault;
	bool cut = fault && fault->cut_upload_after >= 0 &&
		   rq->body_bytes + len >= (uint64_t)fault->cut_upload_after;

	if (cut)
		len = (size_t)((uint64_t)fault->cut_upload_after - rq->body_bytes);
	rq->body_bytes += len;
	if (rq->log)
		reqlog_received(rq->emu->log, rq->log, len);
	if (rq->body_kind == BODY_KEEP)
		buffer_put(&rq->body, data, len);
	else if (rq->body_kind == BODY_MULTIPART && !rq->body_error)
		rq->body_error = multipart_feed(rq->multipart, data, len);
	return cut ? MHD_NO : MHD_YES;
}

static void headers_from_rule(struct request *rq)
{
	const char *name;
	json_t *value;

	json_object_foreach(rq->fault->headers, name, value) if (json_is_string(value))
		response_header(&rq->response, name, "%s", json_string_value(value));
}

static void answer_from_rule(struct request *rq)
{
	const struct fault *fault = rq->fault;
	const json_t *body = json_object_get(fault->rule, "body");
	struct response *rs = &rq->response;

	rs->status = (int)fault->status;
	if (json_is_string(body))
		buffer_put(&rs->body, json_string_value(body), json_string_length(body));
	else if (body)
		buffer_json(&rs->body, body);
	if (rs->body.len || fault->content_type)
		response_header(rs, "Content-Type", "%s",
				fault->content_type ? fault->content_type : "application/json");
	headers_from_rule(rq);
}

static void answer(struct request *rq)
{
	struct emulator *emu = rq->emu;

	if (rq->multipart)
		multipart_end(rq->multipart);
	if (rq->log && rq->body_kind != BODY_DISCARD)
		reqlog_files(rq->emu->log, rq->log, rq->multipart ? rq->multipart->n_files : 0);
	if (is_answered_by_rule(rq->fault)) {
		answer_from_rule(rq);
		return;
	}
	if (rq->fault && (rq->fault->hang || (rq->fault->reset && !rq->fault->drop_reply)))
		return;
	if (rq->port == PORT_CONTROL) {
		control_serve(rq, &rq->response);
		return;
	}
	pthread_mutex_lock(&emu->lock);
	if (rq->port == PORT_API)
		emu->system->serve_api(rq, &rq->response);
	else
		emu->system->serve_blob(rq, &rq->response);
	pthread_mutex_unlock(&emu->lock);
	if (rq->fault && rq->fault->status > 0) {
		response_free(&rq->response);
		rq->response = (struct response){0};
		answer_from_rule(rq);
	} else if (rq->fault) {
		headers_from_rule(rq);
	}
}

/* Leaving without a FIN: dissolving the association of a TCP socket sends an RST at once. */
static void reset_connection(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	if (info)
		connect(info->connect_fd, &nowhere, sizeof(nowhere));
}

static enum MHD_Result send_answer(struct request *rq)
{
	const struct fault *fault = rq->fault;
	struct response *rs = &rq->response;
	struct MHD_Response *out;
	enum MHD_Result queued;

	rq->stage = STAGE_SENT;
	if (fault && fault->reset) {
		reset_connection(rq->connection);
		return MHD_NO;
	}
	if (rs->drop || (fault && fault->drop_reply) ||
	    (fault && fault->cut_upload_after == 0 && rq->body_bytes == 0))
		return MHD_NO;
	if (rq->log)
		reqlog_answer(rq->emu->log, rq->log, rs->status);
	out = stream_response(rq);
	queued = MHD_queue_response(rq->connection, (unsigned int)rs->status, out);
	MHD_destroy_response(out);
	return queued;
}

static enum MHD_Result request_complete(struct request *rq)
{
	answer(rq);
	rq->stage = STAGE_READY;
	if (rq->latency_ms > 0)
		return alarms_sleep(rq->emu->alarms, rq->connection, rq->latency_ms) ? MHD_YES
										     : MHD_NO;
	return MHD_YES;
}

static enum MHD_Result request_ready(struct request *rq)
{
	if (!rq->fault || !rq->fault->hang)
		return send_answer(rq);
	rq->stage = STAGE_HANGING;
	return alarms_park(rq->emu->alarms, rq->connection) ? MHD_YES : MHD_NO;
}

/* Called by libmicrohttpd: once with the headers, for each piece of body, at its end, after resuming. */
static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *data,
			      size_t *data_len, void **slot)
{
	struct request *rq = *slot;

	(void)cls;
	(void)connection;
	(void)url;
	(void)version;
	if (rq->stage == STAGE_HEADERS) {
		request_begin(rq, method);
		return MHD_YES;
	}
	if (rq->stage == STAGE_BODY && *data_len) {
		size_t len = *data_len;

		*data_len = 0;
		return request_receive(rq, data, len);
	}
	if (rq->stage == STAGE_BODY) {
		if (request_complete(rq) == MHD_NO)
			return MHD_NO;
		if (rq->latency_ms > 0)
			return MHD_YES;
	}
	return rq->stage == STAGE_READY ? request_ready(rq) : MHD_NO;
}

static int listen_on(const char *host, uint16_t number, uint16_t *ret_number)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(number)};
	socklen_t len = sizeof(address);
	int fd, on = 1;

	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		return -EINVAL;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4096) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	*ret_number = ntohs(address.sin_port);
	return fd;
}

struct port *port_open(struct emulator *emu, enum port_kind kind, const char *host, uint16_t number)
{
	struct port *port = xzalloc(sizeof(*port));

	port->emu = emu;
	port->kind = kind;
	port->fd = listen_on(host, number, &port->number);
	if (port->fd >= 0)
		return port;
	fprintf(stderr, "attachfs-emulator: cannot listen on %s:%u: %s\n", host, number,
		strerror(-port->fd));
	free(port);
	return NULL;
}

bool port_start(struct port *port)
{
	port->daemon = MHD_start_daemon(
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, handle,
		port, MHD_OPTION_LISTEN_SOCKET, port->fd, MHD_OPTION_URI_LOG_CALLBACK, request_new,
		port, MHD_OPTION_NOTIFY_COMPLETED, request_done, NULL, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned int)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)CONNECTION_MEMORY, MHD_OPTION_END);
	return port->daemon != NULL;
}

uint16_t port_number(const struct port *port)
{
	return port->number;
}

void port_close(struct port *port)
{
	if (!port)
		return;
	if (port->daemon)
		MHD_stop_daemon(port->daemon); /* closes the socket, too */
	else
		close(port->fd);
	free(port);
}
