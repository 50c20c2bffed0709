# SPDX-License-Identifier: MIT
"""
The cache on the disk is not to be trusted, and not to be lost: whatever happens to its files, a reader
gets the server's bytes or an error; what was read once is not asked for again; it stays below its
limit, and a full disk stops nobody from reading.
"""

import errno
import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from harness import (
    raises_errno,
    random_bytes,
    seed_of_the_day,
    wait_until,
)

BLOCK = 256 * 1024
FILE = "users/Ada Byron/file.bin"


def tree_of(**files) -> dict:
    """A user with files: file_bin=... becomes file.bin."""
    return {
        "users": {"Ada Byron": {k.replace("_", "."): v for k, v in files.items()}},
        "events": {},
    }


# The files of the cache, and what its ledger says of them.


def state_of(m) -> Path:
    (ledger,) = m.cache.rglob("ledger.db")
    return ledger.parent


def rows(m) -> list:
    """id, file, size, complete, hashes of blocks, ranges: of the contents in the ledger."""
    path = state_of(m) / "ledger.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        db.row_factory = sqlite3.Row
        return [dict(r) for r in db.execute("SELECT * FROM content WHERE kind<>3 ORDER BY id")]


def written_down(m, size: int) -> bool:
    return any(r["size"] == size and r["complete"] and r["hash"] for r in rows(m))


def object_path(m, number: int) -> Path:
    return state_of(m) / "objects" / f"{number & 0xFF:02x}" / f"{number:016x}"


def the_object(m, size: int) -> Path:
    """The file of the only content of that size."""
    (row,) = [r for r in rows(m) if r["size"] == size]
    return object_path(m, row["file"])


def objects(m) -> list:
    return [p for p in (state_of(m) / "objects").rglob("*") if p.is_file()]


def put(path: Path, data: bytes, offset: int = 0) -> None:
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def replace(path: Path, data: bytes) -> None:
    """As an editor would: another file under the name."""
    other = path.with_name("other")
    other.write_bytes(data)
    other.chmod(0o600)
    os.rename(other, path)


