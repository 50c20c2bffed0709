/* SPDX-License-Identifier: MIT */
/*
 * From a chain to one file, and from the user's to the server's version.
 *
 * Each of the three may be cut off by a kill between any two system calls. What a row says stays
 * true until the one commit that replaces it:
 *
 *	flatten  fills gaps of the content's own file, which its row (ranges, base) does not
 *	         look at. The new row (complete) is put when the bytes are on the disk.
 *	merge    writes into the file of a base that nothing but this content can reach any more
 *	         (dropped, one reference, and the ledger on disk knows it), only where the
 *	         content's own ranges cover it. One commit then gives the content the base's
 *	         file, and makes the base's row a reminder to delete the content's old one. Of a
 *	         base that is not wanted any more the hashes are not believed, for that reason.
 *	clean    is one change of the row.
 *
 * So a start finds one state or the other and has nothing to redo but what it is asked for again.
 */
#include "content_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <attachfs/log.h>

#include "crashpoint.h"

/* Fill [off, end) of @fd from below @c. Busy, so neither the base nor the ranges change; the base's
 * bytes may be copied unlocked. */
static int fill_gap(struct content *c, int fd, struct range gap)
{
	struct content_extent e;
	int r = 0;

	for (uint64_t off = gap.first; off < gap.end && r == 0; off += e.len) {
		content_lock(c);
		r = content_map_locked(c, off, gap.end - off, &e);
		content_unlock(c);
		if (r < 0)
			break;
		if (e.where == CONTENT_FILE)
			r = content_copy(e.fd, fd, off, e.len);
		else if (e.where == CONTENT_ZERO)
			r = content_zero(fd, off, e.len);
		else
			r = e.where == CONTENT_DOUBTED ? -EAGAIN : -ENODATA;
	}
	return r;
}

/* How many bytes have to come from below; -ENODATA when some are on the server only. */
static int count_below_locked(struct content *c, uint64_t *ret_bytes)
{
	struct content_extent e;
	struct range gap;
	int r;

	*ret_bytes = 0;
	for (uint64_t off = 0; ranges_next_gap(&c->live->present, off, (uint64_t)c->size, &gap);
	     off = gap.first + e.len) {
		r = content_map_locked(c, gap.first, gap.end - gap.first, &e);
		if (r < 0)
			return r;
		if (e.where == CONTENT_MISSING || e.where == CONTENT_MEMORY)
			return -ENODATA;
		if (e.where == CONTENT_DOUBTED)
			return -EAGAIN; /* touched since it was checked */
		if (e.where == CONTENT_FILE)
			*ret_bytes += e.len;
	}
	return 0;
}

/*
 * Bring what is below into @fd, and the end of file to its place; and that to the disk, also when it
 * is nothing but zeros: the new row takes the place of one that may be safe there.
 */
static int fill_gaps(struct content *c, int fd, uint64_t size)
{
	struct range gap;
	uint64_t off = 0;
	int r = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;

	while (r == 0) {
		bool more;

		content_lock(c);
		more = ranges_next_gap(&c->live->present, off, size, &gap);
		content_unlock(c);
		if (!more)
			break;
		r = fill_gap(c, fd, gap);
		off = gap.end;
	}
	if (r == 0)
		r = content_sync_file(c->store, c->file);
	return r;
}

/* The file holds all of it: let the base go and say so. */
static int become_complete(struct content *c, uint64_t copied, uint32_t look,
			   const uint8_t hash[LEDGER_HASH_BYTES],
			   const struct content_hashes *hashes)
{
	struct content_live *live = c->live;
	int r;

	content_lock(c);
	r = live->base ? content_retire_room_locked(c, 1) : 0;
	if (r == 0) {
		if (live->base)
			content_retire_locked(c, -1, live->base);
		live->base = NULL;
		live->base_len = 0;
		c->complete = true;
		c->has_hash = true;
		c->charged += copied;
		memcpy(c->hash, hash, LEDGER_HASH_BYTES);
		ranges_clear(&live->present);
		content_trust_locked(c, look);
		r = content_put_row_locked(c, hashes);
		/* the server was quicker */
		pthread_mutex_lock(&c->store->lock);
		content_insert_hash_store_locked(c);
		pthread_mutex_unlock(&c->store->lock);
	}
	content_unlock(c);
	return r;
}

