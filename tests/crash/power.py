# SPDX-License-Identifier: MIT
"""
Power cuts: a life of the daemon ends with SIGKILL, and then its cache directory is made up as a disk
might have it after the power went at that instant.

powerlog.c has written down every change of a file. Here the log is replayed into a Disk, which knows
what was synced. Of the rest the disk may have any part:

    bytes   of each file since its last sync: none, all, those before some instant, or any pages of
            them; the size may be the new one with zeros where nothing arrived
    names   since the last sync of their directory: those before some instant

A promise then reads: what was fsynced, or is older than AGE, is there. Of what is younger, what was
there before may still be shown, or what was being made may be missing; but nothing else.
"""

import math
import os
import random
import shutil
import struct
import time
import uuid
from pathlib import Path
from typing import Optional

from harness import SLOW, binary
from lane import Lane
from workload import Violation, Worker, bytes_of, told

AGE = 2.5 * SLOW  # seconds; the ledger promises one, and may be kept from running for a while
PAGE = 4096
HEADER = struct.Struct("<IIIIQQQQ")
OPEN, CREATE, WRITE, SIZE, ZERO, RENAME, UNLINK, MKDIR, RMDIR, SYNC, SYNC_DIR, SYNC_ALL, LINK = range(
    1, 14
)


class Inode:
    """A file: what is surely on the disk, and what was done since."""

    def __init__(self, data: bytes = b""):
        self.disk = bytearray(data)
        self.pending: list = []  # (WRITE, offset, bytes), (SIZE, size), (ZERO, offset, length)

    @staticmethod
    def apply(data: bytearray, op: tuple) -> None:
        if op[0] == WRITE:
            _, off, new = op
            data.extend(bytes(max(0, off - len(data))))
            data[off : off + len(new)] = new
        elif op[0] == SIZE:
            size = op[1]
            del data[size:]
            data.extend(bytes(size - len(data)))
        else:
            _, off, length = op
            end = min(off + length, len(data))
            if off < end:
                data[off:end] = bytes(end - off)

    def sync(self) -> None:
        for op in self.pending:
            self.apply(self.disk, op)
        self.pending.clear()

    def after_cut(self, chance: random.Random) -> bytes:
        data = bytearray(self.disk)
        kind = chance.choice(["none", "all", "before", "pages", "pages"])
        ops = list(self.pending)
        if kind == "none" or not ops:
            return bytes(data)
        if kind == "before":
            ops = ops[: chance.randrange(len(ops) + 1)]
        elif kind == "pages":
            ops = [part for op in ops for part in self.pages(op) if chance.random() < 0.5]
        for op in ops:
            self.apply(data, op)
        if kind == "pages" and chance.random() < 0.5:
            data.extend(bytes(max(0, self.size_now() - len(data))))
        return bytes(data)

    @staticmethod
    def pages(op: tuple) -> list:
        if op[0] != WRITE:
            return [op]
        _, off, data = op
        ends = [e for e in range(off - off % PAGE + PAGE, off + len(data), PAGE)]
        starts = [off, *ends]
        return [
            (WRITE, s, data[s - off : e - off]) for s, e in zip(starts, [*ends, off + len(data)])
        ]

    def size_now(self) -> int:
        size = len(self.disk)
        for op in self.pending:
            if op[0] == WRITE:
                size = max(size, op[1] + len(op[2]))
            elif op[0] == SIZE:
                size = op[1]
        return size


