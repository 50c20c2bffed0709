/* SPDX-License-Identifier: MIT */

/* The world of sync_world.h but for the server's calls: memory, the daemon, the user, others. */

#include "sync_world.h"

#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/clock.h>
#include <attachfs/names.h>

#include "events.h"
#include "ops.h"
#include "reader.h"
#include "sync.h"
#include "sync_private.h"

#define DRAIN_ROUNDS 400

uint32_t world_pick(struct world *w, uint32_t n)
{
	uint64_t z = (w->seed += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t)((z ^ (z >> 31)) >> 32) % n;
}

bool world_chance(struct world *w, uint32_t percent)
{
	return world_pick(w, 100) < percent;
}

void world_breach(struct world *w, const char *format, ...)
{
	va_list args;

	if (w->breach[0])
		return;
	va_start(args, format);
	vsnprintf(w->breach, sizeof(w->breach), format, args);
	va_end(args);
}

/*
 * Many of one size, so that a size alone tells little; some above what PERSCOM wants at least. Those
 * of others have a size of their own: a file that others replace by one of the same size while the
 * outcome of its upload is unknown is taken for ours, and nothing short of reading it could tell.
 */
size_t world_content(unsigned content, uint8_t *bytes)
{
	char text[32];
	size_t len = (size_t)snprintf(text, sizeof(text), "content %4u", content);
	size_t size = len;

	if (content < WORLD_THEIRS)
		size = content % 7 == 0 ? 1500 : content % 11 == 0 ? 0 : len;
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)text[i % len];
	return size;
}

static const struct remote_caps kinds[WORLD_KINDS] = {
	[WORLD_PERSCOM] = {.system = "perscom",
			   .rename_in_place = true,
			   .move_in_place = true,
			   .move_between_collections = true,
			   .set_mtime = true,
			   .replace_keeps_id = true,
			   .rename_records = true,
			   .create_min_bytes = 1024,
			   .create_max_bytes = 10240000,
			   .mtime_resolution_ns = CLOCK_NS_PER_S,
			   .batch_update = 200,
			   .batch_remove = 200,
			   .batch_create = 1,
			   .batch_spans_records = true,
			   .name_max = 255},
	[WORLD_RILLSOFT] = {.system = "rillsoft",
			    .rename_in_place = true,
			    .move_in_place = true,
			    .replace_keeps_id = true,
			    .sizes_listed = true,
			    .mtime_resolution_ns = CLOCK_NS_PER_S,
			    .batch_update = 1,
			    .batch_remove = 1,
			    .batch_create = 1},
	[WORLD_SERVICEMAX] = {.system = "servicemax",
			      .replace_keeps_id = true,
			      .names_unique = true,
			      .sizes_listed = true,
			      .mtime_resolution_ns = CLOCK_NS_PER_S / 1000,
			      .batch_update = 1,
			      .batch_remove = 50,
			      .batch_create = 20},
	[WORLD_ET] = {.system = "enterprise-tester",
		      .sizes_listed = true,
		      .mtime_resolution_ns = CLOCK_NS_PER_S,
		      .batch_update = 1,
		      .batch_remove = 1,
		      .batch_create = 20},
};

