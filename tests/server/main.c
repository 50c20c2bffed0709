/* SPDX-License-Identifier: MIT */
/* Options, start, and an end that leaves nothing behind (README.md, "Command line"). */
#include "alloc.h"
#include "emulator.h"
#include "populate.h"

#include <errno.h>
#include <getopt.h>
#include <gnutls/gnutls.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXIT_USAGE 2

static const char usage_text[] =
	"usage: attachfs-emulator [--system perscom|servicemax] [--port N] [--blob-port N] "
	"[--control-port N]\n"
	"           [--blob-host ADDR] [--blob-url URL] [--ready-file FILE] [--data DIR]\n"
	"           [--generate COLLECTION:RECORDS:FILES:BYTES]... [--token TOKEN[=SCOPE,...]]...\n"
	"           [--set TOGGLE=VALUE]... [--spool DIR] [--die-with-parent] [--quiet]\n";

struct options {
	const char *system;
	uint16_t ports[3]; /* by enum port_kind */
	const char *blob_host;
	const char *blob_url; /* NULL = where the port is */
	const char *ready_file;
	const char *data;
	const char *spool;
	const char *generate[64];
	size_t n_generate;
	const char *set[64];
	size_t n_set;
	const char *token[64];
	size_t n_token;
	bool die_with_parent;
	bool quiet;
};

enum option_key {
	OPT_SYSTEM = 1,
	OPT_PORT,
	OPT_BLOB_PORT,
	OPT_CONTROL_PORT,
	OPT_BLOB_HOST,
	OPT_BLOB_URL,
	OPT_READY_FILE,
	OPT_DATA,
	OPT_GENERATE,
	OPT_TOKEN,
	OPT_SET,
	OPT_SPOOL,
	OPT_DIE_WITH_PARENT,
	OPT_QUIET,
	OPT_HELP,
};

static const struct option long_options[] = {
	{"system", required_argument, NULL, OPT_SYSTEM},
	{"port", required_argument, NULL, OPT_PORT},
	{"blob-port", required_argument, NULL, OPT_BLOB_PORT},
	{"control-port", required_argument, NULL, OPT_CONTROL_PORT},
	{"blob-host", required_argument, NULL, OPT_BLOB_HOST},
	{"blob-url", required_argument, NULL, OPT_BLOB_URL},
	{"ready-file", required_argument, NULL, OPT_READY_FILE},
	{"data", required_argument, NULL, OPT_DATA},
	{"generate", required_argument, NULL, OPT_GENERATE},
	{"token", required_argument, NULL, OPT_TOKEN},
	{"set", required_argument, NULL, OPT_SET},
	{"spool", required_argument, NULL, OPT_SPOOL},
	{"die-with-parent", no_argument, NULL, OPT_DIE_WITH_PARENT},
	{"quiet", no_argument, NULL, OPT_QUIET},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0},
};

static void print_usage(void)
{
	fputs(usage_text, stderr);
	fputs("systems:", stderr);
	for (size_t i = 0; systems[i]; i++)
		fprintf(stderr, " %s", systems[i]->name);
	fputs("\n", stderr);
}

static bool add(const char **list, size_t *n, const char *value)
{
	if (*n == 64)
		return false;
	list[(*n)++] = value;
	return true;
}

static bool set_port(uint16_t *port, const char *value)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	*port = (uint16_t)n;
	return *value && !*end && n <= 65535;
}

