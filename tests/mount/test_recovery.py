# SPDX-License-Identifier: MIT
"""
Ends of every kind, and what is left after them: kill -9 before, during and after uploads, renames
and deletes; SIGTERM with work pending; starting and working without a network.
"""

import errno
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import (
    lazy_unmount,
    numbered,
    one_record,
    raises_errno,
    random_bytes,
    seed_of_the_day,
    wait_until,
)


def in_flight(m, what="the upload to be in flight"):
    wait_until(lambda: m.emulator.struck() > 0, what)


@pytest.mark.parametrize("size", [0, 100, 5000, 11_000_000])
def test_killed_between_close_and_upload(drive, size):
    m = drive(settle=600)
    data = random_bytes(size, "new")
    (m / "users/Nobody/new.bin").write_bytes(data)
    (m / "users/Ada Byron/notes.txt").write_bytes(data)
    m.kill9()
    assert "users/Nobody/new.bin" not in m.emulator.files()
    m.start()
    assert (m / "users/Nobody/new.bin").read_bytes() == data
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.bin") == data
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == data


@pytest.mark.parametrize("size", [100, 5000, 11_000_000])
@pytest.mark.parametrize("what", ["new", "replaced"])
def test_killed_in_the_middle_of_an_upload(drive, size, what):
    m = drive(settle=0, poll=0)
    before = m.emulator.files()
    path = "users/Nobody/new.bin" if what == "new" else "users/Ada Byron/notes.txt"
    os.listdir((m / path).parent)
    m.emulator.faults({**m.system.upload, "hang": True})
    data = random_bytes(size, "upload")
    (m / path).write_bytes(data)
    in_flight(m)
    m.kill9()
    m.emulator.heal()
    m.start()
    assert (m / path).read_bytes() == data
    m.sync()
    assert m.emulator.bytes_of(path) == data
    assert set(m.emulator.files()) == set(before) | {path}, "no duplicate, no filler"
    if what == "replaced":
        same = m.emulator.file(path)["id"] == before[path]["id"]
        assert same == m.system.replace_keeps_id


@pytest.mark.parametrize("size", [100, 5000, 11_000_000])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_killed_when_the_server_had_done_it_but_not_said_so(drive, system, size, step):
    """
    The answer to the step-th writing call is lost, then the daemon is killed: what the server did
    is adopted.
    """
    m = drive(settle=0, poll=0)
    before = m.emulator.files()
    os.listdir(m / "users/Nobody")
    m.emulator.faults(
        system.reads,
        {**system.writes, "skip": step, "count": 1, "drop_reply": True},
        {**system.writes, "skip": step, "hang": True},
    )
    data = random_bytes(size, "lost reply")
    (m / "users/Nobody/new.bin").write_bytes(data)
    try:
        wait_until(
            lambda: m.emulator.struck(1) or m.idle(),
            "the lost reply",
        )
    finally:
        m.kill9()
    m.emulator.heal()
    m.start()
    assert (m / "users/Nobody/new.bin").read_bytes() == data
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.bin") == data
    assert set(m.emulator.files()) == set(before) | {"users/Nobody/new.bin"}


