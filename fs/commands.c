/* SPDX-License-Identifier: MIT */

/*
 * The table of commands, and everything that follows from it alone: finding one, reading its
 * arguments, --help, the man page's part, and what shells complete.
 */

#include "commands.h"

#include <errno.h>
#include <string.h>

#include <attachfs/options.h>

#include "check.h"
#include "cmd.h"

#define SUGGEST_MOST 2 /* letters that may be wrong */
#define WORD_MAX     32
#define ANY_NUMBER   1000000

static const struct command commands[] = {
	{.name = "status",
	 .arguments = "[PATH]",
	 .help = "state, queue, cache and requests of a mount",
	 .more = "Where standard output is no terminal, it is one JSON object, with --watch one a "
		 "line.",
	 .flags = {{"--json", NULL, "one JSON object, as in .attachfs/status"},
		   {"--watch", NULL, "again every second, with rates, until Ctrl-C"}},
	 .most = 1,
	 .run = cmd_run_status},
	{.name = "list",
	 .arguments = "",
	 .help = "all mounts of this user",
	 .more = "A state \"dead\" is a mount whose daemon was killed: mount again, or attachfs "
		 "umount it.",
	 .flags = {{"--json", NULL, "a JSON line each"}},
	 .run = cmd_run_list},
	{.name = "sync",
	 .arguments = "[PATH]",
	 .help = "wait until everything written so far is on the server",
	 .more = "Does not wait for settle=. Shows bytes, files and the time left on a terminal, "
		 "JSON lines otherwise. "
		 "Fails when something is left that the server refused.",
	 .flags = {{"--path", "PATH", "only what is at PATH or below it"},
		   {"--timeout", "SECONDS", "give up after so long, and fail"}},
	 .most = 1,
	 .run = cmd_run_sync},
	{.name = "pending",
	 .arguments = "[PATH]",
	 .help = "what is still to be sent",
	 .more = "A JSON line each where standard output is no terminal.",
	 .flags = {{"--json", NULL, "JSON lines, as in .attachfs/pending"}},
	 .most = 1,
	 .run = cmd_run_pending},
	{.name = "failed",
	 .arguments = "[PATH]",
	 .help = "what the server refused, with its words",
	 .more = "A JSON line each where standard output is no terminal.",
	 .flags = {{"--json", NULL, "JSON lines, as in .attachfs/failed"}},
	 .most = 1,
	 .run = cmd_run_failed},
	{.name = "retry",
	 .arguments = "[PATH]",
	 .help = "read the credentials again, send what was refused again",
	 .most = 1,
	 .run = cmd_run_retry},
	{.name = "conflicts",
	 .arguments = "[PATH] | keep mine|theirs|both FILE...",
	 .help = "copies kept because both sides changed; choose",
	 .more = "FILE is the copy, \"name (conflict HOST TIME).ext\". mine: it takes the place of "
		 "theirs, "
		 "which keeps its identity on the server. theirs: it is removed. both: it stays, "
		 "as \"name (mine).ext\".",
	 .most = ANY_NUMBER,
	 .run = cmd_run_conflicts},
	{.name = "refresh",
	 .arguments = "[PATH]",
	 .help = "look for changes on the server now",
	 .more = "With PATH only there: in that record or collection; of a file, in its "
		 "record. A read-only mount looks everywhere.",
	 .most = 1,
	 .run = cmd_run_refresh},
	{.name = "pin",
	 .arguments = "PATH...",
	 .help = "fetch files and keep them in the cache",
	 .more = "Of a directory: all files that are in it now. Ends when all are here. The same "
		 "as setting the "
		 "attribute user.attachfs.pin of each to 1.",
	 .least = 1,
	 .most = ANY_NUMBER,
	 .run = cmd_run_pin},
	{.name = "unpin",
	 .arguments = "PATH...",
	 .help = "let the cache forget files again when it needs room",
	 .least = 1,
	 .most = ANY_NUMBER,
	 .run = cmd_run_pin},
	{.name = "events",
	 .arguments = "[PATH]",
	 .help = "follow what happens, a JSON line each",
	 .most = 1,
	 .run = cmd_run_events},
	{.name = "cache",
	 .arguments = "[verify|drop] [PATH]",
	 .help = "what is kept here; compare it with its checksums; make room",
	 .more = "Alone: use by collection. verify reads everything that is kept and fails when "
		 "some of it was bad, "
		 "which is then fetched again. drop forgets what the server has and nobody has "
		 "open or pinned. Both hold "
		 "for PATH and what is below it.",
	 .flags = {{"--json", NULL, "JSON lines"}},
	 .most = 2,
	 .run = cmd_run_cache},
	{.name = "ls-records",
	 .arguments = "[PATH]",
	 .help = "the records, with their ids and how much is attached",
	 .more = "Of a collection, or all of them; lists what was never listed, and asks for no "
		 "sizes: of what the server has not told yet it says how many. A JSON line each "
		 "where standard output is no terminal.",
	 .flags = {{"--json", NULL, "JSON lines"}},
	 .most = 1,
	 .run = cmd_run_records},
	{.name = "umount",
	 .arguments = "PATH",
	 .help = "send everything, then unmount",
	 .more = "What could not be sent is said, kept, and sent at the next mount.",
	 .flags = {{"--now", NULL, "do not wait until everything is sent"},
		   {"--lazy", NULL, "also while programs have files open; they may go on"},
		   {"--timeout", "SECONDS", "send for so long at most"}},
	 .least = 1,
	 .most = 1,
	 .run = cmd_run_umount},
	{.name = "check",
	 .arguments = "[-o opt,...] SOURCE|NAME",
	 .help = "what works with these credentials, without mounting",
	 .run_raw = check_run},
	{.name = "config",
	 .arguments = "show [-o opt,...] SOURCE|NAME",
	 .help = "which options hold, and where each comes from",
	 .more = "Secrets are shown as <set>.",
	 .run_raw = cmd_run_config},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

/* ---- help ---- */

static void print_synopsis(const struct command *c, FILE *f)
{
	fprintf(f, "attachfs %s", c->name);
	for (const struct cmd_flag *flag = c->flags; flag->name; flag++)
		fprintf(f, " [%s%s%s]", flag->name, flag->argument ? " " : "",
			flag->argument ? flag->argument : "");
	fprintf(f, "%s%s\n", *c->arguments ? " " : "", c->arguments);
}

/* Words of @text in lines of 78 columns. */
static void print_wrapped(const char *text, FILE *f)
{
	size_t column = 0;

	while (*text) {
		size_t n = strcspn(text, " ");

		if (column && column + 1 + n > 78)
			fputc('\n', f), column = 0;
		column += (size_t)fprintf(f, "%s%.*s", column ? " " : "", (int)n, text);
		text += n + (text[n] == ' ');
	}
	fputc('\n', f);
}

static void print_help_of(const struct command *c, FILE *f)
{
	fputs("usage: ", f);
	print_synopsis(c, f);
	fprintf(f, "\n%c%s.\n", c->help[0] - 'a' + 'A', c->help + 1);
	if (c->more)
		print_wrapped(c->more, f);
	if (c->flags[0].name)
		fputc('\n', f);
	for (const struct cmd_flag *flag = c->flags; flag->name; flag++) {
		char left[40];

		snprintf(left, sizeof(left), "%s %s", flag->name,
			 flag->argument ? flag->argument : "");
		fprintf(f, "  %-20s %s\n", left, flag->help);
	}
	if (strstr(c->arguments, "PATH") && !c->run_raw)
		fprintf(f, "\nPATH is a mountpoint or anything below it%s.\n",
			c->least ? "" : " (default: the working directory)");
	fputs("Exit status: 0 done, 1 failed or something is left, 2 wrong usage.\n", f);
}

int cmd_usage(const struct command *command)
{
	fputs("usage: ", stderr);
	print_synopsis(command, stderr);
	fprintf(stderr, "       attachfs %s --help says more\n", command->name);
	return CMD_USAGE;
}

void commands_print_help(FILE *f)
{
	fputs("commands (PATH: the mountpoint or anything below it; attachfs COMMAND --help says "
	      "more):\n",
	      f);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
}

/* ---- the man page ---- */

/* A dash roff would break, and what it would take for an escape. */
static void put_roff(const char *text, FILE *f)
{
	for (; *text; text++) {
		if (*text == '-')
			fputs("\\-", f);
		else if (*text == '\\')
			fputs("\\e", f);
		else if (*text == '.' || *text == '\'')
			fprintf(f, "\\&%c", *text);
		else
			fputc(*text, f);
	}
}

static void print_man_of(const struct command *c, FILE *f)
{
	fprintf(f, ".TP\n\\fBattachfs %s\\fR", c->name);
	for (const struct cmd_flag *flag = c->flags; flag->name; flag++) {
		fputs(" [\\fB", f);
		put_roff(flag->name, f);
		fputs("\\fR", f);
		if (flag->argument)
			fprintf(f, " \\fI%s\\fR", flag->argument);
		fputs("]", f);
	}
	fputs(" ", f);
	put_roff(c->arguments, f);
	fprintf(f, "\n%c", c->help[0] - 'a' + 'A');
	put_roff(c->help + 1, f);
	fputs(".\n", f);
	if (c->more) {
		put_roff(c->more, f);
		fputs("\n", f);
	}
	for (const struct cmd_flag *flag = c->flags; flag->name; flag++) {
		fputs("\\fB", f);
		put_roff(flag->name, f);
		fputs("\\fR: ", f);
		put_roff(flag->help, f);
		fputs(".\n", f);
	}
}

void commands_print_man(FILE *f)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		print_man_of(&commands[i], f);
}

