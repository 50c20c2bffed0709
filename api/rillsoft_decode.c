/* SPDX-License-Identifier: MIT */

/*
 * From the server's JSON to documents, projects and folders. The vendor shows no answer of v2: which
 * spelling a field has and what wraps a list is guessed in one place, here. What cannot be understood
 * fails the whole answer: a row left out would be a file deleted.
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

/* The only array of an object's members, or of the object at "details". */
static const json_t *only_array(const json_t *object)
{
	const json_t *found = NULL, *value;
	const char *key;

	json_object_foreach((json_t *)object, key, value)
	{
		if (!json_is_array(value))
			continue;
		if (found)
			return NULL;
		found = value;
	}
	return found;
}

const json_t *rillsoft_rows(const json_t *root, json_t **ret_owned)
{
	const json_t *details = json_is_array(root) ? root : json_object_get(root, "details");

	*ret_owned = NULL;
	if (json_is_array(details))
		return details;
	if (json_is_string(details)) {
		/* JSON within JSON */
		*ret_owned = json_parse(json_string_value(details), json_string_length(details),
					NULL, 0);
		return json_is_array(*ret_owned) ? *ret_owned : NULL;
	}
	if (!json_is_object(details))
		return NULL;
	if (json_object_get(details, "id") || json_object_get(details, "documentId")) {
		*ret_owned = json_pack("[O]", details);
		return *ret_owned;
	}
	return only_array(details);
}

static bool get_id(const json_t *row, const char *key, const char *other,
		   char out[RILLSOFT_ID_SIZE])
{
	char id[REMOTE_ID_MAX + 1];

	if (!json_get_id(row, key, id) && !(other && json_get_id(row, other, id)))
		return false;
	snprintf(out, RILLSOFT_ID_SIZE, "%.19s", id);
	return true;
}

static int64_t get_size(const json_t *row)
{
	const char *const keys[] = {"fileSize", "size"};
	char digits[REMOTE_ID_MAX + 1];

	for (size_t i = 0; i < 2; i++) {
		int64_t size = json_get_integer(row, keys[i], -1);
		if (size >= 0)
			return size;
		const char *text = json_get_text(row, keys[i]);
		if (text && strcmp(text, "0") == 0)
			return 0;
		if (json_get_id(row, keys[i], digits))
			return strtoll(digits, NULL, 10);
	}
	return -1;
}

bool rillsoft_parse_time(const char *text, int64_t *ret_ns)
{
	char iso[64];
	int day, month, year, hour, minute, end = -1;

	if (time_parse_iso8601(text, ret_ns) == 0)
		return true;
	if (strlen(text) == strlen("2026-03-01T08:15")) {
		snprintf(iso, sizeof(iso), "%s:00", text);
		if (time_parse_iso8601(iso, ret_ns) == 0)
			return true;
	}
	if (sscanf(text, "%2d.%2d.%4d %2d:%2d%n", &day, &month, &year, &hour, &minute, &end) != 5 ||
	    text[end] != '\0')
		return false;
	if (day < 0 || month < 0 || year < 0 || hour < 0 || minute < 0)
		return false;
	snprintf(iso, sizeof(iso), "%04d-%02d-%02dT%02d:%02d:00", year, month, day, hour, minute);
	return time_parse_iso8601(iso, ret_ns) == 0;
}

static void doc_clear(struct rillsoft_doc *doc)
{
	free(doc->element);
	free(doc->name);
	free(doc->description);
	free(doc->created);
}

/* The one function that knows how a row is spelt. 0, -EIO, -ENOMEM; clear it in any case. */
static int decode_doc(const json_t *row, const char *asked, struct rillsoft_doc *doc)
{
	*doc = (struct rillsoft_doc){.size = get_size(row), .created_ns = REMOTE_TIME_NONE};
	if (!get_id(row, "id", "documentId", doc->id))
		return -EIO;
	if (!get_id(row, "projectId", NULL, doc->project))
		snprintf(doc->project, sizeof(doc->project), "%s", asked);
	get_id(row, "folderId", NULL, doc->folder);
	const char *uuid = json_get_uuid(row, "parentUuid");
	if (!uuid)
		uuid = json_get_uuid(row, "uuid");
	snprintf(doc->parent, sizeof(doc->parent), "%s", uuid ? uuid : RILLSOFT_NO_ELEMENT);
	doc->element = json_dup_name(json_object_get(row, "elementName"));
	doc->name = json_dup_name(json_object_get(row, "name"));
	doc->description = json_dup_name(json_object_get(row, "description"));
	doc->created = json_dup_name(json_object_get(row, "createdAt"));
	if (!doc->element || !doc->name || !doc->description || !doc->created)
		return -ENOMEM;
	int64_t ns;
	if (rillsoft_parse_time(doc->created, &ns))
		doc->created_ns = ns;
	return 0;
}

