/* SPDX-License-Identifier: MIT */

/*
 * Changing attributes, and extended attributes. What a server has no field for is kept in the
 * ledger.
 */

#include "ops.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "lister.h"
#include "sync.h"

#define OURS "user.attachfs."

/* ---- setattr ---- */

struct setattr {
	struct stat attr;
	int to_set;
};

static int64_t from_timespec(const struct timespec *ts)
{
	return (int64_t)ts->tv_sec * CLOCK_NS_PER_S + ts->tv_nsec;
}

static int check_owner(const struct mount *m, const struct node *n, const struct stat *attr,
		       int to_set)
{
	bool other_uid = (to_set & FUSE_SET_ATTR_UID) && attr->st_uid != node_uid(m->tree, n);
	bool other_gid = (to_set & FUSE_SET_ATTR_GID) && attr->st_gid != node_gid(m->tree, n);

	/*
	 * the kernel has checked the right to do so; where only one user is served, other owners
	 * make no sense
	 */
	if ((other_uid || other_gid) && !m->options->allow_other)
		return -EPERM;
	return 0;
}

static void set_times_locked(struct mount *m, struct node *n, const struct setattr *s, int64_t now)
{
	int64_t atime_ns = node_atime(n), mtime_ns = n->mtime_ns;

	if (s->to_set & FUSE_SET_ATTR_ATIME)
		atime_ns =
			s->to_set & FUSE_SET_ATTR_ATIME_NOW ? now : from_timespec(&s->attr.st_atim);
	if (s->to_set & FUSE_SET_ATTR_MTIME)
		mtime_ns =
			s->to_set & FUSE_SET_ATTR_MTIME_NOW ? now : from_timespec(&s->attr.st_mtim);
	node_set_times(n, atime_ns, mtime_ns, now);
	if (!(s->to_set & FUSE_SET_ATTR_MTIME))
		return;
	/*
	 * the server keeps its own resolution and range (P-24); what it keeps already need not be
	 * sent
	 */
	if (n->kind == NODE_FILE && m->remote->caps.set_mtime && node_rid(n))
		n->mtime_dirty = node_known(n).mtime_ns !=
				 n->mtime_ns - n->mtime_ns % m->remote->caps.mtime_resolution_ns;
	node_more(n)->name_ms = clock_mono_ms();
}

static void set_attr_locked(struct mount *m, struct node *n, const struct setattr *s)
{
	int64_t now = clock_real_ns();

	if (s->to_set & FUSE_SET_ATTR_MODE)
		node_more(n)->mode = (s->attr.st_mode & 07777u) | NODE_MODE_SET;
	if (s->to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		node_set_owner(
			n, s->to_set & FUSE_SET_ATTR_UID ? s->attr.st_uid : node_uid(m->tree, n),
			s->to_set & FUSE_SET_ATTR_GID ? s->attr.st_gid : node_gid(m->tree, n));
	set_times_locked(m, n, s, now);
	tree_changed_locked(m->tree, n);
}

/* Cut or extend; without a handle it is as if opened, cut and closed. No lock held. */
static int set_size(struct mount *m, struct node *n, uint64_t size, struct handle *by_handle)
{
	struct content *c = NULL;
	int r;

	do {
		content_unref(c);
		c = NULL;
		tree_lock(m->tree);
		if (by_handle)
			by_handle->flushed = false;
		r = size || by_handle ? 0 : file_empty_locked(m, n);
		if (!r && by_handle && by_handle->version != n->more->version)
			r = -ESTALE;
		if (!r)
			r = file_writable_locked(m, n, &c);
		tree_unlock(m->tree);
		if (!r)
			r = content_truncate(c, size);
	} while (r == -EALREADY);
	content_unref(c);
	if (r < 0)
		return r;
	tree_lock(m->tree);
	node_set_modified(n, clock_real_ns());
	tree_unlock(m->tree);
	return by_handle ? 0 : file_commit(m, n);
}

/* As open() without a handle of the kernel's. */
static int set_size_by_path(struct call *c, struct node *n)
{
	struct mount *m = c->m;
	struct setattr *s = c->data;
	struct handle *h;
	int r;

	tree_lock(m->tree);
	h = handle_new_locked(m, n, O_RDWR);
	tree_unlock(m->tree);
	if (!h)
		return -ENOMEM;
	r = set_size(m, n, (uint64_t)s->attr.st_size, c->fh ? handle_of(c->fh) : NULL);
	handle_drop(m, h);
	return r;
}

static void reply_attr(struct call *c, const struct stat *st, double timeout_s)
{
	fuse_reply_attr(c->req, st, timeout_s);
	call_done(c);
}

/* Run again until the server has the new size or time. */
static void setattr_synced_run(struct call *c)
{
	struct mount *m = c->m;
	int error = c->error;
	double timeout_s = 0;
	struct node *n;
	struct stat st;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, c->ino);
	if (!error && !n)
		error = -ENOENT;
	if (!error && !n->gone && !node_synced_locked(c, n, 1, &error)) {
		tree_unlock(m->tree);
		return;
	}
	if (!error) {
		node_stat_locked(m->tree, n, &st);
		timeout_s = attr_timeout_locked(m, n);
	}
	tree_unlock(m->tree);
	if (error)
		call_fail(c, error);
	else
		reply_attr(c, &st, timeout_s);
}

