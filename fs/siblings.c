/* SPDX-License-Identifier: MIT */

/* Which files a program is going to read: see siblings.h. */

#include "siblings.h"

#include <string.h>

/* Where it is among what is ahead; s->n = not there. */
static unsigned find_ahead(const struct siblings *s, uint64_t file)
{
	unsigned i = 0;

	while (i < s->n && s->ahead[i].file != file)
		i++;
	return i;
}

/*
 * Whether @file is the next one after @from that anybody would hear of. What was fetched for this very
 * program, and which it left out, is not as good as read.
 */
static bool comes_next(const struct siblings *s, const struct siblings_view *v,
		       enum siblings_order order, uint64_t from, uint64_t file)
{
	for (unsigned i = 0; i < SIBLINGS_STEPS; i++) {
		from = v->next(v->ctx, order, from);
		if (!from || from == file)
			return from != 0;
		if (v->cost(v->ctx, from) != SIBLINGS_NEEDLESS || find_ahead(s, from) < s->n)
			return false;
	}
	return false;
}

static void begin_anew(struct siblings *s)
{
	s->followed = false;
	for (int o = 0; o < SIBLINGS_ORDERS; o++)
		s->run[o] = 1;
}

/* ---- not followed yet ---- */

static void recognise(struct siblings *s, const struct siblings_view *v, uint64_t file)
{
	bool next = false;

	for (int o = 0; o < SIBLINGS_ORDERS; o++) {
		/* by name only where it is not as listed: that takes sorting */
		next = !next && comes_next(s, v, (enum siblings_order)o, s->last, file);
		s->run[o] = next ? s->run[o] + 1 : 1;
		if (s->run[o] < SIBLINGS_SEEN)
			continue;
		s->followed = true;
		s->order = (enum siblings_order)o;
		s->window = SIBLINGS_FIRST / 2;
		s->front = file;
		s->n = 0;
		s->bytes = 0;
	}
}

/* ---- followed ---- */

static void forget(struct siblings *s, unsigned i)
{
	s->bytes -= s->ahead[i].bytes;
	s->n--;
	memmove(&s->ahead[i], &s->ahead[i + 1], (s->n - i) * sizeof(s->ahead[0]));
}

/* @i of what is ahead is read. False: too many before it are not. */
static bool pass(struct siblings *s, unsigned i)
{
	if (i > SIBLINGS_STRAYS)
		return false;
	forget(s, i);
	while (i-- > 0)
		if (++s->ahead[i].passed >= SIBLINGS_PATIENCE)
			forget(s, i);
	return true;
}

/* Whether the program goes on as was thought. */
static bool goes_on(struct siblings *s, const struct siblings_view *v, uint64_t file)
{
	unsigned i = find_ahead(s, file);

	if (i < s->n)
		return pass(s, i);
	/* it is here, whoever brought it: that says nothing */
	if (v->cost(v->ctx, file) == SIBLINGS_NEEDLESS)
		return true;
	if (s->n || !comes_next(s, v, s->order, s->front, file))
		return false;
	s->front = file;
	return true;
}

static unsigned look_ahead(struct siblings *s, const struct siblings_view *v,
			   uint64_t ret_files[static SIBLINGS_FILES])
{
	uint64_t room = v->room < SIBLINGS_BYTES ? v->room : SIBLINGS_BYTES;
	unsigned count = 0;

	for (unsigned i = 0; i < SIBLINGS_STEPS && s->n < s->window; i++) {
		uint64_t file = v->next(v->ctx, s->order, s->front);
		int64_t cost = file ? v->cost(v->ctx, file) : SIBLINGS_UNSIZED;

		if (cost == SIBLINGS_UNSIZED || (cost >= 0 && s->bytes + (uint64_t)cost > room))
			break;
		s->front = file;
		if (cost < 0)
			continue;
		s->ahead[s->n].file = file;
		s->ahead[s->n].bytes = (uint64_t)cost;
		s->ahead[s->n++].passed = 0;
		s->bytes += (uint64_t)cost;
		ret_files[count++] = file;
	}
	return count;
}

unsigned siblings_read(struct siblings *s, const struct siblings_view *v, uint64_t file,
		       uint64_t ret_files[static SIBLINGS_FILES])
{
	if (file == s->last)
		return 0;
	if (!s->last || (s->followed && !goes_on(s, v, file)))
		begin_anew(s);
	else if (!s->followed)
		recognise(s, v, file);
	s->last = file;
	if (!s->followed)
		return 0;
	s->window = s->window * 2 < SIBLINGS_FILES ? s->window * 2 : SIBLINGS_FILES;
	return look_ahead(s, v, ret_files);
}
