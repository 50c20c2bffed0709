# SPDX-License-Identifier: MIT
"""
Writing: files of every size, copied, appended to, cut, overwritten in the middle, mapped, and
copied again; all of it byte-exact on the server, on the same attachment, with no more uploads than
closes.
"""

import ctypes
import errno
import mmap
import os
import random
import shutil
import sqlite3
import sys
import threading
import time
from contextlib import suppress

import pytest

from harness import (
    fallocate,
    libc,
    numbered,
    raises_errno,
    random_bytes,
    read_tree,
    run,
    seed_of_the_day,
    sha256,
    wait_until,
    write_tree,
)

BIG = 10_240_000
SIZES = [0, 1, 1023, 1024, 1025, 4096, 262_144, 262_145, BIG, BIG + 1, 20_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_a_new_file_of_any_size_arrives_exactly(drive, size):
    m = drive()
    data = random_bytes(size, "new")
    (m / "users/Nobody/new.bin").write_bytes(data)
    assert (m / "users/Nobody/new.bin").read_bytes() == data
    m.sync()
    attachment = m.emulator.file("users/Nobody/new.bin")
    assert (attachment["name"], attachment["filename"], attachment["size"]) == (
        "new.bin",
        "new.bin",
        size,
    )
    assert m.emulator.blob(attachment["id"]) == data


@pytest.mark.parametrize("size", SIZES)
def test_new_bytes_of_any_size_keep_the_remote_id(drive, system, size):
    m = drive()
    path = "users/Ada Byron/notes.txt"
    before = m.emulator.file(path)
    names, inode = set(m.emulator.files()), os.stat(m / path).st_ino
    data = random_bytes(size, "replaced")
    (m / path).write_bytes(data)
    m.sync()
    after = m.emulator.file(path)
    assert m.emulator.blob(after["id"]) == data
    assert (after["id"] == before["id"]) == system.replace_keeps_id
    assert os.stat(m / path).st_ino == inode
    assert set(m.emulator.files()) == names, "the old one is not there beside it"
    assert (after["name"], after["filename"]) == (before["name"], before["filename"])


@pytest.mark.parametrize("size", [4096, BIG + 1])
def test_what_was_sent_before_it_was_hashed_is_hashed_all_the_same(drive, size):
    m = drive()
    path = m / "users/Nobody/hashed.bin"
    path.write_bytes(random_bytes(size, "hashed"))
    m.sync()
    wait_until(lambda: "user.attachfs.xxh128" in os.listxattr(path), "the hash to be computed")
    assert m.xattr("users/Nobody/hashed.bin", "state") == "cached"


def test_cp_r_in_arrives_exactly(drive, scratch):
    m = drive()
    write_tree(
        scratch, {"in": {"Nobody": {**numbered(40, 3000), **numbered(10, 100, "small-%d.txt")}}}
    )
    run("cp", "-r", f"{scratch}/in/Nobody/.", m / "users/Nobody")
    m.sync()
    expected = read_tree(scratch / "in/Nobody")
    there = m.emulator.folder("users/Nobody")
    assert {name: m.emulator.blob(a["id"]) for name, a in there.items()} == expected


def test_rsync_in_twice_transfers_nothing_the_second_time_nor_after_a_remount(drive, scratch):
    m = drive(settle=1)
    write_tree(
        scratch,
        {
            "in": {
                "Nobody": {
                    **numbered(20, 3000),
                    "tiny.txt": b"x",
                    "empty": b"",
                    "large.bin": random_bytes(700_000),
                }
            }
        },
    )
    os.chmod(scratch / "in/Nobody/file-0003.txt", 0o755)
    os.utime(
        scratch / "in/Nobody/file-0004.txt",
        ns=(1_600_000_000_123_456_789, 1_600_000_000_987_654_321),
    )
    argv = ["rsync", "-ai", f"{scratch}/in/Nobody/", f"{m / 'users/Nobody'}/"]
    assert run(*argv).stdout != ""
    assert run(*argv).stdout == ""
    m.sync()
    assert run(*argv).stdout == "", "times do not jump when the upload ends"
    m.remount()
    assert run(*argv).stdout == "", "times and modes are kept in the ledger"
    m.emulator.reset()
    m.sync()
    assert m.emulator.uploads() == 0


def test_cp_a_in_keeps_mode_and_times_across_a_remount(drive, scratch):
    m = drive()
    source = scratch / "script.sh"
    source.write_bytes(b"#!/bin/sh\necho hello\n" * 100)
    source.chmod(0o751)
    os.utime(source, ns=(1_500_000_000_111_111_111, 1_500_000_001_222_222_222))
    run("cp", "-a", source, m / "users/Nobody/script.sh")
    for _ in range(2):
        st = os.stat(m / "users/Nobody/script.sh")
        assert st.st_mode & 0o7777 == 0o751
        assert st.st_mtime_ns == 1_500_000_001_222_222_222
        m.remount()


def test_a_second_machine_sees_the_bytes_and_the_time(drive, system):
    m = drive()
    path = m / "users/Nobody/new.txt"
    path.write_bytes(b"for everybody\n" * 200)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    m.forget_cache()
    assert path.read_bytes() == b"for everybody\n" * 200
    if system.sets_mtime:
        assert path.stat().st_mtime == 1_600_000_000


def test_appending(drive):
    m = drive()
    path = "users/Ada Byron/notes.txt"
    before = m.emulator.bytes_of(path)
    run("sh", "-c", f"echo one more line >> '{m / path}'; echo and another >> '{m / path}'")
    m.sync()
    assert m.emulator.bytes_of(path) == before + b"one more line\nand another\n"


@pytest.mark.parametrize("size", [0, 1, 1000, 5000, 262_144, 600_000, 900_000])
def test_truncate_up_and_down(drive, size):
    m = drive()
    path = "users/Ada Byron/large.bin"
    before = m.emulator.bytes_of(path)
    run("truncate", "-s", size, m / path)
    assert os.stat(m / path).st_size == size
    m.sync()
    assert m.emulator.bytes_of(path) == (before + bytes(max(0, size - len(before))))[:size]


def test_truncate_down_then_up_shows_zeros_not_the_old_bytes(drive):
    m = drive()
    path = "users/Ada Byron/large.bin"
    before = m.emulator.bytes_of(path)
    os.truncate(m / path, 1000)
    os.truncate(m / path, 500_000)
    assert (m / path).read_bytes() == before[:1000] + bytes(499_000)
    m.sync()
    assert m.emulator.bytes_of(path) == before[:1000] + bytes(499_000)


@pytest.mark.parametrize("cached", [False, True], ids=["not cached", "cached"])
def test_dd_notrunc_into_the_middle(drive, scratch, cached):
    m = drive()
    path = "users/Ada Byron/large.bin"
    before = bytearray(m.emulator.bytes_of(path))
    if cached:
        (m / path).read_bytes()
    patch = random_bytes(70_000, "patch")
    (scratch / "patch").write_bytes(patch)
    run("dd", f"if={scratch}/patch", f"of={m / path}", "bs=1000", "seek=301", "conv=notrunc")
    before[301_000:371_000] = patch
    assert (m / path).read_bytes() == before
    m.sync()
    assert m.emulator.bytes_of(path) == before


def test_dd_without_notrunc_and_with_seek_keeps_what_is_before(drive):
    m = drive()
    path = "users/Ada Byron/notes.txt"
    before = m.emulator.bytes_of(path)
    run("dd", "if=/dev/zero", f"of={m / path}", "bs=1", "seek=100", "count=1")
    m.sync()
    assert m.emulator.bytes_of(path) == before[:100] + b"\0"


def test_o_excl_makes_new_files_only(drive):
    m = drive()
    with raises_errno(errno.EEXIST):
        os.open(m / "users/Ada Byron/notes.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    fd = os.open(m / "users/Ada Byron/new.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    with raises_errno(errno.EEXIST):
        os.open(m / "users/Ada Byron/new.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, b"x" * 2000)
    os.close(fd)
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/new.txt") == b"x" * 2000


def test_o_excl_knows_what_was_never_listed_here(drive):
    m = drive()
    with raises_errno(errno.EEXIST):
        os.open(m / "events/Live fire/map.jpg", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_o_trunc_and_sparse_writes(drive):
    m = drive()
    path = "users/Ada Byron/large.bin"
    fd = os.open(m / path, os.O_RDWR | os.O_TRUNC)
    os.pwrite(fd, b"tail", 300_000)
    assert os.pread(fd, 10, 299_998) == b"\0\0tail"
    os.close(fd)
    m.sync()
    assert m.emulator.bytes_of(path) == bytes(300_000) + b"tail"


def test_random_writes_match_a_local_file(drive, scratch):
    chance = random.Random(seed_of_the_day())
    m = drive()
    path = "users/Ada Byron/large.bin"
    twin = scratch / "twin"
    twin.write_bytes(m.emulator.bytes_of(path))
    for _ in range(6):
        here, there = os.open(m / path, os.O_RDWR), os.open(twin, os.O_RDWR)
        for _ in range(25):
            what = chance.choice(["write", "write", "write", "truncate", "read", "append"])
            offset, length = chance.randrange(700_000), chance.choice([1, 500, 4096, 90_000])
            if what == "write":
                data = chance.randbytes(length)
                assert os.pwrite(here, data, offset) == os.pwrite(there, data, offset)
            elif what == "append":
                data = chance.randbytes(length)
                for fd in (here, there):
                    os.pwrite(fd, data, os.fstat(fd).st_size)
            elif what == "truncate":
                os.ftruncate(here, offset)
                os.ftruncate(there, offset)
            assert os.fstat(here).st_size == os.fstat(there).st_size
            assert os.pread(here, length, offset) == os.pread(there, length, offset), (
                what,
                offset,
                length,
            )
        os.close(here)
        os.close(there)
        if chance.random() < 0.5:
            m.sync()
            assert m.emulator.file(path)["sha256"] == sha256(twin.read_bytes())
        assert (m / path).read_bytes() == twin.read_bytes()


def test_shared_mapping_writes(drive):
    m = drive()
    path = "users/Ada Byron/large.bin"
    before = bytearray(m.emulator.bytes_of(path))
    run(
        sys.executable,
        "-c",
        "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0);"
        "m[100:105] = b'HELLO'; m[500000:500005] = b'WORLD'; m.flush(); m.close()",
        m / path,
    )
    before[100:105], before[500_000:500_005] = b"HELLO", b"WORLD"
    assert (m / path).read_bytes() == before
    m.sync()
    assert m.emulator.bytes_of(path) == before


def test_writing_through_a_mapping_after_close(drive):
    m = drive()
    path = "users/Ada Byron/large.bin"
    before = bytearray(m.emulator.bytes_of(path))
    run(
        sys.executable,
        "-c",
        "import mmap, os, sys; f = os.open(sys.argv[1], os.O_RDWR)\n"
        "m = mmap.mmap(f, 0); os.close(f)\n"
        "m[7:9] = b'!!'; m.close()",
        m / path,
    )
    before[7:9] = b"!!"
    assert (m / path).read_bytes() == before
    m.sync()
    wait_until(m.idle, "the mapping's bytes to be sent")
    m.sync()
    assert m.emulator.bytes_of(path) == before


def test_the_end_of_an_earlier_writer_does_not_commit_half_of_the_next_ones_bytes(drive):
    """
    The kernel tells of a handle's end some time after its close, here when a mapping goes: what the
    next program has written until then is not closed yet.
    """
    m = drive(settle=600)
    path = m / "users/Nobody/file"
    path.write_bytes(b"old" * 1000)
    first = os.open(path, os.O_RDWR)
    os.pwrite(first, b"OLD", 0)
    libc.mmap.restype = ctypes.c_void_p
    mapping = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, first, ctypes.c_long(0))
    assert mapping not in (None, ctypes.c_void_p(-1).value)
    os.close(first)
    second = os.open(path, os.O_WRONLY)
    os.pwrite(second, b"half of it", 100)
    assert libc.munmap(ctypes.c_void_p(mapping), 4096) == 0
    for _ in range(20):
        time.sleep(0.01)
        os.stat(path)
    m.kill9()
    with suppress(OSError):
        os.close(second)
    m.start()
    assert path.read_bytes() == b"OLD" + b"old" * 999


def test_a_database_in_wal_mode_lives_in_the_mount(drive):
    m = drive(settle=600)
    path = m / "users/Nobody/data.db"
    program = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
db.execute("CREATE TABLE t (n INTEGER)")
for i in range(20):
    with db:
        db.executemany("INSERT INTO t VALUES (?)", [(i * 100 + j,) for j in range(100)])
db.close()
"""
    run(sys.executable, "-c", program, path)
    m.sync()
    copy = m.base / "copy.db"
    copy.write_bytes(m.emulator.bytes_of("users/Nobody/data.db"))
    db = sqlite3.connect(copy)
    assert db.execute("SELECT count(*), sum(n) FROM t").fetchone() == (2000, sum(range(2000)))
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_saving_five_times_is_one_upload(drive, system):
    m = drive(settle=600, poll=0)
    path = "users/Ada Byron/notes.txt"
    m.emulator.reset()
    for i in range(5):
        (m / path).write_bytes(b"version %d\n" % i * 300)
    m.sync()
    assert m.emulator.uploads() == 1, m.emulator.calls()
    assert m.emulator.bytes_of(path) == b"version 4\n" * 300


def test_nothing_is_sent_before_the_settle_time_but_sync_does_not_wait_for_it(drive):
    m = drive(settle=600, poll=0)
    m.emulator.reset()
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 3000)
    assert m.status()["pending"]["uploads"] == 1
    assert m.emulator.uploads() == 0
    m.sync()
    assert m.status()["pending"]["uploads"] == 0
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 3000


def test_after_the_settle_time_it_goes_by_itself(drive):
    m = drive(settle=0.3)
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 3000)
    wait_until(lambda: "users/Nobody/new.txt" in m.emulator.files(), "the upload")
    wait_until(m.idle, "nothing pending")
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 3000


def test_write_through_has_it_on_the_server_at_close(drive):
    m = drive(write="through", settle=600)
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 3000)
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 3000
    (m / "users/Ada Byron/notes.txt").write_bytes(b"tiny")
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"tiny"


def test_fsync_remote_has_it_on_the_server_at_fsync(drive):
    m = drive(fsync="remote", settle=600)
    with open(m / "users/Nobody/new.txt", "wb") as f:
        f.write(b"x" * 3000)
        f.flush()
        os.fsync(f.fileno())
        assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 3000
        f.write(b"y" * 10)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 3000 + b"y" * 10


def test_local_names_stay_here_until_they_get_another(drive):
    m = drive(settle=0.1, poll=0)
    m.emulator.reset()
    for name in (
        ".notes.txt.swp",
        ".~lock.table.ods#",
        "film.mkv.part",
        ".goutputstream-XYZ",
        ".DS_Store",
    ):
        (m / "users/Nobody" / name).write_bytes(b"not for the server" * 100)
    m.sync()
    assert m.emulator.uploads() == 0
    assert not m.emulator.folder("users/Nobody")
    os.rename(m / "users/Nobody/film.mkv.part", m / "users/Nobody/film.mkv")
    for name in (".notes.txt.swp", ".~lock.table.ods#", ".goutputstream-XYZ", ".DS_Store"):
        assert (m / "users/Nobody" / name).read_bytes() == b"not for the server" * 100
        os.unlink(m / "users/Nobody" / name)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/film.mkv") == b"not for the server" * 100


def test_equal_bytes_written_again_end_equal(drive):
    m = drive()
    path = "users/Ada Byron/notes.txt"
    before = m.emulator.bytes_of(path)
    (m / path).write_bytes(before)
    m.sync()
    assert m.emulator.bytes_of(path) == before


def test_a_file_written_during_its_upload_ends_with_the_last_bytes(drive, system):
    m = drive(settle=0, poll=0)
    path = "users/Nobody/busy.txt"
    (m / path).write_bytes(b"first" * 1000)
    m.emulator.faults({**system.upload, "count": 3, "latency_ms": 600})
    for i in range(10):
        (m / path).write_bytes(b"version %d " % i * 500)
        threading.Event().wait(0.1)
    m.emulator.heal()
    m.sync()
    assert m.emulator.bytes_of(path) == b"version 9 " * 500
    assert list(m.emulator.folder("users/Nobody")) == ["busy.txt"]


def test_an_unfinished_file_is_not_on_the_server(drive):
    m = drive(settle=0)
    path = m / "users/Nobody/slow.bin"
    with open(path, "wb", buffering=0) as f:
        f.write(b"a" * 5000)
        m.sync(ok=None)
        present = m.emulator.files().get("users/Nobody/slow.bin")
        assert present is None or present["size"] == 5000, "never half of what was written"
        f.write(b"b" * 5000)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/slow.bin") == b"a" * 5000 + b"b" * 5000


def test_files_outside_records_are_refused(drive):
    m = drive()
    for folder in (m.path, m / "users", m / "users/Ada Byron/.by-id", m / "users/.by-id"):
        with raises_errno(errno.EPERM, errno.EACCES, errno.EROFS):
            (folder / "new.txt").write_bytes(b"nowhere to go")
        assert not (folder / "new.txt").exists()


def test_a_full_cache_is_enospc_at_write_and_never_loses_what_was_taken(drive, system):
    m = drive(cache_size=8_000_000, settle=600, poll=0)
    m.emulator.faults({**system.upload, "status": 503})
    m.allow_errors("503|ENOSPC|No space|space")
    kept = {}
    for i in range(8):
        data = random_bytes(2_000_000, i)
        try:
            with open(m / f"users/Nobody/file-{i}.bin", "wb", buffering=0) as f:
                done = 0
                while done < len(data):
                    done += f.write(data[done : done + 100_000])
        except OSError as e:
            assert e.errno == errno.ENOSPC
            os.unlink(m / f"users/Nobody/file-{i}.bin")
            break
        kept[f"file-{i}.bin"] = data
    else:
        raise AssertionError("16 MB of dirty data fit into a cache of 8 MB")
    assert len(kept) >= 2
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    assert {n: m.emulator.bytes_of(f"users/Nobody/{n}") for n in kept} == kept


def test_user_xattrs_survive_a_remount(drive):
    m = drive()
    path = m / "users/Ada Byron/notes.txt"
    os.setxattr(path, "user.comment", b"read me \0 twice")
    os.setxattr(path, "user.other", b"")
    with raises_errno(errno.EEXIST):
        os.setxattr(path, "user.comment", b"x", os.XATTR_CREATE)
    with raises_errno(errno.ENODATA):
        os.setxattr(path, "user.none", b"x", os.XATTR_REPLACE)
    os.setxattr(m / "users/Ada Byron", "user.color", b"blue")
    m.remount()
    assert os.getxattr(path, "user.comment") == b"read me \0 twice"
    assert os.getxattr(path, "user.other") == b""
    assert {"user.comment", "user.other"} <= set(os.listxattr(path))
    assert os.getxattr(m / "users/Ada Byron", "user.color") == b"blue"
    os.removexattr(path, "user.comment")
    with raises_errno(errno.ENODATA):
        os.getxattr(path, "user.comment")


def test_mode_and_times_survive_a_remount(drive):
    m = drive()
    path = m / "users/Ada Byron/notes.txt"
    os.chmod(path, 0o604)
    os.utime(path, ns=(1_111_111_111_000_000_001, 1_222_222_222_000_000_002))
    os.chmod(m / "users/Ada Byron", 0o711)
    m.remount()
    st = os.stat(path)
    assert st.st_mode & 0o7777 == 0o604
    assert st.st_mtime_ns == 1_222_222_222_000_000_002
    assert os.stat(m / "users/Ada Byron").st_mode & 0o7777 == 0o711


def test_read_only_mounts_refuse_every_change(drive):
    m = drive(ro=True)
    path = m / "users/Ada Byron/notes.txt"
    assert path.read_bytes() == m.emulator.bytes_of("users/Ada Byron/notes.txt")
    for attempt in (
        lambda: path.write_bytes(b"x"),
        lambda: os.unlink(path),
        lambda: os.rename(path, f"{path}2"),
        lambda: os.truncate(path, 0),
        lambda: os.chmod(path, 0o600),
        lambda: os.utime(path),
        lambda: os.mkdir(m / "users/Ada Byron/x"),
        lambda: os.setxattr(path, "user.x", b"x"),
        lambda: (m / "users/Ada Byron/new").write_bytes(b"x"),
    ):
        with raises_errno(errno.EROFS):
            attempt()


def test_copy_file_range_and_reflinking_tools_inside_the_mount(drive):
    m = drive()
    path = m / "users/Ada Byron/large.bin"
    source = os.open(path, os.O_RDONLY)
    target = os.open(m / "users/Nobody/copy.bin", os.O_RDWR | os.O_CREAT)
    left = os.fstat(source).st_size
    while left:
        done = os.copy_file_range(source, target, left)
        assert done > 0
        left -= done
    os.close(source)
    os.close(target)
    run("cp", "--reflink=auto", path, m / "users/Nobody/second.bin")
    shutil.copy2(path, m / "users/Nobody/third.bin")
    m.sync()
    for name in ("copy.bin", "second.bin", "third.bin"):
        assert (
            m.emulator.file(f"users/Nobody/{name}")["sha256"]
            == m.emulator.file("users/Ada Byron/large.bin")["sha256"]
        )


def test_fallocate_reserves_and_extends(drive):
    m = drive()
    fd = os.open(m / "users/Nobody/reserved.bin", os.O_RDWR | os.O_CREAT)
    fallocate(fd, 1, 0, 100_000)  # FALLOC_FL_KEEP_SIZE
    assert os.fstat(fd).st_size == 0
    fallocate(fd, 0, 0, 50_000)
    assert os.fstat(fd).st_size == 50_000
    with raises_errno(errno.EOPNOTSUPP):
        fallocate(fd, 3, 0, 4096)  # punch a hole
    os.close(fd)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/reserved.bin") == bytes(50_000)