/* Who is writing hears of it by its close. tree->lock held. */
static bool waits_for_server_locked(const struct mount *m, const struct node *n, int to_set)
{
	return m->options->write == OPTIONS_WRITE_THROUGH && n->kind == NODE_FILE && !n->local &&
	       !n->gone && n->in_ledger && !node_being_written(n) &&
	       (to_set & (FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_MTIME));
}

static void finish_setattr(struct call *c, struct node *n)
{
	struct mount *m = c->m;
	struct setattr *s = c->data;
	double timeout_s;
	struct stat st;
	bool waits;
	int r = 0;

	if (s->to_set & FUSE_SET_ATTR_SIZE)
		r = set_size_by_path(c, n);
	tree_lock(m->tree);
	if (!r)
		r = check_owner(m, n, &s->attr, s->to_set);
	/* nothing to set is a chown() to nobody in particular: the change time moves all the same */
	if (!r && s->to_set != FUSE_SET_ATTR_SIZE)
		set_attr_locked(m, n, s);
	node_stat_locked(m->tree, n, &st);
	timeout_s = attr_timeout_locked(m, n);
	node_more(n)->n_open--;
	file_close_locked(m, n);
	waits = !r && waits_for_server_locked(m, n, s->to_set);
	tree_unlock(m->tree);
	if (r < 0) {
		call_fail(c, r);
	} else if (waits) {
		c->op = setattr_synced_run;
		c->step = 0;
		setattr_synced_run(c);
	} else {
		reply_attr(c, &st, timeout_s);
	}
}

static void setattr_run(struct call *c)
{
	struct mount *m = c->m;
	struct setattr *s = c->data;
	struct node *n;
	int error = 0;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, c->ino);
	if (!n)
		error = -ENOENT;
	else if ((s->to_set & FUSE_SET_ATTR_SIZE) && n->kind != NODE_FILE)
		error = -EISDIR;
	else if ((s->to_set & FUSE_SET_ATTR_SIZE) && s->attr.st_size < 0)
		error = -EINVAL;
	else if ((s->to_set & FUSE_SET_ATTR_SIZE) && s->attr.st_size > FILE_SIZE_MAX)
		error = -EFBIG;
	/* the answer carries the size, and a cut needs to know it; cutting all off does not */
	else if (n->kind == NODE_FILE && !((s->to_set & FUSE_SET_ATTR_SIZE) && !s->attr.st_size) &&
		 !lister_size_locked(m->lister, c, n, &error)) {
		tree_unlock(m->tree);
		lister_kick(m->lister);
		return;
	}
	if (!error && (s->to_set & FUSE_SET_ATTR_SIZE))
		error = may_write_locked(m, n);
	if (!error)
		node_more(n)->n_open++; /* held until the answer */
	tree_unlock(m->tree);
	if (error)
		call_fail(c, error);
	else
		finish_setattr(c, n);
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = setattr_run, .ino = ino, .fh = fi ? fi->fh : 0};
	struct setattr *s;

	if (is_control(ino)) {
		struct stat st;

		/* O_TRUNC of a shell's redirection into control */
		control_stat(m, ino, &st);
		fuse_reply_attr(req, &st, 0);
		return;
	}
	if (is_virtual(ino)) {
		json_setattr(req, m, ino, attr, to_set, fi);
		return;
	}
	s = malloc(sizeof(*s));
	if (!s) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*s = (struct setattr){*attr, to_set};
	c.data = s;
	call_run(m->calls, &c);
}

