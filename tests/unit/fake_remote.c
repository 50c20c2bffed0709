/* SPDX-License-Identifier: MIT */

#include "fake_remote.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX 200

struct row {
	bool used;
	char id[REMOTE_ID_MAX + 1], up[REMOTE_ID_MAX + 1]; /* of what it is in */
	char name[256], text[4096], fields[1024];
	size_t size;
	unsigned version;
};

static struct {
	pthread_mutex_t lock;
	struct row collections[MAX], records[MAX], files[MAX];
	unsigned next;
	int error;
	struct {
		const char *op;
		unsigned n;
	} calls[32];
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct remote_caps fake_caps;
struct remote_ops fake_ops;

static struct row *find(struct row *rows, const char *id)
{
	for (size_t i = 0; id && i < MAX; i++)
		if (rows[i].used && !strcmp(rows[i].id, id))
			return &rows[i];
	return NULL;
}

static struct row *add(struct row *rows, const char *up, const char *id, const char *name)
{
	size_t i = 0;

	while (i < MAX && rows[i].used)
		i++;
	if (i == MAX)
		abort();
	rows[i] = (struct row){.used = true, .version = 1};
	snprintf(rows[i].id, sizeof(rows[i].id), "%s", id);
	snprintf(rows[i].up, sizeof(rows[i].up), "%s", up);
	snprintf(rows[i].name, sizeof(rows[i].name), "%s", name);
	return &rows[i];
}

static void drop_below(struct row *rows, const char *up)
{
	for (size_t i = 0; i < MAX; i++)
		if (rows[i].used && !strcmp(rows[i].up, up))
			rows[i].used = false;
}

/* Counts; what is asked of a collection that does not exist is a mistake of the file system. */
static int begin(const char *op, const char *collection)
{
	pthread_mutex_lock(&server.lock);
	for (size_t i = 0; i < sizeof(server.calls) / sizeof(server.calls[0]); i++) {
		if (server.calls[i].op && strcmp(server.calls[i].op, op))
			continue;
		server.calls[i].op = op;
		server.calls[i].n++;
		break;
	}
	if (collection && !find(server.collections, collection)) {
		bool vanished = strncmp(collection, "gone", 4) == 0;

		if (!vanished) {
			fprintf(stderr, "%s of a collection '%s'\n", op, collection);
			abort();
		}
	}
	return server.error;
}

static void end(void)
{
	pthread_mutex_unlock(&server.lock);
}

/* ---- answers, on the pool ---- */

struct answer {
	remote_done *done;
	remote_record_done *record_done;
	remote_text_done *text_done;
	remote_collections_done *collections_done;
	struct remote_sink sink;
	void *ctx;
	int error;
	char id[REMOTE_ID_MAX + 1];
	char text[4096];
	struct remote_record records[MAX];
	struct remote_file files[MAX];
	struct remote_collection collections[MAX];
	size_t n_records, n_files, n_collections;
};

static void answer_job(void *ctx)
{
	struct answer *a = ctx;

	if (a->done)
		a->done(a->ctx, a->error, "");
	if (a->record_done)
		a->record_done(a->ctx, a->error, a->id, "");
	if (a->text_done)
		a->text_done(a->ctx, a->error, a->text, strlen(a->text), "");
	if (a->collections_done)
		a->collections_done(a->ctx, a->error, a->collections, a->n_collections, "");
	if (a->sink.done) {
		if (!a->error)
			a->sink.page(a->sink.ctx, a->records, a->n_records, a->files, a->n_files);
		a->sink.done(a->sink.ctx, a->error, "");
	}
	for (size_t i = 0; i < a->n_records; i++)
		remote_record_clear(&a->records[i]);
	for (size_t i = 0; i < a->n_files; i++)
		remote_file_clear(&a->files[i]);
	for (size_t i = 0; i < a->n_collections; i++) {
		free(a->collections[i].id);
		free(a->collections[i].name);
	}
	free(a);
}

static int answer(struct remote *r, const struct answer *template)
{
	struct answer *a = malloc(sizeof(*a));

	*a = *template;
	return pool_run(r->pool, answer_job, a);
}

static struct answer *new_answer(int error, void *ctx)
{
	struct answer *a = calloc(1, sizeof(*a));

