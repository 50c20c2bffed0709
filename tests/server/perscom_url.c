/* SPDX-License-Identifier: MIT */
/* `attachment_url`: the four forms of section 4, and the check of a presigned one (P-5). */
#include "perscom.h"

#include "clock.h"
#include "digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_object(const struct perscom *p, struct buffer *out, const char *path)
{
	buffer_puts(out, "/tenant");
	buffer_put_int(out, p->emu->settings.values[SET_TENANCY]);
	buffer_putc(out, '/');
	buffer_puts(out, path);
}

/* Range is no part of what is signed, the method is: that is why HEAD is refused (P-4). */
static void sign(struct perscom *p, const char *path, const char *date, const char *expires,
		 char hex[static DIGEST_HEX])
{
	struct buffer text = {0};

	buffer_puts(&text, "GET\n");
	buffer_puts(&text, path);
	buffer_putc(&text, '\n');
	buffer_puts(&text, date);
	buffer_putc(&text, '\n');
	buffer_puts(&text, expires);
	digest_hmac(p->signer, text.data, text.len, hex);
	buffer_free(&text);
}

static void put_presigned(struct call *c, struct buffer *out, const char *path)
{
	struct date_time t = clock_split(clock_now());
	char date[96], expires[24], signature[DIGEST_HEX];

	snprintf(date, sizeof(date), "%04d%02d%02dT%02d%02d%02dZ", t.year, t.month, t.day, t.hour,
		 t.minute, t.second);
	snprintf(expires, sizeof(expires), "%lld", (long long)setting(c, SET_PRESIGN_TTL));
	sign(c->p, path, date, expires, signature);
	buffer_puts(out, "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=EMULATOR%2F");
	buffer_put(out, date, 8);
	buffer_puts(out, "%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=");
	buffer_puts(out, date);
	buffer_puts(out, "&X-Amz-Expires=");
	buffer_puts(out, expires);
	buffer_puts(out, "&X-Amz-SignedHeaders=host&X-Amz-Signature=");
	buffer_puts(out, signature);
}

void put_url(struct call *c, struct buffer *out, const char *path)
{
	struct buffer url = {0};
	size_t object;

	switch ((enum url_form)setting(c, SET_URL)) {
	case URL_NULL:
		buffer_puts(out, "null");
		return;
	case URL_RELATIVE:
		buffer_puts(&url, "/storage/");
		buffer_puts(&url, path);
		break;
	case URL_PLAIN:
	case URL_PRESIGNED:
		buffer_puts(&url, c->p->emu->blob_url);
		object = url.len;
		put_object(c->p, &url, path);
		if (setting(c, SET_URL) == URL_PRESIGNED)
			put_presigned(c, &url, url.data + object);
		break;
	}
	buffer_json_string(out, url.data, url.len);
	buffer_free(&url);
}

static bool expired(const char *date, const char *expires)
{
	struct date_time t = {0};

	if (sscanf(date, "%4d%2d%2dT%2d%2d%2dZ", &t.year, &t.month, &t.day, &t.hour, &t.minute,
		   &t.second) != 6)
		return true;
	return clock_now() > clock_join(&t) + strtoll(expires, NULL, 10);
}

enum url_check url_check(struct request *rq)
{
	struct str date = request_query(rq, "X-Amz-Date");
	struct str expires = request_query(rq, "X-Amz-Expires");
	struct str given = request_query(rq, "X-Amz-Signature");
	char wanted[DIGEST_HEX];
	enum url_check found = URL_UNSIGNED;

	if (date.ptr && expires.ptr && given.ptr) {
		sign(rq->emu->state, rq->path, date.ptr, expires.ptr, wanted);
		if (strcmp(wanted, given.ptr) != 0 || strcmp(rq->method, "GET") != 0)
			found = URL_FORGED;
		else
			found = expired(date.ptr, expires.ptr) ? URL_EXPIRED : URL_GOOD;
	}
	str_free(&date);
	str_free(&expires);
	str_free(&given);
	return found;
}
