/* SPDX-License-Identifier: MIT */

/* How a list of records that may shift under our hands is read to its end. Pure. */

#include "servicemax.h"

#include <errno.h>

#define OVERLAP	  8
#define BACKS_MAX 6

void servicemax_paging_begin(struct servicemax_paging *p)
{
	p->pass++;
	p->offset = p->reached = 0;
	p->overlap = OVERLAP;
	p->backs = 0;
	if (p->limit == 0)
		p->limit = SERVICEMAX_PAGE;
}

static size_t count_seen(const struct servicemax_paging *p, const struct servicemax_page *page)
{
	size_t n = 0;

	for (size_t i = 0; i < page->n_records; i++)
		n += servicemax_uuids_get(&p->seen, page->records[i].id) == p->pass;
	return n;
}

static void drop_records(struct servicemax_page *page, size_t kept)
{
	for (size_t i = kept; i < page->n_records; i++)
		remote_record_clear(&page->records[i]);
	page->n_records = kept;
}

/* Keep the records that are new; how many are new to this pass, or -ENOMEM. */
static int64_t keep_new(struct servicemax_paging *p, struct servicemax_page *page)
{
	int64_t fresh = 0;
	size_t kept = 0;

	for (size_t i = 0; i < page->n_records; i++) {
		int tag = servicemax_uuids_put(&p->seen, page->records[i].id, p->pass);
		if (tag < 0)
			return tag;
		fresh += (unsigned)tag != p->pass;
		if (tag == 0) {
			struct remote_record record = page->records[kept];
			page->records[kept++] = page->records[i];
			page->records[i] = record;
		}
	}
	drop_records(page, kept);
	return fresh;
}

/* More rows are gone than pages overlap: begin the page earlier. */
static int go_back(struct servicemax_paging *p, const char **ret_message)
{
	if (p->backs++ == BACKS_MAX) {
		*ret_message = "its pages of records are not in order, or change too fast";
		return -EIO;
	}
	p->overlap *= 8;
	p->offset = p->reached > p->overlap ? p->reached - p->overlap : 0;
	return 1;
}

int servicemax_paging_take(struct servicemax_paging *p, struct servicemax_page *page, int64_t total,
			   const char **ret_message)
{
	uint64_t end = p->offset + page->rows;

	*ret_message = "";
	if (p->offset == 0 && page->rows == 0 && total > 0) {
		*ret_message = "it counts records but lists none";
		return -EIO;
	}
	if (p->offset > 0 && count_seen(p, page) == 0) {
		drop_records(page, 0);
		return go_back(p, ret_message);
	}
	int64_t fresh = keep_new(p, page);
	if (fresh < 0)
		return (int)fresh;
	/* Who sends more than the limit knows none, and sends everything (S-20). */
	if (total >= 0 ? end >= (uint64_t)total : page->rows != p->limit)
		return 0;
	if (fresh == 0 && end >= p->reached) {
		/* Counted, but not for us to see: or the same page all the time. */
		if (page->rows <= p->reached - p->offset)
			return 0;
		*ret_message = "its pages of records repeat";
		return -EIO;
	}
	p->reached = end > p->reached ? end : p->reached;
	p->overlap = OVERLAP;
	p->offset = end > OVERLAP ? end - OVERLAP : 0;
	return 1;
}
