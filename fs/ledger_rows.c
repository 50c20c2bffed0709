/* SPDX-License-Identifier: MIT */
/*
 * Rows as structs, as packed images in a queue, and as SQL. All three are driven by one table of
 * columns per kind of row, so that a new field is one line here and one in the struct.
 *
 * A packed image is the struct itself with the strings behind it and the pointers replaced by
 * offsets: put() is a memcpy(), and the batch may be moved by realloc().
 */
#include "ledger_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

/* clang-format off */
#define N(field, kind) {#field, "", COLUMN_##kind, offsetof(struct ledger_node, field), 0}
#define N_LEN(field, kind, len) \
	{#field, "", COLUMN_##kind, offsetof(struct ledger_node, field), \
	 offsetof(struct ledger_node, len)}
/* clang-format on */
static const struct ledger_column node_columns[] = {
	{"id", "INTEGER PRIMARY KEY", COLUMN_U64, offsetof(struct ledger_node, id), 0},
	N(kind, INT),
	N(parent, U64),
	N(shown, TEXT),
	N(gone, BOOL),
	N(local, BOOL),
	N(dirty, BOOL),
	N(mtime_dirty, BOOL),
	N(mode, U32),
	N(uid, U32),
	N(gid, U32),
	N(owner_set, BOOL),
	N(atime_ns, I64),
	N(mtime_ns, I64),
	N(ctime_ns, I64),
	N(size, I64),
	N(content, U64),
	N(rid, TEXT),
	N(rparent, U64),
	N(rname, TEXT),
	N(rfilename, TEXT),
	N(rversion, TEXT),
	N(rurl, TEXT),
	N(rmedia, TEXT),
	N(rsize, I64),
	N(rmtime_ns, I64),
	N(rctime_ns, I64),
	N(rfiller, BOOL),
	N_LEN(rhash, HASH, has_rhash),
	N(flight, INT),
	N(flight_since_ns, I64),
	N(token, TEXT),
	N(after, U64),
	N(error, INT),
	N(message, TEXT),
	N(listed_ns, I64),
	N(fields, TEXT),
	N(rfields, TEXT),
};
#undef N
#undef N_LEN

/* clang-format off */
#define C(field, kind) {#field, "", COLUMN_##kind, offsetof(struct ledger_content, field), 0}
#define C_LEN(field, kind, len) \
	{#field, "", COLUMN_##kind, offsetof(struct ledger_content, field), \
	 offsetof(struct ledger_content, len)}
/* clang-format on */
static const struct ledger_column content_columns[] = {
	{"id", "INTEGER PRIMARY KEY", COLUMN_U64, offsetof(struct ledger_content, id), 0},
	C(kind, INT),
	C(key, TEXT),
	C(base, U64),
	C(base_len, U64),
	C(before, U64),
	C(size, I64),
	C(complete, BOOL),
	C_LEN(hash, HASH, has_hash),
	C_LEN(ranges, BLOB, ranges_len),
	C_LEN(block_hashes, BLOB, block_hashes_len),
	C(used_ns, I64),
	C(pinned, BOOL),
	C(dropped, BOOL),
	C(file, U64),
	{"epoch", "", COLUMN_U64, offsetof(struct ledger_content_row, epoch), 0},
};
#undef C
#undef C_LEN

static const struct ledger_column xattr_columns[] = {
	{"node", "INTEGER NOT NULL", COLUMN_U64, offsetof(struct ledger_xattr_row, node), 0},
	{"name", "TEXT NOT NULL", COLUMN_TEXT, offsetof(struct ledger_xattr_row, name), 0},
	{"value", "", COLUMN_BLOB, offsetof(struct ledger_xattr_row, value),
	 offsetof(struct ledger_xattr_row, len)},
};
static const struct ledger_column value_columns[] = {
	{"key", "TEXT NOT NULL", COLUMN_TEXT, offsetof(struct ledger_value_row, key), 0},
	{"value", "", COLUMN_BLOB, offsetof(struct ledger_value_row, value),
	 offsetof(struct ledger_value_row, len)},
};
/* Not tables of their own: some columns of content. */
static const struct ledger_column mark_columns[] = {
	{"id", "", COLUMN_U64, offsetof(struct ledger_mark_row, id), 0},
	{"used_ns", "", COLUMN_I64, offsetof(struct ledger_mark_row, used_ns), 0},
	{"pinned", "", COLUMN_BOOL, offsetof(struct ledger_mark_row, pinned), 0},
	{"dropped", "", COLUMN_BOOL, offsetof(struct ledger_mark_row, dropped), 0},
	{"before", "", COLUMN_U64, offsetof(struct ledger_mark_row, before), 0},
};

