/* SPDX-License-Identifier: MIT */

/*
 * Parked calls hang in a hash of wait lists. One lock guards all of it and is a leaf: nothing else
 * is taken under it but the pool's own.
 *
 * libfuse calls the interrupt function with a lock of the request held and at any time, also while
 * the request is being answered on another thread. So it is given a number, not a pointer, and
 * looks the number up among the calls that are still alive.
 *
 * Deadlines: calls are few (hundreds) and due times nearly sorted, so the timer scans the wait
 * lists at the earliest due time it knows.
 */

#include "calls.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/waiting.h>

#include "mount.h"

#define BUCKETS 1024
#define TICK_MS 1000

struct calls {
	pthread_mutex_t lock;
	pthread_cond_t timer_wake, idle;
	pthread_t timer;
	struct pool *pool;
	const int64_t timeout_ms;
	void (*tick)(void *ctx);
	void *tick_ctx;
	struct call *waiting[BUCKETS];	  /* lock: by wait and key */
	struct call *registered[BUCKETS]; /* lock: by id */
	uint64_t next_id;		  /* lock */
	int64_t next_due_ms;		  /* lock */
	unsigned parked, alive;		  /* lock */
	bool stop;			  /* lock: nothing parks any more */
	bool timer_stop;		  /* lock */
};

static size_t wait_bucket(enum call_wait wait, uint64_t key)
{
	return (key * 0x9e3779b97f4a7c15ull + (uint64_t)wait * 0x2545f491ull) >> 54;
}

static void run_job(void *ctx)
{
	struct call *c = ctx;

	c->op(c);
}

/* lock held: take it out of its wait list; it runs on the pool. */
static void wake_locked(struct calls *cs, struct call *c, int error)
{
	size_t b = wait_bucket(c->wait, c->key);

	if (c->wait_prev)
		c->wait_prev->wait_next = c->wait_next;
	else
		cs->waiting[b] = c->wait_next;
	if (c->wait_next)
		c->wait_next->wait_prev = c->wait_prev;
	c->wait_prev = c->wait_next = NULL;
	c->parked = false;
	cs->parked--;
	c->error = error;
	if (pool_run(cs->pool, run_job, c) < 0) {
		/* without memory for a job: the timer tries again */
		c->wait_next = cs->waiting[b];
		if (c->wait_next)
			c->wait_next->wait_prev = c;
		cs->waiting[b] = c;
		c->parked = true;
		c->due_ms = cs->next_due_ms = clock_mono_ms() + 50;
		cs->parked++;
	}
}

static struct call *find_locked(struct calls *cs, uint64_t id)
{
	struct call *c = cs->registered[id % BUCKETS];

	while (c && c->id != id)
		c = c->hash_next;
	return c;
}

static void on_interrupt(fuse_req_t req, void *data)
{
	struct calls *cs = mount_of_request(req)->calls;
	struct call *c;

	pthread_mutex_lock(&cs->lock);
	c = find_locked(cs, (uintptr_t)data);
	if (c) {
		c->interrupted = true;
		if (c->parked)
			wake_locked(cs, c, -EINTR);
	}
	pthread_mutex_unlock(&cs->lock);
}

static void register_call(struct calls *cs, struct call *c)
{
	pthread_mutex_lock(&cs->lock);
	c->id = ++cs->next_id;
	c->hash_next = cs->registered[c->id % BUCKETS];
	cs->registered[c->id % BUCKETS] = c;
	pthread_mutex_unlock(&cs->lock);
	fuse_req_interrupt_func(c->req, on_interrupt, (void *)(uintptr_t)c->id);
}

