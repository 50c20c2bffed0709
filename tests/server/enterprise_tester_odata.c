/* SPDX-License-Identifier: MIT */
/*
 * The part of OData's $filter and $orderby that section 2 shows:
 *
 *	or := and ("or" and)*    and := not ("and" not)*    not := "not" not | "(" or ")" | test
 *	test := field operator literal | function "(" .. ")" ["eq" ("true" | "false")]
 */
#include "enterprise_tester.h"

#include <string.h>

#define DEPTH_MAX 64

static const struct {
	const char *word;
	enum et_test test;
} operators[] = {
	{"eq", TEST_EQ}, {"ne", TEST_NE}, {"lt", TEST_LT},
	{"le", TEST_LE}, {"gt", TEST_GT}, {"ge", TEST_GE},
};

static struct et_filter *parse_or(struct et_lexer *lex, int depth);

static int take_field(struct et_lexer *lex)
{
	int field = lex->kind == TOKEN_WORD ? et_field(lex->text.ptr) : -1;

	et_lex_next(lex);
	return field;
}

/* 'text', number, true, and what is written datetime'..' or guid'..' */
static bool take_literal(struct et_lexer *lex, struct et_filter *f)
{
	if ((et_lex_is(lex, "datetime") || et_lex_is(lex, "guid")) && *lex->s == '\'')
		et_lex_next(lex);
	if (lex->kind != TOKEN_STRING && lex->kind != TOKEN_WORD)
		return false;
	et_filter_operand(f, &lex->text);
	et_lex_next(lex);
	return true;
}

/* substringof('t',Name), but startswith(Name,'t'). */
static struct et_filter *parse_function(struct et_lexer *lex, enum et_test test)
{
	struct et_filter *f = et_filter_test(0, test);
	bool fine;

	et_lex_next(lex);
	fine = et_lex_accept(lex, "(");
	if (test == TEST_HAS)
		fine = fine && take_literal(lex, f) && et_lex_accept(lex, ",");
	f->field = fine ? take_field(lex) : -1;
	if (test != TEST_HAS)
		fine = fine && et_lex_accept(lex, ",") && take_literal(lex, f);
	if (fine && f->field >= 0 && et_lex_accept(lex, ")")) {
		if (!et_lex_accept(lex, "eq") || et_lex_accept(lex, "true"))
			return f;
		if (et_lex_accept(lex, "false"))
			return et_filter_new(FILTER_NOT, f, NULL);
	}
	et_filter_free(f);
	return NULL;
}

static struct et_filter *parse_test(struct et_lexer *lex)
{
	struct et_filter *f;
	int field;

	if (et_lex_is(lex, "substringof"))
		return parse_function(lex, TEST_HAS);
	if (et_lex_is(lex, "startswith"))
		return parse_function(lex, TEST_STARTS);
	if (et_lex_is(lex, "endswith"))
		return parse_function(lex, TEST_ENDS);
	field = take_field(lex);
	for (size_t i = 0; field >= 0 && i < sizeof(operators) / sizeof(operators[0]); i++) {
		if (!et_lex_accept(lex, operators[i].word))
			continue;
		f = et_filter_test(field, operators[i].test);
		if (take_literal(lex, f))
			return f;
		et_filter_free(f);
		break;
	}
	return NULL;
}

static struct et_filter *parse_not(struct et_lexer *lex, int depth)
{
	struct et_filter *f;

	if (depth > DEPTH_MAX)
		return NULL;
	if (et_lex_accept(lex, "not")) {
		f = parse_not(lex, depth + 1);
		return f ? et_filter_new(FILTER_NOT, f, NULL) : NULL;
	}
	if (!et_lex_accept(lex, "("))
		return parse_test(lex);
	f = parse_or(lex, depth + 1);
	if (f && et_lex_accept(lex, ")"))
		return f;
	et_filter_free(f);
	return NULL;
}

static struct et_filter *parse_and(struct et_lexer *lex, int depth)
{
	struct et_filter *f = parse_not(lex, depth);

	while (f && et_lex_accept(lex, "and")) {
		struct et_filter *right = parse_not(lex, depth);

		f = et_filter_new(FILTER_AND, f, right);
		if (!right) {
			et_filter_free(f);
			return NULL;
		}
	}
	return f;
}

static struct et_filter *parse_or(struct et_lexer *lex, int depth)
{
	struct et_filter *f = parse_and(lex, depth);

	while (f && et_lex_accept(lex, "or")) {
		struct et_filter *right = parse_and(lex, depth);

		f = et_filter_new(FILTER_OR, f, right);
		if (!right) {
			et_filter_free(f);
			return NULL;
		}
	}
	return f;
}

bool et_odata_filter(const char *text, struct et_filter **ret_filter)
{
	struct et_lexer lex;
	struct et_filter *f;

	et_lex_start(&lex, text, false);
	f = parse_or(&lex, 0);
	if (f && lex.kind != TOKEN_END) {
		et_filter_free(f);
		f = NULL;
	}
	et_lex_end(&lex);
	if (f)
		*ret_filter = f;
	return f != NULL;
}

bool et_odata_order(struct et_query *q, const char *text)
{
	struct et_lexer lex;
	bool fine = true;

	et_lex_start(&lex, text, false);
	do {
		int field = take_field(&lex);
		bool descending = et_lex_accept(&lex, "desc");

		if (!descending)
			et_lex_accept(&lex, "asc");
		fine = field >= 0;
		if (fine && q->n_orders < ET_ORDERS_MAX) {
			q->orders[q->n_orders].field = field;
			q->orders[q->n_orders++].descending = descending;
		}
	} while (fine && et_lex_accept(&lex, ","));
	fine = fine && lex.kind == TOKEN_END;
	et_lex_end(&lex);
	return fine;
}
