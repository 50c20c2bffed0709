/* SPDX-License-Identifier: MIT */
/* Lists and searches: includes, sorting, pages and the envelope of section 2. */
#include "perscom.h"

#include "alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT_OTHERWISE 15

struct sort_key {
	char *field;
	bool descending;
};

struct search {
	struct filter *filter;
	struct sort_key sort[8];
	size_t n_sort;
	struct str needle; /* free text, folded */
};

struct page {
	struct row **rows; /* what fits, sorted */
	size_t total;
	int64_t number;
	int64_t limit;
	int64_t last;
};

static bool listed(const char *words, const char *word, size_t len)
{
	while (*words) {
		size_t n = strcspn(words, " ");

		if (n == len && memcmp(words, word, n) == 0)
			return true;
		words += n + (words[n] == ' ');
	}
	return false;
}

/* One relation; those without data here come as null. False: not allowed. */
static bool include(struct call *c, const char *name, size_t len)
{
	if (c->nested || !listed(c->resource->includes, name, len))
		return false;
	if (len == 11 && memcmp(name, "attachments", len) == 0)
		c->include_attachments = true;
	else if (len == 5 && memcmp(name, "model", len) == 0)
		c->include_model = true;
	else
		buffer_printf(&c->included, ",\"%.*s\":null", (int)len, name);
	return true;
}

static void include_list(struct call *c, const char *list, json_t **errors)
{
	while (*list) {
		size_t len = strcspn(list, ",");

		if (len && !include(c, list, len))
			invalid_add(errors, "include", "The %.*s include is not whitelisted.",
				    (int)len, list);
		list += len + (list[len] == ',');
	}
}

bool includes_read(struct call *c)
{
	struct str query = request_query(c->rq, "include");
	json_t *errors = NULL;
	size_t i;
	json_t *item;

	if (query.ptr)
		include_list(c, query.ptr, &errors);
	str_free(&query);
	if (c->target == TARGET_SEARCH) {
		json_array_foreach(json_object_get(c->input, "includes"), i, item)
		{
			const char *relation = json_string_value(json_object_get(item, "relation"));

			if (relation && !include(c, relation, strlen(relation)))
				invalid_add(&errors, "includes",
					    "The %s relation is not whitelisted.", relation);
		}
	}
	return !invalid_reply(c, errors);
}

bool attachment_alive(const struct attachment *a)
{
	return a->deleted_at == 0;
}

/* The rows a list starts from: all, or by the owner index those of one owner. */
static const struct rows *candidates(struct call *c, const struct search *s)
{
	struct store *store = c->p->emu->store;
	struct str type;
	int64_t id;

	if (c->nested)
		return store_owned(store, "App\\Models\\User", 15, c->user_id);
	if (c->resource->fields)
		return &store_collection(store, c->resource->name)->records;
	if (filter_owner(s->filter, &type, &id))
		return store_owned(store, type.ptr, type.len, id);
	return &store->attachments;
}

static bool has_needle(struct call *c, const struct search *s, const struct row *row)
{
	static const char *const fields[] = {"name", "filename", "path"};

	if (!s->needle.ptr)
		return true;
	for (size_t i = 0; i < 3; i++) {
		struct value v = row_value(c, row, fields[i]);
		struct str folded = text_fold(v.text ? v.text : "", v.len);
		bool found = memmem(folded.ptr, folded.len, s->needle.ptr, s->needle.len) != NULL;

		str_free(&folded);
		if (found)
			return true;
	}
	return false;
}

static void collect(struct call *c, const struct search *s, struct page *page)
{
	const struct rows *from = candidates(c, s);

	page->rows = xmalloc((from ? from->n : 0) * sizeof(struct row *));
	for (size_t i = 0; from && i < from->n; i++) {
		struct row *row = from->at[c->resource->newest_first ? from->n - 1 - i : i];

		if (!c->resource->fields && !attachment_alive((struct attachment *)row))
			continue;
		if (c->owned && record_user(c, (struct record *)row) != c->user_id)
			continue;
		if (filter_fits(c, s->filter, row) && has_needle(c, s, row))
			page->rows[page->total++] = row;
	}
}

struct sort_context {
	struct call *c;
	const struct search *search;
};

static int order_values(const struct value *a, const struct value *b)
{
	struct str fa, fb;
	int order;

	if (a->kind == VALUE_NULL || b->kind == VALUE_NULL)
		return (a->kind != VALUE_NULL) - (b->kind != VALUE_NULL);
	if (a->kind != VALUE_TEXT || b->kind != VALUE_TEXT)
		return a->number < b->number ? -1 : a->number > b->number;
	fa = text_fold(a->text, a->len);
	fb = text_fold(b->text, b->len);
	order = text_compare(&fa, &fb);
	str_free(&fa);
	str_free(&fb);
	return order;
}

