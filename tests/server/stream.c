/* SPDX-License-Identifier: MIT */
/*
 * A body small enough or already in memory is handed over whole; a blob, or a body that a fault cuts or
 * slows, is read piece by piece. Returning nothing from the reader would make libmicrohttpd spin, so a
 * dribbling connection sleeps until its next bytes are due.
 */
#include "stream.h"

#include "alarms.h"
#include "alloc.h"
#include "clock.h"
#include "emulator.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHOLE_MAX 65536
#define PIECE	  (512 * 1024)

struct stream {
	struct request *rq;
	struct blob *blob; /* or data */
	char *data;
	uint64_t off;
	uint64_t len;	/* of the body */
	uint64_t limit; /* bytes to send before ending or being cut: beyond the body, zeros */
	bool cut;	/* at the limit; else it ends there as if that were all */
	int64_t bytes_per_second; /* 0: as fast as possible */
	int64_t begun_us;
};

void response_header(struct response *rs, const char *name, const char *format, ...)
{
	struct response_header *header = &rs->headers[rs->n_headers];
	va_list args;

	if (rs->n_headers == RESPONSE_HEADERS_MAX)
		return;
	va_start(args, format);
	if (vasprintf(&header->value, format, args) < 0)
		abort();
	va_end(args);
	header->name = xstrdup(name);
	rs->n_headers++;
}

void response_copy(struct response *to, const struct response *from)
{
	*to = (struct response){.status = from->status, .off = from->off, .len = from->len};
	to->blob = blob_ref(from->blob);
	buffer_put(&to->body, from->body.data, from->body.len);
	for (size_t i = 0; i < from->n_headers; i++)
		response_header(to, from->headers[i].name, "%s", from->headers[i].value);
}

void response_free(struct response *rs)
{
	for (size_t i = 0; i < rs->n_headers; i++) {
		free(rs->headers[i].name);
		free(rs->headers[i].value);
	}
	buffer_free(&rs->body);
	blob_unref(rs->blob);
	*rs = (struct response){0};
}

/* Bytes a dribbling stream may have sent by now; sleeps and returns 0 if that is no more than @sent. */
static int64_t dribble(struct stream *st, uint64_t sent)
{
	int64_t elapsed = clock_steady_us() - st->begun_us;
	int64_t due =
		(int64_t)((double)elapsed * (double)st->bytes_per_second / 1e6) - (int64_t)sent;
	int64_t wait_ms = 1000 / st->bytes_per_second;

	if (due > 0)
		return due;
	if (wait_ms < 10)
		wait_ms = 10;
	return alarms_sleep(st->rq->emu->alarms, st->rq->connection, wait_ms) ? 0 : -1;
}

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct stream *st = cls;
	ssize_t n;

	if (pos >= st->limit)
		return st->cut ? MHD_CONTENT_READER_END_WITH_ERROR
			       : MHD_CONTENT_READER_END_OF_STREAM;
	if (max > st->limit - pos)
		max = (size_t)(st->limit - pos);
	if (st->bytes_per_second) {
		int64_t due = dribble(st, pos);

		if (due <= 0)
			return due ? MHD_CONTENT_READER_END_WITH_ERROR : 0;
		if (max > (uint64_t)due)
			max = (size_t)due;
	}
	if (pos < st->len && max > st->len - pos)
		max = (size_t)(st->len - pos);
	if (pos >= st->len) {
		memset(buf, 0, max);
		n = (ssize_t)max;
	} else if (st->blob) {
		n = blob_read(st->blob, st->off + pos, buf, max);
	} else {
		memcpy(buf, st->data + pos, max);
		n = (ssize_t)max;
	}
	if (n <= 0)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (st->rq->log)
		reqlog_sent(st->rq->emu->log, st->rq->log, (uint64_t)n);
	return n;
}

static void stream_free(void *cls)
{
	struct stream *st = cls;

	blob_unref(st->blob);
	free(st->data);
	free(st);
}

static void shape(struct stream *st, const struct fault *fault, uint64_t len)
{
	st->len = st->limit = len;
	if (!fault)
		return;
	st->limit += (uint64_t)fault->append;
	if (fault->truncate_declared > 0)
		st->limit -= (uint64_t)fault->truncate_declared < len
				     ? (uint64_t)fault->truncate_declared
				     : len;
	if (fault->cut_after >= 0 && (uint64_t)fault->cut_after < st->limit)
		st->limit = (uint64_t)fault->cut_after;
	st->cut = st->limit < len && !(fault->chunked && fault->cut_after < 0);
	if (fault->bytes_per_second > 0)
		st->bytes_per_second = fault->bytes_per_second;
}

static bool is_chunked(const struct request *rq)
{
	return rq->response.chunked || (rq->fault && rq->fault->chunked);
}

static struct MHD_Response *in_pieces(struct request *rq)
{
	struct response *rs = &rq->response;
	struct stream *st = xzalloc(sizeof(*st));
	uint64_t len = rs->blob ? rs->len : rs->body.len;
	size_t piece = len < PIECE ? (size_t)len : PIECE;

	st->rq = rq;
	st->blob = blob_ref(rs->blob);
	st->off = rs->off;
	if (!rs->blob) {
		st->data = rs->body.data;
		rs->body = (struct buffer){0};
	}
	shape(st, rq->fault, len);
	st->begun_us = clock_steady_us();
	return MHD_create_response_from_callback(is_chunked(rq) ? MHD_SIZE_UNKNOWN : len,
						 piece ? piece : 1, stream_read, st, stream_free);
}

static void load_blob(struct response *rs)
{
	ssize_t n;

	buffer_reserve(&rs->body, (size_t)rs->len);
	n = blob_read(rs->blob, rs->off, rs->body.data, (size_t)rs->len);
	rs->body.len = n > 0 ? (size_t)n : 0;
}

static struct MHD_Response *whole(struct request *rq)
{
	struct buffer body = rq->response.body;

	rq->response.body = (struct buffer){0};
	if (rq->log && strcmp(rq->method, "HEAD") != 0)
		reqlog_sent(rq->emu->log, rq->log, body.len);
	return MHD_create_response_from_buffer(body.len, body.data ? body.data : xzalloc(1),
					       MHD_RESPMEM_MUST_FREE);
}

static bool is_shaped(const struct fault *fault)
{
	return fault && (fault->cut_after >= 0 || fault->truncate_declared > 0 ||
			 fault->bytes_per_second > 0 || fault->chunked);
}

struct MHD_Response *stream_response(struct request *rq)
{
	struct response *rs = &rq->response;
	bool small = rs->blob && rs->len <= WHOLE_MAX && !is_shaped(rq->fault) && !rs->chunked &&
		     strcmp(rq->method, "HEAD") != 0;
	struct MHD_Response *out;

	if (small)
		load_blob(rs);
	out = (rs->blob && !small) || is_shaped(rq->fault) ? in_pieces(rq) : whole(rq);
	if (!out)
		abort();
	for (size_t i = 0; i < rs->n_headers; i++)
		MHD_add_response_header(out, rs->headers[i].name, rs->headers[i].value);
	return out;
}
