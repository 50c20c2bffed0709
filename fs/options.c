/* SPDX-License-Identifier: MIT */

/*
 * Everything follows from the table of rows below: parsing, defaults, ranges, the config file,
 * --help, the man page and options_describe(). A new option is one row and one field.
 *
 * Mount options of fstab come along in the same list as ours. Those the kernel or libfuse acts on
 * are passed on, those meant for mount(8) or systemd are dropped; what is neither is a spelling
 * mistake and refused, since an option that is silently ignored ("cach_size=1G") is found out when
 * the disk is full.
 */

#include <attachfs/options.h>

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define SYSTEM_CONFIG "/etc/attachfs/config"
#define CHOICE_PREFIX "choice "
#define HOST_MAX      255

/*
 * Names that stay on this machine until they are renamed to another. Only what programs make for
 * themselves is listed: a file its user means to keep must never match, for it would silently not
 * be saved. Hence neither backups (notes.txt~) nor *.tmp, not every *.lock (Cargo.lock) and not
 * every *-journal (travel-journal). What such a program makes and removes within the settle time is
 * not sent anyway, and git's and SQLite's work on a name outside this list is merely slower.
 */

/* vim: swap files, and the file with which it tries out whether it may write here. */
#define LOCAL_VIM ".*.sw?:4913"
/* Emacs: locks and auto-saves. Kate: swap files. */
#define LOCAL_EDITORS ".#*:#*#:.*.kate-swp"
/* LibreOffice and Microsoft Office: who has the document open. */
#define LOCAL_OFFICE ".~lock.*#:~$*"
/* Firefox and Chrome: downloads, renamed when they are complete. */
#define LOCAL_DOWNLOADS "*.part:*.crdownload:.com.google.Chrome.*"
/* GLib saves through this, then renames. */
#define LOCAL_GLIB ".goutputstream-*"
/* Files removed while open, as NFS and libfuse keep them. */
#define LOCAL_REMOVED ".nfs*:.fuse_hidden*"
/* What macOS leaves in every directory it has looked at. */
#define LOCAL_MACOS ".DS_Store:._*"
/* SQLite: companions of a database, of no use without the process that has it open. */
#define LOCAL_SQLITE "*.*-journal:*-wal:*-shm"
/* git: its locks by name, and objects being written. */
#define LOCAL_GIT                                                                                  \
	"index.lock:HEAD.lock:config.lock:packed-refs.lock:shallow.lock:tmp_obj_*:tmp_pack_*"

#define LOCAL_NAMES                                                                                \
	LOCAL_VIM ":" LOCAL_EDITORS ":" LOCAL_OFFICE ":" LOCAL_DOWNLOADS ":" LOCAL_GLIB            \
		  ":" LOCAL_REMOVED ":" LOCAL_MACOS ":" LOCAL_SQLITE ":" LOCAL_GIT

enum kind {
	KIND_STRING,
	KIND_PATH,    /* made absolute by options_finish() */
	KIND_SECRET,  /* a string that is never shown */
	KIND_SIZE,    /* uint64_t, bytes */
	KIND_SECONDS, /* double */
	KIND_NUMBER,  /* unsigned */
	KIND_ID,      /* int64_t */
	KIND_OCTAL,   /* int */
	KIND_CHOICE,  /* an enum, in the order of the kind's text */
	KIND_FLAG,    /* bool, set */
	KIND_UNFLAG,  /* bool, cleared: the opposite of a flag */
	KIND_PASS,    /* a generic mount option for libfuse */
	KIND_IGNORED, /* a generic mount option for somebody else */
};

struct row {
	const char *name; /* a '*' at its end stands for anything */
	enum kind kind;
	const char *text;     /* the kind in words */
	size_t offset;	      /* of the field in struct options */
	const char *argument; /* what stands behind the '=' in the help; NULL = takes no value */
	const char *standard; /* default, as a user would write it; NULL = none */
	bool computed;	      /* the default is only described here, options_finish() fills it in */
	bool bare;	      /* without a value it is a generic mount option to ignore */
	double min, max;
	const char *help;
};

#define FIELD(f) .offset = offsetof(struct options, f)
#define STRING(n, f, arg, h)                                                                       \
	{                                                                                          \
		.name = n, .kind = KIND_STRING, .text = "string", FIELD(f), .argument = arg,       \
		.help = h                                                                          \
	}
#define PATH(n, f, h)                                                                              \
	{                                                                                          \
		.name = n, .kind = KIND_PATH, .text = "path", FIELD(f), .argument = "FILE",        \
		.help = h                                                                          \
	}
#define SECRET(n, f, arg, h)                                                                       \
	{                                                                                          \
		.name = n, .kind = KIND_SECRET, .text = "secret", FIELD(f), .argument = arg,       \
		.help = h                                                                          \
	}
#define SIZE(n, f, d, lo, hi, h)                                                                   \
	{                                                                                          \
		.name = n, .kind = KIND_SIZE, .text = "size", FIELD(f), .argument = "SIZE",        \
		.standard = d, .min = lo, .max = hi, .help = h                                     \
	}
