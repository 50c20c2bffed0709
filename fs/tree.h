/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_TREE_H
#define ATTACHFS_FS_TREE_H

/*
 * The tree: every collection, record and file of a mount as a node in memory, with the two halves
 * of the ledger.
 *
 * A node is found by id (what the kernel says), by (parent, name) (a dentry), and by remote id
 * (what the server says). It lives as long as any of these can lead to it: in its directory, looked
 * up by the kernel, open, or waiting for the server. Its id is its inode number, comes from a
 * counter, and is never used twice in the life of a ledger.
 *
 * Everything here is guarded by tree->lock, which is held for memory work only: never over I/O, a
 * reply, or a call of the remote. A function named _locked wants it held. Order: tree->lock,
 * content locks, leaf locks (waiters, notifier, ledger queue).
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include <attachfs/content.h>
#include <attachfs/ledger.h>
#include <attachfs/remote.h>

#include "known.h"

struct events;
struct notifier;
struct watch;

#define NODE_ID_ROOT  1
#define NODE_ID_FIRST 64 /* below: root and control files */
/* With a node's id: its second inode, see fs/passthrough.h. */
#define NODE_TWIN (UINT64_C(1) << 58)

/* Marks a mode as set, so that 0000 can be told from "never set". */
#define NODE_MODE_SET 0x10000u

enum node_kind {
	NODE_ROOT = 0,
	NODE_COLLECTION = LEDGER_COLLECTION,
	NODE_RECORD = LEDGER_RECORD,
	NODE_FILE = LEDGER_FILE,
};

struct xattr {
	struct xattr *next;
	char *name;
	size_t len;
	unsigned char value[];
};

/*
 * What few nodes have: those that are open, changed here, or on their way to the server.
 * All others share one that is all zeros, so that reading asks nothing first: node->more->view. To set
 * something is node_more(node)->view = ..., which gives the node its own.
 */
struct node_more {
	struct xattr *xattrs;

	/* wanted */
	uint32_t mode;		    /* permission bits, 0 = the mount's default */
	uint32_t uid, gid;	    /* if owner_set, see node_uid() */
	bool own_times;		    /* see node_set_times() */
	int64_t atime_ns, ctime_ns; /* if own_times */

	/* the newest view that a close committed in this mount; ids of views count up */
	uint64_t committed;
	/*
	 * a file: the last one that a listing showed under the same name of the server's, which had
	 * to take another one here; 0 = none
	 */
	uint64_t namesake;

	uint64_t known_seq; /* tree->seq when our own call last changed the known half */

	/* between, see flight */
	int64_t flight_since_ns; /* the server's time of day (engine_server_ns()) */
	char *token;		 /* of the last create or replace sent: see node_set_flight() */
	uint64_t after;
	char *message; /* parked */
	uint64_t look; /* busy and unknown: the number of the listing that will tell */
	unsigned tries;
	int64_t retry_at_ms;		    /* not before; clock_mono_ms() */
	int64_t sealed_ms;		    /* when its content was last committed */
	int64_t name_ms;		    /* when its name or presence last changed */
	uint64_t change;		    /* tree->changes when it joined the sync list */
	struct node *sync_prev, *sync_next; /* tree->sync list */

	/* kernel and handles */
	unsigned n_open;
	/* bumped when the server's content replaces ours: older handles are stale */
	uint32_t version;
	/*
	 * `version` that was last read: whoever read it was opened with the kernel's older pages
	 * dropped, so that those of now are of this one
	 */
	uint32_t cached_version;
	/* see fs/replaced.h; changes of the bytes the kernel has not heard of, and the size it knows */
	unsigned n_open_twin;		  /* of n_open: by the twin */
	unsigned n_stale, n_stale_twin; /* of these: of versions that were replaced since */
	unsigned n_untold;
	int64_t told_size;
	/* see fs/passthrough.h: handles the kernel reads itself, of which version, content and file */
	unsigned n_passed;
	int32_t backing_id;
	uint64_t passed_version;
	struct content *passed_content; /* they reference it */
	/* referenced while open: what reads and writes go to; NULL = empty or not needed yet */
	struct content *view;
	/* referenced while open: the clean content the reader may fetch for it; NULL = none yet */
	struct content *feed;

	/* records: JSON objects */
	char *fields; /* wanted: what the user has set and the server does not have, or NULL */
	char *known_fields; /* all as last read, or NULL */
	int64_t fields_ns;  /* `fields` were last set in this mount */
};

/* What only directories have. */
struct node_dir {
	struct node *child_first, *child_last; /* in the order they came */
	uint64_t n_children;
	int64_t listed_ns;   /* when `listed` was last found out */
	struct watch *watch; /* the lister's; NULL = nobody has looked into it yet */
};

/* There may be a million of these: what only few have is elsewhere. */
struct node {
	const uint64_t id;