struct world *world_new(enum world_kind kind, uint64_t seed)
{
	const char *tmp = getenv("TMPDIR");
	struct world *w =
		mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (w == MAP_FAILED)
		abort();
	w->kind = kind;
	w->seed = seed;
	w->caps = kinds[kind];
	snprintf(w->dir, sizeof(w->dir), "%s/attachfs-sync-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(w->dir))
		abort();
	return w;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

void world_free(struct world *w)
{
	nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	munmap(w, sizeof(*w));
}

/* ---- others ---- */

void world_add(struct world *w, unsigned record, const char *name, unsigned content)
{
	struct world_file *f = &w->files[w->n_files++];

	*f = (struct world_file){.there = true,
				 .record = record,
				 .version = ++w->next_version,
				 .acknowledged = true};
	snprintf(f->name, sizeof(f->name), "%s", name);
	snprintf(f->filename, sizeof(f->filename), "%s", name);
	f->size = world_content(content, f->bytes);
	f->ctime_ns = f->mtime_ns = clock_real_ns() / CLOCK_NS_PER_S * CLOCK_NS_PER_S;
}

/* What others end is not ours to keep. */
static void excuse(struct world *w, const struct world_file *f)
{
	uint8_t bytes[WORLD_BYTES];

	for (size_t i = 0; i < w->n_wishes; i++) {
		size_t size = world_content(w->wishes[i].content, bytes);

		if (size == f->size && !memcmp(bytes, f->bytes, size))
			w->wishes[i].excused = true;
	}
}

static void others_replace(struct world *w, struct world_file *f)
{
	char name[256];

	excuse(w, f);
	if (w->caps.replace_keeps_id) {
		f->size = world_content(WORLD_THEIRS + ++w->next_content, f->bytes);
		f->version = ++w->next_version;
		f->filler = false;
		return;
	}
	memcpy(name, f->name, sizeof(name));
	f->there = false;
	world_add(w, f->record, name, WORLD_THEIRS + ++w->next_content);
}

/* They do not touch what we ourselves do not know to be there: it would be nobody's then. */
void world_others_act(struct world *w)
{
	static const char *const names[] = {"a", "b", "c", "theirs"};
	struct world_file *f = w->n_files ? &w->files[world_pick(w, (uint32_t)w->n_files)] : NULL;
	unsigned record = 1 + world_pick(w, WORLD_RECORDS);
	const char *name = names[world_pick(w, 4)];

	/* without sizes in lists nothing tells a file of theirs from an unknown upload of ours */
	if (!w->caps.sizes_listed)
		name = "theirs";

	switch (world_pick(w, 4)) {
	case 0:
		if (!w->caps.names_unique || !world_at(w, record, name))
			world_add(w, record, name, WORLD_THEIRS + ++w->next_content);
		break;
	case 1:
		if (f && f->there) {
			excuse(w, f);
			f->there = false;
		}
		break;
	case 2:
		if (f && f->there && f->acknowledged && w->caps.rename_in_place) {
			snprintf(f->name, sizeof(f->name), "%s", name);
			snprintf(f->filename, sizeof(f->filename), "%s", name);
		}
		break;
	default:
		if (f && f->there && f->acknowledged)
			others_replace(w, f);
		break;
	}
}

/* ---- the daemon ---- */

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-r));
	abort();
}

static void open_state(struct daemon *d)
{
	struct mount *m = &d->mount;
	char path[128], message[256] = "";
	struct content_config config = {.dir = d->world->dir, .limit_bytes = 1 << 30};

	snprintf(path, sizeof(path), "%s/ledger.db", d->world->dir);
	must(ledger_open(path, &m->ledger, message, sizeof(message)), message);
	must(content_store_open(&config, m->ledger, &m->store, message, sizeof(message)), message);
}

static void on_tick(void *ctx)
{
	(void)ctx;
}

static void list_records(struct daemon *d, uint64_t mark)
{
	struct remote_record records[WORLD_RECORDS];

	for (unsigned i = 0; i < WORLD_RECORDS; i++) {
		char id[16];

		snprintf(id, sizeof(id), "r%u", i + 1);
		records[i] = (struct remote_record){.id = strdup(id),
						    .name = strdup(id),
						    .mtime_ns = REMOTE_TIME_NONE,
						    .ctime_ns = REMOTE_TIME_NONE};
	}
	must(tree_listing_page(d->mount.tree, mark, d->top, records, WORLD_RECORDS, NULL, 0),
	     "records");
	for (unsigned i = 0; i < WORLD_RECORDS; i++)
		remote_record_clear(&records[i]);
}