/* ---- completion ---- */

static bool print_mount(void *ctx, const char *mountpoint)
{
	fprintf(ctx, "%s\n", mountpoint);
	return true;
}

bool commands_complete(const char *what, const char *command, FILE *f)
{
	const struct command *c = command ? find(command) : NULL;
	const char *name, *kind, *standard, *help;

	if (!strcmp(what, "commands"))
		for (size_t i = 0; i < N_COMMANDS; i++)
			fprintf(f, "%s\n", commands[i].name);
	else if (!strcmp(what, "flags"))
		for (const struct cmd_flag *flag = c ? c->flags : NULL; flag && flag->name; flag++)
			fprintf(f, "%s\n", flag->name);
	else if (!strcmp(what, "mounts"))
		cmd_each_mount(print_mount, f);
	else if (!strcmp(what, "sections"))
		options_print_sections(f);
	else if (!strcmp(what, "systems"))
		options_print_systems(f);
	else if (!strcmp(what, "options"))
		for (size_t i = 0; options_describe(i, &name, &kind, &standard, &help); i++)
			fprintf(f, "%s%s\n", name,
				strcmp(kind, "flag") && strcmp(kind, "ignored") &&
						strcmp(kind, "mount")
					? "="
					: "");
	else
		return false;
	return true;
}

