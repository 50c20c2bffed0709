/* SPDX-License-Identifier: MIT */
/*
 * fs/plan.c: first one plan at a time, items on the left and the calls as a line of text on the
 * right; then whole stories and many random ones against the model of a server (plan_model.h).
 *
 * The text of a plan: "update 1=b+r 2=c; remove 4" is two calls; "=" the name sent, "+r" the record
 * too, "+t" the time too,
 * "!" a filler, "<" whose identity is adopted. ATTACHFS_TEST_SEED and ATTACHFS_TEST_HISTORIES
 * choose the random ones.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plan.h"
#include "plan_model.h"

#define COUNT(array)		  (sizeof(array) / sizeof((array)[0]))
#define EXPECT(caps, items, text) expect(caps, items, COUNT(items), text)

static const struct remote_caps perscom = {
	.rename_in_place = true,
	.move_in_place = true,
	.move_between_collections = true,
	.set_mtime = true,
	.replace_keeps_id = true,
	.rename_records = true,
	.create_min_bytes = 1024,
	.create_max_bytes = 10240000,
	.batch_update = 100,
	.batch_remove = 100,
	.batch_create = 1,
	.batch_spans_records = true,
};
static const struct remote_caps servicemax = {
	.replace_keeps_id = true,
	.names_unique = true,
	.batch_update = 1,
	.batch_remove = 2,
	.batch_create = 3,
};
static const struct remote_caps enterprise_tester = {
	.batch_update = 1, .batch_remove = 1, .batch_create = 1};

/* ---- items ---- */

static struct plan_item wish(uint64_t node, const char *name)
{
	return (struct plan_item){
		.node = node,
		.record = 1,
		.collection = 9,
		.name = name,
		.content_differs = true,
		.content_local = true,
		.size = 5000,
		.content_settled = true,
		.name_settled = true,
	};
}

/* On the server, unchanged, its bytes only there. */
static struct plan_item remote(uint64_t node, const char *name)
{
	struct plan_item it = wish(node, name);

	it.known = it.known_name_exact = true;
	it.known_record = 1;
	it.known_collection = 9;
	it.known_name = name;
	it.content_differs = it.content_local = false;
	return it;
}

static struct plan_item moved(uint64_t node, const char *from, const char *to)
{
	struct plan_item it = remote(node, from);

	it.name = to;
	return it;
}

static struct plan_item gone(uint64_t node, const char *name)
{
	struct plan_item it = remote(node, name);

	it.gone = true;
	return it;
}

static struct plan_item written(struct plan_item it)
{
	it.content_differs = it.content_local = true;
	return it;
}

static struct plan_item cached(struct plan_item it)
{
	it.content_local = true;
	return it;
}

static struct plan_item sized(struct plan_item it, uint64_t size)
{
	it.size = size;
	return it;
}

static struct plan_item in_record(struct plan_item it, uint64_t record)
{
	it.record = record;
	return it;
}

static struct plan_item after(struct plan_item it, uint64_t node)
{
	it.after = node;
	return it;
}

static struct plan_item busy(struct plan_item it)
{
	it.busy = true;
	return it;
}

static struct plan_item parked(struct plan_item it)
{
	it.parked = true;
	return it;
}

static struct plan_item unknown(struct plan_item it)
{
	it.unknown = true;
	return it;
}

static struct plan_item stale(struct plan_item it)
{
	it.stale = true;
	it.known_stale = it.known;
	return it;
}

static struct plan_item local(struct plan_item it)
{
	it.local = true;
	return it;
}

static struct plan_item unsettled(struct plan_item it)
{
	it.content_settled = it.name_settled = false;
	return it;
}

/* ---- text ---- */

static const char *kind_text(enum plan_kind kind)
{
	switch (kind) {
	case PLAN_FORGET:
		return "forget";
	case PLAN_ADOPT:
		return "adopt";
	case PLAN_LOOK:
		return "look";
	case PLAN_VERIFY:
		return "verify";
	case PLAN_FETCH:
		return "fetch";
	case PLAN_CREATE:
		return "create";
	case PLAN_REPLACE:
		return "replace";
	case PLAN_UPDATE:
		return "update";
	case PLAN_REMOVE:
		return "remove";
	case PLAN_UPDATE_RECORDS:
		return "records";
	}
	return "?";
}

static void entry_text(FILE *f, enum plan_kind kind, const struct plan_entry *e,
		       const struct plan_item *items)
{
	fprintf(f, " %llu", (unsigned long long)items[e->item].node);
	if (kind == PLAN_ADOPT || (kind == PLAN_CREATE && e->other != SIZE_MAX))
		fprintf(f, "<%llu", (unsigned long long)items[e->other].node);
	if (e->set_name)
		fprintf(f, "=%s", e->name);
	if (e->set_record && kind != PLAN_CREATE)
		fputs("+r", f);
	if (e->set_mtime)
		fputs("+t", f);
	if (e->filler)
		fputs("!", f);
}

static void expect(const struct remote_caps *caps, const struct plan_item *items, size_t n,
		   const char *text)
{
	struct plan p;
	char message[200] = "", got[1000] = "";
	FILE *f = fmemopen(got, sizeof(got), "w");

	assert_non_null(f);
	assert_int_equal(plan_make(caps, items, n, &p), 0);
	if (plan_check(caps, items, n, &p, message, sizeof(message)) < 0)
		fail_msg("plan_check: %s", message);
	for (size_t k = 0; k < p.n_calls; k++) {
		fprintf(f, "%s%s", k ? "; " : "", kind_text(p.calls[k].kind));
		for (size_t j = 0; j < p.calls[k].n; j++)
			entry_text(f, p.calls[k].kind, &p.entries[p.calls[k].first + j], items);
	}
	fclose(f);
	plan_clear(&p);
	assert_string_equal(got, text);
}