static const struct ledger_column clean_columns[] = {
	{"id", "", COLUMN_U64, offsetof(struct ledger_clean_row, id), 0},
	{"key", "", COLUMN_TEXT, offsetof(struct ledger_clean_row, key), 0},
};

#define KIND(name, options, columns, keys, type)                                                   \
	{                                                                                          \
		name, options, columns, sizeof(columns) / sizeof(*(columns)), keys, sizeof(type)   \
	}
#define KEYED(key) ", PRIMARY KEY(" key ")) WITHOUT ROWID"
const struct ledger_table_kind ledger_tables[TABLE_COUNT] = {
	[TABLE_NODE] = KIND("node", ")", node_columns, 1, struct ledger_node),
	[TABLE_CONTENT] = KIND("content", ")", content_columns, 1, struct ledger_content_row),
	[TABLE_XATTR] =
		KIND("xattr", KEYED("node, name"), xattr_columns, 2, struct ledger_xattr_row),
	[TABLE_VALUE] = KIND("value", KEYED("key"), value_columns, 1, struct ledger_value_row),
	[TABLE_MARK] = KIND("content", "", mark_columns, 1, struct ledger_mark_row),
	[TABLE_CLEAN] = KIND("content", "", clean_columns, 1, struct ledger_clean_row),
};

/* Packing. */

static const void *pointer_at(const void *image, size_t offset)
{
	const void *p;

	memcpy(&p, (const char *)image + offset, sizeof p);
	return p;
}

static size_t size_at(const void *image, size_t offset)
{
	size_t n;

	memcpy(&n, (const char *)image + offset, sizeof n);
	return n;
}

/* How many bytes of string or blob stand behind the pointer of a column. */
static size_t tail_bytes(const struct ledger_column *column, const void *image)
{
	const char *p;

	if (column->type != COLUMN_TEXT && column->type != COLUMN_BLOB)
		return 0;
	p = pointer_at(image, column->offset);
	if (!p)
		return 0;
	return column->type == COLUMN_TEXT ? strlen(p) + 1 : size_at(image, column->len_offset);
}

static uint64_t key_hash(enum ledger_table table, const void *image)
{
	const struct ledger_table_kind *kind = &ledger_tables[table];
	uint64_t hash = table + 1;

	for (size_t i = 0; i < kind->key_columns; i++) {
		const struct ledger_column *c = &kind->columns[i];

		if (c->type == COLUMN_TEXT)
			hash = XXH3_64bits_withSeed(pointer_at(image, c->offset),
						    strlen(pointer_at(image, c->offset)), hash);
		else
			hash = XXH3_64bits_withSeed((const char *)image + c->offset,
						    sizeof(uint64_t), hash);
	}
	return hash;
}

/* Whether the packed @e speaks of the row whose key is in the unpacked @image. */
static bool same_key(const struct ledger_entry *e, enum ledger_table table, const void *image)
{
	const struct ledger_table_kind *kind = &ledger_tables[table];

	if (e->table != table)
		return false;
	for (size_t i = 0; i < kind->key_columns; i++) {
		const struct ledger_column *c = &kind->columns[i];
		const char *mine = (const char *)&e->image + c->offset;

		if (c->type == COLUMN_TEXT) {
			const char *text = (const char *)e + size_at(mine, 0);

			if (strcmp(text, pointer_at(image, c->offset)) != 0)
				return false;
		} else if (memcmp(mine, (const char *)image + c->offset, sizeof(uint64_t)) != 0) {
			return false;
		}
	}
	return true;
}

