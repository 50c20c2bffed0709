/* SPDX-License-Identifier: MIT */

/*
 * Timers of the transfer thread: each transfer has one (deadline, stall or end of a back-off,
 * whichever is next) and each host one. A binary heap, because there may be tens of thousands of
 * waiting transfers. Room is reserved when a transfer or host is made, so that setting a timer
 * cannot fail later.
 */

#include "engine.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

int timers_add(struct timers *timers)
{
	size_t size = timers->size ? timers->size * 2 : 64;
	struct timer **heap;

	if (timers->made >= timers->size) {
		heap = realloc(timers->heap, size * sizeof(*heap));
		if (!heap)
			return -ENOMEM;
		timers->heap = heap;
		timers->size = size;
	}
	timers->made++;
	return 0;
}

void timers_drop(struct timers *timers)
{
	timers->made--;
}

static void put(struct timers *timers, size_t i, struct timer *timer)
{
	timers->heap[i] = timer;
	timer->place = i + 1;
}

static void sift_up(struct timers *timers, size_t i, struct timer *timer)
{
	while (i > 0) {
		struct timer *parent = timers->heap[(i - 1) / 2];

		if (parent->at_ms <= timer->at_ms)
			break;
		put(timers, i, parent);
		i = (i - 1) / 2;
	}
	put(timers, i, timer);
}

static void sift_down(struct timers *timers, size_t i, struct timer *timer)
{
	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= timers->used)
			break;
		if (child + 1 < timers->used &&
		    timers->heap[child + 1]->at_ms < timers->heap[child]->at_ms)
			child++;
		if (timer->at_ms <= timers->heap[child]->at_ms)
			break;
		put(timers, i, timers->heap[child]);
		i = child;
	}
	put(timers, i, timer);
}

void timer_set(struct timers *timers, struct timer *timer, int64_t at_ms)
{
	int64_t before = timer->at_ms;

	timer->at_ms = at_ms;
	if (!timer->place)
		sift_up(timers, timers->used++, timer);
	else if (at_ms < before)
		sift_up(timers, timer->place - 1, timer);
	else
		sift_down(timers, timer->place - 1, timer);
}

void timer_clear(struct timers *timers, struct timer *timer)
{
	size_t i = timer->place;
	struct timer *last;

	if (!i)
		return;
	timer->place = 0;
	last = timers->heap[--timers->used];
	if (last == timer)
		return;
	if (last->at_ms < timer->at_ms)
		sift_up(timers, i - 1, last);
	else
		sift_down(timers, i - 1, last);
}

void timers_fire(struct engine *engine, int64_t now_ms)
{
	struct timers *timers = &engine->timers;

	while (timers->used && timers->heap[0]->at_ms <= now_ms) {
		struct timer *timer = timers->heap[0];

		timer_clear(timers, timer);
		timer->fire(engine, timer, now_ms);
	}
}

int timers_wait_ms(const struct timers *timers, int64_t now_ms, int max_ms)
{
	int64_t wait;

	if (!timers->used)
		return max_ms;
	wait = timers->heap[0]->at_ms - now_ms;
	if (wait < 0)
		return 0;
	return wait < max_ms ? (int)wait : max_ms;
}
