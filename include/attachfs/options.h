/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_OPTIONS_H
#define ATTACHFS_OPTIONS_H

/*
 * What the user can set. One table (fs/options_table.c) gives each option its name, kind, default, range
 * and help, and feeds -o, the config file, --help and the man page. Values are set in the order:
 * defaults, /etc/attachfs/config, ~/.config/attachfs/config (section NAME), -o. Single-threaded:
 * options are read before threads start and are constant afterwards.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <attachfs/log.h>

enum options_system {
	OPTIONS_SYSTEM_NONE,
	OPTIONS_SYSTEM_PERSCOM,
	OPTIONS_SYSTEM_RILLSOFT,
	OPTIONS_SYSTEM_ENTERPRISE_TESTER,
	OPTIONS_SYSTEM_SERVICEMAX,
};

enum options_write { OPTIONS_WRITE_BACK, OPTIONS_WRITE_THROUGH };
enum options_fsync { OPTIONS_FSYNC_LOCAL, OPTIONS_FSYNC_REMOTE };
enum options_names { OPTIONS_NAMES_LABEL, OPTIONS_NAMES_FILENAME };

enum options_override {
	OPTIONS_OVERRIDE_HEADER,
	OPTIONS_OVERRIDE_FIELD,
	OPTIONS_OVERRIDE_BOTH,
	OPTIONS_OVERRIDE_NONE, /* a real PUT */
};
enum options_multipart { OPTIONS_MULTIPART_MIXED, OPTIONS_MULTIPART_FORM };

/* Bytes a second, 0 = no limit. */
struct options_rates {
	uint64_t up, down;
};

struct options {
	/* what to mount */
	enum options_system system;
	char *source;	/* as given, "perscom:https://..." */
	char *base_url; /* the part after the system, no trailing '/' */
	char *mountpoint;

	/* credentials; the strings of kind "secret" print as <set> */
	char *token_file;
	char *token_command;
	char *user;
	char *password_file;
	char *client_id;
	char *tenant; /* PERSCOM's X-Perscom-Id */

	char *collections; /* ':'-separated, NULL = the system's default */
	char *client;
	char *attachments;	   /* Rillsoft: ids of family 1, ':'-separated; NULL = none */
	char *project, *portfolio; /* Rillsoft: where those belong to; NULL = not said */
	enum options_override method_override; /* Rillsoft: how a POST says that it is a PUT */
	enum options_multipart multipart;      /* Enterprise Tester: the form of an upload */

	char *cache_dir; /* never NULL after options_finish() */
	uint64_t cache_size_bytes;
	uint64_t cache_free_bytes;

	enum options_write write;
	enum options_fsync fsync;
	double settle_s;
	double timeout_s;
	double poll_s;
	double poll_idle_s;
	unsigned slots;
	struct options_rates bwlimit;

	enum options_names names;
	char *local_names;
	char *indexers; /* programs, ':'-separated globs; NULL = none */

	char *cacert;
	bool insecure_http;
	char *proxy;

	enum log_level log;
	char *log_file;

	/* what every FUSE mount has */
	bool read_only;
	bool allow_other;
	bool noexec;
	int64_t uid, gid; /* -1 = the mounting user's */
	int umask;	  /* -1 = none given */
	char *fuse_options; /* the rest of the generic mount options, comma-separated, to hand to libfuse; NULL = none */

	/* paths a vendor has not documented (url templates), NULL = the reference's default */
	char *template_documents;
	char *template_download;
	char *template_delete;
	char *template_folders;
	char *template_attachment;

	bool foreground;

	/* by row of the table and one more for source: where the value came from; NULL = not kept */
	char **origins;
	const char *setting_from; /* what is set now comes from there; NULL = the command line */
};

/* Everything at its default. 0 or -ENOMEM. */
int options_init(struct options *o);
/* Remember from now on where values come from, for options_print_values(). 0 or -ENOMEM. */
int options_keep_origins(struct options *o);
void options_clear(struct options *o);

/*
 * Take one "name" or "name=value" pair. 0; -EINVAL with a message in @message (@size bytes):
 * unknown option with the nearest known one, bad value with what is allowed, or a flag given a
 * value. An empty value ("proxy=") unsets a string. "user" without a value is fstab's and ignored.
 */
int options_set(struct options *o, const char *pair, char *message, size_t size);

/*
 * Take a whole -o argument: pairs separated by ',' ("\," is a comma in a value, "\\" a backslash).
 * Errors as options_set().
 */
int options_set_list(struct options *o, const char *list, char *message, size_t size);

/*
 * Read section @name of the config file @path. 0; -ENOENT: no such file or section; -EINVAL with
 * file and line in @message. The section's key "source" gives the source, "include = OTHER" takes
 * what section OTHER says, from this file and the two of options_set_source(), as if it stood there.
 * Flags are written "ro = yes" or "= no".
 */
int options_read_config(struct options *o, const char *path, const char *name, char *message,
			size_t size);

/*
 * Take SOURCE ("system:url", or the NAME of a config section, whose values are set here: call it
 * before the -o lists, which go over them). After a section, @source and @base_url are those of its
 * key "source". 0; -EINVAL with a message that lists the systems, or says where the section was
 * looked for.
 */
int options_set_source(struct options *o, const char *source, char *message, size_t size);

/*
 * Check what belongs together and fill in what depends on the environment (cache_dir from
 * XDG_CACHE_HOME or HOME; http refused unless the host is loopback or insecure_http is set). Paths
 * become absolute, "~/" is the user's home. 0 or -EINVAL with a message.
 */
int options_finish(struct options *o, char *message, size_t size);

/*
 * What holds, as a section of a config file called @name, with where each value came from behind a
 * ';'. Secrets are "<set>". Only with options_keep_origins().
 */
void options_print_values(const struct options *o, const char *name, FILE *f);
/* The names of all sections of the config files, and of all systems with a ':', a line each. */
void options_print_sections(FILE *f);
void options_print_systems(FILE *f);

/* The option part of --help: one line each, from the table. */
void options_print_help(FILE *f);

/* The option part of the man page in roff, from the same table. */
void options_print_man(FILE *f);

/*
 * Walk the table: name, kind ("string", "path", "size", "seconds", "number", "octal", "flag",
 * "choice a|b", "secret"; for generic mount options "mount" = handed to libfuse, "ignored" = taken
 * and dropped; "x-*" is a prefix), default as text (NULL = none), help. For completions and tests.
 * False past the end.
 */
bool options_describe(size_t index, const char **ret_name, const char **ret_kind,
		      const char **ret_default, const char **ret_help);

#endif
