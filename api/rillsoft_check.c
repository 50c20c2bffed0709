/* SPDX-License-Identifier: MIT */

/*
 * Who am I, and what works here: probe asks for the client (tenant), check goes on from there, one
 * question after the other, to the first thing that every other one depends on and that fails.
 *
 *	client -> projects -> documents of one -> folders -> a byte of a document -> of an attachment
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "json.h"

/* "client 1 'ACME Engineering'": what the answer calls it. */
static void describe_client(const struct rillsoft *ris, const json_t *root, char *out, size_t size)
{
	json_t *owned;
	const json_t *row = json_array_get(rillsoft_rows(root, &owned), 0);
	const char *name = json_get_text(row, "name");

	snprintf(out, size, "Rillsoft Integration Server at %.100s, client %s%s%.80s%s",
		 ris->server.host, ris->client, name ? " '" : "", name ? name : "",
		 name ? "'" : "");
	json_decref(owned);
}

static const char *explain_client(const struct call_reply *reply)
{
	return reply->error == -ENOENT ? "the server knows no such client; check client= and the "
					 "address"
				       : reply->message;
}

static struct call *ask_client(struct rillsoft *ris, enum transfer_class class)
{
	struct rillsoft_ids ids = {.cid = ris->client};
	struct call *call = rillsoft_call(ris, class, "GET", RILLSOFT_CLIENT, &ids, "");

	call_set_idempotent(call, true);
	call_set_scope(call, "to use this client");
	return call;
}

struct probe {
	struct rillsoft *ris;
	remote_done *done;
	void *ctx;
};

static void on_probe(void *ctx, const struct call_reply *reply)
{
	struct probe *probe = ctx;
	char message[256];

	describe_client(probe->ris, reply->json, message, sizeof(message));
	probe->done(probe->ctx, reply->error, reply->error < 0 ? explain_client(reply) : message);
	free(probe);
}

int rillsoft_probe(struct remote *r, enum transfer_class class, remote_done *done, void *ctx)
{
	struct probe *probe = malloc(sizeof(*probe));

	if (!probe)
		return -ENOMEM;
	*probe = (struct probe){(struct rillsoft *)r, done, ctx};
	int error = call_start(ask_client(probe->ris, class), on_probe, probe);
	if (error < 0)
		free(probe);
	return error;
}

struct check {
	struct rillsoft *ris;
	remote_finding *each;
	remote_done *done;
	void *ctx;
	char project[RILLSOFT_ID_SIZE]; /* one to look into */
	struct rillsoft_wait wait;
	struct rillsoft_listing *listing;
};

static void find(struct check *c, enum remote_verdict verdict, const char *topic,
		 const char *format, ...) __attribute__((format(printf, 4, 5)));
static void find(struct check *c, enum remote_verdict verdict, const char *topic,
		 const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	c->each(c->ctx, verdict, topic, text);
}

static void check_end(struct check *c, int error, const char *topic, const char *message)
{
	if (error < 0)
		find(c, REMOTE_BAD, topic, "%s", message);
	c->done(c->ctx, error, message);
	rillsoft_listing_unref(c->listing);
	free(c);
}

/* When the token ends, as it says itself; -1 = it does not. */
static int64_t find_token_end(struct rillsoft *ris)
{
	int64_t exp_s = -1, iat_s;
	unsigned generation;
	char *header;

	if (ris->user)
		return ris->token_end_s > 0 ? ris->token_end_s : -1;
	if (auth_get_header(ris->base.auth, &header, &generation) < 0)
		return -1;
	rillsoft_decode_jwt(header, &exp_s, &iat_s);
	auth_free_header(header);
	return exp_s;
}

