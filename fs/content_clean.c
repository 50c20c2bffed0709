/* SPDX-License-Identifier: MIT */
/*
 * Clean contents: filled from the network in any order, complete with the last byte, then hashed
 * and written down. The row put with the first byte only says whose the file is, so that what a kill
 * leaves of it is not taken for something unknown; now and then the keeper puts one that tells what
 * has come.
 */
#include "content_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "crashpoint.h"

#define SAVE_MS 2000

/* Every byte is there: the ranges have nothing more to say. */
static void complete_if_full_locked(struct content *c)
{
	if (c->complete || c->size < 0 || c->live->present.bytes != (uint64_t)c->size)
		return;
	c->complete = true;
	ranges_clear(&c->live->present);
}

int content_set_size(struct content *c, uint64_t size)
{
	struct content_live *live;
	int r = 0;

	if (size > INT64_MAX - CONTENT_BLOCK_BYTES)
		return -EFBIG;
	content_lock(c);
	live = c->live;
	if (c->dirty)
		r = -EINVAL;
	else if (c->size >= 0)
		r = (uint64_t)c->size == size ? 0 : -ESTALE;
	else if (live->present.count > 0 && live->present.at[live->present.count - 1].end > size)
		r = -ESTALE;
	else
		c->size = (int64_t)size;
	if (r == 0)
		complete_if_full_locked(c);
	content_unlock(c);
	return r;
}

/* A long download shall not be lost as a whole when the daemon is killed. */
static void save_in_time_locked(struct content *c)
{
	struct content_live *live = c->live;
	int64_t now = clock_mono_ms();

	if (live->saved_ms == 0)
		live->saved_ms = now;
	if (c->complete || now - live->saved_ms < SAVE_MS || live->unsaved < CONTENT_BLOCK_BYTES)
		return;
	live->saved_ms = now;
	pthread_mutex_lock(&c->store->lock);
	content_keep_store_locked(c);
	pthread_mutex_unlock(&c->store->lock);
}

/* @reserved bytes were reserved for [off, off+len), which is in the file now. */
static int present_locked(struct content *c, uint64_t off, size_t len, uint64_t *reserved)
{
	struct ranges *present = &c->live->present;
	uint64_t before = present->bytes;
	int r;

	if (c->complete)
		return 0;
	r = ranges_add(present, off, off + len);
	if (r < 0)
		return r;
	c->charged += present->bytes - before;
	*reserved -= present->bytes - before;
	c->live->unsaved += present->bytes - before;
	complete_if_full_locked(c);
	save_in_time_locked(c);
	return 0;
}

/* The first bytes: let a row say whose the file is. */
static void claim_file_locked(struct content *c)
{
	bool has_row;

	pthread_mutex_lock(&c->store->lock);
	has_row = c->has_row;
	pthread_mutex_unlock(&c->store->lock);
	if (!has_row)
		content_put_row_locked(c, NULL);
}

/* Into the file. @reserved: how many of them are new. @a may be NULL. */
static int keep_bytes(struct content *c, uint64_t off, const void *data, size_t len,
		      uint64_t reserved, struct content_arrival *a)
{
	int fd, r = content_reserve(c->store, reserved, false);
	int64_t size;

	if (r < 0)
		return r;
	content_lock(c);
	fd = content_fd_locked(c, true);
	if (fd >= 0)
		claim_file_locked(c);
	size = c->size;
	content_unlock(c);
	crash_point("fill.claimed");
	r = fd < 0 ? fd : content_pwrite(fd, data, len, off);
	if (r == 0 && a)
		content_arrival_add(a, size, off, data, len);
	if (r == 0) {
		content_lock(c);
		r = present_locked(c, off, len, &reserved);
		content_unlock(c);
	}
	content_refund(c->store, reserved, false);
	return r;
}

/* Past the file, to those who wait for it now. */
static int pass_bytes(struct content *c, uint64_t off, const void *data, size_t len, int why)
{
	bool begins;
	int r;

	content_lock(c);
	begins = !c->live->passing.first;
	r = content_pass_locked(c, off, data, len);
	content_unlock(c);
	if (begins)
		log_warning("cache: '%s' cannot be kept for now, only be passed on: %s", c->key,
			    strerror(-why));
	return r < 0 ? r : 1;
}

int content_fill(struct content *c, uint64_t off, const void *data, size_t len)
{
	struct content_arrival *a;
	uint64_t reserved;
	int r;

	if (len == 0)
		return 0;
	if (off > INT64_MAX - CONTENT_BLOCK_BYTES || len > INT64_MAX - CONTENT_BLOCK_BYTES - off)
		return -EFBIG;
	content_lock(c);
	if (c->complete || c->dirty || (c->size >= 0 && off + len > (uint64_t)c->size)) {
		r = c->complete && !c->dirty && off + len <= (uint64_t)c->size ? 0 : -EINVAL;
		content_unlock(c);
		return r;
	}
	reserved = len - ranges_overlap(&c->live->present, off, off + len);
	a = content_arrival_take_locked(c);
	content_unlock(c);
	r = keep_bytes(c, off, data, len, reserved, a);
	if (a) {
		content_lock(c);
		content_arrival_leave_locked(c, a);
		content_unlock(c);
	}
	return r < 0 && r != -ENOMEM ? pass_bytes(c, off, data, len, r) : r;
}

