/* SPDX-License-Identifier: MIT */

/*
 * The whole tree of an object in the fewest calls: its records page by page, then all its files in
 * one call, which names no record that has none (section 3 of the reference).
 *
 *	RECORDS    GET /v2/<object>?limit=&offset=   more: RECORDS; else FILES
 *	FILES      GET /v2/<object>/attachments      files of records that were listed are handed on
 *	STRANGERS  records that have files and were not listed: made in between, or not to be seen.
 *	           A few are asked for one by one; for more the records are listed once more. Those
 *	           that are not there then are remembered and never asked for again.
 *
 *	LOOKS      instead of FILES where those are too many for one answer: at a hundred records
 *	           at a time
 *
 * The records come first, so that one made in between is not shown without its files, and may be
 * shown while the files are on their way.
 */

#include "servicemax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#include "json.h"

#define FILES_MAX	((size_t)512 << 20) /* bytes of the answer with all files */
#define FILES_PAGE	1000		    /* handed on at a time */
#define STRANGERS_MAX	8		    /* asked for one by one */
#define HIDDEN_MAX	65536
#define RECORD_PATH_MAX (SERVICEMAX_OBJECT_MAX + 256)

static const char *const total_header[] = {"X-Total-Count", NULL};

struct tree_listing {
	struct servicemax *p;
	enum transfer_class class;
	char object[SERVICEMAX_OBJECT_MAX + 1];
	struct servicemax_object *known; /* NULL = not of the options */
	unsigned level;			 /* servicemax_fields() */
	struct remote_sink sink;
	struct servicemax_paging paging;
	json_t *map; /* the files, once they are here */
	char strangers[STRANGERS_MAX][SERVICEMAX_UUID_SIZE];
	size_t n_strangers, asked;
	/* LOOKS: */
	size_t looked;	       /* servicemax_uuids_next()'s */
	atomic_size_t pending; /* looks under way, and one for the starter */
	atomic_int error;
};

static void end(struct tree_listing *l, int error, const char *message)
{
	/* Whether the server can be reached and takes our credentials is told elsewhere, once. */
	bool known = error == -ECANCELED || error == -EACCES || error == -EHOSTDOWN ||
		     error == -ETIMEDOUT;

	if (error < 0 && !known)
		log_errno(error, "servicemax: list %s: %s", l->object, message);
	l->sink.done(l->sink.ctx, error, message);
	json_decref(l->map);
	servicemax_uuids_clear(&l->paging.seen);
	free(l);
}

static void records_done(void *ctx, const struct call_reply *reply);
static void files_done(void *ctx, const struct call_reply *reply);
static void stranger_done(void *ctx, const struct call_reply *reply);

static int ask_records(struct tree_listing *l)
{
	char path[RECORD_PATH_MAX];

	snprintf(path, sizeof(path), "/v2/%s?fields=%s&sort=io_uuid&limit=%u&offset=%llu",
		 l->object, servicemax_fields(l->level), l->paging.limit,
		 (unsigned long long)l->paging.offset);
	struct call *call = servicemax_call(l->p, l->class, "GET", path, "/v2/{object}");
	call_set_idempotent(call, true);
	call_want_headers(call, total_header);
	return call_start(call, records_done, l);
}

static int ask_files(struct tree_listing *l)
{
	char path[RECORD_PATH_MAX];

	snprintf(path, sizeof(path), "/v2/%s/attachments", l->object);
	struct call *call =
		servicemax_call(l->p, l->class, "GET", path, "/v2/{object}/attachments");
	call_set_idempotent(call, true);
	call_set_max_body(call, SERVICEMAX_FILES_MAX);
	return call_start(call, files_done, l);
}

static int ask_stranger(struct tree_listing *l)
{
	char path[RECORD_PATH_MAX];

	snprintf(path, sizeof(path), "/v2/%s/%s?fields=%s", l->object, l->strangers[l->asked],
		 servicemax_fields(l->level));
	struct call *call = servicemax_call(l->p, l->class, "GET", path, "/v2/{object}/{uuid}");
	call_set_idempotent(call, true);
	return call_start(call, stranger_done, l);
}

/* The oldest first; those that do not tell when they were made, last. */
static int by_age(const void *a, const void *b)
{
	const struct remote_record *x = a, *y = b;
	int64_t tx = x->ctime_ns == REMOTE_TIME_NONE ? INT64_MAX : x->ctime_ns;
	int64_t ty = y->ctime_ns == REMOTE_TIME_NONE ? INT64_MAX : y->ctime_ns;

	return tx == ty ? strcmp(x->id, y->id) : (tx > ty) - (tx < ty);
}

