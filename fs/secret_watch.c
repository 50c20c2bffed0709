/* SPDX-License-Identifier: MIT */

/*
 * The directories are watched, not the files: editors and deployment tools put another file in the
 * place of the old one, and some of them (a mounted Kubernetes secret) turn a symbolic link beside
 * it, whose name begins with "..". What happened to the name is no matter; whether the file is
 * another one now, or has other times or another size, tells.
 */

#include "secret_watch.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/log.h>

#define FILES_MAX 4
#define PAUSE_MS  50 /* one look for all the steps of a replacement */
#define EVENTS	  (IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ATTRIB)

struct watched {
	char *path;
	const char *name; /* in path */
	struct stat last; /* st_ino 0 = it was not there */
};

struct secret_watch {
	struct watched files[FILES_MAX];
	unsigned n;
	int inotify, stop; /* an eventfd */
	pthread_t thread;
	bool started;
	void (*changed)(void *ctx);
	void *ctx;
};

static bool has_changed(struct watched *f)
{
	struct stat now;
	bool changed;

	if (stat(f->path, &now) < 0)
		memset(&now, 0, sizeof(now));
	changed = now.st_ino != f->last.st_ino || now.st_dev != f->last.st_dev ||
		  now.st_size != f->last.st_size || now.st_mode != f->last.st_mode ||
		  now.st_mtim.tv_sec != f->last.st_mtim.tv_sec ||
		  now.st_mtim.tv_nsec != f->last.st_mtim.tv_nsec;
	f->last = now;
	return changed && now.st_ino;
}

static bool is_about(const struct secret_watch *w, const char *name)
{
	for (unsigned i = 0; i < w->n; i++)
		if (!strcmp(name, w->files[i].name) || !strncmp(name, "..", 2))
			return true;
	return false;
}

/* Takes all events there are. True: one is about a file of ours. */
static bool read_events(const struct secret_watch *w)
{
	char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool about = false;
	ssize_t n;

	while ((n = read(w->inotify, buffer, sizeof(buffer))) > 0)
		for (char *p = buffer; p < buffer + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			about |= (e->mask & IN_Q_OVERFLOW) || (e->len && is_about(w, e->name));
			p += sizeof(*e) + e->len;
		}
	return about;
}

static bool look(struct secret_watch *w)
{
	bool changed = false;

	for (unsigned i = 0; i < w->n; i++)
		changed |= has_changed(&w->files[i]);
	return changed;
}

static void *watch_main(void *arg)
{
	struct secret_watch *w = arg;
	struct pollfd fds[] = {{.fd = w->stop, .events = POLLIN},
			       {.fd = w->inotify, .events = POLLIN}};
	bool soon = false;

	for (;;) {
		int n = poll(fds, 2, soon ? PAUSE_MS : -1);

		if (n < 0 && errno != EINTR)
			return NULL;
		if (n > 0 && fds[0].revents)
			return NULL;
		if (n > 0 && fds[1].revents) {
			soon |= read_events(w);
			continue;
		}
		if (n == 0 && soon && look(w))
			w->changed(w->ctx);
		soon = n != 0 && soon;
	}
}

static int add_file(struct secret_watch *w, const char *path)
{
	struct watched *f = &w->files[w->n];
	char dir[PATH_MAX];
	char *slash;

	f->path = strdup(path);
	if (!f->path || strlen(path) >= sizeof(dir))
		return -ENOMEM;
	slash = strrchr(f->path, '/');
	f->name = slash ? slash + 1 : f->path;
	w->n++;
	has_changed(f);
	strcpy(dir, path);
	return inotify_add_watch(w->inotify, dirname(dir), EVENTS) < 0 ? -errno : 0;
}

int secret_watch_new(const char *const *paths, unsigned n, void (*changed)(void *ctx), void *ctx,
		     struct secret_watch **ret_watch)
{
	struct secret_watch *w = calloc(1, sizeof(*w));
	int r = 0;

	*ret_watch = NULL;
	if (!w)
		return -ENOMEM;
	w->changed = changed;
	w->ctx = ctx;
	w->stop = eventfd(0, EFD_CLOEXEC);
	w->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->stop < 0 || w->inotify < 0)
		r = -errno;
	for (unsigned i = 0; !r && i < n && w->n < FILES_MAX; i++)
		if (paths[i])
			r = add_file(w, paths[i]);
	if (!r && w->n)
		r = -pthread_create(&w->thread, NULL, watch_main, w);
	w->started = !r && w->n;
	if (!w->started) {
		secret_watch_free(w);
		return r;
	}
	pthread_setname_np(w->thread, "attachfs-secret");
	*ret_watch = w;
	return 0;
}

void secret_watch_free(struct secret_watch *w)
{
	if (!w)
		return;
	if (w->started) {
		if (eventfd_write(w->stop, 1) < 0)
			log_warning("secret: cannot end the watch: %s", strerror(errno));
		pthread_join(w->thread, NULL);
	}
	if (w->inotify >= 0)
		close(w->inotify);
	if (w->stop >= 0)
		close(w->stop);
	for (unsigned i = 0; i < w->n; i++)
		free(w->files[i].path);
	free(w);
}
