/* SPDX-License-Identifier: MIT */

/*
 * What the file system makes of collections the server lists, of records it does not, of a record
 * that stands in its collection's place, and of what a server says it could not do: a real mount of
 * a server in memory (fake_remote.c), in this process.
 */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <attachfs/log.h>
#include <attachfs/options.h>

#include "../../fs/check.h" /* api/ has one, too */
#include "fake_remote.h"
#include "mount.h"

struct drive {
	char base[64], mnt[80], cache[80];
	struct options options;
	struct mount *m;
	pthread_t thread;
	bool serving;
};

static struct drive d;

static void *serve(void *arg)
{
	mount_serve(arg);
	return NULL;
}

/* 0 or the -errno of the mount, with its words in @message. */
static int try_start(const char *options, char message[512])
{
	char list[512];
	int r;

	assert_int_equal(options_init(&d.options), 0);
	assert_int_equal(
		options_set_source(&d.options, "rillsoft:http://127.0.0.1:1", message, 512), 0);
	snprintf(list, sizeof(list), "cache_dir=%s,settle=0,poll=0,log=error%s%s", d.cache,
		 *options ? "," : "", options);
	assert_int_equal(options_set_list(&d.options, list, message, 512), 0);
	d.options.mountpoint = strdup(d.mnt);
	assert_int_equal(options_finish(&d.options, message, 512), 0);
	r = mount_new(&d.options, &d.m, message, 512);
	if (!r)
		r = mount_attach(d.m, message, 512);
	return r;
}

static void start(const char *options)
{
	char message[512] = "";

	if (try_start(options, message) < 0)
		fail_msg("%s", message);
	d.serving = pthread_create(&d.thread, NULL, serve, d.m) == 0;
	assert_true(d.serving);
}

static void stop(void)
{
	if (d.serving) {
		if (umount2(d.mnt, MNT_DETACH) < 0) {
			char command[128];

			snprintf(command, sizeof(command), "fusermount3 -uz %s", d.mnt);
			if (system(command))
				fprintf(stderr, "%s: cannot be unmounted\n", d.mnt);
		}
		pthread_join(d.thread, NULL);
		d.serving = false;
	}
	mount_free(d.m);
	d.m = NULL;
	options_clear(&d.options);
}

static void remount(const char *options)
{
	stop();
	start(options);
}

static int setup(void **state)
{
	(void)state;
	fake_reset();
	strcpy(d.base, "/tmp/attachfs-unit-XXXXXX");
	if (!mkdtemp(d.base))
		return -1;
	snprintf(d.mnt, sizeof(d.mnt), "%s/mnt", d.base);
	snprintf(d.cache, sizeof(d.cache), "%s/cache", d.base);
	return mkdir(d.mnt, 0755);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	if (d.m)
		stop();
	snprintf(command, sizeof(command), "rm -rf --one-file-system %s", d.base);
	return system(command);
}

/* ---- small programs ---- */

static const char *at(const char *path)
{
	static char full[4][512];
	static unsigned turn;

	turn = (turn + 1) % 4;
	snprintf(full[turn], sizeof(full[turn]), "%s/%s", d.mnt, path);
	return full[turn];
}

/* The names in a directory, sorted, with a blank between. */
static const char *ls(const char *path)
{
	static char text[4096];
	struct dirent **names;
	int n = scandir(at(path), &names, NULL, alphasort);

	if (n < 0)
		return strerrorname_np(errno);
	*text = '\0';
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.')
			snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s",
				 *text ? " " : "", names[i]->d_name);
		free(names[i]);
	}
	free(names);
	return text;
}

