/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_MOUNT_H
#define ATTACHFS_FS_MOUNT_H

/*
 * One mounted source: everything hangs off this handle, so that a process may hold several.
 *
 * Start: options -> pool -> ledger -> content store -> engine -> remote -> tree -> calls, reader,
 * lister, sync -> kernel. No step needs the network, but for the first mount of a source, which
 * asks the server once. End: kernel first, then the parked calls, sync (which says what is left),
 * the engine, and the rest in reverse.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <attachfs/content.h>
#include <attachfs/ledger.h>
#include <attachfs/options.h>
#include <attachfs/pool.h>
#include <attachfs/remote.h>
#include <attachfs/transfer.h>

#include "calls.h"
#include "notifier.h"
#include "tree.h"

struct reader;
struct lister;
struct prefetch;
struct sync;
struct events;
struct secret_watch;
struct pipes;
struct inhibit;

/*
 * What the kernel holds a handle of: first member of every handle. The kernel may drop a RELEASE
 * when it unmounts, so a mount knows its handles and lets go of what is left at the end.
 */
struct opened {
	struct opened *prev, *next;
	/* Not called while the kernel may still use the handle. */
	void (*drop)(struct mount *m, struct opened *o);
};

#define INDEXERS_SEEN 64 /* power of two */

struct mount {
	const struct options *options; /* outlives the mount */
	struct pool *pool;	       /* answers and parses: short jobs */
	struct pool *disk_pool;	       /* hashes and copies: long ones, nobody waits behind them */
	struct ledger *ledger;
	struct content_store *store;
	struct engine *engine;
	struct remote *remote;
	struct notifier *notifier;
	struct tree *tree;
	struct calls *calls;
	struct reader *reader;
	struct lister *lister;
	struct prefetch *prefetch;
	struct sync *sync;
	struct events *events;
	struct secret_watch *secret_watch; /* NULL = there is no file with a secret */
	struct inhibit *inhibit;	   /* NULL = a shutdown does not wait for us */
	struct pipes *pipes;		   /* answers with bytes of files go through them */
	struct fuse_session *session;
	struct opened *opened; /* tree->lock: all handles */
	char *ledger_path;
	unsigned connection; /* the kernel's number of it, for fusectl; 0 = not known */

	_Atomic int64_t used_ms; /* clock_mono_ms() when a program last asked for something in it */
	double timeout_kernel_s; /* how long the kernel may believe entries and attributes */
	int64_t started_ns;
	pthread_t server;     /* the thread in mount_serve() */
	_Atomic bool greeted; /* the kernel: it is served from now on */
	bool splices;	  /* ... and it takes answers by a pipe; set before the first request is served */
	_Atomic bool ticking; /* all that the timer serves is there */
	bool refused; /* the timer's thread: the credentials are no good, when it looked last */
	_Atomic bool offline; /* the server could not be reached, when its state changed last */
	_Atomic bool served;  /* mount_serve() is over */
	_Atomic bool forced;  /* ... although programs still had files open */
	_Atomic bool writing_behind; /* a job brings what was written to the disk */

	_Atomic uint64_t
		indexers_seen[INDEXERS_SEEN]; /* indexer.c: what threads were, a moment ago */

	bool passthrough; /* the kernel offers it; set before the first request is served */
	_Atomic bool passthrough_refused; /* ... but not for these files */
};

/* @o outlives the mount. 0, or -errno with words for a person in @message. */
int mount_new(const struct options *o, struct mount **ret_mount, char *message, size_t size);

/* Mount at o->mountpoint. Errors as mount_new(). */
int mount_attach(struct mount *m, char *message, size_t size);

/* Serve the kernel until unmounted or mount_stop(). */
int mount_serve(struct mount *m);

/*
 * From a signal thread: wait until mount_serve() is over, which it is when the last program has
 * left the unmounted directory; after @grace_ms make it leave. Uses SIGUSR2.
 */
void mount_stop(struct mount *m, int64_t grace_ms);

/*
 * Unmount, end all threads, free. What is not on the server yet stays in the ledger; says so in the
 * log. NULL is fine.
 */
void mount_free(struct mount *m);

/* tree->lock held. */
void mount_opened_add_locked(struct mount *m, struct opened *o,
			     void (*drop)(struct mount *m, struct opened *o));
void mount_opened_remove_locked(struct mount *m, struct opened *o);
/* The same, taking the lock. */
void mount_opened_add(struct mount *m, struct opened *o,
		      void (*drop)(struct mount *m, struct opened *o));
void mount_opened_remove(struct mount *m, struct opened *o);

struct mount *mount_of_request(fuse_req_t req);

/* Somebody uses it: not whoever only looks whether it is there, or at .attachfs. Any thread. */
void mount_used(struct mount *m);

/* The table of operations (fs/ops.c). */
extern const struct fuse_lowlevel_ops attachfs_ops;

#endif
