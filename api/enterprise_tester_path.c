/* SPDX-License-Identifier: MIT */

/*
 * Where things are: the owners of section 3, the ids in their paths, and the queries by which sets
 * are listed. Pure. No id gets into a path that is not 32 hexadecimal digits.
 */

#include "enterprise_tester.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"

static const struct et_collection collections[ET_COLLECTIONS] = {
	{"requirements", ET_EXPANDED, "requirements", "Requirement", "requirement", NULL, NULL,
	 "requirement", "/attachments", "Name", "Requirement", true},
	{"scripts", ET_EXPANDED, "scripts", "Script", "script", NULL, NULL, "script",
	 "/attachments", "Name", "Script", true},
	{"incidents", ET_EXPANDED, "incidents", "Incident", "incident", NULL, NULL, "incident",
	 "/attachments", "Summary", "Incident", true},
	{"sets", ET_UNLISTED, NULL, NULL, NULL, NULL, NULL, "temporaryattachmentset", "", "Name",
	 "Set", false},
	{"stepresults", ET_STEPS, "scriptruns", "ScriptRun", "scriptrun", "StepResults", NULL,
	 "stepresult", "/attachments", "Name", "step", false},
	{"agilerunsteps", ET_STEPS, "agileruns", "AgileRun", "agilerun", "Steps", "step", NULL,
	 "/attachments", "Name", "step", false},
	{"automatedtestruns", ET_RUNS, "automatedtestruns", "AutomatedTestRun", "automatedtestrun",
	 NULL, NULL, "automatedtestrun", "/attachments", "Name", "Run", false},
	{"automatedtestrunnodes", ET_NODES, "automatedtestruns", "AutomatedTestRun",
	 "automatedtestrun", NULL, "node", NULL, "/attachments", "Name", "node", false},
};

const struct et_collection *et_find_collection(const char *name)
{
	for (size_t i = 0; name && i < ET_COLLECTIONS; i++)
		if (strcmp(collections[i].name, name) == 0)
			return &collections[i];
	return NULL;
}

size_t et_collection_index(const struct et_collection *c)
{
	return (size_t)(c - collections);
}

char *et_add_api(const char *url)
{
	size_t len = strlen(url);
	bool there = len > 4 && strcasecmp(url + len - 4, "/api") == 0;
	char *out;

	return asprintf(&out, "%s%s", url, there ? "" : "/api") < 0 ? NULL : out;
}

void et_join_ids(const char *first, const char *second, char out[REMOTE_ID_MAX + 1])
{
	const char *const parts[] = {first, second};
	char *to = out;

	for (size_t i = 0; i < 2; i++)
		for (const char *p = parts[i]; *p != '\0' && to < out + REMOTE_ID_MAX; p++)
			if (*p != '-')
				*to++ = (char)tolower((unsigned char)*p);
	*to = '\0';
}

static void dash_guid(const char *digits, char out[ET_GUID_SIZE])
{
	snprintf(out, ET_GUID_SIZE, "%.8s-%.4s-%.4s-%.4s-%.12s", digits, digits + 8, digits + 12,
		 digits + 16, digits + 20);
}

bool et_split_id(const char *id, char first[ET_GUID_SIZE], char second[ET_GUID_SIZE])
{
	if (!id || strlen(id) != 64)
		return false;
	dash_guid(id, first);
	dash_guid(id + 32, second);
	return json_is_uuid(first) && json_is_uuid(second);
}

bool et_is_record(const struct et_collection *c, const char *record)
{
	char first[ET_GUID_SIZE], second[ET_GUID_SIZE];

	if (!record)
		return false;
	return c->part ? et_split_id(record, first, second) : json_is_uuid(record);
}

bool et_owner_path(const struct et_collection *c, const char *record, char out[ET_PATH_SIZE])
{
	char first[ET_GUID_SIZE] = "{id}", second[ET_GUID_SIZE] = "{id}";

	if (record && !et_is_record(c, record))
		return false;
	if (record && c->part)
		et_split_id(record, first, second);
	if (c->part)
		snprintf(out, ET_PATH_SIZE, "%s/%s/%s/%s", c->row, first, c->part, second);
	else
		snprintf(out, ET_PATH_SIZE, "%s/%s", c->owner, record ? record : "{id}");
	return true;
}

bool et_files_path(const struct et_collection *c, const char *record, char out[ET_PATH_SIZE])
{
	if (!et_owner_path(c, record, out))
		return false;
	strcat(out, c->files);
	return true;
}

bool et_file_path(const struct et_collection *c, const char *record, const char *id,
		  char out[ET_PATH_SIZE])
{
	if ((id && !json_is_uuid(id)) || !et_owner_path(c, record, out))
		return false;
	size_t len = strlen(out);
	snprintf(out + len, ET_PATH_SIZE - len, "/attachment/%s", id ? id : "{id}");
	return true;
}

/* "tql=<escaped>" */
static char *tql_query(const char *filter, const char *entity, const char *order)
{
	char *tql = NULL, *escaped = NULL, *query = NULL;

	if (asprintf(&tql, "%s%s%sORDER BY %s", filter, *filter ? entity : "", *filter ? " " : "",
		     order) >= 0) {
		escaped = base_escape(tql);
		free(tql);
	}
	if (escaped && asprintf(&query, "tql=%s", escaped) < 0)
		query = NULL;
	free(escaped);
	return query;
}

/*
 * In order of CreatedAt, new rows only add at the end; Id puts those of one second (an import) into
 * an order, and does so alone. Whether TQL knows these fields, and whether an order can stand
 * without a condition, is unknown; the last variant has nothing but what examples show.
 */
char *et_order_query(enum et_language language, const char *entity, unsigned variant)
{
	static const struct {
		const char *filter, *order;
	} tql[ET_ORDERS] = {
		{"", "CreatedAt, Id"},
		{"EntityType = ", "CreatedAt, Id"},
		{"EntityType = ", "Id"},
		{"EntityType = ", "LastUpdatedAt"},
	};
	static const char *const odata[ET_ORDERS] = {"CreatedAt,Id", "Id", "Name", NULL};
	char *query;

	if (variant >= ET_ORDERS)
		return NULL;
	if (language == ET_TQL)
		return tql_query(tql[variant].filter, entity, tql[variant].order);
	if (!odata[variant] || asprintf(&query, "$orderby=%s", odata[variant]) < 0)
		return NULL;
	return query;
}

/* Among rows of one second the Id decides, where the server takes two keys. */
char *et_newest_query(const char *entity, unsigned variant)
{
	return tql_query(variant == 0 ? "" : "EntityType = ", entity,
			 variant < 2 ? "LastUpdatedAt DESC, Id" : "LastUpdatedAt DESC");
}
