/* SPDX-License-Identifier: MIT */

/*
 * What is in a directory without being a file of it: .by-id (one symlink per remote id, found by
 * looking it up) and .record.json (the record's fields: record_json.c). Their inode numbers are made
 * of a node's, so there is nothing to keep or forget.
 */

#include "ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>
#include <attachfs/names.h>

#include "lister.h"

static void reply_virtual(struct call *c, uint64_t ino)
{
	struct mount *m = c->m;
	struct fuse_entry_param e = {.ino = ino};
	int r;

	tree_lock(m->tree);
	r = virtual_stat_locked(m, ino, &e.attr);
	tree_unlock(m->tree);
	if (r < 0)
		fuse_reply_err(c->req, -r);
	else
		fuse_reply_entry(c->req, &e);
	call_done(c);
}

bool virtual_lookup_locked(struct call *c, struct node *dir)
{
	uint64_t ino = 0;

	if (!strcmp(c->name, ".by-id"))
		ino = VIRTUAL_BY_ID | dir->id;
	else if (dir->kind == NODE_RECORD && !strcmp(c->name, ".record.json") &&
		 c->m->remote->ops->record_json)
		ino = VIRTUAL_JSON | dir->id;
	if (!ino)
		return false;
	tree_unlock(c->m->tree);
	reply_virtual(c, ino);
	return true;
}

/*
 * By its id in @dir: a collection in the root, a record in its collection, a file in its record.
 * NULL = no such. tree->lock held.
 */
static struct node *by_id_locked(struct tree *t, const struct node *dir, const char *id)
{
	struct node *n =
		dir->kind == NODE_ROOT
			? tree_find_collection_locked(t, id)
			: tree_by_rid_locked(t, dir->kind == NODE_COLLECTION ? dir->id : 0, id);

	return n && n->parent == dir ? n : NULL;
}

bool virtual_lookup_alias_locked(struct call *c, struct node *dir)
{
	struct tree *t = c->m->tree;
	struct node *n = NULL;

	if (dir->kind == NODE_ROOT || tree_is_unlisted(t, dir))
		n = by_id_locked(t, dir, c->name);
	if (!n)
		return false;
	tree_unlock(t);
	reply_virtual(c, VIRTUAL_ALIAS | n->id);
	return true;
}

void virtual_lookup_link(struct call *c)
{
	struct mount *m = c->m;
	uint64_t ino = 0;
	struct node *dir, *n;

	tree_lock(m->tree);
	dir = need_dir_locked(c, c->ino & ~VIRTUAL_MASK);
	if (!dir)
		return;
	n = by_id_locked(m->tree, dir, c->name);
	if (n)
		ino = VIRTUAL_LINK | n->id;
	tree_unlock(m->tree);
	if (ino)
		reply_virtual(c, ino);
	else
		call_fail(c, ENOENT);
}

int virtual_stat_locked(struct mount *m, uint64_t ino, struct stat *st)
{
	struct node *n = tree_find_locked(m->tree, ino & ~VIRTUAL_MASK);

	if (!n)
		return -ENOENT;
	node_stat_locked(m->tree, n, st);
	st->st_ino = ino;
	st->st_nlink = 1;
	st->st_uid = m->tree->uid;
	st->st_gid = m->tree->gid;
	if (ino & VIRTUAL_BY_ID) {
		st->st_mode = S_IFDIR | 0555;
		st->st_nlink = 2;
		st->st_size = 0;
	} else if (ino & (VIRTUAL_LINK | VIRTUAL_ALIAS)) {
		st->st_mode = S_IFLNK | 0777;
		st->st_size = (off_t)strlen(n->shown) + (ino & VIRTUAL_LINK ? 3 : 0);
	} else {
		json_stat_locked(m, n, st);
	}
	st->st_blocks = 0;
	return 0;
}

void virtual_readlink(fuse_req_t req, struct mount *m, uint64_t ino)
{
	char target[NAMES_MAX + 4] = "";
	const struct node *n;

	tree_lock(m->tree);
	n = ino & (VIRTUAL_LINK | VIRTUAL_ALIAS) ? tree_find_locked(m->tree, ino & ~VIRTUAL_MASK)
						 : NULL;
	if (n)
		snprintf(target, sizeof(target), "%s%s", ino & VIRTUAL_LINK ? "../" : "", n->shown);
	tree_unlock(m->tree);
	if (*target)
		fuse_reply_readlink(req, target);
	else
		fuse_reply_err(req, n ? EINVAL : ENOENT);
}
