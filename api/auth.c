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
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "auth_wait.h"
#include "call.h"

/*
 * A command is not run more often than this, however many 401s come in, nor a login tried that was
 * refused or whose token was. Another password in the file, or being told to, ends the pause.
 */
#define COMMAND_PAUSE_MS 10000

/* A token is renewed so long before it expires, or in the last quarter of a short life. */
#define EXPIRY_MARGIN_MS 30000

/*
 * And is used so long whatever it says: one that seems to expire at once (a clock is wrong) costs a
 * login now and then, not every call.
 */
#define LIFE_MIN_MS 1000

struct auth {
	char *file, *command, *environment, *what, *prefix, *user; /* immutable */
	char *option_file, *option_command;
	unsigned command_timeout_ms;
	int (*login)(struct remote *r, const char *user, const char *secret, const char *refresh,
		     const _Atomic bool *stop, struct auth_login *ret, char *message, size_t size);
	void (*logout)(struct remote *r, const struct auth_login *login);
	struct remote *remote;
	_Atomic bool stop; /* give up a reading, begin none */

	pthread_mutex_t lock; /* the fields below; no other lock is taken under it */
	char *header;	      /* NULL = not logged in */
	char *password;	      /* to log in with; only the reading thread changes it */
	struct auth_login session;
	int64_t renew_ms;    /* from when on the header is not given out any more; 0 = for ever */
	int64_t refused_ms;  /* when the last login was refused, 0 = it was not */
	int64_t login_ms;    /* when the last one was good, 0 = none was */
	bool taken;	     /* the server took the token of that one at least once */
	int64_t loaded_ms;   /* when the secret was read last */
	unsigned generation; /* counts headers, from 1 */
	int64_t reloaded_ms; /* when the last reading but the first ended, 0 = never */
	bool forced;	     /* a reading is wished that no pause holds up */
	bool reading;	     /* the thread reads or calls waiters */
	bool joinable;	     /* there is a thread to join */
	pthread_t thread;
	struct auth_waits waits;
	enum remote_auth state;
	char message[256], trouble[256]; /* trouble: what was in the way of the last login */
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

