/* SPDX-License-Identifier: MIT */
/*
 * What a server has in its database and its bucket: collections of records, attachments, and blobs
 * under storage keys. Shared by all systems; it knows no HTTP and no system's rules.
 *
 * An attachment points at its owner by a type (PERSCOM: a class name; elsewhere the collection) and an
 * id, neither of which need exist (P-16), and at its bytes by a path, which several rows may share and
 * which may lead nowhere (P-19). The per-owner index folds the type as a database would (P-26).
 *
 * Not thread-safe: callers hold the emulator's lock. Pointers stay valid until the row is deleted.
 */
#ifndef EMULATOR_STORE_H
#define EMULATOR_STORE_H

#include "blob.h"
#include "rows.h"
#include "table.h"
#include "text.h"

#include <jansson.h>
#include <stdbool.h>

struct collection {
	const char *name;	/* "users"; the store's copies are its own */
	const char *owner_type; /* what attachments call it: "App\\Models\\User" */
	struct rows records;
	int64_t next_id;
};

struct record {
	struct row row;
	struct collection *collection;
	struct str name;
	json_t *fields; /* an object: everything but id, name and times */
	int64_t created_at;
	int64_t updated_at;
};

struct attachment {
	struct row row;
	struct str name;
	struct str filename;
	struct str owner_type; /* ptr NULL: none */
	bool has_owner_id;
	int64_t owner_id;
	char *path;
	int64_t created_at;
	int64_t updated_at;
	int64_t deleted_at;  /* 0: alive; only systems that soft-delete set it */
	struct owner *owner; /* the index entry it is listed in */
};

#define STORE_COLLECTIONS_MAX 64

struct store {
	struct collection *collections;
	size_t n_collections;
	struct rows attachments;
	int64_t next_attachment_id;
	struct table owners; /* folded type and id -> struct owner */
	struct table blobs;  /* path -> struct blob, one reference each */
};

/* Row 0 of @collections with name NULL ends it; only name and owner_type are read. */
struct store *store_new(const struct collection *collections);
void store_free(struct store *s);

struct collection *store_collection(struct store *s, const char *name);
/* The same, made with its name as owner type if there is none yet; NULL if there are too many. */
struct collection *store_open_collection(struct store *s, const char *name);
struct collection *store_collection_of_type(struct store *s, const char *type, size_t len);

struct record *store_add_record(struct collection *c, const char *name, size_t len, int64_t now);
struct record *store_record(const struct collection *c, int64_t id);
struct record *store_record_named(const struct collection *c, const char *name);
void store_delete_record(struct record *r); /* its attachments stay */

/* A fresh attachment with the next id; @path is copied. Name and filename are the caller's to set. */
struct attachment *store_add_attachment(struct store *s, const char *path, int64_t now);
struct attachment *store_attachment(const struct store *s, int64_t id);
void store_set_owner(struct store *s, struct attachment *a, const char *type, size_t len,
		     const int64_t *id);
void store_delete_attachment(struct store *s, struct attachment *a); /* the blob stays */

/* The attachments of one owner in id order; NULL if it never had any. */
const struct rows *store_owned(const struct store *s, const char *type, size_t len, int64_t id);
struct record *store_owner_record(struct store *s, const struct attachment *a);

/* Puts take the reference; gets give one (NULL: nothing there). */
void store_put_blob(struct store *s, const char *path, struct blob *b);
struct blob *store_get_blob(const struct store *s, const char *path);
void store_drop_blob(struct store *s, const char *path);

/* 40 random alphanumerics and @extension (without the dot; "" for none): a fresh storage key. */
char *store_new_path(const char *extension);
/* The same from a seed: what a restarted emulator serves again keeps its storage keys. */
char *store_path_of(uint64_t seed, const char *extension);
/* The extension PHP would guess from the first bytes: "txt", "pdf", "bin"; "" if empty. */
const char *store_guess_extension(struct blob *b);

#endif
