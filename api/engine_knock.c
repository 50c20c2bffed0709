/* SPDX-License-Identifier: MIT */

/*
 * Whether a host that could not be reached can be by now: a connection is made, with TLS where that
 * is spoken, and closed again. Nothing is asked over it, so it costs none of the calls that a host
 * allows, and it needs nobody who wants something: a mount that nobody uses is online again when the
 * network is.
 *
 * It is a transfer like any other, of the last class, and retries for ever: while the breaker is
 * open it is the one that is let through when its pause is over (host_serve), and its failures are
 * the breaker's.
 */

#include "engine.h"

static void knock_done(void *ctx, const struct transfer_result *result)
{
	struct host *host = ctx;

	(void)result;
	host->knocking = false;
}

void knock_start(struct engine *engine, struct host *host)
{
	struct transfer_spec spec = {
		.class = TRANSFER_REFRESH,
		.method = "HEAD",
		.url = engine->config.origin,
		.idempotent = true,
		.retry_for_ever = true,
		.done_cb = knock_done,
		.ctx = host,
	};
	struct transfer *t;

	/* the others come and go with what is asked of them, and this holds on to its host */
	if (host != engine->origin_host || host->knocking)
		return;
	if (transfer_new(engine, &spec, &t) < 0)
		return; /* whoever asks next finds out */
	t->knock = host->knocking = true;
	if (engine_add(engine, t, NULL) < 0)
		host->knocking = false;
}
