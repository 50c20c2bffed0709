/* SPDX-License-Identifier: MIT */
/*
 * Bytes in the cache may change behind our back: a disk forgets, a person tidies up. So what is not
 * known to be right is doubted, and compared with its hash, block by block, when somebody wants it.
 *
 *	doubted                                           from
 *	complete, hashed   all of it                      the first look at a file that looks otherwise than when all of it was
 *	                                                  right: after a start, since that is not remembered, or touched since
 *	incomplete, clean  what the row had of it         the start
 *	else               nothing: there are no hashes   only what lies beyond the end of the file is noticed
 *
 * A file looks otherwise when its inode, size or time of change is another. That is asked at each
 * read, for what is open as for what is opened anew. An incomplete one changes with every fill, so it
 * is only looked at when it is opened again.
 */
#include "content_private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <attachfs/log.h>

/* Looks. */

uint32_t content_look(const struct stat *st)
{
	const uint64_t seen[] = {(uint64_t)st->st_ino, (uint64_t)st->st_size,
				 (uint64_t)st->st_mtim.tv_sec, (uint64_t)st->st_mtim.tv_nsec};
	uint32_t look = (uint32_t)XXH3_64bits(seen, sizeof seen);

	return look ? look : 1;
}

uint32_t content_look_at(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? content_look(&st) : 0;
}

void content_trust_locked(struct content *c, uint32_t look)
{
	struct content_live *live = c->live;

	ranges_clear(&live->doubted);
	block_hashes_clear(&live->hashes);
	content_arrival_forget_locked(c);
	live->hashes_loaded = false;
	c->look = live->look = look;
}

/* Its bytes end here, in its own file. */
static uint64_t end_locked(const struct content *c)
{
	const struct ranges *present = &c->live->present;

	if (c->complete)
		return (uint64_t)c->size;
	return present->count > 0 ? present->at[present->count - 1].end : 0;
}

/* After the start, or somebody has touched it. */
static int doubt_all_locked(struct content *c)
{
	ranges_clear(&c->live->doubted);
	return ranges_add(&c->live->doubted, 0, (uint64_t)c->size);
}

int content_vouch_locked(struct content *c, int fd, uint64_t off, uint64_t *len)
{
	struct content_live *live = c->live;
	struct range next;
	struct stat st;
	uint32_t look;
	int r = 0;

	if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_size < off + *len)
		return 1;
	look = content_look(&st);
	if (c->complete && c->has_hash && look != live->look) {
		live->look = look;
		r = look != c->look ? doubt_all_locked(c) : 0;
	}
	if (r < 0) {
		live->look = 0;
		return r;
	}
	if (live->doubted.count == 0 || !ranges_next(&live->doubted, off, &next) ||
	    next.first >= off + *len)
		return 0;
	if (next.first > off) {
		*len = next.first - off;
		return 0;
	}
	if (*len > next.end - off)
		*len = next.end - off;
	return 1;
}

/* Losing. */

static void tell_locked(struct content *c, const char *name, const char *what)
{
	struct content_store *s = c->store;
	char object[CONTENT_NAME_BYTES];

	if (c->live->told)
		return;
	c->live->told = true;
	content_name(c->file, object);
	log_warning("cache: '%s': its copy '%s/objects/%s' %s: it is fetched again",
		    name ? name : c->key, s->dir, object, what);
}

/* Not complete any more: the ranges tell what is there. */
static int open_up_locked(struct content *c)
{
	int r = c->complete ? ranges_add(&c->live->present, 0, (uint64_t)c->size) : 0;

	if (r < 0 || !c->complete)
		return r;
	pthread_mutex_lock(&c->store->lock);
	content_remove_hash_store_locked(c);
	c->live->had_hash = c->has_hash;
	c->has_hash = false;
	c->complete = false;
	pthread_mutex_unlock(&c->store->lock);
	return 0;
}

