/* SPDX-License-Identifier: MIT */
/*
 * ServiceMax Service Board, as reference/servicemax.md describes it; S-numbers in the code are that
 * document's traps.
 *
 * A call is one request to the api port on its way: servicemax.c throttles it, servicemax_route.c
 * takes its path apart and sends it through authentication and CSRF filter; the servicemax_*.c files are named after what they
 * answer for. All run under the emulator's lock. Ids are UUIDs made from the store's numbers
 * (servicemax_uuid.c), versions are storage paths (servicemax_version.c).
 */
#ifndef EMULATOR_SERVICEMAX_H
#define EMULATOR_SERVICEMAX_H

#include "emulator.h"

extern const struct system servicemax_system;

/* Indices into the settings table of servicemax.c. */
enum sm_setting {
	SM_HREF_HOST,
	SM_HREF_QUERY,
	SM_RANGE,
	SM_DOCUMENT_AUTH,
	SM_RENAME_BY_DOCUMENT_ID,
	SM_REPLACE_UUID,
	SM_DELETE_PATH,
	SM_DELETE_PATH_OTHER,
	SM_DELETE_STATUS,
	SM_DELETE_REPLY,
	SM_DELETE_PARTIAL,
	SM_NAME_CASE,
	SM_COMMA_ESCAPE,
	SM_NUMBERS,
	SM_LINKS,
	SM_LINKS_COMMA,
	SM_OTHER_TYPES,
	SM_CSRF,
	SM_CSRF_HEADER,
	SM_CSRF_FORM,
	SM_TTL,
	SM_REFRESH,
	SM_REFRESH_ROTATION,
	SM_CLIENT_HEADER,
	SM_TOKEN_PATH,
	SM_PASSWORD,
	SM_EXPIRED,
	SM_MAX_BYTES,
	SM_MAX_BYTES_STATUS,
	SM_EMPTY_FILES,
	SM_EXTENSION_RULE,
	SM_THROTTLE,
	SM_THROTTLE_HEADERS,
	SM_URI_MAX,
	SM_ERROR_FORM,
	SM_USER_REPLY,
	SM_ORDER,
	SM_NAME_FIELD,
	SM_UPDATED_FIELD,
	SM_RECORD_ZONE,
	SM_UNREADABLE,
	SM_UNREADABLE_STATUS,
	SM_SOFT_DELETED,
	SM_TOUCH_RECORD,
	SM_POST_REPLY,
	SM_RESTORED_TIME,
	SM_VERSION_URLS,
	SM_REDIRECT,
	SM_ETAG,
};

enum sm_href_host { HREF_BASE, HREF_LOCALHOST, HREF_FOREIGN, HREF_HTTP, HREF_HTTPS };
enum sm_href_query { QUERY_13, QUERY_12, QUERY_NONE };
enum sm_document_auth { DOCUMENT_REQUIRED, DOCUMENT_REFUSED, DOCUMENT_FREE };
enum sm_delete_path { DELETE_PLURAL, DELETE_SINGULAR, DELETE_BOTH };
enum sm_links { LINKS_WITH, LINKS_WITHOUT, LINKS_REVERSED };
enum sm_csrf_form { CSRF_SCRIPT, CSRF_HEADER, CSRF_BARE };
enum sm_rotation { ROTATION_SAME, ROTATION_NEW, ROTATION_OMITTED };
enum sm_error_form { ERROR_TYPE, ERROR_NESTED, ERROR_TEXT };
enum sm_post_reply { REPLY_CHANGED, REPLY_ALL, REPLY_REVERSED };
enum sm_redirect { REDIRECT_OFF, REDIRECT_SAME, REDIRECT_FOREIGN };

struct servicemax {
	struct emulator *emu;
	struct table tokens; /* text -> struct sm_token: what the grants gave out */
	struct table
		revoked; /* texts of --token that were revoked; the values are the struct token */
	struct table histories; /* attachment id -> struct history */
	struct table throttled; /* client address -> struct sm_window */
	int64_t grants;
	uint64_t shuffles; /* lists without an order: each has another */
	char *csrf_token;
};

