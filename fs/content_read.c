/* SPDX-License-Identifier: MIT */
/*
 * Where bytes are: the file of the content itself, that of something below it, nowhere (zeros), or
 * still on the server; or there, but to be compared with its hash first. A question goes down the
 * chain with each content's lock held until the ones below have answered, so that a flatten or a merge
 * cannot change the chain under it. What is handed out stays open while the content asked about is
 * referenced: see struct content_retired.
 */
#include "content_private.h"

#include <errno.h>
#include <unistd.h>

static uint64_t at_most(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Of a clean one. */
static struct content_extent missing_locked(struct content *c, uint64_t off, uint64_t len)
{
	uint64_t passing = content_passing_at_locked(c, off);

	return (struct content_extent){.where = passing ? CONTENT_MEMORY : CONTENT_MISSING,
				       .len = passing ? at_most(len, passing) : len,
				       .fd = -1,
				       .owner = c,
				       .owner_off = off};
}

static int in_file_locked(struct content *c, uint64_t off, uint64_t len,
			  struct content_extent *ret_extent)
{
	int fd = content_fd_locked(c, false);
	int doubted;

	if (fd < 0 && fd != -ENOENT)
		return fd;
	/* reopening may have found that nothing is left */
	if (!c->complete && !ranges_has(&c->live->present, off, off + len)) {
		*ret_extent = missing_locked(c, off, len);
		return 0;
	}
	doubted = content_vouch_locked(c, fd, off, &len);
	if (doubted < 0)
		return doubted;
	*ret_extent = (struct content_extent){.where = doubted ? CONTENT_DOUBTED : CONTENT_FILE,
					      .len = len,
					      .fd = fd,
					      .fd_off = off,
					      .owner = c,
					      .owner_off = off};
	return 0;
}

/* [off, off+len) of dirty @c is not in its own file. */
static int below_locked(struct content *c, uint64_t off, uint64_t len,
			struct content_extent *ret_extent)
{
	struct content_live *live = c->live;
	int r;

	*ret_extent = (struct content_extent){.where = CONTENT_ZERO, .len = len, .fd = -1};
	if (!live->base || off >= live->base_len)
		return 0;
	len = at_most(len, live->base_len - off);
	content_lock(live->base);
	r = content_map_locked(live->base, off, len, ret_extent);
	content_unlock(live->base);
	if (r == 0 && ret_extent->where == CONTENT_END)
		*ret_extent = (struct content_extent){.where = CONTENT_ZERO, .len = len, .fd = -1};
	return r;
}

int content_map_locked(struct content *c, uint64_t off, uint64_t len,
		       struct content_extent *ret_extent)
{
	struct range next;

	if (c->size >= 0 && off >= (uint64_t)c->size) {
		*ret_extent = (struct content_extent){.where = CONTENT_END, .fd = -1};
		return 0;
	}
	if (c->size >= 0)
		len = at_most(len, (uint64_t)c->size - off);
	if (c->complete)
		return in_file_locked(c, off, len, ret_extent);
	if (ranges_next(&c->live->present, off, &next)) {
		if (next.first == off)
			return in_file_locked(c, off, at_most(len, next.end - off), ret_extent);
		len = at_most(len, next.first - off);
	}
	if (c->dirty)
		return below_locked(c, off, len, ret_extent);
	*ret_extent = missing_locked(c, off, len);
	return 0;
}

int content_map(struct content *c, uint64_t off, uint64_t len, struct content_extent *ret_extent)
{
	int r;

	content_lock(c);
	r = content_map_locked(c, off, len, ret_extent);
	content_unlock(c);
	return r;
}

bool content_is_local(struct content *c)
{
	struct content_extent e;
	uint64_t off = 0;
	bool local;

	content_lock(c);
	local = c->complete;
	while (!local) {
		if (content_map_locked(c, off, UINT64_MAX - off, &e) < 0 ||
		    e.where == CONTENT_MISSING || e.where == CONTENT_MEMORY)
			break;
		local = e.where == CONTENT_END;
		off += e.len;
	}
	content_unlock(c);
	return local;
}

bool content_next_missing(struct content *c, uint64_t off, uint64_t *ret_first, uint64_t *ret_end)
{
	struct range gap;
	bool found;

	content_lock(c);
	found = !c->complete && !c->dirty &&
		ranges_next_gap(&c->live->present, off,
				c->size >= 0 ? (uint64_t)c->size : UINT64_MAX, &gap);
	content_unlock(c);
	if (found) {
		*ret_first = gap.first;
		*ret_end = gap.end;
	}
	return found;
}

static int64_t seek_locked(struct content *c, uint64_t off, int whence)
{
	struct content_extent e;
	int r;

	if (c->size < 0)
		return whence == SEEK_DATA && off <= INT64_MAX ? (int64_t)off : -ENXIO;
	if (off >= (uint64_t)c->size)
		return -ENXIO;
	for (; off < (uint64_t)c->size; off += e.len) {
		r = content_map_locked(c, off, (uint64_t)c->size - off, &e);
		if (r < 0)
			return r;
		if ((e.where == CONTENT_ZERO) == (whence == SEEK_HOLE))
			return (int64_t)off;
	}
	return whence == SEEK_HOLE ? c->size : -ENXIO;
}

int64_t content_seek(struct content *c, uint64_t off, int whence)
{
	int64_t found;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	content_lock(c);
	found = seek_locked(c, off, whence);
	content_unlock(c);
	return found;
}