class Disk:
    """A directory: names and inodes, as the programs see them and as they surely are."""

    def __init__(self):
        self.files: dict = {}  # path -> Inode, as on the disk
        self.folders: set = set()
        self.names: list = []  # pending changes of names, in order: (op, path, path2, Inode)
        self.now: dict = {}  # path -> Inode, as programs see it
        self.inodes: dict = {}  # number -> Inode

    def replay(self, log: Path) -> None:
        """What one or more lives of the daemon did."""
        data = log.read_bytes() if log.exists() else b""
        at = 0
        while at + HEADER.size <= len(data):
            kind, n1, n2, _, ino, off, length, n_data = HEADER.unpack_from(data, at)
            end = at + HEADER.size + n1 + n2 + n_data
            if end > len(data):
                break  # killed while it was written
            at += HEADER.size
            path, path2 = data[at : at + n1].decode(), data[at + n1 : at + n1 + n2].decode()
            self.one(kind, path, path2, ino, off, length, data[at + n1 + n2 : end])
            at = end

    def one(self, kind, path, path2, ino, off, length, data) -> None:
        if kind == OPEN:
            self.inodes[ino] = self.now[path]
        elif kind == CREATE:
            self.inodes[ino] = self.now[path] = Inode()
            self.names.append((CREATE, path, "", self.now[path]))
        elif kind == WRITE:
            self.inodes[ino].pending.append((WRITE, off, data))
        elif kind == SIZE:
            self.inodes[ino].pending.append((SIZE, off))
        elif kind == ZERO:
            self.inodes[ino].pending.append((ZERO, off, length))
        elif kind == RENAME:
            self.now[path2] = self.now.pop(path)
            self.names.append((RENAME, path, path2, self.now[path2]))
        elif kind == LINK:
            self.now[path2] = self.now[path]
            self.names.append((LINK, path2, "", self.now[path2]))
        elif kind == UNLINK:
            self.names.append((UNLINK, path, "", self.now.pop(path)))
        elif kind in (MKDIR, RMDIR):
            self.names.append((kind, path, "", None))
        elif kind == SYNC:
            self.inodes[ino].sync()
        elif kind == SYNC_DIR:
            self.sync_names(path)
        elif kind == SYNC_ALL:
            for inode in [*self.inodes.values(), *self.now.values()]:
                inode.sync()
            self.sync_names(None)

    def reconcile(self, root: Path) -> None:
        """
        A call may have been done and not logged when the daemon was killed: one that goes on from
        there sees it.
        """
        there = {}
        folders = {*self.folders, *(op[1] for op in self.names if op[0] == MKDIR)}
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_dir() and name not in folders:
                self.names.append((MKDIR, name, "", None))
            if path.is_file() and not path.name.endswith("-shm"):
                there[name] = path
        for name in [n for n in self.now if n not in there and not n.endswith("-shm")]:
            self.names.append((UNLINK, name, "", self.now.pop(name)))
        for name, path in there.items():
            data = path.read_bytes()
            if name not in self.now:
                self.now[name] = Inode()
                self.names.append((CREATE, name, "", self.now[name]))
            inode = self.now[name]
            seen = bytearray(inode.disk)
            for op in inode.pending:
                inode.apply(seen, op)
            if seen != data:
                inode.pending += [(SIZE, len(data)), (WRITE, 0, data)]

    def sync_names(self, folder: Optional[str]) -> None:
        """@folder: None = all."""
        kept = []
        for op in self.names:
            paths = [path for path in op[1:3] if path]
            if folder is None or folder in map(os.path.dirname, paths):
                self.name(op, self.files, self.folders)
            else:
                kept.append(op)
        self.names = kept

    @staticmethod
    def name(op: tuple, files: dict, folders: set) -> None:
        kind, path, path2, inode = op
        if kind in (CREATE, LINK):
            files[path] = inode
        elif kind == RENAME:
            files.pop(path, None)
            files[path2] = inode
        elif kind == UNLINK:
            files.pop(path, None)
        elif kind == MKDIR:
            folders.add(path)
        else:
            folders.discard(path)

    def cut(self, chance: random.Random) -> "Disk":
        """A disk that the power failure may have left, all of it safe now."""
        files, folders = dict(self.files), set(self.folders)
        for op in self.names[: chance.randrange(len(self.names) + 1)]:
            self.name(op, files, folders)
        left = Disk()
        found: dict = {}  # of an inode: also under its other names
        left.folders = {
            f for f in folders if all(str(p) in folders for p in Path(f).parents if str(p) != ".")
        }
        folders = left.folders
        for path, inode in files.items():
            folder = os.path.dirname(path)
            reachable = not folder or all(
                str(f) in folders for f in [Path(folder), *Path(folder).parents] if str(f) != "."
            )
            if reachable and not path.endswith("-shm"):
                if id(inode) not in found:
                    found[id(inode)] = Inode(inode.after_cut(chance))
                left.files[path] = found[id(inode)]
        left.now = dict(left.files)
        return left

    def write(self, root: Path) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(mode=0o700)
        for folder in sorted(self.folders):
            if folder:
                (root / folder).mkdir(mode=0o700, exist_ok=True)
        for path, inode in self.files.items():
            fd = os.open(root / path, os.O_CREAT | os.O_WRONLY, 0o600)
            with open(fd, "wb") as f:
                f.write(inode.disk)


