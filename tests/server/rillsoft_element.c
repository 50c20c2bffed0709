/* SPDX-License-Identifier: MIT */
/*
 * Elements of a project's plan: tasks and subprojects, known by a UUID.
 *
 * A UUID says which project and which row it stands for, so that none need be kept and a restarted
 * emulator gives out the same: its first 60 free bits are the project's, made of its name; the other 62
 * the row's number, scrambled by a Feistel network of four rounds. Row 0 is the project itself.
 */
#include "rillsoft.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define HALF_BITS 31
#define HALF_MASK 0x7fffffffu
#define ROUNDS	  4

#define SUBPROJECT "Subproject" /* elements named so are no tasks (README.md) */

static uint64_t project_key(const struct collection *project)
{
	return hash_bytes(project->name, strlen(project->name), 0x5249) >> 4;
}

static uint32_t round_value(uint64_t key, int round, uint32_t half)
{
	return (uint32_t)hash_bytes(&half, sizeof(half), key + (uint64_t)round) & HALF_MASK;
}

static uint64_t scramble(uint64_t key, uint64_t row)
{
	uint32_t left = (uint32_t)(row >> HALF_BITS) & HALF_MASK;
	uint32_t right = (uint32_t)row & HALF_MASK;

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t next = left ^ round_value(key, i, right);

		left = right;
		right = next;
	}
	return (uint64_t)left << HALF_BITS | right;
}

static uint64_t unscramble(uint64_t key, uint64_t scrambled)
{
	uint32_t left = (uint32_t)(scrambled >> HALF_BITS) & HALF_MASK;
	uint32_t right = (uint32_t)scrambled & HALF_MASK;

	for (int i = ROUNDS - 1; i >= 0; i--) {
		uint32_t last = right ^ round_value(key, i, left);

		right = left;
		left = last;
	}
	return (uint64_t)left << HALF_BITS | right;
}

void ris_uuid(const struct collection *project, int64_t row, char uuid[static RIS_UUID_SIZE])
{
	uint64_t key = project_key(project);
	uint64_t low = UINT64_C(1) << 63 | scramble(key, (uint64_t)row);

	snprintf(uuid, RIS_UUID_SIZE, "%08x-%04x-4%03x-%04x-%012" PRIx64, (unsigned)(key >> 28),
		 (unsigned)(key >> 12 & 0xffff), (unsigned)(key & 0xfff), (unsigned)(low >> 48),
		 low & UINT64_C(0xffffffffffff));
}

int64_t ris_uuid_row(const struct collection *project, const char *uuid)
{
	uint64_t key = project_key(project);
	char same[RIS_UUID_SIZE];
	uint64_t top, low;
	int64_t row;

	if (strlen(uuid) != RIS_UUID_SIZE - 1 ||
	    sscanf(uuid + 19, "%4" SCNx64 "-%12" SCNx64, &top, &low) != 2)
		return -1;
	row = (int64_t)unscramble(key, (top << 48 | low) & ~(UINT64_C(1) << 63));
	ris_uuid(project, row, same);
	return strcasecmp(uuid, same) == 0 ? row : -1;
}

static bool is_task(const struct record *r)
{
	const json_t *kind = json_object_get(r->fields, "kind");

	return json_is_string(kind) && strcmp(json_string_value(kind), "task") == 0;
}

bool ris_element_takes_documents(const struct ris_call *c, const struct collection *project,
				 int64_t row)
{
	const struct record *r = row > 0 ? store_record(project, row) : NULL;
	bool any = ris_setting(c, RIS_SET_PARENTS) != 0;

	if (row == 0)
		return any;
	return r && (any || is_task(r));
}

void rillsoft_record_id(const struct record *r, char id[REMOTE_ID_SIZE])
{
	if (strcmp(r->collection->name, RIS_ATTACHMENTS) == 0)
		snprintf(id, REMOTE_ID_SIZE, "%s", r->name.ptr);
	else
		ris_uuid(r->collection, r->row.id, id);
}

void rillsoft_dress_record(struct record *r)
{
	bool sub = r->name.ptr && strncmp(r->name.ptr, SUBPROJECT, strlen(SUBPROJECT)) == 0;

	json_object_set_new(r->fields, "kind", json_string(sub ? "subproject" : "task"));
}
