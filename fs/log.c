/* SPDX-License-Identifier: MIT */

/*
 * A line goes through three steps: it is formatted in full, redacted, and only then cut to size (a
 * secret that a cut has halved would no longer be recognised). What is folded and written is the
 * redacted text.
 *
 * The lock is held over write(): it is what keeps lines in order and the descriptor open. A line
 * with the "repeated" line before it stays within PIPE_BUF, so that it is not torn between
 * processes on a pipe either.
 *
 * There is no timer. A run of equal lines is reported when another line comes, when the log is
 * closed, and when an equal line comes more than FOLD_MS after the last one that was written.
 */

#include <attachfs/clock.h>
#include <attachfs/log.h>

#include <ctype.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX   3800 /* bytes of a line without its prefix */
#define PREFIX_MAX 64
#define FOLD_MS	   10000
#define SECRET_MIN 4

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

static struct {
	pthread_mutex_t lock; /* order: innermost */
	int fd;		      /* lock; STDERR_FILENO is not ours to close */
	enum log_level level; /* atomic, so that a silenced line costs no lock */

	/* The last line written, and how often it came again since: lock. */
	char last[TEXT_MAX];
	enum log_level last_level;
	unsigned repeated;
	int64_t written_ms;
} logger = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO, .level = LOG_LEVEL_INFO};

/*
 * Apart from the logger: log_redact() is for callers that write no line, and must not wait for a
 * slow disk.
 */
static struct {
	pthread_rwlock_t lock; /* order: innermost */
	char **strings; /* lock; never shrinks, since an expired token is still nobody's business */
	size_t n;
} secrets = {.lock = PTHREAD_RWLOCK_INITIALIZER};

/* Redaction */

/* The redacted text: always terminated, what does not fit is dropped. */
struct sink {
	char *bytes;
	size_t size;
	size_t len;
};

static void sink_put(struct sink *s, const char *bytes, size_t n)
{
	if (s->size == 0)
		return;
	if (n > s->size - 1 - s->len)
		n = s->size - 1 - s->len;
	memcpy(s->bytes + s->len, bytes, n);
	s->len += n;
	s->bytes[s->len] = '\0';
}

static void sink_puts(struct sink *s, const char *text)
{
	sink_put(s, text, strlen(text));
}

/*
 * A line is one line: a server's text must not forge a second one, nor drive the terminal it is
 * shown on.
 */
