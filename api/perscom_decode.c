/* SPDX-License-Identifier: MIT */

/*
 * What the server says -> records, files, outcomes. Pure: fuzzed and tested without a network. A
 * row that cannot be understood fails the whole page, for a row left out of a listing would be a
 * file deleted from the mount.
 */

#include "perscom.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/names.h>

#include "json.h"

#define RECORD_NAME_BYTES 80 /* of a *-record's text */

/*
 * Section 2 of the reference: who can own attachments, and what class the server calls it (P-10).
 */
#define SCOPES(model) "view:" model, "update:" model
static const struct perscom_collection collections[] = {
	{"users", "App\\Models\\User", "User", "name", SCOPES("user")},
	{"events", "App\\Models\\Event", "Event", "name", SCOPES("event")},
	{"tasks", "App\\Models\\Task", "Task", "title", SCOPES("task")},
	{"assignment-records", "App\\Models\\AssignmentRecord", "Assignment", NULL,
	 SCOPES("assignmentrecord")},
	{"award-records", "App\\Models\\AwardRecord", "Award", NULL, SCOPES("awardrecord")},
	{"combat-records", "App\\Models\\CombatRecord", "Combat", NULL, SCOPES("combatrecord")},
	{"qualification-records", "App\\Models\\QualificationRecord", "Qualification", NULL,
	 SCOPES("qualificationrecord")},
	{"rank-records", "App\\Models\\RankRecord", "Rank", NULL, SCOPES("rankrecord")},
	{"service-records", "App\\Models\\ServiceRecord", "Service", NULL, SCOPES("servicerecord")},
	{"training-records", "App\\Models\\TrainingRecord", "Training", NULL,
	 SCOPES("trainingrecord")},
};

const struct perscom_collection *perscom_find_collection(const char *name)
{
	for (size_t i = 0; name && i < sizeof(collections) / sizeof(collections[0]); i++)
		if (strcmp(collections[i].name, name) == 0)
			return &collections[i];
	return NULL;
}

const struct perscom_collection *perscom_find_model(const char *model_type)
{
	for (size_t i = 0; model_type && i < sizeof(collections) / sizeof(collections[0]); i++)
		if (strcmp(collections[i].model_type, model_type) == 0)
			return &collections[i];
	return NULL;
}

const struct perscom_collection *perscom_collection_at(size_t index)
{
	return index < sizeof(collections) / sizeof(collections[0]) ? &collections[index] : NULL;
}

unsigned perscom_collection_bit(const struct perscom_collection *c)
{
	return c ? 1u << (unsigned)(c - collections) : ~0u;
}

/* The length of the tag at @p ("<b>", "</p>", "<br />"), 0 = it is text. */
static size_t tag_length(const char *p)
{
	const char *end = strchr(p, '>');

	if (p[0] != '<' || !end || !(p[1] == '/' || (p[1] >= 'a' && p[1] <= 'z')))
		return 0;
	return (size_t)(end + 1 - p);
}

/* A tag that ends a line: of a paragraph, a heading, an item, or a break. */
static bool tag_breaks(const char *tag)
{
	return strncmp(tag, "<br", 3) == 0 || (tag[1] == '/' && strchr("pdhl", tag[2]) != NULL);
}

/*
 * The first line that says anything, without tags (the server's texts may be HTML), of at most
 * RECORD_NAME_BYTES; "" when there is none. In place.
 */
static void shorten_text(char *text)
{
	char *to = text;
	bool end = false;

	for (const char *p = text; *p != '\0' && !(end && to > text);) {
		size_t tag = tag_length(p);
		end = tag ? tag_breaks(p) : *p == '\n' || *p == '\r';
		if (tag == 0 && !end && ((unsigned char)*p > ' ' || (to > text && *p == ' ')))
			*to++ = *p;
		p += tag ? tag : 1;
	}
	while (to > text && to[-1] == ' ')
		to--;
	*to = '\0';
	if (to - text <= RECORD_NAME_BYTES)
		return;
	for (to = text + RECORD_NAME_BYTES; to > text && ((unsigned char)*to & 0xc0) == 0x80; to--)
		;
	*to = '\0';
}

char *perscom_record_name(const struct perscom_collection *c, const json_t *object, const char *id)
{
	char *name = json_dup_name(json_object_get(object, c->name_field ? c->name_field : "text"));

	if (!name)
		return NULL;
	if (!c->name_field)
		shorten_text(name);
	if (*name != '\0')
		return name;
	free(name);
	return asprintf(&name, "%s %s", c->label, id) < 0 ? NULL : name;
}

/* The content's version is the storage key; a row without one has at least its date. */
static char *dup_version(const json_t *object)
{
	const char *path = json_get_text(object, "path");
	const char *updated = json_get_text(object, "updated_at");
	char *version;

	if (path && *path != '\0' && strlen(path) <= JSON_NAME_MAX)
		return strdup(path);
	return asprintf(&version, "@%.64s", updated ? updated : "") < 0 ? NULL : version;
}

