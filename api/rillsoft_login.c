/* SPDX-License-Identifier: MIT */

/*
 * Logging in. The server says neither where its token sits in the answer nor how long it lasts: the
 * token is looked for in all places of section 1, and its end read in the token itself, as a JWT has
 * it. Nobody verifies the signature here, for nothing hangs on it but when to log in again.
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "auth.h"
#include "json.h"

#define TOKEN_MAX 16384

/* Fit for a header line. */
static const char *get_token(const json_t *object, const char *key)
{
	const char *text = json_get_text(object, key);

	if (!text || *text == '\0' || strlen(text) > TOKEN_MAX)
		return NULL;
	for (const char *p = text; *p != '\0'; p++)
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
			return NULL;
	return text;
}

const char *rillsoft_find_token(const json_t *root)
{
	static const char *const keys[] = {"token", "access_token", "accessToken", "jwt"};
	const json_t *details = json_object_get(root, "details");
	const json_t *places[] = {root, details, json_array_get(details, 0)};

	for (size_t p = 0; p < 3; p++)
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
			const char *token = get_token(places[p], keys[i]);
			if (token)
				return token;
		}
	/* details as the token itself */
	const char *text = get_token(root, "details");
	return text && strchr(text, '.') ? text : NULL;
}

/* A NumericDate may have a fraction. */
static int64_t get_seconds(const json_t *claims, const char *key)
{
	const json_t *value = json_object_get(claims, key);
	double seconds = json_is_number(value) ? json_number_value(value) : -1;

	return seconds > 0 && seconds < 1e12 ? (int64_t)seconds : -1;
}

bool rillsoft_decode_jwt(const char *token, int64_t *ret_exp_s, int64_t *ret_iat_s)
{
	json_t *claims = json_parse_jwt(token);
	bool ok = json_is_object(claims);

	*ret_exp_s = ok ? get_seconds(claims, "exp") : -1;
	*ret_iat_s = ok ? get_seconds(claims, "iat") : -1;
	json_decref(claims);
	return ok;
}

/*
 * When to log in again, on our clock: the life the token says it has; by its end alone where it does
 * not say when it began. One that has ended before it came is one of another clock: 401 will tell.
 */
static int64_t find_end(struct rillsoft *ris, const char *token)
{
	int64_t exp_s, iat_s, now_s = clock_real_ns() / CLOCK_NS_PER_S;

	rillsoft_decode_jwt(token, &exp_s, &iat_s);
	ris->token_end_s = exp_s;
	if (exp_s < 0)
		return 0;
	int64_t left_s = exp_s - (iat_s > 0 ? iat_s : now_s);
	if (left_s <= 0)
		return 0;
	return clock_mono_ms() + (left_s < 86400 * 365 ? left_s : 86400 * 365) * 1000;
}

static struct call *make_login(struct rillsoft *ris, const char *user, const char *secret)
{
	struct rillsoft_ids ids = {0};
	struct call *c = rillsoft_call(ris, TRANSFER_INTERACTIVE, "POST", RILLSOFT_LOGIN, &ids, "");

	call_set_plain(
		c); /* the vendor's sample sends a token here that nobody can have yet */
	call_set_idempotent(c, true);
	call_set_json_take(c, json_pack("{s:s, s:s}", "username", user, "password", secret));
	return c;
}

int rillsoft_login(struct remote *r, const char *user, const char *secret, const char *refresh,
		   const _Atomic bool *stop, struct auth_login *ret, char *message, size_t size)
{
	struct rillsoft *ris = (struct rillsoft *)r;
	struct call_waited w;

	(void)refresh;
	int error = call_wait(make_login(ris, user, secret), stop, &w);
	snprintf(message, size, "%s", w.message);
	if (w.status == 400 || w.status == 401 || w.status == 403 || w.status == 422) {
		error = -EACCES;
	} else if (w.status == 404 || w.status == 405) {
		snprintf(message, size,
			 "there is no /api/v1/login at %.150s; is the address right?",
			 ris->server.host);
		error = -EIO;
	}
	const char *token = error == 0 ? rillsoft_find_token(w.json) : NULL;
	if (error == 0 && !token) {
		snprintf(message, size, "the answer to the login holds no token");
		error = -EIO;
	}
	if (token) {
		ret->expires_mono_ms = find_end(ris, token);
		ret->token = strdup(token);
		error = ret->token ? 0 : -ENOMEM;
	}
	call_waited_clear(&w);
	return error;
}
