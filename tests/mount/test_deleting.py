# SPDX-License-Identifier: MIT
"""
Deleting: one, hundreds in few calls, what was never uploaded, what is gone already, what is still
open, and what cannot be deleted.
"""

import errno
import os

from harness import numbered, raises_errno, run, wait_until


def test_rm_removes_the_attachment(drive):
    m = drive(poll=0)
    run("rm", m / "users/Ada Byron/notes.txt")
    assert "notes.txt" not in os.listdir(m / "users/Ada Byron")
    with raises_errno(errno.ENOENT):
        os.stat(m / "users/Ada Byron/notes.txt")
    m.sync()
    assert "users/Ada Byron/notes.txt" not in m.emulator.files()
    m.remount()
    assert "notes.txt" not in os.listdir(m / "users/Ada Byron")


def test_500_files_deleted_cost_few_calls_where_one_takes_many(drive, system):
    m = drive(
        tree={"users": {"Ada Byron": {**numbered(500), "kept.txt": b"k" * 2000}}, "events": {}},
        poll=0,
    )
    os.listdir(m / "users/Ada Byron")
    m.emulator.reset()
    run("sh", "-c", 'for f in file-*; do rm "$f"; done', cwd=m / "users/Ada Byron")
    m.sync()
    calls = m.emulator.calls()
    assert list(m.emulator.files()) == ["users/Ada Byron/kept.txt"]
    assert sum(calls.values()) <= system.calls_to_remove(500), calls
    if system.batch_remove:
        batches = [r for r in m.emulator.requests() if r["endpoint"] == system.batch_remove]
        assert batches and all(r["request_bytes"] > 0 for r in batches)


def test_rm_r_of_everything_leaves_the_records(drive):
    m = drive(poll=0)
    told = run("rm", "-rf", m / "users/Ada Byron", ok=False)
    assert "Operation not permitted" in told.stderr
    m.sync()
    assert os.listdir(m / "users/Ada Byron") == []
    assert m.emulator.record_id("users", "Ada Byron")
    assert not any(p.startswith("users/Ada Byron/") for p in m.emulator.files())


def test_what_was_never_uploaded_costs_nothing_to_delete(drive):
    m = drive(poll=0, settle=600)
    os.listdir(m / "users/Nobody")
    m.emulator.reset()
    for i in range(20):
        (m / f"users/Nobody/{i}.tmp").write_bytes(b"x" * 2000)
        os.rename(m / f"users/Nobody/{i}.tmp", m / f"users/Nobody/{i}.out")
    run("sh", "-c", "rm *.out", cwd=m / "users/Nobody")
    m.sync()
    assert m.emulator.uploads() == 0
    assert sum(m.emulator.calls().values()) <= 2, m.emulator.calls()
    assert m.status()["cache"]["dirty"] == 0


def test_a_file_deleted_during_its_upload_does_not_stay(drive, system):
    m = drive(poll=0, settle=0)
    for size in (100, 5000):
        m.emulator.faults({**system.upload, "count": 1, "latency_ms": 800})
        (m / "users/Nobody/new.txt").write_bytes(b"x" * size)
        wait_until(
            lambda: m.emulator.struck() or m.status()["pending"]["uploads"], "the upload to begin"
        )
        run("sleep", "0.3")
        os.unlink(m / "users/Nobody/new.txt")
        m.emulator.heal()
        m.sync()
        assert not m.emulator.folder("users/Nobody")
        assert m.names("users/Nobody") == []


def test_deleted_and_made_again_is_one_file(drive):
    m = drive(poll=0)
    for i in range(3):
        os.unlink(m / "users/Ada Byron/notes.txt")
        (m / "users/Ada Byron/notes.txt").write_bytes(b"again %d " % i * 300)
        if i == 1:
            m.sync()
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"again 2 " * 300
    assert sum(p.startswith("users/Ada Byron/notes") for p in m.emulator.files()) == 1