/* It is charged for what is there, no more. */
static void give_back_locked(struct content *c)
{
	uint64_t present = c->live->present.bytes;

	if (c->charged <= present)
		return;
	content_refund(c->store, c->charged - present, false);
	c->charged = present;
}

int content_lose_all_locked(struct content *c)
{
	struct content_live *live = c->live;
	int r = content_retire_room_locked(c, 1);

	if (r < 0)
		return r;
	pthread_mutex_lock(&c->store->lock);
	content_pass_charge_store_locked(c);
	pthread_mutex_unlock(&c->store->lock);
	r = open_up_locked(c);
	if (r < 0)
		return r;
	live->had_hash = false;
	ranges_clear(&live->present);
	content_trust_locked(c, 0);
	give_back_locked(c);
	if (live->fd >= 0)
		content_retire_locked(c, live->fd, NULL);
	live->fd = -1;
	content_unlink(c->store, c->file);
	return 0;
}

/* [first, end) of a file of its own is not there any more. */
static int lose_part_locked(struct content *c, uint64_t first, uint64_t end)
{
	struct content_live *live = c->live;
	int r = open_up_locked(c);

	content_arrival_forget_locked(c);
	if (r == 0)
		r = ranges_remove(&live->doubted, first, end);
	if (r == 0)
		r = block_hashes_forget(&live->hashes, first / CONTENT_BLOCK_BYTES,
					(end - 1) / CONTENT_BLOCK_BYTES + 1);
	if (r == 0)
		r = ranges_remove(&live->present, first, end);
	give_back_locked(c);
	return r;
}

/*
 * A file that others have a name of is let go of as a whole: what comes from the server for this
 * content must not be written into theirs.
 */
static int lose_clean_locked(struct content *c, uint64_t first, uint64_t end, const char *name,
			     const char *what)
{
	struct stat st;
	bool alone = c->live->fd >= 0 && fstat(c->live->fd, &st) == 0 && st.st_nlink == 1;
	int r;

	tell_locked(c, name, what);
	r = alone ? lose_part_locked(c, first, end) : content_lose_all_locked(c);
	return r < 0 ? r : 1;
}

void content_reopened_locked(struct content *c, int fd)
{
	struct stat st;
	bool good = fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size >= end_locked(c) &&
		    (c->look == 0 || content_look(&st) == c->look);

	if (good)
		return;
	tell_locked(c, NULL, "was changed by somebody");
	ranges_clear(&c->live->present);
	content_trust_locked(c, 0);
	give_back_locked(c);
}

/* Dirty and bad. */

