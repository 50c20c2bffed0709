/* SPDX-License-Identifier: MIT */

/*
 * Looks into a server's JSON. Nothing here trusts a type, a length or a byte: what is not what it
 * should be is "not there", and the caller decides whether it can do without.
 */

#include "json.h"

#include <ctype.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * A list of empty objects takes 80 times the memory of its text, what servers answer 8 to 12 times: an
 * answer that takes more than this is refused, as if there were no memory for it.
 */
#define PARSED_PER_BYTE 24
#define PARSED_LEAST	((size_t)4 << 20)
#define PARSED_MOST	((size_t)2 << 30)

static _Thread_local size_t parse_left = SIZE_MAX; /* of what is being parsed */

static void *parse_alloc(size_t size)
{
	if (parse_left != SIZE_MAX) {
		if (size + sizeof(max_align_t) > parse_left)
			return NULL;
		parse_left -= size + sizeof(max_align_t);
	}
	return malloc(size);
}

static void parse_init(void)
{
	json_set_alloc_funcs(parse_alloc, free);
}

json_t *json_parse(const void *data, size_t len, char *message, size_t size)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	json_error_t error;
	json_t *root;

	pthread_once(&once, parse_init);
	parse_left = PARSED_LEAST + (len < PARSED_MOST / PARSED_PER_BYTE ? len * PARSED_PER_BYTE
									 : PARSED_MOST);
	root = json_loadb(data, len, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
	parse_left = SIZE_MAX;
	if (!root && message && size > 0)
		snprintf(message, size, "%s at byte %d", error.text, error.position);
	return root;
}

const char *json_get_text(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_string(value))
		return NULL;
	const char *text = json_string_value(value);
	return strlen(text) == json_string_length(value) ? text : NULL;
}

json_t *json_get_array(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	return json_is_array(value) ? value : NULL;
}

json_t *json_get_object(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	return json_is_object(value) ? value : NULL;
}

int64_t json_get_integer(const json_t *object, const char *key, int64_t fallback)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) ? (int64_t)json_integer_value(value) : fallback;
}

bool json_is_id(const char *id)
{
	size_t len = id ? strspn(id, "0123456789") : 0;

	return len > 0 && len <= 18 && id[len] == '\0';
}

bool json_is_uuid(const char *id)
{
	bool nil = true;

	for (size_t i = 0; id && i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? id[i] != '-' : !isxdigit((unsigned char)id[i]))
			return false;
		nil = nil && (dash || id[i] == '0');
	}
	return id && id[36] == '\0' && !nil;
}

const char *json_get_uuid(const json_t *object, const char *key)
{
	const char *text = json_get_text(object, key);

	return text && json_is_uuid(text) ? text : NULL;
}

bool json_get_id(const json_t *object, const char *key, char out[REMOTE_ID_MAX + 1])
{
	const json_t *value = json_object_get(object, key);

	if (json_is_integer(value)) {
		json_int_t id = json_integer_value(value);
		if (id <= 0 || id > 999999999999999999)
			return false;
		snprintf(out, REMOTE_ID_MAX + 1, "%" JSON_INTEGER_FORMAT, id);
		return true;
	}
	const char *text = json_get_text(object, key);
	if (!json_is_id(text))
		return false;
	snprintf(out, REMOTE_ID_MAX + 1, "%s", text);
	return true;
}

/* Where to cut @text (valid UTF-8, jansson sees to it) so that no character is torn. */
static size_t cut_utf8(const char *text, size_t len, size_t max)
{
	if (len <= max)
		return len;
	while (max > 0 && ((unsigned char)text[max] & 0xc0) == 0x80)
		max--;
	return max;
}

char *json_dup_name(const json_t *value)
{
	const char *text = json_is_string(value) ? json_string_value(value) : "";
	size_t len = json_is_string(value) ? json_string_length(value) : 0;
	size_t nuls = 0;

	len = cut_utf8(text, len, JSON_NAME_MAX);
	for (size_t i = 0; i < len; i++)
		nuls += text[i] == '\0';
	char *out = malloc(len + 2 * nuls + 1);
	if (!out)
		return NULL;
	char *p = out;
	for (size_t i = 0; i < len; i++) {
		if (text[i] != '\0') {
			*p++ = text[i];
			continue;
		}
		memcpy(p, "%00", 3);
		p += 3;
	}
	*p = '\0';
	return out;
}

int64_t json_get_time(const json_t *object, const char *key)
{
	const char *text = json_get_text(object, key);
	int64_t ns;

	return text && time_parse_iso8601(text, &ns) == 0 ? ns : REMOTE_TIME_NONE;
}

/* One digit of base64url; -1 = none. */
static int decode_digit(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const char *found = c ? strchr(digits, c) : NULL;

	return found ? (int)(found - digits) : -1;
}

json_t *json_parse_jwt(const char *token)
{
	const char *begin = strchr(token, '.');
	const char *end = begin ? strchr(begin + 1, '.') : NULL;
	char *out = end ? malloc((size_t)(end - begin)) : NULL;
	size_t n = 0;
	unsigned bits = 0, held = 0;
	json_t *claims = NULL;

	if (!out)
		return NULL;
	for (const char *p = begin + 1; p < end && *p != '='; p++) {
		int digit = decode_digit(*p);

		if (digit < 0) {
			free(out);
			return NULL;
		}
		bits = (bits << 6 | (unsigned)digit) & 0xfff;
		held += 6;
		if (held >= 8) {
			held -= 8;
			out[n++] = (char)(bits >> held & 0xff);
		}
	}
	claims = json_parse(out, n, NULL, 0);
	free(out);
	if (json_is_object(claims))
		return claims;
	json_decref(claims);
	return NULL;
}
