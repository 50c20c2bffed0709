/* SPDX-License-Identifier: MIT */
/*
 * The limit holds at the moment of reserving, not at a later sweep: bytes are counted before they
 * are written, and when they do not fit, unused clean contents go, the least recently used first,
 * until they do.
 *
 * Deleting. A clean content's file may go at once: its row without it is dropped by the next start.
 * But a row that the disk still has, and that a node there may still name, must find a dirty
 * content's file after a power failure. So those wait on the doomed list for the reaper, which
 * syncs the ledger (one sync for all that wait), deletes the files, and then drops the rows that
 * remembered them. Space is given back when the file is gone. A clean content that was dirty a
 * moment ago is of the second kind.
 */
#include "content_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "crashpoint.h"

#define STATVFS_MS    500
#define GATHER_MS     300 /* what is dropped in this time is deleted together */
#define RETRY_MS      1000
#define EVICT_BATCH   64
#define RESERVE_TRIES 8
#define AHEAD_PART    16

void content_lru_add_store_locked(struct content *c)
{
	struct content_store *s = c->store;

	if (c->in_lru || c->dirty || c->pinned)
		return;
	c->older = s->newest;
	c->newer = NULL;
	if (s->newest)
		s->newest->newer = c;
	else
		s->oldest = c;
	s->newest = c;
	c->in_lru = true;
}

void content_lru_remove_store_locked(struct content *c)
{
	struct content_store *s = c->store;

	if (!c->in_lru)
		return;
	*(c->older ? &c->older->newer : &s->oldest) = c->newer;
	*(c->newer ? &c->newer->older : &s->newest) = c->older;
	c->older = c->newer = NULL;
	c->in_lru = false;
}

void content_doom_store_locked(struct content_store *s, const struct content_doomed *what)
{
	struct content_doomed *d = malloc(sizeof *d);

	if (!d) {
		/* The row remembers it until the next start. */
		s->used -= what->charged;
		return;
	}
	*d = *what;
	d->next = s->doomed;
	s->doomed = d;
	pthread_cond_signal(&s->reap);
}

static void free_list(struct content_doomed *d)
{
	while (d) {
		struct content_doomed *next = d->next;

		free(d);
		d = next;
	}
}

/* Delete the files of @list and give their room back. @list is freed. */
static void delete_files(struct content_store *s, struct content_doomed *list)
{
	uint64_t bytes = 0;

	for (struct content_doomed *d = list; d; d = d->next) {
		int r = content_unlink(s, d->file);

		crash_point("delete.file");
		if (r < 0)
			log_errno(r, "content: delete file %llu", (unsigned long long)d->file);
		else if (d->row)
			ledger_drop_content(s->ledger, d->row);
		bytes += d->charged;
	}
	free_list(list);
	pthread_mutex_lock(&s->lock);
	s->used -= bytes;
	s->statvfs_ms = 0;
	pthread_mutex_unlock(&s->lock);
}

/* What the filesystem can still take above cache_free. Asked twice a second, estimated between. */
static uint64_t disk_room_store_locked(struct content_store *s)
{
	int64_t now = clock_mono_ms();
	struct statvfs v;

	if (s->statvfs_ms == 0 || now - s->statvfs_ms > STATVFS_MS) {
		if (fstatvfs(s->objects_fd, &v) < 0)
			return UINT64_MAX;
		s->disk_free = (uint64_t)v.f_bavail * v.f_frsize;
		s->statvfs_ms = now ? now : 1;
	}
	return s->disk_free > s->free_bytes ? s->disk_free - s->free_bytes : 0;
}

uint64_t content_store_ahead(struct content_store *s)
{
	uint64_t disk, left;

	pthread_mutex_lock(&s->lock);
	disk = s->disk_free > s->free_bytes ? s->disk_free - s->free_bytes : 0;
	left = s->limit_bytes > s->used ? s->limit_bytes - s->used : 0;
	left = (left < disk ? left : disk) + s->used - s->dirty_bytes;
	pthread_mutex_unlock(&s->lock);
	return left / AHEAD_PART;
}

static bool take_room_store_locked(struct content_store *s, uint64_t bytes, bool dirty,
				   uint64_t *ret_short)
{
	uint64_t disk = disk_room_store_locked(s);
	uint64_t left = s->limit_bytes > s->used ? s->limit_bytes - s->used : 0;
	uint64_t room = left < disk ? left : disk;

	if (bytes > room) {
		*ret_short = bytes - room;
		return false;
	}
	s->used += bytes;
	s->disk_free -= bytes < s->disk_free ? bytes : s->disk_free;
	if (dirty)
		s->dirty_bytes += bytes;
	return true;
}

/*
 * Take the oldest clean contents worth @need bytes out of the store. Their rows are dropped;
 * *@ret_sync: one of them was dirty until lately. What is to be freed without the lock comes back
 * in @evicted.
 */
static size_t evict_store_locked(struct content_store *s, uint64_t need,
				 struct content *evicted[EVICT_BATCH],
				 struct content_doomed **ret_list, bool *ret_sync)
{
	size_t count = 0;
	uint64_t got = 0;

