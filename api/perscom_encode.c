/* SPDX-License-Identifier: MIT */

/*
 * What is sent: bodies of searches and batches, names and times the server keeps as they are. Pure.
 */

#include "perscom.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>

#include "json.h"

/* An id as the server's own type (P-26: strings are coerced, numbers are not). */
static json_t *id_value(const char *id)
{
	return json_integer(json_is_id(id) ? atoll(id) : 0);
}

/* {"field": .., "operator": .., "value": ..}; takes @value. */
static json_t *make_filter(const char *field, const char *operator, json_t * value)
{
	return json_pack("{s:s, s:s, s:o}", "field", field, "operator", operator, "value", value);
}

/* {"filters": [..], "sort": [{"field": "id", "direction": "asc"}]}; takes @filters. */
static json_t *make_body(json_t *filters)
{
	if (!filters)
		return NULL;
	return json_pack("{s:o, s:[{s:s, s:s}]}", "filters", filters, "sort", "field", "id",
			 "direction", "asc");
}

static json_t *filters_after(json_t *filters, const char *after)
{
	if (after && *after != '\0')
		json_array_append_new(filters, make_filter("id", ">", id_value(after)));
	return filters;
}

json_t *perscom_body_page(const char *after)
{
	return make_body(filters_after(json_array(), after));
}

json_t *perscom_body_owner(const char *model_type, const char *record, const char *after)
{
	json_t *filters =
		json_pack("[o, o]", make_filter("model_type", "=", json_string(model_type)),
			  make_filter("model_id", "=", id_value(record)));

	return make_body(filters_after(filters, after));
}

json_t *perscom_body_ids(const char *const *ids, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, id_value(ids[i]));
	return make_body(json_pack("[o]", make_filter("id", "in", list)));
}

json_t *perscom_body_from_id(const char *id)
{
	return make_body(json_pack("[o]", make_filter("id", ">=", id_value(id))));
}

/* Takes @filters. */
static json_t *make_newest(json_t *filters)
{
	/* Times have a resolution of one second: the id decides among equals. */
	return json_pack("{s:o, s:[{s:s, s:s}, {s:s, s:s}]}", "filters", filters, "sort", "field",
			 "updated_at", "direction", "desc", "field", "id", "direction", "desc");
}

json_t *perscom_body_newest(const char *model_type)
{
	json_t *filters = json_array();

	if (model_type)
		json_array_append_new(filters,
				      make_filter("model_type", "=", json_string(model_type)));
	return make_newest(filters);
}

json_t *perscom_body_newest_of(unsigned collections)
{
	const struct perscom_collection *c;
	json_t *models = json_array();

	for (size_t i = 0; (c = perscom_collection_at(i)); i++)
		if (collections & perscom_collection_bit(c))
			json_array_append_new(models, json_string(c->model_type));
	return make_newest(json_pack("[o]", make_filter("model_type", "in", models)));
}

bool perscom_format_time(int64_t ns, char out[32])
{
	int64_t s = ns / CLOCK_NS_PER_S;

	out[0] = '\0';
	/* A MySQL TIMESTAMP: 1970-01-01 00:00:01 .. 2038-01-19 03:14:07. */
	if (ns == REMOTE_TIME_NONE || ns < CLOCK_NS_PER_S || s > INT32_MAX)
		return false;
	time_format_iso8601(ns, out);
	return true;
}

json_t *perscom_entry(const struct remote_change *item)
{
	const struct perscom_collection *c =
		item->move ? perscom_find_collection(item->collection) : NULL;
	json_t *entry = json_object();
	char when[TIME_ISO8601_SIZE];
	int r = 0;

	if (item->name) {
		r |= json_object_set_new(entry, "name", json_string(item->name));
		r |= json_object_set_new(entry, "filename", json_string(item->name));
	}
	if (perscom_format_time(item->mtime_ns, when))
		r |= json_object_set_new(entry, "updated_at", json_string(when));
	if (item->move) {
		/*
		 * Never a class that is no owner: the file would be an orphan that nobody sees
		 * (P-16).
		 */
		r |= !c || !json_is_id(item->record);
		r |= json_object_set_new(entry, "model_type", json_string(c ? c->model_type : ""));
		r |= json_object_set_new(entry, "model_id", id_value(item->record));
	}
	if (r == 0)
		return entry;
	json_decref(entry);
	return NULL;
}

