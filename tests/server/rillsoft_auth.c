/* SPDX-License-Identifier: MIT */
/*
 * Who may call, what, and how often: sections 1 and 10.
 *
 * A token is looked up, not verified: what was not given out by this process is invalid whatever its
 * signature says, and tokens without `exp` still end when they should.
 */
#include "rillsoft.h"

#include "alloc.h"
#include "clock.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define USERNAME "mount"
#define PASSWORD "secret"
#define WINDOW_S 60

struct ris_session {
	int64_t expires_at; /* 0: never */
};

struct ris_window {
	int64_t since;
	int64_t hits;
};

/* In the order of enum ris_right: what `denied` and the scopes of --token call them. */
static const char *const rights[] = {"none", "client", "api",	 "project",
				     "read", "create", "change", "delete"};

static struct ris_window *window_of(struct rillsoft *ris, uint32_t client)
{
	struct ris_window *w = table_get(&ris->throttled, &client, sizeof(client));

	if (!w) {
		w = xzalloc(sizeof(*w));
		table_put(&ris->throttled, &client, sizeof(client), w);
	}
	return w;
}

bool ris_throttle(struct ris_call *c)
{
	int64_t limit = ris_setting(c, RIS_SET_THROTTLE);
	struct ris_window *w;

	if (!limit)
		return true;
	w = window_of(c->ris, request_client(c->rq));
	if (clock_now() >= w->since + WINDOW_S || clock_now() < w->since)
		*w = (struct ris_window){clock_now(), 0};
	if (w->hits++ < limit)
		return true;
	if (ris_setting(c, RIS_SET_RETRY_AFTER))
		response_header(c->rs, "Retry-After", "%lld",
				(long long)(w->since + WINDOW_S - clock_now()));
	ris_refuse(c, 429);
	return false;
}

static const struct token *find_ready_made(const struct emulator *emu, const char *text)
{
	for (size_t i = 0; i < emu->n_tokens; i++)
		if (strcmp(emu->tokens[i].text, text) == 0)
			return &emu->tokens[i];
	return NULL;
}

static bool session_holds(struct ris_call *c, const char *text)
{
	const struct ris_session *s = table_get(&c->ris->sessions, text, strlen(text));

	if (s && (!s->expires_at || clock_now() < s->expires_at))
		return true;
	if (s && !ris_setting(c, RIS_SET_EXPIRED_DETAILS))
		ris_refuse_for(c, 401, "JWT token expired");
	else
		ris_refuse(c, 401);
	return false;
}

bool ris_authenticate(struct ris_call *c)
{
	const char *header = request_header(c->rq, "Authorization");

	if (!header || strncasecmp(header, "Bearer ", 7) != 0) {
		ris_refuse(c, 401);
		return false;
	}
	header += 7 + strspn(header + 7, " ");
	c->token = find_ready_made(c->ris->emu, header);
	return c->token || session_holds(c, header);
}

static bool token_grants(const struct token *t, enum ris_right right)
{
	for (size_t i = 0; i < t->n_scopes; i++)
		if (strcmp(t->scopes[i], "*") == 0 || strcmp(t->scopes[i], rights[right]) == 0)
			return true;
	return false;
}

static bool denied(const struct ris_call *c, enum ris_right right)
{
	return right != RIS_RIGHT_NONE && ris_setting(c, RIS_SET_DENIED) == (int64_t)right;
}

bool ris_authorize(struct ris_call *c, enum ris_right right)
{
	bool granted =
		!denied(c, RIS_RIGHT_CLIENT) && !denied(c, RIS_RIGHT_API) && !denied(c, right);

	if (c->token && right > RIS_RIGHT_API)
		granted = granted && token_grants(c->token, right);
	if (granted && c->client_id == RIS_CLIENT_ID)
		return true;
	ris_refuse(c, 403);
	return false;
}

/* Where in the reply the token sits is anybody's guess: by the values of `token_at`. */
static const struct {
	bool nested; /* below `details` */
	const char *key;
} places[] = {{true, "token"},
	      {false, "token"},
	      {false, "access_token"},
	      {true, "accessToken"},
	      {false, "jwt"}};

static void put_enveloped(struct ris_call *c, bool nested, const char *key, const char *token)
{
	struct buffer *out = &c->rs->body;

	ris_begin(c, 200);
	buffer_puts(out, nested ? "{" : "[]");
	ris_put_text(out, key, token);
	if (nested)
		buffer_putc(out, '}');
	ris_end(c);
}

static void put_bare(struct ris_call *c, bool nested, const char *key, const char *token)
{
	struct buffer *out = &c->rs->body;

	c->rs->status = 200;
	buffer_puts(out, nested ? "{\"details\":{" : "{");
	ris_put_text(out, key, token);
	buffer_puts(out, nested ? "}}" : "}");
}

static void put_token(struct ris_call *c, const char *token)
{
	int64_t at = ris_setting(c, RIS_SET_TOKEN_AT);

	if (ris_setting(c, RIS_SET_LOGIN_REPLY))
		put_bare(c, places[at].nested, places[at].key, token);
	else
		put_enveloped(c, places[at].nested, places[at].key, token);
}

static void begin_session(struct ris_call *c)
{
	int64_t ttl = ris_setting(c, RIS_SET_TTL);
	struct ris_session *s = xzalloc(sizeof(*s));
	char *token;

	s->expires_at = ttl ? clock_now() + ttl : 0;
	token = ris_token_new(c, s->expires_at);
	free(table_put(&c->ris->sessions, token, strlen(token), s));
	put_token(c, token);
	free(token);
}

/* under /api/v1/, and whatever Authorization it comes with means nothing. */
void ris_login(struct ris_call *c)
{
	static const int refused[] = {401, 403, 400};
	const char *user = json_string_value(json_object_get(c->fields, "username"));
	const char *password = json_string_value(json_object_get(c->fields, "password"));

	if (!user || !password)
		ris_refuse(c, 400);
	else if (strcmp(user, USERNAME) != 0 || strcmp(password, PASSWORD) != 0)
		ris_refuse_for(c, refused[ris_setting(c, RIS_SET_LOGIN_REFUSED)],
			       "Invalid username or password");
	else if (denied(c, RIS_RIGHT_API))
		ris_refuse(c, 403);
	else
		begin_session(c);
}

static void free_values(struct table *t)
{
	size_t pos = 0;
	void *value;

	while ((value = table_next(t, &pos)))
		free(value);
	table_free(t);
}

void ris_auth_close(struct rillsoft *ris)
{
	free_values(&ris->sessions);
	free_values(&ris->throttled);
}
