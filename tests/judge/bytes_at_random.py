# SPDX-License-Identifier: MIT
"""
A random history of one file's bytes, compared with an array in memory after each step: written,
mapped, cut, extended, copied within, allocated, punched, through several handles, with closes and
whatever else the caller can do in between (sync, forget the cache, remount).

    bytes_at_random.py DIR [STEPS [SEED]]
"""

import ctypes
import errno
import mmap
import os
import random
import sys

libc = ctypes.CDLL(None, use_errno=True)
PAGE = 4096
KEEP_SIZE, PUNCH, ZERO = 1, 2, 16


class History:
    """@others: name -> what can happen besides while the file is closed."""

    def __init__(self, path, seed, most=300_000, others=None):
        self.path = path
        self.random = random.Random(seed)
        self.most = most
        self.others = others or {}
        self.want = bytearray()
        self.done = []
        self.fds = []
        open(path, "wb").close()

    # what is open

    def fd(self, to_write=True):
        if not self.fds or (len(self.fds) < 4 and self.random.random() < 0.1):
            self.fds.append(os.open(self.path, os.O_RDWR))
        return self.random.choice(self.fds)

    def close(self):
        while self.fds:
            os.close(self.fds.pop(self.random.randrange(len(self.fds))))

    # where

    def place(self, end=None):
        """Some range below @end; often at the ends of pages and blocks."""
        end = self.most if end is None else end
        if end <= 0:
            return 0, 0
        off = self.random.choice(
            (
                self.random.randrange(end),
                self.random.randrange(end) // PAGE * PAGE,
                min(end - 1, 262144 * self.random.randrange(1 + end // 262144)),
                max(0, min(end, len(self.want)) - self.random.randrange(1, 3)),
            )
        )
        off = min(off, end - 1)
        size = self.random.choice((1, 7, PAGE, PAGE + 1, self.random.randrange(1, 70_000)))
        return off, max(1, min(size, end - off))

    def data(self, size):
        return self.random.randbytes(size)

    # steps

    def grow(self, size):
        if size > len(self.want):
            self.want += bytes(size - len(self.want))

    def put(self, off, data):
        self.grow(off + len(data))
        self.want[off : off + len(data)] = data

    def write(self):
        off, size = self.place()
        data = self.data(size)
        n = os.pwrite(self.fd(), data, off)
        assert n == size, f"{n} of {size} written"
        self.put(off, data)
        return off, size

    def append(self):
        size = self.random.randrange(1, 5000)
        if len(self.want) + size > self.most:
            return None
        data = self.data(size)
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, data)
        os.close(fd)
        self.put(len(self.want), data)
        return size

    def read(self):
        off, size = self.place()
        got = os.pread(self.fd(), size, off)
        self.same(got, bytes(self.want[off : off + size]), off)
        return off, size

    def map_read(self):
        if not self.want:
            return None
        off, size = self.place(len(self.want))
        with mmap.mmap(self.fd(), len(self.want), mmap.MAP_SHARED, mmap.PROT_READ) as m:
            self.same(m[off : off + size], bytes(self.want[off : off + size]), off)
        return off, size

    def map_write(self):
        off, size = self.place()
        if off + size > len(self.want):
            os.ftruncate(self.fd(), off + size)
            self.grow(off + size)
        data = self.data(size)
        with mmap.mmap(self.fd(), len(self.want)) as m:
            m[off : off + size] = data
            if self.random.random() < 0.3:
                m.flush()
        self.put(off, data)
        return off, size

    def cut(self):
        size = self.random.choice((0, self.place()[0], len(self.want), self.random.randrange(self.most)))
        if self.random.random() < 0.5:
            os.ftruncate(self.fd(), size)
        else:
            os.truncate(self.path, size)
        del self.want[size:]
        self.grow(size)
        return size

    def copy(self):
        if not self.want:
            return None
        off, size = self.place(len(self.want))
        to = self.random.randrange(self.most)
        if to < off + size and off < to + size or to + size > self.most:
            return None
        left, data = size, bytes(self.want[off : off + size])
        while left:
            n = os.copy_file_range(self.fd(), self.fd(), left, off + size - left, to + size - left)
            assert n > 0, "copied nothing"
            left -= n
        self.put(to, data)
        return off, to, size

    def allocate(self):
        off, size = self.place()
        mode = self.random.choice((0, KEEP_SIZE, KEEP_SIZE | PUNCH, ZERO, ZERO | KEEP_SIZE))
        r = libc.fallocate64(self.fd(), mode, ctypes.c_int64(off), ctypes.c_int64(size))
        if r < 0:
            e = ctypes.get_errno()
            assert mode & ~KEEP_SIZE and e == errno.EOPNOTSUPP, f"fallocate({mode}): {os.strerror(e)}"
            return mode, "not supported"
        if not mode & KEEP_SIZE:
            self.grow(off + size)
        if mode & ~KEEP_SIZE:
            end = min(off + size, len(self.want))
            self.want[off:end] = bytes(max(0, end - off))
        return mode, off, size

    def sync(self):
        os.fsync(self.fd())

    def reopen(self):
        self.close()

    def rename(self):
        other = self.path + ".other" if not self.path.endswith(".other") else self.path[: -len(".other")]
        os.rename(self.path, other)
        self.path = other

    def save(self):
        """As editors do: a new file over it. Who has the old one open keeps that."""
        self.close()
        with open(self.path + ".new", "wb") as f:
            f.write(self.want)
        os.rename(self.path + ".new", self.path)

    def look(self):
        size = os.stat(self.path).st_size
        assert size == len(self.want), f"size {size} instead of {len(self.want)}"

    def another(self):
        if not self.others:
            return None
        self.close()
        name = self.random.choice(sorted(self.others))
        self.others[name]()
        return name

    def same(self, got, want, off=0):
        if got == want:
            return
        at = next((i for i, (x, y) in enumerate(zip(got, want)) if x != y), min(len(got), len(want)))
        raise AssertionError(
            f"{len(got)} bytes from {off} instead of {len(want)}; the first difference at {off + at}: "
            f"{got[at:at + 8].hex()} instead of {want[at:at + 8].hex()}; file of {len(self.want)}"
        )

    def all(self):
        with open(self.path, "rb") as f:
            self.same(f.read(), bytes(self.want))

    STEPS = (
        ("write", 12),
        ("append", 3),
        ("read", 12),
        ("map_read", 6),
        ("map_write", 6),
        ("cut", 5),
        ("copy", 4),
        ("allocate", 4),
        ("sync", 1),
        ("reopen", 6),
        ("rename", 1),
        ("save", 1),
        ("look", 4),
        ("another", 1),
        ("all", 2),
    )

    def run(self, steps):
        names = [n for n, weight in self.STEPS for _ in range(weight)]
        try:
            for _ in range(steps):
                name = self.random.choice(names)
                self.done.append((name, None))
                self.done[-1] = (name, getattr(self, name)())
            self.close()
            self.all()
        except BaseException:
            print("the last steps:", *self.done[-40:], sep="\n    ", file=sys.stderr)
            raise
        finally:
            while self.fds:
                os.close(self.fds.pop())


def main(argv):
    steps = int(argv[1]) if len(argv) > 1 else 1000
    seed = int(argv[2]) if len(argv) > 2 else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    History(os.path.join(argv[0], "bytes-at-random"), seed).run(steps)
    print(f"{steps} steps")


if __name__ == "__main__":
    main(sys.argv[1:])
