/* SPDX-License-Identifier: MIT */
#include "store.h"

#include "alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct owner {
	struct rows rows;
};

struct store *store_new(const struct collection *collections)
{
	struct store *s = xzalloc(sizeof(*s));

	while (collections[s->n_collections].name)
		s->n_collections++;
	assert(s->n_collections <= STORE_COLLECTIONS_MAX);
	s->collections = xzalloc(STORE_COLLECTIONS_MAX * sizeof(*s->collections));
	for (size_t i = 0; i < s->n_collections; i++) {
		s->collections[i].name = xstrdup(collections[i].name);
		s->collections[i].owner_type = xstrdup(collections[i].owner_type);
		s->collections[i].next_id = 1;
	}
	s->next_attachment_id = 1;
	return s;
}

static void free_record(struct record *r)
{
	str_free(&r->name);
	json_decref(r->fields);
	free(r);
}

static void free_attachment(struct attachment *a)
{
	str_free(&a->name);
	str_free(&a->filename);
	str_free(&a->owner_type);
	free(a->path);
	free(a);
}

static void free_collection(struct collection *c)
{
	for (size_t i = 0; i < c->records.n; i++)
		free_record((struct record *)c->records.at[i]);
	rows_free(&c->records);
	free((void *)c->name);
	free((void *)c->owner_type);
}

void store_free(struct store *s)
{
	size_t pos = 0;
	struct owner *o;
	struct blob *b;

	for (size_t i = 0; i < s->n_collections; i++)
		free_collection(&s->collections[i]);
	free(s->collections);
	for (size_t i = 0; i < s->attachments.n; i++)
		free_attachment((struct attachment *)s->attachments.at[i]);
	rows_free(&s->attachments);
	while ((o = table_next(&s->owners, &pos))) {
		rows_free(&o->rows);
		free(o);
	}
	table_free(&s->owners);
	pos = 0;
	while ((b = table_next(&s->blobs, &pos)))
		blob_unref(b);
	table_free(&s->blobs);
	free(s);
}

struct collection *store_collection(struct store *s, const char *name)
{
	for (size_t i = 0; i < s->n_collections; i++)
		if (strcmp(s->collections[i].name, name) == 0)
			return &s->collections[i];
	return NULL;
}

struct collection *store_open_collection(struct store *s, const char *name)
{
	struct collection *c = store_collection(s, name);

	if (!c && s->n_collections < STORE_COLLECTIONS_MAX) {
		c = &s->collections[s->n_collections++];
		*c = (struct collection){xstrdup(name), xstrdup(name), {0}, 1};
	}
	return c;
}

struct collection *store_collection_of_type(struct store *s, const char *type, size_t len)
{
	for (size_t i = 0; i < s->n_collections; i++) {
		const char *own = s->collections[i].owner_type;

		if (strlen(own) == len && strncasecmp(own, type, len) == 0)
			return &s->collections[i];
	}
	return NULL;
}

struct record *store_add_record(struct collection *c, const char *name, size_t len, int64_t now)
{
	struct record *r = xzalloc(sizeof(*r));

	r->row.id = c->next_id++;
	r->collection = c;
	r->name = str_dup(name, len);
	r->fields = json_object();
	r->created_at = now;
	r->updated_at = now;
	rows_add(&c->records, &r->row);
	return r;
}

struct record *store_record(const struct collection *c, int64_t id)
{
	return (struct record *)rows_find(&c->records, id);
}

struct record *store_record_named(const struct collection *c, const char *name)
{
	for (size_t i = 0; i < c->records.n; i++) {
		struct record *r = (struct record *)c->records.at[i];

		if (str_equal(&r->name, name, strlen(name)))
			return r;
	}
	return NULL;
}

void store_delete_record(struct record *r)
{
	rows_remove(&r->collection->records, &r->row);
	free_record(r);
}

struct attachment *store_add_attachment(struct store *s, const char *path, int64_t now)
{
	struct attachment *a = xzalloc(sizeof(*a));

	a->row.id = s->next_attachment_id++;
	a->path = xstrdup(path);
	a->created_at = now;
	a->updated_at = now;
	rows_add(&s->attachments, &a->row);
	return a;
}

struct attachment *store_attachment(const struct store *s, int64_t id)
{
	return (struct attachment *)rows_find(&s->attachments, id);
}

/* The index key: the id's bytes, then the folded type. */
static struct str owner_key(const char *type, size_t len, int64_t id)
{
	struct str folded = text_fold(type, len);
	struct str key = {xmalloc(folded.len + sizeof(id)), folded.len + sizeof(id)};

