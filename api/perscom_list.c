/* SPDX-License-Identifier: MIT */

/*
 * Listings: searches in order of id, each page beginning after the greatest id of the one before.
 * The server's own paging counts rows, so that a row deleted in the meantime makes it skip another
 * (P-8, section 2); by id, every row that is there all the time is listed exactly once, and new
 * ones only add at the end.
 *
 * One call brings 1,000 records with all their attachments inline. When an answer would be larger
 * than what we are willing to hold, the page is asked for again with a tenth of the rows. Of a record
 * with very many, names are shown as they come (perscom_stream.c).
 */

#include "perscom.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#include "json.h"

struct listing {
	struct perscom *p;
	enum transfer_class class;
	const struct perscom_collection *c;
	char record[REMOTE_ID_MAX + 1]; /* "" = the whole collection */
	char after[REMOTE_ID_MAX + 1];
	unsigned limit;
	struct remote_sink sink;
	struct perscom_stream *stream; /* of the call under way; NULL = none */
};

static void listing_done(void *ctx, const struct call_reply *reply);

static void stop_stream(struct listing *l)
{
	perscom_stream_end(l->stream);
	l->stream = NULL;
}

static int listing_ask(struct listing *l)
{
	struct call *call;
	int error;

	if (l->record[0] != '\0') {
		json_t *body = perscom_body_owner(l->c->model_type, l->record, l->after);
		call = perscom_search(l->p, l->class, "attachments", "", l->limit, body);
		call_set_scope(call, "view:attachment");
	} else {
		call = perscom_search(l->p, l->class, l->c->name, "include=attachments&", l->limit,
				      perscom_body_page(l->after));
		call_set_scope(call, l->c->view_scope);
		l->stream = perscom_stream_new(l->p, l->c, &l->sink);
		if (l->stream)
			call_set_tap(call, perscom_stream_take, l->stream);
	}
	error = call_start(call, listing_done, l);
	if (error < 0)
		stop_stream(l);
	return error;
}

static void listing_end(struct listing *l, int error, const char *message)
{
	/* Whether the server can be reached and takes our credentials is told elsewhere, once. */
	bool known = error == -ECANCELED || error == -EACCES || error == -EHOSTDOWN ||
		     error == -ETIMEDOUT;

	if (error < 0 && !known)
		log_errno(error, "perscom: list %s%s%s: %s", l->c->name, l->record[0] ? "/" : "",
			  l->record, message);
	l->sink.done(l->sink.ctx, error, message);
	free(l);
}

/* Hand a page to the sink and go on. Returns what the listing ends with, 1 = it goes on. */
static int listing_step(struct listing *l, const json_t *root, const char **ret_message)
{
	const struct perscom_collection *c = l->record[0] == '\0' ? l->c : NULL;
	struct perscom_page page;
	int r = perscom_decode_page(&l->p->server, root, c, l->p->names, &page);

	*ret_message =
		r == -EIO ? "the answer is not what PERSCOM sends: no list of such rows" : "";
	if (r == 0)
		r = perscom_page_more(&page, l->after, ret_message);
	if (r >= 0) {
		perscom_remember(l->p, page.files, page.n_files);
		memcpy(l->after, page.last_id, sizeof(l->after));
		if (!l->sink.page(l->sink.ctx, page.records, page.n_records, page.files,
				  page.n_files))
			r = -ECANCELED;
	}
	perscom_page_clear(&page);
	return r;
}

static void listing_done(void *ctx, const struct call_reply *reply)
{
	struct listing *l = ctx;
	const char *message = reply->message;
	int r = reply->error;

	stop_stream(l);
	perscom_note_reply(l->p, reply);
	if (r == -EOVERFLOW && l->limit > 1) {
		l->limit = l->limit > 10 ? l->limit / 10 : 1;
		r = 1;
	} else if (r == 0) {
		r = listing_step(l, reply->json, &message);
	}
	if (r == 1 && (r = listing_ask(l)) == 0)
		return;
	/* From here on 0 means whole: only the last page says so. */
	listing_end(l, r == -EOVERFLOW ? -EIO : r, message);
}

static int listing_start(struct remote *r, enum transfer_class class, const char *collection,
			 const char *record, const struct remote_sink *sink)
{
	const struct perscom_collection *c = perscom_find_collection(collection);

	if (!c || (*record != '\0' && !json_is_id(record)))
		return -EINVAL;
	struct listing *l = malloc(sizeof(*l));
	if (!l)
		return -ENOMEM;
	*l = (struct listing){.p = (struct perscom *)r,
			      .class = class,
			      .c = c,
			      .limit = PERSCOM_PAGE,
			      .sink = *sink};
	snprintf(l->record, sizeof(l->record), "%s", record);
	int error = listing_ask(l);
	if (error < 0)
		free(l);
	return error;
}

int perscom_list_tree(struct remote *r, enum transfer_class class, const char *collection,
		      const struct remote_sink *sink)
{
	return listing_start(r, class, collection, "", sink);
}

int perscom_list_record(struct remote *r, enum transfer_class class, const char *collection,
			const char *record, const struct remote_sink *sink)
{
	return listing_start(r, class, collection, record, sink);
}