/*
 * What was bad has been fetched again, and now it is not what it was: the server has other bytes under
 * the same version, and this is some of both.
 */
static bool is_mix_locked(const struct content *c, const uint8_t hash[LEDGER_HASH_BYTES])
{
	if (!c->live->had_hash || memcmp(c->hash, hash, LEDGER_HASH_BYTES) == 0)
		return false;
	log_warning("cache: '%s': the server has changed it without saying so: all of it is "
		    "fetched again",
		    c->key);
	return true;
}

static int put_hashed_locked(struct content *c, const uint8_t hash[LEDGER_HASH_BYTES],
			     const struct content_hashes *hashes, uint32_t look)
{
	int r;

	memcpy(c->hash, hash, sizeof c->hash);
	c->has_hash = true;
	content_trust_locked(c, look);
	c->live->unsaved = 0;
	r = content_put_row_locked(c, hashes);
	pthread_mutex_lock(&c->store->lock);
	content_insert_hash_store_locked(c);
	pthread_mutex_unlock(&c->store->lock);
	return r;
}

/*
 * The hashes of all of it: most are known since it arrived, the rest is read. 0 and *@ret_blocks,
 * malloc()ed; -errno.
 */
static int hash_all(struct content *c, int fd, uint64_t size, uint8_t hash[LEDGER_HASH_BYTES],
		    uint64_t **ret_blocks, size_t *ret_count)
{
	size_t count = (size_t)((size + CONTENT_BLOCK_BYTES - 1) / CONTENT_BLOCK_BYTES);
	uint64_t *blocks = calloc(count ? count : 1, sizeof *blocks);
	struct content_arrival *a;
	int r;

	if (!blocks)
		return -ENOMEM;
	content_lock(c);
	a = content_arrival_take_locked(c);
	for (size_t i = 0; i < count; i++)
		if (!block_hashes_get(&c->live->hashes, i, &blocks[i]))
			blocks[i] = 0;
	content_unlock(c);
	r = content_hash_rest(c->store, fd, size, a, hash, blocks);
	content_arrival_free(a);
	if (r < 0) {
		free(blocks);
		return r;
	}
	*ret_blocks = blocks;
	*ret_count = count;
	return 0;
}

/* Hash and put the row; busy. Called without the lock, which is why the file must not change: it is
 * complete. */
static int hash_and_put(struct content *c, int fd, uint64_t size)
{
	uint32_t look = fd >= 0 ? content_look_at(fd) : 0;
	struct content_hashes hashes = {0};
	uint8_t hash[LEDGER_HASH_BYTES];
	uint64_t *blocks = NULL;
	int r = hash_all(c, fd, size, hash, &blocks, &hashes.count);

	if (r < 0)
		return r;
	hashes.blocks = blocks;
	content_lock(c);
	if (is_mix_locked(c, hash))
		r = content_lose_all_locked(c) < 0 ? -ENOMEM : -EAGAIN;
	else
		r = put_hashed_locked(c, hash, &hashes, look);
	content_unlock(c);
	crash_point("fill.complete");
	free(blocks);
	return r;
}

/* The descriptor to hash from, -1 in *@ret_fd when there is nothing to hash. */
static int begin_finish_locked(struct content *c, int *ret_fd)
{
	int fd;

	*ret_fd = -1;
	if (!c->complete || c->dirty)
		return -EINVAL;
	if (c->live->doubted.count > 0)
		return -EAGAIN; /* touched since it was checked */
	if (c->size == 0)
		return 0;
	fd = content_fd_locked(c, false);
	if (fd >= 0)
		*ret_fd = fd;
	return fd < 0 ? fd : 0;
}

int content_finish(struct content *c)
{
	bool done;
	uint64_t size;
	int fd, r;

	/* a part of it may be from before the start */
	r = content_check(c, 0, UINT64_MAX, NULL);
	if (r != 0)
		return r < 0 ? r : -EAGAIN;
	content_lock(c);
	content_begin_busy_locked(c);
	size = (uint64_t)c->size;
	done = c->complete && c->has_hash;
	r = done ? 0 : begin_finish_locked(c, &fd);
	content_unlock(c);
	if (r == 0 && !done)
		r = hash_and_put(c, fd, size);
	content_lock(c);
	content_end_busy_locked(c);
	content_unlock(c);
	return r;
}
