/* SPDX-License-Identifier: MIT */

/*
 * Any bytes written to .attachfs/control: they are a command only if they are one of those that may be
 * written, to the byte, and then the inode is the one that was said.
 */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../fs/control_command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {
	[CONTROL_COMMAND_SYNC] = "sync",   [CONTROL_COMMAND_REFRESH] = "refresh",
	[CONTROL_COMMAND_RETRY] = "retry", [CONTROL_COMMAND_VERIFY] = "verify",
	[CONTROL_COMMAND_DROP] = "drop",
};

/* As sscanf() and strtoull() see it: another way to the same. */
static enum control_command expected(const char *line, size_t len, uint64_t *ret_node)
{
	char text[128], word[16], *end;

	*ret_node = 0;
	if (len >= sizeof(text) || memchr(line, '\0', len))
		return CONTROL_COMMAND_NONE;
	memcpy(text, line, len);
	text[len] = '\0';
	if (len > 0 && text[len - 1] == '\n')
		text[len - 1] = '\0';
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(text, " "), text);
	for (size_t i = CONTROL_COMMAND_SYNC; i <= CONTROL_COMMAND_DROP; i++) {
		const char *rest = text + strlen(names[i]);

		if (strcmp(word, names[i]) != 0)
			continue;
		if (!*rest)
			return (enum control_command)i;
		errno = 0;
		*ret_node = strtoull(rest + 1, &end, 10);
		if (!*ret_node || errno || *end ||
		    strspn(rest + 1, "0123456789") != strlen(rest + 1) ||
		    i == CONTROL_COMMAND_RETRY)
			break;
		return (enum control_command)i;
	}
	return CONTROL_COMMAND_NONE;
}

static void check(const char *line, size_t len)
{
	uint64_t node = 1, wanted_node;
	enum control_command c = control_command_parse(line, len, &node);

	if (len >= 100) /* no command is longer, but for zeros in front of a number */
		return;
	if (c != expected(line, len, &wanted_node) || (c && node != wanted_node))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *line = malloc(size ? size : 1); /* no byte more than there is */

	if (!line)
		return 0;
	memcpy(line, data, size);
	check(line, size);
	free(line);
	return 0;
}
