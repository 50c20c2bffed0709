/* SPDX-License-Identifier: MIT */
/* fs/content_check.c, content_keep.c, content_share.c, content_passing.c: bytes that changed behind our
 * back, parts that survive, files that are shared, and what cannot be kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/content.h>

#define B    ((size_t)CONTENT_BLOCK_BYTES)
#define SIZE (4 * B + 1000)

static char dir[64], ledger_path[96], store_path[96];
static struct ledger *ledger;
static struct content_store *store;
static uint64_t limit;
static char *bytes; /* SIZE of them, no two blocks alike */

static void open_store(void)
{
	struct content_config config = {.dir = store_path, .limit_bytes = limit};
	char message[256] = "";

	assert_int_equal(ledger_open(ledger_path, &ledger, message, sizeof message), 0);
	assert_int_equal(content_store_open(&config, ledger, &store, message, sizeof message), 0);
}

static void close_store(void)
{
	char message[256] = "";

	assert_int_equal(ledger_check(ledger, message, sizeof message), 0);
	content_store_close(store);
	ledger_close(ledger);
	store = NULL;
	ledger = NULL;
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/attachfs-verify-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(ledger_path, sizeof ledger_path, "%s/ledger", dir);
	snprintf(store_path, sizeof store_path, "%s/store", dir);
	limit = 64 * B;
	bytes = malloc(SIZE);
	for (size_t i = 0; i < SIZE; i++)
		bytes[i] = (char)((i * 2654435761u) >> 13);
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
	(void)state;
	if (ledger)
		close_store();
	free(bytes);
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct content *clean_with(const char *key, const char *data, size_t size)
{
	struct content *c = content_for_key(store, key, (int64_t)size);

	assert_non_null(c);
	assert_int_equal(content_fill(c, 0, data, size), 0);
	assert_int_equal(content_finish(c), 0);
	return c;
}

static struct content *sealed_with(const char *data, size_t size)
{
	struct content *c = content_new_dirty(store, NULL, 0);
	int fd;

	assert_int_equal(content_write_begin(c, 0, size, &fd), 0);
	assert_int_equal(pwrite(fd, data, size, 0), size);
	content_write_end(c, 0, size);
	assert_int_equal(content_seal(c), 0);
	return c;
}

static void path_of(uint64_t id, char path[static 160])
{
	snprintf(path, 160, "%s/objects/%02x/%016llx", store_path, (unsigned)(id & 0xff),
		 (unsigned long long)id);
}

static void put(uint64_t id, size_t off, const char *data)
{
	char path[160];
	int fd;

	path_of(id, path);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, strlen(data), (off_t)off), strlen(data));
	close(fd);
}

