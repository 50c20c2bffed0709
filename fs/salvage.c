/* SPDX-License-Identifier: MIT */

/*
 * From the content the user's node names down to what it lies over, each level by its row. A level's
 * bytes show up to base_len of the one above; where it has none, and lies over nothing there, it is
 * zeros. Bytes of the server's are taken by whole blocks whose hash is in the row, and is right: the
 * ledger is damaged, so may be the disk. What the user wrote has no second copy to be compared with.
 */

#include "salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "block_hashes.h"
#include "content_private.h"
#include "ledger_private.h"

#define LEVELS_MAX 1000 /* rows of a damaged ledger may name each other in a ring */

struct level {
	struct ledger_content row; /* its pointers are void */
	struct ranges present;
	struct block_hashes hashes;
};

static void level_clear(struct level *l)
{
	ranges_clear(&l->present);
	block_hashes_clear(&l->hashes);
}

static int take_row(const struct ledger_content *row, struct level *l)
{
	int r;

	*l = (struct level){.row = *row};
	if (row->size < 0)
		return -EUCLEAN;
	r = row->complete ? ranges_add(&l->present, 0, (uint64_t)row->size)
			  : ranges_load(&l->present, row->ranges, row->ranges_len);
	if (r == 0)
		r = ranges_remove(&l->present, (uint64_t)row->size, UINT64_MAX);
	if (r == 0 && row->kind == LEDGER_CONTENT_CLEAN)
		r = block_hashes_unpack(&l->hashes, &l->present, row->size, row->block_hashes,
					row->block_hashes_len);
	if (r < 0)
		level_clear(l);
	return r;
}

static int read_level(sqlite3 *db, uint64_t id, struct level *ret_level)
{
	union ledger_image image;
	sqlite3_stmt *stmt = NULL;
	int r = ledger_select(db, TABLE_CONTENT, "WHERE id=?", &stmt);

	if (r == 0) {
		sqlite3_bind_int64(stmt, 1, (sqlite3_int64)id);
		r = sqlite3_step(stmt) == SQLITE_ROW ? ledger_row_read(TABLE_CONTENT, stmt, &image)
						     : -ENOENT;
	}
	if (r == 0)
		r = take_row(&image.content.content, ret_level);
	sqlite3_finalize(stmt);
	return r;
}

