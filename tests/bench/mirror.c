/* SPDX-License-Identifier: MIT */

/*
 * bench-mirror DIR MOUNTPOINT: the files of one directory, to be read through FUSE and nothing else
 * behind it. What a program takes to read from it is what the kernel and libfuse leave to a filesystem
 * that has its bytes in local files. Set up as attachfs is: several threads, large requests, answers
 * straight from the file.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fuse_lowlevel.h>

#define CACHE_S	      300.0
#define REQUEST_BYTES (1u << 20)
#define FILES_MAX     4096
#define INO_FIRST     2

static int dir;
static char *names[FILES_MAX];
static size_t n_names;

/* The attributes of an inode number, which counts the names. */
static int fill_stat(fuse_ino_t ino, struct stat *st)
{
	if (ino == FUSE_ROOT_ID) {
		if (fstat(dir, st) < 0)
			return errno;
	} else if (ino - INO_FIRST >= n_names) {
		return ENOENT;
	} else if (fstatat(dir, names[ino - INO_FIRST], st, AT_SYMLINK_NOFOLLOW) < 0) {
		return errno;
	}
	st->st_ino = ino;
	return 0;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = REQUEST_BYTES;
	conn->max_readahead = REQUEST_BYTES;
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	conn->want |= conn->capable & FUSE_CAP_SPLICE_WRITE;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {.entry_timeout = CACHE_S, .attr_timeout = CACHE_S};

	(void)parent;
	for (size_t i = 0; i < n_names && !e.ino; i++)
		if (!strcmp(names[i], name))
			e.ino = i + INO_FIRST;
	if (!e.ino || fill_stat(e.ino, &e.attr))
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_entry(req, &e);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int error = fill_stat(ino, &st);

	(void)fi;
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_attr(req, &st, CACHE_S);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int fd = openat(dir, names[ino - INO_FIRST], O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	fi->fh = (uint64_t)fd;
	fi->keep_cache = 1;
	if (fuse_reply_open(req, fi) < 0)
		close(fd);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);

	(void)ino;
	buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	buf.buf[0].fd = (int)fi->fh;
	buf.buf[0].pos = off;
	fuse_reply_data(req, &buf, 0);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	close((int)fi->fh);
	fuse_reply_err(req, 0);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	char *buf = malloc(size);
	size_t used = 0;

	(void)ino;
	(void)fi;
	for (size_t i = (size_t)off; buf && i < n_names; i++) {
		struct stat st = {.st_ino = i + INO_FIRST, .st_mode = S_IFREG};
		size_t n = fuse_add_direntry(req, buf + used, size - used, names[i], &st,
					     (off_t)i + 1);

		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.open = op_open,
	.read = op_read,
	.release = op_release,
	.readdir = op_readdir,
};

static int read_names(void)
{
	DIR *d = fdopendir(dup(dir));
	struct dirent *e;

	while (d && n_names < FILES_MAX && (e = readdir(d)))
		if (e->d_name[0] != '.' && !(names[n_names++] = strdup(e->d_name)))
			return -ENOMEM;
	return d ? closedir(d) : -errno;
}

int main(int argc, char **argv)
{
	char *options[] = {(char *)"bench-mirror", (char *)"-o",
			   (char *)"default_permissions,ro,fsname=mirror", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, options);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct fuse_session *session;
	int r;

	if (argc != 3 || !config)
		return 2;
	dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || read_names() < 0)
		return 1;
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!session || fuse_session_mount(session, argv[2]) != 0)
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
