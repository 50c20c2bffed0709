/* SPDX-License-Identifier: MIT */
/*
 * After the start: who had what. Each node asks for its content, or hears that a power failure took it
 * and what there is instead; then nobody can name what is left, and it goes to lost+found.
 */
#include "content_private.h"

#include <stdlib.h>

#include <attachfs/log.h>

bool content_is_torn(struct content_store *s, uint64_t id, uint64_t *ret_instead)
{
	for (size_t i = 0; i < s->torn_count; i++) {
		if (s->torn[i].id != id)
			continue;
		*ret_instead = s->torn[i].instead;
		return true;
	}
	return false;
}

void content_store_tell_changed(struct content_store *s,
				const char *(*name_of)(void *ctx, const char *key), void *ctx)
{
	while (s->changed) {
		struct content_changed *note = s->changed;
		const char *key = note->key ? note->key : "";
		const char *name = name_of ? name_of(ctx, key) : NULL;
		char object[CONTENT_NAME_BYTES];

		s->changed = note->next;
		content_name(note->file, object);
		log_warning("cache: '%s': its copy '%s/objects/%s' is %s: it is fetched again when "
			    "it is read",
			    name ? name : key, s->dir, object,
			    note->gone ? "gone" : "of another size");
		free(note->key);
		free(note);
	}
}

/* A sealed dirty content without anybody: lost+found. */
static void set_aside_store_locked(struct content *c)
{
	struct content_store *s = c->store;

	content_remove_store_locked(c);
	s->used -= c->charged;
	s->dirty_bytes -= c->charged;
	ledger_drop_content(s->ledger, c->id);
}

/* One round: those that lie below none. What they lay over may be next. */
static struct content *take_unclaimed(struct content_store *s)
{
	struct content *list = NULL;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->id_room; i++)
		for (struct content *c = s->by_id[i], *next; c; c = next) {
			next = c->next_by_id;
			if (!c->dirty || !c->sealed || c->claimed || c->refs > 0)
				continue;
			set_aside_store_locked(c);
			c->next_by_id = list;
			list = c;
		}
	pthread_mutex_unlock(&s->lock);
	return list;
}

/* What nobody asked for but lies below something is wanted for that only: it goes with what lies
 * over it. */
static void drop_unclaimed(struct content_store *s)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->id_room; i++)
		for (struct content *c = s->by_id[i]; c; c = c->next_by_id)
			if (c->dirty && c->sealed && !c->claimed)
				c->dropped = true;
	pthread_mutex_unlock(&s->lock);
}

/* Who had them has something else now. */
static void bury_torn(struct content_store *s)
{
	char name[CONTENT_NAME_BYTES];

	for (size_t i = 0; i < s->torn_count; i++) {
		const struct content_torn *torn = &s->torn[i];

		log_error("content: %llu: written less than a second before the power failed, may "
			  "be torn",
			  (unsigned long long)torn->id);
		content_name(torn->file, name);
		if (torn->has_file)
			content_lose(s, name, "may be torn");
		ledger_drop_content(s->ledger, torn->id);
	}
	free(s->torn);
	s->torn = NULL;
	s->torn_count = s->torn_room = 0;
	ledger_end_suspicion(s->ledger);
}

void content_store_claimed(struct content_store *s)
{
	struct content *list;

	while ((list = take_unclaimed(s)))
		while (list) {
			struct content *next = list->next_by_id;
			char name[CONTENT_NAME_BYTES];

			log_error("content: %llu: no file has it", (unsigned long long)list->id);
			content_name(list->file, name);
			if (list->charged > 0)
				content_lose(s, name, "was written, but no file has it");
			else
				content_unlink(s, list->file);
			content_live_free(list->live);
			content_free(list);
			list = next;
		}
	drop_unclaimed(s);
	bury_torn(s);
}
