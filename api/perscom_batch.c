/* SPDX-License-Identifier: MIT */

/*
 * Changing and deleting many at a time (section 9 of the reference), one or two hundred alike.
 *
 *	SEND     the items not settled, in one PATCH or DELETE of .../batch
 *
 *	JUDGE    each by the answer: in `data` = done, not in it = gone. A 422 that names entries
 *	         settles those, and the others are sent again. Any other failure settles all.
 *
 *	BACK     what was moved to a record that is gone has become nobody's, and nobody would ever
 *	         see it (P-16): one more PATCH puts all such files back where they were
 *
 *	VERIFY   after a DELETE, but not after each: a search for what was said to be deleted;
 *	         what is still there was not (P-13)
 *
 * An entry with nothing to change is never sent: it would make the server refuse all of them with a
 * 500 (P-11).
 *
 * A verification costs as much as the DELETE, and 100 calls a minute are all there are (P-14). So
 * in a burst only one DELETE in 30 s is verified, and what the others deleted is remembered
 * (struct perscom_doubts) and asked for in the next verification. What that one finds was reported
 * as done long ago: it can only be logged. Those no verification ever asks for, because no DELETE
 * follows, are found by the poll: it calls every collection with such deletions changed once, and
 * the listing that follows shows what is there. While a storage is known to refuse, every DELETE
 * is verified.
 */

#include "perscom.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "json.h"

#define ROUNDS_MAX	4     /* sends of what a 422 left over */
#define VERIFY_EVERY_MS 30000 /* one DELETE in so long is verified */
#define NAMED_BYTES	400   /* of ids in one line of the log */

enum item_state {
	OPEN,
	SETTLED,
	ASTRAY, /* moved to a record that does not exist */
};

struct batch {
	struct perscom *p;
	enum transfer_class class;
	enum perscom_verb verb;
	const struct perscom_collection *records; /* update_records; NULL = attachments */
	remote_done *done;
	void *ctx;
	struct remote_change *items;
	size_t n;
	unsigned rounds;
	char (*doubted)[PERSCOM_ID_SIZE]; /* of earlier calls, verified along with this one's */
	size_t n_doubted;
	enum item_state state[]; /* n of them */
};

static void settle(struct batch *b, size_t i, enum remote_outcome outcome, int error,
		   const char *message)
{
	struct remote_change *item = &b->items[i];

	item->outcome = outcome;
	item->error = error;
	snprintf(item->message, sizeof(item->message), "%s", message);
	b->state[i] = SETTLED;
}

static void settle_rest(struct batch *b, enum remote_outcome outcome, int error,
			const char *message)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->state[i] == OPEN)
			settle(b, i, outcome, error, message);
}

static size_t count(const struct batch *b, enum item_state state)
{
	size_t n = 0;

	for (size_t i = 0; i < b->n; i++)
		n += b->state[i] == state;
	return n;
}

static void batch_free(struct batch *b)
{
	free(b->doubted);
	free(b);
}

static void batch_end(void *ctx)
{
	struct batch *b = ctx;

	b->done(b->ctx, 0, "");
	batch_free(b);
}

static json_t *entry_of(const struct batch *b, size_t i)
{
	return b->records ? perscom_record_entry(b->records, &b->items[i])
			  : perscom_entry(&b->items[i]);
}

/*
 * The open items, one after the other, as the bodies of perscom_encode.c want them. Shallow; free()
 * it.
 */
static struct remote_change *open_items(const struct batch *b, size_t *ret_n)
{
	struct remote_change *open = calloc(b->n + 1, sizeof(*open));

	*ret_n = 0;
	for (size_t i = 0; open && i < b->n; i++)
		if (b->state[i] == OPEN)
			open[(*ret_n)++] = b->items[i];
	return open;
}

static json_t *make_body(const struct batch *b)
{
	size_t n;
	struct remote_change *open = open_items(b, &n);
	json_t *body = NULL;

	if (!open)
		return NULL;
	if (b->verb == PERSCOM_REMOVE)
		body = perscom_body_remove(open, n);
	else if (b->records)
		body = perscom_body_update_records(b->records, open, n);
	else
		body = perscom_body_update(open, n);
	free(open);
	return body;
}

static void batch_reply(void *ctx, const struct call_reply *reply);

