/* SPDX-License-Identifier: MIT */

/*
 * .attachfs/: the mount as files. Reading status, metrics, pending, failed and conflicts gives a
 * picture taken at open; events follows; control takes one command line per handle and answers in
 * JSON lines until it is done:
 *
 *	sync [INODE]    progress until all that was pending at the start is on the server; last line {"done":true,"failed":n}
 *	refresh [INODE] asks the server for changes now
 *	retry           reads the credentials again, and sends parked items again
 *	verify [INODE]  compares what is cached with its hashes; last line {"done":true,"files":n,"bytes":n,"bad":n}
 *	drop [INODE]    forgets what is cached and neither open, pinned nor dirty; {..., "kept":n}
 *
 * With INODE only what is at that inode and below it. A command begins when it is written; who only wants it done need not read the answer. All are
 * owned by the mounting user, mode 0400 or 0600, and read past the page cache. Streams are handed
 * out in whatever pieces the reader asks for.
 *
 * Order: control->lock, tree->lock, the locks of calls and events.
 */

#include "ops.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "control_command.h"
#include "events.h"
#include "lister.h"
#include "notifier.h"
#include "status.h"
#include "survey.h"
#include "sync.h"

#define CONTROL_DIR 2
#define COMMAND_MAX 64
#define PROGRESS_MS 200

enum control_ino {
	CONTROL_STATUS = 3,
	CONTROL_PENDING,
	CONTROL_FAILED,
	CONTROL_EVENTS,
	CONTROL_METRICS,
	CONTROL_CONTROL,
	CONTROL_CONFLICTS,
	/*
	 * the commands as files to read, not listed: control cannot be written in a read-only mount
	 */
	CONTROL_DO_SYNC,
	CONTROL_DO_REFRESH,
	CONTROL_DO_RETRY,
	CONTROL_DO_VERIFY,
	CONTROL_DO_DROP,
	CONTROL_CACHE, /* not listed either: they take a walk over the tree */
	CONTROL_RECORDS,
	CONTROL_HINT,  /* in the root */
};

static const struct {
	const char *name;
	uint64_t ino;
	mode_t mode;
} entries[] = {
	{"status", CONTROL_STATUS, 0400},
	{"pending", CONTROL_PENDING, 0400},
	{"failed", CONTROL_FAILED, 0400},
	{"events", CONTROL_EVENTS, 0400},
	{"metrics", CONTROL_METRICS, 0400},
	{"control", CONTROL_CONTROL, 0600},
	{"conflicts", CONTROL_CONFLICTS, 0400},
	{"control.sync", CONTROL_DO_SYNC, 0400},
	{"control.refresh", CONTROL_DO_REFRESH, 0400},
	{"control.retry", CONTROL_DO_RETRY, 0400},
	{"control.verify", CONTROL_DO_VERIFY, 0400},
	{"control.drop", CONTROL_DO_DROP, 0400},
	{"cache", CONTROL_CACHE, 0400},
	{"records", CONTROL_RECORDS, 0400},
};

#define LISTED_ENTRIES 7

struct control {
	struct opened opened;
	pthread_mutex_t lock;
	struct mount *m;
	char *text; /* lock: a picture, or the answer lines not read yet */
	size_t len;
	enum control_command command; /* lock */
	bool started, done;	      /* lock */
	bool told;		      /* lock: sync gave its first line */
	bool closed;		      /* lock: a refresh or retry still on its way frees it */
	unsigned busy;		      /* lock: callbacks that will come */
	uint64_t mark;		      /* lock; sync: what had changed when it began */
	uint64_t node;		      /* lock; all but retry: only at or below it, 0 = all */
	/* the job's, of verify and drop */
	struct survey *survey; /* NULL = none */
	int64_t told_ms;       /* the last line of progress */
	/* lock: events; so much more of the stream than of what this reader was given lies before */
	uint64_t events_skipped;
};

static struct control *control_of(uint64_t fh)
{
	return (struct control *)(uintptr_t)fh;
}

const char *control_entry(size_t index, uint64_t *ret_ino)
{
	if (index >= LISTED_ENTRIES)
		return NULL;
	*ret_ino = entries[index].ino;
	return entries[index].name;
}

