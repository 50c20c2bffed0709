/* SPDX-License-Identifier: MIT */
/*
 * The two caches in front of GET (section 3). A purge takes effect purge_delay_ms after the write that
 * caused it; until then, GETs keep getting what was cached before it (P-6).
 *
 * app: 200s, 7 days, keyed by URL and token, emptied by any write.
 * edge: keyed by URL and what Vary names; a write purges by surrogate key. A list has the class's key
 * only if it is not empty, and the keys of the rows in it: creating purges the class, updating and
 * deleting only the row. So an empty list outlives its first file, and no list notices a row moved in.
 */
#include "perscom.h"

#include "alloc.h"
#include "clock.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define APP_SECONDS  (7 * 86400)
#define EDGE_SECONDS (30 * 86400)

struct cached {
	char *key;
	enum cache_mode mode;
	struct response response;
	int64_t stored_at;
	const char *model; /* of the class key; a literal */
	int64_t *ids;
	size_t n_ids;
};

struct purge {
	int64_t due_ms;
	enum change_kind kind;
	const char *model; /* a literal; NULL: everything */
	int64_t id;
};

struct perscom_cache {
	struct table entries;
	struct purge *queue; /* in order of due_ms as long as the delay is not lowered */
	size_t n_queue;
};

struct perscom_cache *cache_new(void)
{
	return xzalloc(sizeof(struct perscom_cache));
}

static void cached_free(struct cached *e)
{
	if (!e)
		return;
	response_free(&e->response);
	free(e->key);
	free(e->ids);
	free(e);
}

void cache_free(struct perscom_cache *cache)
{
	size_t pos = 0;
	struct cached *e;

	while ((e = table_next(&cache->entries, &pos)))
		cached_free(e);
	table_free(&cache->entries);
	free(cache->queue);
	free(cache);
}

static bool hit_by(const struct cached *e, const struct purge *purge)
{
	if (e->mode == CACHE_APP || !purge->model)
		return true;
	if (!e->model || strcmp(e->model, purge->model) != 0)
		return false;
	if (purge->kind == CHANGE_CREATED && e->n_ids)
		return true;
	for (size_t i = 0; i < e->n_ids; i++)
		if (e->ids[i] == purge->id)
			return true;
	return false;
}

static void carry_out(struct perscom_cache *cache, const struct purge *purge)
{
	struct cached **hit = xmalloc(cache->entries.n * sizeof(struct cached *));
	size_t n = 0, pos = 0;
	struct cached *e;

	while ((e = table_next(&cache->entries, &pos)))
		if (hit_by(e, purge))
			hit[n++] = e;
	for (size_t i = 0; i < n; i++) {
		table_remove(&cache->entries, hit[i]->key, strlen(hit[i]->key));
		cached_free(hit[i]);
	}
	free(hit);
}

static void carry_out_due(struct perscom_cache *cache)
{
	int64_t now = clock_steady_ms();
	size_t kept = 0;

	for (size_t i = 0; i < cache->n_queue; i++) {
		if (cache->queue[i].due_ms <= now)
			carry_out(cache, &cache->queue[i]);
		else
			cache->queue[kept++] = cache->queue[i];
	}
	cache->n_queue = kept;
}

void cache_purge(struct perscom *p, enum change_kind kind, const char *model, int64_t id)
{
	struct perscom_cache *cache = p->cache;
	int64_t delay = p->emu->settings.values[SET_PURGE_DELAY_MS];

	if (p->emu->settings.values[SET_CACHE] == CACHE_OFF && !cache->entries.n)
		return;
	cache->queue = xrealloc(cache->queue, (cache->n_queue + 1) * sizeof(*cache->queue));
	cache->queue[cache->n_queue++] = (struct purge){clock_steady_ms() + delay, kind, model, id};
	if (!delay)
		carry_out_due(cache);
}

void perscom_changed(struct emulator *emu, enum change_kind kind, int64_t id)
{
	cache_purge(emu->state, kind, id ? "attachment" : NULL, id);
}

static char *cache_key(struct call *c, enum cache_mode mode)
{
	const char *host = request_header(c->rq, "Host");
	const char *authorization = request_header(c->rq, "Authorization");
	const char *tenant = request_header(c->rq, "X-Perscom-Id");

	return xasprintf("%d %s %s%s?%s %s %s", (int)mode, c->rq->method, host ? host : "",
			 c->rq->path, c->rq->query, authorization ? authorization : "",
			 mode == CACHE_EDGE && tenant ? tenant : "");
}

bool cache_answer(struct call *c, enum cache_mode mode)
{
	struct perscom_cache *cache = c->p->cache;
	char *key = cache_key(c, mode);
	struct cached *e;
	int64_t age, lifetime = mode == CACHE_APP ? APP_SECONDS : EDGE_SECONDS;

	carry_out_due(cache);
	e = table_get(&cache->entries, key, strlen(key));
	free(key);
	age = e ? clock_now() - e->stored_at : 0;
	if (!e || age > lifetime)
		return false;
	response_free(c->rs);
	response_copy(c->rs, &e->response);
	if (mode == CACHE_EDGE) {
		response_header(c->rs, "Age", "%lld", (long long)age);
		response_header(c->rs, "X-Cache", "HIT");
	}
	return true;
}

static bool worth_keeping(const struct call *c, enum cache_mode mode)
{
	if (c->rs->status == 404)
		return mode == CACHE_EDGE && setting(c, SET_EDGE_CACHE_404);
	return c->rs->status == 200;
}

void cache_keep(struct call *c, enum cache_mode mode)
{
	struct perscom_cache *cache = c->p->cache;
	struct cached *e;

	if (!worth_keeping(c, mode))
		return;
	e = xzalloc(sizeof(*e));
	e->key = cache_key(c, mode);
	e->mode = mode;
	e->stored_at = clock_now();
	e->model = c->n_shown ? c->resource->scope : NULL;
	e->ids = c->shown;
	e->n_ids = c->n_shown;
	c->shown = NULL;
	c->n_shown = c->cap_shown = 0;
	response_copy(&e->response, c->rs);
	cached_free(table_put(&cache->entries, e->key, strlen(e->key), e));
}
