/* SPDX-License-Identifier: MIT */
/*
 * What there is besides the store's rows, all of it derived from row ids: two projects, four packages of
 * each kind, and runs of five steps (steps 1-5 are of run 1, 6-10 of run 2...). A script run or agile run
 * exists while a step of it does; automated test runs are records, made when nodes lack them.
 */
#include "enterprise_tester.h"

#include "clock.h"

#include <stdio.h>
#include <string.h>

const struct et_kind_info et_kinds[ET_KINDS] = {
	[ET_REQUIREMENT] = {"Requirement", "requirement", "RequirementId", "Name", "Number", true,
			    false},
	[ET_SCRIPT] = {"Script", "script", "ScriptId", "Name", "Number", true, false},
	[ET_INCIDENT] = {"Incident", "incident", "IncidentId", "Summary", "IncidentNumber", false,
			 false},
	[ET_STEP_RESULT] = {"StepResult", "stepresult", "StepResultId", "Name", NULL, false, false},
	[ET_AGILE_RUN_STEP] = {"AgileRunStep", "step", "StepId", "Name", NULL, false, false},
	[ET_AUTOMATED_TEST_RUN] = {"AutomatedTestRun", "automatedtestrun", "RunId", "Name", NULL,
				   true, true},
	[ET_NODE] = {"ResultNode", "node", "NodeId", "Name", NULL, false, true},
	[ET_SET] = {"TemporaryAttachmentSet", "temporaryattachmentset", "TemporaryId", "Name", NULL,
		    false, false},
	[ET_PROJECT] = {"Project", "project", NULL, "Name", NULL, false, false},
	[ET_REQUIREMENT_PACKAGE] = {"RequirementPackage", "requirementpackage", NULL, "Name", NULL,
				    false, false},
	[ET_SCRIPT_PACKAGE] = {"ScriptPackage", "scriptpackage", NULL, "Name", NULL, false, false},
	[ET_EXECUTION_PACKAGE] = {"ExecutionPackage", "executionpackage", NULL, "Name", NULL, false,
				  false},
	[ET_SCRIPT_RUN] = {"ScriptRun", "scriptrun", NULL, "Name", NULL, true, false},
	[ET_AGILE_RUN] = {"AgileRun", "agilerun", NULL, "Name", NULL, true, false},
	[ET_SCRIPT_ASSIGNMENT] = {"ScriptAssignment", "scriptassignment", NULL, "Name", NULL, true,
				  false},
	[ET_AUTOMATED_TEST] = {"AutomatedTest", "automatedtest", NULL, "Name", NULL, true, false},
	[ET_ATTACHMENT] = {"Attachment", "attachment", NULL, "Name", NULL, false, false},
	[ET_USER] = {"User", "user", NULL, "Name", NULL, false, false},
};

/* In the order of enum et_kind. */
const struct collection et_collections[] = {
	{.name = "requirements", .owner_type = "Requirement"},
	{.name = "scripts", .owner_type = "Script"},
	{.name = "incidents", .owner_type = "Incident"},
	{.name = "stepresults", .owner_type = "StepResult"},
	{.name = "agilerunsteps", .owner_type = "AgileRunStep"},
	{.name = "automatedtestruns", .owner_type = "AutomatedTestRun"},
	{.name = "automatedtestrunnodes", .owner_type = "ResultNode"},
	{.name = "sets", .owner_type = "TemporaryAttachmentSet"},
	{.name = NULL},
};

static const char *const package_names[ET_PACKAGES] = {"Auth", "Billing", "Sessions", "Invoices"};
static const char *const project_names[ET_PROJECTS] = {"Portal", "Back office"};

const char *et_package_name(int64_t package)
{
	return package_names[(package - 1) % ET_PACKAGES];
}

const char *et_project_name(int64_t project)
{
	return project_names[(project - 1) % ET_PROJECTS];
}

enum et_kind et_package_kind(enum et_kind kind)
{
	return kind == ET_REQUIREMENT ? ET_REQUIREMENT_PACKAGE
	       : kind == ET_SCRIPT    ? ET_SCRIPT_PACKAGE
				      : ET_EXECUTION_PACKAGE;
}

enum et_kind et_run_kind(enum et_kind kind)
{
	return kind == ET_AGILE_RUN_STEP ? ET_AGILE_RUN
	       : kind == ET_NODE	 ? ET_AUTOMATED_TEST_RUN
					 : ET_KINDS;
}

int64_t et_run_of(int64_t step)
{
	return (step - 1) / ET_STEPS + 1;
}

struct et_entity et_entity_of(struct record *r)
{
	size_t kind = 0;

	while (et_collections[kind].name &&
	       strcmp(et_collections[kind].name, r->collection->name) != 0)
		kind++;
	return (struct et_entity){(enum et_kind)kind, r->row.id, r, NULL};
}

/* A run of steps lives as long as one of them. */
static bool run_exists(struct et *et, enum et_kind steps, int64_t run)
{
	const struct collection *c = &et->emu->store->collections[steps];

	for (int64_t step = (run - 1) * ET_STEPS + 1; step <= run * ET_STEPS; step++)
		if (store_record(c, step))
			return true;
	return false;
}

