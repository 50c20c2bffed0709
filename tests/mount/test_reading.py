# SPDX-License-Identifier: MIT
"""
Reading bytes: exact at every offset and size, asked for once, streamed as they arrive, never at the
price of other programs: parked reads on a server that never answers hold up nothing and can be
killed.
"""

import errno
import os
import random
import re
import subprocess
import sys
import threading

import pytest

from harness import SLOW, raises_errno, random_bytes, run, seed_of_the_day, wait_until

SIZES = [
    0,
    1,
    1023,
    1024,
    4095,
    4096,
    4097,
    262_143,
    262_144,
    262_145,
    4_194_304,
    4_194_305,
    11_000_000,
]


@pytest.mark.parametrize("size", SIZES)
def test_files_of_every_size_read_exactly(drive, size):
    data = random_bytes(size)
    m = drive(tree={"users": {"Ada Byron": {"file.bin": data}}, "events": {}})
    path = m / "users/Ada Byron/file.bin"
    with open(path, "rb") as f:
        assert f.read() == data
        assert f.read(10) == b""
        f.seek(max(0, size - 5))
        assert f.read() == data[-5:] if size else True
    assert path.stat().st_size == size


def test_random_access_reads_exactly(drive):
    data = random_bytes(9_000_000)
    m = drive(tree={"users": {"Ada Byron": {"file.bin": data}}, "events": {}})
    chance = random.Random(seed_of_the_day())
    fd = os.open(m / "users/Ada Byron/file.bin", os.O_RDONLY)
    for _ in range(200):
        offset = chance.randrange(len(data) + 1000)
        length = chance.choice([1, 100, 4096, 70_000, 300_000])
        assert os.pread(fd, length, offset) == data[offset : offset + length], (offset, length)
    os.close(fd)


def test_bytes_are_asked_for_once_and_kept_across_mounts(drive):
    m = drive(poll=0)
    path = m / "users/Ada Byron/large.bin"
    data = path.read_bytes()
    m.emulator.reset()
    assert path.read_bytes() == data
    assert run("cmp", path, path).returncode == 0
    assert m.emulator.blob_requests() == []
    m.remount()
    m.emulator.reset()
    assert path.read_bytes() == data
    assert m.emulator.blob_requests() == []


def test_many_readers_of_one_file_cost_one_download(drive):
    data = random_bytes(3_000_000)
    m = drive(tree={"users": {"Ada Byron": {"file.bin": data}}, "events": {}}, poll=0)
    path = m / "users/Ada Byron/file.bin"
    path.stat()
    m.emulator.faults(latency_ms=300)
    m.emulator.reset()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(path.read_bytes() == data)) for _ in range(12)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [True] * 12
    assert sum(r["response_bytes"] for r in m.emulator.downloads()) < 2 * len(data)


def test_the_token_never_goes_to_the_blob_host(drive, scratch, system):
    """Enterprise Tester's bytes are where its API is: nothing is asked elsewhere."""
    m = drive(toggles=system.foreign_bytes)
    run("cp", "-r", m / "users", scratch)
    (m / "users/Ada Byron/new.bin").write_bytes(b"x" * 5000)
    m.sync()
    log = m.emulator.requests()
    assert any(r["port"] == "blob" for r in log) == bool(system.foreign_bytes)
    assert not any(r["authorization"] for r in log if r["port"] == "blob")
    asked = [r for r in log if not re.fullmatch(system.logins, r["endpoint"])]
    assert all(r["authorization"] for r in asked if r["port"] == "api")
    assert not any(r["method"] == "HEAD" for r in log), "presigned URLs refuse HEAD"


def test_the_beginning_of_a_huge_file_does_not_cost_the_file(drive):
    m = drive(generate=["users:1:1:10737418240"], poll=0)
    m.same_at_end = False
    record = m / f"users/{os.listdir(m / 'users')[0]}"
    path = record / os.listdir(record)[0]
    assert path.stat().st_size == 10 << 30
    m.emulator.reset()
    first = run("sh", "-c", f"head -c 4096 '{path}' | sha256sum").stdout.split()[0]
    assert len(first) == 64
    wait_until(lambda: m.emulator.summary()["bytes_out"] >= 4096, "the log line of the request")
    assert len(m.emulator.downloads()) == 1
    assert m.emulator.summary()["bytes_out"] < 64 << 20
    fd = os.open(path, os.O_RDONLY)
    assert len(os.pread(fd, 4096, (10 << 30) - 4096)) == 4096
    assert len(os.pread(fd, 4096, 5 << 30)) == 4096
    os.close(fd)
    assert m.emulator.summary()["bytes_out"] < 256 << 20


def test_reads_are_answered_as_bytes_arrive(drive):
    data = random_bytes(4_000_000)
    m = drive(tree={"users": {"Ada Byron": {"slow.bin": data}}, "events": {}}, poll=0, timeout=120)
    path = m / "users/Ada Byron/slow.bin"
    path.stat()
    m.emulator.faults({**m.system.blob, "bytes_per_second": 1_000_000})
    fd = os.open(path, os.O_RDONLY)
    assert os.pread(fd, 4096, 0) == data[:4096]
    assert (
        m.xattr("users/Ada Byron/slow.bin", "state") == "remote"
    ), "answered before the whole had come"
    os.close(fd)
    m.emulator.heal()