void daemon_open(struct daemon *d, struct world *w)
{
	struct engine_config engine = {
		.origin = "http://127.0.0.1:9", .slots = 2, .insecure_http = true};
	struct mount *m = &d->mount;

	*d = (struct daemon){.world = w};
	must(options_init(&d->options), "options");
	d->options.settle_s = 0;
	m->options = &d->options;
	must(pool_new(1, &m->pool), "pool");
	must(pool_new(1, &m->disk_pool), "pool");
	must(notifier_new(&m->notifier), "notifier");
	open_state(d);
	must(engine_new(&engine, &m->engine), "engine");
	d->server = server_new(w, m->pool);
	m->remote = server_remote(d->server);
	must(tree_new(m->ledger, m->store, m->notifier, &m->remote->caps, &m->tree), "tree");
	must(tree_load(m->tree), "load");
	must(tree_set_collections(m->tree, "top"), "collections");
	content_store_claimed(m->store);
	must(calls_new(m->pool, 30000, on_tick, NULL, &m->calls), "calls");
	must(events_new(m->calls, &m->events), "events");
	must(reader_new(m, &m->reader), "reader");
	must(sync_new(m, &m->sync), "sync");
	tree_lock(m->tree);
	d->top = tree_child_locked(m->tree, m->tree->root, "top")->id;
	tree_unlock(m->tree);
	list_records(d, tree_listing_begin(m->tree));
}

void daemon_close(struct daemon *d)
{
	struct mount *m = &d->mount;

	if (d->listing)
		daemon_list_end(d);
	server_finish(d->server);
	daemon_quiet(d);
	calls_stop(m->calls);
	engine_free(m->engine);
	pool_free(m->disk_pool);
	pool_free(m->pool);
	notifier_free(m->notifier);
	sync_free(m->sync);
	reader_free(m->reader);
	events_free(m->events);
	server_free(d->server);
	tree_free(m->tree);
	calls_free(m->calls);
	content_store_close(m->store);
	ledger_close(m->ledger);
	options_clear(&d->options);
}

struct barrier {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool passed;
};

static void pass(void *ctx)
{
	struct barrier *b = ctx;

	pthread_mutex_lock(&b->lock);
	b->passed = true;
	pthread_cond_signal(&b->cond);
	pthread_mutex_unlock(&b->lock);
}

static void wait_for(struct pool *pool)
{
	struct barrier b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};

	must(pool_run(pool, pass, &b), "barrier");
	pthread_mutex_lock(&b.lock);
	while (!b.passed)
		pthread_cond_wait(&b.cond, &b.lock);
	pthread_mutex_unlock(&b.lock);
}

void daemon_quiet(struct daemon *d)
{
	/* a job of one may leave another to the other */
	for (unsigned i = 0; i < 6; i++) {
		wait_for(d->mount.disk_pool);
		wait_for(d->mount.pool);
	}
}

void daemon_sync(struct daemon *d)
{
	for (unsigned i = 0; i < 8 && sync_plan(d->mount.sync) == 0; i++)
		;
	daemon_quiet(d);
}

void daemon_list_begin(struct daemon *d)
{
	d->mark = tree_listing_begin(d->mount.tree);
	d->listed = world_tell(d->world, 0, &d->n_listed);
	d->listing = true;
}

void daemon_list_end(struct daemon *d)
{
	list_records(d, d->mark);
	must(tree_listing_page(d->mount.tree, d->mark, d->top, NULL, 0, d->listed, d->n_listed),
	     "page");
	tree_listing_end(d->mount.tree, d->mark, d->top, 0);
	for (size_t i = 0; i < d->n_listed; i++)
		remote_file_clear(&d->listed[i]);
	free(d->listed);
	d->listing = false;
}

static void list_now(struct daemon *d)
{
	daemon_list_begin(d);
	daemon_list_end(d);
}

