/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_BLOCK_HASHES_H
#define ATTACHFS_FS_BLOCK_HASHES_H

/*
 * The hashes of some blocks of a file, by number of the block. Pure: no I/O, no locks; the owner
 * serialises.
 *
 * In the ledger they are an array with one entry for each *whole* block of the bytes the row speaks
 * of, in order, 0 where it is not known: so what it costs depends on what is there and not on the
 * size of the file. A block is whole when all of it is in the set, the last one up to the end of the
 * file.
 *
 * All zeros is the empty set. Adding in order is O(1).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ranges.h"

struct block_hashes {
	struct ranges blocks; /* whose hash is known */
	uint64_t *at;	      /* theirs, in order; blocks.bytes of them */
	size_t room;
};

/* Never 0: that stands for a hash that is not known. */
uint64_t block_hash(const void *data, size_t len);

/* The same of an XXH3-64 that was made in steps. */
static inline uint64_t block_hash_known(uint64_t hash)
{
	return hash ? hash : 1;
}

void block_hashes_clear(struct block_hashes *h);

/* False = not known. */
bool block_hashes_get(const struct block_hashes *h, uint64_t block, uint64_t *ret_hash);

/* 0 or -ENOMEM, the set unchanged. */
int block_hashes_set(struct block_hashes *h, uint64_t block, uint64_t hash);

/* All of @more; where both know one, theirs. 0 or -ENOMEM, some of them added. */
int block_hashes_add(struct block_hashes *h, const struct block_hashes *more);

/* Those of [first, end) are not known any more. */
int block_hashes_forget(struct block_hashes *h, uint64_t first, uint64_t end);

/*
 * The numbers of the blocks that are whole in @bytes, of a file of @size bytes (-1 = not known).
 * @ret_blocks is empty before. 0 or -ENOMEM.
 */
int block_hashes_whole(const struct ranges *bytes, int64_t size, struct ranges *ret_blocks);

/*
 * The array of the ledger for @bytes of a file of @size bytes: malloc()ed, *@ret_count entries. NULL
 * without memory.
 */
uint64_t *block_hashes_pack(const struct block_hashes *h, const struct ranges *bytes, int64_t size,
			    size_t *ret_count);

/*
 * And back: replaces the set. -EINVAL when @len is not what @bytes make (the disk may be damaged),
 * -ENOMEM.
 */
int block_hashes_unpack(struct block_hashes *h, const struct ranges *bytes, int64_t size,
			const void *data, size_t len);

#endif
