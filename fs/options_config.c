/* SPDX-License-Identifier: MIT */

/*
 * The config files: sections named after what the user mounts, "name = value" in them with the
 * options of the table, and source. /etc/attachfs/config is read first and the user's own second,
 * so that the user's values stand. inih parses; what it does not tell (the line an option stands
 * in) or reads otherwise than it looks (long and indented lines) is made up for in config_read().
 */

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "options_private.h"

#define SYSTEM_CONFIG "/etc/attachfs/config"
#define INCLUDE_MOST  8 /* sections that include one another */

struct config {
	struct options *o;
	const char *path;
	const char *section;
	FILE *file;
	int line;	/* the one read last */
	int wrong_line; /* the first whose key or value was refused; 0 = none */
	int error;
	unsigned depth; /* sections that include this one */
	bool found;
	bool placed;	/* the text says itself where: in what was included */
	char text[512]; /* why */
};

static int read_section(struct options *o, const char *path, const char *name, unsigned depth,
			const struct complaint *c);

static int config_refuse(struct config *cfg, int r)
{
	cfg->error = r;
	cfg->wrong_line = cfg->line;
	return 0;
}

/*
 * "ro = yes": a config file has no bare words, so a flag has a value here, and may be switched off.
 */
static int set_flag_from_config(struct options *o, const struct row *row, const char *value,
				const struct complaint *c)
{
	static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false",
										    "off", "0"};

	for (size_t i = 0; i < 4; i++) {
		if (strcasecmp(value, yes[i]) == 0)
			return options_set_option(o, row->name, NULL, c);
		if (strcasecmp(value, no[i]) != 0)
			continue;
		options_note_origin(o, row);
		if (row->kind == KIND_FLAG || row->kind == KIND_UNFLAG)
			*(bool *)options_field(o, row) = row->kind == KIND_UNFLAG;
		return 0;
	}
	return options_refuse(c, "%s: '%.64s' is neither yes nor no", row->name, value);
}

/* Take section @name at @depth of all files there are: @path may be neither of the usual two. */
static int read_section_everywhere(struct options *o, const char *path, const char *name,
				   unsigned depth, const struct complaint *c)
{
	char *own = options_xdg_path("XDG_CONFIG_HOME", ".config", "attachfs/config");
	const char *const paths[] = {
		SYSTEM_CONFIG, own,
		path && strcmp(path, SYSTEM_CONFIG) && (!own || strcmp(path, own)) ? path : NULL};
	bool found = false;
	int r = 0;

	for (size_t i = 0; i < 3 && (r == 0 || r == -ENOENT); i++) {
		r = paths[i] ? read_section(o, paths[i], name, depth, c) : -ENOENT;
		found |= r == 0;
	}
	free(own);
	return r == -ENOENT && found ? 0 : r;
}

static int config_include(struct config *cfg, const char *name, const struct complaint *c)
{
	const char *from = cfg->o->setting_from;
	int r;

	if (cfg->depth >= INCLUDE_MOST)
		return options_refuse(c, "include: [%.64s] and others include one another", name);
	r = read_section_everywhere(cfg->o, cfg->path, name, cfg->depth + 1, c);
	cfg->o->setting_from = from;
	cfg->placed = r == -EINVAL;
	if (r == -ENOENT)
		r = options_refuse(c, "include: there is no section [%.64s]", name);
	return r;
}

/*
 * inih calls this for every "name = value"; 0 = wrong. After the first wrong one nothing is taken
 * any more.
 */
static int config_entry(void *arg, const char *section, const char *name, const char *value)
{
	struct config *cfg = arg;
	struct complaint c = {cfg->text, sizeof(cfg->text)};
	const struct row *row = options_find_row(name);
	char from[512];
	int r;

	if (cfg->error)
		return 1;
	if (!*section) {
		options_refuse(&c, "'%.64s' stands before the first [section]", name);
		return config_refuse(cfg, -EINVAL);
	}
	if (strcmp(section, cfg->section) != 0)
		return 1;
	cfg->found = true;
	snprintf(from, sizeof(from), "%s:%d", cfg->path, cfg->line);
	cfg->o->setting_from = from;
	if (strcmp(name, "include") == 0)
		r = config_include(cfg, value, &c);
	else if (strcmp(name, "source") == 0)
		r = options_take_source(cfg->o, value, &c);
	else if (row && !row->argument && row->kind != KIND_IGNORED)
		r = set_flag_from_config(cfg->o, row, value, &c);
	else
		r = options_set_option(cfg->o, name, value, &c);
	cfg->o->setting_from = NULL;
	return r < 0 ? config_refuse(cfg, r) : 1;
}

