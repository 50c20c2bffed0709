/* SPDX-License-Identifier: MIT */
/* Fills the store at start: --data and --generate (README.md). */
#ifndef EMULATOR_POPULATE_H
#define EMULATOR_POPULATE_H

#include "emulator.h"

/* Both print what is wrong to stderr and return false. */
bool populate_directory(struct emulator *emu, const char *directory);
bool populate_generated(struct emulator *emu, const char *what);

/* The collection of that name, made if the system has open ones; NULL: there is none. */
struct collection *populate_collection(struct emulator *emu, const char *name);
/* A record with the fields its system gives it. */
struct record *populate_record(struct emulator *emu, struct collection *c, const char *name,
			       int64_t now);
/*
 * An attachment of @r: name = filename = @name; takes the reference to @blob, copies @path. Where names
 * are unique it may be a new version of one that is there.
 */
struct attachment *populate_attachment(struct emulator *emu, struct record *r, const char *name,
				       const char *path, struct blob *blob, int64_t now);

/* Other bytes for @a; takes the reference to @blob, copies @path. */
void populate_replace(struct emulator *emu, struct attachment *a, const char *path,
		      struct blob *blob, int64_t now);

#endif
