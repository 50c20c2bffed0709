/* SPDX-License-Identifier: MIT */
/* fs/ledger*.c: rows come back as put, commits survive kills, failures lose nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/ledger.h>
#include <attachfs/log.h>

static char dir[64], path[96];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/attachfs-ledger-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/ledger", dir);
	return 0;
}

static void delete_file(const char *suffix)
{
	char name[128];

	snprintf(name, sizeof name, "%s%s", path, suffix);
	unlink(name);
}

static int teardown(void **state)
{
	(void)state;
	delete_file("");
	delete_file("-wal");
	delete_file("-shm");
	delete_file("-lock");
	return rmdir(dir);
}

static struct ledger *open_ledger(void)
{
	struct ledger *l = NULL;
	char message[256] = "";
	int r = ledger_open(path, &l, message, sizeof message);

	if (r < 0)
		print_message("ledger_open: %d %s\n", r, message);
	assert_int_equal(r, 0);
	return l;
}

static struct ledger_node node(uint64_t id, const char *shown)
{
	return (struct ledger_node){.id = id,
				    .kind = LEDGER_FILE,
				    .parent = 1,
				    .shown = shown,
				    .atime_ns = INT64_MIN,
				    .mtime_ns = 5,
				    .size = -1,
				    .listed_ns = INT64_MIN};
}

struct seen {
	size_t count;
	uint64_t last;
	struct ledger_node node;
	char shown[64], message[64], fields[64];
	struct ledger_content content;
	char key[64], ranges[64], hashes[64];
	char xattrs[256];
};

static int see_node(void *ctx, const struct ledger_node *n)
{
	struct seen *s = ctx;

	assert_true(n->id > s->last);
	s->last = n->id;
	s->count++;
	s->node = *n;
	snprintf(s->shown, sizeof s->shown, "%s", n->shown ? n->shown : "(null)");
	snprintf(s->message, sizeof s->message, "%s", n->message ? n->message : "(null)");
	snprintf(s->fields, sizeof s->fields, "%s %s", n->fields ? n->fields : "(null)",
		 n->rfields ? n->rfields : "(null)");
	return 0;
}

static int see_content(void *ctx, const struct ledger_content *c)
{
	struct seen *s = ctx;

	s->count++;
	s->content = *c;
	snprintf(s->key, sizeof s->key, "%s", c->key ? c->key : "(null)");
	if (c->ranges)
		memcpy(s->ranges, c->ranges, c->ranges_len);
	if (c->block_hashes)
		memcpy(s->hashes, c->block_hashes, c->block_hashes_len);
	return 0;
}

static int see_xattr(void *ctx, uint64_t id, const char *name, const void *value, size_t len)
{
	struct seen *s = ctx;
	size_t at = strlen(s->xattrs);

	s->count++;
	snprintf(s->xattrs + at, sizeof s->xattrs - at, "%llu.%s=%.*s;", (unsigned long long)id,
		 name, (int)len, (const char *)value);
	return 0;
}

static void test_a_node_comes_back_as_it_was_put(void **state)
{
	struct ledger *l = open_ledger();
	struct seen seen = {0};
	struct ledger_node n = {.id = 77,
				.kind = LEDGER_RECORD,
				.parent = 3,
				.shown = "ä b",
				.gone = true,
				.local = true,
				.dirty = true,
				.mtime_dirty = true,
				.mode = 0640,
				.uid = UINT32_MAX,
				.gid = 7,
				.owner_set = true,
				.atime_ns = INT64_MIN,
				.mtime_ns = INT64_MAX,
				.ctime_ns = -1,
				.size = 1LL << 62,
				.content = UINT64_MAX >> 1,
				.rid = "r",
				.rparent = 4,
				.rname = "",
				.rfilename = NULL,
				.rversion = "v",
				.rurl = "u",
				.rmedia = "m",
				.rsize = -1,
				.rmtime_ns = 8,
				.rctime_ns = 9,
				.rfiller = true,
				.has_rhash = true,
				.rhash = {1, 2, [LEDGER_HASH_BYTES - 1] = 255},
				.flight = LEDGER_FLIGHT_UPDATE,
				.flight_since_ns = 10,
				.token = "t",
				.after = 11,
				.error = -EIO,
				.message = "no",
				.listed_ns = 12,
				.fields = "{\"a\":1}",
				.rfields = "{}"};

	(void)state;
	assert_int_equal(ledger_put_node(l, &n), 0);
	ledger_close(l);
	l = open_ledger();
	assert_int_equal(ledger_each_node(l, see_node, &seen), 0);
	assert_int_equal(seen.count, 1);
	assert_string_equal(seen.shown, "ä b");
	assert_string_equal(seen.message, "no");
	assert_string_equal(seen.fields, "{\"a\":1} {}");
	assert_null(seen.node.rfilename);
	/* Everything but the pointers. */
