/* SPDX-License-Identifier: MIT */

/*
 * A block is
 *
 *	rid NUL | flags | numbers | hash, if there is one | texts, each with its NUL
 *
 * Numbers are of seven bits a byte, the last one without the eighth. A text is told by where it
 * begins in what rid and texts would be without anything between them, + 1; one that another ends in
 * (two names that are one, a URL that ends in the version) is not written again.
 */

#include "known.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "small.h"

void known_clear(struct known *k)
{
	free(k->rid);
	free(k->name);
	free(k->filename);
	free(k->version);
	free(k->url_rest);
	free(k->media_type);
	*k = (struct known){.size = -1};
}

void known_take(struct known *k, struct remote_file *f, uint64_t record)
{
	*k = (struct known){
		.rid = f->id,
		.record = record,
		.name = f->raw_name ? f->raw_name : f->name,
		.filename = f->raw_filename,
		.version = f->version,
		.url_rest = f->url,
		.media_type = f->media_type,
		.size = f->size,
		.mtime_ns = f->mtime_ns,
		.ctime_ns = f->ctime_ns,
	};
	if (f->raw_name)
		free(f->name);
	free(f->record);
	memset(f, 0, sizeof(*f));
}

void known_copy_hash(struct known *k, const struct known *from)
{
	k->has_hash = from->has_hash;
	memcpy(k->hash, from->hash, sizeof(k->hash));
}

bool known_is_tokened(const struct known *k)
{
	const char *f = k->filename;
	size_t first, second;

	if (!f || strncmp(f, "attachfs-", 9) || (k->name && !strcmp(k->name, f)))
		return false;
	first = strspn(f + 9, "0123456789abcdef");
	if (!first || f[9 + first] != '-')
		return false;
	second = strspn(f + 10 + first, "0123456789abcdef");
	return second && !f[10 + first + second];
}

static char *whole_url(const struct known *k)
{
	size_t head = k->url_head ? strlen(k->url_head) : 0;
	char *url = k->url_rest ? malloc(head + strlen(k->url_rest) + 1) : NULL;

	if (!url)
		return NULL;
	memcpy(url, k->url_head ? k->url_head : "", head);
	strcpy(url + head, k->url_rest);
	return url;
}

/* Its signature was not written down. */
static bool is_bare(const char *text)
{
	return *text && text[strlen(text) - 1] == '?';
}

char *known_url(const struct known *k)
{
	return k->url_rest && is_bare(k->url_rest) ? NULL : whole_url(k);
}

static bool is_signed(const char *url)
{
	const char *query = strchr(url, '?');

	return query && (strcasestr(query, "signature=") || strcasestr(query, "sig=") ||
			 strcasestr(query, "token="));
}

char *known_lasting_url(const struct known *k)
{
	char *url = whole_url(k);

	if (url && is_signed(url))
		url[strcspn(url, "?") + 1] = '\0';
	return url;
}

bool known_has_url(const struct known *k, const char *url)
{
	size_t head = k->url_head ? strlen(k->url_head) : 0;

	if (!k->url_rest || !url)
		return !k->url_rest && !url;
	return (!head || !strncmp(url, k->url_head, head)) && !strcmp(url + head, k->url_rest);
}

/* ---- what many have in common ---- */

/* A server with more of them than this has each in its block. */
#define SHARED_MAX	255
#define SHARED_TEXT_MAX 256

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static char *shared[SHARED_MAX]; /* shared_lock to look for one; it stays where it is */
static size_t n_shared;		 /* shared_lock */

/* Its number, counted from 1; 0 = it is not kept. */
static unsigned share(const char *text, size_t len)
{
	size_t i = 0;

	if (len > SHARED_TEXT_MAX)
		return 0;
	pthread_mutex_lock(&shared_lock);
	while (i < n_shared && (strlen(shared[i]) != len || memcmp(shared[i], text, len) != 0))
		i++;
	if (i == n_shared && i < SHARED_MAX) {
		shared[i] = strndup(text, len);
		n_shared += shared[i] != NULL;
	}
	i = i < n_shared ? i + 1 : 0;
	pthread_mutex_unlock(&shared_lock);
	return (unsigned)i;
}

/* Up to the last '/' of its path: behind that stands what each has of its own. */
static size_t head_length(const char *url)
{
	size_t len = strcspn(url, "?#");

	while (len && url[len - 1] != '/')
		len--;
	return len;
}

/* ---- numbers ---- */

#define TIME_NONE    0u
#define TIME_SECONDS 1u
#define TIME_NS	     2u
#define TIME_SAME    3u /* of ctime: as mtime */

#define FLAG_MTIME     0 /* two bits each */
#define FLAG_CTIME     2
#define FLAG_FILLER    0x10u
#define FLAG_HASH      0x20u
#define FLAG_CONFIRMED 0x40u

