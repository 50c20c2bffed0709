# SPDX-License-Identifier: MIT
"""
The disk of the cache is full, breaks, cannot be read, is read-only; the ledger on it is held by another
program, or overwritten; descriptors run out. What was promised is kept, errors tell what it is, and all
of it goes on by itself once the trouble is over.
"""

import errno
import json
import os
import resource
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import (
    is_mounted,
    lazy_unmount,
    raises_errno,
    random_bytes,
    run,
    wait_until,
)

TROUBLE = r"refused|parked|waits for you|kept|No space|ENOSPC"
ADA = "users/Ada Byron"


def lines(m, name: str) -> list:
    """The items of .attachfs/failed or pending."""
    return [json.loads(line) for line in (m.path / ".attachfs" / name).read_text().splitlines()]


@pytest.fixture
def small_disk(base):
    """A disk of 24 MiB for the cache."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    path = base / "disk"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=24m,mode=0755", "attachfs-test", path)
    yield path
    lazy_unmount(path)


@contextmanager
def filled(disk):
    """Somebody else's file takes all the room there is."""
    path = disk / "somebody's"
    with open(path, "wb", buffering=0) as f:
        for size in (1 << 20, 4096):
            try:
                while f.write(b"\0" * size) == size:
                    pass
            except OSError as e:
                assert e.errno == errno.ENOSPC
    try:
        yield
    finally:
        path.unlink()


def on_disk(drive, disk, **more):
    m = drive(cache_dir=disk / "cache", cache_free=0, poll=0, **more)
    m.allow_errors(TROUBLE)
    return m


def reads(path, data) -> bool:
    """A failure is remembered for a moment, for the readahead that asks again at once."""
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def write_until_full(path) -> int:
    """The errno that ended it."""
    try:
        with open(path, "wb", buffering=0) as f:
            for i in range(400):
                f.write(random_bytes(100_000, i))
    except OSError as e:
        return e.errno
    return 0


def test_a_full_disk_is_enospc_and_harms_nothing(drive, small_disk):
    m = on_disk(drive, small_disk, settle=600)
    data = {f"kept-{i}.bin": random_bytes(1_000_000, i) for i in range(3)}
    uncached = m.emulator.bytes_of(f"{ADA}/large.bin")
    os.stat(m / ADA / "large.bin")
    assert (m / ADA / "tiny.txt").read_bytes() == b"abc"
    for name, bytes_ in data.items():
        (m / "users/Nobody" / name).write_bytes(bytes_)
    with filled(small_disk):
        assert write_until_full(m / "users/Nobody/too-much.bin") == errno.ENOSPC
        assert (m / "users/Nobody/kept-1.bin").read_bytes() == data["kept-1.bin"]
        assert (m / ADA / "tiny.txt").read_bytes() == b"abc"
        assert m.status()["state"] == "online"
        assert "kept-0.bin" in os.listdir(m / "users/Nobody")
        try:
            assert (m / ADA / "large.bin").read_bytes() == uncached
        except OSError as e:
            assert e.errno == errno.ENOSPC
    assert "no room for what is written" in m.log()
    os.unlink(m / "users/Nobody/too-much.bin")
    wait_until(lambda: reads(m / ADA / "large.bin", uncached), "it to be read")
    (m / "users/Nobody/again.bin").write_bytes(b"again" * 10_000)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/again.bin") == b"again" * 10_000
    for name, bytes_ in data.items():
        assert m.emulator.bytes_of(f"users/Nobody/{name}") == bytes_


