/* SPDX-License-Identifier: MIT */
/*
 * What the user writes. Two sets of ranges: `present` is what has been written, `room` what has
 * been reserved (and counted) for it. Room is made before a write, without a lock, since it may
 * evict; the write itself is the caller's, on the lent descriptor. The file is made by the first
 * write.
 */
#include "content_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/log.h>

#include "crashpoint.h"

#define SIZE_LIMIT ((uint64_t)INT64_MAX - CONTENT_BLOCK_BYTES)

static struct content *new_dirty_store_locked(struct content_store *s)
{
	uint64_t id = content_new_id_store_locked(s);
	struct content *c = id ? content_alloc(s, id) : NULL;

	if (!c)
		return NULL;
	c->live = content_live_new();
	if (!c->live) {
		content_free(c);
		return NULL;
	}
	c->refs = 1;
	c->dirty = c->claimed = true;
	content_insert_store_locked(c);
	content_ahead_store_locked(s);
	return c;
}

struct content *content_new_dirty(struct content_store *s, struct content *base, uint64_t base_len)
{
	struct content *c;

	if (base && content_is_dirty(base) && !content_is_sealed(base)) {
		log_error("content: %llu: still being written, nothing can lie over it",
			  (unsigned long long)base->id);
		return NULL;
	}
	pthread_mutex_lock(&s->lock);
	c = new_dirty_store_locked(s);
	if (c) {
		c->size = base ? (int64_t)base_len : 0;
		if (base && base_len > 0) {
			c->live->base = content_ref_store_locked(base);
			c->live->base_len = base_len;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return c;
}

static int writable_locked(const struct content *c, uint64_t off, uint64_t len)
{
	if (!c->dirty || c->sealed)
		return -EALREADY;
	return off > SIZE_LIMIT || len > SIZE_LIMIT - off ? -EFBIG : 0;
}

/* Count [off, end) as reserved, of which @reserved bytes have been. What was too much is left in
 * *@reserved. */
static int take_room_locked(struct content *c, uint64_t off, uint64_t end, uint64_t *reserved)
{
	struct ranges *room = &c->live->room;
	uint64_t need = end - off - ranges_overlap(room, off, end);
	int r;

	if (need > *reserved)
		return -EAGAIN; /* a truncate came between */
	r = ranges_add(room, off, end);
	if (r < 0)
		return r;
	*reserved -= need;
	c->charged += need;
	return 0;
}

/* Reserve [off, off+len). In and out with the lock held, released between. */
static int make_room_locked(struct content *c, uint64_t off, uint64_t len)
{
	uint64_t reserved;
	int r;

	do {
		r = writable_locked(c, off, len);
		if (r < 0)
			return r;
		reserved = len - ranges_overlap(&c->live->room, off, off + len);
		if (reserved == 0)
			return 0;
		content_unlock(c);
		r = content_reserve(c->store, reserved, true);
		content_lock(c);
		if (r < 0)
			return r;
		r = writable_locked(c, off, len);
		if (r == 0)
			r = take_room_locked(c, off, off + len, &reserved);
		content_refund(c->store, reserved, true);
	} while (r == -EAGAIN);
	return r;
}

int content_write_begin(struct content *c, uint64_t off, uint64_t len, int *ret_fd)
{
	int fd, r;

	content_lock(c);
	r = make_room_locked(c, off, len);
	if (r == 0)
		r = writable_locked(c, off, len);
	/* Room for every write under way, so that its end cannot fail. */
	if (r == 0)
		r = ranges_reserve(&c->live->present, c->live->writers + 1);
	if (r == 0) {
		fd = content_fd_locked(c, true);
		r = fd < 0 ? fd : 0;
	}
	if (r == 0) {
		c->live->writers++;
		*ret_fd = fd;
	}
	content_unlock(c);
	return r;
}

void content_write_end(struct content *c, uint64_t off, uint64_t len)
{
	crash_point("write.done");
	content_lock(c);
	if (len > 0) {
		/* A truncate meanwhile may have given the room back; the bytes are there. */
		if (!ranges_has(&c->live->room, off, off + len) &&
		    make_room_locked(c, off, len) < 0)
			log_warning("content: %llu: written beyond the limit",
				    (unsigned long long)c->id);
		if (ranges_add(&c->live->present, off, off + len) < 0)
			log_error("content: %llu: no memory for what was written",
				  (unsigned long long)c->id);
		if (off + len > (uint64_t)c->size)
			c->size = (int64_t)(off + len);
	}
	if (--c->live->writers == 0)
		pthread_cond_broadcast(&c->live->changed);
	content_unlock(c);
}

/* The part of @ranges at or after @size goes. Cannot fail: cutting a tail off needs no memory, only
 * the first call may. */
static int cut(struct ranges *ranges, uint64_t size)
{
	return ranges_remove(ranges, size, UINT64_MAX);
}

static int shrink_locked(struct content *c, uint64_t size)
{
	struct content_live *live = c->live;
	uint64_t before = live->room.bytes;
	int fd = content_fd_locked(c, false);
	int r = 0;

	if (fd >= 0 && ftruncate(fd, (off_t)size) < 0)
		r = -errno;
	else if (fd < 0 && fd != -ENOENT)
		r = fd;
	if (r == 0)
		r = ranges_reserve(&live->present, live->writers + 1);
	if (r == 0)
		r = cut(&live->room, size);
	if (r == 0)
		r = cut(&live->present, size);
	if (r < 0)
		return r;
	if (live->base_len > size)
		live->base_len = size;
	c->charged -= before - live->room.bytes;
	content_refund(c->store, before - live->room.bytes, true);
	return 0;
}

int content_truncate(struct content *c, uint64_t size)
{
	int r;

	content_lock(c);
	r = writable_locked(c, size, 0);
	if (r == 0 && size < (uint64_t)c->size)
		r = shrink_locked(c, size);
	if (r == 0)
		c->size = (int64_t)size;
	content_unlock(c);
	return r;
}

int content_allocate(struct content *c, uint64_t off, uint64_t len, bool keep_size)
{
	int fd, r;

	content_lock(c);
	r = make_room_locked(c, off, len);
	if (r == 0)
		r = writable_locked(c, off, len);
	if (r == 0) {
		fd = content_fd_locked(c, true);
		r = fd < 0 ? fd : 0;
	}
	if (r == 0 && len > 0 && fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0 &&
	    errno != EOPNOTSUPP && errno != ENOSYS)
		r = -errno;
	if (r == 0 && !keep_size && off + len > (uint64_t)c->size)
		c->size = (int64_t)(off + len);
	content_unlock(c);
	return r;
}

/* Room reserved but never written is given back, on the disk as well. */
static void give_room_back_locked(struct content *c)
{
	struct content_live *live = c->live;
	uint64_t unused = c->charged - live->present.bytes;
	int fd = unused > 0 ? content_fd_locked(c, false) : -1;
	struct range gap;

	ranges_clear(&live->room);
	c->charged -= unused;
	content_refund(c->store, unused, true);
	for (uint64_t off = 0; fd >= 0; off = gap.end) {
		if (!ranges_next_gap(&live->present, off, SIZE_LIMIT, &gap))
			break;
		content_zero(fd, gap.first, gap.end - gap.first);
	}
}

/* A base without a row would be forgotten at the next start. */
static int put_base_rows_locked(struct content *c)
{
	struct content *base = c->live->base;
	bool has_row, says_all;
	int r;

	if (!base)
		return 0;
	pthread_mutex_lock(&c->store->lock);
	has_row = base->has_row;
	pthread_mutex_unlock(&c->store->lock);
	content_lock(base);
	/* the row of a clean one being filled may not tell yet which bytes it has */
	says_all = base->dirty || base->complete || base->live->unsaved == 0;
	if (has_row && says_all) {
		content_unlock(base);
		return 0;
	}
	r = put_base_rows_locked(base);
	if (r == 0)
		r = content_put_row_locked(base, NULL);
	content_unlock(base);
	return r;
}

/* Nearly always it ends there already, and asking is cheaper than the inode written once more. */
static int end_file_at(int fd, int64_t size)
{
	struct stat st;

	if (fstat(fd, &st) == 0 && st.st_size == size)
		return 0;
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static int seal_locked(struct content *c)
{
	struct content_live *live = c->live;
	int fd, r = 0;

	while (live->writers > 0)
		pthread_cond_wait(&live->changed, &live->lock);
	if (c->sealed || !c->dirty)
		return 0;
	fd = content_fd_locked(c, false);
	if (fd < 0 && fd != -ENOENT)
		return fd;
	if (fd >= 0)
		r = end_file_at(fd, c->size);
	if (r < 0)
		return r;
	crash_point("seal.cut");
	give_room_back_locked(c);
	c->sealed = true;
	c->complete = live->present.bytes == (uint64_t)c->size;
	r = put_base_rows_locked(c);
	crash_point("seal.base-row");
	if (r == 0 && c->complete && live->base)
		r = content_retire_room_locked(c, 1);
	if (r < 0) {
		c->sealed = c->complete = false;
		return r;
	}
	if (c->complete && live->base) {
		/* Readers may still have what the base handed out. */
		content_retire_locked(c, -1, live->base);
		live->base = NULL;
		live->base_len = 0;
	}
	r = content_put_row_locked(c, NULL);
	if (r == 0 && c->complete)
		ranges_clear(&live->present);
	return r;
}

/* So that the row that may be put for the clean one at the bottom says no less than the last one. */
static int load_base_hashes(struct content *c)
{
	struct content *at = content_ref(c), *below;
	bool doubted = false;
	int r;

	for (; at; at = below) {
		content_lock(at);
		below = at->live->base ? content_ref(at->live->base) : NULL;
		doubted = at->live->doubted.count > 0 && !at->complete;
		content_unlock(at);
		if (!below)
			break;
		content_unref(at);
	}
	r = doubted ? content_load_hashes(at) : 0;
	content_unref(at);
	return r;
}

int content_seal(struct content *c)
{
	int r = load_base_hashes(c);

	if (r < 0)
		return r;
	content_lock(c);
	r = seal_locked(c);
	content_unlock(c);
	return r;
}

int content_sync(struct content *c)
{
	struct content *below = NULL;
	int fd, r = 0;

	content_ref(c);
	for (struct content *at = c; at && r == 0; at = below) {
		content_lock(at);
		fd = at->dirty ? content_fd_locked(at, false) : -ENOENT;
		below = at->dirty && at->live->base ? content_ref(at->live->base) : NULL;
		content_unlock(at);
		if (fd >= 0)
			r = fdatasync(fd) < 0 ? -errno : 0;
		else if (fd != -ENOENT)
			r = fd;
		content_unref(at);
	}
	content_unref(r < 0 ? below : NULL);
	return r;
}
