/* SPDX-License-Identifier: MIT */

/*
 * A ledger that is damaged is set aside, so that a new one can be made from what the server has. What
 * the server does not have yet is in the content store's objects: as far as the old rows can be read,
 * they say what it was to be called, and it is found under that name in lost+found.
 */

#include "ledger_private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/log.h>

#include "content_private.h"

/* Never over something that is there already. */
static int move(int from_fd, const char *from, int to_fd, const char *to)
{
	char target[NAME_MAX + 1];
	int r = -EEXIST;

	for (unsigned n = 0; n < 10000 && r == -EEXIST; n++) {
		if (n)
			snprintf(target, sizeof target, "%.*s.%u", NAME_MAX - 8, to, n);
		else
			snprintf(target, sizeof target, "%s", to);
		r = renameat2(from_fd, from, to_fd, target, RENAME_NOREPLACE) < 0 ? -errno : 0;
	}
	return r;
}

/* What one query gives until it meets damage. */
static unsigned recover_by(sqlite3 *db, const char *sql, int objects_fd, int lost_fd)
{
	sqlite3_stmt *stmt = NULL;
	unsigned found = 0;

	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
		return 0;
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		const char *shown = (const char *)sqlite3_column_text(stmt, 1);
		char name[CONTENT_NAME_BYTES];

		content_name((uint64_t)sqlite3_column_int64(stmt, 0), name);
		if (!shown || !*shown || strchr(shown, '/') || !strcmp(shown, ".") ||
		    !strcmp(shown, "..") || strlen(shown) > NAME_MAX ||
		    move(objects_fd, name, lost_fd, shown) < 0)
			continue;
		log_warning("ledger: '%s' was not sent yet: it is in lost+found", shown);
		found++;
	}
	sqlite3_finalize(stmt);
	return found;
}

/* From both ends, up to the damage; the number of files that got their names. */
static unsigned recover(const char *path, int objects_fd, int lost_fd)
{
#define UNSENT                                                                                     \
	"SELECT c.file, n.shown FROM node n CROSS JOIN content c ON c.id = n.content "             \
	"WHERE n.dirty AND NOT n.gone ORDER BY n.id "
	sqlite3 *db = NULL;
	unsigned found = 0;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) ==
		    SQLITE_OK &&
	    sqlite3_exec(db, "PRAGMA trusted_schema=OFF", NULL, NULL, NULL) == SQLITE_OK)
		found = recover_by(db, UNSENT "ASC", objects_fd, lost_fd) +
			recover_by(db, UNSENT "DESC", objects_fd, lost_fd);
	sqlite3_close(db);
	return found;
#undef UNSENT
}

static int open_in(int at, const char *name)
{
	return openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

int ledger_set_aside(const char *dir)
{
	static const char *const names[] = {"ledger.db", "ledger.db-wal", "ledger.db-shm"};
	int dir_fd = open_in(AT_FDCWD, dir), objects_fd = open_in(dir_fd, "objects"), lost_fd;
	unsigned found = 0;
	char *path = NULL;
	int r = 0;

	if (dir_fd >= 0)
		mkdirat(dir_fd, "lost+found", 0700);
	lost_fd = open_in(dir_fd, "lost+found");
	if (dir_fd < 0 || lost_fd < 0 || asprintf(&path, "%s/ledger.db", dir) < 0)
		r = -EIO;
	if (!r && objects_fd >= 0)
		found = recover(path, objects_fd, lost_fd);
	for (size_t i = 0; !r && i < sizeof(names) / sizeof(names[0]); i++) {
		r = move(dir_fd, names[i], lost_fd, names[i]);
		if (r == -ENOENT)
			r = 0;
	}
	if (!r)
		log_error("ledger: %s is damaged and was moved to lost+found: what the server has is "
			  "listed anew, %u files that it does not have are in lost+found by their names",
			  path, found);
	free(path);
	if (lost_fd >= 0)
		close(lost_fd);
	if (objects_fd >= 0)
		close(objects_fd);
	if (dir_fd >= 0)
		close(dir_fd);
	return r;
}
