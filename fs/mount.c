/* SPDX-License-Identifier: MIT */

/* Putting a mount together, and taking it apart in the reverse order. */

#include "ops.h"

#include <poll.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include "check.h"
#include "crashpoint.h"
#include "events.h"
#include "inhibit.h"
#include "lister.h"
#include "mountinfo.h"
#include "pipes.h"
#include "prefetch.h"
#include "reader.h"
#include "replaced.h"
#include "secret_watch.h"
#include "status.h"
#include "sync.h"
#include "worker.h"

#define POOL_THREADS	 4
#define DISK_THREADS	 2
#define KERNEL_TIMEOUT_S 300.0
#define DRAIN_MS	 10000
#define CONNECT_MS	 10000

/* On the pool: locks are taken here that the thread which moves bytes must not wait for. */
static void on_reconnected(void *ctx)
{
	struct mount *m = ctx;

	sync_try_again(m->sync, 0);
}

static void on_new_secret(void *ctx)
{
	struct mount *m = ctx;

	sync_try_again(m->sync, -EACCES);
}

static void on_state(void *ctx, enum engine_state state, int64_t until_real_ns)
{
	struct mount *m = ctx;
	static const char *const words[] = {"online", "offline", "throttled"};
	bool was_offline = atomic_exchange(&m->offline, state == ENGINE_OFFLINE);
	char detail[256] = "";

	if (state == ENGINE_OFFLINE) {
		engine_describe_trouble(m->engine, detail, sizeof(detail));
		log_warning("network: the server cannot be reached: cached files are served, "
			    "changes are queued: %s",
			    detail);
	} else if (state == ENGINE_THROTTLED) {
		status_time(until_real_ns, detail, sizeof(detail));
	} else {
		log_info("network: the server answers again");
	}
	if (!atomic_load(&m->ticking))
		return;
	events_add(m->events, words[state], NULL, *detail ? detail : NULL);
	if (was_offline && state != ENGINE_OFFLINE)
		pool_run(m->pool, on_reconnected,
			 m); /* without memory they come by themselves, later */
}

static void on_reloaded(void *ctx, int result)
{
	struct mount *m = ctx;

	/* as good or bad as before: the calls will tell */
	if (result >= 0)
		pool_run(m->pool, on_new_secret, m);
}

/* A file with a secret was written: what the old one was in the way of goes on at once. */
static void on_secret_changed(void *ctx)
{
	struct mount *m = ctx;

	log_info("credentials: the file was written: reading it again");
	remote_reload_credentials(m->remote, true, on_reloaded, m);
}

/* Nobody tells of it: it is what many calls have learned, each for itself. */
static void tell_refusal(struct mount *m)
{
	char message[256];
	bool refused = remote_get_auth(m->remote, message) == REMOTE_AUTH_FAILED;

	if (refused == m->refused)
		return;
	m->refused = refused;
	if (!refused)
		sync_try_again(m->sync, 0);
	events_add(m->events, status_state(m), NULL, refused ? message : NULL);
}

static void on_tick(void *ctx)
{
	struct mount *m = ctx;

	/* the timer runs before those it serves are there */
	if (!atomic_load(&m->ticking))
		return;
	tell_refusal(m);
	inhibit_tick(m->inhibit);
	reader_tick(m->reader);
	lister_tick(m->lister);
}

/* ---- steps ---- */

static uint64_t fnv(const char *text)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 0x100000001b3u;
	return h;
}

/*
 * One directory per source under cache_dir=, named so that a person knows it:
 * perscom-api.example.org-0123456789abcdef. What is kept there belongs to one server and one
 * account's view of it.
 */
static char *state_dir(const struct options *o)
{
	const char *host = strstr(o->base_url, "://");
	char identity[4096], *dir = NULL;
	size_t len;

	host = host ? host + 3 : o->base_url;
	len = strcspn(host, "/");
	snprintf(identity, sizeof(identity), "%s|%s|%s|%s", o->source, o->user ? o->user : "",
		 o->client ? o->client : "", o->tenant ? o->tenant : "");
	if (asprintf(&dir, "%s/%.*s-%016llx", o->cache_dir, (int)len, host,
		     (unsigned long long)fnv(identity)) < 0)
		return NULL;
	return dir;
}

/* The name of a new directory is to outlast a power failure, like what will be in it. */
static void sync_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *parent = slash && slash > path ? strndup(path, (size_t)(slash - path)) : NULL;
	int fd = open(parent ? parent : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	free(parent);
}

static int make_dirs(const char *path)
{
	char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *p = copy + 1;; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0700) == 0) {
			sync_parent(copy);
		} else if (errno != EEXIST) {
			int r = -errno;

			free(copy);
			return r;
		}
		if (!c)
			break;
		*p = c;
	}
	free(copy);
	return 0;
}

