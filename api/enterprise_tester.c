/* SPDX-License-Identifier: MIT */

/*
 * An Enterprise Tester client: its tables, making and freeing one, the helpers by which its other
 * files make calls, and reading bytes (section 4).
 */

#include "enterprise_tester.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <attachfs/clock.h>

#include "auth.h"
#include "json.h"

#define COLLECTIONS_DEFAULT "requirements:scripts:incidents:sets"

static void et_free(struct remote *r)
{
	struct et *p = (struct et *)r;

	for (size_t i = 0; i < ET_COLLECTIONS; i++)
		pthread_mutex_destroy(&p->watch[i].lock);
	base_clear(&p->server);
	free(p->user);
	free(p);
}

struct call *et_call(struct et *p, enum transfer_class class, const char *method, const char *path,
		     const char *template)
{
	char *url = NULL, *endpoint = NULL;
	struct call *call = NULL;

	if (asprintf(&url, "%s/%s", p->server.url, path) < 0)
		url = NULL;
	if (asprintf(&endpoint, "%s /api/%s", method, template) < 0)
		endpoint = NULL;
	if (url && endpoint)
		call = call_new(&p->base, class, method, url, endpoint);
	/* Who is not logged in is led to a page (section 1). */
	call_set_login_page(call);
	if (strcmp(method, "GET") == 0)
		call_add_header(call, "Cache-Control", "no-cache");
	free(url);
	free(endpoint);
	return call;
}

void et_note_reply(struct et *p, const struct call_reply *reply)
{
	if (reply->date_s > 0)
		atomic_store(&p->skew_s, reply->date_s - clock_real_ns() / CLOCK_NS_PER_S);
}

void et_change_reset(struct remote_change *item)
{
	et_change_set(item, REMOTE_RETRY, -EIO, "");
	item->file = (struct remote_file){.size = -1};
}

void et_change_set(struct remote_change *item, enum remote_outcome outcome, int error,
		   const char *message)
{
	item->outcome = outcome;
	item->error = error;
	snprintf(item->message, sizeof(item->message), "%s", message);
}

static bool is_html_type(const char *type)
{
	return strncasecmp(type, "text/html", 9) == 0 ||
	       strncasecmp(type, "application/xhtml", 17) == 0;
}

/* Whether the file itself is a page. */
static bool is_html_file(const struct remote_file *file)
{
	return (file->media_type && is_html_type(file->media_type)) ||
	       (file->name && is_html_type(et_media_type(file->name)));
}

/* A page where the file is none of that size is the login page (section 4). */
static int judge_content(const struct remote_file *file, const struct transfer_head *head,
			 int64_t total)
{
	bool html = is_html_type(head->content_type);
	bool sized = total >= 0 && file->size >= 0;

	if (html && (sized ? total != file->size : !is_html_file(file)))
		return -EACCES;
	return sized && total != file->size ? -EIO : 0;
}

static const struct fetch_source source = {
	.endpoint = "GET /api/attachment/{id}/contents",
	.credential = true,
	.accept = "Accept: */*",
	.judge = judge_content,
};

static int et_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		    const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		    const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	const struct et *p = (const struct et *)r;
	struct remote_file at = *file;

	(void)collection;
	if (!file->id || !json_is_uuid(file->id))
		return -EINVAL;
	/* Never the answer's own link: it may lead elsewhere (E-7, E-12, E-17). */
	if (asprintf(&at.url, "%s/attachment/%s/contents", p->server.url, file->id) < 0)
		return -ENOMEM;
	int error = fetch_start(r, &source, class, &at, false, off, len, deadline_mono_ms, sink,
				ret_id);
	free(at.url);
	return error;
}

/*
 * PATCH is documented of requirements only (section 7): whether others have it, the first one shows.
 * A file can be made, replaced and removed wherever it can be seen.
 */
static int et_may(const struct remote *r, enum remote_deed deed, const char *collection,
		  const char *to, const char *name)
{
	const struct et *p = (const struct et *)r;
	const struct et_collection *c = et_find_collection(collection);

	(void)to;
	(void)name;
	if (deed != REMOTE_CHANGES_RECORD || !c)
		return 0;
	if (!c->writable_record)
		return -EPERM;
	return atomic_load(&p->fixed_records) & 1u << et_collection_index(c) ? -EPERM : 0;
}

