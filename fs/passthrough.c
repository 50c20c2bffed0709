/* SPDX-License-Identifier: MIT */

/*
 * See passthrough.h. The descriptor is given to the kernel without a lock; meanwhile others may open the
 * file, for whom nothing is passed through yet. So it counts only if this handle is still the only one
 * afterwards.
 *
 * The kernel opens the file once more for every handle, with the program's flags, and a failure there is
 * the program's; so flags that not every filesystem takes (O_DIRECT) go through us.
 */

#include "passthrough.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>
#ifdef ATTACHFS_PASSTHROUGH
#include <linux/fuse.h>
#endif

#include <attachfs/log.h>

#include "notifier.h"
#include "ops.h"

enum passthrough_way passthrough_decide(const struct passthrough_case *k)
{
	if (k->twin)
		return PASSTHROUGH_NOT;
	if (k->passed)
		return k->reads && k->same ? PASSTHROUGH_SHARE : PASSTHROUGH_CLASH;
	return k->reads && k->whole && !k->others ? PASSTHROUGH_TRY : PASSTHROUGH_NOT;
}

/* ---- the kernel's side of it ---- */

#ifdef ATTACHFS_PASSTHROUGH

static bool is_privileged(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};

	return syscall(SYS_capget, &header, data) == 0 &&
	       (data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN));
}

void passthrough_init(struct mount *m, struct fuse_conn_info *conn)
{
	if (!(conn->capable & FUSE_CAP_PASSTHROUGH) || !is_privileged())
		return;
	conn->want |= FUSE_CAP_PASSTHROUGH;
	m->passthrough = true;
	log_debug("mount: the kernel offers to read the cache's files itself");
}

/* The kernel's number for the file behind @fd; 0 = it will not have it. */
static int32_t backing_open(struct mount *m, int fd)
{
	struct fuse_backing_map map = {.fd = fd};
	int id = ioctl(fuse_session_fd(m->session), FUSE_DEV_IOC_BACKING_OPEN, &map);

	if (id > 0)
		return id;
	/* the reason is the same for all files: the filesystem of the cache, or a missing right */
	if (!atomic_exchange(&m->passthrough_refused, true))
		log_info("mount: the kernel does not read the cache's files itself: %s",
			 strerror(errno));
	return 0;
}

static void backing_close(struct mount *m, int32_t id)
{
	uint32_t number = (uint32_t)id;

	if (ioctl(fuse_session_fd(m->session), FUSE_DEV_IOC_BACKING_CLOSE, &number) < 0)
		log_debug("mount: passthrough: cannot let go of a file: %s", strerror(errno));
}

static void set_backing(struct fuse_file_info *fi, int32_t id)
{
	fi->backing_id = id;
	/* the page cache is not asked; the kernel refuses the two together */
	fi->keep_cache = 0;
}

#else

void passthrough_init(struct mount *m, struct fuse_conn_info *conn)
{
	(void)m;
	(void)conn;
}

static int32_t backing_open(struct mount *m, int fd)
{
	(void)m;
	(void)fd;
	return 0;
}

static void backing_close(struct mount *m, int32_t id)
{
	(void)m;
	(void)id;
}

static void set_backing(struct fuse_file_info *fi, int32_t id)
{
	(void)fi;
	(void)id;
}

#endif

/* ---- ours ---- */

static bool only_reads(int flags)
{
	return (flags & O_ACCMODE) == O_RDONLY && !(flags & (O_TRUNC | O_DIRECT));
}

void passthrough_divert_locked(struct mount *m, struct node *n)
{
	if ((!n->more->n_passed && !n->more->n_stale) || n->twinned)
		return;
	n->twinned = true;
	notifier_twins(m->notifier);
}

int passthrough_admit_locked(struct mount *m, struct node *n, uint64_t ino, int flags)
{
	const struct passthrough_case k = {
		.reads = only_reads(flags),
		.passed = n->more->n_passed,
		.same = n->more->passed_version == n->more->version,
		/* whether it can be passed through is asked when its content is known */
	};

	if (ino & NODE_TWIN)
		return 0;
	if (!n->twinned && !n->more->n_stale && passthrough_decide(&k) != PASSTHROUGH_CLASH)
		return 0;
	passthrough_divert_locked(m, n);
	return -ESTALE;
}

/* What was committed in this life is not: see the header. tree->lock held. */
static bool is_whole_locked(const struct mount *m, const struct handle *h)
{
	const struct node *n = h->node;

	return !atomic_load(&m->passthrough_refused) && n->more->view && !n->more->committed &&
	       h->version == n->more->version && !content_is_dirty(n->more->view) &&
	       content_is_complete(n->more->view);
}

/* tree->lock held. */
static enum passthrough_way way_locked(const struct mount *m, const struct handle *h, uint64_t ino)
{
	const struct node *n = h->node;
	const struct passthrough_case k = {
		.twin = n->twinned || (ino & NODE_TWIN),
		.reads = only_reads(h->flags),
		.passed = n->more->n_passed,
		/* it was when the handle was admitted, and what it opened is what it was */
		.same = true,
		.others = n->more->n_open - 1,
		.whole = is_whole_locked(m, h),
	};

	return passthrough_decide(&k);
}

/* tree->lock held: one more handle reads @content as @id. */
static void pass_locked(struct handle *h, struct content *content, int32_t id)
{
	struct node *n = h->node;

	h->passed = content_ref(content);
	node_more(n)->n_passed++;
	node_more(n)->backing_id = id;
	node_more(n)->passed_version = h->version;
	node_more(n)->passed_content = h->passed;
}

static void try_to_pass(struct mount *m, struct handle *h, struct content *view,
			struct fuse_file_info *fi)
{
	struct node *n = h->node;
	struct content_extent e;
	int32_t id = 0;

	/* one piece, none of which is to be compared with its hash first */
	if (content_map(view, 0, UINT64_MAX, &e) == 0 && e.where == CONTENT_FILE && !e.fd_off &&
	    e.len == (uint64_t)content_size(view))
		id = backing_open(m, e.fd);
	if (!id)
		return;
	tree_lock(m->tree);
	if (n->more->n_open == 1 && n->more->view == view && h->version == n->more->version) {
		pass_locked(h, view, id);
		set_backing(fi, id);
		id = 0;
	}
	tree_unlock(m->tree);
	if (id)
		backing_close(m, id);
}

void passthrough_open(struct mount *m, struct handle *h, uint64_t ino, struct fuse_file_info *fi)
{
	struct node *n = h->node;
	struct content *view = NULL;

	if (!m->passthrough)
		return;
	tree_lock(m->tree);
	switch (way_locked(m, h, ino)) {
	case PASSTHROUGH_SHARE:
		pass_locked(h, n->more->passed_content, n->more->backing_id);
		set_backing(fi, n->more->backing_id);
		break;
	case PASSTHROUGH_TRY:
		view = content_ref(n->more->view);
		break;
	case PASSTHROUGH_NOT:
	case PASSTHROUGH_CLASH:
		break;
	}
	tree_unlock(m->tree);
	if (view)
		try_to_pass(m, h, view, fi);
	content_unref(view);
}

void passthrough_release(struct mount *m, struct handle *h)
{
	struct node *n = h->node;
	struct content *passed = h->passed;
	int32_t last = 0;

	if (!passed)
		return;
	tree_lock(m->tree);
	h->passed = NULL;
	if (!--node_more(n)->n_passed) {
		last = n->more->backing_id;
		node_more(n)->backing_id = 0;
		node_more(n)->passed_content = NULL;
	}
	tree_unlock(m->tree);
	if (last)
		backing_close(m, last);
	content_unref(passed);
}