static const char *cat(const char *path)
{
	static char text[4097];
	int fd = open(at(path), O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return strerrorname_np(errno);
	text[n] = '\0';
	return text;
}

/* 0 or errno, of the open, the write or the close. */
static int put(const char *path, const char *text)
{
	int fd = open(at(path), O_WRONLY | O_CREAT | O_TRUNC, 0644), r = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		r = errno;
	return close(fd) < 0 && !r ? errno : r;
}

static const char *link_of(const char *path)
{
	static char text[256];
	ssize_t n = readlink(at(path), text, sizeof(text) - 1);

	if (n < 0)
		return strerrorname_np(errno);
	text[n] = '\0';
	return text;
}

static const char *xattr(const char *path, const char *name)
{
	static char text[256];
	ssize_t n = getxattr(at(path), name, text, sizeof(text) - 1);

	if (n < 0)
		return strerrorname_np(errno);
	text[n] = '\0';
	return text;
}

static int failed(int r)
{
	return r < 0 ? errno : 0;
}

static void command(const char *name)
{
	char path[64], text[4096];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), ".attachfs/control.%s", name);
	fd = open(at(path), O_RDONLY);
	assert_true(fd >= 0);
	do
		n = read(fd, text, sizeof(text));
	while (n > 0);
	close(fd);
	usleep(20000); /* notifications of what changed are sent by a thread of their own */
}

/* ---- collections that the server lists ---- */

static void two_projects(void)
{
	fake_add_collection("41", "Plant B");
	fake_add_collection("42", "A/C");
	fake_add_record("41", "e1", "Pump");
	fake_add_file("e1", "plan.pdf", "the plan");
}

static void test_the_servers_collections_are_the_root(void **state)
{
	(void)state;
	two_projects();
	start("");
	assert_string_equal(ls(""), "A%2FC Plant B");
	assert_string_equal(ls("Plant B/Pump"), "plan.pdf");
	assert_string_equal(cat("Plant B/Pump/plan.pdf"), "the plan");
	assert_int_equal(put("Plant B/Pump/new.txt", "new"), 0);
	assert_int_equal(failed(rename(at("Plant B/Pump/plan.pdf"), at("Plant B/Pump/p.pdf"))), 0);
	command("sync");
	assert_string_equal(fake_text("e1", "new.txt"), "new");
	assert_string_equal(fake_text("e1", "p.pdf"), "the plan");
	assert_string_equal(xattr("Plant B", "user.attachfs.id"), "41");
	assert_string_equal(xattr("Plant B/Pump", "user.attachfs.id"), "e1");
}

static void test_ids_of_collections_lead_to_them(void **state)
{
	struct stat there, link;

	(void)state;
	two_projects();
	start("");
	assert_string_equal(link_of("42"), "A%2FC");
	assert_string_equal(link_of(".by-id/41"), "../Plant B");
	assert_string_equal(ls("41/Pump"), "plan.pdf");
	assert_string_equal(ls(".by-id"), "41 42");
	assert_string_equal(link_of("43"), "ENOENT");
	assert_string_equal(link_of(".by-id/43"), "ENOENT");
	assert_int_equal(stat(at("41"), &there), 0);
	assert_int_equal(lstat(at("41"), &link), 0);
	assert_true(S_ISDIR(there.st_mode) && S_ISLNK(link.st_mode));
	assert_int_equal(link.st_size, strlen("Plant B"));
}

static void test_collections_come_go_and_are_renamed(void **state)
{
	(void)state;
	two_projects();
	start("");
	assert_string_equal(ls(""), "A%2FC Plant B");
	fake_drop_collection("42");
	fake_add_collection("43", "Plant B");
	fake_rename_collection("41", "Plant C");
	command("refresh");
	/* its name was taken when it came: it was listed after the other had been renamed */
	assert_string_equal(ls(""), "Plant B Plant C");
	assert_string_equal(link_of("41"), "Plant C");
	assert_string_equal(ls("Plant C"), "Pump");
	assert_string_equal(ls("A%2FC"), "ENOENT");
	assert_string_equal(link_of("42"), "ENOENT");
	fake_add_collection("44", "Plant B");
	command("refresh");
	assert_string_equal(ls(""), "Plant B Plant B (44) Plant C");
	remount("");
	assert_string_equal(ls(""), "Plant B Plant B (44) Plant C");
	assert_string_equal(link_of("44"), "Plant B (44)");
}

