/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_SMALL_H
#define ATTACHFS_FS_SMALL_H

/*
 * Memory for what there are a million of and what lives long: nodes and their names. malloc() would
 * put them between the pieces of the answer they are made from, which then cannot go back to the
 * system, and adds 8 to 24 bytes to each. Here equal sizes lie in chunks of their own, without a
 * header; what is freed serves the next of its size. Any thread.
 */

#include <stddef.h>

/* Not cleared; at least as aligned as malloc()'s. NULL without memory. */
void *small_alloc(size_t size);
/* @p, unless it is NULL: then the end of the process. */
void *small_must(void *p);
/* @size as it was allocated. NULL is fine. */
void small_free(void *p, size_t size);

/* A copy of a text, to be freed by small_free_text(); NULL without memory. */
char *small_text(const char *text);
void small_free_text(char *text);

#endif