#define SECONDS(n, f, d, lo, h)                                                                    \
	{                                                                                          \
		.name = n, .kind = KIND_SECONDS, .text = "seconds", FIELD(f),                      \
		.argument = "SECONDS", .standard = d, .min = lo, .max = 7 * 86400, .help = h       \
	}
#define CHOICE(n, f, choices, d, h)                                                                \
	{                                                                                          \
		.name = n, .kind = KIND_CHOICE, .text = CHOICE_PREFIX choices, FIELD(f),           \
		.argument = choices, .standard = d, .help = h                                      \
	}
#define ID(n, f, h)                                                                                \
	{                                                                                          \
		.name = n, .kind = KIND_ID, .text = "number", FIELD(f), .argument = "N",           \
		.max = 4294967294, .help = h                                                       \
	}
#define FLAG(n, f, h)                                                                              \
	{                                                                                          \
		.name = n, .kind = KIND_FLAG, .text = "flag", FIELD(f), .help = h                  \
	}
#define UNFLAG(n, f, h)                                                                            \
	{                                                                                          \
		.name = n, .kind = KIND_UNFLAG, .text = "flag", FIELD(f), .help = h                \
	}
#define PASS(n, arg)                                                                               \
	{                                                                                          \
		.name = n, .kind = KIND_PASS, .text = "mount", .argument = arg,                    \
		.help = "passed on, see mount(8)"                                                  \
	}
#define IGNORED(n)                                                                                 \
	{                                                                                          \
		.name = n, .kind = KIND_IGNORED, .text = "ignored",                                \
		.help = "accepted and ignored, see mount(8)"                                       \
	}

#define MEBI 1048576.0
#define EXBI (MEBI * MEBI * MEBI)

static const struct row rows[] = {
	PATH("token_file", token_file, "file that holds the access token; nobody else may read it"),
	SECRET("token_command", token_command, "COMMAND", "command that prints the access token"),
	{.name = "user",
	 .kind = KIND_STRING,
	 .text = "string",
	 FIELD(user),
	 .argument = "NAME",
	 .bare = true,
	 .help = "user to log in as"},
	PATH("password_file", password_file,
	     "file that holds the password; nobody else may read it"),
	STRING("client_id", client_id, "ID", "OAuth client to log in as"),
	STRING("tenant", tenant, "ID",
	       "PERSCOM: the dashboard the token belongs to (X-Perscom-Id)"),
	STRING("collections", collections, "A:B",
	       "what the top directories are (default: per system)"),
	STRING("client", client, "ID", "Rillsoft: the client"),

	{.name = "cache_dir",
	 .kind = KIND_PATH,
	 .text = "path",
	 FIELD(cache_dir),
	 .argument = "DIR",
	 .standard = "$XDG_CACHE_HOME/attachfs",
	 .computed = true,
	 .help = "where contents and the ledger are kept"},
	SIZE("cache_size", cache_size_bytes, "10G", MEBI / 4, EXBI,
	     "most bytes the cache may hold"),
	SIZE("cache_free", cache_free_bytes, "1G", 0, EXBI,
	     "bytes the cache leaves free on its disk"),

	CHOICE("write", write, "back|through", "back",
	       "close() returns when the bytes are safe here, or when the server has them"),
	CHOICE("fsync", fsync, "local|remote", "local", "what fsync() waits for"),
	SECONDS("settle", settle_s, "2", 0, "how long a closed file must rest before it is sent"),
	SECONDS("timeout", timeout_s, "30", 0.1, "longest wait for a server before a call fails"),
	SECONDS("poll", poll_s, "60", 0, "how often to ask for changes; 0 = never"),
	{.name = "slots",
	 .kind = KIND_NUMBER,
	 .text = "number",
	 FIELD(slots),
	 .argument = "N",
	 .standard = "16",
	 .min = 1,
	 .max = 256,
	 .help = "connections per host"},

	CHOICE("names", names, "label|filename", "label",
	       "PERSCOM: which of its two names is shown"),
	{.name = "local_names",
	 .kind = KIND_STRING,
	 .text = "string",
	 FIELD(local_names),
	 .argument = "GLOB:GLOB",
	 .standard = LOCAL_NAMES,
	 .help = "names that stay on this machine until renamed"},

	PATH("cacert", cacert, "certificates to trust instead of the system's"),
	FLAG("insecure_http", insecure_http, "allow http:// to other hosts than this one"),
	SECRET("proxy", proxy, "URL", "proxy for all connections"),

	CHOICE("log", log, "error|warning|info|debug", "info", "how much is logged"),
	PATH("log_file", log_file, "log there instead of to standard error"),
	FLAG("foreground", foreground, "stay in the foreground, as -f"),

	STRING("template_download", template_download, "TEMPLATE", "path of a download"),
	STRING("template_delete", template_delete, "TEMPLATE", "path of a deletion"),
	STRING("template_folders", template_folders, "TEMPLATE", "path of the list of folders"),
	STRING("template_attachment", template_attachment, "TEMPLATE", "path of an attachment"),

	FLAG("ro", read_only, "mount read-only"),
	UNFLAG("rw", read_only, "mount writable (default)"),
	FLAG("allow_other", allow_other, "let other users in, too"),
	FLAG("noexec", noexec, "no program may be run from here"),
	UNFLAG("exec", noexec, "programs may be run from here (default)"),
	ID("uid", uid, "owner of all files (default: who mounts)"),
	ID("gid", gid, "group of all files (default: that of who mounts)"),
	{.name = "umask",
	 .kind = KIND_OCTAL,
	 .text = "octal",
	 FIELD(umask),
	 .argument = "MODE",
	 .max = 0777,
	 .help = "permissions to take from all files"},

	PASS("nosuid", NULL),
	PASS("suid", NULL),
	PASS("nodev", NULL),
	PASS("dev", NULL),
	PASS("noatime", NULL),
	PASS("atime", NULL),
	PASS("sync", NULL),
	PASS("async", NULL),
	PASS("dirsync", NULL),
	PASS("allow_root", NULL),
	PASS("auto_unmount", NULL),
	PASS("default_permissions", NULL),
	PASS("fsname", "NAME"),
	PASS("subtype", "NAME"),
	PASS("max_read", "BYTES"),
	PASS("context", "CONTEXT"),
	PASS("fscontext", "CONTEXT"),
	PASS("defcontext", "CONTEXT"),
	PASS("rootcontext", "CONTEXT"),

	/* Access times: libfuse 3.14 refuses these, and there is none to keep. */
	IGNORED("relatime"),
	IGNORED("norelatime"),
	IGNORED("strictatime"),
	IGNORED("nostrictatime"),
	IGNORED("diratime"),
	IGNORED("nodiratime"),
	IGNORED("lazytime"),
	IGNORED("nolazytime"),
	IGNORED("iversion"),
	IGNORED("noiversion"),
	IGNORED("mand"),
	IGNORED("nomand"),
	IGNORED("silent"),
	IGNORED("loud"),
	IGNORED("defaults"),
	IGNORED("auto"),
	IGNORED("noauto"),
	IGNORED("nouser"),
	IGNORED("users"),
	IGNORED("owner"),
	IGNORED("group"),
	IGNORED("_netdev"),
	IGNORED("nofail"),
	IGNORED("comment"),
	IGNORED("x-*"),
	IGNORED("X-*"),
};