/* Busy. @bytes have been reserved for what comes from below. */
static int flatten(struct content *c, int fd, uint64_t size, bool complete, uint64_t bytes)
{
	struct content_hashes hashes = {0};
	uint8_t hash[LEDGER_HASH_BYTES];
	uint64_t *blocks = NULL;
	uint32_t look;
	int r = 0;

	if (!complete)
		r = fill_gaps(c, fd, size);
	if (!complete)
		crash_point("flatten.filled");
	look = size > 0 ? content_look_at(fd) : 0;
	if (r == 0)
		r = content_hash_file(c->store, fd, size, hash, &blocks, &hashes.count);
	if (r == 0) {
		hashes.blocks = blocks;
		hashes.on_disk = !complete;
		r = become_complete(c, bytes, look, hash, &hashes);
	}
	crash_point("flatten.row");
	free(blocks);
	/* The base may go from the disk only when nothing there needs it. */
	if (r == 0 && !complete)
		r = ledger_sync(c->store->ledger);
	if (!complete)
		crash_point("flatten.synced");
	return r;
}

int content_flatten(struct content *c)
{
	uint64_t bytes = 0, size;
	bool complete, done;
	int fd = 0, r = content_check(c, 0, UINT64_MAX, NULL);

	if (r != 0)
		return r < 0 ? r : -EAGAIN;
	content_lock(c);
	content_begin_busy_locked(c);
	size = (uint64_t)c->size;
	complete = c->complete;
	done = complete && c->has_hash;
	if (!done && !(c->dirty && c->sealed))
		r = -EINVAL;
	if (r == 0 && !complete)
		r = count_below_locked(c, &bytes);
	content_unlock(c);
	if (r == 0 && !done) {
		r = content_reserve(c->store, bytes, true);
		if (r < 0)
			bytes = 0;
	}
	if (r == 0 && !done && size > 0) {
		content_lock(c);
		fd = content_fd_locked(c, !complete);
		content_unlock(c);
		r = fd < 0 ? fd : 0;
	}
	if (r == 0 && !done)
		r = flatten(c, fd, size, complete, bytes);
	content_lock(c);
	if (bytes > 0 && !c->complete)
		content_refund(c->store, bytes, true);
	content_end_busy_locked(c);
	content_unlock(c);
	return r;
}

/* Merging. */

struct merge {
	struct content *c, *base;
	int from, to;	   /* c's file, the base's */
	uint64_t reserved; /* for what of c's ranges the base did not have */
	struct ranges present;
	uint64_t base_len;
};

/* Its file is about to be written to, so it can be compared with nothing any more. */
static void forget_hash_locked(struct content *base)
{
	base->has_hash = false;
	content_trust_locked(base, 0);
}

/* The base, taken out of the table so that nobody else can get hold of it; NULL when somebody has,
 * or it is still wanted. */
static struct content *take_base(struct content *c)
{
	struct content_store *s = c->store;
	struct content *base;

	content_lock(c);
	base = c->dirty && c->sealed && !c->complete ? c->live->base : NULL;
	if (base) {
		content_lock(base);
		pthread_mutex_lock(&s->lock);
		if (base->dirty && base->sealed && base->dropped && base->refs == 1)
			content_remove_store_locked(base);
		else
			base = NULL;
		pthread_mutex_unlock(&s->lock);
		if (base)
			forget_hash_locked(base);
		content_unlock(c->live->base);
	}
	content_unlock(c);
	return base;
}

static void put_base_back(struct content *base)
{
	pthread_mutex_lock(&base->store->lock);
	content_insert_store_locked(base);
	pthread_mutex_unlock(&base->store->lock);
}

