/* SPDX-License-Identifier: MIT */

/*
 * Hosts. Whatever changes what a host may do (a transfer came, ended, paused; a freeze or a pause
 * ended) kicks it; kicked hosts are served once per round of the loop, by starting transfers from
 * the queues while they may go. A transfer in a queue has no timer for being served, only the host
 * has one: for the end of a freeze, of a window, or for the next probe.
 *
 * Slots count what runs and is not paused, so that readers which stopped their flow do not starve
 * the others. What is paused still costs a connection; WIRE_FACTOR bounds the connections of a
 * host.
 */

#include "engine.h"

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIRE_FACTOR	 4
#define FAILURES_TO_OPEN 3
#define PAUSE_FIRST_MS	 1000
#define PAUSE_MAX_MS	 30000
#define HOSTS_SWEEP	 256 /* from so many on, hosts without any state are forgotten */

/* The table of hosts */

static size_t host_place(const struct engine *engine, const char *key)
{
	uint32_t hash = 2166136261u;

	for (; *key; key++)
		hash = (hash ^ (unsigned char)*key) * 16777619u;
	return hash & (engine->hosts_size - 1);
}

static void host_timer(struct engine *engine, struct timer *timer, int64_t now_ms)
{
	struct host *host = (struct host *)((char *)timer - offsetof(struct host, timer));

	(void)now_ms;
	host_kick(engine, host);
}

void host_free(struct host *host)
{
	origin_clear(&host->origin);
	free(host);
}

static bool host_is_idle(const struct host *host)
{
	for (int class = 0; class < TRANSFER_CLASSES; class ++)
		if (host->queues[class].first)
			return false;
	return !host->backoff.first && !host->running && !host->paused && !host->kicked &&
	       !host->open && host->rate.seen < 0 && !host->rate.frozen_till_ms;
}

/* A server's answers name hosts: without this, they could fill the memory. */
static void hosts_sweep(struct engine *engine)
{
	for (size_t i = 0; i < engine->hosts_size; i++) {
		struct host **link = &engine->hosts[i];

		while (*link) {
			struct host *host = *link;

			if (host == engine->origin_host || !host_is_idle(host)) {
				link = &host->next;
				continue;
			}
			*link = host->next;
			timer_clear(&engine->timers, &host->timer);
			timers_drop(&engine->timers);
			host_free(host);
			engine->hosts_used--;
		}
	}
}

struct host *host_get(struct engine *engine, const struct origin *origin)
{
	size_t place = host_place(engine, origin->key);
	struct host *host;

	for (host = engine->hosts[place]; host; host = host->next)
		if (!strcmp(host->origin.key, origin->key))
			return host;
	if (engine->hosts_used >= HOSTS_SWEEP)
		hosts_sweep(engine);
	host = calloc(1, sizeof(*host));
	if (!host)
		return NULL;
	host->origin = *origin;
	host->origin.key = strdup(origin->key);
	if (!host->origin.key || timers_add(&engine->timers) < 0) {
		host_free(host);
		return NULL;
	}
	rate_init(&host->rate);
	host->timer.fire = host_timer;
	host->next = engine->hosts[place];
	engine->hosts[place] = host;
	engine->hosts_used++;
	return host;
}

void host_kick(struct engine *engine, struct host *host)
{
	if (host->kicked)
		return;
	host->kicked = true;
	host->kick_next = engine->kicked;
	engine->kicked = host;
}

/* Queues */

static void queue_append(struct queue *queue, struct transfer *t)
{
	t->list = queue;
	t->next = NULL;
	t->prev = queue->last;
	if (queue->last)
		queue->last->next = t;
	else
		queue->first = t;
	queue->last = t;
}

static void queue_prepend(struct queue *queue, struct transfer *t)
{
	t->list = queue;
	t->prev = NULL;
	t->next = queue->first;
	if (queue->first)
		queue->first->prev = t;
	else
		queue->last = t;
	queue->first = t;
}

void host_remove(struct engine *engine, struct transfer *t)
{
	struct queue *queue = t->list;

	(void)engine;
	if (!queue)
		return;
	if (t->prev)
		t->prev->next = t->next;
	else
		queue->first = t->next;
	if (t->next)
		t->next->prev = t->prev;
	else
		queue->last = t->prev;
	t->list = NULL;
	t->next = t->prev = NULL;
}

