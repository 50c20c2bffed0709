/* SPDX-License-Identifier: MIT */
/* GnuTLS does the work: libmicrohttpd brings it along, and it uses the CPU's SHA instructions. */
#include "digest.h"

#include "alloc.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

struct digest {
	gnutls_hash_hd_t hash;
};

struct digest_key {
	gnutls_hmac_hd_t hmac;
};

static void put_hex(const unsigned char *raw, char *hex)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < 32; i++) {
		hex[2 * i] = digits[raw[i] >> 4];
		hex[2 * i + 1] = digits[raw[i] & 15];
	}
	hex[64] = '\0';
}

struct digest *digest_new(void)
{
	struct digest *d = xzalloc(sizeof(*d));

	if (gnutls_hash_init(&d->hash, GNUTLS_DIG_SHA256) < 0)
		abort();
	return d;
}

void digest_update(struct digest *d, const void *data, size_t len)
{
	gnutls_hash(d->hash, data, len);
}

void digest_finish(struct digest *d, char hex[static DIGEST_HEX])
{
	unsigned char raw[32];

	gnutls_hash_deinit(d->hash, raw);
	put_hex(raw, hex);
	free(d);
}

struct digest_key *digest_key_new(const char *key)
{
	struct digest_key *k = xzalloc(sizeof(*k));

	if (gnutls_hmac_init(&k->hmac, GNUTLS_MAC_SHA256, key, strlen(key)) < 0)
		abort();
	return k;
}

void digest_key_free(struct digest_key *key)
{
	gnutls_hmac_deinit(key->hmac, NULL);
	free(key);
}

void digest_hmac(struct digest_key *key, const char *text, size_t len, char hex[static DIGEST_HEX])
{
	unsigned char raw[32];

	gnutls_hmac(key->hmac, text, len);
	gnutls_hmac_output(key->hmac, raw); /* and starts afresh */
	put_hex(raw, hex);
}
