/* SPDX-License-Identifier: MIT */

/*
 * Questions a person asks: does this server talk to me (probe), and what may I do there (check). A
 * check is a row of calls, one after the other; only the first may end it.
 */

#include "enterprise_tester.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "json.h"

#define SKEW_NOTE_S 60

struct probe {
	struct et *p;
	remote_done *done;
	void *ctx;
};

static void describe_server(const struct et *p, const json_t *root, char *out, size_t size)
{
	const char *version = json_get_text(root, "Version");

	snprintf(out, size, "Enterprise Tester %.40s at %.120s", version ? version : "(no version)",
		 p->server.host);
}

static void probe_done(void *ctx, const struct call_reply *reply)
{
	struct probe *probe = ctx;
	bool ok = json_is_object(reply->json);
	char message[256];

	et_note_reply(probe->p, reply);
	describe_server(probe->p, reply->json, message, sizeof(message));
	if (reply->error < 0)
		probe->done(probe->ctx, reply->error, reply->message);
	else
		probe->done(probe->ctx, ok ? 0 : -EIO,
			    ok ? message : "the server does not answer like Enterprise Tester");
	free(probe);
}

int et_probe(struct remote *r, enum transfer_class class, remote_done *done, void *ctx)
{
	struct probe *probe = malloc(sizeof(*probe));

	if (!probe)
		return -ENOMEM;
	*probe = (struct probe){(struct et *)r, done, ctx};
	struct call *call = et_call(probe->p, class, "GET", "systeminfo", "systeminfo");
	call_set_idempotent(call, true);
	int error = call_start(call, probe_done, probe);
	if (error < 0)
		free(probe);
	return error;
}

enum step { STEP_SYSTEM, STEP_ROOT, STEP_PROJECTS, STEP_COLLECTIONS };

struct check {
	struct et *p;
	remote_finding *each;
	remote_done *done;
	void *ctx;
	enum step step;
	const char *rest; /* of the collections, from the one being asked about */
};

static void find(struct check *k, enum remote_verdict verdict, const char *topic,
		 const char *format, ...) __attribute__((format(printf, 4, 5)));

static void find(struct check *k, enum remote_verdict verdict, const char *topic,
		 const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	k->each(k->ctx, verdict, topic, text);
}

/* The collection at k->rest; NULL = none is left. *@ret_len: of its name there. */
static const struct et_collection *current(const struct check *k, size_t *ret_len)
{
	char name[64];

	*ret_len = strcspn(k->rest, ":");
	snprintf(name, sizeof(name), "%.*s", (int)*ret_len, k->rest);
	return et_find_collection(name);
}

static void find_clock(struct check *k, const struct call_reply *reply)
{
	int64_t skew = atomic_load(&k->p->skew_s);
	const char *zone = json_get_text(reply->json, "TimeZoneId");

	if (reply->date_s <= 0)
		find(k, REMOTE_NOTE, "clock", "the server does not tell its time");
	else
		find(k, skew > SKEW_NOTE_S || skew < -SKEW_NOTE_S ? REMOTE_NOTE : REMOTE_FINE,
		     "clock", "the server's clock is %lld s ahead of this one's, its time zone %s",
		     (long long)skew, zone ? zone : "not told");
}

static void find_system(struct check *k, const struct call_reply *reply)
{
	char server[256];

	describe_server(k->p, reply->json, server, sizeof(server));
	if (json_get_text(reply->json, "Version"))
		find(k, REMOTE_FINE, "server", "%s", server);
	else
		find(k, REMOTE_NOTE, "server", "%s: is the address right, up to and with /api?",
		     server);
	find(k, REMOTE_FINE, "credentials", "the server takes the password of %s", k->p->user);
	find_clock(k, reply);
	if (reply->rate_limit >= 0)
		find(k, REMOTE_FINE, "rate limit", "%lld of %lld calls left",
		     (long long)reply->rate_remaining, (long long)reply->rate_limit);
	else
		find(k, REMOTE_FINE, "rate limit", "none told");
}

static void find_root(struct check *k, const struct call_reply *reply)
{
	const json_t *links = json_get_array(reply->json, "Links");
	char rels[300] = "";

	for (size_t i = 0; i < json_array_size(links); i++) {
		const char *rel = json_get_text(json_array_get(links, i), "Rel");
		size_t len = strlen(rels);
		if (rel)
			snprintf(rels + len, sizeof(rels) - len, "%s%.40s", len ? ", " : "", rel);
	}
	if (reply->error < 0)
		find(k, REMOTE_NOTE, "resources", "the server does not list them: %s",
		     reply->message);
	else
		find(k, REMOTE_FINE, "resources", "%s", rels[0] ? rels : "none are listed");
}

