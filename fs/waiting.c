/* SPDX-License-Identifier: MIT */

#include <attachfs/waiting.h>

#include <stdatomic.h>
#include <stddef.h>

#include <attachfs/log.h>

static _Thread_local const char *forbidden;
static _Atomic uint64_t count;

void waiting_forbid(const char *who)
{
	forbidden = who;
}

void waiting_begin(const char *what)
{
	if (!forbidden)
		return;
	atomic_fetch_add(&count, 1);
	log_error("waiting: %s waits for the network: %s", forbidden, what);
}

uint64_t waiting_forbidden_count(void)
{
	return atomic_load(&count);
}
