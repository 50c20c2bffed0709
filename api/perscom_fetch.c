/* SPDX-License-Identifier: MIT */

/*
 * Reading bytes: GETs of a link, on another host and without the credential (section 4 of the
 * reference), made to look like one stream.
 *
 *	SEND     a transfer is on its way      answer good and whole: END
 *	                                       cut after some bytes: SEND again from there
 *	                                       400 401 403 404 410, and no new link since the last
 *	                                       byte: RENEW
 *
 *	RENEW    perscom_renew() is asked      same version: SEND from where it stopped
 *	                                       another: END -ESTALE
 *
 *	END      sink->done() was called
 *
 * The link is renewed before sending when it is known to have expired. All answers of one fetch
 * must agree in ETag and total size, which If-Range makes the server see to as well. The size of a
 * file is read the same way: the first byte's Content-Range tells it (P-4).
 *
 * The stream's state is touched by one callback at a time; the fields another thread may look at
 * are under fetch_lock. What is wished of the transfer under way is passed on under it too: a wish
 * only sets a mark in the engine, and would otherwise be overtaken by the next one.
 */

#include "perscom.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "json.h"

#define RESUMES_MAX    8	  /* in a row, each with little progress */
#define FRUITLESS_MAX  2	  /* in a row, with none */
#define PROGRESS_BYTES (1u << 20) /* more than little */
#define ERROR_BODY_MAX 65536	  /* of an error's page, to keep the connection */

struct perscom_fetch {
	struct perscom *p;
	struct perscom_fetch *next; /* fetch_lock */
	uint64_t id;
	char *file, *version, *url; /* the file's id; url: NULL = none known */
	uint64_t position;	    /* of the next byte for the sink */
	uint64_t end;		    /* where it was asked to stop, UINT64_MAX = at the end */
	int64_t deadline_mono_ms;
	struct remote_fetch_sink sink;

	/* of the stream */
	bool begun;				   /* begin() was called */
	enum { AS_GIVEN, REMEMBERED, FRESH } link; /* of the url; since the last byte */
	unsigned resumes, fruitless;
	int64_t total;
	char etag[128];

	/* of the answer under way */
	bool good;	     /* its bytes are content */
	int verdict;	     /* 0 = goes on; 1 = all is there; or an error */
	uint64_t at;	     /* position of its next byte */
	uint64_t answer_end; /* UINT64_MAX = not told */
	uint64_t began_at;
	size_t error_bytes;

	/* fetch_lock: */
	unsigned refs;	   /* one is the machine's own */
	uint64_t transfer; /* 0 = none */
	unsigned sends,
		running; /* running: the number of the send whose transfer is not done, 0 = none */
	bool cancelled, paused;
	enum transfer_class class;
};

static void fetch_unref(struct perscom_fetch *f)
{
	pthread_mutex_lock(&f->p->fetch_lock);
	bool last = --f->refs == 0;
	pthread_mutex_unlock(&f->p->fetch_lock);
	if (!last)
		return;
	free(f->file);
	free(f->version);
	free(f->url);
	free(f);
}

static void table_add(struct perscom *p, struct perscom_fetch *f)
{
	pthread_mutex_lock(&p->fetch_lock);
	f->id = ++p->last_fetch;
	f->next = p->fetches[f->id % PERSCOM_FETCHES];
	p->fetches[f->id % PERSCOM_FETCHES] = f;
	pthread_mutex_unlock(&p->fetch_lock);
}

static struct perscom_fetch **table_find_locked(struct perscom *p, uint64_t id)
{
	struct perscom_fetch **f = &p->fetches[id % PERSCOM_FETCHES];

	while (*f && (*f)->id != id)
		f = &(*f)->next;
	return f;
}

static void table_remove(struct perscom_fetch *f)
{
	pthread_mutex_lock(&f->p->fetch_lock);
	*table_find_locked(f->p, f->id) = f->next;
	pthread_mutex_unlock(&f->p->fetch_lock);
}

static void fetch_end(struct perscom_fetch *f, int error)
{
	table_remove(f);
	f->sink.done(f->sink.ctx, error);
	fetch_unref(f);
}

/*
 * The head of an answer with content: whether its bytes are those that are wanted next. 0 or the
 * verdict.
 */
