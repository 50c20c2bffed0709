/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_PASSTHROUGH_H
#define ATTACHFS_FS_PASSTHROUGH_H

/*
 * FUSE passthrough: the kernel reads a file of the cache itself, and we hear of the open and the close
 * only. It takes libfuse >= 3.17 to build, and Linux >= 6.9 and CAP_SYS_ADMIN to run; where one of them
 * is missing every file is read through us, and nothing here does anything.
 *
 * Only a clean content that is complete, and whose bytes have been verified since the start, is passed
 * through, to a handle that only reads. Such a handle stays with what it opened: neither a new version
 * on the server nor what is written here meanwhile shows in it. So what was written in this life of
 * the daemon is not passed through: it may well be followed while it grows.
 *
 * The kernel serves all handles of one inode in one way, either through its page cache or from one and
 * the same file, and an open that is answered otherwise fails with EIO. But a writer, or a reader of a
 * newer version, must be able to open a file that others have passed through. So a node may have two
 * inodes: its own, and its twin (NODE_TWIN), which is never passed through:
 *
 *	open of the own inode		answer
 *	no handle passed through	as the kernel likes: passed through if this handle is the only one
 *	... the same version, reading	shares the file
 *	... anything else		ESTALE: the kernel looks the name up again and is given the twin
 *	handles of a version that was	the same: the page cache is the inode's, and what is read of
 *	replaced on the server		the new one now would be found there by the old ones
 *
 * From then on lookups give the twin, until the kernel has forgotten both. They share the node, and
 * with it st_ino, attributes and content.
 */

#include <stdbool.h>
#include <stdint.h>

struct content;
struct fuse_conn_info;
struct fuse_file_info;
struct handle;
struct mount;
struct node;

/* What is known when a file is opened; see passthrough_decide(). */
struct passthrough_case {
	bool twin;	 /* the inode that is opened is the twin, or there is one already */
	bool reads;	 /* the handle will only read, through the page cache */
	unsigned passed; /* handles that are passed through */
	bool same;	 /* ... which have the version that is opened now */
	unsigned others; /* handles of any kind besides the one that is opened */
	bool whole;	 /* clean, complete, and not written here; its bytes are asked about later */
};

enum passthrough_way {
	PASSTHROUGH_NOT,   /* through us */
	PASSTHROUGH_TRY,   /* by itself, if the kernel likes */
	PASSTHROUGH_SHARE, /* along with those that are there: no other way */
	PASSTHROUGH_CLASH, /* through us, but by the twin */
};

/* Pure. Of the twin itself it is asked with @twin and nothing passed. */
enum passthrough_way passthrough_decide(const struct passthrough_case *k);

/* From FUSE_INIT: take what the kernel offers. */
void passthrough_init(struct mount *m, struct fuse_conn_info *conn);

/*
 * Whether @ino of @n may be opened with @flags: 0, or -ESTALE, and then lookups give the twin. A
 * handle is made for it before the lock is released. tree->lock held.
 */
int passthrough_admit_locked(struct mount *m, struct node *n, uint64_t ino, int flags);

/* Of a handle that was admitted, before the reply: sets what of @fi is needed. No lock held. */
void passthrough_open(struct mount *m, struct handle *h, uint64_t ino, struct fuse_file_info *fi);

/* The kernel has let go of the handle, or never got it. No lock held. */
void passthrough_release(struct mount *m, struct handle *h);

/*
 * A name of @n is about to be answered together with a handle that goes through us, which cannot be
 * sent to look again. tree->lock held.
 */
void passthrough_divert_locked(struct mount *m, struct node *n);

#endif
