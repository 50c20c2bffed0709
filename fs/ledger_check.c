/* SPDX-License-Identifier: MIT */
/*
 * Rows that contradict each other: one query per invariant, which finds the first that breaks it.
 * Node ids 0 and 1 are the root, which has no row.
 */
#include "ledger_private.h"

#include <errno.h>
#include <stdio.h>

#include "ranges.h"

struct invariant {
	const char *sql;   /* gives the id of a row that breaks it */
	const char *words; /* "<what> <id>: <words>" */
	const char *what;
};

static const struct invariant invariants[] = {
	{"SELECT id FROM node WHERE id<=0", "an impossible id", "node"},
	{"SELECT n.id FROM node n LEFT JOIN node p ON p.id=n.parent "
	 "WHERE n.parent NOT IN (0,1) AND (p.id IS NULL OR p.kind=3)",
	 "its directory is missing or a file", "node"},
	{"WITH RECURSIVE t(id) AS (SELECT id FROM node WHERE parent IN (0,1) "
	 "UNION SELECT n.id FROM t JOIN node n ON n.parent=t.id) "
	 "SELECT id FROM node WHERE id NOT IN (SELECT id FROM t)",
	 "is not below the root", "node"},
	{"SELECT max(id) FROM node WHERE NOT gone AND shown IS NOT NULL GROUP BY parent, shown "
	 "HAVING count(*)>1",
	 "shares its name with another", "node"},
	{"SELECT id FROM node WHERE dirty AND kind<>3", "dirty, but no file", "node"},
	{"SELECT n.id FROM node n LEFT JOIN content c ON c.id=n.content AND c.kind<>3 "
	 "WHERE n.content<>0 AND n.dirty AND c.id IS NULL",
	 "its content is missing", "node"},
	{"SELECT n.id FROM node n JOIN content c ON c.id=n.content AND c.dropped WHERE n.dirty AND "
	 "NOT n.gone",
	 "its content has been dropped", "node"},
	{"SELECT id FROM node WHERE dirty AND content=0 AND size>0",
	 "dirty with a size but no content", "node"},
	{"SELECT id FROM node WHERE rid IS NULL AND rsize>0",
	 "a size on the server, but no id there", "node"},
	{"SELECT max(id) FROM node WHERE rid IS NOT NULL AND kind=3 GROUP BY rparent, rid "
	 "HAVING count(*)>1",
	 "shares its remote id with another", "node"},
	{"SELECT x.node FROM xattr x LEFT JOIN node n ON n.id=x.node WHERE n.id IS NULL",
	 "has xattrs but no row", "node"},
	{"SELECT id FROM content WHERE id<=0 OR kind NOT IN (1,2,3)", "an impossible id or kind",
	 "content"},
	{"SELECT id FROM content WHERE kind=1 AND (key IS NULL OR base<>0)",
	 "clean without key, or with a base", "content"},
	{"SELECT id FROM content WHERE kind=2 AND key IS NOT NULL", "dirty with a key", "content"},
	{"SELECT id FROM content WHERE kind=2 AND size<0", "dirty without a size", "content"},
	{"SELECT id FROM content WHERE complete AND base<>0", "complete, but with a base",
	 "content"},
	{"SELECT id FROM content WHERE base<>0 AND base>=id", "over a younger one", "content"},
	/* of what was dropped the base may go first */
	{"SELECT c.id FROM content c LEFT JOIN content b ON b.id=c.base AND b.kind<>3 "
	 "WHERE c.kind=2 AND c.base<>0 AND NOT c.dropped AND b.id IS NULL",
	 "its base is missing", "content"},
	{"SELECT max(id) FROM content WHERE kind<>3 GROUP BY file HAVING count(*)>1",
	 "shares its file with another", "content"},
};

/* 0, 1 with the id of an offender, -errno */
static int first_offender(sqlite3 *db, const char *sql, int64_t *ret_id)
{
	sqlite3_stmt *stmt = NULL;
	int result = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
	int r;

	if (result == SQLITE_OK)
		result = sqlite3_step(stmt);
	if (result == SQLITE_ROW)
		*ret_id = sqlite3_column_int64(stmt, 0);
	r = result == SQLITE_ROW ? 1 : ledger_errno(db, result);
	sqlite3_finalize(stmt);
	return r;
}

struct range_check {
	char *message;
	size_t size;
};

static int check_ranges(void *ctx, const struct ledger_content *c)
{
	const struct range_check *check = ctx;
	struct ranges ranges = {0};
	int r = ranges_load(&ranges, c->ranges, c->ranges_len);

	if (r == 0 && c->size >= 0 && ranges.count > 0 &&
	    ranges.at[ranges.count - 1].end > (uint64_t)c->size)
		r = -EINVAL;
	ranges_clear(&ranges);
	if (r != -EINVAL)
		return r;
	snprintf(check->message, check->size, "content %llu: its ranges are no set within its size",
		 (unsigned long long)c->id);
	return -EUCLEAN;
}

int ledger_check(struct ledger *l, char *message, size_t size)
{
	struct range_check check = {message, size};
	int64_t id = 0;
	int r = ledger_commit(l);

	if (r < 0)
		return r;
	pthread_mutex_lock(&l->read_lock);
	for (size_t i = 0; i < sizeof invariants / sizeof *invariants && r == 0; i++) {
		r = first_offender(l->reader, invariants[i].sql, &id);
		if (r != 1)
			continue;
		snprintf(message, size, "%s %lld: %s", invariants[i].what, (long long)id,
			 invariants[i].words);
		r = -EUCLEAN;
	}
	pthread_mutex_unlock(&l->read_lock);
	if (r < 0)
		return r;
	return ledger_each_content(l, check_ranges, &check);
}
