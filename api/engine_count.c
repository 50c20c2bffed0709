/* SPDX-License-Identifier: MIT */

/*
 * Counters per endpoint. Only the transfer thread makes one; it publishes it by a store to the head
 * of a list that never shrinks before engine_free(), so engine_count() walks it without any lock.
 * The number of endpoints is bounded: they come from the code of the servers, but a bug there must
 * not eat the memory.
 */

#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COUNTERS_MAX 512
#define TABLE_SIZE   1024 /* power of two, > COUNTERS_MAX */

static size_t hash_text(const char *text)
{
	uint32_t hash = 2166136261u;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 16777619u;
	return hash & (TABLE_SIZE - 1);
}

static struct counter *counter_new(struct counters *counters, const char *endpoint, size_t place)
{
	size_t size = strlen(endpoint) + 1;
	struct counter *counter = calloc(1, sizeof(*counter) + size);

	if (!counter)
		return NULL;
	memcpy(counter->endpoint, endpoint, size);
	counter->next = atomic_load(&counters->first);
	counters->table[place] = counter;
	counters->used++;
	atomic_store(&counters->first, counter);
	return counter;
}

struct counter *counter_get(struct counters *counters, const char *endpoint)
{
	struct counter *counter = NULL;
	size_t i = hash_text(endpoint);

	for (; counters->table[i]; i = (i + 1) & (TABLE_SIZE - 1))
		if (!strcmp(counters->table[i]->endpoint, endpoint))
			return counters->table[i];
	if (counters->used < COUNTERS_MAX)
		counter = counter_new(counters, endpoint, i);
	return counter || !*endpoint ? counter : counter_get(counters, "");
}

int counters_init(struct counters *counters)
{
	counters->table = calloc(TABLE_SIZE, sizeof(struct counter *));
	if (!counters->table)
		return -ENOMEM;
	atomic_init(&counters->first, NULL);
	return counter_get(counters, "") ? 0 : -ENOMEM;
}

void counters_free(struct counters *counters)
{
	struct counter *counter = atomic_load(&counters->first);

	while (counter) {
		struct counter *next = counter->next;

		free(counter);
		counter = next;
	}
	free(counters->table);
}

void engine_count(struct engine *engine, void (*each)(void *ctx, const struct engine_counter *c),
		  void *ctx, struct engine_counter *ret_total)
{
	struct engine_counter total = {.endpoint = ""};

	for (struct counter *c = atomic_load(&engine->counters.first); c; c = c->next) {
		struct engine_counter now = {
			.endpoint = c->endpoint,
			.requests = atomic_load_explicit(&c->requests, memory_order_relaxed),
			.bytes_sent = atomic_load_explicit(&c->bytes_sent, memory_order_relaxed),
			.bytes_received =
				atomic_load_explicit(&c->bytes_received, memory_order_relaxed),
		};

		total.requests += now.requests;
		total.bytes_sent += now.bytes_sent;
		total.bytes_received += now.bytes_received;
		if (each && now.requests)
			each(ctx, &now);
	}
	if (ret_total)
		*ret_total = total;
}
