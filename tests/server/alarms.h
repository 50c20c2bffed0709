/* SPDX-License-Identifier: MIT */
/*
 * Waiting without a thread: connections that sleep until a time, or for ever.
 *
 * A sleeping connection is suspended in libmicrohttpd and one timer thread resumes it when it is due.
 * Hundreds may sleep at once, and requests sleep side by side. A connection parked for ever is resumed
 * only when its peer went away, so that a hanging server does not leak descriptors.
 *
 * Life cycle: alarms_stop() resumes everything and makes later sleeps fail; only then may the daemons
 * be stopped (libmicrohttpd aborts on stopping with suspended connections); then alarms_free().
 */
#ifndef EMULATOR_ALARMS_H
#define EMULATOR_ALARMS_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

struct alarms;

struct alarms *alarms_new(void);
void alarms_stop(struct alarms *a);
void alarms_free(struct alarms *a);

/*
 * Suspend @connection for @ms milliseconds. Called on the connection's own thread, in its handler or
 * content reader. False: the emulator is stopping, nothing was suspended.
 */
bool alarms_sleep(struct alarms *a, struct MHD_Connection *connection, int64_t ms);

/* Suspend @connection until its peer closes it or the emulator stops. */
bool alarms_park(struct alarms *a, struct MHD_Connection *connection);

#endif
