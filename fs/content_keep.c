/* SPDX-License-Identifier: MIT */
/*
 * The keeper: a thread that does to contents, at leisure, what nobody waits for.
 *
 *	incomplete, clean	its row tells what has come and the hashes of it, so that a start finds it again: when
 *				nobody has it open any more, every SAVE_MS while it is being filled, and at the end
 *	complete, clean		gets one file with another that has the same bytes
 *
 * It is told numbers, not references, so that waiting for it keeps nothing from being evicted.
 */
#include "content_private.h"

#include <errno.h>
#include <stdlib.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

/* Hash what is whole and has no hash yet. Busy. */
static int hash_blocks(struct content *c, int fd, const struct ranges *whole)
{
	unsigned char *buffer = malloc(CONTENT_BLOCK_BYTES);
	int r = buffer ? 0 : -ENOMEM;

	for (size_t i = 0; i < whole->count; i++)
		for (uint64_t b = whole->at[i].first; b < whole->at[i].end && r == 0; b++) {
			uint64_t off = b * CONTENT_BLOCK_BYTES, end = off + CONTENT_BLOCK_BYTES;
			uint64_t hash;
			bool known;

			content_lock(c);
			known = block_hashes_get(&c->live->hashes, b, &hash);
			if (c->size >= 0 && end > (uint64_t)c->size)
				end = (uint64_t)c->size;
			content_unlock(c);
			if (known)
				continue;
			r = content_read_block(fd, buffer, (size_t)(end - off), off);
			hash = r == 0 ? block_hash(buffer, (size_t)(end - off)) : 0;
			content_lock(c);
			/* it may have been lost meanwhile */
			if (r == 0 && !c->complete && ranges_has(&c->live->present, off, end))
				r = block_hashes_set(&c->live->hashes, b, hash);
			content_unlock(c);
		}
	free(buffer);
	return r;
}

/* In and out with the lock held, released between; busy. */
static int save_locked(struct content *c)
{
	struct content_live *live = c->live;
	struct ranges whole = {0};
	int fd = content_fd_locked(c, false);
	int r = fd < 0 ? fd : block_hashes_whole(&live->present, c->size, &whole);
	uint64_t saved = live->unsaved;

	content_unlock(c);
	if (r == 0)
		r = hash_blocks(c, fd, &whole);
	content_lock(c);
	ranges_clear(&whole);
	if (r < 0 || c->complete || c->dirty)
		return r; /* a complete one's row is put by who hashes it */
	r = content_put_row_locked(c, NULL);
	if (r == 0)
		live->unsaved -= saved < live->unsaved ? saved : live->unsaved;
	return r;
}

static int save(struct content *c)
{
	int r = content_load_hashes(c);

	content_lock(c);
	content_begin_busy_locked(c);
	if (r == 0 && !c->complete && !c->dirty && c->live->unsaved > 0)
		r = save_locked(c);
	if (r < 0)
		c->live->unsaved = 0; /* not before there is more of it */
	c->live->saved_ms = clock_mono_ms();
	content_end_busy_locked(c);
	content_unlock(c);
	return r;
}

/* NULL: evicted, or nobody wants it any more. */
static struct content *take_store_locked(struct content_store *s)
{
	struct content *c = content_find_store_locked(s, s->keeper.ids[--s->keeper.count]);

	if (c && !c->dropped)
		c = content_ref_store_locked(c);
	else
		c = NULL;
	if (c)
		c->live->keeping = false;
	return c;
}

static void keep(struct content *c, bool stopping)
{
	int r = 0;

	if (!content_is_complete(c))
		r = save(c);
	else if (!stopping)
		r = content_share(c);
	if (r < 0)
		log_debug("content: keep %llu: error %d", (unsigned long long)c->id, -r);
	content_unref(c);
}

static void *keeper_main(void *arg)
{
	struct content_store *s = arg;
	struct content_keeper *k = &s->keeper;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct content *c;
		bool stopping;

		while (k->count == 0 && !k->stop)
			pthread_cond_wait(&k->wake, &s->lock);
		if (k->count == 0)
			break;
		stopping = k->stop;
		c = take_store_locked(s);
		pthread_mutex_unlock(&s->lock);
		if (c)
			keep(c, stopping);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

void content_keep_store_locked(struct content *c)
{
	struct content_keeper *k = &c->store->keeper;

	if (!c->live || c->live->keeping || c->dropped || k->stop)
		return;
	if (k->count == k->room) {
		size_t room = k->room ? k->room * 2 : 64;
		uint64_t *ids = realloc(k->ids, room * sizeof(*ids));

		if (!ids)
			return; /* it is only not remembered */
		k->ids = ids;
		k->room = room;
	}
	if (!k->runs)
		k->runs = pthread_create(&k->thread, NULL, keeper_main, c->store) == 0;
	if (!k->runs)
		return;
	k->ids[k->count++] = c->id;
	c->live->keeping = true;
	pthread_cond_signal(&k->wake);
}

void content_keeper_end(struct content_store *s)
{
	pthread_mutex_lock(&s->lock);
	s->keeper.stop = true;
	pthread_cond_signal(&s->keeper.wake);
	pthread_mutex_unlock(&s->lock);
	if (s->keeper.runs)
		pthread_join(s->keeper.thread, NULL);
	s->keeper.runs = false;
}
