/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_BLOCK_HASHES_XXH_H
#define ATTACHFS_FS_BLOCK_HASHES_XXH_H

/*
 * xxHash for who hashes much: with the widest registers that the processor has, where the library can choose
 * at run time, which makes it three times as fast as what every processor has. The hashes are the same.
 */

#include <xxhash.h>

#ifdef ATTACHFS_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

#endif
