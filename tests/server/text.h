/* SPDX-License-Identifier: MIT */
/*
 * Text as the servers treat it: UTF-8, possibly with NULs inside (P: a name may hold any Unicode),
 * trimmed as Laravel trims, compared as a case- and accent-insensitive SQL collation does (P-26).
 */
#ifndef EMULATOR_TEXT_H
#define EMULATOR_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An owned string of len bytes, NUL-terminated besides. ptr NULL stands for SQL's null. */
struct str {
	char *ptr;
	size_t len;
};

struct str str_dup(const char *s, size_t len);
void str_set(struct str *s, const char *value, size_t len);
void str_free(struct str *s);
bool str_equal(const struct str *a, const char *b, size_t len);

/* Bytes of the code point at @s, 0 if they are not valid UTF-8. */
size_t utf8_next(const char *s, size_t len, uint32_t *ret_cp);
bool utf8_valid(const char *s, size_t len);
size_t utf8_count(const char *s, size_t len);

/* Narrows [*s, *s + *len) as Laravel's TrimStrings does: Unicode spaces, NUL, ZWSP, LRM, BOM (P-15). */
void text_trim(const char **s, size_t *len);

/* Lower case without accents: two texts are equal to the database when their foldings are. */
struct str text_fold(const char *s, size_t len);
int text_compare(const struct str *a, const struct str *b);

/* SQL LIKE with live `%` and `_`; both sides already folded. */
bool text_like(const char *s, size_t len, const char *pattern, size_t pattern_len);

#endif
