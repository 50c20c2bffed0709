/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_NAMES_H
#define ATTACHFS_NAMES_H

/*
 * Server names <-> names in the mount. Pure functions of their arguments; any thread; fuzzed.
 *
 * A server's name is any string; a mount's name has 1..255 bytes, no '/', no NUL, is not "." or
 * "..". The shown name is the server's, with only what cannot or must not stand percent-encoded
 * (upper-case hex): '/', control bytes (0x00-0x1f, 0x7f), the whole of "." and "..", bytes that are
 * not valid UTF-8, blanks at either end that servers trim (space, NBSP, ZWSP, BOM and the other
 * Unicode spaces, P-15), and a '%' that would otherwise be read as the start of one of these
 * escapes. Everything else is shown as it is: "100%.txt" stays "100%.txt", and so does "a%20b",
 * since no encoding has that blank escaped: a name is decoded as a whole, if it is a whole
 * encoding.
 *
 *   names_decode(names_encode(x)) == x     for every x whose encoding has at most 255 bytes.
 *
 * A longer encoding is shortened in front of the extension, at a UTF-8 and escape boundary, and
 * carries the id: "long lo~77.txt"; the caller keeps the full server name (the ledger's known half)
 * and never decodes such a name.
 */

#include <stdbool.h>
#include <stddef.h>

#define NAMES_MAX 255

/*
 * Encode @len bytes at @server into @shown (at least NAMES_MAX + 1 bytes). @id is used only when
 * shortening and must be <= 64 bytes of [0-9A-Za-z-]. An empty server name shows as "%00"-free
 * "unnamed~<id>". Returns the length. *@ret_exact (may be NULL) tells whether decoding gives the
 * server's name back.
 */
size_t names_encode(const char *server, size_t len, const char *id, char *shown, bool *ret_exact);

/*
 * The reverse: what to send to a server for the name a user typed. Writes at most @size bytes
 * including a terminator (the result may contain NUL bytes when the user typed "%00": *@ret_len
 * counts). 0; -ENAMETOOLONG when it does not fit. Escapes names_encode() would not have produced
 * are ordinary characters.
 */
int names_decode(const char *shown, char *server, size_t size, size_t *ret_len);

/*
 * What to send to a server for a user's name, so that any user's name survives: the decoding where
 * that is a name names_encode() maps back to @shown; otherwise @shown itself with only those bytes
 * percent-encoded that no server keeps (invalid UTF-8, control bytes, trimmed blanks at the ends).
 * The result is valid UTF-8 without NUL... unless decoding was canonical. Always fits 3 * NAMES_MAX
 * + 1 bytes; of a longer @shown only NAMES_MAX bytes are taken.
 */
size_t names_to_server(const char *shown, char server[static 3 * NAMES_MAX + 1]);

/*
 * PERSCOM's two names (P-31): the label @name, with the extension of @filename appended when @name
 * does not end in it (compared without case). An extension is the last '.' and 1..16 bytes of
 * [0-9A-Za-z_-] after it, not at the start. @filename may be NULL or empty; an empty @name gives
 * way to it. With @filename_policy the file's name is taken and the label ignored (option
 * names=filename). Returns a malloc()ed string, NULL without memory.
 */
char *names_label(const char *name, const char *filename, bool filename_policy);

/*
 * The variant of @shown for a second holder of the same name: " (id)" before the extension,
 * shortened to fit NAMES_MAX. @out has NAMES_MAX + 1 bytes and is not @shown. Returns the length.
 */
size_t names_disambiguate(const char *shown, const char *id, char *out);

/*
 * "notes (conflict <host> 2026-03-01 08.15.30).txt": @when in seconds since the epoch, shown in
 * UTC. Fits NAMES_MAX.
 */
size_t names_conflict(const char *shown, const char *host, long long when, char *out);

/*
 * Whether @shown matches one of the ':'-separated globs of option local_names= (fnmatch without
 * FNM_PATHNAME; no ':' in a glob).
 */
bool names_is_local(const char *globs, const char *shown);

/*
 * Where the extension ('.' included) of @shown begins, or its length when there is none. Same rule
 * as names_label().
 */
size_t names_extension(const char *shown);

#endif