static bool take_option(struct options *o, int key, const char *value)
{
	switch ((enum option_key)key) {
	case OPT_SYSTEM:
		o->system = value;
		return true;
	case OPT_PORT:
		return set_port(&o->ports[PORT_API], value);
	case OPT_BLOB_PORT:
		return set_port(&o->ports[PORT_BLOB], value);
	case OPT_CONTROL_PORT:
		return set_port(&o->ports[PORT_CONTROL], value);
	case OPT_BLOB_HOST:
		o->blob_host = value;
		break;
	case OPT_BLOB_URL:
		o->blob_url = value;
		return true;
	case OPT_READY_FILE:
		o->ready_file = value;
		return true;
	case OPT_DATA:
		o->data = value;
		return true;
	case OPT_GENERATE:
		return add(o->generate, &o->n_generate, value);
	case OPT_TOKEN:
		return add(o->token, &o->n_token, value);
	case OPT_SET:
		return add(o->set, &o->n_set, value);
	case OPT_SPOOL:
		o->spool = value;
		return true;
	case OPT_DIE_WITH_PARENT:
		o->die_with_parent = true;
		return true;
	case OPT_QUIET:
		o->quiet = true;
		return true;
	case OPT_HELP:
		break;
	}
	return false;
}

static bool parse_options(struct options *o, int argc, char **argv)
{
	int key;

	while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		if (!take_option(o, key, optarg))
			return false;
	return optind == argc;
}

static const struct system *find_system(const char *name)
{
	for (size_t i = 0; systems[i]; i++)
		if (strcmp(systems[i]->name, name) == 0)
			return systems[i];
	fprintf(stderr, "attachfs-emulator: no such system: %s\n", name);
	return NULL;
}

/* "secret=view:*,create:attachment"; without scopes the token may do everything. */
static void add_token(struct emulator *emu, const char *spec)
{
	struct token *t;
	size_t len = strcspn(spec, "=");
	const char *scopes = spec[len] ? spec + len + 1 : "*";

	emu->tokens = xrealloc(emu->tokens, (emu->n_tokens + 1) * sizeof(*emu->tokens));
	t = &emu->tokens[emu->n_tokens++];
	*t = (struct token){.text = xmemdup(spec, len)};
	while (*scopes) {
		len = strcspn(scopes, ",");
		t->scopes = xrealloc(t->scopes, (t->n_scopes + 1) * sizeof(char *));
		t->scopes[t->n_scopes++] = xmemdup(scopes, len);
		scopes += len + (scopes[len] == ',');
	}
}