static unsigned char *put_number(unsigned char *to, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*to++ = (unsigned char)(v | 0x80);
	*to++ = (unsigned char)v;
	return to;
}

static const unsigned char *get_number(const unsigned char *from, uint64_t *ret_v)
{
	unsigned shift = 0;

	for (*ret_v = 0; *from & 0x80; shift += 7)
		*ret_v |= (uint64_t)(*from++ & 0x7f) << shift;
	*ret_v |= (uint64_t)*from++ << shift;
	return from;
}

/* So that small negative ones are short, too. */
static uint64_t fold(int64_t v)
{
	return ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0);
}

static int64_t unfold(uint64_t v)
{
	return (int64_t)((v >> 1) ^ (v & 1 ? UINT64_MAX : 0));
}

static unsigned time_kind(int64_t ns)
{
	if (ns == REMOTE_TIME_NONE)
		return TIME_NONE;
	return ns % CLOCK_NS_PER_S ? TIME_NS : TIME_SECONDS;
}

static unsigned char *put_time(unsigned char *to, unsigned kind, int64_t ns)
{
	if (kind == TIME_SECONDS || kind == TIME_NS)
		to = put_number(to, fold(kind == TIME_NS ? ns : ns / CLOCK_NS_PER_S));
	return to;
}

static const unsigned char *get_time(const unsigned char *from, unsigned kind, int64_t *ret_ns)
{
	uint64_t v;

	*ret_ns = REMOTE_TIME_NONE;
	if (kind != TIME_SECONDS && kind != TIME_NS)
		return from;
	from = get_number(from, &v);
	*ret_ns = unfold(v) * (kind == TIME_NS ? 1 : CLOCK_NS_PER_S);
	return from;
}

/* ---- texts ---- */

enum { TEXT_RID, TEXT_URL, TEXT_VERSION, TEXT_FILENAME, TEXT_NAME, TEXT_MEDIA, TEXTS };

struct texts {
	const char *text[TEXTS];
	uint64_t at[TEXTS];  /* + 1; 0 = none */
	bool written[TEXTS]; /* not the end of another */
	size_t bytes;	     /* of those that are, without rid */
	unsigned url_head, media;
};

/* What others may be the end of comes before them. */
static void place_texts(struct texts *t)
{
	size_t end = 0;

	for (size_t i = 0; i < TEXTS; i++) {
		size_t len = t->text[i] ? strlen(t->text[i]) : 0;

		for (size_t j = 0; t->text[i] && j < i && !t->at[i]; j++) {
			size_t have = t->written[j] ? strlen(t->text[j]) : 0;

			if (t->written[j] && have >= len &&
			    !strcmp(t->text[j] + have - len, t->text[i]))
				t->at[i] = t->at[j] + have - len;
		}
		if (!t->text[i] || t->at[i])
			continue;
		t->at[i] = end + 1;
		t->written[i] = true;
		end += len + 1;
	}
	t->bytes = end - strlen(t->text[TEXT_RID]) - 1;
}

static void choose_texts(const struct known *k, struct texts *t)
{
	size_t head = k->url_rest && !k->url_head ? head_length(k->url_rest) : 0;

	*t = (struct texts){
		.text = {k->rid, k->url_rest, k->version, k->filename, k->name, k->media_type}};
	if (k->url_head)
		t->url_head = share(k->url_head, strlen(k->url_head));
	else if (head)
		t->url_head = share(k->url_rest, head);
	if (head && t->url_head)
		t->text[TEXT_URL] += head;
	if (k->media_type)
		t->media = share(k->media_type, strlen(k->media_type));
	if (t->media)
		t->text[TEXT_MEDIA] = NULL;
	place_texts(t);
}

/* ---- blocks ---- */

#define NUMBER_MAX 10 /* bytes of one */
#define HEAD_MAX   (1 + (4 + 2 + 3 + TEXTS) * NUMBER_MAX + LEDGER_HASH_BYTES)

/* What stands between rid and texts. */
static unsigned char *put_head(const struct known *k, const struct texts *t, unsigned char *to)
{
	unsigned mtime = time_kind(k->mtime_ns),
		 ctime = k->ctime_ns == k->mtime_ns ? TIME_SAME : time_kind(k->ctime_ns);

	*to++ = (unsigned char)(mtime << FLAG_MTIME | ctime << FLAG_CTIME |
				(k->filler ? FLAG_FILLER : 0) | (k->has_hash ? FLAG_HASH : 0) |
				(k->confirmed_ms ? FLAG_CONFIRMED : 0));
	to = put_number(to, t->bytes);
	to = put_number(to, k->record);
	to = put_number(to, fold(k->size));
	to = put_time(to, mtime, k->mtime_ns);
	to = put_time(to, ctime, k->ctime_ns);
	if (k->confirmed_ms)
		to = put_number(to, fold(k->confirmed_ms));
	to = put_number(to, t->url_head);
	to = put_number(to, t->media);
	for (size_t i = TEXT_RID + 1; i < TEXTS; i++)
		to = put_number(to, t->at[i]);
	if (k->has_hash) {
		memcpy(to, k->hash, LEDGER_HASH_BYTES);
		to += LEDGER_HASH_BYTES;
	}
	return to;
}

