/* SPDX-License-Identifier: MIT */
/* Time as the emulator sees it: a steady clock for delays, and a wall clock tests can shift. */
#ifndef EMULATOR_CLOCK_H
#define EMULATOR_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int64_t clock_steady_us(void);
int64_t clock_steady_ms(void);

/* Seconds since 1970, shifted by the offset of POST /clock. */
int64_t clock_now(void);
void clock_set_offset(int64_t seconds);
int64_t clock_offset(void);

/* A moment in UTC, split into what people write. */
struct date_time {
	int year, month, day, hour, minute, second;
};

struct date_time clock_split(int64_t seconds);
int64_t clock_join(const struct date_time *t);

#endif