/* ---- one plan: coalescing ---- */

static void test_never_uploaded_renamed_and_deleted_is_nothing_to_send(void **state)
{
	struct plan_item items[] = {wish(1, "c")};

	(void)state;
	items[0].gone = true;
	EXPECT(&perscom, items, "forget 1");
	EXPECT(&servicemax, items, "forget 1");
	EXPECT(&enterprise_tester, items, "forget 1");
}

static void test_renamed_there_and_back_is_nothing(void **state)
{
	struct plan_item items[] = {moved(1, "a", "a"), remote(2, "b")};

	(void)state;
	EXPECT(&perscom, items, "");
	EXPECT(&servicemax, items, "");
	EXPECT(&enterprise_tester, items, "");
}

static void test_many_renames_are_one_batch(void **state)
{
	struct plan_item items[] = {moved(1, "a", "x"), in_record(moved(2, "b", "y"), 2),
				    moved(3, "c", "z")};

	(void)state;
	EXPECT(&perscom, items, "update 1=x 2=y+r 3=z");
}

static void test_batches_end_at_the_limit_of_the_caps(void **state)
{
	struct plan_item items[] = {gone(1, "a"), moved(2, "b", "w"), gone(3, "c"),
				    gone(4, "d"), moved(5, "e", "x"), moved(6, "f", "y")};
	struct remote_caps caps = perscom;

	(void)state;
	caps.batch_update = caps.batch_remove = 2;
	EXPECT(&caps, items, "update 2=w 5=x; update 6=y; remove 1 3; remove 4");
}

static void test_batches_keep_to_a_record_where_the_server_wants_it(void **state)
{
	struct plan_item items[] = {gone(1, "a"), gone(2, "b"), gone(3, "c"), gone(4, "d")};
	struct remote_caps caps = perscom;

	(void)state;
	items[1].known_record = items[3].known_record = 2;
	EXPECT(&caps, items, "remove 1 2 3 4");
	caps.batch_spans_records = false;
	EXPECT(&caps, items, "remove 1 3; remove 2 4");
}

static void test_creates_are_batched_by_record_and_bytes(void **state)
{
	struct plan_item items[] = {wish(1, "a"), in_record(wish(2, "b"), 2), wish(3, "c"),
				    wish(4, "d"), wish(5, "e")};

	(void)state;
	EXPECT(&servicemax, items, "create 1=a 3=c 4=d; create 5=e; create 2=b");
	items[2].size = PLAN_CREATE_BATCH_BYTES;
	EXPECT(&servicemax, items, "create 1=a; create 3=c; create 4=d 5=e; create 2=b");
}

static void test_bisected_items_go_alone(void **state)
{
	struct plan_item items[] = {gone(1, "a"), gone(2, "b"), gone(3, "c"), gone(4, "d")};

	(void)state;
	items[0].alone = items[2].alone = true;
	EXPECT(&perscom, items, "remove 2 4; remove 1; remove 3");
}

/* ---- one plan: who waits ---- */

static void test_busy_and_parked_items_get_no_call(void **state)
{
	struct plan_item items[] = {busy(written(remote(1, "a"))), parked(wish(2, "b")),
				    parked(gone(3, "c")), busy(unknown(wish(4, "d")))};

	(void)state;
	EXPECT(&perscom, items, "");
}

static void test_unknown_outcomes_are_looked_at_once_per_record(void **state)
{
	struct plan_item items[] = {unknown(wish(1, "a")), unknown(in_record(wish(2, "b"), 2)),
				    unknown(gone(3, "c")), unknown(in_record(wish(4, "d"), 2))};

	(void)state;
	EXPECT(&perscom, items, "look 1 3; look 2 4");
	items[3].flight_record = 1; /* moved since */
	EXPECT(&perscom, items, "look 1 3 4; look 2");
}

static void test_nothing_is_overwritten_or_removed_before_a_look_at_its_record(void **state)
{
	struct plan_item items[] = {stale(written(remote(1, "a"))), stale(gone(2, "b")),
				    stale(wish(3, "c")), stale(moved(4, "d", "e")),
				    stale(in_record(wish(5, "f"), 2)), gone(6, "g"),
				    stale(unsettled(written(remote(7, "h"))))};

	(void)state;
	/* what only adds, or changes a name, hurts nobody where ids are what counts */
	EXPECT(&perscom, items, "verify 1 2; update 4=e; remove 6; create 3=c+t; create 5=f+t");
	/* there a new name may be somebody else's by now, and a rename is an upload to one */
	EXPECT(&servicemax, items, "verify 1 2 3; verify 5; remove 6; fetch 4");
	for (size_t i = 0; i < 3; i++)
		items[i].stale = items[i].known_stale = false;
	EXPECT(&perscom, items,
	       "update 4=e; remove 2 6; replace 1+t; create 3=c+t; create 5=f+t");
}

