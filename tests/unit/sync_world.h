/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_TESTS_SYNC_WORLD_H
#define ATTACHFS_TESTS_SYNC_WORLD_H

/*
 * A world for the executor (fs/sync*.c, fs/tree*.c) to be tried in: the real tree, ledger, content
 * store and sync over a server in memory, of one of four kinds. A call of the remote waits in the
 * air; it is done by the server (or not: its fate), and later answered, on the pool; a program that
 * is killed answers nothing.
 *
 * The server, the user's wishes and the files others made are in memory shared with the child
 * processes that are killed (world_new()), the mount is not (daemon_open()).
 *
 * Nothing runs but what the test lets run: the sync thread is not started, the pools are waited for
 * after each step. The same seed gives the same history.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mount.h"

enum world_kind {
	WORLD_PERSCOM,	  /* ids, all in place, fillers, two names, no sizes in lists */
	WORLD_RILLSOFT,	  /* ids, all in place, one at a time */
	WORLD_SERVICEMAX, /* names are unique; create and replace only; removal by name */
	WORLD_ET,	  /* immutable: create and remove */
	WORLD_KINDS,
};

#define WORLD_FILES   4096
#define WORLD_WISHES  512
#define WORLD_BYTES   2048
#define WORLD_RECORDS 2
#define WORLD_THEIRS  100000 /* contents from here on were made by others */

/* A file of the server; its id is its place in the array, counted from 1. */
struct world_file {
	bool there;
	unsigned record;
	char name[256], filename[256];
	uint8_t bytes[WORLD_BYTES];
	size_t size;
	bool filler;
	bool acknowledged; /* the daemon was told that it is there */
	unsigned version;
	int64_t ctime_ns, mtime_ns;
};

/* What the user wants to find at a place. */
struct world_wish {
	bool live;
	uint64_t node;
	unsigned record;
	char name[256];
	unsigned content; /* world_content() makes its bytes */
	bool excused;	  /* others have had a hand in it */
};

struct world {
	enum world_kind kind;
	uint64_t seed;
	bool faults, others;
	struct remote_caps caps;
	struct world_file files[WORLD_FILES];
	size_t n_files;
	struct world_wish wishes[WORLD_WISHES];
	size_t n_wishes;
	unsigned next_content, next_version, next_name;
	/* what it took */
	unsigned uploads, fillers, creates, create_calls, remove_calls, removed, writes, names;
	const char *refused; /* a create of this name is refused, and all that go with it */
	char dir[64];	     /* of the cache */
	char breach[512];
};

/* In shared memory, with a cache directory of its own. */
struct world *world_new(enum world_kind kind, uint64_t seed);
void world_free(struct world *w);

uint32_t world_pick(struct world *w, uint32_t n); /* 0 .. n-1 */
bool world_chance(struct world *w, uint32_t percent);
void world_breach(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The bytes of content number @content, 0 ... WORLD_BYTES; returns how many. */
size_t world_content(unsigned content, uint8_t *bytes);
/* A file that others put there. */
void world_add(struct world *w, unsigned record, const char *name, unsigned content);
struct world_file *world_at(struct world *w, unsigned record, const char *name);
/* What a listing of a record (0: of all) shows; the caller clears and frees. */
struct remote_file *world_tell(const struct world *w, unsigned record, size_t *ret_n);
/* Others change something. */
void world_others_act(struct world *w);

/* The server's side of the remote, in this process. */
struct server;
struct server *server_new(struct world *w, struct pool *pool);
void server_free(struct server *s);
struct remote *server_remote(struct server *s);
size_t server_in_the_air(struct server *s);
/* Let the server do one of the calls in the air, or answer one that is done. */
void server_execute(struct server *s);
void server_answer(struct server *s);
void server_finish(struct server *s); /* all of them */

struct daemon {
	struct world *world;
	struct server *server;
	struct options options;
	struct mount mount;
	uint64_t top; /* the collection */
	/* a listing under way: what the server said, not told to the tree yet */
	bool listing;
	uint64_t mark;
	struct remote_file *listed;
	size_t n_listed;
};

void daemon_open(struct daemon *d, struct world *w);
void daemon_close(struct daemon *d);
/* Wait until the pools have nothing to do. */
void daemon_quiet(struct daemon *d);
/* Plan and send. */
void daemon_sync(struct daemon *d);
/* The whole collection is listed, and the tree told; between the two the world may go on. */
void daemon_list_begin(struct daemon *d);
void daemon_list_end(struct daemon *d);
/* No more faults: all that differs is brought to the server. False: it does not end. */
bool daemon_drain(struct daemon *d);

struct node *daemon_record(struct daemon *d, unsigned record); /* tree->lock held */

/* The user. True when it was done. */
struct world_wish *user_find(struct world *w, unsigned record, const char *name);
void user_write(struct daemon *d, struct world_wish *wish);
void user_create(struct daemon *d, unsigned record, const char *name);
void user_rename(struct daemon *d, struct world_wish *wish, unsigned record, const char *name);
void user_swap(struct daemon *d, struct world_wish *a, struct world_wish *b);
void user_delete(struct daemon *d, struct world_wish *wish);

#endif
