/* SPDX-License-Identifier: MIT */

/*
 * The executor over servers of four kinds (sync_world.h): single acts, whose calls are counted, and
 * random histories with faults, other clients and kills. ATTACHFS_SYNC_SEED begins the seeds,
 * ATTACHFS_SYNC_RUNS says how many histories of each sort (10), ATTACHFS_SYNC_STEPS how long.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <attachfs/log.h>
#include <attachfs/names.h>

#include "sync.h"
#include "sync_private.h"
#include "sync_world.h"

static unsigned from_environment(const char *name, unsigned otherwise)
{
	const char *value = getenv(name);

	return value && *value ? (unsigned)strtoul(value, NULL, 10) : otherwise;
}

/* ---- comparing ---- */

static struct world_file *file_of(struct world *w, const struct node *n)
{
	size_t i = node_rid(n) ? strtoul(node_rid(n), NULL, 10) : 0;

	return i && i <= w->n_files && w->files[i - 1].there ? &w->files[i - 1] : NULL;
}

/* The bytes in the cache are the server's, as far as they are there. */
static void check_cache(struct daemon *d, const struct node *n, const struct world_file *f)
{
	struct content *c = node_content(d->mount.tree, n);
	struct content_extent extent;
	uint8_t bytes[WORLD_BYTES];

	if (c && content_size(c) >= 0 && (size_t)content_size(c) != f->size)
		world_breach(d->world, "'%s' has another size in the cache", n->shown);
	else if (c && content_is_complete(c) && f->size &&
		 content_map(c, 0, f->size, &extent) == 0 && extent.where == CONTENT_FILE &&
		 (pread(extent.fd, bytes, f->size, (off_t)extent.fd_off) != (ssize_t)f->size ||
		  memcmp(bytes, f->bytes, f->size)))
		world_breach(d->world, "'%s' has other bytes in the cache", n->shown);
	content_unref(c);
}

static void check_node(struct daemon *d, const struct node *n, unsigned record)
{
	struct world *w = d->world;
	struct world_file *f = file_of(w, n);

	if (!f)
		world_breach(w, "'%s' is not on the server", n->shown);
	else if (f->record != record || !node_name_matches(d->mount.tree, n) ||
		 strcmp(f->name, node_known(n).name))
		world_breach(w, "r%u/'%s', known as '%s', is r%u/'%s' there (flight %d)", record,
			     n->shown, node_known(n).name, f->record, f->name, (int)n->flight);
	else if (strncmp(f->name, ".attachfs-", 10) == 0 ||
		 (w->kind == WORLD_PERSCOM && strncmp(f->filename, "attachfs-", 9) == 0))
		world_breach(w, "'%s' kept a temporary name: '%s' '%s'", n->shown, f->name,
			     f->filename);
	else if (f->filler)
		world_breach(w, "'%s' is a filler there", n->shown);
	else if (n->size >= 0 && (size_t)n->size != f->size)
		world_breach(w, "'%s' shows %lld bytes, has %zu", n->shown, (long long)n->size,
			     f->size);
	else
		check_cache(d, n, f);
}

static void check_tree(struct daemon *d)
{
	size_t files = 0, shown = 0;

	tree_lock(d->mount.tree);
	for (unsigned r = 1; r <= WORLD_RECORDS; r++)
		for (const struct node *n = node_dir(daemon_record(d, r))->child_first; n;
		     n = n->sibling_next, shown++)
			check_node(d, n, r);
	tree_unlock(d->mount.tree);
	for (size_t i = 0; i < d->world->n_files; i++)
		files += d->world->files[i].there;
	if (files != shown)
		world_breach(d->world, "%zu files on the server, %zu are shown", files, shown);
}

