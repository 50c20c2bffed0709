/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_RECORDS_H
#define ATTACHFS_FS_RECORDS_H

/*
 * Records of a collection that the server does not list (caps.unlisted_collection): made by mkdir,
 * found by looking up their id, forgotten by rmdir.
 */

#include <stdbool.h>
#include <sys/types.h>

#include <fuse_lowlevel.h>

#include "calls.h"
#include "tree.h"

/*
 * The lookup @c found nothing in @collection: where its name may be the id of a record, the server is
 * asked, once. True: @c was parked and tree->lock, which is held on entry, released.
 */
bool records_ask_unlock(struct call *c, struct node *collection);

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);

#endif
