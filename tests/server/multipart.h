/* SPDX-License-Identifier: MIT */
/*
 * A streaming reader of multipart/form-data (RFC 7578), as lenient and as odd as PHP's (P-15).
 *
 * Bytes are fed as they arrive; file parts go straight to a blob writer, so a body of any size costs
 * little memory. Written from the RFC and PHP's observed behaviour, never from what attachfs sends:
 * - a part with `filename` is a file, any other a field;
 * - in quoted parameters `\"` and `\\` are unescaped, `%22` is not, `filename*` is ignored;
 * - `filename` is cut up to its last `/` or `\`; blanks around it stay;
 * - an empty `filename` means that no file was chosen: the part counts as absent;
 * - a body that ends before its closing boundary keeps what was complete.
 *
 * With options it reads any multipart type as a MIME library does: a part is a file when its disposition
 * counts and it has a file name, whatever its field is called; anything else is skipped. Then only `"`
 * quotes, file names keep their directories, and a boundary among the headers ends the part. Sizes that
 * a part declares are never looked at (E-3).
 */
#ifndef EMULATOR_MULTIPART_H
#define EMULATOR_MULTIPART_H

#include "blob.h"
#include "text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct multipart_file {
	char *name; /* of the form field, as sent: "file", "resources[0][file]"; "" if it has none */
	struct str filename;
	struct blob *blob;
	char *type; /* the part's Content-Type, as sent; NULL: none */
};

struct multipart_options {
	bool attachments;	  /* parts of disposition `attachment` count */
	bool form_data;		  /* parts of disposition `form-data` count */
	bool blank_line_optional; /* the first line that is no header starts the body (E-5) */
};

struct multipart {
	json_t *fields;
	struct multipart_file *files;
	size_t n_files;
	struct multipart_state *state; /* private; NULL once ended */
};

/*
 * NULL if @content_type has no boundary or is not multipart/form-data, or with @options not multipart at
 * all. Options NULL: as PHP.
 */
struct multipart *multipart_new(const char *content_type, const char *spool,
				const struct multipart_options *options);
int multipart_feed(struct multipart *m, const char *data, size_t len);
void multipart_end(struct multipart *m);
void multipart_free(struct multipart *m); /* NULL is fine */

const struct multipart_file *multipart_file(const struct multipart *m, const char *name);

#endif
