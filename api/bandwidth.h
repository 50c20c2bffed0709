/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_API_BANDWIDTH_H
#define ATTACHFS_API_BANDWIDTH_H

/*
 * How many bytes a second go in one direction, and whose: a bucket for each class. Each gets its share of what comes
 * in, and what one has no room for goes to the others, those first for which a program waits: so all is used by whoever
 * is alone, and nobody waits for ever. A bucket holds a fifth of a second, so that who has been idle is served at once.
 *
 * Pure: the owner serialises, and says what time it is. All zeros is no limit.
 */

#include <stdbool.h>
#include <stdint.h>

#include <attachfs/transfer.h>

#define BANDWIDTH_MAX (UINT64_C(1) << 40) /* bytes a second; more is the same */

struct bandwidth {
	uint64_t rate; /* bytes a second; 0 = no limit */
	int64_t at_ms; /* the buckets are as of then */
	int64_t milli
		[TRANSFER_CLASSES]; /* thousandths of bytes that may go; below 0 = went too early */
};

/* Buckets full. */
void bandwidth_begin(struct bandwidth *b, uint64_t rate, int64_t now_ms);

/* Whether some bytes of @class may go now. */
bool bandwidth_may(struct bandwidth *b, enum transfer_class class, int64_t now_ms);

/* So many went. More than there were is fine: the class waits the longer for its next. */
void bandwidth_went(struct bandwidth *b, enum transfer_class class, uint64_t bytes);

/* After bandwidth_may() said no: when to ask again, in milliseconds from now. */
int64_t bandwidth_wait_ms(const struct bandwidth *b, enum transfer_class class);

#endif