/* What tells an indexer to leave a directory, and all below it, alone: empty files of these names. */
static bool is_hint(const char *name)
{
	return !strcmp(name, ".trackerignore") || !strcmp(name, ".nomedia") ||
	       !strcmp(name, ".metadata_never_index");
}

uint64_t control_lookup(uint64_t parent, const char *name)
{
	if (parent == NODE_ID_ROOT)
		return !strcmp(name, ".attachfs") ? CONTROL_DIR : is_hint(name) ? CONTROL_HINT : 0;
	for (size_t i = 0; parent == CONTROL_DIR && i < sizeof(entries) / sizeof(entries[0]); i++)
		if (!strcmp(entries[i].name, name))
			return entries[i].ino;
	return 0;
}

int control_stat(const struct mount *m, uint64_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_uid = m->tree->uid;
	st->st_gid = m->tree->gid;
	st->st_nlink = 1;
	st->st_mtim.tv_sec = st->st_ctim.tv_sec = st->st_atim.tv_sec =
		m->started_ns / CLOCK_NS_PER_S;
	if (ino == CONTROL_DIR) {
		st->st_mode = S_IFDIR | 0500;
		st->st_nlink = 2;
		return 0;
	}
	if (ino == CONTROL_HINT) {
		st->st_mode = S_IFREG | 0444;
		return 0;
	}
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
		if (entries[i].ino == ino) {
			st->st_mode = S_IFREG | entries[i].mode;
			if (ino == CONTROL_EVENTS)
				st->st_size = (off_t)events_size(m->events);
			return 0;
		}
	return -ENOENT;
}

static void free_control(struct control *k)
{
	pthread_mutex_destroy(&k->lock);
	free(k->text);
	free(k);
}

static char *picture(struct mount *m, uint64_t ino)
{
	switch (ino) {
	case CONTROL_STATUS:
		return status_json(m);
	case CONTROL_METRICS:
		return status_metrics(m);
	case CONTROL_PENDING:
		return status_items(m, false);
	case CONTROL_FAILED:
		return status_items(m, true);
	case CONTROL_CONFLICTS:
		return status_conflicts(m);
	case CONTROL_CACHE:
		return survey_usage(m);
	case CONTROL_RECORDS:
		return survey_records(m);
	default:
		return strdup("");
	}
}

static enum control_command command_of(uint64_t ino)
{
	return ino == CONTROL_DO_SYNC	   ? CONTROL_COMMAND_SYNC
	       : ino == CONTROL_DO_REFRESH ? CONTROL_COMMAND_REFRESH
	       : ino == CONTROL_DO_RETRY   ? CONTROL_COMMAND_RETRY
	       : ino == CONTROL_DO_VERIFY  ? CONTROL_COMMAND_VERIFY
	       : ino == CONTROL_DO_DROP	   ? CONTROL_COMMAND_DROP
					   : CONTROL_COMMAND_NONE;
}

static bool is_stream(uint64_t ino)
{
	return ino == CONTROL_CONTROL || command_of(ino) != CONTROL_COMMAND_NONE;
}

static void control_left(struct mount *m, struct opened *o)
{
	control_release(m, (uintptr_t)o);
}

