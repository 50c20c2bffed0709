/* SPDX-License-Identifier: MIT */

/*
 * The token in /resources/js/csrf_script. Nobody has said what that script looks like; what such
 * scripts have in common is a quoted token behind a word with "token" or "csrf" in it, and often the
 * quoted name of the header it goes into:
 *
 *	injectTokens("OWASP-CSRFTOKEN", "J3ZB-...");
 *	var csrfToken = 'abcdef0123456789'; xhr.setRequestHeader('X-CSRF-Token', csrfToken);
 *	{"token": "abcdef0123456789"}
 *	abcdef0123456789
 */

#include "servicemax.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define HEADER_DEFAULT "X-CSRF-Token"
#define TOKEN_MIN      8

/* Whether the @len bytes of code hold @word, in any case. */
static bool holds(const char *text, size_t len, const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i + n <= len; i++)
		if (strncasecmp(text + i, word, n) == 0)
			return true;
	return false;
}

static bool is_about_tokens(const char *text, size_t len)
{
	return holds(text, len, "csrf") || holds(text, len, "xsrf") || holds(text, len, "token");
}

static size_t count_digits(const char *text, size_t len)
{
	size_t digits = 0;

	for (size_t i = 0; i < len; i++)
		digits += isdigit((unsigned char)text[i]) != 0;
	return digits;
}

static bool is_made_of(const char *text, size_t len, const char *others)
{
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && (!text[i] || !strchr(others, text[i])))
			return false;
	return len > 0;
}

/* "X-CSRF-Token", "_csrf": what a token is called. */
static bool is_name(const char *text, size_t len)
{
	return len < SERVICEMAX_CSRF_NAME && count_digits(text, len) == 0 &&
	       is_made_of(text, len, "-_") &&
	       (holds(text, len, "csrf") || holds(text, len, "xsrf"));
}

static bool is_token(const char *text, size_t len)
{
	return len >= TOKEN_MIN && len < SERVICEMAX_CSRF_TOKEN && text[0] != '/' &&
	       (count_digits(text, len) > 0 || len >= 20) && is_made_of(text, len, "-_+/=.:") &&
	       !holds(text, len, "://");
}

/* Only such a name is a header's; another one is a field's or a variable's. */
static bool is_header(const char *text, size_t len)
{
	return memchr(text, '-', len) || (len == 15 && strncmp(text, "OWASP_CSRFTOKEN", len) == 0);
}

/* Nothing but a token. */
static bool find_bare(const char *text, size_t len, char token[SERVICEMAX_CSRF_TOKEN])
{
	while (len > 0 && isspace((unsigned char)text[len - 1]))
		len--;
	for (; len > 0 && isspace((unsigned char)*text); len--)
		text++;
	if (len == 0 || !is_token(text, len))
		return false;
	snprintf(token, SERVICEMAX_CSRF_TOKEN, "%.*s", (int)len, text);
	return true;
}

bool servicemax_find_csrf(const char *script, size_t len, char name[SERVICEMAX_CSRF_NAME],
			  char token[SERVICEMAX_CSRF_TOKEN])
{
	const char *end = script + len, *code = script;
	bool named = false; /* the last literal was a name */

	snprintf(name, SERVICEMAX_CSRF_NAME, HEADER_DEFAULT);
	token[0] = '\0';
	if (find_bare(script, len, token))
		return true;
	for (const char *p = script; p < end; p++) {
		if (*p != '"' && *p != '\'')
			continue;
		const char *text = p + 1;
		const char *close = memchr(text, *p, (size_t)(end - text));
		if (!close)
			break;
		size_t n = (size_t)(close - text), between = (size_t)(p - code);
		bool next = named && between <= 8 && !memchr(code, ';', between);
		if (is_name(text, n)) {
			named = true;
			if (is_header(text, n))
				snprintf(name, SERVICEMAX_CSRF_NAME, "%.*s", (int)n, text);
		} else {
			/* The name may be quoted itself: {"token": ..} */
			bool about = next || is_about_tokens(code, between);
			if (about && token[0] == '\0' && is_token(text, n))
				snprintf(token, SERVICEMAX_CSRF_TOKEN, "%.*s", (int)n, text);
			named = holds(text, n, "token");
		}
		code = p = close;
		code++;
	}
	return token[0] != '\0';
}