/* Then the answer shall say whether the records are there at all (P-16). */
static bool has_move(const struct batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->state[i] == OPEN && b->verb == PERSCOM_UPDATE && !b->records &&
		    b->items[i].move)
			return true;
	return false;
}

static int batch_send(struct batch *b)
{
	const char *resource = b->records ? b->records->name : "attachments";
	const char *method = b->verb == PERSCOM_REMOVE ? "DELETE" : "PATCH";
	char endpoint[64], path[sizeof(endpoint) + 16];
	json_t *body = make_body(b);

	if (!body)
		return -ENOMEM;
	snprintf(endpoint, sizeof(endpoint), "%s/batch", resource);
	snprintf(path, sizeof(path), "%s%s", endpoint, has_move(b) ? "?include=model" : "");
	struct call *call = perscom_call(b->p, b->class, method, path, endpoint);
	call_set_json_take(call, body);
	call_set_idempotent(call, true);
	if (b->verb == PERSCOM_REMOVE)
		call_set_scope(call, "delete:attachment");
	else
		call_set_scope(call, b->records ? b->records->update_scope : "update:attachment");
	b->rounds++;
	return call_start(call, batch_reply, b);
}

/* The row of @id in the answer; the order is the database's, not ours (P-11). */
static const json_t *find_row(const json_t *root, const char *id)
{
	char row_id[REMOTE_ID_MAX + 1];
	const json_t *data = json_get_array(root, "data");

	for (size_t i = 0; i < json_array_size(data); i++) {
		const json_t *row = json_array_get(data, i);
		if (json_get_id(row, "id", row_id) && strcmp(row_id, id) == 0)
			return row;
	}
	return NULL;
}

/* Nonsense is answered with 200 as well (P-18): is the file where it was sent? */
static bool is_moved(const struct remote_change *item, const json_t *row)
{
	const struct perscom_collection *c = perscom_find_model(json_get_text(row, "model_type"));

	return c && strcmp(c->name, item->collection) == 0 && item->file.record &&
	       strcmp(item->file.record, item->record) == 0;
}

static void judge_file(struct batch *b, size_t i, const json_t *row)
{
	struct remote_change *item = &b->items[i];
	int r = perscom_decode_file(&b->p->server, row, b->p->names, &item->file);

	if (r < 0) {
		settle(b, i, REMOTE_RETRY, r, "the answer holds no attachment");
		return;
	}
	perscom_remember(b->p, &item->file, 1);
	if (item->move && !is_moved(item, row))
		settle(b, i, REMOTE_REFUSED, -EIO,
		       "the server answered 200 but did not move the file (P-18)");
	else if (item->move && json_is_null(json_object_get(row, "model")))
		b->state[i] = ASTRAY;
	else
		settle(b, i, REMOTE_DONE, 0, "");
}

static void judge_record(struct batch *b, size_t i, const json_t *row)
{
	const struct remote_change *item = &b->items[i];
	char *name = perscom_record_name(b->records, row, item->id);

	/* The server trims; a name that is another one altogether was not taken (P-18). */
	if (name && item->name && *name != '\0' && !strstr(item->name, name))
		settle(b, i, REMOTE_REFUSED, -EINVAL,
		       "the server answered 200 but kept another name (P-18)");
	else
		settle(b, i, REMOTE_DONE, 0, "");
	free(name);
}

static void judge_rows(struct batch *b, const json_t *root)
{
	for (size_t i = 0; i < b->n; i++) {
		if (b->state[i] != OPEN)
			continue;
		const json_t *row = find_row(root, b->items[i].id);
		if (!row)
			settle(b, i, REMOTE_GONE, b->verb == PERSCOM_REMOVE ? 0 : -ENOENT, "");
		else if (b->verb == PERSCOM_REMOVE)
			settle(b, i, REMOTE_DONE, 0, "");
		else if (b->records)
			judge_record(b, i, row);
		else
			judge_file(b, i, row);
	}
}

void perscom_doubts_add(struct perscom_doubts *d, const char *id)
{
	size_t at = (d->first + d->n) % PERSCOM_DOUBTS;

	snprintf(d->ids[at], sizeof(d->ids[at]), "%s", id);
	if (d->n < PERSCOM_DOUBTS)
		d->n++;
	else
		d->first = (d->first + 1) % PERSCOM_DOUBTS; /* the oldest falls out */
}