@pytest.mark.parametrize("end", ["lives", "killed"])
def test_a_disk_that_fills_between_write_and_close(drive, small_disk, end):
    m = on_disk(drive, small_disk, settle=600)
    before = (m / ADA / "notes.txt").read_bytes()
    data = {}
    fds = {}
    for name in ("new.bin", "notes.txt"):
        data[name] = random_bytes(500_000, name)
        fds[name] = os.open(m / ADA / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        os.write(fds[name], data[name])
    promised = []
    with filled(small_disk):
        for name, fd in fds.items():
            try:
                os.close(fd)
                promised.append(name)
            except OSError as e:
                assert e.errno == errno.ENOSPC
        if len(promised) < 2:
            assert m.status()["cache"]["error"] == os.strerror(errno.ENOSPC)
            assert "No space" in m.log()
        if end == "killed":
            m.kill9()
    if end == "killed":
        m.start()
        for name in promised:
            assert (m / ADA / name).read_bytes() == data[name], "close had returned"
        if "notes.txt" not in promised:
            assert (m / ADA / "notes.txt").read_bytes() in (before, data["notes.txt"])
    else:
        # the ledger goes on trying, so what close() could not promise is there after all
        for name in data:
            assert (m / ADA / name).read_bytes() == data[name]
        m.sync()
        for name in data:
            assert m.emulator.bytes_of(f"{ADA}/{name}") == data[name]
        assert "error" not in m.status()["cache"]
    m.sync()


def test_a_ledger_that_cannot_be_written_sends_nothing_and_says_why(drive, small_disk):
    """What is on its way must be known to be on its way before it flies (P-22)."""
    m = on_disk(drive, small_disk, settle=600)
    (m / ADA / "new.txt").write_bytes(b"new " * 1000)
    # the log of the ledger may have room left in it: use that up first
    with filled(small_disk):
        for i in range(4000):
            try:
                os.setxattr(m / ADA / "new.txt", "user.filling", b"%d " % i * 300)
                os.chmod(m / ADA / "new.txt", 0o600 | (i & 0o44))
                fd = os.open(m / ADA, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as e:
                assert e.errno == errno.ENOSPC, e
                break
        else:
            raise AssertionError("a full disk was never noticed")
        m.emulator.reset()
        (m.path / ".attachfs/control").write_text("sync")
        wait_until(lambda: "message" in lines(m, "pending")[0], "the reason to be told")
        assert "ledger" in lines(m, "pending")[0]["message"]
        assert m.emulator.uploads() == 0
        assert m.status()["cache"]["error"] == os.strerror(errno.ENOSPC)
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/new.txt") == b"new " * 1000


def test_an_edit_that_cannot_be_made_whole_on_a_full_disk_waits(drive, small_disk):
    """Its other bytes lie in another file; both are brought into one before the upload."""
    m = on_disk(drive, small_disk, settle=600)
    data = random_bytes(3_000_000, "large")
    (m / ADA / "large.bin").write_bytes(data)
    m.sync()
    with open(m / ADA / "large.bin", "r+b") as f:
        f.seek(1_000_000)
        f.write(b"edited")
    expected = data[:1_000_000] + b"edited" + data[1_000_006:]
    with filled(small_disk):
        (m.path / ".attachfs/control").write_text("sync")
        time.sleep(1)
        assert (m / ADA / "large.bin").read_bytes() == expected
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/large.bin") == expected
    assert m.status()["failed"] == 0


def test_a_start_on_a_full_disk_works_or_says_why(drive, small_disk):
    m = on_disk(drive, small_disk, settle=600)
    (m / ADA / "new.txt").write_bytes(b"new " * 1000)
    m.kill9()
    with filled(small_disk):
        process = m.spawn()
        try:
            wait_until(
                lambda: process.poll() is not None or os.path.ismount(m.path), "a word of it"
            )
        finally:
            if process.poll() is None:
                process.terminate()
                assert process.wait(60) == 0
            else:
                assert process.returncode == 1
                assert "No space" in m.said()
        lazy_unmount(m.path)
    m.start()
    assert (m / ADA / "new.txt").read_bytes() == b"new " * 1000
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/new.txt") == b"new " * 1000


@pytest.fixture
def breaking_disk(base):
    """A disk that breaks at a word: its environment for the daemon, and where the word goes."""
    disk = base / "disk"
    disk.mkdir()
    library = base / "broken_disk.so"
    source = Path(__file__).with_name("broken_disk.c")
    compiler = os.environ.get("CC", "cc")
    run(compiler, "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", library, source, "-ldl")
    asan = os.environ.get("ASAN_OPTIONS", "")
    environment = {
        "LD_PRELOAD": library,
        "BROKEN_DISK": disk,
        "ASAN_OPTIONS": f"{asan}:verify_asan_link_order=0",
    }
    return disk, environment


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.EROFS], ids=lambda n: errno.errorcode[n])
def test_a_disk_that_refuses_or_breaks_loses_nothing_of_what_was_taken(
    drive, breaking_disk, number
):
    disk, environment = breaking_disk
    m = drive(cache_dir=disk / "cache", poll=0, settle=600, environment=environment)
    m.allow_errors(TROUBLE + "|Disk quota|Input/output|disk I/O|Read-only|readonly")
    kept = random_bytes(300_000, "kept")
    cached = (m / ADA / "notes.txt").read_bytes()
    uncached = m.emulator.bytes_of(f"{ADA}/large.bin")
    os.stat(m / ADA / "large.bin")
    (m / ADA / "kept.bin").write_bytes(kept)
    (disk / "broken").write_text(str(number))
    fd = os.open(m / ADA / "refused.bin", os.O_CREAT | os.O_WRONLY, 0o644)
    with raises_errno(number):
        os.write(fd, random_bytes(300_000, "refused"))
    with raises_errno(number, errno.EIO):
        os.close(fd)
    fd = os.open(m / ADA / "kept.bin", os.O_RDWR)
    with raises_errno(number):
        os.write(fd, b"not any more")
    with raises_errno(number, errno.EIO):  # the ledger knows of full disks only by name
        os.close(fd)
    assert (m / ADA / "kept.bin").read_bytes() == kept
    assert (m / ADA / "notes.txt").read_bytes() == cached
    try:
        assert (m / ADA / "large.bin").read_bytes() == uncached
    except OSError as e:
        assert e.errno in (number, errno.EIO)
    with raises_errno(number, errno.EIO):
        os.rename(m / ADA / "logo.png", m / ADA / "emblem.png")
    status = m.status()
    assert status["cache"]["error"] in (os.strerror(number), os.strerror(errno.EIO))
    assert status["state"] == "online"
    (disk / "broken").unlink()
    wait_until(lambda: reads(m / ADA / "large.bin", uncached), "it to be read")
    os.unlink(m / ADA / "refused.bin")
    (m / ADA / "again.bin").write_bytes(kept[:5000])
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/kept.bin") == kept
    assert m.emulator.bytes_of(f"{ADA}/again.bin") == kept[:5000]
    there = m.emulator.folder(ADA)
    assert "emblem.png" in there and "logo.png" not in there, "the ledger wrote it later"
    assert "error" not in m.status()["cache"]
    m.kill9()
    m.start()
    assert (m / ADA / "again.bin").read_bytes() == kept[:5000]


