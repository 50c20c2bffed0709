/* SPDX-License-Identifier: MIT */
/* DELETE .../attachments?names=..&version=..: section 8. By name, split at commas (S-13). */
#include "servicemax.h"

#include "alloc.h"
#include "form.h"

#include <stdlib.h>
#include <string.h>

struct names {
	struct str *at;
	size_t n;
};

static void add_name(struct names *names, struct str name)
{
	names->at = xrealloc(names->at, (names->n + 1) * sizeof(*names->at));
	names->at[names->n++] = name;
}

static void free_names(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		str_free(&names->at[i]);
	free(names->at);
}

/* The value of a parameter as it was sent, not decoded. */
static const char *raw_parameter(const char *query, const char *name, size_t *ret_len)
{
	size_t name_len = strlen(name);

	while (*query) {
		size_t len = strcspn(query, "&");

		if (len > name_len && query[name_len] == '=' &&
		    strncmp(query, name, name_len) == 0) {
			*ret_len = len - name_len - 1;
			return query + name_len + 1;
		}
		query += len + (query[len] == '&');
	}
	return NULL;
}

/* Either all is decoded, then split, or split, then decoded: only the latter lets `%2C` be a comma. */
static void read_names(struct sm_call *c, struct names *ret)
{
	bool escaped = sm_set(c, SM_COMMA_ESCAPE) != 0;
	size_t left = 0;
	const char *raw = raw_parameter(c->rq->query, "names", &left);
	struct str all = raw && !escaped ? form_decode(raw, left, true) : (struct str){0};
	const char *s = escaped ? raw : all.ptr;

	if (!escaped)
		left = all.len;
	while (s && left) {
		const char *comma = memchr(s, ',', left);
		size_t len = comma ? (size_t)(comma - s) : left;

		if (len)
			add_name(ret, escaped ? form_decode(s, len, true) : str_dup(s, len));
		s += len + (comma != NULL);
		left -= len + (comma != NULL);
	}
	str_free(&all);
}

static void remove_one(struct sm_call *c, struct attachment *a, bool latest)
{
	int64_t id = a->row.id;

	if (latest && sm_version_drop(c->sm, a))
		return;
	store_drop_blob(c->sm->emu->store, a->path);
	store_delete_attachment(c->sm->emu->store, a);
	sm_version_forget(c->sm, id);
}

static struct attachment *find(struct sm_call *c, const struct str *name)
{
	return sm_attachment_named(c->sm->emu, c->record, name->ptr, name->len);
}

/* A missing name is 404; what became of the others is not said, so both may be. */
static bool remove_all(struct sm_call *c, const struct names *names, bool latest)
{
	bool partial = sm_set(c, SM_DELETE_PARTIAL) != 0;
	bool complete = true;

	for (size_t i = 0; i < names->n; i++)
		complete = find(c, &names->at[i]) && complete;
	for (size_t i = 0; (complete || partial) && i < names->n; i++) {
		struct attachment *a = find(c, &names->at[i]);

		if (a)
			remove_one(c, a, latest);
	}
	return complete;
}

static void reply(struct sm_call *c)
{
	static const int statuses[] = {200, 204, 202};
	int status = statuses[sm_set(c, SM_DELETE_STATUS)];

	c->rs->status = status;
	if (status == 204 || sm_set(c, SM_DELETE_REPLY) == 0)
		return;
	sm_put_attachments(c, &c->rs->body, c->record);
	sm_reply_json(c, status);
}

/* Both parameters are mandatory; `version` has no default (S-14). */
void sm_delete(struct sm_call *c)
{
	struct str version = request_query(c->rq, "version");
	struct names names = {0};
	bool latest = version.ptr && strcmp(version.ptr, "latest") == 0;
	bool all = version.ptr && strcmp(version.ptr, "all") == 0;

	read_names(c, &names);
	if (!names.n) {
		sm_error(c, 400, "The names parameter is not specified or is invalid");
	} else if (!latest && !all) {
		sm_error(c, 400, "The version parameter is not specified or is invalid");
	} else if (remove_all(c, &names, latest)) {
		sm_touch(c);
		reply(c);
	} else {
		sm_error(c, 404, "Any of the attachments was not found");
	}
	free_names(&names);
	str_free(&version);
}