static const struct remote_ops et_ops = {
	.free = et_free,
	.probe = et_probe,
	.check = et_check,
	.may = et_may,
	.make_record = et_make_record,
	.list_tree = et_list_tree,
	.list_record = et_list_record,
	.poll = et_poll,
	/* for a server that leaves a Size out */
	.probe_size = fetch_probe_size,
	.fetch = et_fetch,
	.fetch_cancel = fetch_cancel,
	.fetch_pause = fetch_pause,
	.fetch_resume = fetch_resume,
	.fetch_set_class = fetch_set_class,
	.create = et_create,
	.remove = et_remove,
	.update_records = et_update_records,
	.record_json = et_record_json,
};

static const struct remote_caps et_caps = {
	.system = "enterprise-tester",
	.default_collections = COLLECTIONS_DEFAULT,
	.unlisted_collection = "sets",
	.flat_collection = NULL,
	.rename_in_place = false,
	.move_in_place = false,
	.move_between_collections = true,
	.set_mtime = false,
	.replace_keeps_id = false,
	.names_unique = false,
	.sizes_listed = true,
	.rename_records = true,
	.set_fields = true,
	.create_min_bytes = 0,
	.create_max_bytes = 0,
	.max_bytes = 0,
	.mtime_resolution_ns = CLOCK_NS_PER_S,
	.batch_update = 1,
	.batch_remove = 1,
	.batch_create = ET_UPLOAD_MAX,
	.batch_spans_records = false,
	.name_max = 0,
};

/* Every name of collections= must be a collection; said now, not at the first ls. */
static int check_collections(const char *list, char *message, size_t size)
{
	while (*list != '\0') {
		char name[64];
		size_t len = strcspn(list, ":");
		snprintf(name, sizeof(name), "%.*s", (int)len, list);
		if (len > 0 && !et_find_collection(name)) {
			snprintf(message, size,
				 "Enterprise Tester has no collection '%s' with attachments; "
				 "there are requirements, scripts, incidents, sets, stepresults, "
				 "agilerunsteps, automatedtestruns, automatedtestrunnodes",
				 name);
			return -EINVAL;
		}
		list += len + (list[len] == ':');
	}
	return 0;
}

static int parse_base(struct et *p, const char *text, char *message, size_t size)
{
	int r = base_parse(text, "https://et.example.org/EnterpriseTester/api", &p->server, message,
			   size);
	char *url;

	if (r < 0)
		return r;
	url = et_add_api(p->server.url);
	if (!url)
		return -ENOMEM;
	free(p->server.url);
	p->server.url = url;
	return 0;
}

static int check_user(const char *user, char *message, size_t size)
{
	if (!user || *user == '\0') {
		snprintf(message, size,
			 "Enterprise Tester wants a user and a password: give user=NAME, and "
			 "password_file=FILE or token_command=COMMAND, or set ATTACHFS_PASSWORD");
		return -EACCES;
	}
	if (strchr(user, ':')) {
		snprintf(message, size, "user=: no ':' can be in the name of a user (HTTP Basic)");
		return -EINVAL;
	}
	return 0;
}

static int init(struct et *p, const struct options *options, char *message, size_t size)
{
	struct auth_config auth;
	int r = parse_base(p, options->base_url, message, size);

	p->multipart = options->multipart;
	p->collections = options->collections ? options->collections : COLLECTIONS_DEFAULT;
	if (r == 0)
		r = check_collections(p->collections, message, size);
	if (r == 0)
		r = check_user(options->user, message, size);
	if (r < 0)
		return r;
	p->user = strdup(options->user);
	p->base.gate = call_gate_new();
	p->base.fetches = fetches_new();
	if (!p->user || !p->base.gate || !p->base.fetches)
		return -ENOMEM;
	auth_config_init(&auth, options, NULL);
	return auth_new(&auth, &p->base.auth, message, size);
}

int enterprise_tester_new(const struct options *options, struct engine *engine, struct pool *pool,
			  struct remote **ret_remote, char *message, size_t size)
{
	struct et *p = calloc(1, sizeof(*p));

	snprintf(message, size, "out of memory");
	if (!p)
		return -ENOMEM;
	p->base = (struct remote){.ops = &et_ops, .caps = et_caps, .engine = engine, .pool = pool};
	for (size_t i = 0; i < ET_COLLECTIONS; i++)
		pthread_mutex_init(&p->watch[i].lock, NULL);
	int r = init(p, options, message, size);
	if (r < 0) {
		remote_free(&p->base);
		return r;
	}
	*ret_remote = &p->base;
	return 0;
}
