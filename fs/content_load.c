/* SPDX-License-Identifier: MIT */
/*
 * The start: what the rows say against what is in the directory.
 *
 *	row              file                     becomes
 *	clean, complete  of its size              idle, evictable, doubted
 *	clean, complete  else                     nothing; the file is deleted. Reported
 *	clean, else      long enough              idle, evictable, doubted: the blocks that have
 *	                                          a hash. Below a dirty one: all its ranges say
 *	clean, else      else                     nothing; the file is deleted. Below a dirty
 *	                                          one: empty
 *	dirty            holds its ranges         idle, sealed
 *	dirty            does not                 stays out of the store, row and file as they
 *	                                          are; reported at every start
 *	dirty, suspect   of its hash              idle, sealed
 *	dirty, suspect   else                     row dropped, file to lost+found, reported; what its
 *	                                          node had `before` is taken for not dropped
 *	dropped          any                      row and file deleted, unless below a wanted one
 *	none             empty                    deleted
 *	none             else                     lost+found, reported
 *
 * Rows come by id, and a base is older than what lies over it, so one pass judges bases first. All
 * of it happens before anybody else knows the store: no locks.
 */
#include "content_load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "crashpoint.h"

int content_load_room(void **array, size_t *room, size_t count, size_t size)
{
	size_t more = *room ? *room * 2 : 64;
	void *fresh;

	if (count < *room)
		return 0;
	fresh = realloc(*array, more * size);
	if (!fresh)
		return -ENOMEM;
	*array = fresh;
	*room = more;
	return 0;
}

/* Rows. */

static struct content *content_of_row(struct load *load, const struct ledger_content *row)
{
	struct content *c = content_alloc(load->store, row->id);

	if (!c)
		return NULL;
	c->file = row->file;
	c->size = row->size;
	c->dirty = row->kind == LEDGER_CONTENT_DIRTY;
	c->sealed = c->dirty;
	c->complete = row->complete && row->size >= 0;
	c->has_hash = row->has_hash;
	memcpy(c->hash, row->hash, sizeof c->hash);
	c->has_row = true;
	c->pinned = row->pinned;
	c->dropped = row->dropped;
	c->before = row->before;
	c->used_s = c->row_used_s = (uint32_t)(row->used_ns / CLOCK_NS_PER_S);
	c->key = c->dirty ? NULL : strdup(row->key);
	if (!c->complete) {
		c->live = content_live_new();
		if (c->live)
			c->live->base_len = row->base_len;
	}
	if ((!c->dirty && !c->key) || (!c->complete && !c->live)) {
		content_live_free(c->live);
		content_free(c);
		return NULL;
	}
	return c;
}

/* -EINVAL when the ranges are damaged. */
static int load_ranges(struct content *c, const struct ledger_content *row)
{
	struct ranges *present;
	int r;

	if (c->complete)
		return 0;
	present = &c->live->present;
	r = ranges_load(present, row->ranges, row->ranges_len);
	if (r == 0 && c->size >= 0 && present->count > 0 &&
	    present->at[present->count - 1].end > (uint64_t)c->size)
		r = -EINVAL;
	if (r < 0)
		ranges_clear(present);
	return r;
}

/* A complete one is doubted when its file is looked at, of another what has a hash is from now on. */
static int load_hashes(struct content *c, const struct ledger_content *row)
{
	uint64_t blocks = c->size > 0 ? ((uint64_t)c->size - 1) / CONTENT_BLOCK_BYTES + 1 : 0;
	struct block_hashes h = {0};
	int r;

	if (c->complete) {
		c->has_hash = c->has_hash && row->block_hashes_len == blocks * sizeof(uint64_t);
		return 0;
	}
	if (c->dirty)
		return 0;
	r = block_hashes_unpack(&h, &c->live->present, c->size, row->block_hashes,
				row->block_hashes_len);
	for (size_t i = 0; i < h.blocks.count && r == 0; i++) {
		uint64_t end = h.blocks.at[i].end * CONTENT_BLOCK_BYTES;

		if (c->size >= 0 && end > (uint64_t)c->size)
			end = (uint64_t)c->size;
		r = ranges_add(&c->live->doubted, h.blocks.at[i].first * CONTENT_BLOCK_BYTES, end);
	}
	block_hashes_clear(&h);
	return r == -EINVAL ? 0 : r;
}

