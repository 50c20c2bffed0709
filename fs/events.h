/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_EVENTS_H
#define ATTACHFS_FS_EVENTS_H

/*
 * What happens in a mount, as a stream of JSON lines that grows like a log file: .attachfs/events.
 * A byte has the same offset for ever; the last EVENTS_KEPT_BYTES and more are kept, what is older
 * is lost to whoever has not read it. It is never empty: the first line says that the mount began,
 * so that programs which look at a file's size first (tail -f) take it for a file. Any thread;
 * tree->lock may be held.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVENTS_KEPT_BYTES ((size_t)256 << 10)

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

/* Bytes written so far: where the next line begins. */
uint64_t events_size(struct events *e);

/*
 * Up to @size bytes from @off on into @buf. Returns how many, 0 = there is nothing yet, or nothing
 * any more: then *@ret_first, the offset of the first line that is kept, is behind @off.
 */
size_t events_read(struct events *e, uint64_t off, char *buf, size_t size, uint64_t *ret_first);

/* Park @c until there is something behind @off. False: there is already, and @c runs on. */
bool events_wait(struct events *e, uint64_t off, struct call *c);

/* The key followers park under (CALL_WAIT_CONTROL). */
#define EVENTS_KEY 1

#endif
