/* SPDX-License-Identifier: MIT */
/*
 * Creating and updating documents: sections 5 to 7. Everything that can be refused is checked before
 * anything is changed, and no reply tells what became of it.
 */
#include "rillsoft.h"

#include "alloc.h"
#include "clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What an update is going to make of a document. */
struct change {
	const struct multipart_file *file; /* NULL: the bytes stay */
	const struct collection *project;
	int64_t parent; /* row of the element */
	int64_t folder;
	struct str name;	 /* borrowed */
	const char *description; /* borrowed; NULL: it stays */
};

static const json_t *field(const struct ris_call *c, const char *name)
{
	return json_object_get(c->fields, name);
}

static struct str field_text(const struct ris_call *c, const char *name)
{
	const json_t *value = field(c, name);

	return (struct str){(char *)json_string_value(value), json_string_length(value)};
}

static bool too_large(struct ris_call *c, const struct multipart_file *file)
{
	int64_t max = ris_setting(c, RIS_SET_MAX_BYTES);

	if (!max || blob_size(file->blob) <= (uint64_t)max)
		return false;
	switch ((enum ris_max_bytes_answer)ris_setting(c, RIS_SET_MAX_BYTES_ANSWER)) {
	case RIS_MAX_BYTES_400:
		ris_refuse(c, 400);
		break;
	case RIS_MAX_BYTES_413:
		ris_refuse(c, 413);
		break;
	case RIS_MAX_BYTES_CLOSE:
		c->rs->status = 413;
		c->rs->drop = true;
		break;
	}
	return true;
}

/* a body that is no multipart, or has no boundary, has no file either. */
const struct multipart_file *ris_file(struct ris_call *c)
{
	const struct multipart *m = c->rq->multipart;
	const struct multipart_file *file = multipart_file(m, "file");
	size_t n = 0;

	for (size_t i = 0; m && i < m->n_files; i++)
		n += strcmp(m->files[i].name, "file") == 0;
	if (c->rq->body_error || n != 1) {
		ris_refuse(c, c->rq->body_error == -ENOSPC ? 500 : 400);
		return NULL;
	}
	return too_large(c, file) ? NULL : file;
}

void ris_store(struct ris_call *c, struct attachment *a, const struct multipart_file *file)
{
	free(a->path);
	a->path = store_new_path("");
	store_put_blob(c->ris->emu->store, a->path, blob_ref(file->blob));
}

static bool name_fits(struct ris_call *c, const struct str *name)
{
	int64_t max = ris_setting(c, RIS_SET_NAME_MAX);

	if (name->len && (!max || utf8_count(name->ptr, name->len) <= (size_t)max))
		return true;
	ris_refuse(c, 400);
	return false;
}

static bool same_name(const struct ris_call *c, const struct attachment *a,
		      const struct change *wanted)
{
	return ris_document_alive(a) && ris_document_peek(c->ris, a)->folder == wanted->folder &&
	       str_equal(&a->name, wanted->name.ptr, wanted->name.len);
}

/* Another document of that name on the element and in the folder; most servers do not mind. */
static bool duplicate(struct ris_call *c, const struct change *wanted,
		      const struct attachment *self)
{
	const char *type = wanted->project->owner_type;
	const struct rows *rows =
		store_owned(c->ris->emu->store, type, strlen(type), wanted->parent);

	if (!ris_setting(c, RIS_SET_DUPLICATES))
		return false;
	for (size_t i = 0; rows && i < rows->n; i++) {
		const struct attachment *a = (const struct attachment *)rows->at[i];

		if (a == self || !same_name(c, a, wanted))
			continue;
		ris_refuse(c, 409);
		return true;
	}
	return false;
}

static void apply(struct ris_call *c, struct attachment *a, const struct change *wanted)
{
	const char *type = wanted->project->owner_type;
	struct ris_document *d = ris_document(c->ris, a);

	/* In this order: @wanted->name may be the old one. */
	str_set(&a->filename, wanted->name.ptr, wanted->name.len);
	str_set(&a->name, wanted->name.ptr, wanted->name.len);
	store_set_owner(c->ris->emu->store, a, type, strlen(type), &wanted->parent);
	d->folder = wanted->folder;
	if (wanted->description)
		str_set(&d->description, wanted->description, strlen(wanted->description));
	if (wanted->file)
		ris_store(c, a, wanted->file);
	a->updated_at = clock_now();
}

static void reply(struct ris_call *c, int status, const struct attachment *a)
{
	if (ris_setting(c, RIS_SET_DETAILS) != RIS_DETAILS_DOCUMENT) {
		ris_done(c, status);
		return;
	}
	ris_begin(c, status);
	ris_put_document(c, &c->rs->body, a);
	ris_end(c);
}

void ris_create(struct ris_call *c)
{
	struct store *s = c->ris->emu->store;
	struct change wanted = {
		.project = ris_project(c, c->project_id),
		.folder = c->folder_id,
		.name = field_text(c, "name"),
		.description = json_string_value(field(c, "description")),
	};
	struct attachment *a;

	if (wanted.project)
		wanted.parent = ris_uuid_row(wanted.project, c->uuid);
	if (!wanted.project || !ris_folder_exists(c, c->folder_id) ||
	    !ris_element_takes_documents(c, wanted.project, wanted.parent)) {
		ris_refuse(c, 404); /* */
		return;
	}
	wanted.file = ris_file(c);
	if (!wanted.file)
		return;
	if (!wanted.name.len)
		wanted.name = wanted.file->filename;
	if (!name_fits(c, &wanted.name) || duplicate(c, &wanted, NULL))
		return;
	a = store_add_attachment(s, "", clock_now());
	apply(c, a, &wanted);
	reply(c, ris_setting(c, RIS_SET_CREATE_STATUS) ? 200 : 201, a);
}

