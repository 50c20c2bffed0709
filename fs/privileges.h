/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_PRIVILEGES_H
#define ATTACHFS_FS_PRIVILEGES_H

/*
 * What the system lets a daemon do beyond what its user may: a daemon of root's (a line of fstab)
 * keeps what mounting takes, and nothing else.
 */

#include <stdbool.h>

/*
 * Gives up all capabilities but those that a mount needs: to mount and unmount and to have the
 * kernel read files itself (CAP_SYS_ADMIN), pipes that hold the largest request
 * (CAP_SYS_RESOURCE), and to reach files of other users that the options name (CAP_DAC_OVERRIDE).
 * A process without any stays as it is. Root's gives up what programs it starts could get, too,
 * unless @starts_programs: these are the user's own (token_command=), and may need it.
 *
 * Before there are threads: it holds for the calling one and those it starts. 0 or -errno, with
 * which it goes on as it was, or with a part given up.
 */
int privileges_drop(bool starts_programs);

#endif