static void test_collections_are_those_of_the_ledger_while_offline(void **state)
{
	(void)state;
	two_projects();
	start("");
	assert_string_equal(ls(""), "A%2FC Plant B");
	assert_string_equal(ls("Plant B"), "Pump");
	fake_set_error(-EHOSTDOWN);
	remount("");
	assert_string_equal(ls(""), "A%2FC Plant B");
	assert_string_equal(ls("Plant B"), "Pump");
	fake_set_error(0);
	fake_add_collection("43", "New");
	command("refresh");
	assert_string_equal(ls(""), "A%2FC New Plant B");
}

static void test_offline_at_first_says_so_and_tries_again(void **state)
{
	(void)state;
	two_projects();
	fake_set_error(-EHOSTDOWN);
	start("");
	assert_string_equal(ls(""), "EHOSTDOWN");
	fake_set_error(0);
	assert_string_equal(ls(""), "A%2FC Plant B");
}

static void test_unsent_work_keeps_a_collection_that_is_gone(void **state)
{
	(void)state;
	fake_add_collection("gone1", "Plant B");
	fake_add_record("gone1", "e1", "Pump");
	fake_add_collection("42", "Other");
	start("settle=600");
	assert_string_equal(ls(""), "Other Plant B");
	assert_int_equal(put("Plant B/Pump/mine.txt", "mine"), 0);
	fake_drop_record("e1");
	fake_drop_collection("gone1");
	command("refresh");
	assert_string_equal(ls(""), "Other Plant B");
	assert_string_equal(cat("Plant B/Pump/mine.txt"), "mine");
	command("sync");
	assert_non_null(strstr(cat(".attachfs/failed"), "Plant B/Pump/mine.txt"));
	assert_int_equal(failed(unlink(at("Plant B/Pump/mine.txt"))), 0);
	command("refresh");
	assert_string_equal(ls(""), "Other");
}

static void test_names_of_collections_asked_for_are_learned(void **state)
{
	(void)state;
	two_projects();
	start("collections=41");
	assert_string_equal(ls(""), "Plant B");
	assert_string_equal(ls("41"), "Pump");
	remount("");
	assert_string_equal(ls(""), "A%2FC Plant B");
	remount("collections=42:41");
	assert_string_equal(ls(""), "A%2FC Plant B");
	assert_int_equal(fake_calls("list_tree"), 1);
}

static void test_a_server_that_lists_no_collections_must_be_told(void **state)
{
	char message[512] = "";

	(void)state;
	fake_ops.list_collections = NULL;
	assert_int_equal(try_start("", message), -EINVAL);
	assert_non_null(strstr(message, "collections=A:B"));
	options_clear(&d.options);
	fake_add_collection("A", "A");
	start("collections=A");
	assert_string_equal(ls(""), "A");
	assert_string_equal(link_of("A"), "EINVAL");
}

/* ---- records that it does not list ---- */

static void with_sets(void)
{
	fake_caps.unlisted_collection = "sets";
	fake_caps.default_collections = "notes:sets";
	fake_ops.list_collections = NULL;
	fake_add_collection("notes", "notes");
	fake_add_collection("sets", "sets");
	fake_add_record("notes", "n1", "First");
}