	a->error = error;
	a->ctx = ctx;
	return a;
}

static void file_of(const struct row *row, struct remote_file *f)
{
	char version[REMOTE_ID_MAX + 16];

	snprintf(version, sizeof(version), "%s-%u", row->id, row->version);
	*f = (struct remote_file){.id = strdup(row->id),
				  .record = strdup(row->up),
				  .name = strdup(row->name),
				  .version = strdup(version),
				  .size = (int64_t)row->size,
				  .mtime_ns = REMOTE_TIME_NONE,
				  .ctime_ns = REMOTE_TIME_NONE};
}

static void add_files(struct answer *a, const char *record)
{
	for (size_t i = 0; i < MAX; i++)
		if (server.files[i].used && !strcmp(server.files[i].up, record))
			file_of(&server.files[i], &a->files[a->n_files++]);
}

/* ---- the ops ---- */

static void op_free(struct remote *r)
{
	free(r);
}

static int op_probe(struct remote *r, enum transfer_class class, remote_done *done, void *ctx)
{
	struct answer a = {.done = done, .ctx = ctx};

	(void)class;
	begin("probe", NULL);
	end();
	return answer(r, &a);
}

static int op_list_collections(struct remote *r, enum transfer_class class,
			       remote_collections_done *done, void *ctx)
{
	struct answer *a = new_answer(begin("list_collections", NULL), ctx);

	(void)class;
	a->collections_done = done;
	for (size_t i = 0; i < MAX; i++) {
		const struct row *row = &server.collections[i];

		if (row->used && !a->error)
			a->collections[a->n_collections++] =
				(struct remote_collection){strdup(row->id), strdup(row->name)};
	}
	end();
	return pool_run(r->pool, answer_job, a);
}

static int op_make_record(struct remote *r, const char *collection, const char *name,
			  remote_record_done *done, void *ctx)
{
	struct answer *a = new_answer(begin("make_record", collection), ctx);

	a->record_done = done;
	if (!a->error) {
		snprintf(a->id, sizeof(a->id), "%s%02u", FAKE_SET, server.next++ % 100);
		add(server.records, collection, a->id, name);
	}
	end();
	return pool_run(r->pool, answer_job, a);
}

static int op_list_tree(struct remote *r, enum transfer_class class, const char *collection,
			const struct remote_sink *sink)
{
	struct answer *a = new_answer(begin("list_tree", collection), NULL);

	(void)class;
	a->sink = *sink;
	for (size_t i = 0; i < MAX && !a->error; i++) {
		const struct row *row = &server.records[i];

		if (!row->used || strcmp(row->up, collection))
			continue;
		a->records[a->n_records++] = (struct remote_record){.id = strdup(row->id),
								    .name = strdup(row->name),
								    .mtime_ns = REMOTE_TIME_NONE,
								    .ctime_ns = REMOTE_TIME_NONE};
		add_files(a, row->id);
	}
	end();
	return pool_run(r->pool, answer_job, a);
}

static int op_list_record(struct remote *r, enum transfer_class class, const char *collection,
			  const char *record, const struct remote_sink *sink)
{
	struct answer *a = new_answer(begin("list_record", collection), NULL);

	(void)class;
	a->sink = *sink;
	if (!a->error && !find(server.records, record))
		a->error = -ENOENT;
	if (!a->error)
		add_files(a, record);
	end();
	return pool_run(r->pool, answer_job, a);
}

static void refuse(struct remote_change *c, enum remote_outcome outcome, int error)
{
	c->outcome = outcome;
	c->error = error;
}

static void write_one(struct remote_change *c, struct row *row, int error)
{
	ssize_t n = 0;

	if (error || !row) {
		refuse(c, error ? REMOTE_RETRY : REMOTE_GONE, error ? error : -ENOENT);
		return;
	}
	if (c->fd >= 0)
		n = pread(c->fd, row->text, sizeof(row->text), 0);
	row->size = n > 0 ? (size_t)n : 0;
	row->version++;
	if (c->name)
		snprintf(row->name, sizeof(row->name), "%s", c->name);
	file_of(row, &c->file);
	c->outcome = REMOTE_DONE;
}

static int op_create(struct remote *r, enum transfer_class class, struct remote_change *items,
		     size_t n, remote_done *done, void *ctx)
{
	struct answer a = {.done = done, .ctx = ctx};
	int error = begin("create", items[0].collection);

	(void)class;
	for (size_t i = 0; i < n; i++) {
		struct row *row = NULL;
		char id[16];

		snprintf(id, sizeof(id), "f%u", ++server.next);
		if (!error && find(server.records, items[i].record))
			row = add(server.files, items[i].record, id, items[i].name);
		write_one(&items[i], row, error);
	}
	end();
	return answer(r, &a);
}

static int op_replace(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx)
{
	struct answer a = {.done = done, .ctx = ctx};
	int error = begin("replace", items[0].collection);

	(void)class;
	for (size_t i = 0; i < n; i++)
		write_one(&items[i], find(server.files, items[i].id), error);
	end();
	return answer(r, &a);
}

static int op_update(struct remote *r, enum transfer_class class, struct remote_change *items,
		     size_t n, remote_done *done, void *ctx)
{
	struct answer a = {.done = done, .ctx = ctx};
	int error = begin("update", items[0].collection);

	(void)class;
	for (size_t i = 0; i < n; i++) {
		struct row *row = find(server.files, items[i].id);

		if (error || !row) {
			refuse(&items[i], error ? REMOTE_RETRY : REMOTE_GONE, error);
			continue;
		}
		if (items[i].name)
			snprintf(row->name, sizeof(row->name), "%s", items[i].name);
		if (items[i].move)
			snprintf(row->up, sizeof(row->up), "%s", items[i].record);
		file_of(row, &items[i].file);
		items[i].outcome = REMOTE_DONE;
	}
	end();
	return answer(r, &a);
}

static int op_remove(struct remote *r, enum transfer_class class, struct remote_change *items,
		     size_t n, remote_done *done, void *ctx)
{
	struct answer a = {.done = done, .ctx = ctx};
	int error = begin("remove", items[0].collection);

	(void)class;
	for (size_t i = 0; i < n; i++) {
		struct row *row = find(server.files, items[i].id);

		if (error) {
			refuse(&items[i], REMOTE_RETRY, error);
			continue;
		}
		if (!items[i].record)
			abort();
		items[i].outcome = row ? REMOTE_DONE : REMOTE_GONE;
		if (row)
			row->used = false;
	}
	end();
	return answer(r, &a);
}

static int op_update_records(struct remote *r, enum transfer_class class,
			     struct remote_change *items, size_t n, remote_done *done, void *ctx)
{
	struct answer a = {.done = done, .ctx = ctx};
	int error = begin("update_records", items[0].collection);

