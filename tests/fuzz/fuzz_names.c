/* SPDX-License-Identifier: MIT */

/*
 * Any bytes as a server's name, then as a user's: the properties of names.h must hold for all of
 * them.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attachfs/names.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_legal(const char *shown, size_t n)
{
	must(n >= 1 && n <= NAMES_MAX && strlen(shown) == n && !strchr(shown, '/'));
	must(strcmp(shown, ".") != 0 && strcmp(shown, "..") != 0);
}

static void check_server_name(const char *server, size_t len)
{
	char shown[NAMES_MAX + 1], back[NAMES_MAX + 1], sent[3 * NAMES_MAX + 1];
	size_t n = 0;
	bool exact;

	check_legal(shown, names_encode(server, len, "a-1", shown, &exact));
	if (!exact)
		return;
	must(names_decode(shown, back, sizeof(back), &n) == 0);
	must(n == len && memcmp(back, server, n) == 0);
	must(names_to_server(shown, sent) == len && memcmp(sent, server, len) == 0);
}

static void check_user_name(const char *user)
{
	char sent[3 * NAMES_MAX + 1], again[3 * NAMES_MAX + 1], shown[NAMES_MAX + 1];
	size_t n = names_to_server(user, sent);
	bool exact;

	check_server_name(sent, n);
	names_encode(sent, n, "a-1", shown, &exact);
	if (exact)
		must(names_to_server(shown, again) == n && memcmp(again, sent, n) == 0);
}

static void check_derived(const char *shown)
{
	char out[NAMES_MAX + 1], *label;
	size_t at = names_extension(shown);

	must(at <= strlen(shown));
	check_legal(out, names_disambiguate(shown, "a-1", out));
	must(strcmp(out + strlen(out) - strlen(shown + at), shown + at) == 0);
	check_legal(out, names_conflict(shown, shown, (long long)strlen(shown) << 32, out));
	label = names_label("label", shown, false);
	must(label && strncmp(label, "label", 5) == 0);
	free(label);
	names_is_local(".~lock.*#:*.part:.*.sw?", shown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char user[NAMES_MAX + 1];
	size_t n = size < NAMES_MAX ? size : NAMES_MAX;

	check_server_name((const char *)data, size);
	memcpy(user, data, n);
	user[n] = '\0';
	for (char *p = user; *p; p++)
		*p = *p == '/' ? '_' : *p;
	if (!*user || strcmp(user, ".") == 0 || strcmp(user, "..") == 0)
		return 0;
	check_user_name(user);
	check_derived(user);
	return 0;
}
