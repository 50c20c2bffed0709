/* SPDX-License-Identifier: MIT */

/*
 * Listings. Requirements, scripts and incidents come with their attachments inline: one walk. The
 * others hang below runs, and each run and each of their records with attachments costs a call:
 *
 *	WALK   a page of runs (or records)
 *	WORK   jobs for it, some at a time: a run's steps or nodes, a node's children, a record's files; one may
 *	       add others. The records and files they find are collected.
 *	GIVE   what the page has brought goes to the sink; the walk is resumed
 *
 * A run or step that is gone when it is asked about, or must not be seen, is left out with what is
 * below it. Any other failure ends the listing: what is missing in one that is whole, is deleted.
 */

#include "enterprise_tester.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#include "json.h"

#define JOBS_AT_ONCE 8

enum job_kind { JOB_STEPS, JOB_NODES, JOB_FILES };

struct job {
	enum job_kind kind;
	char id[REMOTE_ID_MAX + 1]; /* of the run; FILES: of the record */
	char node[ET_GUID_SIZE];    /* NODES: whose children, "" = the roots */
	json_t *run;		    /* STEPS, NODES: its row */
};

struct tree {
	struct et *p;
	enum transfer_class class;
	const struct et_collection *c;
	struct remote_sink sink;
	struct et_walk *walk; /* waiting to be resumed */
	json_t *seen_nodes;   /* ids, an object used as a set */
	size_t nameless;      /* of E-7, in pages given */
	char nameless_of[128];
	char record[REMOTE_ID_MAX + 1]; /* of list_record, else "" */

	pthread_mutex_t lock; /* the fields below; no other is taken under it */
	struct et_page page;
	struct job *jobs;
	size_t n_jobs, next_job, jobs_size;
	size_t running;
	int error;
	char message[CALL_MESSAGE_MAX];
};

/* A job under way. */
struct work {
	struct tree *t;
	struct job job;
};

static void drop_jobs(struct tree *t)
{
	for (size_t i = 0; i < t->n_jobs; i++)
		json_decref(t->jobs[i].run);
	t->n_jobs = t->next_job = 0;
}

