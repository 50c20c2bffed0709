/* SPDX-License-Identifier: MIT */
/* Who may call, and how often: section 1. Scopes of --token are `*`, `read`, or object identifiers. */
#include "servicemax.h"

#include "alloc.h"
#include "clock.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct sm_window {
	int64_t since;
	int64_t hits;
};

#define WINDOW_S 60

static struct sm_window *window_of(struct servicemax *sm, uint32_t client)
{
	struct sm_window *w = table_get(&sm->throttled, &client, sizeof(client));

	if (!w) {
		w = xzalloc(sizeof(*w));
		table_put(&sm->throttled, &client, sizeof(client), w);
	}
	return w;
}

bool sm_throttle(struct sm_call *c)
{
	int64_t limit = sm_set(c, SM_THROTTLE);
	struct sm_window *w;

	if (!limit)
		return true;
	w = window_of(c->sm, request_client(c->rq));
	if (clock_now() >= w->since + WINDOW_S || clock_now() < w->since)
		*w = (struct sm_window){clock_now(), 0};
	if (w->hits++ < limit)
		return true;
	if (sm_set(c, SM_THROTTLE_HEADERS) == 0)
		response_header(c->rs, "Retry-After", "%lld",
				(long long)(w->since + WINDOW_S - clock_now()));
	sm_error(c, 429, "Too many requests");
	return false;
}

static const struct token *find_token(const struct servicemax *sm, const char *text)
{
	const struct emulator *emu = sm->emu;

	for (size_t i = 0; i < emu->n_tokens; i++)
		if (strcmp(emu->tokens[i].text, text) == 0 &&
		    !table_get(&sm->revoked, text, strlen(text)))
			return &emu->tokens[i];
	return NULL;
}

/* No token, a wrong one and an expired one are answered alike; the status is assumed. */
static bool refuse(struct sm_call *c)
{
	static const int statuses[] = {401, 403, 400};
	int status = statuses[sm_set(c, SM_EXPIRED)];

	if (status == 401)
		response_header(c->rs, "WWW-Authenticate", "Bearer error=\"invalid_token\"");
	sm_error_oauth(c, status, "invalid_token", "Invalid Token");
	return false;
}

bool sm_authenticate(struct sm_call *c)
{
	const char *header = request_header(c->rq, "Authorization");

	if (!header || strncasecmp(header, "Bearer ", 7) != 0)
		return refuse(c);
	header += 7 + strspn(header + 7, " ");
	c->token = find_token(c->sm, header);
	return c->token || sm_token_holds(c->sm, header) || refuse(c);
}

static bool has_scope(const struct sm_call *c, const char *scope)
{
	for (size_t i = 0; i < c->token->n_scopes; i++)
		if (strcmp(c->token->scopes[i], scope) == 0)
			return true;
	return false;
}

bool sm_may_write(const struct sm_call *c, const struct collection *object)
{
	return !c->token || has_scope(c, "*") || has_scope(c, object->name);
}

bool sm_may_read(const struct sm_call *c, const struct collection *object)
{
	return sm_may_write(c, object) || has_scope(c, "read");
}

/* The filter goes by the method: extended_read, which only reads, needs the token as well. */
bool sm_csrf_check(struct sm_call *c)
{
	char name[64];
	const char *sent;

	if (!sm_set(c, SM_CSRF) || sm_is_verb(c, "GET"))
		return true;
	sent = request_header(c->rq, sm_choice(c, SM_CSRF_HEADER, name, sizeof(name)));
	if (sent && strcmp(sent, c->sm->csrf_token) == 0)
		return true;
	sm_error_type(c, 403, "csrf_error", "CSRF token is missing or invalid");
	return false;
}

/* GET /resources/js/csrf_script: that a token comes from here is documented, how it stands there is not. */
void sm_csrf_serve(struct sm_call *c)
{
	char name[64];
	int64_t form = sm_set(c, SM_CSRF_FORM);
	struct buffer *out = &c->rs->body;

	sm_choice(c, SM_CSRF_HEADER, name, sizeof(name));
	c->rs->status = 200;
	response_header(c->rs, "Content-Type", "%s",
			form == CSRF_BARE ? "text/plain" : "application/javascript");
	response_header(c->rs, "Cache-Control", "no-store");
	if (form == CSRF_HEADER)
		response_header(c->rs, name, "%s", c->sm->csrf_token);
	else if (form == CSRF_BARE)
		buffer_puts(out, c->sm->csrf_token);
	else
		buffer_printf(out,
			      "(function() {\n"
			      "  var csrf_token_name = \"%s\";\n"
			      "  var csrf_token_value = \"%s\";\n"
			      "  window.csrf = {name: csrf_token_name, value: csrf_token_value};\n"
			      "})();\n",
			      name, c->sm->csrf_token);
}
