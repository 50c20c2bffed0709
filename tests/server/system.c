/* SPDX-License-Identifier: MIT */
#include "emulator.h"
#include "perscom.h"
#include "rillsoft.h"

const struct system *const systems[] = {&perscom_system, &rillsoft_system, NULL};
