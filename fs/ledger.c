/* SPDX-License-Identifier: MIT */
/*
 * The queue, and how it gets into the database and onto the disk.
 *
 * Commit: whoever needs something committed and finds nobody committing leads: takes the whole
 * queue as one batch, writes it as one transaction without any lock held, and wakes those who
 * waited (who by then find themselves served, or one of them leads the next batch). A transaction
 * without a sync costs some ten microseconds, so nobody waits on purpose to make batches larger;
 * they grow by themselves while a leader is busy.
 *
 * A batch that failed is kept, in order, and goes in front of the next one: the database sees the
 * changes in the order of the calls or not at all.
 *
 * Sync: PRAGMA synchronous=NORMAL syncs nothing at a commit, only around checkpoints, where the
 * safety of the database needs it. The durable step is an fdatasync() of the WAL through a
 * descriptor of our own: all commits before it are then on disk, at one flush for any number of
 * them, and it runs beside further commits. (POSIX locks are lost when *any* descriptor of a file
 * is closed, but SQLite locks the database file and the -shm, never the -wal; ours is opened once,
 * read-only.)
 *
 * Bytes before rows: the kernel writes the WAL back whenever it likes, so a row can be on the disk
 * although the bytes it speaks of are not, whatever we hold back. Hence epochs: content rows carry
 * the number of the sync round that was next when they were put; a sync takes that number, calls
 * the hook (all bytes of rows with it or a lower one go to disk) and commits it as the value
 * "synced" before the fdatasync(). After a power failure (unclean, another boot id) rows with an
 * epoch above "synced" are suspect. After a mere kill the page cache has everything and no row is.
 */
#include "ledger_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "crashpoint.h"

#define CHECKPOINT_FRAMES                                                                          \
	1000 /* 4 MiB of WAL are worth copying into the database in a quiet moment */
#define CHECKPOINT_MUST                                                                            \
	16000	      /* 64 MiB: nobody may write until it is done, so that the WAL ends at all */
#define RETRY_MS 1000 /* after a failure of the thread's own attempts */

int ledger_errno(sqlite3 *db, int result)
{
	int os = db ? sqlite3_system_errno(db) : 0;

	switch (result & 0xff) {
	case SQLITE_OK:
	case SQLITE_DONE:
	case SQLITE_ROW:
		return 0;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_TOOBIG:
		return -EFBIG;
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_CANTOPEN:
		return os > 0 ? -os : -EIO;
	case SQLITE_IOERR:
		return os == ENOSPC || os == EDQUOT || os == EROFS ? -os : -EIO;
	default:
		return -EIO;
	}
}

/* The queue. */

static uint64_t epoch_locked(const struct ledger *l)
{
	return l->opens << 32 | l->round;
}

static int queue_locked(struct ledger *l, enum ledger_table table, bool drop, const void *image)
{
	int r = ledger_batch_add(l->queue, table, drop, image);

	if (r < 0)
		return r;
	l->queued++;
	if (l->idle) {
		l->idle = false;
		pthread_cond_signal(&l->wake);
	}
	return 0;
}

static int queue(struct ledger *l, enum ledger_table table, bool drop, const void *image)
{
	int r;

	pthread_mutex_lock(&l->lock);
	r = queue_locked(l, table, drop, image);
	pthread_mutex_unlock(&l->lock);
	return r;
}

int ledger_put_node(struct ledger *l, const struct ledger_node *n)
{
	int r;

	pthread_mutex_lock(&l->lock);
	r = queue_locked(l, TABLE_NODE, false, n);
	if (r == 0 && n->id > l->max_node)
		l->max_node = n->id;
	pthread_mutex_unlock(&l->lock);
	return r;
}

int ledger_drop_node(struct ledger *l, uint64_t id)
{
	struct ledger_node n = {.id = id};

	return queue(l, TABLE_NODE, true, &n);
}

int ledger_put_content(struct ledger *l, const struct ledger_content *c)
{
	struct ledger_content_row row = {.content = *c};
	int r;

	if (row.content.file == 0)
		row.content.file = c->id;
	pthread_mutex_lock(&l->lock);
	row.epoch = c->on_disk ? 0 : epoch_locked(l);
	r = queue_locked(l, TABLE_CONTENT, false, &row);
	pthread_mutex_unlock(&l->lock);
	return r;
}

int ledger_drop_content(struct ledger *l, uint64_t id)
{
	struct ledger_content_row row = {.content = {.id = id}};

	return queue(l, TABLE_CONTENT, true, &row);
}

int ledger_mark_content(struct ledger *l, uint64_t id, int64_t used_ns, bool pinned, bool dropped,
			uint64_t before)
{
	struct ledger_mark_row row = {.id = id,
				      .used_ns = used_ns,
				      .pinned = pinned,
				      .dropped = dropped,
				      .before = before};

	return queue(l, TABLE_MARK, false, &row);
}

