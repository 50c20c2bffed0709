# SPDX-License-Identifier: MIT
"""
Memory that runs out now and then, at the start and at work: no crash, no hang, errors where there must
be some, and nothing lost of what a close() promised. ATTACHFS_TEST_LONG=1 tries many more places.
"""

import os
import re
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from harness import SLOW, binary, is_mounted, lazy_unmount, random_bytes, run, wait_until

LONG = bool(os.environ.get("ATTACHFS_TEST_LONG"))
ADA = "users/Ada Byron"


class Scarce:
    """What every daemon started with .environment is told of its memory."""

    def __init__(self, base):
        library = base / "broken_memory.so"
        source = Path(__file__).with_name("broken_memory.c")
        run(os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", library, source)
        self.wish = base / "wish"
        self.wish.write_bytes(bytes(16))
        self.environment = {"LD_PRELOAD": library, "BROKEN_MEMORY": self.wish}

    def each(self, every: int, skip: int = 0):
        """From now on each so many-th allocation fails."""
        with open(self.wish, "r+b") as f:
            f.write(struct.pack("=QQ", every, skip))


@pytest.fixture
def scarce(base):
    with open(binary("attachfs"), "rb") as f:
        if re.search(rb"lib[at]san|\.gcda", f.read()):
            pytest.skip("the sanitizer has allocators of its own, and what counts lines takes memory for granted")
    return Scarce(base)


def end(m, process):
    """By a signal, as whoever ends it; it must not have ended in another way before."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.wait(60 * SLOW) in (0, 1), m.said()
    m.process = None
    if is_mounted(m.path):
        lazy_unmount(m.path)


def attempt(f, *args):
    try:
        return f(*args)
    except OSError:
        return None


def write(path, data) -> bool:
    """Whether all of it was taken."""
    try:
        with open(path, "wb") as f:
            f.write(data)
        return True
    except OSError:
        return False


@pytest.mark.parametrize("skip", range(0, 3000, 37) if LONG else (0, 700, 1100, 1700))
def test_a_start_without_memory_mounts_or_says_why(drive, scarce, skip):
    m = drive(start=False, poll=0, timeout=5)
    m.allow_errors(".")
    m.environment = scarce.environment
    scarce.each(150, skip)
    process = m.process = m.spawn()
    wait_until(lambda: process.poll() is not None or is_mounted(m.path), "an answer")
    if process.poll() is not None:
        assert process.returncode == 1 and "memory" in m.said().lower(), m.said()
    end(m, process)
    m.environment = {}
    m.start()
    m.tree()


@pytest.mark.parametrize("every", (997, 503, 211, 101, 53, 29, 17, 11, 7) if LONG else (101, 17))
@pytest.mark.limit(200)
def test_work_without_memory_loses_nothing_of_what_was_promised(drive, scarce, every):
    m = drive(start=False, poll=0, settle=0.1, timeout=5)
    m.allow_errors(".")
    m.environment = scarce.environment
    m.start()
    process = m.process
    scarce.each(every)
    kept = {}
    for i in range(40):
        name, data = f"{i}.bin", random_bytes(500 * i, i)
        if write(m / ADA / name, data):
            kept[name] = data
        if i % 5 == 4:
            attempt(os.listdir, m / ADA)
            attempt(os.stat, m / ADA / "notes.txt")
            attempt(os.setxattr, m / ADA / "notes.txt", "user.x", b"%d" % i)
            for old in list(kept)[-2:]:
                found = attempt((m / ADA / old).read_bytes)
                assert found is None or found == kept[old]
    subprocess.run(
        ["sh", "-c", "timeout 20 cat */*/* >/dev/null; timeout 20 ls -lR >/dev/null"],
        cwd=m.path,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert process.poll() is None, m.said()
    end(m, process)
    m.environment = {}
    m.killed = True  # what was in the making may be in lost+found
    m.start()
    m.command("retry", ok=None)
    for name, data in kept.items():
        assert (m / ADA / name).read_bytes() == data, name
