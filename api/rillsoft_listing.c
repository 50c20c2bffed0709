/* SPDX-License-Identifier: MIT */

/*
 * The list of a project's documents, the only bulk read there is: without paging, and the only
 * witness of what a write did. It is asked for once for all who want it at a time:
 *
 *	IDLE     nobody waits                       want: RUNNING
 *	RUNNING  one request is on its way          want: those who may have what it brings wait for it,
 *	                                            the others for the next
 *	         its answer came                    somebody waits for the next: RUNNING; else IDLE
 *
 * There is such a slot for each project, or one for all where the server ignores the selector, which
 * shows in its answers: documents of other projects. Then one answer serves all projects it names, for
 * two seconds: one to a list_tree those of other projects, one to a poll the polls of others, and where
 * a poll saw a change the list_tree that follows. Each sees it once for each project: whoever asks again
 * wants to know what is there now.
 *
 * Requests and writes are numbered: an answer tells of a write if it was asked for after it.
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/pool.h>

#define SHARED_MS 2000
#define KNOWN_MS  90000 /* a poll of 60 s keeps it known */
/* There is no paging: a project with all that the vendor's own client bears has some MiB. */
#define LISTING_MAX ((size_t)256 << 20)

/* To which op and for which project a listing has been shown. */
struct rillsoft_given {
	size_t n, size;
	struct {
		char project[RILLSOFT_ID_SIZE];
		enum rillsoft_need to;
	} at[];
};

struct rillsoft_slot {
	struct rillsoft_slot *next; /* all below: lock */
	struct rillsoft *ris;
	char project[RILLSOFT_ID_SIZE]; /* "" = all */
	struct rillsoft_listing *last;
	struct rillsoft_wait *queue; /* for the next request */
	struct rillsoft_wait *waits; /* for the one under way */
	bool running;
	int error; /* the request could not be started */
	/* of the request under way */
	unsigned long seq;
	int64_t at_ms;
	char asked[RILLSOFT_ID_SIZE];
	enum transfer_class class;
};

static bool is_given_locked(const struct rillsoft_listing *l, const char *project,
			    enum rillsoft_need to)
{
	for (size_t i = 0; l->given && i < l->given->n; i++)
		if (l->given->at[i].to == to && strcmp(l->given->at[i].project, project) == 0)
			return true;
	return false;
}

/* Without memory it is shown once more: no harm. */
static void give_locked(struct rillsoft_listing *l, const char *project, enum rillsoft_need to)
{
	struct rillsoft_given *g = l->given;

	if (to == RILLSOFT_FRESH || to == RILLSOFT_KNOWN || is_given_locked(l, project, to))
		return;
	if (!g || g->n == g->size) {
		size_t n = g ? g->n : 0, size = n ? 2 * n : 4;
		g = realloc(g, sizeof(*g) + size * sizeof(g->at[0]));
		if (!g)
			return;
		g->n = n;
		g->size = size;
		l->given = g;
	}
	snprintf(g->at[g->n].project, sizeof(g->at[0].project), "%s", project);
	g->at[g->n++].to = to;
}

/* Whether a listing that is there already will do. */
static bool will_do_locked(const struct rillsoft *ris, const struct rillsoft_listing *l,
			   const char *project, enum rillsoft_need need)
{
	int64_t age_ms = clock_mono_ms() - l->at_ms;

	if (need == RILLSOFT_FRESH || !rillsoft_covers(l, project))
		return false;
	if (need == RILLSOFT_KNOWN)
		return age_ms <= KNOWN_MS && l->seq > ris->doubt_seq;
	if (age_ms > SHARED_MS || l->seq <= ris->write_seq || is_given_locked(l, project, need))
		return false;
	return (l->needs & 1u << need) != 0 ||
	       (need == RILLSOFT_TREE && is_given_locked(l, project, RILLSOFT_OFFER));
}

static struct rillsoft_listing *find_listing_locked(struct rillsoft *ris, const char *project,
						    enum rillsoft_need need)
{
	struct rillsoft_listing *best = NULL;

	for (struct rillsoft_slot *s = ris->slots; s; s = s->next)
		if (s->last && (!best || s->last->seq > best->seq) &&
		    will_do_locked(ris, s->last, project, need))
			best = s->last;
	return best;
}

/* NULL without memory. */
static struct rillsoft_slot *get_slot_locked(struct rillsoft *ris, const char *project)
{
	const char *key = ris->shared || !ris->selects ? "" : project;
	struct rillsoft_slot *s = ris->slots;

	while (s && strcmp(s->project, key) != 0)
		s = s->next;
	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->ris = ris;
	snprintf(s->project, sizeof(s->project), "%s", key);
	s->next = ris->slots;
	ris->slots = s;
	return s;
}

