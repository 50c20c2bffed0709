/* SPDX-License-Identifier: MIT */

/*
 * What attachfs check asks PERSCOM. Whether something may be written is asked by requests that are
 * too empty to change anything: scopes are looked at before the body (section 1 of the reference),
 * so 403 means no, and 422, or an empty list deleted, means yes.
 */

#include "perscom.h"

#include <stdio.h>
#include <string.h>

#include "check.h"
#include "json.h"

static struct call *ask_view(struct remote *r)
{
	struct call *call = perscom_search((struct perscom *)r, TRANSFER_INTERACTIVE, "attachments",
					   "", 1, perscom_body_newest(NULL));

	call_set_scope(call, "view:attachment");
	return call;
}

/* Which release it is, as far as answers differ (the first table of the reference). */
static const char *guess_release(const json_t *root)
{
	const json_t *links = json_get_array(json_get_object(root, "meta"), "links");
	const json_t *row = json_array_get(json_get_array(root, "data"), 0);
	const char *url = json_get_text(row, "attachment_url");

	if (json_object_get(json_array_get(links, 0), "page"))
		return "a release of 3.0 or newer";
	if (json_object_get(row, "deleted_at"))
		return "a release before 2.4";
	if (url && perscom_url_expiry(url) != INT64_MAX)
		return "a release of 2.9.16 or newer (links expire)";
	return "its release cannot be told from here";
}

static int judge_view(struct check *c, const struct call_reply *reply)
{
	struct perscom *p = (struct perscom *)c->remote;

	if (reply->error < 0) {
		check_tell(c, REMOTE_BAD, "may read", "attachments: no: %s", reply->message);
		return reply->error == -EACCES && reply->status == 403 ? 0 : reply->error;
	}
	check_tell_token(c);
	check_tell(c, REMOTE_FINE, "server", "PERSCOM %s at %s, %s", p->server.version,
		   p->server.host, guess_release(reply->json));
	check_tell(c, REMOTE_FINE, "may read", "attachments: yes, %lld there",
		   (long long)json_get_integer(json_get_object(reply->json, "meta"), "total", 0));
	check_tell_clock(c, reply);
	check_tell_rate(c, reply);
	return 0;
}

static int tell_right(struct check *c, const struct call_reply *reply, const char *what,
		      const char *scope)
{
	if (reply->status == 422 || reply->error == 0)
		check_tell(c, REMOTE_FINE, "may write", "%s: yes", what);
	else if (reply->status == 403)
		check_tell(c, REMOTE_NOTE, "may write", "%s: no, the key needs the scope %s", what,
			   scope);
	else
		check_tell(c, REMOTE_NOTE, "may write", "%s: cannot be told: %s", what,
			   reply->message);
	return reply->error == -EHOSTDOWN || reply->error == -ETIMEDOUT ? reply->error : 0;
}

static struct call *ask_with(struct remote *r, const char *method, const char *path, json_t *body)
{
	struct call *call =
		perscom_call((struct perscom *)r, TRANSFER_INTERACTIVE, method, path, path);

	call_set_json_take(call, body);
	return call;
}

/* Without name and file: 422 at most. */
static struct call *ask_create(struct remote *r)
{
	return ask_with(r, "POST", "attachments", json_object());
}

static int judge_create(struct check *c, const struct call_reply *reply)
{
	return tell_right(c, reply, "new attachments", "create:attachment");
}

static struct call *ask_update(struct remote *r)
{
	return ask_with(r, "PATCH", "attachments/batch", json_pack("{s:{}}", "resources"));
}

static int judge_update(struct check *c, const struct call_reply *reply)
{
	return tell_right(c, reply, "rename, move and replace", "update:attachment");
}

static struct call *ask_remove(struct remote *r)
{
	return ask_with(r, "DELETE", "attachments/batch", json_pack("{s:[]}", "resources"));
}

static int judge_remove(struct check *c, const struct call_reply *reply)
{
	return tell_right(c, reply, "delete", "delete:attachment");
}

static struct call *ask_events(struct remote *r)
{
	return ask_with(r, "PATCH", "events/batch", json_pack("{s:{}}", "resources"));
}

static int judge_events(struct check *c, const struct call_reply *reply)
{
	return tell_right(c, reply, "names and fields of events", "update:event");
}

int perscom_check(struct remote *r, remote_finding *each, remote_done *done, void *ctx)
{
	static const struct check_step steps[] = {
		{ask_view, judge_view},	    {ask_create, judge_create}, {ask_update, judge_update},
		{ask_remove, judge_remove}, {ask_events, judge_events}, {NULL, NULL},
	};

	return check_start(r, steps, each, done, ctx);
}
