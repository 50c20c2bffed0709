/* SPDX-License-Identifier: MIT */

/*
 * The engine's handle and its thread. Other threads say what they want by a mark on the transfer
 * (wish_*) and by putting it on the list `dirty`; the thread takes them from there. Marks instead
 * of a queue of commands: the last word counts, nothing is allocated, and a pause is seen by the
 * thread at once.
 *
 * The loop: wishes, curl, ended tries, timers, hosts that may start more, sleep. Callbacks of the
 * caller run in all of these but never deeper than one level, since transfer_*() only leave marks.
 */

#include "engine.h"

#include <attachfs/clock.h>
#include <attachfs/waiting.h>

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define TABLE_FIRST	 256 /* power of two */
#define CONNECTIONS_KEPT 512L
#define HOSTS_TABLE	 64 /* power of two */
#define SLEEP_MAX_MS	 60000
#define UNTIL_SLACK_NS	 CLOCK_NS_PER_S /* a throttle prolonged by less is no news */

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready;

static void init_curl(void)
{
	curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* xorshift; only jitter hangs on it. */
uint32_t engine_random(struct engine *engine)
{
	uint32_t x = engine->random;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	engine->random = x;
	return x;
}

/* The id table and the list of the dirty; all with engine->lock held */

static void table_grow_locked(struct engine *engine)
{
	size_t size = engine->table_size * 2;
	struct transfer **table = calloc(size, sizeof(struct transfer *));

	if (!table) /* longer chains then */
		return;
	for (size_t i = 0; i < engine->table_size; i++) {
		for (struct transfer *t = engine->table[i], *next; t; t = next) {
			next = t->hash_next;
			t->hash_next = table[t->id & (size - 1)];
			table[t->id & (size - 1)] = t;
		}
	}
	free(engine->table);
	engine->table = table;
	engine->table_size = size;
}

static void table_add_locked(struct engine *engine, struct transfer *t)
{
	struct transfer **place;

	if (engine->table_used >= engine->table_size)
		table_grow_locked(engine);
	place = &engine->table[t->id & (engine->table_size - 1)];
	t->hash_next = *place;
	*place = t;
	engine->table_used++;
}

static struct transfer *table_find_locked(struct engine *engine, uint64_t id)
{
	struct transfer *t = engine->table[id & (engine->table_size - 1)];

	while (t && t->id != id)
		t = t->hash_next;
	return t;
}

/* True if the thread must be woken for it. */
static bool dirty_add_locked(struct engine *engine, struct transfer *t)
{
	bool first = !engine->dirty;

	if (t->dirty)
		return false;
	t->dirty = true;
	t->dirty_next = NULL;
	t->dirty_prev = engine->dirty_last;
	if (first)
		engine->dirty = t;
	else
		engine->dirty_last->dirty_next = t;
	engine->dirty_last = t;
	return first;
}

static void dirty_remove_locked(struct engine *engine, struct transfer *t)
{
	if (!t->dirty)
		return;
	t->dirty = false;
	if (t->dirty_prev)
		t->dirty_prev->dirty_next = t->dirty_next;
	else
		engine->dirty = t->dirty_next;
	if (t->dirty_next)
		t->dirty_next->dirty_prev = t->dirty_prev;
	else
		engine->dirty_last = t->dirty_prev;
}

void engine_forget(struct engine *engine, struct transfer *t)
{
	struct transfer **link;

	pthread_mutex_lock(&engine->lock);
	link = &engine->table[t->id & (engine->table_size - 1)];
	while (*link != t)
		link = &(*link)->hash_next;
	*link = t->hash_next;
	engine->table_used--;
	dirty_remove_locked(engine, t);
	pthread_mutex_unlock(&engine->lock);
}

/* Wishes */

int engine_add(struct engine *engine, struct transfer *t, uint64_t *ret_id)
{
	bool first;

	pthread_mutex_lock(&engine->lock);
	if (engine->ended) {
		pthread_mutex_unlock(&engine->lock);
		transfer_free(t);
		return -ECANCELED;
	}
	t->id = ++engine->last_id;
	if (ret_id)
		*ret_id = t->id;
	table_add_locked(engine, t);
	first = dirty_add_locked(engine, t);
	pthread_mutex_unlock(&engine->lock);
	if (first)
		curl_multi_wakeup(engine->multi);
	return 0;
}

int transfer_start(struct engine *engine, const struct transfer_spec *spec, uint64_t *ret_id)
{
	struct transfer *t;
	int r = transfer_new(engine, spec, &t);

	return r < 0 ? r : engine_add(engine, t, ret_id);
}

enum wish { WISH_CANCEL, WISH_PAUSE, WISH_RESUME, WISH_CLASS };

static void wish(struct engine *engine, uint64_t id, enum wish what, enum transfer_class class)
{
	struct transfer *t;
	bool first = false;

	pthread_mutex_lock(&engine->lock);
	t = table_find_locked(engine, id);
	if (t) {
		if (what == WISH_CANCEL)
			atomic_store(&t->wish_cancel, true);
		else if (what == WISH_CLASS)
			t->wish_class = class;
		else
			atomic_store(&t->wish_pause, what == WISH_PAUSE);
		/* A pause is seen when the next bytes come: nothing to do until then. */
		if (what != WISH_PAUSE)
			first = dirty_add_locked(engine, t);
	}
	pthread_mutex_unlock(&engine->lock);
	if (first)
		curl_multi_wakeup(engine->multi);
}

void transfer_cancel(struct engine *engine, uint64_t id)
{
	wish(engine, id, WISH_CANCEL, 0);
}

void transfer_pause(struct engine *engine, uint64_t id)
{
	wish(engine, id, WISH_PAUSE, 0);
}

void transfer_resume(struct engine *engine, uint64_t id)
{
	wish(engine, id, WISH_RESUME, 0);
}

void transfer_set_class(struct engine *engine, uint64_t id, enum transfer_class class)
{
	if ((unsigned)class < TRANSFER_CLASSES)
		wish(engine, id, WISH_CLASS, class);
}

/* State */

enum engine_state engine_get_state(struct engine *engine, int64_t *ret_until_real_ns)
{
	enum engine_state state;

	pthread_mutex_lock(&engine->lock);
	state = engine->state;
	if (ret_until_real_ns)
		*ret_until_real_ns = engine->until_real_ns;
	pthread_mutex_unlock(&engine->lock);
	return state;
}

unsigned engine_get_room(struct engine *engine)
{
	unsigned room;

	pthread_mutex_lock(&engine->lock);
	room = engine->room;
	pthread_mutex_unlock(&engine->lock);
	return room;
}

int64_t engine_server_ns(struct engine *engine)
{
	int64_t ahead_ns = atomic_load(&engine->server_less_mono_ns);

	return ahead_ns ? ahead_ns + clock_mono_ms() * (CLOCK_NS_PER_S / 1000) : clock_real_ns();
}

void engine_describe_trouble(struct engine *engine, char *out, size_t size)
{
	pthread_mutex_lock(&engine->lock);
	snprintf(out, size, "%s", engine->trouble);
	pthread_mutex_unlock(&engine->lock);
}

void engine_update_state(struct engine *engine)
{
	const struct host *host = engine->origin_host;
	int64_t now_ms = clock_mono_ms(), till_ms = host->rate.frozen_till_ms, until_ns = 0;
	unsigned room = rate_room(&engine->origin_host->rate, now_ms);
	enum engine_state state = ENGINE_ONLINE;
	bool news;

	if (till_ms < host->starved_till_ms)
		till_ms = host->starved_till_ms;
	if (host->open) {
		state = ENGINE_OFFLINE;
	} else if (till_ms > now_ms) {
		state = ENGINE_THROTTLED;
		until_ns = clock_real_ns() + (till_ms - now_ms) * (CLOCK_NS_PER_S / 1000);
	}
	pthread_mutex_lock(&engine->lock);
	snprintf(engine->trouble, sizeof(engine->trouble), "%s", host->open ? host->why : "");
	engine->room = room;
	news = state != engine->state || until_ns > engine->until_real_ns + UNTIL_SLACK_NS;
	if (news) {
		engine->state = state;
		engine->until_real_ns = until_ns;
	}
	pthread_mutex_unlock(&engine->lock);
	if (news && engine->config.state_changed)
		engine->config.state_changed(engine->config.ctx, state, until_ns);
}

void engine_retry_now(struct engine *engine)
{
	pthread_mutex_lock(&engine->lock);
	engine->retry_now = true;
	pthread_mutex_unlock(&engine->lock);
	curl_multi_wakeup(engine->multi);
}

static void retry_all(struct engine *engine)
{
	for (size_t i = 0; i < engine->hosts_size; i++)
		for (struct host *host = engine->hosts[i]; host; host = host->next)
			host_retry_now(engine, host);
}

/* The thread */

/* The next that wants something; NULL and false = nothing more. */
static bool next_wish(struct engine *engine, struct transfer **ret_t,
		      enum transfer_class *ret_class, bool *ret_retry_now)
{
	struct transfer *t;

	pthread_mutex_lock(&engine->lock);
	*ret_retry_now = engine->retry_now;
	engine->retry_now = false;
	t = engine->dirty;
	if (t) {
		dirty_remove_locked(engine, t);
		*ret_class = t->wish_class;
	}
	pthread_mutex_unlock(&engine->lock);
	*ret_t = t;
	return t || *ret_retry_now;
}

/* What was started after engine_retry_now() must see its effect: both are taken under one lock. */
static void grant_wishes(struct engine *engine)
{
	enum transfer_class class;
	struct transfer *t;
	bool retry_now;

	while (next_wish(engine, &t, &class, &retry_now)) {
		if (retry_now)
			retry_all(engine);
		if (t && atomic_load(&t->wish_cancel))
			transfer_finish(engine, t, -ECANCELED, NULL);
		else if (t)
			transfer_check_wishes(engine, t, class);
	}
}

static void collect_ended(struct engine *engine)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(engine->multi, &left))) {
		struct transfer *t = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		transfer_ended(engine, t, message->data.result);
	}
}

