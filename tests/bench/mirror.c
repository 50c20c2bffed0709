/* SPDX-License-Identifier: MIT */

/*
 * bench-mirror DIR MOUNTPOINT: a directory as it is now, to be listed and read through FUSE and nothing else
 * behind it. What a program takes to read from it is what the kernel and libfuse leave to a filesystem
 * that has its bytes in local files. Set up as attachfs is: several threads, large requests, answers
 * straight from the file.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fuse_lowlevel.h>

#define CACHE_S	      300.0
#define REQUEST_BYTES (1u << 20)
#define NODES_MAX     200000
#define PATH_BYTES    512

/* Children are next to each other, by name; an inode number is a node's place plus 1, the root's first. */
struct entry {
	char *path; /* below @dir; its last part is the name */
	const char *name;
	size_t first, n; /* children */
};

static int dir;
static struct entry nodes[NODES_MAX];
static size_t n_nodes;

static int fill_stat(fuse_ino_t ino, struct stat *st)
{
	if (ino > n_nodes)
		return ENOENT;
	if (fstatat(dir, nodes[ino - 1].path, st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno;
	st->st_ino = ino;
	return 0;
}

static int fill_entry(size_t at, struct fuse_entry_param *ret_e)
{
	memset(ret_e, 0, sizeof(*ret_e));
	ret_e->ino = at + 1;
	ret_e->entry_timeout = ret_e->attr_timeout = CACHE_S;
	return fill_stat(ret_e->ino, &ret_e->attr);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = REQUEST_BYTES;
	conn->max_readahead = REQUEST_BYTES;
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	conn->want |= conn->capable & FUSE_CAP_SPLICE_WRITE;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct entry *p = &nodes[parent - 1], sought = {.name = name};
	const struct entry *found = bsearch(&sought, &nodes[p->first], p->n, sizeof(*p), by_name);
	struct fuse_entry_param e;

	if (!found || fill_entry((size_t)(found - nodes), &e))
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
	int fd = openat(dir, nodes[ino - 1].path, O_RDONLY | O_CLOEXEC);

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

static void reply_entries(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, int plus)
{
	const struct entry *p = &nodes[ino - 1];
	char *buf = malloc(size);
	size_t used = 0;

	for (size_t i = (size_t)off; buf && i < p->n; i++) {
		struct fuse_entry_param e;
		size_t n;

		if (fill_entry(p->first + i, &e))
			continue;
		n = plus ? fuse_add_direntry_plus(req, buf + used, size - used,
						  nodes[p->first + i].name, &e, (off_t)i + 1)
			 : fuse_add_direntry(req, buf + used, size - used, nodes[p->first + i].name,
					     &e.attr, (off_t)i + 1);
		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	(void)fi;
	reply_entries(req, ino, size, off, 0);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			   struct fuse_file_info *fi)
{
	(void)fi;
	reply_entries(req, ino, size, off, 1);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.open = op_open,
	.read = op_read,
	.release = op_release,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
};

static int add_node(const char *parent, const char *name)
{
	struct entry *e = &nodes[n_nodes];
	char path[PATH_BYTES];

	if (n_nodes == NODES_MAX)
		return -ENOSPC;
	snprintf(path, sizeof(path), "%s%s%s", parent, parent[0] ? "/" : "", name);
	e->path = strdup(path);
	if (!e->path)
		return -ENOMEM;
	e->name = e->path + strlen(e->path) - strlen(name);
	n_nodes++;
	return 0;
}

/* What is in a node that is a directory. */
static int read_names(struct entry *of)
{
	const char *below = of == nodes ? "" : of->path;
	int fd = openat(dir, of->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d)
		return errno == ENOTDIR ? 0 : -errno;
	of->first = n_nodes;
	while (!r && (e = readdir(d)))
		if (e->d_name[0] != '.')
			r = add_node(below, e->d_name);
	of->n = n_nodes - of->first;
	qsort(&nodes[of->first], of->n, sizeof(*of), by_name);
	closedir(d);
	return r;
}

static int read_tree(void)
{
	int r = add_node("", ".");

	for (size_t i = 0; i < n_nodes && !r; i++)
		r = read_names(&nodes[i]);
	return r;
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
	if (dir < 0 || read_tree() < 0)
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