static void check_wish(struct daemon *d, const struct world_wish *x)
{
	struct world *w = d->world;
	struct node *n = tree_child_locked(d->mount.tree, daemon_record(d, x->record), x->name);
	struct world_file *f = n ? file_of(w, n) : NULL;
	uint8_t bytes[WORLD_BYTES];
	size_t size = world_content(x->content, bytes);

	if (!n || n->id != x->node)
		world_breach(w, "'%s' is %s", x->name, n ? "another node" : "not shown");
	else if (f && (f->size != size || memcmp(f->bytes, bytes, size)))
		world_breach(w, "'%s' has other bytes on the server", x->name);
}

/* With others about, a content may have got another name, but it is somewhere. */
static void check_content(struct world *w, const struct world_wish *x)
{
	uint8_t bytes[WORLD_BYTES];
	size_t size = world_content(x->content, bytes);

	for (size_t i = 0; i < w->n_files; i++) {
		const struct world_file *f = &w->files[i];

		if (f->there && f->size == size && !memcmp(f->bytes, bytes, size))
			return;
	}
	world_breach(w, "the content of '%s' is nowhere", x->name);
}

static void check_end(struct daemon *d, bool others)
{
	char message[256];

	check_tree(d);
	tree_lock(d->mount.tree);
	for (size_t i = 0; i < d->world->n_wishes; i++) {
		const struct world_wish *x = &d->world->wishes[i];

		if (!x->live)
			continue;
		if (!others)
			check_wish(d, x);
		else if (!x->excused)
			check_content(d->world, x);
	}
	tree_unlock(d->mount.tree);
	if (ledger_check(d->mount.ledger, message, sizeof(message)) < 0)
		world_breach(d->world, "ledger: %s", message);
}

/* ---- random histories ---- */

static const char *pick_name(struct world *w)
{
	static const char *const names[] = {"a", "b", "c", "d.txt", "e#", "f"};

	return names[world_pick(w, 6)];
}

static struct world_wish *pick_wish(struct world *w)
{
	struct world_wish *x =
		w->n_wishes ? &w->wishes[world_pick(w, (uint32_t)w->n_wishes)] : NULL;

	return x && x->live ? x : NULL;
}

static void user_acts(struct daemon *d)
{
	struct world *w = d->world;
	struct world_wish *x = pick_wish(w), *y = pick_wish(w);
	unsigned record = world_chance(w, 25) ? 2 : 1;
	const char *name = pick_name(w);

	switch (x ? world_pick(w, 8) : 0) {
	case 0:
	case 1:
		user_create(d, record, name);
		break;
	case 2:
	case 3:
		user_write(d, x);
		break;
	case 4:
	case 5:
		user_rename(d, x, record, name);
		break;
	case 6:
		if (y && y != x)
			user_swap(d, x, y);
		break;
	default:
		user_delete(d, x);
		break;
	}
}

/*
 * Where names are unique, nobody can win the race between a listing and a create of a name that
 * others take meanwhile: there they act only while nothing is on its way, and are seen at once.
 */
static void others_act(struct daemon *d)
{
	struct sync_counts c;

	if (d->world->caps.names_unique) {
		sync_get_counts(d->mount.sync, &c);
		if (!sync_is_idle(&c) || c.failed || d->listing)
			return;
	}
	world_others_act(d->world);
	if (d->world->caps.names_unique) {
		daemon_list_begin(d);
		daemon_list_end(d);
	}
}

static void step(struct daemon *d)
{
	uint32_t what = world_pick(d->world, 100);

	if (what < 30) {
		user_acts(d);
	} else if (what < 55) {
		sync_retry(d->mount.sync, 0);
		sync_flush(d->mount.sync);
		daemon_sync(d);
	} else if (what < 70) {
		server_execute(d->server);
	} else if (what < 85) {
		server_answer(d->server);
		daemon_quiet(d);
	} else if (what < 90) {
		server_finish(d->server);
		daemon_quiet(d);
	} else if (what < 96) {
		if (d->listing)
			daemon_list_end(d);
		else
			daemon_list_begin(d);
	} else if (d->world->others) {
		others_act(d);
	}
}

