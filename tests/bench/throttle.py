# SPDX-License-Identifier: MIT
"""
1,000 uploads to a server that takes 100 calls a minute, and a person who asks for changes, lists a
record never seen before and opens five of its files every 20 seconds meanwhile: how much of what the
server allows is used, and how long the person waits. It takes more than ten minutes.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from common import expect, machine
from harness import PERSCOM, Emulator, Mount, binary, random_bytes, run

UPLOADS = 1000
A_MINUTE = 100
EVERY_S = 20
RECORDS = 60


class Bench:
    def __init__(self):
        self.result: dict = {}
        self.waits: list = []

    def measure(self) -> int:
        base = Path(tempfile.mkdtemp(prefix="attachfs-bench-"))
        emulator = Emulator(
            base / "emulator",
            PERSCOM,
            generate=[f"users:{RECORDS}:5:5000"],
            toggles={"throttle": A_MINUTE},
        )
        m = Mount(base / "mount", emulator, log="warning", poll=60, settle=0)
        try:
            m.start()
            self.drain(m)
        except (AssertionError, OSError) as e:
            print(f"  FAILED: {type(e).__name__}: {e}", file=sys.stderr)
            return 1
        finally:
            m.abandon()
            emulator.process.terminate()
            emulator.process.wait()
            shutil.rmtree(base, ignore_errors=True)
        return 0

    def drain(self, m: Mount) -> None:
        records = sorted((m.path / "users").iterdir())
        for i in range(UPLOADS):
            (records[0] / f"new-{i:04}.txt").write_bytes(random_bytes(1500, i))
        began = time.monotonic()
        m.emulator.reset()
        seen: set = set()
        next_s = 10.0
        while not m.idle():
            status = m.status()
            seen.add(status["state"])
            if time.monotonic() - began >= next_s:
                next_s += EVERY_S
                self.waits.append(self.person(m, records[1 + len(self.waits) % (RECORDS - 1)]))
                left = status["pending"]["uploads"]
                print(f"  {left} left, waited {self.waits[-1]:.2f} s", file=sys.stderr, flush=True)
            time.sleep(0.25)
        seconds = time.monotonic() - began
        log = [r for r in m.emulator.requests() if r["port"] == "api"]
        taken = sum(r["status"] != 429 for r in log)
        expect(len(m.emulator.folder(f"users/{records[0].name}")), UPLOADS + 5, "files")
        expect("throttled" in seen, True, "the state said so")
        self.result = {
            "seconds": seconds,
            "calls": taken,
            "percent_of_allowance": taken * 6000 / (A_MINUTE * seconds),
            "refused": len(log) - taken,
            "visits": len(self.waits),
            "waited_median_s": sorted(self.waits)[len(self.waits) // 2],
            "waited_worst_s": max(self.waits),
        }

    def person(self, m: Mount, record: Path) -> float:
        began = time.monotonic()
        run(binary("attachfs"), "refresh", m.path)
        names = os.listdir(record)
        expect(len(names), 5, "files")
        for name in names:
            expect(len((record / name).read_bytes()), 5000, "bytes")
        return time.monotonic() - began

    def text(self) -> str:
        words = {
            "seconds": "seconds until all was there",
            "calls": "calls taken",
            "percent_of_allowance": "of what the limit allows in that time, %",
            "refused": "calls refused (429)",
            "visits": "times that somebody came",
            "waited_median_s": "... and waited for all of it, median, s",
            "waited_worst_s": "... worst, s",
        }
        lines = [
            f"{machine()}; {UPLOADS} uploads at {A_MINUTE} calls a minute, somebody every {EVERY_S} s:",
            "",
            "| | |",
            "|---|---:|",
            *(f"| {words[k]} | {v:.2f} |" if isinstance(v, float) else f"| {words[k]} | {v} |"
              for k, v in self.result.items()),
        ]
        return "\n".join(lines) + "\n"

    def kept(self) -> list:
        return [{"workload": "drain", "latency_ms": 0, "contender": "attachfs", **self.result}]
