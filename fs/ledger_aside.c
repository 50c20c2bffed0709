/* SPDX-License-Identifier: MIT */

/*
 * A ledger that is damaged is set aside, so that a new one can be made from what the server has. What
 * the server does not have yet is in the content store's objects: as far as the old rows can be read,
 * they say what it was to be called, and it is found under that name in lost+found. What was written
 * only in part, and cannot be made whole from what is here (fs/salvage.h), gets a name that says so,
 * and a note beside it which bytes there are.
 */

#include "ledger_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/log.h>

#include "content_private.h"
#include "salvage.h"

#define INCOMPLETE ".incomplete"

struct aside {
	sqlite3 *db;
	int objects_fd, lost_fd;
	unsigned found;
};

/* The @n-th try at calling something @name. */
static void name_of_try(const char *name, unsigned n, char target[static NAME_MAX + 1])
{
	if (n)
		snprintf(target, NAME_MAX + 1, "%.*s.%u", NAME_MAX - 12, name, n);
	else
		snprintf(target, NAME_MAX + 1, "%s", name);
}

/* Never over something that is there already: *@target is the name that was free. */
static int move(int from_fd, const char *from, int to_fd, const char *to,
		char target[static NAME_MAX + 1])
{
	int r = -EEXIST;

	for (unsigned n = 0; n < 10000 && r == -EEXIST; n++) {
		name_of_try(to, n, target);
		r = renameat2(from_fd, from, to_fd, target, RENAME_NOREPLACE) < 0 ? -errno : 0;
	}
	return r;
}

static int create(int dir_fd, const char *name, char target[static NAME_MAX + 1])
{
	int fd = -1;

	errno = EEXIST;
	for (unsigned n = 0; n < 10000 && fd < 0 && errno == EEXIST; n++) {
		name_of_try(name, n, target);
		fd = openat(dir_fd, target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
			    0600);
	}
	return fd < 0 ? -errno : fd;
}

static bool is_name(const char *name)
{
	return name && *name && !strchr(name, '/') && strcmp(name, ".") != 0 &&
	       strcmp(name, "..") != 0 && strlen(name) <= NAME_MAX;
}

/* Beside the incomplete file @of: which of its bytes are what was written. */
static int note_ranges(const struct aside *a, const char *of, const char *wanted,
		       const struct salvaged *s)
{
	char name[NAME_MAX + 1], target[NAME_MAX + 1];
	FILE *f;
	int fd, r;

	snprintf(name, sizeof name, "%.*s.ranges", NAME_MAX - 8, of);
	fd = create(a->lost_fd, name, target);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	fprintf(f,
		"Of the %" PRIu64
		" bytes of \"%s\" only these (first to last, counted from 0) are in \"%s\":\n"
		"the others are as the server has them, and zeros there.\n",
		s->size, wanted, of);
	for (size_t i = 0; i < s->present.count; i++)
		fprintf(f, "%" PRIu64 "-%" PRIu64 "\n", s->present.at[i].first,
			s->present.at[i].end - 1);
	r = fflush(f) || fsync(fileno(f)) < 0 ? -errno : 0;
	return fclose(f) ? -EIO : r;
}

static int keep_content(struct aside *a, uint64_t id, const char *where, const char *shown)
{
	char object[CONTENT_NAME_BYTES], name[NAME_MAX + 1], target[NAME_MAX + 1];
	struct salvaged s;
	bool whole;
	int r = salvage_content(a->db, a->objects_fd, id, &s);

	if (r < 0)
		return r;
	whole = ranges_has(&s.present, 0, s.size);
	snprintf(name, sizeof name, "%.*s%s", whole ? NAME_MAX : NAME_MAX - (int)sizeof INCOMPLETE,
		 shown, whole ? "" : INCOMPLETE);
	content_name(s.file, object);
	r = move(a->objects_fd, object, a->lost_fd, name, target);
	if (!r && !whole)
		r = note_ranges(a, target, shown, &s);
	if (!r && whole)
		log_warning("ledger: '%s/%s' was not sent yet: it is in lost+found/%s", where,
			    shown, target);
	else if (!r)
		log_warning("ledger: '%s/%s' was not sent yet: %" PRIu64 " of its %" PRIu64
			    " bytes are in lost+found/%s, which ones in %s.ranges",
			    where, shown, s.present.bytes, s.size, target, target);
	salvaged_clear(&s);
	return r;
}

