/* SPDX-License-Identifier: MIT */

/* Options: -o, the config file, the source, and what all of them say when something is wrong. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <attachfs/names.h>
#include <attachfs/options.h>

static struct options o;
static char message[512];
static char home[] = "/tmp/attachfs-test-options-XXXXXX";

static int fresh(void **state)
{
	(void)state;
	message[0] = '\0';
	setenv("HOME", home, 1);
	unsetenv("XDG_CACHE_HOME");
	unsetenv("XDG_CONFIG_HOME");
	return options_init(&o);
}

static int cleared(void **state)
{
	(void)state;
	options_clear(&o);
	options_clear(&o);
	return 0;
}

static void check_takes(const char *list)
{
	if (options_set_list(&o, list, message, sizeof(message)) < 0)
		fail_msg("'%s': %s", list, message);
}

static void check_refuses(const char *pair, const char *why)
{
	message[0] = '\0';
	assert_int_equal(options_set(&o, pair, message, sizeof(message)), -EINVAL);
	assert_string_equal(message, why);
}

static void check_source(const char *source)
{
	if (options_set_source(&o, source, message, sizeof(message)) < 0)
		fail_msg("'%s': %s", source, message);
}

static void check_refuses_source(const char *source, const char *why)
{
	message[0] = '\0';
	assert_int_equal(options_set_source(&o, source, message, sizeof(message)), -EINVAL);
	if (!strstr(message, why))
		fail_msg("'%s' gave: %s", source, message);
}

static void test_defaults_are_those_of_the_table(void **state)
{
	(void)state;
	assert_true(o.cache_size_bytes == 10ULL << 30);
	assert_true(o.cache_free_bytes == 1ULL << 30);
	assert_true(o.settle_s == 2 && o.timeout_s == 30 && o.poll_s == 60);
	assert_int_equal(o.slots, 16);
	assert_int_equal(o.write, OPTIONS_WRITE_BACK);
	assert_int_equal(o.fsync, OPTIONS_FSYNC_LOCAL);
	assert_int_equal(o.names, OPTIONS_NAMES_LABEL);
	assert_int_equal(o.log, LOG_LEVEL_INFO);
	assert_true(o.uid == -1 && o.gid == -1 && o.umask == -1);
	assert_false(o.read_only || o.allow_other || o.noexec || o.insecure_http || o.foreground);
	assert_null(o.token_file);
	assert_null(o.fuse_options);
}

static void test_values_of_every_kind_are_taken(void **state)
{
	(void)state;
	check_takes("token_file=/"
		    "t,user=bob,cache_size=512K,settle=0.5,slots=4,write=through,fsync=remote");
	check_takes("names=filename,log=debug,ro,allow_other,uid=1000,gid=0,umask=022,insecure_"
		    "http,poll=0");
	assert_string_equal(o.token_file, "/t");
	assert_string_equal(o.user, "bob");
	assert_true(o.cache_size_bytes == 512 << 10);
	assert_true(o.settle_s == 0.5 && o.poll_s == 0);
	assert_int_equal(o.slots, 4);
	assert_true(o.bwlimit.up == 0 && o.bwlimit.down == 0);
	assert_int_equal(o.write, OPTIONS_WRITE_THROUGH);
	assert_int_equal(o.fsync, OPTIONS_FSYNC_REMOTE);
	assert_int_equal(o.names, OPTIONS_NAMES_FILENAME);
	assert_int_equal(o.log, LOG_LEVEL_DEBUG);
	assert_true(o.uid == 1000 && o.gid == 0);
	assert_int_equal(o.umask, 022);
	assert_true(o.read_only && o.allow_other && o.insecure_http);
}

static void test_the_last_of_two_values_holds(void **state)
{
	(void)state;
	check_takes("ro,user=a,rw,user=b,noexec,proxy=http://p");
	assert_false(o.read_only);
	assert_true(o.noexec);
	assert_string_equal(o.user, "b");
	check_takes("user=,proxy=,exec,local_names=");
	assert_null(o.user);
	assert_null(o.proxy);
	assert_null(o.local_names);
	assert_false(o.noexec);
}

static void test_sizes_are_powers_of_1024(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} sizes[] = {
		{"cache_free=0", 0},
		{"cache_free=4096", 4096},
		{"cache_free=512K", 512 << 10},
		{"cache_free=3m", 3 << 20},
		{"cache_free=10GiB", 10ULL << 30},
		{"cache_free=1T", 1ULL << 40},
		{"cache_free=7B", 7},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		check_takes(sizes[i].text);
		assert_true(o.cache_free_bytes == sizes[i].bytes);
	}
}

static void test_unknown_options_get_the_nearest_known(void **state)
{
	(void)state;
	check_refuses("cach_size=1G", "unknown option 'cach_size' (did you mean 'cache_size'?)");
	check_refuses("tokenfile=/x", "unknown option 'tokenfile' (did you mean 'token_file'?)");
	check_refuses("alow_other", "unknown option 'alow_other' (did you mean 'allow_other'?)");
	check_refuses("qqqqqqqq=1", "unknown option 'qqqqqqqq'");
	check_refuses("", "unknown option ''");
}

static void test_rates_are_one_for_both_directions_or_two(void **state)
{
	(void)state;
	check_takes("bwlimit=10M");
	assert_true(o.bwlimit.up == 10 << 20 && o.bwlimit.down == 10 << 20);
	check_takes("bwlimit=512K:0");
	assert_true(o.bwlimit.up == 512 << 10 && o.bwlimit.down == 0);
}

static void test_wrong_values_are_told_what_is_right(void **state)
{
	(void)state;
	check_refuses(
		"cache_size=10Q",
		"cache_size: '10Q' is not a size between 256K and 1E (bytes, or with K, M, G, T)");
	check_refuses(
		"cache_size=1K",
		"cache_size: '1K' is not a size between 256K and 1E (bytes, or with K, M, G, T)");
	check_refuses("slots=0", "slots: '0' is not a number between 2 and 256");
	check_refuses("slots=-1", "slots: '-1' is not a number between 2 and 256");
	check_refuses("slots=99999999999999999999",
		      "slots: '99999999999999999999' is not a number between 2 and 256");
	check_refuses("bwlimit=1M:", "bwlimit: '1M:' is not a size, or two with a ':' between, 0 "
				     "or at least 1K");
	check_refuses("bwlimit=5", "bwlimit: '5' is not a size, or two with a ':' between, 0 or at "
				   "least 1K");
	check_refuses("timeout=nan",
		      "timeout: 'nan' is not a time in seconds between 0.1 and 604800");
	check_refuses("settle=", "settle: '' is not a time in seconds between 0 and 604800");
	check_refuses("write=maybe", "write: 'maybe' is none of back|through");
	check_refuses("write=bac", "write: 'bac' is none of back|through");
	check_refuses("umask=888", "umask: '888' is not an octal number between 0 and 777");
	check_refuses("ro=yes", "option 'ro' takes no value");
	check_refuses("cache_size", "option 'cache_size' needs a value: cache_size=SIZE");
}

static void test_commas_in_values_are_escaped(void **state)
{
	(void)state;
	check_takes(",,user=a\\,b,,client=c\\\\,tenant=d\\e,");
	assert_string_equal(o.user, "a,b");
	assert_string_equal(o.client, "c\\");
	assert_string_equal(o.tenant, "d\\e");
}

static void test_options_of_fstab_are_dropped_or_passed_on(void **state)
{
	(void)state;
	check_takes("defaults,noauto,user,nouser,users,_netdev,nofail,x-systemd.automount,x-gvfs-"
		    "name=a,comment=b,relatime");
	assert_null(o.fuse_options);
	assert_null(o.user);
	check_takes("rw,nosuid,nodev,noatime,fsname=a\\,b,default_permissions,ro");
	assert_string_equal(o.fuse_options,
			    "nosuid,nodev,noatime,fsname=a\\,b,default_permissions");
	assert_true(o.read_only);
}

static void test_sources_name_system_and_address(void **state)
{
	(void)state;
	check_source("perscom:https://api.perscom.io/v2");
	assert_int_equal(o.system, OPTIONS_SYSTEM_PERSCOM);
	assert_string_equal(o.source, "perscom:https://api.perscom.io/v2");
	assert_string_equal(o.base_url, "https://api.perscom.io/v2");
	check_source("enterprise-tester:https://host:8443/app/api//");
	assert_int_equal(o.system, OPTIONS_SYSTEM_ENTERPRISE_TESTER);
	assert_string_equal(o.base_url, "https://host:8443/app/api");
	check_source("servicemax:https://[2001:db8::1]:443");
	check_source("rillsoft:http://localhost/");
	assert_string_equal(o.base_url, "http://localhost");
}

static void test_wrong_sources_are_explained(void **state)
{
	(void)state;
	check_refuses_source("perscom:ftp://h", "https://");
	check_refuses_source("perscom:", "https://");
	check_refuses_source("perscom:https://", "host");
	check_refuses_source("perscom:https:///x", "host");
	check_refuses_source("perscom:https://h:0/x", "host or port");
	check_refuses_source("perscom:https://h:99999", "host or port");
	check_refuses_source("perscom:https://h%2eevil/", "host or port");
	check_refuses_source("perscom:https://h\\@evil/", "character");
	check_refuses_source("perscom:https://h/a b", "character");
	check_refuses_source("perscom:https://u:hunter2@h/x", "put credentials in a file");
	assert_null(strstr(message, "hunter2"));
	check_refuses_source("perscom:https://h/x?y=1", "query");
	check_refuses_source("perscom:https://h/#x", "fragment");
	check_refuses_source("https://api.perscom.io/v2", "which system");
	check_refuses_source("persco:https://h",
			     "unknown system 'persco'; there are perscom, rillsoft");
	check_refuses_source("", "SOURCE is empty");
	assert_null(o.base_url);
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static char config[128];

static const char *write_config(const char *text)
{
	snprintf(config, sizeof(config), "%s/config", home);
	write_file(config, text);
	return config;
}

static void test_config_section_sets_options(void **state)
{
	(void)state;
	write_config(
		"; comment\n[other]\nslots = nonsense\n[work]\n  source = perscom:https://h/v2/\n"
		"\tcache_size = 5G ; five\nro = yes\ninsecure_http = no\nnodev = on\nnoatime = "
		"off\nx-foo = 1\n"
		"local_names = *.part:#x\n");
	assert_int_equal(options_read_config(&o, config, "work", message, sizeof(message)), 0);
	assert_string_equal(o.base_url, "https://h/v2");
	assert_true(o.cache_size_bytes == 5ULL << 30);
	assert_true(o.read_only);
	assert_false(o.insecure_http);
	assert_string_equal(o.fuse_options, "nodev");
	assert_string_equal(o.local_names, "*.part:#x");
}

static void check_refuses_config(const char *text, const char *why)
{
	char want[256];

	write_config(text);
	message[0] = '\0';
	assert_int_equal(options_read_config(&o, config, "work", message, sizeof(message)),
			 -EINVAL);
	snprintf(want, sizeof(want), "%s:%s", config, why);
	assert_string_equal(message, want);
}

static void test_config_errors_tell_file_and_line(void **state)
{
	char text[400];

	(void)state;
	check_refuses_config("[work]\n\nslots = 0\nbroken\n",
			     "3: slots: '0' is not a number between 2 and 256");
	check_refuses_config("[work]\nbroken\nslots = 0\n",
			     "2: neither a [section] nor 'name = value'");
	check_refuses_config("[work]\ncach_dir = /x\n",
			     "2: unknown option 'cach_dir' (did you mean 'cache_dir'?)");
	check_refuses_config("[work]\nro = perhaps\n", "2: ro: 'perhaps' is neither yes nor no");
	check_refuses_config("slots = 3\n[work]\n", "1: 'slots' stands before the first [section]");
	check_refuses_config("[work]\nsource = perscom:https://h?x\n",
			     "2: the address must have neither a query (?) nor a fragment (#)");
	memset(text, 'x', sizeof(text));
	memcpy(text, "[work]\nuser = ", 14);
	strcpy(text + sizeof(text) - 2, "\n");
	check_refuses_config(text, "2: the line is too long (at most 198 characters)");
}

static void test_a_section_includes_another_where_it_says_so(void **state)
{
	(void)state;
	write_config(
		"[common]\nslots = 3\nsettle = 7\nnoatime = yes\n"
		"[work]\nslots = 4\nsource = perscom:https://h\ninclude = common\nsettle = 9\n");
	assert_int_equal(options_keep_origins(&o), 0);
	assert_int_equal(options_read_config(&o, config, "work", message, sizeof(message)), 0);
	assert_int_equal(o.slots, 3);
	assert_true(o.settle_s == 9);
	assert_string_equal(o.fuse_options, "noatime");
}

static void test_wrong_includes_tell_file_and_line(void **state)
{
	(void)state;
	check_refuses_config("[work]\ninclude = nothing\n",
			     "2: include: there is no section [nothing]");
	check_refuses_config("[common]\nslotz = 3\n[work]\ninclude = common\n",
			     "2: unknown option 'slotz' (did you mean 'slots'?)");
	write_config("[work]\ninclude = work\n");
	assert_int_equal(options_read_config(&o, config, "work", message, sizeof(message)),
			 -EINVAL);
	assert_non_null(strstr(message, "include one another"));
}

static void test_what_holds_is_shown_with_its_origin(void **state)
{
	char *text = NULL, line[256];
	size_t size = 0;
	FILE *f;

	(void)state;
	write_config("[work]\nsource = perscom:https://h\ncache_size = 512M\nro = no\n"
		     "token_command = cat /secret\nproxy = http://user:pass@proxy\n");
	assert_int_equal(options_keep_origins(&o), 0);
	assert_int_equal(options_read_config(&o, config, "work", message, sizeof(message)), 0);
	check_takes("settle=0.5,umask=027,noatime");
	f = open_memstream(&text, &size);
	options_print_values(&o, "work", f);
	fclose(f);
	assert_memory_equal(text, "[work]\nsource = perscom:https://h", 33);
	snprintf(line, sizeof(line), "cache_size = 512M                                ; %s:3\n",
		 config);
	assert_non_null(strstr(text, line));
	snprintf(line, sizeof(line), "\nro = no                                          ; %s:4\n",
		 config);
	assert_non_null(strstr(text, line));
	assert_non_null(strstr(text, "\ntoken_command = <set> "));
	assert_non_null(strstr(text, "\nproxy = <set> "));
	assert_null(strstr(text, "secret"));
	assert_null(strstr(text, "pass@"));
	assert_non_null(strstr(
		text, "\nsettle = 0.5                                     ; command line\n"));
	assert_non_null(strstr(text, "\numask = 027 "));
	assert_non_null(strstr(text, "\nnoatime = yes "));
	assert_non_null(
		strstr(text, "\nslots = 16                                       ; default\n"));
	free(text);
}

static void test_missing_config_or_section_is_enoent(void **state)
{
	(void)state;
	assert_int_equal(
		options_read_config(&o, "/nonexistent/x", "work", message, sizeof(message)),
		-ENOENT);
	write_config("[other]\nslots = 3\n");
	assert_int_equal(options_read_config(&o, config, "work", message, sizeof(message)),
			 -ENOENT);
}

static void test_name_of_a_section_is_a_source(void **state)
{
	char path[128];

	(void)state;
	check_refuses_source("work", "no section [work] in ");
	assert_non_null(strstr(message, "/.config/attachfs/config or /etc/attachfs/config"));
	assert_non_null(strstr(message, "perscom, rillsoft"));

	setenv("XDG_CONFIG_HOME", home, 1);
	snprintf(path, sizeof(path), "%s/attachfs", home);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/attachfs/config", home);
	write_file(path, "[work]\nsource = perscom:https://h\nslots = 3\n[bare]\nslots = "
			 "4\n[ring]\nsource = work\n");
	check_source("work");
	assert_string_equal(o.base_url, "https://h");
	assert_int_equal(o.slots, 3);
	options_clear(&o);
	assert_int_equal(options_init(&o), 0);
	check_refuses_source("bare", "section [bare] has no 'source ='");
	check_refuses_source("ring", "unknown system 'work'");
	unlink(path);
}

static int finish(void)
{
	message[0] = '\0';
	return options_finish(&o, message, sizeof(message));
}

static void test_cache_dir_comes_from_the_environment(void **state)
{
	char want[128];

	(void)state;
	check_source("perscom:https://h");
	assert_int_equal(finish(), 0);
	snprintf(want, sizeof(want), "%s/.cache/attachfs", home);
	assert_string_equal(o.cache_dir, want);

	setenv("XDG_CACHE_HOME", "/xdg", 1);
	check_takes("cache_dir=");
	assert_int_equal(finish(), 0);
	assert_string_equal(o.cache_dir, "/xdg/attachfs");

	setenv("XDG_CACHE_HOME", "relative", 1);
	check_takes("cache_dir=");
	assert_int_equal(finish(), 0);
	assert_string_equal(o.cache_dir, want);
}

static void test_paths_become_absolute(void **state)
{
	char want[128], here[1024], from_here[1100];

	(void)state;
	check_source("perscom:https://h");
	check_takes("token_file=~/t,cacert=ca.pem,cache_dir=/c,local_names=~$*");
	assert_int_equal(finish(), 0);
	snprintf(want, sizeof(want), "%s/t", home);
	assert_string_equal(o.token_file, want);
	assert_non_null(getcwd(here, sizeof(here)));
	snprintf(from_here, sizeof(from_here), "%s/ca.pem", here);
	assert_string_equal(o.cacert, from_here);
	assert_string_equal(o.cache_dir, "/c");
	assert_string_equal(o.local_names, "~$*");
}

static void test_http_is_for_loopback_only(void **state)
{
	static const char *const fine[] = {"http://localhost:80", "http://LOCALHOST/x",
					   "http://127.0.0.1",	  "http://127.9.9.9:8080/a",
					   "http://[::1]:8080",	  "https://h"};
	static const char *const bad[] = {"http://h",
					  "http://127.0.0.1.evil.com",
					  "http://localhost.evil.com",
					  "http://127.1",
					  "http://[::2]",
					  "HTTP://h"};
	char source[128];

	(void)state;
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
		snprintf(source, sizeof(source), "perscom:%s", fine[i]);
		check_source(source);
		assert_int_equal(finish(), 0);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(source, sizeof(source), "perscom:%s", bad[i]);
		check_source(source);
		assert_int_equal(finish(), -EINVAL);
		assert_non_null(strstr(message, "insecure_http"));
	}
	check_takes("insecure_http");
	assert_int_equal(finish(), 0);
}

static void test_what_does_not_belong_together_is_refused(void **state)
{
	(void)state;
	assert_int_equal(finish(), -EINVAL);
	assert_non_null(strstr(message, "no SOURCE"));
	check_source("perscom:https://h");
	check_takes("token_file=/a,token_command=b");
	assert_int_equal(finish(), -EINVAL);
	assert_non_null(strstr(message, "exclude each other"));
}

static void test_default_local_names_are_what_programs_leave(void **state)
{
	static const char *const local[] = {".notes.txt.swp",
					    ".a.swx",
					    "4913",
					    ".~lock.a.odt#",
					    "~$a.docx",
					    "x.part",
					    "x.crdownload",
					    ".goutputstream-ABC",
					    ".nfs0001",
					    ".fuse_hidden01",
					    ".DS_Store",
					    "._a",
					    ".#a",
					    "#a#",
					    "a.db-journal",
					    "a.sqlite-wal",
					    "a-shm",
					    "index.lock"};
	static const char *const sent[] = {"notes.txt", "notes.txt~",	  "Cargo.lock",
					   "yarn.lock", "travel-journal", ".name.XyZ123",
					   "a.tmp",	".bashrc",	  "#1 hit.mp3",
					   "14913",	"index.html"};

	(void)state;
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
		if (!names_is_local(o.local_names, local[i]))
			fail_msg("%s is sent", local[i]);
	for (size_t i = 0; i < sizeof(sent) / sizeof(sent[0]); i++)
		if (names_is_local(o.local_names, sent[i]))
			fail_msg("%s stays local", sent[i]);
}

static void test_help_and_man_page_name_every_option(void **state)
{
	static char help[32768], man[32768];
	FILE *f_help = fmemopen(help, sizeof(help), "w"), *f_man = fmemopen(man, sizeof(man), "w");
	const char *name, *kind, *standard, *text;
	size_t i;

	(void)state;
	options_print_help(f_help);
	options_print_man(f_man);
	fclose(f_help);
	fclose(f_man);
	for (i = 0; options_describe(i, &name, &kind, &standard, &text); i++) {
		char roff[64], *p = roff;

		assert_true(*kind && *text);
		assert_non_null(strstr(help, name));
		for (const char *s = name; *s; s++)
			p += sprintf(p, "%s%c", *s == '-' ? "\\" : "", *s);
		assert_non_null(strstr(man, roff));
		if (standard)
			assert_non_null(strstr(help, standard));
	}
	assert_true(i > 60);
	assert_non_null(strstr(help, "    cache_size=SIZE                most bytes the cache may "
				     "hold (default: 10G)\n"));
	assert_non_null(strstr(man, ".TP\n\\fBwrite\\fR=\\fIback|through\\fR\n"));
}

static void test_every_default_is_a_value_the_option_takes(void **state)
{
	const char *name, *kind, *standard, *text;
	char pair[1024];

	(void)state;
	for (size_t i = 0; options_describe(i, &name, &kind, &standard, &text); i++) {
		if (!standard)
			continue;
		snprintf(pair, sizeof(pair), "%s=%s", name, standard);
		if (options_set(&o, pair, message, sizeof(message)) < 0)
			fail_msg("%s", message);
	}
}

#define with_options(f) cmocka_unit_test_setup_teardown(f, fresh, cleared)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_options(test_defaults_are_those_of_the_table),
		with_options(test_values_of_every_kind_are_taken),
		with_options(test_the_last_of_two_values_holds),
		with_options(test_sizes_are_powers_of_1024),
		with_options(test_unknown_options_get_the_nearest_known),
		with_options(test_rates_are_one_for_both_directions_or_two),
		with_options(test_wrong_values_are_told_what_is_right),
		with_options(test_commas_in_values_are_escaped),
		with_options(test_options_of_fstab_are_dropped_or_passed_on),
		with_options(test_sources_name_system_and_address),
		with_options(test_wrong_sources_are_explained),
		with_options(test_config_section_sets_options),
		with_options(test_config_errors_tell_file_and_line),
		with_options(test_a_section_includes_another_where_it_says_so),
		with_options(test_wrong_includes_tell_file_and_line),
		with_options(test_what_holds_is_shown_with_its_origin),
		with_options(test_missing_config_or_section_is_enoent),
		with_options(test_name_of_a_section_is_a_source),
		with_options(test_cache_dir_comes_from_the_environment),
		with_options(test_paths_become_absolute),
		with_options(test_http_is_for_loopback_only),
		with_options(test_what_does_not_belong_together_is_refused),
		with_options(test_default_local_names_are_what_programs_leave),
		with_options(test_help_and_man_page_name_every_option),
		with_options(test_every_default_is_a_value_the_option_takes),
	};
	char path[128];
	int failed;

	if (!mkdtemp(home))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(config);
	snprintf(path, sizeof(path), "%s/attachfs", home);
	rmdir(path);
	rmdir(home);
	return failed;
}
