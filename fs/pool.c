/* SPDX-License-Identifier: MIT */

/*
 * One list of jobs, one lock, one condition. The list is a plain singly linked queue: jobs are few
 * and coarse, so neither work stealing nor recycling of its nodes would be noticed.
 *
 * The threads take no signals. Those belong to the main thread, and a handler that ran here would
 * find a stranger's locks held.
 */

#include <attachfs/pool.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include <attachfs/waiting.h>

struct job {
	struct job *next;
	void (*run)(void *ctx);
	void *ctx;
};

struct pool {
	pthread_mutex_t lock; /* order: innermost; never held while a job runs */
	pthread_cond_t wake;
	struct job *first;  /* lock */
	struct job **last;  /* lock: where the next job is linked */
	bool stopping;	    /* lock */
	unsigned n_running; /* lock: threads that will look at the queue again */
	unsigned n_threads; /* to join; written by pool_new() and pool_stop() only */
	pthread_t threads[];
};

/* Waits for a job; NULL when the pool is to end and nothing is queued. */
static struct job *pool_take(struct pool *pool)
{
	struct job *job;

	pthread_mutex_lock(&pool->lock);
	while (!pool->first && !pool->stopping)
		pthread_cond_wait(&pool->wake, &pool->lock);
	job = pool->first;
	if (job) {
		pool->first = job->next;
		if (!pool->first)
			pool->last = &pool->first;
	} else {
		pool->n_running--;
	}
	pthread_mutex_unlock(&pool->lock);
	return job;
}

static void *pool_thread(void *arg)
{
	struct pool *pool = arg;
	struct job *job;

	waiting_forbid("a thread that answers");

	pthread_setname_np(pthread_self(), "attachfs-pool");
	while ((job = pool_take(pool))) {
		job->run(job->ctx);
		free(job);
	}
	return NULL;
}

/*
 * A thread inherits the mask it is created under, so that no signal finds it before it could block
 * them itself.
 */
static int pool_start_threads(struct pool *pool, unsigned threads)
{
	sigset_t all, before;
	int r = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (; pool->n_threads < threads; pool->n_threads++) {
		pthread_mutex_lock(&pool->lock);
		pool->n_running++;
		pthread_mutex_unlock(&pool->lock);
		r = -pthread_create(&pool->threads[pool->n_threads], NULL, pool_thread, pool);
		if (r < 0)
			break;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int pool_new(unsigned threads, struct pool **ret_pool)
{
	struct pool *pool;
	int r;

	if (threads == 0)
		return -EINVAL;
	pool = calloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));
	if (!pool)
		return -ENOMEM;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	pool->last = &pool->first;
	r = pool_start_threads(pool, threads);
	if (r < 0) {
		pool_free(pool);
		return r;
	}
	*ret_pool = pool;
	return 0;
}

void pool_stop(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stopping = true;
	pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	/* A job may still queue others: its own thread looks at the queue again before it ends. */
	for (unsigned i = 0; i < pool->n_threads; i++)
		pthread_join(pool->threads[i], NULL);
	pool->n_threads = 0;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	pool_stop(pool);
	pthread_cond_destroy(&pool->wake);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

int pool_run(struct pool *pool, void (*job)(void *ctx), void *ctx)
{
	struct job *new = malloc(sizeof(*new));

	if (!new)
		return -ENOMEM;
	*new = (struct job){.run = job, .ctx = ctx};
	pthread_mutex_lock(&pool->lock);
	bool ended = pool->n_running == 0;
	if (!ended) {
		*pool->last = new;
		pool->last = &new->next;
		pthread_cond_signal(&pool->wake);
	}
	pthread_mutex_unlock(&pool->lock);
	if (ended)
		free(new);
	return ended ? -ECANCELED : 0;
}
