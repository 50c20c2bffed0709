/* SPDX-License-Identifier: MIT */
/*
 * Rillsoft Integration Server, as reference/rillsoft.md describes it; R-numbers in the code are that
 * document's traps. What it leaves open is a toggle (README.md).
 *
 * How the store is read: a collection is a project (but for `attachments`, which holds family 1), a
 * record an element of its plan, an attachment a DMS document. What the store has no place for (folder,
 * description, old versions) is kept by document in struct ris_document.
 *
 * A call is one request to the api port on its way: throttle, token, route, right, and then the
 * function of its route, in one of the rillsoft_*.c files, each named after what it answers for. All
 * run under the emulator's lock.
 */
#ifndef EMULATOR_RILLSOFT_H
#define EMULATOR_RILLSOFT_H

#include "emulator.h"

extern const struct system rillsoft_system;

/* Indices into the settings table of rillsoft.c. */
enum ris_setting {
	RIS_SET_TOKEN_AT,
	RIS_SET_LOGIN_REPLY,
	RIS_SET_TOKEN_FORM,
	RIS_SET_TTL,
	RIS_SET_EXPIRED_DETAILS,
	RIS_SET_LOGIN_REFUSED,
	RIS_SET_SELECTOR,
	RIS_SET_SELECTOR_NAME,
	RIS_SET_TPL_DOWNLOAD,
	RIS_SET_TPL_DELETE,
	RIS_SET_TPL_FOLDERS,
	RIS_SET_TPL_ATTACHMENT,
	RIS_SET_TPL_VERSIONS,
	RIS_SET_TPL_CLIENTS,
	RIS_SET_DOWNLOAD,
	RIS_SET_DOWNLOAD_TYPE,
	RIS_SET_DISPOSITION,
	RIS_SET_RANGE,
	RIS_SET_VALIDATORS,
	RIS_SET_OVERRIDE,
	RIS_SET_REAL_PUT,
	RIS_SET_DETAILS,
	RIS_SET_NAMES,
	RIS_SET_DESCRIPTION,
	RIS_SET_PARENTS,
	RIS_SET_REPARENT,
	RIS_SET_RENAME_ON_REPLACE,
	RIS_SET_FILE_REQUIRED_ON_UPDATE,
	RIS_SET_LEFT_OUT,
	RIS_SET_UPDATE_ID,
	RIS_SET_MAX_BYTES,
	RIS_SET_MAX_BYTES_ANSWER,
	RIS_SET_NAME_MAX,
	RIS_SET_DUPLICATES,
	RIS_SET_LOCKED,
	RIS_SET_CREATED_AT,
	RIS_SET_CREATED_ON_UPDATE,
	RIS_SET_ZONE_MINUTES,
	RIS_SET_FOLDER_SHAPE,
	RIS_SET_GONE_FOLDER,
	RIS_SET_ATTACHMENTS,
	RIS_SET_ATTACHMENT_SCOPE,
	RIS_SET_CREATE_STATUS,
	RIS_SET_UPDATE_STATUS,
	RIS_SET_DELETE_STATUS,
	RIS_SET_ERROR_DETAILS,
	RIS_SET_BODY_CODE,
	RIS_SET_JSON_TYPE,
	RIS_SET_DENIED,
	RIS_SET_THROTTLE,
	RIS_SET_RETRY_AFTER,
};