#define SAME(field) assert_true(seen.node.field == n.field)
	SAME(id);
	SAME(kind);
	SAME(parent);
	SAME(gone);
	SAME(local);
	SAME(dirty);
	SAME(mtime_dirty);
	SAME(mode);
	SAME(uid);
	SAME(gid);
	SAME(owner_set);
	SAME(atime_ns);
	SAME(mtime_ns);
	SAME(ctime_ns);
	SAME(size);
	SAME(content);
	SAME(rparent);
	SAME(rsize);
	SAME(rmtime_ns);
	SAME(rctime_ns);
	SAME(rfiller);
	SAME(has_rhash);
	assert_memory_equal(seen.node.rhash, n.rhash, sizeof(n.rhash));
	SAME(flight);
	SAME(flight_since_ns);
	SAME(after);
	SAME(error);
	SAME(listed_ns);
#undef SAME
	ledger_close(l);
}

static void test_a_content_comes_back_as_it_was_put(void **state)
{
	struct ledger *l = open_ledger();
	struct seen seen = {0};
	uint64_t ranges[] = {0, 5, 7, 9}, hashes[] = {1, 2};
	struct ledger_content c = {.id = 5,
				   .kind = LEDGER_CONTENT_DIRTY,
				   .base = 4,
				   .base_len = 3,
				   .size = 9,
				   .has_hash = true,
				   .hash = "0123456789abcde",
				   .ranges = ranges,
				   .ranges_len = sizeof ranges,
				   .block_hashes = hashes,
				   .block_hashes_len = sizeof hashes,
				   .used_ns = 6};

	(void)state;
	assert_int_equal(ledger_put_content(l, &c), 0);
	assert_int_equal(ledger_mark_content(l, 5, 60, true, false, 0), 0);
	assert_int_equal(ledger_mark_content(l, 99, 60, true, false, 0), 0);
	assert_int_equal(ledger_each_content(l, see_content, &seen), 0);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.content.file, 5);
	assert_int_equal(seen.content.used_ns, 60);
	assert_true(seen.content.pinned && seen.content.has_hash && !seen.content.suspect);
	assert_memory_equal(seen.content.hash, c.hash, LEDGER_HASH_BYTES);
	assert_int_equal(seen.content.ranges_len, sizeof ranges);
	assert_memory_equal(seen.ranges, ranges, sizeof ranges);
	assert_memory_equal(seen.hashes, hashes, sizeof hashes);
	assert_int_equal(ledger_clean_content(l, 5, "r/1"), 0);
	assert_int_equal(ledger_each_content(l, see_content, &seen), 0);
	assert_int_equal(seen.content.kind, LEDGER_CONTENT_CLEAN);
	assert_string_equal(seen.key, "r/1");
	ledger_close(l);
}

static void test_the_last_image_of_a_row_wins(void **state)
{
	struct ledger *l = open_ledger();
	struct seen seen = {0};
	struct ledger_node n = node(2, "a");

	(void)state;
	for (int i = 0; i < 1000; i++) {
		char name[16];

		snprintf(name, sizeof name, "n%d", i);
		n.shown = name;
		n.id = 2 + (uint64_t)i % 3;
		assert_int_equal(ledger_put_node(l, &n), 0);
	}
	assert_int_equal(ledger_drop_node(l, 3), 0);
	assert_int_equal(ledger_each_node(l, see_node, &seen), 0);
	assert_int_equal(seen.count, 2);
	assert_string_equal(seen.shown, "n998");
	ledger_close(l);
}

