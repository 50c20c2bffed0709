/* SPDX-License-Identifier: MIT */
/*
 * One file for equal contents. The table has every complete clean content by its hash, which is keyed
 * with the store's secret: nobody outside can make two that collide. Still they are compared byte by
 * byte before the second one's name is made one of the first one's file:
 *
 *	link   <first one's name>      <dir>/sharing
 *	rename <dir>/sharing           <second one's name>
 *
 * Killed anywhere between, the second one has its own file or the shared one, the same bytes either
 * way, and no row says which; what is left over as "sharing" is deleted at the next start. Deleting
 * is by name too, so none needs to know of the other, but for what is counted: of those that share,
 * one is charged with all of it, the others with nothing.
 *
 * Only clean ones share. Nothing is ever written to a file that others have a name of: see
 * lose_clean_locked() and plan_merge_locked().
 */
#include "content_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <attachfs/log.h>

#include "crashpoint.h"

/* The table. */

static size_t slot_of(const struct content_store *s, const uint8_t hash[LEDGER_HASH_BYTES])
{
	uint64_t bits;

	memcpy(&bits, hash, sizeof bits);
	return bits & (s->hash_room - 1);
}

static void grow_store_locked(struct content_store *s)
{
	size_t room = s->hash_room * 2;
	struct content **old = s->by_hash, **fresh;

	fresh = s->hash_count < s->hash_room ? NULL : calloc(room, sizeof(struct content *));
	if (!fresh)
		return;
	s->by_hash = fresh;
	s->hash_room = room;
	for (size_t i = 0; i < room / 2; i++)
		for (struct content *c = old[i], *next; c; c = next) {
			next = c->next_by_hash;
			c->next_by_hash = fresh[slot_of(s, c->hash)];
			fresh[slot_of(s, c->hash)] = c;
		}
	free(old);
}

/* Another with the same bytes, which is charged for a file of its own or is not. */
static struct content *find_twin_store_locked(const struct content *c, bool charged)
{
	const struct content_store *s = c->store;
	struct content *other = c->hashed ? s->by_hash[slot_of(s, c->hash)] : NULL;

	while (other && (other == c || other->size != c->size || (other->charged > 0) != charged ||
			 memcmp(other->hash, c->hash, sizeof c->hash) != 0))
		other = other->next_by_hash;
	return other;
}

void content_insert_hash_store_locked(struct content *c)
{
	struct content_store *s = c->store;
	size_t slot;

	if (c->hashed || c->dirty || c->dropped || !c->complete || !c->has_hash || c->size == 0)
		return;
	grow_store_locked(s);
	slot = slot_of(s, c->hash);
	c->next_by_hash = s->by_hash[slot];
	s->by_hash[slot] = c;
	s->hash_count++;
	c->hashed = true;
	if (c->charged > 0 && find_twin_store_locked(c, true))
		content_keep_store_locked(c);
}

void content_remove_hash_store_locked(struct content *c)
{
	struct content **at;

	if (!c->hashed)
		return;
	at = &c->store->by_hash[slot_of(c->store, c->hash)];
	while (*at != c)
		at = &(*at)->next_by_hash;
	*at = c->next_by_hash;
	c->store->hash_count--;
	c->hashed = false;
}

void content_pass_charge_store_locked(struct content *c)
{
	struct content *heir = c->charged > 0 ? find_twin_store_locked(c, false) : NULL;

	if (!heir)
		return;
	heir->charged = c->charged;
	c->charged = 0;
}

/* Joining. */

static int same_bytes(int a, int b, uint64_t size, bool *ret_same)
{
	unsigned char *buffers = malloc(2 * (size_t)CONTENT_BLOCK_BYTES);
	int r = buffers ? 0 : -ENOMEM;
	bool same = true;

	for (uint64_t off = 0; off < size && r == 0 && same; off += CONTENT_BLOCK_BYTES) {
		size_t n = size - off < CONTENT_BLOCK_BYTES ? (size_t)(size - off)
							    : CONTENT_BLOCK_BYTES;

		r = content_read_block(a, buffers, n, off);
		if (r == 0)
			r = content_read_block(b, buffers + n, n, off);
		same = r == 0 && memcmp(buffers, buffers + n, n) == 0;
	}
	free(buffers);
	*ret_same = same;
	return r;
}

