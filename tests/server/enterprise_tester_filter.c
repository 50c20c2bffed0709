/* SPDX-License-Identifier: MIT */
/* Filters as the database evaluates them: texts without case, dates to the second, null equals nothing. */
#include "enterprise_tester.h"

#include "alloc.h"
#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum field {
	FIELD_ID,
	FIELD_NAME,
	FIELD_SUMMARY,
	FIELD_NUMBER,
	FIELD_INCIDENT_NUMBER,
	FIELD_PROJECT,
	FIELD_PROJECT_ID,
	FIELD_PROJECT_NAME,
	FIELD_PACKAGE,
	FIELD_PACKAGE_ID,
	FIELD_PACKAGE_NAME,
	FIELD_CREATED_AT,
	FIELD_LAST_UPDATED_AT,
	FIELD_VERSION_NUMBER,
	FIELD_HAS_ATTACHMENTS,
	FIELD_ENTITY_TYPE,
	FIELD_FILE_NAME,
	FIELD_CONTENT_TYPE,
	FIELD_SIZE,
	FIELDS,
};

static const char *const names[FIELDS] = {
	"Id",	       "Name",	    "Summary",	     "Number",	      "IncidentNumber",
	"Project",     "ProjectId", "ProjectName",   "Package",	      "PackageId",
	"PackageName", "CreatedAt", "LastUpdatedAt", "VersionNumber", "HasAttachments",
	"EntityType",  "FileName",  "ContentType",   "Size",
};

int et_field(const char *name)
{
	for (int i = 0; i < FIELDS; i++)
		if (strcasecmp(names[i], name) == 0)
			return i;
	return -1;
}

bool et_field_is(int field, const char *name)
{
	return strcasecmp(names[field], name) == 0;
}

struct et_filter *et_filter_new(enum et_filter_op op, struct et_filter *left,
				struct et_filter *right)
{
	struct et_filter *f = xzalloc(sizeof(*f));

	f->op = op;
	f->left = left;
	f->right = right;
	return f;
}

struct et_filter *et_filter_test(int field, enum et_test test)
{
	struct et_filter *f = et_filter_new(FILTER_TEST, NULL, NULL);

	f->field = field;
	f->test = test;
	return f;
}

void et_filter_operand(struct et_filter *f, const struct str *text)
{
	f->operands = xrealloc(f->operands, (f->n_operands + 1) * sizeof(*f->operands));
	f->operands[f->n_operands++] = str_dup(text->ptr, text->len);
}

void et_filter_free(struct et_filter *f)
{
	if (!f)
		return;
	et_filter_free(f->left);
	et_filter_free(f->right);
	for (size_t i = 0; i < f->n_operands; i++)
		str_free(&f->operands[i]);
	free(f->operands);
	free(f);
}

static struct et_value text_value(const char *s, size_t len)
{
	return (struct et_value){ET_TEXT, 0, text_fold(s, len)};
}

static struct et_value word_value(const char *s)
{
	return text_value(s, strlen(s));
}

static struct et_value guid_value(enum et_kind kind, int64_t id)
{
	char guid[ET_GUID_SIZE];

	et_guid(kind, id, guid);
	return word_value(guid);
}

static struct et_value number_value(enum et_value_kind kind, int64_t number)
{
	return (struct et_value){kind, number, {0}};
}

static struct et_value attachment_value(struct et_call *c, const struct attachment *a, int field)
{
	struct str type;
	struct blob *blob;
	int64_t size;

	switch (field) {
	case FIELD_FILE_NAME:
		return text_value(a->filename.ptr, a->filename.len);
	case FIELD_CONTENT_TYPE:
		type = et_content_type(c->et, a);
		return text_value(type.ptr, type.len);
	case FIELD_CREATED_AT:
		return number_value(ET_TIME, a->created_at);
	case FIELD_SIZE:
		blob = store_get_blob(c->et->emu->store, a->path);
		size = blob ? (int64_t)blob_size(blob) : 0;
		blob_unref(blob);
		return number_value(ET_NUMBER, size);
	default:
		return number_value(ET_NULL, 0);
	}
}

static struct et_value place_value(const struct et_entity *e, int field)
{
	bool package = e->kind >= ET_REQUIREMENT_PACKAGE && e->kind <= ET_EXECUTION_PACKAGE;
	int64_t project = et_project(e);

	if (field == FIELD_PROJECT_ID && project)
		return guid_value(ET_PROJECT, project);
	if ((field == FIELD_PROJECT || field == FIELD_PROJECT_NAME) && project)
		return word_value(et_project_name(project));
	if (!et_kinds[e->kind].has_package && !package)
		return number_value(ET_NULL, 0);
	if (field == FIELD_PACKAGE_ID)
		return guid_value(package ? e->kind : et_package_kind(e->kind), et_package(e));
	if (field == FIELD_PACKAGE || field == FIELD_PACKAGE_NAME)
		return word_value(et_package_name(et_package(e)));
	return number_value(ET_NULL, 0);
}

