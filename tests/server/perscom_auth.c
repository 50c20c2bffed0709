/* SPDX-License-Identifier: MIT */
/* Who may call, and how often: sections 1 and 10. */
#include "perscom.h"

#include "alloc.h"
#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct throttle_window {
	int64_t since;
	int64_t hits;
};

#define WINDOW_S 60

static struct throttle_window *window_of(struct perscom *p, uint32_t client)
{
	struct throttle_window *w = table_get(&p->throttled, &client, sizeof(client));

	if (!w) {
		w = xzalloc(sizeof(*w));
		table_put(&p->throttled, &client, sizeof(client), w);
	}
	return w;
}

/* By client address and before authentication; a window opens with its first hit (P-14). */
bool throttle(struct call *c)
{
	int64_t limit = setting(c, SET_THROTTLE);
	int64_t headers = setting(c, SET_THROTTLE_HEADERS);
	struct throttle_window *w;

	if (!limit)
		return true;
	w = window_of(c->p, request_client(c->rq));
	if (clock_now() >= w->since + WINDOW_S || clock_now() < w->since)
		*w = (struct throttle_window){clock_now(), 0};
	if (w->hits >= limit) {
		if (headers == THROTTLE_RETRY_AFTER)
			response_header(c->rs, "Retry-After", "%lld",
					(long long)(w->since + WINDOW_S - clock_now()));
		error_status(c, 429);
		return false;
	}
	w->hits++;
	if (headers != THROTTLE_ABSENT) {
		response_header(c->rs, "X-RateLimit-Limit", "%lld", (long long)limit);
		response_header(c->rs, "X-RateLimit-Remaining", "%lld",
				(long long)(limit - w->hits));
	}
	return true;
}

static const struct token *find_token(const struct emulator *emu, const char *text)
{
	for (size_t i = 0; text && i < emu->n_tokens; i++)
		if (strcmp(emu->tokens[i].text, text) == 0)
			return &emu->tokens[i];
	return NULL;
}

static const struct token *presented_token(struct call *c)
{
	const char *header = request_header(c->rq, "Authorization");
	struct str query;
	const struct token *token;

	if (header && strncasecmp(header, "Bearer ", 7) == 0)
		return find_token(c->p->emu, header + 7 + strspn(header + 7, " "));
	query = request_query(c->rq, "apikey");
	token = find_token(c->p->emu, query.ptr);
	str_free(&query);
	return token;
}

/* P-27: the header beats the token's own tenant, right or wrong. */
static bool right_tenant(struct call *c)
{
	const char *header = request_header(c->rq, "X-Perscom-Id");
	int64_t tenant = setting(c, SET_TENANCY);

	if (!tenant)
		return true;
	if (!header)
		return !setting(c, SET_TENANT_HEADER);
	return strtoll(header, NULL, 10) == tenant;
}

bool authenticate(struct call *c)
{
	if (!right_tenant(c)) {
		error_reply(c, 401, "HttpException",
			    "You are not authenticated. Please provide a valid API key that "
			    "contains your "
			    "PERSCOM ID to continue.");
		return false;
	}
	c->token = presented_token(c);
	if (!c->token) {
		error_status(c, 401);
		return false;
	}
	if (setting(c, SET_SUBSCRIPTION)) {
		error_status(c, 402); /* P-28 */
		return false;
	}
	return true;
}

/* "*", "view:*" and "*:attachment" are as good as the scope spelled out. */
static bool scope_grants(const char *scope, const char *verb, const char *model)
{
	size_t len = strcspn(scope, ":");

	if (strcmp(scope, "*") == 0)
		return true;
	if (!scope[len])
		return false;
	if (!(len == 1 && *scope == '*') &&
	    !(strlen(verb) == len && strncmp(scope, verb, len) == 0))
		return false;
	return strcmp(scope + len + 1, "*") == 0 || strcmp(scope + len + 1, model) == 0;
}

static bool has_scope(const struct call *c, const char *verb, const char *model)
{
	for (size_t i = 0; i < c->token->n_scopes; i++)
		if (scope_grants(c->token->scopes[i], verb, model))
			return true;
	return false;
}

static const char *wanted_verb(const struct call *c)
{
	if (is_verb(c, "GET") || c->target == TARGET_SEARCH)
		return "view";
	if (is_verb(c, "POST"))
		return "create";
	return is_verb(c, "DELETE") ? "delete" : "update";
}

bool authorize(struct call *c)
{
	bool granted;

	if (c->target == TARGET_PURGE)
		granted = has_scope(c, "clear", "cache");
	else if (c->target == TARGET_RELATION)
		granted = has_scope(c, "update", "user");
	else
		granted = has_scope(c, wanted_verb(c), c->resource->scope);
	if ((c->nested || c->owned) && is_verb(c, "GET"))
		granted = granted && has_scope(c, "view", "user");
	if (!granted)
		error_status(c, 403);
	return granted;
}
