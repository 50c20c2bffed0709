/* SPDX-License-Identifier: MIT */
#include "emulator.h"
#include "enterprise_tester.h"
#include "perscom.h"

const struct system *const systems[] = {&perscom_system, &enterprise_tester_system, NULL};
