/* SPDX-License-Identifier: MIT */
/*
 * SMQL (S-19), as much of it as filters of lists need: comparisons of a field and a literal, joined by
 * AND. `'..'` with `''` for a quote, numbers, true and false are literals. Anything else is refused.
 */
#include "servicemax.h"

#include "alloc.h"
#include "clock.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum comparator { OP_EQUAL, OP_UNEQUAL, OP_LESS, OP_LESS_EQUAL, OP_GREATER, OP_GREATER_EQUAL };

struct comparison {
	char *field;
	enum comparator op;
	char *text; /* what value.text points at */
	struct sm_value value;
};

struct sm_filter {
	struct comparison *at;
	size_t n;
};

void sm_filter_free(struct sm_filter *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n; i++) {
		free(f->at[i].field);
		free(f->at[i].text);
	}
	free(f->at);
	free(f);
}

static const char *skip_blanks(const char *s)
{
	while (isspace((unsigned char)*s))
		s++;
	return s;
}

static size_t word_length(const char *s)
{
	size_t n = 0;

	while (isalnum((unsigned char)s[n]) || s[n] == '_' || s[n] == '.' || s[n] == '-')
		n++;
	return n;
}

static bool read_operator(const char **s, enum comparator *ret)
{
	static const struct {
		const char *text;
		enum comparator op;
	} operators[] = {{"!=", OP_UNEQUAL}, {"<>", OP_UNEQUAL},       {"<=", OP_LESS_EQUAL},
			 {"<", OP_LESS},     {">=", OP_GREATER_EQUAL}, {">", OP_GREATER},
			 {"=", OP_EQUAL}};

	*s = skip_blanks(*s);
	for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
		if (strncmp(*s, operators[i].text, strlen(operators[i].text)) == 0) {
			*ret = operators[i].op;
			*s = skip_blanks(*s + strlen(operators[i].text));
			return true;
		}
	}
	return false;
}

/* The literal's text; NULL: there is none. */
static char *read_literal(const char **s)
{
	struct buffer text = {0};
	const char *at = *s;
	size_t len;

	if (*at != '\'') {
		len = word_length(at);
		*s = at + len;
		return len ? xmemdup(at, len) : NULL;
	}
	for (at++; *at && (*at != '\'' || at[1] == '\''); at++) {
		at += *at == '\'';
		buffer_putc(&text, *at);
	}
	if (*at != '\'') {
		buffer_free(&text);
		return NULL;
	}
	*s = at + 1;
	return text.data ? text.data : xstrdup("");
}

/* "2026-01-01", or with a time, milliseconds and an offset (S-23). */
bool sm_time_parse(const char *text, int64_t *ret_ms)
{
	struct date_time t = {0};
	int used = 0, n, hours, minutes, ms = 0;
	char sign;

	n = sscanf(text, "%4d-%2d-%2d%n", &t.year, &t.month, &t.day, &used);
	if (n != 3 || t.month < 1 || t.month > 12 || t.day < 1 || t.day > 31)
		return false;
	text += used;
	if (*text == 'T' || *text == ' ') {
		if (sscanf(text + 1, "%2d:%2d:%2d%n", &t.hour, &t.minute, &t.second, &used) != 3)
			return false;
		text += 1 + used;
	}
	if (*text == '.' && sscanf(text, ".%3d%n", &ms, &used) == 1)
		text += used;
	*ret_ms = clock_join(&t) * 1000 + ms;
	if (sscanf(text, "%c%2d:%2d%n", &sign, &hours, &minutes, &used) == 3 &&
	    (sign == '+' || sign == '-')) {
		*ret_ms -= (sign == '-' ? -1 : 1) * ((int64_t)hours * 60 + minutes) * 60000;
		text += used;
	}
	return !*text || strcmp(text, "Z") == 0;
}

/* The literal as what the field is; false if it cannot be that. */
static bool convert(struct sm_call *c, struct comparison *cmp)
{
	struct record nobody = {.collection = c->object, .name = {(char *)"", 0}};

	if (!sm_field_value(c, &nobody, cmp->field, &cmp->value))
		return false;
	switch (cmp->value.kind) {
	case VALUE_TIME:
		return sm_time_parse(cmp->text, &cmp->value.number);
	case VALUE_BOOL:
		cmp->value.number = strcasecmp(cmp->text, "true") == 0;
		return cmp->value.number || strcasecmp(cmp->text, "false") == 0;
	case VALUE_TEXT:
		cmp->value.text = cmp->text;
		cmp->value.len = strlen(cmp->text);
	}
	return true;
}

