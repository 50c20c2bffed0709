/* SPDX-License-Identifier: MIT */

/*
 * Where the server's word and the user's cannot both be taken: what is the user's goes on as a new
 * file, under a conflict name where the server's needs the plain one. And where another client has
 * replaced a file on a server that cannot: its new identity is the same file.
 */

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/log.h>
#include <attachfs/names.h>

#include "notifier.h"
#include "tree.h"
#include "tree_private.h"

void tree_part_locked(struct tree *t, struct node *n)
{
	tree_set_known_locked(t, n, NULL);
	n->flight = LEDGER_FLIGHT_NONE;
	n->error = 0;
	if (n->dirty) {
		tree_changed_locked(t, n);
		return;
	}
	ledger_drop_node(t->ledger, n->id);
	n->in_ledger = false;
	n->content = 0;
	tree_settle_locked(t, n);
}

bool node_is_changed_here(const struct node *n)
{
	return n->dirty || node_being_written(n);
}

/* Ours gets a conflict name. 0, -ENOMEM. */
static int rename_ours(struct tree *t, struct node *n)
{
	char host[64] = "here", ours[NAMES_MAX + 1], base[NAMES_MAX + 1];
	struct node *dir = n->parent;

	gethostname(host, sizeof(host) - 1);
	names_conflict(n->shown, host, (long long)time(NULL), ours);
	for (unsigned i = 2; tree_child_locked(t, dir, ours) && i < 1000; i++) {
		char number[16];

		snprintf(number, sizeof(number), "%u", i);
		names_conflict(n->shown, host, (long long)time(NULL), base);
		names_disambiguate(base, number, ours);
	}
	log_warning("conflict: '%s' was changed here and on the server: ours is kept as '%s'",
		    n->shown, ours);
	notifier_entry(t->notifier, dir->id, n->shown);
	notifier_entry(t->notifier, dir->id, ours);
	return tree_move_locked(t, n, dir, ours);
}

/*
 * The server's bytes are others now, and the user has changed them too: both are kept. Ours goes on
 * as a new file, under a conflict name unless the user has moved it away; a new node takes the
 * server's.
 */
int tree_part_conflict_locked(struct tree *t, uint64_t mark, struct node *dir, struct node *n,
			      struct known *k)
{
	char base[NAMES_MAX + 1];
	int r = 0;

	node_known_shown(t, k, base);
	if (n->parent == dir && (node_name_matches(t, n) || !strcmp(n->shown, base)))
		r = rename_ours(t, n);
	else
		log_warning(
			"conflict: '%s' was changed here, and on the server: ours is a new file",
			n->shown);
	tree_part_locked(t, n);
	return r < 0 ? r : tree_new_file_locked(t, mark, dir, k);
}

void tree_step_aside_locked(struct tree *t, struct node *dir, const struct known *k)
{
	char base[NAMES_MAX + 1];
	struct node *n;

	node_known_shown(t, k, base);
	n = tree_child_locked(t, dir, base);
	if (!n || n->kind != NODE_FILE || n->local || !n->in_ledger ||
	    (n->known.rid && n->known.record == dir->id && node_name_matches(t, n)))
		return;
	if (rename_ours(t, n) == 0)
		tree_changed_locked(t, n);
}

/* ---- replaced by another client where contents are immutable ---- */

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

/* A file that the listing showed for the first time, at the place where @n was. */
static struct node *find_successor(struct tree *t, uint64_t mark, const struct node *n)
{
	struct node *dir = tree_find_locked(t, n->known.record);

	if (!dir || dir->born_seq != mark)
		return NULL;
	for (struct node *s = dir->child_last; s; s = s->sibling_prev)
		if (s != n && s->born_seq == mark && s->known.rid && s->known.record == dir->id &&
		    !s->in_sync_list && !node_is_changed_here(s) &&
		    same_text(s->known.name, n->known.name) &&
		    same_text(s->known.filename, n->known.filename))
			return s;
	return NULL;
}

/* Changed here too: ours is a new file, and theirs takes the plain name. */
static void part_from_successor(struct tree *t, struct node *n, struct node *theirs)
{
	struct node *dir = theirs->parent;
	char base[NAMES_MAX + 1];

	node_known_shown(t, &theirs->known, base);
	if (n->parent == dir && !strcmp(n->shown, base) && rename_ours(t, n) < 0)
		return;
	tree_part_locked(t, n);
	if (tree_child_locked(t, dir, base))
		return;
	notifier_entry(t->notifier, dir->id, theirs->shown);
	tree_move_locked(t, theirs, dir, base);
	tree_put_locked(t, theirs);
}

bool tree_follow_successor_locked(struct tree *t, uint64_t mark, struct node *n)
{
	int64_t old_mtime_ns = n->known.mtime_ns;
	struct node *s;

	if (t->caps->replace_keeps_id || t->caps->names_unique)
		return false;
	s = find_successor(t, mark, n);
	if (!s)
		return false;
	if (node_is_changed_here(n)) {
		part_from_successor(t, n, s);
		return true;
	}
	log_debug("tree: '%s' was replaced on the server", n->shown);
	ledger_group_begin(t->ledger);
	node_drop_content_locked(t, n);
	tree_swap_known_locked(t, n, s);
	n->seen_seq = mark;
	tree_follow_content_locked(t, n);
	tree_follow_mtime_locked(t, n, old_mtime_ns);
	tree_changed_locked(t, n);
	tree_vanish_locked(t, s);
	ledger_group_end(t->ledger);
	return true;
}