/* The values of the choices, in the order of the table. */
enum ris_token_form { RIS_TOKEN_EXP, RIS_TOKEN_NO_EXP, RIS_TOKEN_OPAQUE };
enum ris_selector { RIS_SELECTOR_HONOURED, RIS_SELECTOR_IGNORED, RIS_SELECTOR_REQUIRED };
enum ris_template { RIS_TPL_DEFAULT, RIS_TPL_OTHER, RIS_TPL_404, RIS_TPL_405 };
enum ris_download { RIS_DOWNLOAD_BYTES, RIS_DOWNLOAD_JSON, RIS_DOWNLOAD_REDIRECT };
enum ris_download_type { RIS_TYPE_OCTETS, RIS_TYPE_GUESSED, RIS_TYPE_ABSENT };
enum ris_override {
	RIS_OVERRIDE_BOTH,
	RIS_OVERRIDE_HEADER,
	RIS_OVERRIDE_FIELD,
	RIS_OVERRIDE_PUT,  /* no override at all: a real PUT */
	RIS_OVERRIDE_NONE, /* a plain POST is the update */
};
enum ris_details {
	RIS_DETAILS_ARRAY,
	RIS_DETAILS_OBJECT,
	RIS_DETAILS_STRING,
	RIS_DETAILS_DOCUMENT
};
enum ris_reparent { RIS_REPARENT_OBEYED, RIS_REPARENT_IGNORED, RIS_REPARENT_409 };
enum ris_max_bytes_answer { RIS_MAX_BYTES_400, RIS_MAX_BYTES_413, RIS_MAX_BYTES_CLOSE };
enum ris_created_at {
	RIS_CREATED_ISO,
	RIS_CREATED_MINUTE,
	RIS_CREATED_ZEROED,
	RIS_CREATED_DOTTED,
	RIS_CREATED_EMPTY,
	RIS_CREATED_NULL,
};
enum ris_description { RIS_DESCRIPTION_TEXT, RIS_DESCRIPTION_NULL, RIS_DESCRIPTION_ABSENT };
enum ris_attachment_scope { RIS_SCOPE_OPTIONAL, RIS_SCOPE_PROJECT, RIS_SCOPE_PORTFOLIO };
enum ris_body_code { RIS_CODE_STATUS, RIS_CODE_200, RIS_CODE_ABSENT, RIS_CODE_TEXT };

/* The right a route needs; names in rillsoft_auth.c, in this order. */
enum ris_right {
	RIS_RIGHT_NONE,
	RIS_RIGHT_CLIENT,  /* access to the client (tenant, R-15) */
	RIS_RIGHT_API,	   /* of the folder role: also needed for logging in */
	RIS_RIGHT_PROJECT, /* Read project */
	RIS_RIGHT_READ,	   /* Read documents */
	RIS_RIGHT_CREATE,
	RIS_RIGHT_CHANGE,
	RIS_RIGHT_DELETE,
};

#define RIS_CLIENT_ID	     1
#define RIS_PORTFOLIO_ID     7
#define RIS_PROJECT_ID_BASE  40	       /* + index of the collection; index 0 is family 1 */
#define RIS_ANY_PROJECT	     INT64_MAX /* the path names none */
#define RIS_DOCUMENT_ID_BASE 5000
#define RIS_ATTACHMENT_BASE  9000
#define RIS_MAIN_FOLDER	     1
#define RIS_ATTACHMENTS	     "attachments" /* the collection of family 1 */
#define RIS_UUID_SIZE	     37

struct digest_key;

/* What a document has beyond the store's attachment. A document without one has the defaults. */
struct ris_document {
	int64_t folder;
	struct str description;
	char **versions; /* storage keys of replaced contents, oldest first; never listed */
	size_t n_versions;
};

struct rillsoft {
	struct emulator *emu;
	struct digest_key *signer; /* of JWTs; its key is made at start */
	struct table sessions;	   /* token text -> struct ris_session */
	struct table throttled;	   /* client address -> struct ris_window */
	struct table documents;	   /* store id -> struct ris_document */
	int64_t logins;
	int64_t saves; /* of projects: what moves versionId */
};

struct ris_call {
	struct rillsoft *ris;
	struct request *rq;
	struct response *rs;
	const char *method;	   /* after overriding */
	json_t *fields;		   /* of the body; always an object */
	const struct token *token; /* a ready-made one; NULL: a session's, which has all rights */
	bool typed;		   /* the answer has its Content-Type, or none on purpose */
	/* what the path names: -1 where it is no number */
	int64_t client_id;
	int64_t project_id;
	int64_t folder_id;
	int64_t document_id;
	int64_t attachment_id;
	int64_t version;
	char uuid[RIS_UUID_SIZE];
};

int64_t ris_setting(const struct ris_call *c, enum ris_setting which);

/* rillsoft_auth.c: false when it has answered. */
bool ris_throttle(struct ris_call *c);
bool ris_authenticate(struct ris_call *c);
bool ris_authorize(struct ris_call *c, enum ris_right right);
void ris_login(struct ris_call *c);
void ris_auth_close(struct rillsoft *ris);

