/* SPDX-License-Identifier: MIT */

/*
 * What a reply means (section 10), which file of an answer is which item's, and whether attaching
 * moves a record's LastUpdatedAt (section 11). Pure.
 */

#include "enterprise_tester.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <attachfs/clock.h>

#include "json.h"

#define SLACK_NS (2 * CLOCK_NS_PER_S) /* times have whole seconds */

/* 403 is said of permissions and of what is invalid alike (E-11): only the words tell. */
static int errno_403(const struct call_reply *reply)
{
	static const char *const invalid[] = {"valid",	  "must ",   "no file",	 "no attachment",
					      "required", "specify", "reserved", "multipart"};
	static const char *const denied[] = {"permission", "denied", "not authori", "not allowed",
					     "forbidden"};
	const char *words = json_get_text(reply->json, "Message");

	for (size_t i = 0; words && i < sizeof(denied) / sizeof(denied[0]); i++)
		if (strcasestr(words, denied[i]))
			return -EACCES;
	for (size_t i = 0; words && i < sizeof(invalid) / sizeof(invalid[0]); i++)
		if (strcasestr(words, invalid[i]))
			return -EINVAL;
	return -EACCES;
}

/* No answer, or one that does not say what happened. All but an upload can be done twice. */
static enum remote_outcome judge_silence(const struct call_reply *reply, enum et_verb verb)
{
	return verb == ET_UPLOAD && reply->sent ? REMOTE_UNKNOWN : REMOTE_RETRY;
}

static enum remote_outcome judge_404(enum et_verb verb, int *ret_error, bool *ret_look)
{
	/* An upload's: the owner is gone, or IIS finds the request too large (404.13). */
	if (verb == ET_UPLOAD) {
		*ret_error = -EFBIG;
		*ret_look = true;
		return REMOTE_REFUSED;
	}
	*ret_error = verb == ET_REMOVE ? 0 : -ENOENT;
	return REMOTE_GONE;
}

enum remote_outcome et_judge(const struct call_reply *reply, enum et_verb verb, size_t n_items,
			     uint64_t bytes, int *ret_error, bool *ret_look)
{
	bool large = verb == ET_UPLOAD && bytes > ET_SMALL_REQUEST;

	*ret_error = reply->error;
	*ret_look = false;
	if (reply->error == 0)
		return REMOTE_DONE;
	/* It said yes, in words we do not understand or did not hear to the end. */
	if (reply->status >= 200 && reply->status < 300)
		return judge_silence(reply, verb);
	switch (reply->status) {
	case 0:
		return judge_silence(reply, verb);
	case 404:
		return judge_404(verb, ret_error, ret_look);
	case 401: /* passes when the user has done something about it */
	case 408:
	case 425:
	case 429:
	case 503:
		return REMOTE_RETRY;
	case 403:
		*ret_error = errno_403(reply);
		break;
	case 400:
		*ret_error = large ? -EFBIG : -EINVAL;
		break;
	case 405: /* PATCH is documented of requirements only (section 7) */
		*ret_error = verb == ET_PATCH ? -EPERM : -EIO;
		break;
	case 413:
		*ret_error = -EFBIG;
		break;
	case 500:
		if (!large)
			return judge_silence(reply, verb);
		*ret_error = -EFBIG; /* ASP.NET's limit, unless it is there all the same */
		*ret_look = true;
		return REMOTE_REFUSED;
	default:
		if (reply->status >= 500)
			return judge_silence(reply, verb);
	}
	/* One bad part refuses the request: what of the others is unknown (section 9). */
	*ret_look = verb == ET_UPLOAD && n_items > 1;
	return REMOTE_REFUSED;
}

/* 2: both names or the one that counts are as sent; 1: one is; 0: none. */
static int name_fits(const json_t *row, const char *sent)
{
	const char *name = json_get_text(row, "Name"), *filename = json_get_text(row, "FileName");

	if (strcmp(et_choose_name(name, filename), sent) == 0)
		return 2;
	return (name && strcmp(name, sent) == 0) || (filename && strcmp(filename, sent) == 0);
}

