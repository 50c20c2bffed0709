/* SPDX-License-Identifier: MIT */
/*
 * The store as a whole: opening, closing, the tables by id and by key, numbers, the hook before a
 * sync.
 *
 * Ids count up and are never used again, so that a row of a node never finds another content under
 * its number than the one it meant. They are promised in lots of ID_LOT by a value of the ledger;
 * after a kill the rest of a lot is skipped.
 *
 * The tables are chained hashes; growing them is an attempt, so inserting cannot fail.
 */
#include "content_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#define ID_LOT	     1024
#define SYNC_EACH    16 /* more files than this are synced by one syncfs() */
#define UNSYNCED_MAX 4096

/* Tables. */

static size_t id_slot(const struct content_store *s, uint64_t id)
{
	return id & (s->id_room - 1);
}

static size_t key_slot(const struct content_store *s, const char *key)
{
	return XXH3_64bits(key, strlen(key)) & (s->key_room - 1);
}

static void grow_ids_store_locked(struct content_store *s)
{
	size_t room = s->id_room * 2;
	struct content **old = s->by_id, **fresh;

	fresh = s->id_count < s->id_room ? NULL : calloc(room, sizeof(struct content *));
	if (!fresh)
		return;
	s->by_id = fresh;
	s->id_room = room;
	for (size_t i = 0; i < room / 2; i++)
		for (struct content *c = old[i], *next; c; c = next) {
			next = c->next_by_id;
			c->next_by_id = fresh[id_slot(s, c->id)];
			fresh[id_slot(s, c->id)] = c;
		}
	free(old);
}

static void grow_keys_store_locked(struct content_store *s)
{
	size_t room = s->key_room * 2;
	struct content **old = s->by_key, **fresh;

	fresh = s->key_count < s->key_room ? NULL : calloc(room, sizeof(struct content *));
	if (!fresh)
		return;
	s->by_key = fresh;
	s->key_room = room;
	for (size_t i = 0; i < room / 2; i++)
		for (struct content *c = old[i], *next; c; c = next) {
			next = c->next_by_key;
			c->next_by_key = fresh[key_slot(s, c->key)];
			fresh[key_slot(s, c->key)] = c;
		}
	free(old);
}

struct content *content_find_store_locked(struct content_store *s, uint64_t id)
{
	struct content *c = s->by_id[id_slot(s, id)];

	while (c && c->id != id)
		c = c->next_by_id;
	return c;
}

void content_insert_store_locked(struct content *c)
{
	struct content_store *s = c->store;
	size_t slot;

	grow_ids_store_locked(s);
	slot = id_slot(s, c->id);
	c->next_by_id = s->by_id[slot];
	s->by_id[slot] = c;
	s->id_count++;
}

void content_remove_store_locked(struct content *c)
{
	struct content **at = &c->store->by_id[id_slot(c->store, c->id)];

	while (*at != c)
		at = &(*at)->next_by_id;
	*at = c->next_by_id;
	c->store->id_count--;
}

struct content *content_find_key_store_locked(struct content_store *s, const char *key)
{
	struct content *c = s->by_key[key_slot(s, key)];

	while (c && strcmp(c->key, key) != 0)
		c = c->next_by_key;
	return c;
}

void content_insert_key_store_locked(struct content *c)
{
	struct content_store *s = c->store;
	size_t slot;

	grow_keys_store_locked(s);
	slot = key_slot(s, c->key);
	c->next_by_key = s->by_key[slot];
	s->by_key[slot] = c;
	s->key_count++;
	c->keyed = true;
}

void content_remove_key_store_locked(struct content *c)
{
	struct content **at;

	if (!c->keyed)
		return;
	at = &c->store->by_key[key_slot(c->store, c->key)];
	while (*at != c)
		at = &(*at)->next_by_key;
	*at = c->next_by_key;
	c->store->key_count--;
	c->keyed = false;
}

uint64_t content_new_id_store_locked(struct content_store *s)
{
	uint64_t promise = s->next_id + ID_LOT;

	if (s->next_id >= s->id_promise) {
		if (ledger_put_value(s->ledger, "content_next_id", &promise, sizeof promise) < 0)
			return 0;
		s->id_promise = promise;
	}
	return s->next_id++;
}

