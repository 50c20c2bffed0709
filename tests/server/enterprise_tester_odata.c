/* SPDX-License-Identifier: MIT */
/*
 * The part of OData's $filter and $orderby that section 2 shows. A test is `field operator literal` or
 * `function(..)`, which may be followed by `eq true` or `eq false`.
 */
#include "enterprise_tester.h"

static const struct {
	const char *word;
	enum et_test test;
} operators[] = {
	{"eq", TEST_EQ}, {"ne", TEST_NE}, {"lt", TEST_LT},
	{"le", TEST_LE}, {"gt", TEST_GT}, {"ge", TEST_GE},
};

/* 'text', number, true, and what is written datetime'..' or guid'..' */
static bool take_literal(struct et_parser *p, struct et_filter *f)
{
	if ((et_lex_is(&p->lex, "datetime") || et_lex_is(&p->lex, "guid")) && *p->lex.s == '\'')
		et_lex_next(&p->lex);
	return et_parse_literal(p, f);
}

/* substringof('t',Name), but startswith(Name,'t'). */
static struct et_filter *parse_function(struct et_parser *p, enum et_test test)
{
	struct et_filter *f = et_filter_test(0, test);
	bool fine;

	et_lex_next(&p->lex);
	fine = et_lex_accept(&p->lex, "(");
	if (test == TEST_HAS)
		fine = fine && take_literal(p, f) && et_lex_accept(&p->lex, ",");
	f->field = fine ? et_parse_field(p) : -1;
	if (test != TEST_HAS)
		fine = fine && et_lex_accept(&p->lex, ",") && take_literal(p, f);
	if (fine && f->field >= 0 && et_lex_accept(&p->lex, ")")) {
		if (!et_lex_accept(&p->lex, "eq") || et_lex_accept(&p->lex, "true"))
			return f;
		if (et_lex_accept(&p->lex, "false"))
			return et_filter_new(FILTER_NOT, f, NULL);
	}
	et_filter_free(f);
	return NULL;
}

static struct et_filter *parse_test(struct et_parser *p)
{
	struct et_filter *f;
	int field;

	if (et_lex_is(&p->lex, "substringof"))
		return parse_function(p, TEST_HAS);
	if (et_lex_is(&p->lex, "startswith"))
		return parse_function(p, TEST_STARTS);
	if (et_lex_is(&p->lex, "endswith"))
		return parse_function(p, TEST_ENDS);
	field = et_parse_field(p);
	for (size_t i = 0; field >= 0 && i < sizeof(operators) / sizeof(operators[0]); i++) {
		if (!et_lex_accept(&p->lex, operators[i].word))
			continue;
		f = et_filter_test(field, operators[i].test);
		if (take_literal(p, f))
			return f;
		et_filter_free(f);
		break;
	}
	return NULL;
}

bool et_odata_filter(struct et_query *q, const char *text)
{
	struct et_parser p = {.test = parse_test};
	bool fine;

	et_lex_start(&p.lex, text, false);
	q->filter = et_parse_filter(&p);
	fine = q->filter && p.lex.kind == TOKEN_END;
	et_lex_end(&p.lex);
	return fine;
}

bool et_odata_order(struct et_query *q, const char *text)
{
	struct et_parser p = {.test = parse_test};
	bool fine;

	et_lex_start(&p.lex, text, false);
	fine = et_parse_order(&p, q) && p.lex.kind == TOKEN_END;
	et_lex_end(&p.lex);
	return fine;
}