def fresh(path) -> bytes:
    """What the daemon gives, not what the kernel remembers."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        with open(fd, "rb", closefd=False) as f:
            return f.read()
    finally:
        os.close(fd)


def lines_about(m, *words: str) -> list:
    return [
        line
        for line in m.log().splitlines()
        if " warning cache: " in line and all(w in line for w in words)
    ]


def damage(name: str, path: Path, data: bytes) -> None:
    if name == "flipped":
        at = 2 * BLOCK + 1000
        put(path, bytes([data[at] ^ 1]), at)
    elif name == "zeroed":
        put(path, bytes(BLOCK))
    elif name == "cut":
        os.truncate(path, BLOCK + 100)
    elif name == "emptied":
        os.truncate(path, 0)
    elif name == "longer":
        put(path, b"more", len(data))
    elif name == "replaced":
        replace(path, random_bytes(len(data), "other"))
    elif name == "removed":
        path.unlink()


SIZE = 3 * BLOCK + 5000
WAYS = ["flipped", "zeroed", "cut", "emptied", "replaced", "removed"]


@pytest.mark.parametrize("way", WAYS)
def test_damage_while_the_daemon_is_down_is_mended_and_told(drive, way):
    data = random_bytes(SIZE, "damaged")
    m = drive(tree=tree_of(file_bin=data), poll=0)
    assert (m / FILE).read_bytes() == data
    m.umount()
    path = the_object(m, SIZE)
    damage(way, path, data)
    m.start()
    m.emulator.reset()
    assert (m / FILE).read_bytes() == data
    assert len(m.emulator.blob_requests()) >= 1
    found = lines_about(m, "file.bin", path.name)
    assert len(found) == 1, found
    # mended for good
    m.remount()
    m.emulator.reset()
    assert (m / FILE).read_bytes() == data
    assert m.emulator.blob_requests() == []
    assert len(lines_about(m)) == 1


def test_only_a_bad_block_is_fetched_again(drive):
    size = 40 * BLOCK
    data = random_bytes(size, "large")
    m = drive(tree=tree_of(file_bin=data), poll=0)
    assert (m / FILE).read_bytes() == data
    m.umount()
    path = the_object(m, size)
    put(path, b"\x00\x01\x02\x03", 17 * BLOCK)
    m.start()
    m.emulator.reset()
    assert (m / FILE).read_bytes() == data
    (asked,) = m.emulator.downloads()
    assert asked["response_bytes"] < 4 * BLOCK
    assert len(lines_about(m, "file.bin", path.name)) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("held", [False, True], ids=["closed", "open"])
def test_damage_under_the_running_daemon_never_shows(drive, way, held):
    data = random_bytes(SIZE, "damaged")
    m = drive(tree=tree_of(file_bin=data), poll=0)
    assert (m / FILE).read_bytes() == data
    wait_until(lambda: written_down(m, SIZE), "the row of the content")
    path = the_object(m, SIZE)
    fd = os.open(m / FILE, os.O_RDONLY) if held else -1
    if held:
        assert os.pread(fd, 100, 0) == data[:100]
    time.sleep(0.02)  # the clock of the file system ticks
    damage(way, path, data)
    # what is verified when it is opened, and then read by the kernel itself, is not looked at any more
    by_kernel = "ATTACHFS_TEST_PASSTHROUGH" in os.environ and way not in ("replaced", "removed")
    if held:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for off in range(0, 0 if by_kernel else SIZE, 70_000):
            same = os.pread(fd, 70_000, off) == data[off : off + 70_000]
            assert same, off
        os.close(fd)
    assert fresh(m / FILE) == data
    # whoever held it open kept the bytes of a file that has no name any more
    told = lines_about(m, "file.bin", path.name)
    assert len(told) == 1, m.log()[-2000:]
    assert fresh(m / FILE) == data


def test_what_is_right_is_not_compared_twice(drive):
    """Nothing is fetched, nothing is told, when only the time of the file has changed."""
    data = random_bytes(SIZE, "touched")
    m = drive(tree=tree_of(file_bin=data), poll=0)
    assert (m / FILE).read_bytes() == data
    wait_until(lambda: written_down(m, SIZE), "the row of the content")
    os.utime(the_object(m, SIZE))
    m.emulator.reset()
    assert fresh(m / FILE) == data
    assert m.emulator.blob_requests() == []
    assert lines_about(m) == []


def test_bad_blocks_that_cannot_be_fetched_are_an_error(drive):
    data = random_bytes(SIZE, "offline")
    m = drive(tree=tree_of(file_bin=data), poll=0, timeout=2)
    assert (m / FILE).read_bytes() == data
    m.umount()
    put(the_object(m, SIZE), b"bad", 2 * BLOCK)
    m.start()
    m.emulator.faults({**m.system.blob, "hang": True})
    m.allow_errors("timed out|deadline|ETIMEDOUT|timeout")
    fd = os.open(m / FILE, os.O_RDONLY)
    assert os.pread(fd, 1000, 10) == data[10:1010]
    with raises_errno(errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EIO):
        os.pread(fd, 1000, 2 * BLOCK)
    m.emulator.heal()
    wait_until(lambda: reads(fd, 1000, 2 * BLOCK) == data[2 * BLOCK : 2 * BLOCK + 1000], "bytes")
    os.close(fd)


def reads(fd: int, n: int, off: int) -> bytes:
    try:
        return os.pread(fd, n, off)
    except OSError:
        return b""


# What was not sent yet


@pytest.mark.parametrize("way", ["flipped", "cut"])
def test_damaged_unsent_bytes_are_kept_but_neither_shown_nor_sent(drive, way):
    data = random_bytes(SIZE, "unsent")
    m = drive(tree=tree_of(), poll=0, settle=0.2, timeout=3)
    m.emulator.faults({**m.system.upload, "status": 503})
    (m / FILE).write_bytes(data)
    wait_until(lambda: written_down(m, SIZE), "its hash")
    m.kill9()
    path = the_object(m, SIZE)
    damage(way, path, data)
    bad = path.read_bytes()
    m.emulator.heal()
    m.allow_errors("neither shown nor sent|cannot be read|missing|too short|not in the cache")
    m.start()
    with raises_errno(errno.EIO):
        (m / FILE).read_bytes()
    m.sync(ok=False)
    assert "file.bin" not in m.emulator.folder("users/Ada Byron")
    if way == "flipped":
        assert m.xattr(FILE, "state") == "parked"
        assert "cannot be read" in m.xattr(FILE, "error")
        assert (state_of(m) / "lost+found" / path.name).read_bytes() == bad
    else:
        assert path.read_bytes() == bad, "what is left of it is left alone"
    (m / FILE).unlink()
    wait_until(m.idle, "the deletion")
    if way == "flipped":
        assert (state_of(m) / "lost+found" / path.name).read_bytes() == bad


def test_unsent_bytes_that_lie_over_damaged_ones_are_sent_right(drive):
    data = random_bytes(SIZE, "below")
    m = drive(tree=tree_of(file_bin=data), poll=0, settle=600)
    assert (m / FILE).read_bytes() == data
    put(m / FILE, b"mine", 100)
    m.kill9()
    damaged = min(rows(m), key=lambda r: r["id"])
    put(object_path(m, damaged["file"]), b"bad", 2 * BLOCK)
    m.start()
    m.sync()
    want = data[:100] + b"mine" + data[104:]
    assert m.emulator.bytes_of(FILE) == want
    assert fresh(m / FILE) == want


# Shared


def shared(m, size: int) -> set:
    return {object_path(m, r["file"]).stat().st_ino for r in rows(m) if r["size"] == size}


def two_equal(drive, **options):
    data = random_bytes(SIZE, "twin")
    tree = {
        "users": {"Ada Byron": {"one.bin": data}, "Grace Hopper": {"two.bin": data}},
        "events": {},
    }
    m = drive(tree=tree, poll=0, **options)
    one, two = m / "users/Ada Byron/one.bin", m / "users/Grace Hopper/two.bin"
    assert one.read_bytes() == data and two.read_bytes() == data
    wait_until(lambda: len(rows(m)) >= 2 and len(shared(m, SIZE)) == 1, "one file for both")
    return m, data, one, two


def test_equal_contents_share_a_file_and_count_once(drive):
    m, data, one, two = two_equal(drive)
    assert m.status()["cache"]["bytes"] < 2 * SIZE
    assert m.xattr("users/Ada Byron/one.bin", "xxh128") == m.xattr(
        "users/Grace Hopper/two.bin", "xxh128"
    )
    before = m.status()["cache"]["bytes"]
    m.remount()
    assert m.status()["cache"]["bytes"] == before
    # each is its own file
    put(two, b"changed", 1000)
    assert fresh(one) == data
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/one.bin") == data
    assert m.emulator.bytes_of("users/Grace Hopper/two.bin")[1000:1007] == b"changed"
    one.unlink()
    m.sync()
    assert fresh(two)[1000:1007] == b"changed"


def test_copies_of_one_file_share_when_they_are_sent(drive):
    data = random_bytes(SIZE, "copied")
    m = drive(tree=tree_of(file_bin=data), poll=0)
    assert (m / FILE).read_bytes() == data
    shutil.copyfile(m / FILE, m / "users/Ada Byron/copy.bin")
    m.sync()
    wait_until(lambda: len(rows(m)) >= 2 and len(shared(m, SIZE)) == 1, "one file for both")
    assert fresh(m / "users/Ada Byron/copy.bin") == data


def test_a_damaged_shared_file_is_mended_for_both(drive):
    m, data, one, two = two_equal(drive)
    m.umount()
    path = object_path(m, min(rows(m), key=lambda r: r["id"])["file"])
    put(path, b"bad", 2 * BLOCK)
    m.start()
    assert one.read_bytes() == data
    assert two.read_bytes() == data
    wait_until(lambda: m.status()["cache"]["bytes"] >= SIZE, "what both take")
    m.remount()
    m.emulator.reset()
    assert one.read_bytes() == data and two.read_bytes() == data
    assert m.emulator.blob_requests() == []


# Warm


def mixed_tree() -> dict:
    small = {f"small-{i:02}.txt": random_bytes(1500 + i, i) for i in range(8)}
    return {
        "users": {"Ada Byron": {**small, "file.bin": random_bytes(SIZE, "warm")}},
        "events": {"Live fire": {"empty.txt": b"", "map.jpg": random_bytes(BLOCK, "map")}},
    }


@pytest.mark.parametrize("end", ["umount", "kill9"])
def test_what_was_read_is_there_after_the_end(drive, end):
    m = drive(tree=mixed_tree(), poll=0)
    before = m.tree()
    sizes = {len(d) for d in before.values() if d}
    wait_until(lambda: all(written_down(m, s) for s in sizes), "the rows")
    m.kill9() if end == "kill9" else m.umount()
    m.start()
    m.emulator.reset()
    assert m.tree() == before
    assert m.emulator.blob_requests() == []


@pytest.mark.parametrize("end", ["umount", "kill9"])
def test_what_was_fetched_of_a_large_file_is_there_after_the_end(drive, end):
    size = 80 * BLOCK
    data = random_bytes(size, "partial")
    m = drive(tree=tree_of(file_bin=data), poll=0)
    fd = os.open(m / FILE, os.O_RDONLY)
    places = [0, 33 * BLOCK + 5000, 79 * BLOCK + 100]
    for off in places:
        assert os.pread(fd, 4096, off) == data[off : off + 4096]
    os.close(fd)
    if end == "umount":
        m.umount()
    else:
        wait_until(lambda: any(r["block_hashes"] for r in rows(m)), "the row of what is there")
        m.kill9()
    m.start()
    m.emulator.reset()
    fd = os.open(m / FILE, os.O_RDONLY)
    # no readahead of the kernel's: it asks for what nobody has read yet
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for off in places:
        assert os.pread(fd, 4096, off) == data[off : off + 4096]
    assert m.emulator.blob_requests() == []
    os.close(fd)
    assert (m / FILE).read_bytes() == data
    moved = sum(r["response_bytes"] for r in m.emulator.downloads())
    assert moved <= size - 2 * BLOCK
    m.remount()
    m.emulator.reset()
    assert (m / FILE).read_bytes() == data
    assert m.emulator.blob_requests() == []


def test_a_part_that_was_damaged_meanwhile_is_fetched_again(drive):
    size = 80 * BLOCK
    data = random_bytes(size, "partial")
    m = drive(tree=tree_of(file_bin=data), poll=0)
    fd = os.open(m / FILE, os.O_RDONLY)
    assert os.pread(fd, 4096, 33 * BLOCK) == data[33 * BLOCK : 33 * BLOCK + 4096]
    os.close(fd)
    m.umount()
    put(the_object(m, size), b"bad", 33 * BLOCK + 7)
    m.start()
    # a reader of all of it would have so small a part brought again anyhow
    fd = os.open(m / FILE, os.O_RDONLY)
    assert os.pread(fd, 4096, 33 * BLOCK) == data[33 * BLOCK : 33 * BLOCK + 4096]
    os.close(fd)
    assert (m / FILE).read_bytes() == data
    assert len(lines_about(m, "file.bin")) == 1


def test_an_idle_part_that_was_removed_is_fetched_again(drive):
    size = 80 * BLOCK
    data = random_bytes(size, "partial")
    m = drive(tree=tree_of(file_bin=data), poll=0)
    for way in ("removed", "emptied", "replaced", "flipped"):
        fd = os.open(m / FILE, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, 4096, 2 * BLOCK) == data[2 * BLOCK : 2 * BLOCK + 4096]
        os.close(fd)
        wait_until(lambda: any(r["block_hashes"] for r in rows(m)), "the row of what is there")
        wait_until(lambda: the_object(m, size).exists(), "the file of what is there")
        time.sleep(0.1)
        damage(way, the_object(m, size), data)
    assert fresh(m / FILE) == data


def test_cached_files_are_read_without_a_server(emulator, gate, mount):
    server = emulator(tree=mixed_tree())
    g = gate(server)
    m = mount(server, source=server.system.source(g.url), poll=0, timeout=3)
    before = m.tree()
    m.umount()
    g.shut()
    m.allow_errors("offline|refused|reach|down|connect|Connection")
    m.same_at_end = False
    m.start(look=False)
    assert m.tree() == before
    g.open()


# Bounded


LIMIT = 12 << 20


@contextmanager
def watched(m, disk: Path, limit: int):
    """
    The block runs while somebody looks how much the cache takes of its disk, which is asked as a whole:
    what is unlinked but open counts, and nothing moves meanwhile. Each end of a piece of a file takes a
    page of it.
    """
    seen, stop = [], threading.Event()
    others = [p for p in state_of(m).iterdir() if p.is_file()]  # the ledger

    def look():
        while not stop.is_set():
            v = os.statvfs(disk)
            on_disk = (v.f_blocks - v.f_bfree) * v.f_frsize
            seen.append((on_disk - sum(p.stat().st_blocks * 512 for p in others), told()))
            time.sleep(0.001)

    def told() -> int:
        return m.status()["cache"]["bytes"] if len(seen) % 20 == 0 else 0

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    most = max(on_disk for on_disk, _ in seen), max(told for _, told in seen)
    assert len(seen) > 3 and most[0] <= limit + 16 * 4096 and most[1] <= limit, (most, len(seen))


def read_in_parallel(paths, data) -> list:
    """Each by a program of its own that streams it; what was wrong."""
    wrong = []

    def stream(path, want):
        at = 0
        try:
            with open(path, "rb", buffering=0) as f:
                while got := f.read(128 * 1024):
                    if got != want[at : at + len(got)]:
                        wrong.append((path, at))
                        return
                    at += len(got)
        except OSError as e:
            wrong.append((path, at, e))
        if at != len(want):
            wrong.append((path, at))

    threads = [threading.Thread(target=stream, args=pair) for pair in zip(paths, data)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return wrong


@pytest.mark.limit(240)
def test_the_limit_holds_while_four_readers_stream_ten_times_as_much(small_disk, drive):
    disk = small_disk(64 << 20)
    names = [f"stream-{i:02}.bin" for i in range(12)]
    files = {n: random_bytes(10 << 20, n) for n in names}
    m = drive(
        tree={"users": {"Ada Byron": files}, "events": {}},
        poll=0,
        cache=disk / "cache",
        cache_size=LIMIT,
        cache_free=0,
    )
    record = m / "users/Ada Byron"
    with watched(m, disk, LIMIT):
        for i in range(0, 12, 4):
            four = names[i : i + 4]
            assert read_in_parallel([record / n for n in four], [files[n] for n in four]) == []


@pytest.mark.limit(120)
def test_the_least_recently_used_go_first_pinned_and_unsent_stay(drive):
    names = [f"file-{i}.bin" for i in range(8)]
    files = {n: random_bytes((2 << 20) + i, n) for i, n in enumerate(names)}
    m = drive(
        tree={"users": {"Ada Byron": files}, "events": {}}, poll=0, cache_size=LIMIT, settle=600
    )
    record = m / "users/Ada Byron"
    os.setxattr(record / names[0], "user.attachfs.pin", b"1")
    assert (record / names[0]).read_bytes() == files[names[0]]
    (record / "mine.bin").write_bytes(random_bytes(2 << 20, "mine"))
    for name in names[1:4]:
        assert (record / name).read_bytes() == files[name]
    assert (record / names[1]).read_bytes() == files[names[1]]
    wait_until(lambda: all(cached(m, n) for n in names[:4]), "four files in the cache")
    assert fresh(record / names[1]) == files[names[1]]  # used again
    for name in names[4:6]:
        assert (record / name).read_bytes() == files[name]
        wait_until(lambda: cached(m, name), "the hash of the last one")
    assert not cached(m, names[2]), "the least recently used"
    for name in names[6:]:
        assert (record / name).read_bytes() == files[name]
    m.emulator.reset()
    assert fresh(record / names[0]) == files[names[0]]
    assert fresh(record / "mine.bin") == random_bytes(2 << 20, "mine")
    assert m.emulator.blob_requests() == []
    # across the end
    m.remount()
    for name in names[1:]:
        assert (record / name).read_bytes() == files[name]
    m.emulator.reset()
    assert fresh(record / names[0]) == files[names[0]]
    assert m.emulator.blob_requests() == []


def cached(m, name: str) -> bool:
    return m.xattr(f"users/Ada Byron/{name}", "state") == "cached"


@pytest.mark.limit(120)
def test_a_file_larger_than_the_cache_is_read(small_disk, drive):
    disk = small_disk(64 << 20)
    size = 40 << 20
    data = random_bytes(size, "larger")
    m = drive(
        tree=tree_of(file_bin=data), poll=0, cache=disk / "cache", cache_size=8 << 20, cache_free=0
    )
    with watched(m, disk, 8 << 20):
        assert read_in_parallel([m / FILE], [data]) == []
        fd = os.open(m / FILE, os.O_RDONLY)
        chance = random.Random(seed_of_the_day())
        for _ in range(20):
            off = chance.randrange(size)
            assert os.pread(fd, 5000, off) == data[off : off + 5000]
        os.close(fd)


def test_room_on_the_disk_is_left(small_disk, drive):
    """cache_free= of a disk with 24 MiB: no more than 8 of it are used."""
    disk = small_disk(24 << 20)
    names = [f"file-{i}.bin" for i in range(6)]
    files = {n: random_bytes(3 << 20, n) for n in names}
    m = drive(
        tree={"users": {"Ada Byron": files}, "events": {}},
        poll=0,
        cache=disk / "cache",
        cache_free=16 << 20,
    )
    for name in names:
        assert (m / "users/Ada Byron" / name).read_bytes() == files[name]
        free = os.statvfs(disk)
        assert free.f_bavail * free.f_frsize >= (16 << 20) - (1 << 20)
    assert cached(m, names[-1])


@pytest.fixture
def small_disk(base):
    """A file system of a few MiB to keep the cache on; unmounted after the daemon has gone."""
    made = []

    def make(size: int) -> Path:
        path = base / f"disk-{len(made)}"
        path.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(path)], check=True
        )
        made.append(path)
        return path

    yield make
    for path in made:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.limit(120)
def test_a_full_disk_stops_nobody_from_reading(small_disk, drive):
    disk = small_disk(12 << 20)
    small = {f"small-{i}.txt": random_bytes(3000 + i, i) for i in range(5)}
    large = random_bytes(20 << 20, "streamed")
    m = drive(
        tree=tree_of(file_bin=large, middle_bin=random_bytes(3 << 20, "middle"), **small),
        poll=0,
        cache=disk / "cache",
        cache_free=0,
        settle=600,
    )
    record = m / "users/Ada Byron"
    (record / "before.bin").write_bytes(random_bytes(1 << 20, "before"))
    m.allow_errors("No space|ENOSPC|full|disk")
    with fill_up(disk):
        assert read_in_parallel([m / FILE], [large]) == []
        assert (record / "middle.bin").read_bytes() == random_bytes(3 << 20, "middle")
        for name, data in small.items():
            assert (record / name.replace("_", ".")).read_bytes() == data
        assert read_in_parallel(
            [m / FILE, record / "middle.bin"], [large, random_bytes(3 << 20, "middle")]
        ) == []
        with raises_errno(errno.ENOSPC):
            with open(record / "after.bin", "wb", buffering=0) as f:
                f.write(random_bytes(1 << 20, "after"))
        assert fresh(record / "before.bin") == random_bytes(1 << 20, "before")
    (record / "after.bin").write_bytes(b"there is room again")
    m.sync()
    path = "users/Ada Byron/before.bin"
    assert m.emulator.bytes_of(path) == random_bytes(1 << 20, "before")
    assert m.emulator.bytes_of("users/Ada Byron/after.bin") == b"there is room again"


@pytest.mark.limit(120)
def test_a_full_disk_and_a_server_without_range(small_disk, drive):
    disk = small_disk(12 << 20)
    data = random_bytes(20 << 20, "streamed")
    m = drive(tree=tree_of(file_bin=data), poll=0, cache=disk / "cache", cache_free=0)
    m.allow_errors("No space|ENOSPC|full|disk")
    m.emulator.faults({**m.system.blob, "ignore_range": True})
    with fill_up(disk):
        assert read_in_parallel([m / FILE], [data]) == []
        fd = os.open(m / FILE, os.O_RDONLY)
        assert os.pread(fd, 5000, 15 << 20) == data[15 << 20 : (15 << 20) + 5000]
        os.close(fd)
    m.emulator.heal()


@contextmanager
def fill_up(disk: Path):
    """Not a byte is left on @disk while the block runs."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as f:
        with raises_errno(errno.ENOSPC):
            while f.write(bytes(65536)):
                pass
    try:
        yield
    finally:
        ballast.unlink()


