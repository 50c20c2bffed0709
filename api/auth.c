/* SPDX-License-Identifier: MIT */

/*
 * The credential: where the secret comes from, the header made of it, and the one thread that reads
 * it again when the server refused it. A reading replaces the header under the lock and counts a
 * generation up only when the secret is another one; so a 401 with an old header is answered "try
 * the new one" at once, and a 401 with an unchanged secret costs no second request.
 */

#include "auth.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "call.h"

/* A command is not run more often than this, however many 401s come in. */
#define COMMAND_PAUSE_MS 10000

struct auth_wait {
	struct auth_wait *next;
	auth_done *done;
	void *ctx;
};

struct auth {
	char *file, *command, *environment, *what, *prefix, *user; /* immutable */
	char *option_file, *option_command;
	unsigned command_timeout_ms;
	_Atomic bool stop; /* give up a reading, begin none */

	pthread_mutex_t lock; /* the fields below; no other lock is taken under it */
	char *header;
	unsigned generation; /* counts headers, from 1 */
	int64_t reloaded_ms; /* when the last reading but the first ended, 0 = never */
	bool reading;	     /* the thread reads or calls waiters */
	bool joinable;	     /* there is a thread to join */
	pthread_t thread;
	struct auth_wait *waits;
	enum remote_auth state;
	char message[256];
};

static void wipe_free(char *secret)
{
	if (!secret)
		return;
	explicit_bzero(secret, strlen(secret));
	free(secret);
}

void auth_free_header(char *header)
{
	wipe_free(header);
}

static char *encode_base64(const char *text)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t len = strlen(text);
	char *out = malloc((len + 2) / 3 * 4 + 1), *p = out;

	for (size_t i = 0; out && i < len; i += 3) {
		uint32_t b = (uint32_t)(unsigned char)text[i] << 16;
		if (i + 1 < len)
			b |= (uint32_t)(unsigned char)text[i + 1] << 8;
		if (i + 2 < len)
			b |= (unsigned char)text[i + 2];
		*p++ = digits[b >> 18 & 63];
		*p++ = digits[b >> 12 & 63];
		*p++ = i + 1 < len ? digits[b >> 6 & 63] : '=';
		*p++ = i + 2 < len ? digits[b & 63] : '=';
	}
	if (out)
		*p = '\0';
	return out;
}

/* The header line for @secret; NULL without memory. */
static char *make_header(const struct auth *a, const char *secret)
{
	char *pair = NULL, *encoded = NULL, *header = NULL;

	if (!a->user) {
		if (asprintf(&header, "%s%s", a->prefix, secret) < 0)
			header = NULL;
		return header;
	}
	if (asprintf(&pair, "%s:%s", a->user, secret) < 0)
		return NULL;
	encoded = encode_base64(pair);
	if (encoded) {
		log_add_secret(encoded);
		if (asprintf(&header, "Authorization: Basic %s", encoded) < 0)
			header = NULL;
	}
	wipe_free(pair);
	wipe_free(encoded);
	return header;
}

static int read_environment(const struct auth *a, char **ret_secret, char *message, size_t size)
{
	const char *value = a->environment ? getenv(a->environment) : NULL;

	if (value && *value != '\0') {
		*ret_secret = strdup(value);
		return *ret_secret ? 0 : -ENOMEM;
	}
	snprintf(message, size, "no %s: give %s=FILE%s%s%s, or set %s", a->what, a->option_file,
		 a->option_command ? " or " : "", a->option_command ? a->option_command : "",
		 a->option_command ? "=COMMAND" : "", a->environment ? a->environment : "it");
	return -EACCES;
}

/* 1: another secret than before; 0: the same; or an error. Blocks. */
static int load(struct auth *a, char *message, size_t size)
{
	char *secret = NULL;
	int r;

	if (a->file)
		r = auth_read_file(a->file, &secret, message, size);
	else if (a->command)
		r = auth_run_command(a->command, a->command_timeout_ms, &a->stop, &secret, message,
				     size);
	else
		r = read_environment(a, &secret, message, size);
	if (r < 0)
		return r;
	if (strlen(secret) >= 4)
		log_add_secret(secret);
	char *header = make_header(a, secret);
	wipe_free(secret);
	if (!header)
		return -ENOMEM;

	pthread_mutex_lock(&a->lock);
	bool fresh = !a->header || strcmp(a->header, header) != 0;
	char *old = fresh ? a->header : header;
	if (fresh) {
		a->header = header;
		a->generation++;
		a->state = REMOTE_AUTH_UNKNOWN;
		a->message[0] = '\0';
	}
	pthread_mutex_unlock(&a->lock);
	wipe_free(old);
	return fresh;
}

static bool copy_config(struct auth *a, const struct auth_config *c)
{
	const struct {
		char **to;
		const char *from;
	} fields[] = {
		{&a->file, c->file},
		{&a->command, c->command},
		{&a->environment, c->environment},
		{&a->what, c->what},
		{&a->prefix, c->prefix},
		{&a->user, c->user},
		{&a->option_file, c->option_file},
		{&a->option_command, c->option_command},
	};

	a->command_timeout_ms = c->command_timeout_ms ? c->command_timeout_ms : 30000;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		*fields[i].to = fields[i].from ? strdup(fields[i].from) : NULL;
		if (fields[i].from && !*fields[i].to)
			return false;
	}
	return true;
}

int auth_new(const struct auth_config *config, struct auth **ret_auth, char *message, size_t size)
{
	struct auth *a = calloc(1, sizeof(*a));
	int r = -ENOMEM;

	snprintf(message, size, "out of memory");
	if (!a)
		return -ENOMEM;
	pthread_mutex_init(&a->lock, NULL);
	a->state = REMOTE_AUTH_UNKNOWN;
	if (copy_config(a, config))
		r = load(a, message, size);
	if (r < 0) {
		auth_free(a);
		return r;
	}
	*ret_auth = a;
	return 0;
}

