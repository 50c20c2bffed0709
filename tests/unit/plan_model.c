/* SPDX-License-Identifier: MIT */
#include "plan_model.h"

/*
 * How: contents are numbers with distinct sizes, versions count up, records are 1 to 3 (3 in a
 * collection of its own). Server first, then the executor, then user, others and chance.
 */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS 3
#define ROUNDS	100 /* more than any history needs to settle */

__attribute__((format(printf, 2, 3))) static void breach(struct model *m, const char *format, ...)
{
	va_list args;

	if (m->breach[0])
		return;
	va_start(args, format);
	vsnprintf(m->breach, sizeof(m->breach), format, args);
	va_end(args);
}

/* Room for one more, zeroed, after @n of them. */
static void *grow(void *array, size_t n, size_t *room, size_t size)
{
	char *p = array;

	if (n == *room) {
		*room = n ? 2 * n : 16;
		p = realloc(array, size * *room);
	}
	if (!p)
		abort();
	memset(p + n * size, 0, size);
	return p;
}

/* Names are short: one that does not fit is a bug of the tests. */
static void set_name(char name[MODEL_NAME], const char *from)
{
	size_t len = strlen(from);

	if (len >= MODEL_NAME)
		abort();
	memcpy(name, from, len + 1);
}

uint32_t model_pick(struct model *m, uint32_t n)
{
	uint64_t z;

	if (m->bytes) {
		if (!m->left)
			return 0;
		m->left--;
		return *m->bytes++ % n;
	}
	z = (m->seed += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t)((z ^ (z >> 31)) >> 32) % n;
}

static bool chance(struct model *m, uint32_t percent)
{
	return model_pick(m, 100) >= 100 - percent;
}

static uint64_t collection_of(unsigned record)
{
	return record == 3 ? 102 : 101;
}

static bool is_local_name(const char *name)
{
	return strncmp(name, ".~", 2) == 0;
}

/* Names a multipart filename does not carry over (P-15). */
static bool is_odd_name(const char *name)
{
	return strchr(name, '#') != NULL;
}

void model_init(struct model *m, enum model_kind kind, uint64_t seed, const uint8_t *bytes,
		size_t len)
{
	*m = (struct model){.kind = kind,
			    .seed = seed,
			    .bytes = bytes,
			    .left = len,
			    .next_node = 1,
			    .next_token = 1};
	m->caps = (struct remote_caps){
		.system = "model", .batch_update = 1, .batch_remove = 1, .batch_create = 1};
	switch (kind) {
	case MODEL_ID_KEYED:
		m->caps.rename_in_place = m->caps.move_in_place = m->caps.set_mtime = true;
		m->caps.replace_keeps_id = m->caps.batch_spans_records = true;
		m->caps.move_between_collections = model_pick(m, 2) == 0;
		m->caps.create_min_bytes = 1024;
		m->caps.create_max_bytes = 10240000;
		m->caps.batch_update = m->caps.batch_remove = 3;
		break;
	case MODEL_NAME_KEYED:
		m->caps.names_unique = m->caps.replace_keeps_id = true;
		m->caps.batch_remove = m->caps.batch_create = 3;
		break;
	case MODEL_IMMUTABLE:
	case MODEL_KINDS:
		m->caps.batch_create = 3;
		break;
	}
	m->sizes = grow(m->sizes, m->n_contents++, &m->sizes_room, sizeof(*m->sizes));
	m->sizes[MODEL_FILLER] = 1024;
}

void model_free(struct model *m)
{
	for (size_t k = 0; k < m->n_calls; k++)
		free(m->calls[k].entries);
	free(m->calls);
	free(m->files);
	free(m->nodes);
	free(m->sizes);
}

/* ---- the server ---- */

static struct model_file *file_by_rid(struct model *m, unsigned rid)
{
	return rid && m->files[rid - 1].rid ? &m->files[rid - 1] : NULL;
}

static struct model_file *file_by_name(struct model *m, unsigned record, const char *name)
{
	for (size_t k = 0; k < m->n_files; k++) {
		struct model_file *f = &m->files[k];

		if (f->rid && f->record == record && strcmp(f->name, name) == 0)
			return f;
	}
	return NULL;
}

/* Others changed or removed its file, or made it: what is lost there is not our fault. */
static bool is_theirs(const struct model *m, const struct model_node *n)
{
	return n->at.rid && m->files[n->at.rid - 1].touched;
}

static bool server_has(const struct model *m, unsigned content, unsigned except_rid)
{
	for (size_t k = 0; k < m->n_files; k++) {
		if (m->files[k].rid && m->files[k].rid != except_rid &&
		    m->files[k].content == content)
			return true;
	}
	return false;
}