static void first_files(struct world *w)
{
	world_add(w, 1, "a", ++w->next_content);
	world_add(w, 1, "old.txt", ++w->next_content);
	world_add(w, 2, "b", ++w->next_content);
}

/* What stood on the server before is the user's to rename and delete, too. */
static void wish_first_files(struct daemon *d)
{
	struct world *w = d->world;

	tree_lock(d->mount.tree);
	for (size_t i = 0; i < 3; i++) {
		struct node *dir = daemon_record(d, w->files[i].record);
		struct node *n = tree_child_locked(d->mount.tree, dir, w->files[i].name);
		struct world_wish *x = &w->wishes[w->n_wishes++];

		*x = (struct world_wish){.live = true,
					 .node = n->id,
					 .record = w->files[i].record,
					 .content = (unsigned)i + 1};
		snprintf(x->name, sizeof(x->name), "%s", w->files[i].name);
	}
	tree_unlock(d->mount.tree);
}

static void list_now(struct daemon *d)
{
	daemon_list_begin(d);
	daemon_list_end(d);
}

/* One life of the daemon. @kill_at: the step at which it dies, if at all. */
static void live(struct world *w, unsigned steps, unsigned kill_at, bool others)
{
	struct daemon d;

	daemon_open(&d, w);
	if (!w->n_files) {
		first_files(w);
		list_now(&d);
		wish_first_files(&d);
	}
	for (unsigned i = 0; i < steps && !w->breach[0]; i++) {
		if (i == kill_at)
			raise(SIGKILL);
		step(&d);
	}
	w->others = others;
	if (!daemon_drain(&d))
		world_breach(w, "does not settle");
	/* what others did last is seen, and ours may differ from it again */
	list_now(&d);
	if (!daemon_drain(&d))
		world_breach(w, "does not settle after the last listing");
	check_end(&d, others);
	daemon_close(&d);
}

static void live_in_child(struct world *w, unsigned steps, unsigned kill_at, bool others)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		live(w, steps, kill_at, others);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		abort();
	if (kill_at < steps && !w->breach[0] && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		world_breach(w, "the daemon ended with status 0x%x", (unsigned)status);
}

enum sort { CALM, FAULTY, SHARED, KILLED, SORTS };

static void run_one(enum world_kind kind, enum sort sort, uint64_t seed)
{
	static const char *const sorts[] = {"calm", "faulty", "shared", "killed"};
	struct world *w = world_new(kind, seed);
	unsigned steps = from_environment("ATTACHFS_SYNC_STEPS", 120);
	char words[sizeof(w->breach) + 128] = "";

	w->faults = sort != CALM;
	w->others = sort == SHARED;
	if (sort == KILLED) {
		for (unsigned i = 0; i < 4 && !w->breach[0]; i++) {
			live_in_child(w, steps, 10 + world_pick(w, steps - 20), false);
			w->faults = true;
		}
		live_in_child(w, steps, UINT32_MAX, false);
	} else {
		live(w, steps, UINT32_MAX, w->others);
	}
	/* a rename costs an upload where the server cannot; a cycle one more, an adoption one */
	if (sort == CALM && w->uploads > w->writes + 2 * w->names)
		world_breach(w, "%u uploads for %u writes and %u renames", w->uploads, w->writes,
			     w->names);
	if (w->breach[0])
		snprintf(words, sizeof(words), "%s, %s, seed %llu: %s", w->caps.system, sorts[sort],
			 (unsigned long long)seed, w->breach);
	world_free(w);
	if (words[0])
		fail_msg("%s", words);
}

static void run_many(enum world_kind kind, enum sort sort)
{
	unsigned runs = from_environment("ATTACHFS_SYNC_RUNS", 10);
	unsigned seed = from_environment("ATTACHFS_SYNC_SEED", 1);

	print_message("seeds %u to %u\n", seed, seed + runs - 1);
	for (unsigned i = 0; i < runs; i++)
		run_one(kind, sort, seed + i);
}

