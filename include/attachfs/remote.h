/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_REMOTE_H
#define ATTACHFS_REMOTE_H

/*
 * What a server can do for the attachments of its records, and how it is asked. One client per
 * system (api/perscom.c ...) fills in a struct remote_ops and a struct remote_caps; fs/ knows
 * servers by nothing else. A missing member of the ops means that the server cannot; the plan then
 * emulates or refuses.
 *
 * Vocabulary: a *collection* (users, events) holds *records*, a record holds *files* (the server's
 * attachments). Ids are opaque strings of at most REMOTE_ID_MAX bytes of [0-9A-Za-z-], checked by
 * the client before they get here or enter a URL. Names are the server's own, any UTF-8, possibly
 * with '/' or NUL-free control bytes: see names.h. A NUL in a server's name comes as the three
 * bytes "%00", in `name` and in the raw fields alike, so that no rename is seen in it.
 *
 * Threads: ops may be called from any thread and never block. Every op that returned 0 calls its
 * done() exactly once, on a pool thread unless said otherwise (struct remote_fetch_sink), even
 * after remote_shutdown() was asked for. An op that returned an error calls nothing. Ops copy what
 * they are given, but for the items of the writing calls.
 *
 * Errors are negative errno with these meanings everywhere: -ENOENT gone; -EACCES refused or
 * credentials not good; -EINVAL the server calls it invalid; -ENAMETOOLONG, -EFBIG, -EBUSY, -EROFS
 * as named; -EHOSTDOWN not reachable; -ETIMEDOUT deadline; -ESTALE another version now; -EIO the
 * server failed or talked nonsense; -ECANCELED.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attachfs/options.h>
#include <attachfs/pool.h>
#include <attachfs/transfer.h>

#define REMOTE_ID_MAX	 80
#define REMOTE_TIME_NONE INT64_MIN

struct remote;
struct auth;
struct call_gate;
struct fetches;

struct remote_record {
	char *id;
	char *name;	  /* never NULL; may be "" */
	int64_t mtime_ns; /* REMOTE_TIME_NONE = not told */
	int64_t ctime_ns; /* created */
};

struct remote_file {
	char *id;
	char *record;	    /* id of its record */
	char *name;	    /* the name to show, before encoding and disambiguation; never NULL */
	char *raw_name;	    /* the server's own fields, to tell whether they are what was sent */
	char *raw_filename; /* NULL = the server has one name only */
	char *version;	    /* opaque; equal = same bytes, for ever */
	char *url;	    /* where the bytes are, may expire; NULL = the client knows by id */
	char *media_type;   /* NULL = not told */
	int64_t size;	    /* -1 = not told (P-4) */
	int64_t mtime_ns, ctime_ns; /* REMOTE_TIME_NONE = not told */
};

/* Deep copies; false without memory (then *dst is cleared). Clear frees the strings and zeroes. */
bool remote_file_copy(struct remote_file *dst, const struct remote_file *src);
void remote_file_clear(struct remote_file *f);
void remote_record_clear(struct remote_record *r);

/* Static facts of a system, constant after remote_new(). */
struct remote_caps {
	const char *system; /* "perscom" */
	/* "users:events"; NULL: the server lists them (list_collections), or they must be given */
	const char *default_collections;
	/*
	 * A collection whose records the server does not list: those made here (make_record) or
	 * asked for by their id are remembered. They show the name they were made with, or their
	 * id. NULL = none.
	 */
	const char *unlisted_collection;
	/*
	 * A collection of one record, whose files stand in its directory themselves. NULL = none.
	 */
	const char *flat_collection;
	bool rename_in_place; /* update() can change a file's name */
	bool move_in_place;   /* update() can change a file's record */
	bool move_between_collections;
	bool set_mtime;	       /* update() can set the modification time */
	bool replace_keeps_id; /* replace() exists and the id stays */
	bool names_unique; /* a record holds one file per name; create() on a taken name replaces */
	/*
	 * Lists name records with files only: one that is not named may be there, but empty. It is
	 * kept as long as it was named once in this mount.
	 */
	bool hides_empty_records;
	bool sizes_listed; /* lists tell sizes; else probe_size() */
	bool rename_records;
	bool set_fields; /* update_records() can set other fields of a record than its name */
	/* below: create a filler of so many bytes, then replace (P-1); 0 = no limit */
	uint64_t create_min_bytes;
	uint64_t create_max_bytes;	     /* above: the same; 0 = no limit */
	uint64_t max_bytes;		     /* -EFBIG above; 0 = not known */
	int64_t mtime_resolution_ns;	     /* of the server's clock and fields */
	unsigned batch_update, batch_remove; /* items per call, 1 = none, never 0 */
	unsigned batch_create;		     /* files of one record only */
	bool batch_spans_records; /* one update or remove call may name files of several records */
	size_t name_max;	  /* characters, 0 = as the mount */
};

