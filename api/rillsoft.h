/* SPDX-License-Identifier: MIT */
#ifndef API_RILLSOFT_H
#define API_RILLSOFT_H

/*
 * The client for the Rillsoft Integration Server (reference/rillsoft.md; R-n are its traps), by noun:
 *
 *	rillsoft.c             making and freeing one; the tables of ops and facts; what it may do
 *	rillsoft_template.c    pure: paths, as the vendor documents them or the options say
 *	rillsoft_decode.c      pure: the server's JSON -> documents, projects, folders; times; versions
 *	rillsoft_login.c       POST /api/v1/login; what a JWT says of its end
 *	rillsoft_file.c        documents as files; their versions
 *	rillsoft_listing.c     the list of documents, one reply for all who want it at a time
 *	rillsoft_list.c        list_tree, list_record, poll, record_json
 *	rillsoft_project.c     list_collections
 *	rillsoft_fetch.c       reading bytes
 *	rillsoft_write.c       what the writing calls have in common; remove
 *	rillsoft_create.c      create
 *	rillsoft_update.c      replace, rename, move
 *	rillsoft_attachment.c  family 1, the attachments named by an option
 *	rillsoft_check.c       probe, check
 *
 * A collection is a project, a record an element of its plan (known by its documents only, R-17), a
 * file a DMS document. No writing call answers with what it made: the list is asked again, and
 * believed. The flat collection "attachments" holds what the option attachments= names.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <attachfs/remote.h>

#include "auth.h"
#include "base.h"
#include "call.h"
#include "fetch.h"

#define RILLSOFT_ID_SIZE     20 /* 18 digits */
#define RILLSOFT_UUID_SIZE   37
#define RILLSOFT_ATTACHMENTS "attachments" /* the flat collection, and its record */
#define RILLSOFT_NO_ELEMENT  "none" /* the record of documents that hang on no element we can name */
/*
 * Of an attachment of family 1: the server says nothing by which contents could be told apart, and a
 * counter of ours would begin anew at every mount and make foreign changes of our own.
 */
#define RILLSOFT_ATTACHMENT_VERSION "1"

/* templates */

enum rillsoft_path {
	RILLSOFT_LOGIN,
	RILLSOFT_CLIENT,
	RILLSOFT_PROJECTS,
	RILLSOFT_DOCUMENTS,
	RILLSOFT_CREATE,
	RILLSOFT_UPDATE,
	RILLSOFT_UPLOAD,
	RILLSOFT_DOWNLOAD,
	RILLSOFT_DELETE,
	RILLSOFT_FOLDERS,
	RILLSOFT_ATTACHMENT,
	RILLSOFT_PATHS
};

/* What goes into the placeholders of a path; a member that the path has no room for is ignored. */
struct rillsoft_ids {
	const char *cid, *pid, *did, *aid, *fid, *uuid;
};

/* The default, which is the documented path where there is one. */
const char *rillsoft_path_default(enum rillsoft_path path);

/*
 * Whether @template may be used for @path: it begins with '/', has no blanks, and only placeholders
 * that the path knows. 0, or -EINVAL with @message, which names the option.
 */
int rillsoft_template_check(enum rillsoft_path path, const char *template, char *message,
			    size_t size);

/* NULL without memory. The ids must have been checked: digits and '-' only. */
char *rillsoft_template_fill(const char *template, const struct rillsoft_ids *ids);

/* decode */

struct rillsoft_doc {
	char id[RILLSOFT_ID_SIZE];
	char project[RILLSOFT_ID_SIZE];
	char folder[RILLSOFT_ID_SIZE];		      /* "" = not told */
	char parent[RILLSOFT_UUID_SIZE];	      /* or RILLSOFT_NO_ELEMENT */
	char *element, *name, *description, *created; /* never NULL; may be "" */
	int64_t size;				      /* -1 = not told */
	int64_t created_ns;			      /* REMOTE_TIME_NONE = not told */
};

