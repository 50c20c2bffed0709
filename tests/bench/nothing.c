/* SPDX-License-Identifier: MIT */

/*
 * bench-nothing MOUNTPOINT: a filesystem that accepts every new file and keeps none of it. What a
 * program takes to write to it is the kernel's and libfuse's share, which no filesystem behind FUSE
 * gets below. Set up as attachfs is: several threads, permissions checked by the kernel, extended
 * attributes, a close that is answered.
 */

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <fuse_lowlevel.h>

#define CACHE_S	      300.0
#define REQUEST_BYTES (1u << 20)

static _Atomic uint64_t last_ino = FUSE_ROOT_ID;

static void fill_stat(struct stat *st, fuse_ino_t ino)
{
	*st = (struct stat){.st_ino = ino, .st_nlink = 1, .st_mode = S_IFREG | 0644};
	if (ino == FUSE_ROOT_ID)
		st->st_mode = S_IFDIR | 0755;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = REQUEST_BYTES;
	if (conn->capable & FUSE_CAP_HANDLE_KILLPRIV)
		conn->want |= FUSE_CAP_HANDLE_KILLPRIV;
	conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param none = {.entry_timeout = CACHE_S};

	(void)parent;
	(void)name;
	fuse_reply_entry(req, &none);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	fill_stat(&st, ino);
	fuse_reply_attr(req, &st, CACHE_S);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	(void)attr;
	(void)to_set;
	op_getattr(req, ino, fi);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct fuse_entry_param e = {.entry_timeout = CACHE_S, .attr_timeout = CACHE_S};

	(void)parent;
	(void)name;
	(void)mode;
	e.ino = atomic_fetch_add(&last_ino, 1) + 1;
	fill_stat(&e.attr, e.ino);
	fuse_reply_create(req, &e, fi);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	(void)ino;
	(void)name;
	(void)size;
	fuse_reply_err(req, ENODATA);
}

static void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
			 struct fuse_file_info *fi)
{
	(void)ino;
	(void)off;
	(void)fi;
	fuse_reply_write(req, fuse_buf_size(in));
}

static void op_close(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	op_close(req, ino, fi);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		      const char *newname, unsigned flags)
{
	(void)parent;
	(void)name;
	(void)newparent;
	(void)newname;
	(void)flags;
	fuse_reply_err(req, 0);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	(void)ino;
	(void)size;
	(void)off;
	(void)fi;
	fuse_reply_buf(req, NULL, 0);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.create = op_create,
	.getxattr = op_getxattr,
	.write_buf = op_write_buf,
	.flush = op_close,
	.release = op_close,
	.fsync = op_fsync,
	.rename = op_rename,
	.readdir = op_readdir,
};

int main(int argc, char **argv)
{
	char *options[] = {(char *)"bench-nothing", (char *)"-o",
			   (char *)"default_permissions,fsname=nothing", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, options);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct fuse_session *session;
	int r;

	if (argc != 2 || !config)
		return 2;
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!session || fuse_session_mount(session, argv[1]) != 0)
		return 1;
	fuse_set_signal_handlers(session);
	r = fuse_session_loop_mt(session, config);
	fuse_remove_signal_handlers(session);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	fuse_loop_cfg_destroy(config);
	fuse_opt_free_args(&args);
	return r < 0;
}
