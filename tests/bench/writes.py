# SPDX-License-Identifier: MIT
"""
scripts/bench writes: writing through attachfs, beside its peers on the same work (W6 to W9).

Two clocks: until the program returns, and until everything is on the server. The first is measured against
the same program on a directory of the disk that also holds the caches, the second against curl --parallel,
which does only the calls that are needed, over as many connections as attachfs has. A filesystem that keeps
nothing (nothing.c) shows the kernel's and libfuse's share of the first.

attachfs and curl speak to the emulators of PERSCOM and of ServiceMax, the others to the origins of peers.py,
all on a memory filesystem, on loopback. Latency is added by delay.c, the same for all; without latency all connect directly.
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
from contenders import BIG_BYTES, FILE_BYTES, Attachfs, AttachfsServiceMax, AttachfsTuned, Curl
from contenders import CurlMany, CurlServiceMax, Ext4, Nothing, Stopped, Workload, run_limited
from harness import binary, random_bytes
from peers import Davfs, Rclone, RcloneS3, RcloneTuned, S3fs, S3fsTuned, Sshfs, SshfsTuned
import rounds
from rounds import Rounds, seconds

FILES = 1000


@dataclass
class Result(rounds.Result):
    application: Optional[float] = None  # None = stopped at the limit
    server: Optional[float] = None
    stopped: bool = False

    @property
    def sending(self) -> Optional[float]:
        """From when the program returned."""
        return self.server - self.application if self.server else None


OURS = (Attachfs, AttachfsTuned, AttachfsServiceMax)
LIMITS = (Ext4, Nothing, Curl, CurlMany, CurlServiceMax)
PEERS = (Rclone, RcloneTuned, RcloneS3, Davfs, S3fs, S3fsTuned, Sshfs, SshfsTuned)
# what each is measured against: the same server, as many connections
LIMIT_OF = {
    Attachfs.name: Curl.name,
    AttachfsTuned.name: CurlMany.name,
    AttachfsServiceMax.name: CurlServiceMax.name,
}
WORKLOADS = ("cp", "rsync", "again", "remount", "large", "renames", "deletes", "close", "fsync")


class Bench(Rounds):
    WORKLOADS = WORKLOADS
    PEERS = PEERS
    LEGEND = (
        "Seconds until the\nprogram returned / until all was on the server [requests; MB sent; seconds of processor"
        " time\nand most memory of the mount's process]; `nothing` is a FUSE filesystem that keeps nothing;\n"
        "`attachfs tuned` is attachfs with `slots=64`."
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
        rsync = lambda d: ["rsync", "-a", f"{self.source}/", d]
        create = [work, "create", FILES, FILE_BYTES]
        made = {
            "cp": Workload(
                "W6: cp -r of 1,000 x 4 KiB",
                lambda d: ["cp", "-r", f"{self.source}/.", d],
                small,
                nothing=True,
            ),
            "rsync": Workload("W9: rsync -a of 1,000 x 4 KiB", rsync, small, nothing=True),
            "again": Workload("W9b: rsync -a again", rsync, small, already=True, unchanged=True),
            "remount": Workload(
                "W9c: rsync -a after a remount",
                rsync,
                small,
                already=True,
                remount=True,
                unchanged=True,
            ),
            "large": Workload(
                "W7: 1 GiB by dd, with fsync",
                lambda d: ["dd", f"if={self.big}", f"of={d}/big.bin", "bs=1M", "conv=fsync"],
                {"big.bin": digest(self.big) if self.big.exists() else ""},
                size=BIG_BYTES,
            ),
            "renames": Workload(
                "W8: 1,000 renames",
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
        who = [Ext4, *(OURS if work.server else OURS[:1])]
        if work.size == BIG_BYTES or work.unchanged:
            who.remove(AttachfsTuned)  # one connection is all it takes
        if work.nothing:
            who.insert(1, Nothing)
        if work.server and not work.unchanged:
            who.append(Curl)
            if work.after and not work.before:
                who.append(CurlServiceMax)
        if work.size == FILE_BYTES and Curl in who:
            who.append(CurlMany)
        return who + list(PEERS) if self.peers and work.peers else who

    def latencies_of(self, work: Workload) -> list:
        if work.unchanged:
            return self.latencies[-1:]  # without anything to send it makes no difference
        return self.latencies if work.server else self.latencies[:1]

    def measured(self, c, work: Workload, number: int) -> Result:
        result = Result(number)
        if work.already:
            self.prepare(c, work)
        os.sync()
        c.begin()
        start = time.monotonic()
        try:
            c.do(self.limit)
            result.application = time.monotonic() - start
            c.used()
            if work.server and c.networked and not work.unchanged:
                c.settle(start + self.limit)
                result.server = time.monotonic() - start
        except Stopped:
            result.stopped = c.stopped = True
        result.take(c)
        if not result.stopped:
            c.check()
        return result

    def prepare(self, c, work: Workload) -> None:
        """The same, until all is on the server."""
        try:
            with c.near():
                c.do(2 * self.limit)
                c.settle(time.monotonic() + 2 * self.limit)
        except Stopped as e:
            c.stopped = True
            raise AssertionError(f"the first was not done after {2 * self.limit:.0f} s") from e
        if work.remount or not c.is_there():
            c.remount()
        c.reset()

    def took(self, result: Result) -> Optional[float]:
        return None if result.stopped else max(result.application, result.server or 0)

    def told(self, result: Result, work: Workload) -> str:
        if result.stopped:
            return "stopped at the limit"
        text = seconds(result.application)
        if result.server:
            text += f" / {seconds(result.server)}"
        return f"{text} [{result.requests}; {result.bytes}; {result.cpu} s; {result.peak}]"

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
            return seconds(application) + (self.counted(key) if who != "ext4" else "")
        if work.unchanged:
            return seconds(application) + self.counted(key)
        until = f"> {self.limit:.0f}" if server is None else seconds(server)
        if who in LIMIT_OF.values():
            return until + self.counted(key)
        limit = LIMIT_OF.get(who, Curl.name)
        ratio = self.ratio((name, latency), who, "server", limit, "server")
        beside = f", {ratio:.2f} x" if ratio else ""
        return f"{seconds(application)} / {until}{beside}{self.counted(key)}"

    def table(self) -> list:
        names = [c.name for c in (*LIMITS, *OURS, *(PEERS if self.peers else ()))]
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
                for who in [c.name for c in OURS if self.results.get((name, latency, c.name))]:
                    goals = (
                        *self.goal_done((name, latency, who)),
                        *self.goal_program(name, latency, who),
                        *self.goal_server(name, latency, who),
                        *self.goal_calls(name, latency, who),
                        *self.goal_seconds(name, latency, who),
                        *(self.goal_peers(name, latency, who) if latency else ()),
                    )
                    found += [(f"{where}, {who}", *goal) for goal in goals]
        return found

    def goal_program(self, name: str, latency: int, who: str) -> list:
        most = {"cp": 1.2, "rsync": 1.3, "large": 1.1, "close": 1.5}.get(name)
        cell = (name, latency)
        r = self.ratio(cell, who, "application", Ext4.name, "application")
        alone = self.ratio(cell, Nothing.name, "application", Ext4.name, "application")
        if not r or not most:
            return []
        also = f"; FUSE alone: {alone:.2f} x" if alone else ""
        return [(f"the program: <= {most} x ext4", f"{r:.2f} x{also}", r <= most)]

    def goal_server(self, name: str, latency: int, who: str) -> list:
        """Small files: as soon as curl has them there. A large one is sent when it is written."""
        cell, limit = (name, latency), LIMIT_OF[who]
        if name == "large":
            return self.goal_large(cell, who, limit)
        r = self.ratio(cell, who, "server", limit, "server")
        alone = self.ratio(cell, who, "sending", limit, "server")
        if not r or name not in ("cp", "rsync"):
            return []
        also = f"; sending alone: {alone:.2f} x"
        return [(f"until on the server: <= 1.2 x {limit}", f"{r:.2f} x{also}", r <= 1.2)]

    def goal_large(self, cell: tuple, who: str, limit: str) -> list:
        mine, disk, curl = (
            self.median((*cell, c), what)
            for c, what in ((who, "server"), (Ext4.name, "application"), (limit, "server"))
        )
        if not mine or not disk or not curl:
            return []
        return self.at_most(mine, disk + 1.1 * curl, f"until on the server: ext4 + 1.1 x {limit}:")

    def goal_calls(self, name: str, latency: int, who: str) -> list:
        """A server that cannot rename is sent the files anew."""
        calls = self.median((name, latency, who), "requests")
        most = {"cp": FILES, "rsync": FILES, "renames": 20, "again": 0}.get(name)
        if calls is None or most is None or (name == "renames" and who == AttachfsServiceMax.name):
            return []
        return self.at_most(calls, most, "requests", "{:,.0f}")

    def goal_seconds(self, name: str, latency: int, who: str) -> list:
        key = (name, latency, who)
        if name == "renames" and who != AttachfsServiceMax.name:
            return self.at_most(self.median(key, "server"), 0.3, "until on the server:")
        most = {"again": 0.08, "remount": 0.15}.get(name)
        return self.at_most(self.median(key, "application"), most, "the program:") if most else []

    def goal_peers(self, name: str, latency: int, who: str) -> list:
        best = self.best_peer(name, latency)
        mine = self.median((name, latency, who), "server")
        if not best or not mine or name not in ("renames", "deletes"):
            return []
        times = best[0] / mine
        more = "> " if best[1] else ""
        return [(">= 20 x faster than the best peer", f"{more}{times:.0f} x", times >= 20)]

    def best_peer(self, name: str, latency: int) -> Optional[tuple]:
        """Seconds until on the server, and whether that is only what they were stopped at."""
        times = [self.median((name, latency, c.name), "server") for c in PEERS]
        known = [t for t in times if t]
        if known:
            return min(known), False
        tried = any(self.cell(name, self.work[name], latency, c.name) for c in PEERS)
        return (self.limit, True) if tried else None