static void tree_end(void *ctx, int error, int status, const char *message)
{
	struct tree *t = ctx;
	/* Whether the server can be reached and takes our credentials is told elsewhere, once. */
	bool known = error == -ECANCELED || error == -EACCES || error == -EHOSTDOWN ||
		     error == -ETIMEDOUT || (status == 404 && t->record[0] != '\0');

	if (error < 0 && !known)
		log_errno(error, "enterprise-tester: list %s%s%s: %s", t->c->name,
			  t->record[0] ? "/" : "", t->record, message);
	if (t->nameless > 0)
		log_warning("enterprise-tester: list %s: %zu attachments (the first of '%s') have "
			    "no id (E-7) and are not shown: they could neither be read nor deleted",
			    t->c->name, t->nameless, t->nameless_of);
	t->sink.done(t->sink.ctx, error, message);
	drop_jobs(t);
	free(t->jobs);
	et_page_clear(&t->page);
	json_decref(t->seen_nodes);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

/* What was just added to @record's files has some without an id: remember the first record. */
static void note_nameless_locked(struct tree *t, size_t before, const char *record)
{
	const char *name = record;

	if (t->page.nameless == before || t->nameless_of[0] != '\0')
		return;
	for (size_t i = 0; i < t->page.n_records; i++)
		if (strcmp(t->page.records[i].id, record) == 0)
			name = t->page.records[i].name;
	snprintf(t->nameless_of, sizeof(t->nameless_of), "%s", name);
}

/* Files of @record. */
static int take_files_locked(struct tree *t, const json_t *rows, const char *record)
{
	size_t before = t->page.nameless;
	int r = et_decode_files(rows, record, &t->page);

	note_nameless_locked(t, before, record);
	return r;
}

/* Hand over what there is. 0 or -ECANCELED. */
static int give(struct tree *t)
{
	struct et_page page = t->page;

	t->page = (struct et_page){0};
	t->nameless += page.nameless;
	bool go_on =
		t->sink.page(t->sink.ctx, page.records, page.n_records, page.files, page.n_files);
	et_page_clear(&page);
	return go_on ? 0 : -ECANCELED;
}

static int add_job_locked(struct tree *t, enum job_kind kind, const char *id, const char *node,
			  const json_t *run)
{
	if (t->n_jobs == t->jobs_size) {
		size_t size = t->jobs_size ? 2 * t->jobs_size : 64;
		struct job *grown = reallocarray(t->jobs, size, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		t->jobs = grown;
		t->jobs_size = size;
	}
	struct job *job = &t->jobs[t->n_jobs++];
	*job = (struct job){.kind = kind, .run = json_incref((json_t *)run)};
	snprintf(job->id, sizeof(job->id), "%s", id);
	snprintf(job->node, sizeof(job->node), "%s", node);
	return 0;
}

/* A record, with its files when they are inline, else a job to ask for them. */
static int take_record_locked(struct tree *t, const json_t *row, const json_t *run, size_t number)
{
	char id[REMOTE_ID_MAX + 1];
	int r = et_decode_record(t->c, row, run, number, &t->page, id);

	if (r < 0 || id[0] == '\0')
		return r;
	if (et_lacks_files(row))
		return add_job_locked(t, JOB_FILES, id, "", NULL);
	const json_t *files = json_get_array(row, "Attachments");
	return files ? take_files_locked(t, files, id) : 0;
}

static int take_steps_locked(struct tree *t, const json_t *root)
{
	const json_t *steps = json_get_array(root, t->c->expand);
	int r = 0;

	/* A run that does not show its steps is not one without steps. */
	if (!steps)
		return -EIO;
	for (size_t i = 0; r == 0 && i < json_array_size(steps); i++)
		r = take_record_locked(t, json_array_get(steps, i), root, i + 1);
	return r;
}

/*
 * Nodes: whether the first answer is of all of a run's, or of its roots, is not said. So the
 * children of each are asked for, but what is known already is not taken again.
 */
static int take_nodes_locked(struct tree *t, const struct job *job, const json_t *rows)
{
	char id[ET_GUID_SIZE];
	int r = 0;

	if (!rows)
		return -EIO;
	for (size_t i = 0; r == 0 && i < json_array_size(rows); i++) {
		const json_t *row = json_array_get(rows, i);
		if (et_get_guid(row, "Id", id) && json_object_get(t->seen_nodes, id))
			continue;
		if (id[0] && json_object_set_new(t->seen_nodes, id, json_true()) < 0)
			return -ENOMEM;
		r = take_record_locked(t, row, job->run, i + 1);
		if (r == 0 && id[0])
			r = add_job_locked(t, JOB_NODES, job->id, id, job->run);
	}
	return r;
}

static void work_on(struct tree *t);

/* A job is over: with what it found, or an error. */
static void work_done(struct work *work, int error, const char *message)
{
	struct tree *t = work->t;

	pthread_mutex_lock(&t->lock);
	if (error < 0 && t->error == 0) {
		t->error = error;
		snprintf(t->message, sizeof(t->message), "%s", message);
	}
	pthread_mutex_unlock(&t->lock);
	json_decref(work->job.run);
	free(work);
	work_on(t);
}

/* What may be left out: it is gone, or not for us to see. */
static bool is_passed_over(struct tree *t, const struct job *job, int status, const char *message)
{
	if (status == 403)
		log_warning("enterprise-tester: list %s: %s is left out: %s", t->c->name, job->id,
			    message);
	return status == 403 || status == 404;
}

static int on_files(void *ctx, struct et_walk *w, const json_t *rows)
{
	struct work *work = ctx;
	struct tree *t = work->t;

	(void)w;
	pthread_mutex_lock(&t->lock);
	int r = take_files_locked(t, rows, work->job.id);
	pthread_mutex_unlock(&t->lock);
	return r;
}

static void on_files_end(void *ctx, int error, int status, const char *message)
{
	struct work *work = ctx;

	if (error < 0 && is_passed_over(work->t, &work->job, status, message))
		error = 0;
	work_done(work, error, message);
}

static void on_run(void *ctx, const struct call_reply *reply)
{
	struct work *work = ctx;
	struct tree *t = work->t;
	const char *message = reply->message;
	bool skip = is_passed_over(t, &work->job, reply->status, reply->message);
	int r = skip ? 0 : reply->error;

	et_note_reply(t->p, reply);
	if (r == 0 && !skip) {
		pthread_mutex_lock(&t->lock);
		r = work->job.kind == JOB_STEPS
			    ? take_steps_locked(t, reply->json)
			    : take_nodes_locked(t, &work->job, et_rows(reply->json));
		pthread_mutex_unlock(&t->lock);
		if (r == -EIO)
			message = "the answer is not what Enterprise Tester sends: a run without "
				  "its parts";
	}
	work_done(work, r, message);
}

static int ask_files(struct tree *t, const char *record, enum transfer_class class,
		     int (*rows)(void *, struct et_walk *, const json_t *),
		     void (*done)(void *, int, int, const char *), void *ctx)
{
	char path[ET_PATH_SIZE], template[ET_PATH_SIZE];

	if (!et_files_path(t->c, record, path) || !et_files_path(t->c, NULL, template))
		return -EINVAL;
	return et_walk_start(t->p,
			     &(struct et_walk_spec){
				     .class = class,
				     .path = path,
				     .template = template,
				     .language = ET_ODATA,
				     .bare = t->c->shape == ET_RUNS || t->c->shape == ET_NODES,
				     .top = ET_PAGE,
				     .rows = rows,
				     .done = done,
				     .ctx = ctx,
			     });
}

static int ask_run(struct work *work)
{
	struct tree *t = work->t;
	const struct et_collection *c = t->c;
	char path[ET_PATH_SIZE], template[ET_PATH_SIZE];

	if (work->job.kind == JOB_STEPS) {
		snprintf(path, sizeof(path), "%s/%s?$expand=%s", c->row, work->job.id, c->expand);
		snprintf(template, sizeof(template), "%s/{id}", c->row);
	} else if (work->job.node[0] == '\0') {
		snprintf(path, sizeof(path), "%s/%s/nodes", c->row, work->job.id);
		snprintf(template, sizeof(template), "%s/{id}/nodes", c->row);
	} else {
		snprintf(path, sizeof(path), "%s/%s/node/%s/children", c->row, work->job.id,
			 work->job.node);
		snprintf(template, sizeof(template), "%s/{id}/node/{id}/children", c->row);
	}
	struct call *call = et_call(t->p, t->class, "GET", path, template);
	call_set_idempotent(call, true);
	return call_start(call, on_run, work);
}

static int start_job(struct tree *t, struct job *job)
{
	struct work *work = malloc(sizeof(*work));
	int r = -ENOMEM;

	if (work) {
		*work = (struct work){t, *job};
		r = job->kind == JOB_FILES
			    ? ask_files(t, work->job.id, t->class, on_files, on_files_end, work)
			    : ask_run(work);
	}
	if (r < 0) {
		json_decref(job->run);
		free(work);
	}
	return r;
}

/* The page's jobs are over. */
static void finish_page(struct tree *t)
{
	struct et_walk *walk = t->walk;
	char message[CALL_MESSAGE_MAX];
	int r = t->error;

	snprintf(message, sizeof(message), "%s", t->message);
	drop_jobs(t);
	if (r == 0)
		r = give(t);
	et_walk_resume(walk, r, message);
}

/*
 * Start jobs while there is room. The caller counts as one under way, so that nobody else finishes
 * the page meanwhile; whoever is the last one under way does, and there is no tree for him any more.
 */
static void work_on(struct tree *t)
{
	for (;;) {
		struct job job = {0};

		pthread_mutex_lock(&t->lock);
		bool more = t->next_job < t->n_jobs && t->error == 0 && t->running <= JOBS_AT_ONCE;
		if (more) {
			job = t->jobs[t->next_job];
			t->jobs[t->next_job++].run = NULL;
			t->running++;
		} else {
			t->running--;
		}
		bool last = t->running == 0;
		pthread_mutex_unlock(&t->lock);
		if (last)
			finish_page(t);
		if (!more)
			return;
		int r = start_job(t, &job);
		if (r < 0) {
			pthread_mutex_lock(&t->lock);
			t->error = t->error ? t->error : r;
			t->running--;
			pthread_mutex_unlock(&t->lock);
		}
	}
}

/* A page of the set: its records, or jobs for the runs that it is of. */
static int on_rows(void *ctx, struct et_walk *w, const json_t *rows)
{
	struct tree *t = ctx;
	enum job_kind kind = t->c->shape == ET_NODES ? JOB_NODES : JOB_STEPS;
	bool parts = t->c->shape == ET_NODES || t->c->shape == ET_STEPS;
	char id[ET_GUID_SIZE];
	int r = 0;

	et_watch_rows(t->p, t->c, rows);
	/* Alone here: no job is under way. */
	for (size_t i = 0; r == 0 && i < json_array_size(rows); i++) {
		const json_t *row = json_array_get(rows, i);
		if (!parts)
			r = take_record_locked(t, row, NULL, 0);
		else if (et_get_guid(row, "Id", id))
			r = add_job_locked(t, kind, id, "", row);
	}
	if (r < 0)
		return r;
	if (t->n_jobs == 0)
		return give(t);
	t->walk = w;
	t->running = 1;
	work_on(t);
	return 1;
}

static struct tree *tree_new(struct remote *r, enum transfer_class class,
			     const struct et_collection *c, const struct remote_sink *sink)
{
	struct tree *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->p = (struct et *)r;
	t->class = class;
	t->c = c;
	t->sink = *sink;
	pthread_mutex_init(&t->lock, NULL);
	t->seen_nodes = json_object();
	return t;
}

static void tree_free(struct tree *t)
{
	json_decref(t->seen_nodes);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

int et_list_tree(struct remote *r, enum transfer_class class, const char *collection,
		 const struct remote_sink *sink)
{
	const struct et_collection *c = et_find_collection(collection);

	if (!c || c->shape == ET_UNLISTED)
		return -EINVAL;
	struct tree *t = tree_new(r, class, c, sink);
	if (!t)
		return -ENOMEM;
	int error = et_walk_start(t->p,
				  &(struct et_walk_spec){
					  .class = class,
					  .path = c->set,
					  .template = c->set,
					  .language = ET_TQL,
					  .entity = c->entity,
					  .expand = c->shape == ET_EXPANDED ? "Attachments" : NULL,
					  .top = c->shape == ET_EXPANDED ? ET_PAGE : ET_RUN_PAGE,
					  .rows = on_rows,
					  .done = tree_end,
					  .ctx = t,
				  });
	if (error < 0)
		tree_free(t);
	return error;
}

static int on_record_files(void *ctx, struct et_walk *w, const json_t *rows)
{
	struct tree *t = ctx;
	int r = take_files_locked(t, rows, t->record);

	(void)w;
	return r < 0 ? r : give(t);
}

int et_list_record(struct remote *r, enum transfer_class class, const char *collection,
		   const char *record, const struct remote_sink *sink)
{
	const struct et_collection *c = et_find_collection(collection);

	if (!c || !et_is_record(c, record))
		return -EINVAL;
	struct tree *t = tree_new(r, class, c, sink);
	if (!t)
		return -ENOMEM;
	snprintf(t->record, sizeof(t->record), "%s", record);
	int error = ask_files(t, record, class, on_record_files, tree_end, t);
	if (error < 0)
		tree_free(t);
	return error;
}
