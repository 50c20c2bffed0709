# SPDX-License-Identifier: MIT
"""
A random history of a flat directory's files, made by hypothesis: each step is done in a record and in
a local directory; results and errnos must be equal, and in the end names, attributes and bytes. What
fails is made as short as it can be and printed.

    model.py DIR LOCAL [EXAMPLES [STEPS]]
"""

import ctypes
import errno
import os
import sys
import tempfile

from hypothesis import HealthCheck, Verbosity, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

libc = ctypes.CDLL(None, use_errno=True)
NAMES = ["a", "b", "c.txt", "Long name with blanks.bin", "\u00e4\u00f6", "x" * 255, "y" * 256, "a/below", "none/x", ""]
FLAGS = [
    os.O_RDONLY,
    os.O_WRONLY,
    os.O_RDWR,
    os.O_RDWR | os.O_CREAT,
    os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_RDWR | os.O_TRUNC,
    os.O_RDONLY | os.O_TRUNC,
    os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    os.O_RDWR | os.O_APPEND,
    os.O_RDONLY | os.O_DIRECTORY,
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
]
PLACES: list = []  # the record and the local directory

names = st.sampled_from(NAMES)
offsets = st.one_of(st.integers(0, 10_000), st.sampled_from([-1, 4095, 4096, 65536, 262143, 262144, 300_000]))
sizes = st.one_of(st.integers(0, 5000), st.sampled_from([4096, 65536, 131072]))
slots = st.integers(0, 5)


def outcome(f, *args):
    try:
        return f(*args)
    except OSError as e:
        return errno.errorcode.get(e.errno, e.errno)


class Side:
    """One of the two directories, with what is open there."""

    def __init__(self, base):
        self.base = base
        self.fds: dict = {}

    def path(self, name):
        return os.path.join(self.base, name)

    def open(self, slot, name, flags, mode):
        self.close(slot)
        if name == "":
            flags &= ~os.O_CREAT  # what a directory gives then depends on the order of checks
        self.fds[slot] = os.open(self.path(name), flags, mode)
        return "open"

    def close(self, slot):
        if slot in self.fds:
            os.close(self.fds.pop(slot))

    def fd(self, slot):
        return self.fds.get(slot, 999)

    def pwrite(self, slot, off, data):
        return os.pwrite(self.fd(slot), data, off)

    def write(self, slot, data):
        n = os.write(self.fd(slot), data)
        return n, os.lseek(self.fd(slot), 0, os.SEEK_CUR)

    def pread(self, slot, off, size):
        return os.pread(self.fd(slot), size, off)

    def read(self, slot, size):
        return os.read(self.fd(slot), size)

    def seek(self, slot, off, whence):
        return os.lseek(self.fd(slot), off, whence)

    def ftruncate(self, slot, size):
        return os.ftruncate(self.fd(slot), size)

    def truncate(self, name, size):
        return os.truncate(self.path(name), size)

    def fallocate(self, slot, keep, off, size):
        if libc.fallocate64(self.fd(slot), int(keep), ctypes.c_int64(off), ctypes.c_int64(size)) < 0:
            raise OSError(ctypes.get_errno(), "fallocate")

    def copy(self, slot, to, size, off, off_to):
        return os.copy_file_range(self.fd(slot), self.fd(to), size, off, off_to)

    def fsync(self, slot):
        return os.fsync(self.fd(slot))

    def fstat(self, slot):
        s = os.fstat(self.fd(slot))
        return s.st_size, oct(s.st_mode), s.st_nlink

    def fchmod(self, slot, mode):
        return os.fchmod(self.fd(slot), mode)

    def stat(self, name):
        s = os.stat(self.path(name))
        return "directory" if name == "" else (s.st_size, oct(s.st_mode), s.st_nlink)

    def chmod(self, name, mode):
        return os.chmod(self.path(name), mode) if name else None

    def utime(self, name, a, m):
        path = self.path(name)
        if not name:
            return None
        os.utime(path, ns=(a, m))
        s = os.stat(path)
        return s.st_atime_ns, s.st_mtime_ns

    def unlink(self, name):
        return os.unlink(self.path(name))

    def rename(self, name, to, flags):
        r = libc.renameat2(
            -100, os.fsencode(self.path(name)), -100, os.fsencode(self.path(to)), ctypes.c_uint(flags)
        )
        if r < 0:
            raise OSError(ctypes.get_errno(), "rename")

    def mknod(self, name, mode):
        return os.mknod(self.path(name), 0o100000 | mode)

    def setxattr(self, name, key, value, flags):
        return os.setxattr(self.path(name), f"user.{key}", value, flags) if name else None

    def getxattr(self, name, key):
        return os.getxattr(self.path(name), f"user.{key}") if name else None

    def removexattr(self, name, key):
        return os.removexattr(self.path(name), f"user.{key}") if name else None

    def listing(self):
        return sorted(n for n in os.listdir(self.base) if n not in self.kept)

    def all(self):
        found = {}
        for n in self.listing():
            s = os.stat(self.path(n))
            with open(self.path(n), "rb") as f:
                found[n] = (s.st_size, oct(s.st_mode), f.read())
        return found

    kept: frozenset = frozenset()

    def begin(self):
        self.end()
        self.kept = frozenset(os.listdir(self.base))

    def end(self):
        for slot in list(self.fds):
            self.close(slot)
        if self.kept or os.listdir(self.base):
            for n in set(os.listdir(self.base)) - self.kept:
                os.unlink(self.path(n))