static int open_object(int objects_fd, uint64_t file, int flags)
{
	char name[CONTENT_NAME_BYTES];

	content_name(file, name);
	return openat(objects_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* One block of the server's bytes, if it is right: what is missing of it at @gap. */
static int copy_block(const struct level *from, int from_fd, int to_fd, struct range gap,
		      unsigned char *buffer, struct ranges *present)
{
	uint64_t first = gap.first - gap.first % CONTENT_BLOCK_BYTES, hash;
	uint64_t end = at_most(first + CONTENT_BLOCK_BYTES, (uint64_t)from->row.size);
	int r;

	if (!block_hashes_get(&from->hashes, first / CONTENT_BLOCK_BYTES, &hash) ||
	    content_read_block(from_fd, buffer, (size_t)(end - first), first) < 0 ||
	    block_hash(buffer, (size_t)(end - first)) != hash)
		return 0;
	r = content_pwrite(to_fd, buffer + (gap.first - first), (size_t)(gap.end - gap.first),
			   gap.first);
	return r < 0 ? r : ranges_add(present, gap.first, gap.end);
}

/* What the user wrote below. */
static int copy_written(int from_fd, int to_fd, struct range gap, struct ranges *present)
{
	int r = content_copy(from_fd, to_fd, gap.first, gap.end - gap.first);

	return r < 0 ? r : ranges_add(present, gap.first, gap.end);
}

/*
 * All that @from has of the gaps of @present below @limit. An error when a gap may be left that @from should
 * have filled: it does not lie over nothing.
 */
static int fill_from(const struct level *from, int from_fd, int to_fd, uint64_t limit,
		     struct ranges *present)
{
	unsigned char *buffer = malloc(CONTENT_BLOCK_BYTES);
	struct range gap, there;
	int r = buffer ? 0 : -ENOMEM;

	for (uint64_t off = 0; r == 0 && ranges_next_gap(present, off, limit, &gap);) {
		if (!ranges_next(&from->present, gap.first, &there))
			break;
		off = at_most(gap.end, there.end);
		if (there.first >= gap.end) {
			off = gap.end;
			continue;
		}
		gap.first = there.first;
		gap.end = off;
		if (from->row.kind != LEDGER_CONTENT_CLEAN) {
			r = copy_written(from_fd, to_fd, gap, present);
			continue;
		}
		gap.end = at_most(gap.end,
				  (gap.first / CONTENT_BLOCK_BYTES + 1) * CONTENT_BLOCK_BYTES);
		off = gap.end;
		r = copy_block(from, from_fd, to_fd, gap, buffer, present);
	}
	free(buffer);
	return r;
}

/* Where nothing lies below, nothing is missing. */
static int add_zeros(struct ranges *present, uint64_t from, uint64_t to)
{
	struct range gap;
	int r = 0;

	for (uint64_t off = from; r == 0 && ranges_next_gap(present, off, to, &gap); off = gap.end)
		r = ranges_add(present, gap.first, gap.end);
	return r;
}

static int fill_from_below(sqlite3 *db, int objects_fd, const struct level *top, int to_fd,
			   struct ranges *present)
{
	uint64_t limit = (uint64_t)top->row.size, below = top->row.base;
	uint64_t shows = below ? at_most(top->row.base_len, limit) : 0;
	int r = add_zeros(present, shows, limit);

	for (unsigned i = 0; r == 0 && below && shows > 0 && i < LEVELS_MAX; i++) {
		struct level l;
		uint64_t next, end;
		int fd;

		if (read_level(db, below, &l) < 0)
			break;
		end = at_most(shows, (uint64_t)l.row.size);
		fd = open_object(objects_fd, l.row.file, O_RDONLY);
		r = fd >= 0 ? fill_from(&l, fd, to_fd, end, present) : l.present.count ? -EIO : 0;
		if (fd >= 0)
			close(fd);
		next = l.row.kind == LEDGER_CONTENT_CLEAN ? 0 : l.row.base;
		limit = shows;
		/* of a clean one what is not there is on the server, of a dirty one it is below */
		shows = l.row.kind == LEDGER_CONTENT_CLEAN ? end
			: next				   ? at_most(end, l.row.base_len)
							   : 0;
		if (r == 0)
			r = add_zeros(present, shows, limit);
		below = next;
		level_clear(&l);
	}
	return r;
}

int salvage_content(sqlite3 *db, int objects_fd, uint64_t id, struct salvaged *ret)
{
	struct level top;
	int fd = -1, r = read_level(db, id, &top);

	if (r < 0)
		return r;
	*ret = (struct salvaged){.file = top.row.file, .size = (uint64_t)top.row.size};
	ret->present = top.present;
	top.present = (struct ranges){0};
	/* without a file there is nothing but what was cut, or was never written to */
	fd = open_object(objects_fd, top.row.file, O_RDWR | (top.row.complete ? 0 : O_CREAT));
	if (fd < 0)
		r = -errno;
	/* however far that goes */
	if (r == 0 && !top.row.complete &&
	    fill_from_below(db, objects_fd, &top, fd, &ret->present) == -ENOMEM)
		r = -ENOMEM;
	if (r == 0 && !top.row.complete && ftruncate(fd, (off_t)top.row.size) < 0)
		r = -errno;
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	level_clear(&top);
	if (r < 0)
		salvaged_clear(ret);
	return r;
}

void salvaged_clear(struct salvaged *s)
{
	ranges_clear(&s->present);
}
