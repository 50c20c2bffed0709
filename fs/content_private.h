/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_CONTENT_PRIVATE_H
#define ATTACHFS_FS_CONTENT_PRIVATE_H

/*
 * What the files of the content store share:
 *
 *	content.c          references, small questions, the row of a content
 *	content_read.c     where the bytes are: map, seek, missing ranges
 *	content_clean.c    filling from the network, hashing
 *	content_dirty.c    writing, truncating, sealing, syncing
 *	content_ahead.c    files made before they are needed
 *	content_flatten.c  flatten, merge, become_clean
 *	content_space.c    the limit: reserve, evict; deleting files
 *	content_store.c    open, close, the tables by id and key
 *	content_load.c     the start: rows against files
 *	content_file.c     system calls on the backing files
 *
 * There may be a million contents, nearly all of them complete and unused. So what only a content
 * in use needs is apart (struct content_live), made with the first reference and freed with the
 * last, unless the content is not complete.
 *
 * Locks: content->live->lock, called the content's lock, from a dirty content down to its base;
 * then store->lock; then the ledger's. A field marked "content" below is guarded by the content's
 * lock while there are references, and by store->lock while there are none: nobody can hold the
 * content's lock then, and getting a reference takes store->lock.
 */

#include <pthread.h>

#include <attachfs/content.h>

#include "ranges.h"

#define CONTENT_SECRET_BYTES 192
#define CONTENT_NAME_BYTES   24 /* "xx/" and 16 digits */

/* What a reader may still be using: it goes when the last reference does. */
struct content_retired {
	int fd;		      /* -1 = none */
	struct content *base; /* a reference, or NULL */
};

struct content_live {
	pthread_mutex_t lock;
	pthread_cond_t changed;		 /* content: writers or busy */
	int fd;				 /* content: -1 = not open */
	bool busy;			 /* content: somebody flattens, merges or hashes */
	unsigned writers;		 /* content: between write_begin and write_end */
	struct ranges present;		 /* content: empty when complete */
	struct ranges room;		 /* content: OPEN: what has been reserved, present or not */
	struct content *base;		 /* content: a reference */
	uint64_t base_len;		 /* content */
	struct content_retired *retired; /* content */
	size_t retired_count, retired_room; /* content */
	void *user;			    /* content */
};

struct content {
	const uint64_t id;
	struct content_store *const store;
	struct content_live *live;		  /* store->lock */
	struct content *next_by_id, *next_by_key; /* store->lock */
	struct content *older, *newer;		  /* store->lock: evictable ones, by last use */
	char *key;				  /* store->lock: clean only */
	uint64_t file;				  /* content */
	uint64_t before;			  /* store->lock: dirty only */
	int64_t size;				  /* content: -1 = not known */
	uint64_t charged;			  /* content: its part of store->used */
	uint32_t refs;				  /* store->lock */
	uint32_t used_s,
		row_used_s; /* store->lock: real seconds: last use, and what the row says */
	uint8_t hash[LEDGER_HASH_BYTES];		       /* content */
	bool dirty, sealed, complete, has_hash;		       /* content */
	bool verified;					       /* content */
	bool in_lru, keyed, has_row, dropped, pinned, claimed; /* store->lock */
	bool was_dirty; /* store->lock: became clean in this life of the daemon */
};

/* A file to delete, and the row that remembers it. */
struct content_doomed {
	struct content_doomed *next;
	uint64_t row; /* row to drop when the file is gone; 0 = none */
	uint64_t file;
	uint64_t charged; /* given back when the file is gone */
	bool after_sync;  /* only when the ledger on disk does not want it any more */
};

/* Taken by a power failure, and what there is instead. */
struct content_torn {
	uint64_t id, instead, file;
	bool has_file;
};

/* Files of contents to come; all store->lock but the thread. */
struct content_ahead {
	pthread_t thread;
	pthread_cond_t make;
	bool runs;
	uint64_t made, wanted;	/* files below are made, are to be made */
	uint32_t second, count; /* dirty contents begun in that second */
};

struct content_store {
	struct ledger *ledger;
	char *dir;
	int dir_fd, objects_fd, lost_fd, lock_fd;
	uint64_t limit_bytes, free_bytes;
	unsigned char secret[CONTENT_SECRET_BYTES];

	pthread_mutex_t lock;
	struct content **by_id, **by_key; /* lock: chained; id_room, key_room are powers of two */
	size_t id_room, id_count, key_room, key_count; /* lock */
	struct content *oldest, *newest;	       /* lock */
	uint64_t next_id, id_promise; /* lock: below the promise (a value of the ledger) ids are
					 free to use */
	uint64_t used, dirty_bytes;   /* lock */
	uint64_t lost_files;	      /* lock */

