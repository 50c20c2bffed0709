/* SPDX-License-Identifier: MIT */
/*
 * Filters of a search body as the database evaluates them: `and` binds tighter than `or`, null compares
 * to nothing, text ignores case and accents, numbers and ids are coerced (P-26), a value of midnight
 * compares dates only (P-29).
 */
#include "perscom.h"

#include "alloc.h"
#include "clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum operator{
	OP_LESS,
	OP_LESS_EQUAL,
	OP_GREATER,
	OP_GREATER_EQUAL,
	OP_EQUAL,
	OP_NOT_EQUAL,
	OP_LIKE,
	OP_NOT_LIKE,
	OP_IN,
	OP_NOT_IN,
	OP_ALL_IN,
	OP_ANY_IN,
};

static const struct {
	const char *name;
	enum operator op;
} operators[] = {
	{"<", OP_LESS},	       {"<=", OP_LESS_EQUAL},
	{">", OP_GREATER},     {">=", OP_GREATER_EQUAL},
	{"=", OP_EQUAL},       {"!=", OP_NOT_EQUAL},
	{"like", OP_LIKE},     {"not like", OP_NOT_LIKE},
	{"ilike", OP_LIKE},    {"not ilike", OP_NOT_LIKE},
	{"in", OP_IN},	       {"not in", OP_NOT_IN},
	{"all in", OP_ALL_IN}, {"any in", OP_ANY_IN},
};

struct operand {
	bool null;
	struct str raw;	   /* as given */
	struct str folded; /* for text */
	double number;	   /* for integers: the leading number, as MySQL reads "5abc" */
	bool is_date;
	int64_t date;
};

struct condition {
	bool is_or; /* joined to what precedes by OR */
	char *field;
	enum operator op;
	struct operand *operands;
	size_t n_operands;
	struct filter *nested; /* instead of the above */
};

struct filter {
	struct condition *at;
	size_t n;
};

static const char *word(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static bool in_words(const char *words, const char *field)
{
	size_t len = strlen(field);

	while (*words) {
		size_t n = strcspn(words, " ");

		if (n == len && memcmp(words, field, n) == 0)
			return true;
		/* "author.*" allows "author.name" */
		if (n > 2 && words[n - 1] == '*' && words[n - 2] == '.' && len > n - 1 &&
		    memcmp(words, field, n - 1) == 0)
			return true;
		words += n + (words[n] == ' ');
	}
	return false;
}

bool field_allowed(const struct call *c, const char *field)
{
	return !c->nested && in_words(c->resource->filters, field);
}

static struct operand operand_of(const json_t *value)
{
	struct operand o = {.raw = scalar_text(value)};

	o.null = !o.raw.ptr;
	if (o.null)
		return o;
	o.folded = text_fold(o.raw.ptr, o.raw.len);
	o.number = strtod(o.raw.ptr, NULL);
	o.is_date = date_parse(o.raw.ptr, &o.date);
	return o;
}

/* `=` with an array: Laravel takes the first of its values. */
static void take_operands(struct condition *cond, const json_t *value)
{
	bool many = cond->op >= OP_IN;
	size_t n = json_is_array(value) ? json_array_size(value) : 1;

	if (!many && n > 1)
		n = 1;
	cond->operands = xzalloc(n * sizeof(*cond->operands));
	cond->n_operands = n;
	for (size_t i = 0; i < n; i++)
		cond->operands[i] =
			operand_of(json_is_array(value) ? json_array_get(value, i) : value);
}

static bool take_operator(struct condition *cond, const json_t *item, const char *prefix,
			  json_t **errors)
{
	const json_t *given = json_object_get(item, "operator");
	const char *name = json_string_value(given);
	char *key;

	cond->op = OP_EQUAL;
	if (!given || json_is_null(given))
		return true;
	for (size_t i = 0; name && i < sizeof(operators) / sizeof(operators[0]); i++) {
		if (strcmp(operators[i].name, name) == 0) {
			cond->op = operators[i].op;
			return true;
		}
	}
	key = xasprintf("%s.operator", prefix);
	invalid_add(errors, key, "The selected %s.operator is invalid.", prefix);
	free(key);
	return false;
}

static void take_field(struct call *c, struct condition *cond, const json_t *item,
		       const char *prefix, json_t **errors)
{
	const char *field = word(item, "field");
	char *key = xasprintf("%s.field", prefix);

	if (!field)
		invalid_add(errors, key, "The %s.field field is required.", prefix);
	else if (!field_allowed(c, field))
		invalid_add(errors, key, "The %s field is not whitelisted.", field);
	cond->field = xstrdup(field ? field : "");
	free(key);
}

static struct filter *parse_list(struct call *c, const json_t *list, const char *prefix, int depth,
				 json_t **errors);

static void parse_condition(struct call *c, struct condition *cond, const json_t *item,
			    const char *prefix, int depth, json_t **errors)
{
	const char *type = word(item, "type");
	const json_t *nested = json_object_get(item, "nested");
	char *key;

	cond->is_or = type && strcmp(type, "or") == 0;
	if (type && !cond->is_or && strcmp(type, "and") != 0) {
		key = xasprintf("%s.type", prefix);
		invalid_add(errors, key, "The selected %s.type is invalid.", prefix);
		free(key);
	}
	if (json_is_array(nested)) {
		key = xasprintf("%s.nested", prefix);
		cond->nested = parse_list(c, nested, key, depth + 1, errors);
		free(key);
		return;
	}
	take_field(c, cond, item, prefix, errors);
	take_operator(cond, item, prefix, errors);
	take_operands(cond, json_object_get(item, "value"));
}

static struct filter *parse_list(struct call *c, const json_t *list, const char *prefix, int depth,
				 json_t **errors)
{
	struct filter *f = xzalloc(sizeof(*f));
	size_t i;
	json_t *item;

	if (depth > 1) {
		invalid_add(errors, "nested", "Max nested depth :1 is exceeded");
		return f;
	}
	f->n = json_array_size(list);
	f->at = xzalloc(f->n * sizeof(*f->at));
	json_array_foreach(list, i, item)
	{
		char *key = xasprintf("%s.%zu", prefix, i);

		parse_condition(c, &f->at[i], item, key, depth, errors);
		free(key);
	}
	return f;
}

struct filter *filter_parse(struct call *c, const json_t *filters, json_t **errors)
{
	if (!filters || json_is_null(filters))
		return NULL;
	if (json_is_array(filters))
		return parse_list(c, filters, "filters", 0, errors);
	invalid_add(errors, "filters", "The filters field must be an array.");
	return NULL;
}

void filter_free(struct filter *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n; i++) {
		for (size_t j = 0; j < f->at[i].n_operands; j++) {
			str_free(&f->at[i].operands[j].raw);
			str_free(&f->at[i].operands[j].folded);
		}
		free(f->at[i].operands);
		free(f->at[i].field);
		filter_free(f->at[i].nested);
	}
	free(f->at);
	free(f);
}