def test_mapped_files_read_exactly(drive):
    m = drive()
    program = (
        "import mmap, sys, hashlib; f = open(sys.argv[1], 'rb');"
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(hashlib.sha256(m[:]).hexdigest())"
    )
    path = "users/Ada Byron/large.bin"
    told = run(sys.executable, "-c", program, m / path).stdout.strip()
    assert told == m.emulator.file(path)["sha256"]


def test_a_server_without_range_is_read_all_the_same(drive, scratch):
    m = drive()
    m.emulator.faults({**m.system.blob, "ignore_range": True})
    run("cp", "-r", m / "users", scratch)
    fd = os.open(m / "events/Live fire/range-card.txt", os.O_RDONLY)
    assert os.pread(fd, 16, 800) == (b"Range 4\n" * 300)[800:816]
    os.close(fd)


# Parked reads


def parked(m, readers, count):
    """@count programs that wait for a blob server that never answers; sizes and names are known."""
    record = m / f"users/{os.listdir(m / 'users')[0]}"
    names = sorted(os.listdir(record))
    for name in names:
        (record / name).stat()
    cached = record / names[-1]
    assert len(cached.read_bytes()) > 0
    m.emulator.faults({**m.system.blob, "hang": True})
    for name in names[:count]:
        readers.start(record / name)
    if count:
        wait_until(readers.waiting, "readers to start")
    return record, cached


def test_a_killed_reader_is_gone_at_once(drive, readers):
    m = drive(generate=["users:1:5:5000"], poll=0, timeout=600)
    m.same_at_end = False
    parked(m, readers, 2)
    for reader in readers.processes:
        assert reader.poll() is None
        reader.kill()
        reader.wait(20 * SLOW)
    m.emulator.heal()


def test_an_interrupted_reader_gets_its_signal(drive, readers):
    m = drive(generate=["users:1:5:5000"], poll=0, timeout=600)
    m.same_at_end = False
    parked(m, readers, 1)
    reader = readers.processes[0]
    reader.terminate()
    assert reader.wait(20 * SLOW) == -15
    m.emulator.heal()


def test_a_read_that_never_gets_an_answer_ends_at_its_deadline(drive, readers):
    m = drive(generate=["users:1:3:5000"], poll=0, timeout=2)
    m.same_at_end = False
    m.allow_errors("timed out|deadline|ETIMEDOUT|timeout")
    record, _ = parked(m, readers, 0)
    fd = os.open(sorted(record.iterdir())[0], os.O_RDONLY)
    with raises_errno(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EIO):
        os.read(fd, 100)
    m.emulator.heal()
    wait_until(lambda: readable(fd), "reading to work again")
    os.close(fd)


def readable(fd) -> bool:
    try:
        return len(os.pread(fd, 100, 0)) == 100
    except OSError:
        return False


def test_stat_of_a_size_that_never_comes_ends_too(drive, system):
    if system.sizes_listed:
        return
    m = drive(generate=["users:1:3:5000"], poll=0, timeout=2)
    m.same_at_end = False
    m.allow_errors("timed out|deadline|ETIMEDOUT|timeout")
    record = m / f"users/{os.listdir(m / 'users')[0]}"
    name = os.listdir(record)[0]
    m.emulator.faults({**m.system.blob, "hang": True})
    try:
        os.stat(record / name)
    except OSError as e:
        assert e.errno in (errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EIO)
    m.emulator.heal()
    wait_until(lambda: stat_size(record / name) == 5000, "the true size")


def stat_size(path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def test_a_listing_that_never_comes_can_be_killed(drive):
    m = drive(poll=0, timeout=2, start=False)
    m.allow_errors("timed out|deadline|ETIMEDOUT|timeout")
    m.same_at_end = False
    m.emulator.faults({"port": "any", "match": "", "count": -1, "hang": True})
    m.start(look=False)
    p = subprocess.Popen(
        ["ls", "-R", str(m.path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.statvfs(m.path)
    m.status()
    p.kill()
    p.wait(20 * SLOW)
    m.emulator.heal()
    wait_until(lambda: lists(m / "users/Ada Byron"), "the listing once the server answers")


def lists(path) -> bool:
    try:
        return "notes.txt" in os.listdir(path)
    except OSError:
        return False


# Expiring addresses


def test_an_expired_address_is_renewed(drive, system):
    if not system.presigned:
        pytest.skip("addresses do not expire")
    m = drive(toggles={"url": "presigned", "presign_ttl": 60}, poll=0)
    paths = sorted(m.emulator.files())
    for path in paths:
        (m / path).stat()
    m.emulator.clock(3600)
    for path in paths:
        assert (m / path).read_bytes() == m.emulator.bytes_of(path)


def test_addresses_in_the_log_have_no_query(drive, scratch, system):
    m = drive(toggles=system.foreign_bytes)
    run("cp", "-r", m / "users", scratch)
    assert "X-Amz-Signature=" not in m.log()
    assert not re.search(r"https?://[^\s\"']*\?", m.log())
    if system.addresses:
        url = m.xattr("users/Ada Byron/notes.txt", "url")
        assert "?" not in url.removesuffix("?<redacted>")
