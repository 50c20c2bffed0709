/* SPDX-License-Identifier: MIT */
/*
 * Family 1: bytes for an attachment id that exists already, and nothing else. How an id comes
 * to exist is unknown; here a toggle says which do. What was uploaded stands in the collection
 * "attachments", a record for each id.
 */
#include "rillsoft.h"

#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct collection *collection(const struct ris_call *c)
{
	return &c->ris->emu->store->collections[0];
}

static bool exists(const struct ris_call *c)
{
	int64_t number = c->attachment_id - RIS_ATTACHMENT_BASE;

	return number >= 1 && number <= ris_setting(c, RIS_SET_ATTACHMENTS);
}

/* What was uploaded for the id, or NULL. */
static struct attachment *uploaded(const struct ris_call *c, const struct record *r)
{
	const char *type = collection(c)->owner_type;
	const struct rows *rows =
		r ? store_owned(c->ris->emu->store, type, strlen(type), r->row.id) : NULL;

	return rows && rows->n ? (struct attachment *)rows->at[0] : NULL;
}

/* both parameters are optional, or one is not; what they name must exist. */
static bool check_scope(struct ris_call *c)
{
	enum ris_attachment_scope scope =
		(enum ris_attachment_scope)ris_setting(c, RIS_SET_ATTACHMENT_SCOPE);
	struct str project = request_query(c->rq, "project_id");
	struct str portfolio = request_query(c->rq, "portfolio_id");
	int status = 0;

	if ((scope == RIS_SCOPE_PROJECT && !project.ptr) ||
	    (scope == RIS_SCOPE_PORTFOLIO && !portfolio.ptr))
		status = 400;
	else if ((project.ptr && !ris_project(c, strtoll(project.ptr, NULL, 10))) ||
		 (portfolio.ptr && strtoll(portfolio.ptr, NULL, 10) != RIS_PORTFOLIO_ID))
		status = 404;
	str_free(&project);
	str_free(&portfolio);
	if (status)
		ris_refuse(c, status);
	return !status;
}

static struct attachment *make(struct ris_call *c, const char *name, struct record *r)
{
	const char *type = collection(c)->owner_type;
	struct attachment *a = store_add_attachment(c->ris->emu->store, "", clock_now());

	if (!r)
		r = store_add_record(collection(c), name, strlen(name), clock_now());
	str_set(&a->name, name, strlen(name));
	store_set_owner(c->ris->emu->store, a, type, strlen(type), &r->row.id);
	return a;
}

void ris_attachment_upload(struct ris_call *c)
{
	const struct multipart_file *file;
	struct record *r;
	struct attachment *a;
	char name[24];

	if (!exists(c)) {
		ris_refuse(c, 404);
		return;
	}
	if (!check_scope(c) || !(file = ris_file(c)))
		return;
	snprintf(name, sizeof(name), "%lld", (long long)c->attachment_id);
	r = store_record_named(collection(c), name);
	a = uploaded(c, r);
	if (!a)
		a = make(c, name, r);
	str_set(&a->filename, file->filename.ptr, file->filename.len);
	ris_store(c, a, file);
	a->updated_at = clock_now();
	ris_done(c, ris_setting(c, RIS_SET_CREATE_STATUS) ? 200 : 201);
}

void ris_attachment_download(struct ris_call *c)
{
	const struct attachment *a = NULL;
	char name[24];

	snprintf(name, sizeof(name), "%lld", (long long)c->attachment_id);
	if (exists(c))
		a = uploaded(c, store_record_named(collection(c), name));
	if (a)
		ris_serve_bytes(c, &a->filename, a->path);
	else
		ris_refuse(c, 404);
}