/* Our call is about to end @f's content on the server. */
static void check_loss(struct model *m, const struct model_file *f, unsigned next, const char *call)
{
	if (!f->token && !f->seen)
		breach(m, "%s touches file %u that others made and nobody here has seen", call,
		       f->rid);
	if (f->content == next || server_has(m, f->content, f->rid))
		return;
	for (size_t k = 0; k < m->n_nodes; k++) {
		const struct model_node *n = &m->nodes[k];

		if (!n->node || is_theirs(m, n))
			continue;
		if (!n->gone && !(n->was_local && n->content_local) && n->content == f->content)
			breach(m, "%s of file %u ends the content of node %u there", call, f->rid,
			       (unsigned)n->node);
		if (!n->gone && n->base && n->base == f->content)
			breach(m, "%s of file %u ends what node %u builds on", call, f->rid,
			       (unsigned)n->node);
		if (n->gone && n->open && !n->content_local && n->content == f->content)
			breach(m, "%s of file %u ends what is read of node %u", call, f->rid,
			       (unsigned)n->node);
	}
}

static struct model_file *server_add(struct model *m, unsigned record, const char *name,
				     unsigned content)
{
	struct model_file *f;

	m->files = grow(m->files, m->n_files, &m->files_room, sizeof(*m->files));
	f = &m->files[m->n_files++];
	f->rid = (unsigned)m->n_files;
	f->record = record;
	set_name(f->name, name);
	f->content = content;
	f->version = ++m->next_version;
	return f;
}

static void server_create(struct model *m, struct model_entry *e)
{
	unsigned content = e->filler ? MODEL_FILLER : e->content;
	struct model_file *f = m->caps.names_unique ? file_by_name(m, e->record, e->name) : NULL;

	if (f) {
		check_loss(m, f, content, "create");
		breach(m, "create on the taken name %s", e->name);
		f->content = content;
		f->version = ++m->next_version;
	} else {
		uint64_t size = m->sizes[content];

		if (size < m->caps.create_min_bytes ||
		    (m->caps.create_max_bytes && size > m->caps.create_max_bytes))
			breach(m, "create of %llu bytes", (unsigned long long)size);
		f = server_add(m, e->record, e->name, content);
	}
	f->token = e->token;
	f->tame = m->kind == MODEL_ID_KEYED && is_odd_name(e->name);
	f->mtime = e->set_mtime ? e->mtime : 0;
	e->result = *f;
}

static void server_replace(struct model *m, struct model_entry *e)
{
	struct model_file *f = file_by_rid(m, e->rid);

	if (!f) {
		e->gone = true;
		return;
	}
	if (m->kind == MODEL_IMMUTABLE)
		breach(m, "replace on a server that cannot");
	check_loss(m, f, e->content, "replace");
	f->content = e->content;
	f->version = ++m->next_version;
	if (e->set_name)
		set_name(f->name, e->name);
	f->tame = m->kind == MODEL_ID_KEYED && is_odd_name(f->name);
	f->mtime = e->set_mtime ? e->mtime : 0;
	e->result = *f;
}

static void server_update(struct model *m, struct model_entry *e)
{
	struct model_file *f = file_by_rid(m, e->rid);

	if (!f) {
		e->gone = true;
		return;
	}
	if (m->kind != MODEL_ID_KEYED)
		breach(m, "update on a server that cannot");
	if (!f->token && !f->seen)
		breach(m, "update of file %u that nobody here has seen", f->rid);
	if (e->set_name) {
		set_name(f->name, e->name);
		f->tame = false;
	}
	if (e->set_record) {
		if (!f->touched && collection_of(f->record) != collection_of(e->record) &&
		    !m->caps.move_between_collections)
			breach(m, "a move between collections");
		f->record = e->record;
	}
	if (e->set_mtime)
		f->mtime = e->mtime;
	e->result = *f;
}

/* Where names are unique it goes by name (S-13). */
static void server_remove(struct model *m, struct model_entry *e)
{
	struct model_file *f =
		m->caps.names_unique ? file_by_name(m, e->record, e->name) : file_by_rid(m, e->rid);

	if (!f) {
		e->gone = true;
		return;
	}
	check_loss(m, f, MODEL_DOUBT, "remove");
	if (f->rid != e->rid)
		breach(m, "remove of %s hits file %u instead of %u", e->name, f->rid, e->rid);
	f->rid = 0;
}

static void server_execute(struct model *m, struct model_call *c)
{
	c->executed = true;
	if (c->fate == MODEL_REFUSED || c->fate == MODEL_RETRY || c->fate == MODEL_LOST_UNDONE)
		return;
	for (size_t k = 0; k < c->n; k++) {
		if (c->kind == PLAN_CREATE)
			server_create(m, &c->entries[k]);
		else if (c->kind == PLAN_REPLACE)
			server_replace(m, &c->entries[k]);
		else if (c->kind == PLAN_UPDATE)
			server_update(m, &c->entries[k]);
		else if (c->kind == PLAN_REMOVE)
			server_remove(m, &c->entries[k]);
	}
}

/* ---- nodes ---- */

struct model_node *model_find(struct model *m, uint64_t node)
{
	for (size_t k = 0; k < m->n_nodes; k++) {
		if (node && m->nodes[k].node == node)
			return &m->nodes[k];
	}
	return NULL;
}

static struct model_node *node_add(struct model *m)
{
	struct model_node *n;

	m->nodes = grow(m->nodes, m->n_nodes, &m->nodes_room, sizeof(*m->nodes));
	n = &m->nodes[m->n_nodes++];
	n->node = m->next_node++;
	n->name_settled = n->content_settled = true;
	return n;
}

