/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_EVENTS_H
#define ATTACHFS_FS_EVENTS_H

/*
 * What happens in a mount, as a followable stream of JSON lines: .attachfs/events. The last
 * EVENTS_KEPT lines are kept; a reader that falls behind loses the oldest and is told how many. Any
 * thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVENTS_KEPT 1024

struct call;
struct calls;
struct events;

int events_new(struct calls *calls, struct events **ret_events);
void events_free(struct events *e);

/*
 * One event: {"time": ..., "event": @event, "path": @path, "detail": @detail}; NULL members are
 * left out.
 */
void events_add(struct events *e, const char *event, const char *path, const char *detail);

/* The number the next event will get: where a follower begins. */
uint64_t events_next(struct events *e);

/*
 * The lines from number *@seq on, malloc()ed in *@ret_text; moves *@seq. Returns their bytes, 0 =
 * none (*@ret_text is NULL); with bytes but NULL there was no memory, and *@seq is where it was.
 */
size_t events_read(struct events *e, uint64_t *seq, char **ret_text);

/* Park @c until there is an event number @seq. False: there is already, and @c runs on. */
bool events_wait(struct events *e, uint64_t seq, struct call *c);

/* The key followers park under (CALL_WAIT_CONTROL). */
#define EVENTS_KEY 1

#endif
