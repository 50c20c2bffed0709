/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_LOG_H
#define ATTACHFS_LOG_H

/*
 * One line per event: "module: verb object: detail key=value". The log is the process's, not a
 * mount's: several mounts in one process share it.
 *
 * Redaction lives here and nowhere else: queries of URLs, bearer and basic credentials, and every
 * string told to log_add_secret() are replaced by "<redacted>" before a line leaves the process, at
 * every level. Equal lines in a row are folded ("repeated 217 times", told when another line comes,
 * at log_close(), or with an equal line after 10 s). Control bytes are shown as \n or \x1b. Any
 * thread; lines are never torn.
 */

#include <errno.h>
#include <stddef.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/*
 * Send the log to @path (appended, created 0600), or to standard error where @path is NULL. 0 or
 * -errno of open(). May be called again to reopen.
 */
int log_open(const char *path, enum log_level level);

/* Flush a pending "repeated" line and close the file. */
void log_close(void);

/* "error", "warning", "info" or "debug"; 0, or -EINVAL for anything else. */
int log_level_parse(const char *text, enum log_level *ret_level);

/* From now on @secret (>= 4 bytes, copied) never appears in a line. */
void log_add_secret(const char *secret);

/*
 * Copy @in to @out (@size bytes, always terminated) as the log would show it. For text that goes to
 * a person by another way than the log (status, xattrs, messages on the terminal).
 */
void log_redact(const char *in, char *out, size_t size);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)	 log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)	 log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)	 log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Log an error line, append ": " and the text of the negative errno @r, and return @r. */
int log_errno(int r, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