/* A whole reply to the question for documents; constant once it is made, but for `given`. */
struct rillsoft_listing {
	atomic_uint refs;
	unsigned long seq; /* of its request among requests and writes, see rillsoft_listing.c */
	int64_t at_ms;	   /* when that was sent */
	char asked[RILLSOFT_ID_SIZE]; /* the project it was asked for */
	bool foreign; /* it holds documents of others as well: the selector was ignored */
	bool all;     /* it was asked for without a selector */
	struct rillsoft_doc *docs; /* in order of id, each once */
	size_t n;
	/* rillsoft.lock: what it was asked for (bits of rillsoft_need), and who has seen it */
	unsigned needs;
	struct rillsoft_given *given;
};

/*
 * Pure: a list of documents in whatever envelope, of @asked where a row does not say which
 * project it is of. 0; -EIO (not such a list: no row may be left out silently), -ENOMEM.
 */
int rillsoft_decode_listing(const json_t *root, const char *asked, struct rillsoft_listing **ret);
struct rillsoft_listing *rillsoft_listing_ref(struct rillsoft_listing *l);
void rillsoft_listing_unref(struct rillsoft_listing *l); /* NULL is fine */

/* NULL = none. */
const struct rillsoft_doc *rillsoft_find_doc(const struct rillsoft_listing *l, const char *id);
/* Whether it says all there is of @project. */
bool rillsoft_covers(const struct rillsoft_listing *l, const char *project);
/* Any document of the element; @parent NULL: of the project. NULL = none. */
const struct rillsoft_doc *rillsoft_find_of(const struct rillsoft_listing *l, const char *project,
					    const char *parent);
/*
 * The document that was made of @parent, @name and @size: it is in @now and not in @before. One of
 * that name rather than one of @filename (NULL = not looked for), one of that size rather than
 * another. NULL = none.
 */
const struct rillsoft_doc *rillsoft_find_new(const struct rillsoft_listing *now,
					     const struct rillsoft_listing *before,
					     const char *project, const char *parent,
					     const char *name, const char *filename, uint64_t size);

/* Pure: a fingerprint of what the project's documents are, to see change by. */
uint64_t rillsoft_hash_listing(const struct rillsoft_listing *l, const char *project);

/* Pure: what there is to tell one content of a document from another: id, size, createdAt. */
#define RILLSOFT_VERSION_SIZE 80
void rillsoft_version(const struct rillsoft_doc *doc, char out[RILLSOFT_VERSION_SIZE]);

/*
 * Pure: "2026-03-01T08:15:00", the same without seconds, "01.03.2026 08:15", as UTC. False:
 * none of these, or empty.
 */
bool rillsoft_parse_time(const char *text, int64_t *ret_ns);

/* Pure: the rows of an envelope: an array, however wrapped. Borrowed; NULL = there is none. */
const json_t *rillsoft_rows(const json_t *root, json_t **ret_owned);

/* Pure: projects as collections, with room for one more at the end. 0, -EIO, -ENOMEM. */
int rillsoft_decode_projects(const json_t *root, struct remote_collection **ret_list,
			     size_t *ret_n);
void rillsoft_collections_free(struct remote_collection *list, size_t n);

/* Pure: the main folder of a nested set, or of a tree by parents. False: none. */
bool rillsoft_decode_main_folder(const json_t *root, char out[RILLSOFT_ID_SIZE]);

/* Pure: the token of a login's answer, wherever it is (section 1). Borrowed; NULL = none. */
const char *rillsoft_find_token(const json_t *root);

/*
 * Pure: the claims exp and iat of a JWT, seconds since the epoch; -1 = not told. False: it is none.
 */
bool rillsoft_decode_jwt(const char *token, int64_t *ret_exp_s, int64_t *ret_iat_s);

/* Pure: which outcome and errno a reply to a writing call means; 404 is the caller's to explain. */
enum rillsoft_verb { RILLSOFT_CREATES, RILLSOFT_REPLACES, RILLSOFT_UPDATES, RILLSOFT_REMOVES };
enum remote_outcome rillsoft_judge(const struct call_reply *reply, enum rillsoft_verb verb,
				   int *ret_error);

/* Pure: whether a part's filename can carry @name as it is. */
bool rillsoft_is_tame(const char *name);

/* the client */

struct rillsoft_slot;
#define RILLSOFT_READING 256