uint32_t content_now_s(void)
{
	return (uint32_t)(clock_real_ns() / CLOCK_NS_PER_S);
}

/* Remember in the ledger that the file of a dirty content has to go. */
static int put_reminder(const struct content *c)
{
	struct ledger_content row = {
		.id = c->id, .kind = LEDGER_CONTENT_DROPPED, .file = c->file, .on_disk = true};

	return ledger_put_content(c->store->ledger, &row);
}

void content_destroy_store_locked(struct content *c)
{
	struct content_store *s = c->store;
	struct content_doomed doomed = {.file = c->file};
	int r = 0;

	content_pass_charge_store_locked(c);
	doomed.charged = c->charged;
	content_remove_hash_store_locked(c);
	content_remove_key_store_locked(c);
	content_remove_store_locked(c);
	if (c->dirty) {
		s->dirty_bytes -= c->charged;
		if (c->has_row) {
			/* a dropped one's row is as good, and may be wanted again: `before` */
			if (!c->dropped)
				r = put_reminder(c);
			doomed.row = c->id;
			doomed.after_sync = true;
		}
	} else if (c->has_row) {
		r = ledger_drop_content(s->ledger, c->id);
		doomed.after_sync = c->was_dirty;
	}
	if (r == 0)
		content_doom_store_locked(s, &doomed);
	else
		log_errno(r, "content: drop %llu: its file stays", (unsigned long long)c->id);
}

/* The hook. */

void content_note_unsynced(struct content_store *s, uint64_t file)
{
	pthread_mutex_lock(&s->lock);
	if (s->unsynced_count == s->unsynced_room && !s->unsynced_all) {
		size_t room = s->unsynced_room ? s->unsynced_room * 2 : 64;
		uint64_t *files =
			room > UNSYNCED_MAX ? NULL : realloc(s->unsynced, room * sizeof *files);

		if (files) {
			s->unsynced = files;
			s->unsynced_room = room;
		} else {
			s->unsynced_all = true;
		}
	}
	if (!s->unsynced_all)
		s->unsynced[s->unsynced_count++] = file;
	pthread_mutex_unlock(&s->lock);
}

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x & 0xff) != (*y & 0xff) ? (*x & 0xff) < (*y & 0xff) ? -1 : 1
	       : *x != *y		  ? *x < *y ? -1 : 1
					  : 0;
}

/* Each file once, and each directory once when the last of its files is done. */
static int sync_files(struct content_store *s, uint64_t *files, size_t count)
{
	int r = 0;

	if (count > 0)
		qsort(files, count, sizeof *files, by_number);
	for (size_t i = 0; i < count && r == 0; i++) {
		bool last = i + 1 == count || (files[i] & 0xff) != (files[i + 1] & 0xff);

		if (i == 0 || files[i] != files[i - 1])
			r = content_sync_bytes(s, files[i]);
		if (r == 0 && last)
			r = content_sync_dir(s, files[i]);
	}
	return r;
}

/* A thousand small files are one syncfs(), not a thousand flushes of the disk. */
int content_store_sync(struct content_store *s)
{
	uint64_t *files;
	size_t count;
	bool all;
	int r;

	pthread_mutex_lock(&s->lock);
	files = s->unsynced;
	count = s->unsynced_count;
	all = s->unsynced_all || count > SYNC_EACH;
	s->unsynced = NULL;
	s->unsynced_count = s->unsynced_room = 0;
	s->unsynced_all = false;
	pthread_mutex_unlock(&s->lock);
	if (all)
		r = syncfs(s->objects_fd) < 0 ? -errno : 0;
	else
		r = sync_files(s, files, count);
	if (r < 0) {
		log_errno(r, "content: sync: what was just written may not be on the disk");
		for (size_t i = 0; i < count; i++)
			content_note_unsynced(s, files[i]);
		pthread_mutex_lock(&s->lock);
		s->unsynced_all |= all;
		pthread_mutex_unlock(&s->lock);
	}
	free(files);
	return r;
}

static int sync_hook(void *ctx)
{
	return content_store_sync(ctx);
}