static int order_rows(const void *a, const void *b, void *context)
{
	const struct sort_context *sc = context;
	const struct row *ra = *(struct row *const *)a;
	const struct row *rb = *(struct row *const *)b;

	for (size_t i = 0; i < sc->search->n_sort; i++) {
		const struct sort_key *key = &sc->search->sort[i];
		struct value va = row_value(sc->c, ra, key->field);
		struct value vb = row_value(sc->c, rb, key->field);
		int order = order_values(&va, &vb);

		if (order)
			return key->descending ? -order : order;
	}
	return ra->id < rb->id ? -1 : ra->id > rb->id;
}

static void sort_rows(struct call *c, const struct search *s, struct page *page)
{
	struct sort_context context = {c, s};
	bool by_id = s->n_sort > 0 && strcmp(s->sort[0].field, "id") == 0;

	if (s->n_sort == 0)
		return;
	/* Rows come in id order, or in its reverse: the usual sort costs nothing. */
	if (by_id && s->sort[0].descending == c->resource->newest_first)
		return;
	if (by_id) {
		for (size_t i = 0, j = page->total; i + 1 < j; i++) {
			struct row *row = page->rows[i];

			page->rows[i] = page->rows[--j];
			page->rows[j] = row;
		}
		return;
	}
	qsort_r(page->rows, page->total, sizeof(struct row *), order_rows, &context);
}

static void read_sort(struct call *c, struct search *s, json_t **errors)
{
	size_t i;
	json_t *item;

	json_array_foreach(json_object_get(c->input, "sort"), i, item)
	{
		const char *field = json_string_value(json_object_get(item, "field"));
		const char *direction = json_string_value(json_object_get(item, "direction"));
		char key[48];

		snprintf(key, sizeof(key), "sort.%zu.%s", i, direction ? "direction" : "field");
		if (!field)
			invalid_add(errors, key, "The sort.%zu.field field is required.", i);
		else if (!field_allowed(c, field))
			invalid_add(errors, key, "The %s field is not whitelisted.", field);
		else if (direction && strcmp(direction, "asc") != 0 &&
			 strcmp(direction, "desc") != 0)
			invalid_add(errors, key, "The selected sort.%zu.direction is invalid.", i);
		else if (s->n_sort < 8)
			s->sort[s->n_sort++] = (struct sort_key){
				xstrdup(field), direction && strcmp(direction, "desc") == 0};
	}
}

static bool wants_text(const struct call *c)
{
	return json_is_string(json_object_get(json_object_get(c->input, "search"), "value"));
}

static void search_free(struct search *s)
{
	filter_free(s->filter);
	for (size_t i = 0; i < s->n_sort; i++)
		free(s->sort[i].field);
	str_free(&s->needle);
}

/* A date in the risky form `T..Z` is an error on strict MySQL: both may be had ([assumed]). */
static bool has_risky_date(const struct call *c)
{
	char *text = json_dumps(json_object_get(c->input, "filters"), JSON_ENCODE_ANY);
	bool risky = text && setting(c, SET_DATE_Z) && strstr(text, "_at\"") && strstr(text, "Z\"");

	free(text);
	return risky;
}

/* False: answered already. Filters count on `/search` only; on a GET they are ignored silently. */
static bool read_search(struct call *c, struct search *s)
{
	json_t *errors = NULL;
	const json_t *text;

	if (c->target != TARGET_SEARCH)
		return true;
	s->filter = filter_parse(c, json_object_get(c->input, "filters"), &errors);
	read_sort(c, s, &errors);
	if (invalid_reply(c, errors))
		return false;
	if ((wants_text(c) && c->resource->search_fails) || has_risky_date(c)) {
		error_query(c); /* a LIKE on a column named `*` */
		return false;
	}
	text = json_object_get(json_object_get(c->input, "search"), "value");
	if (json_is_string(text))
		s->needle = text_fold(json_string_value(text), json_string_length(text));
	return true;
}

/* Query first, then body; anything not above zero counts as absent. */
static int64_t positive(struct call *c, const char *name, int64_t otherwise)
{
	struct str query = request_query(c->rq, name);
	int64_t n = 0;

	if (query.ptr)
		n = strtoll(query.ptr, NULL, 10);
	else
		scalar_integer(json_object_get(c->input, name), &n);
	str_free(&query);
	return n > 0 ? n : otherwise;
}

static void put_page_url(struct call *c, struct buffer *out, int64_t number)
{
	const char *host = request_header(c->rq, "Host");
	struct buffer url = {0};

	if (host)
		buffer_printf(&url, "http://%s%s", host, c->rq->path);
	else
		buffer_printf(&url, "%s%s", c->p->emu->api_url, c->rq->path);
	if (number)
		buffer_printf(&url, "?page=%lld", (long long)number); /* P-8: and nothing else */
	buffer_json_string(out, url.data, url.len);
	buffer_free(&url);
}