/* The first row not taken, from @from on, that is like @item. */
static size_t find_row(const json_t *rows, size_t from, const bool *taken,
		       const struct remote_change *item, bool by_size)
{
	for (size_t i = from; i < json_array_size(rows); i++) {
		const json_t *row = json_array_get(rows, i);
		int64_t size = json_get_integer(row, "Size", -1);

		if (!taken[i] && name_fits(row, item->name) > 0 &&
		    (!by_size || (size >= 0 && (uint64_t)size == item->size)))
			return i;
	}
	return SIZE_MAX;
}

void et_match_answer(const json_t *rows, const struct remote_change *items, size_t n, size_t *ret)
{
	size_t n_rows = json_array_size(rows);
	bool *taken = calloc(n_rows + 1, sizeof(*taken));

	for (size_t i = 0; i < n; i++)
		ret[i] = SIZE_MAX;
	/* In place; then by name and size; by name alone; and in place under another name. */
	for (size_t i = 0; taken && i < n && i < n_rows; i++)
		if (n_rows == n && name_fits(json_array_get(rows, i), items[i].name) > 0)
			taken[ret[i] = i] = true;
	for (int by_size = 1; taken && by_size >= 0; by_size--)
		for (size_t i = 0; i < n; i++) {
			if (ret[i] != SIZE_MAX)
				continue;
			ret[i] = find_row(rows, 0, taken, &items[i], by_size != 0);
			if (ret[i] != SIZE_MAX)
				taken[ret[i]] = true;
		}
	for (size_t i = 0; taken && i < n && n_rows == n; i++) {
		int64_t size = json_get_integer(json_array_get(rows, i), "Size", -1);
		if (ret[i] == SIZE_MAX && !taken[i] && size >= 0 && (uint64_t)size == items[i].size)
			taken[ret[i] = i] = true;
	}
	free(taken);
}

void et_match_files(const struct remote_file *files, size_t n_files, int64_t since_ns,
		    const struct remote_change *items, size_t n, size_t *ret)
{
	bool *taken = calloc(n_files + 1, sizeof(*taken));

	for (size_t i = 0; i < n; i++) {
		ret[i] = SIZE_MAX;
		for (size_t j = 0; taken && ret[i] == SIZE_MAX && j < n_files; j++) {
			const struct remote_file *f = &files[j];

			if (taken[j] || f->ctime_ns == REMOTE_TIME_NONE ||
			    f->ctime_ns < since_ns - SLACK_NS || f->size < 0 ||
			    (uint64_t)f->size != items[i].size ||
			    strcmp(f->raw_name, items[i].name) != 0)
				continue;
			taken[ret[i] = j] = true;
		}
	}
	free(taken);
}

enum et_bump et_judge_newest(const json_t *newest, const char *record, int64_t since_ns)
{
	int64_t updated = json_get_time(newest, "LastUpdatedAt");
	char id[ET_GUID_SIZE];

	if (updated == REMOTE_TIME_NONE || since_ns == REMOTE_TIME_NONE ||
	    !et_get_guid(newest, "Id", id))
		return ET_BUMP_UNKNOWN;
	/* Nothing was changed since, and yet something was. */
	if (updated < since_ns - SLACK_NS)
		return ET_BUMPS_NOT;
	return strcmp(id, record) == 0 ? ET_BUMPS : ET_BUMP_UNKNOWN;
}

enum et_bump et_judge_rows(const json_t *rows)
{
	for (size_t i = 0; i < json_array_size(rows); i++) {
		const json_t *row = json_array_get(rows, i);
		const json_t *files = json_get_array(row, "Attachments");
		int64_t updated = json_get_time(row, "LastUpdatedAt");

		for (size_t j = 0; updated != REMOTE_TIME_NONE && j < json_array_size(files); j++) {
			int64_t made = json_get_time(json_array_get(files, j), "CreatedAt");
			if (made != REMOTE_TIME_NONE && made > updated + SLACK_NS)
				return ET_BUMPS_NOT;
		}
	}
	return ET_BUMP_UNKNOWN;
}
