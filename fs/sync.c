/* SPDX-License-Identifier: MIT */

/*
 * When to send what. The thread sleeps until something changes or settles, builds the plan's view
 * of the sync list, and starts what the plan allows. A burst of changes is planned once: after a
 * plan the thread rests for a few times as long as the plan took.
 */

#include "sync.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/names.h>
#include <attachfs/waiting.h>

#include "crashpoint.h"
#include "sync_private.h"

#define IDLE_SLEEP_MS	  60000
#define REST_MS		  10
#define MAX_UPLOADS	  256 /* files */
#define CHANGES_THROTTLED 4
#define TELL_MOST	  5 /* names of what is left at the end */

void sync_wake(struct sync *s)
{
	pthread_mutex_lock(&s->lock);
	s->woken = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

/*
 * Something changed. Every program that writes comes here at each of its calls, and nothing of it is
 * due before it has settled: one look then is early enough for all that changed in between.
 */
static void wake_from_tree(void *ctx)
{
	struct sync *s = ctx;

	if (!s->grace_ms) {
		sync_wake(s);
		return;
	}
	pthread_mutex_lock(&s->lock);
	if (!s->soon_ms && !s->woken) {
		s->soon_ms = clock_mono_ms() + s->grace_ms;
		pthread_cond_signal(&s->wake);
	}
	pthread_mutex_unlock(&s->lock);
}

static int64_t grace_ms(const struct options *o)
{
	int64_t settle_ms = (int64_t)(o->settle_s * 1000);

	if (o->write == OPTIONS_WRITE_THROUGH)
		return 0;
	return settle_ms < SYNC_NAME_IDLE_MS ? settle_ms : SYNC_NAME_IDLE_MS;
}

/* ---- doing it ---- */

struct todo {
	struct batch *batches[256];
	size_t n_batches;
	uint64_t looks[64], fetches[64];
	uint64_t first_look; /* the number of looks[0] */
	size_t n_looks, n_fetches;
	struct verify *verifies[64];
	size_t n_verifies;
	bool again;
};

static void take_local(struct sync *s, const struct plan *p, const struct plan_call *call,
		       const struct sync_view *v, bool *again)
{
	for (size_t i = call->first; i < call->first + call->n; i++) {
		const struct plan_entry *e = &p->entries[i];

		if (call->kind == PLAN_FORGET)
			sync_forget_locked(s, v->nodes[e->item]);
		else if (sync_adopt_locked(s, v->nodes[e->item], v->nodes[e->other]) < 0)
			sync_back_off_locked(s, v->nodes[e->item]);
		else
			*again = true; /* what the rest of the plan was made from has changed */
	}
}

static void mark_busy(struct sync *s, struct node *n)
{
	n->busy = true;
	s->in_flight++;
}

static void take_look(struct sync *s, const struct plan *p, const struct plan_call *call,
		      const struct sync_view *v, struct todo *todo)
{
	const struct node *first = v->nodes[p->entries[call->first].item];

	if (todo->n_looks == sizeof(todo->looks) / sizeof(todo->looks[0]))
		return;
	todo->looks[todo->n_looks++] = sync_look_record(first);
	s->last_look++;
	if (todo->n_looks == 1)
		todo->first_look = s->last_look;
	for (size_t i = call->first; i < call->first + call->n; i++) {
		struct node *n = v->nodes[p->entries[i].item];

		mark_busy(s, n);
		node_more(n)->look = s->last_look;
	}
}

static void take_verify(struct sync *s, const struct plan *p, const struct plan_call *call,
			const struct sync_view *v, struct todo *todo)
{
	const struct plan_item *it = &v->items[p->entries[call->first].item];
	struct verify *verify;

	if (todo->n_verifies == sizeof(todo->verifies) / sizeof(todo->verifies[0]))
		return;
	verify = verify_new_locked(s, plan_stale_record(it), call->n);
	if (!verify)
		return;
	for (size_t i = call->first; i < call->first + call->n; i++)
		verify_add_locked(verify, v->nodes[p->entries[i].item]->id);
	todo->verifies[todo->n_verifies++] = verify;
}

/* More would only wait in the engine's queue; where a call carries many files, 16 full ones. */
static unsigned max_uploads(const struct sync *s)
{
	unsigned many = 16 * s->m->remote->caps.batch_create;

	return many > MAX_UPLOADS ? many : MAX_UPLOADS;
}

/*
 * What rests on a look at the server (sync_verify.c) is not to wait for a rate limit after it: only as
 * many calls as go now, or a few where they go one by one.
 */
static bool has_room_for_changes(const struct sync *s)
{
	unsigned changing = atomic_load(&s->changing);

	return changing < CHANGES_THROTTLED || changing < engine_get_room(s->m->engine);
}

static void take_call(struct sync *s, const struct plan *p, const struct plan_call *call,
		      const struct sync_view *v, struct todo *todo)
{
	switch (call->kind) {
	case PLAN_FORGET:
	case PLAN_ADOPT:
		take_local(s, p, call, v, &todo->again);
		return;
	case PLAN_LOOK:
		take_look(s, p, call, v, todo);
		return;
	case PLAN_VERIFY:
		take_verify(s, p, call, v, todo);
		return;
	case PLAN_FETCH:
		if (todo->n_fetches < sizeof(todo->fetches) / sizeof(todo->fetches[0])) {
			mark_busy(s, v->nodes[p->entries[call->first].item]);
			todo->fetches[todo->n_fetches++] =
				v->nodes[p->entries[call->first].item]->id;
		}
		return;
	case PLAN_CREATE:
	case PLAN_REPLACE:
	case PLAN_UPDATE:
	case PLAN_REMOVE:
	case PLAN_UPDATE_RECORDS:
		break;
	}
	if (todo->n_batches == sizeof(todo->batches) / sizeof(todo->batches[0]) ||
	    (sync_is_upload(call->kind) && s->uploads >= max_uploads(s)) ||
	    (sync_rests_on_look(call->kind) && !has_room_for_changes(s)))
		return; /* the next plan has it again */
	todo->batches[todo->n_batches] = batch_new_locked(s, p, call, v->nodes);
	if (!todo->batches[todo->n_batches])
		return;
	todo->n_batches++;
	if (sync_is_upload(call->kind))
		s->uploads += (unsigned)call->n;
}

/*
 * What is in flight is known to be in flight before it flies. Of uploads also after a power failure:
 * one that was forgotten would be sent a second time, or taken for somebody else's change.
 */
static int commit_todo(struct sync *s, const struct todo *todo)
{
	bool uploads = false;

	for (size_t i = 0; i < todo->n_batches; i++) {
		crash_point_of("planned", batch_kind(todo->batches[i]));
		uploads |= sync_is_upload(todo->batches[i]->kind);
	}
	return uploads ? ledger_sync(s->m->ledger) : ledger_commit(s->m->ledger);
}

static void do_todo(struct sync *s, struct todo *todo)
{
	if (todo->n_batches && commit_todo(s, todo) < 0) {
		for (size_t i = 0; i < todo->n_batches; i++)
			batch_put_off(todo->batches[i]);
		todo->n_batches = 0;
	}
	for (size_t i = 0; i < todo->n_verifies; i++)
		verify_send(todo->verifies[i]);
	for (size_t i = 0; i < todo->n_looks; i++)
		sync_look(s, todo->looks[i], todo->first_look + i);
	for (size_t i = 0; i < todo->n_fetches; i++)
		sync_fetch(s, todo->fetches[i]);
	for (size_t i = 0; i < todo->n_batches; i++)
		batch_send(todo->batches[i]);
}

/*
 * The server takes the credentials no more (or is not paid any more), or cannot be reached: what
 * waits would only be refused, each with all its bytes, or fail. Where programs wait for the answer,
 * each gets one.
 */
static bool is_in_vain(const struct sync *s)
{
	const struct options *o = s->m->options;
	char message[256];

	if (o->write == OPTIONS_WRITE_THROUGH || o->fsync == OPTIONS_FSYNC_REMOTE)
		return false;
	return engine_get_state(s->m->engine, NULL) == ENGINE_OFFLINE ||
	       remote_get_auth(s->m->remote, message) == REMOTE_AUTH_FAILED;
}

/* When something may be tried again, INT64_MAX = when what is on its way is over. tree->lock held. */
static int64_t try_again_at_locked(struct sync *s, bool in_vain)
{
	if (in_vain)
		return s->in_flight ? INT64_MAX : s->ask_again_ms;
	s->tries_in_vain = 0;
	s->ask_again_ms = 0;
	return 0;
}

static bool has_any(const struct todo *todo)
{
	return todo->n_batches || todo->n_looks || todo->n_fetches || todo->n_verifies;
}

static void note_try_locked(struct sync *s)
{
	s->random = s->random * 1664525u + 1013904223u;
	s->ask_again_ms = clock_mono_ms() + sync_back_off_ms(s->tries_in_vain++, s->random >> 8);
}

static bool is_local(enum plan_kind kind)
{
	return kind == PLAN_FORGET || kind == PLAN_ADOPT;
}

/* What of the plan is done now. Returns when the rest may be tried. tree->lock held. */
static int64_t take_calls(struct sync *s, const struct plan *p, const struct sync_view *v,
			  bool in_vain, struct todo *todo)
{
	int64_t at_ms = try_again_at_locked(s, in_vain), next_ms = INT64_MAX;
	bool wait = at_ms > clock_mono_ms();

	for (size_t i = 0; i < p->n_calls; i++) {
		enum plan_kind kind = p->calls[i].kind;

		/* adoption changes what the rest of the plan was made from */
		if (todo->again && kind != PLAN_ADOPT)
			break;
		if (in_vain && !is_local(kind) && (wait || has_any(todo)))
			next_ms = at_ms;
		else
			take_call(s, p, &p->calls[i], v, todo);
	}
	if (!in_vain || !has_any(todo))
		return next_ms;
	note_try_locked(s);
	return INT64_MAX;
}

int64_t sync_plan(struct sync *s)
{
	struct tree *t = s->m->tree;
	bool in_vain = is_in_vain(s);
	int64_t next_ms = INT64_MAX;
	struct sync_view v;
	struct plan plan = {0};
	struct todo todo = {0};
	int r;

	tree_lock(t);
	tree_put_touched_locked(t);
	r = t->n_sync ? sync_view_build(s, &v) : (v = (struct sync_view){.next_ms = INT64_MAX}, 0);
	if (!r && v.n)
		r = plan_make(&s->m->remote->caps, v.items, v.n, &plan);
	if (!r)
		next_ms = take_calls(s, &plan, &v, in_vain, &todo);
	todo.n_verifies = verify_merge_locked(todo.verifies, todo.n_verifies);
	s->held_at =
		!r && !plan.n_calls && !s->in_flight && v.next_ms == INT64_MAX ? t->changes : 0;
	tree_unlock(t);
	plan_clear(&plan);
	sync_view_clear(&v);
	do_todo(s, &todo);
	if (r < 0) {
		log_errno(r, "sync: cannot plan");
		return clock_mono_ms() + 1000;
	}
	return todo.again ? 0 : next_ms < v.next_ms ? next_ms : v.next_ms;
}

static void sleep_until(struct sync *s, int64_t mono_ms)
{
	struct timespec ts;
	int64_t ms = mono_ms - clock_mono_ms();

	if (ms > IDLE_SLEEP_MS)
		ms = IDLE_SLEEP_MS;
	if (ms <= 0)
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += ms % 1000 * 1000000;
	if (ts.tv_nsec >= CLOCK_NS_PER_S) {
		ts.tv_sec++;
		ts.tv_nsec -= CLOCK_NS_PER_S;
	}
	pthread_cond_timedwait(&s->wake, &s->lock, &ts);
}

static void rest(int64_t planned_ms)
{
	int64_t ms = REST_MS + 4 * planned_ms;
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&ts, NULL);
}

