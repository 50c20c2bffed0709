/* SPDX-License-Identifier: MIT */

/*
 * Asks the remote one question after the other and prints a line for each; the answers come on
 * other threads, so each is waited for.
 */

#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <attachfs/log.h>
#include <attachfs/options.h>
#include <attachfs/pool.h>
#include <attachfs/remote.h>
#include <attachfs/transfer.h>
#include <attachfs/waiting.h>

struct answer {
	pthread_mutex_t lock;
	pthread_cond_t came;
	bool there;			       /* lock */
	int error;			       /* lock */
	char message[512];		       /* lock */
	size_t records, files;		       /* lock */
	bool bad;			       /* lock: a finding was */
	struct remote_collection *collections; /* constant once there */
	size_t n_collections;
};

static void on_answer(void *ctx, int error, const char *message)
{
	struct answer *a = ctx;

	pthread_mutex_lock(&a->lock);
	a->there = true;
	a->error = error;
	snprintf(a->message, sizeof(a->message), "%s", message ? message : "");
	pthread_cond_signal(&a->came);
	pthread_mutex_unlock(&a->lock);
}

static bool on_page(void *ctx, struct remote_record *records, size_t n_records,
		    struct remote_file *files, size_t n_files)
{
	struct answer *a = ctx;

	(void)records;
	(void)files;
	pthread_mutex_lock(&a->lock);
	a->records += n_records;
	a->files += n_files;
	pthread_mutex_unlock(&a->lock);
	return true;
}

static int await(struct answer *a)
{
	int error;

	waiting_begin("an answer");
	pthread_mutex_lock(&a->lock);
	while (!a->there)
		pthread_cond_wait(&a->came, &a->lock);
	a->there = false;
	error = a->error;
	pthread_mutex_unlock(&a->lock);
	return error;
}

static const char *remedy(int error)
{
	switch (error) {
	case -EACCES:
		return "check the credentials: token_file=, token_command= or ATTACHFS_TOKEN and "
		       "the "
		       "token's scopes, or user= with password_file= or ATTACHFS_PASSWORD";
	case -EHOSTDOWN:
		return "check the address, the network and proxy=";
	case -ETIMEDOUT:
		return "the server does not answer in time: check the address and the network";
	case -ENOENT:
		return "check the path of the address";
	default:
		return "log=debug shows the calls";
	}
}

/* What to do, after a message that may say so itself: by naming an option. */
static const char *remedy_after(const char *message, int error)
{
	if (!strncmp(message, "TLS:", 4))
		return "check the address, cacert= and this computer's clock";
	return error == -EACCES && strchr(message, '=') ? NULL : remedy(error);
}

static bool report(const char *what, int error, const struct answer *a)
{
	if (!error) {
		printf("ok    %s%s%s\n", what, *a->message ? ": " : "", a->message);
		return true;
	}
	const char *then = remedy_after(a->message, error);
	printf("FAIL  %s: %s%s%s\n", what, strerror(-error), *a->message ? ": " : "", a->message);
	if (then)
		printf("      -> %s\n", then);
	return false;
}

static bool check_collection(struct remote *r, struct answer *a, const char *id, const char *name)
{
	struct remote_sink sink = {on_page, on_answer, a};
	char what[512];
	int error;

	if (r->caps.unlisted_collection && !strcmp(id, r->caps.unlisted_collection))
		return true; /* nobody can tell what is in it */
	a->records = a->files = 0;
	*a->message = '\0';
	error = r->ops->list_tree(r, TRANSFER_INTERACTIVE, id, &sink);
	if (!error)
		error = await(a);
	if (!strcmp(id, name))
		snprintf(what, sizeof(what), "list %s", id);
	else
		snprintf(what, sizeof(what), "list %s (%s)", name, id);
	if (!report(what, error, a)) {
		printf("      %zu records, %zu attachments came before that\n", a->records,
		       a->files);
		return false;
	}
	printf("      %zu records, %zu attachments\n", a->records, a->files);
	return true;
}

const char *check_collections(const struct remote *r, const struct options *o)
{
	return o->collections ? o->collections : r->caps.default_collections;
}

int check_missing(const struct remote *r, const struct options *o, char *message, size_t size)
{
	if (check_collections(r, o) || r->ops->list_collections)
		return 0;
	snprintf(message, size, "%s does not tell what it holds: say collections=A:B ...",
		 o->source);
	return -EINVAL;
}

