/* SPDX-License-Identifier: MIT */
/*
 * Hashing bytes as they arrive, while they are in the processor's cache: to read them back for it later
 * costs more than to receive them. Whoever fills takes the content's arrival for himself meanwhile, so
 * that nothing is hashed under a lock. What arrives out of order, from several streams or in two lives of
 * the daemon is hashed from the file, by the keeper and by content_finish().
 */
#include "content_private.h"

#include <stdlib.h>

#include "block_hashes_xxh.h"

#define DONE_MAX 4 /* blocks that end in one piece; more are hashed later */

struct content_arrival {
	XXH3_state_t *whole, *block;
	uint64_t whole_at; /* `whole` is of [0, whole_at); UINT64_MAX = of nothing */
	uint64_t block_at; /* `block` is of its block up to here; UINT64_MAX = of nothing */
	unsigned lost;	   /* content->live->lost when it was taken */
	unsigned n_done;
	struct {
		uint64_t block, hash;
	} done[DONE_MAX]; /* since it was taken */
};

void content_arrival_free(struct content_arrival *a)
{
	if (!a)
		return;
	XXH3_freeState(a->whole);
	XXH3_freeState(a->block);
	free(a);
}

static struct content_arrival *arrival_new(const struct content_store *s)
{
	struct content_arrival *a = calloc(1, sizeof *a);

	if (!a)
		return NULL;
	a->block_at = UINT64_MAX;
	a->whole = XXH3_createState();
	a->block = XXH3_createState();
	if (!a->whole || !a->block) {
		content_arrival_free(a);
		return NULL;
	}
	XXH3_128bits_reset_withSecret(a->whole, s->secret, sizeof s->secret);
	return a;
}

struct content_arrival *content_arrival_take_locked(struct content *c)
{
	struct content_arrival *a = c->live->arrival;

	c->live->arrival = NULL;
	if (!a)
		a = arrival_new(c->store);
	if (a) {
		a->lost = c->live->lost;
		a->n_done = 0;
	}
	return a;
}

static void block_done(struct content_arrival *a, uint64_t block, uint64_t hash)
{
	if (a->n_done == DONE_MAX)
		return;
	a->done[a->n_done].block = block;
	a->done[a->n_done].hash = hash;
	a->n_done++;
}

/* [off, off+len), all of it in one block that ends at @end. */
static void add_to_block(struct content_arrival *a, uint64_t off, const void *data, size_t len,
			 uint64_t end)
{
	uint64_t block = off / CONTENT_BLOCK_BYTES;
	bool begins = off % CONTENT_BLOCK_BYTES == 0;

	if (begins && off + len == end) {
		block_done(a, block, block_hash(data, len));
		return;
	}
	if (begins)
		XXH3_64bits_reset(a->block);
	else if (a->block_at != off)
		return;
	XXH3_64bits_update(a->block, data, len);
	a->block_at = off + len;
	if (a->block_at != end)
		return;
	block_done(a, block, block_hash_known(XXH3_64bits_digest(a->block)));
	a->block_at = UINT64_MAX;
}

void content_arrival_add(struct content_arrival *a, int64_t size, uint64_t off, const void *data,
			 size_t len)
{
	const unsigned char *at = data;

	if (off == a->whole_at) {
		XXH3_128bits_update(a->whole, data, len);
		a->whole_at += len;
	} else if (off < a->whole_at) {
		a->whole_at = UINT64_MAX; /* written again */
	}
	while (len > 0) {
		uint64_t end = off - off % CONTENT_BLOCK_BYTES + CONTENT_BLOCK_BYTES;
		size_t n = end - off < len ? (size_t)(end - off) : len;

		if (size >= 0 && end > (uint64_t)size)
			end = (uint64_t)size;
		add_to_block(a, off, at, n, end);
		at += n;
		off += n;
		len -= n;
	}
}

void content_arrival_leave_locked(struct content *c, struct content_arrival *a)
{
	struct content_live *live = c->live;
	bool holds = a->lost == live->lost;

	for (unsigned i = 0; holds && i < a->n_done; i++)
		block_hashes_set(&live->hashes, a->done[i].block, a->done[i].hash);
	if (holds && !live->arrival)
		live->arrival = a;
	else
		content_arrival_free(a);
}

void content_arrival_forget_locked(struct content *c)
{
	content_arrival_free(c->live->arrival);
	c->live->arrival = NULL;
	c->live->lost++;
}

uint64_t content_arrival_whole(const struct content_arrival *a, XXH3_state_t *ret_whole)
{
	if (!a || a->whole_at == UINT64_MAX)
		return 0;
	XXH3_copyState(ret_whole, a->whole);
	return a->whole_at;
}
