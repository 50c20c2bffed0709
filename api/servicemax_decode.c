/* SPDX-License-Identifier: MIT */

/*
 * What the server says -> records, files, outcomes. Pure. A row that cannot be understood fails the
 * whole listing, for a row left out would be a file deleted from the mount; but sizes and times may
 * be strings or numbers (S-2), and links may be missing, for bytes are found without them.
 */

#include "servicemax.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define MS_MAX	  (INT64_MAX / 1000000)
#define EXACT_MAX 9007199254740992.0 /* up to here a double is an integer */

bool servicemax_is_object(const char *name)
{
	size_t len = name ? strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					 "0123456789_")
			  : 0;

	return len > 0 && len <= SERVICEMAX_OBJECT_MAX && name[len] == '\0';
}

int64_t servicemax_get_number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	const char *text = json_get_text(object, key);

	if (json_is_integer(value))
		return json_integer_value(value) >= 0 ? (int64_t)json_integer_value(value) : -1;
	if (json_is_real(value)) {
		double real = json_real_value(value);
		return real >= 0 && real <= EXACT_MAX ? (int64_t)real : -1;
	}
	size_t len = text ? strspn(text, "0123456789") : 0;
	if (len == 0 || len > 18 || text[len] != '\0')
		return -1;
	return strtoll(text, NULL, 10);
}

/* The link of rel "url", in whatever order they come; NULL = none. */
static const char *find_link(const json_t *object)
{
	const json_t *links = json_get_array(object, "links");

	for (size_t i = 0; i < json_array_size(links); i++) {
		const json_t *link = json_array_get(links, i);
		const char *rel = json_get_text(link, "rel");
		if (rel && strcmp(rel, "url") == 0)
			return json_get_text(link, "href");
	}
	return NULL;
}

/*
 * Where the bytes are: the server's link on our own base (S-11), else where all links lead to.
 * NULL without memory.
 */
static char *dup_url(const struct base *base, const json_t *object, const char *uuid)
{
	char *url = NULL;

	if (base_rebase(base, find_link(object), &url) < 0)
		return NULL;
	if (!url && asprintf(&url, "%s/document/%s/latest", base->url, uuid) < 0)
		return NULL;
	return url;
}

/* A file without a version of its own has at least its date and size. */
static char *dup_version(const json_t *object, int64_t ms, int64_t size)
{
	const char *version = json_get_uuid(object, "version_uuid");
	char *made;

	if (version)
		return strdup(version);
	return asprintf(&made, "@%" PRId64 "-%" PRId64, ms, size) < 0 ? NULL : made;
}

int servicemax_decode_file(const struct base *base, const char *record, const json_t *object,
			   struct remote_file *f)
{
	const char *uuid = json_get_uuid(object, "uuid");
	const json_t *name = json_object_get(object, "name");
	const char *type = json_get_text(object, "type");
	const char *media_type = json_get_text(object, "media_type");
	int64_t ms = servicemax_get_number(object, "updated_on");

	*f = (struct remote_file){.size = -1};
	if (json_is_object(object) && type && strcmp(type, "file") != 0)
		return 1;
	if (!uuid || !json_is_string(name))
		return -EIO;
	f->size = servicemax_get_number(object, "size");
	f->mtime_ns = ms >= 0 && ms <= MS_MAX ? ms * 1000000 : REMOTE_TIME_NONE;
	f->ctime_ns = REMOTE_TIME_NONE;
	f->id = strdup(uuid);
	f->record = strdup(record);
	f->name = json_dup_name(name);
	f->raw_name = json_dup_name(name);
	f->version = dup_version(object, ms, f->size);
	f->url = dup_url(base, object, uuid);
	f->media_type = media_type && strlen(media_type) < 256 ? strdup(media_type) : NULL;
	if (f->id && f->record && f->name && f->raw_name && f->version && f->url)
		return 0;
	remote_file_clear(f);
	return -ENOMEM;
}

/* Room for one more element; the array, or NULL. */
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

int servicemax_decode_files(const struct base *base, const char *record, const json_t *array,
			    struct servicemax_page *page)
{
	if (!json_is_array(array))
		return -EIO;
	for (size_t i = 0; i < json_array_size(array); i++) {
		void *files =
			grow(page->files, page->n_files, &page->files_size, sizeof(*page->files));
		if (!files)
			return -ENOMEM;
		page->files = files;
		int r = servicemax_decode_file(base, record, json_array_get(array, i),
					       &page->files[page->n_files]);
		if (r < 0)
			return r;
		page->n_files += r == 0;
	}
	return 0;
}

/* Not every object's name is io_name: then the UUID stands for it. */
static char *dup_record_name(const json_t *row, const char *uuid)
{
	const json_t *name = json_object_get(row, "io_name");

	if (json_is_string(name) && json_string_length(name) > 0)
		return json_dup_name(name);
	return strdup(uuid);
}

static int add_record(const json_t *row, struct servicemax_page *page)
{
	const char *uuid = json_get_uuid(row, "io_uuid");

	if (!uuid)
		return -EIO;
	page->rows++;
	if (json_is_true(json_object_get(row, "io_deleted")))
		return 0;
	void *records =
		grow(page->records, page->n_records, &page->records_size, sizeof(*page->records));
	if (!records)
		return -ENOMEM;
	page->records = records;
	struct remote_record *record = &page->records[page->n_records++];
	*record = (struct remote_record){.id = strdup(uuid),
					 .name = dup_record_name(row, uuid),
					 .mtime_ns = json_get_time(row, "io_updated_on"),
					 .ctime_ns = json_get_time(row, "io_created_on")};
	return record->id && record->name ? 0 : -ENOMEM;
}

