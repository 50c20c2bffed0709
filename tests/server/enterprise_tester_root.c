/* SPDX-License-Identifier: MIT */
/* What a client looks at first: section 1. */
#include "enterprise_tester.h"

static const struct {
	const char *rel;
	const char *path;
	bool post;
	bool odata;
	bool tql;
} resources[] = {
	{"Projects", "projects", false, true, false},
	{"Search", "search", true, false, true},
	{"Requirements", "requirements", true, false, true},
	{"RequirementPackages", "requirementpackages", false, false, true},
	{"ScriptPackages", "scriptpackages", false, false, true},
	{"ExecutionPackages", "executionpackages", false, false, true},
	{"Scripts", "scripts", true, false, true},
	{"Incidents", "incidents", true, false, true},
	{"ScriptRuns", "scriptruns", false, false, true},
	{"AgileRuns", "agileruns", false, false, true},
	{"AutomatedTestRuns", "automatedtestruns", false, false, true},
};

static const char *truth(bool value)
{
	return value ? "true" : "false";
}

void et_serve_root(struct et_call *c)
{
	struct buffer *out = &c->rs->body;

	c->rs->status = 200;
	buffer_puts(out, "{\"Links\":[");
	for (size_t i = 0; i < sizeof(resources) / sizeof(resources[0]); i++) {
		buffer_json_comma(out);
		buffer_printf(out, "{\"Title\":\"%s\",\"Href\":\"", resources[i].rel);
		et_put_link(c, out);
		buffer_printf(out,
			      "/%s\",\"Rel\":\"%s\",\"Description\":\"%s\","
			      "\"SupportedHttpMethods\":[\"GET\"%s],\"SupportsOData\":%s,"
			      "\"SupportsTQL\":%s,\"Help\":null}",
			      resources[i].path, resources[i].rel, resources[i].rel,
			      resources[i].post ? ",\"POST\"" : "", truth(resources[i].odata),
			      truth(resources[i].tql));
	}
	buffer_puts(out, "]}");
}

void et_serve_systeminfo(struct et_call *c)
{
	struct buffer *out = &c->rs->body;
	const char *application = et_application_path(c);

	c->rs->status = 200;
	buffer_printf(out,
		      "{\"Version\":\"6.4.1.0\",\"RootUrl\":\"%s%s/\","
		      "\"StaticContentRootUrl\":\"%s%s/static/\",\"TimeZoneId\":\"UTC\","
		      "\"UtcOffset\":\"00:00:00\",\"PackagePathSeparator\":\"|\",\"Modules\":{}}",
		      c->et->emu->api_url, application, c->et->emu->api_url, application);
}

void et_serve_swagger(struct et_call *c)
{
	c->rs->status = 200;
	buffer_puts(&c->rs->body, "{\"apiVersion\":\"6.1.0.0\",\"apis\":[]}");
}