static void set_wanted_name(struct model_node *n, const char *name)
{
	set_name(n->name, name);
	n->local = is_local_name(name);
	n->was_local |= n->local;
}

static struct model_node *node_at(struct model *m, unsigned record, const char *name)
{
	for (size_t k = 0; k < m->n_nodes; k++) {
		struct model_node *n = &m->nodes[k];

		if (n->node && !n->gone && n->record == record && strcmp(n->name, name) == 0)
			return n;
	}
	return NULL;
}

static bool node_differs(const struct model_node *n)
{
	return !n->at.known || n->at.content != n->content;
}

static unsigned content_add(struct model *m, uint64_t size)
{
	m->sizes = grow(m->sizes, m->n_contents, &m->sizes_room, sizeof(*m->sizes));
	m->sizes[m->n_contents] = size;
	return (unsigned)m->n_contents++;
}

/* @shown may be the name it has already. */
static void node_see(struct model_node *n, const struct model_file *f, const char *shown,
		     unsigned content)
{
	struct model_known at = {
		.known = true, .rid = f->rid, .record = f->record, .tame = f->tame};

	set_name(at.name, shown);
	set_name(at.raw, f->name);
	at.content = content;
	at.version = f->version;
	n->at = at;
}

/* An update says nothing about the bytes: the version stays, so that what others did to them is
 * found by the refresh. */
static void node_moved(struct model_node *n, const struct model_file *f, const char *shown)
{
	unsigned version = n->at.version;

	node_see(n, f, shown, n->at.content);
	n->at.version = version;
}

/* Others, or nobody, removed its file: what is clean is gone here too, what is the user's becomes a
 * new file. */
static void node_vanish(struct model *m, struct model_node *n)
{
	bool clean = !node_differs(n);

	n->at = (struct model_known){0};
	if (n->gone)
		return;
	n->base = 0;
	if (clean) {
		n->node = 0;
		return;
	}
	n->content_local = true;
	n->mtime_differs = n->mtime_set;
	m->excuses++;
}

static void drop_dead(struct model *m)
{
	size_t to = 0;

	for (size_t k = 0; k < m->n_nodes; k++) {
		if (m->nodes[k].node)
			m->nodes[to++] = m->nodes[k];
	}
	m->n_nodes = to;
}

/* ---- the executor: sending ---- */

static void to_item(const struct model *m, const struct model_node *n, struct plan_item *it)
{
	*it = (struct plan_item){
		.node = n->node,
		.known = n->at.known,
		.known_record = n->at.record,
		.known_collection = collection_of(n->at.record),
		.known_name = n->at.known ? n->at.name : NULL,
		.known_name_exact = !n->at.tame,
		.known_filler = n->at.known && n->at.content == MODEL_FILLER,
		.known_stale = (m->stale || m->unsure) && m->kind != MODEL_IMMUTABLE,
		.stale = (m->stale || m->unsure) && m->kind != MODEL_IMMUTABLE,
		.gone = n->gone,
		.local = n->local,
		.record = n->record,
		.collection = collection_of(n->record),
		.name = n->name,
		.content_differs = node_differs(n),
		.content_local = n->content_local,
		.mtime_differs = n->mtime_differs,
		.size = m->sizes[n->content],
		.busy = n->busy,
		.parked = n->parked,
		.unknown = n->unknown,
		.open = n->open,
		.content_settled = n->content_settled,
		.name_settled = n->name_settled,
		.after = n->after,
		.alone = n->alone,
		.flight_record = n->flight_record,
		.flight_name = n->flight_name[0] ? n->flight_name : NULL,
	};
}

struct plan_item *model_items(const struct model *m, size_t *ret_n, size_t **ret_index)
{
	struct plan_item *items = calloc(m->n_nodes + 1, sizeof(*items));
	size_t *index = calloc(m->n_nodes + 1, sizeof(*index));
	size_t n = 0;

	if (!items || !index)
		abort();
	for (size_t k = 0; k < m->n_nodes; k++) {
		if (m->nodes[k].node) {
			index[n] = k;
			to_item(m, &m->nodes[k], &items[n++]);
		}
	}
	*ret_n = n;
	*ret_index = index;
	return items;
}

static void adopt(struct model *m, struct model_node *n, struct model_node *gone)
{
	struct model_known known = n->at;

	m->adopts++;
	m->excuses += !node_differs(n); /* one upload of what was there already */
	n->at = gone->at;
	gone->at = known;
	gone->after = n->node;
	gone->parked = false;
	n->mtime_differs = n->mtime_set;
}

static void count_call(struct model *m, const struct model_call *c)
{
	m->update_calls += c->kind == PLAN_UPDATE;
	m->remove_calls += c->kind == PLAN_REMOVE;
	m->looks += c->kind == PLAN_LOOK;
	m->fetches += c->kind == PLAN_FETCH;
	for (size_t k = 0; k < c->n; k++) {
		const struct model_entry *e = &c->entries[k];

		m->fillers += e->filler;
		m->uploads += c->kind == PLAN_REPLACE || (c->kind == PLAN_CREATE && !e->filler);
		m->updated += c->kind == PLAN_UPDATE;
		m->removed += c->kind == PLAN_REMOVE;
	}
}

