/* SPDX-License-Identifier: MIT */
/*
 * Enterprise Tester, as reference/enterprise-tester.md describes it; E-numbers in the code are that
 * document's traps.
 *
 * A call is one request to the api port on its way: enterprise_tester.c runs it through request limit,
 * authentication and route; the enterprise_tester_*.c files are named after what they answer for. All run
 * under the emulator's lock.
 *
 * What the API shows is an entity: a record or attachment of the store, or something derived from row
 * numbers (projects, packages, runs), so that a restarted emulator shows the same things again.
 */
#ifndef EMULATOR_ENTERPRISE_TESTER_H
#define EMULATOR_ENTERPRISE_TESTER_H

#include "emulator.h"

extern const struct system enterprise_tester_system;

/* Indices into the settings table of enterprise_tester.c. */
enum et_setting {
	ET_NIL_GUID,
	ET_NAME_SWAP,
	ET_LINK_HOST,
	ET_AUTH_FAIL,
	ET_RANGE,
	ET_BUMP_ON_ATTACH,
	ET_MAX_REQUEST,
	ET_MAX_REQUEST_BYTES,
	ET_MIME_STRICT,
	ET_TOTALS,
	ET_GET_STATUS,
	ET_APPLICATION_PATH,
	ET_TEMPORARY_ID,
	ET_INCIDENT_TEMPORARY_ID,
	ET_SET_TTL,
	ET_PARTIAL_UPLOAD,
	ET_PART_MAX,
	ET_BAD_NAMES,
	ET_DELETE_STATUS,
	ET_DISPOSITIONS,
	ET_HEADER_CHARSET,
	ET_TQL_TOP,
	ET_ODATA_TOP,
	ET_TOP_MAX,
	ET_UNORDERED,
	ET_HAS_ATTACHMENTS,
	ET_TQL_HAS_ATTACHMENTS,
	ET_OWNER_ID,
	ET_SELF_LINKS,
	ET_NODES,
	ET_ERROR_BODY,
	ET_UPLOAD_NO_OWNER,
	ET_ETAG,
	ET_CONTENT_DISPOSITION,
	ET_CONTENTS_TYPE,
	ET_CONTENT_LENGTH,
};

enum et_nil_guid { NIL_OFF, NIL_SETS, NIL_CONTENT, NIL_EVERYWHERE };
enum et_name_swap { SWAP_NEVER, SWAP_SECOND, SWAP_ALWAYS };
enum et_link_host { LINK_BASE, LINK_INTERNAL, LINK_API_API, LINK_NO_PATH };
enum et_auth_fail { AUTH_401, AUTH_302, AUTH_200 };
enum et_max_request { MAX_NONE, MAX_4MB_500, MAX_4MB_400, MAX_30MB_404, MAX_30MB_413 };
enum et_totals { TOTALS_INLINECOUNT, TOTALS_ALWAYS, TOTALS_TQL };
enum et_temporary_id { TEMPORARY_CONSUMED, TEMPORARY_COPIED, TEMPORARY_IGNORED };
enum et_dispositions { DISPOSITIONS_BOTH, DISPOSITIONS_ATTACHMENT, DISPOSITIONS_FORM_DATA };
enum et_has_attachments { HAS_LIVE, HAS_ABSENT, HAS_FALSE };
enum et_error_body { ERROR_JSON, ERROR_HTML, ERROR_EMPTY };

/* The first ET_RECORD_KINDS are the store's collections, in the order of its table. */
enum et_kind {
	ET_REQUIREMENT,
	ET_SCRIPT,
	ET_INCIDENT,
	ET_STEP_RESULT,
	ET_AGILE_RUN_STEP,
	ET_AUTOMATED_TEST_RUN,
	ET_NODE,
	ET_SET,
	ET_RECORD_KINDS,
	ET_PROJECT = ET_RECORD_KINDS,
	ET_REQUIREMENT_PACKAGE,
	ET_SCRIPT_PACKAGE,
	ET_EXECUTION_PACKAGE,
	ET_SCRIPT_RUN,
	ET_AGILE_RUN,
	ET_SCRIPT_ASSIGNMENT, /* this and the next: known lists, always empty */
	ET_AUTOMATED_TEST,
	ET_ATTACHMENT,
	ET_USER, /* only as the CreatedById of attachments */
	ET_KINDS,
};

