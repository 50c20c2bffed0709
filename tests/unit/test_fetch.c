/* SPDX-License-Identifier: MIT */

/*
 * Downloads as any client has them, against a server on loopback: the credential and what happens
 * when it is refused, before the first byte and after a cut; what a client's own judgement ends;
 * links that are renewed; cancelling, pausing and the end of the mount at each stage.
 */

#include <errno.h>
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
#include "../../api/fetch.h"
#include "../../api/fetch_private.h"
#include "rig.h"

#define SIZE 4000000u

static unsigned char content[SIZE];

/* Who takes a stream: it must be the content, in order. */
struct taker {
	_Atomic unsigned begins, dones, bytes;
	_Atomic int error;
	_Atomic int64_t total;
	_Atomic uint64_t offset;
	bool refuse_begin, refuse_data;
};

static bool on_begin(void *ctx, int64_t total, uint64_t offset)
{
	struct taker *t = ctx;

	t->total = total;
	t->offset = offset;
	t->begins++;
	return !t->refuse_begin;
}

static bool on_data(void *ctx, const void *data, size_t len)
{
	struct taker *t = ctx;
	uint64_t at = t->offset + t->bytes;

	assert_int_equal(t->dones, 0);
	assert_true(at + len <= SIZE);
	assert_memory_equal(data, content + at, len);
	t->bytes += (unsigned)len;
	return !t->refuse_data;
}

static void on_done(void *ctx, int error)
{
	struct taker *t = ctx;

	t->error = error;
	t->dones++;
}

static int64_t listed_size = -1;

static int begin(struct rig *rig, const struct fetch_source *source, struct taker *t, uint64_t off,
		 uint64_t len, uint64_t *ret_id)
{
	char url[96];
	struct remote_file file = {
		.id = (char *)"7", .version = (char *)"v1", .url = url, .size = listed_size};
	struct remote_fetch_sink sink = {on_begin, on_data, on_done, t};

	snprintf(url, sizeof(url), "%s/file", rig->origin);
	return fetch_start(&rig->remote, source, TRANSFER_INTERACTIVE, &file, false, off, len, 0,
			   &sink, ret_id);
}

static void run(struct rig *rig, const struct fetch_source *source, struct taker *t, uint64_t off,
		uint64_t len)
{
	uint64_t id;

	*t = (struct taker){0};
	assert_int_equal(begin(rig, source, t, off, len, &id), 0);
	rig_await(&t->dones, 1);
	assert_int_equal(t->dones, 1);
}

static void assert_whole(const struct taker *t)
{
	assert_int_equal(t->error, 0);
	assert_int_equal(t->begins, 1);
	assert_int_equal(t->total, SIZE);
	assert_int_equal(t->bytes, SIZE);
}

/* The range asked for, within the content. */
static void find_range(const char *request, size_t *ret_first, size_t *ret_last)
{
	const char *range = strcasestr(request, "\r\nRange: bytes=");
	char *end;

	*ret_first = 0;
	*ret_last = SIZE - 1;
	if (!range)
		return;
	*ret_first = strtoul(range + 15, &end, 10);
	if (end[1] >= '0' && end[1] <= '9')
		*ret_last = strtoul(end + 1, NULL, 10);
	if (*ret_last >= SIZE)
		*ret_last = SIZE - 1;
}

/* At most @max bytes of what is asked for, under a head that says all of it. */
static void send_range(const char *request, size_t max, struct rig_reply *reply)
{
	size_t first, last;

	find_range(request, &first, &last);
	rig_reply(reply,
		  "HTTP/1.1 206 Partial\r\nETag: \"e1\"\r\nContent-Range: bytes %zu-%zu/%u\r\n"
		  "Content-Length: %zu\r\n\r\n",
		  first, last, SIZE, last - first + 1);
	rig_append(reply, content + first, last - first + 1 < max ? last - first + 1 : max);
}

static void serve_all(struct rig *rig, const char *request, struct rig_reply *reply)
{
	if (rig_check_token(rig, request, reply))
		send_range(request, SIZE, reply);
}

static const struct fetch_source plain = {.endpoint = "GET file", .credential = true};

