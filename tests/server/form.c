/* SPDX-License-Identifier: MIT */
#include "form.h"

#include "alloc.h"
#include "buffer.h"

#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

struct str form_decode(const char *s, size_t len, bool plus)
{
	struct str out = {xmalloc(len + 1), 0};

	for (size_t i = 0; i < len; i++) {
		char c = s[i];

		if (c == '%' && i + 2 < len && hex_digit(s[i + 1]) >= 0 &&
		    hex_digit(s[i + 2]) >= 0) {
			c = (char)(hex_digit(s[i + 1]) * 16 + hex_digit(s[i + 2]));
			i += 2;
		} else if (c == '+' && plus) {
			c = ' ';
		}
		out.ptr[out.len++] = c;
	}
	out.ptr[out.len] = '\0';
	return out;
}

json_t *form_string(const char *s, size_t len)
{
	json_t *value = json_stringn(s, len);
	struct buffer b = {0};

	if (value)
		return value;
	while (len) {
		uint32_t cp;
		size_t n = utf8_next(s, len, &cp);

		if (n)
			buffer_put(&b, s, n);
		else
			buffer_puts(&b, "\xef\xbf\xbd");
		s += n ? n : 1;
		len -= n ? n : 1;
	}
	value = json_stringn(b.data, b.len);
	buffer_free(&b);
	return value;
}

/* The next index of `[]`: one more than there are entries, which is PHP's rule for the usual case. */
static char *next_index(const json_t *object)
{
	return xasprintf("%zu", json_object_size(object));
}

static json_t *descend(json_t *object, const char *key)
{
	json_t *child = json_object_get(object, key);

	if (!json_is_object(child)) {
		child = json_object();
		json_object_set_new(object, key, child);
	}
	return child;
}

static char *top_key(const char *name, size_t len)
{
	char *key;

	while (len && *name == ' ') {
		name++;
		len--;
	}
	key = xmemdup(name, len);
	for (char *c = key; *c; c++)
		if (*c == '.' || *c == ' ')
			*c = '_';
	return key;
}

void form_put(json_t *object, const char *name, const char *value, size_t value_len)
{
	size_t len = strcspn(name, "[");
	char *key = top_key(name, len);

	name += len;
	while (*name == '[' && strchr(name, ']')) {
		len = strcspn(name + 1, "]");
		object = descend(object, key);
		free(key);
		key = len ? xmemdup(name + 1, len) : next_index(object);
		name += len + 2;
	}
	json_object_set_new(object, key, form_string(value, value_len));
	free(key);
}

static void parse_pair(json_t *object, const char *pair, size_t len)
{
	const char *equals = memchr(pair, '=', len);
	size_t name_len = equals ? (size_t)(equals - pair) : len;
	struct str name = form_decode(pair, name_len, true);
	struct str value = {xstrdup(""), 0};

	if (equals) {
		str_free(&value);
		value = form_decode(equals + 1, len - name_len - 1, true);
	}
	if (name.len)
		form_put(object, name.ptr, value.ptr, value.len);
	str_free(&name);
	str_free(&value);
}

json_t *form_parse(const char *s, size_t len)
{
	json_t *object = json_object();

	while (len) {
		const char *amp = memchr(s, '&', len);
		size_t n = amp ? (size_t)(amp - s) : len;

		if (n)
			parse_pair(object, s, n);
		s += amp ? n + 1 : n;
		len -= amp ? n + 1 : n;
	}
	return object;
}