/*
 * Where others can write to cache_dir=, somebody may have been there before us: nothing is made in what
 * is not ours alone. The content store looks again, at what it has opened.
 */
static int check_private(const char *dir, char *message, size_t size)
{
	struct stat st;

	if (lstat(dir, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		snprintf(message, size, "%s: Not a directory", dir);
	else if (st.st_uid != geteuid())
		snprintf(message, size, "%s: belongs to user %u", dir, st.st_uid);
	else if (st.st_mode & 077)
		snprintf(message, size, "%s: open to others (mode %03o), chmod 700 it", dir,
			 st.st_mode & 0777);
	else
		return 0;
	return -EPERM;
}

static int open_state(struct mount *m, char *message, size_t size)
{
	char *dir = state_dir(m->options);
	struct content_config config = {.dir = dir,
					.limit_bytes = m->options->cache_size_bytes,
					.free_bytes = m->options->cache_free_bytes};
	int r = dir ? make_dirs(dir) : -ENOMEM;

	if (r < 0) {
		snprintf(message, size,
			 "cannot make the cache directory '%s': %s  (option cache_dir=)",
			 dir ? dir : "", strerror(-r));
		free(dir);
		return r;
	}
	r = check_private(dir, message, size);
	if (!r && asprintf(&m->ledger_path, "%s/ledger.db", dir) < 0) {
		m->ledger_path = NULL;
		r = -ENOMEM;
	}
	if (!r)
		r = ledger_open(m->ledger_path, &m->ledger, message, size);
	if (!r)
		r = content_store_open(&config, m->ledger, &m->store, message, size);
	if (r < 0 && !*message)
		snprintf(message, size, "cannot open the cache in '%s': %s", dir, strerror(-r));
	free(dir);
	return r;
}

static int open_remote(struct mount *m, char *message, size_t size)
{
	const struct options *o = m->options;
	struct engine_config config = {
		.origin = o->base_url,
		.slots = o->slots,
		.up_bytes_s = o->bwlimit.up,
		.down_bytes_s = o->bwlimit.down,
		.cacert = o->cacert,
		.proxy = o->proxy,
		.insecure_http = o->insecure_http,
		.connect_timeout_ms = CONNECT_MS,
		.stall_ms = (unsigned)(o->timeout_s * 1000),
		.state_changed = on_state,
		.ctx = m,
	};
	int r = engine_new(&config, &m->engine);

	if (r < 0) {
		snprintf(message, size, "cannot start the HTTP engine for '%s': %s", o->base_url,
			 strerror(-r));
		return r;
	}
	return remote_new(o, m->engine, m->pool, &m->remote, message, size);
}

/* The name of the file whose bytes have that key. Nobody else has the tree yet: no lock. */
static const char *shown_of_key(void *ctx, const char *key)
{
	char rid[NODE_KEY_MAX], of_node[NODE_KEY_MAX];
	struct tree *t = ctx;

	/* "<id>/<version>", and either may have a '/' */
	for (const char *slash = strchr(key, '/'); slash; slash = strchr(slash + 1, '/')) {
		const struct node *n;

		if (snprintf(rid, sizeof(rid), "%.*s", (int)(slash - key), key) >= (int)sizeof(rid))
			return NULL;
		n = tree_by_rid_locked(t, 0, rid);
		if (n && node_key(n, of_node) && !strcmp(of_node, key))
			return n->shown;
	}
	return NULL;
}

static int open_tree(struct mount *m, char *message, size_t size)
{
	const struct options *o = m->options;
	const char *collections = check_collections(m->remote, o);
	int r = check_missing(m->remote, o, message, size);

	if (r < 0)
		return r;
	r = tree_new(m->ledger, m->store, m->notifier, &m->remote->caps, &m->tree);

	if (r < 0)
		return r;
	m->tree->filename_policy = o->names == OPTIONS_NAMES_FILENAME;
	m->tree->uid = o->uid >= 0 ? (uint32_t)o->uid : getuid();
	m->tree->gid = o->gid >= 0 ? (uint32_t)o->gid : getgid();
	m->tree->umask = o->umask >= 0 ? (uint32_t)o->umask : 0;
	r = tree_load(m->tree);
	if (!r && collections)
		r = tree_set_collections(m->tree, collections);
	crash_point("start.tree");
	if (!r)
		content_store_claimed(m->store);
	if (!r)
		content_store_tell_changed(m->store, shown_of_key, m->tree);
	crash_point("start.claimed");
	return r;
}

static int open_workers(struct mount *m)
{
	int r = calls_new(m->pool, (int64_t)(m->options->timeout_s * 1000), on_tick, m, &m->calls);

	if (!r)
		r = events_new(m->calls, &m->events);
	m->tree->events = m->events;
	if (!r)
		r = reader_new(m, &m->reader);
	if (!r)
		r = lister_new(m, &m->lister);
	if (!r)
		r = prefetch_new(m, &m->prefetch);
	if (!r)
		r = sync_new(m, &m->sync);
	if (!r && !m->options->read_only)
		r = sync_start(m->sync);
	if (!r)
		m->inhibit = inhibit_new(m);
	if (!r)
		pin_follow(m);
	atomic_store(&m->ticking, !r);
	return r;
}

/* Without a watch a new secret is read when the old one is refused the next time. */
static void watch_secrets(struct mount *m)
{
	const char *paths[] = {m->options->token_file, m->options->password_file};
	int r = secret_watch_new(paths, 2, on_secret_changed, m, &m->secret_watch);

	if (r < 0)
		log_warning("credentials: their file cannot be watched: %s", strerror(-r));
}

/* Thousands of open files are as many descriptors of ours. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Whether an earlier mount left something to show. */
static bool knows_anything(struct mount *m)
{
	bool knows = false;

	tree_lock(m->tree);
	for (const struct node *n = node_dir(m->tree->root)->child_first; n && !knows;
	     n = n->sibling_next)
		knows = n->listed;
	tree_unlock(m->tree);
	return knows;
}

static int try_mount_new(const struct options *o, struct mount **ret_mount, char *message,
			 size_t size)
{
	struct mount *m = calloc(1, sizeof(*m));
	int r;

	*message = '\0';
	if (!m)
		return -ENOMEM;
	m->options = o;
	m->timeout_kernel_s = KERNEL_TIMEOUT_S;
	m->started_ns = clock_real_ns();
	mount_used(m);
	raise_limits();
	r = pool_new(POOL_THREADS, &m->pool);
	if (!r)
		r = pool_new(DISK_THREADS, &m->disk_pool);
	if (!r)
		r = pipes_new(&m->pipes);
	if (!r)
		r = notifier_new(&m->notifier);
	if (!r)
		r = open_state(m, message, size);
	if (!r)
		r = open_remote(m, message, size);
	if (!r)
		r = open_tree(m, message, size);
	if (!r)
		r = open_workers(m);
	if (!r && !knows_anything(m))
		r = check_first_mount(m->remote, o, message, size);
	if (!r)
		watch_secrets(m);
	if (r < 0) {
		if (!*message)
			snprintf(message, size, "cannot start: %s", strerror(-r));
		mount_free(m);
		return r;
	}
	*ret_mount = m;
	return 0;
}

int mount_new(const struct options *o, struct mount **ret_mount, char *message, size_t size)
{
	int r = try_mount_new(o, ret_mount, message, size);
	char *dir = r == -EUCLEAN ? state_dir(o) : NULL;

	if (dir && ledger_set_aside(dir) == 0)
		r = try_mount_new(o, ret_mount, message, size);
	free(dir);
	return r;
}

/* ---- kernel ---- */

static char *fuse_option_string(const struct options *o)
{
	char *text = NULL;
	int n = asprintf(&text,
			 "fsname=%s,subtype=attachfs,default_permissions,nosuid,nodev%s%s%s%s%s",
			 o->source, o->read_only ? ",ro" : "", o->allow_other ? ",allow_other" : "",
			 o->noexec ? ",noexec" : "", o->fuse_options ? "," : "",
			 o->fuse_options ? o->fuse_options : "");

	return n < 0 ? NULL : text;
}

/* Whether the kernel has let go of the connection: unmounted, or aborted by somebody. */
static bool connection_over(const struct mount *m)
{
	struct pollfd ours = {.fd = fuse_session_fd(m->session)};

	return poll(&ours, 1, 0) < 0 || (ours.revents & (POLLERR | POLLNVAL));
}

/*
 * The kernel gives up on what nobody will answer any more. Without this a notification that waits
 * in the kernel for such an answer would never return, and neither would this process.
 */
static void abort_connection(const struct mount *m)
{
	char path[64];
	int fd;

	/* unmounted meanwhile: the number may be another mount's by now */
	if (!m->connection || connection_over(m))
		return;
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", m->connection);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return; /* gone already, or no fusectl here */
	if (write(fd, "1", 1) < 0)
		log_debug("mount: cannot abort the connection: %s", strerror(errno));
	close(fd);
}

int mount_attach(struct mount *m, char *message, size_t size)
{
	char *text = fuse_option_string(m->options);
	char *argv[] = {(char *)"attachfs", (char *)"-o", text, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);

	if (!text)
		return -ENOMEM;
	m->session = fuse_session_new(&args, worker_watch(&attachfs_ops), sizeof(attachfs_ops), m);
	fuse_opt_free_args(&args);
	free(text);
	if (!m->session) {
		snprintf(message, size,
			 "the kernel's FUSE interface refused these mount options: %s",
			 m->options->fuse_options ? m->options->fuse_options : "(none)");
		return -EINVAL;
	}
	if (fuse_session_mount(m->session, m->options->mountpoint) != 0) {
		snprintf(message, size,
			 "cannot mount at '%s'  (is /dev/fuse there, and fuse3 installed?)",
			 m->options->mountpoint);
		fuse_session_destroy(m->session);
		m->session = NULL;
		return -EPERM;
	}
	m->connection = mountinfo_minor(m->options->mountpoint);
	replaced_init(m);
	notifier_attach(m->notifier, m->session);
	return 0;
}

static void on_wake_signal(int sig)
{
	(void)sig;
}

int mount_serve(struct mount *m)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int r;

	if (!config)
		return -ENOMEM;
	m->server = pthread_self();
	sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_wake_signal}, NULL);
	fuse_loop_cfg_set_clone_fd(config, 0);
	r = fuse_session_loop_mt(m->session, config);
	fuse_loop_cfg_destroy(config);
	atomic_store(&m->served, true);
	if (r == -ECONNABORTED && connection_over(m)) {
		/* another word of the kernel's for ENODEV, which libfuse takes for the end it is */
		log_info("mount: the connection was aborted");
		return 0;
	}
	return r > 0 ? 0 : r; /* the number of the signal that ended it is no error */
}