static int compare_ids(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);

	return la != lb ? (la < lb ? -1 : 1) : strcmp(a, b);
}

static int compare_docs(const void *a, const void *b)
{
	return compare_ids(((const struct rillsoft_doc *)a)->id,
			   ((const struct rillsoft_doc *)b)->id);
}

static void sort_listing(struct rillsoft_listing *l)
{
	size_t kept = 0;

	if (l->n > 1)
		qsort(l->docs, l->n, sizeof(*l->docs), compare_docs);
	for (size_t i = 0; i < l->n; i++) {
		if (kept > 0 && strcmp(l->docs[kept - 1].id, l->docs[i].id) == 0)
			doc_clear(&l->docs[i]);
		else
			l->docs[kept++] = l->docs[i];
	}
	l->n = kept;
}

static int decode_rows(const json_t *rows, const char *asked, struct rillsoft_listing *l)
{
	size_t n = json_array_size(rows);

	l->docs = calloc(n + 1, sizeof(*l->docs));
	if (!l->docs)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct rillsoft_doc *doc = &l->docs[l->n++];
		int r = decode_doc(json_array_get(rows, i), asked, doc);
		if (r < 0)
			return r;
		l->foreign |= strcmp(doc->project, asked) != 0;
	}
	sort_listing(l);
	return 0;
}

int rillsoft_decode_listing(const json_t *root, const char *asked, struct rillsoft_listing **ret)
{
	json_t *owned;
	const json_t *rows = rillsoft_rows(root, &owned);
	struct rillsoft_listing *l = rows ? calloc(1, sizeof(*l)) : NULL;
	int r = rows ? -ENOMEM : -EIO;

	if (l) {
		atomic_init(&l->refs, 1);
		snprintf(l->asked, sizeof(l->asked), "%s", asked);
		r = decode_rows(rows, asked, l);
	}
	json_decref(owned);
	if (r < 0)
		rillsoft_listing_unref(l);
	else
		*ret = l;
	return r;
}

struct rillsoft_listing *rillsoft_listing_ref(struct rillsoft_listing *l)
{
	if (l)
		atomic_fetch_add(&l->refs, 1);
	return l;
}

void rillsoft_listing_unref(struct rillsoft_listing *l)
{
	if (!l || atomic_fetch_sub(&l->refs, 1) != 1)
		return;
	for (size_t i = 0; i < l->n; i++)
		doc_clear(&l->docs[i]);
	free(l->docs);
	free(l->given);
	free(l);
}

const struct rillsoft_doc *rillsoft_find_doc(const struct rillsoft_listing *l, const char *id)
{
	struct rillsoft_doc key;

	if (!l || strlen(id) >= sizeof(key.id))
		return NULL;
	snprintf(key.id, sizeof(key.id), "%s", id);
	return bsearch(&key, l->docs, l->n, sizeof(*l->docs), compare_docs);
}

const struct rillsoft_doc *rillsoft_find_of(const struct rillsoft_listing *l, const char *project,
					    const char *parent)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->docs[i].project, project) == 0 &&
		    (!parent || strcmp(l->docs[i].parent, parent) == 0))
			return &l->docs[i];
	return NULL;
}

bool rillsoft_covers(const struct rillsoft_listing *l, const char *project)
{
	/*
	 * A selector that was ignored brings everything; but one that is understood otherwise (with
	 * subprojects, say) brings some of it: whose documents are not among them is asked for alone.
	 */
	return l->all || strcmp(l->asked, project) == 0 ||
	       (l->foreign && rillsoft_find_of(l, project, NULL));
}

/* How well a new document fits what was sent; 0 = not at all. */
static unsigned rank_new(const struct rillsoft_doc *doc, const char *name, const char *filename,
			 uint64_t size)
{
	bool named = strcmp(doc->name, name) == 0;
	bool sized = doc->size < 0 || (uint64_t)doc->size == size;

	if (named && sized)
		return 3;
	if (sized && filename && strcmp(doc->name, filename) == 0)
		return 2;
	return named ? 1 : 0;
}

const struct rillsoft_doc *rillsoft_find_new(const struct rillsoft_listing *now,
					     const struct rillsoft_listing *before,
					     const char *project, const char *parent,
					     const char *name, const char *filename, uint64_t size)
{
	const struct rillsoft_doc *found = NULL;
	unsigned best = 0;

	for (size_t i = 0; i < now->n; i++) {
		const struct rillsoft_doc *doc = &now->docs[i];
		if (strcmp(doc->project, project) != 0 || strcasecmp(doc->parent, parent) != 0)
			continue;
		unsigned rank = rank_new(doc, name, filename, size);
		/* Of two the later: ids are not reused. */
		if (rank == 0 || rank < best || rillsoft_find_doc(before, doc->id))
			continue;
		best = rank;
		found = doc;
	}
	return found;
}