def test_killed_with_renames_and_deletes_pending(drive):
    m = drive(
        tree={"users": {"Ada Byron": numbered(20), "Nobody": {}}, "events": {"Drill": {}}}, poll=0
    )
    old = numbered(20)
    before = {p: a["id"] for p, a in m.emulator.files().items()}
    os.listdir(m / "users/Ada Byron")
    os.listdir(m / "events/Drill")
    m.emulator.faults({"port": "api", "match": "", "count": -1, "status": 503})
    m.allow_errors("503")
    os.rename(m / "users/Ada Byron/file-0000.txt", m / "users/Ada Byron/renamed.txt")
    if m.system.move_between_collections:
        os.rename(m / "users/Ada Byron/file-0001.txt", m / "events/Drill/moved.txt")
    else:
        with raises_errno(errno.EXDEV):
            os.rename(m / "users/Ada Byron/file-0001.txt", m / "events/Drill/moved.txt")
    os.unlink(m / "users/Ada Byron/file-0002.txt")
    os.rename(m / "users/Ada Byron/file-0003.txt", m / "users/Ada Byron/file-0004.txt")
    drill = "events/Drill"
    if "events" in m.system.renamable:
        drill = "events/Exercise"
        os.rename(m / "events/Drill", m / drill)
    elif not m.system.renamable:
        with raises_errno(errno.EPERM):
            os.rename(m / "events/Drill", m / "events/Exercise")
    m.kill9()
    m.start()
    moved = m.system.move_between_collections
    names = set(m.names("users/Ada Byron"))
    assert "renamed.txt" in names and "file-0004.txt" in names
    assert not names & {"file-0000.txt", "file-0002.txt", "file-0003.txt"}
    assert ("file-0001.txt" in names) != moved
    assert m.names(drill) == (["moved.txt"] if moved else [])
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    files = {**m.emulator.folder("users/Ada Byron"), **m.emulator.folder(drill)}
    after = {name: a["id"] for name, a in files.items()}
    same = after["renamed.txt"] == before["users/Ada Byron/file-0000.txt"]
    assert same == m.system.rename_in_place
    assert m.emulator.blob(after["renamed.txt"]) == old["file-0000.txt"]
    assert m.emulator.blob(after["file-0004.txt"]) == old["file-0003.txt"]
    if moved:
        same = after["moved.txt"] == before["users/Ada Byron/file-0001.txt"]
        assert same == m.system.move_in_place
        assert m.emulator.blob(after["moved.txt"]) == old["file-0001.txt"]
    assert len(after) == 18


def test_killed_after_a_change_whose_answer_was_lost(drive, system):
    m = drive(tree={"users": {"Ada Byron": numbered(30), "Nobody": {}}, "events": {}}, poll=0)
    os.listdir(m / "users/Ada Byron")
    m.emulator.faults(
        system.reads,
        {**system.writes, "count": 1, "drop_reply": True},
        {**system.writes, "hang": True},
    )
    for i in range(10):
        os.rename(m / f"users/Ada Byron/file-{i:04d}.txt", m / f"users/Ada Byron/renamed-{i}.txt")
        os.unlink(m / f"users/Ada Byron/file-{i + 10:04d}.txt")
    wait_until(lambda: m.emulator.struck(1), "the lost answer")
    m.kill9()
    m.emulator.heal()
    m.start()
    m.sync()
    old = numbered(30)
    found = m.emulator.folder("users/Ada Byron")
    assert {name: m.emulator.blob(a["id"]) for name, a in found.items()} == {
        **{f"renamed-{i}.txt": old[f"file-{i:04d}.txt"] for i in range(10)},
        **{f"file-{i:04d}.txt": old[f"file-{i:04d}.txt"] for i in range(20, 30)},
    }


def test_what_was_not_closed_when_killed_is_old_or_new_never_a_mix(drive):
    m = drive(settle=0)
    old = m.emulator.bytes_of("users/Ada Byron/notes.txt")
    fd = os.open(m / "users/Ada Byron/notes.txt", os.O_RDWR)
    os.pwrite(fd, b"NEW" * 1000, 0)
    m.kill9()
    try:
        os.close(fd)
    except OSError:
        pass
    m.start()
    new = b"NEW" * 1000 + old[3000:]
    assert (m / "users/Ada Byron/notes.txt").read_bytes() in (old, new)
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") in (old, new)


@pytest.mark.parametrize("sizes", [(6000, 6000), (10, 6000)], ids=["same size", "size and back"])
def test_bytes_replaced_before_a_kill_are_those_shown_after_it(drive, sizes):
    """Where the server tells no versions, what was once cached may look like what is there now."""
    m = drive(settle=0, poll=0)
    path = "users/Ada Byron/logo.png"
    for i, size in enumerate((6000, *sizes)):
        (m / path).write_bytes(random_bytes(size, i))
        m.sync()
        assert (m / path).read_bytes() == random_bytes(size, i)
    m.kill9()
    m.start()
    os.listdir((m / path).parent)
    assert (m / path).read_bytes() == random_bytes(sizes[-1], len(sizes))
    assert m.emulator.bytes_of(path) == random_bytes(sizes[-1], len(sizes))
    (m / path).write_bytes(random_bytes(sizes[-1], "after"))
    m.kill9()
    m.start()
    m.sync()
    assert (m / path).read_bytes() == random_bytes(sizes[-1], "after")
    assert [n for n in m.names("users/Ada Byron") if n.startswith("logo")] == ["logo.png"]


