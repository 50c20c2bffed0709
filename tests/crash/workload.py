# SPDX-License-Identifier: MIT
"""
Programs at work on a mounted drive that may die under them, and what they were promised.

A Worker owns the files whose names begin with its letter, in all records, so that nobody else
changes them and their state is known exactly. Its state maps "record/name" to the bytes there. Each
step it takes (create, overwrite, rename ...) leads from one state to the next:

    state --system calls--> after        they returned: `after` is promised
                 |
                 +--- the daemon died: `possible` are the state before, the one after, and what
                      a call in between (fsync, a rename of an open file) had promised

so what a remount shows must be one of `possible`: an operation is done or not done, never half.
"""

import errno
import hashlib
import itertools
import os
import random
import threading
import time
from typing import NamedTuple, Optional

from harness import RENAME_EXCHANGE, renameat2

FILES = 7  # a worker makes no more
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENODEV, errno.EBADF)


class Violation(Exception):
    """The drive broke its word."""


LINES = itertools.count(1)


class File(NamedTuple):
    data: bytes
    line: frozenset = frozenset()  # whose successor it is: renamed from, or in the place of
    ident: Optional[str] = None  # remote id it must have; None: any
    moved: bool = False  # since that was seen there: it may be known under another name


def told(data: Optional[bytes]) -> str:
    """Bytes in the words of a report."""
    if data is None:
        return "nothing"
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:12]}"


def bytes_of(state: dict, path: str) -> Optional[bytes]:
    return state[path].data if path in state else None


