/* SPDX-License-Identifier: MIT */
#include "rows.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>

/* Index of the first row whose id is not below @id. */
static size_t lower_bound(const struct rows *rows, int64_t id)
{
	size_t low = 0;
	size_t high = rows->n;

	if (rows->n && rows->at[rows->n - 1]->id < id)
		return rows->n;
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (rows->at[mid]->id < id)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct row *rows_find(const struct rows *rows, int64_t id)
{
	size_t i = lower_bound(rows, id);

	return i < rows->n && rows->at[i]->id == id ? rows->at[i] : NULL;
}

void rows_add(struct rows *rows, struct row *row)
{
	size_t i = lower_bound(rows, row->id);

	if (rows->n == rows->cap) {
		rows->cap = rows->cap ? rows->cap * 2 : 4;
		rows->at = xrealloc(rows->at, rows->cap * sizeof(struct row *));
	}
	memmove(rows->at + i + 1, rows->at + i, (rows->n - i) * sizeof(struct row *));
	rows->at[i] = row;
	rows->n++;
}

void rows_remove(struct rows *rows, const struct row *row)
{
	size_t i = lower_bound(rows, row->id);

	if (i >= rows->n || rows->at[i] != row)
		return;
	rows->n--;
	memmove(rows->at + i, rows->at + i + 1, (rows->n - i) * sizeof(struct row *));
}

void rows_free(struct rows *rows)
{
	free(rows->at);
	*rows = (struct rows){0};
}
