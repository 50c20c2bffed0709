/* SPDX-License-Identifier: MIT */
/* The routes of section 2: where a path leads, and which verbs are known there. */
#include "perscom.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>

#define SEGMENTS_MAX 8

struct path {
	const char *at[SEGMENTS_MAX];
	size_t len[SEGMENTS_MAX];
	size_t n;
};

static bool split(const char *path, struct path *ret)
{
	ret->n = 0;
	while (*path) {
		path += strspn(path, "/");
		if (!*path)
			break;
		if (ret->n == SEGMENTS_MAX)
			return false;
		ret->at[ret->n] = path;
		ret->len[ret->n] = strcspn(path, "/");
		path += ret->len[ret->n++];
	}
	return true;
}

static bool is(const struct path *p, size_t i, const char *text)
{
	return i < p->n && p->len[i] == strlen(text) && memcmp(p->at[i], text, p->len[i]) == 0;
}

/* A key that is no number is looked up all the same, and not found. */
static int64_t key(const struct path *p, size_t i)
{
	int64_t id = 0;

	for (size_t k = 0; k < p->len[i]; k++) {
		if (p->at[i][k] < '0' || p->at[i][k] > '9' || id > INT64_MAX / 100)
			return -1;
		id = id * 10 + (p->at[i][k] - '0');
	}
	return id;
}

static bool known_verb(const struct call *c)
{
	bool get = is_verb(c, "GET");
	bool post = is_verb(c, "POST");
	bool patch = is_verb(c, "PATCH");
	bool delete = is_verb(c, "DELETE");

	switch (c->target) {
	case TARGET_LIST:
		return get || post;
	case TARGET_SEARCH:
	case TARGET_PURGE:
		return post;
	case TARGET_ITEM:
		return get || patch || delete || is_verb(c, "PUT");
	case TARGET_BATCH:
		return post || patch || delete;
	case TARGET_RELATION:
		if (strcmp(c->relation, "attach") == 0)
			return post;
		return strcmp(c->relation, "detach") == 0 ? delete : patch;
	}
	return false;
}

static bool take_relation(struct call *c, const struct path *p, size_t i)
{
	static const char *const names[] = {"attach", "detach", "sync", "toggle"};

	for (size_t k = 0; c->nested && k < 4; k++) {
		if (is(p, i, names[k])) {
			c->target = TARGET_RELATION;
			c->relation = xstrdup(names[k]);
			return true;
		}
	}
	return false;
}

/* What follows the resource's name: nothing, `search`, `batch`, an id, or a relation's verb. */
static bool take_target(struct call *c, const struct path *p, size_t i)
{
	if (i == p->n) {
		c->target = TARGET_LIST;
		return true;
	}
	if (i + 1 == p->n && (is(p, i, "search") || is(p, i, "batch"))) {
		/* Only GET could mean a row of that name, and it would not be found. */
		c->target = is(p, i, "search") ? TARGET_SEARCH : TARGET_BATCH;
		return true;
	}
	if (i + 1 == p->n && take_relation(c, p, i))
		return true;
	c->id = key(p, i);
	if (i + 2 == p->n && c->nested && is(p, i + 1, "pivot")) {
		c->target = TARGET_RELATION;
		c->relation = xstrdup("pivot");
		return true;
	}
	c->target = TARGET_ITEM;
	return i + 1 == p->n;
}

static bool take_resource(struct call *c, const struct path *p)
{
	if (p->n == 2 && is(p, 1, "cache")) {
		c->target = TARGET_PURGE;
		c->resource = resource_attachments();
		return true;
	}
	c->resource = p->n > 1 ? resource_find(p->at[1], p->len[1]) : NULL;
	if (!c->resource || setting(c, SET_ERA) < c->resource->since)
		return false;
	if (is(p, 1, "users") && is(p, 3, "attachments")) { /* P-10: no other owner has this */
		c->nested = true;
		c->user_id = key(p, 2);
		c->resource = resource_attachments();
		return take_target(c, p, 4);
	}
	c->owned = is(p, 1, "users") && p->n > 3;
	if (c->owned) {
		c->user_id = key(p, 2);
		c->resource = resource_find(p->at[3], p->len[3]);
		return c->resource && c->resource->of_users &&
		       setting(c, SET_ERA) >= c->resource->since && take_target(c, p, 4) &&
		       c->target != TARGET_BATCH;
	}
	return take_target(c, p, 2);
}

int route(struct call *c)
{
	struct path p;

	if (!split(c->rq->path, &p) || p.n == 0)
		return 404;
	if (!is(&p, 0, "v1") && !is(&p, 0, "v2"))
		return p.at[0][0] == 'v' && p.len[0] > 1 && p.at[0][1] >= '0' && p.at[0][1] <= '9'
			       ? 400
			       : 404;
	if (!take_resource(c, &p))
		return 404;
	return known_verb(c) ? 0 : 405;
}