/* ---- extended attributes ---- */

static const char *state_of(const struct node *n, struct content *c)
{
	if (n->error)
		return "parked";
	if (n->busy && (n->dirty || !node_rid(n)))
		return "uploading";
	if (n->dirty || !node_rid(n))
		return strstr(n->shown, " (conflict ") ? "conflict" : "dirty";
	return c && content_is_complete(c) ? "cached" : "remote";
}

static void hex(const uint8_t *bytes, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		sprintf(out + 2 * i, "%02x", bytes[i]);
}

/* One of our own: text into @value, false = no such (now). tree->lock held. */
static bool own_value(struct tree *t, const struct node *n, const char *name, char *value,
		      size_t size)
{
	const struct known known = node_known(n), *k = &known;
	uint8_t hash[LEDGER_HASH_BYTES];
	struct content *c = n->kind == NODE_FILE ? node_content(t, n) : NULL;
	const char *text = NULL;
	char *url = NULL;

	*value = '\0';
	if (!strcmp(name, "id"))
		text = k->rid;
	else if (!strcmp(name, "version"))
		text = k->version;
	else if (!strcmp(name, "media_type"))
		text = k->media_type;
	else if (!strcmp(name, "state") && n->kind == NODE_FILE)
		text = state_of(n, c);
	else if (!strcmp(name, "error") && n->error)
		text = n->more->message && *n->more->message ? n->more->message
							     : strerror(-n->error);
	else if (!strcmp(name, "url") && (url = known_url(k)))
		log_redact(url, value, size); /* signed links are secrets */
	else if (!strcmp(name, "xxh128") && c && content_hash(c, hash))
		hex(hash, sizeof(hash), value);
	if (text)
		snprintf(value, size, "%s", text);
	free(url);
	content_unref(c);
	return *value != '\0';
}

static const char *const own_names[] = {"id",	      "version", "state", "url",
					"media_type", "xxh128",	 "error"};

/* What has attributes: a node, and .record.json those of its record. tree->lock held. */
static struct node *attributed_locked(struct mount *m, fuse_ino_t ino)
{
	if (is_control(ino) || (is_virtual(ino) && !(ino & VIRTUAL_JSON)))
		return NULL;
	return tree_find_locked(m->tree, ino & ~VIRTUAL_MASK);
}

static void reply_value(fuse_req_t req, const void *value, size_t len, size_t size)
{
	if (!size)
		fuse_reply_xattr(req, len);
	else if (len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, len);
}

static bool is_user(const char *name)
{
	return !strncmp(name, "user.", 5);
}

/* Ours, and only to be read. */
static bool is_own(const char *name)
{
	return !strncmp(name, OURS, strlen(OURS)) && strcmp(name, PIN_XATTR) != 0;
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct mount *m = mount_of_request(req);
	struct xattr *x = NULL;
	struct node *n = NULL;
	char value[4096];
	void *copy = NULL;
	size_t len = 0;
	bool found = false;

	tree_lock(m->tree);
	n = attributed_locked(m, ino);
	if (n && is_own(name)) {
		found = own_value(m->tree, n, name + strlen(OURS), value, sizeof(value));
		len = found ? strlen(value) : 0;
	} else if (n && !is_virtual(ino) && (x = node_find_xattr(n, name))) {
		copy = malloc(x->len + 1);
		found = copy != NULL;
		len = x->len;
		if (copy)
			memcpy(copy, x->value, len);
	}
	tree_unlock(m->tree);
	if (found)
		reply_value(req, copy ? copy : value, len, size);
	else
		fuse_reply_err(req, is_user(name) || !strncmp(name, "security.", 9) ? ENODATA
										    : EOPNOTSUPP);
	free(copy);
}

