/* SPDX-License-Identifier: MIT */

/*
 * A Rillsoft client: its tables, making and freeing one, what its options must be, and the helpers by
 * which its other files make calls.
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "json.h"

static void rillsoft_free(struct remote *r)
{
	struct rillsoft *ris = (struct rillsoft *)r;

	rillsoft_slots_free(ris);
	for (size_t i = 0; i < ris->n_attachments; i++)
		free(ris->attachments[i]);
	free(ris->attachments);
	free(ris->scope);
	free(ris->client);
	base_clear(&ris->server);
	pthread_mutex_destroy(&ris->lock);
	free(ris);
}

char *rillsoft_url(const struct rillsoft *ris, enum rillsoft_path path,
		   const struct rillsoft_ids *ids)
{
	char *filled = rillsoft_template_fill(ris->paths[path], ids), *url = NULL;

	if (!filled || asprintf(&url, "%s%s", ris->server.url, filled) < 0)
		url = NULL;
	free(filled);
	return url;
}

struct call *rillsoft_call(struct rillsoft *ris, enum transfer_class class, const char *method,
			   enum rillsoft_path path, const struct rillsoft_ids *ids,
			   const char *query)
{
	const char *template = ris->paths[path];
	char *at = rillsoft_url(ris, path, ids), *url = NULL, *endpoint = NULL;
	struct call *call = NULL;

	if (!at || asprintf(&url, "%s%s", at, query) < 0)
		url = NULL;
	if (asprintf(&endpoint, "%s %.*s", method, (int)strcspn(template, "?"), template) < 0)
		endpoint = NULL;
	if (url && endpoint)
		call = call_new(&ris->base, class, method, url, endpoint);
	free(at);
	free(url);
	free(endpoint);
	return call;
}

/*
 * What cannot be: attachments are made and named elsewhere; a project is part of a document's
 * path for good (section 7).
 */
static int rillsoft_may(const struct remote *r, enum remote_deed deed, const char *collection,
			const char *to, const char *name)
{
	(void)r;
	(void)name;
	if (rillsoft_is_attachments(collection) && deed != REMOTE_REPLACES)
		return -EPERM;
	if (deed == REMOTE_RENAMES && to && strcmp(to, collection) != 0)
		return -EXDEV;
	return 0;
}

static const struct remote_ops rillsoft_ops = {
	.free = rillsoft_free,
	.probe = rillsoft_probe,
	.check = rillsoft_check,
	.may = rillsoft_may,
	.list_collections = rillsoft_list_collections,
	.list_tree = rillsoft_list_tree,
	.list_record = rillsoft_list_record,
	.poll = rillsoft_poll,
	.probe_size = rillsoft_probe_size,
	.fetch = rillsoft_fetch,
	.fetch_cancel = fetch_cancel,
	.fetch_pause = fetch_pause,
	.fetch_resume = fetch_resume,
	.fetch_set_class = fetch_set_class,
	.create = rillsoft_create,
	.replace = rillsoft_replace,
	.update = rillsoft_update,
	.remove = rillsoft_remove,
	.record_json = rillsoft_record_json,
};

static const struct remote_caps rillsoft_caps = {
	.system = "rillsoft",
	.default_collections = NULL,
	.unlisted_collection = NULL,
	.flat_collection = RILLSOFT_ATTACHMENTS,
	.rename_in_place = true,
	.move_in_place = true,
	.move_between_collections = false,
	.set_mtime = false,
	.replace_keeps_id = true,
	.names_unique = false,
	.hides_empty_records = true,
	.sizes_listed = true,
	.rename_records = false,
	.set_fields = false,
	.create_min_bytes = 0,
	.create_max_bytes = 0,
	.max_bytes = 0, /* a setting on the server that nobody tells */
	.mtime_resolution_ns = CLOCK_NS_PER_S,
	.batch_update = 1,
	.batch_remove = 1,
	.batch_create = 1,
	.batch_spans_records = false,
	.name_max = 0, /* unknown: as the mount */
};

/* The address without the "/api" that all paths begin with. */
static int parse_base(struct rillsoft *ris, const char *text, char *message, size_t size)
{
	int r = base_parse(text, "rillsoft:https://host/api", &ris->server, message, size);
	size_t len = r == 0 ? strlen(ris->server.url) : 0;

	if (len > 4 && strcmp(ris->server.url + len - 4, "/api") == 0)
		ris->server.url[len - 4] = '\0';
	return r;
}

static int set_client(struct rillsoft *ris, const char *client, char *message, size_t size)
{
	if (!json_is_id(client)) {
		snprintf(message, size,
			 "Rillsoft needs client=ID, the number of the client (tenant) to mount%s; "
			 "the server has no list of them to ask: see Administration > Clients in "
			 "Rillsoft Integration Server, or ask its administrator",
			 client ? ", in digits" : "");
		return -EINVAL;
	}
	ris->client = strdup(client);
	return ris->client ? 0 : -ENOMEM;
}

