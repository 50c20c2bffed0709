/* SPDX-License-Identifier: MIT */

#include "bandwidth.h"

#define MILLI	    1000
#define LEAST_BYTES 16384 /* what comes in one piece */
#define WAIT_MIN_MS 2
#define WAIT_MAX_MS 100 /* what others leave may come sooner than one's share */

static const int64_t share_percent[TRANSFER_CLASSES] = {
	[TRANSFER_INTERACTIVE] = 70,
	[TRANSFER_WRITEBACK] = 20,
	[TRANSFER_PREFETCH] = 7,
	[TRANSFER_REFRESH] = 3,
};

static int64_t full(const struct bandwidth *b)
{
	int64_t bytes = (int64_t)(b->rate / 5);

	return (bytes > LEAST_BYTES ? bytes : LEAST_BYTES) * MILLI;
}

void bandwidth_begin(struct bandwidth *b, uint64_t rate, int64_t now_ms)
{
	b->rate = rate < BANDWIDTH_MAX ? rate : BANDWIDTH_MAX;
	b->at_ms = now_ms;
	for (int i = 0; i < TRANSFER_CLASSES; i++)
		b->milli[i] = full(b);
}

/* As much of @milli as there is room for. */
static int64_t pour(struct bandwidth *b, int class, int64_t milli)
{
	int64_t room = full(b) - b->milli[class];

	if (milli > room)
		milli = room;
	b->milli[class] += milli;
	return milli;
}

static void refill(struct bandwidth *b, int64_t now_ms)
{
	int64_t ms = now_ms - b->at_ms, comes, left;

	if (ms <= 0)
		return;
	b->at_ms = now_ms;
	if (ms > 1000)
		ms = 1000;
	/* thousandths, so that nothing is lost of a slow link's milliseconds */
	comes = left = (int64_t)b->rate * ms;
	for (int i = 0; i < TRANSFER_CLASSES; i++)
		left -= pour(b, i, comes / 100 * share_percent[i]);
	for (int i = 0; i < TRANSFER_CLASSES; i++)
		left -= pour(b, i, left);
}

bool bandwidth_may(struct bandwidth *b, enum transfer_class class, int64_t now_ms)
{
	if (!b->rate)
		return true;
	refill(b, now_ms);
	return b->milli[class] > 0;
}

void bandwidth_went(struct bandwidth *b, enum transfer_class class, uint64_t bytes)
{
	if (b->rate)
		b->milli[class] -= (int64_t)bytes * MILLI;
}

int64_t bandwidth_wait_ms(const struct bandwidth *b, enum transfer_class class)
{
	int64_t wait;

	if (!b->rate)
		return 0;
	wait = (MILLI - b->milli[class]) / (int64_t)b->rate + 1;
	return wait < WAIT_MIN_MS ? WAIT_MIN_MS : wait > WAIT_MAX_MS ? WAIT_MAX_MS : wait;
}