#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static const struct {
	const char *name;
	enum options_system system;
} systems[] = {
	{"perscom", OPTIONS_SYSTEM_PERSCOM},
	{"rillsoft", OPTIONS_SYSTEM_RILLSOFT},
	{"enterprise-tester", OPTIONS_SYSTEM_ENTERPRISE_TESTER},
	{"servicemax", OPTIONS_SYSTEM_SERVICEMAX},
};

#define SYSTEM_NAMES "perscom, rillsoft, enterprise-tester, servicemax"

/* The caller's buffer for what went wrong. */
struct complaint {
	char *text;
	size_t size;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct complaint *c,
							const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (c->size > 0)
		vsnprintf(c->text, c->size, format, ap);
	va_end(ap);
	return -EINVAL;
}

static int refuse_memory(const struct complaint *c)
{
	refuse(c, "out of memory");
	return -ENOMEM;
}

/* Rows and fields */

static bool is_string(const struct row *row)
{
	return row->kind == KIND_STRING || row->kind == KIND_PATH || row->kind == KIND_SECRET;
}

static bool is_generic(const struct row *row)
{
	return row->kind == KIND_PASS || row->kind == KIND_IGNORED;
}

static void *field_of(struct options *o, const struct row *row)
{
	return (char *)o + row->offset;
}

static const struct row *find_row(const char *name)
{
	for (size_t i = 0; i < N_ROWS; i++) {
		size_t n = strlen(rows[i].name);

		if (rows[i].name[n - 1] == '*' ? strncmp(name, rows[i].name, n - 1) == 0
					       : strcmp(name, rows[i].name) == 0)
			return &rows[i];
	}
	return NULL;
}

/* Spelling */

#define SHORT_MIN    3 /* letters that may stand for a longer name */
#define SPELLING_MAX 32

static unsigned least(unsigned a, unsigned b, unsigned c)
{
	a = a < b ? a : b;
	return a < c ? a : c;
}

/* Letters to insert, remove or change to make @b of @a (Levenshtein). */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[SPELLING_MAX + 1], n = (unsigned)strlen(b);

	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 0; a[i]; i++) {
		unsigned diagonal = row[0];

		row[0] = i + 1;
		for (unsigned j = 1; j <= n; j++) {
			unsigned above = row[j];

			row[j] = least(above + 1, row[j - 1] + 1, diagonal + (a[i] != b[j - 1]));
			diagonal = above;
		}
	}
	return row[n];
}

/* The option @name was probably meant to be, NULL when none is near. */
static const char *suggest(const char *name)
{
	unsigned limit = 1 + (unsigned)strlen(name) / 4;
	const char *best = NULL;

	if (strlen(name) > SPELLING_MAX)
		return NULL;
	for (size_t i = 0; i < N_ROWS; i++) {
		unsigned d = distance(name, rows[i].name);

		if (d <= limit && !strchr(rows[i].name, '*')) {
			best = rows[i].name;
			limit = d - 1;
		}
		if (limit == 0)
			break;
	}
	/* "token" is short for "token_file" */
	for (size_t i = 0; !best && strlen(name) >= SHORT_MIN && i < N_ROWS; i++)
		if (!strncmp(rows[i].name, name, strlen(name)) && rows[i].name[strlen(name)] == '_')
			best = rows[i].name;
	return best;
}