bool perscom_doubts_take(struct perscom_doubts *d, int64_t now_ms,
			 char (**ret_ids)[PERSCOM_ID_SIZE], size_t *ret_n)
{
	*ret_ids = NULL;
	*ret_n = 0;
	if (now_ms < d->due_ms)
		return false;
	d->due_ms = now_ms + VERIFY_EVERY_MS;
	if (d->n > 0)
		*ret_ids = calloc(d->n, sizeof(**ret_ids));
	/* Without memory they stay for another time. */
	for (; *ret_ids && d->n > 0; d->n--) {
		memcpy((*ret_ids)[(*ret_n)++], d->ids[d->first], sizeof(**ret_ids));
		d->first = (d->first + 1) % PERSCOM_DOUBTS;
	}
	return true;
}

/*
 * Nothing was proved of these deletions: remember them, and let the next poll say "changed". Those
 * that were in doubt before have had their poll, or will.
 */
static void doubt(struct batch *b)
{
	struct perscom *p = b->p;
	unsigned collections = 0;

	pthread_mutex_lock(&p->doubts_lock);
	for (size_t i = 0; i < b->n_doubted; i++)
		perscom_doubts_add(&p->doubts, b->doubted[i]);
	for (size_t i = 0; i < b->n; i++) {
		if (b->items[i].outcome != REMOTE_DONE)
			continue;
		perscom_doubts_add(&p->doubts, b->items[i].id);
		collections |=
			perscom_collection_bit(perscom_find_collection(b->items[i].collection));
	}
	pthread_mutex_unlock(&p->doubts_lock);
	atomic_fetch_or(&p->unproved, collections);
}

/* Ids for a line of the log; a line that is full is logged. */
struct kept {
	char ids[NAMED_BYTES];
	size_t len;
	bool late;
};

static void kept_log(struct kept *k)
{
	if (k->len > 0)
		log_warning("perscom: delete attachments%s: the server said yes but kept them "
			    "(P-13)%s",
			    k->ids,
			    k->late ? "; they were taken for deleted and will be back" : "");
	k->len = 0;
}

static void kept_add(struct kept *k, const char *id)
{
	if (k->len + PERSCOM_ID_SIZE + 1 > sizeof(k->ids))
		kept_log(k);
	k->len += (size_t)snprintf(k->ids + k->len, sizeof(k->ids) - k->len, " %s", id);
}

/* Row @id is still there: whose deletion was that? */
static void judge_kept(struct batch *b, const char *id, struct kept *now, struct kept *late)
{
	bool ours = false;

	for (size_t i = 0; i < b->n; i++) {
		if (b->items[i].outcome != REMOTE_DONE || strcmp(b->items[i].id, id) != 0)
			continue;
		settle(b, i, REMOTE_REFUSED, -EIO,
		       "the server said yes but kept the file (its storage refused): try again "
		       "later");
		kept_add(now, id);
		ours = true;
	}
	for (size_t i = 0; !ours && i < b->n_doubted; i++) {
		if (strcmp(b->doubted[i], id) != 0)
			continue;
		kept_add(late, id);
		return;
	}
}

static void judge_verification(struct batch *b, const json_t *rows)
{
	struct kept now = {.late = false}, late = {.late = true};
	char id[REMOTE_ID_MAX + 1];

	for (size_t i = 0; i < json_array_size(rows); i++)
		if (json_get_id(json_array_get(rows, i), "id", id))
			judge_kept(b, id, &now, &late);
	/* The next DELETE is verified, whenever it comes; and what is back is to be seen. */
	if (now.len > 0 || late.len > 0) {
		pthread_mutex_lock(&b->p->doubts_lock);
		b->p->doubts.due_ms = 0;
		pthread_mutex_unlock(&b->p->doubts_lock);
	}
	if (late.len > 0)
		atomic_store(&b->p->unproved, ~0u);
	kept_log(&now);
	kept_log(&late);
}

static void verify_reply(void *ctx, const struct call_reply *reply)
{
	struct batch *b = ctx;
	const json_t *rows = reply->error == 0 ? json_get_array(reply->json, "data") : NULL;

	perscom_note_reply(b->p, reply);
	/* An error proves nothing: the server's yes is taken for one, for now. */
	if (rows)
		judge_verification(b, rows);
	else
		doubt(b);
	batch_end(b);
}