struct ledger_batch *ledger_batch_new(void)
{
	return calloc(1, sizeof(struct ledger_batch));
}

void ledger_batch_free(struct ledger_batch *b)
{
	if (!b)
		return;
	free(b->data);
	free(b->slots);
	free(b);
}

/* Keeps the memory, unless it was an unusually large batch. */
void ledger_batch_empty(struct ledger_batch *b)
{
	if (b->room > 1024u * 1024) {
		free(b->data);
		free(b->slots);
		*b = (struct ledger_batch){0};
		return;
	}
	if (b->slots && b->entries)
		memset(b->slots, 0, b->slot_count * sizeof *b->slots);
	b->next = NULL;
	b->bytes = 0;
	b->entries = 0;
	b->drops_nodes = false;
}

static int batch_make_room(struct ledger_batch *b, size_t need)
{
	size_t room = b->room ? b->room : 4096;
	unsigned char *data;

	if (need > UINT32_MAX - b->bytes - 1) /* the offsets in slots are 32 bits */
		return -ENOMEM;
	if (b->bytes + need <= b->room)
		return 0;
	while (room < b->bytes + need)
		room *= 2;
	data = realloc(b->data, room);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->room = room;
	return 0;
}

static struct ledger_entry *entry_at(const struct ledger_batch *b, size_t offset)
{
	return (struct ledger_entry *)(void *)(b->data + offset);
}

static int batch_grow_slots(struct ledger_batch *b)
{
	size_t count = b->slot_count ? b->slot_count * 2 : 64;
	uint32_t *slots;

	if (b->entries * 4 < b->slot_count * 3)
		return 0;
	slots = calloc(count, sizeof *slots);
	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < b->slot_count; i++) {
		size_t at;

		if (!b->slots[i])
			continue;
		at = entry_at(b, b->slots[i] - 1)->hash & (count - 1);
		while (slots[at])
			at = (at + 1) & (count - 1);
		slots[at] = b->slots[i];
	}
	free(b->slots);
	b->slots = slots;
	b->slot_count = count;
	return 0;
}

/* The slot of the row of @image: taken by its entry, or the free one it would get. */
static uint32_t *find_slot(struct ledger_batch *b, enum ledger_table table, const void *image,
			   uint64_t hash)
{
	size_t at = hash & (b->slot_count - 1);

	for (; b->slots[at]; at = (at + 1) & (b->slot_count - 1)) {
		const struct ledger_entry *e = entry_at(b, b->slots[at] - 1);

		if (e->hash == hash && same_key(e, table, image))
			break;
	}
	return &b->slots[at];
}

/* Copy the strings of @image behind the packed one in @e and turn its pointers into offsets. */
static void pack_tails(struct ledger_entry *e, const struct ledger_table_kind *kind,
		       const void *image)
{
	size_t at = offsetof(struct ledger_entry, image) + kind->image_bytes;

	for (size_t i = 0; i < kind->count; i++) {
		const struct ledger_column *c = &kind->columns[i];
		const void *from;
		size_t n, offset = 0;

		if (c->type != COLUMN_TEXT && c->type != COLUMN_BLOB)
			continue;
		from = pointer_at(image, c->offset);
		n = tail_bytes(c, image);
		if (from) {
			offset = at;
			if (n > 0)
				memcpy((char *)e + at, from, n);
			at += n;
		}
		memcpy((char *)&e->image + c->offset, &offset, sizeof offset);
	}
}

/*
 * Append. An older entry for the same row is not overwritten but marked dead: the order of what is
 * left is the order of the calls, which matters where one entry touches the rows of others
 * (dropping a node drops its xattrs).
 */
