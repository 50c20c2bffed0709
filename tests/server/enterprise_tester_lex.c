/* SPDX-License-Identifier: MIT */
#include "enterprise_tester.h"

#include "alloc.h"

#include <ctype.h>
#include <string.h>

void et_lex_start(struct et_lexer *lex, const char *text, bool backslash)
{
	*lex = (struct et_lexer){.s = text, .backslash = backslash};
	et_lex_next(lex);
}

void et_lex_end(struct et_lexer *lex)
{
	str_free(&lex->text);
}

static bool in_word(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("_-.:+$", c)) || (unsigned char)c >= 0x80;
}

/* A quote is doubled or, in TQL, escaped. */
static void take_string(struct et_lexer *lex)
{
	char quote = *lex->s++;
	char *out = xmalloc(strlen(lex->s) + 1);
	size_t len = 0;

	lex->kind = TOKEN_BAD;
	while (*lex->s) {
		if (*lex->s == quote && lex->s[1] != quote) {
			lex->kind = TOKEN_STRING;
			lex->s++;
			break;
		}
		if (*lex->s == quote || (lex->backslash && *lex->s == '\\' && lex->s[1]))
			lex->s++;
		out[len++] = *lex->s++;
	}
	out[len] = '\0';
	lex->text = (struct str){out, len};
}

void et_lex_next(struct et_lexer *lex)
{
	size_t len = 0;

	str_free(&lex->text);
	lex->s += strspn(lex->s, " \t\r\n");
	if (!*lex->s) {
		lex->kind = TOKEN_END;
		return;
	}
	if (*lex->s == '\'' || *lex->s == '"') {
		take_string(lex);
		return;
	}
	while (in_word(lex->s[len]))
		len++;
	lex->kind = len ? TOKEN_WORD : TOKEN_SYMBOL;
	if (!len) /* one of ( ) , = ~ < > or two of them: != !~ <= >= */
		len = strchr("!<>", *lex->s) && lex->s[1] && strchr("=~", lex->s[1]) ? 2 : 1;
	lex->text = str_dup(lex->s, len);
	lex->s += len;
}

bool et_lex_is(const struct et_lexer *lex, const char *word)
{
	return (lex->kind == TOKEN_WORD || lex->kind == TOKEN_SYMBOL) &&
	       strcasecmp(lex->text.ptr, word) == 0;
}

bool et_lex_accept(struct et_lexer *lex, const char *word)
{
	if (!et_lex_is(lex, word))
		return false;
	et_lex_next(lex);
	return true;
}
