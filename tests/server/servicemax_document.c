/* SPDX-License-Identifier: MIT */
/*
 * Bytes: section 4, all of it assumed or unknown but the link. `/document/<uuid>/latest` answers them
 * itself or sends to `/store/<uuid>/<version>`, here or on the blob port. That port serves both paths
 * to anybody, as hosts of signed links do; whether a token went there is in the request log.
 */
#include "servicemax.h"

#include "range.h"

#include <stdio.h>
#include <string.h>

static void serve_bytes(struct sm_call *c, const struct attachment *a, const char *path)
{
	struct blob *blob = store_get_blob(c->sm->emu->store, path);
	struct uuid version = sm_uuid_of_path(path);
	struct range_options options = {.ignored = sm_set(c, SM_RANGE) != 0,
					.content_type = sm_media_type(a)};
	char uuid[UUID_SIZE], etag[UUID_SIZE + 2];

	if (!blob) {
		sm_error(c, 404, "Not found");
		return;
	}
	sm_uuid_format(&version, uuid);
	snprintf(etag, sizeof(etag), "\"%s\"", uuid);
	if (sm_set(c, SM_ETAG) == 0)
		options.etag = etag;
	options.modified_at = blob_made_at(blob);
	range_serve(c->rq, c->rs, blob, &options);
	if (c->rs->status == 416)
		sm_error(c, 416, "The requested range cannot be served");
	else if (c->rs->status == 412)
		sm_error(c, 412, "Precondition failed");
}

static void redirect(struct sm_call *c, const char *uuid, const struct attachment *a)
{
	const struct emulator *emu = c->sm->emu;
	struct uuid version = sm_uuid_of_path(a->path);
	bool away = sm_set(c, SM_REDIRECT) == REDIRECT_FOREIGN;
	char text[UUID_SIZE];

	sm_uuid_format(&version, text);
	c->rs->status = 302;
	response_header(c->rs, "Location", "%s/store/%s/%s", away ? emu->blob_url : emu->api_url,
			uuid, text);
}

/* On the blob port nobody is asked who he is. */
static bool admit(struct sm_call *c)
{
	if (!sm_is_verb(c, "GET")) {
		sm_error(c, 405, "Method not allowed");
		return false;
	}
	if (c->rq->port == PORT_BLOB || sm_set(c, SM_DOCUMENT_AUTH) == DOCUMENT_FREE)
		return true;
	if (sm_set(c, SM_DOCUMENT_AUTH) == DOCUMENT_REQUIRED)
		return sm_authenticate(c);
	if (!request_header(c->rq, "Authorization"))
		return true;
	sm_error(c, 400, "Only one authentication mechanism is allowed");
	return false;
}

/* 404 answered if NULL. */
static struct attachment *find(struct sm_call *c, const char *uuid)
{
	struct attachment *a = sm_attachment_of(c->sm->emu, uuid, strcspn(uuid, "/"));
	struct record *r = a ? store_owner_record(c->sm->emu->store, a) : NULL;

	if (a && r && sm_record_readable(c, r))
		return a;
	sm_error(c, 404, "Not found");
	return NULL;
}

static const char *path_of(struct sm_call *c, const struct attachment *a, const char *text)
{
	struct uuid version;

	return sm_uuid_parse(text, strlen(text), &version) ? sm_version_path(c->sm, a, &version)
							   : NULL;
}

/* One icon for all files (S-5). */
static void serve_icon(struct sm_call *c)
{
	static const char gif[] = "GIF89a\1\0\1\0\200\0\0\377\377\377\0\0\0!\371\4\1\0\0\0\0,\0\0\0"
				  "\0\1\0\1\0\0\2\2D\1\0;";

	c->rs->status = 200;
	response_header(c->rs, "Content-Type", "image/gif");
	buffer_put(&c->rs->body, gif, sizeof(gif) - 1);
}

void sm_document_serve(struct sm_call *c, const char *uuid, const char *version)
{
	struct attachment *a;
	bool latest = strcmp(version, "latest") == 0;
	const char *path;

	if (!admit(c))
		return;
	if (strcmp(uuid, SM_THUMBNAIL) == 0) {
		serve_icon(c);
		return;
	}
	a = find(c, uuid);
	if (!a)
		return;
	if (latest && sm_set(c, SM_REDIRECT) != REDIRECT_OFF) {
		redirect(c, uuid, a);
		return;
	}
	path = latest ? a->path : sm_set(c, SM_VERSION_URLS) ? path_of(c, a, version) : NULL;
	if (path)
		serve_bytes(c, a, path);
	else
		sm_error(c, 404, "Not found");
}

void sm_document_stored(struct sm_call *c, const char *uuid, const char *version)
{
	struct attachment *a = admit(c) ? find(c, uuid) : NULL;
	const char *path = a ? path_of(c, a, version) : NULL;

	if (path)
		serve_bytes(c, a, path);
	else if (a)
		sm_error(c, 404, "Not found");
}
