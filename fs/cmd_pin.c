/* SPDX-License-Identifier: MIT */

/*
 * Keeping files in the cache: the attribute user.attachfs.pin of each. To be pinned is to be fetched;
 * the daemon begins with that by itself, and this reads along, which waits for the bytes, counts
 * them, and has an error where one happens. Some files ahead are pinned already, so that they come
 * side by side.
 */

#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <attachfs/clock.h>

#define PIN	    "user.attachfs.pin"
#define AHEAD	    16
#define READ_BYTES  (1u << 20)
#define PROGRESS_MS 200

struct pinning {
	char **paths;
	size_t count, room, done, failed;
	long long bytes, bytes_done;
	bool unpin, terminal;
	int64_t told_ms;
};

/* nftw() hands its callback nothing. */
static struct pinning *collecting;

static int collect(const char *path, const struct stat *st, int type, struct FTW *at)
{
	struct pinning *p = collecting;

	(void)at;
	if (type == FTW_DNR || type == FTW_NS) {
		fprintf(stderr, "attachfs: '%s': cannot be read: %s\n", path, strerror(errno));
		p->failed++;
		return 0;
	}
	if (type != FTW_F || !S_ISREG(st->st_mode))
		return 0;
	if (p->count == p->room) {
		size_t room = p->room ? p->room * 2 : 256;
		char **paths = realloc(p->paths, room * sizeof(*paths));

		if (!paths)
			return -1;
		p->paths = paths;
		p->room = room;
	}
	p->paths[p->count] = strdup(path);
	if (!p->paths[p->count])
		return -1;
	p->count++;
	p->bytes += st->st_size;
	return 0;
}

static void tell(struct pinning *p, bool last)
{
	char done[CMD_SIZE], all[CMD_SIZE];
	int64_t now_ms = clock_mono_ms();

	if (!last && now_ms - p->told_ms < PROGRESS_MS)
		return;
	p->told_ms = now_ms;
	if (p->terminal)
		fprintf(stderr, "\r%zu of %zu files, %s of %s\033[K%s", p->done, p->count,
			cmd_size((double)p->bytes_done, done), cmd_size((double)p->bytes, all),
			last ? "\n" : "");
	else
		printf("{\"done\":%s,\"files\":%zu,\"of\":%zu,\"bytes\":%lld,\"of_bytes\":%lld,"
		       "\"failed\":%zu}\n",
		       last ? "true" : "false", p->done, p->count, p->bytes_done, p->bytes,
		       p->failed);
	fflush(stdout);
}

static void fail(struct pinning *p, const char *path, const char *what)
{
	const char *remedy = errno == EROFS ? ": the mount is read-only"
			     : errno == EOPNOTSUPP
				     ? ": only files in an attachfs mount can be pinned"
			     : errno == EHOSTDOWN || errno == ETIMEDOUT
				     ? ": it stays pinned; what is missing is fetched when it is "
				       "read, or pinned "
				       "again"
				     : "";

	fprintf(stderr, "%sattachfs: '%s': cannot be %s: %s%s\n", p->terminal ? "\n" : "", path,
		what, strerror(errno), remedy);
	p->failed++;
}

/* False: said why not, and there is no use in reading it. */
static bool set(struct pinning *p, const char *path)
{
	int r = p->unpin ? removexattr(path, PIN) : setxattr(path, PIN, "1", 1, 0);

	if (r == 0 || (p->unpin && errno == ENODATA))
		return true;
	fail(p, path, p->unpin ? "unpinned" : "pinned");
	return false;
}

static void read_all(struct pinning *p, const char *path, char *buffer)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	while (fd >= 0 && (n = read(fd, buffer, READ_BYTES)) > 0) {
		p->bytes_done += n;
		tell(p, false);
	}
	if (n < 0)
		fail(p, path, "fetched");
	if (fd >= 0)
		close(fd);
}

static int pin_all(struct pinning *p)
{
	char *buffer = malloc(READ_BYTES);
	size_t ahead = 0;

	for (size_t i = 0; buffer && i < p->count; i++) {
		for (; ahead < p->count && ahead < i + AHEAD; ahead++)
			if (!set(p, p->paths[ahead])) {
				free(p->paths[ahead]);
				p->paths[ahead] = NULL;
			}
		if (p->paths[i] && !p->unpin)
			read_all(p, p->paths[i], buffer);
		p->done++;
		tell(p, false);
	}
	free(buffer);
	tell(p, true);
	return !buffer || p->failed ? CMD_FAILED : CMD_OK;
}

static int walk(struct pinning *p, const char *path)
{
	char *mountpoint = cmd_mount_of(path);
	int r = -1;

	if (!mountpoint)
		return CMD_FAILED;
	collecting = p;
	r = nftw(path, collect, 32, FTW_PHYS | FTW_MOUNT);
	if (r < 0)
		fprintf(stderr, "attachfs: '%s': %s\n", path, strerror(errno));
	free(mountpoint);
	return r < 0 ? CMD_FAILED : CMD_OK;
}

int cmd_run_pin(const struct cmd_args *a)
{
	struct pinning p = {.unpin = !strcmp(a->command->name, "unpin"),
			    .terminal = isatty(STDERR_FILENO) && isatty(STDOUT_FILENO)};
	int status = CMD_OK;

	for (unsigned i = 0; i < a->n_words && status == CMD_OK; i++)
		status = walk(&p, a->words[i]);
	if (status == CMD_OK)
		status = pin_all(&p);
	for (size_t i = 0; i < p.count; i++)
		free(p.paths[i]);
	free(p.paths);
	return status;
}
