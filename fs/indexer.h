/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_INDEXER_H
#define ATTACHFS_FS_INDEXER_H

/*
 * A desktop's indexer reads every file it can find, which is to download everything. By the name of
 * its program it is known, and gets what is here already.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mount;

/*
 * Whether thread @pid, which wants to read node @ino, is of a program of indexers= and the bytes would
 * have to be downloaded. Reads /proc only in the second case. No lock held.
 */
bool indexer_would_download(struct mount *m, uint64_t ino, pid_t pid);

#endif