/* What @c will show of the base's file, and how much room that takes more. */
static int plan_merge_locked(struct merge *m)
{
	struct content *base = m->base;
	struct content_live *live = m->c->live;
	uint64_t shown = live->base_len;
	struct stat st;
	int r = 0;

	if (base->complete)
		r = ranges_add(&m->present, 0, (uint64_t)base->size);
	else
		r = ranges_load(&m->present, base->live->present.at,
				base->live->present.count * sizeof(struct range));
	if (r == 0)
		r = ranges_remove(&m->present, shown, UINT64_MAX);
	m->reserved = live->present.bytes;
	for (size_t i = 0; i < live->present.count && r == 0; i++) {
		m->reserved -= ranges_overlap(&m->present, live->present.at[i].first,
					      live->present.at[i].end);
		r = ranges_add(&m->present, live->present.at[i].first, live->present.at[i].end);
	}
	m->base_len = base->live->base_len < shown ? base->live->base_len : shown;
	if (r == 0)
		r = content_retire_room_locked(m->c, base->live->retired_count + 1);
	if (r == 0) {
		m->from = content_fd_locked(m->c, live->present.count > 0);
		m->to = content_fd_locked(base, true);
		r = m->from < 0 && m->from != -ENOENT ? m->from : m->to < 0 ? m->to : 0;
	}
	/* it was clean, and shared, in the life before this one, which did not get to say so */
	if (r == 0 && (fstat(m->to, &st) < 0 || st.st_nlink > 1))
		r = -EMLINK;
	return r;
}

/* Busy: the ranges of the content stay what they are. */
static int copy_down(const struct merge *m)
{
	const struct ranges *ranges = &m->c->live->present;
	int r = 0;

	for (size_t i = 0; i < ranges->count && r == 0; i++)
		r = content_copy(m->from, m->to, ranges->at[i].first,
				 ranges->at[i].end - ranges->at[i].first);
	if (r == 0 && ftruncate(m->to, (off_t)m->c->size) < 0)
		r = -errno;
	/* the file may be new: a base without bytes of its own had none */
	if (r == 0)
		r = content_sync_file(m->c->store, m->base->file);
	return r;
}

/* The rows, in one commit. @c has the base's file already. */
static int put_merged_rows_locked(struct merge *m, uint64_t old_file)
{
	struct content_store *s = m->c->store;
	struct content_hashes hashes = {.on_disk = true};
	struct ledger_content reminder = {.id = m->base->id,
					  .kind = LEDGER_CONTENT_DROPPED,
					  .file = old_file,
					  .on_disk = true};
	int r;

	ledger_group_begin(s->ledger);
	r = ledger_put_content(s->ledger, &reminder);
	if (r == 0)
		r = content_put_row_locked(m->c, &hashes);
	ledger_group_end(s->ledger);
	return r;
}

/* Whether content_sync() has got hold of it meanwhile, the only one that can. */
static bool still_alone(struct content *base)
{
	bool alone;

	pthread_mutex_lock(&base->store->lock);
	alone = base->refs == 1;
	pthread_mutex_unlock(&base->store->lock);
	return alone;
}

/*
 * The content takes over file, descriptor and base of its base, of which nothing is left but the
 * content's old file to delete.
 */
static int take_over_locked(struct merge *m)
{
	struct content *c = m->c, *base = m->base;
	struct content_live *live = c->live;
	struct content_doomed old = {
		.row = base->id, .file = c->file, .charged = c->charged, .after_sync = true};
	uint64_t had = base->charged + m->reserved;
	int r;

	content_retire_locked(c, live->fd, NULL);
	for (size_t i = 0; i < base->live->retired_count; i++)
		content_retire_locked(c, base->live->retired[i].fd, base->live->retired[i].base);
	base->live->retired_count = 0;
	live->fd = base->live->fd;
	base->live->fd = -1;
	c->file = base->file;
	c->charged = had < m->present.bytes ? had : m->present.bytes;
	ranges_clear(&live->present);
	live->present = m->present;
	m->present = (struct ranges){0};
	live->base = base->live->base;
	live->base_len = live->base ? m->base_len : 0;
	base->live->base = NULL;
	if (live->present.bytes == (uint64_t)c->size && !live->base) {
		c->complete = true;
		ranges_clear(&live->present);
	}
	r = put_merged_rows_locked(m, old.file);
	content_refund(c->store, had - c->charged, true);
	pthread_mutex_lock(&c->store->lock);
	c->store->dirty_bytes -= old.charged;
	content_doom_store_locked(c->store, &old);
	pthread_mutex_unlock(&c->store->lock);
	return r;
}

