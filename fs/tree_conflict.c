/* SPDX-License-Identifier: MIT */

/*
 * Where the server's word and the user's cannot both be taken: what is the user's goes on as a new
 * file, under a conflict name where the server's needs the plain one. And where another client has
 * replaced a file on a server that cannot: its new identity is the same file.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>
#include <attachfs/names.h>

#include "notifier.h"
#include "tree.h"
#include "tree_private.h"

/*
 * From a look at what is on the server to what is sent after it (a small upload, somebody else's
 * settle time), and what two clocks may be off.
 */
#define UNSEEN_MS 5000

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

/* A free name in @dir for what is kept of @shown; NAMES_MAX + 1 bytes. */
static void conflict_name(struct tree *t, const struct node *dir, const char *shown, char *out)
{
	char host[64] = "here", base[NAMES_MAX + 1];

	gethostname(host, sizeof(host) - 1);
	names_conflict(shown, host, (long long)time(NULL), base);
	strcpy(out, base);
	for (unsigned i = 2; tree_child_locked(t, dir, out) && i < 1000; i++) {
		char number[16];

		snprintf(number, sizeof(number), "%u", i);
		names_disambiguate(base, number, out);
	}
}

/* Ours gets a conflict name. 0, -ENOMEM. */
static int rename_ours(struct tree *t, struct node *n)
{
	char ours[NAMES_MAX + 1];
	struct node *dir = n->parent;

	conflict_name(t, dir, n->shown, ours);
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

/* What a node shows, as a content of its own that is to be uploaded; 0 = empty. -ENODATA, -ENOMEM. */
static int copy_content(struct tree *t, const struct node *n, uint64_t *ret_content)
{
	struct content *clean = node_content(t, n), *own;

	*ret_content = 0;
	if (!clean)
		return n->size > 0 ? -ENODATA : 0;
	own = content_is_local(clean)
		      ? content_new_dirty(t->store, clean, (uint64_t)content_size(clean))
		      : NULL;
	content_unref(clean);
	if (!own)
		return -ENODATA;
	content_seal(own);
	*ret_content = content_id(own);
	content_unref(own);
	return 0;
}

/* The time of what our own clock says @mono_ms ago; of the machine's real clock. */
static int64_t real_at(int64_t mono_ms)
{
	return clock_real_ns() - (clock_mono_ms() - mono_ms) * 1000000;
}

/*
 * Theirs is too early for them to have seen ours: they looked before ours had arrived, and sent
 * theirs after it. Where the server tells no time, what is found out soon is taken for that.
 */
static bool was_unseen(const struct node *n, const struct known *k)
{
	if (!node_known(n).confirmed_ms)
		return false;
	if (k->mtime_ns == REMOTE_TIME_NONE)
		return clock_mono_ms() - node_known(n).confirmed_ms <= UNSEEN_MS;
	return k->mtime_ns <= real_at(node_known(n).confirmed_ms) + (int64_t)UNSEEN_MS * 1000000;
}

void tree_keep_overwritten_locked(struct tree *t, struct node *n, const struct known *k)
{
	char ours[NAMES_MAX + 1];
	struct node *kept = NULL;
	uint64_t content;
	int r;

	if (!n->parent || n->size <= 0 || !was_unseen(n, k))
		return;
	conflict_name(t, n->parent, n->shown, ours);
	ledger_group_begin(t->ledger);
	r = copy_content(t, n, &content);
	if (!r)
		kept = tree_new_node_locked(t, NODE_FILE, n->parent, ours);
	if (kept) {
		kept->content = content;
		kept->size = n->size;
		node_more(kept)->mode = n->more->mode;
		node_set_times(kept, n->mtime_ns, n->mtime_ns, n->mtime_ns);
		kept->dirty = kept->in_ledger = true;
		tree_changed_locked(t, kept);
		notifier_entry(t->notifier, n->parent->id, ours);
	}
	ledger_group_end(t->ledger);
	node_set_confirmed(n, 0);
	if (kept)
		log_warning("conflict: '%s' was saved on the server twice at once: ours is kept as "
			    "'%s'",
			    n->shown, ours);
	else
		log_warning("conflict: '%s' was saved on the server twice at once, and ours is "
			    "overwritten: %s",
			    n->shown, strerror(r ? -r : ENOMEM));
}

void tree_step_aside_locked(struct tree *t, struct node *dir, const struct known *k)
{
	char base[NAMES_MAX + 1];
	struct node *n;

	node_known_shown(t, k, base);
	n = tree_child_locked(t, dir, base);
	if (!n || n->kind != NODE_FILE || n->local || !n->in_ledger ||
	    (node_rid(n) && node_known(n).record == dir->id && node_name_matches(t, n)))
		return;
	if (rename_ours(t, n) == 0)
		tree_changed_locked(t, n);
}

/* ---- replaced by another client where contents are immutable ---- */

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

/*
 * The file that has come to the place where @n was: others upload the new one first, and remove the
 * old one afterwards. A listing in between showed both.
 */
static struct node *find_successor(struct tree *t, uint64_t mark, const struct node *n)
{
	struct known known = node_known(n), other;
	struct node *dir = tree_find_locked(t, known.record);
	struct node *s = n->more->namesake ? tree_find_locked(t, n->more->namesake) : NULL;
	char base[NAMES_MAX + 1];

	/* renamed here: whatever came to its old place has the plain name */
	if (!s && dir && !node_name_matches(t, n)) {
		node_known_shown(t, &known, base);
		s = tree_child_locked(t, dir, base);
	}
	if (!s || s == n || s->gone || !s->parent || !s->known || s->seen_seq < mark ||
	    s->in_sync_list || node_is_changed_here(s))
		return NULL;
	other = node_known(s);
	return other.record == known.record && same_text(other.name, known.name) &&
			       same_text(other.filename, known.filename)
		       ? s
		       : NULL;
}

/* Changed here too: ours is a new file, and theirs takes the plain name. */
static void part_from_successor(struct tree *t, struct node *n, struct node *theirs)
{
	struct known known = node_known(theirs);
	struct node *dir = theirs->parent;
	char base[NAMES_MAX + 1];

	node_known_shown(t, &known, base);
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
	int64_t old_mtime_ns = node_known(n).mtime_ns;
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
	tree_news_locked(t, "changed", n, NULL);
	tree_follow_mtime_locked(t, n, old_mtime_ns);
	tree_changed_locked(t, n);
	tree_vanish_locked(t, s);
	ledger_group_end(t->ledger);
	return true;
}