struct et_kind_info {
	const char *entity_type; /* "Requirement" */
	const char *path;	 /* below the base, singular: "requirement" */
	const char *owner_key; /* what its attachments call it: "RequirementId"; NULL: owns none */
	const char *title;     /* the field of its name: "Name" */
	const char *number;    /* the field of its number, or NULL */
	bool has_package;
	bool bare; /* attachment lists are bare arrays (E-9) */
};

extern const struct et_kind_info et_kinds[ET_KINDS];
extern const struct collection et_collections[];

#define ET_NIL_ID    "00000000-0000-0000-0000-000000000000"
#define ET_GUID_SIZE 37
#define ET_BASE	     "/EnterpriseTester/api" /* with application_path at its default */
#define ET_STEPS     5			     /* of one run */

struct et {
	struct emulator *emu;
	struct table types; /* attachment row id -> struct str: the Content-Type it was sent with */
	int64_t opened_at;
	size_t shuffled; /* how often something was listed without an order */
};

struct et_entity {
	enum et_kind kind;
	int64_t id;
	struct record *record;	       /* of the first ET_RECORD_KINDS */
	struct attachment *attachment; /* of ET_ATTACHMENT */
};

struct et_call;

struct et_route {
	const char *method;
	const char *pattern; /* lower-case segments below the base; `*` is an id */
	void (*serve)(struct et_call *c);
	enum et_kind kind;
};

#define ET_IDS_MAX 3

struct et_call {
	struct et *et;
	struct request *rq;
	struct response *rs;
	const struct token *token; /* NULL: mount:secret, which may do everything */
	const struct et_route *route;
	struct str ids[ET_IDS_MAX]; /* what stood at the stars */
	json_t *form;		    /* POST /api/search: its urlencoded body, or NULL */
	bool html;		    /* the answer is a page, not JSON */
};

int64_t et_setting(const struct et_call *c, enum et_setting which);

/* enterprise_tester_guid.c: GUIDs that look random and are made from kind and row id. */
void et_guid(enum et_kind kind, int64_t id, char guid[static ET_GUID_SIZE]);
bool et_guid_parse(const struct str *text, enum et_kind *ret_kind, int64_t *ret_id);
bool et_guid_of(const struct str *text, enum et_kind kind, int64_t *ret_id);
void et_record_id(const struct record *r, char id[REMOTE_ID_SIZE]);
void et_attachment_id(const struct attachment *a, char id[REMOTE_ID_SIZE]);

/* enterprise_tester_auth.c: false when it has answered. */
bool et_authenticate(struct et_call *c);
bool et_is_login_page(const struct et_call *c);
void et_login_page(struct et_call *c);

/* enterprise_tester_route.c */
/* The path below the application path and `/api`, in lower case; ptr NULL: somewhere else. */
struct str et_path(const struct et_call *c);
const char *et_application_path(const struct et_call *c); /* "/EnterpriseTester", or "" */
bool et_route(struct et_call *c, const char *path);	  /* false: 404 or 405 answered */

/* enterprise_tester_error.c: each answers. */
void et_error(struct et_call *c, int status, const char *message);
void et_page(struct et_call *c, int status, const char *title);
bool et_request_too_large(struct et_call *c); /* true: answered */

/* enterprise_tester_entity.c */
struct et_entity et_entity_of(struct record *r);
/* Whether there is a thing of that kind and number; *ret_entity then. */
bool et_entity_find(struct et_call *c, enum et_kind kind, int64_t id, struct et_entity *ret_entity);
bool et_entity_by_guid(struct et_call *c, const struct str *guid, enum et_kind kind,
		       struct et_entity *ret_entity);