static void test_missing_bytes_are_fetched_before_anything_settles(void **state)
{
	struct plan_item items[] = {unsettled(written(remote(1, "a"))),
				    unsettled(stale(written(moved(2, "b", "c"))))};

	(void)state;
	items[0].content_local = items[1].content_local = false;
	EXPECT(&perscom, items, "fetch 1; fetch 2");
	items[0].local = true;
	EXPECT(&perscom, items, "fetch 2");
}

static void test_unsettled_items_wait_for_their_time(void **state)
{
	struct plan_item items[] = {unsettled(wish(1, "a")), unsettled(moved(2, "b", "c")),
				    unsettled(gone(3, "d")), unsettled(written(remote(4, "e")))};

	(void)state;
	EXPECT(&perscom, items, "");
	items[1].name_settled = items[2].name_settled = items[3].name_settled = true;
	EXPECT(&perscom, items, "update 2=c; remove 3");
	items[0].content_settled = items[3].content_settled = true;
	EXPECT(&perscom, items, "update 2=c; remove 3; replace 4+t; create 1=a+t");
}

static void test_local_names_are_never_sent(void **state)
{
	struct plan_item items[] = {local(wish(1, ".a.swp")), local(moved(2, "b", ".b.swp")),
				    local(gone(3, ".DS_Store")),
				    local(written(remote(4, ".nfs1")))};

	(void)state;
	EXPECT(&perscom, items, "remove 3"); /* the user deleted what others see */
	items[0].gone = true;
	EXPECT(&perscom, items, "forget 1; remove 3");
}

static void test_a_local_name_steps_aside_when_unique_names_need_its_place(void **state)
{
	struct plan_item items[] = {local(cached(moved(1, "a", ".nfs1"))), wish(2, "a")};

	(void)state;
	EXPECT(&servicemax, items, "create 1=.nfs1");
	EXPECT(&perscom, items, "create 2=a+t");
}

static void test_removal_waits_for_what_comes_after(void **state)
{
	struct plan_item items[] = {after(gone(1, "old"), 2), written(remote(2, "f"))};

	(void)state;
	EXPECT(&perscom, items, "replace 2+t");
	items[1].busy = true;
	EXPECT(&perscom, items, "");
	items[1].parked = true;
	EXPECT(&perscom, items, "");
	items[1].busy = items[1].parked = items[1].content_differs = false;
	EXPECT(&perscom, items, "remove 1");
	items[1] = wish(2, "f");
	EXPECT(&perscom, items, "create 2=f+t");
	items[0].after = 77; /* forgotten since */
	EXPECT(&perscom, items, "remove 1; create 2=f+t");
}

static void test_removal_waits_for_who_comes_in_its_place(void **state)
{
	struct plan_item items[] = {gone(1, "f"), parked(wish(2, "f"))};

	(void)state;
	EXPECT(&perscom, items, "");
	items[1] = unsettled(wish(2, "f"));
	EXPECT(&perscom, items, "");
	items[1] = local(wish(2, "f"));
	EXPECT(&perscom, items, "remove 1");
}

static void test_bytes_that_are_read_are_not_removed(void **state)
{
	struct plan_item items[] = {gone(1, "f")};

	(void)state;
	items[0].open = true;
	EXPECT(&perscom, items, "");
	items[0].content_local = true;
	EXPECT(&perscom, items, "remove 1");
}

static void test_bytes_that_are_read_are_fetched_before_they_are_overwritten(void **state)
{
	struct plan_item items[] = {gone(1, "f"), wish(2, "f")};

	(void)state;
	items[0].open = true;
	EXPECT(&perscom, items, "fetch 1");
	items[0].busy = true;
	EXPECT(&perscom, items, "");
	items[0].busy = false;
	items[0].content_local = true;
	EXPECT(&perscom, items, "adopt 2<1");
}

/* ---- one plan: identity ---- */

static void test_rename_over_existing_keeps_the_remote_id(void **state)
{
	struct plan_item items[] = {gone(1, "f"), wish(2, "f")};

	(void)state;
	EXPECT(&perscom, items, "adopt 2<1");
	EXPECT(&servicemax, items, "adopt 2<1");
	EXPECT(&enterprise_tester, items, "create 2<1=f");
	items[1].content_settled = false;
	EXPECT(&perscom, items, "");
}

static void
test_rename_of_a_remote_file_over_another_replaces_it_when_the_bytes_are_here(void **state)
{
	struct plan_item items[] = {gone(1, "b"), cached(moved(2, "a", "b"))};

	(void)state;
	EXPECT(&perscom, items, "adopt 2<1");
	EXPECT(&servicemax, items, "adopt 2<1");
	EXPECT(&enterprise_tester, items, "create 2<1=b");
}

static void
test_rename_of_a_remote_file_over_another_updates_it_when_the_bytes_are_not_here(void **state)
{
	struct plan_item items[] = {gone(1, "b"), moved(2, "a", "b")};

	(void)state;
	EXPECT(&perscom, items, "update 2=b");
	EXPECT(&servicemax, items, "fetch 2");
	EXPECT(&enterprise_tester, items, "fetch 2");
	items[1] = remote(2, "b"); /* acknowledged */
	EXPECT(&perscom, items, "remove 1");
}

static void test_a_deleted_file_in_flight_is_waited_for(void **state)
{
	struct plan_item items[] = {busy(gone(1, "f")), wish(2, "f")};

	(void)state;
	EXPECT(&perscom, items, "");
	items[0] = unknown(gone(1, "f"));
	EXPECT(&perscom, items, "look 1");
	items[0] = parked(gone(1, "f")); /* the server would not delete it, but it may replace it */
	EXPECT(&perscom, items, "adopt 2<1");
}