static void park(struct call *c, enum call_wait wait, uint64_t key, int64_t soft_ms)
{
	struct calls *cs = c->cs;
	int64_t now = clock_mono_ms();
	size_t b = wait_bucket(wait, key);

	if (!c->id)
		register_call(cs, c);
	pthread_mutex_lock(&cs->lock);
	c->wait = wait;
	c->key = key;
	c->soft = soft_ms >= 0 && now + soft_ms < c->deadline_ms;
	c->due_ms = c->soft ? now + soft_ms : c->deadline_ms;
	c->error = 0;
	c->wait_prev = NULL;
	c->wait_next = cs->waiting[b];
	if (c->wait_next)
		c->wait_next->wait_prev = c;
	cs->waiting[b] = c;
	c->parked = true;
	cs->parked++;
	if (c->interrupted || cs->stop) {
		wake_locked(cs, c, c->interrupted ? -EINTR : -ECANCELED);
	} else if (c->due_ms < cs->next_due_ms) {
		cs->next_due_ms = c->due_ms;
		pthread_cond_signal(&cs->timer_wake);
	}
	pthread_mutex_unlock(&cs->lock);
}

void call_park(struct call *c, enum call_wait wait, uint64_t key)
{
	park(c, wait, key, -1);
}

void call_park_soft(struct call *c, enum call_wait wait, uint64_t key, int64_t ms)
{
	park(c, wait, key, ms);
}

void call_park_bytes(struct call *c, uint64_t key, uint64_t off, uint64_t end)
{
	c->want_off = off;
	c->want_end = end;
	park(c, CALL_WAIT_BYTES, key, -1);
}

void call_wait_for_ever(struct call *c)
{
	c->deadline_ms = INT64_MAX;
}

void calls_wake(struct calls *cs, enum call_wait wait, uint64_t key, int error)
{
	struct call *next;

	pthread_mutex_lock(&cs->lock);
	for (struct call *c = cs->waiting[wait_bucket(wait, key)]; c; c = next) {
		next = c->wait_next;
		if (c->wait == wait && c->key == key)
			wake_locked(cs, c, error);
	}
	pthread_mutex_unlock(&cs->lock);
}

void calls_wake_bytes(struct calls *cs, uint64_t key, uint64_t off, uint64_t end, int error)
{
	struct call *next;

	pthread_mutex_lock(&cs->lock);
	for (struct call *c = cs->waiting[wait_bucket(CALL_WAIT_BYTES, key)]; c; c = next) {
		next = c->wait_next;
		if (c->wait != CALL_WAIT_BYTES || c->key != key || c->want_off < off ||
		    c->want_off >= end)
			continue;
		if (error || c->want_end <= end)
			wake_locked(cs, c, error);
	}
	pthread_mutex_unlock(&cs->lock);
}

bool calls_wanted(struct calls *cs, uint64_t key, uint64_t off, uint64_t end)
{
	bool wanted = false;

	pthread_mutex_lock(&cs->lock);
	for (struct call *c = cs->waiting[wait_bucket(CALL_WAIT_BYTES, key)]; c && !wanted;
	     c = c->wait_next)
		wanted = c->wait == CALL_WAIT_BYTES && c->key == key && c->want_off >= off &&
			 c->want_off < end;
	pthread_mutex_unlock(&cs->lock);
	return wanted;
}

unsigned calls_parked(struct calls *cs)
{
	unsigned n;

	pthread_mutex_lock(&cs->lock);
	n = cs->parked;
	pthread_mutex_unlock(&cs->lock);
	return n;
}

/* ---- life of a call ---- */

void call_run(struct calls *cs, const struct call *args)
{
	struct call *c = malloc(sizeof(*c));
	char *name = args->name ? strdup(args->name) : NULL;

	if (!c || (args->name && !name)) {
		free(c);
		free(name);
		free(args->data);
		fuse_reply_err(args->req, ENOMEM);
		return;
	}
	*c = *args;
	c->name = name;
	c->cs = cs;
	c->deadline_ms = clock_mono_ms() + cs->timeout_ms;
	pthread_mutex_lock(&cs->lock);
	cs->alive++;
	pthread_mutex_unlock(&cs->lock);
	c->op(c);
}

void call_done(struct call *c)
{
	struct calls *cs = c->cs;

	pthread_mutex_lock(&cs->lock);
	if (c->id) {
		struct call **slot = &cs->registered[c->id % BUCKETS];

		while (*slot != c)
			slot = &(*slot)->hash_next;
		*slot = c->hash_next;
	}
	if (!--cs->alive)
		pthread_cond_broadcast(&cs->idle);
	pthread_mutex_unlock(&cs->lock);
	free(c->name);
	free(c->data);
	free(c);
}

