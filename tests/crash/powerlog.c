/* SPDX-License-Identifier: MIT */
/*
 * What a daemon does to the files below one directory, written down in order, so that its state
 * after a power failure can be made up. LD_PRELOADed; power.py reads the log.
 *
 *	POWERLOG_DIR	the directory, absolute
 *	POWERLOG_FILE	where the log goes, not below it
 *	POWERLOG_BOOT	stands for /proc/sys/kernel/random/boot_id
 *
 * Each call is done and logged under one lock, so the order of the log is that of the files. A record
 * is a header, a path, a second path, bytes. Files go by inode number; a number used again appears in
 * a new "create". Syncs are only logged: the disk is the one that is made up. What is mapped (the -shm
 * of SQLite) does not survive a power failure and is not seen.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
	LOG_OPEN = 1, /* a file that was there */
	LOG_CREATE,
	LOG_WRITE,
	LOG_SIZE,
	LOG_ZERO,
	LOG_RENAME,
	LOG_UNLINK,
	LOG_MKDIR,
	LOG_RMDIR,
	LOG_SYNC, /* of a file */
	LOG_SYNC_DIR,
	LOG_SYNC_ALL,
	LOG_LINK,
};

struct record {
	uint32_t kind, path_bytes, path2_bytes, zero;
	uint64_t ino, off, len, data_bytes;
};

#define INODES (1u << 16)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char dir[PATH_MAX];	/* once */
static size_t dir_len;		/* once */
static const char *boot;	/* once */
static int log_fd = -1;		/* once */
static uint64_t inodes[INODES]; /* lock: those of files below the directory; open addressing */

static void give_up(const char *why)
{
	static const char tail[] = "powerlog: cannot go on: ";

	if (syscall(SYS_write, 2, tail, sizeof(tail) - 1) < 0 ||
	    syscall(SYS_write, 2, why, strlen(why)) < 0)
		_exit(98);
	abort();
}

static void begin(void)
{
	const char *d = getenv("POWERLOG_DIR"), *file = getenv("POWERLOG_FILE");

	boot = getenv("POWERLOG_BOOT");
	if (!d || !file)
		return;
	dir_len = strlen(d);
	if (dir_len >= sizeof(dir))
		give_up("directory\n");
	memcpy(dir, d, dir_len + 1);
	log_fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
			      0600);
	if (log_fd < 0)
		give_up("log\n");
}

static void enter(void)
{
	pthread_once(&once, begin);
	pthread_mutex_lock(&lock);
}

static long leave(long result)
{
	int saved = errno;

	pthread_mutex_unlock(&lock);
	errno = saved;
	return result;
}

/* ---- which files ---- */

static size_t slot_of(uint64_t ino)
{
	size_t at = (size_t)(ino * 0x9e3779b97f4a7c15u >> 48) % INODES;

	for (size_t i = 0; inodes[at] && inodes[at] != ino; i++) {
		if (i == INODES / 2)
			give_up("inodes\n");
		at = (at + 1) % INODES;
	}
	return at;
}

/* Only ever added: a number that is used for another file later is one of ours or never written. */
static bool is_ours(int fd, uint64_t *ret_ino)
{
	struct stat st;

	if (log_fd < 0 || fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !st.st_ino)
		return false;
	*ret_ino = st.st_ino;
	return inodes[slot_of(st.st_ino)] == st.st_ino;
}

/* The path below the directory; false when it is elsewhere. */
static bool path_of(int at, const char *path, char out[PATH_MAX])
{
	char full[PATH_MAX], link[64];
	ssize_t n = 0;

	if (log_fd < 0)
		return false;
	if (path[0] == '/') {
		n = snprintf(full, sizeof(full), "%s", path);
	} else {
		if (at == AT_FDCWD)
			snprintf(link, sizeof(link), "/proc/self/cwd");
		else
			snprintf(link, sizeof(link), "/proc/self/fd/%d", at);
		n = readlink(link, full, sizeof(full) - 1);
		if (n < 0)
			return false;
		if (strcmp(path, ".") != 0)
			n += snprintf(full + n, sizeof(full) - (size_t)n, "/%s", path);
		else
			full[n] = '\0';
	}
	if (n >= (ssize_t)sizeof(full) || strncmp(full, dir, dir_len) != 0 ||
	    (full[dir_len] != '/' && full[dir_len] != '\0'))
		return false;
	snprintf(out, PATH_MAX, "%s", full[dir_len] ? full + dir_len + 1 : "");
	return true;
}

/* ---- the log ---- */

static void put(const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		long n = syscall(SYS_write, log_fd, at, len);

		if (n <= 0)
			give_up("log\n");
		at += n;
		len -= (size_t)n;
	}
}

static void note(enum kind kind, const char *path, const char *path2, uint64_t ino, uint64_t off,
		 uint64_t len, const void *data)
{
	char head[sizeof(struct record) + 2 * PATH_MAX];
	struct record r = {.kind = kind,
			   .path_bytes = (uint32_t)strlen(path),
			   .path2_bytes = (uint32_t)strlen(path2),
			   .ino = ino,
			   .off = off,
			   .len = len,
			   .data_bytes = data ? len : 0};

	memcpy(head, &r, sizeof(r));
	memcpy(head + sizeof(r), path, r.path_bytes);
	memcpy(head + sizeof(r) + r.path_bytes, path2, r.path2_bytes);
	put(head, sizeof(r) + r.path_bytes + r.path2_bytes);
	if (data)
		put(data, len);
}