int ledger_batch_add(struct ledger_batch *b, enum ledger_table table, bool drop, const void *image)
{
	const struct ledger_table_kind *kind = &ledger_tables[table];
	size_t need = offsetof(struct ledger_entry, image) + kind->image_bytes;
	uint64_t hash = key_hash(table, image);
	struct ledger_entry *e;
	uint32_t *slot;

	for (size_t i = 0; i < kind->count; i++)
		need += tail_bytes(&kind->columns[i], image);
	need = (need + 7) & ~(size_t)7;
	if (batch_make_room(b, need) < 0 || batch_grow_slots(b) < 0)
		return -ENOMEM;
	slot = find_slot(b, table, image, hash);
	if (*slot)
		entry_at(b, *slot - 1)->dead = true;
	else
		b->entries++;
	*slot = (uint32_t)b->bytes + 1;
	e = entry_at(b, b->bytes);
	e->bytes = (uint32_t)need;
	e->table = (uint8_t)table;
	e->drop = drop;
	e->dead = false;
	e->hash = hash;
	memcpy(&e->image, image, kind->image_bytes);
	pack_tails(e, kind, image);
	b->bytes += need;
	if (drop && table == TABLE_NODE)
		b->drops_nodes = true;
	return 0;
}

/* Writing. */

/* Bind one column of the packed @e as parameter @n. */
static int bind_column(sqlite3_stmt *stmt, int n, const struct ledger_column *c,
		       const struct ledger_entry *e)
{
	const char *field = (const char *)&e->image + c->offset;
	const char *tail;
	bool has;

	switch (c->type) {
	case COLUMN_U64:
	case COLUMN_I64:
		return sqlite3_bind_int64(stmt, n,
					  (sqlite3_int64) * (const int64_t *)(const void *)field);
	case COLUMN_U32:
		return sqlite3_bind_int64(stmt, n, *(const uint32_t *)(const void *)field);
	case COLUMN_INT:
		return sqlite3_bind_int(stmt, n, *(const int *)(const void *)field);
	case COLUMN_BOOL:
		return sqlite3_bind_int(stmt, n, *(const bool *)field);
	case COLUMN_TEXT:
	case COLUMN_BLOB:
		if (size_at(field, 0) == 0)
			return sqlite3_bind_null(stmt, n);
		tail = (const char *)e + size_at(field, 0);
		if (c->type == COLUMN_TEXT)
			return sqlite3_bind_text(stmt, n, tail, -1, SQLITE_STATIC);
		return sqlite3_bind_blob64(stmt, n, tail, size_at(&e->image, c->len_offset),
					   SQLITE_STATIC);
	case COLUMN_HASH:
		has = *((const bool *)&e->image + c->len_offset);
		if (!has)
			return sqlite3_bind_null(stmt, n);
		return sqlite3_bind_blob(stmt, n, field, LEDGER_HASH_BYTES, SQLITE_STATIC);
	}
	return SQLITE_MISUSE;
}

static int run(struct ledger *l, sqlite3_stmt *stmt, const struct ledger_entry *e, size_t columns)
{
	const struct ledger_table_kind *kind = &ledger_tables[e->table];
	int result = SQLITE_OK;

	for (size_t i = 0; i < columns && result == SQLITE_OK; i++)
		result = bind_column(stmt, (int)i + 1, &kind->columns[i], e);
	if (result == SQLITE_OK)
		result = sqlite3_step(stmt);
	if (result == SQLITE_DONE || result == SQLITE_OK) {
		sqlite3_reset(stmt);
		return 0;
	}
	result = ledger_errno(l->writer, result);
	sqlite3_reset(stmt);
	return result;
}

int ledger_batch_write(struct ledger *l, const struct ledger_batch *b)
{
	int r = 0;

	for (size_t at = 0; at < b->bytes && r == 0; at += entry_at(b, at)->bytes) {
		const struct ledger_entry *e = entry_at(b, at);
		const struct ledger_table_kind *kind = &ledger_tables[e->table];

		if (e->dead)
			continue;
		if (!e->drop) {
			r = run(l, l->put[e->table], e, kind->count);
			continue;
		}
		r = run(l, l->drop[e->table], e, kind->key_columns);
		if (r == 0 && e->table == TABLE_NODE)
			r = run(l, l->drop_xattrs, e, 1);
	}
	return r;
}

/* SQL. */

struct sql {
	char text[2048];
	size_t len;
};

