/* SPDX-License-Identifier: MIT */

/* Header values as a hostile server may send them: no crash, and what is accepted makes sense. */

#include <attachfs/transfer.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_range(const char *value)
{
	struct transfer_range range;

	if (transfer_parse_content_range(value, &range) < 0)
		return;
	if (range.unsatisfied) {
		must(range.total >= 0);
		return;
	}
	must(range.first <= range.last && range.last <= INT64_MAX);
	must(range.total == -1 || (range.total > 0 && range.last < (uint64_t)range.total));
}

static void check_retry_after(const char *value, int64_t now_s)
{
	int64_t wait_ms = transfer_parse_retry_after(value, now_s);

	must(wait_ms >= -1 && wait_ms <= 86400000);
}

/* The first bytes as a try: whatever it is, the wait is bounded and the deadline is kept. */
static void check_retry(const uint8_t *data, size_t size)
{
	struct transfer_try attempt = {.now_ms = 1000};
	int64_t wait_ms = -1;

	if (size < 12)
		return;
	attempt.error = data[0] & 1 ? -(int)data[1] : 0;
	attempt.status = data[2] * 3;
	attempt.sent = data[3] & 1;
	attempt.idempotent = data[3] & 2;
	attempt.retry_for_ever = data[3] & 4;
	attempt.tries = data[4];
	attempt.retry_after_ms = (int64_t)data[5] * 1000 - 1;
	attempt.deadline_ms = data[6] & 1 ? 1000 + (int64_t)data[7] * 500 : 0;
	memcpy(&attempt.random, data + 8, sizeof(attempt.random));
	if (transfer_retry_decide(&attempt, &wait_ms) == TRANSFER_FINISH) {
		must(wait_ms == 0);
		return;
	}
	must(wait_ms > 0 && wait_ms <= 255000);
	must(!attempt.deadline_ms || attempt.now_ms + wait_ms < attempt.deadline_ms);
	must(!attempt.error || !attempt.sent || attempt.idempotent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *value = malloc(size + 1);

	if (!value)
		return 0;
	memcpy(value, data, size);
	value[size] = '\0';
	check_range(value);
	check_retry_after(value, 784111777);
	check_retry(data, size);
	free(value);
	return 0;
}