	uint64_t *unsynced; /* lock: files whose rows were put since the last sync */
	size_t unsynced_count, unsynced_room;
	bool unsynced_all; /* lock: too many to list */

	struct content_torn *torn; /* by id; constant after the start, gone with the claims */
	size_t torn_count, torn_room;

	pthread_t reaper;
	bool reaper_runs, stop, urgent; /* lock */
	pthread_cond_t reap;		/* lock: there is something to delete */
	pthread_cond_t freed;		/* lock: something has been deleted, or could not be */
	struct content_doomed *doomed;	/* lock */
	size_t freeing;			/* lock: threads that are deleting files */
	uint64_t reap_rounds;		/* lock */

	struct content_ahead ahead;

	int64_t statvfs_ms; /* lock: when disk_free was asked */
	uint64_t disk_free; /* lock: bytes, less what has been reserved since */
};

/* content.c. All *_locked take the content's lock held, unless they say "store". */
void content_lock(const struct content *c);
void content_unlock(const struct content *c);
struct content_live *content_live_new(void);
/* Closes, lets bases go. Not under a lock. */
void content_live_free(struct content_live *live);
struct content *content_alloc(struct content_store *s, uint64_t id);
void content_free(struct content *c);
/* NULL without memory. */
struct content *content_ref_store_locked(struct content *c);
int content_retire_room_locked(struct content *c, size_t count);
void content_retire_locked(struct content *c, int fd, struct content *base);
void content_begin_busy_locked(struct content *c);
void content_end_busy_locked(struct content *c);
void content_mark_store_locked(const struct content *c);
struct content_hashes {
	const uint64_t *blocks;
	size_t count;
	bool on_disk;
};
int content_put_row_locked(struct content *c, const struct content_hashes *hashes);

/* content_file.c */
void content_name(uint64_t file, char name[static CONTENT_NAME_BYTES]);
/* The descriptor; -ENOENT when there is no file and not @create. */
int content_fd_locked(struct content *c, bool create);
/* The directories below objects/: there and on the disk. */
int content_make_dirs(struct content_store *s);
/* The empty file, if it is not there. A failure is the first write's to report. */
void content_make_file(struct content_store *s, uint64_t file);
int content_unlink(struct content_store *s, uint64_t file);
/* Its bytes and its name to the disk; 0 also when there is no such file (any more). */
int content_sync_file(struct content_store *s, uint64_t file);
/* One of the two alone. */
int content_sync_bytes(struct content_store *s, uint64_t file);
int content_sync_dir(struct content_store *s, uint64_t file);
int content_pwrite(int fd, const void *data, size_t len, uint64_t off);
int content_copy(int from, int to, uint64_t off, uint64_t len);
int content_zero(int fd, uint64_t off, uint64_t len);
/* XXH3-128 of the whole and XXH3-64 of each block (malloc()ed). -EIO when the file is shorter than
 * @size. */
int content_hash_file(const struct content_store *s, int fd, uint64_t size,
		      uint8_t hash[static LEDGER_HASH_BYTES], uint64_t **ret_blocks,
		      size_t *ret_count);

/* content_ahead.c */
/* A new dirty content has its id: more may follow. */
void content_ahead_store_locked(struct content_store *s);
/* After store->stop was set: ends the thread, removes what nobody has come for. */
void content_ahead_end(struct content_store *s);

/* content_read.c */
int content_map_locked(struct content *c, uint64_t off, uint64_t len,
		       struct content_extent *ret_extent);

/* content_space.c */
/* Room for @bytes more, evicting for it; -ENOSPC. Does I/O: not under a lock. */
int content_reserve(struct content_store *s, uint64_t bytes, bool dirty);
void content_refund(struct content_store *s, uint64_t bytes, bool dirty);
void content_lru_add_store_locked(struct content *c);
void content_lru_remove_store_locked(struct content *c);
void content_doom_store_locked(struct content_store *s, const struct content_doomed *what);
void *content_reaper(void *arg);

/* content_store.c */
struct content *content_find_store_locked(struct content_store *s, uint64_t id);
void content_insert_store_locked(struct content *c);
void content_remove_store_locked(struct content *c);
void content_insert_key_store_locked(struct content *c);
void content_remove_key_store_locked(struct content *c);
struct content *content_find_key_store_locked(struct content_store *s, const char *key);
/* A fresh id; 0 without memory. */
uint64_t content_new_id_store_locked(struct content_store *s);
void content_note_unsynced(struct content_store *s, uint64_t file);
uint32_t content_now_s(void);
/* Take it out of the tables, its row out of the ledger, doom its file. refs are 0. The caller frees
 * @c afterwards. */
void content_destroy_store_locked(struct content *c);

/* content_load.c */
int content_load(struct content_store *s, char *message, size_t size);
/* Move "<objects>/@name" to lost+found. */
void content_lose(struct content_store *s, const char *name, const char *why);

#endif
