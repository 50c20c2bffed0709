/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_WORKER_H
#define ATTACHFS_FS_WORKER_H

/*
 * The threads of libfuse, watched in debug builds: how many are at a request now, and how long one
 * was at most. None ever waits for the network, so on a server that never answers the first goes
 * back to 0 (1 for who reads it there), and the second stays far below any deadline, whatever is
 * parked. In release builds nothing is watched, and nothing costs anything.
 */

#include <stdbool.h>
#include <stdint.h>

#include <fuse_lowlevel.h>

/* The table of operations to give to libfuse: those of @ops, which is static, each watched. */
const struct fuse_lowlevel_ops *worker_watch(const struct fuse_lowlevel_ops *ops);

/* False: nothing is watched. Any thread. */
bool worker_usage(unsigned *ret_busy, int64_t *ret_longest_ms);

#endif
