/* SPDX-License-Identifier: MIT */

/* The server of sync_world.h: what each kind does with a call, and how calls wait and end. */

#include "sync_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <attachfs/clock.h>

#include "auth.h"

enum op { OP_CREATE, OP_REPLACE, OP_UPDATE, OP_REMOVE, OP_LIST, OP_FETCH };

enum fate { FATE_DONE, FATE_LOST, FATE_LOST_UNDONE, FATE_RETRY, FATE_REFUSED, FATES };

struct flying {
	struct flying *next;
	struct server *server;
	enum op op;
	bool executed;
	struct remote_change *items;
	size_t n;
	remote_done *done;
	void *ctx;
	/* OP_LIST */
	unsigned record;
	struct remote_sink sink;
	struct remote_file *files;
	size_t n_files;
	int error;
	/* OP_FETCH */
	char id[REMOTE_ID_MAX + 1];
	struct remote_fetch_sink fetch;
	uint64_t off, len;
	uint8_t bytes[WORLD_BYTES];
	size_t size;
};

struct server {
	struct remote remote; /* first */
	struct remote_ops ops;
	struct world *world;
	struct pool *pool;
	pthread_mutex_t lock; /* the list, and the world while a call is done */
	struct flying *flying;
	uint64_t next_fetch;
};

/* ---- the files ---- */

static struct world_file *find_id(struct world *w, const char *id)
{
	size_t i = id ? strtoul(id, NULL, 10) : 0;

	return i && i <= w->n_files && w->files[i - 1].there ? &w->files[i - 1] : NULL;
}

struct world_file *world_at(struct world *w, unsigned record, const char *name)
{
	for (size_t i = 0; i < w->n_files; i++) {
		struct world_file *f = &w->files[i];

		if (f->there && f->record == record && !strcmp(f->name, name))
			return f;
	}
	return NULL;
}

static void tell(const struct world *w, const struct world_file *f, struct remote_file *out)
{
	char text[64];

	snprintf(text, sizeof(text), "%zu", (size_t)(f - w->files) + 1);
	*out = (struct remote_file){
		.id = strdup(text), .name = strdup(f->name), .raw_name = strdup(f->name)};
	snprintf(text, sizeof(text), "r%u", f->record);
	out->record = strdup(text);
	snprintf(text, sizeof(text), "v%u", f->version);
	out->version = strdup(text);
	out->raw_filename = w->kind == WORLD_PERSCOM ? strdup(f->filename) : NULL;
	out->size = w->caps.sizes_listed ? (int64_t)f->size : -1;
	out->ctime_ns = f->ctime_ns;
	out->mtime_ns = f->mtime_ns;
}

static bool same_bytes(const struct world_file *f, const uint8_t *bytes, size_t size)
{
	return f->size == size && !f->filler && !memcmp(f->bytes, bytes, size);
}

/* Our call is about to end what @f holds: nobody may still want it and find it nowhere else. */
static void check_loss(struct world *w, const struct world_file *f, const char *what)
{
	uint8_t bytes[WORLD_BYTES];

	for (size_t i = 0; i < w->n_wishes; i++) {
		const struct world_wish *x = &w->wishes[i];
		size_t size = world_content(x->content, bytes);
		bool elsewhere = false;

		if (!x->live || x->excused || !size || !f->acknowledged ||
		    !same_bytes(f, bytes, size))
			continue;
		for (size_t k = 0; k < w->n_files && !elsewhere; k++)
			elsewhere = w->files[k].there && &w->files[k] != f &&
				    same_bytes(&w->files[k], bytes, size);
		if (!elsewhere)
			world_breach(w, "%s of '%s' ends the only copy of '%s'", what, f->name,
				     x->name);
	}
}

