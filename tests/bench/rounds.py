# SPDX-License-Identifier: MIT
"""
What the comparisons share: contenders that take turns, places for files, medians, results to keep.

A result takes `limit` seconds at most. When `minutes` are over, what is left is done once instead of in as
many rounds as were asked for. Who cannot take part, or failed, is told with the reason under the table.
"""

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from common import machine
from contenders import remove

SLOW_S = 5  # a peer that takes longer does it once
TMPFS = "/dev/shm"


@dataclass
class Rounds:
    """
    The base of a comparison. It says in WORKLOADS and PEERS who does what, and implements make_sources(),
    workloads(), latencies_of(), contenders(), measured(), took(), told(), table() and goals().
    """

    latencies: list
    runs: int
    limit: float
    peers: bool
    only: list
    minutes: float
    results: dict = field(default_factory=dict)  # (workload, latency, contender) -> [Result]
    failed: int = 0
    absent: dict = field(default_factory=dict)  # name of a contender -> why
    failures: dict = field(default_factory=dict)  # (title, name of a contender) -> why

    WORKLOADS = ()
    PEERS = ()

    def measure(self) -> int:
        """How many results failed."""
        unknown = set(self.only) - set(self.WORKLOADS)
        if unknown:
            there = ", ".join(self.WORKLOADS)
            raise SystemExit(f"no workload {', '.join(sorted(unknown))}; there are {there}")
        self.deadline = time.monotonic() + 60 * self.minutes
        if self.peers:
            self.absent = {p.name: p.absent() for p in self.PEERS if p.absent()}
        with contextlib.ExitStack() as stack:
            for name, where in (("base", os.environ.get("TMPDIR", "/var/tmp")), ("shm", TMPFS)):
                made = Path(tempfile.mkdtemp(prefix="attachfs-bench-", dir=where))
                made.chmod(0o755)
                stack.callback(remove, made)
                setattr(self, name, made)
            self.disk = filesystem(self.base)
            self.make_sources()
            self.work = self.workloads()
            for name, work in self.work.items():
                for latency in self.latencies_of(work):
                    print(f"{name}, {latency} ms", file=sys.stderr)
                    self.rounds(name, work, latency)
        return self.failed

    def rounds(self, name: str, work, latency: int) -> None:
        out = {c for c in self.PEERS if self.was_stopped(name, latency, c) or c.name in self.absent}
        for i in range(self.runs):
            if i and time.monotonic() > self.deadline:
                break
            who = [c for c in self.contenders(work) if c not in out]
            for kind in who[i % len(who) :] + who[: i % len(who)]:
                began = time.monotonic()
                result = self.once(kind, work, latency, i)
                if result:
                    self.results.setdefault((name, latency, kind.name), []).append(result)
                took = self.took(result) if result else None
                if kind in self.PEERS and (took is None or took > SLOW_S):
                    out.add(kind)
                print(
                    f"  {kind.name}: {self.told(result, work) if result else 'failed'}"
                    f"  ({time.monotonic() - began:.1f} s in all)",
                    file=sys.stderr,
                    flush=True,
                )

    def once(self, kind: type, work, latency: int, number: int):
        """None = it failed."""
        c = kind(self, work, latency)
        try:
            c.start()
            return self.measured(c, work, number)
        except (AssertionError, OSError, subprocess.SubprocessError, ValueError) as e:
            print(f"  {kind.name} FAILED: {type(e).__name__}: {e!s:.500}", file=sys.stderr)
            # what the peers get wrong is no failure of ours
            self.failed += kind not in self.PEERS
            self.failures[f"{work.title}, {latency} ms", kind.name] = " ".join(f"{e!s:.200}".split())
            return None
        finally:
            c.stop()

    def was_stopped(self, name: str, latency: int, kind: type) -> bool:
        """At the limit, without latency already: with it, it need not be tried."""
        less = [ms for ms in self.latencies if ms < latency]
        before = [r for ms in less for r in self.results.get((name, ms, kind.name), [])]
        return any(self.took(r) is None for r in before)

    # what came out

    def median(self, key: tuple, what: str) -> Optional[float]:
        values = [getattr(r, what) for r in self.results.get(key, [])]
        values = [v for v in values if v is not None]
        return statistics.median(values) if values else None

    def ratio(self, cell: tuple, one: str, what: str, other: str, others: str) -> Optional[float]:
        """One's time to another's: the median over the rounds."""
        ones = {r.round: getattr(r, what) for r in self.results.get((*cell, one), [])}
        theirs = {r.round: getattr(r, others) for r in self.results.get((*cell, other), [])}
        ratios = [ones[i] / theirs[i] for i in ones if ones[i] and theirs.get(i)]
        return statistics.median(ratios) if ratios else None

    def counted(self, key: tuple) -> str:
        """Medians of what the servers and the kernel counted; empty where they did not."""
        told = (
            ("requests", "{:,.0f}", 1),
            ("bytes", "{:,.1f} MB", 1e6),
            ("cpu", "{:.2f} s", 1),
            ("peak", "{:.0f} MB", 1e6),
        )
        values = [(self.median(key, what), form, unit) for what, form, unit in told]
        shown = [form.format(v / unit) for v, form, unit in values if v is not None]
        return f" [{'; '.join(shown)}]" if shown else ""

    def goal_done(self, key: tuple) -> list:
        """The goal that all have: where it is missed, the others were not measured."""
        results = self.results.get(key, [])
        if not results or any(self.took(r) is not None for r in results):
            return []
        return [("done within the limit", f"stopped after {self.limit:.0f} s", False)]

    def at_most(self, value: Optional[float], most: float, what: str, form: str = "{:.3f} s") -> list:
        """A goal: what is asked, what was measured and by how much it was missed, whether it is reached."""
        if value is None:
            return []
        beyond = f"; {value / most:.1f} times as much" if value > most and most else ""
        return [(f"{what} <= {form.format(most)}", form.format(value) + beyond, value <= most)]

    def text(self) -> str:
        lines = [
            f"{machine()}, caches on {self.disk}, medians of {self.runs} rounds. {self.LEGEND}",
            "",
            *self.table(),
            "",
            *self.missing(),
            "| goal | asked | measured | reached |",
            "|---|---|---|---|",
            *(f"| {w} | {a} | {m} | {'yes' if ok else 'no'} |" for w, a, m, ok in self.goals()),
        ]
        return "\n".join(lines) + "\n"

    def missing(self) -> list:
        said = [f"{who}: {why}" for who, why in self.absent.items()]
        said += [f"{who}, {title}: {why}" for (title, who), why in self.failures.items()]
        return ["Not measured:", *(f"- {line.replace('|', '/')}" for line in said), ""] if said else []

    def kept(self) -> list:
        """For JSON: each result with what it is of."""
        return [
            {"workload": name, "latency_ms": latency, "contender": who, **dataclasses.asdict(r)}
            for (name, latency, who), results in self.results.items()
            for r in results
        ]


@dataclass
class Result:
    """What one contender took in one round, besides the seconds."""

    round: int
    requests: Optional[int] = None
    bytes: Optional[int] = None
    cpu: Optional[float] = None
    peak: Optional[int] = None  # bytes of memory the mount's process had at most
    mounted: Optional[float] = None

    def take(self, c) -> None:
        self.requests, self.bytes = c.counts()
        self.cpu, self.peak = c.used()
        self.mounted = c.mounted_s


def seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"


def filesystem(path: Path) -> str:
    """Its type, as mountinfo tells."""
    best = ("", "?")
    with open("/proc/self/mountinfo") as f:
        for line in f:
            fields = line.split()
            kind = fields[fields.index("-") + 1]
            if str(path).startswith(fields[4].rstrip("/") + "/") and len(fields[4]) >= len(best[0]):
                best = (fields[4], kind)
    return best[1]
