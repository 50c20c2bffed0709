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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
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
	int result;
};

static void again_done(void *ctx, int result)
{
	struct again *w = ctx;

	pthread_mutex_lock(&w->lock);
	w->calls++;
	w->fresh = result > 0;
	w->result = result;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static bool read_again(struct auth *a, unsigned generation)
{
	struct again w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false, 0};

	auth_reload(a, generation, 0, again_done, &w);
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

/* What auth_run_command() says in a process that may not have any more of something. 0, or the line at fault. */
static int run_without(int resource, rlim_t left, int error)
{
	struct rlimit limit = {left, left};
	char *secret = NULL, message[256] = "";

	if (resource == (int)RLIMIT_NPROC && getuid() == 0 && setuid(65534) < 0)
		return __LINE__ & 0xff;
	if (setrlimit((__rlimit_resource_t)resource, &limit) < 0)
		return __LINE__ & 0xff;
	if (auth_run_command("echo key", 5000, NULL, &secret, message, sizeof(message)) != error)
		return __LINE__ & 0xff;
	return strstr(message, strerror(-error)) ? 0 : __LINE__ & 0xff;
}

static void assert_run_without(int resource, rlim_t left, int error)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(run_without(resource, left, error));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_a_command_that_cannot_be_started_says_why(void **state)
{
	(void)state;
	if (getenv("ATTACHFS_TEST_VALGRIND"))
		skip(); /* the limits would be valgrind's own, too */
	assert_run_without(RLIMIT_NPROC, 0, -EAGAIN);
	assert_run_without(RLIMIT_NOFILE, 4, -EMFILE);
}

static void test_a_command_that_floods_or_dies_says_so(void **state)
{
	char *secret = NULL, message[256] = "";

	(void)state;
	assert_int_equal(auth_run_command("head -c 1000000 /dev/zero | tr '\\0' x", 5000, NULL,
					  &secret, message, sizeof(message)),
			 -EINVAL);
	assert_non_null(strstr(message, "more than 16383 bytes"));
	assert_int_equal(
		auth_run_command("kill -9 $$", 5000, NULL, &secret, message, sizeof(message)),
		-EIO);
	assert_non_null(strstr(message, "signal 9"));
	assert_int_equal(
		auth_run_command("/nonexistent", 5000, NULL, &secret, message, sizeof(message)),
		-EIO);
	assert_non_null(strstr(message, "no such program"));
	/* and nobody is left behind */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
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
	struct again w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, true, 0};
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
	auth_reload(a, generation, 0, again_done, &w);
	auth_reload(a, generation, 0, again_done, &w);
	auth_stop(a);
	assert_true(clock_mono_ms() - before < 5000);
	assert_int_equal(w.calls, 2);
	assert_false(w.fresh);
	auth_reload(a, generation, 0, again_done, &w);
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

/* Logging in, with a login() that stands here. */

static struct {
	_Atomic unsigned calls, refreshed, logouts;
	_Atomic bool hang;
	_Atomic int result; /* of a login with the password */
	_Atomic int refresh_result;
	_Atomic int life_ms;
	bool same_token, no_token, no_refresh;
	char password[64], refresh[64], logged_out[64];
} fake;

static int fake_login(struct remote *r, const char *user, const char *secret, const char *refresh,
		      const _Atomic bool *stop, struct auth_login *ret, char *message, size_t size)
{
	unsigned number = ++fake.calls;

	(void)r;
	assert_string_equal(user, "ada");
	snprintf(fake.password, sizeof(fake.password), "%s", secret);
	snprintf(fake.refresh, sizeof(fake.refresh), "%s", refresh ? refresh : "");
	fake.refreshed += refresh != NULL;
	while (fake.hang && !*stop)
		usleep(1000);
	if (*stop)
		return -ECANCELED;
	int result = refresh ? fake.refresh_result : fake.result;
	if (result < 0) {
		snprintf(message, size, "the words of the server");
		return result;
	}
	if (fake.no_token)
		return 0;
	if (asprintf(&ret->token, "fake-token-%04u", fake.same_token ? 1 : number) < 0)
		return -ENOMEM;
	if (!fake.no_refresh && asprintf(&ret->refresh, "fake-refresh-%04u", number) < 0)
		return -ENOMEM;
	if (fake.life_ms)
		ret->expires_mono_ms = clock_mono_ms() + fake.life_ms;
	return 0;
}

static void fake_logout(struct remote *r, const struct auth_login *login)
{
	(void)r;
	fake.logouts++;
	snprintf(fake.logged_out, sizeof(fake.logged_out), "%s", login->token);
}

/* The password is in the file. */
static struct auth *new_login(void)
{
	struct auth_config config = bearer();
	char message[256];
	struct auth *a;

	memset(&fake, 0, sizeof(fake));
	write_token("password-one", 0600);
	config.file = file;
	config.what = "password";
	config.option_file = "password_file";
	config.user = "ada";
	config.login = fake_login;
	config.logout = fake_logout;
	assert_int_equal(auth_new(&config, &a, message, sizeof(message)), 0);
	return a;
}

/* The result of a reload of the header there is. */
static int log_in_again(struct auth *a)
{
	struct again w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false, 0};
	unsigned generation;
	char *header;

	auth_get_header(a, &header, &generation);
	auth_free_header(header);
	auth_reload(a, generation, 0, again_done, &w);
	pthread_mutex_lock(&w.lock);
	while (w.calls == 0)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	return w.result;
}

