/* SPDX-License-Identifier: MIT */

/*
 * The loops that scripts/bench times, without an interpreter between them and the kernel:
 *
 *	bench-work create DIR COUNT BYTES [fsync]   new files, each written, perhaps synced, closed
 *	bench-work rename DIR PREFIX                every file gets PREFIX in front of its name
 *	bench-work unlink DIR                       every file goes
 *	bench-work random FILE COUNT BYTES THREADS  reads at COUNT places, by so many at once
 *	bench-work read DIR THREADS                 every file as a whole, by so many at once
 *
 * Exit status 1 with a word on standard error at the first call that fails.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BYTES_MAX   (1u << 20)
#define NAME_BYTES  512
#define THREADS_MAX 64
#define PLACES_MAX  100000

static int fail(const char *call, const char *name)
{
	fprintf(stderr, "bench-work: %s %s: %s\n", call, name, strerror(errno));
	return 1;
}

/* No two files alike, and the same ones every time. */
static void fill(unsigned char *to, size_t len, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		to[i] = (unsigned char)(x >> 32);
	}
}

static int create_one(int dir, const char *name, const unsigned char *data, size_t len, int sync)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0)
		return fail("create", name);
	if (write(fd, data, len) != (ssize_t)len)
		return fail("write", name);
	if (sync && fsync(fd) < 0)
		return fail("fsync", name);
	return close(fd) < 0 ? fail("close", name) : 0;
}

static int create(int dir, unsigned count, size_t len, int sync)
{
	unsigned char *data = malloc((size_t)count * len + 1);
	int r = data ? 0 : fail("malloc", "");

	for (unsigned i = 0; i < count && !r; i++)
		fill(data + i * len, len, i);
	for (unsigned i = 0; i < count && !r; i++) {
		char name[NAME_BYTES];

		snprintf(name, sizeof(name), "file-%04u.dat", i);
		r = create_one(dir, name, data + i * len, len, sync);
	}
	free(data);
	return r;
}

struct names {
	char **at;
	size_t n;
};

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->at[i]);
	free(names->at);
}

static int add_name(struct names *names, const char *name)
{
	char **at = realloc(names->at, (names->n + 1) * sizeof(*at));

	if (!at)
		return fail("malloc", name);
	names->at = at;
	at[names->n] = strdup(name);
	return at[names->n] ? (names->n++, 0) : fail("malloc", name);
}

/* All names first: what a directory shows while it changes is nobody's business here. */
static int read_names(const char *path, struct names *names)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int r = 0;

	if (!d)
		return fail("opendir", path);
	while (!r && (e = readdir(d)))
		if (e->d_name[0] != '.' && strcmp(e->d_name, "lost+found") != 0)
			r = add_name(names, e->d_name);
	closedir(d);
	return r;
}

static int change_all(int dir, const char *path, const char *prefix)
{
	struct names names = {0};
	int r = read_names(path, &names);

	for (size_t i = 0; i < names.n && !r; i++) {
		char to[NAME_BYTES];

		if (!prefix) {
			r = unlinkat(dir, names.at[i], 0) < 0 ? fail("unlink", names.at[i]) : 0;
			continue;
		}
		snprintf(to, sizeof(to), "%s%s", prefix, names.at[i]);
		r = renameat(dir, names.at[i], dir, to) < 0 ? fail("rename", to) : 0;
	}
	names_free(&names);
	return r;
}

struct places {
	int fd;
	size_t len, n;
	off_t at[PLACES_MAX];
	_Atomic size_t next;
	_Atomic int failed;
};

static void *read_places(void *arg)
{
	struct places *p = arg;
	unsigned char *data = malloc(p->len);
	size_t i;

	while (data && (i = atomic_fetch_add(&p->next, 1)) < p->n)
		if (pread(p->fd, data, p->len, p->at[i]) != (ssize_t)p->len)
			atomic_store(&p->failed, fail("read", ""));
	if (!data)
		atomic_store(&p->failed, 1);
	free(data);
	return NULL;
}

/* The same places every time, each at a multiple of @len. */
static int read_random(const char *path, unsigned count, size_t len, unsigned n_threads)
{
	static struct places p;
	pthread_t threads[THREADS_MAX];
	uint64_t x = 0x9e3779b97f4a7c15u;
	struct stat st;
	unsigned n = 0;

	p.fd = open(path, O_RDONLY | O_CLOEXEC);
	p.len = len;
	if (p.fd < 0 || fstat(p.fd, &st) < 0 || (size_t)st.st_size < len)
		return fail("open", path);
	while (p.n < count) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p.at[p.n++] = (off_t)(x % ((uint64_t)st.st_size / len) * len);
	}
	while (n < n_threads && !pthread_create(&threads[n], NULL, read_places, &p))
		n++;
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	close(p.fd);
	return n < n_threads || atomic_load(&p.failed);
}

struct readers {
	int dir;
	struct names names;
	_Atomic size_t next;
	_Atomic int failed;
};

static int read_one(int dir, const char *name, unsigned char *data)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;

	if (fd < 0)
		return fail("open", name);
	while (n > 0)
		n = read(fd, data, BYTES_MAX);
	close(fd);
	return n < 0 ? fail("read", name) : 0;
}

static void *read_some(void *arg)
{
	struct readers *rs = arg;
	unsigned char *data = malloc(BYTES_MAX);
	size_t i;

	while (data && (i = atomic_fetch_add(&rs->next, 1)) < rs->names.n)
		if (read_one(rs->dir, rs->names.at[i], data))
			atomic_store(&rs->failed, 1);
	if (!data)
		atomic_store(&rs->failed, 1);
	free(data);
	return NULL;
}

static int read_all_files(int dir, const char *path, unsigned count)
{
	struct readers rs = {.dir = dir};
	pthread_t threads[THREADS_MAX];
	unsigned n = 0;
	int r = read_names(path, &rs.names);

	while (!r && n < count && !pthread_create(&threads[n], NULL, read_some, &rs))
		n++;
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	names_free(&rs.names);
	return r || n < count || atomic_load(&rs.failed);
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	int dir = argc > 2 ? open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	unsigned long count, len, threads;

	if (!strcmp(what, "random") && argc == 6) {
		count = strtoul(argv[3], NULL, 10);
		len = strtoul(argv[4], NULL, 10);
		threads = strtoul(argv[5], NULL, 10);
		if (count <= PLACES_MAX && len > 0 && len <= BYTES_MAX && threads > 0 &&
		    threads <= THREADS_MAX)
			return read_random(argv[2], (unsigned)count, len, (unsigned)threads);
	}
	if (argc > 2 && dir < 0)
		return fail("open", argv[2]);
	if (!strcmp(what, "create") && argc >= 5) {
		count = strtoul(argv[3], NULL, 10);
		len = strtoul(argv[4], NULL, 10);
		if (count > 0 && count <= 100000 && len <= BYTES_MAX)
			return create(dir, (unsigned)count, len, argc > 5);
	}
	if (!strcmp(what, "rename") && argc == 4)
		return change_all(dir, argv[2], argv[3]);
	if (!strcmp(what, "unlink") && argc == 3)
		return change_all(dir, argv[2], NULL);
	if (!strcmp(what, "read") && argc == 4) {
		count = strtoul(argv[3], NULL, 10);
		if (count > 0 && count <= THREADS_MAX)
			return read_all_files(dir, argv[2], (unsigned)count);
	}
	fprintf(stderr, "usage: bench-work create DIR COUNT BYTES [fsync] | rename DIR PREFIX | "
			"unlink DIR | random FILE COUNT BYTES THREADS | read DIR THREADS\n");
	return 2;
}
