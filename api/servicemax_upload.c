/* SPDX-License-Identifier: MIT */

/*
 * Writing content. New files go up to twenty in one multipart POST, for all are of one record; a
 * replacement is a POST of its own with ?document_id=, under the name the file has (section 6 of the
 * reference).
 *
 * - A POST under a name that is taken makes a new version of that file. So a lost answer is
 *   UNKNOWN, never sent again here; and the same name never goes twice in one POST (S-15).
 * - The answer names what was added or changed, in any order: each item is found by its name. Whose
 *   name is not there must be looked for.
 * - Files have no rename. One that came back under another name than asked for (another case, a
 *   path cut off) is not what was wanted, and saying "done" would have the name it has deleted
 *   in the wrong belief: it is refused, with the file as it is. Where it is but the case that
 *   differs, the bytes became a new version of somebody else's file, and that is taken back. Two
 *   such names never go in one POST.
 * - A POST of several that is refused for what one of them may be to blame for is sent again one by
 *   one.
 */

#include "servicemax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>
#include <attachfs/pool.h>

#include "json.h"

#define BYTES_MAX ((uint64_t)64 << 20) /* of several files in one POST */

struct upload {
	struct servicemax *p;
	enum transfer_class class;
	enum servicemax_verb verb;
	remote_done *done;
	void *ctx;
	atomic_size_t pending; /* POSTs under way, and one for the starter */
};

/* One POST. */
struct post {
	struct servicemax_write write; /* first */
	struct upload *upload;
	size_t n;
	struct remote_change *items[];
};

void servicemax_settle(struct remote_change *item, enum remote_outcome outcome, int error,
		       const char *message)
{
	item->outcome = outcome;
	item->error = error;
	snprintf(item->message, sizeof(item->message), "%.255s", message);
}

void servicemax_change_reset(struct remote_change *item)
{
	item->file = (struct remote_file){
		.size = -1, .mtime_ns = REMOTE_TIME_NONE, .ctime_ns = REMOTE_TIME_NONE};
	servicemax_settle(item, REMOTE_RETRY, -ECANCELED, "not sent");
}

static void upload_end(void *ctx)
{
	struct upload *u = ctx;

	u->done(u->ctx, 0, "");
	free(u);
}

static void post_end(struct upload *u, size_t n)
{
	if (atomic_fetch_sub(&u->pending, n) == n)
		upload_end(u);
}

/* The name an item goes by: a replacement keeps the one the file has. */
static const char *name_of(const struct upload *u, const struct remote_change *item)
{
	if (u->verb == SERVICEMAX_REPLACE_FILE && item->known_name)
		return item->known_name;
	return item->name;
}

static void add_file(struct call *call, const char *name, const struct remote_change *item)
{
	if (!strpbrk(name, "\"\\")) {
		call_add_file(call, "file", name, item->fd, item->size);
		return;
	}
	char *disposition = servicemax_disposition(name);
	if (disposition)
		call_add_file_as(call, disposition, NULL, false, item->fd, item->size);
	else
		call_add_file(call, "file", name, item->fd, item->size);
	free(disposition);
}

static struct call *make_post(struct servicemax_write *w)
{
	struct post *post = (struct post *)w;
	struct upload *u = post->upload;
	const struct remote_change *first = post->items[0];
	char path[SERVICEMAX_OBJECT_MAX + 160];
	bool replace = u->verb == SERVICEMAX_REPLACE_FILE;

	snprintf(path, sizeof(path), "/v2/%s/%s/attachments%s%s", first->collection, first->record,
		 replace ? "?document_id=" : "", replace ? first->id : "");
	struct call *call = servicemax_call(w->p, u->class, "POST", path,
					    replace ? "/v2/{object}/{uuid}/attachments?document_id"
						    : "/v2/{object}/{uuid}/attachments");
	for (size_t i = 0; i < post->n; i++)
		add_file(call, name_of(u, post->items[i]), post->items[i]);
	return call;
}

