/* SPDX-License-Identifier: MIT */
/*
 * Versions: the store knows an attachment's newest bytes; the storage paths of all its versions, oldest
 * first, are kept here from its first change on. What never changed needs no history: its one version
 * is the path it has, and the milliseconds the store does not keep come from that path as well.
 */
#include "servicemax.h"

#include "alloc.h"
#include "clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct version {
	char *path;
	int64_t ms;
};

struct history {
	struct version *at; /* the last is the current one, whose path the attachment has, too */
	size_t n;
};

int64_t sm_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return ((int64_t)t.tv_sec + clock_offset()) * 1000 + t.tv_nsec / 1000000;
}

static struct history *history_of(struct servicemax *sm, int64_t id)
{
	return table_get(&sm->histories, &id, sizeof(id));
}

static int64_t derived_ms(const struct attachment *a)
{
	return a->updated_at * 1000 + (int64_t)(hash_bytes(a->path, strlen(a->path), 5) % 1000);
}

/* Not so after --data had another file for the same name. */
static bool is_current(const struct history *h, const struct attachment *a)
{
	return strcmp(h->at[h->n - 1].path, a->path) == 0;
}

int64_t sm_version_ms(struct servicemax *sm, const struct attachment *a)
{
	const struct history *h = history_of(sm, a->row.id);

	return h && is_current(h, a) ? h->at[h->n - 1].ms : derived_ms(a);
}

static void push(struct history *h, const char *path, int64_t ms)
{
	h->at = xrealloc(h->at, (h->n + 1) * sizeof(*h->at));
	h->at[h->n++] = (struct version){xstrdup(path), ms};
}

static struct history *begin(struct servicemax *sm, const struct attachment *a, int64_t ms)
{
	struct history *h = xzalloc(sizeof(*h));

	push(h, a->path, ms);
	table_put(&sm->histories, &a->row.id, sizeof(a->row.id), h);
	return h;
}

static struct history *keep(struct servicemax *sm, const struct attachment *a)
{
	struct history *h = history_of(sm, a->row.id);

	if (!h)
		return begin(sm, a, derived_ms(a));
	if (!is_current(h, a))
		push(h, a->path, derived_ms(a));
	return h;
}

void sm_version_begin(struct servicemax *sm, const struct attachment *a)
{
	if (history_of(sm, a->row.id))
		keep(sm, a);
	else
		begin(sm, a, sm_now_ms());
}

void sm_replacing(struct emulator *emu, const struct attachment *a)
{
	keep(emu->state, a);
}

void sm_version_add(struct servicemax *sm, struct attachment *a, struct blob *blob)
{
	struct history *h = keep(sm, a);
	int64_t now = sm_now_ms();

	free(a->path);
	a->path = store_new_path("");
	a->updated_at = now / 1000;
	blob_set_made_at(blob, a->updated_at);
	store_put_blob(sm->emu->store, a->path, blob);
	push(h, a->path, now);
}

struct attachment *sm_version_renew(struct servicemax *sm, struct attachment *a)
{
	struct store *s = sm->emu->store;
	struct history *h = keep(sm, a);
	struct attachment *fresh = store_add_attachment(s, a->path, a->created_at);

	str_set(&fresh->name, a->name.ptr, a->name.len);
	str_set(&fresh->filename, a->filename.ptr, a->filename.len);
	store_set_owner(s, fresh, a->owner_type.ptr, a->owner_type.len, &a->owner_id);
	table_remove(&sm->histories, &a->row.id, sizeof(a->row.id));
	table_put(&sm->histories, &fresh->row.id, sizeof(fresh->row.id), h);
	store_delete_attachment(s, a);
	return fresh;
}

/* The one before becomes current again, with its version_uuid: they never only go forward. */
bool sm_version_drop(struct servicemax *sm, struct attachment *a)
{
	struct history *h = keep(sm, a);
	struct version *last;

	if (h->n < 2)
		return false;
	store_drop_blob(sm->emu->store, a->path);
	free(h->at[--h->n].path);
	last = &h->at[h->n - 1];
	if (sm_set_of(sm->emu, SM_RESTORED_TIME) != 0)
		last->ms = sm_now_ms();
	free(a->path);
	a->path = xstrdup(last->path);
	a->updated_at = last->ms / 1000;
	return true;
}

static bool is_version(const char *path, const struct uuid *version)
{
	struct uuid own = sm_uuid_of_path(path);

	return sm_uuid_equal(&own, version);
}

const char *sm_version_path(struct servicemax *sm, const struct attachment *a,
			    const struct uuid *version)
{
	const struct history *h = history_of(sm, a->row.id);

	if (is_version(a->path, version))
		return a->path;
	for (size_t i = 0; h && i < h->n; i++)
		if (is_version(h->at[i].path, version))
			return h->at[i].path;
	return NULL;
}

static void free_history(struct history *h)
{
	for (size_t i = 0; i < h->n; i++)
		free(h->at[i].path);
	free(h->at);
	free(h);
}

/* @id has gone: its old bytes go, too. */
void sm_version_forget(struct servicemax *sm, int64_t id)
{
	struct history *h = table_remove(&sm->histories, &id, sizeof(id));

	if (!h)
		return;
	for (size_t i = 0; i < h->n; i++)
		store_drop_blob(sm->emu->store, h->at[i].path);
	free_history(h);
}

void sm_versions_free(struct servicemax *sm)
{
	size_t pos = 0;
	struct history *h;

	while ((h = table_next(&sm->histories, &pos)))
		free_history(h);
	table_free(&sm->histories);
}

/* Another client's write: a new path is a new version. A file has one name here, not two. */
void sm_changed(struct emulator *emu, enum change_kind kind, int64_t id)
{
	struct servicemax *sm = emu->state;
	struct attachment *a = store_attachment(emu->store, id);
	struct history *h = history_of(sm, id);

	if (kind == CHANGE_DELETED)
		sm_version_forget(sm, id);
	if (!a)
		return;
	str_set(&a->filename, a->name.ptr, a->name.len);
	if (!h)
		sm_version_begin(sm, a);
	else if (!is_current(h, a))
		push(h, a->path, sm_now_ms());
}
