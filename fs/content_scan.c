/* SPDX-License-Identifier: MIT */
/* At the start: the files there are, and what becomes of those that no row speaks of. */
#include "content_load.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/log.h>

static int add_orphan(struct load *load, const char *dir, const char *name)
{
	char path[NAME_MAX * 2 + 2];

	if (content_load_room((void **)&load->orphans, &load->orphan_room, load->orphan_count,
			      sizeof *load->orphans) < 0)
		return -ENOMEM;
	snprintf(path, sizeof path, "%s%s%s", dir, dir[0] ? "/" : "", name);
	load->orphans[load->orphan_count] = strdup(path);
	return load->orphans[load->orphan_count++] ? 0 : -ENOMEM;
}

/* The number a file called @dir/@name has; 0 when we would not call one so. */
static uint64_t number_of(const char *dir, const char *name)
{
	char expected[CONTENT_NAME_BYTES];
	char *end;
	uint64_t number = strtoull(name, &end, 16);

	content_name(number, expected);
	return *end == '\0' && strncmp(expected, dir, 2) == 0 && strcmp(expected + 3, name) == 0
		       ? number
		       : 0;
}

static int scan_file(struct load *load, int fd, const char *dir, const char *name)
{
	uint64_t number = number_of(dir, name);
	struct loaded *row = number ? content_load_file(load, number) : NULL;
	struct stat st;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!row || !S_ISREG(st.st_mode))
		return add_orphan(load, dir, name);
	row->file_size = st.st_size;
	row->charged = (uint64_t)st.st_blocks * 512;
	row->inode = st.st_nlink > 1 ? st.st_ino : 0;
	return 0;
}

/* @dir is "" for objects/ itself, which holds directories, or "xx", which holds files. */
int content_load_scan(struct load *load, const char *dir)
{
	int fd = openat(load->store->objects_fd, dir[0] ? dir : ".",
			O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	int r = 0;

	if (!d) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r == -ENOTDIR || r == -ELOOP ? add_orphan(load, "", dir) : r;
	}
	while (r == 0 && (e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (dir[0])
			r = scan_file(load, fd, dir, e->d_name);
		else if (strlen(e->d_name) == 2 && strspn(e->d_name, "0123456789abcdef") == 2)
			r = content_load_scan(load, e->d_name);
		else
			r = add_orphan(load, "", e->d_name);
	}
	closedir(d);
	return r;
}

uint64_t content_load_count(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	uint64_t count = 0;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	for (const struct dirent *e; (e = readdir(d));)
		count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(d);
	return count;
}

/* Never over something that is there already. */
void content_lose(struct content_store *s, const char *name, const char *why)
{
	const char *slash = strrchr(name, '/');
	char target[NAME_MAX + 16];
	int r = -EEXIST;

	for (unsigned n = 0; n < 10000 && r == -EEXIST; n++) {
		snprintf(target, sizeof target, n ? "%s.%u" : "%s", slash ? slash + 1 : name, n);
		r = renameat2(s->objects_fd, name, s->lost_fd, target, RENAME_NOREPLACE) < 0
			    ? -errno
			    : 0;
	}
	if (r < 0) {
		log_errno(r, "content: '%s/objects/%s' %s, but cannot be moved to lost+found",
			  s->dir, name, why);
		return;
	}
	pthread_mutex_lock(&s->lock);
	s->lost_files++;
	pthread_mutex_unlock(&s->lock);
	log_warning("content: '%s/objects/%s' %s: moved to lost+found/%s", s->dir, name, why,
		    target);
}

void content_load_orphans(struct load *load)
{
	struct content_store *s = load->store;
	struct stat st;

	for (size_t i = 0; i < load->orphan_count; i++) {
		const char *name = load->orphans[i];

		if (fstatat(s->objects_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode) && st.st_size == 0)
			unlinkat(s->objects_fd, name, 0);
		else
			content_lose(s, name, "belongs to nothing known");
	}
}
