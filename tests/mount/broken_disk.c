/* SPDX-License-Identifier: MIT */

/*
 * A disk that breaks, for test_disk.py: loaded into the daemon by LD_PRELOAD. While the file
 * $BROKEN_DISK/broken is there, what is written to a file below $BROKEN_DISK, or synced, cut or made
 * there, fails with the errno whose number it holds. While there is $BROKEN_DISK/unreadable, so does
 * what is read from a file of contents that was last written before it was: what is written anew gets
 * other sectors.
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static int real_open(const char *path, int flags)
{
	return ((int (*)(const char *, int, ...))next("open"))(path, flags, 0);
}

/* The errno in $BROKEN_DISK/@word, when @fd is of a file there that has @part in its path; 0 = it works. */
static int trouble_of(int fd, const char *word, const char *part, struct stat *ret_word)
{
	const char *disk = getenv("BROKEN_DISK");
	char link[64], path[PATH_MAX], number[16] = "";
	int saved = errno, told;
	ssize_t n;

	if (!disk)
		return 0;
	snprintf(path, sizeof(path), "%s/%s", disk, word);
	told = real_open(path, O_RDONLY | O_CLOEXEC);
	if (told < 0) {
		errno = saved;
		return 0;
	}
	n = ((ssize_t(*)(int, void *, size_t))next("read"))(told, number, sizeof(number) - 1);
	fstat(told, ret_word);
	close(told);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = n > 0 ? readlink(link, path, sizeof(path) - 1) : 0;
	errno = saved;
	if (n <= 0)
		return 0;
	path[n] = '\0';
	return strncmp(path, disk, strlen(disk)) == 0 && strstr(path, part) ? atoi(number) : 0;
}

static int write_trouble(int fd)
{
	struct stat word;

	return trouble_of(fd, "broken", "/", &word);
}

static int read_trouble(int fd)
{
	struct stat word, st;
	int number = trouble_of(fd, "unreadable", "/objects/", &word);

	if (number == 0 || fstat(fd, &st) < 0)
		return 0;
	return st.st_mtim.tv_sec < word.st_mtim.tv_sec ||
			       (st.st_mtim.tv_sec == word.st_mtim.tv_sec &&
				st.st_mtim.tv_nsec <= word.st_mtim.tv_nsec)
		       ? number
		       : 0;
}

#define FAIL_IF(trouble)                                                                           \
	do {                                                                                       \
		int number = trouble;                                                              \
		if (number) {                                                                      \
			errno = number;                                                            \
			return -1;                                                                 \
		}                                                                                  \
	} while (0)

#define BREAKS(type, name, trouble, parameters, arguments)                                         \
	type name parameters;                                                                      \
	type name parameters                                                                       \
	{                                                                                          \
		FAIL_IF(trouble);                                                                  \
		return ((type(*) parameters)next(#name))arguments;                                 \
	}

/* clang-format off */
BREAKS(ssize_t, pwrite, write_trouble(fd), (int fd, const void *data, size_t len, off_t off), (fd, data, len, off))
BREAKS(ssize_t, pwrite64, write_trouble(fd), (int fd, const void *data, size_t len, off64_t off), (fd, data, len, off))
BREAKS(ssize_t, write, write_trouble(fd), (int fd, const void *data, size_t len), (fd, data, len))
BREAKS(int, fdatasync, write_trouble(fd), (int fd), (fd))
BREAKS(int, fsync, write_trouble(fd), (int fd), (fd))
BREAKS(int, ftruncate, write_trouble(fd), (int fd, off_t len), (fd, len))
BREAKS(int, ftruncate64, write_trouble(fd), (int fd, off64_t len), (fd, len))
BREAKS(int, fallocate, write_trouble(fd), (int fd, int mode, off_t off, off_t len), (fd, mode, off, len))
BREAKS(int, fallocate64, write_trouble(fd), (int fd, int mode, off64_t off, off64_t len), (fd, mode, off, len))
BREAKS(int, renameat2, write_trouble(from), (int from, const char *old, int to, const char *new, unsigned flags), (from, old, to, new, flags))
BREAKS(int, unlinkat, write_trouble(fd), (int fd, const char *name, int flags), (fd, name, flags))
BREAKS(int, linkat, write_trouble(to), (int from, const char *old, int to, const char *new, int flags), (from, old, to, new, flags))
BREAKS(ssize_t, read, read_trouble(fd), (int fd, void *data, size_t len), (fd, data, len))
BREAKS(ssize_t, pread, read_trouble(fd), (int fd, void *data, size_t len, off_t off), (fd, data, len, off))
BREAKS(ssize_t, pread64, read_trouble(fd), (int fd, void *data, size_t len, off64_t off), (fd, data, len, off))
/* clang-format on */

ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t len, unsigned flags)
{
	FAIL_IF(write_trouble(out));
	FAIL_IF(read_trouble(in));
	return ((ssize_t(*)(int, off64_t *, int, off64_t *, size_t, unsigned))next("splice"))(
		in, off_in, out, off_out, len, flags);
}

ssize_t copy_file_range(int in, off64_t *off_in, int out, off64_t *off_out, size_t len,
			unsigned flags)
{
	FAIL_IF(write_trouble(out));
	FAIL_IF(read_trouble(in));
	return ((ssize_t(*)(int, off64_t *, int, off64_t *, size_t, unsigned))next(
		"copy_file_range"))(in, off_in, out, off_out, len, flags);
}

/* What is opened to be written to can be where a file breaks, but not on a disk that is read-only. */
static int open_trouble(int dir, int flags)
{
	int number = flags & (O_WRONLY | O_RDWR | O_CREAT) ? write_trouble(dir) : 0;

	return number == EROFS || (flags & O_CREAT) ? number : 0;
}

static int open_at(const char *name, int dir, const char *path, int flags, mode_t mode)
{
	FAIL_IF(open_trouble(dir, flags));
	return ((int (*)(int, const char *, int, ...))next(name))(dir, path, flags, mode);
}

#define OPENS(name)                                                                                \
	int name(int dir, const char *path, int flags, ...)                                        \
	{                                                                                          \
		va_list args;                                                                      \
		mode_t mode;                                                                       \
                                                                                                   \
		va_start(args, flags);                                                             \
		mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;                   \
		va_end(args);                                                                      \
		return open_at(#name, dir, path, flags, mode);                                     \
	}

OPENS(openat)
OPENS(openat64)
