/* SPDX-License-Identifier: MIT */

/*
 * Links in answers. They lead to another host than the API's (section 4 of the reference) and come
 * from the server, so nothing is taken for granted: scheme, plain http, relative ones, and how long
 * a presigned one is good.
 */

#include "perscom.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "base.h"
#include "json.h"

/* "v2" when the URL ends in "/v<digits>", else NULL. */
static const char *find_version(const char *url)
{
	const char *slash = strrchr(url, '/');
	size_t digits = slash && slash[1] == 'v' ? strspn(slash + 2, "0123456789") : 0;

	return digits && slash[2 + digits] == '\0' ? slash + 1 : NULL;
}

int perscom_base_parse(const char *text, struct perscom_base *ret, char *message, size_t size)
{
	struct base base;
	char *versioned;
	int r = base_parse(text, "https://api.perscom.io/v2", &base, message, size);

	if (r < 0)
		return r;
	if (!find_version(base.url)) {
		if (asprintf(&versioned, "%s/v2", base.url) < 0) {
			base_clear(&base);
			return -ENOMEM;
		}
		free(base.url);
		base.url = versioned;
	}
	*ret = (struct perscom_base){base.url, base.origin, base.host, find_version(base.url),
				     base.http};
	return 0;
}

void perscom_base_clear(struct perscom_base *base)
{
	free(base->url);
	free(base->origin);
	free(base->host);
	*base = (struct perscom_base){0};
}

/* Whether an absolute URL may be followed. -ENOMEM, 0 or 1. */
static int may_follow(const struct perscom_base *base, const char *url)
{
	if (!base_find_path(url))
		return 0;
	if (base->http || strncasecmp(url, "https:", 6) == 0)
		return 1;
	char *host = base_dup_host(url);
	if (!host)
		return -ENOMEM;
	int ok = base_is_loopback(host);
	free(host);
	return ok;
}

int perscom_url_resolve(const struct perscom_base *base, const char *link, char **ret_url)
{
	char *url = NULL;

	*ret_url = NULL;
	if (!link || *link == '\0')
		return 0;
	for (const char *p = link; *p != '\0'; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f)
			return 0;
	if (link[0] == '/' && link[1] == '/') {
		if (asprintf(&url, "%s:%s", base->http ? "http" : "https", link) < 0)
			return -ENOMEM;
	} else if (link[0] == '/') {
		if (asprintf(&url, "%s%s", base->origin, link) < 0)
			return -ENOMEM;
	} else {
		url = strdup(link);
	}
	int ok = url ? may_follow(base, url) : -ENOMEM;
	if (ok <= 0) {
		free(url);
		return ok;
	}
	*ret_url = url;
	return 0;
}

/* The value of a query's parameter, up to '&'; NULL = not there. */
static const char *find_parameter(const char *url, const char *name)
{
	const char *p = strchr(url, '?');
	size_t len = strlen(name);

	while (p) {
		p++;
		if (strncasecmp(p, name, len) == 0 && p[len] == '=')
			return p + len + 1;
		p = strchr(p, '&');
	}
	return NULL;
}

int64_t perscom_url_expiry(const char *url)
{
	const char *date = find_parameter(url, "X-Amz-Date");
	const char *expires = find_parameter(url, "X-Amz-Expires");
	char iso[TIME_ISO8601_SIZE];
	int64_t begin_ns;

	/* 20260301T081530Z */
	if (!date || !expires || strcspn(date, "&#") != 16 || date[8] != 'T' || date[15] != 'Z')
		return INT64_MAX;
	snprintf(iso, sizeof(iso), "%.4s-%.2s-%.2sT%.2s:%.2s:%.2sZ", date, date + 4, date + 6,
		 date + 9, date + 11, date + 13);
	size_t digits = strspn(expires, "0123456789");
	if (time_parse_iso8601(iso, &begin_ns) < 0 || digits == 0 || digits > 9)
		return INT64_MAX;
	return begin_ns / CLOCK_NS_PER_S + strtoll(expires, NULL, 10);
}
