/* SPDX-License-Identifier: MIT */

/*
 * Memory that runs out, for test_memory.py: loaded into the daemon by LD_PRELOAD. The file
 * $BROKEN_MEMORY holds two numbers of 64 bits, which may change at any time: of all allocations, those
 * of libraries included, each so many-th fails (0: none), after so many that go well.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);

static _Atomic uint64_t calls;
static const volatile uint64_t *wish;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("BROKEN_MEMORY");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *map = fd >= 0 ? mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (fd >= 0)
		close(fd);
	if (map != MAP_FAILED)
		wish = map;
}

static bool fails(void)
{
	uint64_t n, every = wish ? wish[0] : 0;

	if (!every)
		return false;
	n = atomic_fetch_add(&calls, 1);
	if (n < wish[1] || (n - wish[1]) % every != every - 1)
		return false;
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	return fails() ? NULL : __libc_realloc(p, size);
}
