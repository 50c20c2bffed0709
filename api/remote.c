/* SPDX-License-Identifier: MIT */

/* The values that clients and the file system hand each other: copying and clearing. */

#include <stdlib.h>
#include <string.h>

#include <attachfs/remote.h>

/* False only without memory; a NULL stays one. */
static bool copy_string(char **dst, const char *src)
{
	*dst = src ? strdup(src) : NULL;
	return !src || *dst;
}

bool remote_file_copy(struct remote_file *dst, const struct remote_file *src)
{
	bool ok = true;

	*dst = (struct remote_file){
		.size = src->size, .mtime_ns = src->mtime_ns, .ctime_ns = src->ctime_ns};
	ok &= copy_string(&dst->id, src->id);
	ok &= copy_string(&dst->record, src->record);
	ok &= copy_string(&dst->name, src->name);
	ok &= copy_string(&dst->raw_name, src->raw_name);
	ok &= copy_string(&dst->raw_filename, src->raw_filename);
	ok &= copy_string(&dst->version, src->version);
	ok &= copy_string(&dst->url, src->url);
	ok &= copy_string(&dst->media_type, src->media_type);
	if (!ok)
		remote_file_clear(dst);
	return ok;
}

void remote_file_clear(struct remote_file *f)
{
	free(f->id);
	free(f->record);
	free(f->name);
	free(f->raw_name);
	free(f->raw_filename);
	free(f->version);
	free(f->url);
	free(f->media_type);
	*f = (struct remote_file){0};
}

void remote_record_clear(struct remote_record *r)
{
	free(r->id);
	free(r->name);
	*r = (struct remote_record){0};
}
