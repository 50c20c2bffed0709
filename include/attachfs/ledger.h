/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_LEDGER_H
#define ATTACHFS_LEDGER_H

/*
 * The durable state of one mount: SQLite in WAL mode, one row per node with its two halves (what
 * the server is known to have, and what the user wants), one row per content, the xattrs, and a few
 * named values.
 *
 * Writing is two steps, so that nobody does I/O under a lock:
 *
 *	put, drop   queue a row's new image in memory: no I/O, never blocks, callable under any lock; order is kept
 *	commit      waits until everything queued before the call is committed: a daemon killed at any instant
 *	            afterwards has it. One caller commits for all who wait (group commit). Not under a lock.
 *	sync        the same and on the disk: power may fail afterwards. Contents must have been synced before.
 *
 * What is queued is committed by the ledger's own thread within LEDGER_LAZY_MS without anybody
 * asking, and on disk within LEDGER_DURABLE_MS of its commit; before that, the hook of
 * ledger_set_before_sync() is called so that the bytes a row speaks of reach the disk before the
 * row is trusted. (The kernel may write a committed row to the disk at any time, so order alone
 * cannot do it: every content row carries the number of the sync that will cover its bytes, and
 * after a power failure those not covered are handed out as `suspect`.)
 *
 * Rows put twice before a commit are written once. Rows that must not be seen one without the other
 * after a crash (a rename over an existing file) are put between ledger_group_begin() and
 * ledger_group_end(). Reading sees what is committed; every reader function commits first.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEDGER_LAZY_MS	  100
#define LEDGER_DURABLE_MS 1000
#define LEDGER_HASH_BYTES 16

struct ledger;

enum ledger_kind { LEDGER_COLLECTION = 1, LEDGER_RECORD, LEDGER_FILE };

/* What a call in flight was, so that after a crash it is known to be unknown. */
enum ledger_flight {
	LEDGER_FLIGHT_NONE,
	LEDGER_FLIGHT_CREATE,
	LEDGER_FLIGHT_REPLACE,
	LEDGER_FLIGHT_UPDATE,
	LEDGER_FLIGHT_REMOVE
};

/*
 * One node. Strings may be NULL; those given to put are copied. Times are nanoseconds since the
 * epoch, INT64_MIN = none. A number below is a bit more than its name says where noted.
 */
struct ledger_node {
	uint64_t id; /* inode number: counts up, never used twice in the life of a ledger */
	enum ledger_kind kind;

	/* wanted: what the user sees */
	uint64_t parent;   /* node id of the directory */
	const char *shown; /* name in it */
	bool gone;	   /* deleted by the user; the row lives until the server knows */
	bool local;	   /* never sent: matches local_names= */
	bool dirty;	   /* `content` is the user's and the server does not have it */
	bool mtime_dirty;  /* the user set mtime_ns and the server has a field for it */
	uint32_t mode;	   /* permission bits only; 0 = never set */
	uint32_t uid, gid;
	bool owner_set; /* uid, gid were set */
	int64_t atime_ns, mtime_ns, ctime_ns;
	int64_t size;	  /* -1 = not known */
	uint64_t content; /* content row, 0 = nothing local (or empty, when dirty and size 0) */

	/* known: what the server has */
	const char *rid;  /* NULL = not on the server */
	uint64_t rparent; /* node id of the record it is in there */
	const char *rname, *rfilename, *rversion, *rurl, *rmedia;
	int64_t rsize, rmtime_ns, rctime_ns;
	bool rfiller; /* the server's bytes are our filler, not a content (P-1) */
	/* XXH3-128 of the bytes of rversion, with the content store's secret; kept when they are evicted */
	bool has_rhash;
	uint8_t rhash[LEDGER_HASH_BYTES];

	/* between the two */
	enum ledger_flight flight;
	int64_t flight_since_ns; /* the server's time of day */
	const char *token;	 /* the name it was created under, to find it again */
	uint64_t after;	     /* do not remove before that node's content has arrived; 0 = none */
	int error;	     /* parked: negative errno, 0 = not parked */
	const char *message; /* the server's words */
	int64_t listed_ns;   /* directories: when last listed wholly; INT64_MIN = never */

	/* records: JSON objects, or NULL */
	const char *fields;  /* wanted: what the user has set and the server does not have */
	const char *rfields; /* known: all fields as last read */
};

enum ledger_content_kind {
	LEDGER_CONTENT_CLEAN = 1,
	LEDGER_CONTENT_DIRTY,
	LEDGER_CONTENT_DROPPED, /* a dirty one nobody wants any more, whose file may still be there: to be deleted */
};

struct ledger_content {
	uint64_t id;
	enum ledger_content_kind kind;
	const char *key;   /* clean: "<remote id>/<version>"; NULL for dirty */
	uint64_t base;	   /* dirty: content below, 0 = none */
	uint64_t base_len; /* bytes of the base that still show */
	/* dirty: content that its node had before, should a power failure have torn this; 0 = none */
	uint64_t before;
	int64_t size;
	bool complete; /* every byte is in the file itself */
	bool has_hash;
	uint8_t hash[LEDGER_HASH_BYTES]; /* XXH3-128 with the store's secret */
	/* not complete: pairs of uint64 (first, end) that are there, host order */
	const void *ranges;
	size_t ranges_len; /* bytes */
	/* XXH3-64 of each whole block (256 KiB) that is there, 0 = not known (fs/block_hashes.h) */
	const void *block_hashes;
	size_t block_hashes_len;
	int64_t used_ns;
	bool pinned;
	bool dropped; /* nobody wants it, but something lies over it or uses it still */
	/* names the file; the same as id unless the content took over another's file */
	uint64_t file;
	bool on_disk; /* put: the bytes it speaks of are on the disk already, no sync has to cover them */
	bool unsynced; /* readers: its bytes were not yet known to be on the disk when the last daemon ended */
	bool suspect; /* readers: and the machine has been started anew since, so they may not be */
};

