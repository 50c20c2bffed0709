/* SPDX-License-Identifier: MIT */

/*
 * bench-delay MILLISECONDS HOST PORT [BYTES_PER_SECOND]: forwards connections to HOST:PORT as a line with that
 * latency would, and with that bandwidth (default: unlimited), which all connections share, in both directions
 * together. Prints its port on 127.0.0.1, serves until its parent is gone. SIGUSR1: no latency from now on, while
 * something is made ready; SIGUSR2: as before.
 *
 * Where a request begins, on bytes from the client after bytes from the server, those bytes wait for
 * the latency; what follows them in the same direction flows at once, and so does the answer. On a
 * new connection they wait twice as long, for the handshake. Requests on any number of connections
 * wait side by side. (A client that sends requests without waiting for answers would pay once for
 * all of them; none here does.)
 *
 * The line is free for the next bytes when those before have had their time on it; connections that have
 * some take turns.
 *
 * One thread. Bytes go from socket to socket through a pipe without being copied. A connection is
 * looked at whenever something happened to it (edge-triggered), when its wait is over, or when it
 * had more than its turn's worth to move.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIPE_BYTES (1u << 20)
#define TURN_STEPS 16 /* splices before others have their turn */
#define EVENTS	   256
#define TURN_BYTES 16384    /* on a line of limited bandwidth */
#define SLACK_NS   20000000 /* what the line may be behind: a sleep is not exact */

struct way {
	int from, to, pipe[2];
	size_t held; /* bytes in the pipe */
	bool ended;  /* no more will come */
	bool told;   /* and the other side has been told */
};

struct conn {
	struct conn *next;
	struct way up, down;
	int64_t due_ns; /* the request waits until then; 0 = none waits */
	bool fresh;	/* nothing has been sent yet */
	bool turned;	/* the next bytes from the client begin a request */
	bool queued;	/* waits for the line */
	bool again;	/* stopped in the middle, though nothing need happen to it any more */
	bool broken;
};

static struct conn *conns;
static int64_t delay_ns;
static int64_t rate;	/* bytes a second; 0 = unlimited */
static int64_t free_ns; /* the line has sent all that was given to it */
static volatile sig_atomic_t waived;

