/* SPDX-License-Identifier: MIT */
/*
 * States: PREAMBLE --boundary--> BOUNDARY_LINE --end of line--> HEADERS --empty line--> CONTENT
 * --boundary--> BOUNDARY_LINE ...; `--` behind a boundary leads to EPILOGUE, where all is ignored.
 * `window` holds what has arrived and is not yet understood: at most a delimiter's length of content,
 * or the headers of one part.
 */
#include "multipart.h"

#include "alloc.h"
#include "buffer.h"
#include "form.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEADERS_MAX 65536

enum multipart_at {
	AT_PREAMBLE,
	AT_BOUNDARY_LINE,
	AT_HEADERS,
	AT_CONTENT,
	AT_EPILOGUE,
};

struct multipart_state {
	enum multipart_at at;
	char *spool;
	bool mime; /* with options, which are these */
	struct multipart_options options;
	char *delimiter; /* "\n--boundary" */
	size_t delimiter_len;
	struct buffer window;
	char *name; /* of the current part; NULL: a part to ignore, unless @mime */
	char *type;
	bool counts; /* @mime: its disposition is one of those wanted */
	bool is_file;
	struct str filename;
	struct blob_writer *writer; /* of a file part with a file in it */
	struct buffer value;	    /* of a field part */
};

static char *boundary_of(const char *content_type, bool mime)
{
	const char *b;
	size_t len;

	if (strncasecmp(content_type, "multipart/form-data", mime ? 10 : 19) != 0)
		return NULL;
	b = strcasestr(content_type, "boundary=");
	if (!b)
		return NULL;
	b += 9;
	if (*b == '"') {
		b++;
		len = strcspn(b, "\"");
	} else {
		len = strcspn(b, ",; \t");
	}
	return len ? xmemdup(b, len) : NULL;
}

struct multipart *multipart_new(const char *content_type, const char *spool,
				const struct multipart_options *options)
{
	char *boundary = boundary_of(content_type, options != NULL);
	struct multipart *m;

	if (!boundary)
		return NULL;
	m = xzalloc(sizeof(*m));
	m->fields = json_object();
	m->state = xzalloc(sizeof(*m->state));
	m->state->spool = xstrdup(spool);
	m->state->mime = options != NULL;
	if (options)
		m->state->options = *options;
	m->state->delimiter = xasprintf("\n--%s", boundary);
	m->state->delimiter_len = strlen(m->state->delimiter);
	/* The body's first line may be a boundary: pretend a line ended before it. */
	buffer_putc(&m->state->window, '\n');
	free(boundary);
	return m;
}

static void window_drop(struct buffer *window, size_t n)
{
	window->len -= n;
	memmove(window->data, window->data + n, window->len + 1);
}

static int content_put(struct multipart_state *st, const char *data, size_t len)
{
	if (st->writer)
		return blob_writer_put(st->writer, data, len);
	if (st->name && !st->is_file && !st->mime)
		buffer_put(&st->value, data, len);
	return 0;
}

static void add_file(struct multipart *m, struct multipart_state *st)
{
	struct multipart_file *file;

	m->files = xrealloc(m->files, (m->n_files + 1) * sizeof(*m->files));
	file = &m->files[m->n_files++];
	*file = (struct multipart_file){xstrdup(st->name ? st->name : ""), st->filename,
					blob_writer_finish(st->writer), st->type};
	st->filename = (struct str){0};
	st->type = NULL;
	st->writer = NULL;
}

static void part_forget(struct multipart_state *st)
{
	blob_writer_cancel(st->writer);
	st->writer = NULL;
	str_free(&st->filename);
	buffer_free(&st->value);
	free(st->name);
	st->name = NULL;
	free(st->type);
	st->type = NULL;
	st->is_file = false;
	st->counts = false;
}

static void part_end(struct multipart *m)
{
	struct multipart_state *st = m->state;

	if (st->writer)
		add_file(m, st);
	else if (st->name && !st->is_file && !st->mime)
		form_put(m->fields, st->name, st->value.data ? st->value.data : "", st->value.len);
	part_forget(st);
}

