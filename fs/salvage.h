/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_SALVAGE_H
#define ATTACHFS_FS_SALVAGE_H

/*
 * What a user wrote, brought together from the files of a content store whose ledger is damaged, so
 * that it can be used without attachfs. A file that was written in part lies over what it was before:
 * as far as that is here, and right, it is put where nothing was written. What is nowhere here stays
 * missing, and is told: nothing may look whole that is not.
 */

#include <sqlite3.h>
#include <stdint.h>

#include "ranges.h"

struct salvaged {
	uint64_t file; /* names it in objects/ */
	uint64_t size;
	struct ranges present; /* the rest of the @size bytes reads as zeros */
};

/*
 * Puts all there is of dirty content @id into its own file and cuts that to its size. Nobody else has
 * the store open. Again does no harm. 0, or -errno: then nothing of it is to be had. *@ret is to be
 * cleared by salvaged_clear() after 0.
 */
int salvage_content(sqlite3 *db, int objects_fd, uint64_t id, struct salvaged *ret);
void salvaged_clear(struct salvaged *s);

#endif