static bool read_comparison(struct sm_call *c, const char **s, struct sm_filter *f)
{
	struct comparison *cmp;
	size_t len;

	*s = skip_blanks(*s);
	len = word_length(*s);
	f->at = xrealloc(f->at, (f->n + 1) * sizeof(*f->at));
	cmp = &f->at[f->n++];
	*cmp = (struct comparison){.field = xmemdup(*s, len)};
	*s += len;
	if (!len || !read_operator(s, &cmp->op))
		return false;
	cmp->text = read_literal(s);
	*s = skip_blanks(*s);
	return cmp->text && convert(c, cmp);
}

static bool read_and(const char **s)
{
	if (strncasecmp(*s, "AND", 3) != 0 || word_length(*s) != 3)
		return false;
	*s += 3;
	return true;
}

bool sm_filter_parse(struct sm_call *c, const char *text, struct sm_filter **ret_filter)
{
	struct sm_filter *f;
	bool fine;

	*ret_filter = NULL;
	text = skip_blanks(text ? text : "");
	if (!*text)
		return true;
	f = xzalloc(sizeof(*f));
	do
		fine = read_comparison(c, &text, f);
	while (fine && read_and(&text));
	if (fine && !*text) {
		*ret_filter = f;
		return true;
	}
	sm_filter_free(f);
	sm_error_type(c, 400, "smql_query_error", "The filter parameter is invalid");
	return false;
}

/* Text is compared by its bytes, as the ids that pages are sorted by want it. */
int sm_value_compare(const struct sm_value *a, const struct sm_value *b)
{
	const char *s = a->text ? a->text : a->uuid;
	const char *t = b->text ? b->text : b->uuid;
	int order;

	if (a->kind != VALUE_TEXT)
		return (a->number > b->number) - (a->number < b->number);
	order = memcmp(s, t, a->len < b->len ? a->len : b->len);
	return order ? order : (a->len > b->len) - (a->len < b->len);
}

static bool holds(enum comparator op, int order)
{
	switch (op) {
	case OP_EQUAL:
		return order == 0;
	case OP_UNEQUAL:
		return order != 0;
	case OP_LESS:
		return order < 0;
	case OP_LESS_EQUAL:
		return order <= 0;
	case OP_GREATER:
		return order > 0;
	case OP_GREATER_EQUAL:
		return order >= 0;
	}
	return false;
}

bool sm_filter_fits(const struct sm_call *c, const struct sm_filter *f, const struct record *r)
{
	for (size_t i = 0; f && i < f->n; i++) {
		const struct comparison *cmp = &f->at[i];
		struct sm_value value;

		if (!sm_field_value(c, r, cmp->field, &value) ||
		    !holds(cmp->op, sm_value_compare(&value, &cmp->value)))
			return false;
	}
	return true;
}

bool sm_filter_names(const struct sm_filter *f, const char *field)
{
	for (size_t i = 0; f && i < f->n; i++)
		if (strcmp(f->at[i].field, field) == 0)
			return true;
	return false;
}

void sm_sort_free(struct sm_sort *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->terms[i].field);
	s->n = 0;
}

/* One "field [ASC|DESC]"; @s ends behind it. */
static bool read_term(struct sm_call *c, const char **s, struct sm_sort *ret)
{
	size_t len = word_length(*s = skip_blanks(*s));

	if (!len || ret->n == SORT_TERMS_MAX)
		return false;
	ret->terms[ret->n].field = xmemdup(*s, len);
	ret->terms[ret->n++].descending = false;
	*s = skip_blanks(*s + len);
	len = word_length(*s);
	if (len == 4 && strncasecmp(*s, "DESC", 4) == 0)
		ret->terms[ret->n - 1].descending = true;
	else if (len && !(len == 3 && strncasecmp(*s, "ASC", 3) == 0))
		return false;
	*s = skip_blanks(*s + len);
	return sm_field_known(c, ret->terms[ret->n - 1].field);
}

bool sm_sort_parse(struct sm_call *c, const char *text, struct sm_sort *ret)
{
	bool fine = true;

	*ret = (struct sm_sort){.n = 0};
	text = skip_blanks(text ? text : "");
	while (fine && *text) {
		fine = read_term(c, &text, ret);
		if (fine && *text && *text++ != ',')
			fine = false;
	}
	if (fine)
		return true;
	sm_sort_free(ret);
	sm_error_type(c, 400, "smql_query_error", "The sort parameter is invalid");
	return false;
}