/* What a call needs to know is copied when it is sent, and what a restart must know is kept in the
 * row. */
static void send_entry(struct model *m, enum plan_kind kind, const struct plan_entry *e,
		       struct model_node *n, struct model_entry *out)
{
	bool fills = kind == PLAN_CREATE || kind == PLAN_REPLACE;

	*out = (struct model_entry){
		.node = n->node,
		.rid = n->at.rid,
		.record = kind == PLAN_CREATE || e->set_record ? n->record : n->at.record,
		.content = n->content,
		.mtime = n->mtime,
		.filler = e->filler,
		.set_name = e->set_name,
		.set_record = e->set_record,
		.set_mtime = e->set_mtime,
		.token = m->next_token++,
	};
	set_name(out->name, e->name ? e->name : n->at.name);
	n->busy = true;
	n->alone = false;
	if (kind == PLAN_LOOK || kind == PLAN_FETCH)
		return;
	n->flight = kind;
	n->flight_record = out->record;
	n->flight_content = e->filler ? MODEL_FILLER : n->content;
	n->flight_size = m->sizes[n->flight_content];
	n->flight_token = out->token;
	set_name(n->flight_name, fills || kind == PLAN_UPDATE ? out->name : "");
	/* An upload elsewhere of what the server has already: the one that a server without updates
	 * needs. */
	m->excuses += kind == PLAN_CREATE && n->at.known && !node_differs(n);
}

/* Nothing is overwritten or removed that others have changed since it was last seen. */
static void check_sight(struct model *m, enum plan_kind kind, const struct model_node *n)
{
	const struct model_file *f = file_by_rid(m, n->at.rid);

	if ((kind == PLAN_REPLACE || kind == PLAN_REMOVE) && f && f->version == f->theirs &&
	    n->at.version != f->version)
		breach(m, "node %u would end version %u of others unseen", (unsigned)n->node,
		       f->version);
}

static void send_call(struct model *m, const struct plan *p, const struct plan_call *call,
		      const size_t *index)
{
	struct model_call *c;

	m->calls = grow(m->calls, m->n_calls, &m->calls_room, sizeof(*m->calls));
	c = &m->calls[m->n_calls++];
	c->kind = call->kind;
	c->n = call->n;
	c->fate = m->faults && chance(m, 30) ? (enum model_fate)model_pick(m, MODEL_FATES)
					     : MODEL_DONE;
	c->entries = calloc(call->n, sizeof(*c->entries));
	if (!c->entries)
		abort();
	for (size_t k = 0; k < call->n; k++) {
		const struct plan_entry *e = &p->entries[call->first + k];

		check_sight(m, call->kind, &m->nodes[index[e->item]]);
		send_entry(m, call->kind, e, &m->nodes[index[e->item]], &c->entries[k]);
	}
	count_call(m, c);
}

static bool refresh(struct model *m);

/* Plans once. @percent: how many of the calls are sent; the others were given up for now. Returns
 * how much was done. */
static size_t plan_once(struct model *m, uint32_t percent)
{
	struct plan p;
	size_t n, done = 0;
	size_t *index;
	struct plan_item *items = model_items(m, &n, &index);
	char message[128];
	bool verify = false;

	if (plan_make(&m->caps, items, n, &p) < 0)
		abort();
	if (plan_check(&m->caps, items, n, &p, message, sizeof(message)) < 0)
		breach(m, "plan_check: %s", message);
	for (size_t k = 0; k < p.n_calls; k++) {
		const struct plan_call *call = &p.calls[k];
		const struct plan_entry *e = &p.entries[call->first];

		if (percent < 100 && !chance(m, percent))
			continue;
		done += call->n;
		if (call->kind == PLAN_VERIFY) {
			verify = true;
			continue;
		}
		if (call->kind != PLAN_FORGET && call->kind != PLAN_ADOPT) {
			send_call(m, &p, call, index);
			continue;
		}
		for (size_t j = 0; j < call->n; j++) {
			if (call->kind == PLAN_FORGET)
				m->nodes[index[e[j].item]].node = 0;
			else
				adopt(m, &m->nodes[index[e[j].item]], &m->nodes[index[e[j].other]]);
		}
	}
	plan_clear(&p);
	free(items);
	free(index);
	drop_dead(m);
	if (verify && (!m->stale || refresh(m))) {
		m->unsure = false;
		done++;
	}
	return done;
}

/* ---- the executor: acknowledging ---- */

static void clear_flight(struct model_node *n)
{
	n->busy = n->unknown = false;
	n->flight = PLAN_FORGET;
	n->flight_record = 0;
	n->flight_name[0] = '\0';
}

/* The identity that a new upload leaves behind is to be removed once nobody needs it. Returns @n,
 * which may have moved. */
static struct model_node *leave_ghost(struct model *m, struct model_node *n)
{
	uint64_t node = n->node;
	struct model_node *ghost;

