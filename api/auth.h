/* SPDX-License-Identifier: MIT */
#ifndef API_AUTH_H
#define API_AUTH_H

/*
 * The credential of a mount: one secret from a file, a command or the environment, and the header
 * line made of it. Where the secret is a password to log in with, the header's token is what a login
 * over the network brought; until then there is no header, and shortly before the token expires
 * there is none again.
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

/* What a login brought. The strings are malloc()ed, and wiped when they are not needed any more. */
struct auth_login {
	char *token; /* follows the prefix in the header line */
	/* for the next login instead of the password; NULL = none, or still the one it took */
	char *refresh;
	int64_t expires_mono_ms; /* clock_mono_ms() from when on the token is no good; 0 = not told */
};

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
	/*
	 * A command that fails, which may want the network itself, is no error of auth_new(): the state says
	 * so, and it is asked again by the first call that needs a secret, but not at once.
	 */
	bool may_be_late;

	/*
	 * Not NULL: the secret is @user's password (@user is not for Basic then), and this trades
	 * it for a token. @refresh: what the last login left for that, NULL = use the password.
	 * Called on the reading thread, waits for the network by call_wait() of *plain* calls (any
	 * other would wait for this very login), gives up when *@stop. 0; -EACCES: refused, with
	 * @message; -EPERM: refused, but not for the secret, and @message names the remedy; or the
	 * error on the way.
	 */
	int (*login)(struct remote *r, const char *user, const char *secret, const char *refresh,
		     const _Atomic bool *stop, struct auth_login *ret, char *message, size_t size);
	/* At the end, waits 2 s at most. May be NULL. */
	void (*logout)(struct remote *r, const struct auth_login *login);
	struct remote *remote; /* of both */
};

/*
 * Where the options say the secret comes from. @token: a token called so (token_file=,
 * token_command=, ATTACHFS_TOKEN), sent as a bearer. @token NULL: the password of options->user
 * (password_file=, token_command=, ATTACHFS_PASSWORD). The rest of *@c is zeroed; the strings are
 * the options' own.
 */
void auth_config_init(struct auth_config *c, const struct options *options, const char *token);

/*
 * Read the secret now (blocks). Strings are copied. 0, perhaps without a secret (may_be_late); -EACCES (none given; the file can be read by
 * others or belongs to somebody else), -ENOENT, -EINVAL (empty, or not fit for a header),
 * -ETIMEDOUT, -EIO (the command failed), -ENOMEM; @message names the remedy.
 */
int auth_new(const struct auth_config *config, struct auth **ret_auth, char *message, size_t size);

/*
 * A reading under way is given up; its waiters have been called when this returns, and nobody is
 * after it. Who is logged in is logged out: the way to the network must be open yet.
 */
void auth_stop(struct auth *a);
void auth_free(struct auth *a);

/*
 * The whole header line; free it with auth_free_header(). 0; -EAGAIN: a login must come first
 * (auth_reload() with the generation given); -ENOMEM.
 */
int auth_get_header(struct auth *a, char **ret_header, unsigned *ret_generation);
void auth_free_header(char *header);

/*
 * The header of @generation was refused (or there is none): read the secret again, or log in, unless
 * somebody has done so since. done() is called once, at once or on a thread of auth's, and must only
 * pass on. @result: 1 = there is another header now; 0 = there is none, the secret is refused; or
 * the error that was in the way of a login (-ECANCELED: auth_stop()); -ETIMEDOUT when it is not over
 * at @deadline_mono_ms (0 = none), on another thread then. The reading goes on for the others.
 */
typedef void auth_done(void *ctx, int result);
void auth_reload(struct auth *a, unsigned generation, int64_t deadline_mono_ms, auth_done *done,
		 void *ctx);

/* What a call learned: credentials are good; or they are not, with a line for a person. */
void auth_note_good(struct auth *a);
void auth_note_failed(struct auth *a, const char *message);

/* The server took the header of @generation: it answered with something else than 401. */
void auth_note_taken(struct auth *a, unsigned generation);

/* What was in the way of the last login, for who was told an error; "" = nothing. */
void auth_describe_trouble(struct auth *a, char *out, size_t size);

/* "put a new API key into FILE": what to do about a refused secret, to finish a message with. */
void auth_describe_remedy(const struct auth *a, char *out, size_t size);

/*
 * Parts of the above that can be tested alone. Both give a malloc()ed secret, trimmed and checked.
 */
int auth_read_file(const char *path, char **ret_secret, char *message, size_t size);
int auth_run_command(const char *command, unsigned timeout_ms, const _Atomic bool *stop,
		     char **ret_secret, char *message, size_t size);

#endif
