/* SPDX-License-Identifier: MIT */

/*
 * .record.json: a record's fields as a text that can be edited. Reading shows what the server has,
 * with what is still to be sent to it laid over. What a program wrote is looked at when it closes:
 * single values that differ from the server's become the wish of the record's node (node->fields),
 * which the ledger keeps and sync.c sends, many records in one call.
 *
 *	server's text --overlay--> read ... write --flush--> difference --ledger--> update_records
 *
 * A text that is no JSON object is refused at the flush and changes nothing; it stays in its handle,
 * so a program that is not done yet may go on. What the server had is known from the last time it was
 * read, by anybody; where nobody has, it is asked once, and where it does not answer all that was
 * written is the wish.
 *
 * A handle has a lock of its own, taken before tree->lock.
 */

#include "ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "lister.h"
#include "notifier.h"
#include "sync.h"

#define TEXT_MAX  (1u << 20)
#define KNOWN_MAX (64u << 10) /* more than that of one record is not kept */

struct text {
	struct opened opened;
	pthread_mutex_t lock;
	struct mount *m;
	uint64_t record;   /* node */
	int flags;	   /* of open() */
	bool asked, there; /* lock: the server's text is on its way, has come (or `error`) */
	bool closed;	   /* lock: the handle is gone, the answer frees */
	int error;	   /* lock */
	char *base;	   /* lock: the server's text; NULL = not known */
	bool edited;	   /* lock: `data` is the program's */
	bool written;	   /* lock: and no flush has looked at it yet */
	char *data;	   /* lock */
	size_t len;
};

static struct text *text_of(uint64_t fh)
{
	return (struct text *)(uintptr_t)fh;
}

bool json_is_writable_locked(const struct mount *m, struct node *record)
{
	return m->remote->caps.set_fields && m->remote->ops->update_records &&
	       !m->options->read_only &&
	       /* what was refused can be taken back */
	       (record->more->fields || may_change_record_locked(m, record) == 0);
}

/* The same of an inode number, without the lock. */
static bool is_writable(const struct mount *m, uint64_t ino)
{
	struct node *record;
	bool can;

	if (!(ino & VIRTUAL_JSON))
		return false;
	tree_lock(m->tree);
	record = tree_find_locked(m->tree, ino & ~VIRTUAL_MASK);
	can = record && json_is_writable_locked(m, record);
	tree_unlock(m->tree);
	return can;
}

static struct text *text_new(struct mount *m, uint64_t record, int flags)
{
	struct text *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	pthread_mutex_init(&t->lock, NULL);
	t->m = m;
	t->record = record;
	t->flags = flags;
	t->edited = (flags & O_TRUNC) != 0;
	return t;
}

static void text_free(struct text *t)
{
	pthread_mutex_destroy(&t->lock);
	free(t->base);
	free(t->data);
	free(t);
}

static void text_close(struct text *t)
{
	bool pending;

	pthread_mutex_lock(&t->lock);
	t->closed = true;
	pending = t->asked && !t->there;
	pthread_mutex_unlock(&t->lock);
	if (!pending)
		text_free(t);
}

static void text_left(struct mount *m, struct opened *o)
{
	json_release(m, (uintptr_t)o);
}

void json_release(struct mount *m, uint64_t fh)
{
	mount_opened_remove(m, &text_of(fh)->opened);
	text_close(text_of(fh));
}

void json_open(fuse_req_t req, struct mount *m, uint64_t ino, struct fuse_file_info *fi)
{
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC);
	struct text *t;

	if (!(ino & VIRTUAL_JSON) || (writes && !is_writable(m, ino))) {
		fuse_reply_err(req, EACCES);
		return;
	}
	t = text_new(m, ino & ~VIRTUAL_MASK, fi->flags);
	if (!t) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fi->fh = (uintptr_t)t;
	fi->direct_io = 1; /* its size is not known before it is read */
	mount_opened_add(m, &t->opened, text_left);
	if (fuse_reply_open(req, fi) < 0)
		json_release(m, fi->fh);
}

