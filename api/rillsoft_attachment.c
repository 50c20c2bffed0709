/* SPDX-License-Identifier: MIT */

/*
 * Family 1: the one documented call uploads bytes to an attachment that is there already, for whoever
 * knows its id. Which of project_id and portfolio_id it wants is not said: those go along
 * that the options give.
 */

#include "rillsoft.h"

#include <errno.h>
#include <string.h>

bool rillsoft_is_attachments(const char *collection)
{
	return collection && strcmp(collection, RILLSOFT_ATTACHMENTS) == 0;
}

bool rillsoft_has_attachment(const struct rillsoft *ris, const char *id)
{
	for (size_t i = 0; i < ris->n_attachments; i++)
		if (strcmp(ris->attachments[i], id) == 0)
			return true;
	return false;
}

static void on_uploaded(void *ctx, const struct call_reply *reply)
{
	struct rillsoft_job *job = ctx;

	if (reply->status == 404) {
		rillsoft_job_end(job, REMOTE_REFUSED, -ENOENT,
				 "the server has no attachment %s%s: %.120s; check attachments=, "
				 "project= and portfolio=",
				 job->item->id, job->ris->scope, reply->message);
		return;
	}
	if (reply->status < 200 || reply->status >= 300) {
		rillsoft_job_judge(job, reply);
		return;
	}
	if (rillsoft_make_attachment(job->item->id, &job->item->file))
		rillsoft_job_end(job, REMOTE_DONE, 0, "%s", "");
	else
		rillsoft_job_end(job, REMOTE_RETRY, -ENOMEM, "out of memory");
}

void rillsoft_attachment_begin(struct rillsoft_job *job)
{
	const struct remote_change *item = job->item;
	struct rillsoft_ids ids = {.cid = job->ris->client, .aid = item->id};
	struct call *call =
		rillsoft_call(job->ris, job->class, "POST", RILLSOFT_UPLOAD, &ids, job->ris->scope);

	call_add_file(call, "file",
		      item->name && rillsoft_is_tame(item->name) ? item->name : item->id, item->fd,
		      item->size);
	call_set_any_answer(call);
	rillsoft_job_start_call(job, call, on_uploaded);
}
