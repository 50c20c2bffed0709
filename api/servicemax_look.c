/* SPDX-License-Identifier: MIT */

/*
 * The files of one record. Many looks at a time, as after a burst of uploads, are few calls: while
 * one is under way the others wait, and then up to a hundred go in one call with uuids=. That fails
 * as a whole when one of the records is gone (S-9): then it is divided.
 */

#include "servicemax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>
#include <attachfs/pool.h>

#include "json.h"

struct servicemax_look {
	struct servicemax_look *next;
	char object[SERVICEMAX_OBJECT_MAX + 1], record[SERVICEMAX_UUID_SIZE];
	struct remote_sink sink;
	bool ends_half;
};

/* One call, and what is to be asked after it before others get their turn. */
struct looking {
	struct servicemax *p;
	enum transfer_class class;
	struct servicemax_look *batch, *rest;
};

static int queue_of(enum transfer_class class)
{
	return class == TRANSFER_INTERACTIVE;
}

static void look_end(struct servicemax_look *w, int error, const char *message)
{
	bool known = error == -ECANCELED || error == -EACCES || error == -EHOSTDOWN ||
		     error == -ETIMEDOUT || error == -ENOENT;

	if (error < 0 && !known)
		log_errno(error, "servicemax: list %s/%s: %s", w->object, w->record, message);
	w->sink.done(w->sink.ctx, error, message);
	free(w);
}

static void batch_end(struct servicemax_look *batch, int error, const char *message)
{
	while (batch) {
		struct servicemax_look *next = batch->next;
		look_end(batch, error, message);
		batch = next;
	}
}

static void serve(struct servicemax *p, struct servicemax_look *w, const json_t *files)
{
	struct servicemax_page page = {0};
	int r = servicemax_decode_files(&p->server, w->record, files, &page);

	if (r == 0 && page.n_files > 0 &&
	    !w->sink.page(w->sink.ctx, NULL, 0, page.files, page.n_files))
		r = -ECANCELED;
	servicemax_page_clear(&page);
	look_end(w, r,
		 r == -EIO ? "the answer is not what ServiceMax sends: no list of attachments"
			   : "");
}

/* Whether one before it is of the same record: that one's answer is its answer too. */
static bool is_double(const struct servicemax_look *batch, const struct servicemax_look *w)
{
	for (; batch != w; batch = batch->next)
		if (strcasecmp(batch->record, w->record) == 0)
			return true;
	return false;
}

/* All are of one record. */
static bool is_single(const struct servicemax_look *batch)
{
	for (const struct servicemax_look *w = batch->next; w; w = w->next)
		if (strcasecmp(batch->record, w->record) != 0)
			return false;
	return true;
}

/* The array, or of many the one under its UUID; nothing is as bad as nonsense (S-9). */
static void serve_all(struct looking *l, const json_t *json)
{
	struct servicemax_look *w = l->batch, *next;
	bool one = is_single(w);

	for (l->batch = NULL; w; w = next) {
		next = w->next;
		serve(l->p, w,
		      one && json_is_array(json) ? json : json_object_get(json, w->record));
	}
}

/* Half of the batch is asked for first, then the other. */
static void divide(struct looking *l)
{
	struct servicemax_look *last = l->batch, *end = l->batch;

	for (const struct servicemax_look *w = l->batch->next->next; w && w->next;
	     w = w->next->next)
		last = last->next;
	while (end->next)
		end = end->next;
	end->ends_half = true;
	end->next = l->rest;
	l->rest = last->next;
	last->next = NULL;
}

static void run(struct looking *l);

static void looking_done(void *ctx, const struct call_reply *reply)
{
	struct looking *l = ctx;
	int error = reply->error == -EOVERFLOW ? -EIO : reply->error;
	/* 400 and 414: too many, or one that the server calls no UUID. */
	bool one_is_bad = reply->status == 404 || reply->status == 400 || reply->status == 414 ||
			  reply->error == -EOVERFLOW;

	if (error == 0) {
		serve_all(l, reply->json);
	} else if (one_is_bad && !is_single(l->batch)) {
		divide(l);
	} else {
		batch_end(l->batch, error, reply->message);
		l->batch = NULL;
	}
	run(l);
}

