/* SPDX-License-Identifier: MIT */
#include "indexer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/names.h>

#include "mount.h"

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
	char path[64], line[256];
	long process = thread;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%ld/status", (long)thread);
	f = fopen(path, "re");
	while (f && process == thread && fgets(line, sizeof(line), f))
		if (!strncmp(line, "Tgid:", 5))
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

bool indexer_would_download(struct mount *m, uint64_t ino, pid_t pid)
{
	char name[64];

	if (!m->options->indexers || pid <= 0 || is_here(m, ino))
		return false;
	return name_of(process_of(pid), name) && names_is_local(m->options->indexers, name);
}
