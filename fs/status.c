/* SPDX-License-Identifier: MIT */

/*
 * Gathers numbers from everywhere under their own locks, one after the other, and prints them with
 * jansson.
 */

#include "status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/waiting.h>

#include "mount.h"
#include "sync.h"
#include "version.h"
#include "worker.h"

const char *status_state_name(enum engine_state state)
{
	switch (state) {
	case ENGINE_OFFLINE:
		return "offline";
	case ENGINE_THROTTLED:
		return "throttled";
	case ENGINE_ONLINE:
		break;
	}
	return "online";
}

const char *status_state(struct mount *m)
{
	char message[256];

	if (remote_get_auth(m->remote, message) == REMOTE_AUTH_FAILED)
		return "auth";
	return status_state_name(engine_get_state(m->engine, NULL));
}

static json_t *text(const char *s)
{
	json_t *j = json_string(s);

	return j ? j : json_string("(not UTF-8)");
}

static void add_endpoint(void *ctx, const struct engine_counter *c)
{
	json_object_set_new(ctx, c->endpoint, json_integer((json_int_t)c->requests));
}

static json_t *requests(struct mount *m)
{
	struct engine_counter total = {0};
	json_t *by = json_object();

	engine_count(m->engine, add_endpoint, by, &total);
	return json_pack("{s:I, s:I, s:I, s:o}", "total", (json_int_t)total.requests, "bytes_sent",
			 (json_int_t)total.bytes_sent, "bytes_received",
			 (json_int_t)total.bytes_received, "by_endpoint", by);
}