	if (!n->at.known)
		return n;
	ghost = node_add(m);
	n = model_find(m, node);
	ghost->gone = true;
	ghost->at = n->at;
	ghost->record = n->at.record;
	set_name(ghost->name, n->at.name);
	ghost->content = n->at.content == MODEL_DOUBT ? MODEL_FILLER : n->at.content;
	ghost->content_local = true; /* nobody reads through it */
	ghost->after = node;
	n->at = (struct model_known){0};
	return n;
}

static void acknowledge_entry(struct model *m, enum plan_kind kind, const struct model_entry *e,
			      struct model_node *n)
{
	clear_flight(n);
	if (kind == PLAN_REMOVE) {
		n->at = (struct model_known){0};
		return;
	}
	if (e->gone) {
		node_vanish(m, n);
		return;
	}
	if (kind == PLAN_CREATE)
		n = leave_ghost(m, n);
	if (kind == PLAN_UPDATE)
		node_moved(n, &e->result, e->set_name ? e->name : n->at.name);
	else
		node_see(n, &e->result, e->set_name || kind == PLAN_CREATE ? e->name : n->at.name,
			 e->filler ? MODEL_FILLER : e->content);
	if (e->set_mtime && e->mtime == n->mtime)
		n->mtime_differs = false;
}

/* Somebody here has this file already. */
static bool is_known(const struct model *m, unsigned rid)
{
	for (size_t k = 0; k < m->n_nodes; k++) {
		if (m->nodes[k].node && m->nodes[k].at.known && m->nodes[k].at.rid == rid)
			return true;
	}
	return false;
}

/* The call is of unknown outcome; the listing tells, or it counts as not done. */
static void look_for(struct model *m, struct model_node *n)
{
	struct model_file *f = file_by_rid(m, n->at.rid);
	bool ours = false;

	switch (n->flight) {
	case PLAN_CREATE:
		for (size_t k = 0; k < m->n_files && !ours; k++) {
			f = &m->files[k];
			ours = f->rid && f->record == n->flight_record &&
			       f->token == n->flight_token;
			if (m->kind !=
			    MODEL_ID_KEYED) /* no token to be seen there: name and size */
				ours = f->rid && f->record == n->flight_record &&
				       !is_known(m, f->rid) &&
				       strcmp(f->name, n->flight_name) == 0 &&
				       m->sizes[f->content] == n->flight_size;
		}
		if (ours) {
			n = leave_ghost(m, n);
			/* Not its size: others have replaced it since. */
			node_see(n, f, n->flight_name,
				 m->sizes[f->content] == n->flight_size ? n->flight_content
									: MODEL_DOUBT);
		}
		break;
	case PLAN_REPLACE:
		ours = f && f->version != n->at.version && m->sizes[f->content] == n->flight_size;
		if (ours)
			node_see(n, f, strcmp(f->name, n->at.raw) == 0 ? n->at.name : f->name,
				 n->flight_content);
		break;
	case PLAN_UPDATE:
		if (f && f->record == n->flight_record)
			node_moved(n, f, strcmp(f->name, n->at.raw) == 0 ? n->at.name : f->name);
		break;
	default:
		if (!f)
			n->at = (struct model_known){0};
		break;
	}
	n->mtime_differs = n->mtime_set;
	clear_flight(n);
}

static void fetched(struct model *m, struct model_node *n)
{
	const struct model_file *f = file_by_rid(m, n->at.rid);
	unsigned content = n->base ? n->base : n->content;

	n->busy = false;
	if (!f || f->content != content) {
		if (!is_theirs(m, n) && !n->gone)
			breach(m, "node %u cannot be fetched any more", (unsigned)n->node);
		if (!n->gone && !n->base && f)
			return; /* the next refresh tells */
	}
	n->base = 0;
	n->content_local = true;
}

static void fail_entry(struct model *m, const struct model_call *c, struct model_node *n)
{
	bool lost = c->fate == MODEL_LOST || c->fate == MODEL_LOST_UNDONE;

	n->busy = false;
	if (c->kind == PLAN_FETCH || c->kind == PLAN_LOOK)
		return;
	m->excuses++;
	if (lost) {
		n->unknown = true;
		return;
	}
	clear_flight(n);
	if (c->fate == MODEL_REFUSED) {
		n->alone = c->n > 1;
		n->parked = c->n == 1;
	}
}

static void acknowledge(struct model *m, size_t number)
{
	struct model_call c = m->calls[number];

	m->calls[number] = m->calls[--m->n_calls];
	for (size_t k = 0; k < c.n; k++) {
		struct model_node *n = model_find(m, c.entries[k].node);

		if (c.fate != MODEL_DONE)
			fail_entry(m, &c, n);
		else if (c.kind == PLAN_LOOK)
			look_for(m, n);
		else if (c.kind == PLAN_FETCH)
			fetched(m, n);
		else
			acknowledge_entry(m, c.kind, &c.entries[k], n);
	}
	free(c.entries);
	drop_dead(m);
}

/* Killed and started again: calls in the air are done or not, what was busy is unknown, what is
 * only in memory is lost. */