/* A string of the row that may be null. */
static bool dup_nullable(const json_t *object, const char *key, char **ret)
{
	const json_t *value = json_object_get(object, key);

	*ret = json_is_string(value) ? json_dup_name(value) : NULL;
	return *ret || !json_is_string(value);
}

int perscom_decode_file(const struct perscom_base *base, const json_t *object, int names,
			struct remote_file *f)
{
	char id[REMOTE_ID_MAX + 1], record[REMOTE_ID_MAX + 1] = "";

	*f = (struct remote_file){.size = -1};
	if (!json_is_object(object) || !json_get_id(object, "id", id))
		return -EIO;
	bool owned = json_get_id(object, "model_id", record);
	const char *link = json_get_text(object, "attachment_url");
	f->mtime_ns = json_get_time(object, "updated_at");
	f->ctime_ns = json_get_time(object, "created_at");
	f->id = strdup(id);
	f->record = owned ? strdup(record) : NULL;
	bool ok = f->id && (f->record || !owned);
	ok = ok && dup_nullable(object, "name", &f->raw_name);
	ok = ok && dup_nullable(object, "filename", &f->raw_filename);
	ok = ok && (f->version = dup_version(object));
	ok = ok && perscom_url_resolve(base, link, &f->url) == 0;
	if (ok && !f->raw_name)
		ok = (f->raw_name = strdup(f->raw_filename ? f->raw_filename : ""));
	if (ok)
		ok = (f->name = names_label(f->raw_name, f->raw_filename,
					    names == PERSCOM_NAMES_FILENAME));
	if (!ok)
		remote_file_clear(f);
	return ok ? 0 : -ENOMEM;
}

void perscom_page_clear(struct perscom_page *page)
{
	for (size_t i = 0; i < page->n_records; i++)
		remote_record_clear(&page->records[i]);
	for (size_t i = 0; i < page->n_files; i++)
		remote_file_clear(&page->files[i]);
	free(page->records);
	free(page->files);
	*page = (struct perscom_page){0};
}

/* Room for one more element; the new one is zeroed. */
static void *grow(void *array, size_t n, size_t *room, size_t element)
{
	if (n < *room)
		return array;
	size_t size = *room ? 2 * *room : 64;
	void *grown = reallocarray(array, size, element);
	if (grown)
		*room = size;
	return grown;
}

static int add_file(const struct perscom_base *base, const json_t *row, int names,
		    struct perscom_page *page)
{
	const json_t *deleted = json_object_get(row, "deleted_at");

	/* Before v2.4 rows of deleted attachments stay (their bytes do not). */
	if (deleted && !json_is_null(deleted))
		return 0;
	void *files = grow(page->files, page->n_files, &page->files_size, sizeof(*page->files));
	if (!files)
		return -ENOMEM;
	page->files = files;
	int r = perscom_decode_file(base, row, names, &page->files[page->n_files]);
	if (r == 0)
		page->n_files++;
	return r;
}

static int add_record(const struct perscom_base *base, const json_t *row,
		      const struct perscom_collection *c, int names, const char *id,
		      struct perscom_page *page)
{
	void *records =
		grow(page->records, page->n_records, &page->records_size, sizeof(*page->records));
	const json_t *inlined = json_get_array(row, "attachments");

	if (!records)
		return -ENOMEM;
	page->records = records;
	/* A record without them is not one without files: that would delete its files here. */
	if (!inlined)
		return -EIO;
	struct remote_record *record = &page->records[page->n_records++];
	*record = (struct remote_record){
		.id = strdup(id),
		.name = perscom_record_name(c, row, id),
		.mtime_ns = json_get_time(row, "updated_at"),
		.ctime_ns = json_get_time(row, "created_at"),
	};
	if (!record->id || !record->name)
		return -ENOMEM;
	for (size_t i = 0; i < json_array_size(inlined); i++) {
		size_t before = page->n_files;
		int r = add_file(base, json_array_get(inlined, i), names, page);
		if (r < 0)
			return r;
		if (page->n_files == before)
			continue;
		/* It is this record's, whatever the row says. */
		free(page->files[before].record);
		page->files[before].record = strdup(id);
		if (!page->files[before].record)
			return -ENOMEM;
	}
	return 0;
}

/* As numbers: ids have no leading zeros to speak of and at most 18 digits. */
static int compare_ids(const char *a, const char *b)
{
	long long x = atoll(a), y = atoll(b);

	return (x > y) - (x < y);
}

static int add_row(const struct perscom_base *base, const json_t *row,
		   const struct perscom_collection *c, int names, struct perscom_page *page)
{
	char id[REMOTE_ID_MAX + 1];

	if (!json_is_object(row) || !json_get_id(row, "id", id))
		return -EIO;
	if (page->last_id[0] != '\0' && compare_ids(id, page->last_id) <= 0)
		page->ascending = false;
	else
		memcpy(page->last_id, id, sizeof(id));
	page->rows++;
	return c ? add_record(base, row, c, names, id, page) : add_file(base, row, names, page);
}

