/* SPDX-License-Identifier: MIT */

/* The pure parts of the HTTP engine: what to do after a try, and the values of two headers. */

#include <attachfs/transfer.h>

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { FINISH = TRANSFER_FINISH, RETRY = TRANSFER_RETRY };

/* Retry */

static const struct row {
	const char *what;
	int error, status;
	bool sent, idempotent, for_ever;
	unsigned tries;
	int64_t retry_after_ms;
	int verdict;
	int64_t at_least_ms, at_most_ms;
} rows[] = {
	{"success", 0, 200, 1, 1, 1, 1, -1, FINISH, 0, 0},
	{"not found", 0, 404, 1, 1, 1, 1, -1, FINISH, 0, 0},
	{"unprocessable", 0, 422, 1, 1, 1, 1, -1, FINISH, 0, 0},
	{"unauthorized is for the caller", 0, 401, 1, 1, 1, 1, -1, FINISH, 0, 0},
	{"not implemented", 0, 501, 1, 1, 1, 1, -1, FINISH, 0, 0},

	{"refused, somebody waits", -EHOSTDOWN, 0, 0, 0, 0, 1, -1, RETRY, 50, 149},
	{"refused again", -EHOSTDOWN, 0, 0, 0, 0, 2, -1, RETRY, 50, 149},
	{"refused thrice", -EHOSTDOWN, 0, 0, 1, 0, 3, -1, FINISH, 0, 0},
	{"refused, background", -EHOSTDOWN, 0, 0, 0, 1, 1, -1, RETRY, 50, 500},
	{"refused long, background", -EHOSTDOWN, 0, 0, 0, 1, 1000, -1, RETRY, 50, 60000},

	{"no connection in time, somebody waits", -ETIMEDOUT, 0, 0, 1, 0, 1, -1, FINISH, 0, 0},
	{"no connection in time, background", -ETIMEDOUT, 0, 0, 0, 1, 1, -1, RETRY, 50, 500},
	{"stalled, idempotent", -ETIMEDOUT, 0, 1, 1, 0, 1, -1, RETRY, 50, 500},
	{"stalled, outcome unknown", -ETIMEDOUT, 0, 1, 0, 1, 1, -1, FINISH, 0, 0},

	{"broken, idempotent", -ECONNRESET, 0, 1, 1, 0, 1, -1, RETRY, 50, 500},
	{"broken, idempotent, thrice", -ECONNRESET, 0, 1, 1, 0, 3, -1, FINISH, 0, 0},
	{"broken, background, often", -ECONNRESET, 0, 1, 1, 1, 30, -1, RETRY, 50, 60000},
	{"broken, outcome unknown", -ECONNRESET, 0, 1, 0, 1, 1, -1, FINISH, 0, 0},
	{"broken before it was sent", -ECONNRESET, 0, 0, 0, 0, 1, -1, RETRY, 50, 500},

	{"cancelled", -ECANCELED, 0, 0, 1, 1, 1, -1, FINISH, 0, 0},
	{"callback refused", -EIO, 0, 1, 1, 1, 1, -1, FINISH, 0, 0},
	{"nonsense for an answer", -EPROTO, 0, 0, 1, 1, 1, -1, FINISH, 0, 0},
	{"no memory", -ENOMEM, 0, 0, 1, 1, 1, -1, FINISH, 0, 0},

	{"429 says nothing", 0, 429, 1, 0, 1, 1, -1, RETRY, 60000, 60000},
	{"429 says 2 s", 0, 429, 1, 0, 1, 1, 2000, RETRY, 2000, 2000},
	{"429 says now", 0, 429, 1, 0, 1, 1, 0, RETRY, 50, 500},
	{"429 for the fourth time, no deadline", 0, 429, 1, 0, 0, 4, 1, FINISH, 0, 0},
	{"425 was not carried out", 0, 425, 1, 0, 0, 1, -1, RETRY, 50, 500},

	{"503 with a time was not carried out", 0, 503, 1, 0, 0, 1, 3000, RETRY, 3000, 3000},
	{"503 without a time, not idempotent", 0, 503, 1, 0, 1, 1, -1, FINISH, 0, 0},
	{"503 without a time, idempotent", 0, 503, 1, 1, 0, 1, -1, RETRY, 50, 500},
	{"408, idempotent", 0, 408, 1, 1, 0, 1, -1, RETRY, 50, 500},
	{"502, idempotent", 0, 502, 1, 1, 0, 2, -1, RETRY, 50, 1000},
	{"504, idempotent, too often", 0, 504, 1, 1, 0, 4, -1, FINISH, 0, 0},
	{"504, background", 0, 504, 1, 1, 1, 40, -1, RETRY, 50, 60000},
	{"504, not idempotent", 0, 504, 1, 0, 1, 1, -1, FINISH, 0, 0},
	{"408, not idempotent", 0, 408, 1, 0, 1, 1, -1, FINISH, 0, 0},

	{"500, idempotent", 0, 500, 1, 1, 1, 2, -1, RETRY, 50, 1000},
	{"500 is not asked for ever", 0, 500, 1, 1, 1, 3, -1, FINISH, 0, 0},
	{"500, not idempotent", 0, 500, 1, 0, 1, 1, -1, FINISH, 0, 0},
};

