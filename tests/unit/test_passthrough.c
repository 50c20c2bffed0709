/* SPDX-License-Identifier: MIT */

/* The decision how an open is answered, against the kernel's rules and ours. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "passthrough.h"

static void test_a_lone_reader_of_a_whole_file_tries(void **state)
{
	struct passthrough_case k = {.reads = true, .whole = true};

	(void)state;
	assert_int_equal(passthrough_decide(&k), PASSTHROUGH_TRY);
	k.whole = false;
	assert_int_equal(passthrough_decide(&k), PASSTHROUGH_NOT);
	k = (struct passthrough_case){.whole = true};
	assert_int_equal(passthrough_decide(&k), PASSTHROUGH_NOT);
	k = (struct passthrough_case){.reads = true, .whole = true, .others = 1};
	assert_int_equal(passthrough_decide(&k), PASSTHROUGH_NOT);
}

static void test_a_second_reader_shares_the_file(void **state)
{
	struct passthrough_case k = {.reads = true, .passed = 1, .same = true, .others = 1};

	(void)state;
	assert_int_equal(passthrough_decide(&k), PASSTHROUGH_SHARE);
	/* not whole any more: the handles that are there have the bytes */
	k.whole = true;
	assert_int_equal(passthrough_decide(&k), PASSTHROUGH_SHARE);
}

static void test_writers_and_newer_versions_go_to_the_twin(void **state)
{
	struct passthrough_case writer = {.passed = 2, .same = true, .others = 2, .whole = true};
	struct passthrough_case newer = {.reads = true, .passed = 1, .others = 1, .whole = true};

	(void)state;
	assert_int_equal(passthrough_decide(&writer), PASSTHROUGH_CLASH);
	assert_int_equal(passthrough_decide(&newer), PASSTHROUGH_CLASH);
}

/*
 * What the kernel insists on: no two ways at once for one inode. Any order of opens and closes of
 * both inodes, as this decides, keeps to it.
 */
static void test_no_order_of_opens_mixes_the_ways(void **state)
{
	(void)state;
	for (uint32_t order = 0; order < 1u << 18; order++) {
		unsigned passed = 0, cached = 0, twins = 0;
		bool twinned = false;

		for (unsigned i = 0; i < 6; i++) {
			unsigned step = order >> (3 * i) & 7;
			struct passthrough_case k = {.twin = twinned,
						     .reads = step & 1,
						     .passed = twinned ? 0 : passed,
						     .same = step & 2,
						     .others = passed + cached + twins,
						     .whole = true};

			if (step >= 6) { /* a close */
				passed -= passed && step == 6;
				cached -= cached && step == 7;
				continue;
			}
			switch (passthrough_decide(&k)) {
			case PASSTHROUGH_TRY:
			case PASSTHROUGH_SHARE:
				passed++;
				break;
			case PASSTHROUGH_NOT:
				if (twinned)
					twins++;
				else
					cached++;
				break;
			case PASSTHROUGH_CLASH:
				twinned = true;
				twins++;
				break;
			}
			assert_false(passed && cached);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_lone_reader_of_a_whole_file_tries),
		cmocka_unit_test(test_a_second_reader_shares_the_file),
		cmocka_unit_test(test_writers_and_newer_versions_go_to_the_twin),
		cmocka_unit_test(test_no_order_of_opens_mixes_the_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
