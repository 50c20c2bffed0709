/* SPDX-License-Identifier: MIT */
/*
 * The part of TQL that section 2 shows, and what its fields make obvious:
 *
 *	query := [or] ["ORDER BY" field ["ASC" | "DESC"] ("," ..)*]
 *	or := and ("OR" and)*    and := not ("AND" not)*    not := "NOT" not | "(" or ")" | test
 *	test := field ("=" "!=" "~" "!~" "<" "<=" ">" ">=") literal
 *	      | field ["NOT"] "IN" ("(" literal ("," literal)* ")" | "Packages" "(" literal ")")
 */
#include "enterprise_tester.h"

#include <string.h>

#define DEPTH_MAX 64

static const struct {
	const char *symbol;
	enum et_test test;
	bool negated;
} operators[] = {
	{"=", TEST_EQ, false},	{"!=", TEST_EQ, true},	{"~", TEST_HAS, false},
	{"!~", TEST_HAS, true}, {"<", TEST_LT, false},	{"<=", TEST_LE, false},
	{">", TEST_GT, false},	{">=", TEST_GE, false},
};

struct parser {
	struct et_call *c;
	struct et_lexer lex;
};

static struct et_filter *parse_or(struct parser *p, int depth);

static int take_field(struct parser *p)
{
	int field = p->lex.kind == TOKEN_WORD ? et_field(p->lex.text.ptr) : -1;

	if (field >= 0 && et_field_is(field, "HasAttachments") &&
	    et_setting(p->c, ET_TQL_HAS_ATTACHMENTS))
		field = -1;
	et_lex_next(&p->lex);
	return field;
}

static bool take_literal(struct parser *p, struct et_filter *f)
{
	if (p->lex.kind != TOKEN_STRING && p->lex.kind != TOKEN_WORD)
		return false;
	et_filter_operand(f, &p->lex.text);
	et_lex_next(&p->lex);
	return true;
}

static struct et_filter *negated(struct et_filter *f, bool wanted)
{
	return wanted ? et_filter_new(FILTER_NOT, f, NULL) : f;
}

/* `Id IN Packages('name')`: what lies in a package of that name. */
static struct et_filter *parse_in(struct parser *p, int field, bool not )
{
	bool packages = et_lex_accept(&p->lex, "Packages");
	struct et_filter *f = et_filter_test(packages ? et_field("Package") : field, TEST_EQ);
	bool fine = et_lex_accept(&p->lex, "(");

	while (fine && (fine = take_literal(p, f)) && et_lex_accept(&p->lex, ","))
		;
	if (fine && et_lex_accept(&p->lex, ")"))
		return negated(f, not );
	et_filter_free(f);
	return NULL;
}

static struct et_filter *parse_test(struct parser *p)
{
	int field = take_field(p);
	bool not = et_lex_accept(&p->lex, "not");
	struct et_filter *f;

	if (field < 0)
		return NULL;
	if (et_lex_accept(&p->lex, "in"))
		return parse_in(p, field, not );
	for (size_t i = 0; !not &&i < sizeof(operators) / sizeof(operators[0]); i++) {
		if (!et_lex_accept(&p->lex, operators[i].symbol))
			continue;
		f = et_filter_test(field, operators[i].test);
		if (take_literal(p, f))
			return negated(f, operators[i].negated);
		et_filter_free(f);
		break;
	}
	return NULL;
}

static struct et_filter *parse_not(struct parser *p, int depth)
{
	struct et_filter *f;

	if (depth > DEPTH_MAX)
		return NULL;
	if (et_lex_accept(&p->lex, "not")) {
		f = parse_not(p, depth + 1);
		return f ? et_filter_new(FILTER_NOT, f, NULL) : NULL;
	}
	if (!et_lex_accept(&p->lex, "("))
		return parse_test(p);
	f = parse_or(p, depth + 1);
	if (f && et_lex_accept(&p->lex, ")"))
		return f;
	et_filter_free(f);
	return NULL;
}

static struct et_filter *parse_and(struct parser *p, int depth)
{
	struct et_filter *f = parse_not(p, depth);

	while (f && et_lex_accept(&p->lex, "and")) {
		struct et_filter *right = parse_not(p, depth);

		f = et_filter_new(FILTER_AND, f, right);
		if (!right) {
			et_filter_free(f);
			return NULL;
		}
	}
	return f;
}

static struct et_filter *parse_or(struct parser *p, int depth)
{
	struct et_filter *f = parse_and(p, depth);

	while (f && et_lex_accept(&p->lex, "or")) {
		struct et_filter *right = parse_and(p, depth);

		f = et_filter_new(FILTER_OR, f, right);
		if (!right) {
			et_filter_free(f);
			return NULL;
		}
	}
	return f;
}

static bool parse_order(struct parser *p, struct et_query *q)
{
	if (!et_lex_accept(&p->lex, "by"))
		return false;
	do {
		int field = take_field(p);
		bool descending = et_lex_accept(&p->lex, "desc");

		if (!descending)
			et_lex_accept(&p->lex, "asc");
		if (field < 0)
			return false;
		if (q->n_orders < ET_ORDERS_MAX) {
			q->orders[q->n_orders].field = field;
			q->orders[q->n_orders++].descending = descending;
		}
	} while (et_lex_accept(&p->lex, ","));
	return true;
}

bool et_tql(struct et_call *c, struct et_query *q, const char *text)
{
	struct parser p = {.c = c};
	bool fine = true;

	et_lex_start(&p.lex, text, true);
	if (p.lex.kind != TOKEN_END && !et_lex_is(&p.lex, "order")) {
		q->filter = parse_or(&p, 0);
		fine = q->filter != NULL;
	}
	if (fine && et_lex_accept(&p.lex, "order"))
		fine = parse_order(&p, q);
	fine = fine && p.lex.kind == TOKEN_END;
	et_lex_end(&p.lex);
	return fine;
}
