/* SPDX-License-Identifier: MIT */
/*
 * The part of TQL that section 2 shows, and what its fields make obvious: `[filter] [ORDER BY order]`. A
 * test is `field operator literal`, `field [NOT] IN (literal, ..)` or `field [NOT] IN Packages(literal)`.
 */
#include "enterprise_tester.h"

static const struct {
	const char *symbol;
	enum et_test test;
	bool inverse;
} operators[] = {
	{"=", TEST_EQ, false},	{"!=", TEST_EQ, true},	{"~", TEST_HAS, false},
	{"!~", TEST_HAS, true}, {"<", TEST_LT, false},	{"<=", TEST_LE, false},
	{">", TEST_GT, false},	{">=", TEST_GE, false},
};

static struct et_filter *inverted(struct et_filter *f, bool wanted)
{
	return wanted ? et_filter_new(FILTER_NOT, f, NULL) : f;
}

/* `Id IN Packages('name')`: what lies in a package of that name. */
static struct et_filter *parse_in(struct et_parser *p, int field, bool inverse)
{
	bool packages = et_lex_accept(&p->lex, "Packages");
	struct et_filter *f = et_filter_test(packages ? et_field("Package") : field, TEST_EQ);
	bool fine = et_lex_accept(&p->lex, "(");

	do
		fine = fine && et_parse_literal(p, f);
	while (fine && et_lex_accept(&p->lex, ","));
	if (fine && et_lex_accept(&p->lex, ")"))
		return inverted(f, inverse);
	et_filter_free(f);
	return NULL;
}

static struct et_filter *parse_comparison(struct et_parser *p, int field)
{
	for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
		struct et_filter *f;

		if (!et_lex_accept(&p->lex, operators[i].symbol))
			continue;
		f = et_filter_test(field, operators[i].test);
		if (et_parse_literal(p, f))
			return inverted(f, operators[i].inverse);
		et_filter_free(f);
		break;
	}
	return NULL;
}

static struct et_filter *parse_test(struct et_parser *p)
{
	int field = et_parse_field(p);
	bool inverse = et_lex_accept(&p->lex, "not");

	if (field < 0)
		return NULL;
	if (et_lex_accept(&p->lex, "in"))
		return parse_in(p, field, inverse);
	return inverse ? NULL : parse_comparison(p, field);
}

bool et_tql(struct et_call *c, struct et_query *q, const char *text)
{
	struct et_parser p = {.test = parse_test};
	bool fine = true;

	p.no_has_attachments = et_setting(c, ET_TQL_HAS_ATTACHMENTS) != 0;
	et_lex_start(&p.lex, text, true);
	if (p.lex.kind != TOKEN_END && !et_lex_is(&p.lex, "order")) {
		q->filter = et_parse_filter(&p);
		fine = q->filter != NULL;
	}
	if (fine && et_lex_accept(&p.lex, "order"))
		fine = et_lex_accept(&p.lex, "by") && et_parse_order(&p, q);
	fine = fine && p.lex.kind == TOKEN_END;
	et_lex_end(&p.lex);
	return fine;
}
