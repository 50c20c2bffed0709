/* SPDX-License-Identifier: MIT */

/* One node: its attributes, its names on both sides, its known half. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/names.h>

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
	const struct known *k = &n->known;
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

/* ---- the strings of a known half ---- */

#define KNOWN_TEXTS 6

static void texts_of(const struct known *k, char *texts[KNOWN_TEXTS])
{
	/* rid first, where a packed block begins; what others may be the end of before them */
	memcpy(texts,
	       (char *[KNOWN_TEXTS]){k->rid, k->url, k->version, k->filename, k->name,
				     k->media_type},
	       KNOWN_TEXTS * sizeof(*texts));
}

static void set_texts(struct known *k, char *texts[KNOWN_TEXTS])
{
	k->rid = texts[0];
	k->url = texts[1];
	k->version = texts[2];
	k->filename = texts[3];
	k->name = texts[4];
	k->media_type = texts[5];
}

/* Where @text stands among the first @n already, as one of them or its end; NULL = nowhere. */
static char *find_text(char *const *texts, size_t n, const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < n; i++) {
		size_t have = texts[i] ? strlen(texts[i]) : 0;

		if (texts[i] && have >= len && !strcmp(texts[i] + have - len, text))
			return texts[i] + have - len;
	}
	return NULL;
}

/*
 * There are as many of these as files on the server, and their strings say the same again and again:
 * two names, and a URL that ends in the version.
 */
bool known_copy_text(struct known *k, const struct known *from)
{
	char *texts[KNOWN_TEXTS] = {0}, *to;
	size_t size = 0;

	if (from->rid)
		texts_of(from, texts);
	for (size_t i = 0; i < KNOWN_TEXTS; i++)
		if (texts[i] && !find_text(texts, i, texts[i]))
			size += strlen(texts[i]) + 1;
	to = size ? small_alloc(size) : NULL;
	if (size && !to)
		return false;
	for (size_t i = 0; i < KNOWN_TEXTS; i++) {
		char *there = texts[i] ? find_text(texts, i, texts[i]) : NULL;

		if (!texts[i])
			continue;
		if (there) {
			texts[i] = there;
			continue;
		}
		memcpy(to, texts[i], strlen(texts[i]) + 1);
		texts[i] = to;
		to += strlen(to) + 1;
	}
	set_texts(k, texts);
	k->packed = k->rid != NULL;
	return true;
}

static void free_texts(const struct known *k)
{
	char *texts[KNOWN_TEXTS];
	size_t size = 0;

	texts_of(k, texts);
	for (size_t i = 0; i < KNOWN_TEXTS; i++) {
		size_t end = texts[i] && k->packed
				     ? (size_t)(texts[i] - texts[0]) + strlen(texts[i]) + 1
				     : 0;

		size = end > size ? end : size;
		if (!k->packed)
			free(texts[i]);
	}
	if (k->packed)
		small_free(texts[0], size);
}

void known_clear(struct known *k)
{
	free_texts(k);
	*k = (struct known){.size = -1};
}

bool known_set_text(struct known *k, char **slot, const char *value)
{
	struct known old = *k;

	if (!k->packed)
		return node_set_string(slot, value);
	*slot = (char *)value;
	if (!known_copy_text(k, k)) {
		*k = old;
		return false;
	}
	free_texts(&old);
	return true;
}

/* Without memory they stay as they are: larger, not wrong. */
static void pack_texts(struct known *k)
{
	struct known old = *k;

	if (k->rid && !k->packed && known_copy_text(k, &old))
		free_texts(&old);
}

void known_take(struct known *k, struct remote_file *f, uint64_t record)
{
	*k = (struct known){
		.rid = f->id,
		.record = record,
		.name = f->raw_name ? f->raw_name : f->name,
		.filename = f->raw_filename,
		.version = f->version,
		.url = f->url,
		.media_type = f->media_type,
		.size = f->size,
		.mtime_ns = f->mtime_ns,
		.ctime_ns = f->ctime_ns,
	};
	if (f->raw_name)
		free(f->name);
	free(f->record);
	memset(f, 0, sizeof(*f));
}

