# SPDX-License-Identifier: MIT
"""
Lines of limited bandwidth. On a slow one, shared by both directions, files of 64 KiB are read while a large file
is on its way to the server, with and without bwlimit=; on a long fat one a large file is read from end to end. The line is delay.c's; ServiceMax has calls and bytes at one address, so that they share it.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import expect, machine
from contenders import end
from harness import SERVICEMAX, Emulator, Mount, binary, random_bytes

SLOW = (20, 1_250_000)  # milliseconds, bytes a second: 10 Mbit/s
FAT = (100, 125_000_000)  # 1 Gbit/s
BWLIMIT = "900K"
READS = 16
READ_BYTES = 64 << 10
UPLOAD_BYTES = 1 << 30
BIG_BYTES = 1 << 30


class Bench:
    def __init__(self):
        self.reads: dict = {}  # what goes on -> milliseconds of each read
        self.fat: dict = {}  # who -> seconds

    def measure(self) -> int:
        """How many failed."""
        failed = 0
        jobs = {"nothing else": (False, {}), "an upload": (True, {})}
        jobs[f"an upload, bwlimit={BWLIMIT}"] = (True, {"bwlimit": BWLIMIT})
        for what, (upload, options) in jobs.items():
            files = {f"f-{i:02}.bin": random_bytes(READ_BYTES, i) for i in range(READS)}
            failed += self.once(SLOW, files, lambda d, u=upload: self.read_beside(d, u), what, options)
        block = random_bytes(1 << 24)
        big = {"big.bin": b"".join(block[i:] + block[:i] for i in range(BIG_BYTES >> 24))}
        return failed + self.once(FAT, big, self.read_big, "fat", {"cache_size": "4G"})

    def once(self, line: tuple, files: dict, work, what: str, options: dict) -> int:
        base = Path(tempfile.mkdtemp(prefix="attachfs-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        process = m = emulator = None
        try:
            emulator = Emulator(base / "emulator", SERVICEMAX, {"events": {"record": files}, "users": {}})
            port = emulator.api.rpartition(":")[2].split("/")[0]
            argv = [binary("bench-delay"), line[0], "127.0.0.1", port, line[1]]
            process = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, text=True)
            near = emulator.api.replace(f":{port}", f":{process.stdout.readline().strip()}")
            options = {"log": "warning", "settle": 0, "poll": 0, **options}
            m = Mount(base / "mount", emulator, source=SERVICEMAX.source(near), **options)
            m.start()
            directory = next((m.path / "events").iterdir())
            expect(len(os.listdir(directory)), len(files), "files")
            told = work(directory)
            (self.fat if what == "fat" else self.reads)[what] = told
            print(f"  {what}: {told}", file=sys.stderr)
        except (AssertionError, OSError) as e:
            print(f"  {what} FAILED: {type(e).__name__}: {e}", file=sys.stderr)
            return 1
        finally:
            with contextlib.suppress(AssertionError):
                if m:
                    m.kill9()  # what it still has to send is not waited for
            if m:
                m.abandon()
            if emulator:
                emulator.stop()
            end(process)
            shutil.rmtree(base, ignore_errors=True)
        return 0

    def read_beside(self, directory: Path, upload: bool) -> list:
        if upload:
            block = random_bytes(1 << 20)
            with open(directory / "up.bin", "wb") as f:
                for i in range(UPLOAD_BYTES >> 20):
                    f.write(block[i:] + block[:i])
            time.sleep(3)
        took = []
        for i in range(READS):
            began = time.monotonic()
            # not one after another, or they would be fetched ahead
            data = (directory / f"f-{(i * 7 + 3) % READS:02}.bin").read_bytes()
            took.append(round((time.monotonic() - began) * 1000))
            expect(len(data), READ_BYTES, "bytes")
            time.sleep(0.2)
        return took

    def read_big(self, directory: Path) -> float:
        began = time.monotonic()
        subprocess.run(["dd", f"if={directory}/big.bin", "of=/dev/null", "bs=1M", "status=none"], check=True)
        took = time.monotonic() - began
        return round(took, 2)

    def text(self) -> str:
        lines = [
            f"{machine()}. {READS} files of 64 KiB read one by one over 10 Mbit/s and {SLOW[0]} ms, beside:",
            "",
            "| beside | median ms | worst ms |",
            "|---|---:|---:|",
        ]
        for what, took in self.reads.items():
            lines.append(f"| {what} | {statistics.median(took):.0f} | {max(took)} |")
        for seconds in self.fat.values():
            share = BIG_BYTES / seconds / FAT[1] * 100
            lines += ["", f"1 GiB in sequence over 1 Gbit/s and {FAT[0]} ms: {seconds:.1f} s, {share:.0f} % of the line."]
        return "\n".join(lines) + "\n"

    def kept(self) -> list:
        common = {"contender": "attachfs"}
        found = [
            {"workload": f"64 KiB beside {what}", "latency_ms": SLOW[0], **common, "median_ms": statistics.median(took)}
            for what, took in self.reads.items()
        ]
        return found + [
            {"workload": "1 GiB over 1 Gbit/s", "latency_ms": FAT[0], **common, "seconds": s} for s in self.fat.values()
        ]
