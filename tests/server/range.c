/* SPDX-License-Identifier: MIT */
#include "range.h"

#include "clock.h"
#include "faults.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static void put_date(struct response *rs, int64_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;
	char text[64];

	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	response_header(rs, "Last-Modified", "%s", text);
}

static bool parse_date(const char *text, int64_t *ret)
{
	struct tm tm = {0};

	if (!strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
		return false;
	*ret = (int64_t)timegm(&tm);
	return true;
}

/* Whether the list of entity tags in @header names @etag; a weak tag never matches strongly. */
static bool names_etag(const char *header, const char *etag)
{
	return strcmp(header, "*") == 0 || (etag && strstr(header, etag));
}

static int precondition(const struct request *rq, const struct range_options *o)
{
	const char *match = request_header(rq, "If-Match");
	const char *none = request_header(rq, "If-None-Match");
	const char *unmodified = request_header(rq, "If-Unmodified-Since");
	const char *modified = request_header(rq, "If-Modified-Since");
	int64_t t;

	if (match ? !names_etag(match, o->etag)
		  : unmodified && parse_date(unmodified, &t) && o->modified_at > t)
		return 412;
	if (none ? names_etag(none, o->etag)
		 : modified && parse_date(modified, &t) && o->modified_at >= 0 &&
			    o->modified_at <= t)
		return 304;
	return 200;
}

/* If-Range: an entity tag or a date; the range counts only while it still holds. */
static bool range_holds(const struct request *rq, const struct range_options *o)
{
	const char *header = request_header(rq, "If-Range");
	int64_t t;

	if (!header)
		return true;
	if (*header == '"')
		return o->etag && strcmp(header, o->etag) == 0;
	return parse_date(header, &t) && t == o->modified_at;
}

static bool number(const char **s, uint64_t *ret)
{
	const char *start = *s;

	*ret = 0;
	while (**s >= '0' && **s <= '9' && *ret < UINT64_MAX / 16)
		*ret = *ret * 10 + (uint64_t)(*(*s)++ - '0');
	return *s != start;
}

enum range_verdict { RANGE_NONE, RANGE_ONE, RANGE_UNSATISFIABLE };

static enum range_verdict parse_range(const char *s, uint64_t size, uint64_t *ret_first,
				      uint64_t *ret_last)
{
	uint64_t first, last = UINT64_MAX;

	if (strncasecmp(s, "bytes=", 6) != 0)
		return RANGE_NONE;
	s += 6;
	if (*s == '-') {
		s++;
		if (!number(&s, &last) || *s)
			return RANGE_NONE;
		*ret_first = last < size ? size - last : 0;
		*ret_last = size - 1;
		return size && last ? RANGE_ONE : RANGE_UNSATISFIABLE;
	}
	if (!number(&s, &first) || *s++ != '-')
		return RANGE_NONE;
	if (*s && (!number(&s, &last) || *s || last < first))
		return RANGE_NONE;
	if (first >= size)
		return RANGE_UNSATISFIABLE;
	*ret_first = first;
	*ret_last = last < size ? last : size - 1;
	return RANGE_ONE;
}

static enum range_verdict wanted_range(const struct request *rq, const struct range_options *o,
				       uint64_t size, uint64_t *ret_first, uint64_t *ret_last)
{
	const char *header = request_header(rq, "Range");

	if (!header || o->ignored || (rq->fault && rq->fault->ignore_range) || !range_holds(rq, o))
		return RANGE_NONE;
	return parse_range(header, size, ret_first, ret_last);
}

/* A server that answers another range than it was asked for, and says so. */
static void shift(const struct request *rq, uint64_t size, uint64_t *first, uint64_t *last)
{
	uint64_t by = rq->fault ? (uint64_t)rq->fault->shift_range : 0;

	*first = *first + by < size ? *first + by : size - 1;
	*last = *last + by < size ? *last + by : size - 1;
}

void range_serve(struct request *rq, struct response *rs, struct blob *blob,
		 const struct range_options *o)
{
	uint64_t size = blob_size(blob);
	uint64_t first = 0, last = 0;
	enum range_verdict verdict = RANGE_NONE;

	rs->status = precondition(rq, o);
	if (rs->status == 200)
		verdict = wanted_range(rq, o, size, &first, &last);
	if (verdict == RANGE_UNSATISFIABLE) {
		rs->status = 416;
		response_header(rs, "Content-Range", "bytes */%" PRIu64, size);
	} else if (verdict == RANGE_ONE) {
		shift(rq, size, &first, &last);
		rs->status = 206;
		response_header(rs, "Content-Range", "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64,
				first, last, size);
	}
	if (rs->status == 412 || rs->status == 416) {
		blob_unref(blob);
		return;
	}
	if (!o->ignored)
		response_header(rs, "Accept-Ranges", "bytes");
	if (o->etag)
		response_header(rs, "ETag", "%s", o->etag);
	if (o->modified_at >= 0)
		put_date(rs, o->modified_at);
	if (rs->status == 304) {
		blob_unref(blob);
		return;
	}
	if (o->content_type)
		response_header(rs, "Content-Type", "%s", o->content_type);
	rs->blob = blob;
	rs->off = first;
	rs->len = verdict == RANGE_ONE ? last - first + 1 : size;
}