bool daemon_drain(struct daemon *d)
{
	struct sync_counts c;

	d->world->faults = d->world->others = false;
	if (d->listing)
		daemon_list_end(d);
	for (unsigned i = 0; i < DRAIN_ROUNDS; i++) {
		sync_retry(d->mount.sync, 0);
		sync_flush(d->mount.sync);
		daemon_sync(d);
		server_finish(d->server);
		daemon_quiet(d);
		sync_get_counts(d->mount.sync, &c);
		/* what others removed before it could be read is gone: the listing says so */
		if (i % 50 == 49)
			list_now(d);
		if (sync_is_idle(&c) && !c.failed && !server_in_the_air(d->server))
			return true;
	}
	return false;
}

struct node *daemon_record(struct daemon *d, unsigned record)
{
	char id[16];

	snprintf(id, sizeof(id), "r%u", record);
	return tree_by_rid_locked(d->mount.tree, d->top, id);
}

/* ---- the user: as fs/ops_name.c and fs/ops_file.c do it, without a kernel ---- */

struct world_wish *user_find(struct world *w, unsigned record, const char *name)
{
	for (size_t i = 0; i < w->n_wishes; i++) {
		struct world_wish *x = &w->wishes[i];

		if (x->live && x->record == record && !strcmp(x->name, name))
			return x;
	}
	return NULL;
}

/* The file as it is now: others may have moved or removed it. tree->lock held. */
static struct node *wished_node(struct daemon *d, const struct world_wish *wish)
{
	struct node *n = tree_find_locked(d->mount.tree, wish->node);

	return n && n->parent && !n->gone ? n : NULL;
}

static void write_bytes(struct daemon *d, struct node *n, unsigned number)
{
	struct mount *m = &d->mount;
	struct content *c = NULL;
	uint8_t bytes[WORLD_BYTES];
	size_t size = world_content(number, bytes);
	struct handle *h;
	int fd;

	tree_lock(m->tree);
	h = handle_new_locked(m, n, O_RDWR | O_TRUNC);
	must(file_empty_locked(m, n), "empty");
	must(file_writable_locked(m, n, &c), "write");
	tree_unlock(m->tree);
	if (size) {
		must(content_write_begin(c, 0, size, &fd), "write");
		if (pwrite(fd, bytes, size, 0) != (ssize_t)size)
			abort();
		content_write_end(c, 0, size);
	}
	content_unref(c);
	n->mtime_ns = clock_real_ns();
	must(file_commit(m, n), "commit");
	handle_drop(m, h);
	daemon_quiet(d);
}

void user_write(struct daemon *d, struct world_wish *wish)
{
	struct node *n;
	unsigned number = ++d->world->next_content;

	tree_lock(d->mount.tree);
	n = wished_node(d, wish);
	tree_unlock(d->mount.tree);
	if (!n)
		return;
	d->world->writes++;
	wish->content = number; /* what was there may go from now on */
	wish->excused = false;
	write_bytes(d, n, number);
}

static struct world_wish *new_wish(struct world *w)
{
	for (size_t i = 0; i < WORLD_WISHES; i++) {
		struct world_wish *x = &w->wishes[i];

		if (i < w->n_wishes && x->live)
			continue;
		if (i == w->n_wishes)
			w->n_wishes++;
		return x;
	}
	abort();
}

void user_create(struct daemon *d, unsigned record, const char *name)
{
	struct mount *m = &d->mount;
	struct world_wish *wish;
	struct node *n = NULL, *dir;
	unsigned number = ++d->world->next_content;

	tree_lock(m->tree);
	dir = daemon_record(d, record);
	if (!tree_child_locked(m->tree, dir, name)) {
		n = tree_new_node_locked(m->tree, NODE_FILE, dir, name);
		n->size = 0;
		node_more(n)->name_ms = clock_mono_ms();
	}
	tree_unlock(m->tree);
	if (!n)
		return;
	d->world->writes++;
	write_bytes(d, n, number);
	wish = new_wish(d->world);
	*wish = (struct world_wish){
		.live = true, .node = n->id, .record = record, .content = number};
	snprintf(wish->name, sizeof(wish->name), "%s", name);
}

