/* SPDX-License-Identifier: MIT */
/*
 * Files made before they are needed. To make a file is the dearest part of the first write to a new
 * content, and a program that copies a thousand of them waits for it a thousand times. Ids count up,
 * and a content's file is named after its id: so while new contents come quickly, a thread makes the
 * empty files of the next ones, and the write finds its file there.
 *
 * Nothing relies on it. A content whose file is not there yet makes it as ever; one that is there is
 * empty, as if it had just been made. What was made and not used is removed at the close, and after a
 * kill by the next start, which deletes empty files that no row speaks of. (So it does with the file
 * of a content that came and went while its file was being made: hence the next few are left out.)
 */
#include "content_private.h"

#include <pthread.h>

#define BURST	    8 /* new contents in a second: more will come */
#define AHEAD	    128
#define AHEAD_LEAST 64 /* so many left, and the next ones are made */
#define SKIPPED	    8

static void *ahead_main(void *arg)
{
	struct content_store *s = arg;

	pthread_setname_np(pthread_self(), "attachfs-ahead");
	pthread_mutex_lock(&s->lock);
	for (;;) {
		uint64_t file;

		if (s->ahead.made < s->next_id + SKIPPED)
			s->ahead.made = s->next_id + SKIPPED;
		if (s->stop)
			break;
		if (s->ahead.made >= s->ahead.wanted) {
			pthread_cond_wait(&s->ahead.make, &s->lock);
			continue;
		}
		file = s->ahead.made++;
		pthread_mutex_unlock(&s->lock);
		content_make_file(s, file);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

void content_ahead_store_locked(struct content_store *s)
{
	struct content_ahead *a = &s->ahead;
	uint32_t now_s = content_now_s();

	if (now_s != a->second) {
		a->second = now_s;
		a->count = 0;
	}
	if (++a->count < BURST || a->made >= s->next_id + AHEAD_LEAST)
		return;
	a->wanted = s->next_id + AHEAD;
	if (!a->runs)
		a->runs = pthread_create(&a->thread, NULL, ahead_main, s) == 0;
	else
		pthread_cond_signal(&a->make);
}

void content_ahead_end(struct content_store *s)
{
	if (!s->ahead.runs)
		return;
	pthread_mutex_lock(&s->lock);
	pthread_cond_signal(&s->ahead.make);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->ahead.thread, NULL);
	for (uint64_t file = s->next_id; file < s->ahead.made; file++)
		content_unlink(s, file);
}
