/* SPDX-License-Identifier: MIT */

/*
 * attachfs [-f] [-o opt,...] SOURCE MOUNTPOINT, or attachfs COMMAND ...: reads the command line,
 * becomes a daemon, serves.
 *
 * In the background the parent waits until the mount is there, or the reason why not, and exits
 * with it: nothing is reported to a terminal that has gone. Until then the child shares its
 * standard error, for what libfuse and fusermount3 have to say. All threads are started in the
 * child.
 *
 * SIGTERM and SIGINT are blocked from before the fork on and wait for the signal thread, so none is
 * lost while the daemon starts. The parent takes them itself; the child then finds nobody to tell
 * that it is ready, and ends.
 *
 * A child of the daemon's is left to watch over its death (guard.h).
 */

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/log.h>
#include <attachfs/options.h>

#include "announce.h"
#include "commands.h"
#include "guard.h"
#include "mount.h"
#include "privileges.h"
#include "version.h"

#define MESSAGE_BYTES 1024
#define STOP_GRACE_MS 2000

static void usage(FILE *f)
{
	fputs("usage: attachfs [-f] [-o opt,...] SOURCE MOUNTPOINT\n"
	      "       attachfs [-f] [-o opt,...] NAME MOUNTPOINT        NAME: a section of the "
	      "config file\n"
	      "       attachfs COMMAND ...\n"
	      "\n"
	      "SOURCE is  perscom:https://api.perscom.io/v2 | rillsoft:https://host/api |\n"
	      "           enterprise-tester:https://host/app/api | servicemax:https://host\n"
	      "\n"
	      "  -f              stay in the foreground, log to standard error\n"
	      "  -o opt,...      options, see below; may be given several times\n"
	      "  -h, --help      this text; after a COMMAND, more on that\n"
	      "  -V, --version   the version\n"
	      "\n",
	      f);
	commands_print_help(f);
	fputs("\noptions:\n", f);
	options_print_help(f);
}

/* ---- the mountpoint ---- */

static int look_at(const char *path, struct statx *ret_st)
{
	/* not what the kernel remembers of a mount that is dead by now */
	return statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_TYPE, ret_st) < 0 ? -errno : 0;
}

/*
 * A mount of ours whose daemon died answers ENOTCONN: take it away, or the new one would lie over
 * it.
 */
static int check_mountpoint(const char *path, char *message, size_t size)
{
	struct statx st;
	int r = look_at(path, &st);

	if (r == -ENOTCONN) {
		char words[MESSAGE_BYTES / 2];

		if (commands_unmount(path, true, words, sizeof(words)) < 0) {
			snprintf(message, size,
				 "'%s' holds a dead mount that cannot be removed: %s", path, words);
			return r;
		}
	}
	if (r == -ENOTCONN) {
		log_info("mount: a dead mount at '%s' was removed", path);
		r = look_at(path, &st);
	}
	if (r == -ENOENT)
		snprintf(message, size, "mountpoint '%s' does not exist: mkdir '%s'", path, path);
	else if (r < 0)
		snprintf(message, size, "mountpoint '%s': %s", path, strerror(-r));
	else if (!S_ISDIR(st.stx_mode))
		r = -ENOTDIR, snprintf(message, size, "mountpoint '%s' is not a directory", path);
	else if (commands_is_mounted(path))
		r = -EBUSY,
		snprintf(message, size,
			 "'%s' is busy: something is mounted there already: attachfs umount '%s'",
			 path, path);
	return r;
}

/* ---- background ---- */

/* In the parent: wait for the child's word. Does not return. */
static void report_and_exit(int fd)
{
	char message[MESSAGE_BYTES];
	ssize_t n, used = 0;
	sigset_t all;

	/* Ctrl-C ends the waiting */
	sigfillset(&all);
	pthread_sigmask(SIG_UNBLOCK, &all, NULL);
	while (used < (ssize_t)sizeof(message) - 1 &&
	       (n = read(fd, message + used, sizeof(message) - 1 - (size_t)used)) != 0) {
		if (n < 0 && errno != EINTR)
			break;
		used += n > 0 ? n : 0;
	}
	message[used] = '\0';
	if (!strcmp(message, "ok"))
		exit(0);
	fprintf(stderr, "attachfs: %s\n",
		used ? message : "the daemon died while starting: see its log");
	exit(1);
}

static int go_background(void)
{
	int fds[2], null;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	fflush(NULL);
	switch (fork()) {
	case -1:
		return -errno;
	case 0:
		break;
	default:
		close(fds[1]);
		report_and_exit(fds[0]);
	}
	close(fds[0]);
	setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		if (null > 2)
			close(null);
	}
	if (chdir("/") < 0)
		log_warning("cannot change to /: %s", strerror(errno));
	return fds[1];
}

