/* SPDX-License-Identifier: MIT */
#include "clock.h"

#include <stdatomic.h>
#include <time.h>

static _Atomic int64_t offset_s;

int64_t clock_steady_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_steady_ms(void)
{
	return clock_steady_us() / 1000;
}

int64_t clock_now(void)
{
	return (int64_t)time(NULL) + atomic_load(&offset_s);
}

void clock_set_offset(int64_t seconds)
{
	atomic_store(&offset_s, seconds);
}

int64_t clock_offset(void)
{
	return atomic_load(&offset_s);
}

struct date_time clock_split(int64_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	gmtime_r(&t, &tm);
	return (struct date_time){tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
				  tm.tm_hour,	     tm.tm_min,	    tm.tm_sec};
}

int64_t clock_join(const struct date_time *t)
{
	struct tm tm = {.tm_year = t->year - 1900,
			.tm_mon = t->month - 1,
			.tm_mday = t->day,
			.tm_hour = t->hour,
			.tm_min = t->minute,
			.tm_sec = t->second};

	return (int64_t)timegm(&tm);
}
