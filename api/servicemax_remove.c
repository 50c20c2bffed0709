/* SPDX-License-Identifier: MIT */

/*
 * Deleting: by name, many of one record in one DELETE, all versions of each (section 8 of the
 * reference). Names with a comma cannot be told (S-13). When any of the names is not attached the
 * answer is 404 and nothing is known of the others: they are refused together, and the caller
 * divides; alone it is gone. So a DELETE whose answer was lost is not sent again: if it was done,
 * dividing a hundred would cost hundreds of calls, and looking costs one.
 *
 * The documentation prints two paths (S-12). Until one of them has deleted something, a 404 or 405
 * makes the call go to the other one too:
 *
 *	UNKNOWN    plural 2xx: PLURAL. 404, 405: the same by the singular path:
 *	           2xx: SINGULAR; 405, 404 after a 405: what tells more of the two is the answer
 *	PLURAL     \
 *	SINGULAR   /  known for this mount
 */

#include "servicemax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/pool.h>

#include "json.h"

#define NAMES_BYTES 6000 /* escaped, in one URL: of the 8 KB that servers commonly allow */

struct removal {
	struct servicemax *p;
	enum transfer_class class;
	const char *version; /* "all", "latest" */
	remote_done *done;
	void *ctx;
	atomic_size_t pending; /* DELETEs under way, and one for the starter */
};

/* One DELETE. */
struct deletion {
	struct servicemax_write write; /* first */
	struct removal *removal;
	bool singular, second; /* second: the other path said 404 or 405 */
	int first_status;
	size_t n;
	struct remote_change *items[];
};

static void removal_end(void *ctx)
{
	struct removal *m = ctx;

	m->done(m->ctx, 0, "");
	free(m);
}

static const char *name_of(const struct remote_change *item)
{
	return item->known_name ? item->known_name : item->name;
}

static struct call *make_deletion(struct servicemax_write *w)
{
	struct deletion *d = (struct deletion *)w;
	const struct remote_change *first = d->items[0];
	const char *names[SERVICEMAX_REMOVE];
	struct call *call = NULL;
	char *path = NULL;

	for (size_t i = 0; i < d->n; i++)
		names[i] = name_of(d->items[i]);
	char *escaped = servicemax_names(names, d->n);
	if (escaped &&
	    asprintf(&path, "/v2/%s/%s/attachment%s?names=%s&version=%s", first->collection,
		     first->record, d->singular ? "" : "s", escaped, d->removal->version) < 0)
		path = NULL;
	if (path)
		call = servicemax_call(w->p, d->removal->class, "DELETE", path,
				       "/v2/{object}/{uuid}/attachments");
	call_set_any_answer(call);
	free(path);
	free(escaped);
	return call;
}

/*
 * The other path, unless it is known that this is the one: that one is known now may have been
 * learned by another DELETE, while this one went to the wrong one. True: it is on its way.
 */
static bool try_other_path(struct deletion *d, const struct call_reply *reply)
{
	enum servicemax_path used = d->singular ? SERVICEMAX_SINGULAR : SERVICEMAX_PLURAL;

	if ((reply->status != 404 && reply->status != 405) || d->second ||
	    atomic_load(&d->write.p->delete_path) == (int)used)
		return false;
	d->second = true;
	d->first_status = reply->status;
	d->singular = !d->singular;
	return servicemax_write_start(&d->write) == 0;
}

static void learn_path(const struct deletion *d, const struct call_reply *reply)
{
	enum servicemax_path path = d->singular ? SERVICEMAX_SINGULAR : SERVICEMAX_PLURAL;
	enum servicemax_path other = d->singular ? SERVICEMAX_PLURAL : SERVICEMAX_SINGULAR;

	if (reply->error == 0)
		atomic_store(&d->write.p->delete_path, path);
	else if (d->second && d->first_status == 405 && reply->status == 404)
		atomic_store(&d->write.p->delete_path, path);
	else if (d->second && d->first_status == 404 && reply->status == 405)
		atomic_store(&d->write.p->delete_path, other);
}

static void deletion_reply(struct servicemax_write *w, const struct call_reply *reply)
{
	struct deletion *d = (struct deletion *)w;
	struct removal *m = d->removal;
	struct call_reply first = {.error = -ENOENT, .status = 404, .sent = true, .message = ""};
	int error;

	if (try_other_path(d, reply))
		return;
	learn_path(d, reply);
	/* A path that does not exist says nothing of the file. */
	if (d->second && d->first_status == 404 && reply->status == 405)
		reply = &first;
	enum remote_outcome outcome = servicemax_judge(reply, SERVICEMAX_REMOVE_FILE, d->n, &error);
	for (size_t i = 0; i < d->n; i++)
		servicemax_settle(d->items[i], outcome, error,
				  outcome == REMOTE_DONE ? "" : reply->message);
	free(d);
	if (atomic_fetch_sub(&m->pending, 1) == 1)
		removal_end(m);
}

