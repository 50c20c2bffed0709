/* SPDX-License-Identifier: MIT */

/* The door between a client and its engine: see call.h. */

#include "call.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct call_gate {
	pthread_rwlock_t lock; /* readers go through, the writer closes */
	bool closed;	       /* lock */
};

struct call_gate *call_gate_new(void)
{
	struct call_gate *gate = calloc(1, sizeof(*gate));

	if (gate)
		pthread_rwlock_init(&gate->lock, NULL);
	return gate;
}

void call_gate_close(struct call_gate *gate)
{
	if (!gate)
		return;
	pthread_rwlock_wrlock(&gate->lock);
	gate->closed = true;
	pthread_rwlock_unlock(&gate->lock);
}

void call_gate_free(struct call_gate *gate)
{
	if (!gate)
		return;
	pthread_rwlock_destroy(&gate->lock);
	free(gate);
}

int call_gate_start(struct remote *r, const struct transfer_spec *spec, uint64_t *ret_id)
{
	pthread_rwlock_rdlock(&r->gate->lock);
	int error = r->gate->closed ? -ECANCELED : transfer_start(r->engine, spec, ret_id);
	pthread_rwlock_unlock(&r->gate->lock);
	return error;
}

void call_gate_apply(struct remote *r, void (*what)(struct engine *engine, uint64_t id),
		     uint64_t id)
{
	pthread_rwlock_rdlock(&r->gate->lock);
	if (!r->gate->closed)
		what(r->engine, id);
	pthread_rwlock_unlock(&r->gate->lock);
}

void call_gate_set_class(struct remote *r, uint64_t id, enum transfer_class class)
{
	pthread_rwlock_rdlock(&r->gate->lock);
	if (!r->gate->closed)
		transfer_set_class(r->engine, id, class);
	pthread_rwlock_unlock(&r->gate->lock);
}

void call_gate_cancel_at(struct remote *r, const uint64_t *transfer)
{
	/* as the writer: nobody sends meanwhile, which is when the id is written (again, after a 401) */
	pthread_rwlock_wrlock(&r->gate->lock);
	if (!r->gate->closed && *transfer)
		transfer_cancel(r->engine, *transfer);
	pthread_rwlock_unlock(&r->gate->lock);
}
