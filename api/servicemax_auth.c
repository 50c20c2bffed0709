/* SPDX-License-Identifier: MIT */

/*
 * Logging in by OAuth2 (section 1 of the reference): the resource owner's password, later what the
 * last login left, at the end a revocation. On the reading thread of auth.c, which may wait.
 *
 * The client id is an option; without it the server is asked, which tells it in a header whose name
 * nobody has said, so several are tried.
 */

#include "servicemax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "auth.h"
#include "json.h"

#define LOGIN_MS     30000
#define LOGOUT_MS    2000
#define LIFETIME_MAX (10LL * 365 * 86400)

static const char *const id_headers[] = {"client_id",	    "client-id",	 "clientid",
					 "x-client-id",	    "x-client_id",	 "oauth-client-id",
					 "oauth_client_id", "x-oauth-client-id", "x-max-client-id",
					 "io-client-id",    "x-oauth-clientid",	 NULL};

/* What may go on in a form and a header line. */
static bool is_printable(const char *text)
{
	if (!text || *text == '\0' || strlen(text) > 16384)
		return false;
	for (; *text != '\0'; text++)
		if ((unsigned char)*text <= 0x20 || (unsigned char)*text >= 0x7f)
			return false;
	return true;
}

static char *dup_known_id(struct servicemax *p)
{
	pthread_mutex_lock(&p->lock);
	const char *id = p->given_client_id ? p->given_client_id : p->client_id;
	char *copy = id ? strdup(id) : NULL;
	pthread_mutex_unlock(&p->lock);
	return copy;
}

static const char *find_id(const struct call_waited *w)
{
	static const char *const keys[] = {"client_id", "clientId", "id"};
	const char *id = w->header[0] ? w->header : NULL;

	for (size_t i = 0; !id && i < sizeof(keys) / sizeof(keys[0]); i++)
		id = json_get_text(w->json, keys[i]);
	if (!id && json_is_string(w->json))
		id = json_string_value(w->json);
	return is_printable(id) ? id : NULL;
}

/* A copy of the client id, known or asked for. */
static int get_id(struct servicemax *p, const _Atomic bool *stop, char **ret_id, char *message,
		  size_t size)
{
	struct call_waited w;
	int r = 0;

	*ret_id = dup_known_id(p);
	if (*ret_id)
		return 0;
	struct call *call =
		servicemax_call(p, TRANSFER_INTERACTIVE, "GET", "/oauth/client", "/oauth/client");
	call_set_plain(call);
	call_set_any_answer(call);
	call_want_headers(call, id_headers);
	call_set_idempotent(call, true);
	call_set_deadline(call, clock_mono_ms() + LOGIN_MS);
	r = call_wait(call, stop, &w);
	const char *id = r == 0 ? find_id(&w) : NULL;
	if (id) {
		*ret_id = strdup(id);
		pthread_mutex_lock(&p->lock);
		if (!p->client_id)
			p->client_id = strdup(id);
		pthread_mutex_unlock(&p->lock);
		r = *ret_id ? 0 : -ENOMEM;
	} else if (r == 0 || (w.status >= 400 && w.status < 500 && w.status != 429)) {
		snprintf(message, size,
			 "%.80s/oauth/client does not tell the OAuth client id (status %d): give "
			 "client_id=ID",
			 p->server.origin, w.status);
		r = -EPERM;
	} else {
		snprintf(message, size, "%.200s", w.message);
	}
	call_waited_clear(&w);
	return r;
}

static int post_to(struct servicemax *p, const char *base, const char *below,
		   const char *const *pairs, int64_t wait_ms, const _Atomic bool *stop,
		   struct call_waited *ret)
{
	char *form = servicemax_form(pairs);
	char path[64];

	*ret = (struct call_waited){.error = -ENOMEM};
	if (!form)
		return -ENOMEM;
	snprintf(path, sizeof(path), "%s%s", base, below);
	struct call *call = servicemax_call(p, TRANSFER_INTERACTIVE, "POST", path, path);
	call_set_body(call, "application/x-www-form-urlencoded", form, strlen(form));
	explicit_bzero(form, strlen(form));
	free(form);
	call_set_plain(call);
	call_set_any_answer(call);
	call_set_deadline(call, clock_mono_ms() + wait_ms);
	return call_wait(call, stop, ret);
}

/*
 * A form to the token endpoint or @below it. Where that is, two pages of the documentation do not
 * agree (S-17).
 */
