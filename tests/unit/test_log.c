/* SPDX-License-Identifier: MIT */

/* The log: what must never be in it, and the form of what is. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/log.h>

static char path[] = "/tmp/attachfs-test-log-XXXXXX";

static int open_log(void **state)
{
	(void)state;
	unlink(path);
	return log_open(path, LOG_LEVEL_DEBUG);
}

static int close_log(void **state)
{
	(void)state;
	log_close();
	return unlink(path);
}

/* The whole log so far. */
static const char *logged(void)
{
	static char text[1 << 20];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	assert_true(n >= 0);
	text[n] = '\0';
	return text;
}

static unsigned count_lines(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void check_redacts(const char *in, const char *want)
{
	char out[512];

	log_redact(in, out, sizeof(out));
	assert_string_equal(out, want);
}

static void test_queries_of_urls_are_redacted(void **state)
{
	(void)state;
	check_redacts("GET https://h/a?sig=1&x=2: 403", "GET https://h/a?<redacted> 403");
	check_redacts("'https://h/a?sig=1': 403", "'https://h/a?<redacted>': 403");
	check_redacts("url=\"https://h/a?sig=it's\" x", "url=\"https://h/a?<redacted>\" x");
	check_redacts("{\"u\":\"https:\\/\\/h\\/a?s=1\",\"n\":2}",
		      "{\"u\":\"https:\\/\\/h\\/a?<redacted>\",\"n\":2}");
	check_redacts("GET /v2/x?limit=1 a?b", "GET /v2/x?<redacted> a?b");
	check_redacts("attachments?limit=1", "attachments?<redacted>");
	check_redacts("http://a/?x http://b/?y", "http://a/?<redacted> http://b/?<redacted>");
	check_redacts("https://u:pw@h/a", "https://<redacted>@h/a");
	check_redacts("what? no query here", "what? no query here");
	check_redacts("https://h/a@b", "https://h/a@b");
}

static void test_credentials_in_headers_are_redacted(void **state)
{
	(void)state;
	check_redacts("Authorization: Bearer abc def", "Authorization: <redacted>");
	check_redacts("> proxy-authorization:Digest a=\"b\"", "> proxy-authorization:<redacted>");
	check_redacts("{\"Authorization\": \"x y\"}", "{\"Authorization\": \"<redacted>");
	check_redacts("sent Bearer abc.d-e_f to h", "sent Bearer <redacted> to h");
	check_redacts("sent 'basic dTpw'", "sent 'basic <redacted>'");
	check_redacts("authorization failed: 401", "authorization failed: 401");
	check_redacts("the bearer", "the bearer");
}

static void test_secrets_are_redacted_however_they_are_written(void **state)
{
	(void)state;
	log_add_secret("abc");
	check_redacts("abc stays, it is too short", "abc stays, it is too short");
	log_add_secret("pa ss/w\xc3\xb6rd+");
	log_add_secret("pa ss/w\xc3\xb6rd+");
	check_redacts("x pa ss/w\xc3\xb6rd+ y", "x <redacted> y");
	check_redacts("xpa%20ss%2Fw%C3%B6rd%2By", "x<redacted>y");
	check_redacts("xpa%20ss%2fw%c3%b6rd%2by", "x<redacted>y");
	check_redacts("xpa+ss%2Fw%C3%B6rd+y", "x<redacted>y");
	check_redacts("xpa ss\\/w\xc3\xb6rd+y", "x<redacted>y");
	check_redacts("pa ss/w\xc3\xb6rd", "pa ss/w\xc3\xb6rd");
	log_add_secret("pa ss/w\xc3\xb6rd+longer");
	check_redacts("pa ss/w\xc3\xb6rd+longer", "<redacted>");
}

static void test_a_line_is_one_line(void **state)
{
	(void)state;
	check_redacts("a\nb\r\x1b[2J\x7f", "a\\nb\\x0d\\x1b[2J\\x7f");
	check_redacts("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
}

static void test_too_little_room_cuts_after_redaction(void **state)
{
	char out[16];

	(void)state;
	log_add_secret("long-secret-of-many-bytes");
	log_redact("1234567890 long-secret-of-many-bytes", out, sizeof(out));
	assert_string_equal(out, "1234567890 <red");
	log_redact("x", out, 1);
	assert_string_equal(out, "");
	log_redact("x", out, 0);
}

static void test_lines_have_time_and_level(void **state)
{
	int year, month, day, hour, minute, second, ms;
	char level[16], rest[64], zone;

	(void)state;
	log_warning("ledger: open '%s': %d", "a", 7);
	assert_int_equal(sscanf(logged(), "%4d-%2d-%2dT%2d:%2d:%2d.%3d%c %15s %63[^\n]", &year,
				&month, &day, &hour, &minute, &second, &ms, &zone, level, rest),
			 10);
	assert_int_equal(zone, 'Z');
	assert_string_equal(level, "warning");
	assert_string_equal(rest, "ledger: open 'a': 7");
	assert_int_equal(count_lines(logged()), 1);
}

static void test_secrets_do_not_reach_the_file(void **state)
{
	(void)state;
	log_add_secret("hunter2-hunter2");
	log_debug("login: with hunter2-hunter2 at https://h/?hunter3");
	assert_null(strstr(logged(), "hunter"));
}

static void test_long_lines_are_cut_but_not_their_secrets(void **state)
{
	char text[8000];

	(void)state;
	log_add_secret("0123456789abcdef");
	memset(text, 'x', sizeof(text));
	strcpy(text + 3795, "0123456789abcdef");
	log_info("%s", text);
	assert_null(strstr(logged(), "0123"));
	assert_int_equal(count_lines(logged()), 1);
	assert_true(strlen(logged()) < 4096);
}

static void test_equal_lines_are_folded(void **state)
{
	(void)state;
	for (int i = 0; i < 218; i++)
		log_info("http: retry");
	assert_int_equal(count_lines(logged()), 1);
	log_info("http: ok");
	assert_int_equal(count_lines(logged()), 3);
	assert_non_null(strstr(logged(), "repeated 217 times\n"));
	log_error("http: ok");
	assert_int_equal(count_lines(logged()), 4);
}

static void test_folded_lines_are_told_at_the_end(void **state)
{
	(void)state;
	log_info("http: retry");
	log_info("http: retry");
	assert_null(strstr(logged(), "repeated"));
	log_close();
	assert_non_null(strstr(logged(), "info log: last line repeated 1 time\n"));
}

static void test_quieter_levels_are_silent(void **state)
{
	(void)state;
	assert_int_equal(log_open(path, LOG_LEVEL_WARNING), 0);
	log_info("a");
	log_debug("b");
	assert_int_equal(count_lines(logged()), 0);
	log_warning("c");
	log_error("d");
	assert_int_equal(count_lines(logged()), 2);
}

static void test_log_errno_tells_the_reason_and_returns_it(void **state)
{
	(void)state;
	errno = EAGAIN;
	assert_int_equal(log_errno(-ENOSPC, "store: write '%s'", "x"), -ENOSPC);
	assert_int_equal(errno, EAGAIN);
	assert_non_null(strstr(logged(), "error store: write 'x': No space left on device\n"));
}

static void test_the_file_is_private_and_appended_to(void **state)
{
	struct stat st;

	(void)state;
	log_info("one");
	assert_int_equal(log_open(path, LOG_LEVEL_INFO), 0);
	log_info("two");
	assert_int_equal(count_lines(logged()), 2);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(log_open("/nonexistent/log", LOG_LEVEL_INFO), -ENOENT);
	log_info("three");
	assert_int_equal(count_lines(logged()), 3);
}

static void test_levels_have_names(void **state)
{
	enum log_level level = LOG_LEVEL_ERROR;

	(void)state;
	assert_int_equal(log_level_parse("debug", &level), 0);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_int_equal(log_level_parse("Debug", &level), -EINVAL);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
}

#define THREADS 8
#define LINES	500

static void *chatter(void *arg)
{
	char secret[32];

	for (int i = 0; i < LINES; i++) {
		log_info("thread %d: line %d", *(int *)arg, i);
		if (i % 100 == 0) {
			snprintf(secret, sizeof(secret), "secret-%d-%d", *(int *)arg, i);
			log_add_secret(secret);
		}
	}
	return NULL;
}

static void test_threads_do_not_tear_lines(void **state)
{
	pthread_t threads[THREADS];
	int numbers[THREADS], number, line;
	const char *text;
	char zone;

	(void)state;
	for (int i = 0; i < THREADS; i++) {
		numbers[i] = i;
		assert_int_equal(pthread_create(&threads[i], NULL, chatter, &numbers[i]), 0);
	}
	/* The file is taken away and reopened meanwhile, as logrotate does. */
	for (int i = 0; i < 20; i++)
		assert_int_equal(log_open(path, LOG_LEVEL_INFO), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	text = logged();
	assert_int_equal(count_lines(text), THREADS * LINES);
	for (; *text; text = strchr(text, '\n') + 1)
		assert_int_equal(sscanf(text,
					"%*d-%*d-%*dT%*d:%*d:%*d.%*d%c info thread %d: line %d\n",
					&zone, &number, &line),
				 3);
}

#define with_log(f) cmocka_unit_test_setup_teardown(f, open_log, close_log)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_queries_of_urls_are_redacted),
		cmocka_unit_test(test_credentials_in_headers_are_redacted),
		cmocka_unit_test(test_secrets_are_redacted_however_they_are_written),
		cmocka_unit_test(test_a_line_is_one_line),
		cmocka_unit_test(test_too_little_room_cuts_after_redaction),
		with_log(test_lines_have_time_and_level),
		with_log(test_secrets_do_not_reach_the_file),
		with_log(test_long_lines_are_cut_but_not_their_secrets),
		with_log(test_equal_lines_are_folded),
		with_log(test_folded_lines_are_told_at_the_end),
		with_log(test_quieter_levels_are_silent),
		with_log(test_log_errno_tells_the_reason_and_returns_it),
		with_log(test_the_file_is_private_and_appended_to),
		cmocka_unit_test(test_levels_have_names),
		with_log(test_threads_do_not_tear_lines),
	};
	int fd = mkstemp(path);

	if (fd < 0)
		return 1;
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