int perscom_decode_page(const struct perscom_base *base, const json_t *root,
			const struct perscom_collection *c, int names, struct perscom_page *page)
{
	const json_t *data = json_get_array(root, "data");
	int r = data ? 0 : -EIO;

	*page = (struct perscom_page){.ascending = true};
	page->total = json_get_integer(json_get_object(root, "meta"), "total", -1);
	for (size_t i = 0; r == 0 && i < json_array_size(data); i++)
		r = add_row(base, json_array_get(data, i), c, names, page);
	return r;
}

int perscom_page_more(const struct perscom_page *page, const char *after, const char **ret_message)
{
	*ret_message = "";
	if (page->total >= 0 && (uint64_t)page->total <= page->rows)
		return 0;
	if (page->total < 0)
		*ret_message = "the answer is not what PERSCOM sends: it does not tell its total";
	else if (page->rows == 0)
		*ret_message = "the answer is not what PERSCOM sends: rows are counted but not "
			       "there";
	else if (!page->ascending || (*after != '\0' && compare_ids(page->last_id, after) <= 0))
		*ret_message = "the answer is not what PERSCOM sends: its pages are not in order";
	else
		return 1;
	return -EIO;
}

/*
 * A 422 by the field it is about: "name" or "resources.78.name". Too long and too large are told
 * apart from the rest.
 */
static int field_errno(const char *field, const json_t *texts)
{
	const char *dot = strrchr(field, '.');
	const char *text = json_string_value(json_array_get(texts, 0));

	if (dot)
		field = dot + 1;
	/* Only to choose between two errnos; a server of another language gets the broader one. */
	bool greater = text && strstr(text, "greater than");
	if (strcmp(field, "file") == 0)
		return !text || greater ? -EFBIG : -EINVAL;
	if (strcmp(field, "name") == 0 || strcmp(field, "filename") == 0)
		return greater ? -ENAMETOOLONG : -EINVAL;
	return -EINVAL;
}

static const json_t *find_errors(const json_t *root)
{
	return json_get_object(json_get_object(root, "error"), "errors");
}

static int errno_422(const json_t *root)
{
	const char *key;
	json_t *texts;

	json_object_foreach((json_t *)find_errors(root), key, texts) return field_errno(key, texts);
	return -EINVAL;
}

bool perscom_blames(const json_t *root, const char *id, int *ret_error, const char **ret_words)
{
	char prefix[REMOTE_ID_MAX + 16];
	const char *key;
	json_t *texts;

	size_t len = (size_t)snprintf(prefix, sizeof(prefix), "resources.%s.", id);
	json_object_foreach((json_t *)find_errors(root), key, texts)
	{
		if (strncmp(key, prefix, len) != 0)
			continue;
		const char *words = json_string_value(json_array_get(texts, 0));
		*ret_error = field_errno(key, texts);
		*ret_words = words ? words : "";
		return true;
	}
	return false;
}

/* No answer, or one that does not say what happened. */
static enum remote_outcome judge_silence(const struct call_reply *reply, enum perscom_verb verb)
{
	/* All but create can be done twice without harm; the caller does so. */
	return verb == PERSCOM_CREATE && reply->sent ? REMOTE_UNKNOWN : REMOTE_RETRY;
}

enum remote_outcome perscom_judge(const struct call_reply *reply, enum perscom_verb verb,
				  size_t n_items, int *ret_error)
{
	*ret_error = reply->error;
	if (reply->error == 0)
		return REMOTE_DONE;
	if (reply->status >= 200 && reply->status < 300) {
		/* It said yes, in words we do not understand or did not hear to the end: look. */
		return verb == PERSCOM_CREATE ? REMOTE_UNKNOWN : REMOTE_RETRY;
	}
	switch (reply->status) {
	case 0:
		return judge_silence(reply, verb);
	case 404:
		if (verb == PERSCOM_CREATE || n_items > 1)
			return REMOTE_REFUSED;
		if (verb == PERSCOM_REMOVE)
			*ret_error = 0;
		return REMOTE_GONE;
	case 401:
	case 402:
		/*
		 * Passes when the user has done something about it: nothing is wrong with this
		 * item.
		 */
		return REMOTE_RETRY;
	case 408:
	case 425:
	case 429:
	case 503:
		return REMOTE_RETRY;
	case 413:
		*ret_error = -EFBIG;
		return REMOTE_REFUSED;
	case 422:
		*ret_error = errno_422(reply->json);
		return REMOTE_REFUSED;
	case 500:
		/*
		 * One entry of a batch can do this (P-11); alone it may be a failure that passes.
		 * Not -EIO, which says that the server failed and no entry is to blame.
		 */
		if (n_items > 1) {
			*ret_error = -EINVAL;
			return REMOTE_REFUSED;
		}
		return judge_silence(reply, verb);
	default:
		return reply->status >= 500 ? judge_silence(reply, verb) : REMOTE_REFUSED;
	}
}