def attempt(action) -> int:
    """Its errno, or 0."""
    try:
        action()
    except OSError as e:
        return e.errno
    return 0


@pytest.mark.parametrize("start", ["same daemon", "another"])
def test_a_disk_that_cannot_be_read_costs_a_download(drive, breaking_disk, start):
    """What the server has is fetched again; what it does not have is neither shown nor sent, and waits."""
    disk, environment = breaking_disk
    m = drive(cache_dir=disk / "cache", poll=0, settle=600, environment=environment, timeout=10)
    m.allow_errors(TROUBLE + "|Input/output|disk I/O|cannot be read")
    m.killed = True  # what could not be read is set aside, too
    there = {p: m.emulator.blob(a["id"]) for p, a in m.emulator.files().items()}
    assert (m / ADA / "notes.txt").read_bytes() == there[f"{ADA}/notes.txt"]
    assert (m / ADA / "large.bin").read_bytes() == there[f"{ADA}/large.bin"]
    ours = random_bytes(300_000, "ours")
    (m / ADA / "ours.bin").write_bytes(ours)
    if start == "another":
        m.kill9()
        m.start()
    drop_pages(m)
    (disk / "unreadable").write_text(str(errno.EIO))
    for name in ("notes.txt", "large.bin"):
        assert (m / ADA / name).read_bytes() == there[f"{ADA}/{name}"], f"{name} comes from the server"
    assert "fetched again" in m.log()
    if start == "same daemon":  # the other has sent it
        with raises_errno(errno.EIO):
            (m / ADA / "ours.bin").read_bytes()
        m.sync(ok=False)
        assert f"{ADA}/ours.bin" not in m.emulator.files()
    (disk / "unreadable").unlink()
    wait_until(lambda: reads(m / ADA / "ours.bin", ours), "it to be read again")
    m.command("retry", ok=None)
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/ours.bin") == ours


