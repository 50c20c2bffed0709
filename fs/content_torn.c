/* SPDX-License-Identifier: MIT */
/*
 * At the start after a power failure: dirty contents whose bytes did not arrive on the disk are torn, and
 * what their nodes had before is wanted in their place.
 */
#include "content_load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* After a power failure: whether the bytes are those of the hash. */
static bool hash_matches(const struct loaded *row)
{
	const struct content *c = row->content;
	char name[CONTENT_NAME_BYTES];
	uint8_t hash[LEDGER_HASH_BYTES];
	uint64_t *blocks = NULL;
	size_t count;
	int fd, r;

	if (!c->complete || !c->has_hash)
		return false;
	content_name(c->file, name);
	fd = openat(c->store->objects_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && c->size > 0)
		return false;
	r = content_hash_file(c->store, fd, (uint64_t)c->size, hash, &blocks, &count);
	free(blocks);
	if (fd >= 0)
		close(fd);
	return r == 0 && memcmp(hash, c->hash, sizeof hash) == 0;
}

/*
 * After a power failure: which dirty contents have arrived on the disk, bases first, and for those
 * that have not, what is wanted in their place.
 */
void content_load_find_torn(struct load *load)
{
	for (size_t i = 0; i < load->count; i++) {
		struct loaded *row = &load->rows[i];
		const struct content *c = row->content;
		const struct loaded *base = row->base ? content_load_row(load, row->base) : NULL;

		if (!c || !c->dirty)
			continue;
		row->torn = row->suspect && !(c->size == 0 && c->complete) && !hash_matches(row);
		row->torn |= base && base->torn;
	}
}

void content_load_want_before(struct load *load, const struct loaded *torn)
{
	struct loaded *before = torn->before ? content_load_row(load, torn->before) : NULL;

	if (before && before < torn && before->content && before->content->dirty)
		before->dropped = before->content->dropped = false;
}

/* What is left of each that was wanted and is torn. */
int content_load_tell_torn(struct load *load)
{
	struct content_store *s = load->store;

	for (size_t i = 0; i < load->count; i++) {
		const struct loaded *row = &load->rows[i], *before = row;
		struct content_torn *torn;

		if (!row->torn || (row->dropped && !row->needed))
			continue;
		while (before && before->torn)
			before = before->before ? content_load_row(load, before->before) : NULL;
		if (content_load_room((void **)&s->torn, &s->torn_room, s->torn_count,
				      sizeof *s->torn) < 0)
			return -ENOMEM;
		torn = &s->torn[s->torn_count++];
		*torn = (struct content_torn){
			.id = row->id, .file = row->file, .has_file = row->file_size >= 0};
		if (before && before->content && before->content->dirty) {
			torn->instead = before->id;
			content_mark_store_locked(before->content);
		}
	}
	return 0;
}