/*
 * Of equal names the first to come is shown plain, which shall be the oldest's: pages come sorted
 * by UUIDs, which say nothing of age.
 */
static bool hand_on(struct tree_listing *l, struct servicemax_page *page)
{
	if (page->n_records > 1)
		qsort(page->records, page->n_records, sizeof(*page->records), by_age);
	bool ok = l->sink.page(l->sink.ctx, page->records, page->n_records, page->files,
			       page->n_files);

	servicemax_page_clear_files(page);
	return ok;
}

static bool is_hidden(struct servicemax *p, const char *uuid)
{
	pthread_mutex_lock(&p->lock);
	bool hidden = servicemax_uuids_get(&p->hidden, uuid) != 0;
	pthread_mutex_unlock(&p->lock);
	return hidden;
}

static void hide(struct servicemax *p, const char *uuid)
{
	pthread_mutex_lock(&p->lock);
	if (p->hidden.n < HIDDEN_MAX)
		servicemax_uuids_put(&p->hidden, uuid, 1);
	pthread_mutex_unlock(&p->lock);
}

/* A record with files that was not listed. */
static void meet_stranger(struct tree_listing *l, const char *uuid)
{
	if (l->paging.pass > 1) {
		hide(l->p, uuid);
	} else if (!is_hidden(l->p, uuid)) {
		if (l->n_strangers < STRANGERS_MAX)
			snprintf(l->strangers[l->n_strangers], SERVICEMAX_UUID_SIZE, "%s", uuid);
		l->n_strangers++;
	}
}

/* The files of all listed records that have not been handed on yet. 0 or an error. */
static int give_files(struct tree_listing *l)
{
	struct servicemax_page page = {0};
	const char *record;
	json_t *files;
	void *next;
	int r = 0;

	json_object_foreach_safe(l->map, next, record, files)
	{
		if (servicemax_uuids_get(&l->paging.seen, record) == 0) {
			if (!json_is_uuid(record) || !json_is_array(files))
				r = -EIO;
			else if (json_array_size(files) > 0)
				meet_stranger(l, record);
		} else {
			r = servicemax_decode_files(&l->p->server, record, files, &page);
			if (r == 0 && page.n_files >= FILES_PAGE && !hand_on(l, &page))
				r = -ECANCELED;
			if (r == 0)
				json_object_del(l->map, record);
		}
		if (r < 0)
			break;
	}
	if (r == 0 && page.n_files > 0 && !hand_on(l, &page))
		r = -ECANCELED;
	servicemax_page_clear(&page);
	return r;
}

/* After the files: the strangers, or the end. */
static int go_on(struct tree_listing *l)
{
	if (l->n_strangers > STRANGERS_MAX) {
		l->n_strangers = 0;
		servicemax_paging_begin(&l->paging);
		return ask_records(l);
	}
	if (l->asked < l->n_strangers)
		return ask_stranger(l);
	end(l, 0, "");
	return 0;
}

static void give_and_go_on(struct tree_listing *l)
{
	int r = give_files(l);

	if (r < 0) {
		end(l, r, "the answer is not what ServiceMax sends: no map of attachments");
		return;
	}
	r = go_on(l);
	if (r < 0)
		end(l, r, "");
}

static void look_at_next(struct tree_listing *l);

static void look_end(struct tree_listing *l)
{
	if (atomic_fetch_sub(&l->pending, 1) > 1)
		return;
	int error = atomic_load(&l->error);
	if (error < 0)
		end(l, error, "the files of some records cannot be listed");
	else if (l->looked >= l->paging.seen.size)
		end(l, 0, "");
	else
		look_at_next(l);
}

static bool look_page(void *ctx, struct remote_record *records, size_t n_records,
		      struct remote_file *files, size_t n_files)
{
	struct tree_listing *l = ctx;
	bool ok = atomic_load(&l->error) == 0 &&
		  l->sink.page(l->sink.ctx, records, n_records, files, n_files);

	if (!ok)
		atomic_store(&l->error, -ECANCELED);
	return ok;
}

static void look_done(void *ctx, int error, const char *message)
{
	struct tree_listing *l = ctx;

	(void)message;
	/* One that is gone by now has no files. */
	if (error < 0 && error != -ENOENT)
		atomic_store(&l->error, error);
	look_end(l);
}

/* Looks queue up and are one call at a time, so that pages come in order. */
static void look_at_next(struct tree_listing *l)
{
	struct remote_sink sink = {look_page, look_done, l};
	char uuid[SERVICEMAX_UUID_SIZE];

	atomic_store(&l->pending, 1);
	for (int n = 0; n < SERVICEMAX_LOOKS; n++) {
		if (!servicemax_uuids_next(&l->paging.seen, &l->looked, uuid))
			break;
		atomic_fetch_add(&l->pending, 1);
		int r = servicemax_list_record(&l->p->base, l->class, l->object, uuid, &sink);
		if (r < 0)
			look_done(l, r, "");
	}
	look_end(l);
}