static void test_mkdir_makes_a_set(void **state)
{
	char id[80], path[128];

	(void)state;
	with_sets();
	start("");
	assert_string_equal(ls("sets"), "");
	assert_int_equal(failed(mkdir(at("sets/x"), 0700)), 0);
	assert_int_equal(failed(mkdir(at("sets/x"), 0700)), EEXIST);
	assert_string_equal(ls("sets"), "x");
	assert_int_equal(put("sets/x/a.txt", "aaa"), 0);
	command("sync");
	strcpy(id, xattr("sets/x", "user.attachfs.id"));
	assert_int_equal(strlen(id), 36);
	assert_string_equal(fake_text(id, "a.txt"), "aaa");
	snprintf(path, sizeof(path), "sets/.by-id/%s", id);
	assert_string_equal(link_of(path), "../x");
	snprintf(path, sizeof(path), "sets/%s", id);
	assert_string_equal(link_of(path), "x");
	assert_int_equal(fake_calls("list_tree"), 0);
	assert_int_equal(fake_calls("list_record"), 0);

	fake_add_file(id, "b.txt", "bbb");
	remount("");
	assert_string_equal(ls("sets"), "x");
	assert_int_equal(fake_calls("list_record"), 0);
	assert_string_equal(ls("sets/x"), "a.txt b.txt");
	assert_string_equal(cat("sets/x/b.txt"), "bbb");
	assert_int_equal(fake_calls("list_record"), 1);
	fake_add_file(id, "c.txt", "ccc");
	command("refresh");
	assert_string_equal(ls("sets/x"), "a.txt b.txt c.txt");
}

static void test_directories_are_made_and_removed_nowhere_else(void **state)
{
	(void)state;
	with_sets();
	start("");
	assert_int_equal(failed(mkdir(at("x"), 0700)), EPERM);
	assert_int_equal(failed(mkdir(at("notes/x"), 0700)), EPERM);
	assert_int_equal(failed(mkdir(at("notes/First/x"), 0700)), EPERM);
	assert_int_equal(failed(mkdir(at("sets/x"), 0700)), 0);
	assert_int_equal(failed(mkdir(at("sets/x/y"), 0700)), EPERM);
	assert_int_equal(failed(rmdir(at("notes/First"))), EPERM);
	assert_int_equal(failed(rmdir(at("sets"))), EPERM);
	assert_int_equal(put("sets/file", ""), EPERM);
	fake_set_error(-EHOSTDOWN);
	assert_int_equal(failed(mkdir(at("sets/z"), 0700)), EHOSTDOWN);
}

static void test_rmdir_forgets_an_empty_set(void **state)
{
	char id[80];

	(void)state;
	with_sets();
	start("settle=0");
	assert_int_equal(failed(mkdir(at("sets/x"), 0700)), 0);
	strcpy(id, xattr("sets/x", "user.attachfs.id"));
	assert_int_equal(put("sets/x/a.txt", "aaa"), 0);
	assert_int_equal(failed(rmdir(at("sets/x"))), ENOTEMPTY);
	command("sync");
	assert_int_equal(fake_count(id), 1);
	assert_int_equal(failed(unlink(at("sets/x/a.txt"))), 0);
	assert_int_equal(failed(rmdir(at("sets/x"))), 0);
	assert_string_equal(ls("sets"), "");
	command("sync");
	assert_int_equal(fake_count(id), 0);
	remount("");
	assert_string_equal(ls("sets"), "");
	assert_int_equal(failed(mkdir(at("sets/y"), 0700)), 0);
	assert_int_equal(failed(rmdir(at("sets/y"))), 0);
	assert_int_equal(failed(rmdir(at("sets/y"))), ENOENT);
}

static void test_removals_outlive_the_set_and_the_mount(void **state)
{
	char id[80];

	(void)state;
	with_sets();
	start("");
	assert_int_equal(failed(mkdir(at("sets/x"), 0700)), 0);
	strcpy(id, xattr("sets/x", "user.attachfs.id"));
	assert_int_equal(put("sets/x/a.txt", "aaa"), 0);
	command("sync");
	fake_set_error(-EHOSTDOWN);
	assert_int_equal(failed(unlink(at("sets/x/a.txt"))), 0);
	assert_int_equal(failed(rmdir(at("sets/x"))), 0);
	stop();
	fake_set_error(0);
	start("");
	command("sync");
	assert_int_equal(fake_count(id), 0);
	assert_string_equal(ls("sets"), "");
}