void json_stat_locked(const struct mount *m, struct node *record, struct stat *st)
{
	bool writable = json_is_writable_locked(m, record);
	int64_t ns = node_known(record).mtime_ns;

	/* not the directory's: it changes with every file in it, and editors would wonder */
	if (ns == REMOTE_TIME_NONE)
		ns = m->started_ns;
	if (ns < record->more->fields_ns)
		ns = record->more->fields_ns;
	st->st_mode = S_IFREG | (writable ? 0644 & ~m->tree->umask : 0444);
	st->st_size = 0; /* known when it was fetched */
	/* editors that would put another file in its place write into one with two links */
	st->st_nlink = writable ? 2 : 1;
	st->st_mtim.tv_sec = st->st_ctim.tv_sec = ns / CLOCK_NS_PER_S;
	st->st_mtim.tv_nsec = st->st_ctim.tv_nsec = ns % CLOCK_NS_PER_S;
}

/* ---- texts ---- */

static json_t *parse(const char *text, size_t len)
{
	json_t *o = text ? json_loadb(text, len, JSON_ALLOW_NUL, NULL) : NULL;

	if (json_is_object(o))
		return o;
	json_decref(o);
	return NULL;
}

/* @text with the members of @fields in it; malloc()ed, NULL when there are none. */
static char *overlay(const char *text, const char *fields)
{
	json_t *o = fields && text ? parse(text, strlen(text)) : NULL;
	json_t *over = o ? parse(fields, strlen(fields)) : NULL;
	char *dump = NULL, *out = NULL;

	if (over && json_object_update(o, over) == 0)
		dump = json_dumps(o, JSON_INDENT(2));
	if (dump && asprintf(&out, "%s\n", dump) < 0)
		out = NULL;
	free(dump);
	json_decref(over);
	json_decref(o);
	return out;
}

static bool is_single(const json_t *value)
{
	return !json_is_object(value) && !json_is_array(value);
}

/*
 * What differs in @wanted from @base (NULL = all of it), as text in *@ret_fields, NULL = nothing. 0,
 * -ENOMEM.
 */
static int difference(json_t *wanted, const json_t *base, char **ret_fields)
{
	json_t *fields = json_object(), *value;
	const char *key;
	int r = fields ? 0 : -1;

	json_object_foreach(wanted, key, value)
	{
		json_t *old = json_object_get(base, key);

		if (old && json_equal(old, value))
			continue;
		if (is_single(value))
			r |= json_object_set(fields, key, value);
		else
			log_warning(".record.json: '%s' is left as it is: only single values can "
				    "be set",
				    key);
	}
	*ret_fields = NULL;
	if (!r && json_object_size(fields)) {
		*ret_fields = json_dumps(fields, JSON_COMPACT);
		r = *ret_fields ? 0 : -1;
	}
	json_decref(fields);
	return r ? -ENOMEM : 0;
}

/* ---- what the server has ---- */

/* tree->lock held. */
static void learn_locked(struct mount *m, struct node *record, const char *text)
{
	if (!text || strlen(text) > KNOWN_MAX ||
	    (record->more->known_fields && !strcmp(record->more->known_fields, text)))
		return;
	if (node_set_string(&node_more(record)->known_fields, text))
		tree_put_locked(m->tree, record);
}

/*
 * The server's text came, or not (then what was last read has to do): learn it, and lay over it what
 * is to be sent. Both are malloc()ed.
 */
static void compose(struct mount *m, uint64_t id, int *error, char **base, char **shown)
{
	struct node *record;

	tree_lock(m->tree);
	record = tree_find_locked(m->tree, id);
	if (record && !*error)
		learn_locked(m, record, *base);
	else if (record && *error != -ENOENT && *error != -EACCES && record->more->known_fields)
		*base = strdup(record->more->known_fields);
	if (*base)
		*error = 0;
	*shown = record ? overlay(*base, record->more->fields) : NULL;
	tree_unlock(m->tree);
	if (!*shown && *base)
		*shown = strdup(*base);
}

static void on_text(void *ctx, int error, const char *text, size_t len, const char *message)
{
	struct text *t = ctx;
	struct mount *m = t->m;
	char *base = !error ? strndup(text, len) : NULL, *shown;
	bool closed;

	(void)message;
	if (!error && !base)
		error = -ENOMEM;
	compose(m, t->record, &error, &base, &shown);
	pthread_mutex_lock(&t->lock);
	t->there = true;
	t->error = error;
	t->base = base;
	if (!t->edited) {
		t->data = shown;
		t->len = shown ? strlen(shown) : 0;
		shown = NULL;
	}
	closed = t->closed;
	pthread_mutex_unlock(&t->lock);
	free(shown);
	if (closed)
		text_free(t);
	else
		calls_wake(m->calls, CALL_WAIT_CONTROL, (uintptr_t)t, 0);
}

