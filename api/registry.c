/* SPDX-License-Identifier: MIT */

/* The systems there are clients for: one line each. */

#include <errno.h>
#include <stdio.h>

#include <attachfs/remote.h>

#include "auth.h"
#include "call.h"
#include "enterprise_tester.h"
#include "fetch.h"
#include "perscom.h"
#include "servicemax.h"
#include "rillsoft.h"

typedef int client_new(const struct options *options, struct engine *engine, struct pool *pool,
		       struct remote **ret_remote, char *message, size_t size);

static const struct {
	enum options_system system;
	client_new *create;
} clients[] = {
	{OPTIONS_SYSTEM_PERSCOM, perscom_new},
	{OPTIONS_SYSTEM_SERVICEMAX, servicemax_new},
	{OPTIONS_SYSTEM_ENTERPRISE_TESTER, enterprise_tester_new},
	{OPTIONS_SYSTEM_RILLSOFT, rillsoft_new},
};

int remote_new(const struct options *options, struct engine *engine, struct pool *pool,
	       struct remote **ret_remote, char *message, size_t size)
{
	for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++)
		if (clients[i].system == options->system)
			return clients[i].create(options, engine, pool, ret_remote, message, size);
	snprintf(message, size, "attachfs has no client for this system");
	return -EINVAL;
}

void remote_shutdown(struct remote *r)
{
	auth_stop(r->auth);
	call_gate_close(r->gate);
}

void remote_free(struct remote *r)
{
	if (!r)
		return;
	remote_shutdown(r);
	struct auth *auth = r->auth;
	struct call_gate *gate = r->gate;
	struct fetches *fetches = r->fetches;
	r->ops->free(r);
	auth_free(auth);
	call_gate_free(gate);
	fetches_free(fetches);
}
