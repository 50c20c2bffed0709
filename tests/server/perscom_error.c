/* SPDX-License-Identifier: MIT */
/* Errors: section 10. Three forms exist (P-23): JSON with an `error`, a bare JSON message, HTML. */
#include "perscom.h"

#include "alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	int status;
	const char *type;
	const char *message;
} fixed[] = {
	{400, "HttpException", "The requested API version is not supported."},
	{401, "AuthenticationException",
	 "You are not authenticated. Please provide a valid API key that contains your PERSCOM ID "
	 "to "
	 "continue."},
	{402, "HttpException", "A valid subscription is required to complete this request."},
	{403, "AccessDeniedHttpException",
	 "The API key provided does not have the correct permissions and/or scopes to perform the "
	 "requested action."},
	{404, "NotFoundHttpException", "The requested resource or endpoint could not be found."},
	{405, "MethodNotAllowedHttpException", "The method is not supported for this route."},
	{413, "PostTooLargeException", ""},
	{429, "ThrottleRequestsException",
	 "You have exceeded the API rate limit. Please wait a minute before trying again."},
	{500, "ErrorException",
	 "There was a server error with your last request. Please try again."},
	{503, "HttpException",
	 "The API is currently down for maintenance. Please check back later."},
};

static void begin(struct call *c, int status, const char *type, const char *message)
{
	struct buffer *out = &c->rs->body;

	out->len = 0;
	c->rs->status = status;
	buffer_puts(out, "{\"error\":{");
	buffer_json_key(out, "message");
	buffer_json_text(out, message);
	buffer_json_key(out, "type");
	buffer_json_text(out, type);
	buffer_json_key(out, "request_id");
	buffer_json_text(out, c->request_id);
	buffer_json_key(out, "trace_id");
	buffer_json_text(out, c->trace_id);
}

void error_reply(struct call *c, int status, const char *type, const char *message)
{
	begin(c, status, type, message);
	buffer_puts(&c->rs->body, "}}");
}

void error_status(struct call *c, int status)
{
	size_t i = 0;

	while (fixed[i].status != status && i + 1 < sizeof(fixed) / sizeof(fixed[0]))
		i++;
	error_reply(c, status, fixed[i].type, fixed[i].message);
}

void error_html(struct call *c, int status, const char *title)
{
	c->rs->status = status;
	c->rs->body.len = 0;
	c->html = true;
	buffer_printf(&c->rs->body,
		      "<!DOCTYPE html>\n<html><head><title>%s</title></head>"
		      "<body><h1>%s</h1></body></html>\n",
		      title, title);
}

void error_bare(struct call *c)
{
	c->rs->status = 500;
	c->rs->body.len = 0;
	buffer_puts(&c->rs->body, "{\"message\":\"Server Error\"}");
}

void error_query(struct call *c)
{
	error_reply(c, 500, "QueryException",
		    "There was a server error with your last request. Please try again.");
}

void invalid_add(json_t **errors, const char *key, const char *format, ...)
{
	va_list args;
	json_t *messages;

	if (!*errors)
		*errors = json_object();
	messages = json_object_get(*errors, key);
	if (!messages) {
		messages = json_array();
		json_object_set_new(*errors, key, messages);
	}
	va_start(args, format);
	json_array_append_new(messages, json_vsprintf(format, args));
	va_end(args);
}

/* "The name field is required. (and 1 more error)" */
static char *head_line(json_t *errors)
{
	const char *first = NULL;
	size_t n = 0;
	const char *key;
	json_t *messages;

	json_object_foreach(errors, key, messages)
	{
		if (!first)
			first = json_string_value(json_array_get(messages, 0));
		n += json_array_size(messages);
	}
	if (n <= 1)
		return xstrdup(first ? first : "");
	return xasprintf("%s (and %zu more error%s)", first, n - 1, n == 2 ? "" : "s");
}

bool invalid_reply(struct call *c, json_t *errors)
{
	char *message;

	if (!errors)
		return false;
	message = head_line(errors);
	begin(c, 422, "ValidationException", message);
	if (!era_before(c, 2, 9)) {
		buffer_json_key(&c->rs->body, "errors");
		buffer_json(&c->rs->body, errors);
	}
	buffer_puts(&c->rs->body, "}}");
	free(message);
	json_decref(errors);
	return true;
}