void status_time(int64_t real_ns, char *out, size_t size)
{
	time_t s = (time_t)(real_ns / CLOCK_NS_PER_S);
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void set_until(json_t *o, int64_t until_ns)
{
	char when[32];

	if (!until_ns)
		return;
	status_time(until_ns, when, sizeof(when));
	json_object_set_new(o, "until", json_string(when));
}

static void set_state(struct mount *m, json_t *o)
{
	char message[256] = "";
	int64_t until_ns = 0;
	enum engine_state state = engine_get_state(m->engine, &until_ns);

	if (remote_get_auth(m->remote, message) == REMOTE_AUTH_FAILED) {
		json_object_set_new(o, "state", json_string("auth"));
		json_object_set_new(o, "message", text(message));
		return;
	}
	json_object_set_new(o, "state", json_string(status_state_name(state)));
	if (state == ENGINE_THROTTLED)
		set_until(o, until_ns);
	engine_describe_trouble(m->engine, message, sizeof(message));
	if (*message)
		json_object_set_new(o, "message", text(message));
}

char *status_json(struct mount *m)
{
	struct sync_counts c;
	struct content_usage u;
	json_t *o = json_object();
	char *dump, *line = NULL;

	sync_get_counts(m->sync, &c);
	content_store_usage(m->store, &u);
	set_state(m, o);
	json_object_set_new(o, "pending",
			    json_pack("{s:I, s:I, s:I, s:I}", "uploads", (json_int_t)c.uploads,
				      "renames", (json_int_t)c.renames, "deletes",
				      (json_int_t)c.deletes, "bytes", (json_int_t)c.bytes));
	json_object_set_new(o, "failed", json_integer((json_int_t)c.failed));
	json_object_set_new(o, "cache",
			    json_pack("{s:I, s:I, s:I, s:I}", "bytes", (json_int_t)u.bytes, "limit",
				      (json_int_t)u.limit_bytes, "dirty", (json_int_t)u.dirty_bytes,
				      "lost", (json_int_t)u.lost_files));
	if (ledger_get_trouble(m->ledger))
		json_object_set_new(json_object_get(o, "cache"), "error",
				    json_string(strerror(-ledger_get_trouble(m->ledger))));
	json_object_set_new(o, "requests", requests(m));
	json_object_set_new(o, "parked_calls", json_integer(calls_parked(m->calls)));
	json_object_set_new(o, "source", text(m->options->source));
	json_object_set_new(o, "pid", json_integer(getpid()));
	json_object_set_new(o, "version", json_string(ATTACHFS_VERSION));
	dump = json_dumps(o, JSON_INDENT(2));
	json_decref(o);
	if (dump && asprintf(&line, "%s\n", dump) < 0)
		line = NULL;
	free(dump);
	return line;
}

/* ---- metrics ---- */

static void print_endpoint(void *ctx, const struct engine_counter *c)
{
	fprintf(ctx, "attachfs_requests_total{endpoint=\"%s\"} %llu\n", c->endpoint,
		(unsigned long long)c->requests);
}

static void print_metric(FILE *f, const char *name, const char *kind, const char *help,
			 uint64_t value)
{
	fprintf(f, "# HELP attachfs_%s %s\n# TYPE attachfs_%s %s\nattachfs_%s %llu\n", name, help,
		name, kind, name, (unsigned long long)value);
}

char *status_metrics(struct mount *m)
{
	struct engine_counter total = {0};
	struct sync_counts c;
	struct content_usage u;
	char *out = NULL;
	size_t size;
	unsigned busy;
	int64_t longest_ms;
	FILE *f = open_memstream(&out, &size);

	if (!f)
		return NULL;
	sync_get_counts(m->sync, &c);
	content_store_usage(m->store, &u);
	print_metric(f, "online", "gauge", "1 while the server is reachable",
		     engine_get_state(m->engine, NULL) != ENGINE_OFFLINE);
	print_metric(f, "pending_uploads", "gauge", "files to upload", c.uploads);
	print_metric(f, "pending_renames", "gauge", "names and attributes to send", c.renames);
	print_metric(f, "pending_deletes", "gauge", "files to delete", c.deletes);
	print_metric(f, "pending_bytes", "gauge", "bytes to upload", c.bytes);
	print_metric(f, "failed", "gauge", "items that wait for the user", c.failed);
	print_metric(f, "cache_bytes", "gauge", "bytes in the content store", u.bytes);
	print_metric(f, "cache_limit_bytes", "gauge", "what the content store may hold",
		     u.limit_bytes);
	print_metric(f, "cache_dirty_bytes", "gauge", "bytes in it that the server does not have",
		     u.dirty_bytes);
	if (worker_usage(&busy, &longest_ms)) {
		print_metric(f, "workers_busy", "gauge", "threads at a call of a program", busy);
		print_metric(f, "worker_longest_milliseconds", "gauge",
			     "longest that one was, the network's share parked",
			     (uint64_t)longest_ms);
	}
	print_metric(f, "forbidden_waits_total", "counter",
		     "waits for the network in a thread that must not", waiting_forbidden_count());
	print_metric(f, "parked_calls", "gauge", "calls of programs that wait for the network",
		     calls_parked(m->calls));
	fputs("# HELP attachfs_requests_total HTTP requests sent\n# TYPE attachfs_requests_total "
	      "counter\n",
	      f);
	engine_count(m->engine, print_endpoint, f, &total);
	print_metric(f, "sent_bytes_total", "counter", "body bytes sent", total.bytes_sent);
	print_metric(f, "received_bytes_total", "counter", "body bytes received",
		     total.bytes_received);
	fclose(f);
	return out;
}

/* ---- items ---- */

static json_t *path_of(struct tree *t, const struct node *n)
{
	char path[NODE_PATH_MAX];

	node_path(t, n, path);
	return text(path);
}

struct items {
	struct tree *tree;
	FILE *f;
};

static void print_json(FILE *f, json_t *o)
{
	json_dumpf(o, f, JSON_COMPACT);
	fputc('\n', f);
	json_decref(o);
}

static void print_item(void *ctx, const struct node *n, const char *what)
{
	struct items *i = ctx;
	json_t *o = json_object();

	json_object_set_new(o, "path", path_of(i->tree, n));
	json_object_set_new(o, "what", json_string(what));
	if (n->size >= 0)
		json_object_set_new(o, "size", json_integer(n->size));
	if (n->busy)
		json_object_set_new(o, "in_flight", json_true());
	if (n->error)
		json_object_set_new(o, "error", json_string(strerror(-n->error)));
	if (n->more->message)
		json_object_set_new(o, "message", text(n->more->message));
	print_json(i->f, o);
}

char *status_items(struct mount *m, bool parked)
{
	char *out = NULL;
	size_t size;
	struct items i = {m->tree, open_memstream(&out, &size)};

	if (!i.f)
		return NULL;
	sync_each(m->sync, parked, print_item, &i);
	fclose(i.f);
	return out;
}

char *status_conflicts(struct mount *m)
{
	char *out = NULL;
	size_t size;
	FILE *f = open_memstream(&out, &size);

	if (!f)
		return NULL;
	tree_lock(m->tree);
	for (const struct node *top = node_dir(m->tree->root)->child_first; top;
	     top = top->sibling_next)
		for (const struct node *dir = node_dir(top)->child_first; dir;
		     dir = dir->sibling_next)
			for (const struct node *n = node_dir(dir)->child_first; n;
			     n = n->sibling_next)
				if (strstr(n->shown, " (conflict "))
					print_json(f,
						   json_pack("{s:o}", "path", path_of(m->tree, n)));
	tree_unlock(m->tree);
	fclose(f);
	return out;
}