static int check_content(struct perscom_fetch *f, const struct transfer_head *head,
			 int64_t *ret_total)
{
	const char *encoding = head->content_encoding;

	if (*encoding != '\0' && strcasecmp(encoding, "identity") != 0)
		return -EIO;
	if (f->begun && f->etag[0] != '\0' && *head->etag != '\0' &&
	    strcmp(f->etag, head->etag) != 0)
		return -ESTALE;
	if (head->status == 206) {
		/*
		 * Of another range than asked for nothing can be made, nor of several
		 * ("multipart/byteranges").
		 */
		if (!head->has_range || head->range_first != f->position)
			return -EIO;
		f->at = head->range_first;
		f->answer_end = head->range_last + 1;
		*ret_total = head->range_total;
	} else {
		f->at = 0;
		f->answer_end =
			head->content_length >= 0 ? (uint64_t)head->content_length : UINT64_MAX;
		*ret_total = head->content_length;
	}
	return f->begun && f->total >= 0 && *ret_total >= 0 && *ret_total != f->total ? -ESTALE : 0;
}

/* Tell the sink once where the stream begins. 0 or -ECANCELED. */
static int begin_stream(struct perscom_fetch *f, int64_t total, uint64_t offset, const char *etag)
{
	if (f->begun)
		return 0;
	f->begun = true;
	f->total = total;
	f->position = offset;
	/* A weak tag says nothing of bytes, and one that does not fit cannot be sent back. */
	if (strlen(etag) < sizeof(f->etag) && strncmp(etag, "W/", 2) != 0)
		snprintf(f->etag, sizeof(f->etag), "%s", etag);
	return f->sink.begin(f->sink.ctx, total, offset) ? 0 : -ECANCELED;
}

/* 416: what was asked for begins at or behind the end; then nothing is what there is. */
static int judge_unsatisfied(struct perscom_fetch *f, const struct transfer_head *head)
{
	int64_t total = head->has_range ? head->range_total : -1;

	if (total < 0 && f->position == 0)
		total = 0;
	if (total < 0 || f->position < (uint64_t)total)
		return -EIO;
	int r = begin_stream(f, total, f->position, head->etag);
	return r < 0 ? r : 1;
}

static bool on_head(void *ctx, const struct transfer_head *head)
{
	struct perscom_fetch *f = ctx;
	int64_t total = -1;

	if (head->status == 416)
		f->verdict = judge_unsatisfied(f, head);
	if (head->status != 200 && head->status != 206)
		return true;
	f->verdict = check_content(f, head, &total);
	if (f->verdict == 0)
		f->verdict = begin_stream(f, total, f->at, head->etag);
	f->good = f->verdict == 0;
	f->began_at = f->position;
	return f->good;
}

static bool on_data(void *ctx, const void *data, size_t len)
{
	struct perscom_fetch *f = ctx;
	const char *bytes = data;

	if (!f->good) {
		f->error_bytes += len;
		return f->error_bytes <= ERROR_BODY_MAX;
	}
	/* An answer that begins at 0 again: skip what the sink has. */
	uint64_t skip = f->position > f->at ? f->position - f->at : 0;
	if (skip >= len) {
		f->at += len;
		return true;
	}
	bytes += skip;
	size_t give = len - (size_t)skip;
	if (give > f->end - f->position)
		give = (size_t)(f->end - f->position);
	f->at += len;
	f->position += give;
	f->link = AS_GIVEN;
	if (give > 0 && !f->sink.data(f->sink.ctx, bytes, give)) {
		f->verdict = -ECANCELED;
		return false;
	}
	/* The server sends more than was asked for: hang up. */
	if (f->position == f->end && f->at != f->answer_end && f->answer_end > f->end) {
		f->verdict = 1;
		return false;
	}
	return true;
}

static void fetch_send_or_end(struct perscom_fetch *f);

static void fetch_renew(struct perscom_fetch *f, bool fresh);

static void on_renewed(void *ctx, int error, const struct remote_file *now, bool remembered)
{
	struct perscom_fetch *f = ctx;

	if (error == 0 && strcmp(now->version, f->version) != 0) {
		if (remembered) {
			fetch_renew(f, true);
			return;
		}
		error = -ESTALE;
	}
	if (error == 0 && !now->url) {
		log_error("perscom: read attachment %s: the server gives no link to its bytes",
			  f->file);
		error = -EIO;
	}
	char *url = error == 0 ? strdup(now->url) : NULL;
	if (error == 0 && !url)
		error = -ENOMEM;
	if (error < 0) {
		fetch_end(f, error);
		return;
	}
	free(f->url);
	f->url = url;
	f->link = remembered ? REMEMBERED : FRESH;
	fetch_send_or_end(f);
}

static void fetch_renew(struct perscom_fetch *f, bool fresh)
{
	pthread_mutex_lock(&f->p->fetch_lock);
	enum transfer_class class = f->class;
	pthread_mutex_unlock(&f->p->fetch_lock);
	perscom_renew(f->p, class, f->file, f->url, fresh, f->deadline_mono_ms, on_renewed, f);
}

static void renew_job(void *ctx)
{
	fetch_renew(ctx, false);
}

