# SPDX-License-Identifier: MIT
"""
What the tree looks like: collections, records and attachments as directories and files, names,
sizes, times, identities, hidden control files; and what looking costs in calls.
"""

import errno
import json
import os
import stat
import sys

import pytest

from harness import (
    Directory,
    EPOCH,
    added,
    numbered,
    one_record,
    raises_errno,
    random_bytes,
    read_tree,
    run,
    sha256,
    small_tree,
    wait_until,
    with_id,
)


def seconds(when: str) -> int:
    """An emulator's timestamp in seconds since the epoch."""
    if isinstance(when, (int, float)):
        return int(when)
    from datetime import datetime, timezone

    return int(
        datetime.fromisoformat(when.replace("Z", "+00:00")[:19])
        .replace(tzinfo=timezone.utc)
        .timestamp()
    )


def test_the_working_directory_stays_one_while_the_first_listing_comes_in(drive):
    """The first that anybody does in the mount is to change into a record."""
    m = drive(start=False)
    m.start(look=False)
    program = "import os, time; time.sleep(0.3); print(os.getcwd())"
    told = run(sys.executable, "-c", program, cwd=m / "users/Ada Byron").stdout
    assert told == f"{m / 'users/Ada Byron'}\n"


def test_collections_are_the_top_directories(drive, system):
    m = drive()
    assert sorted(os.listdir(m.path)) == sorted(map(system.real_name, system.collections))


def test_other_collections_can_be_chosen(drive, system):
    m = drive(collections=("events",))
    assert os.listdir(m.path) == [system.real_name("events")]
    assert sorted(os.listdir(m / "events")) == ["Live fire", "Winter camp"]


def test_records_are_directories_named_by_their_titles(drive):
    m = drive()
    assert sorted(os.listdir(m / "users")) == ["Ada Byron", "Grace Hopper", "Nobody"]
    assert sorted(os.listdir(m / "events")) == ["Live fire", "Winter camp"]
    assert m.names("users/Nobody") == []
    assert (m / "users/Nobody").is_dir()


def test_attachments_have_true_sizes_and_times(drive):
    m = drive()
    for path, attachment in m.emulator.files().items():
        st = os.stat(m / path)
        assert stat.S_ISREG(st.st_mode)
        assert st.st_size == attachment["size"], path
        assert int(st.st_mtime) == seconds(attachment["updated_at"]), path
        assert st.st_mtime >= EPOCH


def test_files_belong_to_the_mounting_user(drive):
    m = drive()
    for path in ("users", "users/Ada Byron", "users/Ada Byron/notes.txt"):
        st = os.stat(m / path)
        assert (st.st_uid, st.st_gid) == (os.getuid(), os.getgid())
        assert not st.st_mode & 0o022


def test_ls_lr_find_and_du_agree_with_the_server(drive):
    m = drive()
    server = m.emulator.files()
    found = run("find", ".", "-type", "f", "-printf", "%P\t%s\n", cwd=m.path).stdout.splitlines()
    sizes = dict(line.split("\t") for line in found)
    assert {m.system.logical_path(p): int(size) for p, size in sizes.items()} == {
        p: a["size"] for p, a in server.items()
    }
    listing = run("ls", "-lR", "--time-style=+%s", m.path).stdout
    for path, attachment in server.items():
        name = path.split("/")[-1]
        lines = [line for line in listing.splitlines() if line.endswith(" " + name)]
        assert any(
            f" {attachment['size']} {seconds(attachment['updated_at'])} " in line for line in lines
        ), (name, lines)
    apparent = run("du", "-sb", "--apparent-size", m / "users/Ada Byron").stdout.split()[0]
    assert int(apparent) >= sum(
        a["size"] for p, a in server.items() if p.startswith("users/Ada Byron/")
    )


def test_sha256sum_of_every_file_is_the_servers(drive):
    m = drive()
    told = run("sh", "-c", "find . -type f -print0 | xargs -0 sha256sum", cwd=m.path).stdout
    here = {
        m.system.logical_path(line[66:].removeprefix("./")): line[:64] for line in told.splitlines()
    }
    assert here == {path: a["sha256"] for path, a in m.emulator.files().items()}


