/* SPDX-License-Identifier: MIT */

/*
 * Transfers that have used up what their class may send or receive for now: curl holds them, as it
 * holds those that are paused, and one timer for all lets them ask again.
 */

#include "engine.h"

#include <attachfs/clock.h>

static void throttle_timer(struct engine *engine, struct timer *timer, int64_t now_ms)
{
	struct transfer *t;
	unsigned n = engine->n_throttled;

	(void)timer;
	(void)now_ms;
	/* who still may not is at the end of the list again */
	while (n-- && (t = engine->throttled)) {
		throttle_leave(engine, t);
		transfer_go_on(engine, t);
	}
}

int throttle_init(struct engine *engine)
{
	int64_t now_ms = clock_mono_ms();

	bandwidth_begin(&engine->up, engine->config.up_bytes_s, now_ms);
	bandwidth_begin(&engine->down, engine->config.down_bytes_s, now_ms);
	engine->throttle_timer.fire = throttle_timer;
	return timers_add(&engine->timers);
}

bool throttle_may(struct transfer *t, struct bandwidth *b)
{
	struct engine *engine = t->engine;
	int64_t now_ms;

	if (!b->rate)
		return true;
	now_ms = clock_mono_ms();
	if (bandwidth_may(b, t->class, now_ms))
		return true;
	if (!t->throttled) {
		struct transfer **last = &engine->throttled;

		while (*last)
			last = &(*last)->throttled_next;
		*last = t;
		t->throttled_next = NULL;
		t->throttled = true;
		engine->n_throttled++;
	}
	now_ms += bandwidth_wait_ms(b, t->class);
	if (!engine->throttle_timer.place || now_ms < engine->throttle_timer.at_ms)
		timer_set(&engine->timers, &engine->throttle_timer, now_ms);
	return false;
}

void throttle_leave(struct engine *engine, struct transfer *t)
{
	struct transfer **place = &engine->throttled;

	if (!t->throttled)
		return;
	while (*place != t)
		place = &(*place)->throttled_next;
	*place = t->throttled_next;
	t->throttled = false;
	engine->n_throttled--;
}