/* The answer's bytes stopped, whole or not: go on from here, or that was it. */
static void after_content(struct perscom_fetch *f, const struct transfer_result *result)
{
	bool whole = result->error == 0 && (f->answer_end == UINT64_MAX || f->at >= f->answer_end);
	bool late = f->deadline_mono_ms != 0 && clock_mono_ms() >= f->deadline_mono_ms;
	uint64_t end = f->total >= 0 && (uint64_t)f->total < f->end ? (uint64_t)f->total : f->end;
	uint64_t progress = f->position - f->began_at;

	if (f->position >= end || (whole && end == UINT64_MAX)) {
		fetch_end(f, 0);
		return;
	}
	if (result->error == -ECANCELED) {
		fetch_end(f, -ECANCELED); /* the mount ends: nobody waits for the rest */
		return;
	}
	if (progress >= PROGRESS_BYTES)
		f->resumes = 0;
	f->fruitless = progress > 0 ? 0 : f->fruitless + 1;
	if (!late && f->fruitless <= FRUITLESS_MAX && f->resumes++ < RESUMES_MAX &&
	    result->error != -ENOMEM) {
		log_debug("perscom: read attachment %s: cut, goes on at byte %llu", f->file,
			  (unsigned long long)f->position);
		fetch_send_or_end(f);
		return;
	}
	log_error("perscom: read attachment %s: cut at byte %llu once too often", f->file,
		  (unsigned long long)f->position);
	int error = result->error < 0 ? call_transfer_errno(result->error) : -EIO;
	fetch_end(f, late ? -ETIMEDOUT : error);
}

static void after_refusal(struct perscom_fetch *f, int status)
{
	bool renewable =
		status == 400 || status == 401 || status == 403 || status == 404 || status == 410;

	if (renewable && f->link != FRESH) {
		/* Memory knows links, not whether the file is still there. */
		fetch_renew(f, f->link == REMEMBERED || status == 404 || status == 410);
		return;
	}
	log_error("perscom: read attachment %s: the storage answered with status %d", f->file,
		  status);
	/*
	 * The row is there, as the search has just said: its bytes are not, which is not the same
	 * as gone.
	 */
	fetch_end(f, status == 404 || status == 410 || status == 400 ? -EIO
								     : call_status_errno(status));
}

static void on_done(void *ctx, const struct transfer_result *result)
{
	struct perscom_fetch *f = ctx;

	pthread_mutex_lock(&f->p->fetch_lock);
	f->running = 0;
	f->transfer = 0;
	bool cancelled = f->cancelled;
	pthread_mutex_unlock(&f->p->fetch_lock);
	if (f->verdict == -EIO)
		log_error("perscom: read attachment %s: the storage sent other bytes than asked",
			  f->file);
	if (cancelled)
		fetch_end(f, -ECANCELED);
	else if (f->verdict != 0)
		fetch_end(f, f->verdict == 1 ? 0 : f->verdict);
	else if (f->good)
		after_content(f, result);
	else if (result->error < 0 && f->error_bytes <= ERROR_BODY_MAX)
		fetch_end(f, call_transfer_errno(result->error));
	else
		after_refusal(f, result->status);
}

/* Count a send and hold the fetch for its starter. 0: it was cancelled meanwhile. */
static unsigned enter_send(struct perscom_fetch *f, enum transfer_class *ret_class)
{
	unsigned number = 0;

	pthread_mutex_lock(&f->p->fetch_lock);
	if (!f->cancelled) {
		number = f->running = ++f->sends;
		f->refs++;
		*ret_class = f->class;
	}
	pthread_mutex_unlock(&f->p->fetch_lock);
	return number;
}

/*
 * The transfer (0 = it was not started) has its id: from now on wishes reach it, and those of the
 * meantime do now. @class is what it was sent with.
 */
static void leave_send(struct perscom_fetch *f, unsigned number, uint64_t transfer,
		       enum transfer_class class)
{
	pthread_mutex_lock(&f->p->fetch_lock);
	if (f->running == number) {
		f->transfer = transfer;
		if (transfer && f->class != class)
			call_gate_set_class(&f->p->base, transfer, f->class);
		if (transfer && f->cancelled)
			call_gate_apply(&f->p->base, transfer_cancel, transfer);
		else if (transfer && f->paused)
			call_gate_apply(&f->p->base, transfer_pause, transfer);
	}
	pthread_mutex_unlock(&f->p->fetch_lock);
	fetch_unref(f);
}

