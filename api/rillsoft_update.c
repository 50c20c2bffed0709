/* SPDX-License-Identifier: MIT */

/*
 * Changing a document: new contents, a new name, another element, all by one call, which says by a
 * header or a field that it is a PUT. Fields that are left out may be cleared (section 6), so all
 * five are sent, with the values last listed. What the server made of it only the list tells:
 *
 *	the element is another one?    the server may ignore that: -EXDEV
 *	the name is the part's?        the file's name may win over the name: once more, without file
 *	the id is another one?         then it is the document that was not there before
 *
 * A server may want the file in every update: it says 400, the bytes are downloaded and sent along,
 * and from then on with every update.
 */

#include "rillsoft.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <attachfs/pool.h>

static void send_update(struct rillsoft_job *job);
static void download(struct rillsoft_job *job);

static bool moves(const struct rillsoft_job *job)
{
	return job->verb == RILLSOFT_UPDATES && job->item->move &&
	       strcasecmp(job->item->record, job->doc->parent) != 0;
}

static const char *wanted_parent(const struct rillsoft_job *job)
{
	return moves(job) ? job->item->record : job->doc->parent;
}

/* It is done, but is it so? False: ended otherwise. */
static bool check_place(struct rillsoft_job *job, const struct rillsoft_doc *doc)
{
	if (!moves(job) || strcasecmp(doc->parent, job->item->record) == 0)
		return true;
	rillsoft_make_file(doc, &job->item->file);
	rillsoft_job_end(job, REMOTE_REFUSED, -EXDEV,
			 "the server cannot change the element of a document (R-10)");
	return false;
}

static bool check_size(struct rillsoft_job *job, const struct rillsoft_doc *doc)
{
	if (job->verb != RILLSOFT_REPLACES || doc->size < 0 ||
	    (uint64_t)doc->size == job->item->size)
		return true;
	if (doc->size != job->doc->size) {
		rillsoft_job_end(job, REMOTE_RETRY, -ESTALE,
				 "'%.80s' was replaced by somebody else", doc->name);
		return false;
	}
	rillsoft_job_end(job, REMOTE_REFUSED, -EIO,
			 "the server ignored the new contents of '%.80s': it lists %lld bytes, not "
			 "%llu; try another method_override=",
			 doc->name, (long long)doc->size, (unsigned long long)job->item->size);
	return false;
}

static bool check_name(struct rillsoft_job *job, const struct rillsoft_doc *doc)
{
	bool fits = strcmp(doc->name, job->name) == 0;

	if (!fits && !job->renamed && job->with_file && strcmp(doc->name, job->filename) == 0) {
		/* the part's name won. */
		job->renamed = true;
		job->with_file = false;
		send_update(job);
		return false;
	}
	if (fits || job->verb == RILLSOFT_REPLACES || strcmp(doc->name, job->doc->name) != 0)
		return true;
	rillsoft_job_end(job, REMOTE_REFUSED, -EIO,
			 "the server ignored the new name of '%.80s'; try another method_override=",
			 doc->name);
	return false;
}

static void on_verified(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct rillsoft_job *job = ctx;
	const struct rillsoft_doc *doc = l ? rillsoft_find_doc(l, job->item->id) : NULL;
	uint64_t size = job->verb == RILLSOFT_REPLACES ? job->item->size : (uint64_t)job->doc->size;

	/* it was told to be done, and may be in another record now: where it was it is not missing */
	if (error < 0) {
		rillsoft_job_end(job, REMOTE_UNKNOWN, error, "%s", message);
		return;
	}
	if (!doc)
		doc = rillsoft_find_new(l, job->before, job->item->collection, wanted_parent(job),
					job->name, job->filename, size);
	if (!doc)
		rillsoft_job_end(job, REMOTE_GONE, -ENOENT, "the document was removed meanwhile");
	else if (check_place(job, doc) && check_size(job, doc) && check_name(job, doc))
		rillsoft_job_succeed(job, doc);
}

/* The folder is deleted, and the document in another one now: once more, with that. */
static bool follow_folder(struct rillsoft_job *job, const struct rillsoft_doc *doc)
{
	if (job->retried || strcmp(doc->folder, job->folder) == 0)
		return false;
	job->retried = true;
	memcpy(job->folder, doc->folder, sizeof(job->folder));
	send_update(job);
	return true;
}

/* 400: the server may want the file; it says nothing of what it does not like. */
static void after_invalid(struct rillsoft_job *job)
{
	struct call_reply reply = {
		.status = 400, .error = -EINVAL, .sent = true, .message = job->message};

	if (job->with_file) {
		rillsoft_job_judge(job, &reply);
	} else if (job->fd >= 0) {
		job->with_file = true;
		job->filename = job->name;
		send_update(job);
	} else {
		download(job);
	}
}

