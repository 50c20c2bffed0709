/* SPDX-License-Identifier: MIT */
#ifndef API_JSON_H
#define API_JSON_H

/*
 * Typed looks into a server's JSON, which is hostile until proven otherwise: every getter says "not
 * there" for a value of another type. And the times that stand in it. Pure functions; any thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <attachfs/remote.h>

/*
 * Strings are cut to so many bytes, whatever a server says: four times what a column of 255
 * characters can hold.
 */
#define JSON_NAME_MAX 4096

/*
 * Parse a whole answer. NUL in strings is let in (servers store it); nesting is bounded by jansson,
 * memory by 24 times the length of the answer and 2 GiB (and 4 MiB for a short one). NULL: not JSON or
 * more than that, and @message (may be NULL) says where.
 */
json_t *json_parse(const void *data, size_t len, char *message, size_t size);

/* The member as a C string; NULL when it is absent, no string, or holds a NUL. Borrowed. */
const char *json_get_text(const json_t *object, const char *key);

/* The member when it is an array or an object, else NULL. Borrowed. */
json_t *json_get_array(const json_t *object, const char *key);
json_t *json_get_object(const json_t *object, const char *key);

/* The member when it is an integer, else @fallback. */
int64_t json_get_integer(const json_t *object, const char *key, int64_t fallback);

/*
 * An id of digits: a positive integer, or a string of 1..18 digits. False otherwise: it must not
 * get into a URL then.
 */
bool json_get_id(const json_t *object, const char *key, char out[REMOTE_ID_MAX + 1]);

/* Whether @id is such an id. */
bool json_is_id(const char *id);

/* A UUID (GUID): 8-4-4-4-12 hexadecimal digits, any case; not the nil one (E-7). */
bool json_is_uuid(const char *id);
/* The member when it is one, else NULL. Borrowed. */
const char *json_get_uuid(const json_t *object, const char *key);

/*
 * A copy of a string value as a C string: each NUL becomes "%00" (see remote.h), and what is beyond
 * JSON_NAME_MAX bytes is cut off between characters. "" for anything that is no string. NULL
 * without memory.
 */
char *json_dup_name(const json_t *value);

/*
 * The claims of a JWT, an object; NULL when @token is none. Nothing is verified: for what the user
 * is told and for when to log in again, never for what is allowed.
 */
json_t *json_parse_jwt(const char *token);

/* The member as nanoseconds since the epoch, REMOTE_TIME_NONE when it is no time. */
int64_t json_get_time(const json_t *object, const char *key);

/*
 * ISO 8601 with date and time: "2026-03-01T08:15:30.000000Z", fraction optional (0..9 digits are
 * kept), a blank for the 'T', "Z", "+02:00", "+0200", "+02", or no zone at all (then UTC: what
 * PERSCOM stores). 0 or -EINVAL. Years 1678..2261, what 64 bits of nanoseconds hold.
 */
int time_parse_iso8601(const char *text, int64_t *ret_ns);

/*
 * "2026-03-02T10:00:00Z": UTC, whole seconds, rounded down (P-24). @out always gets a terminated
 * string.
 */
#define TIME_ISO8601_SIZE 32
void time_format_iso8601(int64_t ns, char out[TIME_ISO8601_SIZE]);

#endif
