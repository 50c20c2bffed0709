/* SPDX-License-Identifier: MIT */

/* Entries and attributes, and the table of all operations. */

#include "ops.h"

#include <string.h>
#include <sys/statvfs.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/names.h>

#include "lister.h"
#include "passthrough.h"
#include "pipes.h"
#include "records.h"
#include "replaced.h"

#define UNTOLD_TIMEOUT_S 1.0 /* how long the kernel may believe what nobody can take back */
#define BLOCK_BYTES 4096
#define FREE_BLOCKS (UINT64_C(1) << 28) /* 1 TiB: no server tells what is left */
#define FREE_FILES  UINT32_MAX
#define BACKGROUND                                                                                 \
	1024 /* parked reads are background requests for the kernel, whose default is 12 */
#define REQUEST_BYTES (1u << 20)

struct mount *mount_of_request(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

void mount_used(struct mount *m)
{
	atomic_store(&m->used_ms, clock_mono_ms());
}

/*
 * Whether the kernel takes notifications: of a node that never was it says that it does not know it. One
 * that takes none would show for minutes what is no more.
 */
static void ask_for_notifications(struct mount *m)
{
	int r = fuse_lowlevel_notify_inval_inode(m->session, UINT64_MAX, -1, 0);

	if (r == 0 || r == -ENOENT)
		return;
	m->timeout_kernel_s = UNTOLD_TIMEOUT_S;
	log_warning("mount: the kernel takes no notifications (%s): it asks again after %g s",
		    strerror(-r), UNTOLD_TIMEOUT_S);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct mount *m = userdata;

	conn->max_background = BACKGROUND;
	conn->congestion_threshold = BACKGROUND * 3 / 4;
	conn->max_write = REQUEST_BYTES;
	conn->max_readahead = REQUEST_BYTES;
	/* we tell the kernel what changed; it need not guess from times */
	if (conn->capable & FUSE_CAP_EXPLICIT_INVAL_DATA) {
		conn->want |= FUSE_CAP_EXPLICIT_INVAL_DATA;
		conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	}
	/* who may write and keep the set-user-id bits is the kernel's to know: it clears them by setattr */
	conn->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
	/*
	 * Answers go from the cache's file to the kernel by a pipe. Its pages are not moved: taking one
	 * out of the page cache waits until it is on the disk, and what is read has often just come.
	 */
	m->splices = (conn->capable & FUSE_CAP_SPLICE_WRITE) && pipes_work(m->session);
	if (m->splices)
		conn->want |= FUSE_CAP_SPLICE_WRITE;
	else /* libfuse ends when it is refused what it was told to do */
		conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_READ |
					  FUSE_CAP_SPLICE_MOVE);
	log_debug("mount: bytes go %s", m->splices ? "by pipes" : "by copies, this kernel splices none");
	/*
	 * locks are the kernel's own business (a daemon that blocks in them makes programs
	 * unkillable)
	 */
	conn->want &= ~(unsigned)(FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS);
	conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
	ask_for_notifications(m);
	passthrough_init(m, conn);
	atomic_store(&m->greeted, true);
}

/* ---- entries ---- */

/* How long the kernel may keep them. An unknown size costs a call: the kernel comes back when somebody looks. */
double attr_timeout_locked(const struct mount *m, const struct node *n)
{
	return node_size_locked(n) < 0 || is_replaced_untold_locked(n) ? 0 : m->timeout_kernel_s;
}

void fill_entry_locked(const struct mount *m, const struct node *n, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = n->twinned ? n->id | NODE_TWIN : n->id;
	node_stat_locked(m->tree, n, &e->attr);
	/* the record that will stand there is not known yet */
	e->entry_timeout = tree_is_flat(m->tree, n) ? 0 : m->timeout_kernel_s;
	e->attr_timeout = attr_timeout_locked(m, n);
}

void reply_entry_unlock(struct call *c, struct node *n)
{
	struct mount *m = c->m;
	struct fuse_entry_param e;
	uint64_t id = n->id;

	fill_entry_locked(m, n, &e);
	n->nlookup++;
	tree_unlock(m->tree);
	if (fuse_reply_entry(c->req, &e) < 0)
		forget_node(m, id, 1);
	call_done(c);
}

void forget_node(struct mount *m, uint64_t ino, uint64_t nlookup)
{
	struct node *n;

	if (is_virtual(ino) || is_control(ino))
		return;
	tree_lock(m->tree);
	n = tree_find_locked(m->tree, ino);
	if (n) {
		n->nlookup -= nlookup < n->nlookup ? nlookup : n->nlookup;
		if (!n->nlookup)
			n->twinned = false;
		tree_release_locked(m->tree, n);
	}
	tree_unlock(m->tree);
}

struct node *need_dir_locked(struct call *c, uint64_t ino)
{
	return need_some_locked(c, ino, NULL);
}

struct node *need_some_locked(struct call *c, uint64_t ino, uint64_t *ret_mark)
{
	struct mount *m = c->m;
	struct node *dir = tree_find_locked(m->tree, ino);
	/* what stands for a flat collection is not there before all is */
	bool some = ret_mark && dir && dir->kind != NODE_ROOT && !tree_is_flat(m->tree, dir);
	int error = dir ? 0 : -ENOENT;