/*
 * Which of the answer's files is the item's: the replaced one by its id, a new one by its name, or
 * else by what a server may make of a name; @alone: the only one sent and the only one there.
 */
static struct remote_file *find_file(const struct upload *u, const struct remote_change *item,
				     struct servicemax_page *page, bool alone)
{
	for (size_t i = 0; i < page->n_files; i++) {
		struct remote_file *f = &page->files[i];
		if (f->id &&
		    strcmp(u->verb == SERVICEMAX_REPLACE_FILE ? f->id : f->raw_name,
			   u->verb == SERVICEMAX_REPLACE_FILE ? item->id : item->name) == 0)
			return f;
	}
	for (size_t i = 0; u->verb == SERVICEMAX_CREATE_FILE && i < page->n_files; i++)
		if (page->files[i].id && strcasecmp(page->files[i].raw_name, item->name) == 0)
			return &page->files[i];
	for (size_t i = 0; item->known_name && i < page->n_files; i++)
		if (page->files[i].id && strcmp(page->files[i].raw_name, item->known_name) == 0)
			return &page->files[i];
	return alone && page->n_files == 1 && page->files[0].id ? &page->files[0] : NULL;
}

static void judge_create(struct remote_change *item)
{
	char words[256];

	if (strcmp(item->file.raw_name, item->name) == 0)
		return;
	snprintf(words, sizeof(words),
		 "the server keeps it under another name, '%.100s': rename it to that, or to "
		 "something quite different",
		 item->file.raw_name);
	servicemax_settle(item, REMOTE_REFUSED, -EEXIST, words);
}

static void judge_replace(struct remote_change *item)
{
	/* A new version may have another UUID (section 6): the name is what tells files apart. */
	if (strcmp(item->file.id, item->id) != 0 &&
	    (!item->known_name || strcmp(item->file.raw_name, item->known_name) != 0))
		servicemax_settle(item, REMOTE_REFUSED, -EIO,
				  "the server made another file of it: look at both");
	else if (item->version && strcmp(item->version, item->file.version) == 0 &&
		 item->file.size >= 0 && (uint64_t)item->file.size != item->size)
		servicemax_settle(item, REMOTE_REFUSED, -EIO, "the server ignored the upload");
}

/* What the server says it has now. */
static void judge_file(const struct upload *u, struct remote_change *item, struct remote_file *f)
{
	if (!f) {
		servicemax_settle(item, REMOTE_UNKNOWN, -EIO,
				  "the server said yes but does not name the file");
		return;
	}
	item->file = *f;
	*f = (struct remote_file){0};
	servicemax_settle(item, REMOTE_DONE, 0, "");
	if (u->verb == SERVICEMAX_CREATE_FILE)
		judge_create(item);
	else
		judge_replace(item);
	if (item->outcome == REMOTE_DONE && item->file.size >= 0 &&
	    (uint64_t)item->file.size != item->size) {
		char words[160];
		snprintf(words, sizeof(words),
			 "the server says it has %lld bytes of it, but %llu were sent",
			 (long long)item->file.size, (unsigned long long)item->size);
		servicemax_settle(item, REMOTE_REFUSED, -EIO, words);
	}
}

static void judge_answer(struct post *post, const json_t *json)
{
	struct servicemax_page page = {0};
	int r = servicemax_decode_files(&post->write.p->server, post->items[0]->record, json,
					&page);

	for (size_t i = 0; i < post->n; i++) {
		if (r == 0)
			judge_file(post->upload, post->items[i],
				   find_file(post->upload, post->items[i], &page, post->n == 1));
		else
			servicemax_settle(post->items[i], REMOTE_UNKNOWN, r,
					  "the server said yes in words that are not ServiceMax's");
	}
	servicemax_page_clear(&page);
}

/* Versions that names of another case became are taken back. */
struct undo {
	struct post *post;
	size_t n;
	struct remote_change changes[];
};

