/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_READER_H
#define ATTACHFS_FS_READER_H

/*
 * Brings the bytes readers wait for. For each clean content that is open there is a *feed*, which
 * knows where on the server the bytes are, and holds the streams that fill it (window.h decides):
 *
 *	small     a file of at most WINDOW_WHOLE_BYTES: one stream for all that is missing
 *	random    a read away from every stream: one bounded range, the blocks that were asked for
 *	forward   a read where a reader goes on: one open-ended stream, which runs ahead of its reader by a window that doubles from
 *	          WINDOW_MIN_BYTES to WINDOW_MAX_BYTES and is paused there, resumed when the reader follows, dropped when he does not
 *	lanes     where that is slower than its reader: up to WINDOW_LANES_MAX bounded ranges in a row, side by side
 *	whole     a server without Range: whatever is asked for, all comes from the start. There is one such stream, and every read
 *	          waits for it
 *
 * Bytes go to the content store on the transfer thread; parked calls whose bytes are all there run
 * on the pool. No byte is asked for twice at once: a read inside what a stream is going to bring
 * waits for that stream, and a stream that comes upon what another brings, or upon much that is
 * there, ends. (An open-ended one has asked for that already, but is hung up on.)
 *
 * Memory: a stream keeps no bytes here but what the engine reads at a time (512 KiB). A paused one
 * leaves what was sent to the socket's buffer in the kernel; all else is in the store's files.
 *
 * Lock: reader->lock, after tree->lock, before the content's own. Not held over calls of the remote
 * that may call back.
 */

#include <stdint.h>

#include <attachfs/content.h>

#include "calls.h"
#include "tree.h"

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
 * [off, end) of @clean was read: what runs ahead of this reader goes on, and where he is next tells
 * whether he goes forward. @clean may have no feed; then nobody needs to know.
 */
void reader_follow(struct reader *r, struct content *clean, uint64_t off, uint64_t end);

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

/*
 * Bring what is missing of @clean, which is small and open, when nothing better is to be done; unless
 * that is under way. Nobody hears of it: who comes to read it waits for it, and hurries it then.
 */
void reader_fetch_ahead(struct reader *r, struct content *clean);

/* Once a second: drop streams that nobody follows, put others beside those that are too slow. */
void reader_tick(struct reader *r);

#endif