static void take_bytes(struct world *w, struct world_file *f, const struct remote_change *c,
		       const char *what)
{
	uint8_t bytes[WORLD_BYTES] = {0};
	size_t size = c->filler ? w->caps.create_min_bytes : c->size;

	if (!c->filler && size && (c->fd < 0 || pread(c->fd, bytes, size, 0) != (ssize_t)size))
		world_breach(w, "the bytes of '%s' cannot be read", f->name);
	if (f->version && !same_bytes(f, bytes, size))
		check_loss(w, f, what);
	f->acknowledged = false;
	f->filler = c->filler;
	f->size = size;
	memcpy(f->bytes, bytes, sizeof(bytes));
	w->uploads += !c->filler;
	w->fillers += c->filler;
	f->version = ++w->next_version;
}

static bool is_tame(const char *name)
{
	return !strchr(name, '#');
}

static void take_names(struct world_file *f, const struct remote_change *c)
{
	if (c->name)
		snprintf(f->name, sizeof(f->name), "%s", c->name);
	snprintf(f->filename, sizeof(f->filename), "%s",
		 c->name && is_tame(c->name) ? c->name
		 : c->token		     ? c->token
					     : f->name);
}

static void take_mtime(const struct world *w, struct world_file *f, const struct remote_change *c)
{
	int64_t ns = c->mtime_ns;

	if (!w->caps.set_mtime || ns == REMOTE_TIME_NONE)
		ns = clock_real_ns();
	f->mtime_ns = ns - ns % w->caps.mtime_resolution_ns;
}

/* ---- what one item does ---- */

static unsigned record_number(const struct remote_change *c)
{
	return c->record ? (unsigned)strtoul(c->record + 1, NULL, 10) : 0;
}

static void do_create(struct world *w, struct remote_change *c)
{
	unsigned record = record_number(c);
	struct world_file *f = w->caps.names_unique ? world_at(w, record, c->name) : NULL;

	w->creates++;
	if (!record || !c->name || c->id)
		world_breach(w, "a create lacks its place or name");
	if (!f) {
		if (w->n_files == WORLD_FILES)
			abort();
		f = &w->files[w->n_files++];
		*f = (struct world_file){
			.there = true, .record = record, .ctime_ns = clock_real_ns()};
	}
	take_names(f, c);
	take_bytes(w, f, c, "create");
	take_mtime(w, f, c);
	tell(w, f, &c->file);
}

static void gone(struct remote_change *c)
{
	c->outcome = REMOTE_GONE;
	c->error = -ENOENT;
}

static struct world_file *addressed(struct world *w, struct remote_change *c, bool moves)
{
	struct world_file *f = find_id(w, c->id);

	if (!c->known_name)
		world_breach(w, "a change does not tell the known name");
	/* where files move, one may be elsewhere by a call whose answer was lost */
	if (f && !moves && f->record != record_number(c) && !w->caps.move_in_place)
		world_breach(w, "a change of '%s' goes to the wrong record", f->name);
	if (!f)
		gone(c);
	return f;
}

static void do_replace(struct world *w, struct remote_change *c)
{
	struct world_file *f = addressed(w, c, false);

	if (!f)
		return;
	if (w->caps.names_unique && c->name && strcmp(c->name, f->name))
		world_breach(w, "a replace renames '%s' to '%s'", f->name, c->name);
	if (w->kind == WORLD_PERSCOM && !c->name)
		snprintf(f->filename, sizeof(f->filename), "%s", c->token ? c->token : f->name);
	else
		take_names(f, c);
	take_bytes(w, f, c, "replace");
	take_mtime(w, f, c);
	tell(w, f, &c->file);
}

static void do_update(struct world *w, struct remote_change *c)
{
	struct world_file *f = addressed(w, c, c->move);

	if (!f)
		return;
	if (c->name) {
		snprintf(f->name, sizeof(f->name), "%s", c->name);
		snprintf(f->filename, sizeof(f->filename), "%s", c->name);
	}
	if (c->move)
		f->record = record_number(c);
	take_mtime(w, f, c);
	tell(w, f, &c->file);
}