class Hashes:
    """Of every content that any worker ever tried to write: what the server may have."""

    def __init__(self):
        self.lock = threading.Lock()
        self.known: set = set()

    def add(self, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        with self.lock:
            self.known.add(digest)


class Worker:
    def __init__(self, letter: str, root, system, records: list, hashes: Hashes, seed: str):
        self.letter = letter
        self.root = root  # the mountpoint
        self.system = system
        self.records = records
        self.hashes = hashes
        self.chance = random.Random(f"{seed}/{letter}")
        self.count = 0
        self.state: dict = {}
        self.possible: list = [{}]
        self.cold: set = set()  # not read since the cache was lost: not worth reading each time
        self.history: list = []  # of power lanes: [when, on disk, state] of what returned
        self.replaced: set = set()  # by another file, since all was sent
        self.focus = ""  # the crash point that is waited for
        self.steps = 0
        self.big = letter == "a"
        self.titles: tuple = ()  # a record that this worker renames: (folder, title, title)

    # states

    def passed(self, state: dict, durable: bool = False) -> None:
        """A call has returned and promised @state; what is under way leads on from it."""
        after = self.possible[-1]
        self.state = state
        self.possible = [state] if state is after else [state, after]
        self.history.append([time.monotonic(), durable, state])
        self.steps += 1

    def step(self, after: dict, act) -> None:
        self.possible = [self.state, after]
        act()
        self.passed(after)

    def settle(self, state: dict) -> None:
        """What a look at the drive has shown."""
        self.state = state
        self.possible = [state]

    def with_file(self, path: str, data: bytes, keep: bool = False) -> dict:
        """@keep: it is the same file with other bytes."""
        self.hashes.add(data)
        file = File(data, frozenset({next(LINES)}))
        if keep:
            old = self.state[path]
            file = old._replace(
                data=data, ident=old.ident if self.system.replace_keeps_id else None
            )
        return {**self.state, path: file}

    def without(self, *paths: str) -> dict:
        return {p: f for p, f in self.state.items() if p not in paths}

    # choosing

    def real(self, path: str) -> str:
        return os.path.join(self.root, self.system.real_path(path))

    def data(self, most: Optional[int] = None) -> bytes:
        kind = self.chance.random()
        if "filler" in self.focus:
            kind *= 0.5
        if kind < 0.4:
            size = self.chance.randrange(0, 1024)
        elif kind < 0.9 or most or not self.big:
            size = self.chance.randrange(1024, 60_000)
        elif kind < 0.97:
            size = self.chance.randrange(100_000, 900_000)
        else:
            size = self.chance.randrange(4_200_000, 5_500_000)
        return self.chance.randbytes(min(size, most) if most else size)

    def fresh(self, form: str = "{}{}.bin", record: Optional[str] = None) -> str:
        self.count += 1
        record = record or self.chance.choice(self.records)
        return f"{record}/{form.format(self.letter, self.count)}"

    def any(self) -> Optional[str]:
        paths = sorted(p for p in self.state if not p.startswith("@"))
        return self.chance.choice(paths) if paths else None

    # calls

    def write(self, path: str, flags: int, *pieces: tuple, fsync_after=None) -> None:
        """@pieces: (offset, bytes); None as offset: where it is."""
        fd = os.open(self.real(path), os.O_WRONLY | flags, 0o600)
        try:
            for i, (off, data) in enumerate(pieces):
                while data:
                    n = os.write(fd, data) if off is None else os.pwrite(fd, data, off)
                    off = None if off is None else off + n
                    data = data[n:]
                if fsync_after and i == 0:
                    os.fsync(fd)
                    self.passed(fsync_after, durable=True)
        except BaseException:
            try:
                os.close(fd)
            except OSError:
                pass
            raise
        os.close(fd)

    # steps

    def create(self) -> None:
        path, data = self.fresh(), self.data()
        half = len(data) // 2
        self.step(
            self.with_file(path, data),
            lambda: self.write(
                path, os.O_CREAT | os.O_EXCL, (None, data[:half]), (None, data[half:])
            ),
        )

    def twin(self, path: str) -> None:
        """Another file with the same bytes: the cache keeps one of them."""
        if len(self.state) >= FILES:
            self.unlink(path)
            return
        twin, data = self.fresh(), self.state[path].data
        self.step(
            self.with_file(twin, data),
            lambda: self.write(twin, os.O_CREAT | os.O_EXCL, (None, data)),
        )

    def overwrite(self, path: str) -> None:
        data = self.data()
        self.step(
            self.with_file(path, data, keep=True),
            lambda: self.write(path, os.O_TRUNC, (None, data)),
        )

    def same_again(self, path: str) -> None:
        data = self.state[path].data
        self.step(
            self.with_file(path, data, keep=True),
            lambda: self.write(path, os.O_TRUNC, (None, data)),
        )

    def patch(self, path: str) -> None:
        """Partial overwrites, also beyond the end."""
        for _ in range(self.chance.choice([1, 1, 2, 3])):
            old = self.state[path].data
            new, pieces = bytearray(old), []
            for _ in range(self.chance.randrange(1, 4)):
                off = self.chance.randrange(len(old) + 2000)
                piece = self.data(most=3000) or b"x"
                new.extend(bytes(max(0, off + len(piece) - len(new))))
                new[off : off + len(piece)] = piece
                pieces.append((off, piece))
            self.step(
                self.with_file(path, bytes(new), keep=True),
                lambda pieces=pieces: self.write(path, 0, *pieces),
            )
            self.cold.discard(path)

    def append(self, path: str) -> None:
        more = self.data(most=5000)
        self.step(
            self.with_file(path, self.state[path].data + more, keep=True),
            lambda: self.write(path, os.O_APPEND, (None, more)),
        )
        self.cold.discard(path)

    def truncate(self, path: str) -> None:
        old = self.state[path].data
        size = self.chance.randrange(len(old) + 1000)
        self.step(
            self.with_file(path, old[:size].ljust(size, b"\0"), keep=True),
            lambda: os.truncate(self.real(path), size),
        )
        self.cold.discard(path)

    def synced_write(self, path: str) -> None:
        """Some bytes, fsync, more bytes, close."""
        first, second = self.data(), self.data(most=3000)
        part = self.with_file(path, first, keep=True)
        whole = self.with_file(path, first + second, keep=True)
        self.possible = [self.state, part, whole]
        self.write(path, os.O_TRUNC, (None, first), (None, second), fsync_after=part)
        self.passed(whole)

    def rename_to(self, path: str, target: str, ident: Optional[str]) -> None:
        after = self.without(path, target)
        line = self.state[path].line
        if target in self.state:
            line |= self.state[target].line
        after[target] = File(self.state[path].data, line, ident, moved=True)
        self.step(after, lambda: os.rename(self.real(path), self.real(target)))
        self.cold.discard(target)
        if path in self.cold:
            self.cold.remove(path)
            self.cold.add(target)

    def moved_ident(self, path: str, can: bool) -> Optional[str]:
        """What has taken another's place is that one only once it was sent."""
        return self.state[path].ident if can and path not in self.replaced else None

    def rename(self, path: str) -> None:
        target = self.fresh(record=os.path.dirname(path))
        self.rename_to(path, target, self.moved_ident(path, self.system.rename_in_place))

    def move(self, path: str) -> None:
        target = self.fresh()
        inside = os.path.dirname(path) == os.path.dirname(target)
        keeps = self.system.rename_in_place if inside else self.system.move_in_place
        self.rename_to(path, target, self.moved_ident(path, keeps))

    def rename_over(self, path: str) -> None:
        others = [
            p for p in self.state if p != path and os.path.dirname(p) == os.path.dirname(path)
        ]
        if others:
            self.rename_to(path, self.chance.choice(sorted(others)), None)

    def save(self, path: str) -> None:
        """As editors and rsync do: another file takes the place. One with a local name was never
        sent, so what it replaces keeps its id."""
        local = self.chance.random() < 0.5
        record = os.path.dirname(path)
        temporary = self.fresh("{}{}.part" if local else "{}-tmp{}.bin", record)
        data = self.data()
        self.step(
            self.with_file(temporary, data),
            lambda: self.write(temporary, os.O_CREAT | os.O_EXCL, (None, data)),
        )
        old = self.state[path]
        keeps = local and self.system.replace_keeps_id and not old.moved
        self.rename_to(temporary, path, old.ident if keeps else None)
        self.replaced.add(path)

    def rename_open(self, path: str) -> None:
        """Renamed before its first close."""
        temporary = self.fresh("{}-tmp{}.bin", os.path.dirname(path))
        first, second = self.data(), self.data(most=3000)
        self.hashes.add(first)
        made = self.with_file(temporary, first)
        renamed = {p: f for p, f in made.items() if p not in (temporary, path)}
        line = made[temporary].line | self.state[path].line
        whole = {**renamed, path: File(first + second, line)}
        renamed[path] = File(first, line)
        self.hashes.add(first + second)
        # closed by the rename, in a step of its own
        self.possible = [self.state, made, renamed, whole]
        fd = os.open(self.real(temporary), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.write(fd, first)
            os.rename(self.real(temporary), self.real(path))
            self.passed(made)
            self.passed(renamed)
            os.write(fd, second)
        except BaseException:
            try:
                os.close(fd)
            except OSError:
                pass
            raise
        os.close(fd)
        self.passed(whole)
        self.cold.discard(path)

    def swap(self, path: str) -> None:
        other = self.any()
        if other == path or not self._may_swap(path, other):
            return
        # each has a name the other is known under: should one be removed before that is sent, the
        # other is what took its place
        a, b = self.state[path], self.state[other]
        after = {
            **self.state,
            path: b._replace(ident=None, moved=True),
            other: a._replace(ident=None, moved=True),
        }
        self.step(after, lambda: renameat2(self.real(path), self.real(other), RENAME_EXCHANGE))
        self.cold -= {path, other}

    def _may_swap(self, a: str, b: str) -> bool:
        return not (a.endswith(".part") or b.endswith(".part"))

    def unlink(self, path: str) -> None:
        self.step(self.without(path), lambda: os.unlink(self.real(path)))
        self.cold.discard(path)

    def short_lived(self) -> None:
        path, data = self.fresh(), self.data()
        self.step(
            self.with_file(path, data),
            lambda: self.write(path, os.O_CREAT | os.O_EXCL, (None, data)),
        )
        self.unlink(path)

    def read(self, path: str) -> None:
        with open(self.real(path), "rb", buffering=0) as f:
            data = f.readall()
        if data != self.state[path].data:
            raise Violation(f"{path}: reads as {told(data)}, not {told(self.state[path].data)}")
        self.cold.discard(path)

    def rename_record(self) -> None:
        folder, *titles = self.titles
        now = self.state["@title"].data.decode()
        (other,) = [t for t in titles if t != now]
        self.step(
            {**self.state, "@title": self.state["@title"]._replace(data=other.encode())},
            lambda: os.rename(self.real(f"{folder}/{now}"), self.real(f"{folder}/{other}")),
        )

    def refresh(self) -> None:
        with open(os.path.join(self.root, ".attachfs", "control"), "wb", buffering=0) as f:
            f.write(b"refresh\n")

    # which

    STEPS = (
        ("create", 5),
        ("overwrite", 4),
        ("same_again", 1),
        ("twin", 1),
        ("patch", 4),
        ("append", 3),
        ("truncate", 2),
        ("synced_write", 1),
        ("rename", 3),
        ("move", 2),
        ("rename_over", 2),
        ("save", 4),
        ("rename_open", 1),
        ("swap", 1),
        ("unlink", 3),
        ("short_lived", 1),
        ("read", 1),
    )
    # what brings the daemon past a point
    LIKELY = {
        "fetch": "patch",
        "fill": "read",
        "merge": "patch",
        "flatten": "patch",
        "unchanged": "same_again",
        "share": "twin",
        "forget": "short_lived",
        "adopt": "save",
        "ghost": "rename",
        "name.closed-first": "rename_open",
        "update": "rename",
        "remove": "unlink",
        "records": "rename_record",
        "listing": "refresh",
        "filler": "create",
        "create": "create",
        "replace": "overwrite",
    }

    def one(self) -> None:
        temporary = [p for p in sorted(self.state) if p.endswith(".part")]
        if temporary:
            self.unlink(temporary[0])  # of a save that was cut short
            return
        if self.titles and self.chance.random() < (0.3 if "records" in self.focus else 0.03):
            self.rename_record()
            return
        names, weights = zip(*self.STEPS)
        name = self.chance.choices(names, weights)[0]
        likely = [v for k, v in self.LIKELY.items() if k in self.focus]
        if likely and self.chance.random() < 0.5:
            name = likely[0]
        if name == "rename_record" and not self.titles:
            name = "rename"
        if self.chance.random() < 0.01:
            name = "refresh"
        path = self.any()
        if path is None or (name == "create" and len(self.state) < FILES):
            self.create()
        elif name == "create":
            self.unlink(path)
        elif name in ("short_lived", "refresh", "rename_record"):
            getattr(self, name)()
        else:
            getattr(self, name)(path)
