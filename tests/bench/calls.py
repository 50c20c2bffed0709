# SPDX-License-Identifier: MIT
"""
What the daemon does for each operation: system calls, counted by strace, and processor time, which is taken without
it, on other files. Without latency, and until the daemon has nothing to do any more.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import expect, machine
from harness import PERSCOM, Emulator, Mount, random_bytes, wait_until

BIG_BYTES = 64 << 20
FILES = 500
FILE_BYTES = 4096
MOST = 5  # calls that are named


def processor_time(pid: int) -> float:
    """Seconds of all threads there are: none ends while it is measured."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as f:
            total += int(f.read().split()[0])
    return total / 1e9


def counted(path: Path) -> dict:
    """Name -> calls, of what strace -c wrote."""
    found = {}
    for line in path.read_text().splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0][0].isdigit() and fields[-1] != "total":
            found[fields[-1]] = int(fields[3])
    return found


def read(path: Path) -> None:
    with open(path, "rb", buffering=0) as f:
        got = 0
        while data := f.read(1 << 20):
            got += len(data)
        expect(got, BIG_BYTES, "bytes")
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Bench:
    def __init__(self):
        self.rows: list = []  # what, CPU seconds, {call: count}, all for one operation

    def measure(self) -> int:
        """How many failed."""
        base = Path(tempfile.mkdtemp(prefix="attachfs-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        emulator = m = None
        small = {f"{kind}-{i:04}.bin": random_bytes(FILE_BYTES, i) for kind in "ab" for i in range(FILES)}
        big = {f"big-{kind}.bin": random_bytes(BIG_BYTES, kind) for kind in "ab"}
        try:
            emulator = Emulator(base / "emulator", PERSCOM, {"users": {"small": small, "big": big, "new": {}}})
            m = Mount(base / "mount", emulator, log="warning", poll=0, settle=600)
            m.start()
            records = {p.name: p for p in (m.path / "users").iterdir()}
            for record in records.values():
                os.listdir(record)
                for name in os.listdir(record)[:1]:
                    os.stat(record / name)  # sizes are asked for, of all
            here, there, new = records["small"], records["big"], records["new"]
            mib = BIG_BYTES >> 20
            self.once(m, "1 MiB read, cold", mib, lambda k: read(there / f"big-{k}.bin"))
            self.once(m, "1 MiB read, here already", mib, lambda k: read(there / f"big-{k}.bin"))
            self.once(m, "lookup", FILES, lambda k: [os.stat(here / f"{k}-{i:04}.bin") for i in range(FILES)])
            self.once(
                m, "file of 4 KiB read, cold", FILES, lambda k: [(here / n).read_bytes() for n in small if n[0] == k]
            )
            data = random_bytes(FILE_BYTES)
            self.once(
                m,
                "file of 4 KiB created",
                FILES,
                lambda k: [(new / f"{k}-{i}.bin").write_bytes(data) for i in range(FILES)],
            )
        except (AssertionError, OSError) as e:
            print(f"  FAILED: {type(e).__name__}: {e}", file=sys.stderr)
            return 1
        finally:
            if m:
                m.abandon()
            if emulator:
                emulator.process.terminate()
                emulator.process.wait()
            shutil.rmtree(base, ignore_errors=True)
        return 0

    def once(self, m: Mount, what: str, times: int, work) -> None:
        pid = m.process.pid
        before = processor_time(pid)
        work("a")
        settled(pid)
        seconds = (processor_time(pid) - before) / times
        out = m.path.parent / "strace"
        strace = subprocess.Popen(
            ["strace", "-f", "-c", "-o", out, "-p", str(pid)], stderr=subprocess.PIPE, text=True
        )
        expect("attached" in strace.stderr.readline(), True, "strace is there")
        work("b")
        settled(pid)
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=30)
        calls = {name: n / times for name, n in counted(out).items()}
        self.rows.append((what, seconds, calls))
        print(f"  {what}: {sum(calls.values()):.1f} calls", file=sys.stderr)

    def text(self) -> str:
        lines = [
            f"{machine()}; for each operation:",
            "",
            "| operation | processor time, µs | system calls | most of them |",
            "|---|---:|---:|---|",
        ]
        for what, seconds, calls in self.rows:
            most = sorted(calls, key=lambda name: -calls[name])[:MOST]
            told = ", ".join(f"{name} {calls[name]:.1f}" for name in most)
            lines.append(f"| {what} | {seconds * 1e6:.0f} | {sum(calls.values()):.1f} | {told} |")
        return "\n".join(lines) + "\n"

    def kept(self) -> list:
        common = {"latency_ms": 0, "contender": "attachfs"}
        return [
            {"workload": what, **common, "cpu_us": seconds * 1e6, "calls": sum(calls.values())}
            for what, seconds, calls in self.rows
        ]


def settled(pid: int) -> None:
    """It has done what it does afterwards: hashes and rows."""
    last = [processor_time(pid)]

    def quiet() -> bool:
        time.sleep(0.5)
        last.append(processor_time(pid))
        return last[-1] - last[-2] < 0.005

    wait_until(quiet, "the daemon to have nothing to do")