static void test_a_set_is_found_by_its_id(void **state)
{
	(void)state;
	with_sets();
	fake_add_record("sets", FAKE_SET "77", "");
	fake_add_file(FAKE_SET "77", "theirs.txt", "theirs");
	start("");
	assert_string_equal(ls("sets/" FAKE_SET "78"), "ENOENT");
	assert_int_equal(fake_calls("list_record"), 1);
	assert_string_equal(ls("sets/readme"), "ENOENT");
	assert_int_equal(fake_calls("list_record"), 1);
	assert_string_equal(ls("sets/" FAKE_SET "77"), "theirs.txt");
	assert_int_equal(fake_calls("list_record"), 2);
	assert_string_equal(ls("sets"), FAKE_SET "77");
	assert_int_equal(failed(rename(at("sets/" FAKE_SET "77"), at("sets/seven"))), 0);
	assert_string_equal(ls("sets"), "seven");
	assert_string_equal(link_of("sets/" FAKE_SET "77"), "seven");
	remount("");
	assert_string_equal(ls("sets"), "seven");
	assert_string_equal(cat("sets/seven/theirs.txt"), "theirs");
	command("sync");
	assert_int_equal(fake_calls("update_records"), 0);
	fake_drop_record(FAKE_SET "77");
	command("refresh");
	assert_string_equal(ls("sets"), "");
}

static void test_a_forgotten_set_comes_back_by_its_id(void **state)
{
	char id[80], path[128];

	(void)state;
	with_sets();
	start("");
	assert_int_equal(failed(mkdir(at("sets/x"), 0700)), 0);
	strcpy(id, xattr("sets/x", "user.attachfs.id"));
	assert_int_equal(failed(rmdir(at("sets/x"))), 0);
	snprintf(path, sizeof(path), "sets/%s", id);
	assert_string_equal(ls(path), "");
	assert_string_equal(ls("sets"), id);
}

/* ---- a record that stands in its collection's place ---- */

static void with_flat(void)
{
	fake_caps.flat_collection = "attachments";
	fake_add_collection("41", "Plant B");
	fake_add_collection("attachments", "attachments");
	fake_add_record("attachments", "all", "all");
	fake_add_file("all", "7.bin", "seven");
	fake_ops.list_collections = NULL;
	fake_caps.default_collections = "41:attachments";
}

static void test_files_of_a_flat_collection_stand_in_it(void **state)
{
	struct dirent **names;
	struct stat st, up, root;
	char path[64];
	int n;

	(void)state;
	with_flat();
	start("");
	assert_string_equal(ls(""), "41 attachments");
	assert_string_equal(ls("attachments"), "7.bin");
	assert_string_equal(cat("attachments/7.bin"), "seven");
	assert_int_equal(put("attachments/8.bin", "eight"), 0);
	assert_int_equal(failed(rename(at("attachments/7.bin"), at("attachments/9.bin"))), 0);
	assert_non_null(strstr(cat(".attachfs/pending"), "\"attachments/"));
	command("sync");
	assert_string_equal(fake_text("all", "8.bin"), "eight");
	assert_string_equal(fake_text("all", "9.bin"), "seven");
	assert_string_equal(fake_text("all", "7.bin"), "");
	snprintf(path, sizeof(path), "attachments/.by-id/%s",
		 xattr("attachments/8.bin", "user.attachfs.id"));
	assert_string_equal(link_of(path), "../8.bin");
	assert_string_equal(link_of(".by-id/attachments"), "../attachments");
	assert_string_equal(cat(path), "eight");
	assert_int_equal(stat(at("attachments"), &st), 0);
	assert_int_equal(stat(at("attachments/.."), &up), 0);
	assert_int_equal(stat(at(""), &root), 0);
	assert_int_equal(up.st_ino, root.st_ino);
	n = scandir(at(""), &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (!strcmp(names[i]->d_name, "attachments"))
			assert_int_equal(names[i]->d_ino, st.st_ino);
		free(names[i]);
	}
	free(names);
	assert_int_equal(failed(rename(at("attachments"), at("other"))), EPERM);
	assert_int_equal(failed(rmdir(at("attachments"))), EPERM);
	remount("");
	assert_string_equal(ls("attachments"), "8.bin 9.bin");
}