static bool is_stopped(struct engine *engine)
{
	bool stop;

	pthread_mutex_lock(&engine->lock);
	stop = engine->stop;
	pthread_mutex_unlock(&engine->lock);
	return stop;
}

/* From now on callbacks can start nothing new, so that this comes to an end. */
static void cancel_all(struct engine *engine)
{
	pthread_mutex_lock(&engine->lock);
	engine->ended = true;
	pthread_mutex_unlock(&engine->lock);
	for (size_t i = 0; i < engine->table_size; i++)
		while (engine->table[i])
			transfer_finish(engine, engine->table[i], -ECANCELED, NULL);
}

static void *run(void *userdata)
{
	struct engine *engine = userdata;
	int running;

	waiting_forbid("the thread that moves bytes");
	while (!is_stopped(engine)) {
		grant_wishes(engine);
		hosts_serve(engine);
		curl_multi_perform(engine->multi, &running);
		transfer_refused(engine, answer_give_gathered(engine));
		collect_ended(engine);
		timers_fire(engine, clock_mono_ms());
		hosts_serve(engine);
		curl_multi_poll(engine->multi, NULL, 0,
				timers_wait_ms(&engine->timers, clock_mono_ms(), SLEEP_MAX_MS),
				NULL);
	}
	cancel_all(engine);
	return NULL;
}

