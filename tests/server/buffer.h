/* SPDX-License-Identifier: MIT */
/*
 * A growing piece of text, and JSON written into it the way PHP's json_encode() does.
 *
 * Listings of 10,000 attachments are written straight into a buffer instead of through a tree of
 * json_t: the emulator must never be what a benchmark measures. Zero-initialise to start; the text
 * is always followed by a NUL that len does not count (once anything was put).
 */
#ifndef EMULATOR_BUFFER_H
#define EMULATOR_BUFFER_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
	char *data;
	size_t len;
	size_t cap;
};

void buffer_reserve(struct buffer *b, size_t more);
void buffer_put(struct buffer *b, const void *data, size_t len);
void buffer_puts(struct buffer *b, const char *s);
void buffer_putc(struct buffer *b, char c);
void buffer_put_int(struct buffer *b, int64_t value);
void buffer_printf(struct buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_free(struct buffer *b);

/* A JSON string in quotes: `/` as `\/`, everything beyond ASCII as lower-case \uXXXX, pairs included. */
void buffer_json_string(struct buffer *b, const char *s, size_t len);
void buffer_json_text(struct buffer *b, const char *s); /* NULL becomes null */
void buffer_json(struct buffer *b, const json_t *value);

/* "key": with a comma in front unless the object or array was just opened. */
void buffer_json_key(struct buffer *b, const char *key);
void buffer_json_comma(struct buffer *b);

#endif
