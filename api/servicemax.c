/* SPDX-License-Identifier: MIT */

/*
 * A ServiceMax client: its tables, making and freeing one, the helper by which its other files make
 * calls, and the ops that are a question and an answer: probe and record_json.
 */

#include "servicemax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth.h"
#include "json.h"

static void servicemax_free(struct remote *r)
{
	struct servicemax *p = (struct servicemax *)r;

	base_clear(&p->server);
	free(p->objects);
	free(p->client_id);
	servicemax_uuids_clear(&p->hidden);
	explicit_bzero(p->csrf_token, sizeof(p->csrf_token));
	pthread_mutex_destroy(&p->lock);
	free(p);
}

struct call *servicemax_call(struct servicemax *p, enum transfer_class class, const char *method,
			     const char *path, const char *endpoint)
{
	char *url = NULL, *counted = NULL;
	struct call *c = NULL;

	if (asprintf(&url, "%s%s", p->server.url, path) < 0)
		url = NULL;
	if (asprintf(&counted, "%s %s", method, endpoint) < 0)
		counted = NULL;
	if (url && counted)
		c = call_new(&p->base, class, method, url, counted);
	call_set_refusal_words(c, SERVICEMAX_REFUSAL);
	free(url);
	free(counted);
	return c;
}

struct servicemax_object *servicemax_find_object(struct servicemax *p, const char *name)
{
	for (size_t i = 0; i < p->n_objects; i++)
		if (strcmp(p->objects[i].name, name) == 0)
			return &p->objects[i];
	return NULL;
}

struct probe {
	struct servicemax *p;
	remote_done *done;
	void *ctx;
};

static void probe_done(void *ctx, const struct call_reply *reply)
{
	struct probe *probe = ctx;
	const json_t *me =
		json_is_array(reply->json) ? json_array_get(reply->json, 0) : reply->json;
	const char *name = json_get_text(me, "io_username");
	char message[256];
	int error = reply->error == -EOVERFLOW ? -EIO : reply->error;

	if (error == 0 && !json_is_object(me))
		error = -EIO;
	if (reply->error < 0)
		snprintf(message, sizeof(message), "%s", reply->message);
	else if (error < 0)
		snprintf(message, sizeof(message), "the server does not answer like ServiceMax");
	else
		snprintf(message, sizeof(message), "ServiceMax at %.100s%s%.100s",
			 probe->p->server.host, name ? ", as " : "", name ? name : "");
	probe->done(probe->ctx, error, message);
	free(probe);
}

static int servicemax_probe(struct remote *r, enum transfer_class class, remote_done *done,
			    void *ctx)
{
	struct servicemax *p = (struct servicemax *)r;
	struct probe *probe = malloc(sizeof(*probe));

	if (!probe)
		return -ENOMEM;
	*probe = (struct probe){p, done, ctx};
	struct call *c = servicemax_call(p, class, "GET", "/v2/user?fields=io_username,io_email",
					 "/v2/user");
	call_set_idempotent(c, true);
	int error = call_start(c, probe_done, probe);
	if (error < 0)
		free(probe);
	return error;
}

struct record_text {
	remote_text_done *done;
	void *ctx;
};

static void record_json_done(void *ctx, const struct call_reply *reply)
{
	struct record_text *op = ctx;
	const json_t *row =
		json_is_array(reply->json) ? json_array_get(reply->json, 0) : reply->json;
	int error = reply->error == -EOVERFLOW ? -EIO : reply->error;

	if (error == 0 && !json_is_object(row))
		error = json_is_array(reply->json) && !row ? -ENOENT : -EIO;
	call_give_fields(error, row, reply->message, op->done, op->ctx);
	free(op);
}

static int servicemax_record_json(struct remote *r, const char *collection, const char *record,
				  remote_text_done *done, void *ctx)
{
	struct servicemax *p = (struct servicemax *)r;
	char path[SERVICEMAX_OBJECT_MAX + 64];

	if (!servicemax_is_object(collection) || !record || !json_is_uuid(record))
		return -EINVAL;
	struct record_text *op = malloc(sizeof(*op));
	if (!op)
		return -ENOMEM;
	*op = (struct record_text){done, ctx};
	snprintf(path, sizeof(path), "/v2/%s/%s", collection, record);
	struct call *c =
		servicemax_call(p, TRANSFER_INTERACTIVE, "GET", path, "/v2/{object}/{uuid}");
	call_set_idempotent(c, true);
	int error = call_start(c, record_json_done, op);
	if (error < 0)
		free(op);
	return error;
}

