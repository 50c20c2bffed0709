/* SPDX-License-Identifier: MIT */

/* What an answer means, and what it says to a person: pure functions on statuses and bodies. */

#include "call.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <attachfs/log.h>

#include "json.h"

int call_status_errno(int status)
{
	static const struct {
		int status, error;
	} table[] = {
		{400, -EINVAL}, {401, -EACCES}, {402, -EACCES}, {403, -EACCES}, {404, -ENOENT},
		{405, -EIO},	{409, -EBUSY},	{410, -ENOENT}, {413, -EFBIG},	{415, -EIO},
		{422, -EINVAL}, {423, -EROFS},	{429, -EBUSY},
	};

	if (status >= 200 && status < 300)
		return 0;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].status == status)
			return table[i].error;
	return -EIO;
}

int call_transfer_errno(int error)
{
	switch (error) {
	case 0:
	case -EHOSTDOWN:
	case -ETIMEDOUT:
	case -ECANCELED:
	case -ENOMEM:
		return error;
	default: /* -EPROTO, -ECONNRESET: spoke nonsense, or stopped speaking */
		return -EIO;
	}
}

/* The first string in an object of arrays of strings: Laravel's error.errors. */
static const char *first_detail(const json_t *errors)
{
	const char *key;
	json_t *list;

	json_object_foreach((json_t *)errors, key, list)
	{
		const json_t *text = json_is_array(list) ? json_array_get(list, 0) : list;
		if (json_is_string(text))
			return json_string_value(text);
	}
	return NULL;
}

/*
 * What Rillsoft adds to its message under "details", in any type: the first text in it, not too
 * deep.
 */
static const char *find_text(const json_t *value, unsigned depth)
{
	const char *text = NULL, *key;
	json_t *member;
	size_t i;

	if (json_is_string(value))
		return *json_string_value(value) != '\0' ? json_string_value(value) : NULL;
	if (depth == 0)
		return NULL;
	json_array_foreach((json_t *)value, i, member)
	{
		if ((text = find_text(member, depth - 1)))
			return text;
	}
	json_object_foreach((json_t *)value, key, member)
	{
		if ((text = find_text(member, depth - 1)))
			return text;
	}
	return NULL;
}

static void words_of_json(const json_t *json, char *out, size_t size)
{
	static const char *const keys[] = {"message", "Message", "error_description", "error",
					   "title"};
	const json_t *error = json_get_object(json, "error");
	const json_t *from = error ? error : json;
	const char *text = NULL;

	for (size_t i = 0; !text && i < sizeof(keys) / sizeof(keys[0]); i++)
		text = json_get_text(from, keys[i]);
	const json_t *errors = json_get_object(from, "errors");
	const char *detail =
		errors ? first_detail(errors) : find_text(json_object_get(json, "details"), 4);
	if (text && detail && strncmp(text, detail, strlen(detail)) != 0)
		snprintf(out, size, "%s: %s", text, detail);
	else if (text || detail)
		snprintf(out, size, "%s", text ? text : detail);
}

/* "<title>413 Request Entity Too Large</title>": a proxy's page says no more than that. */
static void words_of_html(const char *body, size_t len, char *out, size_t size)
{
	const char *title = memmem(body, len, "<title>", 7);
	const char *end = title ? memmem(title, len - (size_t)(title - body), "</title>", 8) : NULL;

	if (end)
		snprintf(out, size, "%.*s", (int)(end - title - 7 < 200 ? end - title - 7 : 200),
			 title + 7);
	else if (len <= 200 && !memchr(body, '<', len) && !memchr(body, '{', len))
		snprintf(out, size, "%.*s", (int)len, body); /* or it is the words alone */
}

/* One line of printable text. */
static void flatten(char *text)
{
	char *to = text;

	for (const char *p = text; *p != '\0'; p++) {
		char c = (unsigned char)*p < 0x20 || *p == 0x7f ? ' ' : *p;
		if (c != ' ' || (to > text && to[-1] != ' '))
			*to++ = c;
	}
	while (to > text && to[-1] == ' ')
		to--;
	*to = '\0';
}

void call_find_words(const json_t *json, const char *body, size_t len, char *out, size_t size)
{
	char raw[1024] = "";

	if (json_is_object(json))
		words_of_json(json, raw, sizeof(raw));
	else if (body)
		words_of_html(body, len, raw, sizeof(raw));
	flatten(raw);
	log_redact(raw, out, size);
	/* Cut between characters, not within one. */
	size_t n = strlen(out);
	if (n + 1 == size) {
		while (n > 0 && ((unsigned char)out[n - 1] & 0xc0) == 0x80)
			n--;
		if (n > 0 && (unsigned char)out[n - 1] >= 0xc0)
			n--;
		out[n] = '\0';
	}
}
