/* SPDX-License-Identifier: MIT */

/*
 * One set of rows, whole or not at all. The server pages by counting rows and has no next link
 * (section 2): a row that vanishes between two pages moves those behind it up, over the page's edge.
 *
 *	ASK     $top rows from `skip` on, in an order by which new rows only add at the end. Each page
 *	        but the first begins one row early, with the last one of the page before.
 *
 *	CHECK   that row is not there: rows before it have vanished. Ask again from further and further
 *	        back, until the page begins with rows that are known.
 *
 *	GIVE    the rows not given before
 *
 *	COUNT   at the end there must be as many as the server counts (Total); else, once more from the
 *	        start, as long as that brings any. An order the server does not keep among equals ends
 *	        here. What is still missing fails the listing.
 *
 * Of the orders of enterprise_tester_path.c, the first the server takes is used and remembered. An
 * answer larger than what we are willing to hold is asked for again with a tenth of the rows. Rows
 * without an id (E-7) cannot be told apart: a page of nothing else is not checked.
 */

#include "enterprise_tester.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#include "json.h"

#define BACK_MAX 64 /* steps back in one walk */
#define TOP_MIN	 10

enum { ASK_AGAIN = 2 };

struct et_walk {
	struct et *p;
	struct et_walk_spec spec;
	char *path, *template;
	unsigned top, variant;
	bool variant_told; /* the server took it */
	uint64_t skip, back, steps_back;
	bool overlaps; /* the page under way begins with a known row */
	size_t known_before_pass;
	json_t *known; /* ids given so far: an object used as a set */
	uint64_t n_nil;
	int status;			/* of the last answer */
	bool ended;			/* no page follows the one that was given */
	char refused[CALL_MESSAGE_MAX]; /* by the first variant */
	int refused_error;
};

static void walk_end(struct et_walk *w, int error, const char *message)
{
	w->spec.done(w->spec.ctx, error, w->status, message);
	json_decref(w->known);
	free(w->path);
	free(w->template);
	free(w);
}

static void walk_reply(void *ctx, const struct call_reply *reply);

static char *make_path(const struct et_walk *w)
{
	char *order, *path = NULL;

	if (w->spec.bare)
		return strdup(w->path);
	order = et_order_query(w->spec.language, w->spec.entity, w->variant);
	if (!order)
		return NULL;
	/* Totals come only when asked for (E-10), 25 rows when not told otherwise (E-26). */
	if (asprintf(&path, "%s?%s&$top=%u&$skip=%llu&$inlinecount=allpages%s%s", w->path, order,
		     w->top, (unsigned long long)w->skip, w->spec.expand ? "&$expand=" : "",
		     w->spec.expand ? w->spec.expand : "") < 0)
		path = NULL;
	free(order);
	return path;
}

static int walk_ask(struct et_walk *w)
{
	char *path = make_path(w);

	if (!path)
		return -ENOMEM;
	struct call *call = et_call(w->p, w->spec.class, "GET", path, w->template);
	call_set_idempotent(call, true);
	free(path);
	return call_start(call, walk_reply, w);
}

static void walk_ask_or_end(struct et_walk *w)
{
	int r = walk_ask(w);

	if (r < 0)
		walk_end(w, r, "out of memory, or at the end");
}

/* Another pass, as long as one finds anything. 1 = it goes on, 0 = whole, or -EIO. */
static int count_rows(struct et_walk *w, int64_t total, const char **ret_message)
{
	size_t known = json_object_size(w->known);

	if (total < 0 || known + w->n_nil >= (uint64_t)total)
		return 0;
	if (known == w->known_before_pass) {
		*ret_message = "the server counts more rows than it shows: its paging cannot be "
			       "trusted";
		return -EIO;
	}
	log_debug("enterprise-tester: %s: %zu of %lld rows, once more", w->template, known,
		  (long long)total);
	w->known_before_pass = known;
	w->n_nil = 0;
	w->skip = 0;
	w->overlaps = false;
	return 1;
}

/* The page does not adjoin what is known. 1 = ask again further back. */
static int step_back(struct et_walk *w, const char **ret_message)
{
	if (w->steps_back++ >= BACK_MAX) {
		*ret_message = "rows vanish faster than they can be listed";
		return -EIO;
	}
	w->back = w->back ? 8 * w->back : 8;
	w->skip = w->skip > w->back ? w->skip - w->back : 0;
	w->overlaps = w->skip > 0;
	return 1;
}

/* Collect what is new into @fresh. -EIO: a row that is none. *@ret_ids: rows that have one. */
static int sort_out(const struct et_walk *w, const json_t *rows, json_t *fresh, size_t *ret_ids)
{
	size_t ids = 0;
	char id[ET_GUID_SIZE];

	for (size_t i = 0; i < json_array_size(rows); i++) {
		json_t *row = json_array_get(rows, i);
		bool nil = json_is_object(row) && et_is_nil(row);

		if (!nil && !et_get_guid(row, "Id", id))
			return -EIO;
		ids += !nil;
		if ((nil || !json_object_get(w->known, id)) && json_array_append(fresh, row) < 0)
			return -ENOMEM;
	}
	*ret_ids = ids;
	return 0;
}

