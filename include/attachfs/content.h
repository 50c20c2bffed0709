/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_CONTENT_H
#define ATTACHFS_CONTENT_H

/*
 * The content store: the local cache of bytes. A *content* is one version of a file's bytes in one
 * sparse file of the cache directory. Two kinds:
 *
 *	clean   a version on the server, being filled or complete. Never written by the user, may be evicted when nobody
 *	        holds it and fetched again.
 *	dirty   what the user wrote. It lies over a base (a clean content, or an earlier dirty one) whose bytes show where
 *	        nothing was written, up to base_len; beyond that it reads as zeros. Never evicted.
 *
 *	        OPEN --content_seal()--> SEALED --content_flatten()--> complete --content_become_clean()--> clean
 *
 * A dirty content is written only while OPEN. Sealing is what close() does: from then on its bytes
 * never change, a later write goes to a new content over it. So an upload, a reader, and a crash
 * always see one version or the other, never a mix, and what a close promised survives a kill in
 * the middle of the next write. Its base is clean or SEALED.
 *
 * Presence is a set of ranges per content (fs/ranges.h). A clean content's range is present only
 * after its bytes are in the file.
 *
 * Nobody gets bytes that may be others than were put there. Each block has a hash in the ledger once
 * it is written down; what a former daemon left, and what somebody else has touched since (seen by
 * the file's number, size and time of change, each time it is read), is *doubted* until
 * content_check() has compared it. A bad block of a clean content is no longer present, so it is
 * fetched again; a bad dirty one is never given to anybody, and its file is kept in lost+found/.
 *
 * Equal clean contents share one file: each has its name in objects/, all are names (hard links) of
 * one inode, which is written by nobody any more. It counts once against the limit.
 *
 * Directory: <dir>/objects/xx/<id in hex>, <dir>/lost+found/, <dir>/lock. All 0700/0600. A file of
 * objects/ that no row speaks of is moved to lost+found/ at start and reported, never deleted.
 *
 * Threads: any. Each content has its own lock, order: content->lock (from a dirty one down to its
 * base), store->lock. No lock is held during file I/O that may be long (reads, writes, hashing,
 * copying); opening and creating the backing file may happen under content->lock.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attachfs/ledger.h>

#define CONTENT_BLOCK_BYTES (256u * 1024)

struct content_store;
struct content;

struct content_config {
	const char *dir;
	uint64_t limit_bytes; /* cache_size= */
	uint64_t free_bytes;  /* cache_free= */
};

/*
 * Open the store in @dir (made when missing), take its lock, load the rows of @ledger (which
 * outlives it), set aside what is unknown, drop clean contents whose file is missing or has another
 * size and of the incomplete ones what has no hash (those below a dirty one stay, with what they
 * have), and become the ledger's before-sync hook. 0; -EBUSY: another daemon has it, @message names its pid; -EPERM:
 * not ours or open to others; -errno.
 *
 * A dirty content whose bytes are not there (or may not be, after a power failure less than
 * LEDGER_DURABLE_MS after its close) is reported and not in the store: content_get() gives NULL for
 * it. Of the latter content_is_torn() knows more.
 */
int content_store_open(const struct content_config *config, struct ledger *ledger,
		       struct content_store **ret_store, char *message, size_t size);
/*
 * Writes down what incomplete clean contents have, syncs the ledger and lets go of it. All
 * references must be gone. NULL is fine.
 */
void content_store_close(struct content_store *s);

/*
 * Once, when every node has asked for its content by content_get(): sealed dirty contents nobody
 * asked for, and which lie below none, go to lost+found and are reported (killed between the rows
 * of a content and of its node).
 */
void content_store_claimed(struct content_store *s);

/*
 * Once, before anything is read: clean contents that the start found gone or cut go into the log, by the
 * name that @name_of gives for a key (NULL: the key itself).
 */
void content_store_tell_changed(struct content_store *s,
				const char *(*name_of)(void *ctx, const char *key), void *ctx);

/*
 * Whether a power failure took that dirty content. *@ret_instead: what its node had before, where
 * that is whole (content_get() has it, and it is wanted again), 0 = nothing here. Until
 * content_store_claimed().
 */
bool content_is_torn(struct content_store *s, uint64_t id, uint64_t *ret_instead);

/*
 * Bring the bytes of every row put since the last call that succeeded to the disk, and the names of
 * their files: the ledger's before-sync hook. 0 or the negative errno of the first that failed.
 */
int content_store_sync(struct content_store *s);

struct content_usage {
	uint64_t bytes, limit_bytes, dirty_bytes, lost_files;
};
void content_store_usage(struct content_store *s, struct content_usage *ret_usage);

