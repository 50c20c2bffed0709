/* SPDX-License-Identifier: MIT */

/*
 * A new document: the answer to the upload says nothing of it, so it is what the list has more
 * afterwards than before. Of two documents of one name and element at a time nobody could tell which is
 * which: the second waits until the first is listed. The folder is that of the element's other documents; else the main folder.
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <attachfs/pool.h>

static void send_create(struct rillsoft_job *job);

static void judge_new(struct rillsoft_job *job, const struct rillsoft_doc *doc)
{
	const struct remote_change *item = job->item;

	if (!doc) {
		rillsoft_job_end(job, REMOTE_UNKNOWN, -EIO,
				 "the server took '%.80s', but does not list it", item->name);
	} else if (doc->size >= 0 && (uint64_t)doc->size != item->size) {
		rillsoft_make_file(doc, &job->item->file);
		rillsoft_job_end(job, REMOTE_REFUSED, -EIO,
				 "the server took '%.80s', but kept %lld of its %llu bytes",
				 item->name, (long long)doc->size, (unsigned long long)item->size);
	} else {
		rillsoft_job_succeed(job, doc);
	}
}

static void on_created_listed(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct rillsoft_job *job = ctx;
	const struct remote_change *item = job->item;

	if (error < 0)
		rillsoft_job_end(job, REMOTE_UNKNOWN, error, "%s", message);
	else
		judge_new(job, rillsoft_find_new(l, job->before, item->collection, item->record,
						 item->name, job->filename, item->size));
}

/*
 * 404: the folder is gone (R-11: then the documents are in another one now), the element is, or it
 * is none that takes documents.
 */
static void on_refused_listed(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct rillsoft_job *job = ctx;
	const struct remote_change *item = job->item;
	const struct rillsoft_doc *doc =
		l ? rillsoft_find_of(l, item->collection, item->record) : NULL;
	bool there = doc ||
		     (job->before && rillsoft_find_of(job->before, item->collection, item->record));

	if (error < 0) {
		rillsoft_job_end(job, REMOTE_RETRY, error, "%s", message);
		return;
	}
	if (doc && doc->folder[0] != '\0' && strcmp(doc->folder, job->folder) != 0 &&
	    !job->retried) {
		job->retried = true;
		memcpy(job->folder, doc->folder, sizeof(job->folder));
		rillsoft_job_keep(job, l);
		send_create(job);
		return;
	}
	pthread_mutex_lock(&job->ris->lock);
	job->ris->folder_known = false;
	pthread_mutex_unlock(&job->ris->lock);
	if (there)
		rillsoft_job_end(job, REMOTE_REFUSED, -EPERM,
				 "the server takes documents on tasks only (R-9): %s",
				 job->message);
	else
		rillsoft_job_end(job, REMOTE_REFUSED, -ENOENT,
				 "there is no such element in project %s: %s", item->collection,
				 job->message);
}

static void on_created(void *ctx, const struct call_reply *reply)
{
	struct rillsoft_job *job = ctx;

	rillsoft_note_write(job->ris);
	snprintf(job->message, sizeof(job->message), "%s", reply->message);
	if (reply->status >= 200 && reply->status < 300)
		rillsoft_job_want(job, RILLSOFT_FRESH, on_created_listed);
	else if (reply->status == 404)
		rillsoft_job_want(job, RILLSOFT_FRESH, on_refused_listed);
	else
		rillsoft_job_judge(job, reply);
}

static void send_create(struct rillsoft_job *job)
{
	const struct remote_change *item = job->item;
	struct rillsoft_ids ids = {.cid = job->ris->client,
				   .pid = item->collection,
				   .fid = job->folder,
				   .uuid = item->record};
	struct call *call = rillsoft_call(job->ris, job->class, "POST", RILLSOFT_CREATE, &ids, "");

	job->filename = rillsoft_is_tame(item->name) || !item->token ? item->name : item->token;
	call_add_file(call, "file", job->filename, item->fd, item->size);
	call_add_field(call, "name", item->name);
	call_add_field(call, "description", "");
	call_set_any_answer(call);
	call_set_scope(call, "to create documents");
	rillsoft_job_start_call(job, call, on_created);
}

