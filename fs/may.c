/* SPDX-License-Identifier: MIT */

/*
 * What a server could not do is refused when a program asks for it, not when it is sent: the remote
 * says so by collection and name (remote_ops.may). What is not on the server and stays on this
 * machine (local_names=) is nobody else's business.
 */

#include "ops.h"

#include <attachfs/names.h>

static const char *id_of(struct node *dir)
{
	const struct node *top = node_collection(dir);

	return top ? node_collection_id(top) : NULL;
}

/* @name: the server's spelling. */
static int ask(const struct mount *m, enum remote_deed deed, struct node *dir, struct node *to,
	       const char *name)
{
	const struct remote *r = m->remote;
	const char *collection = id_of(dir), *to_collection = to ? id_of(to) : NULL;

	if (!r->ops->may || !collection)
		return 0;
	return r->ops->may(r, deed, collection, to_collection, name);
}

static int ask_shown(const struct mount *m, enum remote_deed deed, struct node *dir,
		     struct node *to, const char *shown)
{
	char server[3 * NAMES_MAX + 1];

	names_to_server(shown, server);
	return ask(m, deed, dir, to, server);
}

/* The server has it, or may have it in a moment. */
static bool is_there(const struct node *n)
{
	return node_rid(n) || n->busy || n->unknown;
}

int may_create_locked(const struct mount *m, struct node *dir, const char *shown)
{
	if (names_is_local(m->options->local_names, shown))
		return 0;
	return ask_shown(m, REMOTE_CREATES, dir, NULL, shown);
}

int may_change_record_locked(const struct mount *m, struct node *record)
{
	return record->parent ? ask(m, REMOTE_CHANGES_RECORD, record->parent, NULL, NULL) : 0;
}

int may_write_locked(const struct mount *m, struct node *n)
{
	if (n->gone || n->local || !n->parent || !is_there(n))
		return 0;
	return ask_shown(m, REMOTE_REPLACES, n->parent, NULL, n->shown);
}

int may_remove_locked(const struct mount *m, struct node *n)
{
	struct node *dir = tree_find_locked(m->tree, node_known(n).record);
	const char *flight = node_flight_name(n);

	if (!is_there(n))
		return 0;
	if (node_rid(n) && dir)
		return ask(m, REMOTE_REMOVES, dir, NULL, node_known(n).name);
	if (flight)
		return ask(m, REMOTE_REMOVES, n->parent, NULL, flight);
	return ask_shown(m, REMOTE_REMOVES, n->parent, NULL, n->shown);
}

int may_rename_locked(const struct mount *m, struct node *n, struct node *dir, struct node *target,
		      const char *shown)
{
	const struct remote_caps *caps = &m->remote->caps;
	bool in_place = caps->rename_in_place && (dir == n->parent || caps->move_in_place);
	int r = 0;

	if (!is_there(n) && names_is_local(m->options->local_names, shown))
		return target ? may_remove_locked(m, target) : 0;
	if (is_there(n)) {
		r = ask_shown(m, REMOTE_RENAMES, n->parent, dir, shown);
		if (!r && !in_place)
			r = may_remove_locked(m, n);
	}
	if (r)
		return r;
	if (target && is_there(target))
		return ask_shown(m, REMOTE_REPLACES, dir, NULL, shown);
	return is_there(n) ? 0 : ask_shown(m, REMOTE_CREATES, dir, NULL, shown);
}