/*
 * How many bytes may be put there before anybody has asked for them: a small part of what clean contents
 * could take, for what is fetched ahead pushes others out. By the disk as it was last looked at: no I/O.
 */
uint64_t content_store_ahead(struct content_store *s);

/*
 * The clean content for @key, made (empty, size @size or -1) when there is none. Referenced. NULL
 * without memory.
 */
struct content *content_for_key(struct content_store *s, const char *key, int64_t size);

/* The same, but NULL when there is none. */
struct content *content_peek_key(struct content_store *s, const char *key);

/* By id, referenced; NULL = evicted or never was. */
struct content *content_get(struct content_store *s, uint64_t id);

/*
 * A new OPEN dirty content over @base (NULL = nothing below), showing its first @base_len bytes;
 * size = base_len. Takes its own reference of @base. Has an id at once, a row only when sealed.
 * NULL without memory.
 */
struct content *content_new_dirty(struct content_store *s, struct content *base, uint64_t base_len);

struct content *content_ref(struct content *c);
/*
 * A clean content without references stays in the store until it is evicted; a dirty one that was
 * never sealed, or was dropped, is deleted. NULL is fine.
 */
void content_unref(struct content *c);

/*
 * Nobody wants it any more (deleted, superseded, uploaded under another version): row and file go
 * when the last reference does. Put the node rows that no longer name it first. The file is deleted
 * later, when the ledger is on disk without it.
 */
void content_drop(struct content *c);
/*
 * As if it had been evicted: a clean content that is not pinned and that only the caller references
 * is dropped. False: it stays.
 */
bool content_forget(struct content *c);
/*
 * What @c takes the place of (an id, 0 = nothing): should a power failure tear @c, that is shown
 * again. A dirty content that was dropped stays on the disk as long as this may happen. No I/O.
 */
void content_set_before(struct content *c, uint64_t id);
/* Keep a clean content from being evicted, also across starts. */
void content_set_pinned(struct content *c, bool pinned);

uint64_t content_id(const struct content *c);
bool content_is_dirty(const struct content *c);
bool content_is_sealed(struct content *c);
int64_t content_size(struct content *c);     /* -1 = not known yet (clean only) */
bool content_is_complete(struct content *c); /* all bytes in its own file */
uint64_t content_kept_bytes(struct content *c); /* of its bytes, those in its own file */
/*
 * Whether reading all of it needs no network: complete, or every missing range is present further
 * down.
 */
bool content_is_local(struct content *c);
/* XXH3-128 when known; false otherwise. */
bool content_hash(struct content *c, uint8_t hash[static LEDGER_HASH_BYTES]);

/* Clean contents, filling; bytes arrive on the transfer thread. */

/* The size, learned from a listing or an answer. 0, or -ESTALE when another one was known. */
int content_set_size(struct content *c, uint64_t size);
/*
 * Write and mark present. Reserves space first. Parts already present are written again harmlessly.
 * The last missing byte makes it complete; its hashing is the caller's to start (content_finish() on
 * the pool).
 *
 * 0 = they are in the file. 1 = they could not be kept there, since the limit or the disk has no room
 * even after evicting, or the disk fails: the last CONTENT_PASSING_BYTES or so of what was filled
 * like this stay in memory for those who are waiting (CONTENT_MEMORY), as long as it is referenced.
 * Who fills it should not run further ahead of the readers than CONTENT_PASSING_AHEAD. -EINVAL, -EFBIG,
 * -ENOMEM.
 */
#define CONTENT_PASSING_BYTES (8u << 20)
#define CONTENT_PASSING_AHEAD (2u << 20)
int content_fill(struct content *c, uint64_t off, const void *data, size_t len);
/*
 * Hash and put the row of a content that became complete. Long; on a pool thread. Idempotent.
 * -EAGAIN: some of what a former daemon left of it was bad, so it is not complete any more.
 */
int content_finish(struct content *c);

/*
 * Dirty contents, writing. -EALREADY when it is sealed (take a new one over it): what no disk answers,
 * least of all one that is read-only.
 */

/*
 * Reserve room for [off, off+len) and lend the file to write to; -ENOSPC, -EFBIG, -errno of
 * creating it. After a 0 comes exactly one content_write_end(), with @len 0 when nothing was
 * written: content_seal() waits for it.
 */