	if (!a->user || a->login) {
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

/* The secret from its source. Blocks. */
static int read_secret(struct auth *a, char **ret_secret, char *message, size_t size)
{
	char words[200] = "";
	int r;

	if (a->file) {
		r = auth_read_file(a->file, ret_secret, message, size);
	} else if (a->command) {
		r = auth_run_command(a->command, a->command_timeout_ms, &a->stop, ret_secret, words,
				     sizeof(words));
		if (r < 0)
			snprintf(message, size, "%s=: %s", a->option_command,
				 *words ? words : strerror(-r));
	} else {
		r = read_environment(a, ret_secret, message, size);
	}
	if (r == 0 && strlen(*ret_secret) >= 4)
		log_add_secret(*ret_secret);
	return r;
}

static void session_clear(struct auth_login *s)
{
	wipe_free(s->token);
	wipe_free(s->refresh);
	*s = (struct auth_login){0};
}

/* Takes @header over; gives the one before, to be wiped. */
static char *swap_header_locked(struct auth *a, char *header)
{
	char *old = a->header;

	a->header = header;
	a->generation++;
	a->state = REMOTE_AUTH_UNKNOWN;
	a->message[0] = '\0';
	return old;
}

/* Takes @header over: 1 when it is another one. */
static int set_header(struct auth *a, char *header)
{
	pthread_mutex_lock(&a->lock);
	bool fresh = !a->header || strcmp(a->header, header) != 0;
	char *old = fresh ? swap_header_locked(a, header) : header;
	pthread_mutex_unlock(&a->lock);
	wipe_free(old);
	return fresh;
}

/* 1: another secret than before; 0: the same; or an error. Blocks. */
static int load(struct auth *a, char *message, size_t size)
{
	char *secret = NULL;
	int r = read_secret(a, &secret, message, size);

	pthread_mutex_lock(&a->lock);
	a->loaded_ms = clock_mono_ms();
	pthread_mutex_unlock(&a->lock);
	if (r < 0)
		return r;
	if (a->login) {
		pthread_mutex_lock(&a->lock);
		bool fresh = !a->password || strcmp(a->password, secret) != 0;
		char *old = a->password;
		a->password = secret;
		pthread_mutex_unlock(&a->lock);
		wipe_free(old);
		return fresh;
	}
	char *header = make_header(a, secret);
	wipe_free(secret);
	return header ? set_header(a, header) : -ENOMEM;
}

/*
 * What a login brought becomes the header: 1, or -ENOMEM. Takes @session over. The generation counts
 * up even when it is the token of before, as some servers give: who was refused with that one is not
 * to log in once more.
 */
static int take_session(struct auth *a, struct auth_login *session)
{
	int64_t now = clock_mono_ms(), left = session->expires_mono_ms - now;
	char *header;

	log_add_secret(session->token);
	if (session->refresh)
		log_add_secret(session->refresh);
	header = make_header(a, session->token);
	if (!header) {
		session_clear(session);
		return -ENOMEM;
	}
	pthread_mutex_lock(&a->lock);
	struct auth_login old = a->session;
	a->session = *session;
	a->refused_ms = 0;
	a->login_ms = now;
	a->taken = false;
	a->trouble[0] = '\0';
	a->renew_ms = 0;
	if (session->expires_mono_ms) {
		a->renew_ms = session->expires_mono_ms -
			      (left / 4 < EXPIRY_MARGIN_MS ? left / 4 : EXPIRY_MARGIN_MS);
		if (a->renew_ms < now + LIFE_MIN_MS)
			a->renew_ms = now + LIFE_MIN_MS;
	}
	char *old_header = swap_header_locked(a, header);
	pthread_mutex_unlock(&a->lock);
	session_clear(&old);
	wipe_free(old_header);
	return 1;
}

static bool is_due_locked(const struct auth *a)
{
	return !a->header || (a->renew_ms && clock_mono_ms() >= a->renew_ms);
}

/* The password, or the token it brought, was refused a moment ago. */
static bool is_paused_locked(const struct auth *a)
{
	int64_t now = clock_mono_ms();

	if (a->refused_ms && now - a->refused_ms < COMMAND_PAUSE_MS)
		return true;
	return a->login_ms && !a->taken && !is_due_locked(a) &&
	       now - a->login_ms < COMMAND_PAUSE_MS;
}

/* There is no other secret to be had, for that reason. */
static void note_unread(struct auth *a, const char *why)
{
	char remedy[256], words[512];

	auth_describe_remedy(a, remedy, sizeof(remedy));
	snprintf(words, sizeof(words), "no good %.40s: %.110s; %.90s", a->what, why, remedy);
	auth_note_failed(a, words);
}

/* Read the password again: true when it is another one. One that cannot be read stays as it was. */
static bool reload_password(struct auth *a)
{
	char message[256] = "";
	int r = load(a, message, sizeof(message));

	if (r < 0 && r != -ECANCELED && !a->password)
		note_unread(a, message);
	else if (r < 0 && r != -ECANCELED)
		log_errno(r, "auth: cannot read the %s again: %s", a->what, message);
	return r > 0;
}

static int try_login(struct auth *a, const char *refresh, struct auth_login *session, char *message,
		     size_t size)
{
	int r = -ECANCELED;

	message[0] = '\0';
	if (!a->stop)
		r = a->login(a->remote, a->user, a->password, refresh, &a->stop, session, message,
			     size);
	if (r == 0 && !session->token) {
		snprintf(message, size, "the answer to the login holds no token");
		r = -EIO;
	}
	if (r == 0 && refresh && !session->refresh)
		session->refresh = strdup(refresh); /* good for the next time, too */
	if (r < 0)
		session_clear(session);
	return r;
}

/* It was refused: not to be asked for again. */
static void drop_refresh(struct auth *a)
{
	pthread_mutex_lock(&a->lock);
	char *old = a->session.refresh;
	a->session.refresh = NULL;
	pthread_mutex_unlock(&a->lock);
	wipe_free(old);
}

/*
 * With what the last login left, and where that is refused or nothing, with the password. 1; 0: not
 * tried, since it was refused a moment ago and the password is still the same, or there is none; or an
 * error.
 */
static int log_in(struct auth *a, bool forced, char *message, size_t size)
{
	struct auth_login session = {0};
	char *refresh = NULL;
	int r = -EACCES;

	/* it may have been changed since */
	bool changed = (a->file || (a->command && (forced || !a->password))) && reload_password(a);

	if (!a->password) {
		pthread_mutex_lock(&a->lock);
		a->refused_ms = clock_mono_ms();
		pthread_mutex_unlock(&a->lock);
		return 0;
	}
	pthread_mutex_lock(&a->lock);
	bool paused = !forced && !changed && is_paused_locked(a);
	bool lately = clock_mono_ms() - a->loaded_ms < COMMAND_PAUSE_MS;
	if (a->session.refresh && !changed && !paused)
		refresh = strdup(a->session.refresh);
	pthread_mutex_unlock(&a->lock);
	if (paused)
		return 0;
	if (refresh)
		r = try_login(a, refresh, &session, message, size);
	if (r == -EACCES || r == -EPERM) {
		if (refresh)
			drop_refresh(a);
		if (a->command && !a->file && !lately)
			reload_password(a);
		r = try_login(a, NULL, &session, message, size);
	}
	wipe_free(refresh);
	return r == 0 ? take_session(a, &session) : r;
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
	a->login = c->login;
	a->logout = c->logout;
	a->remote = c->remote;
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
	auth_waits_init(&a->waits, &a->lock);
	a->state = REMOTE_AUTH_UNKNOWN;
	if (copy_config(a, config))
		r = load(a, message, size);
	if (r < 0 && a->command && !a->file && config->may_be_late) {
		note_unread(a, message);
		a->reloaded_ms = a->refused_ms = clock_mono_ms();
		r = 0;
	}
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
	auth_waits_stop(&a->waits);
	pthread_mutex_lock(&a->lock);
	struct auth_login session = a->session;
	a->session = (struct auth_login){0};
	pthread_mutex_unlock(&a->lock);
	if (session.token && a->logout)
		a->logout(a->remote, &session);
	session_clear(&session);
}

void auth_free(struct auth *a)
{
	if (!a)
		return;
	auth_stop(a);
	auth_waits_clear(&a->waits);
	wipe_free(a->header);
	wipe_free(a->password);
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

int auth_get_header(struct auth *a, char **ret_header, unsigned *ret_generation)
{
	int r = -EAGAIN;

	pthread_mutex_lock(&a->lock);
	*ret_generation = a->generation;
	*ret_header = NULL;
	if (!is_due_locked(a)) {
		*ret_header = strdup(a->header);
		r = *ret_header ? 0 : -ENOMEM;
	}
	pthread_mutex_unlock(&a->lock);
	return r;
}

/* The password, and what the last login left, are no good (-EACCES); or something else is. */
static void note_refused(struct auth *a, int error, const char *message)
{
	char remedy[256], words[512];

	pthread_mutex_lock(&a->lock);
	a->refused_ms = clock_mono_ms();
	pthread_mutex_unlock(&a->lock);
	auth_describe_remedy(a, remedy, sizeof(remedy));
	if (error == -EACCES)
		snprintf(words, sizeof(words), "the server refuses the %s of %s: %.100s; %.130s",
			 a->what, a->user, message, remedy);
	else
		snprintf(words, sizeof(words), "cannot log in as %.60s: %.180s", a->user, message);
	auth_note_failed(a, words);
}

static void note_trouble(struct auth *a, int error, const char *message)
{
	char words[512];

	snprintf(words, sizeof(words), "cannot log in as %.80s: %.160s", a->user,
		 *message ? message : strerror(-error));
	pthread_mutex_lock(&a->lock);
	log_redact(words, a->trouble, sizeof(a->trouble));
	pthread_mutex_unlock(&a->lock);
	log_errno(error, "auth: %s", words);
}

/* The result for who waits, see auth_done. */
static int read_again(struct auth *a, bool forced)
{
	char message[256] = "";
	int r = a->login ? log_in(a, forced, message, sizeof(message))
			 : load(a, message, sizeof(message));

	if (r > 0)
		log_info("auth: %s", a->login ? "logged in" : "secret read again: another one");
	if (r >= 0)
		return r;
	if (a->stop)
		return -ECANCELED;
	if (!a->login) {
		note_unread(a, message);
		return 0;
	}
	if (r == -EACCES || r == -EPERM) {
		note_refused(a, r, message);
		return 0;
	}
	/*
	 * What all calls that wait are told: -ENOENT of a login's address must not say of a record
	 * that it is gone.
	 */
	r = call_transfer_errno(r);
	note_trouble(a, r, message);
	return r;
}

/*
 * Whether a reading is worth it now; the lock is held. The file is always read; a command, or a
 * login that was refused, not all the time.
 */
static bool may_read_locked(const struct auth *a)
{
	if (a->stop)
		return false;
	if (a->forced || a->file)
		return true;
	if (a->login)
		return !is_paused_locked(a);
	return !a->command || a->reloaded_ms == 0 ||
	       clock_mono_ms() - a->reloaded_ms >= COMMAND_PAUSE_MS;
}

/*
 * One reading for all who wait by its end; who comes later gets another one. Where one was wished
 * meanwhile that no pause holds up, all wait for that: this one may have read what was there before.
 */
static void *reading_thread(void *arg)
{
	struct auth *a = arg;
	bool go_on = true;

	pthread_setname_np(pthread_self(), "attachfs-auth");
	while (go_on) {
		pthread_mutex_lock(&a->lock);
		bool may_read = may_read_locked(a), forced = a->forced;
		a->forced = false;
		pthread_mutex_unlock(&a->lock);
		int result = may_read ? read_again(a, forced) : a->stop ? -ECANCELED : 0;
		pthread_mutex_lock(&a->lock);
		if (may_read)
			a->reloaded_ms = clock_mono_ms();
		struct auth_wait *waits =
			a->forced && !a->stop ? NULL : auth_waits_take_locked(&a->waits);
		pthread_mutex_unlock(&a->lock);
		auth_waits_tell(waits, result);
		pthread_mutex_lock(&a->lock);
		go_on = a->reading = a->waits.first || (a->forced && !a->stop);
		pthread_mutex_unlock(&a->lock);
	}
	return NULL;
}

/*
 * False: no thread; the lock is held. The thread before has finished but for its return. Signals are
 * for the program's own threads.
 */
static bool start_thread_locked(struct auth *a)
{
	sigset_t all, before;

	if (a->joinable)
		pthread_join(a->thread, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	a->joinable = pthread_create(&a->thread, NULL, reading_thread, a) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	a->reading = a->joinable;
	return a->joinable;
}

/*
 * What to tell at once who is not made to wait; the lock is held. That nothing could be done is no
 * refusal.
 */
static int answer_locked(const struct auth *a, bool fresh)
{
	if (fresh)
		return 1;
	if (a->stop)
		return -ECANCELED;
	return a->login && may_read_locked(a) ? -ENOMEM : 0;
}

static void reload(struct auth *a, unsigned generation, bool forced, int64_t deadline_mono_ms,
		   auth_done *done, void *ctx)
{
	pthread_mutex_lock(&a->lock);
	bool fresh = !forced && a->generation != generation && a->header;
	a->forced |= forced;
	bool wait = !fresh && (a->reading || (may_read_locked(a) && start_thread_locked(a))) &&
		    auth_waits_add_locked(&a->waits, deadline_mono_ms, done, ctx);
	int result = wait ? 0 : answer_locked(a, fresh);
	pthread_mutex_unlock(&a->lock);
	if (!wait)
		done(ctx, result);
}

void auth_reload(struct auth *a, unsigned generation, int64_t deadline_mono_ms, auth_done *done,
		 void *ctx)
{
	reload(a, generation, false, deadline_mono_ms, done, ctx);
}

void auth_note_taken(struct auth *a, unsigned generation)
{
	pthread_mutex_lock(&a->lock);
	a->taken |= generation == a->generation;
	pthread_mutex_unlock(&a->lock);
}

void auth_describe_trouble(struct auth *a, char *out, size_t size)
{
	pthread_mutex_lock(&a->lock);
	snprintf(out, size, "%s", a->trouble);
	pthread_mutex_unlock(&a->lock);
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
	log_redact(message, a->message, sizeof(a->message));
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

void remote_reload_credentials(struct remote *r, bool doubted, remote_reloaded *done, void *ctx)
{
	if (r->auth->login && !doubted)
		done(ctx, 0);
	else
		reload(r->auth, 0, true, 0, done, ctx);
}
