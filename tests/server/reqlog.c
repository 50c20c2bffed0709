/* SPDX-License-Identifier: MIT */
#include "reqlog.h"

#include "alloc.h"
#include "clock.h"
#include "table.h"

#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct reqlog_entry {
	uint64_t seq;
	int64_t begun_us;
	int64_t ended_us; /* 0: still under way */
	enum port_kind port;
	char *method;
	char *path;
	char *query;
	char *range;
	char *endpoint;
	bool authorization;
	bool listed;  /* the log will free it */
	bool running; /* its request will free it once it is not listed */
	int status;
	uint64_t request_bytes;
	uint64_t response_bytes;
	int files; /* in the body; -1: it was not looked into (yet) */
};

struct endpoint_count {
	char *name;
	int64_t n;
};

struct reqlog {
	pthread_mutex_t lock; /* guards all below and the entries */
	int64_t started_us;
	struct reqlog_entry **ring;
	size_t first, n;
	uint64_t next_seq;
	uint64_t since_seq; /* entries below were forgotten by a reset */
	struct table endpoints;
	int64_t total[2]; /* by enum port_kind */
	uint64_t bytes_in, bytes_out;
	int64_t parallel, max_parallel;
};

struct reqlog *reqlog_new(void)
{
	struct reqlog *log = xzalloc(sizeof(*log));

	pthread_mutex_init(&log->lock, NULL);
	log->started_us = clock_steady_us();
	log->ring = xzalloc(LOG_KEPT * sizeof(struct reqlog_entry *));
	return log;
}

static void entry_free(struct reqlog_entry *e)
{
	free(e->method);
	free(e->path);
	free(e->query);
	free(e->range);
	free(e->endpoint);
	free(e);
}

static void unlist_locked(struct reqlog *log)
{
	struct reqlog_entry *e = log->ring[log->first];

	log->first = (log->first + 1) % LOG_KEPT;
	log->n--;
	e->listed = false;
	if (!e->running)
		entry_free(e);
}

static void forget_endpoints_locked(struct reqlog *log)
{
	size_t pos = 0;
	struct endpoint_count *count;

	while ((count = table_next(&log->endpoints, &pos))) {
		free(count->name);
		free(count);
	}
	table_free(&log->endpoints);
}

static void reset_locked(struct reqlog *log)
{
	while (log->n)
		unlist_locked(log);
	forget_endpoints_locked(log);
	log->since_seq = log->next_seq;
	log->total[0] = log->total[1] = 0;
	log->bytes_in = log->bytes_out = 0;
	log->max_parallel = log->parallel;
}

void reqlog_reset(struct reqlog *log)
{
	pthread_mutex_lock(&log->lock);
	reset_locked(log);
	pthread_mutex_unlock(&log->lock);
}

void reqlog_free(struct reqlog *log)
{
	reset_locked(log);
	pthread_mutex_destroy(&log->lock);
	free(log->ring);
	free(log);
}

/* A number, a UUID or another run of 8 and more hexadecimal digits names a thing, not a place. */
static bool is_id(const char *segment, size_t len)
{
	size_t digits = 0, hex = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)segment[i];

		digits += isdigit(c) != 0;
		hex += isxdigit(c) || c == '-';
	}
	return len && (digits == len || (hex == len && len >= 8 && digits));
}

static char *endpoint_of(enum port_kind port, const char *method, const char *path)
{
	struct buffer b = {0};

	buffer_puts(&b, method);
	if (port == PORT_BLOB) {
		buffer_puts(&b, " blob");
		return b.data;
	}
	buffer_putc(&b, ' ');
	while (*path) {
		size_t slashes = strspn(path, "/");
		size_t len = strcspn(path + slashes, "/");

		buffer_put(&b, path, slashes);
		if (is_id(path + slashes, len))
			buffer_puts(&b, "{id}");
		else
			buffer_put(&b, path + slashes, len);
		path += slashes + len;
	}
	return b.data;
}

static void count_locked(struct reqlog *log, const struct reqlog_entry *e)
{
	struct endpoint_count *count = table_get(&log->endpoints, e->endpoint, strlen(e->endpoint));

	if (!count) {
		count = xzalloc(sizeof(*count));
		count->name = xstrdup(e->endpoint);
		table_put(&log->endpoints, e->endpoint, strlen(e->endpoint), count);
	}
	count->n++;
	log->total[e->port]++;
	if (++log->parallel > log->max_parallel)
		log->max_parallel = log->parallel;
}