static void test_a_stream_goes_with_the_credential(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_all, false);
	run(&rig, &plain, &t, 0, 0);
	assert_whole(&t);
	run(&rig, &plain, &t, 1000, 2000);
	assert_int_equal(t.error, 0);
	assert_int_equal(t.offset, 1000);
	assert_int_equal(t.bytes, 2000);
	assert_int_equal(rig.refused, 0);
	rig_stop(&rig);
}

static void test_many_streams_without_a_token_cost_one_login(void **state)
{
	struct taker t[50] = {0};
	struct rig rig;
	uint64_t id;

	(void)state;
	rig_start(&rig, serve_all, true);
	for (size_t i = 0; i < 50; i++)
		assert_int_equal(begin(&rig, &plain, &t[i], 0, 0, &id), 0);
	for (size_t i = 0; i < 50; i++) {
		rig_await(&t[i].dones, 1);
		assert_whole(&t[i]);
	}
	assert_int_equal(rig.logins, 1);
	assert_int_equal(rig.refused, 0);
	rig_stop(&rig);
}

static void test_a_refused_token_is_replaced(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_all, true);
	run(&rig, &plain, &t, 0, 10);
	rig.token = 4242;
	run(&rig, &plain, &t, 0, 0);
	assert_whole(&t);
	assert_int_equal(rig.logins, 2);
	rig_stop(&rig);
}

static void test_a_token_that_is_never_taken_ends_the_stream(void **state)
{
	char message[256];
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_all, true);
	rig.refuse_all = true;
	for (int i = 0; i < 20; i++) {
		run(&rig, &plain, &t, 0, 0);
		assert_int_equal(t.error, -EACCES);
		assert_int_equal(t.begins, 0);
	}
	assert_in_range(rig.logins, 1, 2);
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_FAILED);
	assert_non_null(strstr(message, "password_file="));
	rig_stop(&rig);
}

static void test_a_login_refused_or_not_reached_is_told_apart(void **state)
{
	char message[256];
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_all, true);
	snprintf(rig.login_url, sizeof(rig.login_url), "http://127.0.0.1:1/login");
	run(&rig, &plain, &t, 0, 0);
	assert_int_equal(t.error, -EHOSTDOWN);
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_UNKNOWN);
	snprintf(rig.login_url, sizeof(rig.login_url), "%s/login", rig.origin);
	rig.login = RIG_LOGIN_REFUSED;
	run(&rig, &plain, &t, 0, 0);
	assert_int_equal(t.error, -EACCES);
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_FAILED);
	assert_int_equal(rig.requests, 0);
	rig_stop(&rig);
}

/* The first answer breaks off, and until the next one the token is no good any more. */
static void serve_cut_and_expire(struct rig *rig, const char *request, struct rig_reply *reply)
{
	if (!rig_check_token(rig, request, reply))
		return;
	if (rig->step++ == 0) {
		send_range(request, 100000, reply);
		rig->token = 4242;
		return;
	}
	if (!strstr(request, "\r\nRange: bytes=100000-\r\n") ||
	    !strstr(request, "\r\nIf-Range: \"e1\"\r\n"))
		rig_reply(reply, "HTTP/1.1 500 Not asked as it should be\r\n\r\n");
	else
		send_range(request, SIZE, reply);
}

static void test_a_stream_survives_a_cut_and_its_token(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_cut_and_expire, true);
	run(&rig, &plain, &t, 0, 0);
	assert_whole(&t);
	assert_int_equal(rig.logins, 2);
	assert_int_equal(rig.refused, 1);
	rig_stop(&rig);
}

/* A few bytes, then a cut, then a token that is no good: for ever. */
static void serve_drops(struct rig *rig, const char *request, struct rig_reply *reply)
{
	if (rig_check_token(rig, request, reply)) {
		send_range(request, 10, reply);
		rig->token = 4242;
	}
}

static void test_a_stream_in_drops_comes_to_an_end(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_drops, true);
	run(&rig, &plain, &t, 0, 0);
	assert_int_equal(t.error, -EIO);
	assert_in_range(rig.requests, 2, 40);
	rig_stop(&rig);
}

/* judgement */

static int verdict;

static int judge(const struct remote_file *file, const struct transfer_head *head, int64_t total)
{
	assert_string_equal(file->version, "v1");
	assert_int_equal(total, SIZE);
	assert_string_equal(head->etag, "\"e1\"");
	return verdict;
}

