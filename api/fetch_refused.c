/* SPDX-License-Identifier: MIT */

/*
 * What a fetch does when it was refused: a new credential, a new link, another way to ask, or the end,
 * with the server's words in the log. See fetch.c.
 */

#include "fetch_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>
#include <attachfs/pool.h>

#include "auth.h"
#include "call.h"
#include "json.h"

static void on_renewed(void *ctx, int error, const struct remote_file *now, bool remembered)
{
	struct fetch *f = ctx;

	if (error == 0 && strcmp(now->version, f->file.version) != 0) {
		if (remembered) {
			fetch_renew(f, true);
			return;
		}
		error = -ESTALE;
	}
	if (error == 0 && !now->url) {
		log_error("read attachment %s: the server gives no link to its bytes", f->file.id);
		error = -EIO;
	}
	char *url = error == 0 ? strdup(now->url) : NULL;
	if (error == 0 && !url)
		error = -ENOMEM;
	if (error < 0) {
		fetch_end(f, error);
		return;
	}
	free(f->file.url);
	f->file.url = url;
	f->link = remembered ? REMEMBERED : FRESH;
	fetch_send_or_end(f);
}

void fetch_renew(struct fetch *f, bool fresh)
{
	pthread_mutex_lock(&f->table->lock);
	enum transfer_class class = f->class;
	pthread_mutex_unlock(&f->table->lock);
	f->source->renew(f->remote, class, f->file.id, f->file.url, fresh, f->deadline_mono_ms,
			 on_renewed, f);
}

/* The credential is no good and there is no other. */
static void end_refused(struct fetch *f)
{
	char message[256], remedy[200];
	enum remote_auth state = remote_get_auth(f->remote, message);

	if (state != REMOTE_AUTH_FAILED) {
		auth_describe_remedy(f->remote->auth, remedy, sizeof(remedy));
		snprintf(message, sizeof(message), "the server refuses the credentials; %s",
			 remedy);
		auth_note_failed(f->remote->auth, message);
	}
	fetch_end(f, -EACCES);
}

static bool is_cancelled(struct fetch *f)
{
	pthread_mutex_lock(&f->table->lock);
	bool cancelled = f->cancelled;
	pthread_mutex_unlock(&f->table->lock);
	return cancelled;
}

static void login_job(void *ctx)
{
	struct fetch *f = ctx;

	if (is_cancelled(f))
		fetch_end(f, -ECANCELED);
	else if (f->login > 0)
		fetch_send_or_end(f);
	else if (f->login < 0)
		fetch_end(f, f->login);
	else
		end_refused(f);
}

/* After a login, or when it took too long: on a thread of auth's, which must only pass on. */
static void on_login(void *ctx, int result)
{
	struct fetch *f = ctx;

	pthread_mutex_lock(&f->table->lock);
	bool waiting = f->waiting;
	f->waiting = false;
	pthread_mutex_unlock(&f->table->lock);
	if (waiting) {
		f->login = result;
		if (pool_run(f->remote->pool, login_job, f) < 0)
			fetch_end(f, -ENOMEM);
	}
	fetch_unref(f);
}

void fetch_log_in(struct fetch *f)
{
	f->logged_in = true;
	pthread_mutex_lock(&f->table->lock);
	bool cancelled = f->cancelled;
	if (!cancelled) {
		f->waiting = true;
		f->refs++;
	}
	pthread_mutex_unlock(&f->table->lock);
	if (cancelled)
		fetch_end(f, -ECANCELED);
	else
		auth_reload(f->remote->auth, f->generation, f->deadline_mono_ms, on_login, f);
}

/* Another way to ask for the same, if there is one that was not tried. */
static bool switch_source(struct fetch *f, int status)
{
	const struct fetch_source *other =
		f->source->instead && !f->switched ? f->source->instead(f->remote, status) : NULL;

	if (!other)
		return false;
	f->switched = true;
	f->source = other;
	fetch_send_or_end(f);
	return true;
}

/* Where others say 401, some servers say another status, and why. */
static bool is_about_credential(const struct fetch *f, int status)
{
	return f->source->refusal_words && (status == 400 || status == 403) &&
	       strcasestr(f->error_words, f->source->refusal_words);
}

/* One line in the log, with the server's words and what to do about it. */
static void tell_refusal(const struct fetch *f, int status)
{
	bool missing = status == 404 || status == 405 || status == 410;
	const char *remedy = missing && f->source->remedy ? f->source->remedy : "";
	json_t *body = json_parse(f->error_words, strlen(f->error_words), NULL, 0);
	char words[200];
	bool gone;

	call_find_words(body, f->error_words, strlen(f->error_words), words, sizeof(words));
	json_decref(body);
	/* deleted by somebody meanwhile, and the program is told so: no failure of anything */
	gone = missing && (f->source->unsure || (!*remedy && status != 405));
	log_line(gone ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR,
		 "read attachment %s: the storage answered with status %d%s%s%s%s", f->file.id,
		 status, *words ? ": " : "", words, *remedy ? "; " : "", remedy);
}

void fetch_after_refusal(struct fetch *f, int status)
{
	if (is_about_credential(f, status))
		status = 401;
	bool renewable = f->source->renew && (status == 400 || status == 401 || status == 403 ||
					      status == 404 || status == 410);
	bool gone = status == 404 || status == 410;

	if (f->source->credential && status == 401 && !f->logged_in) {
		fetch_log_in(f);
		return;
	}
	if (switch_source(f, status))
		return;
	if (renewable && f->link != FRESH) {
		/* Memory knows links, not whether the file is still there. */
		fetch_renew(f, f->link == REMEMBERED || gone);
		return;
	}
	tell_refusal(f, status);
	if (f->source->credential && status == 401) {
		end_refused(f);
		return;
	}
	/*
	 * Where links are renewed the file is there, as that has just said: its bytes are not, which
	 * is not the same as gone.
	 */
	fetch_end(f,
		  (gone && f->source->renew) || status == 400 ? -EIO : call_status_errno(status));
}

void fetch_after_login_page(struct fetch *f)
{
	if (f->logged_in)
		end_refused(f);
	else
		fetch_log_in(f);
}