/* A parameter's value as php_ap_getword_conf() reads it; *pos ends behind it. MIME has no `'` quotes. */
static struct str parameter_value(const char **pos, bool mime)
{
	const char *s = *pos;
	struct str out = {xmalloc(strlen(s) + 1), 0};
	char quote = *s == '"' || (*s == '\'' && !mime) ? *s++ : '\0';

	while (*s && (quote ? *s != quote : *s != ';' && !isspace((unsigned char)*s))) {
		if (quote && *s == '\\' && (s[1] == '\\' || s[1] == quote))
			s++;
		out.ptr[out.len++] = *s++;
	}
	if (quote && *s)
		s++;
	out.ptr[out.len] = '\0';
	*pos = s;
	return out;
}

static void cut_directories(struct str *name)
{
	size_t cut = name->len;

	while (cut && name->ptr[cut - 1] != '/' && name->ptr[cut - 1] != '\\')
		cut--;
	name->len -= cut;
	memmove(name->ptr, name->ptr + cut, name->len + 1);
}

static void take_parameter(struct multipart_state *st, const char *key, size_t key_len,
			   struct str value)
{
	if (key_len == 4 && strncasecmp(key, "name", 4) == 0 && !st->name) {
		st->name = value.ptr;
	} else if (key_len == 8 && strncasecmp(key, "filename", 8) == 0 && !st->is_file) {
		st->is_file = true;
		if (!st->mime)
			cut_directories(&value);
		st->filename = value;
	} else {
		str_free(&value);
	}
}

static bool is_disposition(const char *s, const char *wanted)
{
	size_t len = strlen(wanted);

	s += strspn(s, " \t");
	return strncasecmp(s, wanted, len) == 0 && (!s[len] || strchr("; \t", s[len]));
}

static void read_disposition(struct multipart_state *st, const char *s)
{
	st->counts = (st->options.attachments && is_disposition(s, "attachment")) ||
		     (st->options.form_data && is_disposition(s, "form-data"));
	s += strcspn(s, ";");
	while (*s) {
		size_t key_len;
		const char *key;

		s += strspn(s, "; \t");
		key = s;
		key_len = strcspn(s, "=;");
		s += key_len;
		if (*s != '=')
			continue;
		s++;
		s += strspn(s, " \t");
		take_parameter(st, key, key_len, parameter_value(&s, st->mime));
		s += strcspn(s, ";");
	}
}

/* A copy of the value if @line is the header called @name, colon included. */
static char *header_value(const char *line, size_t len, const char *name)
{
	size_t skip = strlen(name);

	if (len < skip || strncasecmp(line, name, skip) != 0)
		return NULL;
	while (skip < len && (line[skip] == ' ' || line[skip] == '\t'))
		skip++;
	return xmemdup(line + skip, len - skip);
}

static void read_header(struct multipart_state *st, const char *line, size_t len)
{
	char *disposition = header_value(line, len, "Content-Disposition:");

	if (disposition)
		read_disposition(st, disposition);
	else if (!st->type)
		st->type = header_value(line, len, "Content-Type:");
	free(disposition);
}

static void part_begin(struct multipart_state *st)
{
	st->at = AT_CONTENT;
	if ((st->mime ? st->counts : st->name != NULL) && st->is_file && st->filename.len)
		st->writer = blob_writer_new(st->spool);
}

/* Each step returns 1 if it made progress, 0 if it needs more bytes, or a negative errno. */
static int step_line(struct multipart_state *st)
{
	char *end = memchr(st->window.data, '\n', st->window.len);
	size_t len;

	if (!end)
		return st->window.len > HEADERS_MAX ? -EMSGSIZE : 0;
	len = (size_t)(end - st->window.data);
	if (st->at == AT_BOUNDARY_LINE) {
		st->at = AT_HEADERS;
	} else if (len && st->window.data[len - 1] == '\r' ? len > 1 : len > 0) {
		read_header(st, st->window.data, st->window.data[len - 1] == '\r' ? len - 1 : len);
	} else {
		part_begin(st);
	}
	window_drop(&st->window, len + 1);
	return 1;
}

