/* SPDX-License-Identifier: MIT */
/* Lists of section 2: gathered, filtered, ordered, cut into a page, put into an envelope. */
#include "enterprise_tester.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>

void et_list_add(struct et_list *list, struct et_entity e)
{
	if (list->n == list->cap) {
		list->cap = list->cap ? list->cap * 2 : 64;
		list->at = xrealloc(list->at, list->cap * sizeof(*list->at));
	}
	list->at[list->n++] = e;
}

static void add_records(struct et_call *c, struct et_list *list, enum et_kind kind)
{
	const struct rows *rows = &c->et->emu->store->collections[kind].records;

	for (size_t i = 0; i < rows->n; i++)
		et_list_add(list, (struct et_entity){kind, rows->at[i]->id,
						     (struct record *)rows->at[i], NULL});
}

static void add_runs(struct et_call *c, struct et_list *list, enum et_kind kind)
{
	enum et_kind steps = kind == ET_SCRIPT_RUN ? ET_STEP_RESULT : ET_AGILE_RUN_STEP;
	const struct rows *rows = &c->et->emu->store->collections[steps].records;

	for (size_t i = 0; i < rows->n; i++) {
		int64_t run = et_run_of(rows->at[i]->id);

		if (!list->n || list->at[list->n - 1].id != run)
			et_list_add(list, (struct et_entity){kind, run, NULL, NULL});
	}
}

static void add_kind(struct et_call *c, struct et_list *list, enum et_kind kind)
{
	int64_t fixed = kind == ET_PROJECT ? ET_PROJECTS : ET_PACKAGES;

	if (kind < ET_RECORD_KINDS)
		add_records(c, list, kind);
	else if (kind == ET_SCRIPT_RUN || kind == ET_AGILE_RUN)
		add_runs(c, list, kind);
	else if (kind <= ET_EXECUTION_PACKAGE)
		for (int64_t id = 1; id <= fixed; id++)
			et_list_add(list, (struct et_entity){kind, id, NULL, NULL});
}

static void filter(struct et_call *c, struct et_list *list, const struct et_query *q)
{
	size_t kept = 0;

	if (!q->filter)
		return;
	for (size_t i = 0; i < list->n; i++)
		if (et_filter_fits(c, q->filter, &list->at[i]))
			list->at[kept++] = list->at[i];
	list->n = kept;
}

struct sortable {
	struct et_entity entity;
	struct et_value keys[ET_ORDERS_MAX];
};

static int by_keys(const void *one, const void *other, void *query)
{
	const struct sortable *a = one, *b = other;
	const struct et_query *q = query;

	for (size_t i = 0; i < q->n_orders; i++) {
		int order = et_value_compare(&a->keys[i], &b->keys[i]);

		if (order)
			return q->orders[i].descending ? -order : order;
	}
	return a->entity.id < b->entity.id ? -1 : a->entity.id > b->entity.id;
}

static void sort(struct et_call *c, struct et_list *list, struct et_query *q)
{
	struct sortable *rows = xzalloc((list->n + 1) * sizeof(*rows));

	for (size_t i = 0; i < list->n; i++) {
		rows[i].entity = list->at[i];
		for (size_t k = 0; k < q->n_orders; k++)
			rows[i].keys[k] = et_value_of(c, &list->at[i], q->orders[k].field);
	}
	qsort_r(rows, list->n, sizeof(*rows), by_keys, q);
	for (size_t i = 0; i < list->n; i++) {
		list->at[i] = rows[i].entity;
		for (size_t k = 0; k < q->n_orders; k++)
			str_free(&rows[i].keys[k].text);
	}
	free(rows);
}

/* A database that was not asked for an order answers in another one every time. */
static void shuffle(struct et_call *c, struct et_list *list)
{
	size_t turn = list->n ? ++c->et->shuffled * 7 % list->n : 0;
	struct et_entity *at = xmalloc((list->n + 1) * sizeof(*at));

	for (size_t i = 0; i < list->n; i++)
		at[i] = list->at[(i + turn) % list->n];
	free(list->at);
	list->at = at;
}

static void arrange(struct et_call *c, struct et_list *list, struct et_query *q)
{
	filter(c, list, q);
	if (q->n_orders)
		sort(c, list, q);
	else if (et_setting(c, ET_UNORDERED))
		shuffle(c, list);
}

/* Attachments is an expander of these; step results only when shown alone. */
static enum et_expand expand_of(const struct et_query *q, enum et_kind kind)
{
	return q->expand_attachments && kind <= ET_INCIDENT ? EXPAND_ATTACHMENTS : EXPAND_NONE;
}

static void put_item(struct et_call *c, const struct et_query *q, const struct et_entity *e,
		     size_t index, bool entity_type)
{
	struct buffer *out = &c->rs->body;

	buffer_json_comma(out);
	if (e->attachment)
		et_put_attachment(c, out, e->attachment, index);
	else
		et_put_entity(c, out, e, entity_type ? EXPAND_NONE : expand_of(q, e->kind),
			      entity_type);
}

