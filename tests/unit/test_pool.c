/* SPDX-License-Identifier: MIT */

/*
 * The pool: everything runs, in order where there is one thread, side by side where there are more.
 */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include <attachfs/pool.h>
#include <attachfs/waiting.h>

struct tally {
	struct pool *pool;
	atomic_int done;
	int order[100];
	pthread_barrier_t barrier;
	char name[16];
	bool blocked;
};

static void count(void *ctx)
{
	struct tally *t = ctx;

	atomic_fetch_add(&t->done, 1);
}

static void test_everything_given_runs_before_the_pool_is_gone(void **state)
{
	struct tally t = {0};

	(void)state;
	assert_int_equal(pool_new(4, &t.pool), 0);
	for (int i = 0; i < 10000; i++)
		assert_int_equal(pool_run(t.pool, count, &t), 0);
	pool_free(t.pool);
	assert_int_equal(t.done, 10000);
}

struct turn {
	struct tally *tally;
	int number;
};

static void note_turn(void *ctx)
{
	struct turn *turn = ctx;

	turn->tally->order[atomic_fetch_add(&turn->tally->done, 1)] = turn->number;
}

static void test_jobs_start_in_the_order_they_were_given(void **state)
{
	struct tally t = {0};
	struct turn turns[100];

	(void)state;
	assert_int_equal(pool_new(1, &t.pool), 0);
	for (int i = 0; i < 100; i++) {
		turns[i] = (struct turn){&t, i};
		assert_int_equal(pool_run(t.pool, note_turn, &turns[i]), 0);
	}
	pool_free(t.pool);
	for (int i = 0; i < 100; i++)
		assert_int_equal(t.order[i], i);
}

static void meet(void *ctx)
{
	struct tally *t = ctx;

	pthread_barrier_wait(&t->barrier);
}

static void test_jobs_run_side_by_side(void **state)
{
	struct tally t = {0};

	(void)state;
	pthread_barrier_init(&t.barrier, NULL, 3);
	assert_int_equal(pool_new(3, &t.pool), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pool_run(t.pool, meet, &t), 0);
	pool_free(t.pool);
	pthread_barrier_destroy(&t.barrier);
}

static void give_more(void *ctx)
{
	struct tally *t = ctx;

	if (atomic_fetch_add(&t->done, 1) < 500)
		assert_int_equal(pool_run(t->pool, give_more, t), 0);
}

static void test_a_job_may_give_another_while_the_pool_ends(void **state)
{
	struct tally t = {0};

	(void)state;
	assert_int_equal(pool_new(3, &t.pool), 0);
	assert_int_equal(pool_run(t.pool, give_more, &t), 0);
	pool_free(t.pool);
	assert_int_equal(t.done, 501);
}

static void look_around(void *ctx)
{
	struct tally *t = ctx;
	sigset_t mask;

	pthread_getname_np(pthread_self(), t->name, sizeof(t->name));
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	t->blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGCHLD) == 1;
}

static void test_threads_have_a_name_and_take_no_signals(void **state)
{
	struct tally t = {0};
	sigset_t mask;

	(void)state;
	assert_int_equal(pool_new(1, &t.pool), 0);
	assert_int_equal(pool_run(t.pool, look_around, &t), 0);
	pool_free(t.pool);
	assert_string_equal(t.name, "attachfs-pool");
	assert_true(t.blocked);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	assert_false(sigismember(&mask, SIGTERM));
}

static void wait_in_vain(void *ctx)
{
	(void)ctx;
	waiting_begin("a test");
}

static void test_a_job_that_waits_for_the_network_is_counted(void **state)
{
	uint64_t before = waiting_forbidden_count();
	struct pool *pool;

	(void)state;
	waiting_begin("a test");
	assert_int_equal(waiting_forbidden_count(), before);
	assert_int_equal(pool_new(1, &pool), 0);
	assert_int_equal(pool_run(pool, wait_in_vain, NULL), 0);
	pool_free(pool);
	assert_int_equal(waiting_forbidden_count(), before + 1);
}

static void test_a_pool_without_threads_is_refused(void **state)
{
	struct pool *pool = NULL;

	(void)state;
	assert_int_equal(pool_new(0, &pool), -EINVAL);
	assert_null(pool);
	pool_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everything_given_runs_before_the_pool_is_gone),
		cmocka_unit_test(test_jobs_start_in_the_order_they_were_given),
		cmocka_unit_test(test_jobs_run_side_by_side),
		cmocka_unit_test(test_a_job_may_give_another_while_the_pool_ends),
		cmocka_unit_test(test_threads_have_a_name_and_take_no_signals),
		cmocka_unit_test(test_a_job_that_waits_for_the_network_is_counted),
		cmocka_unit_test(test_a_pool_without_threads_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