static void test_dropping_a_node_drops_its_xattrs_in_the_order_of_the_calls(void **state)
{
	struct ledger *l = open_ledger();
	struct ledger_node n = node(2, "a");
	struct seen seen = {0};

	(void)state;
	ledger_put_node(l, &n);
	ledger_put_xattr(l, 2, "user.a", "1", 1);
	ledger_put_xattr(l, 2, "user.b", "2", 1);
	ledger_put_xattr(l, 2, "user.a", "three", 5);
	ledger_put_xattr(l, 3, "user.a", NULL, 0);
	assert_int_equal(ledger_each_xattr(l, see_xattr, &seen), 0);
	assert_string_equal(seen.xattrs, "2.user.a=three;2.user.b=2;3.user.a=;");
	seen = (struct seen){0};
	ledger_put_xattr(l, 2, "user.c", "4", 1);
	ledger_drop_xattr(l, 3, "user.a");
	ledger_drop_node(l, 2);
	ledger_put_xattr(l, 4, "user.d", "5", 1);
	assert_int_equal(ledger_each_xattr(l, see_xattr, &seen), 0);
	assert_string_equal(seen.xattrs, "4.user.d=5;");
	ledger_close(l);
}

static void test_values_are_kept(void **state)
{
	struct ledger *l = open_ledger();
	size_t len = 99;
	char *value;

	(void)state;
	assert_null(ledger_get_value(l, "k", &len));
	assert_int_equal(ledger_put_value(l, "k", "a\0b", 3), 0);
	value = ledger_get_value(l, "k", &len);
	assert_non_null(value);
	assert_int_equal(len, 3);
	assert_memory_equal(value, "a\0b", 4);
	free(value);
	ledger_close(l);
}

static void test_the_highest_node_id_outlives_its_node(void **state)
{
	struct ledger *l = open_ledger();
	struct ledger_node n = node(41, "a");

	(void)state;
	assert_int_equal(ledger_max_node_id(l), 0);
	ledger_put_node(l, &n);
	assert_int_equal(ledger_max_node_id(l), 41);
	ledger_close(l);
	l = open_ledger();
	assert_int_equal(ledger_max_node_id(l), 41);
	ledger_drop_node(l, 41);
	ledger_close(l);
	l = open_ledger();
	assert_int_equal(ledger_max_node_id(l), 41);
	ledger_close(l);
}