static void assert_no_header(struct auth *a)
{
	unsigned generation;
	char *header;

	assert_int_equal(auth_get_header(a, &header, &generation), -EAGAIN);
	assert_null(header);
}

/* As a call does that the server answered. */
static void take(struct auth *a)
{
	unsigned generation;

	auth_free_header(header_of(a, &generation));
	auth_note_taken(a, generation);
}

static void test_a_login_comes_before_the_first_header(void **state)
{
	char line[128];

	(void)state;
	struct auth *a = new_login();
	assert_no_header(a);
	assert_int_equal(fake.calls, 0);
	assert_int_equal(log_in_again(a), 1);
	assert_string_equal(fake.password, "password-one");
	assert_header(a, "Authorization: Bearer fake-token-0001");
	log_redact("password-one fake-token-0001 fake-refresh-0001", line, sizeof(line));
	assert_null(strstr(line, "-one"));
	assert_null(strstr(line, "0001"));
	auth_stop(a);
	assert_int_equal(fake.logouts, 1);
	assert_string_equal(fake.logged_out, "fake-token-0001");
	auth_free(a);
	assert_int_equal(fake.logouts, 1);
}

static void test_who_never_logged_in_is_not_logged_out(void **state)
{
	(void)state;
	struct auth *a = new_login();
	auth_free(a);
	assert_int_equal(fake.logouts, 0);
}

static void *wait_for_login(void *arg)
{
	return log_in_again(arg) == 1 ? arg : NULL;
}

static void test_a_hundred_threads_cost_one_login(void **state)
{
	pthread_t threads[100];

	(void)state;
	struct auth *a = new_login();
	fake.hang = true;
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, wait_for_login, a), 0);
	usleep(200000);
	fake.hang = false;
	for (size_t i = 0; i < 100; i++) {
		void *result;
		pthread_join(threads[i], &result);
		assert_non_null(result);
	}
	/* A thread that was late looked when the token was there already, and had it refused. */
	assert_in_range(fake.calls, 1, 2);
	auth_free(a);
}

static void test_an_expired_token_is_renewed_by_what_the_login_left(void **state)
{
	(void)state;
	struct auth *a = new_login();
	fake.life_ms = 1200;
	assert_int_equal(log_in_again(a), 1);
	assert_header(a, "Authorization: Bearer fake-token-0001");
	usleep(1100000); /* a little before its end */
	assert_no_header(a);
	fake.life_ms = 0;
	fake.no_refresh = true;
	assert_int_equal(log_in_again(a), 1);
	assert_string_equal(fake.refresh, "fake-refresh-0001");
	assert_header(a, "Authorization: Bearer fake-token-0002");
	/* No new one came: the old one stays. */
	take(a);
	assert_int_equal(log_in_again(a), 1);
	assert_string_equal(fake.refresh, "fake-refresh-0001");
	assert_int_equal(fake.calls, 3);
	auth_free(a);
}