/* ---- the remote's own findings ---- */

static void on_finding(void *ctx, enum remote_verdict verdict, const char *topic, const char *text)
{
	static const char *const words[] = {"ok   ", "note ", "FAIL "};
	struct answer *a = ctx;

	pthread_mutex_lock(&a->lock);
	a->bad |= verdict == REMOTE_BAD;
	pthread_mutex_unlock(&a->lock);
	printf("%s %s: %s\n", words[verdict], topic, text);
}

/* False: it is no use to go on. What it says of less is in @a->bad. */
static bool check_server(struct remote *r, struct answer *a)
{
	int error = r->ops->check ? r->ops->check(r, on_finding, on_answer, a)
				  : r->ops->probe(r, TRANSFER_INTERACTIVE, on_answer, a);

	if (!error)
		error = await(a);
	if (error || !r->ops->check)
		return report("server and credentials", error, a);
	return true;
}

/* ---- collections ---- */

static void on_collections(void *ctx, int error, const struct remote_collection *list, size_t n,
			   const char *message)
{
	struct answer *a = ctx;
	struct remote_collection *copy = calloc(n + 1, sizeof(*copy));

	for (size_t i = 0; copy && i < n && !error; i++) {
		copy[i].id = strdup(list[i].id);
		copy[i].name = strdup(list[i].name);
		a->n_collections = i + 1;
	}
	a->collections = copy;
	on_answer(a, copy ? error : -ENOMEM, message);
}

static void forget_collections(struct answer *a)
{
	for (size_t i = 0; i < a->n_collections; i++) {
		free(a->collections[i].id);
		free(a->collections[i].name);
	}
	free(a->collections);
	a->collections = NULL;
	a->n_collections = 0;
}

/* Those the server tells; what each is called besides its id. */
static bool check_told(struct remote *r, struct answer *a)
{
	char what[64];
	int error;
	bool ok;

	*a->message = '\0';
	error = r->ops->list_collections(r, TRANSFER_INTERACTIVE, on_collections, a);
	if (!error)
		error = await(a);
	snprintf(what, sizeof(what), "collections: %zu", a->n_collections);
	ok = report(error ? "collections" : what, error, a);
	for (size_t i = 0; i < a->n_collections; i++) {
		const struct remote_collection *c = &a->collections[i];

		if (c->id && c->name)
			ok = check_collection(r, a, c->id, c->name) && ok;
	}
	forget_collections(a);
	return ok;
}

static bool check_named(struct remote *r, struct answer *a, const char *collections)
{
	char *list = strdup(collections), *save = NULL;
	bool ok = list != NULL;

	for (char *id = list ? strtok_r(list, ":", &save) : NULL; id;
	     id = strtok_r(NULL, ":", &save))
		ok = check_collection(r, a, id, id) && ok;
	free(list);
	return ok;
}

static bool check_all(struct remote *r, const struct options *o)
{
	struct answer a = {.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER};
	const char *collections = check_collections(r, o);
	char message[512];
	bool ok;

	if (check_missing(r, o, message, sizeof(message)) < 0) {
		printf("FAIL  collections: %s\n", message);
		return false;
	}
	if (!check_server(r, &a))
		return false;
	ok = collections ? check_named(r, &a, collections) : check_told(r, &a);
	return ok && !a.bad;
}

static int run_checks(const struct options *o)
{
	struct engine_config config = {.origin = o->base_url,
				       .slots = o->slots,
				       .cacert = o->cacert,
				       .proxy = o->proxy,
				       .insecure_http = o->insecure_http,
				       .connect_timeout_ms = 10000,
				       .stall_ms = (unsigned)(o->timeout_s * 1000)};
	char message[1024] = "";
	struct pool *pool = NULL;
	struct engine *engine = NULL;
	struct remote *remote = NULL;
	bool ok = false;
	int r = pool_new(1, &pool);

	/* each line as it comes: an answer may take its time */
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("      %s\n", o->base_url);
	if (!r)
		r = engine_new(&config, &engine);
	if (!r)
		r = remote_new(o, engine, pool, &remote, message, sizeof(message));
	if (r < 0)
		printf("FAIL  start: %s\n", *message ? message : strerror(-r));
	else
		ok = check_all(remote, o);
	if (remote)
		remote_shutdown(remote);
	engine_free(engine);
	pool_free(pool);
	remote_free(remote);
	return ok ? 0 : 1;
}

