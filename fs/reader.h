/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_READER_H
#define ATTACHFS_FS_READER_H

/*
 * Brings the bytes readers wait for. For each clean content that is open there is a *feed*, which
 * knows where on the server the bytes are, and holds the streams that fill it:
 *
 *	small     size <= READER_WHOLE_BYTES: one stream for all that is missing
 *	random    a read away from every stream: one bounded range, the blocks that were asked for
 *	forward   a read where an earlier range ended: one open-ended stream, which runs ahead of its reader by a window that doubles from
 *	          READER_WINDOW_MIN to READER_WINDOW_MAX and is paused there, resumed when the reader follows, dropped when he does not
 *
 * Bytes go to the content store on the transfer thread; parked calls whose bytes are all there run
 * on the pool. The same range is never asked for twice at once: a read inside what a stream is
 * going to bring waits for that stream.
 *
 * Lock: reader->lock, after tree->lock, before the content's own. Not held over calls of the remote
 * that may call back.
 */

#include <stdint.h>

#include <attachfs/content.h>

#include "calls.h"
#include "tree.h"

#define READER_WHOLE_BYTES (4u << 20)
#define READER_WINDOW_MIN  (256u << 10)
#define READER_WINDOW_MAX  (64u << 20)

struct reader;

int reader_new(struct mount *m, struct reader **ret_reader);
/* The engine is gone already: no stream runs. */
void reader_free(struct reader *r);

/*
 * Clean content @c is open from now on: its bytes are @file's on the server. Takes copies. Balanced
 * by reader_close(). 0 or -ENOMEM. tree->lock may be held.
 */
int reader_open(struct reader *r, struct content *c, const struct remote_file *file,
		const char *collection, uint64_t node);
void reader_close(struct reader *r, struct content *c);

/*
 * Bytes [off, end) of @clean are missing for @call: park it until they are there. False: they are
 * there by now, or the call cannot be helped (*@ret_error); it is not parked then.
 */
bool reader_park(struct reader *r, struct call *call, struct content *clean, uint64_t off,
		 uint64_t end, int *ret_error);

/*
 * A call gave up on [off, end) of @clean: others who ask again in the same moment hear it at once.
 */
void reader_failed(struct reader *r, struct content *clean, int error, uint64_t off, uint64_t end);

/*
 * Bring everything that is missing of @clean, for an upload of what lies over it. @done runs on the
 * transfer thread or at once: 0, or the errno of the fetch.
 */
void reader_fetch_all(struct reader *r, struct content *clean, void (*done)(void *ctx, int error),
		      void *ctx);

/* Once a second: drop streams that nobody follows. */
void reader_tick(struct reader *r);

#endif