int ledger_clean_content(struct ledger *l, uint64_t id, const char *key)
{
	struct ledger_clean_row row = {.id = id, .key = key};

	return queue(l, TABLE_CLEAN, false, &row);
}

int ledger_put_xattr(struct ledger *l, uint64_t node, const char *name, const void *value,
		     size_t len)
{
	struct ledger_xattr_row row = {
		.node = node, .name = name, .value = value ? value : "", .len = value ? len : 0};

	return queue(l, TABLE_XATTR, false, &row);
}

int ledger_drop_xattr(struct ledger *l, uint64_t node, const char *name)
{
	struct ledger_xattr_row row = {.node = node, .name = name};

	return queue(l, TABLE_XATTR, true, &row);
}

int ledger_put_value(struct ledger *l, const char *key, const void *value, size_t len)
{
	struct ledger_value_row row = {.key = key, .value = value, .len = len};

	return queue(l, TABLE_VALUE, false, &row);
}

uint64_t ledger_max_node_id(struct ledger *l)
{
	uint64_t id;

	pthread_mutex_lock(&l->lock);
	id = l->max_node;
	pthread_mutex_unlock(&l->lock);
	return id;
}

void ledger_group_begin(struct ledger *l)
{
	pthread_mutex_lock(&l->lock);
	l->groups++;
	pthread_mutex_unlock(&l->lock);
}

void ledger_group_end(struct ledger *l)
{
	pthread_mutex_lock(&l->lock);
	if (--l->groups == 0 && l->leading)
		pthread_cond_broadcast(&l->done);
	pthread_mutex_unlock(&l->lock);
}

/* Commit. */

static int step(struct ledger *l, sqlite3_stmt *stmt)
{
	int result = sqlite3_step(stmt);
	int r = result == SQLITE_DONE ? 0 : ledger_errno(l->writer, result);

	sqlite3_reset(stmt);
	return r;
}

/*
 * The highest node id is that of the last row, except when that row is being dropped: only then it
 * has to be written, once.
 */
static int write_max_node(struct ledger *l, uint64_t max_node)
{
	struct ledger_batch *b;
	struct ledger_value_row row = {
		.key = "max_node", .value = &max_node, .len = sizeof max_node};
	int r;

	if (max_node == l->max_node_written)
		return 0;
	b = ledger_batch_new();
	if (!b)
		return -ENOMEM;
	r = ledger_batch_add(b, TABLE_VALUE, false, &row);
	if (r == 0)
		r = ledger_batch_write(l, b);
	ledger_batch_free(b);
	return r;
}

/* One transaction of all that failed before and @batch. Leader, no lock held. */
static int write_batches(struct ledger *l, struct ledger_batch *batch, uint64_t max_node)
{
	bool drops_nodes = batch->drops_nodes;
	int r;

	crash_point("commit.begun");
	r = step(l, l->begin);

	if (r < 0)
		return r;
	for (struct ledger_batch *b = l->failed; b && r == 0; b = b->next) {
		drops_nodes |= b->drops_nodes;
		r = ledger_batch_write(l, b);
	}
	if (r == 0)
		r = ledger_batch_write(l, batch);
	if (r == 0 && drops_nodes)
		r = write_max_node(l, max_node);
	crash_point("commit.written");
	if (r == 0)
		r = step(l, l->commit);
	crash_point("commit.done");
	if (r < 0) {
		/* Some errors have rolled back already. */
		if (!sqlite3_get_autocommit(l->writer))
			step(l, l->rollback);
		return r;
	}
	if (drops_nodes)
		l->max_node_written = max_node;
	return 0;
}

static void keep_failed(struct ledger *l, struct ledger_batch *batch)
{
	struct ledger_batch **last = &l->failed;

	while (*last)
		last = &(*last)->next;
	*last = batch;
}

static void free_failed(struct ledger *l)
{
	while (l->failed) {
		struct ledger_batch *next = l->failed->next;

		ledger_batch_free(l->failed);
		l->failed = next;
	}
}

static void end_try_locked(struct ledger *l, uint64_t upto, int r)
{
	if (r == 0)
		l->committed = upto;
	if (r < 0 && l->commit_error != r)
		log_errno(r, "ledger: commit: not written yet, will be tried again");
	l->commit_tries++;
	l->commit_tried = upto;
	l->commit_error = r;
	l->leading = false;
	pthread_cond_broadcast(&l->done);
}