class Model(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        for side in PLACES:
            side.end()

    def both(self, what, *args):
        ours, theirs = (outcome(getattr(side, what), *args) for side in PLACES)
        assert ours == theirs, f"{what}{args}: {ours!r} in the record, {theirs!r} in the local directory"

    @rule(slot=slots, name=names, flags=st.sampled_from(FLAGS), mode=st.sampled_from([0o644, 0o600, 0o755, 0o400]))
    def open(self, slot, name, flags, mode):
        self.both("open", slot, name, flags, mode)

    @rule(slot=slots)
    def close(self, slot):
        self.both("close", slot)

    @rule(slot=slots, off=offsets, size=sizes, fill=st.integers(0, 255))
    def pwrite(self, slot, off, size, fill):
        self.both("pwrite", slot, off, bytes((fill + i // 64) % 256 for i in range(size)))

    @rule(slot=slots, size=sizes, fill=st.integers(0, 255))
    def write(self, slot, size, fill):
        self.both("write", slot, bytes([fill]) * size)

    @rule(slot=slots, off=offsets, size=sizes)
    def pread(self, slot, off, size):
        self.both("pread", slot, off, size)

    @rule(slot=slots, size=sizes)
    def read(self, slot, size):
        self.both("read", slot, size)

    @rule(slot=slots, off=offsets, whence=st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]))
    def seek(self, slot, off, whence):
        self.both("seek", slot, off, whence)

    @rule(slot=slots, size=offsets)
    def ftruncate(self, slot, size):
        self.both("ftruncate", slot, size)

    @rule(name=names, size=offsets)
    def truncate(self, name, size):
        self.both("truncate", name, size)

    @rule(slot=slots, keep=st.booleans(), off=offsets, size=sizes)
    def fallocate(self, slot, keep, off, size):
        self.both("fallocate", slot, keep, off, size)

    @rule(slot=slots, to=slots, size=sizes, off=offsets, off_to=offsets)
    def copy(self, slot, to, size, off, off_to):
        self.both("copy", slot, to, size, off, off_to)

    @rule(slot=slots)
    def fsync(self, slot):
        self.both("fsync", slot)

    @rule(slot=slots)
    def fstat(self, slot):
        self.both("fstat", slot)

    @rule(slot=slots, mode=st.integers(0, 0o7777))
    def fchmod(self, slot, mode):
        self.both("fchmod", slot, mode)

    @rule(name=names)
    def stat(self, name):
        self.both("stat", name)

    @rule(name=names, mode=st.integers(0, 0o7777))
    def chmod(self, name, mode):
        self.both("chmod", name, mode)

    @rule(name=names, a=st.integers(-(2**31), 2**33), m=st.integers(-(2**31), 2**33), ns=st.integers(0, 999_999_999))
    def utime(self, name, a, m, ns):
        self.both("utime", name, a * 1_000_000_000 + ns, m * 1_000_000_000 + ns)

    @rule(name=names)
    def unlink(self, name):
        self.both("unlink", name)

    @rule(name=names, to=names, flags=st.sampled_from([0, 0, 0, 1, 2, 3]))
    def rename(self, name, to, flags):
        self.both("rename", name, to, flags)

    @rule(name=names, mode=st.sampled_from([0o644, 0o600]))
    def mknod(self, name, mode):
        self.both("mknod", name, mode)

    @rule(name=names, key=st.sampled_from(["k", "l"]), value=st.binary(max_size=50), flags=st.sampled_from([0, 1, 2]))
    def setxattr(self, name, key, value, flags):
        self.both("setxattr", name, key, value, flags)

    @rule(name=names, key=st.sampled_from(["k", "l"]))
    def getxattr(self, name, key):
        self.both("getxattr", name, key)

    @rule(name=names, key=st.sampled_from(["k", "l"]))
    def removexattr(self, name, key):
        self.both("removexattr", name, key)

    @invariant()
    def same_names(self):
        self.both("listing")

    def teardown(self):
        try:
            self.both("all")
        finally:
            for side in PLACES:
                side.end()


def judge(folder, local, examples=60, steps=60):
    """Raises AssertionError with the shortest history that differs."""
    os.umask(0o022)
    PLACES[:] = [Side(str(folder)), Side(tempfile.mkdtemp(dir=local))]
    for side in PLACES:
        side.begin()
    try:
        run_state_machine_as_test(
            Model,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                verbosity=Verbosity.normal,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        for side in PLACES:
            side.end()
        os.rmdir(PLACES[1].base)


if __name__ == "__main__":
    judge(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
    print("equal")
