/* SPDX-License-Identifier: MIT */

/*
 * What went wrong, as one of the few errors that a caller tells apart, and in words for the person
 * at the other end. curl's own words are good where they are specific; where a person must act (a
 * certificate, a name, a port) they are replaced by words that say on what.
 */

#include "engine.h"

#include <attachfs/log.h>

#include <errno.h>
#include <string.h>

/* A broken connection during the handshake says nothing about certificates. */
static bool handshake_broke(const struct transfer *t)
{
	const char *words = t->wire->error;

	return strstr(words, "SSL_ERROR_SYSCALL") || strstr(words, "reset by peer") ||
	       strstr(words, "unexpected eof") || strstr(words, "onnection closed") ||
	       strstr(words, "non-properly terminated");
}

/* Which of our own callbacks ended it, if one did. */
static int own_error(const struct transfer *t)
{
	if (atomic_load(&t->wish_cancel))
		return -ECANCELED;
	if (t->refused || t->bad_file)
		return -EIO;
	if (t->too_large || t->head_too_large)
		return -EPROTO;
	if (t->resent)
		return -ECONNRESET;
	return 0;
}

int error_from_curl(const struct transfer *t, CURLcode code)
{
	int r = code == CURLE_OK ? 0 : own_error(t);

	if (r < 0)
		return r;
	switch (code) {
	case CURLE_OK:
		return t->answered || t->knock ? 0 : -EPROTO;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
	case CURLE_PROXY:
	/* who cannot prove to be the server is not the server: nothing was sent to it */
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_CACERT_BADFILE:
		return -EHOSTDOWN;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_PARTIAL_FILE:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
	case CURLE_SEND_FAIL_REWIND:
		return -ECONNRESET;
	case CURLE_OUT_OF_MEMORY:
	case CURLE_WRITE_ERROR: /* none of our refusals: keep_line() */
		return -ENOMEM;
	default:
		return -EPROTO;
	}
}

static const char *tls_words(const char *words)
{
	static const struct {
		const char *sign, *meaning;
	} table[] = {
		{"has expired", "TLS: the server's certificate has expired"},
		{"not yet valid", "TLS: the server's certificate is not valid yet; "
				  "is the clock of this computer right?"},
		{"alternative certificate subject", "TLS: the certificate is for another host"},
		{"does not match target host", "TLS: the certificate is for another host"},
		{"Hostname mismatch", "TLS: the certificate is for another host"},
		{"self-signed", "TLS: the certificate is signed by an unknown authority; "
				"see the option cacert="},
		{"self signed", "TLS: the certificate is signed by an unknown authority; "
				"see the option cacert="},
		{"local issuer", "TLS: the certificate is signed by an unknown authority; "
				 "see the option cacert="},
		{"revoked", "TLS: the server's certificate was revoked"},
		{"wrong version number", "TLS: the server does not speak TLS on this port"},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strstr(words, table[i].sign))
			return table[i].meaning;
	return NULL;
}

static const char *fixed_words(const struct transfer *t, CURLcode code)
{
	if (t->refused)
		return "the answer was refused";
	if (t->bad_file)
		return "the file to send cannot be read, or became shorter";
	if (t->too_large)
		return "the answer is larger than it may be";
	if (t->head_too_large)
		return "the head of the answer is larger than it may be";
	if (t->resent)
		return "the connection broke after the request was sent";
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return "the host's name is not known (DNS)";
	case CURLE_COULDNT_RESOLVE_PROXY:
		return "the proxy's name is not known (DNS)";
	case CURLE_OPERATION_TIMEDOUT:
		return "no connection within the time allowed";
	case CURLE_GOT_NOTHING:
		return "the server closed the connection without an answer";
	case CURLE_PARTIAL_FILE:
		return "the connection broke in the middle of the answer";
	case CURLE_SSL_CACERT_BADFILE:
		return "TLS: the file given by cacert= cannot be read";
	case CURLE_UNSUPPORTED_PROTOCOL:
		return "the protocol is not allowed, or the answer is not HTTP";
	case CURLE_OUT_OF_MEMORY:
		return "out of memory";
	default:
		return NULL;
	}
}

static bool is_tls(CURLcode code)
{
	return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR ||
	       code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_CIPHER ||
	       code == CURLE_SSL_ISSUER_ERROR || code == CURLE_SSL_INVALIDCERTSTATUS;
}

static const char *connect_words(const struct transfer *t)
{
	long os_error = 0;

	curl_easy_getinfo(t->wire->easy, CURLINFO_OS_ERRNO, &os_error);
	switch (os_error) {
	case ECONNREFUSED:
		return "connection refused: nothing listens at this host and port";
	case ENETUNREACH:
		return "the network cannot be reached";
	case EHOSTUNREACH:
		return "the host cannot be reached";
	default:
		return NULL;
	}
}

void error_words(const struct transfer *t, CURLcode code, char *ret_words, size_t size)
{
	const char *raw = *t->wire->error ? t->wire->error : curl_easy_strerror(code);
	const char *words = fixed_words(t, code);
	char line[CURL_ERROR_SIZE + 16];

	if (!words && code == CURLE_COULDNT_CONNECT)
		words = connect_words(t);
	if (!words && is_tls(code))
		words = tls_words(raw);
	if (!words && is_tls(code) && handshake_broke(t))
		words = "TLS: the server closed the connection while it was being set up";
	if (!words && is_tls(code)) {
		snprintf(line, sizeof(line), "TLS: %s", raw);
		words = line;
	}
	log_redact(words ? words : raw, ret_words, size);
}

const char *status_words(int status)
{
	static const struct {
		int status;
		const char *words;
	} table[] = {
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{402, "Payment Required"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{410, "Gone"},
		{413, "Content Too Large"},
		{415, "Unsupported Media Type"},
		{416, "Range Not Satisfiable"},
		{422, "Unprocessable Content"},
		{423, "Locked"},
		{425, "Too Early"},
		{429, "Too Many Requests"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].status == status)
			return table[i].words;
	return "";
}
