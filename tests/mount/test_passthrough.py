# SPDX-License-Identifier: MIT
"""
What the kernel reads without asking us, where it can (libfuse >= 3.17, Linux >= 6.9, CAP_SYS_ADMIN): files
that are here as a whole, for who only reads them. The tests hold either way, but for the one that asks for it:
`scripts/test --trixie` runs them where it can, and says so by ATTACHFS_TEST_PASSTHROUGH.
"""

import mmap
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from harness import random_bytes, run, wait_until

NAME = "users/Ada Byron/file.bin"


@pytest.fixture
def cached(drive):
    """A drive whose file is here as a whole, its path, and its bytes."""
    data = random_bytes(3_000_000)
    m = drive(tree={"users": {"Ada Byron": {"file.bin": data}}, "events": {}}, poll=0)
    path = m / NAME
    assert path.read_bytes() == data
    wait_until(lambda: "user.attachfs.xxh128" in os.listxattr(path), "the file to be whole")
    return m, path, data


@contextmanager
def holding(path):
    """Another program that has the file open: what it reads when told to."""
    program = (
        "import os, sys; fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "for line in sys.stdin: os.lseek(fd, 0, 0); data = os.read(fd, 10_000_000); "
        "sys.stdout.buffer.write(b'%d\\n' % len(data) + data); sys.stdout.flush()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def read() -> bytes:
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        return holder.stdout.read(int(holder.stdout.readline()))

    try:
        read()
        yield read
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()


def kernel_reads_it_itself(cached):
    m, path, data = cached
    with open(path, "rb", buffering=0) as f:
        before = m.requests_taken()
        for _ in range(5):
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert f.seek(0) == 0 and f.read(len(data)) == data
        assert m.requests_taken() - before < 15


if os.environ.get("ATTACHFS_TEST_PASSTHROUGH") == "1":
    test_the_kernel_reads_a_whole_file_itself = kernel_reads_it_itself


def test_a_held_file_is_read_by_others(cached):
    m, path, data = cached
    with holding(path) as read:
        for _ in range(3):
            assert path.read_bytes() == data
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == data
        assert read() == data


def test_a_held_file_is_read_around_the_page_cache(cached, scratch):
    m, path, data = cached
    with holding(path):
        run("dd", f"if={path}", f"of={scratch}/copy", "bs=1M", "iflag=direct")
    assert (scratch / "copy").read_bytes() == data


def test_a_held_file_can_be_written(cached):
    m, path, data = cached
    with holding(path) as read:
        with open(path, "r+b", buffering=0) as f:
            f.write(b"changed")
            assert os.pread(f.fileno(), 10, 0) == b"changed" + data[7:10]
        changed = b"changed" + data[7:]
        assert path.read_bytes() == changed
        with open(path, "ab") as f:
            f.write(b"longer")
        changed += b"longer"
        assert path.read_bytes() == changed
        # what it has open is the old one or the new one, never a mix
        assert read() in (data, changed)
        m.sync()
        assert path.read_bytes() == changed
    assert path.read_bytes() == changed
    assert m.emulator.bytes_of(NAME) == changed


def test_a_held_file_can_be_mapped_and_written(cached):
    m, path, data = cached
    with holding(path):
        with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as mapped:
            mapped[100:107] = b"changed"
            mapped.flush()
        changed = data[:100] + b"changed" + data[107:]
        assert path.read_bytes() == changed
    m.sync()
    assert m.emulator.bytes_of(NAME) == changed
    m.remount()
    assert path.read_bytes() == changed


def test_a_held_file_can_be_replaced_truncated_and_removed(cached):
    m, path, data = cached
    with holding(path) as read:
        path.write_bytes(b"short" * 500)
        assert path.read_bytes() == b"short" * 500
        assert path.stat().st_size == 2500
        os.truncate(path, 1200)
        assert path.read_bytes() == (b"short" * 500)[:1200]
        m.sync()
        path.unlink()
        assert not path.exists()
        assert os.listdir(path.parent) == []
        assert read() in (data, (b"short" * 500)[:1200])
    m.sync()


def test_a_held_file_replaced_on_the_server(cached):
    m, path, data = cached
    with holding(path) as read:
        ident = m.emulator.file(NAME)["id"]
        m.emulator.change({"op": "replace", "id": ident, "text": "other" * 500_000})
        m.command("refresh")
        wait_until(lambda: path.stat().st_size != len(data), "the new version to be seen")
        now = m.emulator.bytes_of(NAME)
        assert path.read_bytes() == now
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == now
    assert path.read_bytes() == now
