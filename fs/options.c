/* SPDX-License-Identifier: MIT */

/*
 * The life of the options: defaults, "-o" lists and single options over them, and at the end what
 * can be told only when all are known. Everything about a single option follows from its row in
 * options_table.c; options_private.h says which file does what.
 */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options_private.h"

__attribute__((format(printf, 2, 3))) int options_refuse(const struct complaint *c,
							 const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (c->size > 0)
		vsnprintf(c->text, c->size, format, ap);
	va_end(ap);
	return -EINVAL;
}

int options_refuse_memory(const struct complaint *c)
{
	options_refuse(c, "out of memory");
	return -ENOMEM;
}

static bool is_string(const struct row *row)
{
	return row->kind == KIND_STRING || row->kind == KIND_PATH || row->kind == KIND_SECRET;
}

int options_init(struct options *o)
{
	struct complaint none = {NULL, 0};
	int r;

	memset(o, 0, sizeof(*o));
	o->uid = o->gid = -1;
	o->umask = -1;
	for (size_t i = 0; i < options_n_rows; i++) {
		if (!options_rows[i].standard || options_rows[i].computed)
			continue;
		r = options_set_value(o, &options_rows[i], options_rows[i].standard, &none);
		if (r < 0) {
			options_clear(o);
			return r;
		}
	}
	return 0;
}

int options_keep_origins(struct options *o)
{
	o->origins = calloc(options_n_rows + 1, sizeof(*o->origins));
	return o->origins ? 0 : -ENOMEM;
}

/* A flag and its opposite are two rows of one field: the first of them stands for both. */
void options_note_origin(struct options *o, const struct row *row)
{
	size_t i = 0;

	if (!o->origins)
		return;
	while (row && i < options_n_rows &&
	       (row->offset ? options_rows[i].offset != row->offset : &options_rows[i] != row))
		i++;
	i = row ? i : options_n_rows;
	free(o->origins[i]);
	o->origins[i] = strdup(o->setting_from ? o->setting_from : "command line");
}

void options_clear(struct options *o)
{
	for (size_t i = 0; o->origins && i <= options_n_rows; i++)
		free(o->origins[i]);
	free(o->origins);
	for (size_t i = 0; i < options_n_rows; i++)
		if (is_string(&options_rows[i]))
			free(*(char **)options_field(o, &options_rows[i]));
	free(o->source);
	free(o->base_url);
	free(o->mountpoint);
	free(o->fuse_options);
	memset(o, 0, sizeof(*o));
}

/* Set what stands at @pair, which is taken apart in place. */
static int set_pair(struct options *o, char *pair, const struct complaint *c)
{
	char *value = strchr(pair, '=');

	if (value)
		*value++ = '\0';
	return options_set_option(o, pair, value, c);
}

int options_set(struct options *o, const char *pair, char *message, size_t size)
{
	struct complaint c = {message, size};
	char *copy = strdup(pair);
	int r;

	if (!copy)
		return options_refuse_memory(&c);
	r = set_pair(o, copy, &c);
	free(copy);
	return r;
}

/* Move the next pair of *@at to @out without its escapes. False when none is left. */
static bool next_pair(const char **at, char *out)
{
	const char *p = *at;

	while (*p == ',')
		p++;
	if (!*p)
		return false;
	for (; *p && *p != ','; p++) {
		if (*p == '\\' && (p[1] == ',' || p[1] == '\\'))
			p++;
		*out++ = *p;
	}
	*out = '\0';
	*at = p;
	return true;
}

int options_set_list(struct options *o, const char *list, char *message, size_t size)
{
	struct complaint c = {message, size};
	char *pair = malloc(strlen(list) + 1);
	int r = 0;

	if (!pair)
		return options_refuse_memory(&c);
	while (r == 0 && next_pair(&list, pair))
		r = set_pair(o, pair, &c);
	free(pair);
	return r;
}

int options_finish(struct options *o, char *message, size_t size)
{
	struct complaint c = {message, size};

	if (!o->base_url)
		return options_refuse(&c, "no SOURCE given, as in perscom:https://...; the systems "
					  "are " SYSTEM_NAMES);
	if (!o->insecure_http && options_url_is_exposed(o->base_url))
		return options_refuse(
			&c, "http:// would send credentials unencrypted: use https://, or -o "
			    "insecure_http if that is what you want");
	if (o->token_file && o->token_command)
		return options_refuse(&c, "token_file and token_command exclude each other");
	return options_finish_paths(o, &c);
}
