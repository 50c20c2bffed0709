/* SPDX-License-Identifier: MIT */

#include "fetch_answer.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

static bool is_packed(const struct transfer_head *head)
{
	return *head->content_encoding != '\0' &&
	       strcasecmp(head->content_encoding, "identity") != 0;
}

/*
 * Of another range than asked for nothing can be made, nor of several ("multipart/byteranges"), nor
 * of one that says two lengths.
 */
static int judge_part(const struct fetch_ask *ask, const struct transfer_head *head,
		      struct fetch_answer *a)
{
	uint64_t len;

	if (!ask->ranged || !head->has_range || head->range_first != ask->position)
		return -EIO;
	len = head->range_last - head->range_first + 1;
	if (head->content_length >= 0 && (uint64_t)head->content_length != len)
		return -EIO;
	a->at = head->range_first;
	a->end = head->range_last + 1;
	a->total = head->range_total;
	return 0;
}

/*
 * All of it. To a range with If-Range that means: not the version of that tag any more, unless the
 * answer still has it.
 */
static int judge_whole(const struct fetch_ask *ask, const struct transfer_head *head,
		       struct fetch_answer *a)
{
	bool tagged = ask->begun && *ask->etag != '\0';

	if (tagged && strcmp(ask->etag, head->etag) != 0)
		return -ESTALE;
	a->end = head->content_length >= 0 ? (uint64_t)head->content_length : UINT64_MAX;
	a->total = head->content_length;
	a->rangeless = ask->ranged;
	return 0;
}

int fetch_judge(const struct fetch_ask *ask, const struct transfer_head *head,
		struct fetch_answer *ret_answer)
{
	struct fetch_answer a = {.framed = head->content_length >= 0};
	bool strong = *head->etag != '\0' && strncmp(head->etag, "W/", 2) != 0;
	int r;

	if (is_packed(head))
		return -EIO;
	if (ask->begun && *ask->etag != '\0' && strong && strcmp(ask->etag, head->etag) != 0)
		return -ESTALE;
	r = head->status == 206 ? judge_part(ask, head, &a) : judge_whole(ask, head, &a);
	if (r < 0)
		return r;
	if (ask->begun && ask->total >= 0 && a.total >= 0 && a.total != ask->total)
		return -ESTALE;
	*ret_answer = a;
	return 0;
}

static bool is_html_type(const char *type)
{
	size_t len = strcspn(type, "; \t");

	return (len == 9 && strncasecmp(type, "text/html", len) == 0) ||
	       (len == 21 && strncasecmp(type, "application/xhtml+xml", len) == 0);
}

static bool is_html_name(const char *name)
{
	static const char *const ends[] = {".html", ".htm", ".xhtml", ".xht", ".shtml"};
	size_t len = strlen(name);

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		size_t n = strlen(ends[i]);

		if (len > n && strcasecmp(name + len - n, ends[i]) == 0)
			return true;
	}
	return false;
}

bool fetch_is_page(const struct remote_file *file, const struct transfer_head *head)
{
	const char *names[] = {file->name, file->raw_name, file->raw_filename, file->version};

	if (head->status == 206 || !is_html_type(head->content_type) ||
	    (head->get && head->get(head, "Content-Disposition")))
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i] && is_html_name(names[i]))
			return false;
	return !(file->media_type && is_html_type(file->media_type));
}

/* Tags */

static uint64_t hash_more(uint64_t hash, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
	return (hash ^ 0x100) * 0x100000001b3u;
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
	return hash_more(hash, text, strlen(text));
}

#define HASH_START 0xcbf29ce484222325u

bool fetch_tags_agree(struct fetch_tags *tags, const char *id, const char *version,
		      const char *etag)
{
	uint64_t key = hash_text(hash_text(HASH_START, id), version) | 1;
	uint64_t tag = hash_text(HASH_START, etag) | 1;
	size_t at = (size_t)(key >> 32) % FETCH_TAGS;

	/* A server whose tags change without the bytes is not listened to for long. */
	if (*etag == '\0' || strncmp(etag, "W/", 2) == 0 || tags->mistakes >= FETCH_TAG_MISTAKES)
		return true;
	bool known = tags->slots[at].version == key;
	bool agree = !known || tags->slots[at].tag == tag;
	if (!agree)
		tags->mistakes++;
	else if (known && tags->mistakes > 0)
		tags->mistakes--;
	tags->slots[at].version = key;
	tags->slots[at].tag = tag;
	return agree;
}

/* Hosts */

static uint64_t hash_host(const char *url)
{
	const char *host = strstr(url, "://");
	size_t len = host ? (size_t)(host - url) + 3 + strcspn(host + 3, "/?#") : strlen(url);

	return hash_more(HASH_START, url, len) | 1;
}

void fetch_hosts_note(struct fetch_hosts *hosts, const char *url, int64_t now_ms)
{
	uint64_t host = hash_host(url);
	size_t at = 0;

	while (at < FETCH_HOSTS && hosts->slots[at].host != host)
		at++;
	if (at == FETCH_HOSTS)
		at = hosts->next++ % FETCH_HOSTS;
	hosts->slots[at].host = host;
	hosts->slots[at].until_ms = now_ms + FETCH_RANGELESS_MS;
}

bool fetch_hosts_find(const struct fetch_hosts *hosts, const char *url, int64_t now_ms)
{
	uint64_t host = hash_host(url);

	for (size_t i = 0; i < FETCH_HOSTS; i++)
		if (hosts->slots[i].host == host)
			return now_ms < hosts->slots[i].until_ms;
	return false;
}
