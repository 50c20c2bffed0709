/* SPDX-License-Identifier: MIT */
#ifndef API_CHECK_H
#define API_CHECK_H

/*
 * remote_ops.check as a list of questions, asked one after the other: each makes a call and tells
 * what its answer means.
 */

#include <stdint.h>

#include <attachfs/remote.h>

#include "call.h"

struct check {
	struct remote *remote;
	remote_finding *each;
	remote_done *done;
	void *ctx;
	const struct check_step *step; /* the one under way */
};

struct check_step {
	/* NULL: there is nothing to ask, or no memory; the next step follows. */
	struct call *(*make)(struct remote *r);
	/* 0, or the error that ends the check: what follows would fail alike. */
	int (*judge)(struct check *c, const struct call_reply *reply);
};

/* @steps ends with a zeroed one and must last as long as the client. 0, -ENOMEM. */
int check_start(struct remote *r, const struct check_step *steps, remote_finding *each,
		remote_done *done, void *ctx);

void check_tell(struct check *c, enum remote_verdict verdict, const char *topic, const char *format,
		...) __attribute__((format(printf, 4, 5)));

/* What every answer tells: how far the clocks are apart, and the rate limit. */
void check_tell_clock(struct check *c, const struct call_reply *reply);
void check_tell_rate(struct check *c, const struct call_reply *reply);

/*
 * What the payload of a bearer token that is a JWT says of its user, tenant, scopes and end;
 * nothing for any other. The signature is the server's business.
 */
void check_tell_token(struct check *c);

#endif
