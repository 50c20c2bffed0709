/* SPDX-License-Identifier: MIT */

/* One record: its fields as text, and a new temporary set (section 5). */

#include "enterprise_tester.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

struct record_text {
	struct et *p;
	const struct et_collection *c;
	char part[ET_GUID_SIZE]; /* of what the run shows; "" = the answer is the record */
	remote_text_done *done;
	void *ctx;
};

/* The row of the record in the answer; NULL = not there. */
static const json_t *find_part(const struct record_text *op, const json_t *root)
{
	const json_t *rows = op->c->expand ? json_get_array(root, op->c->expand) : et_rows(root);
	char id[ET_GUID_SIZE];

	if (op->part[0] == '\0')
		return root;
	for (size_t i = 0; i < json_array_size(rows); i++) {
		const json_t *row = json_array_get(rows, i);
		if (et_get_guid(row, "Id", id) && strcmp(id, op->part) == 0)
			return row;
	}
	return NULL;
}

static void record_json_done(void *ctx, const struct call_reply *reply)
{
	struct record_text *op = ctx;
	const json_t *row = reply->error == 0 ? find_part(op, reply->json) : NULL;
	const char *message = reply->message;
	int error = reply->error;

	et_note_reply(op->p, reply);
	if (error == 0 && !row) {
		error = -ENOENT;
		message = "the run does not show this part of it";
	}
	if (error == 0 && !json_is_object(row))
		error = -EIO;
	call_give_fields(error, row, message, op->done, op->ctx);
	free(op);
}

/*
 * A step of an agile run and a result node have no address of their own to GET: the run shows them
 * (a node below another one only to those who ask for that one's children).
 */
static void make_paths(struct record_text *op, const char *record, char path[ET_PATH_SIZE],
		       char template[ET_PATH_SIZE])
{
	char run[ET_GUID_SIZE] = "";

	if (!op->c->part) {
		et_owner_path(op->c, record, path);
		et_owner_path(op->c, NULL, template);
		return;
	}
	et_split_id(record, run, op->part);
	if (op->c->expand) {
		snprintf(path, ET_PATH_SIZE, "%s/%s?$expand=%s", op->c->row, run, op->c->expand);
		snprintf(template, ET_PATH_SIZE, "%s/{id}", op->c->row);
	} else {
		snprintf(path, ET_PATH_SIZE, "%s/%s/nodes", op->c->row, run);
		snprintf(template, ET_PATH_SIZE, "%s/{id}/nodes", op->c->row);
	}
}

int et_record_json(struct remote *r, const char *collection, const char *record,
		   remote_text_done *done, void *ctx)
{
	const struct et_collection *c = et_find_collection(collection);
	char path[ET_PATH_SIZE], template[ET_PATH_SIZE];

	if (!c || !et_is_record(c, record))
		return -EINVAL;
	struct record_text *op = malloc(sizeof(*op));
	if (!op)
		return -ENOMEM;
	*op = (struct record_text){.p = (struct et *)r, .c = c, .done = done, .ctx = ctx};
	make_paths(op, record, path, template);
	struct call *call = et_call(op->p, TRANSFER_INTERACTIVE, "GET", path, template);
	call_set_idempotent(call, true);
	int error = call_start(call, record_json_done, op);
	if (error < 0)
		free(op);
	return error;
}

struct making {
	struct et *p;
	remote_record_done *done;
	void *ctx;
};

static void make_record_done(void *ctx, const struct call_reply *reply)
{
	struct making *op = ctx;
	char id[ET_GUID_SIZE] = "";
	const char *message = reply->message;
	int error = reply->error;

	et_note_reply(op->p, reply);
	if (error == 0 && !et_get_guid(reply->json, "Id", id)) {
		error = -EIO;
		message = "the server made a set but gives it no id (E-7): nothing can be put into "
			  "it";
	}
	op->done(op->ctx, error, error == 0 ? id : NULL, message);
	free(op);
}

int et_make_record(struct remote *r, const char *collection, const char *name,
		   remote_record_done *done, void *ctx)
{
	const struct et_collection *c = et_find_collection(collection);
	struct making *op;

	(void)name; /* a set has none */
	if (!c || c->shape != ET_UNLISTED)
		return -EINVAL;
	op = malloc(sizeof(*op));
	if (!op)
		return -ENOMEM;
	*op = (struct making){(struct et *)r, done, ctx};
	/* One letter more than the address of one (E-14). */
	struct call *call = et_call(op->p, TRANSFER_INTERACTIVE, "POST", "temporaryattachmentsets",
				    "temporaryattachmentsets");
	int error = call_start(call, make_record_done, op);
	if (error < 0)
		free(op);
	return error;
}
