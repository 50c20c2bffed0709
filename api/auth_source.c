/* SPDX-License-Identifier: MIT */

/*
 * Where a secret comes from: a file that nobody else can read, or the first line a command prints.
 * Both block; both refuse what could not stand in a header.
 */

#include "auth.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <attachfs/clock.h>

#define SECRET_MAX 16384 /* a JWT has 1-2 KiB */
#define POLL_MS	   50

extern char **environ;

/*
 * The first line of @text without blanks around it, in place; -EINVAL when that is empty or no
 * header's text.
 */
static int trim_secret(char *text, const char *where, char **ret_secret, char *message, size_t size)
{
	char *begin = text + strspn(text, " \t\r\n");
	char *end = begin + strcspn(begin, "\r\n");

	while (end > begin && isspace((unsigned char)end[-1]))
		end--;
	*end = '\0';
	if (end == begin) {
		snprintf(message, size, "%s is empty", where);
		return -EINVAL;
	}
	for (const char *p = begin; p < end; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f) {
			snprintf(message, size, "%s holds control characters", where);
			return -EINVAL;
		}
	}
	*ret_secret = strdup(begin);
	return *ret_secret ? 0 : -ENOMEM;
}

/* Everything up to SECRET_MAX; the rest is not looked at. -errno of read(), or the length. */
static ssize_t read_some(int fd, char buffer[SECRET_MAX + 1])
{
	size_t len = 0;

	while (len < SECRET_MAX) {
		ssize_t n = read(fd, buffer + len, SECRET_MAX - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	buffer[len] = '\0';
	return (ssize_t)len;
}

/* Nobody but its owner may have any right to it, and the owner is us or root. */
static int check_file(int fd, const char *path, char *message, size_t size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode)) {
		snprintf(message, size, "%s is a directory", path);
		return -EISDIR;
	}
	if (st.st_mode & 077) {
		snprintf(message, size, "%s can be read by others (mode %03o): chmod 600 %s", path,
			 (unsigned)st.st_mode & 0777, path);
		return -EACCES;
	}
	if (st.st_uid != geteuid() && st.st_uid != 0) {
		snprintf(message, size, "%s belongs to somebody else: chown it to yourself", path);
		return -EACCES;
	}
	return 0;
}

int auth_read_file(const char *path, char **ret_secret, char *message, size_t size)
{
	char buffer[SECRET_MAX + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int r;

	if (fd < 0) {
		r = -errno;
		snprintf(message, size, "cannot open %s: %s", path, strerror(-r));
		return r;
	}
	r = check_file(fd, path, message, size);
	if (r == 0) {
		ssize_t n = read_some(fd, buffer);
		if (n < 0)
			snprintf(message, size, "cannot read %s: %s", path, strerror((int)-n));
		r = n < 0 ? (int)n : trim_secret(buffer, path, ret_secret, message, size);
	}
	close(fd);
	explicit_bzero(buffer, sizeof(buffer));
	return r;
}

/* Ours without its secrets: what the command starts has no business with them. NULL: no memory. */
static char **environment_of_command(void)
{
	size_t n = 0, kept = 0;
	char **copy;

	while (environ && environ[n])
		n++;
	copy = malloc((n + 1) * sizeof(*copy));
	if (!copy)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (strncmp(environ[i], "ATTACHFS_TOKEN=", 15) != 0 &&
		    strncmp(environ[i], "ATTACHFS_PASSWORD=", 18) != 0)
			copy[kept++] = environ[i];
	copy[kept] = NULL;
	return copy;
}

/*
 * /bin/sh -c in a process group of its own, stdin from /dev/null, stdout to @out, no other
 * descriptor but stderr.
 */
static int spawn_shell(const char *command, int out, pid_t *ret_pid)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)command, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, usual;
	char **env = environment_of_command();
	int r;

	if (!env)
		return -ENOMEM;
	sigemptyset(&none);
	sigemptyset(&usual);
	sigaddset(&usual, SIGPIPE);
	sigaddset(&usual, SIGCHLD);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 34)
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
#endif
#endif
	posix_spawnattr_init(&attr);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &usual);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						POSIX_SPAWN_SETSIGDEF);
	r = -posix_spawn(ret_pid, "/bin/sh", &actions, &attr, argv, env);
	free(env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

/*
 * Until the output ends, fills the buffer, or time is up. The length, or -ETIMEDOUT, -ECANCELED,
 * -errno.
 */
static ssize_t read_output(int fd, char buffer[SECRET_MAX + 1], int64_t deadline_ms,
			   const _Atomic bool *stop)
{
	size_t len = 0;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (stop && *stop)
			return -ECANCELED;
		if (clock_mono_ms() >= deadline_ms)
			return -ETIMEDOUT;
		if (poll(&p, 1, POLL_MS) <= 0)
			continue;
		ssize_t n = read(fd, buffer + len, SECRET_MAX - len);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (n > 0)
			len += (size_t)n;
		if (n == 0 || len == SECRET_MAX)
			break;
	}
	buffer[len] = '\0';
	return (ssize_t)len;
}