static int refuse_unknown(const struct complaint *c, const char *name)
{
	const char *near = suggest(name);

	if (near)
		return refuse(c, "unknown option '%.64s' (did you mean '%s'?)", name, near);
	return refuse(c, "unknown option '%.64s'", name);
}

/* Values */

/*
 * Digits only: the C library's own parsers also take signs, blanks, "0x", "inf" and the locale's
 * comma.
 */
static bool parse_integer(const char *text, unsigned base, uint64_t *ret_value,
			  const char **ret_end)
{
	uint64_t value = 0;

	if (*text < '0' || *text >= (int)('0' + base))
		return false;
	for (; *text >= '0' && *text < (int)('0' + base); text++)
		if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return false;
	*ret_value = value;
	*ret_end = text;
	return true;
}

static bool parse_whole(const char *text, unsigned base, uint64_t *ret_value)
{
	const char *end;

	return parse_integer(text, base, ret_value, &end) && *end == '\0';
}

/* "4096", "512K", "10G", "10g", "10GiB": powers of 1024 all. */
static bool parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGTPE";
	const char *end, *unit;
	uint64_t value;

	if (!parse_integer(text, 10, &value, &end))
		return false;
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		unsigned shift = 10 * (unsigned)(unit - units + 1);

		if (value > UINT64_MAX >> shift)
			return false;
		value <<= shift;
		end++;
		if (strcasecmp(end, "iB") == 0)
			end += 2;
	}
	if (strcasecmp(end, "B") == 0)
		end++;
	if (*end)
		return false;
	*ret_bytes = value;
	return true;
}

/* "2", "0.5", ".25": nanoseconds are more than anybody can mean. */
static bool parse_seconds(const char *text, double *ret_seconds)
{
	double value = 0, scale = 1;
	bool digits = false, point = false;

	if (strlen(text) > 20)
		return false;
	for (; *text; text++) {
		if (*text == '.' && !point) {
			point = true;
		} else if (*text >= '0' && *text <= '9') {
			value = value * 10 + (*text - '0');
			scale *= point ? 10 : 1;
			digits = true;
		} else {
			return false;
		}
	}
	*ret_seconds = value / scale;
	return digits;
}

/* The place of @value among "a|b|c". */
static bool parse_choice(const char *choices, const char *value, unsigned *ret_index)
{
	size_t n_value = strlen(value);

	for (unsigned i = 0;; i++) {
		size_t n = strcspn(choices, "|");

		if (n == n_value && memcmp(choices, value, n) == 0) {
			*ret_index = i;
			return true;
		}
		if (!choices[n])
			return false;
		choices += n + 1;
	}
}

static const char *format_size(double bytes, char *text, size_t size)
{
	static const char units[] = "\0KMGTPE";
	unsigned i = 0;

	while (bytes >= 1024 && units[i + 1]) {
		bytes /= 1024;
		i++;
	}
	snprintf(text, size, "%.4g%.1s", bytes, units + i);
	return text;
}

static int refuse_value(const struct complaint *c, const struct row *row, const char *value)
{
	char low[32], high[32];

	switch (row->kind) {
	case KIND_SIZE:
		return refuse(
			c,
			"%s: '%.64s' is not a size between %s and %s (bytes, or with K, M, G, T)",
			row->name, value, format_size(row->min, low, sizeof(low)),
			format_size(row->max, high, sizeof(high)));
	case KIND_CHOICE:
		return refuse(c, "%s: '%.64s' is none of %s", row->name, value, row->argument);
	case KIND_SECONDS:
		return refuse(c, "%s: '%.64s' is not a time in seconds between %g and %g",
			      row->name, value, row->min, row->max);
	case KIND_OCTAL:
		return refuse(c, "%s: '%.64s' is not an octal number between 0 and %o", row->name,
			      value, (unsigned)row->max);
	default:
		return refuse(c, "%s: '%.64s' is not a number between %.0f and %.0f", row->name,
			      value, row->min, row->max);
	}
}

/* Read @value as the row's kind of number into its field. False when it is none or out of range. */
static bool set_number(const struct row *row, const char *value, void *field)
{
	double seconds = 0;
	uint64_t n = 0;
	bool ok;

	if (row->kind == KIND_SECONDS)
		ok = parse_seconds(value, &seconds);
	else if (row->kind == KIND_SIZE)
		ok = parse_size(value, &n);
	else
		ok = parse_whole(value, row->kind == KIND_OCTAL ? 8 : 10, &n);
	if (row->kind != KIND_SECONDS)
		seconds = (double)n;
	if (!ok || seconds < row->min || seconds > row->max)
		return false;
	if (row->kind == KIND_SECONDS)
		*(double *)field = seconds;
	else if (row->kind == KIND_SIZE)
		*(uint64_t *)field = n;
	else if (row->kind == KIND_NUMBER)
		*(unsigned *)field = (unsigned)n;
	else if (row->kind == KIND_ID)
		*(int64_t *)field = (int64_t)n;
	else
		*(int *)field = (int)n;
	return true;
}