static bool is_mistaken(const struct remote_change *item)
{
	return item->outcome == REMOTE_REFUSED && item->error == -EEXIST && item->file.id &&
	       item->file.size == (int64_t)item->size &&
	       strcasecmp(item->file.raw_name, item->name) == 0;
}

static void undo_done(void *ctx, int error, const char *message)
{
	static const char left[] = "; until then that one has the new bytes";
	struct undo *undo = ctx;
	struct post *post = undo->post;
	struct upload *u = post->upload;

	(void)error;
	(void)message;
	for (size_t i = 0, k = 0; i < post->n; i++) {
		struct remote_change *item = post->items[i];
		if (!is_mistaken(item) || undo->changes[k++].outcome == REMOTE_DONE)
			continue;
		log_warning("servicemax: cannot take a version of '%s' back: %s",
			    item->file.raw_name, undo->changes[k - 1].message);
		strncat(item->message, left, sizeof(item->message) - strlen(item->message) - 1);
	}
	for (size_t k = 0; k < undo->n; k++)
		remote_file_clear(&undo->changes[k].file);
	free(undo);
	free(post);
	post_end(u, 1);
}

/* True: it is on its way, and ends @post. */
static bool take_back(struct post *post)
{
	struct upload *u = post->upload;
	struct undo *undo = calloc(1, sizeof(*undo) + post->n * sizeof(undo->changes[0]));

	for (size_t i = 0; undo && i < post->n; i++) {
		const struct remote_change *item = post->items[i];
		if (u->verb == SERVICEMAX_CREATE_FILE && is_mistaken(item))
			undo->changes[undo->n++] =
				(struct remote_change){.collection = item->collection,
						       .record = item->record,
						       .known_name = item->file.raw_name};
	}
	if (!undo || undo->n == 0) {
		free(undo);
		return false;
	}
	undo->post = post;
	if (servicemax_remove_latest(&u->p->base, u->class, undo->changes, undo->n, undo_done,
				     undo) == 0)
		return true;
	free(undo);
	return false;
}

static void post_reply(struct servicemax_write *w, const struct call_reply *reply);

/* -errno: not sent, and the items say so. */
static int post_items(struct upload *u, struct remote_change *const *items, size_t n)
{
	struct post *post = calloc(1, sizeof(*post) + n * sizeof(post->items[0]));
	int r = -ENOMEM;

	if (post) {
		post->write = (struct servicemax_write){
			.p = u->p, .make = make_post, .reply = post_reply};
		post->upload = u;
		post->n = n;
		memcpy(post->items, items, n * sizeof(post->items[0]));
		r = servicemax_write_start(&post->write);
	}
	for (size_t i = 0; r < 0 && i < n; i++)
		servicemax_settle(items[i], REMOTE_RETRY, r, "not sent");
	if (r < 0)
		free(post);
	return r;
}

/* Whether one file alone might pass. */
static bool may_be_one_of_many(const struct post *post, const struct call_reply *reply)
{
	return post->n > 1 &&
	       (reply->status == 400 || reply->status == 409 || reply->status == 413 ||
		reply->status == 415 || reply->status == 422);
}

static void post_reply(struct servicemax_write *w, const struct call_reply *reply)
{
	struct post *post = (struct post *)w;
	struct upload *u = post->upload;
	int error;
	enum remote_outcome outcome = servicemax_judge(reply, u->verb, post->n, &error);
	size_t ended = 1;

	if (may_be_one_of_many(post, reply)) {
		atomic_fetch_add(&u->pending, post->n);
		for (size_t i = 0; i < post->n; i++)
			ended += post_items(u, &post->items[i], 1) < 0;
	} else if (outcome == REMOTE_DONE) {
		judge_answer(post, reply->json);
		if (take_back(post))
			return;
	} else {
		for (size_t i = 0; i < post->n; i++)
			servicemax_settle(post->items[i], outcome, error, reply->message);
	}
	free(post);
	post_end(u, ended);
}