static void do_remove(struct world *w, struct remote_change *c)
{
	struct world_file *f = addressed(w, c, false);

	/* the name is what counts there */
	if (w->caps.names_unique)
		f = world_at(w, record_number(c), c->known_name ? c->known_name : "");
	if (!f) {
		gone(c);
		return;
	}
	c->outcome = REMOTE_DONE;
	if (w->caps.names_unique && f != find_id(w, c->id))
		world_breach(w, "a remove of '%s' by name hits another file", f->name);
	check_loss(w, f, "remove");
	f->there = false;
	w->removed++;
}

static void do_item(struct world *w, enum op op, struct remote_change *c, enum fate fate)
{
	bool done = fate == FATE_DONE || fate == FATE_LOST;

	c->outcome = fate == FATE_RETRY	    ? REMOTE_RETRY
		     : fate == FATE_REFUSED ? REMOTE_REFUSED
		     : fate == FATE_DONE    ? REMOTE_DONE
					    : REMOTE_UNKNOWN;
	c->error = fate == FATE_RETRY	  ? -EHOSTDOWN
		   : fate == FATE_REFUSED ? -EINVAL
		   : fate == FATE_DONE	  ? 0
					  : -ETIMEDOUT;
	if (!done)
		return;
	if (op == OP_CREATE)
		do_create(w, c);
	else if (op == OP_REPLACE)
		do_replace(w, c);
	else if (op == OP_UPDATE)
		do_update(w, c);
	else
		do_remove(w, c);
	if (fate == FATE_LOST) {
		c->outcome = REMOTE_UNKNOWN;
		c->error = -ETIMEDOUT;
		remote_file_clear(&c->file);
	}
}

/* ---- what a call does ---- */

/* One name that is not there refuses them all (S-13). */
static bool lacks_one(struct world *w, const struct flying *f)
{
	for (size_t i = 0; i < f->n; i++)
		if (!world_at(w, record_number(&f->items[i]),
			      f->items[i].known_name ? f->items[i].known_name : ""))
			return true;
	return false;
}

static bool has_refused(const struct world *w, const struct flying *f)
{
	for (size_t i = 0; w->refused && i < f->n; i++)
		if (!strcmp(f->items[i].name, w->refused))
			return true;
	return false;
}

static void refuse_all(struct flying *f, int error)
{
	for (size_t i = 0; i < f->n; i++) {
		f->items[i].outcome = REMOTE_REFUSED;
		f->items[i].error = error;
	}
}

static void do_write(struct world *w, struct flying *f)
{
	enum fate fate =
		w->faults && world_chance(w, 30) ? (enum fate)world_pick(w, FATES) : FATE_DONE;
	bool each = f->op == OP_CREATE && f->n > 1 && w->faults && world_chance(w, 30);

	w->remove_calls += f->op == OP_REMOVE;
	w->create_calls += f->op == OP_CREATE;
	if (f->op == OP_REMOVE && w->caps.names_unique && lacks_one(w, f)) {
		refuse_all(f, -ENOENT);
		return;
	}
	if (f->op == OP_CREATE && has_refused(w, f)) {
		refuse_all(f, -EINVAL);
		return;
	}
	for (size_t i = 0; i < f->n; i++)
		do_item(w, f->op, &f->items[i], each ? (enum fate)world_pick(w, FATES) : fate);
}

struct remote_file *world_tell(const struct world *w, unsigned record, size_t *ret_n)
{
	struct remote_file *files = calloc(w->n_files + 1, sizeof(*files));

	*ret_n = 0;
	for (size_t i = 0; i < w->n_files && files; i++)
		if (w->files[i].there && (!record || w->files[i].record == record))
			tell(w, &w->files[i], &files[(*ret_n)++]);
	return files;
}

static void do_list(struct world *w, struct flying *f)
{
	if (w->faults && world_chance(w, 20))
		f->error = -EHOSTDOWN;
	else
		f->files = world_tell(w, f->record, &f->n_files);
}

