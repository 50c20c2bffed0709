/* SPDX-License-Identifier: MIT */
#ifndef API_PERSCOM_H
#define API_PERSCOM_H

/*
 * The client for PERSCOM (reference/perscom.md; P-n are its traps), by noun:
 *
 *	perscom.c          making and freeing one; the tables of ops and facts; probe, record_json
 *	perscom_decode.c   pure: the server's JSON -> records and files; what an error means
 *	perscom_encode.c   pure: bodies of requests, URLs, names that survive as a part's filename
 *	perscom_url.c      pure: links in answers: whether they may be followed, and until when
 *	perscom_list.c     listings
 *	perscom_stream.c   ... of which some is shown before the answer is whole
 *	perscom_check.c    what attachfs check asks
 *	perscom_renew.c    new links for expired ones, many at a time, and the memory of them
 *	perscom_fetch.c    reading bytes
 *	perscom_write.c    create, replace
 *	perscom_batch.c    update, remove, update_records
 *	perscom_poll.c     change
 *
 * Listings and looks are POST .../search without exception: GETs go through two caches that outlive
 * our own writes and the links in the answers (P-5, P-6).
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <attachfs/remote.h>

#include "call.h"
#include "fetch.h"

/* A kind of record that can own attachments: one row each. */
struct perscom_collection {
	const char *name;	/* in the mount and in URLs: "users" */
	const char *model_type; /* the PHP class (P-10, P-16) */
	const char *label;	/* for records without a name */
	/* what its name is; NULL = none: records are called after their text */
	const char *name_field;
	const char *view_scope, *update_scope;
};

const struct perscom_collection *perscom_find_collection(const char *name);
const struct perscom_collection *perscom_find_model(const char *model_type);
/* A bit of its own for each collection; all bits for NULL. */
unsigned perscom_collection_bit(const struct perscom_collection *c);
/* NULL behind the last one. */
const struct perscom_collection *perscom_collection_at(size_t index);

/* Pure: what an answer's links are measured against. */
struct perscom_base {
	char *url;	     /* "https://api.perscom.io/v2", no '/' at the end */
	char *origin;	     /* "https://api.perscom.io" */
	char *host;	     /* "api.perscom.io", for messages */
	const char *version; /* "v2", in url */
	bool http;	     /* plain http is allowed for links too */
};

/*
 * @text as given by the user; "/v2" is added when no version is there. 0, -EINVAL with @message,
 * -ENOMEM.
 */
int perscom_base_parse(const char *text, struct perscom_base *ret, char *message, size_t size);
void perscom_base_clear(struct perscom_base *base);

/*
 * A link from an answer: absolute http(s), or relative to the origin. *@ret_url is NULL for "no
 * link", also when it is one that must not be followed (another scheme, http where the API is https
 * and the host not loopback, blanks or control bytes). 0 or -ENOMEM.
 */
int perscom_url_resolve(const struct perscom_base *base, const char *link, char **ret_url);

/*
 * When a presigned link ends (X-Amz-Date + X-Amz-Expires), seconds since the epoch; INT64_MAX =
 * never or not told.
 */
int64_t perscom_url_expiry(const char *url);

/* decode */
enum { PERSCOM_NAMES_LABEL, PERSCOM_NAMES_FILENAME };

struct perscom_page {
	struct remote_record *records;
	size_t n_records, records_size;
	struct remote_file *files;
	size_t n_files, files_size;
	int64_t total;			 /* meta.total, -1 = not told */
	size_t rows;			 /* of data */
	char last_id[REMOTE_ID_MAX + 1]; /* the greatest id of the rows, "" = none */
	bool ascending;			 /* the rows were in order of id */
};

/*
 * Pure: `{"data": [...]}` of a search; records with their inline attachments (which must be there)
 * when @c is not NULL, else attachments. 0; -EIO (not such an answer: no row may be left out
 * silently), -ENOMEM. Clear the page in any case.
 */
int perscom_decode_page(const struct perscom_base *base, const json_t *root,
			const struct perscom_collection *c, int names, struct perscom_page *page);

/*
 * Pure: whether a listing that has come as far as @after ("" = nowhere) is whole with this page: 0;
 * 1: the next page begins after page->last_id; -EIO, *@ret_message (static) says why: the server's
 * paging cannot be trusted to come to an end or to be whole.
 */
int perscom_page_more(const struct perscom_page *page, const char *after, const char **ret_message);
void perscom_page_clear(struct perscom_page *page);

/* Pure: one attachment object. 0, -EIO, -ENOMEM; *@f is cleared or whole. */
int perscom_decode_file(const struct perscom_base *base, const json_t *object, int names,
			struct remote_file *f);

