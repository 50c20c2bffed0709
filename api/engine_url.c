/* SPDX-License-Identifier: MIT */

/*
 * URLs, as far as the engine must understand them: whose is it (scheme, host and port decide who
 * sees the credential, who shares slots, a breaker and a rate limit), and where does a redirect
 * lead. curl's own parser does the reading, so that there is no second opinion about what a URL
 * means.
 */

#include "engine.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int url_error(CURLUcode code)
{
	if (code == CURLUE_OK)
		return 0;
	return code == CURLUE_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
}

/* Only what cannot be anybody else: a name that merely resolves to 127.0.0.1 today is not loopback.
 */
static bool is_loopback(const char *host)
{
	struct in_addr v4;

	if (!strcmp(host, "localhost") || !strcmp(host, "[::1]"))
		return true;
	return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

static int origin_fill(const char *scheme, char *host, const char *port, struct origin *ret_origin)
{
	size_t size = strlen(scheme) + strlen(host) + strlen(port) + sizeof("://:");
	char *key;

	if (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0)
		return -EINVAL;
	for (char *c = host; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	key = malloc(size);
	if (!key)
		return -ENOMEM;
	snprintf(key, size, "%s://%s:%s", scheme, host, port);
	*ret_origin = (struct origin){
		.key = key,
		.https = !strcmp(scheme, "https"),
		.loopback = is_loopback(host),
	};
	return 0;
}

int origin_parse(const char *url, struct origin *ret_origin)
{
	CURLU *parsed = curl_url();
	char *scheme = NULL, *host = NULL, *port = NULL;
	int r;

	if (!parsed)
		return -ENOMEM;
	/* A user in a URL would become an Authorization header of curl's making: refused. */
	r = url_error(curl_url_set(parsed, CURLUPART_URL, url, CURLU_DISALLOW_USER));
	if (r == 0)
		r = url_error(curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0));
	if (r == 0)
		r = url_error(curl_url_get(parsed, CURLUPART_HOST, &host, 0));
	if (r == 0)
		r = url_error(curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT));
	if (r == 0)
		r = origin_fill(scheme, host, port, ret_origin);
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(parsed);
	return r;
}

void origin_clear(struct origin *origin)
{
	free(origin->key);
	origin->key = NULL;
}

int url_resolve(const char *base, const char *location, char **ret_url)
{
	CURLU *parsed = curl_url();
	char *text = NULL;
	int r;

	if (!parsed)
		return -ENOMEM;
	r = url_error(curl_url_set(parsed, CURLUPART_URL, base, 0));
	if (r == 0)
		r = url_error(curl_url_set(parsed, CURLUPART_URL, location, CURLU_URLENCODE));
	if (r == 0)
		r = url_error(curl_url_set(parsed, CURLUPART_FRAGMENT, NULL, 0));
	if (r == 0)
		r = url_error(curl_url_get(parsed, CURLUPART_URL, &text, 0));
	if (r == 0) {
		*ret_url = strdup(text);
		if (!*ret_url)
			r = -ENOMEM;
	}
	curl_free(text);
	curl_url_cleanup(parsed);
	return r;
}
