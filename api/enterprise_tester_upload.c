/* SPDX-License-Identifier: MIT */

/*
 * Creating files: up to 20 of one record in one multipart request (section 5).
 *
 *	SEND    one POST
 *
 *	JUDGE   201 with an array: each item finds its file in it. No answer, or one that tells nothing:
 *	        unknown. Refused: done, when it was one file; else
 *
 *	LOOK    list the record: whether the other parts of a refused request are kept is unknown
 *	        (section 9), and so is what a 404 or a 500 was about. What is there now and was not when
 *	        we began is ours.
 *	        none there: all refused, and the caller halves the batch
 *	        some there: those are done, the others are to be sent again, without them
 *
 * A file that the server keeps but gives no id (E-7) is refused: sent again, it would be there twice.
 */

#include "enterprise_tester.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "json.h"

struct upload {
	struct et *p;
	enum transfer_class class;
	const struct et_collection *c;
	char record[REMOTE_ID_MAX + 1];
	remote_done *done;
	void *ctx;
	struct remote_change *items;
	size_t n;
	uint64_t bytes;
	int64_t began_ms;

	/* of the refusal that made us look */
	int status, error;
	char message[CALL_MESSAGE_MAX];
	int64_t since_ns;
	struct remote_file *files; /* what the look has found */
	size_t n_files;
	bool failed;

	size_t match[]; /* n of them */
};

static void set_all(struct upload *u, enum remote_outcome outcome, int error, const char *message)
{
	for (size_t i = 0; i < u->n; i++)
		et_change_set(&u->items[i], outcome, error, message);
}

static void upload_end(struct upload *u)
{
	for (size_t i = 0; i < u->n_files; i++)
		remote_file_clear(&u->files[i]);
	free(u->files);
	u->done(u->ctx, 0, "");
	free(u);
}

/* By the server's clock, as far as it is known. */
static int64_t server_start_ns(const struct upload *u, int64_t date_s)
{
	int64_t now_s = clock_real_ns() / CLOCK_NS_PER_S + atomic_load(&u->p->skew_s);

	if (date_s > 0)
		now_s = date_s;
	return now_s * CLOCK_NS_PER_S - (clock_mono_ms() - u->began_ms) * (CLOCK_NS_PER_S / 1000);
}

static bool look_page(void *ctx, struct remote_record *records, size_t n_records,
		      struct remote_file *files, size_t n_files)
{
	struct upload *u = ctx;
	struct remote_file *grown =
		reallocarray(u->files, u->n_files + n_files + 1, sizeof(*grown));

	(void)records;
	(void)n_records;
	u->failed = !grown;
	if (!grown)
		return false;
	u->files = grown;
	for (size_t i = 0; i < n_files; i++) {
		u->files[u->n_files++] = files[i];
		files[i] = (struct remote_file){.size = -1};
	}
	return true;
}

/* The record is there, and this is what it holds. */
static void judge_look(struct upload *u)
{
	size_t found = 0;

	et_match_files(u->files, u->n_files, u->since_ns, u->items, u->n, u->match);
	for (size_t i = 0; i < u->n; i++)
		found += u->match[i] != SIZE_MAX;
	for (size_t i = 0; i < u->n; i++) {
		if (u->match[i] == SIZE_MAX) {
			et_change_set(&u->items[i], found > 0 ? REMOTE_RETRY : REMOTE_REFUSED,
				      u->error, u->message);
			continue;
		}
		u->items[i].file = u->files[u->match[i]];
		u->files[u->match[i]] = (struct remote_file){.size = -1};
		et_change_set(&u->items[i], REMOTE_DONE, 0, "");
	}
	if (found > 0)
		log_info("enterprise-tester: upload to %s %s: of %zu files %zu were kept: %s",
			 u->c->name, u->record, u->n, found, u->message);
}

static void look_done(void *ctx, int error, const char *message)
{
	struct upload *u = ctx;

	if (u->failed)
		error = -ENOMEM;
	if (error == 0)
		judge_look(u);
	else if (error == -ENOENT)
		set_all(u, REMOTE_GONE, -ENOENT, "the record is gone from the server");
	else
		set_all(u, REMOTE_UNKNOWN, error, message);
	upload_end(u);
}

static void look(struct upload *u)
{
	struct remote_sink sink = {look_page, look_done, u};
	int r = et_list_record(&u->p->base, u->class, u->c->name, u->record, &sink);

	if (r == 0)
		return;
	set_all(u, REMOTE_UNKNOWN, r, "the answer was lost");
	upload_end(u);
}

