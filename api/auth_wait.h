/* SPDX-License-Identifier: MIT */
#ifndef API_AUTH_WAIT_H
#define API_AUTH_WAIT_H

/*
 * Who waits for a reading of the credential, or for a login. Most are answered when it is over; a
 * watcher, which is a thread only while somebody with a deadline waits, answers those whose deadline
 * passes before with -ETIMEDOUT. Everybody is answered once.
 *
 * The list belongs to an auth and is guarded by its lock: _locked functions are called with it held.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "auth.h"

struct auth_wait;

struct auth_waits {
	pthread_mutex_t *lock;	/* the owner's */
	pthread_cond_t changed; /* wakes the watcher */
	struct auth_wait *first, **last;
	bool watching; /* the watcher looks at the list */
	bool joinable; /* there is a watcher to join */
	pthread_t watcher;
};

void auth_waits_init(struct auth_waits *w, pthread_mutex_t *lock);
/* Nobody waits any more, nor is anybody made to: until the watcher has ended. Not locked. */
void auth_waits_stop(struct auth_waits *w);
void auth_waits_clear(struct auth_waits *w);

/* @deadline_mono_ms: 0 = none. False without memory. */
bool auth_waits_add_locked(struct auth_waits *w, int64_t deadline_mono_ms, auth_done *done,
			   void *ctx);
/* All of them out of the list, for auth_waits_tell(). */
struct auth_wait *auth_waits_take_locked(struct auth_waits *w);
/* Answer them, without any lock. */
void auth_waits_tell(struct auth_wait *waits, int result);

#endif
