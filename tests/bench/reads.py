# SPDX-License-Identifier: MIT
"""
scripts/bench reads: listing and reading through attachfs, beside its peers on the same files (W1 to W5, and
W10 to W12).

What is read over the network is measured against curl, which fetches the same bytes from the same server, the
large file to a file on the disk that also holds the caches. What is here already is measured, with the page
cache dropped, against a directory of that disk, and against the same directory behind FUSE with nothing else
(mirror.c): the kernel's and libfuse's share, which no filesystem behind FUSE gets below.

attachfs and curl speak to the emulators of PERSCOM and of ServiceMax, the others to the origins of peers.py,
all over the same files on a memory filesystem, on loopback. Latency is added by delay.c, the same for all;
without latency all connect directly. What is to be read is listed, with sizes, before the clock starts, unless
the listing is what is measured: then nobody has looked into the mount before. PERSCOM lists no sizes, and curl
asks for each as attachfs does, by a request of one byte. All contenders take turns; peers that take long do so
once. In the first round each one's bytes are compared afterwards; of a large file that was not read as a whole,
some pieces.
"""

import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from common import digest
from contenders import BIG_BYTES, FILE_BYTES, SLOTS, Stopped
from harness import binary, random_bytes
from readers import Mirror, ReadAttachfs, ReadAttachfsServiceMax, ReadAttachfsTuned, ReadCurl
from readers import ReadCurlMany, ReadCurlServiceMax, ReadDavfs, Reader, ReadExt4, Reading
from readers import ReadRclone, ReadRcloneS3, ReadRcloneTuned, ReadS3fs, ReadS3fsTuned
from readers import ReadSshfs, ReadSshfsTuned
import rounds
from rounds import Rounds, seconds

FILES = 1000
RANDOM_READS = 200
HEAD_BYTES = 4096
LIMITS = (ReadExt4, Mirror, ReadCurl, ReadCurlMany, ReadCurlServiceMax)
OURS = (ReadAttachfs, ReadAttachfsTuned, ReadAttachfsServiceMax)
PEERS = (
    ReadRclone,
    ReadRcloneTuned,
    ReadRcloneS3,
    ReadDavfs,
    ReadS3fs,
    ReadS3fsTuned,
    ReadSshfs,
    ReadSshfsTuned,
)
# what each is measured against: the same server, as many connections
LIMIT_OF = {
    ReadAttachfs.name: ReadCurl.name,
    ReadAttachfsTuned.name: ReadCurlMany.name,
    ReadAttachfsServiceMax.name: ReadCurlServiceMax.name,
}
# directories, and files in each
TREE = (1000, 10)
MEMORY_TREE = (1000, 100)
WORKLOADS = (
    *("cold", "warm", "first", "random", "random16", "list", "list-again"),
    *("tar", "readers", "tar-again", "memory"),
)


