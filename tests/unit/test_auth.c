/* SPDX-License-Identifier: MIT */

/* Credentials: where they come from, what is refused, and how they are read again. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "../../api/auth.h"

static char directory[64], file[96];

static int make_directory(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/attachfs-auth.XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	snprintf(file, sizeof(file), "%s/token", directory);
	unsetenv("ATTACHFS_TOKEN");
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink(file);
	return rmdir(directory);
}

static void write_token(const char *text, mode_t mode)
{
	FILE *f = fopen(file, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(file, mode), 0);
}

static struct auth_config bearer(void)
{
	return (struct auth_config){
		.environment = "ATTACHFS_TOKEN",
		.what = "API key",
		.option_file = "token_file",
		.option_command = "token_command",
		.prefix = "Authorization: Bearer ",
	};
}

static char *header_of(struct auth *a, unsigned *ret_generation)
{
	char *header = NULL;

	assert_int_equal(auth_get_header(a, &header, ret_generation), 0);
	return header;
}

static void assert_header(struct auth *a, const char *expected)
{
	unsigned generation;
	char *header = header_of(a, &generation);

	assert_string_equal(header, expected);
	auth_free_header(header);
}

/* Reading again, and waiting for it. */
struct again {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int calls;
	bool fresh;
};

static void again_done(void *ctx, int result)
{
	struct again *w = ctx;

	pthread_mutex_lock(&w->lock);
	w->calls++;
	w->fresh = result > 0;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static bool read_again(struct auth *a, unsigned generation)
{
	struct again w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false};

	auth_reload(a, generation, again_done, &w);
	pthread_mutex_lock(&w.lock);
	while (w.calls == 0)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	assert_int_equal(w.calls, 1);
	return w.fresh;
}

static void test_a_token_file_of_ours_is_read_and_trimmed(void **state)
{
	struct auth_config config = bearer();
	char message[256];
	struct auth *a;

	(void)state;
	write_token("  key-from-file \r\nsecond line\n", 0600);
	config.file = file;
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	assert_header(a, "Authorization: Bearer key-from-file");
	auth_free(a);
}

static void test_a_file_others_can_read_is_refused_with_the_remedy(void **state)
{
	static const mode_t modes[] = {0640, 0604, 0644, 0660, 0610, 0601, 0622};
	char message[256], *secret = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		write_token("key", modes[i]);
		assert_int_equal(auth_read_file(file, &secret, message, sizeof(message)), -EACCES);
		assert_non_null(strstr(message, "chmod 600"));
		assert_null(secret);
	}
}

static void test_a_read_only_file_of_ours_is_fine(void **state)
{
	char message[256], *secret = NULL;

	(void)state;
	write_token("abcdef", 0400);
	assert_int_equal(auth_read_file(file, &secret, message, sizeof(message)), 0);
	assert_string_equal(secret, "abcdef");
	free(secret);
}

static void test_a_file_of_somebody_else_is_refused(void **state)
{
	char message[256], *secret = NULL;

	(void)state;
	if (geteuid() != 0)
		return; /* only root can give files away */
	write_token("abcdef", 0600);
	assert_int_equal(chown(file, 4242, (gid_t)-1), 0);
	assert_int_equal(auth_read_file(file, &secret, message, sizeof(message)), -EACCES);
}

static void test_missing_empty_and_unprintable_files_are_told_apart(void **state)
{
	char message[256], *secret = NULL;

	(void)state;
	unlink(file);
	assert_int_equal(auth_read_file(file, &secret, message, sizeof(message)), -ENOENT);
	assert_non_null(strstr(message, file));
	write_token(" \n\n", 0600);
	assert_int_equal(auth_read_file(file, &secret, message, sizeof(message)), -EINVAL);
	write_token("a\tb", 0600);
	assert_int_equal(auth_read_file(file, &secret, message, sizeof(message)), -EINVAL);
	assert_int_equal(auth_read_file(directory, &secret, message, sizeof(message)), -EISDIR);
}

static void test_a_command_prints_the_token(void **state)
{
	struct auth_config config = bearer();
	char message[256];
	struct auth *a;

	(void)state;
	config.command = "printf 'key-%s\\n' from-command; echo more";
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	assert_header(a, "Authorization: Bearer key-from-command");
	auth_free(a);
}

static void test_a_command_that_fails_is_an_error_with_its_status(void **state)
{
	char message[256], *secret = NULL;

	(void)state;
	assert_int_equal(
		auth_run_command("echo key; exit 3", 5000, NULL, &secret, message, sizeof(message)),
		-EIO);
	assert_non_null(strstr(message, "status 3"));
	assert_int_equal(auth_run_command("true", 5000, NULL, &secret, message, sizeof(message)),
			 -EINVAL);
	assert_null(secret);
}

static void test_a_command_that_hangs_is_killed_with_its_children(void **state)
{
	char message[256], *secret = NULL;
	int64_t before = clock_mono_ms();

	(void)state;
	assert_int_equal(auth_run_command("sleep 30 & sleep 30", 300, NULL, &secret, message,
					  sizeof(message)),
			 -ETIMEDOUT);
	assert_true(clock_mono_ms() - before < 5000);
	assert_int_equal(auth_run_command("exec >&-; sleep 30", 300, NULL, &secret, message,
					  sizeof(message)),
			 -ETIMEDOUT);
	assert_true(clock_mono_ms() - before < 5000);
}

static void test_a_command_gets_no_descriptor_of_ours(void **state)
{
	char message[256], *secret = NULL;

	(void)state;
	assert_int_equal(dup2(2, 77), 77);
	int r = auth_run_command("test -e /proc/self/fd/77 && echo open || echo closed", 5000, NULL,
				 &secret, message, sizeof(message));
	close(77);
	assert_int_equal(r, 0);
	assert_string_equal(secret, "closed");
	free(secret);
}

