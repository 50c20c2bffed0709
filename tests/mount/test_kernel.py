# SPDX-License-Identifier: MIT
"""
A kernel that refuses what makes things fast: splice, without which bytes are copied, and notifications,
without which what changed on the server is seen when the kernel asks again. The bytes are the same.
"""

import errno
import os
from pathlib import Path

import pytest

from harness import added, random_bytes, run, wait_until

ADA = "users/Ada Byron"


@pytest.fixture
def refusing(base):
    """The environment of a daemon on a kernel that refuses."""
    library = base / "refusing_kernel.so"
    source = Path(__file__).with_name("refusing_kernel.c")
    compiler = os.environ.get("CC", "cc")
    run(compiler, "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", library, source, "-ldl")
    asan = os.environ.get("ASAN_OPTIONS", "")
    environment = {"LD_PRELOAD": library, "ASAN_OPTIONS": f"{asan}:verify_asan_link_order=0"}

    def make(**numbers) -> dict:
        return {**environment, **{f"REFUSED_{k.upper()}": number for k, number in numbers.items()}}

    return make


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM], ids=lambda n: errno.errorcode[n])
def test_without_splice_the_bytes_are_the_same(drive, refusing, scratch, number):
    m = drive(poll=0, settle=0.1, environment=refusing(splice=number))
    m.tree()
    assert "bytes go by copies" in m.log()
    data = random_bytes(3_000_000, "large")
    (scratch / "large").write_bytes(data)
    run("cp", scratch / "large", m / "users/Nobody/large.bin")
    with open(m / ADA / "large.bin", "r+b") as f:
        f.seek(300_001)
        f.write(b"edited")
    expected = bytearray(m.emulator.bytes_of(f"{ADA}/large.bin"))
    expected[300_001:300_007] = b"edited"
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/large.bin") == data
    assert m.emulator.bytes_of(f"{ADA}/large.bin") == bytes(expected)
    m.remount()
    run("cmp", scratch / "large", m / "users/Nobody/large.bin")
    assert (m / ADA / "large.bin").read_bytes() == bytes(expected)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM], ids=lambda n: errno.errorcode[n])
def test_without_notifications_the_mount_goes_on(drive, refusing, number):
    """Nothing tells the kernel, so it asks again soon; there is no mix, and nothing is lost."""
    m = drive(poll=0, settle=0.1, environment=refusing(notes=number))
    old = (m / ADA / "notes.txt").read_bytes()
    os.listdir(m / "users/Nobody")
    new = b"of the server's " * 600
    m.emulator.clock(60)
    m.emulator.change(
        {"op": "replace", "id": m.emulator.file(f"{ADA}/notes.txt")["id"], "text": new.decode()},
        added("theirs.txt"),
    )
    m.command("refresh")
    assert (m / ADA / "notes.txt").read_bytes() in (old, new)
    wait_until(lambda: (m / ADA / "notes.txt").read_bytes() == new, "the new bytes to be seen")
    assert "takes no notifications" in m.log()
    (m / "users/Nobody/new.txt").write_bytes(b"new " * 500)
    os.rename(m / ADA / "logo.png", m / ADA / "emblem.png")
    os.unlink(m / ADA / "tiny.txt")
    m.sync()
    there = m.emulator.folder(ADA)
    assert "emblem.png" in there and "logo.png" not in there and "tiny.txt" not in there
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new " * 500
    assert "theirs.txt" in os.listdir(m / ADA)
    wait_until(lambda: {"theirs.txt", "emblem.png"} <= set(os.listdir(m / ADA)), "all of it to be seen")
