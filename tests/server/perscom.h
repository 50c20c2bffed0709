/* SPDX-License-Identifier: MIT */
/*
 * PERSCOM, as reference/perscom.md describes it; P-numbers in the code are that document's traps.
 *
 * A call is one request to the api port on its way: perscom.c runs it through body limit, route, edge
 * cache, throttle, authentication, response cache and scope, in the order a real installation does; the
 * perscom_*.c files are named after what they answer for. All run under the emulator's lock.
 */
#ifndef EMULATOR_PERSCOM_H
#define EMULATOR_PERSCOM_H

#include "emulator.h"

extern const struct system perscom_system;

/* Indices into the settings table of perscom.c. */
enum perscom_setting {
	SET_ERA,
	SET_PATCH_MULTIPART,
	SET_URL,
	SET_PRESIGN_TTL,
	SET_RANGE,
	SET_CACHE,
	SET_PURGE_DELAY_MS,
	SET_EDGE_CACHE_404,
	SET_THROTTLE,
	SET_THROTTLE_HEADERS,
	SET_UNGUARDED,
	SET_META_PAGE_KEY,
	SET_TENANCY,
	SET_TENANT_HEADER,
	SET_SUBSCRIPTION,
	SET_MAINTENANCE,
	SET_DELETE_STORAGE_FAILURE,
	SET_DROP_REPLY,
	SET_MAX_BODY,
	SET_MAX_BODY_FORM,
	SET_UPLOAD_MAX,
	SET_DATE_Z,
};

enum patch_multipart { PATCH_MULTIPART_IGNORED, PATCH_MULTIPART_PARSED };
enum url_form { URL_PLAIN, URL_PRESIGNED, URL_RELATIVE, URL_NULL };
enum cache_mode { CACHE_OFF, CACHE_APP, CACHE_EDGE };
enum throttle_headers { THROTTLE_BARE, THROTTLE_RETRY_AFTER, THROTTLE_ABSENT };
enum max_body_form { MAX_BODY_JSON, MAX_BODY_HTML };

#define FILE_BYTES_MIN 1024	/* P-1: on create only */
#define FILE_BYTES_MAX 10240000 /* 10,000 KiB */
#define TEXT_CHARS_MAX 255

struct perscom_cache;
struct digest_key;

struct perscom {
	struct emulator *emu;
	struct perscom_cache *cache;
	struct digest_key *signer; /* of presigned URLs */
	struct table throttled;	   /* client address -> struct throttle_window */
	int64_t formatted_at;	   /* the second `formatted` shows: listings repeat few */
	char formatted[96];
};

/* How one field of a record is validated and stored. */
enum field_kind {
	FIELD_TEXT,
	FIELD_BOOL,
	FIELD_INTEGER,
	FIELD_DATE,	/* P-25: 500 on PATCH */
	FIELD_CHOICE,	/* one scalar of `choices`; an array is 422 */
	FIELD_USER,	/* the id of a user that exists */
	FIELD_CALENDAR, /* the id of a calendar that exists: 1 */
	FIELD_IGNORED,	/* the seed names it, the server does not know it */
};

struct field {
	const char *name;
	enum field_kind kind;
	int64_t max; /* characters */
	bool required;
	const char *choices;
};

/* One top-level resource: a row of the tables in sections 2 and 9. */
struct resource {
	const char *name;	    /* "events" */
	const char *model;	    /* "Event": the label and the last part of the class name */
	const char *scope;	    /* "event" in "view:event" */
	const char *title;	    /* the field that holds a record's name */
	const struct field *fields; /* NULL: attachments, which are no records */
	const char *filters; /* blank-separated; "author.*" allows the fields of a relation */
	const char *includes;
	bool newest_first;
	int64_t since; /* era */
	bool search_fails;
	bool of_users; /* also below /users/{user} */
};

extern const struct resource resources[];
const struct resource *resource_attachments(void);
const struct resource *resource_find(const char *name, size_t len);
const struct resource *resource_of(const struct collection *c);

enum target {
	TARGET_LIST,
	TARGET_SEARCH,
	TARGET_ITEM,
	TARGET_BATCH,
	TARGET_RELATION, /* attach, detach, sync, toggle, pivot (P-9) */
	TARGET_PURGE,	 /* POST /v2/cache */
};

struct call {
	struct perscom *p;
	struct request *rq;
	struct response *rs;
	const char *method; /* after overriding */
	char method_buffer[16];
	const struct resource *resource;
	enum target target;
	bool nested;	 /* /users/{user}/attachments */
	bool owned;	 /* /users/{user}/tasks and -records: only those of that user */
	int64_t user_id; /* of either */
	int64_t id;
	char *relation;		   /* TARGET_RELATION: its last segment */
	json_t *input;		   /* the body's fields, trimmed, "" made null; always an object */
	const struct token *token; /* NULL until authenticated */
	bool html;		   /* the answer is a page, not JSON */
	char request_id[40];
	char trace_id[40];
	bool include_attachments;
	bool include_model;
	struct buffer included; /* other relations asked for: ready JSON members */
	/* what the answer is made of, for the edge's surrogate keys */
	int64_t *shown;
	size_t n_shown, cap_shown;
};

