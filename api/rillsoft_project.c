/* SPDX-License-Identifier: MIT */

/*
 * The collections: the client's active projects, and "attachments" where the option names some.
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

struct projects {
	struct rillsoft *ris;
	remote_collections_done *done;
	void *ctx;
};

/* There is room for one more. */
static int add_attachments(struct remote_collection *list, size_t *n)
{
	list[*n] = (struct remote_collection){strdup(RILLSOFT_ATTACHMENTS),
					      strdup(RILLSOFT_ATTACHMENTS)};
	++*n;
	return list[*n - 1].id && list[*n - 1].name ? 0 : -ENOMEM;
}

static void on_projects(void *ctx, const struct call_reply *reply)
{
	struct projects *op = ctx;
	struct remote_collection *list = NULL;
	const char *message = reply->message;
	int error = reply->error;
	size_t n = 0;

	if (error == 0) {
		error = rillsoft_decode_projects(reply->json, &list, &n);
		if (error == -EIO)
			message = "the answer is not what Rillsoft sends: no list of projects";
	}
	if (error == -ENOENT)
		message = "the server knows no such client; check client=";
	if (error == 0 && op->ris->n_attachments > 0)
		error = add_attachments(list, &n);
	op->done(op->ctx, error, error == 0 ? list : NULL, error == 0 ? n : 0, message);
	if (list)
		rillsoft_collections_free(list, n);
	free(op);
}

int rillsoft_list_collections(struct remote *r, enum transfer_class class,
			      remote_collections_done *done, void *ctx)
{
	struct rillsoft *ris = (struct rillsoft *)r;
	struct rillsoft_ids ids = {.cid = ris->client};
	struct projects *op = malloc(sizeof(*op));

	if (!op)
		return -ENOMEM;
	*op = (struct projects){ris, done, ctx};
	struct call *call = rillsoft_call(ris, class, "GET", RILLSOFT_PROJECTS, &ids, "");
	call_set_idempotent(call, true);
	call_set_scope(call, "Read project");
	int error = call_start(call, on_projects, op);
	if (error < 0)
		free(op);
	return error;
}
