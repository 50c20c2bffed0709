/* SPDX-License-Identifier: MIT */

/*
 * New links for expired ones (P-5), in few calls: PERSCOM presigns for an hour and allows about 100
 * calls a minute, so that a thousand reads after that hour must not become a thousand searches.
 *
 * - One search is on its way at a time (two: programs do not wait behind prefetches); who comes
 * meanwhile waits for the next one, which asks for all of them.
 * - A search for one id asks for the 199 after it as well: files are mostly read in the order of
 * their ids.
 * - What came is remembered in a small direct-mapped table. Ids count up, so neighbours do not push
 * each other out.
 */

#include "perscom.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "json.h"

#define BATCH_MAX	500
#define AHEAD		200 /* rows asked for when there is one to renew */
#define EXPIRY_MARGIN_S 10

struct perscom_renewal {
	struct perscom_renewal *next;
	char *id, *bad;
	bool fresh;
	int64_t deadline_mono_ms;
	fetch_renewed *done;
	void *ctx;
};

/* One search on its way. */
struct renewing {
	struct perscom *p;
	enum transfer_class class;
	struct perscom_renewal *batch;
};

static struct perscom_link *link_slot(struct perscom *p, const char *id)
{
	return &p->links[(unsigned long long)atoll(id) % PERSCOM_LINKS];
}

static void link_clear(struct perscom_link *link)
{
	free(link->id);
	free(link->url);
	free(link->version);
	*link = (struct perscom_link){0};
}

void perscom_links_free(struct perscom *p)
{
	for (size_t i = 0; i < PERSCOM_LINKS; i++)
		link_clear(&p->links[i]);
}

void perscom_remember(struct perscom *p, const struct remote_file *files, size_t n)
{
	pthread_mutex_lock(&p->links_lock);
	for (size_t i = 0; i < n; i++) {
		struct perscom_link *link = link_slot(p, files[i].id);
		link_clear(link);
		if (!files[i].url)
			continue;
		link->id = strdup(files[i].id);
		link->url = strdup(files[i].url);
		link->version = strdup(files[i].version);
		if (!link->id || !link->url || !link->version)
			link_clear(link);
	}
	pthread_mutex_unlock(&p->links_lock);
}

bool perscom_recall(struct perscom *p, const char *id, const char *bad, struct remote_file *f)
{
	*f = (struct remote_file){
		.size = -1, .mtime_ns = REMOTE_TIME_NONE, .ctime_ns = REMOTE_TIME_NONE};
	pthread_mutex_lock(&p->links_lock);
	const struct perscom_link *link = link_slot(p, id);
	if (link->id && strcmp(link->id, id) == 0 && (!bad || strcmp(link->url, bad) != 0)) {
		f->id = strdup(link->id);
		f->url = strdup(link->url);
		f->version = strdup(link->version);
	}
	pthread_mutex_unlock(&p->links_lock);
	if (f->id && f->url && f->version && !perscom_is_expired(p, f->url))
		return true;
	remote_file_clear(f);
	return false;
}

bool perscom_is_expired(struct perscom *p, const char *url)
{
	int64_t now_s = clock_real_ns() / CLOCK_NS_PER_S + atomic_load(&p->skew_s);
	int64_t expiry_s = perscom_url_expiry(url);

	return expiry_s != INT64_MAX && now_s >= expiry_s - EXPIRY_MARGIN_S;
}

static void renewal_end(struct perscom_renewal *w, int error, const struct remote_file *now,
			bool remembered)
{
	w->done(w->ctx, error, now, remembered);
	free(w->id);
	free(w->bad);
	free(w);
}

static int queue_of(enum transfer_class class)
{
	return class == TRANSFER_INTERACTIVE;
}

/* Up to BATCH_MAX of those who wait; none: the queue is at rest. */
static struct perscom_renewal *take_batch(struct perscom *p, int queue)
{
	pthread_mutex_lock(&p->renew_lock);
	struct perscom_renewal *batch = p->waiting[queue], **end = &p->waiting[queue];
	for (size_t n = 0; *end && n < BATCH_MAX; n++)
		end = &(*end)->next;
	p->waiting[queue] = *end;
	*end = NULL;
	if (!batch)
		p->renewing[queue] = false;
	pthread_mutex_unlock(&p->renew_lock);
	return batch;
}

/* Serve from memory who can be served; the others are left. */
static struct perscom_renewal *serve_remembered(struct perscom *p, struct perscom_renewal *batch)
{
	struct perscom_renewal *rest = NULL, **tail = &rest, *next;

