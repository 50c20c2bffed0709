/* SPDX-License-Identifier: MIT */

/*
 * By the system calls themselves: libcap would be one more library for three of them.
 *
 * A user's daemon must not give up more: fusermount3, which mounts and unmounts for it, is setuid
 * root, and would run with what is left here. Root needs no fusermount3.
 */
#include "privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const unsigned needed[] = {CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAP_DAC_OVERRIDE};

static bool is_needed(unsigned cap)
{
	for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
		if (needed[i] == cap)
			return true;
	return false;
}

/* What a program that is started can get at most: setuid, by its file, or since it is root's. */
static int drop_for_programs(void)
{
	for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if (!is_needed(cap) && prctl(PR_CAPBSET_READ, cap) == 1 &&
		    prctl(PR_CAPBSET_DROP, cap) < 0)
			return -errno;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

static int drop_own(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		uint32_t kept = 0;

		for (unsigned bit = 0; bit < 32; bit++)
			if (is_needed(i * 32 + bit))
				kept |= UINT32_C(1) << bit;
		data[i].permitted &= kept;
		data[i].effective &= kept;
		data[i].inheritable = 0;
	}
	/* what is in the ambient set goes with the inheritable one */
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

int privileges_drop(bool starts_programs)
{
	int r = geteuid() == 0 && !starts_programs ? drop_for_programs() : 0;
	int own = drop_own();

	return own < 0 ? own : r;
}