static int post(struct servicemax *p, const char *below, const char *const *pairs, int64_t wait_ms,
		const _Atomic bool *stop, struct call_waited *ret)
{
	static const char *const bases[] = {"/sec/auth/token", "/auth/token"};
	bool other = atomic_load(&p->other_token_path);
	int r = post_to(p, bases[other], below, pairs, wait_ms, stop, ret);

	if (*below != '\0' || (ret->status != 404 && ret->status != 405))
		return r;
	call_waited_clear(ret);
	r = post_to(p, bases[!other], below, pairs, wait_ms, stop, ret);
	if (ret->status != 0 && ret->status != 404 && ret->status != 405)
		atomic_store(&p->other_token_path, !other);
	return r;
}

static void forget_id(struct servicemax *p)
{
	pthread_mutex_lock(&p->lock);
	free(p->client_id);
	p->client_id = NULL;
	pthread_mutex_unlock(&p->lock);
}

/* The endpoint said no: why, and what to do. */
static int explain(struct servicemax *p, const struct call_waited *w, char *message, size_t size)
{
	const char *error = json_get_text(w->json, "error");

	/* below 400: it said yes, and the rest of the answer was lost */
	if (w->status < 400 || w->status >= 500 || w->status == 429 || w->status == 408) {
		snprintf(message, size, "%.200s", w->message);
		return w->error == -EOVERFLOW ? -EIO : w->error;
	}
	if (error && strcmp(error, "invalid_client") == 0) {
		forget_id(p);
		snprintf(message, size, "%.80s: the OAuth client id is no good: give client_id=ID",
			 w->message);
		return -EPERM;
	}
	if (w->status == 404 || w->status == 405) {
		snprintf(message, size, "there is no /sec/auth/token at %.100s: is it ServiceMax?",
			 p->server.origin);
		return -EPERM;
	}
	snprintf(message, size, "%.200s", w->message);
	return -EACCES;
}

/* The token reply, as far as it can be used. */
static int take(const json_t *json, int64_t asked_ms, const char *refresh, struct auth_login *ret,
		char *message, size_t size)
{
	const char *token = json_get_text(json, "access_token");
	const char *next = json_get_text(json, "refresh_token");
	int64_t lifetime_s = servicemax_get_number(json, "expires_in");

	if (!is_printable(token)) {
		snprintf(message, size,
			 "/sec/auth/token answers without a token: is it ServiceMax?");
		return -EIO;
	}
	/* Who gives no other one leaves the old one good (RFC 6749, 6). */
	next = is_printable(next) ? next : refresh;
	ret->token = strdup(token);
	ret->refresh = next ? strdup(next) : NULL;
	if (lifetime_s > 0 && lifetime_s < LIFETIME_MAX)
		ret->expires_mono_ms = asked_ms + lifetime_s * 1000;
	return ret->token && (ret->refresh || !next) ? 0 : -ENOMEM;
}

int servicemax_login(struct remote *r, const char *user, const char *secret, const char *refresh,
		     const _Atomic bool *stop, struct auth_login *ret, char *message, size_t size)
{
	struct servicemax *p = (struct servicemax *)r;
	int64_t asked_ms = clock_mono_ms();
	struct call_waited w;
	char *id = NULL;
	int error = get_id(p, stop, &id, message, size);

	if (error < 0)
		return error;
	const char *const by_password[] = {"grant_type", "password",  "username", user, "password",
					   secret,	 "client_id", id,	  NULL};
	const char *const by_refresh[] = {"grant_type",	   "refresh_token", "client_id", id,
					  "refresh_token", refresh,	    NULL};
	error = post(p, "", refresh ? by_refresh : by_password, LOGIN_MS, stop, &w);
	if (error == 0)
		error = take(w.json, asked_ms, refresh, ret, message, size);
	else
		error = explain(p, &w, message, size);
	call_waited_clear(&w);
	free(id);
	return error;
}

void servicemax_logout(struct remote *r, const struct auth_login *login)
{
	struct servicemax *p = (struct servicemax *)r;
	int64_t until_ms = clock_mono_ms() + LOGOUT_MS;
	const struct {
		const char *token, *hint;
	} tokens[] = {{login->refresh, "refresh_token"}, {login->token, "access_token"}};
	char *id = dup_known_id(p);

	/* a server that takes no calls now would be waited for in vain */
	if (engine_get_state(r->engine, NULL) != ENGINE_ONLINE)
		until_ms = 0;
	for (size_t i = 0; i < 2; i++) {
		const char *const pairs[] = {"token",		tokens[i].token, "client_id", id,
					     "token_type_hint", tokens[i].hint,	 NULL};
		int64_t left_ms = until_ms - clock_mono_ms();
		struct call_waited w;
		if (!tokens[i].token || left_ms <= 0)
			continue;
		if (post(p, "/revoke", pairs, left_ms, NULL, &w) < 0)
			log_debug("servicemax: revoke the %s: %s", tokens[i].hint, w.message);
		call_waited_clear(&w);
	}
	free(id);
}
