/* SPDX-License-Identifier: MIT */
#ifndef API_FETCH_ANSWER_H
#define API_FETCH_ANSWER_H

/*
 * Whether an answer's bytes are those that were asked for, and what a client remembers of its
 * servers for that. Pure but for the times passed in; the owner serialises.
 */

#include <stdbool.h>
#include <stdint.h>

#include <attachfs/remote.h>

/* What was asked, and what earlier answers to the same stream have said. */
struct fetch_ask {
	uint64_t position; /* of the next byte that is wanted */
	bool ranged;	   /* with a Range that begins there; else all was asked for */
	bool begun;	   /* an answer was taken before; then: */
	int64_t total;	   /* its size of the whole, -1 = not told */
	const char *etag;  /* its strong tag, sent along as If-Range; "" = none */
};

struct fetch_answer {
	uint64_t at;	/* position of its first byte: that asked for, or 0 */
	uint64_t end;	/* behind its last, UINT64_MAX = not told */
	int64_t total;	/* of the whole, -1 = not told */
	bool framed;	/* its length is told: where the connection ends does not matter */
	bool rangeless; /* the server could have answered a range and did not */
};

/*
 * An answer 200 or 206 by its head. 0; -EIO: what follows is not what was asked for (another range,
 * packed, lengths that contradict each other); -ESTALE: it is of another version than before.
 */
int fetch_judge(const struct fetch_ask *ask, const struct transfer_head *head,
		struct fetch_answer *ret_answer);

/*
 * A web page where the file is none by its name and type: of a proxy or a login, whatever the
 * status says. A page that comes by range or is offered as a download is taken for the file.
 */
bool fetch_is_page(const struct remote_file *file, const struct transfer_head *head);

/*
 * Tags the server gave the bytes of versions, so that parts of one version are never taken from two
 * where it has changed in between without a new name for it.
 */
#define FETCH_TAGS	   1024
#define FETCH_TAG_MISTAKES 4 /* disagreements more than agreements: its tags mean nothing */

struct fetch_tags {
	struct {
		uint64_t version, tag; /* hashes, 0 = none */
	} slots[FETCH_TAGS];
	unsigned mistakes;
};

/* Note that version @version of file @id came under @etag ("" = none). False: under another before. */
bool fetch_tags_agree(struct fetch_tags *tags, const char *id, const char *version,
		      const char *etag);

/* Servers that know no ranges, by scheme, host and port; each for FETCH_RANGELESS_MS. */
#define FETCH_HOSTS	   16
#define FETCH_RANGELESS_MS 3600000

struct fetch_hosts {
	struct {
		uint64_t host; /* hash, 0 = none */
		int64_t until_ms;
	} slots[FETCH_HOSTS];
	unsigned next;
};

void fetch_hosts_note(struct fetch_hosts *hosts, const char *url, int64_t now_ms);
bool fetch_hosts_find(const struct fetch_hosts *hosts, const char *url, int64_t now_ms);

#endif