void control_open(fuse_req_t req, struct mount *m, uint64_t ino, struct fuse_file_info *fi)
{
	struct control *k;

	/* root is not held back by the mode */
	if ((fi->flags & O_ACCMODE) != O_RDONLY && ino != CONTROL_CONTROL) {
		fuse_reply_err(req, EACCES);
		return;
	}
	k = calloc(1, sizeof(*k));
	if (k) {
		k->m = m;
		pthread_mutex_init(&k->lock, NULL);
		k->text = picture(m, ino);
		k->len = k->text ? strlen(k->text) : 0;
		k->command = command_of(ino);
	}
	if (!k || !k->text) {
		if (k)
			free_control(k);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fi->fh = (uintptr_t)k;
	fi->direct_io = 1;
	fi->nonseekable = is_stream(ino);
	mount_opened_add(m, &k->opened, control_left);
	if (fuse_reply_open(req, fi) < 0)
		control_release(m, fi->fh);
}

void control_release(struct mount *m, uint64_t fh)
{
	struct control *k = control_of(fh);
	bool busy;

	mount_opened_remove(m, &k->opened);
	pthread_mutex_lock(&k->lock);
	k->closed = true;
	busy = k->busy > 0;
	pthread_mutex_unlock(&k->lock);
	if (!busy)
		free_control(k);
}

/* ---- commands ---- */

__attribute__((format(printf, 2, 3))) static void add_line_locked(struct control *k,
								  const char *format, ...)
{
	char line[512], *bigger;
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	bigger = n > 0 ? realloc(k->text, k->len + (size_t)n + 1) : NULL;
	if (!bigger)
		return;
	memcpy(bigger + k->len, line, (size_t)n + 1);
	k->text = bigger;
	k->len += (size_t)n;
}

/* What began with busy++ is over: @line says so to who reads. */
static void finish_command(struct control *k, const char *line)
{
	struct mount *m = k->m;
	bool closed;

	pthread_mutex_lock(&k->lock);
	k->busy--;
	k->done = true;
	add_line_locked(k, "%s", line);
	closed = k->closed && !k->busy;
	pthread_mutex_unlock(&k->lock);
	if (closed)
		free_control(k);
	else
		calls_wake(m->calls, CALL_WAIT_CONTROL, (uintptr_t)k, 0);
}

static void finish_refresh(void *ctx)
{
	finish_command(ctx, "{\"done\":true}\n");
}

static void on_refreshed(void *ctx, int error)
{
	struct control *k = ctx;
	char line[128];

	if (!error) {
		/* who looks next sees it */
		notifier_after(k->m->notifier, finish_refresh, k);
		return;
	}
	snprintf(line, sizeof(line), "{\"done\":true,\"error\":\"%s\"}\n", strerror(-error));
	finish_command(k, line);
}

static void retry_job(void *ctx)
{
	struct control *k = ctx;
	char line[64];

	snprintf(line, sizeof(line), "{\"done\":true,\"retried\":%u}\n", sync_retry(k->m->sync, 0));
	finish_command(k, line);
}

/* What was refused may have been so for the credentials, so those come first. */
static void on_reloaded(void *ctx, int result)
{
	struct control *k = ctx;

	(void)result; /* as good or bad as before: the calls will tell */
	if (pool_run(k->m->pool, retry_job, k) < 0)
		retry_job(k);
}

static void note_refusal(void *ctx, const struct node *n, const char *what)
{
	(void)what;
	*(bool *)ctx |= n->error == -EACCES;
}

/* Something was refused for want of a right, or the credentials themselves. */
static bool are_credentials_doubted(struct mount *m)
{
	char message[256];
	bool doubted = remote_get_auth(m->remote, message) == REMOTE_AUTH_FAILED;

	sync_each(m->sync, true, note_refusal, &doubted);
	return doubted;
}

/* One line of verify's or drop's progress, or its last. */
static void add_survey_locked(struct control *k, const struct survey_counts *s, bool done)
{
	add_line_locked(
		k, "{\"done\":%s,\"files\":%llu,\"bytes\":%llu,\"bad\":%llu,\"kept\":%llu}\n",
		done ? "true" : "false", (unsigned long long)s->files, (unsigned long long)s->bytes,
		(unsigned long long)s->bad, (unsigned long long)s->kept);
}

/*
 * A step of verify or drop; the next one waits behind what others have for the thread. Ends with the
 * last file, when the reader has gone, or with the mount.
 */
static void survey_job(void *ctx)
{
	struct control *k = ctx;
	struct survey_counts counts;
	bool more = survey_step(k->survey, &counts);
	bool tell = clock_mono_ms() - k->told_ms >= PROGRESS_MS;

	pthread_mutex_lock(&k->lock);
	more = more && !k->closed && !atomic_load(&k->m->served);
	if (more && tell && !k->len)
		add_survey_locked(k, &counts, false);
	pthread_mutex_unlock(&k->lock);
	if (more && tell) {
		k->told_ms = clock_mono_ms();
		calls_wake(k->m->calls, CALL_WAIT_CONTROL, (uintptr_t)k, 0);
	}
	if (more && pool_run(k->m->disk_pool, survey_job, k) == 0)
		return;
	survey_free(k->survey);
	k->survey = NULL;
	pthread_mutex_lock(&k->lock);
	add_survey_locked(k, &counts, true);
	pthread_mutex_unlock(&k->lock);
	finish_command(k, "");
}

static void begin_survey(struct control *k, enum survey_deed deed)
{
	char line[128];
	int r = survey_new(k->m, deed, k->node, &k->survey);

	k->told_ms = clock_mono_ms();
	if (r == 0 && pool_run(k->m->disk_pool, survey_job, k) == 0)
		return;
	survey_free(k->survey);
	k->survey = NULL;
	snprintf(line, sizeof(line), "{\"done\":true,\"error\":\"%s\"}\n",
		 strerror(r < 0 ? -r : ENOMEM));
	finish_command(k, line);
}

/* Begin what needs more than the lock. */
static void set_going(struct control *k, enum control_command command)
{
	struct mount *m = k->m;

	if (command == CONTROL_COMMAND_REFRESH) {
		lister_refresh(m->lister, k->node, on_refreshed, k);
	} else if (command == CONTROL_COMMAND_RETRY) {
		engine_retry_now(m->engine);
		remote_reload_credentials(m->remote, are_credentials_doubted(m), on_reloaded, k);
	} else if (command != CONTROL_COMMAND_SYNC) {
		begin_survey(k, command == CONTROL_COMMAND_VERIFY ? SURVEY_VERIFY : SURVEY_DROP);
	}
}

/* 0, -EINVAL (no such command), -EBUSY (the one begun through this handle is not over). */
static int start_command(struct control *k, enum control_command command, uint64_t node)
{
	struct mount *m = k->m;
	int r = command == CONTROL_COMMAND_NONE ? -EINVAL : 0;

	pthread_mutex_lock(&k->lock);
	if (!r && k->busy)
		r = -EBUSY;
	if (r < 0) {
		pthread_mutex_unlock(&k->lock);
		return r;
	}
	k->command = command;
	k->node = node == NODE_ID_ROOT ? 0 : node;
	k->started = true;
	k->done = k->told = false;
	if (command == CONTROL_COMMAND_SYNC) {
		k->mark = sync_mark(m->sync);
	} else {
		k->busy++;
	}
	pthread_mutex_unlock(&k->lock);
	set_going(k, command);
	return 0;
}

void control_write(fuse_req_t req, struct mount *m, struct fuse_bufvec *in,
		   struct fuse_file_info *fi)
{
	struct control *k = control_of(fi->fh);
	char command[COMMAND_MAX] = "";
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(sizeof(command) - 1);
	enum control_command named;
	uint64_t node;
	ssize_t n;
	int error;

	(void)m;
	out.buf[0].mem = command;
	/* the rest of what is longer than any command would look like another one */
	n = fuse_buf_size(in) < sizeof(command) ? fuse_buf_copy(&out, in, 0) : -EINVAL;
	if (n < 0) {
		fuse_reply_err(req, (int)-n);
		return;
	}
	named = control_command_parse(command, (size_t)n, &node);
	error = start_command(k, named, node);
	if (error)
		fuse_reply_err(req, -error);
	else
		fuse_reply_write(req, (size_t)n);
}
/* One line of progress; the last one when nothing is left that had changed at the start. */
static void sync_progress_locked(struct control *k)
{
	struct engine_counter wire = {0};
	struct sync_counts c;

	k->told = true;
	/* a read-only mount sends nothing: what an earlier one left waits for a writable one */
	engine_count(k->m->engine, NULL, NULL, &wire);
	k->done = sync_passed(k->m->sync, k->mark, k->node, &c) || k->m->options->read_only;
	add_line_locked(k,
			"{\"done\":%s,\"uploads\":%llu,\"renames\":%llu,\"deletes\":%llu,\"bytes\":"
			"%llu,\"in_flight\":%llu,"
			"\"sent\":%llu,\"bytes_sent\":%llu,\"wire\":%llu,\"failed\":%llu,"
			"\"state\":\"%s\"}\n",
			k->done ? "true" : "false", (unsigned long long)c.uploads,
			(unsigned long long)c.renames, (unsigned long long)c.deletes,
			(unsigned long long)c.bytes, (unsigned long long)c.in_flight,
			(unsigned long long)c.done, (unsigned long long)c.bytes_sent,
			(unsigned long long)wire.bytes_sent, (unsigned long long)c.failed,
			status_state(k->m));
}

/* lock held: hand out what there is, as much as was asked for. */
static void reply_text_unlock(struct call *c, struct control *k)
{
	size_t n = k->len < c->len ? k->len : c->len;
	char *out =
		n ? malloc(n) : NULL; /* the kernel may have @k released before the reply returns */

	if (out) {
		memcpy(out, k->text, n);
		k->len -= n;
		memmove(k->text, k->text + n, k->len + 1);
	}
	pthread_mutex_unlock(&k->lock);
	if (n && !out) {
		call_fail(c, ENOMEM);
		return;
	}
	fuse_reply_buf(c->req, out, n);
	free(out);
	call_done(c);
}

static void read_command(struct call *c, struct control *k)
{
	bool start;

	call_wait_for_ever(c);
	pthread_mutex_lock(&k->lock);
	start = k->command != CONTROL_COMMAND_NONE && !k->started;
	pthread_mutex_unlock(&k->lock);
	if (start)
		start_command(k, command_of(c->ino), 0);
	pthread_mutex_lock(&k->lock);
	/*
	 * one line for each time that a reader waited, so that nobody makes them faster than that
	 */
	if (k->command == CONTROL_COMMAND_SYNC && !k->len && !k->done && !c->error &&
	    (c->step || !k->told))
		sync_progress_locked(k);
	if (k->len || k->done || k->command == CONTROL_COMMAND_NONE) {
		reply_text_unlock(c, k);
		return;
	}
	if (c->error) {
		int error = c->error;

		pthread_mutex_unlock(&k->lock);
		call_fail(c, error);
		return;
	}
	c->step = 1;
	if (k->command == CONTROL_COMMAND_SYNC)
		call_park_soft(c, CALL_WAIT_DRAINED, 0, PROGRESS_MS);
	else
		call_park_soft(c, CALL_WAIT_CONTROL, (uintptr_t)k, PROGRESS_MS);
	pthread_mutex_unlock(&k->lock);
}

/*
 * A copy: once the answer is out the handle may be released, before the write of the answer has
 * returned.
 */
void reply_copy(struct call *c, const char *text, size_t n)
{
	char *copy = malloc(n ? n : 1);

	if (!copy) {
		call_fail(c, ENOMEM);
		return;
	}
	memcpy(copy, text, n);
	fuse_reply_buf(c->req, copy, n);
	free(copy);
	call_done(c);
}

/*
 * Where @k's reader has fallen behind, a line says so, and what is kept follows it. lock held.
 */
static void skip_lost_locked(struct control *k, uint64_t off, uint64_t first)
{
	add_line_locked(k, "{\"event\":\"lost\",\"detail\":\"%llu bytes of older events\"}\n",
			(unsigned long long)(first - off - k->events_skipped));
	k->events_skipped = first > off + k->len ? first - off - k->len : 0;
}

/* As of a file that others write to; at its end a reader waits. */
static void read_events(struct call *c, struct control *k)
{
	struct events *events = c->m->events;
	char *buf = malloc(c->len ? c->len : 1);
	uint64_t first = 0, at = 0;
	size_t n = 0;

	call_wait_for_ever(c);
	pthread_mutex_lock(&k->lock);
	while (buf && !k->len) {
		at = c->off + k->events_skipped;
		n = events_read(events, at, buf, c->len, &first);
		if (n || c->error)
			break;
		if (at < first) {
			skip_lost_locked(k, c->off, first);
		} else if (events_wait(events, at, c)) {
			pthread_mutex_unlock(&k->lock);
			free(buf);
			return;
		}
	}
	if (k->len) {
		reply_text_unlock(c, k);
	} else {
		pthread_mutex_unlock(&k->lock);
		if (n)
			reply_copy(c, buf, n);
		else
			call_fail(c, buf ? c->error : ENOMEM);
	}
	free(buf);
}

void control_read(struct call *c)
{
	struct control *k = control_of(c->fh);
	size_t n = 0;

	if (c->ino == CONTROL_EVENTS) {
		read_events(c, k);
		return;
	}
	if (is_stream(c->ino)) {
		read_command(c, k);
		return;
	}
	if (c->off < k->len)
		n = k->len - c->off < c->len ? k->len - c->off : c->len;
	reply_copy(c, n ? k->text + c->off : "", n);
}