/* Its exit status: 0..255, 128 + signal; -ETIMEDOUT. Who ignores SIGCHLD gets 0. */
static int wait_for(pid_t pid, int64_t deadline_ms, const _Atomic bool *stop)
{
	for (;;) {
		int status;
		pid_t got = waitpid(pid, &status, WNOHANG);
		if (got == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (got < 0 && errno != EINTR)
			return 0;
		if (clock_mono_ms() >= deadline_ms || (stop && *stop))
			return -ETIMEDOUT;
		poll(NULL, 0, 10);
	}
}

/* What is left of it ends now; it may have left its group by now. */
static void end_command(pid_t pid)
{
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* A shell says so of what it has run for it. */
static void describe_status(int status, char *message, size_t size)
{
	const char *why = status == 126	  ? ": it cannot be executed"
			  : status == 127 ? ": there is no such program"
					  : "";

	if (status > 128)
		snprintf(message, size, "the command was ended by signal %d", status - 128);
	else
		snprintf(message, size, "the command failed with status %d%s", status, why);
}

int auth_run_command(const char *command, unsigned timeout_ms, const _Atomic bool *stop,
		     char **ret_secret, char *message, size_t size)
{
	int64_t deadline_ms = clock_mono_ms() + timeout_ms;
	char buffer[SECRET_MAX + 1] = "";
	int out[2];
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0) {
		int error = -errno;
		snprintf(message, size, "cannot run the command: %s", strerror(-error));
		return error;
	}
	int r = spawn_shell(command, out[1], &pid);
	close(out[1]);
	if (r < 0) {
		close(out[0]);
		snprintf(message, size, "cannot run the command: %s", strerror(-r));
		return r;
	}
	ssize_t n = read_output(out[0], buffer, deadline_ms, stop);
	close(out[0]);
	bool flood = n == SECRET_MAX;
	int status = n < 0 ? (int)n : flood ? -EINVAL : wait_for(pid, deadline_ms, stop);
	if (status < 0) {
		end_command(pid);
		if (flood)
			snprintf(message, size, "the command prints more than %d bytes",
				 SECRET_MAX - 1);
		else if (status == -ETIMEDOUT)
			snprintf(message, size, "the command did not end within %u s",
				 timeout_ms / 1000);
		else
			snprintf(message, size, "cannot read what the command prints: %s",
				 strerror(-status));
		r = status;
	} else if (status > 0) {
		describe_status(status, message, size);
		r = -EIO;
	} else {
		r = trim_secret(buffer, "the command's output", ret_secret, message, size);
	}
	explicit_bzero(buffer, sizeof(buffer));
	return r;
}

void auth_config_init(struct auth_config *c, const struct options *options, const char *token)
{
	*c = (struct auth_config){
		.file = token ? options->token_file : options->password_file,
		.command = options->token_command,
		.environment = token ? "ATTACHFS_TOKEN" : "ATTACHFS_PASSWORD",
		.what = token ? token : "password",
		.option_file = token ? "token_file" : "password_file",
		.option_command = "token_command",
		.prefix = "Authorization: Bearer ",
		.user = token ? NULL : options->user,
		.command_timeout_ms = (unsigned)(options->timeout_s * 1000),
		.may_be_late = options->mountpoint != NULL,
	};
}