_Static_assert(sizeof(enum options_write) == sizeof(unsigned) &&
		       sizeof(enum log_level) == sizeof(unsigned),
	       "set_choice() writes every enum as an unsigned");

static bool set_choice(const struct row *row, const char *value, void *field)
{
	unsigned index;

	if (!parse_choice(row->argument, value, &index))
		return false;
	memcpy(field, &index, sizeof(index));
	return true;
}

/* An empty value is how the command line takes back what the config file has set. */
static int set_string(char **field, const char *value, const struct complaint *c)
{
	char *copy = NULL;

	if (*value) {
		copy = strdup(value);
		if (!copy)
			return refuse_memory(c);
	}
	free(*field);
	*field = copy;
	return 0;
}

/* Append "name" or "name=value" to the list for libfuse, which splits it at commas again. */
static int pass_on(struct options *o, const char *name, const char *value,
		   const struct complaint *c)
{
	size_t n = (o->fuse_options ? strlen(o->fuse_options) : 0), room;
	char *list, *p;

	room = n + 1 + strlen(name) + 1 + (value ? 2 * strlen(value) : 0) + 1;
	list = realloc(o->fuse_options, room);
	if (!list)
		return refuse_memory(c);
	o->fuse_options = list;
	p = list + n;
	p += sprintf(p, "%s%s%s", n > 0 ? "," : "", name, value ? "=" : "");
	for (; value && *value; value++) {
		if (*value == ',' || *value == '\\')
			*p++ = '\\';
		*p++ = *value;
	}
	*p = '\0';
	return 0;
}

static int set_value(struct options *o, const struct row *row, const char *value,
		     const struct complaint *c)
{
	bool ok = true;

	switch (row->kind) {
	case KIND_STRING:
	case KIND_PATH:
	case KIND_SECRET:
		return set_string(field_of(o, row), value, c);
	case KIND_CHOICE:
		ok = set_choice(row, value, field_of(o, row));
		break;
	case KIND_FLAG:
	case KIND_UNFLAG:
		*(bool *)field_of(o, row) = row->kind == KIND_FLAG;
		break;
	case KIND_PASS:
		return pass_on(o, row->name, value, c);
	case KIND_IGNORED:
		break;
	default:
		ok = set_number(row, value, field_of(o, row));
	}
	return ok ? 0 : refuse_value(c, row, value);
}

/* @value is NULL when there was no '='. */
static int set_option(struct options *o, const char *name, const char *value,
		      const struct complaint *c)
{
	const struct row *row = find_row(name);

	if (!row)
		return refuse_unknown(c, name);
	if (row->kind == KIND_IGNORED || (row->bare && !value))
		return 0;
	if (row->argument && !value)
		return refuse(c, "option '%s' needs a value: %s=%s", row->name, row->name,
			      row->argument);
	if (!row->argument && value)
		return refuse(c, "option '%s' takes no value", row->name);
	return set_value(o, row, value, c);
}

int options_init(struct options *o)
{
	struct complaint none = {NULL, 0};
	int r;

	memset(o, 0, sizeof(*o));
	o->uid = o->gid = -1;
	o->umask = -1;
	for (size_t i = 0; i < N_ROWS; i++) {
		if (!rows[i].standard || rows[i].computed)
			continue;
		r = set_value(o, &rows[i], rows[i].standard, &none);
		if (r < 0) {
			options_clear(o);
			return r;
		}
	}
	return 0;
}

void options_clear(struct options *o)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (is_string(&rows[i]))
			free(*(char **)field_of(o, &rows[i]));
	free(o->source);
	free(o->base_url);
	free(o->mountpoint);
	free(o->fuse_options);
	memset(o, 0, sizeof(*o));
}

/* Set what stands at @pair, which is taken apart in place. */
static int set_pair(struct options *o, char *pair, const struct complaint *c)
{
	char *value = strchr(pair, '=');

	if (value)
		*value++ = '\0';
	return set_option(o, pair, value, c);
}

int options_set(struct options *o, const char *pair, char *message, size_t size)
{
	struct complaint c = {message, size};
	char *copy = strdup(pair);
	int r;

	if (!copy)
		return refuse_memory(&c);
	r = set_pair(o, copy, &c);
	free(copy);
	return r;
}

/* Move the next pair of *@at to @out without its escapes. False when none is left. */
static bool next_pair(const char **at, char *out)
{
	const char *p = *at;

	while (*p == ',')
		p++;
	if (!*p)
		return false;
	for (; *p && *p != ','; p++) {
		if (*p == '\\' && (p[1] == ',' || p[1] == '\\'))
			p++;
		*out++ = *p;
	}
	*out = '\0';
	*at = p;
	return true;
}

int options_set_list(struct options *o, const char *list, char *message, size_t size)
{
	struct complaint c = {message, size};
	char *pair = malloc(strlen(list) + 1);
	int r = 0;

	if (!pair)
		return refuse_memory(&c);
	while (r == 0 && next_pair(&list, pair))
		r = set_pair(o, pair, &c);
	free(pair);
	return r;
}

/* The source */

/*
 * Copy the host of the checked or unchecked @url to @host. False for anything but a plain name, an
 * address, or an IPv6 address in brackets: what one parser of URLs takes for the host and another
 * does not decides where a token is sent.
 */
