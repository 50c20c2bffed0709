/* SPDX-License-Identifier: MIT */
/*
 * The request log: what clients asked of the api and blob ports since the last reset.
 *
 * An entry appears when the headers of a request are in, with status 0; status and sizes follow before
 * the first byte of the answer leaves, so a test that has its answer also finds the entry complete
 * (duration_ms may still grow). A request that a reset overtakes is no longer in the log.
 *
 * At most LOG_KEPT entries are kept, the oldest go first; the summary counts all. Thread-safe.
 */
#ifndef EMULATOR_REQLOG_H
#define EMULATOR_REQLOG_H

#include "buffer.h"
#include "faults.h"

#include <stdbool.h>
#include <stdint.h>

#define LOG_KEPT 200000

struct reqlog;
struct reqlog_entry;

struct reqlog *reqlog_new(void);
void reqlog_free(struct reqlog *log);

/* The entry is the request's until reqlog_end(). @range may be NULL. */
struct reqlog_entry *reqlog_begin(struct reqlog *log, enum port_kind port, const char *method,
				  const char *path, const char *query, const char *range,
				  bool authorization);
void reqlog_received(struct reqlog *log, struct reqlog_entry *entry, uint64_t bytes);
/* The whole body is here, and has so many files. */
void reqlog_files(struct reqlog *log, struct reqlog_entry *entry, size_t n);
void reqlog_answer(struct reqlog *log, struct reqlog_entry *entry, int status);
void reqlog_sent(struct reqlog *log, struct reqlog_entry *entry, uint64_t bytes);
void reqlog_end(struct reqlog *log, struct reqlog_entry *entry);

void reqlog_reset(struct reqlog *log);
void reqlog_write(struct reqlog *log, struct buffer *out);
void reqlog_write_summary(struct reqlog *log, struct buffer *out);

#endif
