/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_KNOWN_H
#define ATTACHFS_FS_KNOWN_H

/*
 * What the server is known to have of a node, in two forms. A struct known is for working with. In a
 * node, of which there may be a million, it lies packed: one block that begins with the remote id, in
 * which no text is said twice, and of which the beginnings of URLs and the media types that many have
 * in common are kept once for all. No locks: a block belongs to who made it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attachfs/ledger.h>
#include <attachfs/remote.h>

/*
 * All NULL and 0 when rid is NULL. A collection always has a rid: what the remote's ops call it; its
 * name is the server's, or the id where the server tells none. The texts are either its own, each
 * from malloc() (known_take(), known_clear()), or borrowed from a block that outlives it.
 */
struct known {
	char *rid;
	uint64_t record; /* node id of the directory it is in there */
	char *name;	 /* the server's own fields */
	char *filename;
	char *version;	      /* NULL: a replacement of ours may have arrived, or not */
	const char *url_head; /* what comes before `url_rest`; kept for ever; NULL = nothing */
	char *url_rest;
	char *media_type;
	int64_t size; /* -1 = not known */
	int64_t mtime_ns, ctime_ns;
	/*
	 * clock_mono_ms() when the server acknowledged these bytes, which are ours; of a directory:
	 * when it last told, because we wanted to be sure, what is in it. 0 = not in this mount.
	 */
	int64_t confirmed_ms;
	bool filler;
	bool has_hash; /* of the bytes of `version`: as content_hash() tells it */
	uint8_t hash[LEDGER_HASH_BYTES];
};

/* Free texts of its own, and make it one of nothing (rid NULL, size -1). */
void known_clear(struct known *k);
/* Takes over from @f (clearing it); @record is the node id of the record. */
void known_take(struct known *k, struct remote_file *f, uint64_t record);
/* @k tells of the same bytes as @from: the hash goes along. */
void known_copy_hash(struct known *k, const struct known *from);
/*
 * Whether the server's file name is the token of an upload, to be mended yet: of this node's last
 * one, or of an earlier one, by whatever node the identity was then.
 */
bool known_is_tokened(const struct known *k);
/* The whole URL, to be freed; NULL = none, or no memory. */
char *known_url(const struct known *k);
/*
 * What of it may be written down, to be freed. A link whose query is a signature opens the file to whoever
 * has it, so it is kept in memory only; what is left ends in its '?', and known_url() of that is NULL: the
 * client asks the server for another one.
 */
char *known_lasting_url(const struct known *k);
bool known_has_url(const struct known *k, const char *url);

/* A copy in a block, NULL where rid is. Ends the process without memory. */
char *known_pack(const struct known *k);
/* Its texts are the block's; of NULL: of nothing. */
void known_unpack(const char *block, struct known *ret_known);
/* NULL is fine. */
void known_free_block(char *block);
/* Where @text stands in the block as one of its names; NULL = nowhere. */
char *known_find_name(const char *block, const char *text);

#endif
