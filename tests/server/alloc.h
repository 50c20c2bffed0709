/* SPDX-License-Identifier: MIT */
/*
 * Allocation for the emulator: a request that finds no memory ends the process.
 *
 * The emulator is a test instrument. A half-served answer after a failed malloc would look like a bug
 * of the client under test, so nobody here checks for NULL: these functions never return it.
 */
#ifndef EMULATOR_ALLOC_H
#define EMULATOR_ALLOC_H

#include <stddef.h>

void *xmalloc(size_t size);
void *xzalloc(size_t size);
void *xrealloc(void *ptr, size_t size);
char *xstrdup(const char *s);
char *xmemdup(const void *data, size_t len); /* adds a NUL behind the copy */
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
