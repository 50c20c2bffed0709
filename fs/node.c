/* SPDX-License-Identifier: MIT */

/* One node: its attributes, its names on both sides, its known half. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/names.h>

#include "replaced.h"
#include "small.h"
#include "tree.h"
#include "tree_private.h"

#define MODE_FILE 0644u
#define MODE_DIR  0755u

struct node *node_collection(struct node *n)
{
	while (n && n->kind != NODE_COLLECTION)
		n = n->parent;
	return n;
}

void node_known_shown(const struct tree *t, const struct known *k, char *out)
{
	char *label = names_label(k->name ? k->name : "", k->filename, t->filename_policy);
	const char *name = label ? label : k->name ? k->name : "";

	names_encode(name, strlen(name), k->rid ? k->rid : "0", out, NULL);
	free(label);
}

bool node_name_matches(const struct tree *t, const struct node *n)
{
	const struct known known = node_known(n), *k = &known;
	char base[NAMES_MAX + 1], other[NAMES_MAX + 1], server[3 * NAMES_MAX + 1];

	if (!k->rid || !k->name)
		return false;
	/* what was sent for this name, perhaps a spelling that shows differently elsewhere */
	names_to_server(n->shown, server);
	if (!strcmp(k->name, server) &&
	    (!k->filename || !strcmp(k->filename, server) || known_is_tokened(k)))
		return true;
	node_known_shown(t, k, base);
	if (!strcmp(n->shown, base))
		return true;
	names_disambiguate(base, k->rid, other);
	return !strcmp(n->shown, other);
}

/* ---- the known half ---- */

struct known node_known(const struct node *n)
{
	struct known k;

	known_unpack(n->known, &k);
	return k;
}

/* The name shown is mostly one of the server's: it is kept once. */
static void put_block(struct node *n, char *block)
{
	char *name = block && n->shown ? known_find_name(block, n->shown) : NULL;
	char *old = n->known;

	if (name && !n->shown_known)
		small_free_text(n->shown);
	if (name)
		n->shown = name;
	else if (n->shown_known)
		n->shown = small_must(small_text(n->shown));
	n->shown_known = name != NULL;
	n->known = block;
	known_free_block(old);
}

void node_edit_known(struct node *n, const struct known *k)
{
	put_block(n, known_pack(k));
}

void node_set_known_name(struct node *n, const char *name)
{
	struct known k = node_known(n);

	k.name = (char *)name;
	node_edit_known(n, &k);
}

void node_set_known_size(struct node *n, int64_t size)
{
	struct known k = node_known(n);

	k.size = size;
	node_edit_known(n, &k);
}

void node_set_confirmed(struct node *n, int64_t mono_ms)
{
	struct known k = node_known(n);

	k.confirmed_ms = mono_ms;
	node_edit_known(n, &k);
}

bool node_set_shown(struct node *n, const char *shown)
{
	char *name = n->known ? known_find_name(n->known, shown) : NULL;
	char *text = name ? name : small_text(shown);

	if (!text)
		return false;
	if (!n->shown_known)
		small_free_text(n->shown);
	n->shown = text;
	n->shown_known = name != NULL;
	return true;
}

static void known_set_hash(struct known *k, struct content *c)
{
	k->has_hash = c && content_hash(c, k->hash);
}

void node_set_hash(struct node *n, struct content *c)
{
	struct known k = node_known(n);

	known_set_hash(&k, c);
	node_edit_known(n, &k);
}

bool node_known_is_content(struct tree *t, const struct node *n, struct content *c)
{
	const struct known there = node_known(n), *k = &there;
	int64_t size = c ? content_size(c) : 0;
	uint8_t ours[LEDGER_HASH_BYTES], theirs[LEDGER_HASH_BYTES];
	char key[NODE_KEY_MAX];
	struct content *clean;
	bool known = false;

	if (!k->rid || k->filler || (k->size >= 0 && k->size != size))
		return false;
	/* what is not listed, and so without times, reads as empty before anybody has uploaded it */
	if (!size)
		return k->size == 0 &&
		       (k->mtime_ns != REMOTE_TIME_NONE || k->ctime_ns != REMOTE_TIME_NONE);
	if (!content_hash(c, ours))
		return false;
	if (k->has_hash)
		return !memcmp(ours, k->hash, sizeof(ours));
	clean = node_key(n, key) ? content_peek_key(t->store, key) : NULL;
	known = clean && content_size(clean) == size && content_hash(clean, theirs) &&
		!memcmp(ours, theirs, sizeof(ours));
	content_unref(clean);
	return known;
}

