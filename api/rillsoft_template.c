/* SPDX-License-Identifier: MIT */

/*
 * Paths. All of them are here: those the vendor documents, and those he does not, which are options
 * with the defaults of section 13 of the reference.
 */

#include "rillsoft.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define C "/api/v2/clients/{cid}"

static const struct {
	const char *option; /* NULL = documented */
	const char *known;  /* placeholders it must do with */
	const char *path;
} paths[RILLSOFT_PATHS] = {
	/* Under v1, also for v2's data. */
	[RILLSOFT_LOGIN] = {NULL, "", "/api/v1/login"},
	[RILLSOFT_CLIENT] = {NULL, "{cid}", C},
	[RILLSOFT_PROJECTS] = {NULL, "{cid}", C "/projects"},
	[RILLSOFT_DOCUMENTS] = {"template_documents", "{cid}{pid}",
				C "/dms/documents?project_id={pid}"},
	/* Folder and element in the path here, in the body of an update. */
	[RILLSOFT_CREATE] = {NULL, "{cid}{pid}{fid}{uuid}",
			     C "/dms/projects/{pid}/folders/{fid}/parent/{uuid}/documents"},
	[RILLSOFT_UPDATE] = {NULL, "{cid}{pid}{did}", C "/dms/projects/{pid}/documents/{did}"},
	[RILLSOFT_UPLOAD] = {NULL, "{cid}{aid}", C "/attachments/{aid}"},
	[RILLSOFT_DOWNLOAD] = {"template_download", "{cid}{pid}{did}",
			       C "/dms/projects/{pid}/documents/{did}"},
	[RILLSOFT_DELETE] = {"template_delete", "{cid}{pid}{did}",
			     C "/dms/projects/{pid}/documents/{did}"},
	[RILLSOFT_FOLDERS] = {"template_folders", "{cid}", C "/dms/folders"},
	[RILLSOFT_ATTACHMENT] = {"template_attachment", "{cid}{aid}", C "/attachments/{aid}"},
};

const char *rillsoft_path_default(enum rillsoft_path path)
{
	return paths[path].path;
}

/* The placeholder that begins at @p, without its end; 0 = none. */
static size_t placeholder_length(const char *p)
{
	const char *end = *p == '{' ? strchr(p, '}') : NULL;

	return end && end - p < 8 ? (size_t)(end - p) + 1 : 0;
}

static bool is_known(enum rillsoft_path path, const char *p, size_t len)
{
	return memmem(paths[path].known, strlen(paths[path].known), p, len) != NULL;
}

int rillsoft_template_check(enum rillsoft_path path, const char *template, char *message,
			    size_t size)
{
	const char *option = paths[path].option ? paths[path].option : "path";

	if (template[0] != '/' || template[1] == '/') {
		snprintf(message, size, "%s=%s must begin with one '/', like %s", option, template,
			 paths[path].path);
		return -EINVAL;
	}
	for (const char *p = template; *p != '\0'; p++) {
		size_t len = placeholder_length(p);
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f ||
		    strchr("#\\\"<>", *p)) {
			snprintf(message, size, "%s=%s: a path cannot hold such characters", option,
				 template);
			return -EINVAL;
		}
		if ((*p == '{' && !(len && is_known(path, p, len))) || *p == '}') {
			snprintf(message, size, "%s=%s: the placeholders it may have are %s",
				 option, template, paths[path].known);
			return -EINVAL;
		}
		p += len ? len - 1 : 0;
	}
	return 0;
}

static const char *id_of(const struct rillsoft_ids *ids, const char *placeholder)
{
	const struct {
		const char *name, *id;
	} table[] = {
		{"{cid}", ids->cid}, {"{pid}", ids->pid}, {"{did}", ids->did},
		{"{aid}", ids->aid}, {"{fid}", ids->fid}, {"{uuid}", ids->uuid},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strncmp(placeholder, table[i].name, strlen(table[i].name)) == 0)
			return table[i].id ? table[i].id : "";
	return "";
}

char *rillsoft_template_fill(const char *template, const struct rillsoft_ids *ids)
{
	char *out = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&out, &size);

	if (!f)
		return NULL;
	while (*template != '\0') {
		size_t len = placeholder_length(template);
		if (len)
			fputs(id_of(ids, template), f);
		else
			fputc(*template, f);
		template += len ? len : 1;
	}
	if (fclose(f) == 0)
		return out;
	free(out);
	return NULL;
}
