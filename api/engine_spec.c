/* SPDX-License-Identifier: MIT */

/*
 * What a caller hands over: checked, and copied into one block of memory. The copying function runs
 * twice, first with no memory to learn how much is needed. A line break in anything that becomes a
 * header is refused: a name on a server must not be able to add headers to a request.
 */

#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADERS_MAX 64
#define PARTS_MAX   1024

struct arena {
	char *base; /* NULL while measuring */
	size_t used;
};

static void *arena_take(struct arena *arena, size_t size, size_t align)
{
	void *p;

	arena->used = (arena->used + align - 1) & ~(align - 1);
	p = arena->base ? arena->base + arena->used : NULL;
	arena->used += size;
	return p;
}

static void *keep(struct arena *arena, const void *data, size_t len)
{
	char *copy;

	if (!data)
		return NULL;
	copy = arena_take(arena, len + 1, 1);
	if (copy) {
		memcpy(copy, data, len);
		copy[len] = '\0';
	}
	return copy;
}

static char *keep_text(struct arena *arena, const char *text)
{
	return keep(arena, text, text ? strlen(text) : 0);
}

static const char *const *keep_headers(struct arena *arena, const char *const *headers)
{
	size_t n = 0;
	char **copy;

	if (!headers)
		return NULL;
	while (headers[n])
		n++;
	copy = arena_take(arena, (n + 1) * sizeof(*copy), _Alignof(char *));
	for (size_t i = 0; i < n; i++) {
		char *line = keep_text(arena, headers[i]);

		if (copy)
			copy[i] = line;
	}
	if (copy)
		copy[n] = NULL;
	return (const char *const *)copy;
}

static void keep_parts(struct arena *arena, const struct transfer_spec *in, struct transfer *out)
{
	struct transfer_part *parts =
		arena_take(arena, in->n_parts * sizeof(*parts), _Alignof(struct transfer_part));
	struct part_reader *readers =
		arena_take(arena, in->n_parts * sizeof(*readers), _Alignof(struct part_reader));

	for (size_t i = 0; i < in->n_parts; i++) {
		struct transfer_part part = in->parts[i];

		part.name = keep_text(arena, part.name);
		part.filename = keep_text(arena, part.filename);
		part.content_type = keep_text(arena, part.content_type);
		part.disposition = keep_text(arena, part.disposition);
		part.data = part.fd < 0 ? keep(arena, part.data, part.len) : NULL;
		if (!parts)
			continue;
		part.fd = -1; /* until it is dup'ed */
		parts[i] = part;
		readers[i] = (struct part_reader){
			.part = &parts[i],
			.t = out,
			.len = in->parts[i].fd < 0 ? part.len : part.fd_len,
		};
	}
	out->spec.parts = parts;
	out->readers = readers;
}

static void keep_spec(struct arena *arena, const struct transfer_spec *in, struct transfer *out)
{
	struct transfer_spec *spec = &out->spec;

	*spec = *in;
	spec->method = keep_text(arena, in->method ? in->method : "GET");
	spec->url = keep_text(arena, in->url);
	spec->endpoint = keep_text(arena, in->endpoint ? in->endpoint : "");
	spec->headers = keep_headers(arena, in->headers);
	spec->credential = keep_text(arena, in->credential);
	spec->body = keep(arena, in->body, in->body_len);
	spec->content_type = keep_text(arena, in->content_type);
	spec->multipart_type = keep_text(arena, in->multipart_type);
	spec->if_range = keep_text(arena, in->if_range);
	if (in->n_parts)
		keep_parts(arena, in, out);
}

/* NULL is fine; a control character is not. */
static bool is_header_text(const char *text)
{
	for (; text && *text; text++)
		if ((unsigned char)*text < ' ' && *text != '\t')
			return false;
	return true;
}

static bool is_method(const char *method)
{
	size_t len = strlen(method);

	return len > 0 && len < 24 && strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == len;
}

static bool parts_are_valid(const struct transfer_spec *spec)
{
	if (spec->n_parts > PARTS_MAX || (spec->n_parts && (!spec->parts || spec->body)))
		return false;
	for (size_t i = 0; i < spec->n_parts; i++) {
		const struct transfer_part *part = &spec->parts[i];

		if (!part->name && !part->disposition)
			return false;
		/* A name and a filename are escaped when sent; these are not. */
		if (!is_header_text(part->content_type) || !is_header_text(part->disposition))
			return false;
		if (part->fd >= 0 && part->fd_off + part->fd_len > INT64_MAX)
			return false;
	}
	return true;
}

static bool spec_is_valid(const struct transfer_spec *spec)
{
	if (!spec->url || (unsigned)spec->class >= TRANSFER_CLASSES || !spec->done_cb)
		return false;
	if (spec->method && !is_method(spec->method))
		return false;
	if (!is_header_text(spec->url) || !is_header_text(spec->credential) ||
	    !is_header_text(spec->content_type) || !is_header_text(spec->multipart_type) ||
	    !is_header_text(spec->if_range))
		return false;
	if (spec->has_range && spec->range_first + spec->range_len < spec->range_first)
		return false;
	for (size_t i = 0; spec->headers && spec->headers[i]; i++)
		if (i >= HEADERS_MAX || !is_header_text(spec->headers[i]))
			return false;
	return parts_are_valid(spec);
}

static int dup_parts(struct transfer *t, const struct transfer_spec *in)
{
	struct transfer_part *parts = (struct transfer_part *)t->spec.parts;

	for (size_t i = 0; i < in->n_parts; i++) {
		if (in->parts[i].fd < 0)
			continue;
		parts[i].fd = fcntl(in->parts[i].fd, F_DUPFD_CLOEXEC, 3);
		if (parts[i].fd < 0)
			return -errno;
	}
	return 0;
}

void transfer_free(struct transfer *t)
{
	if (!t)
		return;
	for (size_t i = 0; t->memory && i < t->spec.n_parts; i++)
		if (t->spec.parts[i].fd >= 0)
			close(t->spec.parts[i].fd);
	if (t->memory)
		explicit_bzero(t->memory, t->memory_len); /* the credential */
	free(t->memory);
	free(t->url);
	origin_clear(&t->origin);
	free(t);
}

static int copy(struct transfer *t, const struct transfer_spec *spec)
{
	struct arena arena = {.base = NULL};
	int r;

	keep_spec(&arena, spec, t);
	arena.base = malloc(arena.used);
	if (!arena.base)
		return -ENOMEM;
	arena.used = 0;
	keep_spec(&arena, spec, t);
	t->memory = arena.base;
	t->memory_len = arena.used;
	r = dup_parts(t, spec);
	return r < 0 ? r : origin_parse(t->spec.url, &t->origin);
}

int transfer_new(struct engine *engine, const struct transfer_spec *spec, struct transfer **ret_t)
{
	struct transfer *t;
	int r;

	if (!spec_is_valid(spec))
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	r = copy(t, spec);
	if (r == 0 && !t->origin.https && !t->origin.loopback && !engine->config.insecure_http)
		r = -EINVAL;
	if (r < 0) {
		transfer_free(t);
		return r;
	}
	t->engine = engine;
	t->class = t->wish_class = spec->class;
	*ret_t = t;
	return 0;
}
