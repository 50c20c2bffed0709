/* SPDX-License-Identifier: MIT */

/*
 * Calls and the logins before and between them, over an engine and a server on loopback: who logs
 * in and how often, what a refusal and an unreachable login look like, login pages, bodies of many
 * parts, waiting for an answer, and the end while any of that is under way.
 */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "../../api/auth.h"
#include "../../api/call.h"
#include "../../api/json.h"
#include "rig.h"

#define MANY 100

static pthread_mutex_t last_lock = PTHREAD_MUTEX_INITIALIZER;

/* Who waits for calls. */
struct wait {
	_Atomic unsigned dones, good;
	/* of the last reply; last_lock while there are more to come */
	int error, status;
	char message[CALL_MESSAGE_MAX], header[256];
};

static void on_reply(void *ctx, const struct call_reply *reply)
{
	struct wait *w = ctx;

	pthread_mutex_lock(&last_lock);
	w->error = reply->error;
	w->status = reply->status;
	snprintf(w->message, sizeof(w->message), "%s", reply->message);
	snprintf(w->header, sizeof(w->header), "%s", reply->header ? reply->header : "");
	pthread_mutex_unlock(&last_lock);
	w->good += reply->error == 0;
	w->dones++;
}

static struct call *new_call(struct rig *rig, const char *method, const char *path)
{
	char url[160];

	snprintf(url, sizeof(url), "%s%s", rig->origin, path);
	return call_new(&rig->remote, TRANSFER_INTERACTIVE, method, url, path);
}

/* One call to its end. */
static struct wait run(struct call *c)
{
	struct wait w = {0};

	assert_int_equal(call_start(c, on_reply, &w), 0);
	rig_await(&w.dones, 1);
	return w;
}

static void serve_json(struct rig *rig, const char *request, struct rig_reply *reply)
{
	if (rig_check_token(rig, request, reply))
		rig_reply(reply, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
}

static void serve_hang(struct rig *rig, const char *request, struct rig_reply *reply)
{
	(void)rig;
	(void)request;
	reply->hang = true;
}

/* logins */

static void test_many_calls_without_a_token_cost_one_login(void **state)
{
	struct wait w = {0};
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(call_start(new_call(&rig, "GET", "/a"), on_reply, &w), 0);
	rig_await(&w.dones, MANY);
	assert_int_equal(w.good, MANY);
	assert_int_equal(rig.logins, 1);
	assert_int_equal(rig.refused, 0);
	rig_stop(&rig);
	assert_int_equal(rig.logouts, 1);
}

static void test_a_token_that_is_refused_is_replaced_and_the_body_sent_again(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	assert_int_equal(run(new_call(&rig, "GET", "/a")).error, 0);
	rig.token = 4242; /* somebody else's */
	struct call *c = new_call(&rig, "POST", "/a");
	call_set_json_take(c, json_pack("{s:s}", "a", "b"));
	assert_int_equal(run(c).error, 0);
	assert_int_equal(rig.logins, 2);
	assert_int_equal(rig.refused, 1);
	rig_stop(&rig);
}

static void test_many_refusals_at_a_time_cost_one_login(void **state)
{
	struct wait w = {0};
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	assert_int_equal(run(new_call(&rig, "GET", "/a")).error, 0);
	rig.token = 4242;
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(call_start(new_call(&rig, "GET", "/a"), on_reply, &w), 0);
	rig_await(&w.dones, MANY);
	assert_int_equal(w.good, MANY);
	assert_int_equal(rig.logins, 2);
	rig_stop(&rig);
}

static void test_401_for_ever_ends_and_does_not_hammer_the_login(void **state)
{
	char message[256];
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	rig.refuse_all = true;
	for (unsigned i = 0; i < 20; i++) {
		struct wait w = run(new_call(&rig, "GET", "/a"));
		assert_int_equal(w.error, -EACCES);
		assert_int_equal(w.dones, 1);
		assert_non_null(strstr(w.message, rig.password_file));
	}
	assert_in_range(rig.logins, 1, 2);
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_FAILED);
	assert_non_null(strstr(message, "password_file="));
	rig_stop(&rig);
}