static void __attribute__((format(printf, 2, 3))) add(struct sql *s, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(s->text + s->len, sizeof s->text - s->len, format, args);
	va_end(args);
	if (n > 0)
		s->len += (size_t)n;
}

static int prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret_stmt)
{
	int result = sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret_stmt, NULL);

	return result == SQLITE_OK ? 0 : ledger_errno(db, result);
}

int ledger_create_tables(sqlite3 *db)
{
	for (size_t t = 0; t < TABLE_COUNT; t++) {
		const struct ledger_table_kind *kind = &ledger_tables[t];
		struct sql s = {.len = 0};
		int result;

		if (t == TABLE_MARK || t == TABLE_CLEAN)
			continue;
		add(&s, "CREATE TABLE %s(", kind->name);
		for (size_t i = 0; i < kind->count; i++)
			add(&s, "%s%s %s", i ? ", " : "", kind->columns[i].name,
			    kind->columns[i].sql);
		add(&s, "%s", kind->options);
		result = sqlite3_exec(db, s.text, NULL, NULL, NULL);
		if (result != SQLITE_OK)
			return ledger_errno(db, result);
	}
	return 0;
}

int ledger_upgrade_tables(sqlite3 *db, long version)
{
	/* what each version had not */
	static const char *const since[LEDGER_SCHEMA_VERSION] = {
		[1] = "ALTER TABLE node ADD COLUMN fields;"
		      "ALTER TABLE node ADD COLUMN rfields;",
		[2] = "ALTER TABLE node ADD COLUMN rhash;"
		      "ALTER TABLE content ADD COLUMN before DEFAULT 0;",
	};
	int r = 0;

	for (long v = version; v < LEDGER_SCHEMA_VERSION && r == 0; v++)
		r = ledger_errno(db, sqlite3_exec(db, since[v], NULL, NULL, NULL));
	return r;
}

static int prepare_put(struct ledger *l, enum ledger_table table)
{
	const struct ledger_table_kind *kind = &ledger_tables[table];
	struct sql s = {.len = 0};

	add(&s, "INSERT OR REPLACE INTO %s(", kind->name);
	for (size_t i = 0; i < kind->count; i++)
		add(&s, "%s%s", i ? "," : "", kind->columns[i].name);
	add(&s, ") VALUES(");
	for (size_t i = 0; i < kind->count; i++)
		add(&s, "%s?", i ? "," : "");
	add(&s, ")");
	return prepare(l->writer, s.text, &l->put[table]);
}

static int prepare_drop(struct ledger *l, enum ledger_table table)
{
	const struct ledger_table_kind *kind = &ledger_tables[table];
	struct sql s = {.len = 0};

	add(&s, "DELETE FROM %s WHERE ", kind->name);
	for (size_t i = 0; i < kind->key_columns; i++)
		add(&s, "%s%s=?", i ? " AND " : "", kind->columns[i].name);
	return prepare(l->writer, s.text, &l->drop[table]);
}

int ledger_prepare(struct ledger *l)
{
	int r = prepare(l->writer,
			"UPDATE content SET used_ns=?2, pinned=?3, dropped=?4, before=?5 "
			"WHERE id=?1",
			&l->put[TABLE_MARK]);

	if (r == 0)
		r = prepare(l->writer, "UPDATE content SET kind=1, key=?2 WHERE id=?1",
			    &l->put[TABLE_CLEAN]);
	for (enum ledger_table t = 0; t < TABLE_MARK && r == 0; t++) {
		r = prepare_put(l, t);
		if (r == 0)
			r = prepare_drop(l, t);
	}
	if (r == 0)
		r = prepare(l->writer, "DELETE FROM xattr WHERE node=?", &l->drop_xattrs);
	if (r == 0)
		r = prepare(l->writer, "BEGIN IMMEDIATE", &l->begin);
	if (r == 0)
		r = prepare(l->writer, "COMMIT", &l->commit);
	if (r == 0)
		r = prepare(l->writer, "ROLLBACK", &l->rollback);
	return r;
}