json_t *perscom_record_entry(const struct perscom_collection *c, const struct remote_change *item)
{
	json_t *fields = item->fields_json
				 ? json_parse(item->fields_json, strlen(item->fields_json), NULL, 0)
				 : json_object();

	if (!json_is_object(fields)) {
		json_decref(fields);
		return NULL;
	}
	/* The server's own: sent back they would do nothing, or a 500 (v2.10). */
	json_object_del(fields, "id");
	json_object_del(fields, "label");
	json_object_del(fields, "attachments");
	if (item->name && (!c->name_field || json_object_set_new(fields, c->name_field,
								 json_string(item->name)) < 0)) {
		json_decref(fields);
		return NULL;
	}
	return fields;
}

/*
 * Put @entry (taken) under the item's id; entries of one id become one, an empty one is dropped
 * (P-11).
 */
static int add_entry(json_t *map, const char *id, json_t *entry)
{
	json_t *known = json_object_get(map, id);
	int r = 0;

	if (!entry || !json_is_id(id)) {
		r = -1;
	} else if (json_object_size(entry) > 0) {
		if (known)
			r = json_object_update(known, entry);
		else
			return json_object_set_new(map, id, entry);
	}
	json_decref(entry);
	return r;
}

/* {"resources": map}; takes both. */
static json_t *wrap_resources(json_t *resources, int r)
{
	if (r == 0)
		return json_pack("{s:o}", "resources", resources);
	json_decref(resources);
	return NULL;
}

json_t *perscom_body_update(const struct remote_change *items, size_t n)
{
	json_t *map = json_object();
	int r = 0;

	for (size_t i = 0; i < n; i++)
		r |= add_entry(map, items[i].id, perscom_entry(&items[i]));
	return wrap_resources(map, r);
}

json_t *perscom_body_update_records(const struct perscom_collection *c,
				    const struct remote_change *items, size_t n)
{
	json_t *map = json_object();
	int r = 0;

	for (size_t i = 0; i < n; i++)
		r |= add_entry(map, items[i].id, perscom_record_entry(c, &items[i]));
	return wrap_resources(map, r);
}

json_t *perscom_body_remove(const struct remote_change *items, size_t n)
{
	json_t *list = json_array();
	int r = 0;

	for (size_t i = 0; i < n; i++)
		r |= !json_is_id(items[i].id) ||
		     json_array_append_new(list, id_value(items[i].id)) < 0;
	return wrap_resources(list, r);
}

bool perscom_is_tame(const char *name)
{
	static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 "
				   "!#$&'()+,-.=@[]^_`{}~";
	size_t len = name ? strlen(name) : 0;

	if (len == 0 || len > 255 || strspn(name, safe) != len)
		return false;
	return name[0] != ' ' && name[len - 1] != ' ';
}

const char *perscom_part_filename(const struct remote_change *item)
{
	if (perscom_is_tame(item->name))
		return item->name;
	return perscom_is_tame(item->token) ? item->token : "upload.bin";
}

void perscom_change_reset(struct remote_change *item)
{
	item->outcome = REMOTE_RETRY;
	item->error = -EIO;
	item->message[0] = '\0';
	item->file = (struct remote_file){.size = -1};
}

void perscom_fill(char *out, size_t size)
{
	static const char text[] = "attachfs filler, the content follows (P-1)\n";

	for (size_t i = 0; i < size; i++)
		out[i] = text[i % (sizeof(text) - 1)];
}