static void on_invalid_listed(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct rillsoft_job *job = ctx;
	const struct rillsoft_doc *doc = l ? rillsoft_find_doc(l, job->item->id) : NULL;

	if (error < 0)
		rillsoft_job_end(job, REMOTE_RETRY, error, "%s", message);
	else if (!doc)
		rillsoft_job_end(job, REMOTE_GONE, -ENOENT, "%s", job->message);
	else if (!follow_folder(job, doc))
		after_invalid(job);
}

/* 404: is it the document that is gone, its folder, or the element it shall move to? */
static void on_missing_listed(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct rillsoft_job *job = ctx;
	const struct remote_change *item = job->item;
	const struct rillsoft_doc *doc = l ? rillsoft_find_doc(l, item->id) : NULL;

	if (error < 0) {
		rillsoft_job_end(job, REMOTE_RETRY, error, "%s", message);
	} else if (!doc) {
		rillsoft_job_end(job, REMOTE_GONE, -ENOENT, "%s", job->message);
	} else if (follow_folder(job, doc)) {
		return;
	} else if (moves(job)) {
		bool there = rillsoft_find_of(l, item->collection, item->record);
		rillsoft_job_end(job, REMOTE_REFUSED, there ? -EPERM : -ENOENT,
				 there ? "the server takes documents on tasks only (R-9): %s"
				       : "there is no such element: %s",
				 job->message);
	} else {
		rillsoft_job_end(
			job, REMOTE_REFUSED, -ENOSYS,
			"the server lists the document but does not update it; try another "
			"method_override=: %.120s",
			job->message);
	}
}

static void on_updated(void *ctx, const struct call_reply *reply)
{
	struct rillsoft_job *job = ctx;
	bool done = reply->status >= 200 && reply->status < 300;

	rillsoft_note_write(job->ris);
	snprintf(job->message, sizeof(job->message), "%s", reply->message);
	if (done && job->verb == RILLSOFT_UPDATES && job->with_file)
		job->ris->file_required = true;
	if (done) {
		rillsoft_job_want(job, RILLSOFT_FRESH, on_verified);
	} else if (reply->status == 400 && job->retried) {
		after_invalid(job);
	} else if (reply->status == 400) {
		rillsoft_job_want(job, RILLSOFT_FRESH, on_invalid_listed);
	} else if (reply->status == 404) {
		rillsoft_job_want(job, RILLSOFT_FRESH, on_missing_listed);
	} else if (reply->status == 409 && moves(job)) {
		rillsoft_job_end(job, REMOTE_REFUSED, -EXDEV,
				 "the server cannot change the element of a document (R-10): %s",
				 reply->message);
	} else {
		rillsoft_job_judge(job, reply);
	}
}

static void send_update(struct rillsoft_job *job)
{
	struct rillsoft *ris = job->ris;
	enum options_override how = ris->override;
	bool header = how == OPTIONS_OVERRIDE_HEADER || how == OPTIONS_OVERRIDE_BOTH;
	bool field = how == OPTIONS_OVERRIDE_FIELD || how == OPTIONS_OVERRIDE_BOTH;
	struct rillsoft_ids ids = {
		.cid = ris->client, .pid = job->item->collection, .did = job->item->id};
	struct call *call =
		rillsoft_call(ris, job->class, how == OPTIONS_OVERRIDE_NONE ? "PUT" : "POST",
			      RILLSOFT_UPDATE, &ids, "");

	if (header)
		call_add_header(call, "X-HTTP-Method-Override", "PUT");
	if (field)
		call_add_field(call, "_method", "PUT");
	if (job->with_file)
		call_add_file(call, "file", job->filename, job->fd, job->size);
	if (job->folder[0] != '\0')
		call_add_field(call, "folderId", job->folder);
	call_add_field(call, "parentUuid", wanted_parent(job));
	call_add_field(call, "name", job->name);
	call_add_field(call, "description", job->doc->description);
	call_set_any_answer(call);
	/*
	 * Twice the same is once the same; but a server that hangs up on what is too large for it
	 * shall not have the bytes again at once: who asked waits longer each time.
	 */
	call_set_idempotent(call, !job->with_file);
	call_set_scope(call, "to change documents");
	rillsoft_job_start_call(job, call, on_updated);
}

/* The bytes of the document, to be sent along. */

static int open_temporary(void)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];

	if (!dir || *dir != '/')
		dir = "/tmp";
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	snprintf(path, sizeof(path), "%s/attachfs-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd >= 0 ? fd : -errno;
}

static bool on_begin(void *ctx, int64_t total, uint64_t offset)
{
	struct rillsoft_job *job = ctx;

	(void)offset;
	return total < 0 || job->doc->size < 0 || total == job->doc->size;
}