/* Any folder that is known to be one; else the first there ever was. */
static void choose_folder(struct rillsoft_job *job)
{
	const struct rillsoft_listing *l = job->before;

	for (size_t i = 0; job->folder[0] == '\0' && i < l->n; i++)
		if (strcmp(l->docs[i].project, job->item->collection) == 0)
			memcpy(job->folder, l->docs[i].folder, sizeof(job->folder));
	if (job->folder[0] == '\0')
		snprintf(job->folder, sizeof(job->folder), "1");
	send_create(job);
}

static void on_folders(void *ctx, const struct call_reply *reply)
{
	struct rillsoft_job *job = ctx;
	struct rillsoft *ris = job->ris;
	bool none = reply->status == 404 || reply->status == 405 || reply->status == 403;
	char folder[RILLSOFT_ID_SIZE] = "";

	if (reply->error < 0 && !none && !(reply->status >= 200 && reply->status < 300)) {
		int error;
		/* Nothing was written yet. */
		enum remote_outcome outcome = rillsoft_judge(reply, RILLSOFT_UPDATES, &error);
		rillsoft_job_end(job, outcome, error, "%s", reply->message);
		return;
	}
	if (reply->error == 0)
		rillsoft_decode_main_folder(reply->json, folder);
	pthread_mutex_lock(&ris->lock);
	ris->folder_known = true;
	memcpy(ris->main_folder, folder, sizeof(folder));
	pthread_mutex_unlock(&ris->lock);
	memcpy(job->folder, folder, sizeof(folder));
	choose_folder(job);
}

static void ask_folders(struct rillsoft_job *job)
{
	struct rillsoft_ids ids = {.cid = job->ris->client};
	struct call *call = rillsoft_call(job->ris, job->class, "GET", RILLSOFT_FOLDERS, &ids, "");

	call_set_idempotent(call, true);
	rillsoft_job_start_call(job, call, on_folders);
}

static void on_known(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct rillsoft_job *job = ctx;
	struct rillsoft *ris = job->ris;
	const struct rillsoft_doc *sibling;

	if (error < 0) {
		rillsoft_job_end(job, REMOTE_RETRY, error, "%s", message);
		return;
	}
	rillsoft_job_keep(job, l);
	sibling = rillsoft_find_of(l, job->item->collection, job->item->record);
	if (sibling)
		memcpy(job->folder, sibling->folder, sizeof(job->folder));
	if (job->folder[0] != '\0') {
		send_create(job);
		return;
	}
	pthread_mutex_lock(&ris->lock);
	bool known = ris->folder_known;
	memcpy(job->folder, ris->main_folder, sizeof(job->folder));
	pthread_mutex_unlock(&ris->lock);
	if (known)
		choose_folder(job);
	else
		ask_folders(job);
}

static void begin_create(void *ctx)
{
	rillsoft_job_want(ctx, RILLSOFT_KNOWN, on_known);
}

static bool is_alike(const struct rillsoft_job *a, const struct rillsoft_job *b)
{
	return strcmp(a->item->name, b->item->name) == 0 &&
	       strcasecmp(a->item->record, b->item->record) == 0 &&
	       strcmp(a->item->collection, b->item->collection) == 0;
}

/* The first after @from that would make what @job makes. */
static struct rillsoft_job *find_alike_locked(struct rillsoft_job *from,
					      const struct rillsoft_job *job)
{
	while (from && !is_alike(from, job))
		from = from->next_creating;
	return from;
}

void rillsoft_create_begin(struct rillsoft_job *job)
{
	struct rillsoft *ris = job->ris;
	struct rillsoft_job **end = &ris->creating;

	pthread_mutex_lock(&ris->lock);
	bool waits = find_alike_locked(ris->creating, job) != NULL;
	while (*end)
		end = &(*end)->next_creating;
	*end = job;
	pthread_mutex_unlock(&ris->lock);
	if (!waits)
		begin_create(job);
}

void rillsoft_create_leave(struct rillsoft_job *job, enum remote_outcome outcome)
{
	struct rillsoft *ris = job->ris;
	struct rillsoft_job **at = &ris->creating, *next = NULL;

	pthread_mutex_lock(&ris->lock);
	if (outcome == REMOTE_UNKNOWN)
		ris->doubt_seq = ++ris->seq;
	while (*at && *at != job)
		at = &(*at)->next_creating;
	if (*at) { /* else it was refused before it began */
		*at = job->next_creating;
		next = find_alike_locked(ris->creating, job);
	}
	pthread_mutex_unlock(&ris->lock);
	if (next && pool_run(ris->base.pool, begin_create, next) < 0)
		begin_create(next);
}