/*
 * Open or create @path (0600), and beside it "@path-lock", "-wal" and "-shm". 0; with words in @message:
 * -EIO when it is another program's database; -EUCLEAN: damaged (ledger_set_aside()); -EBUSY: open
 * already; -ENOSPC; -EPROTONOSUPPORT: made by a newer version. Damage that only reading finds is reported
 * as -EUCLEAN by the readers.
 */
int ledger_open(const char *path, struct ledger **ret_ledger, char *message, size_t size);

/*
 * Moves the damaged ledger.db in the directory @dir, which nobody has open, to lost+found there, and with
 * it the files in objects that hold what was not sent yet, under the names they were to have, as far as
 * the rows can be read. Says so in the log. 0 or -errno: then the ledger is where it was.
 */
int ledger_set_aside(const char *dir);

/* Commits, syncs, closes. NULL is fine. */
void ledger_close(struct ledger *l);

/*
 * Called on the ledger's thread (and by ledger_sync() callers), never twice at once, before rows
 * become durable: fdatasync what they speak of. When it fails (negative errno), so does the sync,
 * and the rows are not vouched for; the next sync calls it again. NULL = none; returns when a
 * running call of the old hook has ended. content_store_open() sets it to content_store_sync(),
 * content_store_close() takes it off.
 */
void ledger_set_before_sync(struct ledger *l, int (*hook)(void *ctx), void *ctx);

/* 0 or -ENOMEM. */
int ledger_put_node(struct ledger *l, const struct ledger_node *n);
int ledger_drop_node(struct ledger *l, uint64_t id); /* its xattrs too */
int ledger_put_content(struct ledger *l, const struct ledger_content *c);
int ledger_drop_content(struct ledger *l, uint64_t id);
/* Change only these of a content row, if there is one. */
int ledger_mark_content(struct ledger *l, uint64_t id, int64_t used_ns, bool pinned, bool dropped,
			uint64_t before);
/* A complete dirty content's row becomes the clean one of @key; the rest of it stays. */
int ledger_clean_content(struct ledger *l, uint64_t id, const char *key);
int ledger_put_xattr(struct ledger *l, uint64_t node, const char *name, const void *value,
		     size_t len);
int ledger_drop_xattr(struct ledger *l, uint64_t node, const char *name);
int ledger_put_value(struct ledger *l, const char *key, const void *value, size_t len);

/*
 * What is put between begin and end is committed together or not at all; what other threads put
 * meanwhile may go along. Nests. Commits wait for the end: between the two nobody may commit, sync,
 * read, or wait for a lock or for I/O.
 */
void ledger_group_begin(struct ledger *l);
void ledger_group_end(struct ledger *l);

/*
 * 0: everything queued before the call is committed (on the disk). Otherwise the negative errno
 * (-ENOSPC, -EIO) of the attempt that should have done it: nothing is lost, the rows stay queued
 * and are tried again by the next call, by the ledger's thread every second, and at the close.
 */
int ledger_commit(struct ledger *l);
int ledger_sync(struct ledger *l);

/*
 * At the start: what a killed daemon has left is read from the kernel's memory, and may be older on the
 * disk. Before anything is deleted because of what is read, this brings it there. 0 also when nothing
 * was left; negative errno like ledger_sync().
 */
int ledger_sync_left(struct ledger *l);
/* What the last attempt to commit came to: 0, or the negative errno that is in the way. */
int ledger_get_trouble(struct ledger *l);

/*
 * Suspect contents have been dealt with; what was put for that is committed before this is. Until
 * then every opening after the power failure tells of them, however the one before it ended.
 */
int ledger_end_suspicion(struct ledger *l);

/*
 * The highest node id ever put into this ledger, also when its row is gone; 0 = none. Never blocks
 * for I/O.
 */
uint64_t ledger_max_node_id(struct ledger *l);

/*
 * Readers. They do not hold up commits. Rows are borrowed during the call. A callback returning
 * non-zero ends the walk with that value. Callbacks may put and drop.
 */
int ledger_each_node(struct ledger *l, int (*each)(void *ctx, const struct ledger_node *n),
		     void *ctx); /* by id */
int ledger_each_content(struct ledger *l, int (*each)(void *ctx, const struct ledger_content *c),
			void *ctx);
/* The one of that id; -ENOENT = no such row. The callback does not call it in turn. */
int ledger_one_content(struct ledger *l, uint64_t id,
		       int (*each)(void *ctx, const struct ledger_content *c), void *ctx);
int ledger_each_xattr(struct ledger *l,
		      int (*each)(void *ctx, uint64_t node, const char *name, const void *value,
				  size_t len),
		      void *ctx);
/* malloc()ed value with a terminator after it; NULL = no such key. */
void *ledger_get_value(struct ledger *l, const char *key, size_t *ret_len);

/*
 * Invariants of the rows among each other, for tests and `attachfs check`: 0, or -EUCLEAN with the
 * first in @message.
 */
int ledger_check(struct ledger *l, char *message, size_t size);

#endif