#define HISTORIES(name, kind)                                                                      \
	static void test_##name##_without_faults_sends_no_more_than_needed(void **state)           \
	{                                                                                          \
		(void)state;                                                                       \
		run_many(kind, CALM);                                                              \
	}                                                                                          \
	static void test_##name##_with_faults_ends_as_the_user_wants(void **state)                 \
	{                                                                                          \
		(void)state;                                                                       \
		run_many(kind, FAULTY);                                                            \
	}                                                                                          \
	static void test_##name##_with_other_clients_loses_nothing(void **state)                   \
	{                                                                                          \
		(void)state;                                                                       \
		run_many(kind, SHARED);                                                            \
	}                                                                                          \
	static void test_##name##_killed_at_any_moment_loses_nothing(void **state)                 \
	{                                                                                          \
		(void)state;                                                                       \
		run_many(kind, KILLED);                                                            \
	}

HISTORIES(perscom, WORLD_PERSCOM)
HISTORIES(rillsoft, WORLD_RILLSOFT)
HISTORIES(servicemax, WORLD_SERVICEMAX)
HISTORIES(enterprise_tester, WORLD_ET)

/* ---- single acts ---- */

/* A daemon over a server with "a" and "old.txt" in record 1, and "b" in record 2; all is listed. */
static struct world *begin(struct daemon *d, enum world_kind kind)
{
	struct world *w = world_new(kind, 1);

	daemon_open(d, w);
	first_files(w);
	list_now(d);
	wish_first_files(d);
	return w;
}

static void end(struct daemon *d)
{
	struct world *w = d->world;

	list_now(d);
	assert_true(daemon_drain(d));
	check_end(d, false);
	assert_string_equal(w->breach, "");
	daemon_close(d);
	world_free(w);
}

static void create_many(struct daemon *d, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char name[16];

		snprintf(name, sizeof(name), "new%u", i);
		user_create(d, 1, name);
	}
}

static void test_files_of_a_record_go_in_one_call(void **state)
{
	struct daemon d;
	struct world *w = begin(&d, WORLD_SERVICEMAX);

	(void)state;
	create_many(&d, 20);
	assert_true(daemon_drain(&d));
	assert_int_equal(w->create_calls, 1);
	assert_int_equal(w->uploads, 20);
	/* what is deleted in the millisecond of the last listing is not listed again */
	nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	for (size_t i = 0; i < w->n_wishes; i++)
		if (w->wishes[i].live && !strncmp(w->wishes[i].name, "new", 3))
			user_delete(&d, &w->wishes[i]);
	assert_true(daemon_drain(&d));
	assert_int_equal(w->remove_calls, 1);
	end(&d);
}

static void test_one_refused_file_does_not_keep_the_others(void **state)
{
	struct daemon d;
	struct world *w = begin(&d, WORLD_ET);
	struct sync_counts c;

	(void)state;
	w->refused = "new5";
	create_many(&d, 16);
	for (unsigned i = 0; i < 8; i++) {
		sync_flush(d.mount.sync);
		daemon_sync(&d);
		server_finish(d.server);
		daemon_quiet(&d);
	}
	sync_get_counts(d.mount.sync, &c);
	assert_int_equal(c.failed, 1);
	assert_int_equal(w->uploads, 15);
	assert_null(world_at(w, 1, "new5"));
	w->refused = NULL;
	end(&d);
}

static struct world_wish *find_wish(struct world *w, const char *name)
{
	for (size_t i = 0; i < w->n_wishes; i++)
		if (w->wishes[i].live && !strcmp(w->wishes[i].name, name))
			return &w->wishes[i];
	fail_msg("no wish is called %s", name);
	return NULL;
}

