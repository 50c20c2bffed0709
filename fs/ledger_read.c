/* SPDX-License-Identifier: MIT */
/*
 * Reading the rows back, on a connection of its own: a walk over a million rows sees one state of
 * the database while commits go on beside it.
 *
 * read_lock is recursive, so that a callback may read as well.
 */
#include "ledger_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int walk(struct ledger *l, enum ledger_table table, const char *rest,
		int (*each)(struct ledger *l, const union ledger_image *image, void *ctx),
		void *ctx)
{
	sqlite3_stmt *stmt = NULL;
	int result = SQLITE_DONE;
	int r = ledger_commit(l);

	if (r < 0)
		return r;
	pthread_mutex_lock(&l->read_lock);
	r = ledger_select(l->reader, table, rest, &stmt);
	while (r == 0 && (result = sqlite3_step(stmt)) == SQLITE_ROW) {
		union ledger_image image;

		r = ledger_row_read(table, stmt, &image);
		if (r == 0)
			r = each(l, &image, ctx);
	}
	if (r == 0)
		r = ledger_errno(l->reader, result);
	sqlite3_finalize(stmt);
	/* what it has read will not be asked for again */
	sqlite3_db_release_memory(l->reader);
	pthread_mutex_unlock(&l->read_lock);
	return r;
}

struct node_walk {
	int (*each)(void *ctx, const struct ledger_node *n);
	void *ctx;
};

static int each_node(struct ledger *l, const union ledger_image *image, void *ctx)
{
	const struct node_walk *w = ctx;

	(void)l;
	return w->each(w->ctx, &image->node);
}

int ledger_each_node(struct ledger *l, int (*each)(void *ctx, const struct ledger_node *n),
		     void *ctx)
{
	struct node_walk w = {each, ctx};

	return walk(l, TABLE_NODE, "ORDER BY id", each_node, &w);
}

struct content_walk {
	int (*each)(void *ctx, const struct ledger_content *c);
	void *ctx;
};

static int each_content(struct ledger *l, const union ledger_image *image, void *ctx)
{
	const struct content_walk *w = ctx;
	struct ledger_content c = image->content.content;

	c.on_disk = image->content.epoch <= l->old_synced;
	c.unsynced = !c.on_disk && l->was_unclean && image->content.epoch >> 32 < l->opens;
	c.suspect = c.unsynced && l->other_boot;
	return w->each(w->ctx, &c);
}

int ledger_each_content(struct ledger *l, int (*each)(void *ctx, const struct ledger_content *c),
			void *ctx)
{
	struct content_walk w = {each, ctx};

	return walk(l, TABLE_CONTENT, "ORDER BY id", each_content, &w);
}

/* read_lock held. */
static int read_one_content(struct ledger *l, uint64_t id, struct content_walk *w)
{
	union ledger_image image;
	int result, r = 0;

	if (!l->one_content)
		r = ledger_select(l->reader, TABLE_CONTENT, "WHERE id=?", &l->one_content);
	if (r < 0)
		return r;
	sqlite3_bind_int64(l->one_content, 1, (sqlite3_int64)id);
	result = sqlite3_step(l->one_content);
	if (result == SQLITE_ROW) {
		r = ledger_row_read(TABLE_CONTENT, l->one_content, &image);
		if (r == 0)
			r = each_content(l, &image, w);
	} else {
		r = result == SQLITE_DONE ? -ENOENT : ledger_errno(l->reader, result);
	}
	sqlite3_reset(l->one_content);
	return r;
}

int ledger_one_content(struct ledger *l, uint64_t id,
		       int (*each)(void *ctx, const struct ledger_content *c), void *ctx)
{
	struct content_walk w = {each, ctx};
	int r = ledger_commit(l);

	if (r < 0)
		return r;
	pthread_mutex_lock(&l->read_lock);
	r = read_one_content(l, id, &w);
	pthread_mutex_unlock(&l->read_lock);
	return r;
}

struct xattr_walk {
	int (*each)(void *ctx, uint64_t node, const char *name, const void *value, size_t len);
	void *ctx;
};

static int each_xattr(struct ledger *l, const union ledger_image *image, void *ctx)
{
	const struct xattr_walk *w = ctx;
	const struct ledger_xattr_row *x = &image->xattr;

	(void)l;
	return w->each(w->ctx, x->node, x->name, x->value ? x->value : "", x->len);
}

int ledger_each_xattr(struct ledger *l,
		      int (*each)(void *ctx, uint64_t node, const char *name, const void *value,
				  size_t len),
		      void *ctx)
{
	struct xattr_walk w = {each, ctx};

	return walk(l, TABLE_XATTR, "ORDER BY node, name", each_xattr, &w);
}

static void *read_value(struct ledger *l, const char *key, size_t *ret_len)
{
	sqlite3_stmt *stmt = NULL;
	char *value = NULL;
	size_t len;

	pthread_mutex_lock(&l->read_lock);
	if (ledger_select(l->reader, TABLE_VALUE, "WHERE key=?", &stmt) == 0 &&
	    sqlite3_bind_text(stmt, 1, key, -1, SQLITE_STATIC) == SQLITE_OK &&
	    sqlite3_step(stmt) == SQLITE_ROW) {
		const void *blob = sqlite3_column_blob(stmt, 1);

		len = (size_t)sqlite3_column_bytes(stmt, 1);
		value = malloc(len + 1);
		if (value) {
			if (len > 0)
				memcpy(value, blob, len);
			value[len] = '\0';
			*ret_len = len;
		}
	}
	sqlite3_finalize(stmt);
	pthread_mutex_unlock(&l->read_lock);
	return value;
}

void *ledger_get_value(struct ledger *l, const char *key, size_t *ret_len)
{
	size_t len = 0;
	void *value = ledger_commit(l) == 0 ? read_value(l, key, &len) : NULL;

	if (value && ret_len)
		*ret_len = len;
	return value;
}

uint64_t ledger_read_number(struct ledger *l, const char *key, uint64_t otherwise)
{
	size_t len = 0;
	uint64_t number = otherwise;
	void *value = read_value(l, key, &len);

	if (value && len == sizeof number)
		memcpy(&number, value, sizeof number);
	free(value);
	return number;
}
