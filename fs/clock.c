/* SPDX-License-Identifier: MIT */

/*
 * CLOCK_BOOTTIME rather than CLOCK_MONOTONIC: a laptop that slept for an hour must find its
 * deadlines passed.
 */

#include <attachfs/clock.h>

#include <time.h>

int64_t clock_real_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * CLOCK_NS_PER_S + ts.tv_nsec;
}

int64_t clock_mono_ms(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_BOOTTIME, &ts) < 0)
		clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}