/* rillsoft_token.c: a fresh token as the toggles want it, good until @expires_at (0: for ever). */
char *ris_token_new(struct ris_call *c, int64_t expires_at);

/* rillsoft_route.c: takes the path apart and calls what answers for it. */
void ris_route(struct ris_call *c);

/* rillsoft_reply.c: the one envelope of section 10. */
void ris_begin(struct ris_call *c, int status); /* up to `"details":`, which is to be put */
void ris_end(struct ris_call *c);
void ris_done(struct ris_call *c, int status); /* success that says nothing more */
void ris_refuse(struct ris_call *c, int status);
void ris_refuse_for(struct ris_call *c, int status, const char *details);
void ris_put_string(struct buffer *out, const char *s, size_t len);	  /* UTF-8 as it is */
void ris_put_text(struct buffer *out, const char *key, const char *text); /* NULL: null */
void ris_put_number(struct buffer *out, const char *key, int64_t value);
/* Server-local time without a zone. */
void ris_put_time(struct ris_call *c, struct buffer *out, const char *key, int64_t seconds);

/* rillsoft_project.c */
void ris_client(struct ris_call *c);
void ris_clients(struct ris_call *c);
void ris_projects(struct ris_call *c);
void ris_portfolios(struct ris_call *c);
int64_t ris_project_id(const struct store *s, const struct collection *project);
struct collection *ris_project(const struct ris_call *c, int64_t id); /* NULL: there is none */

/* rillsoft_element.c: the rows of a project's plan; row 0 is the project itself. */
void ris_uuid(const struct collection *project, int64_t row, char uuid[static RIS_UUID_SIZE]);
/* The row a UUID names in @project, or -1. */
int64_t ris_uuid_row(const struct collection *project, const char *uuid);
bool ris_element_takes_documents(const struct ris_call *c, const struct collection *project,
				 int64_t row); /* */
void rillsoft_record_id(const struct record *r, char id[REMOTE_ID_SIZE]);
void rillsoft_dress_record(struct record *r);

/* rillsoft_folder.c: the folders of the client, a nested set. */
void ris_folders(struct ris_call *c);
bool ris_folder_exists(const struct ris_call *c, int64_t id);
/* The folder a document of folder @id is seen in: the main one when @id is gone. */
int64_t ris_folder_seen(const struct ris_call *c, int64_t id);
void ris_put_folder_path(struct buffer *out, const char *key, int64_t id);

/* rillsoft_document.c */
void ris_documents(struct ris_call *c);
void ris_delete(struct ris_call *c);
void ris_put_document(struct ris_call *c, struct buffer *out, const struct attachment *a);
/* The live document the path names; NULL when it has answered 404. */
struct attachment *ris_document_called(struct ris_call *c);
bool ris_document_alive(const struct attachment *a);
/* Its state: made when it is first needed, or NULL if it has none yet. */
struct ris_document *ris_document(struct rillsoft *ris, const struct attachment *a);
const struct ris_document *ris_document_peek(const struct rillsoft *ris,
					     const struct attachment *a);
void ris_document_close(struct rillsoft *ris);
void rillsoft_attachment_id(const struct attachment *a, char id[REMOTE_ID_SIZE]);
void rillsoft_changed(struct emulator *emu, enum change_kind kind, int64_t id);

/* rillsoft_upload.c */
void ris_create(struct ris_call *c);
void ris_update(struct ris_call *c);
/* The one `file` part; NULL when it has answered: absent, doubled, too large. */
const struct multipart_file *ris_file(struct ris_call *c);
void ris_store(struct ris_call *c, struct attachment *a, const struct multipart_file *file);

/* rillsoft_download.c */
void ris_download(struct ris_call *c);
void ris_versions(struct ris_call *c);
void ris_version(struct ris_call *c);
void ris_serve_bytes(struct ris_call *c, const struct str *name, const char *path);
void rillsoft_serve_blob(struct request *rq, struct response *rs);

/* rillsoft_attachment.c: family 1. */
void ris_attachment_upload(struct ris_call *c);
void ris_attachment_download(struct ris_call *c);

#endif
