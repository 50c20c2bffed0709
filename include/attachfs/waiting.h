/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_WAITING_H
#define ATTACHFS_WAITING_H

/*
 * Who may wait for the network. A few threads may: the one that starts or ends a mount, the one that
 * logs in. Those that answer programs, or run what others wait for, may not: they say so once, and
 * whatever waits for an answer of a server says that it does. A thread that does both is counted and
 * told as an error; the tests look at both.
 *
 * Any thread; nothing is locked.
 */

#include <stdint.h>

/* From here on the calling thread, @who for the log (static), never waits; NULL = it may again. */
void waiting_forbid(const char *who);

/* The calling thread is going to wait for a server; @what for the log. */
void waiting_begin(const char *what);

/* How often one waited that may not. */
uint64_t waiting_forbidden_count(void);

#endif