def drop_pages(m):
    """What the kernel has read of the drive's files is forgotten."""
    for folder, _, files in os.walk(m.path):
        for name in files:
            fd = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def test_a_start_on_a_read_only_disk_says_so(drive, small_disk):
    m = on_disk(drive, small_disk, settle=600)
    (m / ADA / "new.txt").write_bytes(b"new " * 1000)
    m.kill9()
    run("mount", "-o", "remount,ro", small_disk)
    process = m.spawn()
    wait_until(lambda: process.poll() is not None or is_mounted(m.path), "a word of it")
    m.process = process
    assert process.poll() == 1 and "Read-only file system" in m.said(), m.said()
    m.process = None
    run("mount", "-o", "remount,rw", small_disk)
    m.start()
    assert (m / ADA / "new.txt").read_bytes() == b"new " * 1000


@contextmanager
def held(ledger: Path, how: str):
    """Another program is in the middle of a transaction."""
    other = sqlite3.connect(ledger, isolation_level=None)
    other.execute(f"BEGIN {how}")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.parametrize("end", ["lives", "killed"])
def test_a_ledger_held_by_another_program_is_waited_for(drive, end):
    m = drive(poll=0, settle=0.2)
    m.allow_errors(TROUBLE + "|busy|locked")
    os.listdir(m / ADA)
    (ledger,) = m.cache.glob("*/ledger.db")
    data = {f"{i}.bin": random_bytes(2000, i) for i in range(2)}
    promised = {}
    with held(ledger, "IMMEDIATE"):
        assert (m / ADA / "notes.txt").read_bytes() == m.emulator.bytes_of(f"{ADA}/notes.txt")
        for name, bytes_ in data.items():
            number = attempt(lambda: (m / ADA / name).write_bytes(bytes_))
            assert number in (0, errno.EBUSY)
            if number == 0:
                promised[name] = bytes_
        assert attempt(lambda: os.rename(m / ADA / "logo.png", m / ADA / "emblem.png")) in (0, errno.EBUSY)
        assert m.status()["cache"]["error"] == os.strerror(errno.EBUSY)
        assert m.status()["state"] == "online"
        assert m.emulator.uploads() == 0, "nothing leaves that is not written down"
        if end == "killed":
            m.kill9()
    if end == "killed":
        m.start()
        for name, bytes_ in promised.items():
            assert (m / ADA / name).read_bytes() == bytes_
        return
    (m / ADA / "last.bin").write_bytes(b"last" * 500)
    m.sync()
    there = m.emulator.folder(ADA)
    for name, bytes_ in data.items():
        assert m.emulator.blob(there[name]["id"]) == bytes_
    assert "emblem.png" in there and "last.bin" in there
    assert "error" not in m.status()["cache"]


def test_a_start_on_a_ledger_held_by_another_program_says_so(drive):
    m = drive(poll=0, settle=600)
    (m / ADA / "new.txt").write_bytes(b"new " * 1000)
    m.kill9()
    m.allow_errors("busy")
    (ledger,) = m.cache.glob("*/ledger.db")
    with held(ledger, "EXCLUSIVE"):
        process = m.process = m.spawn()
        wait_until(lambda: process.poll() is not None or is_mounted(m.path), "a word of it")
        assert process.poll() == 1 and "another program" in m.said(), m.said()
        m.process = None
    m.start()
    assert not list(ledger.parent.glob("lost+found/ledger*")), "busy is not damaged"
    assert (m / ADA / "new.txt").read_bytes() == b"new " * 1000