def test_tar_and_cp_a_take_everything_out(drive, scratch, system):
    m = drive()
    tops = map(system.real_name, system.collections)
    run("cp", "-a", m / "users", m / "events", scratch)
    run("tar", "-C", m.path, "-cf", scratch / "all.tar", *tops)
    (scratch / "untarred").mkdir()
    run("tar", "-C", scratch / "untarred", "-xf", scratch / "all.tar")
    for path, attachment in m.emulator.files().items():
        for folder in (scratch, scratch / "untarred"):
            copy = folder / system.real_path(path)
            assert sha256(copy.read_bytes()) == attachment["sha256"], copy
            assert int(copy.stat().st_mtime) == seconds(attachment["updated_at"]), copy


def test_rsync_out_twice_transfers_nothing_the_second_time(drive, scratch):
    m = drive()
    run("rsync", "-a", f"{m.path}/", f"{scratch}/copy/")
    assert run("rsync", "-ai", f"{m.path}/", f"{scratch}/copy/").stdout == ""


def test_a_plain_ls_of_1000_files_makes_no_blob_request(drive):
    m = drive(generate=["users:1:1000:4096"], poll=0)
    m.same_at_end = False
    record = os.listdir(m / "users")[0]
    m.emulator.reset()
    assert len(run("ls", m / "users" / record).stdout.splitlines()) == 1000
    assert m.emulator.blob_requests() == []
    assert sum(m.emulator.calls().values()) <= 3


def test_the_first_stat_learns_the_sizes_of_all_siblings_and_the_ledger_keeps_them(drive, system):
    if system.sizes_listed:
        return
    m = drive(generate=["users:1:200:4096"], poll=0)
    m.same_at_end = False
    record = m / f"users/{os.listdir(m / 'users')[0]}"
    names = sorted(os.listdir(record))
    m.emulator.faults(latency_ms=30)
    m.emulator.reset()
    assert os.stat(record / names[0]).st_size == 4096
    wait_until(lambda: m.emulator.summary()["blob"] >= 200, "all siblings to be asked")
    for name in names:
        assert os.stat(record / name).st_size == 4096
    probes = m.emulator.requests(port="blob")
    assert len(probes) == 200, "each size is asked once"
    assert all("0-0" in (r["range"] or "") for r in probes)
    assert not any(r["authorization"] for r in probes)
    assert m.emulator.summary()["max_parallel"] > 1
    m.emulator.heal()
    m.remount()
    m.emulator.reset()
    run("ls", "-l", record)
    assert m.emulator.summary()["blob"] == 0, "sizes are kept across mounts"


def test_a_listed_directory_answers_enoent_by_itself(drive):
    m = drive(poll=0)
    os.listdir(m / "users/Ada Byron")
    m.emulator.reset()
    for name in ("missing", "missing.txt", ".hidden", "notes.txt~"):
        with raises_errno(errno.ENOENT):
            os.stat(m / "users/Ada Byron" / name)
    with raises_errno(errno.ENOENT):
        os.stat(m / "users/No such record")
    with raises_errno(errno.ENOENT):
        os.stat(m / "no-such-collection")
    assert m.emulator.summary()["total"] == 0


def test_a_whole_collection_is_listed_with_few_calls(drive):
    m = drive(generate=["users:300:3:100", "events:300:3:100"], poll=0)
    m.same_at_end = False
    m.emulator.reset()
    found = run("find", m.path, "-type", "f", "-printf", "x").stdout
    assert len(found) == 1800
    assert sum(m.emulator.calls().values()) <= 10, m.emulator.calls()


def test_5000_entries_come_whole_and_once(drive):
    m = drive(generate=["events:1:5000:10"], poll=0)
    m.same_at_end = False
    record = m / f"events/{os.listdir(m / 'events')[0]}"
    names = os.listdir(record)
    assert len(names) == len(set(names)) == 5000