/* Those in the queue are asked for now; false: there are none, or a request is under way. */
static bool begin_run_locked(struct rillsoft_slot *s)
{
	if (s->running || !s->queue)
		return false;
	s->running = true;
	s->waits = s->queue;
	s->queue = NULL;
	s->seq = ++s->ris->seq;
	s->at_ms = clock_mono_ms();
	s->class = s->waits->class;
	memcpy(s->asked, s->waits->project, sizeof(s->asked));
	for (const struct rillsoft_wait *w = s->waits; w; w = w->next)
		s->class = w->class < s->class ? w->class : s->class;
	return true;
}

static void on_listing(void *ctx, const struct call_reply *reply);

static void on_not_started(void *ctx)
{
	struct rillsoft_slot *s = ctx;
	struct call_reply reply = {.error = s->error, .message = "not sent"};

	on_listing(s, &reply);
}

static void send_run(struct rillsoft_slot *s)
{
	struct rillsoft *ris = s->ris;
	struct rillsoft_ids ids = {.cid = ris->client, .pid = s->asked};
	struct call *call = rillsoft_call(ris, s->class, "GET", RILLSOFT_DOCUMENTS, &ids, "");

	call_set_idempotent(call, true);
	call_set_max_body(call, LISTING_MAX);
	call_set_scope(call, "Read documents");
	int r = call_start(call, on_listing, s);
	/* Once it is started, the slot may be at its next request already. */
	if (r == 0)
		return;
	s->error = r;
	if (pool_run(ris->base.pool, on_not_started, s) < 0)
		on_not_started(s);
}

/* Whether what the request under way brings will do, which began before this was asked. */
static bool may_join_locked(const struct rillsoft_slot *s, const struct rillsoft_wait *wait)
{
	if (!s->running || wait->need == RILLSOFT_FRESH || s->seq <= s->ris->write_seq)
		return false;
	bool same = wait->need == RILLSOFT_KNOWN && s->seq > s->ris->doubt_seq;
	for (const struct rillsoft_wait *w = s->waits; w && wait->need != RILLSOFT_KNOWN;
	     w = w->next) {
		same |= w->need == wait->need;
		if (w->need == wait->need && strcmp(w->project, wait->project) == 0)
			return false;
	}
	return same;
}

/*
 * Add @wait to the request of its project's slot that is under way, where it may have what that
 * brings, or to the next one; the slot to be sent, or NULL.
 */
static struct rillsoft_slot *enqueue_locked(struct rillsoft *ris, struct rillsoft_wait *wait)
{
	struct rillsoft_slot *s = get_slot_locked(ris, wait->project);

	if (!s) {
		wait->error = -ENOMEM;
		return NULL;
	}
	if (may_join_locked(s, wait)) {
		wait->next = s->waits;
		s->waits = wait;
		return NULL;
	}
	wait->next = s->queue;
	s->queue = wait;
	return begin_run_locked(s) ? s : NULL;
}

static void deliver(struct rillsoft_wait *wait, const char *message)
{
	struct rillsoft_listing *l = wait->listing;

	wait->listing = NULL;
	wait->done(wait->ctx, wait->error, l, message);
	/* From here on it may be gone. */
	rillsoft_listing_unref(l);
}

static void deliver_job(void *ctx)
{
	deliver(ctx, "out of memory");
}

/* Who may have the new listing gets it; who waited for another project asks again, alone. */
static struct rillsoft_wait *sort_waits_locked(struct rillsoft_slot *s, struct rillsoft_listing *l,
					       int error, struct rillsoft_wait **ret_again)
{
	struct rillsoft_wait *ready = NULL, *next;

	for (struct rillsoft_wait *w = s->waits; w; w = next) {
		next = w->next;
		bool fits = !l || rillsoft_covers(l, w->project);
		struct rillsoft_wait **to = fits ? &ready : ret_again;
		w->error = error;
		w->listing = fits ? rillsoft_listing_ref(l) : NULL;
		if (w->listing) {
			l->needs |= 1u << w->need;
			give_locked(l, w->project, w->need);
		}
		w->next = *to;
		*to = w;
	}
	s->waits = NULL;
	return ready;
}

static void keep_listing_locked(struct rillsoft_slot *s, struct rillsoft_listing *l,
				struct rillsoft_listing **ret_old)
{
	if (l->foreign && !s->ris->shared && s->ris->selects)
		log_debug("rillsoft: the list of documents is not only of project %s", l->asked);
	s->ris->shared = l->foreign;
	*ret_old = s->last;
	s->last = rillsoft_listing_ref(l);
}