# Pins


def test_pins_are_attributes_of_files(drive):
    m = drive()
    path = m / "users/Ada Byron/notes.txt"
    with raises_errno(errno.ENODATA):
        os.getxattr(path, "user.attachfs.pin")
    with raises_errno(errno.EINVAL):
        os.setxattr(path, "user.attachfs.pin", b"perhaps")
    os.setxattr(path, "user.attachfs.pin", b"1")
    assert os.getxattr(path, "user.attachfs.pin") == b"1"
    assert "user.attachfs.pin" in os.listxattr(path)
    wait_until(lambda: cached(m, "notes.txt"), "it to be fetched, although nobody reads it")
    m.remount()
    assert os.getxattr(path, "user.attachfs.pin") == b"1"
    os.removexattr(path, "user.attachfs.pin")
    with raises_errno(errno.ENODATA):
        os.getxattr(path, "user.attachfs.pin")
    with raises_errno(errno.EPERM):
        os.setxattr(path, "user.attachfs.id", b"7")


def test_a_pinned_file_that_is_replaced_is_fetched_by_the_poll(drive):
    m = drive(poll=0)
    if not m.emulator.system.replace_keeps_id:
        pytest.skip("what replaces a file is another one")
    path = m / "users/Ada Byron/notes.txt"
    os.setxattr(path, "user.attachfs.pin", b"1")
    wait_until(lambda: cached(m, "notes.txt"), "it to be fetched")
    ident = m.emulator.file("users/Ada Byron/notes.txt")["id"]
    m.emulator.change({"op": "replace", "id": ident, "text": "another text"})
    m.emulator.reset()
    m.command("refresh")
    wait_until(lambda: cached(m, "notes.txt"), "it to be fetched again, although nobody reads it")
    assert len(m.emulator.downloads()) == 1
    assert path.read_text() == "another text"
    assert len(m.emulator.downloads()) == 1
