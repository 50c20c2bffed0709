/* SPDX-License-Identifier: MIT */
/*
 * A hash table from bytes to pointers. It copies keys, never owns values.
 *
 * Open addressing with linear probing; deleting shifts the following entries back, so there are no
 * tombstones and the table stays fast however often entries come and go.
 */
#ifndef EMULATOR_TABLE_H
#define EMULATOR_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_entry {
	uint64_t hash;
	char *key; /* NULL: free slot */
	size_t key_len;
	void *value;
};

struct table {
	struct table_entry *slots;
	size_t n;
	size_t cap; /* a power of two, or 0 */
};

uint64_t hash_bytes(const void *data, size_t len, uint64_t seed);

void *table_get(const struct table *t, const void *key, size_t len);
void *table_put(struct table *t, const void *key, size_t len,
		void *value); /* the old value or NULL */
void *table_remove(struct table *t, const void *key, size_t len);
void table_free(struct table *t); /* forgets the values */

/* Walks the values: start with *pos = 0; NULL at the end. The table must not change meanwhile. */
void *table_next(const struct table *t, size_t *pos);

#endif