static int set_paths(struct rillsoft *ris, const struct options *o, char *message, size_t size)
{
	const struct {
		enum rillsoft_path path;
		const char *template;
	} given[] = {
		{RILLSOFT_DOCUMENTS, o->template_documents},
		{RILLSOFT_DOWNLOAD, o->template_download},
		{RILLSOFT_DELETE, o->template_delete},
		{RILLSOFT_FOLDERS, o->template_folders},
		{RILLSOFT_ATTACHMENT, o->template_attachment},
	};
	int r = 0;

	for (enum rillsoft_path path = 0; path < RILLSOFT_PATHS; path++)
		ris->paths[path] = rillsoft_path_default(path);
	for (size_t i = 0; r == 0 && i < sizeof(given) / sizeof(given[0]); i++) {
		if (!given[i].template)
			continue;
		r = rillsoft_template_check(given[i].path, given[i].template, message, size);
		ris->paths[given[i].path] = given[i].template;
	}
	ris->selects = strstr(ris->paths[RILLSOFT_DOCUMENTS], "{pid}") != NULL;
	return r;
}

/* One more id of attachments=, of @len bytes. */
static int add_attachment(struct rillsoft *ris, const char *id, size_t len, char *message,
			  size_t size)
{
	char **grown = realloc(ris->attachments, (ris->n_attachments + 1) * sizeof(char *));
	char *copy = grown ? strndup(id, len) : NULL;

	if (grown)
		ris->attachments = grown;
	if (!copy)
		return -ENOMEM;
	ris->attachments[ris->n_attachments] = copy;
	if (!json_is_id(copy)) {
		snprintf(message, size, "attachments=: '%.60s' is no id of an attachment: a number",
			 copy);
		free(copy);
		return -EINVAL;
	}
	if (rillsoft_has_attachment(ris, copy))
		free(copy);
	else
		ris->n_attachments++;
	return 0;
}

static int set_attachments(struct rillsoft *ris, const struct options *o, char *message,
			   size_t size)
{
	int r = 0;

	for (const char *p = o->attachments; r == 0 && p && *p != '\0';) {
		size_t len = strcspn(p, ":");
		if (len > 0)
			r = add_attachment(ris, p, len, message, size);
		p += len + (p[len] == ':');
	}
	if (r < 0)
		return r;
	if ((o->project && !json_is_id(o->project)) ||
	    (o->portfolio && !json_is_id(o->portfolio))) {
		snprintf(message, size, "project= and portfolio= are ids: numbers");
		return -EINVAL;
	}
	if (asprintf(&ris->scope, "%s%s%s%s", o->project ? "?project_id=" : "",
		     o->project ? o->project : "",
		     !o->portfolio ? ""
		     : o->project  ? "&portfolio_id="
				   : "?portfolio_id=",
		     o->portfolio ? o->portfolio : "") < 0) {
		ris->scope = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* Every name of collections= must be a project's id; said now, not at the first ls. */
static int check_collections(const struct rillsoft *ris, const char *list, char *message,
			     size_t size)
{
	while (list && *list != '\0') {
		char name[64];
		size_t len = strcspn(list, ":");
		snprintf(name, sizeof(name), "%.*s", (int)(len < 63 ? len : 63), list);
		bool flat = rillsoft_is_attachments(name) && ris->n_attachments > 0;
		if (len > 0 && !flat && !json_is_id(name)) {
			snprintf(message, size,
				 "collections=: '%s' is no project's id: numbers, like 41:42%s",
				 name,
				 rillsoft_is_attachments(name) ? " (attachments needs attachments=)"
							       : "");
			return -EINVAL;
		}
		list += len + (list[len] == ':');
	}
	return 0;
}

static int set_auth(struct rillsoft *ris, const struct options *options, char *message, size_t size)
{
	struct auth_config auth;

	if (!options->user) {
		auth_config_init(&auth, options, "token");
	} else {
		auth_config_init(&auth, options, NULL);
		auth.login = rillsoft_login;
		auth.remote = &ris->base;
	}
	return auth_new(&auth, &ris->base.auth, message, size);
}

static int init(struct rillsoft *ris, const struct options *options, char *message, size_t size)
{
	int r = parse_base(ris, options->base_url, message, size);

	if (r == 0)
		r = set_client(ris, options->client, message, size);
	if (r == 0)
		r = set_paths(ris, options, message, size);
	if (r == 0)
		r = set_attachments(ris, options, message, size);
	if (r == 0)
		r = check_collections(ris, options->collections, message, size);
	if (r < 0)
		return r;
	ris->override = options->method_override;
	ris->user = options->user;
	ris->collections = options->collections;
	ris->base.gate = call_gate_new();
	ris->base.fetches = fetches_new();
	if (!ris->base.gate || !ris->base.fetches)
		return -ENOMEM;
	return set_auth(ris, options, message, size);
}

int rillsoft_new(const struct options *options, struct engine *engine, struct pool *pool,
		 struct remote **ret_remote, char *message, size_t size)
{
	struct rillsoft *ris = calloc(1, sizeof(*ris));

	snprintf(message, size, "out of memory");
	if (!ris)
		return -ENOMEM;
	ris->base = (struct remote){
		.ops = &rillsoft_ops, .caps = rillsoft_caps, .engine = engine, .pool = pool};
	pthread_mutex_init(&ris->lock, NULL);
	int r = init(ris, options, message, size);
	if (r < 0) {
		remote_free(&ris->base);
		return r;
	}
	*ret_remote = &ris->base;
	return 0;
}