/* Bytes that went into a file by other ways than through our memory. */
static void note_written(int fd, uint64_t ino, uint64_t off, uint64_t len)
{
	char *buffer = malloc(len ? len : 1);
	uint64_t got = 0;

	while (buffer && got < len) {
		ssize_t n = pread(fd, buffer + got, len - got, (off_t)(off + got));

		if (n <= 0)
			give_up("cannot read back\n");
		got += (uint64_t)n;
	}
	if (!buffer)
		give_up("memory\n");
	note(LOG_WRITE, "", "", ino, off, len, buffer);
	free(buffer);
}

/* ---- opening ---- */

static int open_it(int at, const char *path, int flags, mode_t mode)
{
	char ours[PATH_MAX];
	struct stat st;
	bool is_new;
	int fd;

	pthread_once(&once, begin);
	if (boot && !strcmp(path, "/proc/sys/kernel/random/boot_id"))
		path = boot;
	if (!path_of(at, path, ours))
		return (int)syscall(SYS_openat, at, path, flags, mode);
	enter();
	is_new = (flags & O_CREAT) && fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW) < 0;
	fd = (int)syscall(SYS_openat, at, path, flags, mode);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		inodes[slot_of(st.st_ino)] = st.st_ino;
		note(is_new ? LOG_CREATE : LOG_OPEN, ours, "", st.st_ino, 0, 0, NULL);
		if (flags & O_TRUNC)
			note(LOG_SIZE, "", "", st.st_ino, 0, 0, NULL);
	}
	return (int)leave(fd);
}

static mode_t mode_of(int flags, va_list args)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

#define OPEN(NAME)                                                                                 \
	int NAME(const char *path, int flags, ...);                                                \
	int NAME(const char *path, int flags, ...)                                                 \
	{                                                                                          \
		va_list args;                                                                      \
		mode_t mode;                                                                       \
                                                                                                   \
		va_start(args, flags);                                                             \
		mode = mode_of(flags, args);                                                       \
		va_end(args);                                                                      \
		return open_it(AT_FDCWD, path, flags, mode);                                       \
	}
#define OPENAT(NAME)                                                                               \
	int NAME(int at, const char *path, int flags, ...);                                        \
	int NAME(int at, const char *path, int flags, ...)                                         \
	{                                                                                          \
		va_list args;                                                                      \
		mode_t mode;                                                                       \
                                                                                                   \
		va_start(args, flags);                                                             \
		mode = mode_of(flags, args);                                                       \
		va_end(args);                                                                      \
		return open_it(at, path, flags, mode);                                             \
	}

#undef open
#undef open64
#undef openat
#undef openat64
OPEN(open)
OPEN(open64)
OPEN(__open_2)
OPEN(__open64_2)
OPENAT(openat)
OPENAT(openat64)
OPENAT(__openat_2)
OPENAT(__openat64_2)

/* ---- writing ---- */

static uint64_t position(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags & O_APPEND)
		return fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
	return (uint64_t)lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t len)
{
	uint64_t ino, off;
	ssize_t n;

	enter();
	if (!is_ours(fd, &ino)) {
		leave(0);
		return syscall(SYS_write, fd, data, len);
	}
	off = position(fd);
	n = syscall(SYS_write, fd, data, len);
	if (n > 0)
		note(LOG_WRITE, "", "", ino, off, (uint64_t)n, data);
	return leave(n);
}

static ssize_t pwrite_it(int fd, const void *data, size_t len, off_t off)
{
	uint64_t ino;
	ssize_t n;

	enter();
	n = syscall(SYS_pwrite64, fd, data, len, off);
	if (n > 0 && is_ours(fd, &ino))
		note(LOG_WRITE, "", "", ino, (uint64_t)off, (uint64_t)n, data);
	return leave(n);
}

#undef pwrite
#undef pwrite64
ssize_t pwrite(int fd, const void *data, size_t len, off_t off)
{
	return pwrite_it(fd, data, len, off);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off_t off)
{
	return pwrite_it(fd, data, len, off);
}

/* Nobody here writes our files so. */
ssize_t writev(int fd, const struct iovec *iov, int count)
{
	uint64_t ino;

	enter();
	if (is_ours(fd, &ino))
		give_up("writev\n");
	leave(0);
	return syscall(SYS_writev, fd, iov, count);
}

/* Into a pipe it may wait, and is none of our business. */
ssize_t splice(int in, off_t *off_in, int out, off_t *off_out, size_t len, unsigned flags)
{
	uint64_t ino, off;
	ssize_t n;

	enter();
	if (!is_ours(out, &ino)) {
		leave(0);
		return syscall(SYS_splice, in, off_in, out, off_out, len, flags);
	}
	off = off_out ? (uint64_t)*off_out : position(out);
	n = syscall(SYS_splice, in, off_in, out, off_out, len, flags);
	if (n > 0)
		note_written(out, ino, off, (uint64_t)n);
	return leave(n);
}