static ino_t inode_of(uint64_t id)
{
	struct stat st;
	char path[160];

	path_of(id, path);
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

static uint64_t used(void)
{
	struct content_usage u;

	content_store_usage(store, &u);
	return u.bytes;
}

static enum content_where where(struct content *c, size_t off)
{
	struct content_extent e;

	assert_int_equal(content_map(c, off, 1, &e), 0);
	return e.where;
}

/* Everything that is there is as it was put; how many bytes are missing. */
static size_t missing_of(struct content *c)
{
	char *got = malloc(SIZE);
	struct content_extent e;
	size_t off = 0, missing = 0;

	for (;; off += e.len) {
		assert_int_equal(content_map(c, off, SIZE, &e), 0);
		if (e.where == CONTENT_END)
			break;
		assert_int_not_equal(e.where, CONTENT_DOUBTED);
		if (e.where == CONTENT_MISSING) {
			missing += e.len;
			continue;
		}
		assert_int_equal(e.where, CONTENT_FILE);
		assert_int_equal(pread(e.fd, got, e.len, (off_t)e.fd_off), e.len);
		assert_memory_equal(got, bytes + off, e.len);
	}
	free(got);
	return missing;
}

/* For what another thread does: at most some seconds. */
static bool waited_for(bool (*is_so)(void *ctx), void *ctx)
{
	struct timespec pause = {.tv_nsec = 5000000};

	for (int i = 0; i < 4000; i++) {
		if (is_so(ctx))
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

/* Comparing. */

/* The hashes are of what came, not of what is in the file by the time all of it is there. */
static void test_what_is_changed_before_the_last_byte_came_is_found(void **state)
{
	struct content *c = content_for_key(store, "1/1", SIZE);
	uint64_t id = content_id(c), first, end;
	size_t off = 0;

	(void)state;
	for (size_t n = 1; off < SIZE - B; off += n, n = n * 3 + 1) {
		n = n < SIZE - B - off ? n : SIZE - B - off;
		assert_int_equal(content_fill(c, off, bytes + off, n), 0);
	}
	put(id, B + 5, "bad");
	assert_int_equal(content_fill(c, off, bytes + off, SIZE - off), 0);
	assert_int_equal(content_finish(c), 0);
	content_unref(c);
	close_store();
	open_store();
	c = content_peek_key(store, "1/1");
	assert_int_equal(content_check(c, 0, SIZE, "a file"), 1);
	assert_true(content_next_missing(c, 0, &first, &end));
	assert_int_equal(first, B);
	assert_int_equal(end, 2 * B);
	assert_int_equal(content_fill(c, B, bytes + B, B), 0);
	assert_int_equal(content_finish(c), 0);
	assert_int_equal(missing_of(c), 0);
	content_unref(c);
}

/* However the bytes come, the hash is the same: the files become one. */
static void test_the_order_in_which_bytes_come_is_not_in_the_hash(void **state)
{
	static const size_t at[] = {3 * B, B / 2, 0, B, 2 * B - 7};
	struct content *a = clean_with("1/1", bytes, SIZE),
		       *b = content_for_key(store, "2/1", SIZE);
	uint8_t hashes[2][LEDGER_HASH_BYTES];
	uint64_t first, end;

	(void)state;
	for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
		size_t n = at[i] + B < SIZE ? B : SIZE - at[i];

		assert_int_equal(content_fill(b, at[i], bytes + at[i], n), 0);
	}
	while (content_next_missing(b, 0, &first, &end))
		assert_int_equal(content_fill(b, first, bytes + first, end - first), 0);
	assert_int_equal(content_finish(b), 0);
	assert_true(content_hash(a, hashes[0]));
	assert_true(content_hash(b, hashes[1]));
	assert_memory_equal(hashes[0], hashes[1], LEDGER_HASH_BYTES);
	content_unref(a);
	content_unref(b);
	close_store();
	open_store();
	b = content_peek_key(store, "2/1");
	assert_int_equal(content_check(b, 0, SIZE, "a file"), 0);
	assert_int_equal(missing_of(b), 0);
	content_unref(b);
}

static void test_a_bad_block_is_lost_and_no_other(void **state)
{
	struct content *c = clean_with("1/1", bytes, SIZE);
	uint64_t id = content_id(c), first, end;

	(void)state;
	assert_int_equal(where(c, 0), CONTENT_FILE); /* just hashed */
	content_unref(c);
	close_store();
	put(id, 2 * B + 77, "bad");
	open_store();
	c = content_peek_key(store, "1/1");
	assert_int_equal(where(c, 0), CONTENT_DOUBTED);
	assert_true(content_is_local(c));
	assert_int_equal(content_check(c, 0, B, "a file"), 0);
	assert_int_equal(where(c, B - 1), CONTENT_FILE);
	assert_int_equal(where(c, B), CONTENT_DOUBTED);
	assert_true(content_is_complete(c));
	assert_int_equal(content_check(c, 2 * B - 1, 2, "a file"), 1);
	assert_false(content_is_complete(c));
	assert_true(content_next_missing(c, 0, &first, &end));
	assert_int_equal(first, 2 * B);
	assert_int_equal(end, 3 * B);
	assert_int_equal(used(), SIZE - B);
	assert_int_equal(content_check(c, 0, UINT64_MAX, "a file"), 0);
	assert_int_equal(missing_of(c), B);
	assert_int_equal(content_fill(c, 2 * B, bytes + 2 * B, B), 0);
	assert_int_equal(content_finish(c), 0);
	assert_int_equal(missing_of(c), 0);
	assert_int_equal(used(), SIZE);
	content_unref(c);
	close_store();
	open_store();
	c = content_peek_key(store, "1/1");
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(missing_of(c), 0);
	content_unref(c);
}

static void test_two_versions_are_never_mixed(void **state)
{
	struct content *c = clean_with("1/1", bytes, SIZE);
	uint64_t id = content_id(c);

	(void)state;
	content_unref(c);
	close_store();
	put(id, 2 * B + 77, "bad");
	open_store();
	c = content_peek_key(store, "1/1");
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 1);
	/* other bytes than last time, although it is the same version */
	assert_int_equal(content_fill(c, 2 * B, bytes, B), 0);
	assert_int_equal(content_finish(c), -EAGAIN);
	assert_int_equal(missing_of(c), SIZE);
	assert_int_equal(used(), 0);
	assert_int_equal(content_fill(c, 0, bytes, SIZE), 0);
	assert_int_equal(content_finish(c), 0);
	content_unref(c);
}

static void test_the_tail_of_a_file_that_was_cut_is_lost(void **state)
{
	struct content *c = clean_with("1/1", bytes, SIZE);
	char path[160];

	(void)state;
	path_of(content_id(c), path);
	assert_int_equal(truncate(path, (off_t)B + 10), 0);
	/* also without a start between, as long as it is referenced */
	assert_int_equal(where(c, 3 * B), CONTENT_DOUBTED);
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 1);
	assert_true(missing_of(c) >= SIZE - B - 10);
	assert_true(used() <= B + 10);
	content_unref(c);
}