static void do_fetch(struct world *w, struct flying *f)
{
	const struct world_file *file = find_id(w, f->id);

	if (w->faults && world_chance(w, 20)) {
		f->error = -EHOSTDOWN;
		return;
	}
	if (!file) {
		f->error = -ENOENT;
		return;
	}
	memcpy(f->bytes, file->bytes, sizeof(f->bytes));
	f->size = file->size;
}

static void answer_list(struct flying *f)
{
	if (!f->error)
		f->sink.page(f->sink.ctx, NULL, 0, f->files, f->n_files);
	f->sink.done(f->sink.ctx, f->error, NULL);
	for (size_t i = 0; i < f->n_files; i++)
		remote_file_clear(&f->files[i]);
	free(f->files);
}

static void answer_fetch(struct flying *f)
{
	uint64_t end = f->len && f->off + f->len < f->size ? f->off + f->len : f->size;
	bool more = !f->error && f->fetch.begin(f->fetch.ctx, (int64_t)f->size, f->off);

	if (more && end > f->off)
		more = f->fetch.data(f->fetch.ctx, f->bytes + f->off, end - f->off);
	f->fetch.done(f->fetch.ctx, f->error ? f->error : more ? 0 : -ECANCELED);
}

/* From now on the daemon may rely on it. */
static void acknowledge(struct flying *f)
{
	pthread_mutex_lock(&f->server->lock);
	for (size_t i = 0; i < f->n; i++) {
		struct world_file *file = find_id(f->server->world, f->items[i].file.id);

		if (file && f->items[i].outcome == REMOTE_DONE)
			file->acknowledged = true;
	}
	pthread_mutex_unlock(&f->server->lock);
}

static void answer_job(void *ctx)
{
	struct flying *f = ctx;

	acknowledge(f);

	if (f->op == OP_LIST)
		answer_list(f);
	else if (f->op == OP_FETCH)
		answer_fetch(f);
	else
		f->done(f->ctx, 0, "");
	free(f);
}

static struct flying *nth(struct server *s, bool executed, struct flying ***ret_slot)
{
	size_t n = 0, pick;

	for (struct flying *f = s->flying; f; f = f->next)
		n += f->executed == executed;
	if (!n)
		return NULL;
	pick = world_pick(s->world, (uint32_t)n);
	for (struct flying **slot = &s->flying;; slot = &(*slot)->next) {
		if ((*slot)->executed != executed || pick-- > 0)
			continue;
		*ret_slot = slot;
		return *slot;
	}
}

void server_execute(struct server *s)
{
	struct flying *f, **slot;

	pthread_mutex_lock(&s->lock);
	f = nth(s, false, &slot);
	if (f) {
		f->executed = true;
		if (f->op == OP_LIST)
			do_list(s->world, f);
		else if (f->op == OP_FETCH)
			do_fetch(s->world, f);
		else
			do_write(s->world, f);
	}
	pthread_mutex_unlock(&s->lock);
}

void server_answer(struct server *s)
{
	struct flying *f, **slot = NULL;

	pthread_mutex_lock(&s->lock);
	f = nth(s, true, &slot);
	if (f)
		*slot = f->next;
	pthread_mutex_unlock(&s->lock);
	if (f && pool_run(s->pool, answer_job, f) < 0)
		abort();
}

void server_finish(struct server *s)
{
	size_t n = server_in_the_air(s);

	for (size_t i = 0; i < n; i++) {
		server_execute(s);
		server_answer(s);
	}
}

