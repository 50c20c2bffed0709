/* SPDX-License-Identifier: MIT */
/* Who may call: section 1. */
#include "enterprise_tester.h"

#include <stdlib.h>
#include <string.h>

#define CREDENTIALS "mount:secret"

/* The text behind base64; false if it is none. */
static bool decode(const char *s, char *out, size_t size)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t bits = 0;
	int n = 0;
	size_t used = 0;

	for (; *s && *s != '='; s++) {
		const char *digit = strchr(digits, *s);

		if (!digit || used + 1 >= size)
			return false;
		bits = bits << 6 | (uint32_t)(digit - digits);
		n += 6;
		if (n >= 8) {
			n -= 8;
			out[used++] = (char)(bits >> n);
		}
	}
	out[used] = '\0';
	return true;
}

/* --token user:password[=SCOPE...]; a token without a colon is no pair. */
static bool is_pair(struct et_call *c, const char *given)
{
	const struct emulator *emu = c->et->emu;

	if (strcmp(given, CREDENTIALS) == 0)
		return true;
	for (size_t i = 0; i < emu->n_tokens; i++) {
		if (strchr(emu->tokens[i].text, ':') && strcmp(emu->tokens[i].text, given) == 0) {
			c->token = &emu->tokens[i];
			return true;
		}
	}
	return false;
}

static bool known(struct et_call *c)
{
	const char *header = request_header(c->rq, "Authorization");
	char given[1024];

	if (!header || strncasecmp(header, "Basic ", 6) != 0)
		return false;
	header += 6;
	header += strspn(header, " ");
	return decode(header, given, sizeof(given)) && is_pair(c, given);
}

/* A scope is `*` or `view`, alone or as in `view:...`; whoever may only view changes nothing. */
static bool may_write(const struct et_call *c)
{
	if (!c->token)
		return true;
	for (size_t i = 0; i < c->token->n_scopes; i++)
		if (strncmp(c->token->scopes[i], "view", 4) != 0)
			return true;
	return false;
}

static bool is_writing(const struct et_call *c)
{
	return strcmp(c->rq->method, "GET") != 0 && strcmp(c->rq->method, "HEAD") != 0;
}

bool et_is_login_page(const struct et_call *c)
{
	const char *application = et_application_path(c);
	size_t len = strlen(application);

	return strncasecmp(c->rq->path, application, len) == 0 &&
	       strcasecmp(c->rq->path + len, "/login") == 0;
}

void et_login_page(struct et_call *c)
{
	et_page(c, 200, "Log in");
}

static void refuse(struct et_call *c)
{
	switch ((enum et_auth_fail)et_setting(c, ET_AUTH_FAIL)) {
	case AUTH_401:
		response_header(c->rs, "WWW-Authenticate", "Basic realm=\"Enterprise Tester\"");
		et_error(c, 401, "Authorization has been denied for this request.");
		break;
	case AUTH_302:
		response_header(c->rs, "Location", "%s/login?ReturnUrl=%s", et_application_path(c),
				c->rq->path);
		et_page(c, 302, "Object moved");
		break;
	case AUTH_200:
		et_login_page(c);
		break;
	}
}

bool et_authenticate(struct et_call *c)
{
	if (!known(c)) {
		refuse(c);
		return false;
	}
	if (is_writing(c) && !may_write(c)) {
		et_error(c, 403, "You do not have permission to perform this action.");
		return false;
	}
	return true;
}
