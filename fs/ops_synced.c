/* SPDX-License-Identifier: MIT */

/*
 * Waiting for the server, with write=through and fsync=remote. An operation first does its work here
 * as it always does, and is then answered with what came of it there. What the server refused is
 * parked all the same, and what it has not answered in time goes on being tried: an error says that
 * the server does not have it, not that it was given up.
 *
 * Who waits for a server that cannot be reached, or that does not take the credentials, is told so
 * after one try, not at the end of timeout=.
 */

#include "ops.h"

#include <attachfs/transfer.h>

#include "sync.h"

/* Nothing will be sent before this is over. */
static int find_trouble(const struct mount *m)
{
	char message[256];

	if (remote_get_auth(m->remote, message) == REMOTE_AUTH_FAILED)
		return -EACCES;
	return engine_get_state(m->engine, NULL) == ENGINE_OFFLINE ? -EHOSTDOWN : 0;
}

bool node_synced_locked(struct call *c, struct node *n, int bit, int *ret_error)
{
	struct mount *m = c->m;
	bool first = !(c->step & bit);

	*ret_error = 0;
	c->step |= bit;
	if (first && !n->busy && !(n->unknown && n->looked))
		node_more(n)->retry_at_ms = 0; /* somebody waits: no backing off now */
	if (sync_node_locked(m->sync, n, ret_error))
		return true;
	if (!first && !n->busy)
		*ret_error = find_trouble(m);
	if (*ret_error)
		return true;
	call_park(c, CALL_WAIT_SYNCED, n->id);
	return false;
}

/* c->off and c->len are the nodes. */
static bool is_over_locked(struct call *c, int *ret_error)
{
	const uint64_t nodes[] = {c->off, c->len};

	*ret_error = c->error;
	for (int i = 0; i < 2 && !*ret_error; i++) {
		struct node *n = nodes[i] ? tree_find_locked(c->m->tree, nodes[i]) : NULL;

		if (n && !n->local && !node_synced_locked(c, n, 1 << i, ret_error))
			return false;
	}
	return true;
}

static void synced_run(struct call *c)
{
	struct tree *t = c->m->tree;
	int error;

	tree_lock(t);
	if (!is_over_locked(c, &error)) {
		tree_unlock(t);
		return;
	}
	tree_unlock(t);
	/* the kernel takes what failed for not done, but here it is */
	if (error && c->name)
		forget_names(c);
	call_fail(c, error);
}

void reply_synced(struct call *c, uint64_t node, uint64_t other)
{
	c->op = synced_run;
	c->off = node;
	c->len = other;
	c->step = 0;
	c->error = 0;
	synced_run(c);
}