static int judge_page(const struct remote_file *file, const struct transfer_head *head,
		      int64_t total)
{
	(void)file;
	(void)total;
	return strncmp(head->content_type, "text/html", 9) == 0 ? -EACCES : 0;
}

static const struct fetch_source judged = {
	.endpoint = "GET file", .credential = true, .judge = judge, .accept = "Accept: */*"};
static const struct fetch_source paged = {
	.endpoint = "GET file", .credential = true, .judge = judge_page};

static void test_the_clients_judgement_ends_a_stream_before_its_bytes(void **state)
{
	static const int verdicts[] = {-ESTALE, -EIO, 0};
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_all, false);
	for (size_t i = 0; i < 3; i++) {
		verdict = verdicts[i];
		run(&rig, &judged, &t, 0, 0);
		assert_int_equal(t.error, verdicts[i]);
		assert_int_equal(t.begins, verdicts[i] == 0);
	}
	assert_whole(&t);
	rig_stop(&rig);
}

static void serve_page(struct rig *rig, const char *request, struct rig_reply *reply)
{
	struct rig_reply refusal = {0};

	if (rig_check_token(rig, request, &refusal))
		send_range(request, SIZE, reply);
	else
		rig_reply(reply,
			  "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n"
			  "login");
	free(refusal.text);
}

static void test_a_login_page_instead_of_bytes_is_a_401(void **state)
{
	char message[256];
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_page, true);
	run(&rig, &paged, &t, 0, 10);
	rig.token = 4242;
	run(&rig, &paged, &t, 0, 0);
	assert_whole(&t);
	assert_int_equal(rig.logins, 2);
	rig.refuse_all = true;
	run(&rig, &paged, &t, 0, 0);
	assert_int_equal(t.error, -EACCES);
	assert_int_equal(t.begins, 0);
	assert_int_equal(remote_get_auth(&rig.remote, message), REMOTE_AUTH_FAILED);
	rig_stop(&rig);
}

/* servers without ranges */

static void serve_old(struct rig *rig, const char *request, struct rig_reply *reply)
{
	(void)request;
	if (rig->step == 0)
		rig_reply(reply, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", SIZE);
	else
		rig_reply(reply, "HTTP/1.1 200 OK\r\n\r\n");
	rig_append(reply, content, SIZE);
}

static void test_a_server_without_ranges_gives_the_whole(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_old, false);
	run(&rig, &plain, &t, 1000, 2000);
	assert_int_equal(t.error, 0);
	assert_int_equal(t.offset, 0);
	assert_int_equal(t.bytes, SIZE); /* not a part of it, and the rest another time */
	run(&rig, &plain, &t, 0, 0);
	assert_whole(&t);
	rig_stop(&rig);
}

static void test_an_end_nobody_announced_is_the_end(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_old, false);
	rig.step = 1;
	run(&rig, &plain, &t, 0, 0);
	assert_int_equal(t.error, 0);
	assert_int_equal(t.total, -1);
	assert_int_equal(t.bytes, SIZE);
	run(&rig, &plain, &t, 0, SIZE + 1000);
	assert_int_equal(t.error, 0);
	assert_int_equal(t.bytes, SIZE);
	assert_int_equal(rig.requests, 2);
	rig_stop(&rig);
}

static _Atomic unsigned ranges_asked;

static void serve_counted(struct rig *rig, const char *request, struct rig_reply *reply)
{
	if (strcasestr(request, "\r\nRange:"))
		ranges_asked++;
	serve_old(rig, request, reply);
}

static void test_a_server_without_ranges_is_asked_for_none_again(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_counted, false);
	ranges_asked = 0;
	run(&rig, &plain, &t, 0, 0);
	assert_whole(&t);
	run(&rig, &plain, &t, 1000, 2000); /* all of it was no proof: this is */
	assert_int_equal(ranges_asked, 2);
	run(&rig, &plain, &t, 5000, 1);
	assert_whole(&t);
	assert_int_equal(t.offset, 0);
	assert_int_equal(ranges_asked, 2);
	rig_stop(&rig);
}

