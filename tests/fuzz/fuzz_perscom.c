/* SPDX-License-Identifier: MIT */

/*
 * What a hostile server can answer: listings, single rows, errors, links, times. The first byte
 * chooses what the rest is taken for. Beyond "does not crash": a page that was accepted holds only
 * ids that may stand in a URL, names without an end in between, and links that may be followed.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../api/json.h"
#include "../../api/perscom.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct perscom_base base;

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_file(const struct remote_file *f)
{
	check(json_is_id(f->id) && f->name && f->raw_name && f->version && f->size == -1);
	check(!f->record || json_is_id(f->record));
	check(!f->url || strncasecmp(f->url, "https://", 8) == 0 ||
	      strncasecmp(f->url, "http://", 7) == 0);
	if (f->url)
		(void)perscom_url_expiry(f->url);
}

static void try_page(const json_t *root, const struct perscom_collection *c, int names)
{
	struct perscom_page page;
	int r = perscom_decode_page(&base, root, c, names, &page);

	for (size_t i = 0; r == 0 && i < page.n_files; i++)
		check_file(&page.files[i]);
	for (size_t i = 0; r == 0 && i < page.n_records; i++)
		check(json_is_id(page.records[i].id) && page.records[i].name[0] != '\0');
	perscom_page_clear(&page);
}

static void try_error(const json_t *root, const char *text, size_t size)
{
	const char *found;
	char words[201];
	int error;

	call_find_words(root, text, size, words, sizeof(words));
	check(strlen(words) < sizeof(words) && !strpbrk(words, "\r\n"));
	for (int status = 400; status < 504; status++) {
		struct call_reply reply = {.error = call_status_errno(status),
					   .status = status,
					   .json = root,
					   .message = words};
		perscom_judge(&reply, PERSCOM_UPDATE, 2, &error);
	}
	perscom_blames(root, "7", &error, &found);
}

static void try_texts(const char *text)
{
	char *url = NULL;
	int64_t ns;

	if (perscom_url_resolve(&base, text, &url) == 0 && url)
		(void)perscom_url_expiry(url);
	free(url);
	(void)perscom_url_expiry(text);
	if (time_parse_iso8601(text, &ns) == 0) {
		char out[TIME_ISO8601_SIZE];
		int64_t again;
		time_format_iso8601(ns, out);
		check(time_parse_iso8601(out, &again) == 0 && again <= ns &&
		      ns - again < 1000000000);
	}
	(void)perscom_is_tame(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char message[128];

	if (size == 0)
		return 0;
	if (!base.url)
		check(perscom_base_parse("https://api.perscom.io/v2", &base, message,
					 sizeof(message)) == 0);
	int kind = data[0];
	const char *bytes = (const char *)data + 1;
	char *text = strndup(bytes, size - 1);
	json_t *root = json_parse(bytes, size - 1, message, sizeof(message));

	check(text != NULL);
	try_page(root,
		 kind & 1 ? NULL : perscom_find_collection(kind & 2 ? "users" : "service-records"),
		 kind & 4);
	try_error(root, bytes, size - 1);
	try_texts(text);
	json_decref(root);
	free(text);
	return 0;
}
