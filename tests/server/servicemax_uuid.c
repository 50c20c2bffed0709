/* SPDX-License-Identifier: MIT */
/*
 * UUIDs for the store's numbers. 122 bits of a version 4 UUID are free: what kind of thing it is, in
 * which collection, and its number, sent through four rounds of a Feistel network, so that neighbours
 * look unrelated, a restarted emulator shows the same ids, and nothing needs to be remembered.
 */
#include "servicemax.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define HALF_BITS 61
#define HALF_MASK ((UINT64_C(1) << HALF_BITS) - 1)
#define ROUNDS	  4

#define VERSION_4 UINT64_C(0x4000)
#define VARIANT_1 (UINT64_C(1) << 63)

static uint64_t scramble(uint64_t half, uint64_t round)
{
	return hash_bytes(&half, sizeof(half), UINT64_C(0x5eb0a2d) + round) & HALF_MASK;
}

static uint64_t tag(enum uuid_kind kind, const char *collection)
{
	return (uint64_t)kind << 56 | (hash_bytes(collection, strlen(collection), 3) >> 16);
}

/* 60 bits of @left around the version, its last one and @right behind the variant. */
static struct uuid assemble(uint64_t left, uint64_t right)
{
	uint64_t hi = left >> 1;

	return (struct uuid){(hi >> 12) << 16 | VERSION_4 | (hi & 0xfff),
			     VARIANT_1 | (left & 1) << HALF_BITS | right};
}

struct uuid sm_uuid_make(enum uuid_kind kind, const char *collection, int64_t id)
{
	uint64_t left = tag(kind, collection) & HALF_MASK;
	uint64_t right = (uint64_t)id & HALF_MASK;

	for (uint64_t round = 0; round < ROUNDS; round++) {
		uint64_t next = left ^ scramble(right, round);

		left = right;
		right = next;
	}
	return assemble(left, right);
}

int64_t sm_uuid_id(const struct uuid *uuid, enum uuid_kind kind, const char *collection)
{
	uint64_t left =
		(uuid->hi >> 16) << 13 | (uuid->hi & 0xfff) << 1 | (uuid->lo >> HALF_BITS & 1);
	uint64_t right = uuid->lo & HALF_MASK;
	struct uuid again = assemble(left, right);

	if (!sm_uuid_equal(&again, uuid)) /* another version or variant */
		return -1;
	for (uint64_t round = ROUNDS; round-- > 0;) {
		uint64_t before = right ^ scramble(left, round);

		right = left;
		left = before;
	}
	return left == (tag(kind, collection) & HALF_MASK) ? (int64_t)right : -1;
}

struct uuid sm_uuid_of_path(const char *path)
{
	size_t len = strlen(path);

	return assemble(hash_bytes(path, len, 11) & HALF_MASK,
			hash_bytes(path, len, 12) & HALF_MASK);
}

struct uuid sm_uuid_random(void)
{
	uint64_t halves[2] = {0};

	if (getrandom(halves, sizeof(halves), 0) != sizeof(halves))
		halves[0] = halves[1] = (uint64_t)sm_now_ms();
	return assemble(halves[0] & HALF_MASK, halves[1] & HALF_MASK);
}

bool sm_uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return a->hi == b->hi && a->lo == b->lo;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool sm_uuid_parse(const char *text, size_t len, struct uuid *ret)
{
	uint64_t words[2] = {0};
	size_t digits = 0;

	if (len != UUID_SIZE - 1)
		return false;
	for (size_t i = 0; i < len; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		int digit = hex_digit(text[i]);

		if (dash ? text[i] != '-' : digit < 0)
			return false;
		if (dash)
			continue;
		words[digits / 16] = words[digits / 16] << 4 | (uint64_t)digit;
		digits++;
	}
	*ret = (struct uuid){words[0], words[1]};
	return true;
}

void sm_uuid_format(const struct uuid *uuid, char text[static UUID_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	size_t at = 0;

	for (unsigned i = 0; i < 32; i++) {
		uint64_t word = i < 16 ? uuid->hi : uuid->lo;

		if (i == 8 || i == 12 || i == 16 || i == 20)
			text[at++] = '-';
		text[at++] = digits[word >> (60 - 4 * (i % 16)) & 15];
	}
	text[at] = '\0';
}

void sm_record_id(const struct record *r, char id[REMOTE_ID_SIZE])
{
	struct uuid uuid = sm_uuid_make(UUID_RECORD, r->collection->name, r->row.id);

	sm_uuid_format(&uuid, id);
}

void sm_attachment_id(const struct attachment *a, char id[REMOTE_ID_SIZE])
{
	struct uuid uuid = sm_uuid_make(UUID_ATTACHMENT, "", a->row.id);

	sm_uuid_format(&uuid, id);
}