void host_enqueue(struct engine *engine, struct transfer *t, bool again)
{
	struct queue *queue = &t->host->queues[t->class];

	host_remove(engine, t);
	t->state = TRANSFER_WAITING;
	t->retry_at_ms = 0;
	if (again)
		queue_prepend(queue, t);
	else
		queue_append(queue, t);
	host_kick(engine, t->host);
}

void host_wait(struct engine *engine, struct transfer *t, int64_t till_ms)
{
	host_remove(engine, t);
	t->state = TRANSFER_BACKOFF;
	t->retry_at_ms = till_ms;
	queue_append(&t->host->backoff, t);
}

/* Serving */

static bool has_slot(const struct engine *engine, const struct host *host, int class)
{
	unsigned slots = engine->config.slots, most = slots * WIRE_FACTOR;

	if (class == TRANSFER_INTERACTIVE)
		most += slots;
	else
		slots--;
	return host->running < slots && host->running + host->paused < most;
}

static struct transfer *first_waiting(const struct host *host)
{
	for (int class = 0; class < TRANSFER_CLASSES; class ++)
		if (host->queues[class].first)
			return host->queues[class].first;
	return NULL;
}

/* The one transfer that tries whether the host is back; prefers one for which nobody waits. */
static struct transfer *pick_probe(struct engine *engine, struct host *host, int64_t now_ms)
{
	struct transfer *t = first_waiting(host);

	if (!t || host->probe)
		return NULL;
	if (host->probe_at_ms > now_ms) {
		timer_set(&engine->timers, &host->timer, host->probe_at_ms);
		return NULL;
	}
	for (int class = TRANSFER_CLASSES - 1; class >= 0; class --)
		if (host->queues[class].first && host->queues[class].first->spec.retry_for_ever)
			t = host->queues[class].first;
	host->probe = t;
	return t;
}

/* The next transfer that may go now, or NULL; then the timer is set if time alone will change that.
 */
static struct transfer *pick(struct engine *engine, struct host *host, int64_t now_ms)
{
	int64_t again_ms = 0;

	if (host->open)
		return pick_probe(engine, host, now_ms);
	for (int class = 0; class < TRANSFER_CLASSES; class ++) {
		struct transfer *t = host->queues[class].first;
		int64_t till_ms, end_ms;

		if (!t || !has_slot(engine, host, class))
			continue;
		till_ms = rate_wait_till(&host->rate, class, now_ms, &end_ms);
		if (!till_ms || t->knock)
			return t;
		if (!again_ms || till_ms < again_ms)
			again_ms = till_ms;
		host->starved_till_ms = end_ms;
	}
	if (again_ms)
		timer_set(&engine->timers, &host->timer, again_ms);
	return NULL;
}

/*
 * A host whose calls go one by one, as its limit allows, is throttled all the time, not between them
 * only.
 */
static void end_starvation(struct host *host, int64_t now_ms)
{
	if (host->starved_till_ms <= now_ms || (!first_waiting(host) && !host->running))
		host->starved_till_ms = 0;
}

/* A host that is throttled with nothing to do has no timer yet, and that ends all the same. */
static void time_end_of_throttle(struct engine *engine, struct host *host, int64_t now_ms)
{
	int64_t till_ms = host->rate.frozen_till_ms;

	if (till_ms < host->starved_till_ms)
		till_ms = host->starved_till_ms;
	if (till_ms > now_ms && !host->timer.place)
		timer_set(&engine->timers, &host->timer, till_ms);
}

/* What may not wait for a host that cannot be reached. */
static void refuse_all(struct engine *engine, struct queue *queue)
{
	struct transfer *t = queue->first, *next;

	for (; t; t = next) {
		next = t->next;
		if (!t->spec.retry_for_ever)
			transfer_finish(engine, t, -EHOSTDOWN,
					"server cannot be reached (offline)");
	}
}

