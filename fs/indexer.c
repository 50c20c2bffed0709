/* SPDX-License-Identifier: MIT */
#include "indexer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/clock.h>
#include <attachfs/names.h>

#include "mount.h"

/*
 * Who opens many files is asked for its name now and then, not for each: that costs more than all else
 * that is done for a small one. Not for long: a thread may become another program.
 */
#define SEEN_MS 100

static bool is_here(struct mount *m, uint64_t ino)
{
	struct content *c = NULL;
	const struct node *n;
	bool here;

	tree_lock(m->tree);
	n = tree_find_locked(m->tree, ino);
	here = !n || n->kind != NODE_FILE || n->dirty || n->size == 0;
	if (!here)
		c = node_content(m->tree, n);
	tree_unlock(m->tree);
	here = here || (c && content_is_local(c));
	content_unref(c);
	return here;
}

/* The kernel tells of a thread; threads have names of their own. */
static long process_of(pid_t thread)
{
	char path[64], line[256] = "";
	long process = thread;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%ld/status", (long)thread);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f) && strncmp(line, "Tgid:", 5) != 0)
		;
	if (f && !strncmp(line, "Tgid:", 5))
		process = strtol(line + 5, NULL, 10);
	if (f)
		fclose(f);
	return process;
}

/* As the kernel cuts it: 15 characters. */
static bool name_of(long process, char name[static 64])
{
	char path[64];
	FILE *f;
	bool read;

	snprintf(path, sizeof(path), "/proc/%ld/comm", process);
	f = fopen(path, "re");
	read = f && fgets(name, 64, f);
	if (f)
		fclose(f);
	if (read)
		name[strcspn(name, "\n")] = '\0';
	return read;
}

static bool is_indexer(const struct mount *m, pid_t pid)
{
	char name[64];

	return name_of(process_of(pid), name) && names_is_local(m->options->indexers, name);
}

/* In one word, to need no lock: the thread, when it was looked at in units of SEEN_MS, what it is. */
static bool was_seen(struct mount *m, pid_t pid)
{
	_Atomic uint64_t *place = &m->indexers_seen[(unsigned)pid & (INDEXERS_SEEN - 1)];
	uint64_t now = (uint64_t)(clock_mono_ms() / SEEN_MS) & 0x7fffffff;
	uint64_t key = (uint64_t)(uint32_t)pid << 32 | now << 1, seen = atomic_load(place);

	if ((seen & ~UINT64_C(1)) != key) {
		seen = key | is_indexer(m, pid);
		atomic_store(place, seen);
	}
	return seen & 1;
}

bool indexer_would_download(struct mount *m, uint64_t ino, pid_t pid)
{
	return m->options->indexers && pid > 0 && !is_here(m, ino) && was_seen(m, pid);
}