char *known_pack(const struct known *k)
{
	unsigned char head[HEAD_MAX];
	struct texts t;
	size_t rid_bytes, head_bytes;
	char *block, *to;

	if (!k->rid)
		return NULL;
	choose_texts(k, &t);
	rid_bytes = strlen(k->rid) + 1;
	head_bytes = (size_t)(put_head(k, &t, head) - head);
	block = small_must(small_alloc(rid_bytes + head_bytes + t.bytes));
	memcpy(block, k->rid, rid_bytes);
	memcpy(block + rid_bytes, head, head_bytes);
	to = block + rid_bytes + head_bytes;
	for (size_t i = TEXT_RID + 1; i < TEXTS; i++) {
		size_t bytes = t.written[i] ? strlen(t.text[i]) + 1 : 0;

		memcpy(to, t.text[i] ? t.text[i] : "", bytes);
		to += bytes;
	}
	return block;
}

/* *@ret_texts: how many bytes of texts, returned: where they begin. */
static char *read_block(const char *block, struct known *k, uint64_t *ret_texts, uint64_t at[TEXTS])
{
	const unsigned char *from = (const unsigned char *)block + strlen(block) + 1;
	unsigned flags = *from++, ctime = flags >> FLAG_CTIME & 3;
	uint64_t v, url_head, media;

	*k = (struct known){.rid = (char *)block};
	from = get_number(from, ret_texts);
	from = get_number(from, &k->record);
	from = get_number(from, &v);
	k->size = unfold(v);
	from = get_time(from, flags >> FLAG_MTIME & 3, &k->mtime_ns);
	from = get_time(from, ctime, &k->ctime_ns);
	if (ctime == TIME_SAME)
		k->ctime_ns = k->mtime_ns;
	if (flags & FLAG_CONFIRMED) {
		from = get_number(from, &v);
		k->confirmed_ms = unfold(v);
	}
	from = get_number(from, &url_head);
	from = get_number(from, &media);
	k->url_head = url_head ? shared[url_head - 1] : NULL;
	k->media_type = media ? shared[media - 1] : NULL;
	at[TEXT_RID] = 1;
	for (size_t i = TEXT_RID + 1; i < TEXTS; i++)
		from = get_number(from, &at[i]);
	k->filler = flags & FLAG_FILLER;
	k->has_hash = flags & FLAG_HASH;
	if (k->has_hash) {
		memcpy(k->hash, from, LEDGER_HASH_BYTES);
		from += LEDGER_HASH_BYTES;
	}
	return (char *)from;
}

static char *text_at(const char *block, size_t rid_bytes, char *texts, uint64_t at)
{
	if (!at)
		return NULL;
	return at <= rid_bytes ? (char *)block + at - 1 : texts + (at - 1 - rid_bytes);
}

void known_unpack(const char *block, struct known *ret_known)
{
	uint64_t at[TEXTS] = {0}, bytes;
	size_t rid_bytes;
	char *texts;

	if (!block) {
		*ret_known = (struct known){.size = -1};
		return;
	}
	rid_bytes = strlen(block) + 1;
	texts = read_block(block, ret_known, &bytes, at);
	ret_known->url_rest = text_at(block, rid_bytes, texts, at[TEXT_URL]);
	ret_known->version = text_at(block, rid_bytes, texts, at[TEXT_VERSION]);
	ret_known->filename = text_at(block, rid_bytes, texts, at[TEXT_FILENAME]);
	ret_known->name = text_at(block, rid_bytes, texts, at[TEXT_NAME]);
	if (at[TEXT_MEDIA])
		ret_known->media_type = text_at(block, rid_bytes, texts, at[TEXT_MEDIA]);
}

void known_free_block(char *block)
{
	uint64_t at[TEXTS], bytes;
	struct known k;

	if (block)
		small_free(block, (size_t)(read_block(block, &k, &bytes, at) - block) + bytes);
}

char *known_find_name(const char *block, const char *text)
{
	struct known k;

	known_unpack(block, &k);
	if (k.filename && !strcmp(k.filename, text))
		return k.filename;
	return k.name && !strcmp(k.name, text) ? k.name : NULL;
}
