/* SPDX-License-Identifier: MIT */

/*
 * Documents as files. A version is made of what the list tells: id, size and createdAt. A replacement
 * that leaves all three alone cannot be seen (section 11): one by others shows nowhere; after one of
 * ours the new bytes are known here, under the old version.
 *
 * Counting our own replacements would tell them apart, but only until the end of the mount: the next
 * one would find the count gone, take that for a change on the server, and part every edit that still
 * waits to be sent from its file. Versions that expire by age would do the same.
 */

#include "rillsoft.h"

#include <string.h>

bool rillsoft_make_file(const struct rillsoft_doc *doc, struct remote_file *f)
{
	char version[RILLSOFT_VERSION_SIZE];

	rillsoft_version(doc, version);
	*f = (struct remote_file){
		.id = strdup(doc->id),
		.record = strdup(doc->parent),
		.name = strdup(doc->name),
		.raw_name = strdup(doc->name),
		.version = strdup(version),
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
