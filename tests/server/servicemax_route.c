/* SPDX-License-Identifier: MIT */
/* Where paths lead, and which verbs are known there. */
#include "servicemax.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>

#define SEGMENTS_MAX 5

/* A path's segments, each with a NUL behind it. */
struct path {
	char *text;
	char *at[SEGMENTS_MAX];
	size_t n;
};

/* Empty segments count: `/v2//attachments` names an object that is empty. */
static void split(const char *text, struct path *ret)
{
	char *s = xstrdup(*text == '/' ? text + 1 : text);

	*ret = (struct path){.text = s};
	while (s && ret->n < SEGMENTS_MAX) {
		char *slash = ret->n + 1 < SEGMENTS_MAX ? strchr(s, '/') : NULL;

		ret->at[ret->n++] = s;
		if (slash)
			*slash++ = '\0';
		s = slash;
	}
}

static bool is(const struct path *p, size_t i, const char *text)
{
	return i < p->n && strcmp(p->at[i], text) == 0;
}

static void wrong_verb(struct sm_call *c)
{
	sm_error(c, 405, "Method not allowed");
}

static void get(struct sm_call *c, void (*serve)(struct sm_call *c))
{
	if (sm_is_verb(c, "GET"))
		serve(c);
	else
		wrong_verb(c);
}

static void post(struct sm_call *c, void (*serve)(struct sm_call *c))
{
	if (sm_is_verb(c, "POST"))
		serve(c);
	else
		wrong_verb(c);
}

static bool check_write(struct sm_call *c)
{
	if (sm_may_write(c, c->object))
		return true;
	sm_error(c, 403, "No permission to change the attachments");
	return false;
}

/* S-12: DELETE has one path of two, or both; the other form is unknown to the server. */
static bool right_path(struct sm_call *c, bool singular)
{
	int64_t path = sm_set(c, SM_DELETE_PATH);

	if (!sm_is_verb(c, "DELETE") ? !singular
				     : path == DELETE_BOTH || (path == DELETE_SINGULAR) == singular)
		return true;
	if (sm_set(c, SM_DELETE_PATH_OTHER) != 0)
		wrong_verb(c);
	else
		sm_error(c, 404, "Not found");
	return false;
}

/* /v2/<object>/<uuid>/attachments, or /attachment. */
static void serve_attachments(struct sm_call *c, const char *uuid, bool singular)
{
	bool reading = sm_is_verb(c, "GET");
	bool deleting = sm_is_verb(c, "DELETE");

	if (!right_path(c, singular))
		return;
	if (!reading && !deleting && !sm_is_verb(c, "POST")) {
		wrong_verb(c);
		return;
	}
	c->record = sm_record_named(c, uuid, strlen(uuid));
	if (!c->record || (!reading && !check_write(c)))
		return;
	if (reading)
		sm_attachments_of_record(c);
	else if (deleting)
		sm_delete(c);
	else
		sm_upload(c);
}

static void serve_record(struct sm_call *c, const char *uuid)
{
	if (sm_is_verb(c, "GET"))
		sm_record_serve(c, uuid, strlen(uuid));
	else
		wrong_verb(c);
}

static void serve_object(struct sm_call *c, const struct path *p)
{
	if (p->n == 2)
		get(c, sm_list_serve);
	else if (p->n == 3 && is(p, 2, "count"))
		get(c, sm_list_count);
	else if (p->n == 3 && is(p, 2, "extended_read"))
		post(c, sm_list_extended);
	else if (p->n == 3 && is(p, 2, "new_record"))
		get(c, sm_record_new);
	else if (p->n == 3 && is(p, 2, "attachments"))
		get(c, sm_attachments_of_object);
	else if (p->n == 3)
		serve_record(c, p->at[2]);
	else if (p->n == 4 && (is(p, 3, "attachments") || is(p, 3, "attachment")))
		serve_attachments(c, p->at[2], is(p, 3, "attachment"));
	else
		sm_error(c, 404, "Not found");
}

static void serve_v2(struct sm_call *c, const struct path *p)
{
	if (!sm_authenticate(c) || !sm_csrf_check(c))
		return;
	if (p->n == 2 && is(p, 1, "user")) {
		get(c, sm_user_serve);
		return;
	}
	c->object = p->n > 1 ? store_collection(c->sm->emu->store, p->at[1]) : NULL;
	if (c->object)
		serve_object(c, p);
	else
		sm_error(c, 400, "The object identifier is not specified or is invalid");
}

/* What is not below /v2. S-17: the manual prints two paths of the token endpoint. */
static void serve_rest(struct sm_call *c)
{
	const char *path = c->rq->path;
	char token[32];
	size_t len;

	sm_choice(c, SM_TOKEN_PATH, token, sizeof(token));
	len = strlen(token);
	if (strcmp(path, "/oauth/client") == 0)
		get(c, sm_oauth_client);
	else if (strcmp(path, "/resources/js/csrf_script") == 0)
		get(c, sm_csrf_serve);
	else if (strcmp(path, token) == 0)
		post(c, sm_oauth_token);
	else if (strncmp(path, token, len) == 0 && strcmp(path + len, "/revoke") == 0)
		post(c, sm_oauth_revoke);
	else
		sm_error(c, 404, "Not found");
}

static void serve(struct sm_call *c, const struct path *p)
{
	if (p->n == 3 && is(p, 0, "document"))
		sm_document_serve(c, p->at[1], p->at[2]);
	else if (p->n == 3 && is(p, 0, "store"))
		sm_document_stored(c, p->at[1], p->at[2]);
	else if (c->rq->port == PORT_BLOB)
		sm_error(c, 404, "Not found");
	else if (is(p, 0, "v2"))
		serve_v2(c, p);
	else
		serve_rest(c);
}

void sm_route(struct sm_call *c)
{
	struct path p;

	split(c->rq->path, &p);
	serve(c, &p);
	free(p.text);
}