static void test_a_file_that_is_gone_or_another_is_lost(void **state)
{
	struct content *c = clean_with("1/1", bytes, SIZE);
	char path[160], other[160];

	(void)state;
	path_of(content_id(c), path);
	content_unref(c);
	assert_int_equal(unlink(path), 0);
	c = content_peek_key(store, "1/1");
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 1);
	assert_int_equal(missing_of(c), SIZE);
	assert_int_equal(used(), 0);
	assert_int_equal(content_fill(c, 0, bytes, SIZE), 0);
	assert_int_equal(content_finish(c), 0);
	content_unref(c);
	snprintf(other, sizeof other, "%s/other", dir);
	assert_int_equal(close(open(other, O_CREAT | O_WRONLY, 0600)), 0);
	assert_int_equal(truncate(other, SIZE), 0);
	assert_int_equal(rename(other, path), 0);
	c = content_peek_key(store, "1/1");
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 1);
	assert_int_equal(missing_of(c), SIZE);
	content_unref(c);
}

static void test_what_was_only_touched_is_compared_and_kept(void **state)
{
	struct content *c = clean_with("1/1", bytes, SIZE);
	const struct timespec times[2] = {{.tv_sec = 5}, {.tv_sec = 5}};
	char path[160];

	(void)state;
	path_of(content_id(c), path);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	assert_int_equal(where(c, 0), CONTENT_DOUBTED);
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(where(c, 0), CONTENT_FILE);
	content_unref(c);
	c = content_peek_key(store, "1/1");
	assert_int_equal(where(c, 0), CONTENT_FILE); /* remembered while the daemon runs */
	content_unref(c);
}

static void test_bad_dirty_bytes_are_refused_and_kept_aside(void **state)
{
	struct content *c = sealed_with(bytes, SIZE);
	uint64_t id = content_id(c);
	char lost[160];

	(void)state;
	assert_int_equal(content_flatten(c), 0);
	content_unref(c);
	close_store();
	put(id, 3 * B, "bad");
	open_store();
	c = content_get(store, id);
	assert_int_equal(content_check(c, 0, B, NULL), 0);
	assert_int_equal(content_check(c, 0, UINT64_MAX, "mine"), -EIO);
	assert_int_equal(content_check(c, 0, UINT64_MAX, "mine"), -EIO);
	assert_int_equal(content_flatten(c), -EIO);
	assert_int_equal(where(c, 3 * B), CONTENT_DOUBTED);
	snprintf(lost, sizeof lost, "%s/lost+found/%016llx", store_path, (unsigned long long)id);
	assert_int_equal(access(lost, F_OK), 0);
	content_drop(c);
	content_unref(c);
	close_store();
	open_store();
	assert_int_equal(access(lost, F_OK), 0);
}