	(void)class;
	for (size_t i = 0; i < n; i++) {
		struct row *row = find(server.records, items[i].id);

		if (error || !row) {
			refuse(&items[i], error ? REMOTE_RETRY : REMOTE_GONE, error);
			continue;
		}
		if (items[i].name)
			snprintf(row->name, sizeof(row->name), "%s", items[i].name);
		if (items[i].fields_json)
			snprintf(row->fields, sizeof(row->fields), "%s", items[i].fields_json);
		items[i].outcome = REMOTE_DONE;
	}
	end();
	return answer(r, &a);
}

static int op_record_json(struct remote *r, const char *collection, const char *record,
			  remote_text_done *done, void *ctx)
{
	struct answer a = {.text_done = done, .ctx = ctx};
	const struct row *row;

	a.error = begin("record_json", collection);
	row = find(server.records, record);
	if (row)
		snprintf(a.text, sizeof(a.text), "{\n  \"id\": \"%s\",\n  \"name\": \"%s\"\n}\n",
			 row->id, row->name);
	end();
	return answer(r, &a);
}

struct fetch {
	struct remote_fetch_sink sink;
	char text[4096];
	size_t size;
	uint64_t off, len;
	int error;
};

static void fetch_job(void *ctx)
{
	struct fetch *f = ctx;
	size_t len = f->off < f->size ? f->size - f->off : 0;

	if (f->len && len > f->len)
		len = f->len;
	if (!f->error && !f->sink.begin(f->sink.ctx, (int64_t)f->size, f->off))
		f->error = -ECANCELED;
	if (!f->error && len && !f->sink.data(f->sink.ctx, f->text + f->off, len))
		f->error = -ECANCELED;
	f->sink.done(f->sink.ctx, f->error);
	free(f);
}

static int op_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		    const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		    const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	struct fetch *f = calloc(1, sizeof(*f));
	const struct row *row;

	(void)class;
	(void)deadline_mono_ms;
	*f = (struct fetch){.sink = *sink, .off = off, .len = len};
	f->error = begin("fetch", collection);
	row = find(server.files, file->id);
	if (row) {
		memcpy(f->text, row->text, sizeof(f->text));
		f->size = row->size;
	} else if (!f->error) {
		f->error = -ENOENT;
	}
	end();
	*ret_id = 1;
	return pool_run(r->pool, fetch_job, f);
}

static void op_fetch_nothing(struct remote *r, uint64_t id)
{
	(void)r;
	(void)id;
}

static void op_fetch_set_class(struct remote *r, uint64_t id, enum transfer_class class)
{
	(void)r;
	(void)id;
	(void)class;
}

/* ---- in place of the clients ---- */

int remote_new(const struct options *options, struct engine *engine, struct pool *pool,
	       struct remote **ret_remote, char *message, size_t size)
{
	struct remote *r = calloc(1, sizeof(*r));

	(void)options;
	(void)message;
	(void)size;
	*r = (struct remote){.ops = &fake_ops, .caps = fake_caps, .engine = engine, .pool = pool};
	*ret_remote = r;
	return 0;
}

