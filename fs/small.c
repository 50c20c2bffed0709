/* SPDX-License-Identifier: MIT */

#include "small.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#define STEP	    16 /* sizes are rounded up to it */
#define LARGEST	    512
#define CHUNK_BYTES ((size_t)64 << 10)

struct piece {
	struct piece *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct piece *pieces[LARGEST / STEP + 1]; /* lock: free ones, by size */
static char *chunk;				 /* lock: what is left of the newest one */
static size_t chunk_left;			 /* lock */

/* A sanitizer is to see each piece. */
#ifdef __SANITIZE_ADDRESS__
static const size_t largest = 0;
#else
static const size_t largest = LARGEST;
#endif

static void *carve_locked(size_t size)
{
	char *p = chunk;

	if (chunk_left < size) {
		/* what is left of the old one is a piece, too */
		if (chunk_left >= STEP) {
			struct piece *rest = (struct piece *)(void *)chunk;

			rest->next = pieces[chunk_left / STEP];
			pieces[chunk_left / STEP] = rest;
		}
		chunk_left = 0;
		chunk = p = malloc(CHUNK_BYTES);
		if (!p)
			return NULL;
		chunk_left = CHUNK_BYTES;
	}
	chunk += size;
	chunk_left -= size;
	return p;
}

void *small_alloc(size_t size)
{
	size_t class = (size + STEP - 1) / STEP;
	void *p;

	if (size > largest)
		return malloc(size);
	pthread_mutex_lock(&lock);
	p = pieces[class];
	if (p)
		pieces[class] = pieces[class]->next;
	else
		p = carve_locked(class * STEP);
	pthread_mutex_unlock(&lock);
	return p;
}

void small_free(void *p, size_t size)
{
	size_t class = (size + STEP - 1) / STEP;
	struct piece *piece = p;

	if (!p || size > largest) {
		free(p);
		return;
	}
	pthread_mutex_lock(&lock);
	piece->next = pieces[class];
	pieces[class] = piece;
	pthread_mutex_unlock(&lock);
}

void *small_must(void *p)
{
	if (!p) {
		/* as safe as any other kill: what was promised is in the ledger */
		log_error("tree: out of memory");
		abort();
	}
	return p;
}

char *small_text(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = small_alloc(size);

	if (copy)
		memcpy(copy, text, size);
	return copy;
}

void small_free_text(char *text)
{
	if (text)
		small_free(text, strlen(text) + 1);
}