static void test_a_bad_base_is_fetched_before_it_is_flattened(void **state)
{
	struct content *base = clean_with("1/1", bytes, SIZE);
	struct content *c = content_new_dirty(store, base, SIZE);
	uint64_t id = content_id(c), base_id = content_id(base);
	int fd;

	(void)state;
	assert_int_equal(content_write_begin(c, 0, 3, &fd), 0);
	assert_int_equal(pwrite(fd, bytes, 3, 0), 3);
	content_write_end(c, 0, 3);
	assert_int_equal(content_seal(c), 0);
	content_unref(c);
	content_unref(base);
	close_store();
	put(base_id, 2 * B, "bad");
	open_store();
	c = content_get(store, id);
	assert_int_equal(content_flatten(c), -EAGAIN);
	assert_int_equal(content_flatten(c), -ENODATA);
	assert_false(content_is_local(c));
	base = content_peek_key(store, "1/1");
	assert_int_equal(content_fill(base, 2 * B, bytes + 2 * B, B), 0);
	assert_int_equal(content_flatten(c), 0);
	assert_int_equal(missing_of(c), 0);
	content_unref(base);
	content_unref(c);
}

static void write_over(struct content *c, size_t off, const char *data, size_t len)
{
	int fd;

	assert_int_equal(content_write_begin(c, off, len, &fd), 0);
	assert_int_equal(pwrite(fd, data, len, (off_t)off), len);
	content_write_end(c, off, len);
}

/* Its own file is written to, and cut, by the merge: also when that is cut off. */
static void test_a_base_that_is_merged_is_not_taken_for_damaged(void **state)
{
	struct content *base = sealed_with(bytes, SIZE), *c;
	uint64_t id, base_id = content_id(base);
	char path[160];

	(void)state;
	assert_int_equal(content_flatten(base), 0);
	c = content_new_dirty(store, base, SIZE);
	id = content_id(c);
	write_over(c, B + 3, bytes + B + 3, 10);
	assert_int_equal(content_truncate(c, 3 * B), 0);
	assert_int_equal(content_seal(c), 0);
	content_drop(base);
	content_unref(base);
	content_unref(c);
	close_store();
	put(base_id, B + 3, "?????");
	path_of(base_id, path);
	assert_int_equal(truncate(path, 3 * B), 0);
	open_store();
	c = content_get(store, id);
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(missing_of(c), 0);
	assert_int_equal(content_merge(c), 0);
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(missing_of(c), 0);
	assert_int_equal(content_flatten(c), 0);
	content_unref(c);
}

static void *merge_it(void *c)
{
	if (content_merge(c) < 0)
		abort();
	return NULL;
}

static void test_reading_while_it_is_merged(void **state)
{
	(void)state;
	for (int i = 0; i < 30; i++) {
		struct content *base = sealed_with(bytes, SIZE), *c;
		pthread_t thread;

		assert_int_equal(content_flatten(base), 0);
		c = content_new_dirty(store, base, SIZE);
		write_over(c, B + 3, bytes + B + 3, 2 * B);
		assert_int_equal(content_truncate(c, 4 * B), 0);
		assert_int_equal(content_seal(c), 0);
		content_drop(base);
		content_unref(base);
		pthread_create(&thread, NULL, merge_it, c);
		for (int k = 0; k < 20; k++) {
			assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 0);
			assert_int_equal(missing_of(c), 0);
		}
		pthread_join(thread, NULL);
		content_drop(c);
		content_unref(c);
	}
}

/* Parts. */

static void fill_blocks(struct content *c, size_t first, size_t count)
{
	size_t off = first * B, len = off + count * B > SIZE ? SIZE - off : count * B;

	assert_int_equal(content_fill(c, off, bytes + off, len), 0);
}

static void test_whole_blocks_of_a_part_survive_and_are_compared(void **state)
{
	struct content *c = content_for_key(store, "1/1", SIZE);
	uint64_t id = content_id(c);

	(void)state;
	fill_blocks(c, 0, 2);
	fill_blocks(c, 4, 1); /* the short one */
	assert_int_equal(content_fill(c, 2 * B, bytes + 2 * B, 100), 0);
	content_unref(c);
	close_store();
	put(id, 17, "bad");
	open_store();
	assert_int_equal(used(), 2 * B + 1000);
	c = content_peek_key(store, "1/1");
	assert_non_null(c);
	assert_int_equal(where(c, 4 * B), CONTENT_DOUBTED);
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 1);
	assert_int_equal(missing_of(c), SIZE - B - 1000);
	fill_blocks(c, 0, 1);
	content_unref(c);
	close_store();
	open_store();
	c = content_peek_key(store, "1/1");
	fill_blocks(c, 2, 2);
	assert_true(content_is_complete(c));
	assert_int_equal(content_finish(c), 0); /* compares what is from before */
	assert_int_equal(missing_of(c), 0);
	content_unref(c);
}