static bool url_host(const char *url, char host[static HOST_MAX + 1])
{
	const char *start = strstr(url, "://"), *end;
	size_t n;

	if (!start)
		return false;
	start += 3;
	end = start + strcspn(start, "/");
	if (*start == '[') {
		n = strspn(start + 1, "0123456789abcdefABCDEF:.");
		if (start[1 + n] != ']')
			return false;
		n += 2;
	} else {
		n = strspn(start,
			   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
	}
	if (n == 0 || n > HOST_MAX)
		return false;
	memcpy(host, start, n);
	host[n] = '\0';
	start += n;
	if (start < end && *start == ':') {
		uint64_t port;

		if (!parse_integer(start + 1, 10, &port, &start) || port == 0 || port > 65535)
			return false;
	}
	return start == end;
}

static bool is_loopback(const char *host)
{
	struct in6_addr six;
	struct in_addr four;
	char bare[HOST_MAX + 1];

	if (strcasecmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &four) == 1)
		return ntohl(four.s_addr) >> 24 == 127;
	if (host[0] != '[')
		return false;
	snprintf(bare, sizeof(bare), "%.*s", (int)strlen(host) - 2, host + 1);
	return inet_pton(AF_INET6, bare, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

static bool is_http(const char *url)
{
	return strncasecmp(url, "http://", 7) == 0;
}

/* No message quotes the URL: what is wrong with it may be that it holds a password. */
static int check_url(const char *url, const struct complaint *c)
{
	char host[HOST_MAX + 1];

	if (!is_http(url) && strncasecmp(url, "https://", 8) != 0)
		return refuse(c, "the address must begin with https:// (or http://)");
	for (const char *p = url; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f || *p == '\\' || *p == '"' ||
		    *p == '<' || *p == '>')
			return refuse(c, "the address holds a character that no URL may hold");
	if (strpbrk(url, "?#"))
		return refuse(c, "the address must have neither a query (?) nor a fragment (#)");
	if (memchr(strstr(url, "://") + 3, '@', strcspn(strstr(url, "://") + 3, "/")))
		return refuse(c, "no user or password in the address: put credentials in a file "
				 "(token_file=, or user= and password_file=)");
	if (!url_host(url, host))
		return refuse(c, "the address has no valid host or port");
	return 0;
}

static int take_url(struct options *o, const char *source, enum options_system system,
		    const char *url, const struct complaint *c)
{
	size_t n = strlen(url);
	char *base;
	int r;

	r = check_url(url, c);
	if (r < 0)
		return r;
	while (url[n - 1] == '/')
		n--;
	base = strndup(url, n);
	if (!base)
		return refuse_memory(c);
	r = set_string(&o->source, source, c);
	if (r < 0) {
		free(base);
		return r;
	}
	free(o->base_url);
	o->base_url = base;
	o->system = system;
	return 0;
}

/* Take a "system:url". */
static int take_source(struct options *o, const char *source, const struct complaint *c)
{
	size_t n = strcspn(source, ":");

	for (size_t i = 0; i < sizeof(systems) / sizeof(systems[0]); i++)
		if (strlen(systems[i].name) == n && memcmp(systems[i].name, source, n) == 0 &&
		    source[n])
			return take_url(o, source, systems[i].system, source + n + 1, c);
	if (strncasecmp(source, "http", 4) == 0)
		return refuse(c, "SOURCE must say which system the address belongs to, as in "
				 "perscom:https://...; "
				 "there are " SYSTEM_NAMES);
	return refuse(c, "unknown system '%.*s'; there are " SYSTEM_NAMES, (int)(n < 64 ? n : 64),
		      source);
}

/* The config file */

struct config {
	struct options *o;
	const char *path;
	const char *section;
	FILE *file;
	int line;	/* the one read last */
	int wrong_line; /* the first whose key or value was refused; 0 = none */
	int error;
	bool found;
	char text[256]; /* why */
};

static int config_refuse(struct config *cfg, int r)
{
	cfg->error = r;
	cfg->wrong_line = cfg->line;
	return 0;
}

/*
 * "ro = yes": a config file has no bare words, so a flag has a value here, and may be switched off.
 */
static int set_flag_from_config(struct options *o, const struct row *row, const char *value,
				const struct complaint *c)
{
	static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false",
										    "off", "0"};

	for (size_t i = 0; i < 4; i++) {
		if (strcasecmp(value, yes[i]) == 0)
			return set_value(o, row, NULL, c);
		if (strcasecmp(value, no[i]) != 0)
			continue;
		if (row->kind == KIND_FLAG || row->kind == KIND_UNFLAG)
			*(bool *)field_of(o, row) = row->kind == KIND_UNFLAG;
		return 0;
	}
	return refuse(c, "%s: '%.64s' is neither yes nor no", row->name, value);
}

/*
 * inih calls this for every "name = value"; 0 = wrong. After the first wrong one nothing is taken
 * any more.
 */
static int config_entry(void *arg, const char *section, const char *name, const char *value)
{
	struct config *cfg = arg;
	struct complaint c = {cfg->text, sizeof(cfg->text)};
	const struct row *row = find_row(name);
	int r;

	if (cfg->error)
		return 1;
	if (!*section) {
		refuse(&c, "'%.64s' stands before the first [section]", name);
		return config_refuse(cfg, -EINVAL);
	}
	if (strcmp(section, cfg->section) != 0)
		return 1;
	cfg->found = true;
	if (strcmp(name, "source") == 0)
		r = take_source(cfg->o, value, &c);
	else if (row && !row->argument && row->kind != KIND_IGNORED)
		r = set_flag_from_config(cfg->o, row, value, &c);
	else
		r = set_option(cfg->o, name, value, &c);
	return r < 0 ? config_refuse(cfg, r) : 1;
}

/*
 * fgets() for inih, which (as distributions build it) does not tell its handler the line. A line
 * longer than inih's buffer would be read as two, and an indented one as the continuation of the
 * value before it: the first is refused, the indentation removed.
 */
static char *config_read(char *line, int size, void *stream)
{
	struct config *cfg = stream;
	size_t n, blanks;

	if (cfg->error || !fgets(line, size, cfg->file))
		return NULL;
	cfg->line++;
	n = strlen(line);
	if (n + 1 == (size_t)size && line[n - 1] != '\n') {
		snprintf(cfg->text, sizeof(cfg->text),
			 "the line is too long (at most %d characters)", size - 2);
		config_refuse(cfg, -EINVAL);
		return NULL;
	}
	blanks = strspn(line, " \t");
	memmove(line, line + blanks, n - blanks + 1);
	return line;
}

static int config_parse(struct config *cfg, const struct complaint *c)
{
	int wrong = ini_parse_stream(config_read, cfg, config_entry, cfg);

	if (wrong == -2 || cfg->error == -ENOMEM)
		return refuse_memory(c);
	/* The first wrong line is told, whoever of the two found it. */
	if (wrong > 0 && (!cfg->error || wrong < cfg->wrong_line))
		return refuse(c, "%s:%d: neither a [section] nor 'name = value'", cfg->path, wrong);
	if (cfg->error)
		return refuse(c, "%s:%d: %s", cfg->path, cfg->wrong_line, cfg->text);
	if (ferror(cfg->file))
		return refuse(c, "%s: cannot be read", cfg->path);
	return cfg->found ? 0 : -ENOENT;
}

int options_read_config(struct options *o, const char *path, const char *name, char *message,
			size_t size)
{
	struct config cfg = {.o = o, .path = path, .section = name};
	struct complaint c = {message, size};
	char reason[128];
	int r;

	cfg.file = fopen(path, "re");
	if (!cfg.file && (errno == ENOENT || errno == ENOTDIR))
		return -ENOENT;
	if (!cfg.file)
		return refuse(&c, "%s: %s", path, strerror_r(errno, reason, sizeof(reason)));
	r = config_parse(&cfg, &c);
	fclose(cfg.file);
	return r;
}

/* The environment */

/* Where the user is at home; a mount from fstab has no HOME. NULL when nobody knows. malloc()ed. */
static char *home_directory(void)
{
	const char *home = getenv("HOME");
	struct passwd entry, *found = NULL;
	char buffer[4096];

	if (home && *home == '/')
		return strdup(home);
	if (getpwuid_r(geteuid(), &entry, buffer, sizeof(buffer), &found) != 0 || !found ||
	    *found->pw_dir != '/')
		return NULL;
	return strdup(found->pw_dir);
}

/*
 * $@variable/@rest, or ~/@fallback/@rest; XDG says a relative path in such a variable is to be
 * ignored. malloc()ed.
 */
static char *xdg_path(const char *variable, const char *fallback, const char *rest)
{
	const char *base = getenv(variable);
	char *home, *path = NULL;
	int n;

	if (base && *base == '/')
		return asprintf(&path, "%s/%s", base, rest) < 0 ? NULL : path;
	home = home_directory();
	if (!home)
		return NULL;
	n = asprintf(&path, "%s/%s/%s", home, fallback, rest);
	free(home);
	return n < 0 ? NULL : path;
}

/* Take the section @name of both config files, the user's over the system's. */
static int take_section(struct options *o, const char *name, const struct complaint *c)
{
	char *own = xdg_path("XDG_CONFIG_HOME", ".config", "attachfs/config");
	int r, r_own = -ENOENT;

	r = options_read_config(o, SYSTEM_CONFIG, name, c->text, c->size);
	if (own && (r == 0 || r == -ENOENT))
		r_own = options_read_config(o, own, name, c->text, c->size);
	if (r == -ENOENT)
		r = r_own;
	else if (r == 0 && r_own != -ENOENT)
		r = r_own;
	if (r == -ENOENT)
		r = refuse(c,
			   "no section [%.64s] in %s%s%s; or give a source as in "
			   "perscom:https://..., the systems are " SYSTEM_NAMES,
			   name, own ? own : "", own ? " or " : "", SYSTEM_CONFIG);
	else if (r == 0 && !o->base_url)
		r = refuse(c, "section [%.64s] has no 'source ='", name);
	free(own);
	return r;
}

int options_set_source(struct options *o, const char *source, char *message, size_t size)
{
	struct complaint c = {message, size};

	if (!*source)
		return refuse(&c, "SOURCE is empty; give one as in perscom:https://..., the "
				  "systems are " SYSTEM_NAMES);
	if (strpbrk(source, ":/"))
		return take_source(o, source, &c);
	return take_section(o, source, &c);
}

/* Finishing */

/*
 * Make *@path absolute: the daemon leaves the directory it was started in, and no shell has
 * expanded the '~' of "-o token_file=~/token".
 */
static int make_absolute(char **path, const struct complaint *c)
{
	bool at_home = strncmp(*path, "~/", 2) == 0;
	char *base, *absolute = NULL;
	int n;

	if (**path == '/')
		return 0;
	base = at_home ? home_directory() : getcwd(NULL, 0);
	if (!base)
		return refuse(c, "'%.128s': cannot tell which directory this is relative to",
			      *path);
	n = asprintf(&absolute, "%s/%s", base, *path + (at_home ? 2 : 0));
	free(base);
	if (n < 0)
		return refuse_memory(c);
	free(*path);
	*path = absolute;
	return 0;
}

static int finish_paths(struct options *o, const struct complaint *c)
{
	int r = 0;

	if (!o->cache_dir)
		o->cache_dir = xdg_path("XDG_CACHE_HOME", ".cache", "attachfs");
	if (!o->cache_dir)
		return refuse(c, "no place for the cache: neither XDG_CACHE_HOME nor HOME is set; "
				 "use -o cache_dir=DIR");
	for (size_t i = 0; i < N_ROWS && r == 0; i++) {
		char **field = field_of(o, &rows[i]);

		if (rows[i].kind == KIND_PATH && *field)
			r = make_absolute(field, c);
	}
	return r;
}

int options_finish(struct options *o, char *message, size_t size)
{
	struct complaint c = {message, size};
	char host[HOST_MAX + 1];

	if (!o->base_url)
		return refuse(&c, "no SOURCE given, as in perscom:https://...; the systems "
				  "are " SYSTEM_NAMES);
	if (is_http(o->base_url) && !o->insecure_http &&
	    !(url_host(o->base_url, host) && is_loopback(host)))
		return refuse(&c, "http:// would send credentials unencrypted: use https://, or -o "
				  "insecure_http if that "
				  "is what you want");
	if (o->token_file && o->token_command)
		return refuse(&c, "token_file and token_command exclude each other");
	return finish_paths(o, &c);
}

/* What a person reads */

static void print_default(FILE *f, const struct row *row, void (*put)(FILE *f, const char *text))
{
	if (!row->standard)
		return;
	put(f, " (default: ");
	put(f, row->kind == KIND_SECRET ? "<set>" : row->standard);
	put(f, ")");
}

static void put_plain(FILE *f, const char *text)
{
	fputs(text, f);
}

/* Every generic mount option on one paragraph: a line each would bury ours. */
static void print_generic(FILE *f)
{
	unsigned column = 80;

	fputs("Taken as by every mount, see mount(8):", f);
	for (size_t i = 0; i < N_ROWS; i++) {
		unsigned n = (unsigned)strlen(rows[i].name) + 2;

		if (!is_generic(&rows[i]))
			continue;
		if (column + n > 78) {
			fputs("\n   ", f);
			column = 3;
		}
		fprintf(f, " %s%s", rows[i].name, rows[i].argument ? "=" : "");
		column += n;
	}
	fputs("\n", f);
}

void options_print_help(FILE *f)
{
	fputs("Options (-o name=value,...):\n", f);
	for (size_t i = 0; i < N_ROWS; i++) {
		const struct row *row = &rows[i];
		char left[64];

		if (is_generic(row))
			continue;
		snprintf(left, sizeof(left), "%s%s%s", row->name, row->argument ? "=" : "",
			 row->argument ? row->argument : "");
		fprintf(f, "    %-30s %s", left, row->help);
		print_default(f, row, put_plain);
		fputs("\n", f);
	}
	print_generic(f);
}

/* What roff would take for a request, a dash it would break, or an escape. */
static void put_roff(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '\\')
			fputs("\\e", f);
		else if (*text == '-')
			fputs("\\-", f);
		else if (*text == '~')
			fputs("\\(ti", f);
		else if (*text == '.' || *text == '\'')
			fprintf(f, "\\&%c", *text);
		else
			fputc(*text, f);
	}
}

void options_print_man(FILE *f)
{
	for (size_t i = 0; i < N_ROWS; i++) {
		const struct row *row = &rows[i];

		fputs(".TP\n\\fB", f);
		put_roff(f, row->name);
		fputs("\\fR", f);
		if (row->argument) {
			fputs("=\\fI", f);
			put_roff(f, row->argument);
			fputs("\\fR", f);
		}
		fputs("\n", f);
		put_roff(f, row->help);
		print_default(f, row, put_roff);
		fputs("\n", f);
	}
}

bool options_describe(size_t index, const char **ret_name, const char **ret_kind,
		      const char **ret_default, const char **ret_help)
{
	if (index >= N_ROWS)
		return false;
	*ret_name = rows[index].name;
	*ret_kind = rows[index].text;
	*ret_default = rows[index].standard;
	*ret_help = rows[index].help;
	return true;
}
