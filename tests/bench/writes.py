# SPDX-License-Identifier: MIT
"""
scripts/bench writes: writing through attachfs, beside rclone mount and davfs2 on the same work.

Two clocks: until the program returns, and until everything is on the server. The first is measured against
the same program on a directory of the disk that also holds the caches, the second against curl --parallel,
which does only the calls that are needed, over as many connections as attachfs has. A filesystem that keeps
nothing (nothing.c) shows the kernel's and libfuse's share of the first.

attachfs and curl speak to the emulator of PERSCOM, the others to nginx with WebDAV, both on a memory
filesystem, on loopback. Latency is added by delay.c, the same for all; without latency all connect directly.
What has to be listed before the work is listed before the clock starts. All contenders take turns; those that
take long do so once. A result counts when the server has exactly the files it should have, with their bytes;
one that is not there at the limit is told as '> limit', and its contender not tried with latency once it was
too slow without. Everything is removed at the end and not between runs:
ext4 without a journal is slow to create files where others were just removed.
"""

import os
import time
from dataclasses import dataclass
from typing import Optional

from common import digest
from contenders import BIG_BYTES, FILE_BYTES, Attachfs, Curl, Davfs, Ext4, Nothing
from contenders import Rclone, RcloneTuned, Stopped, Workload, run_limited
from harness import binary, random_bytes
from rounds import Rounds, seconds

FILES = 1000


@dataclass
class Result:
    round: int
    application: Optional[float] = None  # None = stopped at the limit
    server: Optional[float] = None
    requests: Optional[int] = None
    bytes: Optional[int] = None
    stopped: bool = False

    @property
    def sending(self) -> Optional[float]:
        """From when the program returned."""
        return self.server - self.application if self.server else None


PEERS = (Rclone, RcloneTuned, Davfs)
WORKLOADS = ("cp", "rsync", "large", "renames", "deletes", "close", "fsync")