static void test_an_identity_that_keeps_a_third_content_is_not_adopted(void **state)
{
	struct plan_item items[] = {after(gone(1, "f"), 3), wish(2, "f"),
				    busy(written(remote(3, "g")))};

	(void)state;
	EXPECT(&perscom, items, "create 2=f+t");
	EXPECT(&servicemax, items, "");
	items[0].after = 2; /* its own: renamed back */
	EXPECT(&perscom, items, "adopt 2<1");
	EXPECT(&servicemax, items, "adopt 2<1");
}

/* ---- one plan: contents ---- */

static void test_sizes_a_create_refuses_go_as_filler_first(void **state)
{
	struct plan_item items[] = {sized(wish(1, "a"), 0), sized(wish(2, "b"), 1023),
				    sized(wish(3, "c"), 1024), sized(wish(4, "d"), 10240000),
				    sized(wish(5, "e"), 10240001)};

	(void)state;
	EXPECT(&perscom, items,
	       "create 1=a!; create 2=b!; create 3=c+t; create 4=d+t; create 5=e!");
	items[0] = sized(remote(1, "a"), 0); /* the filler is there */
	items[0].known_filler = items[0].content_local = true;
	expect(&perscom, items, 1, "replace 1+t");
	items[1] = gone(2, "a"); /* replaced by the content, not by the filler */
	expect(&perscom, items, 2, "replace 1+t");
}

static void test_new_name_and_time_go_with_the_new_content(void **state)
{
	struct plan_item items[] = {written(moved(1, "a", "b")),
				    written(in_record(moved(2, "c", "d"), 2))};

	(void)state;
	items[0].mtime_differs = items[1].mtime_differs = true;
	EXPECT(&perscom, items, "update 2=d+r; replace 1=b+t");
	items[0].content_settled = false;
	expect(&perscom, items, 1, "update 1=b");
}

static void test_names_that_are_not_exact_are_set_again(void **state)
{
	struct plan_item items[] = {remote(1, "a\"b"), written(remote(2, "c/d"))};

	(void)state;
	items[0].known_name_exact = items[1].known_name_exact = false;
	EXPECT(&perscom, items, "update 1=a\"b; replace 2=c/d+t");
	EXPECT(&servicemax, items, "replace 2");
}

static void test_a_move_taken_back_in_doubt_is_sent_with_its_record(void **state)
{
	struct plan_item items[] = {remote(1, "a"), written(moved(2, "b", "c"))};

	(void)state;
	items[0].known_name_exact = items[1].known_name_exact = false;
	items[0].known_place_doubt = items[1].known_place_doubt = true;
	EXPECT(&perscom, items, "update 1=a+r 2=c+r");
}

static void test_times_are_sent_where_the_server_has_a_field(void **state)
{
	struct plan_item items[] = {remote(1, "a")};

	(void)state;
	items[0].mtime_differs = true;
	EXPECT(&perscom, items, "update 1+t");
	EXPECT(&servicemax, items, "");
	EXPECT(&enterprise_tester, items, "");
}

static void test_missing_bytes_are_fetched_before_an_upload(void **state)
{
	struct plan_item items[] = {written(remote(1, "a")), moved(2, "b", "c"), wish(3, "d")};

	(void)state;
	items[0].content_local = items[2].content_local = false;
	EXPECT(&perscom, items, "update 2=c; fetch 1; fetch 3");
	EXPECT(&enterprise_tester, items, "fetch 1; fetch 2; fetch 3");
}

static void test_immutable_files_are_created_anew(void **state)
{
	struct plan_item items[] = {written(remote(1, "a")), cached(moved(2, "b", "c")),
				    after(gone(3, "b"), 2)};

	(void)state;
	EXPECT(&enterprise_tester, items, "remove 3; create 1=a; create 2=c");
	items[1] = written(remote(2, "c"));
	EXPECT(&enterprise_tester, items, "create 1=a; create 2=c");
}

static void test_moves_the_server_cannot_do_are_uploads(void **state)
{
	struct plan_item items[] = {cached(in_record(remote(1, "a"), 2)),
				    cached(in_record(remote(2, "b"), 3))};
	struct remote_caps caps = perscom;

	(void)state;
	items[1].collection = 10;
	caps.move_between_collections = false;
	EXPECT(&caps, items, "update 1+r; create 2=b+t");
	caps.move_in_place = false;
	EXPECT(&caps, items, "create 1=a+t; create 2=b+t");
}

static void test_records_are_renamed_in_batches_of_one_collection(void **state)
{
	struct plan_item items[] = {moved(1, "Live fire", "Dry fire"), moved(2, "x", "y"),
				    moved(3, "u", "v"), remote(4, "same")};

	(void)state;
	for (size_t k = 0; k < COUNT(items); k++)
		items[k].is_record = true;
	items[1].known_record = 2;
	EXPECT(&perscom, items, "records 1=Dry fire 3=v; records 2=y");
	EXPECT(&servicemax, items, "");
}