/* Take what is queued and commit it. Returns with the lock held, as called. */
static void lead_locked(struct ledger *l)
{
	struct ledger_batch *batch, *fresh;
	uint64_t upto, max_node;
	int r;

	l->leading = true;
	while (l->groups > 0)
		pthread_cond_wait(&l->done, &l->lock);
	upto = l->queued;
	max_node = l->max_node;
	fresh = l->spare ? l->spare : ledger_batch_new();
	l->spare = NULL;
	if (!fresh) {
		end_try_locked(l, upto, -ENOMEM);
		return;
	}
	batch = l->queue;
	l->queue = fresh;
	pthread_mutex_unlock(&l->lock);
	r = write_batches(l, batch, max_node);
	if (r == 0) {
		free_failed(l);
		ledger_batch_empty(batch);
	} else {
		keep_failed(l, batch);
	}
	pthread_mutex_lock(&l->lock);
	if (r == 0)
		l->spare = batch;
	end_try_locked(l, upto, r);
}

/* Until change number @target is committed, or an attempt that began after this call and contains
 * it has failed. */
static int commit_locked(struct ledger *l, uint64_t target)
{
	uint64_t tries = l->commit_tries;

	while (l->committed < target) {
		if (!l->leading) {
			lead_locked(l);
			if (l->committed < target)
				return l->commit_error;
			break;
		}
		pthread_cond_wait(&l->done, &l->lock);
		if (l->committed < target && l->commit_tries != tries && l->commit_tried >= target)
			return l->commit_error;
	}
	return 0;
}

int ledger_commit_to(struct ledger *l, uint64_t target)
{
	int r;

	pthread_mutex_lock(&l->lock);
	r = commit_locked(l, target);
	pthread_mutex_unlock(&l->lock);
	return r;
}

int ledger_commit(struct ledger *l)
{
	int r;

	pthread_mutex_lock(&l->lock);
	r = commit_locked(l, l->queued);
	pthread_mutex_unlock(&l->lock);
	return r;
}

int ledger_get_trouble(struct ledger *l)
{
	int r;

	pthread_mutex_lock(&l->lock);
	r = l->commit_error;
	pthread_mutex_unlock(&l->lock);
	return r;
}

/* Checkpoint. */

/* Copy the WAL into the database, as far as readers allow. Syncs both. read_lock held. */
static int checkpoint(struct ledger *l, int *ret_frames, bool *ret_whole)
{
	int frames = 0, copied = 0;
	int result;

	crash_point("checkpoint.begun");
	result = sqlite3_wal_checkpoint_v2(l->reader, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames,
					   &copied);
	crash_point("checkpoint.done");

	*ret_frames = frames;
	*ret_whole = result == SQLITE_OK && frames == copied;
	return ledger_errno(l->reader, result);
}

/* Nobody commits while @l is held like this, so a checkpoint comes to an end. */
static void checkpoint_alone_locked(struct ledger *l, int *frames, bool *whole)
{
	while (l->leading)
		pthread_cond_wait(&l->done, &l->lock);
	l->leading = true;
	pthread_mutex_unlock(&l->lock);
	checkpoint(l, frames, whole);
	pthread_mutex_lock(&l->lock);
	l->leading = false;
	pthread_cond_broadcast(&l->done);
}

/*
 * When the WAL has grown. The copying and the syncs happen beside commits; the first commit after a
 * whole checkpoint starts the WAL anew at its beginning (with one sync of its header), so it stays
 * small.
 */
static void checkpoint_if_long(struct ledger *l)
{
	int frames;
	bool whole, must;

	pthread_mutex_lock(&l->lock);
	frames = l->wal_frames;
	if (frames < CHECKPOINT_FRAMES || frames == l->wal_checkpointed) {
		pthread_mutex_unlock(&l->lock);
		return;
	}
	must = frames >= CHECKPOINT_MUST;
	pthread_mutex_unlock(&l->lock);
	if (pthread_mutex_trylock(&l->read_lock) != 0)
		return; /* a reader would keep the WAL from being started anew */
	checkpoint(l, &frames, &whole);
	pthread_mutex_lock(&l->lock);
	if (must && (!whole || frames != l->wal_frames))
		checkpoint_alone_locked(l, &frames, &whole);
	if (whole)
		l->wal_checkpointed = frames;
	pthread_mutex_unlock(&l->lock);
	pthread_mutex_unlock(&l->read_lock);
}

/* Sync. */

/*
 * After a failed fdatasync() the kernel takes the pages for clean, and the next one would report
 * success without having written them. What they should have brought to the disk is still readable,
 * so copy it to the database, which is synced through another file; the WAL then starts anew.
 */
static int repair_wal(struct ledger *l)
{
	int frames;
	bool whole = false;
	int r;

	pthread_mutex_lock(&l->read_lock);
	pthread_mutex_lock(&l->lock);
	checkpoint_alone_locked(l, &frames, &whole);
	r = whole ? 0 : -EIO;
	pthread_mutex_unlock(&l->lock);
	pthread_mutex_unlock(&l->read_lock);
	return r;
}