static void test_what_waits_for_a_refused_file_does_not_hold_up_who_waits(void **state)
{
	struct daemon d;
	struct world *w = begin(&d, WORLD_ET);
	struct sync_counts c;
	uint64_t mark;

	(void)state;
	w->refused = "a";
	user_delete(&d, find_wish(w, "a"));
	user_create(&d, 1, "a");
	mark = sync_mark(d.mount.sync);
	assert_false(sync_passed(d.mount.sync, mark, 0, &c));
	for (unsigned i = 0; i < 4; i++) {
		sync_flush(d.mount.sync);
		daemon_sync(&d);
		server_finish(d.server);
		daemon_quiet(&d);
	}
	daemon_sync(&d);
	/* The old one is not removed before the new one is there. */
	assert_true(sync_passed(d.mount.sync, mark, 0, &c));
	assert_int_equal(c.failed, 1);
	assert_int_equal(c.deletes, 1);
	w->refused = NULL;
	sync_retry(d.mount.sync, 0);
	assert_false(sync_passed(d.mount.sync, mark, 0, &c));
	end(&d);
}

static void test_a_name_that_is_gone_does_not_keep_the_others_from_being_removed(void **state)
{
	struct daemon d;
	struct world *w = begin(&d, WORLD_SERVICEMAX);

	(void)state;
	world_at(w, 1, "a")->there = false; /* by others, and not listed yet */
	user_delete(&d, user_find(w, 1, "a"));
	user_delete(&d, user_find(w, 1, "old.txt"));
	assert_true(daemon_drain(&d));
	assert_null(world_at(w, 1, "old.txt"));
	end(&d);
}

static void test_a_rename_where_there_is_none_uploads_once_and_keeps_the_node(void **state)
{
	struct daemon d;
	struct world *w = begin(&d, WORLD_ET);

	(void)state;
	user_rename(&d, user_find(w, 1, "a"), 2, "a2");
	assert_true(daemon_drain(&d));
	assert_int_equal(w->uploads, 1);
	assert_int_equal(w->removed, 1);
	end(&d); /* looks at node ids */
}

static void test_a_change_has_passed_when_its_old_file_is_removed_too(void **state)
{
	struct daemon d;
	struct world *w = begin(&d, WORLD_ET);
	struct sync_counts c;

	(void)state;
	user_rename(&d, user_find(w, 1, "a"), 2, "a2");
	uint64_t mark = sync_mark(d.mount.sync);
	for (unsigned i = 0; i < 100 && !sync_passed(d.mount.sync, mark, 0, &c); i++) {
		sync_flush(d.mount.sync);
		daemon_sync(&d);
		server_finish(d.server);
		daemon_quiet(&d);
	}
	assert_true(sync_passed(d.mount.sync, mark, 0, &c));
	assert_int_equal(w->uploads, 1);
	assert_int_equal(w->removed, 1);
	end(&d);
}

static void test_a_swap_of_unique_names_takes_one_upload_more(void **state)
{
	struct daemon d;
	struct world *w = begin(&d, WORLD_SERVICEMAX);

	(void)state;
	user_swap(&d, user_find(w, 1, "a"), user_find(w, 1, "old.txt"));
	assert_true(daemon_drain(&d));
	assert_in_range(w->uploads, 2, 3);
	end(&d);
}

static void test_a_replacement_by_others_keeps_the_node(void **state)
{
	struct daemon d;
	struct world *w = begin(&d, WORLD_ET);

	(void)state;
	world_at(w, 1, "a")->there = false;
	world_add(w, 1, "a", 7);
	user_find(w, 1, "a")->content = 7;
	list_now(&d);
	assert_int_equal(w->uploads, 0);
	end(&d);
}