	/* where it is */
	struct node *parent; /* NULL: root, or unlinked */
	char *shown;	     /* node_set_shown() */
	struct node *sibling_prev, *sibling_next;
	struct node *by_id_next, *by_name_next, *by_rid_next;
	const struct node_more *more; /* never NULL */

	const enum node_kind kind : 3;
	/*
	 * between: the call that is on its way. Without busy: one whose outcome is not known;
	 * CREATE (and REMOVE, where it goes by name) must be looked at first (unknown), the others
	 * are sent once more
	 */
	enum ledger_flight flight : 4;
	bool shown_known : 1; /* `shown` is one of the names in `known` */
	bool owner_set : 1;
	bool gone : 1; /* unlinked by the user or elsewhere; not in its directory any more */
	bool local : 1;
	bool dirty : 1; /* `content` is not on the server */
	bool mtime_dirty : 1;
	bool in_ledger : 1;  /* has a row: closed at least once, or came from the server */
	bool left_name : 1;  /* gone, but the kernel may believe a name still leads to it */
	bool busy : 1;	     /* a call for it is on its way, or its bytes are being made ready */
	bool unknown : 1;    /* outcome of the call that `flight` says unknown: look first */
	bool looked : 1;     /* unknown: looked once already, in vain */
	bool size_asked : 1; /* a probe is on its way */
	bool in_sync_list : 1;
	bool twinned : 1;   /* lookups give the twin (fs/passthrough.h) */
	bool listed : 1;    /* the children are complete: what is not here does not exist */
	bool verifying : 1; /* a listing is on its way that will set confirmed_ms */
	int error;	    /* parked */

	/* wanted */
	int64_t mtime_ns; /* node_set_times() */
	int64_t size;	  /* -1 = not known; while `view` is dirty, ask it */
	uint64_t content; /* id of the committed content, 0 = none (or empty, if dirty) */

	/* the known half: a block of known.h, NULL = not on the server; node_known() */
	char *known;
	uint64_t seen_seq; /* the listing it was last seen in */

	uint64_t nlookup;
};

struct tombstone;

#define TREE_TOUCHED_MAX 8

struct tree {
	pthread_mutex_t lock;
	struct ledger *ledger;
	struct content_store *store;
	struct notifier *notifier;
	struct events *events; /* set before the first listing; NULL = nobody is told */
	const struct remote_caps *caps;
	bool filename_policy;
	uint32_t uid, gid; /* default owner */
	uint32_t umask;	   /* taken from the default modes */

	struct node *root;
	struct node **by_id, **by_name, **by_rid; /* chained hashes of `buckets` each */
	size_t buckets, n_nodes;
	uint64_t next_id;
	uint64_t seq;			     /* counts our own acknowledged changes and listings */
	uint64_t changes;		     /* counts changes that may have to be sent */
	struct node *sync_first, *sync_last; /* nodes whose halves may differ */
	size_t n_sync;
	/* remote ids we removed lately: late listings must not bring them back */
	struct tombstone *tombstones;

	/* directories whose times are newer than their rows */
	uint64_t touched[TREE_TOUCHED_MAX];
	size_t n_touched;

	void (*sync_wake)(void *ctx); /* called under lock when a node joins the sync list */
	void *sync_ctx;
	/* called under lock when a listing shows another version of @n, and that is what is shown */
	void (*replaced)(void *ctx, const struct node *n);
	void *replaced_ctx;
};

int tree_new(struct ledger *ledger, struct content_store *store, struct notifier *notifier,
	     const struct remote_caps *caps, struct tree **ret_tree);
void tree_free(struct tree *t);

/* Fill from the ledger. 0 or -errno. */
int tree_load(struct tree *t);

/* Make sure that the root holds exactly the collections of these ids (':'-separated). 0, -ENOMEM. */
int tree_set_collections(struct tree *t, const char *collections);

/*
 * The collections the server lists. With @all the root holds exactly these from now on; else only
 * their names are learned. 0, -ENOMEM. Takes tree->lock.
 */
int tree_collections_listed(struct tree *t, const struct remote_collection *list, size_t n,
			    bool all);

void tree_lock(struct tree *t);
void tree_unlock(struct tree *t);

/* All below: tree->lock held. */

/*
 * Where it is, below the mountpoint; of what is unlinked, where the server has it. A record is at
 * most two steps down, so that it fits.
 */
#define NODE_PATH_MAX 1024
void node_path(struct tree *t, const struct node *n, char out[static NODE_PATH_MAX]);

/* Its own struct node_more, to set something in. Ends the process without memory. */
struct node_more *node_more(struct node *n);
/* Give it back if there is nothing in it any more. */
void node_less(struct node *n);

/* Of a file: of one that has no children. To set something: node_own_dir(), of directories only. */
const struct node_dir *node_dir(const struct node *n);
struct node_dir *node_own_dir(struct node *dir);

