/* SPDX-License-Identifier: MIT */
/*
 * ledger-check FILE: the invariants of a ledger that nobody uses. It counts as an opening: give it a
 * copy. Exit status 0; 1 with words.
 */
#include <stdio.h>
#include <string.h>

#include <attachfs/ledger.h>

int main(int argc, char **argv)
{
	char message[512] = "";
	struct ledger *l;
	int r;

	if (argc != 2) {
		fprintf(stderr, "usage: ledger-check FILE\n");
		return 2;
	}
	r = ledger_open(argv[1], &l, message, sizeof(message));
	if (r < 0) {
		printf("cannot be opened: %s: %s\n", strerror(-r), message);
		return 1;
	}
	r = ledger_check(l, message, sizeof(message));
	if (r < 0)
		printf("%s: %s\n", strerror(-r), message);
	ledger_close(l);
	return r < 0;
}
