/* SPDX-License-Identifier: MIT */

/*
 * What holds when all has been read, written as a user would write it: the opposite of
 * options_value.c. A secret is never written.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options_private.h"

#define CONFIG_LINE_MAX 190

/* The largest unit that says the same. */
static int print_size(char **ret_text, uint64_t bytes)
{
	static const char units[] = "\0KMGTPE";
	unsigned i = 0;

	while (bytes && bytes % 1024 == 0 && units[i + 1]) {
		bytes /= 1024;
		i++;
	}
	return asprintf(ret_text, "%llu%.1s", (unsigned long long)bytes, units + i);
}

/* -1 = no limit, nothing to say. */
static int print_rates(char **ret_text, const struct options_rates *rates)
{
	char *up = NULL, *down = NULL;
	int n = -1;

	if ((rates->up || rates->down) && print_size(&up, rates->up) >= 0 &&
	    print_size(&down, rates->down) >= 0)
		n = rates->up == rates->down ? asprintf(ret_text, "%s", up)
					     : asprintf(ret_text, "%s:%s", up, down);
	free(up);
	free(down);
	return n;
}

static int print_choice(char **ret_text, const char *choices, unsigned index)
{
	for (; index; index--)
		choices += strcspn(choices, "|") + 1;
	return asprintf(ret_text, "%.*s", (int)strcspn(choices, "|"), choices);
}

char *options_value_text(const struct options *o, const struct row *row)
{
	const void *field = (const char *)o + row->offset;
	const char *string;
	char *text = NULL;
	int n = -1;

	switch (row->kind) {
	case KIND_STRING:
	case KIND_PATH:
	case KIND_SECRET:
		string = *(char *const *)field;
		return !string ? NULL : strdup(row->kind == KIND_SECRET ? "<set>" : string);
	case KIND_SIZE:
		n = print_size(&text, *(const uint64_t *)field);
		break;
	case KIND_RATES:
		n = print_rates(&text, field);
		break;
	case KIND_SECONDS:
		n = asprintf(&text, "%.9g", *(const double *)field);
		break;
	case KIND_NUMBER:
		n = asprintf(&text, "%u", *(const unsigned *)field);
		break;
	case KIND_ID:
		if (*(const int64_t *)field >= 0)
			n = asprintf(&text, "%lld", (long long)*(const int64_t *)field);
		break;
	case KIND_OCTAL:
		if (*(const int *)field >= 0)
			n = asprintf(&text, "%03o", (unsigned)*(const int *)field);
		break;
	case KIND_CHOICE:
		n = print_choice(&text, row->argument, *(const unsigned *)field);
		break;
	case KIND_FLAG:
		return strdup(*(const bool *)field ? "yes" : "no");
	default:
		return NULL;
	}
	return n < 0 ? NULL : text;
}

static void print_line(FILE *f, const char *name, const char *value, const char *origin)
{
	size_t len = strlen(name) + 3 + strlen(value);
	int pad = len < 48 ? (int)(48 - len) : 0;

	if (len > CONFIG_LINE_MAX) /* no config file can hold it */
		fprintf(f, "; %s = %s ; %s\n", name, value, origin);
	else if (len + (size_t)pad + 3 + strlen(origin) > CONFIG_LINE_MAX)
		fprintf(f, "; %s:\n%s = %s\n", origin, name, value);
	else
		fprintf(f, "%s = %s%*s ; %s\n", name, value, pad, "", origin);
}

static bool is_generic(const struct row *row)
{
	return row->kind == KIND_PASS || row->kind == KIND_IGNORED || row->kind == KIND_UNFLAG;
}

void options_print_values(const struct options *o, const char *name, FILE *f)
{
	static const char *const environment[] = {"ATTACHFS_TOKEN", "ATTACHFS_PASSWORD"};

	fprintf(f, "[%s]\n", name);
	if (o->source)
		print_line(f, "source", o->source, o->origins[options_n_rows]);
	for (size_t i = 0; i < options_n_rows; i++) {
		const struct row *row = &options_rows[i];
		char *value = is_generic(row) ? NULL : options_value_text(o, row);

		if (value)
			print_line(f, row->name, value, o->origins[i] ? o->origins[i] : "default");
		else if (row->kind == KIND_PASS && o->origins[i])
			print_line(f, row->name, "yes", o->origins[i]);
		free(value);
	}
	for (size_t i = 0; i < sizeof(environment) / sizeof(environment[0]); i++)
		if (getenv(environment[i]))
			fprintf(f,
				"; %s = <set>, from the environment: used where no option gives "
				"credentials\n",
				environment[i]);
}
