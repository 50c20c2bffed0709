/* SPDX-License-Identifier: MIT */
#ifndef API_SERVICEMAX_H
#define API_SERVICEMAX_H

/*
 * The client for ServiceMax, Service Board REST v2 (reference/servicemax.md; S-n are its traps), by
 * noun:
 *
 *	servicemax.c           making and freeing one; the tables of ops and facts; small ops
 *	servicemax_auth.c      logging in and out
 *	servicemax_check.c     what attachfs check tells
 *	servicemax_csrf.c      writes, with the token some servers want along with them
 *	servicemax_decode.c    pure: the server's JSON -> records and files; what an error means
 *	servicemax_document.c  reading bytes
 *	servicemax_encode.c    pure: URLs, forms
 *	servicemax_look.c      the files of one record, many looks in one call
 *	servicemax_paging.c    pure: the list of records, page by page
 *	servicemax_poll.c      change
 *	servicemax_remove.c    remove
 *	servicemax_script.c    pure: the token in a script
 *	servicemax_tree.c      the listing of a whole object
 *	servicemax_upload.c    create, replace
 *	servicemax_uuids.c     sets of UUIDs
 *
 * A collection is an object by its full identifier (S-21), a record and a file are known by UUIDs.
 * Files are written and deleted by name, which is unique in a record.
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

#define SERVICEMAX_UUID_SIZE  37
#define SERVICEMAX_OBJECT_MAX 80
#define SERVICEMAX_PAGE	      1000 /* records in a call */
#define SERVICEMAX_LOOKS      100  /* records in a call for their files (section 3) */
#define SERVICEMAX_CREATE     20   /* files in an upload */
#define SERVICEMAX_REMOVE     100  /* files in a deletion */

/* What is said of a token that is no good, with whatever status (section 1). */
#define SERVICEMAX_REFUSAL "invalid token"

/* Pure: a full object identifier, which may enter a URL. */
bool servicemax_is_object(const char *name);

/* sets of UUIDs; the case of letters does not matter */

struct servicemax_uuids {
	struct servicemax_uuid *slots;
	size_t n, size;
};
/* Note @uuid with @tag (1..255): the tag it had, 0 = it is new; -ENOMEM, -EINVAL. */
int servicemax_uuids_put(struct servicemax_uuids *set, const char *uuid, unsigned tag);
/* Its tag, 0 = it is not there. */
unsigned servicemax_uuids_get(const struct servicemax_uuids *set, const char *uuid);
/* One after the other from *@at = 0 on; false at the end. */
bool servicemax_uuids_next(const struct servicemax_uuids *set, size_t *at,
			   char out[SERVICEMAX_UUID_SIZE]);
void servicemax_uuids_clear(struct servicemax_uuids *set);

/* decode */

/*
 * An answer with all files of an object may be so large; above it (some 300,000 files) records are
 * looked at in hundreds.
 */
#define SERVICEMAX_FILES_MAX ((size_t)128 << 20)

struct servicemax_page {
	struct remote_record *records;
	size_t n_records, records_size;
	struct remote_file *files;
	size_t n_files, files_size;
	size_t rows; /* records there were, deleted ones counted */
};
void servicemax_page_clear(struct servicemax_page *page);
/* The first @n files are done with. */
void servicemax_page_clear_files(struct servicemax_page *page);

/*
 * Pure: one attachment of @record. 0; 1: it is no file (S-8); -EIO: no attachment; -ENOMEM. *@f is
 * whole, or cleared.
 */
int servicemax_decode_file(const struct base *base, const char *record, const json_t *object,
			   struct remote_file *f);

/* Pure: an array of attachments is added to the page. 0, -EIO, -ENOMEM. */
int servicemax_decode_files(const struct base *base, const char *record, const json_t *array,
			    struct servicemax_page *page);

/* Pure: a bare array of records, or one record, is added to the page. 0, -EIO, -ENOMEM. */
int servicemax_decode_records(const json_t *root, struct servicemax_page *page);

/*
 * Pure: a number that is one, or a string of digits (section 3); -1: neither, or negative, or huge.
 */
int64_t servicemax_get_number(const json_t *object, const char *key);

/*
 * Pure: what all files of a map of records are like, whatever order they come in: the same text
 * means that nothing has changed. -EIO: no such map.
 */
#define SERVICEMAX_DIGEST_SIZE 64
int servicemax_digest(const json_t *map, char out[SERVICEMAX_DIGEST_SIZE]);

/* Pure: which outcome and errno a reply to a writing call means. */
enum servicemax_verb { SERVICEMAX_CREATE_FILE, SERVICEMAX_REPLACE_FILE, SERVICEMAX_REMOVE_FILE };
enum remote_outcome servicemax_judge(const struct call_reply *reply, enum servicemax_verb verb,
				     size_t n_items, int *ret_error);

/*
 * Pure: whether a file may have this name on the server, for creating (-EINVAL) or addressing it
 * (-EPERM) (S-13).
 */
int servicemax_check_name(const char *name, enum remote_deed deed);

/* encode; all malloc()ed, NULL without memory */

/* "<key>=<value>&..." escaped; pairs end with NULL, those with a NULL value are left out. */
char *servicemax_form(const char *const *pairs);

/* "f1,f2" escaped one by one, of @n names. */
char *servicemax_names(const char *const *names, size_t n);

/*
 * The Content-Disposition of a part under @filename, quoted as MIME has it: browsers write %22 for
 * a '"', which servers that are no browser's keep as it is.
 */
char *servicemax_disposition(const char *filename);

