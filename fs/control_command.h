/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_CONTROL_COMMAND_H
#define ATTACHFS_FS_CONTROL_COMMAND_H

/* What a line written to .attachfs/control says. Pure. */

#include <stddef.h>
#include <stdint.h>

enum control_command {
	CONTROL_COMMAND_NONE,
	CONTROL_COMMAND_SYNC,
	CONTROL_COMMAND_REFRESH,
	CONTROL_COMMAND_RETRY,
	CONTROL_COMMAND_VERIFY,
	CONTROL_COMMAND_DROP,
};

/*
 * "NAME", or of some "NAME NUMBER": only at or below that inode, from 1 to 2^64 - 1; *@ret_node 0 = all.
 * One line, whose line feed may be left out. CONTROL_COMMAND_NONE for anything else, down to a blank.
 */
enum control_command control_command_parse(const char *line, size_t len, uint64_t *ret_node);

#endif
