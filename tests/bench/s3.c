/* SPDX-License-Identifier: MIT */

/*
 * bench-s3 DIRECTORY SPARE: serves DIRECTORY as the bucket "bucket" of something like S3, which is as much of
 * it as s3fs and rclone need to be measured beside attachfs. Prints its port on 127.0.0.1, serves until its
 * parent is gone. GET /counts tells "requests bytes_in bytes_out" so far, itself not counted.
 *
 * Keys are paths, those that end in a slash directories; SPARE, on the same filesystem, takes what is being
 * written. Signatures are not looked at. Listings are of one level, as with delimiter=/. What x-amz-meta-*
 * say is kept in memory. Parts of an upload are put together when it is completed, the first one in its
 * place. Names that would have to be escaped in XML, or are ".." anywhere, are refused.
 */

#include "s3.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <search.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define THREADS	   4
#define PATH_BYTES 1024
#define META_BYTES 1024

const char *s3_root;
static const char *spare;
static atomic_ullong requests, bytes_in, bytes_out, uploads;

/* Answers */

bool s3_text_open(struct s3_text *t)
{
	memset(t, 0, sizeof(*t));
	t->file = open_memstream(&t->at, &t->len);
	return t->file;
}

static enum MHD_Result send_response(struct MHD_Connection *c, unsigned status,
				     struct MHD_Response *r)
{
	enum MHD_Result sent = MHD_queue_response(c, status, r);

	MHD_destroy_response(r);
	return sent;
}

enum MHD_Result s3_send_text(struct MHD_Connection *c, unsigned status, struct s3_text *t)
{
	struct MHD_Response *r;

	fclose(t->file);
	atomic_fetch_add(&bytes_out, t->len);
	r = MHD_create_response_from_buffer(t->len, t->at, MHD_RESPMEM_MUST_FREE);
	MHD_add_response_header(r, "Content-Type", "application/xml");
	return send_response(c, status, r);
}

__attribute__((format(printf, 3, 4))) static enum MHD_Result
send_xml(struct MHD_Connection *c, unsigned status, const char *format, ...)
{
	struct s3_text t;
	va_list args;

	if (!s3_text_open(&t))
		return MHD_NO;
	va_start(args, format);
	vfprintf(t.file, format, args);
	va_end(args);
	return s3_send_text(c, status, &t);
}

static enum MHD_Result send_error(struct MHD_Connection *c, int error)
{
	bool absent = error == ENOENT || error == ENOTDIR;

	return send_xml(c, absent ? 404 : 500,
			"<Error><Code>%s</Code><Message>%s</Message></Error>",
			absent ? "NoSuchKey" : "InternalError", strerror(error));
}

static enum MHD_Result send_empty(struct MHD_Connection *c, unsigned status, const char *etag)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);

	if (etag)
		MHD_add_response_header(r, "ETag", etag);
	return send_response(c, status, r);
}

void s3_etag(const struct stat *st, char *to, size_t size)
{
	snprintf(to, size, "\"%llx%llx-%llx\"", (long long)st->st_mtim.tv_sec,
		 (long long)st->st_mtim.tv_nsec, (long long)st->st_size);
}

const char *s3_argument(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, name);
}

static bool has_argument(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value_n(c, MHD_GET_ARGUMENT_KIND, name, strlen(name), NULL,
					     NULL);
}

static const char *header(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

/* What x-amz-meta-* said, by key: lines "name: value\n" */

struct meta {
	char *key;
	char lines[META_BYTES];
};

static void *metas;
static pthread_mutex_t metas_lock = PTHREAD_MUTEX_INITIALIZER;

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct meta *)a)->key, ((const struct meta *)b)->key);
}

static enum MHD_Result add_meta(void *to, enum MHD_ValueKind kind, const char *name,
				const char *value)
{
	size_t len = strlen(to);

	(void)kind;
	if (value && !strncasecmp(name, "x-amz-meta-", 11))
		snprintf((char *)to + len, META_BYTES - len, "%s: %s\n", name, value);
	return MHD_YES;
}