/*
 * One item of a writing call. The caller fills in the upper half and keeps it alive until done();
 * the client fills in the lower half before done().
 */
enum remote_outcome {
	REMOTE_DONE, /* the server has it; `file` says what it holds now */
	REMOTE_GONE, /* update, replace: there is no such file any more; remove: it was gone already (a success) */
	REMOTE_REFUSED, /* the server will not: `error` and `message`; asking again is no use */
	/*
	 * not done, for a reason that passes (network, 429, 5xx): try later. -ESTALE from a
	 * replace: another version than `version` is there now, and not ours.
	 */
	REMOTE_RETRY,
	REMOTE_UNKNOWN, /* may have been done: look (list_record) before trying again (P-22) */
};

struct remote_change {
	const char *collection; /* where it shall be */
	const char *record;
	const char *id;	  /* NULL for create */
	const char *name; /* the server's spelling (names_to_server); NULL = leave */
	/* update, replace, remove: the name the server has it under (raw_name); NULL = not told */
	const char *known_name;
	/*
	 * update with `move`: where the server has it now, and under which second name
	 * (raw_filename), for a client that must put it back; NULL = not told
	 */
	const char *known_collection;
	const char *known_record;
	const char *known_filename;
	/*
	 * replace: the version believed there, to see that the bytes really changed (P-2), and are
	 * nobody else's; NULL = not sure
	 */
	const char *version;
	/*
	 * create, replace: a tame ASCII name to upload under when `name` is not safe as a part's
	 * filename
	 */
	const char *token;
	int64_t mtime_ns; /* REMOTE_TIME_NONE = leave */
	bool move;	  /* update: collection and record are to be changed too */
	bool filler;	  /* create: send create_min_bytes of filler instead of the content */
	int fd;		  /* create, replace: the bytes; borrowed until done() */
	uint64_t size;
	/* update_records: NULL, or a JSON object of fields to set besides the name */
	const char *fields_json;

	enum remote_outcome outcome;
	int error;	   /* negative errno that goes with the outcome, 0 for DONE */
	char message[256]; /* the server's words, redacted; "" = none */
	/* valid when .id is set, also with another outcome than DONE (half done). Caller clears. */
	struct remote_file file;
};

/* How a listing arrives. Calls come one at a time, in order, on pool threads. */
struct remote_sink {
	/*
	 * Some records, and files of records of this listing (of these or of earlier pages). The
	 * sink may take strings over by setting them NULL. Return false to end the listing with
	 * -ECANCELED.
	 */
	bool (*page)(void *ctx, struct remote_record *records, size_t n_records,
		     struct remote_file *files, size_t n_files);
	/*
	 * 0: the listing is whole: what was not named does not exist. @message as in remote_change.
	 */
	void (*done)(void *ctx, int error, const char *message);
	void *ctx;
};

/*
 * How bytes arrive: in order, never two calls at a time. begin() and data() on the transfer thread,
 * done() there or on a pool thread (when a new URL could not be had). Cut connections and expired
 * URLs are mended inside; the sink sees one stream.
 */
struct remote_fetch_sink {
	/*
	 * Once before the first byte: the size of the whole content (-1 = the server does not say)
	 * and where the bytes that follow begin: the offset asked for, or 0 when the server has no
	 * Range. Such a stream goes on to the end of the content, whatever was asked for: to ask
	 * for another part would bring all of it again. Not called when nothing but an error came.
	 * Return false to end with -ECANCELED.
	 */
	bool (*begin)(void *ctx, int64_t total, uint64_t offset);
	/* May call remote_ops.fetch_pause. False ends the fetch with -ECANCELED. */
	bool (*data)(void *ctx, const void *data, size_t len);
	/* Once: 0 when all that was asked for came; -ENOENT, -ESTALE, -EHOSTDOWN, ... */
	void (*done)(void *ctx, int error);
	void *ctx;
};

