/* SPDX-License-Identifier: MIT */

/*
 * The reader with a server that is a thread: which streams are asked for, paused, resumed, dropped
 * and put side by side, and that no reader is forgotten, whatever happens to them.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>

#include "mount.h"
#include "ranges.h"
#include "reader.h"
#include "window.h"

#define MIB   (1u << 20)
#define SIZE  (40u * MIB)
#define PIECE (256u * 1024)

/* ---- the server ---- */

struct line {
	struct line *next;
	uint64_t id, pos, end, asked_end;
	struct remote_fetch_sink sink;
	bool paused, cancelled, begun;
};

struct server {
	struct remote base;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	struct line *lines; /* lock, as all below */
	uint64_t last_id, sent, twice;
	unsigned asked, most;
	struct ranges delivered;
	bool stop, rangeless;
	uint64_t short_by; /* every answer ends so much early, as if it were whole */
	int refuses;
	uint64_t credit; /* bytes it may send yet */
	bool slow;	 /* a piece for each line in a millisecond */
};

static unsigned char byte_at(uint64_t off)
{
	return (unsigned char)((off >> 12) * 7 + (off >> 20) * 13 + off);
}

static struct line **find_line(struct server *s, uint64_t id)
{
	struct line **l = &s->lines;

	while (*l && (*l)->id != id)
		l = &(*l)->next;
	return l;
}

