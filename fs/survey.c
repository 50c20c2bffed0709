/* SPDX-License-Identifier: MIT */

/*
 * The files are listed by id under one hold of tree->lock, then each is looked up again: between two
 * of them anything may happen to the tree.
 */

#include "survey.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <attachfs/names.h>

#include "mount.h"
#include "ops.h"

#define STEP_BYTES (4u << 20) /* others wait for the thread */

/* ---- walking ---- */

struct files {
	uint64_t *ids;
	size_t count, room;
};

static int add_id(struct files *files, uint64_t id)
{
	if (files->count == files->room) {
		size_t room = files->room ? files->room * 2 : 256;
		uint64_t *ids = realloc(files->ids, room * sizeof(*ids));

		if (!ids)
			return -ENOMEM;
		files->ids = ids;
		files->room = room;
	}
	files->ids[files->count++] = id;
	return 0;
}

static int list_below(const struct node *at, struct files *files)
{
	int r = 0;

	if (at->kind == NODE_FILE)
		return add_id(files, at->id);
	for (const struct node *n = node_dir(at)->child_first; n && r == 0; n = n->sibling_next)
		r = list_below(n, files);
	return r;
}

static int list_files(struct mount *m, uint64_t node, struct files *files)
{
	const struct node *at;
	int r;

	tree_lock(m->tree);
	at = node ? tree_find_locked(m->tree, node) : m->tree->root;
	r = at ? list_below(at, files) : -ENOENT;
	tree_unlock(m->tree);
	return r;
}

/* ---- use ---- */

struct use {
	uint64_t files, cached, bytes, dirty, pinned;
};

static void add_file(struct mount *m, uint64_t id, struct use *u)
{
	bool dirty = false, pinned = false;
	struct content *c = NULL;
	const struct node *n;
	uint64_t bytes;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, id);
	if (n) {
		c = node_content(m->tree, n);
		dirty = n->dirty;
		pinned = pin_is_set(n);
	}
	tree_unlock(m->tree);
	if (!n)
		return;
	bytes = c ? content_kept_bytes(c) : 0;
	u->files++;
	u->cached += bytes > 0 || (c && content_is_complete(c));
	u->bytes += bytes;
	u->dirty += dirty ? bytes : 0;
	u->pinned += pinned ? bytes : 0;
	content_unref(c);
}

/* What is at or below @top, also added to @all. */
static int add_below(struct mount *m, uint64_t top, struct use *u, struct use *all)
{
	struct files files = {0};
	int r = list_files(m, top, &files);

	for (size_t i = 0; r == 0 && i < files.count; i++)
		add_file(m, files.ids[i], u);
	free(files.ids);
	all->files += u->files;
	all->cached += u->cached;
	all->bytes += u->bytes;
	all->dirty += u->dirty;
	all->pinned += u->pinned;
	return r;
}

static void print_use(FILE *f, const char *name, const struct use *u)
{
	json_t *o = json_pack("{s:s%, s:I, s:I, s:I, s:I, s:I}", "collection", name, strlen(name),
			      "files", (json_int_t)u->files, "cached", (json_int_t)u->cached,
			      "bytes", (json_int_t)u->bytes, "dirty", (json_int_t)u->dirty,
			      "pinned", (json_int_t)u->pinned);

	if (o) {
		json_dumpf(o, f, JSON_COMPACT);
		fputc('\n', f);
	}
	json_decref(o);
}

static int list_collections(struct mount *m, struct files *tops)
{
	int r = 0;

	tree_lock(m->tree);
	for (const struct node *n = node_dir(m->tree->root)->child_first; n && r == 0;
	     n = n->sibling_next)
		r = add_id(tops, n->id);
	tree_unlock(m->tree);
	return r;
}

static bool name_of(struct mount *m, uint64_t id, char name[static NAMES_MAX + 1])
{
	const struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, id);
	if (n)
		snprintf(name, NAMES_MAX + 1, "%s", n->shown);
	tree_unlock(m->tree);
	return n;
}

char *survey_usage(struct mount *m)
{
	char *out = NULL, name[NAMES_MAX + 1];
	struct files tops = {0};
	struct use all = {0};
	size_t size;
	FILE *f = open_memstream(&out, &size);
	int r = f ? list_collections(m, &tops) : -ENOMEM;

	for (size_t i = 0; r == 0 && i < tops.count; i++) {
		struct use u = {0};

		if (!name_of(m, tops.ids[i], name))
			continue;
		r = add_below(m, tops.ids[i], &u, &all);
		if (r == 0)
			print_use(f, name, &u);
		else if (r == -ENOENT)
			r = 0; /* gone meanwhile */
	}
	free(tops.ids);
	if (f) {
		print_use(f, "all", &all);
		fclose(f);
	}
	if (r < 0) {
		free(out);
		return NULL;
	}
	return out;
}

/* ---- records ---- */

