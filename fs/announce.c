/* SPDX-License-Identifier: MIT */
#include "announce.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/log.h>

#include "mount.h"
#include "status.h"
#include "sync.h"

#define STARTING_MS 10
#define CHANGES_MS  1000
#define TEXT_BYTES  512

struct announce {
	struct mount *m;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool end;	       /* lock */
	char told[TEXT_BYTES]; /* the thread's: the last STATUS */
};

static void send_text(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	memcpy(to.sun_path, path, strlen(path));
	if (to.sun_path[0] == '@')
		to.sun_path[0] = '\0';
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
		log_warning("systemd: NOTIFY_SOCKET: %s", strerror(errno));
	close(fd);
}

static void tell_status(struct announce *a, const char *first)
{
	struct sync_counts c;
	char text[TEXT_BYTES];
	unsigned long long left;

	sync_get_counts(a->m->sync, &c);
	left = c.uploads + c.renames + c.deletes;
	snprintf(text, sizeof(text), "%sSTATUS=%s: %s, %llu to send (%llu KiB), %llu refused\n",
		 first, a->m->options->source, status_state(a->m), left,
		 (unsigned long long)(c.bytes + 1023) / 1024, (unsigned long long)c.failed);
	if (!*first && !strcmp(text, a->told))
		return;
	snprintf(a->told, sizeof(a->told), "%s", text + strlen(first));
	send_text(text);
}

static void wait_locked(struct announce *a, long ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += ms % 1000 * 1000000;
	until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	if (!a->end)
		pthread_cond_timedwait(&a->wake, &a->lock, &until);
}

static void *announce_main(void *arg)
{
	struct announce *a = arg;
	bool ready = false;

	pthread_mutex_lock(&a->lock);
	while (!a->end) {
		if (ready || atomic_load(&a->m->greeted)) {
			pthread_mutex_unlock(&a->lock);
			tell_status(a, ready ? "" : "READY=1\n");
			ready = true;
			pthread_mutex_lock(&a->lock);
		}
		wait_locked(a, ready ? CHANGES_MS : STARTING_MS);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

struct announce *announce_start(struct mount *m)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct announce *a;

	if (!path || !*path || strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return NULL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->m = m;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->wake, NULL);
	if (pthread_create(&a->thread, NULL, announce_main, a) == 0)
		return a;
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->lock);
	free(a);
	return NULL;
}

void announce_end(struct announce *a)
{
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->end = true;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	send_text("STOPPING=1\nSTATUS=ending: what is not on the server yet is kept\n");
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->lock);
	free(a);
}
