/* SPDX-License-Identifier: MIT */

/*
 * The codec of names: tables for what is written in names.h, and random bytes for what must always
 * hold.
 */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <attachfs/names.h>

#define BYTES(s) s, sizeof(s) - 1

static void check_encodes(const char *server, size_t len, const char *want)
{
	char shown[NAMES_MAX + 1], back[NAMES_MAX + 1];
	size_t n;
	bool exact = false;

	assert_int_equal(names_encode(server, len, "7", shown, &exact), strlen(want));
	assert_string_equal(shown, want);
	assert_true(exact);
	assert_int_equal(names_decode(shown, back, sizeof(back), &n), 0);
	assert_int_equal(n, len);
	assert_memory_equal(back, server, len);
}

static void check_unchanged(const char *name)
{
	check_encodes(name, strlen(name), name);
}

static void check_decodes(const char *shown, const char *want)
{
	char server[NAMES_MAX + 1];
	size_t n;

	assert_int_equal(names_decode(shown, server, sizeof(server), &n), 0);
	assert_int_equal(n, strlen(want));
	assert_string_equal(server, want);
}

static void test_ordinary_names_stay_as_they_are(void **state)
{
	(void)state;
	check_unchanged("notes.txt");
	check_unchanged("...");
	check_unchanged(".hidden");
	check_unchanged("a b\\c:d*e?f\"g<h>i|j");
	check_unchanged("Grüße 日本語 \xf0\x9f\x98\x80.pdf");
	check_unchanged("inner \xc2\xa0 blanks");
}

static void test_what_no_name_may_hold_is_escaped(void **state)
{
	(void)state;
	check_encodes(BYTES("/"), "%2F");
	check_encodes(BYTES("a/b"), "a%2Fb");
	check_encodes(BYTES("."), "%2E");
	check_encodes(BYTES(".."), "%2E%2E");
	check_encodes(BYTES("\0"), "%00");
	check_encodes(BYTES("a\0b"), "a%00b");
	check_encodes(BYTES("a\nb"), "a%0Ab");
	check_encodes(BYTES("\x7f"), "%7F");
}

static void test_bytes_that_are_not_utf8_are_escaped(void **state)
{
	(void)state;
	check_encodes(BYTES("a\xff"), "a%FF");
	check_encodes(BYTES("\xc3(x"), "%C3(x");
	check_encodes(BYTES("\xc0\xaf"), "%C0%AF");	   /* overlong '/' */
	check_encodes(BYTES("\xe2\x82"), "%E2%82");	   /* cut short */
	check_encodes(BYTES("\xed\xa0\x80"), "%ED%A0%80"); /* a surrogate, CESU-8 */
	check_encodes(BYTES("\xf4\x90\x80\x80"), "%F4%90%80%80");
	check_encodes(BYTES("\xff\xc3\xa9"), "%FF\xc3\xa9");
}

static void test_blanks_a_server_would_trim_are_escaped(void **state)
{
	(void)state;
	check_encodes(BYTES(" a "), "%20a%20");
	check_encodes(BYTES("  "), "%20%20");
	check_encodes(BYTES("\xc2\xa0 x"), "%C2%A0%20x");
	check_encodes(BYTES("x\xe2\x80\x8b"), "x%E2%80%8B");
	check_encodes(BYTES("\xef\xbb\xbfx.txt"), "%EF%BB%BFx.txt");
	check_encodes(BYTES("x\xe3\x80\x80\xf3\xa0\x80\xa0"), "x%E3%80%80%F3%A0%80%A0");
}

static void test_percent_stays_when_it_is_no_escape(void **state)
{
	(void)state;
	check_unchanged("100%");
	check_unchanged("100%.txt");
	check_unchanged("%41");
	check_unchanged("%2f");
	check_unchanged("%25");
	check_unchanged("%");
	check_unchanged("%%%");
	check_unchanged("a%20b.pdf");
	check_unchanged("caf%C3%A9.txt");
	check_unchanged("%2E%2E%2E");
}

static void test_percent_that_reads_as_an_escape_is_escaped(void **state)
{
	(void)state;
	check_encodes(BYTES("%2F"), "%252F");
	check_encodes(BYTES("%252F"), "%25252F");
	check_encodes(BYTES("%2E"), "%252E");
	check_encodes(BYTES("%20"), "%2520");
	check_encodes(BYTES("%FF"), "%25FF");
	check_encodes(BYTES("%0A/"), "%250A%2F");
	check_encodes(BYTES("50%/x"), "50%%2Fx");
}

