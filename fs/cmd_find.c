/* SPDX-License-Identifier: MIT */

/* From a path to the mount it lies in, and to the files in which that mount tells of itself. */

#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "commands.h"
#include "mountinfo.h"

static bool is_inside(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return !strncmp(path, dir, len) && (!path[len] || path[len] == '/');
}

/*
 * The attachfs mount that @path lies in, longest first; malloc()ed, NULL = none. With @exact also
 * other filesystems, and only there.
 */
static char *find_mount(const char *path, bool exact)
{
	FILE *f = mountinfo_open();
	struct mountinfo m;
	char *best = NULL;

	while (f && mountinfo_next(f, &m)) {
		if (exact ? strcmp(path, m.dir) != 0
			  : strcmp(m.type, "fuse.attachfs") || !is_inside(path, m.dir))
			continue;
		if (!best || strlen(m.dir) >= strlen(best)) {
			free(best);
			best = strdup(m.dir);
		}
	}
	if (f)
		fclose(f);
	return best;
}

char *cmd_absolute(const char *path)
{
	char *real = realpath(path, NULL), *cwd, *full = NULL;

	if (real)
		return real;
	if (*path == '/')
		full = strdup(path);
	else if ((cwd = getcwd(NULL, 0))) {
		if (asprintf(&full, "%s/%s", cwd, path) < 0)
			full = NULL;
		free(cwd);
	}
	for (size_t n = full ? strlen(full) : 0; n > 1 && full[n - 1] == '/'; n--)
		full[n - 1] = '\0';
	return full;
}

bool commands_is_mounted(const char *path)
{
	char *full = cmd_absolute(path), *found = full ? find_mount(full, true) : NULL;
	bool mounted = found != NULL;

	free(found);
	free(full);
	return mounted;
}

char *cmd_mount_of(const char *path)
{
	char *full = cmd_absolute(path), *found = full ? find_mount(full, false) : NULL;

	if (!found)
		fprintf(stderr,
			"attachfs: '%s' is not in an attachfs mount: attachfs list shows yours\n",
			path);
	free(full);
	return found;
}

void cmd_each_mount(bool (*each)(void *ctx, const char *mountpoint), void *ctx)
{
	FILE *f = mountinfo_open();
	struct mountinfo m;
	bool more = true;

	while (f && more && mountinfo_next(f, &m))
		if (!strcmp(m.type, "fuse.attachfs") && m.owner == getuid())
			more = each(ctx, m.dir);
	if (f)
		fclose(f);
}

static const char *remedy(int error)
{
	switch (error) {
	case ENOTCONN:
	case ECONNABORTED:
		return ": the daemon is gone; mount again, nothing that was closed is lost";
	case EACCES:
	case EPERM:
		return ": only the user who mounted may ask";
	case ENOENT:
		return ": the daemon is of another version; unmount, and mount again";
	default:
		return "";
	}
}

int cmd_open(const char *mountpoint, const char *name, int flags)
{
	char path[4352];
	int fd;

	snprintf(path, sizeof(path), "%s/.attachfs/%s", mountpoint, name);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0 && errno != EROFS)
		fprintf(stderr, "attachfs: %s: %s%s\n", path, strerror(errno), remedy(errno));
	return fd;
}

int cmd_copy_out(const char *mountpoint, const char *name)
{
	char buffer[65536];
	int fd = cmd_open(mountpoint, name, O_RDONLY), status = CMD_OK;
	ssize_t n;

	if (fd < 0)
		return CMD_FAILED;
	while ((n = read(fd, buffer, sizeof(buffer))) > 0 && status == CMD_OK)
		if (fwrite(buffer, 1, (size_t)n, stdout) != (size_t)n || fflush(stdout) != 0)
			status = CMD_FAILED;
	if (n < 0) {
		fprintf(stderr, "attachfs: %s/.attachfs/%s: %s%s\n", mountpoint, name,
			strerror(errno), remedy(errno));
		status = CMD_FAILED;
	}
	close(fd);
	return status;
}

json_t *cmd_status(const char *mountpoint)
{
	int fd = cmd_open(mountpoint, "status", O_RDONLY);
	json_t *o = fd >= 0 ? json_loadfd(fd, 0, NULL) : NULL;

	if (fd >= 0 && !o)
		fprintf(stderr,
			"attachfs: %s/.attachfs/status cannot be read: the daemon has ended\n",
			mountpoint);
	if (fd >= 0)
		close(fd);
	return o;
}

bool cmd_is_read_only(const char *mountpoint)
{
	struct statvfs st;

	return statvfs(mountpoint, &st) == 0 && (st.f_flag & ST_RDONLY);
}

long long cmd_number(const json_t *o, const char *outer, const char *key)
{
	const json_t *in = outer ? json_object_get(o, outer) : o;

	return (long long)json_integer_value(json_object_get(in, key));
}

const char *cmd_text(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

const char *cmd_size(double bytes, char text[static CMD_SIZE])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t unit = 0;

	while (bytes >= 1024 && unit < 4) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, CMD_SIZE, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
	return text;
}
