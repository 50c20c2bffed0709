/* SPDX-License-Identifier: MIT */
/* SHA-256 and its HMAC, in hexadecimal. */
#ifndef EMULATOR_DIGEST_H
#define EMULATOR_DIGEST_H

#include <stddef.h>

#define DIGEST_HEX 65 /* 64 digits and a NUL */

struct digest;

struct digest *digest_new(void);
void digest_update(struct digest *d, const void *data, size_t len);
void digest_finish(struct digest *d, char hex[static DIGEST_HEX]); /* frees @d */

/* A keyed hash made once and used often: setting it up costs more than a short text. */
struct digest_key;

struct digest_key *digest_key_new(const char *key);
void digest_key_free(struct digest_key *key);
void digest_hmac(struct digest_key *key, const char *text, size_t len, char hex[static DIGEST_HEX]);

#endif