static void meta_get(const char *key, char to[static META_BYTES])
{
	struct meta sought = {.key = (char *)(uintptr_t)key};
	struct meta **found;

	pthread_mutex_lock(&metas_lock);
	found = tfind(&sought, &metas, by_key);
	strcpy(to, found ? (*found)->lines : "");
	pthread_mutex_unlock(&metas_lock);
}

static void meta_set(const char *key, const char lines[static META_BYTES])
{
	struct meta *m = calloc(1, sizeof(*m));
	struct meta **found;

	if (!m || !(m->key = strdup(key)))
		abort();
	pthread_mutex_lock(&metas_lock);
	found = tsearch(m, &metas, by_key);
	strcpy((*found)->lines, lines);
	if (*found != m) {
		free(m->key);
		free(m);
	}
	pthread_mutex_unlock(&metas_lock);
}

static void meta_to_headers(const char *key, struct MHD_Response *r)
{
	char lines[META_BYTES], *rest = lines, *line;

	meta_get(key, lines);
	while ((line = strsep(&rest, "\n")) && *line) {
		char *value = strstr(line, ": ");

		if (!value)
			break;
		*value = '\0';
		MHD_add_response_header(r, line, value + 2);
	}
}

/* The bucket */

static enum MHD_Result serve_bucket(struct MHD_Connection *c, const char *method)
{
	if (!strcmp(method, "GET") && has_argument(c, "location"))
		return send_xml(c, 200, "<LocationConstraint></LocationConstraint>");
	if (!strcmp(method, "GET") && !has_argument(c, "uploads"))
		return s3_list(c);
	return send_empty(c, 200, NULL);
}

/* Reading */

/* Of "bytes=A-B", "bytes=A-" and "bytes=-N". False: all of it. */
static bool wanted_range(const char *text, uint64_t size, uint64_t *off, uint64_t *len)
{
	unsigned long long from = 0, to = size ? size - 1 : 0;

	*off = 0;
	*len = size;
	if (!text || !size)
		return false;
	if (sscanf(text, "bytes=-%llu", &from) == 1)
		from = from < size ? size - from : 0;
	else if (sscanf(text, "bytes=%llu-%llu", &from, &to) < 1)
		return false;
	if (from >= size || to < from)
		return false;
	*off = from;
	*len = (to < size ? to : size - 1) - from + 1;
	return true;
}

static enum MHD_Result send_file(struct MHD_Connection *c, const char *key, int fd,
				 const struct stat *st, bool head)
{
	char etag[80], date[64], range[96];
	struct MHD_Response *r;
	uint64_t off, len;
	struct tm tm;
	bool part = wanted_range(header(c, "Range"), (uint64_t)st->st_size, &off, &len);

	if (S_ISDIR(st->st_mode)) {
		close(fd);
		r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
		MHD_add_response_header(r, "Content-Type", "application/x-directory");
	} else {
		r = MHD_create_response_from_fd_at_offset64(len, fd, off);
		MHD_add_response_header(r, "Content-Type", "application/octet-stream");
		atomic_fetch_add(&bytes_out, head ? 0 : len);
	}
	if (part) {
		snprintf(range, sizeof(range), "bytes %llu-%llu/%llu", (unsigned long long)off,
			 (unsigned long long)(off + len - 1), (unsigned long long)st->st_size);
		MHD_add_response_header(r, "Content-Range", range);
	}
	s3_etag(st, etag, sizeof(etag));
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&st->st_mtime, &tm));
	MHD_add_response_header(r, "ETag", etag);
	MHD_add_response_header(r, "Last-Modified", date);
	MHD_add_response_header(r, "Accept-Ranges", "bytes");
	meta_to_headers(key, r);
	return send_response(c, part ? 206 : 200, r);
}

static enum MHD_Result serve_get(struct MHD_Connection *c, const char *key, const char *path,
				 bool head)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return send_error(c, errno);
	if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode) != (key[strlen(key) - 1] == '/')) {
		close(fd);
		return send_error(c, ENOENT);
	}
	return send_file(c, key, fd, &st, head);
}

/* Writing */

struct body {
	int fd; /* -1 = not wanted */
	char path[PATH_BYTES];
	int error;
};

