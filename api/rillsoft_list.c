/* SPDX-License-Identifier: MIT */

/*
 * What is made of a listing: trees, records, change. A listing names its project's documents and no
 * elements: those are the ones documents hang on. The flat collection is made of an option,
 * without the network.
 */

#include "rillsoft.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/pool.h>

#include "json.h"

struct list {
	struct rillsoft *ris;
	char project[RILLSOFT_ID_SIZE];
	char record[REMOTE_ID_MAX + 1]; /* "" = the whole project */
	struct remote_sink sink;
	struct rillsoft_wait wait;
};

/* Rows on their way to the sink. */
struct page {
	struct remote_record *records;
	size_t n_records;
	struct remote_file *files;
	size_t n_files;
};

static void page_clear(struct page *p)
{
	for (size_t i = 0; i < p->n_records; i++)
		remote_record_clear(&p->records[i]);
	for (size_t i = 0; i < p->n_files; i++)
		remote_file_clear(&p->files[i]);
	free(p->records);
	free(p->files);
}

static int compare_parents(const void *a, const void *b)
{
	const struct rillsoft_doc *const *x = a, *const *y = b;

	return strcmp((*x)->parent, (*y)->parent);
}

static const char *element_name(const struct rillsoft_doc *doc)
{
	if (strcmp(doc->parent, RILLSOFT_NO_ELEMENT) == 0)
		return "(no element)";
	return *doc->element != '\0' ? doc->element : doc->parent;
}

static bool add_record(struct page *page, const struct rillsoft_doc *doc)
{
	struct remote_record *r = &page->records[page->n_records++];

	*r = (struct remote_record){strdup(doc->parent), strdup(element_name(doc)),
				    REMOTE_TIME_NONE, REMOTE_TIME_NONE};
	return r->id && r->name;
}

/* The elements of @docs, which are sorted by them. */
static bool add_records(struct page *page, const struct rillsoft_doc **docs, size_t n)
{
	page->records = calloc(n + 1, sizeof(*page->records));
	if (!page->records)
		return false;
	for (size_t i = 0; i < n; i++) {
		const struct rillsoft_doc *named = docs[i];
		size_t end = i;
		for (; end < n && strcmp(docs[end]->parent, docs[i]->parent) == 0; end++)
			if (*named->element == '\0')
				named = docs[end];
		if (!add_record(page, named))
			return false;
		i = end - 1;
	}
	return true;
}

static int fill_page(struct list *list, const struct rillsoft_listing *l, struct page *page)
{
	const struct rillsoft_doc **docs = calloc(l->n + 1, sizeof(struct rillsoft_doc *));
	size_t n = 0;

	page->files = calloc(l->n + 1, sizeof(*page->files));
	bool ok = docs && page->files;
	for (size_t i = 0; ok && i < l->n; i++)
		if (strcmp(l->docs[i].project, list->project) == 0 &&
		    (list->record[0] == '\0' || strcmp(l->docs[i].parent, list->record) == 0))
			docs[n++] = &l->docs[i];
	for (; ok && page->n_files < n; page->n_files += ok)
		ok = rillsoft_make_file(docs[page->n_files], &page->files[page->n_files]);
	if (ok && list->record[0] == '\0') {
		if (n > 1)
			qsort(docs, n, sizeof(struct rillsoft_doc *), compare_parents);
		ok = add_records(page, docs, n);
	}
	free(docs);
	return ok ? 0 : -ENOMEM;
}

static void list_end(struct list *list, int error, struct page *page, const char *message)
{
	struct remote_sink sink = list->sink;

	if (error == 0 &&
	    !sink.page(sink.ctx, page->records, page->n_records, page->files, page->n_files))
		error = -ECANCELED;
	page_clear(page);
	free(list);
	sink.done(sink.ctx, error, message);
}

static void on_list(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct list *list = ctx;
	struct page page = {0};

	if (error == 0)
		error = fill_page(list, l, &page);
	list_end(list, error, &page, error < 0 ? message : "");
}

/* The flat collection: the files the option names, under the one record it has. */
static void list_attachments(void *ctx)
{
	struct list *list = ctx;
	struct rillsoft *ris = list->ris;
	struct page page = {.records = calloc(1, sizeof(struct remote_record)),
			    .files = calloc(ris->n_attachments + 1, sizeof(struct remote_file))};
	bool ok = page.records && page.files;

	if (ok && list->record[0] == '\0') {
		page.n_records = 1;
		page.records[0] = (struct remote_record){strdup(RILLSOFT_ATTACHMENTS),
							 strdup(RILLSOFT_ATTACHMENTS),
							 REMOTE_TIME_NONE, REMOTE_TIME_NONE};
		ok = page.records[0].id && page.records[0].name;
	}
	for (; ok && page.n_files < ris->n_attachments; page.n_files += ok)
		ok = rillsoft_make_attachment(ris->attachments[page.n_files],
					      &page.files[page.n_files]);
	list_end(list, ok ? 0 : -ENOMEM, &page, "");
}