void content_store_usage(struct content_store *s, struct content_usage *ret_usage)
{
	pthread_mutex_lock(&s->lock);
	*ret_usage = (struct content_usage){.bytes = s->used,
					    .limit_bytes = s->limit_bytes,
					    .dirty_bytes = s->dirty_bytes,
					    .lost_files = s->lost_files};
	pthread_mutex_unlock(&s->lock);
}

/* Opening. */

static int __attribute__((format(printf, 4, 5)))
fail(int r, char *message, size_t size, const char *format, ...)
{
	va_list args;

	if (!message || size == 0)
		return r;
	va_start(args, format);
	vsnprintf(message, size, format, args);
	va_end(args);
	return r;
}

static int open_dir(int at, const char *name, char *message, size_t size, int *ret_fd)
{
	struct stat st;
	int fd;

	if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
		return fail(-errno, message, size, "%s: cannot be made: %s", name, strerror(errno));
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0) {
		fail(-errno, message, size, "%s: %s", name, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	*ret_fd = fd;
	if (st.st_uid != geteuid())
		return fail(-EPERM, message, size, "%s: belongs to user %u", name, st.st_uid);
	if (st.st_mode & 077)
		return fail(-EPERM, message, size, "%s: open to others (mode %03o), chmod 700 it",
			    name, st.st_mode & 0777);
	return 0;
}

/* flock() goes with the descriptor, also over fork() into the background. The pid in it is for
 * people. */
static int take_lock(struct content_store *s, char *message, size_t size)
{
	char pid[32] = "";
	ssize_t n;

	s->lock_fd = openat(s->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return fail(-errno, message, size, "%s/lock: %s", s->dir, strerror(errno));
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return fail(-errno, message, size, "%s/lock: %s", s->dir, strerror(errno));
		n = pread(s->lock_fd, pid, sizeof pid - 1, 0);
		pid[n > 0 ? n : 0] = '\0';
		pid[strcspn(pid, "\n")] = '\0';
		return fail(-EBUSY, message, size, "%s: in use by process %s", s->dir, pid);
	}
	n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
	if (ftruncate(s->lock_fd, 0) < 0 || pwrite(s->lock_fd, pid, (size_t)n, 0) != n)
		return fail(-errno, message, size, "%s/lock: %s", s->dir, strerror(errno));
	return 0;
}

static int load_secret(struct content_store *s)
{
	size_t len = 0;
	void *value = ledger_get_value(s->ledger, "content_secret", &len);
	bool known = value && len == sizeof s->secret;

	if (known)
		memcpy(s->secret, value, sizeof s->secret);
	free(value);
	if (known)
		return 0;
	if (getrandom(s->secret, sizeof s->secret, 0) != (ssize_t)sizeof s->secret)
		return -EIO;
	return ledger_put_value(s->ledger, "content_secret", s->secret, sizeof s->secret);
}

static void load_next_id(struct content_store *s)
{
	size_t len = 0;
	void *value = ledger_get_value(s->ledger, "content_next_id", &len);

	s->next_id = 1;
	if (value && len == sizeof s->next_id)
		memcpy(&s->next_id, value, sizeof s->next_id);
	free(value);
}

static int open_all(struct content_store *s, char *message, size_t size)
{
	int r = open_dir(AT_FDCWD, s->dir, message, size, &s->dir_fd);

	if (r == 0)
		r = take_lock(s, message, size);
	if (r == 0)
		r = open_dir(s->dir_fd, "objects", message, size, &s->objects_fd);
	if (r == 0)
		r = open_dir(s->dir_fd, "lost+found", message, size, &s->lost_fd);
	if (r < 0)
		return r;
	r = content_make_dirs(s);
	if (r == 0 && fsync(s->dir_fd) < 0)
		r = -errno;
	if (r < 0)
		return fail(r, message, size, "%s/objects: %s", s->dir, strerror(-r));
	/* from here on nobody vouches for what the last daemon left but this */
	ledger_set_before_sync(s->ledger, sync_hook, s);
	r = load_secret(s);
	if (r < 0)
		return fail(r, message, size, "%s: secret: %s", s->dir, strerror(-r));
	load_next_id(s);
	unlinkat(s->dir_fd, CONTENT_SHARING, 0);
	r = content_load(s, message, size);
	if (r < 0)
		return r;
	r = -pthread_create(&s->reaper, NULL, content_reaper, s);
	s->reaper_runs = r == 0;
	return r;
}

static void free_contents(struct content_store *s)
{
	/* Bases refer to contents that may come later: let them all go first, then free. */
	for (size_t i = 0; s->by_id && i < s->id_room; i++)
		for (struct content *c = s->by_id[i]; c; c = c->next_by_id) {
			if (c->live && c->live->base)
				c->live->base = NULL;
			for (size_t k = 0; c->live && k < c->live->retired_count; k++)
				c->live->retired[k].base = NULL;
		}
	for (size_t i = 0; s->by_id && i < s->id_room; i++)
		for (struct content *c = s->by_id[i], *next; c; c = next) {
			next = c->next_by_id;
			content_live_free(c->live);
			content_free(c);
		}
	free(s->by_id);
	free(s->by_key);
	free(s->by_hash);
}

static void forget_changed(struct content_store *s)
{
	while (s->changed) {
		struct content_changed *next = s->changed->next;

		free(s->changed->key);
		free(s->changed);
		s->changed = next;
	}
}

static void release(struct content_store *s)
{
	const int fds[] = {s->objects_fd, s->lost_fd, s->lock_fd, s->dir_fd};

	free_contents(s);
	forget_changed(s);
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(s->unsynced);
	free(s->torn);
	free(s->keeper.ids);
	free(atomic_load(&s->spare_block));
	pthread_cond_destroy(&s->keeper.wake);
	pthread_cond_destroy(&s->reap);
	pthread_cond_destroy(&s->freed);
	pthread_cond_destroy(&s->ahead.make);
	pthread_mutex_destroy(&s->lock);
	free(s->dir);
	free(s);
}

static struct content_store *store_new(const struct content_config *config, struct ledger *ledger)
{
	struct content_store *s = calloc(1, sizeof *s);
	pthread_condattr_t clock;

	if (!s)
		return NULL;
	s->ledger = ledger;
	s->dir_fd = s->objects_fd = s->lost_fd = s->lock_fd = -1;
	s->unsynced_all = true; /* as far as is known before the rows are read */
	s->limit_bytes = config->limit_bytes;
	s->free_bytes = config->free_bytes;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&s->reap, &clock);
	pthread_condattr_destroy(&clock);
	pthread_cond_init(&s->freed, NULL);
	pthread_cond_init(&s->ahead.make, NULL);
	pthread_cond_init(&s->keeper.wake, NULL);
	s->dir = strdup(config->dir);
	s->id_room = s->key_room = s->hash_room = 1024;
	s->by_id = calloc(s->id_room, sizeof(struct content *));
	s->by_key = calloc(s->key_room, sizeof(struct content *));
	s->by_hash = calloc(s->hash_room, sizeof(struct content *));
	if (s->dir && s->by_id && s->by_key && s->by_hash)
		return s;
	release(s);
	return NULL;
}

int content_store_open(const struct content_config *config, struct ledger *ledger,
		       struct content_store **ret_store, char *message, size_t size)
{
	struct content_store *s = store_new(config, ledger);
	int r = s ? open_all(s, message, size) : -ENOMEM;

	if (r < 0) {
		ledger_set_before_sync(ledger, NULL, NULL);
		if (s)
			release(s);
		return r;
	}
	*ret_store = s;
	return 0;
}

static void report_in_use(const struct content_store *s)
{
	for (size_t i = 0; i < s->id_room; i++)
		for (const struct content *c = s->by_id[i]; c; c = c->next_by_id)
			if (c->dirty && !c->sealed)
				log_warning("content: close: %llu is still being written",
					    (unsigned long long)c->id);
}

void content_store_close(struct content_store *s)
{
	int r;

	if (!s)
		return;
	content_keeper_end(s);
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->reap);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->reaper, NULL);
	content_ahead_end(s);
	report_in_use(s);
	r = ledger_sync(s->ledger);
	if (r < 0)
		log_errno(r, "content: close %s", s->dir);
	ledger_set_before_sync(s->ledger, NULL, NULL);
	release(s);
}