static void test_a_bad_part_is_found_when_the_rest_has_come(void **state)
{
	struct content *c = content_for_key(store, "1/1", SIZE);
	uint64_t id = content_id(c);

	(void)state;
	fill_blocks(c, 0, 2);
	content_unref(c);
	close_store();
	put(id, B + 5, "bad");
	open_store();
	c = content_peek_key(store, "1/1");
	fill_blocks(c, 2, 3);
	assert_int_equal(content_finish(c), -EAGAIN);
	assert_int_equal(missing_of(c), B);
	fill_blocks(c, 1, 1);
	assert_int_equal(content_finish(c), 0);
	content_unref(c);
}

static bool has_two_hashes(void *ctx);

static int count_hashes(void *ctx, const struct ledger_content *row)
{
	*(size_t *)ctx = row->block_hashes_len / sizeof(uint64_t);
	return 0;
}

static bool has_two_hashes(void *ctx)
{
	size_t count = 0;

	return ledger_one_content(ledger, *(uint64_t *)ctx, count_hashes, &count) == 0 &&
	       count == 2;
}

static void test_a_part_survives_kill_9_once_it_is_written_down(void **state)
{
	struct content *c;
	int status;
	pid_t pid;

	(void)state;
	close_store();
	pid = fork();
	if (pid == 0) {
		uint64_t id;

		open_store();
		c = content_for_key(store, "1/1", SIZE);
		id = content_id(c);
		fill_blocks(c, 1, 2);
		content_unref(c);
		if (waited_for(has_two_hashes, &id) && ledger_commit(ledger) == 0)
			kill(getpid(), SIGKILL);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	open_store();
	c = content_peek_key(store, "1/1");
	assert_non_null(c);
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(missing_of(c), SIZE - 2 * B);
	content_unref(c);
}

static void test_an_idle_part_whose_file_was_touched_is_lost(void **state)
{
	struct content *c = content_for_key(store, "1/1", SIZE);
	uint64_t id = content_id(c);
	char path[160];

	(void)state;
	path_of(id, path);
	fill_blocks(c, 0, 2);
	content_unref(c);
	assert_true(waited_for(has_two_hashes, &id));
	c = content_peek_key(store, "1/1");
	assert_int_equal(missing_of(c), SIZE - 2 * B);
	content_unref(c);
	assert_int_equal(truncate(path, 100), 0);
	c = content_peek_key(store, "1/1");
	fill_blocks(c, 3, 1); /* opens it */
	assert_int_equal(missing_of(c), SIZE - B);
	assert_int_equal(used(), B);
	content_unref(c);
	assert_int_equal(unlink(path), 0);
	c = content_peek_key(store, "1/1");
	assert_int_equal(missing_of(c), SIZE);
	assert_int_equal(used(), 0);
	content_unref(c);
}

/* Sharing. */

struct pair {
	uint64_t a, b;
};

static bool is_one_file(void *ctx)
{
	const struct pair *p = ctx;

	return inode_of(p->a) != 0 && inode_of(p->a) == inode_of(p->b);
}

/* Two contents with the same bytes, idle, in one file. */
static struct pair two_alike(void)
{
	struct content *a = clean_with("1/1", bytes, SIZE), *b = clean_with("2/1", bytes, SIZE);
	struct pair p = {content_id(a), content_id(b)};
	struct content_extent e;

	/* who has it open keeps what he has */
	assert_int_equal(content_map(b, 0, SIZE, &e), 0);
	assert_true(waited_for(is_one_file, &p));
	assert_int_equal(missing_of(b), 0);
	assert_true(fcntl(e.fd, F_GETFD) >= 0);
	content_unref(a);
	content_unref(b);
	assert_int_equal(used(), SIZE);
	return p;
}

static void test_equal_contents_share_a_file_that_counts_once(void **state)
{
	struct pair p = two_alike();
	struct content *c;

	(void)state;
	close_store();
	open_store();
	assert_int_equal(used(), SIZE);
	assert_true(is_one_file(&p));
	/* the one that is charged goes, the other is charged then */
	c = content_peek_key(store, "1/1");
	content_drop(c);
	content_unref(c);
	assert_int_equal(used(), SIZE);
	c = content_peek_key(store, "2/1");
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(missing_of(c), 0);
	content_drop(c);
	content_unref(c);
	close_store();
	open_store();
	assert_int_equal(used(), 0);
}

static void test_a_bad_shared_file_is_let_go_of(void **state)
{
	struct pair p = two_alike();
	struct content *c;

	(void)state;
	close_store();
	put(p.a, B, "bad");
	open_store();
	c = content_peek_key(store, "1/1");
	assert_int_equal(content_check(c, 0, UINT64_MAX, NULL), 1);
	assert_int_equal(missing_of(c), SIZE);
	assert_int_equal(used(), SIZE); /* the other's */
	assert_int_equal(content_fill(c, 0, bytes, SIZE), 0);
	assert_int_equal(content_finish(c), 0);
	content_unref(c);
	c = content_peek_key(store, "2/1");
	/* mended in place: nobody else has its file now. The keeper may have looked at it first. */
	content_check(c, 0, UINT64_MAX, NULL);
	assert_int_equal(missing_of(c), B);
	fill_blocks(c, 1, 1);
	assert_int_equal(content_finish(c), 0);
	assert_true(waited_for(is_one_file, &p));
	content_unref(c);
}

static void test_a_link_that_was_cut_off_leaves_nothing(void **state)
{
	char path[160], sharing[160];
	struct content *c = clean_with("1/1", bytes, SIZE);

	(void)state;
	path_of(content_id(c), path);
	content_unref(c);
	close_store();
	snprintf(sharing, sizeof sharing, "%s/sharing", store_path);
	assert_int_equal(link(path, sharing), 0);
	open_store();
	assert_int_equal(access(sharing, F_OK), -1);
	assert_int_equal(used(), SIZE);
}

/* What cannot be kept. */

static void test_what_does_not_fit_passes_through_memory(void **state)
{
	struct content *c;
	char got[100];

	(void)state;
	close_store();
	limit = B;
	open_store();
	c = content_for_key(store, "1/1", 100 * (int64_t)B);
	assert_int_equal(content_fill(c, 0, bytes, B), 0);
	for (size_t i = 1; i < 100; i++)
		assert_int_equal(content_fill(c, i * B, bytes + (i % 4) * B, B), 1);
	assert_int_equal(used(), B);
	assert_int_equal(where(c, 0), CONTENT_FILE);
	assert_int_equal(where(c, B), CONTENT_MISSING); /* long gone */
	assert_int_equal(where(c, 99 * B), CONTENT_MEMORY);
	assert_int_equal(where(c, 100 * B - CONTENT_PASSING_BYTES), CONTENT_MEMORY);
	/* over the border of two */
	assert_int_equal(content_copy_passing(c, 98 * B - 50, got, 100), 100);
	assert_memory_equal(got, bytes + 2 * B - 50, 50);
	assert_memory_equal(got + 50, bytes + 2 * B, 50);
	assert_int_equal(content_copy_passing(c, 100 * B - 50, got, 100), 50);
	assert_int_equal(content_copy_passing(c, B, got, 100), 0);
	assert_false(content_is_local(c));
	content_unref(c);
	c = content_peek_key(store, "1/1");
	assert_int_equal(where(c, 99 * B), CONTENT_MISSING); /* for those who waited only */
	content_unref(c);
}

static void test_many_that_do_not_fit_do_not_take_all_memory(void **state)
{
	struct content *c[40];
	char key[16];
	size_t there = 0;

	(void)state;
	close_store();
	limit = 1000;
	open_store();
	for (size_t i = 0; i < 40; i++) {
		snprintf(key, sizeof key, "%zu/1", i);
		c[i] = content_for_key(store, key, 100 * (int64_t)B);
		for (size_t b = 0; b < 40; b++)
			assert_int_equal(content_fill(c[i], b * B, bytes, B), 1);
	}
	for (size_t i = 0; i < 40; i++) {
		for (size_t b = 0; b < 40; b++)
			there += where(c[i], b * B) == CONTENT_MEMORY ? B : 0;
		assert_int_equal(where(c[i], 39 * B), CONTENT_MEMORY);
		content_unref(c[i]);
	}
	assert_true(there <= 64 * 4 * B + 8 * 4 * B + 40 * 4 * B);
}

/* All at once. */

static atomic_bool over;

static void *read_for_ever(void *arg)
{
	char *buffer = malloc(SIZE);

	while (!atomic_load(&over)) {
		struct content *c = content_peek_key(store, arg);
		struct content_extent e;

		if (!c)
			continue;
		for (size_t off = 0; off < SIZE; off += e.len) {
			if (content_check(c, off, SIZE - off, NULL) < 0 ||
			    content_map(c, off, SIZE - off, &e) < 0)
				abort();
			if (e.where == CONTENT_FILE &&
			    (pread(e.fd, buffer, e.len, (off_t)e.fd_off) != (ssize_t)e.len ||
			     memcmp(buffer, bytes + off, e.len) != 0))
				abort();
		}
		content_unref(c);
	}
	free(buffer);
	return NULL;
}

static void test_reading_filling_touching_and_sharing_in_parallel(void **state)
{
	static char keys[3][8] = {"1/1", "2/1", "3/1"};
	const struct timespec pause = {.tv_nsec = 3000000};
	pthread_t threads[3];

	(void)state;
	limit = 10 * B; /* two of three */
	close_store();
	open_store();
	atomic_store(&over, false);
	for (size_t i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, read_for_ever, keys[i]);
	for (unsigned round = 0; round < 60; round++) {
		struct content *c = content_for_key(store, keys[round % 3], SIZE);
		char path[160];

		for (size_t b = 5; b-- > 0;)
			assert_true(content_fill(c, b * B, bytes + b * B,
						 b == 4 ? SIZE - 4 * B : B) >= 0);
		content_finish(c);
		path_of(content_id(c), path);
		if (round % 4 == 1)
			utimensat(AT_FDCWD, path, NULL, 0);
		if (round % 8 == 7)
			unlink(path);
		if (round % 5 == 0)
			content_drop(c);
		content_unref(c);
		nanosleep(&pause, NULL);
	}
	atomic_store(&over, true);
	for (size_t i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_true(used() <= limit);
}

/* ---- fetched ahead ---- */

static void test_a_small_part_of_what_clean_contents_may_take_is_fetched_ahead(void **state)
{
	struct content *clean, *dirty;

	(void)state;
	assert_int_equal(content_store_ahead(store), 0); /* the disk was not looked at yet */
	clean = clean_with("1/a", bytes, SIZE);
	assert_int_equal(content_store_ahead(store), limit / 16);
	dirty = sealed_with(bytes, SIZE);
	assert_int_equal(content_store_ahead(store), (limit - SIZE) / 16);
	content_unref(clean);
	content_drop(dirty);
	content_unref(dirty);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_a_small_part_of_what_clean_contents_may_take_is_fetched_ahead),
		TEST(test_what_is_changed_before_the_last_byte_came_is_found),
		TEST(test_the_order_in_which_bytes_come_is_not_in_the_hash),
		TEST(test_a_bad_block_is_lost_and_no_other),
		TEST(test_two_versions_are_never_mixed),
		TEST(test_the_tail_of_a_file_that_was_cut_is_lost),
		TEST(test_a_file_that_is_gone_or_another_is_lost),
		TEST(test_what_was_only_touched_is_compared_and_kept),
		TEST(test_bad_dirty_bytes_are_refused_and_kept_aside),
		TEST(test_a_bad_base_is_fetched_before_it_is_flattened),
		TEST(test_a_base_that_is_merged_is_not_taken_for_damaged),
		TEST(test_reading_while_it_is_merged),
		TEST(test_whole_blocks_of_a_part_survive_and_are_compared),
		TEST(test_a_bad_part_is_found_when_the_rest_has_come),
		TEST(test_a_part_survives_kill_9_once_it_is_written_down),
		TEST(test_an_idle_part_whose_file_was_touched_is_lost),
		TEST(test_equal_contents_share_a_file_that_counts_once),
		TEST(test_a_bad_shared_file_is_let_go_of),
		TEST(test_a_link_that_was_cut_off_leaves_nothing),
		TEST(test_what_does_not_fit_passes_through_memory),
		TEST(test_many_that_do_not_fit_do_not_take_all_memory),
		TEST(test_reading_filling_touching_and_sharing_in_parallel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
