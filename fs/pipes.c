/* SPDX-License-Identifier: MIT */

/* A few pipes, kept when they are empty again: what an answer has left would be in the next one. */

#include "pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEPT 8 /* as many as libfuse has threads for, mostly */

struct pipes {
	pthread_mutex_t lock;
	struct pipes_pipe kept[KEPT]; /* lock */
	unsigned n;		      /* lock */
};

static void shut(struct pipes_pipe pipe)
{
	close(pipe.from);
	close(pipe.to);
}

int pipes_new(struct pipes **ret_pipes)
{
	struct pipes *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	*ret_pipes = p;
	return 0;
}

void pipes_free(struct pipes *p)
{
	if (!p)
		return;
	while (p->n > 0)
		shut(p->kept[--p->n]);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int take(struct pipes *p, struct pipes_pipe *ret_pipe)
{
	bool kept;
	int ends[2];

	pthread_mutex_lock(&p->lock);
	kept = p->n > 0;
	if (kept)
		*ret_pipe = p->kept[--p->n];
	pthread_mutex_unlock(&p->lock);
	if (kept)
		return 0;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	*ret_pipe = (struct pipes_pipe){.from = ends[0], .to = ends[1]};
	return 0;
}

void pipes_put(struct pipes *p, struct pipes_pipe pipe)
{
	int left = 1;
	bool keep = ioctl(pipe.from, FIONREAD, &left) == 0 && left == 0;

	pthread_mutex_lock(&p->lock);
	keep = keep && p->n < KEPT;
	if (keep)
		p->kept[p->n++] = pipe;
	pthread_mutex_unlock(&p->lock);
	if (!keep)
		shut(pipe);
}

/* Room for @len bytes from the middle of a page on. */
static bool has_room(struct pipes_pipe pipe, size_t len)
{
	long page = sysconf(_SC_PAGESIZE);
	size_t need = (len / (size_t)page + 2) * (size_t)page;
	int room = fcntl(pipe.to, F_GETPIPE_SZ);

	return room >= 0 &&
	       ((size_t)room >= need || fcntl(pipe.to, F_SETPIPE_SZ, (int)need) >= (int)need);
}

int pipes_fill(struct pipes *p, int fd, uint64_t off, size_t len, struct pipes_pipe *ret_pipe)
{
	struct pipes_pipe pipe;
	off_t at = (off_t)off;
	size_t left = len;

	if (take(p, &pipe) < 0)
		return -EAGAIN;
	if (has_room(pipe, len))
		while (left > 0) {
			ssize_t n = splice(fd, &at, pipe.to, NULL, left, SPLICE_F_NONBLOCK);

			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				break;
			left -= (size_t)n;
		}
	if (left > 0) {
		pipes_put(p, pipe);
		return -EAGAIN;
	}
	*ret_pipe = pipe;
	return 0;
}

/* ---- whether they work ---- */

/* From a file to a pipe, as answers begin. */
static bool takes_from_file(struct pipes_pipe pipe)
{
	int fd = memfd_create("attachfs", MFD_CLOEXEC);
	off_t at = 0;
	char c = 'x';
	bool works = fd >= 0 && write(fd, &c, 1) == 1 &&
		     splice(fd, &at, pipe.to, NULL, 1, SPLICE_F_NONBLOCK) == 1 &&
		     read(pipe.from, &c, 1) == 1;

	if (fd >= 0)
		close(fd);
	return works;
}

/*
 * From a pipe to the connection, as they end: a notification of a node that never was. The kernel
 * that takes it says that it does not know the node.
 */
static bool gives_to_kernel(struct pipes_pipe pipe, struct fuse_session *session)
{
	struct {
		struct fuse_out_header header;
		struct fuse_notify_inval_inode_out inode;
	} note = {.header = {.len = sizeof(note), .error = FUSE_NOTIFY_INVAL_INODE},
		  .inode = {.ino = UINT64_MAX, .off = -1}};

	if (write(pipe.to, &note, sizeof(note)) != (ssize_t)sizeof(note))
		return false;
	return splice(pipe.from, NULL, fuse_session_fd(session), NULL, sizeof(note), 0) > 0 ||
	       errno == ENOENT;
}

bool pipes_work(struct fuse_session *session)
{
	int ends[2];
	struct pipes_pipe pipe;
	bool work;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return false;
	pipe = (struct pipes_pipe){.from = ends[0], .to = ends[1]};
	work = takes_from_file(pipe) && gives_to_kernel(pipe, session);
	shut(pipe);
	return work;
}
