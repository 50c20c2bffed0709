/* SPDX-License-Identifier: MIT */

/*
 * The fetches under way, by id. There may be as many as a directory has files whose sizes are asked for at
 * once, so the table grows with them.
 */

#include "fetch_private.h"

#include <stdlib.h>

#define FIRST_BUCKETS 64

struct fetches *fetches_new(void)
{
	struct fetches *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->n_buckets = FIRST_BUCKETS;
	t->buckets = calloc(t->n_buckets, sizeof(*t->buckets));
	if (!t->buckets) {
		free(t);
		return NULL;
	}
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

void fetches_free(struct fetches *t)
{
	if (!t)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t->buckets);
	free(t);
}

static struct fetch **bucket_of(struct fetch **buckets, size_t n, uint64_t id)
{
	return &buckets[id & (n - 1)];
}

/* Without memory the chains get longer, no more. */
static void grow_locked(struct fetches *t)
{
	size_t n = 2 * t->n_buckets;
	struct fetch **buckets = calloc(n, sizeof(*buckets));

	if (!buckets)
		return;
	for (size_t i = 0; i < t->n_buckets; i++) {
		struct fetch *f = t->buckets[i], *next;

		for (; f; f = next) {
			struct fetch **to = bucket_of(buckets, n, f->id);

			next = f->next;
			f->next = *to;
			*to = f;
		}
	}
	free(t->buckets);
	t->buckets = buckets;
	t->n_buckets = n;
}

void fetches_add(struct fetches *t, struct fetch *f)
{
	struct fetch **to;

	pthread_mutex_lock(&t->lock);
	if (t->n >= t->n_buckets)
		grow_locked(t);
	f->id = ++t->last;
	to = bucket_of(t->buckets, t->n_buckets, f->id);
	f->next = *to;
	*to = f;
	t->n++;
	pthread_mutex_unlock(&t->lock);
}

struct fetch **fetches_find_locked(struct fetches *t, uint64_t id)
{
	struct fetch **f = bucket_of(t->buckets, t->n_buckets, id);

	while (*f && (*f)->id != id)
		f = &(*f)->next;
	return f;
}

void fetches_remove(struct fetch *f)
{
	struct fetches *t = f->table;
	struct fetch **at;

	pthread_mutex_lock(&t->lock);
	at = fetches_find_locked(t, f->id);
	if (*at) {
		*at = f->next;
		t->n--;
	}
	pthread_mutex_unlock(&t->lock);
}
