# SPDX-License-Identifier: MIT
"""
What cannot be done now: a cache whose disk is full, servers that refuse (sizes, rights), calls that
fail for a while. What was promised is kept, refused calls are few, others are not held up, the
words are shown where a person looks, and all of it goes once the trouble is over.
"""

import errno
import json
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness import (
    ENTERPRISE_TESTER,
    PERSCOM,
    SERVICEMAX,
    is_mounted,
    lazy_unmount,
    numbered,
    raises_errno,
    random_bytes,
    run,
    small_tree,
    wait_until,
)

TROUBLE = (
    r"50\d|403|413|422|400|429|refused|parked|waits for you|denied|kept|large|size|No space|ENOSPC"
    r"|permission|right|quota"
)
ADA = "users/Ada Byron"


def lines(m, name: str) -> list:
    """The items of .attachfs/failed or pending."""
    return [json.loads(line) for line in (m.path / ".attachfs" / name).read_text().splitlines()]


def refuse(m, rule: dict, status: int, **more) -> None:
    """Reading goes on; what @rule fits is refused."""
    body = m.system.refusal("The words of the server.")
    m.emulator.faults(m.system.reads, {**rule, "status": status, "body": body, **more})


# ---- the disk of the cache ----


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


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO], ids=lambda n: errno.errorcode[n])
def test_a_disk_that_refuses_or_breaks_loses_nothing_of_what_was_taken(
    drive, breaking_disk, number
):
    disk, environment = breaking_disk
    m = drive(cache_dir=disk / "cache", poll=0, settle=600, environment=environment)
    m.allow_errors(TROUBLE + "|Disk quota|Input/output|disk I/O")
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


# ---- sizes and other refusals ----


@pytest.mark.parametrize("status", [413, 422])
def test_what_the_server_finds_too_large_is_parked_with_its_words(drive, status):
    m = drive(settle=600, poll=0)
    m.allow_errors(TROUBLE)
    refuse(m, m.system.upload, status)
    data = random_bytes(50_000, "big")
    (m / ADA / "big.bin").write_bytes(data)
    told = m.sync(ok=False)
    assert ".attachfs/failed" in told.stderr
    (item,) = lines(m, "failed")
    assert item["path"].endswith("big.bin") and "The words of the server." in item["message"]
    if status == 413:
        assert item["error"] == os.strerror(errno.EFBIG)
    assert "The words of the server." in m.command("failed").stdout
    assert m.command("pending").stdout == ""
    assert m.xattr(f"{ADA}/big.bin", "state") == "parked"
    assert "The words of the server." in m.xattr(f"{ADA}/big.bin", "error")
    assert (m / ADA / "big.bin").read_bytes() == data
    assert m.status()["failed"] == 1
    told = m.umount(ok=False)
    assert "big.bin" in told.stderr and "The words of the server." in told.stderr
    m._ended()
    assert "big.bin" in m.log().split("kept for the next mount")[1]
    m.start()
    assert (m / ADA / "big.bin").read_bytes() == data
    assert m.xattr(f"{ADA}/big.bin", "state") == "parked"
    m.emulator.heal()
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/big.bin") == data


@pytest.mark.parametrize("how", ["written again", "truncated", "renamed over"])
@pytest.mark.parametrize("what", ["new", "there before"])
def test_a_parked_file_that_became_smaller_goes_without_a_retry(drive, how, what):
    m = drive(settle=0, poll=0)
    m.allow_errors(TROUBLE)
    path = m / ADA / ("big.bin" if what == "new" else "notes.txt")
    os.listdir(m / ADA)
    refuse(m, m.system.upload, 413)
    path.write_bytes(random_bytes(50_000, "big"))
    m.sync(ok=False)
    m.emulator.heal()
    small = b"small enough" * 200
    if how == "written again":
        path.write_bytes(small)
    elif how == "truncated":
        os.truncate(path, 2000)
        small = random_bytes(50_000, "big")[:2000]
    else:
        (m / ADA / "tmp").write_bytes(small)
        os.rename(m / ADA / "tmp", path)
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/{path.name}") == small
    assert lines(m, "failed") == []


def test_a_parked_new_file_that_is_deleted_is_the_end_of_it(drive):
    m = drive(settle=600, poll=0)
    m.allow_errors(TROUBLE)
    before = set(m.emulator.files())
    refuse(m, m.system.upload, 413)
    (m / ADA / "big.bin").write_bytes(random_bytes(50_000, "big"))
    m.sync(ok=False)
    m.emulator.heal()
    m.emulator.reset()
    os.unlink(m / ADA / "big.bin")
    m.sync()
    assert m.emulator.calls() == {}
    assert lines(m, "failed") == [] and m.status()["failed"] == 0
    assert set(m.emulator.files()) == before


# ---- rights ----


def bisection(system, files: int, at_once: int) -> int:
    """
    The most calls that halving refused batches down to single files takes; where a refused batch
    may have been done in part, each is looked at besides.
    """
    if at_once <= 1:
        return files
    return (3 if system is ENTERPRISE_TESTER else 2) * files