static void test_a_body_without_length_is_only_as_long_as_was_listed(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_old, false);
	rig.step = 1;
	listed_size = SIZE;
	run(&rig, &plain, &t, 0, 0);
	assert_int_equal(t.error, 0);
	assert_int_equal(t.bytes, SIZE);
	listed_size = SIZE - 10;
	run(&rig, &plain, &t, 0, 0);
	assert_int_equal(t.error, -ESTALE);
	assert_true(t.bytes < SIZE - 10); /* nobody takes it for whole */
	listed_size = SIZE + 10;
	run(&rig, &plain, &t, 0, 0);
	assert_true(t.error < 0);
	assert_int_equal(t.bytes, SIZE);
	listed_size = -1;
	rig_stop(&rig);
}

/* Two lengths that do not agree, or none and more bytes than there should be. */
static void serve_too_much(struct rig *rig, const char *request, struct rig_reply *reply)
{
	(void)request;
	if (rig->step == 0)
		rig_reply(reply,
			  "HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-999/%u\r\n"
			  "Content-Length: %u\r\n\r\n",
			  SIZE, SIZE);
	else
		rig_reply(reply, "HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-999/%u\r\n\r\n",
			  SIZE);
	rig_append(reply, content, SIZE);
}

static void test_more_bytes_than_the_range_are_refused(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_too_much, false);
	run(&rig, &plain, &t, 0, 1000);
	assert_int_equal(t.error, -EIO);
	assert_int_equal(t.begins, 0);
	rig.step = 1;
	run(&rig, &plain, &t, 0, 1000);
	assert_int_equal(t.error, -EIO);
	assert_true(t.bytes < 1000);
	rig_stop(&rig);
}

static void serve_tagged(struct rig *rig, const char *request, struct rig_reply *reply)
{
	(void)request;
	rig_reply(reply,
		  "HTTP/1.1 206 Partial\r\nETag: \"e%u\"\r\nContent-Range: bytes 0-99/%u\r\n"
		  "Content-Length: 100\r\n\r\n",
		  (unsigned)rig->step, SIZE);
	rig_append(reply, content, 100);
}

static void test_streams_of_one_version_have_one_tag(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_tagged, false);
	for (int i = 0; i < 2; i++) {
		run(&rig, &plain, &t, 0, 100);
		assert_int_equal(t.error, 0);
	}
	rig.step = 1;
	run(&rig, &plain, &t, 0, 100);
	assert_int_equal(t.error, -ESTALE);
	assert_int_equal(t.begins, 0);
	rig_stop(&rig);
}

/* links */

static _Atomic unsigned renewals;
static const char *renewed_version;

static void renew(struct remote *r, enum transfer_class class, const char *id, const char *bad,
		  bool fresh, int64_t deadline_mono_ms, fetch_renewed *done, void *ctx)
{
	struct rig *rig = (struct rig *)r;
	char url[96];
	struct remote_file now = {.id = (char *)id, .version = (char *)renewed_version, .url = url};

	(void)class;
	(void)bad;
	(void)fresh;
	(void)deadline_mono_ms;
	snprintf(url, sizeof(url), "%s/new%u", rig->origin, (unsigned)renewals++);
	done(ctx, 0, &now, false);
}

static void serve_links(struct rig *rig, const char *request, struct rig_reply *reply)
{
	if (strncmp(request, "GET /file", 9) == 0 || rig->refuse_all)
		rig_reply(reply, "HTTP/1.1 403 Expired\r\nContent-Length: 0\r\n\r\n");
	else
		send_range(request, SIZE, reply);
}

static const struct fetch_source linked = {.endpoint = "GET blob", .renew = renew};

static void test_an_expired_link_is_renewed_once(void **state)
{
	struct taker t;
	struct rig rig;

	(void)state;
	rig_start(&rig, serve_links, false);
	renewals = 0;
	renewed_version = "v1";
	run(&rig, &linked, &t, 0, 0);
	assert_whole(&t);
	assert_int_equal(renewals, 1);
	renewed_version = "v2";
	run(&rig, &linked, &t, 0, 0);
	assert_int_equal(t.error, -ESTALE);
	renewed_version = "v1";
	renewals = 0;
	rig.refuse_all = true;
	run(&rig, &linked, &t, 0, 0);
	assert_int_equal(t.error, -EACCES);
	assert_int_equal(renewals, 1);
	rig_stop(&rig);
}

/* sizes */

static int rig_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		     const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		     const struct remote_fetch_sink *sink, uint64_t *ret_id)
{
	(void)collection;
	return fetch_start(r, &plain, class, file, false, off, len, deadline_mono_ms, sink, ret_id);
}

