/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_CLOCK_H
#define ATTACHFS_CLOCK_H

/*
 * The two clocks. Deadlines, back-off and settling use the monotonic one and survive clock jumps;
 * file times and everything told to a server use the real one. Any thread.
 */

#include <stdint.h>

#define CLOCK_NS_PER_S 1000000000LL

/* Wall clock, nanoseconds since the epoch. */
int64_t clock_real_ns(void);

/* Monotonic clock, milliseconds since some fixed past; never goes back, goes on during suspend. */
int64_t clock_mono_ms(void);

#endif