int check_run(int argc, char **argv)
{
	char message[1024] = "";
	const char *source = NULL;
	struct options o;
	int r = options_init(&o);

	for (int i = 1; i < argc; i++)
		if (argv[i][0] != '-')
			source = argv[i];
		else if (!strncmp(argv[i], "-o", 2) && !argv[i][2])
			i++;
	if (!source) {
		fprintf(stderr, "usage: attachfs check [-o opt,...] SOURCE\n");
		options_clear(&o);
		return 2;
	}
	r = options_set_source(&o, source, message, sizeof(message));
	for (int i = 1; i < argc && !r; i++) {
		if (strncmp(argv[i], "-o", 2))
			continue;
		r = options_set_list(&o,
				     argv[i][2]	    ? argv[i] + 2
				     : i + 1 < argc ? argv[++i]
						    : "",
				     message, sizeof(message));
	}
	if (!r)
		r = options_finish(&o, message, sizeof(message));
	if (!r)
		r = log_open(o.log_file,
			     o.log_file || o.log > LOG_LEVEL_INFO ? o.log : LOG_LEVEL_ERROR);
	if (r < 0) {
		fprintf(stderr, "attachfs: %s\n", *message ? message : strerror(-r));
		options_clear(&o);
		return 2;
	}
	r = run_checks(&o);
	options_clear(&o);
	return r;
}

/* ---- before the first mount ---- */

/* Outlives whoever gives up waiting for it. */
struct first {
	struct answer answer;
	bool abandoned; /* answer.lock */
};

static void first_free(struct first *f)
{
	pthread_cond_destroy(&f->answer.came);
	pthread_mutex_destroy(&f->answer.lock);
	free(f);
}

static void on_first(void *ctx, int error, const char *message)
{
	struct first *f = ctx;
	bool abandoned;

	pthread_mutex_lock(&f->answer.lock);
	abandoned = f->abandoned;
	f->answer.there = true;
	f->answer.error = error;
	snprintf(f->answer.message, sizeof(f->answer.message), "%s", message ? message : "");
	pthread_cond_signal(&f->answer.came);
	pthread_mutex_unlock(&f->answer.lock);
	if (abandoned)
		first_free(f);
}

/* The answer's error, 0 when none came in time; frees @f, or leaves it to the late answer. */
static int await_first(struct first *f, char *message, size_t size)
{
	struct timespec until;
	int error = 0;
	bool there;

	waiting_begin("the first call");
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += CHECK_FIRST_MS / 1000;
	pthread_mutex_lock(&f->answer.lock);
	while (!f->answer.there &&
	       pthread_cond_timedwait(&f->answer.came, &f->answer.lock, &until) == 0)
		;
	there = f->answer.there;
	f->abandoned = !there;
	if (there) {
		error = f->answer.error;
		snprintf(message, size, "%s", f->answer.message);
	}
	pthread_mutex_unlock(&f->answer.lock);
	if (there)
		first_free(f);
	return error;
}

int check_first_mount(struct remote *r, const struct options *o, char *message, size_t size)
{
	char words[512] = "", auth[256];
	struct first *f = calloc(1, sizeof(*f));
	pthread_condattr_t attr;
	int error;

	if (!f)
		return -ENOMEM;
	pthread_mutex_init(&f->answer.lock, NULL);
	/* the time of day may be set while one waits */
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->answer.came, &attr);
	pthread_condattr_destroy(&attr);
	error = r->ops->probe(r, TRANSFER_INTERACTIVE, on_first, f);
	if (error < 0)
		first_free(f);
	else
		error = await_first(f, words, sizeof(words));
	if (error != -EHOSTDOWN &&
	    !(error == -EACCES && remote_get_auth(r, auth) == REMOTE_AUTH_FAILED))
		return 0;
	const char *then = remedy_after(words, error);
	snprintf(message, size, "%s: %s%s%s", o->base_url, *words ? words : strerror(-error),
		 then ? "  -> " : "", then ? then : "");
	return error;
}