static void test_a_refused_refresh_is_followed_by_the_password_and_forgotten(void **state)
{
	(void)state;
	struct auth *a = new_login();
	assert_int_equal(log_in_again(a), 1);
	take(a);
	fake.refresh_result = -EACCES;
	fake.no_refresh = true;
	assert_int_equal(log_in_again(a), 1);
	assert_int_equal(fake.calls, 3);
	assert_int_equal(fake.refreshed, 1);
	take(a);
	assert_int_equal(log_in_again(a), 1);
	assert_int_equal(fake.calls, 4);
	assert_int_equal(fake.refreshed, 1);
	auth_free(a);
}

static void test_a_refresh_that_is_not_answered_keeps_the_password_at_home(void **state)
{
	char words[256];

	(void)state;
	struct auth *a = new_login();
	assert_int_equal(log_in_again(a), 1);
	take(a);
	fake.refresh_result = -EHOSTDOWN;
	assert_int_equal(log_in_again(a), -EHOSTDOWN);
	assert_int_equal(fake.calls, 2);
	auth_describe_trouble(a, words, sizeof(words));
	assert_non_null(strstr(words, "the words of the server"));
	fake.refresh_result = 0;
	assert_int_equal(log_in_again(a), 1);
	auth_describe_trouble(a, words, sizeof(words));
	assert_string_equal(words, "");
	auth_free(a);
}

static void test_a_refused_password_is_left_alone_for_a_while(void **state)
{
	struct remote r = {0};
	char message[256];

	(void)state;
	struct auth *a = r.auth = new_login();
	fake.result = -EACCES;
	for (int i = 0; i < 30; i++)
		assert_int_equal(log_in_again(a), 0);
	assert_int_equal(fake.calls, 1);
	assert_int_equal(remote_get_auth(&r, message), REMOTE_AUTH_FAILED);
	assert_non_null(strstr(message, "the words of the server"));
	assert_non_null(strstr(message, file));
	/* A changed file is honoured at once, good or bad. */
	write_token("password-two", 0600);
	assert_int_equal(log_in_again(a), 0);
	assert_int_equal(fake.calls, 2);
	assert_string_equal(fake.password, "password-two");
	/* A file that cannot be read changes nothing. */
	unlink(file);
	assert_int_equal(log_in_again(a), 0);
	assert_int_equal(fake.calls, 2);
	fake.result = 0;
	write_token("password-three", 0600);
	assert_int_equal(log_in_again(a), 1);
	assert_string_equal(fake.password, "password-three");
	assert_int_equal(remote_get_auth(&r, message), REMOTE_AUTH_UNKNOWN);
	auth_free(a);
}

static void test_a_login_refused_for_something_else_does_not_blame_the_password(void **state)
{
	struct remote r = {0};
	char message[256];

	(void)state;
	struct auth *a = r.auth = new_login();
	fake.result = -EPERM;
	for (int i = 0; i < 3; i++)
		assert_int_equal(log_in_again(a), 0);
	assert_int_equal(fake.calls, 1);
	assert_int_equal(remote_get_auth(&r, message), REMOTE_AUTH_FAILED);
	assert_non_null(strstr(message, "the words of the server"));
	assert_null(strstr(message, "password"));
	auth_free(a);
}

static void ignore_reload(void *ctx, int result)
{
	(void)ctx;
	(void)result;
}

static void await_calls(unsigned n)
{
	int64_t until = clock_mono_ms() + 10000;

	while (fake.calls < n) {
		assert_true(clock_mono_ms() < until);
		usleep(1000);
	}
}

static void test_being_told_to_reload_is_never_lost(void **state)
{
	struct remote r = {0};

	(void)state;
	struct auth *a = r.auth = new_login();
	fake.result = -EACCES;
	assert_int_equal(log_in_again(a), 0);
	remote_reload_credentials(&r, true, ignore_reload, NULL);
	await_calls(2);
	/* Told while another login is under way with the old password. */
	fake.hang = true;
	remote_reload_credentials(&r, true, ignore_reload, NULL);
	await_calls(3);
	write_token("password-new", 0600);
	remote_reload_credentials(&r, true, ignore_reload, NULL);
	fake.hang = false;
	await_calls(4);
	assert_int_equal(log_in_again(a), 0);
	assert_string_equal(fake.password, "password-new");
	auth_free(a);
}