static int list_start(struct remote *r, enum transfer_class class, const char *collection,
		      const char *record, const struct remote_sink *sink)
{
	struct rillsoft *ris = (struct rillsoft *)r;
	bool flat = rillsoft_is_attachments(collection);

	if (!flat && !json_is_id(collection))
		return -EINVAL;
	struct list *list = calloc(1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	list->ris = ris;
	list->sink = *sink;
	snprintf(list->record, sizeof(list->record), "%s", record);
	int error = flat ? pool_run(r->pool, list_attachments, list) : 0;
	if (error < 0)
		free(list);
	if (flat)
		return error;
	snprintf(list->project, sizeof(list->project), "%s", collection);
	rillsoft_want(ris, &list->wait, class, collection,
		      *record == '\0' ? RILLSOFT_TREE : RILLSOFT_FRESH, on_list, list);
	return 0;
}

int rillsoft_list_tree(struct remote *r, enum transfer_class class, const char *collection,
		       const struct remote_sink *sink)
{
	return list_start(r, class, collection, "", sink);
}

int rillsoft_list_record(struct remote *r, enum transfer_class class, const char *collection,
			 const char *record, const struct remote_sink *sink)
{
	bool known = json_is_uuid(record) || strcmp(record, RILLSOFT_NO_ELEMENT) == 0 ||
		     strcmp(record, RILLSOFT_ATTACHMENTS) == 0;

	return known ? list_start(r, class, collection, record, sink) : -EINVAL;
}

struct polling {
	struct rillsoft *ris;
	remote_poll_done *done;
	void *ctx;
	char project[RILLSOFT_ID_SIZE];
	char cursor[64]; /* "" = none yet */
	struct rillsoft_wait wait;
};

/* The cursor is "1;<hash of the listing>": to see whether it changed all of it is needed anyway. */
static void on_poll(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct polling *poll = ctx;
	char cursor[64] = "1";

	(void)message;
	if (error == 0 && l)
		snprintf(cursor, sizeof(cursor), "1;%016" PRIx64,
			 rillsoft_hash_listing(l, poll->project));
	bool changed = error == 0 && strcmp(cursor, poll->cursor) != 0;
	if (changed && l)
		rillsoft_offer(poll->ris, l, poll->project);
	poll->done(poll->ctx, error, changed, error == 0 ? cursor : NULL);
	free(poll);
}

static void poll_attachments(void *ctx)
{
	on_poll(ctx, 0, NULL, "");
}

int rillsoft_poll(struct remote *r, const char *collection, const char *cursor,
		  remote_poll_done *done, void *ctx)
{
	bool flat = rillsoft_is_attachments(collection);

	if (!flat && !json_is_id(collection))
		return -EINVAL;
	struct polling *poll = calloc(1, sizeof(*poll));
	if (!poll)
		return -ENOMEM;
	poll->ris = (struct rillsoft *)r;
	poll->done = done;
	poll->ctx = ctx;
	snprintf(poll->cursor, sizeof(poll->cursor), "%s", cursor ? cursor : "");
	snprintf(poll->project, sizeof(poll->project), "%s", flat ? "" : collection);
	if (!flat) {
		rillsoft_want(poll->ris, &poll->wait, TRANSFER_REFRESH, collection, RILLSOFT_POLL,
			      on_poll, poll);
		return 0;
	}
	int error = pool_run(r->pool, poll_attachments, poll);
	if (error < 0)
		free(poll);
	return error;
}

struct record_text {
	remote_text_done *done;
	void *ctx;
	char project[RILLSOFT_ID_SIZE], record[RILLSOFT_UUID_SIZE];
	struct rillsoft_wait wait;
};

static char *format_element(const struct rillsoft_doc *doc)
{
	json_t *json = json_pack("{s:s, s:s, s:s}", "uuid", doc->parent, "elementName",
				 doc->element, "projectId", doc->project);
	char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL, *line = NULL;

	if (!text || asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	json_decref(json);
	return line;
}

static void on_record(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct record_text *op = ctx;
	const struct rillsoft_doc *doc = l ? rillsoft_find_of(l, op->project, op->record) : NULL;
	char *line = doc ? format_element(doc) : NULL;

	if (error == 0 && !line)
		error = doc ? -ENOMEM : -ENOENT;
	op->done(op->ctx, error, line, line ? strlen(line) : 0, message);
	free(line);
	free(op);
}

int rillsoft_record_json(struct remote *r, const char *collection, const char *record,
			 remote_text_done *done, void *ctx)
{
	if (!json_is_id(collection) || !json_is_uuid(record))
		return -EINVAL;
	struct record_text *op = calloc(1, sizeof(*op));
	if (!op)
		return -ENOMEM;
	op->done = done;
	op->ctx = ctx;
	snprintf(op->project, sizeof(op->project), "%s", collection);
	snprintf(op->record, sizeof(op->record), "%s", record);
	rillsoft_want((struct rillsoft *)r, &op->wait, TRANSFER_INTERACTIVE, collection,
		      RILLSOFT_KNOWN, on_record, op);
	return 0;
}