static void discard(struct loaded *row)
{
	if (!row->content)
		return;
	content_live_free(row->content->live);
	content_free(row->content);
	row->content = NULL;
}

static int add_row(void *ctx, const struct ledger_content *c)
{
	struct load *load = ctx;
	struct loaded *row;
	int r;

	if (content_load_room((void **)&load->rows, &load->room, load->count, sizeof *load->rows) <
		    0 ||
	    content_load_room((void **)&load->moved, &load->moved_room, load->moved_count,
			      sizeof *load->moved) < 0)
		return -ENOMEM;
	row = &load->rows[load->count];
	*row = (struct loaded){.id = c->id,
			       .file = c->file,
			       .file_size = -1,
			       .reminder = c->kind == LEDGER_CONTENT_DROPPED,
			       .dropped = c->dropped,
			       .before = c->before,
			       .suspect = c->suspect,
			       .unsynced = c->unsynced};
	if (c->file != c->id)
		load->moved[load->moved_count++] = load->count;
	load->count++;
	if (c->id >= load->store->next_id)
		load->store->next_id = c->id + 1;
	if (row->reminder)
		return 0;
	row->content = content_of_row(load, c);
	if (!row->content)
		return -ENOMEM;
	row->base = row->content->dirty && !row->content->complete ? c->base : 0;
	r = load_ranges(row->content, c);
	if (r == -EINVAL && row->content->dirty) {
		log_error("content: %llu: its ranges are damaged, its file %llu is left alone",
			  (unsigned long long)c->id, (unsigned long long)c->file);
		discard(row);
	}
	if (r == 0)
		r = load_hashes(row->content, c);
	return r == -EINVAL ? 0 : r;
}

struct loaded *content_load_row(struct load *load, uint64_t id)
{
	size_t low = 0, high = load->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (load->rows[mid].id < id)
			low = mid + 1;
		else
			high = mid;
	}
	return low < load->count && load->rows[low].id == id ? &load->rows[low] : NULL;
}

struct loaded *content_load_file(struct load *load, uint64_t file)
{
	struct loaded *row = content_load_row(load, file);

	if (row && row->file == file)
		return row;
	for (size_t i = 0; i < load->moved_count; i++)
		if (load->rows[load->moved[i]].file == file)
			return &load->rows[load->moved[i]];
	return NULL;
}

/* Judging. */

/*
 * Of a dropped one only what shows through is looked for: killed while it was merged with what lies
 * over it (content_flatten.c), its file may be of that one's size already.
 */
static bool file_holds_it(const struct loaded *row)
{
	const struct content *c = row->content;
	const struct ranges *present;

	if (c->dirty && row->dropped && row->file_size >= 0 &&
	    row->shown <= (uint64_t)row->file_size)
		return true;
	if (c->complete)
		return c->size == 0 || row->file_size == c->size;
	present = &c->live->present;
	return present->count == 0 ||
	       (row->file_size >= 0 &&
		(uint64_t)row->file_size >= present->at[present->count - 1].end);
}

