/* SPDX-License-Identifier: MIT */

/*
 * From a value's text to its field. The kind of the row says how to read it, the row's range what
 * to refuse; a message quotes the value and says what would have been taken. Numbers are parsed
 * strictly and whole: "10 G", "1e3" or "0x10" is refused rather than taken for its first part.
 *
 * Generic mount options have no field: they are appended, escaped again, to a list for libfuse.
 */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "options_private.h"

bool options_parse_integer(const char *text, unsigned base, uint64_t *ret_value,
			   const char **ret_end)
{
	uint64_t value = 0;

	if (*text < '0' || *text >= (int)('0' + base))
		return false;
	for (; *text >= '0' && *text < (int)('0' + base); text++)
		if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return false;
	*ret_value = value;
	*ret_end = text;
	return true;
}

static bool parse_whole(const char *text, unsigned base, uint64_t *ret_value)
{
	const char *end;

	return options_parse_integer(text, base, ret_value, &end) && *end == '\0';
}

/* "4096", "512K", "10G", "10g", "10GiB": powers of 1024 all. */
static bool parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGTPE";
	const char *end, *unit;
	uint64_t value;

	if (!options_parse_integer(text, 10, &value, &end))
		return false;
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		unsigned shift = 10 * (unsigned)(unit - units + 1);

		if (value > UINT64_MAX >> shift)
			return false;
		value <<= shift;
		end++;
		if (strcasecmp(end, "iB") == 0)
			end += 2;
	}
	if (strcasecmp(end, "B") == 0)
		end++;
	if (*end)
		return false;
	*ret_bytes = value;
	return true;
}

/* A size for both, or one to send and one to receive with. */
static bool parse_rates(const struct row *row, const char *text, struct options_rates *ret_rates)
{
	const char *colon = strchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : strlen(text);
	struct options_rates rates;
	char up[32];

	if (n >= sizeof(up))
		return false;
	memcpy(up, text, n);
	up[n] = '\0';
	if (!parse_size(up, &rates.up) || !parse_size(colon ? colon + 1 : up, &rates.down))
		return false;
	if ((rates.up && (double)rates.up < row->min) || (double)rates.up > row->max ||
	    (rates.down && (double)rates.down < row->min) || (double)rates.down > row->max)
		return false;
	*ret_rates = rates;
	return true;
}

/* "2", "0.5", ".25": nanoseconds are more than anybody can mean. */
static bool parse_seconds(const char *text, double *ret_seconds)
{
	double value = 0, scale = 1;
	bool digits = false, point = false;

	if (strlen(text) > 20)
		return false;
	for (; *text; text++) {
		if (*text == '.' && !point) {
			point = true;
		} else if (*text >= '0' && *text <= '9') {
			value = value * 10 + (*text - '0');
			scale *= point ? 10 : 1;
			digits = true;
		} else {
			return false;
		}
	}
	*ret_seconds = value / scale;
	return digits;
}

/* The place of @value among "a|b|c". */
static bool parse_choice(const char *choices, const char *value, unsigned *ret_index)
{
	size_t n_value = strlen(value);

	for (unsigned i = 0;; i++) {
		size_t n = strcspn(choices, "|");

		if (n == n_value && memcmp(choices, value, n) == 0) {
			*ret_index = i;
			return true;
		}
		if (!choices[n])
			return false;
		choices += n + 1;
	}
}

static const char *format_size(double bytes, char *text, size_t size)
{
	static const char units[] = "\0KMGTPE";
	unsigned i = 0;

	while (bytes >= 1024 && units[i + 1]) {
		bytes /= 1024;
		i++;
	}
	snprintf(text, size, "%.4g%.1s", bytes, units + i);
	return text;
}

static int refuse_value(const struct complaint *c, const struct row *row, const char *value)
{
	char low[32], high[32];

	switch (row->kind) {
	case KIND_SIZE:
		return options_refuse(
			c,
			"%s: '%.64s' is not a size between %s and %s (bytes, or with K, M, G, T)",
			row->name, value, format_size(row->min, low, sizeof(low)),
			format_size(row->max, high, sizeof(high)));
	case KIND_RATES:
		return options_refuse(
			c, "%s: '%.64s' is not a size, or two with a ':' between, 0 or at least %s",
			row->name, value, format_size(row->min, low, sizeof(low)));
	case KIND_CHOICE:
		return options_refuse(c, "%s: '%.64s' is none of %s", row->name, value,
				      row->argument);
	case KIND_SECONDS:
		return options_refuse(c, "%s: '%.64s' is not a time in seconds between %g and %g",
				      row->name, value, row->min, row->max);
	case KIND_OCTAL:
		return options_refuse(c, "%s: '%.64s' is not an octal number between 0 and %o",
				      row->name, value, (unsigned)row->max);
	default:
		return options_refuse(c, "%s: '%.64s' is not a number between %.0f and %.0f",
				      row->name, value, row->min, row->max);
	}
}

