/* SPDX-License-Identifier: MIT */
#include "blob.h"

#include "alloc.h"
#include "buffer.h"
#include "clock.h"
#include "digest.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB	       ((size_t)1 << 20)
#define HELD_IN_MEMORY MIB

enum blob_kind {
	BLOB_MEMORY,
	BLOB_SPOOLED,
	BLOB_FOREIGN,
	BLOB_GENERATED,
};

struct blob {
	atomic_int refs;
	enum blob_kind kind;
	uint64_t size;
	int64_t made_at;
	uint64_t seed; /* BLOB_GENERATED */
	char *data;    /* BLOB_MEMORY */
	char *path;    /* BLOB_SPOOLED, BLOB_FOREIGN */
	int fd;	       /* file_lock: opened at the first read, or -1 */
	atomic_bool hashed;
	char sha256[DIGEST_HEX]; /* hash_lock, until hashed is set */
};

struct blob_writer {
	char *spool;
	struct buffer held;
	struct digest *digest;
	uint64_t size;
	char *path;
	int fd;
};

static pthread_mutex_t file_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t hash_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t pattern_once = PTHREAD_ONCE_INIT;
static uint64_t pattern[MIB / 8];

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static void make_pattern(void)
{
	for (size_t i = 0; i < MIB / 8; i++)
		pattern[i] = mix(i * 0x2545f4914f6cdd1du + 1);
}

static struct blob *blob_new(enum blob_kind kind, uint64_t size)
{
	struct blob *b = xzalloc(sizeof(*b));

	atomic_init(&b->refs, 1);
	b->kind = kind;
	b->size = size;
	b->made_at = clock_now();
	b->fd = -1;
	return b;
}

struct blob *blob_new_memory(const void *data, size_t len)
{
	struct blob *b = blob_new(BLOB_MEMORY, len);

	b->data = xmemdup(data, len);
	return b;
}

struct blob *blob_new_generated(uint64_t seed, uint64_t size)
{
	struct blob *b = blob_new(BLOB_GENERATED, size);

	pthread_once(&pattern_once, make_pattern);
	b->seed = mix(seed);
	return b;
}

struct blob *blob_new_foreign(const char *path, uint64_t size)
{
	struct blob *b = blob_new(BLOB_FOREIGN, size);

	b->path = xstrdup(path);
	return b;
}

struct blob *blob_ref(struct blob *b)
{
	if (b)
		atomic_fetch_add(&b->refs, 1);
	return b;
}

void blob_unref(struct blob *b)
{
	if (!b || atomic_fetch_sub(&b->refs, 1) != 1)
		return;
	if (b->fd >= 0)
		close(b->fd);
	if (b->kind == BLOB_SPOOLED)
		unlink(b->path);
	free(b->path);
	free(b->data);
	free(b);
}

uint64_t blob_size(const struct blob *b)
{
	return b->size;
}

int64_t blob_made_at(const struct blob *b)
{
	return b->made_at;
}

void blob_set_made_at(struct blob *b, int64_t seconds)
{
	b->made_at = seconds;
}

/* The bytes of one word that [off, off + len) touches: for the ragged ends of a read. */
static size_t generate_part(uint64_t word, uint64_t off, char *out, size_t len)
{
	size_t skip = off % 8;
	size_t n = 8 - skip < len ? 8 - skip : len;

	memcpy(out, (const char *)&word + skip, n);
	return n;
}

static void generate(const struct blob *b, uint64_t off, char *out, size_t len)
{
	while (len) {
		uint64_t key = mix(b->seed + off / MIB);
		size_t word = off % MIB / 8;
		size_t n = 0;

		if (off % 8 || len < 8) {
			n = generate_part(pattern[word] ^ key, off, out, len);
		} else {
			size_t words = len / 8 < MIB / 8 - word ? len / 8 : MIB / 8 - word;

			for (size_t i = 0; i < words; i++) {
				uint64_t value = pattern[word + i] ^ key;

				memcpy(out + 8 * i, &value, 8);
			}
			n = words * 8;
		}
		off += n;
		out += n;
		len -= n;
	}
}