def test_readdir_resumes_at_every_offset_it_returned(drive):
    m = drive(tree={"users": {"Ada Byron": numbered(300)}, "events": {}})
    d = Directory(m / "users/Ada Byron")
    seen = []
    while True:
        position = d.tell()
        entry = d.read()
        if entry is None:
            break
        seen.append((position, entry[0]))
    names = [name for _, name in seen]
    assert names.count(b".") == names.count(b"..") == 1
    assert len(set(names)) == 302
    for i in list(range(0, len(seen), 17)) + [len(seen) - 1, 0, 1]:
        d.seek(seen[i][0])
        assert d.names() == names[i:]
    d.close()


def test_readdir_goes_on_while_entries_come_and_go(drive):
    m = drive(tree={"users": {"Ada Byron": numbered(400)}, "events": {}})
    record = m / "users/Ada Byron"
    staying = {os.fsencode(f"file-{i:04d}.txt") for i in range(0, 400, 2)}
    d = Directory(record)
    names = [d.read()[0] for _ in range(20)]
    for i in range(1, 400, 2):
        os.unlink(record / f"file-{i:04d}.txt")
        (record / f"new-{i}.txt").write_bytes(b"new" * 500)
    names += d.names()
    assert len(names) == len(set(names)), "nothing is shown twice"
    assert staying <= set(names), "what stayed is shown"
    d.rewind()
    again = set(d.names()) - {b".", b".."}
    assert again == staying | {b"new-%d.txt" % i for i in range(1, 400, 2)}
    d.close()


def test_d_type_and_d_ino_agree_with_stat(drive):
    m = drive()
    for folder in ("", "users", "users/Ada Byron"):
        for entry in os.scandir(m / folder):
            st = os.stat(entry.path, follow_symlinks=False)
            assert entry.inode() == st.st_ino
            assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(st.st_mode)
            assert entry.is_file(follow_symlinks=False) == stat.S_ISREG(st.st_mode)


def test_inode_numbers_are_unique_and_survive_a_remount(drive):
    def inodes():
        return {
            os.path.join(folder, name): os.stat(os.path.join(folder, name)).st_ino
            for folder, folders, files in os.walk(m.path)
            for name in folders + files
        }

    m = drive()
    before = inodes()
    assert len(set(before.values())) == len(before)
    m.remount()
    assert inodes() == before


def test_control_and_id_directories_are_hidden_but_there(drive):
    m = drive()
    assert ".attachfs" not in os.listdir(m.path)
    assert (m / ".attachfs").is_dir()
    assert {"status", "pending", "failed", "metrics"} <= set(os.listdir(m / ".attachfs"))
    for folder in ("users", "users/Ada Byron"):
        assert ".by-id" not in os.listdir(m / folder)
        assert (m / folder / ".by-id").is_dir()
    assert ".record.json" not in os.listdir(m / "users/Ada Byron")
    assert (m / "users/Ada Byron/.record.json").is_file()


def test_by_id_holds_a_link_per_id(drive):
    m = drive()
    server = m.emulator.files()
    notes = server["users/Ada Byron/notes.txt"]
    link = m / f"users/Ada Byron/.by-id/{notes['remote_id']}"
    assert link.is_symlink()
    assert link.read_bytes() == m.emulator.blob(notes["id"])
    assert link.resolve() == m / "users/Ada Byron/notes.txt"
    assert set(os.listdir(m / "users/Ada Byron/.by-id")) == {
        str(a["remote_id"]) for p, a in server.items() if p.startswith("users/Ada Byron/")
    }
    ada = m.emulator.record("users", "Ada Byron")["remote_id"]
    assert (m / f"users/.by-id/{ada}").resolve() == m / "users/Ada Byron"
    with raises_errno(errno.ENOENT):
        os.lstat(m / "users/Ada Byron/.by-id/999999")
    with raises_errno(errno.ENOENT):
        os.lstat(m / "users/.by-id/999999")