struct sm_call {
	struct servicemax *sm;
	struct request *rq;
	struct response *rs;
	const char *method;
	const struct token *token; /* of --token, with its scopes; NULL: one of a grant, or none */
	struct collection *object;
	struct record *record;
};

int64_t sm_set(const struct sm_call *c, enum sm_setting which);
int64_t sm_set_of(const struct emulator *emu, enum sm_setting which);
/* The text of a toggle that is a choice of texts, such as a header's name. */
const char *sm_choice(const struct sm_call *c, enum sm_setting which, char *buf, size_t size);
bool sm_is_verb(const struct sm_call *c, const char *verb);
int64_t sm_now_ms(void);

/* servicemax_uuid.c */
#define UUID_SIZE 37

enum uuid_kind { UUID_RECORD = 1, UUID_ATTACHMENT, UUID_USER };

struct uuid {
	uint64_t hi;
	uint64_t lo;
};

struct uuid sm_uuid_make(enum uuid_kind kind, const char *collection, int64_t id);
struct uuid sm_uuid_of_path(const char *path); /* a version's; there is no way back */
struct uuid sm_uuid_random(void);
bool sm_uuid_parse(const char *text, size_t len, struct uuid *ret); /* false: no UUID at all */
/* The number that sm_uuid_make() was given; -1: made of something else. */
int64_t sm_uuid_id(const struct uuid *uuid, enum uuid_kind kind, const char *collection);
bool sm_uuid_equal(const struct uuid *a, const struct uuid *b);
void sm_uuid_format(const struct uuid *uuid, char text[static UUID_SIZE]);
void sm_record_id(const struct record *r, char id[REMOTE_ID_SIZE]);
void sm_attachment_id(const struct attachment *a, char id[REMOTE_ID_SIZE]);

/* servicemax_error.c: each answers. */
void sm_error(struct sm_call *c, int status, const char *message); /* the type goes by the status */
void sm_error_type(struct sm_call *c, int status, const char *type, const char *message);
void sm_error_missing(struct sm_call *c); /* 404, or what unreadable records are answered with */
void sm_error_oauth(struct sm_call *c, int status, const char *error, const char *description);
void sm_reply_json(struct sm_call *c, int status);

void sm_route(struct sm_call *c); /* servicemax_route.c */

/* servicemax_auth.c: false when it has answered. */
bool sm_throttle(struct sm_call *c);
bool sm_authenticate(struct sm_call *c);
bool sm_csrf_check(struct sm_call *c);
void sm_csrf_serve(struct sm_call *c);
bool sm_may_read(const struct sm_call *c, const struct collection *object);
bool sm_may_write(const struct sm_call *c, const struct collection *object);

/* servicemax_oauth.c */
struct sm_token {
	char *text;
	int64_t grant; /* the access tokens of one refresh token share it */
	int64_t expires_at;
	bool refresh;
	bool spent; /* revoked, or a refresh token used up */
};

void sm_oauth_client(struct sm_call *c);
void sm_oauth_token(struct sm_call *c);
void sm_oauth_revoke(struct sm_call *c);
bool sm_token_holds(struct servicemax *sm, const char *text);
void sm_tokens_free(struct servicemax *sm);

/* servicemax_query.c: SMQL, as much of it as lists need: comparisons joined by AND, and sort terms. */
#define SORT_TERMS_MAX 4

struct sm_value {
	enum { VALUE_TEXT, VALUE_BOOL, VALUE_TIME } kind;
	int64_t number;	  /* 0 or 1; milliseconds */
	const char *text; /* NULL: uuid has it */
	size_t len;
	char uuid[UUID_SIZE];
};

struct sm_filter;
struct sm_sort {
	struct {
		char *field;
		bool descending;
	} terms[SORT_TERMS_MAX];
	size_t n;
};