	while (s->oldest && got < need && count < EVICT_BATCH) {
		struct content *c = s->oldest;
		struct content_doomed *d = malloc(sizeof *d);

		if (!d)
			break;
		content_pass_charge_store_locked(c);
		*d = (struct content_doomed){
			.next = *ret_list, .file = c->file, .charged = c->charged};
		*ret_list = d;
		*ret_sync |= c->was_dirty;
		got += c->charged;
		content_lru_remove_store_locked(c);
		content_remove_key_store_locked(c);
		content_remove_hash_store_locked(c);
		content_remove_store_locked(c);
		if (c->has_row)
			ledger_drop_content(s->ledger, c->id);
		evicted[count++] = c;
	}
	return count;
}

/* In and out with the lock held. False = nothing could be evicted. */
static bool evict_some_store_locked(struct content_store *s, uint64_t need)
{
	struct content *evicted[EVICT_BATCH];
	struct content_doomed *list = NULL;
	bool sync = false;
	size_t count = evict_store_locked(s, need, evicted, &list, &sync);

	if (count == 0)
		return false;
	s->freeing++;
	pthread_mutex_unlock(&s->lock);
	/* When it fails, so has the disk; the server has these bytes anyway. */
	if (sync)
		ledger_sync(s->ledger);
	delete_files(s, list);
	for (size_t i = 0; i < count; i++) {
		content_live_free(evicted[i]->live);
		content_free(evicted[i]);
	}
	pthread_mutex_lock(&s->lock);
	s->freeing--;
	pthread_cond_broadcast(&s->freed);
	return true;
}

/* Others are deleting, or the reaper could: wait for one result. */
static bool wait_freed_store_locked(struct content_store *s)
{
	if (s->freeing == 0 && !s->doomed)
		return false;
	if (s->doomed) {
		s->urgent = true;
		pthread_cond_signal(&s->reap);
	}
	pthread_cond_wait(&s->freed, &s->lock);
	return true;
}

int content_reserve(struct content_store *s, uint64_t bytes, bool dirty)
{
	uint64_t need = 0, rounds;
	bool asked = false;
	int tries = 0, r = 0;

	if (bytes == 0)
		return 0;
	pthread_mutex_lock(&s->lock);
	rounds = s->reap_rounds;
	while (!take_room_store_locked(s, bytes, dirty, &need)) {
		if (bytes > s->limit_bytes) {
			r = -ENOSPC;
			break;
		}
		/* what was asked a moment ago may be better by now */
		if (!asked) {
			asked = true;
			s->statvfs_ms = 0;
			continue;
		}
		if (evict_some_store_locked(s, need))
			continue;
		/* The reaper has been round several times since and it still is not enough. */
		if (s->reap_rounds != rounds && tries++ >= RESERVE_TRIES) {
			r = -ENOSPC;
			break;
		}
		if (!wait_freed_store_locked(s)) {
			r = -ENOSPC;
			break;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

void content_refund(struct content_store *s, uint64_t bytes, bool dirty)
{
	if (bytes == 0)
		return;
	pthread_mutex_lock(&s->lock);
	s->used -= bytes;
	s->disk_free += bytes;
	if (dirty)
		s->dirty_bytes -= bytes;
	pthread_mutex_unlock(&s->lock);
}

/* The reaper. */

static void wait_ms_store_locked(struct content_store *s, int64_t ms)
{
	int64_t until = clock_mono_ms() + ms;
	struct timespec at = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};

	while (!s->stop && !s->urgent && clock_mono_ms() < until)
		if (pthread_cond_timedwait(&s->reap, &s->lock, &at) != 0)
			break;
}

static void put_back_store_locked(struct content_store *s, struct content_doomed *list)
{
	while (list) {
		struct content_doomed *next = list->next;

		list->next = s->doomed;
		s->doomed = list;
		list = next;
	}
}

/* In and out with the lock held. Whether it got anywhere. */
static bool reap_store_locked(struct content_store *s)
{
	struct content_doomed *list = s->doomed;
	bool sync = false;
	int r = 0;

	for (struct content_doomed *d = list; d; d = d->next)
		sync |= d->after_sync;
	s->doomed = NULL;
	s->urgent = false;
	s->freeing++;
	pthread_mutex_unlock(&s->lock);
	if (sync)
		r = ledger_sync(s->ledger);
	crash_point("delete.synced");
	if (r == 0)
		delete_files(s, list);
	pthread_mutex_lock(&s->lock);
	if (r < 0)
		put_back_store_locked(s, list);
	s->freeing--;
	s->reap_rounds++;
	pthread_cond_broadcast(&s->freed);
	return r == 0;
}

void *content_reaper(void *arg)
{
	struct content_store *s = arg;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		while (!s->doomed && !s->stop)
			pthread_cond_wait(&s->reap, &s->lock);
		if (!s->doomed)
			break;
		wait_ms_store_locked(s, GATHER_MS);
		if (!reap_store_locked(s)) {
			if (s->stop)
				break; /* the rows remember */
			wait_ms_store_locked(s, RETRY_MS);
		}
	}
	free_list(s->doomed);
	s->doomed = NULL;
	pthread_mutex_unlock(&s->lock);
	return NULL;
}