static bool is_header(const char *line, size_t len)
{
	size_t n = 0;

	while (n < len && (isalnum((unsigned char)line[n]) || line[n] == '-'))
		n++;
	return n > 0 && n < len && line[n] == ':';
}

/* A boundary where a header was expected: a part without a blank line has no body, or an empty one. */
static int step_sudden_boundary(struct multipart *m)
{
	struct multipart_state *st = m->state;

	if (st->options.blank_line_optional) {
		part_begin(st);
		part_end(m);
	}
	part_forget(st);
	window_drop(&st->window, st->delimiter_len - 1);
	st->at = AT_BOUNDARY_LINE;
	return 1;
}

static int step_headers(struct multipart *m)
{
	struct multipart_state *st = m->state;
	const struct buffer *w = &st->window;
	const char *end = w->len ? memchr(w->data, '\n', w->len) : NULL;
	size_t len = end ? (size_t)(end - w->data) : w->len;
	bool tolerant = st->mime && st->options.blank_line_optional;

	if (st->mime && len >= st->delimiter_len - 1 &&
	    memcmp(w->data, st->delimiter + 1, st->delimiter_len - 1) == 0)
		return step_sudden_boundary(m);
	if (!end && !(tolerant && len > HEADERS_MAX))
		return step_line(st);
	if (tolerant && len && w->data[0] != '\r' && !is_header(w->data, len)) {
		part_begin(st);
		return 1;
	}
	return step_line(st);
}

static int step_boundary_line(struct multipart_state *st)
{
	if (st->window.len < 2)
		return 0;
	if (st->window.data[0] == '-' && st->window.data[1] == '-') {
		st->at = AT_EPILOGUE;
		return 1;
	}
	return step_line(st);
}

static int step_content(struct multipart *m)
{
	struct multipart_state *st = m->state;
	struct buffer *w = &st->window;
	size_t keep = st->delimiter_len + 1; /* a delimiter cut short, and the \r before it */
	char *found = w->len ? memmem(w->data, w->len, st->delimiter, st->delimiter_len) : NULL;
	size_t n = found ? (size_t)(found - w->data) : w->len > keep ? w->len - keep : 0;
	size_t text = found && n && w->data[n - 1] == '\r' ? n - 1 : n;
	int r = st->at == AT_CONTENT ? content_put(st, w->data, text) : 0;

	if (r < 0)
		return r;
	if (!found) {
		window_drop(w, n);
		return 0;
	}
	if (st->at == AT_CONTENT)
		part_end(m);
	window_drop(w, n + st->delimiter_len);
	st->at = AT_BOUNDARY_LINE;
	return 1;
}

static int step(struct multipart *m)
{
	struct multipart_state *st = m->state;

	switch (st->at) {
	case AT_PREAMBLE:
	case AT_CONTENT:
		return step_content(m);
	case AT_BOUNDARY_LINE:
		return step_boundary_line(st);
	case AT_HEADERS:
		return step_headers(m);
	case AT_EPILOGUE:
		st->window.len = 0;
	}
	return 0;
}

int multipart_feed(struct multipart *m, const char *data, size_t len)
{
	int r;

	buffer_put(&m->state->window, data, len);
	do
		r = step(m);
	while (r > 0);
	return r;
}

void multipart_end(struct multipart *m)
{
	struct multipart_state *st = m->state;

	if (!st)
		return;
	part_forget(st);
	buffer_free(&st->window);
	free(st->delimiter);
	free(st->spool);
	free(st);
	m->state = NULL;
}

void multipart_free(struct multipart *m)
{
	if (!m)
		return;
	multipart_end(m);
	for (size_t i = 0; i < m->n_files; i++) {
		free(m->files[i].name);
		free(m->files[i].type);
		str_free(&m->files[i].filename);
		blob_unref(m->files[i].blob);
	}
	free(m->files);
	json_decref(m->fields);
	free(m);
}

const struct multipart_file *multipart_file(const struct multipart *m, const char *name)
{
	for (size_t i = 0; m && i < m->n_files; i++)
		if (strcmp(m->files[i].name, name) == 0)
			return &m->files[i];
	return NULL;
}
