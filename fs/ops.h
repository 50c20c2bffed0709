/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_OPS_H
#define ATTACHFS_FS_OPS_H

/*
 * The kernel's operations, by noun: ops.c (entries and attributes), ops_dir.c (directories),
 * ops_name.c (create, remove, rename), ops_file.c (bytes), ops_attr.c, ops_synced.c (waiting for the
 * server), virtual.c (.by-id, .record.json), control.c (.attachfs). Each runs on a FUSE worker, or again on the pool after it
 * was parked, and never waits for the network.
 */

#include <errno.h>
#include <fuse_lowlevel.h>

#include "calls.h"
#include "mount.h"
#include "tree.h"

/* Inode numbers without a node: made of a node's id and one of these. */
#define VIRTUAL_BY_ID (UINT64_C(1) << 62) /* .by-id of a directory */
#define VIRTUAL_LINK  (UINT64_C(1) << 61) /* a link in it, of the node it leads to */
#define VIRTUAL_JSON  (UINT64_C(1) << 60) /* .record.json of a record */
#define VIRTUAL_ALIAS (UINT64_C(1) << 59) /* an id in the root that leads to the name beside it */
#define VIRTUAL_MASK  (VIRTUAL_BY_ID | VIRTUAL_LINK | VIRTUAL_JSON | VIRTUAL_ALIAS)

/* No server takes more, and no local filesystem keeps more in one file. */
#define FILE_SIZE_MAX ((off_t)1 << 44)

static inline bool is_virtual(uint64_t ino)
{
	return (ino & VIRTUAL_MASK) != 0;
}

static inline bool is_control(uint64_t ino)
{
	return ino > NODE_ID_ROOT && ino < NODE_ID_FIRST;
}

/* A regular file's handle. */
struct handle {
	struct opened opened;
	struct node *node; /* alive: the node counts its handles */
	uint32_t version;  /* of the node's content when opened: another one now = stale */
	int flags;
	bool twin; /* opened by the twin (fs/passthrough.h) */
	/* tree->lock: closed (it may be duplicated and mapped yet), and nothing was written since */
	bool flushed;
	bool begun;	 /* tree->lock: its beginning was read */
	bool error_told; /* fsync reported the node's write-back error through this handle */
	/* referenced: what the kernel reads without us; NULL = it does not (fs/passthrough.h) */
	struct content *passed;
};

static inline struct handle *handle_of(uint64_t fh)
{
	return (struct handle *)(uintptr_t)fh;
}

/* ops.c */

/*
 * Answer with the entry of @n: counts the kernel's reference under tree->lock, which is held on
 * entry and released. Finishes @c.
 */
void reply_entry_unlock(struct call *c, struct node *n);
/* How long the kernel may keep the attributes of @n. tree->lock held. */
double attr_timeout_locked(const struct mount *m, const struct node *n);
void fill_entry_locked(const struct mount *m, const struct node *n, struct fuse_entry_param *e);
/* One kernel reference more or less. tree->lock held / not held. */
void forget_node(struct mount *m, uint64_t ino, uint64_t nlookup);
/*
 * The directory @ino, listed as far as lookups in it need. tree->lock is held on entry, and on
 * return when it answers a node; else the lock is released and @c is parked or answered.
 */
struct node *need_dir_locked(struct call *c, uint64_t ino);
/* The same, or as much of it as has come: see lister_need_some_locked(). */
struct node *need_some_locked(struct call *c, uint64_t ino, uint64_t *ret_mark);
/*
 * Before tree_seen(@n) is shown: its listing, where its only record stands in its place. False: @c
 * was parked. tree->lock held.
 */
bool need_seen_locked(struct call *c, struct node *n);

/* ops_dir.c */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

/* ops_name.c */
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	       const char *newname, unsigned int flags);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi);
/* Out of its directory, as unlink and rename over do it. tree->lock held. */
void remove_node_locked(struct mount *m, struct node *n);

/* ops_file.c */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
		  struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi);
/* A handle for @n, which counts it. tree->lock held. NULL without memory. */
struct handle *handle_new_locked(struct mount *m, struct node *n, int flags);
/* Its version was replaced on the server: no mix of two. tree->lock held. */
bool handle_is_stale_locked(const struct handle *h);
/* The kernel opened it by the twin. Once, tree->lock held. */
void handle_of_twin_locked(struct handle *h);
void handle_free_locked(struct mount *m, struct handle *h);
void handle_drop(struct mount *m, struct handle *h);

/* ops_read.c */
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
/*
 * Whether some of [off, off+len) of @view, which is @n's, is neither here nor zeros: *@ret_missing. Checks what is
 * doubted. Long, no lock.
 */
bool is_missing(struct mount *m, const struct node *n, struct content *view, uint64_t off,
		uint64_t len, struct content_extent *ret_missing);
/* Park for it. False: it was not, and *@ret_error says why, or it came in between. No lock. */
bool park_missing(struct call *c, struct node *n, const struct content_extent *missing,
		  int *ret_error);

/*
 * @len bytes from @off of a content that are all here, and checked; -EAGAIN when some are not (any
 * more), -EIO when it is shorter. No lock.
 */
int gather_content(struct content *view, uint64_t off, char *to, uint64_t len);