@pytest.mark.limit(180)
def test_kills_at_random_moments_lose_and_double_nothing(drive):
    chance = random.Random(seed_of_the_day())
    m = drive(tree={"users": {"Ada Byron": numbered(5)}, "events": {}}, settle=0, poll=0)
    expected = numbered(5)
    unsure: set = set()
    for kill in range(8):
        m.emulator.faults(latency_ms=chance.choice([0, 20, 60]))
        killer = threading.Timer(chance.uniform(0.05, 0.6), m.process.kill)
        killer.start()
        try:
            for i in range(200):
                name = f"file-{chance.randrange(12):04d}.txt"
                path = m / "users/Ada Byron" / name
                data = random_bytes(chance.choice([10, 1500, 30_000]), f"{kill}.{i}")
                what = chance.choice(["save", "save", "unlink", "rename"])
                if what == "save":
                    unsure = {name}
                    tmp = m / "users/Ada Byron" / "tmp"
                    tmp.write_bytes(data)
                    os.rename(tmp, path)
                    expected[name] = data
                elif what == "unlink" and name in expected:
                    unsure = {name}
                    os.unlink(path)
                    del expected[name]
                elif what == "rename" and name in expected:
                    other = f"file-{chance.randrange(12):04d}.txt"
                    unsure = {name, other}
                    os.rename(path, m / "users/Ada Byron" / other)
                    expected[other] = expected.pop(name)
        except OSError:
            pass
        killer.join()
        m.kill9()
        m.start()
        found = {
            n: (m / "users/Ada Byron" / n).read_bytes() for n in m.names("users/Ada Byron")
        }
        for name in set(found) | set(expected):
            if name not in unsure and name != "tmp":
                assert found.get(name) == expected.get(name), f"{name} after kill {kill}"
        expected = found
    m.emulator.heal()
    m.sync()
    assert {
        n: m.emulator.blob(a["id"]) for n, a in m.emulator.folder("users/Ada Byron").items()
    } == expected


# Asked to end


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name
)
def test_a_signal_keeps_what_is_pending_and_a_remount_uploads_it(drive, number):
    m = drive(settle=600)
    os.listdir(m / "users/Ada Byron")
    m.emulator.faults({"port": "api", "match": "", "count": -1, "status": 503})
    m.allow_errors("503")
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 3000)
    os.unlink(m / "users/Ada Byron/logo.png")
    if number == signal.SIGHUP:
        m.process.send_signal(number)
        wait_until(lambda: m.process.poll() is not None or m.status(), "an answer")
        if m.process.poll() is None:  # SIGHUP may mean "read the log file and the token anew"
            m.emulator.heal()
            m.command("retry", ok=None)
            return
        m._ended()
    else:
        m.terminate(number)
    m.emulator.heal()
    m.start()
    assert (m / "users/Nobody/new.txt").read_bytes() == b"x" * 3000
    assert "logo.png" not in os.listdir(m / "users/Ada Byron")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 3000
    assert "users/Ada Byron/logo.png" not in m.emulator.files()


