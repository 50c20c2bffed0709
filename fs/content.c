/* SPDX-License-Identifier: MIT */
/*
 * References and small questions.
 *
 * A reference is counted under store->lock, so that finding a content and getting hold of it is one
 * step, and losing the last reference decides once what becomes of it: deleted (dropped, or dirty
 * and never sealed), else kept, its descriptors closed, and when clean offered to eviction.
 */
#include "content_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#define MARK_SECONDS 60 /* the row of a used content is not touched more often */

void content_lock(const struct content *c)
{
	pthread_mutex_lock(&c->live->lock);
}

void content_unlock(const struct content *c)
{
	pthread_mutex_unlock(&c->live->lock);
}

struct content_live *content_live_new(void)
{
	struct content_live *live = calloc(1, sizeof *live);

	if (!live)
		return NULL;
	pthread_mutex_init(&live->lock, NULL);
	pthread_cond_init(&live->changed, NULL);
	live->fd = -1;
	return live;
}

/* What only one that is open needs in memory. */
static void forget_open(struct content_live *live)
{
	block_hashes_clear(&live->hashes);
	content_arrival_free(live->arrival);
	live->arrival = NULL;
	content_passing_clear(&live->passing);
}

/* Close descriptors and let retired bases go, but stay what it is. */
static void live_rest(struct content_live *live)
{
	if (live->fd >= 0)
		close(live->fd);
	live->fd = -1;
	for (size_t i = 0; i < live->retired_count; i++) {
		if (live->retired[i].fd >= 0)
			close(live->retired[i].fd);
		content_unref(live->retired[i].base);
	}
	live->retired_count = 0;
	forget_open(live);
}

void content_live_free(struct content_live *live)
{
	struct content *base;

	if (!live)
		return;
	base = live->base;
	live_rest(live);
	free(live->retired);
	ranges_clear(&live->present);
	ranges_clear(&live->room);
	ranges_clear(&live->doubted);
	pthread_cond_destroy(&live->changed);
	pthread_mutex_destroy(&live->lock);
	free(live);
	content_unref(base);
}

struct content *content_alloc(struct content_store *s, uint64_t id)
{
	struct content *c = malloc(sizeof *c);
	struct content empty = {.id = id, .store = s, .file = id, .size = -1};

	if (c)
		memcpy(c, &empty, sizeof *c);
	return c;
}

void content_free(struct content *c)
{
	free(c->key);
	free(c);
}

struct content *content_ref_store_locked(struct content *c)
{
	if (!c->live) {
		c->live = content_live_new();
		if (!c->live)
			return NULL;
	}
	if (c->refs++ == 0)
		content_lru_remove_store_locked(c);
	return c;
}

struct content *content_ref(struct content *c)
{
	pthread_mutex_lock(&c->store->lock);
	c->refs++;
	pthread_mutex_unlock(&c->store->lock);
	return c;
}

/* What changes in the row without the rest of it being known. */
void content_mark_store_locked(const struct content *c)
{
	if (!c->has_row)
		return;
	ledger_mark_content(c->store->ledger, c->id, (int64_t)c->used_s * CLOCK_NS_PER_S, c->pinned,
			    c->dropped, c->before);
}

/* It stays, unused. Returns what is to be freed of it without the lock. */
static struct content_live *park_store_locked(struct content *c)
{
	struct content_live *live = c->live;

	c->used_s = content_now_s();
	if (c->has_row && c->used_s - c->row_used_s >= MARK_SECONDS) {
		c->row_used_s = c->used_s;
		content_mark_store_locked(c);
	}
	content_lru_add_store_locked(c);
	if (!c->complete) {
		if (!c->dirty && live->unsaved > 0)
			content_keep_store_locked(c);
		return NULL;
	}
	c->live = NULL;
	return live;
}

/*
 * What an idle content keeps of its live part must not be closed behind the back of somebody who
 * has just found it again: the descriptors are taken out under the lock and closed after.
 */
static struct content_live take_rest_store_locked(struct content *c)
{
	struct content_live *live = c->live;
	struct content_live rest = {.fd = live->fd,
				    .retired = live->retired,
				    .retired_count = live->retired_count,
				    .hashes = live->hashes,
				    .arrival = live->arrival,
				    .passing = live->passing};