/* The search for all that is to be verified. */
static int send_verification(struct batch *b)
{
	const char **ids = calloc(b->n + b->n_doubted, sizeof(*ids));
	size_t n = 0;

	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < b->n; i++)
		if (b->items[i].outcome == REMOTE_DONE)
			ids[n++] = b->items[i].id;
	for (size_t i = 0; i < b->n_doubted; i++)
		ids[n++] = b->doubted[i];
	struct call *call = perscom_search(b->p, b->class, "attachments", "", (unsigned)n,
					   perscom_body_ids(ids, n));
	free(ids);
	return call_start(call, verify_reply, b);
}

/* What was said to be deleted is verified now, or remembered; the call ends either way. */
static void verify(struct batch *b)
{
	bool due = false, any = false;

	for (size_t i = 0; i < b->n; i++)
		any |= b->items[i].outcome == REMOTE_DONE;
	if (any) {
		pthread_mutex_lock(&b->p->doubts_lock);
		due = perscom_doubts_take(&b->p->doubts, clock_mono_ms(), &b->doubted,
					  &b->n_doubted);
		pthread_mutex_unlock(&b->p->doubts_lock);
	}
	if (due && send_verification(b) == 0)
		return;
	if (any)
		doubt(b);
	batch_end(b);
}

/*
 * Where it was, under the names it had. The time of the change is no matter: the caller's own goes
 * along.
 */
static json_t *origin(const struct remote_change *item)
{
	struct remote_change back = *item;

	if (!item->known_collection || !item->known_record)
		return NULL;
	back.collection = item->known_collection;
	back.record = item->known_record;
	back.name = item->name ? item->known_name : NULL;
	json_t *entry = perscom_entry(&back);
	if (entry && back.name && item->known_filename)
		json_object_set_new(entry, "filename", json_string(item->known_filename));
	return entry;
}

static json_t *make_way_back(const struct batch *b)
{
	json_t *map = json_object();

	for (size_t i = 0; i < b->n; i++) {
		json_t *entry = b->state[i] == ASTRAY ? origin(&b->items[i]) : NULL;
		if (entry)
			json_object_set_new(map, b->items[i].id, entry);
	}
	return json_pack("{s:o}", "resources", map);
}

/* @rows: what came back, as the server answers it. NULL: nobody knows. */
static void settle_astray(struct batch *b, const json_t *rows, const char *message)
{
	for (size_t i = 0; i < b->n; i++) {
		struct remote_change *item = &b->items[i];
		if (b->state[i] != ASTRAY)
			continue;
		remote_file_clear(&item->file);
		item->file.size = -1;
		if (rows && find_row(rows, item->id)) {
			settle(b, i, REMOTE_REFUSED, -ENOENT, "the record is gone from the server");
			continue;
		}
		log_error("perscom: attachment %s belongs to nobody (P-16) and is not put back: %s",
			  item->id, message);
		settle(b, i, REMOTE_UNKNOWN, -EIO, message);
	}
}

static void back_reply(void *ctx, const struct call_reply *reply)
{
	struct batch *b = ctx;
	bool good = reply->error == 0 && json_get_array(reply->json, "data");

	perscom_note_reply(b->p, reply);
	settle_astray(b, good ? reply->json : NULL, reply->message);
	batch_end(b);
}

/* What was moved to nobody goes back; the call ends either way. */
static void put_back(struct batch *b)
{
	json_t *body = make_way_back(b);
	int r = -ENODATA;

	if (json_object_size(json_object_get(body, "resources")) == 0) {
		json_decref(body);
	} else {
		struct call *call = perscom_call(b->p, b->class, "PATCH", "attachments/batch",
						 "attachments/batch");
		call_set_json_take(call, body);
		call_set_idempotent(call, true);
		call_set_scope(call, "update:attachment");
		r = call_start(call, back_reply, b);
	}
	if (r == 0)
		return;
	settle_astray(b, NULL, "not sent");
	batch_end(b);
}

/*
 * A 422 that names its entries: those are refused, the others can go. False: it names none, or all.
 */
static bool single_out(struct batch *b, const struct call_reply *reply)
{
	size_t blamed = 0, open = count(b, OPEN);
	const char *words;
	char redacted[256];
	int error;

	for (size_t i = 0; reply->status == 422 && i < b->n; i++)
		blamed += b->state[i] == OPEN &&
			  perscom_blames(reply->json, b->items[i].id, &error, &words);
	if (blamed == 0 || blamed == open || b->rounds >= ROUNDS_MAX)
		return false;
	for (size_t i = 0; i < b->n; i++) {
		if (b->state[i] != OPEN ||
		    !perscom_blames(reply->json, b->items[i].id, &error, &words))
			continue;
		log_redact(words, redacted, 201);
		settle(b, i, REMOTE_REFUSED, error, redacted);
	}
	return true;
}

