/* SPDX-License-Identifier: MIT */

/* Listings of bench-s3: see s3.c. */

#include "s3.h"

#include <dirent.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEYS_MAX   1000
#define PATH_BYTES 1024

struct names {
	char **at;
	size_t n;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_name(struct names *names, const char *dir, const char *name, bool directory)
{
	char **at = realloc(names->at, (names->n + 1) * sizeof(*at));

	if (!at || asprintf(&at[names->n], "%s%s%s", dir, name, directory ? "/" : "") < 0)
		abort();
	names->at = at;
	names->n++;
}

/* The keys of one level that begin with @prefix and come after @after, in order. */
static void read_names(const char *prefix, const char *after, struct names *names)
{
	const char *slash = strrchr(prefix, '/'), *base = slash ? slash + 1 : prefix;
	char dir[PATH_BYTES], path[PATH_BYTES];
	struct dirent *e;
	DIR *d;

	snprintf(dir, sizeof(dir), "%.*s", (int)(base - prefix), prefix);
	snprintf(path, sizeof(path), "%.500s/%.500s", s3_root, dir);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		struct stat st;

		if (e->d_name[0] == '.' || strncmp(e->d_name, base, strlen(base)) != 0 ||
		    fstatat(dirfd(d), e->d_name, &st, 0) < 0)
			continue;
		add_name(names, dir, e->d_name, S_ISDIR(st.st_mode));
	}
	if (d)
		closedir(d);
	if (names->n)
		qsort(names->at, names->n, sizeof(*names->at), by_name);
	for (size_t i = 0; i < names->n; i++)
		if (after && strcmp(names->at[i], after) <= 0)
			names->at[i][0] = '\0';
}

static void print_key(FILE *to, const char *key)
{
	char path[PATH_BYTES], date[40], etag[80];
	struct stat st;
	struct tm tm;

	if (key[strlen(key) - 1] == '/') {
		fprintf(to, "<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>", key);
		return;
	}
	snprintf(path, sizeof(path), "%.500s/%.500s", s3_root, key);
	if (stat(path, &st) < 0)
		return;
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S.000Z", gmtime_r(&st.st_mtime, &tm));
	s3_etag(&st, etag, sizeof(etag));
	fprintf(to,
		"<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>%s</ETag><Size>%lld</"
		"Size>"
		"<StorageClass>STANDARD</StorageClass></Contents>",
		key, date, etag, (long long)st.st_size);
}

enum MHD_Result s3_list(struct MHD_Connection *c)
{
	const char *prefix = s3_argument(c, "prefix"), *max = s3_argument(c, "max-keys");
	const char *after = s3_argument(c, "continuation-token"), *last = "";
	unsigned long most = max ? strtoul(max, NULL, 10) : KEYS_MAX;
	struct names names = {0};
	bool more = false;
	struct s3_text t;
	size_t n = 0;

	after = after ? after : s3_argument(c, "start-after");
	after = after ? after : s3_argument(c, "marker");
	if (!s3_text_open(&t))
		return MHD_NO;
	read_names(prefix ? prefix : "", after, &names);
	fprintf(t.file,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult "
		"xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>%s</Name><Prefix>%s</"
		"Prefix>",
		S3_BUCKET + 1, prefix ? prefix : "");
	for (size_t i = 0; i < names.n && !more; i++) {
		if (!names.at[i][0])
			continue;
		more = n == most;
		if (!more) {
			n++;
			print_key(t.file, last = names.at[i]);
		}
	}
	fprintf(t.file,
		"<KeyCount>%zu</KeyCount><MaxKeys>%lu</MaxKeys><IsTruncated>%s</IsTruncated>", n,
		most, more ? "true" : "false");
	if (more)
		fprintf(t.file,
			"<NextMarker>%s</NextMarker><NextContinuationToken>%s</"
			"NextContinuationToken>",
			last, last);
	fprintf(t.file, "</ListBucketResult>");
	for (size_t i = 0; i < names.n; i++)
		free(names.at[i]);
	free(names.at);
	return s3_send_text(c, 200, &t);
}
