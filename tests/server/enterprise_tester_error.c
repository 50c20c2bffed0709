/* SPDX-License-Identifier: MIT */
/* Errors: section 10. The one known body is {"Message": ".."}; the toggle error_body has the others. */
#include "enterprise_tester.h"

#define FOUR_MB	  (4 * 1024 * 1024)
#define THIRTY_MB 30000000

static const char *title_of(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 401:
		return "401 - Unauthorized";
	case 403:
		return "403 - Forbidden";
	case 404:
		return "404 - File or directory not found.";
	case 405:
		return "405 - HTTP verb used to access this page is not allowed.";
	case 413:
		return "413 - Request Entity Too Large";
	case 415:
		return "415 - Unsupported Media Type";
	default:
		return "Runtime Error";
	}
}

void et_page(struct et_call *c, int status, const char *title)
{
	c->rs->status = status;
	c->rs->body.len = 0;
	c->html = true;
	buffer_printf(&c->rs->body,
		      "<!DOCTYPE html>\n<html><head><title>%s</title></head>"
		      "<body><h1>%s</h1></body></html>\n",
		      title, title);
}

void et_error(struct et_call *c, int status, const char *message)
{
	switch ((enum et_error_body)et_setting(c, ET_ERROR_BODY)) {
	case ERROR_HTML:
		et_page(c, status, title_of(status));
		return;
	case ERROR_EMPTY:
		c->rs->status = status;
		c->rs->body.len = 0;
		return;
	case ERROR_JSON:
		break;
	}
	c->rs->status = status;
	c->rs->body.len = 0;
	buffer_puts(&c->rs->body, "{\"Message\":");
	buffer_json_text(&c->rs->body, message);
	buffer_putc(&c->rs->body, '}');
}

/* These come from IIS and ASP.NET, before the application: always pages. */
bool et_request_too_large(struct et_call *c)
{
	static const struct {
		int64_t max;
		int status;
	} limits[] = {
		[MAX_NONE] = {INT64_MAX, 413},	   [MAX_4MB_500] = {FOUR_MB, 500},
		[MAX_4MB_400] = {FOUR_MB, 400},	   [MAX_30MB_404] = {THIRTY_MB, 404},
		[MAX_30MB_413] = {THIRTY_MB, 413},
	};
	int64_t which = et_setting(c, ET_MAX_REQUEST);
	int64_t bytes = et_setting(c, ET_MAX_REQUEST_BYTES);
	int64_t max = bytes ? bytes : limits[which].max;

	if (c->rq->body_bytes <= (uint64_t)max)
		return false;
	et_page(c, limits[which].status,
		limits[which].status == 404
			? "HTTP Error 404.13 - Not Found: The request filtering module is "
			  "configured to deny a request that exceeds the request content length."
			: title_of(limits[which].status));
	return true;
}