/* The records of a collection that may be shown. */
static int list_records(struct mount *m, uint64_t collection, struct files *records)
{
	const struct node *at;
	int r = 0;

	tree_lock(m->tree);
	at = tree_find_locked(m->tree, collection);
	for (const struct node *n = at ? node_dir(at)->child_first : NULL; n && r == 0;
	     n = n->sibling_next)
		if (n->kind == NODE_RECORD)
			r = add_id(records, n->id);
	tree_unlock(m->tree);
	return r;
}

/* NULL: it is gone. */
static json_t *describe_record(struct mount *m, uint64_t id)
{
	json_int_t files = 0, bytes = 0, unsized = 0;
	char path[NODE_PATH_MAX];
	struct node *record;
	json_t *o = NULL;

	tree_lock(m->tree);
	record = tree_find_locked(m->tree, id);
	for (const struct node *n = record ? node_dir(record)->child_first : NULL; n;
	     n = n->sibling_next) {
		int64_t size = node_size_locked(n);

		files++;
		bytes += size > 0 ? size : 0;
		unsized += size < 0;
	}
	if (record) {
		node_path(m->tree, tree_seen(m->tree, record), path);
		o = json_pack("{s:s%, s:s?}", "path", path, strlen(path), "id", node_rid(record));
	}
	if (o && record->listed) {
		json_object_set_new(o, "attachments", json_integer(files));
		json_object_set_new(o, "bytes", json_integer(bytes));
		json_object_set_new(o, "unsized", json_integer(unsized));
	}
	tree_unlock(m->tree);
	return o;
}

static void print_record(struct mount *m, uint64_t id, FILE *f)
{
	json_t *o = describe_record(m, id);

	if (o) {
		json_dumpf(o, f, JSON_COMPACT);
		fputc('\n', f);
	}
	json_decref(o);
}

char *survey_records(struct mount *m)
{
	struct files tops = {0}, records = {0};
	char *out = NULL;
	size_t size;
	FILE *f = open_memstream(&out, &size);
	int r = f ? list_collections(m, &tops) : -ENOMEM;

	for (size_t i = 0; r == 0 && i < tops.count; i++)
		r = list_records(m, tops.ids[i], &records);
	for (size_t i = 0; r == 0 && i < records.count; i++)
		print_record(m, records.ids[i], f);
	free(tops.ids);
	free(records.ids);
	if (f)
		fclose(f);
	if (r == 0)
		return out;
	free(out);
	return NULL;
}

/* ---- deeds ---- */

/* What is in the store for that file, referenced, and what the log is to call it. */
static struct content *content_of(struct mount *m, uint64_t id, char name[static NAMES_MAX + 1])
{
	struct content *c = NULL;
	const struct node *n;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, id);
	if (n && n->kind == NODE_FILE) {
		snprintf(name, NAMES_MAX + 1, "%s", n->shown);
		c = node_content(m->tree, n);
	}
	tree_unlock(m->tree);
	return c;
}

static void verify_one(struct mount *m, uint64_t id, struct survey_counts *counts)
{
	char name[NAMES_MAX + 1];
	struct content *c = content_of(m, id, name);
	uint64_t bytes;

	if (!c)
		return;
	bytes = content_kept_bytes(c);
	if (content_recheck(c, name) != 0)
		counts->bad++;
	if (bytes) {
		counts->files++;
		counts->bytes += bytes;
	}
	content_unref(c);
}

static void drop_one(struct mount *m, uint64_t id, struct survey_counts *counts)
{
	char name[NAMES_MAX + 1];
	struct content *c = content_of(m, id, name);
	uint64_t bytes = c ? content_kept_bytes(c) : 0;

	if (bytes && content_forget(c)) {
		counts->files++;
		counts->bytes += bytes;
	} else if (bytes) {
		counts->kept++;
	}
	content_unref(c);
}

struct survey {
	struct mount *m;
	enum survey_deed deed;
	struct files files;
	size_t next;
	struct survey_counts counts;
};

int survey_new(struct mount *m, enum survey_deed deed, uint64_t node, struct survey **ret_survey)
{
	struct survey *s = calloc(1, sizeof(*s));
	int r = s ? list_files(m, node, &s->files) : -ENOMEM;

	if (r < 0) {
		survey_free(s);
		return r;
	}
	s->m = m;
	s->deed = deed;
	*ret_survey = s;
	return 0;
}

bool survey_step(struct survey *s, struct survey_counts *ret_counts)
{
	uint64_t before = s->counts.bytes;

	while (s->next < s->files.count && s->counts.bytes - before < STEP_BYTES) {
		uint64_t id = s->files.ids[s->next++];

		if (s->deed == SURVEY_VERIFY)
			verify_one(s->m, id, &s->counts);
		else
			drop_one(s->m, id, &s->counts);
	}
	*ret_counts = s->counts;
	return s->next < s->files.count;
}

void survey_free(struct survey *s)
{
	if (!s)
		return;
	free(s->files.ids);
	free(s);
}
