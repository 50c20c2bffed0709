/* SPDX-License-Identifier: MIT */
/*
 * fs/ranges.c: the input is a list of calls (3 bytes each: what, where, how long), answered by a
 * bitmap as well; its bytes are also loaded as if they were a row's.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ranges.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		abort();
}

static uint64_t count(const char *model, size_t first, size_t end)
{
	uint64_t n = 0;

	for (size_t i = first; i < end; i++)
		n += model[i] != 0;
	return n;
}

static void load(const uint8_t *data, size_t size)
{
	struct ranges r = {0}, copy = {0};

	if (ranges_load(&r, data, size) == 0) {
		require(ranges_check(&r));
		require(ranges_load(&copy, r.at, r.count * sizeof(struct range)) == 0);
		require(copy.bytes == r.bytes);
	}
	ranges_clear(&r);
	ranges_clear(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ranges r = {0};
	struct range gap;
	char model[512] = {0};

	load(data, size);
	for (size_t i = 0; i + 3 <= size; i += 3) {
		size_t first = data[i + 1], end = first + data[i + 2];

		if (data[i] & 1) {
			require(ranges_add(&r, first, end) == 0);
			memset(model + first, 1, end - first);
		} else {
			require(ranges_remove(&r, first, end) == 0);
			memset(model + first, 0, end - first);
		}
		require(ranges_check(&r));
		require(r.bytes == count(model, 0, sizeof model));
		require(ranges_overlap(&r, data[i], end) == count(model, data[i], end));
		require(ranges_has(&r, first, end) == (count(model, first, end) == end - first));
		if (ranges_next_gap(&r, data[i], sizeof model, &gap))
			require(count(model, gap.first, gap.end) == 0);
	}
	ranges_clear(&r);
	return 0;
}