struct rillsoft {
	struct remote base;		   /* first */
	struct base server;		   /* without "/api" */
	char *client;			   /* the tenant's id */
	const char *paths[RILLSOFT_PATHS]; /* the options' own strings or ours */
	bool selects;			   /* the list of documents is asked for by project */
	enum options_override override;
	char **attachments; /* ids of family 1 */
	size_t n_attachments;
	const char *user;	 /* of options, NULL = a token was given */
	const char *collections; /* of options, NULL = all */
	char *scope;		 /* "?project_id=41", "" = none */
	_Atomic int64_t
		token_end_s; /* exp of the token of the last login; -1 = not told, 0 = none */
	/* updates without a file are refused by this server; learnt */
	atomic_bool file_required;
	atomic_bool delete_told; /* that template_delete= is wrong was logged */

	/* Held over no call and no callback. */
	pthread_mutex_t lock;
	struct rillsoft_slot *slots;
	bool shared; /* one reply serves all projects, as far as seen */
	unsigned long seq, write_seq;
	unsigned long doubt_seq;       /* older listings may lack what a create left */
	struct rillsoft_job *creating; /* in order of arrival */
	bool folder_known;
	char main_folder[RILLSOFT_ID_SIZE]; /* "" = there is no list of folders */
	/* which project a document that is being read belongs to; by id */
	struct {
		char id[RILLSOFT_ID_SIZE], project[RILLSOFT_ID_SIZE];
	} reading[RILLSOFT_READING];
};

int rillsoft_new(const struct options *options, struct engine *engine, struct pool *pool,
		 struct remote **ret_remote, char *message, size_t size);

/* A call to a path, counted as "METHOD <its template>". @query: "" or "?...". */
struct call *rillsoft_call(struct rillsoft *ris, enum transfer_class class, const char *method,
			   enum rillsoft_path path, const struct rillsoft_ids *ids,
			   const char *query);
/* The absolute URL of a path; NULL without memory. */
char *rillsoft_url(const struct rillsoft *ris, enum rillsoft_path path,
		   const struct rillsoft_ids *ids);
bool rillsoft_is_attachments(const char *collection);
/* Whether attachments= names @id. */
bool rillsoft_has_attachment(const struct rillsoft *ris, const char *id);

/* login */
int rillsoft_login(struct remote *r, const char *user, const char *secret, const char *refresh,
		   const _Atomic bool *stop, struct auth_login *ret, char *message, size_t size);

/* listing, see rillsoft_listing.c */
enum rillsoft_need {
	RILLSOFT_FRESH, /* asked for after this call */
	RILLSOFT_TREE,	/* at most 2 s old, newer than our writes, and see rillsoft_listing.c */
	RILLSOFT_POLL,	/* the same */
	RILLSOFT_KNOWN, /* what is known; at most 90 s old */
	RILLSOFT_OFFER, /* not for want: a poll's, that the next tree may have */
};
/* Who waits for a listing; part of what he is. Untouched between want and done(). */
struct rillsoft_wait {
	struct rillsoft_wait *next;
	struct rillsoft *ris;
	enum transfer_class class;
	enum rillsoft_need need;
	char project[RILLSOFT_ID_SIZE];
	/* @l is borrowed, NULL with an error. */
	void (*done)(void *ctx, int error, struct rillsoft_listing *l, const char *message);
	void *ctx;
	int error;
	struct rillsoft_listing *listing;
};
/* Always ends with done(), on the pool. @project is checked. */
void rillsoft_want(struct rillsoft *ris, struct rillsoft_wait *wait, enum transfer_class class,
		   const char *project, enum rillsoft_need need,
		   void (*done)(void *ctx, int error, struct rillsoft_listing *l,
				const char *message),
		   void *ctx);
/* From now on older listings do not tell what is there. */
void rillsoft_note_write(struct rillsoft *ris);
/* A poll saw a change in this: the tree that will be asked for may be it. */
void rillsoft_offer(struct rillsoft *ris, struct rillsoft_listing *l, const char *project);
void rillsoft_slots_free(struct rillsoft *ris);
/* The project of a document that some listing holds; false = none does. */
bool rillsoft_find_project(struct rillsoft *ris, const char *id, char out[RILLSOFT_ID_SIZE]);

