/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_CONTENT_PRIVATE_H
#define ATTACHFS_FS_CONTENT_PRIVATE_H

/*
 * What the files of the content store share:
 *
 *	content.c          references, small questions, the row of a content
 *	content_read.c     where the bytes are: map, seek, missing ranges
 *	content_clean.c    filling from the network, hashing
 *	content_arrival.c  hashing as it arrives
 *	content_passing.c  what is filled but cannot be kept
 *	content_check.c    what may have changed behind our back: doubting, comparing, losing
 *	content_keep.c     a thread: incomplete contents written down, equal ones given one file
 *	content_share.c    the table by hash, one file for two
 *	content_dirty.c    writing, truncating, sealing, syncing
 *	content_ahead.c    files made before they are needed
 *	content_flatten.c  flatten, merge, become_clean
 *	content_space.c    the limit: reserve, evict; deleting files
 *	content_store.c    open, close, the tables by id and key
 *	content_load.c     the start: rows against files
 *	content_scan.c     of it, the files there are
 *	content_torn.c     of it, what a power failure took
 *	content_claims.c   after it: what nobody asks for
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
#include <stdatomic.h>
#include <sys/stat.h>

#include <attachfs/content.h>

#include "block_hashes.h"
#include "ranges.h"

#define CONTENT_SECRET_BYTES 192
#define CONTENT_NAME_BYTES   24 /* "xx/" and 16 digits */

/* What a reader may still be using: it goes when the last reference does. */
struct content_retired {
	int fd;		      /* -1 = none */
	struct content *base; /* a reference, or NULL */
};

/* Filled, but not kept: the newest of it, for those who wait. */
struct content_passing {
	struct content_passed *first, **last; /* by arrival */
	uint64_t bytes;
	_Atomic uint64_t *total; /* of all contents of the store; NULL = none yet */
};

struct content_arrival;
struct XXH3_state_s; /* xxhash.h */

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
	struct content_passing passing;	    /* content */

	struct ranges
		doubted; /* content: to be compared with their hashes before anybody gets them */
	/* content: what is known here; of an incomplete one more than its row has */
	struct block_hashes hashes;
	bool hashes_loaded;		 /* content: and what the row has */
	struct content_arrival *arrival; /* content: NULL = none, or its filler has it */
	unsigned lost;			 /* content: how often some of it was lost */
	uint32_t look; /* content: complete: the file's, when `doubted` was last set */
	bool told;     /* content: that some of it was bad */
	bool had_hash; /* content: it was complete, c->hash is what it had before some of it was lost */
	uint64_t unsaved; /* content: clean: bytes filled since the row was put */
	int64_t saved_ms; /* content: when that was, or the first of them came */
	bool keeping;	  /* store->lock: on the list of the keeper */
};

struct content {
	const uint64_t id;
	struct content_store *const store;
	struct content_live *live;		  /* store->lock */
	struct content *next_by_id, *next_by_key; /* store->lock */
	struct content *next_by_hash;		  /* store->lock: complete clean ones */
	struct content *older, *newer;		  /* store->lock: evictable ones, by last use */
	char *key;				  /* store->lock: clean only */
	uint64_t file;				  /* content */
	uint64_t before;			  /* store->lock: dirty only */
	int64_t size;				  /* content: -1 = not known */
	/* content, and while in the table by hash store->lock too: its part of store->used */
	uint64_t charged;
	uint32_t refs; /* store->lock */
	uint32_t used_s,
		row_used_s; /* store->lock: real seconds: last use, and what the row says */
	/* content: what its file looked like when all of it was right; 0 = never in this life */
	uint32_t look;
	uint8_t hash[LEDGER_HASH_BYTES];		       /* content; constant while hashed */
	bool dirty, sealed, complete, has_hash;		       /* content */
	bool in_lru, keyed, has_row, dropped, pinned, claimed; /* store->lock */
	bool was_dirty; /* store->lock: became clean in this life of the daemon */
	bool hashed;	/* store->lock: in the table by hash */
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

/* Gone from the directory or of another size, as the start found; to be told. */
struct content_changed {
	struct content_changed *next;
	char *key; /* NULL without memory */
	uint64_t file;
	bool gone;
};

/* Files of contents to come; all store->lock but the thread. */
struct content_ahead {
	pthread_t thread;
	pthread_cond_t make;
	bool runs;
	uint64_t made, wanted;	/* files below are made, are to be made */
	uint32_t second, count; /* dirty contents begun in that second */
};

/* What is done to contents at leisure; all store->lock but the thread. */
struct content_keeper {
	pthread_t thread;
	pthread_cond_t wake;
	bool runs, stop;
	uint64_t *ids; /* to be looked at */
	size_t count, room;
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
	struct content **by_hash;		       /* lock: likewise */
	size_t hash_room, hash_count;		       /* lock */
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
	struct content_changed *changed; /* of the start, until it is told */