ssize_t copy_file_range(int in, off_t *off_in, int out, off_t *off_out, size_t len, unsigned flags)
{
	uint64_t ino, off = 0;
	bool ours;
	ssize_t n;

	enter();
	ours = is_ours(out, &ino);
	if (ours)
		off = off_out ? (uint64_t)*off_out : position(out);
	n = syscall(SYS_copy_file_range, in, off_in, out, off_out, len, flags);
	if (n > 0 && ours)
		note_written(out, ino, off, (uint64_t)n);
	return leave(n);
}

static int ftruncate_it(int fd, off_t size)
{
	uint64_t ino;
	int r;

	enter();
	r = (int)syscall(SYS_ftruncate, fd, size);
	if (r == 0 && is_ours(fd, &ino))
		note(LOG_SIZE, "", "", ino, (uint64_t)size, 0, NULL);
	return (int)leave(r);
}

#undef ftruncate
#undef ftruncate64
int ftruncate(int fd, off_t size)
{
	return ftruncate_it(fd, size);
}

int ftruncate64(int fd, off_t size)
{
	return ftruncate_it(fd, size);
}

static int fallocate_it(int fd, int mode, off_t off, off_t len)
{
	uint64_t ino;
	int r;

	enter();
	r = (int)syscall(SYS_fallocate, fd, mode, off, len);
	if (r == 0 && is_ours(fd, &ino)) {
		if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
			note(LOG_ZERO, "", "", ino, (uint64_t)off, (uint64_t)len, NULL);
		else if (mode != FALLOC_FL_KEEP_SIZE)
			give_up("fallocate\n");
	}
	return (int)leave(r);
}

#undef fallocate
#undef fallocate64
int fallocate(int fd, int mode, off_t off, off_t len)
{
	return fallocate_it(fd, mode, off, len);
}

int fallocate64(int fd, int mode, off_t off, off_t len)
{
	return fallocate_it(fd, mode, off, len);
}

/* ---- names ---- */

static int rename_it(int from, const char *old, int to, const char *new, unsigned flags)
{
	char ours[PATH_MAX], ours2[PATH_MAX];
	int r;

	enter();
	r = (int)syscall(SYS_renameat2, from, old, to, new, flags);
	if (r == 0 && path_of(to, new, ours2)) {
		if (!path_of(from, old, ours))
			give_up("rename from outside\n");
		note(LOG_RENAME, ours, ours2, 0, 0, 0, NULL);
	}
	return (int)leave(r);
}

int rename(const char *old, const char *new)
{
	return rename_it(AT_FDCWD, old, AT_FDCWD, new, 0);
}

int renameat(int from, const char *old, int to, const char *new)
{
	return rename_it(from, old, to, new, 0);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
	return rename_it(from, old, to, new, flags);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
	char ours[PATH_MAX], ours2[PATH_MAX];
	int r;

	enter();
	r = (int)syscall(SYS_linkat, from, old, to, new, flags);
	if (r == 0 && path_of(to, new, ours2)) {
		if (!path_of(from, old, ours))
			give_up("link from outside\n");
		note(LOG_LINK, ours, ours2, 0, 0, 0, NULL);
	}
	return (int)leave(r);
}

int unlinkat(int at, const char *path, int flags)
{
	char ours[PATH_MAX];
	int r;

	enter();
	r = (int)syscall(SYS_unlinkat, at, path, flags);
	if (r == 0 && path_of(at, path, ours))
		note(flags & AT_REMOVEDIR ? LOG_RMDIR : LOG_UNLINK, ours, "", 0, 0, 0, NULL);
	return (int)leave(r);
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
	return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdirat(int at, const char *path, mode_t mode)
{
	char ours[PATH_MAX];
	int r;

	enter();
	r = (int)syscall(SYS_mkdirat, at, path, mode);
	if (r == 0 && path_of(at, path, ours))
		note(LOG_MKDIR, ours, "", 0, 0, 0, NULL);
	return (int)leave(r);
}

int mkdir(const char *path, mode_t mode)
{
	return mkdirat(AT_FDCWD, path, mode);
}

/* ---- syncs ---- */

static int sync_it(int fd)
{
	char ours[PATH_MAX];
	struct stat st;
	uint64_t ino;

	enter();
	if (is_ours(fd, &ino))
		note(LOG_SYNC, "", "", ino, 0, 0, NULL);
	else if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && path_of(fd, ".", ours))
		note(LOG_SYNC_DIR, ours, "", 0, 0, 0, NULL);
	return (int)leave(0);
}

int fsync(int fd)
{
	return sync_it(fd);
}

int fdatasync(int fd)
{
	return sync_it(fd);
}

int syncfs(int fd)
{
	(void)fd;
	enter();
	if (log_fd >= 0)
		note(LOG_SYNC_ALL, "", "", 0, 0, 0, NULL);
	return (int)leave(0);
}
