/* SPDX-License-Identifier: MIT */

/*
 * One row is all there is to know about an option: its name, its kind and so its syntax, its field,
 * default, range and help. A new option is one row here and one field in struct options; -o, the
 * config file, --help, the man page and options_describe() follow.
 *
 * Mount options of fstab come along in the same list as ours. Those the kernel or libfuse acts on
 * are passed on, those meant for mount(8) or systemd are dropped; what is neither is a spelling
 * mistake and refused, since an option that is silently ignored ("cach_size=1G") is found out when
 * the disk is full. So a name that is no row is compared with all that are, to say which was meant.
 */

#include <string.h>

#include "options_private.h"

#define CHOICE_PREFIX "choice "

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
/*
 * LibreOffice and Microsoft Office: who has the document open, and what they write to before they
 * rename.
 */
#define LOCAL_OFFICE ".~lock.*#:~$*:lu[0-9]*.tmp:~WR[A-Z][0-9]*.tmp"
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
/* git: its locks by name, objects being written, and what it gives to a merge driver. */
#define LOCAL_GIT                                                                                  \
	"index.lock:HEAD.lock:config.lock:packed-refs.lock:shallow.lock:tmp_obj_*:tmp_pack_*"      \
	":.merge_file_*"

#define LOCAL_NAMES                                                                                \
	LOCAL_VIM ":" LOCAL_EDITORS ":" LOCAL_OFFICE ":" LOCAL_DOWNLOADS ":" LOCAL_GLIB            \
		  ":" LOCAL_REMOVED ":" LOCAL_MACOS ":" LOCAL_SQLITE ":" LOCAL_GIT

/*
 * Those that read all there is, of GNOME, KDE and others; as /proc/PID/comm has them. Not what makes
 * thumbnails: that reads what somebody looks at, and a little of each.
 */
#define INDEXERS "tracker-miner-f*:tracker-extract*:localsearch*:baloo_file*:updatedb*:recollindex*"

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

const struct row options_rows[] = {
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
	STRING("client", client, "ID", "Rillsoft: the client (tenant)"),
	STRING("attachments", attachments, "ID:ID",
	       "Rillsoft: attachments to show as attachments/ID, for writing"),
	STRING("project", project, "ID", "Rillsoft: the project those attachments belong to"),
	STRING("portfolio", portfolio, "ID", "Rillsoft: the portfolio those attachments belong to"),
	CHOICE("method_override", method_override, "header|field|both|none", "header",
	       "Rillsoft: how an update says that it is a PUT"),
	CHOICE("multipart", multipart, "mixed|form", "mixed",
	       "Enterprise Tester: the form of an upload"),

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
	SECONDS("poll_idle", poll_idle_s, "600", 0,
		"after so long without use, how often to ask for changes; 0 = as often as ever"),
	{.name = "slots",
	 .kind = KIND_NUMBER,
	 .text = "number",
	 FIELD(slots),
	 .argument = "N",
	 .standard = "16",
	 .min = 2, /* one is kept free for who is waiting */
	 .max = 256,
	 .help = "connections per host"},
	{.name = "bwlimit",
	 .kind = KIND_RATES,
	 .text = "rates",
	 FIELD(bwlimit),
	 .argument = "SIZE|UP:DOWN",
	 .min = 1024,
	 .max = MEBI * MEBI,
	 .help = "most bytes a second to send and to receive; 0 = no limit"},

	CHOICE("names", names, "label|filename", "label",
	       "PERSCOM: which of its two names is shown"),
	{.name = "local_names",
	 .kind = KIND_STRING,
	 .text = "string",
	 FIELD(local_names),
	 .argument = "GLOB:GLOB",
	 .standard = LOCAL_NAMES,
	 .help = "names that stay on this machine until renamed"},
	{.name = "indexers",
	 .kind = KIND_STRING,
	 .text = "string",
	 FIELD(indexers),
	 .argument = "GLOB:GLOB",
	 .standard = INDEXERS,
	 .help = "programs for whose reading nothing is downloaded"},

	PATH("cacert", cacert, "certificates to trust instead of the system's"),
	FLAG("insecure_http", insecure_http, "allow http:// to other hosts than this one"),
	SECRET("proxy", proxy, "URL", "proxy for all connections"),

	CHOICE("log", log, "error|warning|info|debug", "info", "how much is logged"),
	PATH("log_file", log_file, "log there instead of to standard error"),
	FLAG("foreground", foreground, "stay in the foreground, as -f"),

	STRING("template_documents", template_documents, "TEMPLATE",
	       "Rillsoft: path and query of the list of documents"),
	STRING("template_download", template_download, "TEMPLATE", "Rillsoft: path of a download"),
	STRING("template_delete", template_delete, "TEMPLATE", "Rillsoft: path of a deletion"),
	STRING("template_folders", template_folders, "TEMPLATE",
	       "Rillsoft: path of the list of folders"),
	STRING("template_attachment", template_attachment, "TEMPLATE",
	       "Rillsoft: path of an attachment of attachments="),

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

const size_t options_n_rows = sizeof(options_rows) / sizeof(options_rows[0]);

const struct row *options_find_row(const char *name)
{
	for (size_t i = 0; i < options_n_rows; i++) {
		size_t n = strlen(options_rows[i].name);

		if (options_rows[i].name[n - 1] == '*'
			    ? strncmp(name, options_rows[i].name, n - 1) == 0
			    : strcmp(name, options_rows[i].name) == 0)
			return &options_rows[i];
	}
	return NULL;
}

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

const char *options_suggest(const char *name)
{
	unsigned limit = 1 + (unsigned)strlen(name) / 4;
	const char *best = NULL;

	if (strlen(name) > SPELLING_MAX)
		return NULL;
	for (size_t i = 0; i < options_n_rows; i++) {
		unsigned d = distance(name, options_rows[i].name);

		if (d <= limit && !strchr(options_rows[i].name, '*')) {
			best = options_rows[i].name;
			limit = d - 1;
		}
		if (limit == 0)
			break;
	}
	/* "token" is short for "token_file" */
	for (size_t i = 0; !best && strlen(name) >= SHORT_MIN && i < options_n_rows; i++)
		if (!strncmp(options_rows[i].name, name, strlen(name)) &&
		    options_rows[i].name[strlen(name)] == '_')
			best = options_rows[i].name;
	return best;
}

bool options_describe(size_t index, const char **ret_name, const char **ret_kind,
		      const char **ret_default, const char **ret_help)
{
	if (index >= options_n_rows)
		return false;
	*ret_name = options_rows[index].name;
	*ret_kind = options_rows[index].text;
	*ret_default = options_rows[index].standard;
	*ret_help = options_rows[index].help;
	return true;
}
