# SPDX-License-Identifier: MIT
"""
When a call returns: write=through (close, rename, unlink, truncate and utimens return the server's
answer), fsync=remote (fsync, O_SYNC and O_DSYNC do). And what never changes by itself: the time,
mode, size and attributes of a file while it is written, uploaded, acknowledged, polled, renamed,
mounted again.
"""

import errno
import json
import os
import subprocess
import threading
import time

import pytest

from harness import (
    ENTERPRISE_TESTER,
    PERSCOM,
    RENAME_EXCHANGE,
    SLOW,
    raises_errno,
    random_bytes,
    renameat2,
    run,
    utimensat,
    wait_until,
)

TROUBLE = (
    r"50\d|403|413|422|400|refused|parked|connect|reach|lost|offline|waits for you|denied|kept"
)
ADA = "users/Ada Byron"
NOTES = f"{ADA}/notes.txt"


def through(drive, **more):
    return drive(write="through", settle=600, poll=0, **more)


def names_there(m, record=ADA) -> list:
    return sorted(m.emulator.folder(record))


# write=through: every call returns when the server has it


def test_through_creating_and_overwriting(drive):
    m = through(drive)
    for size in (10, 5000, 300_000):
        (m / ADA / "new.bin").write_bytes(random_bytes(size, "a"))
        assert m.emulator.bytes_of(f"{ADA}/new.bin") == random_bytes(size, "a")
    with open(m / NOTES, "r+b") as f:
        f.seek(100)
        f.write(b"in the middle")
        expected = m.emulator.bytes_of(NOTES)
    expected = expected[:100] + b"in the middle" + expected[113:]
    assert m.emulator.bytes_of(NOTES) == expected
    with open(m / NOTES, "ab") as f:
        f.write(b"at the end")
    assert m.emulator.bytes_of(NOTES) == expected + b"at the end"
    os.mknod(m / ADA / "node", 0o100644)
    assert m.emulator.bytes_of(f"{ADA}/node") == b""
    assert m.idle()


def test_through_renaming_and_moving(drive, system):
    m = through(drive)
    data = m.emulator.bytes_of(NOTES)
    os.rename(m / NOTES, m / ADA / "renamed.txt")
    assert m.emulator.bytes_of(f"{ADA}/renamed.txt") == data
    assert "notes.txt" not in names_there(m)
    os.rename(m / ADA / "renamed.txt", m / "users/Grace Hopper/moved.txt")
    assert m.emulator.bytes_of("users/Grace Hopper/moved.txt") == data
    assert "renamed.txt" not in names_there(m)
    os.rename(m / "users/Grace Hopper/moved.txt", m / "users/Grace Hopper/readme")
    assert m.emulator.bytes_of("users/Grace Hopper/readme") == data
    assert names_there(m, "users/Grace Hopper") == ["cobol.pdf", "readme"]
    assert m.idle()


def test_through_an_exchange_of_records_is_answered_when_it_is_done(drive, system):
    m = through(drive)
    mine, theirs = m / ADA / "a.txt", m / "users/Grace Hopper/b.txt"
    mine.write_bytes(b"mine" * 1000)
    theirs.write_bytes(b"theirs" * 1000)
    renameat2(mine, theirs, RENAME_EXCHANGE)
    assert m.emulator.bytes_of(f"{ADA}/a.txt") == b"theirs" * 1000
    assert m.emulator.bytes_of("users/Grace Hopper/b.txt") == b"mine" * 1000


def test_through_saving_by_a_rename(drive, system):
    m = through(drive)
    before = m.emulator.file(NOTES)["id"]
    (m / ADA / "notes.txt.new").write_bytes(b"saved " * 500)
    os.rename(m / ADA / "notes.txt.new", m / NOTES)
    assert m.emulator.bytes_of(NOTES) == b"saved " * 500
    assert "notes.txt.new" not in names_there(m)
    assert m.idle()
    assert before  # which id it has is the plan's business, once both have been sent


def test_through_removing(drive):
    m = through(drive)
    os.unlink(m / NOTES)
    assert "notes.txt" not in names_there(m)
    (m / ADA / "new.txt").write_bytes(b"new")
    os.unlink(m / ADA / "new.txt")
    assert "new.txt" not in names_there(m)
    m.emulator.change({"op": "delete", "id": m.emulator.file(f"{ADA}/logo.png")["id"]})
    os.unlink(m / ADA / "logo.png")  # gone there already: what was wanted
    assert m.idle()