def test_by_id_follows_a_rename(drive, system):
    """Where it takes a new file on the server, the link is the new one's."""
    m = drive()
    ident = before = m.emulator.file("users/Ada Byron/notes.txt")["remote_id"]
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Grace Hopper/moved.txt")
    if not system.move_in_place:
        m.sync()
        ident = m.emulator.file("users/Grace Hopper/moved.txt")["remote_id"]
        assert ident != before
    link = m / f"users/Grace Hopper/.by-id/{ident}"
    assert link.resolve() == m / "users/Grace Hopper/moved.txt"
    m.sync()
    assert link.resolve() == m / "users/Grace Hopper/moved.txt"
    if ident != before:
        with raises_errno(errno.ENOENT):
            os.lstat(m / f"users/Grace Hopper/.by-id/{before}")
    with raises_errno(errno.ENOENT):
        os.lstat(m / f"users/Ada Byron/.by-id/{before}")


def test_record_json_reads(drive, system):
    m = drive()
    names, ident = system.record_fields
    for record in ("users/Ada Byron", "events/Live fire"):
        text = (m / record / ".record.json").read_text()
        fields = json.loads(text)
        fields = fields.get("data", fields)
        assert [fields[n] for n in names if n in fields] == [record.split("/")[1]]
        assert str(fields[ident]) == str(m.emulator.record(*record.split("/"))["remote_id"])
        assert text.endswith("\n")
    assert run("cat", m / "events/Live fire/.record.json").stdout == text


def test_xattrs_tell_what_is_behind_a_file(drive):
    m = drive()
    path = "users/Ada Byron/notes.txt"
    attachment = m.emulator.file(path)
    assert m.xattr(path, "id") == str(attachment["remote_id"])
    version = m.xattr(path, "version")
    assert version == attachment.get(m.system.version_field, version) != ""
    assert m.xattr(path, "state") == "remote"
    (m / path).read_bytes()
    assert m.xattr(path, "state") == "cached"
    wait_until(lambda: has_xattr(m / path, "user.attachfs.xxh128"), "the hash to be computed")
    assert len(m.xattr(path, "xxh128")) == 32
    if m.system.addresses:
        assert m.xattr(path, "url").startswith("http://")
    listed = os.listxattr(m / path)
    for name in ("id", "version", "state"):
        assert f"user.attachfs.{name}" in listed
    told = run("getfattr", "-d", m / path, ok=None) if os.path.exists("/usr/bin/getfattr") else None
    assert told is None or told.returncode == 0
    assert m.xattr("users/Ada Byron", "id") == str(
        m.emulator.record("users", "Ada Byron")["remote_id"]
    )
    with raises_errno(errno.ENODATA):
        os.getxattr(m / path, "user.attachfs.nonsense")


def has_xattr(path, name) -> bool:
    try:
        return bool(os.getxattr(path, name))
    except OSError:
        return False


def test_xattr_state_follows_a_write(drive):
    m = drive(settle=600)
    path = "users/Ada Byron/notes.txt"
    (m / path).write_bytes(b"new" * 1000)
    assert m.xattr(path, "state") == "dirty"
    m.sync()
    assert m.xattr(path, "state") == "cached"


def test_attachfs_xattrs_cannot_be_written(drive):
    m = drive()
    for name in ("id", "version", "state", "url"):
        with raises_errno(errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EROFS):
            os.setxattr(m / "users/Ada Byron/notes.txt", f"user.attachfs.{name}", b"x")
        with raises_errno(errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EROFS):
            os.removexattr(m / "users/Ada Byron/notes.txt", f"user.attachfs.{name}")


def test_statfs_asks_nobody(drive):
    m = drive(poll=0)
    m.emulator.reset()
    st = os.statvfs(m.path)
    assert st.f_bsize > 0 and st.f_blocks > 0 and 0 < st.f_bavail <= st.f_blocks
    assert st.f_namemax == 255
    assert "fuse.attachfs" in run("df", "-T", m.path).stdout
    assert m.emulator.summary()["total"] == 0


# Names


