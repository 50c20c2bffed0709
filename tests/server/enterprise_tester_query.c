/* SPDX-License-Identifier: MIT */
/* What a list is asked for: the two parameter sets of section 2. Unknown options count for nothing (E-8). */
#include "enterprise_tester.h"

#include "form.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EXPRESSION_MAX 65536

struct str et_option(const struct et_call *c, const char *name)
{
	const char *s = c->rq->query;
	const json_t *field = json_object_get(c->form, name);
	struct str found = {0};

	if (json_is_string(field))
		found = str_dup(json_string_value(field), json_string_length(field));
	while (*s) {
		size_t len = strcspn(s, "&"), name_len = strcspn(s, "=&");
		struct str given = form_decode(s, name_len, true);

		if (s[name_len] == '=' && strcasecmp(given.ptr, name) == 0) {
			str_free(&found);
			found = form_decode(s + name_len + 1, len - name_len - 1, true);
		}
		str_free(&given);
		s += len + (s[len] == '&');
	}
	return found;
}

bool et_expands(const struct et_call *c, const char *what)
{
	struct str list = et_option(c, "$expand");
	const char *s = list.ptr ? list.ptr : "";
	bool found = false;

	while (*s && !found) {
		size_t len;

		s += strspn(s, ", ");
		len = strcspn(s, ", ");
		found = len == strlen(what) && strncasecmp(s, what, len) == 0;
		s += len;
	}
	str_free(&list);
	return found;
}

/* False: it is there and no number. */
static bool take_number(const struct et_call *c, const char *name, int64_t *value)
{
	struct str text = et_option(c, name);
	bool fine = true;
	char *end;

	if (text.ptr) {
		errno = 0;
		*value = strtoll(text.ptr, &end, 10);
		fine = text.len && !*end && !errno && *value >= 0;
	}
	str_free(&text);
	return fine;
}

static bool take_totals(const struct et_call *c, enum et_language language)
{
	int64_t when = et_setting(c, ET_TOTALS); /* E-10 */
	struct str wish = et_option(c, "$inlinecount");
	bool wanted = wish.ptr && strcasecmp(wish.ptr, "allpages") == 0;

	str_free(&wish);
	return wanted || when == TOTALS_ALWAYS || (when == TOTALS_TQL && language == ET_TQL);
}

static bool take_top(const struct et_call *c, enum et_language language, int64_t *ret_top)
{
	int64_t usual = et_setting(c, language == ET_TQL ? ET_TQL_TOP : ET_ODATA_TOP); /* E-26 */
	int64_t max = et_setting(c, ET_TOP_MAX);

	*ret_top = usual ? usual : -1;
	if (!take_number(c, "$top", ret_top))
		return false;
	if (max && (*ret_top < 0 || *ret_top > max))
		*ret_top = max;
	return true;
}

static bool take_odata(const struct et_call *c, struct et_query *q)
{
	struct str filter = et_option(c, "$filter");
	struct str order = et_option(c, "$orderby");
	bool fine = filter.len <= EXPRESSION_MAX;

	if (fine && filter.len)
		fine = et_odata_filter(q, filter.ptr);
	if (fine && order.len)
		fine = et_odata_order(q, order.ptr);
	str_free(&filter);
	str_free(&order);
	return fine;
}

static bool take_tql(struct et_call *c, struct et_query *q)
{
	struct str text = et_option(c, "tql");
	bool fine = text.len <= EXPRESSION_MAX && (!text.ptr || et_tql(c, q, text.ptr));

	str_free(&text);
	return fine;
}

bool et_query_read(struct et_call *c, enum et_language language, struct et_query *q)
{
	q->totals = take_totals(c, language);
	q->expand_attachments = et_expands(c, "Attachments");
	if (take_top(c, language, &q->top) && take_number(c, "$skip", &q->skip) &&
	    (language == ET_TQL ? take_tql(c, q) : take_odata(c, q)))
		return true;
	et_query_free(q);
	et_error(c, 400, "The query specified in the URI is not valid.");
	return false;
}

void et_query_free(struct et_query *q)
{
	et_filter_free(q->filter);
	q->filter = NULL;
}