static void test_fields_of_records_go_with_their_names(void **state)
{
	struct plan_item items[] = {moved(1, "Live fire", "Dry fire"), remote(2, "x"),
				    remote(3, "y"), remote(4, "same")};
	struct remote_caps caps = perscom;

	(void)state;
	for (size_t k = 0; k < COUNT(items); k++)
		items[k].is_record = true;
	for (size_t k = 0; k < 3; k++)
		items[k].fields_differ = true;
	caps.set_fields = true;
	EXPECT(&caps, items, "records 1=Dry fire 2 3");
	caps.rename_records = false;
	EXPECT(&caps, items, "records 1 2 3");
	items[1].name_settled = false;
	items[2].parked = true;
	EXPECT(&caps, items, "records 1");
	caps.set_fields = false;
	EXPECT(&caps, items, "");
}

/* ---- one plan: order among names ---- */

static void test_a_swap_is_one_batch_where_names_may_repeat(void **state)
{
	struct plan_item items[] = {moved(1, "a", "b"), moved(2, "b", "a")};

	(void)state;
	EXPECT(&perscom, items, "update 1=b 2=a");
	items[0].content_local = items[1].content_local = true;
	EXPECT(&enterprise_tester, items, "create 1=b; create 2=a");
}

static void test_a_chain_goes_last_first_where_names_are_unique(void **state)
{
	struct plan_item items[] = {cached(moved(1, "a", "b")), cached(moved(2, "b", "c")),
				    cached(moved(3, "c", "d"))};

	(void)state;
	EXPECT(&servicemax, items, "create 3=d");
	items[2].content_local = false;
	EXPECT(&servicemax, items, "fetch 3");
	items[2].parked = true;
	EXPECT(&servicemax, items, "");
}

static void test_a_swap_goes_through_a_temporary_name_where_names_are_unique(void **state)
{
	struct plan_item items[] = {cached(moved(1, "a", "b")),
				    sized(cached(moved(2, "b", "a")), 10)};
	struct plan_item ring[] = {cached(moved(1, "a", "b")), cached(moved(2, "b", "c")),
				   moved(3, "c", "a"), remote(4, ".attachfs-1-0.tmp")};

	(void)state;
	EXPECT(&servicemax, items, "create 2=.attachfs-2-0.tmp"); /* the smaller one */
	items[1].busy = true;
	EXPECT(&servicemax, items, "");
	EXPECT(&servicemax, ring, "fetch 3");
	ring[2].content_local = true;
	EXPECT(&servicemax, ring, "create 1=.attachfs-1-1.tmp");
}

static void test_nothing_is_sent_where_a_call_in_flight_puts_something(void **state)
{
	struct plan_item items[] = {busy(wish(1, "moved since")), wish(2, "f")};

	(void)state;
	items[0].flight_name = "f";
	items[0].flight_record = 1;
	EXPECT(&servicemax, items, "");
	EXPECT(&perscom, items, "create 2=f+t");
}

static void test_a_delete_by_name_never_hits_the_next_holder(void **state)
{
	struct plan_item items[] = {gone(1, "f"), remote(2, "f")};

	(void)state;
	EXPECT(&servicemax, items, "forget 1");
	EXPECT(&perscom, items, "remove 1");
}

static void test_two_that_wait_for_each_others_contents_are_parted(void **state)
{
	struct plan_item items[] = {after(gone(1, "a"), 3), after(gone(2, "b"), 4),
				    written(moved(3, "f", "b")), written(moved(4, "g", "a"))};

	(void)state;
	EXPECT(&servicemax, items, "replace 3");
	EXPECT(&perscom, items, "replace 3=b+t; replace 4=a+t");
}

static void test_out_of_range_arguments_give_empty_plans(void **state)
{
	struct plan p;

	(void)state;
	assert_int_equal(plan_make(&perscom, NULL, 0, &p), 0);
	assert_int_equal(p.n_calls, 0);
	assert_int_equal(p.n_entries, 0);
	plan_clear(&p);
	plan_clear(&p);
}

static void test_plan_check_finds_a_removal_that_comes_too_early(void **state)
{
	struct plan_item items[] = {after(gone(1, "old"), 2), written(remote(2, "f"))};
	struct plan_entry entry = {.item = 0};
	struct plan_call call = {.kind = PLAN_REMOVE, .n = 1};
	struct plan p = {.calls = &call, .n_calls = 1, .entries = &entry, .n_entries = 1};
	char message[100];

	(void)state;
	assert_int_equal(plan_check(&perscom, items, 2, &p, message, sizeof(message)), -EUCLEAN);
	assert_string_equal(message, "item 0: removed before the content of item 1 is there");
}

static void test_a_hundred_thousand_items_are_planned_at_once(void **state)
{
	size_t n = 100000;
	struct plan_item *items = calloc(n, sizeof(*items));
	char(*names)[16] = calloc(n, sizeof(*names));
	struct plan p;
	clock_t start;

	(void)state;
	assert_non_null(items);
	assert_non_null(names);
	for (size_t k = 0; k < n; k++) {
		snprintf(names[k], sizeof(names[k]), "%zu", k);
		items[k] = cached(moved(k + 1, names[k], ""));
	}
	for (size_t k = 0; k < n; k++)
		items[k].name = names[(k + 1) % n]; /* one ring */
	start = clock();
	assert_int_equal(plan_make(&servicemax, items, n, &p), 0);
	assert_int_equal(p.n_entries, 1);
	plan_clear(&p);
	assert_int_equal(plan_make(&perscom, items, n, &p), 0);
	assert_int_equal(p.n_calls, n / perscom.batch_update);
	plan_clear(&p);
	for (size_t k = 0; k < n; k++)
		items[k] = gone(k + 1, "all in one place");
	assert_int_equal(plan_make(&perscom, items, n, &p), 0);
	assert_int_equal(p.n_entries, n);
	plan_clear(&p);
	assert_true((double)(clock() - start) / CLOCKS_PER_SEC <
		    5); /* a tenth of it is usual; a square would be minutes */
	free(items);
	free(names);
}

