/* SPDX-License-Identifier: MIT */
/*
 * Opening a damaged ledger. The input is a list of patches (offset of 3 bytes, length of 1, bytes)
 * to a good database with some rows of each kind; a first byte of 0xff means that the rest is the
 * file itself. Whatever it has become: no crash, where it opens every reader ends, and setting it aside
 * leaves it in lost+found, with what of the contents can be named.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/ledger.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64], path[96];
static unsigned char *good;
static size_t good_bytes;

static void delete_in(const char *folder)
{
	char name[512];
	DIR *d;

	snprintf(name, sizeof name, "%s/%s", dir, folder);
	d = opendir(name);
	for (const struct dirent *e; d && (e = readdir(d));)
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

static void delete_all(void)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", "-lock", "-journal"};
	char name[128];

	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
		unlink(name);
	}
	delete_in("lost+found");
}

/* The files that the rows speak of, of the sizes they say. */
static void make_objects(void)
{
	char name[128];

	for (unsigned i = 1; i < 40; i++) {
		int fd;

		snprintf(name, sizeof name, "%s/objects/%02x", dir, i);
		mkdir(name, 0700);
		snprintf(name, sizeof name, "%s/objects/%02x/%016x", dir, i, i);
		fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		if (fd < 0 || write(fd, name, 3 * i % sizeof name) < 0)
			abort();
		close(fd);
	}
}

static void leave(void)
{
	static const char *const folders[] = {"lost+found", "objects"};
	char name[128];

	delete_all();
	for (unsigned i = 1; i < 40; i++) {
		snprintf(name, sizeof name, "objects/%02x", i);
		delete_in(name);
		snprintf(name, sizeof name, "%s/objects/%02x", dir, i);
		rmdir(name);
	}
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		snprintf(name, sizeof name, "%s/%s", dir, folders[i]);
		rmdir(name);
	}
	rmdir(dir);
	free(good);
}

static void fill(struct ledger *l)
{
	for (uint64_t i = 1; i < 40; i++) {
		uint64_t ranges[] = {0, i, 2 * i, 3 * i}, hashes[] = {i, i};
		struct ledger_node n = {.id = i,
					.kind = LEDGER_FILE,
					.parent = 1,
					.shown = "name",
					.rid = "7",
					.message = "words",
					.content = i,
					.dirty = i % 2 == 0,
					.size = (int64_t)(3 * i),
					.listed_ns = INT64_MIN};
		struct ledger_content c = {.id = i,
					   .kind = i % 2 ? LEDGER_CONTENT_CLEAN
							 : LEDGER_CONTENT_DIRTY,
					   .key = i % 2 ? "7/1" : NULL,
					   .base = i % 2 ? 0 : i - 1,
					   .base_len = i % 2 ? 0 : 3 * (i - 1),
					   .size = (int64_t)(3 * i),
					   .ranges = ranges,
					   .ranges_len = sizeof ranges,
					   .has_hash = true,
					   .block_hashes = hashes,
					   .block_hashes_len = sizeof hashes};

		ledger_put_node(l, &n);
		ledger_put_content(l, &c);
		ledger_put_xattr(l, i, "user.a", "value", 5);
	}
	ledger_put_value(l, "k", "value", 5);
}

static void make_good(void)
{
	struct ledger *l = NULL;
	char objects[80];
	FILE *f;

	snprintf(dir, sizeof dir, "/dev/shm/attachfs-fuzz-XXXXXX");
	if (!mkdtemp(dir))
		abort();
	snprintf(path, sizeof path, "%s/ledger.db", dir);
	snprintf(objects, sizeof objects, "%s/objects", dir);
	mkdir(objects, 0700);
	atexit(leave);
	if (ledger_open(path, &l, NULL, 0) < 0)
		abort();
	fill(l);
	ledger_close(l);
	f = fopen(path, "rb");
	good = malloc(1 << 20);
	if (!f || !good)
		abort();
	good_bytes = fread(good, 1, 1 << 20, f);
	fclose(f);
}

static void patch(unsigned char *file, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i + 4 <= size;) {
		size_t at = (size_t)(data[i] | data[i + 1] << 8 | data[i + 2] << 16) % good_bytes;
		size_t n = data[i + 3];

		i += 4;
		n = n > size - i ? size - i : n;
		n = n > good_bytes - at ? good_bytes - at : n;
		memcpy(file + at, data + i, n);
		i += n;
	}
}

static int see_node(void *ctx, const struct ledger_node *n)
{
	*(size_t *)ctx += (n->shown ? strlen(n->shown) : 0) + (n->rid ? strlen(n->rid) : 0);
	return 0;
}

static int see_content(void *ctx, const struct ledger_content *c)
{
	const unsigned char *ranges = c->ranges;

	if (c->ranges_len > 0)
		*(size_t *)ctx += ranges[c->ranges_len - 1];
	return 0;
}

static int see_xattr(void *ctx, uint64_t node, const char *name, const void *value, size_t len)
{
	(void)node;
	*(size_t *)ctx += strlen(name) + (len ? *(const unsigned char *)value : 0);
	return 0;
}

static void use(struct ledger *l)
{
	struct ledger_node n = {.id = 500, .kind = LEDGER_FILE};
	char message[128];
	size_t sum = 0;

	ledger_each_node(l, see_node, &sum);
	ledger_each_content(l, see_content, &sum);
	ledger_each_xattr(l, see_xattr, &sum);
	free(ledger_get_value(l, "k", &sum));
	ledger_check(l, message, sizeof message);
	ledger_put_node(l, &n);
	ledger_drop_node(l, 3);
	ledger_commit(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ledger *l = NULL;
	char message[256];
	FILE *f;

	if (!good)
		make_good();
	delete_all();
	f = fopen(path, "wb");
	if (!f)
		abort();
	if (size > 0 && data[0] == 0xff) {
		fwrite(data + 1, 1, size - 1, f);
	} else {
		unsigned char *file = malloc(good_bytes);

		if (!file)
			abort();
		memcpy(file, good, good_bytes);
		patch(file, data, size);
		fwrite(file, 1, good_bytes, f);
		free(file);
	}
	fclose(f);
	if (ledger_open(path, &l, message, sizeof message) == 0) {
		use(l);
		ledger_close(l);
	}
	if (!(size & 3)) { /* it takes as long as all else together */
		make_objects();
		if (ledger_set_aside(dir) == 0 && access(path, F_OK) == 0)
			abort();
	}
	return 0;
}
