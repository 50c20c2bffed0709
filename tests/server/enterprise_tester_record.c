/* SPDX-License-Identifier: MIT */
/* One record: shown with its expanders; made, replaced and changed, with a temporary set (section 5). */
#include "enterprise_tester.h"

#include "clock.h"

#include <string.h>

static void reply(struct et_call *c, int status, struct record *r)
{
	struct et_entity e = et_entity_of(r);

	c->rs->status = status;
	et_put_entity(c, &c->rs->body, &e, EXPAND_NONE, false);
}

void et_serve_show(struct et_call *c)
{
	enum et_kind kind = c->route->kind;
	enum et_expand expand = EXPAND_NONE;
	struct et_entity e;

	if (!et_entity_by_guid(c, &c->ids[0], kind, &e)) {
		et_error(c, 404, "The entity could not be found.");
		return;
	}
	if (kind <= ET_STEP_RESULT && et_expands(c, "Attachments"))
		expand = EXPAND_ATTACHMENTS;
	else if ((kind == ET_SCRIPT_RUN && et_expands(c, "StepResults")) ||
		 (kind == ET_AGILE_RUN && et_expands(c, "Steps")))
		expand = EXPAND_STEPS;
	c->rs->status = 200;
	et_put_entity(c, &c->rs->body, &e, expand, false);
}

static json_t *read_body(struct et_call *c)
{
	const struct buffer *body = &c->rq->body;
	json_t *value = json_loadb(body->data ? body->data : "", body->len, JSON_ALLOW_NUL, NULL);

	if (json_is_object(value))
		return value;
	json_decref(value);
	et_error(c, 400, "The request body is not valid.");
	return NULL;
}

/* `|` separates packages, so it is reserved in these names (section 10). */
static bool check_name(struct et_call *c, enum et_kind kind, const json_t *body, bool required)
{
	const json_t *value = json_object_get(body, et_kinds[kind].title);
	const char *name = json_string_value(value);

	if (!value && !required)
		return true;
	if (!name || !*name) {
		et_error(c, 403, "You must specify a name.");
		return false;
	}
	if (kind != ET_INCIDENT && strchr(name, '|')) {
		et_error(c, 403, "The name must not contain the package path separator.");
		return false;
	}
	return true;
}

/* *ret_package stays 0 if there is none and none is needed. */
static bool check_package(struct et_call *c, enum et_kind kind, const json_t *body, bool required,
			  int64_t *ret_package)
{
	const json_t *value = json_object_get(body, "PackageId");
	struct str text = {(char *)json_string_value(value), json_string_length(value)};

	*ret_package = 0;
	if (kind == ET_INCIDENT || (!value && !required))
		return true;
	if (et_guid_of(&text, et_package_kind(kind), ret_package) && *ret_package >= 1 &&
	    *ret_package <= ET_PACKAGES)
		return true;
	et_error(c, 403, "You must specify a valid PackageId.");
	return false;
}

static void fill(struct record *r, enum et_kind kind, const json_t *body, int64_t package)
{
	const json_t *name = json_object_get(body, et_kinds[kind].title);

	if (name)
		str_set(&r->name, json_string_value(name), json_string_length(name));
	if (package)
		json_object_set_new(r->fields, "package", json_integer(package));
}

static void change(struct record *r, enum et_kind kind, const json_t *body, int64_t package)
{
	struct et_entity e = et_entity_of(r);

	fill(r, kind, body, package);
	r->updated_at = clock_now();
	json_object_set_new(r->fields, "version", json_integer(et_version(&e) + 1));
}

void et_serve_create(struct et_call *c)
{
	enum et_kind kind = c->route->kind;
	json_t *body = read_body(c);
	struct record *r;
	int64_t package;

	if (body && check_name(c, kind, body, true) &&
	    check_package(c, kind, body, true, &package) && et_set_check(c, kind, body)) {
		r = store_add_record(&c->et->emu->store->collections[kind], "", 0, clock_now());
		et_dress_record(r);
		fill(r, kind, body, package);
		et_set_consume(c, body, r);
		reply(c, kind == ET_SCRIPT ? 201 : 200, r); /* E-22 */
	}
	json_decref(body);
}

/* PUT replaces the record: what is needed to make one is needed here, too. */
static void replace(struct et_call *c, bool whole)
{
	enum et_kind kind = c->route->kind;
	struct et_entity e;
	json_t *body;
	int64_t package;

	if (!et_entity_by_guid(c, &c->ids[0], kind, &e)) {
		et_error(c, 404, "The entity could not be found.");
		return;
	}
	body = read_body(c);
	if (body && check_name(c, kind, body, whole) &&
	    check_package(c, kind, body, whole, &package) &&
	    (!whole || et_set_check(c, kind, body))) {
		change(e.record, kind, body, package);
		if (whole) {
			et_set_consume(c, body, e.record);
			reply(c, 200, e.record);
		} else {
			c->rs->status = 204;
		}
	}
	json_decref(body);
}

void et_serve_put(struct et_call *c)
{
	replace(c, true);
}

void et_serve_patch(struct et_call *c)
{
	replace(c, false);
}