static void test_only_what_encoding_writes_is_decoded(void **state)
{
	(void)state;
	check_decodes("%2F", "/");
	check_decodes("%2f", "%2f");
	check_decodes("%41", "%41");
	check_decodes("a%20b", "a%20b");
	check_decodes("a%2Eb", "a%2Eb");
	check_decodes("%20a", " a");
	check_decodes("%C3%A9", "%C3%A9");
	check_decodes("%C2%A0a", "\xc2\xa0"
				 "a");
	check_decodes("a%2", "a%2");
}

static void test_decoding_into_too_little_room_fails(void **state)
{
	char server[4];
	size_t n;

	(void)state;
	assert_int_equal(names_decode("abcd", server, sizeof(server), &n), -ENAMETOOLONG);
	assert_int_equal(names_decode("abc", server, sizeof(server), &n), 0);
	assert_int_equal(names_decode("%2F%2F%2F", server, sizeof(server), &n), 0);
	assert_string_equal(server, "///");
}

static void test_empty_server_name_shows_its_id(void **state)
{
	char shown[NAMES_MAX + 1];
	bool exact = true;

	(void)state;
	assert_int_equal(names_encode("", 0, "77", shown, &exact), 10);
	assert_string_equal(shown, "unnamed~77");
	assert_false(exact);
}

static void test_long_names_keep_extension_and_id(void **state)
{
	char server[301], shown[NAMES_MAX + 1], want[NAMES_MAX + 1];
	bool exact = true;

	(void)state;
	memset(server, 'a', sizeof(server));
	memcpy(server + 296, ".jpeg", 5);
	assert_int_equal(names_encode(server, 301, "77", shown, &exact), NAMES_MAX);
	memset(want, 'a', sizeof(want));
	strcpy(want + NAMES_MAX - 8, "~77.jpeg");
	assert_string_equal(shown, want);
	assert_false(exact);
	assert_int_equal(names_encode(server, 301, NULL, shown, NULL), NAMES_MAX);
	assert_int_equal(names_encode(server, 255, "77", shown, &exact), 255);
	assert_true(exact);
}

static void test_shortening_tears_neither_character_nor_escape(void **state)
{
	char server[400], shown[NAMES_MAX + 1];
	size_t n;

	(void)state;
	for (size_t pad = 0; pad < 4; pad++) {
		memset(server, 'x', pad);
		for (size_t i = pad; i + 2 < sizeof(server); i += 3)
			memcpy(server + i, "\xe2\x82\xac", 3);
		n = names_encode(server, pad + 390, "1", shown, NULL);
		assert_true(n <= NAMES_MAX && n > NAMES_MAX - 3);
		assert_int_equal((n - 2 - pad) % 3, 0);

		memset(server + pad, '/', 390);
		n = names_encode(server, pad + 390, "1", shown, NULL);
		assert_true(n <= NAMES_MAX && n > NAMES_MAX - 3);
		assert_memory_equal(shown + n - 5, "%2F~1", 5);
	}
}

static void test_hostile_id_does_not_reach_the_name(void **state)
{
	char shown[NAMES_MAX + 1];

	(void)state;
	names_encode("", 0, "../7/\n8", shown, NULL);
	assert_string_equal(shown, "unnamed~78");
	names_disambiguate("a.txt", "/x", shown);
	assert_string_equal(shown, "a (x).txt");
}

static void check_to_server(const char *shown, const char *want)
{
	char server[3 * NAMES_MAX + 1];

	assert_int_equal(names_to_server(shown, server), strlen(want));
	assert_string_equal(server, want);
}

static void test_a_users_name_reaches_the_server_whole(void **state)
{
	(void)state;
	check_to_server("notes.txt", "notes.txt");
	check_to_server("100%.txt", "100%.txt");
	check_to_server("a%20b", "a%20b");
	check_to_server("a%2Fb", "a/b");
	check_to_server(" a", "%20a");
	check_to_server("a\nb ", "a%0Ab%20");
	check_to_server("a\xff"
			"b",
			"a%FFb");
	check_to_server(" %41%2F", "%20%41%2F");
}

