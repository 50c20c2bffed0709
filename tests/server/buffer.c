/* SPDX-License-Identifier: MIT */
#include "buffer.h"

#include "alloc.h"
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buffer_reserve(struct buffer *b, size_t more)
{
	size_t cap = b->cap ? b->cap : 256;

	if (b->len + more + 1 <= b->cap)
		return;
	while (cap < b->len + more + 1)
		cap *= 2;
	b->data = xrealloc(b->data, cap);
	b->cap = cap;
}

void buffer_put(struct buffer *b, const void *data, size_t len)
{
	buffer_reserve(b, len);
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
}

void buffer_puts(struct buffer *b, const char *s)
{
	buffer_put(b, s, strlen(s));
}

void buffer_putc(struct buffer *b, char c)
{
	buffer_reserve(b, 1);
	b->data[b->len++] = c;
	b->data[b->len] = '\0';
}

void buffer_put_int(struct buffer *b, int64_t value)
{
	char digits[24];
	size_t at = sizeof(digits);
	uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

	do {
		digits[--at] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest);
	if (value < 0)
		digits[--at] = '-';
	buffer_put(b, digits + at, sizeof(digits) - at);
}

void buffer_printf(struct buffer *b, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0)
		return;
	buffer_reserve(b, (size_t)n);
	va_start(args, format);
	vsnprintf(b->data + b->len, (size_t)n + 1, format, args);
	va_end(args);
	b->len += (size_t)n;
}

void buffer_free(struct buffer *b)
{
	free(b->data);
	*b = (struct buffer){0};
}

static void put_unit(struct buffer *b, uint32_t unit)
{
	char escape[8];

	snprintf(escape, sizeof(escape), "\\u%04x", unit & 0xffff);
	buffer_put(b, escape, 6);
}

static void put_code_point(struct buffer *b, uint32_t cp)
{
	if (cp < 0x10000) {
		put_unit(b, cp);
		return;
	}
	cp -= 0x10000;
	put_unit(b, 0xd800 + (cp >> 10));
	put_unit(b, 0xdc00 + (cp & 0x3ff));
}

static void put_ascii(struct buffer *b, char c)
{
	switch (c) {
	case '"':
	case '\\':
	case '/':
		buffer_putc(b, '\\');
		buffer_putc(b, c);
		break;
	case '\b':
		buffer_put(b, "\\b", 2);
		break;
	case '\f':
		buffer_put(b, "\\f", 2);
		break;
	case '\n':
		buffer_put(b, "\\n", 2);
		break;
	case '\r':
		buffer_put(b, "\\r", 2);
		break;
	case '\t':
		buffer_put(b, "\\t", 2);
		break;
	default:
		put_unit(b, (unsigned char)c);
	}
}

static size_t plain_run(const char *s, size_t len)
{
	size_t n = 0;

	while (n < len && s[n] >= ' ' && s[n] != '"' && s[n] != '\\' && s[n] != '/')
		n++;
	return n;
}

void buffer_json_string(struct buffer *b, const char *s, size_t len)
{
	buffer_putc(b, '"');
	while (len) {
		size_t n = plain_run(s, len);
		uint32_t cp;

		buffer_put(b, s, n);
		s += n;
		len -= n;
		if (!len)
			break;
		n = utf8_next(s, len, &cp);
		if (n == 0) {
			cp = 0xfffd;
			n = 1;
		}
		if (cp < 0x80 && cp != 0x7f)
			put_ascii(b, *s);
		else if (cp == 0x7f)
			buffer_putc(b, 0x7f);
		else
			put_code_point(b, cp);
		s += n;
		len -= n;
	}
	buffer_putc(b, '"');
}

void buffer_json_text(struct buffer *b, const char *s)
{
	if (s)
		buffer_json_string(b, s, strlen(s));
	else
		buffer_puts(b, "null");
}

void buffer_json_comma(struct buffer *b)
{
	if (b->len && b->data[b->len - 1] != '{' && b->data[b->len - 1] != '[')
		buffer_putc(b, ',');
}

void buffer_json_key(struct buffer *b, const char *key)
{
	buffer_json_comma(b);
	buffer_putc(b, '"');
	buffer_puts(b, key);
	buffer_put(b, "\":", 2);
}

static void put_object(struct buffer *b, const json_t *object)
{
	const char *key;
	json_t *member;

	buffer_putc(b, '{');
	json_object_foreach((json_t *)object, key, member)
	{
		buffer_json_comma(b);
		buffer_json_text(b, key);
		buffer_putc(b, ':');
		buffer_json(b, member);
	}
	buffer_putc(b, '}');
}

static void put_array(struct buffer *b, const json_t *array)
{
	size_t i;
	json_t *member;

	buffer_putc(b, '[');
	json_array_foreach(array, i, member)
	{
		buffer_json_comma(b);
		buffer_json(b, member);
	}
	buffer_putc(b, ']');
}

void buffer_json(struct buffer *b, const json_t *value)
{
	if (json_is_object(value))
		put_object(b, value);
	else if (json_is_array(value))
		put_array(b, value);
	else if (json_is_string(value))
		buffer_json_string(b, json_string_value(value), json_string_length(value));
	else if (json_is_integer(value))
		buffer_put_int(b, json_integer_value(value));
	else if (json_is_real(value))
		buffer_printf(b, "%.15g", json_real_value(value));
	else
		buffer_puts(b, json_is_true(value)    ? "true"
			       : json_is_false(value) ? "false"
						      : "null");
}