/* A record's dates are answered with a 500 however often they are sent (P-25). */
static bool is_field_refused(const struct batch *b, const struct call_reply *reply)
{
	size_t fields = 0;

	for (size_t i = 0; i < b->n; i++)
		fields += b->state[i] == OPEN && b->items[i].fields_json;
	return b->records && reply->status == 500 && fields > 0;
}

static void batch_reply(void *ctx, const struct call_reply *reply)
{
	struct batch *b = ctx;
	int error;

	perscom_note_reply(b->p, reply);
	enum remote_outcome outcome = perscom_judge(reply, b->verb, count(b, OPEN), &error);
	if (is_field_refused(b, reply)) {
		outcome = REMOTE_REFUSED;
		error = -EINVAL;
	}
	if (outcome == REMOTE_DONE && json_get_array(reply->json, "data")) {
		judge_rows(b, reply->json);
		if (b->verb == PERSCOM_REMOVE) {
			verify(b);
			return;
		}
		if (count(b, ASTRAY) > 0) {
			put_back(b);
			return;
		}
	} else if (outcome == REMOTE_DONE) {
		settle_rest(b, REMOTE_RETRY, -EIO,
			    "the answer is not what PERSCOM sends: it holds no rows");
	} else if (single_out(b, reply)) {
		int r = batch_send(b);
		if (r == 0)
			return;
		settle_rest(b, REMOTE_RETRY, r, "not sent");
	} else {
		settle_rest(b, outcome, error, reply->message);
	}
	batch_end(b);
}

/* Settle what needs no call: items that change nothing. -EINVAL: one that must not be sent. */
static int prepare(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		perscom_change_reset(&b->items[i]);
		if (!json_is_id(b->items[i].id))
			return -EINVAL;
		if (b->verb == PERSCOM_REMOVE)
			continue;
		json_t *entry = entry_of(b, i);
		if (!entry)
			return -EINVAL;
		if (json_object_size(entry) == 0)
			settle(b, i, REMOTE_DONE, 0, "");
		json_decref(entry);
	}
	return 0;
}

static int batch(const struct batch *template, struct remote_change *items, size_t n)
{
	struct batch *b = calloc(1, sizeof(*b) + n * sizeof(b->state[0]));

	if (!b)
		return -ENOMEM;
	*b = *template;
	b->items = items;
	b->n = n;
	int r = prepare(b);
	if (r == 0 && count(b, OPEN) > 0)
		r = batch_send(b);
	else if (r == 0)
		r = pool_run(b->p->base.pool, batch_end, b);
	if (r < 0)
		batch_free(b);
	return r;
}

int perscom_update(struct remote *r, enum transfer_class class, struct remote_change *items,
		   size_t n, remote_done *done, void *ctx)
{
	return batch(&(struct batch){.p = (struct perscom *)r,
				     .class = class,
				     .verb = PERSCOM_UPDATE,
				     .done = done,
				     .ctx = ctx},
		     items, n);
}

int perscom_remove(struct remote *r, enum transfer_class class, struct remote_change *items,
		   size_t n, remote_done *done, void *ctx)
{
	return batch(&(struct batch){.p = (struct perscom *)r,
				     .class = class,
				     .verb = PERSCOM_REMOVE,
				     .done = done,
				     .ctx = ctx},
		     items, n);
}

int perscom_update_records(struct remote *r, enum transfer_class class, struct remote_change *items,
			   size_t n, remote_done *done, void *ctx)
{
	const struct perscom_collection *c =
		n > 0 ? perscom_find_collection(items[0].collection) : NULL;

	if (!c)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (!items[i].collection || strcmp(items[i].collection, c->name) != 0)
			return -EINVAL;
		if (items[i].name && !c->name_field)
			return -EPERM;
	}
	return batch(&(struct batch){.p = (struct perscom *)r,
				     .class = class,
				     .verb = PERSCOM_UPDATE,
				     .records = c,
				     .done = done,
				     .ctx = ctx},
		     items, n);
}