static void files_done(void *ctx, const struct call_reply *reply)
{
	struct tree_listing *l = ctx;

	if (reply->error == -EOVERFLOW) {
		look_at_next(l);
		return;
	}
	if (reply->error < 0) {
		end(l, reply->error, reply->message);
		return;
	}
	/* Our own copy of the upper level: entries are taken out of it. */
	l->map = json_is_object(reply->json) ? json_copy((json_t *)reply->json) : NULL;
	if (!l->map) {
		end(l, json_is_object(reply->json) ? -ENOMEM : -EIO,
		    "the answer is not what ServiceMax sends: no map of attachments");
		return;
	}
	give_and_go_on(l);
}

/*
 * The name of one stranger, and with it its files. One that is not there any more, or not to be
 * seen (S-10), has none.
 */
static int take_stranger(struct tree_listing *l, const struct call_reply *reply)
{
	const char *uuid = l->strangers[l->asked++];
	struct servicemax_page page = {0};
	int r = reply->error;

	if (reply->status == 404 || reply->status == 403) {
		hide(l->p, uuid);
		return 0;
	}
	if (r == 0)
		r = servicemax_decode_records(reply->json, &page);
	if (r == 0 && page.n_records == 0)
		hide(l->p, uuid); /* a deleted one */
	if (r == 0 && page.n_records == 1) {
		r = servicemax_decode_files(&l->p->server, uuid, json_object_get(l->map, uuid),
					    &page);
		if (r == 0 && !hand_on(l, &page))
			r = -ECANCELED;
	}
	servicemax_page_clear(&page);
	return r;
}

static void stranger_done(void *ctx, const struct call_reply *reply)
{
	struct tree_listing *l = ctx;
	int r = take_stranger(l, reply);

	if (r == 0)
		r = go_on(l);
	if (r < 0)
		end(l, r == -EOVERFLOW ? -EIO : r, reply->message);
}

/* Fields that this object does not have are answered with 400: ask for fewer. */
static bool ask_less(struct tree_listing *l, const struct call_reply *reply)
{
	if (reply->error == -EOVERFLOW && l->paging.limit > 100) {
		l->paging.limit /= 10;
		return true;
	}
	if (reply->status != 400 || !servicemax_fields(l->level + 1))
		return false;
	l->level++;
	return true;
}

static int64_t parse_total(const char *header)
{
	size_t len = header ? strspn(header, "0123456789") : 0;

	return len > 0 && len <= 18 && header[len] == '\0' ? strtoll(header, NULL, 10) : -1;
}

/* 1: more pages; 0: no more; or an error. */
static int take_records(struct tree_listing *l, const struct call_reply *reply,
			const char **ret_message)
{
	struct servicemax_page page = {0};
	int r = json_is_array(reply->json) ? servicemax_decode_records(reply->json, &page) : -EIO;

	*ret_message = "the answer is not what ServiceMax sends: no list of records";
	if (r == 0)
		r = servicemax_paging_take(&l->paging, &page, parse_total(reply->header),
					   ret_message);
	if (r >= 0 && page.n_records > 0 && !hand_on(l, &page))
		r = -ECANCELED;
	if (r >= 0 && l->known)
		atomic_store(&l->known->level, l->level);
	servicemax_page_clear(&page);
	return r;
}

static void records_done(void *ctx, const struct call_reply *reply)
{
	struct tree_listing *l = ctx;
	const char *message = reply->message;
	int r = reply->error;

	if (r < 0 && ask_less(l, reply))
		r = 1;
	else if (r == 0)
		r = take_records(l, reply, &message);
	if (r == 0 && l->map) {
		give_and_go_on(l);
		return;
	}
	if (r >= 0)
		r = r == 1 ? ask_records(l) : ask_files(l);
	if (r < 0)
		end(l, r == -EOVERFLOW ? -EIO : r, message);
}

int servicemax_list_tree(struct remote *r, enum transfer_class class, const char *collection,
			 const struct remote_sink *sink)
{
	if (!servicemax_is_object(collection))
		return -EINVAL;
	struct tree_listing *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->p = (struct servicemax *)r;
	l->class = class;
	snprintf(l->object, sizeof(l->object), "%s", collection);
	l->known = servicemax_find_object(l->p, collection);
	l->level = l->known ? atomic_load(&l->known->level) : 0;
	l->sink = *sink;
	servicemax_paging_begin(&l->paging);
	int error = ask_records(l);
	if (error < 0)
		free(l);
	return error;
}
