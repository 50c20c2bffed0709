/* SPDX-License-Identifier: MIT */
/*
 * Clean contents: filled from the network in any order, complete with the last byte, then hashed
 * and written down. The row put with the first byte only says whose the file is, so that a download
 * cut short by a kill is deleted at the next start and not taken for something unknown.
 */
#include "content_private.h"

#include <errno.h>
#include <stdlib.h>

#include "crashpoint.h"

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
	complete_if_full_locked(c);
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

int content_fill(struct content *c, uint64_t off, const void *data, size_t len)
{
	uint64_t reserved;
	int fd, r;

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
	content_unlock(c);

	r = content_reserve(c->store, reserved, false);
	if (r < 0)
		return r;
	content_lock(c);
	fd = content_fd_locked(c, true);
	if (fd >= 0)
		claim_file_locked(c);
	content_unlock(c);
	crash_point("fill.claimed");
	r = fd < 0 ? fd : content_pwrite(fd, data, len, off);
	if (r == 0) {
		content_lock(c);
		r = present_locked(c, off, len, &reserved);
		content_unlock(c);
	}
	content_refund(c->store, reserved, false);
	return r;
}

/* Hash and put the row; busy. Called without the lock, which is why the file must not change: it is
 * complete. */
static int hash_and_put(struct content *c, int fd, uint64_t size)
{
	struct content_hashes hashes = {0};
	uint8_t hash[LEDGER_HASH_BYTES];
	uint64_t *blocks = NULL;
	int r = content_hash_file(c->store, fd, size, hash, &blocks, &hashes.count);

	if (r < 0)
		return r;
	hashes.blocks = blocks;
	content_lock(c);
	for (size_t i = 0; i < sizeof hash; i++)
		c->hash[i] = hash[i];
	c->has_hash = true;
	c->verified = true;
	r = content_put_row_locked(c, &hashes);
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