/* Whether the dirty content is what its close() promised. */
static bool accept_dirty(struct load *load, struct loaded *row)
{
	struct content *c = row->content;
	const struct loaded *base = row->base ? content_load_row(load, row->base) : NULL;

	if (row->torn)
		return false;
	if (row->base && !(base && base->content && base->id < row->id)) {
		log_error("content: %llu: what it lies over (%llu) is missing, its file %llu is "
			  "left alone",
			  (unsigned long long)row->id, (unsigned long long)row->base,
			  (unsigned long long)row->file);
		return false;
	}
	if (!file_holds_it(row)) {
		log_error("content: %llu: its file %llu is missing or too short (%lld bytes)",
			  (unsigned long long)row->id, (unsigned long long)row->file,
			  (long long)row->file_size);
		return false;
	}
	/* killed while it was merged with what lies over it, its file may be written to already */
	if (row->dropped)
		c->has_hash = false;
	if (base)
		c->live->base = content_ref_store_locked(base->content);
	c->charged = c->complete
			     ? (row->charged < (uint64_t)c->size ? row->charged : (uint64_t)c->size)
			     : c->live->present.bytes;
	return !base || c->live->base;
}

/* To be told when somebody knows what a person calls it: content_store_tell_changed(). */
static void note_changed(struct content_store *s, const struct loaded *row)
{
	struct content_changed *note = calloc(1, sizeof(*note));

	if (!note)
		return;
	note->key = strdup(row->content->key);
	note->file = row->file;
	note->gone = row->file_size < 0;
	note->next = s->changed;
	s->changed = note;
}

/* Nothing dirty needs it: what can be compared with a hash is worth to be kept. */
static bool accept_idle(struct content *c)
{
	struct content_live *live = c->live;

	if (c->complete) {
		c->charged = (uint64_t)c->size;
		return c->has_hash || c->size == 0;
	}
	ranges_clear(&live->present);
	if (ranges_load(&live->present, live->doubted.at,
			live->doubted.count * sizeof(*live->doubted.at)) < 0)
		return false;
	c->charged = live->present.bytes;
	return live->present.bytes > 0;
}

/* Whether to keep a clean content. One that lies below a dirty one is kept even with nothing in it:
 * its key tells what to fetch. */
static bool accept_clean(struct content_store *s, struct loaded *row)
{
	struct content *c = row->content;
	bool good = !row->suspect && file_holds_it(row);

	if (!row->suspect && !good && c->complete && !row->dropped)
		note_changed(s, row);
	if (!row->needed)
		return good && !row->dropped && accept_idle(c);
	if (good && c->complete) {
		c->charged = (uint64_t)c->size;
		return true;
	}
	if (c->complete) {
		c->live = content_live_new();
		c->complete = c->has_hash = false;
		if (!c->live)
			return false;
	}
	if (!good) {
		ranges_clear(&c->live->present);
		ranges_clear(&c->live->doubted);
	}
	c->charged = c->live->present.bytes;
	return true;
}

static void judge(struct load *load, struct loaded *row)
{
	struct content_store *s = load->store;
	struct content *c = row->content;

	if (row->reminder || (row->dropped && !row->needed) ||
	    (c && !c->dirty && !accept_clean(s, row))) {
		content_unlink(s, row->file);
		ledger_drop_content(s->ledger, row->id);
		discard(row);
		return;
	}
	if (!c)
		return;
	if (c->dirty && !accept_dirty(load, row)) {
		discard(row);
		return;
	}
	s->used += c->charged;
	if (c->dirty)
		s->dirty_bytes += c->charged;
	content_insert_store_locked(c);
	if (!c->dirty && !c->dropped && !content_find_key_store_locked(s, c->key))
		content_insert_key_store_locked(c);
	content_insert_hash_store_locked(c);
}

static int by_inode(const void *a, const void *b)
{
	const struct loaded *x = *(struct loaded *const *)a, *y = *(struct loaded *const *)b;

	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return x->id < y->id ? -1 : 1;
}

/* Of clean contents that share a file only the first is charged. */
static int count_shared_once(struct load *load)
{
	struct loaded **sharing = calloc(load->count ? load->count : 1, sizeof(*sharing));
	size_t count = 0;

	if (!sharing)
		return -ENOMEM;
	for (size_t i = 0; i < load->count; i++) {
		const struct content *c = load->rows[i].content;

		if (c && c->hashed && load->rows[i].inode)
			sharing[count++] = &load->rows[i];
	}
	qsort(sharing, count, sizeof(*sharing), by_inode);
	for (size_t i = 1; i < count; i++) {
		if (sharing[i]->inode != sharing[i - 1]->inode)
			continue;
		load->store->used -= sharing[i]->content->charged;
		sharing[i]->content->charged = 0;
	}
	free(sharing);
	return 0;
}