/* Making and freeing */

static char *copy_text(const char *text, int *r)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		*r = -ENOMEM;
	return copy;
}

static int configure(struct engine *engine, const struct engine_config *config)
{
	int r = 0;

	engine->config = *config;
	engine->config.origin = copy_text(config->origin, &r);
	engine->config.cacert = copy_text(config->cacert, &r);
	engine->config.proxy = copy_text(config->proxy, &r);
	if (!config->stall_ms)
		engine->config.stall_ms = ENGINE_STALL_DEFAULT_MS;
	if (!config->connect_timeout_ms)
		engine->config.connect_timeout_ms = ENGINE_CONNECT_DEFAULT_MS;
	if (r == 0)
		r = origin_parse(config->origin, &engine->origin);
	if (r == 0 && getrandom(&engine->random, sizeof(engine->random), 0) < 0)
		engine->random = (uint32_t)clock_real_ns();
	engine->random |= 1;
	return r;
}

static int prepare(struct engine *engine)
{
	engine->room = UINT_MAX;
	engine->table_size = TABLE_FIRST;
	engine->table = calloc(TABLE_FIRST, sizeof(struct transfer *));
	engine->hosts_size = HOSTS_TABLE;
	engine->hosts = calloc(HOSTS_TABLE, sizeof(struct host *));
	engine->gathered.data = malloc(ENGINE_GATHER_BYTES);
	engine->multi = curl_multi_init();
	/* curl's own default forgets idle connections as soon as few transfers run */
	if (engine->multi)
		curl_multi_setopt(engine->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT);
	if (!engine->table || !engine->hosts || !engine->multi || throttle_init(engine) < 0 ||
	    counters_init(&engine->counters) < 0)
		return -ENOMEM;
	engine->origin_host = host_get(engine, &engine->origin);
	return engine->origin_host ? 0 : -ENOMEM;
}

