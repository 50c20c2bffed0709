/* SPDX-License-Identifier: MIT */

/*
 * What all writing calls have in common. There is no batch (section 9): each item is a job of its own,
 * a chain of calls and looks at the list, side by side with the others; the looks are shared.
 *
 *	create       known list -> POST -> fresh list: which row is new
 *	replace,     known list: the fields to send along -> POST -> fresh list: is it so now
 *	update
 *	remove       DELETE; fresh list only when that said 404 or 405
 *
 * A job ends by rillsoft_job_end(), whoever ends the last one calls done().
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <attachfs/log.h>
#include <attachfs/pool.h>

#include "json.h"

struct rillsoft_work {
	remote_done *done;
	void *ctx;
	atomic_size_t pending;
	struct rillsoft_job jobs[];
};

static void release(struct rillsoft_job *job)
{
	struct rillsoft_work *work = job->work;

	rillsoft_listing_unref(job->before);
	job->before = NULL;
	if (job->own_fd)
		close(job->fd);
	job->own_fd = false;
	if (atomic_fetch_sub(&work->pending, 1) != 1)
		return;
	work->done(work->ctx, 0, "");
	free(work);
}

void rillsoft_job_end(struct rillsoft_job *job, enum remote_outcome outcome, int error,
		      const char *format, ...)
{
	struct remote_change *item = job->item;
	va_list args;

	item->outcome = outcome;
	item->error = error;
	va_start(args, format);
	vsnprintf(item->message, sizeof(item->message), format, args);
	va_end(args);
	if (job->verb == RILLSOFT_CREATES)
		rillsoft_create_leave(job, outcome);
	release(job);
}

/* What the person may do about a refusal, besides what the server's words say. */
static const char *find_hint(const struct rillsoft_job *job, int status)
{
	bool upload = job->verb == RILLSOFT_CREATES || job->verb == RILLSOFT_REPLACES;
	bool update = job->verb == RILLSOFT_UPDATES || job->verb == RILLSOFT_REPLACES;

	if (status == 400 && rillsoft_is_attachments(job->item->collection))
		return "; it may be too large, or want another project= or portfolio=";
	if (status == 400 && upload)
		return " (it may be larger than the client's settings on the server allow)";
	if (status == 409)
		return "; it may be locked, or another document there may have that name";
	if (status == 423)
		return "; it is locked, or may not be changed";
	if (status == 405 && update && !rillsoft_is_attachments(job->item->collection))
		return "; try another method_override=";
	return "";
}

void rillsoft_job_judge(struct rillsoft_job *job, const struct call_reply *reply)
{
	int error;
	enum remote_outcome outcome = rillsoft_judge(reply, job->verb, &error);

	rillsoft_job_end(job, outcome, error, "%.160s%s", reply->message,
			 find_hint(job, reply->status));
}

void rillsoft_job_succeed(struct rillsoft_job *job, const struct rillsoft_doc *doc)
{
	if (rillsoft_make_file(doc, &job->item->file))
		rillsoft_job_end(job, REMOTE_DONE, 0, "%s", "");
	else
		rillsoft_job_end(job, job->verb == RILLSOFT_CREATES ? REMOTE_UNKNOWN : REMOTE_RETRY,
				 -ENOMEM, "out of memory");
}

void rillsoft_job_want(struct rillsoft_job *job, enum rillsoft_need need,
		       void (*done)(void *ctx, int error, struct rillsoft_listing *l,
				    const char *message))
{
	rillsoft_want(job->ris, &job->wait, job->class, job->item->collection, need, done, job);
}

void rillsoft_job_keep(struct rillsoft_job *job, struct rillsoft_listing *l)
{
	rillsoft_listing_ref(l);
	rillsoft_listing_unref(job->before);
	job->before = l;
}

void rillsoft_job_start_call(struct rillsoft_job *job, struct call *call, call_done *done)
{
	int error = call_start(call, done, job);

	if (error < 0)
		rillsoft_job_end(job, REMOTE_RETRY, error, "not sent");
}

/* Said 404 or 405: was it gone, or is the path wrong? */
static void on_removal_looked(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct rillsoft_job *job = ctx;
	const struct rillsoft_doc *doc = l ? rillsoft_find_doc(l, job->item->id) : NULL;

	if (error < 0) {
		rillsoft_job_end(job, REMOTE_RETRY, error, "%s", message);
		return;
	}
	if (!doc) {
		rillsoft_job_end(job, REMOTE_GONE, 0, "%s", "");
		return;
	}
	if (!atomic_exchange(&job->ris->delete_told, true))
		log_error("rillsoft: the server does not delete at %s: %s; set template_delete= to "
			  "the path it has",
			  job->ris->paths[RILLSOFT_DELETE], job->message);
	rillsoft_job_end(
		job, REMOTE_REFUSED, -ENOSYS,
		"'%.80s' is still there: template_delete= is not where this server deletes",
		doc->name);
}

