/* SPDX-License-Identifier: MIT */

/* Which options hold for a source or a section, and where each of them comes from. */

#include "cmd.h"

#include <stdlib.h>
#include <string.h>

#include <attachfs/options.h>

static int usage(void)
{
	fputs("usage: attachfs config show [-o opt,...] SOURCE|NAME\n"
	      "       attachfs config --help says more\n",
	      stderr);
	return CMD_USAGE;
}

/* In the order in which a mount reads them: SOURCE or NAME, then each -o. */
static int read_all(struct options *o, const char *source, int argc, char **argv, char *message,
		    size_t size)
{
	int r = options_keep_origins(o);

	if (r == 0)
		r = options_set_source(o, source, message, size);
	for (int i = 2; i < argc && r == 0; i++)
		if (!strncmp(argv[i], "-o", 2))
			r = options_set_list(o, argv[i][2] ? argv[i] + 2 : argv[++i], message,
					     size);
	return r;
}

int cmd_run_config(int argc, char **argv)
{
	char message[1024] = "";
	const char *source = NULL;
	struct options o;
	int r;

	if (argc < 2 || strcmp(argv[1], "show"))
		return usage();
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "-o") && ++i == argc)
			return usage();
		if (strncmp(argv[i], "-o", 2) && strcmp(argv[i - 1], "-o")) {
			if (source || argv[i][0] == '-')
				return usage();
			source = argv[i];
		}
	}
	if (!source)
		return usage();
	r = options_init(&o);
	if (r == 0)
		r = read_all(&o, source, argc, argv, message, sizeof(message));
	if (r == 0) {
		/* what is missing or contradicts itself is said after what there is */
		r = options_finish(&o, message, sizeof(message));
		options_print_values(&o, strpbrk(source, ":/") ? "NAME" : source, stdout);
		fflush(stdout);
	}
	if (r < 0)
		fprintf(stderr, "attachfs: %s\n", *message ? message : strerror(-r));
	options_clear(&o);
	return r == 0 ? CMD_OK : CMD_FAILED;
}