/* Read @value as the row's kind of number into its field. False when it is none or out of range. */
static bool set_number(const struct row *row, const char *value, void *field)
{
	double seconds = 0;
	uint64_t n = 0;
	bool ok;

	if (row->kind == KIND_SECONDS)
		ok = parse_seconds(value, &seconds);
	else if (row->kind == KIND_SIZE)
		ok = parse_size(value, &n);
	else
		ok = parse_whole(value, row->kind == KIND_OCTAL ? 8 : 10, &n);
	if (row->kind != KIND_SECONDS)
		seconds = (double)n;
	if (!ok || seconds < row->min || seconds > row->max)
		return false;
	if (row->kind == KIND_SECONDS)
		*(double *)field = seconds;
	else if (row->kind == KIND_SIZE)
		*(uint64_t *)field = n;
	else if (row->kind == KIND_NUMBER)
		*(unsigned *)field = (unsigned)n;
	else if (row->kind == KIND_ID)
		*(int64_t *)field = (int64_t)n;
	else
		*(int *)field = (int)n;
	return true;
}

_Static_assert(sizeof(enum options_write) == sizeof(unsigned) &&
		       sizeof(enum log_level) == sizeof(unsigned),
	       "set_choice() writes every enum as an unsigned");

static bool set_choice(const struct row *row, const char *value, void *field)
{
	unsigned index;

	if (!parse_choice(row->argument, value, &index))
		return false;
	memcpy(field, &index, sizeof(index));
	return true;
}

int options_set_string(char **field, const char *value, const struct complaint *c)
{
	char *copy = NULL;

	if (*value) {
		copy = strdup(value);
		if (!copy)
			return options_refuse_memory(c);
	}
	free(*field);
	*field = copy;
	return 0;
}

/* Append "name" or "name=value" to the list for libfuse, which splits it at commas again. */
static int pass_on(struct options *o, const char *name, const char *value,
		   const struct complaint *c)
{
	size_t n = (o->fuse_options ? strlen(o->fuse_options) : 0), room;
	char *list, *p;

	room = n + 1 + strlen(name) + 1 + (value ? 2 * strlen(value) : 0) + 1;
	list = realloc(o->fuse_options, room);
	if (!list)
		return options_refuse_memory(c);
	o->fuse_options = list;
	p = list + n;
	p += sprintf(p, "%s%s%s", n > 0 ? "," : "", name, value ? "=" : "");
	for (; value && *value; value++) {
		if (*value == ',' || *value == '\\')
			*p++ = '\\';
		*p++ = *value;
	}
	*p = '\0';
	return 0;
}

int options_set_value(struct options *o, const struct row *row, const char *value,
		      const struct complaint *c)
{
	bool ok = true;

	switch (row->kind) {
	case KIND_STRING:
	case KIND_PATH:
	case KIND_SECRET:
		return options_set_string(options_field(o, row), value, c);
	case KIND_CHOICE:
		ok = set_choice(row, value, options_field(o, row));
		break;
	case KIND_RATES:
		ok = parse_rates(row, value, options_field(o, row));
		break;
	case KIND_FLAG:
	case KIND_UNFLAG:
		*(bool *)options_field(o, row) = row->kind == KIND_FLAG;
		break;
	case KIND_PASS:
		return pass_on(o, row->name, value, c);
	case KIND_IGNORED:
		break;
	default:
		ok = set_number(row, value, options_field(o, row));
	}
	return ok ? 0 : refuse_value(c, row, value);
}

static int refuse_unknown(const struct complaint *c, const char *name)
{
	const char *near = options_suggest(name);

	if (near)
		return options_refuse(c, "unknown option '%.64s' (did you mean '%s'?)", name, near);
	return options_refuse(c, "unknown option '%.64s'", name);
}

int options_set_option(struct options *o, const char *name, const char *value,
		       const struct complaint *c)
{
	const struct row *row = options_find_row(name);
	int r;

	if (!row)
		return refuse_unknown(c, name);
	if (row->kind == KIND_IGNORED || (row->bare && !value))
		return 0;
	if (row->argument && !value)
		return options_refuse(c, "option '%s' needs a value: %s=%s", row->name, row->name,
				      row->argument);
	if (!row->argument && value)
		return options_refuse(c, "option '%s' takes no value", row->name);
	r = options_set_value(o, row, value, c);
	if (r == 0)
		options_note_origin(o, row);
	return r;
}
