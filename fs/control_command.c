/* SPDX-License-Identifier: MIT */

#include "control_command.h"

#include <stdbool.h>
#include <string.h>

static const struct {
	const char *name;
	enum control_command command;
	bool scoped; /* takes an inode */
} commands[] = {
	{"sync", CONTROL_COMMAND_SYNC, true},	 {"refresh", CONTROL_COMMAND_REFRESH, true},
	{"retry", CONTROL_COMMAND_RETRY, false}, {"verify", CONTROL_COMMAND_VERIFY, true},
	{"drop", CONTROL_COMMAND_DROP, true},
};

/* Digits and nothing else; 0 where it is none, or too large. */
static uint64_t number(const char *text, size_t len)
{
	uint64_t n = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned char)text[i] - '0';

		if (digit > 9 || n > (UINT64_MAX - digit) / 10)
			return 0;
		n = n * 10 + digit;
	}
	return n;
}

enum control_command control_command_parse(const char *line, size_t len, uint64_t *ret_node)
{
	*ret_node = 0;
	if (len > 0 && line[len - 1] == '\n')
		len--;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		size_t n = strlen(commands[i].name);

		if (len < n || memcmp(line, commands[i].name, n) != 0)
			continue;
		if (len == n)
			return commands[i].command;
		if (line[n] != ' ' || !commands[i].scoped)
			break;
		*ret_node = number(line + n + 1, len - n - 1);
		return *ret_node ? commands[i].command : CONTROL_COMMAND_NONE;
	}
	return CONTROL_COMMAND_NONE;
}