def test_through_truncating_and_setting_times(drive, system):
    m = through(drive)
    data = m.emulator.bytes_of(NOTES)
    os.truncate(m / NOTES, 1000)
    assert m.emulator.bytes_of(NOTES) == data[:1000]
    os.truncate(m / NOTES, 0)
    assert m.emulator.bytes_of(NOTES) == b""
    os.utime(m / ADA / "logo.png", (1_650_000_000, 1_650_000_000))
    if system.sets_mtime:
        assert "2022-04-15T05:20:00" in m.emulator.file(f"{ADA}/logo.png")["updated_at"]
    assert os.stat(m / ADA / "logo.png").st_mtime == 1_650_000_000
    assert m.idle()


def test_through_what_is_not_the_servers_costs_no_call(drive):
    m = through(drive)
    os.stat(m / NOTES)
    m.emulator.reset()
    os.chmod(m / NOTES, 0o600)
    os.setxattr(m / NOTES, "user.mine", b"x")
    os.close(os.open(m / NOTES, os.O_RDWR))
    assert m.emulator.calls() == {}


def test_through_a_record_is_renamed(drive, system):
    if "events" not in system.renamable:
        pytest.skip("events keep their names")
    m = through(drive)
    os.rename(m / "events/Live fire", m / "events/Dry run")
    assert m.emulator.record("events", "Dry run")
    saved = m / "events/Dry run/record.tmp"
    fields = json.loads((m / "events/Dry run/.record.json").read_text())
    saved.write_text(json.dumps({**fields, "description": "other words"}))
    os.rename(saved, m / "events/Dry run/.record.json")
    assert m.emulator.record("events", "Dry run")["description"] == "other words"
    assert "record.tmp" not in m.emulator.folder("events/Dry run")


@pytest.mark.parametrize("system", [ENTERPRISE_TESTER], ids=lambda s: s.name)
def test_through_a_set_is_made_filled_emptied_and_forgotten(drive, system):
    m = through(drive, collections=("users", "events", "sets"))
    m.same_at_end = False
    (m / "sets/mine").mkdir()
    ident = m.xattr("sets/mine", "id")
    (m / "sets/mine/a.txt").write_bytes(b"one of a set")
    found = [a for a in m.emulator.attachments() if a["record_remote_id"] == ident]
    assert [m.emulator.blob(a["id"]) for a in found] == [b"one of a set"]
    os.unlink(m / "sets/mine/a.txt")
    assert not [a for a in m.emulator.attachments() if a["record_remote_id"] == ident]
    (m / "sets/mine").rmdir()
    assert os.listdir(m / "sets") == []


def refuse(m, rule: dict, status: int = 403) -> None:
    body = m.system.refusal("The words of the server.")
    m.emulator.faults({**rule, "status": status, "body": body})


def test_through_a_refusal_is_the_errno_of_the_call(drive, system):
    m = through(drive)
    m.allow_errors(TROUBLE)
    m.same_at_end = False
    for path in (NOTES, f"{ADA}/logo.png", f"{ADA}/tiny.txt", f"{ADA}/empty.txt"):
        (m / path).read_bytes()
    m.emulator.faults(
        m.system.reads,
        {**m.system.writes, "status": 403, "body": m.system.refusal("The words of the server.")},
    )
    with raises_errno(errno.EACCES):
        (m / ADA / "new.txt").write_bytes(b"new" * 1000)
    with raises_errno(errno.EACCES):
        (m / NOTES).write_bytes(b"other" * 1000)
    with raises_errno(errno.EACCES):
        os.rename(m / ADA / "logo.png", m / ADA / "emblem.png")
    with raises_errno(errno.EACCES):
        os.unlink(m / ADA / "tiny.txt")
    with raises_errno(errno.EACCES):
        os.truncate(m / ADA / "empty.txt", 5000)
    failed = (m.path / ".attachfs/failed").read_text()
    assert failed.count("The words of the server.") >= 5, failed
    # the kernel had not been told, and looks again
    wait_until(lambda: (m / ADA / "emblem.png").exists(), "the new name to be seen")
    wait_until(lambda: not (m / ADA / "logo.png").exists(), "the old name to go")
    wait_until(lambda: not (m / ADA / "tiny.txt").exists(), "the deleted name to go")
    # nothing of it is lost, and all of it goes when the server lets it
    assert (m / ADA / "new.txt").read_bytes() == b"new" * 1000
    m.emulator.heal()
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/new.txt") == b"new" * 1000
    assert m.emulator.bytes_of(NOTES) == b"other" * 1000
    assert "emblem.png" in names_there(m) and "logo.png" not in names_there(m)
    assert "tiny.txt" not in names_there(m)
    m.same_at_end = True