static void test_files_are_private_and_one_daemon_has_them(void **state)
{
	struct ledger *l = open_ledger(), *other = NULL;
	static const char *const suffixes[] = {"", "-wal", "-shm", "-lock"};
	char message[256] = "";

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		char name[128];
		struct stat st;

		snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
		assert_int_equal(stat(name, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	assert_int_equal(ledger_open(path, &other, message, sizeof message), -EBUSY);
	assert_non_null(strstr(message, "another"));
	ledger_close(l);
}

static void test_what_is_no_ledger_is_refused_and_left_alone(void **state)
{
	char message[256] = "";
	struct ledger *l = NULL;
	sqlite3 *db;
	FILE *f = fopen(path, "w");

	(void)state;
	for (int i = 0; i < 5000; i++)
		fputs("this is no database ", f);
	fclose(f);
	assert_int_equal(ledger_open(path, &l, message, sizeof message), -EUCLEAN);
	assert_true(strlen(message) > 0);
	unlink(path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_exec(db, "CREATE TABLE x(y)", NULL, NULL, NULL);
	sqlite3_close(db);
	assert_int_equal(ledger_open(path, &l, message, sizeof message), -EIO);
	assert_non_null(strstr(message, "no ledger"));
	unlink(path);
	l = open_ledger();
	ledger_close(l);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_exec(db, "PRAGMA user_version=1000", NULL, NULL, NULL);
	sqlite3_close(db);
	assert_int_equal(ledger_open(path, &l, message, sizeof message), -EPROTONOSUPPORT);
}

/* Takes off what version @from did not have yet, and sees that it comes back. */
static void check_upgrade(const char *from, const char *drop)
{
	struct ledger *l = open_ledger();
	struct ledger_node n = node(7, "old");
	struct seen seen = {0};
	sqlite3 *db;

	assert_int_equal(ledger_put_node(l, &n), 0);
	ledger_close(l);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, drop, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, from, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	for (int i = 0; i < 2; i++) {
		l = open_ledger();
		seen = (struct seen){0};
		assert_int_equal(ledger_each_node(l, see_node, &seen), 0);
		assert_int_equal(seen.count, 1);
		assert_string_equal(seen.shown, "old");
		assert_string_equal(seen.fields, i ? "{} (null)" : "(null) (null)");
		assert_int_equal(seen.node.has_rhash, i);
		n.fields = "{}";
		n.has_rhash = true;
		assert_int_equal(ledger_put_node(l, &n), 0);
		ledger_close(l);
	}
}

static void test_a_ledger_of_the_first_version_is_upgraded(void **state)
{
	(void)state;
	check_upgrade("PRAGMA user_version=1", "ALTER TABLE node DROP COLUMN fields;"
					       "ALTER TABLE node DROP COLUMN rfields;"
					       "ALTER TABLE node DROP COLUMN rhash;"
					       "ALTER TABLE content DROP COLUMN before");
}

static void test_a_ledger_of_the_second_version_is_upgraded(void **state)
{
	(void)state;
	check_upgrade("PRAGMA user_version=2", "ALTER TABLE node DROP COLUMN rhash;"
					       "ALTER TABLE content DROP COLUMN before");
}

static int end_walk(void *ctx, const struct ledger_node *n)
{
	struct ledger *l = ctx;
	struct ledger_node other = node(n->id + 1000, "put in a walk");

	assert_int_equal(ledger_put_node(l, &other), 0);
	return n->id == 3 ? 42 : 0;
}

static void test_a_walk_ends_when_told_and_may_put(void **state)
{
	struct ledger *l = open_ledger();
	struct seen seen = {0};

	(void)state;
	for (uint64_t i = 1; i < 6; i++) {
		struct ledger_node n = node(i, "x");

		ledger_put_node(l, &n);
	}
	assert_int_equal(ledger_each_node(l, end_walk, l), 42);
	assert_int_equal(ledger_each_node(l, see_node, &seen), 0);
	assert_int_equal(seen.count, 8);
	ledger_close(l);
}

static void test_the_thread_commits_and_syncs_by_itself(void **state)
{
	struct ledger *l = open_ledger();
	struct ledger_node n = node(9, "lazy");
	sqlite3 *db;
	int rows = 0;

	(void)state;
	ledger_put_node(l, &n);
	usleep(4 * LEDGER_LAZY_MS * 1000);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_exec(db, "SELECT 1 FROM node WHERE id=9", NULL, NULL, NULL);
	sqlite3_stmt *stmt = NULL;
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM node", -1, &stmt, NULL),
			 SQLITE_OK);
	if (sqlite3_step(stmt) == SQLITE_ROW)
		rows = sqlite3_column_int(stmt, 0);
	sqlite3_finalize(stmt);
	assert_int_equal(rows, 1);
	sqlite3_close(db);
	ledger_close(l);
}

static int count_hook(void *ctx)
{
	(*(int *)ctx)++;
	return 0;
}

static void test_many_rows_are_one_sync(void **state)
{
	struct ledger *l = open_ledger();
	int hooks = 0;

	(void)state;
	ledger_set_before_sync(l, count_hook, &hooks);
	for (uint64_t i = 1; i <= 1000; i++) {
		struct ledger_node n = node(i, "x");

		ledger_put_node(l, &n);
		assert_int_equal(ledger_commit(l), 0);
	}
	assert_int_equal(ledger_sync(l), 0);
	assert_int_equal(ledger_sync(l), 0); /* nothing new: nothing to do */
	assert_true(hooks >= 1 && hooks <= 5);
	ledger_set_before_sync(l, NULL, NULL);
	ledger_close(l);
}

/* Failures. */

static int failing_hook(void *ctx)
{
	int *left = ctx;

	return (*left)-- > 0 ? -EIO : 0;
}

static void test_what_cannot_be_synced_is_not_vouched_for(void **state)
{
	struct ledger *l = open_ledger();
	struct ledger_node n = node(1, "x");
	int left = 1000000;

	(void)state;
	ledger_set_before_sync(l, failing_hook, &left);
	ledger_put_node(l, &n);
	assert_int_equal(ledger_commit(l), 0);
	assert_int_equal(ledger_sync(l), -EIO);
	assert_null(ledger_get_value(l, "synced", NULL));
	ledger_set_before_sync(l, NULL, NULL);
	left = 0;
	ledger_set_before_sync(l, failing_hook, &left);
	assert_int_equal(ledger_sync(l), 0);
	ledger_set_before_sync(l, NULL, NULL);
	ledger_close(l);
}

static void limit_files(rlim_t bytes)
{
	struct rlimit limit = {bytes, RLIM_INFINITY};

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_a_failed_commit_is_reported_and_tried_again(void **state)
{
	struct ledger *l = open_ledger();
	struct ledger_node n = node(1, "first");
	struct seen seen = {0};
	char big[20000];

	(void)state;
	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = '\0';
	assert_int_equal(ledger_sync(l), 0);
	limit_files(4096);
	n.message = big;
	ledger_put_node(l, &n);
	assert_int_equal(ledger_commit(l), -EIO);
	n = node(2, "second");
	ledger_put_node(l, &n);
	assert_true(ledger_commit(l) < 0);
	assert_true(ledger_sync(l) < 0);
	n = node(1, "third");
	ledger_put_node(l, &n);
	limit_files(RLIM_INFINITY);
	assert_int_equal(ledger_commit(l), 0);
	assert_int_equal(ledger_sync(l), 0);
	assert_int_equal(ledger_each_node(l, see_node, &seen), 0);
	assert_int_equal(seen.count, 2);
	assert_string_equal(seen.shown, "second");
	ledger_close(l);
}

/* Threads. */

struct worker {
	struct ledger *l;
	uint64_t first;
};

static void *put_and_commit(void *arg)
{
	const struct worker *w = arg;

	for (uint64_t i = 0; i < 200; i++) {
		struct ledger_node n = node(w->first + i, "thread");
		struct ledger_node m = node(w->first + i + 100000, "twin");

		ledger_group_begin(w->l);
		ledger_put_node(w->l, &n);
		ledger_put_node(w->l, &m);
		ledger_group_end(w->l);
		if (ledger_commit(w->l) < 0 || (i % 50 == 0 && ledger_sync(w->l) < 0))
			abort();
	}
	return NULL;
}

static void test_threads_share_commits(void **state)
{
	struct ledger *l = open_ledger();
	struct seen seen = {0};
	pthread_t threads[8];
	struct worker workers[8];

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		workers[i] = (struct worker){l, i * 1000 + 1};
		assert_int_equal(pthread_create(&threads[i], NULL, put_and_commit, &workers[i]), 0);
	}
	for (int i = 0; i < 5; i++) {
		seen = (struct seen){0};
		assert_int_equal(ledger_each_node(l, see_node, &seen), 0);
		assert_int_equal(seen.count % 2, 0); /* groups are never seen in part */
	}
	for (size_t i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	seen = (struct seen){0};
	assert_int_equal(ledger_each_node(l, see_node, &seen), 0);
	assert_int_equal(seen.count, 8 * 200 * 2);
	ledger_close(l);
}

/* Kills. */

/*
 * Puts rows, each naming its round, and tells the parent over the pipe which round is committed.
 * Row id = 1 + round % 50, and a pair row id + 1000 in the same group.
 */
static void child_commits_until_killed(int out, uint64_t round)
{
	struct ledger *l = NULL;

	if (ledger_open(path, &l, NULL, 0) < 0)
		_exit(1);
	for (;; round++) {
		struct ledger_node n = node(1 + round % 50, "round");

		n.size = (int64_t)round;
		ledger_group_begin(l);
		ledger_put_node(l, &n);
		n.id += 1000;
		ledger_put_node(l, &n);
		ledger_group_end(l);
		if (round % 7 == 0 ? ledger_sync(l) : ledger_commit(l))
			_exit(2);
		if (write(out, &round, sizeof round) != sizeof round)
			_exit(3);
	}
}

struct rounds {
	int64_t highest, of[2000];
};

static int see_round(void *ctx, const struct ledger_node *n)
{
	struct rounds *r = ctx;

	assert_true(n->id < 2000);
	r->of[n->id] = n->size;
	if (n->size > r->highest)
		r->highest = n->size;
	return 0;
}

static uint64_t kill_once(uint64_t round, unsigned us)
{
	uint64_t told = round, got;
	int pipes[2], status;
	pid_t pid;

	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (pid == 0) {
		close(pipes[0]);
		child_commits_until_killed(pipes[1], round + 1);
	}
	close(pipes[1]);
	/* Count from the first commit, so that opening is killed as well only sometimes. */
	if (us % 4 != 0 && read(pipes[0], &got, sizeof got) == sizeof got)
		told = got;
	usleep(us);
	kill(pid, SIGKILL);
	while (read(pipes[0], &got, sizeof got) == sizeof got)
		told = got;
	close(pipes[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	return told;
}

static void test_what_was_committed_survives_kill_9(void **state)
{
	unsigned seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : (unsigned)time(NULL);
	int kills = getenv("KILLS") ? atoi(getenv("KILLS")) : 60;
	uint64_t told = 0;

	(void)state;
	print_message("SEED=%u\n", seed);
	srand(seed);
	for (int i = 0; i < kills; i++) {
		struct rounds rounds = {0};
		struct ledger *l;

		told = kill_once(told, (unsigned)rand() % 20000);
		l = open_ledger();
		assert_int_equal(ledger_each_node(l, see_round, &rounds), 0);
		/* One more may have been committed without the parent having been told. */
		assert_in_range(rounds.highest, told, told + 1);
		for (int64_t r = rounds.highest; r > 0 && r > rounds.highest - 50; r--) {
			assert_int_equal(rounds.of[1 + r % 50], r);
			assert_int_equal(rounds.of[1001 + r % 50], r);
		}
		told = (uint64_t)rounds.highest;
		ledger_close(l);
	}
	print_message("%llu commits, %d kills\n", (unsigned long long)told, kills);
}

/* Power failures: the same end as a kill, but on another boot. */

static void set_boot(const char *boot)
{
	sqlite3_stmt *stmt;
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "UPDATE value SET value=? WHERE key='boot'", -1,
					    &stmt, NULL),
			 SQLITE_OK);
	sqlite3_bind_blob(stmt, 1, boot, (int)strlen(boot), SQLITE_STATIC);
	assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
}

static void child_puts_contents_and_dies(void)
{
	struct ledger_content c = {.id = 1, .kind = LEDGER_CONTENT_DIRTY};
	struct ledger *l = NULL;

	if (ledger_open(path, &l, NULL, 0) < 0)
		_exit(1);
	ledger_put_content(l, &c);
	if (ledger_sync(l) < 0)
		_exit(2);
	c.id = 2;
	ledger_put_content(l, &c);
	c.id = 3;
	c.on_disk = true;
	ledger_put_content(l, &c);
	if (ledger_commit(l) < 0)
		_exit(3);
	kill(getpid(), SIGKILL);
}

static int see_suspects(void *ctx, const struct ledger_content *c)
{
	char *text = ctx;
	size_t at = strlen(text);

	snprintf(text + at, 64 - at, "%llu%s%s ", (unsigned long long)c->id, c->unsynced ? "u" : "",
		 c->suspect ? "s" : "");
	return 0;
}

static void die_once(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		child_puts_contents_and_dies();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void test_only_a_power_failure_makes_unsynced_contents_suspect(void **state)
{
	char text[64] = "";
	struct ledger *l;

	(void)state;
	die_once();
	l = open_ledger();
	assert_int_equal(ledger_each_content(l, see_suspects, text), 0);
	assert_string_equal(text, "1 2u 3 ");
	ledger_close(l);
	l = open_ledger(); /* closed cleanly meanwhile */
	text[0] = '\0';
	assert_int_equal(ledger_each_content(l, see_suspects, text), 0);
	assert_string_equal(text, "1 2 3 ");
	ledger_close(l);
	die_once();
	set_boot("another");
	l = open_ledger();
	text[0] = '\0';
	assert_int_equal(ledger_each_content(l, see_suspects, text), 0);
	assert_string_equal(text, "1 2us 3 ");
	ledger_close(l);
}

static void expect_unclean(struct ledger *l, const char *words)
{
	char message[256] = "";

	assert_int_equal(ledger_check(l, message, sizeof message), -EUCLEAN);
	if (!strstr(message, words))
		print_message("%s\n", message);
	assert_non_null(strstr(message, words));
}

static void test_check_finds_rows_that_contradict_each_other(void **state)
{
	struct ledger *l = open_ledger();
	struct ledger_node n = node(2, "a"), m = node(3, "a");
	struct ledger_content c = {
		.id = 7, .kind = LEDGER_CONTENT_DIRTY, .size = 3, .complete = true};
	uint64_t bad_ranges[] = {2, 1};
	char message[256] = "";

	(void)state;
	ledger_put_node(l, &n);
	assert_int_equal(ledger_check(l, message, sizeof message), 0);
	ledger_put_node(l, &m);
	expect_unclean(l, "shares its name");
	m.parent = 50;
	ledger_put_node(l, &m);
	expect_unclean(l, "directory is missing");
	m.parent = 3;
	m.kind = LEDGER_COLLECTION;
	ledger_put_node(l, &m);
	expect_unclean(l, "below the root");
	ledger_drop_node(l, 3);
	n.dirty = true;
	n.content = 7;
	ledger_put_node(l, &n);
	expect_unclean(l, "its content is missing");
	ledger_put_content(l, &c);
	assert_int_equal(ledger_check(l, message, sizeof message), 0);
	c.base = 6;
	ledger_put_content(l, &c);
	expect_unclean(l, "complete, but");
	c.complete = false;
	ledger_put_content(l, &c);
	expect_unclean(l, "its base is missing");
	c.base = 0;
	c.ranges = bad_ranges;
	c.ranges_len = sizeof bad_ranges;
	ledger_put_content(l, &c);
	expect_unclean(l, "its ranges");
	ledger_drop_content(l, 7);
	ledger_drop_node(l, 2);
	ledger_put_xattr(l, 2, "user.x", "1", 1);
	expect_unclean(l, "xattrs");
	ledger_close(l);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_a_node_comes_back_as_it_was_put),
		TEST(test_a_content_comes_back_as_it_was_put),
		TEST(test_the_last_image_of_a_row_wins),
		TEST(test_dropping_a_node_drops_its_xattrs_in_the_order_of_the_calls),
		TEST(test_values_are_kept),
		TEST(test_the_highest_node_id_outlives_its_node),
		TEST(test_files_are_private_and_one_daemon_has_them),
		TEST(test_what_is_no_ledger_is_refused_and_left_alone),
		TEST(test_a_ledger_of_the_first_version_is_upgraded),
		TEST(test_a_ledger_of_the_second_version_is_upgraded),
		TEST(test_a_walk_ends_when_told_and_may_put),
		TEST(test_the_thread_commits_and_syncs_by_itself),
		TEST(test_many_rows_are_one_sync),
		TEST(test_what_cannot_be_synced_is_not_vouched_for),
		TEST(test_a_failed_commit_is_reported_and_tried_again),
		TEST(test_threads_share_commits),
		TEST(test_what_was_committed_survives_kill_9),
		TEST(test_only_a_power_failure_makes_unsynced_contents_suspect),
		TEST(test_check_finds_rows_that_contradict_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
