/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_TESTS_PLAN_MODEL_H
#define ATTACHFS_TESTS_PLAN_MODEL_H

/*
 * A world for fs/plan.c to be tried in: a server of one of three kinds, a user, other users, and an
 * executor that does with a plan what fs/sync.c does. Calls are in the air between being sent, done
 * by the server and acknowledged; each can be refused, fail, or end with an unknown outcome (done
 * or not); the daemon can be restarted at any point and then has only what the ledger has.
 *
 * What must hold is checked where it could break, and the first breach is kept in model.breach:
 *  - a content that the user wants, or that a program still reads, is never removed or overwritten
 * on the server while it is nowhere else there; and at every step it is here or there;
 *  - a file of others that the mount has not seen is never touched;
 *  - a content is uploaded once, plus once for each event that makes a second time necessary
 * (model.excuses);
 *  - when all is settled the server has exactly what the user wants.
 *
 * All choices come from model_pick(): of a seed, or of the bytes of a fuzzer.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan.h"

enum model_kind {
	MODEL_ID_KEYED,	  /* PERSCOM: renames, moves and replaces in place, fillers */
	MODEL_NAME_KEYED, /* ServiceMax: names are unique and the only handle */
	MODEL_IMMUTABLE,  /* Enterprise Tester: create and delete */
	MODEL_KINDS,
};

#define MODEL_NAME   64
#define MODEL_FILLER 0		/* content number of a filler */
#define MODEL_DOUBT  UINT32_MAX /* a known content that we cannot be sure of */

struct model_file {
	unsigned rid; /* 0 = removed */
	unsigned record;
	char name[MODEL_NAME];
	bool tame; /* uploaded under a tame name that is not its name (P-15) */
	unsigned content, version, mtime;
	uint64_t token; /* of the call that created it; 0 = others did */
	bool seen;	/* others': the mount has shown it */
	bool touched;	/* others changed or removed it */
	unsigned theirs; /* the version that others made of it last, 0 = none */
};

struct model_known {
	bool known;
	unsigned rid, record;
	char name[MODEL_NAME]; /* as shown */
	char raw[MODEL_NAME];  /* as the server says */
	bool tame;
	unsigned content, version;
};

struct model_node {
	uint64_t node; /* 0 = dropped */
	struct model_known at;
	bool gone, local;
	bool was_local; /* once had such a name: then it was meant to be here only */
	unsigned record;
	char name[MODEL_NAME];
	unsigned content, mtime;
	unsigned base; /* partly overwritten content, needed until content_local; 0 = none */
	bool content_local, mtime_set, mtime_differs;
	bool parked, unknown, busy, open, content_settled, name_settled, alone;
	uint64_t after;

	enum plan_kind flight;
	unsigned flight_record, flight_content;
	uint64_t flight_size, flight_token;
	char flight_name[MODEL_NAME];
};

struct model_entry {
	uint64_t node;
	unsigned rid, record, content, mtime;
	char name[MODEL_NAME];
	bool filler, set_name, set_record, set_mtime;
	uint64_t token;
	bool gone; /* outcome: there was no such file */
	struct model_file result;
};

enum model_fate {
	MODEL_DONE,
	MODEL_REFUSED,
	MODEL_RETRY,
	MODEL_LOST,
	MODEL_LOST_UNDONE,
	MODEL_FATES
};

struct model_call {
	enum plan_kind kind;
	bool executed;
	enum model_fate fate;
	size_t n;
	struct model_entry *entries;
};

struct model {
	enum model_kind kind;
	struct remote_caps caps;
	uint64_t seed;
	const uint8_t *bytes;
	size_t left;
	bool faults, others;

	struct model_file *files;
	size_t n_files;
	struct model_node *nodes;
	size_t n_nodes;
	struct model_call *calls;
	size_t n_calls;
	uint64_t *sizes; /* by content */
	size_t n_contents;
	size_t files_room, nodes_room, calls_room, sizes_room;
	uint64_t next_node, next_token;
	unsigned next_version, next_name;
	bool stale;  /* others changed something that the mount has not been told */
	bool unsure; /* they may have: a while has passed since the last listing */

	unsigned uploads, fillers, update_calls, updated, remove_calls, removed, adopts, looks,
		fetches;
	unsigned excuses; /* uploads that may come on top of one per content written */
	char breach[256];
};

uint32_t model_pick(struct model *m, uint32_t n); /* 0 .. n-1 */

/* @bytes may be NULL: then the choices come from @seed. */
void model_init(struct model *m, enum model_kind kind, uint64_t seed, const uint8_t *bytes,
		size_t len);
void model_free(struct model *m);

/* The user. Node ids stay, pointers do not. All settle at once unless the history says otherwise.
 */
uint64_t model_create(struct model *m, unsigned record, const char *name, uint64_t size);
void model_write(struct model *m, uint64_t node, uint64_t size);
void model_rename(struct model *m, uint64_t node, unsigned record, const char *name);
void model_delete(struct model *m, uint64_t node);
void model_touch(struct model *m, uint64_t node, unsigned mtime);
void model_evict(struct model *m, uint64_t node); /* its bytes are only on the server now */
struct model_node *model_find(struct model *m, uint64_t node);

/* A file of others that the mount shows already. */
uint64_t model_remote(struct model *m, unsigned record, const char *name, uint64_t size);

/* Plan, send, do, acknowledge, until there is nothing more to do; then compare the server with the
 * user's wish. */
void model_settle(struct model *m);

/* @steps random acts of the user, with nothing sent between them. */
void model_user_acts(struct model *m, unsigned steps);

/* @steps random events, or fewer when the bytes end, then all faults end and it settles. */
void model_history(struct model *m, unsigned steps);

/* The rows of the model for plan_make(); the caller frees. *@ret_index gives the node of each. */
struct plan_item *model_items(const struct model *m, size_t *ret_n, size_t **ret_index);

#endif
