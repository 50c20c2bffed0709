/* SPDX-License-Identifier: MIT */

/*
 * The codec has two layers.
 *
 * escape() / unescape() is a plain reversible code: escape() writes as %XX whatever cannot stand in
 * a name, and "%25" for a '%' that unescape() would take for the start of such an escape.
 * unescape(escape(x)) == x for every x, because neither looks at more than the text right of a '%'.
 *
 * Alone it would disfigure names nobody needs to touch: "caf%C3%A9.txt" and "a%20b.pdf" are what
 * browsers leave behind, and must be shown as they are. So a name of which nothing has to be
 * escaped is shown raw, unless it happens to be the escaped form of another name; decoding mirrors
 * that with the same question, "is this exactly what escape() makes of its unescape()d form?". Thus
 * "%2F" (the image of "/") is shown as "%252F", while "%41", "%2f", "%C3%A9" and "a%20b", which
 * escape() never writes, stand for themselves, in both directions.
 */

#include <attachfs/names.h>

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define ID_MAX	      64
#define HOST_MAX      64
#define EXTENSION_MAX 16

/*
 * Bytes that keep whole units only: once one did not fit, nothing behind it is taken, so no
 * character is torn.
 */
struct text {
	char *bytes;
	size_t size;
	size_t len;  /* bytes kept */
	size_t want; /* bytes there would be with room enough */
};

static void text_put(struct text *t, const char *unit, size_t n)
{
	if (t->want == t->len && n <= t->size - t->len) {
		memcpy(t->bytes + t->len, unit, n);
		t->len += n;
	}
	t->want += n;
}

/* Characters: UTF-8 and blanks */

/*
 * Length of the valid UTF-8 sequence at @s, 0 when there is none: no overlong forms, surrogates or
 * > U+10FFFF.
 */