static bool make_spool(struct emulator *emu, const char *given)
{
	const char *tmp = getenv("TMPDIR");

	if (given) {
		emu->spool = xstrdup(given);
		return access(given, W_OK) == 0;
	}
	emu->spool = xasprintf("%s/attachfs-emulator-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	emu->own_spool = mkdtemp(emu->spool) != NULL;
	return emu->own_spool;
}

static bool apply_settings(struct emulator *emu, const struct options *o)
{
	settings_init(&emu->settings, emu->system->settings);
	for (size_t i = 0; i < o->n_set; i++) {
		size_t len = strcspn(o->set[i], "=");
		char *name = xmemdup(o->set[i], len);
		char *error = NULL;
		bool fine = settings_set(&emu->settings, name,
					 o->set[i] + len + (o->set[i][len] == '='), &error);

		free(name);
		if (fine)
			continue;
		fprintf(stderr, "attachfs-emulator: --set: %s\n", error);
		free(error);
		return false;
	}
	return true;
}

static bool fill(struct emulator *emu, const struct options *o)
{
	emu->store = store_new(emu->system->collections);
	emu->state = emu->system->open(emu);
	for (size_t i = 0; i < (o->n_token ? o->n_token : 1); i++)
		add_token(emu, o->n_token ? o->token[i] : "test-token");
	if (o->data && !populate_directory(emu, o->data))
		return false;
	for (size_t i = 0; i < o->n_generate; i++)
		if (!populate_generated(emu, o->generate[i]))
			return false;
	return true;
}

static bool open_ports(struct emulator *emu, const struct options *o, struct port *ports[3])
{
	const char *hosts[3] = {"127.0.0.1", o->blob_host, "127.0.0.1"};

	for (int i = 0; i < 3; i++)
		if (!(ports[i] = port_open(emu, (enum port_kind)i, hosts[i], o->ports[i])))
			return false;
	emu->api_url = xasprintf("http://%s:%u", hosts[PORT_API], port_number(ports[PORT_API]));
	emu->blob_url = o->blob_url ? xstrdup(o->blob_url)
				    : xasprintf("http://%s:%u", hosts[PORT_BLOB],
						port_number(ports[PORT_BLOB]));
	for (int i = 0; i < 3; i++)
		if (!port_start(ports[i]))
			return false;
	return true;
}

/* Written under another name first: who sees the file sees all of it. */
static bool write_ready_file(const char *file, const char *text)
{
	char *temporary = xasprintf("%s.%d", file, (int)getpid());
	FILE *f = fopen(temporary, "we");
	bool fine = f && fputs(text, f) >= 0;

	if (f && fclose(f) != 0)
		fine = false;
	if (fine)
		fine = rename(temporary, file) == 0;
	if (!fine)
		fprintf(stderr, "attachfs-emulator: %s: %s\n", file, strerror(errno));
	free(temporary);
	return fine;
}

static bool announce(const struct emulator *emu, const struct options *o, uint16_t control)
{
	char *text = xasprintf("{\"system\":\"%s\",\"api\":\"%s%s\",\"blob\":\"%s\","
			       "\"control\":\"http://127.0.0.1:%u\",\"token\":\"%s\",\"pid\":%d}\n",
			       emu->system->name, emu->api_url, emu->system->base, emu->blob_url,
			       control, emu->tokens[0].text, (int)getpid());
	bool fine = true;

	if (o->ready_file)
		fine = write_ready_file(o->ready_file, text);
	else
		fputs(text, stdout);
	fflush(stdout);
	free(text);
	return fine;
}

static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void close_tokens(struct emulator *emu)
{
	for (size_t i = 0; i < emu->n_tokens; i++) {
		for (size_t j = 0; j < emu->tokens[i].n_scopes; j++)
			free(emu->tokens[i].scopes[j]);
		free(emu->tokens[i].scopes);
		free(emu->tokens[i].text);
	}
	free(emu->tokens);
}

static void close_emulator(struct emulator *emu, struct port *ports[3])
{
	alarms_stop(emu->alarms);
	for (int i = 0; i < 3; i++)
		port_close(ports[i]);
	alarms_free(emu->alarms);
	if (emu->state)
		emu->system->close(emu->state);
	if (emu->store)
		store_free(emu->store);
	faults_clear(&emu->faults);
	reqlog_free(emu->log);
	close_tokens(emu);
	if (emu->own_spool)
		rmdir(emu->spool);
	free(emu->spool);
	free(emu->api_url);
	free(emu->blob_url);
	pthread_mutex_destroy(&emu->lock);
}

static bool start(struct emulator *emu, const struct options *o, struct port *ports[3])
{
	if (!(emu->system = find_system(o->system)))
		return false;
	return make_spool(emu, o->spool) && apply_settings(emu, o) && fill(emu, o) &&
	       open_ports(emu, o, ports) && announce(emu, o, port_number(ports[PORT_CONTROL]));
}

/* Signals are waited for, not handled: every thread started later inherits the mask. */
static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	struct options o = {.system = "perscom", .blob_host = "127.0.0.2"};
	struct emulator emu = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct port *ports[3] = {NULL};
	sigset_t signals;
	int caught;
	bool started;

	setlocale(LC_CTYPE, "C.UTF-8"); /* towlower() beyond ASCII */
	if (!parse_options(&o, argc, argv)) {
		print_usage();
		return EXIT_USAGE;
	}
	block_signals(&signals);
	if (o.die_with_parent)
		prctl(PR_SET_PDEATHSIG, SIGTERM);
	raise_descriptor_limit();
	emu.log = reqlog_new();
	emu.alarms = alarms_new();
	started = start(&emu, &o, ports);
	if (started)
		sigwait(&signals, &caught);
	close_emulator(&emu, ports);
	return started ? EXIT_SUCCESS : EXIT_USAGE;
}