/* A second name for the file @fd is open on, which has the name of @twin. */
static int link_file(struct content_store *s, const struct content *twin, int fd)
{
	char name[CONTENT_NAME_BYTES];
	struct stat linked, compared;

	content_name(twin->file, name);
	if (unlinkat(s->dir_fd, CONTENT_SHARING, 0) < 0 && errno != ENOENT)
		return -errno;
	if (linkat(s->objects_fd, name, s->dir_fd, CONTENT_SHARING, 0) < 0)
		return -errno;
	crash_point("share.linked");
	if (fstatat(s->dir_fd, CONTENT_SHARING, &linked, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fstat(fd, &compared) < 0)
		return -errno;
	return linked.st_ino == compared.st_ino ? 0 : -EAGAIN; /* somebody has replaced it */
}

/* @twin is charged, @c not any more. False: one of them is not what it was. */
static bool move_charge(struct content *c, const struct content *twin)
{
	struct content_store *s = c->store;
	bool good;

	pthread_mutex_lock(&s->lock);
	good = c->hashed && twin->hashed && twin->charged > 0;
	if (good) {
		s->used -= c->charged;
		c->charged = 0;
	}
	pthread_mutex_unlock(&s->lock);
	return good;
}

/* The link takes the place of @c's file; who has that open keeps it. */
static int take_place_locked(struct content *c, const struct content *twin, uint32_t look)
{
	struct content_store *s = c->store;
	char name[CONTENT_NAME_BYTES];
	int r = content_retire_room_locked(c, 1);

	content_name(c->file, name);
	if (r < 0 || !move_charge(c, twin))
		return r;
	if (renameat(s->dir_fd, CONTENT_SHARING, s->objects_fd, name) < 0) {
		r = -errno;
		pthread_mutex_lock(&s->lock);
		c->charged = (uint64_t)c->size;
		s->used += c->charged;
		pthread_mutex_unlock(&s->lock);
		return r;
	}
	crash_point("share.renamed");
	if (c->live->fd >= 0)
		content_retire_locked(c, c->live->fd, NULL);
	c->live->fd = -1;
	content_trust_locked(c, look);
	return 0;
}

static int open_locked(struct content *c, int *ret_fd, uint32_t *ret_look)
{
	content_lock(c);
	*ret_fd = content_fd_locked(c, false);
	*ret_look = c->look;
	content_unlock(c);
	return *ret_fd < 0 ? *ret_fd : 0;
}

/* Both are referenced, @c is busy, and both have just been found right. */
static int join(struct content *c, struct content *twin)
{
	struct content_store *s = c->store;
	uint32_t look, own_look;
	int from, own, r;
	bool same = false;

	r = open_locked(twin, &from, &look);
	if (r == 0)
		r = open_locked(c, &own, &own_look);
	if (r == 0)
		r = same_bytes(from, own, (uint64_t)c->size, &same);
	if (r < 0 || !same)
		return r;
	/* to the ledger on the disk @c may be unsent yet, and its file safe: so must be what takes its place */
	r = fdatasync(from) < 0 ? -errno : link_file(s, twin, from);
	if (r == 0) {
		content_lock(c);
		r = take_place_locked(c, twin, look);
		content_unlock(c);
	}
	unlinkat(s->dir_fd, CONTENT_SHARING, 0);
	return r;
}

static struct content *ref_twin(struct content *c)
{
	struct content_store *s = c->store;
	struct content *twin = NULL;

	pthread_mutex_lock(&s->lock);
	if (c->charged > 0)
		twin = find_twin_store_locked(c, true);
	if (twin)
		twin = content_ref_store_locked(twin);
	pthread_mutex_unlock(&s->lock);
	return twin;
}

int content_share(struct content *c)
{
	struct content *twin = ref_twin(c);
	int r;

	if (!twin)
		return 0;
	content_lock(c);
	content_begin_busy_locked(c);
	content_unlock(c);
	r = content_check(c, 0, UINT64_MAX, NULL);
	if (r == 0)
		r = content_check(twin, 0, UINT64_MAX, NULL);
	if (r == 0)
		r = join(c, twin);
	content_lock(c);
	content_end_busy_locked(c);
	content_unlock(c);
	content_unref(twin);
	return r < 0 ? r : 0;
}