static void restart(struct model *m)
{
	for (size_t k = 0; k < m->n_calls; k++) {
		if (!m->calls[k].executed && chance(m, 50))
			server_execute(m, &m->calls[k]);
		free(m->calls[k].entries);
	}
	m->n_calls = 0;
	for (size_t k = 0; k < m->n_nodes; k++) {
		struct model_node *n = &m->nodes[k];

		if (n->flight != PLAN_FORGET) {
			n->unknown = true;
			if (n->flight_content != MODEL_FILLER)
				n->flight_content =
					MODEL_DOUBT; /* the row does not say which one was sent */
			m->excuses += 2; /* and so it is sent again, and may have been lost */
		}
		n->busy = n->alone = n->open = false;
		n->content_settled = n->name_settled = true;
	}
}

/* ---- others, and how the mount learns of it ---- */

static void free_name(struct model *m, unsigned record, const char *raw, const char *mark,
		      char out[MODEL_NAME])
{
	set_name(out, raw);
	while (node_at(m, record, out))
		snprintf(out, MODEL_NAME, "%.20s%s%u", raw, mark, ++m->next_name);
}

/* Where names are unique, the name is theirs: ours steps aside. Else theirs is shown with its id.
 */
static void make_way(struct model *m, unsigned record, const char *raw, char shown[MODEL_NAME])
{
	struct model_node *ours = node_at(m, record, raw);

	if (ours && m->caps.names_unique) {
		char name[MODEL_NAME];

		free_name(m, record, raw, "~conflict", name);
		m->excuses += 2;
		set_wanted_name(ours, name);
	}
	free_name(m, record, raw, "~", shown);
}

/* Both changed the content: both are kept, ours under another name and as a new file. */
static void keep_both(struct model *m, uint64_t node, const struct model_file *f)
{
	struct model_node *theirs = node_add(m);
	struct model_node *n = model_find(m, node);
	char name[MODEL_NAME];

	node_see(n, f, n->at.name, f->content);
	theirs->at = n->at;
	theirs->record = n->record;
	theirs->content = f->content;
	set_wanted_name(theirs, n->name);
	free_name(m, n->record, n->name, "~conflict", name);
	set_wanted_name(n, name);
	n->at = (struct model_known){0};
	n->base = 0;
	n->content_local = true;
	n->mtime_differs = n->mtime_set;
	m->excuses += 2;
}

/* Others moved its file: it follows, unless the user has moved it too. Returns the node, which may
 * have moved. */
static struct model_node *refresh_place(struct model *m, uint64_t node, const struct model_file *f)
{
	struct model_node *n = model_find(m, node);
	bool follows = !n->gone && n->record == n->at.record && strcmp(n->name, n->at.name) == 0;
	char shown[MODEL_NAME];

	if (f->record == n->at.record && strcmp(f->name, n->at.raw) == 0)
		return n;
	if (follows)
		n->gone = true; /* so that it is not in its own way */
	make_way(m, f->record, f->name, shown);
	n = model_find(m, node);
	if (follows) {
		n->gone = false;
		n->record = f->record;
		set_wanted_name(n, shown);
	}
	node_moved(n, f, shown);
	return n;
}

static void refresh_node(struct model *m, uint64_t node)
{
	struct model_node *n = model_find(m, node);
	const struct model_file *f = file_by_rid(m, n->at.rid);

	if (!n->at.known)
		return;
	if (!f) {
		node_vanish(m, n);
		return;
	}
	n = refresh_place(m, node, f);
	if (n->gone && f->version != n->at.version && f->version == f->theirs) {
		n->at = (struct model_known){0}; /* what others did since stays, as a new file */
	} else if (n->gone) {
		n->at.version = f->version;
		n->at.content = f->content;
	} else if (f->version == n->at.version) {
		return;
	} else if (node_differs(n)) {
		keep_both(m, node, f);
	} else {
		n->content = f->content;
		n->content_local = false;
		node_see(n, f, n->at.name, f->content);
	}
}

static void refresh_file(struct model *m, size_t number)
{
	struct model_file *f = &m->files[number];
	struct model_node *n;
	char shown[MODEL_NAME];

	if (!f->rid || is_known(m, f->rid))
		return;
	if (f->token && !f->touched)
		breach(m, "file %u of ours is nobody's", f->rid);
	if (f->content == MODEL_FILLER)
		f->content = content_add(
			m, m->sizes[MODEL_FILLER]); /* others moved it away before we knew of it */
	make_way(m, f->record, f->name, shown);
	n = node_add(m);
	n->record = f->record;
	set_wanted_name(n, shown);
	n->content = f->content;
	node_see(n, f, shown, f->content);
	f->seen = true;
}

/* A listing of all. Waits until nothing is in the air: what a call changes is not a change by
 * others. */
static bool refresh(struct model *m)
{
	size_t nodes = m->n_nodes;

	if (m->n_calls)
		return false;
	for (size_t k = 0; k < m->n_nodes; k++) {
		if (m->nodes[k].unknown)
			return false;
	}
	for (size_t k = 0; k < nodes; k++) {
		if (m->nodes[k].node)
			refresh_node(m, m->nodes[k].node);
	}
	drop_dead(m);
	for (size_t k = 0; k < m->n_files; k++)
		refresh_file(m, k);
	m->stale = false;
	return true;
}

