/* SPDX-License-Identifier: MIT */
#ifndef API_ENTERPRISE_TESTER_H
#define API_ENTERPRISE_TESTER_H

/*
 * The client for Enterprise Tester (reference/enterprise-tester.md; E-n are its traps), by noun:
 *
 *	enterprise_tester.c         making and freeing one; the tables of ops and facts; fetch
 *	enterprise_tester_path.c    pure: collections, ids, paths, queries
 *	enterprise_tester_decode.c  pure: the server's JSON -> records and files
 *	enterprise_tester_encode.c  pure: dispositions, media types, bodies
 *	enterprise_tester_judge.c   pure: what a reply means; which file of an answer is which
 *	enterprise_tester_walk.c    one set of rows, page by page, whole or not at all
 *	enterprise_tester_list.c    list_tree, list_record
 *	enterprise_tester_upload.c  create
 *	enterprise_tester_change.c  remove, update_records
 *	enterprise_tester_poll.c    change
 *	enterprise_tester_record.c  record_json, make_record
 *	enterprise_tester_check.c   probe, check
 *
 * Files are immutable: nothing renames, moves or replaces one (sections 6 and 7), so an id is a
 * version. URLs are built from the address given and checked ids, never from links (E-7, E-12).
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <attachfs/remote.h>

#include "base.h"
#include "call.h"
#include "fetch.h"

/* Where the records of a collection are found. */
enum et_shape {
	ET_EXPANDED, /* one set, whose rows have their files inline */
	ET_RUNS,     /* one set; the files are asked for by record */
	ET_STEPS,    /* parts of the runs of a set, which a run shows when asked to expand */
	ET_NODES,    /* a tree below each run of a set */
	ET_UNLISTED, /* temporary sets: nowhere */
};

/* A kind of record that can own attachments (section 2): one row each. */
struct et_collection {
	const char *name; /* in the mount: "requirements" */
	enum et_shape shape;
	const char *set;	/* what is listed: "requirements", "scriptruns" */
	const char *entity;	/* what TQL calls a row of it: "Requirement" */
	const char *row;	/* path of one of its rows: "requirement" */
	const char *expand;	/* of ET_STEPS: "StepResults" */
	const char *part;	/* below the row's path, for ids made of two: "step" */
	const char *owner;	/* path of an owner of one id: "stepresult" */
	const char *files;	/* list and upload, below the owner: "/attachments" */
	const char *name_field; /* "Name", "Summary" */
	const char *label;	/* for records without a name: "Requirement" */
	bool writable_record;	/* PATCH changes its fields */
};

#define ET_GUID_SIZE  37
#define ET_PATH_SIZE  256
#define ET_PAGE	      1000 /* rows asked for at once */
#define ET_RUN_PAGE   100  /* runs: each costs calls of its own */
#define ET_UPLOAD_MAX 20   /* files in one request */
/* Above this ASP.NET may refuse a request by 400 or 500 (section 10). */
#define ET_SMALL_REQUEST (4 << 20)

const struct et_collection *et_find_collection(const char *name);
/* 0.., for arrays of one entry per collection. */
size_t et_collection_index(const struct et_collection *c);
#define ET_COLLECTIONS 8

/* path: pure */

/* @url with "/api" at its end; NULL without memory. */
char *et_add_api(const char *url);

/* Two GUIDs as one id, 64 digits, and back; false: it is no such id. */
void et_join_ids(const char *first, const char *second, char out[REMOTE_ID_MAX + 1]);
bool et_split_id(const char *id, char first[ET_GUID_SIZE], char second[ET_GUID_SIZE]);

/* Whether @record can be an id of this collection. */
bool et_is_record(const struct et_collection *c, const char *record);

/*
 * "requirement/<id>", "agilerun/<id>/step/<id>", and with @record NULL the same with {id}. False: no
 * such id.
 */
bool et_owner_path(const struct et_collection *c, const char *record, char out[ET_PATH_SIZE]);
/* Where its files are listed and uploaded. */
bool et_files_path(const struct et_collection *c, const char *record, char out[ET_PATH_SIZE]);
/* Where one of them is deleted. */
bool et_file_path(const struct et_collection *c, const char *record, const char *id,
		  char out[ET_PATH_SIZE]);

