/* SPDX-License-Identifier: MIT */
/* Records of an object: list, count, extended_read (section 2). */
#include "servicemax.h"

#include "alloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The parameters of a list, from the query or from a JSON body. */
struct list {
	struct str fields, filter_text, sort_text;
	bool limited;
	int64_t limit, offset;
	bool counted; /* X-Total-Count */
	struct sm_filter *filter;
	struct sm_sort sort;
};

struct row_keys {
	const struct record *record;
	uint64_t shuffled;
	struct sm_value keys[]; /* one per sort term */
};

static struct str json_text(const json_t *value)
{
	struct str text = {0};
	char *dumped;

	if (json_is_string(value))
		return str_dup(json_string_value(value), json_string_length(value));
	if (!value || json_is_null(value))
		return text;
	dumped = json_dumps(value, JSON_ENCODE_ANY);
	text = str_dup(dumped, strlen(dumped));
	free(dumped);
	return text;
}

/* ptr NULL: not given. @body NULL: the query has them. */
static struct str parameter(const struct sm_call *c, const json_t *body, const char *name)
{
	return body ? json_text(json_object_get(body, name)) : request_query(c->rq, name);
}

/* Not given: *ret stays. */
static bool read_number(const struct sm_call *c, const json_t *body, const char *name,
			bool *ret_given, int64_t *ret)
{
	struct str text = parameter(c, body, name);
	char *end = NULL;
	bool fine = true;

	*ret_given = text.ptr != NULL;
	if (text.ptr) {
		errno = 0;
		*ret = strtoll(text.ptr, &end, 10);
		fine = *text.ptr && !*end && !errno && *ret >= 0;
	}
	str_free(&text);
	return fine;
}

static bool is_true(const struct str *text)
{
	return text->ptr && strcmp(text->ptr, "false") != 0;
}

static bool data_format_known(const struct sm_call *c, const json_t *body)
{
	struct str format = parameter(c, body, "data_format");
	bool known = !format.ptr || strcmp(format.ptr, "basic") == 0 ||
		     strcmp(format.ptr, "extended") == 0;

	str_free(&format);
	return known;
}

static void list_free(struct list *l)
{
	str_free(&l->fields);
	str_free(&l->filter_text);
	str_free(&l->sort_text);
	sm_filter_free(l->filter);
	sm_sort_free(&l->sort);
}

/* False when 400 is answered. */
static bool list_read(struct sm_call *c, const json_t *body, struct list *l)
{
	struct str uncounted = parameter(c, body, "exclude_total_count");
	bool has_offset, numbers;

	*l = (struct list){.fields = parameter(c, body, "fields"),
			   .filter_text = parameter(c, body, "filter"),
			   .sort_text = parameter(c, body, "sort")};
	numbers = read_number(c, body, "limit", &l->limited, &l->limit) &&
		  read_number(c, body, "offset", &has_offset, &l->offset);
	l->counted = l->limited && !is_true(&uncounted);
	str_free(&uncounted);
	if (!numbers || !data_format_known(c, body)) {
		sm_error_type(c, 400, "serialization_error", "A parameter cannot be read");
		return false;
	}
	return sm_fields_check(c, l->fields.ptr) &&
	       sm_filter_parse(c, l->filter_text.ptr, &l->filter) &&
	       sm_sort_parse(c, l->sort_text.ptr, &l->sort);
}

/* Deleted records are shown only to those who ask about io_deleted. */
static bool fits(const struct sm_call *c, const struct list *l, const struct record *r)
{
	if (!sm_record_readable(c, r))
		return false;
	if (sm_record_deleted(c, r) && !sm_filter_names(l->filter, "io_deleted"))
		return false;
	return sm_filter_fits(c, l->filter, r);
}

static int compare(const void *x, const void *y, void *context)
{
	const struct row_keys *const *a = x, *const *b = y;
	const struct sm_sort *sort = context;

	for (size_t i = 0; i < sort->n; i++) {
		int order = sm_value_compare(&(*a)->keys[i], &(*b)->keys[i]);

		if (order)
			return sort->terms[i].descending ? -order : order;
	}
	if ((*a)->shuffled != (*b)->shuffled)
		return (*a)->shuffled < (*b)->shuffled ? -1 : 1;
	return ((*a)->record->row.id > (*b)->record->row.id) -
	       ((*a)->record->row.id < (*b)->record->row.id);
}

/* What the sort terms leave open is open: every list has its own order (S-20). */
static struct row_keys *row_keys(const struct sm_call *c, const struct list *l,
				 const struct record *r)
{
	struct row_keys *k = xzalloc(sizeof(*k) + l->sort.n * sizeof(k->keys[0]));
	const uint64_t identity[2] = {(uint64_t)r->row.id, c->sm->shuffles};

	k->record = r;
	if (sm_set(c, SM_ORDER) == 0)
		k->shuffled = hash_bytes(identity, sizeof(identity), 21);
	for (size_t i = 0; i < l->sort.n; i++)
		sm_field_value(c, r, l->sort.terms[i].field, &k->keys[i]);
	return k;
}

/* All that fit, in order; the caller frees them and the array. */
static struct row_keys **select_rows(struct sm_call *c, struct list *l, size_t *ret_n)
{
	const struct rows *records = &c->object->records;
	struct row_keys **found = xmalloc((records->n + 1) * sizeof(*found));
	size_t n = 0;

	c->sm->shuffles++;
	for (size_t i = 0; i < records->n; i++) {
		const struct record *r = (const struct record *)records->at[i];

		if (fits(c, l, r))
			found[n++] = row_keys(c, l, r);
	}
	qsort_r(found, n, sizeof(*found), compare, &l->sort);
	*ret_n = n;
	return found;
}

static void reply(struct sm_call *c, struct list *l)
{
	struct buffer *out = &c->rs->body;
	size_t n;
	struct row_keys **rows = select_rows(c, l, &n);
	size_t first = (size_t)l->offset < n ? (size_t)l->offset : n;
	size_t last = l->limited && (size_t)l->limit < n - first ? first + (size_t)l->limit : n;

	if (l->counted)
		response_header(c->rs, "X-Total-Count", "%zu", n);
	buffer_putc(out, '[');
	for (size_t i = first; i < last; i++) {
		if (i > first)
			buffer_putc(out, ',');
		sm_put_record(c, out, rows[i]->record, l->fields.ptr);
	}
	buffer_putc(out, ']');
	for (size_t i = 0; i < n; i++)
		free(rows[i]);
	free(rows);
	sm_reply_json(c, 200);
}

static void serve(struct sm_call *c, const json_t *body)
{
	struct list l;

	if (list_read(c, body, &l))
		reply(c, &l);
	list_free(&l);
}

void sm_list_serve(struct sm_call *c)
{
	serve(c, NULL);
}

void sm_list_extended(struct sm_call *c)
{
	const struct buffer *sent = &c->rq->body;
	json_t *body = json_loadb(sent->data ? sent->data : "", sent->len, 0, NULL);

	if (json_is_object(body))
		serve(c, body);
	else
		sm_error_type(c, 400, "serialization_error", "The body is not a JSON map");
	json_decref(body);
}

void sm_list_count(struct sm_call *c)
{
	struct list l;
	int64_t n = 0;

	if (list_read(c, NULL, &l)) {
		for (size_t i = 0; i < c->object->records.n; i++)
			n += fits(c, &l, (const struct record *)c->object->records.at[i]);
		buffer_put_int(&c->rs->body, n);
		sm_reply_json(c, 200);
	}
	list_free(&l);
}
