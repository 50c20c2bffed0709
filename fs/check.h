/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_CHECK_H
#define ATTACHFS_FS_CHECK_H

#include <stddef.h>

/*
 * attachfs check [-o opt,...] SOURCE: tries the credentials and the collections without mounting or
 * writing. 0, 1 something failed, 2 usage.
 */
int check_run(int argc, char **argv);

struct options;
struct remote;

/* Which collections are asked for, ':'-separated ids; NULL: those the server lists. */
const char *check_collections(const struct remote *r, const struct options *o);
/* Whether the user has said enough to know them: 0, or -EINVAL with what to say in @message. */
int check_missing(const struct remote *r, const struct options *o, char *message, size_t size);

/*
 * One question before the first mount of a source, of which nothing is known here yet: a mount that
 * could show nothing helps nobody. 0; -EACCES, -EHOSTDOWN or -EPROTO with words and the remedy in
 * @message. A server that is only slow, or refuses something else, is no reason not to mount.
 * Blocks for CHECK_FIRST_MS at most.
 */
#define CHECK_FIRST_MS 5000
int check_first_mount(struct remote *r, const struct options *o, char *message, size_t size);

#endif