bool et_entity_find(struct et_call *c, enum et_kind kind, int64_t id, struct et_entity *ret_entity)
{
	struct et_entity e = {kind, id, NULL, NULL};
	struct store *s = c->et->emu->store;
	bool there = false;

	if (kind < ET_RECORD_KINDS)
		there = (e.record = store_record(&s->collections[kind], id)) != NULL;
	else if (kind == ET_ATTACHMENT)
		there = (e.attachment = store_attachment(s, id)) != NULL;
	else if (kind == ET_PROJECT)
		there = id >= 1 && id <= ET_PROJECTS;
	else if (kind >= ET_REQUIREMENT_PACKAGE && kind <= ET_EXECUTION_PACKAGE)
		there = id >= 1 && id <= ET_PACKAGES;
	else if (kind == ET_SCRIPT_RUN)
		there = run_exists(c->et, ET_STEP_RESULT, id);
	else if (kind == ET_AGILE_RUN)
		there = run_exists(c->et, ET_AGILE_RUN_STEP, id);
	if (there)
		*ret_entity = e;
	return there;
}

bool et_entity_by_guid(struct et_call *c, const struct str *guid, enum et_kind kind,
		       struct et_entity *ret_entity)
{
	int64_t id;

	return et_guid_of(guid, kind, &id) && et_entity_find(c, kind, id, ret_entity);
}

struct str et_name(const struct et_entity *e, char buffer[static 48])
{
	const char *text = buffer;

	if (e->record)
		return e->record->name;
	if (e->attachment)
		return e->attachment->name;
	if (e->kind == ET_PROJECT)
		text = et_project_name(e->id);
	else if (e->kind >= ET_REQUIREMENT_PACKAGE && e->kind <= ET_EXECUTION_PACKAGE)
		text = et_package_name(e->id);
	else
		snprintf(buffer, 48, "%s run %lld", e->kind == ET_SCRIPT_RUN ? "Script" : "Agile",
			 (long long)e->id);
	return (struct str){(char *)text, strlen(text)};
}

int64_t et_package(const struct et_entity *e)
{
	json_int_t chosen = 0;

	if (e->record)
		chosen = json_integer_value(json_object_get(e->record->fields, "package"));
	return chosen ? chosen : (e->id - 1) % ET_PACKAGES + 1;
}

int64_t et_project(const struct et_entity *e)
{
	if (e->kind == ET_PROJECT || e->kind == ET_SET || e->kind == ET_ATTACHMENT)
		return 0;
	return (et_package(e) - 1) % ET_PROJECTS + 1;
}

int64_t et_version(const struct et_entity *e)
{
	json_int_t version = 0;

	if (e->record)
		version = json_integer_value(json_object_get(e->record->fields, "version"));
	return version ? version : 1;
}

const struct rows *et_owned(struct et_call *c, const struct record *r)
{
	const char *type = r->collection->owner_type;

	return store_owned(c->et->emu->store, type, strlen(type), r->row.id);
}

bool et_has_attachments(struct et_call *c, const struct et_entity *e)
{
	const struct rows *rows = e->record ? et_owned(c, e->record) : NULL;

	return rows && rows->n && et_setting(c, ET_HAS_ATTACHMENTS) != HAS_FALSE;
}

static const char *type_of_name(const struct str *name)
{
	static const struct {
		const char *extension;
		const char *type;
	} types[] = {
		{".txt", "text/plain"},	     {".html", "text/html"},
		{".pdf", "application/pdf"}, {".png", "image/png"},
		{".jpg", "image/jpeg"},	     {".gif", "image/gif"},
		{".zip", "application/zip"}, {".json", "application/json"},
	};
	const char *dot = name->ptr ? strrchr(name->ptr, '.') : NULL;

	for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
		if (strcasecmp(types[i].extension, dot) == 0)
			return types[i].type;
	return "application/octet-stream";
}

struct str et_content_type(struct et *et, const struct attachment *a)
{
	const struct str *sent = table_get(&et->types, &a->row.id, sizeof(a->row.id));
	const char *guessed;

	if (sent)
		return *sent;
	guessed = type_of_name(&a->filename);
	return (struct str){(char *)guessed, strlen(guessed)};
}

void et_touched(struct emulator *emu, struct record *r)
{
	struct et_entity e = et_entity_of(r);

	if (!emu->settings.values[ET_BUMP_ON_ATTACH])
		return;
	r->updated_at = clock_now();
	json_object_set_new(r->fields, "version", json_integer(et_version(&e) + 1));
}

/* What /state needs to tell: where a record is found in the API. */
void et_dress_record(struct record *r)
{
	struct et_entity e = et_entity_of(r);
	enum et_kind run = e.kind == ET_STEP_RESULT ? ET_SCRIPT_RUN : et_run_kind(e.kind);
	char guid[ET_GUID_SIZE];

	if (e.kind == ET_SET)
		return;
	json_object_set_new(r->fields, "version", json_integer(1));
	if (et_kinds[e.kind].has_package)
		json_object_set_new(r->fields, "package", json_integer(et_package(&e)));
	if (run == ET_KINDS)
		return;
	et_guid(run, et_run_of(r->row.id), guid);
	json_object_set_new(r->fields, "run_remote_id", json_string(guid));
}

void et_make_runs(struct et *et)
{
	struct collection *runs = &et->emu->store->collections[ET_AUTOMATED_TEST_RUN];
	const struct rows *nodes = &et->emu->store->collections[ET_NODE].records;
	int64_t wanted = nodes->n ? et_run_of(nodes->at[nodes->n - 1]->id) : 0;

	while (runs->next_id <= wanted) {
		char name[48];
		int n = snprintf(name, sizeof(name), "Automated test run %lld",
				 (long long)runs->next_id);
		int64_t made_at = ((struct record *)nodes->at[0])->created_at;

		et_dress_record(store_add_record(runs, name, (size_t)n, made_at));
	}
}