def test_a_ledger_damaged_under_the_daemon_costs_nothing_that_was_closed(drive):
    m = drive(poll=0, settle=600)
    m.allow_errors(TROUBLE + "|damaged|Structure needs cleaning")
    m.killed = True
    os.listdir(m / ADA)
    unsent = {f"unsent {i}.bin": random_bytes(30_000 + i, i) for i in range(3)}
    for name, data in unsent.items():
        (m / ADA / name).write_bytes(data)
    (ledger,) = m.cache.glob("*/ledger.db")
    for path in (ledger, ledger.with_name("ledger.db-wal")):
        size = path.stat().st_size
        with open(path, "r+b") as f:
            f.write(b"\xa5" * size)
    for i in range(3):
        name = f"later {i}.bin"
        if attempt(lambda: (m / ADA / name).write_bytes(random_bytes(5000, name))) == 0:
            unsent[name] = random_bytes(5000, name)
    for name, data in unsent.items():
        assert (m / ADA / name).read_bytes() == data, "the daemon knows"
    m.sync(ok=None)
    sent = {n for n, a in m.emulator.folder(ADA).items() if m.emulator.blob(a["id"]) == unsent.get(n)}
    m.kill9()
    m.start()
    lost = [p.read_bytes() for p in (ledger.parent / "lost+found").iterdir()]
    for name, data in unsent.items():
        assert name in sent or data in lost or reads(m / ADA / name, data), name
    assert (m / ADA / "notes.txt").read_bytes() == m.emulator.bytes_of(f"{ADA}/notes.txt")


@contextmanager
def no_descriptors(m, left: int):
    """The daemon may open @left more."""
    pid = m.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + left, before[1]))
    try:
        yield
    finally:
        if m.process:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("left", [0, 2])
@pytest.mark.parametrize("end", ["lives", "killed"])
def test_without_descriptors_errors_say_so_and_nothing_is_lost(drive, left, end):
    m = drive(poll=0, settle=0.1, timeout=3)
    m.allow_errors(TROUBLE + "|Too many open files|descriptor|reach|connect|offline|EMFILE|resolve|timed out|repeated")
    there = {p: m.emulator.blob(a["id"]) for p, a in m.emulator.files().items()}
    os.listdir(m / ADA)
    os.listdir(m / "users/Nobody")
    assert (m / ADA / "notes.txt").read_bytes() == there[f"{ADA}/notes.txt"]
    allowed = (0, errno.EMFILE, errno.ENFILE, errno.EHOSTDOWN, errno.ETIMEDOUT)
    promised = {}
    with no_descriptors(m, left):
        for i in range(8):
            name = f"{i}.bin"
            number = attempt(lambda: (m / "users/Nobody" / name).write_bytes(random_bytes(3000, i)))
            assert number in allowed, errno.errorcode[number]
            if number == 0:
                promised[name] = random_bytes(3000, i)
        for path, data in there.items():
            number = attempt(lambda: same(m / path, data))
            assert number in allowed, errno.errorcode[number]
        assert attempt(lambda: os.rename(m / ADA / "logo.png", m / ADA / "emblem.png")) in allowed
        assert attempt(lambda: os.unlink(m / ADA / "tiny.txt")) in allowed
        assert attempt(lambda: os.listdir(m / ADA)) in allowed
        assert m.process.poll() is None, m.said()
        if end == "killed":
            m.kill9()
    if end == "killed":
        m.start()
    for name, data in promised.items():
        assert (m / "users/Nobody" / name).read_bytes() == data
    for path, data in there.items():
        if path not in (f"{ADA}/logo.png", f"{ADA}/tiny.txt"):
            wait_until(lambda: reads(m / path, data), f"{path} to be read")
    m.command("retry", ok=None)
    m.sync()
    for name, data in promised.items():
        assert m.emulator.bytes_of(f"users/Nobody/{name}") == data


def same(path, data):
    assert path.read_bytes() == data