/* As remote.h has it. False without memory (then *@f is cleared). */
bool rillsoft_make_file(const struct rillsoft_doc *doc, struct remote_file *f);
bool rillsoft_make_attachment(const char *id, struct remote_file *f);

/* writing */

struct rillsoft_work;
/* One item of a writing call. */
struct rillsoft_job {
	struct rillsoft *ris;
	struct rillsoft_work *work;
	struct remote_change *item;
	enum rillsoft_verb verb;
	enum transfer_class class;
	struct rillsoft_wait wait;
	/* What was known before; doc is in it. */
	struct rillsoft_listing *before;
	const struct rillsoft_doc *doc;
	char folder[RILLSOFT_ID_SIZE];
	const char *filename; /* of the part; borrowed of item or doc */
	const char *name;     /* wanted; the same */
	int fd;		      /* the bytes to send, -1 = none; see own_fd */
	uint64_t size;
	bool own_fd;	/* a download of ours, to be closed */
	bool with_file; /* the bytes go along */
	bool looked, retried, renamed;
	struct rillsoft_job *next_creating; /* lock; see rillsoft_create.c */
	/* of the download */
	uint64_t arrived;
	int error;
	char message[CALL_MESSAGE_MAX];
};
/* Ends the item. @format: for a person. */
void rillsoft_job_end(struct rillsoft_job *job, enum remote_outcome outcome, int error,
		      const char *format, ...) __attribute__((format(printf, 4, 5)));
/* By rillsoft_judge(), with the server's words. */
void rillsoft_job_judge(struct rillsoft_job *job, const struct call_reply *reply);
/* Done: @doc is what the server has. */
void rillsoft_job_succeed(struct rillsoft_job *job, const struct rillsoft_doc *doc);
void rillsoft_job_want(struct rillsoft_job *job, enum rillsoft_need need,
		       void (*done)(void *ctx, int error, struct rillsoft_listing *l,
				    const char *message));
void rillsoft_job_start_call(struct rillsoft_job *job, struct call *call, call_done *done);
void rillsoft_job_keep(struct rillsoft_job *job, struct rillsoft_listing *l);

/* How each begins; on the pool. The item is sound. */
void rillsoft_create_begin(struct rillsoft_job *job);
/* A create is about to end. */
void rillsoft_create_leave(struct rillsoft_job *job, enum remote_outcome outcome);
void rillsoft_update_begin(struct rillsoft_job *job);
void rillsoft_attachment_begin(struct rillsoft_job *job);

int rillsoft_create(struct remote *r, enum transfer_class class, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx);
int rillsoft_replace(struct remote *r, enum transfer_class class, struct remote_change *items,
		     size_t n, remote_done *done, void *ctx);
int rillsoft_update(struct remote *r, enum transfer_class class, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx);
int rillsoft_remove(struct remote *r, enum transfer_class class, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx);

int rillsoft_list_collections(struct remote *r, enum transfer_class class,
			      remote_collections_done *done, void *ctx);
int rillsoft_list_tree(struct remote *r, enum transfer_class class, const char *collection,
		       const struct remote_sink *sink);
int rillsoft_list_record(struct remote *r, enum transfer_class class, const char *collection,
			 const char *record, const struct remote_sink *sink);
int rillsoft_poll(struct remote *r, const char *collection, const char *cursor,
		  remote_poll_done *done, void *ctx);
int rillsoft_record_json(struct remote *r, const char *collection, const char *record,
			 remote_text_done *done, void *ctx);
int rillsoft_probe_size(struct remote *r, enum transfer_class class, const struct remote_file *file,
			const char *collection, int64_t deadline_mono_ms, remote_size_done *done,
			void *ctx);
int rillsoft_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		   const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		   const struct remote_fetch_sink *sink, uint64_t *ret_id);
int rillsoft_probe(struct remote *r, enum transfer_class class, remote_done *done, void *ctx);
int rillsoft_check(struct remote *r, remote_finding *each, remote_done *done, void *ctx);

#endif