static void make_parents(const char *path)
{
	char copy[PATH_BYTES];

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *p = copy + strlen(s3_root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(copy, 0755);
		*p = '/';
	}
}

static enum MHD_Result made(struct MHD_Connection *c, const char *path, bool copy)
{
	struct stat st;
	char etag[80];

	if (stat(path, &st) < 0)
		return send_error(c, errno);
	s3_etag(&st, etag, sizeof(etag));
	if (!copy)
		return send_empty(c, 200, etag);
	return send_xml(c, 200,
			"<CopyObjectResult><LastModified>2020-01-01T00:00:00.000Z</LastModified>"
			"<ETag>%s</ETag></CopyObjectResult>",
			etag);
}

/* x-amz-copy-source, which is also how metadata are changed. */
static enum MHD_Result serve_copy(struct MHD_Connection *c, const char *key, const char *path,
				  const char *source)
{
	const char *directive = header(c, "x-amz-metadata-directive");
	char from[PATH_BYTES], lines[META_BYTES] = "", name[PATH_BYTES];

	snprintf(name, sizeof(name), "%s", source);
	MHD_http_unescape(name);
	source = name[0] == '/' ? name + 1 : name;
	if (strncmp(source, S3_BUCKET "/" + 1, strlen(S3_BUCKET)) != 0 || strstr(source, ".."))
		return send_error(c, ENOENT);
	source += strlen(S3_BUCKET);
	snprintf(from, sizeof(from), "%.500s/%.500s", s3_root, source);
	if (directive && !strcasecmp(directive, "REPLACE"))
		MHD_get_connection_values(c, MHD_HEADER_KIND, add_meta, lines);
	else
		meta_get(source, lines);
	if (strcmp(from, path) != 0) {
		make_parents(path);
		unlink(path);
		if (key[strlen(key) - 1] != '/' && link(from, path) < 0)
			return send_error(c, errno);
	}
	meta_set(key, lines);
	return made(c, path, true);
}

static enum MHD_Result serve_put(struct MHD_Connection *c, const char *key, const char *path,
				 const struct body *b)
{
	const char *part = s3_argument(c, "partNumber"), *id = s3_argument(c, "uploadId");
	char lines[META_BYTES] = "", to[PATH_BYTES];

	if (b->error)
		return send_error(c, b->error);
	if (part && id) {
		snprintf(to, sizeof(to), "%.500s/part-%.40s-%.20s", spare, id, part);
		return rename(b->path, to) < 0 ? send_error(c, errno) : made(c, to, false);
	}
	if (header(c, "x-amz-copy-source"))
		return serve_copy(c, key, path, header(c, "x-amz-copy-source"));
	make_parents(path);
	if (key[strlen(key) - 1] != '/' && rename(b->path, path) < 0)
		return send_error(c, errno);
	MHD_get_connection_values(c, MHD_HEADER_KIND, add_meta, lines);
	meta_set(key, lines);
	return made(c, path, false);
}

static int append(int to, const char *path)
{
	int from = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;

	if (from < 0)
		return -errno;
	while (n > 0)
		n = copy_file_range(from, NULL, to, NULL, 1u << 30, 0);
	close(from);
	unlink(path);
	return n < 0 ? -errno : 0;
}

static enum MHD_Result complete(struct MHD_Connection *c, const char *path, const char *id)
{
	char part[PATH_BYTES], first[PATH_BYTES];
	int to, r = 0;

	snprintf(first, sizeof(first), "%.500s/part-%.40s-1", spare, id);
	to = open(first, O_WRONLY | O_CLOEXEC);
	if (to < 0 || lseek(to, 0, SEEK_END) < 0)
		return send_error(c, errno);
	for (unsigned i = 2; !r; i++) {
		snprintf(part, sizeof(part), "%.500s/part-%.40s-%u", spare, id, i);
		r = append(to, part);
	}
	close(to);
	make_parents(path);
	if (r != -ENOENT || rename(first, path) < 0)
		return send_error(c, r != -ENOENT ? -r : errno);
	return send_xml(c, 200,
			"<CompleteMultipartUploadResult><ETag>\"done-1\"</ETag>"
			"</CompleteMultipartUploadResult>");
}