static void on_size(void *ctx, int error, int64_t size)
{
	struct taker *t = ctx;

	t->error = error;
	t->total = size;
	t->dones++;
}

static void test_a_size_is_found_by_one_byte(void **state)
{
	static const struct remote_ops ops = {.fetch = rig_fetch};
	const struct remote_ops *before;
	struct taker t = {0};
	struct rig rig;
	char url[96];

	(void)state;
	rig_start(&rig, serve_all, true);
	before = rig.remote.ops;
	rig.remote.ops = &ops;
	snprintf(url, sizeof(url), "%s/file", rig.origin);
	struct remote_file file = {
		.id = (char *)"7", .version = (char *)"v1", .url = url, .size = listed_size};
	assert_int_equal(
		fetch_probe_size(&rig.remote, TRANSFER_INTERACTIVE, &file, "c", 0, on_size, &t), 0);
	rig_await(&t.dones, 1);
	assert_int_equal(t.error, 0);
	assert_int_equal(t.total, SIZE);
	rig.remote.ops = before;
	rig_stop(&rig);
}

/* cancelling, pausing, the end */

/* By rig->step: the whole, no head, half of the bytes, or a 401. */
enum stage { STAGE_ALL, STAGE_NO_HEAD, STAGE_HALF };

static void serve_stages(struct rig *rig, const char *request, struct rig_reply *reply)
{
	reply->hang = rig->step != STAGE_ALL;
	if (rig->step == STAGE_ALL)
		serve_all(rig, request, reply);
	else if (rig->step == STAGE_HALF)
		send_range(request, SIZE / 2, reply);
}

static void test_cancelling_while_logging_in(void **state)
{
	struct taker t = {0};
	struct rig rig;
	uint64_t id;

	(void)state;
	rig_start(&rig, serve_all, true);
	rig.login = RIG_LOGIN_HANGS;
	assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
	rig_await(&rig.logins, 1);
	fetch_cancel(&rig.remote, id);
	fetch_cancel(&rig.remote, id);
	/* It does not wait for the login, which goes on for others. */
	rig_await(&t.dones, 1);
	assert_int_equal(t.error, -ECANCELED);
	rig.login = RIG_LOGIN_GOOD;
	struct taker other = {0};
	assert_int_equal(begin(&rig, &plain, &other, 0, 0, &id), 0);
	rig_await(&other.dones, 1);
	assert_whole(&other);
	assert_int_equal(rig.logins, 1);
	assert_int_equal(rig.requests, 1);
	rig_shutdown(&rig);
	assert_int_equal(t.dones, 1);
	rig_stop(&rig);
}

static void test_a_fetch_does_not_wait_for_a_login_longer_than_its_deadline(void **state)
{
	char url[96];
	struct remote_file file = {
		.id = (char *)"7", .version = (char *)"v1", .url = url, .size = listed_size};
	struct taker t = {0};
	struct remote_fetch_sink sink = {on_begin, on_data, on_done, &t};
	struct rig rig;
	uint64_t id;

	(void)state;
	rig_start(&rig, serve_all, true);
	snprintf(url, sizeof(url), "%s/file", rig.origin);
	rig.login = RIG_LOGIN_HANGS;
	assert_int_equal(fetch_start(&rig.remote, &plain, TRANSFER_INTERACTIVE, &file, false, 0, 0,
				     clock_mono_ms() + 100, &sink, &id),
			 0);
	rig_await(&t.dones, 1);
	assert_int_equal(t.error, -ETIMEDOUT);
	rig.login = RIG_LOGIN_GOOD;
	rig_stop(&rig);
	assert_int_equal(t.dones, 1);
	assert_int_equal(rig.requests, 0);
}

static void test_cancelling_while_a_login_is_refused(void **state)
{
	struct taker t = {0};
	struct rig rig;
	uint64_t id;

	(void)state;
	rig_start(&rig, serve_all, true);
	rig.login = RIG_LOGIN_HANGS;
	assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
	rig_await(&rig.logins, 1);
	fetch_cancel(&rig.remote, id);
	rig.login = RIG_LOGIN_REFUSED;
	rig_await(&t.dones, 1);
	assert_int_equal(t.error, -ECANCELED);
	rig_stop(&rig);
	assert_int_equal(t.dones, 1);
}