int servicemax_decode_records(const json_t *root, struct servicemax_page *page)
{
	if (json_is_object(root))
		return add_record(root, page);
	int r = json_is_array(root) ? 0 : -EIO;
	for (size_t i = 0; r == 0 && i < json_array_size(root); i++)
		r = add_record(json_array_get(root, i), page);
	return r;
}

void servicemax_page_clear_files(struct servicemax_page *page)
{
	for (size_t i = 0; i < page->n_files; i++)
		remote_file_clear(&page->files[i]);
	page->n_files = 0;
}

void servicemax_page_clear(struct servicemax_page *page)
{
	servicemax_page_clear_files(page);
	for (size_t i = 0; i < page->n_records; i++)
		remote_record_clear(&page->records[i]);
	free(page->records);
	free(page->files);
	*page = (struct servicemax_page){0};
}

/* FNV-1a over one member, and an end mark. */
static uint64_t mix(uint64_t hash, const char *text)
{
	for (; text && *text != '\0'; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
	return (hash ^ 0x100) * 0x100000001b3u;
}

static uint64_t mix_number(uint64_t hash, int64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, number);
	return mix(hash, text);
}

/*
 * Sums do not depend on an order. Names may hold what json_get_text() does not give: the length is
 * all that is lost then.
 */
int servicemax_digest(const json_t *map, char out[SERVICEMAX_DIGEST_SIZE])
{
	const char *record;
	json_t *files;
	uint64_t sum = 0;
	size_t n = 0;

	if (!json_is_object(map))
		return -EIO;
	json_object_foreach((json_t *)map, record, files)
	{
		if (!json_is_array(files))
			return -EIO;
		for (size_t i = 0; i < json_array_size(files); i++, n++) {
			const json_t *file = json_array_get(files, i);
			uint64_t hash = mix(0xcbf29ce484222325u, record);
			hash = mix(hash, json_get_text(file, "uuid"));
			hash = mix(hash, json_get_text(file, "version_uuid"));
			hash = mix(hash, json_get_text(file, "name"));
			hash = mix_number(hash, servicemax_get_number(file, "size"));
			hash = mix_number(hash, servicemax_get_number(file, "updated_on"));
			hash ^= hash >> 29;
			sum += hash * 0xbf58476d1ce4e5b9u;
		}
	}
	snprintf(out, SERVICEMAX_DIGEST_SIZE, "%zu-%016" PRIx64, n, sum);
	return 0;
}

int servicemax_check_name(const char *name, enum remote_deed deed)
{
	if (deed == REMOTE_REPLACES)
		return 0; /* by its UUID */
	/* Names are separated by commas when they are deleted (S-13). */
	if (strchr(name, ','))
		return deed == REMOTE_REMOVES ? -EPERM : -EINVAL;
	if (deed == REMOTE_REMOVES)
		return 0;
	/*
	 * No header of a part can carry control characters; and of a path many servers keep what is
	 * behind it, which would be a new version of another file.
	 */
	for (; *name != '\0'; name++)
		if ((unsigned char)*name < 0x20 || *name == 0x7f || *name == '/' || *name == '\\')
			return -EINVAL;
	return 0;
}

static enum remote_outcome judge_404(enum servicemax_verb verb, size_t n_items, int *ret_error)
{
	/* Any of the names is not attached, nothing is known of the others (section 8). */
	if (verb == SERVICEMAX_CREATE_FILE || n_items > 1)
		return REMOTE_REFUSED;
	if (verb == SERVICEMAX_REMOVE_FILE)
		*ret_error = 0;
	return REMOTE_GONE;
}

enum remote_outcome servicemax_judge(const struct call_reply *reply, enum servicemax_verb verb,
				     size_t n_items, int *ret_error)
{
	/*
	 * An upload twice is two versions; a deletion twice is one of a name that may be another
	 * client's new file by then.
	 */
	enum remote_outcome unknown = REMOTE_UNKNOWN;

	*ret_error = reply->error == -EOVERFLOW ? -EIO : reply->error;
	if (reply->error == 0)
		return REMOTE_DONE;
	if (reply->status >= 200 && reply->status < 300)
		return unknown;
	switch (reply->status) {
	case 0:
		return reply->sent ? unknown : REMOTE_RETRY;
	case 400:
		/* What it says of files that are too large, if it does not say 413 (section 13). */
		if (strcasestr(reply->message, "too large") || strcasestr(reply->message, "size"))
			*ret_error = -EFBIG;
		return REMOTE_REFUSED;
	case 401:
	case 402: /* passes when the user has done something about it */
		*ret_error = -EACCES;
		return REMOTE_RETRY;
	case 404:
		return judge_404(verb, n_items, ret_error);
	case 414: /* fewer names are shorter */
		*ret_error = n_items > 1 ? -EINVAL : -ENAMETOOLONG;
		return REMOTE_REFUSED;
	case 408:
	case 425:
	case 429:
	case 503:
		return REMOTE_RETRY;
	default:
		return reply->status >= 500 ? unknown : REMOTE_REFUSED;
	}
}