def test_sigterm_with_files_open_and_reads_parked_ends_all_the_same(drive, readers):
    m = drive(timeout=600)
    for name in os.listdir(m / "users/Ada Byron"):
        os.stat(m / "users/Ada Byron" / name)
    m.emulator.faults({**m.system.blob, "hang": True})
    reader = readers.start(m / "users/Ada Byron/large.bin")
    fd = os.open(m / "users/Nobody/open.txt", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x" * 100)
    wait_until(lambda: m.emulator.struck(), "the read to be parked")
    m.process.terminate()
    m._ended()
    assert m.exit_status == 0
    reader.wait()
    try:
        os.close(fd)
    except OSError:
        pass
    m.emulator.heal()
    lazy_unmount(m.path)
    m.start()
    m.same_at_end = False
    m.sync()


# Without a network


def test_a_mount_starts_and_serves_what_it_has_without_a_network(mount, emulator, gate):
    server = emulator(
        tree={
            "users": {"Ada Byron": {"a.txt": b"cached" * 500, "b.txt": b"not cached" * 500}},
            "events": {},
        }
    )
    door = gate(server)
    m = mount(server, source=server.system.source(door.url), timeout=3, poll=0, settle=0)
    m.allow_errors("reach|EHOSTDOWN|offline|down|connect|refused")
    assert (m / "users/Ada Byron/a.txt").read_bytes() == b"cached" * 500
    os.listdir(m / "users/Ada Byron")
    m.umount()
    door.shut()
    m.start()
    assert sorted(os.listdir(m / "users/Ada Byron")) == ["a.txt", "b.txt"]
    assert (m / "users/Ada Byron/a.txt").read_bytes() == b"cached" * 500
    (m / "users/Ada Byron/new.txt").write_bytes(b"queued" * 500)
    os.rename(m / "users/Ada Byron/a.txt", m / "users/Ada Byron/renamed.txt")
    assert (m / "users/Ada Byron/new.txt").read_bytes() == b"queued" * 500
    wait_until(lambda: m.status()["state"] == "offline", "the status to say so")
    assert m.status()["pending"]["uploads"] == 1
    door.open()
    m.sync()
    assert server.bytes_of("users/Ada Byron/new.txt") == b"queued" * 500
    assert server.bytes_of("users/Ada Byron/renamed.txt") == b"cached" * 500
    wait_until(lambda: m.status()["state"] == "online", "the status to say so")


def test_what_needs_the_network_fails_with_ehostdown_when_there_is_none(drive):
    m = drive(timeout=3, poll=0)
    m.same_at_end = False
    m.allow_errors("reach|EHOSTDOWN|offline|down|connect|refused")
    assert (m / "users/Ada Byron/tiny.txt").read_bytes() == b"abc"
    os.stat(m / "users/Ada Byron/large.bin")
    m.emulator.stop()
    with raises_errno(errno.EHOSTDOWN, errno.ETIMEDOUT):
        (m / "users/Ada Byron/large.bin").read_bytes()
    assert (m / "users/Ada Byron/tiny.txt").read_bytes() == b"abc"
    with raises_errno(errno.EHOSTDOWN, errno.ETIMEDOUT):
        os.stat(m / "users/Ada Byron/large.bin")
        (m / "users/Ada Byron/large.bin").read_bytes()
    m.terminate()


def test_a_network_that_comes_and_goes_loses_nothing(mount, emulator, gate):
    server = emulator(tree=one_record())
    door = gate(server)
    m = mount(server, source=server.system.source(door.url), timeout=10, poll=0, settle=0)
    m.allow_errors("reach|EHOSTDOWN|offline|down|connect|refused|reset")
    os.listdir(m / "users/Ada Byron")
    expected = {}
    for i in range(24):
        if i % 4 == 1:
            door.shut()
        if i % 4 == 3:
            door.open()
        data = random_bytes(3000, i)
        (m / f"users/Ada Byron/{i}.bin").write_bytes(data)
        expected[f"{i}.bin"] = data
        time.sleep(0.03)
    if door.listener is None:
        door.open()
    m.sync()
    found = server.folder("users/Ada Byron")
    assert {name: server.blob(a["id"]) for name, a in found.items()} == expected


# What is kept


def test_a_lost_ledger_costs_only_what_was_not_sent(drive):
    m = drive()
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
    m.forget_cache()
    assert (m / "users/Nobody/new.txt").read_bytes() == b"x" * 2000


def damage_header(path):
    with open(path, "r+b") as f:
        f.write(b"garbage " * 2)


def damage_middle(path):
    """All pages but the first."""
    size = path.stat().st_size
    with open(path, "r+b") as f:
        f.seek(4096)
        f.write(b"\xa5" * (size - 4096))


def damage_rows(path):
    """One page, that of many files: the others can be read."""
    data = path.read_bytes()
    at = max(data.find(b"file-0%d" % i) for i in range(100, 300, 50)) // 4096 * 4096
    assert at > 4096
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(b"\xa5" * 64)


@pytest.mark.parametrize("damage", [damage_header, damage_middle, damage_rows])
def test_a_damaged_ledger_is_set_aside_and_what_was_not_sent_is_found(drive, damage):
    files = {f"file-{i:04d}.txt": b"x" * 1100 for i in range(300)}
    m = drive(tree={"users": {"Ada Byron": {"a.txt": b"a" * 2000}, "Nobody": files}, "events": {}}, poll=0)
    m.allow_errors("damaged")
    m.tree()
    unsent = random_bytes(30_000, "unsent")
    (m / "users/Ada Byron/not sent.txt").write_bytes(unsent)
    m.kill9()
    (ledger,) = m.cache.glob("*/ledger.db")
    database = sqlite3.connect(ledger)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    damage(ledger)
    m.start()
    assert (m / "users/Ada Byron/a.txt").read_bytes() == b"a" * 2000
    assert len(m.names("users/Nobody")) == 300
    lost = ledger.parent / "lost+found"
    assert "damaged" in m.log()
    assert (lost / "ledger.db").exists()
    assert unsent in [p.read_bytes() for p in lost.iterdir()]
    if damage is damage_rows:
        assert (lost / "not sent.txt").read_bytes() == unsent


@pytest.mark.parametrize("cached", ["cached", "not cached"])
def test_what_was_written_in_part_is_made_whole_or_says_what_there_is(drive, cached):
    large = random_bytes(6_000_000, "before")
    files = {f"file-{i:04d}.txt": b"x" * 1100 for i in range(300)}
    folder = {"a.bin": large, "b.bin": large[::-1]}
    m = drive(tree={"users": {"Ada Byron": folder, "Nobody": files}, "events": {}}, poll=0, settle=600)
    m.allow_errors("damaged")
    os.listdir(m / "users/Nobody")
    if cached == "cached":
        m.tree()
    with open(m / "users/Ada Byron/a.bin", "r+b") as f:
        f.seek(2_000_000)
        f.write(b"edited")
        f.seek(7_000_000)
        f.write(b"behind a hole")
    os.truncate(m / "users/Ada Byron/b.bin", 1_000_000)
    (m / "users/Nobody/empty").touch()
    wanted = {
        "a.bin": large[:2_000_000] + b"edited" + large[2_000_006:] + bytes(1_000_000) + b"behind a hole",
        "b.bin": large[::-1][:1_000_000],
        "empty": b"",
    }
    m.kill9()
    (ledger,) = m.cache.glob("*/ledger.db")
    database = sqlite3.connect(ledger)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    damage_rows(ledger)
    m.start()
    lost = {p.name: p.read_bytes() for p in (ledger.parent / "lost+found").iterdir()}
    for name, data in wanted.items():
        if name in lost:
            assert lost[name] == data, f"{name} looks whole"
            continue
        assert cached == "not cached" and name != "empty", sorted(lost)
        part = lost[f"{name}.incomplete"]
        assert len(part) == len(data)
        there = [line.split("-") for line in lost[f"{name}.incomplete.ranges"].decode().splitlines()[2:]]
        for first, last in there:
            assert part[int(first) : int(last) + 1] == data[int(first) : int(last) + 1]
        if name == "a.bin":
            assert any(int(f) <= 2_000_000 and int(l) >= 2_000_005 for f, l in there), there
            assert any(int(f) <= 6_000_000 and int(l) == len(data) - 1 for f, l in there), there
        assert sum(int(l) - int(f) + 1 for f, l in there) < len(data)
    if cached == "cached":
        assert wanted.keys() <= lost.keys()


def is_waiting_in_kernel(pid: int, name: str) -> bool:
    for task in Path(f"/proc/{pid}/task").iterdir():
        comm, state = (task / "stat").read_text().partition("(")[2].rpartition(")")[::2]
        if comm == name and state.split()[0] == "D":
            return True
    return False


def test_a_daemon_killed_while_it_tells_the_kernel_leaves_nobody_waiting(drive):
    """
    A removal that waits for the server holds the directory, for which the notification of what the
    server has there since waits in the kernel.
    """
    m = drive(poll=0, write="through")
    m.same_at_end = False
    os.listdir(m / "users/Ada Byron")
    m.emulator.faults({**m.system.remove, "hang": True})
    rm = subprocess.Popen(["rm", str(m / "users/Ada Byron/notes.txt")], stderr=subprocess.DEVNULL)
    in_flight(m, "the removal to be in flight")
    m.emulator.change(
        {"op": "add", "collection": "users", "record": "Ada Byron", "name": "new.txt", "text": "new"}
    )
    (m.path / ".attachfs/control").write_text("refresh")
    wait_until(lambda: is_waiting_in_kernel(m.process.pid, "attachfs-notify"), "the two to wait")
    m.kill9(unmount=False)
    assert rm.wait(60) != 0
    with raises_errno(errno.ENOTCONN):
        os.listdir(m.path)
    m.emulator.heal()
    m.start()
    assert "new.txt" in m.names("users/Ada Byron")