static int send(struct looking *l)
{
	char path[SERVICEMAX_OBJECT_MAX + 64 + SERVICEMAX_LOOKS * SERVICEMAX_UUID_SIZE];
	const struct servicemax_look *first = l->batch;
	const char *endpoint = "/v2/{object}/{uuid}/attachments";

	if (!is_single(first)) {
		endpoint = "/v2/{object}/attachments?uuids";
		int n = snprintf(path, sizeof(path), "/v2/%s/attachments?uuids=%s", first->object,
				 first->record);
		for (const struct servicemax_look *w = first->next; w; w = w->next)
			if (!is_double(first, w))
				n += snprintf(path + n, sizeof(path) - (size_t)n, ",%s", w->record);
	} else {
		snprintf(path, sizeof(path), "/v2/%s/%s/attachments", first->object, first->record);
	}
	struct call *call = servicemax_call(l->p, l->class, "GET", path, endpoint);
	call_set_idempotent(call, true);
	return call_start(call, looking_done, l);
}

/* Up to a hundred of those who wait, of one object; none: the queue is at rest. */
static struct servicemax_look *take_batch(struct servicemax *p, int queue)
{
	struct servicemax_look *batch = NULL, **end = &batch;
	size_t n = 0;

	pthread_mutex_lock(&p->lock);
	for (struct servicemax_look **at = &p->looks[queue]; *at && n < SERVICEMAX_LOOKS;) {
		struct servicemax_look *w = *at;
		if (batch && strcmp(batch->object, w->object) != 0) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->next = NULL;
		*end = w;
		end = &w->next;
		n++;
	}
	if (!batch)
		p->looking[queue] = false;
	pthread_mutex_unlock(&p->lock);
	return batch;
}

/* The half that is next. */
static struct servicemax_look *take_rest(struct looking *l)
{
	struct servicemax_look *half = l->rest, *last = half;

	while (!last->ends_half && last->next)
		last = last->next;
	l->rest = last->next;
	last->next = NULL;
	return half;
}

/* Send what is next; without it the queue comes to rest. On the pool. */
static void run(struct looking *l)
{
	for (;;) {
		if (!l->batch)
			l->batch = l->rest ? take_rest(l) : take_batch(l->p, queue_of(l->class));
		if (!l->batch)
			break;
		int r = send(l);
		if (r == 0)
			return;
		batch_end(l->batch, r, "");
		l->batch = NULL;
	}
	free(l);
}

static void run_job(void *ctx)
{
	run(ctx);
}

/* True: the queue was at rest and is the caller's to run. */
static bool enqueue(struct servicemax *p, int queue, struct servicemax_look *w)
{
	pthread_mutex_lock(&p->lock);
	struct servicemax_look **end = &p->looks[queue];
	while (*end)
		end = &(*end)->next;
	*end = w;
	bool first = !p->looking[queue];
	p->looking[queue] = true;
	pthread_mutex_unlock(&p->lock);
	return first;
}

int servicemax_list_record(struct remote *r, enum transfer_class class, const char *collection,
			   const char *record, const struct remote_sink *sink)
{
	struct servicemax *p = (struct servicemax *)r;

	if (!servicemax_is_object(collection) || !record || !json_is_uuid(record))
		return -EINVAL;
	struct servicemax_look *w = calloc(1, sizeof(*w));
	struct looking *l = calloc(1, sizeof(*l));
	if (!w || !l) {
		free(w);
		free(l);
		return -ENOMEM;
	}
	*l = (struct looking){.p = p, .class = class};
	snprintf(w->object, sizeof(w->object), "%s", collection);
	snprintf(w->record, sizeof(w->record), "%s", record);
	w->sink = *sink;
	if (!enqueue(p, queue_of(class), w))
		free(l);
	else if (pool_run(p->base.pool, run_job, l) < 0)
		run(l);
	return 0;
}