/* An empty file has no bytes to be found by. */
static int keep_empty(struct aside *a, const char *where, const char *shown)
{
	char target[NAME_MAX + 1];
	int fd = create(a->lost_fd, shown, target);

	if (fd < 0)
		return fd;
	close(fd);
	log_warning("ledger: '%s/%s', empty, was not sent yet: it is in lost+found/%s", where,
		    shown, target);
	return 0;
}

/* The name of directory @id, "?" when that row cannot be read: a query of its own, which may fail alone. */
static void name_of_dir(sqlite3 *db, sqlite3_int64 id, char name[static NAME_MAX + 1])
{
	sqlite3_stmt *stmt = NULL;
	const unsigned char *text = NULL;

	if (sqlite3_prepare_v2(db, "SELECT shown FROM node WHERE id=?", -1, &stmt, NULL) ==
		    SQLITE_OK &&
	    sqlite3_bind_int64(stmt, 1, id) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW)
		text = sqlite3_column_text(stmt, 0);
	snprintf(name, NAME_MAX + 1, "%s", text ? (const char *)text : "?");
	sqlite3_finalize(stmt);
}

static void recover_row(struct aside *a, sqlite3_stmt *stmt)
{
	uint64_t content = (uint64_t)sqlite3_column_int64(stmt, 0);
	const char *shown = (const char *)sqlite3_column_text(stmt, 1);
	int64_t size = sqlite3_column_int64(stmt, 3);
	char where[NAME_MAX + 1];
	int r = -EINVAL;

	name_of_dir(a->db, sqlite3_column_int64(stmt, 2), where);
	if (is_name(shown) && content)
		r = keep_content(a, content, where, shown);
	else if (is_name(shown) && size == 0)
		r = keep_empty(a, where, shown);
	if (!r)
		a->found++;
}

/* What one query gives until it meets damage: content, name, directory, size. True: it met none. */
static bool recover_by(struct aside *a, const char *sql)
{
	sqlite3_stmt *stmt = NULL;
	int result = sqlite3_prepare_v2(a->db, sql, -1, &stmt, NULL);

	while (result == SQLITE_OK || result == SQLITE_ROW) {
		result = sqlite3_step(stmt);
		if (result == SQLITE_ROW)
			recover_row(a, stmt);
	}
	sqlite3_finalize(stmt);
	return result == SQLITE_DONE;
}

/* From both ends, up to the damage. */
static void recover(struct aside *a, const char *path)
{
#define UNSENT "SELECT content, shown, parent, size FROM node WHERE dirty AND NOT gone ORDER BY id "
	if (sqlite3_open_v2(path, &a->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) ==
		    SQLITE_OK &&
	    sqlite3_exec(a->db, "PRAGMA trusted_schema=OFF", NULL, NULL, NULL) == SQLITE_OK &&
	    !recover_by(a, UNSENT "ASC"))
		recover_by(a, UNSENT "DESC");
	sqlite3_close(a->db);
	a->db = NULL;
#undef UNSENT
}

static int open_in(int at, const char *name)
{
	return openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

int ledger_set_aside(const char *dir)
{
	static const char *const names[] = {"ledger.db", "ledger.db-wal", "ledger.db-shm"};
	int dir_fd = open_in(AT_FDCWD, dir);
	struct aside a = {.objects_fd = open_in(dir_fd, "objects")};
	char *path = NULL, target[NAME_MAX + 1];
	int r = 0;

	if (dir_fd >= 0)
		mkdirat(dir_fd, "lost+found", 0700);
	a.lost_fd = open_in(dir_fd, "lost+found");
	if (dir_fd < 0 || a.lost_fd < 0 || asprintf(&path, "%s/ledger.db", dir) < 0)
		r = -EIO;
	if (!r && a.objects_fd >= 0)
		recover(&a, path);
	for (size_t i = 0; !r && i < sizeof(names) / sizeof(names[0]); i++) {
		r = move(dir_fd, names[i], a.lost_fd, names[i], target);
		if (r == -ENOENT)
			r = 0;
	}
	if (!r)
		log_error(
			"ledger: %s is damaged and was moved to lost+found: what the server has is "
			"listed anew, %u files that it does not have are in lost+found by their "
			"names",
			path, a.found);
	free(path);
	if (a.lost_fd >= 0)
		close(a.lost_fd);
	if (a.objects_fd >= 0)
		close(a.objects_fd);
	if (dir_fd >= 0)
		close(dir_fd);
	return r;
}
