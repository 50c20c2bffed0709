/* SPDX-License-Identifier: MIT */
/* The blob host: as much of Amazon S3 as a reader can notice (section 4), and the `/storage/` disk. */
#include "perscom.h"

#include "alloc.h"
#include "clock.h"
#include "range.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void refuse(struct request *rq, struct response *rs, int status, const char *code,
		   const char *message)
{
	rs->status = status;
	response_header(rs, "Content-Type", "application/xml");
	if (strcmp(rq->method, "HEAD") == 0)
		return;
	buffer_printf(&rs->body,
		      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code>"
		      "<Message>%s</Message><RequestId>EMULATOR</RequestId></Error>",
		      code, message);
}

/* False when it has refused. */
static bool admit(struct request *rq, struct response *rs)
{
	bool private = rq->emu->settings.values[SET_URL] == URL_PRESIGNED;
	enum url_check check = url_check(rq);

	if (request_header(rq, "Authorization")) {
		refuse(rq, rs, 400, "InvalidArgument",
		       "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
		       "Signature query string parameter or the Authorization header should be "
		       "specified");
		return false;
	}
	if (strcmp(rq->method, "GET") != 0 && strcmp(rq->method, "HEAD") != 0) {
		refuse(rq, rs, 405, "MethodNotAllowed",
		       "The specified method is not allowed against this resource.");
		return false;
	}
	if (check == URL_EXPIRED)
		refuse(rq, rs, 403, "AccessDenied", "Request has expired");
	else if (check == URL_FORGED)
		refuse(rq, rs, 403, "SignatureDoesNotMatch",
		       "The request signature we calculated does not match the signature you "
		       "provided.");
	else if (check == URL_UNSIGNED && private)
		refuse(rq, rs, 403, "AccessDenied", "Access Denied");
	else
		return true;
	return false;
}

/* The storage key in "/tenant42/<key>" or "/storage/<key>". */
static const char *storage_key(const struct request *rq)
{
	const char *slash = *rq->path ? strchr(rq->path + 1, '/') : NULL;

	if (!slash ||
	    (strncmp(rq->path, "/tenant", 7) != 0 && strncmp(rq->path, "/storage/", 9) != 0))
		return NULL;
	return slash + 1;
}

static const char *media_type(const char *key)
{
	static const struct {
		const char *extension;
		const char *type;
	} types[] = {
		{".txt", "text/plain"},	     {".pdf", "application/pdf"},
		{".png", "image/png"},	     {".jpg", "image/jpeg"},
		{".gif", "image/gif"},	     {".zip", "application/zip"},
		{".gz", "application/gzip"},
	};
	const char *dot = strrchr(key, '.');

	for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(types[i].extension, dot) == 0)
			return types[i].type;
	return "application/octet-stream";
}

void perscom_serve_blob(struct request *rq, struct response *rs)
{
	const char *key = storage_key(rq);
	struct blob *blob;
	struct range_options options = {.ignored = rq->emu->settings.values[SET_RANGE] != 0};
	char etag[32];

	if (!admit(rq, rs))
		return;
	blob = key ? store_get_blob(rq->emu->store, key) : NULL;
	if (!blob) {
		refuse(rq, rs, 404, "NoSuchKey", "The specified key does not exist.");
		return;
	}
	/* Objects are never rewritten, so the key stands for the bytes: the ETag may be made from it. */
	snprintf(etag, sizeof(etag), "\"%016" PRIx64 "\"", hash_bytes(key, strlen(key), 7));
	options.etag = etag;
	options.modified_at = blob_made_at(blob);
	options.content_type = media_type(key);
	range_serve(rq, rs, blob, &options);
	if (rs->status == 416)
		refuse(rq, rs, 416, "InvalidRange", "The requested range is not satisfiable");
	else if (rs->status == 412)
		refuse(rq, rs, 412, "PreconditionFailed",
		       "At least one of the pre-conditions you specified did not hold");
}
