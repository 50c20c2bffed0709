/* SPDX-License-Identifier: MIT */
/* The objects of section 3. */
#include "servicemax.h"

#include <stdio.h>
#include <string.h>

void sm_put_string(struct buffer *out, const char *s, size_t len)
{
	buffer_putc(out, '"');
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '"' || c == '\\')
			buffer_putc(out, '\\');
		if (c < 32 || c == 127)
			buffer_printf(out, "\\u%04x", c);
		else
			buffer_putc(out, (char)c);
	}
	buffer_putc(out, '"');
}

void sm_put_uuid(struct buffer *out, const char *key, const struct uuid *uuid)
{
	char text[UUID_SIZE];

	sm_uuid_format(uuid, text);
	buffer_json_key(out, key);
	buffer_putc(out, '"');
	buffer_put(out, text, UUID_SIZE - 1);
	buffer_putc(out, '"');
}

/* S-4: the extension tells nothing about it; neither do the bytes. */
const char *sm_media_type(const struct attachment *a)
{
	static const char *const types[] = {"application/rtf", "text/plain",
					    "application/octet-stream"};

	return types[(uint64_t)a->row.id % 3];
}

/* S-2: numbers come as strings. */
static void put_number(struct sm_call *c, struct buffer *out, const char *key, int64_t value)
{
	bool quoted = sm_set(c, SM_NUMBERS) == 0;

	buffer_json_key(out, key);
	if (quoted)
		buffer_putc(out, '"');
	buffer_put_int(out, value);
	if (quoted)
		buffer_putc(out, '"');
}

static const char *href_host(const struct sm_call *c, char *buf, size_t size)
{
	const char *own = c->sm->emu->api_url; /* http://... */

	switch (sm_set(c, SM_HREF_HOST)) {
	case HREF_LOCALHOST: /* S-11 */
		return "http://localhost:8080";
	case HREF_FOREIGN:
		return c->sm->emu->blob_url;
	case HREF_HTTP: /* what a server behind a proxy that speaks TLS takes itself for */
		return "http://127.0.0.1";
	case HREF_HTTPS:
		snprintf(buf, size, "https%s", own + strlen("http"));
		return buf;
	default:
		return own;
	}
}

static void put_link(struct sm_call *c, struct buffer *out, const char *rel, bool after)
{
	char host[128];

	/* S-1: the malformed JSON of the manual, on demand. */
	if (after && sm_set(c, SM_LINKS_COMMA) == 0)
		buffer_putc(out, ',');
	buffer_printf(out, "{\"rel\":\"%s\",\"href\":\"%s/document/", rel,
		      href_host(c, host, sizeof(host)));
}

static void put_thumbnail(struct sm_call *c, struct buffer *out, bool after)
{
	put_link(c, out, "thumbnail_url", after);
	buffer_puts(out, SM_THUMBNAIL "/latest?5.0.0.620\"}");
}

/* S-3: the number in the query means nothing and may be shorter than updated_on. */
static void put_url(struct sm_call *c, struct buffer *out, const char *uuid, int64_t ms, bool after)
{
	put_link(c, out, "url", after);
	buffer_puts(out, uuid);
	buffer_puts(out, "/latest");
	if (sm_set(c, SM_HREF_QUERY) != QUERY_NONE) {
		buffer_putc(out, '?');
		buffer_put_int(out, sm_set(c, SM_HREF_QUERY) == QUERY_12 ? ms / 10 + 1 : ms);
	}
	buffer_puts(out, "\"}");
}

static void put_links(struct sm_call *c, struct buffer *out, const char *uuid, int64_t ms)
{
	int64_t links = sm_set(c, SM_LINKS);

	buffer_puts(out, ",\"links\":[");
	if (links == LINKS_REVERSED)
		put_thumbnail(c, out, false);
	put_url(c, out, uuid, ms, links == LINKS_REVERSED);
	if (links == LINKS_WITH)
		put_thumbnail(c, out, true);
	buffer_putc(out, ']');
}

void sm_put_attachment(struct sm_call *c, struct buffer *out, const struct attachment *a)
{
	struct uuid version = sm_uuid_of_path(a->path);
	struct blob *blob = store_get_blob(c->sm->emu->store, a->path);
	int64_t ms = sm_version_ms(c->sm, a);
	char uuid[REMOTE_ID_SIZE];

	sm_attachment_id(a, uuid);
	buffer_putc(out, '{');
	put_number(c, out, "updated_on", ms);
	put_number(c, out, "size", blob ? (int64_t)blob_size(blob) : 0);
	blob_unref(blob);
	buffer_puts(out, ",\"media_type\":\"");
	buffer_puts(out, sm_media_type(a));
	buffer_puts(out, "\",\"name\":");
	sm_put_string(out, a->name.ptr, a->name.len);
	buffer_puts(out, ",\"type\":\"file\"");
	sm_put_uuid(out, "version_uuid", &version);
	buffer_puts(out, ",\"uuid\":\"");
	buffer_puts(out, uuid);
	buffer_putc(out, '"');
	put_links(c, out, uuid, ms);
	buffer_putc(out, '}');
}

/* S-8: something that is no file, to be ignored. */
static void put_other(struct sm_call *c, struct buffer *out, const struct record *r)
{
	struct uuid uuid = sm_uuid_make(UUID_ATTACHMENT, "link", r->row.id);

	buffer_puts(out, ",{");
	put_number(c, out, "updated_on", r->updated_at * 1000);
	put_number(c, out, "size", 0);
	buffer_puts(out, ",\"media_type\":\"text/uri-list\",\"name\":\"a link\",\"type\":\"link\"");
	sm_put_uuid(out, "version_uuid", &uuid);
	sm_put_uuid(out, "uuid", &uuid);
	buffer_puts(out, ",\"links\":[{\"rel\":\"url\",\"href\":\"https://example.org/\"}]}");
}

void sm_put_attachments(struct sm_call *c, struct buffer *out, const struct record *r)
{
	const struct rows *rows = sm_attachments(c->sm->emu, r);

	buffer_putc(out, '[');
	for (size_t i = 0; rows && i < rows->n; i++) {
		if (i)
			buffer_putc(out, ',');
		sm_put_attachment(c, out, (const struct attachment *)rows->at[i]);
	}
	if (rows && rows->n && sm_set(c, SM_OTHER_TYPES))
		put_other(c, out, r);
	buffer_putc(out, ']');
}
