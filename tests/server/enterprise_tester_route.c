/* SPDX-License-Identifier: MIT */
/* From a path to who answers it: the tables of sections 2, 3 and 5. Case does not matter (E-24). */
#include "enterprise_tester.h"

#include "alloc.h"
#include "form.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* One owner of attachments: its list, where files are uploaded too, and where one is deleted. */
#define OWNER(list, one, kind)                                                                     \
	{"GET", list, et_serve_attachments, kind}, {"POST", list, et_serve_upload, kind},          \
	{                                                                                          \
		"DELETE", one, et_serve_delete, kind                                               \
	}

#define NODES "automatedtestrun/*/node/*"
#define TQL(path, kind)                                                                            \
	{                                                                                          \
		"GET", path, et_serve_tql_list, kind                                               \
	}

static const struct et_route routes[] = {
	{"GET", "", et_serve_root, ET_KINDS},
	{"GET", "systeminfo", et_serve_systeminfo, ET_KINDS},
	{"GET", "swagger", et_serve_swagger, ET_KINDS},
	{"GET", "swagger/api", et_serve_swagger, ET_KINDS},
	{"GET", "swagger/v2", et_serve_swagger, ET_KINDS},
	{"GET", "search", et_serve_search, ET_KINDS},
	{"POST", "search", et_serve_search, ET_KINDS},
	{"GET", "projects", et_serve_odata_list, ET_PROJECT},
	{"GET", "project/*", et_serve_show, ET_PROJECT},
	TQL("requirementpackages", ET_REQUIREMENT_PACKAGE),
	TQL("scriptpackages", ET_SCRIPT_PACKAGE),
	TQL("executionpackages", ET_EXECUTION_PACKAGE),
	{"GET", "requirementpackage/*", et_serve_show, ET_REQUIREMENT_PACKAGE},
	{"GET", "scriptpackage/*", et_serve_show, ET_SCRIPT_PACKAGE},
	{"GET", "executionpackage/*", et_serve_show, ET_EXECUTION_PACKAGE},
	{"GET", "requirementpackage/*/children", et_serve_children, ET_REQUIREMENT_PACKAGE},
	{"GET", "scriptpackage/*/children", et_serve_children, ET_SCRIPT_PACKAGE},
	{"GET", "executionpackage/*/children", et_serve_children, ET_EXECUTION_PACKAGE},
	TQL("requirements", ET_REQUIREMENT),
	TQL("scripts", ET_SCRIPT),
	TQL("incidents", ET_INCIDENT),
	TQL("scriptruns", ET_SCRIPT_RUN),
	TQL("scriptassignments", ET_SCRIPT_ASSIGNMENT),
	TQL("agileruns", ET_AGILE_RUN),
	TQL("automatedtests", ET_AUTOMATED_TEST),
	TQL("automatedtestruns", ET_AUTOMATED_TEST_RUN),
	{"POST", "requirements", et_serve_create, ET_REQUIREMENT},
	{"POST", "scripts", et_serve_create, ET_SCRIPT},
	{"POST", "incidents", et_serve_create, ET_INCIDENT},
	{"GET", "requirement/*", et_serve_show, ET_REQUIREMENT},
	{"GET", "script/*", et_serve_show, ET_SCRIPT},
	{"GET", "incident/*", et_serve_show, ET_INCIDENT},
	{"GET", "stepresult/*", et_serve_show, ET_STEP_RESULT},
	{"GET", "scriptrun/*", et_serve_show, ET_SCRIPT_RUN},
	{"GET", "agilerun/*", et_serve_show, ET_AGILE_RUN},
	{"GET", "automatedtestrun/*", et_serve_show, ET_AUTOMATED_TEST_RUN},
	{"PUT", "requirement/*", et_serve_put, ET_REQUIREMENT},
	{"PUT", "script/*", et_serve_put, ET_SCRIPT},
	{"PUT", "incident/*", et_serve_put, ET_INCIDENT},
	{"PATCH", "requirement/*", et_serve_patch, ET_REQUIREMENT},
	{"GET", "requirement/*/children", et_serve_children, ET_REQUIREMENT},
	{"GET", "automatedtestrun/*/nodes", et_serve_nodes, ET_AUTOMATED_TEST_RUN},
	{"GET", NODES "/children", et_serve_node_children, ET_NODE},
	OWNER("requirement/*/attachments", "requirement/*/attachment/*", ET_REQUIREMENT),
	OWNER("script/*/attachments", "script/*/attachment/*", ET_SCRIPT),
	OWNER("incident/*/attachments", "incident/*/attachment/*", ET_INCIDENT),
	OWNER("stepresult/*/attachments", "stepresult/*/attachment/*", ET_STEP_RESULT),
	OWNER("agilerun/*/step/*/attachments", "agilerun/*/step/*/attachment/*", ET_AGILE_RUN_STEP),
	OWNER("automatedtestrun/*/attachments", "automatedtestrun/*/attachment/*",
	      ET_AUTOMATED_TEST_RUN),
	OWNER(NODES "/attachments", NODES "/attachment/*", ET_NODE),
	/* E-14: one letter apart */
	OWNER("temporaryattachmentset/*", "temporaryattachmentset/*/attachment/*", ET_SET),
	{"POST", "temporaryattachmentsets", et_serve_new_set, ET_SET},
	{"GET", "attachment/*/contents", et_serve_contents, ET_ATTACHMENT},
};

