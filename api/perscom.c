/* SPDX-License-Identifier: MIT */

/*
 * A PERSCOM client: its tables, making and freeing one, the helpers by which its other files make
 * calls, and the two ops that are a question and an answer: probe and record_json.
 */

#include "perscom.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "auth.h"
#include "json.h"

static void perscom_free(struct remote *r)
{
	struct perscom *p = (struct perscom *)r;

	perscom_links_free(p);
	perscom_base_clear(&p->server);
	free(p->tenant);
	pthread_mutex_destroy(&p->links_lock);
	pthread_mutex_destroy(&p->renew_lock);
	pthread_mutex_destroy(&p->doubts_lock);
	pthread_mutex_destroy(&p->glance_lock);
	free(p);
}

struct call *perscom_call(struct perscom *p, enum transfer_class class, const char *method,
			  const char *path, const char *template)
{
	char *url = NULL, *endpoint = NULL;
	struct call *c = NULL;

	if (asprintf(&url, "%s/%s", p->server.url, path) < 0)
		url = NULL;
	if (asprintf(&endpoint, "%s /%s/%s", method, p->server.version, template) < 0)
		endpoint = NULL;
	if (url && endpoint)
		c = call_new(&p->base, class, method, url, endpoint);
	if (p->tenant)
		call_add_header(c, "X-Perscom-Id", p->tenant);
	call_set_trace_header(c, "X-Perscom-Request-Id");
	free(url);
	free(endpoint);
	return c;
}

struct call *perscom_search(struct perscom *p, enum transfer_class class, const char *resource,
			    const char *query, unsigned limit, json_t *body)
{
	char path[128], template[64];

	snprintf(path, sizeof(path), "%s/search?%slimit=%u", resource, query, limit);
	snprintf(template, sizeof(template), "%s/search", resource);
	struct call *c = perscom_call(p, class, "POST", path, template);
	call_set_json_take(c, body);
	call_set_idempotent(c, true);
	return c;
}

void perscom_note_reply(struct perscom *p, const struct call_reply *reply)
{
	if (reply->date_s > 0)
		atomic_store(&p->skew_s, reply->date_s - clock_real_ns() / CLOCK_NS_PER_S);
}

struct probe {
	struct perscom *p;
	remote_done *done;
	void *ctx;
};

static void probe_done(void *ctx, const struct call_reply *reply)
{
	struct probe *probe = ctx;
	char message[256];
	int n;

	perscom_note_reply(probe->p, reply);
	if (reply->error < 0) {
		probe->done(probe->ctx, reply->error, reply->message);
		free(probe);
		return;
	}
	n = snprintf(message, sizeof(message), "PERSCOM %.8s at %.100s", probe->p->server.version,
		     probe->p->server.host);
	if (reply->rate_remaining >= 0 && reply->rate_limit >= 0)
		snprintf(message + n, sizeof(message) - (size_t)n,
			 ", %lld of %lld calls left this minute", (long long)reply->rate_remaining,
			 (long long)reply->rate_limit);
	bool ok = json_get_array(reply->json, "data") != NULL;
	probe->done(probe->ctx, ok ? 0 : -EIO,
		    ok ? message : "the server does not answer like PERSCOM");
	free(probe);
}

static int perscom_probe(struct remote *r, enum transfer_class class, remote_done *done, void *ctx)
{
	struct perscom *p = (struct perscom *)r;
	struct probe *probe = malloc(sizeof(*probe));

	if (!probe)
		return -ENOMEM;
	*probe = (struct probe){p, done, ctx};
	struct call *c = perscom_search(p, class, "attachments", "", 1, perscom_body_page(NULL));
	call_set_scope(c, "view:attachment");
	int error = call_start(c, probe_done, probe);
	if (error < 0)
		free(probe);
	return error;
}

struct record_text {
	struct perscom *p;
	remote_text_done *done;
	void *ctx;
};

static void record_json_done(void *ctx, const struct call_reply *reply)
{
	struct record_text *op = ctx;
	const json_t *row = json_array_get(json_get_array(reply->json, "data"), 0);
	int error = reply->error;

	perscom_note_reply(op->p, reply);
	if (error == 0 && !json_get_array(reply->json, "data"))
		error = -EIO;
	if (error == 0 && !row)
		error = -ENOENT;
	if (error == 0 && !json_is_object(row))
		error = -EIO;
	call_give_fields(error, row, reply->message, op->done, op->ctx);
	free(op);
}

