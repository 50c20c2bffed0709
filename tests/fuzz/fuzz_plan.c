/* SPDX-License-Identifier: MIT */
/*
 * Two ways in by the first byte: a history of the model of a server whose every choice is a byte of
 * the input (the fuzzer looks for an order of events that breaks a promise of plan_model.h), or
 * items with any bits set at all, also ones no ledger would hold: then plan_make() must answer with
 * a plan that passes plan_check().
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "plan_model.h"

#define MAX_ITEMS 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_history(const uint8_t *data, size_t size)
{
	struct model m;

	model_init(&m, (enum model_kind)(data[0] % MODEL_KINDS), 0, data + 1, size - 1);
	m.faults = data[0] & 64;
	m.others = data[0] & 32;
	model_history(&m, 1000);
	if (m.breach[0]) {
		fprintf(stderr, "%s\n", m.breach);
		abort();
	}
	model_free(&m);
}

static void read_caps(struct remote_caps *caps, const uint8_t *b)
{
	*caps = (struct remote_caps){
		.rename_in_place = b[0] & 1,
		.move_in_place = b[0] & 2,
		.move_between_collections = b[0] & 4,
		.set_mtime = b[0] & 8,
		.replace_keeps_id = b[0] & 16,
		.names_unique = b[0] & 32,
		.rename_records = b[0] & 64,
		.batch_spans_records = b[0] & 128,
		.create_min_bytes = b[1] & 7,
		.create_max_bytes = (b[1] >> 3) & 15,
		.batch_update = b[2] & 3,
		.batch_remove = (b[2] >> 2) & 3,
		.batch_create = (b[2] >> 4) & 3,
	};
}

static void read_item(struct plan_item *it, uint64_t node, const uint8_t *b)
{
	static const char *const names[] = {"a", "b", "c", ".attachfs-1-0.tmp"};

	*it = (struct plan_item){
		.node = node,
		.is_record = (b[0] & 7) == 7,
		.known = b[0] & 8,
		.known_record = 1 + ((b[0] >> 4) & 1),
		.known_collection = 1 + ((b[0] >> 4) & 1),
		.known_name = b[0] & 8 ? names[(b[0] >> 5) & 3] : NULL,
		.known_name_exact = b[0] & 128,
		.known_filler = (b[1] & 7) == 7,
		.gone = b[1] & 8,
		.local = (b[1] & 48) == 48,
		.record = 1 + ((b[1] >> 6) & 1),
		.collection = 1 + ((b[1] >> 6) & 1),
		.name = names[b[2] & 3],
		.content_differs = b[2] & 4,
		.content_local = b[2] & 8,
		.mtime_differs = b[2] & 16,
		.busy = (b[2] & 0xe0) == 0xe0,
		.size = b[3] & 15,
		.parked = (b[3] & 0x70) == 0x70,
		.open = b[3] & 128,
		.unknown = (b[4] & 7) == 7,
		.content_settled = b[4] & 24,
		.name_settled = b[4] & 96,
		.alone = b[4] & 128,
		.after = b[5] & 31,
		.flight_record = (b[5] >> 5) & 3,
		.flight_name = b[5] & 128 ? names[b[3] & 3] : NULL,
	};
}

static void fuzz_items(const uint8_t *data, size_t size)
{
	struct plan_item items[MAX_ITEMS];
	struct remote_caps caps;
	struct plan p;
	char message[200];
	size_t n = 0;

	if (size < 4)
		return;
	read_caps(&caps, data + 1);
	for (size_t at = 4; at + 6 <= size && n < MAX_ITEMS; at += 6, n++)
		read_item(&items[n], n + 1, data + at);
	if (plan_make(&caps, items, n, &p) < 0)
		abort();
	if (plan_check(&caps, items, n, &p, message, sizeof(message)) < 0) {
		fprintf(stderr, "%s\n", message);
		abort();
	}
	plan_clear(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] & 128)
		fuzz_items(data, size);
	else
		fuzz_history(data, size);
	return 0;
}
