/* SPDX-License-Identifier: MIT */
/*
 * Answers: one envelope for success and failure (section 10), JSON in plain UTF-8.
 *
 * `details` of a success without data is an array, an object or a string, whichever the server likes
 * today; the HTTP status decides, `code` only repeats it.
 */
#include "rillsoft.h"

#include "clock.h"

#include <stdio.h>
#include <string.h>

static const char success[] = "Operation completed successfully";

static const struct {
	int status;
	const char *message;
	const char *details;
} refusals[] = {
	{400, "Invalid request", "Validation error"},
	{401, "Authentication failed", "JWT token not found"},
	{403, "Access denied", "Insufficient permissions"},
	{404, "Not found", "The requested resource was not found"},
	{405, "Method not allowed", "The method is not supported for this resource"},
	{409, "Conflict", "The resource is in conflict"},
	{412, "Precondition failed", "The precondition did not hold"},
	{413, "Payload too large", "The file exceeds the maximum size"},
	{416, "Range not satisfiable", "The requested range is not satisfiable"},
	{423, "Locked", "The resource is read only"},
	{429, "Too many requests", "Rate limit exceeded"},
	{500, "Internal server error", "An internal server error occurred"},
};

static bool plain(char ch)
{
	return (unsigned char)ch >= ' ' && (unsigned char)ch < 0x80 && ch != '"' && ch != '\\';
}

/* The character at @s, of @n bytes or, if that is 0, no character at all. */
static void put_character(struct buffer *out, const char *s, size_t n)
{
	if (n == 0)
		buffer_puts(out, "\xef\xbf\xbd");
	else if (*s == '"' || *s == '\\')
		buffer_printf(out, "\\%c", *s);
	else if ((unsigned char)*s < ' ')
		buffer_printf(out, "\\u%04x", (unsigned int)*s);
	else
		buffer_put(out, s, n);
}

void ris_put_string(struct buffer *out, const char *s, size_t len)
{
	const char *end = s + len;

	buffer_putc(out, '"');
	while (s < end) {
		const char *run = s;
		uint32_t cp;
		size_t n;

		while (s < end && plain(*s))
			s++;
		buffer_put(out, run, (size_t)(s - run));
		if (s == end)
			break;
		n = utf8_next(s, (size_t)(end - s), &cp);
		put_character(out, s, n);
		s += n ? n : 1;
	}
	buffer_putc(out, '"');
}

void ris_put_text(struct buffer *out, const char *key, const char *text)
{
	buffer_json_key(out, key);
	if (text)
		ris_put_string(out, text, strlen(text));
	else
		buffer_puts(out, "null");
}

void ris_put_number(struct buffer *out, const char *key, int64_t value)
{
	buffer_json_key(out, key);
	buffer_put_int(out, value);
}

static void format_time(const struct ris_call *c, int64_t seconds, char text[static 40])
{
	enum ris_created_at form = (enum ris_created_at)ris_setting(c, RIS_SET_CREATED_AT);
	struct date_time t = clock_split(seconds + 60 * ris_setting(c, RIS_SET_ZONE_MINUTES));

	if (form == RIS_CREATED_ZEROED)
		t.second = 0;
	if (form == RIS_CREATED_DOTTED)
		snprintf(text, 40, "%02u.%02u.%04u %02u:%02u", (unsigned)t.day % 100,
			 (unsigned)t.month % 100, (unsigned)t.year % 10000, (unsigned)t.hour % 100,
			 (unsigned)t.minute % 100);
	else if (form == RIS_CREATED_EMPTY)
		text[0] = '\0';
	else
		snprintf(text, 40, "%04u-%02u-%02uT%02u:%02u:%02u", (unsigned)t.year % 10000,
			 (unsigned)t.month % 100, (unsigned)t.day % 100, (unsigned)t.hour % 100,
			 (unsigned)t.minute % 100, (unsigned)t.second % 100);
	if (form == RIS_CREATED_MINUTE)
		text[strlen("YYYY-MM-DDThh:mm")] = '\0';
}

void ris_put_time(struct ris_call *c, struct buffer *out, const char *key, int64_t seconds)
{
	char text[40];

	format_time(c, seconds, text);
	ris_put_text(out, key,
		     ris_setting(c, RIS_SET_CREATED_AT) == RIS_CREATED_NULL ? NULL : text);
}

static void begin(struct ris_call *c, int status, const char *outcome, const char *message)
{
	struct buffer *out = &c->rs->body;
	enum ris_body_code form = (enum ris_body_code)ris_setting(c, RIS_SET_BODY_CODE);

	out->len = 0;
	c->rs->status = status;
	buffer_putc(out, '{');
	ris_put_text(out, "status", outcome);
	if (form == RIS_CODE_TEXT)
		buffer_printf(out, ",\"code\":\"%d\"", status);
	else if (form != RIS_CODE_ABSENT)
		ris_put_number(out, "code", form == RIS_CODE_200 ? 200 : status);
	ris_put_text(out, "message", message);
	buffer_json_key(out, "details");
}

void ris_begin(struct ris_call *c, int status)
{
	begin(c, status, "success", success);
}

void ris_end(struct ris_call *c)
{
	buffer_putc(&c->rs->body, '}');
}

void ris_done(struct ris_call *c, int status)
{
	ris_begin(c, status);
	switch ((enum ris_details)ris_setting(c, RIS_SET_DETAILS)) {
	case RIS_DETAILS_ARRAY:
		buffer_puts(&c->rs->body, "[]");
		break;
	case RIS_DETAILS_OBJECT:
	case RIS_DETAILS_DOCUMENT: /* where there is none to show */
		buffer_puts(&c->rs->body, "{}");
		break;
	case RIS_DETAILS_STRING:
		ris_put_string(&c->rs->body, success, strlen(success));
		break;
	}
	ris_end(c);
}

/* A string in the seed, an object in ComplexErrorResponse. */
static void put_complaint(struct ris_call *c, const char *details)
{
	static const char *const before[] = {"", "{\"error\":", "["};
	static const char *const behind[] = {"", "}", "]"};
	int64_t form = ris_setting(c, RIS_SET_ERROR_DETAILS);

	buffer_puts(&c->rs->body, before[form]);
	ris_put_string(&c->rs->body, details, strlen(details));
	buffer_puts(&c->rs->body, behind[form]);
}

void ris_refuse_for(struct ris_call *c, int status, const char *details)
{
	size_t i = 0;

	while (refusals[i].status != status && i + 1 < sizeof(refusals) / sizeof(refusals[0]))
		i++;
	begin(c, refusals[i].status, "error", refusals[i].message);
	put_complaint(c, details ? details : refusals[i].details);
	ris_end(c);
}

void ris_refuse(struct ris_call *c, int status)
{
	ris_refuse_for(c, status, NULL);
}