static void remove_locked(struct daemon *d, struct node *n)
{
	struct tree *t = d->mount.tree;
	struct content *c = n->dirty && n->content ? content_get(t->store, n->content) : NULL;

	tree_unlink_locked(t, n);
	n->gone = true;
	n->mtime_dirty = false;
	n->error = 0;
	node_more(n)->name_ms = clock_mono_ms();
	n->dirty = false;
	if (c) {
		n->content = 0;
		tree_put_locked(t, n);
		content_drop(c);
		content_unref(c);
	}
	tree_changed_locked(t, n);
	tree_release_locked(t, n);
}

static void renamed_locked(struct daemon *d, struct node *n)
{
	node_more(n)->name_ms = clock_mono_ms();
	n->error = 0;
	tree_changed_locked(d->mount.tree, n);
}

/* Nobody wants what the user deletes, before it can be deleted there. */
static void unwish(struct world *w, uint64_t node)
{
	for (size_t i = 0; i < w->n_wishes; i++)
		if (w->wishes[i].node == node)
			w->wishes[i].live = false;
}

void user_delete(struct daemon *d, struct world_wish *wish)
{
	struct node *n;

	tree_lock(d->mount.tree);
	n = wished_node(d, wish);
	if (n) {
		unwish(d->world, n->id);
		remove_locked(d, n);
	}
	tree_unlock(d->mount.tree);
	must(ledger_commit(d->mount.ledger), "commit");
}

static void set_place(struct world_wish *wish, unsigned record, const char *name)
{
	char copy[256];

	snprintf(copy, sizeof(copy), "%s", name);
	memcpy(wish->name, copy, sizeof(copy));
	wish->record = record;
}

void user_rename(struct daemon *d, struct world_wish *wish, unsigned record, const char *name)
{
	struct mount *m = &d->mount;
	struct node *n, *dir, *target;

	tree_lock(m->tree);
	n = wished_node(d, wish);
	dir = daemon_record(d, record);
	target = tree_child_locked(m->tree, dir, name);
	if (n && target != n) {
		d->world->names++;
		ledger_group_begin(m->ledger);
		if (target) {
			unwish(d->world, target->id);
			remove_locked(d, target);
		}
		must(tree_move_locked(m->tree, n, dir, name), "move");
		renamed_locked(d, n);
		ledger_group_end(m->ledger);
		set_place(wish, record, name);
	}
	tree_unlock(m->tree);
	must(ledger_commit(m->ledger), "commit");
}

void user_swap(struct daemon *d, struct world_wish *a, struct world_wish *b)
{
	struct mount *m = &d->mount;
	struct node *x, *y;
	struct world_wish was = *a;

	tree_lock(m->tree);
	x = wished_node(d, a);
	y = wished_node(d, b);
	if (x && y && x != y) {
		struct node *dir_x = x->parent, *dir_y = y->parent;
		char name_x[256], name_y[256];

		snprintf(name_x, sizeof(name_x), "%s", x->shown);
		snprintf(name_y, sizeof(name_y), "%s", y->shown);
		d->world->names += 2;
		ledger_group_begin(m->ledger);
		tree_unlink_locked(m->tree, y);
		must(tree_move_locked(m->tree, x, dir_y, name_y), "move");
		must(tree_move_locked(m->tree, y, dir_x, name_x), "move");
		renamed_locked(d, x);
		renamed_locked(d, y);
		ledger_group_end(m->ledger);
		set_place(a, b->record, b->name);
		set_place(b, was.record, was.name);
	}
	tree_unlock(m->tree);
	must(ledger_commit(m->ledger), "commit");
}