static void test_a_flat_collection_that_cannot_be_listed_says_why(void **state)
{
	(void)state;
	with_flat();
	fake_set_error(-EHOSTDOWN);
	start("");
	assert_string_equal(ls(""), "41 attachments");
	assert_string_equal(ls("attachments"), "EHOSTDOWN");
	fake_set_error(0);
	assert_string_equal(ls("attachments"), "7.bin");
	assert_string_equal(cat("attachments/7.bin"), "seven");
}

/* ---- what a server could not do ---- */

static int no_commas(const struct remote *r, enum remote_deed deed, const char *collection,
		     const char *to, const char *name)
{
	(void)r;
	if (to && strcmp(to, collection))
		return -EXDEV;
	if (!strcmp(collection, "fixed"))
		return -EPERM;
	if (strchr(name, ','))
		return deed == REMOTE_REMOVES ? -EPERM : -EINVAL;
	return 0;
}

static void with_rules(void)
{
	fake_ops.may = no_commas;
	fake_ops.list_collections = NULL;
	fake_caps.default_collections = "free:fixed";
	fake_caps.move_between_collections = true;
	fake_add_collection("free", "free");
	fake_add_collection("fixed", "fixed");
	fake_add_record("free", "r1", "One");
	fake_add_record("fixed", "r2", "Two");
	fake_add_file("r1", "a.txt", "aaa");
	fake_add_file("r1", "a,b.txt", "comma");
	fake_add_file("r2", "c.txt", "ccc");
}

static void test_what_a_server_cannot_do_is_refused_at_once(void **state)
{
	(void)state;
	with_rules();
	start("");
	assert_int_equal(put("free/One/x,y.txt", "x"), EINVAL);
	assert_int_equal(failed(mknod(at("free/One/x,z.txt"), S_IFREG | 0644, 0)), EINVAL);
	assert_int_equal(put("fixed/Two/x.txt", "x"), EPERM);
	assert_int_equal(put("fixed/Two/c.txt", "x"), EPERM);
	assert_int_equal(failed(open(at("fixed/Two/c.txt"), O_RDWR)), EPERM);
	assert_int_equal(failed(truncate(at("fixed/Two/c.txt"), 1)), EPERM);
	assert_int_equal(failed(truncate(at("fixed/Two/c.txt"), 0)), EPERM);
	assert_int_equal(failed(unlink(at("fixed/Two/c.txt"))), EPERM);
	assert_int_equal(failed(unlink(at("free/One/a,b.txt"))), EPERM);
	assert_int_equal(failed(rename(at("free/One/a.txt"), at("free/One/a,c.txt"))), EINVAL);
	assert_int_equal(failed(rename(at("free/One/a.txt"), at("fixed/Two/a.txt"))), EXDEV);
	assert_int_equal(failed(rename(at("fixed/Two/c.txt"), at("fixed/Two/d.txt"))), EPERM);
	assert_string_equal(cat("fixed/Two/c.txt"), "ccc");
	assert_string_equal(ls("free/One"), "a,b.txt a.txt");
	assert_int_equal(put("free/One/a.txt", "new"), 0);
	command("sync");
	assert_string_equal(fake_text("r1", "a.txt"), "new");
	assert_string_equal(fake_text("r2", "c.txt"), "ccc");
}

static void test_a_local_file_gets_no_name_the_server_refuses(void **state)
{
	(void)state;
	with_rules();
	start("");
	assert_int_equal(put("free/One/x,y.part", "x"), 0);
	assert_int_equal(failed(rename(at("free/One/x,y.part"), at("free/One/x,y.txt"))), EINVAL);
	assert_int_equal(failed(rename(at("free/One/x,y.part"), at("fixed/Two/xy.txt"))), EPERM);
	assert_int_equal(failed(rename(at("free/One/x,y.part"), at("free/One/xy.txt"))), 0);
	command("sync");
	assert_string_equal(fake_text("r1", "xy.txt"), "x");
}