/* Its name; @buffer is used if the name has to be made up. */
struct str et_name(const struct et_entity *e, char buffer[static 48]);
int64_t et_package(const struct et_entity *e); /* 1..ET_PACKAGES */
int64_t et_project(const struct et_entity *e); /* 1..ET_PROJECTS; 0: it is in none */
const char *et_package_name(int64_t package);
const char *et_project_name(int64_t project);
enum et_kind et_package_kind(enum et_kind kind); /* the kind of its packages */
enum et_kind et_run_kind(enum et_kind kind);	 /* the runs it is found below; ET_KINDS: none */
int64_t et_run_of(int64_t step);		 /* the row id of the run a step or node is of */
int64_t et_version(const struct et_entity *e);
bool et_has_attachments(struct et_call *c, const struct et_entity *e);
const struct rows *et_owned(struct et_call *c, const struct record *r);
struct str et_content_type(struct et *et, const struct attachment *a);
void et_touched(struct emulator *emu, struct record *r);
void et_dress_record(struct record *r);
void et_make_runs(struct et *et); /* the automated test runs that nodes are of */

#define ET_PROJECTS 2
#define ET_PACKAGES 4 /* of each kind of package; package n is of project (n - 1) % 2 + 1 */

/* enterprise_tester_json.c */
enum et_expand { EXPAND_NONE, EXPAND_ATTACHMENTS, EXPAND_STEPS };
void et_put_link(const struct et_call *c, struct buffer *out); /* the base of all links */
void et_put_text(struct buffer *out, const char *key, const struct str *s);
void et_put_time(struct buffer *out, const char *key, int64_t seconds);
void et_put_id(struct buffer *out, const char *key, enum et_kind kind, int64_t id);
void et_put_entity(struct et_call *c, struct buffer *out, const struct et_entity *e,
		   enum et_expand expand, bool entity_type);
/* @index: its place in the array, for name_swap (E-2). */
void et_put_attachment(struct et_call *c, struct buffer *out, const struct attachment *a,
		       size_t index);

/* enterprise_tester_lex.c: words of TQL and OData expressions. */
enum et_token_kind { TOKEN_END, TOKEN_WORD, TOKEN_STRING, TOKEN_SYMBOL, TOKEN_BAD };

struct et_lexer {
	const char *s;
	bool backslash; /* escapes in strings, beside doubled quotes */
	enum et_token_kind kind;
	struct str text; /* of the token; owned by the lexer */
};

void et_lex_start(struct et_lexer *lex, const char *text, bool backslash);
void et_lex_next(struct et_lexer *lex);
void et_lex_end(struct et_lexer *lex);
bool et_lex_is(const struct et_lexer *lex, const char *word); /* without case; never a string */
bool et_lex_accept(struct et_lexer *lex, const char *word);

/* enterprise_tester_filter.c: what both languages are compiled to. */
enum et_test {
	TEST_EQ,
	TEST_NE,
	TEST_LT,
	TEST_LE,
	TEST_GT,
	TEST_GE,
	TEST_HAS,
	TEST_STARTS,
	TEST_ENDS
};
enum et_filter_op { FILTER_AND, FILTER_OR, FILTER_NOT, FILTER_TEST };

struct et_filter {
	enum et_filter_op op;
	struct et_filter *left, *right;
	enum et_test test;
	int field;
	struct str *operands; /* any of them may fit */
	size_t n_operands;
};

enum et_value_kind { ET_NULL, ET_NUMBER, ET_TIME, ET_TEXT };

struct et_value {
	enum et_value_kind kind;
	int64_t number;
	struct str text; /* folded and owned */
};

int et_field(const char *name); /* -1: there is none */
bool et_field_is(int field, const char *name);
struct et_value et_value_of(struct et_call *c, const struct et_entity *e, int field);
int et_value_compare(const struct et_value *a, const struct et_value *b);
struct et_filter *et_filter_new(enum et_filter_op op, struct et_filter *left,
				struct et_filter *right);