static void test_a_refused_password_is_not_tried_all_the_time(void **state)
{
	char message[256];
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	rig.login = RIG_LOGIN_REFUSED;
	for (unsigned i = 0; i < 20; i++) {
		struct wait w = run(new_call(&rig, "GET", "/a"));
		assert_int_equal(w.error, -EACCES);
		assert_int_equal(w.status, 0);
		assert_non_null(strstr(w.message, rig.password_file));
	}
	assert_int_equal(rig.logins, 1);
	assert_int_equal(rig.requests, 0);
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_FAILED);
	/* Another password in the file is tried at once; so is the same when one is told to. */
	rig_set_password(&rig, "password-secret-wrong");
	rig.login = RIG_LOGIN_GOOD;
	assert_int_equal(run(new_call(&rig, "GET", "/a")).error, -EACCES);
	assert_int_equal(rig.logins, 2);
	rig_set_password(&rig, "password-secret-right");
	assert_int_equal(run(new_call(&rig, "GET", "/a")).error, 0);
	assert_int_equal(rig.logins, 3);
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_OK);
	rig_stop(&rig);
}

static void ignore_reload(void *ctx, int result)
{
	(void)ctx;
	(void)result;
}

static void test_being_told_to_log_in_again_ends_the_pause(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	rig.login = RIG_LOGIN_REFUSED;
	assert_int_equal(run(new_call(&rig, "GET", "/a")).error, -EACCES);
	rig.login = RIG_LOGIN_GOOD;
	remote_reload_credentials(&rig.remote, ignore_reload, NULL);
	assert_int_equal(run(new_call(&rig, "GET", "/a")).error, 0);
	assert_int_equal(rig.logins, 2);
	rig_stop(&rig);
}

static void test_a_call_does_not_wait_for_a_login_longer_than_its_deadline(void **state)
{
	char message[256];
	struct wait late, patient = {0};
	struct rig rig;
	struct call *c;

	(void)state;
	rig_start(&rig, serve_json, true);
	rig.login = RIG_LOGIN_HANGS;
	assert_int_equal(call_start(new_call(&rig, "POST", "/a"), on_reply, &patient), 0);
	c = new_call(&rig, "POST", "/a");
	call_set_deadline(c, clock_mono_ms() + 100);
	late = run(c);
	assert_int_equal(late.error, -ETIMEDOUT);
	assert_non_null(strstr(late.message, "login"));
	assert_int_equal(patient.dones, 0);
	/* that it took long is nobody's refusal */
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_UNKNOWN);
	rig.login = RIG_LOGIN_GOOD;
	rig_await(&patient.dones, 1);
	assert_int_equal(patient.error, 0);
	assert_int_equal(rig.logins, 1);
	assert_int_equal(rig.requests, 1);
	rig_stop(&rig);
}

static void test_a_login_that_cannot_be_reached_is_no_refusal(void **state)
{
	char message[256];
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	snprintf(rig.login_url, sizeof(rig.login_url), "http://127.0.0.1:1/login");
	struct wait w = run(new_call(&rig, "GET", "/a"));
	assert_int_equal(w.error, -EHOSTDOWN);
	assert_non_null(strstr(w.message, "cannot log in as ada"));
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_UNKNOWN);
	snprintf(rig.login_url, sizeof(rig.login_url), "%s/login", rig.origin);
	assert_int_equal(run(new_call(&rig, "GET", "/a")).error, 0);
	rig_stop(&rig);
}

static void test_a_login_that_fails_is_an_error_of_the_server(void **state)
{
	char message[256];
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	rig.login = RIG_LOGIN_FAILS;
	assert_int_equal(run(new_call(&rig, "GET", "/a")).error, -EIO);
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_UNKNOWN);
	rig_stop(&rig);
}

static void test_tokens_that_expire_at_once_are_used_all_the_same(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	rig.life_ms = -1000;
	for (unsigned i = 0; i < 30; i++)
		assert_int_equal(run(new_call(&rig, "GET", "/a")).error, 0);
	assert_in_range(rig.logins, 1, 10);
	rig_stop(&rig);
}

