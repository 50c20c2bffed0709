/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_CONTENT_LOAD_H
#define ATTACHFS_FS_CONTENT_LOAD_H

/*
 * Inside the start of the store: content_load.c has the rows and judges them, content_scan.c the files
 * there are, content_torn.c what a power failure took.
 */

#include "content_private.h"

/* A row while it is being judged. */
struct loaded {
	uint64_t id, file, base, before;
	uint64_t charged;	 /* what the file takes on the disk */
	uint64_t inode;		 /* 0 = it has no other name */
	int64_t file_size;	 /* -1 = there is no file */
	struct content *content; /* NULL: a reminder to delete, or refused */
	bool reminder;
	bool dropped;	/* by its owner */
	bool needed;	/* below a dirty one that is wanted or needed itself */
	uint64_t shown; /* needed: how much of it that one shows */
	bool suspect, unsynced;
	bool torn; /* or over one that is */
};

struct load {
	struct content_store *store;
	struct loaded *rows; /* by id */
	size_t count, room;
	size_t *moved; /* indices of rows whose file has another number than they */
	size_t moved_count, moved_room;
	char **orphans; /* names below objects/ */
	size_t orphan_count, orphan_room;
};

/* content_load.c */
/* Room for one more in an array of @count elements of @size bytes. 0 or -ENOMEM. */
int content_load_room(void **array, size_t *room, size_t count, size_t size);
/* NULL = none. */
struct loaded *content_load_row(struct load *load, uint64_t id);
/*
 * The row whose file it is. Two may claim one only if the ledger was tampered with: then the first
 * has it.
 */
struct loaded *content_load_file(struct load *load, uint64_t file);

/* content_scan.c */
/* Look at every file: rows learn of theirs, the rest are orphans. 0 or -errno. */
int content_load_scan(struct load *load, const char *dir);
uint64_t content_load_count(int dir_fd);
/* Empty ones are deleted, others go to lost+found. */
void content_load_orphans(struct load *load);

/* content_torn.c */
void content_load_find_torn(struct load *load);
/* @torn was wanted: so is what was there before it. */
void content_load_want_before(struct load *load, const struct loaded *torn);
/* 0 or -ENOMEM */
int content_load_tell_torn(struct load *load);

#endif