static int fetch_send(struct perscom_fetch *f)
{
	static const char *const headers[] = {"Accept-Encoding: identity", NULL};
	enum transfer_class class = TRANSFER_PREFETCH;
	unsigned number = enter_send(f, &class);
	uint64_t transfer = 0;

	if (number == 0)
		return -ECANCELED;
	/*
	 * Always a range, for its Content-Range tells the total; and no credential: it would be
	 * refused, or leak.
	 */
	struct transfer_spec spec = {
		.class = class,
		.method = "GET",
		.url = f->url,
		.endpoint = "GET blob",
		.headers = headers,
		.has_range = true,
		.range_first = f->position,
		.range_len = f->end == UINT64_MAX ? 0 : f->end - f->position,
		.if_range = f->begun && f->etag[0] != '\0' ? f->etag : NULL,
		.deadline_mono_ms = f->deadline_mono_ms,
		.idempotent = true,
		.headers_cb = on_head,
		.data_cb = on_data,
		.done_cb = on_done,
		.ctx = f,
	};
	f->good = false;
	f->verdict = 0;
	f->answer_end = UINT64_MAX;
	f->at = f->began_at = f->position;
	f->error_bytes = 0;
	int r = call_gate_start(&f->p->base, &spec, &transfer);
	leave_send(f, number, transfer, class);
	return r == -EINVAL ? -EIO : r;
}

static void fetch_send_or_end(struct perscom_fetch *f)
{
	int r = fetch_send(f);

	if (r < 0)
		fetch_end(f, r);
}

/* A link that lasts longer than the caller's, if we know one of the same version. */
static void improve_link(struct perscom_fetch *f)
{
	struct remote_file known;

	if (!perscom_recall(f->p, f->file, f->url, &known))
		return;
	bool better = !f->url || perscom_url_expiry(known.url) > perscom_url_expiry(f->url);
	if (better && strcmp(known.version, f->version) == 0) {
		free(f->url);
		f->url = known.url;
		known.url = NULL;
		f->link = REMEMBERED;
	}
	remote_file_clear(&known);
}

static struct perscom_fetch *fetch_new(struct perscom *p, const struct remote_file *file)
{
	struct perscom_fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->p = p;
	f->refs = 1;
	f->total = -1;
	f->file = strdup(file->id);
	f->version = strdup(file->version);
	f->url = file->url ? strdup(file->url) : NULL;
	if (f->file && f->version && (f->url || !file->url))
		return f;
	free(f->file);
	free(f->version);
	free(f->url);
	free(f);
	return NULL;
}

int perscom_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		  const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		  const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	struct perscom *p = (struct perscom *)r;
	int error = 0;

	(void)collection;
	if (!json_is_id(file->id) || !file->version || off > UINT64_MAX - 1 - len)
		return -EINVAL;
	struct perscom_fetch *f = fetch_new(p, file);
	if (!f)
		return -ENOMEM;
	f->class = class;
	f->position = off;
	f->end = len ? off + len : UINT64_MAX;
	f->deadline_mono_ms = deadline_mono_ms;
	f->sink = *sink;
	table_add(p, f);
	*ret_id = f->id;
	improve_link(f);
	/* A renewal may fail at once and call the sink: not under the caller's feet. */
	if (f->url && !perscom_is_expired(p, f->url))
		error = fetch_send(f);
	else
		error = pool_run(p->base.pool, renew_job, f);
	if (error < 0) {
		table_remove(f);
		fetch_unref(f);
	}
	return error;
}

void perscom_fetch_cancel(struct remote *r, uint64_t id)
{
	struct perscom *p = (struct perscom *)r;

	pthread_mutex_lock(&p->fetch_lock);
	struct perscom_fetch *f = *table_find_locked(p, id);
	if (f) {
		f->cancelled = true;
		if (f->transfer)
			call_gate_apply(r, transfer_cancel, f->transfer);
	}
	pthread_mutex_unlock(&p->fetch_lock);
}

static void set_paused(struct remote *r, uint64_t id, bool paused)
{
	struct perscom *p = (struct perscom *)r;

	pthread_mutex_lock(&p->fetch_lock);
	struct perscom_fetch *f = *table_find_locked(p, id);
	if (f) {
		f->paused = paused;
		if (f->transfer)
			call_gate_apply(r, paused ? transfer_pause : transfer_resume, f->transfer);
	}
	pthread_mutex_unlock(&p->fetch_lock);
}

void perscom_fetch_pause(struct remote *r, uint64_t id)
{
	set_paused(r, id, true);
}

void perscom_fetch_resume(struct remote *r, uint64_t id)
{
	set_paused(r, id, false);
}

void perscom_fetch_set_class(struct remote *r, uint64_t id, enum transfer_class class)
{
	struct perscom *p = (struct perscom *)r;

	pthread_mutex_lock(&p->fetch_lock);
	struct perscom_fetch *f = *table_find_locked(p, id);
	if (f) {
		f->class = class;
		if (f->transfer)
			call_gate_set_class(r, f->transfer, class);
	}
	pthread_mutex_unlock(&p->fetch_lock);
}
