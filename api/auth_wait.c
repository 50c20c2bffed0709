/* SPDX-License-Identifier: MIT */

/*
 * The watcher sleeps until the nearest deadline and ends when nobody with one is left. That it may
 * be started again as soon as it has said so, its successor joins it: it has then nothing to do but
 * return.
 */

#include "auth_wait.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include <attachfs/clock.h>

struct auth_wait {
	struct auth_wait *next;
	int64_t deadline_mono_ms; /* 0 = none */
	auth_done *done;
	void *ctx;
};

void auth_waits_init(struct auth_waits *w, pthread_mutex_t *lock)
{
	pthread_condattr_t attr;

	*w = (struct auth_waits){.lock = lock};
	w->last = &w->first;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
}

void auth_waits_stop(struct auth_waits *w)
{
	pthread_mutex_lock(w->lock);
	bool joinable = w->joinable;
	pthread_t watcher = w->watcher;
	w->joinable = false;
	pthread_mutex_unlock(w->lock);
	if (joinable)
		pthread_join(watcher, NULL);
}

void auth_waits_clear(struct auth_waits *w)
{
	pthread_cond_destroy(&w->changed);
}

/* 0 = nobody with a deadline waits. */
static int64_t nearest_locked(const struct auth_waits *w)
{
	int64_t nearest = 0;

	for (const struct auth_wait *i = w->first; i; i = i->next)
		if (i->deadline_mono_ms && (!nearest || i->deadline_mono_ms < nearest))
			nearest = i->deadline_mono_ms;
	return nearest;
}

static struct auth_wait *take_late_locked(struct auth_waits *w, int64_t now_ms)
{
	struct auth_wait *late = NULL, **link = &w->first;

	while (*link) {
		struct auth_wait *i = *link;

		if (!i->deadline_mono_ms || i->deadline_mono_ms > now_ms) {
			link = &i->next;
			continue;
		}
		*link = i->next;
		i->next = late;
		late = i;
	}
	w->last = link;
	return late;
}

static void *watch(void *arg)
{
	struct auth_waits *w = arg;
	int64_t till_ms;

	pthread_mutex_lock(w->lock);
	while ((till_ms = nearest_locked(w))) {
		struct timespec till = {.tv_sec = till_ms / 1000,
					.tv_nsec = till_ms % 1000 * 1000000};
		struct auth_wait *late = take_late_locked(w, clock_mono_ms());

		if (!late) {
			pthread_cond_timedwait(&w->changed, w->lock, &till);
			continue;
		}
		pthread_mutex_unlock(w->lock);
		auth_waits_tell(late, -ETIMEDOUT);
		pthread_mutex_lock(w->lock);
	}
	w->watching = false;
	pthread_mutex_unlock(w->lock);
	return NULL;
}

/* Without a thread deadlines are late, but nobody waits for ever. */
static void start_watcher_locked(struct auth_waits *w)
{
	sigset_t all, before;

	if (w->joinable)
		pthread_join(w->watcher, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	w->watching = w->joinable = pthread_create(&w->watcher, NULL, watch, w) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

bool auth_waits_add_locked(struct auth_waits *w, int64_t deadline_mono_ms, auth_done *done,
			   void *ctx)
{
	struct auth_wait *i = malloc(sizeof(*i));

	if (!i)
		return false;
	*i = (struct auth_wait){NULL, deadline_mono_ms, done, ctx};
	*w->last = i;
	w->last = &i->next;
	if (deadline_mono_ms && w->watching)
		pthread_cond_signal(&w->changed);
	else if (deadline_mono_ms)
		start_watcher_locked(w);
	return true;
}

struct auth_wait *auth_waits_take_locked(struct auth_waits *w)
{
	struct auth_wait *all = w->first;

	w->first = NULL;
	w->last = &w->first;
	pthread_cond_signal(&w->changed);
	return all;
}

void auth_waits_tell(struct auth_wait *waits, int result)
{
	while (waits) {
		struct auth_wait *next = waits->next;

		waits->done(waits->ctx, result);
		free(waits);
		waits = next;
	}
}
