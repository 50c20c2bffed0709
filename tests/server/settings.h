/* SPDX-License-Identifier: MIT */
/*
 * Toggles: what a test can change about a server's behaviour, at start (--set) or at run time
 * (POST /set). Each system has one table of them; a value is a number, read by its index in the table.
 */
#ifndef EMULATOR_SETTINGS_H
#define EMULATOR_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum setting_kind {
	SETTING_CHOICE,	 /* one of choices, separated by '|'; the value is its index */
	SETTING_NUMBER,	 /* >= 0; "off" is 0 */
	SETTING_VERSION, /* "2.10" or "2.9.16": 2010000, 2009016 */
};

struct setting {
	const char *name;
	enum setting_kind kind;
	const char *choices;
	const char *otherwise; /* the default */
};

#define SETTINGS_MAX 64

struct settings {
	const struct setting *table; /* ends with name NULL */
	int64_t values[SETTINGS_MAX];
};

#define SETTING_VERSION_OF(major, minor, patch) ((major)*1000000 + (minor)*1000 + (patch))

void settings_init(struct settings *s, const struct setting *table);
/* False: no such toggle or value; *ret_error says so. */
bool settings_set(struct settings *s, const char *name, const char *value, char **ret_error);
bool settings_set_json(struct settings *s, const json_t *object, char **ret_error);
json_t *settings_to_json(const struct settings *s);

#endif
