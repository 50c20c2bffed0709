/* SPDX-License-Identifier: MIT */
/*
 * HTTP between libmicrohttpd and the rest: requests with their bodies, responses, ports.
 *
 * Life of a request: headers in -> the fault that strikes it is chosen, it enters the log -> the body
 * is read as the system asked (discarded, kept, or parsed as multipart while it streams) -> the system
 * answers, under the emulator's lock -> the fault's latency passes -> the answer leaves, shaped by the
 * fault. The server's work is thus done when the request arrived, and only the answer is late: a client
 * killed while it waits finds on its next look what the server really did.
 */
#ifndef EMULATOR_HTTP_H
#define EMULATOR_HTTP_H

#include "blob.h"
#include "buffer.h"
#include "faults.h"
#include "multipart.h"

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

struct emulator;
struct reqlog_entry;

enum body_kind {
	BODY_DISCARD,
	BODY_KEEP,
	BODY_MULTIPART,
};

enum change_kind {
	CHANGE_CREATED,
	CHANGE_UPDATED,
	CHANGE_DELETED,
};

#define RESPONSE_HEADERS_MAX 24

struct response_header {
	char *name;
	char *value;
};

/* Either a body in memory or, if blob is set, `len` bytes of it from `off`. */
struct response {
	int status;
	bool drop; /* do not answer, close (P-22) */
	struct buffer body;
	struct blob *blob;
	uint64_t off;
	uint64_t len;
	bool chunked; /* a blob leaves without Content-Length */
	struct response_header headers[RESPONSE_HEADERS_MAX];
	size_t n_headers;
};

void response_header(struct response *rs, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void response_copy(struct response *to, const struct response *from);
void response_free(struct response *rs);

enum request_stage {
	STAGE_HEADERS,
	STAGE_BODY,
	STAGE_READY,   /* answer made, latency over */
	STAGE_HANGING, /* nothing will ever be answered */
	STAGE_SENT,
};

struct request {
	struct emulator *emu;
	enum port_kind port;
	struct MHD_Connection *connection;
	char *method;
	char *path;  /* as sent, not decoded */
	char *query; /* as sent, without the `?`; "" if none */
	enum body_kind body_kind;
	struct buffer body;	     /* BODY_KEEP */
	struct multipart *multipart; /* BODY_MULTIPART */
	uint64_t body_bytes;	     /* arrived so far */
	int body_error;		     /* negative errno: the body could not be kept */
	/* private */
	enum request_stage stage;
	struct fault *fault;
	int64_t latency_ms;
	struct reqlog_entry *log;
	struct response response;
};

const char *request_header(const struct request *rq, const char *name);
/* The decoded value of a query parameter, the last if repeated; ptr NULL if absent. Caller frees. */
struct str request_query(const struct request *rq, const char *name);
/* The address of the client, for throttling by it. */
uint32_t request_client(const struct request *rq);

/* A listening port: opened (its number is known then), started once the emulator is complete. */
struct port;

struct port *port_open(struct emulator *emu, enum port_kind kind, const char *host,
		       uint16_t number);
bool port_start(struct port *port);
uint16_t port_number(const struct port *port);
void port_close(struct port *port); /* NULL is fine; alarms_stop() must have come before */

/* The control port's answers (control.c); called without the emulator's lock. */
void control_serve(struct request *rq, struct response *rs);

#endif