static struct value text_value(const struct str *s)
{
	return (struct value){s->ptr ? VALUE_TEXT : VALUE_NULL, 0, s->ptr, s->len};
}

static struct value number_value(enum value_kind kind, int64_t number)
{
	return (struct value){kind, number, NULL, 0};
}

static struct value attachment_value(const struct attachment *a, const char *field)
{
	if (strcmp(field, "name") == 0)
		return text_value(&a->name);
	if (strcmp(field, "filename") == 0)
		return text_value(&a->filename);
	if (strcmp(field, "path") == 0)
		return (struct value){VALUE_TEXT, 0, a->path, strlen(a->path)};
	if (strcmp(field, "model_type") == 0)
		return text_value(&a->owner_type);
	if (strcmp(field, "model_id") == 0)
		return number_value(a->has_owner_id ? VALUE_INTEGER : VALUE_NULL, a->owner_id);
	if (strcmp(field, "created_at") == 0)
		return number_value(VALUE_TIME, a->created_at);
	if (strcmp(field, "updated_at") == 0)
		return number_value(VALUE_TIME, a->updated_at);
	return number_value(VALUE_NULL, 0);
}

static struct value json_value(const json_t *value)
{
	if (json_is_string(value))
		return (struct value){VALUE_TEXT, 0, json_string_value(value),
				      json_string_length(value)};
	if (json_is_integer(value))
		return number_value(VALUE_INTEGER, json_integer_value(value));
	if (json_is_boolean(value))
		return number_value(VALUE_INTEGER, json_is_true(value));
	return number_value(VALUE_NULL, 0);
}

static struct value record_value(struct call *c, const struct record *r, const char *field)
{
	const struct resource *res = resource_of(r->collection);
	const char *dot = strchr(field, '.');

	if (res->of_users)
		record_user(c, r); /* settles user_id */
	if (strcmp(field, res->title) == 0)
		return text_value(&r->name);
	if (strcmp(field, "created_at") == 0)
		return number_value(VALUE_TIME, r->created_at);
	if (strcmp(field, "updated_at") == 0)
		return number_value(VALUE_TIME, r->updated_at);
	if (dot) { /* "author.name": the user that author_id names */
		char *key = xasprintf("%.*s_id", (int)(dot - field), field);
		int64_t id = json_integer_value(json_object_get(r->fields, key));
		struct record *user = store_record(store_collection(c->p->emu->store, "users"), id);

		free(key);
		return user ? row_value(c, &user->row, dot + 1) : number_value(VALUE_NULL, 0);
	}
	return json_value(json_object_get(r->fields, field));
}

struct value row_value(struct call *c, const struct row *row, const char *field)
{
	if (strcmp(field, "id") == 0)
		return number_value(VALUE_INTEGER, row->id);
	if (c->resource->fields)
		return record_value(c, (const struct record *)row, field);
	return attachment_value((const struct attachment *)row, field);
}

