/* SPDX-License-Identifier: MIT */

/*
 * A linked list of what to say, one thread that says it. The list is short-lived: what the kernel
 * does not cache it answers with -ENOENT, which is no error.
 */

#include "notifier.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/log.h>
#include <attachfs/waiting.h>

#include "tree.h"

enum note_kind { NOTE_ENTRY, NOTE_DELETE, NOTE_INODE, NOTE_BYTES, NOTE_AFTER };

struct note {
	struct note *next;
	enum note_kind kind;
	uint64_t parent, child;
	void (*done)(void *ctx);
	void *ctx;
	char name[];
};

struct notifier {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct note *first, **last;   /* lock */
	struct fuse_session *session; /* lock */
	bool stop;		      /* lock */
	_Atomic bool twins;
	struct notifier_hooks hooks;
	pthread_t thread;
};

static void say(struct notifier *n, struct fuse_session *session, const struct note *note)
{
	bool twins = atomic_load(&n->twins);
	off_t off = note->kind == NOTE_BYTES ? 0 : -1;
	int r = 0;

	switch (note->kind) {
	case NOTE_ENTRY:
		r = fuse_lowlevel_notify_inval_entry(session, note->parent, note->name,
						     strlen(note->name));
		break;
	case NOTE_DELETE:
		r = fuse_lowlevel_notify_delete(session, note->parent, note->child, note->name,
						strlen(note->name));
		if (r == -ENOENT && twins) /* the name leads to the other one */
			r = fuse_lowlevel_notify_delete(session, note->parent,
							note->child | NODE_TWIN, note->name,
							strlen(note->name));
		if (r == -ENOSYS || r == -ENOTEMPTY || r == -EBUSY)
			r = fuse_lowlevel_notify_inval_entry(session, note->parent, note->name,
							     strlen(note->name));
		break;
	case NOTE_INODE:
	case NOTE_BYTES:
		/* a negative offset means attributes only */
		r = fuse_lowlevel_notify_inval_inode(session, note->child, off, 0);
		if (twins)
			fuse_lowlevel_notify_inval_inode(session, note->child | NODE_TWIN, off, 0);
		break;
	case NOTE_AFTER:
		break;
	}
	if (r < 0 && r != -ENOENT && r != -ENOTDIR)
		log_debug("notifier: kernel refused a notification: %s", strerror(-r));
}

static bool is_attached(struct notifier *n, const struct fuse_session *session)
{
	bool attached;

	pthread_mutex_lock(&n->lock);
	attached = n->session == session;
	pthread_mutex_unlock(&n->lock);
	return attached;
}

static void carry_out(struct notifier *n, struct fuse_session *session, const struct note *note)
{
	bool bytes = note->kind == NOTE_BYTES;

	if (bytes)
		n->hooks.before(n->hooks.ctx, note->child);
	if (session && is_attached(n, session))
		say(n, session, note);
	if (bytes)
		n->hooks.told(n->hooks.ctx, note->child);
	if (note->done)
		note->done(note->ctx);
}

static void *notifier_main(void *arg)
{
	struct notifier *n = arg;

	waiting_forbid("the thread that tells the kernel");
	pthread_mutex_lock(&n->lock);
	while (!n->stop || n->first) {
		struct note *note = n->first;
		struct fuse_session *session = n->session;

		if (!note) {
			pthread_cond_wait(&n->wake, &n->lock);
			continue;
		}
		n->first = NULL;
		n->last = &n->first;
		pthread_mutex_unlock(&n->lock);
		while (note) {
			struct note *next = note->next;

			carry_out(n, session, note);
			free(note);
			note = next;
		}
		pthread_mutex_lock(&n->lock);
	}
	pthread_mutex_unlock(&n->lock);
	return NULL;
}

int notifier_new(struct notifier **ret_notifier)
{
	struct notifier *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return -ENOMEM;
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->wake, NULL);
	n->last = &n->first;
	r = pthread_create(&n->thread, NULL, notifier_main, n);
	if (r) {
		free(n);
		return -r;
	}
	pthread_setname_np(n->thread, "attachfs-notify");
	*ret_notifier = n;
	return 0;
}

void notifier_hook(struct notifier *n, const struct notifier_hooks *hooks)
{
	n->hooks = *hooks;
}

void notifier_attach(struct notifier *n, struct fuse_session *session)
{
	pthread_mutex_lock(&n->lock);
	n->session = session;
	pthread_mutex_unlock(&n->lock);
}

void notifier_free(struct notifier *n)
{
	if (!n)
		return;
	pthread_mutex_lock(&n->lock);
	n->stop = true;
	pthread_cond_signal(&n->wake);
	pthread_mutex_unlock(&n->lock);
	pthread_join(n->thread, NULL);
	pthread_cond_destroy(&n->wake);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

/* False: nobody listens, or no memory. */
static bool queue(struct notifier *n, const struct note *what, const char *name)
{
	size_t len = name ? strlen(name) : 0;
	struct note *note = NULL;
	bool listens;

	pthread_mutex_lock(&n->lock);
	listens = n->session != NULL;
	if (listens)
		note = malloc(sizeof(*note) + len + 1);
	if (note) {
		*note = *what;
		memcpy(note->name, name ? name : "", len + 1);
		*n->last = note;
		n->last = &note->next;
		pthread_cond_signal(&n->wake);
	}
	pthread_mutex_unlock(&n->lock);
	if (listens && !note)
		log_warning("notifier: out of memory: the kernel may show an old state until its "
			    "timeout");
	return note;
}

void notifier_entry(struct notifier *n, uint64_t parent, const char *name)
{
	queue(n, &(struct note){.kind = NOTE_ENTRY, .parent = parent}, name);
}

void notifier_delete(struct notifier *n, uint64_t parent, uint64_t child, const char *name)
{
	queue(n, &(struct note){.kind = NOTE_DELETE, .parent = parent, .child = child}, name);
}

void notifier_twins(struct notifier *n)
{
	atomic_store(&n->twins, true);
}

void notifier_inode(struct notifier *n, uint64_t id)
{
	queue(n, &(struct note){.kind = NOTE_INODE, .child = id}, NULL);
}

bool notifier_bytes(struct notifier *n, uint64_t id)
{
	return queue(n, &(struct note){.kind = NOTE_BYTES, .child = id}, NULL);
}

void notifier_after(struct notifier *n, void (*done)(void *ctx), void *ctx)
{
	if (!queue(n, &(struct note){.kind = NOTE_AFTER, .done = done, .ctx = ctx}, NULL))
		done(ctx);
}