static int perscom_record_json(struct remote *r, const char *collection, const char *record,
			       remote_text_done *done, void *ctx)
{
	struct perscom *p = (struct perscom *)r;
	const struct perscom_collection *c = perscom_find_collection(collection);

	if (!c || !json_is_id(record))
		return -EINVAL;
	struct record_text *op = malloc(sizeof(*op));
	if (!op)
		return -ENOMEM;
	*op = (struct record_text){p, done, ctx};
	struct call *call = perscom_search(p, TRANSFER_INTERACTIVE, c->name, "", 1,
					   perscom_body_ids(&record, 1));
	call_set_scope(call, c->view_scope);
	int error = call_start(call, record_json_done, op);
	if (error < 0)
		free(op);
	return error;
}

static const struct remote_ops perscom_ops = {
	.free = perscom_free,
	.probe = perscom_probe,
	.check = perscom_check,
	.list_tree = perscom_list_tree,
	.list_record = perscom_list_record,
	.poll = perscom_poll,
	.probe_size = fetch_probe_size,
	.fetch = perscom_fetch,
	.fetch_cancel = fetch_cancel,
	.fetch_pause = fetch_pause,
	.fetch_resume = fetch_resume,
	.fetch_set_class = fetch_set_class,
	.create = perscom_create,
	.replace = perscom_replace,
	.update = perscom_update,
	.remove = perscom_remove,
	.update_records = perscom_update_records,
	.record_json = perscom_record_json,
};

static const struct remote_caps perscom_caps = {
	.system = "perscom",
	.default_collections = "users:events",
	.rename_in_place = true,
	.move_in_place = true,
	.move_between_collections = true,
	.set_mtime = true,
	.replace_keeps_id = true,
	.names_unique = false,
	.sizes_listed = false,
	.rename_records = true,
	.set_fields = true,
	.create_min_bytes = PERSCOM_CREATE_MIN,
	.create_max_bytes = PERSCOM_CREATE_MAX,
	.max_bytes = 0,
	.mtime_resolution_ns = CLOCK_NS_PER_S,
	.batch_update = 200,
	.batch_remove = 200,
	.batch_create = 1,
	.name_max = 255,
};

/* Every name of collections= must be a collection; said now, not at the first ls. */
static int check_collections(const char *list, char *message, size_t size)
{
	while (list && *list != '\0') {
		char name[64];
		size_t len = strcspn(list, ":");
		snprintf(name, sizeof(name), "%.*s", (int)len, list);
		if (len > 0 && !perscom_find_collection(name)) {
			snprintf(message, size,
				 "PERSCOM has no collection '%s' with attachments; there are "
				 "users, events, "
				 "tasks and assignment-, award-, combat-, qualification-, rank-, "
				 "service-, "
				 "training-records",
				 name);
			return -EINVAL;
		}
		list += len + (list[len] == ':');
	}
	return 0;
}

static int init(struct perscom *p, const struct options *options, char *message, size_t size)
{
	struct auth_config auth;
	int r = perscom_base_parse(options->base_url, &p->server, message, size);

	if (r == 0)
		r = check_collections(options->collections, message, size);
	if (r < 0)
		return r;
	p->server.http |= options->insecure_http;
	p->names = options->names == OPTIONS_NAMES_FILENAME ? PERSCOM_NAMES_FILENAME
							    : PERSCOM_NAMES_LABEL;
	p->tenant = options->tenant ? strdup(options->tenant) : NULL;
	p->base.gate = call_gate_new();
	p->base.fetches = fetches_new();
	if (!p->base.gate || !p->base.fetches || (options->tenant && !p->tenant))
		return -ENOMEM;
	auth_config_init(&auth, options, "API key");
	return auth_new(&auth, &p->base.auth, message, size);
}

int perscom_new(const struct options *options, struct engine *engine, struct pool *pool,
		struct remote **ret_remote, char *message, size_t size)
{
	struct perscom *p = calloc(1, sizeof(*p));

	snprintf(message, size, "out of memory");
	if (!p)
		return -ENOMEM;
	p->base = (struct remote){
		.ops = &perscom_ops, .caps = perscom_caps, .engine = engine, .pool = pool};
	pthread_mutex_init(&p->links_lock, NULL);
	pthread_mutex_init(&p->renew_lock, NULL);
	pthread_mutex_init(&p->doubts_lock, NULL);
	pthread_mutex_init(&p->glance_lock, NULL);
	int r = init(p, options, message, size);
	if (r < 0) {
		remote_free(&p->base);
		return r;
	}
	*ret_remote = &p->base;
	return 0;
}