static void test_a_plain_call_knows_no_login(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	struct call *c = new_call(&rig, "GET", "/a");
	call_set_plain(c);
	struct wait w = run(c);
	assert_int_equal(w.error, -EACCES);
	assert_int_equal(w.status, 401);
	assert_int_equal(rig.logins, 0);
	assert_int_equal(remote_get_auth(&rig.remote, w.message), REMOTE_AUTH_UNKNOWN);
	rig_stop(&rig);
}

/* login pages */

static void serve_pages(struct rig *rig, const char *request, struct rig_reply *reply)
{
	struct rig_reply refusal = {0};
	bool good = rig_check_token(rig, request, &refusal);

	free(refusal.text);
	if (good)
		rig_reply(reply, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
	else if (strncmp(request, "POST", 4) == 0)
		rig_reply(reply,
			  "HTTP/1.1 302 Found\r\nLocation: /in\r\nContent-Length: 0\r\n\r\n");
	else
		rig_reply(reply,
			  "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
			  "Content-Length: 35\r\n\r\n<html><title>Log in</title></html>\r\n");
}

static void test_login_pages_count_as_401(void **state)
{
	static const char *const methods[] = {"GET", "POST"};
	struct rig rig;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		rig_start(&rig, serve_pages, true);
		assert_int_equal(run(new_call(&rig, "GET", "/a")).error, 0);
		rig.token = 4242;
		struct call *c = new_call(&rig, methods[i], "/a");
		call_set_login_page(c);
		assert_int_equal(run(c).error, 0);
		assert_int_equal(rig.logins, 2);
		/* For ever: that is a refusal. */
		rig.refuse_all = true;
		c = new_call(&rig, methods[i], "/a");
		call_set_login_page(c);
		struct wait w = run(c);
		assert_int_equal(w.error, -EACCES);
		assert_int_equal(w.status, 401);
		assert_int_equal(remote_get_auth(&rig.remote, w.message), REMOTE_AUTH_FAILED);
		rig_stop(&rig);
	}
}

static void test_a_page_that_nobody_called_a_login_page_is_nonsense(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_pages, true);
	rig.refuse_all = true;
	assert_int_equal(run(new_call(&rig, "GET", "/a")).error, -EIO);
	assert_int_equal(run(new_call(&rig, "POST", "/a")).error, -EIO);
	assert_int_equal(rig.logins, 1);
	rig_stop(&rig);
}

/* answers and bodies */

static void serve_headers(struct rig *rig, const char *request, struct rig_reply *reply)
{
	(void)rig;
	if (strstr(request, " /none"))
		rig_reply(reply, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
	else if (strstr(request, " /empty"))
		rig_reply(reply, "HTTP/1.1 204 Empty\r\n\r\n");
	else if (strstr(request, " /words"))
		rig_reply(reply, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwords");
	else
		rig_reply(reply, "HTTP/1.1 200 OK\r\nx-second: 2\r\nX-Third: 3\r\n"
				 "Content-Length: 2\r\n\r\n{}");
}

static void test_the_first_wanted_header_there_is_is_given(void **state)
{
	static const char *const names[] = {"X-First", "X-Second", "X-Third", NULL};
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_headers, false);
	struct call *c = new_call(&rig, "GET", "/a");
	call_want_headers(c, names);
	assert_string_equal(run(c).header, "2");
	c = new_call(&rig, "GET", "/none");
	call_want_headers(c, names);
	assert_string_equal(run(c).header, "");
	assert_string_equal(run(new_call(&rig, "GET", "/a")).header, "");
	rig_stop(&rig);
}

static void test_an_answer_without_json_is_a_success_only_where_said(void **state)
{
	static const char *const paths[] = {"/empty", "/words"};
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_headers, false);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(run(new_call(&rig, "GET", paths[i])).error, -EIO);
		struct call *c = new_call(&rig, "GET", paths[i]);
		call_set_any_answer(c);
		assert_int_equal(run(c).error, 0);
	}
	rig_stop(&rig);
}

static char *last_request;