void node_borrow_file(const struct node *n, const char *record_rid, struct remote_file *ret_file)
{
	struct known k = node_known(n);

	*ret_file = (struct remote_file){
		.id = k.rid,
		.record = (char *)record_rid,
		.name = k.name,
		.raw_name = k.name,
		.raw_filename = k.filename,
		.version = k.version,
		.url = known_url(&k),
		.media_type = k.media_type,
		.size = k.size,
		.mtime_ns = k.mtime_ns,
		.ctime_ns = k.ctime_ns,
	};
}

void tree_set_known_locked(struct tree *t, struct node *n, struct known *k)
{
	if (n->known)
		tree_unhash_rid_locked(t, n);
	put_block(n, k ? known_pack(k) : NULL);
	if (k)
		known_clear(k);
	if (n->known)
		tree_hash_rid_locked(t, n);
}

void tree_swap_known_locked(struct tree *t, struct node *a, struct node *b)
{
	struct known of_a = node_known(a), of_b = node_known(b);
	char *for_a = known_pack(&of_b), *for_b = known_pack(&of_a);

	if (a->known)
		tree_unhash_rid_locked(t, a);
	if (b->known)
		tree_unhash_rid_locked(t, b);
	put_block(a, for_a);
	put_block(b, for_b);
	if (a->known)
		tree_hash_rid_locked(t, a);
	if (b->known)
		tree_hash_rid_locked(t, b);
}

bool node_set_flight(struct node *n, uint64_t number, const struct flight *f)
{
	char *text = NULL;

	if (asprintf(&text, "attachfs-%llx-%llx@%llx,%llx,%lld=%s", (unsigned long long)n->id,
		     (unsigned long long)number, (unsigned long long)f->record,
		     (unsigned long long)f->content, (long long)f->size,
		     f->name ? f->name : "") < 0)
		return false;
	free(n->more->token);
	node_more(n)->token = text;
	return true;
}

bool node_token(const struct node *n, char token[static 64])
{
	size_t len = n->more->token ? strcspn(n->more->token, "@") : 0;

	if (!len || len >= 64)
		return false;
	memcpy(token, n->more->token, len);
	token[len] = '\0';
	return true;
}

bool node_has_token(const struct node *n, const char *filename)
{
	char token[64];

	return filename && node_token(n, token) && !strcmp(token, filename);
}

void node_doubt_flight(struct node *n)
{
	struct flight f;
	char *text = NULL;

	node_get_flight(n, &f);
	if (!f.name || asprintf(&text, "%.*s@%llx,%llx,%lld=%s", (int)strcspn(n->more->token, "@"),
				n->more->token, (unsigned long long)f.record,
				(unsigned long long)FLIGHT_UNSURE, (long long)f.size, f.name) < 0)
		return;
	free(n->more->token);
	node_more(n)->token = text;
}

void node_get_flight(const struct node *n, struct flight *ret_flight)
{
	const char *at = n->more->token ? strchr(n->more->token, '@') : NULL;
	const char *name = at ? strchr(at, '=') : NULL;
	char *end;

	*ret_flight = (struct flight){.size = -1};
	if (!at)
		return;
	ret_flight->record = strtoull(at + 1, &end, 16);
	if (*end == ',') {
		ret_flight->content = strtoull(end + 1, &end, 16);
		ret_flight->size = *end == ',' ? strtoll(end + 1, NULL, 10) : -1;
	}
	ret_flight->name = name && name[1] ? name + 1 : NULL;
}

uint64_t node_flight_record(const struct node *n)
{
	struct flight f;

	node_get_flight(n, &f);
	return f.record;
}

const char *node_flight_name(const struct node *n)
{
	struct flight f;

	node_get_flight(n, &f);
	return f.name;
}

bool node_key(const struct node *n, char key[static NODE_KEY_MAX])
{
	const struct known known = node_known(n), *k = &known;

	if (!k->rid || !k->version)
		return false;
	return snprintf(key, NODE_KEY_MAX, "%s/%s", k->rid, k->version) < NODE_KEY_MAX;
}

struct content *node_content(struct tree *t, const struct node *n)
{
	char key[NODE_KEY_MAX];

	struct content *c = n->content ? content_get(t->store, n->content) : NULL;

	/* a clean one was perhaps evicted, and came again as another */
	if (c || n->dirty || node_known(n).filler || !node_key(n, key))
		return c;
	return content_peek_key(t->store, key);
}

void node_drop_content_locked(struct tree *t, struct node *n)
{
	struct content *c = node_content(t, n);

	n->content = 0;
	tree_put_locked(t, n); /* the row must stop naming it before it goes */
	if (c)
		content_drop(c);
	content_unref(c);
}