static void find_credentials(struct check *c)
{
	int64_t end_s = find_token_end(c->ris), left_s = end_s - clock_real_ns() / CLOCK_NS_PER_S;
	const char *user = c->ris->user;

	if (end_s < 0)
		find(c, REMOTE_FINE, "credentials", "%s%.100s; the token does not say when it ends",
		     user ? "logged in as " : "the token is good", user ? user : "");
	else if (user)
		find(c, REMOTE_FINE, "credentials",
		     "logged in as %.100s; the token ends in %lld minutes and is renewed before",
		     user, (long long)(left_s / 60));
	else
		find(c, left_s < 86400 ? REMOTE_NOTE : REMOTE_FINE, "credentials",
		     "the token is good; it ends in %lld minutes%s", (long long)(left_s / 60),
		     left_s < 86400 ? ", and only you can put in another (user= logs in by itself)"
				    : "");
}

static void find_clock(struct check *c, const struct call_reply *reply)
{
	int64_t skew_s = reply->date_s - clock_real_ns() / CLOCK_NS_PER_S;
	bool good = skew_s > -60 && skew_s < 60;

	if (reply->date_s <= 0)
		find(c, REMOTE_NOTE, "clock", "the server does not tell its time");
	else
		find(c, good ? REMOTE_FINE : REMOTE_NOTE, "clock",
		     "the server's clock is %lld s %s ours; its times have no zone and are taken "
		     "as "
		     "UTC",
		     (long long)(skew_s < 0 ? -skew_s : skew_s), skew_s < 0 ? "behind" : "before");
}

static void check_write(struct check *c)
{
	static const char *const hows[] = {"header", "field", "both", "none"};

	find(c, REMOTE_NOTE, "may write",
	     "the server does not tell before it is done; updates go by method_override=%s",
	     hows[c->ris->override]);
	find(c, REMOTE_NOTE, "deleting", "%s cannot be tried without deleting (template_delete=)",
	     c->ris->paths[RILLSOFT_DELETE]);
	check_end(c, 0, "", "");
}

static void on_attachment(void *ctx, int error, int64_t size)
{
	struct check *c = ctx;
	struct rillsoft *ris = c->ris;

	if (error == 0)
		find(c, REMOTE_FINE, "attachments", "attachment %s can be read: %lld bytes",
		     ris->attachments[0], (long long)size);
	else
		find(c, REMOTE_NOTE, "attachments",
		     "attachment %s cannot be read at %s (template_attachment=), only written",
		     ris->attachments[0], ris->paths[RILLSOFT_ATTACHMENT]);
	check_write(c);
}

static void check_attachment(struct check *c)
{
	struct rillsoft *ris = c->ris;
	struct remote_file file;

	if (ris->n_attachments == 0 || !rillsoft_make_attachment(ris->attachments[0], &file)) {
		check_write(c);
		return;
	}
	int error = fetch_probe_size(&ris->base, TRANSFER_INTERACTIVE, &file, RILLSOFT_ATTACHMENTS,
				     0, on_attachment, c);
	remote_file_clear(&file);
	if (error < 0)
		on_attachment(c, error, -1);
}

static void on_document(void *ctx, int error, int64_t size)
{
	struct check *c = ctx;

	(void)size;
	if (error == 0)
		find(c, REMOTE_FINE, "reading", "documents can be downloaded");
	else
		find(c, REMOTE_BAD, "reading",
		     "a document cannot be downloaded at %s: %s; check template_download= and the "
		     "right Read documents",
		     c->ris->paths[RILLSOFT_DOWNLOAD], strerror(-error));
	check_attachment(c);
}

/* One with bytes, to try the download with; NULL = none. */
static const struct rillsoft_doc *choose_document(const struct check *c)
{
	for (size_t i = 0; i < c->listing->n; i++)
		if (c->listing->docs[i].size > 0 &&
		    strcmp(c->listing->docs[i].project, c->project) == 0)
			return &c->listing->docs[i];
	return NULL;
}

static void check_document(struct check *c)
{
	const struct rillsoft_doc *doc = choose_document(c);
	struct remote_file file = {0};

	if (!doc)
		find(c, REMOTE_NOTE, "reading", "project %s has no document to try it with",
		     c->project);
	if (!doc || !rillsoft_make_file(doc, &file)) {
		check_attachment(c);
		return;
	}
	int error = fetch_probe_size(&c->ris->base, TRANSFER_INTERACTIVE, &file, c->project, 0,
				     on_document, c);
	remote_file_clear(&file);
	if (error < 0)
		on_document(c, error, -1);
}

