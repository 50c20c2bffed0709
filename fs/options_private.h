/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_OPTIONS_PRIVATE_H
#define ATTACHFS_FS_OPTIONS_PRIVATE_H

/*
 * What the files of the options share:
 *
 *	options.c         their life: defaults, -o, the last checks; complaints
 *	options_table.c   the table: one row per option; finding and guessing one by its name
 *	options_value.c   from a value's text to its field
 *	options_source.c  SOURCE: the system and its address
 *	options_config.c  the config files and their sections
 *	options_paths.c   where the user's directories are; paths made absolute
 *	options_print.c   the table as --help and as a part of the man page
 *	options_show.c    what holds, and where each value came from
 *
 * A value comes in as text, is found in the table by its name and written to the field that the row
 * gives. What is wrong with it becomes words for the user in a struct complaint, and -EINVAL.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attachfs/options.h>

/* For messages: what options_source.c knows. */
#define SYSTEM_NAMES "perscom, rillsoft, enterprise-tester, servicemax"

enum kind {
	KIND_STRING,
	KIND_PATH,    /* made absolute by options_finish() */
	KIND_SECRET,  /* a string that is never shown */
	KIND_SIZE,    /* uint64_t, bytes */
	KIND_RATES,   /* struct options_rates */
	KIND_SECONDS, /* double */
	KIND_NUMBER,  /* unsigned */
	KIND_ID,      /* int64_t */
	KIND_OCTAL,   /* int */
	KIND_CHOICE,  /* an enum, in the order of the kind's text */
	KIND_FLAG,    /* bool, set */
	KIND_UNFLAG,  /* bool, cleared: the opposite of a flag */
	KIND_PASS,    /* a generic mount option for libfuse */
	KIND_IGNORED, /* a generic mount option for somebody else */
};

struct row {
	const char *name; /* a '*' at its end stands for anything */
	enum kind kind;
	const char *text;     /* the kind in words */
	size_t offset;	      /* of the field in struct options */
	const char *argument; /* what stands behind the '=' in the help; NULL = takes no value */
	const char *standard; /* default, as a user would write it; NULL = none */
	bool computed;	      /* the default is only described here, options_finish() fills it in */
	bool bare;	      /* without a value it is a generic mount option to ignore */
	double min, max;
	const char *help;
};

extern const struct row options_rows[];
extern const size_t options_n_rows;

/* The caller's buffer for what went wrong. */
struct complaint {
	char *text;
	size_t size;
};

/* Say what is wrong, where there is room for it. Always -EINVAL. */
__attribute__((format(printf, 2, 3))) int options_refuse(const struct complaint *c,
							 const char *format, ...);
/* Always -ENOMEM. */
int options_refuse_memory(const struct complaint *c);

/* The field of @row in @o; its type is the kind's. */
static inline void *options_field(struct options *o, const struct row *row)
{
	return (char *)o + row->offset;
}

/* options.c: the row's value was just set from o->setting_from; NULL = the source. */
void options_note_origin(struct options *o, const struct row *row);

/* options_table.c */

/* The row of that name, or whose '*' covers it; NULL = no such option. */
const struct row *options_find_row(const char *name);
/* The option @name was probably meant to be, NULL when none is near. */
const char *options_suggest(const char *name);

/* options_value.c: 0, -EINVAL with a complaint, or -ENOMEM */

/*
 * Read the digits that @text begins with; *@ret_end is what follows. False when there is none or
 * the number is too large. Digits only: the C library's own parsers also take signs, blanks, "0x",
 * "inf" and the locale's comma.
 */
bool options_parse_integer(const char *text, unsigned base, uint64_t *ret_value,
			   const char **ret_end);
/*
 * Replace the string *@field by a copy of @value. An empty value is how the command line takes back
 * what the config file has set.
 */
int options_set_string(char **field, const char *value, const struct complaint *c);
/* Set the row's field; @value is NULL for a flag. Whether the row takes a value was checked. */
int options_set_value(struct options *o, const struct row *row, const char *value,
		      const struct complaint *c);
/* Set the option of that name; @value is NULL when there was no '='. */
int options_set_option(struct options *o, const char *name, const char *value,
		       const struct complaint *c);

/* How a user would write the row's value, malloc()ed; NULL = it has none, or no memory. */
char *options_value_text(const struct options *o, const struct row *row);

/* options_source.c */

/* Take a "system:url": 0, -EINVAL with a complaint, or -ENOMEM. */
int options_take_source(struct options *o, const char *source, const struct complaint *c);
/* Whether credentials sent to the checked @url could be read on the way: http:// to elsewhere. */
bool options_url_is_exposed(const char *url);

/* options_paths.c */

/*
 * $@variable/@rest, or ~/@fallback/@rest; XDG says a relative path in such a variable is to be
 * ignored. malloc()ed, NULL when nobody knows.
 */
char *options_xdg_path(const char *variable, const char *fallback, const char *rest);
/* Default cache_dir and make all paths absolute: 0, -EINVAL with a complaint, or -ENOMEM. */
int options_finish_paths(struct options *o, const struct complaint *c);

#endif