void auth_stop(struct auth *a)
{
	if (!a)
		return;
	a->stop = true;
	pthread_mutex_lock(&a->lock);
	bool joinable = a->joinable;
	pthread_t thread = a->thread;
	a->joinable = false;
	pthread_mutex_unlock(&a->lock);
	if (joinable)
		pthread_join(thread, NULL);
}

void auth_free(struct auth *a)
{
	if (!a)
		return;
	auth_stop(a);
	wipe_free(a->header);
	free(a->file);
	free(a->command);
	free(a->environment);
	free(a->what);
	free(a->prefix);
	free(a->user);
	free(a->option_file);
	free(a->option_command);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

char *auth_get_header(struct auth *a, unsigned *ret_generation)
{
	pthread_mutex_lock(&a->lock);
	char *header = strdup(a->header);
	*ret_generation = a->generation;
	pthread_mutex_unlock(&a->lock);
	return header;
}

/* False: not read, or the same secret. */
static bool read_again(struct auth *a)
{
	char message[256] = "";
	int r = a->stop ? -ECANCELED : load(a, message, sizeof(message));

	if (r < 0 && r != -ECANCELED)
		log_errno(r, "auth: cannot read the %s again: %s", a->what, message);
	else if (r > 0)
		log_info("auth: %s read again: it is another one", a->what);
	return r > 0;
}

static void call_waits(struct auth_wait *waits, bool fresh)
{
	while (waits) {
		struct auth_wait *next = waits->next;
		waits->done(waits->ctx, fresh);
		free(waits);
		waits = next;
	}
}

/*
 * Whether a reading is worth it now; the lock is held. The file is always read; a command not all
 * the time.
 */
static bool may_read_locked(const struct auth *a)
{
	return !a->stop && (!a->command || a->file || a->reloaded_ms == 0 ||
			    clock_mono_ms() - a->reloaded_ms >= COMMAND_PAUSE_MS);
}

/* One reading for all who wait by its end; who comes later gets another one. */
static void *reading_thread(void *arg)
{
	struct auth *a = arg;
	bool go_on = true, may_read = true;

	while (go_on) {
		bool fresh = may_read && read_again(a);
		pthread_mutex_lock(&a->lock);
		if (may_read)
			a->reloaded_ms = clock_mono_ms();
		struct auth_wait *waits = a->waits;
		a->waits = NULL;
		pthread_mutex_unlock(&a->lock);
		call_waits(waits, fresh);
		pthread_mutex_lock(&a->lock);
		go_on = a->reading = a->waits != NULL;
		may_read = may_read_locked(a);
		pthread_mutex_unlock(&a->lock);
	}
	return NULL;
}

/* False: no thread; the lock is held. The thread before has finished but for its return. */
static bool start_thread_locked(struct auth *a)
{
	if (a->joinable)
		pthread_join(a->thread, NULL);
	a->joinable = pthread_create(&a->thread, NULL, reading_thread, a) == 0;
	a->reading = a->joinable;
	return a->joinable;
}

void auth_reload(struct auth *a, unsigned generation, auth_done *done, void *ctx)
{
	struct auth_wait *w = calloc(1, sizeof(*w));

	pthread_mutex_lock(&a->lock);
	bool fresh = a->generation != generation;
	bool wait = w && !fresh && (a->reading || (may_read_locked(a) && start_thread_locked(a)));
	if (wait) {
		*w = (struct auth_wait){a->waits, done, ctx};
		a->waits = w;
	}
	pthread_mutex_unlock(&a->lock);
	if (wait)
		return;
	free(w);
	done(ctx, fresh);
}

void auth_note_good(struct auth *a)
{
	pthread_mutex_lock(&a->lock);
	bool was_bad = a->state == REMOTE_AUTH_FAILED;
	a->state = REMOTE_AUTH_OK;
	a->message[0] = '\0';
	pthread_mutex_unlock(&a->lock);
	if (was_bad)
		log_info("auth: the server takes the %s again", a->what);
}

void auth_note_failed(struct auth *a, const char *message)
{
	pthread_mutex_lock(&a->lock);
	bool was_bad = a->state == REMOTE_AUTH_FAILED;
	a->state = REMOTE_AUTH_FAILED;
	snprintf(a->message, sizeof(a->message), "%s", message);
	pthread_mutex_unlock(&a->lock);
	if (!was_bad)
		log_error("auth: %s", message);
}

void auth_describe_remedy(const struct auth *a, char *out, size_t size)
{
	if (a->file)
		snprintf(out, size, "put a good %s into %s (%s=)", a->what, a->file,
			 a->option_file);
	else if (a->command)
		snprintf(out, size, "make the command of %s= print a good %s", a->option_command,
			 a->what);
	else
		snprintf(out, size, "mount again with a good %s in %s", a->what, a->environment);
}

enum remote_auth remote_get_auth(struct remote *r, char message[256])
{
	struct auth *a = r->auth;

	pthread_mutex_lock(&a->lock);
	enum remote_auth state = a->state;
	snprintf(message, 256, "%s", a->message);
	pthread_mutex_unlock(&a->lock);
	return state;
}

static void reload_done(void *ctx, bool fresh)
{
	(void)ctx;
	(void)fresh;
}

void remote_reload_credentials(struct remote *r)
{
	pthread_mutex_lock(&r->auth->lock);
	unsigned generation = r->auth->generation;
	pthread_mutex_unlock(&r->auth->lock);
	auth_reload(r->auth, generation, reload_done, NULL);
}
