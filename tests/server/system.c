/* SPDX-License-Identifier: MIT */
#include "emulator.h"
#include "perscom.h"

const struct system *const systems[] = {&perscom_system, NULL};