/* Pure: the record's name as in struct perscom_collection; never empty. NULL without memory. */
char *perscom_record_name(const struct perscom_collection *c, const json_t *object, const char *id);

/* Pure: which outcome and errno a reply to a writing call means. */
enum perscom_verb { PERSCOM_CREATE, PERSCOM_REPLACE, PERSCOM_UPDATE, PERSCOM_REMOVE };
enum remote_outcome perscom_judge(const struct call_reply *reply, enum perscom_verb verb,
				  size_t n_items, int *ret_error);

/*
 * Pure: whether error.errors of a 422 names the entry resources.<id>; *@ret_error by its field,
 * *@ret_words (borrowed) what is said of it.
 */
bool perscom_blames(const json_t *root, const char *id, int *ret_error, const char **ret_words);

/* encode */

/* Pure bodies of searches; NULL without memory. @after: only greater ids; NULL or "" = all. */
json_t *perscom_body_page(const char *after);
json_t *perscom_body_owner(const char *model_type, const char *record, const char *after);
json_t *perscom_body_ids(const char *const *ids, size_t n);
json_t *perscom_body_from_id(const char *id);
json_t *perscom_body_newest(const char *model_type);
/* @collections: perscom_collection_bit()s. */
json_t *perscom_body_newest_of(unsigned collections);

/*
 * The map of a batch update; entries of one id are merged, those with nothing to change are left
 * out (P-11).
 */
json_t *perscom_body_update(const struct remote_change *items, size_t n);
json_t *perscom_body_update_records(const struct perscom_collection *c,
				    const struct remote_change *items, size_t n);
/* {"resources": [ids]} (P-12) */
json_t *perscom_body_remove(const struct remote_change *items, size_t n);
/*
 * One entry of the above: what is to be changed; empty = nothing. NULL: no memory, or a collection
 * that is none.
 */
json_t *perscom_entry(const struct remote_change *item);
json_t *perscom_record_entry(const struct perscom_collection *c, const struct remote_change *item);

/* Whether @name as a part's filename comes back as it is (P-15). */
bool perscom_is_tame(const char *name);

/*
 * The name a part is uploaded under, which becomes the file's `filename`: the item's name when it
 * is tame, else (also without a name) its token. Borrowed.
 */
const char *perscom_part_filename(const struct remote_change *item);

/* An item's lower half before its call: not done, whatever goes wrong on the way. */
void perscom_change_reset(struct remote_change *item);

/* Whether the server's columns can hold the time (P-24), and how it is sent. */
bool perscom_format_time(int64_t ns, char out[32]);

/*
 * @size bytes that nobody takes for content: what stands in for a file that is too small to be
 * created (P-1).
 */
void perscom_fill(char *out, size_t size);

/* the client */

#define PERSCOM_LINKS	   4096 /* remembered links */
#define PERSCOM_CREATE_MIN 1024
#define PERSCOM_CREATE_MAX 10240000
#define PERSCOM_PAGE	   1000

struct perscom_link {
	char *id, *url, *version;
};

/*
 * Deletions the server said yes to and nobody has verified (P-13), see perscom_batch.c. A ring: the
 * oldest fall out.
 */
#define PERSCOM_DOUBTS	4096
#define PERSCOM_ID_SIZE 20 /* 18 digits */
struct perscom_doubts {
	int64_t due_ms; /* from when on (clock_mono_ms) a DELETE is verified again */
	size_t first, n;
	char ids[PERSCOM_DOUBTS][PERSCOM_ID_SIZE];
};
void perscom_doubts_add(struct perscom_doubts *d, const char *id);
/*
 * Whether it is time for a verification: then all ids are taken out, *@ret_ids (free() it, may be
 * NULL) holds *@ret_n of them, and the next one is due 30 s later.
 */
bool perscom_doubts_take(struct perscom_doubts *d, int64_t now_ms,
			 char (**ret_ids)[PERSCOM_ID_SIZE], size_t *ret_n);

struct perscom_renewal;
struct perscom_polling;

/*
 * What polls have in common, see perscom_poll.c: the last answer, or the call that is on its way and
 * who waits for it.
 */
#define PERSCOM_HALF_MAX 256
struct perscom_glance {
	unsigned collections; /* all that were ever polled */
	unsigned long turn;   /* how many calls there were */
	const struct perscom_collection *last_records;
	bool running;
	struct perscom_polling *waiting;
	/* of the call under way, or else of the last answer: */
	const struct perscom_collection *records; /* whose; NULL = attachments */
	unsigned asked;				  /* attachments: of these collections */
	unsigned given;				  /* shown to these */
	int error;
	bool blind; /* the newest row's time lies in the future: nothing would show behind it */
	char newest[PERSCOM_HALF_MAX];
	int64_t newest_ns; /* of the row: what tells when it came; REMOTE_TIME_NONE = nothing */
	int64_t date_s;	   /* the server's clock */
	int64_t at_ms;
};

