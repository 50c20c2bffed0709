/* SPDX-License-Identifier: MIT */
#include "table.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>

uint64_t hash_bytes(const void *data, size_t len, uint64_t seed)
{
	const unsigned char *p = data;
	uint64_t h = seed ^ 0xcbf29ce484222325u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	h ^= h >> 32;
	h *= 0x9e3779b97f4a7c15u;
	return h ^ (h >> 29);
}

static struct table_entry *find(const struct table *t, const void *key, size_t len, uint64_t hash)
{
	for (size_t i = hash & (t->cap - 1);; i = (i + 1) & (t->cap - 1)) {
		struct table_entry *e = &t->slots[i];

		if (!e->key ||
		    (e->hash == hash && e->key_len == len && memcmp(e->key, key, len) == 0))
			return e;
	}
}

static void grow(struct table *t)
{
	struct table old = *t;

	t->cap = old.cap ? old.cap * 2 : 64;
	t->slots = xzalloc(t->cap * sizeof(*t->slots));
	for (size_t i = 0; i < old.cap; i++) {
		struct table_entry *e = &old.slots[i];

		if (e->key)
			*find(t, e->key, e->key_len, e->hash) = *e;
	}
	free(old.slots);
}

void *table_get(const struct table *t, const void *key, size_t len)
{
	struct table_entry *e = t->cap ? find(t, key, len, hash_bytes(key, len, 0)) : NULL;

	return e && e->key ? e->value : NULL;
}

void *table_put(struct table *t, const void *key, size_t len, void *value)
{
	uint64_t hash = hash_bytes(key, len, 0);
	struct table_entry *e;
	void *old;

	if (t->n * 4 >= t->cap * 3)
		grow(t);
	e = find(t, key, len, hash);
	old = e->key ? e->value : NULL;
	if (!e->key) {
		*e = (struct table_entry){hash, xmemdup(key, len), len, NULL};
		t->n++;
	}
	e->value = value;
	return old;
}

static void close_gap(struct table *t, size_t gap)
{
	size_t mask = t->cap - 1;

	for (size_t i = (gap + 1) & mask; t->slots[i].key; i = (i + 1) & mask) {
		size_t home = t->slots[i].hash & mask;

		if (((i - home) & mask) < ((i - gap) & mask))
			continue;
		t->slots[gap] = t->slots[i];
		gap = i;
	}
	t->slots[gap] = (struct table_entry){0};
}

void *table_remove(struct table *t, const void *key, size_t len)
{
	struct table_entry *e = t->cap ? find(t, key, len, hash_bytes(key, len, 0)) : NULL;
	void *value;

	if (!e || !e->key)
		return NULL;
	value = e->value;
	free(e->key);
	close_gap(t, (size_t)(e - t->slots));
	t->n--;
	return value;
}

void table_free(struct table *t)
{
	for (size_t i = 0; i < t->cap; i++)
		free(t->slots[i].key);
	free(t->slots);
	*t = (struct table){0};
}

void *table_next(const struct table *t, size_t *pos)
{
	while (*pos < t->cap) {
		struct table_entry *e = &t->slots[(*pos)++];

		if (e->key)
			return e->value;
	}
	return NULL;
}