static void test_the_environment_comes_last(void **state)
{
	struct auth_config config = bearer();
	char message[256];
	struct auth *a;

	(void)state;
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), -EACCES);
	assert_non_null(strstr(message, "token_file=FILE"));
	assert_non_null(strstr(message, "ATTACHFS_TOKEN"));
	setenv("ATTACHFS_TOKEN", "key-from-environment", 1);
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	assert_header(a, "Authorization: Bearer key-from-environment");
	auth_free(a);
	write_token("key-from-file", 0600);
	config.file = file;
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	assert_header(a, "Authorization: Bearer key-from-file");
	auth_free(a);
	unsetenv("ATTACHFS_TOKEN");
}

static void test_basic_credentials_are_encoded(void **state)
{
	struct auth_config config = bearer();
	char message[256];
	struct auth *a;

	(void)state;
	write_token("open sesame", 0600);
	config.file = file;
	config.user = "Aladdin";
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	assert_header(a, "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
	auth_free(a);
}

static void test_a_reload_tells_whether_there_is_another_secret(void **state)
{
	struct auth_config config = bearer();
	unsigned first, second;
	char message[256];
	struct auth *a;

	(void)state;
	write_token("key-one", 0600);
	config.file = file;
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	auth_free_header(header_of(a, &first));
	assert_false(read_again(a, first));
	write_token("key-two", 0600);
	assert_true(read_again(a, first));
	assert_header(a, "Authorization: Bearer key-two");
	auth_free_header(header_of(a, &second));
	assert_true(second != first);
	/* Whoever was refused with the first is told without another reading. */
	unlink(file);
	assert_true(read_again(a, first));
	/* A file that is gone changes nothing. */
	assert_false(read_again(a, second));
	assert_header(a, "Authorization: Bearer key-two");
	auth_free(a);
}

static void test_a_command_is_not_run_for_every_refusal(void **state)
{
	struct auth_config config = bearer();
	char command[256], message[256];
	unsigned generation;
	struct auth *a;
	struct stat st;

	(void)state;
	unlink(file);
	snprintf(command, sizeof(command), "echo x >>%s; echo key-same", file);
	config.command = command;
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	auth_free_header(header_of(a, &generation));
	for (int i = 0; i < 20; i++)
		assert_false(read_again(a, generation));
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_size, 4); /* the start, and one reading */
	auth_free(a);
}

static void test_stopping_gives_up_a_reading_and_calls_its_waiters(void **state)
{
	struct auth_config config = bearer();
	struct again w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, true};
	char command[256], message[256];
	unsigned generation;
	struct auth *a;

	(void)state;
	unlink(file);
	snprintf(command, sizeof(command), "test -e %s && sleep 30; touch %s; echo key", file,
		 file);
	config.command = command;
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	auth_free_header(header_of(a, &generation));
	int64_t before = clock_mono_ms();
	auth_reload(a, generation, again_done, &w);
	auth_reload(a, generation, again_done, &w);
	auth_stop(a);
	assert_true(clock_mono_ms() - before < 5000);
	assert_int_equal(w.calls, 2);
	assert_false(w.fresh);
	auth_reload(a, generation, again_done, &w);
	assert_int_equal(w.calls, 3);
	auth_free(a);
}

static void test_a_refused_key_makes_the_state_failed_until_it_is_good_again(void **state)
{
	struct auth_config config = bearer();
	struct remote r = {0};
	char message[256];

	(void)state;
	write_token("key-one", 0600);
	config.file = file;
	assert_int_equal(auth_new(&config, &r.auth, message, sizeof(message)), 0);
	assert_int_equal(remote_get_auth(&r, message), REMOTE_AUTH_UNKNOWN);
	auth_note_failed(r.auth, "no good");
	assert_int_equal(remote_get_auth(&r, message), REMOTE_AUTH_FAILED);
	assert_string_equal(message, "no good");
	auth_note_good(r.auth);
	assert_int_equal(remote_get_auth(&r, message), REMOTE_AUTH_OK);
	assert_string_equal(message, "");
	auth_describe_remedy(r.auth, message, sizeof(message));
	assert_non_null(strstr(message, file));
	auth_free(r.auth);
}

static void test_secrets_never_reach_the_log(void **state)
{
	struct auth_config config = bearer();
	char message[256], line[128];
	struct auth *a;

	(void)state;
	write_token("very-secret-key-4711", 0600);
	config.file = file;
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	log_redact("we sent very-secret-key-4711 there", line, sizeof(line));
	assert_null(strstr(line, "4711"));
	auth_free(a);
}

#define T(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_token_file_of_ours_is_read_and_trimmed),
		T(test_a_file_others_can_read_is_refused_with_the_remedy),
		T(test_a_read_only_file_of_ours_is_fine),
		T(test_a_file_of_somebody_else_is_refused),
		T(test_missing_empty_and_unprintable_files_are_told_apart),
		T(test_a_command_prints_the_token),
		T(test_a_command_that_fails_is_an_error_with_its_status),
		T(test_a_command_that_hangs_is_killed_with_its_children),
		T(test_a_command_gets_no_descriptor_of_ours),
		T(test_the_environment_comes_last),
		T(test_basic_credentials_are_encoded),
		T(test_a_reload_tells_whether_there_is_another_secret),
		T(test_a_command_is_not_run_for_every_refusal),
		T(test_stopping_gives_up_a_reading_and_calls_its_waiters),
		T(test_a_refused_key_makes_the_state_failed_until_it_is_good_again),
		T(test_secrets_never_reach_the_log),
	};

	log_open("/dev/null", LOG_LEVEL_DEBUG);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