void mount_stop(struct mount *m, int64_t grace_ms)
{
	int64_t end_ms = clock_mono_ms() + grace_ms;

	while (!atomic_load(&m->served)) {
		struct timespec pause = {.tv_nsec = 20 * 1000000};

		if (clock_mono_ms() >= end_ms) {
			/* libfuse looks at its flag only when its wait is interrupted */
			atomic_store(&m->forced, true);
			fuse_session_exit(m->session);
			pthread_kill(m->server, SIGUSR2);
		}
		nanosleep(&pause, NULL);
	}
}

void mount_opened_add_locked(struct mount *m, struct opened *o,
			     void (*drop)(struct mount *m, struct opened *o))
{
	o->drop = drop;
	o->prev = NULL;
	o->next = m->opened;
	if (o->next)
		o->next->prev = o;
	m->opened = o;
}

void mount_opened_remove_locked(struct mount *m, struct opened *o)
{
	if (o->prev)
		o->prev->next = o->next;
	else
		m->opened = o->next;
	if (o->next)
		o->next->prev = o->prev;
}

void mount_opened_add(struct mount *m, struct opened *o,
		      void (*drop)(struct mount *m, struct opened *o))
{
	tree_lock(m->tree);
	mount_opened_add_locked(m, o, drop);
	tree_unlock(m->tree);
}