static void sink_put_char(struct sink *s, char c)
{
	char text[8];

	if (c == '\n')
		sink_puts(s, "\\n");
	else if (iscntrl((unsigned char)c)) {
		snprintf(text, sizeof(text), "\\x%02x", (unsigned)(unsigned char)c);
		sink_puts(s, text);
	} else
		sink_put(s, &c, 1);
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * Length of one byte @c of a secret at @text, in any way it may have been written: raw,
 * percent-encoded, as a form's '+', or behind JSON's backslash. 0 when it is not there.
 */
static size_t match_byte(const char *text, char c)
{
	if (text[0] == '\0')
		return 0;
	if (text[0] == '%' && hex_value(text[1]) >= 0 && hex_value(text[2]) >= 0 &&
	    (hex_value(text[1]) << 4 | hex_value(text[2])) == (unsigned char)c)
		return 3;
	if (text[0] == c || (text[0] == '+' && c == ' '))
		return 1;
	return text[0] == '\\' && text[1] == c ? 2 : 0;
}

static size_t match_secret(const char *text, const char *secret)
{
	size_t at = 0, n;

	for (; *secret; secret++) {
		n = match_byte(text + at, *secret);
		if (n == 0)
			return 0;
		at += n;
	}
	return at;
}

/* Length of the longest secret at @text. */
static size_t match_secrets_locked(const char *text)
{
	size_t longest = 0;

	for (size_t i = 0; i < secrets.n; i++) {
		size_t n = match_secret(text, secrets.strings[i]);

		longest = n > longest ? n : longest;
	}
	return longest;
}

static size_t match_word(const char *text, const char *word)
{
	size_t n = strlen(word);

	return strncasecmp(text, word, n) == 0 ? n : 0;
}

/*
 * "Authorization: ..." in all its spellings, also quoted as in JSON: length up to the value, 0 when
 * it is none.
 */
static size_t match_header(const char *text)
{
	size_t n = match_word(text, "authorization");

	if (n == 0)
		return 0;
	n += text[n] == '"';
	n += strspn(text + n, " \t");
	if (text[n] != ':' && text[n] != '=')
		return 0;
	n++;
	return n + strspn(text + n, " \t\"");
}

/*
 * "Bearer xxx" and "Basic xxx" outside a header: length up to the credentials, 0 when there are
 * none.
 */
static size_t match_scheme(const char *text)
{
	size_t n = match_word(text, "bearer"), blanks;

	if (n == 0)
		n = match_word(text, "basic");
	if (n == 0)
		return 0;
	blanks = strspn(text + n, " \t");
	return blanks > 0 && text[n + blanks] && !isspace((unsigned char)text[n + blanks])
		       ? n + blanks
		       : 0;
}

/*
 * The user and password of a URL whose "://" ends before @text: their length, 0 when it has none.
 */
static size_t match_userinfo(const char *text)
{
	size_t n = strcspn(text, "@/?# \t\r\n\"<>");

	return text[n] == '@' ? n : 0;
}

/*
 * Bytes of a URL's query: to a blank or a byte no URL holds. A quote ends it only where one began
 * the word.
 */
static size_t query_length(const char *text, char quote)
{
	size_t n = 0;

	while (text[n] && !isspace((unsigned char)text[n]) && !strchr("\"<>`", text[n]) &&
	       !(quote && text[n] == quote))
		n++;
	return n;
}

/* "?name=": a query even where nothing in front of it looks like a path. */
static bool is_parameter(const char *text)
{
	size_t n = strspn(text,
			  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.%[]");

	return n > 0 && text[n] == '=';
}

/* Where in the text the redaction is: a word runs from one blank to the next. */
struct word {
	char before; /* the byte in front of this one */
	char quote;  /* the word began with this one */
	bool path;   /* a '/' was seen: it is a path or a URL */
};

static void word_step(struct word *w, char c)
{
	bool starts = w->before == '\0' || isspace((unsigned char)w->before) ||
		      strchr("([{=,", w->before);

	if (isspace((unsigned char)c))
		*w = (struct word){0};
	else if (starts && (c == '\'' || c == '"'))
		w->quote = c;
	else if (c == '/')
		w->path = true;
	w->before = c;
}

/*
 * What at @text must not be shown. *@ret_keep bytes in front of it are, so that one sees what was
 * removed. Returns the number of bytes to replace, 0 when there is nothing.
 */
static size_t find_private_locked(const char *text, const struct word *w, size_t *ret_keep)
{
	bool starts_word = !isalnum((unsigned char)w->before);
	size_t keep, n = match_secrets_locked(text);

	*ret_keep = 0;
	if (n > 0)
		return n;
	if ((keep = match_header(text)) > 0) {
		*ret_keep = keep;
		return strcspn(text + keep, "\r\n");
	}
	if (starts_word && (keep = match_scheme(text)) > 0) {
		*ret_keep = keep;
		return strcspn(text + keep, " \t\r\n\"'<>,;");
	}
	if (strncmp(text, "://", 3) == 0 && match_userinfo(text + 3) > 0) {
		*ret_keep = 3;
		return match_userinfo(text + 3);
	}
	if (text[0] == '?' && (w->path || is_parameter(text + 1))) {
		*ret_keep = 1;
		return query_length(text + 1, w->quote);
	}
	return 0;
}

static void redact(const char *in, struct sink *out)
{
	struct word w = {0};

	pthread_rwlock_rdlock(&secrets.lock);
	while (*in && out->len + 1 < out->size) {
		size_t keep, n = find_private_locked(in, &w, &keep);

		if (n == 0)
			keep = 1;
		for (; keep > 0; keep--, in++) {
			word_step(&w, *in);
			sink_put_char(out, *in);
		}
		if (n > 0) {
			sink_puts(out, "<redacted>");
			in += n;
		}
	}
	pthread_rwlock_unlock(&secrets.lock);
}

void log_redact(const char *in, char *out, size_t size)
{
	struct sink s = {out, size, 0};

	sink_puts(&s, "");
	redact(in, &s);
}

void log_add_secret(const char *secret)
{
	char **grown, *copy;
	bool known = false;

	if (!secret || strlen(secret) < SECRET_MIN)
		return;
	pthread_rwlock_wrlock(&secrets.lock);
	for (size_t i = 0; i < secrets.n && !known; i++)
		known = strcmp(secrets.strings[i], secret) == 0;
	copy = known ? NULL : strdup(secret);
	grown = copy ? realloc(secrets.strings, (secrets.n + 1) * sizeof(*grown)) : NULL;
	if (grown) {
		secrets.strings = grown;
		secrets.strings[secrets.n++] = copy;
	} else {
		free(copy);
	}
	pthread_rwlock_unlock(&secrets.lock);
}

/* Lines */

/* A log that cannot be written has nobody to tell: what fails is dropped. */
static void write_locked(const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t done = write(logger.fd, bytes, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return;
		bytes += done;
		n -= (size_t)done;
	}
}

/* "2026-03-01T08:15:30.123Z info " */
static void put_prefix(struct sink *s, enum log_level level)
{
	int64_t now = clock_real_ns();
	time_t seconds = (time_t)(now / CLOCK_NS_PER_S);
	char date[32], prefix[PREFIX_MAX];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(prefix, sizeof(prefix), "%s.%03dZ %s ", date, (int)(now / 1000000 % 1000),
		 level_names[level]);
	sink_puts(s, prefix);
}

/* Append the report of the lines folded so far, if there are any, and count anew. */
static void put_repeated_locked(struct sink *s)
{
	char text[64];

	if (logger.repeated == 0)
		return;
	put_prefix(s, logger.last_level);
	snprintf(text, sizeof(text), "log: last line repeated %u time%s\n", logger.repeated,
		 logger.repeated == 1 ? "" : "s");
	sink_puts(s, text);
	logger.repeated = 0;
}

static void write_line_locked(enum log_level level, const char *text)
{
	char buffer[TEXT_MAX + 2 * PREFIX_MAX + 128];
	struct sink s = {buffer, sizeof(buffer), 0};
	int64_t now = clock_mono_ms();
	bool same = level == logger.last_level && strcmp(text, logger.last) == 0;

	if (same) {
		logger.repeated++;
		if (now - logger.written_ms < FOLD_MS)
			return;
	}
	put_repeated_locked(&s);
	if (!same) {
		put_prefix(&s, level);
		sink_puts(&s, text);
		sink_puts(&s, "\n");
		memcpy(logger.last, text, strlen(text) + 1);
		logger.last_level = level;
	}
	logger.written_ms = now;
	write_locked(s.bytes, s.len);
}

/* @reason is appended after ": " when it is not NULL. */
__attribute__((format(printf, 2, 0))) static void
write_formatted(enum log_level level, const char *format, va_list ap, const char *reason)
{
	char text[TEXT_MAX], *raw = NULL, *whole = NULL;
	struct sink s = {text, sizeof(text), 0};

	if (vasprintf(&raw, format, ap) < 0)
		raw = NULL;
	if (raw && reason && asprintf(&whole, "%s: %s", raw, reason) < 0)
		whole = NULL;
	sink_puts(&s, "");
	redact(whole ? whole : raw ? raw : "log: out of memory", &s);
	pthread_mutex_lock(&logger.lock);
	write_line_locked(level, text);
	pthread_mutex_unlock(&logger.lock);
	free(whole);
	free(raw);
}

static bool is_silenced(enum log_level level)
{
	return level > __atomic_load_n(&logger.level, __ATOMIC_RELAXED);
}

void log_line(enum log_level level, const char *format, ...)
{
	int before = errno;
	va_list ap;

	if (is_silenced(level))
		return;
	va_start(ap, format);
	write_formatted(level, format, ap, NULL);
	va_end(ap);
	errno = before;
}

int log_errno(int r, const char *format, ...)
{
	int before = errno;
	char buffer[128];
	va_list ap;

	va_start(ap, format);
	write_formatted(LOG_LEVEL_ERROR, format, ap, strerror_r(-r, buffer, sizeof(buffer)));
	va_end(ap);
	errno = before;
	return r;
}

/* The file */

/* Report what is folded, and take @fd from now on. */
static void switch_to_locked(int fd)
{
	char buffer[2 * PREFIX_MAX];
	struct sink s = {buffer, sizeof(buffer), 0};

	put_repeated_locked(&s);
	write_locked(s.bytes, s.len);
	if (logger.fd != STDERR_FILENO)
		close(logger.fd);
	logger.fd = fd;
	logger.last[0] = '\0';
}

int log_open(const char *path, enum log_level level)
{
	int fd = STDERR_FILENO;

	if (path) {
		fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
		if (fd < 0)
			return -errno;
	}
	pthread_mutex_lock(&logger.lock);
	switch_to_locked(fd);
	__atomic_store_n(&logger.level, level, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&logger.lock);
	return 0;
}

void log_close(void)
{
	pthread_mutex_lock(&logger.lock);
	switch_to_locked(STDERR_FILENO);
	pthread_mutex_unlock(&logger.lock);
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}
