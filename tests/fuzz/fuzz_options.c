/* SPDX-License-Identifier: MIT */

/*
 * Any text as a -o list, as a source and as a config file: refused with a message or taken, and
 * nothing leaks.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <attachfs/options.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An error comes with a reason. */
static void check(int r, const char *message)
{
	if (r != 0 && r != -ENOENT && (r != -EINVAL || !*message))
		abort();
}

static void check_config(struct options *o, const uint8_t *data, size_t size)
{
	char path[64], message[256] = "";
	int fd = memfd_create("config", MFD_CLOEXEC);

	if (fd < 0)
		abort();
	if (write(fd, data, size) == (ssize_t)size) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		check(options_read_config(o, path, "a", message, sizeof(message)), message);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char message[256] = "", *text = malloc(size + 1), source[300];
	struct options o;

	if (!text || options_init(&o) < 0)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	check_config(&o, data, size);
	check(options_set_list(&o, text, message, sizeof(message)), message);
	message[0] = '\0';
	snprintf(source, sizeof(source), "perscom:http://%.250s", text);
	check(options_set_source(&o, source, message, sizeof(message)), message);
	message[0] = '\0';
	check(options_finish(&o, message, sizeof(message)), message);
	options_clear(&o);
	free(text);
	return 0;
}