int64_t setting(const struct call *c, enum perscom_setting which);
bool era_before(const struct call *c, int64_t major, int64_t minor);
bool is_verb(const struct call *c, const char *verb);

/* perscom_route.c: 0, or the status to refuse with: 404, 405, 400 (bad version). */
int route(struct call *c);

/* perscom_auth.c: false when it has answered. */
bool throttle(struct call *c);
bool authenticate(struct call *c);
bool authorize(struct call *c);

/* perscom_error.c: each answers. */
void error_reply(struct call *c, int status, const char *type, const char *message);
void error_status(struct call *c, int status); /* the type and message fixed for it */
void error_html(struct call *c, int status, const char *title);
void error_bare(struct call *c);  /* P-23: {"message": "Server Error"} */
void error_query(struct call *c); /* SQL refused */
/* Adds a message for @key; the first makes the head line. */
void invalid_add(json_t **errors, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* True if there was anything to complain of; then it has answered 422. Frees @errors. */
bool invalid_reply(struct call *c, json_t *errors);

/* perscom_input.c */
void input_read(struct call *c);
bool date_parse(const char *text, int64_t *ret_seconds);
/* The text of a scalar; ptr NULL for null, arrays and objects. Caller frees. */
struct str scalar_text(const json_t *value);
bool scalar_integer(const json_t *value, int64_t *ret);

/* perscom_json.c */
void put_time(struct perscom *p, struct buffer *out, const char *key, int64_t seconds);
void put_attachment(struct call *c, struct buffer *out, const struct attachment *a);
void put_record(struct call *c, struct buffer *out, struct record *r);
void put_row(struct call *c, struct buffer *out, struct row *row);
void reply_row(struct call *c, int status, struct row *row); /* {"data": {..}} */

/* perscom_url.c */
void put_url(struct call *c, struct buffer *out, const char *path);
enum url_check { URL_GOOD, URL_UNSIGNED, URL_EXPIRED, URL_FORGED };
enum url_check url_check(struct request *rq);
void perscom_serve_blob(struct request *rq, struct response *rs); /* perscom_blob.c */

/* perscom_query.c: the search body. NULL filter: everything fits. */
struct filter;
struct value {
	enum value_kind { VALUE_NULL, VALUE_INTEGER, VALUE_TEXT, VALUE_TIME } kind;
	int64_t number;
	const char *text;
	size_t len;
};
struct value row_value(struct call *c, const struct row *row, const char *field);
bool field_allowed(const struct call *c, const char *field);
struct filter *filter_parse(struct call *c, const json_t *filters, json_t **errors);
void filter_free(struct filter *f);
bool filter_fits(struct call *c, const struct filter *f, const struct row *row);
/* True if @f says model_type = X and model_id = Y and nothing that could widen it. */
bool filter_owner(const struct filter *f, struct str *ret_type, int64_t *ret_id);

/* perscom_list.c */
bool includes_read(struct call *c); /* false: 422 answered (P-20) */
void list_serve(struct call *c);
bool attachment_alive(const struct attachment *a);

/* perscom_attachment.c */
struct attachment *attachment_target(struct call *c); /* NULL: gone or another parent's */
void attachment_serve(struct call *c);
/* Complaints about the fields of one attachment; keys get @prefix in front. */
void attachment_validate(const json_t *fields, const char *prefix, json_t **errors);
/* False: the database would refuse (500). */
bool attachment_storable(const struct call *c, const json_t *fields,
			 const struct multipart_file *file);
bool attachment_knows(const json_t *fields); /* any known field at all? */
void attachment_fill(struct call *c, struct attachment *a, const json_t *fields);
void attachment_store(struct call *c, struct attachment *a, const struct multipart_file *file);
/* Blob first, then the row (P-13); the row's last state is put into @out. */
void attachment_delete(struct call *c, struct buffer *out, struct attachment *a);

/* perscom_record.c */
void record_serve(struct call *c);
void record_validate(struct call *c, const json_t *fields, const char *prefix, bool creating,
		     json_t **errors);
bool record_knows(const struct call *c, const json_t *fields);
/* Whether PATCH would end in a BadMethodCallException (P-25). */
bool record_has_date(const struct call *c, const json_t *fields);
/* Whether an unguarded server would name a column that does not exist. */
bool fields_unknown(const struct call *c, const json_t *fields);
struct record *record_create(struct call *c, const json_t *fields);
void record_fill(struct call *c, struct record *r, const json_t *fields);
void record_delete(struct call *c, struct buffer *out, struct record *r);
void perscom_dress_record(struct record *r);
/* Whose it is. One that came with --data, --generate or /change gets a user by its id. 0: nobody's. */
int64_t record_user(struct call *c, const struct record *r);

/* perscom_batch.c */
void batch_serve(struct call *c);

/* perscom_cache.c: caches in front of GET (section 3, P-5, P-6). */
struct perscom_cache *cache_new(void);
void cache_free(struct perscom_cache *cache);
bool cache_answer(struct call *c, enum cache_mode mode); /* true: answered from it */
void cache_keep(struct call *c, enum cache_mode mode);
/* Queues the purge that a change of a row of @model ("attachment") causes; id 0: everything. */
void cache_purge(struct perscom *p, enum change_kind kind, const char *model, int64_t id);
void perscom_changed(struct emulator *emu, enum change_kind kind, int64_t id);

#endif