void known_copy_hash(struct known *k, const struct known *from)
{
	k->has_hash = from->has_hash;
	memcpy(k->hash, from->hash, sizeof(k->hash));
}

void known_set_hash(struct known *k, struct content *c)
{
	k->has_hash = c && content_hash(c, k->hash);
}

bool node_known_is_content(struct tree *t, const struct node *n, struct content *c)
{
	const struct known *k = &n->known;
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

/*
 * A link whose query is a signature opens the file to whoever has it, so it is kept in memory only. What the
 * ledger has of it ends in the '?', and is no link: the client asks for another one.
 */
bool known_url_is_signed(const char *url)
{
	const char *query = url ? strchr(url, '?') : NULL;

	return query && (strcasestr(query, "signature=") || strcasestr(query, "sig=") ||
			 strcasestr(query, "token="));
}

char *known_bare_url(const char *url)
{
	return strndup(url, strcspn(url, "?") + 1);
}

static bool is_bare(const char *url)
{
	return url && *url && url[strlen(url) - 1] == '?';
}

void known_borrow(const struct node *n, const char *record_rid, struct remote_file *ret_file)
{
	const struct known *k = &n->known;

	*ret_file = (struct remote_file){
		.id = k->rid,
		.record = (char *)record_rid,
		.name = k->name,
		.raw_name = k->name,
		.raw_filename = k->filename,
		.version = k->version,
		.url = is_bare(k->url) ? NULL : k->url,
		.media_type = k->media_type,
		.size = k->size,
		.mtime_ns = k->mtime_ns,
		.ctime_ns = k->ctime_ns,
	};
}

void tree_set_known_locked(struct tree *t, struct node *n, struct known *k)
{
	if (n->known.rid)
		tree_unhash_rid_locked(t, n);
	known_clear(&n->known);
	if (k) {
		n->known = *k;
		memset(k, 0, sizeof(*k));
		pack_texts(&n->known);
	}
	if (n->known.rid)
		tree_hash_rid_locked(t, n);
}

void tree_swap_known_locked(struct tree *t, struct node *a, struct node *b)
{
	struct known k = a->known;

	if (a->known.rid)
		tree_unhash_rid_locked(t, a);
	if (b->known.rid)
		tree_unhash_rid_locked(t, b);
	a->known = b->known;
	b->known = k;
	if (a->known.rid)
		tree_hash_rid_locked(t, a);
	if (b->known.rid)
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

bool known_is_tokened(const struct known *k)
{
	const char *f = k->filename;
	size_t first, second;

	if (!f || strncmp(f, "attachfs-", 9) || (k->name && !strcmp(k->name, f)))
		return false;
	first = strspn(f + 9, "0123456789abcdef");
	if (!first || f[9 + first] != '-')
		return false;
	second = strspn(f + 10 + first, "0123456789abcdef");
	return second && !f[10 + first + second];
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
	const struct known *k = &n->known;

	if (!k->rid || !k->version)
		return false;
	return snprintf(key, NODE_KEY_MAX, "%s/%s", k->rid, k->version) < NODE_KEY_MAX;
}

struct content *node_content(struct tree *t, const struct node *n)
{
	char key[NODE_KEY_MAX];

	struct content *c = n->content ? content_get(t->store, n->content) : NULL;

	/* a clean one was perhaps evicted, and came again as another */
	if (c || n->dirty || n->known.filler || !node_key(n, key))
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
	int64_t size = node_size_locked(n);
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
	st->st_uid = n->uid;
	st->st_gid = n->gid;
	st->st_size = size < 0 ? 0 : size;
	st->st_blksize = 4096;
	st->st_blocks = st->st_size / 512 + (st->st_size % 512 != 0);
	st->st_atim = to_timespec(n->atime_ns);
	st->st_mtim = to_timespec(n->mtime_ns);
	st->st_ctim = to_timespec(n->ctime_ns);
}

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