	memcpy(key.ptr, &id, sizeof(id));
	memcpy(key.ptr + sizeof(id), folded.ptr, folded.len);
	str_free(&folded);
	return key;
}

static struct owner *find_owner(struct store *s, const char *type, size_t len, int64_t id)
{
	struct str key = owner_key(type, len, id);
	struct owner *o = table_get(&s->owners, key.ptr, key.len);

	if (!o) {
		o = xzalloc(sizeof(*o));
		table_put(&s->owners, key.ptr, key.len, o);
	}
	str_free(&key);
	return o;
}

static void unlist(struct attachment *a)
{
	if (a->owner)
		rows_remove(&a->owner->rows, &a->row);
	a->owner = NULL;
}

void store_set_owner(struct store *s, struct attachment *a, const char *type, size_t len,
		     const int64_t *id)
{
	unlist(a);
	a->has_owner_id = id != NULL;
	a->owner_id = id ? *id : 0;
	str_set(&a->owner_type, type, len);
	if (!type || !id)
		return;
	a->owner = find_owner(s, type, len, *id);
	rows_add(&a->owner->rows, &a->row);
}

void store_delete_attachment(struct store *s, struct attachment *a)
{
	unlist(a);
	rows_remove(&s->attachments, &a->row);
	free_attachment(a);
}

const struct rows *store_owned(const struct store *s, const char *type, size_t len, int64_t id)
{
	struct str key = owner_key(type, len, id);
	const struct owner *o = table_get(&s->owners, key.ptr, key.len);

	str_free(&key);
	return o ? &o->rows : NULL;
}

struct record *store_owner_record(struct store *s, const struct attachment *a)
{
	const struct collection *c;

	if (!a->owner_type.ptr || !a->has_owner_id)
		return NULL;
	c = store_collection_of_type(s, a->owner_type.ptr, a->owner_type.len);
	return c ? store_record(c, a->owner_id) : NULL;
}

void store_put_blob(struct store *s, const char *path, struct blob *b)
{
	blob_unref(table_put(&s->blobs, path, strlen(path), b));
}

struct blob *store_get_blob(const struct store *s, const char *path)
{
	return blob_ref(table_get(&s->blobs, path, strlen(path)));
}

void store_drop_blob(struct store *s, const char *path)
{
	blob_unref(table_remove(&s->blobs, path, strlen(path)));
}

static char *path_from(const unsigned char random[static 40], const char *extension)
{
	static const char alphabet[] =
		"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	char key[41];

	for (size_t i = 0; i < 40; i++)
		key[i] = alphabet[random[i] % 62];
	key[40] = '\0';
	return xasprintf("%s%s%s", key, *extension ? "." : "", extension);
}

char *store_new_path(const char *extension)
{
	unsigned char random[40];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		abort();
	return path_from(random, extension);
}

char *store_path_of(uint64_t seed, const char *extension)
{
	unsigned char random[40];

	for (size_t i = 0; i < sizeof(random); i++) {
		seed = hash_bytes(&i, sizeof(i), seed);
		random[i] = (unsigned char)(seed >> 32);
	}
	return path_from(random, extension);
}

/* libmagic's notion of text, roughly: valid UTF-8 (a character may be cut at the end), no controls. */
static bool looks_like_text(const char *head, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)head[i];

		if ((c < 32 && !strchr("\a\b\t\n\v\f\r\033", c)) || c == 0 || c == 127)
			return false;
	}
	for (size_t cut = 0; cut < 4 && cut < len; cut++)
		if (utf8_valid(head, len - cut))
			return true;
	return false;
}

const char *store_guess_extension(struct blob *b)
{
	static const struct {
		const char *magic;
		size_t len;
		const char *extension;
	} kinds[] = {
		{"%PDF-", 5, "pdf"}, {"\x89PNG\r\n", 6, "png"}, {"\xff\xd8\xff", 3, "jpg"},
		{"GIF8", 4, "gif"},  {"PK\x03\x04", 4, "zip"},	{"\x1f\x8b", 2, "gz"},
	};
	char head[4096];
	ssize_t n = blob_read(b, 0, head, sizeof(head));

	if (n <= 0)
		return "";
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if ((size_t)n >= kinds[i].len && memcmp(head, kinds[i].magic, kinds[i].len) == 0)
			return kinds[i].extension;
	return looks_like_text(head, (size_t)n) ? "txt" : "bin";
}
