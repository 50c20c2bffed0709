# SPDX-License-Identifier: MIT
"""
The kernel keeps the pages of a file as long as they are those of its version: what was read is not asked of
the daemon again, and what has changed is never read from old pages, whoever has the file open.
"""

import errno
import os
import string
import threading

from harness import numbered, random_bytes, wait_until

NAME = "users/Ada Byron/file.bin"


def one_file(drive, data: bytes, **options):
    m = drive(tree={"users": {"Ada Byron": {"file.bin": data}}, "events": {}}, poll=0, **options)
    return m, m / NAME


def replace(m, path, text: str) -> None:
    m.emulator.change({"op": "replace", "id": m.emulator.file(NAME)["id"], "text": text})
    size = len(m.emulator.bytes_of(NAME))
    m.command("refresh")
    wait_until(lambda: path.stat().st_size == size, "the new version to be seen")


def test_what_was_read_is_not_asked_of_the_daemon_again(drive):
    data = random_bytes(4_000_000)
    m, path = one_file(drive, data)
    assert path.read_bytes() == data
    wait_until(lambda: "user.attachfs.xxh128" in os.listxattr(path), "the file to be whole")
    before = m.requests_taken()
    assert path.read_bytes() == data
    assert m.requests_taken() - before < 20, "30 requests of 128 KiB and more, had it been asked"


def stale(fd: int, at: int) -> bytes | None:
    """What a handle of a version that is gone gives: nothing, or (FUSE passthrough) its own bytes."""
    try:
        return os.pread(fd, 100_000, at)
    except OSError as e:
        assert e.errno == errno.ESTALE
        return None


def test_a_new_version_is_read_although_the_old_one_is_open(drive):
    data = random_bytes(2_000_000)
    m, path = one_file(drive, data)
    for text in ("first" * 200_000, "second" * 300_000, "third" * 200_000):
        old = os.open(path, os.O_RDONLY)
        assert len(os.pread(old, 100_000, 0)) == 100_000
        replace(m, path, text)
        assert path.read_bytes() == text.encode()
        assert path.read_bytes() == text.encode()
        assert stale(old, 800_000) in (None, data[800_000:900_000]), "bytes of a newer one"
        os.close(old)
        data = text.encode()
        assert path.read_bytes() == text.encode()


def test_handles_of_each_version_give_their_own_bytes_or_none(drive):
    versions = [(c * 700_000).encode() + c.encode() * i for i, c in enumerate("abcd")]
    m, path = one_file(drive, versions[0])
    held = [os.open(path, os.O_RDONLY)]
    for version in versions[1:]:
        assert os.pread(held[-1], 100_000, 0) == versions[len(held) - 1][:100_000]
        replace(m, path, version.decode())
        held.append(os.open(path, os.O_RDONLY))
        assert os.pread(held[-1], 1_000_000, 0) == version
        for fd, old in zip(held, versions):
            assert stale(fd, 600_000) in (None, old[600_000:700_000])
    for fd in held:
        os.close(fd)
    assert path.read_bytes() == versions[-1]


def pieces(path, size: int):
    with open(path, "rb", buffering=0) as f:
        while piece := f.read(size):
            yield piece


def test_many_readers_of_changing_bytes_never_see_a_mix(drive):
    """Each is a little longer than the one before, so that both end in the same page."""
    versions = [(c * (300_000 + 100 * i)).encode() for i, c in enumerate(string.ascii_lowercase)]
    m, path = one_file(drive, versions[0])
    stop, wrong, read = threading.Event(), [], set()

    def look():
        while not stop.is_set():
            try:
                found = b"".join(pieces(path, 50_000))
            except OSError as e:
                assert e.errno in (errno.ESTALE, errno.ENOENT), e  # replaced while it was read
                continue
            read.add(found[:1])
            if found not in versions:
                wrong.append((found[:1], found[-1:], len(found)))

    readers = [threading.Thread(target=look) for _ in range(4)]
    for r in readers:
        r.start()
    for version in versions[1:]:
        m.emulator.change(
            {"op": "replace", "id": m.emulator.file(NAME)["id"], "text": version.decode()}
        )
        m.command("refresh")
        wait_until(lambda: version[:1] in read, "the new version to be read")
    stop.set()
    for r in readers:
        r.join()
    assert not wrong


def test_a_listed_directory_is_looked_at_without_a_lookup_for_each_file(drive):
    """
    What reading the directory tells (READDIRPLUS) is all that stat() wants. ls -l asks for the ACL of each file
    besides, which the kernel has no memory of.
    """
    m = drive(tree={"users": {"Ada": numbered(500)}, "events": {}}, poll=0)
    folder = m / "users/Ada"
    for entry in os.scandir(folder):
        entry.stat()  # where sizes have to be asked for, they are now known
    m.remount()
    assert len(os.listdir(m / "users")) == 1
    m.emulator.reset()
    before = m.requests_taken()
    assert sum(entry.stat().st_size for entry in os.scandir(folder)) == 500 * 1500
    assert m.requests_taken() - before < 60, "500 and more, had each been looked up"
    assert m.emulator.blob_requests() == []


def test_who_waits_for_bytes_that_are_gone_holds_up_nobody(drive):
    """The kernel waits for reads that are under way before it drops a file's pages."""
    m, path = one_file(drive, random_bytes(9_000_000), timeout=600)
    m.allow_errors("gone|stale|cut|broke")
    ended: list = []

    def look():
        try:
            ended.append(len(path.read_bytes()))
        except OSError as e:
            ended.append(e.errno)

    os.stat(path)
    m.emulator.faults({**m.system.blob, "hang": True})
    reader = threading.Thread(target=look)
    reader.start()
    wait_until(lambda: m.status()["parked_calls"], "the read to wait")
    m.emulator.heal()
    replace(m, path, "new" * 1000)
    reader.join(timeout=20)
    assert ended == [errno.ESTALE]
    assert path.read_bytes() == b"new" * 1000