static void *sync_main(void *arg)
{
	struct sync *s = arg;
	int64_t next_ms = 0;

	waiting_forbid("the thread that plans what is sent");
	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		int64_t began, until = s->soon_ms && s->soon_ms < next_ms ? s->soon_ms : next_ms;

		if (!s->woken && until > clock_mono_ms()) {
			sleep_until(s, until);
			continue;
		}
		s->woken = false;
		s->soon_ms = 0;
		pthread_mutex_unlock(&s->lock);
		began = clock_mono_ms();
		next_ms = sync_plan(s);
		rest(clock_mono_ms() - began);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- life ---- */

int sync_new(struct mount *m, struct sync **ret_sync)
{
	struct sync *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return -ENOMEM;
	s->m = m;
	s->grace_ms = grace_ms(m->options);
	s->flush_ms = 0;
	s->random = (uint32_t)clock_real_ns() | 1;
	s->next_token = (uint64_t)clock_real_ns();
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	tree_lock(m->tree);
	m->tree->sync_wake = wake_from_tree;
	m->tree->sync_ctx = s;
	tree_unlock(m->tree);
	*ret_sync = s;
	return 0;
}

int sync_start(struct sync *s)
{
	int r = pthread_create(&s->thread, NULL, sync_main, s);

	if (r)
		return -r;
	pthread_setname_np(s->thread, "attachfs-sync");
	s->started = true;
	return 0;
}

/*
 * Whether waiting until @end_ms could help: the server takes calls, and something is on its way, or
 * is not backing off after a failure.
 */
static bool may_still_send(struct sync *s, int64_t end_ms)
{
	int64_t now = clock_mono_ms(), until_ns = 0;
	enum engine_state state = engine_get_state(s->m->engine, &until_ns);
	bool may, in_vain = is_in_vain(s);

	if (state == ENGINE_OFFLINE ||
	    (state == ENGINE_THROTTLED &&
	     until_ns - clock_real_ns() >= (end_ms - now) * (CLOCK_NS_PER_S / 1000)))
		return false;
	tree_lock(s->m->tree);
	may = s->in_flight > 0;
	for (const struct node *n = s->m->tree->sync_first;
	     n && !may && !in_vain && !sync_is_held_locked(s); n = n->more->sync_next)
		may = sync_what_differs(n) && !n->error && !node_being_written(n) &&
		      (n->more->retry_at_ms <= now ||
		       (n->unknown && n->looked && n->more->retry_at_ms < end_ms));
	tree_unlock(s->m->tree);
	return may;
}

void sync_stop(struct sync *s, int64_t drain_ms)
{
	int64_t end_ms = clock_mono_ms() + drain_ms;
	struct sync_counts c;

	if (!s || !s->started)
		return;
	tree_lock(s->m->tree);
	s->draining = true;
	s->held_at = 0;
	for (struct node *n = s->m->tree->sync_first; n; n = n->more->sync_next)
		if (!n->unknown || !n->looked)
			node_more(n)->retry_at_ms = 0; /* one more try for all */
	tree_unlock(s->m->tree);
	for (;;) {
		struct timespec pause = {.tv_nsec = 20 * 1000000};

		sync_get_counts(s, &c);
		if (sync_is_idle(&c) || clock_mono_ms() >= end_ms || !may_still_send(s, end_ms))
			break;
		sync_wake(s);
		nanosleep(&pause, NULL);
	}
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	s->started = false;
	sync_tell_left(s, &c);
}

void sync_free(struct sync *s)
{
	if (!s)
		return;
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void sync_flush(struct sync *s)
{
	tree_lock(s->m->tree);
	s->flush_ms = clock_mono_ms();
	s->held_at = 0;
	s->ask_again_ms = 0;
	tree_unlock(s->m->tree);
	sync_wake(s);
}

unsigned sync_retry(struct sync *s, uint64_t node)
{
	unsigned count = 0;

	tree_lock(s->m->tree);
	s->held_at = 0;
	s->ask_again_ms = 0;
	for (struct node *n = s->m->tree->sync_first; n; n = n->more->sync_next) {
		if (node && n->id != node)
			continue;
		if (n->error)
			count++;
		n->error = 0;
		node_more(n)->retry_at_ms = 0;
		node_more(n)->tries = 0;
		tree_put_locked(s->m->tree, n);
	}
	tree_unlock(s->m->tree);
	sync_wake(s);
	return count;
}

void sync_try_again(struct sync *s, int error)
{
	tree_lock(s->m->tree);
	s->held_at = 0;
	s->ask_again_ms = 0;
	for (struct node *n = s->m->tree->sync_first; n; n = n->more->sync_next) {
		/* what may arrive yet is waited for, whoever is back */
		if ((n->error && n->error != error) || (n->unknown && n->looked))
			continue;
		n->error = 0;
		node_more(n)->retry_at_ms = 0;
		node_more(n)->tries = 0;
		tree_put_locked(s->m->tree, n);
	}
	tree_unlock(s->m->tree);
	sync_wake(s);
}