/* What the server says it has now of this item. */
static void judge_row(struct upload *u, struct remote_change *item, const json_t *row)
{
	int r = row ? et_decode_file(row, u->record, &item->file) : -EIO;
	char message[CALL_MESSAGE_MAX];

	if (r == 1) {
		snprintf(message, sizeof(message),
			 "the server keeps '%.80s' but gives it no id (E-7): it can be neither "
			 "shown nor deleted here",
			 item->name);
		et_change_set(item, REMOTE_REFUSED, -EIO, message);
		return;
	}
	if (r < 0) {
		et_change_set(item, REMOTE_UNKNOWN, r, "the answer does not name the file");
		return;
	}
	et_watch_touched(u->p, u->c, u->record, item->file.ctime_ns);
	if (item->file.size < 0 || (uint64_t)item->file.size == item->size) {
		et_change_set(item, REMOTE_DONE, 0, "");
		return;
	}
	snprintf(message, sizeof(message),
		 "the server keeps %lld of the %llu bytes of '%.80s' (attachment %s): look at it "
		 "there, then try again",
		 (long long)item->file.size, (unsigned long long)item->size, item->name,
		 item->file.id);
	remote_file_clear(&item->file);
	et_change_set(item, REMOTE_REFUSED, -EIO, message);
}

static void judge_answer(struct upload *u, const json_t *rows)
{
	et_match_answer(rows, u->items, u->n, u->match);
	for (size_t i = 0; i < u->n; i++)
		judge_row(u, &u->items[i],
			  u->match[i] != SIZE_MAX ? json_array_get(rows, u->match[i]) : NULL);
}

/* Words for a person: what the server said, and where that helps, what to do. */
static void describe(struct upload *u, const struct call_reply *reply)
{
	const char *hint = "";

	if (reply->status == 415 || (reply->status == 403 && strcasestr(reply->message, "no file")))
		hint = u->p->multipart == OPTIONS_MULTIPART_MIXED ? "; try multipart=form"
								  : "; try multipart=mixed";
	else if (u->error == -EFBIG)
		hint = "; the request may be too large for the server (IIS allows 30,000,000 "
		       "bytes, ASP.NET 4 MB)";
	snprintf(u->message, sizeof(u->message), "%.150s%s", reply->message, hint);
}

static void upload_reply(void *ctx, const struct call_reply *reply)
{
	struct upload *u = ctx;
	json_t *rows = reply->error == 0 ? et_rows(reply->json) : NULL;
	bool must_look;

	et_note_reply(u->p, reply);
	enum remote_outcome outcome =
		et_judge(reply, ET_UPLOAD, u->n, u->bytes, &u->error, &must_look);
	if (outcome == REMOTE_DONE && rows) {
		judge_answer(u, rows);
	} else if (outcome == REMOTE_DONE) {
		set_all(u, REMOTE_UNKNOWN, -EIO, "the answer holds no list of attachments");
	} else {
		describe(u, reply);
		u->since_ns = server_start_ns(u, reply->date_s);
		if (must_look) {
			look(u);
			return;
		}
		set_all(u, outcome, u->error, u->message);
	}
	upload_end(u);
}

static int send_upload(struct upload *u)
{
	char path[ET_PATH_SIZE], template[ET_PATH_SIZE];

	et_files_path(u->c, u->record, path);
	et_files_path(u->c, NULL, template);
	struct call *call = et_call(u->p, u->class, "POST", path, template);
	call_set_multipart_type(call, "multipart/mixed"); /* E-6 */
	for (size_t i = 0; i < u->n; i++) {
		const struct remote_change *item = &u->items[i];
		char *disposition = et_disposition(u->p->multipart, item->name, item->size);

		/* Without memory the part has no disposition, and the call does not start. */
		call_add_file_as(call, disposition, et_media_type(item->name),
				 u->p->multipart == OPTIONS_MULTIPART_MIXED, item->fd, item->size);
		free(disposition);
	}
	return call_start(call, upload_reply, u);
}

/* Items that must not get into a request, or not into one. */
static bool is_sound(const struct remote_change *items, size_t n, const struct et_collection *c)
{
	for (size_t i = 0; i < n; i++)
		if (!items[i].name || *items[i].name == '\0' || !items[i].record ||
		    !items[i].collection || strcmp(items[i].collection, c->name) != 0 ||
		    strcmp(items[i].record, items[0].record) != 0 || items[i].filler)
			return false;
	return et_is_record(c, items[0].record);
}

int et_create(struct remote *r, enum transfer_class class, struct remote_change *items, size_t n,
	      remote_done *done, void *ctx)
{
	const struct et_collection *c = n > 0 ? et_find_collection(items[0].collection) : NULL;

	if (!c || n > ET_UPLOAD_MAX || !is_sound(items, n, c))
		return -EINVAL;
	struct upload *u = calloc(1, sizeof(*u) + n * sizeof(u->match[0]));
	if (!u)
		return -ENOMEM;
	u->p = (struct et *)r;
	u->class = class;
	u->c = c;
	u->done = done;
	u->ctx = ctx;
	u->items = items;
	u->n = n;
	u->began_ms = clock_mono_ms();
	snprintf(u->record, sizeof(u->record), "%s", items[0].record);
	for (size_t i = 0; i < n; i++) {
		et_change_reset(&items[i]);
		u->bytes += items[i].size;
	}
	int error = send_upload(u);
	if (error < 0)
		free(u);
	return error;
}
