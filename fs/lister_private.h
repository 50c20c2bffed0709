/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_LISTER_PRIVATE_H
#define ATTACHFS_FS_LISTER_PRIVATE_H

/* What the files of the lister share among themselves. */

#include "lister.h"

#include "mount.h"

struct probe;
struct refreshing;

enum watch_kind { WATCH_ROOT, WATCH_COLLECTION, WATCH_RECORD };

struct watch {
	struct watch *next; /* constant, as all up to here below */
	struct lister *lister;
	enum watch_kind kind;
	uint64_t node;	/* what is listed */
	char *id;	/* of the collection; "" for the root */
	char *record;	/* id of the record, or NULL */
	bool validated; /* tree->lock, as all below: listed, or tried, in this mount */
	bool wanted;	/* to be started by lister_kick() */
	bool listing, polling;
	bool again;	   /* something changed while a listing was under way: list once more */
	int64_t began_ms;  /* of the first listing of this mount */
	uint64_t mark;	   /* of the listing under way */
	bool cursor_read;  /* `cursor` is what the ledger has, or newer */
	char *cursor;	   /* what the tree is as new as */
	char *next_cursor; /* ... will be, once the listing it asked for succeeded */
	int64_t asked_ms;  /* when the last poll or listing was over */
	int64_t used_ms;   /* somebody last looked there */
	/* who waits for the listing under way, and for the one that begins after it */
	struct refreshing *refreshes, *refreshes_next;
};

struct lister {
	struct mount *m;
	bool all_collections;  /* the server says which there are, not options */
	struct watch *watches; /* tree->lock: the newest one */
	struct probe *probes;  /* tree->lock: to be sent */
	unsigned trims;	    /* tree->lock: a listing is over: so often what it took can go back */
	int64_t trimmed_ms; /* tree->lock */
	/* tree->lock: how many probes have failed since one was answered, and when the last one did */
	unsigned probes_failed;
	int64_t probe_failed_ms;
	bool kick; /* tree->lock: a listing is to be started although nobody was parked for it */
};

/* lister.c; a function named _locked wants tree->lock held, the others that it is not */

/* The first of all watches, the newest: what follows it stays. */
struct watch *lister_first_watch(struct lister *l);
/* The directory whose listing shows what is in @dir; NULL = what is known is all there is. */
struct node *lister_target_of_locked(struct lister *l, struct node *dir);
/* Its watch; NULL without memory. */
struct watch *lister_watch_of_locked(struct lister *l, struct node *target);
/* What it lists; NULL = gone. */
struct node *lister_watched_locked(const struct watch *w);
/* For who has set w->listing. */
void lister_start_listing(struct watch *w, enum transfer_class class);

/* lister_refresh.c */

/* A listing is over that these waited for. */
void lister_refreshes_done(struct refreshing *r, int error);

/* lister_sizes.c */

/* Those that were decided on. Not under tree->lock. */
void lister_send_probes(struct lister *l);
/* Those that were not sent: the end. */
void lister_forget_probes(struct lister *l);

#endif
