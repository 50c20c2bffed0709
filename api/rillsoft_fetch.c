/* SPDX-License-Identifier: MIT */

/*
 * Reading bytes. Where they are the vendor does not say (section 4): the path is a template, and a
 * server may answer there with a description of the document instead. So the head of the answer is
 * looked at first; and a 404 says that the document is gone only if the list agrees, else that the
 * template is wrong.
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"

/* JSON or HTML that is not offered as a download: a page about the document, not the document. */
static bool is_envelope(const struct transfer_head *head)
{
	const char *type = head->content_type;
	size_t len = strcspn(type, "; ");
	bool page = strncasecmp(type, "application/json", 16) == 0 ||
		    strncasecmp(type, "text/html", 9) == 0 ||
		    (len > 5 && strncasecmp(type + len - 5, "+json", 5) == 0);

	return page && !(head->get && head->get(head, "Content-Disposition"));
}

static bool is_page_name(const char *name)
{
	static const char *const ends[] = {".json", ".html", ".htm", ".geojson", ".webmanifest"};
	size_t len = name ? strlen(name) : 0;

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		size_t n = strlen(ends[i]);
		if (len > n && strcasecmp(name + len - n, ends[i]) == 0)
			return true;
	}
	return false;
}

static int judge_document(const struct remote_file *file, const struct transfer_head *head,
			  int64_t total)
{
	bool differs = total < 0 || (file->size >= 0 && total != file->size);

	if (differs && is_envelope(head) && !is_page_name(file->name))
		return -EIO;
	return total >= 0 && file->size >= 0 && total != file->size ? -ESTALE : 0;
}

static int judge_attachment(const struct remote_file *file, const struct transfer_head *head,
			    int64_t total)
{
	(void)file;
	(void)total;
	return is_envelope(head) ? -EIO : 0;
}

struct renewal {
	struct rillsoft *ris;
	char id[RILLSOFT_ID_SIZE];
	char *url;
	fetch_renewed *done;
	void *ctx;
	struct rillsoft_wait wait;
};

/* The link is what it was; what is asked for is whether the document still is there. */
static void on_renewal(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct renewal *renewal = ctx;
	const struct rillsoft_doc *doc = l ? rillsoft_find_doc(l, renewal->id) : NULL;
	char version[RILLSOFT_VERSION_SIZE] = "";
	struct remote_file now = {.id = renewal->id, .url = renewal->url, .version = version};

	(void)message;
	if (error == 0 && !doc)
		error = -ENOENT;
	if (doc)
		rillsoft_version(doc, version);
	renewal->done(renewal->ctx, error, &now, false);
	free(renewal->url);
	free(renewal);
}

static unsigned reading_of(const char *id)
{
	return (unsigned)(strtoull(id, NULL, 10) % RILLSOFT_READING);
}

static void note_reading(struct rillsoft *ris, const char *id, const char *project)
{
	unsigned i = reading_of(id);

	pthread_mutex_lock(&ris->lock);
	snprintf(ris->reading[i].id, RILLSOFT_ID_SIZE, "%s", id);
	snprintf(ris->reading[i].project, RILLSOFT_ID_SIZE, "%s", project);
	pthread_mutex_unlock(&ris->lock);
}

static bool find_reading(struct rillsoft *ris, const char *id, char out[RILLSOFT_ID_SIZE])
{
	unsigned i = reading_of(id);

	pthread_mutex_lock(&ris->lock);
	bool found = strcmp(ris->reading[i].id, id) == 0;
	if (found)
		memcpy(out, ris->reading[i].project, RILLSOFT_ID_SIZE);
	pthread_mutex_unlock(&ris->lock);
	return found || rillsoft_find_project(ris, id, out);
}