bool node_being_written(const struct node *n)
{
	return n->more->view && content_is_dirty(n->more->view) &&
	       !content_is_sealed(n->more->view);
}

int64_t node_size_locked(const struct node *n)
{
	return n->more->view && content_is_dirty(n->more->view) ? content_size(n->more->view)
								: n->size;
}

static struct timespec to_timespec(int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / CLOCK_NS_PER_S, .tv_nsec = ns % CLOCK_NS_PER_S};

	if (ts.tv_nsec < 0) {
		ts.tv_sec--;
		ts.tv_nsec += CLOCK_NS_PER_S;
	}
	return ts;
}

void node_stat_locked(const struct tree *t, const struct node *n, struct stat *st)
{
	int64_t size = is_replaced_untold_locked(n) ? n->more->told_size : node_size_locked(n);
	bool dir = n->kind != NODE_FILE;

	memset(st, 0, sizeof(*st));
	st->st_ino = n->id;
	st->st_mode = dir ? S_IFDIR | (n->more->mode ? n->more->mode : MODE_DIR & ~t->umask)
			  : S_IFREG | (n->more->mode ? n->more->mode : MODE_FILE & ~t->umask);
	/*
	 * a mode of 0 was set by somebody: told from "never set" by the bit above the permissions
	 */
	st->st_mode &= ~(mode_t)NODE_MODE_SET;
	st->st_nlink = n->gone ? 0 : dir ? 2 : 1;
	st->st_uid = node_uid(t, n);
	st->st_gid = node_gid(t, n);
	st->st_size = size < 0 ? 0 : size;
	st->st_blksize = 4096;
	st->st_blocks = st->st_size / 512 + (st->st_size % 512 != 0);
	st->st_atim = to_timespec(node_atime(n));
	st->st_mtim = to_timespec(n->mtime_ns);
	st->st_ctim = to_timespec(node_ctime(n));
}

/* ---- owner and times ---- */

uint32_t node_uid(const struct tree *t, const struct node *n)
{
	return n->owner_set ? n->more->uid : t->uid;
}

uint32_t node_gid(const struct tree *t, const struct node *n)
{
	return n->owner_set ? n->more->gid : t->gid;
}

void node_set_owner(struct node *n, uint32_t uid, uint32_t gid)
{
	n->owner_set = true;
	node_more(n)->uid = uid;
	node_more(n)->gid = gid;
}

int64_t node_atime(const struct node *n)
{
	return n->more->own_times ? n->more->atime_ns : n->mtime_ns;
}

int64_t node_ctime(const struct node *n)
{
	return n->more->own_times ? n->more->ctime_ns : n->mtime_ns;
}

void node_set_times(struct node *n, int64_t atime_ns, int64_t mtime_ns, int64_t ctime_ns)
{
	bool own = atime_ns != mtime_ns || ctime_ns != mtime_ns;

	n->mtime_ns = mtime_ns;
	if (!own && !n->more->own_times)
		return;
	node_more(n)->own_times = own;
	node_more(n)->atime_ns = own ? atime_ns : 0;
	node_more(n)->ctime_ns = own ? ctime_ns : 0;
	node_less(n);
}

void node_set_modified(struct node *n, int64_t now_ns)
{
	node_set_times(n, node_atime(n), now_ns, now_ns);
}

void node_set_changed(struct node *n, int64_t now_ns)
{
	node_set_times(n, node_atime(n), n->mtime_ns, now_ns);
}

/* ---- extended attributes ---- */

struct xattr *node_find_xattr(const struct node *n, const char *name)
{
	struct xattr *x = n->more->xattrs;

	while (x && strcmp(x->name, name))
		x = x->next;
	return x;
}

bool node_remove_xattr(struct node *n, const char *name)
{
	if (!n->more->xattrs)
		return false;
	for (struct xattr **slot = &node_more(n)->xattrs; *slot; slot = &(*slot)->next) {
		struct xattr *x = *slot;

		if (strcmp(x->name, name))
			continue;
		*slot = x->next;
		free(x->name);
		free(x);
		return true;
	}
	return false;
}

int node_set_xattr(struct node *n, const char *name, const void *value, size_t len)
{
	struct xattr *x = malloc(sizeof(*x) + len);

	if (!x)
		return -ENOMEM;
	x->name = strdup(name);
	if (!x->name) {
		free(x);
		return -ENOMEM;
	}
	x->len = len;
	memcpy(x->value, value, len);
	node_remove_xattr(n, name);
	x->next = n->more->xattrs;
	node_more(n)->xattrs = x;
	return 0;
}