/*
 * fgets() for inih, which (as distributions build it) does not tell its handler the line. A line
 * longer than inih's buffer would be read as two, and an indented one as the continuation of the
 * value before it: the first is refused, the indentation removed.
 */
static char *config_read(char *line, int size, void *stream)
{
	struct config *cfg = stream;
	size_t n, blanks;

	if (cfg->error || !fgets(line, size, cfg->file))
		return NULL;
	cfg->line++;
	n = strlen(line);
	if (strchr(";#", line[strspn(line, " \t")])) {
		while (n && line[n - 1] != '\n' && fgets(line, size, cfg->file))
			n = strlen(line);
		strcpy(line, "\n");
		return line;
	}
	if (n + 1 == (size_t)size && line[n - 1] != '\n') {
		snprintf(cfg->text, sizeof(cfg->text),
			 "the line is too long (at most %d characters)", size - 2);
		config_refuse(cfg, -EINVAL);
		return NULL;
	}
	blanks = strspn(line, " \t");
	memmove(line, line + blanks, n - blanks + 1);
	return line;
}

static int config_parse(struct config *cfg, const struct complaint *c)
{
	int wrong = ini_parse_stream(config_read, cfg, config_entry, cfg);

	if (wrong == -2 || cfg->error == -ENOMEM)
		return options_refuse_memory(c);
	/* The first wrong line is told, whoever of the two found it. */
	if (wrong > 0 && (!cfg->error || wrong < cfg->wrong_line))
		return options_refuse(c, "%s:%d: neither a [section] nor 'name = value'", cfg->path,
				      wrong);
	if (cfg->error && cfg->placed)
		return options_refuse(c, "%s", cfg->text);
	if (cfg->error)
		return options_refuse(c, "%s:%d: %s", cfg->path, cfg->wrong_line, cfg->text);
	if (ferror(cfg->file))
		return options_refuse(c, "%s: cannot be read", cfg->path);
	return cfg->found ? 0 : -ENOENT;
}

static int read_section(struct options *o, const char *path, const char *name, unsigned depth,
			const struct complaint *c)
{
	struct config cfg = {.o = o, .path = path, .section = name, .depth = depth};
	char reason[128];
	int r;

	cfg.file = fopen(path, "re");
	if (!cfg.file && (errno == ENOENT || errno == ENOTDIR))
		return -ENOENT;
	if (!cfg.file)
		return options_refuse(c, "%s: %s", path, strerror_r(errno, reason, sizeof(reason)));
	r = config_parse(&cfg, c);
	fclose(cfg.file);
	return r;
}

int options_read_config(struct options *o, const char *path, const char *name, char *message,
			size_t size)
{
	struct complaint c = {message, size};

	return read_section(o, path, name, 0, &c);
}

/* Take the section @name of both config files, the user's over the system's. */
static int take_section(struct options *o, const char *name, const struct complaint *c)
{
	char *own = options_xdg_path("XDG_CONFIG_HOME", ".config", "attachfs/config");
	int r = read_section_everywhere(o, NULL, name, 0, c);

	if (r == -ENOENT)
		r = options_refuse(c,
				   "no section [%.64s] in %s%s%s; or give a source as in "
				   "perscom:https://..., the systems are " SYSTEM_NAMES,
				   name, own ? own : "", own ? " or " : "", SYSTEM_CONFIG);
	else if (r == 0 && !o->base_url)
		r = options_refuse(c, "section [%.64s] has no 'source =' in %s%s%s", name,
				   own ? own : "", own ? " or " : "", SYSTEM_CONFIG);
	free(own);
	return r;
}

int options_set_source(struct options *o, const char *source, char *message, size_t size)
{
	struct complaint c = {message, size};

	if (!*source)
		return options_refuse(&c,
				      "SOURCE is empty; give one as in perscom:https://..., the "
				      "systems are " SYSTEM_NAMES);
	if (strpbrk(source, ":/"))
		return options_take_source(o, source, &c);
	return take_section(o, source, &c);
}

static int print_section(void *arg, const char *section, const char *name, const char *value)
{
	struct config *cfg = arg;

	(void)name;
	(void)value;
	if (strcmp(section, cfg->text))
		fprintf(cfg->file, "%s\n", section);
	snprintf(cfg->text, sizeof(cfg->text), "%s", section);
	return 1;
}

void options_print_sections(FILE *f)
{
	char *own = options_xdg_path("XDG_CONFIG_HOME", ".config", "attachfs/config");
	struct config cfg = {.file = f};

	ini_parse(SYSTEM_CONFIG, print_section, &cfg);
	if (own)
		ini_parse(own, print_section, &cfg);
	free(own);
}