int content_write_begin(struct content *c, uint64_t off, uint64_t len, int *ret_fd);
/* @len bytes have been written at @off; moves the end of file. */
void content_write_end(struct content *c, uint64_t off, uint64_t len);
/*
 * Cuts (what lay beyond never shows again, of the base neither) or extends with zeros. -EFBIG above
 * INT64_MAX - CONTENT_BLOCK_BYTES.
 */
int content_truncate(struct content *c, uint64_t size);
/* Reserve room without changing bytes; extends the size unless @keep_size. -ENOSPC */
int content_allocate(struct content *c, uint64_t off, uint64_t len, bool keep_size);
/* No more writes: queue its row (and its bases'). The caller commits the ledger. Idempotent. */
int content_seal(struct content *c);
/*
 * Bring all of it into its own file: copies (copy_file_range) what is missing from below, where
 * every byte must be present: -ENODATA otherwise; then hashes, lets the base go and puts the row.
 * Sealed contents only. Long. Checks first: -EAGAIN when bad blocks of a base have to be fetched
 * again, -EIO when what the user wrote is bad.
 */
int content_flatten(struct content *c);
/*
 * Keep chains short: when @c is sealed over a sealed dirty base that nobody else holds and that has
 * been dropped, copy @c's ranges down into the base's file, which then becomes @c's (the rows of
 * both change in one commit; until then @c reads the same either way). Syncs the ledger first: from
 * then on only @c may be what a node names. Long. 0 also when there was nothing to do.
 */
int content_merge(struct content *c);
/*
 * The server has it as @key now: complete dirty -> clean, or a complete clean one under another key
 * than before. Replaces a content of that key. -EINVAL when it is not complete.
 */
int content_become_clean(struct content *c, const char *key);
/* fdatasync of what it is made of (dirty chain). */
int content_sync(struct content *c);

/* Reading. */
enum content_where {
	CONTENT_FILE,	 /* bytes at fd, fd_off */
	CONTENT_ZERO,	 /* a hole: zeros */
	CONTENT_MISSING, /* to be fetched into `owner` at owner_off */
	CONTENT_DOUBTED, /* in the file of `owner`; content_check(), then ask again */
	CONTENT_MEMORY,	 /* with `owner` at owner_off: content_copy_passing() */
	CONTENT_END,	 /* at or past the end of file */
};
struct content_extent {
	enum content_where where;
	uint64_t len; /* how far this holds, <= asked */
	int fd;	      /* borrowed while the content asked about is referenced */
	uint64_t fd_off;
	struct content *owner; /* borrowed likewise; MISSING and MEMORY: a clean one */
	uint64_t owner_off;
};
/*
 * Where the bytes from @off are; looks at most @len ahead. Marks the content used. 0 or -errno of
 * opening a file. For a clean content whose size is not known, what is not present is MISSING.
 */
int content_map(struct content *c, uint64_t off, uint64_t len, struct content_extent *ret_extent);

/*
 * Compare what is doubted of [off, off+len), by whole blocks, with its hashes. Reads and hashes: not
 * under a lock. @name is what the log calls it (NULL = its key or number). 0: all of it was right.
 * 1: something was not, and is missing now. -EIO: it is dirty; nobody gets it, its file is in
 * lost+found/ too, and the log says so. Other -errno of reading.
 */
int content_check(struct content *c, uint64_t off, uint64_t len, const char *name);
/*
 * The disk does not give the byte at @off of what content_map() said is in @owner's file, but @error. 1: its
 * block is not there any more, and is to be fetched like what was never there; negative errno: there is
 * nothing to fetch, it is what the user wrote. Either is in the log.
 */
int content_unreadable(struct content *owner, uint64_t off, int error);

/*
 * content_check() of all that has hashes, also of what is not doubted: as after a start, and from the
 * disk, not from what the kernel remembers of it. Results as content_check().
 */
int content_recheck(struct content *c, const char *name);

/* Copy bytes of a CONTENT_MEMORY extent's owner; how many, 0 = they have gone: ask again. */
size_t content_copy_passing(struct content *c, uint64_t off, void *to, size_t len);

/*
 * The first missing range at or after @off of a clean content, at most up to its size (UINT64_MAX
 * end while unknown). False = none.
 */
bool content_next_missing(struct content *c, uint64_t off, uint64_t *ret_first, uint64_t *ret_end);

/* lseek SEEK_DATA / SEEK_HOLE (@whence); -ENXIO as lseek(). Missing ranges count as data. */
int64_t content_seek(struct content *c, uint64_t off, int whence);

/*
 * What a reader attached to a clean content, under the content's lock discipline: one pointer slot
 * for fs/reader.c.
 */
void content_set_user(struct content *c, void *user);
void *content_get_user(struct content *c);

#endif