static struct et_value record_value(struct et_call *c, const struct et_entity *e, int field)
{
	switch (field) {
	case FIELD_CREATED_AT:
		return number_value(ET_TIME, e->record->created_at);
	case FIELD_LAST_UPDATED_AT:
		return number_value(ET_TIME, e->record->updated_at);
	case FIELD_VERSION_NUMBER:
		return number_value(ET_NUMBER, et_version(e));
	case FIELD_HAS_ATTACHMENTS:
		return number_value(ET_NUMBER, et_has_attachments(c, e));
	default:
		return place_value(e, field);
	}
}

struct et_value et_value_of(struct et_call *c, const struct et_entity *e, int field)
{
	char made_up[48];
	struct str name;

	switch (field) {
	case FIELD_ID:
		return guid_value(e->kind, e->id);
	case FIELD_NAME:
	case FIELD_SUMMARY:
		name = et_name(e, made_up);
		return text_value(name.ptr ? name.ptr : "", name.len);
	case FIELD_NUMBER:
	case FIELD_INCIDENT_NUMBER:
		return number_value(ET_NUMBER, e->id);
	case FIELD_ENTITY_TYPE:
		return word_value(et_kinds[e->kind].entity_type);
	}
	if (e->attachment)
		return attachment_value(c, e->attachment, field);
	return e->record ? record_value(c, e, field) : place_value(e, field);
}

int et_value_compare(const struct et_value *a, const struct et_value *b)
{
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (a->kind == ET_TEXT)
		return text_compare(&a->text, &b->text);
	return a->number < b->number ? -1 : a->number > b->number;
}

static bool parse_time(const char *text, int64_t *ret)
{
	struct date_time t = {0};
	char separator = 0;
	int n = sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d", &t.year, &t.month, &t.day, &separator,
		       &t.hour, &t.minute, &t.second);

	if (n < 3 || t.month < 1 || t.month > 12 || t.day < 1 || t.day > 31)
		return false;
	*ret = clock_join(&t);
	return true;
}

/* The operand as a value of the same kind; false: the two cannot be compared. */
static bool same_kind(const struct et_value *v, const struct str *operand, struct et_value *ret)
{
	*ret = number_value(v->kind, 0);
	switch (v->kind) {
	case ET_NULL:
		return false;
	case ET_NUMBER:
		ret->number =
			strcasecmp(operand->ptr, "true") == 0 ? 1 : strtoll(operand->ptr, NULL, 10);
		return true;
	case ET_TIME:
		return parse_time(operand->ptr, &ret->number);
	case ET_TEXT:
		ret->text = text_fold(operand->ptr, operand->len);
		return true;
	}
	return false;
}

static bool text_fits(enum et_test test, const struct str *s, const struct str *part)
{
	if (part->len > s->len)
		return false;
	if (test == TEST_STARTS)
		return memcmp(s->ptr, part->ptr, part->len) == 0;
	if (test == TEST_ENDS)
		return memcmp(s->ptr + s->len - part->len, part->ptr, part->len) == 0;
	return !part->len || memmem(s->ptr, s->len, part->ptr, part->len) != NULL;
}

static bool value_fits(enum et_test test, const struct et_value *v, const struct et_value *wanted)
{
	int order = et_value_compare(v, wanted);

	switch (test) {
	case TEST_EQ:
		return order == 0;
	case TEST_NE:
		return order != 0;
	case TEST_LT:
		return order < 0;
	case TEST_LE:
		return order <= 0;
	case TEST_GT:
		return order > 0;
	case TEST_GE:
		return order >= 0;
	case TEST_HAS:
	case TEST_STARTS:
	case TEST_ENDS:
		return v->kind == ET_TEXT && text_fits(test, &v->text, &wanted->text);
	}
	return false;
}

/* `Project` and `Package` are compared by id if the operand is one, else by name. */
static int meant_field(int field, const struct str *operand)
{
	enum et_kind kind;
	int64_t id;

	if ((field == FIELD_PROJECT || field == FIELD_PACKAGE) &&
	    et_guid_parse(operand, &kind, &id))
		return field == FIELD_PROJECT ? FIELD_PROJECT_ID : FIELD_PACKAGE_ID;
	return field;
}

static bool operand_fits(struct et_call *c, const struct et_filter *f, const struct et_entity *e,
			 const struct str *operand)
{
	struct et_value v = et_value_of(c, e, meant_field(f->field, operand)), wanted;
	bool fits = false;

	if (same_kind(&v, operand, &wanted))
		fits = value_fits(f->test, &v, &wanted);
	str_free(&wanted.text);
	str_free(&v.text);
	return fits;
}

bool et_filter_fits(struct et_call *c, const struct et_filter *f, const struct et_entity *e)
{
	if (!f)
		return true;
	switch (f->op) {
	case FILTER_AND:
		return et_filter_fits(c, f->left, e) && et_filter_fits(c, f->right, e);
	case FILTER_OR:
		return et_filter_fits(c, f->left, e) || et_filter_fits(c, f->right, e);
	case FILTER_NOT:
		return !et_filter_fits(c, f->left, e);
	case FILTER_TEST:
		break;
	}
	for (size_t i = 0; i < f->n_operands; i++)
		if (operand_fits(c, f, e, &f->operands[i]))
			return true;
	return false;
}
