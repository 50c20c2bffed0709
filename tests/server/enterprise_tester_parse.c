/* SPDX-License-Identifier: MIT */
/*
 * What TQL and OData's $filter have in common:
 *
 *	or := and ("or" and)*    and := not ("and" not)*    not := "not" not | "(" or ")" | test
 *	order := field ["asc" | "desc"] ("," order)*
 */
#include "enterprise_tester.h"

#define DEPTH_MAX 64

int et_parse_field(struct et_parser *p)
{
	int field = p->lex.kind == TOKEN_WORD ? et_field(p->lex.text.ptr) : -1;

	if (field >= 0 && p->no_has_attachments && et_field_is(field, "HasAttachments"))
		field = -1;
	et_lex_next(&p->lex);
	return field;
}

bool et_parse_literal(struct et_parser *p, struct et_filter *f)
{
	if (p->lex.kind != TOKEN_STRING && p->lex.kind != TOKEN_WORD)
		return false;
	et_filter_operand(f, &p->lex.text);
	et_lex_next(&p->lex);
	return true;
}

static struct et_filter *parse_or(struct et_parser *p, int depth);

static struct et_filter *parse_not(struct et_parser *p, int depth)
{
	struct et_filter *f;

	if (depth > DEPTH_MAX)
		return NULL;
	if (et_lex_accept(&p->lex, "not")) {
		f = parse_not(p, depth + 1);
		return f ? et_filter_new(FILTER_NOT, f, NULL) : NULL;
	}
	if (!et_lex_accept(&p->lex, "("))
		return p->test(p);
	f = parse_or(p, depth + 1);
	if (f && et_lex_accept(&p->lex, ")"))
		return f;
	et_filter_free(f);
	return NULL;
}

/* Both must be there; the one that is without the other is freed. */
static struct et_filter *join(enum et_filter_op op, struct et_filter *left, struct et_filter *right)
{
	if (left && right)
		return et_filter_new(op, left, right);
	et_filter_free(left);
	et_filter_free(right);
	return NULL;
}

static struct et_filter *parse_and(struct et_parser *p, int depth)
{
	struct et_filter *f = parse_not(p, depth);

	while (f && et_lex_accept(&p->lex, "and"))
		f = join(FILTER_AND, f, parse_not(p, depth));
	return f;
}

static struct et_filter *parse_or(struct et_parser *p, int depth)
{
	struct et_filter *f = parse_and(p, depth);

	while (f && et_lex_accept(&p->lex, "or"))
		f = join(FILTER_OR, f, parse_and(p, depth));
	return f;
}

struct et_filter *et_parse_filter(struct et_parser *p)
{
	return parse_or(p, 0);
}

bool et_parse_order(struct et_parser *p, struct et_query *q)
{
	do {
		int field = et_parse_field(p);
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