static struct transfer_try try_of(const struct row *row, uint32_t random)
{
	return (struct transfer_try){
		.error = row->error,
		.status = row->status,
		.sent = row->sent,
		.idempotent = row->idempotent,
		.retry_for_ever = row->for_ever,
		.tries = row->tries,
		.retry_after_ms = row->retry_after_ms,
		.now_ms = 1000000,
		.random = random,
	};
}

static void test_each_end_of_a_try_has_its_verdict(void **state)
{
	static const uint32_t randoms[] = {0, 1, 12345, 0x7fffffff, 0xffffffff};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t k = 0; k < sizeof(randoms) / sizeof(randoms[0]); k++) {
			struct transfer_try try = try_of(&rows[i], randoms[k]);
			int64_t wait = -1;
			int verdict = (int)transfer_retry_decide(&try, &wait);

			if (verdict != rows[i].verdict || wait < rows[i].at_least_ms ||
			    wait > rows[i].at_most_ms)
				fail_msg("%s: verdict %d, wait %lld", rows[i].what, verdict,
					 (long long)wait);
		}
	}
}

static void test_no_retry_that_cannot_be_sent_before_the_deadline(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct transfer_try try = try_of(&rows[i], 77);
		int64_t wait, again;

		if (transfer_retry_decide(&try, &wait) == TRANSFER_FINISH)
			continue;
		try.deadline_ms = try.now_ms + wait;
		assert_int_equal(transfer_retry_decide(&try, &again), TRANSFER_FINISH);
		try.deadline_ms = try.now_ms + wait + 1;
		assert_int_equal(transfer_retry_decide(&try, &again), TRANSFER_RETRY);
		assert_int_equal(wait, again);
	}
}

static void test_a_429_is_repeated_until_the_deadline(void **state)
{
	struct transfer_try try = {
		.status = 429,
		.sent = true,
		.tries = 50,
		.retry_after_ms = 1000,
		.now_ms = 5,
		.deadline_ms = 30000,
	};
	int64_t wait;

	(void)state;
	assert_int_equal(transfer_retry_decide(&try, &wait), TRANSFER_RETRY);
}

static void test_background_backoff_grows_to_a_minute(void **state)
{
	int64_t largest = 0;

	(void)state;
	for (unsigned tries = 1; tries < 20; tries++) {
		struct transfer_try try = {
			.error = -EHOSTDOWN,
			.retry_for_ever = true,
			.tries = tries,
			.retry_after_ms = -1,
		};
		int64_t wait, cap = tries < 8 ? 500LL << (tries - 1) : 60000;

		for (uint32_t random = 0; random < 2000; random++) {
			try.random = random * 2654435761u;
			assert_int_equal(transfer_retry_decide(&try, &wait), TRANSFER_RETRY);
			assert_in_range(wait, 50, cap < 60000 ? cap : 60000);
			largest = wait > largest ? wait : largest;
		}
	}
	assert_in_range(largest, 55000, 60000);
}

