/* SPDX-License-Identifier: MIT */

/*
 * SOURCE: "system:url". The address is checked here once and strictly, more so than libcurl would:
 * it decides where a token is sent, so whatever two parsers of URLs might read in two ways is
 * refused, and so are credentials in it: those belong in files.
 */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "options_private.h"

#define HOST_MAX 255

static const struct {
	const char *name;
	enum options_system system;
} systems[] = {
	{"perscom", OPTIONS_SYSTEM_PERSCOM},
	{"rillsoft", OPTIONS_SYSTEM_RILLSOFT},
	{"enterprise-tester", OPTIONS_SYSTEM_ENTERPRISE_TESTER},
	{"servicemax", OPTIONS_SYSTEM_SERVICEMAX},
};

/*
 * Copy the host of the checked or unchecked @url to @host. False for anything but a plain name, an
 * address, or an IPv6 address in brackets: what one parser of URLs takes for the host and another
 * does not decides where a token is sent.
 */
static bool url_host(const char *url, char host[static HOST_MAX + 1])
{
	const char *start = strstr(url, "://"), *end;
	size_t n;

	if (!start)
		return false;
	start += 3;
	end = start + strcspn(start, "/");
	if (*start == '[') {
		n = strspn(start + 1, "0123456789abcdefABCDEF:.");
		if (start[1 + n] != ']')
			return false;
		n += 2;
	} else {
		n = strspn(start,
			   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
	}
	if (n == 0 || n > HOST_MAX)
		return false;
	memcpy(host, start, n);
	host[n] = '\0';
	start += n;
	if (start < end && *start == ':') {
		uint64_t port;

		if (!options_parse_integer(start + 1, 10, &port, &start) || port == 0 ||
		    port > 65535)
			return false;
	}
	return start == end;
}

static bool is_loopback(const char *host)
{
	struct in6_addr six;
	struct in_addr four;
	char bare[HOST_MAX + 1];

	if (strcasecmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &four) == 1)
		return ntohl(four.s_addr) >> 24 == 127;
	if (host[0] != '[')
		return false;
	snprintf(bare, sizeof(bare), "%.*s", (int)strlen(host) - 2, host + 1);
	return inet_pton(AF_INET6, bare, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

static bool is_http(const char *url)
{
	return strncasecmp(url, "http://", 7) == 0;
}

bool options_url_is_exposed(const char *url)
{
	char host[HOST_MAX + 1];

	return is_http(url) && !(url_host(url, host) && is_loopback(host));
}

/* No message quotes the URL: what is wrong with it may be that it holds a password. */
static int check_url(const char *url, const struct complaint *c)
{
	char host[HOST_MAX + 1];

	if (!is_http(url) && strncasecmp(url, "https://", 8) != 0)
		return options_refuse(c, "the address must begin with https:// (or http://)");
	for (const char *p = url; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f || *p == '\\' || *p == '"' ||
		    *p == '<' || *p == '>')
			return options_refuse(c,
					      "the address holds a character that no URL may hold");
	if (strpbrk(url, "?#"))
		return options_refuse(
			c, "the address must have neither a query (?) nor a fragment (#)");
	if (memchr(strstr(url, "://") + 3, '@', strcspn(strstr(url, "://") + 3, "/")))
		return options_refuse(
			c, "no user or password in the address: put credentials in a file "
			   "(token_file=, or user= and password_file=)");
	if (!url_host(url, host))
		return options_refuse(c, "the address has no valid host or port");
	return 0;
}

static int take_url(struct options *o, const char *source, enum options_system system,
		    const char *url, const struct complaint *c)
{
	size_t n = strlen(url);
	char *base;
	int r;

	r = check_url(url, c);
	if (r < 0)
		return r;
	while (url[n - 1] == '/')
		n--;
	base = strndup(url, n);
	if (!base)
		return options_refuse_memory(c);
	r = options_set_string(&o->source, source, c);
	if (r < 0) {
		free(base);
		return r;
	}
	free(o->base_url);
	o->base_url = base;
	o->system = system;
	options_note_origin(o, NULL);
	return 0;
}

int options_take_source(struct options *o, const char *source, const struct complaint *c)
{
	size_t n = strcspn(source, ":");

	for (size_t i = 0; i < sizeof(systems) / sizeof(systems[0]); i++)
		if (strlen(systems[i].name) == n && memcmp(systems[i].name, source, n) == 0 &&
		    source[n])
			return take_url(o, source, systems[i].system, source + n + 1, c);
	if (strncasecmp(source, "http", 4) == 0)
		return options_refuse(c,
				      "SOURCE must say which system the address belongs to, as in "
				      "perscom:https://...; there are " SYSTEM_NAMES);
	return options_refuse(c, "unknown system '%.*s'; there are " SYSTEM_NAMES,
			      (int)(n < 64 ? n : 64), source);
}

void options_print_systems(FILE *f)
{
	for (size_t i = 0; i < sizeof(systems) / sizeof(systems[0]); i++)
		fprintf(f, "%s:\n", systems[i].name);
}