class PowerLane(Lane):
    power = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.log = self.base / "power.log"
        self.boot = self.base / "boot_id"
        self.preload = binary("powerlog.so")
        self.disk = Disk()
        self.cut_at: Optional[float] = None  # of a cut that was not looked at yet
        self.may_cut = False
        self.mount.cache.mkdir(mode=0o700)
        self.new_boot()
        for pattern in (
            "may be torn",
            "power failed",
            "is missing or too short",
            "is left alone",
            "not in the cache directory any more",
            "moved to lost",
        ):
            self.mount.allow_errors(pattern)

    def new_boot(self) -> None:
        self.boot.write_text(str(uuid.UUID(int=self.chance.getrandbits(128))) + "\n")

    def launch(self, environment: dict, kill_after=None) -> bool:
        there = super().launch(
            {
                **environment,
                "LD_PRELOAD": self.preload,
                "POWERLOG_DIR": self.mount.cache,
                "POWERLOG_FILE": self.log,
                "POWERLOG_BOOT": self.boot,
            },
            kill_after,
        )
        if there:
            for w in self.workers:
                for entry in w.history:
                    entry[0] = min(entry[0], time.monotonic())
        return there

    def settle(self) -> None:
        super().settle()
        for w in self.workers:
            w.history.append([time.monotonic(), False, w.state])

    def forget_cache(self) -> None:
        """Power lanes keep theirs."""

    def cool_down(self) -> None:
        """Likewise."""

    # what may be there

    def look(self) -> None:
        if self.cut_at is None:
            super().look()
            for w in self.workers:
                w.history.append([time.monotonic(), False, w.state])
            return
        names = self.listed()
        first = {w: self.match_cut(w, names[w]) for w in self.workers}
        # what was sent, and whose acknowledgement was lost, comes back as the server's news
        self.await_refresh()
        names = self.listed()
        for w in self.workers:
            state = self.match_cut(w, names[w])
            w.settle(state)
            w.history = [[0.0, True, first[w]], [time.monotonic(), False, state]]
        self.cut_at = None

    def await_refresh(self) -> None:
        fd = os.open(self.mount.path / ".attachfs" / "control", os.O_RDWR)
        try:
            os.write(fd, b"refresh\n")
            while data := os.read(fd, 4096):
                if b"done" in data:
                    break
        finally:
            os.close(fd)

    def match_cut(self, w: Worker, names: set) -> dict:
        """The state that is shown, if it is made of what was promised."""
        floor = floor_of(w.history, self.cut_at)
        states = [s for _, _, s in w.history[floor:]]
        states += [s for s in w.possible if not any(s is t for t in states)]
        found = {p: w.title if p == "@title" else self.read(p) for p in sorted(names)}
        for state in reversed(states):
            if self.fits(state, states, names, found):
                return {p: state[p]._replace(data=data, ident=None) for p, data in found.items()}
        lines = [f"worker {w.letter}: after a power cut it shows what was never promised"]
        ages = [f"{self.cut_at - t:.1f} s{' synced' * d}" for t, d, _ in w.history[floor:]]
        ages += ["at the cut"] * (len(states) - len(ages))
        for i, state in enumerate(states[1:], 1):
            lines.append(f"  state {i}, {ages[i]} before: {changes(states[i - 1], state)}")
        for p in sorted(names.union(*states)):
            were = [bytes_of(s, p) for s in states]
            if set(were) == {found.get(p)}:
                continue
            lines.append(f"  {p}: shows {told(found.get(p))}; was:")
            for i, (age, data) in enumerate(zip(ages, were)):
                if i == 0 or data != were[i - 1]:
                    lines.append(f"    {age} before: {told(data)}")
        raise Violation("\n".join(lines))

    @staticmethod
    def fits(state: dict, states: list, names: set, found: dict) -> bool:
        """Names as in @state, but for young files; bytes of it, or of the same file before."""
        if names - set(state):
            return False
        old_lines = frozenset().union(*(f.line for f in states[0].values()))
        for p in set(state) - names:
            if p in states[0] or state[p].line & old_lines:
                return False
        return all(found[p] in older(state, states, p) for p in names)

    # ends

    def choose(self) -> tuple:
        kind = self.chance.choices(["point", "moment", "start", "end"], [3, 6, 1, 1])[0]
        known = sorted(self.passed)
        if kind == "point":
            return (kind, self.chance.choice(known)) if known else ("moment", "")
        return kind, ""

    def struck_down(self, threads: list, kind: str, point: str) -> str:
        if self.chance.random() < 0.6:
            # some rest between, so that there is something old
            time.sleep(self.chance.uniform(0, 0.3))
            self.end_work(threads)
            until = time.monotonic() + AGE + 0.1
            while self.mount.process.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            if self.mount.process.poll() is None:
                threads = self.start_work(point)
        return super().struck_down(threads, kind, point)

    def life(self) -> str:
        self.may_cut = self.chance.random() < 0.8
        return super().life()

    def check_all(self, finish: bool = False) -> None:
        self.may_cut = False
        super().check_all(finish)

    def after_end(self) -> None:
        when = time.monotonic()
        super().after_end()
        if self.cut_at is None:  # else nobody has looked, and nothing new was promised
            self.age_promises(when)
        self.disk.replay(self.log)
        self.log.unlink(missing_ok=True)
        if self.may_cut:
            self.cut_power(when)
        else:
            self.disk.reconcile(self.mount.cache)

    def age_promises(self, when: float) -> None:
        """What is on the disk at the end of a life."""
        for w in self.workers:
            floor = floor_of(w.history, when)
            del w.history[:floor]
            w.history[0][1] = True
            if self.ended_well:
                w.history[-1][1] = True
            for entry in w.history:
                if not entry[1] and not self.may_cut:
                    entry[0] = math.inf  # it gets older when there is a daemon again

    def cut_power(self, when: float) -> None:
        self.disk = self.disk.cut(self.chance)
        self.disk.write(self.mount.cache)
        self.disk.write(self.base / "cut")  # to look at when something is wrong
        self.new_boot()
        if self.cut_at is None:
            self.cut_at = when
        self.counts["cut"] += 1
        self.check_ledger()


def changes(old: dict, new: dict) -> str:
    """What a step did."""
    paths = sorted(p for p in {*old, *new} if bytes_of(old, p) != bytes_of(new, p))
    return ", ".join(f"{p} {told(bytes_of(new, p))}" for p in paths) or "nothing"


def floor_of(history: list, cut_at: float) -> int:
    """The last state that is surely on the disk."""
    return max(i for i, (t, durable, _) in enumerate(history) if durable or t < cut_at - AGE)


def older(state: dict, states: list, path: str) -> set:
    """What a file may show that has those bytes in @state."""
    line = state[path].line
    return {f.data for s in states for p, f in s.items() if p == path or f.line & line}