class Bench(Rounds):
    WORKLOADS = WORKLOADS
    PEERS = PEERS
    LEGEND = (
        "Seconds until the\nprogram returned / until all was on the server [requests; MB sent]; `nothing` is"
        " a FUSE\nfilesystem that keeps nothing."
    )

    def make_sources(self) -> None:
        self.source = self.base / "source"
        self.source.mkdir()
        for i in range(FILES):
            (self.source / f"file-{i:04d}.dat").write_bytes(random_bytes(FILE_BYTES, i))
        self.created = self.base / "created"
        self.created.mkdir()
        run_limited([binary("bench-work"), "create", self.created, FILES, FILE_BYTES], 60)
        self.big = self.shm / "big.bin"
        if not self.only or "large" in self.only:
            block = random_bytes(1 << 24)
            with open(self.big, "wb") as f:
                for i in range(BIG_BYTES >> 24):
                    f.write(block[i:] + block[:i])

    def workloads(self) -> dict:
        small = {p.name: digest(p) for p in self.source.iterdir()}
        created = {p.name: digest(p) for p in self.created.iterdir()}
        work = binary("bench-work")
        create = [work, "create", FILES, FILE_BYTES]
        made = {
            "cp": Workload(
                "cp -r of 1,000 x 4 KiB",
                lambda d: ["cp", "-r", f"{self.source}/.", d],
                small,
                nothing=True,
            ),
            "rsync": Workload(
                "rsync -a of 1,000 x 4 KiB",
                lambda d: ["rsync", "-a", f"{self.source}/", d],
                small,
                nothing=True,
            ),
            "large": Workload(
                "1 GiB by dd, with fsync",
                lambda d: ["dd", f"if={self.big}", f"of={d}/big.bin", "bs=1M", "conv=fsync"],
                {"big.bin": digest(self.big) if self.big.exists() else ""},
                size=BIG_BYTES,
            ),
            "renames": Workload(
                "1,000 renames",
                lambda d: [work, "rename", d, "renamed-"],
                {f"renamed-{name}": sha for name, sha in small.items()},
                before=FILES,
            ),
            "deletes": Workload(
                "1,000 deletes", lambda d: [work, "unlink", d], {}, before=FILES
            ),
            "close": Workload(
                "1,000 x 4 KiB: create, write, close",
                lambda d: [create[0], create[1], d, *create[2:]],
                created,
                peers=False,
                server=False,
                nothing=True,
            ),
            "fsync": Workload(
                "the same with an fsync of each",
                lambda d: [create[0], create[1], d, *create[2:], "fsync"],
                created,
                peers=False,
                server=False,
                nothing=True,
            ),
        }
        return {n: w for n, w in made.items() if not self.only or n in self.only}

    def contenders(self, work: Workload) -> list:
        who = [Ext4, Attachfs]
        if work.nothing:
            who.insert(1, Nothing)
        if work.server:
            who.append(Curl)
        if self.peers and work.peers:
            who += [p for p in PEERS if p is not Davfs or os.geteuid() == 0]
        return who

    def latencies_of(self, work: Workload) -> list:
        return self.latencies if work.server else self.latencies[:1]

    def measured(self, c, work: Workload, number: int) -> Result:
        result = Result(number)
        os.sync()
        start = time.monotonic()
        try:
            c.do(self.limit)
            result.application = time.monotonic() - start
            if work.server and c.networked:
                c.settle(start + self.limit)
                result.server = time.monotonic() - start
        except Stopped:
            result.stopped = c.stopped = True
        if work.server:
            result.requests, result.bytes = c.counts()
        if not result.stopped:
            c.check()
        return result

    def took(self, result: Result) -> Optional[float]:
        return None if result.stopped else max(result.application, result.server or 0)

    def told(self, result: Result, work: Workload) -> str:
        if result.stopped:
            return "stopped at the limit"
        text = seconds(result.application)
        if result.server:
            text += f" / {seconds(result.server)} [{result.requests}; {result.bytes}]"
        return text

    # what came out

    def cell(self, name: str, work: Workload, latency: int, who: str) -> str:
        key = (name, latency, who)
        if not self.results.get(key):
            stopped = any(self.was_stopped(name, latency, c) for c in PEERS if c.name == who)
            return f"> {self.limit:.0f}" if stopped else ""
        application, server = self.median(key, "application"), self.median(key, "server")
        if application is None:
            return f"> {self.limit:.0f}"
        if not work.server or who in ("ext4", "nothing"):
            return seconds(application)
        until = f"> {self.limit:.0f}" if server is None else seconds(server)
        if who == "curl":
            return f"{until} {self.counted(key)}"
        return f"{seconds(application)} / {until} {self.counted(key)}"

    def counted(self, key: tuple) -> str:
        r = self.results[key][-1]
        return f"[{r.requests:,}; {r.bytes / 1e6:,.1f} MB]"

    def table(self) -> list:
        names = [c.name for c in (Ext4, Nothing, Curl, Attachfs, *(PEERS if self.peers else ()))]
        lines = ["| workload | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for name, work in self.done():
            for latency in self.latencies_of(work):
                cells = [self.cell(name, work, latency, who) for who in names]
                where = f", {latency} ms" if work.server else ""
                lines.append(f"| {work.title}{where} | " + " | ".join(cells) + " |")
        return lines

    def done(self) -> list:
        return [(n, w) for n, w in self.work.items() if any(k[0] == n for k in self.results)]

    def goals(self) -> list:
        """What is asked, what came out, and whether it is reached."""
        found = []
        for name, work in self.done():
            for latency in self.latencies_of(work):
                where = f"{work.title}, {latency} ms" if work.server else work.title
                goals = (
                    self.goal_program(name, latency),
                    self.goal_server(name, latency) if work.server else None,
                    self.goal_peers(name, latency) if latency else None,
                )
                found += [(where, *goal) for goal in goals if goal]
        return found

    def goal_program(self, name: str, latency: int) -> Optional[tuple]:
        most = {"cp": 1.2, "rsync": 1.2, "large": 1.2, "close": 1.5}.get(name)
        cell = (name, latency)
        r = self.ratio(cell, "attachfs", "application", "ext4", "application")
        alone = self.ratio(cell, "nothing", "application", "ext4", "application")
        if not r or not most:
            return None
        also = f"; FUSE alone: {alone:.2f} x" if alone else ""
        return f"the program: <= {most} x ext4", f"{r:.2f} x{also}", r <= most

    def goal_server(self, name: str, latency: int) -> Optional[tuple]:
        cell = (name, latency)
        r = self.ratio(cell, "curl", "server", "attachfs", "server")
        alone = self.ratio(cell, "curl", "server", "attachfs", "sending")
        if not r or name not in ("cp", "rsync", "large"):
            return None
        also = f"; sending alone: {alone:.2f} x"
        return "until on the server: >= 0.8 x the rate of curl", f"{r:.2f} x{also}", r >= 0.8

    def goal_peers(self, name: str, latency: int) -> Optional[tuple]:
        best = self.best_peer(name, latency)
        mine = self.median((name, latency, "attachfs"), "server")
        if not best or not mine or name not in ("renames", "deletes"):
            return None
        times = best[0] / mine
        more = "> " if best[1] else ""
        return ">= 20 x faster than the best peer", f"{more}{times:.0f} x", times >= 20

    def best_peer(self, name: str, latency: int) -> Optional[tuple]:
        """Seconds until on the server, and whether that is only what they were stopped at."""
        times = [self.median((name, latency, c.name), "server") for c in PEERS]
        known = [t for t in times if t]
        if known:
            return min(known), False
        tried = any(self.cell(name, self.work[name], latency, c.name) for c in PEERS)
        return (self.limit, True) if tried else None
