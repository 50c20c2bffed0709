/* SPDX-License-Identifier: MIT */
/*
 * Where a path leads: a table of URL templates. Those the vendor has not documented are there when a
 * toggle says so. A path that some template has, but with another method, is 405.
 */
#include "rillsoft.h"

#include <stdlib.h>
#include <string.h>

#define CLIENT	 "/api/v2/clients/{cid}"
#define DOCUMENT CLIENT "/dms/projects/{pid}/documents/{did}"
#define ALWAYS	 (-1)

struct route {
	const char *method;
	const char *template;
	int setting; /* ALWAYS, or it is there while this toggle... */
	int value;   /* ...has this value */
	enum ris_right right;
	void (*serve)(struct ris_call *c);
};

static void not_found(struct ris_call *c)
{
	ris_refuse(c, 404);
}

static const struct route routes[] = {
	{"POST", "/api/v1/login", ALWAYS, 0, RIS_RIGHT_NONE, ris_login},
	{"GET", "/api/v2/clients", RIS_SET_TPL_CLIENTS, 1, RIS_RIGHT_NONE, ris_clients},
	{"GET", CLIENT, ALWAYS, 0, RIS_RIGHT_NONE, ris_client},
	{"GET", CLIENT "/projects", ALWAYS, 0, RIS_RIGHT_PROJECT, ris_projects},
	{"GET", CLIENT "/portfolios", ALWAYS, 0, RIS_RIGHT_PROJECT, ris_portfolios},
	{"GET", CLIENT "/dms/documents", ALWAYS, 0, RIS_RIGHT_READ, ris_documents},
	/* folder and parent are in the path here, in the body of an update. */
	{"POST", CLIENT "/dms/projects/{pid}/folders/{fid}/parent/{uuid}/documents", ALWAYS, 0,
	 RIS_RIGHT_CREATE, ris_create},
	{"PUT", DOCUMENT, ALWAYS, 0, RIS_RIGHT_CHANGE, ris_update},
	{"POST", DOCUMENT, RIS_SET_OVERRIDE, RIS_OVERRIDE_NONE, RIS_RIGHT_CHANGE, ris_update},
	{"GET", DOCUMENT, RIS_SET_TPL_DOWNLOAD, RIS_TPL_DEFAULT, RIS_RIGHT_READ, ris_download},
	{"GET", CLIENT "/dms/documents/{did}/content", RIS_SET_TPL_DOWNLOAD, RIS_TPL_OTHER,
	 RIS_RIGHT_READ, ris_download},
	{"GET", DOCUMENT, RIS_SET_TPL_DOWNLOAD, RIS_TPL_404, RIS_RIGHT_NONE, not_found},
	{"DELETE", DOCUMENT, RIS_SET_TPL_DELETE, RIS_TPL_DEFAULT, RIS_RIGHT_DELETE, ris_delete},
	{"DELETE", CLIENT "/dms/documents/{did}", RIS_SET_TPL_DELETE, RIS_TPL_OTHER,
	 RIS_RIGHT_DELETE, ris_delete},
	{"DELETE", DOCUMENT, RIS_SET_TPL_DELETE, RIS_TPL_404, RIS_RIGHT_NONE, not_found},
	{"GET", DOCUMENT "/versions", RIS_SET_TPL_VERSIONS, 1, RIS_RIGHT_READ, ris_versions},
	{"GET", DOCUMENT "/versions/{n}", RIS_SET_TPL_VERSIONS, 1, RIS_RIGHT_READ, ris_version},
	{"GET", CLIENT "/dms/folders", RIS_SET_TPL_FOLDERS, RIS_TPL_DEFAULT, RIS_RIGHT_READ,
	 ris_folders},
	{"GET", CLIENT "/dms/projects/{pid}/folders", RIS_SET_TPL_FOLDERS, RIS_TPL_OTHER,
	 RIS_RIGHT_READ, ris_folders},
	{"POST", CLIENT "/attachments/{aid}", ALWAYS, 0, RIS_RIGHT_CREATE, ris_attachment_upload},
	{"GET", CLIENT "/attachments/{aid}", RIS_SET_TPL_ATTACHMENT, RIS_TPL_DEFAULT,
	 RIS_RIGHT_READ, ris_attachment_download},
	{"GET", CLIENT "/attachments/{aid}/content", RIS_SET_TPL_ATTACHMENT, RIS_TPL_OTHER,
	 RIS_RIGHT_READ, ris_attachment_download},
	{"GET", CLIENT "/attachments/{aid}", RIS_SET_TPL_ATTACHMENT, RIS_TPL_404, RIS_RIGHT_NONE,
	 not_found},
};

static int64_t number(const char *s, size_t len)
{
	int64_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9' || n > INT64_MAX / 100)
			return -1;
		n = n * 10 + (s[i] - '0');
	}
	return len ? n : -1;
}

/* @name is what stands between the braces. */
static void capture(struct ris_call *c, const char *name, const char *s, size_t len)
{
	if (strncmp(name, "uuid}", 5) == 0) {
		c->uuid[0] = '\0';
		if (len < sizeof(c->uuid)) {
			memcpy(c->uuid, s, len);
			c->uuid[len] = '\0';
		}
	} else if (strncmp(name, "cid}", 4) == 0) {
		c->client_id = number(s, len);
	} else if (strncmp(name, "pid}", 4) == 0) {
		c->project_id = number(s, len);
	} else if (strncmp(name, "fid}", 4) == 0) {
		c->folder_id = number(s, len);
	} else if (strncmp(name, "did}", 4) == 0) {
		c->document_id = number(s, len);
	} else if (strncmp(name, "aid}", 4) == 0) {
		c->attachment_id = number(s, len);
	} else {
		c->version = number(s, len);
	}
}

static bool fits(struct ris_call *c, const char *template, const char *path)
{
	while (*template && *path) {
		if (*template == '{') {
			size_t len = strcspn(path, "/");

			if (!len)
				return false;
			capture(c, template + 1, path, len);
			template += strcspn(template, "}") + 1;
			path += len;
		} else if (*template ++ != *path++) {
			return false;
		}
	}
	return !*template && !*path;
}

void ris_route(struct ris_call *c)
{
	bool known = false;

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		const struct route *r = &routes[i];

		if (r->setting != ALWAYS &&
		    ris_setting(c, (enum ris_setting)r->setting) != r->value)
			continue;
		c->client_id = RIS_CLIENT_ID; /* where the path names none */
		c->project_id = RIS_ANY_PROJECT;
		if (!fits(c, r->template, c->rq->path))
			continue;
		known = true;
		if (strcmp(r->method, c->method) != 0)
			continue;
		if (r->serve == ris_login || (ris_authenticate(c) && ris_authorize(c, r->right)))
			r->serve(c);
		return;
	}
	if (strcmp(c->rq->path, "/api/v1/login") == 0 || ris_authenticate(c))
		ris_refuse(c, known ? 405 : 404);
}