/* A second name for its file, so that it stays whatever becomes of the content. */
static bool keep_file(struct content_store *s, const char *object, char target[NAME_MAX + 16])
{
	struct stat st, other;
	int r = -EEXIST;

	if (fstatat(s->objects_fd, object, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	for (unsigned n = 0; n < 10000 && r == -EEXIST; n++) {
		snprintf(target, NAME_MAX + 16, n ? "%s.%u" : "%s", object + 3, n);
		if (fstatat(s->lost_fd, target, &other, AT_SYMLINK_NOFOLLOW) == 0 &&
		    other.st_ino == st.st_ino)
			return true; /* by the last daemon */
		r = linkat(s->objects_fd, object, s->lost_fd, target, 0) < 0 ? -errno : 0;
	}
	if (r < 0)
		return false;
	pthread_mutex_lock(&s->lock);
	s->lost_files++;
	pthread_mutex_unlock(&s->lock);
	return true;
}

static int refuse_dirty_locked(struct content *c, const char *name, const char *what)
{
	struct content_store *s = c->store;
	char object[CONTENT_NAME_BYTES], target[NAME_MAX + 16], number[32];
	bool kept;

	if (c->live->told)
		return -EIO;
	c->live->told = true;
	content_name(c->file, object);
	kept = keep_file(s, object, target);
	snprintf(number, sizeof number, "content %llu", (unsigned long long)c->id);
	log_error("cache: '%s': what was written, but not sent yet, '%s/objects/%s', %s: it is "
		  "neither shown nor sent%s%s",
		  name ? name : number, s->dir, object, what,
		  kept ? "; what is left of it is kept as lost+found/" : "", kept ? target : "");
	return -EIO;
}

static int lose_locked(struct content *c, uint64_t first, uint64_t end, const char *name,
		       const char *what)
{
	return c->dirty ? refuse_dirty_locked(c, name, what)
			: lose_clean_locked(c, first, end, name, what);
}

/* Comparing. */

struct hashes_of_row {
	struct block_hashes found;
};

static int take_hashes(void *ctx, const struct ledger_content *row)
{
	struct hashes_of_row *h = ctx;
	struct ranges bytes = {0};
	int r = row->complete ? ranges_add(&bytes, 0, (uint64_t)row->size)
			      : ranges_load(&bytes, row->ranges, row->ranges_len);

	if (r == 0)
		r = block_hashes_unpack(&h->found, &bytes, row->size, row->block_hashes,
					row->block_hashes_len);
	ranges_clear(&bytes);
	return r == -EINVAL ? 0 : r; /* a row without them */
}

int content_load_hashes(struct content *c)
{
	struct hashes_of_row row = {0};
	bool loaded;
	int r;

	content_lock(c);
	loaded = c->live->hashes_loaded;
	content_unlock(c);
	if (loaded)
		return 0;
	r = ledger_one_content(c->store->ledger, c->id, take_hashes, &row);
	if (r == -ENOENT)
		r = 0;
	content_lock(c);
	if (r == 0 && !c->live->hashes_loaded) {
		/* of what has arrived since there may be some already */
		r = block_hashes_add(&row.found, &c->live->hashes);
	}
	if (r == 0 && !c->live->hashes_loaded) {
		block_hashes_clear(&c->live->hashes);
		c->live->hashes = row.found;
		row.found = (struct block_hashes){0};
		c->live->hashes_loaded = true;
	}
	content_unlock(c);
	block_hashes_clear(&row.found);
	return r;
}

#define SETTLED 2

/* One block on its way to be compared. */
struct compared {
	uint64_t first, end, hash;
	uint32_t look;
	int fd;
};

/*
 * What is to be compared at @off: 0 and *@ret_block; 1: something was lost; SETTLED: nothing is; -errno.
 * In and out with the lock held.
 */
static int begin_locked(struct content *c, uint64_t off, const char *name,
			struct compared *ret_block)
{
	uint64_t block = off / CONTENT_BLOCK_BYTES, end = end_locked(c);
	struct compared b = {.first = block * CONTENT_BLOCK_BYTES, .look = c->live->look};
	struct stat st;

	if (off >= end)
		return SETTLED;
	b.fd = content_fd_locked(c, false);
	if (b.fd < 0 && b.fd != -ENOENT)
		return b.fd;
	if (b.fd < 0)
		return lose_locked(c, 0, end, name, "is gone");
	if (fstat(b.fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < end)
		return lose_locked(c, (uint64_t)st.st_size, end, name, "was cut");
	b.end = b.first + CONTENT_BLOCK_BYTES;
	if (c->size >= 0 && b.end > (uint64_t)c->size)
		b.end = (uint64_t)c->size;
	if (!ranges_has(&c->live->doubted, off, off + 1))
		return SETTLED;
	if (!block_hashes_get(&c->live->hashes, block, &b.hash))
		return lose_locked(c, b.first, b.end, name, "is not known to be right");
	*ret_block = b;
	return 0;
}

/*
 * The disk does not give [first, end): what the server has is fetched again. What it does not have may be
 * there again when the disk is well: its file stays as it is.
 */
static int unreadable_locked(struct content *c, uint64_t first, uint64_t end, const char *name,
			     int error)
{
	char object[CONTENT_NAME_BYTES], what[64];

	content_name(c->file, object);
	if (c->dirty)
		return log_errno(
			error,
			"cache: '%s': what was written, but not sent yet, '%s/objects/%s', "
			"cannot be read at %llu: the disk fails",
			name ? name : "a file", c->store->dir, object, (unsigned long long)first);
	snprintf(what, sizeof what, "cannot be read (%s)", strerror(-error));
	return lose_clean_locked(c, first, end, name, what);
}

int content_unreadable(struct content *owner, uint64_t off, int error)
{
	uint64_t first = off - off % CONTENT_BLOCK_BYTES, end = first + CONTENT_BLOCK_BYTES;
	int r;

	content_lock(owner);
	if (owner->size >= 0 && end > (uint64_t)owner->size)
		end = (uint64_t)owner->size;
	r = unreadable_locked(owner, first, end, NULL, error);
	content_unlock(owner);
	return r;
}

/*
 * @error: of reading it; else @good: the bytes are those of the hash. In and out with the lock held.
 */
static int end_compare_locked(struct content *c, const struct compared *b, int error, bool good,
			      const char *name)
{
	int r;

	/* touched meanwhile, or another has compared it */
	if (b->look != c->live->look || !ranges_has(&c->live->doubted, b->first, b->first + 1))
		return 0;
	if (error)
		return unreadable_locked(c, b->first, b->end, name, error);
	if (!good)
		return lose_locked(c, b->first, b->end, name, "has other bytes than were stored");
	r = ranges_remove(&c->live->doubted, b->first, b->end);
	if (r == 0 && c->live->doubted.count == 0 && c->complete)
		content_trust_locked(c, c->live->look);
	return r;
}

/* One buffer stays for the next, which is cheaper than memory fresh from the kernel each time. */
static unsigned char *take_buffer(struct content_store *s)
{
	unsigned char *buffer = atomic_exchange(&s->spare_block, NULL);

	return buffer ? buffer : malloc(CONTENT_BLOCK_BYTES);
}

static void leave_buffer(struct content_store *s, unsigned char *buffer)
{
	free(atomic_exchange(&s->spare_block, buffer));
}

/* 0: it was right, or is another's to say; 1: something is missing now; -errno. No lock held. */
static int compare(struct content *c, uint64_t off, const char *name)
{
	unsigned char *buffer = take_buffer(c->store);
	struct compared b = {.fd = -1};
	int r = buffer ? content_load_hashes(c) : -ENOMEM;
	bool good;

	if (r == 0) {
		content_lock(c);
		r = begin_locked(c, off, name, &b);
		content_unlock(c);
		if (r == 0) {
			size_t len = (size_t)(b.end - b.first);

			r = content_read_block(b.fd, buffer, len, b.first);
			good = r == 0 && block_hash(buffer, len) == b.hash;
			content_lock(c);
			r = end_compare_locked(c, &b, r, good, name);
			content_unlock(c);
		}
	}
	if (buffer)
		leave_buffer(c->store, buffer);
	return r == SETTLED ? 0 : r;
}

int content_check(struct content *c, uint64_t off, uint64_t len, const char *name)
{
	struct content_extent e;
	bool lost = false;
	int r = 0;

	while (len > 0 && r >= 0) {
		content_lock(c);
		r = content_map_locked(c, off, len, &e);
		content_unlock(c);
		if (r < 0 || e.where == CONTENT_END)
			break;
		if (e.where == CONTENT_DOUBTED) {
			r = compare(e.owner, e.owner_off, name);
			lost |= r > 0;
			continue;
		}
		off += e.len;
		len -= e.len;
	}
	return r < 0 ? r : lost;
}

int content_recheck(struct content *c, const char *name)
{
	uint64_t end = 0;
	int fd;

	content_lock(c);
	if (c->complete && c->has_hash && c->size > 0) {
		end = (uint64_t)c->size;
		c->look = c->live->look = 0;
		fd = content_fd_locked(c, false);
		if (fd >= 0)
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	} else {
		end = end_locked(c);
	}
	content_unlock(c);
	return content_check(c, 0, end, name);
}
