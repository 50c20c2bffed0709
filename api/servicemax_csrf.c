/* SPDX-License-Identifier: MIT */

/*
 * Calls that write. Some servers want a CSRF token along with them (section 1 of the reference):
 * they answer 403 and say so, and then a script is fetched that holds one. Nothing is known of the
 * header it goes into; see servicemax_script.c. Many refusals at a time cost one script.
 */

#include "servicemax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>

#define SCRIPT_PATH "/resources/js/csrf_script"
#define SCRIPT_MAX  (1u << 20)

static const char *const token_headers[] = {"X-CSRF-Token", "X-XSRF-TOKEN", "OWASP-CSRFTOKEN",
					    NULL};

static void end(struct servicemax_write *w, int error, const char *message)
{
	struct call_reply reply = {.error = error,
				   .status = error == -EACCES ? 403 : 0,
				   .message = message,
				   .rate_limit = -1,
				   .rate_remaining = -1,
				   .date_s = -1};

	w->reply(w, &reply);
}

static void on_script(void *ctx, const struct call_reply *reply)
{
	struct servicemax *p = ctx;
	char name[SERVICEMAX_CSRF_NAME], token[SERVICEMAX_CSRF_TOKEN];
	bool found =
		reply->error == 0 &&
		(servicemax_find_csrf(reply->header ? reply->header : "",
				      reply->header ? strlen(reply->header) : 0, name, token) ||
		 servicemax_find_csrf(reply->body ? reply->body : "", reply->body_len, name,
				      token));

	if (found)
		log_add_secret(token);
	pthread_mutex_lock(&p->lock);
	if (found) {
		memcpy(p->csrf_name, name, sizeof(name));
		memcpy(p->csrf_token, token, sizeof(token));
		p->csrf_generation++;
	}
	struct servicemax_write *w = p->csrf_waits, *next;
	p->csrf_waits = NULL;
	pthread_mutex_unlock(&p->lock);
	/* What was in the way of asking passes. */
	int none = reply->error < 0 && reply->status == 0 ? reply->error : -EACCES;
	for (; w; w = next) {
		next = w->next;
		int r = found ? servicemax_write_start(w) : none;
		if (r == -EACCES)
			end(w, r,
			    "the server wants a CSRF token with every write, and none is found "
			    "in " SCRIPT_PATH);
		else if (r < 0)
			end(w, r, "not sent");
	}
}

static int ask(struct servicemax *p)
{
	struct call *call =
		servicemax_call(p, TRANSFER_INTERACTIVE, "GET", SCRIPT_PATH, SCRIPT_PATH);

	call_set_any_answer(call);
	call_set_idempotent(call, true);
	call_set_max_body(call, SCRIPT_MAX);
	call_want_headers(call, token_headers);
	return call_start(call, on_script, p);
}

static bool wants_csrf(const struct call_reply *reply)
{
	if (reply->status != 403)
		return false;
	if (strcasestr(reply->message, "csrf"))
		return true;
	for (size_t i = 0; reply->body && i + 4 <= reply->body_len && i < 4096; i++)
		if (strncasecmp(reply->body + i, "csrf", 4) == 0)
			return true;
	return false;
}

static void on_reply(void *ctx, const struct call_reply *reply)
{
	struct servicemax_write *w = ctx;
	struct servicemax *p = w->p;

	if (w->retried || !wants_csrf(reply)) {
		w->reply(w, reply);
		return;
	}
	w->retried = true;
	pthread_mutex_lock(&p->lock);
	bool fresh = p->csrf_generation != w->generation;
	bool first = !fresh && !p->csrf_waits;
	if (!fresh) {
		w->next = p->csrf_waits;
		p->csrf_waits = w;
	}
	pthread_mutex_unlock(&p->lock);
	int r = fresh ? servicemax_write_start(w) : first ? ask(p) : 0;
	if (r == 0)
		return;
	if (fresh) {
		end(w, r, "not sent");
		return;
	}
	const struct call_reply none = {.error = r, .message = ""};
	on_script(p, &none);
}

/* In the header the script names, and in those that such servers commonly look at. */
static void add_token(struct call *call, const char *name, const char *token)
{
	call_add_header(call, name, token);
	for (const char *const *other = token_headers; *other; other++)
		if (strcasecmp(*other, name) != 0)
			call_add_header(call, *other, token);
}

int servicemax_write_start(struct servicemax_write *w)
{
	struct servicemax *p = w->p;
	char name[SERVICEMAX_CSRF_NAME], token[SERVICEMAX_CSRF_TOKEN];

	pthread_mutex_lock(&p->lock);
	memcpy(name, p->csrf_name, sizeof(name));
	memcpy(token, p->csrf_token, sizeof(token));
	w->generation = p->csrf_generation;
	pthread_mutex_unlock(&p->lock);
	struct call *call = w->make(w);
	if (token[0] != '\0')
		add_token(call, name, token);
	return call_start(call, on_reply, w);
}