static size_t utf8_length(const char *s, size_t len)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t n;

	if (len == 0)
		return 0;
	if (u[0] < 0x80)
		return 1;
	n = u[0] >= 0xc2 && u[0] <= 0xdf   ? 2
	    : (u[0] & 0xf0) == 0xe0	   ? 3
	    : u[0] >= 0xf0 && u[0] <= 0xf4 ? 4
					   : 0;
	if (n == 0 || len < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((u[i] & 0xc0) != 0x80)
			return 0;
	if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ||
	    (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
		return 0;
	return n;
}

static uint32_t utf8_value(const char *s, size_t n)
{
	const unsigned char *u = (const unsigned char *)s;
	uint32_t c = n == 1 ? u[0] : u[0] & (0x7fu >> n);

	for (size_t i = 1; i < n; i++)
		c = c << 6 | (u[i] & 0x3f);
	return c;
}

/*
 * What servers trim off the ends: the white space of Unicode and the invisible characters Laravel
 * counts with it (P-15). Escaping one too many at an end costs nothing, since it decodes to itself;
 * one too few costs the name.
 */
static bool is_blank(uint32_t c)
{
	static const struct {
		uint32_t first, last;
	} blanks[] = {
		{0x20, 0x20},	    {0x85, 0x85},	{0xa0, 0xa0},	    {0xad, 0xad},
		{0x34f, 0x34f},	    {0x61c, 0x61c},	{0x115f, 0x1160},   {0x1680, 0x1680},
		{0x17b4, 0x17b5},   {0x180e, 0x180e},	{0x2000, 0x200f},   {0x2028, 0x2029},
		{0x202f, 0x202f},   {0x205f, 0x2065},	{0x206a, 0x206f},   {0x2800, 0x2800},
		{0x3000, 0x3000},   {0x3164, 0x3164},	{0xfeff, 0xfeff},   {0xffa0, 0xffa0},
		{0x1d159, 0x1d159}, {0x1d173, 0x1d17a}, {0xe0020, 0xe0020},
	};

	for (size_t i = 0; i < sizeof(blanks) / sizeof(blanks[0]); i++)
		if (c >= blanks[i].first && c <= blanks[i].last)
			return true;
	return false;
}

/* Length of the blank at @s, 0 when it is none. */
static size_t blank_length(const char *s, size_t len)
{
	size_t n = utf8_length(s, len);

	return n > 0 && is_blank(utf8_value(s, n)) ? n : 0;
}

static size_t leading_blanks(const char *s, size_t len)
{
	size_t at = 0, n;

	while ((n = blank_length(s + at, len - at)) > 0)
		at += n;
	return at;
}

/*
 * Where the blanks at the end of @s begin. A blank has 1..4 bytes, found by trying each length
 * backwards.
 */
static size_t trailing_blanks(const char *s, size_t len)
{
	size_t n = 1;

	while (n <= 4 && n <= len) {
		if (blank_length(s + len - n, n) == n) {
			len -= n;
			n = 1;
		} else {
			n++;
		}
	}
	return len;
}

static bool is_control(unsigned char c)
{
	return c < 0x20 || c == 0x7f;
}

/* Escapes */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The value of two upper-case hex digits at @s, or -1. */
static int hex_byte(const char *s, size_t len)
{
	int high, low;

	if (len < 2)
		return -1;
	high = hex_digit(s[0]);
	low = hex_digit(s[1]);
	return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/*
 * Whether a '%' followed by @s reads as an escape. "%25" is one only where a bare '%' would be
 * misread: in front of the rest of another escape. The run of "25" is looked through, so that
 * "%252F" and "%25252F" are told apart.
 */
static bool escape_follows(const char *s, size_t len)
{
	int c = hex_byte(s, len);

	while (c == '%') {
		s += 2;
		len -= 2;
		c = hex_byte(s, len);
	}
	return c >= 0x80 || c == '/' || c == '.' || c == ' ' ||
	       (c >= 0 && is_control((unsigned char)c));
}

static void put_escaped(struct text *t, const char *s, size_t n)
{
	static const char digits[] = "0123456789ABCDEF";
	char unit[3 * 4];

	for (size_t i = 0; i < n; i++) {
		unit[3 * i] = '%';
		unit[3 * i + 1] = digits[(unsigned char)s[i] >> 4];
		unit[3 * i + 2] = digits[(unsigned char)s[i] & 15];
	}
	text_put(t, unit, 3 * n);
}

static bool is_dots(const char *s, size_t len)
{
	return (len == 1 && s[0] == '.') || (len == 2 && s[0] == '.' && s[1] == '.');
}

/*
 * Append @s to @t with what no name may hold escaped. With @percent also each '%' that would be
 * read as an escape, which makes the result reversible. Returns whether anything but a '%' was
 * escaped.
 */
static bool escape(const char *s, size_t len, bool percent, struct text *t)
{
	bool dots = is_dots(s, len), any = false;
	size_t lead = leading_blanks(s, len), trail = trailing_blanks(s, len), n;

	for (size_t at = 0; at < len; at += n) {
		bool bad;

		n = utf8_length(s + at, len - at);
		bad = n == 0 || dots || at < lead || at >= trail || s[at] == '/' ||
		      is_control((unsigned char)s[at]);
		n = n > 0 ? n : 1;
		any = any || bad;
		if (bad)
			put_escaped(t, s + at, n);
		else if (percent && s[at] == '%' && escape_follows(s + at + 1, len - at - 1))
			put_escaped(t, "%", 1);
		else
			text_put(t, s + at, n);
	}
	return any;
}

/* The reverse of escape(). @out has @len bytes at least. */
static size_t unescape(const char *s, size_t len, char *out)
{
	size_t n = 0;

	for (size_t at = 0; at < len; n++) {
		if (s[at] == '%' && escape_follows(s + at + 1, len - at - 1)) {
			out[n] = (char)hex_byte(s + at + 1, 2);
			at += 3;
		} else {
			out[n] = s[at++];
		}
	}
	return n;
}

/*
 * Whether @s (at most NAMES_MAX bytes) is exactly what escape() writes for some other name, left in
 * @out. No encoding is longer than NAMES_MAX, hence nothing longer is an image.
 */
static bool is_image(const char *s, size_t len, char out[static NAMES_MAX], size_t *ret_len)
{
	char again[NAMES_MAX];
	struct text t = {again, sizeof(again), 0, 0};
	size_t n;

	if (len > NAMES_MAX)
		return false;
	n = unescape(s, len, out);
	if (n == 0 || n == len)
		return false;
	escape(out, n, true, &t);
	*ret_len = n;
	return t.want == len && memcmp(again, s, len) == 0;
}

/* Shortening */

/* The longest prefix of @s of at most @limit bytes that tears neither a character nor an escape. */
static size_t cut(const char *s, size_t len, size_t limit)
{
	size_t at = 0;

	while (at < len) {
		size_t n = s[at] == '%' && hex_byte(s + at + 1, len - at - 1) >= 0
				   ? 3
				   : utf8_length(s + at, len - at);

		n = n > 0 ? n : 1;
		if (at + n > limit)
			break;
		at += n;
	}
	return at;
}

/*
 * A copy of @id with only what the contract allows: ids come from servers, and a '/' here would be
 * a path.
 */
static const char *clean_id(const char *id, char out[static ID_MAX + 1])
{
	size_t n = 0;

	for (; id && *id && n < ID_MAX; id++)
		if (isascii(*id) && (isalnum((unsigned char)*id) || *id == '-'))
			out[n++] = *id;
	out[n] = '\0';
	return out;
}

/*
 * Write @stem, @mark and @extension, at most NAMES_MAX bytes: the stem gives way. Returns the
 * length.
 */
static size_t join(const char *stem, size_t len, const char *mark, const char *extension, char *out)
{
	size_t n_mark = strlen(mark), n_extension = strlen(extension);
	size_t n = cut(stem, len, NAMES_MAX - n_mark - n_extension);

	memcpy(out, stem, n);
	memcpy(out + n, mark, n_mark);
	memcpy(out + n + n_mark, extension, n_extension + 1);
	return n + n_mark + n_extension;
}

/*
 * join() for a name whose stem and extension are together; @shown may be longer than NAMES_MAX,
 * @out must not be it.
 */
static size_t insert_mark(const char *shown, const char *mark, char *out)
{
	size_t at = names_extension(shown);

	return join(shown, at, mark, shown + at, out);
}

static bool is_extension_char(char c)
{
	return isascii(c) && (isalnum((unsigned char)c) || c == '_' || c == '-');
}

/* names_extension() for @len bytes. */
static size_t extension_at(const char *s, size_t len)
{
	size_t n = 0;

	while (n < len && n <= EXTENSION_MAX && is_extension_char(s[len - 1 - n]))
		n++;
	if (n < 1 || n > EXTENSION_MAX || n + 1 >= len || s[len - 1 - n] != '.')
		return len;
	return len - 1 - n;
}

size_t names_extension(const char *shown)
{
	return extension_at(shown, strlen(shown));
}

/*
 * The extension is taken from the server's name: its characters are never escaped, so that the
 * encoding, which may be endless, needs only to be written as far as it fits.
 */
static size_t shorten(const char *server, size_t len, const struct text *stem, const char *id,
		      char *shown)
{
	char mark[ID_MAX + 2], extension[EXTENSION_MAX + 2] = "", clean[ID_MAX + 1];
	size_t at = extension_at(server, len);

	memcpy(extension, server + at, len - at);
	snprintf(mark, sizeof(mark), "~%s", clean_id(id, clean));
	return join(stem->bytes, stem->len, mark, extension, shown);
}

/* The public codec */

size_t names_encode(const char *server, size_t len, const char *id, char *shown, bool *ret_exact)
{
	char buffer[NAMES_MAX], other[NAMES_MAX], clean[ID_MAX + 1];
	struct text t = {buffer, sizeof(buffer), 0, 0};
	size_t n;
	bool exact;

	if (len == 0) {
		if (ret_exact)
			*ret_exact = false;
		return (size_t)snprintf(shown, NAMES_MAX + 1, "unnamed~%s", clean_id(id, clean));
	}
	if (escape(server, len, false, &t) || is_image(server, len, other, &n)) {
		t.len = t.want = 0;
		escape(server, len, true, &t);
	}
	exact = t.want <= NAMES_MAX;
	if (ret_exact)
		*ret_exact = exact;
	if (!exact)
		return shorten(server, len, &t, id, shown);
	memcpy(shown, buffer, t.len);
	shown[t.len] = '\0';
	return t.len;
}

int names_decode(const char *shown, char *server, size_t size, size_t *ret_len)
{
	char buffer[NAMES_MAX];
	const char *from = buffer;
	size_t len = strlen(shown), n;

	if (!is_image(shown, len, buffer, &n)) {
		from = shown;
		n = len;
	}
	if (n >= size)
		return -ENAMETOOLONG;
	memcpy(server, from, n);
	server[n] = '\0';
	*ret_len = n;
	return 0;
}

size_t names_to_server(const char *shown, char server[static 3 * NAMES_MAX + 1])
{
	char buffer[NAMES_MAX];
	struct text t = {server, 3 * NAMES_MAX, 0, 0};
	size_t len = strnlen(shown, NAMES_MAX), n;

	if (is_image(shown, len, buffer, &n))
		text_put(&t, buffer, n);
	else
		escape(shown, len, false, &t);
	server[t.len] = '\0';
	return t.len;
}

/* Names made of other names */

static bool ends_in_ignoring_case(const char *s, const char *end)
{
	size_t n = strlen(s), n_end = strlen(end);

	return n >= n_end && strcasecmp(s + n - n_end, end) == 0;
}

char *names_label(const char *name, const char *filename, bool filename_policy)
{
	const char *extension;
	char *label;

	if (!filename || !*filename)
		return strdup(name ? name : "");
	/* An empty label is no name either: better the file's than ".txt". */
	if (filename_policy || !name || !*name)
		return strdup(filename);
	extension = filename + names_extension(filename);
	if (ends_in_ignoring_case(name, extension))
		return strdup(name);
	if (asprintf(&label, "%s%s", name, extension) < 0)
		return NULL;
	return label;
}

size_t names_disambiguate(const char *shown, const char *id, char *out)
{
	char mark[ID_MAX + 4], clean[ID_MAX + 1];

	snprintf(mark, sizeof(mark), " (%s)", clean_id(id, clean));
	return insert_mark(shown, mark, out);
}

/* A host's name as a part of a file's: what gethostname() gives is not ours to trust. */
static const char *clean_host(const char *host, char out[static HOST_MAX + 1])
{
	size_t n = 0;

	for (; host && *host && n < HOST_MAX; host++)
		out[n++] = is_extension_char(*host) || *host == '.' ? *host : '-';
	out[n] = '\0';
	return n > 0 ? out : "unknown";
}

size_t names_conflict(const char *shown, const char *host, long long when, char *out)
{
	char mark[HOST_MAX + 64], date[40], clean[HOST_MAX + 1];
	time_t seconds = (time_t)when;
	struct tm tm;

	/*
	 * A year that does not fit struct tm is nonsense, but the conflicting copy must be kept all
	 * the same.
	 */
	if (!gmtime_r(&seconds, &tm) || strftime(date, sizeof(date), "%Y-%m-%d %H.%M.%S", &tm) == 0)
		snprintf(date, sizeof(date), "%lld", when);
	snprintf(mark, sizeof(mark), " (conflict %s %s)", clean_host(host, clean), date);
	return insert_mark(shown, mark, out);
}

bool names_is_local(const char *globs, const char *shown)
{
	char glob[2 * NAMES_MAX];

	while (globs && *globs) {
		size_t n = strcspn(globs, ":");

		if (n > 0 && n < sizeof(glob)) {
			memcpy(glob, globs, n);
			glob[n] = '\0';
			if (fnmatch(glob, shown, 0) == 0)
				return true;
		}
		globs += n + (globs[n] == ':');
	}
	return false;
}