static void on_removed(void *ctx, const struct call_reply *reply)
{
	struct rillsoft_job *job = ctx;

	rillsoft_note_write(job->ris);
	if (reply->status == 404 || reply->status == 405 || reply->status == 410) {
		snprintf(job->message, sizeof(job->message), "%s", reply->message);
		rillsoft_job_want(job, RILLSOFT_FRESH, on_removal_looked);
		return;
	}
	rillsoft_job_judge(job, reply);
}

static void remove_begin(struct rillsoft_job *job)
{
	struct rillsoft_ids ids = {
		.cid = job->ris->client, .pid = job->item->collection, .did = job->item->id};
	struct call *call =
		rillsoft_call(job->ris, job->class, "DELETE", RILLSOFT_DELETE, &ids, "");

	call_set_any_answer(call);
	call_set_idempotent(call, true);
	call_set_scope(call, "to delete documents");
	rillsoft_job_start_call(job, call, on_removed);
}

/* What must not get into a URL or be sent at all: NULL, or why not. */
static const char *find_fault(const struct rillsoft_job *job, int *ret_error)
{
	const struct remote_change *item = job->item;

	*ret_error = -EINVAL;
	if (!item->collection ||
	    (!json_is_id(item->collection) && !rillsoft_is_attachments(item->collection)))
		return "there is no such project";
	if (rillsoft_is_attachments(item->collection)) {
		*ret_error = -EPERM;
		if (job->verb != RILLSOFT_REPLACES)
			return "the server cannot make, rename or remove attachments (R-18)";
		*ret_error = -ENOENT;
		return item->id && rillsoft_has_attachment(job->ris, item->id)
			       ? NULL
			       : "attachments= does not name it";
	}
	if (job->verb != RILLSOFT_CREATES && !json_is_id(item->id))
		return "there is no such document";
	if (job->verb == RILLSOFT_CREATES && (!item->name || *item->name == '\0'))
		return "a document needs a name";
	bool placed =
		job->verb == RILLSOFT_CREATES || (job->verb == RILLSOFT_UPDATES && item->move);
	if (!placed || json_is_uuid(item->record ? item->record : ""))
		return NULL;
	*ret_error = -EPERM;
	return "documents hang on elements of a project only";
}

static void begin_job(void *ctx)
{
	struct rillsoft_job *job = ctx;
	int error;
	const char *fault = find_fault(job, &error);

	if (fault)
		rillsoft_job_end(job, REMOTE_REFUSED, error, "%s", fault);
	else if (rillsoft_is_attachments(job->item->collection))
		rillsoft_attachment_begin(job);
	else if (job->verb == RILLSOFT_CREATES)
		rillsoft_create_begin(job);
	else if (job->verb == RILLSOFT_REMOVES)
		remove_begin(job);
	else if (job->verb == RILLSOFT_UPDATES && !job->item->name && !job->item->move)
		rillsoft_job_end(job, REMOTE_DONE, 0, "%s", "");
	else
		rillsoft_update_begin(job);
}

static void init_job(struct rillsoft_job *job, struct rillsoft_work *work, struct remote *r,
		     enum rillsoft_verb verb, enum transfer_class class, struct remote_change *item)
{
	*job = (struct rillsoft_job){.ris = (struct rillsoft *)r,
				     .work = work,
				     .item = item,
				     .verb = verb,
				     .class = class,
				     .fd = -1};
	item->outcome = REMOTE_RETRY;
	item->error = -EIO;
	item->message[0] = '\0';
	item->file = (struct remote_file){.size = -1};
}

static int write_items(struct remote *r, enum rillsoft_verb verb, enum transfer_class class,
		       struct remote_change *items, size_t n, remote_done *done, void *ctx)
{
	struct rillsoft_work *work = calloc(1, sizeof(*work) + n * sizeof(work->jobs[0]));
	size_t started = 0;

	if (!work || n == 0) {
		free(work);
		return n == 0 ? -EINVAL : -ENOMEM;
	}
	work->done = done;
	work->ctx = ctx;
	atomic_init(&work->pending, n);
	for (size_t i = 0; i < n; i++)
		init_job(&work->jobs[i], work, r, verb, class, &items[i]);
	while (started < n && pool_run(r->pool, begin_job, &work->jobs[started]) == 0)
		started++;
	if (started == 0) {
		free(work);
		return -ENOMEM;
	}
	/* Some of a batch larger than the caps allow, and no memory. */
	for (size_t i = started; i < n; i++)
		rillsoft_job_end(&work->jobs[i], REMOTE_RETRY, -ENOMEM, "out of memory");
	return 0;
}

int rillsoft_create(struct remote *r, enum transfer_class class, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx)
{
	return write_items(r, RILLSOFT_CREATES, class, items, n, done, ctx);
}

int rillsoft_replace(struct remote *r, enum transfer_class class, struct remote_change *items,
		     size_t n, remote_done *done, void *ctx)
{
	return write_items(r, RILLSOFT_REPLACES, class, items, n, done, ctx);
}

int rillsoft_update(struct remote *r, enum transfer_class class, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx)
{
	return write_items(r, RILLSOFT_UPDATES, class, items, n, done, ctx);
}

int rillsoft_remove(struct remote *r, enum transfer_class class, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx)
{
	return write_items(r, RILLSOFT_REMOVES, class, items, n, done, ctx);
}
