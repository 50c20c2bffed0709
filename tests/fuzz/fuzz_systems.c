/* SPDX-License-Identifier: MIT */

/*
 * What hostile servers of ServiceMax, Enterprise Tester and Rillsoft can answer. The first byte
 * chooses what the rest is taken for. Beyond "does not crash": what was accepted has only ids that
 * may stand in a URL, names, and links to our own origin.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../api/enterprise_tester.h"
#include "../../api/json.h"
#include "../../api/rillsoft.h"
#include "../../api/servicemax.h"

#define ORIGIN "https://server.example.org"
#define UUID   "41f19ff6-2738-4000-8bfd-a18950caa1d1"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct base base;

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_file(const struct remote_file *f)
{
	check(json_is_uuid(f->id) && f->name && f->version && f->record);
	check(!f->url || strncmp(f->url, ORIGIN "/", strlen(ORIGIN "/")) == 0);
}

static void try_servicemax(const json_t *root, const char *text, size_t size)
{
	struct servicemax_page page = {0};
	char digest[SERVICEMAX_DIGEST_SIZE], name[SERVICEMAX_CSRF_NAME],
		token[SERVICEMAX_CSRF_TOKEN];

	(void)servicemax_decode_files(&base, UUID, root, &page);
	(void)servicemax_decode_records(root, &page);
	for (size_t i = 0; i < page.n_files; i++)
		check_file(&page.files[i]);
	for (size_t i = 0; i < page.n_records; i++)
		check(json_is_uuid(page.records[i].id) && page.records[i].name);
	servicemax_page_clear(&page);
	(void)servicemax_digest(root, digest);
	if (servicemax_find_csrf(text, size, name, token))
		check(!strpbrk(name, "\r\n:") && !strpbrk(token, "\r\n"));
}

static void try_enterprise_tester(const json_t *root, const struct et_collection *c)
{
	struct et_page page = {0};
	char id[REMOTE_ID_MAX + 1], path[ET_PATH_SIZE];
	const json_t *rows = et_rows(root);
	size_t i;
	json_t *row;

	(void)et_decode_files(root, UUID, &page);
	json_array_foreach(rows, i, row)
	{
		if (et_decode_record(c, row, NULL, i + 1, &page, id) == 0 && id[0] != '\0')
			check(et_owner_path(c, id, path));
	}
	for (i = 0; i < page.n_files; i++)
		check(json_is_uuid(page.files[i].id) && page.files[i].name);
	for (i = 0; i < page.n_records; i++)
		check(et_is_record(c, page.records[i].id) && page.records[i].name);
	et_page_clear(&page);
	(void)et_judge_rows(rows);
}

static void check_number(const char *id)
{
	check(strlen(id) < RILLSOFT_ID_SIZE && strspn(id, "0123456789") == strlen(id));
}

static void try_rillsoft(const json_t *root)
{
	struct rillsoft_listing *listing;
	struct remote_collection *list;
	char folder[RILLSOFT_ID_SIZE];
	size_t n;

	if (rillsoft_decode_listing(root, "41", &listing) == 0) {
		for (size_t i = 0; i < listing->n; i++) {
			check_number(listing->docs[i].id);
			check_number(listing->docs[i].project);
			check(listing->docs[i].name && listing->docs[i].element);
			check(!strpbrk(listing->docs[i].parent, "/?#% "));
		}
		rillsoft_listing_unref(listing);
	}
	if (rillsoft_decode_projects(root, &list, &n) == 0) {
		for (size_t i = 0; i < n; i++)
			check_number(list[i].id);
		rillsoft_collections_free(list, n);
	}
	if (rillsoft_decode_main_folder(root, folder))
		check_number(folder);
	(void)rillsoft_find_token(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const collections[] = {"requirements",  "scripts",
						  "incidents",	   "stepresults",
						  "agilerunsteps", "automatedtestruns"};
	char message[256], *text;
	json_t *root;

	if (size < 1)
		return 0;
	if (!base.url)
		check(base_parse(ORIGIN "/api", "", &base, message, sizeof(message)) == 0);
	text = strndup((const char *)data + 1, size - 1);
	root = json_parse(data + 1, size - 1, NULL, 0);
	switch (data[0] % 8) {
	case 0:
		try_servicemax(root, text, strlen(text));
		break;
	case 1: {
		json_t *claims = json_parse_jwt(text);

		json_decref(claims);
		break;
	}
	case 2: {
		int64_t ns;

		(void)rillsoft_parse_time(text, &ns);
		break;
	}
	default:
		try_enterprise_tester(root, et_find_collection(collections[data[0] / 8 % 6]));
		try_rillsoft(root);
	}
	json_decref(root);
	free(text);
	return 0;
}