	if (!c->complete && !c->dirty && live->fd >= 0)
		c->look = content_look_at(live->fd);
	live->hashes = (struct block_hashes){0};
	live->arrival = NULL;
	live->hashes_loaded = live->told = false;
	live->passing = (struct content_passing){0};
	live->fd = -1;
	live->retired = NULL;
	live->retired_count = live->retired_room = 0;
	return rest;
}

void content_unref(struct content *c)
{
	struct content_store *s;
	struct content_live *live = NULL;
	struct content_live rest = {.fd = -1};
	bool destroyed = false;

	if (!c)
		return;
	s = c->store;
	pthread_mutex_lock(&s->lock);
	if (--c->refs == 0) {
		destroyed = c->dropped || (c->dirty && !c->sealed);
		if (destroyed) {
			live = c->live;
			content_destroy_store_locked(c);
		} else {
			rest = take_rest_store_locked(c);
			live = park_store_locked(c);
		}
	}
	pthread_mutex_unlock(&s->lock);
	live_rest(&rest);
	free(rest.retired);
	content_live_free(live);
	if (destroyed)
		content_free(c);
}

struct content *content_get(struct content_store *s, uint64_t id)
{
	struct content *c;

	pthread_mutex_lock(&s->lock);
	c = content_find_store_locked(s, id);
	if (c) {
		c->claimed = true;
		c = content_ref_store_locked(c);
	}
	pthread_mutex_unlock(&s->lock);
	return c;
}

struct content *content_peek_key(struct content_store *s, const char *key)
{
	struct content *c;

	pthread_mutex_lock(&s->lock);
	c = content_find_key_store_locked(s, key);
	if (c)
		c = content_ref_store_locked(c);
	pthread_mutex_unlock(&s->lock);
	return c;
}

/* In the tables, referenced, or NULL. */
static struct content *new_for_key_store_locked(struct content_store *s, const char *key)
{
	uint64_t id = content_new_id_store_locked(s);
	struct content *c = id ? content_alloc(s, id) : NULL;

	if (!c)
		return NULL;
	c->key = strdup(key);
	c->live = content_live_new();
	c->refs = 1;
	if (!c->key || !c->live) {
		content_live_free(c->live);
		content_free(c);
		return NULL;
	}
	content_insert_store_locked(c);
	content_insert_key_store_locked(c);
	return c;
}

struct content *content_for_key(struct content_store *s, const char *key, int64_t size)
{
	struct content *c;

	pthread_mutex_lock(&s->lock);
	c = content_find_key_store_locked(s, key);
	c = c ? content_ref_store_locked(c) : new_for_key_store_locked(s, key);
	pthread_mutex_unlock(&s->lock);
	if (c && size >= 0)
		content_set_size(c, (uint64_t)size);
	return c;
}

void content_drop(struct content *c)
{
	pthread_mutex_lock(&c->store->lock);
	c->dropped = true;
	content_mark_store_locked(c);
	content_remove_key_store_locked(c);
	pthread_mutex_unlock(&c->store->lock);
}

bool content_forget(struct content *c)
{
	struct content_store *s = c->store;
	bool may;

	pthread_mutex_lock(&s->lock);
	may = c->refs == 1 && c->keyed && !c->dirty && !c->pinned && !c->dropped;
	if (may) {
		c->dropped = true;
		content_mark_store_locked(c);
		content_remove_key_store_locked(c);
	}
	pthread_mutex_unlock(&s->lock);
	return may;
}

void content_set_before(struct content *c, uint64_t id)
{
	pthread_mutex_lock(&c->store->lock);
	if (c->before != id) {
		c->before = id;
		content_mark_store_locked(c);
	}
	pthread_mutex_unlock(&c->store->lock);
}

void content_set_pinned(struct content *c, bool pinned)
{
	struct content_store *s = c->store;

	pthread_mutex_lock(&s->lock);
	if (c->pinned != pinned) {
		c->pinned = pinned;
		content_mark_store_locked(c);
	}
	pthread_mutex_unlock(&s->lock);
}

uint64_t content_id(const struct content *c)
{
	return c->id;
}

bool content_is_dirty(const struct content *c)
{
	bool dirty;

	content_lock(c);
	dirty = c->dirty;
	content_unlock(c);
	return dirty;
}

bool content_is_sealed(struct content *c)
{
	bool sealed;

	content_lock(c);
	sealed = c->sealed;
	content_unlock(c);
	return sealed;
}

int64_t content_size(struct content *c)
{
	int64_t size;

	content_lock(c);
	size = c->size;
	content_unlock(c);
	return size;
}