static void serve_keeping(struct rig *rig, const char *request, struct rig_reply *reply)
{
	(void)rig;
	free(last_request);
	last_request = strdup(request);
	rig_reply(reply, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
}

static void assert_sent(const char *text)
{
	if (!strstr(last_request, text))
		fail_msg("not sent: '%s' in:\n%s", text, last_request);
}

static void test_parts_have_headers_of_their_own(void **state)
{
	FILE *file = tmpfile();
	struct rig rig;

	(void)state;
	assert_non_null(file);
	fputs("hello", file);
	fflush(file);
	rig_start(&rig, serve_keeping, false);
	struct call *c = new_call(&rig, "POST", "/a");
	call_add_field(c, "plain", "value");
	call_add_file_as(c, "attachment; filename=\"a.txt\"", "text/x-a", true, fileno(file), 5);
	call_add_file_as(c, "form-data; name=\"x\"", NULL, false, -1, 0);
	call_set_multipart_type(c, "multipart/mixed");
	assert_int_equal(run(c).error, 0);
	assert_sent("\r\nContent-Type: multipart/mixed; boundary=");
	assert_sent("\r\nContent-Disposition: form-data; name=\"plain\"\r\n");
	assert_sent("\r\nContent-Disposition: attachment; filename=\"a.txt\"\r\n");
	assert_sent("\r\nContent-Length: 5\r\n");
	assert_sent("\r\nContent-Type: text/x-a\r\n");
	assert_sent("\r\n\r\nhello\r\n--");
	assert_sent("\r\nContent-Disposition: form-data; name=\"x\"\r\n");
	rig_stop(&rig);
	fclose(file);
	free(last_request);
	last_request = NULL;
}

static void test_many_parts_fit(void **state)
{
	struct rig rig;
	char name[32];

	(void)state;
	rig_start(&rig, serve_keeping, false);
	struct call *c = new_call(&rig, "POST", "/a");
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "field%d", i);
		call_add_field(c, name, "v");
	}
	assert_int_equal(run(c).error, 0);
	assert_sent("name=\"field0\"");
	assert_sent("name=\"field49\"");
	rig_stop(&rig);
	free(last_request);
	last_request = NULL;
}

/* waiting */

static void serve_missing(struct rig *rig, const char *request, struct rig_reply *reply)
{
	(void)rig;
	(void)request;
	rig_reply(reply, "HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n"
			 "{\"message\":\"gone\"}");
}

static void test_waiting_brings_the_error_however_fast_it_came(void **state)
{
	struct call_waited waited;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_missing, false);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(call_wait(new_call(&rig, "GET", "/a"), NULL, &waited), -ENOENT);
		assert_int_equal(waited.error, -ENOENT);
		assert_int_equal(waited.status, 404);
		call_waited_clear(&waited);
	}
	rig_stop(&rig);
}

static void test_waiting_brings_json_and_header(void **state)
{
	static const char *const names[] = {"X-Third", NULL};
	struct call_waited waited;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_headers, false);
	struct call *c = new_call(&rig, "GET", "/a");
	call_want_headers(c, names);
	assert_int_equal(call_wait(c, NULL, &waited), 0);
	assert_true(json_is_object(waited.json));
	assert_string_equal(waited.header, "3");
	call_waited_clear(&waited);
	rig_stop(&rig);
}

static void test_waiting_for_nothing_fails(void **state)
{
	_Atomic bool stop = true;
	struct call_waited waited;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, false);
	assert_int_equal(call_wait(NULL, NULL, &waited), -ENOMEM);
	call_waited_clear(&waited);
	/* What is given up already is not even sent. */
	assert_int_equal(call_wait(new_call(&rig, "GET", "/a"), &stop, &waited), -ECANCELED);
	call_waited_clear(&waited);
	assert_int_equal(rig.requests, 0);
	rig_stop(&rig);
}

static _Atomic bool give_up;

static void *give_up_soon(void *ctx)
{
	(void)ctx;
	usleep(50000);
	give_up = true;
	return NULL;
}

static void test_waiting_is_given_up(void **state)
{
	struct call_waited waited;
	pthread_t thread;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_hang, false);
	give_up = false;
	int64_t before = clock_mono_ms();
	pthread_create(&thread, NULL, give_up_soon, NULL);
	assert_int_equal(call_wait(new_call(&rig, "GET", "/a"), &give_up, &waited), -ECANCELED);
	assert_true(clock_mono_ms() - before < 2000);
	call_waited_clear(&waited);
	pthread_join(thread, NULL);
	rig_stop(&rig);
}

