/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing the database, and what is learned on the way: how the last daemon ended.
 *
 * A value "opened" counts the openings, "closed" says which of them ended cleanly, "boot" on which
 * boot of the machine it ran; the last two stay as they are while contents are suspect. PRAGMA quick_check reads the whole file, so it is done only after an
 * unclean end on another boot: a kill cannot tear a WAL, a power failure can show what a disk
 * really does.
 *
 * Lock order: read_lock, lock.
 */
#include "ledger_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/log.h>

#include "crashpoint.h"

#define BOOT_BYTES 64

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

static char *path_with(const char *path, const char *suffix)
{
	size_t len = strlen(path) + strlen(suffix) + 1;
	char *name = malloc(len);

	if (name)
		snprintf(name, len, "%s%s", path, suffix);
	return name;
}

static int open_beside(const char *path, const char *suffix, int flags)
{
	char *name = path_with(path, suffix);
	int fd;

	if (!name)
		return -ENOMEM;
	fd = open(name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		fd = -errno;
	free(name);
	return fd;
}

/* What is in the way of using it, for a person. */
static int fail_sqlite(struct ledger *l, sqlite3 *db, int r, char *message, size_t size)
{
	if (r == -EBUSY)
		return fail(r, message, size,
			    "%s: another program works on it (sqlite3, a backup?): end that, and "
			    "try again",
			    l->path);
	return fail(r, message, size, "%s: %s", l->path, sqlite3_errmsg(db));
}

/* One opener, in this process or another; the pid in it is for people. */
static int take_lock(struct ledger *l, char *message, size_t size)
{
	char pid[32];
	int n;

	l->lock_fd = open_beside(l->path, "-lock", O_RDWR | O_CREAT);
	if (l->lock_fd < 0)
		return fail(l->lock_fd, message, size, "%s-lock: %s", l->path,
			    strerror(-l->lock_fd));
	if (flock(l->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		int r = errno == EWOULDBLOCK ? -EBUSY : -errno;
		ssize_t got = pread(l->lock_fd, pid, sizeof pid - 1, 0);

		pid[got > 0 ? got : 0] = '\0';
		return fail(r, message, size, "%s: in use by another attachfs, process %s", l->path,
			    pid);
	}
	n = snprintf(pid, sizeof pid, "%ld", (long)getpid());
	if (ftruncate(l->lock_fd, 0) < 0 || pwrite(l->lock_fd, pid, (size_t)n, 0) != n)
		return fail(-EIO, message, size, "%s-lock: cannot be written", l->path);
	return 0;
}

/* SQLite would create it with the umask's permissions; its -wal and -shm take over what it finds
 * here. */
static int create_file(struct ledger *l, char *message, size_t size)
{
	int fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;
	int r = 0;

	if (fd < 0)
		return fail(-errno, message, size, "%s: %s", l->path, strerror(errno));
	if (fstat(fd, &st) < 0)
		r = fail(-errno, message, size, "%s: %s", l->path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		r = fail(-EIO, message, size, "%s: no file", l->path);
	else if ((st.st_mode & 077) && fchmod(fd, 0600) < 0)
		r = fail(-errno, message, size, "%s: open to others", l->path);
	close(fd);
	return r;
}

static int get_pragma(sqlite3 *db, const char *sql, char *text, size_t size)
{
	sqlite3_stmt *stmt = NULL;
	int result = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
	const unsigned char *column;
	int r;

	text[0] = '\0';
	if (result == SQLITE_OK)
		result = sqlite3_step(stmt);
	if (result == SQLITE_ROW) {
		column = sqlite3_column_text(stmt, 0);
		snprintf(text, size, "%s", column ? (const char *)column : "");
	}
	r = ledger_errno(db, result);
	sqlite3_finalize(stmt);
	return r;
}

/*
 * The file may be anybody's: no code of its schema (triggers, views, functions in expressions) is
 * run, and pages are looked at before they are believed.
 */
static int open_connection(const char *path, sqlite3 **ret_db)
{
	static const char pragmas[] = "PRAGMA trusted_schema=OFF;"
				      "PRAGMA cell_size_check=ON;"
				      "PRAGMA temp_store=MEMORY;"
				      "PRAGMA synchronous=NORMAL;"
				      "PRAGMA cache_size=-4096;";
	int result =
		sqlite3_open_v2(path, ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);

	if (result == SQLITE_OK) {
		sqlite3_db_config(*ret_db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
		sqlite3_db_config(*ret_db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, (int *)NULL);
		sqlite3_db_config(*ret_db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, (int *)NULL);
		sqlite3_busy_timeout(*ret_db, 1000);
		result = sqlite3_exec(*ret_db, pragmas, NULL, NULL, NULL);
	}
	return ledger_errno(*ret_db, result);
}

/*
 * What kind of file it is, before anything is changed in it. *@ret_version: that of the attachfs that
 * made it, 0 = it is empty.
 */
static int examine(struct ledger *l, long *ret_version, char *message, size_t size)
{
	char id[32], version[32], tables[32];
	int r = get_pragma(l->writer, "PRAGMA application_id", id, sizeof id);

	if (r == 0)
		r = get_pragma(l->writer, "PRAGMA user_version", version, sizeof version);
	if (r == 0)
		r = get_pragma(l->writer, "SELECT count(*) FROM sqlite_schema", tables,
			       sizeof tables);
	if (r < 0)
		return fail_sqlite(l, l->writer, r, message, size);
	*ret_version = 0;
	if (strcmp(tables, "0") == 0 && strcmp(id, "0") == 0 && strcmp(version, "0") == 0)
		return 0;
	if (strtol(id, NULL, 10) != LEDGER_APPLICATION_ID)
		return fail(-EIO, message, size, "%s: a database, but no ledger of attachfs",
			    l->path);
	if (strtol(version, NULL, 10) > LEDGER_SCHEMA_VERSION)
		return fail(-EPROTONOSUPPORT, message, size,
			    "%s: made by a newer attachfs (version %s, this one knows %d)", l->path,
			    version, LEDGER_SCHEMA_VERSION);
	if (strtol(version, NULL, 10) < 1)
		return fail(-EIO, message, size, "%s: version %s", l->path, version);
	*ret_version = strtol(version, NULL, 10);
	return 0;
}

/* All of it or nothing, in a transaction: the tables, made or brought on from @version, and the version. */
static int write_schema(struct ledger *l, long version)
{
	char sql[128];
	int r;

	snprintf(sql, sizeof sql, "PRAGMA application_id=%d; PRAGMA user_version=%d",
		 LEDGER_APPLICATION_ID, LEDGER_SCHEMA_VERSION);
	r = ledger_errno(l->writer, sqlite3_exec(l->writer, "BEGIN IMMEDIATE", NULL, NULL, NULL));
	if (r == 0)
		r = version ? ledger_upgrade_tables(l->writer, version)
			    : ledger_create_tables(l->writer);
	if (r == 0)
		r = ledger_errno(l->writer, sqlite3_exec(l->writer, sql, NULL, NULL, NULL));
	if (r == 0)
		r = ledger_errno(l->writer, sqlite3_exec(l->writer, "COMMIT", NULL, NULL, NULL));
	return r;
}

static int on_commit(void *ctx, sqlite3 *db, const char *name, int frames)
{
	struct ledger *l = ctx;

	(void)db;
	(void)name;
	pthread_mutex_lock(&l->lock);
	if (frames < l->wal_frames)
		l->wal_checkpointed = 0;
	l->wal_frames = frames;
	pthread_mutex_unlock(&l->lock);
	return SQLITE_OK;
}

static int open_database(struct ledger *l, char *message, size_t size)
{
	char mode[16];
	long version = 0;
	int r = open_connection(l->path, &l->writer);

	if (r < 0)
		return fail_sqlite(l, l->writer, r, message, size);
	r = examine(l, &version, message, size);
	if (r < 0)
		return r;
	r = get_pragma(l->writer, "PRAGMA journal_mode=WAL", mode, sizeof mode);
	if (r == 0 && strcmp(mode, "wal") != 0)
		r = -EIO;
	/* Replaces automatic checkpoints, which a commit would have to do. */
	sqlite3_wal_hook(l->writer, on_commit, l);
	if (r == 0 && version < LEDGER_SCHEMA_VERSION)
		r = write_schema(l, version);
	if (r == 0)
		r = ledger_prepare(l);
	if (r < 0)
		return fail_sqlite(l, l->writer, r, message, size);
	r = open_connection(l->path, &l->reader);
	if (r == 0)
		sqlite3_wal_autocheckpoint(l->reader, 0);
	if (r < 0)
		return fail_sqlite(l, l->reader, r, message, size);
	return 0;
}

/* Empty when the kernel does not say; then every end counts as one on this boot. */
static void boot_id(char boot[static BOOT_BYTES])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, boot, BOOT_BYTES - 1);

	boot[n > 0 ? n : 0] = '\0';
	boot[strcspn(boot, "\n")] = '\0';
	if (fd >= 0)
		close(fd);
}

static void learn_last_end(struct ledger *l)
{
	char boot[BOOT_BYTES];
	size_t len = 0;
	char *last = ledger_get_value(l, "boot", &len);

	boot_id(boot);
	l->opens = ledger_read_number(l, "opened", 0);
	l->was_unclean = l->opens != ledger_read_number(l, "closed", 0);
	l->other_boot = l->was_unclean && last && boot[0] && strcmp(last, boot) != 0;
	l->suspicious = l->other_boot;
	l->old_synced = ledger_read_number(l, "synced", 0);
	free(last);
}

static int put_boot(struct ledger *l)
{
	char boot[BOOT_BYTES];

	boot_id(boot);
	return ledger_put_value(l, "boot", boot, strlen(boot));
}

int ledger_end_suspicion(struct ledger *l)
{
	bool was;
	int r = 0;

	pthread_mutex_lock(&l->lock);
	was = l->suspicious;
	pthread_mutex_unlock(&l->lock);
	if (was)
		r = put_boot(l);
	pthread_mutex_lock(&l->lock);
	l->suspicious = was && r < 0;
	pthread_mutex_unlock(&l->lock);
	return r;
}

static int learn_max_node(struct ledger *l)
{
	char text[32];
	uint64_t last;
	int r = get_pragma(l->reader, "SELECT max(id) FROM node", text, sizeof text);

	if (r < 0)
		return r;
	last = strtoull(text, NULL, 10);
	l->max_node_written = ledger_read_number(l, "max_node", 0);
	l->max_node = last > l->max_node_written ? last : l->max_node_written;
	return 0;
}

static int quick_check(struct ledger *l, char *message, size_t size)
{
	char text[256];
	int r = get_pragma(l->reader, "PRAGMA quick_check(1)", text, sizeof text);

	if (r < 0)
		return fail_sqlite(l, l->reader, r, message, size);
	if (strcmp(text, "ok") != 0)
		return fail(-EUCLEAN, message, size, "%s: damaged: %s", l->path, text);
	return 0;
}

/* Write down that we run now; the first transaction, so afterwards the WAL exists and can be
 * opened. */
static int begin_opening(struct ledger *l, char *message, size_t size)
{
	char *dir;
	int fd, r;

	crash_point("start.ledger");
	l->opens++;
	r = ledger_put_value(l, "opened", &l->opens, sizeof l->opens);
	if (r == 0 && !l->suspicious)
		r = put_boot(l);
	if (r == 0)
		r = ledger_commit_to(l, l->queued);
	if (r == -EBUSY)
		return fail_sqlite(l, l->writer, r, message, size);
	if (r < 0)
		return fail(r, message, size, "%s: %s", l->path, strerror(-r));
	l->wal_fd = open_beside(l->path, "-wal", O_RDONLY);
	if (l->wal_fd < 0)
		return fail(l->wal_fd, message, size, "%s-wal: %s", l->path, strerror(-l->wal_fd));
	/* The names of the new files must survive a power failure as well. */
	dir = path_with(l->path, "");
	if (!dir)
		return -ENOMEM;
	if (strrchr(dir, '/'))
		strrchr(dir, '/')[dir[0] == '/' && strrchr(dir, '/') == dir] = '\0';
	fd = open(strrchr(l->path, '/') ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	return 0;
}

static int init_locks(struct ledger *l)
{
	pthread_condattr_t clock;
	pthread_mutexattr_t recursive;
	int r = pthread_mutex_init(&l->lock, NULL);

	if (r)
		return -r;
	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&l->read_lock, &recursive);
	pthread_mutexattr_destroy(&recursive);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&l->done, NULL);
	pthread_cond_init(&l->wake, &clock);
	pthread_condattr_destroy(&clock);
	return 0;
}

static void release(struct ledger *l)
{
	ledger_finalize(l);
	sqlite3_finalize(l->one_content);
	sqlite3_close(l->reader);
	sqlite3_close(l->writer);
	if (l->wal_fd >= 0)
		close(l->wal_fd);
	if (l->lock_fd >= 0)
		close(l->lock_fd);
	ledger_batch_free(l->queue);
	ledger_batch_free(l->spare);
	while (l->failed) {
		struct ledger_batch *next = l->failed->next;

		ledger_batch_free(l->failed);
		l->failed = next;
	}
	pthread_cond_destroy(&l->done);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
	pthread_mutex_destroy(&l->read_lock);
	free(l->path);
	free(l);
}

static int open_all(struct ledger *l, char *message, size_t size)
{
	int r = take_lock(l, message, size);

	if (r == 0)
		r = create_file(l, message, size);
	if (r == 0)
		r = open_database(l, message, size);
	if (r < 0)
		return r;
	learn_last_end(l);
	if (l->other_boot) {
		r = quick_check(l, message, size);
		if (r < 0)
			return r;
	}
	r = learn_max_node(l);
	if (r < 0)
		return fail_sqlite(l, l->reader, r, message, size);
	return begin_opening(l, message, size);
}

int ledger_open(const char *path, struct ledger **ret_ledger, char *message, size_t size)
{
	struct ledger *l = calloc(1, sizeof *l);
	int r = -ENOMEM;

	if (!l)
		return -ENOMEM;
	l->lock_fd = l->wal_fd = -1;
	l->round = 1;
	r = init_locks(l);
	if (r < 0) {
		free(l);
		return r;
	}
	l->path = path_with(path, "");
	l->queue = ledger_batch_new();
	r = l->path && l->queue ? open_all(l, message, size) : -ENOMEM;
	if (r == 0)
		r = -pthread_create(&l->thread, NULL, ledger_thread, l);
	if (r < 0) {
		release(l);
		return r;
	}
	l->thread_runs = true;
	*ret_ledger = l;
	return 0;
}

void ledger_close(struct ledger *l)
{
	int r;

	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	r = ledger_sync(l);
	crash_point("end.synced");
	if (r == 0 && !l->suspicious)
		r = ledger_put_value(l, "closed", &l->opens, sizeof l->opens);
	if (r == 0)
		r = ledger_sync(l);
	if (r < 0)
		log_errno(r, "ledger: close %s: not all of it is on the disk", l->path);
	crash_point("end.closed");
	release(l);
}