	pthread_t reaper;
	bool reaper_runs, stop, urgent; /* lock */
	pthread_cond_t reap;		/* lock: there is something to delete */
	pthread_cond_t freed;		/* lock: something has been deleted, or could not be */
	struct content_doomed *doomed;	/* lock */
	size_t freeing;			/* lock: threads that are deleting files */
	uint64_t reap_rounds;		/* lock */

	struct content_ahead ahead;
	struct content_keeper keeper;
	_Atomic uint64_t passing;	      /* bytes in memory that cannot be kept */
	_Atomic(unsigned char *) spare_block; /* a buffer for who compares next, or NULL */

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
/* Of a complete one. An incomplete clean one's are those of its live part. */
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
/*
 * XXH3-128 of the whole and XXH3-64 of each block (malloc()ed). -EIO when the file is shorter than
 * @size.
 */
int content_hash_file(const struct content_store *s, int fd, uint64_t size,
		      uint8_t hash[static LEDGER_HASH_BYTES], uint64_t **ret_blocks,
		      size_t *ret_count);

/*
 * The same where some of it is known: @blocks, 0 = not known, are completed, and what @a has of the whole is
 * taken from it, or NULL. Only the rest is read.
 */
int content_hash_rest(const struct content_store *s, int fd, uint64_t size,
		      const struct content_arrival *a, uint8_t hash[static LEDGER_HASH_BYTES],
		      uint64_t *blocks);

int content_read_block(int fd, unsigned char *buffer, size_t len, uint64_t off);

/* content_check.c */
/* A number that changes when somebody else writes to, cuts or replaces a file. Never 0. */
uint32_t content_look(const struct stat *st);
/* The same of an open file; 0 when it cannot be told. */
uint32_t content_look_at(int fd);
/*
 * Whether bytes from @off on may be given away: 0 and how far in *@len (at most as it was); 1 and how
 * far they must be checked first; -ENOMEM. @fd -1 = there is no file.
 */
int content_vouch_locked(struct content *c, int fd, uint64_t off, uint64_t *len);
/* Nothing of the clean one is there any more, and its name is free for a new file. 0 or -ENOMEM. */
int content_lose_all_locked(struct content *c);
/* All that is there of it is known to be right: its file looks like @look now. */
void content_trust_locked(struct content *c, uint32_t look);
/*
 * The file of an incomplete clean one was just opened, as @fd: if somebody has touched it since it
 * was closed, nothing of it is there any more.
 */
void content_reopened_locked(struct content *c, int fd);
/* Have the row's hashes in memory. Reads the ledger: not under a lock. */
int content_load_hashes(struct content *c);

/* content_arrival.c */
/* For who fills, to be left again; NULL without memory. */
struct content_arrival *content_arrival_take_locked(struct content *c);
void content_arrival_leave_locked(struct content *c, struct content_arrival *a);
/* [off, off+len) is in the file of a content of @size bytes (-1 = not known). No lock held. */
void content_arrival_add(struct content_arrival *a, int64_t size, uint64_t off, const void *data,
			 size_t len);
/* Some of what has arrived is not there any more. */
void content_arrival_forget_locked(struct content *c);
/* How much of the whole is hashed, from its start, in *@ret_whole then; 0 = nothing. @a may be NULL. */
uint64_t content_arrival_whole(const struct content_arrival *a, struct XXH3_state_s *ret_whole);
void content_arrival_free(struct content_arrival *a);

/* content_passing.c */
/* -ENOMEM */
int content_pass_locked(struct content *c, uint64_t off, const void *data, size_t len);
/* How much of it lies at @off; 0 = nothing. */
uint64_t content_passing_at_locked(const struct content *c, uint64_t off);
void content_passing_clear(struct content_passing *p);

/* content_keep.c */
/* The keeper shall look at it. */
void content_keep_store_locked(struct content *c);
/* Ends the thread when it has written down all it was told of. */
void content_keeper_end(struct content_store *s);

/*
 * content_share.c
 *
 * In the table if it is clean, complete and hashed; and if there is another like it, the keeper shall
 * see to it that they share.
 */
void content_insert_hash_store_locked(struct content *c);
void content_remove_hash_store_locked(struct content *c);
/* It goes, and what it is charged for is somebody else's too: then that one is charged. */
void content_pass_charge_store_locked(struct content *c);
/* One file for @c and its twin, if they are byte for byte the same. Long. 0 or -errno. */
int content_share(struct content *c);
#define CONTENT_SHARING "sharing" /* below the store's directory: a link on its way */

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
