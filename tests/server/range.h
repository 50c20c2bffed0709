/* SPDX-License-Identifier: MIT */
/* Serving a blob over HTTP: ranges and preconditions (RFC 9110, sections 13 and 14). */
#ifndef EMULATOR_RANGE_H
#define EMULATOR_RANGE_H

#include "http.h"

struct range_options {
	const char *etag;	  /* quoted; NULL: none */
	const char *content_type; /* of the bytes; NULL: none */
	int64_t modified_at;	  /* negative: not said */
	bool ignored; /* a server without ranges: 200 and everything */
};

/*
 * Takes the reference to @blob. Answers 200, 206, 304, or 412 and 416 with an empty body and no type,
 * which the caller fills. More than one range is answered with everything, as S3 does.
 */
void range_serve(struct request *rq, struct response *rs, struct blob *blob,
		 const struct range_options *options);

#endif