@dataclass
class Result(rounds.Result):
    seconds: Optional[float] = None  # None = stopped at the limit


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
        "Seconds, the rate as a\nmultiple of curl's with as many connections (of ext4's, where the bytes are here"
        " already)\n[requests; MB received; seconds of processor time and most memory of the mount's process];"
        "\n`attachfs tuned` is attachfs with `slots=64`."
    )
    big_bytes = BIG_BYTES

    def make_sources(self) -> None:
        """What a workload reads is made when it is known that it is wanted."""
        if os.geteuid() != 0:
            raise SystemExit("only root drops the page cache: run it as root")
        self.digests: dict = {}

    def latencies_of(self, work: Reading) -> list:
        """What is here already is not asked for."""
        return self.latencies[:1] if work.local else self.latencies

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

    def tree(self, name: str, directories: int, files: int) -> Path:
        top = self.shm / name / "users"
        for d in range(0 if top.exists() else directories):
            record = top / f"record-{d:04d}"
            record.mkdir(parents=True)
            for f in range(files):
                (record / f"attachment-{f:03d}.txt").write_bytes(b"x" * (100 + f))
        return top

    def on_disk(self, work: Reading) -> Path:
        """The same files where the caches are; so many that only memory is measured stay where they are."""
        if work.generated:
            return work.files
        there = self.base / "plain" / work.data.name
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
        size = f"{self.big_bytes >> 20:,} MiB" if self.big_bytes < 1 << 30 else "1 GiB"
        whole = lambda d: ["dd", f"if={d}/big.bin", "of=/dev/null", "bs=1M"]
        archive = lambda d: ["sh", "-c", 'tar -C "$1" -cf - . | cat >/dev/null', "sh", d]
        find = lambda d: ["find", d, "-type", "f", "-printf", "%s\\n"]
        many = f"{TREE[0]:,} directories of {TREE[1]} files"

        def anywhere(readers: int) -> Callable[[Path], list]:
            return lambda d: [tool, "random", d / "big.bin", RANDOM_READS, HEAD_BYTES, readers]

        def reading(title: str, files: Path, command, transfers=None, **more) -> Reading:
            return Reading(title, files, command, transfers, **more)

        def big(title: str, command, transfers=None, **more) -> Reading:
            return reading(title, self.big(), command, transfers, size=self.big_bytes, **more)

        made = {
            "cold": lambda: big(f"W1: {size}, sequentially", whole, to_file),
            "warm": lambda: big(f"W2: {size} again, page cache dropped", whole, warm=True),
            "first": lambda: big(
                f"W3: the first 4 KiB of {size}",
                lambda d: ["head", "-c", HEAD_BYTES, d / "big.bin"],
                head,
                partly=True,
            ),
            "random": lambda: big(
                f"W4: {RANDOM_READS} x 4 KiB anywhere in {size}", anywhere(1), scattered, partly=True
            ),
            "random16": lambda: big(
                f"W4: the same by {SLOTS} readers",
                anywhere(SLOTS),
                scattered,
                partly=True,
                parallel=True,
            ),
            "list": lambda: reading(
                f"W5: find -printf %s of {many}",
                self.tree("tree", *TREE),
                find,
                parallel=True,
                whole=True,
            ),
            "list-again": lambda: reading(
                f"W5w: the same again, of {many}",
                self.tree("tree", *TREE),
                find,
                again=True,
                whole=True,
            ),
            "tar": lambda: reading(
                "W10: tar of 1,000 x 4 KiB", self.small(), archive, to_nowhere, parallel=True
            ),
            "readers": lambda: reading(
                f"W10p: 1,000 x 4 KiB by {SLOTS} readers",
                self.small(),
                lambda d: [tool, "read", d, SLOTS],
                to_nowhere,
                parallel=True,
            ),
            "tar-again": lambda: reading(
                "W10w: tar of 1,000 x 4 KiB again", self.small(), archive, again=True
            ),
            "memory": lambda: reading(
                f"W11: find of {MEMORY_TREE[0]:,} directories of {MEMORY_TREE[1]} files",
                self.tree("memory", *MEMORY_TREE),
                lambda d: ["find", d, "-type", "f"],
                again=True,
                whole=True,
                generated=f"users:{MEMORY_TREE[0]}:{MEMORY_TREE[1]}:512",
            ),
        }
        return {n: make() for n, make in made.items() if not self.only or n in self.only}

    # running

    def contenders(self, work: Reading) -> list:
        """One reader, and one that waits for each answer, have no use for many connections."""
        limits = [ReadExt4, Mirror] if work.local else [ReadCurl, ReadCurlServiceMax]
        if work.generated:
            limits.remove(ReadExt4)
        if work.parallel:
            limits.insert(1, ReadCurlMany)
        who = [*limits, *(c for c in OURS if work.parallel or c is not ReadAttachfsTuned)]
        return who + list(PEERS) if self.peers else who

    def measured(self, c: Reader, work: Reading, number: int) -> Result:
        result = Result(number)
        c.begin()
        start = time.monotonic()
        try:
            c.do(self.limit)
            result.seconds = time.monotonic() - start
        except Stopped:
            c.stopped = True
        result.take(c)
        if result.seconds and not number:
            c.check()
        return result

    def took(self, result: Result) -> Optional[float]:
        return result.seconds

    def told(self, result: Result, work: Reading) -> str:
        if result.seconds is None:
            return "stopped at the limit"
        return f"{seconds(result.seconds)} [{result.requests}; {result.bytes}; {result.cpu} s; {result.peak}]"

    # what came out

    def rate(self, cell: tuple, one: str, other: str) -> Optional[float]:
        """The rate of one to that of the other."""
        return self.ratio(cell, other, "seconds", one, "seconds")

    def best_peer(self, cell: tuple) -> Optional[type]:
        found = [p for p in PEERS if self.median((*cell, p.name), "seconds")]
        return min(found, key=lambda p: self.median((*cell, p.name), "seconds")) if found else None

    def cells(self) -> list:
        """(workload, latency) of what was measured."""
        return [
            (name, latency)
            for name, work in self.work.items()
            for latency in self.latencies_of(work)
            if any(key[:2] == (name, latency) for key in self.results)
        ]

    def limit_of(self, cell: tuple, who: str) -> str:
        return ReadExt4.name if self.work[cell[0]].local else LIMIT_OF.get(who, ReadCurl.name)

    def cell(self, cell: tuple, who: str) -> str:
        key = (*cell, who)
        time_s = self.median(key, "seconds")
        if time_s is None:
            stopped = any(self.was_stopped(*cell, c) for c in PEERS if c.name == who)
            return f"> {self.limit:.0f}" if stopped or self.results.get(key) else ""
        rate = None
        if who not in (c.name for c in LIMITS if c is not Mirror):
            rate = self.rate(cell, who, self.limit_of(cell, who))
        return seconds(time_s) + (f", {rate:.2f} x" if rate else "") + self.counted(key)

    def title(self, cell: tuple) -> str:
        work = self.work[cell[0]]
        return work.title if work.local else f"{work.title}, {cell[1]} ms"

    def table(self) -> list:
        names = [k.name for k in (*LIMITS, *OURS, *(PEERS if self.peers else ()))]
        lines = ["| workload | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for cell in self.cells():
            told = [self.cell(cell, who) for who in names]
            lines.append(f"| {self.title(cell)} | " + " | ".join(told) + " |")
        started = [self.started(who) for who in names]
        lines.append("| W12: from the start until mounted | " + " | ".join(started) + " |")
        return lines

    def starts(self, who: str) -> list:
        found = [r.mounted for k, rs in self.results.items() if k[1:] == (0, who) for r in rs]
        return [s for s in found if s is not None]

    def started(self, who: str) -> str:
        """Without latency, whatever was done then."""
        return seconds(statistics.median(self.starts(who))) if self.starts(who) else ""

    def goals(self) -> list:
        """What is asked, what came out, and whether it is reached."""
        found = []
        for cell in self.cells():
            for who in [c.name for c in OURS if self.results.get((*cell, c.name))]:
                found += [(f"{self.title(cell)}, {who}", *g) for g in self.goal_done((*cell, who))]
                if not self.took_s(cell, who):
                    continue
                found += [(f"{self.title(cell)}, {who}", *g) for g in self.goals_of(cell, who)]
        for who in [c.name for c in OURS if self.starts(c.name)]:
            for goal in self.at_most(statistics.median(self.starts(who)), 0.1, "mounted:"):
                found.append((f"W12: start, {who}", *goal))
        return found

    def goals_of(self, cell: tuple, who: str) -> list:
        own = getattr(self, f"goals_{cell[0].replace('-', '_')}", None)
        found = own(cell, who) if own else []
        peer = self.best_peer(cell)
        return found + (self.goal_faster(cell, who, peer.name) if peer else [])

    def took_s(self, cell: tuple, who: str) -> Optional[float]:
        return self.median((*cell, who), "seconds")

    def goal_faster(self, cell: tuple, who: str, peer: str) -> list:
        rate = self.rate(cell, who, peer)
        # a peer that takes long did it in the first round only
        rate = rate or self.took_s(cell, peer) / self.took_s(cell, who)
        return [(f"faster than the best peer, {peer}", f"{rate:.2f} x its rate", rate >= 1)]

    def goal_times(self, cell: tuple, who: str, other: str, most: float) -> list:
        """No more than @most times as long as @other."""
        took = self.ratio(cell, who, "seconds", other, "seconds")
        return self.at_most(took, most, f"{other}:", "{:.2f} x its time") if took else []

    def goal_late(self, cell: tuple, who: str, at_0_ms: float, at_20_ms: float) -> list:
        """Seconds, which were asked for at these latencies only."""
        most = {0: at_0_ms, 20: at_20_ms}.get(cell[1])
        return self.at_most(self.took_s(cell, who), most, "seconds:") if most else []

    def goal_requests(self, cell: tuple, who: str, most: int) -> list:
        return self.at_most(self.median((*cell, who), "requests"), most, "requests", "{:,.0f}")

    def goal_bytes(self, cell: tuple, who: str, most: int) -> list:
        moved = self.median((*cell, who), "bytes")
        return self.at_most(moved and moved / (1 << 20), most, "moved", "{:.1f} MiB")

    def goals_cold(self, cell: tuple, who: str) -> list:
        return self.goal_times(cell, who, LIMIT_OF[who], 1.2) + self.goal_requests(cell, who, 2)

    def goals_warm(self, cell: tuple, who: str) -> list:
        return self.goal_times(cell, who, Mirror.name, 1.1) + self.goal_requests(cell, who, 0)

    def goals_first(self, cell: tuple, who: str) -> list:
        return self.goal_late(cell, who, 0.001, 0.024) + self.goal_bytes(cell, who, 1)

    def goals_random(self, cell: tuple, who: str) -> list:
        found = self.goal_late(cell, who, 0, 4.2) + self.goal_bytes(cell, who, 64)
        return found + self.goal_requests(cell, who, RANDOM_READS)

    def goals_random16(self, cell: tuple, who: str) -> list:
        return self.goal_late(cell, who, 0, 0.4) + self.goal_bytes(cell, who, 64)

    def goals_list(self, cell: tuple, who: str) -> list:
        """Where sizes are listed, and where each takes a call."""
        if who == ReadAttachfsServiceMax.name:
            return self.goal_late(cell, who, 0, 0.3) + self.goal_requests(cell, who, 2)
        probes = TREE[0] * TREE[1]
        return self.goal_late(cell, who, 0, 3) + self.goal_requests(cell, who, probes + 3)

    def goals_list_again(self, cell: tuple, who: str) -> list:
        return self.at_most(self.took_s(cell, who), 0.05, "seconds:") + self.goal_requests(cell, who, 0)

    def goals_tar(self, cell: tuple, who: str) -> list:
        return self.goal_late(cell, who, 0, 1.0) + self.goal_requests(cell, who, FILES)

    def goals_readers(self, cell: tuple, who: str) -> list:
        return self.goal_late(cell, who, 0, 0.6) + self.goal_requests(cell, who, FILES)

    def goals_tar_again(self, cell: tuple, who: str) -> list:
        return self.at_most(self.took_s(cell, who), 0.04, "seconds:") + self.goal_requests(cell, who, 0)

    def goals_memory(self, cell: tuple, who: str) -> list:
        peak = self.median((*cell, who), "peak")
        return self.at_most(peak and peak / 1e6, 40, "most memory", "{:.0f} MB")
