/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_SIBLINGS_H
#define ATTACHFS_FS_SIBLINGS_H

/*
 * A program that reads small files one after another, as tar, rsync, cp -r and grep -r do: which files
 * to fetch ahead of it. Pure: what is in the directories is asked of the caller.
 *
 *	UNKNOWN --SIBLINGS_SEEN files, each the next one of the last--> FOLLOWED --a file that is not next--> UNKNOWN
 *
 * What "next" means is one of two orders: tar and cp read as the directory lists, rsync and a shell's
 * glob by name. What lies between two files and need not be fetched (it is here, it is large) is
 * passed over: nobody hears of its being read, as the kernel may have its pages.
 *
 * Once followed, there are files ahead: fetched or being fetched, and not read yet. The first time
 * SIBLINGS_FIRST of them, twice as many with each that is read, up to SIBLINGS_FILES and
 * SIBLINGS_BYTES. A program may leave out some, or read them in a slightly other order (a locale's);
 * when more than SIBLINGS_STRAYS were left behind, the pattern is broken. So what is fetched in vain is
 * bounded by what is ahead.
 */

#include <stdbool.h>
#include <stdint.h>

#define SIBLINGS_SEEN	3
#define SIBLINGS_FIRST	8
#define SIBLINGS_FILES	64
#define SIBLINGS_BYTES	(UINT64_C(16) << 20)
#define SIBLINGS_STRAYS 4
/* One left behind is forgotten when so many after it were read. */
#define SIBLINGS_PATIENCE 32
/* How many that need not be fetched are passed over at a time. */
#define SIBLINGS_STEPS 256

enum siblings_order { SIBLINGS_AS_LISTED, SIBLINGS_BY_NAME, SIBLINGS_ORDERS };

#define SIBLINGS_NEEDLESS (-1) /* here, coming, not small, or nothing that could be fetched */
#define SIBLINGS_UNSIZED  (-2) /* how much it is will be known soon: no further than this for now */

/* What the decision asks about the files there are. */
struct siblings_view {
	void *ctx;
	/* The file after @file, in the next record when it is the last one; 0 = none is known. */
	uint64_t (*next)(void *ctx, enum siblings_order order, uint64_t file);
	/* How many bytes it takes to have it here, or one of the above. */
	int64_t (*cost)(void *ctx, uint64_t file);
	uint64_t room; /* bytes that may be ahead, if less than SIBLINGS_BYTES */
};

/* One program. All zeros is the beginning. */
struct siblings {
	uint64_t last;		       /* the file it read last; 0 = none */
	unsigned run[SIBLINGS_ORDERS]; /* files in a row, the last one included */
	bool followed;
	enum siblings_order order; /* once followed, as the next two */
	uint64_t front;		   /* what is ahead was looked for up to here */
	unsigned window;	   /* files there may be ahead */
	unsigned n;		   /* what is ahead; or was, when it was last given up */
	uint64_t bytes;
	struct {
		uint64_t file, bytes;
		unsigned passed; /* files read that were after it */
	} ahead[SIBLINGS_FILES]; /* in the order */
};

/*
 * The program begins to read small @file: which ones to fetch ahead of it, in the order in which they
 * will be read. Returns how many there are in @ret_files.
 */
unsigned siblings_read(struct siblings *s, const struct siblings_view *v, uint64_t file,
		       uint64_t ret_files[static SIBLINGS_FILES]);

#endif