@pytest.mark.parametrize(
    "name, filename, shown",
    [
        ("Range card", "range-card.txt", "Range card.txt"),
        ("range-card.txt", "range-card.txt", "range-card.txt"),
        ("Range Card.TXT", "range-card.txt", "Range Card.TXT"),
        ("v1.2", "release.pdf", "v1.2.pdf"),
        ("no extension", "README", "no extension"),
        ("dotfile", ".profile", "dotfile"),
        ("a/b", "ab.txt", "a%2Fb.txt"),
        ("..", "x", "%2E%2E"),
        (".", "x", "%2E"),
        ("two\nlines", "x.txt", "two%0Alines.txt"),
        ("100% sure.txt", "x.txt", "100% sure.txt"),
        ("gr\u00fc\u00df dich \U0001f600.txt", "x.txt", "gr\u00fc\u00df dich \U0001f600.txt"),
        ("-rf", "x.txt", "-rf.txt"),
        ('it\'s "quoted" `here` $x', "a.b", 'it\'s "quoted" `here` $x.b'),
        (".attachfs", "x.txt", ".attachfs.txt"),
    ],
)
def test_the_label_is_shown_with_the_filenames_extension(drive, system, name, filename, shown):
    """Where a server has a label and a file name; elsewhere the one name is shown as it is."""
    if not system.label_shown:
        shown = system.shown(name, filename)
    assert system.shown(name, filename) == shown
    m = drive(tree=one_record(), changes=[added(name, filename)])
    if shown == ".attachfs":  # ours
        shown = with_id(shown, m.emulator.remote_id(m.changed[0]))
        m.same_at_end = False
    assert m.names("users/Ada Byron") == [shown]
    assert (m / "users/Ada Byron" / shown).read_bytes() == b"hello"


def test_names_filename_shows_the_file_name_instead(drive, system):
    """A server that has one name only shows that, whatever is asked for."""
    m = drive(tree=one_record(), changes=[added("Range card", "rc.txt")], names="filename")
    m.same_at_end = False
    assert m.names("users/Ada Byron") == ["rc.txt" if system.has_filename else "Range card"]


def test_names_that_look_like_ours_do_not_hide_ours(drive):
    ours = [".by-id", ".record.json"]
    m = drive(tree=one_record(), changes=[added(n, text="impostor") for n in ours])
    m.same_at_end = False
    assert (m / "users/Ada Byron/.by-id").is_dir()
    assert json.loads((m / "users/Ada Byron/.record.json").read_text())
    names = m.names("users/Ada Byron")
    assert len(names) == 2
    for name in names:
        assert (m / "users/Ada Byron" / name).read_bytes() == b"impostor"


def test_equal_names_get_their_id_before_the_extension_and_the_oldest_keeps_the_plain_one(
    drive, system
):
    """Where a record has one file per name, they are versions of it."""
    texts = ["oldest", "middle", "youngest"]
    m = drive(tree=one_record(), changes=[added("plan.txt", text=t) for t in texts])
    _, middle, youngest = map(m.emulator.remote_id, m.changed)
    expected = {
        "plan.txt": b"oldest",
        f"plan ({middle}).txt": b"middle",
        f"plan ({youngest}).txt": b"youngest",
    }
    if system.names_unique:
        expected = {"plan.txt": b"youngest"}
    for _ in range(2):
        assert m.names("users/Ada Byron") == sorted(expected)
        for name, data in expected.items():
            assert (m / "users/Ada Byron" / name).read_bytes() == data
        m.remount()


def test_equal_record_names_get_their_id_too(drive):
    m = drive(tree={"users": {}, "events": {"Drill": {"a.txt": b"first"}}}, start=False)
    m.emulator.clock(60)  # younger by what every server's times can tell
    (second,) = m.emulator.change({"op": "add_record", "collection": "events", "name": "Drill"})
    m.emulator.clock(0)
    m.emulator.change(added("b.txt", text="second", collection="events", record=second))
    (ident,) = [
        r["remote_id"]
        for r in m.emulator.state()["records"]
        if (r["collection"], r["id"]) == ("events", second)
    ]
    m.start()
    assert sorted(os.listdir(m / "events")) == ["Drill", f"Drill ({ident})"]
    assert (m / f"events/Drill ({ident})/b.txt").read_bytes() == b"second"


