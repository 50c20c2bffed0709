/* SPDX-License-Identifier: MIT */

/* A ring of JSON lines under one lock, which is taken before that of the calls. */

#include "events.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
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
	char *lines[EVENTS_KEPT]; /* lock: number n is at n % EVENTS_KEPT */
	uint64_t next;		  /* lock */
};

int events_new(struct calls *calls, struct events **ret_events)
{
	struct events *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->calls = calls;
	pthread_mutex_init(&e->lock, NULL);
	*ret_events = e;
	return 0;
}

void events_free(struct events *e)
{
	if (!e)
		return;
	for (size_t i = 0; i < EVENTS_KEPT; i++)
		free(e->lines[i]);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static void set_text(json_t *o, const char *key, const char *value)
{
	json_t *text = value && *value ? json_string(value) : NULL;

	if (value && *value)
		json_object_set_new(o, key, text ? text : json_string("(not UTF-8)"));
}

void events_add(struct events *e, const char *event, const char *path, const char *detail)
{
	char when[32];
	time_t now = (time_t)(clock_real_ns() / CLOCK_NS_PER_S);
	struct tm tm;
	json_t *o = json_object();
	char *line, *old;

	if (!e || !o) {
		json_decref(o);
		return;
	}
	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_object_set_new(o, "time", json_string(when));
	set_text(o, "event", event);
	set_text(o, "path", path);
	set_text(o, "detail", detail);
	line = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	if (!line)
		return;
	pthread_mutex_lock(&e->lock);
	old = e->lines[e->next % EVENTS_KEPT];
	e->lines[e->next++ % EVENTS_KEPT] = line;
	pthread_mutex_unlock(&e->lock);
	free(old);
	calls_wake(e->calls, CALL_WAIT_CONTROL, EVENTS_KEY, 0);
}

uint64_t events_next(struct events *e)
{
	uint64_t next;

	pthread_mutex_lock(&e->lock);
	next = e->next;
	pthread_mutex_unlock(&e->lock);
	return next;
}

size_t events_read(struct events *e, uint64_t *seq, char **ret_text)
{
	char lost[80] = "";
	size_t len = 0, used;
	uint64_t first;

	pthread_mutex_lock(&e->lock);
	first = e->next - *seq > EVENTS_KEPT ? e->next - EVENTS_KEPT : *seq;
	if (first != *seq)
		snprintf(lost, sizeof(lost), "{\"event\":\"lost\",\"detail\":\"%llu events\"}\n",
			 (unsigned long long)(first - *seq));
	used = strlen(lost);
	for (uint64_t i = first; i < e->next; i++)
		len += strlen(e->lines[i % EVENTS_KEPT]) + 1;
	len += used;
	*ret_text = len ? malloc(len + 1) : NULL;
	if (*ret_text) {
		char *to = *ret_text;

		memcpy(to, lost, used + 1);
		for (to += used; first < e->next; first++)
			to = stpcpy(stpcpy(to, e->lines[first % EVENTS_KEPT]), "\n");
		*seq = e->next;
	}
	pthread_mutex_unlock(&e->lock);
	return len;
}

bool events_wait(struct events *e, uint64_t seq, struct call *c)
{
	bool wait;

	pthread_mutex_lock(&e->lock);
	wait = e->next == seq;
	if (wait)
		call_park(c, CALL_WAIT_CONTROL, EVENTS_KEY);
	pthread_mutex_unlock(&e->lock);
	return wait;
}