size_t server_in_the_air(struct server *s)
{
	size_t n = 0;

	pthread_mutex_lock(&s->lock);
	for (const struct flying *f = s->flying; f; f = f->next)
		n++;
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* ---- the ops ---- */

static struct flying *new_flying(struct remote *r, enum op op)
{
	struct flying *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	f->server = (struct server *)r;
	f->op = op;
	return f;
}

static void fly(struct flying *f)
{
	struct server *s = f->server;
	struct flying **slot = &s->flying;

	pthread_mutex_lock(&s->lock);
	while (*slot)
		slot = &(*slot)->next;
	*slot = f;
	pthread_mutex_unlock(&s->lock);
}

static int write_op(struct remote *r, enum op op, unsigned limit, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx)
{
	struct server *s = (struct server *)r;
	struct flying *f;

	if (n > limit)
		world_breach(s->world, "a call of %zu items, at most %u are allowed", n, limit);
	for (size_t i = 1; i < n; i++)
		if (!r->caps.batch_spans_records && strcmp(items[i].record, items[0].record))
			world_breach(s->world, "a call spans records");
	f = new_flying(r, op);
	f->items = items;
	f->n = n;
	f->done = done;
	f->ctx = ctx;
	fly(f);
	return 0;
}

static int op_create(struct remote *r, enum transfer_class class, struct remote_change *items,
		     size_t n, remote_done *done, void *ctx)
{
	(void)class;
	return write_op(r, OP_CREATE, r->caps.batch_create, items, n, done, ctx);
}

static int op_replace(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx)
{
	(void)class;
	return write_op(r, OP_REPLACE, 1, items, n, done, ctx);
}

static int op_update(struct remote *r, enum transfer_class class, struct remote_change *items,
		     size_t n, remote_done *done, void *ctx)
{
	(void)class;
	return write_op(r, OP_UPDATE, r->caps.batch_update, items, n, done, ctx);
}

static int op_remove(struct remote *r, enum transfer_class class, struct remote_change *items,
		     size_t n, remote_done *done, void *ctx)
{
	(void)class;
	return write_op(r, OP_REMOVE, r->caps.batch_remove, items, n, done, ctx);
}

static int op_list_record(struct remote *r, enum transfer_class class, const char *collection,
			  const char *record, const struct remote_sink *sink)
{
	struct flying *f = new_flying(r, OP_LIST);

	(void)class;
	(void)collection;
	f->record = (unsigned)strtoul(record + 1, NULL, 10);
	f->sink = *sink;
	fly(f);
	return 0;
}

static int op_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		    const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		    const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	struct flying *f = new_flying(r, OP_FETCH);

	(void)class;
	(void)collection;
	(void)deadline_mono_ms;
	snprintf(f->id, sizeof(f->id), "%s", file->id);
	f->fetch = *sink;
	f->off = off;
	f->len = len;
	*ret_id = ++f->server->next_fetch;
	fly(f);
	return 0;
}

static void op_fetch_nothing(struct remote *r, uint64_t id)
{
	(void)r;
	(void)id;
}

/* Credentials that nobody doubts. */
static struct auth *make_auth(void)
{
	struct auth_config config = {.environment = "ATTACHFS_TOKEN",
				     .what = "token",
				     .option_file = "token_file",
				     .prefix = "Authorization: Bearer "};
	struct auth *auth;
	char message[256];

	setenv("ATTACHFS_TOKEN", "token", 1);
	if (auth_new(&config, &auth, message, sizeof(message)) < 0)
		abort();
	return auth;
}

struct server *server_new(struct world *w, struct pool *pool)
{
	struct server *s = calloc(1, sizeof(*s));

	if (!s)
		abort();
	s->remote.auth = make_auth();
	s->world = w;
	s->pool = pool;
	pthread_mutex_init(&s->lock, NULL);
	s->ops = (struct remote_ops){
		.list_record = op_list_record,
		.fetch = op_fetch,
		.fetch_cancel = op_fetch_nothing,
		.fetch_pause = op_fetch_nothing,
		.fetch_resume = op_fetch_nothing,
		.create = op_create,
		.replace = w->kind == WORLD_ET ? NULL : op_replace,
		.update = w->caps.rename_in_place ? op_update : NULL,
		.remove = op_remove,
	};
	s->remote.ops = &s->ops;
	s->remote.caps = w->caps;
	return s;
}

void server_free(struct server *s)
{
	pthread_mutex_destroy(&s->lock);
	auth_free(s->remote.auth);
	free(s);
}

struct remote *server_remote(struct server *s)
{
	return &s->remote;
}
