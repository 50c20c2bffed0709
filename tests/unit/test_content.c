/* SPDX-License-Identifier: MIT */
/* fs/content*.c: what was written is what is read, over every chain, across every end; and the
 * limit holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/content.h>
#include <attachfs/log.h>

#define MIB (1024 * 1024)

static char dir[64], ledger_path[96], store_path[96];
static struct ledger *ledger;
static struct content_store *store;
static uint64_t limit = 64 * MIB;

static void open_store(void)
{
	struct content_config config = {.dir = store_path, .limit_bytes = limit};
	char message[256] = "";
	int r = ledger_open(ledger_path, &ledger, message, sizeof message);

	assert_int_equal(r, 0);
	r = content_store_open(&config, ledger, &store, message, sizeof message);
	if (r < 0)
		print_message("content_store_open: %d %s\n", r, message);
	assert_int_equal(r, 0);
}

static void close_store(void)
{
	content_store_close(store);
	ledger_close(ledger);
	store = NULL;
	ledger = NULL;
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/attachfs-content-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(ledger_path, sizeof ledger_path, "%s/ledger", dir);
	snprintf(store_path, sizeof store_path, "%s/store", dir);
	limit = 64 * MIB;
	open_store();
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	char message[256] = "";

	(void)state;
	if (ledger) {
		assert_int_equal(ledger_check(ledger, message, sizeof message), 0);
		close_store();
	}
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static unsigned count_in(const char *sub)
{
	char path[128];
	unsigned count = 0;
	DIR *d;

	snprintf(path, sizeof path, "%s/%s", store_path, sub);
	d = opendir(path);
	assert_non_null(d);
	for (const struct dirent *e; (e = readdir(d));)
		count += e->d_name[0] != '.';
	closedir(d);
	return count;
}

static unsigned count_objects(void)
{
	unsigned count = 0;
	char sub[16];

	for (unsigned i = 0; i < 256; i++) {
		snprintf(sub, sizeof sub, "objects/%02x", i);
		count += count_in(sub);
	}
	return count;
}

static int write_at(struct content *c, uint64_t off, const void *data, size_t len)
{
	int fd, r = content_write_begin(c, off, len, &fd);

	if (r < 0)
		return r;
	assert_int_equal(pwrite(fd, data, len, (off_t)off), len);
	content_write_end(c, off, len);
	return 0;
}

/* All of it through content_map(), checked; missing bytes are 'M'. */
static size_t read_all(struct content *c, char *buffer, size_t room)
{
	struct content_extent e;
	size_t off = 0;

	assert_int_equal(content_check(c, 0, room, NULL), 0);
	for (;;) {
		assert_int_equal(content_map(c, off, room + 1 - off, &e), 0);
		if (e.where == CONTENT_END)
			return off;
		assert_int_not_equal(e.where, CONTENT_DOUBTED);
		assert_true(e.len > 0 && off + e.len <= room);
		if (e.where == CONTENT_FILE)
			assert_int_equal(pread(e.fd, buffer + off, e.len, (off_t)e.fd_off), e.len);
		else
			memset(buffer + off, e.where == CONTENT_MISSING ? 'M' : 0, e.len);
		off += e.len;
	}
}

static void expect(struct content *c, const void *want, size_t len)
{
	char *buffer = malloc(MIB);

	assert_int_equal(read_all(c, buffer, MIB), len);
	assert_memory_equal(buffer, want, len);
	free(buffer);
}

static struct content *dirty_with(const char *text)
{
	struct content *c = content_new_dirty(store, NULL, 0);

	assert_non_null(c);
	assert_int_equal(write_at(c, 0, text, strlen(text)), 0);
	return c;
}

static struct content *sealed_with(const char *text)
{
	struct content *c = dirty_with(text);

	assert_int_equal(content_seal(c), 0);
	return c;
}

static struct content *clean_with(const char *key, const char *text)
{
	struct content *c = content_for_key(store, key, (int64_t)strlen(text));

	assert_non_null(c);
	assert_int_equal(content_fill(c, 0, text, strlen(text)), 0);
	assert_int_equal(content_finish(c), 0);
	return c;
}

static uint64_t used(void)
{
	struct content_usage u;

	content_store_usage(store, &u);
	return u.bytes;
}

/* Clean. */

static void test_a_clean_content_fills_in_any_order_and_survives_a_restart(void **state)
{
	struct content *c = content_for_key(store, "7/1", -1);
	uint64_t first, end;
	uint8_t hash[LEDGER_HASH_BYTES], again[LEDGER_HASH_BYTES];

	(void)state;
	assert_int_equal(content_size(c), -1);
	assert_int_equal(content_fill(c, 4, "efgh", 4), 0);
	assert_true(content_next_missing(c, 0, &first, &end));
	assert_int_equal(end, 4);
	assert_int_equal(content_set_size(c, 7), -ESTALE);
	assert_int_equal(content_set_size(c, 10), 0);
	assert_int_equal(content_set_size(c, 11), -ESTALE);
	assert_int_equal(content_fill(c, 8, "ijk", 3), -EINVAL);
	expect(c, "MMMMefghMM", 10);
	assert_int_equal(content_fill(c, 6, "ghij", 4), 0);
	assert_false(content_is_complete(c));
	assert_int_equal(content_finish(c), -EINVAL);
	assert_int_equal(content_fill(c, 0, "abcd", 4), 0);
	assert_true(content_is_complete(c));
	assert_false(content_next_missing(c, 0, &first, &end));
	assert_false(content_hash(c, hash));
	assert_int_equal(content_finish(c), 0);
	assert_true(content_hash(c, hash));
	assert_int_equal(used(), 10);
	content_unref(c);
	close_store();
	open_store();
	c = content_peek_key(store, "7/1");
	assert_non_null(c);
	expect(c, "abcdefghij", 10);
	assert_true(content_hash(c, again));
	assert_memory_equal(hash, again, sizeof hash);
	assert_int_equal(used(), 10);
	assert_null(content_peek_key(store, "7/2"));
	content_unref(c);
}