static int servicemax_may(const struct remote *r, enum remote_deed deed, const char *collection,
			  const char *to, const char *name)
{
	(void)r;
	(void)collection;
	(void)to; /* a file is moved by uploading it again, wherever to */
	return name ? servicemax_check_name(name, deed) : 0;
}

static const struct remote_ops servicemax_ops = {
	.free = servicemax_free,
	.probe = servicemax_probe,
	.check = servicemax_check,
	.may = servicemax_may,
	.list_tree = servicemax_list_tree,
	.list_record = servicemax_list_record,
	.poll = servicemax_poll,
	.fetch = servicemax_fetch,
	.fetch_cancel = fetch_cancel,
	.fetch_pause = fetch_pause,
	.fetch_resume = fetch_resume,
	.fetch_set_class = fetch_set_class,
	.create = servicemax_create,
	.replace = servicemax_replace,
	.remove = servicemax_remove,
	.record_json = servicemax_record_json,
};

static const struct remote_caps servicemax_caps = {
	.system = "servicemax",
	.default_collections = NULL, /* S-21: nobody tells which objects there are */
	.rename_in_place = false,
	.move_in_place = false,
	.move_between_collections = true,
	.set_mtime = false,
	.replace_keeps_id = true,
	.names_unique = true,
	.sizes_listed = true,
	.rename_records = false,
	.set_fields = false,
	.create_min_bytes = 0,
	.create_max_bytes = 0,
	.max_bytes = 0,
	.mtime_resolution_ns = 1000000,
	.batch_update = 1,
	.batch_remove = SERVICEMAX_REMOVE,
	.batch_create = SERVICEMAX_CREATE,
	.batch_spans_records = false,
	.name_max = 0,
};

/* What collections= names. Said now, not at the first ls. */
static int take_objects(struct servicemax *p, const char *list, char *message, size_t size)
{
	p->objects = calloc(list ? strlen(list) / 2 + 1 : 1, sizeof(*p->objects));
	if (!p->objects)
		return -ENOMEM;
	while (list && *list != '\0') {
		char name[SERVICEMAX_OBJECT_MAX + 2];
		size_t len = strcspn(list, ":");
		snprintf(name, sizeof(name), "%.*s", (int)len, list);
		list += len + (list[len] == ':');
		if (len == 0 || servicemax_find_object(p, name))
			continue;
		if (!servicemax_is_object(name)) {
			snprintf(message, size,
				 "'%s' is no object: collections= wants full identifiers of "
				 "letters, digits and '_', as in collections=io_showcase:io_user",
				 name);
			return -EINVAL;
		}
		memcpy(p->objects[p->n_objects++].name, name, strlen(name) + 1);
	}
	return 0;
}

static int init(struct servicemax *p, const struct options *options, char *message, size_t size)
{
	struct auth_config auth;
	int r = base_parse(options->base_url, "https://max.example.com", &p->server, message, size);

	if (r == 0)
		r = take_objects(p, options->collections, message, size);
	if (r < 0)
		return r;
	if (p->n_objects == 0 && options->mountpoint) {
		snprintf(message, size,
			 "which objects are to be mounted? ServiceMax does not tell which there "
			 "are: give collections=io_showcase, with ':' between several");
		return -EINVAL;
	}
	p->user = options->user;
	p->given_client_id = options->client_id;
	p->base.gate = call_gate_new();
	p->base.fetches = fetches_new();
	if (!p->base.gate || !p->base.fetches)
		return -ENOMEM;
	auth_config_init(&auth, options, options->user ? NULL : "access token");
	if (options->user) {
		auth.login = servicemax_login;
		auth.logout = servicemax_logout;
		auth.remote = &p->base;
	}
	return auth_new(&auth, &p->base.auth, message, size);
}

int servicemax_new(const struct options *options, struct engine *engine, struct pool *pool,
		   struct remote **ret_remote, char *message, size_t size)
{
	struct servicemax *p = calloc(1, sizeof(*p));

	snprintf(message, size, "out of memory");
	if (!p)
		return -ENOMEM;
	p->base = (struct remote){
		.ops = &servicemax_ops, .caps = servicemax_caps, .engine = engine, .pool = pool};
	pthread_mutex_init(&p->lock, NULL);
	int r = init(p, options, message, size);
	if (r < 0) {
		remote_free(&p->base);
		return r;
	}
	*ret_remote = &p->base;
	return 0;
}