static enum MHD_Result serve_post(struct MHD_Connection *c, const char *key, const char *path)
{
	char lines[META_BYTES] = "";

	if (!has_argument(c, "uploads"))
		return s3_argument(c, "uploadId") ? complete(c, path, s3_argument(c, "uploadId"))
						  : send_error(c, ENOSYS);
	MHD_get_connection_values(c, MHD_HEADER_KIND, add_meta, lines);
	meta_set(key, lines);
	return send_xml(c, 200,
			"<InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key>"
			"<UploadId>%llu</UploadId></InitiateMultipartUploadResult>",
			S3_BUCKET + 1, key, atomic_fetch_add(&uploads, 1));
}

static enum MHD_Result serve_delete(struct MHD_Connection *c, const char *key, const char *path)
{
	if (key[strlen(key) - 1] == '/')
		rmdir(path);
	else
		unlink(path);
	return send_empty(c, 204, NULL);
}

/* Requests */

static enum MHD_Result answer(struct MHD_Connection *c, const char *url, const char *method,
			      const struct body *b)
{
	const char *key = url + strlen(S3_BUCKET);
	char path[PATH_BYTES];

	if (!strcmp(url, "/counts"))
		return send_xml(c, 200, "%llu %llu %llu", atomic_load(&requests),
				atomic_load(&bytes_in), atomic_load(&bytes_out));
	atomic_fetch_add(&requests, 1);
	if (strncmp(url, S3_BUCKET, strlen(S3_BUCKET)) != 0 || strstr(url, "..") ||
	    strpbrk(url, "<>&\""))
		return send_error(c, ENOENT);
	if (!key[0] || !strcmp(key, "/"))
		return serve_bucket(c, method);
	key++;
	snprintf(path, sizeof(path), "%.500s/%.500s", s3_root, key);
	if (!strcmp(method, "GET") || !strcmp(method, "HEAD"))
		return serve_get(c, key, path, method[0] == 'H');
	if (!strcmp(method, "PUT"))
		return serve_put(c, key, path, b);
	if (!strcmp(method, "POST"))
		return serve_post(c, key, path);
	if (!strcmp(method, "DELETE"))
		return serve_delete(c, key, path);
	return send_error(c, ENOSYS);
}

static struct body *begin(const char *method)
{
	struct body *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->fd = -1;
	if (!strcmp(method, "PUT")) {
		snprintf(b->path, sizeof(b->path), "%.500s/body-%llu", spare,
			 atomic_fetch_add(&uploads, 1));
		b->fd = open(b->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		b->error = b->fd < 0 ? errno : 0;
	}
	return b;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *c, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *len, void **request)
{
	struct body *b = *request;

	(void)ctx;
	(void)version;
	if (!b)
		return (*request = begin(method)) ? MHD_YES : MHD_NO;
	if (!*len)
		return answer(c, url, method, b);
	atomic_fetch_add(&bytes_in, *len);
	if (b->fd >= 0 && write(b->fd, data, *len) != (ssize_t)*len)
		b->error = errno;
	*len = 0;
	return MHD_YES;
}

static void on_completed(void *ctx, struct MHD_Connection *c, void **request,
			 enum MHD_RequestTerminationCode code)
{
	struct body *b = *request;

	(void)ctx;
	(void)c;
	(void)code;
	if (!b)
		return;
	if (b->fd >= 0) {
		close(b->fd);
		unlink(b->path); /* unless it was renamed */
	}
	free(b);
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct MHD_Daemon *d;

	if (argc != 3) {
		fprintf(stderr, "usage: bench-s3 DIRECTORY SPARE\n");
		return 2;
	}
	s3_root = argv[1];
	spare = argv[2];
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	d = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, NULL,
			     MHD_OPTION_SOCK_ADDR, &at, MHD_OPTION_THREAD_POOL_SIZE,
			     (unsigned)THREADS, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
			     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)1 << 18, MHD_OPTION_END);
	if (!d) {
		perror("bench-s3");
		return 1;
	}
	printf("%u\n", MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT)->port);
	fflush(stdout);
	for (;;)
		pause();
}
