/* SPDX-License-Identifier: MIT */

/*
 * What the server says -> records and files. Pure: fuzzed and tested without a network. A row that
 * cannot be understood fails the whole page, for a row left out of a listing would be a file deleted
 * from the mount. One without an id of its own (E-7) is left out and counted: nothing could be done
 * with it.
 */

#include "enterprise_tester.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/names.h>

#include "json.h"

bool et_get_guid(const json_t *object, const char *key, char out[ET_GUID_SIZE])
{
	const char *id = json_get_uuid(object, key);

	out[0] = '\0';
	if (!id)
		return false;
	for (size_t i = 0; i < ET_GUID_SIZE; i++)
		out[i] = (char)tolower((unsigned char)id[i]);
	return true;
}

bool et_is_nil(const json_t *object)
{
	const char *id = json_get_text(object, "Id");

	return id && strcmp(id, "00000000-0000-0000-0000-000000000000") == 0;
}

static bool has_extension(const char *name)
{
	return name[names_extension(name)] != '\0';
}

const char *et_choose_name(const char *name, const char *filename)
{
	if (!name || *name == '\0')
		return filename ? filename : "";
	if (!filename || *filename == '\0')
		return name;
	return has_extension(filename) ? filename : name;
}

void et_page_clear(struct et_page *page)
{
	for (size_t i = 0; i < page->n_records; i++)
		remote_record_clear(&page->records[i]);
	for (size_t i = 0; i < page->n_files; i++)
		remote_file_clear(&page->files[i]);
	free(page->records);
	free(page->files);
	*page = (struct et_page){0};
}

/* Room for one more element. */
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

/* A number, or one as a string; -1 = not told. */
static int64_t get_size(const json_t *row)
{
	const char *text = json_get_text(row, "Size");

	if (text && json_is_id(text))
		return atoll(text);
	if (text && strcmp(text, "0") == 0)
		return 0;
	int64_t size = json_get_integer(row, "Size", -1);
	return size < 0 ? -1 : size;
}

static char *dup_text(const json_t *row, const char *key)
{
	return json_dup_name(json_object_get(row, key));
}

int et_decode_file(const json_t *row, const char *record, struct remote_file *f)
{
	char id[ET_GUID_SIZE];

	*f = (struct remote_file){.size = -1};
	if (json_is_object(row) && et_is_nil(row))
		return 1;
	if (!json_is_object(row) || !et_get_guid(row, "Id", id))
		return -EIO;
	char *name = dup_text(row, "Name"), *filename = dup_text(row, "FileName");
	const char *chosen = name && filename ? et_choose_name(name, filename) : NULL;
	const char *type = json_get_text(row, "ContentType");
	/* One name is shown, and compared with what was sent, whichever field it came in. */
	*f = (struct remote_file){
		.id = strdup(id),
		.record = strdup(record),
		.name = chosen ? strdup(chosen) : NULL,
		.raw_name = chosen ? strdup(chosen) : NULL,
		.version = strdup(id),
		.media_type = type ? strndup(type, 255) : NULL,
		.size = get_size(row),
		.mtime_ns = json_get_time(row, "CreatedAt"),
	};
	f->ctime_ns = f->mtime_ns;
	free(name);
	free(filename);
	if (f->id && f->record && f->name && f->raw_name && f->version && (f->media_type || !type))
		return 0;
	remote_file_clear(f);
	return -ENOMEM;
}

int et_decode_files(const json_t *rows, const char *record, struct et_page *page)
{
	if (!json_is_array(rows))
		return -EIO;
	for (size_t i = 0; i < json_array_size(rows); i++) {
		void *files =
			grow(page->files, page->n_files, &page->files_size, sizeof(*page->files));
		if (!files)
			return -ENOMEM;
		page->files = files;
		int r = et_decode_file(json_array_get(rows, i), record,
				       &page->files[page->n_files]);
		if (r < 0)
			return r;
		page->n_files += r == 0;
		page->nameless += r == 1;
	}
	return 0;
}

/* The name that @row itself has, NULL = none, or without memory. */
static char *own_name(const struct et_collection *c, const json_t *row)
{
	char *name = dup_text(row, c->name_field);

	if (name && *name != '\0')
		return name;
	free(name);
	return NULL;
}

char *et_record_name(const struct et_collection *c, const json_t *row, const json_t *run,
		     size_t number)
{
	char *name = own_name(c, row), *of;
	char id[ET_GUID_SIZE];

	if (name)
		return name;
	if (run) {
		of = dup_text(run, "Name");
		if (!of || asprintf(&name, "%s %s %zu", *of ? of : "Run", c->label, number) < 0)
			name = NULL;
		free(of);
		return name;
	}
	int64_t told = json_get_integer(row, "Number", json_get_integer(row, "IncidentNumber", -1));
	et_get_guid(row, "Id", id);
	if (told >= 0)
		return asprintf(&name, "%s %lld", c->label, (long long)told) < 0 ? NULL : name;
	return asprintf(&name, "%s %s", c->label, id) < 0 ? NULL : name;
}

int et_decode_record(const struct et_collection *c, const json_t *row, const json_t *run,
		     size_t number, struct et_page *page, char ret_id[REMOTE_ID_MAX + 1])
{
	char id[ET_GUID_SIZE], run_id[ET_GUID_SIZE];

	ret_id[0] = '\0';
	if (json_is_object(row) && et_is_nil(row)) {
		page->nameless++;
		return 0;
	}
	if (!json_is_object(row) || !et_get_guid(row, "Id", id))
		return -EIO;
	if (c->part && !et_get_guid(run, "Id", run_id))
		return -EIO;
	void *records =
		grow(page->records, page->n_records, &page->records_size, sizeof(*page->records));
	if (!records)
		return -ENOMEM;
	page->records = records;
	if (c->part)
		et_join_ids(run_id, id, ret_id);
	else
		snprintf(ret_id, REMOTE_ID_MAX + 1, "%s", id);
	struct remote_record *record = &page->records[page->n_records++];
	*record = (struct remote_record){
		.id = strdup(ret_id),
		.name = et_record_name(c, row, run, number),
		.mtime_ns = json_get_time(row, "LastUpdatedAt"),
		.ctime_ns = json_get_time(row, "CreatedAt"),
	};
	return record->id && record->name ? 0 : -ENOMEM;
}

json_t *et_rows(const json_t *root)
{
	return json_is_array(root) ? (json_t *)root : json_get_array(root, "Items");
}

bool et_lacks_files(const json_t *row)
{
	return !json_get_array(row, "Attachments") &&
	       !json_is_false(json_object_get(row, "HasAttachments"));
}
