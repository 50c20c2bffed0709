/* SPDX-License-Identifier: MIT */
#include "settings.h"

#include "alloc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool parse_choice(const char *choices, const char *value, int64_t *ret)
{
	size_t len = strlen(value);

	for (int64_t i = 0;; i++) {
		size_t n = strcspn(choices, "|");

		if (n == len && strncmp(choices, value, n) == 0) {
			*ret = i;
			return true;
		}
		if (!choices[n])
			return false;
		choices += n + 1;
	}
}

static bool parse_number(const char *value, int64_t *ret)
{
	char *end;

	if (strcmp(value, "off") == 0) {
		*ret = 0;
		return true;
	}
	errno = 0;
	*ret = strtoll(value, &end, 10);
	return *value && !*end && !errno && *ret >= 0;
}

static bool parse_version(const char *value, int64_t *ret)
{
	int major = 0, minor = 0, patch = 0;

	if (sscanf(value, "%d.%d.%d", &major, &minor, &patch) < 1)
		return false;
	*ret = SETTING_VERSION_OF(major, minor, patch);
	return true;
}

static bool parse(const struct setting *setting, const char *value, int64_t *ret)
{
	switch (setting->kind) {
	case SETTING_CHOICE:
		return parse_choice(setting->choices, value, ret);
	case SETTING_NUMBER:
		return parse_number(value, ret);
	case SETTING_VERSION:
		return parse_version(value, ret);
	}
	return false;
}

void settings_init(struct settings *s, const struct setting *table)
{
	s->table = table;
	for (size_t i = 0; table[i].name; i++)
		if (i >= SETTINGS_MAX || !parse(&table[i], table[i].otherwise, &s->values[i]))
			abort();
}

bool settings_set(struct settings *s, const char *name, const char *value, char **ret_error)
{
	int64_t parsed;

	for (size_t i = 0; s->table[i].name; i++) {
		if (strcmp(s->table[i].name, name) != 0)
			continue;
		if (!parse(&s->table[i], value, &parsed)) {
			*ret_error = xasprintf("bad value for %s: %s", name, value);
			return false;
		}
		s->values[i] = parsed;
		return true;
	}
	*ret_error = xasprintf("no such toggle: %s", name);
	return false;
}

/* Numbers and booleans are as good as strings: {"throttle": 100, "unguarded": true}. */
static bool set_value(struct settings *s, const char *name, const json_t *value, char **ret_error)
{
	char text[32];

	if (json_is_string(value))
		return settings_set(s, name, json_string_value(value), ret_error);
	if (json_is_integer(value))
		snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
	else if (json_is_real(value))
		snprintf(text, sizeof(text), "%g", json_real_value(value));
	else
		snprintf(text, sizeof(text), "%s", json_is_true(value) ? "on" : "off");
	return settings_set(s, name, text, ret_error);
}

bool settings_set_json(struct settings *s, const json_t *object, char **ret_error)
{
	struct settings fresh = *s;
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)object, name,
			    value) if (!set_value(&fresh, name, value, ret_error)) return false;
	*s = fresh;
	return true;
}

static json_t *value_to_json(const struct setting *setting, int64_t value)
{
	const char *choice = setting->choices;

	if (setting->kind == SETTING_NUMBER)
		return json_integer(value);
	if (setting->kind == SETTING_VERSION)
		return json_sprintf("%d.%d.%d", (int)(value / 1000000), (int)(value / 1000 % 1000),
				    (int)(value % 1000));
	while (value--)
		choice += strcspn(choice, "|") + 1;
	return json_stringn(choice, strcspn(choice, "|"));
}

json_t *settings_to_json(const struct settings *s)
{
	json_t *object = json_object();

	for (size_t i = 0; s->table[i].name; i++)
		json_object_set_new(object, s->table[i].name,
				    value_to_json(&s->table[i], s->values[i]));
	return object;
}
