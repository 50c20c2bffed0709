/* SPDX-License-Identifier: MIT */

/*
 * Writing content: create and replace, one multipart POST per item (batch create never works, P-3),
 * side by side.
 *
 * - A replacement is a POST with the field _method=PATCH: a real PATCH multipart is answered 200
 * and ignored by older servers (P-2). That the `path` is another one afterwards is the proof.
 * - The part's filename becomes the file's, but mangled on the way (P-15). A tame name is uploaded
 *   as it is; one that would not survive under the caller's token, and so is a replacement that
 *   leaves the name alone. The caller sees raw_filename in the answer and sends an update.
 * - The server never checks that the owner exists (P-16), but says whether it does when asked to
 *   include the model in its answer: a file that has become nobody's is deleted again at once.
 * - The answer is what the server holds, not what was asked (P-18): it is handed back as it is.
 */

#include "perscom.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#include "json.h"

struct upload {
	struct perscom *p;
	enum perscom_verb verb;
	remote_done *done;
	void *ctx;
	atomic_size_t pending; /* items not decided, and one for the starter */
};

/* One item's call. */
struct upload_item {
	struct upload *upload;
	struct remote_change *item;
};

static void set_outcome(struct remote_change *item, enum remote_outcome outcome, int error,
			const char *message)
{
	item->outcome = outcome;
	item->error = error;
	snprintf(item->message, sizeof(item->message), "%s", message);
}

static void upload_end(void *ctx)
{
	struct upload *u = ctx;

	u->done(u->ctx, 0, "");
	free(u);
}

/* What the server says it has now. The call itself was a success. */
static void judge_answer(struct upload *u, struct remote_change *item, const json_t *root)
{
	bool create = u->verb == PERSCOM_CREATE;
	int r = perscom_decode_file(&u->p->server, json_object_get(root, "data"), u->p->names,
				    &item->file);

	if (r < 0) {
		set_outcome(item, create ? REMOTE_UNKNOWN : REMOTE_RETRY, r,
			    "the answer holds no attachment");
		return;
	}
	perscom_remember(u->p, &item->file, 1);
	if (create || !item->version || strcmp(item->version, item->file.version) != 0)
		return;
	set_outcome(item, REMOTE_REFUSED, -EIO, "the server ignored the upload (P-2)");
	log_error("perscom: replace attachment %s: the server answered 200 and ignored the upload "
		  "(P-2)",
		  item->id);
}

static void item_end(struct upload_item *one)
{
	struct upload *u = one->upload;

	free(one);
	if (atomic_fetch_sub(&u->pending, 1) == 1)
		upload_end(u);
}

static void orphan_reply(void *ctx, const struct call_reply *reply)
{
	struct upload_item *one = ctx;
	struct remote_change *item = one->item;

	if (reply->error < 0 && reply->error != -ENOENT)
		log_error("perscom: attachment %s of '%s' belongs to nobody (P-16) and cannot be "
			  "deleted: %s",
			  item->file.id, item->name, reply->message);
	remote_file_clear(&item->file);
	set_outcome(item, REMOTE_REFUSED, -ENOENT, "the record is gone from the server");
	item_end(one);
}

/* Created for an owner that does not exist: false when it cannot even be tried to delete it. */
static bool delete_orphan(struct upload_item *one)
{
	char path[REMOTE_ID_MAX + 32];

	snprintf(path, sizeof(path), "attachments/%s", one->item->file.id);
	struct call *call = perscom_call(one->upload->p, TRANSFER_WRITEBACK, "DELETE", path,
					 "attachments/{id}");
	call_set_idempotent(call, true);
	return call_start(call, orphan_reply, one) == 0;
}

static bool is_orphan(const struct upload_item *one, const json_t *root)
{
	return one->upload->verb == PERSCOM_CREATE && one->item->outcome == REMOTE_DONE &&
	       one->item->file.id &&
	       json_is_null(json_object_get(json_get_object(root, "data"), "model"));
}

