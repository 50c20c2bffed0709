/* SPDX-License-Identifier: MIT */
/* POST .../attachments: sections 5 and 6. Each file of the request is a new file or a new version. */
#include "servicemax.h"

#include "alloc.h"
#include "form.h"
#include "populate.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What was added or updated, each once: S-15 makes two versions of one file. */
struct done {
	int64_t *ids;
	size_t n;
};

static void note(struct done *done, const struct attachment *a)
{
	for (size_t i = 0; i < done->n; i++)
		if (done->ids[i] == a->row.id)
			return;
	done->ids = xrealloc(done->ids, (done->n + 1) * sizeof(*done->ids));
	done->ids[done->n++] = a->row.id;
}

static bool has_extension(const struct str *name, const char *extension)
{
	size_t len = strlen(extension);

	return name->len > len && strcasecmp(name->ptr + name->len - len, extension) == 0;
}

/* Size limit, empty files, extension rules: all unknown. */
static bool check_file(struct sm_call *c, const struct multipart_file *file)
{
	int64_t max = sm_set(c, SM_MAX_BYTES);
	uint64_t size = blob_size(file->blob);

	if (max && size > (uint64_t)max)
		sm_error(c, sm_set(c, SM_MAX_BYTES_STATUS) == 0 ? 413 : 400,
			 "The file is too large");
	else if (!size && sm_set(c, SM_EMPTY_FILES))
		sm_error(c, 400, "The file is empty");
	else if (sm_set(c, SM_EXTENSION_RULE) && has_extension(&file->filename, ".exe"))
		sm_error(c, 400, "Files with this extension are not allowed");
	else
		return true;
	return false;
}

static bool check_files(struct sm_call *c)
{
	const struct multipart *m = c->rq->multipart;

	if (c->rq->body_error) {
		sm_error(c, 500, "Internal Server error");
		return false;
	}
	if (!m || !m->n_files) {
		sm_error(c, 400, "The multipart document is invalid or has no file");
		return false;
	}
	for (size_t i = 0; i < m->n_files; i++)
		if (!check_file(c, &m->files[i]))
			return false;
	return true;
}

/* Names are UTF-8 here, whatever was sent. */
static struct str clean_name(const struct multipart_file *file)
{
	json_t *text = form_string(file->filename.ptr, file->filename.len);
	struct str name = str_dup(json_string_value(text), json_string_length(text));

	json_decref(text);
	return name;
}

static void set_name(struct attachment *a, const struct str *name)
{
	str_set(&a->name, name->ptr, name->len);
	str_set(&a->filename, name->ptr, name->len);
}

static struct attachment *create(struct sm_call *c, const struct str *name, struct blob *blob)
{
	char *path = store_new_path("");
	struct attachment *a = populate_attachment(c->sm->emu, c->record, name->ptr, path, blob,
						   sm_now_ms() / 1000);

	free(path);
	set_name(a, name);
	sm_version_begin(c->sm, a);
	return a;
}

/* That the uuid stays is assumed. */
static struct attachment *replace(struct sm_call *c, struct attachment *a,
				  const struct multipart_file *file)
{
	if (sm_set(c, SM_REPLACE_UUID) != 0)
		a = sm_version_renew(c->sm, a);
	sm_version_add(c->sm, a, blob_ref(file->blob));
	return a;
}

/* A name the record has gets a new version instead of an error. */
static struct attachment *put_file(struct sm_call *c, const struct multipart_file *file)
{
	struct str name = clean_name(file);
	struct attachment *a = sm_attachment_named(c->sm->emu, c->record, name.ptr, name.len);

	if (a)
		a = replace(c, a, file);
	else
		a = create(c, &name, blob_ref(file->blob));
	str_free(&name);
	return a;
}

static void put_files(struct sm_call *c, struct done *done)
{
	const struct multipart *m = c->rq->multipart;

	for (size_t i = 0; i < m->n_files; i++)
		note(done, put_file(c, &m->files[i]));
}

static struct attachment *named_document(struct sm_call *c, const struct str *id)
{
	struct attachment *a = sm_attachment_of(c->sm->emu, id->ptr, id->len);
	struct uuid uuid;

	if (!sm_uuid_parse(id->ptr, id->len, &uuid)) {
		sm_error(c, 400, "The document_id parameter is not a valid UUID");
		return NULL;
	}
	if (a && store_owner_record(c->sm->emu->store, a) == c->record)
		return a;
	sm_error(c, 404, "The document was not found (or user has no permission to access it)");
	return NULL;
}

/* With document_id: whether the name follows the part's filename is unknown. */
static bool put_version(struct sm_call *c, const struct str *id, struct done *done)
{
	const struct multipart_file *file = c->rq->multipart->files;
	struct attachment *a = named_document(c, id);
	struct attachment *holder;
	struct str name;

	if (!a)
		return false;
	if (c->rq->multipart->n_files != 1) {
		sm_error(c, 400, "Exactly one file is expected together with document_id");
		return false;
	}
	name = clean_name(file);
	holder = sm_attachment_named(c->sm->emu, c->record, name.ptr, name.len);
	if (sm_set(c, SM_RENAME_BY_DOCUMENT_ID) == 0 && holder && holder != a) {
		sm_error(c, 400, "Another attachment has this name");
		str_free(&name);
		return false;
	}
	a = replace(c, a, file);
	if (sm_set(c, SM_RENAME_BY_DOCUMENT_ID) == 0)
		set_name(a, &name);
	str_free(&name);
	note(done, a);
	return true;
}

/* 200, not 201 (S-16). */
static void reply(struct sm_call *c, const struct done *done)
{
	struct buffer *out = &c->rs->body;
	int64_t form = sm_set(c, SM_POST_REPLY);

	sm_reply_json(c, 200);
	if (form == REPLY_ALL) {
		sm_put_attachments(c, out, c->record);
		return;
	}
	buffer_putc(out, '[');
	for (size_t i = 0; i < done->n; i++) {
		int64_t id = done->ids[form == REPLY_REVERSED ? done->n - 1 - i : i];
		const struct attachment *a = store_attachment(c->sm->emu->store, id);

		if (a && out->len > 1)
			buffer_putc(out, ',');
		if (a) /* a later file of the request may have renewed it */
			sm_put_attachment(c, out, a);
	}
	buffer_putc(out, ']');
}

void sm_upload(struct sm_call *c)
{
	struct str document = request_query(c->rq, "document_id");
	struct done done = {0};
	bool fine = check_files(c);

	if (fine && document.ptr)
		fine = put_version(c, &document, &done);
	else if (fine)
		put_files(c, &done);
	if (fine) {
		sm_touch(c);
		reply(c, &done);
	}
	free(done.ids);
	str_free(&document);
}
