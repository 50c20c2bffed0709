/* SPDX-License-Identifier: MIT */
/*
 * Sleepers are a binary heap by due time; parked connections a plain list the timer thread sweeps
 * every SWEEP_MS with a peek at their sockets. Peeking is safe: while a connection is suspended its
 * daemon does not touch the socket.
 */
#include "alarms.h"

#include "alloc.h"
#include "clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define SWEEP_MS 100

struct sleeper {
	int64_t due_us;
	struct MHD_Connection *connection;
};

struct alarms {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct sleeper *heap; /* lock */
	size_t n_heap, cap_heap;
	struct MHD_Connection **parked; /* lock */
	size_t n_parked, cap_parked;
	bool stopping; /* lock */
};

static void swap(struct sleeper *a, struct sleeper *b)
{
	struct sleeper t = *a;

	*a = *b;
	*b = t;
}

static void heap_push(struct alarms *a, struct sleeper s)
{
	size_t i = a->n_heap++;

	if (a->n_heap > a->cap_heap) {
		a->cap_heap = a->cap_heap ? a->cap_heap * 2 : 64;
		a->heap = xrealloc(a->heap, a->cap_heap * sizeof(*a->heap));
	}
	a->heap[i] = s;
	for (; i > 0 && a->heap[i].due_us < a->heap[(i - 1) / 2].due_us; i = (i - 1) / 2)
		swap(&a->heap[i], &a->heap[(i - 1) / 2]);
}

static struct sleeper heap_pop(struct alarms *a)
{
	struct sleeper first = a->heap[0];
	size_t i = 0;

	a->heap[0] = a->heap[--a->n_heap];
	for (;;) {
		size_t child = 2 * i + 1;

		if (child + 1 < a->n_heap && a->heap[child + 1].due_us < a->heap[child].due_us)
			child++;
		if (child >= a->n_heap || a->heap[i].due_us <= a->heap[child].due_us)
			return first;
		swap(&a->heap[i], &a->heap[child]);
		i = child;
	}
}

static bool peer_is_gone(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	char byte;
	ssize_t n;

	if (!info)
		return false;
	n = recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static void sweep_parked_locked(struct alarms *a)
{
	size_t i = 0;

	while (i < a->n_parked) {
		struct MHD_Connection *connection = a->parked[i];

		if (!a->stopping && !peer_is_gone(connection)) {
			i++;
			continue;
		}
		a->parked[i] = a->parked[--a->n_parked];
		MHD_resume_connection(connection);
	}
}

static void wake_due_locked(struct alarms *a)
{
	int64_t now = clock_steady_us();

	while (a->n_heap && (a->stopping || a->heap[0].due_us <= now))
		MHD_resume_connection(heap_pop(a).connection);
}

static void wait_locked(struct alarms *a)
{
	int64_t until = a->n_heap ? a->heap[0].due_us : INT64_MAX;
	struct timespec t;

	if (a->n_parked && until > clock_steady_us() + SWEEP_MS * 1000)
		until = clock_steady_us() + SWEEP_MS * 1000;
	if (until == INT64_MAX) {
		pthread_cond_wait(&a->wake, &a->lock);
		return;
	}
	t.tv_sec = (time_t)(until / 1000000);
	t.tv_nsec = (long)(until % 1000000) * 1000;
	pthread_cond_timedwait(&a->wake, &a->lock, &t);
}

static void *timer_thread(void *arg)
{
	struct alarms *a = arg;

	pthread_mutex_lock(&a->lock);
	while (!a->stopping) {
		wake_due_locked(a);
		sweep_parked_locked(a);
		wait_locked(a);
	}
	wake_due_locked(a);
	sweep_parked_locked(a);
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

struct alarms *alarms_new(void)
{
	struct alarms *a = xzalloc(sizeof(*a));
	pthread_condattr_t attr;

	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wake, &attr);
	pthread_condattr_destroy(&attr);
	if (pthread_create(&a->thread, NULL, timer_thread, a) != 0)
		abort();
	return a;
}

void alarms_stop(struct alarms *a)
{
	pthread_mutex_lock(&a->lock);
	a->stopping = true;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
}

void alarms_free(struct alarms *a)
{
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->lock);
	free(a->heap);
	free(a->parked);
	free(a);
}

bool alarms_sleep(struct alarms *a, struct MHD_Connection *connection, int64_t ms)
{
	struct sleeper s = {clock_steady_us() + ms * 1000, connection};
	bool stopping;

	pthread_mutex_lock(&a->lock);
	stopping = a->stopping;
	if (!stopping) {
		MHD_suspend_connection(connection);
		heap_push(a, s);
		if (a->heap[0].connection == connection)
			pthread_cond_signal(&a->wake);
	}
	pthread_mutex_unlock(&a->lock);
	return !stopping;
}

bool alarms_park(struct alarms *a, struct MHD_Connection *connection)
{
	bool stopping;

	pthread_mutex_lock(&a->lock);
	stopping = a->stopping;
	if (!stopping) {
		MHD_suspend_connection(connection);
		if (a->n_parked == a->cap_parked) {
			a->cap_parked = a->cap_parked ? a->cap_parked * 2 : 64;
			a->parked = xrealloc(a->parked,
					     a->cap_parked * sizeof(struct MHD_Connection *));
		}
		a->parked[a->n_parked++] = connection;
		pthread_cond_signal(&a->wake);
	}
	pthread_mutex_unlock(&a->lock);
	return !stopping;
}
