/* SPDX-License-Identifier: MIT */
/*
 * A GUID holds kind and row id in its last 48 bits, passed through a Feistel cipher with a fixed key; the
 * rest is a hash of those with the marks of a random GUID. So it looks random, needs no table, stays
 * the same when the emulator starts anew, and one that was made up is recognised.
 */
#include "enterprise_tester.h"

#include <ctype.h>
#include <string.h>

#define ROUNDS 4
#define HALF   0xffffffu

static uint32_t scramble(uint32_t half, int round)
{
	static const uint32_t keys[ROUNDS] = {0x5bd1e995, 0x1b873593, 0xcc9e2d51, 0x38b34ae5};
	uint32_t x = (half ^ keys[round]) * 0x9e3779b1u;

	x = (x ^ (x >> 15)) * 0x85ebca6bu;
	return (x ^ (x >> 13)) & HALF;
}

static uint64_t encrypt(uint64_t plain)
{
	uint32_t left = (uint32_t)(plain >> 24) & HALF, right = (uint32_t)plain & HALF;

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t next = left ^ scramble(right, i);

		left = right;
		right = next;
	}
	return (uint64_t)left << 24 | right;
}

static uint64_t decrypt(uint64_t secret)
{
	uint32_t left = (uint32_t)(secret >> 24) & HALF, right = (uint32_t)secret & HALF;

	for (int i = ROUNDS - 1; i >= 0; i--) {
		uint32_t before = right ^ scramble(left, i);

		right = left;
		left = before;
	}
	return (uint64_t)left << 24 | right;
}

/* The first 80 bits in two pieces: 64 and 16. */
static uint64_t rest_of(uint64_t secret, uint64_t *ret_low)
{
	uint64_t x = (secret + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;

	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	*ret_low = ((x >> 32) & 0x3fff) | 0x8000;
	return ((x ^ (x >> 31)) & ~(uint64_t)0xf000) | 0x4000;
}

static char *put_hex(char *out, uint64_t value, int digits)
{
	for (int i = digits - 1; i >= 0; i--)
		*out++ = "0123456789abcdef"[(value >> (4 * i)) & 15];
	return out;
}

void et_guid(enum et_kind kind, int64_t id, char guid[static ET_GUID_SIZE])
{
	uint64_t secret = encrypt((uint64_t)(kind + 1) << 40 | ((uint64_t)id & 0xffffffffff));
	uint64_t low, high = rest_of(secret, &low);

	guid = put_hex(guid, high >> 32, 8);
	*guid++ = '-';
	guid = put_hex(guid, high >> 16, 4);
	*guid++ = '-';
	guid = put_hex(guid, high, 4);
	*guid++ = '-';
	guid = put_hex(guid, low, 4);
	*guid++ = '-';
	guid = put_hex(guid, secret, 12);
	*guid = '\0';
}

bool et_guid_parse(const struct str *text, enum et_kind *ret_kind, int64_t *ret_id)
{
	char guid[ET_GUID_SIZE];
	uint64_t plain, secret = 0;

	if (!text->ptr || text->len != ET_GUID_SIZE - 1)
		return false;
	for (size_t i = 24; i < text->len; i++) {
		int c = tolower((unsigned char)text->ptr[i]);

		secret = secret << 4 | (uint64_t)(c >= 'a' ? c - 'a' + 10 : c - '0');
	}
	plain = decrypt(secret & 0xffffffffffff);
	if (!(plain >> 40) || plain >> 40 > ET_KINDS)
		return false;
	*ret_kind = (enum et_kind)((plain >> 40) - 1);
	*ret_id = (int64_t)(plain & 0xffffffffff);
	et_guid(*ret_kind, *ret_id, guid);
	return strcasecmp(guid, text->ptr) == 0;
}

bool et_guid_of(const struct str *text, enum et_kind kind, int64_t *ret_id)
{
	enum et_kind found;

	return et_guid_parse(text, &found, ret_id) && found == kind;
}

void et_record_id(const struct record *r, char id[REMOTE_ID_SIZE])
{
	et_guid(et_entity_of((struct record *)r).kind, r->row.id, id);
}

void et_attachment_id(const struct attachment *a, char id[REMOTE_ID_SIZE])
{
	et_guid(ET_ATTACHMENT, a->row.id, id);
}
