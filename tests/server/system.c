/* SPDX-License-Identifier: MIT */
#include "emulator.h"

/* Declared here: a system's own header is for its own files, whose names need not differ from others'. */
extern const struct system perscom_system;
extern const struct system servicemax_system;
extern const struct system enterprise_tester_system;
extern const struct system rillsoft_system;

const struct system *const systems[] = {
	&perscom_system, &servicemax_system, &enterprise_tester_system, &rillsoft_system, NULL,
};