static void ask_text(struct text *t)
{
	struct mount *m = t->m;
	char *collection = NULL, *rid = NULL;
	struct node *n;
	int r = -ENOENT;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, t->record);
	if (n && n->parent && node_rid(n)) {
		collection = strdup(node_collection_id(n->parent));
		rid = strdup(node_rid(n));
	}
	tree_unlock(m->tree);
	if (collection && rid)
		r = m->remote->ops->record_json(m->remote, collection, rid, on_text, t);
	free(collection);
	free(rid);
	if (r < 0)
		on_text(t, r, NULL, 0, NULL);
}

/*
 * Wait for the server's text. True: it is there, or *@ret_error; false: @c was parked. The handle's
 * lock is held on entry and released.
 */
static bool need_text_unlock(struct call *c, struct text *t, int *ret_error)
{
	bool ask = !t->asked, there = t->there;

	*ret_error = there ? t->error : c->error;
	t->asked = true;
	if (!there && !c->error)
		call_park(c, CALL_WAIT_CONTROL, (uintptr_t)t);
	pthread_mutex_unlock(&t->lock);
	if (there || *ret_error)
		return true;
	if (ask)
		ask_text(t);
	return false;
}

/* ---- reading and writing ---- */

void json_read(struct call *c)
{
	struct text *t = text_of(c->fh);
	char *copy = NULL;
	size_t len = 0;
	int error = 0;

	pthread_mutex_lock(&t->lock);
	if (!t->edited && !t->there) {
		if (need_text_unlock(c, t, &error))
			call_fail(c, error);
		return;
	}
	if (!t->edited)
		error = t->error;
	if (!error && c->off < t->len)
		len = t->len - c->off < c->len ? t->len - c->off : c->len;
	if (len && (copy = malloc(len)))
		memcpy(copy, t->data + c->off, len);
	pthread_mutex_unlock(&t->lock);
	if (error || (len && !copy))
		call_fail(c, error ? error : ENOMEM);
	else
		reply_copy(c, copy ? copy : "", len);
	free(copy);
}

/* Make it @len long. Lock held. */
static int resize_locked(struct text *t, size_t len)
{
	char *bigger;

	if (len > TEXT_MAX)
		return -EFBIG;
	bigger = realloc(t->data, len + 1);
	if (!bigger)
		return -ENOMEM;
	if (len > t->len)
		memset(bigger + t->len, 0, len - t->len);
	t->data = bigger;
	t->len = len;
	return 0;
}

struct bytes {
	size_t len;
	char data[];
};

static void write_run(struct call *c)
{
	struct text *t = text_of(c->fh);
	const struct bytes *b = c->data;
	size_t off = (size_t)c->off;
	int r = 0;

	pthread_mutex_lock(&t->lock);
	if (!t->edited && !t->there) {
		if (need_text_unlock(c, t, &r))
			call_fail(c, r);
		return;
	}
	r = t->edited ? 0 : t->error;
	if (t->flags & O_APPEND)
		off = t->len;
	if (!r && off > TEXT_MAX)
		r = -EFBIG;
	if (!r && off + b->len > t->len)
		r = resize_locked(t, off + b->len);
	if (!r) {
		memcpy(t->data + off, b->data, b->len);
		t->edited = t->written = true;
	}
	pthread_mutex_unlock(&t->lock);
	if (r < 0) {
		call_fail(c, r);
		return;
	}
	fuse_reply_write(c->req, b->len);
	call_done(c);
}

void json_write(fuse_req_t req, struct mount *m, uint64_t ino, struct fuse_bufvec *in, off_t off,
		struct fuse_file_info *fi)
{
	size_t size = fuse_buf_size(in);
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(size);
	struct bytes *b = size <= TEXT_MAX ? malloc(sizeof(*b) + size) : NULL;
	struct call c = {.m = m,
			 .req = req,
			 .op = write_run,
			 .ino = ino,
			 .fh = fi->fh,
			 .off = (uint64_t)off,
			 .data = b};
	ssize_t n;

	if (!b) {
		fuse_reply_err(req, size <= TEXT_MAX ? ENOMEM : EFBIG);
		return;
	}
	out.buf[0].mem = b->data;
	n = fuse_buf_copy(&out, in, 0);
	if (n < 0) {
		free(b);
		fuse_reply_err(req, (int)-n);
		return;
	}
	b->len = (size_t)n;
	call_run(m->calls, &c);
}

