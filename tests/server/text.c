/* SPDX-License-Identifier: MIT */
#include "text.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>
#include <wctype.h>

struct str str_dup(const char *s, size_t len)
{
	return (struct str){xmemdup(s, len), len};
}

void str_set(struct str *s, const char *value, size_t len)
{
	char *copy = value ? xmemdup(value, len) : NULL;

	free(s->ptr);
	*s = (struct str){copy, value ? len : 0};
}

void str_free(struct str *s)
{
	free(s->ptr);
	*s = (struct str){0};
}

bool str_equal(const struct str *a, const char *b, size_t len)
{
	return a->ptr && a->len == len && memcmp(a->ptr, b, len) == 0;
}

static size_t sequence_length(unsigned char first)
{
	if (first < 0x80)
		return 1;
	if (first >= 0xc2 && first <= 0xdf)
		return 2;
	if (first >= 0xe0 && first <= 0xef)
		return 3;
	return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

size_t utf8_next(const char *s, size_t len, uint32_t *ret_cp)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *u = (const unsigned char *)s;
	size_t n = len ? sequence_length(u[0]) : 0;
	uint32_t cp;

	if (n == 0 || n > len)
		return 0;
	cp = n == 1 ? u[0] : u[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		cp = (cp << 6) | (u[i] & 0x3f);
	}
	if (cp < least[n] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
		return 0;
	*ret_cp = cp;
	return n;
}

bool utf8_valid(const char *s, size_t len)
{
	uint32_t cp;

	while (len) {
		size_t n = utf8_next(s, len, &cp);

		if (!n)
			return false;
		s += n;
		len -= n;
	}
	return true;
}

size_t utf8_count(const char *s, size_t len)
{
	size_t count = 0;

	for (size_t i = 0; i < len; i++)
		count += ((unsigned char)s[i] & 0xc0) != 0x80;
	return count;
}

static bool is_trimmed(uint32_t cp)
{
	return cp == 0 || (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xa0 ||
	       cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200b) || cp == 0x200e || cp == 0x2028 ||
	       cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000 || cp == 0xfeff;
}

static size_t last_start(const char *s, size_t len)
{
	size_t i = len - 1;

	while (i > 0 && ((unsigned char)s[i] & 0xc0) == 0x80)
		i--;
	return i;
}

void text_trim(const char **s, size_t *len)
{
	uint32_t cp;
	size_t n;

	while (*len && (n = utf8_next(*s, *len, &cp)) != 0 && is_trimmed(cp)) {
		*s += n;
		*len -= n;
	}
	while (*len) {
		size_t start = last_start(*s, *len);

		n = utf8_next(*s + start, *len - start, &cp);
		if (n != *len - start || !is_trimmed(cp))
			break;
		*len = start;
	}
}

/* Base letters of U+00C0..U+017F in order; a dot keeps the character as it is. */
static const char latin_base[] = "aaaaaa.ceeeeiiii.nooooo.ouuuuy..aaaaaa.ceeeeiiii.nooooo.ouuuuy.y"
				 "aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiii..jjkk.llllllll"
				 "llnnnnnn...oooooo..rrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs";

static uint32_t fold_code_point(uint32_t cp)
{
	if (cp >= 0xc0 && cp - 0xc0 < sizeof(latin_base) - 1 && latin_base[cp - 0xc0] != '.')
		return (unsigned char)latin_base[cp - 0xc0];
	return (uint32_t)towlower((wint_t)cp);
}

static size_t put_utf8(char *out, uint32_t cp)
{
	if (cp < 0x80) {
		out[0] = (char)cp;
		return 1;
	}
	if (cp < 0x800) {
		out[0] = (char)(0xc0 | (cp >> 6));
		out[1] = (char)(0x80 | (cp & 0x3f));
		return 2;
	}
	if (cp < 0x10000) {
		out[0] = (char)(0xe0 | (cp >> 12));
		out[1] = (char)(0x80 | ((cp >> 6) & 0x3f));
		out[2] = (char)(0x80 | (cp & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | (cp >> 18));
	out[1] = (char)(0x80 | ((cp >> 12) & 0x3f));
	out[2] = (char)(0x80 | ((cp >> 6) & 0x3f));
	out[3] = (char)(0x80 | (cp & 0x3f));
	return 4;
}

struct str text_fold(const char *s, size_t len)
{
	/* Lower-casing may lengthen a character (U+023A: two bytes become three), never past four. */
	char *out = xmalloc(len * 2 + 5);
	size_t used = 0;

	while (len) {
		uint32_t cp;
		size_t n;

		if ((unsigned char)*s < 0x80) {
			out[used++] = *s >= 'A' && *s <= 'Z' ? (char)(*s + 32) : *s;
			s++;
			len--;
			continue;
		}
		n = utf8_next(s, len, &cp);
		if (n == 0) {
			out[used++] = *s;
			n = 1;
		} else if (cp < 0x300 || cp > 0x36f) { /* combining marks count for nothing */
			used += put_utf8(out + used, fold_code_point(cp));
		}
		s += n;
		len -= n;
	}
	out[used] = '\0';
	return (struct str){out, used};
}

int text_compare(const struct str *a, const struct str *b)
{
	size_t n = a->len < b->len ? a->len : b->len;
	int order = n ? memcmp(a->ptr, b->ptr, n) : 0;

	if (order)
		return order;
	return a->len < b->len ? -1 : a->len > b->len;
}

static size_t one_character(const char *s, size_t len)
{
	uint32_t cp;
	size_t n = utf8_next(s, len, &cp);

	return n ? n : 1;
}

bool text_like(const char *s, size_t len, const char *pattern, size_t pattern_len)
{
	const char *star = NULL;
	const char *retry = NULL;
	const char *end = s + len;
	const char *pattern_end = pattern + pattern_len;

	while (s < end) {
		if (pattern < pattern_end && *pattern == '%') {
			star = ++pattern;
			retry = s;
		} else if (pattern < pattern_end && *pattern == '_') {
			pattern++;
			s += one_character(s, (size_t)(end - s));
		} else if (pattern < pattern_end && *pattern == *s) {
			pattern++;
			s++;
		} else if (star) {
			pattern = star;
			s = ++retry;
		} else {
			return false;
		}
	}
	while (pattern < pattern_end && *pattern == '%')
		pattern++;
	return pattern == pattern_end;
}