@pytest.mark.parametrize("act", ["create", "replace", "rename", "remove"])
def test_what_may_not_be_written_costs_a_call_each_and_then_none(drive, system, act):
    m = drive(tree={"users": {"Ada Byron": numbered(12)}, "events": {}}, settle=0, poll=0)
    m.allow_errors(TROUBLE)
    names = sorted(os.listdir(m / ADA))
    for name in names:
        (m / ADA / name).read_bytes()
    refuse(m, m.system.writes, 403)
    m.emulator.reset()
    for name in names:
        path = m / ADA / name
        if act == "create":
            (m / ADA / f"new-{name}").write_bytes(random_bytes(2000, name))
        elif act == "replace":
            path.write_bytes(random_bytes(2000, name))
        elif act == "rename":
            os.rename(path, m / ADA / f"renamed-{name}")
        else:
            os.unlink(path)
    told = m.sync(ok=False)
    assert "12 could not be sent" in told.stderr, told.stderr
    calls = m.emulator.calls()
    uploads = act in ("create", "replace") or (act == "rename" and not system.rename_in_place)
    at_once = system.batch_create if uploads else system.removes_at_once
    if act == "rename" and system.batch_rename:
        at_once = 500
    # a login page or a token that is fetched anew may add a few
    assert sum(calls.values()) <= bisection(system, 12, at_once) + 4, calls
    m.emulator.reset()
    m.command("sync", ok=False)
    time.sleep(1.5)
    m.command("sync", ok=False)
    assert m.emulator.calls() == {}, "nothing is tried again by itself"
    assert all("The words of the server." in i["message"] for i in lines(m, "failed"))
    m.emulator.heal()
    m.command("retry")
    m.sync()


# ---- failing for a while ----


def test_one_file_that_always_fails_holds_up_no_other(drive, system):
    m = drive(settle=0, poll=0)
    m.allow_errors(TROUBLE)
    os.listdir(m / "events/Live fire")
    path = m / "users/Grace Hopper/readme"
    path.read_bytes()
    # its calls are told by the id of the file, or of its record, in their path
    if system in (SERVICEMAX, ENTERPRISE_TESTER):
        ident = m.emulator.record("users", "Grace Hopper")["remote_id"]
    else:
        ident = m.emulator.file("users/Grace Hopper/readme")["remote_id"]
    m.emulator.faults({"port": "api", "method": "POST", "match": f"/{ident}", "status": 502})
    path.write_bytes(b"other " * 500)
    wait_until(lambda: m.emulator.struck(), "it to fail")
    names = {f"other-{i}.txt" for i in range(20)}
    for name in names:
        (m / "events/Live fire" / name).write_bytes(b"other " * 500)
    wait_until(lambda: names <= set(m.emulator.folder("events/Live fire")), "the others to go")
    wait_until(lambda: len(lines(m, "pending")) == 1, "only one to be left")
    assert m.emulator.bytes_of("users/Grace Hopper/readme") != b"other " * 500
    assert m.status()["state"] == "online" and m.status()["failed"] == 0
    m.emulator.heal()
    m.sync()
    assert m.emulator.bytes_of("users/Grace Hopper/readme") == b"other " * 500


def test_what_fails_is_tried_at_growing_distances(drive):
    m = drive(settle=0, poll=0)
    m.allow_errors(TROUBLE)
    os.listdir(m / ADA)
    m.emulator.faults(m.system.reads, {**m.system.upload, "status": 502, "done": False})
    m.emulator.reset()
    (m / ADA / "new.txt").write_bytes(b"new " * 1000)
    wait_until(lambda: m.emulator.struck(1) >= 3, "three tries")
    tries = m.emulator.struck(1)
    time.sleep(1)
    assert m.emulator.struck(1) <= tries + 4, "it does not spin"
    (item,) = lines(m, "pending")
    assert item["path"].endswith("new.txt") and item["message"], "pending says what is in the way"
    assert m.status()["failed"] == 0
    m.emulator.heal()
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/new.txt") == b"new " * 1000


# ---- the end ----


def test_sigterm_says_what_is_left_and_the_next_mount_sends_it(mount, emulator, gate):
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"a", "b.txt": b"b"}}, "events": {}})
    door = gate(server)
    m = mount(server, source=server.system.source(door.url), settle=600, poll=0)
    m.allow_errors(TROUBLE + "|reach|offline|down|connect")
    os.listdir(m / ADA)
    door.shut()
    for i in range(8):
        (m / ADA / f"left-{i}.txt").write_bytes(b"x" * 1000)
    os.unlink(m / ADA / "a.txt")
    m.terminate()
    said = m.log().split("kept for the next mount")[-1]
    assert "8 uploads (8000 bytes)" in said and "1 deletes" in said, said
    assert "Ada Byron/left-0.txt" in said and "and 4 more" in said, said
    door.open()
    m.start()
    m.sync()
    wanted = {f"left-{i}.txt" for i in range(8)} | {"b.txt"}
    assert set(server.folder(ADA)) - {"keep.txt"} == wanted


