/* SPDX-License-Identifier: MIT */

/*
 * The lines one after the other in a buffer twice as large as what is kept: when it is full the
 * older half goes. One lock, which is taken before that of the calls.
 */

#include "events.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "calls.h"

struct events {
	pthread_mutex_t lock;
	struct calls *calls;
	uint64_t first;			  /* lock: offset of text[0], where a line begins */
	size_t len;			  /* lock */
	char text[2 * EVENTS_KEPT_BYTES]; /* lock */
};

int events_new(struct calls *calls, struct events **ret_events)
{
	struct events *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->calls = calls;
	pthread_mutex_init(&e->lock, NULL);
	events_add(e, "started", NULL, NULL);
	*ret_events = e;
	return 0;
}

void events_free(struct events *e)
{
	if (!e)
		return;
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static void set_text(json_t *o, const char *key, const char *value)
{
	json_t *text = value && *value ? json_string(value) : NULL;

	if (value && *value)
		json_object_set_new(o, key, text ? text : json_string("(not UTF-8)"));
}

/* Room for @size more bytes: whole lines go from the front. */
static void make_room_locked(struct events *e, size_t size)
{
	const char *end;
	size_t drop;

	if (e->len + size <= sizeof(e->text))
		return;
	drop = e->len > EVENTS_KEPT_BYTES ? e->len - EVENTS_KEPT_BYTES : 0;
	if (drop < e->len + size - sizeof(e->text))
		drop = e->len + size - sizeof(e->text);
	end = drop < e->len ? memchr(e->text + drop, '\n', e->len - drop) : NULL;
	drop = end ? (size_t)(end - e->text) + 1 : e->len;
	memmove(e->text, e->text + drop, e->len - drop);
	e->first += drop;
	e->len -= drop;
}

static void add_line(struct events *e, const char *line)
{
	size_t len = strlen(line);

	if (len + 1 > EVENTS_KEPT_BYTES)
		return;
	pthread_mutex_lock(&e->lock);
	make_room_locked(e, len + 1);
	memcpy(e->text + e->len, line, len);
	e->text[e->len + len] = '\n';
	e->len += len + 1;
	pthread_mutex_unlock(&e->lock);
	calls_wake(e->calls, CALL_WAIT_CONTROL, EVENTS_KEY, 0);
}

void events_add(struct events *e, const char *event, const char *path, const char *detail)
{
	char when[32];
	time_t now = (time_t)(clock_real_ns() / CLOCK_NS_PER_S);
	struct tm tm;
	json_t *o = e ? json_object() : NULL;
	char *line;

	if (!o)
		return;
	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_object_set_new(o, "time", json_string(when));
	set_text(o, "event", event);
	set_text(o, "path", path);
	set_text(o, "detail", detail);
	line = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	if (line)
		add_line(e, line);
	free(line);
}

uint64_t events_size(struct events *e)
{
	uint64_t size;

	pthread_mutex_lock(&e->lock);
	size = e->first + e->len;
	pthread_mutex_unlock(&e->lock);
	return size;
}

size_t events_read(struct events *e, uint64_t off, char *buf, size_t size, uint64_t *ret_first)
{
	size_t n = 0;

	pthread_mutex_lock(&e->lock);
	*ret_first = e->first;
	if (off >= e->first && off < e->first + e->len) {
		n = (size_t)(e->first + e->len - off);
		n = n < size ? n : size;
		memcpy(buf, e->text + (off - e->first), n);
	}
	pthread_mutex_unlock(&e->lock);
	return n;
}

bool events_wait(struct events *e, uint64_t off, struct call *c)
{
	bool wait;

	pthread_mutex_lock(&e->lock);
	wait = e->first + e->len <= off;
	if (wait)
		call_park(c, CALL_WAIT_CONTROL, EVENTS_KEY);
	pthread_mutex_unlock(&e->lock);
	return wait;
}