/* ---- stories ---- */

struct cost {
	unsigned uploads, fillers, updates, removes, fetches;
};

static void expect_cost(struct model *m, struct cost cost)
{
	if (m->breach[0])
		fail_msg("%s", m->breach);
	assert_int_equal(m->uploads, cost.uploads);
	assert_int_equal(m->fillers, cost.fillers);
	assert_int_equal(m->update_calls, cost.updates);
	assert_int_equal(m->remove_calls, cost.removes);
	assert_int_equal(m->fetches, cost.fetches);
}

static const struct model_file *server_file(const struct model *m, const char *name)
{
	for (size_t k = 0; k < m->n_files; k++) {
		if (m->files[k].rid && strcmp(m->files[k].name, name) == 0)
			return &m->files[k];
	}
	fail_msg("no file %s on the server", name);
	return NULL;
}

static void test_vims_save_is_one_replace_of_the_old_id(void **state)
{
	static const struct cost costs[MODEL_KINDS] = {
		{.uploads = 1}, {.uploads = 1}, {.uploads = 1, .removes = 1}};

	(void)state;
	for (int kind = 0; kind < MODEL_KINDS; kind++) {
		struct model m;
		uint64_t old;

		model_init(&m, (enum model_kind)kind, 1, NULL, 0);
		old = model_remote(&m, 1, "f", 5000);
		model_rename(&m, old, 1, "f~");
		model_create(&m, 1, "f", 5001);
		model_delete(&m, old);
		model_settle(&m);
		expect_cost(&m, costs[kind]);
		if (kind != MODEL_IMMUTABLE)
			assert_int_equal(server_file(&m, "f")->rid, 1);
		model_free(&m);
	}
}

static void test_rsyncs_temporary_file_renamed_over_f_is_one_replace_of_its_id(void **state)
{
	static const struct cost costs[MODEL_KINDS] = {
		{.uploads = 1}, {.uploads = 1}, {.uploads = 1, .removes = 1}};

	(void)state;
	for (int kind = 0; kind < MODEL_KINDS; kind++) {
		struct model m;
		uint64_t new;

		model_init(&m, (enum model_kind)kind, 1, NULL, 0);
		model_remote(&m, 1, "f", 5000);
		new = model_create(&m, 1, ".f.x1", 20); /* a filler is not needed for a replace */
		model_rename(&m, new, 1, "f");
		model_touch(&m, new, 7);
		model_settle(&m);
		expect_cost(&m, costs[kind]);
		if (kind != MODEL_IMMUTABLE)
			assert_int_equal(server_file(&m, "f")->rid, 1);
		model_free(&m);
	}
}

static void test_a_backup_that_stays_keeps_both_contents(void **state)
{
	static const struct cost costs[MODEL_KINDS] = {
		{.uploads = 1, .updates = 1}, {.uploads = 2}, {.uploads = 2, .removes = 1}};

	(void)state;
	for (int kind = 0; kind < MODEL_KINDS; kind++) {
		struct model m;
		uint64_t old;

		model_init(&m, (enum model_kind)kind, 1, NULL, 0);
		old = model_remote(&m, 1, "f", 5000);
		model_rename(&m, old, 1, "f~");
		model_create(&m, 1, "f", 5001);
		model_settle(&m);
		expect_cost(&m, costs[kind]);
		model_free(&m);
	}
}

static void test_mv_over_a_remote_file_replaces_it_or_updates_the_name(void **state)
{
	static const struct cost here[MODEL_KINDS] = {{.uploads = 1, .removes = 1},
						      {.uploads = 1, .removes = 1},
						      {.uploads = 1, .removes = 2}};
	static const struct cost away[MODEL_KINDS] = {{.updates = 1, .removes = 1},
						      {.uploads = 1, .removes = 1, .fetches = 1},
						      {.uploads = 1, .removes = 2, .fetches = 1}};

	(void)state;
	for (int kind = 0; kind < 2 * MODEL_KINDS; kind++) {
		struct model m;
		uint64_t a;

		model_init(&m, (enum model_kind)(kind / 2), 1, NULL, 0);
		a = model_remote(&m, 1, "a", 5000);
		model_remote(&m, 1, "b", 6000);
		if (kind % 2)
			model_evict(&m, a);
		model_rename(&m, a, 1, "b");
		model_settle(&m);
		expect_cost(&m, (kind % 2 ? away : here)[kind / 2]);
		model_free(&m);
	}
}

static void test_a_swap_costs_one_batch_or_a_temporary_upload(void **state)
{
	static const struct cost costs[MODEL_KINDS] = {
		{.updates = 1}, {.uploads = 3, .removes = 1}, {.uploads = 2, .removes = 2}};

	(void)state;
	for (int kind = 0; kind < MODEL_KINDS; kind++) {
		struct model m;
		uint64_t a, b;

		model_init(&m, (enum model_kind)kind, 1, NULL, 0);
		a = model_remote(&m, 1, "a", 5000);
		b = model_remote(&m, 1, "b", 6000);
		model_rename(&m, a, 1, "t");
		model_rename(&m, b, 1, "a");
		model_rename(&m, a, 1, "b");
		model_settle(&m);
		expect_cost(&m, costs[kind]);
		model_free(&m);
	}
}