enum et_language { ET_TQL, ET_ODATA };
/*
 * The orders to list in, the best first: which of them the server takes, only it knows. @variant
 * counts from 0; NULL = there is no such variant. Free it. "tql=..." or "$orderby=...", escaped.
 */
char *et_order_query(enum et_language language, const char *entity, unsigned variant);
#define ET_ORDERS 4
/* The row that changed last; @variant as above: whether a query may be an order alone. */
char *et_newest_query(const char *entity, unsigned variant);

/* decode: pure */

/* The member, or the text, as a GUID in lower case. False: none. */
bool et_get_guid(const json_t *object, const char *key, char out[ET_GUID_SIZE]);
/* All zero: there is something, which cannot be addressed (E-7). */
bool et_is_nil(const json_t *object);

/*
 * Which of the two names is the file's, for they come swapped (E-2). The one that there is; the one
 * with an extension, when the other has none; FileName when both have one; Name when none has.
 */
const char *et_choose_name(const char *name, const char *filename);

struct et_page {
	struct remote_record *records;
	size_t n_records, records_size;
	struct remote_file *files;
	size_t n_files, files_size;
	size_t nameless; /* files and records without an id (E-7), left out */
};
void et_page_clear(struct et_page *page);

/* One attachment of @record: 0; 1: it has no id; -EIO, -ENOMEM. *@f is cleared or whole. */
int et_decode_file(const json_t *row, const char *record, struct remote_file *f);

/* All attachments of @record, added to @page. 0, -EIO (not a list of such), -ENOMEM. */
int et_decode_files(const json_t *rows, const char *record, struct et_page *page);

/*
 * One record added to @page. @run: the row of the run it is a part of, else NULL; @number: of the
 * part, from 1. *@ret_id gets its id, "" when it has none. 0, -EIO, -ENOMEM.
 */
int et_decode_record(const struct et_collection *c, const json_t *row, const json_t *run,
		     size_t number, struct et_page *page, char ret_id[REMOTE_ID_MAX + 1]);
char *et_record_name(const struct et_collection *c, const json_t *row, const json_t *run,
		     size_t number);

/* The rows of an envelope or a bare array (E-9), NULL = neither. Borrowed. */
json_t *et_rows(const json_t *root);
/* Whether this row's files must be asked for: they are not inline, and there may be some. */
bool et_lacks_files(const json_t *row);

/* encode: pure */

/* The whole value of a part's Content-Disposition. NULL without memory. */
char *et_disposition(enum options_multipart form, const char *name, uint64_t size);
const char *et_media_type(const char *name);
/* The body of a PATCH; NULL: no memory, or fields that are no object. Empty = nothing to change. */
json_t *et_record_body(const struct et_collection *c, const struct remote_change *item);

/* judge: pure */

enum et_verb { ET_UPLOAD, ET_REMOVE, ET_PATCH };
/* @bytes: of the request. *@ret_look: ask the server what is there before this is believed. */
enum remote_outcome et_judge(const struct call_reply *reply, enum et_verb verb, size_t n_items,
			     uint64_t bytes, int *ret_error, bool *ret_look);

/*
 * Which of @rows (the answer to an upload) is which item: indices into rows, SIZE_MAX = none. By
 * name, and in order among equals; where a name came back as another one, by place and size.
 */
void et_match_answer(const json_t *rows, const struct remote_change *items, size_t n, size_t *ret);

/*
 * Which of @files, made since @since_ns, are the items: the same by name and size.
 */
void et_match_files(const struct remote_file *files, size_t n_files, int64_t since_ns,
		    const struct remote_change *items, size_t n, size_t *ret);

/* Whether an attachment that came or went moves the record's LastUpdatedAt: section 11, unknown. */
enum et_bump { ET_BUMP_UNKNOWN, ET_BUMPS, ET_BUMPS_NOT };
/* By the newest row of a set, after a change of ours at @since_ns to @record. */
enum et_bump et_judge_newest(const json_t *newest, const char *record, int64_t since_ns);
/* By rows with their attachments: one that is newer than its record proves that it does not. */
enum et_bump et_judge_rows(const json_t *rows);

