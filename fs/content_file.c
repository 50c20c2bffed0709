/* SPDX-License-Identifier: MIT */
/*
 * System calls on the backing files. A content's file is objects/<low byte of its file
 * number>/<file number>, so that the directories stay small and fill evenly. All 256 of them are made,
 * and synced, before the first file is: so a file's name is on the disk when its directory is synced.
 */
#include "content_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block_hashes_xxh.h"

#define COPY_BUFFER_BYTES (256u * 1024)

void content_name(uint64_t file, char name[static CONTENT_NAME_BYTES])
{
	snprintf(name, CONTENT_NAME_BYTES, "%02x/%016llx", (unsigned)(file & 0xff),
		 (unsigned long long)file);
}

int content_make_dirs(struct content_store *s)
{
	char name[3];

	for (unsigned i = 0; i < 256; i++) {
		snprintf(name, sizeof name, "%02x", i);
		if (mkdirat(s->objects_fd, name, 0700) < 0 && errno != EEXIST)
			return -errno;
	}
	/* also when all were there: who made them may have been killed before this */
	return fsync(s->objects_fd) < 0 ? -errno : 0;
}

static int open_file(struct content_store *s, uint64_t file, bool create)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0);
	char name[CONTENT_NAME_BYTES];
	int fd;

	content_name(file, name);
	fd = openat(s->objects_fd, name, flags, 0600);
	if (fd < 0 && errno == ENOENT && create) {
		/* somebody has tidied up */
		int r = content_make_dirs(s);

		if (r < 0)
			return r;
		fd = openat(s->objects_fd, name, flags, 0600);
	}
	/* what is here can be read all the same; who writes to it is told by the kernel */
	if (fd < 0 && errno == EROFS && !create)
		fd = openat(s->objects_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int content_fd_locked(struct content *c, bool create)
{
	int fd = c->live->fd;

	if (fd < 0) {
		fd = open_file(c->store, c->file, create);
		if (!c->dirty && !c->complete && c->live->present.count > 0)
			content_reopened_locked(c, fd);
		if (fd >= 0)
			c->live->fd = fd;
	}
	return fd;
}

void content_make_file(struct content_store *s, uint64_t file)
{
	int fd = open_file(s, file, true);

	if (fd >= 0)
		close(fd);
}

int content_unlink(struct content_store *s, uint64_t file)
{
	char name[CONTENT_NAME_BYTES];

	content_name(file, name);
	return unlinkat(s->objects_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int content_sync_dir(struct content_store *s, uint64_t file)
{
	char name[CONTENT_NAME_BYTES];
	int fd, r;

	content_name(file, name);
	name[2] = '\0';
	fd = openat(s->objects_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

int content_sync_bytes(struct content_store *s, uint64_t file)
{
	char name[CONTENT_NAME_BYTES];
	int fd, r;

	content_name(file, name);
	fd = openat(s->objects_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) /* empty, or deleted since */
		return errno == ENOENT ? 0 : -errno;
	r = fdatasync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

int content_sync_file(struct content_store *s, uint64_t file)
{
	int r = content_sync_bytes(s, file);

	return r < 0 ? r : content_sync_dir(s, file);
}

int content_pwrite(int fd, const void *data, size_t len, uint64_t off)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = pwrite(fd, at, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Where the kernel cannot copy between the two. */
static int copy_by_hand(int from, int to, uint64_t off, uint64_t len)
{
	char *buffer = malloc(COPY_BUFFER_BYTES);
	int r = buffer ? 0 : -ENOMEM;

	while (len > 0 && r == 0) {
		size_t want = len < COPY_BUFFER_BYTES ? (size_t)len : COPY_BUFFER_BYTES;
		ssize_t n = pread(from, buffer, want, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		r = n > 0 ? content_pwrite(to, buffer, (size_t)n, off) : n < 0 ? -errno : -EIO;
		if (r < 0)
			break;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	free(buffer);
	return r;
}

int content_copy(int from, int to, uint64_t off, uint64_t len)
{
	while (len > 0) {
		off_t in = (off_t)off, out = (off_t)off;
		size_t want = len < 1u << 30 ? (size_t)len : 1u << 30;
		ssize_t n = copy_file_range(from, &in, to, &out, want, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == ENOSPC || errno == EIO || errno == EDQUOT || errno == EFBIG))
			return -errno;
		if (n <= 0)
			return copy_by_hand(from, to, off, len);
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int content_zero(int fd, uint64_t off, uint64_t len)
{
	static const char zeros[4096];
	int r = 0;

	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	while (len > 0 && r == 0) {
		size_t n = len < sizeof zeros ? (size_t)len : sizeof zeros;

		r = content_pwrite(fd, zeros, n, off);
		off += n;
		len -= n;
	}
	return r;
}

int content_read_block(int fd, unsigned char *buffer, size_t len, uint64_t off)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = pread(fd, buffer + got, len - got, (off_t)(off + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		got += (size_t)n;
	}
	return 0;
}

/*
 * Read what is not hashed yet: of @whole from @from on, of the blocks those that are 0. -EIO when the file is
 * shorter.
 */
static int hash_blocks(int fd, uint64_t size, XXH3_state_t *whole, uint64_t from, uint64_t *blocks)
{
	size_t room = size < CONTENT_BLOCK_BYTES ? (size_t)size : CONTENT_BLOCK_BYTES;
	unsigned char *buffer = NULL;
	int r = 0;

	for (uint64_t off = 0; off < size && r == 0; off += CONTENT_BLOCK_BYTES) {
		uint64_t *block = &blocks[off / CONTENT_BLOCK_BYTES];
		size_t n = size - off < room ? (size_t)(size - off) : room;

		if (*block && off + n <= from)
			continue;
		if (!buffer)
			buffer = malloc(room);
		r = buffer ? content_read_block(fd, buffer, n, off) : -ENOMEM;
		if (r < 0)
			break;
		if (off + n > from) {
			size_t skip = from > off ? (size_t)(from - off) : 0;

			XXH3_128bits_update(whole, buffer + skip, n - skip);
		}
		if (!*block)
			*block = block_hash(buffer, n);
	}
	free(buffer);
	return r;
}

int content_hash_rest(const struct content_store *s, int fd, uint64_t size,
		      const struct content_arrival *a, uint8_t hash[static LEDGER_HASH_BYTES],
		      uint64_t *blocks)
{
	XXH3_state_t *whole = XXH3_createState();
	XXH128_canonical_t canonical;
	uint64_t from;
	int r;

	if (!whole)
		return -ENOMEM;
	from = content_arrival_whole(a, whole);
	if (from > size)
		from = 0;
	if (from == 0)
		XXH3_128bits_reset_withSecret(whole, s->secret, sizeof s->secret);
	r = hash_blocks(fd, size, whole, from, blocks);
	if (r == 0) {
		XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(whole));
		memcpy(hash, canonical.digest, LEDGER_HASH_BYTES);
	}
	XXH3_freeState(whole);
	return r;
}

int content_hash_file(const struct content_store *s, int fd, uint64_t size,
		      uint8_t hash[static LEDGER_HASH_BYTES], uint64_t **ret_blocks,
		      size_t *ret_count)
{
	size_t count = (size_t)((size + CONTENT_BLOCK_BYTES - 1) / CONTENT_BLOCK_BYTES);
	uint64_t *blocks = calloc(count ? count : 1, sizeof *blocks);
	int r = blocks ? content_hash_rest(s, fd, size, NULL, hash, blocks) : -ENOMEM;

	if (r < 0) {
		free(blocks);
		return r;
	}
	*ret_blocks = blocks;
	*ret_count = count;
	return 0;
}
