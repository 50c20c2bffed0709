/* SPDX-License-Identifier: MIT */
/* Changes behind the client's back: POST /change (README.md). */
#ifndef EMULATOR_CHANGE_H
#define EMULATOR_CHANGE_H

#include "emulator.h"

/*
 * Carries out {"ops": [...]} in order and answers {"ids": [...]}, one id per op. Stops at the first op
 * that cannot be: NULL and *ret_error; the ops before it stay done. The emulator's lock is held.
 */
json_t *change_apply(struct emulator *emu, const json_t *wanted, char **ret_error);

#endif
