/* SPDX-License-Identifier: MIT */

/*
 * What of logind a daemon speaks with that delays a shutdown: Inhibit() and PrepareForShutdown, on
 * the bus that DBUS_SYSTEM_BUS_ADDRESS names. Says "ready", "taken WHAT WHO MODE" and "released" on
 * standard output, a line each; "shutdown" on standard input begins one.
 */

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <systemd/sd-bus.h>

#define NAME	  "org.freedesktop.login1"
#define PATH	  "/org/freedesktop/login1"
#define INTERFACE "org.freedesktop.login1.Manager"
#define LOCKS	  16

static int locks[LOCKS]; /* our ends; 0 = free */

static int on_inhibit(sd_bus_message *m, void *ctx, sd_bus_error *error)
{
	const char *what, *who, *why, *mode;
	int ends[2], r = sd_bus_message_read(m, "ssss", &what, &who, &why, &mode);

	(void)ctx, (void)error;
	if (r < 0)
		return r;
	for (int i = 0; i < LOCKS; i++) {
		if (locks[i])
			continue;
		if (pipe(ends) < 0)
			return -1;
		locks[i] = ends[0];
		printf("taken %s %s %s\n", what, who, mode);
		r = sd_bus_reply_method_return(m, "h", ends[1]);
		close(ends[1]);
		return r;
	}
	return sd_bus_reply_method_errorf(m, SD_BUS_ERROR_LIMITS_EXCEEDED, "too many");
}

static const sd_bus_vtable table[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("Inhibit", "ssss", "h", on_inhibit, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_SIGNAL("PrepareForShutdown", "b", 0),
	SD_BUS_VTABLE_END,
};

static void check(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "fake-logind: %s: %s\n", what, strerror(-r));
	exit(1);
}

static void look_at_locks(const struct pollfd *fds)
{
	for (int i = 0; i < LOCKS; i++) {
		if (!locks[i] || fds[i].fd != locks[i] || !(fds[i].revents & POLLHUP))
			continue;
		close(locks[i]);
		locks[i] = 0;
		puts("released");
	}
}

/* False: standard input has ended. */
static bool take_word(sd_bus *bus)
{
	char word[32];

	if (!fgets(word, sizeof(word), stdin))
		return false;
	check(sd_bus_emit_signal(bus, PATH, INTERFACE, "PrepareForShutdown", "b", 1), "signal");
	return true;
}

int main(void)
{
	sd_bus *bus = NULL;
	bool more = true;

	setvbuf(stdout, NULL, _IOLBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);
	check(sd_bus_open_system(&bus), "bus");
	check(sd_bus_add_object_vtable(bus, NULL, PATH, INTERFACE, table, NULL), "object");
	check(sd_bus_request_name(bus, NAME, 0), "name");
	puts("ready");
	while (more) {
		struct pollfd fds[LOCKS + 2];
		int r;

		do
			r = sd_bus_process(bus, NULL);
		while (r > 0);
		check(r, "process");
		check(sd_bus_flush(bus), "flush");
		for (int i = 0; i < LOCKS; i++)
			fds[i] = (struct pollfd){.fd = locks[i] ? locks[i] : -1};
		fds[LOCKS] = (struct pollfd){.fd = sd_bus_get_fd(bus), .events = POLLIN};
		fds[LOCKS + 1] = (struct pollfd){.fd = 0, .events = POLLIN};
		poll(fds, LOCKS + 2, -1);
		look_at_locks(fds);
		if (fds[LOCKS + 1].revents)
			more = take_word(bus);
	}
	sd_bus_flush_close_unref(bus);
	return 0;
}
