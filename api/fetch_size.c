/* SPDX-License-Identifier: MIT */

/*
 * The size of a file's content (P-4): the first byte is fetched, and its Content-Range tells the
 * total.
 */

#include "fetch.h"

#include <errno.h>
#include <stdlib.h>

#include <attachfs/log.h>
#include <attachfs/pool.h>

struct size_probe {
	struct remote *remote;
	remote_size_done *done;
	void *ctx;
	int64_t size;
	uint64_t received;
	int error;
};

static bool on_begin(void *ctx, int64_t total, uint64_t offset)
{
	struct size_probe *probe = ctx;

	(void)offset;
	probe->size = total;
	return true;
}

static bool on_byte(void *ctx, const void *data, size_t len)
{
	struct size_probe *probe = ctx;

	(void)data;
	probe->received += len;
	return probe->received <= 1; /* a server without Range sends all of it */
}

static void conclude(void *ctx)
{
	struct size_probe *probe = ctx;

	probe->done(probe->ctx, probe->error, probe->error == 0 ? probe->size : -1);
	free(probe);
}

static void on_done(void *ctx, int error)
{
	struct size_probe *probe = ctx;

	if (error == -ECANCELED && probe->received > 1)
		error = 0;
	probe->error = error;
	if (error == 0 && probe->size < 0)
		probe->error = log_errno(-EIO, "the storage does not tell sizes");
	if (pool_run(probe->remote->pool, conclude, probe) < 0)
		conclude(probe);
}

int fetch_probe_size(struct remote *r, enum transfer_class class, const struct remote_file *file,
		     const char *collection, int64_t deadline_mono_ms, remote_size_done *done,
		     void *ctx)
{
	struct size_probe *probe = malloc(sizeof(*probe));
	uint64_t id;

	if (!probe)
		return -ENOMEM;
	*probe = (struct size_probe){.remote = r, .done = done, .ctx = ctx, .size = -1};
	struct remote_fetch_sink sink = {on_begin, on_byte, on_done, probe};
	int error = r->ops->fetch(r, class, file, collection, 0, 1, deadline_mono_ms, &sink, &id);
	if (error < 0)
		free(probe);
	return error;
}