/* -errno: not sent, and the items say so. */
static int delete_items(struct removal *m, struct remote_change *const *items, size_t n)
{
	struct deletion *d = calloc(1, sizeof(*d) + n * sizeof(d->items[0]));
	int r = -ENOMEM;

	if (d) {
		d->write = (struct servicemax_write){
			.p = m->p, .make = make_deletion, .reply = deletion_reply};
		d->removal = m;
		d->singular = atomic_load(&m->p->delete_path) == SERVICEMAX_SINGULAR;
		d->n = n;
		memcpy(d->items, items, n * sizeof(d->items[0]));
		r = servicemax_write_start(&d->write);
	}
	for (size_t i = 0; r < 0 && i < n; i++)
		servicemax_settle(items[i], REMOTE_RETRY, r, "not sent");
	if (r < 0)
		free(d);
	return r;
}

static size_t escaped_length(const char *name)
{
	return 3 * strlen(name) + 1; /* at most */
}

/* Items that are not to be sent at all: they have their outcome. */
static bool is_refused(struct remote_change *items, size_t i)
{
	int r = servicemax_check_name(name_of(&items[i]), REMOTE_REMOVES);

	if (r < 0)
		servicemax_settle(&items[i], REMOTE_REFUSED, r,
				  "a name with a comma cannot be told to the server (S-13): delete "
				  "it in ServiceMax");
	return r < 0;
}

/* The same name twice would be one name too many: the first one's deletion is the second one's. */
static bool is_double(struct remote_change *items, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (strcmp(name_of(&items[k]), name_of(&items[i])) == 0)
			return true;
	return false;
}

static size_t send_all(struct removal *m, struct remote_change *items, size_t n)
{
	struct remote_change *group[SERVICEMAX_REMOVE];
	size_t in_group = 0, bytes = 0, failed = 0;

	for (size_t i = 0; i <= n; i++) {
		size_t more = i < n ? escaped_length(name_of(&items[i])) : 0;
		bool full = in_group == SERVICEMAX_REMOVE || bytes + more > NAMES_BYTES;
		if (in_group > 0 && (i == n || full)) {
			failed += delete_items(m, group, in_group) < 0;
			in_group = bytes = 0;
		}
		if (i == n || is_refused(items, i))
			continue;
		if (is_double(items, i)) {
			servicemax_settle(&items[i], REMOTE_RETRY, -EBUSY,
					  "it is being deleted already");
			continue;
		}
		group[in_group++] = &items[i];
		bytes += more;
		atomic_fetch_add(&m->pending, in_group == 1);
	}
	return failed;
}

static int start_removal(struct remote *r, enum transfer_class class, const char *version,
			 struct remote_change *items, size_t n, remote_done *done, void *ctx)
{
	for (size_t i = 0; i < n; i++)
		if (!servicemax_is_object(items[i].collection) || !items[i].record ||
		    !json_is_uuid(items[i].record) || !name_of(&items[i]) ||
		    *name_of(&items[i]) == '\0' ||
		    strcmp(items[i].collection, items[0].collection) != 0 ||
		    strcmp(items[i].record, items[0].record) != 0)
			return -EINVAL;
	struct removal *m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	*m = (struct removal){.p = (struct servicemax *)r, .class = class, .version = version};
	m->done = done;
	m->ctx = ctx;
	atomic_init(&m->pending, 1);
	for (size_t i = 0; i < n; i++)
		servicemax_change_reset(&items[i]);
	size_t failed = send_all(m, items, n);
	if (atomic_fetch_sub(&m->pending, failed + 1) == failed + 1 &&
	    pool_run(r->pool, removal_end, m) < 0)
		removal_end(m);
	return 0;
}

int servicemax_remove(struct remote *r, enum transfer_class class, struct remote_change *items,
		      size_t n, remote_done *done, void *ctx)
{
	return start_removal(r, class, "all", items, n, done, ctx);
}

int servicemax_remove_latest(struct remote *r, enum transfer_class class,
			     struct remote_change *items, size_t n, remote_done *done, void *ctx)
{
	return start_removal(r, class, "latest", items, n, done, ctx);
}