struct et_filter *et_filter_test(int field, enum et_test test);
void et_filter_operand(struct et_filter *f, const struct str *text); /* copies */
void et_filter_free(struct et_filter *f);			     /* NULL is fine */
bool et_filter_fits(struct et_call *c, const struct et_filter *f, const struct et_entity *e);

/* What a list is asked for. */
#define ET_ORDERS_MAX 4

struct et_query {
	struct et_filter *filter; /* NULL: all */
	struct {
		int field;
		bool descending;
	} orders[ET_ORDERS_MAX];
	size_t n_orders;
	int64_t top; /* -1: as many as there are */
	int64_t skip;
	bool totals;
	bool expand_attachments;
};

enum et_language { ET_ODATA, ET_TQL };

/* enterprise_tester_parse.c: what the two languages have in common. NULL or false: no expression. */
struct et_parser {
	struct et_lexer lex;
	struct et_filter *(*test)(struct et_parser *p); /* of one field: each language's own */
	bool no_has_attachments;			/* HasAttachments is no field */
};

struct et_filter *et_parse_filter(struct et_parser *p);
bool et_parse_order(struct et_parser *p, struct et_query *q);
int et_parse_field(struct et_parser *p);
bool et_parse_literal(struct et_parser *p, struct et_filter *f);

/* enterprise_tester_odata.c, enterprise_tester_tql.c: fill @q; false if @text is no expression. */
bool et_odata_filter(struct et_query *q, const char *text);
bool et_odata_order(struct et_query *q, const char *text);
bool et_tql(struct et_call *c, struct et_query *q, const char *text);

/* enterprise_tester_query.c */
/* A query option by its decoded name (E-25), from the form as well; ptr NULL: absent. Caller frees. */
struct str et_option(const struct et_call *c, const char *name);
bool et_expands(const struct et_call *c, const char *what);
bool et_query_read(struct et_call *c, enum et_language language, struct et_query *q);
void et_query_free(struct et_query *q);

/* enterprise_tester_list.c */
struct et_list {
	struct et_entity *at;
	size_t n, cap;
};

void et_list_add(struct et_list *list, struct et_entity e);
/* Filters, orders and pages @list and answers it in an envelope; frees it. */
void et_list_reply(struct et_call *c, struct et_list *list, enum et_language language,
		   bool entity_type);
void et_serve_tql_list(struct et_call *c);
void et_serve_odata_list(struct et_call *c);
void et_serve_search(struct et_call *c);
void et_serve_children(struct et_call *c); /* of a requirement or a package */
void et_serve_nodes(struct et_call *c);
void et_serve_node_children(struct et_call *c);

/* enterprise_tester_record.c */
void et_serve_show(struct et_call *c);
void et_serve_create(struct et_call *c);
void et_serve_put(struct et_call *c);
void et_serve_patch(struct et_call *c);

/* enterprise_tester_attachment.c */
struct record *et_owner(struct et_call *c); /* by the ids of the path; NULL: 404 */
void et_serve_attachments(struct et_call *c);
void et_serve_delete(struct et_call *c);
void et_serve_contents(struct et_call *c);
void et_attachment_drop(struct et *et, struct attachment *a);
void et_remember_type(struct et *et, const struct attachment *a, const char *type, size_t len);

/* enterprise_tester_upload.c */
void et_serve_upload(struct et_call *c);

/* enterprise_tester_set.c */
void et_serve_new_set(struct et_call *c);
void et_sets_sweep(struct et *et);
/* Attaches the files of the set that @body names to @r. False: there is no such set; has answered. */
bool et_set_check(struct et_call *c, enum et_kind kind, const json_t *body);
void et_set_consume(struct et_call *c, const json_t *body, struct record *r);

/* enterprise_tester_root.c */
void et_serve_root(struct et_call *c);
void et_serve_systeminfo(struct et_call *c);
void et_serve_swagger(struct et_call *c);

#endif
