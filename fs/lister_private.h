/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_LISTER_PRIVATE_H
#define ATTACHFS_FS_LISTER_PRIVATE_H

/* What the files of the lister share among themselves. */

#include "lister.h"

struct watch;
struct probe;

struct lister {
	struct mount *m;
	bool all_collections;  /* the server says which there are, not options */
	struct watch *watches; /* tree->lock: the newest one */
	struct probe *probes;  /* tree->lock: to be sent */
	/* tree->lock: how many probes have failed since one was answered, and when the last one did */
	unsigned probes_failed;
	int64_t probe_failed_ms;
	bool trim; /* tree->lock: a listing is over, and what it took can go back */
	bool kick; /* tree->lock: a listing is to be started although nobody was parked for it */
};

/* lister_sizes.c */

/* Those that were decided on. Not under tree->lock. */
void lister_send_probes(struct lister *l);
/* Those that were not sent: the end. */
void lister_forget_probes(struct lister *l);

#endif
