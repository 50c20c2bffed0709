/* SPDX-License-Identifier: MIT */

/* One row per operation: what libfuse calls notes when a thread comes and goes, and passes on. */

#include "worker.h"

#ifdef NDEBUG

const struct fuse_lowlevel_ops *worker_watch(const struct fuse_lowlevel_ops *ops)
{
	return ops;
}

bool worker_usage(unsigned *ret_busy, int64_t *ret_longest_ms)
{
	*ret_busy = 0;
	*ret_longest_ms = 0;
	return false;
}

#else

#include <assert.h>
#include <stdatomic.h>

#include <attachfs/clock.h>
#include <attachfs/waiting.h>

static const struct fuse_lowlevel_ops *watched; /* the same for all mounts */
static _Atomic unsigned busy;
static _Atomic int64_t longest_ms;

static int64_t come(void)
{
	waiting_forbid("a thread that serves programs");
	atomic_fetch_add(&busy, 1);
	return clock_mono_ms();
}

static void go(int64_t came_ms)
{
	int64_t ms = clock_mono_ms() - came_ms, longest = atomic_load(&longest_ms);

	atomic_fetch_sub(&busy, 1);
	while (ms > longest && !atomic_compare_exchange_weak(&longest_ms, &longest, ms))
		;
}

#define WATCH(op, parameters, arguments)                                                           \
	static void watch_##op parameters                                                          \
	{                                                                                          \
		int64_t came_ms = come();                                                          \
                                                                                                   \
		watched->op arguments;                                                             \
		go(came_ms);                                                                       \
	}

static void watch_init(void *userdata, struct fuse_conn_info *conn)
{
	watched->init(userdata, conn);
}

/* clang-format off */
WATCH(lookup, (fuse_req_t req, fuse_ino_t parent, const char *name), (req, parent, name))
WATCH(forget, (fuse_req_t req, fuse_ino_t ino, uint64_t n), (req, ino, n))
WATCH(forget_multi, (fuse_req_t req, size_t count, struct fuse_forget_data *f), (req, count, f))
WATCH(getattr, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi), (req, ino, fi))
WATCH(setattr, (fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set, struct fuse_file_info *fi), (req, ino, attr, set, fi))
WATCH(readlink, (fuse_req_t req, fuse_ino_t ino), (req, ino))
WATCH(mknod, (fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev), (req, parent, name, mode, dev))
WATCH(mkdir, (fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode), (req, parent, name, mode))
WATCH(unlink, (fuse_req_t req, fuse_ino_t parent, const char *name), (req, parent, name))
WATCH(rmdir, (fuse_req_t req, fuse_ino_t parent, const char *name), (req, parent, name))
WATCH(symlink, (fuse_req_t req, const char *link, fuse_ino_t parent, const char *name), (req, link, parent, name))
WATCH(rename, (fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *as, unsigned flags), (req, parent, name, to, as, flags))
WATCH(link, (fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name), (req, ino, parent, name))
WATCH(open, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi), (req, ino, fi))
WATCH(read, (fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi), (req, ino, size, off, fi))
WATCH(write_buf, (fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off, struct fuse_file_info *fi), (req, ino, in, off, fi))
WATCH(flush, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi), (req, ino, fi))
WATCH(release, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi), (req, ino, fi))
WATCH(fsync, (fuse_req_t req, fuse_ino_t ino, int data, struct fuse_file_info *fi), (req, ino, data, fi))
WATCH(opendir, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi), (req, ino, fi))
WATCH(readdir, (fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi), (req, ino, size, off, fi))
WATCH(readdirplus, (fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi), (req, ino, size, off, fi))
WATCH(releasedir, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi), (req, ino, fi))
WATCH(fsyncdir, (fuse_req_t req, fuse_ino_t ino, int data, struct fuse_file_info *fi), (req, ino, data, fi))
WATCH(statfs, (fuse_req_t req, fuse_ino_t ino), (req, ino))
WATCH(setxattr, (fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags), (req, ino, name, value, size, flags))
WATCH(getxattr, (fuse_req_t req, fuse_ino_t ino, const char *name, size_t size), (req, ino, name, size))
WATCH(listxattr, (fuse_req_t req, fuse_ino_t ino, size_t size), (req, ino, size))
WATCH(removexattr, (fuse_req_t req, fuse_ino_t ino, const char *name), (req, ino, name))
WATCH(create, (fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi), (req, parent, name, mode, fi))
WATCH(fallocate, (fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi), (req, ino, mode, off, len, fi))
WATCH(lseek, (fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi), (req, ino, off, whence, fi))
/* clang-format on */

const struct fuse_lowlevel_ops *worker_watch(const struct fuse_lowlevel_ops *ops)
{
	static const struct fuse_lowlevel_ops table = {
		.init = watch_init,
		.lookup = watch_lookup,
		.forget = watch_forget,
		.forget_multi = watch_forget_multi,
		.getattr = watch_getattr,
		.setattr = watch_setattr,
		.readlink = watch_readlink,
		.mknod = watch_mknod,
		.mkdir = watch_mkdir,
		.unlink = watch_unlink,
		.rmdir = watch_rmdir,
		.symlink = watch_symlink,
		.rename = watch_rename,
		.link = watch_link,
		.open = watch_open,
		.read = watch_read,
		.write_buf = watch_write_buf,
		.flush = watch_flush,
		.release = watch_release,
		.fsync = watch_fsync,
		.opendir = watch_opendir,
		.readdir = watch_readdir,
		.readdirplus = watch_readdirplus,
		.releasedir = watch_releasedir,
		.fsyncdir = watch_fsyncdir,
		.statfs = watch_statfs,
		.setxattr = watch_setxattr,
		.getxattr = watch_getxattr,
		.listxattr = watch_listxattr,
		.removexattr = watch_removexattr,
		.create = watch_create,
		.fallocate = watch_fallocate,
		.lseek = watch_lseek,
	};

	/* an operation that has no row here would be lost */
	for (size_t i = 0; i < sizeof(table) / sizeof(void *); i++)
		assert(!((void *const *)&table)[i] == !((void *const *)ops)[i]);
	watched = ops;
	return &table;
}

bool worker_usage(unsigned *ret_busy, int64_t *ret_longest_ms)
{
	*ret_busy = atomic_load(&busy);
	*ret_longest_ms = atomic_load(&longest_ms);
	return true;
}

#endif