void ledger_finalize(struct ledger *l)
{
	for (enum ledger_table t = 0; t < TABLE_COUNT; t++) {
		sqlite3_finalize(l->put[t]);
		sqlite3_finalize(l->drop[t]);
	}
	sqlite3_finalize(l->drop_xattrs);
	sqlite3_finalize(l->begin);
	sqlite3_finalize(l->commit);
	sqlite3_finalize(l->rollback);
}

int ledger_select(sqlite3 *db, enum ledger_table table, const char *rest, sqlite3_stmt **ret_stmt)
{
	const struct ledger_table_kind *kind = &ledger_tables[table];
	struct sql s = {.len = 0};

	add(&s, "SELECT ");
	for (size_t i = 0; i < kind->count; i++)
		add(&s, "%s%s", i ? "," : "", kind->columns[i].name);
	add(&s, " FROM %s %s", kind->name, rest);
	return prepare(db, s.text, ret_stmt);
}

/* Reading. */

static void store_pointer(void *image, size_t offset, const void *p)
{
	memcpy((char *)image + offset, &p, sizeof p);
}

static void read_column(const struct ledger_column *c, sqlite3_stmt *stmt, int n, void *image)
{
	char *field = (char *)image + c->offset;
	int64_t number;
	size_t len;

	switch (c->type) {
	case COLUMN_U64:
	case COLUMN_I64:
		number = sqlite3_column_int64(stmt, n);
		memcpy(field, &number, sizeof number);
		break;
	case COLUMN_U32:
		*(uint32_t *)(void *)field = (uint32_t)sqlite3_column_int64(stmt, n);
		break;
	case COLUMN_INT:
		*(int *)(void *)field = sqlite3_column_int(stmt, n);
		break;
	case COLUMN_BOOL:
		*(bool *)field = sqlite3_column_int(stmt, n) != 0;
		break;
	case COLUMN_TEXT:
		store_pointer(image, c->offset, sqlite3_column_text(stmt, n));
		break;
	case COLUMN_BLOB:
		store_pointer(image, c->offset, sqlite3_column_blob(stmt, n));
		len = (size_t)sqlite3_column_bytes(stmt, n);
		memcpy((char *)image + c->len_offset, &len, sizeof len);
		break;
	case COLUMN_HASH:
		*((bool *)image + c->len_offset) = false;
		if (sqlite3_column_bytes(stmt, n) == LEDGER_HASH_BYTES) {
			memcpy(field, sqlite3_column_blob(stmt, n), LEDGER_HASH_BYTES);
			*((bool *)image + c->len_offset) = true;
		}
		break;
	}
}

/* The database may be damaged, or somebody's: what the callers may take for granted is looked at
 * here. */
static bool row_is_sane(enum ledger_table table, const union ledger_image *image)
{
	const struct ledger_node *n = &image->node;
	const struct ledger_content *c = &image->content.content;

	switch (table) {
	case TABLE_NODE:
		return n->id != 0 && (int)n->kind >= LEDGER_COLLECTION && n->kind <= LEDGER_FILE &&
		       (int)n->flight >= LEDGER_FLIGHT_NONE && n->flight <= LEDGER_FLIGHT_REMOVE &&
		       n->error <= 0;
	case TABLE_CONTENT:
		return c->id != 0 && (int)c->kind >= LEDGER_CONTENT_CLEAN &&
		       c->kind <= LEDGER_CONTENT_DROPPED && c->size >= -1 && c->file != 0 &&
		       (c->kind != LEDGER_CONTENT_CLEAN || c->key);
	case TABLE_XATTR:
		return image->xattr.name != NULL;
	case TABLE_VALUE:
		return image->value.key != NULL;
	case TABLE_MARK:
	case TABLE_CLEAN:
	case TABLE_COUNT:
		break;
	}
	return false;
}

int ledger_row_read(enum ledger_table table, sqlite3_stmt *stmt, void *image)
{
	const struct ledger_table_kind *kind = &ledger_tables[table];

	memset(image, 0, kind->image_bytes);
	for (size_t i = 0; i < kind->count; i++)
		read_column(&kind->columns[i], stmt, (int)i, image);
	return row_is_sane(table, image) ? 0 : -EIO;
}