static void upload_reply(void *ctx, const struct call_reply *reply)
{
	struct upload_item *one = ctx;
	struct upload *u = one->upload;
	struct remote_change *item = one->item;
	int error;

	perscom_note_reply(u->p, reply);
	enum remote_outcome outcome = perscom_judge(reply, u->verb, 1, &error);
	set_outcome(item, outcome, error, outcome == REMOTE_DONE ? "" : reply->message);
	if (outcome == REMOTE_DONE)
		judge_answer(u, item, reply->json);
	if (is_orphan(one, reply->json)) {
		if (delete_orphan(one))
			return;
		log_error("perscom: attachment %s of '%s' belongs to nobody (P-16) and is not "
			  "deleted",
			  item->file.id, item->name);
		remote_file_clear(&item->file);
		set_outcome(item, REMOTE_UNKNOWN, -ECANCELED, "the record is gone from the server");
	}
	item_end(one);
}

static void add_content(struct call *call, const struct remote_change *item)
{
	char filler[PERSCOM_CREATE_MIN];

	if (!item->filler) {
		call_add_file(call, "file", perscom_part_filename(item), item->fd, item->size);
		return;
	}
	perscom_fill(filler, sizeof(filler));
	call_add_data(call, "file", perscom_part_filename(item), filler, sizeof(filler));
}

static struct call *make_create(struct perscom *p, enum transfer_class class,
				const struct remote_change *item)
{
	struct call *call =
		perscom_call(p, class, "POST", "attachments?include=model", "attachments");

	call_add_field(call, "model_type", perscom_find_collection(item->collection)->model_type);
	call_add_field(call, "model_id", item->record);
	call_set_scope(call, "create:attachment");
	return call;
}

static struct call *make_replace(struct perscom *p, enum transfer_class class,
				 const struct remote_change *item)
{
	char path[REMOTE_ID_MAX + 32];

	snprintf(path, sizeof(path), "attachments/%s", item->id);
	struct call *call = perscom_call(p, class, "POST", path, "attachments/{id}");
	call_add_field(call, "_method", "PATCH");
	/* Twice the same content is once the same content. */
	call_set_idempotent(call, true);
	call_set_scope(call, "update:attachment");
	return call;
}

static int send_item(struct upload *u, enum transfer_class class, struct remote_change *item)
{
	bool create = u->verb == PERSCOM_CREATE;
	struct upload_item *one = malloc(sizeof(*one));
	char when[32];

	if (!one)
		return -ENOMEM;
	*one = (struct upload_item){u, item};
	struct call *call =
		create ? make_create(u->p, class, item) : make_replace(u->p, class, item);
	if (item->name)
		call_add_field(call, "name", item->name);
	if (perscom_format_time(item->mtime_ns, when))
		call_add_field(call, "updated_at", when);
	add_content(call, item);
	int r = call_start(call, upload_reply, one);
	if (r < 0)
		free(one);
	return r;
}

/* What must not get into a URL or be sent at all. */
static bool is_sound(const struct remote_change *item, enum perscom_verb verb)
{
	if (verb == PERSCOM_REPLACE)
		return json_is_id(item->id);
	return item->name && *item->name != '\0' && json_is_id(item->record) &&
	       perscom_find_collection(item->collection);
}

static int upload(struct remote *r, enum transfer_class class, enum perscom_verb verb,
		  struct remote_change *items, size_t n, remote_done *done, void *ctx)
{
	for (size_t i = 0; i < n; i++)
		if (!is_sound(&items[i], verb))
			return -EINVAL;
	struct upload *u = malloc(sizeof(*u));
	if (!u)
		return -ENOMEM;
	*u = (struct upload){.p = (struct perscom *)r, .verb = verb, .done = done, .ctx = ctx};
	atomic_init(&u->pending, n + 1);
	size_t failed = 0;
	int error = 0;
	for (size_t i = 0; i < n; i++) {
		perscom_change_reset(&items[i]);
		int e = send_item(u, class, &items[i]);
		if (e == 0)
			continue;
		set_outcome(&items[i], REMOTE_RETRY, e, "not sent");
		error = e;
		failed++;
	}
	if (failed == n && error < 0) {
		free(u);
		return error;
	}
	/* Those that failed and the starter's own: whoever comes last ends it, on the pool. */
	if (atomic_fetch_sub(&u->pending, failed + 1) == failed + 1 &&
	    pool_run(r->pool, upload_end, u) < 0)
		upload_end(u);
	return 0;
}

int perscom_create(struct remote *r, enum transfer_class class, struct remote_change *items,
		   size_t n, remote_done *done, void *ctx)
{
	return upload(r, class, PERSCOM_CREATE, items, n, done, ctx);
}

int perscom_replace(struct remote *r, enum transfer_class class, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx)
{
	return upload(r, class, PERSCOM_REPLACE, items, n, done, ctx);
}