static int op_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		    const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		    const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	struct server *s = (struct server *)r;
	struct line *l = calloc(1, sizeof(*l));
	unsigned count = 1;

	(void)class;
	(void)file;
	(void)collection;
	(void)deadline_mono_ms;
	pthread_mutex_lock(&s->lock);
	if (s->refuses) {
		int error = s->refuses;

		pthread_mutex_unlock(&s->lock);
		free(l);
		return error;
	}
	*l = (struct line){.next = s->lines, .id = ++s->last_id, .sink = *sink};
	l->pos = s->rangeless ? 0 : off;
	l->end = len && !s->rangeless ? off + len : SIZE;
	l->end -= s->short_by;
	*ret_id = l->id;
	for (const struct line *other = s->lines; other; other = other->next)
		count += !other->cancelled && other->pos < other->end;
	s->most = count > s->most ? count : s->most;
	s->lines = l;
	s->asked++;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void set(struct remote *r, uint64_t id, bool cancelled, bool paused)
{
	struct server *s = (struct server *)r;

	pthread_mutex_lock(&s->lock);
	struct line *l = *find_line(s, id);
	if (l) {
		l->cancelled |= cancelled;
		l->paused = paused;
	}
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

static void op_cancel(struct remote *r, uint64_t id)
{
	set(r, id, true, false);
}

static void op_pause(struct remote *r, uint64_t id)
{
	set(r, id, false, true);
}

static void op_resume(struct remote *r, uint64_t id)
{
	set(r, id, false, false);
}

static void op_set_class(struct remote *r, uint64_t id, enum transfer_class class)
{
	(void)r;
	(void)id;
	(void)class;
}

static const struct remote_ops ops = {.fetch = op_fetch,
				      .fetch_cancel = op_cancel,
				      .fetch_pause = op_pause,
				      .fetch_resume = op_resume,
				      .fetch_set_class = op_set_class};

/* One that may send something now, in turns; lock held. */
static struct line *next_line(struct server *s, uint64_t after)
{
	struct line *best = NULL;

	for (struct line *l = s->lines; l; l = l->next) {
		bool may = l->cancelled || (!l->paused && (s->credit || l->pos >= l->end));

		if (may && (!best || (l->id > after && best->id <= after) ||
			    ((l->id > after) == (best->id > after) && l->id < best->id)))
			best = l;
	}
	return best;
}

static void note_sent(struct server *s, uint64_t off, size_t len)
{
	s->twice += ranges_overlap(&s->delivered, off, off + len);
	assert_int_equal(ranges_add(&s->delivered, off, off + len), 0);
	s->sent += len;
	s->credit -= len < s->credit ? len : s->credit;
}

static void end_line(struct server *s, struct line *l, int error)
{
	pthread_mutex_lock(&s->lock);
	*find_line(s, l->id) = l->next;
	pthread_mutex_unlock(&s->lock);
	l->sink.done(l->sink.ctx, error);
	free(l);
}

static void serve(struct server *s, struct line *l, bool cancelled, uint64_t off, size_t len)
{
	unsigned char bytes[PIECE];

	if (cancelled) {
		end_line(s, l, -ECANCELED);
		return;
	}
	if (!l->begun && !l->sink.begin(l->sink.ctx, SIZE, off)) {
		end_line(s, l, -ECANCELED);
		return;
	}
	l->begun = true;
	if (len == 0) {
		end_line(s, l, 0);
		return;
	}
	for (size_t i = 0; i < len; i++)
		bytes[i] = byte_at(off + i);
	if (!l->sink.data(l->sink.ctx, bytes, len))
		end_line(s, l, -ECANCELED);
}

/* In and out with the lock held. */
static void refill(struct server *s)
{
	pthread_mutex_unlock(&s->lock);
	usleep(1000);
	pthread_mutex_lock(&s->lock);
	for (const struct line *l = s->lines; l; l = l->next)
		s->credit += PIECE;
}

static void *server_main(void *arg)
{
	struct server *s = arg;
	uint64_t last = 0;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		struct line *l = next_line(s, last);

		if (!l && s->slow) {
			refill(s);
			continue;
		}
		if (!l) {
			pthread_cond_wait(&s->wake, &s->lock);
			continue;
		}
		bool cancelled = l->cancelled;
		size_t len = l->end - l->pos < PIECE ? (size_t)(l->end - l->pos) : PIECE;

		uint64_t off = l->pos;

		last = l->id;
		if (!cancelled)
			note_sent(s, off, len);
		l->pos += len;
		pthread_mutex_unlock(&s->lock);
		serve(s, l, cancelled, off, len);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- a mount of one file ---- */

struct world {
	struct mount m;
	struct remote_caps caps;
	struct server server;
	struct content *content;
	char dir[64];
};

static void on_tick(void *ctx)
{
	(void)ctx;
}

static void world_open(struct world *w)
{
	char path[96], message[256];
	struct content_config config = {.dir = w->dir, .limit_bytes = 1 << 30};
	struct remote_file file = {.id = (char *)"1",
				   .record = (char *)"1",
				   .name = (char *)"file",
				   .version = (char *)"v",
				   .size = SIZE};
	struct mount *m = &w->m;

	*w = (struct world){.caps = {.system = "test"}};
	snprintf(w->dir, sizeof(w->dir), "%s/attachfs-reader-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(w->dir));
	snprintf(path, sizeof(path), "%s/ledger.db", w->dir);
	assert_int_equal(ledger_open(path, &m->ledger, message, sizeof(message)), 0);
	assert_int_equal(
		content_store_open(&config, m->ledger, &m->store, message, sizeof(message)), 0);
	assert_int_equal(pool_new(2, &m->pool), 0);
	assert_int_equal(pool_new(1, &m->disk_pool), 0);
	assert_int_equal(notifier_new(&m->notifier), 0);
	assert_int_equal(tree_new(m->ledger, m->store, m->notifier, &w->caps, &m->tree), 0);
	assert_int_equal(calls_new(m->pool, 30000, on_tick, NULL, &m->calls), 0);
	w->server.base = (struct remote){.ops = &ops};
	w->server.credit = UINT64_MAX;
	pthread_mutex_init(&w->server.lock, NULL);
	pthread_cond_init(&w->server.wake, NULL);
	m->remote = &w->server.base;
	assert_int_equal(pthread_create(&w->server.thread, NULL, server_main, &w->server), 0);
	assert_int_equal(reader_new(m, &m->reader), 0);
	w->content = content_for_key(m->store, "key", SIZE);
	assert_int_equal(reader_open(m->reader, w->content, &file, "c", 7), 0);
}

static unsigned lines(struct world *w)
{
	unsigned count = 0;

	pthread_mutex_lock(&w->server.lock);
	for (const struct line *l = w->server.lines; l; l = l->next)
		count++;
	pthread_mutex_unlock(&w->server.lock);
	return count;
}

static void set_short(struct world *w, uint64_t by)
{
	pthread_mutex_lock(&w->server.lock);
	w->server.short_by = by;
	pthread_mutex_unlock(&w->server.lock);
}

static void set_slow(struct world *w)
{
	pthread_mutex_lock(&w->server.lock);
	w->server.slow = true;
	w->server.credit = 0;
	pthread_mutex_unlock(&w->server.lock);
}

static void await_lines(struct world *w, unsigned wanted)
{
	for (int i = 0; i < 2000 && lines(w) != wanted; i++)
		usleep(5000);
	assert_int_equal(lines(w), wanted);
}

/* Closed with whatever runs: it must come to an end by itself. */
static void world_close(struct world *w)
{
	struct mount *m = &w->m;
	char command[128];

	reader_close(m->reader, w->content);
	await_lines(w, 0);
	content_unref(w->content);
	calls_stop(m->calls);
	pthread_mutex_lock(&w->server.lock);
	w->server.stop = true;
	pthread_cond_signal(&w->server.wake);
	pthread_mutex_unlock(&w->server.lock);
	pthread_join(w->server.thread, NULL);
	pool_free(m->disk_pool);
	pool_free(m->pool);
	notifier_free(m->notifier);
	reader_free(m->reader);
	tree_free(m->tree);
	calls_free(m->calls);
	content_store_close(m->store);
	ledger_close(m->ledger);
	ranges_clear(&w->server.delivered);
	snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
	assert_int_equal(system(command), 0);
}

/* ---- readers ---- */

struct waiter {
	struct call call; /* first */
	pthread_mutex_t lock;
	pthread_cond_t woken;
	bool ran;
};

static void on_wake(struct call *c)
{
	struct waiter *w = (struct waiter *)c;

	pthread_mutex_lock(&w->lock);
	w->ran = true;
	pthread_cond_signal(&w->woken);
	pthread_mutex_unlock(&w->lock);
}

/* Park as a read does, with no request of the kernel behind it. 0, or why it was woken. */
static int wait_for(struct world *w, uint64_t off, uint64_t end)
{
	struct waiter waiter = {.call = {.m = &w->m, .op = on_wake, .cs = w->m.calls, .id = 1}};
	int error = 0;

	waiter.call.deadline_ms = INT64_MAX;
	pthread_mutex_init(&waiter.lock, NULL);
	pthread_cond_init(&waiter.woken, NULL);
	if (!reader_park(w->m.reader, &waiter.call, w->content, off, end, &error))
		return error;
	pthread_mutex_lock(&waiter.lock);
	while (!waiter.ran)
		pthread_cond_wait(&waiter.woken, &waiter.lock);
	pthread_mutex_unlock(&waiter.lock);
	return waiter.call.error == -EAGAIN ? 0 : waiter.call.error;
}

/* A read of the kernel's: 0 and the right bytes, or the error. */
static int read_at(struct world *w, uint64_t off, uint64_t len)
{
	uint64_t at = off, end = off + len < SIZE ? off + len : SIZE;
	struct content_extent e;
	unsigned char byte;

	while (at < end) {
		assert_int_equal(content_map(w->content, at, end - at, &e), 0);
		if (e.where == CONTENT_MISSING) {
			int error = wait_for(w, at, at + e.len);

			if (error)
				return error;
			continue;
		}
		assert_int_equal(e.where, CONTENT_FILE);
		assert_int_equal(pread(e.fd, &byte, 1, (off_t)e.fd_off), 1);
		assert_int_equal(byte, byte_at(at));
		at += e.len;
	}
	reader_follow(w->m.reader, w->content, off, end);
	return 0;
}

static void read_all(struct world *w, uint64_t from, uint64_t to, uint64_t step)
{
	for (uint64_t off = from; off < to; off += step)
		assert_int_equal(read_at(w, off, step), 0);
}

/* ---- */

static void test_all_of_it_in_sequence_is_two_requests(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	read_all(&w, 0, SIZE, 128 * 1024);
	await_lines(&w, 0);
	assert_int_equal(w.server.asked, 2);
	assert_int_equal(w.server.sent, SIZE);
	assert_int_equal(w.server.twice, 0);
	assert_true(content_is_complete(w.content));
	world_close(&w);
}

static void test_a_stream_waits_for_its_reader_and_is_dropped_without_one(void **state)
{
	struct world w;
	uint64_t sent;

	(void)state;
	world_open(&w);
	read_all(&w, 0, MIB, 128 * 1024);
	usleep(200000);
	pthread_mutex_lock(&w.server.lock);
	sent = w.server.sent;
	assert_true(w.server.lines && w.server.lines->paused);
	pthread_mutex_unlock(&w.server.lock);
	assert_true(sent < 8 * MIB);
	reader_tick(w.m.reader);
	assert_int_equal(lines(&w), 1);
	usleep(3100000);
	reader_tick(w.m.reader);
	await_lines(&w, 0);
	assert_int_equal(w.server.sent, sent);
	read_all(&w, MIB, SIZE, 128 * 1024);
	await_lines(&w, 0);
	assert_int_equal(w.server.asked, 3);
	assert_int_equal(w.server.twice, 0);
	world_close(&w);
}

static void test_a_file_is_closed_while_streams_are_paused(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	read_all(&w, 0, MIB, 128 * 1024);
	read_all(&w, 20 * MIB, 21 * MIB, 128 * 1024);
	world_close(&w);
}

static void test_random_reads_fetch_their_blocks(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(read_at(&w, 4 * MIB * i / 10 * 9 + 5000 + MIB, 4096), 0);
	await_lines(&w, 0);
	assert_true(w.server.asked <= 10);
	assert_true(w.server.sent <= 10 * CONTENT_BLOCK_BYTES);
	assert_int_equal(w.server.twice, 0);
	world_close(&w);
}

static void test_slow_streams_get_others_beside_them(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	set_slow(&w);
	for (uint64_t off = 0; off < SIZE; off += MIB) {
		assert_int_equal(read_at(&w, off, MIB), 0);
		reader_tick(w.m.reader); /* as if it took a second */
	}
	await_lines(&w, 0);
	assert_in_range(w.server.most, 2, WINDOW_LANES_MAX);
	assert_int_equal(w.server.twice, 0);
	assert_true(content_is_complete(w.content));
	world_close(&w);
}

static void test_a_server_without_ranges_is_asked_once(void **state)
{
	static const unsigned places[] = {30, 2, 17, 39, 0};
	struct world w;

	(void)state;
	world_open(&w);
	w.server.rangeless = true;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		assert_int_equal(read_at(&w, (uint64_t)places[i] * MIB, 4096), 0);
	read_all(&w, 0, SIZE, MIB);
	await_lines(&w, 0);
	assert_int_equal(w.server.asked, 1);
	assert_int_equal(w.server.sent, SIZE);
	world_close(&w);
}

static void test_an_answer_that_ends_early_is_an_error(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	set_short(&w, 1000);
	assert_int_equal(read_at(&w, 10 * MIB, CONTENT_BLOCK_BYTES), -EIO);
	await_lines(&w, 0);
	assert_int_equal(w.server.asked, 1);
	set_short(&w, 0);
	usleep(1100000); /* it is remembered for a second */
	assert_int_equal(read_at(&w, 10 * MIB, CONTENT_BLOCK_BYTES), 0);
	world_close(&w);
}

static void test_a_fetch_that_cannot_begin_is_an_error(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	w.server.refuses = -EHOSTDOWN;
	assert_int_equal(read_at(&w, 10 * MIB, 4096), -EHOSTDOWN);
	w.server.refuses = 0;
	usleep(1100000);
	assert_int_equal(read_at(&w, 10 * MIB, 4096), 0);
	world_close(&w);
}

/* Readers of all kinds at once, and the clock. */

struct roamer {
	struct world *w;
	unsigned seed;
};

static void *roam(void *arg)
{
	struct roamer *r = arg;

	for (int i = 0; i < 40; i++) {
		uint64_t off = (uint64_t)rand_r(&r->seed) % SIZE;
		uint64_t step = 1 + (uint64_t)rand_r(&r->seed) % (MIB / 2);

		for (int run = rand_r(&r->seed) % 10; run >= 0 && off < SIZE; run--, off += step)
			assert_int_equal(read_at(r->w, off, step), 0);
	}
	return NULL;
}

static void roam_over(bool rangeless)
{
	struct roamer roamers[6];
	pthread_t threads[6];
	struct world w;
	unsigned seed = getenv("ATTACHFS_TEST_SEED") ? (unsigned)atoi(getenv("ATTACHFS_TEST_SEED"))
						     : (unsigned)time(NULL);

	printf("seed %u\n", seed);
	world_open(&w);
	w.server.rangeless = rangeless;
	for (unsigned i = 0; i < 6; i++) {
		roamers[i] = (struct roamer){&w, seed + i};
		assert_int_equal(pthread_create(&threads[i], NULL, roam, &roamers[i]), 0);
	}
	for (int i = 0; i < 50; i++) {
		usleep(2000);
		reader_tick(w.m.reader);
	}
	for (unsigned i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	world_close(&w);
}

static void test_readers_of_all_kinds_at_once_get_their_bytes(void **state)
{
	(void)state;
	roam_over(false);
	roam_over(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_of_it_in_sequence_is_two_requests),
		cmocka_unit_test(test_a_stream_waits_for_its_reader_and_is_dropped_without_one),
		cmocka_unit_test(test_a_file_is_closed_while_streams_are_paused),
		cmocka_unit_test(test_random_reads_fetch_their_blocks),
		cmocka_unit_test(test_slow_streams_get_others_beside_them),
		cmocka_unit_test(test_a_server_without_ranges_is_asked_once),
		cmocka_unit_test(test_an_answer_that_ends_early_is_an_error),
		cmocka_unit_test(test_a_fetch_that_cannot_begin_is_an_error),
		cmocka_unit_test(test_readers_of_all_kinds_at_once_get_their_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
