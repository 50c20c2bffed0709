/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_LEDGER_PRIVATE_H
#define ATTACHFS_FS_LEDGER_PRIVATE_H

/*
 * What the files of the ledger share: ledger.c queues and commits, ledger_open.c opens and closes
 * the database, ledger_rows.c turns rows into packed images and SQL, ledger_read.c reads them back,
 * ledger_check.c looks for rows that contradict each other.
 *
 *	put --> queue (packed images) --leader--> one transaction --sync--> disk
 *	             committed <= queued            durable <= committed
 *
 * Two connections: `writer` belongs to the leader, `reader` to whoever holds read_lock. In WAL mode
 * readers and a passive checkpoint on the second connection never stop the first, which is why there
 * are two and why the locking mode is the normal one (EXCLUSIVE would save some microseconds a
 * commit, and make each checkpoint one everybody waits for). Who may open the file at all is decided
 * by flock() on "<path>-lock".
 */

#include <pthread.h>
#include <sqlite3.h>

#include <attachfs/ledger.h>

#define LEDGER_APPLICATION_ID 0x61746663 /* "atfc" */
#define LEDGER_SCHEMA_VERSION 3 /* 1: no fields of records; 2: no hashes of nodes, no `before` */

/* The last two are no tables: changes of some columns of content, queued and written like rows. */
enum ledger_table {
	TABLE_NODE,
	TABLE_CONTENT,
	TABLE_XATTR,
	TABLE_VALUE,
	TABLE_MARK,
	TABLE_CLEAN,
	TABLE_COUNT
};

/* The images of the tables whose struct is not in the contract. */
struct ledger_content_row {
	struct ledger_content content;
	uint64_t epoch; /* the sync that covers its bytes; 0 = they are on the disk */
};
struct ledger_xattr_row {
	uint64_t node;
	const char *name;
	const void *value;
	size_t len;
};
struct ledger_value_row {
	const char *key;
	const void *value;
	size_t len;
};
struct ledger_mark_row {
	uint64_t id;
	int64_t used_ns;
	bool pinned, dropped;
	uint64_t before;
};
struct ledger_clean_row {
	uint64_t id;
	const char *key;
};
union ledger_image {
	struct ledger_node node;
	struct ledger_content_row content;
	struct ledger_xattr_row xattr;
	struct ledger_value_row value;
	struct ledger_mark_row mark;
	struct ledger_clean_row clean;
};

enum ledger_column_type {
	COLUMN_U64,
	COLUMN_I64,
	COLUMN_U32,
	COLUMN_INT,
	COLUMN_BOOL,
	COLUMN_TEXT, /* const char * */
	COLUMN_BLOB, /* const void * with a size_t at len_offset */
	COLUMN_HASH, /* LEDGER_HASH_BYTES in place; NULL unless the bool at len_offset */
};
struct ledger_column {
	const char *name;
	const char *sql; /* type and constraints */
	enum ledger_column_type type;
	size_t offset, len_offset;
};
/* One per kind of row; columns[0, key_columns) are its key. */
struct ledger_table_kind {
	const char *name;
	const char *options; /* behind the closing bracket of CREATE TABLE */
	const struct ledger_column *columns;
	size_t count, key_columns, image_bytes;
};
extern const struct ledger_table_kind ledger_tables[TABLE_COUNT];

/* One queued change. Strings and blobs follow the image; its pointers are offsets into the entry, 0
 * = NULL. */
struct ledger_entry {
	uint32_t bytes; /* of the entry, a multiple of 8 */
	uint8_t table;
	bool drop;
	bool dead;     /* a later entry of the same batch says something else of the same row */
	uint64_t hash; /* of table and key */
	union ledger_image image; /* really image_bytes of it, then the strings */
};

/* A transaction to be. `slots` finds the living entry of a row: open addressing, offset + 1, 0 =
 * free. */
struct ledger_batch {
	struct ledger_batch *next;
	unsigned char *data;
	size_t bytes, room;
	uint32_t *slots;
	size_t slot_count, entries;
	bool drops_nodes;
};

