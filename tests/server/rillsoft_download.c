/* SPDX-License-Identifier: MIT */
/*
 * Bytes: section 4. A download may come from the api port, from the blob port after a redirect, or
 * turn out to be metadata; old versions have paths only if a toggle gives them some.
 */
#include "rillsoft.h"

#include "range.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *guessed_type(const char *name)
{
	static const struct {
		const char *extension;
		const char *type;
	} types[] = {
		{".txt", "text/plain"}, {".pdf", "application/pdf"},   {".png", "image/png"},
		{".jpg", "image/jpeg"}, {".json", "application/json"}, {".zip", "application/zip"},
	};
	const char *dot = name ? strrchr(name, '.') : NULL;

	for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
		if (strcasecmp(types[i].extension, dot) == 0)
			return types[i].type;
	return "application/octet-stream";
}

static const char *media_type(const struct emulator *emu, const char *name)
{
	switch ((enum ris_download_type)emu->settings.values[RIS_SET_DOWNLOAD_TYPE]) {
	case RIS_TYPE_OCTETS:
		break;
	case RIS_TYPE_GUESSED:
		return guessed_type(name);
	case RIS_TYPE_ABSENT:
		return NULL;
	}
	return "application/octet-stream";
}

/* RFC 6266: the plain form for old clients, the extended one for all others. */
static void put_disposition(struct response *rs, const char *name)
{
	struct buffer plain = {0};
	struct buffer extended = {0};

	for (const char *s = name ? name : ""; *s; s++) {
		unsigned char byte = (unsigned char)*s;

		buffer_putc(&plain, byte < 32 || byte > 126 || strchr("\"\\", *s) ? '_' : *s);
		if ((byte < 128 && isalnum(byte)) || strchr("-._", *s))
			buffer_putc(&extended, *s);
		else
			buffer_printf(&extended, "%%%02X", byte);
	}
	response_header(rs, "Content-Disposition",
			"attachment; filename=\"%s\"; filename*=UTF-8''%s",
			plain.data ? plain.data : "", extended.data ? extended.data : "");
	buffer_free(&plain);
	buffer_free(&extended);
}

/* Takes the reference to @blob. */
static void serve(struct request *rq, struct response *rs, const char *name, const char *path,
		  struct blob *blob)
{
	const int64_t *values = rq->emu->settings.values;
	struct range_options options = {
		.content_type = media_type(rq->emu, name),
		.modified_at = -1,
		.ignored = values[RIS_SET_RANGE] != 0,
	};
	char etag[32];

	snprintf(etag, sizeof(etag), "\"%016" PRIx64 "\"", hash_bytes(path, strlen(path), 7));
	if (values[RIS_SET_VALIDATORS]) {
		options.etag = etag;
		options.modified_at = blob_made_at(blob);
	}
	range_serve(rq, rs, blob, &options);
	if (rs->blob && values[RIS_SET_DISPOSITION])
		put_disposition(rs, name);
}

void ris_serve_bytes(struct ris_call *c, const struct str *name, const char *path)
{
	struct blob *blob = store_get_blob(c->ris->emu->store, path);

	if (!blob) {
		ris_refuse(c, 404);
		return;
	}
	serve(c->rq, c->rs, name->ptr, path, blob);
	if (c->rs->status >= 400)
		ris_refuse(c, c->rs->status);
	else
		c->typed = true;
}

static void redirect(struct ris_call *c, const struct attachment *a)
{
	c->rs->status = 302;
	c->typed = true;
	response_header(c->rs, "Location", "%s/files/%lld/%s", c->ris->emu->blob_url,
			(long long)a->row.id, a->path);
}

void ris_download(struct ris_call *c)
{
	struct attachment *a = ris_document_called(c);

	if (!a)
		return;
	switch ((enum ris_download)ris_setting(c, RIS_SET_DOWNLOAD)) {
	case RIS_DOWNLOAD_BYTES:
		ris_serve_bytes(c, &a->name, a->path);
		break;
	case RIS_DOWNLOAD_JSON:
		ris_begin(c, 200);
		ris_put_document(c, &c->rs->body, a);
		ris_end(c);
		break;
	case RIS_DOWNLOAD_REDIRECT:
		redirect(c, a);
		break;
	}
}

void ris_versions(struct ris_call *c)
{
	const struct attachment *a = ris_document_called(c);
	const struct ris_document *d = a ? ris_document_peek(c->ris, a) : NULL;
	struct buffer *out = &c->rs->body;

	if (!d)
		return;
	ris_begin(c, 200);
	buffer_putc(out, '[');
	for (size_t i = 0; i < d->n_versions; i++) {
		struct blob *blob = store_get_blob(c->ris->emu->store, d->versions[i]);

		buffer_json_comma(out);
		buffer_putc(out, '{');
		ris_put_number(out, "version", (int64_t)i + 1);
		ris_put_number(out, "fileSize", blob ? (int64_t)blob_size(blob) : 0);
		buffer_putc(out, '}');
		blob_unref(blob);
	}
	buffer_putc(out, ']');
	ris_end(c);
}

void ris_version(struct ris_call *c)
{
	const struct attachment *a = ris_document_called(c);
	const struct ris_document *d = a ? ris_document_peek(c->ris, a) : NULL;

	if (!d)
		return;
	if (c->version < 1 || (size_t)c->version > d->n_versions)
		ris_refuse(c, 404);
	else
		ris_serve_bytes(c, &a->name, d->versions[c->version - 1]);
}

/* "/files/<store id>/<storage key>": whoever has the address may read, and no token belongs here. */
void rillsoft_serve_blob(struct request *rq, struct response *rs)
{
	static const char prefix[] = "/files/";
	const struct store *s = rq->emu->store;
	const struct attachment *a = NULL;
	struct blob *blob = NULL;
	char *key = NULL;

	if (strncmp(rq->path, prefix, strlen(prefix)) == 0) {
		a = store_attachment(s, strtoll(rq->path + strlen(prefix), &key, 10));
		blob = a && *key == '/' ? store_get_blob(s, key + 1) : NULL;
	}
	if (request_header(rq, "Authorization")) {
		rs->status = 400;
		blob_unref(blob);
	} else if (strcmp(rq->method, "GET") != 0 && strcmp(rq->method, "HEAD") != 0) {
		rs->status = 405;
		blob_unref(blob);
	} else if (!blob) {
		rs->status = 404;
	} else {
		serve(rq, rs, a->name.ptr, key + 1, blob);
	}
}