static void test_a_chain_of_renames_costs_one_upload_each_where_there_is_no_rename(void **state)
{
	static const struct cost costs[MODEL_KINDS] = {
		{.updates = 1}, {.uploads = 3, .removes = 1}, {.uploads = 3, .removes = 3}};

	(void)state;
	for (int kind = 0; kind < MODEL_KINDS; kind++) {
		struct model m;
		uint64_t a, b, c;

		model_init(&m, (enum model_kind)kind, 1, NULL, 0);
		a = model_remote(&m, 1, "a", 5000);
		b = model_remote(&m, 1, "b", 6000);
		c = model_remote(&m, 1, "c", 7000);
		model_rename(&m, c, 1, "d");
		model_rename(&m, b, 1, "c");
		model_rename(&m, a, 1, "b");
		model_settle(&m);
		expect_cost(&m, costs[kind]);
		model_free(&m);
	}
}

static void test_a_small_new_file_is_a_filler_and_a_replace(void **state)
{
	struct model m;
	uint64_t node;

	(void)state;
	model_init(&m, MODEL_ID_KEYED, 1, NULL, 0);
	node = model_create(&m, 1, "f", 3);
	for (int k = 0; k < 5; k++)
		model_write(&m, node, 4);
	model_settle(&m);
	expect_cost(&m, (struct cost){.uploads = 1, .fillers = 1});
	model_free(&m);
}

/* ---- histories ---- */

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void run_histories(enum model_kind kind, bool faults, bool others)
{
	uint64_t seed = number("ATTACHFS_TEST_SEED", (uint64_t)time(NULL) * 1000);
	uint64_t n = number("ATTACHFS_TEST_HISTORIES", 2000);

	print_message("%s: ATTACHFS_TEST_SEED=%llu\n", __func__, (unsigned long long)seed);
	for (uint64_t k = 0; k < n; k++) {
		struct model m;

		model_init(&m, kind, seed + k, NULL, 0);
		m.faults = faults;
		m.others = others;
		model_history(&m, 20 + (unsigned)((seed + k) %
						  60)); /* the seed alone gives the same again */
		if (m.breach[0])
			fail_msg("ATTACHFS_TEST_SEED=%llu ATTACHFS_TEST_HISTORIES=1: %s",
				 (unsigned long long)(seed + k), m.breach);
		model_free(&m);
	}
}

struct wishes {
	unsigned contents, moves, removals, odd;
};

static struct wishes count_wishes(const struct model *m)
{
	struct wishes w = {0};
	size_t n;
	size_t *index;
	struct plan_item *items = model_items(m, &n, &index);

	for (size_t k = 0; k < n; k++) {
		const struct plan_item *it = &items[k];

		w.removals += it->gone && it->known;
		if (it->gone || it->local)
			continue;
		w.contents += it->content_differs;
		w.odd += strchr(it->name, '#') != NULL;
		w.moves +=
			it->known && (it->record != it->known_record ||
				      strcmp(it->name, it->known_name) != 0 || it->mtime_differs);
	}
	free(items);
	free(index);
	return w;
}

static unsigned batches(unsigned n, unsigned limit)
{
	return (n + limit - 1) / limit;
}

/*
 * The bound on an id-keyed server when all is settled at once: an upload per content that is not
 * there, and per rename over with bytes that are here; a filler per upload at most. Updates: a
 * batch of the moves, then batches of the odd names that uploads left tame: uploads arrive in two
 * waves, what is sent directly and what follows a filler (P-1), and a wave may leave a batch begun.
 * Removes: a batch of those that need not wait, one of those that wait for an update or an upload,
 * which includes the identities that adopting left.
 */
static void check_bound(const struct model *m, const struct wishes *w)
{
	unsigned again = m->excuses; /* without faults: clean contents that were adopted, or had to
					be created anew */

	if (m->breach[0])
		fail_msg("%s", m->breach);
	if (m->uploads > w->contents + again || m->fillers > m->uploads)
		fail_msg("%u uploads, %u fillers for %u contents", m->uploads, m->fillers,
			 w->contents);
	if (m->update_calls >
	    batches(w->moves, m->caps.batch_update) + batches(w->odd, m->caps.batch_update) + 2)
		fail_msg("%u update calls for %u moves, %u odd names", m->update_calls, w->moves,
			 w->odd);
	if (m->remove_calls > batches(w->removals + again, m->caps.batch_remove) + 2)
		fail_msg("%u remove calls for %u removals", m->remove_calls, w->removals);
}

static void test_what_settles_at_once_costs_no_call_too_many(void **state)
{
	uint64_t seed = number("ATTACHFS_TEST_SEED", (uint64_t)time(NULL) * 1000);

	(void)state;
	print_message("%s: ATTACHFS_TEST_SEED=%llu\n", __func__, (unsigned long long)seed);
	for (uint64_t k = 0; k < 2000; k++) {
		struct model m;
		struct wishes w;

		model_init(&m, MODEL_ID_KEYED, seed + k, NULL, 0);
		model_remote(&m, 1, "a", 5000);
		model_remote(&m, 1, "b", 6000);
		model_remote(&m, 1, "c", 7000);
		model_remote(&m, 2, "a", 8000);
		model_user_acts(&m, 1 + (unsigned)((seed + k) % 30));
		w = count_wishes(&m);
		model_settle(&m);
		check_bound(&m, &w);
		model_free(&m);
	}
}