static int by_use(const void *a, const void *b)
{
	const struct content *x = *(struct content *const *)a, *y = *(struct content *const *)b;

	if (x->used_s != y->used_s)
		return x->used_s < y->used_s ? -1 : 1;
	return x->id < y->id ? -1 : 1;
}

/* The evictable ones, in the order of their last use. */
static int fill_lru(struct load *load)
{
	struct content **idle = calloc(load->count ? load->count : 1, sizeof(struct content *));
	size_t count = 0;

	if (!idle)
		return -ENOMEM;
	for (size_t i = 0; i < load->count; i++) {
		struct content *c = load->rows[i].content;

		if (c && !c->dirty && c->refs == 0)
			idle[count++] = c;
	}
	qsort(idle, count, sizeof(struct content *), by_use);
	for (size_t i = 0; i < count; i++)
		content_lru_add_store_locked(idle[i]);
	free(idle);
	return 0;
}

/* What is wanted, youngest first: each may want what it lies over, or what was there before it. */
static void find_needed(struct load *load)
{
	for (size_t i = load->count; i-- > 0;) {
		struct loaded *row = &load->rows[i];
		struct loaded *base = row->base ? content_load_row(load, row->base) : NULL;

		if (row->dropped && !row->needed)
			continue;
		if (row->torn)
			content_load_want_before(load, row);
		if (!base || base >= row || row->torn)
			continue;
		base->needed = true;
		if (base->shown < row->content->live->base_len)
			base->shown = row->content->live->base_len;
	}
}

static int load_all(struct load *load, char *message, size_t size)
{
	struct content_store *s = load->store;
	bool unsynced = false;
	int r = ledger_each_content(s->ledger, add_row, load);

	if (r == 0)
		r = content_load_scan(load, "");
	if (r < 0) {
		snprintf(message, size, "%s: %s", s->dir, strerror(-r));
		return r;
	}
	for (size_t i = 0; i < load->count; i++)
		unsynced |= load->rows[i].unsynced;
	/* on a disk that is full or failing the files must go all the same */
	r = ledger_sync_left(s->ledger);
	if (r < 0)
		log_errno(r, "content: what was left cannot be synced");
	content_load_find_torn(load);
	find_needed(load);
	/* a base goes before what lies over it: neither row may be gone without the other */
	ledger_group_begin(s->ledger);
	for (size_t i = 0; i < load->count; i++)
		judge(load, &load->rows[i]);
	r = content_load_tell_torn(load);
	ledger_group_end(s->ledger);
	if (r == 0)
		r = count_shared_once(load);
	if (r < 0)
		return r;
	crash_point("start.judged");
	s->lost_files += content_load_count(s->lost_fd);
	content_load_orphans(load);
	/*
	 * If the last daemon was killed before some of these were synced: the next sync of the
	 * ledger vouches for all rows of before, and brings all to the disk for that.
	 */
	pthread_mutex_lock(&s->lock);
	if (!unsynced && s->unsynced_count == 0)
		s->unsynced_all = false;
	pthread_mutex_unlock(&s->lock);
	return fill_lru(load);
}

int content_load(struct content_store *s, char *message, size_t size)
{
	struct load load = {.store = s};
	int r = load_all(&load, message, size);

	/* Not in the tables, so nobody else frees them. */
	for (size_t i = 0; r < 0 && i < load.count; i++)
		if (load.rows[i].content && !content_find_store_locked(s, load.rows[i].id))
			discard(&load.rows[i]);
	for (size_t i = 0; i < load.orphan_count; i++)
		free(load.orphans[i]);
	free(load.orphans);
	free(load.moved);
	free(load.rows);
	return r;
}
