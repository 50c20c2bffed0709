/* SPDX-License-Identifier: MIT */

/*
 * GETs made to look like one stream:
 *
 *	SEND     a transfer is on its way      answer good and whole: END
 *	                                       cut after some bytes: SEND again from there
 *	                                       401 with our credential, for the first time: LOG IN
 *	                                       400 401 403 404 410, and no new link since the last
 *	                                       byte: RENEW
 *
 *	LOG IN   auth_reload() is asked        another header: SEND; none: END
 *	                                       cancelled: END, without waiting for it
 *
 *	RENEW    source->renew() is asked      same version: SEND from where it stopped
 *	                                       another: END -ESTALE
 *
 *	END      sink->done() was called
 *
 * The link is renewed before sending when the client gives none. All answers of one fetch must agree
 * in ETag and total size, which If-Range makes the server see to as well.
 *
 * The stream's state is touched by one callback at a time; the fields another thread may look at
 * are under the table's lock. What is wished of the transfer under way is passed on under it too: a
 * wish only sets a mark in the engine, and would otherwise be overtaken by the next one.
 */

#include "fetch_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/pool.h>

#include "auth.h"
#include "call.h"

#define RESUMES_MAX    8	  /* in a row, each with little progress */
#define FRUITLESS_MAX  2	  /* in a row, with none */
#define PROGRESS_BYTES (128u << 10) /* more than little: half a block */
#define ERROR_BODY_MAX 65536	  /* of an error's page, to keep the connection */

void fetch_unref(struct fetch *f)
{
	pthread_mutex_lock(&f->table->lock);
	bool last = --f->refs == 0;
	pthread_mutex_unlock(&f->table->lock);
	if (!last)
		return;
	remote_file_clear(&f->file);
	free(f);
}

void fetch_end(struct fetch *f, int error)
{
	fetches_remove(f);
	f->sink.done(f->sink.ctx, error);
	fetch_unref(f);
}

/* The same version came under another tag before. */
static bool is_other_version(struct fetch *f, const char *etag)
{
	pthread_mutex_lock(&f->table->lock);
	bool agree = fetch_tags_agree(&f->table->tags, f->file.id, f->file.version, etag);
	pthread_mutex_unlock(&f->table->lock);
	return !agree;
}

/* It could have sent a part and has not: no server of that name is asked for parts again soon. */
static void note_rangeless(struct fetch *f)
{
	pthread_mutex_lock(&f->table->lock);
	fetch_hosts_note(&f->table->rangeless, f->file.url, clock_mono_ms());
	pthread_mutex_unlock(&f->table->lock);
}

static bool is_rangeless(struct fetch *f)
{
	pthread_mutex_lock(&f->table->lock);
	bool is = fetch_hosts_find(&f->table->rangeless, f->file.url, clock_mono_ms());
	pthread_mutex_unlock(&f->table->lock);
	return is;
}

/*
 * The head of an answer with content: whether its bytes are those that are wanted next. 0 or the
 * verdict.
 */
static int check_content(struct fetch *f, const struct transfer_head *head,
			 struct fetch_answer *ret_answer)
{
	struct fetch_ask ask = {f->position, f->ranged, f->begun, f->total, f->etag};
	int r = fetch_judge(&ask, head, ret_answer);

	if (r == 0 && f->source->judge)
		r = f->source->judge(&f->file, head, ret_answer->total);
	if (r == 0 && is_other_version(f, head->etag))
		r = -ESTALE;
	return r;
}

/* What a good answer's head says of the bytes that follow. */
static void take_answer(struct fetch *f, const struct fetch_answer *a)
{
	bool partly = f->position > 0 || a->total < 0 || f->end < (uint64_t)a->total;

	f->at = a->at;
	f->answer_end = a->end;
	f->framed = a->framed;
	f->held = false;
	/* Nobody says how much is coming: then it must be as much as was listed. */
	if (a->end == UINT64_MAX && f->file.size >= 0)
		f->answer_end = (uint64_t)f->file.size;
	if (a->rangeless && partly)
		note_rangeless(f);
	/* What comes anyway is worth more than to hang up and ask for all of it again. */
	if (!f->begun && (a->rangeless || !f->ranged))
		f->end = UINT64_MAX;
}

