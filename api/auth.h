/* SPDX-License-Identifier: MIT */
#ifndef API_AUTH_H
#define API_AUTH_H

/*
 * The credential of a mount: one secret from a file, a command or the environment, and the header
 * line made of it.
 *
 * A secret is read once at the start and again when the server says 401: whoever got the 401 hands
 * in the generation of the header that was refused and is told whether there is another secret now.
 * Reading may take long (a command may ask the network), so it has a thread of its own while it
 * lasts; many 401s at a time cost one reading.
 *
 * Every secret is told to log_add_secret() before it is used, and wiped before its memory is freed.
 */

#include <stdbool.h>
#include <stddef.h>

#include <attachfs/remote.h>

struct auth;

struct auth_config {
	/*
	 * Where the secret may come from; the first that is not NULL (environment: that is set) is
	 * it.
	 */
	const char *file;	 /* refused when others can read it */
	const char *command;	 /* /bin/sh -c, the first line of its output */
	const char *environment; /* a variable's name */
	const char *what;	 /* for messages: "API key" */
	const char *option_file,
		*option_command;     /* the options' names, for messages; command's may be NULL */
	const char *prefix;	     /* of the header line: "Authorization: Bearer " */
	const char *user;	     /* not NULL: HTTP Basic, the secret is this user's password */
	unsigned command_timeout_ms; /* 0 = 30 s */
};

/*
 * Read the secret now (blocks). Strings are copied. 0; -EACCES (none given; the file can be read by
 * others or belongs to somebody else), -ENOENT, -EINVAL (empty, or not fit for a header),
 * -ETIMEDOUT, -EIO (the command failed), -ENOMEM; @message names the remedy.
 */
int auth_new(const struct auth_config *config, struct auth **ret_auth, char *message, size_t size);

/*
 * A reading under way is given up; its waiters have been called when this returns, and nobody is
 * after it.
 */
void auth_stop(struct auth *a);
void auth_free(struct auth *a);

/* The whole header line; free it with auth_free_header(). NULL without memory. */
char *auth_get_header(struct auth *a, unsigned *ret_generation);
void auth_free_header(char *header);

/*
 * The header of @generation was refused: read the secret again unless somebody has done so since.
 * done() is called once, at once or on the reading thread, and must only pass on: @fresh = there is
 * another header now.
 */
typedef void auth_done(void *ctx, bool fresh);
void auth_reload(struct auth *a, unsigned generation, auth_done *done, void *ctx);

/* What a call learned: credentials are good; or they are not, with a line for a person. */
void auth_note_good(struct auth *a);
void auth_note_failed(struct auth *a, const char *message);

/* "put a new API key into FILE": what to do about a refused secret, to finish a message with. */
void auth_describe_remedy(const struct auth *a, char *out, size_t size);

/*
 * Parts of the above that can be tested alone. Both give a malloc()ed secret, trimmed and checked.
 */
int auth_read_file(const char *path, char **ret_secret, char *message, size_t size);
int auth_run_command(const char *command, unsigned timeout_ms, const _Atomic bool *stop,
		     char **ret_secret, char *message, size_t size);

#endif