@pytest.mark.parametrize("status", [413, 422])
def test_through_what_is_too_large_is_efbig_or_einval_at_close(drive, status):
    m = through(drive)
    m.allow_errors(TROUBLE + "|large|size")
    m.same_at_end = False
    m.check_at_end = False  # what is parked stays, and umount says so
    refuse(m, m.system.upload, status)
    with raises_errno(errno.EFBIG if status == 413 else errno.EINVAL):
        (m / ADA / "big.bin").write_bytes(b"big" * 10_000)
    assert m.xattr(f"{ADA}/big.bin", "state") == "parked"
    m.emulator.heal()


def test_through_without_a_server_fails_soon_and_keeps_what_was_written(mount, emulator, gate):
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"a"}}, "events": {}})
    door = gate(server)
    m = mount(server, source=server.system.source(door.url), write="through", poll=0, timeout=600)
    m.allow_errors(TROUBLE + "|EHOSTDOWN|down")
    os.listdir(m / ADA)
    door.shut()
    # a deadline of ten minutes would be noticed
    with raises_errno(errno.EHOSTDOWN):
        (m / ADA / "new.txt").write_bytes(b"new")
    with raises_errno(errno.EHOSTDOWN):
        os.rename(m / ADA / "a.txt", m / ADA / "b.txt")
    door.open()
    m.command("retry")
    m.sync()
    assert server.bytes_of(f"{ADA}/new.txt") == b"new"
    assert sorted(server.folder(ADA)) == ["b.txt", "new.txt"]


def test_through_a_silent_server_is_etimedout_and_the_file_goes_later(drive):
    m = through(drive, timeout=1)
    m.allow_errors(TROUBLE + "|answer|time|cancel|stall")
    os.listdir(m / "users/Nobody")
    m.emulator.faults({**m.system.upload, "hang": True})
    with raises_errno(errno.ETIMEDOUT):
        (m / "users/Nobody/new.txt").write_bytes(b"new" * 1000)
    m.emulator.heal()
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new" * 1000


def test_through_local_names_wait_for_nothing(drive):
    m = through(drive)
    os.listdir(m / ADA)
    m.emulator.reset()
    (m / ADA / "film.part").write_bytes(b"half")
    os.unlink(m / ADA / "film.part")
    assert m.emulator.calls() == {}


def test_through_a_shell_never_shows_an_empty_file(drive):
    """It opens, copies the descriptor, closes the first one, and writes."""
    m = through(drive)
    old = m.emulator.file(NOTES)["size"]
    os.listdir(m / "users/Nobody")
    os.stat(m / NOTES)
    m.emulator.reset()
    run("sh", "-c", "echo some words > notes.txt; echo other words > new.txt", cwd=m / ADA)
    assert m.emulator.bytes_of(NOTES) == b"some words\n" and old
    assert m.emulator.bytes_of(f"{ADA}/new.txt") == b"other words\n"
    assert m.emulator.uploads() <= (3 if m.system.create_min else 2)
    m.emulator.reset()
    (m / ADA / "empty.bin").write_bytes(b"")
    assert m.emulator.uploads() == 0
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/empty.bin") == b""


def test_through_an_empty_file_goes_when_it_has_settled(drive):
    m = drive(write="through", settle=0, poll=0)
    (m / ADA / "empty.bin").write_bytes(b"")
    wait_until(lambda: "empty.bin" in m.emulator.folder(ADA), "it to go by itself")


# fsync=remote


@pytest.mark.parametrize("flag", [0, os.O_SYNC, os.O_DSYNC], ids=["fsync", "O_SYNC", "O_DSYNC"])
def test_fsync_remote_is_on_the_server_when_it_returns(drive, flag):
    m = drive(fsync="remote", settle=600, poll=0)
    fd = os.open(m / ADA / "log.txt", os.O_CREAT | os.O_WRONLY | flag, 0o644)
    written = b""
    for i in range(3):
        line = b"line %d of the log\n" % i * 100
        assert os.write(fd, line) == len(line)
        written += line
        if not flag:
            os.fsync(fd)
        assert m.emulator.bytes_of(f"{ADA}/log.txt") == written
    os.close(fd)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC], ids=["O_SYNC", "O_DSYNC"])
def test_a_synchronous_write_is_safe_here_before_any_close(drive, flag):
    m = drive(settle=600, poll=0)
    fd = os.open(m / ADA / "log.txt", os.O_CREAT | os.O_WRONLY | flag, 0o644)
    os.write(fd, b"written and told so\n")
    m.kill9()
    try:
        os.close(fd)
    except OSError:
        pass
    m.start()
    assert (m / ADA / "log.txt").read_bytes() == b"written and told so\n"