static void await(struct again *w)
{
	pthread_mutex_lock(&w->lock);
	while (w->calls == 0)
		pthread_cond_wait(&w->cond, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

static void test_who_told_to_reload_hears_of_what_was_there_when_telling(void **state)
{
	struct again first = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false, 0};
	struct again told = first;
	struct remote r = {0};

	(void)state;
	struct auth *a = r.auth = new_login();
	fake.hang = true;
	fake.result = -EACCES;
	auth_reload(a, 0, 0, again_done, &first);
	await_calls(1);
	write_token("password-new", 0600);
	remote_reload_credentials(&r, true, again_done, &told);
	fake.result = 0;
	fake.hang = false;
	await(&told);
	assert_int_equal(told.result, 1);
	assert_string_equal(fake.password, "password-new");
	await(&first);
	assert_int_equal(first.calls, 1);
	assert_int_equal(told.calls, 1);
	/* Nothing speaks against the token there is. */
	unsigned logins = fake.calls;
	remote_reload_credentials(&r, false, again_done, &told);
	assert_int_equal(told.calls, 2);
	assert_int_equal(told.result, 0);
	assert_int_equal(fake.calls, logins);
	auth_free(a);
}

static void test_who_waits_for_a_login_has_a_deadline(void **state)
{
	struct again late = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false, 0};
	struct again later = late, patient = late;
	int64_t now = clock_mono_ms();

	(void)state;
	struct auth *a = new_login();
	fake.hang = true;
	auth_reload(a, 0, 0, again_done, &patient);
	await_calls(1);
	auth_reload(a, 0, now + 60000, again_done, &patient);
	auth_reload(a, 0, now + 200, again_done, &later);
	auth_reload(a, 0, now + 50, again_done, &late);
	await(&late);
	await(&later);
	assert_int_equal(late.result, -ETIMEDOUT);
	assert_int_equal(later.result, -ETIMEDOUT);
	assert_true(clock_mono_ms() >= now + 200);
	assert_int_equal(patient.calls, 0);
	fake.hang = false;
	pthread_mutex_lock(&patient.lock);
	while (patient.calls < 2)
		pthread_cond_wait(&patient.cond, &patient.lock);
	pthread_mutex_unlock(&patient.lock);
	assert_int_equal(patient.result, 1);
	assert_int_equal(fake.calls, 1);
	auth_free(a);
	assert_int_equal(late.calls, 1);
	assert_int_equal(later.calls, 1);
}

static void test_a_token_that_is_never_taken_is_not_replaced_all_the_time(void **state)
{
	(void)state;
	struct auth *a = new_login();
	assert_int_equal(log_in_again(a), 1);
	for (int i = 0; i < 30; i++)
		assert_int_equal(log_in_again(a), 0);
	assert_int_equal(fake.calls, 1);
	/* Once it was taken, it has been good and is no more. */
	take(a);
	assert_int_equal(log_in_again(a), 1);
	assert_int_equal(fake.calls, 2);
	auth_free(a);
}

static void test_the_same_token_again_counts_as_another(void **state)
{
	unsigned first, second;

	(void)state;
	struct auth *a = new_login();
	fake.same_token = true;
	assert_int_equal(log_in_again(a), 1);
	auth_free_header(header_of(a, &first));
	take(a);
	assert_int_equal(log_in_again(a), 1);
	auth_free_header(header_of(a, &second));
	assert_int_not_equal(first, second);
	/* Who comes late with the first needs no login. */
	assert_true(read_again(a, first));
	assert_int_equal(fake.calls, 2);
	auth_free(a);
}

static void test_a_token_that_expires_at_once_is_used_for_a_moment(void **state)
{
	(void)state;
	struct auth *a = new_login();
	fake.life_ms = -5000;
	assert_int_equal(log_in_again(a), 1);
	assert_header(a, "Authorization: Bearer fake-token-0001");
	auth_free(a);
}

static void test_a_login_without_a_token_is_an_error(void **state)
{
	(void)state;
	struct auth *a = new_login();
	fake.no_token = true;
	assert_int_equal(log_in_again(a), -EIO);
	assert_no_header(a);
	auth_free(a);
}

