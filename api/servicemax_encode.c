/* SPDX-License-Identifier: MIT */

/* What is sent: forms, names in a query, fields of records. Pure. */

#include "servicemax.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Append to *@text, which is freed and NULL for ever after the first failure. */
static void append(char **text, const char *separator, const char *a, const char *b)
{
	char *longer;

	if (!*text)
		return;
	if (asprintf(&longer, "%s%s%s%s", *text, **text != '\0' ? separator : "", a, b) < 0)
		longer = NULL;
	explicit_bzero(*text, strlen(*text)); /* there may be a password in it */
	free(*text);
	*text = longer;
}

/* The same, escaped. */
static void append_escaped(char **text, const char *separator, const char *a, const char *b)
{
	char *escaped = base_escape(b);

	if (escaped) {
		append(text, separator, a, escaped);
		explicit_bzero(escaped, strlen(escaped));
	} else {
		free(*text);
		*text = NULL;
	}
	free(escaped);
}

char *servicemax_form(const char *const *pairs)
{
	char *text = strdup("");

	for (; pairs[0]; pairs += 2) {
		if (!pairs[1])
			continue;
		append(&text, "&", pairs[0], "=");
		append_escaped(&text, "", "", pairs[1]);
	}
	return text;
}

char *servicemax_names(const char *const *names, size_t n)
{
	char *text = strdup("");

	for (size_t i = 0; i < n; i++)
		append_escaped(&text, ",", "", names[i]);
	return text;
}

char *servicemax_disposition(const char *filename)
{
	static const char head[] = "form-data; name=\"file\"; filename=\"";
	char *text = malloc(sizeof(head) + 2 * strlen(filename) + 2), *to = text;

	if (!text)
		return NULL;
	to += sprintf(to, "%s", head);
	for (; *filename != '\0'; filename++) {
		if (*filename == '"' || *filename == '\\')
			*to++ = '\\';
		*to++ = *filename;
	}
	*to++ = '"';
	*to = '\0';
	return text;
}

const char *servicemax_fields(unsigned level)
{
	static const char *const fields[] = {
		"io_uuid,io_name,io_created_on,io_updated_on",
		"io_uuid,io_name,io_created_on",
		"io_uuid,io_name",
		"io_uuid",
	};

	return level < sizeof(fields) / sizeof(fields[0]) ? fields[level] : NULL;
}