static void test_cancelling_on_the_wire(void **state)
{
	static const enum stage stages[] = {STAGE_NO_HEAD, STAGE_HALF};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct taker t = {0};
		struct rig rig;
		uint64_t id;

		rig_start(&rig, serve_stages, true);
		rig.step = stages[i];
		assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
		rig_await(&rig.requests, 1);
		if (stages[i] == STAGE_HALF)
			rig_await(&t.bytes, SIZE / 2);
		fetch_cancel(&rig.remote, id);
		rig_await(&t.dones, 1);
		assert_int_equal(t.error, -ECANCELED);
		rig_stop(&rig);
		assert_int_equal(t.dones, 1);
	}
}

static void test_who_takes_no_bytes_is_cancelled(void **state)
{
	struct taker t = {.refuse_begin = true};
	struct rig rig;
	uint64_t id;

	(void)state;
	rig_start(&rig, serve_all, true);
	assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
	rig_await(&t.dones, 1);
	assert_int_equal(t.error, -ECANCELED);
	t = (struct taker){.refuse_data = true};
	assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
	rig_await(&t.dones, 1);
	assert_int_equal(t.error, -ECANCELED);
	rig_stop(&rig);
}

static void test_a_pause_asked_for_while_logging_in_holds(void **state)
{
	struct taker t = {0};
	struct rig rig;
	uint64_t id;

	(void)state;
	rig_start(&rig, serve_all, true);
	rig.login = RIG_LOGIN_HANGS;
	assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
	rig_await(&rig.logins, 1);
	fetch_pause(&rig.remote, id);
	fetch_set_class(&rig.remote, id, TRANSFER_PREFETCH);
	rig.login = RIG_LOGIN_GOOD;
	rig_await(&rig.requests, 1);
	usleep(200000);
	assert_int_equal(t.dones, 0);
	assert_true(t.bytes < SIZE);
	fetch_resume(&rig.remote, id);
	rig_await(&t.dones, 1);
	assert_whole(&t);
	/* Late wishes are harmless. */
	fetch_pause(&rig.remote, id);
	fetch_cancel(&rig.remote, id);
	fetch_set_class(&rig.remote, id, TRANSFER_REFRESH);
	rig_stop(&rig);
}

static void assert_ends(struct rig *rig, struct taker *t)
{
	int64_t before = clock_mono_ms();

	rig_shutdown(rig);
	assert_true(clock_mono_ms() - before < 1500);
	assert_int_equal(t->dones, 1);
	assert_int_equal(t->error, -ECANCELED);
	rig_stop(rig);
	assert_int_equal(t->dones, 1);
}

static void test_the_end_at_each_stage(void **state)
{
	struct taker t = {0};
	struct rig rig;
	uint64_t id;

	(void)state;
	/* logging in */
	rig_start(&rig, serve_all, true);
	rig.login = RIG_LOGIN_HANGS;
	assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
	rig_await(&rig.logins, 1);
	assert_ends(&rig, &t);
	/* no answer yet */
	t = (struct taker){0};
	rig_start(&rig, serve_stages, true);
	rig.step = STAGE_NO_HEAD;
	assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
	rig_await(&rig.requests, 1);
	assert_ends(&rig, &t);
	/* amid the bytes */
	t = (struct taker){0};
	rig_start(&rig, serve_stages, true);
	rig.step = STAGE_HALF;
	assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
	rig_await(&t.bytes, SIZE / 2);
	assert_ends(&rig, &t);
	/* paused */
	t = (struct taker){0};
	rig_start(&rig, serve_stages, true);
	rig.step = STAGE_HALF;
	assert_int_equal(begin(&rig, &plain, &t, 0, 0, &id), 0);
	fetch_pause(&rig.remote, id);
	usleep(50000);
	assert_ends(&rig, &t);
}

static void test_nothing_begins_after_the_end(void **state)
{
	struct taker t = {0};
	struct rig rig;
	uint64_t id;

	(void)state;
	rig_start(&rig, serve_all, true);
	remote_shutdown(&rig.remote);
	/* Without a token it takes a moment to find that out. */
	int r = begin(&rig, &plain, &t, 0, 0, &id);
	if (r == 0) {
		rig_await(&t.dones, 1);
		r = t.error;
	}
	assert_int_equal(r, -ECANCELED);
	rig_stop(&rig);
	assert_int_equal(rig.requests, 0);
}

