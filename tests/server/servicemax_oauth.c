/* SPDX-License-Identifier: MIT */
/*
 * The token endpoints: section 1. A grant gives an access token and, if the client has that grant
 * type, a refresh token; both are kept for ever, so that a spent one is known from an invented one:
 * the first is an invalid_grant, the second an invalid_token.
 */
#include "servicemax.h"

#include "alloc.h"
#include "clock.h"
#include "form.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CLIENT_ID "attachfs"
#define USER_NAME "mount"

bool sm_token_holds(struct servicemax *sm, const char *text)
{
	const struct sm_token *t = table_get(&sm->tokens, text, strlen(text));

	return t && !t->refresh && !t->spent && (!t->expires_at || clock_now() < t->expires_at);
}

void sm_tokens_free(struct servicemax *sm)
{
	size_t pos = 0;
	struct sm_token *t;

	while ((t = table_next(&sm->tokens, &pos))) {
		free(t->text);
		free(t);
	}
	table_free(&sm->tokens);
	table_free(&sm->revoked);
}

static struct sm_token *add_token(struct servicemax *sm, int64_t grant, bool refresh, int64_t ttl)
{
	struct sm_token *t = xzalloc(sizeof(*t));

	*t = (struct sm_token){.text = store_new_path(""),
			       .grant = grant,
			       .refresh = refresh,
			       .expires_at = ttl ? clock_now() + ttl : 0};
	table_put(&sm->tokens, t->text, strlen(t->text), t);
	return t;
}

static void reply_tokens(struct sm_call *c, int64_t grant, const struct sm_token *refresh)
{
	int64_t ttl = sm_set(c, SM_TTL);
	const struct sm_token *access = add_token(c->sm, grant, false, ttl);
	struct buffer *out = &c->rs->body;

	buffer_printf(out, "{\"access_token\":\"%s\",\"token_type\":\"bearer\"", access->text);
	if (ttl)
		buffer_printf(out, ",\"expires_in\":%lld", (long long)ttl);
	if (refresh)
		buffer_printf(out, ",\"refresh_token\":\"%s\"", refresh->text);
	buffer_putc(out, '}');
	response_header(c->rs, "Cache-Control", "no-store");
	response_header(c->rs, "Pragma", "no-cache");
	sm_reply_json(c, 200);
}

static const char *field(const json_t *form, const char *name)
{
	const char *value = json_string_value(json_object_get(form, name));

	return value && *value ? value : NULL;
}

static void grant_password(struct sm_call *c, const json_t *form)
{
	const char *user = field(form, "username");
	const char *password = field(form, "password");
	const struct sm_token *refresh = NULL;
	char wanted[32];

	if (!user || !password) {
		sm_error_oauth(c, 400, "invalid_request", NULL);
		return;
	}
	sm_choice(c, SM_PASSWORD, wanted, sizeof(wanted));
	if (strcmp(user, USER_NAME) != 0 || strcmp(password, wanted) != 0) {
		sm_error_oauth(c, 400, "invalid_grant", NULL);
		return;
	}
	c->sm->grants++;
	if (sm_set(c, SM_REFRESH) == 0)
		refresh = add_token(c->sm, c->sm->grants, true, 0);
	reply_tokens(c, c->sm->grants, refresh);
}

static void grant_refresh(struct sm_call *c, const json_t *form)
{
	const char *text = field(form, "refresh_token");
	struct sm_token *t = text ? table_get(&c->sm->tokens, text, strlen(text)) : NULL;
	int64_t rotation = sm_set(c, SM_REFRESH_ROTATION);

	if (!text) {
		sm_error_oauth(c, 400, "invalid_request", NULL);
	} else if (!t || !t->refresh) {
		sm_error_oauth(c, 401, "invalid_token", "invalid token provided");
	} else if (t->spent || sm_set(c, SM_REFRESH) != 0) {
		sm_error_oauth(c, 400, "invalid_grant", NULL);
	} else if (rotation == ROTATION_NEW) {
		t->spent = true;
		reply_tokens(c, t->grant, add_token(c->sm, t->grant, true, 0));
	} else {
		reply_tokens(c, t->grant, rotation == ROTATION_SAME ? t : NULL);
	}
}

/* The fields of an urlencoded body, NULL if it is none; 400 answered unless the client is ours. */
static json_t *read_form(struct sm_call *c)
{
	const char *type = request_header(c->rq, "Content-Type");
	const char *client;
	json_t *form;

	if (!type || strncasecmp(type, "application/x-www-form-urlencoded", 33) != 0) {
		sm_error_oauth(c, 400, "invalid_request", NULL);
		return NULL;
	}
	form = form_parse(c->rq->body.data ? c->rq->body.data : "", c->rq->body.len);
	client = field(form, "client_id");
	if (client && strcmp(client, CLIENT_ID) == 0)
		return form;
	if (client)
		sm_error_oauth(c, 400, "invalid_client", "client is invalid");
	else
		sm_error_oauth(c, 400, "invalid_request", NULL);
	json_decref(form);
	return NULL;
}

void sm_oauth_token(struct sm_call *c)
{
	json_t *form = read_form(c);
	const char *type = field(form, "grant_type");

	if (!form)
		return;
	if (type && strcmp(type, "password") == 0)
		grant_password(c, form);
	else if (type && strcmp(type, "refresh_token") == 0)
		grant_refresh(c, form);
	else
		sm_error_oauth(c, 400, "invalid_request", NULL);
	json_decref(form);
}

/* The access tokens of a refresh token go with it. */
static void spend(struct servicemax *sm, struct sm_token *spent)
{
	size_t pos = 0;
	struct sm_token *t;

	spent->spent = true;
	while (spent->refresh && (t = table_next(&sm->tokens, &pos)))
		if (t->grant == spent->grant)
			t->spent = true;
}

/* A token nobody knows is as good as revoked: 200. */
void sm_oauth_revoke(struct sm_call *c)
{
	json_t *form = read_form(c);
	const char *text = field(form, "token");
	struct emulator *emu = c->sm->emu;
	struct sm_token *t;

	if (!form)
		return;
	t = text ? table_get(&c->sm->tokens, text, strlen(text)) : NULL;
	if (t)
		spend(c->sm, t);
	for (size_t i = 0; text && i < emu->n_tokens; i++)
		if (strcmp(emu->tokens[i].text, text) == 0)
			table_put(&c->sm->revoked, text, strlen(text), &emu->tokens[i]);
	if (text)
		c->rs->status = 200;
	else
		sm_error_oauth(c, 400, "invalid_request", NULL);
	json_decref(form);
}

/* GET /oauth/client: the id is in a header of unknown name; who comes with cookies gets 404. */
void sm_oauth_client(struct sm_call *c)
{
	char name[64];

	if (request_header(c->rq, "Cookie")) {
		sm_error(c, 404, "Not found");
		return;
	}
	c->rs->status = 200;
	response_header(c->rs, sm_choice(c, SM_CLIENT_HEADER, name, sizeof(name)), "%s", CLIENT_ID);
}
