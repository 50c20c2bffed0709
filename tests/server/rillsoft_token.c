/* SPDX-License-Identifier: MIT */
/* JSON Web Tokens (RFC 7519), signed with HS256 and a key nobody else has. */
#include "rillsoft.h"

#include "alloc.h"
#include "clock.h"
#include "digest.h"

#include <stdlib.h>
#include <string.h>

/* Base64url without padding. */
static void put_base64(struct buffer *out, const unsigned char *data, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		unsigned int bits = (unsigned int)data[i] << 16;

		if (n > 1)
			bits |= (unsigned int)data[i + 1] << 8;
		if (n > 2)
			bits |= data[i + 2];
		for (size_t k = 0; k <= n; k++)
			buffer_putc(out, digits[bits >> (18 - 6 * k) & 63]);
	}
}

static void put_claims(struct ris_call *c, struct buffer *out, int64_t expires_at)
{
	struct buffer claims = {0};

	/* `jti` keeps two tokens of one second apart. */
	buffer_puts(&claims, "{\"sub\":\"7\"");
	ris_put_number(&claims, "iat", clock_now());
	ris_put_number(&claims, "jti", ++c->ris->logins);
	if (expires_at && ris_setting(c, RIS_SET_TOKEN_FORM) == RIS_TOKEN_EXP)
		ris_put_number(&claims, "exp", expires_at);
	buffer_putc(&claims, '}');
	put_base64(out, (const unsigned char *)claims.data, claims.len);
	buffer_free(&claims);
}

static unsigned char hex_byte(const char *hex)
{
	char pair[3] = {hex[0], hex[1], '\0'};

	return (unsigned char)strtoul(pair, NULL, 16);
}

static void put_signature(struct ris_call *c, struct buffer *out)
{
	char hex[DIGEST_HEX];
	unsigned char raw[32];

	digest_hmac(c->ris->signer, out->data, out->len, hex);
	for (size_t i = 0; i < sizeof(raw); i++)
		raw[i] = hex_byte(hex + 2 * i);
	buffer_putc(out, '.');
	put_base64(out, raw, sizeof(raw));
}

char *ris_token_new(struct ris_call *c, int64_t expires_at)
{
	static const char header[] = "{\"alg\":\"HS256\"}";
	struct buffer token = {0};

	if (ris_setting(c, RIS_SET_TOKEN_FORM) == RIS_TOKEN_OPAQUE)
		return store_new_path("");
	put_base64(&token, (const unsigned char *)header, strlen(header));
	buffer_putc(&token, '.');
	put_claims(c, &token, expires_at);
	put_signature(c, &token);
	return token.data;
}
