/* SPDX-License-Identifier: MIT */
/*
 * Query strings and form fields as PHP reads them: `a[b][]=c` becomes nested objects, `.` and blanks in
 * a field's name become `_`, a repeated plain field keeps its last value. Values are JSON strings.
 */
#ifndef EMULATOR_FORM_H
#define EMULATOR_FORM_H

#include "text.h"

#include <jansson.h>

/* Percent-decoding; @plus also turns `+` into a blank. */
struct str form_decode(const char *s, size_t len, bool plus);

void form_put(json_t *object, const char *name, const char *value, size_t value_len);

/* An urlencoded text as an object. */
json_t *form_parse(const char *s, size_t len);

/* A string for jansson; bytes that are not UTF-8 become U+FFFD so that no value is ever lost. */
json_t *form_string(const char *s, size_t len);

#endif
