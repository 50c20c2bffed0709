/* SPDX-License-Identifier: MIT */
/*
 * Rows kept in ascending id order: what a database index on the primary key is.
 *
 * Every row type starts with a struct row. Fresh ids ascend, so adding is appending; finding is a
 * binary search. A list never owns its rows.
 */
#ifndef EMULATOR_ROWS_H
#define EMULATOR_ROWS_H

#include <stddef.h>
#include <stdint.h>

struct row {
	int64_t id;
};

struct rows {
	struct row **at;
	size_t n;
	size_t cap;
};

struct row *rows_find(const struct rows *rows, int64_t id); /* NULL: none */
void rows_add(struct rows *rows, struct row *row);
void rows_remove(struct rows *rows, const struct row *row);
void rows_free(struct rows *rows);

#endif
