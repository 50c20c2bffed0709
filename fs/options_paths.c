/* SPDX-License-Identifier: MIT */

/*
 * Where the user's directories are, and paths that hold when the daemon has left the directory it
 * was started in. A mount from fstab has neither HOME nor XDG_*: then the password database says
 * where its user is at home.
 */

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options_private.h"

/* Where the user is at home; a mount from fstab has no HOME. NULL when nobody knows. malloc()ed. */
static char *home_directory(void)
{
	const char *home = getenv("HOME");
	struct passwd entry, *found = NULL;
	char buffer[4096];

	if (home && *home == '/')
		return strdup(home);
	if (getpwuid_r(geteuid(), &entry, buffer, sizeof(buffer), &found) != 0 || !found ||
	    *found->pw_dir != '/')
		return NULL;
	return strdup(found->pw_dir);
}

char *options_xdg_path(const char *variable, const char *fallback, const char *rest)
{
	const char *base = getenv(variable);
	char *home, *path = NULL;
	int n;

	if (base && *base == '/')
		return asprintf(&path, "%s/%s", base, rest) < 0 ? NULL : path;
	home = home_directory();
	if (!home)
		return NULL;
	n = asprintf(&path, "%s/%s/%s", home, fallback, rest);
	free(home);
	return n < 0 ? NULL : path;
}

/*
 * Make *@path absolute: the daemon leaves the directory it was started in, and no shell has
 * expanded the '~' of "-o token_file=~/token".
 */
static int make_absolute(char **path, const struct complaint *c)
{
	bool at_home = strncmp(*path, "~/", 2) == 0;
	char *base, *absolute = NULL;
	int n;

	if (**path == '/')
		return 0;
	base = at_home ? home_directory() : getcwd(NULL, 0);
	if (!base)
		return options_refuse(
			c, "'%.128s': cannot tell which directory this is relative to", *path);
	n = asprintf(&absolute, "%s/%s", base, *path + (at_home ? 2 : 0));
	free(base);
	if (n < 0)
		return options_refuse_memory(c);
	free(*path);
	*path = absolute;
	return 0;
}

int options_finish_paths(struct options *o, const struct complaint *c)
{
	int r = 0;

	if (!o->cache_dir)
		o->cache_dir = options_xdg_path("XDG_CACHE_HOME", ".cache", "attachfs");
	if (!o->cache_dir)
		return options_refuse(
			c, "no place for the cache: neither XDG_CACHE_HOME nor HOME is set; "
			   "use -o cache_dir=DIR");
	for (size_t i = 0; i < options_n_rows && r == 0; i++) {
		char **field = options_field(o, &options_rows[i]);

		if (options_rows[i].kind == KIND_PATH && *field)
			r = make_absolute(field, c);
	}
	return r;
}
