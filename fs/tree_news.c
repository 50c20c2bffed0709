/* SPDX-License-Identifier: MIT */

/* What other clients did, as it is told to a person: .attachfs/events. */

#include <stdio.h>

#include "events.h"
#include "tree.h"
#include "tree_private.h"

void node_path(struct tree *t, const struct node *n, char out[static NODE_PATH_MAX])
{
	const struct node *dir = n->parent ? n->parent : tree_find_locked(t, node_known(n).record);

	if (dir && dir->parent && tree_is_flat(t, dir->parent))
		snprintf(out, NODE_PATH_MAX, "%s/%s", dir->parent->shown, n->shown);
	else if (dir && dir->parent && dir->parent != t->root)
		snprintf(out, NODE_PATH_MAX, "%s/%s/%s", dir->parent->shown, dir->shown, n->shown);
	else if (dir && dir != t->root)
		snprintf(out, NODE_PATH_MAX, "%s/%s", dir->shown, n->shown);
	else
		snprintf(out, NODE_PATH_MAX, "%s", n->shown);
}

void tree_news_locked(struct tree *t, const char *event, const struct node *n, const char *detail)
{
	char path[NODE_PATH_MAX];

	node_path(t, n, path);
	events_add(t->events, event, path, detail);
}