/* What a program may want to do to a file, or to a record itself, for remote_ops.may. */
enum remote_deed {
	REMOTE_CREATES,
	REMOTE_REPLACES,
	REMOTE_RENAMES,
	REMOTE_REMOVES,
	REMOTE_CHANGES_RECORD, /* name or fields; only asked where the caps say that it goes */
};

/* A collection as the server lists it. @id is what all ops call it, @name what is shown. */
struct remote_collection {
	char *id;
	char *name;
};

/* What attachfs check found out about one topic. */
enum remote_verdict { REMOTE_FINE, REMOTE_NOTE, REMOTE_BAD };
/* @topic: "credentials", "server", "may write", ...; @text: the finding, for a person. */
typedef void remote_finding(void *ctx, enum remote_verdict verdict, const char *topic,
			    const char *text);

typedef void remote_collections_done(void *ctx, int error, const struct remote_collection *list,
				     size_t n, const char *message);
typedef void remote_record_done(void *ctx, int error, const char *id, const char *message);
typedef void remote_done(void *ctx, int error, const char *message);
typedef void remote_size_done(void *ctx, int error, int64_t size);
typedef void remote_poll_done(void *ctx, int error, bool changed, const char *cursor);
typedef void remote_text_done(void *ctx, int error, const char *text, size_t len,
			      const char *message);

struct remote_ops {
	void (*free)(struct remote *r);

	/*
	 * Who am I, does this server talk to me: one cheap call. The message is a line for a person
	 * either way ("PERSCOM v2 at api.perscom.io, 96 of 100 calls left this minute").
	 */
	int (*probe)(struct remote *r, enum transfer_class class, remote_done *done, void *ctx);

	/*
	 * Who am I, which server is this, what may I see and write (without writing anything),
	 * clock skew, rate limit: each() for every finding, in order, on pool threads; then done()
	 * with 0, or the error that ended it early. Takes a few calls.
	 */
	int (*check)(struct remote *r, remote_finding *each, remote_done *done, void *ctx);

	/*
	 * Whether the server could do such a thing to a file of this collection and of this name
	 * (the server's spelling) at all: 0, or the errno for the program: -EPERM, -EINVAL, ...
	 * @to: the collection it goes to, for REMOTE_RENAMES, @name being the new name; -EXDEV
	 * where it cannot. Whoever renames asks for REMOTE_REMOVES of the old name as well unless
	 * the server renames in place. Of a record (CHANGES_RECORD) only the collection is told.
	 * Pure: no waiting, no lock; but a server may have taught better since. NULL: everything.
	 */
	int (*may)(const struct remote *r, enum remote_deed deed, const char *collection,
		   const char *to, const char *name);

	/*
	 * The collections there are, where options name none. The list is valid during done(). NULL
	 * where caps.default_collections says it.
	 */
	int (*list_collections)(struct remote *r, enum transfer_class class,
				remote_collections_done *done, void *ctx);

	/*
	 * A new, empty record in caps.unlisted_collection; done() gets its id. Interactive. NULL
	 * where there is no such collection. Whether a record of that id is there, list_record()
	 * says (-ENOENT).
	 */
	int (*make_record)(struct remote *r, const char *collection, const char *name,
			   remote_record_done *done, void *ctx);

	/*
	 * All records of a collection with all their files, in the fewest calls there are. Never
	 * asked of caps.unlisted_collection.
	 */
	int (*list_tree)(struct remote *r, enum transfer_class class, const char *collection,
			 const struct remote_sink *sink);

	/* The files of one record, fresh from the server, past every cache in between. */
	int (*list_record)(struct remote *r, enum transfer_class class, const char *collection,
			   const char *record, const struct remote_sink *sink);

	/*
	 * Has anything changed since @cursor (NULL at first: then changed is true)? One call at
	 * most, perhaps one for all collections that are polled at a time; and another one where
	 * that does not tell which of them it was. The cursor is opaque text that may be kept
	 * across mounts.
	 */
	int (*poll)(struct remote *r, const char *collection, const char *cursor,
		    remote_poll_done *done, void *ctx);

	/* The size of @file's content, one tiny read. NULL where lists tell sizes. */
	int (*probe_size)(struct remote *r, enum transfer_class class,
			  const struct remote_file *file, const char *collection,
			  int64_t deadline_mono_ms, remote_size_done *done, void *ctx);

