/* SPDX-License-Identifier: MIT */
/* Errors: section 10. The wrapper of a type and a text is unknown, hence the toggle. */
#include "servicemax.h"

static const struct {
	int status;
	const char *type;
} types[] = {
	{400, "missing_parameter_error"},
	{403, "permission_error"},
	{404, "not_found_error"},
	{405, "method_error"},
	{412, "precondition_error"},
	{413, "size_error"},
	{414, "size_error"},
	{416, "range_error"},
	{429, "throttle_error"},
	{500, "server_error"},
};

void sm_reply_json(struct sm_call *c, int status)
{
	c->rs->status = status;
	response_header(c->rs, "Content-Type", "application/json;charset=UTF-8");
}

void sm_error_type(struct sm_call *c, int status, const char *type, const char *message)
{
	struct buffer *out = &c->rs->body;
	int64_t form = sm_set(c, SM_ERROR_FORM);

	out->len = 0;
	if (form == ERROR_TEXT) {
		c->rs->status = status;
		response_header(c->rs, "Content-Type", "text/plain;charset=UTF-8");
		buffer_puts(out, message);
		return;
	}
	buffer_puts(out, form == ERROR_NESTED ? "{\"error\":{" : "{");
	buffer_json_key(out, "type");
	buffer_json_text(out, type);
	buffer_json_key(out, "message");
	buffer_json_text(out, message);
	buffer_puts(out, form == ERROR_NESTED ? "}}" : "}");
	sm_reply_json(c, status);
}

void sm_error(struct sm_call *c, int status, const char *message)
{
	size_t i = 0;

	while (i + 1 < sizeof(types) / sizeof(types[0]) && types[i].status != status)
		i++;
	sm_error_type(c, status, types[i].type, message);
}

/* S-10: what is missing and what may not be read look alike. */
void sm_error_missing(struct sm_call *c)
{
	sm_error(c, 404,
		 "Any of the records was not found (or user has no permission to access it)");
}

void sm_error_oauth(struct sm_call *c, int status, const char *error, const char *description)
{
	struct buffer *out = &c->rs->body;

	out->len = 0;
	buffer_puts(out, "{\"error\":");
	buffer_json_text(out, error);
	if (description) {
		buffer_json_key(out, "error_description");
		buffer_json_text(out, description);
	}
	buffer_putc(out, '}');
	sm_reply_json(c, status);
}
