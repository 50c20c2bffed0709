/* SPDX-License-Identifier: MIT */

/*
 * What a person reads: the table as --help, and as roff for the man page. Both show the same words;
 * only the escapes differ, so those are a function (put) that the common parts are given.
 */

#include <stdio.h>
#include <string.h>

#include "options_private.h"

static bool is_generic(const struct row *row)
{
	return row->kind == KIND_PASS || row->kind == KIND_IGNORED;
}

static void print_default(FILE *f, const struct row *row, void (*put)(FILE *f, const char *text))
{
	if (!row->standard)
		return;
	put(f, " (default: ");
	put(f, row->kind == KIND_SECRET ? "<set>" : row->standard);
	put(f, ")");
}

static void put_plain(FILE *f, const char *text)
{
	fputs(text, f);
}

/* Every generic mount option on one paragraph: a line each would bury ours. */
static void print_generic(FILE *f)
{
	unsigned column = 80;

	fputs("Taken as by every mount, see mount(8):", f);
	for (size_t i = 0; i < options_n_rows; i++) {
		unsigned n = (unsigned)strlen(options_rows[i].name) + 2;

		if (!is_generic(&options_rows[i]))
			continue;
		if (column + n > 78) {
			fputs("\n   ", f);
			column = 3;
		}
		fprintf(f, " %s%s", options_rows[i].name, options_rows[i].argument ? "=" : "");
		column += n;
	}
	fputs("\n", f);
}

void options_print_help(FILE *f)
{
	fputs("Options (-o name=value,...):\n", f);
	for (size_t i = 0; i < options_n_rows; i++) {
		const struct row *row = &options_rows[i];
		char left[64];

		if (is_generic(row))
			continue;
		snprintf(left, sizeof(left), "%s%s%s", row->name, row->argument ? "=" : "",
			 row->argument ? row->argument : "");
		fprintf(f, "    %-30s %s", left, row->help);
		print_default(f, row, put_plain);
		fputs("\n", f);
	}
	print_generic(f);
}

/*
 * What roff would take for a request, a dash it would break, or an escape; and where it may break a
 * list.
 */
static void put_roff(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '\\')
			fputs("\\e", f);
		else if (*text == '-')
			fputs("\\-", f);
		else if (*text == '~')
			fputs("\\(ti", f);
		else if (*text == '.' || *text == '\'')
			fprintf(f, "\\&%c", *text);
		else if (*text == ':')
			fputs(":\\:", f);
		else
			fputc(*text, f);
	}
}

void options_print_man(FILE *f)
{
	for (size_t i = 0; i < options_n_rows; i++) {
		const struct row *row = &options_rows[i];

		fputs(".TP\n\\fB", f);
		put_roff(f, row->name);
		fputs("\\fR", f);
		if (row->argument) {
			fputs("=\\fI", f);
			put_roff(f, row->argument);
			fputs("\\fR", f);
		}
		fputs("\n", f);
		put_roff(f, row->help);
		print_default(f, row, put_roff);
		fputs("\n", f);
	}
}
