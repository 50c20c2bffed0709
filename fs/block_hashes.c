/* SPDX-License-Identifier: MIT */
/*
 * A set of block numbers, and their hashes in its order: where one is in the array is how many
 * numbers come before it in the set.
 */
#include "block_hashes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/content.h>

#include "block_hashes_xxh.h"

uint64_t block_hash(const void *data, size_t len)
{
	return block_hash_known(XXH3_64bits(data, len));
}

void block_hashes_clear(struct block_hashes *h)
{
	ranges_clear(&h->blocks);
	free(h->at);
	*h = (struct block_hashes){0};
}

/* How many of the set come before @block. */
static size_t index_of(const struct block_hashes *h, uint64_t block)
{
	size_t index = 0;

	for (size_t i = 0; i < h->blocks.count && h->blocks.at[i].first < block; i++) {
		uint64_t end = h->blocks.at[i].end < block ? h->blocks.at[i].end : block;

		index += (size_t)(end - h->blocks.at[i].first);
	}
	return index;
}

bool block_hashes_get(const struct block_hashes *h, uint64_t block, uint64_t *ret_hash)
{
	if (!ranges_has(&h->blocks, block, block + 1))
		return false;
	*ret_hash = h->at[index_of(h, block)];
	return true;
}

static int make_room(struct block_hashes *h, size_t count)
{
	size_t room = h->room ? h->room : 16;
	uint64_t *at;

	if (count <= h->room)
		return 0;
	while (room < count)
		room *= 2;
	at = realloc(h->at, room * sizeof(*at));
	if (!at)
		return -ENOMEM;
	h->at = at;
	h->room = room;
	return 0;
}

int block_hashes_set(struct block_hashes *h, uint64_t block, uint64_t hash)
{
	size_t count = (size_t)h->blocks.bytes, index = index_of(h, block);
	bool known = ranges_has(&h->blocks, block, block + 1);
	int r = known ? 0 : make_room(h, count + 1);

	if (r == 0 && !known)
		r = ranges_add(&h->blocks, block, block + 1);
	if (r < 0)
		return r;
	if (!known)
		memmove(&h->at[index + 1], &h->at[index], (count - index) * sizeof(*h->at));
	h->at[index] = hash;
	return 0;
}

int block_hashes_add(struct block_hashes *h, const struct block_hashes *more)
{
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < more->blocks.count; i++)
		for (uint64_t b = more->blocks.at[i].first; b < more->blocks.at[i].end && r == 0;
		     b++)
			r = block_hashes_set(h, b, more->at[n++]);
	return r;
}

int block_hashes_forget(struct block_hashes *h, uint64_t first, uint64_t end)
{
	size_t count = (size_t)h->blocks.bytes;
	size_t from = index_of(h, first), to = index_of(h, end);
	int r = ranges_remove(&h->blocks, first, end);

	if (r == 0 && to > from)
		memmove(&h->at[from], &h->at[to], (count - to) * sizeof(*h->at));
	return r;
}

int block_hashes_whole(const struct ranges *bytes, int64_t size, struct ranges *ret_blocks)
{
	const uint64_t block = CONTENT_BLOCK_BYTES;
	int r = 0;

	for (size_t i = 0; i < bytes->count && r == 0; i++) {
		uint64_t first = (bytes->at[i].first + block - 1) / block;
		uint64_t end = bytes->at[i].end / block;

		if (size >= 0 && bytes->at[i].end == (uint64_t)size)
			end = (bytes->at[i].end + block - 1) / block;
		r = ranges_add(ret_blocks, first, end);
	}
	return r;
}

uint64_t *block_hashes_pack(const struct block_hashes *h, const struct ranges *bytes, int64_t size,
			    size_t *ret_count)
{
	struct ranges whole = {0};
	uint64_t *packed = NULL;
	size_t n = 0;

	if (block_hashes_whole(bytes, size, &whole) == 0)
		packed = calloc(whole.bytes ? (size_t)whole.bytes : 1, sizeof(*packed));
	for (size_t i = 0; packed && i < whole.count; i++)
		for (uint64_t b = whole.at[i].first; b < whole.at[i].end; b++, n++)
			if (!block_hashes_get(h, b, &packed[n]))
				packed[n] = 0;
	*ret_count = n;
	ranges_clear(&whole);
	return packed;
}

/* @whole becomes the set's; those without a hash leave it. */
static int take_packed(struct block_hashes *h, struct ranges *whole, const uint64_t *packed)
{
	size_t n = 0, kept = 0;
	int r = 0;

	h->blocks = *whole;
	*whole = (struct ranges){0};
	for (size_t i = 0; i < (size_t)h->blocks.bytes; i++)
		kept += packed[i] != 0;
	if (kept == h->blocks.bytes) {
		if (kept)
			memcpy(h->at, packed, kept * sizeof(*packed));
		return 0;
	}
	*whole = h->blocks;
	h->blocks = (struct ranges){0};
	for (size_t i = 0; i < whole->count && r == 0; i++)
		for (uint64_t b = whole->at[i].first; b < whole->at[i].end && r == 0; b++, n++)
			if (packed[n])
				r = block_hashes_set(h, b, packed[n]);
	return r;
}

int block_hashes_unpack(struct block_hashes *h, const struct ranges *bytes, int64_t size,
			const void *data, size_t len)
{
	struct block_hashes fresh = {0};
	struct ranges whole = {0};
	uint64_t *packed = malloc(len ? len : 1);
	int r = packed ? block_hashes_whole(bytes, size, &whole) : -ENOMEM;

	if (r == 0 && (len % sizeof(*packed) || len / sizeof(*packed) != whole.bytes))
		r = -EINVAL;
	if (r == 0)
		r = make_room(&fresh, (size_t)whole.bytes);
	if (r == 0 && len)
		memcpy(packed, data, len); /* a blob of the database need not be aligned */
	if (r == 0)
		r = take_packed(&fresh, &whole, packed);
	ranges_clear(&whole);
	free(packed);
	if (r < 0) {
		block_hashes_clear(&fresh);
		return r;
	}
	block_hashes_clear(h);
	*h = fresh;
	return 0;
}
