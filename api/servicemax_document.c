/* SPDX-License-Identifier: MIT */

/*
 * Reading bytes: GETs of /document/<uuid>/latest (section 4 of the reference). That is what is the
 * latest now, which need not be what was listed: a body of another length is another version.
 *
 * Whether these paths want the credential, refuse it, or do not mind is not known (section 13): it
 * is sent first, and what the server said to it is remembered.
 */

#include "servicemax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fetch_answer.h"
#include "json.h"

static int judge(const struct remote_file *file, const struct transfer_head *head, int64_t total)
{
	if (fetch_is_page(file, head) && total != file->size)
		return -EIO;
	return file->size >= 0 && total >= 0 && total != file->size ? -ESTALE : 0;
}

static const struct fetch_source *instead_of_credential(struct remote *r, int status);
static const struct fetch_source *instead_of_none(struct remote *r, int status);

static const struct fetch_source with_credential = {
	.endpoint = "GET /document/{uuid}",
	.credential = true,
	.refusal_words = SERVICEMAX_REFUSAL,
	.accept = "Accept: */*",
	.judge = judge,
	.instead = instead_of_credential,
};

static const struct fetch_source without_credential = {
	.endpoint = "GET /document/{uuid}",
	.accept = "Accept: */*",
	.judge = judge,
	.instead = instead_of_none,
};

static const struct fetch_source *instead_of_credential(struct remote *r, int status)
{
	struct servicemax *p = (struct servicemax *)r;

	if (status != 400)
		return NULL;
	atomic_store(&p->plain_document, true);
	return &without_credential;
}

static const struct fetch_source *instead_of_none(struct remote *r, int status)
{
	struct servicemax *p = (struct servicemax *)r;

	if (status != 401 && status != 403)
		return NULL;
	atomic_store(&p->plain_document, false);
	return &with_credential;
}

int servicemax_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		     const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		     const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	struct servicemax *p = (struct servicemax *)r;
	const struct fetch_source *source =
		atomic_load(&p->plain_document) ? &without_credential : &with_credential;
	struct remote_file at = *file;
	char *url = NULL;

	(void)collection;
	if (!file->id || !json_is_uuid(file->id) || !file->version)
		return -EINVAL;
	if (!at.url && asprintf(&url, "%s/document/%s/latest", p->server.url, file->id) < 0)
		return -ENOMEM;
	if (!at.url)
		at.url = url;
	int error =
		fetch_start(r, source, class, &at, false, off, len, deadline_mono_ms, sink, ret_id);
	free(url);
	return error;
}
