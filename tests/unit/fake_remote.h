/* SPDX-License-Identifier: MIT */
#ifndef TESTS_UNIT_FAKE_REMOTE_H
#define TESTS_UNIT_FAKE_REMOTE_H

/*
 * A server in memory behind remote.h, for what no real client shows yet: linked in place of the
 * clients, it answers at once, on the pool. Tests set its capabilities before they mount and look
 * into it with the functions below, each of which takes its lock. It fails the test's process when it
 * is asked for a collection it does not have.
 */

#include <stdbool.h>
#include <stddef.h>

#include <attachfs/remote.h>

#define FAKE_SET "5f0e6a52-0000-4000-8000-0000000000" /* and two digits */

/* Empty, online, with these; @ops may be changed before a mount. */
void fake_reset(void);
extern struct remote_caps fake_caps;
extern struct remote_ops fake_ops;

/* Network errors for every call: 0 = none. */
void fake_set_error(int error);

void fake_add_collection(const char *id, const char *name);
void fake_rename_collection(const char *id, const char *name);
void fake_drop_collection(const char *id);
void fake_add_record(const char *collection, const char *id, const char *name);
void fake_drop_record(const char *id);
/* Returns its id, valid until the next call. */
const char *fake_add_file(const char *record, const char *name, const char *text);

/* The text of the file of that name, "" = none. Valid until the next call. */
const char *fake_text(const char *record, const char *name);
size_t fake_count(const char *record);
/* How often an op was called, by its name. */
unsigned fake_calls(const char *op);
/* The fields last sent for a record. */
const char *fake_fields(const char *record);

#endif