/* Tell the sink once where the stream begins. 0 or -ECANCELED. */
static int begin_stream(struct fetch *f, int64_t total, uint64_t offset, const char *etag)
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
static int judge_unsatisfied(struct fetch *f, const struct transfer_head *head)
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
	struct fetch *f = ctx;
	struct fetch_answer answer;

	if (head->status == 416)
		f->verdict = judge_unsatisfied(f, head);
	if (head->status != 200 && head->status != 206)
		return true;
	f->verdict = check_content(f, head, &answer);
	if (f->verdict == 0) {
		take_answer(f, &answer);
		f->verdict = begin_stream(f, answer.total, answer.at, head->etag);
	}
	f->good = f->verdict == 0;
	f->began_at = f->position;
	return f->good;
}

/* Bytes for the sink, but those it has. False: no more of this answer, by the verdict. */
static bool give(struct fetch *f, const char *bytes, size_t len)
{
	/* An answer that begins at 0 again: skip what the sink has. */
	uint64_t skip = f->position > f->at ? f->position - f->at : 0;

	if (skip >= len) {
		f->at += len;
		return true;
	}
	bytes += skip;
	size_t wanted = len - (size_t)skip;
	if (wanted > f->end - f->position)
		wanted = (size_t)(f->end - f->position);
	f->at += len;
	f->position += wanted;
	f->link = AS_GIVEN;
	f->logged_in = false;
	if (wanted > 0 && !f->sink.data(f->sink.ctx, bytes, wanted)) {
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

/* The first words of an error's page, for the log. */
static bool keep_words(struct fetch *f, const char *bytes, size_t len)
{
	if (f->error_bytes < sizeof(f->error_words) - 1)
		snprintf(f->error_words + f->error_bytes, sizeof(f->error_words) - f->error_bytes,
			 "%.*s", (int)len, bytes);
	f->error_bytes += len;
	return f->error_bytes <= ERROR_BODY_MAX;
}

/*
 * Where the length is not told, more may come than belongs to the file, and that is only seen at
 * the end. So the last byte is held back until then: no content becomes whole that is not.
 */
static bool on_data(void *ctx, const void *data, size_t len)
{
	struct fetch *f = ctx;
	const char *bytes = data;

	if (!f->good)
		return keep_words(f, bytes, len);
	if (len > f->answer_end - f->at - f->held) {
		f->verdict = f->file.size >= 0 && f->answer_end == (uint64_t)f->file.size ? -ESTALE
											  : -EIO;
		return false;
	}
	if (f->framed || len == 0)
		return give(f, bytes, len);
	char last = f->last;
	bool held = f->held;
	f->last = bytes[len - 1];
	f->held = true;
	return (!held || give(f, &last, 1)) && (len == 1 || give(f, bytes, len - 1));
}

static void renew_job(void *ctx)
{
	fetch_renew(ctx, false);
}

/* The answer's bytes stopped, whole or not: go on from here, or that was it. */
static void after_content(struct fetch *f, const struct transfer_result *result)
{
	/* That was the last byte indeed. */
	if (f->held && result->error == 0) {
		f->held = false;
		give(f, &f->last, 1);
	}
	bool whole = result->error == 0 && (f->answer_end == UINT64_MAX || f->at >= f->answer_end);
	bool late = f->deadline_mono_ms != 0 && clock_mono_ms() >= f->deadline_mono_ms;
	uint64_t end = f->total >= 0 && (uint64_t)f->total < f->end ? (uint64_t)f->total : f->end;
	uint64_t progress = f->position - f->began_at;

	if (f->verdict != 0) {
		fetch_end(f, f->verdict == 1 ? 0 : f->verdict);
		return;
	}
	if (f->position >= end || (whole && end == UINT64_MAX)) {
		fetch_end(f, 0);
		return;
	}
	/* Nobody told the size before, but an answer to its end does; no range makes it longer. */
	if (whole && f->answer_end == UINT64_MAX && f->total < 0) {
		fetch_end(f, f->at < f->position ? -ESTALE : 0);
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
		log_debug("read attachment %s: cut, goes on at byte %llu", f->file.id,
			  (unsigned long long)f->position);
		fetch_send_or_end(f);
		return;
	}
	log_error("read attachment %s: cut at byte %llu once too often", f->file.id,
		  (unsigned long long)f->position);
	int error = result->error < 0 ? call_transfer_errno(result->error) : -EIO;
	fetch_end(f, late ? -ETIMEDOUT : error);
}

static void resend_job(void *ctx)
{
	fetch_send_or_end(ctx);
}

static void on_done(void *ctx, const struct transfer_result *result)
{
	struct fetch *f = ctx;

	pthread_mutex_lock(&f->table->lock);
	f->running = 0;
	f->transfer = 0;
	bool cancelled = f->cancelled;
	pthread_mutex_unlock(&f->table->lock);
	if (f->source->credential && result->status != 0 && result->status != 401 &&
	    f->verdict != -EACCES)
		auth_note_taken(f->remote->auth, f->generation);
	if (f->verdict == -EIO)
		log_error("read attachment %s: the storage sent other bytes than asked%s%s",
			  f->file.id, f->source->remedy ? ": " : "",
			  f->source->remedy ? f->source->remedy : "");
	if (cancelled)
		fetch_end(f, -ECANCELED);
	else if (f->verdict == -EACCES && f->source->credential)
		fetch_after_login_page(f);
	else if (f->verdict != 0)
		fetch_end(f, f->verdict == 1 ? 0 : f->verdict);
	else if (f->good)
		after_content(f, result);
	else if (result->error < 0 && f->error_bytes <= ERROR_BODY_MAX)
		fetch_end(f, call_transfer_errno(result->error));
	else
		fetch_after_refusal(f, result->status);
}

/* Count a send and hold the fetch for its starter. 0: it was cancelled meanwhile. */
static unsigned enter_send(struct fetch *f, enum transfer_class *ret_class)
{
	unsigned number = 0;

	pthread_mutex_lock(&f->table->lock);
	if (!f->cancelled) {
		number = f->running = ++f->sends;
		f->refs++;
		*ret_class = f->class;
	}
	pthread_mutex_unlock(&f->table->lock);
	return number;
}

/*
 * The transfer (0 = it was not started) has its id: from now on wishes reach it, and those of the
 * meantime do now. @class is what it was sent with.
 */
static void leave_send(struct fetch *f, unsigned number, uint64_t transfer,
		       enum transfer_class class)
{
	pthread_mutex_lock(&f->table->lock);
	if (f->running == number) {
		f->transfer = transfer;
		if (transfer && f->class != class)
			call_gate_set_class(f->remote, transfer, f->class);
		if (transfer && f->cancelled)
			call_gate_apply(f->remote, transfer_cancel, transfer);
		else if (transfer && f->paused)
			call_gate_apply(f->remote, transfer_pause, transfer);
	}
	pthread_mutex_unlock(&f->table->lock);
	fetch_unref(f);
}

static int fetch_send(struct fetch *f)
{
	enum transfer_class class = TRANSFER_PREFETCH;
	unsigned number = enter_send(f, &class);
	const char *headers[3] = {"Accept-Encoding: identity"};
	char *credential = NULL;
	uint64_t transfer = 0;
	int r = 0;

	if (number == 0)
		return -ECANCELED;
	if (f->source->accept)
		headers[1] = f->source->accept;
	if (f->source->credential)
		r = auth_get_header(f->remote->auth, &credential, &f->generation);
	/*
	 * Always a range, where there are any, for its Content-Range tells the total; and to other
	 * hosts no credential: it would be refused, or leak.
	 */
	f->ranged = !is_rangeless(f);
	struct transfer_spec spec = {
		.class = class,
		.method = "GET",
		.url = f->file.url,
		.endpoint = f->source->endpoint,
		.headers = headers,
		.credential = credential,
		.has_range = f->ranged,
		.range_first = f->position,
		.range_len = f->end == UINT64_MAX ? 0 : f->end - f->position,
		.if_range = f->ranged && f->begun && f->etag[0] != '\0' ? f->etag : NULL,
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
	memset(f->error_words, 0, sizeof(f->error_words));
	if (r == 0)
		r = call_gate_start(f->remote, &spec, &transfer);
	auth_free_header(credential);
	leave_send(f, number, transfer, class);
	return r == -EINVAL ? -EIO : r;
}

void fetch_send_or_end(struct fetch *f)
{
	int r = fetch_send(f);

	if (r == -EAGAIN && !f->logged_in)
		fetch_log_in(f);
	else if (r < 0)
		fetch_end(f, r == -EAGAIN ? -EACCES : r);
}

static struct fetch *fetch_new(struct remote *r, const struct remote_file *file)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->remote = r;
	f->table = r->fetches;
	f->refs = 1;
	f->total = -1;
	if (remote_file_copy(&f->file, file))
		return f;
	free(f);
	return NULL;
}

int fetch_start(struct remote *r, const struct fetch_source *source, enum transfer_class class,
		const struct remote_file *file, bool remembered, uint64_t off, uint64_t len,
		int64_t deadline_mono_ms, const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	int error = 0;

	if (!file->id || !file->version || off > UINT64_MAX - 1 - len ||
	    (!file->url && !source->renew))
		return -EINVAL;
	struct fetch *f = fetch_new(r, file);
	if (!f)
		return -ENOMEM;
	f->source = source;
	f->class = class;
	f->link = remembered ? REMEMBERED : AS_GIVEN;
	f->position = off;
	f->end = len ? off + len : UINT64_MAX;
	f->deadline_mono_ms = deadline_mono_ms;
	f->sink = *sink;
	fetches_add(f->table, f);
	*ret_id = f->id;
	/* A renewal or a login may fail at once and call the sink: not under the caller's feet. */
	error = f->file.url ? fetch_send(f) : pool_run(r->pool, renew_job, f);
	if (error == -EAGAIN)
		error = pool_run(r->pool, resend_job, f);
	if (error < 0) {
		fetches_remove(f);
		fetch_unref(f);
	}
	return error;
}

static void cancel_job(void *ctx)
{
	fetch_end(ctx, -ECANCELED);
}

void fetch_cancel(struct remote *r, uint64_t id)
{
	struct fetches *t = r->fetches;

	pthread_mutex_lock(&t->lock);
	struct fetch *f = *fetches_find_locked(t, id);
	if (f) {
		f->cancelled = true;
		if (f->transfer)
			call_gate_apply(r, transfer_cancel, f->transfer);
		/* A login may take long, and goes on for others. */
		if (f->waiting && pool_run(r->pool, cancel_job, f) == 0)
			f->waiting = false;
	}
	pthread_mutex_unlock(&t->lock);
}

static void set_paused(struct remote *r, uint64_t id, bool paused)
{
	struct fetches *t = r->fetches;

	pthread_mutex_lock(&t->lock);
	struct fetch *f = *fetches_find_locked(t, id);
	if (f) {
		f->paused = paused;
		if (f->transfer)
			call_gate_apply(r, paused ? transfer_pause : transfer_resume, f->transfer);
	}
	pthread_mutex_unlock(&t->lock);
}

void fetch_pause(struct remote *r, uint64_t id)
{
	set_paused(r, id, true);
}

void fetch_resume(struct remote *r, uint64_t id)
{
	set_paused(r, id, false);
}

void fetch_set_class(struct remote *r, uint64_t id, enum transfer_class class)
{
	struct fetches *t = r->fetches;

	pthread_mutex_lock(&t->lock);
	struct fetch *f = *fetches_find_locked(t, id);
	if (f) {
		f->class = class;
		if (f->transfer)
			call_gate_set_class(r, f->transfer, class);
	}
	pthread_mutex_unlock(&t->lock);
}
