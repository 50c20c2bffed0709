/* SPDX-License-Identifier: MIT */
#include "populate.h"

#include "alloc.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Generated things are as old as the examples of the reference: 2026-01-05 09:00:00 UTC. */
#define GENERATED_AT 1767603600

struct collection *populate_collection(struct emulator *emu, const char *name)
{
	return emu->system->open_collections ? store_open_collection(emu->store, name)
					     : store_collection(emu->store, name);
}

struct record *populate_record(struct emulator *emu, struct collection *c, const char *name,
			       int64_t now)
{
	struct record *r = store_add_record(c, name, strlen(name), now);

	emu->system->dress_record(r);
	return r;
}

struct attachment *populate_attachment(struct emulator *emu, struct record *r, const char *name,
				       const char *path, struct blob *blob, int64_t now)
{
	const char *type = r->collection->owner_type;
	struct attachment *a = NULL;

	if (emu->system->namesake)
		a = emu->system->namesake(emu, r, name, strlen(name));
	if (a) {
		populate_replace(emu, a, path, blob, now);
		return a;
	}
	a = store_add_attachment(emu->store, path, now);
	str_set(&a->name, name, strlen(name));
	str_set(&a->filename, name, strlen(name));
	store_set_owner(emu->store, a, type, strlen(type), &r->row.id);
	blob_set_made_at(blob, now);
	store_put_blob(emu->store, path, blob);
	return a;
}

void populate_replace(struct emulator *emu, struct attachment *a, const char *path,
		      struct blob *blob, int64_t now)
{
	if (emu->system->replacing)
		emu->system->replacing(emu, a);
	free(a->path);
	a->path = xstrdup(path);
	a->updated_at = now;
	blob_set_made_at(blob, now);
	store_put_blob(emu->store, path, blob);
}

/* @identity decides the storage key: the same file keeps it when the emulator is started again. */
static void add_lasting(struct emulator *emu, struct record *r, const char *name,
			const char *identity, struct blob *blob, int64_t now)
{
	uint64_t seed = hash_bytes(identity, strlen(identity), (uint64_t)now);
	char *path = store_path_of(seed, store_guess_extension(blob));

	populate_attachment(emu, r, name, path, blob, now);
	free(path);
}

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* Calls @each for every entry of @directory in byte order, so that ids are the same at every start. */
static bool for_each_entry(const char *directory, void *context,
			   bool (*each)(void *context, const char *path, const char *name))
{
	struct dirent **entries;
	int n = scandir(directory, &entries, visible, alphasort);
	bool fine = true;

	if (n < 0) {
		fprintf(stderr, "attachfs-emulator: %s: %s\n", directory, strerror(errno));
		return false;
	}
	for (int i = 0; i < n; i++) {
		char *path = xasprintf("%s/%s", directory, entries[i]->d_name);

		fine = fine && each(context, path, entries[i]->d_name);
		free(path);
		free(entries[i]);
	}
	free(entries);
	return fine;
}

struct place {
	struct emulator *emu;
	struct collection *collection;
	struct record *record;
};

static bool add_file(void *context, const char *path, const char *name)
{
	struct place *place = context;
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
		fprintf(stderr, "attachfs-emulator: %s: not a regular file\n", path);
		return false;
	}
	add_lasting(place->emu, place->record, name, path,
		    blob_new_foreign(path, (uint64_t)st.st_size), st.st_mtime);
	return true;
}

static bool add_record(void *context, const char *path, const char *name)
{
	struct place *place = context;
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		fprintf(stderr, "attachfs-emulator: %s: not a directory\n", path);
		return false;
	}
	place->record = populate_record(place->emu, place->collection, name, st.st_mtime);
	return for_each_entry(path, place, add_file);
}

static bool add_collection(void *context, const char *path, const char *name)
{
	struct place *place = context;

	place->collection = populate_collection(place->emu, name);
	if (!place->collection) {
		fprintf(stderr, "attachfs-emulator: no such collection: %s\n", name);
		return false;
	}
	return for_each_entry(path, place, add_record);
}

bool populate_directory(struct emulator *emu, const char *directory)
{
	struct place place = {.emu = emu};

	return for_each_entry(directory, &place, add_collection);
}

static void generate_file(struct emulator *emu, struct record *r, int number, uint64_t size)
{
	char *name = xasprintf("file-%04d.dat", number);
	char *identity =
		xasprintf("%s/%s/%s/%" PRIu64, r->collection->name, r->name.ptr, name, size);

	add_lasting(emu, r, name, identity,
		    blob_new_generated(hash_bytes(identity, strlen(identity), 1), size),
		    GENERATED_AT);
	free(identity);
	free(name);
}

bool populate_generated(struct emulator *emu, const char *what)
{
	char name[64];
	int records, files, used = 0;
	uint64_t size;
	struct collection *c;

	if (sscanf(what, "%63[^:]:%d:%d:%" SCNu64 "%n", name, &records, &files, &size, &used) !=
		    4 ||
	    what[used] || !(c = populate_collection(emu, name))) {
		fprintf(stderr,
			"attachfs-emulator: --generate COLLECTION:RECORDS:FILES:BYTES: %s\n", what);
		return false;
	}
	for (int i = 1; i <= records; i++) {
		char *record_name = xasprintf("%s %04d", name, i);
		struct record *r = populate_record(emu, c, record_name, GENERATED_AT);

		for (int j = 1; j <= files; j++)
			generate_file(emu, r, j, size);
		free(record_name);
	}
	return true;
}
