/* SPDX-License-Identifier: MIT */
/*
 * One running emulator, and what a system must provide to be played by it.
 *
 * Threads: one libmicrohttpd thread for each of the three ports, and the timer (alarms.h). Everything
 * reachable from here is guarded by `lock` unless its header says otherwise; a system's functions are
 * called with it held. Bodies are streamed outside the lock: a response refers to its blob by reference.
 */
#ifndef EMULATOR_EMULATOR_H
#define EMULATOR_EMULATOR_H

#include "alarms.h"
#include "faults.h"
#include "http.h"
#include "reqlog.h"
#include "settings.h"
#include "store.h"

#include <pthread.h>

struct token {
	char *text;
	char **scopes;
	size_t n_scopes;
};

struct emulator {
	const struct system *system;
	void *state; /* the system's own */
	pthread_mutex_t lock;
	struct store *store;
	struct settings settings;
	struct faults faults;
	struct token *tokens; /* fixed after start */
	size_t n_tokens;
	char *spool; /* fixed after start */
	bool own_spool;
	char *api_url; /* "http://127.0.0.1:1234", without a path; fixed after start */
	char *blob_url;
	struct reqlog *log;    /* has its own lock */
	struct alarms *alarms; /* has its own lock */
};

/* What another client can do to a file, and so what POST /change does. */
enum files {
	FILES_EDITABLE, /* names, owner and bytes change in place */
	FILES_VERSIONED, /* new bytes are a version of the same file; else a new file and the old one gone */
	FILES_IMMUTABLE, /* everything is a new file and the old one gone */
};

#define REMOTE_ID_SIZE 80

/* A server to play: one file or a few, listed in systems[] of system.c. */
struct system {
	const char *name;
	enum files files;
	/* Collections may have any name: --data, --generate and POST /change make them. */
	bool open_collections;
	/*
	 * The ids the API shows for the store's: what /state calls remote_id and record_remote_id. NULL:
	 * the decimal number.
	 */
	void (*record_id)(const struct record *r, char id[REMOTE_ID_SIZE]);
	void (*attachment_id)(const struct attachment *a, char id[REMOTE_ID_SIZE]);
	const char *base; /* path in the ready file's `api`: "/v2" */
	const struct collection *collections;
	const struct setting *settings;
	void *(*open)(struct emulator *emu);
	void (*close)(void *state);
	/* How the body of a request to the api port wants to be read; called before it arrives. */
	enum body_kind (*body_kind)(struct request *rq);
	/* How BODY_MULTIPART is read. NULL: as PHP does. */
	struct multipart_options (*multipart_options)(struct request *rq);
	/* Answer a request whose body is complete. */
	void (*serve_api)(struct request *rq, struct response *rs);
	void (*serve_blob)(struct request *rq, struct response *rs);
	/* The fields of a record that --data, --generate or POST /change made or renamed. */
	void (*dress_record)(struct record *r);
	/*
	 * The file of @r whose name is taken: another one of that name becomes a new version of it. NULL:
	 * the system has no unique names.
	 */
	struct attachment *(*namesake)(struct emulator *emu, const struct record *r,
				       const char *name, size_t len);
	/* @a is about to lead to other bytes, under another path. NULL: nobody asks for the old ones. */
	void (*replacing)(struct emulator *emu, const struct attachment *a);
	/*
	 * Something changed behind the client's back: caches in front of the server hear of it as of any
	 * other client's write. NULL: the system has none.
	 */
	void (*changed)(struct emulator *emu, enum change_kind kind, int64_t attachment_id);
	/* POST /change adds, changes or takes away a file of @owner. NULL: a record does not notice. */
	void (*touched)(struct emulator *emu, struct record *owner);
};

extern const struct system *const systems[]; /* ends with NULL */

#endif
