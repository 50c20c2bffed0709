/* SPDX-License-Identifier: MIT */

/*
 *	free --wanted--> asking --lock--> held --not wanted--> free
 *	                    |--no bus, no logind, refused--> free, and not asked again for RETRY_MS
 *
 * The lock is a descriptor: closed, also by our death, it is gone. The tick wakes
 * the thread by an eventfd, which it polls beside the bus.
 */

#include "inhibit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <systemd/sd-bus.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "mount.h"
#include "sync.h"

#define NAME	    "org.freedesktop.login1"
#define PATH	    "/org/freedesktop/login1"
#define INTERFACE   "org.freedesktop.login1.Manager"
#define RETRY_MS    60000
#define CALL_MAX_US 3000000

struct inhibit {
	struct mount *m;
	pthread_t thread;
	bool started; /* the tick's */
	int wake;     /* eventfd */
	_Atomic bool wanted, end;
	/* the thread's */
	sd_bus *bus; /* NULL = no lock is held */
	int lock;    /* -1 = none */
	int64_t not_before_ms;
};

static int on_signal(sd_bus_message *m, void *ctx, sd_bus_error *error)
{
	struct inhibit *i = ctx;
	int begins = 0;

	(void)error;
	if (sd_bus_message_read(m, "b", &begins) > 0 && begins) {
		log_info("shutdown: sending what the server does not have");
		sync_flush(i->m->sync);
	}
	return 0;
}

static int ask_for_lock(struct inhibit *i)
{
	sd_bus_message *reply = NULL;
	int fd = -1, r;

	r = sd_bus_call_method(i->bus, NAME, PATH, INTERFACE, "Inhibit", NULL, &reply, "ssss",
			       "shutdown", "attachfs", "files are not on the server yet", "delay");
	if (r >= 0)
		r = sd_bus_message_read(reply, "h", &fd);
	/* the message's own goes with it */
	if (r >= 0)
		i->lock = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (r >= 0 && i->lock < 0)
		r = -errno;
	sd_bus_message_unref(reply);
	return r < 0 ? r : 0;
}

static void let_go(struct inhibit *i)
{
	if (i->lock >= 0)
		close(i->lock);
	i->lock = -1;
	i->bus = sd_bus_flush_close_unref(i->bus);
}

static void take(struct inhibit *i)
{
	int r = sd_bus_open_system(&i->bus);

	if (r >= 0)
		r = sd_bus_set_method_call_timeout(i->bus, CALL_MAX_US);
	if (r >= 0)
		r = sd_bus_match_signal(i->bus, NULL, NAME, PATH, INTERFACE, "PrepareForShutdown",
					on_signal, i);
	if (r >= 0)
		r = ask_for_lock(i);
	if (r >= 0)
		return;
	log_debug("shutdown: it cannot be delayed here: %s", strerror(-r));
	let_go(i);
	i->not_before_ms = clock_mono_ms() + RETRY_MS;
}

/* What is to be read from the bus. The lock of a bus that has ended is worth nothing. */
static void listen_to_bus(struct inhibit *i)
{
	int r;

	do
		r = sd_bus_process(i->bus, NULL);
	while (r > 0);
	if (r < 0) {
		let_go(i);
		i->not_before_ms = clock_mono_ms() + RETRY_MS;
	}
}

static void wait_for_news(struct inhibit *i)
{
	struct pollfd fds[] = {{.fd = i->wake, .events = POLLIN}, {.fd = -1}};
	uint64_t n;

	if (i->bus) {
		int events = sd_bus_get_events(i->bus);

		fds[1].fd = sd_bus_get_fd(i->bus);
		fds[1].events = (short)(events < 0 ? POLLIN : events);
	}
	if (poll(fds, 2, -1) > 0 && fds[0].revents && read(i->wake, &n, sizeof(n)) < 0)
		log_debug("shutdown: %s", strerror(errno));
}

static void *inhibit_main(void *arg)
{
	struct inhibit *i = arg;

	while (!atomic_load(&i->end)) {
		bool wanted = atomic_load(&i->wanted);

		if (wanted && !i->bus && clock_mono_ms() >= i->not_before_ms)
			take(i);
		else if (!wanted && i->bus)
			let_go(i);
		if (i->bus)
			listen_to_bus(i);
		wait_for_news(i);
	}
	let_go(i);
	return NULL;
}

struct inhibit *inhibit_new(struct mount *m)
{
	struct inhibit *i = calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	i->m = m;
	i->lock = -1;
	i->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (i->wake >= 0)
		return i;
	free(i);
	return NULL;
}

static void wake(struct inhibit *i)
{
	uint64_t one = 1;

	/* it only fails where the thread has been woken often enough */
	if (write(i->wake, &one, sizeof(one)) < 0)
		log_debug("shutdown: %s", strerror(errno));
}

/* What cannot be sent anyway is no reason to wait. */
static bool is_wanted(struct mount *m)
{
	struct sync_counts c;

	sync_get_counts(m->sync, &c);
	return !sync_is_idle(&c) && !atomic_load(&m->offline) && !m->refused;
}

void inhibit_tick(struct inhibit *i)
{
	bool wanted = i && is_wanted(i->m);

	if (!i || (!wanted && !atomic_load(&i->wanted)))
		return;
	atomic_store(&i->wanted, wanted);
	if (!i->started && pthread_create(&i->thread, NULL, inhibit_main, i) != 0)
		return;
	if (!i->started)
		pthread_setname_np(i->thread, "attachfs-logind");
	i->started = true;
	/* also when it is wanted still: where it was not to be had, it is asked for again some time */
	wake(i);
}

void inhibit_free(struct inhibit *i)
{
	if (!i)
		return;
	atomic_store(&i->end, true);
	if (i->started) {
		wake(i);
		pthread_join(i->thread, NULL);
	}
	close(i->wake);
	free(i);
}