static uint64_t pick_size(struct model *m)
{
	uint64_t unique = m->n_contents;

	switch (model_pick(m, 4)) {
	case 0:
		return unique % 1000;
	case 1:
		return 20000000 + unique;
	default:
		return 2000 + unique;
	}
}

static const char *pick_name(struct model *m)
{
	static const char *const names[] = {"a", "b", "c", "d", "e#", ".~f"};

	return names[model_pick(m, sizeof(names) / sizeof(names[0]))];
}

static unsigned pick_record(struct model *m)
{
	return 1 + (chance(m, 30) ? model_pick(m, RECORDS) : 0);
}

/*
 * Where names are unique, the race between a listing and a create to a name that others take
 * meanwhile cannot be won by any plan (servicemax.md, section 5): there others act only while
 * nothing is in the air, and are seen at once.
 */
static void others_act(struct model *m)
{
	unsigned what = model_pick(m, 4);
	unsigned record = pick_record(m);
	const char *name = pick_name(m);
	struct model_file *f =
		m->n_files ? file_by_rid(m, 1 + model_pick(m, (uint32_t)m->n_files)) : NULL;

	if (m->caps.names_unique && !refresh(m))
		return;
	m->stale = true;
	if (what == 0 || !f) {
		if (!m->caps.names_unique || !file_by_name(m, record, name))
			server_add(m, record, name, content_add(m, pick_size(m)))->touched = true;
	} else {
		f->touched = true;
		if (what == 1 && m->kind == MODEL_ID_KEYED) {
			set_name(f->name, name);
			f->record = record;
		} else if (what == 2 && m->kind != MODEL_IMMUTABLE) {
			f->content = content_add(m, pick_size(m));
			f->theirs = f->version = ++m->next_version;
		} else if (what == 3) {
			f->rid = 0;
		}
	}
	if (m->caps.names_unique)
		refresh(m);
}

/* ---- the user ---- */

uint64_t model_create(struct model *m, unsigned record, const char *name, uint64_t size)
{
	struct model_node *n = node_at(m, record, name);

	if (n)
		model_delete(m, n->node);
	n = node_add(m);
	n->record = record;
	set_wanted_name(n, name);
	n->content = content_add(m, size);
	n->content_local = true;
	return n->node;
}

void model_write(struct model *m, uint64_t node, uint64_t size)
{
	struct model_node *n = model_find(m, node);

	/* What is not here and not overwritten wholly is needed from the server. */
	if (!n->content_local && !n->base)
		n->base = n->content;
	n->content = content_add(m, size);
	n->mtime_set = n->mtime_differs = false;
	n->parked = false;
}

void model_rename(struct model *m, uint64_t node, unsigned record, const char *name)
{
	struct model_node *target = node_at(m, record, name);
	struct model_node *n = model_find(m, node);

	if (target == n)
		return;
	if (target)
		model_delete(m, target->node);
	n->record = record;
	set_wanted_name(n, name);
	n->parked = false;
}

void model_delete(struct model *m, uint64_t node)
{
	struct model_node *n = model_find(m, node);

	n->gone = true;
	n->parked = false;
	if (node_differs(n)) {
		n->content_local =
			true; /* written here: whoever reads it needs nothing of the server */
		n->base = 0;
	}
}

void model_touch(struct model *m, uint64_t node, unsigned mtime)
{
	struct model_node *n = model_find(m, node);

	n->mtime = mtime;
	n->mtime_set = n->mtime_differs = true;
}

void model_evict(struct model *m, uint64_t node)
{
	struct model_node *n = model_find(m, node);

	if (!node_differs(n) && !n->busy && !n->unknown)
		n->content_local = false;
}

uint64_t model_remote(struct model *m, unsigned record, const char *name, uint64_t size)
{
	struct model_file *f = server_add(m, record, name, content_add(m, size));
	struct model_node *n = node_add(m);

	f->seen = true;
	n->record = record;
	set_name(n->name, name);
	n->content = f->content;
	n->content_local = true;
	node_see(n, f, name, f->content);
	return n->node;
}

static struct model_node *pick_node(struct model *m)
{
	struct model_node *n = m->n_nodes ? &m->nodes[model_pick(m, (uint32_t)m->n_nodes)] : NULL;

	return n && !n->gone ? n : NULL;
}

static void user_swaps(struct model *m, uint64_t a)
{
	const struct model_node *x = model_find(m, a), *y = pick_node(m);
	char name_x[MODEL_NAME], name_y[MODEL_NAME];
	unsigned record_x = x->record, record_y;
	uint64_t b;

	if (!y || x == y)
		return;
	b = y->node;
	record_y = y->record;
	set_name(name_x, x->name);
	set_name(name_y, y->name);
	model_rename(m, a, record_x, "swap");
	model_rename(m, b, record_x, name_x);
	if (model_find(m, a)->gone || model_find(m, b)->gone)
		return;
	model_rename(m, a, record_y, name_y);
}