static void test_an_incomplete_clean_content_is_gone_after_a_restart(void **state)
{
	struct content *c = content_for_key(store, "7/1", 10);

	(void)state;
	assert_int_equal(content_fill(c, 0, "abc", 3), 0);
	content_unref(c);
	c = content_peek_key(store, "7/1");
	expect(c, "abcMMMMMMM", 10);
	content_unref(c);
	close_store();
	open_store();
	assert_null(content_peek_key(store, "7/1"));
	assert_int_equal(used(), 0);
	/* its row says whose the file was: nothing unknown is left behind */
	assert_int_equal(count_in("lost+found"), 0);
}

static void test_an_empty_clean_content_is_complete_without_a_file(void **state)
{
	struct content *c = content_for_key(store, "7/1", 0);

	(void)state;
	assert_true(content_is_complete(c));
	assert_int_equal(content_finish(c), 0);
	expect(c, "", 0);
	content_unref(c);
	close_store();
	open_store();
	c = content_peek_key(store, "7/1");
	assert_non_null(c);
	assert_true(content_is_complete(c));
	content_unref(c);
}

static void test_a_clean_content_with_another_size_than_its_row_is_dropped(void **state)
{
	struct content *c = clean_with("7/1", "hello");
	char path[160];

	(void)state;
	snprintf(path, sizeof path, "%s/objects/%02x/%016llx", store_path,
		 (unsigned)(content_id(c) & 0xff), (unsigned long long)content_id(c));
	content_unref(c);
	close_store();
	assert_int_equal(truncate(path, 3), 0);
	open_store();
	assert_null(content_peek_key(store, "7/1"));
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(count_in("lost+found"), 0);
}

/* Dirty. */

static void test_writing_over_a_base_shows_it_up_to_base_len(void **state)
{
	struct content *base = clean_with("1/1", "0123456789");
	struct content *c = content_new_dirty(store, base, 8), *d;

	(void)state;
	assert_int_equal(content_size(c), 8);
	assert_int_equal(write_at(c, 2, "AB", 2), 0);
	expect(c, "01AB4567", 8);
	assert_int_equal(content_truncate(c, 6), 0);
	assert_int_equal(content_truncate(c, 9), 0);
	expect(c, "01AB45\0\0\0", 9);
	assert_int_equal(write_at(c, 11, "Z", 1), 0);
	expect(c, "01AB45\0\0\0\0\0Z", 12);
	assert_null(content_new_dirty(store, c, 3)); /* still open */
	assert_int_equal(content_seal(c), 0);
	assert_int_equal(content_seal(c), 0);
	assert_int_equal(write_at(c, 0, "x", 1), -EALREADY);
	assert_int_equal(content_truncate(c, 0), -EALREADY);
	d = content_new_dirty(store, c, 12);
	assert_int_equal(write_at(d, 0, "+", 1), 0);
	expect(d, "+1AB45\0\0\0\0\0Z", 12);
	expect(c, "01AB45\0\0\0\0\0Z", 12);
	expect(base, "0123456789", 10);
	content_unref(d);
	content_unref(c);
	content_unref(base);
}

static void test_missing_bytes_of_a_base_are_fetched_then_flattened(void **state)
{
	struct content *base = content_for_key(store, "1/1", 10);
	struct content *c = content_new_dirty(store, base, 10);
	struct content_extent e;

	(void)state;
	assert_int_equal(write_at(c, 0, "ab", 2), 0);
	assert_int_equal(content_seal(c), 0);
	assert_false(content_is_local(c));
	assert_int_equal(content_flatten(c), -ENODATA);
	assert_int_equal(content_map(c, 2, 100, &e), 0);
	assert_int_equal(e.where, CONTENT_MISSING);
	assert_ptr_equal(e.owner, base);
	assert_int_equal(e.owner_off, 2);
	assert_int_equal(e.len, 8);
	assert_int_equal(content_fill(base, 0, "0123456789", 10), 0);
	assert_true(content_is_local(c));
	assert_false(content_is_complete(c));
	assert_int_equal(content_flatten(c), 0);
	assert_true(content_is_complete(c));
	expect(c, "ab23456789", 10);
	content_unref(base);
	content_unref(c);
}

static void test_a_sealed_content_survives_with_its_incomplete_base(void **state)
{
	struct content *base = content_for_key(store, "1/1", 10);
	struct content *c = content_new_dirty(store, base, 10);
	uint64_t id = content_id(c);

	(void)state;
	assert_int_equal(content_fill(base, 0, "0123", 4), 0);
	assert_int_equal(write_at(c, 1, "X", 1), 0);
	assert_int_equal(content_seal(c), 0);
	content_unref(c);
	content_unref(base);
	close_store();
	open_store();
	assert_null(content_get(store, id + 1000));
	c = content_get(store, id);
	assert_non_null(c);
	assert_true(content_is_dirty(c) && content_is_sealed(c));
	expect(c, "0X23MMMMMM", 10);
	base = content_peek_key(store, "1/1");
	assert_int_equal(content_fill(base, 4, "456789", 6), 0);
	expect(c, "0X23456789", 10);
	content_unref(base);
	content_unref(c);
}