static int sync_wal(struct ledger *l)
{
	int r = 0;

	if (l->wal_broken)
		r = repair_wal(l);
	if (r == 0 && fdatasync(l->wal_fd) < 0)
		r = -errno;
	if (r < 0)
		log_errno(r, "ledger: sync: %s-wal", l->path);
	l->wal_broken = r < 0;
	return r;
}

/*
 * One round: hook, the row that says so, the disk. In and out with the lock held; it is released
 * between. The row of the round is itself a change; it must not be what the next round is for.
 */
static void sync_round_locked(struct ledger *l)
{
	uint64_t upto, epoch = epoch_locked(l), mine = 0;
	struct ledger_value_row row = {.key = "synced", .value = &epoch, .len = sizeof epoch};
	int (*hook)(void *) = l->hook;
	void *ctx = l->hook_ctx;
	int r = 0;

	l->syncing = true;
	l->round++; /* what is put from here on belongs to the next round */
	upto = l->committed;
	pthread_mutex_unlock(&l->lock);
	crash_point("sync.begun");
	if (hook)
		r = hook(ctx);
	crash_point("sync.contents");
	pthread_mutex_lock(&l->lock);
	/* of suspects nobody can vouch yet */
	if (r == 0 && !l->suspicious)
		r = queue_locked(l, TABLE_VALUE, false, &row);
	if (r == 0) {
		mine = l->queued;
		r = commit_locked(l, mine);
	}
	pthread_mutex_unlock(&l->lock);
	crash_point("sync.row");
	if (r == 0)
		r = sync_wal(l);
	crash_point("sync.done");
	pthread_mutex_lock(&l->lock);
	if (r == 0)
		l->durable = mine == upto + 1 ? mine : upto;
	l->sync_tries++;
	l->sync_tried = upto;
	l->sync_error = r;
	l->syncing = false;
	pthread_cond_broadcast(&l->done);
}

static int sync_locked(struct ledger *l, uint64_t target)
{
	uint64_t tries = l->sync_tries;

	while (l->durable < target) {
		if (!l->syncing) {
			sync_round_locked(l);
			if (l->durable < target)
				return l->sync_error;
			break;
		}
		pthread_cond_wait(&l->done, &l->lock);
		if (l->durable < target && l->sync_tries != tries && l->sync_tried >= target)
			return l->sync_error;
	}
	return 0;
}

int ledger_sync(struct ledger *l)
{
	uint64_t target;
	int r;

	pthread_mutex_lock(&l->lock);
	target = l->queued;
	r = commit_locked(l, target);
	if (r == 0)
		r = sync_locked(l, target);
	pthread_mutex_unlock(&l->lock);
	return r;
}

int ledger_sync_left(struct ledger *l)
{
	int r = 0;

	pthread_mutex_lock(&l->lock);
	while (l->syncing)
		pthread_cond_wait(&l->done, &l->lock);
	if (l->was_unclean) {
		sync_round_locked(l);
		r = l->sync_error;
	}
	pthread_mutex_unlock(&l->lock);
	return r;
}

void ledger_set_before_sync(struct ledger *l, int (*hook)(void *ctx), void *ctx)
{
	pthread_mutex_lock(&l->lock);
	while (l->syncing)
		pthread_cond_wait(&l->done, &l->lock);
	l->hook = hook;
	l->hook_ctx = ctx;
	pthread_mutex_unlock(&l->lock);
}

/* The thread. */

static void wait_ms_locked(struct ledger *l, int64_t ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_cond_timedwait(&l->wake, &l->lock, &until);
}

/*
 * Sleeps until something is put, then looks every LEDGER_LAZY_MS until all is on disk. Since it
 * counts from when it was woken, put() only has to wake it once per burst.
 */
void *ledger_thread(void *arg)
{
	struct ledger *l = arg;
	int64_t undurable_since = -1;

	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		int r = 0;

		if (l->committed == l->queued && l->durable == l->committed) {
			undurable_since = -1;
			l->idle = true;
			pthread_cond_wait(&l->wake, &l->lock);
			l->idle = false;
			if (l->stop)
				break;
		}
		wait_ms_locked(l, LEDGER_LAZY_MS);
		if (l->committed < l->queued)
			r = commit_locked(l, l->queued);
		if (undurable_since < 0 && l->durable < l->committed)
			undurable_since = clock_mono_ms();
		if (r == 0 && undurable_since >= 0 &&
		    clock_mono_ms() - undurable_since >= LEDGER_DURABLE_MS - 2 * LEDGER_LAZY_MS) {
			r = sync_locked(l, l->committed);
			undurable_since = -1;
		}
		if (r < 0 && !l->stop)
			wait_ms_locked(l, RETRY_MS);
		pthread_mutex_unlock(&l->lock);
		checkpoint_if_long(l);
		pthread_mutex_lock(&l->lock);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}