/* ---- reading the arguments ---- */

const char *cmd_flag(const struct cmd_args *a, const char *name)
{
	for (size_t i = 0; i < CMD_FLAGS && a->command->flags[i].name; i++)
		if (!strcmp(a->command->flags[i].name, name))
			return a->values[i];
	return NULL;
}

const char *cmd_path(const struct cmd_args *a)
{
	return a->n_words ? a->words[a->n_words - 1] : ".";
}

/* The flag at argv[*at], moved on over its argument. False: said what is wrong. */
static bool take_flag(struct cmd_args *a, int argc, char **argv, int *at)
{
	const char *given = argv[*at];
	size_t len = strcspn(given, "=");

	for (size_t i = 0; i < CMD_FLAGS && a->command->flags[i].name; i++) {
		const struct cmd_flag *flag = &a->command->flags[i];

		if (strlen(flag->name) != len || strncmp(flag->name, given, len))
			continue;
		if (!flag->argument && !given[len]) {
			a->values[i] = "";
			return true;
		}
		if (flag->argument && (given[len] || *at + 1 < argc)) {
			a->values[i] = given[len] ? given + len + 1 : argv[++*at];
			return true;
		}
		fprintf(stderr, "attachfs %s: %s %s\n", a->command->name, flag->name,
			flag->argument ? "needs a value" : "takes no value");
		return false;
	}
	fprintf(stderr, "attachfs %s: unknown option '%s'\n", a->command->name, given);
	return false;
}

static int run(const struct command *c, int argc, char **argv)
{
	struct cmd_args a = {.command = c};
	bool only_words = false;
	int n = 0;

	for (int i = 1; i < argc; i++) {
		if (only_words || argv[i][0] != '-' || !argv[i][1])
			argv[n++] = argv[i];
		else if (!strcmp(argv[i], "--"))
			only_words = true;
		else if (!take_flag(&a, argc, argv, &i))
			return cmd_usage(c);
	}
	a.words = (const char *const *)argv;
	a.n_words = (unsigned)n;
	if (a.n_words < c->least || a.n_words > c->most)
		return cmd_usage(c);
	return c->run(&a);
}

bool commands_run(int argc, char **argv, int *ret_status)
{
	const struct command *c = find(argv[0]);

	if (!c)
		return false;
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		print_help_of(c, stdout);
		*ret_status = CMD_OK;
	} else {
		*ret_status = c->run_raw ? c->run_raw(argc, argv) : run(c, argc, argv);
	}
	return true;
}

/* Letters that differ, or were exchanged, left out or added: as far as SUGGEST_MOST of them. */
static unsigned misspelled(const char *a, const char *b)
{
	unsigned wrong = 0;

	while (*a && *b && wrong <= SUGGEST_MOST) {
		if (*a == *b) {
			a++, b++;
			continue;
		}
		wrong++;
		if (a[1] == b[0] && a[0] == b[1])
			a += 2, b += 2;
		else if (a[1] == b[0])
			a++;
		else if (a[0] == b[1])
			b++;
		else
			a++, b++;
	}
	return wrong + (unsigned)strlen(a) + (unsigned)strlen(b);
}

const char *commands_suggest(const char *word)
{
	unsigned best = SUGGEST_MOST + 1;
	const char *found = NULL;

	if (strlen(word) > WORD_MAX)
		return NULL;
	for (size_t i = 0; i < N_COMMANDS; i++) {
		unsigned wrong = misspelled(word, commands[i].name);

		if (wrong < best) {
			best = wrong;
			found = commands[i].name;
		}
	}
	return found;
}
