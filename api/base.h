/* SPDX-License-Identifier: MIT */
#ifndef API_BASE_H
#define API_BASE_H

/*
 * The address a client was given, and what is made of it: pure functions on URLs that every system
 * needs. Any thread.
 */

#include <stdbool.h>
#include <stddef.h>

struct base {
	char *url;    /* "https://et.example.org/app/api", no '/' at the end */
	char *origin; /* "https://et.example.org" */
	char *host;   /* "et.example.org", for messages */
	bool http;    /* plain http */
};

/*
 * @text as given by the user; @example is shown when it is no such address. 0, -EINVAL with
 * @message, -ENOMEM.
 */
int base_parse(const char *text, const char *example, struct base *ret, char *message, size_t size);
void base_clear(struct base *base);

/* Where the path begins in an absolute http(s) URL with a host; NULL for anything else. */
const char *base_find_path(const char *url);

/* The host of an absolute URL, without user, port and brackets. NULL without memory. */
char *base_dup_host(const char *url);
bool base_is_loopback(const char *host);

/*
 * An absolute link from an answer, or one that begins with '/', put onto our own origin: only its
 * path and query are believed (S-11, E-12). *@ret_url NULL: no such link, or blanks or control bytes
 * in it. 0 or -ENOMEM.
 */
int base_rebase(const struct base *base, const char *link, char **ret_url);

/* @text percent-encoded for one segment of a path or one value of a query. NULL without memory. */
char *base_escape(const char *text);

#endif