def test_what_is_gone_already_is_deleted_without_complaint(drive):
    m = drive(poll=0)
    os.listdir(m / "users/Ada Byron")
    m.emulator.change({"op": "delete", "id": m.emulator.file("users/Ada Byron/notes.txt")["id"]})
    os.unlink(m / "users/Ada Byron/notes.txt")
    os.unlink(m / "users/Ada Byron/logo.png")
    m.sync()
    assert m.status()["failed"] in (0, [])
    assert "users/Ada Byron/logo.png" not in m.emulator.files()


def test_renamed_then_deleted_is_only_deleted(drive, system):
    m = drive(poll=0)
    os.listdir(m / "users/Ada Byron")
    m.emulator.reset()
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron/other.txt")
    third = m / system.far_record / "third.txt"
    os.rename(m / "users/Ada Byron/other.txt", third)
    os.unlink(third)
    m.sync()
    assert not any("notes" in p or "other" in p or "third" in p for p in m.emulator.files())
    # listed where it is and before it is deleted; deleted; verified (P-13)
    assert sum(m.emulator.calls().values()) <= 4, m.emulator.calls()


def test_an_open_deleted_file_lives_on_here_only(drive):
    m = drive(poll=0, settle=0)
    data = m.emulator.bytes_of("users/Ada Byron/large.bin")
    fd = os.open(m / "users/Ada Byron/large.bin", os.O_RDWR)
    os.unlink(m / "users/Ada Byron/large.bin")
    assert "large.bin" not in os.listdir(m / "users/Ada Byron")
    assert os.pread(fd, len(data) + 1, 0) == data
    assert os.fstat(fd).st_nlink == 0
    os.pwrite(fd, b"written after death", 10)
    os.ftruncate(fd, 50)
    assert os.pread(fd, 100, 0) == (data[:10] + b"written after death" + data[29:])[:50]
    m.sync()
    os.close(fd)
    m.sync()
    assert "users/Ada Byron/large.bin" not in m.emulator.files()


def test_unlink_in_a_directory_of_ours_is_refused(drive):
    m = drive()
    for path in (".attachfs/status", "users/Ada Byron/.record.json"):
        with raises_errno(errno.EPERM, errno.EACCES, errno.EROFS):
            os.unlink(m / path)
    ident = m.xattr("users/Ada Byron/notes.txt", "id")
    with raises_errno(errno.EPERM, errno.EACCES, errno.EROFS):
        os.unlink(m / f"users/Ada Byron/.by-id/{ident}")
    with raises_errno(errno.EISDIR, errno.EPERM):
        os.unlink(m / "users/Ada Byron")
    with raises_errno(errno.ENOTDIR):
        os.rmdir(m / "users/Ada Byron/notes.txt")
    assert (m / "users/Ada Byron/notes.txt").exists()


def test_a_record_emptied_here_stays_and_can_be_filled_again(drive, system):
    """Also where the server shows no record without files: there as long as this mount lasts."""
    m = drive(poll=0)
    run("sh", "-c", "rm *", cwd=m / "users/Ada Byron")
    m.sync()
    inode = os.stat(m / "users/Ada Byron").st_ino
    for _ in range(2):
        m.command("refresh")
        assert "Ada Byron" in os.listdir(m / "users")
        assert os.listdir(m / "users/Ada Byron") == []
    (m / "users/Ada Byron/new.txt").write_bytes(b"back again")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/new.txt") == b"back again"
    os.unlink(m / "users/Ada Byron/new.txt")
    m.sync()
    if system.hides_empty:
        m.command("refresh")
        assert os.stat(m / "users/Ada Byron").st_ino == inode
        m.remount()
        assert sorted(os.listdir(m / "users")) == ["Grace Hopper", "Nobody"]
        return
    m.remount()
    assert os.stat(m / "users/Ada Byron").st_ino == inode
    (m / "users/Ada Byron/new.txt").write_bytes(b"and again")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/new.txt") == b"and again"
