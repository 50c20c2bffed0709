#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
scripts/soak: random work of several programs on one mount while everything goes wrong that can.

Each program (a process) has files of its own in records that all share. Whatever it writes describes
itself: a file that is read must be one version of itself, whole. What a close, rename or unlink that
succeeded left is remembered; of a call that failed (the daemon was killed under it) nothing is, and
the file is removed.

The server's faults come and go; another client adds, replaces and removes files; the daemon is killed
or told to end and started again. Two parts of a run: killing in the first, which ends after 60 %, none
in the second, which is one daemon's life and is watched for growth.

At the end: all is sent, nothing was refused, names and bytes are the same here and on the server and what
the programs remember. And the daemon has not grown:

    RSS       its mean in the last quarter of the second part is at most 15 % and 8 MiB above that of
              the second quarter
    fds       at rest no more than 96 (connections to the server are kept)
    threads   as many as at the second part's start, and at most 8 more
    ledger    after the end of the daemon at most 4 KiB for each file and record, and 1 MiB
"""

import argparse
import multiprocessing
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mount"))

from harness import SYSTEMS, Emulator, Mount, is_mounted, sha256, wait_until  # noqa: E402

RECORDS = ("users/Ada Byron", "users/Grace Hopper", "users/Alan Turing")
FILES_EACH = 25  # of a program, so that the ledger's size says something
FOREIGN = 10
KILLING = 0.6  # of the time
REST_FDS = 96
LIMIT = {"rss_factor": 1.15, "rss_bytes": 8 << 20, "threads": 8}
LEDGER_BYTES_EACH, LEDGER_BYTES = 4096, 1 << 20


def text_of(title: str, version: int, size: int) -> bytes:
    """A content that says what it must be: its first line is all that the rest is made of."""
    head = f"{title} {version} {size}\n".encode()
    body = random.Random(head).randbytes(max(0, size - len(head)) // 2).hex().encode()
    return head + body


def is_whole(data: bytes) -> bool:
    found = re.match(rb"(\S+) (\d+) (\d+)\n", data)
    return bool(found) and data == text_of(found[1].decode(), int(found[2]), int(found[3]))


class Program:
    """One client: works until told to stop, and leaves what it remembers in a file."""

    def __init__(self, root: Path, number: int, seed: int, state: Path, folders: list):
        self.root = root
        self.name = f"p{number}"
        self.random = random.Random(f"{seed}/{number}")
        self.state = state
        self.folders = folders
        self.files: dict = {}  # path below the root -> sha256
        self.touched: list = []
        self.log = open(f"{state}.log", "w", buffering=1)  # for who looks into a failure
        self.count = 0
        self.done = {"writes": 0, "reads": 0, "renames": 0, "removes": 0, "lists": 0, "failed": 0}

    def note(self, *words) -> None:
        print(f"{time.time():.3f}", *words, file=self.log)

    def fresh(self) -> str:
        self.count += 1
        return f"{self.random.choice(self.folders)}/{self.name}-{self.count}.txt"

    def some(self) -> str:
        return self.random.choice(sorted(self.files))

    def size(self) -> int:
        return int(10 ** self.random.uniform(1.5, 5.5))

    def write(self, path: str, swap: bool) -> None:
        """In place, or as editors do it."""
        self.count += 1
        data = text_of(self.name, self.count, self.size())
        self.note("write", path, len(data), "by another name" if swap else "in place")
        self.touched = [path]
        if swap:
            temporary = f"{path}.{self.count}.new"
            self.touched.append(temporary)
            (self.root / temporary).write_bytes(data)
            os.rename(self.root / temporary, self.root / path)
        else:
            (self.root / path).write_bytes(data)
        self.files[path] = sha256(data)
        self.done["writes"] += 1

    def rename(self) -> None:
        old, new = self.some(), self.fresh()
        self.touched = [old, new]
        self.note("rename", old, new)
        os.rename(self.root / old, self.root / new)
        self.files[new] = self.files.pop(old)
        self.done["renames"] += 1

    def remove(self) -> None:
        path = self.some()
        self.touched = [path]
        self.note("remove", path)
        os.unlink(self.root / path)
        del self.files[path]
        self.done["removes"] += 1

    def read(self) -> None:
        path = self.some()
        data = (self.root / path).read_bytes()
        assert sha256(data) == self.files[path], f"{path}: not what was written: {data[:60]!r}"
        self.done["reads"] += 1

    def read_foreign(self) -> None:
        folder = self.root / self.random.choice(self.folders)
        names = [n for n in os.listdir(folder) if n.startswith("foreign-")]
        self.done["lists"] += 1
        if names:
            data = (folder / self.random.choice(names)).read_bytes()
            assert is_whole(data), f"a mix, or a part: {data[:60]!r}"
            self.done["reads"] += 1

    def step(self) -> None:
        what = self.random.random()
        self.touched = []
        if len(self.files) < 3 or (what < 0.25 and len(self.files) < FILES_EACH):
            self.write(self.fresh(), self.random.random() < 0.3)
        elif what < 0.45:
            self.write(self.some(), self.random.random() < 0.7)
        elif what < 0.6:
            self.rename()
        elif what < 0.7:
            self.remove()
        elif what < 0.85:
            self.read()
        else:
            self.read_foreign()

    def forget(self, path: str) -> None:
        """A call failed under it: nobody knows what is there, so it goes."""
        self.note("forget", path)
        self.files.pop(path, None)
        while not self.state.with_name("stop-now").exists():
            try:
                # not of the directory below, while there is no mount
                device = os.stat(self.root).st_dev
                if device == self.device:
                    raise OSError
                os.unlink(self.root / path)
                return
            except FileNotFoundError:
                if os.stat(self.root).st_dev == device:
                    return
            except OSError:
                pass
            time.sleep(0.1)

    def run(self, stop: Path) -> None:
        self.device = self.state.parent.stat().st_dev
        while not stop.exists():
            try:
                if not is_mounted(self.root):
                    time.sleep(0.05)
                    continue
                self.step()
            except FileNotFoundError as e:
                # of a foreign one that went meanwhile; or the mount is gone, and this its place
                if e.filename and not self.touched and "foreign-" in str(e.filename):
                    continue
                self.failed()
            except OSError:
                self.failed()
            time.sleep(self.random.uniform(0, 0.02))
        lines = [f"{digest} {path}" for path, digest in self.files.items()]
        self.state.write_text("\n".join(lines))
        print(f"    {self.name}: {self.done}", file=sys.stderr)

    def failed(self) -> None:
        self.done["failed"] += 1
        for path in list(self.touched):
            self.forget(path)
        time.sleep(0.1)


def run_program(*arguments, stop: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Program(*arguments).run(stop)


class Other:
    """Another client of the server."""

    def __init__(self, emulator: Emulator, rng: random.Random):
        self.emulator = emulator
        self.random = rng
        self.ids: list = []
        self.count = 0

    def step(self) -> None:
        self.count += 1
        name = f"foreign-{self.count}.txt"
        text = text_of("foreign", self.count, self.random.randrange(40, 60_000)).decode()
        what = self.random.random()
        if len(self.ids) < 3 or (what < 0.4 and len(self.ids) < FOREIGN):
            top, record = self.random.choice(RECORDS).split("/")
            op = {"op": "add", "collection": top, "record": record, "name": name, "filename": name}
            self.ids += self.emulator.change({**op, "text": text})
        elif what < 0.8:
            at = self.random.randrange(len(self.ids))
            (self.ids[at],) = self.emulator.change(
                {"op": "replace", "id": self.ids[at], "text": text}
            )
        else:
            self.emulator.change(
                {"op": "delete", "id": self.ids.pop(self.random.randrange(len(self.ids)))}
            )


def faults_of(system) -> list:
    """Lists of rules; each is what a server or the way to it does for some seconds."""
    everything = {**system.api, "match": ""}
    return [
        [{**everything, "latency_ms": 300}],
        [{**everything, "status": 503}],
        [{**everything, "reset": True}],
        [{**system.blob, "hang": True}],
        [{**system.blob, "cut_after": 1000}],
        [{**system.blob, "bytes_per_second": 20_000}],
        [{**system.upload, "drop_reply": True, "count": 3}],
        [{**system.upload, "cut_upload_after": 500, "count": 3}],
        [{**system.upload, "status": 500}],
        [{**system.listing, "status": 502}],
        [{**system.remove, "drop_reply": True, "count": 3}],
        [{**everything, "status": 429, "headers": {"Retry-After": "1"}, "count": 20}],
    ]


def proc_status(pid: int, key: str) -> int:
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def rss(pid: int) -> int:
    return proc_status(pid, "VmRSS") * 1024


def fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def mean(values: list) -> float:
    return sum(values) / len(values)


class Soak:
    def __init__(self, base: Path, system, seconds: float, programs: int, seed: int, log: str):
        self.base = base
        self.system = system
        self.seconds = seconds
        self.random = random.Random(f"{seed}/{system.name}")
        tree: dict = {"users": {}, "events": {}}
        for r in RECORDS:
            tree["users"][r.split("/")[1]] = {"stays.txt": text_of("stays", 0, 3000)}
        self.emulator = Emulator(base / "emulator", system, tree=tree)
        self.mount = Mount(
            base / "mount",
            self.emulator,
            settle=0.5,
            poll=2,
            timeout=10,
            cache_size="16M",
            log=log,
        )
        # the faults are told of
        self.mount.allow_errors(
            r"\blist \w+|read attachment|answered with status|timed out|could not be reached"
            r"|Input/output error|log: last line repeated"
        )
        self.other = Other(self.emulator, self.random)
        self.stop = base / "stop"
        self.folders = [system.real_path(r) for r in RECORDS]
        self.programs = [
            multiprocessing.Process(
                target=run_program,
                args=(self.mount.path, i, seed, base / f"program-{i}", self.folders),
                kwargs={"stop": self.stop},
            )
            for i in range(programs)
        ]
        self.samples: list = []  # of the second part: (RSS, fds, threads)
        self.kills = self.ends = self.struck = 0
        self.failures: list = []

    def check(self, good: bool, what: str) -> None:
        if not good:
            self.failures.append(what)
            print(f"    FAILED: {what}", file=sys.stderr)

    # the run

    def restart(self) -> None:
        if self.random.random() < 0.7:
            self.mount.kill9()
            self.kills += 1
        else:
            self.mount.terminate()
            self.ends += 1
        self.mount.start(look=False)

    def sample(self) -> None:
        pid = self.mount.process.pid
        self.samples.append((rss(pid), fds(pid), proc_status(pid, "Threads")))

    def work(self) -> None:
        begin = time.monotonic()
        faults = faults_of(self.system)
        next_fault = next_other = next_sample = begin
        next_kill = begin + self.random.uniform(2, 10)
        heal_at = 0.0
        while (now := time.monotonic()) < begin + self.seconds:
            killing = now < begin + KILLING * self.seconds
            if now >= next_other:
                self.other.step()
                next_other = now + self.random.uniform(0.1, 2)
            if heal_at and now >= heal_at:
                self.struck += self.emulator.struck()
                self.emulator.heal()
                heal_at = 0
                next_fault = now + self.random.uniform(0.5, 4)
            elif not heal_at and now >= next_fault:
                self.emulator.faults(*self.random.choice(faults))
                heal_at = now + self.random.uniform(0.5, 4)
            if killing and now >= next_kill:
                self.restart()
                next_kill = now + self.random.uniform(3, 15)
            if not killing and now >= next_sample:
                self.sample()
                next_sample = now + min(1.0, self.seconds / 100)
            self.check(self.mount.process.poll() is None, "the daemon ended by itself")
            if self.failures:
                return
            time.sleep(0.05)

    def end_programs(self) -> None:
        self.stop.touch()
        for p in self.programs:
            p.join(60)
            if p.is_alive():
                self.check(False, f"a program hangs (pid {p.pid})")
                (self.base / "stop-now").touch()
                p.kill()
                p.join()
            self.check(p.exitcode == 0, f"a program's check failed, exit status {p.exitcode}")

    # the end

    def remembered(self) -> dict:
        found = {}
        for path in self.base.glob("program-*[0-9]"):
            for line in path.read_text().splitlines():
                digest, _, name = line.partition(" ")
                found[self.system.logical_path(name)] = digest
        return found

    def compare(self) -> int:
        """All three know the same. How many files there are."""
        m = self.mount
        self.emulator.heal()
        # what waits for a fault to be over may wait a minute
        wait_until(lambda: m.command("retry", ok=None).returncode == 0, "the retry", 120)
        m.sync(ok=None, timeout=300)
        m.command("refresh", timeout=300)
        self.check(m.status()["failed"] == 0, (m.path / ".attachfs/failed").read_text())
        wait_until(m.idle, "nothing to be left to send", 120)
        try:
            m.same_as_server()
        except AssertionError as e:
            self.check(False, str(e)[:2000])
        server = {p: a["sha256"] for p, a in self.emulator.files().items()}
        own = {p: d for p, d in server.items() if re.match(r"p\d+-", p.rpartition("/")[2])}
        expected = self.remembered()
        missing, extra = set(expected) - set(own), set(own) - set(expected)
        self.check(not missing, f"lost: {sorted(missing)}")
        self.check(not extra, f"came back: {sorted(extra)}")
        other = [p for p in expected if p in own and expected[p] != own[p]]
        self.check(not other, f"other bytes: {other}")
        strange = [
            p
            for p in server
            if not re.match(r"(p\d+|foreign)-\d+\.txt$|stays\.txt$", p.rpartition("/")[2])
        ]
        strange = [p for p in strange if not p.startswith("events/")]
        self.check(not strange, f"made by nobody: {strange}")
        return len(server)

    def is_flat(self) -> str:
        quarter = max(1, len(self.samples) // 4)
        early = mean([s[0] for s in self.samples[quarter : 2 * quarter]])
        late = mean([s[0] for s in self.samples[-quarter:]])
        allowed = max(early * LIMIT["rss_factor"], early + LIMIT["rss_bytes"])
        self.check(late <= allowed, f"RSS grew from {early / 1e6:.1f} to {late / 1e6:.1f} MB")
        pid = self.mount.process.pid
        threads = proc_status(pid, "Threads")
        self.check(
            threads <= self.samples[0][2] + LIMIT["threads"],
            f"{threads} threads, {self.samples[0][2]} before",
        )
        self.check(fds(pid) <= REST_FDS, f"{fds(pid)} descriptors are open at rest")
        return (
            f"RSS {early / 1e6:.1f} -> {late / 1e6:.1f} MB, at rest {fds(pid)} fds"
            f" (at most {max(s[1] for s in self.samples)}), {threads} threads"
        )

    def ledger(self) -> str:
        (path,) = self.mount.cache.rglob("ledger.db")
        size = sum(f.stat().st_size for f in path.parent.glob("ledger.db*"))
        with sqlite3.connect(path) as db:
            rows = db.execute("SELECT count(*) FROM node").fetchone()[0]
        self.check(
            size <= LEDGER_BYTES + LEDGER_BYTES_EACH * rows,
            f"the ledger has {size} bytes, {rows} rows",
        )
        return f"ledger {size >> 10} KiB for {rows} nodes"

    def run(self) -> bool:
        told = ""
        try:
            self.mount.start()
            for p in self.programs:
                p.start()
            self.work()
            self.end_programs()
            if self.mount.process.poll() is not None:
                raise AssertionError(self.mount.said())
            files = self.compare()
            told = f"{files} files; {self.is_flat()}; "
            self.mount.umount()
            told += self.ledger()
            self.mount.finish()
        except AssertionError as e:
            self.check(False, str(e)[:3000])
        finally:
            self.stop.touch()
            for p in self.programs:
                if p.is_alive():
                    p.kill()
            self.mount.abandon()
            self.emulator.stop()
        print(
            f"{self.system.name}: {self.seconds:.0f} s, {self.kills} kills, {self.ends} ends, "
            f"{self.struck} faults struck; {told}: {'FAILED' if self.failures else 'ok'}",
            flush=True,
        )
        return not self.failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description="see scripts/soak")
    parser.add_argument("--minutes", type=float, help="in all; default: 5")
    parser.add_argument("--hours", type=float)
    parser.add_argument("--systems", default=",".join(s.name for s in SYSTEMS), metavar="A,B")
    parser.add_argument("--programs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--log", default="info", help="the daemon's, kept when something failed")
    arguments = parser.parse_args()
    by_name = {s.name: s for s in SYSTEMS}
    chosen = arguments.systems.split(",")
    if set(chosen) - set(by_name):
        parser.error(
            f"no system {', '.join(set(chosen) - set(by_name))}; there are {', '.join(by_name)}"
        )
    seconds = 60 * (60 * arguments.hours if arguments.hours else arguments.minutes or 5)
    print(f"seed {arguments.seed}", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = 0
    for name in chosen:
        base = Path(tempfile.mkdtemp(prefix="attachfs-soak-"))
        good = Soak(
            base,
            by_name[name],
            seconds / len(chosen),
            arguments.programs,
            arguments.seed,
            arguments.log,
        ).run()
        failed += not good
        if good:
            shutil.rmtree(base, ignore_errors=True)
        else:
            print(f"    kept for inspection: {base}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
