/* SPDX-License-Identifier: MIT */

/* What is sent: the head of an upload's part (section 5), the body of a PATCH. Pure. */

#include "enterprise_tester.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"

/* A MIME token (RFC 2045) stands as it is, as the documentation writes it (E-4). */
static bool is_token(const char *text)
{
	return *text != '\0' &&
	       strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
			    "!#$%&'*+-.^_`{|}~") == strlen(text);
}

/* What no header can hold is percent-encoded; the rest is a MIME quoted-string. */
static char *add_quoted(char *to, const char *text)
{
	*to++ = '"';
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f) {
			to += sprintf(to, "%%%02X", c);
			continue;
		}
		if (c == '"' || c == '\\')
			*to++ = '\\';
		*to++ = (char)c;
	}
	*to++ = '"';
	*to = '\0';
	return to;
}

/*
 * Both names are the same, so that a swap does no harm (E-2). How a server reads UTF-8 here is
 * unknown: it is sent as it is.
 */
char *et_disposition(enum options_multipart form, const char *name, uint64_t size)
{
	char *quoted = malloc(3 * strlen(name) + 3), *out = NULL;
	int r;

	if (!quoted)
		return NULL;
	if (form == OPTIONS_MULTIPART_MIXED && is_token(name))
		strcpy(quoted, name);
	else
		add_quoted(quoted, name);
	if (form == OPTIONS_MULTIPART_MIXED)
		r = asprintf(&out, "attachment; filename=%s; name=%s; size=%llu", quoted, quoted,
			     (unsigned long long)size);
	else
		r = asprintf(&out, "form-data; name=%s; filename=%s", quoted, quoted);
	free(quoted);
	return r < 0 ? NULL : out;
}

const char *et_media_type(const char *name)
{
	static const char *const types[][2] = {
		{".txt", "text/plain"},
		{".log", "text/plain"},
		{".md", "text/markdown"},
		{".csv", "text/csv"},
		{".htm", "text/html"},
		{".html", "text/html"},
		{".xml", "application/xml"},
		{".json", "application/json"},
		{".pdf", "application/pdf"},
		{".zip", "application/zip"},
		{".gz", "application/gzip"},
		{".png", "image/png"},
		{".jpg", "image/jpeg"},
		{".jpeg", "image/jpeg"},
		{".gif", "image/gif"},
		{".bmp", "image/bmp"},
		{".svg", "image/svg+xml"},
		{".webp", "image/webp"},
		{".mp4", "video/mp4"},
		{".doc", "application/msword"},
		{".xls", "application/vnd.ms-excel"},
		{".ppt", "application/vnd.ms-powerpoint"},
		{".docx",
		 "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
		{".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
		{".pptx",
		 "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
	};
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
		if (strcasecmp(types[i][0], dot) == 0)
			return types[i][1];
	return "application/octet-stream";
}

json_t *et_record_body(const struct et_collection *c, const struct remote_change *item)
{
	/* The server's own: sent back they say nothing. */
	static const char *const own[] = {
		"Id",
		"Self",
		"Links",
		"Expands",
		"Attachments",
		"CreatedAt",
		"Number",
		"IncidentNumber",
		"LastUpdatedAt",
		"VersionNumber",
		"HasAttachments",
	};
	json_t *fields = item->fields_json
				 ? json_parse(item->fields_json, strlen(item->fields_json), NULL, 0)
				 : json_object();

	if (!json_is_object(fields)) {
		json_decref(fields);
		return NULL;
	}
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		json_object_del(fields, own[i]);
	if (item->name && json_object_set_new(fields, c->name_field, json_string(item->name)) < 0) {
		json_decref(fields);
		return NULL;
	}
	return fields;
}