static int open_file(struct blob *b)
{
	int fd;

	pthread_mutex_lock(&file_lock);
	if (b->fd < 0)
		b->fd = open(b->path, O_RDONLY | O_CLOEXEC);
	fd = b->fd >= 0 ? b->fd : -errno;
	pthread_mutex_unlock(&file_lock);
	return fd;
}

static ssize_t read_file(struct blob *b, uint64_t off, void *buf, size_t len)
{
	int fd = open_file(b);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = pread(fd, buf, len, (off_t)off);
	return n < 0 ? -errno : n;
}

ssize_t blob_read(struct blob *b, uint64_t off, void *buf, size_t len)
{
	if (off >= b->size)
		return 0;
	if (len > b->size - off)
		len = (size_t)(b->size - off);
	switch (b->kind) {
	case BLOB_MEMORY:
		memcpy(buf, b->data + off, len);
		return (ssize_t)len;
	case BLOB_GENERATED:
		generate(b, off, buf, len);
		return (ssize_t)len;
	case BLOB_SPOOLED:
	case BLOB_FOREIGN:
		break;
	}
	return read_file(b, off, buf, len);
}

static void hash_whole(struct blob *b)
{
	struct digest *digest = digest_new();
	char *piece = xmalloc(MIB);
	uint64_t off = 0;
	ssize_t n;

	while ((n = blob_read(b, off, piece, MIB)) > 0) {
		digest_update(digest, piece, (size_t)n);
		off += (uint64_t)n;
	}
	free(piece);
	digest_finish(digest, b->sha256);
	atomic_store(&b->hashed, true);
}

const char *blob_sha256(struct blob *b)
{
	if (!atomic_load(&b->hashed)) {
		pthread_mutex_lock(&hash_lock);
		if (!atomic_load(&b->hashed))
			hash_whole(b);
		pthread_mutex_unlock(&hash_lock);
	}
	return b->sha256;
}

struct blob_writer *blob_writer_new(const char *spool)
{
	struct blob_writer *w = xzalloc(sizeof(*w));

	w->spool = xstrdup(spool);
	w->digest = digest_new();
	w->fd = -1;
	return w;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int spill(struct blob_writer *w)
{
	int r;

	w->path = xasprintf("%s/upload-XXXXXX", w->spool);
	w->fd = mkostemp(w->path, O_CLOEXEC);
	if (w->fd < 0) {
		r = -errno;
		free(w->path);
		w->path = NULL;
		return r;
	}
	r = write_all(w->fd, w->held.data, w->held.len);
	buffer_free(&w->held);
	return r;
}

int blob_writer_put(struct blob_writer *w, const void *data, size_t len)
{
	int r = 0;

	digest_update(w->digest, data, len);
	w->size += len;
	if (w->fd < 0 && w->size <= HELD_IN_MEMORY) {
		buffer_put(&w->held, data, len);
		return 0;
	}
	if (w->fd < 0)
		r = spill(w);
	return r < 0 ? r : write_all(w->fd, data, len);
}

struct blob *blob_writer_finish(struct blob_writer *w)
{
	struct blob *b = blob_new(w->fd < 0 ? BLOB_MEMORY : BLOB_SPOOLED, w->size);

	digest_finish(w->digest, b->sha256);
	atomic_store(&b->hashed, true);
	if (w->fd >= 0) {
		close(w->fd);
		b->path = w->path;
	} else {
		b->data = w->held.data ? w->held.data : xzalloc(1);
	}
	free(w->spool);
	free(w);
	return b;
}

void blob_writer_cancel(struct blob_writer *w)
{
	char unused[DIGEST_HEX];

	if (!w)
		return;
	digest_finish(w->digest, unused);
	if (w->fd >= 0) {
		close(w->fd);
		unlink(w->path);
	}
	free(w->path);
	buffer_free(&w->held);
	free(w->spool);
	free(w);
}