	for (struct perscom_renewal *w = batch; w; w = next) {
		struct remote_file now;
		next = w->next;
		w->next = NULL;
		if (!w->fresh && perscom_recall(p, w->id, w->bad, &now)) {
			renewal_end(w, 0, &now, true);
			remote_file_clear(&now);
		} else {
			*tail = w;
			tail = &w->next;
		}
	}
	return rest;
}

static void batch_end(struct perscom_renewal *batch, int error, const struct perscom_page *page)
{
	struct perscom_renewal *next;

	for (struct perscom_renewal *w = batch; w; w = next) {
		const struct remote_file *now = NULL;
		next = w->next;
		for (size_t i = 0; error == 0 && !now && i < page->n_files; i++)
			if (strcmp(page->files[i].id, w->id) == 0)
				now = &page->files[i];
		renewal_end(w, error == 0 && !now ? -ENOENT : error, now, false);
	}
}

static void run_queue(struct perscom *p, enum transfer_class class);

static void renewing_done(void *ctx, const struct call_reply *reply)
{
	struct renewing *r = ctx;
	struct perscom_page page = {0};
	int error = reply->error;

	perscom_note_reply(r->p, reply);
	if (error == 0)
		error = perscom_decode_page(&r->p->server, reply->json, NULL, r->p->names, &page);
	if (error == 0)
		perscom_remember(r->p, page.files, page.n_files);
	batch_end(r->batch, error == -EOVERFLOW ? -EIO : error, &page);
	perscom_page_clear(&page);
	run_queue(r->p, r->class);
	free(r);
}

/*
 * The search for a batch: in a row from one id on, or these ids. The longest deadline of all
 * counts.
 */
static struct call *make_call(struct perscom *p, enum transfer_class class,
			      const struct perscom_renewal *batch)
{
	const char *ids[BATCH_MAX];
	int64_t deadline = 0;
	bool endless = false;
	size_t n = 0;

	for (const struct perscom_renewal *w = batch; w; w = w->next) {
		ids[n++] = w->id;
		endless |= w->deadline_mono_ms == 0;
		deadline = w->deadline_mono_ms > deadline ? w->deadline_mono_ms : deadline;
	}
	json_t *body = n == 1 ? perscom_body_from_id(ids[0]) : perscom_body_ids(ids, n);
	struct call *call =
		perscom_search(p, class, "attachments", "", n == 1 ? AHEAD : (unsigned)n, body);
	call_set_deadline(call, endless ? 0 : deadline);
	call_set_scope(call, "view:attachment");
	return call;
}

/* Send the next search of a queue whose turn it is; without one it comes to rest. */
static void run_queue(struct perscom *p, enum transfer_class class)
{
	struct perscom_renewal *batch;

	while ((batch = take_batch(p, queue_of(class)))) {
		batch = serve_remembered(p, batch);
		if (!batch)
			continue;
		struct renewing *r = malloc(sizeof(*r));
		int error = -ENOMEM;
		if (r) {
			*r = (struct renewing){p, class, batch};
			error = call_start(make_call(p, class, batch), renewing_done, r);
		}
		if (error == 0)
			return;
		free(r);
		batch_end(batch, error, NULL);
	}
}

static struct perscom_renewal *renewal_new(const char *id, const char *bad)
{
	struct perscom_renewal *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->id = strdup(id);
	w->bad = bad ? strdup(bad) : NULL;
	if (w->id && (w->bad || !bad))
		return w;
	free(w->id);
	free(w->bad);
	free(w);
	return NULL;
}

void perscom_renew(struct remote *r, enum transfer_class class, const char *id, const char *bad,
		   bool fresh, int64_t deadline_mono_ms, fetch_renewed *done, void *ctx)
{
	struct perscom *p = (struct perscom *)r;
	struct perscom_renewal *w = renewal_new(id, bad);
	int queue = queue_of(class);

	if (!w) {
		done(ctx, -ENOMEM, NULL, false);
		return;
	}
	w->fresh = fresh;
	w->deadline_mono_ms = deadline_mono_ms;
	w->done = done;
	w->ctx = ctx;
	pthread_mutex_lock(&p->renew_lock);
	struct perscom_renewal **end = &p->waiting[queue];
	while (*end)
		end = &(*end)->next;
	*end = w;
	bool run = !p->renewing[queue];
	p->renewing[queue] = true;
	pthread_mutex_unlock(&p->renew_lock);
	if (run)
		run_queue(p, class);
}
