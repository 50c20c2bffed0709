/* SPDX-License-Identifier: MIT */
/* Uploads: section 5. Sizes are those of the bytes that came (E-3); every upload is a new attachment. */
#include "enterprise_tester.h"

#include "alloc.h"
#include "clock.h"

#include <stdlib.h>
#include <string.h>

/* What a server that reads headers byte by byte makes of UTF-8. */
static struct str from_latin_1(const char *s, size_t len)
{
	char *out = xmalloc(2 * len + 1);
	size_t used = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char byte = (unsigned char)s[i];

		if (byte >= 0x80)
			out[used++] = (char)(0xc0 | byte >> 6);
		out[used++] = (char)(byte >= 0x80 ? 0x80 | (byte & 0x3f) : byte);
	}
	out[used] = '\0';
	return (struct str){out, used};
}

static void set_name(const struct et_call *c, struct str *column, const char *s, size_t len)
{
	str_free(column);
	*column = et_setting(c, ET_HEADER_CHARSET) ? from_latin_1(s, len) : str_dup(s, len);
}

static bool is_refused(const struct et_call *c, const struct multipart_file *file)
{
	int64_t max = et_setting(c, ET_PART_MAX);

	if (max && blob_size(file->blob) > (uint64_t)max)
		return true;
	return et_setting(c, ET_BAD_NAMES) && strpbrk(file->filename.ptr, "<>:\"/\\|?*");
}

static size_t count_refused(const struct et_call *c, const struct multipart *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_files; i++)
		n += is_refused(c, &m->files[i]);
	return n;
}

/* A part without `name` is called like its file. */
static struct attachment *add(struct et_call *c, const struct record *r,
			      const struct multipart_file *file)
{
	struct store *s = c->et->emu->store;
	const char *owner_type = r->collection->owner_type;
	char *path = store_new_path(store_guess_extension(file->blob));
	struct attachment *a = store_add_attachment(s, path, clock_now());
	bool named = file->name[0] != '\0';

	set_name(c, &a->name, named ? file->name : file->filename.ptr,
		 named ? strlen(file->name) : file->filename.len);
	set_name(c, &a->filename, file->filename.ptr, file->filename.len);
	store_set_owner(s, a, owner_type, strlen(owner_type), &r->row.id);
	store_put_blob(s, path, blob_ref(file->blob));
	if (file->type && *file->type)
		et_remember_type(c->et, a, file->type, strlen(file->type));
	free(path);
	return a;
}

static void add_all(struct et_call *c, struct record *r, const struct multipart *m)
{
	struct buffer *out = &c->rs->body;
	size_t index = 0;

	c->rs->status = 201;
	buffer_putc(out, '['); /* E-9 */
	for (size_t i = 0; i < m->n_files; i++) {
		if (is_refused(c, &m->files[i]))
			continue;
		buffer_json_comma(out);
		et_put_attachment(c, out, add(c, r, &m->files[i]), index++);
	}
	buffer_putc(out, ']');
	et_touched(c->et->emu, r);
}

void et_serve_upload(struct et_call *c)
{
	const struct multipart *m = c->rq->multipart;
	struct record *r = et_owner(c);
	size_t refused;

	if (!r) {
		et_error(c, et_setting(c, ET_UPLOAD_NO_OWNER) ? 403 : 404,
			 "The owner of the attachments could not be found.");
		return;
	}
	if (!m) {
		et_error(c, 415, "The request must be MIME multipart.");
		return;
	}
	if (c->rq->body_error) {
		et_error(c, 400, "The request body could not be read.");
		return;
	}
	if (!m->n_files) { /* E-11 */
		et_error(c, 403, "There were no files in the request.");
		return;
	}
	refused = count_refused(c, m);
	if (refused == m->n_files || (refused && !et_setting(c, ET_PARTIAL_UPLOAD)))
		et_error(c, 403, "Validation failed: a file of the request is not acceptable.");
	else
		add_all(c, r, m);
}