uint32_t node_uid(const struct tree *t, const struct node *n);
uint32_t node_gid(const struct tree *t, const struct node *n);
void node_set_owner(struct node *n, uint32_t uid, uint32_t gid);

/* Most have one time only: what the server tells of it. */
int64_t node_atime(const struct node *n);
int64_t node_ctime(const struct node *n);
void node_set_times(struct node *n, int64_t atime_ns, int64_t mtime_ns, int64_t ctime_ns);
/* Its content (a directory's: its entries) or, the second, what else is told of it has changed. */
void node_set_modified(struct node *n, int64_t now_ns);
void node_set_changed(struct node *n, int64_t now_ns);

/* By the id, or by that of its twin. */
struct node *tree_find_locked(struct tree *t, uint64_t id);
struct node *tree_child_locked(struct tree *t, const struct node *dir, const char *shown);
/* By remote id; @scope: the collection node's id for records, 0 for files. */
struct node *tree_by_rid_locked(struct tree *t, uint64_t scope, const char *rid);

/* A new node in @dir. NULL without memory. Not in the ledger yet. */
struct node *tree_new_node_locked(struct tree *t, enum node_kind kind, struct node *dir,
				  const char *shown);
/* Out of its directory (the dentry is gone, the node lives on while somebody needs it). */
void tree_unlink_locked(struct tree *t, struct node *n);
/* Into another directory or name, which is free. 0, -ENOMEM. */
int tree_move_locked(struct tree *t, struct node *n, struct node *dir, const char *shown);
/* Free it when nothing leads to it any more. */
void tree_release_locked(struct tree *t, struct node *n);

/* Queue its row; does nothing for a node that has none yet. */
void tree_put_locked(struct tree *t, struct node *n);
/*
 * The times of a directory have moved with an entry. Its row follows soon, once for a burst of
 * entries that come and go: a row may be long, and each of them commits.
 */
void tree_touch_locked(struct tree *t, struct node *dir);
void tree_put_touched_locked(struct tree *t);
/* Something of it may have to go to the server: put the row, join the sync list. */
void tree_changed_locked(struct tree *t, struct node *n);
/* Leave the sync list when the halves are equal. */
void tree_settle_locked(struct tree *t, struct node *n);
bool node_differs(const struct tree *t, const struct node *n);

/* Whether the name shown is what the server's fields give. */
bool node_name_matches(const struct tree *t, const struct node *n);
/* The name as the server's fields show, undisambiguated; NAMES_MAX + 1 bytes. */
void node_known_shown(const struct tree *t, const struct known *k, char *out);
/* The collection a record or file belongs to; NULL when unlinked. */
struct node *node_collection(struct node *n);
/* The same for a record, also when it is out of its directory; NULL = forgotten. */
struct node *tree_collection_of_locked(struct tree *t, const struct node *record);
/* What the remote's ops call a collection. */
const char *node_collection_id(const struct node *collection);
/* The collection of that id, also one that is not shown; NULL = none. */
struct node *tree_find_collection_locked(struct tree *t, const char *id);

/* Whether the server does not list the records of this collection (caps.unlisted_collection). */
bool tree_is_unlisted(const struct tree *t, const struct node *collection);
/* Whether its one record stands in its place (caps.flat_collection) ... */
bool tree_is_flat(const struct tree *t, const struct node *collection);
/* ... and what the kernel sees for @n: that record, or @n itself. */
struct node *tree_seen(const struct tree *t, struct node *n);
/* The node id of what ".." in @dir is. */
uint64_t tree_above(const struct tree *t, const struct node *dir);

/*
 * A new record in a collection that is not listed, with its row; @name is the server's for @shown.
 * NULL without memory.
 */
struct node *tree_new_record_locked(struct tree *t, struct node *collection, const char *shown,
				    const char *rid);
/*
 * The user has no use for an (empty) record of such a collection any more. It lives on until what
 * was in it has been removed on the server.
 */
void tree_forget_record_locked(struct tree *t, struct node *record);

/* The remote id; NULL = not on the server. */
static inline char *node_rid(const struct node *n)
{
	return n->known;
}
/* The known half. Its texts are the node's, until that is changed. */
struct known node_known(const struct node *n);
/* Change it but for the remote id. Texts of @k may be those of node_known(). */
void node_edit_known(struct node *n, const struct known *k);
/* The same of one thing only. */
void node_set_known_name(struct node *n, const char *name);
void node_set_known_size(struct node *n, int64_t size);
void node_set_confirmed(struct node *n, int64_t mono_ms);
/* The server's bytes are those of @c (NULL: none), as far as their hash is known. */
void node_set_hash(struct node *n, struct content *c);
/*
 * Whether the server's bytes are those of @c (NULL: none at all). False also when that cannot be
 * told: they were never all here.
 */
