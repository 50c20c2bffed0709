/* SPDX-License-Identifier: MIT */
/* The client (tenant, R-15), its projects and portfolios: section 2. */
#include "rillsoft.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>

static void put_client(struct ris_call *c)
{
	struct buffer *out = &c->rs->body;

	buffer_putc(out, '{');
	ris_put_number(out, "id", RIS_CLIENT_ID);
	ris_put_text(out, "name", "ACME Engineering");
	ris_put_text(out, "description", NULL);
	buffer_putc(out, '}');
}

void ris_client(struct ris_call *c)
{
	ris_begin(c, 200);
	put_client(c);
	ris_end(c);
}

void ris_clients(struct ris_call *c)
{
	ris_begin(c, 200);
	buffer_putc(&c->rs->body, '[');
	put_client(c);
	buffer_putc(&c->rs->body, ']');
	ris_end(c);
}

int64_t ris_project_id(const struct store *s, const struct collection *project)
{
	return RIS_PROJECT_ID_BASE + (project - s->collections);
}

struct collection *ris_project(const struct ris_call *c, int64_t id)
{
	struct store *s = c->ris->emu->store;
	int64_t index = id - RIS_PROJECT_ID_BASE;

	if (id < 0 || index < 1 || (size_t)index >= s->n_collections)
		return NULL;
	return &s->collections[index];
}

/* versionId grows with saves of projects, never with documents (section 11). */
static void put_project(struct ris_call *c, const struct collection *p)
{
	struct buffer *out = &c->rs->body;
	int64_t id = ris_project_id(c->ris->emu->store, p);
	char *code = xasprintf("P%lld", (long long)id);
	char *path = xasprintf("/Projects/2026/%s", p->name);
	char uuid[RIS_UUID_SIZE];

	ris_uuid(p, 0, uuid);
	buffer_json_comma(out);
	buffer_putc(out, '{');
	ris_put_number(out, "id", id);
	ris_put_number(out, "versionId", 9 + c->ris->saves);
	ris_put_text(out, "uuid", uuid);
	ris_put_text(out, "name", p->name);
	ris_put_text(out, "description", NULL);
	ris_put_text(out, "start", "2026-01-15T09:00:00");
	ris_put_text(out, "finish", "2026-11-30T17:00:00");
	ris_put_text(out, "code", code);
	ris_put_text(out, "customer", "ACME");
	ris_put_text(out, "category", "Build");
	ris_put_number(out, "priority", 500);
	ris_put_text(out, "status", "active");
	ris_put_text(out, "path", path);
	buffer_putc(out, '}');
	free(code);
	free(path);
}

void ris_projects(struct ris_call *c)
{
	const struct store *s = c->ris->emu->store;

	ris_begin(c, 200);
	buffer_putc(&c->rs->body, '[');
	for (size_t i = 1; i < s->n_collections; i++)
		put_project(c, &s->collections[i]);
	buffer_putc(&c->rs->body, ']');
	ris_end(c);
}

void ris_portfolios(struct ris_call *c)
{
	struct buffer *out = &c->rs->body;

	ris_begin(c, 200);
	buffer_puts(out, "[{");
	ris_put_number(out, "id", RIS_PORTFOLIO_ID);
	ris_put_text(out, "name", "Plants");
	ris_put_text(out, "description", NULL);
	buffer_puts(out, "}]");
	ris_end(c);
}