static void find_projects(struct check *k, const struct call_reply *reply)
{
	int64_t total = json_get_integer(reply->json, "Total", -1);
	const json_t *row = json_array_get(et_rows(reply->json), 0);
	const char *name = json_get_text(row, "Name");

	if (reply->error < 0)
		find(k, REMOTE_NOTE, "projects", "not shown: %s", reply->message);
	else if (!row)
		find(k, REMOTE_NOTE, "projects", "none is visible to %s", k->p->user);
	else if (total > 1)
		find(k, REMOTE_FINE, "projects", "%lld are visible, one is '%.60s'",
		     (long long)total, name ? name : "");
	else
		find(k, REMOTE_FINE, "projects", "'%.60s' is visible", name ? name : "");
}

static void find_collection(struct check *k, const struct et_collection *c,
			    const struct call_reply *reply)
{
	int64_t total = json_get_integer(reply->json, "Total", -1);

	if (reply->error < 0)
		find(k, REMOTE_BAD, c->name, "cannot be listed: %s", reply->message);
	else if (total >= 0)
		find(k, REMOTE_FINE, c->name, "%lld %s can be listed", (long long)total, c->set);
	else
		find(k, REMOTE_FINE, c->name, "can be listed");
}

static void check_reply(void *ctx, const struct call_reply *reply);

static int check_ask(struct check *k, const char *path, const char *template)
{
	struct call *call = et_call(k->p, TRANSFER_INTERACTIVE, "GET", path, template);

	call_set_idempotent(call, true);
	return call_start(call, check_reply, k);
}

/* The next collection that can be asked about; 1 = none is left. */
static int ask_collection(struct check *k)
{
	char path[ET_PATH_SIZE];
	size_t len;

	while (*k->rest != '\0') {
		const struct et_collection *c = current(k, &len);
		if (c && c->shape != ET_UNLISTED) {
			char *query =
				et_newest_query(c->entity, atomic_load(&k->p->orders[ET_TQL]));
			snprintf(path, sizeof(path), "%s?%s&$top=1&$inlinecount=allpages", c->set,
				 query ? query : "");
			free(query);
			return check_ask(k, path, c->set);
		}
		if (c)
			find(k, REMOTE_NOTE, c->name,
			     "the server does not list sets: make one by mkdir, or ask for one by "
			     "its id");
		k->rest += len + (k->rest[len] == ':');
	}
	return 1;
}

static void check_end(struct check *k, int error, const char *message)
{
	if (error == 0)
		find(k, REMOTE_NOTE, "may write",
		     "not known before something is written: the server tells permissions by "
		     "refusing (403)");
	k->done(k->ctx, error, message);
	free(k);
}

static int next_step(struct check *k)
{
	switch (k->step) {
	case STEP_ROOT:
		return check_ask(k, "", "");
	case STEP_PROJECTS:
		return check_ask(k, "projects?$top=1&$inlinecount=allpages&$orderby=Name",
				 "projects");
	default:
		return ask_collection(k);
	}
}

static void check_reply(void *ctx, const struct call_reply *reply)
{
	struct check *k = ctx;
	size_t len;

	et_note_reply(k->p, reply);
	switch (k->step) {
	case STEP_SYSTEM:
		if (reply->error < 0) {
			find(k, REMOTE_BAD, reply->error == -EACCES ? "credentials" : "server",
			     "%s", reply->message);
			check_end(k, reply->error, reply->message);
			return;
		}
		find_system(k, reply);
		break;
	case STEP_ROOT:
		find_root(k, reply);
		break;
	case STEP_PROJECTS:
		find_projects(k, reply);
		break;
	case STEP_COLLECTIONS:
		find_collection(k, current(k, &len), reply);
		k->rest += len + (k->rest[len] == ':');
		break;
	}
	if (k->step != STEP_COLLECTIONS)
		k->step++;
	int r = next_step(k);
	if (r != 0)
		check_end(k, r < 0 ? r : 0, "");
}

int et_check(struct remote *r, remote_finding *each, remote_done *done, void *ctx)
{
	struct check *k = malloc(sizeof(*k));

	if (!k)
		return -ENOMEM;
	*k = (struct check){.p = (struct et *)r, .each = each, .done = done, .ctx = ctx};
	k->rest = k->p->collections;
	int error = check_ask(k, "systeminfo", "systeminfo");
	if (error < 0)
		free(k);
	return error;
}