/* Below, at or above zero; false if the two cannot be compared (SQL's null). */
static bool compare(const struct value *v, const struct operand *o, int *ret_order)
{
	struct str folded;
	int64_t day;

	if (v->kind == VALUE_NULL || o->null)
		return false;
	switch (v->kind) {
	case VALUE_INTEGER:
		*ret_order = (double)v->number < o->number ? -1 : (double)v->number > o->number;
		return true;
	case VALUE_TIME:
		day = o->date % 86400 == 0 ? v->number - v->number % 86400 : v->number; /* P-29 */
		*ret_order = day < o->date ? -1 : day > o->date;
		return o->is_date;
	case VALUE_TEXT:
	case VALUE_NULL:
		break;
	}
	folded = text_fold(v->text, v->len);
	*ret_order = text_compare(&folded, &o->folded);
	str_free(&folded);
	return true;
}

static bool is_like(const struct value *v, const struct operand *o)
{
	char number[96];
	struct date_time t;
	struct str folded;
	bool like;

	if (v->kind == VALUE_TEXT) {
		folded = text_fold(v->text, v->len);
	} else if (v->kind == VALUE_TIME) {
		t = clock_split(v->number);
		snprintf(number, sizeof(number), "%04d-%02d-%02d %02d:%02d:%02d", t.year, t.month,
			 t.day, t.hour, t.minute, t.second);
		folded = str_dup(number, strlen(number));
	} else {
		snprintf(number, sizeof(number), "%lld", (long long)v->number);
		folded = str_dup(number, strlen(number));
	}
	like = text_like(folded.ptr, folded.len, o->folded.ptr, o->folded.len);
	str_free(&folded);
	return like;
}

static bool is_one_of(const struct value *v, const struct condition *cond)
{
	int order;

	for (size_t i = 0; i < cond->n_operands; i++)
		if (compare(v, &cond->operands[i], &order) && order == 0)
			return true;
	return false;
}

static bool is_all_of(const struct value *v, const struct condition *cond)
{
	int order;

	for (size_t i = 0; i < cond->n_operands; i++)
		if (!compare(v, &cond->operands[i], &order) || order != 0)
			return false;
	return cond->n_operands > 0;
}

static bool fits_order(const struct value *v, const struct condition *cond)
{
	const struct operand *o = cond->n_operands ? &cond->operands[0] : NULL;
	int order;

	if (!o || o->null) /* `= null` is IS NULL, `!= null` IS NOT NULL */
		return (cond->op == OP_EQUAL && v->kind == VALUE_NULL) ||
		       (cond->op == OP_NOT_EQUAL && v->kind != VALUE_NULL);
	if (!compare(v, o, &order))
		return false;
	switch (cond->op) {
	case OP_LESS:
		return order < 0;
	case OP_LESS_EQUAL:
		return order <= 0;
	case OP_GREATER:
		return order > 0;
	case OP_GREATER_EQUAL:
		return order >= 0;
	case OP_NOT_EQUAL:
		return order != 0;
	default:
		return order == 0;
	}
}

static bool fits(struct call *c, const struct condition *cond, const struct row *row)
{
	struct value v;

	if (cond->nested)
		return filter_fits(c, cond->nested, row);
	v = row_value(c, row, cond->field);
	switch (cond->op) {
	case OP_LIKE:
	case OP_NOT_LIKE:
		if (v.kind == VALUE_NULL || !cond->n_operands || cond->operands[0].null)
			return false;
		return is_like(&v, &cond->operands[0]) == (cond->op == OP_LIKE);
	case OP_IN:
	case OP_ANY_IN:
		return is_one_of(&v, cond);
	case OP_NOT_IN:
		return v.kind != VALUE_NULL && !is_one_of(&v, cond);
	case OP_ALL_IN:
		return is_all_of(&v, cond);
	default:
		return fits_order(&v, cond);
	}
}

bool filter_fits(struct call *c, const struct filter *f, const struct row *row)
{
	bool group = true; /* the conditions joined by AND since the last OR */

	if (!f)
		return true;
	for (size_t i = 0; i < f->n; i++) {
		if (f->at[i].is_or && i > 0) {
			if (group)
				return true;
			group = true;
		}
		group = group && fits(c, &f->at[i], row);
	}
	return group;
}

bool filter_owner(const struct filter *f, struct str *ret_type, int64_t *ret_id)
{
	const struct operand *type = NULL, *id = NULL;

	for (size_t i = 0; f && i < f->n; i++) {
		const struct condition *cond = &f->at[i];

		if (i > 0 && cond->is_or)
			return false;
		if (cond->nested || cond->op != OP_EQUAL || !cond->n_operands ||
		    cond->operands[0].null)
			continue;
		if (strcmp(cond->field, "model_type") == 0)
			type = &cond->operands[0];
		else if (strcmp(cond->field, "model_id") == 0)
			id = &cond->operands[0];
	}
	if (!type || !id || rint(id->number) != id->number)
		return false;
	*ret_type = type->raw;
	*ret_id = (int64_t)id->number;
	return true;
}