static int merge(struct merge *m)
{
	struct content_store *s = m->c->store;
	int r = ledger_sync(s->ledger);

	crash_point("merge.synced");
	if (r < 0)
		return r;
	content_lock(m->c);
	content_lock(m->base);
	r = plan_merge_locked(m);
	content_unlock(m->base);
	content_unlock(m->c);
	if (r < 0)
		return r;
	r = content_reserve(s, m->reserved, true);
	if (r < 0)
		return r;
	r = copy_down(m);
	crash_point("merge.copied");
	if (r < 0)
		content_refund(s, m->reserved, true);
	return r;
}

/* Readers of the retired base keep what it handed out: its descriptors go on with the content, the
 * rest here. */
static void bury_base(struct content *base)
{
	content_live_free(base->live);
	content_free(base);
}

static int merge_base(struct merge *m)
{
	bool merged = false;
	int r = merge(m);

	if (r == 0) {
		content_lock(m->c);
		content_lock(m->base);
		merged = still_alone(m->base);
		if (merged)
			r = take_over_locked(m);
		crash_point("merge.row");
		content_unlock(m->base);
		content_unlock(m->c);
		if (!merged)
			content_refund(m->c->store, m->reserved, true);
	}
	if (merged)
		bury_base(m->base);
	else
		put_base_back(m->base);
	return r;
}

int content_merge(struct content *c)
{
	struct merge m = {.c = c};
	int r = 0;

	content_lock(c);
	content_begin_busy_locked(c);
	content_unlock(c);
	/* what it takes from the base has no hash any more */
	r = content_check(c, 0, UINT64_MAX, NULL);
	m.base = r == 0 ? take_base(c) : NULL;
	if (m.base)
		r = merge_base(&m);
	ranges_clear(&m.present);
	content_lock(c);
	content_end_busy_locked(c);
	content_unlock(c);
	return r;
}

/* Becoming clean. */

/* What had the key before goes when nobody uses it. Returns it when that is now. */
static struct content *displace_store_locked(struct content_store *s, const char *key)
{
	struct content *other = content_find_key_store_locked(s, key);

	if (!other)
		return NULL;
	content_remove_key_store_locked(other);
	other->dropped = true;
	if (other->refs > 0) {
		content_mark_store_locked(other);
		return NULL;
	}
	content_lru_remove_store_locked(other);
	content_destroy_store_locked(other);
	return other;
}

static int become_clean_locked(struct content *c, char **key, struct content **ret_displaced)
{
	struct content_store *s = c->store;
	int r;

	pthread_mutex_lock(&s->lock);
	r = ledger_clean_content(s->ledger, c->id, *key);
	if (r == 0) {
		if (!c->dropped) {
			char *old = c->key;

			content_remove_key_store_locked(c);
			*ret_displaced = displace_store_locked(s, *key);
			c->key = *key;
			*key = old;
			content_insert_key_store_locked(c);
		}
		if (c->dirty) {
			c->was_dirty = true;
			s->dirty_bytes -= c->charged;
		}
		c->dirty = false;
		content_insert_hash_store_locked(c);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

int content_become_clean(struct content *c, const char *key)
{
	struct content *displaced = NULL;
	char *copy = strdup(key);
	int r = copy ? 0 : -ENOMEM;

	content_lock(c);
	if (r == 0 && !c->complete)
		r = -EINVAL;
	if (r == 0)
		r = become_clean_locked(c, &copy, &displaced);
	crash_point("clean.row");
	content_unlock(c);
	if (displaced) {
		content_live_free(displaced->live);
		content_free(displaced);
	}
	free(copy);
	return r;
}