static void put_link(struct call *c, struct buffer *out, const char *label, int64_t number,
		     bool exists, bool active)
{
	buffer_json_comma(out);
	buffer_puts(out, "{\"url\":");
	if (exists)
		put_page_url(c, out, number);
	else
		buffer_puts(out, "null");
	buffer_json_key(out, "label");
	buffer_json_text(out, label);
	if (setting(c, SET_META_PAGE_KEY) && exists)
		buffer_printf(out, ",\"page\":%lld", (long long)number);
	else if (setting(c, SET_META_PAGE_KEY))
		buffer_puts(out, ",\"page\":null");
	buffer_printf(out, ",\"active\":%s}", active ? "true" : "false");
}

static void put_numbers(struct call *c, struct buffer *out, const struct page *page, int64_t from,
			int64_t to)
{
	char label[24];

	for (int64_t i = from; i <= to; i++) {
		snprintf(label, sizeof(label), "%lld", (long long)i);
		put_link(c, out, label, i, true, i == page->number);
	}
}

/* Laravel's window: all pages up to 13, else both ends and three to each side of the current one. */
static void put_links(struct call *c, struct buffer *out, const struct page *page)
{
	int64_t last = page->last, at = page->number;

	put_link(c, out, "&laquo; Previous", at - 1, at > 1, false);
	if (last < 14) {
		put_numbers(c, out, page, 1, last);
	} else if (at <= 7) {
		put_numbers(c, out, page, 1, 10);
		put_link(c, out, "...", 0, false, false);
		put_numbers(c, out, page, last - 1, last);
	} else if (at > last - 7) {
		put_numbers(c, out, page, 1, 2);
		put_link(c, out, "...", 0, false, false);
		put_numbers(c, out, page, last - 9, last);
	} else {
		put_numbers(c, out, page, 1, 2);
		put_link(c, out, "...", 0, false, false);
		put_numbers(c, out, page, at - 3, at + 3);
		put_link(c, out, "...", 0, false, false);
		put_numbers(c, out, page, last - 1, last);
	}
	put_link(c, out, "Next &raquo;", at + 1, at < last, false);
}

static void put_page_or_null(struct call *c, struct buffer *out, const char *key, int64_t number,
			     bool exists)
{
	buffer_json_key(out, key);
	if (exists)
		put_page_url(c, out, number);
	else
		buffer_puts(out, "null");
}

static void put_envelope(struct call *c, struct buffer *out, const struct page *page, size_t first,
			 size_t shown)
{
	buffer_puts(out, ",\"links\":{");
	put_page_or_null(c, out, "first", 1, true);
	put_page_or_null(c, out, "last", page->last, true);
	put_page_or_null(c, out, "prev", page->number - 1, page->number > 1);
	put_page_or_null(c, out, "next", page->number + 1, page->number < page->last);
	buffer_printf(out, "},\"meta\":{\"current_page\":%lld,\"from\":", (long long)page->number);
	if (shown)
		buffer_printf(out, "%zu", first + 1);
	else
		buffer_puts(out, "null");
	buffer_printf(out, ",\"last_page\":%lld,\"links\":[", (long long)page->last);
	put_links(c, out, page);
	buffer_puts(out, "],\"path\":");
	put_page_url(c, out, 0);
	buffer_printf(out, ",\"per_page\":%lld,\"to\":", (long long)page->limit);
	if (shown)
		buffer_printf(out, "%zu", first + shown);
	else
		buffer_puts(out, "null");
	buffer_printf(out, ",\"total\":%zu}}", page->total);
}

static void put_page(struct call *c, struct page *page)
{
	struct buffer *out = &c->rs->body;
	size_t first = page->total;
	size_t shown = 0;

	page->limit = positive(c, "limit", LIMIT_OTHERWISE);
	page->number = positive(c, "page", 1);
	page->last = page->total ? (int64_t)(page->total - 1) / page->limit + 1 : 1;
	if (page->number <= page->last)
		first = (size_t)((page->number - 1) * page->limit);
	shown = page->total - first;
	if (shown > (size_t)page->limit)
		shown = (size_t)page->limit;
	c->rs->status = 200;
	buffer_puts(out, "{\"data\":[");
	for (size_t i = 0; i < shown; i++) {
		buffer_json_comma(out);
		put_row(c, out, page->rows[first + i]);
	}
	buffer_putc(out, ']');
	put_envelope(c, out, page, first, shown);
}

void list_serve(struct call *c)
{
	struct collection *users = store_collection(c->p->emu->store, "users");
	struct search s = {0};
	struct page page = {0};

	if (c->nested && !store_record(users, c->user_id)) {
		error_status(c, 404);
		return;
	}
	if (c->nested && c->target == TARGET_SEARCH) {
		error_status(c, 500); /* P-7 */
		return;
	}
	if (read_search(c, &s)) {
		collect(c, &s, &page);
		sort_rows(c, &s, &page);
		put_page(c, &page);
	}
	free(page.rows);
	search_free(&s);
}
