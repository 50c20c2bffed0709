/* SPDX-License-Identifier: MIT */
/*
 * DMS documents: the list of section 3, the soft delete of section 8, and what a document has beyond
 * the store's attachment.
 *
 * The list has no pages, no modified time, no hash and no media type. It shows what is active: neither
 * deleted documents nor those of an element that is gone; elements without any do not appear
 * (R-17).
 */
#include "rillsoft.h"

#include "alloc.h"
#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ris_document *ris_document(struct rillsoft *ris, const struct attachment *a)
{
	struct ris_document *d = table_get(&ris->documents, &a->row.id, sizeof(a->row.id));

	if (!d) {
		d = xzalloc(sizeof(*d));
		d->folder = RIS_MAIN_FOLDER;
		d->description = str_dup("", 0);
		table_put(&ris->documents, &a->row.id, sizeof(a->row.id), d);
	}
	return d;
}

const struct ris_document *ris_document_peek(const struct rillsoft *ris, const struct attachment *a)
{
	static char nothing[] = "";
	static const struct ris_document untouched = {
		.folder = RIS_MAIN_FOLDER,
		.description = {nothing, 0},
	};
	const struct ris_document *d = table_get(&ris->documents, &a->row.id, sizeof(a->row.id));

	return d ? d : &untouched;
}

void ris_document_close(struct rillsoft *ris)
{
	struct ris_document *d;
	size_t pos = 0;

	while ((d = table_next(&ris->documents, &pos))) {
		for (size_t i = 0; i < d->n_versions; i++)
			free(d->versions[i]);
		free(d->versions);
		str_free(&d->description);
		free(d);
	}
	table_free(&ris->documents);
}

bool ris_document_alive(const struct attachment *a)
{
	return !a->deleted_at;
}

void rillsoft_attachment_id(const struct attachment *a, char id[REMOTE_ID_SIZE])
{
	if (str_equal(&a->owner_type, RIS_ATTACHMENTS, strlen(RIS_ATTACHMENTS)))
		snprintf(id, REMOTE_ID_SIZE, "%s", a->name.ptr);
	else
		snprintf(id, REMOTE_ID_SIZE, "%lld", (long long)(RIS_DOCUMENT_ID_BASE + a->row.id));
}

/* A document has one name only; and what changes an element is a save of its project. */
void rillsoft_changed(struct emulator *emu, enum change_kind kind, int64_t id)
{
	struct rillsoft *ris = emu->state;
	struct attachment *a = id ? store_attachment(emu->store, id) : NULL;

	(void)kind;
	if (!id)
		ris->saves++;
	if (a)
		str_set(&a->filename, a->name.ptr, a->name.len);
}

/* The project a document is in; NULL for what is no document. */
static struct collection *project_of(const struct ris_call *c, const struct attachment *a)
{
	struct store *s = c->ris->emu->store;
	struct collection *p = NULL;

	if (a->owner_type.ptr && a->has_owner_id)
		p = store_collection_of_type(s, a->owner_type.ptr, a->owner_type.len);
	return p && p != &s->collections[0] ? p : NULL;
}

struct attachment *ris_document_called(struct ris_call *c)
{
	const struct store *s = c->ris->emu->store;
	struct attachment *a = store_attachment(s, c->document_id - RIS_DOCUMENT_ID_BASE);
	const struct collection *p = a && ris_document_alive(a) ? project_of(c, a) : NULL;

	if (p && (c->project_id == RIS_ANY_PROJECT || ris_project(c, c->project_id) == p))
		return a;
	ris_refuse(c, 404);
	return NULL;
}

static void put_element(struct buffer *out, const char *uuid_key, const struct collection *p,
			const struct record *element)
{
	char uuid[RIS_UUID_SIZE];

	ris_uuid(p, element ? element->row.id : 0, uuid);
	ris_put_text(out, uuid_key, uuid);
	buffer_json_key(out, "elementName");
	if (element)
		ris_put_string(out, element->name.ptr, element->name.len);
	else
		ris_put_string(out, p->name, strlen(p->name));
}

static void put_size(const struct ris_call *c, struct buffer *out, const char *key,
		     const struct attachment *a)
{
	struct blob *blob = store_get_blob(c->ris->emu->store, a->path);

	ris_put_number(out, key, blob ? (int64_t)blob_size(blob) : 0);
	blob_unref(blob);
}