static void add_name(char **list, size_t *len, const char *prefix, const char *name)
{
	size_t more = strlen(prefix) + strlen(name) + 1;
	char *bigger = realloc(*list, *len + more + 1);

	if (!bigger)
		return;
	*list = bigger;
	*len += (size_t)snprintf(bigger + *len, more, "%s%s", prefix, name) + 1;
}

/*
 * Programs that carry a file's attributes to its copy do not see ours: they say nothing about the
 * copy, and one that is put back onto a mount would fail for not being allowed to set them.
 */
static bool carries_attributes(fuse_req_t req)
{
	static const char *const names[] = {"rsync", "borg", "restic", "rdiff-backup", "tar",
					    "cp",    "mv",   "unison", "rclone",       "kopia"};
	char path[32], name[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)fuse_req_ctx(req)->pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (fgets(name, sizeof(name), f))
		name[strcspn(name, "\n")] = '\0';
	fclose(f);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct mount *m = mount_of_request(req);
	bool ours = !carries_attributes(req);
	struct node *n = NULL;
	char *list = NULL, value[4096];
	size_t len = 0;

	tree_lock(m->tree);
	n = attributed_locked(m, ino);
	for (const struct xattr *x = n && !is_virtual(ino) ? n->more->xattrs : NULL; x; x = x->next)
		add_name(&list, &len, "", x->name);
	for (size_t i = 0; n && ours && i < sizeof(own_names) / sizeof(own_names[0]); i++)
		if (own_value(m->tree, n, own_names[i], value, sizeof(value)))
			add_name(&list, &len, OURS, own_names[i]);
	tree_unlock(m->tree);
	reply_value(req, list, len, size);
	free(list);
}

static int may_change_xattr(fuse_ino_t ino, const char *name)
{
	if (!is_user(name))
		return -EOPNOTSUPP;
	if (!strcmp(name, "user."))
		return -EINVAL;
	if (is_virtual(ino) || is_control(ino))
		return -EPERM;
	return is_own(name) ? -EPERM : 0;
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags)
{
	struct mount *m = mount_of_request(req);
	struct node *n;
	bool pins = !strcmp(name, PIN_XATTR);
	int r = may_change_xattr(ino, name);

	if (!r && pins)
		r = pin_check_value(value, size);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	tree_lock(m->tree);
	n = tree_find_locked(m->tree, ino);
	if (!n)
		r = -ENOENT;
	else if (pins && n->kind != NODE_FILE)
		r = -EISDIR;
	else if ((flags & XATTR_CREATE) && node_find_xattr(n, name))
		r = -EEXIST;
	else if ((flags & XATTR_REPLACE) && !node_find_xattr(n, name))
		r = -ENODATA;
	else
		r = node_set_xattr(n, name, value, size);
	if (!r) {
		node_set_changed(n, clock_real_ns());
		r = ledger_put_xattr(m->ledger, n->id, name, value, size);
		tree_put_locked(m->tree, n);
	}
	tree_unlock(m->tree);
	if (!r && pins)
		pin_changed(m, ino);
	fuse_reply_err(req, -r);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct mount *m = mount_of_request(req);
	struct node *n;
	int r = may_change_xattr(ino, name);

	if (!r) {
		tree_lock(m->tree);
		n = tree_find_locked(m->tree, ino);
		if (!n)
			r = -ENOENT;
		else if (!node_remove_xattr(n, name))
			r = -ENODATA;
		else {
			node_set_changed(n, clock_real_ns());
			r = ledger_drop_xattr(m->ledger, n->id, name);
			tree_put_locked(m->tree, n);
		}
		tree_unlock(m->tree);
	}
	if (!r && !strcmp(name, PIN_XATTR))
		pin_changed(m, ino);
	fuse_reply_err(req, -r);
}
