/* SPDX-License-Identifier: MIT */
/*
 * The fields of a request as Laravel's middleware leaves them: every string trimmed, JSON's too, and
 * those that end up empty made null (P-15). What cannot be understood is no error but no fields at all.
 */
#include "perscom.h"

#include "alloc.h"
#include "clock.h"
#include "form.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static json_t *normalized(const json_t *value);

static json_t *normalized_string(const json_t *value)
{
	const char *s = json_string_value(value);
	size_t len = json_string_length(value);

	text_trim(&s, &len);
	return len ? json_stringn_nocheck(s, len) : json_null();
}

static json_t *normalized_object(const json_t *value)
{
	json_t *object = json_object();
	const char *key;
	json_t *member;

	json_object_foreach((json_t *)value, key, member)
		json_object_set_new_nocheck(object, key, normalized(member));
	return object;
}

static json_t *normalized(const json_t *value)
{
	json_t *array;
	size_t i;
	json_t *member;

	if (json_is_string(value))
		return normalized_string(value);
	if (json_is_object(value))
		return normalized_object(value);
	if (!json_is_array(value))
		return json_incref((json_t *)value);
	array = json_array();
	json_array_foreach(value, i, member) json_array_append_new(array, normalized(member));
	return array;
}

void input_read(struct call *c)
{
	const struct request *rq = c->rq;
	const char *type = request_header(rq, "Content-Type");
	json_t *raw = NULL;

	if (rq->multipart)
		raw = json_incref(rq->multipart->fields);
	else if (rq->body.len && type && strcasestr(type, "json"))
		raw = json_loadb(rq->body.data, rq->body.len, JSON_ALLOW_NUL, NULL);
	else if (rq->body.len)
		raw = form_parse(rq->body.data, rq->body.len);
	c->input = json_is_object(raw) ? normalized_object(raw) : json_object();
	json_decref(raw);
}

struct str scalar_text(const json_t *value)
{
	char text[40];

	if (json_is_string(value))
		return str_dup(json_string_value(value), json_string_length(value));
	if (json_is_integer(value))
		snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
	else if (json_is_real(value))
		snprintf(text, sizeof(text), "%.15g", json_real_value(value));
	else if (json_is_boolean(value))
		snprintf(text, sizeof(text), "%d", json_is_true(value));
	else
		return (struct str){0};
	return str_dup(text, strlen(text));
}

bool scalar_integer(const json_t *value, int64_t *ret)
{
	const char *s = json_string_value(value);
	char *end;

	if (json_is_integer(value)) {
		*ret = json_integer_value(value);
		return true;
	}
	if (!s || !*s)
		return false;
	errno = 0;
	*ret = strtoll(s, &end, 10);
	return !*end && !errno;
}

/*
 * "2026-03-02", with " 10:00:00" or "T10:00:00", a fraction and a zone. Fraction and zone are dropped
 * without converting anything: `+02:00` is stored as if it were UTC (P-24).
 */
bool date_parse(const char *text, int64_t *ret_seconds)
{
	struct date_time t = {0};
	int used = 0;
	int n = sscanf(text, "%4d-%2d-%2d%n", &t.year, &t.month, &t.day, &used);
	int more = 0;

	if (n != 3 || t.month < 1 || t.month > 12 || t.day < 1 || t.day > 31)
		return false;
	text += used;
	if (*text == 'T' || *text == ' ') {
		n = sscanf(text + 1, "%2d:%2d%n:%2d%n", &t.hour, &t.minute, &used, &t.second,
			   &more);
		if (n < 2 || t.hour > 23 || t.minute > 59 || t.second > 59)
			return false;
		text += 1 + (n == 3 ? more : used);
	}
	if (*text == '.')
		text += 1 + strspn(text + 1, "0123456789");
	if (*text && *text != 'Z' && *text != 'z' && *text != '+' && *text != '-')
		return false;
	*ret_seconds = clock_join(&t);
	return true;
}
