/* SPDX-License-Identifier: MIT */
/* The three lists of section 3, and how files are found by name and by UUID. */
#include "servicemax.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>
#include <wctype.h>

const struct rows *sm_attachments(struct emulator *emu, const struct record *r)
{
	const char *type = r->collection->owner_type;

	return store_owned(emu->store, type, strlen(type), r->row.id);
}

/* Case only, accents count. */
static bool same_folded(const struct str *a, const char *b, size_t len)
{
	const char *s = a->ptr;
	size_t left = a->len;

	while (left && len) {
		uint32_t x, y;
		size_t n = utf8_next(s, left, &x);
		size_t m = utf8_next(b, len, &y);

		if (!n || !m || towlower((wint_t)x) != towlower((wint_t)y))
			return false;
		s += n;
		left -= n;
		b += m;
		len -= m;
	}
	return left == len;
}

struct attachment *sm_attachment_named(struct emulator *emu, const struct record *r,
				       const char *name, size_t len)
{
	const struct rows *rows = sm_attachments(emu, r);
	bool folded = sm_set_of(emu, SM_NAME_CASE) != 0;

	for (size_t i = 0; rows && i < rows->n; i++) {
		struct attachment *a = (struct attachment *)rows->at[i];

		if (str_equal(&a->name, name, len) || (folded && same_folded(&a->name, name, len)))
			return a;
	}
	return NULL;
}

struct attachment *sm_attachment_of(struct emulator *emu, const char *text, size_t len)
{
	struct uuid uuid;

	return sm_uuid_parse(text, len, &uuid)
		       ? store_attachment(emu->store, sm_uuid_id(&uuid, UUID_ATTACHMENT, ""))
		       : NULL;
}

void sm_touch(struct sm_call *c)
{
	if (sm_set(c, SM_TOUCH_RECORD))
		c->record->updated_at = sm_now_ms() / 1000;
}

void sm_attachments_of_record(struct sm_call *c)
{
	sm_reply_json(c, 200);
	sm_put_attachments(c, &c->rs->body, c->record);
}

static void put_entry(struct sm_call *c, const struct record *r)
{
	char uuid[REMOTE_ID_SIZE];

	sm_record_id(r, uuid);
	buffer_json_key(&c->rs->body, uuid);
	sm_put_attachments(c, &c->rs->body, r);
}

/* The no-parameter form: who has no attachment is missing (S-6). */
static void serve_all(struct sm_call *c)
{
	const struct rows *records = &c->object->records;

	buffer_putc(&c->rs->body, '{');
	for (size_t i = 0; i < records->n; i++) {
		const struct record *r = (const struct record *)records->at[i];
		const struct rows *rows = sm_attachments(c->sm->emu, r);

		if (rows && rows->n && sm_record_readable(c, r) && !sm_record_deleted(c, r))
			put_entry(c, r);
	}
	buffer_putc(&c->rs->body, '}');
	sm_reply_json(c, 200);
}

struct wanted {
	struct record **at;
	size_t n;
	struct table seen; /* a map has each key once */
};

/* False when it has answered: one bad or missing record fails the whole call (S-9). */
static bool find_wanted(struct sm_call *c, const char *uuids, struct wanted *ret)
{
	for (bool more = true; more; uuids++) {
		size_t len = strcspn(uuids, ",");
		struct uuid uuid;
		struct record *r;

		if (!sm_uuid_parse(uuids, len, &uuid)) {
			sm_error(c, 400, "The uuids parameter contains an invalid UUID");
			return false;
		}
		r = sm_record_named(c, uuids, len);
		if (!r)
			return false;
		if (!table_put(&ret->seen, &r->row.id, sizeof(r->row.id), r)) {
			ret->at = xrealloc(ret->at, (ret->n + 1) * sizeof(struct record *));
			ret->at[ret->n++] = r;
		}
		uuids += len;
		more = *uuids == ',';
	}
	return true;
}

void sm_attachments_of_object(struct sm_call *c)
{
	struct str uuids = request_query(c->rq, "uuids");
	struct wanted wanted = {0};

	if (!uuids.ptr) {
		serve_all(c);
	} else if (find_wanted(c, uuids.ptr, &wanted)) {
		buffer_putc(&c->rs->body, '{');
		for (size_t i = 0; i < wanted.n; i++)
			put_entry(c, wanted.at[i]);
		buffer_putc(&c->rs->body, '}');
		sm_reply_json(c, 200);
	}
	free(wanted.at);
	table_free(&wanted.seen);
	str_free(&uuids);
}