@pytest.mark.parametrize("retry_after", ["120", None])
def test_sigterm_does_not_wait_for_a_throttle(drive, retry_after):
    m = drive(settle=0, poll=0)
    m.allow_errors(TROUBLE + "|throttl|rate limit")
    os.listdir(m / ADA)
    headers = {"Retry-After": retry_after} if retry_after else {}
    m.emulator.faults({**m.system.api, "status": 429, "headers": headers})
    (m / ADA / "new.txt").write_bytes(b"new " * 1000)
    wait_until(lambda: m.status()["state"] == "throttled", "the status to say so")
    struck = m.emulator.struck()
    m.process.terminate()
    m._ended(seconds=9)  # a drain of ten seconds, which would send nothing, is not begun
    assert m.exit_status == 0
    wait_until(lambda: not is_mounted(m.path), "the mount to go with the daemon")
    assert m.emulator.struck() == struck, "nothing was sent"
    assert "1 uploads (4000 bytes)" in m.log().split("kept for the next mount")[-1]
    m.emulator.heal()
    m.start()
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/new.txt") == b"new " * 1000


def test_umount_says_what_is_left_by_name_and_number(drive):
    m = drive(settle=600, poll=0)
    m.allow_errors(TROUBLE)
    refuse(m, m.system.upload, 403)
    for i in range(15):
        (m / ADA / f"left-{i:02}.txt").write_bytes(b"x" * 2000)
    told = m.umount(ok=False)
    m._ended()
    assert told.returncode == 1
    assert "kept in the cache" in told.stderr and "left-00.txt" in told.stderr
    assert told.stderr.count("The words of the server.") == 15 and "left-14.txt" in told.stderr
    m.emulator.heal()
    m.start()
    m.command("retry")
    m.sync()
    assert sum("left-" in p for p in m.emulator.files()) == 15


# ---- unsent bytes ----


@pytest.fixture
def unsent(mount, emulator, gate):
    """A mount with a new file, an edit, a rename and a removal that no server hears of."""
    server = emulator(tree=small_tree())
    door = gate(server)
    m = mount(server, source=server.system.source(door.url), settle=0, poll=0)
    m.door = door
    m.allow_errors(TROUBLE + "|reach|offline|down|connect|reset")
    os.listdir(m / "events/Live fire")
    for name in m.names(ADA):
        (m / ADA / name).read_bytes()
    door.shut()
    (m / ADA / "new.bin").write_bytes(OURS)
    with open(m / ADA / "large.bin", "r+b") as f:
        f.seek(300_000)
        f.write(b"edited")
    os.rename(m / ADA / "logo.png", m / ADA / "emblem.png")
    os.unlink(m / ADA / "tiny.txt")
    yield m
    if door.listener is None:
        door.open()


OURS = random_bytes(1_500_000, "ours")


def check_unsent(m, there: dict) -> None:
    assert (m / ADA / "new.bin").read_bytes() == OURS
    large = there[f"{ADA}/large.bin"]
    assert (m / ADA / "large.bin").read_bytes() == large[:300_000] + b"edited" + large[300_006:]
    assert (m / ADA / "emblem.png").read_bytes() == there[f"{ADA}/logo.png"]
    names = m.names(ADA)
    assert "tiny.txt" not in names and "logo.png" not in names


def after_a_signal(m):
    m.terminate()


def after_a_kill(m):
    m.kill9()


def after_an_umount(m):
    m.umount(ok=False)
    m._ended()


def with_another_command_line(m, **options):
    m.terminate()
    before = dict(m.options)
    collections = options.pop("collections", m.collections)
    m.options.update(options)
    kept, m.collections = m.collections, collections
    m.start()
    m.terminate()
    m.options, m.collections = before, kept


def with_a_smaller_cache(m):
    with_another_command_line(m, cache_size=1_000_000)


def with_other_collections(m):
    if m.system.list_of_collections:
        pytest.skip("what the top directories are is asked of the server, which is away")
    with_another_command_line(m, collections=("events",))


def with_a_read_only_mount(m):
    with_another_command_line(m, ro=True)


@pytest.mark.parametrize(
    "happens",
    [
        after_a_signal,
        after_a_kill,
        after_an_umount,
        with_a_smaller_cache,
        with_other_collections,
        with_a_read_only_mount,
    ],
    ids=lambda f: f.__name__,
)
def test_unsent_bytes_are_there_at_the_next_mount_and_go(unsent, happens):
    m = unsent
    there = {p: m.emulator.blob(a["id"]) for p, a in m.emulator.files().items()}
    assert f"{ADA}/new.bin" not in there
    for _ in range(2):
        happens(m)
        m.start()
        check_unsent(m, there)
    m.door.open()
    m.command("retry")
    m.sync()
    check_unsent(m, there)
    found = m.emulator.folder(ADA)
    assert m.emulator.blob(found["new.bin"]["id"]) == OURS
    assert "tiny.txt" not in found and "logo.png" not in found and "emblem.png" in found