void et_list_reply(struct et_call *c, struct et_list *list, enum et_language language,
		   bool entity_type)
{
	struct et_query q = {0};
	struct buffer *out = &c->rs->body;
	size_t first, last;

	if (!et_query_read(c, language, &q)) {
		free(list->at);
		return;
	}
	arrange(c, list, &q);
	first = (uint64_t)q.skip < list->n ? (size_t)q.skip : list->n;
	last = q.top >= 0 && (uint64_t)q.top < list->n - first ? first + (size_t)q.top : list->n;
	if (!c->rs->status)
		c->rs->status = 200;
	buffer_putc(out, '{');
	if (q.totals)
		buffer_printf(out, "\"Skip\":%lld,\"Top\":%lld,\"Total\":%zu", (long long)q.skip,
			      (long long)(q.top >= 0 ? q.top : (int64_t)list->n), list->n);
	buffer_json_key(out, "Items");
	buffer_putc(out, '[');
	for (size_t i = first; i < last; i++)
		put_item(c, &q, &list->at[i], i - first, entity_type);
	buffer_puts(out, "]}");
	et_query_free(&q);
	free(list->at);
}

void et_serve_tql_list(struct et_call *c)
{
	struct et_list list = {0};

	add_kind(c, &list, c->route->kind);
	et_list_reply(c, &list, ET_TQL, false);
}

void et_serve_odata_list(struct et_call *c)
{
	struct et_list list = {0};

	add_kind(c, &list, c->route->kind);
	et_list_reply(c, &list, ET_ODATA, false);
}

void et_serve_search(struct et_call *c)
{
	static const enum et_kind kinds[] = {ET_REQUIREMENT, ET_SCRIPT,	   ET_INCIDENT,
					     ET_SCRIPT_RUN,  ET_AGILE_RUN, ET_AUTOMATED_TEST_RUN};
	struct et_list list = {0};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct et_list some = {0};

		add_kind(c, &some, kinds[i]);
		for (size_t k = 0; k < some.n; k++)
			et_list_add(&list, some.at[k]);
		free(some.at);
	}
	et_list_reply(c, &list, ET_TQL, true);
}

/* Every tenth requirement is a child of the first of its ten; packages 3 and 4 lie in 1 and 2. */
static bool is_child(enum et_kind kind, int64_t id, int64_t parent)
{
	if (kind == ET_REQUIREMENT)
		return id % 10 == 0 && id - 9 == parent;
	return id > ET_PROJECTS && id - ET_PROJECTS == parent;
}

void et_serve_children(struct et_call *c)
{
	enum et_kind kind = c->route->kind;
	struct et_list all = {0}, list = {0};
	struct et_entity parent;

	if (!et_entity_by_guid(c, &c->ids[0], kind, &parent)) {
		et_error(c, 404, "The parent could not be found.");
		return;
	}
	add_kind(c, &all, kind);
	for (size_t i = 0; i < all.n; i++)
		if (is_child(kind, all.at[i].id, parent.id))
			et_list_add(&list, all.at[i]);
	free(all.at);
	et_list_reply(c, &list, ET_ODATA, false);
}

/* Of the five nodes of a run, the second and third lie in the first, the fourth in the second. */
static int64_t node_parent(struct et_call *c, int64_t id)
{
	static const int parents[ET_STEPS] = {0, 1, 1, 2, 0};
	int64_t place = (id - 1) % ET_STEPS;
	int64_t parent = parents[place] ? id - place + parents[place] - 1 : 0;

	return store_record(&c->et->emu->store->collections[ET_NODE], parent) ? parent : 0;
}

/* Bare array; -1: whatever the parent. */
static void reply_nodes(struct et_call *c, int64_t run, int64_t parent)
{
	struct buffer *out = &c->rs->body;

	c->rs->status = 200;
	buffer_putc(out, '[');
	for (int64_t id = (run - 1) * ET_STEPS + 1; id <= run * ET_STEPS; id++) {
		struct et_entity node;

		if (!et_entity_find(c, ET_NODE, id, &node) ||
		    (parent >= 0 && node_parent(c, id) != parent))
			continue;
		buffer_json_comma(out);
		et_put_entity(c, out, &node, EXPAND_NONE, false);
	}
	buffer_putc(out, ']');
}

static bool known_statuses(struct et_call *c)
{
	static const char known[] = "passed failed blocked error skipped inconclusive notrun";
	struct str wanted = et_option(c, "statuses");
	char *rest = NULL;
	bool fine = true;

	for (char *s = wanted.ptr ? strtok_r(wanted.ptr, ", ", &rest) : NULL; s;
	     s = strtok_r(NULL, ", ", &rest))
		fine = fine && strcasestr(known, s);
	str_free(&wanted);
	return fine;
}

void et_serve_nodes(struct et_call *c)
{
	struct et_entity run;

	if (!et_entity_by_guid(c, &c->ids[0], ET_AUTOMATED_TEST_RUN, &run))
		et_error(c, 404, "The automated test run could not be found.");
	else
		reply_nodes(c, run.id, et_setting(c, ET_NODES) ? -1 : 0);
}

void et_serve_node_children(struct et_call *c)
{
	struct et_entity run, node = {0};
	bool roots = strcmp(c->ids[1].ptr, ET_NIL_ID) == 0;

	if (!et_entity_by_guid(c, &c->ids[0], ET_AUTOMATED_TEST_RUN, &run) ||
	    (!roots &&
	     (!et_entity_by_guid(c, &c->ids[1], ET_NODE, &node) || et_run_of(node.id) != run.id)))
		et_error(c, 404, "The node could not be found.");
	else if (!known_statuses(c))
		et_error(c, 400, "The status filter is invalid.");
	else
		reply_nodes(c, run.id, node.id);
}