/* Retry-After */

static void test_retry_after_is_seconds_or_a_date(void **state)
{
	/* Sun, 06 Nov 1994 08:49:37 GMT */
	const int64_t then = 784111777;
	static const struct {
		const char *value;
		int64_t ms;
	} table[] = {
		{"0", 0},
		{"1", 1000},
		{"  120  ", 120000},
		{"86400", 86400000},
		{"86401", 86400000},
		{"99999999999999999999999", 86400000},
		{"-1", -1},
		{"+1", -1},
		{"1.5", -1},
		{"1 2", -1},
		{"", -1},
		{" ", -1},
		{"soon", -1},
		{"1s", -1},
		{"0x10", -1},
		{"Sun, 06 Nov 1994 08:49:47 GMT", 10000},
		{"Sunday, 06-Nov-94 08:49:47 GMT", 10000},
		{"Sun Nov  6 08:49:47 1994", 10000},
		{"Sun, 06 Nov 1994 08:49:07 GMT", 0},
		{"Sun, 06 Nov 2022 08:49:37 GMT", 86400000},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (transfer_parse_retry_after(table[i].value, then) != table[i].ms)
			fail_msg("'%s': %lld", table[i].value,
				 (long long)transfer_parse_retry_after(table[i].value, then));
}

/* Content-Range */

static void test_content_range_is_read_exactly(void **state)
{
	static const struct {
		const char *value;
		bool unsatisfied;
		uint64_t first, last;
		int64_t total;
	} table[] = {
		{"bytes 0-0/1", false, 0, 0, 1},
		{"bytes 0-99/200", false, 0, 99, 200},
		{"bytes 0-99/*", false, 0, 99, -1},
		{" BYTES  100-199/200 ", false, 100, 199, 200},
		{"bytes */0", true, 0, 0, 0},
		{"bytes */200", true, 0, 0, 200},
		{"bytes 9223372036854775806-9223372036854775806/9223372036854775807", false,
		 9223372036854775806u, 9223372036854775806u, INT64_MAX},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct transfer_range range;

		if (transfer_parse_content_range(table[i].value, &range) != 0)
			fail_msg("'%s' is refused", table[i].value);
		assert_int_equal(range.unsatisfied, table[i].unsatisfied);
		assert_int_equal(range.total, table[i].total);
		assert_int_equal(range.first, table[i].first);
		assert_int_equal(range.last, table[i].last);
	}
}

static void test_a_content_range_that_makes_no_sense_is_refused(void **state)
{
	static const char *const table[] = {
		"",
		"bytes",
		"bytes ",
		"bytes 0",
		"bytes 0-",
		"bytes 0-9",
		"bytes 0-9/",
		"bytes -9/10",
		"bytes 9-0/10",
		"bytes 0-10/10",
		"bytes 0-9/10x",
		"bytes 0-9/-1",
		"bytes */*",
		"bytes */",
		"bytes=0-9/10",
		"octets 0-9/10",
		"bytes 0 - 9/10",
		"bytes 0-9 /10",
		"bytes +0-9/10",
		"bytes 0-9/9223372036854775808",
		"bytes 0-18446744073709551615/*",
		"bytes 0-99999999999999999999/*",
		"bytes 18446744073709551616-18446744073709551617/*",
		"0-9/10",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct transfer_range range = {.total = 4711};

		if (transfer_parse_content_range(table[i], &range) != -EINVAL)
			fail_msg("'%s' is taken", table[i]);
		assert_int_equal(range.total, 4711);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_end_of_a_try_has_its_verdict),
		cmocka_unit_test(test_no_retry_that_cannot_be_sent_before_the_deadline),
		cmocka_unit_test(test_a_429_is_repeated_until_the_deadline),
		cmocka_unit_test(test_background_backoff_grows_to_a_minute),
		cmocka_unit_test(test_retry_after_is_seconds_or_a_date),
		cmocka_unit_test(test_content_range_is_read_exactly),
		cmocka_unit_test(test_a_content_range_that_makes_no_sense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