static bool tell_parent(int fd, const char *message)
{
	bool told;

	if (fd < 0)
		return true;
	told = write(fd, message, strlen(message)) >= 0;
	if (!told)
		log_warning("the starting process is gone");
	close(fd);
	return told;
}

/*
 * From here on nobody reads what is said on standard error but the log, which has its own
 * descriptor if it is a file.
 */
static void leave_terminal(int parent)
{
	int null = parent >= 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;

	if (null >= 0) {
		dup2(null, 2);
		if (null > 2)
			close(null);
	}
}

/* ---- signals ---- */

struct signals {
	struct mount *m;
	sigset_t set;
	pthread_t thread;
};

static void *signal_main(void *arg)
{
	struct signals *s = arg;
	char words[MESSAGE_BYTES / 2];
	int sig;

	while (sigwait(&s->set, &sig) == 0) {
		if (sig == SIGUSR1)
			return NULL;
		if (sig == SIGHUP)
			continue;
		log_info("signal %d: unmounting", sig);
		if (commands_unmount(s->m->options->mountpoint, true, words, sizeof(words)) < 0)
			log_warning("%s", words);
		mount_stop(s->m, STOP_GRACE_MS);
	}
	return NULL;
}

/* Blocked before any thread starts, so that all threads leave them to the one that waits. */
static void block_signals(struct signals *s)
{
	sigemptyset(&s->set);
	sigaddset(&s->set, SIGTERM);
	sigaddset(&s->set, SIGINT);
	sigaddset(&s->set, SIGHUP);
	sigaddset(&s->set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &s->set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* ---- mounting ---- */

static int serve(const struct options *o, int parent, struct signals *signals)
{
	char message[MESSAGE_BYTES] = "";
	struct announce *announce;
	struct mount *m = NULL;
	int guard, r = privileges_drop(o->token_command);

	if (r < 0)
		log_warning("cannot give up privileges: %s", strerror(-r));
	guard = guard_start();
	r = mount_new(o, &m, message, sizeof(message));
	if (guard < 0)
		log_warning("no guard: %s", strerror(-guard));
	if (!r)
		r = mount_attach(m, message, sizeof(message));
	if (r < 0) {
		tell_parent(parent, message);
		if (parent < 0)
			fprintf(stderr, "attachfs: %s\n", message);
		mount_free(m);
		return 1;
	}
	guard_set(guard, m->connection, o->mountpoint);
	signals->m = m;
	if (pthread_create(&signals->thread, NULL, signal_main, signals) != 0) {
		mount_free(m);
		return 1;
	}
	leave_terminal(parent);
	log_info("mounted %s at %s, version %s", o->source, o->mountpoint, ATTACHFS_VERSION);
	announce = announce_start(m);
	if (!tell_parent(parent, "ok"))
		kill(getpid(), SIGTERM); /* whoever started it has stopped waiting */
	r = mount_serve(m);
	pthread_kill(signals->thread, SIGUSR1);
	pthread_join(signals->thread, NULL);
	log_info("unmounting %s", o->mountpoint);
	announce_end(announce);
	mount_free(m);
	guard_end(guard);
	log_info("unmounted");
	log_close();
	return r < 0 ? 1 : 0;
}

static int prepare(struct options *o, char *message, size_t size)
{
	char *real;
	int r = options_finish(o, message, size);

	if (!r)
		r = check_mountpoint(o->mountpoint, message, size);
	if (r < 0)
		return r;
	real = realpath(o->mountpoint, NULL);
	if (real) {
		free(o->mountpoint);
		o->mountpoint = real;
	}
	/*
	 * a log file named on the command line is relative to where it was typed: opened before the
	 * daemon moves to /
	 */
	r = log_open(o->log_file, o->log);
	if (r < 0)
		snprintf(message, size, "cannot open the log file '%s': %s",
			 o->log_file ? o->log_file : "", strerror(-r));
	return r;
}

/*
 * Options come before and after SOURCE and MOUNTPOINT, as mount(8) and people write them. A NAME's
 * section is read first, so that the command line wins.
 */
struct command_line {
	const char *lists[64];
	size_t n_lists;
	const char *words[2];
	size_t n_words;
	bool foreground;
};

static int take_word(struct command_line *c, const char *word, char *message, size_t size)
{
	if (c->n_words == 2) {
		snprintf(message, size, "'%s': too many arguments", word);
		return -EINVAL;
	}
	c->words[c->n_words++] = word;
	return 0;
}

static int take_list(struct command_line *c, const char *list, char *message, size_t size)
{
	if (!list || c->n_lists == sizeof(c->lists) / sizeof(c->lists[0])) {
		snprintf(message, size, list ? "too many -o" : "-o needs options");
		return -EINVAL;
	}
	c->lists[c->n_lists++] = list;
	return 0;
}

static int tell_what_is_missing(const struct command_line *c, char *message, size_t size)
{
	const char *word = c->n_words ? c->words[0] : NULL;
	const char *near = word && !strchr(word, ':') ? commands_suggest(word) : NULL;

	if (near)
		snprintf(message, size,
			 "'%s' is no command (did you mean '%s'?), and to mount it a mountpoint is "
			 "missing",
			 word, near);
	else if (word)
		snprintf(message, size,
			 "where to mount '%s'?  attachfs [-o opt,...] SOURCE MOUNTPOINT", word);
	else
		snprintf(message, size, "nothing to do: see attachfs --help");
	return -EINVAL;
}

static int parse(int argc, char **argv, struct command_line *c, char *message, size_t size)
{
	bool only_words = false;
	int r = 0;

	for (int i = 1; i < argc && !r; i++) {
		const char *a = argv[i];

		if (only_words || a[0] != '-' || !a[1])
			r = take_word(c, a, message, size);
		else if (!strcmp(a, "--"))
			only_words = true;
		else if (!strcmp(a, "-f") || !strcmp(a, "--foreground"))
			c->foreground = true;
		else if (!strncmp(a, "-o", 2))
			r = take_list(c,
				      a[2]	     ? a + 2
				      : i + 1 < argc ? argv[++i]
						     : NULL,
				      message, size);
		else {
			snprintf(message, size, "unknown argument '%s'  (attachfs --help)", a);
			r = -EINVAL;
		}
	}
	if (!r && c->n_words < 2)
		r = tell_what_is_missing(c, message, size);
	return r;
}

static int set_options(struct options *o, const struct command_line *c, char *message, size_t size)
{
	int r = options_set_source(o, c->words[0], message, size);

	for (size_t i = 0; i < c->n_lists && !r; i++)
		r = options_set_list(o, c->lists[i], message, size);
	if (!r && !(o->mountpoint = strdup(c->words[1])))
		r = -ENOMEM;
	o->foreground |= c->foreground;
	return r;
}

/*
 * Every request comes and goes with buffers of some 100 KiB. They are to come out of memory that is
 * there: to give it back to the kernel each time, and to be given it again, costs more than a small
 * request does.
 */
static void keep_buffers(void)
{
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 8 << 20);
}

static int run_mount(int argc, char **argv)
{
	char message[MESSAGE_BYTES] = "";
	struct command_line c = {0};
	struct signals signals;
	struct options o;
	int r = options_init(&o), parent = -1;

	if (!r)
		r = parse(argc, argv, &c, message, sizeof(message));
	if (!r)
		r = set_options(&o, &c, message, sizeof(message));
	if (!r)
		r = prepare(&o, message, sizeof(message));
	if (r < 0) {
		fprintf(stderr, "attachfs: %s\n", *message ? message : strerror(-r));
		options_clear(&o);
		return r == -EINVAL ? 2 : 1;
	}
	/* the memory of this process holds credentials */
	prctl(PR_SET_DUMPABLE, 0);
	umask(0077);
	block_signals(&signals);
	if (!o.foreground && (parent = go_background()) < 0)
		fprintf(stderr, "attachfs: cannot go into the background: %s\n", strerror(-parent));
	r = o.foreground || parent >= 0 ? serve(&o, parent, &signals) : 1;
	options_clear(&o);
	return r;
}

int main(int argc, char **argv)
{
	int status;

	if (argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
		usage(stdout);
		return 0;
	}
	if (argc > 1 && (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version"))) {
		printf("attachfs %s\n", ATTACHFS_VERSION);
		return 0;
	}
	if (argc > 1 && !strcmp(argv[1], "--man-options")) {
		options_print_man(stdout);
		return 0;
	}
	if (argc > 1 && !strcmp(argv[1], "--man-commands")) {
		commands_print_man(stdout);
		return 0;
	}
	if (argc > 2 && !strcmp(argv[1], "--complete"))
		return commands_complete(argv[2], argc > 3 ? argv[3] : NULL, stdout) ? 0 : 2;
	if (argc > 1 && commands_run(argc - 1, argv + 1, &status))
		return status;
	keep_buffers();
	return run_mount(argc, argv);
}
