/* SPDX-License-Identifier: MIT */
#include "base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *base_find_path(const char *url)
{
	size_t scheme = strncasecmp(url, "https://", 8) == 0  ? 8
			: strncasecmp(url, "http://", 7) == 0 ? 7
							      : 0;
	size_t host = scheme ? strcspn(url + scheme, "/?#") : 0;

	return host ? url + scheme + host : NULL;
}

char *base_dup_host(const char *url)
{
	const char *begin = strstr(url, "://") + 3;
	const char *end = begin + strcspn(begin, "/?#");
	const char *at = memrchr(begin, '@', (size_t)(end - begin));

	if (at)
		begin = at + 1;
	if (*begin == '[') {
		begin++;
		end = begin + strcspn(begin, "]/?#");
	} else {
		end = begin + strcspn(begin, ":/?#");
	}
	return strndup(begin, (size_t)(end - begin));
}

/* As the engine sees it: a name like 127.example.org is anybody's. */
bool base_is_loopback(const char *host)
{
	struct in_addr v4;

	if (strcasecmp(host, "localhost") == 0 || strcmp(host, "::1") == 0)
		return true;
	return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

static bool has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

int base_parse(const char *text, const char *example, struct base *ret, char *message, size_t size)
{
	struct base base = {0};
	const char *path = text ? base_find_path(text) : NULL;
	size_t len = text ? strlen(text) : 0;

	if (!path || has_control(text) || strpbrk(text, " ?#@") || strstr(text, "://:")) {
		snprintf(message, size, "the server's address must be like %s", example);
		return -EINVAL;
	}
	while (len > 0 && text[len - 1] == '/')
		len--;
	base.url = strndup(text, len);
	base.origin = strndup(text, (size_t)(path - text));
	base.host = base_dup_host(text);
	base.http = strncasecmp(text, "http:", 5) == 0;
	if (!base.url || !base.origin || !base.host) {
		base_clear(&base);
		return -ENOMEM;
	}
	*ret = base;
	return 0;
}

void base_clear(struct base *base)
{
	free(base->url);
	free(base->origin);
	free(base->host);
	*base = (struct base){0};
}

int base_rebase(const struct base *base, const char *link, char **ret_url)
{
	const char *path = !link			    ? NULL
			   : *link == '/' && link[1] != '/' ? link
							    : base_find_path(link);

	*ret_url = NULL;
	if (!path || *path != '/')
		return 0;
	for (const char *p = path; *p != '\0'; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f || *p == '#')
			return 0;
	return asprintf(ret_url, "%s%s", base->origin, path) < 0 ? -ENOMEM : 0;
}

char *base_escape(const char *text)
{
	static const char kept[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	static const char hex[] = "0123456789ABCDEF";
	char *out = malloc(3 * strlen(text) + 1), *p = out;

	for (; out && *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (strchr(kept, c)) {
			*p++ = *text;
			continue;
		}
		*p++ = '%';
		*p++ = hex[c >> 4];
		*p++ = hex[c & 15];
	}
	if (out)
		*p = '\0';
	return out;
}
