/* SPDX-License-Identifier: MIT */

/*
 * A record that has very many attachments comes as one row of one answer. Its names are to be seen
 * before the last of them has arrived: while the answer comes, what is there of such a row is cut
 * off behind a whole attachment, closed with brackets, and shown as a page of its own. Nothing rests
 * on it: the whole answer is read again in the usual way at its end, and what cannot be read here is
 * left for then.
 *
 *	{"data": [ {"id": 1, "name": .., "attachments": [ {..}, {..}, ...
 *	1        2 3                                    4 5           depth
 *	           '------------- prefix --------------'  '-- files --'
 */

#include "perscom.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/pool.h>

#include "json.h"

#define SLICE_BYTES  ((size_t)128 << 10)
#define PREFIX_BYTES ((size_t)1 << 20) /* a row with more before its attachments is left alone */
#define WORD_MAX     16

struct slice {
	struct slice *next;
	size_t len;
	char text[];
};

struct perscom_stream {
	atomic_uint refs;
	struct perscom *p;
	const struct perscom_collection *c;
	struct remote_sink sink;

	/* the transfer thread's */
	unsigned depth;
	bool in_string, escaped, lost;
	bool in_data;			    /* below "data" */
	char word[WORD_MAX], key[WORD_MAX]; /* the last string, the last one before a colon */
	size_t word_len;
	char *row;
	size_t row_len, row_size;
	size_t prefix, whole; /* of the row: up to the first file (0 = none yet), behind the last */

	pthread_mutex_t lock; /* held while a page is shown, so that the end waits for it */
	bool ended;	      /* lock */

	pthread_mutex_t queue_lock; /* innermost */
	struct slice *first, **last;
};

struct perscom_stream *perscom_stream_new(struct perscom *p, const struct perscom_collection *c,
					  const struct remote_sink *sink)
{
	struct perscom_stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->refs = 1;
	s->p = p;
	s->c = c;
	s->sink = *sink;
	s->last = &s->first;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->queue_lock, NULL);
	return s;
}

static void stream_unref(struct perscom_stream *s)
{
	if (atomic_fetch_sub(&s->refs, 1) > 1)
		return;
	while (s->first) {
		struct slice *next = s->first->next;

		free(s->first);
		s->first = next;
	}
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->queue_lock);
	free(s->row);
	free(s);
}

void perscom_stream_end(struct perscom_stream *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->ended = true;
	pthread_mutex_unlock(&s->lock);
	stream_unref(s);
}

/* ---- showing ---- */

/* lock held. */
static void show_locked(struct perscom_stream *s, const struct slice *slice)
{
	struct perscom_page page;
	json_t *root = json_loadb(slice->text, slice->len, 0, NULL);

	if (root && perscom_decode_page(&s->p->server, root, s->c, s->p->names, &page) == 0)
		s->ended |= !s->sink.page(s->sink.ctx, page.records, page.n_records, page.files,
					  page.n_files);
	if (root)
		perscom_page_clear(&page);
	json_decref(root);
}

static struct slice *take_slice(struct perscom_stream *s)
{
	struct slice *slice;

	pthread_mutex_lock(&s->queue_lock);
	slice = s->first;
	if (slice)
		s->first = slice->next;
	if (!s->first)
		s->last = &s->first;
	pthread_mutex_unlock(&s->queue_lock);
	return slice;
}

/* There is one of these for each slice, and they may overtake each other: each takes the oldest. */
static void show_job(void *ctx)
{
	struct perscom_stream *s = ctx;
	struct slice *slice;

	pthread_mutex_lock(&s->lock);
	slice = take_slice(s);
	if (slice && !s->ended)
		show_locked(s, slice);
	pthread_mutex_unlock(&s->lock);
	free(slice);
	stream_unref(s);
}

/* ---- cutting, on the transfer thread ---- */

static void cut(struct perscom_stream *s)
{
	static const char head[] = "{\"data\":[", tail[] = "]}]}";
	size_t len = sizeof(head) - 1 + s->whole + sizeof(tail) - 1;
	struct slice *slice = malloc(sizeof(*slice) + len);

	if (slice) {
		slice->next = NULL;
		slice->len = len;
		memcpy(slice->text, head, sizeof(head) - 1);
		memcpy(slice->text + sizeof(head) - 1, s->row, s->whole);
		memcpy(slice->text + sizeof(head) - 1 + s->whole, tail, sizeof(tail) - 1);
		pthread_mutex_lock(&s->queue_lock);
		*s->last = slice;
		s->last = &slice->next;
		pthread_mutex_unlock(&s->queue_lock);
		atomic_fetch_add(&s->refs, 1);
		if (pool_run(s->p->base.pool, show_job, s) < 0)
			stream_unref(s);
	}
	s->row_len = s->whole = s->prefix;
}

static void keep(struct perscom_stream *s, char byte)
{
	/* what stands between two files is not needed where a slice begins */
	if (s->prefix && s->row_len == s->prefix && byte != '{')
		return;
	if (s->row_len == s->row_size) {
		size_t size = s->row_size ? 2 * s->row_size : 4096;
		char *row = size <= 2 * PREFIX_BYTES ? realloc(s->row, size) : NULL;

		s->lost |= !row;
		if (!row)
			return;
		s->row = row;
		s->row_size = size;
	}
	s->row[s->row_len++] = byte;
}

static void opened(struct perscom_stream *s, char byte)
{
	s->depth++;
	if (s->depth == 2)
		s->in_data = byte == '[' && !strcmp(s->key, "data");
	if (s->depth == 3) {
		s->row_len = s->prefix = s->whole = 0;
		keep(s, byte);
	}
	if (s->depth == 4 && byte == '[' && !strcmp(s->key, "attachments"))
		s->prefix = s->whole = s->row_len;
}

static void closed(struct perscom_stream *s)
{
	if (s->depth == 5 && s->prefix) {
		s->whole = s->row_len;
		if (s->whole - s->prefix >= SLICE_BYTES)
			cut(s);
	}
	if (s->depth == 4)
		s->prefix = 0; /* what is left of this row comes with the whole answer */
	s->depth -= s->depth > 0;
}

static void in_string(struct perscom_stream *s, char byte)
{
	if (!s->escaped && byte == '"') {
		s->in_string = false;
		s->word[s->word_len] = '\0';
	} else if (s->word_len < WORD_MAX - 1) {
		s->word[s->word_len++] = byte;
	}
	s->escaped = !s->escaped && byte == '\\';
}

static void take_byte(struct perscom_stream *s, char byte)
{
	if (s->in_data && s->depth >= 3)
		keep(s, byte);
	if (s->in_string) {
		in_string(s, byte);
		return;
	}
	switch (byte) {
	case '"':
		s->in_string = true;
		s->word_len = 0;
		break;
	case ':':
		strcpy(s->key, s->word);
		break;
	case '{':
	case '[':
		opened(s, byte);
		break;
	case '}':
	case ']':
		closed(s);
		break;
	}
}

void perscom_stream_take(void *ctx, const void *data, size_t len)
{
	struct perscom_stream *s = ctx;
	const char *bytes = data;

	if (!data) {
		s->depth = 0;
		s->in_string = s->escaped = s->lost = s->in_data = false;
		s->row_len = s->prefix = s->whole = 0;
		return;
	}
	for (size_t i = 0; i < len && !s->lost; i++)
		take_byte(s, bytes[i]);
}
