/* SPDX-License-Identifier: MIT */
#include "mountinfo.h"

#include <string.h>

#define LINE_BYTES 8192

FILE *mountinfo_open(void)
{
	return fopen("/proc/self/mountinfo", "re");
}

static bool is_octal(const char *s)
{
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' && s[2] <= '7';
}

/* Octal escapes, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && is_octal(s + 1)) {
			*to++ = (char)((s[1] & 3) << 6 | (s[2] & 7) << 3 | (s[3] & 7));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

bool mountinfo_next(FILE *f, struct mountinfo *m)
{
	char line[LINE_BYTES];

	while (fgets(line, sizeof(line), f)) {
		const char *dash = strstr(line, " - ");

		if (!dash || sscanf(dash, " - %255s", m->type) != 1 ||
		    sscanf(line, "%*s %*s %*u:%u %*s %4095s", &m->minor, m->dir) != 2)
			continue;
		unescape(m->dir);
		return true;
	}
	return false;
}

unsigned mountinfo_minor(const char *dir)
{
	FILE *f = mountinfo_open();
	struct mountinfo m;
	unsigned found = 0;

	while (f && mountinfo_next(f, &m))
		if (!strcmp(m.dir, dir))
			found = m.minor;
	if (f)
		fclose(f);
	return found;
}