struct ledger {
	/* set by open, constant */
	char *path;
	int lock_fd, wal_fd;
	uint64_t opens;	     /* how many times the ledger has been opened; upper half of an epoch */
	bool was_unclean;    /* the last daemon did not close it */
	bool other_boot;     /* and the machine has been started since */
	bool suspicious;     /* lock: other_boot, and its suspects are still in the rows */
	uint64_t old_synced; /* epoch up to which bytes were on disk at the last end */
	pthread_t thread;
	bool thread_runs;

	pthread_mutex_t lock; /* innermost but for none: no other lock is taken under it */
	/* lock: an attempt to commit or to sync has ended, a group has ended */
	pthread_cond_t done;
	pthread_cond_t wake;		     /* lock: the thread has something to do */
	bool idle;			     /* lock: the thread sleeps until woken */
	bool stop;			     /* lock */
	struct ledger_batch *queue;	     /* lock: being filled */
	struct ledger_batch *spare;	     /* lock: an empty one */
	struct ledger_batch *failed;	     /* whoever leads: batches to try again, oldest first */
	unsigned groups;		     /* lock: open groups */
	uint64_t max_node;		     /* lock */
	uint64_t queued, committed, durable; /* lock: number of the last change that is so */

	bool leading; /* lock: somebody commits */
	uint64_t commit_tries,
		commit_tried; /* lock: attempts ended; the last change in the last of them */
	int commit_error;     /* lock: how it went */

	bool syncing;			 /* lock: somebody syncs */
	uint64_t sync_tries, sync_tried; /* lock: likewise */
	int sync_error;			 /* lock */
	uint32_t round;	 /* lock: number of the next sync in this opening; lower half of an epoch */
	bool wal_broken; /* whoever syncs: an fdatasync of the WAL failed, what the kernel says of
			    it is void */
	int (*hook)(void *ctx); /* lock */
	void *hook_ctx;		/* lock */

	sqlite3 *writer;						  /* whoever leads */
	sqlite3_stmt *begin, *commit, *rollback;			  /* whoever leads */
	sqlite3_stmt *put[TABLE_COUNT], *drop[TABLE_COUNT], *drop_xattrs; /* whoever leads */
	uint64_t max_node_written;					  /* whoever leads */
	int wal_frames;	      /* lock: length of the WAL after the last commit */
	int wal_checkpointed; /* lock: how long it was when last wholly copied to the database */

	pthread_mutex_t read_lock; /* recursive; taken before lock */
	sqlite3 *reader;	   /* read_lock */
	sqlite3_stmt *one_content; /* read_lock: prepared when first wanted */
};

/* The -errno of the last failure on @db, and of a step's result on it. */
int ledger_errno(sqlite3 *db, int result);

/* ledger_rows.c: packing into a batch, writing a batch, SQL */
struct ledger_batch *ledger_batch_new(void);
void ledger_batch_free(struct ledger_batch *b);
void ledger_batch_empty(struct ledger_batch *b);
int ledger_batch_add(struct ledger_batch *b, enum ledger_table table, bool drop, const void *image);
/* In the open transaction of l->writer. */
int ledger_batch_write(struct ledger *l, const struct ledger_batch *b);
int ledger_create_tables(sqlite3 *db);
/* Add the columns that tables of an older version do not have. */
int ledger_upgrade_tables(sqlite3 *db, long version);
int ledger_prepare(struct ledger *l);
void ledger_finalize(struct ledger *l);
/* "SELECT <all columns> FROM <table> <@rest>" */
int ledger_select(sqlite3 *db, enum ledger_table table, const char *rest, sqlite3_stmt **ret_stmt);
/* The row @stmt stands on; pointers are SQLite's until its next step. -EIO when it cannot be one of
 * ours. */
int ledger_row_read(enum ledger_table table, sqlite3_stmt *stmt, void *image);

/* ledger.c */
int ledger_commit_to(struct ledger *l, uint64_t target);
void *ledger_thread(void *arg);

/* ledger_read.c: the value as uint64, @otherwise when there is none or it is of another size */
uint64_t ledger_read_number(struct ledger *l, const char *key, uint64_t otherwise);

#endif