/*
 * Fields of a record that are asked for, the fewer the higher @level; NULL past the last. Not every
 * object has all, and not every server leaves out what there is not.
 */
const char *servicemax_fields(unsigned level);

/*
 * Pure: the token in the script of a server that guards its writes. @name: of the header it goes
 * into. False: there is none.
 */
#define SERVICEMAX_CSRF_NAME  64
#define SERVICEMAX_CSRF_TOKEN 256
bool servicemax_find_csrf(const char *script, size_t len, char name[SERVICEMAX_CSRF_NAME],
			  char token[SERVICEMAX_CSRF_TOKEN]);

/* paging */

/*
 * A list of records comes by offset, and shifts when one is made or deleted meanwhile. So each page
 * begins some rows before the end of the last one: rows seen before prove that none was skipped.
 */
struct servicemax_paging {
	struct servicemax_uuids seen; /* tag: in which pass, 1.. */
	unsigned pass;
	uint64_t offset; /* of the next call, as @limit */
	unsigned limit, overlap, backs;
	uint64_t reached; /* rows up to which this pass has come */
};
void servicemax_paging_begin(struct servicemax_paging *p);
/*
 * Records that were seen before are taken out of @page; @total: X-Total-Count, -1 = not told. 1: go
 * on at p->offset; 0: that was all; -EIO, *@ret_message says why: the pages cannot be trusted;
 * -ENOMEM.
 */
int servicemax_paging_take(struct servicemax_paging *p, struct servicemax_page *page, int64_t total,
			   const char **ret_message);

/* the client */

struct auth_login;
struct servicemax_look;

struct servicemax_object {
	char name[SERVICEMAX_OBJECT_MAX + 1];
	atomic_uint level;   /* servicemax_fields() that it has */
	atomic_bool undated; /* records cannot be sorted by io_updated_on */
};

enum servicemax_path { SERVICEMAX_PATH_UNKNOWN, SERVICEMAX_PLURAL, SERVICEMAX_SINGULAR };

struct servicemax {
	struct remote base; /* first */
	struct base server;
	const char *user, *given_client_id; /* the options' own */
	struct servicemax_object *objects;  /* of collections= */
	size_t n_objects;
	atomic_bool other_token_path; /* /auth/token (S-17) */
	atomic_int delete_path;	      /* enum servicemax_path (S-12) */
	atomic_bool plain_document;   /* bytes are refused with the credential (section 13) */

	/* Not held over a call or a callback, nor while another lock is taken. */
	pthread_mutex_t lock;
	char *client_id;							 /* found out */
	char csrf_name[SERVICEMAX_CSRF_NAME], csrf_token[SERVICEMAX_CSRF_TOKEN]; /* "" = none */
	unsigned csrf_generation;
	struct servicemax_write *csrf_waits;
	struct servicemax_look *looks[2]; /* [1] = interactive ones; in order of arrival */
	bool looking[2];
	struct servicemax_uuids hidden; /* records with files that are not to be seen */
};

int servicemax_new(const struct options *options, struct engine *engine, struct pool *pool,
		   struct remote **ret_remote, char *message, size_t size);

/*
 * A call to the server's @path ("/v2/io_showcase"), counted as "METHOD @endpoint".
 */
struct call *servicemax_call(struct servicemax *p, enum transfer_class class, const char *method,
			     const char *path, const char *endpoint);

/* What is known of an object; NULL: it was not named by collections=. */
struct servicemax_object *servicemax_find_object(struct servicemax *p, const char *name);

/* auth_config's */
int servicemax_login(struct remote *r, const char *user, const char *secret, const char *refresh,
		     const _Atomic bool *stop, struct auth_login *ret, char *message, size_t size);
void servicemax_logout(struct remote *r, const struct auth_login *login);

/*
 * A call that writes: make() builds it, as often as it is sent; reply() gets the answer, once. A
 * server that refuses it for want of a CSRF token is asked for one, and then gets it again.
 */
struct servicemax_write {
	struct servicemax *p;
	struct call *(*make)(struct servicemax_write *w);
	void (*reply)(struct servicemax_write *w, const struct call_reply *reply);
	/* servicemax_csrf.c's: */
	unsigned generation;
	bool retried;
	struct servicemax_write *next;
};
int servicemax_write_start(struct servicemax_write *w);

int servicemax_list_tree(struct remote *r, enum transfer_class class, const char *collection,
			 const struct remote_sink *sink);
int servicemax_list_record(struct remote *r, enum transfer_class class, const char *collection,
			   const char *record, const struct remote_sink *sink);
int servicemax_poll(struct remote *r, const char *collection, const char *cursor,
		    remote_poll_done *done, void *ctx);
int servicemax_check(struct remote *r, remote_finding *each, remote_done *done, void *ctx);
int servicemax_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		     const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		     const struct remote_fetch_sink *sink, uint64_t *ret_id);
int servicemax_create(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx);
int servicemax_replace(struct remote *r, enum transfer_class class, struct remote_change *items,
		       size_t n, remote_done *done, void *ctx);
int servicemax_remove(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx);
/* The newest version of each of the files only: what it took the place of is there again. */
int servicemax_remove_latest(struct remote *r, enum transfer_class class,
			     struct remote_change *items, size_t n, remote_done *done, void *ctx);

/* An item's lower half before its call: not done, whatever goes wrong on the way. */
void servicemax_change_reset(struct remote_change *item);
void servicemax_settle(struct remote_change *item, enum remote_outcome outcome, int error,
		       const char *message);

#endif
