/* SPDX-License-Identifier: MIT */
#ifndef BENCH_S3_H
#define BENCH_S3_H

/* What the two files of bench-s3 share. */

#include <microhttpd.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

#define S3_BUCKET "/bucket"

extern const char *s3_root; /* the bucket's directory */

/* An answer being written. */
struct s3_text {
	char *at;
	size_t len;
	FILE *file;
};

bool s3_text_open(struct s3_text *t);
/* With what was written to @t, which is closed. */
enum MHD_Result s3_send_text(struct MHD_Connection *c, unsigned status, struct s3_text *t);
/* From the URL; NULL: not there, or without a value. */
const char *s3_argument(struct MHD_Connection *c, const char *name);
void s3_etag(const struct stat *st, char *to, size_t size);

/* GET of the bucket: keys of one level, by prefix, from a key on, no more than max-keys. */
enum MHD_Result s3_list(struct MHD_Connection *c);

#endif