/* The file of an update, which may be left out if the server says so. False: it has answered. */
static bool take_file(struct ris_call *c, struct change *wanted)
{
	if (!multipart_file(c->rq->multipart, "file") &&
	    !ris_setting(c, RIS_SET_FILE_REQUIRED_ON_UPDATE))
		return true;
	wanted->file = ris_file(c);
	return wanted->file != NULL;
}

/* a replacement may take the name of the file that was sent. */
static bool take_name(struct ris_call *c, struct change *wanted, const struct attachment *a)
{
	bool cleared = ris_setting(c, RIS_SET_LEFT_OUT) != 0;

	wanted->name = field_text(c, "name");
	if (wanted->file &&
	    (ris_setting(c, RIS_SET_RENAME_ON_REPLACE) || (!wanted->name.ptr && cleared)))
		wanted->name = wanted->file->filename;
	if (!wanted->name.ptr && !cleared) {
		wanted->name = a->name;
		return true;
	}
	return name_fits(c, &wanted->name);
}

static bool take_folder(struct ris_call *c, struct change *wanted, const struct ris_document *d)
{
	const char *text = json_string_value(field(c, "folderId"));
	char *end;

	wanted->folder = ris_setting(c, RIS_SET_LEFT_OUT) ? RIS_MAIN_FOLDER : d->folder;
	if (!text)
		return true;
	wanted->folder = strtoll(text, &end, 10);
	if (*text && !*end && ris_folder_exists(c, wanted->folder))
		return true;
	ris_refuse(c, 400);
	return false;
}

/* the element may be fixed, whatever the documentation says. */
static bool take_parent(struct ris_call *c, struct change *wanted, const struct attachment *a)
{
	const char *uuid = json_string_value(field(c, "parentUuid"));

	wanted->parent = a->owner_id;
	if (!uuid && ris_setting(c, RIS_SET_LEFT_OUT))
		wanted->parent = 0;
	if (!uuid)
		return true;
	wanted->parent = ris_uuid_row(wanted->project, uuid);
	if (wanted->parent == a->owner_id)
		return true;
	if (!ris_element_takes_documents(c, wanted->project, wanted->parent)) {
		ris_refuse(c, 404); /* */
		return false;
	}
	switch ((enum ris_reparent)ris_setting(c, RIS_SET_REPARENT)) {
	case RIS_REPARENT_OBEYED:
		break;
	case RIS_REPARENT_IGNORED:
		wanted->parent = a->owner_id;
		break;
	case RIS_REPARENT_409:
		ris_refuse_for(c, 409, "The element of a document cannot be changed");
		return false;
	}
	return true;
}

static void take_description(struct ris_call *c, struct change *wanted)
{
	wanted->description = json_string_value(field(c, "description"));
	if (!wanted->description && ris_setting(c, RIS_SET_LEFT_OUT))
		wanted->description = "";
}

static void keep_version(struct ris_document *d, const char *path)
{
	d->versions = xrealloc(d->versions, (d->n_versions + 1) * sizeof(*d->versions));
	d->versions[d->n_versions++] = xstrdup(path);
}

/* A server whose documents are revisions: the update is a new document, the old one is deleted. */
static struct attachment *renew(struct ris_call *c, struct attachment *a)
{
	struct store *s = c->ris->emu->store;
	struct attachment *fresh = store_add_attachment(s, a->path, a->created_at);
	struct ris_document *from = ris_document(c->ris, a);
	struct ris_document *to = ris_document(c->ris, fresh);

	str_set(&to->description, from->description.ptr, from->description.len);
	to->versions = from->versions;
	to->n_versions = from->n_versions;
	from->versions = NULL;
	from->n_versions = 0;
	a->deleted_at = clock_now();
	return fresh;
}

static bool says_something(const struct ris_call *c)
{
	return field(c, "folderId") || field(c, "parentUuid") || field(c, "name") ||
	       field(c, "description") || multipart_file(c->rq->multipart, "file");
}

void ris_update(struct ris_call *c)
{
	static const int locked[] = {0, 423, 409};
	struct attachment *a = ris_document_called(c);
	struct change wanted = {.project = ris_project(c, c->project_id)};

	if (!a)
		return;
	if (ris_setting(c, RIS_SET_LOCKED)) {
		ris_refuse(c, locked[ris_setting(c, RIS_SET_LOCKED)]);
		return;
	}
	if (!says_something(c)) {
		ris_refuse(c, 400);
		return;
	}
	take_description(c, &wanted);
	if (!take_file(c, &wanted) || !take_folder(c, &wanted, ris_document(c->ris, a)) ||
	    !take_parent(c, &wanted, a) || !take_name(c, &wanted, a) || duplicate(c, &wanted, a))
		return;
	if (wanted.file)
		keep_version(ris_document(c->ris, a), a->path);
	if (ris_setting(c, RIS_SET_UPDATE_ID))
		a = renew(c, a);
	apply(c, a, &wanted);
	reply(c, ris_setting(c, RIS_SET_UPDATE_STATUS) ? 200 : 201, a);
}