static void on_signal(int number)
{
	waived = number == SIGUSR1;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static bool line_is_free(struct conn *c)
{
	int64_t now = rate ? now_ns() : 0;

	c->queued = rate && free_ns > now;
	if (rate && free_ns < now - SLACK_NS)
		free_ns = now - SLACK_NS;
	return !c->queued;
}

/* One step: into the pipe, out of it. True when something moved. */
static bool step(struct conn *c, struct way *w)
{
	bool moved = false;
	size_t most;
	ssize_t n;

	if (!w->held && !w->ended) {
		n = splice(w->from, NULL, w->pipe[1], NULL, PIPE_BYTES,
			   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (n > 0)
			w->held = (size_t)n;
		else if (n == 0)
			w->ended = true;
		else if (errno != EAGAIN && errno != EINTR)
			c->broken = true;
	}
	if (w->held && line_is_free(c)) {
		most = rate && w->held > TURN_BYTES ? TURN_BYTES : w->held;
		n = splice(w->pipe[0], NULL, w->to, NULL, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (n > 0) {
			free_ns += rate ? n * INT64_C(1000000000) / rate : 0;
			w->held -= (size_t)n;
			moved = true;
		} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
			c->broken = true;
		}
	}
	if (w->ended && !w->held && !w->told) {
		shutdown(w->to, SHUT_WR);
		w->told = true;
	}
	return moved;
}

/* Whether bytes from the client must wait. */
static bool waits(struct conn *c)
{
	char byte;

	if (c->due_ns) {
		if (now_ns() < c->due_ns)
			return true;
		c->due_ns = 0;
		return false;
	}
	if (!c->turned || c->up.held || recv(c->up.from, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
		return false;
	c->due_ns = waived ? 0 : now_ns() + (c->fresh ? 2 : 1) * delay_ns;
	c->fresh = c->turned = false;
	return c->due_ns != 0;
}

static void pump(struct conn *c)
{
	int steps = 0;
	bool moved = true;

	c->again = c->queued = false;
	while (moved && !c->broken && steps++ < (rate ? 1 : TURN_STEPS)) {
		moved = step(c, &c->down);
		if (moved)
			c->turned = true;
		if (!waits(c))
			moved |= step(c, &c->up);
	}
	c->again = moved;
}

static void close_way(struct way *w)
{
	close(w->pipe[0]);
	close(w->pipe[1]);
}

static bool is_over(const struct conn *c)
{
	return c->broken || (c->up.told && c->down.told);
}

static void remove_over(void)
{
	struct conn **at = &conns;

	while (*at) {
		struct conn *c = *at;

		if (!is_over(c)) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		close_way(&c->up);
		close_way(&c->down);
		close(c->up.from);
		close(c->up.to);
		free(c);
	}
}

static bool watch(int epoll, int fd, struct conn *c)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

static bool open_way(struct way *w, int from, int to)
{
	*w = (struct way){.from = from, .to = to};
	if (pipe2(w->pipe, O_NONBLOCK | O_CLOEXEC) < 0)
		return false;
	fcntl(w->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
	return true;
}

/* Without what it needs the client sees its connection end. */
static void accept_one(int epoll, int near, const struct sockaddr_in *target)
{
	int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct conn *c = calloc(1, sizeof(*c));

	if (!c || far < 0 || connect(far, (const void *)target, sizeof(*target)) < 0) {
		free(c);
		close(near);
		if (far >= 0)
			close(far);
		return;
	}
	if (!open_way(&c->up, near, far) || !open_way(&c->down, far, near) ||
	    !watch(epoll, near, c) || !watch(epoll, far, c)) {
		perror("bench-delay");
		exit(1);
	}
	c->fresh = c->turned = true;
	c->next = conns;
	conns = c;
}

/* Until something is due: 0 when somebody has more to move, -1 when nothing waits. */
static int64_t next_due_ns(void)
{
	int64_t due = INT64_MAX, now = now_ns();

	for (const struct conn *c = conns; c; c = c->next) {
		if (c->again)
			return 0;
		if (c->due_ns && c->due_ns < due)
			due = c->due_ns;
		if (c->queued && free_ns < due)
			due = free_ns;
	}
	return due == INT64_MAX ? -1 : due > now ? due - now : 0;
}

/* Who was the first to find the line free is the last one the next time. */
static void rotate(void)
{
	struct conn *first = conns, **last = &conns;

	if (!rate || !first || !first->next)
		return;
	conns = first->next;
	while (*last)
		last = &(*last)->next;
	first->next = NULL;
	*last = first;
}

static void serve(int epoll, int listener, const struct sockaddr_in *target)
{
	struct epoll_event events[EVENTS];

	for (;;) {
		int64_t wait = next_due_ns();
		struct timespec ts = {.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
		int n = epoll_pwait2(epoll, events, EVENTS, wait < 0 ? NULL : &ts, NULL);
		int64_t now = now_ns();

		for (int i = 0; i < n; i++) {
			int near;

			if (events[i].data.ptr) {
				((struct conn *)events[i].data.ptr)->again = true;
				continue;
			}
			while ((near = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
				accept_one(epoll, near, target);
		}
		for (struct conn *c = conns; c; c = c->next)
			if (c->again || (c->queued && free_ns <= now) ||
			    (c->due_ns && c->due_ns <= now))
				pump(c);
		remove_over();
		rotate();
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in here = {.sin_family = AF_INET}, target = {.sin_family = AF_INET};
	struct rlimit files;
	socklen_t size = sizeof(here);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = {.events = EPOLLIN};
	struct sigaction on_either = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	if (argc < 4 || argc > 5 || inet_pton(AF_INET, argv[2], &target.sin_addr) != 1) {
		fprintf(stderr, "usage: bench-delay MILLISECONDS HOST PORT [BYTES_PER_SECOND]\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	/* both may be on their way: the first is over before the second has its turn */
	sigemptyset(&on_either.sa_mask);
	sigaddset(&on_either.sa_mask, SIGUSR1);
	sigaddset(&on_either.sa_mask, SIGUSR2);
	sigaction(SIGUSR1, &on_either, NULL);
	sigaction(SIGUSR2, &on_either, NULL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	delay_ns = strtol(argv[1], NULL, 10) * INT64_C(1000000);
	if (argc == 5)
		rate = strtoll(argv[4], NULL, 10);
	target.sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10));
	here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (void *)&here, sizeof(here)) < 0 || listen(listener, 1024) < 0 ||
	    getsockname(listener, (void *)&here, &size) < 0 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e) < 0) {
		perror("bench-delay");
		return 1;
	}
	printf("%u\n", ntohs(here.sin_port));
	fflush(stdout);
	serve(epoll, listener, &target);
	return 0;
}