static int start_thread(struct engine *engine)
{
	sigset_t all, before;
	int r;

	/* Signals are for the program's own threads; SIGPIPE, which TLS may raise, for none. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&engine->thread, NULL, run, engine);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return -r;
	pthread_setname_np(engine->thread, "attachfs-http");
	return 0;
}

static void release(struct engine *engine)
{
	for (struct wire *wire = engine->wires, *next; wire; wire = next) {
		next = wire->next;
		wire_free(wire);
	}
	curl_multi_cleanup(engine->multi);
	free(engine->gathered.data);
	for (size_t i = 0; engine->hosts && i < engine->hosts_size; i++) {
		for (struct host *host = engine->hosts[i], *next; host; host = next) {
			next = host->next;
			host_free(host);
		}
	}
	if (engine->counters.table)
		counters_free(&engine->counters);
	free(engine->hosts);
	free(engine->table);
	free(engine->timers.heap);
	origin_clear(&engine->origin);
	free((char *)engine->config.origin);
	free((char *)engine->config.cacert);
	free((char *)engine->config.proxy);
	pthread_mutex_destroy(&engine->lock);
	free(engine);
}

int engine_new(const struct engine_config *config, struct engine **ret_engine)
{
	struct engine *engine;
	int r;

	if (!config->origin || config->slots < 2)
		return -EINVAL;
	pthread_once(&curl_once, init_curl);
	if (curl_ready != CURLE_OK)
		return -ENOMEM;
	engine = calloc(1, sizeof(*engine));
	if (!engine)
		return -ENOMEM;
	pthread_mutex_init(&engine->lock, NULL);
	r = configure(engine, config);
	if (r == 0)
		r = prepare(engine);
	if (r == 0)
		r = start_thread(engine);
	if (r < 0) {
		release(engine);
		return r;
	}
	*ret_engine = engine;
	return 0;
}

void engine_free(struct engine *engine)
{
	if (!engine)
		return;
	pthread_mutex_lock(&engine->lock);
	engine->stop = true;
	pthread_mutex_unlock(&engine->lock);
	curl_multi_wakeup(engine->multi);
	pthread_join(engine->thread, NULL);
	release(engine);
}