static void test_an_empty_new_file_needs_no_file(void **state)
{
	struct content *c = content_new_dirty(store, NULL, 0);
	uint64_t id = content_id(c);

	(void)state;
	assert_int_equal(content_seal(c), 0);
	assert_true(content_is_complete(c));
	assert_int_equal(content_flatten(c), 0);
	content_unref(c);
	assert_int_equal(count_objects(), 0);
	close_store();
	open_store();
	c = content_get(store, id);
	assert_non_null(c);
	expect(c, "", 0);
	content_unref(c);
}

static void test_open_contents_go_when_closed_and_to_lost_found_when_killed(void **state)
{
	struct content *c = dirty_with("not saved");
	pid_t pid;
	int status;

	(void)state;
	content_unref(c);
	close_store();
	pid = fork();
	if (pid == 0) {
		open_store();
		dirty_with("lost words");
		c = content_new_dirty(store, NULL, 0);
		content_allocate(c, 0, 0, false);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	open_store();
	assert_int_equal(count_in("lost+found"), 1);
}

/* New contents in quick succession, until files are there that nobody has written to yet. */
static void write_until_files_are_made_ahead(struct content *c[static 20], unsigned others)
{
	struct timespec pause = {.tv_nsec = 10000000};

	for (unsigned i = 0; i < 20; i++) {
		char text[16];

		snprintf(text, sizeof text, "words %u", i);
		c[i] = dirty_with(text);
	}
	for (unsigned i = 0; i < 3000 && count_objects() <= others + 20; i++)
		nanosleep(&pause, NULL);
	assert_true(count_objects() > others + 20);
}

static void test_files_made_ahead_leave_no_trace(void **state)
{
	struct content *c[20];
	pid_t pid;
	int status;

	(void)state;
	write_until_files_are_made_ahead(c, 0);
	for (unsigned i = 0; i < 20; i++) {
		struct content *late = dirty_with("in a file that was there");

		assert_int_equal(content_seal(c[i]), 0);
		expect(late, "in a file that was there", 24);
		content_unref(late);
	}
	expect(c[19], "words 19", 8);
	for (unsigned i = 0; i < 20; i++)
		content_unref(c[i]);
	close_store();
	/* all but one that may have been on its way to a content already gone: see below */
	assert_in_range(count_objects(), 20, 22);
	open_store();
	assert_int_equal(count_objects(), 20);
	close_store();
	pid = fork();
	if (pid == 0) {
		open_store();
		write_until_files_are_made_ahead(c, 20);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_true(count_objects() > 40);
	open_store();
	assert_int_equal(count_objects(), 20);
	assert_int_equal(count_in("lost+found"), 20);
}

static void test_sparse_files_read_as_zeros_and_seek_as_holes(void **state)
{
	struct content *c = dirty_with("head");

	(void)state;
	assert_int_equal(content_truncate(c, 100), 0);
	assert_int_equal(write_at(c, 200, "tail", 4), 0);
	assert_int_equal(content_seek(c, 0, SEEK_DATA), 0);
	assert_int_equal(content_seek(c, 0, SEEK_HOLE), 4);
	assert_int_equal(content_seek(c, 4, SEEK_DATA), 200);
	assert_int_equal(content_seek(c, 201, SEEK_HOLE), 204);
	assert_int_equal(content_seek(c, 204, SEEK_DATA), -ENXIO);
	assert_int_equal(content_truncate(c, 150), 0);
	assert_int_equal(content_seek(c, 4, SEEK_DATA), -ENXIO);
	assert_int_equal(content_truncate(c, INT64_MAX - CONTENT_BLOCK_BYTES), 0);
	assert_int_equal(content_truncate(c, INT64_MAX), -EFBIG);
	assert_int_equal(write_at(c, INT64_MAX - 2, "x", 1), -EFBIG);
	content_unref(c);
}

/* Ends. */

static void test_flatten_then_clean_takes_the_place_of_the_key(void **state)
{
	struct content *old = clean_with("9/2", "old words"), *c = sealed_with("new words"), *got;
	uint64_t id = content_id(c);
	uint8_t hash[LEDGER_HASH_BYTES];

	(void)state;
	assert_int_equal(content_become_clean(content_ref(c), "9/2"), 0);
	content_unref(c);
	assert_false(content_is_dirty(c));
	assert_false(content_hash(c, hash));
	assert_int_equal(content_finish(c), 0);
	got = content_peek_key(store, "9/2");
	assert_ptr_equal(got, c);
	content_unref(got);
	expect(old, "old words", 9);
	content_unref(old);
	content_unref(c);
	close_store();
	open_store();
	got = content_peek_key(store, "9/2");
	assert_non_null(got);
	assert_int_equal(content_id(got), id);
	assert_false(content_is_dirty(got));
	expect(got, "new words", 9);
	content_unref(got);
	assert_int_equal(used(), 9);
	assert_int_equal(count_in("lost+found"), 0);
}

static void test_merge_moves_down_into_a_base_nobody_wants(void **state)
{
	struct content *a = sealed_with("0123456789"), *b = content_new_dirty(store, a, 8), *c;
	struct content_extent e;
	char byte;
	uint64_t id;

	(void)state;
	assert_int_equal(write_at(b, 1, "B", 1), 0);
	assert_int_equal(content_truncate(b, 20), 0);
	assert_int_equal(content_seal(b), 0);
	content_unref(a);
	assert_int_equal(content_merge(b), 0); /* a is still wanted */
	expect(b, "0B234567\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	a = content_get(store, content_id(b) - 1);
	assert_non_null(a);
	content_drop(a);
	assert_int_equal(content_merge(b), 0); /* held by us */
	content_unref(a);
	assert_int_equal(content_map(b, 1, 1, &e), 0);
	assert_int_equal(content_merge(b), 0);
	assert_null(content_get(store, content_id(b) - 1));
	expect(b, "0B234567\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	/* What was handed out before still holds. */
	assert_int_equal(pread(e.fd, &byte, 1, (off_t)e.fd_off), 1);
	assert_int_equal(byte, 'B');
	c = content_new_dirty(store, b, 20);
	assert_int_equal(write_at(c, 19, "C", 1), 0);
	assert_int_equal(content_seal(c), 0);
	id = content_id(c);
	content_drop(b);
	content_unref(b);
	assert_int_equal(content_merge(c), 0);
	content_unref(c);
	close_store();
	open_store();
	c = content_get(store, id);
	expect(c, "0B234567\0\0\0\0\0\0\0\0\0\0\0C", 20);
	assert_int_equal(content_flatten(c), 0);
	expect(c, "0B234567\0\0\0\0\0\0\0\0\0\0\0C", 20);
	content_unref(c);
	close_store();
	open_store();
	assert_int_equal(count_in("lost+found"), 0);
	c = content_get(store, id);
	expect(c, "0B234567\0\0\0\0\0\0\0\0\0\0\0C", 20);
	content_unref(c);
}

/* Killed between the copying and the rows: the base's file is of the size of what lies over it. */
static void test_a_merge_that_was_cut_off_costs_nothing(void **state)
{
	static const uint64_t sizes[] = {4, 20};

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct content *a = sealed_with("0123456789"), *b = content_new_dirty(store, a, 4);
		uint64_t id = content_id(b);
		char path[128], expected[32] = "0B23";

		assert_int_equal(write_at(b, 1, "B", 1), 0);
		assert_int_equal(content_truncate(b, sizes[i]), 0);
		assert_int_equal(content_seal(b), 0);
		snprintf(path, sizeof path, "%s/objects/%02x/%016llx", store_path,
			 (unsigned)(content_id(a) & 0xff), (unsigned long long)content_id(a));
		content_drop(a);
		content_unref(a);
		content_unref(b);
		close_store();
		assert_int_equal(truncate(path, (off_t)sizes[i]), 0);
		open_store();
		b = content_get(store, id);
		assert_non_null(b);
		expect(b, expected, sizes[i]);
		assert_int_equal(content_merge(b), 0);
		expect(b, expected, sizes[i]);
		content_unref(b);
	}
}

static void test_dropped_dirty_contents_are_deleted_once_the_ledger_says_so(void **state)
{
	struct content *c = sealed_with("words");
	uint64_t id = content_id(c);

	(void)state;
	content_drop(c);
	expect(c, "words", 5);
	content_unref(c);
	assert_null(content_get(store, id));
	close_store();
	open_store();
	assert_null(content_get(store, id));
	assert_int_equal(used(), 0);
	assert_int_equal(count_in("lost+found"), 0);
}

static void test_a_dirty_content_without_its_file_is_not_served(void **state)
{
	struct content *c = sealed_with("words"), *over = content_new_dirty(store, c, 5);
	uint64_t id = content_id(c);
	char path[160];

	(void)state;
	assert_int_equal(write_at(over, 0, "W", 1), 0);
	assert_int_equal(content_seal(over), 0);
	snprintf(path, sizeof path, "%s/objects/%02x/%016llx", store_path, (unsigned)(id & 0xff),
		 (unsigned long long)id);
	content_unref(over);
	content_unref(c);
	close_store();
	assert_int_equal(unlink(path), 0);
	open_store();
	assert_null(content_get(store, id));
	assert_null(content_get(store, id + 1));
}

static void test_unclaimed_dirty_contents_go_to_lost_found(void **state)
{
	struct content *a = sealed_with("claimed"), *b = sealed_with("not claimed"), *c;
	uint64_t id = content_id(a);

	(void)state;
	content_unref(a);
	content_unref(b);
	close_store();
	open_store();
	a = content_get(store, id);
	c = dirty_with("made since");
	content_unref(a);
	content_store_claimed(store);
	a = content_get(store, id);
	assert_non_null(a);
	assert_null(content_get(store, id + 1));
	assert_int_equal(count_in("lost+found"), 1);
	content_unref(a);
	content_unref(c);
}

static void test_foreign_files_are_kept_and_one_daemon_has_the_store(void **state)
{
	struct content_config config = {.dir = store_path, .limit_bytes = limit};
	struct content_store *other;
	char message[256] = "", path[160];
	struct stat st;
	FILE *f;

	(void)state;
	assert_int_equal(content_store_open(&config, ledger, &other, message, sizeof message),
			 -EBUSY);
	assert_non_null(strstr(message, "process"));
	close_store();
	snprintf(path, sizeof path, "%s/objects/notes.txt", store_path);
	f = fopen(path, "w");
	fputs("mine", f);
	fclose(f);
	open_store();
	assert_int_equal(count_in("lost+found"), 1);
	assert_int_equal(stat(store_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	close_store();
	chmod(store_path, 0755);
	assert_int_equal(ledger_open(ledger_path, &ledger, message, sizeof message), 0);
	assert_int_equal(content_store_open(&config, ledger, &store, message, sizeof message),
			 -EPERM);
	ledger_close(ledger);
	ledger = NULL;
}

/* The limit. */

static void test_the_limit_holds_and_the_least_recently_used_goes_first(void **state)
{
	char *block = calloc(1, MIB);
	struct content *a, *b, *c;

	(void)state;
	close_store();
	limit = 3 * MIB;
	open_store();
	memset(block, 'x', MIB - 1);
	a = clean_with("a", block);
	block[0] = 'b';
	b = clean_with("b", block);
	block[0] = 'c';
	c = clean_with("c", block);
	content_unref(b);
	content_unref(a);
	content_unref(c);
	content_unref(content_peek_key(store, "b")); /* used again */
	block[0] = 'd';
	c = clean_with("d", block);
	assert_null(content_peek_key(store, "a"));
	assert_true(used() <= limit);
	a = dirty_with(block);
	b = dirty_with(block);
	assert_null(content_peek_key(store, "b"));
	assert_int_equal(write_at(b, MIB, block, 100), -ENOSPC);
	assert_int_equal(content_allocate(b, 0, 2 * MIB, true), -ENOSPC);
	content_unref(c);
	assert_int_equal(write_at(b, MIB, block, 100), 0);
	assert_null(content_peek_key(store, "d"));
	assert_true(used() <= limit);
	content_unref(a); /* never sealed: its room comes back */
	assert_int_equal(write_at(b, MIB, block, MIB - 1), 0);
	content_truncate(b, 0);
	assert_int_equal(content_allocate(b, 0, 3 * MIB, true), 0);
	assert_int_equal(content_seal(b), 0);
	c = clean_with("e", block);
	content_unref(c);
	content_unref(b);
	assert_true(used() <= limit);
	free(block);
}

static void test_pinned_and_referenced_contents_stay(void **state)
{
	char *block = calloc(1, MIB);
	struct content *a, *b;

	(void)state;
	close_store();
	limit = 2 * MIB;
	open_store();
	memset(block, 'x', MIB - 1);
	a = clean_with("a", block);
	content_set_pinned(a, true);
	content_unref(a);
	block[0] = 'b';
	b = clean_with("b", block);
	a = content_for_key(store, "c", -1);
	block[0] = 'c';
	assert_int_equal(content_fill(a, 0, block, MIB), 1);
	content_unref(b);
	assert_int_equal(content_fill(a, 0, block, MIB), 0);
	content_unref(a);
	close_store();
	open_store();
	block[0] = 'd';
	a = clean_with("d", block);
	b = content_peek_key(store, "a");
	assert_non_null(b);
	content_unref(a);
	content_unref(b);
	free(block);
}

static void test_dropped_dirty_room_can_be_used_at_once(void **state)
{
	char *block = calloc(1, MIB);

	(void)state;
	close_store();
	limit = MIB;
	open_store();
	memset(block, 'x', MIB - 1);
	for (int i = 0; i < 5; i++) {
		struct content *c = sealed_with(block);

		content_drop(c);
		content_unref(c);
	}
	free(block);
}

/* A power failure. */

static void set_boot(const char *boot)
{
	char sql[128];
	sqlite3 *db;

	snprintf(sql, sizeof sql, "UPDATE value SET value=CAST('%s' AS BLOB) WHERE key='boot'",
		 boot);
	assert_int_equal(sqlite3_open(ledger_path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void test_after_a_power_failure_the_last_second_is_not_trusted(void **state)
{
	struct content *c;
	uint64_t instead = 1;
	int status;
	pid_t pid;

	(void)state;
	close_store();
	pid = fork();
	if (pid == 0) {
		open_store();
		sealed_with("durable"); /* 1 */
		ledger_sync(ledger);
		sealed_with("too young");	      /* 2 */
		c = sealed_with("young, but hashed"); /* 3 */
		content_flatten(c);
		clean_with("k", "young and clean"); /* 4 */
		ledger_commit(ledger);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	set_boot("another");
	open_store();
	c = content_get(store, 1);
	assert_non_null(c);
	expect(c, "durable", 7);
	content_unref(c);
	assert_null(content_get(store, 2));
	assert_true(content_is_torn(store, 2, &instead));
	assert_int_equal(instead, 0);
	assert_false(content_is_torn(store, 3, &instead));
	c = content_get(store, 3);
	assert_non_null(c);
	expect(c, "young, but hashed", 17);
	content_unref(c);
	assert_null(content_peek_key(store, "k"));
	content_store_claimed(store);
	assert_int_equal(count_in("lost+found"), 1);
}

/* @version over @before in the row of its node, as a close does. */
static struct content *in_place_of(struct content *before, const char *version)
{
	struct content *c = sealed_with(version);

	content_set_before(c, content_id(before));
	content_drop(before);
	content_unref(before);
	return c;
}

static void test_what_a_power_failure_tears_gives_way_to_what_was_there_before(void **state)
{
	struct content *c;
	uint64_t instead = 0;
	int status;
	pid_t pid;

	(void)state;
	close_store();
	pid = fork();
	if (pid == 0) {
		open_store();
		c = sealed_with("durable"); /* 1 */
		ledger_sync(ledger);
		c = in_place_of(c, "young");   /* 2 */
		c = in_place_of(c, "younger"); /* 3 */
		ledger_commit(ledger);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	set_boot("another");
	/* whoever does not come to the end of a start leaves everything to the next one */
	for (int i = 0; i < 2; i++) {
		open_store();
		assert_null(content_get(store, 3));
		assert_true(content_is_torn(store, 3, &instead));
		assert_int_equal(instead, 1);
		if (i == 0)
			close_store();
	}
	c = content_get(store, 1);
	assert_non_null(c);
	expect(c, "durable", 7);
	content_unref(c);
	content_store_claimed(store);
	assert_false(content_is_torn(store, 3, &instead));
	close_store();
	open_store();
	assert_false(content_is_torn(store, 3, &instead));
	c = content_get(store, 1);
	assert_non_null(c);
	expect(c, "durable", 7);
	content_unref(c);
}

/* Threads. */

static atomic_bool stop_reading;

static void *map_for_ever(void *arg)
{
	struct content *c = arg;
	struct content_extent e;

	while (!atomic_load(&stop_reading)) {
		for (uint64_t off = 0; off < 256 * 64; off += e.len ? e.len : 1) {
			char byte = 0;

			if (content_map(c, off, 64, &e) < 0)
				abort();
			if (e.where == CONTENT_FILE &&
			    (pread(e.fd, &byte, 1, (off_t)e.fd_off) != 1 || byte != 'x'))
				abort();
			if (e.where == CONTENT_END)
				break;
		}
		content_unref(content_ref(c));
	}
	return NULL;
}

static void *fill_odd(void *arg)
{
	char block[64];

	memset(block, 'x', sizeof block);
	for (uint64_t i = 1; i < 256; i += 2)
		if (content_fill(arg, i * 64, block, 64) < 0)
			abort();
	return NULL;
}

static void *write_odd(void *arg)
{
	char block[64];
	int fd;

	memset(block, 'x', sizeof block);
	for (uint64_t i = 1; i < 256; i += 2) {
		if (content_write_begin(arg, i * 64, 64, &fd) < 0 ||
		    pwrite(fd, block, 64, (off_t)(i * 64)) != 64)
			abort();
		content_write_end(arg, i * 64, 64);
	}
	return NULL;
}

static void test_filling_writing_mapping_and_sealing_in_parallel(void **state)
{
	struct content *clean = content_for_key(store, "p/1", 256 * 64);
	struct content *c = content_new_dirty(store, clean, 256 * 64);
	pthread_t threads[4];
	char block[64], *all = malloc(256 * 64);

	(void)state;
	memset(block, 'x', sizeof block);
	memset(all, 'x', 256 * 64);
	atomic_store(&stop_reading, false);
	pthread_create(&threads[0], NULL, map_for_ever, c);
	pthread_create(&threads[1], NULL, map_for_ever, clean);
	pthread_create(&threads[2], NULL, fill_odd, clean);
	pthread_create(&threads[3], NULL, write_odd, c);
	for (uint64_t i = 0; i < 256; i += 2) {
		assert_int_equal(content_fill(clean, i * 64, block, 64), 0);
		if (i % 32 == 0)
			assert_int_equal(write_at(c, i * 64, block, 64), 0);
		content_is_local(c);
		content_next_missing(clean, 0, &(uint64_t){0}, &(uint64_t){0});
	}
	pthread_join(threads[2], NULL);
	pthread_join(threads[3], NULL);
	assert_true(content_is_complete(clean));
	assert_int_equal(content_finish(clean), 0);
	assert_int_equal(content_seal(c), 0);
	assert_int_equal(ledger_sync(ledger), 0);
	assert_int_equal(content_flatten(c), 0);
	assert_int_equal(content_become_clean(c, "p/2"), 0);
	atomic_store(&stop_reading, true);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	expect(c, all, 256 * 64);
	content_unref(c);
	content_unref(clean);
	free(all);
}

/* Random histories against a model. */

#define FILES	4
#define LONGEST 3000

struct version {
	struct content *c;
	char bytes[LONGEST];
	size_t size;
};

struct model {
	struct version file[FILES];  /* what a node names; NULL = nothing */
	struct version snap[8];	     /* what somebody still reads */
	char server[FILES][LONGEST]; /* the bytes under a clean key */
	unsigned server_version[FILES];
	unsigned step;
};

static void compare_version(const struct version *v, const char *server)
{
	char *got = malloc(LONGEST);
	size_t len = read_all(v->c, got, LONGEST);

	(void)server;
	assert_int_equal(len, v->size);
	for (size_t i = 0; i < len; i++)
		if (got[i] != v->bytes[i] && got[i] != 'M')
			fail_msg("byte %zu of content %llu: %02x, not %02x", i,
				 (unsigned long long)content_id(v->c), (unsigned char)got[i],
				 (unsigned char)v->bytes[i]);
	free(got);
}

static void compare_all(const struct model *m)
{
	for (size_t i = 0; i < FILES; i++)
		if (m->file[i].c)
			compare_version(&m->file[i], m->server[i]);
	for (size_t i = 0; i < 8; i++)
		if (m->snap[i].c)
			compare_version(&m->snap[i], NULL);
}

static size_t below(size_t n)
{
	return n ? (size_t)rand() % n : 0;
}

/* Bytes never are 'M', which stands for missing, nor 0. */
static void scribble(char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (char)('a' + below(26));
}

static void step_edit(struct model *m, struct version *v)
{
	struct content *old = v->c, *c;
	char bytes[400];

	if (v->c)
		content_seal(v->c);
	c = content_new_dirty(store, old, v->size);
	assert_non_null(c);
	for (size_t n = below(5); n > 0; n--) {
		size_t off = below(LONGEST - 400), len = 1 + below(400);

		if (below(4) == 0) {
			assert_int_equal(content_truncate(c, off), 0);
			if (off > v->size)
				memset(v->bytes + v->size, 0, off - v->size);
			v->size = off;
			continue;
		}
		scribble(bytes, len);
		assert_int_equal(write_at(c, off, bytes, len), 0);
		if (off > v->size)
			memset(v->bytes + v->size, 0, off - v->size);
		memcpy(v->bytes + off, bytes, len);
		v->size = off + len > v->size ? off + len : v->size;
	}
	assert_int_equal(content_seal(c), 0);
	v->c = c;
	if (old) {
		struct version *snap = &m->snap[below(8)];

		if (below(3) == 0 && !snap->c) {
			*snap = *v;
			snap->c = content_ref(c);
		}
		content_drop(old);
		content_unref(old);
	}
}

/* Fetch the missing bytes, all or some. */
static void step_fetch(const struct version *v, bool all)
{
	struct content_extent e;

	for (uint64_t off = 0; off < v->size; off += e.len) {
		assert_int_equal(content_map(v->c, off, all ? LONGEST : 1 + below(200), &e), 0);
		if (e.where == CONTENT_MISSING && (all || below(2)))
			assert_int_equal(content_fill(e.owner, e.owner_off, v->bytes + off, e.len),
					 0);
	}
}

static void step_upload(struct model *m, size_t i)
{
	struct version *v = &m->file[i];
	char key[32];

	step_fetch(v, true);
	assert_int_equal(content_flatten(v->c), 0);
	compare_version(v, NULL);
	snprintf(key, sizeof key, "%zu/%u", i, ++m->server_version[i]);
	assert_int_equal(content_become_clean(v->c, key), 0);
}

/* The same version, evicted and on the server only. */
static void step_forget(struct model *m, size_t i)
{
	struct version *v = &m->file[i];
	char key[32];

	content_drop(v->c);
	content_unref(v->c);
	snprintf(key, sizeof key, "%zu/%u", i, m->server_version[i]);
	v->c = content_for_key(store, key, (int64_t)v->size);
	step_fetch(v, false);
}

static void step_reopen(struct model *m)
{
	uint64_t ids[FILES] = {0};
	char message[256] = "";

	for (size_t i = 0; i < 8; i++) {
		content_unref(m->snap[i].c);
		m->snap[i].c = NULL;
	}
	for (size_t i = 0; i < FILES; i++) {
		if (!m->file[i].c)
			continue;
		/* A clean one without all its bytes would be gone: nothing of the user's. */
		if (!content_is_dirty(m->file[i].c) && !content_is_complete(m->file[i].c))
			step_fetch(&m->file[i], true);
		if (!content_is_dirty(m->file[i].c))
			assert_int_equal(content_finish(m->file[i].c), 0);
		ids[i] = content_id(m->file[i].c);
		content_unref(m->file[i].c);
	}
	assert_int_equal(ledger_check(ledger, message, sizeof message), 0);
	close_store();
	open_store();
	for (size_t i = 0; i < FILES; i++) {
		if (!ids[i])
			continue;
		m->file[i].c = content_get(store, ids[i]);
		assert_non_null(m->file[i].c);
	}
	content_store_claimed(store);
	assert_int_equal(count_in("lost+found"), 0);
}

static void step(struct model *m)
{
	size_t i = below(FILES), n = below(8);
	struct version *v = &m->file[i];
	bool dirty = v->c && content_is_dirty(v->c);

	switch (below(12)) {
	case 0:
		if (dirty)
			step_upload(m, i);
		break;
	case 1:
		if (v->c && !dirty)
			step_forget(m, i);
		break;
	case 2:
	case 3:
		if (dirty)
			assert_int_equal(content_merge(v->c), 0);
		break;
	case 4:
		if (v->c)
			step_fetch(v, false);
		break;
	case 5:
		content_unref(m->snap[n].c);
		m->snap[n].c = NULL;
		break;
	case 6:
		if (below(5) == 0)
			step_reopen(m);
		break;
	case 7:
		if (dirty)
			assert_int_equal(content_sync(v->c), 0);
		break;
	default:
		step_edit(m, v);
	}
}

static void test_random_histories_agree_with_a_model(void **state)
{
	unsigned seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : (unsigned)time(NULL);
	unsigned steps = getenv("STEPS") ? (unsigned)atoi(getenv("STEPS")) : 1500;
	struct model *m = calloc(1, sizeof *m);

	(void)state;
	print_message("SEED=%u\n", seed);
	srand(seed);
	for (m->step = 0; m->step < steps; m->step++) {
		step(m);
		compare_all(m);
	}
	step_reopen(m);
	compare_all(m);
	for (size_t i = 0; i < FILES; i++) {
		if (m->file[i].c)
			content_drop(m->file[i].c);
		content_unref(m->file[i].c);
	}
	close_store();
	open_store();
	assert_int_equal(used(), 0);
	assert_int_equal(count_in("lost+found"), 0);
	free(m);
}

/* Kills at any moment: what was sealed and committed is there, whole, whatever was done to it
 * since. */

static void child_edits_until_killed(int out, unsigned seed, uint64_t id, char fill)
{
	struct content *c = NULL;

	srand(seed);
	open_store();
	if (id)
		c = content_get(store, id);
	if (id && !c)
		_exit(1);
	for (;;) {
		struct content *d = content_new_dirty(store, c, c ? (uint64_t)content_size(c) : 0);
		char bytes[2000];
		uint64_t report[2];

		fill = (char)(fill == 'z' ? 'a' : fill + 1);
		memset(bytes, fill, sizeof bytes);
		/* All of it, in parts, so that a mix of two versions would show. */
		for (size_t off = 0; off < sizeof bytes; off += 500)
			if (write_at(d, off, bytes + off, 500) < 0)
				_exit(2);
		if (below(2) && content_truncate(d, 1000))
			_exit(3);
		content_seal(d);
		if (c) {
			content_drop(c);
			content_unref(c);
		}
		c = d;
		if (ledger_commit(ledger) < 0)
			_exit(4);
		report[0] = content_id(c);
		report[1] = (uint64_t)(unsigned char)fill;
		if (write(out, report, sizeof report) != sizeof report)
			_exit(5);
		if (below(3) == 0 && content_merge(c) < 0)
			_exit(6);
		if (below(4) == 0 && content_flatten(c) < 0)
			_exit(7);
	}
}

static void test_sealed_contents_survive_kill_9_whole(void **state)
{
	unsigned seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : (unsigned)time(NULL);
	int kills = getenv("KILLS") ? atoi(getenv("KILLS")) : 40;
	uint64_t id = 0, report[2];
	char fill = 'a';

	(void)state;
	print_message("SEED=%u\n", seed);
	srand(seed);
	close_store();
	for (int i = 0; i < kills; i++) {
		char got[2000];
		struct content *c;
		int pipes[2], status;
		unsigned child_seed = (unsigned)rand();
		pid_t pid;

		assert_int_equal(pipe(pipes), 0);
		pid = fork();
		if (pid == 0)
			child_edits_until_killed(pipes[1], child_seed, id, fill);
		close(pipes[1]);
		usleep(2000 + (unsigned)rand() % 60000);
		kill(pid, SIGKILL);
		while (read(pipes[0], report, sizeof report) == sizeof report) {
			id = report[0];
			fill = (char)report[1];
		}
		close(pipes[0]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		open_store();
		/* It may have been dropped in the ledger by the next one, unreported. */
		c = id ? content_get(store, id) : NULL;
		if (id && !c) {
			for (uint64_t next = id + 1; !c && next < id + 3; next++)
				c = content_get(store, next);
			assert_non_null(c);
			id = content_id(c);
			fill = (char)(fill == 'z' ? 'a' : fill + 1);
		}
		if (c) {
			size_t len = read_all(c, got, sizeof got);

			assert_true(len == 1000 || len == 2000);
			for (size_t k = 0; k < len; k++)
				assert_int_equal(got[k], fill);
			content_unref(c);
		}
		close_store();
	}
	open_store();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_a_clean_content_fills_in_any_order_and_survives_a_restart),
		TEST(test_an_incomplete_clean_content_is_gone_after_a_restart),
		TEST(test_an_empty_clean_content_is_complete_without_a_file),
		TEST(test_a_clean_content_with_another_size_than_its_row_is_dropped),
		TEST(test_writing_over_a_base_shows_it_up_to_base_len),
		TEST(test_missing_bytes_of_a_base_are_fetched_then_flattened),
		TEST(test_a_sealed_content_survives_with_its_incomplete_base),
		TEST(test_an_empty_new_file_needs_no_file),
		TEST(test_open_contents_go_when_closed_and_to_lost_found_when_killed),
		TEST(test_files_made_ahead_leave_no_trace),
		TEST(test_sparse_files_read_as_zeros_and_seek_as_holes),
		TEST(test_flatten_then_clean_takes_the_place_of_the_key),
		TEST(test_merge_moves_down_into_a_base_nobody_wants),
		TEST(test_a_merge_that_was_cut_off_costs_nothing),
		TEST(test_dropped_dirty_contents_are_deleted_once_the_ledger_says_so),
		TEST(test_a_dirty_content_without_its_file_is_not_served),
		TEST(test_unclaimed_dirty_contents_go_to_lost_found),
		TEST(test_foreign_files_are_kept_and_one_daemon_has_the_store),
		TEST(test_the_limit_holds_and_the_least_recently_used_goes_first),
		TEST(test_pinned_and_referenced_contents_stay),
		TEST(test_dropped_dirty_room_can_be_used_at_once),
		TEST(test_after_a_power_failure_the_last_second_is_not_trusted),
		TEST(test_what_a_power_failure_tears_gives_way_to_what_was_there_before),
		TEST(test_filling_writing_mapping_and_sealing_in_parallel),
		TEST(test_random_histories_agree_with_a_model),
		TEST(test_sealed_contents_survive_kill_9_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
