/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_PIPES_H
#define ATTACHFS_FS_PIPES_H

/*
 * Bytes of the cache's files on their way to the kernel without a copy. libfuse can splice from a
 * file by itself, but does not tell when the disk fails: of a bad sector in the middle it makes a
 * short answer, which the kernel takes for the end of the file. So they are brought into a pipe
 * here, where it is seen whether they all came, and libfuse is given that pipe.
 *
 * Threads: any. Pipes are kept for the next.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fuse_session;
struct pipes;

struct pipes_pipe {
	int from, to; /* read end, write end */
};

/* 0 or -ENOMEM. */
int pipes_new(struct pipes **ret_pipes);
/* All pipes have been put back. NULL is fine. */
void pipes_free(struct pipes *p);

/*
 * A pipe that holds the @len bytes of @fd at @off. 0: *@ret_pipe is to be put back. -EAGAIN: not all
 * of them, whatever the reason: the disk, the file's end, no pipe, no splice in this kernel. Who reads
 * them by pread() then finds out.
 */
int pipes_fill(struct pipes *p, int fd, uint64_t off, size_t len, struct pipes_pipe *ret_pipe);
/* Whatever is left in it goes. */
void pipes_put(struct pipes *p, struct pipes_pipe pipe);

/*
 * Whether this kernel (or what stands in front of it: seccomp, a sandbox) splices at all, and to
 * @session's connection. Asked once, before the first request is served.
 */
bool pipes_work(struct fuse_session *session);

#endif