static int remember(struct et_walk *w, const json_t *fresh)
{
	char id[ET_GUID_SIZE];
	int r = 0;

	for (size_t i = 0; i < json_array_size(fresh); i++) {
		const json_t *row = json_array_get(fresh, i);
		if (et_get_guid(row, "Id", id))
			r |= json_object_set_new(w->known, id, json_true());
		else
			w->n_nil++;
	}
	return r < 0 ? -ENOMEM : 0;
}

/* Where the next page begins, or that there is none: w->ended. 0 or -EIO. */
static int move_on(struct et_walk *w, const json_t *root, size_t n_rows, size_t n_fresh,
		   size_t n_ids, const char **ret_message)
{
	int64_t total = json_get_integer(root, "Total", -1);
	uint64_t next = w->skip + n_rows;

	w->back = 0;
	if (json_is_array(root) || (total < 0 && n_ids == 0)) {
		w->ended = true;
		return 0;
	}
	if (total >= 0 ? next >= (uint64_t)total : n_fresh == 0) {
		/* Without a count, and a page full of known rows: $skip does nothing. */
		if (total < 0 && n_rows > 1 && n_rows >= w->top) {
			*ret_message = "the server gives the same page again and again";
			return -EIO;
		}
		int r = count_rows(w, total, ret_message);
		w->ended = r == 0;
		return r < 0 ? r : 0;
	}
	if (n_rows == 0) {
		*ret_message = "rows are counted but not there";
		return -EIO;
	}
	w->overlaps = n_rows > 1 && n_ids > 0;
	w->skip = next - w->overlaps;
	return 0;
}

/* 0: the page was given, go on; 1: it will be resumed; ASK_AGAIN: nothing was; or an error. */
static int walk_page(struct et_walk *w, const json_t *root, const char **ret_message)
{
	json_t *rows = et_rows(root), *fresh = json_array();
	size_t n_ids = 0;
	int r = rows ? fresh ? sort_out(w, rows, fresh, &n_ids) : -ENOMEM : -EIO;
	bool adjoins = !w->overlaps || n_ids == 0 || json_array_size(fresh) < json_array_size(rows);

	*ret_message = r == -EIO ? "the answer is not what Enterprise Tester sends: no list of "
				   "such rows"
				 : "";
	if (r == 0 && !adjoins)
		r = step_back(w, ret_message);
	if (r == 0)
		r = remember(w, fresh);
	if (r == 0)
		r = move_on(w, root, json_array_size(rows), json_array_size(fresh), n_ids,
			    ret_message);
	/* From the call of rows() on, the walk may have been resumed elsewhere, and be gone. */
	if (r == 0)
		r = w->spec.rows(w->spec.ctx, w, fresh);
	else if (r == 1)
		r = ASK_AGAIN;
	json_decref(fresh);
	return r;
}

/* A query the server does not take: there may be another one. */
static bool try_variant(struct et_walk *w, const struct call_reply *reply)
{
	bool refused = reply->status == 400 || reply->status == 403 || reply->status == 500;
	char *next;

	if (!refused || w->variant_told || w->spec.bare)
		return false;
	if (w->refused_error == 0) {
		w->refused_error = reply->error;
		snprintf(w->refused, sizeof(w->refused), "%s", reply->message);
	}
	next = et_order_query(w->spec.language, w->spec.entity, w->variant + 1);
	w->variant += next != NULL;
	free(next);
	return next != NULL;
}

static void walk_reply(void *ctx, const struct call_reply *reply)
{
	struct et_walk *w = ctx;
	const char *message = reply->message;
	int r = reply->error;

	et_note_reply(w->p, reply);
	w->status = reply->status;
	if (r == -EOVERFLOW && w->top > TOP_MIN) {
		w->top = w->top / 10 > TOP_MIN ? w->top / 10 : TOP_MIN;
		r = ASK_AGAIN;
	} else if (r == 0) {
		if (!w->variant_told && !w->spec.bare)
			atomic_store(&w->p->orders[w->spec.language], w->variant);
		w->variant_told = true;
		r = walk_page(w, reply->json, &message);
	} else if (try_variant(w, reply)) {
		r = ASK_AGAIN;
	} else if (w->refused_error < 0) {
		r = w->refused_error;
		message = w->refused;
	}
	if (r == 0)
		et_walk_resume(w, 0, "");
	else if (r == ASK_AGAIN)
		walk_ask_or_end(w);
	else if (r < 0)
		walk_end(w, r == -EOVERFLOW ? -EIO : r, message);
}

void et_walk_resume(struct et_walk *w, int error, const char *message)
{
	if (error < 0 || w->ended)
		walk_end(w, error, error < 0 ? message : "");
	else
		walk_ask_or_end(w);
}

int et_walk_start(struct et *p, const struct et_walk_spec *spec)
{
	struct et_walk *w = calloc(1, sizeof(*w));
	int r = -ENOMEM;

	if (!w)
		return -ENOMEM;
	w->p = p;
	w->spec = *spec;
	w->top = spec->top;
	w->variant = atomic_load(&p->orders[spec->language]);
	w->path = strdup(spec->path);
	w->template = strdup(spec->template);
	w->known = json_object();
	if (w->path && w->template && w->known)
		r = walk_ask(w);
	if (r < 0) {
		json_decref(w->known);
		free(w->path);
		free(w->template);
		free(w);
	}
	return r;
}