	if (dir && dir->kind == NODE_FILE)
		error = -ENOTDIR;
	if (dir && dir->gone)
		error = -ENOENT;
	if (!error && dir->kind != NODE_ROOT && !node_collection(dir))
		error = -ENOENT;
	if (ret_mark)
		*ret_mark = 0;
	if (!error &&
	    !(some ? lister_need_some_locked(m->lister, c, dir, ret_mark, &error)
		   : lister_need_locked(m->lister, c, dir, &error)) &&
	    !error) {
		tree_unlock(m->tree);
		lister_kick(m->lister);
		return NULL;
	}
	if (!error)
		return tree_seen(m->tree, dir);
	tree_unlock(m->tree);
	call_fail(c, error);
	return NULL;
}

bool need_seen_locked(struct call *c, struct node *n)
{
	int error;

	/* where it cannot be listed, whoever looks into it is told why */
	return !tree_is_flat(c->m->tree, n) || lister_need_locked(c->m->lister, c, n, &error) ||
	       error;
}

/*
 * A record that the first listing has named is there, though the listing is not over: who wants to
 * see the names in it need not wait for those in others.
 */
static struct node *need_for_lookup_locked(struct call *c)
{
	struct tree *t = c->m->tree;
	const struct node *at = tree_find_locked(t, c->ino);
	struct node *dir, *n;
	uint64_t mark;

	if (!at || at->kind != NODE_COLLECTION)
		return need_dir_locked(c, c->ino);
	dir = need_some_locked(c, c->ino, &mark);
	if (!dir || !mark)
		return dir;
	n = tree_child_locked(t, dir, c->name);
	if (n && n->kind == NODE_RECORD && n->seen_seq >= mark)
		return dir;
	lister_await_more_locked(c->m->lister, c, dir);
	tree_unlock(t);
	return NULL;
}

static void lookup_run(struct call *c)
{
	struct mount *m = c->m;
	struct fuse_entry_param none = {.entry_timeout = m->timeout_kernel_s};
	struct node *dir, *n;

	tree_lock(m->tree);
	dir = need_for_lookup_locked(c);
	if (!dir || virtual_lookup_locked(c, dir))
		return;
	n = tree_child_locked(m->tree, dir, c->name);
	if (n && !need_seen_locked(c, n)) {
		tree_unlock(m->tree);
		lister_kick(m->lister);
		return;
	}
	if (n) {
		reply_entry_unlock(c, tree_seen(m->tree, n));
		return;
	}
	if (virtual_lookup_alias_locked(c, dir) || records_ask_unlock(c, dir))
		return;
	tree_unlock(m->tree);
	if (c->step) {
		call_fail(c, c->error ? c->error : -ENOENT);
		return;
	}
	fuse_reply_entry(c->req, &none);
	call_done(c);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = lookup_run, .ino = parent, .name = (char *)name};

	if (strlen(name) > NAMES_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	if (is_virtual(parent))
		c.op = virtual_lookup_link;
	/* the state of the mount is there whether or not the server tells what else is */
	if (is_control(parent) || (parent == NODE_ID_ROOT && control_lookup(parent, name))) {
		struct fuse_entry_param e = {.ino = control_lookup(parent, name)};

		if (!e.ino || control_stat(m, e.ino, &e.attr) < 0)
			fuse_reply_err(req, ENOENT);
		else
			fuse_reply_entry(req, &e);
		return;
	}
	mount_used(m);
	call_run(m->calls, &c);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	forget_node(mount_of_request(req), ino, nlookup);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget_node(mount_of_request(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/* ---- attributes ---- */

static void getattr_run(struct call *c)
{
	struct mount *m = c->m;
	struct node *n;
	struct stat st;
	double timeout_s = 0;
	int error = 0;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, c->ino);
	if (!n) {
		error = -ENOENT;
	} else if (n->kind == NODE_FILE && !lister_size_locked(m->lister, c, n, &error)) {
		tree_unlock(m->tree);
		lister_kick(m->lister);
		return;
	}
	if (!error) {
		node_stat_locked(m->tree, n, &st);
		timeout_s = attr_timeout_locked(m, n);
	}
	tree_unlock(m->tree);
	if (error) {
		call_fail(c, error);
		return;
	}
	fuse_reply_attr(c->req, &st, timeout_s);
	call_done(c);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of_request(req);
	struct call c = {.m = m, .req = req, .op = getattr_run, .ino = ino};
	struct stat st;
	int r;

	(void)fi;
	if (is_control(ino)) {
		r = control_stat(m, ino, &st);
	} else if (is_virtual(ino)) {
		tree_lock(m->tree);
		r = virtual_stat_locked(m, ino, &st);
		tree_unlock(m->tree);
	} else {
		if (ino != NODE_ID_ROOT)
			mount_used(m);
		call_run(m->calls, &c);
		return;
	}
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &st, 0);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	virtual_readlink(req, mount_of_request(req), ino);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct mount *m = mount_of_request(req);
	struct content_usage usage;
	struct statvfs st = {.f_bsize = BLOCK_BYTES,
			     .f_frsize = BLOCK_BYTES,
			     .f_bfree = FREE_BLOCKS,
			     .f_bavail = FREE_BLOCKS,
			     .f_namemax = NAMES_MAX};

	(void)ino;
	content_store_usage(m->store, &usage);
	tree_lock(m->tree);
	st.f_files = FREE_FILES + m->tree->n_nodes;
	tree_unlock(m->tree);
	st.f_blocks = FREE_BLOCKS + usage.bytes / BLOCK_BYTES;
	st.f_ffree = st.f_favail = FREE_FILES;
	fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops attachfs_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.read = op_read,
	.write_buf = op_write_buf,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.create = op_create,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
};
