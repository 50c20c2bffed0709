/* SPDX-License-Identifier: MIT */
#include "check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/pool.h>

#include "auth.h"
#include "json.h"

#define SKEW_FINE_S 5

void check_tell(struct check *c, enum remote_verdict verdict, const char *topic, const char *format,
		...)
{
	char text[512], redacted[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_redact(text, redacted, sizeof(redacted));
	c->each(c->ctx, verdict, topic, redacted);
}

static void next_step(struct check *c);

static void end(struct check *c, int error, const char *message)
{
	c->done(c->ctx, error, message);
	free(c);
}

static void on_reply(void *ctx, const struct call_reply *reply)
{
	struct check *c = ctx;
	int error = c->step->judge(c, reply);

	if (error < 0) {
		end(c, error, reply->message);
		return;
	}
	c->step++;
	next_step(c);
}

static void next_step(struct check *c)
{
	for (; c->step->judge; c->step++) {
		struct call *call = c->step->make(c->remote);
		int r = call ? call_start(call, on_reply, c) : 0;

		if (r == 0 && call)
			return;
		if (r < 0) {
			end(c, r, "not sent");
			return;
		}
	}
	end(c, 0, "");
}

static void begin(void *ctx)
{
	next_step(ctx);
}

int check_start(struct remote *r, const struct check_step *steps, remote_finding *each,
		remote_done *done, void *ctx)
{
	struct check *c = malloc(sizeof(*c));

	if (!c)
		return -ENOMEM;
	*c = (struct check){r, each, done, ctx, steps};
	int error = pool_run(r->pool, begin, c);
	if (error < 0)
		free(c);
	return error;
}

void check_tell_clock(struct check *c, const struct call_reply *reply)
{
	int64_t skew = reply->date_s - clock_real_ns() / CLOCK_NS_PER_S;

	if (reply->date_s < 0)
		check_tell(c, REMOTE_NOTE, "clock", "the server does not tell its time");
	else if (skew <= SKEW_FINE_S && skew >= -SKEW_FINE_S)
		check_tell(c, REMOTE_FINE, "clock", "the server's agrees with this machine's");
	else
		check_tell(c, REMOTE_NOTE, "clock", "the server's is %lld s %s this machine's",
			   (long long)(skew < 0 ? -skew : skew), skew < 0 ? "behind" : "ahead of");
}

void check_tell_rate(struct check *c, const struct call_reply *reply)
{
	if (reply->rate_limit < 0)
		check_tell(c, REMOTE_NOTE, "rate limit", "the server tells none");
	else
		check_tell(c, REMOTE_FINE, "rate limit",
			   "%lld calls in a window, %lld of them left",
			   (long long)reply->rate_limit, (long long)reply->rate_remaining);
}

static void put_text(char *out, size_t size, const char *what, const json_t *value)
{
	size_t used = strlen(out);

	if (json_is_integer(value))
		snprintf(out + used, size - used, ", %s %lld", what,
			 (long long)json_integer_value(value));
	else if (json_is_string(value))
		snprintf(out + used, size - used, ", %s %.60s", what, json_string_value(value));
}

static void put_scopes(char *out, size_t size, const json_t *scopes)
{
	size_t i, used = strlen(out);
	json_t *scope;

	json_array_foreach(scopes, i, scope)
	{
		snprintf(out + used, size - used, "%s%s", i ? " " : ", scopes ",
			 json_is_string(scope) ? json_string_value(scope) : "?");
		used = strlen(out);
	}
}

static void put_end(char *out, size_t size, int64_t end_s)
{
	int64_t left = end_s - clock_real_ns() / CLOCK_NS_PER_S;
	size_t used = strlen(out);

	if (end_s > 0 && left < 0)
		snprintf(out + used, size - used, ", expired");
	else if (end_s > 0)
		snprintf(out + used, size - used, ", good for %lld more %s",
			 (long long)(left < 172800 ? left / 3600 : left / 86400),
			 left < 172800 ? "hours" : "days");
}

void check_tell_token(struct check *c)
{
	char *header, text[400] = "";
	unsigned generation;
	json_t *claims;

	if (auth_get_header(c->remote->auth, &header, &generation) < 0)
		return;
	const char *token = strrchr(header, ' ');
	claims = token ? json_parse_jwt(token + 1) : NULL;
	auth_free_header(header);
	if (!claims) {
		check_tell(c, REMOTE_NOTE, "who am I", "the token does not tell (it is no JWT)");
		return;
	}
	put_text(text, sizeof(text), "user", json_object_get(claims, "sub"));
	put_text(text, sizeof(text), "tenant", json_object_get(claims, "tenant"));
	put_scopes(text, sizeof(text), json_get_array(claims, "scopes"));
	put_end(text, sizeof(text), json_get_integer(claims, "exp", 0));
	check_tell(c, REMOTE_FINE, "who am I", "%s",
		   text[0] ? text + 2 : "the token does not tell");
	json_decref(claims);
}