def test_fsync_remote_of_a_directory_waits_for_its_names(drive):
    m = drive(fsync="remote", settle=600, poll=0)
    data = m.emulator.bytes_of(NOTES)
    os.rename(m / NOTES, m / ADA / "renamed.txt")
    os.unlink(m / ADA / "logo.png")
    (m / ADA / "new.txt").write_bytes(b"new")
    (m / "users/Grace Hopper/other.txt").write_bytes(b"of another directory")
    fd = os.open(m / ADA, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
    there = names_there(m)
    assert m.emulator.bytes_of(f"{ADA}/renamed.txt") == data
    assert "new.txt" in there and "logo.png" not in there and "notes.txt" not in there


@pytest.mark.parametrize("status, number", [(413, errno.EFBIG), (403, errno.EACCES)])
def test_fsync_remote_tells_what_the_server_refuses_and_close_does_not(drive, status, number):
    m = drive(fsync="remote", settle=600, poll=0)
    m.allow_errors(TROUBLE + "|large|size")
    m.same_at_end = False
    refuse(m, m.system.upload, status)
    fd = os.open(m / ADA / "big.bin", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, b"big" * 5000)
    with raises_errno(number):
        os.fsync(fd)
    os.close(fd)
    assert m.xattr(f"{ADA}/big.bin", "state") == "parked"
    m.emulator.heal()
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/big.bin") == b"big" * 5000
    m.same_at_end = True


def test_fsync_local_sends_nothing(drive):
    m = drive(settle=600, poll=0)
    os.listdir(m / ADA)
    m.emulator.reset()
    fd = os.open(m / ADA / "new.txt", os.O_CREAT | os.O_WRONLY | os.O_SYNC, 0o644)
    os.write(fd, b"new")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    d = os.open(m / ADA, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(d)
    os.close(d)
    os.sync()
    assert m.emulator.calls() == {}


# What stays as it is


def metadata(path) -> tuple:
    """What no upload, answer, poll or mount may change."""
    s = os.stat(path)
    return s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_nlink


class Watch:
    """Looks at a file all the time, in a thread of its own, and keeps what it saw."""

    def __init__(self, path):
        self.path = path
        self.seen: dict = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stop.is_set():
            found = metadata(self.path)
            self.seen[found] = self.seen.get(found, 0) + 1
            time.sleep(0.001)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


ODD_TIME = (1_712_345_678, 123_456_789)
ODD_NS = ODD_TIME[0] * 10**9 + ODD_TIME[1]


@pytest.mark.parametrize("what", ["new", "replaced", "replaced with a time of its own"])
@pytest.mark.parametrize("size", [100, 300_000])
def test_nothing_jumps_while_an_upload_is_under_way_answered_and_polled(drive, what, size):
    m = drive(settle=600, poll=1)
    path = m / (f"{ADA}/new.bin" if what == "new" else NOTES)
    os.listdir(path.parent)
    m.emulator.clock(3600)  # a server whose clock is another one
    path.write_bytes(random_bytes(size, what))
    if "time" in what:
        utimensat(path, ODD_TIME, ODD_TIME)
    os.chmod(path, 0o640)
    os.setxattr(path, "user.mine", b"kept")
    before = metadata(path)
    m.emulator.faults({**m.system.upload, "latency_ms": 300})
    with Watch(path) as watch:
        m.sync()
        m.command("refresh")
        time.sleep(1.2)  # a poll comes by itself
        m.command("refresh")
    assert set(watch.seen) == {before}
    for _ in range(2):
        m.remount()
        assert metadata(path) == before
        m.command("refresh")
        assert metadata(path) == before
        assert os.getxattr(path, "user.mine") == b"kept"
    m.kill9()
    m.start()
    assert metadata(path) == before
    assert os.getxattr(path, "user.mine") == b"kept"


def test_nothing_jumps_by_a_rename_a_rename_over_and_a_kill(drive, system):
    m = drive(settle=600, poll=0)
    os.setxattr(m / NOTES, "user.mine", b"kept")
    os.chmod(m / NOTES, 0o600)
    utimensat(m / NOTES, ODD_TIME, ODD_TIME)
    ino = os.stat(m / NOTES).st_ino
    at = m / NOTES
    for new in (m / ADA / "renamed.txt", m / system.far_record / "moved.txt", m / ADA / "logo.png"):
        os.rename(at, new)
        at = new
        after_rename = metadata(at)
        for again in (m.sync, lambda: m.command("refresh"), m.remount):
            again()
            assert metadata(at) == after_rename, again
        assert after_rename[:2] == (ino, 0o100600)
        assert after_rename[3] == ODD_NS
        assert os.getxattr(at, "user.mine") == b"kept"
    m.kill9()
    m.start()
    assert metadata(at) == after_rename
    m.sync()
    m.command("refresh")
    assert metadata(at) == after_rename


def test_a_save_by_rename_has_the_time_it_was_written_with(drive):
    m = drive(settle=600, poll=1)
    (m / ADA / "tmp").write_bytes(b"saved" * 1000)
    utimensat(m / ADA / "tmp", ODD_TIME, ODD_TIME)
    os.rename(m / ADA / "tmp", m / NOTES)
    before = metadata(m / NOTES)
    assert before[3] == ODD_NS
    with Watch(m / NOTES) as watch:
        m.sync()
        m.command("refresh")
        time.sleep(1.2)
    assert set(watch.seen) == {before}
    m.remount()
    assert metadata(m / NOTES) == before


def test_a_lost_answer_and_a_kill_move_no_time(drive):
    m = drive(settle=600, poll=0)
    m.allow_errors(TROUBLE + "|answer|connection|reset|empty")
    os.listdir(m / ADA)
    (m / NOTES).write_bytes(b"other " * 1000)
    (m / ADA / "new.txt").write_bytes(b"new " * 1000)
    for name in ("notes.txt", "new.txt"):
        utimensat(m / ADA / name, ODD_TIME, ODD_TIME)
        os.chmod(m / ADA / name, 0o604)
    before = {n: metadata(m / ADA / n) for n in ("notes.txt", "new.txt")}
    m.emulator.faults(
        m.system.reads,
        {**m.system.writes, "count": 2, "drop_reply": True},
        {**m.system.writes, "hang": True},
    )
    (m.path / ".attachfs/control").write_text("sync")
    wait_until(lambda: m.emulator.struck(1), "an answer to be lost")
    m.kill9()
    m.emulator.heal()
    m.start()
    assert {n: metadata(m / ADA / n) for n in before} == before
    m.sync()
    m.command("refresh")
    assert {n: metadata(m / ADA / n) for n in before} == before


@pytest.mark.parametrize("system", [PERSCOM], ids=lambda s: s.name)
def test_a_time_the_server_keeps_in_seconds_is_kept_in_nanoseconds_here(drive, system):
    m = drive(settle=0, poll=1)
    (m / ADA / "new.txt").write_bytes(b"new " * 1000)
    for i in range(3):
        utimensat(m / ADA / "new.txt", ODD_TIME, (ODD_TIME[0] + i, 987_654_321))
        m.sync()
        m.command("refresh")
        assert os.stat(m / ADA / "new.txt").st_mtime_ns == (ODD_TIME[0] + i) * 10**9 + 987_654_321
    m.emulator.reset()
    m.command("refresh")
    m.sync()
    assert m.emulator.count("PATCH .*") == 0, "the time is not sent again and again"


@pytest.mark.parametrize("act", ["close", "mv", "rm", "truncate"])
def test_through_who_waits_can_be_killed(drive, readers, act):
    m = through(drive, timeout=600)
    m.allow_errors(TROUBLE + "|answer|cancel|connection")
    data = (m / NOTES).read_bytes()
    (m / ADA / "logo.png").read_bytes()
    m.emulator.faults(m.system.reads, {**m.system.writes, "hang": True})
    argv = {
        "close": ["sh", "-c", "echo some words > new.txt"],
        "mv": ["mv", "notes.txt", "moved.txt"],
        "rm": ["rm", "notes.txt"],
        "truncate": ["truncate", "-s", "7", "notes.txt"],
    }[act]
    waiting = subprocess.Popen(argv, cwd=m / ADA, stdin=subprocess.DEVNULL)
    readers.processes.append(waiting)
    wait_until(lambda: m.emulator.struck(1), "the call to be on its way")
    assert waiting.poll() is None
    waiting.kill()
    assert waiting.wait(20 * SLOW) < 0
    m.emulator.heal()
    m.kill9()
    m.start()
    m.sync()
    there = m.emulator.folder(ADA)
    if act == "close":
        assert m.emulator.blob(there["new.txt"]["id"]) == b"some words\n"
    elif act == "mv":
        assert m.emulator.blob(there["moved.txt"]["id"]) == data and "notes.txt" not in there
    elif act == "rm":
        assert "notes.txt" not in there
    else:
        assert m.emulator.blob(there["notes.txt"]["id"]) == data[:7]