static void test_an_error_of_the_login_says_nothing_of_records(void **state)
{
	static const struct {
		int of_login, told;
	} rows[] = {
		{-ENOENT, -EIO},	  {-EINVAL, -EIO},	    {-EBUSY, -EIO},
		{-EHOSTDOWN, -EHOSTDOWN}, {-ETIMEDOUT, -ETIMEDOUT}, {-ENOMEM, -ENOMEM},
	};

	(void)state;
	struct auth *a = new_login();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		fake.result = rows[i].of_login;
		assert_int_equal(log_in_again(a), rows[i].told);
	}
	auth_free(a);
}

static void test_stopping_amid_a_login_is_no_refusal(void **state)
{
	struct again w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, true, 0};
	struct remote r = {0};
	char message[256];

	(void)state;
	struct auth *a = r.auth = new_login();
	fake.hang = true;
	for (int i = 0; i < 10; i++)
		auth_reload(a, 0, 0, again_done, &w);
	await_calls(1);
	int64_t before = clock_mono_ms();
	auth_stop(a);
	assert_true(clock_mono_ms() - before < 1000);
	assert_int_equal(w.calls, 10);
	assert_int_equal(w.result, -ECANCELED);
	auth_reload(a, 0, 0, again_done, &w);
	assert_int_equal(w.calls, 11);
	assert_int_equal(w.result, -ECANCELED);
	assert_int_equal(remote_get_auth(&r, message), REMOTE_AUTH_UNKNOWN);
	assert_int_equal(fake.calls, 1);
	assert_int_equal(fake.logouts, 0);
	auth_free(a);
}

static void *reload_much(void *arg)
{
	for (int i = 0; i < 200; i++)
		log_in_again(arg);
	return NULL;
}

static void test_stopping_at_any_moment_calls_all_who_wait(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) {
		struct auth *a = new_login();
		struct remote r = {.auth = a};
		pthread_t threads[4];

		fake.result = i % 2 ? -EACCES : 0;
		for (size_t j = 0; j < 4; j++)
			pthread_create(&threads[j], NULL, reload_much, a);
		remote_reload_credentials(&r, true, ignore_reload, NULL);
		usleep((useconds_t)(300 * i));
		auth_stop(a);
		for (size_t j = 0; j < 4; j++)
			pthread_join(threads[j], NULL);
		auth_free(a);
	}
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
		T(test_a_command_that_cannot_be_started_says_why),
		T(test_a_command_that_floods_or_dies_says_so),
		T(test_the_environment_comes_last),
		T(test_basic_credentials_are_encoded),
		T(test_a_reload_tells_whether_there_is_another_secret),
		T(test_a_command_is_not_run_for_every_refusal),
		T(test_stopping_gives_up_a_reading_and_calls_its_waiters),
		T(test_a_refused_key_makes_the_state_failed_until_it_is_good_again),
		T(test_secrets_never_reach_the_log),
		T(test_a_login_comes_before_the_first_header),
		T(test_who_never_logged_in_is_not_logged_out),
		T(test_a_hundred_threads_cost_one_login),
		T(test_an_expired_token_is_renewed_by_what_the_login_left),
		T(test_a_refused_refresh_is_followed_by_the_password_and_forgotten),
		T(test_a_refresh_that_is_not_answered_keeps_the_password_at_home),
		T(test_a_refused_password_is_left_alone_for_a_while),
		T(test_a_login_refused_for_something_else_does_not_blame_the_password),
		T(test_being_told_to_reload_is_never_lost),
		T(test_who_told_to_reload_hears_of_what_was_there_when_telling),
		T(test_who_waits_for_a_login_has_a_deadline),
		T(test_a_token_that_is_never_taken_is_not_replaced_all_the_time),
		T(test_the_same_token_again_counts_as_another),
		T(test_a_token_that_expires_at_once_is_used_for_a_moment),
		T(test_a_login_without_a_token_is_an_error),
		T(test_an_error_of_the_login_says_nothing_of_records),
		T(test_stopping_amid_a_login_is_no_refusal),
		T(test_stopping_at_any_moment_calls_all_who_wait),
	};

	log_open("/dev/null", LOG_LEVEL_DEBUG);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
