/* SPDX-License-Identifier: MIT */

/*
 * A kernel, or a sandbox in front of it, that does not do all that others do: loaded into the daemon by
 * LD_PRELOAD. $REFUSED_SPLICE: the errno of each splice(), vmsplice() and tee(); $REFUSED_NOTES: of
 * each notification written to /dev/fuse (an answer whose number is 0).
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int told(const char *name)
{
	const char *number = getenv(name);

	return number ? atoi(number) : 0;
}

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t len, unsigned flags)
{
	errno = told("REFUSED_SPLICE");
	if (errno)
		return -1;
	return ((ssize_t(*)(int, off64_t *, int, off64_t *, size_t, unsigned))next("splice"))(
		in, off_in, out, off_out, len, flags);
}

ssize_t vmsplice(int fd, const struct iovec *parts, size_t n, unsigned flags)
{
	errno = told("REFUSED_SPLICE");
	if (errno)
		return -1;
	return ((ssize_t(*)(int, const struct iovec *, size_t, unsigned))next("vmsplice"))(
		fd, parts, n, flags);
}

ssize_t tee(int in, int out, size_t len, unsigned flags)
{
	errno = told("REFUSED_SPLICE");
	if (errno)
		return -1;
	return ((ssize_t(*)(int, int, size_t, unsigned))next("tee"))(in, out, len, flags);
}

/* struct fuse_out_header: length, error, number of the request. */
static int is_note(int fd, const struct iovec *parts, int n)
{
	char link[64], path[32];
	uint64_t number = 1;
	ssize_t len;

	if (n < 1 || parts[0].iov_len < 16)
		return 0;
	memcpy(&number, (const char *)parts[0].iov_base + 8, sizeof(number));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = number ? 0 : readlink(link, path, sizeof(path));
	return len == 9 && memcmp(path, "/dev/fuse", 9) == 0;
}

ssize_t writev(int fd, const struct iovec *parts, int n)
{
	int refused = told("REFUSED_NOTES");

	if (refused && is_note(fd, parts, n)) {
		errno = refused;
		return -1;
	}
	return ((ssize_t(*)(int, const struct iovec *, int))next("writev"))(fd, parts, n);
}