/* On the transfer thread: a write to the page cache. */
static bool on_bytes(void *ctx, const void *data, size_t len)
{
	struct rillsoft_job *job = ctx;
	const char *bytes = data;

	if (job->doc->size >= 0 && len > (uint64_t)job->doc->size - job->arrived)
		return false;
	while (len > 0) {
		ssize_t n = pwrite(job->fd, bytes, len, (off_t)job->arrived);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		bytes += n;
		len -= (size_t)n;
		job->arrived += (uint64_t)n;
	}
	return true;
}

static void after_download(void *ctx)
{
	struct rillsoft_job *job = ctx;
	int error = job->error;

	if (error == 0 && job->doc->size >= 0 && job->arrived != (uint64_t)job->doc->size)
		error = -EIO;
	if (error < 0) {
		rillsoft_job_end(job, error == -ENOENT ? REMOTE_GONE : REMOTE_RETRY, error,
				 "the server wants the contents of '%.80s' with its new name, and "
				 "they cannot be read",
				 job->doc->name);
		return;
	}
	job->size = job->arrived;
	job->with_file = true;
	send_update(job);
}

static void on_downloaded(void *ctx, int error)
{
	struct rillsoft_job *job = ctx;

	job->error = error;
	if (pool_run(job->ris->base.pool, after_download, job) < 0)
		after_download(job);
}

static void download(struct rillsoft_job *job)
{
	struct rillsoft *ris = job->ris;
	const struct rillsoft_doc *doc = job->doc;
	const struct remote_fetch_sink sink = {on_begin, on_bytes, on_downloaded, job};
	struct remote_file file = {.id = (char *)doc->id, .name = doc->name, .size = doc->size};
	uint64_t id;
	int error = 0;

	job->filename = job->name;
	job->fd = open_temporary();
	job->own_fd = job->fd >= 0;
	if (!job->own_fd)
		error = job->fd;
	char version[RILLSOFT_VERSION_SIZE];
	rillsoft_version(doc, version);
	file.version = version;
	if (error == 0)
		error = rillsoft_fetch(&ris->base, job->class, &file, job->item->collection, 0, 0,
				       0, &sink, &id);
	if (error < 0)
		rillsoft_job_end(job, REMOTE_RETRY, error,
				 "the server wants the contents of '%.80s' with its new name, and "
				 "they cannot be kept in $TMPDIR",
				 doc->name);
}

/* Neither the version that is to be replaced, nor what an earlier call of ours may have left. */
static bool is_others(const struct rillsoft_job *job)
{
	const struct remote_change *item = job->item;
	char version[RILLSOFT_VERSION_SIZE];

	rillsoft_version(job->doc, version);
	return item->version && strcmp(item->version, version) != 0 && job->doc->size >= 0 &&
	       (uint64_t)job->doc->size != item->size;
}

static void begin_update(struct rillsoft_job *job)
{
	const struct remote_change *item = job->item;

	if (job->verb == RILLSOFT_REPLACES && is_others(job)) {
		rillsoft_job_end(job, REMOTE_RETRY, -ESTALE, "another version of '%.80s' is there",
				 job->doc->name);
		return;
	}
	job->name = item->name ? item->name : job->doc->name;
	job->filename = rillsoft_is_tame(job->name) || !item->token ? job->name : item->token;
	memcpy(job->folder, job->doc->folder, sizeof(job->folder));
	if (job->verb == RILLSOFT_REPLACES) {
		job->fd = item->fd;
		job->size = item->size;
		job->with_file = true;
		send_update(job);
	} else if (job->ris->file_required) {
		download(job);
	} else {
		send_update(job);
	}
}

static void on_known(void *ctx, int error, struct rillsoft_listing *l, const char *message)
{
	struct rillsoft_job *job = ctx;

	if (error < 0) {
		rillsoft_job_end(job, REMOTE_RETRY, error, "%s", message);
		return;
	}
	rillsoft_job_keep(job, l);
	job->doc = rillsoft_find_doc(l, job->item->id);
	if (!job->doc && !job->looked) {
		job->looked = true;
		rillsoft_job_want(job, RILLSOFT_FRESH, on_known);
	} else if (!job->doc) {
		rillsoft_job_end(job, REMOTE_GONE, -ENOENT, "the server has no such document");
	} else if (strcmp(job->doc->project, job->item->collection) != 0) {
		rillsoft_job_end(job, REMOTE_REFUSED, -EXDEV,
				 "the server cannot move documents between projects");
	} else {
		begin_update(job);
	}
}

void rillsoft_update_begin(struct rillsoft_job *job)
{
	rillsoft_job_want(job, RILLSOFT_KNOWN, on_known);
}
