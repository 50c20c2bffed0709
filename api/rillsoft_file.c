/* SPDX-License-Identifier: MIT */

/*
 * Documents as files. A version is made of what the list tells: id, size and createdAt. A replacement
 * by others that leaves all three alone cannot be seen (section 11). Ours are counted here, per
 * document and whatever the size, for a size may come back and the version must not: bytes are kept
 * by it. The count is part of the version, and recalled from those that an earlier life has told.
 * Versions do not expire by age: one that did would make a foreign change of every edit that waits to
 * be sent.
 */

#include "rillsoft.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rillsoft_rewrite {
	struct rillsoft_rewrite *next;
	unsigned count;
	char id[RILLSOFT_ID_SIZE];
};

static struct rillsoft_rewrite **find_rewrite_locked(struct rillsoft *ris, const char *id)
{
	unsigned bucket = 0;

	for (const char *p = id; *p != '\0'; p++)
		bucket = bucket * 31 + (unsigned char)*p;
	struct rillsoft_rewrite **w = &ris->rewrites[bucket % RILLSOFT_REWRITES];
	while (*w && strcmp((*w)->id, id) != 0)
		w = &(*w)->next;
	return w;
}

char *rillsoft_dup_version(struct rillsoft *ris, const struct rillsoft_doc *doc)
{
	char version[RILLSOFT_VERSION_SIZE], *text = NULL;
	unsigned count = 0;

	rillsoft_version(doc, version);
	pthread_mutex_lock(&ris->lock);
	const struct rillsoft_rewrite *w = *find_rewrite_locked(ris, doc->id);
	if (w)
		count = w->count;
	pthread_mutex_unlock(&ris->lock);
	if (count == 0)
		return strdup(version);
	return asprintf(&text, "%s.%u", version, count) < 0 ? NULL : text;
}

/* It was replaced @more times than was known, and @least times at least. */
static void count_rewrites(struct rillsoft *ris, const char *id, unsigned more, unsigned least)
{
	struct rillsoft_rewrite *fresh = calloc(1, sizeof(*fresh));

	pthread_mutex_lock(&ris->lock);
	struct rillsoft_rewrite **w = find_rewrite_locked(ris, id);
	if (!*w && fresh) {
		snprintf(fresh->id, sizeof(fresh->id), "%s", id);
		*w = fresh;
		fresh = NULL;
	}
	if (*w) {
		(*w)->count += more;
		if ((*w)->count < least)
			(*w)->count = least;
	}
	pthread_mutex_unlock(&ris->lock);
	free(fresh);
}

void rillsoft_note_rewrite(struct rillsoft *ris, const struct rillsoft_doc *doc)
{
	count_rewrites(ris, doc->id, 1, 0);
}

void rillsoft_recall(struct remote *r, const char *id, const char *version)
{
	const char *p = version;
	char *end;

	/* <id>.<size>.<createdAt>.<count> */
	for (int i = 0; p && i < 3; i++) {
		p = strchr(p, '.');
		p = p ? p + 1 : NULL;
	}
	unsigned long count = p ? strtoul(p, &end, 10) : 0;
	if (count > 0 && count <= UINT_MAX && *end == '\0' && strlen(id) < RILLSOFT_ID_SIZE)
		count_rewrites((struct rillsoft *)r, id, 0, (unsigned)count);
}

void rillsoft_rewrites_free(struct rillsoft *ris)
{
	for (size_t i = 0; i < RILLSOFT_REWRITES; i++)
		while (ris->rewrites[i]) {
			struct rillsoft_rewrite *next = ris->rewrites[i]->next;
			free(ris->rewrites[i]);
			ris->rewrites[i] = next;
		}
}

bool rillsoft_make_file(struct rillsoft *ris, const struct rillsoft_doc *doc, struct remote_file *f)
{
	*f = (struct remote_file){
		.id = strdup(doc->id),
		.record = strdup(doc->parent),
		.name = strdup(doc->name),
		.raw_name = strdup(doc->name),
		.version = rillsoft_dup_version(ris, doc),
		.size = doc->size,
		/* There is no modified time anywhere. */
		.mtime_ns = doc->created_ns,
		.ctime_ns = doc->created_ns,
	};
	if (f->id && f->record && f->name && f->raw_name && f->version)
		return true;
	remote_file_clear(f);
	return false;
}

bool rillsoft_make_attachment(const char *id, struct remote_file *f)
{
	*f = (struct remote_file){
		.id = strdup(id),
		.record = strdup(RILLSOFT_ATTACHMENTS),
		.name = strdup(id),
		.raw_name = strdup(id),
		.version = strdup(RILLSOFT_ATTACHMENT_VERSION),
		.size = -1,
		.mtime_ns = REMOTE_TIME_NONE,
		.ctime_ns = REMOTE_TIME_NONE,
	};
	if (f->id && f->record && f->name && f->raw_name && f->version)
		return true;
	remote_file_clear(f);
	return false;
}
