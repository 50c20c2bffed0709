/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_STATUS_H
#define ATTACHFS_FS_STATUS_H

/*
 * The mount in words: what the control files show. All return malloc()ed text, NULL without memory.
 * Any thread, no lock held.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attachfs/transfer.h>

struct mount;

const char *status_state_name(enum engine_state state);
/* The state member of the status: "online", "offline", "throttled" or "auth". */
const char *status_state(struct mount *m);

/* A point in time as the status and the events tell it. */
void status_time(int64_t real_ns, char *out, size_t size);

/* One JSON object and a newline: the contract of .attachfs/status. */
char *status_json(struct mount *m);
/* The same in Prometheus' text format. */
char *status_metrics(struct mount *m);
/* One JSON line per pending, or parked, item: {"path", "what", "size", "error", "message"}. */
char *status_items(struct mount *m, bool parked);
/* One JSON line per conflict copy. */
char *status_conflicts(struct mount *m);

#endif