static void finish_run(struct rillsoft_slot *s, int error, struct rillsoft_listing *l,
		       const char *message)
{
	struct rillsoft *ris = s->ris;
	struct rillsoft_wait *again = NULL, *next;
	struct rillsoft_listing *old = NULL;

	pthread_mutex_lock(&ris->lock);
	if (l)
		keep_listing_locked(s, l, &old);
	struct rillsoft_wait *ready = sort_waits_locked(s, l, error, &again);
	s->running = false;
	bool send = begin_run_locked(s);
	pthread_mutex_unlock(&ris->lock);
	rillsoft_listing_unref(old);
	if (send)
		send_run(s);
	for (; again; again = next) {
		next = again->next;
		rillsoft_want(ris, again, again->class, again->project, RILLSOFT_FRESH, again->done,
			      again->ctx);
	}
	for (; ready; ready = next) {
		next = ready->next;
		deliver(ready, message);
	}
}

static void on_listing(void *ctx, const struct call_reply *reply)
{
	struct rillsoft_slot *s = ctx;
	struct rillsoft_listing *l = NULL;
	const char *message = reply->message;
	char words[CALL_MESSAGE_MAX];
	int r = reply->error;

	if (r == 0) {
		r = rillsoft_decode_listing(reply->json, s->asked, &l);
		message = r == -EIO ? "the answer is not what Rillsoft sends: no list of documents"
				    : message;
	}
	if (reply->status == 400 || reply->status == 404 || reply->status == 410) {
		/* That a project is gone is for the list of projects to say. */
		snprintf(words, sizeof(words),
			 "%.120s; the server may list documents elsewhere, or want another query: "
			 "template_documents=",
			 reply->message);
		message = words;
		r = -EIO;
	}
	if (r == -EOVERFLOW)
		r = -EIO;
	if (l) {
		l->seq = s->seq;
		l->at_ms = s->at_ms;
		l->all = !s->ris->selects;
	}
	if (r < 0 && r != -ECANCELED && r != -EACCES && r != -EHOSTDOWN && r != -ETIMEDOUT)
		log_errno(r, "rillsoft: list project %s: %s", s->asked, message);
	finish_run(s, r, l, message);
	rillsoft_listing_unref(l);
}

void rillsoft_want(struct rillsoft *ris, struct rillsoft_wait *wait, enum transfer_class class,
		   const char *project, enum rillsoft_need need,
		   void (*done)(void *ctx, int error, struct rillsoft_listing *l,
				const char *message),
		   void *ctx)
{
	struct rillsoft_slot *send = NULL;
	char id[RILLSOFT_ID_SIZE];

	snprintf(id, sizeof(id), "%s", project); /* it may be the wait's own */
	*wait = (struct rillsoft_wait){
		.ris = ris, .class = class, .need = need, .done = done, .ctx = ctx};
	memcpy(wait->project, id, sizeof(id));
	pthread_mutex_lock(&ris->lock);
	wait->listing = rillsoft_listing_ref(find_listing_locked(ris, id, need));
	if (wait->listing)
		give_locked(wait->listing, id, need);
	else
		send = enqueue_locked(ris, wait);
	bool ready = wait->listing || wait->error < 0;
	pthread_mutex_unlock(&ris->lock);
	if (send)
		send_run(send);
	else if (ready && pool_run(ris->base.pool, deliver_job, wait) < 0)
		deliver(wait, "out of memory");
}

void rillsoft_note_write(struct rillsoft *ris)
{
	pthread_mutex_lock(&ris->lock);
	ris->write_seq = ++ris->seq;
	pthread_mutex_unlock(&ris->lock);
}

void rillsoft_offer(struct rillsoft *ris, struct rillsoft_listing *l, const char *project)
{
	pthread_mutex_lock(&ris->lock);
	give_locked(l, project, RILLSOFT_OFFER);
	pthread_mutex_unlock(&ris->lock);
}

bool rillsoft_find_project(struct rillsoft *ris, const char *id, char out[RILLSOFT_ID_SIZE])
{
	const struct rillsoft_doc *doc = NULL;

	pthread_mutex_lock(&ris->lock);
	for (struct rillsoft_slot *s = ris->slots; s && !doc; s = s->next)
		doc = rillsoft_find_doc(s->last, id);
	if (doc)
		memcpy(out, doc->project, RILLSOFT_ID_SIZE);
	pthread_mutex_unlock(&ris->lock);
	return doc;
}

void rillsoft_slots_free(struct rillsoft *ris)
{
	while (ris->slots) {
		struct rillsoft_slot *next = ris->slots->next;
		rillsoft_listing_unref(ris->slots->last);
		free(ris->slots);
		ris->slots = next;
	}
}