struct reqlog_entry *reqlog_begin(struct reqlog *log, enum port_kind port, const char *method,
				  const char *path, const char *query, const char *range,
				  bool authorization)
{
	struct reqlog_entry *e = xzalloc(sizeof(*e));

	*e = (struct reqlog_entry){.begun_us = clock_steady_us(),
				   .port = port,
				   .method = xstrdup(method),
				   .path = xstrdup(path),
				   .query = xstrdup(query),
				   .authorization = authorization,
				   .range = range ? xstrdup(range) : NULL,
				   .endpoint = endpoint_of(port, method, path),
				   .files = -1,
				   .listed = true,
				   .running = true};
	pthread_mutex_lock(&log->lock);
	e->seq = log->next_seq++;
	if (log->n == LOG_KEPT)
		unlist_locked(log);
	log->ring[(log->first + log->n++) % LOG_KEPT] = e;
	count_locked(log, e);
	pthread_mutex_unlock(&log->lock);
	return e;
}

void reqlog_received(struct reqlog *log, struct reqlog_entry *e, uint64_t bytes)
{
	pthread_mutex_lock(&log->lock);
	e->request_bytes += bytes;
	if (e->seq >= log->since_seq)
		log->bytes_in += bytes;
	pthread_mutex_unlock(&log->lock);
}

void reqlog_files(struct reqlog *log, struct reqlog_entry *e, size_t n)
{
	pthread_mutex_lock(&log->lock);
	e->files = (int)n;
	pthread_mutex_unlock(&log->lock);
}

void reqlog_answer(struct reqlog *log, struct reqlog_entry *e, int status)
{
	pthread_mutex_lock(&log->lock);
	e->status = status;
	e->ended_us = clock_steady_us();
	pthread_mutex_unlock(&log->lock);
}

void reqlog_sent(struct reqlog *log, struct reqlog_entry *e, uint64_t bytes)
{
	pthread_mutex_lock(&log->lock);
	e->response_bytes += bytes;
	if (e->seq >= log->since_seq)
		log->bytes_out += bytes;
	pthread_mutex_unlock(&log->lock);
}

void reqlog_end(struct reqlog *log, struct reqlog_entry *e)
{
	pthread_mutex_lock(&log->lock);
	e->running = false;
	e->ended_us = clock_steady_us();
	log->parallel--;
	if (!e->listed)
		entry_free(e);
	pthread_mutex_unlock(&log->lock);
}

static void write_entry(const struct reqlog *log, const struct reqlog_entry *e, struct buffer *out)
{
	int64_t end = e->ended_us ? e->ended_us : clock_steady_us();

	buffer_json_comma(out);
	buffer_printf(out, "{\"seq\":%llu,\"t_ms\":%lld,\"port\":\"%s\"",
		      (unsigned long long)e->seq, (long long)(e->begun_us - log->started_us) / 1000,
		      e->port == PORT_API ? "api" : "blob");
	buffer_json_key(out, "method");
	buffer_json_text(out, e->method);
	buffer_json_key(out, "path");
	buffer_json_text(out, e->path);
	buffer_json_key(out, "query");
	buffer_json_text(out, e->query);
	buffer_json_key(out, "endpoint");
	buffer_json_text(out, e->endpoint);
	buffer_json_key(out, "range");
	buffer_json_text(out, e->range);
	buffer_printf(out, ",\"authorization\":%s,\"status\":%d,\"request_bytes\":%llu",
		      e->authorization ? "true" : "false", e->status,
		      (unsigned long long)e->request_bytes);
	buffer_json_key(out, "files");
	if (e->files < 0)
		buffer_puts(out, "null");
	else
		buffer_printf(out, "%d", e->files);
	buffer_printf(out, ",\"response_bytes\":%llu,\"duration_ms\":%.3f}",
		      (unsigned long long)e->response_bytes, (double)(end - e->begun_us) / 1000.0);
}

void reqlog_write(struct reqlog *log, struct buffer *out)
{
	pthread_mutex_lock(&log->lock);
	buffer_puts(out, "{\"requests\":[");
	for (size_t i = 0; i < log->n; i++)
		write_entry(log, log->ring[(log->first + i) % LOG_KEPT], out);
	buffer_puts(out, "]}");
	pthread_mutex_unlock(&log->lock);
}

void reqlog_write_summary(struct reqlog *log, struct buffer *out)
{
	size_t pos = 0;
	struct endpoint_count *count;

	pthread_mutex_lock(&log->lock);
	buffer_printf(out, "{\"total\":%lld,\"api\":%lld,\"blob\":%lld,\"by_endpoint\":{",
		      (long long)(log->total[PORT_API] + log->total[PORT_BLOB]),
		      (long long)log->total[PORT_API], (long long)log->total[PORT_BLOB]);
	while ((count = table_next(&log->endpoints, &pos))) {
		buffer_json_comma(out);
		buffer_json_text(out, count->name);
		buffer_printf(out, ":%lld", (long long)count->n);
	}
	buffer_printf(out, "},\"bytes_in\":%llu,\"bytes_out\":%llu,\"max_parallel\":%lld}",
		      (unsigned long long)log->bytes_in, (unsigned long long)log->bytes_out,
		      (long long)log->max_parallel);
	pthread_mutex_unlock(&log->lock);
}
