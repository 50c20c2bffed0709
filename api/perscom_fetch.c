/* SPDX-License-Identifier: MIT */

/*
 * Reading bytes: GETs of a link, on another host and without the credential (section 4 of the
 * reference).
 */

#include "perscom.h"

#include <errno.h>
#include <string.h>

#include "fetch_answer.h"
#include "json.h"

/* A proxy's page must not be taken for the file, whose size may not be known yet (P-4). */
static int judge(const struct remote_file *file, const struct transfer_head *head, int64_t total)
{
	if (fetch_is_page(file, head) && (file->size < 0 || total != file->size))
		return -EIO;
	return 0;
}

static const struct fetch_source source = {
	.endpoint = "GET blob",
	.judge = judge,
	.renew = perscom_renew,
};

/*
 * The link to begin with: the caller's, or one we know of the same version that lasts longer; none
 * when it is known to have expired. @known keeps what is ours; true when it is that one.
 */
static bool choose_link(struct perscom *p, struct remote_file *file, struct remote_file *known)
{
	bool better =
		perscom_recall(p, file->id, file->url, known) &&
		(!file->url || perscom_url_expiry(known->url) > perscom_url_expiry(file->url)) &&
		strcmp(known->version, file->version) == 0;

	if (better)
		file->url = known->url;
	if (file->url && perscom_is_expired(p, file->url))
		file->url = NULL;
	return better;
}

int perscom_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		  const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		  const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	struct remote_file at = *file, known = {0};

	(void)collection;
	if (!json_is_id(file->id) || !file->version)
		return -EINVAL;
	bool remembered = choose_link((struct perscom *)r, &at, &known);
	int error = fetch_start(r, &source, class, &at, remembered, off, len, deadline_mono_ms,
				sink, ret_id);
	remote_file_clear(&known);
	return error;
}