/* the end */

static void assert_all_end(struct rig *rig, struct wait *w, unsigned n)
{
	int64_t before = clock_mono_ms();

	rig_shutdown(rig);
	assert_true(clock_mono_ms() - before < 2000);
	assert_int_equal(w->dones, n);
	assert_int_equal(w->good, 0);
	assert_int_equal(w->error, -ECANCELED);
}

static void test_the_end_while_logging_in(void **state)
{
	char message[256];
	struct wait w = {0};
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_json, true);
	rig.login = RIG_LOGIN_HANGS;
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(call_start(new_call(&rig, "POST", "/a"), on_reply, &w), 0);
	rig_await(&rig.logins, 1);
	remote_shutdown(&rig.remote);
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_UNKNOWN);
	assert_int_equal(call_start(new_call(&rig, "POST", "/a"), on_reply, &w), 0);
	assert_all_end(&rig, &w, MANY + 1);
	rig_stop(&rig);
	assert_int_equal(rig.requests, 0);
}

static void test_the_end_while_calls_are_on_the_wire(void **state)
{
	struct wait w = {0};
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_hang, true);
	/* The log-out finds a slot free. */
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(call_start(new_call(&rig, "GET", "/a"), on_reply, &w), 0);
	rig_await(&rig.requests, 6);
	assert_all_end(&rig, &w, 6);
	rig_stop(&rig);
	assert_int_equal(rig.logouts, 1);
}

static void test_the_end_while_refusals_come_in(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		struct wait w = {0};
		struct rig rig;
		unsigned n = 0;

		rig_start(&rig, serve_json, true);
		rig.refuse_all = i % 2;
		for (; n < 30; n++)
			assert_int_equal(call_start(new_call(&rig, "GET", "/a"), on_reply, &w), 0);
		usleep((useconds_t)(500 * i));
		rig_shutdown(&rig);
		assert_int_equal(w.dones, n);
		rig_stop(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_calls_without_a_token_cost_one_login),
		cmocka_unit_test(test_a_token_that_is_refused_is_replaced_and_the_body_sent_again),
		cmocka_unit_test(test_many_refusals_at_a_time_cost_one_login),
		cmocka_unit_test(test_401_for_ever_ends_and_does_not_hammer_the_login),
		cmocka_unit_test(test_a_refused_password_is_not_tried_all_the_time),
		cmocka_unit_test(test_being_told_to_log_in_again_ends_the_pause),
		cmocka_unit_test(test_a_call_does_not_wait_for_a_login_longer_than_its_deadline),
		cmocka_unit_test(test_a_login_that_cannot_be_reached_is_no_refusal),
		cmocka_unit_test(test_a_login_that_fails_is_an_error_of_the_server),
		cmocka_unit_test(test_tokens_that_expire_at_once_are_used_all_the_same),
		cmocka_unit_test(test_a_plain_call_knows_no_login),
		cmocka_unit_test(test_login_pages_count_as_401),
		cmocka_unit_test(test_a_page_that_nobody_called_a_login_page_is_nonsense),
		cmocka_unit_test(test_the_first_wanted_header_there_is_is_given),
		cmocka_unit_test(test_an_answer_without_json_is_a_success_only_where_said),
		cmocka_unit_test(test_parts_have_headers_of_their_own),
		cmocka_unit_test(test_many_parts_fit),
		cmocka_unit_test(test_waiting_brings_the_error_however_fast_it_came),
		cmocka_unit_test(test_waiting_brings_json_and_header),
		cmocka_unit_test(test_waiting_for_nothing_fails),
		cmocka_unit_test(test_waiting_is_given_up),
		cmocka_unit_test(test_the_end_while_logging_in),
		cmocka_unit_test(test_the_end_while_calls_are_on_the_wire),
		cmocka_unit_test(test_the_end_while_refusals_come_in),
	};

	log_open("/dev/null", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