static void test_labels_get_the_extension_of_the_file(void **state)
{
	static const struct {
		const char *name, *filename;
		bool policy;
		const char *want;
	} table[] = {
		{"Range card", "range-card.txt", false, "Range card.txt"},
		{"Range card.TXT", "range-card.txt", false, "Range card.TXT"},
		{"v1.2", "v1.2.pdf", false, "v1.2.pdf"},
		{"notes.md", "upload.txt", false, "notes.md.txt"},
		{"Roster", "roster", false, "Roster"},
		{"Roster", ".bashrc", false, "Roster"},
		{"Roster", "a.", false, "Roster"},
		{"Roster", "a.b c", false, "Roster"},
		{"Roster", "a.12345678901234567", false, "Roster"},
		{"Roster", "a.1234567890123456", false, "Roster.1234567890123456"},
		{"Roster", NULL, false, "Roster"},
		{"Roster", NULL, true, "Roster"},
		{"Roster", "r.pdf", true, "r.pdf"},
		{"", "r.pdf", false, "r.pdf"},
		{"archive", "x.tar.gz", false, "archive.gz"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char *label = names_label(table[i].name, table[i].filename, table[i].policy);

		assert_non_null(label);
		assert_string_equal(label, table[i].want);
		free(label);
	}
}

static void test_extension_is_a_short_plain_tail(void **state)
{
	(void)state;
	assert_int_equal(names_extension("a.txt"), 1);
	assert_int_equal(names_extension("a.tar.gz"), 5);
	assert_int_equal(names_extension(".txt"), 4);
	assert_int_equal(names_extension("a.t/t"), 5);
	assert_int_equal(names_extension("a."), 2);
	assert_int_equal(names_extension(""), 0);
}

static void test_second_holder_of_a_name_gets_its_id(void **state)
{
	char out[NAMES_MAX + 1], shown[NAMES_MAX + 1];

	(void)state;
	names_disambiguate("notes.txt", "12", out);
	assert_string_equal(out, "notes (12).txt");
	names_disambiguate("notes", "12", out);
	assert_string_equal(out, "notes (12)");
	names_disambiguate(".bashrc", "12", out);
	assert_string_equal(out, ".bashrc (12)");
	memset(shown, 'x', NAMES_MAX);
	strcpy(shown + NAMES_MAX - 4, ".txt");
	assert_int_equal(names_disambiguate(shown, "12", out), NAMES_MAX);
	assert_string_equal(out + NAMES_MAX - 10, "x (12).txt");
}

static void test_conflicting_copy_tells_host_and_time(void **state)
{
	char out[NAMES_MAX + 1];

	(void)state;
	names_conflict("notes.txt", "desk", 1772352930, out);
	assert_string_equal(out, "notes (conflict desk 2026-03-01 08.15.30).txt");
	names_conflict("notes", "a/b\nc", 0, out);
	assert_string_equal(out, "notes (conflict a-b-c 1970-01-01 00.00.00)");
	names_conflict("notes", "", 0, out);
	assert_string_equal(out, "notes (conflict unknown 1970-01-01 00.00.00)");
	assert_true(names_conflict("notes", "h", INT64_MAX, out) < NAMES_MAX);
}

static void test_local_names_are_globs(void **state)
{
	static const char globs[] = ".~lock.*#::*.part:.*.sw?";

	(void)state;
	assert_true(names_is_local(globs, ".~lock.a.odt#"));
	assert_true(names_is_local(globs, "film.part"));
	assert_true(names_is_local(globs, ".part"));
	assert_true(names_is_local(globs, ".notes.txt.swp"));
	assert_false(names_is_local(globs, "notes.txt"));
	assert_false(names_is_local(globs, "film.part.txt"));
	assert_false(names_is_local("", "x"));
	assert_false(names_is_local(NULL, "x"));
}

/* Bytes that make trouble are more likely here than they are in the wild. */
static size_t random_name(char *name, size_t max)
{
	static const char *const pieces[] = {"%",
					     "25",
					     "2F",
					     "20",
					     "%2F",
					     "%25",
					     "/",
					     ".",
					     " ",
					     "\xc2\xa0",
					     "\xe2\x80\x8b",
					     "\xef\xbb\xbf",
					     "\xc3",
					     "\xa9",
					     "%C3",
					     "%A9",
					     "%E2%80%8B",
					     "\n",
					     "a",
					     "\xff",
					     "%FF",
					     "\xed\xa0\x80",
					     "2",
					     "5",
					     "C",
					     "\xf0\x9f\x98\x80",
					     "%2E",
					     ".t"};
	size_t n = 0, parts = 1 + (size_t)(random() % 12);

	while (parts-- > 0 && n + 12 < max) {
		const char *piece = pieces[(size_t)random() % (sizeof(pieces) / sizeof(pieces[0]))];

		if (random() % 8 == 0) {
			name[n++] = (char)random();
			continue;
		}
		memcpy(name + n, piece, strlen(piece));
		n += strlen(piece);
	}
	return n;
}

static void check_legal(const char *shown, size_t n)
{
	assert_int_equal(strlen(shown), n);
	assert_true(n >= 1 && n <= NAMES_MAX);
	assert_null(strchr(shown, '/'));
	assert_string_not_equal(shown, ".");
	assert_string_not_equal(shown, "..");
}

static void test_random_server_names_come_back(void **state)
{
	char server[200], shown[NAMES_MAX + 1], back[NAMES_MAX + 1], sent[3 * NAMES_MAX + 1];

	(void)state;
	for (int i = 0; i < 200000; i++) {
		size_t len = random_name(server, sizeof(server)), n = 0;
		bool exact;

		check_legal(shown, names_encode(server, len, "77", shown, &exact));
		if (!exact)
			continue;
		assert_int_equal(names_decode(shown, back, sizeof(back), &n), 0);
		assert_int_equal(n, len);
		assert_memory_equal(back, server, len);
		assert_int_equal(names_to_server(shown, sent), len);
		assert_memory_equal(sent, server, len);
	}
}

static void test_random_users_names_survive(void **state)
{
	char user[200], sent[3 * NAMES_MAX + 1], shown[NAMES_MAX + 1], back[3 * NAMES_MAX + 1];

	(void)state;
	for (int i = 0; i < 200000; i++) {
		size_t len = random_name(user, sizeof(user)), n;
		bool exact;

		user[len] = '\0';
		for (char *p = user; *p; p++)
			*p = *p == '/' ? '_' : *p;
		if (!*user)
			continue;
		n = names_to_server(user, sent);
		check_legal(shown, names_encode(sent, n, "77", shown, &exact));
		/* What is shown for it afterwards is stable: it is sent as the same name again. */
		if (exact) {
			assert_int_equal(names_to_server(shown, back), n);
			assert_memory_equal(back, sent, n);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ordinary_names_stay_as_they_are),
		cmocka_unit_test(test_what_no_name_may_hold_is_escaped),
		cmocka_unit_test(test_bytes_that_are_not_utf8_are_escaped),
		cmocka_unit_test(test_blanks_a_server_would_trim_are_escaped),
		cmocka_unit_test(test_percent_stays_when_it_is_no_escape),
		cmocka_unit_test(test_percent_that_reads_as_an_escape_is_escaped),
		cmocka_unit_test(test_only_what_encoding_writes_is_decoded),
		cmocka_unit_test(test_decoding_into_too_little_room_fails),
		cmocka_unit_test(test_empty_server_name_shows_its_id),
		cmocka_unit_test(test_long_names_keep_extension_and_id),
		cmocka_unit_test(test_shortening_tears_neither_character_nor_escape),
		cmocka_unit_test(test_hostile_id_does_not_reach_the_name),
		cmocka_unit_test(test_a_users_name_reaches_the_server_whole),
		cmocka_unit_test(test_labels_get_the_extension_of_the_file),
		cmocka_unit_test(test_extension_is_a_short_plain_tail),
		cmocka_unit_test(test_second_holder_of_a_name_gets_its_id),
		cmocka_unit_test(test_conflicting_copy_tells_host_and_time),
		cmocka_unit_test(test_local_names_are_globs),
		cmocka_unit_test(test_random_server_names_come_back),
		cmocka_unit_test(test_random_users_names_survive),
	};
	const char *given = getenv("ATTACHFS_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);

	printf("seed %u (ATTACHFS_TEST_SEED)\n", seed);
	srandom(seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
