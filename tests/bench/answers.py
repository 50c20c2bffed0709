# SPDX-License-Identifier: MIT
"""
How soon what needs no network is answered: with nobody waiting, and with 500 reads parked on a server
that takes requests and never answers. Each is done again and again; told are the median, the 99th
percentile and the worst, in milliseconds.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from common import expect, machine
from crowd import Crowd
from harness import PERSCOM, Emulator, Mount, binary, run, wait_until

PARKED = 500
CACHED = 50
TIMES = 200
COMMANDS = 40  # a process of its own each


def read_cached(m: Mount, record: Path, names: list):
    """Past the page cache: the daemon is what is measured."""

    def once(i: int) -> None:
        fd = os.open(record / names[i % len(names)], os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        expect(len(os.read(fd, 8192)), 5000, "bytes")
        os.close(fd)

    return once


def create(record: Path):
    def once(i: int) -> None:
        (record / f"new-{i}.txt").write_bytes(b"written meanwhile " * 100)

    return once


class Bench:
    def __init__(self):
        self.rows: list = []

    def measure(self) -> int:
        """How many failed."""
        base = Path(tempfile.mkdtemp(prefix="attachfs-bench-"))
        emulator = Emulator(base / "emulator", PERSCOM, generate=[f"users:1:{PARKED + CACHED}:5000"])
        m = Mount(base / "mount", emulator, log="warning", poll=0, timeout=900, settle=600)
        crowd = None
        try:
            m.start()
            record = next((m.path / "users").iterdir())
            names = sorted(os.listdir(record))
            for name in names[PARKED:]:
                expect(len((record / name).read_bytes()), 5000, "bytes")
            for name in names:
                expect((record / name).stat().st_size, 5000, "bytes")
            self.round(m, record, names[PARKED:], 0)
            emulator.faults({**PERSCOM.blob, "hang": True}, {**PERSCOM.api, "hang": True})
            crowd = Crowd(record / name for name in names[:PARKED])
            wait_until(lambda: m.status()["parked_calls"] >= PARKED, "all readers to wait")
            self.round(m, record, names[PARKED:], PARKED)
            expect(m.status()["parked_calls"] >= PARKED, True, "the readers wait still")
        except (AssertionError, OSError) as e:
            print(f"  FAILED: {type(e).__name__}: {e}", file=sys.stderr)
            return 1
        finally:
            if crowd:
                crowd.end()
            m.abandon()
            emulator.process.terminate()
            emulator.process.wait()
            shutil.rmtree(base, ignore_errors=True)
        return 0

    def round(self, m: Mount, record: Path, cached: list, parked: int) -> None:
        jobs = {
            "read a cached file of 5 KB": (read_cached(m, record, cached), TIMES),
            f"list a directory of {PARKED + CACHED} files": (lambda i: os.listdir(record), TIMES),
            "stat a file": (lambda i: os.stat(record / cached[i % len(cached)]), TIMES),
            "statvfs, as df": (lambda i: os.statvfs(m.path), TIMES),
            "read .attachfs/status": (lambda i: m.status(), TIMES),
            "attachfs status, a process": (lambda i: run(binary("attachfs"), "status", m.path), COMMANDS),
            "create, write and close a file": (create(m.path / "users" / record.name), TIMES),
        }
        for what, (job, times) in jobs.items():
            took = []
            for i in range(times):
                began = time.monotonic()
                job(i + parked * TIMES)
                took.append((time.monotonic() - began) * 1000)
            took.sort()
            told = (took[times // 2], took[times * 99 // 100], took[-1])
            self.rows.append((what, parked, *told))
            print(f"  {what}, {parked} parked: {told[0]:.2f} ms", file=sys.stderr)

    def text(self) -> str:
        lines = [
            f"{machine()}; milliseconds: median, 99th percentile, worst:",
            "",
            f"| | nobody waits | {PARKED} reads parked |",
            "|---|---:|---:|",
        ]
        for what in dict.fromkeys(row[0] for row in self.rows):
            cells = [" / ".join(f"{v:.1f}" for v in r[2:]) for r in self.rows if r[0] == what]
            lines.append(f"| {what} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def kept(self) -> list:
        keys = ("median_ms", "p99_ms", "worst_ms")
        common = {"latency_ms": 0, "contender": "attachfs"}
        return [
            {"workload": f"{what}, {parked} parked", **common, **dict(zip(keys, told))}
            for what, parked, *told in self.rows
        ]