/* the client */

struct et {
	struct remote base; /* first */
	struct base server;
	char *user;
	enum options_multipart multipart;
	const char *collections; /* as asked for, or the default; the options' own */
	atomic_uint orders[2];	 /* by language: the variant the server takes */
	_Atomic int64_t skew_s;	 /* server's clock minus ours */
	/* by collection, a bit each: it has answered that such records cannot be changed (405) */
	atomic_uint fixed_records;

	/* By collection: what is known of polling, see enterprise_tester_poll.c. */
	struct et_watch {
		pthread_mutex_t lock; /* the fields below; no other is taken under it */
		enum et_bump bump;
		char touched[ET_GUID_SIZE]; /* row changed by us and not judged yet; "" = none */
		int64_t touched_ns;	    /* by the server's clock */
	} watch[ET_COLLECTIONS];
};

int enterprise_tester_new(const struct options *options, struct engine *engine, struct pool *pool,
			  struct remote **ret_remote, char *message, size_t size);

/*
 * A call to base + "/" + @path, counted as "METHOD /api/<template>"; @path may have a query. What
 * every call has is in it.
 */
struct call *et_call(struct et *p, enum transfer_class class, const char *method, const char *path,
		     const char *template);
void et_note_reply(struct et *p, const struct call_reply *reply);
/* An item's lower half before its call: not done, whatever goes wrong on the way. */
void et_change_reset(struct remote_change *item);
void et_change_set(struct remote_change *item, enum remote_outcome outcome, int error,
		   const char *message);

/*
 * A set of rows, page by page (enterprise_tester_walk.c). rows() gets each row once, in an array
 * that lasts until it returns: 0 = go on, 1 = et_walk_resume() will follow, or an error to end with.
 * done() comes once: 0 = that was all of them.
 */
struct et_walk;
struct et_walk_spec {
	enum transfer_class class;
	const char *path, *template;
	enum et_language language;
	const char *entity; /* of TQL */
	const char *expand; /* NULL = nothing */
	bool bare;	    /* all at once, without a query: the result nodes and runs (E-9) */
	unsigned top;
	int (*rows)(void *ctx, struct et_walk *w, const json_t *rows);
	/* @status: of the answer that ended it, 0 = none did */
	void (*done)(void *ctx, int error, int status, const char *message);
	void *ctx;
};
/* The strings but @path and @template are static. 0, or an error, and then nothing is called. */
int et_walk_start(struct et *p, const struct et_walk_spec *spec);
void et_walk_resume(struct et_walk *w, int error, const char *message);

int et_list_tree(struct remote *r, enum transfer_class class, const char *collection,
		 const struct remote_sink *sink);
int et_list_record(struct remote *r, enum transfer_class class, const char *collection,
		   const char *record, const struct remote_sink *sink);
int et_create(struct remote *r, enum transfer_class class, struct remote_change *items, size_t n,
	      remote_done *done, void *ctx);
int et_remove(struct remote *r, enum transfer_class class, struct remote_change *items, size_t n,
	      remote_done *done, void *ctx);
int et_update_records(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx);
int et_poll(struct remote *r, const char *collection, const char *cursor, remote_poll_done *done,
	    void *ctx);
int et_record_json(struct remote *r, const char *collection, const char *record,
		   remote_text_done *done, void *ctx);
int et_make_record(struct remote *r, const char *collection, const char *name,
		   remote_record_done *done, void *ctx);
int et_probe(struct remote *r, enum transfer_class class, remote_done *done, void *ctx);
int et_check(struct remote *r, remote_finding *each, remote_done *done, void *ctx);

/* What listings and writes learn for the polls. @since_ns: the server's clock, or _NONE. */
void et_watch_rows(struct et *p, const struct et_collection *c, const json_t *rows);
void et_watch_touched(struct et *p, const struct et_collection *c, const char *record,
		      int64_t since_ns);

#endif
