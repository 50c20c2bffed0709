/* SPDX-License-Identifier: MIT */

/* Sets of UUIDs with a small tag each: open addressing, sixteen bytes an entry. */

#include "servicemax.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

struct servicemax_uuid {
	uint8_t bytes[16];
	uint8_t tag; /* 0 = the slot is free */
};

static unsigned nibble(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(tolower((unsigned char)c) - 'a' + 10);
}

static bool parse(const char *uuid, uint8_t bytes[16])
{
	if (!uuid || !json_is_uuid(uuid))
		return false;
	for (size_t i = 0; i < 16; i++) {
		if (*uuid == '-')
			uuid++;
		bytes[i] = (uint8_t)(nibble(uuid[0]) << 4 | nibble(uuid[1]));
		uuid += 2;
	}
	return true;
}

/* The slot it is in, or would be. The set has room. */
static struct servicemax_uuid *find(const struct servicemax_uuids *set, const uint8_t bytes[16])
{
	uint64_t a, b;

	memcpy(&a, bytes, 8);
	memcpy(&b, bytes + 8, 8);
	size_t at = (size_t)((a ^ b * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu >> 20);
	for (;; at++) {
		struct servicemax_uuid *slot = &set->slots[at & (set->size - 1)];
		if (slot->tag == 0 || memcmp(slot->bytes, bytes, 16) == 0)
			return slot;
	}
}

static int grow(struct servicemax_uuids *set)
{
	struct servicemax_uuids larger = {.n = set->n, .size = set->size ? 2 * set->size : 64};

	larger.slots = calloc(larger.size, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < set->size; i++)
		if (set->slots[i].tag)
			*find(&larger, set->slots[i].bytes) = set->slots[i];
	free(set->slots);
	*set = larger;
	return 0;
}

int servicemax_uuids_put(struct servicemax_uuids *set, const char *uuid, unsigned tag)
{
	uint8_t bytes[16];

	if (!parse(uuid, bytes))
		return -EINVAL;
	if (2 * set->n >= set->size && grow(set) < 0)
		return -ENOMEM;
	struct servicemax_uuid *slot = find(set, bytes);
	int old = slot->tag;
	set->n += old == 0;
	memcpy(slot->bytes, bytes, 16);
	slot->tag = (uint8_t)tag;
	return old;
}

unsigned servicemax_uuids_get(const struct servicemax_uuids *set, const char *uuid)
{
	uint8_t bytes[16];

	return set->size && parse(uuid, bytes) ? find(set, bytes)->tag : 0;
}

bool servicemax_uuids_next(const struct servicemax_uuids *set, size_t *at,
			   char out[SERVICEMAX_UUID_SIZE])
{
	static const char hex[] = "0123456789abcdef";

	for (; *at < set->size; ++*at) {
		const struct servicemax_uuid *slot = &set->slots[*at];
		if (slot->tag == 0)
			continue;
		for (size_t i = 0; i < 16; i++) {
			if (i == 4 || i == 6 || i == 8 || i == 10)
				*out++ = '-';
			*out++ = hex[slot->bytes[i] >> 4];
			*out++ = hex[slot->bytes[i] & 15];
		}
		*out = '\0';
		++*at;
		return true;
	}
	return false;
}

void servicemax_uuids_clear(struct servicemax_uuids *set)
{
	free(set->slots);
	*set = (struct servicemax_uuids){0};
}