void call_fail(struct call *c, int error)
{
	fuse_reply_err(c->req, error < 0 ? -error : error);
	call_done(c);
}

/* ---- the timer ---- */

static void run_due_locked(struct calls *cs, int64_t now)
{
	cs->next_due_ms = INT64_MAX;
	for (size_t b = 0; b < BUCKETS; b++) {
		struct call *next;

		for (struct call *c = cs->waiting[b]; c; c = next) {
			next = c->wait_next;
			if (c->due_ms <= now)
				wake_locked(cs, c, c->soft ? 0 : -ETIMEDOUT);
			else if (c->due_ms < cs->next_due_ms)
				cs->next_due_ms = c->due_ms;
		}
	}
}

static void wait_until(struct calls *cs, int64_t mono_ms)
{
	struct timespec ts;
	int64_t wait_ms = mono_ms - clock_mono_ms();

	if (wait_ms <= 0)
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += wait_ms / 1000;
	ts.tv_nsec += wait_ms % 1000 * 1000000;
	if (ts.tv_nsec >= CLOCK_NS_PER_S) {
		ts.tv_sec++;
		ts.tv_nsec -= CLOCK_NS_PER_S;
	}
	pthread_cond_timedwait(&cs->timer_wake, &cs->lock, &ts);
}

static void *timer_main(void *arg)
{
	struct calls *cs = arg;
	int64_t next_tick = clock_mono_ms() + TICK_MS;

	waiting_forbid("the timer's thread");
	pthread_mutex_lock(&cs->lock);
	while (!cs->timer_stop) {
		int64_t now = clock_mono_ms();

		if (now >= cs->next_due_ms)
			run_due_locked(cs, now);
		if (now >= next_tick) {
			next_tick = now + TICK_MS;
			pthread_mutex_unlock(&cs->lock);
			cs->tick(cs->tick_ctx);
			pthread_mutex_lock(&cs->lock);
			continue;
		}
		wait_until(cs, next_tick < cs->next_due_ms ? next_tick : cs->next_due_ms);
	}
	pthread_mutex_unlock(&cs->lock);
	return NULL;
}

int calls_new(struct pool *pool, int64_t timeout_ms, void (*tick)(void *ctx), void *ctx,
	      struct calls **ret_calls)
{
	struct calls *cs = calloc(1, sizeof(*cs));
	pthread_condattr_t attr;
	int r;

	if (!cs)
		return -ENOMEM;
	memcpy(cs,
	       &(struct calls){.pool = pool,
			       .timeout_ms = timeout_ms,
			       .tick = tick,
			       .tick_ctx = ctx,
			       .next_due_ms = INT64_MAX},
	       sizeof(*cs));
	pthread_mutex_init(&cs->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&cs->timer_wake, &attr);
	pthread_condattr_destroy(&attr);
	pthread_cond_init(&cs->idle, NULL);
	r = pthread_create(&cs->timer, NULL, timer_main, cs);
	if (r) {
		free(cs);
		return -r;
	}
	pthread_setname_np(cs->timer, "attachfs-timer");
	*ret_calls = cs;
	return 0;
}

void calls_stop(struct calls *cs)
{
	if (!cs)
		return;
	pthread_mutex_lock(&cs->lock);
	cs->stop = true;
	for (size_t b = 0; b < BUCKETS; b++)
		while (cs->waiting[b])
			wake_locked(cs, cs->waiting[b], -ECANCELED);
	while (cs->alive)
		pthread_cond_wait(&cs->idle, &cs->lock);
	cs->timer_stop = true;
	pthread_cond_signal(&cs->timer_wake);
	pthread_mutex_unlock(&cs->lock);
	pthread_join(cs->timer, NULL);
}

void calls_free(struct calls *cs)
{
	if (!cs)
		return;
	pthread_cond_destroy(&cs->timer_wake);
	pthread_cond_destroy(&cs->idle);
	pthread_mutex_destroy(&cs->lock);
	free(cs);
}