bool node_known_is_content(struct tree *t, const struct node *n, struct content *c);
/*
 * A copy for the remote's ops: strings borrowed from the node, but for the URL, which is to be freed.
 */
void node_borrow_file(const struct node *n, const char *record_rid, struct remote_file *ret_file);

/*
 * "<remote id>/<version>": the key of the clean content of what the server has. False: not on the
 * server, or no version.
 */
#define NODE_KEY_MAX 512
bool node_key(const struct node *n, char key[static NODE_KEY_MAX]);
/*
 * What it wants, or else what the server has, as far as it is in the store; referenced, NULL =
 * nothing there.
 */
struct content *node_content(struct tree *t, const struct node *n);
/* The same content is not needed any more. */
void node_drop_content_locked(struct tree *t, struct node *n);
/*
 * The server's bytes are others now: show them, and let handles opened before be stale. The old
 * ones were dropped.
 */
void tree_follow_content_locked(struct tree *t, struct node *n);

/* Whether a program has written something that no close has committed yet. */
bool node_being_written(const struct node *n);

/* The size now, -1 = not known. */
int64_t node_size_locked(const struct node *n);
void node_stat_locked(const struct tree *t, const struct node *n, struct stat *st);
bool node_set_string(char **slot, const char *value);
/* What an unlinked node is called. False without memory. */
bool node_set_shown(struct node *n, const char *shown);

/*
 * What a call in flight was, kept in one string so that a later daemon can look for what became of
 * it: "<token>@<record node, hex>,<content, hex>,<size>=<name sent>". The token is unique; it is
 * the part's file name where the name itself would not survive as one (P-15).
 */
struct flight {
	uint64_t record; /* node id of the record it was sent to, 0 = none */
	/* node->content at that time; 0 = none (empty, or clean); FLIGHT_UNSURE */
	uint64_t content;
	int64_t size;	  /* of what was sent; -1 = not to be known again by it (a filler) */
	const char *name; /* the server's spelling; NULL = none */
};
#define FLIGHT_UNSURE UINT64_MAX /* another call went to the same place: which arrived? */
bool node_set_flight(struct node *n, uint64_t number, const struct flight *f);
/* Its content becomes FLIGHT_UNSURE. */
void node_doubt_flight(struct node *n);
/* The name is borrowed from the node. */
void node_get_flight(const struct node *n, struct flight *ret_flight);
/* Just the token, at least 64 bytes; false = none. */
bool node_token(const struct node *n, char token[static 64]);
/* Whether the server's file name @filename is the token of this node's last upload. */
bool node_has_token(const struct node *n, const char *filename);
/*
 * The record it was sent to, 0 = none; the server's spelling of the name it was sent under, NULL =
 * none.
 */
uint64_t node_flight_record(const struct node *n);
const char *node_flight_name(const struct node *n);

/* Extended attributes in memory: 0, -ENOMEM. Find: NULL = none. Remove: false = none. */
int node_set_xattr(struct node *n, const char *name, const void *value, size_t len);
struct xattr *node_find_xattr(const struct node *n, const char *name);
bool node_remove_xattr(struct node *n, const char *name);

/*
 * Give the node another known half (or none, NULL), keeping the index of remote ids right. Takes
 * over @k.
 */
void tree_set_known_locked(struct tree *t, struct node *n, struct known *k);
/* Exchange the known halves of two nodes: adoption. */
void tree_swap_known_locked(struct tree *t, struct node *a, struct node *b);

/*
 * It lost its place on the server: what the user has becomes a new file, with its row once it is
 * closed.
 */
void tree_part_locked(struct tree *t, struct node *n);
/* Whether there are bytes of the user's that the server does not have. */
bool node_is_changed_here(const struct node *n);

/* What the server told, applied to the tree. */

/* A listing begins: what our own calls change from now on wins over it. Returns its mark. */
uint64_t tree_listing_begin(struct tree *t);
/* One page. @collection: node id. Takes over strings. 0, -ENOMEM. */
int tree_listing_page(struct tree *t, uint64_t mark, uint64_t collection,
		      struct remote_record *records, size_t n_records, struct remote_file *files,
		      size_t n_files);
/*
 * The whole collection (@record 0) or one record was listed: what it did not name is gone from the
 * server.
 */
void tree_listing_end(struct tree *t, uint64_t mark, uint64_t collection, uint64_t record);
/* The server has no such record: it goes, unless it holds what the server does not have. */
void tree_record_vanished(struct tree *t, uint64_t mark, uint64_t record);

/* A remote id we removed: listings that began before must not bring it back. */
void tree_bury_locked(struct tree *t, const char *rid);
/* Whether it was buried after @mark (0: at all), as far as is remembered. */
bool tree_is_buried_locked(const struct tree *t, const char *rid, uint64_t mark);

#endif