/* What must not get into a URL or a header of a part. */
static bool is_sound(const struct remote_change *item, enum servicemax_verb verb)
{
	const char *name =
		verb == SERVICEMAX_REPLACE_FILE && item->known_name ? item->known_name : item->name;

	if (!servicemax_is_object(item->collection) || !item->record ||
	    !json_is_uuid(item->record) || !name || *name == '\0')
		return false;
	return verb == SERVICEMAX_CREATE_FILE || (item->id && json_is_uuid(item->id));
}

/* Items that are not to be sent at all: they have their outcome. */
static bool is_refused(struct upload *u, struct remote_change *items, size_t i)
{
	if (u->verb == SERVICEMAX_REPLACE_FILE)
		return false;
	int r = servicemax_check_name(items[i].name, REMOTE_CREATES);
	if (r < 0) {
		servicemax_settle(&items[i], REMOTE_REFUSED, r,
				  "a name with a comma, a slash, a backslash or control characters "
				  "cannot be told to the server (S-13)");
		return true;
	}
	for (size_t k = 0; k < i; k++) {
		if (strcasecmp(items[k].name, items[i].name) != 0)
			continue;
		servicemax_settle(&items[i], REMOTE_RETRY, -EBUSY,
				  "another file is being uploaded under this name");
		return true;
	}
	return false;
}

/* Hand the items over, as many in one POST as may be. What could not be sent is counted. */
static size_t send_all(struct upload *u, struct remote_change *items, size_t n, int *ret_error)
{
	struct remote_change *group[SERVICEMAX_CREATE];
	size_t in_group = 0, failed = 0;
	uint64_t bytes = 0;
	size_t max = u->verb == SERVICEMAX_CREATE_FILE ? SERVICEMAX_CREATE : 1;

	for (size_t i = 0; i <= n; i++) {
		bool full = in_group == max ||
			    (i < n && in_group > 0 && items[i].size > BYTES_MAX - bytes);
		if (in_group > 0 && (i == n || full)) {
			int r = post_items(u, group, in_group);
			failed += r < 0;
			*ret_error = r < 0 ? r : *ret_error;
			in_group = 0;
			bytes = 0;
		}
		if (i == n || is_refused(u, items, i))
			continue;
		group[in_group++] = &items[i];
		bytes += items[i].size < BYTES_MAX - bytes ? items[i].size : BYTES_MAX - bytes;
		atomic_fetch_add(&u->pending, in_group == 1);
	}
	return failed;
}

static int upload(struct remote *r, enum transfer_class class, enum servicemax_verb verb,
		  struct remote_change *items, size_t n, remote_done *done, void *ctx)
{
	for (size_t i = 0; i < n; i++)
		if (!is_sound(&items[i], verb) ||
		    (verb == SERVICEMAX_CREATE_FILE &&
		     (strcmp(items[i].record, items[0].record) != 0 ||
		      strcmp(items[i].collection, items[0].collection) != 0)))
			return -EINVAL;
	struct upload *u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	*u = (struct upload){.p = (struct servicemax *)r, .class = class, .verb = verb};
	u->done = done;
	u->ctx = ctx;
	atomic_init(&u->pending, 1);
	for (size_t i = 0; i < n; i++)
		servicemax_change_reset(&items[i]);
	int error = 0;
	size_t failed = send_all(u, items, n, &error);
	/* Those that failed and the starter's own: whoever comes last ends it, on the pool. */
	if (atomic_fetch_sub(&u->pending, failed + 1) == failed + 1 &&
	    pool_run(r->pool, upload_end, u) < 0)
		upload_end(u);
	return 0;
}

int servicemax_create(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx)
{
	return upload(r, class, SERVICEMAX_CREATE_FILE, items, n, done, ctx);
}

int servicemax_replace(struct remote *r, enum transfer_class class, struct remote_change *items,
		       size_t n, remote_done *done, void *ctx)
{
	return upload(r, class, SERVICEMAX_REPLACE_FILE, items, n, done, ctx);
}
