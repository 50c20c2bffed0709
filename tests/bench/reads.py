# SPDX-License-Identifier: MIT
"""
scripts/bench reads: reading through attachfs, beside rclone mount and davfs2 on the same files.

What is read over the network is measured against curl, which fetches the same bytes from the same server, the
large file to a file on the disk that also holds the caches. What is here already is measured, with the page
cache dropped, against a directory of that disk, and against the same directory behind FUSE with nothing else
(mirror.c): the kernel's and libfuse's share, which no filesystem behind FUSE gets below.

attachfs and curl speak to the emulator of PERSCOM, the others to nginx with WebDAV, both over the same files on
a memory filesystem, on loopback. Latency is added by delay.c, the same for all; without latency all connect
directly. What is to be read is listed, with sizes, before the clock starts. All contenders take turns; peers
that take long do so once. In the first round each one's bytes are compared afterwards.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from common import digest
from contenders import BIG_BYTES, FILE_BYTES, SLOTS, Stopped
from harness import binary, random_bytes
from readers import Mirror, ReadAttachfs, ReadCurl, ReadDavfs, Reader, ReadExt4, Reading
from readers import ReadRclone, ReadRcloneTuned
from rounds import Rounds, seconds

FILES = 1000
RANDOM_READS = 200
HEAD_BYTES = 4096
PEERS = (ReadRclone, ReadRcloneTuned, ReadDavfs)
WORKLOADS = ("cold", "warm", "first", "random", "tar", "readers")


@dataclass
class Result:
    round: int
    seconds: Optional[float] = None  # None = stopped at the limit
    requests: Optional[int] = None
    bytes: Optional[int] = None
    cpu: Optional[float] = None


def to_file(name: str, url: str, base: Path) -> list:
    return [[f'url = "{url}"', f'output = "{base / name}"']]


def to_nowhere(name: str, url: str, base: Path) -> list:
    return [[f'url = "{url}"', 'output = "/dev/null"']]


def head(name: str, url: str, base: Path) -> list:
    return [[f'url = "{url}"', 'output = "/dev/null"', f'range = "0-{HEAD_BYTES - 1}"']]


def scattered(name: str, url: str, base: Path) -> list:
    """As many as bench-work reads; which, makes no difference to a server."""
    step = BIG_BYTES // RANDOM_READS // HEAD_BYTES * HEAD_BYTES
    places = [i * 77 % RANDOM_READS * step for i in range(RANDOM_READS)]
    lines = [f'url = "{url}"', 'output = "/dev/null"']
    return [[*lines, f'range = "{p}-{p + HEAD_BYTES - 1}"'] for p in places]


class Bench(Rounds):
    WORKLOADS = WORKLOADS
    PEERS = PEERS
    LEGEND = (
        "Seconds, the rate as a\nmultiple of curl's (of ext4's, where the bytes are here already) [requests;"
        " MB received;\nseconds of processor time that the mount's process took]."
    )
    big_bytes = BIG_BYTES

    def make_sources(self) -> None:
        """What a workload reads is made when it is known that it is wanted."""
        if os.geteuid() != 0:
            raise SystemExit("only root drops the page cache: run it as root")
        self.digests: dict = {}

    def latencies_of(self, work: Reading) -> list:
        """What is here already is not asked for."""
        return self.latencies[:1] if work.warm else self.latencies

    # the files

    def big(self) -> Path:
        record = self.shm / "big" / "users" / "record"
        if not record.exists():
            record.mkdir(parents=True)
            block = random_bytes(1 << 24)
            with open(record / "big.bin", "wb") as f:
                for i in range(self.big_bytes >> 24):
                    f.write(block[i:] + block[:i])
        return record

    def small(self) -> Path:
        record = self.shm / "small" / "users" / "record"
        if not record.exists():
            record.mkdir(parents=True)
            for i in range(FILES):
                (record / f"file-{i:04d}.dat").write_bytes(random_bytes(FILE_BYTES, i))
        return record

    def on_disk(self, work: Reading) -> Path:
        """The same files where the caches are."""
        there = self.base / "plain" / work.files.parents[1].name
        if not there.exists():
            there.parent.mkdir(exist_ok=True)
            subprocess.run(["cp", "-r", work.files, there], check=True)
            os.sync()
        return there

    def wanted(self, work: Reading) -> dict:
        if work.files not in self.digests:
            self.digests[work.files] = {p.name: digest(p) for p in work.files.iterdir()}
        return self.digests[work.files]

    def workloads(self) -> dict:
        tool = binary("bench-work")
        parallel = ("--parallel", "--parallel-immediate", "--parallel-max", str(SLOTS))
        size = f"{self.big_bytes >> 20:,} MiB" if self.big_bytes < 1 << 30 else "1 GiB"
        made = {
            "cold": lambda: Reading(
                f"{size}, sequentially",
                self.big(),
                lambda d: ["dd", f"if={d}/big.bin", "of=/dev/null", "bs=1M"],
                to_file,
                size=self.big_bytes,
            ),
            "warm": lambda: Reading(
                f"{size} again, page cache dropped",
                self.big(),
                lambda d: ["dd", f"if={d}/big.bin", "of=/dev/null", "bs=1M"],
                warm=True,
                size=self.big_bytes,
            ),
            "first": lambda: Reading(
                f"the first 4 KiB of {size}",
                self.big(),
                lambda d: ["head", "-c", HEAD_BYTES, d / "big.bin"],
                head,
                size=self.big_bytes,
            ),
            "random": lambda: Reading(
                f"{RANDOM_READS} x 4 KiB anywhere in {size}",
                self.big(),
                lambda d: [tool, "random", d / "big.bin", RANDOM_READS, HEAD_BYTES],
                scattered,
                size=self.big_bytes,
            ),
            "tar": lambda: Reading(
                "tar of 1,000 x 4 KiB",
                self.small(),
                lambda d: ["sh", "-c", 'tar -C "$1" -cf - . | cat >/dev/null', "sh", d],
                to_nowhere,
                parallel,
            ),
            "readers": lambda: Reading(
                f"1,000 x 4 KiB by {SLOTS} readers",
                self.small(),
                lambda d: [tool, "read", d, SLOTS],
                to_nowhere,
                parallel,
            ),
        }
        return {n: make() for n, make in made.items() if not self.only or n in self.only}

    # running

    def contenders(self, work: Reading) -> list:
        who = [ReadExt4, Mirror, ReadAttachfs] if work.warm else [ReadCurl, ReadAttachfs]
        return who + list(PEERS) if self.peers else who

    def measured(self, c: Reader, work: Reading, number: int) -> Result:
        result = Result(number)
        start = time.monotonic()
        try:
            c.do(self.limit)
            result.seconds = time.monotonic() - start
        except Stopped:
            c.stopped = True
        result.cpu = c.cpu()
        result.requests, result.bytes = c.counts()
        if result.seconds and not number:
            c.check()
        return result

    def took(self, result: Result) -> Optional[float]:
        return result.seconds

    def told(self, result: Result, work: Reading) -> str:
        if result.seconds is None:
            return "stopped at the limit"
        cpu = "" if result.cpu is None else f", {result.cpu:.2f} s of processor time"
        return f"{seconds(result.seconds)} [{result.requests}; {result.bytes}]{cpu}"

    # what came out

    def rate(self, cell: tuple, one: str, other: str) -> Optional[float]:
        """The rate of one to that of the other."""
        return self.ratio(cell, other, "seconds", one, "seconds")

    def best_peer(self, cell: tuple, but: tuple = ()) -> Optional[type]:
        found = [p for p in PEERS if p not in but and self.median((*cell, p.name), "seconds")]
        return min(found, key=lambda p: self.median((*cell, p.name), "seconds")) if found else None

    def cells(self) -> list:
        """(workload, latency) of what was measured."""
        return [
            (name, latency)
            for name, work in self.work.items()
            for latency in self.latencies_of(work)
            if any(key[:2] == (name, latency) for key in self.results)
        ]

    def limit_of(self, cell: tuple) -> str:
        return "ext4" if self.work[cell[0]].warm else "curl"

    def cell(self, cell: tuple, who: str) -> str:
        key = (*cell, who)
        time_s = self.median(key, "seconds")
        if time_s is None:
            stopped = any(self.was_stopped(*cell, c) for c in PEERS if c.name == who)
            return f"> {self.limit:.0f}" if stopped or self.results.get(key) else ""
        text = seconds(time_s)
        rate = self.rate(cell, who, self.limit_of(cell))
        if rate and who != self.limit_of(cell):
            text += f", {rate:.2f} x"
        counted = []
        if self.median(key, "requests") is not None:
            counted.append(f"{self.median(key, 'requests'):,.0f}")
            counted.append(f"{self.median(key, 'bytes') / 1e6:,.1f} MB")
        if self.median(key, "cpu") is not None:
            counted.append(f"{self.median(key, 'cpu'):.2f} s")
        return f"{text} [{'; '.join(counted)}]" if counted else text

    def title(self, cell: tuple) -> str:
        work = self.work[cell[0]]
        return work.title if work.warm else f"{work.title}, {cell[1]} ms"

    def table(self) -> list:
        kinds = (ReadExt4, Mirror, ReadCurl, ReadAttachfs, *(PEERS if self.peers else ()))
        names = [k.name for k in kinds]
        lines = ["| workload | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for cell in self.cells():
            told = [self.cell(cell, who) for who in names]
            lines.append(f"| {self.title(cell)} | " + " | ".join(told) + " |")
        return lines

    def goals(self) -> list:
        """What is asked, what came out, and whether it is reached."""
        found = []
        for cell in self.cells():
            goals = {"cold": self.goal_cold, "warm": self.goal_warm, "first": self.goal_first}
            goals |= {"random": self.goal_random, "readers": self.goal_readers}
            found += [(self.title(cell), *g) for g in goals.get(cell[0], lambda _: [])(cell)]
        return found

    def goal_rate(self, cell: tuple, other: str, least: float, what: str) -> list:
        rate = self.rate(cell, "attachfs", other)
        if not rate:
            return []
        return [(f">= {least} x the rate of {what}", f"{rate:.2f} x", rate >= least)]

    def goal_cold(self, cell: tuple) -> list:
        return self.goal_rate(cell, "curl", 0.9, "curl to a file")

    def goal_readers(self, cell: tuple) -> list:
        return self.goal_rate(cell, "curl", 0.8, "curl --parallel")

    def goal_warm(self, cell: tuple) -> list:
        found = self.goal_rate(cell, Mirror.name, 0.8, "ext4 through FUSE alone")
        peer = self.best_peer(cell, but=(ReadDavfs,))
        return found + (self.goal_rate(cell, peer.name, 0.9, "rclone's best") if peer else [])

    def goal_first(self, cell: tuple) -> list:
        mine, curl = (self.median((*cell, who), "seconds") for who in ("attachfs", "curl"))
        if not mine or not curl:
            return []
        late = (mine - curl) * 1000
        return [("<= 3 ms later than with curl", f"{late:+.1f} ms", late <= 3)]

    def goal_random(self, cell: tuple) -> list:
        key = (*cell, "attachfs")
        asked = self.median(key, "requests")
        if not self.median(key, "seconds"):
            return []
        return [(f"<= {RANDOM_READS} requests", f"{asked:.0f}", asked <= RANDOM_READS)]
