/* SPDX-License-Identifier: MIT */
/*
 * A full disk, or a limit that is used up by what is open, pinned or unsent, stops nobody from
 * reading: what cannot be kept stays in memory for those who wait for it, the newest
 * CONTENT_PASSING_BYTES of each content, less when there is much of that. A reader gets a copy, made under the content's lock, since
 * the next bytes may push these out.
 */
#include "content_private.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MUCH_BYTES (64u << 20) /* of all contents together; each may have LEAST_BYTES even so */
#define LEAST_BYTES (1u << 20)

struct content_passed {
	struct content_passed *next;
	uint64_t off;
	size_t len;
	unsigned char data[];
};

static void drop_first(struct content_passing *p)
{
	struct content_passed *first = p->first;

	p->first = first->next;
	p->bytes -= first->len;
	atomic_fetch_sub(p->total, first->len);
	if (!p->first)
		p->last = &p->first;
	free(first);
}

void content_passing_clear(struct content_passing *p)
{
	while (p->first)
		drop_first(p);
}

int content_pass_locked(struct content *c, uint64_t off, const void *data, size_t len)
{
	struct content_passing *p = &c->live->passing;
	struct content_passed *fresh = malloc(sizeof(*fresh) + len);
	uint64_t most;

	if (!fresh)
		return -ENOMEM;
	*fresh = (struct content_passed){.off = off, .len = len};
	memcpy(fresh->data, data, len);
	p->total = &c->store->passing;
	most = atomic_fetch_add(p->total, len) > MUCH_BYTES ? LEAST_BYTES : CONTENT_PASSING_BYTES;
	while (p->first && p->bytes + len > most)
		drop_first(p);
	*(p->first ? p->last : &p->first) = fresh;
	p->last = &fresh->next;
	p->bytes += len;
	return 0;
}

static const struct content_passed *find(const struct content *c, uint64_t off)
{
	const struct content_passed *at = c->live->passing.first;

	while (at && (off < at->off || off - at->off >= at->len))
		at = at->next;
	return at;
}

uint64_t content_passing_at_locked(const struct content *c, uint64_t off)
{
	const struct content_passed *at = find(c, off);

	return at ? at->off + at->len - off : 0;
}

size_t content_copy_passing(struct content *c, uint64_t off, void *to, size_t len)
{
	size_t done = 0;

	content_lock(c);
	while (done < len) {
		const struct content_passed *at = find(c, off + done);
		size_t skip, n;

		if (!at)
			break;
		skip = (size_t)(off + done - at->off);
		n = at->len - skip < len - done ? at->len - skip : len - done;
		memcpy((char *)to + done, at->data + skip, n);
		done += n;
	}
	content_unlock(c);
	return done;
}