static void test_random_histories_end_as_the_user_meant(void **state)
{
	(void)state;
	for (int kind = 0; kind < MODEL_KINDS; kind++)
		run_histories((enum model_kind)kind, false, false);
}

static void test_random_histories_with_faults_and_restarts_lose_nothing(void **state)
{
	(void)state;
	for (int kind = 0; kind < MODEL_KINDS; kind++)
		run_histories((enum model_kind)kind, true, false);
}

static void test_random_histories_with_others_touch_nothing_of_theirs(void **state)
{
	(void)state;
	for (int kind = 0; kind < MODEL_KINDS; kind++) {
		run_histories((enum model_kind)kind, false, true);
		run_histories((enum model_kind)kind, true, true);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_never_uploaded_renamed_and_deleted_is_nothing_to_send),
		cmocka_unit_test(test_renamed_there_and_back_is_nothing),
		cmocka_unit_test(test_many_renames_are_one_batch),
		cmocka_unit_test(test_batches_end_at_the_limit_of_the_caps),
		cmocka_unit_test(test_batches_keep_to_a_record_where_the_server_wants_it),
		cmocka_unit_test(test_creates_are_batched_by_record_and_bytes),
		cmocka_unit_test(test_bisected_items_go_alone),
		cmocka_unit_test(test_busy_and_parked_items_get_no_call),
		cmocka_unit_test(test_unknown_outcomes_are_looked_at_once_per_record),
		cmocka_unit_test(
			test_nothing_is_overwritten_or_removed_before_a_look_at_its_record),
		cmocka_unit_test(test_missing_bytes_are_fetched_before_anything_settles),
		cmocka_unit_test(test_unsettled_items_wait_for_their_time),
		cmocka_unit_test(test_local_names_are_never_sent),
		cmocka_unit_test(test_a_local_name_steps_aside_when_unique_names_need_its_place),
		cmocka_unit_test(test_removal_waits_for_what_comes_after),
		cmocka_unit_test(test_removal_waits_for_who_comes_in_its_place),
		cmocka_unit_test(test_bytes_that_are_read_are_not_removed),
		cmocka_unit_test(test_bytes_that_are_read_are_fetched_before_they_are_overwritten),
		cmocka_unit_test(test_rename_over_existing_keeps_the_remote_id),
		cmocka_unit_test(
			test_rename_of_a_remote_file_over_another_replaces_it_when_the_bytes_are_here),
		cmocka_unit_test(
			test_rename_of_a_remote_file_over_another_updates_it_when_the_bytes_are_not_here),
		cmocka_unit_test(test_a_deleted_file_in_flight_is_waited_for),
		cmocka_unit_test(test_an_identity_that_keeps_a_third_content_is_not_adopted),
		cmocka_unit_test(test_sizes_a_create_refuses_go_as_filler_first),
		cmocka_unit_test(test_new_name_and_time_go_with_the_new_content),
		cmocka_unit_test(test_names_that_are_not_exact_are_set_again),
		cmocka_unit_test(test_a_move_taken_back_in_doubt_is_sent_with_its_record),
		cmocka_unit_test(test_times_are_sent_where_the_server_has_a_field),
		cmocka_unit_test(test_missing_bytes_are_fetched_before_an_upload),
		cmocka_unit_test(test_immutable_files_are_created_anew),
		cmocka_unit_test(test_moves_the_server_cannot_do_are_uploads),
		cmocka_unit_test(test_records_are_renamed_in_batches_of_one_collection),
		cmocka_unit_test(test_fields_of_records_go_with_their_names),
		cmocka_unit_test(test_a_swap_is_one_batch_where_names_may_repeat),
		cmocka_unit_test(test_a_chain_goes_last_first_where_names_are_unique),
		cmocka_unit_test(test_a_swap_goes_through_a_temporary_name_where_names_are_unique),
		cmocka_unit_test(test_nothing_is_sent_where_a_call_in_flight_puts_something),
		cmocka_unit_test(test_a_delete_by_name_never_hits_the_next_holder),
		cmocka_unit_test(test_two_that_wait_for_each_others_contents_are_parted),
		cmocka_unit_test(test_out_of_range_arguments_give_empty_plans),
		cmocka_unit_test(test_plan_check_finds_a_removal_that_comes_too_early),
		cmocka_unit_test(test_a_hundred_thousand_items_are_planned_at_once),
		cmocka_unit_test(test_vims_save_is_one_replace_of_the_old_id),
		cmocka_unit_test(
			test_rsyncs_temporary_file_renamed_over_f_is_one_replace_of_its_id),
		cmocka_unit_test(test_a_backup_that_stays_keeps_both_contents),
		cmocka_unit_test(test_mv_over_a_remote_file_replaces_it_or_updates_the_name),
		cmocka_unit_test(test_a_swap_costs_one_batch_or_a_temporary_upload),
		cmocka_unit_test(
			test_a_chain_of_renames_costs_one_upload_each_where_there_is_no_rename),
		cmocka_unit_test(test_a_small_new_file_is_a_filler_and_a_replace),
		cmocka_unit_test(test_what_settles_at_once_costs_no_call_too_many),
		cmocka_unit_test(test_random_histories_end_as_the_user_meant),
		cmocka_unit_test(test_random_histories_with_faults_and_restarts_lose_nothing),
		cmocka_unit_test(test_random_histories_with_others_touch_nothing_of_theirs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