/* FNV-1a, the terminator counted in: it says that something differs, not that nothing does. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
	for (;; text++) {
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
		if (*text == '\0')
			return hash;
	}
}

#define HASH_BEGIN 0xcbf29ce484222325

uint64_t rillsoft_hash_listing(const struct rillsoft_listing *l, const char *project)
{
	uint64_t hash = HASH_BEGIN;
	char version[RILLSOFT_VERSION_SIZE];

	for (size_t i = 0; i < l->n; i++) {
		const struct rillsoft_doc *doc = &l->docs[i];
		if (strcmp(doc->project, project) != 0)
			continue;
		rillsoft_version(doc, version);
		hash = hash_text(hash, version);
		hash = hash_text(hash, doc->name);
		hash = hash_text(hash, doc->parent);
		hash = hash_text(hash, doc->element);
	}
	return hash;
}

void rillsoft_version(const struct rillsoft_doc *doc, char out[RILLSOFT_VERSION_SIZE])
{
	snprintf(out, RILLSOFT_VERSION_SIZE, "%s.%lld.%016llx", doc->id, (long long)doc->size,
		 (unsigned long long)hash_text(HASH_BEGIN, doc->created));
}

void rillsoft_collections_free(struct remote_collection *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(list[i].id);
		free(list[i].name);
	}
	free(list);
}

static int decode_project(const json_t *row, struct remote_collection *c)
{
	char id[REMOTE_ID_MAX + 1];

	if (!json_get_id(row, "id", id) && !json_get_id(row, "projectId", id))
		return -EIO;
	c->id = strdup(id);
	c->name = json_dup_name(json_object_get(row, "name"));
	if (c->name && *c->name == '\0') {
		free(c->name);
		c->name = strdup(id);
	}
	return c->id && c->name ? 0 : -ENOMEM;
}

int rillsoft_decode_projects(const json_t *root, struct remote_collection **ret_list, size_t *ret_n)
{
	json_t *owned;
	const json_t *rows = rillsoft_rows(root, &owned);
	size_t n = rows ? json_array_size(rows) : 0;
	struct remote_collection *list = rows ? calloc(n + 1, sizeof(*list)) : NULL;
	int r = !rows ? -EIO : list ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = decode_project(json_array_get(rows, i), &list[i]);
	json_decref(owned);
	if (r < 0 && list)
		rillsoft_collections_free(list, n);
	if (r < 0)
		return r;
	*ret_list = list;
	*ret_n = n;
	return 0;
}

bool rillsoft_decode_main_folder(const json_t *root, char out[RILLSOFT_ID_SIZE])
{
	json_t *owned;
	const json_t *rows = rillsoft_rows(root, &owned), *row;
	int64_t best = INT64_MAX;
	size_t i;
	bool found = false;

	json_array_foreach((json_t *)rows, i, row)
	{
		/* The root of a nested set begins first; that of a tree has no parent. */
		int64_t left = json_get_integer(row, "left", INT64_MAX - 1);
		char id[RILLSOFT_ID_SIZE], parent[RILLSOFT_ID_SIZE];
		bool root_like = !get_id(row, "parentFolderId", "parentId", parent);
		if (left == INT64_MAX - 1 && !root_like)
			continue;
		if (left >= best || !get_id(row, "id", "folderId", id))
			continue;
		best = left;
		memcpy(out, id, sizeof(id));
		found = true;
	}
	json_decref(owned);
	return found;
}

enum remote_outcome rillsoft_judge(const struct call_reply *reply, enum rillsoft_verb verb,
				   int *ret_error)
{
	bool upload = verb == RILLSOFT_CREATES || verb == RILLSOFT_REPLACES;
	/*
	 * What replaces or removes is done once more, without harm. An update may have moved the
	 * document: until it is done, that it is not where it was does not mean that it is gone.
	 */
	bool doubt = verb == RILLSOFT_CREATES || verb == RILLSOFT_UPDATES;
	enum remote_outcome silence = doubt && reply->sent ? REMOTE_UNKNOWN : REMOTE_RETRY;

	*ret_error = reply->error;
	if (reply->status >= 200 && reply->status < 300) {
		*ret_error = 0;
		return REMOTE_DONE;
	}
	switch (reply->status) {
	case 0:
		return silence;
	case 400:
		*ret_error = upload ? -EIO : -EINVAL;
		return REMOTE_REFUSED;
	case 401: /* passes when the user has done something about it */
	case 408:
	case 425:
	case 429:
	case 503:
		return REMOTE_RETRY;
	case 405:
		*ret_error = -ENOSYS;
		return REMOTE_REFUSED;
	default:
		return reply->status >= 500 ? silence : REMOTE_REFUSED;
	}
}

bool rillsoft_is_tame(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < len; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f || strchr("\"\\/%", name[i]))
			return false;
	return len > 0 && len <= 255 && name[0] != ' ' && name[len - 1] != ' ';
}