static void test_a_replacement_by_others_does_not_end_a_change_of_ours(void **state)
{
	struct daemon d;
	struct world *w = begin(&d, WORLD_ET);
	struct node *theirs;

	(void)state;
	user_write(&d, user_find(w, 1, "a"));
	world_at(w, 1, "a")->there = false;
	world_add(w, 1, "a", 7);
	list_now(&d);
	tree_lock(d.mount.tree);
	theirs = tree_child_locked(d.mount.tree, daemon_record(&d, 1), "a");
	assert_non_null(theirs);
	assert_false(theirs->dirty);
	assert_int_not_equal(theirs->id, user_find(w, 1, "a")->node);
	tree_unlock(d.mount.tree);
	assert_true(daemon_drain(&d));
	check_end(&d, true);
	assert_string_equal(w->breach, "");
	daemon_close(&d);
	world_free(w);
}

/* ---- backing off ---- */

struct back_off {
	int64_t least, most, sum;
	unsigned different;
};

static struct back_off sample_back_off(unsigned tries)
{
	struct back_off b = {INT64_MAX, 0, 0, 0};
	uint32_t random = 1;
	int64_t last = -1;

	for (unsigned i = 0; i < 1000; i++) {
		int64_t ms =
			sync_back_off_ms(tries, (random = random * 1664525u + 1013904223u) >> 8);

		b.least = ms < b.least ? ms : b.least;
		b.most = ms > b.most ? ms : b.most;
		b.sum += ms;
		b.different += ms != last;
		last = ms;
	}
	return b;
}

static void test_backing_off_grows_to_a_minute_and_never_ends(void **state)
{
	static const unsigned late[] = {8, 9, 31, 32, 64, 1000, 4000000000u, UINT32_MAX};
	struct back_off before = sample_back_off(0), b;

	(void)state;
	assert_true(before.least >= 125 && before.most <= 500);
	for (unsigned tries = 1; tries < 8; tries++, before = b) {
		b = sample_back_off(tries);
		assert_true(b.sum > before.sum * 3 / 2);
		/* spread over three quarters of it, not in step */
		assert_true(b.most > 3 * b.least);
		assert_true(b.different > 900);
	}
	for (size_t i = 0; i < sizeof(late) / sizeof(late[0]); i++) {
		b = sample_back_off(late[i]);
		assert_true(b.least >= 15000);
		assert_true(b.most <= 60000);
		assert_true(b.different > 900);
	}
}

#define TESTS(name)                                                                                \
	cmocka_unit_test(test_##name##_without_faults_sends_no_more_than_needed),                  \
		cmocka_unit_test(test_##name##_with_faults_ends_as_the_user_wants),                \
		cmocka_unit_test(test_##name##_with_other_clients_loses_nothing),                  \
		cmocka_unit_test(test_##name##_killed_at_any_moment_loses_nothing)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backing_off_grows_to_a_minute_and_never_ends),
		cmocka_unit_test(test_files_of_a_record_go_in_one_call),
		cmocka_unit_test(test_one_refused_file_does_not_keep_the_others),
		cmocka_unit_test(test_what_waits_for_a_refused_file_does_not_hold_up_who_waits),
		cmocka_unit_test(
			test_a_name_that_is_gone_does_not_keep_the_others_from_being_removed),
		cmocka_unit_test(test_a_rename_where_there_is_none_uploads_once_and_keeps_the_node),
		cmocka_unit_test(test_a_change_has_passed_when_its_old_file_is_removed_too),
		cmocka_unit_test(test_a_swap_of_unique_names_takes_one_upload_more),
		cmocka_unit_test(test_a_replacement_by_others_keeps_the_node),
		cmocka_unit_test(test_a_replacement_by_others_does_not_end_a_change_of_ours),
		TESTS(perscom),
		TESTS(rillsoft),
		TESTS(servicemax),
		TESTS(enterprise_tester),
	};
	enum log_level level = LOG_LEVEL_ERROR;
	const char *log = getenv("ATTACHFS_SYNC_LOG");

	if (log)
		log_level_parse(log, &level);
	log_open(NULL, level);
	return cmocka_run_group_tests_name("sync", tests, NULL, NULL);
}