/* An empty one may be null or missing. */
static void put_description(const struct ris_call *c, struct buffer *out, const struct str *text)
{
	enum ris_description form = (enum ris_description)ris_setting(c, RIS_SET_DESCRIPTION);

	if (!text->len && form == RIS_DESCRIPTION_ABSENT)
		return;
	ris_put_text(out, "description",
		     text->len || form == RIS_DESCRIPTION_TEXT ? text->ptr : NULL);
}

static void put_document(struct ris_call *c, struct buffer *out, const struct attachment *a,
			 const struct collection *p, const struct record *element)
{
	const struct ris_document *d = ris_document_peek(c->ris, a);
	int64_t folder = ris_folder_seen(c, d->folder);
	bool renamed = ris_setting(c, RIS_SET_NAMES) != 0;

	buffer_putc(out, '{');
	ris_put_number(out, renamed ? "documentId" : "id", RIS_DOCUMENT_ID_BASE + a->row.id);
	ris_put_number(out, "projectId", ris_project_id(c->ris->emu->store, p));
	put_element(out, renamed ? "uuid" : "parentUuid", p, element);
	ris_put_number(out, "folderId", folder);
	ris_put_folder_path(out, "folderPath", folder);
	buffer_json_key(out, "name");
	ris_put_string(out, a->name.ptr ? a->name.ptr : "", a->name.len);
	put_description(c, out, &d->description);
	put_size(c, out, renamed ? "size" : "fileSize", a);
	ris_put_time(c, out, "createdAt",
		     ris_setting(c, RIS_SET_CREATED_ON_UPDATE) ? a->updated_at : a->created_at);
	ris_put_text(out, "createdUserName", "a.byron");
	buffer_putc(out, '}');
}

void ris_put_document(struct ris_call *c, struct buffer *out, const struct attachment *a)
{
	put_document(c, out, a, project_of(c, a), store_owner_record(c->ris->emu->store, a));
}

/* Whether "41" or one of "41,42" is @id. */
static bool names_project(const char *list, int64_t id)
{
	while (*list) {
		char *end;

		if (strtoll(list, &end, 10) == id && end != list)
			return true;
		list += strcspn(list, ",");
		list += *list == ',';
	}
	return false;
}

static void list_documents(struct ris_call *c, const char *wanted)
{
	struct store *s = c->ris->emu->store;
	struct buffer *out = &c->rs->body;

	ris_begin(c, 200);
	buffer_putc(out, '[');
	for (size_t i = 0; i < s->attachments.n; i++) {
		const struct attachment *a = (const struct attachment *)s->attachments.at[i];
		const struct collection *p = ris_document_alive(a) ? project_of(c, a) : NULL;
		const struct record *element;

		if (!p || (wanted && !names_project(wanted, ris_project_id(s, p))))
			continue;
		element = a->owner_id ? store_record(p, a->owner_id) : NULL;
		if (a->owner_id && !element)
			continue;
		buffer_json_comma(out);
		put_document(c, out, a, p, element);
	}
	buffer_putc(out, ']');
	ris_end(c);
}

/* "For the specified client projects": how they are specified is unknown. */
void ris_documents(struct ris_call *c)
{
	static const char *const names[] = {"project_id", "projectId", "projectIds", "projects"};
	enum ris_selector selector = (enum ris_selector)ris_setting(c, RIS_SET_SELECTOR);
	struct str wanted = request_query(c->rq, names[ris_setting(c, RIS_SET_SELECTOR_NAME)]);

	if (selector == RIS_SELECTOR_REQUIRED && !wanted.ptr)
		ris_refuse(c, 400);
	else
		list_documents(c, selector == RIS_SELECTOR_IGNORED ? NULL : wanted.ptr);
	str_free(&wanted);
}

/* Soft: the row stays, with its bytes, and its id is never given out again. */
void ris_delete(struct ris_call *c)
{
	static const int statuses[] = {200, 202, 204};
	static const int locked[] = {0, 423, 409};
	int status = statuses[ris_setting(c, RIS_SET_DELETE_STATUS)];
	struct attachment *a = ris_document_called(c);

	if (!a)
		return;
	if (ris_setting(c, RIS_SET_LOCKED)) {
		ris_refuse(c, locked[ris_setting(c, RIS_SET_LOCKED)]);
		return;
	}
	a->deleted_at = clock_now();
	if (status == 204)
		c->rs->status = status;
	else
		ris_done(c, status);
}
