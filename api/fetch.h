/* SPDX-License-Identifier: MIT */
#ifndef API_FETCH_H
#define API_FETCH_H

/*
 * Downloads, made to look like one stream each: what remote_ops.fetch promises, for any system whose
 * bytes are behind a GET. Cut answers are gone on with by range, a refused credential or link is
 * renewed, the answers of one stream must agree in ETag and total size, and all streams of one
 * version in their ETag. A server that does not know ranges is remembered, and asked for none.
 *
 * A client says by a struct fetch_source how its bytes are asked for; fetch_cancel() and the others
 * below are then its ops as they are.
 */

#include <stdbool.h>
#include <stdint.h>

#include <attachfs/remote.h>

/*
 * Where the bytes are now: 0 and the id, version and url of the file; or an error. @remembered: as
 * far as the client remembers, without having asked. Called once, on the pool or at once.
 */
typedef void fetch_renewed(void *ctx, int error, const struct remote_file *now, bool remembered);

struct fetch_source {
	const char *endpoint; /* what it is counted under: "GET blob" */
	bool credential;      /* sent along, to the engine's origin only */
	const char *accept;   /* the whole line, "Accept: ..."; NULL = none */
	/* An answer 400 or 403 with these words in its first bytes (any case) counts as 401. */
	const char *refusal_words;
	/* What to do when its answers are not the bytes (404, 405, a page), for the log; or NULL. */
	const char *remedy;
	bool unsure; /* whether there are bytes: that there are none is no error in the log */
	/*
	 * Whether an answer's bytes can be the file's, by its head, before any is used. @total: the
	 * size of the whole by the answer, -1 = not told. 0, or the error to end with: -ESTALE (of
	 * another version), -EIO, -EACCES (a login page: counts as 401). On the transfer thread.
	 * NULL = what is not ruled out anyway is fine.
	 */
	int (*judge)(const struct remote_file *file, const struct transfer_head *head,
		     int64_t total);
	/*
	 * A link that is another one than @bad (NULL = any); @fresh: from the server. NULL = links
	 * last for ever.
	 */
	void (*renew)(struct remote *r, enum transfer_class class, const char *id, const char *bad,
		      bool fresh, int64_t deadline_mono_ms, fetch_renewed *done, void *ctx);
	/*
	 * The server answered with an error @status: another source that the same link may be asked
	 * by (without the credential, say), or NULL. Asked once in a fetch, on the transfer thread,
	 * after a login was of no use. NULL = there is no other way.
	 */
	const struct fetch_source *(*instead)(struct remote *r, int status);
};

/* The downloads under way of one client. NULL without memory. */
struct fetches *fetches_new(void);
void fetches_free(struct fetches *f);

/*
 * As remote_ops.fetch. @source must last as long as the client. file->url NULL: renew() is asked
 * first; @remembered: the link is from the client's memory, not from the caller's listing.
 */
int fetch_start(struct remote *r, const struct fetch_source *source, enum transfer_class class,
		const struct remote_file *file, bool remembered, uint64_t off, uint64_t len,
		int64_t deadline_mono_ms, const struct remote_fetch_sink *sink, uint64_t *ret_id);

/* remote_ops.fetch_cancel and its companions. */
void fetch_cancel(struct remote *r, uint64_t id);
void fetch_pause(struct remote *r, uint64_t id);
void fetch_resume(struct remote *r, uint64_t id);
void fetch_set_class(struct remote *r, uint64_t id, enum transfer_class class);

/*
 * remote_ops.probe_size by one tiny read: the first byte's Content-Range tells the total (P-4).
 */
int fetch_probe_size(struct remote *r, enum transfer_class class, const struct remote_file *file,
		     const char *collection, int64_t deadline_mono_ms, remote_size_done *done,
		     void *ctx);

#endif
