/* SPDX-License-Identifier: MIT */
/*
 * Fault rules: how tests break the servers (README.md, POST /faults).
 *
 * The list is consulted once per request, when its headers are in; the first rule that fits strikes and
 * the request keeps a reference to it, so replacing the list leaves running requests alone. Not
 * thread-safe except for the reference counts: callers hold the emulator's lock.
 */
#ifndef EMULATOR_FAULTS_H
#define EMULATOR_FAULTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum port_kind {
	PORT_API,
	PORT_BLOB,
	PORT_CONTROL,
};

struct fault {
	json_t *rule; /* as it was given, with defaults: for GET /faults */
	_Atomic int refs;
	/* what it fits */
	bool ports[3];	    /* by enum port_kind */
	const char *method; /* NULL: any; this and all strings live in rule */
	const char *match, *unless;
	int64_t skip;
	int64_t count; /* strikes left to give in all; -1: for ever */
	int64_t struck;
	/* what it does; -1 or NULL: not this */
	int64_t latency_ms;
	int64_t status;
	const char *content_type;
	json_t *headers;
	int64_t cut_after;
	int64_t cut_upload_after;
	int64_t bytes_per_second;
	int64_t truncate_declared;
	int64_t append;	     /* bytes after the end; chunked, as they are not declared */
	int64_t shift_range; /* a 206 begins so many bytes later than asked for */
	bool chunked;	     /* no Content-Length */
	bool hang;
	bool reset;
	bool drop_reply;
	bool done; /* with a status: it is carried out all the same */
	bool ignore_range;
};

struct faults {
	struct fault **rules;
	size_t n;
	int64_t latency_ms; /* added to every request */
};

/* Replaces everything by {"rules": [...], "latency_ms": n}; false and *ret_error on a bad rule. */
bool faults_replace(struct faults *f, const json_t *wanted, char **ret_error);
json_t *faults_to_json(const struct faults *f);
void faults_clear(struct faults *f);

/* The rule that strikes, with a reference, or NULL. */
struct fault *faults_strike(struct faults *f, enum port_kind port, const char *method,
			    const char *path);
void fault_unref(struct fault *fault);

#endif
