/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_WINDOW_H
#define ATTACHFS_FS_WINDOW_H

/* The readahead decision: pure functions of their arguments. */

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_WHOLE_BYTES (UINT64_C(4) << 20) /* a file of that size is fetched whole */
#define WINDOW_MIN_BYTES   (UINT64_C(256) << 10)
#define WINDOW_MAX_BYTES   (UINT64_C(64) << 20)

/*
 * What a read of the very beginning takes: a program that only wants to know what the file is reads
 * 256 KiB, and the kernel some more ahead of it. That is no reason to begin a stream.
 */
#define WINDOW_FIRST_BYTES (UINT64_C(512) << 10)

/* So much in a row, and a reader is taken to go on. */
#define WINDOW_RUN_BYTES (UINT64_C(256) << 10)
/* Requests of one reader overtake each other on their way here, by as much at most. */
#define WINDOW_SLACK_BYTES (UINT64_C(1) << 20)

/*
 * What is there already, up to this length, is fetched again by a stream that comes upon it: that
 * costs less than another request.
 */
#define WINDOW_ISLAND_BYTES (UINT64_C(1) << 20)

/* Where readers of a file are: the last reads, and how much led up to each without a gap. */
#define WINDOW_HEADS 8
struct window_heads {
	struct {
		uint64_t at, run;
	} of[WINDOW_HEADS];
	unsigned next;
};

/* [off, end) was read. */
void window_note(struct window_heads *h, uint64_t off, uint64_t end);
/*
 * Whether a read at @off goes on where somebody has read WINDOW_RUN_BYTES or more. *@ret_from: where
 * he was, if that is before @off: what lies between is coming to be read.
 */
bool window_goes_on(const struct window_heads *h, uint64_t off, uint64_t *ret_from);

struct window_wish {
	uint64_t off, end; /* what a read wants, and misses */
	int64_t size;	   /* of the content, -1 = not known */
	uint64_t missing,
		missing_end; /* the missing range that holds `off`, from its block's start on */
	uint64_t stop;	  /* a stream from there has to end here: at what is there, or is coming */
	bool forward;	  /* the reader goes on */
	uint64_t segment; /* one of several streams side by side takes so much; 0 = one alone */
};

struct window_range {
	uint64_t start, end; /* to ask for; end UINT64_MAX = open */
	uint64_t limit;	     /* pause there; UINT64_MAX = never */
	bool forward;	     /* it runs ahead of its reader: others may be put beside it */
};

/*
 * What to ask the server for: the whole of a small file, an open stream for a reader who goes
 * forward, a few blocks otherwise.
 */
void window_decide(const struct window_wish *w, struct window_range *ret_range);

/*
 * Whether a stream at @pos, asked up to @end and paused at @limit, is the one to wait for when byte
 * @off is wanted: it lies ahead, and not further than the stream runs ahead anyway.
 */
bool window_reaches(uint64_t pos, uint64_t end, uint64_t limit, uint64_t window, uint64_t off);

/*
 * The new window when a reader wants bytes up to @end: doubled once he has used half of what was
 * fetched ahead for him, up to WINDOW_MAX_BYTES.
 */
uint64_t window_grow(uint64_t window, uint64_t limit, uint64_t end);

/*
 * Whether a paused stream should go on: a reader wants what it has not brought yet, or there is
 * room for a good part of the window. Not for every few blocks, or it would stop and go all the time.
 */
bool window_resumes(uint64_t window, uint64_t pos, uint64_t limit, uint64_t end);

/*
 * How many streams to read a file by, side by side. One is enough wherever it keeps ahead of its
 * reader or brings WINDOW_FAST_BYTES a second. Where it does neither for two seconds there is one
 * more, up to WINDOW_LANES_MAX, as long as the last one made it faster by a quarter.
 *
 * All zeros is the beginning.
 */
#define WINDOW_LANES_MAX	 4
#define WINDOW_FAST_BYTES	 (WINDOW_MAX_BYTES / 4)
#define WINDOW_SEGMENT_MIN_BYTES (UINT64_C(1) << 20)
#define WINDOW_SEGMENT_MAX_BYTES (WINDOW_MAX_BYTES / WINDOW_LANES_MAX)

struct window_pace {
	unsigned more;	  /* streams besides the first */
	unsigned slow;	  /* seconds in a row */
	bool settled;	  /* one more was of no use */
	uint64_t rate;	  /* bytes a second before the last was added */
	uint64_t segment; /* what each takes at a time */
};

/*
 * Once a second: @bytes came since the last time, and the readers waited for them, again and again.
 * True: there may be one stream more.
 */
bool window_pace(struct window_pace *p, uint64_t bytes, bool waited);

#endif