struct perscom {
	struct remote base; /* first */
	struct perscom_base server;
	char *tenant; /* X-Perscom-Id, NULL = none */
	int names;
	_Atomic int64_t skew_s; /* server's clock minus ours */

	/*
	 * None of the locks is held while another one of them is taken, over a call or a callback.
	 */
	pthread_mutex_t links_lock;
	struct perscom_link links[PERSCOM_LINKS];

	pthread_mutex_t renew_lock;
	struct perscom_renewal *waiting[2]; /* [1] = interactive ones; in order of arrival */
	bool renewing[2];

	pthread_mutex_t doubts_lock;
	struct perscom_doubts doubts;
	/* perscom_collection_bit()s: deletions there were not verified, and no poll has told */
	atomic_uint unproved;

	pthread_mutex_t glance_lock;
	struct perscom_glance glance;
};

int perscom_new(const struct options *options, struct engine *engine, struct pool *pool,
		struct remote **ret_remote, char *message, size_t size);

/*
 * A call to base + @path, counted as "METHOD /v2/<template>"; @path and @template are alike where
 * there is no id in it. Headers that every call has are in it.
 */
struct call *perscom_call(struct perscom *p, enum transfer_class class, const char *method,
			  const char *path, const char *template);

/* A search: POST <resource>/search?<query>limit=<limit>. */
struct call *perscom_search(struct perscom *p, enum transfer_class class, const char *resource,
			    const char *query, unsigned limit, json_t *body);

void perscom_note_reply(struct perscom *p, const struct call_reply *reply);

/* Remember where files are. */
void perscom_remember(struct perscom *p, const struct remote_file *files, size_t n);
/*
 * What is remembered of @id when its link is good and not @bad: *@f gets id, version and url.
 * False: nothing. Clear *@f.
 */
bool perscom_recall(struct perscom *p, const char *id, const char *bad, struct remote_file *f);
void perscom_links_free(struct perscom *p);
bool perscom_is_expired(struct perscom *p, const char *url);

/*
 * A link for @id that is another one than @bad (NULL = any); @fresh: from the server, not from
 * memory. done() is called once, on the pool or at once, in any case: 0 and the row's id, version
 * and url as they are now, @remembered = as far as we remember; -ENOENT; or the error of the call.
 */
void perscom_renew(struct remote *r, enum transfer_class class, const char *id, const char *bad,
		   bool fresh, int64_t deadline_mono_ms, fetch_renewed *done, void *ctx);

/*
 * Shows files of large rows to @sink while an answer comes: call_set_tap(call, perscom_stream_take,
 * stream). End it in the call's done() before anything else: from then on the sink is left alone.
 * NULL without memory, which end tolerates.
 */
struct perscom_stream *perscom_stream_new(struct perscom *p, const struct perscom_collection *c,
					  const struct remote_sink *sink);
void perscom_stream_take(void *ctx, const void *data, size_t len);
void perscom_stream_end(struct perscom_stream *stream);

int perscom_list_tree(struct remote *r, enum transfer_class class, const char *collection,
		      const struct remote_sink *sink);
int perscom_list_record(struct remote *r, enum transfer_class class, const char *collection,
			const char *record, const struct remote_sink *sink);
int perscom_poll(struct remote *r, const char *collection, const char *cursor,
		 remote_poll_done *done, void *ctx);

int perscom_fetch(struct remote *r, enum transfer_class class, const struct remote_file *file,
		  const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		  const struct remote_fetch_sink *sink, uint64_t *ret_id);
int perscom_check(struct remote *r, remote_finding *each, remote_done *done, void *ctx);

int perscom_create(struct remote *r, enum transfer_class class, struct remote_change *items,
		   size_t n, remote_done *done, void *ctx);
int perscom_replace(struct remote *r, enum transfer_class class, struct remote_change *items,
		    size_t n, remote_done *done, void *ctx);
int perscom_update(struct remote *r, enum transfer_class class, struct remote_change *items,
		   size_t n, remote_done *done, void *ctx);
int perscom_remove(struct remote *r, enum transfer_class class, struct remote_change *items,
		   size_t n, remote_done *done, void *ctx);
int perscom_update_records(struct remote *r, enum transfer_class class, struct remote_change *items,
			   size_t n, remote_done *done, void *ctx);

#endif