void mount_opened_remove(struct mount *m, struct opened *o)
{
	tree_lock(m->tree);
	mount_opened_remove_locked(m, o);
	tree_unlock(m->tree);
}

/*
 * No request is served any more, no call runs: what is still open was closed without our hearing of
 * it, or its program did not go when asked.
 */
static void drop_opened(struct mount *m)
{
	struct opened *o;

	while (m->tree && (o = m->opened))
		o->drop(m, o);
}

void mount_free(struct mount *m)
{
	if (!m)
		return;
	if (m->notifier)
		notifier_attach(m->notifier, NULL);
	/* what programs wait for is answered while the kernel still listens */
	calls_stop(m->calls);
	drop_opened(m);
	if (m->session) {
		/*
		 * only while it is ours for sure: the kernel gives the number of a gone connection
		 * to the next one
		 */
		if (atomic_load(&m->forced))
			abort_connection(m);
		fuse_session_unmount(m->session);
	}
	secret_watch_free(m->secret_watch);
	if (m->sync)
		sync_stop(m->sync, DRAIN_MS);
	inhibit_free(m->inhibit);
	if (m->remote)
		remote_shutdown(m->remote);
	engine_free(m->engine);
	/* jobs of the one may queue for the other */
	pool_stop(m->disk_pool);
	pool_stop(m->pool);
	notifier_free(m->notifier);
	sync_free(m->sync);
	prefetch_free(m->prefetch);
	lister_free(m->lister);
	reader_free(m->reader);
	events_free(m->events);
	if (m->session)
		fuse_session_destroy(m->session);
	remote_free(m->remote);
	pool_free(m->disk_pool);
	pool_free(m->pool);
	tree_free(m->tree);
	calls_free(m->calls);
	pipes_free(m->pipes);
	content_store_close(m->store);
	ledger_close(m->ledger);
	free(m->ledger_path);
	free(m);
}