	/*
	 * Bytes [off, off+len) of @file's version; len 0 = to the end. Checks status, range and
	 * length before a byte is handed on; an expired URL is renewed once by itself. *@ret_id
	 * goes to the calls below.
	 */
	int (*fetch)(struct remote *r, enum transfer_class class, const struct remote_file *file,
		     const char *collection, uint64_t off, uint64_t len, int64_t deadline_mono_ms,
		     const struct remote_fetch_sink *sink, uint64_t *ret_id);
	void (*fetch_cancel)(struct remote *r, uint64_t id);
	void (*fetch_pause)(struct remote *r, uint64_t id);
	void (*fetch_resume)(struct remote *r, uint64_t id);
	void (*fetch_set_class)(struct remote *r, uint64_t id, enum transfer_class class);

	/*
	 * The writing calls take @n items, at most the batch limit of the caps, and call done()
	 * when each has its outcome; done()'s own error is 0 unless the call as a whole never left.
	 * Never retried by the client when the outcome is unknown. All are write-back class unless
	 * @class says otherwise.
	 *
	 * A create in, or a move to, a record that is gone from the server is REFUSED with -ENOENT
	 * and leaves nothing there; what was to be moved is where it was.
	 *
	 * update and remove bisect nothing: one bad entry may refuse all (section 9); the caller
	 * splits. Where the server names the bad entries, only they are refused. An update of
	 * nothing is DONE without a call, its `file` left empty.
	 *
	 * A create or replace that is DONE must fill in `file`; a client whose server answers
	 * nothing about it lists the record, or says UNKNOWN (fs/ then lists and finds it by name
	 * and size). A remove of several that the server answers with "one of them is not there"
	 * without naming it (S-13, 404) is REFUSED with -ENOENT for all; the caller halves it, and
	 * takes -ENOENT for a single one as GONE.
	 */
	int (*create)(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx);
	int (*replace)(struct remote *r, enum transfer_class class, struct remote_change *items,
		       size_t n, remote_done *done, void *ctx);
	int (*update)(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx);
	int (*remove)(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx);
	/*
	 * Names (and fields) of records of one collection; `id` is the record's, `record` is
	 * ignored. A field the server refuses is named in the message.
	 */
	int (*update_records)(struct remote *r, enum transfer_class class,
			      struct remote_change *items, size_t n, remote_done *done, void *ctx);

	/* The record's fields as pretty JSON text with a final newline. */
	int (*record_json)(struct remote *r, const char *collection, const char *record,
			   remote_text_done *done, void *ctx);
};

/* Every client's first member. */
struct remote {
	const struct remote_ops *ops;
	struct remote_caps caps;
	struct engine *engine;	 /* borrowed */
	struct pool *pool;	 /* borrowed */
	struct auth *auth;	 /* api/auth.h: the credentials; owned */
	struct call_gate *gate;	 /* api/call.h: the way to the engine; owned */
	struct fetches *fetches; /* api/fetch.h: downloads under way; owned */
};

/* Whether credentials are good, as last seen; for the state "auth" of the status. Any thread. */
enum remote_auth { REMOTE_AUTH_OK, REMOTE_AUTH_UNKNOWN, REMOTE_AUTH_FAILED };
enum remote_auth remote_get_auth(struct remote *r, char message[256]);

/*
 * Read the credentials again now: the user says that there may be other ones. Where they are for
 * logging in, log in anew if @doubted (something was refused for want of a right), else leave it to
 * the next 401: the token there is would be good, and nobody's, until it ends. done() once, at once or on a thread of its own,
 * and must only pass on: 1 = there are others now; 0 = they are as they were, or refused; or the
 * error in the way (-ECANCELED: the end has begun). Any thread.
 */
typedef void remote_reloaded(void *ctx, int result);
void remote_reload_credentials(struct remote *r, bool doubted, remote_reloaded *done, void *ctx);

/*
 * The client for options->system, from the registry in api/registry.c. Reads the credentials;
 * @message (@size bytes) says what is wrong and what to do. 0, -EINVAL (no such system, bad
 * options), -EACCES (no credentials, file others can read), -ENOENT (no such file), -ENOMEM.
 * @options, @engine and @pool must outlive it.
 */
int remote_new(const struct options *options, struct engine *engine, struct pool *pool,
	       struct remote **ret_remote, char *message, size_t size);

/*
 * The end has an order: remote_shutdown() (from now on ops answer -ECANCELED and no step of one
 * under way begins a new transfer), engine_free() and pool_free() (what is left ends with
 * -ECANCELED and calls its done()), remote_free().
 */
void remote_shutdown(struct remote *r);
void remote_free(struct remote *r);

#endif