bool content_is_complete(struct content *c)
{
	bool complete;

	content_lock(c);
	complete = c->complete;
	content_unlock(c);
	return complete;
}

uint64_t content_kept_bytes(struct content *c)
{
	uint64_t bytes;

	content_lock(c);
	bytes = c->complete ? (uint64_t)c->size : c->live->present.bytes;
	content_unlock(c);
	return bytes;
}

bool content_hash(struct content *c, uint8_t hash[static LEDGER_HASH_BYTES])
{
	bool has;

	content_lock(c);
	has = c->has_hash;
	if (has)
		memcpy(hash, c->hash, LEDGER_HASH_BYTES);
	content_unlock(c);
	return has;
}

void content_set_user(struct content *c, void *user)
{
	content_lock(c);
	c->live->user = user;
	content_unlock(c);
}

void *content_get_user(struct content *c)
{
	void *user;

	content_lock(c);
	user = c->live->user;
	content_unlock(c);
	return user;
}

/* So that @count calls of content_retire_locked() cannot fail. */
int content_retire_room_locked(struct content *c, size_t count)
{
	struct content_live *live = c->live;
	size_t room = live->retired_count + count + 4;
	struct content_retired *retired;

	if (live->retired_count + count <= live->retired_room)
		return 0;
	retired = realloc(live->retired, room * sizeof *retired);
	if (!retired)
		return -ENOMEM;
	live->retired = retired;
	live->retired_room = room;
	return 0;
}

void content_retire_locked(struct content *c, int fd, struct content *base)
{
	c->live->retired[c->live->retired_count++] = (struct content_retired){fd, base};
}

void content_begin_busy_locked(struct content *c)
{
	while (c->live->busy)
		pthread_cond_wait(&c->live->changed, &c->live->lock);
	c->live->busy = true;
}

void content_end_busy_locked(struct content *c)
{
	c->live->busy = false;
	pthread_cond_broadcast(&c->live->changed);
}

/*
 * What only this machine has must be on the disk before a row may say so, and so must what it lies over: the
 * server may not have that for long. Of what the server has the hashes tell at the first read what did
 * not get there: a download is not worth waiting for the disk.
 */
static void note_bytes_locked(const struct content *c)
{
	const struct content *base = c->live->base;

	if (!c->dirty)
		return;
	content_note_unsynced(c->store, c->file);
	if (base) {
		content_lock(base);
		content_note_unsynced(c->store, base->file);
		content_unlock(base);
	}
}

/* Queue the row as the content is now. The bytes it speaks of are remembered for the next sync. */
int content_put_row_locked(struct content *c, const struct content_hashes *hashes)
{
	struct content_store *s = c->store;
	struct content_live *live = c->live;
	uint64_t *packed = NULL;
	size_t packed_count = 0;
	struct ledger_content row = {
		.id = c->id,
		.kind = c->dirty ? LEDGER_CONTENT_DIRTY : LEDGER_CONTENT_CLEAN,
		.base = live->base ? live->base->id : 0,
		.base_len = live->base ? live->base_len : 0,
		.size = c->size,
		.complete = c->complete,
		.has_hash = c->has_hash,
		.ranges = c->complete ? NULL : live->present.at,
		.ranges_len = c->complete ? 0 : live->present.count * sizeof(struct range),
		.block_hashes = hashes ? hashes->blocks : NULL,
		.block_hashes_len = hashes ? hashes->count * sizeof(uint64_t) : 0,
		.file = c->file,
		.on_disk = hashes && hashes->on_disk,
	};
	int r;

	if (!c->dirty && !c->complete) {
		packed = block_hashes_pack(&live->hashes, &live->present, c->size, &packed_count);
		row.block_hashes = packed;
		row.block_hashes_len = packed ? packed_count * sizeof *packed : 0;
	}
	memcpy(row.hash, c->hash, sizeof row.hash);
	if (!row.on_disk)
		note_bytes_locked(c);
	pthread_mutex_lock(&s->lock);
	row.key = c->dirty ? NULL : c->key;
	row.before = c->dirty ? c->before : 0;
	row.pinned = c->pinned;
	row.dropped = c->dropped;
	c->row_used_s = c->used_s = content_now_s();
	row.used_ns = (int64_t)c->used_s * CLOCK_NS_PER_S;
	r = ledger_put_content(s->ledger, &row);
	if (r == 0)
		c->has_row = true;
	pthread_mutex_unlock(&s->lock);
	free(packed);
	return r;
}
