/* SPDX-License-Identifier: MIT */
/*
 * DMS folders: one tree for the whole client. As a nested set, a folder's parent is the smallest
 * interval around its own (section 2).
 */
#include "rillsoft.h"

#include <stdlib.h>
#include <string.h>

struct folder {
	int64_t id;
	int64_t parent; /* 0: none */
	const char *name;
	const char *path;
	int64_t left, right;
};

static const struct folder folders[] = {
	{RIS_MAIN_FOLDER, 0, "Documents", "/", 1, 8},
	{3, RIS_MAIN_FOLDER, "Contracts", "/Contracts", 2, 3},
	{4, RIS_MAIN_FOLDER, "Drawings", "/Drawings", 4, 7},
	{5, 4, "Details", "/Drawings/Details", 5, 6},
};

#define N_FOLDERS (sizeof(folders) / sizeof(folders[0]))

/* a folder an administrator has deleted, with what is in it; the main folder stays. */
static bool gone(const struct ris_call *c, const struct folder *f)
{
	int64_t id = ris_setting(c, RIS_SET_GONE_FOLDER);

	return id && f->parent && (f->id == id || f->parent == id);
}

static const struct folder *find(int64_t id)
{
	for (size_t i = 0; i < N_FOLDERS; i++)
		if (folders[i].id == id)
			return &folders[i];
	return NULL;
}

bool ris_folder_exists(const struct ris_call *c, int64_t id)
{
	const struct folder *f = find(id);

	return f && !gone(c, f);
}

int64_t ris_folder_seen(const struct ris_call *c, int64_t id)
{
	return ris_folder_exists(c, id) ? id : RIS_MAIN_FOLDER;
}

void ris_put_folder_path(struct buffer *out, const char *key, int64_t id)
{
	const struct folder *f = find(id);

	ris_put_text(out, key, f ? f->path : NULL);
}

static void put_nested(struct buffer *out, const struct folder *f)
{
	ris_put_number(out, "id", f->id);
	ris_put_text(out, "name", f->name);
	ris_put_text(out, "description", NULL);
	ris_put_number(out, "left", f->left);
	ris_put_number(out, "right", f->right);
}

static void put_child(struct buffer *out, const struct folder *f)
{
	ris_put_number(out, "folderId", f->id);
	if (f->parent)
		ris_put_number(out, "parentFolderId", f->parent);
	else
		ris_put_text(out, "parentFolderId", NULL);
	ris_put_text(out, "name", f->name);
}

void ris_folders(struct ris_call *c)
{
	struct buffer *out = &c->rs->body;

	if (c->project_id != RIS_ANY_PROJECT && !ris_project(c, c->project_id)) {
		ris_refuse(c, 404);
		return;
	}
	ris_begin(c, 200);
	buffer_putc(out, '[');
	for (size_t i = 0; i < N_FOLDERS; i++) {
		if (gone(c, &folders[i]))
			continue;
		buffer_json_comma(out);
		buffer_putc(out, '{');
		if (ris_setting(c, RIS_SET_FOLDER_SHAPE))
			put_child(out, &folders[i]);
		else
			put_nested(out, &folders[i]);
		buffer_putc(out, '}');
	}
	buffer_putc(out, ']');
	ris_end(c);
}