static void test_a_rename_by_hand_asks_whether_the_old_may_go(void **state)
{
	(void)state;
	with_rules();
	fake_caps.rename_in_place = false;
	start("");
	assert_int_equal(failed(rename(at("free/One/a,b.txt"), at("free/One/ab.txt"))), EPERM);
	assert_int_equal(failed(rename(at("free/One/a.txt"), at("free/One/b.txt"))), 0);
	assert_string_equal(ls("free/One"), "a,b.txt b.txt");
}

/* ---- check ---- */

static int few_findings(struct remote *r, remote_finding *each, remote_done *done, void *ctx)
{
	each(ctx, REMOTE_FINE, "credentials", "you are Ada");
	each(ctx, REMOTE_NOTE, "clock", "3 s ahead");
	return fake_ops.probe(r, TRANSFER_INTERACTIVE, done, ctx);
}

static int bad_finding(struct remote *r, remote_finding *each, remote_done *done, void *ctx)
{
	each(ctx, REMOTE_BAD, "may write", "no");
	return fake_ops.probe(r, TRANSFER_INTERACTIVE, done, ctx);
}

/* What it prints; the exit status in *@ret_status. */
static const char *check(int *ret_status)
{
	static char text[4096];
	char *argv[] = {(char *)"check", (char *)"rillsoft:http://127.0.0.1:1", NULL};
	char path[128];
	int file, saved;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/said", d.base);
	file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	fflush(stdout);
	saved = dup(STDOUT_FILENO);
	dup2(file, STDOUT_FILENO);
	*ret_status = check_run(2, argv);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	n = pread(file, text, sizeof(text) - 1, 0);
	close(file);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void test_check_prints_findings_and_lists_what_there_is(void **state)
{
	const char *said;
	int status;

	(void)state;
	two_projects();
	fake_ops.check = few_findings;
	said = check(&status);
	assert_int_equal(status, 0);
	assert_non_null(strstr(said, "ok    credentials: you are Ada\nnote  clock: 3 s ahead\n"));
	assert_non_null(strstr(said, "ok    collections: 2\nok    list Plant B (41)\n"));
	assert_non_null(strstr(said, "      1 records, 1 attachments\nok    list A/C (42)\n"));
	fake_ops.check = bad_finding;
	said = check(&status);
	assert_int_equal(status, 1);
	assert_non_null(strstr(said, "FAIL  may write: no\n"));
	fake_ops.list_collections = NULL;
	said = check(&status);
	assert_int_equal(status, 1);
	assert_non_null(strstr(said, "say collections=A:B"));
}

int main(void)
{
#define MOUNTED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		MOUNTED(test_the_servers_collections_are_the_root),
		MOUNTED(test_ids_of_collections_lead_to_them),
		MOUNTED(test_collections_come_go_and_are_renamed),
		MOUNTED(test_collections_are_those_of_the_ledger_while_offline),
		MOUNTED(test_offline_at_first_says_so_and_tries_again),
		MOUNTED(test_unsent_work_keeps_a_collection_that_is_gone),
		MOUNTED(test_names_of_collections_asked_for_are_learned),
		MOUNTED(test_a_server_that_lists_no_collections_must_be_told),
		MOUNTED(test_mkdir_makes_a_set),
		MOUNTED(test_directories_are_made_and_removed_nowhere_else),
		MOUNTED(test_rmdir_forgets_an_empty_set),
		MOUNTED(test_removals_outlive_the_set_and_the_mount),
		MOUNTED(test_a_set_is_found_by_its_id),
		MOUNTED(test_a_forgotten_set_comes_back_by_its_id),
		MOUNTED(test_files_of_a_flat_collection_stand_in_it),
		MOUNTED(test_a_flat_collection_that_cannot_be_listed_says_why),
		MOUNTED(test_what_a_server_cannot_do_is_refused_at_once),
		MOUNTED(test_a_local_file_gets_no_name_the_server_refuses),
		MOUNTED(test_a_rename_by_hand_asks_whether_the_old_may_go),
		MOUNTED(test_check_prints_findings_and_lists_what_there_is),
	};

	alarm(300);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