static void reply_attr(fuse_req_t req, struct mount *m, uint64_t ino)
{
	struct stat st;
	int r;

	tree_lock(m->tree);
	r = virtual_stat_locked(m, ino, &st);
	tree_unlock(m->tree);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &st, 0);
}

static void cut_run(struct call *c)
{
	struct text *t = text_of(c->fh);
	int r = 0;

	pthread_mutex_lock(&t->lock);
	if (c->len && !t->edited && !t->there) {
		if (need_text_unlock(c, t, &r))
			call_fail(c, r);
		return;
	}
	r = c->len && !t->edited ? t->error : 0;
	if (!r)
		r = resize_locked(t, (size_t)c->len);
	if (!r) {
		t->edited = true;
		t->written = c->len > 0; /* all cut off: what follows counts */
	}
	pthread_mutex_unlock(&t->lock);
	if (r < 0) {
		call_fail(c, r);
		return;
	}
	reply_attr(c->req, c->m, c->ino);
	call_done(c);
}

void json_setattr(fuse_req_t req, struct mount *m, uint64_t ino, const struct stat *attr,
		  int to_set, struct fuse_file_info *fi)
{
	struct call c = {.m = m,
			 .req = req,
			 .op = cut_run,
			 .ino = ino,
			 .fh = fi ? fi->fh : 0,
			 .len = (uint64_t)attr->st_size};

	if (!is_writable(m, ino) || (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		fuse_reply_err(req, EPERM);
	else if (!(to_set & FUSE_SET_ATTR_SIZE))
		reply_attr(req, m, ino);
	else if (!fi || attr->st_size < 0)
		fuse_reply_err(req, EINVAL); /* cut without a handle it would be no JSON */
	else if (attr->st_size > TEXT_MAX)
		fuse_reply_err(req, EFBIG);
	else
		call_run(m->calls, &c);
}

/* ---- what was written becomes the wish ---- */

/* The wish replaces an earlier one, also one that the server refused. tree->lock held. */
static int wish_locked(struct mount *m, uint64_t id, json_t *wanted, const char *base)
{
	struct node *record = tree_find_locked(m->tree, id);
	json_t *known = base ? parse(base, strlen(base)) : NULL;
	char *fields;
	int r;

	if (!record || !record->parent) {
		json_decref(known);
		return -ENOENT;
	}
	r = difference(wanted, known, &fields);
	json_decref(known);
	if (r < 0)
		return r;
	if (!fields && !record->more->fields)
		return 0;
	free(record->more->fields);
	node_more(record)->fields = fields;
	record->error = 0;
	node_set_string(&node_more(record)->message, NULL);
	node_more(record)->name_ms = clock_mono_ms();
	node_more(record)->fields_ns = clock_real_ns();
	tree_changed_locked(m->tree, record);
	return 0;
}

/* What the server has, as far as is known without asking. Lock held. */
static char *base_locked(struct text *t)
{
	const struct node *record;
	char *base = t->base ? strdup(t->base) : NULL;

	if (base)
		return base;
	tree_lock(t->m->tree);
	record = tree_find_locked(t->m->tree, t->record);
	if (record && record->more->known_fields)
		base = strdup(record->more->known_fields);
	tree_unlock(t->m->tree);
	return base;
}

static int apply_text(struct text *t, json_t *wanted, const char *base)
{
	struct mount *m = t->m;
	int r;

	tree_lock(m->tree);
	r = wish_locked(m, t->record, wanted, base);
	tree_unlock(m->tree);
	return r ? r : ledger_commit(m->ledger);
}

/* 0, -errno; -EINPROGRESS: @c was parked. */
static int commit_text(struct call *c, struct text *t)
{
	json_t *wanted = NULL;
	char *base = NULL;
	int r = 0, error;

	pthread_mutex_lock(&t->lock);
	if (t->written)
		wanted = parse(t->data, t->len);
	if (t->written && !wanted) {
		log_warning(".record.json: what was written is no JSON object: not sent");
		r = -EINVAL;
	}
	if (wanted)
		base = base_locked(t);
	if (wanted && !base && !t->there && !c->error) {
		json_decref(wanted);
		return need_text_unlock(c, t, &error) ? error : -EINPROGRESS;
	}
	if (wanted && c->error == -EINTR)
		r = -EINTR;
	t->written = r != 0;
	pthread_mutex_unlock(&t->lock);
	if (wanted && !r)
		r = apply_text(t, wanted, base);
	json_decref(wanted);
	free(base);
	return r;
}

static void flush_run(struct call *c)
{
	struct mount *m = c->m;
	int r = commit_text(c, text_of(c->fh));

	if (r == -EINPROGRESS)
		return;
	if (r < 0 || m->options->write != OPTIONS_WRITE_THROUGH)
		call_fail(c, r);
	else
		reply_synced(c, c->ino & ~VIRTUAL_MASK, 0);
}

void json_flush(fuse_req_t req, struct mount *m, uint64_t ino, struct fuse_file_info *fi)
{
	struct call c = {.m = m, .req = req, .op = flush_run, .ino = ino, .fh = fi->fh};
	struct text *t = text_of(fi->fh);
	bool written;

	pthread_mutex_lock(&t->lock);
	written = t->written;
	pthread_mutex_unlock(&t->lock);
	if (written)
		call_run(m->calls, &c);
	else
		fuse_reply_err(req, 0);
}

/* ---- a file renamed over it ---- */

static void take_run(struct call *c)
{
	struct mount *m = c->m;
	struct text *t = text_of(c->fh);
	uint64_t record = t->record, file = c->off;
	struct node *n, *dir;
	int r = commit_text(c, t);

	if (r == -EINPROGRESS)
		return;
	tree_lock(m->tree);
	n = tree_find_locked(m->tree, file);
	dir = tree_find_locked(m->tree, record);
	if (!r && n && n->parent && dir) {
		n->left_name = true;
		notifier_entry(m->notifier, dir->id, ".record.json");
		remove_node_locked(m, n);
	}
	tree_unlock(m->tree);
	text_close(t);
	if (!r)
		r = ledger_commit(m->ledger);
	if (r < 0 || m->options->write != OPTIONS_WRITE_THROUGH)
		call_fail(c, r);
	else
		reply_synced(c, record, file);
}

void json_take_file_unlock(struct call *c, struct node *n, struct node *dir)
{
	struct mount *m = c->m;
	struct content *view = node_content(m->tree, n);
	int64_t size = n->size;
	struct text *t = text_new(m, dir->id, O_TRUNC);
	int r = may_remove_locked(m, n);

	c->off = n->id;
	c->fh = (uintptr_t)t;
	tree_unlock(m->tree);
	if (!r && (size < 0 || size > TEXT_MAX))
		r = -EFBIG;
	if (!r)
		r = t ? resize_locked(t, (size_t)size) : -ENOMEM;
	/* bytes that are not here make it a copy, as between file systems */
	if (!r && size && (!view || gather_content(view, 0, t->data, (uint64_t)size) < 0))
		r = -EXDEV;
	content_unref(view);
	if (r < 0) {
		if (t)
			text_close(t);
		call_fail(c, r);
		return;
	}
	t->written = true;
	c->op = take_run;
	take_run(c);
}

/* ---- sent ---- */

/* Whether one of these was the name that the record's directory shows. */
static bool was_name(const struct node *record, const char *sent)
{
	json_t *fields = parse(sent, strlen(sent)), *value;
	json_t *known = record->more->known_fields ? parse(record->more->known_fields,
							   strlen(record->more->known_fields))
						   : NULL;
	const char *key;
	bool was = false;

	json_object_foreach(fields, key, value)
	{
		const char *old = json_string_value(json_object_get(known, key));

		was |= !known ||
		       (old && node_known(record).name && !strcmp(old, node_known(record).name));
	}
	json_decref(fields);
	json_decref(known);
	return was;
}

void json_name_fields(const char *sent, char *message, size_t size)
{
	json_t *fields = parse(sent, strlen(sent)), *value;
	size_t len = strlen(message);
	const char *key, *before = "  (fields sent: ";
	bool named = false;

	json_object_foreach(fields, key, value) named |= strstr(message, key) != NULL;
	json_object_foreach(fields, key, value)
	{
		if (named || len >= size)
			break;
		len += (size_t)snprintf(message + len, size - len, "%s%s", before, key);
		before = ", ";
	}
	if (!named && len < size)
		snprintf(message + len, size - len, ")");
	json_decref(fields);
}

void json_arrived_locked(struct mount *m, struct node *record, const char *sent)
{
	char *known;

	if (record->parent && was_name(record, sent))
		lister_again_locked(m->lister, record->parent);
	known = overlay(record->more->known_fields, sent);
	if (known) {
		free(record->more->known_fields);
		node_more(record)->known_fields = known;
	}
	if (record->more->fields && !strcmp(record->more->fields, sent))
		node_set_string(&node_more(record)->fields, NULL);
}