static void test_the_end_at_any_moment(void **state)
{
	(void)state;
	for (int i = 0; i < 30; i++) {
		struct taker t[20] = {0};
		struct rig rig;
		uint64_t id;

		rig_start(&rig, i % 3 == 0 ? serve_cut_and_expire : serve_all, true);
		rig.refuse_all = i % 3 == 1;
		for (size_t j = 0; j < 20; j++) {
			assert_int_equal(begin(&rig, &plain, &t[j], 0, 0, &id), 0);
			if (j % 3 == 0)
				fetch_pause(&rig.remote, id);
			if (j % 3 == 1)
				fetch_cancel(&rig.remote, id);
		}
		usleep((useconds_t)(700 * i));
		rig_shutdown(&rig);
		for (size_t j = 0; j < 20; j++)
			assert_int_equal(t[j].dones, 1);
		rig_stop(&rig);
	}
}

/* As many as a directory may have files whose sizes are asked for at once: none is searched for among many. */
static void test_100000_fetches_are_found_at_once(void **state)
{
	enum { N = 100000 };
	struct fetches *t = fetches_new();
	struct fetch *all = calloc(N, sizeof(*all));
	size_t steps = 0;

	(void)state;
	assert_non_null(t);
	assert_non_null(all);
	for (size_t i = 0; i < N; i++) {
		all[i].table = t;
		fetches_add(t, &all[i]);
	}
	for (size_t i = 0; i < N; i++) {
		struct fetch *f = t->buckets[all[i].id & (t->n_buckets - 1)];

		for (; f != &all[i]; f = f->next)
			steps++;
		assert_ptr_equal(*fetches_find_locked(t, all[i].id), &all[i]);
	}
	assert_true(steps <= N);
	for (size_t i = 0; i < N; i++) {
		fetches_remove(&all[i]);
		assert_null(*fetches_find_locked(t, all[i].id));
	}
	assert_int_equal(t->n, 0);
	free(all);
	fetches_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_100000_fetches_are_found_at_once),
		cmocka_unit_test(test_a_stream_goes_with_the_credential),
		cmocka_unit_test(test_many_streams_without_a_token_cost_one_login),
		cmocka_unit_test(test_a_refused_token_is_replaced),
		cmocka_unit_test(test_a_token_that_is_never_taken_ends_the_stream),
		cmocka_unit_test(test_a_login_refused_or_not_reached_is_told_apart),
		cmocka_unit_test(test_a_stream_survives_a_cut_and_its_token),
		cmocka_unit_test(test_a_stream_in_drops_comes_to_an_end),
		cmocka_unit_test(test_the_clients_judgement_ends_a_stream_before_its_bytes),
		cmocka_unit_test(test_a_login_page_instead_of_bytes_is_a_401),
		cmocka_unit_test(test_a_server_without_ranges_gives_the_whole),
		cmocka_unit_test(test_an_end_nobody_announced_is_the_end),
		cmocka_unit_test(test_a_server_without_ranges_is_asked_for_none_again),
		cmocka_unit_test(test_a_body_without_length_is_only_as_long_as_was_listed),
		cmocka_unit_test(test_more_bytes_than_the_range_are_refused),
		cmocka_unit_test(test_streams_of_one_version_have_one_tag),
		cmocka_unit_test(test_an_expired_link_is_renewed_once),
		cmocka_unit_test(test_a_size_is_found_by_one_byte),
		cmocka_unit_test(test_cancelling_while_logging_in),
		cmocka_unit_test(test_cancelling_while_a_login_is_refused),
		cmocka_unit_test(test_a_fetch_does_not_wait_for_a_login_longer_than_its_deadline),
		cmocka_unit_test(test_cancelling_on_the_wire),
		cmocka_unit_test(test_who_takes_no_bytes_is_cancelled),
		cmocka_unit_test(test_a_pause_asked_for_while_logging_in_holds),
		cmocka_unit_test(test_the_end_at_each_stage),
		cmocka_unit_test(test_nothing_begins_after_the_end),
		cmocka_unit_test(test_the_end_at_any_moment),
	};

	log_open("/dev/null", LOG_LEVEL_ERROR);
	for (size_t i = 0; i < SIZE; i++)
		content[i] = (unsigned char)(i * 31 + i / 251);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
