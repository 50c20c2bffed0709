/* SPDX-License-Identifier: MIT */
/*
 * A sorted array. Trees would be kinder to a million random writes into one file, but at 16 bytes a
 * range even those are a memmove() of some megabytes, and every other file has one or two ranges.
 * Each change finds the run of ranges it touches and replaces that run by at most two.
 */
#include "ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void ranges_clear(struct ranges *r)
{
	free(r->at);
	*r = (struct ranges){0};
}

int ranges_reserve(struct ranges *r, size_t extra)
{
	size_t room = r->room ? r->room : 4;
	struct range *at;

	if (extra > SIZE_MAX / sizeof *at / 4 - r->count)
		return -ENOMEM;
	if (r->count + extra <= r->room)
		return 0;
	while (room < r->count + extra)
		room *= 2;
	at = realloc(r->at, room * sizeof *at);
	if (!at)
		return -ENOMEM;
	r->at = at;
	r->room = room;
	return 0;
}

/* Index of the first range whose end is at or after @off (@touch) or after it. */
static size_t find(const struct ranges *r, uint64_t off, bool touch)
{
	size_t low = 0, high = r->count;

	/* Sequential writers: beyond the last range, or at its very end. */
	if (r->count > 0 &&
	    (r->at[r->count - 1].end < off || (!touch && r->at[r->count - 1].end == off)))
		return r->count;
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (touch ? r->at[mid].end < off : r->at[mid].end <= off)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Replace @old ranges from @i by the @count of @with. Room for one more has been reserved. */
static void splice(struct ranges *r, size_t i, size_t old, const struct range *with, size_t count)
{
	for (size_t k = i; k < i + old; k++)
		r->bytes -= r->at[k].end - r->at[k].first;
	if (old != count && i + old < r->count)
		memmove(&r->at[i + count], &r->at[i + old], (r->count - i - old) * sizeof *r->at);
	for (size_t k = 0; k < count; k++) {
		r->at[i + k] = with[k];
		r->bytes += with[k].end - with[k].first;
	}
	r->count = r->count - old + count;
}

int ranges_add(struct ranges *r, uint64_t first, uint64_t end)
{
	struct range merged = {first, end};
	size_t i, last;
	int ret;

	if (first >= end)
		return 0;
	ret = ranges_reserve(r, 1);
	if (ret < 0)
		return ret;
	i = find(r, first, true);
	for (last = i; last < r->count && r->at[last].first <= end; last++) {
		if (r->at[last].first < merged.first)
			merged.first = r->at[last].first;
		if (r->at[last].end > merged.end)
			merged.end = r->at[last].end;
	}
	splice(r, i, last - i, &merged, 1);
	return 0;
}

int ranges_remove(struct ranges *r, uint64_t first, uint64_t end)
{
	struct range left[2];
	size_t i, last, count = 0;
	int ret;

	if (first >= end)
		return 0;
	i = find(r, first, false);
	for (last = i; last < r->count && r->at[last].first < end; last++)
		;
	if (last == i)
		return 0;
	ret = ranges_reserve(r, 1);
	if (ret < 0)
		return ret;
	if (r->at[i].first < first)
		left[count++] = (struct range){r->at[i].first, first};
	if (r->at[last - 1].end > end)
		left[count++] = (struct range){end, r->at[last - 1].end};
	splice(r, i, last - i, left, count);
	return 0;
}

bool ranges_has(const struct ranges *r, uint64_t first, uint64_t end)
{
	size_t i;

	if (first >= end)
		return true;
	i = find(r, first, false);
	return i < r->count && r->at[i].first <= first && r->at[i].end >= end;
}

uint64_t ranges_overlap(const struct ranges *r, uint64_t first, uint64_t end)
{
	uint64_t sum = 0;

	if (first >= end)
		return 0;
	for (size_t i = find(r, first, false); i < r->count && r->at[i].first < end; i++) {
		uint64_t a = r->at[i].first > first ? r->at[i].first : first;
		uint64_t b = r->at[i].end < end ? r->at[i].end : end;

		sum += b - a;
	}
	return sum;
}

bool ranges_next(const struct ranges *r, uint64_t off, struct range *ret_range)
{
	size_t i = find(r, off, false);

	if (i == r->count)
		return false;
	*ret_range = r->at[i];
	if (ret_range->first < off)
		ret_range->first = off;
	return true;
}

bool ranges_next_gap(const struct ranges *r, uint64_t off, uint64_t limit, struct range *ret_gap)
{
	size_t i = find(r, off, false);

	if (i < r->count && r->at[i].first <= off)
		off = r->at[i++].end;
	if (off >= limit)
		return false;
	ret_gap->first = off;
	ret_gap->end = i < r->count && r->at[i].first < limit ? r->at[i].first : limit;
	return true;
}

int ranges_load(struct ranges *r, const void *data, size_t len)
{
	struct ranges loaded = {0};
	int ret;

	if (len % sizeof(struct range) != 0)
		return -EINVAL;
	if (len > 0) {
		ret = ranges_reserve(&loaded, len / sizeof(struct range));
		if (ret < 0)
			return ret;
		memcpy(loaded.at, data, len);
		loaded.count = len / sizeof(struct range);
		for (size_t i = 0; i < loaded.count; i++)
			loaded.bytes += loaded.at[i].end - loaded.at[i].first;
	}
	if (!ranges_check(&loaded)) {
		ranges_clear(&loaded);
		return -EINVAL;
	}
	ranges_clear(r);
	*r = loaded;
	return 0;
}

bool ranges_check(const struct ranges *r)
{
	uint64_t bytes = 0;

	if (r->count > r->room)
		return false;
	for (size_t i = 0; i < r->count; i++) {
		if (r->at[i].first >= r->at[i].end)
			return false;
		if (i > 0 && r->at[i].first <= r->at[i - 1].end)
			return false;
		bytes += r->at[i].end - r->at[i].first;
	}
	return bytes == r->bytes;
}