const char *et_application_path(const struct et_call *c)
{
	static const char *const paths[] = {"/EnterpriseTester", "/et", ""};

	return paths[et_setting(c, ET_APPLICATION_PATH)];
}

struct str et_path(const struct et_call *c)
{
	const char *application = et_application_path(c);
	const char *s = c->rq->path;
	struct str path;

	if (strncasecmp(s, application, strlen(application)) != 0)
		return (struct str){0};
	s += strlen(application);
	if (strncasecmp(s, "/api", 4) != 0 || (s[4] && s[4] != '/'))
		return (struct str){0};
	s += 4 + (s[4] == '/');
	path = form_decode(s, strlen(s), false);
	for (size_t i = 0; i < path.len; i++)
		path.ptr[i] = (char)tolower((unsigned char)path.ptr[i]);
	if (path.len && path.ptr[path.len - 1] == '/')
		path.ptr[--path.len] = '\0';
	return path;
}

static bool fits(const char *pattern, const char *path)
{
	while (*pattern) {
		if (*pattern == '*') {
			size_t len = strcspn(path, "/");

			if (!len)
				return false;
			path += len;
			pattern++;
		} else if (*pattern++ != *path++) {
			return false;
		}
	}
	return !*path;
}

static void take_ids(struct et_call *c, const char *pattern, const char *path)
{
	size_t n = 0;

	for (; *pattern; pattern++) {
		size_t len = *pattern == '*' ? strcspn(path, "/") : 1;

		if (*pattern == '*' && n < ET_IDS_MAX)
			c->ids[n++] = str_dup(path, len);
		path += len;
	}
}

bool et_route(struct et_call *c, const char *path)
{
	const char *method = strcmp(c->rq->method, "HEAD") == 0 ? "GET" : c->rq->method;
	struct buffer allowed = {0};

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (!fits(routes[i].pattern, path))
			continue;
		if (strcmp(routes[i].method, method) == 0) {
			c->route = &routes[i];
			take_ids(c, routes[i].pattern, path);
			buffer_free(&allowed);
			return true;
		}
		buffer_puts(&allowed, allowed.len ? ", " : "");
		buffer_puts(&allowed, routes[i].method);
	}
	if (allowed.len) {
		response_header(c->rs, "Allow", "%s", allowed.data);
		et_error(c, 405, "The requested resource does not support this http method.");
	} else {
		et_error(c, 404, "No HTTP resource was found that matches the request URI.");
	}
	buffer_free(&allowed);
	return false;
}