void remote_shutdown(struct remote *r)
{
	(void)r;
}

void remote_free(struct remote *r)
{
	free(r);
}

void remote_reload_credentials(struct remote *r, remote_reloaded *done, void *ctx)
{
	(void)r;
	done(ctx, 0);
}

enum remote_auth remote_get_auth(struct remote *r, char message[256])
{
	(void)r;
	message[0] = '\0';
	return REMOTE_AUTH_OK;
}

/* ---- for the tests ---- */

void fake_reset(void)
{
	pthread_mutex_lock(&server.lock);
	memset(server.collections, 0, sizeof(server.collections));
	memset(server.records, 0, sizeof(server.records));
	memset(server.files, 0, sizeof(server.files));
	memset(server.calls, 0, sizeof(server.calls));
	server.error = 0;
	pthread_mutex_unlock(&server.lock);
	fake_caps = (struct remote_caps){.system = "fake",
					 .rename_in_place = true,
					 .move_in_place = true,
					 .replace_keeps_id = true,
					 .sizes_listed = true,
					 .mtime_resolution_ns = 1000000000,
					 .batch_update = 10,
					 .batch_remove = 10,
					 .batch_create = 1};
	fake_ops = (struct remote_ops){.free = op_free,
				       .probe = op_probe,
				       .list_collections = op_list_collections,
				       .make_record = op_make_record,
				       .list_tree = op_list_tree,
				       .list_record = op_list_record,
				       .create = op_create,
				       .replace = op_replace,
				       .update = op_update,
				       .remove = op_remove,
				       .update_records = op_update_records,
				       .record_json = op_record_json,
				       .fetch = op_fetch,
				       .fetch_cancel = op_fetch_nothing,
				       .fetch_pause = op_fetch_nothing,
				       .fetch_resume = op_fetch_nothing,
				       .fetch_set_class = op_fetch_set_class};
}

void fake_set_error(int error)
{
	pthread_mutex_lock(&server.lock);
	server.error = error;
	end();
}

void fake_add_collection(const char *id, const char *name)
{
	pthread_mutex_lock(&server.lock);
	add(server.collections, "", id, name);
	end();
}

void fake_rename_collection(const char *id, const char *name)
{
	struct row *row;

	pthread_mutex_lock(&server.lock);
	row = find(server.collections, id);
	snprintf(row->name, sizeof(row->name), "%s", name);
	end();
}

void fake_drop_collection(const char *id)
{
	pthread_mutex_lock(&server.lock);
	drop_below(server.records, id);
	find(server.collections, id)->used = false;
	end();
}

void fake_add_record(const char *collection, const char *id, const char *name)
{
	pthread_mutex_lock(&server.lock);
	add(server.records, collection, id, name);
	end();
}

void fake_drop_record(const char *id)
{
	pthread_mutex_lock(&server.lock);
	drop_below(server.files, id);
	find(server.records, id)->used = false;
	end();
}

const char *fake_add_file(const char *record, const char *name, const char *text)
{
	static char id[16];
	struct row *row;

	pthread_mutex_lock(&server.lock);
	snprintf(id, sizeof(id), "f%u", ++server.next);
	row = add(server.files, record, id, name);
	row->size = strlen(text);
	memcpy(row->text, text, row->size);
	end();
	return id;
}

const char *fake_text(const char *record, const char *name)
{
	static char text[sizeof(server.files[0].text) + 1];

	text[0] = '\0';
	pthread_mutex_lock(&server.lock);
	for (size_t i = 0; i < MAX; i++) {
		const struct row *row = &server.files[i];

		if (!row->used || strcmp(row->up, record) || strcmp(row->name, name))
			continue;
		memcpy(text, row->text, row->size);
		text[row->size] = '\0';
	}
	end();
	return text;
}

size_t fake_count(const char *record)
{
	size_t n = 0;

	pthread_mutex_lock(&server.lock);
	for (size_t i = 0; i < MAX; i++)
		n += server.files[i].used && !strcmp(server.files[i].up, record);
	end();
	return n;
}

unsigned fake_calls(const char *op)
{
	unsigned n = 0;

	pthread_mutex_lock(&server.lock);
	for (size_t i = 0; i < sizeof(server.calls) / sizeof(server.calls[0]); i++)
		if (server.calls[i].op && !strcmp(server.calls[i].op, op))
			n = server.calls[i].n;
	end();
	return n;
}

const char *fake_fields(const char *record)
{
	static char fields[1024];
	const struct row *row;

	pthread_mutex_lock(&server.lock);
	row = find(server.records, record);
	snprintf(fields, sizeof(fields), "%s", row ? row->fields : "");
	end();
	return fields;
}