static void host_serve(struct engine *engine, struct host *host, int64_t now_ms)
{
	struct transfer *t;

	while ((t = pick(engine, host, now_ms))) {
		host_remove(engine, t);
		transfer_begin(engine, t);
	}
	if (host->open)
		for (int class = 0; class < TRANSFER_CLASSES; class ++)
			refuse_all(engine, &host->queues[class]);
	end_starvation(host, now_ms);
	time_end_of_throttle(engine, host, now_ms);
}

void hosts_serve(struct engine *engine)
{
	int64_t now_ms = clock_mono_ms();
	bool any = engine->kicked;

	while (engine->kicked) {
		struct host *host = engine->kicked;

		engine->kicked = host->kick_next;
		host->kicked = false;
		host_serve(engine, host, now_ms);
	}
	if (any)
		engine_update_state(engine);
}

/* What happens on the wire */

void host_started(struct engine *engine, struct transfer *t)
{
	(void)engine;
	t->host->running++;
	t->host->pending++;
	t->held = false;
	if (!t->knock)
		rate_request(&t->host->rate, clock_mono_ms());
}

void host_paused(struct engine *engine, struct transfer *t, bool paused)
{
	if (t->held == paused)
		return;
	t->held = paused;
	if (paused) {
		t->host->running--;
		t->host->paused++;
	} else {
		t->host->running++;
		t->host->paused--;
	}
	host_kick(engine, t->host);
}

/* The head of an answer is there. */
void host_answered(struct engine *engine, struct transfer *t)
{
	t->host->pending--;
	host_reached(engine, t->host);
	host_kick(engine, t->host);
}

/* The try is over, whatever came of it. */
void host_ended(struct engine *engine, struct transfer *t)
{
	struct host *host = t->host;

	host_paused(engine, t, false);
	host->running--;
	if (!t->answered)
		host->pending--;
	if (host->probe == t) {
		host->probe = NULL;
		if (host->open)
			host->probe_at_ms = clock_mono_ms() + host->pause_ms;
	}
	host_kick(engine, host);
}

void host_freeze(struct engine *engine, struct host *host, int64_t till_ms)
{
	if (!host->rate.frozen_till_ms)
		log_warning("engine: rate limit reached: %s: waiting seconds=%lld",
			    host->origin.key, (long long)(till_ms - clock_mono_ms() + 999) / 1000);
	rate_freeze(&host->rate, till_ms);
	engine_update_state(engine);
	host_kick(engine, host);
}

/* The breaker */

void host_failed(struct engine *engine, struct host *host, struct transfer *t, const char *words)
{
	bool probe = host->open && (!t || host->probe == t || !host->probe);

	host->failures++;
	snprintf(host->why, sizeof(host->why), "%s", words);
	if (!host->open && host->failures < FAILURES_TO_OPEN)
		return;
	if (!host->open) {
		host->open = true;
		host->pause_ms = PAUSE_FIRST_MS;
		log_warning("engine: cannot reach %s: offline: %s", host->origin.key, words);
		engine_update_state(engine);
		knock_start(engine, host);
	} else if (probe) {
		host->pause_ms =
			host->pause_ms * 2 < PAUSE_MAX_MS ? host->pause_ms * 2 : PAUSE_MAX_MS;
	}
	host->probe_at_ms = clock_mono_ms() + host->pause_ms;
	for (struct transfer *b = host->backoff.first, *next; b; b = next) {
		next = b->next;
		host_enqueue(engine, b, true);
	}
	host_kick(engine, host);
}

void host_reached(struct engine *engine, struct host *host)
{
	host->failures = 0;
	if (!host->open)
		return;
	host->open = false;
	log_info("engine: reached %s: online", host->origin.key);
	engine_update_state(engine); /* here, so that done() finds it as it is */
	host_kick(engine, host);
}

bool host_refuses(const struct host *host, int64_t now_ms)
{
	return host->open && (host->probe || host->probe_at_ms > now_ms);
}

/* One more failure closes it again: the word of the kernel that a network is there is no proof. */
void host_retry_now(struct engine *engine, struct host *host)
{
	if (host->open) {
		host->open = false;
		host->failures = FAILURES_TO_OPEN - 1;
	}
	for (struct transfer *t = host->backoff.first, *next; t; t = next) {
		next = t->next;
		host_enqueue(engine, t, true);
	}
	host_kick(engine, host);
}