/* pin.c */
#define PIN_XATTR "user.attachfs.pin"
bool pin_is_set(const struct node *n);
/* 0, or -EINVAL: not a value of the attribute. */
int pin_check_value(const char *value, size_t len);
/* @c is behind the name of @n now. NULL is fine. tree->lock held. */
void pin_content_locked(const struct node *n, struct content *c);
/* The attribute was set or removed: keep what is behind the name, and fetch it. No lock held. */
void pin_changed(struct mount *m, uint64_t node);
/* Have what replaces the content of pinned files on the server fetched, too. Once, at the start. */
void pin_follow(struct mount *m);

/* ops_synced.c */

/*
 * Whether the server has what @n wants, or *@ret_error says why not; else @c is parked and will run
 * again. @bit of c->step is the caller's for it, 0 at first. tree->lock held.
 */
bool node_synced_locked(struct call *c, struct node *n, int bit, int *ret_error);
/*
 * Finishes @c with the server's answer for the nodes of these ids (0 = none; one that is not there
 * any more is fine). No lock.
 */
void reply_synced(struct call *c, uint64_t node, uint64_t other);
/* Of a rename or unlink: the kernel is to look its names up again. */
void forget_names(const struct call *c);

/* file.c: what is behind a file's name. */

/* Make sure that the node's view is there. 0, or -errno. tree->lock held. */
int file_view_locked(struct mount *m, struct node *n);
/*
 * An OPEN dirty content to write to, referenced in *@ret_content; made over the view when it is
 * sealed or clean. tree->lock held.
 */
int file_writable_locked(struct mount *m, struct node *n, struct content **ret_content);
/* Start from nothing: O_TRUNC, truncate to 0. tree->lock held. */
int file_empty_locked(struct mount *m, struct node *n);
/*
 * What was written so far becomes what the user wants: seals, puts the row. Returns after the
 * ledger's commit: 0 or -errno. No lock held.
 */
int file_commit(struct mount *m, struct node *n);
/*
 * What was written since the last commit can never be whole: back to what was committed, or gone if
 * nothing ever was. The program is to be told. No lock held.
 */
void file_abandon(struct mount *m, struct node *n);
/*
 * Missing bytes of @clean will be asked for on behalf of @n. -ESTALE when the server has another
 * version by now. tree->lock held.
 */
int file_feed_locked(struct mount *m, struct node *n, struct content *clean);
/* The last handle went. tree->lock held. */
void file_close_locked(struct mount *m, struct node *n);

/* may.c: whether the server could do it at all. 0, or the -errno for the program. tree->lock held. */
int may_create_locked(const struct mount *m, struct node *dir, const char *shown);
int may_change_record_locked(const struct mount *m, struct node *record);
int may_write_locked(const struct mount *m, struct node *n);
int may_remove_locked(const struct mount *m, struct node *n);
/* @target: what is there under that name now, or NULL. */
int may_rename_locked(const struct mount *m, struct node *n, struct node *dir, struct node *target,
		      const char *shown);

/* ops_attr.c */
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		struct fuse_file_info *fi);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* virtual.c */
/* True: answered, lock released. The first before the entries of @dir, the second after them. */
bool virtual_lookup_locked(struct call *c, struct node *dir);
bool virtual_lookup_alias_locked(struct call *c, struct node *dir);
void virtual_lookup_link(struct call *c); /* in .by-id */
int virtual_stat_locked(struct mount *m, uint64_t ino, struct stat *st);
void virtual_readlink(fuse_req_t req, struct mount *m, uint64_t ino);

/* record_json.c: .record.json, by the inode number of virtual.c. */
/* tree->lock held. */
bool json_is_writable_locked(const struct mount *m, struct node *record);
/* What is its own; the rest is the record's. tree->lock held. */
void json_stat_locked(const struct mount *m, struct node *record, struct stat *st);
void json_open(fuse_req_t req, struct mount *m, uint64_t ino, struct fuse_file_info *fi);
void json_read(struct call *c);
void json_write(fuse_req_t req, struct mount *m, uint64_t ino, struct fuse_bufvec *in, off_t off,
		struct fuse_file_info *fi);
/* Sizes with a handle only; the rest is taken and dropped. */
void json_setattr(fuse_req_t req, struct mount *m, uint64_t ino, const struct stat *attr,
		  int to_set, struct fuse_file_info *fi);
void json_flush(fuse_req_t req, struct mount *m, uint64_t ino, struct fuse_file_info *fi);
void json_release(struct mount *m, uint64_t fh);
/*
 * File @n is renamed over the .record.json of @dir: its bytes become the wish, and it goes. Finishes
 * @c. tree->lock held on entry, released.
 */
void json_take_file_unlock(struct call *c, struct node *n, struct node *dir);
/* Fields @sent were refused: name them in @message (@size bytes) unless the server did. */
void json_name_fields(const char *sent, char *message, size_t size);
/* What was sent of the record's fields is the server's now. tree->lock held. */
void json_arrived_locked(struct mount *m, struct node *record, const char *sent);

/* control.c */
void reply_copy(struct call *c, const char *text, size_t n);
uint64_t control_lookup(uint64_t parent, const char *name); /* 0 = no such */
int control_stat(const struct mount *m, uint64_t ino, struct stat *st);
void control_open(fuse_req_t req, struct mount *m, uint64_t ino, struct fuse_file_info *fi);
void control_read(struct call *c);
void control_write(fuse_req_t req, struct mount *m, struct fuse_bufvec *in,
		   struct fuse_file_info *fi);
void control_release(struct mount *m, uint64_t fh);
/* The n-th entry of .attachfs/: NULL past the end. */
const char *control_entry(size_t index, uint64_t *ret_ino);

#endif