def test_a_name_longer_than_a_name_may_be_is_shortened_with_its_id(drive):
    long = "\u00e4" * 250 + ".txt"
    m = drive(tree=one_record(), changes=[added(long)])
    m.same_at_end = False
    ident = m.emulator.remote_id(m.changed[0])
    (name,) = m.names("users/Ada Byron")
    assert len(os.fsencode(name)) <= 255
    assert name.startswith("\u00e4" * 50) and name.endswith(".txt") and str(ident) in name
    assert (m / "users/Ada Byron" / name).read_bytes() == b"hello"
    with raises_errno(errno.ENOENT, errno.ENAMETOOLONG):
        os.stat(m / "users/Ada Byron" / long)


# What changes on the server


def test_changes_on_the_server_show_up(drive):
    m = drive(poll=1)
    record = m / "users/Ada Byron"
    ids = {
        p.split("/")[-1]: a["id"]
        for p, a in m.emulator.files().items()
        if p.startswith("users/Ada Byron/")
    }
    assert (record / "notes.txt").read_bytes().startswith(b"line 0")
    m.emulator.clock(5)
    m.emulator.change(
        added("new.txt", text="fresh"),
        {"op": "rename", "id": ids["logo.png"], "name": "emblem.png", "filename": "emblem.png"},
        {"op": "replace", "id": ids["notes.txt"], "text": "rewritten elsewhere"},
        {"op": "delete", "id": ids["tiny.txt"]},
    )
    wait_until(
        lambda: m.names("users/Ada Byron")
        == ["emblem.png", "empty.txt", "large.bin", "new.txt", "notes.txt"],
        "the listing to follow the server",
    )
    assert (record / "new.txt").read_bytes() == b"fresh"
    wait_until(lambda: (record / "notes.txt").read_bytes() == b"rewritten elsewhere", "new bytes")
    assert (record / "notes.txt").stat().st_size == 19


def test_refresh_brings_changes_without_polling(drive):
    m = drive(poll=0)
    os.listdir(m / "users/Ada Byron")
    m.emulator.clock(5)
    m.emulator.change(added("new.txt", text="fresh"))
    m.command("refresh")
    wait_until(lambda: "new.txt" in os.listdir(m / "users/Ada Byron"), "the new file")


def test_an_open_file_is_one_version_never_a_mix(drive):
    m = drive(
        poll=1, tree={"users": {"Ada Byron": {"big.bin": random_bytes(12_000_000)}}, "events": {}}
    )
    path = m / "users/Ada Byron/big.bin"
    old = random_bytes(12_000_000)
    ident = m.emulator.file("users/Ada Byron/big.bin")["id"]
    fd = os.open(path, os.O_RDONLY)
    assert os.pread(fd, 4096, 0) == old[:4096]
    version = m.xattr("users/Ada Byron/big.bin", "version")
    m.emulator.clock(5)
    m.emulator.change({"op": "replace", "id": ident, "size": 12_000_001})
    wait_until(
        lambda: m.xattr("users/Ada Byron/big.bin", "version") != version,
        "the new version to be known",
    )
    for offset in (0, 4096, 6_000_000, 11_990_000):
        try:
            assert os.pread(fd, 4096, offset) == old[offset : offset + 4096]
        except OSError as e:
            assert e.errno == errno.ESTALE
    os.close(fd)
    new = m.emulator.bytes_of("users/Ada Byron/big.bin")
    assert new != old
    assert path.read_bytes() == new


def test_two_machines_see_each_others_work(mount, emulator):
    server = emulator(tree=small_tree())
    one, two = mount(server, poll=1, settle=0), mount(server, poll=1, settle=0)
    assert read_tree(two.path) == read_tree(one.path)
    (one / "users/Nobody/hello.txt").write_bytes(b"from one" * 200)
    os.rename(one / "events/Live fire/map.jpg", one / "events/Live fire/chart.jpg")
    one.sync()
    wait_until(lambda: os.path.exists(two / "users/Nobody/hello.txt"), "the file to arrive")
    wait_until(lambda: os.path.exists(two / "events/Live fire/chart.jpg"), "the rename to arrive")
    assert (two / "users/Nobody/hello.txt").read_bytes() == b"from one" * 200
    os.unlink(two / "users/Nobody/hello.txt")
    two.sync()
    wait_until(lambda: not os.path.exists(one / "users/Nobody/hello.txt"), "the file to go")