static void renew_document(struct remote *r, enum transfer_class class, const char *id,
			   const char *bad, bool fresh, int64_t deadline_mono_ms,
			   fetch_renewed *done, void *ctx)
{
	struct rillsoft *ris = (struct rillsoft *)r;
	char project[RILLSOFT_ID_SIZE];
	struct remote_file none = {0};

	(void)fresh;
	(void)deadline_mono_ms;
	if (!bad || !find_reading(ris, id, project)) {
		done(ctx, -EIO, &none, false);
		return;
	}
	struct renewal *renewal = calloc(1, sizeof(*renewal));
	char *url = renewal ? strdup(bad) : NULL;
	if (!url) {
		free(renewal);
		done(ctx, -ENOMEM, &none, false);
		return;
	}
	*renewal = (struct renewal){.ris = ris, .url = url, .done = done, .ctx = ctx};
	snprintf(renewal->id, sizeof(renewal->id), "%s", id);
	rillsoft_want(ris, &renewal->wait, class, project, RILLSOFT_FRESH, on_renewal, renewal);
}

/* It is there, for the option says so: a 404 is one of the template. */
static void renew_attachment(struct remote *r, enum transfer_class class, const char *id,
			     const char *bad, bool fresh, int64_t deadline_mono_ms,
			     fetch_renewed *done, void *ctx)
{
	struct remote_file now = {.id = (char *)id,
				  .url = (char *)bad,
				  .version = (char *)RILLSOFT_ATTACHMENT_VERSION};

	(void)r;
	(void)class;
	(void)fresh;
	(void)deadline_mono_ms;
	done(ctx, 0, &now, false);
}

static const struct fetch_source document = {
	.endpoint = "GET document",
	.credential = true,
	.accept = "Accept: */*",
	.remedy = "template_download= may be wrong",
	.judge = judge_document,
	.renew = renew_document,
};

#define ATTACHMENT_REMEDY "template_attachment= may be wrong"

static const struct fetch_source attachment = {
	.endpoint = "GET attachment",
	.credential = true,
	.accept = "Accept: */*",
	.remedy = ATTACHMENT_REMEDY,
	.judge = judge_attachment,
	.renew = renew_attachment,
};

/* The first byte, to learn the size. Where there is none, nothing can be read. */
static const struct fetch_source attachment_size = {
	.endpoint = "GET attachment",
	.credential = true,
	.accept = "Accept: */*",
	.remedy = ATTACHMENT_REMEDY,
	.unsure = true,
	.judge = judge_attachment,
};

static const struct fetch_source *choose_source(bool flat, uint64_t off, uint64_t len)
{
	if (!flat)
		return &document;
	return off == 0 && len == 1 ? &attachment_size : &attachment;
}

int rillsoft_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		   const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		   const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	struct rillsoft *ris = (struct rillsoft *)r;
	bool flat = rillsoft_is_attachments(collection);
	struct rillsoft_ids ids = {
		.cid = ris->client, .pid = collection, .did = file->id, .aid = file->id};
	struct remote_file at = *file;

	if (!json_is_id(file->id) || (!flat && !json_is_id(collection)))
		return -EINVAL;
	if (!flat)
		note_reading(ris, file->id, collection);
	at.url = rillsoft_url(ris, flat ? RILLSOFT_ATTACHMENT : RILLSOFT_DOWNLOAD, &ids);
	if (!at.url)
		return -ENOMEM;
	int error = fetch_start(r, choose_source(flat, off, len), class, &at, false, off, len,
				deadline_mono_ms, sink, ret_id);
	free(at.url);
	return error;
}

struct sizing {
	remote_size_done *done;
	void *ctx;
};

/* Where an attachment cannot be read, the seed's call is all there is: an empty file to write. */
static void on_size(void *ctx, int error, int64_t size)
{
	struct sizing *sizing = ctx;
	bool unreadable = error == -EIO || error == -ENOENT || error == -ENOSYS;

	sizing->done(sizing->ctx, unreadable ? 0 : error, unreadable ? 0 : size);
	free(sizing);
}

int rillsoft_probe_size(struct remote *r, enum transfer_class class, const struct remote_file *file,
			const char *collection, int64_t deadline_mono_ms, remote_size_done *done,
			void *ctx)
{
	if (!rillsoft_is_attachments(collection))
		return fetch_probe_size(r, class, file, collection, deadline_mono_ms, done, ctx);
	struct sizing *sizing = malloc(sizeof(*sizing));
	if (!sizing)
		return -ENOMEM;
	*sizing = (struct sizing){done, ctx};
	int error = fetch_probe_size(r, class, file, collection, deadline_mono_ms, on_size, sizing);
	if (error < 0)
		free(sizing);
	return error;
}