/* Both answer 400 and return false if the text is wrong. *ret_filter NULL: everything fits. */
bool sm_filter_parse(struct sm_call *c, const char *text, struct sm_filter **ret_filter);
bool sm_sort_parse(struct sm_call *c, const char *text, struct sm_sort *ret);
bool sm_filter_fits(const struct sm_call *c, const struct sm_filter *f, const struct record *r);
bool sm_filter_names(const struct sm_filter *f, const char *field);
void sm_filter_free(struct sm_filter *f); /* NULL is fine */
void sm_sort_free(struct sm_sort *s);
int sm_value_compare(const struct sm_value *a, const struct sm_value *b);
bool sm_time_parse(const char *text, int64_t *ret_ms);

/* servicemax_record.c: one record and its fields. */
bool sm_field_value(const struct sm_call *c, const struct record *r, const char *field,
		    struct sm_value *ret); /* false: no such field */
bool sm_field_known(const struct sm_call *c, const char *field);
bool sm_record_deleted(const struct sm_call *c, const struct record *r);
bool sm_record_readable(const struct sm_call *c, const struct record *r);
void sm_put_record(const struct sm_call *c, struct buffer *out, const struct record *r,
		   const char *fields);
bool sm_fields_check(struct sm_call *c, const char *fields); /* false: 400 answered */
/* The record a UUID names, 400 or 404 answered if NULL. */
struct record *sm_record_named(struct sm_call *c, const char *text, size_t len);
void sm_record_serve(struct sm_call *c, const char *uuid, size_t len);
void sm_record_new(struct sm_call *c);
void sm_user_serve(struct sm_call *c);

/* servicemax_list.c: many records. */
void sm_list_serve(struct sm_call *c);
void sm_list_count(struct sm_call *c);
void sm_list_extended(struct sm_call *c);

/* servicemax_json.c */
void sm_put_string(struct buffer *out, const char *s, size_t len);
void sm_put_uuid(struct buffer *out, const char *key, const struct uuid *uuid);
void sm_put_attachment(struct sm_call *c, struct buffer *out, const struct attachment *a);
void sm_put_attachments(struct sm_call *c, struct buffer *out, const struct record *r);
const char *sm_media_type(const struct attachment *a);

/* servicemax_attachment.c: the three lists, and looking files up. */
const struct rows *sm_attachments(struct emulator *emu, const struct record *r);
struct attachment *sm_attachment_named(struct emulator *emu, const struct record *r,
				       const char *name, size_t len);
struct attachment *sm_attachment_of(struct emulator *emu, const char *uuid, size_t len);
void sm_attachments_of_record(struct sm_call *c);
void sm_attachments_of_object(struct sm_call *c);
void sm_touch(struct sm_call *c);

/* servicemax_upload.c, servicemax_delete.c */
void sm_upload(struct sm_call *c);
void sm_delete(struct sm_call *c);

/* servicemax_version.c */
int64_t sm_version_ms(struct servicemax *sm, const struct attachment *a); /* of the current one */
void sm_version_add(struct servicemax *sm, struct attachment *a, struct blob *blob);
/* The same file under a new id, its versions with it; @a is gone. */
struct attachment *sm_version_renew(struct servicemax *sm, struct attachment *a);
bool sm_version_drop(struct servicemax *sm, struct attachment *a); /* false: it was the only one */
/* The storage path of a version of @a, current or old; NULL: none. */
const char *sm_version_path(struct servicemax *sm, const struct attachment *a,
			    const struct uuid *version);
void sm_version_begin(struct servicemax *sm, const struct attachment *a);
void sm_version_forget(struct servicemax *sm, int64_t id);
void sm_versions_free(struct servicemax *sm);
void sm_replacing(struct emulator *emu, const struct attachment *a);
void sm_changed(struct emulator *emu, enum change_kind kind, int64_t id);

/* servicemax_document.c */
#define SM_THUMBNAIL "3b156bad-81fd-4c86-9624-50c4f7cdb71d" /* the icon of every file (S-5) */

void sm_document_serve(struct sm_call *c, const char *uuid, const char *version);
void sm_document_stored(struct sm_call *c, const char *uuid, const char *version);

#endif
