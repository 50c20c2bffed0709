/* SPDX-License-Identifier: MIT */

/*
 * A disk that breaks, for test_failures.py: loaded into the daemon by LD_PRELOAD. While the file
 * $BROKEN_DISK/broken is there, what is written to a file below $BROKEN_DISK, or synced, fails with
 * the errno whose number it holds.
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

ssize_t pwrite(int fd, const void *data, size_t len, off_t off);

/* 0 = it works. */
static int trouble_of(int fd)
{
	const char *disk = getenv("BROKEN_DISK");
	char link[64], path[PATH_MAX], number[16] = "";
	int saved = errno, told;
	ssize_t n;

	if (!disk)
		return 0;
	snprintf(path, sizeof(path), "%s/broken", disk);
	told = open(path, O_RDONLY | O_CLOEXEC);
	if (told < 0) {
		errno = saved;
		return 0;
	}
	n = read(told, number, sizeof(number) - 1);
	close(told);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = n > 0 ? readlink(link, path, sizeof(path) - 1) : 0;
	errno = saved;
	if (n <= 0 || strncmp(path, disk, strlen(disk)) != 0)
		return 0;
	return atoi(number);
}

#define FAIL_IF_BROKEN(fd)                                                                         \
	do {                                                                                       \
		int trouble = trouble_of(fd);                                                      \
		if (trouble) {                                                                     \
			errno = trouble;                                                           \
			return -1;                                                                 \
		}                                                                                  \
	} while (0)

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t off)
{
	FAIL_IF_BROKEN(fd);
	return ((ssize_t(*)(int, const void *, size_t, off_t))next("pwrite"))(fd, data, len, off);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t off)
{
	FAIL_IF_BROKEN(fd);
	return ((ssize_t(*)(int, const void *, size_t, off64_t))next("pwrite64"))(fd, data, len,
										  off);
}

ssize_t write(int fd, const void *data, size_t len)
{
	FAIL_IF_BROKEN(fd);
	return ((ssize_t(*)(int, const void *, size_t))next("write"))(fd, data, len);
}

ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t len, unsigned flags)
{
	FAIL_IF_BROKEN(out);
	return ((ssize_t(*)(int, off64_t *, int, off64_t *, size_t, unsigned))next("splice"))(
		in, off_in, out, off_out, len, flags);
}

int fdatasync(int fd)
{
	FAIL_IF_BROKEN(fd);
	return ((int (*)(int))next("fdatasync"))(fd);
}

int fsync(int fd)
{
	FAIL_IF_BROKEN(fd);
	return ((int (*)(int))next("fsync"))(fd);
}