static void on_folders(void *ctx, const struct call_reply *reply)
{
	struct check *c = ctx;
	char folder[RILLSOFT_ID_SIZE];

	if (reply->error == 0 && rillsoft_decode_main_folder(reply->json, folder))
		find(c, REMOTE_FINE, "folders", "the main folder is %s", folder);
	else
		find(c, REMOTE_NOTE, "folders",
		     "no list of folders at %s (template_folders=): %.100s; new documents go where "
		     "others of their project are",
		     c->ris->paths[RILLSOFT_FOLDERS], reply->message);
	check_document(c);
}

static void on_documents(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct check *c = ctx;
	struct rillsoft_ids ids = {.cid = c->ris->client};

	if (error < 0) {
		check_end(c, error, "documents", message);
		return;
	}
	c->listing = rillsoft_listing_ref(l);
	find(c, REMOTE_FINE, "documents", "project %s: %zu documents listed%s", c->project, l->n,
	     l->foreign ? ", other projects' among them: one call lists them all" : "");
	struct call *call =
		rillsoft_call(c->ris, TRANSFER_INTERACTIVE, "GET", RILLSOFT_FOLDERS, &ids, "");
	call_set_idempotent(call, true);
	error = call_start(call, on_folders, c);
	if (error < 0)
		check_end(c, error, "folders", "not sent");
}

/* The first of collections=, else the first project there is; false = none. */
static bool choose_project(struct check *c, const struct remote_collection *list, size_t n)
{
	for (const char *p = c->ris->collections; p && *p != '\0'; p += strcspn(p, ":")) {
		p += *p == ':';
		size_t len = strcspn(p, ":");
		if (len >= sizeof(c->project))
			continue;
		memcpy(c->project, p, len);
		c->project[len] = '\0';
		if (json_is_id(c->project))
			return true;
	}
	if (n > 0 && json_is_id(list[0].id))
		snprintf(c->project, sizeof(c->project), "%s", list[0].id);
	return json_is_id(c->project);
}

static void on_projects(void *ctx, int error, const struct remote_collection *list, size_t n,
			const char *message)
{
	struct check *c = ctx;

	if (error < 0) {
		check_end(c, error, "projects", message);
		return;
	}
	n -= n > 0 && c->ris->n_attachments > 0; /* the last one is ours */
	find(c, n > 0 ? REMOTE_FINE : REMOTE_NOTE, "projects", "%zu active projects visible", n);
	if (choose_project(c, list, n))
		rillsoft_want(c->ris, &c->wait, TRANSFER_INTERACTIVE, c->project, RILLSOFT_FRESH,
			      on_documents, c);
	else
		check_attachment(c);
}

static void on_client(void *ctx, const struct call_reply *reply)
{
	struct check *c = ctx;
	char server[256];

	if (reply->error < 0) {
		check_end(c, reply->error,
			  reply->status == 401 || reply->status == 0 ? "credentials" : "server",
			  explain_client(reply));
		return;
	}
	find_credentials(c);
	describe_client(c->ris, reply->json, server, sizeof(server));
	find(c, REMOTE_FINE, "server", "%s", server);
	find_clock(c, reply);
	if (reply->rate_limit >= 0)
		find(c, REMOTE_FINE, "rate limit", "%lld of %lld calls left",
		     (long long)reply->rate_remaining, (long long)reply->rate_limit);
	else
		find(c, REMOTE_FINE, "rate limit", "none told");
	int error = rillsoft_list_collections(&c->ris->base, TRANSFER_INTERACTIVE, on_projects, c);
	if (error < 0)
		check_end(c, error, "projects", "not sent");
}

int rillsoft_check(struct remote *r, remote_finding *each, remote_done *done, void *ctx)
{
	struct check *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->ris = (struct rillsoft *)r;
	c->each = each;
	c->done = done;
	c->ctx = ctx;
	int error = call_start(ask_client(c->ris, TRANSFER_INTERACTIVE), on_client, c);
	if (error < 0)
		free(c);
	return error;
}