static void user_acts(struct model *m)
{
	struct model_node *n = pick_node(m);
	uint64_t node = n ? n->node : 0;
	unsigned record = pick_record(m); /* here, since arguments are evaluated in any order */
	const char *name = pick_name(m);
	uint64_t size = pick_size(m);
	bool settled = chance(m, 60);

	if (!n || chance(m, 20)) {
		node = model_create(m, record, name, size);
	} else {
		switch (model_pick(m, 9)) {
		case 0:
		case 1:
			model_write(m, node, size);
			break;
		case 2:
		case 3:
		case 4:
			model_rename(m, node, record, name);
			break;
		case 5:
			user_swaps(m, node);
			break;
		case 6:
			model_touch(m, node, 1 + model_pick(m, 100));
			break;
		case 7:
			model_evict(m, node);
			break;
		default:
			n->open = chance(m, 50);
			model_delete(m, node);
			break;
		}
	}
	n = model_find(m, node);
	n->name_settled = settled;
	n->content_settled = settled && chance(m, 80);
}

/* ---- running ---- */

static void check_contents(struct model *m)
{
	for (size_t k = 0; k < m->n_nodes; k++) {
		const struct model_node *n = &m->nodes[k];

		if (!n->node || n->gone || is_theirs(m, n) || n->content_local)
			continue;
		if (!server_has(m, n->base ? n->base : n->content, 0))
			breach(m, "the content of node %u is nowhere", (unsigned)n->node);
	}
}

static void settle_all(struct model *m)
{
	for (size_t k = 0; k < m->n_nodes; k++) {
		struct model_node *n = &m->nodes[k];

		n->content_settled = n->name_settled = true;
		n->parked = n->open = false;
	}
}

static void finish_calls(struct model *m)
{
	while (m->n_calls) {
		if (!m->calls[m->n_calls - 1].executed)
			server_execute(m, &m->calls[m->n_calls - 1]);
		acknowledge(m, m->n_calls - 1);
		check_contents(m);
	}
}

static void check_end(struct model *m)
{
	size_t files = 0, held = 0;

	for (size_t k = 0; k < m->n_files; k++)
		files += m->files[k].rid != 0;
	for (size_t k = 0; k < m->n_nodes; k++) {
		const struct model_node *n = &m->nodes[k];
		const struct model_file *f = file_by_rid(m, n->at.rid);
		unsigned id = (unsigned)n->node;

		held += n->at.known;
		if (n->gone)
			breach(m, "node %u is gone and still there", id);
		else if (n->local)
			continue;
		else if (!n->at.known || !f)
			breach(m, "node %u is not on the server", id);
		else if (f->content != n->content)
			breach(m, "node %u has another content on the server", id);
		else if (n->at.record != n->record || strcmp(n->at.name, n->name) != 0 ||
			 f->record != n->record || strcmp(f->name, n->at.raw) != 0)
			breach(m, "node %u is at %u/%s instead of %u/%s", id, f->record, f->name,
			       n->record, n->name);
		else if (f->tame)
			breach(m, "node %u kept its tame name", id);
		else if (m->caps.set_mtime && n->mtime_set && f->mtime != n->mtime)
			breach(m, "node %u has mtime %u instead of %u", id, f->mtime, n->mtime);
	}
	if (files != held)
		breach(m, "%zu files on the server, %zu of them are somebody's", files, held);
	if (m->uploads > m->n_contents - 1 + m->excuses)
		breach(m, "%u uploads of %zu contents and %u excuses", m->uploads,
		       m->n_contents - 1, m->excuses);
}

void model_settle(struct model *m)
{
	unsigned round = 0;

	m->faults = m->others = false;
	for (size_t k = 0; k < m->n_calls; k++) {
		if (!m->calls[k].executed)
			m->calls[k].fate = MODEL_DONE;
	}
	finish_calls(m);
	do {
		settle_all(m);
		if (m->stale && refresh(m))
			settle_all(m);
		if (++round > ROUNDS) {
			breach(m, "does not settle");
			return;
		}
		if (plan_once(m, 100) == 0 && !m->n_calls && !m->stale)
			break;
		finish_calls(m);
	} while (!m->breach[0]);
	check_end(m);
}

static void step(struct model *m)
{
	unsigned what = model_pick(m, 100);

	if (what < 30) {
		user_acts(m);
	} else if (what < 55) {
		plan_once(m, 80);
	} else if (what < 70) {
		if (m->n_calls) {
			struct model_call *c = &m->calls[model_pick(m, (uint32_t)m->n_calls)];

			if (!c->executed)
				server_execute(m, c);
		}
	} else if (what < 85) {
		for (size_t k = 0; k < m->n_calls; k++) {
			if (m->calls[k].executed) {
				acknowledge(m, k);
				break;
			}
		}
	} else if (what < 90) {
		settle_all(m);
	} else if (what < 93) {
		refresh(m);
	} else if (what < 95) {
		m->unsure = m->others;
	} else if (what < 98) {
		if (m->others)
			others_act(m);
	} else if (m->faults) {
		restart(m);
	}
	check_contents(m);
}

void model_user_acts(struct model *m, unsigned steps)
{
	for (unsigned k = 0; k < steps; k++)
		user_acts(m);
}

void model_history(struct model *m, unsigned steps)
{
	for (unsigned k = 0; k < steps && !m->breach[0] && (!m->bytes || m->left); k++)
		step(m);
	model_settle(m);
}
